"""Every rule of ``GET /ops/status`` and ``GET /ops/floor``: green on all goldens, red on one bad case each."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.contracts.csp_status import FINDINGS_MAX
from harness.contracts.library import REPOSITORY
from harness.contracts.ops_status import Contract
from harness.contracts.ops_status.floor import Floor
from harness.contracts.ops_status.table import table_of
from harness.errors import SpecError

FOLDER = REPOSITORY / "fixtures/ops_status"
SERVICE, FLOOR, ROLL_UP = Contract.load(), Contract.load(part="floor"), Floor.load(REPOSITORY)
GOLDENS = sorted(file.stem for file in FOLDER.glob("*.json"))


def golden(name: str) -> dict[str, Any]:
    return dict(json.loads((FOLDER / f"{name}.json").read_text()))


def contract_of(document: Mapping[str, Any]) -> Any:
    return FLOOR if "floor" in document else SERVICE


@pytest.mark.parametrize("name", GOLDENS)
def test_goldens_are_lawful(name: str) -> None:
    """Every golden passes strictly, byte by byte as it lies there."""
    document = golden(name)
    assert contract_of(document).check((FOLDER / f"{name}.json").read_bytes(), strict=True) == []
    assert contract_of(document).check(document) == []


def test_there_is_a_golden_of_each_state() -> None:
    """Of a service and of every reason code; the floor's by what makes its services differ."""
    services = [golden(name) for name in GOLDENS if not name.startswith("floor")]
    assert {each["status"]["state"] for each in services} == {*table_of().states}
    assert {code for each in services for code in each["status"]["reason_codes"]} == {*table_of().codes} - {"PROCESS_DOWN"}
    assert any(code == "PROCESS_DOWN" for name in GOLDENS if name.startswith("floor")
               for code in golden(name)["floor"]["reason_codes"])


