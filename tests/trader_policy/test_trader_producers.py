"""The producers behind the snapshot: risk causes, emergency, cortex, bunker, breaker, clock gate."""

from __future__ import annotations

import pytest
import yaml
from trader_policy_kit import NOW, REPOSITORY, reference, settings_of

from system_under_test.machine import Now
from system_under_test.trader import breaker as breakers
from system_under_test.trader import risk
from system_under_test.trader.breaker import Breaker, BreakerError
from system_under_test.trader.bunker import Bunker, percentile_95
from system_under_test.trader.clock_gate import ClockGate
from system_under_test.trader.cortex import TOKENS_MAX, Cortex
from system_under_test.trader.emergency import Emergency

# ---- risk -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(risk.CAUSES))
def test_each_cause_alone_gives_its_state_and_ends_by_its_dwell(name):
    """Alone a cause gives its own state; after it is gone its dwell runs, and then the state is Healthy."""
    cause, causes = risk.CAUSES[name], risk.Causes(reference())
    causes.report(name, True, NOW)
    assert causes.state(NOW) == cause.state
    causes.report(name, False, NOW + 10)
    if cause.manual:
        assert causes.state(NOW + 10**9) == cause.state
        causes.acknowledge()
        assert causes.state(NOW + 10**9) == "Healthy"
        return
    dwell_ms = getattr(reference(), cause.dwell) if cause.dwell else 0
    if dwell_ms:
        assert causes.state(NOW + 10 + dwell_ms - 1) == cause.state
    assert causes.state(NOW + 10 + dwell_ms) == "Healthy"


def test_a_cause_that_stays_present_outlasts_its_dwell():
    """The dwell counts from the last moment of presence, not from the first."""
    causes = risk.Causes(reference())
    causes.report("clock_drift", True, NOW)
    assert causes.state(NOW + 10**7) == "Degraded"


def test_a_pulse_lasts_its_dwell():
    """An event without a duration degrades for the dwell from its moment."""
    causes = risk.Causes(reference())
    causes.pulse("rate_limited", NOW)
    assert causes.state(NOW + 59_999) == "Degraded"
    assert causes.state(NOW + 60_000) == "Healthy"


def test_the_worst_cause_wins():
    """Kill over Maintenance over Degraded, whatever the order of their coming."""
    assert risk.risk_state([]) == "Healthy"
    assert risk.risk_state(["clock_drift", "maintenance"]) == "Maintenance"
    assert risk.risk_state(["max_loss", "maintenance", "clock_drift"]) == "Kill"
    assert risk.risk_state(["a word that nobody knows"]) == "Degraded"


def test_gaps_and_silence_do_not_degrade():
    """The source's second example: a stale feed, latched, and a Healthy risk state."""
    assert not [name for name in risk.CAUSES if "gap" in name or "data" in name]


def test_the_disk_degrades_with_hysteresis():
    """From 0.85 on, until it falls below 0.80; in between nothing changes."""
    causes = risk.Causes(reference())
    states = []
    for used in (0.84999, 0.85, 0.80, None, 0.79999, 0.84):
        causes.disk(used, NOW)
        states.append(causes.state(NOW))
    assert states == ["Healthy", "Degraded", "Degraded", "Degraded", "Healthy", "Healthy"]


def test_three_failures_to_fetch_limits_within_the_window_degrade():
    """Three within 300 s trip, three spread wider do not, and one success ends it (AT-106, AT-133)."""
    causes = risk.Causes(reference())
    for at in (0, 100_000, 300_001):
        causes.limits(False, NOW + at)
    assert causes.state(NOW + 300_001) == "Healthy"
    causes.limits(False, NOW + 300_002)
    assert causes.active(NOW + 300_002) == ("limits_fetch",)
    causes.limits(True, NOW + 300_003)
    assert causes.state(NOW + 300_003) == "Healthy"
    edge = risk.Causes(reference())
    for at in (0, 1, 300_000):
        edge.limits(False, NOW + at)
    assert edge.state(NOW + 300_000) == "Degraded"


