"""The Trading Floor: asks every service what state it is in, and shows the worst of them (specs/ops_status/floor.yaml).

    GET /ops/floor      one state for all, and what each service said last

Who has not answered for longer than the policy allows is OFFLINE; who answers what is no lawful document, or under another
name, is UNKNOWN. Execution that is switched off is shown OFFLINE and makes the floor no worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from system_under_test.machine import Now, Response, Unanswered, Value, link_of
from system_under_test.services import status
from system_under_test.services.asking import Asker, Heard
from system_under_test.services.service import Service
from system_under_test.services.switch import document

WORST_FIRST = ("UNKNOWN", "OFFLINE", "HALTED", "DEGRADED", "MARKET_CLOSED", "OK")
REASONS = ("REQUIRED_FIELDS_MISSING", "EXECUTION_DISABLED", "PROCESS_DOWN", "KILL_SWITCH", "MARKETDATA_STALE",
           "MARKETDATA_MISSING", "HEARTBEAT_STALE", "MARKET_CLOSED")
"""Every reason, in the order in which the floor names them."""

Said = tuple[str, str | None]
DOWN: Said = ("OFFLINE", "PROCESS_DOWN")
UNTRUSTED: Said = ("UNKNOWN", "REQUIRED_FIELDS_MISSING")


class Listed(Struct):
    """One service: what is known of it, and since when it has been shown as it is."""

    name: str
    kind: str
    asker: Asker
    said: Said = DOWN
    answered_ms: int | None = None
    """when the question was asked that was answered last, whatever the answer was"""
    shown: Said | None = None
    since_ms: int = 0


class Floor(Service):
    """All services in the order of their names."""

    kind = "ops"

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__(environment)
        self._services = [Listed(name, kind, Asker(f"floor_{kind}", "/ops/status"))
                          for name, kind in sorted(_pairs(environment.get("SERVICES", "")))]
        self._by_link = {each.asker.link: each for each in self._services}

    def answer(self, now: Now, path: str) -> bytes | None:
        return status.encoded(self.floor(now)) if path == "/ops/floor" else super().answer(now, path)

    def work(self, now: Now) -> list[Value]:
        self._show(now)
        return [value for each in self._services for value in each.asker.ask(now)]

    def heard(self, now: Now, value: Response | Unanswered) -> list[Value]:
        each = self._by_link.get(link_of(value.conn))
        heard = each.asker.settle(value) if each is not None else None
        return [] if each is None or heard is None else self._told(now, each, heard)

    def _told(self, now: Now, each: Listed, heard: Heard) -> list[Value]:
        why = heard.why
        if heard.reached:
            said = None if heard.body is None else stated(heard.body, each.name, each.kind)
            each.said, each.answered_ms = said or UNTRUSTED, heard.asked_ms
            why = why or (None if said else "answered something that is no status of its own")
            self._show(now)
        return each.asker.trouble(why)

    def _show(self, now: Now) -> None:
        """What each is shown as by now, and since when."""
        since_ms = now.mono_ms - self.limits.ops_control_ttl_ms
        for each in self._services:
            answered_ms = each.answered_ms
            shown = DOWN if answered_ms is None or answered_ms < since_ms else each.said
            if shown != each.shown:
                each.shown, each.since_ms = shown, now.mono_ms

    def floor(self, now: Now) -> dict[str, Any]:
        """What ``GET /ops/floor`` answers."""
        self._show(now)
        shown = [(each, each.shown or DOWN) for each in self._services]
        state, reasons = worst([(each.kind, said) for each, said in shown])
        return {
            "floor": {"state": state, "summary": status.SUMMARY[state], "reason_codes": reasons,
                      "last_updated_utc": status.stamp(now.wall_ms)},
            "services": [{
                "service_name": each.name, "service_kind": each.kind, "state": said[0],
                "reason_codes": [said[1]] if said[1] else [], "online": said != DOWN,
                "since_utc": status.stamp(now.wall_ms - (now.mono_ms - each.since_ms)),
            } for each, said in shown],
            "extension": "drillproof floor 1",
        }


def worst(services: list[tuple[str, Said]]) -> tuple[str, list[str]]:
    """The state of all (kind, (state, reason)) together, and the reasons of those that are in it."""
    if not services:
        return UNTRUSTED[0], [str(UNTRUSTED[1])]
    counted = [("OK", None) if kind == "execution" and said == ("OFFLINE", "EXECUTION_DISABLED") else said
               for kind, said in services]
    state = min((said[0] for said in counted), key=WORST_FIRST.index)
    of_it = {said[1] for said in counted if said[0] == state}
    return state, [reason for reason in REASONS if reason in of_it]


def stated(body: bytes, name: str, kind: str) -> Said | None:
    """The state and reason in a service's document; None when it is not to be trusted, or is somebody else's."""
    raw = document(body)
    said = raw.get("status") if raw is not None else None
    if raw is None or not isinstance(said, dict) or raw.get("service_name") != name or raw.get("service_kind") != kind:
        return None
    state, reasons = said.get("state"), said.get("reason_codes")
    if not isinstance(state, str) or state not in WORST_FIRST or not isinstance(reasons, list):
        return None
    if not reasons and state == "OK":
        return state, None
    lawful = len(reasons) == 1 and isinstance(reasons[0], str) and state == state_for(kind, reasons[0])
    return (state, reasons[0]) if lawful else None


def state_for(kind: str, reason: str) -> str | None:
    """The one state in which a service of that kind may give this reason of itself; None for a reason that it cannot have."""
    if reason in ("MARKETDATA_STALE", "MARKETDATA_MISSING"):
        lives_on_it = kind in ("strategy", "execution")
        return "HALTED" if lives_on_it else "DEGRADED" if reason == "MARKETDATA_STALE" or kind == "marketdata" else None
    if reason == "EXECUTION_DISABLED":
        return "OFFLINE" if kind == "execution" else None
    if reason == "MARKET_CLOSED":
        return "MARKET_CLOSED" if kind != "ops" else None
    return {"REQUIRED_FIELDS_MISSING": "UNKNOWN", "KILL_SWITCH": "HALTED", "HEARTBEAT_STALE": "DEGRADED"}.get(reason)


def _pairs(text: str) -> list[tuple[str, str]]:
    """SERVICES, ``name=kind`` each. Raises ValueError."""
    found = [tuple(each.split("=")) for each in text.split()]
    if not all(len(each) == 2 and each[0] and each[1] in status.KINDS for each in found):
        raise ValueError(f"SERVICES is {text!r}; expected name=kind, several of them with spaces between")
    if len({kind for _, kind in found}) != len(found):
        raise ValueError("SERVICES names a kind twice; each has one link")
    return [(each[0], each[1]) for each in found]


def make(environment: Mapping[str, str]) -> Floor:
    """The floor over the services that SERVICES names. Raises ValueError."""
    return Floor(environment)
