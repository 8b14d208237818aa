"""The matrix of sabotages on a terminal: how it gets on, and the table in the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from harness import console
from harness.mutants import Mutant, Plan
from harness.pack.matrix import Matrix
from harness.pack.matrix_page import column_names, mark
from harness.pack.plain import visible

SIGNS = "# caught by name   x caught as well   . not noticed   ? nothing to be said   ! SLIPPED THROUGH"
PAINTS = {"#": "PASS", "!": "FAIL", "?": "INCONCLUSIVE"}


class Progress:
    """A line that is drawn over on a terminal; elsewhere a line for each sabotage whose own drill has judged it."""

    def __init__(self, plan: Plan, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream or sys.stderr, clock
        self._live = console.live(self._stream)
        self._runs, self._mutants = len(plan.cells), len(plan.mutants)
        self._done = self._caught = self._judged = 0
        self._now: dict[tuple[str, str], None] = {}
        self._begin = clock()
        self._drawn = False
        self._stopping = False

    def began(self, who: Mutant | None, drill: str) -> None:
        self._now[(who.name if who else "healthy", drill)] = None
        self._draw()

    def ended(self, who: Mutant | None, cell: Mapping[str, Any], why: str | None) -> None:
        """Say at once what must not be: a control that did not pass, a sabotage that slipped through."""
        self._now.pop((who.name if who else "healthy", cell["drill"]), None)
        self._done += 1
        if self._stopping:
            return
        if who is None:
            if cell["verdict"] != "PASS":
                self._say(cell["verdict"], f"healthy system under {cell['drill']}: it must PASS, or nothing is shown")
        elif cell["drill"] == who.drill:
            self._judged += 1
            self._caught += why is None
            if why is not None:
                self._say("FAIL", f"{who.name} slipped through {who.drill}: {why}")
            elif not self._live:
                self._say("PASS", f"{who.name}: caught by {who.drill}, {who.check}")
        self._draw()

    def tick(self) -> None:
        self._draw()

    def stopping(self, how: str) -> None:
        self._stopping = True
        self._clear()
        print(f"interrupted: {how}", file=self._stream, flush=True)

    def close(self) -> None:
        self._clear()
        self._stream.flush()

    def _say(self, word: str, text: str) -> None:
        self._clear()
        print(f"{console.painted(word, self._stream)}  {visible(text)}", file=self._stream, flush=True)

    def _draw(self) -> None:
        if not self._live or self._stopping:
            return
        seconds = int(self._clock() - self._begin)
        now = next(iter(self._now), None)
        doing = f"  {now[0]} · {now[1]}" if now else ""
        line = (f"{self._done} of {self._runs} runs, {self._caught} of {self._mutants} sabotages caught, "
                f"{seconds // 60}:{seconds % 60:02}{doing}")
        self._clear()
        self._stream.write(visible(line)[: console.columns(self._stream) - 1])
        self._stream.flush()
        self._drawn = True

    def _clear(self) -> None:
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._drawn = False


def render(matrix: Matrix, stream: TextIO) -> str:
    """The table of sabotage × drill, what caught each, and the whole in one line."""
    numbers = column_names(matrix)
    width = max(len(row["name"]) for row in matrix.rows)
    head = f"{'sabotage':{width}}  {'organ':9}  " + " ".join(f"{each:>2}" for each in numbers.values()) + "  caught by"
    lines = [head, *(_line(row, list(numbers), width, stream) for row in matrix.rows)]
    healthy = f"{len(matrix.document['controls'])} controls: " + (
        "the healthy system passed each" if not matrix.sick else
        "; ".join(f"{each['drill']} {each['verdict']}" for each in matrix.sick))
    return "\n".join((*lines, "", SIGNS, visible(healthy), f"{matrix.says}, {_took(matrix.document['made']['took_ms'])}"))


def _line(row: Mapping[str, Any], drills: Sequence[str], width: int, stream: TextIO) -> str:
    signs = []
    for drill in drills:
        sign = mark(row, drill)
        signs.append(" " + (console.painted_as(sign, PAINTS[sign], stream) if sign in PAINTS else sign))
    told = f"{row['named']['drill'].partition('_')[0]}/{row['named']['check']}" if row["caught"] else f"NOT: {row['why']}"
    return f"{visible(row['name']):{width}}  {visible(row['organ']):9}  {' '.join(signs)}  {visible(told)}".rstrip()


def _took(ms: int) -> str:
    seconds = round(ms / 1000)
    return f"{seconds // 60}:{seconds % 60:02} minutes" if seconds >= 60 else f"{seconds} s"