def test_manual_causes_survive_a_restart():
    """A loss that reached its limit is not forgotten by starting again."""
    causes = risk.Causes(reference())
    assert causes.report("max_loss", True, NOW)
    assert not causes.report("max_loss", True, NOW)
    row = {"kind": "latch", "event": "set", "code": risk.MANUAL_CODE, "cause": "max_loss"}
    again = risk.Causes(reference())
    again.restore([{**row, "event": "cleared"}, {**row, "cause": "a word"}, {**row, "code": "another"}])
    assert again.manual == ()
    again.restore([row])
    assert (again.state(NOW), again.manual) == ("Kill", ("max_loss",))
    acknowledged = risk.Causes(reference())
    acknowledged.restore([row, {"kind": "operator", "code": risk.MANUAL_CODE}])
    assert acknowledged.state(NOW) == "Healthy"


def test_only_named_causes_reach_the_owner_s_view():
    """A cause without an owner's word adds none, and only MANUAL causes ask for a row."""
    causes = risk.Causes(reference())
    assert not causes.report("maintenance", True, NOW)
    assert not causes.report("clock_drift", True, NOW)
    assert causes.owner(NOW) == {"clock_drift"}


def test_every_owner_word_of_a_cause_is_one_the_manifest_knows():
    """The words that reach the owner's view stand in the manifest's rules."""
    known = {rule["cause"] for rule in reference().registries.owner_rules}
    assert {cause.owner for cause in risk.CAUSES.values()} <= known


# ---- emergency --------------------------------------------------------------------------------------------


def test_the_endpoint_s_emergency_lasts_its_cooldown_from_the_last_request():
    """300 s after the last request it ends, and not before."""
    emergency = Emergency(reference())
    assert not emergency.active(NOW, safe=True)
    emergency.endpoint(NOW)
    emergency.endpoint(NOW + 1_000)
    assert emergency.active(NOW + 300_999, safe=True)
    assert not emergency.active(NOW + 301_000, safe=True)


def test_containment_s_emergency_ends_sixty_clean_seconds_later():
    """The clean time counts from the last tick of containment."""
    emergency = Emergency(reference())
    for at in (0, 5_000):
        emergency.containment(NOW + at)
    assert emergency.by_containment
    assert emergency.active(NOW + 64_999, safe=True)
    assert not emergency.active(NOW + 65_000, safe=True)
    assert not emergency.by_containment


def test_an_emergency_does_not_end_while_exposure_is_not_known_to_be_safe():
    """The cooldown alone is not enough, and a containment never shortens the endpoint's."""
    emergency = Emergency(reference())
    emergency.endpoint(NOW)
    emergency.containment(NOW + 1)
    assert emergency.active(NOW + 299_999, safe=True)
    assert emergency.active(NOW + 900_000, safe=False)
    assert not emergency.active(NOW + 900_001, safe=True)


# ---- cortex -----------------------------------------------------------------------------------------------


def calm_cortex(**changes: object) -> Cortex:
    """A cortex past its boot grace with good inputs at NOW."""
    cortex = Cortex(settings_of(**changes), NOW - 60_000)
    feed(cortex, NOW)
    return cortex


def feed(cortex: Cortex, at: int, spread: float | None = 1.0, depth: float | None = 1e6,
         last: float = 100.0, mark: float = 100.0) -> str:
    """One tick of inputs; the override afterwards."""
    cortex.book(at, spread, depth, at)
    cortex.basis(at, mark, last, mark, at)
    cortex.health(at, True)
    return cortex.override(at)


def test_a_calm_market_has_no_override():
    """Good inputs, no vote."""
    assert feed(calm_cortex(), NOW) == "None"


