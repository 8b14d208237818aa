"""What people see on a terminal."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import console

NAMES = ["1_partial_fill_containment", "2_market_data_stale", "8_unknown_token_force_kill"]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """Seconds, by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def screen(text: str) -> list[str]:
    """The lines that a terminal shows after these bytes: carriage return, cursor up, erase below, and no wrapping."""
    lines, row = [""], 0
    for part in re.split(r"(\x1b\[\d*[AJm]|\x1b\[[0-9;]*m|\r|\n)", text):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.startswith("\x1b") and part.endswith("A"):
            row -= int(part[2:-1])
        elif part == "\x1b[J":
            lines[row:] = [""]
        elif part and part != "\r" and not part.startswith("\x1b"):
            lines[row] += part
    return lines


def result(drill: str, verdict: str = "PASS", status: str = "completed", says: tuple[str, ...] = ()) -> SimpleNamespace:
    return SimpleNamespace(drill=drill, verdict=verdict, status=status, says=says, time_to_safe_ms=1048, recording="/runs/x")


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 by 24, whatever runs the tests."""
    monkeypatch.setattr(console, "_size", lambda _stream: os.terminal_size((80, 24)))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_control_characters_never_reach_the_terminal() -> None:
    """ANSI escapes and line breaks in a system's words are written out."""
    assert console.plain("\x1b[31mred\n") == "\\x1b[31mred\\x0a"


def test_no_colour_without_a_terminal() -> None:
    """A pipe gets plain words."""
    assert console.painted("PASS", io.StringIO()) == "PASS"


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, too (no-color.org)."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert console.painted("PASS", Terminal()) == "\x1b[32mPASS\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert console.painted("PASS", Terminal()) == "PASS"


def test_columns_align() -> None:
    """Columns are padded to the widest cell, the last one is not."""
    assert console.table([["a", "bb"], ["ccc", "d"]], io.StringIO()) == "a    bb\nccc  d"


def test_each_running_drill_has_a_line_and_each_ended_one_keeps_its(columns: None) -> None:
    """What is drawn is drawn over; what is said stays; at the end nothing half-drawn remains."""
    stream, clock = Terminal(), Clock()
    progress = console.Progress(NAMES, stream, clock)
    for index in (0, 1):
        progress(index, "starting", {})
    clock.now = 7
    progress(1, "inject", {"id": "feed", "at_ms": 0})
    assert screen(stream.getvalue()) == [
        "  1_partial_fill_containment  starting the stack               7 s",
        "  2_market_data_stale         fault on: feed                   7 s",
        "0 of 3 done, 1 waiting, 0:07"]
    clock.now = 61
    progress(0, "done", {"result": result(NAMES[0])})
    progress(1, "done", {"result": result(NAMES[1], "FAIL", says=("FAIL latched: not yet",))})
    progress(2, "done", {"result": result(NAMES[2], "INCONCLUSIVE", "aborted")})
    progress.close()
    assert screen(stream.getvalue()) == [
        "PASS          1_partial_fill_containment  61 s, safe in 1048 ms",
        "FAIL          2_market_data_stale         61 s, safe in 1048 ms",
        "    FAIL latched: not yet",
        "INCONCLUSIVE  8_unknown_token_force_kill  aborted, 0 s, safe in 1048 ms",
        ""]


def test_nothing_drawn_is_wider_than_the_terminal(columns: None) -> None:
    """A line that wrapped could not be drawn over."""
    stream = Terminal()
    progress = console.Progress(["x" * 70, "y"], stream, Clock())
    progress(0, "inject", {"id": "a_fault_with_a_very_long_name"})
    assert max(map(len, screen(stream.getvalue()))) < 80


def test_many_drills_fit_the_terminal(columns: None) -> None:
    """More running drills than lines: the first ones are shown."""
    stream = Terminal()
    progress = console.Progress([f"drill_{number}" for number in range(64)], stream, Clock())
    for index in range(64):
        progress(index, "starting", {})
    assert len(screen(stream.getvalue())) <= 24


def test_elsewhere_each_event_is_a_line() -> None:
    """A log file gets no control sequences, and in CI the course of a drill can be read afterwards."""
    stream = io.StringIO()
    progress = console.Progress(NAMES, stream, Clock())
    progress(1, "inject", {"id": "feed"})
    progress.tick()
    progress(1, "done", {"result": result(NAMES[1])})
    progress.close()
    assert stream.getvalue() == ("  2_market_data_stale: fault on: feed\n"
                                 "PASS          2_market_data_stale         0 s, safe in 1048 ms\n")


def test_what_all_drills_say_is_said_once() -> None:
    """Twelve refusals for one reason are one reason."""
    stream = io.StringIO()
    progress = console.Progress(NAMES, stream, Clock())
    for index in (0, 1):
        progress(index, "done", {"result": result(NAMES[index], "INCONCLUSIVE", "refused", ("no proxy:\nline to type",))})
    assert stream.getvalue().count("line to type") == 1
    assert "the same as 1_partial_fill_containment" in stream.getvalue()


def test_long_lines_hang_below_their_last_column(columns: None) -> None:
    """On a terminal; a file gets each line whole, for grep."""
    line = "  open    P2-F-CLOCK             " + "word " * 14
    first, second = console.fitted(line.rstrip(), Terminal()).splitlines()
    assert len(first) <= 80 and second == " " * 33 + "word word word word word"
    assert console.fitted(line, io.StringIO()) == line


def test_paths_are_short_where_that_is_shorter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Below the working folder relative, elsewhere in full."""
    monkeypatch.chdir(tmp_path)
    assert console.shown(tmp_path / "evidence" / "runs") == "evidence/runs"
    assert console.shown("/elsewhere") == "/elsewhere"
