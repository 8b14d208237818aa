"""Sabotages of the connection to the exchange."""

from __future__ import annotations

from collections.abc import Mapping

from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader
from system_under_test.trader.turn import Turn
from system_under_test.trader.venue import ORDERS, Event, Link


def stays_down(environment: Mapping[str, str]) -> Trader:
    """A private link that was lost is never dialled again: drill 7 must say so (law ``links_come_back``).

    Real bugs look like this: reconnecting is done by the task that died of the disconnect.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.venue._dial

        def dial(turn: Turn, at: Link) -> None:
            if at.name != ORDERS or not at.granted:  # nothing was granted on it yet
                honest(turn, at)

        graft(trader.venue, "_dial", dial)

    return operate(environment, sabotage)


def leaves_orders_behind(environment: Mapping[str, str]) -> Trader:
    """Cancel-on-disconnect is never armed: drill 9 must say that nothing was cancelled while the links were cut
    (``swept``).

    Real bugs look like this: it is the venue's default elsewhere, and nobody noticed that here it is not.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.venue._handshake
        graft(trader.venue, "_handshake", lambda name: [
            step for step in honest(name) if step[0] != "private/enable_cancel_on_disconnect"])

    return operate(environment, sabotage)


def knows_one_way(environment: Mapping[str, str]) -> Trader:
    """What reduces waits for the order link, however often its session is ended: drill 14 must say that nothing was
    closed in Kill (``reducing``).

    Real bugs look like this: the second way to the exchange was built for questions, and nobody thought of orders.
    """

    def sabotage(trader: Trader) -> None:
        graft(trader.venue, "falls_back", lambda turn: False)

    return operate(environment, sabotage)


def redials_without_pause(environment: Mapping[str, str]) -> Trader:
    """A lost link is dialled again in every tick: drill 7 must say that connections came too often
    (law ``reconnects_back_off``).

    Real bugs look like this: the back-off is computed, logged, and not waited for.
    """

    def sabotage(trader: Trader) -> None:
        venue = trader.venue
        went_down = venue._went_down

        def at_once(turn: Turn, at: Link, why: str) -> list[Event]:
            events = went_down(turn, at, why)
            at.redial_mono = turn.mono
            return events

        graft(venue, "_went_down", at_once)
        graft(venue, "hold_off", lambda turn, link, for_ms: None)

    return operate(environment, sabotage)


def asks_on_and_on(environment: Mapping[str, str]) -> Trader:
    """What was refused for being one too many is asked again in the next tick: drill 10 must say that there were too many
    requests (law ``within_scope_and_limits``).

    Real bugs look like this: a retry helper around every request, with a delay of zero.
    """

    def sabotage(trader: Trader) -> None:
        polls = trader.polls
        honest = polls._again
        graft(polls, "_again", lambda turn, name, after_ms=0: honest(turn, name, 0))
        graft(trader.reconciliation, "_patience_ms", 0)
        unanswered = trader.reconciliation._unanswered

        def at_once(turn: Turn, why: str) -> None:
            unanswered(turn, why)
            trader.reconciliation._next_ts = turn.ts

        graft(trader.reconciliation, "_unanswered", at_once)

    return operate(environment, sabotage)


def hears_nothing_again(environment: Mapping[str, str]) -> Trader:
    """After a reconnect nobody subscribes to the news of orders: drill 7 must say that a session was used all the same
    (law ``sessions_armed``).

    Real bugs look like this: subscribing is done where the program starts, and the library dials by itself.
    """

    def sabotage(trader: Trader) -> None:
        venue = trader.venue
        honest = venue._handshake
        graft(venue, "_handshake", lambda name: [step for step in honest(name) if step[0] != "private/subscribe"
                                                 or name != ORDERS or venue.links[ORDERS].generation <= 1])

    return operate(environment, sabotage)
