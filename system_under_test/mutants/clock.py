"""Sabotages of the clock gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from system_under_test.machine import Now, Value
from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader


def trusts_its_clock(environment: Mapping[str, str]) -> Trader:
    """The wall clock is never found wrong: drill 11 must say that a step changed nothing (``stopped``).

    Real bugs look like this: the offset is measured once, at start.
    """

    def sabotage(trader: Trader) -> None:
        graft(trader.watch.clock, "tripped", lambda now: False)

    return operate(environment, sabotage)


def is_generous_to_its_clock(environment: Mapping[str, str]) -> Trader:
    """The clock may be off by four times as much: drill 11 must say that its drift was noticed too late (``drifted``).

    Real bugs look like this: a threshold was loosened for one noisy machine, and shipped.
    """

    def sabotage(trader: Trader) -> None:
        clock = trader.watch.clock
        graft(clock, "_settings", replace(clock._settings, time_drift_threshold_ms=4 * clock._settings.time_drift_threshold_ms))

    return operate(environment, sabotage)


def stamps_by_the_wall(environment: Mapping[str, str]) -> Trader:
    """Every stamp is taken from the wall clock anew: drill 11 must say that a time stamp ran backwards
    (law ``timestamps_monotone``).

    Real bugs look like this: ``time.time()``.
    """
    trader = Trader(environment)
    honest = trader.handle

    def handle(now: Now, value: Value) -> tuple[Value, ...]:
        if trader._anchor is not None:
            trader._anchor = now.wall_ms - now.mono_ms
        return honest(now, value)

    graft(trader, "handle", handle)
    return trader
