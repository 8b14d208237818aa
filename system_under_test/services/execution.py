"""The execution service: it never says that orders are safe, and carries an operator's kill switch to the trader.

While the switch in its own file is on, it presses the trader's emergency lever again every second, so that the trader stays
reduce-only until the switch is off and its cooldown is over. What the trader says of itself presses nothing: that would be a
lock that holds itself. Scaled to zero it does no work and answers OFFLINE, which is no error; the lever it presses all the
same, because a switch that nobody carries is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

import orjson

from system_under_test.machine import Now, Response, Unanswered, Value
from system_under_test.services.asking import Asker
from system_under_test.services.follower import Follower
from system_under_test.services.service import TRADER_STATUS

EMERGENCY = "/api/v1/emergency/reduce_only"


class Execution(Follower):
    """What would send orders, and holds the one lever that only ever makes the system safer."""

    kind = "execution"
    control = "execution_control"
    source = "execution_marketdata"

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__(environment)
        token = environment.get("EMERGENCY_TOKEN", "")
        if not token:
            raise ValueError("EMERGENCY_TOKEN is missing: a kill switch could not be carried to the trader")
        numbers = count(1)
        self._trader = Asker(self.control, TRADER_STATUS, numbers=numbers)
        self._lever = Asker(self.control, EMERGENCY, method="POST", numbers=numbers,
                            headers=(("authorization", f"Bearer {token}"), ("content-type", "application/json")),
                            body=orjson.dumps({"reason": "kill switch", "invoked_by": self.who.service_name}))
        self._enabled = _enabled(environment.get("EXECUTION_ENABLED"))
        self._replicas = _replicas(environment.get("EXECUTION_REPLICAS"))

    def deployment(self) -> dict[str, Any]:
        return {"execution_enabled": self._enabled, "execution_replicas": self._replicas}

    def work(self, now: Now) -> list[Value]:
        switch = self.file_switch  # before the first look it halts this service, and is nothing to carry to others
        pressing = self._lever.ask(now) if switch.looked and switch.on else []
        return [*super().work(now), *pressing]

    def heard(self, now: Now, value: Response | Unanswered) -> list[Value]:
        pressed = self._lever.settle(value)
        return super().heard(now, value) if pressed is None else self._lever.trouble(pressed.why)


def _enabled(text: str | None) -> bool | None:
    """EXECUTION_ENABLED: nobody said so, or whatever was said. Only a clear yes is one."""
    return None if not text else text.strip().lower() in ("1", "true", "yes", "on")


def _replicas(text: str | None) -> int | None:
    """EXECUTION_REPLICAS: None where nobody said a whole number."""
    try:
        return int(text) if text else None
    except ValueError:
        return None


def make(environment: Mapping[str, str]) -> Execution:
    """The execution service. Raises ValueError without EMERGENCY_TOKEN or where the policy lacks what it needs."""
    return Execution(environment)
