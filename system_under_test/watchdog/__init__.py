"""The watchdog: asks the trader every half second whether it lives, and by asking tells it that somebody looks.

Its question carries the watchdog's token, which makes it the trader's heartbeat; anybody else's poll does not
count. It holds no other power and no state worth keeping. What it notices about its own doing (no answer, a
refusal, an answer that is no health) goes into its notes, once per change, so that a silence of the heartbeat can
be told from a silence of the watchdog.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from system_under_test.machine import (
    Exit,
    Note,
    Now,
    Request,
    Response,
    Start,
    Stop,
    Timer,
    Unanswered,
    Value,
)

LINK = "heartbeat"
PERIOD_MS = 500
DEADLINE_MS = 2_000
"""A question that waits longer is given up, so that one lost answer does not silence the watchdog."""

HEALTH = "/api/v1/health"


class Watchdog:
    """One question in flight at a time, on a fixed beat."""

    def __init__(self, token: str) -> None:
        self._headers = (("authorization", f"Bearer {token}"),)
        self._asked: tuple[int, int] | None = None
        self._count = 0
        self._next_ms = 0
        self._trouble: str | None = None

    def handle(self, now: Now, value: Value) -> tuple[Value, ...]:
        """Start, the beat, an answer, or the wish to stop; anything else is not for a watchdog."""
        match value:
            case Start():
                self._next_ms = now.mono_ms
                return self._beat(now)
            case Timer(name="beat"):
                return self._beat(now)
            case Response():
                return self._answered(value)
            case Unanswered():
                return self._unanswered(value)
            case Stop():
                return (Timer("beat", None), Exit(0))
        return ()

    def _beat(self, now: Now) -> tuple[Value, ...]:
        self._next_ms = max(self._next_ms + PERIOD_MS, now.mono_ms + 1)
        beat = Timer("beat", self._next_ms)
        said: tuple[Value, ...] = ()
        if self._asked is not None:
            if now.mono_ms - self._asked[1] < DEADLINE_MS:
                return (beat,)
            said = self._say(f"no answer within {DEADLINE_MS} ms")
        self._count += 1
        self._asked = (self._count, now.mono_ms)
        return (*said, beat, Request(f"{LINK}#{self._count}", self._count, "GET", HEALTH, self._headers))

    def _answered(self, response: Response) -> tuple[Value, ...]:
        if self._asked is None or response.id != self._asked[0]:
            return ()  # an answer to a question that was given up
        self._asked = None
        if response.status != 200:
            return self._say(f"answered {response.status}")
        return self._say(None if _is_health(response.body) else "answered something that is no health document")

    def _unanswered(self, lost: Unanswered) -> tuple[Value, ...]:
        if self._asked is None or lost.id != self._asked[0]:
            return ()
        self._asked = None
        return self._say("not reachable" if not lost.sent else "asked, and got no answer")

    def _say(self, trouble: str | None) -> tuple[Value, ...]:
        """A note when trouble begins, changes or ends."""
        if trouble == self._trouble:
            return ()
        self._trouble = trouble
        if trouble is None:
            return (Note("heartbeat_recovered"),)
        return (Note("heartbeat_trouble", None, {"why": trouble}),)


def _is_health(body: bytes) -> bool:
    try:
        raw = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(raw, dict) and raw.get("ok") is True


def make(environment: Mapping[str, str]) -> Watchdog:
    """A watchdog for the trader behind the link ``heartbeat``. Raises ValueError without WATCHDOG_TOKEN."""
    token = environment.get("WATCHDOG_TOKEN", "")
    if not token:
        raise ValueError("WATCHDOG_TOKEN is missing: without it the trader would not take us for its watchdog")
    return Watchdog(token)