@pytest.mark.parametrize(("inputs", "override"), [
    ({"spread": 25.0}, "None"), ({"spread": 25.01}, "ForceReduceOnly"),
    ({"depth": 300_000.0}, "None"), ({"depth": 299_999.0}, "ForceReduceOnly"),
    ({"spread": None}, "ForceReduceOnly"), ({"spread": None, "depth": 0.0}, "ForceReduceOnly"),
])
def test_spread_and_depth_force_reduce_only_at_once(inputs, override):
    """Above 25 bps or below 300000 USD, immediately; at the boundary not (AT-284, AT-286)."""
    assert feed(calm_cortex(), NOW, **inputs) == override


@pytest.mark.parametrize("inputs", [{"spread": 75.0}, {"depth": 100_000.0}, {"spread": None, "depth": 0.0}])
def test_kill_needs_the_whole_window(inputs):
    """A spread of 75 bps or a depth of 100000 USD kills after full ten seconds, not one millisecond earlier."""
    cortex = calm_cortex()
    assert feed(cortex, NOW, **inputs) == "ForceReduceOnly"
    assert feed(cortex, NOW + 9_999, **inputs) == "ForceReduceOnly"
    assert feed(cortex, NOW + 10_000, **inputs) == "ForceKill"
    assert feed(cortex, NOW + 10_001) == "ForceReduceOnly"


def test_a_break_in_the_condition_starts_the_window_anew():
    """Nine seconds, one good tick, nine seconds: no Kill (AT-045)."""
    cortex = calm_cortex()
    for at, spread in ((0, 80.0), (9_000, 80.0), (9_100, 1.0), (9_200, 80.0), (19_100, 80.0)):
        assert feed(cortex, NOW + at, spread=spread) == "ForceReduceOnly"


def test_the_cooldown_holds_after_the_market_recovered():
    """120 s after the last trip, and not before, the vote falls."""
    cortex = calm_cortex()
    feed(cortex, NOW, spread=30.0)
    assert feed(cortex, NOW + 119_999) == "ForceReduceOnly"
    assert feed(cortex, NOW + 120_000) == "None"


@pytest.mark.parametrize(("last", "after_4999", "after_5000"), [
    (100.49, "None", "None"), (99.5, "None", "ForceReduceOnly"), (98.5, "None", "ForceKill")])
def test_the_basis_trips_after_its_window(last, after_4999, after_5000):
    """50 bps for five seconds forces reduce-only, 150 bps Kill; below 50 bps nothing (AT-951, AT-952, AT-963)."""
    cortex = calm_cortex()
    assert feed(cortex, NOW, last=last) == "None"
    assert feed(cortex, NOW + 4_999, last=last) == after_4999
    assert feed(cortex, NOW + 5_000, last=last) == after_5000


@pytest.mark.parametrize(("mark", "override"), [
    (1_004.9, "None"), (1_005.0, "ForceReduceOnly"), (1_014.9, "ForceReduceOnly"), (1_015.0, "ForceKill")])
def test_the_basis_trips_exactly_at_its_thresholds(mark, override):
    """50 and 150 basis points count, a tenth less does not."""
    cortex = calm_cortex()
    feed(cortex, NOW, last=1_000.0, mark=mark)
    assert feed(cortex, NOW + 5_000, last=1_000.0, mark=mark) == override


def test_prices_of_zero_are_missing_prices():
    """Zero or negative is no price and no division by zero; nor is a volatility of zero."""
    for prices in ((0.0, 100.0, 100.0), (100.0, 0.0, 100.0), (100.0, 100.0, -1.0)):
        cortex = calm_cortex()
        cortex.basis(NOW + 1, *prices, NOW + 1)
        assert cortex.owner(NOW + 1) == {"price_missing"}
    cortex = calm_cortex()
    cortex.dvol(NOW, 0.0)
    cortex.dvol(NOW + 1, 50.0)
    assert cortex.override(NOW + 1) == "None"


def test_only_whole_token_rows_of_this_build_count():
    """Rows of another kind, or without a token's text, restore nothing."""
    cortex = calm_cortex()
    whole = {"kind": "token", **cortex.token_row("x")}
    cortex.restore([{**whole, "kind": "latch"}, {**whole, "token": None}, {**whole, "build_id": "another"}])
    assert feed(cortex, NOW) == "None"


