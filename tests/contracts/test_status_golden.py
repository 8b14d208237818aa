"""A document against a golden: exact, but for what is declared, and never for what a golden proves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from harness.contracts.drift import listing
from harness.contracts.golden import ABSENT, NEVER_TOLERABLE, Difference, Tolerances, compare, matches, tolerances_of
from harness.errors import SpecError

TOLERANCES = tolerances_of()
Get = Callable[[str], dict[str, Any]]
STRICT = Tolerances((), {})


def judged(golden: Get, changes: dict[str, Any], name: str = "market_data_stale", baseline: dict[str, Any] | None = None,
           policy: dict[str, Any] | None = None) -> list[Difference]:
    """The golden with some fields changed, compared with itself."""
    observed = {key: value for key, value in {**golden(name), **changes}.items() if value is not ABSENT}
    return compare(observed, golden(name), TOLERANCES, policy or {}, baseline, fixture=name)


@pytest.mark.parametrize("name", tuple(listing()["fixtures"]))
def test_a_golden_equals_itself(golden: Get, name: str) -> None:
    """No difference, given a baseline from which the counters rose."""
    baseline = {**golden(name), "wal_queue_enqueue_failures": -1}
    assert judged(golden, {}, name, baseline) == []


def test_a_live_document_of_another_run_matches(golden: Get) -> None:
    """Build, hashes, time stamps, ages and live values differ and are tolerated, each with a reason."""
    shift = 10**9
    live = {key: value + shift for key, value in golden("market_data_stale").items()
            if key.endswith(("_ts_ms", "_ts", "_at"))}
    live |= {"build_id": "b2", "runtime_config_hash": "ab", "policy_age_sec": 0, "disk_used_pct": 0.1, "mm_util": 0.0,
             "wal_queue_depth": 0, "deribit_http_p95_ms": 3.5, "ws_event_lag_ms": 3049, "extra": [1]}
    found = judged(golden, live, baseline=golden("market_data_stale"))
    assert matches(found) and {"/build_id", "/mm_util", "/ws_event_lag_ms", "/extra"} < {each.pointer for each in found}
    assert all(each.reason for each in found)


RED = [
    ("another mode", "/trading_mode", {"trading_mode": "Kill"}),
    ("another reason", "/mode_reasons", {"mode_reasons": ["REDUCEONLY_RISKSTATE_DEGRADED"]}),
    ("one reason more", "/mode_reasons", {"mode_reasons": ["REDUCEONLY_OPEN_PERMISSION_LATCHED",
                                                           "REDUCEONLY_RISKSTATE_DEGRADED"]}),
    ("a boolean as a number", "/bunker_mode_active", {"bunker_mode_active": 0}),
    ("a key is missing", "/mm_util", {"mm_util": ABSENT}),
    ("owner view is missing", "/owner_view", {"owner_view": ABSENT}),
    ("another type", "/build_id", {"build_id": 7}),
    ("a number as a truth", "/mm_util", {"mm_util": True}),
    ("outside its range", "/mm_util", {"mm_util": 0.9}),
    ("not stale yet", "/ws_event_lag_ms", {"ws_event_lag_ms": 2999}),
    ("an untolerated counter", "/429_count_5m", {"429_count_5m": 1}),
    ("a stamp far from the loop", "/mm_util_last_update_ts_ms", {"mm_util_last_update_ts_ms": 1}),
]


@pytest.mark.parametrize(("path", "changes"), [pytest.param(*row[1:], id=row[0]) for row in RED])
def test_differences_that_count(golden: Get, path: str, changes: dict[str, Any]) -> None:
    """Exactly the changed path is untolerated."""
    assert [each.pointer for each in judged(golden, changes) if not each.tolerated] == [path]


def test_time_stamps_never_go_back(golden: Get) -> None:
    """A volatile stamp is at least the baseline's."""
    baseline = {**golden("market_data_stale"), "loop_tick_last_ts_ms": 1769440410901}
    found = judged(golden, {"loop_tick_last_ts_ms": 1769440410899}, baseline=baseline)
    assert [(each.pointer, each.tolerated) for each in found] == [("/loop_tick_last_ts_ms", False)]


