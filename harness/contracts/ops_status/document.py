"""Every rule of one ``GET /ops/status`` document, and of one ``GET /ops/floor``. Source: ops; ``specs/ops_status``.

    SCHEMA    the JSON Schema; also bytes that are no JSON object at all (then nothing else is asked)
    ENUM      a code that the table does not know
    CODES     OK with a code, or another state with none or with several
    SUMMARY   the summary is not the state's
    STATE     the ladder says otherwise of what the document itself says
    GATING    gating_reasons are not those of the table, or in another order
    SAFETY    safe_to_run_strategies is not what the table says
    FRESH     is_fresh is not what the age of the last tick says; a block ``marketdata`` too many, or missing
    CALENDAR  market_is_open is not what the calendar says of the document's time
    KILL      the switch is on and nothing pressed it, or the other way round
    TIME      a time stamp that cannot be read, or two that contradict each other
    POLICY    a threshold that is not the policy's
    FLOOR     the floor is not the worst of its services; services out of order, twice, or contradicting themselves
    STRICT    a key that nobody knows, or a time stamp not as the source writes it, where that was asked for

What the document leaves open (the source's has neither the market's hours nor whether execution is on) is tried in every
lawful way: only what none of them explains is a finding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import islice, product
from pathlib import Path
from typing import Any

import jsonschema_rs

from harness.contracts.csp_status import FINDINGS_MAX, Finding
from harness.contracts.following import Whole
from harness.contracts.library import REPOSITORY, read_json
from harness.contracts.ops_status.floor import Floor
from harness.contracts.ops_status.table import FOLDER, Calendars, Decision, Table, calendars_of, instant, table_of
from harness.contracts.reading import Unreadable, pointer, read_object, shown
from harness.errors import SpecError

Document = Mapping[str, Any]
SCHEMA = f"{FOLDER}/ops_status.schema.json"
FLOOR_SCHEMA = f"{FOLDER}/ops_floor.schema.json"
STALE_KEY, TTL_KEY = "marketdata_stale_threshold_s", "ops_heartbeat_ttl_s"
"""What the policy calls the two thresholds."""

TTL_S = 60
"""How long a heartbeat lives where nobody says otherwise."""

LITTLE_S = 0.001
"""Ages are written to the millisecond at best."""

_AS_WRITTEN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")


class Checked:
    """A contract whose rules are asked of a document that has the schema's shape."""

    def __init__(self, schema: Any, file: str) -> None:
        try:
            self._schema = jsonschema_rs.Draft202012Validator(schema)
        except Exception as why:
            raise SpecError(f"{file} is no JSON Schema: {why}") from why
        self._shape = schema

    def check(self, data: bytes | Document, *, strict: bool = False) -> list[Finding]:
        """What is wrong with one document, in a stable order; empty when it is lawful. Never raises."""
        if isinstance(data, bytes):
            try:
                data = read_object(data)
            except Unreadable as why:
                return [Finding("SCHEMA", "", str(why))]
        if found := self._misshapen(data):
            return found
        found = list(islice(self.rules(data), FINDINGS_MAX))
        return [*found, *islice(self._strict(data), FINDINGS_MAX)] if strict else found

    def following(self) -> Whole:
        """A reader of documents that come one after another."""
        return Whole(self)

    def rules(self, document: Document) -> Iterator[Finding]:
        """What the schema cannot say, of a document that it lets pass."""
        raise NotImplementedError

    def stamps(self, document: Document) -> Iterator[tuple[str, Any]]:
        """(RFC 6901 path, value) of every time stamp that the source's form binds."""
        raise NotImplementedError

    def _misshapen(self, document: Document) -> list[Finding]:
        try:
            if self._schema.is_valid(document):
                return []
            found = [Finding("SCHEMA", pointer(*error.instance_path), " ".join(error.message.split())[:300])
                     for error in islice(self._schema.iter_errors(document), FINDINGS_MAX)]
        except Exception as why:  # the schema library refuses what JSON cannot hold: a lone surrogate, an object
            return [Finding("SCHEMA", "", f"the document is no JSON value: {str(why)[:200]}")]
        return sorted(found, key=lambda each: (each.path, each.message))

    def _strict(self, document: Document) -> Iterator[Finding]:
        for path in _unknown(self._shape, document, ""):
            yield Finding("STRICT", path, "nobody knows this key")
        for path, stamp in self.stamps(document):
            if isinstance(stamp, str) and not _AS_WRITTEN.match(stamp):
                yield Finding("STRICT", path, f"{shown(stamp)} is not written as 2026-01-07T12:00:00Z")