def test_the_basis_keeps_its_own_cooldown():
    """300 s after the last trip the basis is forgiven."""
    cortex = calm_cortex()
    feed(cortex, NOW, last=99.0)
    feed(cortex, NOW + 5_000, last=99.0)
    assert feed(cortex, NOW + 304_999) == "ForceReduceOnly"
    assert feed(cortex, NOW + 305_000) == "None"


def test_missing_inputs_vote_only_while_missing_and_only_after_the_grace():
    """No book, no price, no index: reduce-only, without a cooldown; at boot a grace lets them arrive."""
    young = Cortex(reference(), NOW)
    assert young.override(NOW + 5_000) == "None"
    assert young.override(NOW + 5_001) == "ForceReduceOnly"
    assert young.owner(NOW + 5_001) == {"price_missing"}
    cortex = calm_cortex()
    assert cortex.override(NOW + 10_000) == "None"
    assert cortex.override(NOW + 10_001) == "ForceReduceOnly"
    assert feed(cortex, NOW + 10_002) == "None"
    cortex.basis(NOW + 10_003, 100.0, None, 100.0, NOW + 10_003)
    assert cortex.override(NOW + 10_003) == "ForceReduceOnly"


def test_a_kill_stays_when_the_book_is_lost_from_sight():
    """A Kill by the book is not loosened by not seeing the book."""
    cortex = calm_cortex()
    feed(cortex, NOW, spread=80.0)
    feed(cortex, NOW + 10_000, spread=80.0)
    cortex.book(NOW + 30_000, None, None, None)
    assert cortex.override(NOW + 30_000) == "ForceKill"


@pytest.mark.parametrize(("first", "second", "after_ms", "override"), [
    (50.0, 55.0, 60_000, "ForceReduceOnly"), (50.0, 54.9, 60_000, "None"), (50.0, 60.0, 60_001, "None")])
def test_volatility_jumps_within_its_window(first, second, after_ms, override):
    """Ten percent within 60 s; less, or slower, is no jump (AT-231, AT-290)."""
    cortex = calm_cortex()
    cortex.dvol(NOW - after_ms, first)
    cortex.dvol(NOW, second)
    assert cortex.override(NOW) == override


def test_volatility_keeps_its_cooldown():
    """300 s after the jump the vote falls."""
    cortex = calm_cortex()
    cortex.dvol(NOW, 50.0)
    cortex.dvol(NOW + 1, 56.0)
    assert feed(cortex, NOW + 300_000) == "ForceReduceOnly"
    assert feed(cortex, NOW + 300_001) == "None"


def test_announcements_that_cannot_be_read_force_reduce_only():
    """At 180 s without a readable announcement, not before (AT-204)."""
    cortex = calm_cortex()
    cortex.health(NOW + 1, False)
    at = NOW + 179_999
    cortex.book(at, 1.0, 1e6, at), cortex.basis(at, 100.0, 100.0, 100.0, at)
    assert cortex.override(at) == "None"
    cortex.book(at + 1, 1.0, 1e6, at + 1), cortex.basis(at + 1, 100.0, 100.0, 100.0, at + 1)
    assert cortex.override(at + 1) == "ForceReduceOnly"


def test_a_flood_of_unknown_tokens_is_bounded():
    """So many words are kept and written down, then no more; the vote stays the worst."""
    cortex = calm_cortex()
    assert sum(cortex.unknown_token(f"order_state:{number}") for number in range(4 * TOKENS_MAX)) == TOKENS_MAX
    assert feed(cortex, NOW + 10**6) == "ForceKill"


