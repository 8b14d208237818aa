"""Sabotages of the desk and the one door: how orders leave, and what is made of no answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader
from system_under_test.trader.intents import REDUCING, Intent
from system_under_test.trader.ledger import History
from system_under_test.trader.orders import Order
from system_under_test.trader.policy import ACTIVE
from system_under_test.trader.turn import Turn
from system_under_test.trader.venue import Lost


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
