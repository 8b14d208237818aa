"""Services that live on another's market data: they ask the market data service what it says of itself.

Its own verdict on its freshness is not taken over: from its document comes the age of its last tick, which has since grown
by the time that has passed since we asked. No answer for longer than the policy allows, no lawful document, or one whose
required fields are missing: then there is no market data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from system_under_test.machine import Now, Response, Unanswered, Value
from system_under_test.services.asking import Asker
from system_under_test.services.service import Service
from system_under_test.services.switch import document

STATES = frozenset({"OK", "DEGRADED", "HALTED", "MARKET_CLOSED", "OFFLINE"})
"""A service in any of these knows what it says; UNKNOWN is a document that must not be trusted."""

AGE_S_MAX = 10 ** 9


class Follower(Service):
    """A service behind the market data service."""

    source = ""
    """the link to the market data service"""

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__(environment)
        self._source = Asker(self.source, "/ops/status")
        self._told: tuple[int, int | None] | None = None
        """when the last good answer was asked for, and the age of the last tick in it"""

    def tick_age_ms(self, now: Now) -> int | None:
        if self._told is None or now.mono_ms - self._told[0] > self.limits.ops_control_ttl_ms or self._told[1] is None:
            return None
        return self._told[1] + now.mono_ms - self._told[0]

    def work(self, now: Now) -> list[Value]:
        return self._source.ask(now)

    def heard(self, now: Now, value: Response | Unanswered) -> list[Value]:
        heard = self._source.settle(value)
        if heard is None:
            return []
        why = heard.why
        if heard.body is not None:
            try:
                self._told = (heard.asked_ms, tick_age(heard.body))
            except ValueError as unlawful:
                why = str(unlawful)
        return self._source.trouble(why)


def tick_age(body: bytes) -> int | None:
    """The age of the last tick (signed ms) in a document of the market data service; None when it has seen none. Raises
    ValueError for anything that is no such document."""
    raw = document(body)
    if raw is None or raw.get("service_kind") != "marketdata":
        raise ValueError("answered something that is no status of market data")
    said, inputs = raw.get("status"), raw.get("inputs")
    if not isinstance(said, dict) or not isinstance(inputs, dict) or said.get("state") not in STATES:
        raise ValueError("answered a status that cannot be trusted")
    if "tick_age_seconds" not in inputs:
        raise ValueError("answered a status without the age of its last tick")
    age_s = inputs["tick_age_seconds"]
    if age_s is None:
        return None
    if isinstance(age_s, bool) or not isinstance(age_s, int | float) or not math.isfinite(age_s) or abs(age_s) > AGE_S_MAX:
        raise ValueError("answered an age that is none")
    return round(age_s * 1_000)
