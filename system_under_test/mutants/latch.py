"""Sabotages of the open-permission latch."""

from __future__ import annotations

from collections.abc import Mapping

from system_under_test.mutants.surgery import altered, graft, operate
from system_under_test.trader import Trader
from system_under_test.trader.latch import PERMITTED, RESTART, Latch
from system_under_test.trader.turn import Turn
from system_under_test.trader.watch import DWELL

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


def forgets_to_dwell(environment: Mapping[str, str]) -> Trader:
    """Every latch clears at the first reconciliation, however new the good news is: drill 2 must say that it did not
    stay (``latched``).

    Real bugs look like this: dwells in milliseconds, read from a file that says seconds.
    """

    def sabotage(trader: Trader) -> None:
        hasty = dict.fromkeys(DWELL.values(), 0)
        graft(trader.watch, "_settings", altered(trader.settings, **hasty))

    return operate(environment, sabotage)


def clears_first(environment: Mapping[str, str]) -> Trader:
    """The latch clears when its dwell is over, and the reconciliation is begun in the same moment: drill 2 must say that
    the ledger's row came before it (law ``latch_cleared_only_after_reconciliation``).

    Real bugs look like this: two steps that belong together, in the wrong order, because the second one takes time.
    """

    def sabotage(trader: Trader) -> None:
        latch, run = trader.watch.latch, trader.reconciliation
        tick, clear, honest_ts = run.tick, latch.clear, trader.watch.reconciled_ts

        def deaf() -> bool:
            return latch.blocked and RESTART not in latch.codes

        def tick_unless_latched(turn: Turn) -> None:
            if not deaf():
                tick(turn)

        def clear_and_ask() -> tuple[str, ...]:
            run._next_ts = 0
            return clear()

        graft(run, "tick", tick_unless_latched)
        graft(latch, "clear", clear_and_ask)
        graft(trader.watch, "reconciled_ts", lambda: LONG_FROM_NOW if deaf() else honest_ts())

    return operate(environment, sabotage)


def never_latches(environment: Mapping[str, str]) -> Trader:
    """After its start nothing latches any more: drill 9 must say that the latch was not seen (``cut_off``).

    Real bugs look like this: the handler that sets it is registered for the first connection only.
    """

    def sabotage(trader: Trader) -> None:
        latch = trader.watch.latch
        honest = latch.set
        graft(latch, "set", lambda code, now_ms, *, manual=False: code == RESTART and honest(code, now_ms, manual=manual))

    return operate(environment, sabotage)


def keeps_opening(environment: Mapping[str, str]) -> Trader:
    """The latch is set, told and reconciled as it should be, and whoever wants to open does not ask it: drill 5 must say
    that risk was opened while it was set (``no_risk``).

    Real bugs look like this: a second way to the exchange, added later, for a strategy in a hurry.
    """

    def sabotage(trader: Trader) -> None:
        guard = trader.guard
        honest = guard.permit
        graft(guard, "permit", lambda snapshot, intent_class: honest(
            altered(snapshot, latch_blocked=False, latch_codes=()) if snapshot is not None else None, intent_class))

    return operate(environment, sabotage)


def holds_one_code(environment: Mapping[str, str]) -> Trader:
    """A latch that is set already takes no second reason: drill 9 must say that the silence of the data was not told
    (``stale``).

    Real bugs look like this: ``if latched: return``, which was right as long as there was one reason to latch.
    """

    def sabotage(trader: Trader) -> None:
        latch = trader.watch.latch
        honest = latch.set

        def set_once(code: str, now_ms: int | None, *, manual: bool = False) -> bool:
            return code in latch.codes and honest(code, now_ms, manual=manual) if latch.blocked else \
                honest(code, now_ms, manual=manual)

        graft(latch, "set", set_once)

    return operate(environment, sabotage)