def kept(data: bytes, asked: datetime, answered: datetime, policy: Mapping[str, Any] | None = None) -> list[Finding]:
    """Of an answer that was just asked for: it tells a time of then, within a heartbeat's ttl, or it is one of before that was
    kept. How long that is the policy says, never the answer itself. What cannot be read is a finding of the contract's."""
    try:
        document = read_object(data)
    except Unreadable:
        return []
    ttl_s, block = float((policy or {}).get(TTL_KEY, TTL_S)), "floor" if "floor" in document else "status"
    told = instant(_at(document, f"{block}.last_updated_utc"))
    if told is None:
        return []
    apart_s = max((asked.replace(microsecond=0) - told).total_seconds(), (told - answered).total_seconds())
    if apart_s <= ttl_s:
        return []
    return [Finding("TIME", f"/{block}/last_updated_utc", f"is {apart_s:.0f} s from when it was asked, more than {ttl_s:g} s")]


def _unknown(shape: Any, value: Any, path: str) -> Iterator[str]:
    """The path of each key that a schema does not name, at any depth."""
    if isinstance(value, list):
        for index, each in enumerate(value):
            yield from _unknown(shape.get("items", {}), each, f"{path}/{index}")
    elif isinstance(value, Mapping) and "properties" in shape:
        for key, each in value.items():
            if key not in shape["properties"]:
                yield path + pointer(key)
            else:
                yield from _unknown(shape["properties"][key], each, path + pointer(key))


