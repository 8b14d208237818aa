"""What the trader does when the world breaks: the fault, the mode and reasons it must show, and the way back."""

from __future__ import annotations

import hashlib

import orjson
import pytest
from bench_trader import OPTION, PERPETUAL, WALL, Bench

from system_under_test.machine import Close, Frame

LATCHED = "REDUCEONLY_OPEN_PERMISSION_LATCHED"
DEGRADED = "REDUCEONLY_RISKSTATE_DEGRADED"


@pytest.fixture
def bench() -> Bench:
    """A trader that is Active and has traded."""
    bench = Bench().active()
    bench.run(6_000)
    assert bench.rows("fill"), "it has traded"
    return bench


def opened_since(bench: Bench, count: int) -> list[dict]:
    return [order for order in bench.exchange.placed[count:] if not order.get("reduce_only")]


def test_a_group_opens_fills_and_closes(bench: Bench) -> None:
    """The happy path: two legs go out together, fill, and are closed option first."""
    assert bench.sent(instrument_name=OPTION, side="buy")
    assert bench.sent(instrument_name=PERPETUAL, side="sell")
    closing = [order for order in bench.exchange.placed if order.get("reduce_only")]
    assert [order["instrument_name"] for order in closing[:2]] == [OPTION, PERPETUAL]
    assert bench.rows("group_state")[0]["to"] == "Dispatched"
    assert not bench.noted("anomaly")


def test_while_active_every_wish_is_sent_or_refused(bench: Bench) -> None:
    """Active while silently blocking does not exist: a wish has orders or a refusal."""
    bench.run(10_000)
    wishes = bench.noted("wish", **{"class": "OPEN"})
    groups = {row["group_id"] for row in bench.rows("intent")}
    unheard = [note for note in wishes if note[2]["group_id"] not in groups]
    assert len(unheard) == len(bench.noted("refused", **{"class": "OPEN"}))


def test_restart_shows_the_latch_alone() -> None:
    """The restart golden: once inputs are there and before it has reconciled, LATCHED with RESTART and nothing else."""
    bench = Bench()
    seen = []
    while (status := bench.status())["trading_mode"] != "Active":
        seen.append((status["mode_reasons"], status["risk_state"], status["bunker_mode_active"],
                     status["open_permission_reason_codes"]))
        bench.run(50)
    assert ([LATCHED], "Healthy", False, ["RESTART_RECONCILE_REQUIRED"]) in seen
    assert not opened_since(bench, 0)


def test_stale_market_data_latches_alone_and_clears_by_reconciling(bench: Bench) -> None:
    """Drill 2: silence past its limit, the latch and nothing else; afterwards a reconciliation clears it."""
    bench.exchange.feed = False
    bench.until(lambda: bench.status()["trading_mode"] == "ReduceOnly", 4_000)
    status = bench.status()
    assert status["mode_reasons"] == [LATCHED]
    assert status["open_permission_reason_codes"] == ["WS_DATA_STALE_RECONCILE_REQUIRED"]
    assert status["risk_state"] == "Healthy" and not status["bunker_mode_active"]
    bench.run(3_000)
    assert bench.status()["mode_reasons"] == [LATCHED]
    count, bench.exchange.feed = len(bench.exchange.placed), True
    bench.exchange.queries.clear()
    bench.active()
    assert {"positions", "open_orders", "user_trades"} <= set(bench.exchange.queries)
    assert not [order for order in opened_since(bench, count) if order["valid_until"] < WALL + bench.mono - 2_000]


def test_closing_goes_on_while_the_feed_is_silent(bench: Bench) -> None:
    """A stale feed blocks opening; what is held is closed at the ticker's price."""
    bench.exchange.feed = False
    bench.run(7_000)
    assert not any(bench.exchange.positions.values())


def test_book_gap_latches_within_a_tick_and_rebuilds(bench: Bench) -> None:
    """Drill 5: a change that does not follow latches at once; the book is rebuilt, a reconciliation clears."""
    bench.exchange.skip_change = True
    bench.run(100)
    status = bench.status()
    assert status["mode_reasons"] == [LATCHED]
    assert status["open_permission_reason_codes"] == ["WS_BOOK_GAP_RECONCILE_REQUIRED"]
    assert status["risk_state"] == "Healthy"
    assert any(method == "public/get_order_book" for _, method in bench.exchange.seen)
    bench.active()


def public_trade(bench: Bench, seq: int, amount: float = 10.0) -> dict:
    return {"instrument_name": PERPETUAL, "amount": amount, "timestamp": WALL + bench.mono, "trade_seq": seq,
            "trade_id": str(1_000 + seq)}


