"""Sabotages of the cortex."""

from __future__ import annotations

from collections.abc import Mapping

from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader
from system_under_test.trader.cortex import FORCE_KILL, FORCE_REDUCE_ONLY


def shrugs_off_tokens(environment: Mapping[str, str]) -> Trader:
    """A word that no registry knows is passed over: drill 8 must say that Kill was not seen (``killed``).

    Real bugs look like this: an ``else`` that means *probably fine*.
    """

    def sabotage(trader: Trader) -> None:
        graft(trader.watch.cortex, "unknown_token", lambda token: False)

    return operate(environment, sabotage)


def forgets_tokens(environment: Mapping[str, str]) -> Trader:
    """A restart forgets the unknown word: drill 8 must say that Kill did not survive it (``survives``).

    Real bugs look like this: a supervisor restarts what has stopped, and so undoes why it stopped.
    """

    def sabotage(trader: Trader) -> None:
        trader.watch.cortex._tokens.clear()

    return operate(environment, sabotage)


def never_kills(environment: Mapping[str, str]) -> Trader:
    """An unusable market only ever stops opening: drill 13 must say that Kill was not seen (``killed``).

    Real bugs look like this: two thresholds, and the second is asked about only where the first did not hold.
    """

    def sabotage(trader: Trader) -> None:
        cortex = trader.watch.cortex
        honest = cortex.override

        def override(now_ms: int) -> str:
            worst = honest(now_ms)
            return FORCE_REDUCE_ONLY if worst == FORCE_KILL else worst

        graft(cortex, "override", override)

    return operate(environment, sabotage)


def kills_at_first_sight(environment: Mapping[str, str]) -> Trader:
    """An unusable market ends all trading in the moment that it is seen, and not after its window: drill 13 must say that Kill
    came too early (``not_at_once``).

    Real bugs look like this: the window is in seconds, and zero of them where the configuration names it otherwise.
    """

    def sabotage(trader: Trader) -> None:
        micro = trader.watch.cortex._micro
        graft(micro._wide, "_window_ms", 0)
        graft(micro._thin, "_window_ms", 0)

    return operate(environment, sabotage)