REMOVED = object()
RED = [
    # name, golden, {path: value}, tag, path of the finding
    ("no name", "ok", {"service_name": REMOVED}, "SCHEMA", ""),
    ("a kind nobody knows", "ok", {"service_kind": "trader"}, "SCHEMA", "/service_kind"),
    ("a state nobody knows", "ok", {"status.state": "WEIRD"}, "SCHEMA", "/status/state"),
    ("orders may be executed", "ok", {"safety.safe_to_execute_orders": True}, "SCHEMA", "/safety/safe_to_execute_orders"),
    ("a kill switch that is a text", "ok", {"safety.kill_switch": "no"}, "SCHEMA", "/safety/kill_switch"),
    ("an age below zero", "ok", {"heartbeat.age_seconds": -1}, "SCHEMA", "/heartbeat/age_seconds"),
    ("a ttl with a fraction", "ok", {"heartbeat.ttl_seconds": 1.5}, "SCHEMA", "/heartbeat/ttl_seconds"),
    ("another extension", "market_closed", {"inputs.extension": "mine"}, "SCHEMA", "/inputs/extension"),
    ("a code nobody knows", "halted_kill_switch", {"status.reason_codes": ["BORED"]}, "ENUM", "/status/reason_codes/0"),
    ("OK with a reason", "ok", {"status.reason_codes": ["KILL_SWITCH"]}, "CODES", "/status/reason_codes"),
    ("halted without a reason", "halted_kill_switch", {"status.reason_codes": []}, "CODES", "/status/reason_codes"),
    ("two reasons", "halted_marketdata_stale", {"status.reason_codes": ["MARKETDATA_STALE", "HEARTBEAT_STALE"]}, "CODES",
     "/status/reason_codes"),
    ("another word for it", "ok", {"status.summary": "Fine"}, "SUMMARY", "/status/summary"),
    ("killed and OK", "ok", {"safety.kill_switch": True}, "STATE", "/status/state"),
    ("killed and degraded", "halted_kill_switch", {"status.state": "DEGRADED", "status.summary": "Degraded"}, "STATE",
     "/status/state"),
    ("stale and only degraded, as strategy", "halted_marketdata_stale", {"status.state": "DEGRADED"}, "STATE", "/status/state"),
    ("stale and halted, as marketdata", "degraded_marketdata_stale", {"status.state": "HALTED"}, "STATE", "/status/state"),
    ("missing told as stale", "halted_marketdata_missing", {"status.reason_codes": ["MARKETDATA_STALE"]}, "STATE",
     "/status/state"),
    ("an old heartbeat and OK", "degraded_heartbeat_stale",
     {"status.state": "OK", "status.summary": "Healthy", "status.reason_codes": []}, "STATE", "/status/state"),
    ("an old heartbeat, by its time stamp alone, and OK", "ok",
     {"heartbeat.age_seconds": None, "heartbeat.last_heartbeat_utc": "2026-01-07T11:58:58Z"}, "STATE", "/status/state"),
    ("no word of what presses the switch", "market_closed", {"inputs.kill_switch_by": REMOVED}, "SCHEMA", "/inputs"),
    ("no word of the tick's age", "market_closed", {"inputs.tick_age_seconds": REMOVED}, "SCHEMA", "/inputs"),
    ("pressed by the same twice", "halted_kill_switch", {"inputs.kill_switch_by": ["file", "file"]}, "SCHEMA",
     "/inputs/kill_switch_by"),
    ("exactly as old as its ttl is not stale", "degraded_heartbeat_stale",
     {"heartbeat.age_seconds": 60.0, "heartbeat.last_heartbeat_utc": "2026-01-07T15:59:00Z"}, "STATE", "/status/state"),
    ("closed told as degraded", "market_closed",
     {"status.state": "DEGRADED", "status.reason_codes": ["MARKETDATA_STALE"]}, "STATE", "/status/state"),
    ("scaled to zero told as down", "offline_execution_disabled", {"status.reason_codes": ["PROCESS_DOWN"]}, "STATE",
     "/status/state"),
    ("who answers is not down", "ok", {"status.state": "OFFLINE", "status.reason_codes": ["PROCESS_DOWN"]}, "STATE",
     "/status/state"),
    ("no agent's name and OK", "ok", {"agent_identity.agent_name": ""}, "STATE", "/status/state"),
    ("UNKNOWN and nothing is missing", "unknown_required_fields_missing", {"agent_identity.agent_name": "strategy"}, "STATE",
     "/status/state"),
    ("a calendar that cannot be asked, and OK", "market_closed",
     {"inputs.calendar": "lunar", "inputs.market_is_open": None, "status.state": "OK", "status.reason_codes": []}, "STATE",
     "/status/state"),
    ("a marketdata that is scaled to zero", "degraded_marketdata_stale", {"inputs.execution_replicas": 0}, "STATE",
     "/inputs/execution_replicas"),
    ("the switch gates and is not told", "halted_kill_switch",
     {"safety.gating_reasons": ["EXECUTION_ORDERS_DISABLED_CONTRACT"]}, "GATING", "/safety/gating_reasons"),
    ("gating in another order", "halted_kill_switch",
     {"safety.gating_reasons": ["EXECUTION_ORDERS_DISABLED_CONTRACT", "KILL_SWITCH"]}, "GATING", "/safety/gating_reasons"),
    ("orders gated by a service that has none", "ok", {"safety.gating_reasons": ["EXECUTION_ORDERS_DISABLED_CONTRACT"]},
     "GATING", "/safety/gating_reasons"),
    ("missing data and nothing gates, as upstream", "halted_marketdata_missing",
     {"safety.gating_reasons": ["EXECUTION_ORDERS_DISABLED_CONTRACT"]}, "GATING", "/safety/gating_reasons"),
    ("missing data and safe, as upstream", "halted_marketdata_missing", {"safety.safe_to_run_strategies": True}, "SAFETY",
     "/safety/safe_to_run_strategies"),
    ("UNKNOWN and safe, as upstream", "unknown_required_fields_missing", {"safety.safe_to_run_strategies": True}, "SAFETY",
     "/safety/safe_to_run_strategies"),
    ("healthy and unsafe", "ok", {"safety.safe_to_run_strategies": False}, "SAFETY", "/safety/safe_to_run_strategies"),
    ("fresh, by a tick two minutes and a millisecond old", "degraded_marketdata_stale",
     {"marketdata.is_fresh": True, "inputs.tick_age_seconds": 120.001}, "FRESH", "/marketdata/is_fresh"),
    ("stale, by a tick exactly two minutes old", "degraded_marketdata_stale",
     {"inputs.tick_age_seconds": 120.0, "marketdata.last_tick_utc": "2026-01-07T15:58:00Z"}, "FRESH", "/marketdata/is_fresh"),
    ("fresh, by a tick from the future", "degraded_marketdata_stale",
     {"marketdata.is_fresh": True, "inputs.tick_age_seconds": -2.0, "marketdata.last_tick_utc": "2026-01-07T16:00:02Z"},
     "FRESH", "/marketdata/is_fresh"),
    ("fresh, by no tick at all", "halted_marketdata_missing", {"marketdata.is_fresh": True}, "FRESH", "/marketdata/is_fresh"),
    ("fresh, by an old time stamp alone", "ok", {"marketdata.last_tick_utc": "2026-01-07T11:57:58Z"}, "FRESH",
     "/marketdata/is_fresh"),
    ("stale, by a young time stamp alone", "ok", {"marketdata.is_fresh": False}, "FRESH", "/marketdata/is_fresh"),
    ("a tick's age without its stamp", "market_closed", {"marketdata.last_tick_utc": None}, "FRESH",
     "/marketdata/last_tick_utc"),
    ("a strategy without market data", "market_closed", {"marketdata": None}, "FRESH", "/marketdata"),
    ("an ingest with market data", "degraded_heartbeat_stale", {"marketdata": {"is_fresh": True}}, "FRESH", "/marketdata"),
    ("open at night", "market_closed", {"inputs.market_is_open": True}, "CALENDAR", "/inputs/market_is_open"),
    ("closed by a calendar that nobody knows", "market_closed", {"inputs.calendar": "lunar"}, "CALENDAR",
     "/inputs/market_is_open"),
    ("a switch that nothing pressed", "halted_kill_switch", {"inputs.kill_switch_by": []}, "KILL", "/safety/kill_switch"),
    ("pressed, and the switch is off", "market_closed", {"inputs.kill_switch_by": ["file"]}, "KILL", "/safety/kill_switch"),
    ("updated at no time", "ok", {"status.last_updated_utc": "garbage"}, "TIME", "/status/last_updated_utc"),
    ("a tick at no time", "ok", {"marketdata.last_tick_utc": "2026-02-31T00:00:00Z"}, "TIME", "/marketdata/last_tick_utc"),
    ("computed at no time", "market_closed", {"inputs.as_of_utc": "now"}, "TIME", "/inputs/as_of_utc"),
    ("two times of one document", "market_closed", {"status.last_updated_utc": "2026-01-08T02:00:01Z"}, "TIME",
     "/status/last_updated_utc"),
    ("an age that its stamps deny", "ok", {"heartbeat.age_seconds": 30.0}, "TIME", "/heartbeat/age_seconds"),
    ("a tick's age that its stamp denies", "market_closed", {"inputs.tick_age_seconds": 18010.0}, "TIME",
     "/inputs/tick_age_seconds"),
    ("the floor of another name", "floor_ok", {"extension": "floor"}, "SCHEMA", "/extension"),
    ("better than its worst service", "floor_halted_kill_switch",
     {"floor.state": "OK", "floor.summary": "Healthy", "floor.reason_codes": []}, "FLOOR", "/floor/state"),
    ("worse than its worst service", "floor_ok", {"floor.state": "HALTED"}, "FLOOR", "/floor/state"),
    ("another reason than its services", "floor_halted_kill_switch", {"floor.reason_codes": ["MARKETDATA_STALE"]}, "FLOOR",
     "/floor/reason_codes"),
    ("scaled to zero taken for an error", "floor_ok_scaled_to_zero",
     {"floor.state": "OFFLINE", "floor.reason_codes": ["EXECUTION_DISABLED"]}, "FLOOR", "/floor/state"),
    ("a floor without services is not OK", "floor_ok", {"services": []}, "FLOOR", "/floor/state"),
    ("a floor in other words", "floor_ok", {"floor.summary": "Fine"}, "SUMMARY", "/floor/summary"),
    ("down and online", "floor_offline_process_down", {"services.0.online": True}, "FLOOR", "/services/0/online"),
    ("up and offline", "floor_ok", {"services.1.online": False}, "FLOOR", "/services/1/online"),
    ("a service twice", "floor_ok", {"services.1.service_name": "execution"}, "FLOOR", "/services"),
    ("out of order", "floor_ok", {"services.0.service_name": "zebra"}, "FLOOR", "/services"),
    ("a service OK with a reason", "floor_ok", {"services.2.reason_codes": ["KILL_SWITCH"]}, "CODES",
     "/services/2/reason_codes"),
    ("a service's code nobody knows", "floor_halted_kill_switch", {"services.2.reason_codes": ["BORED"]}, "ENUM",
     "/services/2/reason_codes/0"),
    ("a market data service that is scaled to zero", "floor_ok",
     {"services.2.state": "OFFLINE", "services.2.reason_codes": ["EXECUTION_DISABLED"]}, "STATE", "/services/2/state"),
    ("a strategy that is only degraded without market data", "floor_ok",
     {"services.3.state": "DEGRADED", "services.3.reason_codes": ["MARKETDATA_STALE"]}, "STATE", "/services/3/state"),
    ("a floor at no time", "floor_ok", {"floor.last_updated_utc": "soon"}, "TIME", "/floor/last_updated_utc"),
    ("since tomorrow", "floor_ok", {"services.3.since_utc": "2026-01-08T00:00:00Z"}, "TIME", "/services/3/since_utc"),
]


