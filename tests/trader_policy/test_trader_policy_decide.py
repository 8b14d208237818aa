"""The policy guard: every predicate at its exact boundary, every missing input, tiers, order, axes, permits."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec import structs
from trader_policy_kit import NOW, reference, settings_of, well

from system_under_test.trader.policy import (
    KILL_REASONS,
    REDUCEONLY_REASONS,
    Capital,
    Decision,
    Guard,
    Market,
    Permit,
    PermitError,
    Refusal,
    Snapshot,
    System,
    axes,
    decide,
    resolve,
)
from system_under_test.trader.settings import Settings


def reasons(**changes: object) -> tuple[str, ...]:
    """The reasons of a well snapshot with these inputs changed."""
    return decide(well(**changes), reference()).reasons


def test_nothing_wrong_is_active_without_reasons():
    """A snapshot in which nothing is wrong decides Active, and Active has no reasons."""
    assert decide(well(), reference()) == Decision("Active", ())


BOUNDARIES = [
    # name, inputs that do not trip, inputs that trip, the one reason
    ("heartbeat alone", {"heartbeat_ts_ms": NOW - 10_000}, {"heartbeat_ts_ms": NOW - 10_001},
     "REDUCEONLY_WATCHDOG_UNCONFIRMED"),
    ("margin high", {"mm_util": 0.8499999}, {"mm_util": 0.85}, "REDUCEONLY_MARGIN_MM_UTIL_HIGH"),
    ("margin kill", {"mm_util": 0.1}, {"mm_util": 0.95}, "KILL_MARGIN_MM_UTIL_CRITICAL"),
    ("margin age", {"mm_util_ts_ms": NOW - 30_000}, {"mm_util_ts_ms": NOW - 30_001},
     "REDUCEONLY_INPUT_MISSING_OR_STALE"),
    ("disk age", {"disk_used_ts_ms": NOW - 30_000}, {"disk_used_ts_ms": NOW - 30_001},
     "REDUCEONLY_INPUT_MISSING_OR_STALE"),
    ("second disk age", {"disk_used_secondary_ts_ms": NOW - 30_000}, {"disk_used_secondary_ts_ms": NOW - 30_001},
     "REDUCEONLY_INPUT_MISSING_OR_STALE"),
    ("disk alone", {"disk_used_pct": 0.9199999}, {"disk_used_pct": 0.92}, "REDUCEONLY_DISK_KILL_UNCONFIRMED"),
    ("disk both", {"disk_used_pct": 0.9199999, "disk_used_pct_secondary": 0.92},
     {"disk_used_pct": 0.92, "disk_used_pct_secondary": 0.92}, "KILL_DISK_WATERMARK_KILL"),
    ("session unconfirmed", {"session_kill_active": False, "count_10028_5m": 4},
     {"session_kill_active": True, "count_10028_5m": 4}, "REDUCEONLY_SESSION_KILL_UNCONFIRMED"),
    ("session confirmed", {"session_kill_active": False, "count_10028_5m": 5},
     {"session_kill_active": True, "count_10028_5m": 5}, "KILL_RATE_LIMIT_SESSION_TERMINATION"),
    ("fee age", {"fee_cache_ts_ms": NOW - 900_000}, {"fee_cache_ts_ms": NOW - 900_001},
     "REDUCEONLY_FEE_MODEL_HARD_STALE"),
    ("policy age", {"policy_generated_ts_ms": NOW - 300_999}, {"policy_generated_ts_ms": NOW - 301_000},
     "REDUCEONLY_POLICY_STALE"),
    ("risk degraded", {"risk_state": "Healthy"}, {"risk_state": "Degraded"}, "REDUCEONLY_RISKSTATE_DEGRADED"),
    ("risk maintenance", {"risk_state": "Healthy"}, {"risk_state": "Maintenance"}, "REDUCEONLY_RISKSTATE_MAINTENANCE"),
    ("risk kill", {"risk_state": "Healthy"}, {"risk_state": "Kill"}, "KILL_RISKSTATE_KILL"),
    ("cortex reduce", {"cortex_override": "None"}, {"cortex_override": "ForceReduceOnly"},
     "REDUCEONLY_CORTEX_FORCE_REDUCE_ONLY"),
    ("cortex kill", {"cortex_override": "None"}, {"cortex_override": "ForceKill"}, "KILL_CORTEX_FORCE_KILL"),
    ("emergency", {"emergency_active": False}, {"emergency_active": True}, "REDUCEONLY_EMERGENCY_REDUCEONLY_ACTIVE"),
    ("latch", {"latch_blocked": False}, {"latch_blocked": True}, "REDUCEONLY_OPEN_PERMISSION_LATCHED"),
    ("bunker", {"bunker_active": False}, {"bunker_active": True}, "REDUCEONLY_BUNKER_MODE_ACTIVE"),
    *((f"certificate {state}", {"cert_state": "PASS"}, {"cert_state": state}, "REDUCEONLY_F1_CERT_INVALID")
      for state in ("FAIL", "STALE", "MISSING", "INVALID")),
]


@pytest.mark.parametrize(("calm", "tripped", "reason"), [each[1:] for each in BOUNDARIES],
                         ids=[each[0] for each in BOUNDARIES])
def test_each_predicate_trips_at_its_boundary_and_alone(calm, tripped, reason):
    """One step before the boundary nothing trips; at it exactly this reason does, and no other."""
    assert reasons(**calm) == ()
    assert reasons(**tripped) == (reason,)


def test_watchdog_kills_only_when_the_loop_has_stopped_too():
    """A silent watchdog over a running loop is unconfirmed; with a stopped loop it is Kill; the loop alone is neither."""
    assert reasons(heartbeat_ts_ms=NOW - 10_001, loop_tick_ts_ms=NOW - 10_000) == ("REDUCEONLY_WATCHDOG_UNCONFIRMED",)
    assert reasons(heartbeat_ts_ms=NOW - 10_001, loop_tick_ts_ms=NOW - 10_001) == ("KILL_WATCHDOG_HEARTBEAT_STALE",)
    assert reasons(loop_tick_ts_ms=NOW - 10_001) == ()


def test_a_disk_that_cannot_be_confirmed_is_not_kill():
    """Both measures must be over the watermark and fresh; otherwise the disk is unconfirmed."""
    full = {"disk_used_pct": 0.95, "disk_used_pct_secondary": 0.95}
    both = ("REDUCEONLY_INPUT_MISSING_OR_STALE", "REDUCEONLY_DISK_KILL_UNCONFIRMED")
    assert reasons(**full) == ("KILL_DISK_WATERMARK_KILL",)
    assert reasons(**full, disk_used_secondary_ts_ms=NOW - 30_001) == both
    assert reasons(**full, disk_used_ts_ms=NOW - 30_001) == both
    assert reasons(disk_used_pct=0.95, disk_used_pct_secondary=None) == both
    assert reasons(disk_used_pct_secondary=0.99) == ()


def test_a_margin_that_went_stale_keeps_its_kill():
    """Losing sight of a critical margin does not loosen the mode."""
    assert reasons(mm_util=0.96, mm_util_ts_ms=NOW - 60_000) == ("KILL_MARGIN_MM_UTIL_CRITICAL",)


INPUT = "REDUCEONLY_INPUT_MISSING_OR_STALE"
MISSING = [
    ("risk_state", ("REDUCEONLY_RISKSTATE_DEGRADED",)),
    ("heartbeat_ts_ms", (INPUT,)),
    ("loop_tick_ts_ms", (INPUT,)),
    ("mm_util", (INPUT,)),
    ("mm_util_ts_ms", (INPUT,)),
    ("session_kill_active", (INPUT,)),
    ("count_10028_5m", (INPUT,)),
    ("disk_used_pct", (INPUT,)),
    ("disk_used_ts_ms", (INPUT,)),
    ("disk_used_pct_secondary", (INPUT,)),
    ("disk_used_secondary_ts_ms", (INPUT,)),
    ("cortex_override", ("REDUCEONLY_CORTEX_FORCE_REDUCE_ONLY",)),
    ("emergency_active", (INPUT,)),
    ("latch_blocked", ("REDUCEONLY_OPEN_PERMISSION_LATCHED",)),
    ("bunker_active", ("REDUCEONLY_BUNKER_MODE_ACTIVE",)),
    ("cert_state", ("REDUCEONLY_F1_CERT_INVALID",)),
    ("fee_cache_ts_ms", ("REDUCEONLY_FEE_MODEL_HARD_STALE",)),
    ("policy_generated_ts_ms", ("REDUCEONLY_POLICY_STALE", INPUT)),
]


@pytest.mark.parametrize(("name", "expected"), MISSING)
def test_each_missing_input_is_a_reason(name, expected):
    """An input that is not there is never good news."""
    assert reasons(**{name: None}) == expected


def test_every_guard_input_was_taken_away_once():
    """The list of missing inputs above holds every input that the guard reads under this profile."""
    not_read = {"now_ms", "count_429_5m", "latch_codes", "cert_expires_at", "evidence_chain_state"}
    assert {name for name, _ in MISSING} == {each.name for each in structs.fields(Snapshot)} - not_read


def test_a_missing_count_beside_a_session_flag_says_both():
    """The flag without its corroborator is unconfirmed, and the corroborator is missing."""
    assert reasons(session_kill_active=True, count_10028_5m=None) == (INPUT, "REDUCEONLY_SESSION_KILL_UNCONFIRMED")
    assert reasons(heartbeat_ts_ms=NOW - 10_001, loop_tick_ts_ms=None) == (INPUT, "REDUCEONLY_WATCHDOG_UNCONFIRMED")


def test_no_snapshot_at_all_is_a_missing_input():
    """When no coherent snapshot could be taken, the mode is ReduceOnly."""
    assert decide(None, reference()) == Decision("ReduceOnly", (INPUT,))


@pytest.mark.parametrize("name", ["heartbeat_ts_ms", "loop_tick_ts_ms", "mm_util_ts_ms", "disk_used_ts_ms",
                                  "disk_used_secondary_ts_ms"])
def test_a_time_stamp_from_the_future_is_no_time_stamp(name):
    """An input ahead of the clock counts as missing, not as very fresh."""
    assert reasons(**{name: NOW + 1}) == (INPUT,)


def test_numbers_that_are_no_numbers_are_missing():
    """NaN and negative ratios are missing inputs."""
    for name in ("mm_util", "disk_used_pct", "disk_used_pct_secondary"):
        assert reasons(**{name: float("nan")}) == (INPUT,)
        assert reasons(**{name: -0.1}) == (INPUT,)
    assert reasons(fee_cache_ts_ms=NOW + 1) == ("REDUCEONLY_FEE_MODEL_HARD_STALE",)


def test_evidence_counts_only_outside_the_csp_profile():
    """Under CSP a broken evidence chain is a nonexistent input (AT-991)."""
    assert reasons(evidence_chain_state="RED") == ()


class OtherProfile(Settings):
    """Settings of a build that enforces more than CSP. No such build exists yet; the predicate does."""

    enforced_profile = "GOP"


def test_evidence_counts_under_another_profile():
    """Outside CSP anything but GREEN is a reason, a missing state too (AT-992)."""
    other = OtherProfile(**{each.name: getattr(reference(), each.name) for each in dataclasses.fields(Settings)})
    for state in ("RED", None):
        assert decide(well(evidence_chain_state=state), other).reasons == ("REDUCEONLY_EVIDENCE_CHAIN_NOT_GREEN",)
    assert decide(well(evidence_chain_state="GREEN"), other).reasons == ()


def test_nothing_used_is_a_lawful_reading():
    """Zero margin and an empty disk are measurements, not missing ones."""
    assert reasons(mm_util=0.0, disk_used_pct=0.0, disk_used_pct_secondary=0.0) == ()


def test_reason_codes_are_the_manifest_s_in_its_order():
    """The guard's two tiers equal the registries, code by code."""
    assert reference().registries.kill_reasons == KILL_REASONS
    assert reference().registries.reduceonly_reasons == REDUCEONLY_REASONS


