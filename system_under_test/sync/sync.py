"""The sync process as a machine: look at the source on a fixed beat, and replace the mirror when it shows something else.

A source that is well and has not changed is written again only now and then, as a sign of life; one that is not well is,
each time, so that whoever reads the mirror finds the last known good there even after somebody has removed or spoiled it.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from system_under_test.machine import (
    Done,
    Exit,
    Failed,
    Look,
    Note,
    Now,
    Replace,
    Request,
    Seen,
    Start,
    Stop,
    Timer,
    Value,
)
from system_under_test.state import Author, answer
from system_under_test.sync.mirror import STILL, TAKEN, Mirror, Source, follow, read_own, read_source

SOURCE, OWN = "state/nav.json", "state/nav_state.json"
STILL_MS = 4_000
"""A source that is well and says nothing new for this long has lost its writer: it is written every second or so."""
AGAIN_MS = 2_000
"""The mirror is written at least this often."""


class Sync:
    """One look in flight at a time, one write in flight at a time."""

    def __init__(self, node: str, writer: str, interval_ms: int) -> None:
        self._node, self._writer, self._interval_ms = node, writer, interval_ms
        self._mirror: Mirror | None = None
        self._condition: str | None = None
        self._written: tuple[Mirror, str] | None = None
        self._writing: tuple[Mirror, str] | None = None
        self._restored = False
        self._refused: str | None = None
        self._new_ms = self._written_ms = 0
        self._next_ms = 0

    def handle(self, now: Now, value: Value) -> tuple[Value, ...]:
        """Start, the beat, what was seen, what was written, a question, or the wish to stop."""
        match value:
            case Start():
                self._author = Author(self._node, value.boot)
                self._next_ms = self._new_ms = now.mono_ms
                return (Look(OWN), *self._beat(now))
            case Timer(name="beat"):
                return self._beat(now)
            case Seen(source=name):
                return self._seen(now, name, value.value)
            case Done():
                self._written, self._writing, self._refused = self._writing, None, None
                return ()
            case Failed(op=op):
                return self._failed(now, op, value.why)
            case Request():
                return (answer(value, now, self._node),)
            case Stop():
                return (Timer("beat", None), Exit(0))
        return ()

    def _beat(self, now: Now) -> tuple[Value, ...]:
        self._next_ms = max(self._next_ms + self._interval_ms, now.mono_ms + 1)
        return Timer("beat", self._next_ms), Look(SOURCE)

    def _failed(self, now: Now, op: object, why: str) -> tuple[Value, ...]:
        """The disk did not do it. The next beat tries again, and it is written down once."""
        if not isinstance(op, Replace):
            return self._seen(now, op.source, None) if isinstance(op, Look) else ()
        known, self._refused, self._writing = self._refused, why, None
        return () if known == why else (Note("mirror_refused", None, {"why": why}),)

    def _seen(self, now: Now, name: str, data: bytes | None) -> tuple[Value, ...]:
        if name == OWN:
            return self._restore(data)
        return self._follow(now, read_source(data, self._writer)) if self._restored else ()

    def _restore(self, data: bytes | None) -> tuple[Value, ...]:
        """Begin where our own file left off. One that is not whole is written down, and replaced by the next write."""
        self._restored = True
        if data is None:
            return ()
        self._mirror = read_own(data, self._node, self._writer)
        return () if self._mirror is not None else (Note("mirror_corrupted", None, {"bytes": len(data)}),)

    def _follow(self, now: Now, source: Source) -> tuple[Value, ...]:
        said: tuple[Value, ...] = ()
        before = self._mirror
        self._mirror, condition = follow(before, source)
        if self._mirror != before or condition != TAKEN:
            self._new_ms = now.mono_ms
        elif now.mono_ms - self._new_ms > STILL_MS:
            condition = STILL
        if condition != self._condition:
            said = (Note("mirror_source", None, {"condition": condition}),)
            self._condition = condition
        return (*said, *self._publish(now, condition))

    def _publish(self, now: Now, condition: str) -> tuple[Value, ...]:
        if self._mirror is None or self._writing is not None:
            return ()
        shown = (self._mirror, condition)
        if condition == TAKEN and shown == self._written and now.mono_ms - self._written_ms < AGAIN_MS:
            return ()
        self._writing, self._written_ms = shown, now.mono_ms
        return (self._author.replace(OWN, self._mirror.document(condition)),)


def make(environment: Mapping[str, str]) -> Sync:
    """A mirror of what the node SOURCE_WRITER (else ``trader``) writes, on the beat of POLICY's ``sync_interval_ms``."""
    policy = orjson.loads(environment["POLICY"])
    return Sync(environment.get("NODE_NAME") or "sync", environment.get("SOURCE_WRITER") or "trader",
                int(policy["sync_interval_ms"]))