@pytest.mark.parametrize(("failures", "before", "ok"), [(1, 0, True), (17, 16, True), (17, 17, False), (3, None, False)])
def test_increased_needs_a_rise(golden: Get, failures: int, before: int | None, ok: bool) -> None:
    """Even the fixture's own number proves nothing when it stood there before; without a baseline nothing rose."""
    baseline = None if before is None else {**golden("wal_backpressure"), "wal_queue_enqueue_failures": before}
    found = judged(golden, {"wal_queue_enqueue_failures": failures}, "wal_backpressure", baseline)
    assert matches(found) is ok


def test_conditions_compare_by_meaning(golden: Get) -> None:
    """Spacing does not count; metric, operator, value and dwell do; the dwell is that of the policy in force."""
    def with_condition(text: str) -> dict[str, Any]:
        view = copy.deepcopy(golden("market_data_stale")["owner_view"])
        view["unblock"][0]["condition"] = text
        return {"owner_view": view}

    same = with_condition("ws_event_lag_ms<=500 for >=60s  AND  reconciliation_success==true")
    short = with_condition("ws_event_lag_ms <= 500 for >= 2s AND reconciliation_success == true")
    assert judged(golden, same) == []
    assert judged(golden, short, policy={"stale_clear_dwell_ms": 2000}) == []
    for wrong, policy in ((short, {}), (same, {"stale_clear_dwell_ms": 2000})):
        assert [each.pointer for each in judged(golden, wrong, policy=policy)] == ["/owner_view/unblock/0/condition"]


def test_more_ways_out_than_expected(golden: Get) -> None:
    """Another number of conditions is one difference."""
    view = golden("market_data_stale")["owner_view"]
    view["unblock"] = view["unblock"] * 2
    assert [each.pointer for each in judged(golden, {"owner_view": view}) if not each.tolerated] == ["/owner_view/unblock"]


def test_order_is_stable_and_numbers_are_json(golden: Get) -> None:
    """Paths come in the fixture's order; 9 equals 9.0."""
    expected = golden("market_data_stale")
    observed = {key: expected[key] for key in reversed(expected)} | {"policy_age_sec": 9.0, "risk_state": "x", "build_id": "x"}
    assert [each.pointer for each in compare(observed, expected, STRICT, {})] == ["/build_id", "/risk_state"]


@pytest.mark.parametrize("never", NEVER_TOLERABLE)
def test_what_a_golden_proves_is_never_tolerated(never: str) -> None:
    """Neither the path, nor one above it, nor one below it, for all fixtures or for one."""
    above = never.rpartition("/")[0] or never
    for path in (never, above, never + "/*"):
        entry = f'{{"{path}": {{kind: volatile, reason: because}}}}'
        for text in (f"all: {entry}", f"all: {{}}\nfixtures: {{wal_backpressure: {entry}}}"):
            with pytest.raises(SpecError, match="never be tolerated"):
                Tolerances.parse(text.encode(), "t.yaml")


@pytest.mark.parametrize(("text", "why"), [
    ("all: {/mm_util: {kind: any, reason: x}}", "kind"),
    ("all: {/mm_util: {kind: volatile}}", "reason"),
    ("all: {/mm_util: {kind: volatile, reason: ' '}}", "reason"),
    ("all: {/mm_util: {kind: range, from: 0, reason: x}}", "takes"),
    ("all: {/mm_util: {kind: volatile, to: 1, reason: x}}", "takes"),
    ("all: [1]", "cannot be read"), ("{}", "cannot be read"), ("{", r":\d+:\d+: found"), ("fixtures: 1", "cannot be read"),
])
def test_bad_tolerances_are_refused(text: str, why: str) -> None:
    """A tolerances file is ours and must be right."""
    with pytest.raises(SpecError, match=why):
        Tolerances.parse(text.encode(), "t.yaml")


def test_a_bound_that_is_no_number_is_refused(golden: Get) -> None:
    """A policy without the key a tolerance names is an error, not a pass."""
    tolerances = Tolerances.parse(b"all: {/mm_util: {kind: range, from: 0, to: policy.nothing, reason: x}}", "t.yaml")
    with pytest.raises(SpecError, match="bound"):
        compare({"mm_util": 0.5}, {"mm_util": 0.4}, tolerances, {})
