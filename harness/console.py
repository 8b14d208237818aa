"""What people see on a terminal: live progress, coloured words, tables. Colour only where there is a terminal.

Text that came from the system under test goes through ``plain`` first, so that it cannot steer the terminal.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

COLOURS = {"PASS": "32", "open": "32", "INCONCLUSIVE": "33", "MANUAL": "33", "refused": "33", "FAIL": "31", "closed": "31"}

PHRASES = {"starting": "starting the stack", "given": "waiting for steady state", "tomorrow": "waiting for the next day (UTC)",
           "inject": "fault on:",
           "heal": "fault off:", "press": "stimulus:", "converge": "recovering", "stopping": "stopping the stack"}
"""The words of ``run.py`` as a reader sees them."""

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def plain(text: str) -> str:
    """The text with every control character written out, line breaks included."""
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)


def shown(path: str | Path) -> str:
    """A path as a person wants it: relative to where they are when it lies below, else in full; harmless like any text."""
    full = Path(path).absolute()
    return plain(str(full.relative_to(Path.cwd()) if full.is_relative_to(Path.cwd()) else full))


def counted(number: int, noun: str) -> str:
    """``1 drill``, ``2 drills``."""
    return f"{number} {noun}{'s' * (number != 1)}"


def colours(stream: TextIO) -> bool:
    """Whether this stream wants colour: a terminal, and NO_COLOR is not set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def painted(word: str, stream: TextIO) -> str:
    """A verdict or state in its colour, where colour is wanted."""
    return painted_as(word, word, stream)


def painted_as(text: str, word: str, stream: TextIO) -> str:
    """A text in the colour of a verdict or state."""
    code = COLOURS.get(word)
    return f"\x1b[{code}m{text}\x1b[0m" if code and colours(stream) else text


def table(rows: Sequence[Sequence[str]], stream: TextIO, paint: int | None = None) -> str:
    """Rows as aligned columns; the column ``paint`` is coloured by its word. The last column is not padded."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        cells = []
        for column, cell in enumerate(row):
            shown = painted(cell, stream) if column == paint else cell
            padding = " " * (widths[column] - len(cell)) if column < len(widths) else ""
            cells.append(shown + padding)
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def fitted(text: str, stream: TextIO) -> str:
    """Lines too long for the terminal, wrapped at words and hung below their last column; elsewhere as they are."""
    width = _size(stream).columns if live(stream) else 0
    return "\n".join(_wrapped(line, width) for line in text.splitlines())


def _wrapped(line: str, width: int) -> str:
    if not width or len(ESCAPES.sub("", line)) <= width:
        return line
    columns = [each.end() for each in re.finditer(r"(?:^|\S)( {2,})(?=\S)", ESCAPES.sub("", line)) if each.end() < width // 2]
    indent = " " * (columns[-1] if columns else 2)
    lines, room = [""], width
    for word in line.split(" "):
        length = len(ESCAPES.sub("", word))
        if length + 1 > room and lines[-1].strip():
            lines.append(indent)
            room = width - len(indent)
        lines[-1] += word + " "
        room -= length + 1
    return "\n".join(each.rstrip() for each in lines)


def live(stream: TextIO) -> bool:
    """Whether lines can be drawn over: a terminal that obeys."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def columns(stream: TextIO) -> int:
    """How wide the terminal is; 80 where nobody knows."""
    return _size(stream).columns


def _size(stream: TextIO) -> os.terminal_size:
    try:
        found = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        found = os.terminal_size((0, 0))
    return os.terminal_size((found.columns or 80, found.lines or 24))


SAYS_SHOWN_MAX = 8
"""Sentences about one drill before a reader is sent to its verdict."""


