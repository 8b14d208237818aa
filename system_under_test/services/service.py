"""What all services have in common: who they are, a steady beat, an operator's two files, and three things to read.

    GET /ops/status     the contract's document, made anew for every question
    GET /healthz        the process is up; the door answers even when the worker behind it stands still
    GET /clock          both clocks, so that others can tell how this one's lie to theirs

A service's heartbeat is the beat of its worker, not of its door: a beat counts once its whole round is done (`Service.looked`),
and a round that hangs lets the heartbeat grow old while the door still answers. Ages are taken by the monotonic clock; the
wall clock says what the document is dated, and whether the market is open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson
from msgspec import Struct

from system_under_test.machine import Exit, Look, Note, Now, Request, Response, Seen, Start, Stop, Timer, Unanswered, Value
from system_under_test.services import hours, status
from system_under_test.services.asking import Asker
from system_under_test.services.status import Facts, Identity
from system_under_test.services.switch import FILE, FileSwitch, TraderSwitch, absent

BEAT_MS = 500
"""The switch's file is looked at with every beat; everything else has its turn with every second one."""

CALENDAR_FILE = "operator/market_calendar.json"
TRADER_STATUS = "/api/v1/status"

_JSON = (("content-type", "application/json"), ("cache-control", "no-store"))


class Limits(Struct, frozen=True, kw_only=True):
    """What the policy says to services."""

    ops_heartbeat_ttl_s: int
    marketdata_stale_threshold_s: int
    ops_control_ttl_ms: int

    @staticmethod
    def load(environment: Mapping[str, str]) -> Limits:
        """Read POLICY (JSON text). Raises ValueError where a limit is missing or is no whole number."""
        policy = orjson.loads(environment.get("POLICY") or "null")
        if not isinstance(policy, dict):
            raise ValueError("POLICY must be a JSON object of policy keys")
        return Limits(**{name: _whole(name, policy.get(name)) for name in Limits.__struct_fields__})


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value != int(value) \
            or value < 0:
        raise ValueError(f"policy key {name!r} is {value!r}; expected a whole number that is not negative")
    return int(value)


def identity(environment: Mapping[str, str], kind: str) -> Identity:
    """Who a service is, by its environment; what is missing there is missing in its document."""
    return Identity(
        service_name=environment.get("SERVICE_NAME", ""),
        service_kind=kind,
        repo_id=environment.get("REPO_ID", ""),
        git_sha=environment.get("GIT_SHA") or None,
        build_id=environment.get("BUILD_ID") or None,
        agent_name=environment.get("AGENT_NAME", ""),
        agent_role=environment.get("AGENT_ROLE", kind),
        agent_mode=environment.get("AGENT_MODE", "OBSERVE"),
    )