def test_a_step_back_latches_and_what_was_told_before_signals_nothing(bench: Bench) -> None:
    """The same signals told again are no signals: the sequence that steps back latches, the strategy hears each once."""
    heard: list[float] = []
    bench.trader.strategy.signal = lambda amount: bool(heard.append(amount))
    told = [public_trade(bench, seq, 300_000.0) for seq in (5, 6, 7)]
    for _ in range(2):
        bench.push("market_data", f"trades.{PERPETUAL}.100ms", told)
    bench.run(100)
    assert heard == [300_000.0] * 3
    assert bench.status()["open_permission_reason_codes"] == ["WS_TRADES_GAP_RECONCILE_REQUIRED"]
    bench.push("market_data", f"trades.{PERPETUAL}.100ms", [public_trade(bench, 8, 300_000.0)])
    assert len(heard) == 4
    bench.active()


def test_trade_gap_latches(bench: Bench) -> None:
    """A hole in the sequence of public trades latches; a repeated number is no hole."""
    for seq in (5, 6, 6):
        bench.push("market_data", f"trades.{PERPETUAL}.100ms", [public_trade(bench, seq)])
    assert bench.status()["trading_mode"] == "Active"
    bench.push("market_data", f"trades.{PERPETUAL}.100ms", [public_trade(bench, 9)])
    bench.run(100)
    assert bench.status()["open_permission_reason_codes"] == ["WS_TRADES_GAP_RECONCILE_REQUIRED"]
    bench.active()


def late(bench: Bench) -> list[dict]:
    """Orders whose fills the exchange has kept to itself."""
    return [trade for trade in bench.exchange.trades if trade["trade_id"] not in bench.trader.desk.registry]


def test_late_fill_news_is_asked_for_and_counts_once(bench: Bench) -> None:
    """Orders answered without their fills: REST tells them, a later copy changes nothing, positions agree."""
    bench.exchange.fill_news = False
    bench.run(4_000)
    bench.exchange.fill_news = True
    bench.run(2_000)
    assert not late(bench)
    before = dict(bench.trader.desk.exposure.positions)
    for trade in list(bench.exchange.trades[-6:]):
        bench.push("orders", "user.changes.any.BTC.raw", {"instrument_name": trade["instrument_name"], "orders": [],
                                                         "trades": [trade], "positions": []})
    assert bench.trader.desk.exposure.positions == before
    assert len(bench.noted("duplicate_noop", what="fill")) >= 6
    assert not bench.noted("mismatch")


def test_rejected_second_leg_is_contained(bench: Bench) -> None:
    """Drill 1: option filled, future refused: emergency reduce-only, at most two rescues, monotone to neutral."""
    bench.exchange.rejects = lambda params: 10009 if params["instrument_name"] == PERPETUAL and not params.get(
        "reduce_only") else None
    bench.until(lambda: bench.status()["trading_mode"] == "ReduceOnly", 3_000)
    status = bench.status()
    assert status["mode_reasons"] == ["REDUCEONLY_EMERGENCY_REDUCEONLY_ACTIVE", DEGRADED]
    assert status["owner_view"]["primary_owner_reason_code"] == "RISK_PARTIAL_FILL_CONTAINMENT"
    count = len(bench.exchange.placed)
    bench.run(2_500)
    rescues = bench.noted("rescue")
    assert rescues and max(note[2]["n"] for note in rescues) <= 2
    assert len(bench.rows("naked")) == len({row["group_id"] for row in bench.rows("naked")}) == 1
    naked = bench.rows("naked")[0]
    assert naked["exposure_usd_before"] > 0 and naked["exposure_usd_after"] == 0
    assert not [order for order in opened_since(bench, count) if order["instrument_name"] == OPTION]
    bench.exchange.rejects = lambda params: None
    bench.active()
    assert bench.status()["atomic_naked_events_24h"] == 1


def test_a_rescue_that_works_completes_the_group(bench: Bench) -> None:
    """The second leg is refused once: the rescue completes the group, and the strategy closes it later."""
    refusals = iter([10009])
    bench.exchange.rejects = lambda params: next(refusals, None) if params["instrument_name"] == PERPETUAL and not (
        params.get("reduce_only")) else None
    bench.until(lambda: bool(bench.noted("rescue")), 3_000)
    bench.run(300)
    assert [row["to"] for row in bench.rows("group_state") if row["from"] == "MixedFailed"] == ["Complete"]
    bench.run(6_000)
    bench.active()


def test_a_future_without_its_option_is_closed(bench: Bench) -> None:
    """The other way round: the option is refused for good, the future alone is closed."""
    bench.exchange.rejects = lambda params: 10009 if params["instrument_name"] == OPTION and not params.get(
        "reduce_only") else None
    bench.until(lambda: bool(bench.noted("close_attempt")), 3_000)
    bench.run(5_000)
    assert not any(bench.exchange.positions.values())


