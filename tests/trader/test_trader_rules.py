"""Rules of the contract that only the running trader can keep: each was once written down and not kept."""

from __future__ import annotations

import dataclasses
from decimal import Decimal

import orjson
import pytest
from bench_trader import OPTION, PERPETUAL, WALL, Bench, policy

from system_under_test.machine import Now
from system_under_test.trader.dispatch import DispatchError
from system_under_test.trader.exposure import Exposure, reduces
from system_under_test.trader.intents import CLOSE, HEDGE, OPEN, make_intent
from system_under_test.trader.limits import caps_digest
from system_under_test.trader.orders import Order
from system_under_test.trader.policy import PermitError, Refusal
from system_under_test.trader.strategy import CLOSE as WISH_CLOSE
from system_under_test.trader.strategy import Leg, Wish
from system_under_test.trader.turn import Turn


def capped(**caps: float) -> dict[str, object]:
    """Policy overrides: other caps for DEV, approved."""
    launch = {name: dict(each) for name, each in policy()["launch_limits"].items()}
    launch["DEV"] |= caps
    return {"launch_limits": launch,
            "approval": {"policy_version": 1, "approved_by": "test", "caps_sha256": caps_digest(launch)}}


def burst(bench: Bench, count: int) -> None:
    bench.push("market_data", f"trades.{PERPETUAL}.100ms", [
        {"instrument_name": PERPETUAL, "trade_seq": 1_000 + number, "trade_id": str(number),
         "timestamp": WALL + bench.mono, "amount": 300_000.0}
        for number in range(count)])


def turn_of(bench: Bench) -> Turn:
    return Turn(Now(bench.mono, 0), bench.trader._anchor)


# ---- launch limits ----


def test_a_burst_does_not_pass_the_order_rate() -> None:
    """What is recorded and has not left yet counts: a burst within one turn stays under the cap a second."""
    bench = Bench(**capped(max_orders_per_second=5)).active()
    burst(bench, 40)
    bench.run(3_000)
    at = [order["valid_until"] for order in bench.exchange.placed if not order.get("reduce_only")]
    assert at and max(sum(1 for each in at if start <= each < start + 1_000) for start in at) <= 5
    assert bench.noted("refused", code="PolicyLimitExceeded")


def test_what_is_under_way_counts_towards_the_delta_cap() -> None:
    """While the disk stalls nothing fills; the worst case of what was recorded must stay within the cap."""
    bench = Bench(**capped(max_net_delta_btc=0.22)).active()
    bench.until(lambda: not bench.exchange.positions or not any(bench.exchange.positions.values()))
    bench.disk_stalled = True
    before = len(bench.rows("group"))
    burst(bench, 30)
    bench.run(500)
    assert len(bench.rows("group")) - before <= 4  # 0.05 BTC of option each
    assert bench.noted("refused", code="PolicyLimitExceeded", why="max_net_delta_btc")


# ---- classes ----


def test_a_close_that_does_not_say_reduce_only_counts_as_open() -> None:
    """A wish that cannot be classified goes the way of opening: in ReduceOnly it is refused (AT-110, AT-201)."""
    bench = Bench().active()
    bench.until(lambda: any(group.state == "Complete" for group in bench.trader.floor.groups.values()))
    group = next(group for group in bench.trader.floor.groups.values() if group.state == "Complete")
    legs = (Leg(OPTION, "sell", "0.1", reduce_only=None),)
    bench.trader.floor.wish(turn_of(bench), Wish("f" * 32, WISH_CLOSE, legs, group_id=group.group_id))
    assert not group.closing
    turn = turn_of(bench)
    bench.trader.floor.wish(turn, Wish("e" * 32, WISH_CLOSE, legs, group_id=group.group_id))
    assert {note.fields["class"] for note in turn.out if getattr(note, "kind", "") in ("wish", "refused")} == {OPEN}


@pytest.mark.parametrize(("leg", "code"), [
    (Leg(OPTION, "buy", "0.1", type="market"), "OrderTypeMarketForbidden"),
    (Leg(OPTION, "buy", "0.1", type="stop_limit"), "OrderTypeStopForbidden"),
    (Leg(OPTION, "buy", "0.1", trigger="mark_price"), "OrderTypeStopForbidden"),
    (Leg(OPTION, "buy", "0.1", linked="one_cancels_other"), "LinkedOrderTypeForbidden"),
])
def test_order_types_that_are_forbidden_have_their_codes(leg: Leg, code: str) -> None:
    """Market, stop and linked orders are refused before anything is recorded (AT-016 to AT-019)."""
    bench = Bench().active()
    appended = bench.trader.ledger.appended
    answer = bench.trader.gates.open((leg,), 50.0, turn_of(bench).ts)
    assert isinstance(answer, Refusal) and answer.code == code and bench.trader.ledger.appended == appended


def test_gates_are_asked_in_their_order() -> None:
    """With stale fees and no book at once, the earlier gate answers; so does the preflight of the second leg."""
    bench = Bench().active()
    gates, ts = bench.trader.gates, turn_of(bench).ts
    legs = (Leg(OPTION, "buy", "0.1"), Leg(PERPETUAL, "sell", "5000"))
    bench.trader.market.books[OPTION].synced = False
    gates.fee_ts = None
    answer = gates.open(legs, 50.0, ts)
    assert isinstance(answer, Refusal) and answer.code == "FeeCacheStale"
    small = (Leg(OPTION, "buy", "0.01"), Leg(PERPETUAL, "sell", "5000", type="market"))
    answer = gates.open(small, 50.0, ts)
    assert isinstance(answer, Refusal) and answer.gate == "preflight"


