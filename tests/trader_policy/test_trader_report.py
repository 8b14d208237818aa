"""The status document: every field moves, the judge finds nothing, the goldens' words come out; metrics; strategy."""

from __future__ import annotations

import ast
import dataclasses

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec import structs
from trader_policy_kit import NOW, REPOSITORY, policy_values, reference, settings_of, well

from harness.contracts.csp_status import Contract
from system_under_test.trader.latch import CODES
from system_under_test.trader.policy import Snapshot, decide
from system_under_test.trader.report.metrics import ALWAYS, METRICS, Metrics
from system_under_test.trader.report.owner import Owner
from system_under_test.trader.report.status import Readings, Report, build, encode
from system_under_test.trader.settings import Settings
from system_under_test.trader.strategy import GroupView, MarketView, Strategy

CONTRACT = Contract.load(REPOSITORY, policy=policy_values(), exact=True)


def readings(snapshot: Snapshot | None = None, **changes: object) -> Readings:
    """Readings of a well trader, with some changed."""
    seen = snapshot or well()
    base = Readings(snapshot=seen, decision=decide(seen, reference()), wal_queue_depth=0,
                    wal_queue_enqueue_failures=0, atomic_naked_events_24h=0, http_p95_ms=120.0, ws_event_lag_ms=20)
    return structs.replace(base, **changes)


def built(seen: Readings, settings: Settings) -> dict:
    """The document of these readings under these settings."""
    return build(seen, settings, Owner(settings))


def document(snapshot: Snapshot | None = None, **changes: object) -> dict:
    """The document of these readings under the reference policy."""
    return built(readings(snapshot, **changes), reference())


def test_the_document_holds_the_minimum_keys_in_order_and_the_owner_s_view_last():
    """33 keys as the manifest lists them, then owner_view, and nothing else."""
    assert set(document()) == {*reference().registries.minimum_keys, "owner_view"}
    assert list(document())[-1] == "owner_view"
    assert orjson.loads(encode(document())) == document()


CONSTANT = {"status_schema_version", "contract_version", "supported_profiles", "enforced_profile"}
"""Versions and profiles: the only fields that may not move in one build."""

MOVES = {
    "build_id": None, "runtime_config_hash": None, "wal_queue_capacity": None,  # by settings, below
    "trading_mode": {"risk_state": "Degraded"}, "risk_state": {"risk_state": "Maintenance"},
    "bunker_mode_active": {"bunker_active": True}, "connectivity_degraded": {"bunker_active": True},
    "mode_reasons": {"emergency_active": True}, "open_permission_blocked_latch": {"latch_blocked": True},
    "open_permission_reason_codes": {"latch_blocked": True, "latch_codes": (CODES[3],)},
    "open_permission_requires_reconcile": {"latch_blocked": True},
    "policy_age_sec": {"policy_generated_ts_ms": NOW - 123_999},
    "last_policy_update_ts": {"policy_generated_ts_ms": NOW - 5},
    "f1_cert_state": {"cert_state": "STALE"}, "f1_cert_expires_at": {"cert_expires_at": NOW + 5},
    "disk_used_pct": {"disk_used_pct": 0.5}, "disk_used_last_update_ts_ms": {"disk_used_ts_ms": NOW - 5},
    "disk_used_pct_secondary": {"disk_used_pct_secondary": 0.5},
    "disk_used_secondary_last_update_ts_ms": {"disk_used_secondary_ts_ms": NOW - 5},
    "mm_util": {"mm_util": 0.5}, "mm_util_last_update_ts_ms": {"mm_util_ts_ms": NOW - 5},
    "loop_tick_last_ts_ms": {"loop_tick_ts_ms": NOW - 5},
    "429_count_5m": {"count_429_5m": 4}, "10028_count_5m": {"count_10028_5m": 3},
    "wal_queue_depth": {"readings": {"wal_queue_depth": 7}},
    "wal_queue_enqueue_failures": {"readings": {"wal_queue_enqueue_failures": 17}},
    "atomic_naked_events_24h": {"readings": {"atomic_naked_events_24h": 2}},
    "deribit_http_p95_ms": {"readings": {"http_p95_ms": 140.5}},
    "ws_event_lag_ms": {"readings": {"ws_event_lag_ms": 35}},
    "owner_view": {"bunker_active": True},
}