def test_an_unknown_token_kills_this_build_for_good_and_no_other():
    """The row binds build and configuration: the same build stays killed, another build or policy is free."""
    cortex = calm_cortex()
    assert cortex.unknown_token("order_state:mystery")
    assert not cortex.unknown_token("order_state:mystery")
    assert feed(cortex, NOW + 10**6) == "ForceKill"
    assert cortex.owner(NOW + 10**6) == {"unknown_token"}
    row = {"kind": "token", **cortex.token_row("order_state:mystery")}
    same, other = Cortex(reference(), NOW), Cortex(settings_of(hold_ms=1), NOW)
    same.restore([row]), other.restore([row])
    assert (same.override(NOW), other.override(NOW)) == ("ForceKill", "None")


def test_the_worst_vote_wins_whatever_the_order():
    """Kill beats reduce-only, whoever spoke last (AT-418)."""
    cortex = calm_cortex()
    cortex.unknown_token("x")
    assert feed(cortex, NOW + 1, spread=30.0) == "ForceKill"
    assert cortex.owner(NOW + 1) == {"unknown_token"}


# ---- bunker -----------------------------------------------------------------------------------------------


def calm_bunker(latency_ms: float = 100.0) -> Bunker:
    """A bunker past its grace with good measurements at NOW."""
    bunker = Bunker(reference(), NOW - 60_000)
    bunker.http(NOW, latency_ms)
    bunker.ws(NOW)
    return bunker


def run_bunker(bunker: Bunker, latencies: list[float], start: int = NOW) -> list[bool]:
    """One evaluation a second; each with one more request. A window is made of the latest by waiting 31 s each."""
    seen = []
    for step, latency in enumerate(latencies, 1):
        at = start + step * 31_000
        bunker.http(at, latency)
        bunker.ws(at)
        seen.append(bunker.tick(at))
    return seen


def test_three_breaches_in_a_row_enter():
    """751 ms three evaluations in a row; a good one between starts anew; 750 ms is no breach (AT-345)."""
    assert run_bunker(calm_bunker(), [751, 751, 751]) == [False, False, True]
    assert run_bunker(calm_bunker(), [751, 751, 750, 751, 751]) == [False] * 5


def test_evaluations_are_a_second_apart():
    """Ticks between evaluations do not count as breaches."""
    bunker = calm_bunker(2_000.0)
    assert not any(bunker.tick(NOW + at) for at in range(0, 2_000, 50))


@pytest.mark.parametrize(("silence_ms", "active"), [(10_000, False), (10_001, True)])
def test_silence_above_the_jitter_limit_enters(silence_ms, active):
    """Strictly above the limit; the source's second example has 3200 ms and no bunker."""
    bunker = calm_bunker()
    assert bunker.tick(NOW + silence_ms) is active
    assert bunker.lag_ms(NOW + silence_ms) == silence_ms


@pytest.mark.parametrize(("timeouts", "answers", "active"), [(1, 49, False), (1, 48, True)])
def test_time_outs_above_two_percent_enter(timeouts, answers, active):
    """One of fifty is exactly two percent and is borne; one of forty-nine is not."""
    bunker = calm_bunker()
    for _ in range(timeouts):
        bunker.timeout(NOW)
    for _ in range(answers - 1):
        bunker.http(NOW, 10)
    assert bunker.tick(NOW) is active


def test_the_first_evaluation_is_due_after_a_whole_second():
    """At 999 ms nothing is evaluated yet; at 1000 ms the percentile is known."""
    bunker = Bunker(reference(), NOW)
    bunker.http(NOW, 321.0)
    bunker.tick(NOW + 999)
    assert bunker.p95_ms == 0.0
    bunker.tick(NOW + 1_000)
    assert bunker.p95_ms == 321.0


def test_measurements_are_forgotten_exactly_after_their_windows():
    """A latency counts for 30 s, a time-out for 60 s, both to the last millisecond."""
    bunker = calm_bunker()
    bunker.timeout(NOW)
    for at, rate, active in ((30_000, 0.5, True), (60_000, 0.5, True), (60_001, None, True)):
        bunker.ws(NOW + at)
        assert bunker.tick(NOW + at) is active
        assert bunker.timeout_rate() == rate
    young = Bunker(reference(), NOW - 5_001)
    young.http(NOW - 5_001, 10)
    for at, active in ((24_999, False), (25_000, True)):
        young.ws(NOW + at)
        assert young.tick(NOW + at) is active


