"""Sabotages of the launch limits."""

from __future__ import annotations

from collections.abc import Mapping

from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader
from system_under_test.trader.latch import RESTART
from system_under_test.trader.limits import Opening
from system_under_test.trader.policy import Refusal


def refuses_everything(environment: Mapping[str, str]) -> Trader:
    """Active, and every opening is refused, with a lawful code, once something had latched: drill 2 must say that it did
    not come back (``converge``).

    Real bugs look like this: a counter of the day that is never reset refuses for ever, and every light is green.
    """

    def sabotage(trader: Trader) -> None:
        limits, latch = trader.limits, trader.watch.latch
        honest, latched = limits.refuses, list[int]()

        def refuses(now_ms: int, opening: Opening) -> Refusal | None:
            return Refusal("PolicyLimitExceeded", "launch_limits", "max_daily_loss_usd") if latched else honest(now_ms, opening)

        set_ = latch.set

        def remember(code: str, now_ms: int | None, *, manual: bool = False) -> bool:
            latched.extend([1] if code != RESTART else [])
            return set_(code, now_ms, manual=manual)

        graft(limits, "refuses", refuses)
        graft(latch, "set", remember)

    return operate(environment, sabotage)
