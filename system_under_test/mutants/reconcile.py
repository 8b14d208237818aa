"""Sabotages of the reconciliation."""

from __future__ import annotations

from collections.abc import Mapping

from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader
from system_under_test.trader.turn import Turn


def asks_nobody(environment: Mapping[str, str]) -> Trader:
    """Once the first run has succeeded, every further one succeeds without a question: drill 9 must say that the latch
    cleared without a reconciliation on the exchange's books (``reconciled``).

    Real bugs look like this: what is compared with our book is a cache, and the cache is our book.
    """

    def sabotage(trader: Trader) -> None:
        run = trader.reconciliation
        honest = run._begin

        def begin(turn: Turn) -> None:
            if run.first:
                honest(turn)
                return
            run._next_ts = turn.ts + trader.settings.reconcile_interval_ms
            run.begun_ts = turn.ts
            run._end(turn, True, "")

        graft(run, "_begin", begin)

    return operate(environment, sabotage)


def skips_trades(environment: Mapping[str, str]) -> Trader:
    """Once the first run has succeeded, orders and positions are asked for, and trades are not: drill 9 must say that a
    fill was never counted (law ``every_fill_once``), and that nobody asked for trades (``reconciled``).

    Real bugs look like this: the positions agree, so what else could be missing.
    """

    def sabotage(trader: Trader) -> None:
        run = trader.reconciliation
        honest = run._ask_trades

        def ask_trades(turn: Turn, since: int) -> None:
            if run.first:
                honest(turn, since)
            else:
                run._trades_done = True

        graft(run, "_ask_trades", ask_trades)

    return operate(environment, sabotage)


def trusts_its_own_count(environment: Mapping[str, str]) -> Trader:
    """Positions of the exchange are asked for and not compared: drill 15 must say that nothing was latched
    (``mismatched``), and that the account stayed naked (law ``naked_exposure_passes``).

    Real bugs look like this: fills are counted exactly once, so the positions must be right.
    """

    def sabotage(trader: Trader) -> None:
        graft(trader.reconciliation, "_differences", dict)

    return operate(environment, sabotage)


def takes_over_in_silence(environment: Mapping[str, str]) -> Trader:
    """A position that nobody can explain is taken for the truth, and nothing is latched: drill 15 must say so
    (``mismatched``).

    Real bugs look like this: healing a difference is easy, so why bother anybody with it.
    """

    def sabotage(trader: Trader) -> None:
        run = trader.reconciliation
        graft(run, "_dispute", lambda turn, differences: run._take_over(turn, differences))

    return operate(environment, sabotage)


def skips_orders(environment: Mapping[str, str]) -> Trader:
    """Once the first run has succeeded, positions and trades are asked for, and open orders are not: drill 9 must say that
    nobody asked for them (``reconciled``).

    Real bugs look like this: our own book knows what rests; nobody else could have put an order there.
    """

    def sabotage(trader: Trader) -> None:
        run, venue = trader.reconciliation, trader.venue
        honest, begin = venue.rest, run._begin

        def rest(turn: Turn, method: str, params: Mapping[str, object], tag: tuple[object, ...]) -> bool:
            return (method == "private/get_open_orders_by_currency" and not run.first) or honest(turn, method, params, tag)

        def begin_without_orders(turn: Turn) -> None:
            begin(turn)
            if not run.first:
                run._orders = []

        graft(venue, "rest", rest)
        graft(run, "_begin", begin_without_orders)

    return operate(environment, sabotage)
