"""Sabotages of what is known of the disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from system_under_test.mutants.surgery import graft, operate, retell
from system_under_test.trader import Trader


def looks_once(environment: Mapping[str, str]) -> Trader:
    """The disk is measured at the start and never again, and the measurement passes for new: some drill must say that its
    time stamp stands still (law ``disk_is_looked_at``).

    Real bugs look like this: the measuring task died, and the gauge shows its last value.
    """
    first: dict[str, Any] = {}

    def tell(trader: Trader, document: dict[str, Any]) -> dict[str, Any]:
        for key in ("disk_used_last_update_ts_ms", "disk_used_secondary_last_update_ts_ms"):
            if document[key]:
                first.setdefault(key, document[key])
        return {**document, **first}

    return retell(environment, tell)


def tells_per_cent(environment: Mapping[str, str]) -> Trader:
    """Use of the disk is told in per cent: every drill must say that a document breaks its contract (law
    ``status_lawful``).

    Real bugs look like this: the field is called ``_pct``.
    """
    return retell(environment, lambda trader, document: {
        **document, "disk_used_pct": 100 * document["disk_used_pct"],
        "disk_used_pct_secondary": 100 * document["disk_used_pct_secondary"]})


def shrugs_off_refusals(environment: Mapping[str, str]) -> Trader:
    """That records wait for the disk changes no risk state: drill 3 must say that the mode did not follow (``full``).

    Real bugs look like this: the queue's depth is a metric, and nobody has an alarm on it.
    """

    def sabotage(trader: Trader) -> None:
        causes = trader.watch.causes
        honest = causes.report
        graft(causes, "report", lambda cause, present, now_ms: cause != "wal_backpressure" and honest(cause, present, now_ms))

    return operate(environment, sabotage)


def hides_the_backlog(environment: Mapping[str, str]) -> Trader:
    """The depth of the queue is told as nothing: drill 3 must say that it was not seen (``full``).

    Real bugs look like this: the gauge is set when the queue is drained, and then it is empty.
    """
    return retell(environment, lambda trader, document: {**document, "wal_queue_depth": 0})