class Contract(Checked):
    """The compiled rules of a service's document."""

    def __init__(self, table: Table, calendars: Calendars, schema: Any, policy: Mapping[str, Any] | None = None,
                 calendar: str | None = None) -> None:
        super().__init__(schema, SCHEMA)
        if calendar is not None and calendar not in calendars.names:
            raise SpecError(f"no calendar {calendar!r}; known: {', '.join(calendars.names)}")
        self.table, self.calendars, self.calendar = table, calendars, calendar
        self.policy = {key: value for key, value in (policy or {}).items() if key in (STALE_KEY, TTL_KEY)}
        for key, value in self.policy.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise SpecError(f"the policy's {key} is {shown(value)}, not a number")

    @classmethod
    def load(cls, root: Path = REPOSITORY, *, policy: Mapping[str, Any] | None = None, part: str | None = None,
             calendar: str | None = None) -> Checked:
        """The contract under ``root``, a repository or a pack's ``rules`` folder: of a service, or of the ``floor``.

        ``policy`` holds the thresholds in force; without them a document's own are believed. ``calendar`` is the market's,
        for documents that name none.
        """
        if part == "floor":
            return FloorContract(Floor.load(root), read_json(root / FLOOR_SCHEMA))
        if part is not None:
            raise SpecError(f"ops_status has no part {part!r}; known: floor")
        return cls(table_of(root), calendars_of(root), read_json(root / SCHEMA), policy, calendar)

    def rules(self, document: Document) -> Iterator[Finding]:
        facts = _Facts(document, self)
        yield from _codes(self.table, "/status", document["status"]["state"], facts.codes)
        yield from _summary(self.table, "/status/summary", document["status"])
        for rule in (self._stamps, self._policy, self._market_data, self._open, self._switch, self._execution, self._decided):
            yield from rule(facts)

    def stamps(self, document: Document) -> Iterator[tuple[str, Any]]:
        yield "/status/last_updated_utc", document["status"]["last_updated_utc"]
        yield "/heartbeat/last_heartbeat_utc", document["heartbeat"].get("last_heartbeat_utc")
        for key in ("last_tick_utc", "last_bar_utc"):
            yield f"/marketdata/{key}", (document.get("marketdata") or {}).get(key)

    # ---- the rules

    def _stamps(self, facts: _Facts) -> Iterator[Finding]:
        """Every stamp can be read, and those of one document tell one time."""
        for path, stamp in self.stamps(facts.document):
            if stamp is not None and instant(stamp) is None:
                yield Finding("TIME", path, f"{shown(stamp)} is no time")
        if facts.inputs is not None:
            if facts.as_of is None:
                yield Finding("TIME", "/inputs/as_of_utc", f"{shown(facts.inputs['as_of_utc'])} is no time")
            elif facts.updated is not None and facts.as_of.replace(microsecond=0) != facts.updated.replace(microsecond=0):
                yield Finding("TIME", "/status/last_updated_utc", "is not inputs.as_of_utc, cut to seconds")
        beat, tick = facts.between(facts.beat), facts.between(facts.tick)
        for path, between, age in (("/heartbeat/age_seconds", None if beat is None else max(beat, 0.0), facts.age),
                                   ("/inputs/tick_age_seconds", tick, facts.tick_age)):
            if between is not None and age is not None and abs(between - age) > self.table.stamps_apart_s + LITTLE_S:
                yield Finding("TIME", path, f"is {age:g}, and the time stamps are {between:g} s apart")

    def _policy(self, facts: _Facts) -> Iterator[Finding]:
        for key, path, told in ((STALE_KEY, "/marketdata/stale_threshold_seconds", facts.told_threshold),
                                (TTL_KEY, "/heartbeat/ttl_seconds", facts.told_ttl)):
            if key in self.policy and told is not None and told != int(self.policy[key]):
                yield Finding("POLICY", path, f"is {told}, and the policy's {key} is {self.policy[key]:g}")

    def _market_data(self, facts: _Facts) -> Iterator[Finding]:
        if (facts.kind in self.table.watching) is (facts.market_data is None):
            yield Finding("FRESH", "/marketdata", f"a service of kind {facts.kind} "
                          + ("tells of its market data" if facts.market_data is None else "has none of its own: null"))
        if facts.market_data is None:
            return
        if facts.inputs is not None and (facts.tick_age is None) is not (facts.market_data.get("last_tick_utc") is None):
            yield Finding("FRESH", "/marketdata/last_tick_utc", "is null exactly when there is no tick_age_seconds")
        lawful = facts.lawfully_fresh()
        if facts.fresh not in lawful:
            yield Finding("FRESH", "/marketdata/is_fresh",
                          f"is {shown(facts.fresh)}, and the last tick says {shown(lawful[0])}")

    def _open(self, facts: _Facts) -> Iterator[Finding]:
        if facts.inputs is None or facts.as_of is None:
            return
        right = self.calendars.is_open(facts.inputs["calendar"], facts.as_of)
        if facts.inputs["market_is_open"] is not right:
            yield Finding("CALENDAR", "/inputs/market_is_open", f"is {shown(facts.inputs['market_is_open'])}, and the calendar "
                          f"{shown(facts.inputs['calendar'])} says {shown(right)} of {facts.inputs['as_of_utc']}")

    def _switch(self, facts: _Facts) -> Iterator[Finding]:
        by = (facts.inputs or {}).get("kill_switch_by")
        if by is not None and bool(by) is not facts.killed:
            yield Finding("KILL", "/safety/kill_switch", f"is {shown(facts.killed)}, and pressed by {shown(by)}")

    def _execution(self, facts: _Facts) -> Iterator[Finding]:
        for key in ("execution_enabled", "execution_replicas"):
            if facts.kind != "execution" and (facts.inputs or {}).get(key) is not None:
                yield Finding("STATE", f"/inputs/{key}", f"a service of kind {facts.kind} executes nothing: null")

    def _decided(self, facts: _Facts) -> Iterator[Finding]:
        """The state, what gates and what is safe: as the table decides of the document's own inputs."""
        decisions = facts.decisions()
        same = [each for each in decisions if each.state == facts.state and each.codes == facts.codes]
        if not same:
            said = " or ".join(dict.fromkeys(f"{each.state} {each.codes} ({each.row})" for each in decisions))
            yield Finding("STATE", "/status/state", f"the table says {said}, the document {facts.state} {shown(facts.codes)}")
        gating = facts.document["safety"].get("gating_reasons", [])
        gated = [each for each in same or decisions if [*each.gating] == gating]
        if not gated:
            said = " or ".join(dict.fromkeys(f"{[*each.gating]}" for each in same or decisions))
            yield Finding("GATING", "/safety/gating_reasons", f"the table says {said}, the document {shown(gating)}")
        safe = facts.document["safety"]["safe_to_run_strategies"]
        if all(each.safe_to_run_strategies is not safe for each in gated or same or decisions):
            yield Finding("SAFETY", "/safety/safe_to_run_strategies", f"the table says {shown(not safe)}")