def test_when_closing_fails_the_delta_is_hedged(bench: Bench) -> None:
    """Nobody buys the option back: three attempts, then a hedge on the perpetual brings the delta to zero."""
    def refuse(params: dict) -> int | None:
        closing_option = params["instrument_name"] == OPTION and params.get("reduce_only")
        second_leg = params["instrument_name"] == PERPETUAL and not params.get("reduce_only") and not closing["hedge"]
        return 10009 if closing_option or second_leg else None

    closing = {"hedge": False}
    bench.run(1_000)
    bench.exchange.rejects = refuse
    bench.until(lambda: len(bench.noted("close_attempt")) >= 3, 6_000)
    closing["hedge"] = True
    bench.until(lambda: bool(bench.noted("hedge")), 5_000)
    bench.run(500)
    row = bench.rows("naked")[0]
    assert row["hedge_used"] and row["exposure_usd_after"] <= 10


def test_a_stalled_ledger_fills_refuses_and_never_traps(bench: Bench) -> None:
    """Drill 3: the queue fills, opening fails closed and is counted, the loop ticks, closing is waived through."""
    bench.disk_stalled = True
    bench.push("market_data", f"trades.{PERPETUAL}.100ms", [public_trade(bench, 1_000 + n, 300_000.0) for n in range(450)])
    bench.run(1_700)
    status = bench.status()
    assert status["mode_reasons"] == [DEGRADED] and status["risk_state"] == "Degraded"
    assert status["wal_queue_depth"] == status["wal_queue_capacity"] == 1_024
    assert status["wal_queue_enqueue_failures"] > 0
    assert not status["open_permission_blocked_latch"]
    count = len(bench.exchange.placed)
    bench.run(5_000)
    assert not opened_since(bench, count)
    assert [note for note in bench.noted("dispatched") if "waived" in note[2]]
    assert not any(bench.exchange.positions.values())
    assert bench.status()["loop_tick_last_ts_ms"] >= WALL + bench.mono - 200
    bench.heal_disk()
    bench.run(1_000)
    assert not opened_since(bench, count), "what waited is not fired on healing"
    bench.active()
    bench.run(3_000)
    assert opened_since(bench, count)


def test_a_session_that_the_exchange_ends_needs_an_operator(bench: Bench) -> None:
    """Drill 7: 10028 with the connection closed, three times; unconfirmed, MANUAL until acknowledged."""
    times = iter([10028, 10028, 10028])

    def end(method: str, params: object) -> int | None:
        if not method.startswith("private/") or bench.exchange.seen[-1][0] != "orders":
            return None
        code = next(times, None)
        if code is not None:
            bench.later(2, lambda: bench.drop("orders", "session ended"))
        return code

    bench.exchange.error = end
    bench.until(lambda: bench.status()["10028_count_5m"] == 3, 10_000)
    bench.run(200)
    status = bench.status()
    assert status["mode_reasons"] == [LATCHED, DEGRADED, "REDUCEONLY_SESSION_KILL_UNCONFIRMED"]
    assert status["open_permission_reason_codes"] == ["SESSION_TERMINATION_RECONCILE_REQUIRED"]
    assert status["429_count_5m"] == 0 and not status["bunker_mode_active"]
    bench.run(10_000)
    assert bench.status()["open_permission_blocked_latch"], "MANUAL: nobody has acknowledged"
    code, reason, name = "SESSION_TERMINATION_RECONCILE_REQUIRED", "seen", "operator"
    digest = hashlib.sha256(f"{code}\n{reason}\n{name}".encode()).hexdigest()
    note = {"code": code, "reason": reason, "name": name, "digest": digest}
    bench.files["operator/acknowledge.json"] = orjson.dumps(note)
    bench.active()


def ends_sessions(bench: Bench, times: int) -> None:
    """The exchange answers 10028 to so many private requests over the order link, and closes it each time."""
    codes = iter([10028] * times)

    def end(method: str, params: object) -> int | None:
        if not method.startswith("private/") or bench.exchange.seen[-1][0] != "orders":
            return None
        code = next(codes, None)
        if code is not None:
            bench.later(2, lambda: bench.drop("orders", "session ended"))
        return code

    bench.exchange.error = end


def signed(bench: Bench, code: str) -> None:
    """The operator signs for a code."""
    digest = hashlib.sha256(f"{code}\nseen\noperator".encode()).hexdigest()
    bench.files["operator/acknowledge.json"] = orjson.dumps(
        {"code": code, "reason": "seen", "name": "operator", "digest": digest})


def test_a_confirmed_session_kill_outlives_the_process_until_an_operator_signs_for_it(bench: Bench) -> None:
    """Drill 14: five ends are Kill; a restart keeps it, a signature for the session alone keeps it, and then it ends."""
    kill = "KILL_RATE_LIMIT_SESSION_TERMINATION"
    ends_sessions(bench, 5)
    bench.until(lambda: bench.status()["mode_reasons"] == [kill], 20_000)
    bench.run(1_000)
    bench.kill()
    bench.life()
    bench.run(8_000)
    assert (bench.status()["mode_reasons"], bench.status()["10028_count_5m"]) == ([kill], 5)
    assert bench.trader.market.instruments, "a life that begins in a storm knows what it may close"
    signed(bench, "SESSION_TERMINATION_RECONCILE_REQUIRED")
    bench.run(8_000)
    assert bench.status()["mode_reasons"] == [kill]
    signed(bench, kill)
    bench.active()