def test_a_missing_measurement_is_bunker_after_the_grace():
    """No request or no message at all: unknown is not steady (AT-205); at boot it has a moment."""
    for feed_one in (lambda b, at: b.http(at, 10), lambda b, at: b.ws(at)):
        bunker = Bunker(reference(), NOW)
        feed_one(bunker, NOW + 5_000)
        assert not bunker.tick(NOW + 5_000)
        assert bunker.tick(NOW + 5_001)
    assert Bunker(reference(), NOW).lag_ms(NOW + 7) == 7


def test_the_bunker_is_left_after_a_steady_time():
    """120 s after the last bad moment, everything good meanwhile (AT-115)."""
    bunker = calm_bunker()
    assert bunker.tick(NOW + 10_001)
    left = None
    for at in range(10_100, 200_000, 100):
        bunker.http(NOW + at, 10)
        bunker.ws(NOW + at)
        if not bunker.tick(NOW + at):
            left = at
            break
    assert left is not None and 120_000 <= left - 10_001 <= 120_200


def test_the_steady_time_is_counted_from_the_last_bad_moment():
    """One bad moment within the steady time starts it anew; at its last millisecond the bunker is left."""
    bunker = calm_bunker()
    bunker.tick(NOW + 10_001)
    for at in (10_100, 70_000, 80_001):  # the last silence is longer than the jitter limit once more
        bunker.http(NOW + at, 10)
        if at != 80_001:
            bunker.ws(NOW + at)
        assert bunker.tick(NOW + at)
    for at in range(85_000, 200_000, 5_000):
        bunker.http(NOW + at, 10), bunker.ws(NOW + at)
        assert bunker.tick(NOW + at)
    bunker.http(NOW + 200_000, 10), bunker.ws(NOW + 200_000)
    assert bunker.tick(NOW + 200_000)
    assert not bunker.tick(NOW + 200_001)


def test_the_percentile_is_by_nearest_rank():
    """Of a hundred values the ninety-fifth; of one value that one."""
    assert percentile_95(range(1, 101)) == 95
    assert percentile_95([7.5]) == 7.5
    assert percentile_95([1, 2, 3, 1000]) == 1000


# ---- breaker ----------------------------------------------------------------------------------------------


def test_the_breaker_s_table_is_the_one_in_the_specs():
    """Every transition of the file is in the code and the other way round."""
    spec = yaml.safe_load((REPOSITORY / "specs/machines/breaker.yaml").read_text())
    assert {(each["from"], each["event"]): each["to"] for each in spec["transitions"]} == dict(breakers.TABLE)
    assert spec["initial"] == Breaker(reference(), NOW).state
    assert {state for pair in breakers.TABLE.items() for state in (pair[0][0], pair[1])} == set(spec["states"])
    assert {event for _, event in breakers.TABLE} == set(spec["events"])


def test_an_event_outside_the_table_raises_and_changes_nothing():
    """The breaker refuses what its table does not hold."""
    breaker = Breaker(reference(), NOW)
    with pytest.raises(BreakerError):
        breaker._next("quiet")
    assert breaker.state == "Normal"


@pytest.mark.parametrize(("answer", "count"), [("answer_429", "count_429"), ("answer_10028", "count_10028")])
def test_the_counts_roll_over_five_minutes(answer, count):
    """Each answer counts for exactly 300 s."""
    breaker = Breaker(reference(), NOW)
    for at in (0, 1_000):
        getattr(breaker, answer)(NOW + at)
    counts = [getattr(breaker, count)(NOW + at) for at in (1_000, 299_999, 300_000, 300_999, 301_000)]
    assert counts == [2, 2, 1, 1, 0]