def test_every_field_but_versions_and_profiles_has_a_move():
    """The table of moves and the short list of constants are the whole document."""
    assert set(MOVES) | CONSTANT == set(document())
    assert not set(MOVES) & CONSTANT


@pytest.mark.parametrize("key", [key for key, move in MOVES.items() if move is not None])
def test_each_field_follows_what_it_reports(key):
    """Change the reading and the field changes with it."""
    move = dict(MOVES[key])
    changed = document(well(**{k: v for k, v in move.items() if k != "readings"}), **move.get("readings", {}))
    assert changed[key] != document()[key]


@pytest.mark.parametrize("key", [key for key, move in MOVES.items() if move is not None])
def test_a_report_puts_no_old_word_beside_a_new_one(key):
    """Asked again after one reading has changed, and after it has changed back, it says what would be built anew."""
    report, move = Report(reference()), dict(MOVES[key])
    changed = readings(well(**{k: v for k, v in move.items() if k != "readings"}), **move.get("readings", {}))
    for seen in (readings(), changed, readings()):
        assert report.tell(seen) == encode(built(seen, reference()))


def test_identity_fields_follow_the_settings():
    """Build, configuration hash and queue capacity are those of the settings in force."""
    other = settings_of(ledger_queue_capacity=16)
    changed = built(readings(), dataclasses.replace(other, build_id="build-2"))
    assert changed["build_id"] == "build-2"
    assert changed["wal_queue_capacity"] == 16
    assert changed["runtime_config_hash"] == other.runtime_config_hash != reference().runtime_config_hash


def test_the_policy_s_age_is_whole_seconds():
    """A policy 123.999 s old reports 123 (AT-406), and the time stamp is the guard's (AT-028)."""
    seen = document(well(policy_generated_ts_ms=NOW - 123_999))
    assert (seen["policy_age_sec"], seen["last_policy_update_ts"]) == (123, NOW - 123_999)


def test_what_was_never_measured_is_zero_with_the_time_stamp_zero():
    """A trader that has measured nothing yet serves a lawful document that says so."""
    empty = well(mm_util=None, mm_util_ts_ms=None, disk_used_pct=None, disk_used_ts_ms=None,
                 disk_used_pct_secondary=None, disk_used_secondary_ts_ms=None, policy_generated_ts_ms=None,
                 heartbeat_ts_ms=None, cert_state=None, cert_expires_at=None, fee_cache_ts_ms=None,
                 latch_blocked=True, latch_codes=(CODES[0],))
    seen = document(empty)
    assert (seen["mm_util"], seen["mm_util_last_update_ts_ms"]) == (0.0, 0)
    assert (seen["f1_cert_state"], seen["f1_cert_expires_at"]) == ("MISSING", None)
    assert "REDUCEONLY_INPUT_MISSING_OR_STALE" in seen["mode_reasons"]
    assert CONTRACT.check(encode(seen), strict=True) == []


def test_a_latch_that_cannot_be_read_is_served_as_blocked():
    """Unknown reads as blocked, with the code that asks for a reconciliation, and the document stays lawful."""
    seen = document(well(latch_blocked=None))
    assert seen["open_permission_reason_codes"] == ["RESTART_RECONCILE_REQUIRED"]
    assert CONTRACT.check(encode(seen), strict=True) == []


def test_a_ratio_stays_one():
    """A margin use above one, which the contract cannot say, reads as one; the mode knows better."""
    seen = document(well(mm_util=1.7))
    assert (seen["mm_util"], seen["trading_mode"]) == (1.0, "Kill")


# ---- the judge agrees -------------------------------------------------------------------------------------

aged = st.integers(0, 12_000).map(lambda age: NOW - age)
# An input is fresh or long stale: between the loop's turn, which is the document's only clock, and the moment of the
# snapshot an input may cross its limit, and then the guard knows it a moment before a reader of the document can.
maybe_aged = st.one_of(st.none(), st.integers(0, 30_000).map(lambda age: NOW - age),
                       st.integers(45_000, 60_000).map(lambda age: NOW - age))
codes = st.sets(st.sampled_from(CODES)).map(tuple)