def changed(name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    document = copy.deepcopy(golden(name))
    for path, value in changes.items():
        *way, last = (int(part) if part.isdigit() else part for part in path.split("."))
        place: Any = document
        for part in way:
            place = place[part]
        if value is REMOVED:
            del place[last]
        else:
            place[last] = value
    return document


@pytest.mark.parametrize(("name", "changes", "tag", "path"), [each[1:] for each in RED], ids=[each[0] for each in RED])
def test_each_rule_is_seen_broken(name: str, changes: dict[str, Any], tag: str, path: str) -> None:
    """The rule that is broken is named, at its place, from bytes as from a document."""
    document = changed(name, changes)
    found = contract_of(document).check(document)
    assert (tag, path) in {(each.tag, each.path) for each in found}
    assert [*map(str, contract_of(document).check(json.dumps(document).encode()))] == [*map(str, found)]


def test_every_tag_is_broken_by_some_document() -> None:
    """No tag of the module's list is there for nothing; POLICY and STRICT have tests of their own."""
    assert {each[3] for each in RED} == {"SCHEMA", "ENUM", "CODES", "SUMMARY", "STATE", "GATING", "SAFETY", "FRESH", "CALENDAR",
                                        "KILL", "TIME", "FLOOR"}


def test_thresholds_are_the_policys() -> None:
    """A service cannot make itself fresh by a threshold of its own; the policy's whole seconds count, its fraction decides."""
    lax = Contract.load(policy={"marketdata_stale_threshold_s": 4, "ops_heartbeat_ttl_s": 3})
    assert {(each.tag, each.path) for each in lax.check(golden("ok"))} == {
        ("POLICY", "/marketdata/stale_threshold_seconds"), ("POLICY", "/heartbeat/ttl_seconds")}
    policy = {"marketdata_stale_threshold_s": 120.5, "ops_heartbeat_ttl_s": 60}
    document = changed("degraded_marketdata_stale", {"inputs.tick_age_seconds": 120.4,
                                                     "marketdata.last_tick_utc": "2026-01-07T15:58:00Z"})
    assert SERVICE.check(document) == []
    assert [each.tag for each in Contract.load(policy=policy).check(document)] == ["FRESH"]
    with pytest.raises(SpecError, match="not a number"):
        Contract.load(policy={"ops_heartbeat_ttl_s": "60"})


@pytest.mark.parametrize("kind", ["ingest", "ops"])
def test_an_old_tick_degrades_who_has_no_market_data_of_its_own(kind: str) -> None:
    """Such a kind tells of a tick by its inputs alone; where it tells no inputs, it may know of one."""
    old = {"service_kind": kind, "agent_identity.agent_role": kind, "inputs.tick_age_seconds": 9999.0,
           "heartbeat.age_seconds": 0.0, "heartbeat.last_heartbeat_utc": "2026-01-07T16:00:00Z"}
    fine = {"status.state": "OK", "status.summary": "Healthy", "status.reason_codes": []}
    told = {"status.reason_codes": ["MARKETDATA_STALE"], "safety.safe_to_run_strategies": False,
            "safety.gating_reasons": ["MARKETDATA_STALE"]}
    name = "degraded_heartbeat_stale"
    assert SERVICE.check(changed(name, {**old, **told})) == []
    silent = changed(name, {**old, **told})
    del silent["inputs"]
    assert SERVICE.check(silent) == []
    assert [(each.tag, each.path) for each in SERVICE.check(changed(name, {**old, **fine}))] == [
        ("STATE", "/status/state"), ("GATING", "/safety/gating_reasons"), ("SAFETY", "/safety/safe_to_run_strategies")]
    assert SERVICE.check(changed(name, {**old, **fine, "inputs.tick_age_seconds": None})) == []


def test_the_markets_calendar_may_be_told() -> None:
    """Of a document that says nothing of hours both are tried, unless the market's calendar is told: the source's own example
    is of seven in the morning, New York time."""
    assert SERVICE.check(golden("ok")) == []
    assert [each.tag for each in Contract.load(calendar="nyse").check(golden("ok"))] == ["STATE"]
    assert Contract.load(calendar="continuous").check(golden("ok")) == []
    stamps = ("status.last_updated_utc", "heartbeat.last_heartbeat_utc", "marketdata.last_tick_utc")
    bell = changed("ok", dict.fromkeys(stamps, "2026-01-07T21:00:00Z"))
    shut = {**bell, "status": {**bell["status"], "state": "MARKET_CLOSED", "summary": "Market closed",
                               "reason_codes": ["MARKET_CLOSED"]}}
    nyse = Contract.load(calendar="nyse")
    assert nyse.check(bell) == [] == nyse.check(shut), "the second of the closing bell is both"
    with pytest.raises(SpecError, match="lunar"):
        Contract.load(calendar="lunar")
    with pytest.raises(SpecError, match="no part"):
        Contract.load(part="roof")


def test_the_last_second_of_all_calendars_is_survived() -> None:
    """There is no second after it; when New York has its hours then, nobody knows."""
    late = changed("ok", {"status.last_updated_utc": "9999-12-31T23:59:59.999999Z"})
    assert "STATE" in {each.tag for each in Contract.load(calendar="nyse").check(late)}


def test_a_heartbeat_of_which_only_the_time_is_told() -> None:
    """Whole seconds leave its age open by one: at the limit both answers are lawful, beyond it one is."""
    for at, found in (("2026-01-07T11:59:00Z", []), ("2026-01-07T11:58:59Z", []), ("2026-01-07T11:58:58Z", ["STATE"])):
        document = changed("ok", {"heartbeat.age_seconds": REMOVED, "heartbeat.last_heartbeat_utc": at})
        assert [each.tag for each in SERVICE.check(document)] == found, at


def test_strictly_nothing_unknown_is_let_through() -> None:
    """Further keys are lawful in a running service, and so are other ways to write a time; strictly they are not."""
    document = changed("ok", {"agent_identity.mood": "calm", "weather": "fine",
                              "status.last_updated_utc": "2026-01-07T12:00:00.25Z"})
    assert SERVICE.check(document) == []
    assert [(each.tag, each.path) for each in SERVICE.check(document, strict=True)] == [
        ("STRICT", "/agent_identity/mood"), ("STRICT", "/weather"), ("STRICT", "/status/last_updated_utc")]
    moody = changed("floor_ok", {"services.1.mood": "calm"})
    assert [each.path for each in FLOOR.check(moody, strict=True)] == ["/services/1/mood"]


def test_following_says_what_checking_says() -> None:
    """A document that has not changed is not asked again; one that has, is."""
    following, document = SERVICE.following(), golden("ok")
    assert following.check(document, None) == [] and following.check(document, ()) == []
    document["safety"]["kill_switch"] = True
    assert [each.tag for each in following.check(document, ("safety",))] == [each.tag for each in SERVICE.check(document)] != []


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
                    max_leaves=12)