class Progress:
    """Live progress of several runs: a line for each that is running on a terminal, a line for each event elsewhere."""

    def __init__(self, names: Sequence[str], stream: TextIO = sys.stderr,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._names = names
        self._stream = stream
        self._clock = clock
        self._live = live(stream)
        self._widest = max((len(name) for name in names), default=0)
        self._now: dict[int, str] = {}
        self._since: dict[int, float] = {}
        self._begin = clock()
        self._done = 0
        self._drawn = 0
        self._said: dict[str, str] = {}
        self._stopping = False

    def __call__(self, index: int, word: str, facts: Mapping[str, Any]) -> None:
        """An event of run ``index``; the shape is fleet.Watcher's."""
        self._since.setdefault(index, self._clock())
        if word == "done":
            self._finish(index, facts["result"])
            return
        self._now[index] = _phrase(word, facts)
        if self._live:
            self._draw()
        else:
            self._print(f"  {self._names[index]}: {self._now[index]}")

    def tick(self) -> None:
        """Seconds go on although nothing happened."""
        if self._live and self._now:
            self._draw()

    def stopping(self, how: str) -> None:
        """Say at once that a Ctrl-C was heard."""
        self._stopping = True
        self._clear()
        self._print(f"interrupted: {how}")

    def close(self) -> None:
        """Leave the terminal to whoever writes next."""
        self._clear()
        self._stream.flush()

    def _finish(self, index: int, result: Any) -> None:
        self._now.pop(index, None)
        self._done += 1
        self._clear()
        took = self._clock() - self._since[index]
        safe = f", safe in {result.time_to_safe_ms} ms" if result.time_to_safe_ms is not None else ""
        status = "" if result.status == "completed" else f"{result.status}, "
        verdict = painted(result.verdict, self._stream) + " " * (12 - len(result.verdict))
        self._print(f"{verdict}  {self._names[index]:{self._widest}}  {status}{took:.0f} s{safe}")
        for sentence in () if self._stopping and result.status == "interrupted" else result.says[:SAYS_SHOWN_MAX]:
            self._say(self._names[index], sentence)
        if len(result.says) > SAYS_SHOWN_MAX:
            self._print(f"    … and {len(result.says) - SAYS_SHOWN_MAX} more in {shown(result.recording)}/verdict.json")
        if self._live:
            self._draw()

    def _passed(self, index: int) -> None:
        """A run that needs no line of its own, because there are many."""
        self._now.pop(index, None)
        self._done += 1

    def _say(self, name: str, sentence: str) -> None:
        """One sentence; what another drill said already is not said at length again."""
        before = self._said.setdefault(sentence, name)
        lines = [plain(line) for line in sentence.splitlines()] if before == name else [f"the same as {before}"]
        for line in lines:
            self._print(fitted(f"    {line}", self._stream))

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    def _draw(self) -> None:
        """The running drills below everything that was said for good, each on one line."""
        size = _size(self._stream)
        now = self._clock()
        lines = [f"  {self._names[index]:{self._widest}}  {what:28}  {now - self._since[index]:4.0f} s"
                 for index, what in sorted(self._now.items())][: size.lines - 3]
        lines.append(f"{self._told()}, {self._elapsed()}")
        self._clear()
        self._stream.write("\n".join(line[: size.columns - 1] for line in lines))
        self._stream.flush()
        self._drawn = len(lines)

    def _told(self) -> str:
        """How far everything is."""
        waiting = len(self._names) - self._done - len(self._now)
        return f"{self._done} of {len(self._names)} done" + (f", {waiting} waiting" if waiting else "")

    def _elapsed(self) -> str:
        return _minutes(self._clock() - self._begin)

    def _clear(self) -> None:
        """Take away what was drawn last; the cursor stands where it began."""
        if self._drawn:
            up = f"\x1b[{self._drawn - 1}A" if self._drawn > 1 else ""
            self._stream.write(f"\r{up}\x1b[J")
            self._drawn = 0


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _phrase(word: str, facts: Mapping[str, Any]) -> str:
    """What a run is doing, in a reader's words."""
    if word == "said":
        return plain(str(facts.get("text", "")))
    phrase = PHRASES.get(word, word)
    return plain(f"{phrase} {facts['id']}" if "id" in facts else phrase)
