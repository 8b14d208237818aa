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


def believes_the_paper(environment: Mapping[str, str]) -> Trader:
    """An approval whose digest fits is an approval: drill 8 must say that caps which somebody had raised let orders
    through (``raised_unnoticed``).

    Real bugs look like this: the digest is checked, and whoever can write the caps can write the digest.
    """

    def sabotage(trader: Trader) -> None:
        trader.limits._remembered = None

    return operate(environment, sabotage)


def looks_the_other_way(environment: Mapping[str, str]) -> Trader:
    """Caps are approved, remembered, and not compared with anything: drill 8 must say that what is too large was opened
    under the caps of micro-live (``tiny_opens``).

    Real bugs look like this: the limits of the policy are printed on the first page of every report.
    """

    def sabotage(trader: Trader) -> None:
        limits = trader.limits
        honest = limits.refuses

        def refuses(now_ms: int, opening: Opening) -> Refusal | None:
            refusal = honest(now_ms, opening)
            return refusal if refusal is not None and refusal.code == "PolicyNotApproved" else None

        graft(limits, "refuses", refuses)

    return operate(environment, sabotage)
