"""Publishing: every ``state_publish_interval_ms`` each document is made from one view and takes the place of its file.

In the contract's order, each by a swap (a temporary file, then a rename): readers see the old document or the new one,
and nothing waits for the disk. This room only ever reports. A document that cannot be made, a write that fails and one
that is still under way are noted and tried again at the next loop, and trading never notices.

Times never go back: every file of a loop carries one date, which is the trader's clock, but no less than what any of them
carries already, whoever of this node wrote that and whatever the clock says since.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from system_under_test.machine import SWAP_PLAN, Replace
from system_under_test.trader.report.view import View
from system_under_test.trader.turn import Turn

NODE = "trader"
FOLDER = "state/"
DATED_MAX = 1e12
"""Unix seconds beyond this are milliseconds, or nonsense."""

UNMADE = (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError)
"""What making a document may raise."""

Make = Callable[[Turn, View], dict[str, Any] | None]
"""Makes a document; None when there is nothing to tell yet."""


@dataclass(slots=True)
class Surface:
    """One file: its name in the folder, the key of its date, who makes it and who hears that it stands; and how often it was
    written in this life."""

    name: str
    dated: str
    make: Make
    landed: Callable[[Turn], None] = lambda turn: None
    """told once the document that was made last stands in its file"""
    seq: int = 0
    file: str = field(init=False)

    def __post_init__(self) -> None:
        self.file = FOLDER + self.name


class Publisher:
    """The files of this node. Times in monotonic-epoch ms."""

    def __init__(self, surfaces: Sequence[Surface], interval_ms: int, boot: int, read: Callable[[Turn, int], View]) -> None:
        self.surfaces, self._interval_ms, self._boot, self._read = tuple(surfaces), interval_ms, boot, read
        self._stamp_ms = 0
        self._due_ts = 0
        self._waiting: dict[str, Surface] = {}
        """by file, whose last write has not been answered"""
        self._failing: set[str] = set()

    def restore(self, turn: Turn, files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
        """What an earlier life of this node wrote, by file. What cannot be read, or is somebody else's, says nothing."""
        found: dict[str, dict[str, Any]] = {}
        for each in self.surfaces:
            if each.file not in files:
                continue
            document = own(files[each.file], each.dated)
            if document is None:
                turn.note("state_unreadable", None, file=each.file)
            else:
                found[each.file] = document
                self._stamp_ms = max(self._stamp_ms, round(document[each.dated] * 1_000))
        return found

    def tick(self, turn: Turn) -> None:
        """Publish when it is time to. Loops that were missed are not made up for."""
        if turn.ts < self._due_ts:
            return
        self._due_ts = turn.ts + self._interval_ms
        self._stamp_ms = max(self._stamp_ms, turn.ts)
        view = self._read(turn, self._stamp_ms)
        for each in self.surfaces:
            self._publish(turn, each, view)

    def _publish(self, turn: Turn, surface: Surface, view: View) -> None:
        if surface.file in self._waiting:
            turn.note("state_write_failed", None, file=surface.file, why="the write before is still under way")
            return
        try:
            document = surface.make(turn, view)
        except UNMADE as why:
            turn.note("state_write_failed", None, file=surface.file, why=f"{type(why).__name__} {why}")
            return
        if document is None:
            return
        surface.seq += 1
        stamped = {**document, surface.dated: view.stamp_ms / 1_000,
                   "writer": {"node": NODE, "boot": self._boot, "seq": surface.seq}}
        self._waiting[surface.file] = surface
        turn.send(Replace(surface.file, orjson.dumps(stamped), SWAP_PLAN))

    def done(self, turn: Turn, file: str) -> None:
        """A file has been replaced."""
        surface = self._waiting.pop(file, None)
        if surface is not None:
            surface.landed(turn)
        if file in self._failing:
            self._failing.discard(file)
            turn.note("state_written_again", None, file=file)

    def failed(self, turn: Turn, file: str, why: str) -> bool:
        """A write has failed. True when the file is one of these."""
        if self._waiting.pop(file, None) is None:
            return False
        self._failing.add(file)
        turn.note("state_write_failed", None, file=file, why=why)
        return True


def own(data: bytes, dated: str) -> dict[str, Any] | None:
    """A document that this node wrote and dated; None when it is none, or cannot be read."""
    try:
        document: dict[str, Any] = orjson.loads(data)
        seconds = document[dated]
        if document["writer"]["node"] != NODE or isinstance(seconds, bool) or not 0 <= seconds < DATED_MAX:
            return None
        return document
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