def _codes(table: Table, path: str, state: str, codes: list[str]) -> Iterator[Finding]:
    for index, code in enumerate(codes):
        if code not in table.codes:
            yield Finding("ENUM", f"{path}/reason_codes/{index}", f"{shown(code)} is no reason code")
    if state == "OK" and codes:
        yield Finding("CODES", f"{path}/reason_codes", "OK has no reasons")
    elif state != "OK" and len(codes) != 1:
        yield Finding("CODES", f"{path}/reason_codes", f"{state} has one reason, not {len(codes)}")


def _summary(table: Table, path: str, block: Mapping[str, Any]) -> Iterator[Finding]:
    if block["summary"] != table.summaries[block["state"]]:
        yield Finding("SUMMARY", path, f"{shown(block['summary'])} is not what {block['state']} is called: "
                      f"{table.summaries[block['state']]}")


class _Facts:
    """What one document says, as the table asks for it."""

    def __init__(self, document: Document, contract: Contract) -> None:
        self.document, self._contract = document, contract
        status, beat = document["status"], document["heartbeat"]
        self.kind: str = document["service_kind"]
        self.state: str = status["state"]
        self.codes: list[str] = status.get("reason_codes", [])
        self.killed: bool = document["safety"]["kill_switch"]
        self.inputs: Mapping[str, Any] | None = document.get("inputs")
        self.market_data: Mapping[str, Any] | None = document.get("marketdata")
        self.updated = instant(status["last_updated_utc"])
        self.as_of = instant(self.inputs["as_of_utc"]) if self.inputs is not None else None
        self.age: float | None = beat.get("age_seconds")
        self.beat = instant(beat.get("last_heartbeat_utc"))
        self.told_ttl: int | None = beat.get("ttl_seconds")
        self.fresh: bool | None = (self.market_data or {}).get("is_fresh")
        self.tick = instant((self.market_data or {}).get("last_tick_utc"))
        self.tick_age: float | None = (self.inputs or {}).get("tick_age_seconds")
        self.told_threshold: int | None = (self.market_data or {}).get("stale_threshold_seconds")

    def between(self, stamp: datetime | None) -> float | None:
        """Seconds from a stamp to the document's own time, or None. Stamps are whole seconds: it may be one off."""
        now = self.as_of or self.updated
        return (now - stamp).total_seconds() if now is not None and stamp is not None else None

    @property
    def threshold_s(self) -> float:
        return self._in_force(STALE_KEY, self.told_threshold, 120)

    @property
    def ttl_s(self) -> float:
        return self._in_force(TTL_KEY, self.told_ttl, TTL_S)

    def _in_force(self, key: str, told: int | None, usual: int) -> float:
        """The policy's value where the document tells its whole seconds; else what the document tells."""
        value = self._contract.policy.get(key)
        if value is not None and told in (None, int(value)):
            return float(value)
        return float(told if told is not None else usual)

    def lawfully_fresh(self) -> list[bool | None]:
        """Every value that ``is_fresh`` may have, by the age of the last tick."""
        table = self._contract.table
        if self.inputs is not None and "tick_age_seconds" in self.inputs:
            return [table.is_fresh(self.tick_age, self.threshold_s)]
        if self.market_data is not None and self.market_data.get("last_tick_utc") is None:
            return [None]
        between = self.between(self.tick)
        if between is None:
            return [True, False]
        return list(dict.fromkeys(table.is_fresh(between + apart, self.threshold_s) for apart in (-1.0, 0.0, 1.0)))

    def decisions(self) -> list[Decision]:
        """What the table says for every lawful way to fill in what the document leaves open."""
        decide, complete = self._contract.table.decide, self._complete
        return list(dict.fromkeys(decide({
            "service_kind": self.kind, "required_fields_present": complete and open_ is not None, "process_up": True,
            "kill_switch": self.killed, "market_is_open": open_, "marketdata_is_fresh": fresh,
            "heartbeat_age_seconds": age, "heartbeat_ttl_seconds": self.ttl_s,
            "execution_enabled": enabled, "execution_replicas": replicas,
        }) for open_, fresh, age, (enabled, replicas) in product(self._maybe_open(), self._maybe_fresh(), self._maybe_old(),
                                                                 self._maybe_enabled())))

    @property
    def _complete(self) -> bool:
        return all(isinstance(value, str) and value for value in
                   (_at(self.document, path) for path in self._contract.table.required))

    def _maybe_open(self) -> list[bool | None]:
        if self.inputs is not None:
            return [self.inputs["market_is_open"]]
        if self._contract.calendar is None or self.updated is None:
            return [True, False]
        edges = (self.updated, self.updated.replace(microsecond=999_999))
        return list(dict.fromkeys(self._contract.calendars.is_open(self._contract.calendar, each) for each in edges))

    def _maybe_fresh(self) -> list[bool | None]:
        """As its market data says; a kind that has none of its own may know of a tick all the same, by its inputs."""
        if self.market_data is not None or self.kind in self._contract.table.watching:
            return [self.fresh]
        return [None, False] if self.inputs is None else [self._contract.table.is_fresh(self.tick_age, self.threshold_s)]

    def _maybe_old(self) -> list[float | None]:
        """The heartbeat's age; where only its time stamp is told, what that may mean."""
        between = self.between(self.beat)
        if self.age is not None or between is None:
            return [self.age]
        return [max(between + apart, 0.0) for apart in (-self._contract.table.stamps_apart_s, 0.0,
                                                        self._contract.table.stamps_apart_s)]

    def _maybe_enabled(self) -> list[tuple[bool | None, int | None]]:
        if self.kind != "execution":
            return [(None, None)]
        if self.inputs is not None:
            return [(self.inputs.get("execution_enabled"), self.inputs.get("execution_replicas"))]
        return [(True, 1), (False, 0)]


