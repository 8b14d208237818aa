"""Sabotages of the gates before an intent is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader


def buys_at_any_price(environment: Mapping[str, str]) -> Trader:
    """Slippage has no limit: drill 13 must say that no order was refused for it (``slippage``).

    Real bugs look like this: a limit in basis points, compared with a fraction.
    """

    def sabotage(trader: Trader) -> None:
        graft(trader.gates, "_settings", replace(trader.settings, max_slippage_bps=1e9))

    return operate(environment, sabotage)