# ---- axes -----------------------------------------------------------------------------------------------

TRIPLES = list(itertools.product(Capital, Market, System))


def test_the_27_triples_resolve_as_the_rules_say():
    """One triple is Active, eleven are ReduceOnly, fifteen are Kill."""
    modes = [resolve(*triple) for triple in TRIPLES]
    assert (modes.count("Active"), modes.count("ReduceOnly"), modes.count("Kill")) == (1, 11, 15)
    for capital, market, system in TRIPLES:
        expected = ("Kill" if system is System.FAILING or capital is Capital.CRITICAL
                    else "Active" if (capital, market, system) == (0, 0, 0) else "ReduceOnly")
        assert resolve(capital, market, system) == expected


def test_worse_axes_never_give_a_looser_mode():
    """Componentwise worse is at least as restrictive, for all pairs of triples (AT-1053)."""
    rank = {"Active": 0, "ReduceOnly": 1, "Kill": 2}
    for better, worse in itertools.product(TRIPLES, TRIPLES):
        if all(b <= w for b, w in zip(better, worse, strict=True)):
            assert rank[resolve(*better)] <= rank[resolve(*worse)]


ages = st.one_of(st.none(), st.integers(NOW - 1_000_000, NOW + 10))
ratios = st.one_of(st.none(), st.floats(0, 1.2))
flags = st.sampled_from([None, False, True])
snapshots = st.builds(
    Snapshot, now_ms=st.just(NOW), risk_state=st.sampled_from([None, "Healthy", "Degraded", "Maintenance", "Kill"]),
    heartbeat_ts_ms=ages, loop_tick_ts_ms=ages, mm_util=ratios, mm_util_ts_ms=ages, session_kill_active=flags,
    count_10028_5m=st.one_of(st.none(), st.integers(0, 9)), count_429_5m=st.integers(0, 9), disk_used_pct=ratios,
    disk_used_ts_ms=ages, disk_used_pct_secondary=ratios, disk_used_secondary_ts_ms=ages,
    cortex_override=st.sampled_from([None, "None", "ForceReduceOnly", "ForceKill"]), emergency_active=flags,
    latch_blocked=flags, latch_codes=st.just(()), bunker_active=flags,
    cert_state=st.sampled_from([None, "PASS", "FAIL", "STALE", "INVALID", "MISSING"]),
    cert_expires_at=st.just(NOW), evidence_chain_state=st.none(), fee_cache_ts_ms=ages, policy_generated_ts_ms=ages)