@st.composite
def possible(draw: st.DrawFn) -> Snapshot:
    """A snapshot as a real trader can take one: latch and codes agree, a certificate has its expiry."""
    held = draw(codes)
    state = draw(st.sampled_from(["PASS", "PASS", "FAIL", "STALE", "INVALID", "MISSING"]))
    tick = draw(aged)
    expires = tick - 1 if state == "STALE" else NOW + 5_000
    return well(
        now_ms=NOW, risk_state=draw(st.sampled_from(["Healthy", "Degraded", "Maintenance", "Kill", None])),
        heartbeat_ts_ms=draw(maybe_aged), loop_tick_ts_ms=tick,
        mm_util=draw(st.one_of(st.none(), st.floats(0, 1.1))), mm_util_ts_ms=draw(maybe_aged),
        session_kill_active=draw(st.booleans()), count_10028_5m=draw(st.integers(0, 8)),
        count_429_5m=draw(st.integers(0, 8)), disk_used_pct=draw(st.floats(0, 1)), disk_used_ts_ms=draw(maybe_aged),
        disk_used_pct_secondary=draw(st.floats(0, 1)), disk_used_secondary_ts_ms=draw(maybe_aged),
        cortex_override=draw(st.sampled_from(["None", "ForceReduceOnly", "ForceKill"])),
        emergency_active=draw(st.booleans()), latch_blocked=bool(held), latch_codes=held,
        bunker_active=draw(st.booleans()), cert_state=state, cert_expires_at=None if state == "MISSING" else expires,
        fee_cache_ts_ms=draw(aged), policy_generated_ts_ms=draw(st.one_of(st.none(), st.integers(
            NOW - 400_000, NOW))))


words = st.sets(st.sampled_from(sorted({rule["cause"] for rule in reference().registries.owner_rules if rule["cause"]})))


@given(possible(), words, st.one_of(st.none(), st.floats(-9, 9)), st.integers(0, 1_024))
@hypothesis_settings(max_examples=400, deadline=None)
def test_the_judge_finds_nothing_wrong_with_any_document(snapshot, causes, delta, depth):
    """Over random situations the contract's checker, which shares data but no code, has no finding."""
    seen = document(snapshot, causes=frozenset(causes), net_delta_btc=delta, time_drift_ms=3, spread_bps=1.25,
                    depth_usd=1e6, wal_queue_depth=depth)
    assert CONTRACT.check(encode(seen), strict=True) == []


stories = st.lists(st.tuples(possible(), st.integers(0, 5_000), st.one_of(st.none(), st.floats(-9, 9)),
                             st.one_of(st.none(), st.floats(0, 90))), min_size=1, max_size=6)


@given(stories, words, st.lists(st.integers(0, 5), min_size=8, max_size=30))
@hypothesis_settings(max_examples=150, deadline=None)
def test_a_report_says_what_would_be_built_anew(parts, causes, order):
    """Whatever it was asked before, and whichever part of a situation moved: the very bytes of ``build``."""
    report = Report(reference())
    for at, number in enumerate(order):
        (snapshot, *_), (_, lag, delta, spread) = parts[number % len(parts)], parts[at % len(parts)]
        seen = readings(structs.replace(snapshot, now_ms=NOW + 50 * at), causes=frozenset(causes), ws_event_lag_ms=lag,
                        net_delta_btc=delta, time_drift_ms=3, spread_bps=spread, depth_usd=1e6)
        assert report.tell(seen) == encode(built(seen, reference()))


GOLDEN = {
    "partial_fill_containment": (
        {"risk_state": "Degraded", "emergency_active": True}, {"net_delta_btc": 0.42, "causes": {"containment"}}),
    "market_data_stale": (
        {"latch_blocked": True, "latch_codes": ("WS_DATA_STALE_RECONCILE_REQUIRED",)}, {"ws_event_lag_ms": 3_200}),
    "wal_backpressure": (
        {"risk_state": "Degraded"},
        {"wal_queue_depth": 1_024, "wal_queue_enqueue_failures": 17, "causes": {"wal"}}),
    "session_termination": (
        {"risk_state": "Degraded", "latch_blocked": True, "session_kill_active": True, "count_10028_5m": 3,
         "latch_codes": ("SESSION_TERMINATION_RECONCILE_REQUIRED",)}, {"causes": {"session_terminated"}}),
    "unknown_token_force_kill": ({"cortex_override": "ForceKill"}, {"causes": {"unknown_token"}}),
    "watchdog_unconfirmed": ({"heartbeat_ts_ms": NOW - 10_001}, {}),
    "restart_reconcile": ({"latch_blocked": True, "latch_codes": ("RESTART_RECONCILE_REQUIRED",)}, {}),
}
SAID = ("trading_mode", "risk_state", "bunker_mode_active", "connectivity_degraded", "mode_reasons",
        "open_permission_blocked_latch", "open_permission_reason_codes", "open_permission_requires_reconcile",
        "wal_queue_depth", "wal_queue_capacity", "wal_queue_enqueue_failures", "10028_count_5m", "429_count_5m",
        "owner_view")


