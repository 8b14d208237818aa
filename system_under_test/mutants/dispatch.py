"""Sabotages of the desk and the one door: how orders leave, and what is made of no answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader
from system_under_test.trader.intents import OPEN, REDUCING, Intent
from system_under_test.trader.ledger import History
from system_under_test.trader.orders import ACKED, Order
from system_under_test.trader.policy import ACTIVE
from system_under_test.trader.turn import Turn
from system_under_test.trader.venue import Lost

RIGHT_AT_FIRST = 8
"""Batches of intents before sizes go wrong: enough to come to a steady state."""


def _again(intent: Intent, seq: int | None, recorded_ts: int) -> Order:
    """The same intent as if it had never been sent, with all the time in the world."""
    return Order(replace(intent, expires_ts=None), seq=seq, recorded_ts=recorded_ts)


def _send_again(trader: Trader, outbox: list[Order]) -> None:
    """Send what is in the outbox as soon as opening is allowed."""
    desk = trader.desk
    honest = desk.pump

    def pump(turn: Turn) -> None:
        if outbox and not trader.watch.latch.blocked:
            for order in outbox:
                desk.orders.add(order)
                desk._batches.append([order])
            outbox.clear()
        honest(turn)

    graft(desk, "pump", pump)


def resends_after_restart(environment: Mapping[str, str]) -> Trader:
    """What was sent and not acknowledged before a crash is sent again as soon as opening is allowed: drill 4 must say
    that an intent went out twice (``no_duplicate``).

    Real bugs look like this: an outbox that is emptied by acknowledgements, and replayed on start.
    """

    def sabotage(trader: Trader) -> None:
        desk = trader.desk
        restore, outbox = desk.restore, list[Order]()

        def restore_and_remember(history: History) -> None:
            restore(history)
            outbox.extend(_again(known.intent, known.seq, known.recorded_ts) for known in history.intents.values()
                          if known.sent_ts is not None and known.state is None)

        graft(desk, "restore", restore_and_remember)
        _send_again(trader, outbox)

    return operate(environment, sabotage)


def takes_silence_for_failure(environment: Mapping[str, str]) -> Trader:
    """No answer is taken for *nothing happened*, and the order is sent again: drill 9 must say that an intent went out
    twice (``no_duplicate``).

    Real bugs look like this: a retry around the request, because requests time out now and then.
    """

    def sabotage(trader: Trader) -> None:
        desk = trader.desk
        on_lost, outbox = desk.on_lost, list[Order]()

        def on_lost_retry(turn: Turn, lost: Lost) -> None:
            order = desk.orders.get(lost.tag[1]) if lost.tag[0] == "order" else None
            if order is None:
                on_lost(turn, lost)
            else:
                outbox.append(_again(order.intent, order.seq, order.recorded_ts))

        graft(desk, "on_lost", on_lost_retry)
        _send_again(trader, outbox)

    return operate(environment, sabotage)


def reduces_past_zero(environment: Mapping[str, str]) -> Trader:
    """Outside Active a closing order is three times what is held, and is not marked reduce-only: drill 2 must say that
    risk was opened while the status said that it is blocked (law ``no_opening_while_blocked``).

    Real bugs look like this: what is closed is what was ever bought, not what is held.
    """

    def sabotage(trader: Trader) -> None:
        desk, door = trader.desk, trader.desk._door
        record = desk.record

        def record_thrice(turn: Turn, intents: list[Intent], before: dict[str, object] | None = None) -> object:
            if trader.watch.mode != ACTIVE:
                intents = [replace(each, qty=each.qty * Decimal(3), reduce_only=False)
                           if each.intent_class in REDUCING else each for each in intents]
            return record(turn, intents, before)

        graft(desk, "record", record_thrice)
        graft(door, "_shrinks", lambda order: True)

    return operate(environment, sabotage)


def leaves_quotes(environment: Mapping[str, str]) -> Trader:
    """Orders that could open stay on the book when opening is blocked: drill 13 must say that one still rested
    (law ``opens_cancelled_outside_active``).

    Real bugs look like this: blocking means that nothing new is sent, and what was sent is forgotten.
    """

    def sabotage(trader: Trader) -> None:
        graft(trader.desk, "cancel_openers", lambda turn: None)

    return operate(environment, sabotage)


def lets_orders_arrive_late(environment: Mapping[str, str]) -> Trader:
    """Orders carry no ``valid_until``: whatever a link holds back comes alive when it is let go. Drill 9 must say that an
    order was taken long after it was sent (law ``no_order_outlives_its_moment``).

    Real bugs look like this: an optional parameter, left out, because orders arrive at once on every good day.
    """

    def sabotage(trader: Trader) -> None:
        door = trader.desk._door
        honest = door._params
        graft(door, "_params", lambda turn, order: {
            key: value for key, value in honest(turn, order).items() if key != "valid_until"})

    return operate(environment, sabotage)


def takes_unknown_for_failed(environment: Mapping[str, str]) -> Trader:
    """What the exchange does not know is called failed at once, although it may still be under way: drill 9 must say that
    what was over was filled after all (law ``what_is_over_stays_over``).

    Real bugs look like this: *not found* has an error code, and error codes mean failure.
    """

    def sabotage(trader: Trader) -> None:
        desk = trader.desk

        def not_at_the_exchange(turn: Turn, order: Order) -> bool:
            order.ambiguous = False
            desk._unverified.pop(order.intent.intent_id, None)
            desk._advance(turn, order, "cancelled" if order.state == ACKED else "failed")
            return True

        graft(desk, "not_at_the_exchange", not_at_the_exchange)

    return operate(environment, sabotage)


def forgets_that_it_sent(environment: Mapping[str, str]) -> Trader:
    """That an order was sent is not recorded: drill 4 must say that an intent went out twice (``no_duplicate``).

    Real bugs look like this: the record of the intent was thought to be enough, until a restart read it.
    """

    def sabotage(trader: Trader) -> None:
        door = trader.desk._door
        honest = door._fact

        def fact(turn: Turn, row: dict[str, object]) -> None:
            if row["kind"] != "sent":
                honest(turn, row)

        graft(door, "_fact", fact)
        graft(trader.desk, "at_the_exchange", lambda order: None)

    return operate(environment, sabotage)


def trades_too_large(environment: Mapping[str, str]) -> Trader:
    """After a while what opens is a hundred times as large: drill 1 must say that an order was beyond what the policy
    allows (law ``within_scope_and_limits``).

    Real bugs look like this: amount, contracts, coins and dollars are all numbers, and an instrument's size is looked up
    in a table that was refreshed meanwhile.
    """

    def sabotage(trader: Trader) -> None:
        desk = trader.desk
        record, groups = desk.record, list[int]()

        def record_large(turn: Turn, intents: list[Intent], before: dict[str, object] | None = None) -> object:
            groups.append(turn.ts)
            by = 100 if len(groups) > RIGHT_AT_FIRST else 1
            return record(turn, [each if each.intent_class in REDUCING else replace(each, qty=each.qty * by)
                                 for each in intents], before)

        graft(desk, "record", record_large)

    return operate(environment, sabotage)


def pays_any_price(environment: Mapping[str, str]) -> Trader:
    """What opens is sent with a limit ten ticks beyond the one that was approved and recorded: drill 2 must say that the order
    was recorded otherwise (law ``recorded_before_dispatched``).

    Real bugs look like this: a buffer against missing the market is added where the request is written.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.desk._door._params

        def params(turn: Turn, order: Order) -> dict[str, object]:
            out, intent = dict(honest(turn, order)), order.intent
            if intent.intent_class == OPEN and not intent.post_only:
                off = 10 * trader.market.instruments[intent.instrument].tick_at(intent.price)
                out["price"] = float(intent.price + (off if intent.side == "buy" else -min(off, intent.price / 2)))
            return out

        graft(trader.desk._door, "_params", params)

    return operate(environment, sabotage)


def forgets_post_only(environment: Mapping[str, str]) -> Trader:
    """A quote is sent without ``post_only``, and may cross: drill 2 must say that the order was recorded otherwise
    (law ``recorded_before_dispatched``).

    Real bugs look like this: the flag is set on the object, and the encoder does not know it.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.desk._door._params
        graft(trader.desk._door, "_params", lambda turn, order: {
            key: value for key, value in honest(turn, order).items() if "post_only" not in key})

    return operate(environment, sabotage)