def test_a_429_browns_out_until_a_quiet_dwell_has_passed():
    """Data is shed and opening refused by name; cancels, hedges, closes and reconciling go on."""
    breaker = Breaker(reference(), NOW)
    assert breaker.answer_429(NOW)
    assert not breaker.answer_429(NOW + 1_000)
    for priority in (breakers.OPEN, breakers.DATA):
        assert breaker.refuses(priority, NOW) == "RateLimitBrownout"
    for priority in (breakers.EMERGENCY_CLOSE, breakers.CANCEL, breakers.HEDGE, breakers.RECONCILE):
        assert breaker.take(priority, NOW)
    assert not breaker.tick(NOW + 60_999)
    assert breaker.tick(NOW + 61_000)
    assert breaker.take(breakers.OPEN, NOW + 61_000)
    assert "RateLimitBrownout" in reference().registries.reject_codes


def test_a_session_end_stands_until_it_is_reconciled():
    """Time alone never clears the kill flag; a reconciliation does, and what is left of the dwell is a brownout."""
    breaker = Breaker(reference(), NOW)
    assert breaker.answer_10028(NOW)
    assert not breaker.tick(NOW + 10**7)
    assert breaker.session_kill_active
    assert breaker.reconciled(NOW + 10**7)
    assert (breaker.session_kill_active, breaker.state) == (False, "Normal")
    assert not breaker.reconciled(NOW + 10**7)
    soon = Breaker(reference(), NOW)
    soon.answer_10028(NOW)
    assert soon.reconciled(NOW + 20_000)
    assert (soon.session_kill_active, soon.state) == (False, "Brownout")
    assert not soon.tick(NOW + 59_999)
    assert soon.tick(NOW + 60_000)


def ended(at: int) -> dict[str, object]:
    return {"kind": "session_end", "ts": at}


CONFIRMED = {"kind": "latch", "event": "set", "code": breakers.KILL_CODE, "manual": True, "count": 5}
SIGNED = {"kind": "operator", "code": breakers.KILL_CODE}
CLEARED = {"kind": "latch", "event": "cleared", "code": breakers.SESSION_CODE}


def test_a_confirmed_session_kill_waits_for_an_operator_and_keeps_its_evidence():
    """Five ends confirm, once. Neither time nor a reconciliation ends it before an operator has signed; and meanwhile
    the count does not fall below what confirmed it."""
    breaker = Breaker(reference(), NOW)
    for number in range(5):
        assert breaker.confirms(NOW) is None and not breaker.waits
        breaker.answer_10028(NOW + number)
    assert breaker.confirms(NOW + 4) == 5 and breaker.confirms(NOW + 4) is None
    assert breaker.waits and not breaker.reconciled(NOW + 10**7) and breaker.session_kill_active
    assert breaker.count_10028(NOW + 10**7) == 5
    breaker.acknowledge()
    assert not breaker.waits and breaker.session_kill_active and breaker.count_10028(NOW + 10**7) == 5
    assert breaker.reconciled(NOW + 10**7)
    assert not breaker.session_kill_active and breaker.count_10028(NOW + 10**7) == 0


@pytest.mark.parametrize(("rows", "active", "waits", "count"), [
    ([], False, False, 0),
    ([ended(NOW - 1_000)] * 3, True, False, 3),
    ([ended(NOW - 1_000)] * 3 + [CLEARED], False, False, 3),
    ([ended(NOW - 400_000)] * 3, True, False, 0),
    ([ended(NOW - 400_000)] * 5 + [CONFIRMED], True, True, 5),
    ([ended(NOW - 1_000)] * 5 + [CONFIRMED, SIGNED], True, False, 5),
    ([ended(NOW - 1_000)] * 5 + [CONFIRMED, SIGNED, CLEARED], False, False, 5),
    ([ended(NOW - 400_000)] * 5 + [CONFIRMED, SIGNED, CLEARED, ended(NOW)], True, False, 1),
])
def test_a_restart_neither_lowers_the_count_nor_the_flag(rows, active, waits, count):
    """What the ledger says of ended sessions is what the next life begins with."""
    breaker = Breaker(reference(), NOW)
    breaker.restore(rows, NOW)
    assert (breaker.session_kill_active, breaker.waits, breaker.count_10028(NOW)) == (active, waits, count)


