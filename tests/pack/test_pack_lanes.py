"""The three contracts on one axis: which lanes a picture has, and what stands in them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.pack.story import Story, read_story
from harness.pack.svg import Band, Lane, Mark, draw
from harness.pack.timeline import _files, _state, timeline
from harness.recording.script import build, read
from harness.recording.tape import Tape

ROOT = Path(__file__).parents[2]
RECORDINGS = ROOT / "fixtures/recordings"


def told(tmp_path: Path, name: str) -> Story:
    return read_story(build(read(RECORDINGS / f"{name}.yaml"), tmp_path / "run"))


def shown(story: Story) -> tuple[list[str], list[str]]:
    """The texts of the picture, and its titles."""
    picture = ElementTree.fromstring(timeline(story, ROOT))
    return [[each.text or "" for each in picture.iter() if each.tag.endswith(kind)] for kind in ("text", "title")]  # type: ignore[return-value]


def test_the_three_contracts_stand_side_by_side(tmp_path: Path) -> None:
    """Each part under its heading, in this order; a kill is seen in the lanes of all three."""
    texts, titles = shown(told(tmp_path, "lawful/three_contracts"))
    order = ["/status", "mode", "opening latch", "ops status", "marketdata", "strategy", "execution", "ingest", "Trading Floor",
             "state files", "risk mode", "drawdown", "positions_state", "risk_snapshot", "what was done", "fault feed",
             "the exchange's books", "orders that open"]
    assert [each for each in texts if each in order] == order
    for word in ("Kill", "HALTED KILL_SWITCH", "HALTED MARKETDATA_STALE", "DEGRADED MARKETDATA_STALE", "HALTED", "NORMAL",
                 "fresh"):
        assert any(title.startswith(f"{word}:") for title in titles), word


def test_a_file_that_is_damaged_or_gone_is_seen(tmp_path: Path) -> None:
    """Torn and taken away, each as such; and a drill that watches one contract has no headings."""
    torn = [shown(told(tmp_path / name, f"broken/state_files_whole{name}"))[1] for name in ("_torn", "_removed")]
    assert any(title.startswith("unreadable:") for title in torn[0])
    assert any(title.startswith("missing:") for title in torn[1])
    texts, _ = shown(told(tmp_path / "plain", "lawful/market_data_stale"))
    assert "mode" in texts and not {"/status", "ops status", "what was done"} & {*texts}


@pytest.mark.parametrize("name", ["a heading", "<script>", "\x1b[2J"])
def test_a_heading_is_a_name_and_a_line(name: str) -> None:
    """As harmless as every other text."""
    picture = draw("t", [Lane(name, heading=True)], 0, 1000, 0)
    assert ElementTree.fromstring(picture) is not None and "\x1b" not in picture and "<script" not in picture


def test_a_mark_goes_through_all_lanes() -> None:
    """Its line from its words to the foot, the words where there is more room; all of it in the title."""
    says = "switch_stops_opening: ops_execution had said what stops, and status did not say that it stopped " * 3
    for at_ms, anchor in ((100, "start"), (9_900, "end")):
        picture = ElementTree.fromstring(draw("t", [Lane("a"), Lane("b")], 0, 10_000, 5_000, [Mark(at_ms, "FAIL", says)]))
        (text,) = [each for each in picture.iter() if each.tag.endswith("text") and (each.text or "").startswith("FAIL at")]
        assert text.get("text-anchor") == anchor and (text.text or "").endswith("…")
        assert says in "".join(text.itertext())
        (line,) = [each for each in picture.iter() if each.get("stroke") == "#b42318"]
        assert line.get("x1") == line.get("x2") and float(line.get("y2", 0)) > float(line.get("y1", 0)) + 50


def test_a_label_is_shortened_to_its_band() -> None:
    """What was done is told as far as it fits, and not at all where only a letter or two would."""
    bands = tuple(Band(begin, end, "fault", "overwrite node=execution file=operator/EXECUTION_HALTED") for begin, end in (
        (0, 3_000), (6_000, 6_100)))
    texts = [each.text for each in ElementTree.fromstring(draw("t", [Lane("f", bands)], 0, 10_000, 0)).iter()
             if each.tag.endswith("text") and (each.text or "").startswith("over")]
    assert len(texts) == 1 and str(texts[0]).endswith("…") and len(str(texts[0])) > 20


def test_a_placebo_shows_what_it_left_out(tmp_path: Path) -> None:
    """Nobody takes a force for applied that was not."""
    story = read_story(build({**read(RECORDINGS / "lawful/three_contracts.yaml"), "placebo": True}, tmp_path / "run"))
    texts, titles = shown(story)
    assert "what a placebo leaves out" in texts and "what was done" not in texts
    assert any(title.startswith("NOT DONE: ") for title in titles)


def test_a_file_that_never_comes_is_missing_all_the_while(tmp_path: Path) -> None:
    """Watched, and nobody ever wrote it: one band that says so; one of which nothing at all is known: none."""
    tape = Tape(tmp_path)
    (tmp_path / "stack.yaml").write_text("surfaces: {nav: {contract: state_files.nav}, kpis: {contract: state_files.kpis}}")
    tape.head(drill={"name": "x"}, placebo=False,
              surfaces={each: {"every_ms": 1000, "node": "trader"} for each in ("nav", "kpis")})
    for due in range(0, 9_000, 1_000):
        tape.silence("nav", due, due, due, "missing")
    tape.mark("stopped", 9_000, 9_100)
    tape.seal("completed", {})
    lanes = {lane.name: lane.bands for lane in _files(read_story(tmp_path), ROOT)}
    assert [band.label for band in lanes["nav"]] == ["missing"] and lanes["nav"][0].end_ms >= 9_000
    assert lanes.get("kpis", ()) == ()


def test_what_a_system_says_is_bounded() -> None:
    """A megabyte in a state, a reason or a name makes no megabyte of a page."""
    said = _state("status", {"status": {"state": "OK" * 500_000, "reason_codes": ["x" * 1_000_000, "y"]}})[1]
    picture = draw("t", [Lane("a" * 10**6, (Band(0, 1_000, "OK", said), Band(1_000, 2_000, "OK", "z" * 10**6)))], 0, 2_000, 0,
                   [Mark(500, "FAIL", "w" * 10**6)])
    assert len(picture) < 10_000