class Service:
    """A service of one kind. A kind overrides `work`, `heard`, `tick_age_ms` and whatever else differs."""

    kind = "ops"
    control: str | None = None
    """the link to the trader's control plane, for the kinds that have one"""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.who = identity(environment, self.kind)
        self.limits = Limits.load(environment)
        self.file_switch = FileSwitch()
        self.trader_switch = TraderSwitch(self.limits.ops_control_ttl_ms)
        self._trader = Asker(self.control, TRADER_STATUS) if self.control else None
        self._default_calendar = environment.get("MARKET_CALENDAR") or hours.CONTINUOUS
        self.calendar = hours.UNREADABLE
        self._zone = hours.new_york()
        self._looking: set[str] = set()
        self._beats = self._next_ms = self.beat_ms = 0
        self._said: tuple[str, str | None] | None = None

    # ---- what kinds override

    def work(self, now: Now) -> list[Value]:
        """The kind's own part, once a second."""
        return []

    def heard(self, now: Now, value: Response | Unanswered) -> list[Value]:
        """An answer, or its absence, to a question of the kind's own."""
        return []

    def other(self, now: Now, value: Value) -> list[Value]:
        """What only some kinds know what to do with."""
        return []

    def tick_age_ms(self, now: Now) -> int | None:
        """The age of the last tick that this service knows of; None when it has never seen one."""
        return None

    def looked(self, now: Now) -> None:
        """A round of looks at the operator's files is complete: for most kinds, the worker's round."""
        self.beat_ms = now.mono_ms

    def answer(self, now: Now, path: str) -> bytes | None:
        """The document at a path; None when there is nothing."""
        match path:
            case "/ops/status":
                return status.encoded(self.document(now))
            case "/healthz":
                return b'{"ok":true}'
            case "/clock":
                return b'{"mono_ms":%d,"wall_ms":%d}' % (now.mono_ms, now.wall_ms)
        return None

    def deployment(self) -> dict[str, Any]:
        """Further fields of the facts."""
        return {}

    # ---- what it says of itself

    def facts(self, now: Now) -> Facts:
        """What is known at this moment."""
        trader = self.trader_switch.by(now) if self._trader is not None else None
        return Facts(
            wall_ms=now.wall_ms,
            beat_age_ms=max(0, now.mono_ms - self.beat_ms),
            beat_ttl_s=self.limits.ops_heartbeat_ttl_s,
            calendar=self.calendar,
            market_is_open=hours.is_open(self.calendar, now.wall_ms, self._zone),
            kill_switch_by=tuple(filter(None, (self.file_switch.by, trader))),
            tick_age_ms=self.tick_age_ms(now),
            stale_threshold_s=self.limits.marketdata_stale_threshold_s,
            **self.deployment(),
        )

    def document(self, now: Now) -> dict[str, Any]:
        """The document of this moment."""
        return status.document(self.who, self.facts(now))

    # ---- its life

    def handle(self, now: Now, value: Value) -> tuple[Value, ...]:
        """One value in, what comes of it out."""
        match value:
            case Request():
                return (self._serve(now, value),)
            case Response() | Unanswered():
                return tuple(self._heard(now, value))
            case Seen():
                self._seen(now, value)
                return ()
            case Timer(name="beat"):
                return tuple(self._beat(now))
            case Start():
                self._next_ms = self.beat_ms = now.mono_ms
                return tuple(self._beat(now))
            case Stop():
                return (Timer("beat", None), Exit(0))
        return tuple(self.other(now, value))

    def _beat(self, now: Now) -> list[Value]:
        self._next_ms = max(self._next_ms + BEAT_MS, now.mono_ms + 1)
        out: list[Value] = [Timer("beat", self._next_ms)]
        first, odd, self._beats = self._beats == 0, self._beats % 2, self._beats + 1
        if not self._looking:
            self._looking.update((FILE,) if odd else (FILE, CALENDAR_FILE))
            out += [Look(file) for file in sorted(self._looking)]
        if self._trader is not None and (odd or first):
            out += self._trader.ask(now)
        if not odd:
            out += self.work(now)
        state = status.state_of(self.who, self.facts(now))
        if state != self._said:
            self._said = state
            out.append(Note("state", None, {"state": state[0], "reason": state[1]}))
        return out

    def _heard(self, now: Now, value: Response | Unanswered) -> list[Value]:
        heard = self._trader.settle(value) if self._trader is not None else None
        if heard is None or self._trader is None:
            return self.heard(now, value)
        why = heard.why
        if heard.body is not None and not self.trader_switch.told(heard.body, heard.asked_ms):
            why = "answered something that says no trading mode"
        return self._trader.trouble(why)

    def _seen(self, now: Now, seen: Seen) -> None:
        if seen.source == FILE:
            self.file_switch.seen(seen)
        elif seen.source == CALENDAR_FILE:
            self.calendar = self._default_calendar if absent(seen) else \
                hours.UNREADABLE if seen.value is None else hours.named(seen.value)
        if seen.source in self._looking:
            self._looking.remove(seen.source)
            if not self._looking:
                self.looked(now)

    def _serve(self, now: Now, request: Request) -> Response:
        if request.method != "GET":
            return Response(request.conn, request.id, 405, (*_JSON, ("allow", "GET")), b'{"error":"only GET"}')
        body = self.answer(now, request.target.partition("?")[0])
        if body is None:
            return Response(request.conn, request.id, 404, _JSON, b'{"error":"there is nothing here"}')
        return Response(request.conn, request.id, 200, _JSON, body)
