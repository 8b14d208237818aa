"""What people see on a terminal: live progress, coloured words, tables. Colour only where there is a terminal.

Text that came from the system under test goes through ``plain`` first, so that it cannot steer the terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

COLOURS = {"PASS": "32", "open": "32", "INCONCLUSIVE": "33", "MANUAL": "33", "refused": "33", "FAIL": "31", "closed": "31"}


def plain(text: str) -> str:
    """The text with every control character written out, line breaks included."""
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)


def colours(stream: TextIO) -> bool:
    """Whether this stream wants colour: a terminal, and NO_COLOR is not set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def painted(word: str, stream: TextIO) -> str:
    """A verdict or state in its colour, where colour is wanted."""
    code = COLOURS.get(word)
    return f"\x1b[{code}m{word}\x1b[0m" if code and colours(stream) else word


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


class Progress:
    """Live progress of several runs: one status line on a terminal, one line per event elsewhere."""

    def __init__(self, names: Sequence[str], stream: TextIO = sys.stderr) -> None:
        self._names = names
        self._stream = stream
        self._live = stream.isatty()
        self._now: dict[int, str] = {}
        self._done = 0

    def __call__(self, index: int, word: str, facts: Mapping[str, Any]) -> None:
        """An event of run ``index``; the shape is fleet.Watcher's."""
        if word == "done":
            self._finish(index, facts["result"])
            return
        detail = f" {plain(str(facts['id']))}" if "id" in facts else ""
        self._now[index] = f"{word}{detail}"
        if self._live:
            self._draw()
        else:
            print(f"  {self._names[index]}: {word}{detail}", file=self._stream, flush=True)

    def _finish(self, index: int, result: Any) -> None:
        self._now.pop(index, None)
        self._done += 1
        safe = f"safe after {result.time_to_safe_ms} ms" if result.time_to_safe_ms is not None else ""
        verdict = painted(result.verdict, self._stream)
        if self._live:
            self._stream.write("\r\x1b[K")
        print(f"{verdict:<4} {self._names[index]} ({result.world}, {result.status}) {safe}".rstrip(), file=self._stream)
        for sentence in result.says[:8]:
            print(f"       {plain(sentence)}", file=self._stream)
        if len(result.says) > 8:
            print(f"       … and {len(result.says) - 8} more in {result.recording}/verdict.json", file=self._stream)
        self._stream.flush()
        if self._live:
            self._draw()

    def _draw(self) -> None:
        width = os.get_terminal_size(self._stream.fileno()).columns if self._live else 80
        short = [f"{self._names[index].partition('_')[0]}:{what}" for index, what in sorted(self._now.items())]
        line = f"[{self._done}/{len(self._names)}] " + "  ".join(short)
        self._stream.write(f"\r\x1b[K{line[: width - 1]}")
        self._stream.flush()