def _at(document: Any, path: str) -> Any:
    for key in path.split("."):
        document = document.get(key) if type(document) is dict or isinstance(document, Mapping) else None
    return document


class FloorContract(Checked):
    """The compiled rules of the floor's document."""

    def __init__(self, floor: Floor, schema: Any) -> None:
        super().__init__(schema, FLOOR_SCHEMA)
        self._floor = floor

    def rules(self, document: Document) -> Iterator[Finding]:
        table, services = self._floor.table, document["services"]
        for index, service in enumerate(services):
            yield from _codes(table, f"/services/{index}", service["state"], service["reason_codes"])
            if not table.knows(service["service_kind"], service["state"], service["reason_codes"]):
                yield Finding("STATE", f"/services/{index}/state", f"no service of kind {service['service_kind']} is "
                              f"{service['state']} for {shown(service['reason_codes'])}")
            if service["online"] is (service["reason_codes"] == ["PROCESS_DOWN"]):
                yield Finding("FLOOR", f"/services/{index}/online", "a service is offline exactly when its process is down")
        names = [service["service_name"] for service in services]
        if names != sorted(set(names)):
            yield Finding("FLOOR", "/services", "services stand in the order of their names, each once")
        yield from _summary(table, "/floor/summary", document["floor"])
        right = self._floor.of(services)
        for key in ("state", "reason_codes"):
            if document["floor"][key] != right[key]:
                yield Finding("FLOOR", f"/floor/{key}", f"its services make it {shown(right[key])}, the document says "
                              f"{shown(document['floor'][key])}")
        now = instant(document["floor"]["last_updated_utc"])
        for path, stamp in self.stamps(document):
            at = instant(stamp)
            if at is None:
                yield Finding("TIME", path, f"{shown(stamp)} is no time")
            elif now is not None and at > now:
                yield Finding("TIME", path, "lies after floor.last_updated_utc")

    def stamps(self, document: Document) -> Iterator[tuple[str, Any]]:
        yield "/floor/last_updated_utc", document["floor"]["last_updated_utc"]
        for index, service in enumerate(document["services"]):
            yield f"/services/{index}/since_utc", service["since_utc"]