def test_what_reduces_leaves_over_rest_while_the_order_link_stays_lost(bench: Bench) -> None:
    """Sessions that the exchange ends again and again trap no position; nothing is opened that way."""
    bench.until(lambda: not bench.trader.desk.exposure.flat)
    ends_sessions(bench, 50)
    bench.until(lambda: not bench.trader.venue.ready("orders"), 5_000)
    count = len(bench.exchange.placed)
    bench.until(lambda: bench.trader.desk.exposure.flat, 10_000)
    assert not bench.trader.venue.ready("orders")
    assert all(order.get("reduce_only") for order in bench.exchange.placed[count:])
    assert bench.noted("dispatched", by="rest")


def test_every_handshake_arms_everything_again(bench: Bench) -> None:
    """After a reconnect: name, authentication, heartbeat, cancel-on-disconnect and subscriptions once more."""
    bench.exchange.seen.clear()
    bench.drop("orders")
    bench.run(1_000)
    asked = [method for conn, method in bench.exchange.seen if conn == "orders"]
    assert asked[:5] == ["public/hello", "public/auth", "public/set_heartbeat", "private/enable_cancel_on_disconnect",
                         "private/subscribe"]


def test_channels_that_are_added_during_the_handshake_are_subscribed_afterwards() -> None:
    """The option may be chosen between the asking for channels and the answer: its channels are asked for then."""
    bench = Bench()
    wanted = f"book.{OPTION}.100ms"
    bench.trader.venue.channels = tuple(each for each in bench.trader.venue.channels if OPTION not in each)
    asked: list[list[str]] = []
    subscribe = bench.exchange.on_public_subscribe

    def late(params: dict) -> object:
        asked.append(list(params["channels"]))
        if len(asked) == 1:
            bench.trader._choose = lambda turn: None
            bench.trader.venue.channels = (*bench.trader.venue.channels, wanted)
        return subscribe(params)

    bench.exchange.on_public_subscribe = late
    bench.run(1_000)
    assert wanted not in asked[0] and [wanted] in asked[1:]


def test_a_lost_private_connection_is_a_session_that_ended(bench: Bench) -> None:
    """Drill 9, in part: all links cut: latched and degraded; back: reconciled, no duplicate, Active by itself."""
    bench.cut |= {"orders", "market_data", "rest"}
    bench.drop("orders")
    bench.drop("market_data")
    bench.run(300)
    status = bench.status()
    assert status["mode_reasons"] == [LATCHED, DEGRADED]
    assert status["open_permission_reason_codes"] == ["SESSION_TERMINATION_RECONCILE_REQUIRED"]
    bench.run(4_000)
    assert bench.status()["open_permission_reason_codes"] == [
        "WS_DATA_STALE_RECONCILE_REQUIRED", "SESSION_TERMINATION_RECONCILE_REQUIRED"]
    bench.cut.clear()
    bench.active()
    labels = [order["label"] for order in bench.exchange.placed]
    assert len(labels) == len(set(labels))


def test_rate_limit_sheds_data_and_refuses_opening_but_closes(bench: Bench) -> None:
    """Drill 10: 429 over HTTP: degraded, data shed, OPEN refused as RateLimitBrownout, closing and cancelling pass."""
    bench.exchange.http_status = 429
    bench.exchange.error = lambda method, params: 10028 if bench.exchange.seen[-1][0] == "rest" else None
    bench.run(2_500)
    status = bench.status()
    assert status["mode_reasons"] == [DEGRADED] and status["429_count_5m"] > 0 and status["10028_count_5m"] == 0
    assert bench.noted("shed", **{"class": "DATA"})
    assert bench.noted("refused", code="RateLimitBrownout", **{"class": "OPEN"})
    bench.run(4_000)
    assert not any(bench.exchange.positions.values())
    bench.exchange.error = lambda method, params: None
    bench.active()


def test_a_10028_without_an_ended_session_is_a_rate_limit(bench: Bench) -> None:
    """The connection lives on: counted as a rate limit, no session flag, no latch."""
    codes = iter([10028])
    bench.exchange.error = lambda method, params: next(codes, None) if method == "private/buy" else None
    bench.run(3_000)
    status = bench.status()
    assert status["429_count_5m"] == 1 and status["10028_count_5m"] == 0
    assert not status["open_permission_blocked_latch"]


def test_a_wrong_clock_degrades_and_never_kills(bench: Bench) -> None:
    """Drill 11: the wall clock steps; Degraded, never Kill, whatever the size; back when it is right again."""
    for shift in (500, -500, 3_600_000):
        bench.wall_shift = shift
        bench.run(300)
        status = bench.status()
        assert status["mode_reasons"] == [DEGRADED], shift
    bench.wall_shift = 0
    bench.active()


