"""The truth table of the ops status contract: every combination of inputs, and every sentence of the source."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from harness.contracts.library import REPOSITORY
from harness.contracts.ops_status.table import Table, read_spec, table_of
from harness.errors import SpecError

TABLE = table_of()
KINDS = ("marketdata", "strategy", "execution", "ingest", "ops")
HEARTBEATS = ((None, None), (1.0, None), (60.0, 60.0), (60.001, 60.0))
EVERY = [
    {"service_kind": kind, "required_fields_present": required, "process_up": up, "kill_switch": killed,
     "market_is_open": open_, "marketdata_is_fresh": fresh, "heartbeat_age_seconds": age, "heartbeat_ttl_seconds": ttl,
     "execution_enabled": enabled, "execution_replicas": replicas}
    for kind, required, up, killed, open_, fresh, (age, ttl), enabled, replicas in product(
        KINDS, (True, False), (True, False), (True, False), (True, False), (True, False, None), HEARTBEATS,
        (True, False, None), (None, -1, 0, 1))]


def ladder(kind: str, required: bool, up: bool, killed: bool, open_: bool, fresh: bool | None, stale_beat: bool,
           off: bool) -> tuple[str, str | None]:
    """The source's rules in its own order, written down without the table."""
    if not required:
        return "UNKNOWN", "REQUIRED_FIELDS_MISSING"
    if kind == "execution" and off:
        return "OFFLINE", "EXECUTION_DISABLED"
    if not up:
        return "OFFLINE", "PROCESS_DOWN"
    if killed:
        return "HALTED", "KILL_SWITCH"
    if open_ and fresh is False:
        return "HALTED" if kind in ("strategy", "execution") else "DEGRADED", "MARKETDATA_STALE"
    if open_ and fresh is None and kind in ("strategy", "execution"):
        return "HALTED", "MARKETDATA_MISSING"
    if open_ and fresh is None and kind == "marketdata":
        return "DEGRADED", "MARKETDATA_MISSING"
    if stale_beat:
        return "DEGRADED", "HEARTBEAT_STALE"
    if not open_ and kind != "ops":
        return "MARKET_CLOSED", "MARKET_CLOSED"
    return "OK", None


def test_every_combination() -> None:
    """All 11,520 combinations of inputs have the state and the one reason of the source's rules."""
    assert len(EVERY) == 11_520
    for inputs in EVERY:
        age, ttl, replicas = (inputs[key] for key in ("heartbeat_age_seconds", "heartbeat_ttl_seconds", "execution_replicas"))
        decision = TABLE.decide(inputs)
        assert (decision.state, decision.reason) == ladder(
            inputs["service_kind"], inputs["required_fields_present"], inputs["process_up"], inputs["kill_switch"],
            inputs["market_is_open"], inputs["marketdata_is_fresh"], age is not None and ttl is not None and age > ttl,
            inputs["execution_enabled"] is False or (replicas is not None and replicas <= 0)), inputs
        assert len(decision.codes) == (decision.state != "OK")


def test_every_combination_gates_what_it_must() -> None:
    """Over all 11,520: what gates, in its order; strategies are safe exactly when nothing that stops them gates; and wherever
    ours differs from the source's code, ours is the one that stops."""
    for inputs in EVERY:
        decision, kind = TABLE.decide(inputs), inputs["service_kind"]
        stale = inputs["market_is_open"] and inputs["marketdata_is_fresh"] is False
        missing = inputs["market_is_open"] and inputs["marketdata_is_fresh"] is None and kind in KINDS[:3]
        wanted = [code for code, gates in (
            ("REQUIRED_FIELDS_MISSING", not inputs["required_fields_present"]), ("PROCESS_DOWN", not inputs["process_up"]),
            ("KILL_SWITCH", inputs["kill_switch"]), ("MARKETDATA_STALE", stale), ("MARKETDATA_MISSING", missing),
            ("EXECUTION_ORDERS_DISABLED_CONTRACT", kind == "execution")) if gates]
        assert [*decision.gating] == wanted
        assert decision.safe_to_run_strategies is ({*wanted} <= {"EXECUTION_ORDERS_DISABLED_CONTRACT"})
        upstream = not inputs["kill_switch"] and (not inputs["market_is_open"] or inputs["marketdata_is_fresh"] is not False)
        assert upstream or not decision.safe_to_run_strategies