def test_lower_priorities_leave_room_for_better_ones():
    """As the bucket empties, data stops first, then opening, reconciling, hedging, cancelling, closing."""
    breaker = Breaker(settings_of(rate_limit_default_per_s=1, rate_limit_default_burst=100), NOW)
    stopped: list[int] = []
    for _ in range(101):
        for priority in (breakers.DATA, breakers.OPEN, breakers.RECONCILE, breakers.HEDGE, breakers.CANCEL,
                         breakers.EMERGENCY_CLOSE):
            if priority not in stopped and breaker.refuses(priority, NOW):
                stopped.append(priority)
        breaker.take(breakers.EMERGENCY_CLOSE, NOW)
    assert stopped == [5, 4, 3, 2, 1, 0]


def test_the_bucket_refills_at_the_account_s_rate():
    """The exchange's own limits replace the defaults; nonsense is ignored."""
    breaker = Breaker(reference(), NOW)
    breaker.limits(10, 20, NOW)
    for rate, burst in ((0, 0), (0, 100), (100, 0), (-1, -1)):
        breaker.limits(rate, burst, NOW)
    taken = sum(breaker.take(breakers.EMERGENCY_CLOSE, NOW) for _ in range(50))
    assert taken == 20
    taken = sum(breaker.take(breakers.EMERGENCY_CLOSE, NOW + 500) for _ in range(50))
    assert taken == 5


# ---- clock ------------------------------------------------------------------------------------------------

START = Now(1_000, NOW)


def gate(round_trip_ms: int = 20, ahead_ms: int = 0) -> ClockGate:
    """A gate with one sample: the exchange's clock is the true one, read in the middle of the round trip."""
    clock = ClockGate(reference(), START)
    middle = 1_000 + round_trip_ms // 2
    clock.sample(1_000, 1_000 + round_trip_ms, NOW + middle - 1_000 - ahead_ms)
    return clock


@pytest.mark.parametrize(("step_ms", "drift_ms", "tripped"), [
    (0, 0, False), (10, 0, False), (60, 50, False), (61, 51, True), (-60, -50, False), (-61, -51, True),
    (500, 490, True)])
def test_drift_counts_only_beyond_what_the_round_trip_explains(step_ms, drift_ms, tripped):
    """With a round trip of 20 ms, ten are unexplained doubt; strictly more than 50 ms beyond them trips."""
    now = Now(5_000, NOW + 4_000 + step_ms)
    assert gate().drift_ms(now) == drift_ms
    assert gate().tripped(now) is tripped


def test_a_long_round_trip_says_nothing():
    """An answer that took longer than the limit is no sample; one that seems to precede its question neither."""
    clock = ClockGate(reference(), START)
    assert not clock.sample(1_000, 1_501, NOW)
    assert not clock.sample(1_000, 999, NOW)
    assert clock.drift_ms(START) is None
    assert clock.sample(1_000, 1_500, NOW)
    assert clock.sample(1_000, 1_000, NOW)
    assert clock.drift_ms(Now(1_000, NOW + 7)) == 7


def test_a_clock_that_was_not_checked_for_long_is_doubted():
    """A minute without a usable sample degrades; at boot the same minute is a grace."""
    clock = ClockGate(reference(), START)
    assert not clock.tripped(Now(61_000, NOW + 60_000))
    assert clock.tripped(Now(61_001, NOW + 60_001))


def test_a_drift_heals_by_a_right_clock():
    """When the wall clock is right again, the gate says so at once; the dwell is the risk state's."""
    clock = gate()
    assert clock.tripped(Now(2_000, NOW + 1_500))
    assert not clock.tripped(Now(2_000, NOW + 1_000))


def test_the_clock_cannot_kill():
    """The one cause that the clock reports degrades and does no more."""
    assert risk.CAUSES["clock_drift"].state == "Degraded"