def test_maintenance_is_its_own_state_and_recovers(bench: Bench) -> None:
    """Drill 12: 11051 on everything private: RISKSTATE_MAINTENANCE; by itself Active again."""
    bench.exchange.error = lambda method, params: 11051
    bench.run(2_500)
    status = bench.status()
    assert status["risk_state"] == "Maintenance"
    assert status["mode_reasons"] == ["REDUCEONLY_RISKSTATE_MAINTENANCE"]
    bench.run(4_000)
    assert bench.status()["mode_reasons"] == ["REDUCEONLY_RISKSTATE_MAINTENANCE"]
    bench.exchange.error = lambda method, params: None
    bench.active()


def test_a_locked_platform_is_maintenance(bench: Bench) -> None:
    """A notification that the platform is locked counts at once."""
    bench.push("market_data", "platform_state", {"price_index": "btc_usd", "locked": True})
    bench.run(100)
    assert bench.status()["risk_state"] == "Maintenance"


def test_thin_book_is_refused_then_reduces_then_kills(bench: Bench) -> None:
    """Drill 13: refusals while Active, then the cortex: ReduceOnly, then Kill; closing passes throughout."""
    bid, ask, _ = bench.exchange.quotes[PERPETUAL]
    bench.exchange.quotes[PERPETUAL] = (bid, ask, 200_000.0)
    bench.run(300)
    assert bench.status()["mode_reasons"] == ["REDUCEONLY_CORTEX_FORCE_REDUCE_ONLY"]
    bench.exchange.quotes[PERPETUAL] = (bid, ask, 50_000.0)
    bench.run(4_000)
    assert bench.status()["mode_reasons"] == ["KILL_CORTEX_FORCE_KILL"]
    bench.run(3_000)
    assert not any(bench.exchange.positions.values())
    bench.exchange.quotes[PERPETUAL] = (bid, ask, 500_000.0)
    bench.active()


def test_unusable_option_book_is_refused_with_its_code(bench: Bench) -> None:
    """An empty option book refuses opening as LiquidityGateNoL2 while the mode stays Active."""
    bid, ask, _ = bench.exchange.quotes[OPTION]
    bench.exchange.quotes[OPTION] = (bid, ask, 0.0)
    bench.run(2_500)
    assert bench.status()["trading_mode"] == "Active"
    assert bench.noted("refused", code="LiquidityGateNoL2", **{"class": "OPEN"})


def test_an_unknown_word_kills_this_build_until_the_next(bench: Bench) -> None:
    """Drill 8: Kill by a token no registry knows; flat; survives a restart; a new build is free of it."""
    bench.exchange.state_word = "zombie"
    bench.run(2_000)
    bench.exchange.state_word = None
    bench.run(8_000)
    status = bench.status()
    assert status["trading_mode"] == "Kill" and status["mode_reasons"] == ["KILL_CORTEX_FORCE_KILL"]
    assert status["owner_view"]["primary_owner_reason_code"] == "EXEC_UNMAPPED_REASON_CODE"
    assert not status["open_permission_blocked_latch"] and status["risk_state"] == "Healthy"
    assert not any(bench.exchange.positions.values())
    bench.kill()
    bench.life()
    bench.run(5_000)
    assert bench.status()["mode_reasons"] == ["KILL_CORTEX_FORCE_KILL"]
    bench.kill()
    bench.life("reference-2")
    bench.active()


def test_kill_reduces_to_flat_by_itself(bench: Bench) -> None:
    """Capital supremacy: under Kill the trader closes what it holds, and only reduces."""
    bench.exchange.maintenance_margin = 9.6
    bench.until(lambda: bench.status()["trading_mode"] == "Kill", 3_000)
    count = len(bench.exchange.placed)
    bench.run(3_000)
    assert not any(bench.exchange.positions.values())
    assert all(order.get("reduce_only") for order in bench.exchange.placed[count:])
    assert bench.status()["trading_mode"] == "Kill"


def test_resting_quotes_are_cancelled_outside_active(bench: Bench) -> None:
    """A resting order that could open does not survive ReduceOnly; reduce-only orders are not touched."""
    def resting() -> list[dict]:
        return [order for order in bench.exchange.orders.values() if order["order_state"] == "open"]

    assert resting()
    bench.exchange.skip_change = True
    bench.run(400)
    assert not resting()


def test_a_balanced_pair_that_cannot_be_closed_is_not_hedged(bench: Bench) -> None:
    """What a whole pair drifts by is worth no order: sent beside another pair's close it opened (drill 14, seed 57)."""
    bench.until(lambda: len(bench.exchange.positions) == 2, 5_000)
    bench.exchange.delta = 0.52
    bench.exchange.rejects = lambda params: 10009 if params.get("reduce_only") else None
    bench.exchange.maintenance_margin = 9.6
    bench.until(lambda: bench.status()["trading_mode"] == "Kill", 3_000)
    bench.until(lambda: len(bench.noted("close_attempt")) >= 20, 20_000)
    assert not bench.noted("hedge")


