"""Sabotages of the open-permission latch."""

from __future__ import annotations

from collections.abc import Mapping

from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader
from system_under_test.trader.latch import PERMITTED, RESTART, Latch
from system_under_test.trader.turn import Turn

LONG_FROM_NOW = 1 << 62


def clears_without_reconciling(environment: Mapping[str, str]) -> Trader:
    """The latch clears when its dwell is over, and nothing is asked of the exchange meanwhile: drill 2 must say that it
    cleared without a reconciliation (law ``latch_cleared_only_after_reconciliation``).

    Real bugs look like this: reconciling needs the permission that the latch withholds, and the deadlock was "fixed".
    """

    def sabotage(trader: Trader) -> None:
        latch, run = trader.watch.latch, trader.reconciliation
        tick, honest_ts = run.tick, trader.watch.reconciled_ts

        def deaf() -> bool:
            return latch.blocked and RESTART not in latch.codes

        def tick_unless_latched(turn: Turn) -> None:
            if not deaf():
                tick(turn)
            else:
                run._next_ts = turn.ts + trader.settings.reconcile_interval_ms

        graft(run, "tick", tick_unless_latched)
        graft(trader.watch, "reconciled_ts", lambda: LONG_FROM_NOW if deaf() else honest_ts())

    return operate(environment, sabotage)


def starts_open(environment: Mapping[str, str]) -> Trader:
    """A start latches nothing: drill 4 must say that the restart was not latched (``latched``).

    Real bugs look like this: the flag is a field of a class, and its default is the good news.
    """

    def sabotage(trader: Trader) -> None:
        latch = trader.watch.latch
        honest = latch.set
        latch.state = PERMITTED
        latch._since.clear()
        graft(latch, "set", lambda code, now_ms, *, manual=False: code != RESTART and honest(code, now_ms, manual=manual))

    return operate(environment, sabotage)


def needs_no_operator(environment: Mapping[str, str]) -> Trader:
    """A session that the exchange ended latches like any other: drill 7 must say that it did not wait (``waits``).

    Real bugs look like this: one latch, two kinds, and a default argument that nobody passed on.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.watch.latch.set
        graft(trader.watch.latch, "set", lambda code, now_ms, *, manual=False: honest(code, now_ms))

    return operate(environment, sabotage)


def forgets_the_operator(environment: Mapping[str, str]) -> Trader:
    """What waits for an operator is forgotten by a restart: drill 7 must say that it did not wait (``waits``).

    Real bugs look like this: turning it off and on again clears what only a person should.
    """

    def sabotage(trader: Trader) -> None:
        trader.watch.latch = Latch()

    return operate(environment, sabotage)