@given(st.binary(max_size=400) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_survived(data: bytes) -> None:
    """Whatever comes, the answer is a list of findings, and not an empty one."""
    for contract in (SERVICE, FLOOR):
        assert contract.check(data, strict=True) and len(contract.check(data)) <= FINDINGS_MAX


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(each for key, part in inner for each in places(part, (*path, key)))]


@given(st.sampled_from(GOLDENS), st.data())
@settings(max_examples=300, deadline=None)
def test_anything_anywhere_is_survived(name: str, data: st.DataObject) -> None:
    """A golden with any value at any place, also such as JSON cannot hold: never an exception, always in bounds."""
    document = golden(name)
    *way, last = data.draw(st.sampled_from(places(document)[1:]))
    place: Any = document
    for part in way:
        place = place[part]
    place[last] = data.draw(JSON | st.floats() | st.sampled_from(["\ud800", 10**40, "9999-12-31T23:59:59-23:59", object()]))
    for contract in (SERVICE, FLOOR):
        assert len(contract.check(document, strict=True)) <= 2 * FINDINGS_MAX
    answer = json.dumps(document, default=str).encode()
    line = ROLL_UP.line(str(document.get("service_name")), answer)
    assert line["state"] == "UNKNOWN" or not {"SCHEMA", "CODES", "ENUM"} & {each.tag for each in SERVICE.check(answer)
                                                                           if each.path.startswith("/status/state")}
