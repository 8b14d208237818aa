"""Sabotages of the risk state."""

from __future__ import annotations

from collections.abc import Mapping

from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader


def takes_maintenance_for_failure(environment: Mapping[str, str]) -> Trader:
    """Maintenance is one more failure of the connection: drill 12 must say that the mode did not name it (``waiting``).

    Real bugs look like this: error codes are sorted into *retry* and *fatal*, and there is no third.
    """

    def sabotage(trader: Trader) -> None:
        causes = trader.watch.causes
        report, pulse = causes.report, causes.pulse
        graft(causes, "report", lambda cause, present, now_ms: cause != "maintenance" and report(cause, present, now_ms))
        graft(causes, "pulse", lambda cause, now_ms: pulse(
            "connection_lost" if cause == "maintenance" else cause, now_ms))

    return operate(environment, sabotage)


def never_recovers(environment: Mapping[str, str]) -> Trader:
    """Maintenance, once seen, is for ever: drill 12 must say that it did not come back (``converge``).

    Real bugs look like this: the flag is set by an announcement, and nobody announces the end.
    """

    def sabotage(trader: Trader) -> None:
        causes = trader.watch.causes
        honest, seen = causes.report, []

        def report(cause: str, present: bool, now_ms: int) -> bool:
            if cause == "maintenance":
                seen.extend([now_ms] if present else [])
                present = bool(seen)
            return honest(cause, present, now_ms)

        graft(causes, "report", report)

    return operate(environment, sabotage)
