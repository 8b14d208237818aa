"""Sabotages of the clock gate."""

from __future__ import annotations

from collections.abc import Mapping

from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader


def trusts_its_clock(environment: Mapping[str, str]) -> Trader:
    """The wall clock is never found wrong: drill 11 must say that a step changed nothing (``stopped``).

    Real bugs look like this: the offset is measured once, at start.
    """

    def sabotage(trader: Trader) -> None:
        graft(trader.watch.clock, "tripped", lambda now: False)

    return operate(environment, sabotage)