@pytest.mark.parametrize("name", GOLDEN)
def test_the_goldens_situations_come_out_in_the_goldens_words(name):
    """In each golden's situation the trader says what the golden says, the owner's view letter by letter."""
    golden = orjson.loads((REPOSITORY / f"fixtures/status/{name}.json").read_bytes())
    snapshot, others = GOLDEN[name]
    others = {**others, "causes": frozenset(others.get("causes", ()))}
    others.setdefault("wal_queue_depth", golden["wal_queue_depth"])
    seen = document(well(**snapshot), **others)
    assert {key: seen[key] for key in SAID} == {key: golden[key] for key in SAID}


def test_dwells_in_the_owner_s_words_are_those_of_the_policy_in_force():
    """Under a policy with 1500 ms the condition says 1.5 s."""
    settings = settings_of(gap_clear_dwell_ms=1_500)
    seen = built(readings(well(latch_blocked=True, latch_codes=("WS_BOOK_GAP_RECONCILE_REQUIRED",))), settings)
    assert ">= 1.5s" in seen["owner_view"]["unblock"][0]["condition"]


def test_measurements_that_nobody_made_are_unknown():
    """No delta, or one that is no number, reads unknown; a delta of minus zero reads +0.00."""
    snapshot = well(risk_state="Degraded", emergency_active=True)
    currents = [document(snapshot, causes=frozenset({"containment"}), net_delta_btc=delta)["owner_view"]["unblock"][0][
        "current"] for delta in (None, float("nan"), -0.0, -0.004, 1.005)]
    assert currents[:2] == ["net_exposure=unknown (delta)"] * 2
    assert currents[2] == "net_exposure=+0.00 (delta)"
    assert all(each.startswith("net_exposure=") for each in currents)


# ---- metrics ----------------------------------------------------------------------------------------------


def test_the_phase_1_counters_are_there_from_the_start():
    """A zero that is said can be proof; an absent counter cannot."""
    text = Metrics().text().decode()
    for name in ALWAYS:
        assert f"\n{name} 0\n" in text


def test_counters_count_by_label_in_a_fixed_order():
    """Series are summed by their labels and printed sorted; labels are escaped."""
    metrics = Metrics()
    metrics.add("refused_total", code="RateLimitBrownout", intent_class="OPEN")
    metrics.add("refused_total", 2, intent_class="OPEN", code="RateLimitBrownout")
    metrics.add("refused_total", code='a"b\\c\nd')
    metrics.set("loop_lag_ms", 1.5)
    text = metrics.text().decode()
    assert 'refused_total{code="RateLimitBrownout",intent_class="OPEN"} 3\n' in text
    assert 'refused_total{code="a\\"b\\\\c\\nd"} 1\n' in text
    assert "loop_lag_ms 1.5\n" in text
    assert metrics.value("refused_total", code="RateLimitBrownout", intent_class="OPEN") == 3
    assert text.count("# TYPE") == len(METRICS)


def test_an_undeclared_metric_is_a_mistake():
    """A misspelt counter raises instead of counting nowhere."""
    with pytest.raises(KeyError):
        Metrics().add("refussed_total")


# ---- strategy ---------------------------------------------------------------------------------------------

VIEW = MarketView(index=50_000.0, option="BTC-X-50000-C", delta=0.5,
                  best={"BTC-X-50000-C": (0.05, 0.051), "BTC-PERPETUAL": (49_990.0, 50_010.0)})


def strategy(seed: int = 1, boot: int = 1) -> Strategy:
    """A strategy under the reference policy."""
    return Strategy(reference(), seed, boot)


def kinds(wishes) -> list[str]:
    """What was wished for."""
    return [each.kind for each in wishes]