@given(snapshots)
@hypothesis_settings(max_examples=300, deadline=None)
def test_reasons_are_of_one_tier_in_order_and_agree_with_the_axes(snapshot):
    """Over random snapshots: one tier, registry order, no repetition, and the mode that the axes resolve to."""
    decision = decide(snapshot, reference())
    tier = {"Active": (), "ReduceOnly": REDUCEONLY_REASONS, "Kill": KILL_REASONS}[decision.mode]
    assert list(decision.reasons) == [code for code in tier if code in decision.reasons]
    assert (decision.mode == "Active") == (not decision.reasons)
    assert resolve(*axes(decision.reasons)) == decision.mode


@given(snapshots, st.sampled_from([name for name, _ in MISSING]))
@hypothesis_settings(max_examples=300, deadline=None)
def test_an_input_that_vanishes_never_makes_the_mode_active(snapshot, name):
    """Whatever the rest says, a snapshot without one of its inputs is not Active."""
    assert decide(structs.replace(snapshot, **{name: None}), reference()).mode != "Active"


# ---- permits --------------------------------------------------------------------------------------------

MODES = {
    "Active": {},
    "ReduceOnly": {"risk_state": "Degraded"},
    "Latched": {"latch_blocked": True},
    "Kill": {"risk_state": "Kill"},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("intent_class", ["OPEN", "CLOSE", "HEDGE", "CANCEL", "EMERGENCY_CLOSE", "", "REPLACE"])
def test_the_permission_table(mode, intent_class):
    """Opening, and whatever cannot be classified, needs Active; reducing and cancelling pass in every mode."""
    guard = Guard(reference())
    guard.turn()
    paper = guard.permit(well(**MODES[mode]), intent_class)
    reducing = intent_class in ("CLOSE", "HEDGE", "CANCEL", "EMERGENCY_CLOSE")
    assert isinstance(paper, Permit if reducing or mode == "Active" else Refusal)


@pytest.mark.parametrize(("changes", "code"), [
    ({"latch_blocked": True}, "OpenPermissionLatched"),
    ({"latch_blocked": True, "risk_state": "Degraded"}, "OpenPermissionLatched"),
    ({"risk_state": "Degraded"}, "RiskStateNotHealthy"),
    ({"risk_state": "Maintenance"}, "RiskStateNotHealthy"),
    ({"risk_state": "Kill"}, "TradingModeForbidsOpen"),
    ({"bunker_active": True}, "TradingModeForbidsOpen"),
])
def test_a_refusal_names_its_cause_by_a_registry_code(changes, code):
    """The reject code says the latch, the risk state or the mode, and the registry knows it."""
    guard = Guard(reference())
    refusal = guard.permit(well(**changes), "OPEN")
    assert isinstance(refusal, Refusal)
    assert refusal.code == code
    assert code in reference().registries.reject_codes


def test_a_permit_is_spent_once_and_in_its_own_call():
    """Reuse raises, and so does a permit of an earlier call; nothing else is spent by it."""
    guard = Guard(reference())
    guard.turn()
    first, second = guard.permit(well(), "OPEN"), guard.permit(well(), "CANCEL")
    guard.spend(first)
    with pytest.raises(PermitError):
        guard.spend(first)
    guard.turn()
    with pytest.raises(PermitError):
        guard.spend(second)


def test_only_the_guard_mints_permits():
    """A permit cannot be made by hand, and one guard's permit is not another's."""
    with pytest.raises(PermitError):
        Permit("OPEN", 1, 1, object())
    mine, other = Guard(reference()), Guard(reference())
    mine.turn(), other.turn()
    foreign, own = mine.permit(well(), "OPEN"), other.permit(well(), "OPEN")
    with pytest.raises(PermitError):
        other.spend(foreign)
    other.spend(own)


def test_the_guard_decides_under_the_policy_it_was_given():
    """A stricter policy trips where the reference does not."""
    assert decide(well(mm_util=0.5), settings_of(mm_util_reduceonly=0.5)).mode == "ReduceOnly"