def test_the_emergency_endpoint_reduces_at_once(bench: Bench) -> None:
    """With the token: taken, ReduceOnly in the next status; without: 401 and nothing happens."""
    assert bench.get("/api/v1/emergency/reduce_only", method="POST").status == 401
    assert bench.status()["trading_mode"] == "Active"
    bench.press()
    assert bench.status()["mode_reasons"] == ["REDUCEONLY_EMERGENCY_REDUCEONLY_ACTIVE"]
    assert bench.noted("emergency", taken=True)
    bench.run(6_000)
    bench.active()


def test_an_emergency_that_was_answered_survives_a_crash(bench: Bench) -> None:
    """Nothing is said before the row is on disk; what was said then stands after losing everything unsynced."""
    answered = bench.press()
    assert bench.status()["trading_mode"] == "ReduceOnly" and not answered
    bench.until(lambda: len(answered) == 1, 100)
    assert orjson.loads(answered[0].body) == {"taken": True, "durable": True}
    bench.kill(lose_unsynced=True)
    bench.life()
    bench.run(100)
    assert "REDUCEONLY_EMERGENCY_REDUCEONLY_ACTIVE" in bench.status()["mode_reasons"]


def test_a_dead_ledger_keeps_no_operator_waiting(bench: Bench) -> None:
    """The disk stalls: the emergency is in force at once, and the answer says that a crash would undo it."""
    bench.disk_stalled = True
    answered = bench.press()
    bench.until(lambda: bool(answered), 2_000)
    assert orjson.loads(answered[0].body) == {"taken": True, "durable": False}
    assert bench.status()["trading_mode"] == "ReduceOnly"


def test_a_position_changed_behind_our_back_is_found_and_closed(bench: Bench) -> None:
    """INVENTORY_MISMATCH latches, the exchange's number is taken over, what no group explains is closed."""
    bench.exchange.positions[PERPETUAL] = bench.exchange.positions.get(PERPETUAL, 0.0) + 50_000
    bench.until(lambda: "INVENTORY_MISMATCH_RECONCILE_REQUIRED" in bench.status()["open_permission_reason_codes"], 5_000)
    bench.run(8_000)
    assert bench.rows("adopted")
    bench.active()
    bench.run(200)
    explained = sum(float(group.held.get(PERPETUAL, 0)) for group in bench.trader.floor.groups.values())
    assert bench.exchange.positions[PERPETUAL] == pytest.approx(explained)


def test_a_ghost_order_is_cancelled_within_ten_seconds(bench: Bench) -> None:
    """An order with our label that no intent explains is cancelled, and said so."""
    ghost = {"order_id": "BTC-ghost", "label": "s4:12345678:aaaaaaaaaaaa:0:0123456789abcdef", "direction": "buy",
             "instrument_name": PERPETUAL, "amount": 10.0, "filled_amount": 0.0, "order_state": "open", "price": 1.0}
    bench.exchange.orders["BTC-ghost"] = ghost
    bench.until(lambda: ghost["order_state"] == "cancelled", 10_000)
    bench.run(50)
    assert bench.noted("ghost_cancelled", order_id="BTC-ghost")
    assert bench.status()["open_permission_reason_codes"] == ["INVENTORY_MISMATCH_RECONCILE_REQUIRED"]
    bench.active()


def test_a_ghost_that_is_gone_haunts_nobody(bench: Bench) -> None:
    """Its cancel is answered by an error, because it is not there any more: the next comparison lets go of it."""
    ghost = {"order_id": "BTC-ghost", "label": "s4:12345678:aaaaaaaaaaaa:0:0123456789abcdef", "direction": "buy",
             "instrument_name": PERPETUAL, "amount": 10.0, "filled_amount": 0.0, "order_state": "open", "price": 1.0}
    bench.exchange.orders["BTC-ghost"] = ghost
    bench.exchange.error = lambda method, params: 11044 if method == "private/cancel" else None
    bench.until(lambda: bench.status()["open_permission_blocked_latch"], 10_000)
    bench.run(3_000)
    assert bench.status()["open_permission_blocked_latch"], "it rests, and cannot be cancelled"
    ghost.update(order_state="cancelled", cancel_reason="user_request")
    bench.active()


def test_an_account_whose_delta_is_off_is_compared_at_once() -> None:
    """Reconciling is due in a minute; the account's own delta, asked for every other second, calls it earlier."""
    bench = Bench(reconcile_interval_ms=60_000).active()
    bench.exchange.positions[PERPETUAL] = bench.exchange.positions.get(PERPETUAL, 0.0) - 40_000.0
    bench.run(3_000)
    assert not bench.noted("mismatch"), "this exchange does not tell its delta"
    bench.exchange.on_private_get_account_summary = lambda params: (
        {"equity": 10.0, "maintenance_margin": 0.5, "delta_total": -0.4,
         "limits": {"matching_engine": {"trading": {"total": {"rate": 20, "burst": 200}}}}}, None)
    bench.run(3_000)
    assert bench.noted("mismatch")