def test_it_wishes_for_a_group_on_every_beat_and_keeps_wishing():
    """Once a second, whatever became of the last; leg 0 buys the call, leg 1 sells its delta in USD."""
    planner = strategy()
    seen = [len(list(planner.wishes(structs.replace(VIEW, quote_open=True), NOW + at)))
            for at in range(0, 3_000, 100)]
    assert seen == [1 if at % 1_000 == 0 else 0 for at in range(0, 3_000, 100)]
    call, hedge = strategy().wishes(VIEW, NOW)[0].legs
    assert (call.instrument, call.side, call.qty) == ("BTC-X-50000-C", "buy", "0.1")
    assert (hedge.instrument, hedge.side, hedge.qty) == ("BTC-PERPETUAL", "sell", "2500")
    assert call.time_in_force == hedge.time_in_force == "immediate_or_cancel"


def test_signals_are_bounded_per_tick_and_none_is_lost_within_the_backlog():
    """900 signals become 900 groups, 24 a tick; small trades are no signals."""
    planner = strategy()
    assert not planner.signal(249_999)
    assert all(planner.signal(250_000) for _ in range(900))
    counts = [kinds(planner.wishes(VIEW, NOW + at)).count("group") for at in range(0, 4_000, 100)]
    assert max(counts) == 25
    assert sum(counts) == 900 + 4


def test_without_a_price_it_waits_and_forgets_nothing():
    """Unknown option, delta or index: no group is wished for, and signals wait."""
    planner = strategy()
    planner.signal(250_000)
    for blind in (structs.replace(VIEW, **{name: None}) for name in ("option", "delta", "index")):
        assert "group" not in kinds(planner.wishes(blind, NOW))
    assert kinds(planner.wishes(VIEW, NOW + 1)).count("group") == 1


def test_a_complete_group_is_closed_after_its_time():
    """After hold_ms each filled leg is reversed, reduce-only; again a second later if it is still open."""
    group = GroupView("g1", "Complete", NOW, True, legs=(("BTC-X-50000-C", "buy", "0.1"),
                                                        ("BTC-PERPETUAL", "sell", "2500"), ("OTHER", "buy", "0")))
    view = structs.replace(VIEW, groups=(group,))
    planner = strategy()
    closes = {at: [each for each in planner.wishes(view, NOW + at) if each.kind == "close"]
              for at in (2_999, 3_000, 3_500, 4_000)}
    assert [len(each) for each in closes.values()] == [0, 1, 0, 1]
    wish = closes[3_000][0]
    assert wish.group_id == "g1"
    assert [(leg.side, leg.qty, leg.reduce_only) for leg in wish.legs] == [("sell", "0.1", True), ("buy", "2500", True)]
    for idle in (structs.replace(group, open=False), structs.replace(group, closing=True)):
        assert "close" not in kinds(strategy().wishes(structs.replace(VIEW, groups=(idle,)), NOW + 9_000))


def test_one_quote_rests_far_from_the_market():
    """Post-only, good till cancelled, five percent below the best bid; none while one is open."""
    quotes = [each for each in strategy().wishes(VIEW, NOW) if each.kind == "quote"]
    leg = quotes[0].legs[0]
    assert (leg.side, leg.price, leg.qty, leg.post_only, leg.time_in_force) == (
        "buy", "47490", "10", True, "good_til_cancelled")
    assert "quote" not in kinds(strategy().wishes(structs.replace(VIEW, quote_open=True), NOW))


def test_wish_ids_are_repeatable_and_never_repeated():
    """The same seed and boot wish the same ids; another boot or seed wishes others; none occurs twice."""
    def ids(seed: int, boot: int) -> list[str]:
        planner = strategy(seed, boot)
        return [each.wish_id for at in range(0, 20_000, 1_000) for each in planner.wishes(VIEW, NOW + at)]

    assert ids(1, 1) == ids(1, 1)
    runs = [ids(1, 1), ids(1, 2), ids(2, 1)]
    assert len({each for run in runs for each in run}) == sum(len(run) for run in runs)


def test_the_strategy_can_only_say_what_it_wants():
    """It imports neither venue nor dispatch nor policy nor anything else of the trader but its settings."""
    source = ast.parse((REPOSITORY / "system_under_test/trader/strategy.py").read_text())
    ours = {each.module for each in ast.walk(source) if isinstance(each, ast.ImportFrom)
            and (each.module or "").startswith("system_under_test")}
    assert ours == {"system_under_test.trader.settings"}