OK, CLOSED, BEAT = ("OK", None), ("MARKET_CLOSED",) * 2, ("DEGRADED", "HEARTBEAT_STALE")
HALTED, DEGRADED = (lambda what: ("HALTED", f"MARKETDATA_{what}")), (lambda what: ("DEGRADED", f"MARKETDATA_{what}"))
MATRIX = {  # a healthy process: open and fresh, the same with a stale heartbeat, stale, missing, missing and a stale one, …
    "marketdata": (OK, BEAT, DEGRADED("STALE"), DEGRADED("MISSING"), DEGRADED("MISSING"), CLOSED, BEAT),
    "strategy": (OK, BEAT, HALTED("STALE"), HALTED("MISSING"), HALTED("MISSING"), CLOSED, BEAT),
    "execution": (OK, BEAT, HALTED("STALE"), HALTED("MISSING"), HALTED("MISSING"), CLOSED, BEAT),
    "ingest": (OK, BEAT, DEGRADED("STALE"), OK, BEAT, CLOSED, BEAT),
    "ops": (OK, BEAT, DEGRADED("STALE"), OK, BEAT, OK, BEAT),
}
COLUMNS = (((True, True, False),), ((True, True, True),), ((True, False, False), (True, False, True)), ((True, None, False),),
           ((True, None, True),), tuple((False, fresh, False) for fresh in (True, False, None)),
           tuple((False, fresh, True) for fresh in (True, False, None)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_matrix_of_a_healthy_process(kind: str) -> None:
    """Column by column, as observed of the source's code."""
    for column, wanted in zip(COLUMNS, MATRIX[kind], strict=True):
        for open_, fresh, stale in column:
            decision = TABLE.decide(healthy(kind, market_is_open=open_, marketdata_is_fresh=fresh,
                                            heartbeat_age_seconds=61.0 if stale else 1.0))
            assert (decision.state, decision.reason) == wanted, (open_, fresh, stale)


def healthy(kind: str, **changes: Any) -> dict[str, Any]:
    return {"service_kind": kind, "required_fields_present": True, "process_up": True, "kill_switch": False,
            "market_is_open": True, "marketdata_is_fresh": True, "heartbeat_age_seconds": 0.0, "heartbeat_ttl_seconds": 60,
            "execution_enabled": True, "execution_replicas": 1, **changes}


SENTENCES = [  # each sentence of the source's table and examples, the cases it speaks of, and what it says of them
    ("UNKNOWN: only when required fields are missing", KINDS, {"required_fields_present": False},
     ("UNKNOWN", "REQUIRED_FIELDS_MISSING")),
    ("execution_enabled=false → OFFLINE (not an error)", ["execution"], {"execution_enabled": False},
     ("OFFLINE", "EXECUTION_DISABLED")),
    ("execution_replicas=0 → OFFLINE (not an error)", ["execution"], {"execution_replicas": 0},
     ("OFFLINE", "EXECUTION_DISABLED")),
    ("scaled to zero stands above the kill switch", ["execution"], {"execution_replicas": 0, "kill_switch": True},
     ("OFFLINE", "EXECUTION_DISABLED")),
    ("scaled to zero is execution's alone", [kind for kind in KINDS if kind != "execution"], {"execution_replicas": 0}, OK),
    ("OFFLINE (general): process not up", KINDS, {"process_up": False}, ("OFFLINE", "PROCESS_DOWN")),
    ("HALTED: process is up AND kill-switch is true", KINDS, {"kill_switch": True}, ("HALTED", "KILL_SWITCH")),
    ("a kill switch of a process that is down is not HALTED", KINDS, {"process_up": False, "kill_switch": True},
     ("OFFLINE", "PROCESS_DOWN")),
    ("closed and otherwise healthy → MARKET_CLOSED", KINDS[:4], {"market_is_open": False}, CLOSED),
    ("stale after hours → MARKET_CLOSED, not DEGRADED", KINDS[:4],
     {"market_is_open": False, "marketdata_is_fresh": False}, CLOSED),
    ("killed after hours is HALTED", KINDS, {"market_is_open": False, "kill_switch": True}, ("HALTED", "KILL_SWITCH")),
    ("marketdata stale → DEGRADED for marketdata", ["marketdata"], {"marketdata_is_fresh": False}, DEGRADED("STALE")),
    ("marketdata missing → DEGRADED for marketdata", ["marketdata"], {"marketdata_is_fresh": None}, DEGRADED("MISSING")),
    ("marketdata stale → HALTED for strategy and execution", ["strategy", "execution"], {"marketdata_is_fresh": False},
     HALTED("STALE")),
    ("marketdata missing → HALTED for strategy and execution", ["strategy", "execution"], {"marketdata_is_fresh": None},
     HALTED("MISSING")),
    ("OK during market hours", KINDS, {}, OK),
]


@pytest.mark.parametrize(("sentence", "kinds", "changes", "wanted"), SENTENCES, ids=[each[0] for each in SENTENCES])
def test_the_sources_sentences(sentence: str, kinds: list[str], changes: dict[str, Any],
                               wanted: tuple[str, str | None]) -> None:
    """What the source says is what the table decides."""
    for kind in kinds:
        decision = TABLE.decide(healthy(kind, **changes))
        assert (decision.state, decision.reason) == wanted


def test_every_row_and_every_gate_is_reached() -> None:
    """No line of the table is there for nothing, and each row of the ladder says where it comes from."""
    decided = [TABLE.decide(inputs) for inputs in EVERY]
    assert {each.row for each in decided} == {row.name for row in TABLE.ladder}
    assert {code for each in decided for code in each.gating} == {row.reason for row in TABLE.gates}
    assert {each.reason for each in decided} == {*TABLE.codes, None} and {each.state for each in decided} == {*TABLE.states}
    assert all(each["source"].strip() for each in read_spec(REPOSITORY, "truth_table.yaml")["ladder"])


@pytest.mark.parametrize("row", range(len(TABLE.ladder) - 1))
def test_each_row_left_out_is_seen(row: int) -> None:
    """Without any single row the enumeration finds a difference: the table holds nothing that could silently go."""
    raw = read_spec(REPOSITORY, "truth_table.yaml")
    without = Table({**raw, "ladder": raw["ladder"][:row] + raw["ladder"][row + 1:]})
    assert any(without.decide(inputs) != TABLE.decide(inputs) for inputs in EVERY)


@pytest.mark.parametrize("row", range(len(TABLE.ladder) - 2))
def test_two_rows_that_change_places_are_seen_where_their_order_counts(row: int) -> None:
    """Neighbours that can hold at once may not be swapped; the others never meet."""
    raw = read_spec(REPOSITORY, "truth_table.yaml")
    rows = raw["ladder"]
    swapped = Table({**raw, "ladder": [*rows[:row], rows[row + 1], rows[row], *rows[row + 2:]]})
    meet = any(TABLE.ladder[row].holds(inputs) and TABLE.ladder[row + 1].holds(inputs) for inputs in EVERY)
    assert meet is any(swapped.decide(inputs) != TABLE.decide(inputs) for inputs in EVERY)


@pytest.mark.parametrize(("age", "fresh"), [(None, None), (0.0, True), (120.0, True), (120.000001, False), (120.001, False),
                                            (-1.0, True), (-1.000001, False), (-3600.0, False)])
def test_freshness_ends_at_the_microsecond(age: float | None, fresh: bool | None) -> None:
    """120.0 s is fresh, a microsecond more is not; a tick from further in the future than a second is not either."""
    assert TABLE.is_fresh(age, 120.0) is fresh


@pytest.mark.parametrize(("change", "why"), [
    ({"ladder": []}, "last row"),
    ({"states": ["OK"]}, "nobody knows"),
    ({"reason_codes": {}}, "nobody knows"),
    ({"kinds": ["marketdata"]}, "nobody knows"),
    ({"ladder": [{"row": "x", "when": {"weather": True}, "state": "OK", "reason": None}]}, "weather"),
    ({"ladder": [{"row": "x", "when": {"process_up": {"near": 1}}, "state": "OK", "reason": None}]}, "near"),
    ({"freshness": {}}, "skew_seconds_max"),
])
def test_a_table_that_contradicts_itself_is_refused(change: dict[str, Any], why: str) -> None:
    """A dangling name would silently switch a rule off."""
    with pytest.raises(SpecError, match=why):
        Table({**read_spec(REPOSITORY, "truth_table.yaml"), **change})