def test_a_lost_answer_is_looked_up_and_never_resent() -> None:
    """The exchange took the order and never said so: the label is looked up, the fill counts, nothing is resent."""
    bench = Bench(reconcile_interval_ms=60_000).active()
    held = iter([True])
    bench.exchange.silent = lambda method, params: method == "private/buy" and next(held, False)
    bench.run(8_000)
    assert bench.noted("ambiguous")
    labels = [order["label"] for order in bench.exchange.placed]
    assert len(labels) == len(set(labels))
    assert not late(bench)
    bench.active()


def test_an_unfilled_order_whose_answer_is_lost_is_looked_up_by_label() -> None:
    """No trade and no open order tells of it: only its label does."""
    bench = Bench(reconcile_interval_ms=60_000).active()
    held = iter([True])
    bench.exchange.fill_fraction = lambda params: 0.0
    bench.exchange.silent = lambda method, params: method == "private/buy" and next(held, False)
    bench.run(2_000)
    bench.exchange.fill_fraction = lambda params: 1.0
    bench.run(6_000)
    assert bench.noted("ambiguous") and "by_label" in bench.exchange.queries
    first = bench.noted("ambiguous")[0][1]
    assert bench.trader.desk.orders.get(first).state == "Canceled"
    bench.active()


def test_an_order_that_never_arrived_is_failed_only_when_it_cannot_arrive_any_more(bench: Bench) -> None:
    """Silence and an empty look-up prove nothing until the exchange would refuse a late arrival."""
    place, lost = bench.exchange.on_private_buy, []

    def swallow(params: dict) -> object:
        if not lost:
            lost.append(params)
            return "ok", None
        return place(params)

    bench.exchange.on_private_buy = swallow
    bench.exchange.silent = lambda method, params: bool(lost) and params.get("label") == lost[0]["label"]
    bench.until(lambda: bool(lost), 3_000)
    bench.exchange.silent = lambda method, params: params.get("label") == lost[0]["label"] and method == "private/buy"
    bench.until(lambda: bool(bench.noted("lost_order")), 10_000)
    assert WALL + bench.mono > lost[0]["valid_until"]
    bench.run(4_000)
    labels = [order["label"] for order in bench.exchange.placed]
    assert lost[0]["label"] not in labels


def test_frames_of_an_earlier_connection_are_not_listened_to(bench: Bench) -> None:
    """A frame of a generation that is gone changes nothing."""
    stale = bench.links["market_data"]
    bench.drop("market_data")
    before = bench.trader.market.last_ts
    channel = {"channel": f"ticker.{PERPETUAL}.100ms", "data": bench.exchange.ticker(PERPETUAL)}
    bench.give(Frame(stale, orjson.dumps({"method": "subscription", "params": channel})))
    assert bench.trader.market.last_ts == before


def test_a_frame_that_cannot_be_read_ends_the_connection(bench: Bench) -> None:
    """Garbage closes the link; it is dialled again."""
    out = bench.give(Frame(bench.links["market_data"], b"\xff\xfe"))
    assert any(isinstance(value, Close) for value in out)
    bench.run(1_500)
    assert "market_data" in bench.links


def test_no_secret_leaves_but_to_the_exchange(bench: Bench) -> None:
    """Secrets appear in no note, ledger row, status or metric."""
    texts = [repr(bench.notes), b"".join(bench.log).decode(), repr(bench.status()),
             bench.get("/metrics").body.decode(), bench.get("/api/v1/health").body.decode()]
    secrets = [bench.environment[name] for name in ("CLIENT_SECRET", "EMERGENCY_TOKEN", "WATCHDOG_TOKEN")]
    assert not [secret for secret in secrets for text in texts if secret in text]


def test_no_order_goes_over_rest(bench: Bench) -> None:
    """REST asks; it never places."""
    assert not [method for conn, method in bench.exchange.seen
                if conn == "rest" and method in ("private/buy", "private/sell", "private/cancel")]


def test_a_feed_that_runs_late_is_stale(bench: Bench) -> None:
    """Messages keep coming, but of what happened five seconds ago: that is no fresh feed."""
    real = bench.exchange.ticker

    def old(name: str) -> dict:
        return {**real(name), "timestamp": WALL + bench.mono - 5_000}

    book = bench.exchange.book
    bench.exchange.ticker = old
    bench.exchange.book = lambda name: {**book(name), "timestamp": WALL + bench.mono - 5_000}
    bench.run(4_000)
    assert bench.status()["open_permission_reason_codes"] == ["WS_DATA_STALE_RECONCILE_REQUIRED"]
    bench.exchange.ticker, bench.exchange.book = real, book
    bench.active()