# ---- the door ----


def intent(intent_class: str, side: str = "buy", qty: str = "0.1", instrument: str = OPTION, leg_idx: int = 0):
    return make_intent(strategy_id="s", group_id="a" * 32, leg_idx=leg_idx, intent_class=intent_class,
                       instrument=instrument, side=side, qty=Decimal(qty), price=Decimal("0.03"), steps=1, ticks=300,
                       reduce_only=intent_class == CLOSE)


def test_every_unlawful_paper_is_counted() -> None:
    """A stale permit, and a permit for something else at the cancelling door, count as illegal attempts."""
    bench = Bench().active()
    trader = bench.trader
    trader.guard.turn()
    order = Order(intent(OPEN), seq=trader.ledger.durable)
    permit = trader.guard.permit(trader.watch.snapshot(turn_of(bench)), OPEN)
    paper = trader.ledger.recorded(order.intent, order.seq)
    trader.guard.turn()
    with pytest.raises(PermitError):
        trader.desk._door.send(turn_of(bench), order, permit, paper)
    assert trader.metrics.value("illegal_order_attempts") == 1
    with pytest.raises(DispatchError):
        trader.desk._door.cancel(turn_of(bench), order, trader.guard.permit(trader.watch.snapshot(turn_of(bench)), OPEN))
    assert trader.metrics.value("illegal_order_attempts") == 2


def test_a_hedge_that_has_filled_in_part_counts_with_its_rest() -> None:
    """The filled part is a position already; counted again it would let no hedge of the rest pass."""
    exposure = Exposure({OPTION: Decimal("0.1"), PERPETUAL: Decimal(-2_000)})
    under_way = Order(intent(HEDGE, "sell", "2500", PERPETUAL, 3), sent_ts=1, state="PartiallyFilled", filled=Decimal(2_000))
    units = {OPTION: 0.5, PERPETUAL: 1 / 100_000}
    assert reduces(intent(HEDGE, "sell", "2500", PERPETUAL), exposure, [under_way], units.get, 0.0001)


# ---- what a restart must not forget ----


def test_rescues_are_not_counted_anew_after_a_restart() -> None:
    """A group that was being contained when the trader died is closed: an unknown number of rescues is the limit."""
    bench = Bench().active()
    bench.exchange.rejects = lambda params: 10009 if (
        params["instrument_name"] == PERPETUAL and not params.get("reduce_only")) else None
    bench.until(lambda: any(group.state == "MixedFailed" for group in bench.trader.floor.groups.values()))
    bench.kill()
    bench.run(500)
    placed = len(bench.exchange.placed)
    bench.life()
    restored = [group for group in bench.trader.floor.groups.values() if group.state == "MixedFailed"]
    assert restored and all(group.rescues >= bench.trader.settings.rescue_max for group in restored)
    bench.run(5_000)
    ids = {group.group_id[:12] for group in restored}
    rescues = [order for order in bench.exchange.placed[placed:]
               if order["label"].split(":")[2] in ids and not order.get("reduce_only")
               and order["instrument_name"] == PERPETUAL]
    assert not [each for each in bench.noted("rescue") if each[2]["group_id"][:12] in ids and rescues]


def test_an_operator_s_emergency_survives_a_restart() -> None:
    """Reduce-only was asked for so many seconds; dying in between does not shorten it."""
    bench = Bench(emergency_reduceonly_cooldown_s=60).active()
    bench.press()
    bench.run(2_000)
    bench.kill()
    bench.run(500)
    bench.life()
    bench.run(30_000)
    assert "REDUCEONLY_EMERGENCY_REDUCEONLY_ACTIVE" in bench.status()["mode_reasons"]
    bench.until(lambda: bench.status()["trading_mode"] == "Active", 40_000)


# ---- producers ----


def test_a_jump_of_the_volatility_index_reduces() -> None:
    """The index is followed on its channel, and a tenth more within a minute votes for reduce-only (AT-231)."""
    bench = Bench().active()
    assert "deribit_volatility_index.btc_usd" in bench.trader.venue.channels
    for value in (50.0, 56.0):
        bench.push("market_data", "deribit_volatility_index.btc_usd",
                   {"index_name": "btc_usd", "volatility": value, "timestamp": WALL + bench.mono})
    bench.run(200)
    assert bench.status()["mode_reasons"] == ["REDUCEONLY_CORTEX_FORCE_REDUCE_ONLY"]
    bench.active()


def test_cancelling_outside_active_is_bounded_by_the_batch_alone() -> None:
    """Milliseconds are no number of orders."""
    bench = Bench(cancel_open_batch_max=3).active()
    desk, turn = bench.trader.desk, turn_of(bench)
    bench.trader.guard.turn()
    for number in range(8):
        what = dataclasses.replace(intent(OPEN, leg_idx=2 * number), time_in_force="good_til_cancelled", intent_id=f"q{number}")
        desk.orders.add(Order(what, state="Acked", sent_ts=1, order_id=f"o{number}"))
    desk.cancel_openers(turn)
    sent = [orjson.loads(each.data) for each in turn.out if type(each).__name__ == "Frame"]
    assert sum(each["method"] == "private/cancel" for each in sent) == 3
    assert "cancel_open_budget_ms" not in policy()
