"""Text that strangers wrote, and pictures, on the way to a page."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.pack.derive import _word
from harness.pack.junit import _clean
from harness.pack.pages import page
from harness.pack.plain import CUT, cell, markdown, visible
from harness.pack.story import force_of
from harness.pack.svg import Band, Lane, draw


@pytest.mark.parametrize(("text", "shown"), [
    ("\x1b[2J", "\\x1b[2J"), ("a\u202eb", "a\\u202eb"), ("a\nb\tc", "a b c"), ("\x00", "\\x00"), ("\u2028", "\\u2028"),
    ("ärger, 東京", "ärger, 東京"), (None, "None"), ("\ud800", "\\ud800"),
])
def test_every_character_shows_itself(text: object, shown: str) -> None:
    """Controls, direction marks and half characters are spelled out; letters of any script stay."""
    assert visible(text) == shown


def test_a_cut_says_so() -> None:
    """Nobody takes a part for the whole."""
    assert visible("x" * 50, 20) == "x" * (20 - len(CUT)) + CUT


@given(st.text())
def test_markdown_keeps_to_its_line(text: str) -> None:
    """No text breaks its line, opens a tag or a cell, or speaks to a terminal."""
    made = markdown(text)
    assert len(made.splitlines()) <= 1
    assert not any(ord(each) < 32 or ord(each) == 127 for each in made)
    for special in "<>|`[":
        assert made.replace(f"\\{special}", "").count(special) == 0


@pytest.mark.parametrize(("value", "written"), [
    ("=1+1", "'=1+1"), ("@x", "'@x"), ("-x", "'-x"), ("+x", "'+x"), (-5, "-5"), (None, ""), (True, "True"), ("plain", "plain"),
])
def test_a_spreadsheet_runs_nothing(value: object, written: str) -> None:
    """Text that begins like a formula is led by an apostrophe; numbers stay numbers."""
    assert cell(value) == written


@given(st.text())
def test_junit_text_is_lawful_xml(text: str) -> None:
    """Whatever a check says, the document can be read."""
    element = ElementTree.Element("x", message=_clean(text))
    assert ElementTree.fromstring(ElementTree.tostring(element)).get("message") is not None


@given(st.lists(st.tuples(st.integers(-10, 90_000), st.integers(-10, 90_000), st.text()), max_size=5),
       st.lists(st.integers(-1000, 100_000), max_size=30), st.integers(0, 80_000), st.text())
def test_a_picture_is_always_readable(bands: list[tuple[int, int, str]], ticks: list[int], zero: int, title: str) -> None:
    """Any times and any labels give well-formed SVG within the frame, the same each time, and no script."""
    lanes = [Lane(title, tuple(Band(begin, max(begin, end), "fault", label) for begin, end, label in bands)),
             Lane("ticks", ticks=tuple(ticks))]
    picture = draw(title, lanes, 0, 80_000, zero)
    assert picture == draw(title, lanes, 0, 80_000, zero)
    for element in ElementTree.fromstring(picture).iter():
        assert element.tag.rpartition("}")[2] in {"svg", "title", "rect", "line", "text"}
        assert not [name for name in element.attrib if name.startswith("on") or "href" in name]
        assert 0 <= float(element.get("x", "0")) <= 960


def test_an_empty_recording_has_a_picture() -> None:
    """Nothing happened is something to show."""
    assert ElementTree.fromstring(draw("empty", [Lane("mode")], 0, 0, 0)) is not None


def test_a_force_in_words() -> None:
    """A fault of a drill file reads as one line."""
    assert force_of({"at": "0s", "for": "6s", "stall": {"link": "market_data", "toward": "client"}}) == \
        "stall link=market_data toward=client"
    assert force_of(None) == ""


def test_templates_cannot_forget_to_escape() -> None:
    """In every kind of page a value is harmless without a filter in the template."""
    text = page("trigger.md.j2", story=_Story(), verdict={}, checks=[], faults=[], stimuli=[]).decode()
    assert "\x1b" not in text and "<script>" not in text.replace("\\<script", "")


class _Story:
    """As much of a story as the page asks for, all of it hostile."""

    name = "\x1b]0;<script>"
    zero_ms = 0
    drill = {"title": "<script>", "why": "\x1b"}
    head = {"world": "<script>", "placebo": True}


def test_a_word_of_any_kind_is_shown_as_itself() -> None:
    """What a run log calls a verdict may be anything; equal values that are written otherwise stay apart."""
    shown = {said: _word(said) for said in ("PASS", "True", "1")}
    assert 'class="word PASS"' in shown["PASS"] and 'class="word "' in shown["1"]
    assert (_word(True), _word(1)) == (shown["True"], shown["1"]) and "1.0" in _word(1.0)
    assert "[&#39;x&#39;]" in _word(["x"])