def test_papers_are_renewed_before_they_run_out(bench: Bench) -> None:
    """The order link authenticates again within its token's life, and so does REST."""
    bench.exchange.seen.clear()
    bench.run(800_000)
    renewed = [conn for conn, method in bench.exchange.seen if method == "public/auth"]
    assert {"orders", "rest"} <= set(renewed)
    assert bench.trader.venue.links["orders"].generation == 1


def test_a_closed_exchange_is_not_hammered(bench: Bench) -> None:
    """While every order is refused for maintenance, closing is tried, but about once a second and group."""
    bench.exchange.error = lambda method, params: 11051
    bench.run(500)
    before = len(bench.noted("rejected"))
    bench.run(5_000)
    tried = len(bench.noted("rejected")) - before
    assert 3 <= tried <= 30
    bench.exchange.error = lambda method, params: None
    bench.active()
    assert not bench.rows("naked")


def test_a_refused_question_is_asked_with_growing_patience(bench: Bench) -> None:
    """Reconciliation under 429 waits longer from time to time, up to its interval."""
    bench.exchange.http_status = 429
    bench.exchange.error = lambda method, params: 10028 if bench.exchange.seen[-1][0] == "rest" else None
    bench.run(1_500)
    bench.exchange.seen.clear()
    bench.run(6_000)
    assert len([1 for conn, method in bench.exchange.seen if conn == "rest"]) <= 6 * 6


def test_a_link_without_heartbeats_is_dialled_anew(bench: Bench) -> None:
    """A connection that says nothing at all, not even a heartbeat, is dead however open it looks."""
    bench.exchange.heartbeats, bench.exchange.feed = False, False
    bench.run(40_000)
    assert bench.trader.venue.links["market_data"].generation > 1


def test_a_test_request_is_answered(bench: Bench) -> None:
    """The exchange closes a connection whose test_request goes unanswered."""
    request = b'{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"test_request"}}'
    bench.exchange.seen.clear()
    bench.give(Frame(bench.links["orders"], request))
    assert ("orders", "public/test") in bench.exchange.seen


def test_dust_does_not_hold_a_group_for_ever(bench: Bench) -> None:
    """What is less than the exchange's minimum cannot be closed and is not chased."""
    bench.run(500)
    group = next(iter(bench.trader.floor.groups.values()))
    name = next(iter(group.held))
    group.held[name] += group.held[name] / 1_000_000
    bench.run(8_000)
    assert group.group_id not in bench.trader.floor.groups


def test_a_fill_that_no_order_explains_counts_and_latches(bench: Bench) -> None:
    """Drill 15: it is found by asking for trades, counted once, and trust in the inventory is earned anew."""
    ours = "s4:12345678:bbbbbbbbbbbb:1:0123456789abcdef"
    bench.exchange.positions[PERPETUAL] = bench.exchange.positions.get(PERPETUAL, 0.0) + 2_000.0
    bench.exchange.trades.append({"trade_id": "T-orphan", "order_id": "BTC-nobody", "label": ours, "trade_seq": 10**9,
                                  "instrument_name": PERPETUAL, "direction": "buy", "amount": 2_000.0, "price": 100_000.0,
                                  "timestamp": WALL + bench.mono})
    bench.until(lambda: bench.status()["open_permission_blocked_latch"], 7_000)
    assert bench.status()["open_permission_reason_codes"] == ["INVENTORY_MISMATCH_RECONCILE_REQUIRED"]
    bench.active()
    assert len([row for row in bench.rows("fill") if row["trade_id"] == "T-orphan"]) == 1


def test_a_rescue_waits_for_the_closes_of_other_groups(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trader dies between the legs of a group, and comes back to close the others: their closes are over before the rescue
    goes out, which beside them would be one more position."""
    kind = type(bench.trader.floor)
    bench.until(lambda: sum(group.state == "Complete" for group in bench.trader.floor.groups.values()) >= 3)
    bench.crash_before = lambda value: (isinstance(value, Frame) and b"private/sell" in value.data
                                        and PERPETUAL.encode() in value.data and b"reduce_only\":true" not in value.data)
    bench.until(lambda: bench.crashed)
    tick, rescue, beside = kind.tick, kind._rescue, []

    def closing_all(self, turn):
        for group in self.groups.values():
            group.closing = group.closing or group.state == "Complete"
        tick(self, turn)

    def watched(self, turn, group):
        beside.append([order.intent.intent_id for other in self.groups.values() if other is not group
                       for order in self._orders(other) if order.intent.reduce_only and not order.terminal])
        return rescue(self, turn, group)

    monkeypatch.setattr(kind, "tick", closing_all)
    monkeypatch.setattr(kind, "_rescue", watched)
    bench.life()
    bench.until(lambda: bool(bench.noted("rescue")), 10_000)
    assert beside and not any(beside)
    bench.run(300)
    assert "Complete" in [row["to"] for row in bench.rows("group_state") if row["from"] == "MixedFailed"]
