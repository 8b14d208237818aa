"""Virtual time: one heap of events and the loop that empties it. Integer microseconds from the start of the run."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

MS = 1_000
"""Microseconds in a millisecond."""


class Agenda:
    """What will happen when. Events at one moment happen in the order in which they were put."""

    def __init__(self) -> None:
        self.now_us = 0
        self._heap: list[tuple[int, int, Callable[[Any], None], Any]] = []
        self._count = 0
        self._halted = False

    @property
    def now_ms(self) -> int:
        return self.now_us // MS

    def at(self, at_us: int, act: Callable[[Any], None], argument: Any = None) -> None:
        """Call ``act(argument)`` at that moment; a moment that has passed means now."""
        self._count += 1
        heappush(self._heap, (at_us if at_us > self.now_us else self.now_us, self._count, act, argument))

    def halt(self) -> None:
        """Return from ``run_to`` after the event that is being handled."""
        self._halted = True

    def run_to(self, until_us: int) -> bool:
        """Let everything up to and including that moment happen. False when an event halted it before."""
        heap = self._heap
        self._halted = False
        while heap and heap[0][0] <= until_us:
            self.now_us, _, act, argument = heappop(heap)
            act(argument)
            if self._halted:
                return False
        if until_us > self.now_us:
            self.now_us = until_us
        return True
