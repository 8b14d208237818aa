"""Sabotages of the connection to the exchange."""

from __future__ import annotations

from collections.abc import Mapping

from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader
from system_under_test.trader.turn import Turn
from system_under_test.trader.venue import ORDERS, Link


def stays_down(environment: Mapping[str, str]) -> Trader:
    """A private link that was lost is never dialled again: drill 9 must say that it did not come back (``converge``).

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
