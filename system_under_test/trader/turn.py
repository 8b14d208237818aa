"""One call of ``handle``: its time, and what goes out of it.

Every organ of the trader gets the same `Turn` and writes into it, so that the order of what goes out is the order
in which it was decided; the crash points lie between these values.
"""

from __future__ import annotations

from system_under_test.machine import Note, Now, Value


class Turn:
    """``ts`` is monotonic-epoch ms: monotonic time plus an anchor taken once at start, so that a stepped wall clock
    never moves it. ``mono`` is for timers, ``wall`` for the clock gate alone."""

    __slots__ = ("now", "mono", "ts", "out")

    def __init__(self, now: Now, anchor: int) -> None:
        self.now = now
        self.mono = now.mono_ms
        self.ts = now.mono_ms + anchor
        self.out: list[Value] = []

    def send(self, value: Value) -> None:
        """Let a value go out."""
        self.out.append(value)

    def note(self, kind: str, intent_id: str | None = None, /, **fields: object) -> None:
        """One log line."""
        self.out.append(Note(kind, intent_id, fields))
