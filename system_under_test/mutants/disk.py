"""Sabotages of what is known of the disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import structs

from system_under_test.mutants.surgery import graft, operate, retell
from system_under_test.trader import Trader
from system_under_test.trader.policy import Snapshot
from system_under_test.trader.turn import Turn


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


def kills_alone(environment: Mapping[str, str]) -> Trader:
    """One measure over the watermark kills, whatever the other says: drill 17 must say that the mode was not
    lawful (law ``status_lawful``).

    Real bugs look like this: the second measure is a field of the report, and not of the rule.
    """

    def sabotage(trader: Trader) -> None:
        watch = trader.watch
        honest = watch.snapshot

        def snapshot(turn: Turn) -> Snapshot:
            seen = honest(turn)
            return structs.replace(seen, disk_used_pct_secondary=1.0, disk_used_secondary_ts_ms=seen.now_ms)

        graft(watch, "decide", lambda turn, seen, decide=watch.decide: decide(turn, snapshot(turn)))
        graft(trader.desk, "_snapshot", snapshot)

    return operate(environment, sabotage)


def takes_one_for_both(environment: Mapping[str, str]) -> Trader:
    """Both readings come from the same measure, so that it confirms itself: drill 17 must say that the second one was
    not told (``unconfirmed``).

    Real bugs look like this: two calls of the same function under two names.
    """

    def sabotage(trader: Trader) -> None:
        watch = trader.watch
        honest = watch._disk_seen

        def seen(turn: Turn, source: str, value: bytes | None) -> None:
            if source == "disk_primary":
                honest(turn, source, value)
                honest(turn, "disk_secondary", value)

        graft(watch, "_disk_seen", seen)

    return operate(environment, sabotage)


def is_never_confirmed(environment: Mapping[str, str]) -> Trader:
    """The second measure counts for nothing, and Kill is never confirmed: drill 17 must say that it was due
    (law ``status_lawful``).

    Real bugs look like this: the corroborator is read once, before there was anything to corroborate.
    """

    def sabotage(trader: Trader) -> None:
        watch = trader.watch
        honest = watch.snapshot

        def snapshot(turn: Turn) -> Snapshot:
            return structs.replace(honest(turn), disk_used_pct_secondary=0.0)

        graft(watch, "decide", lambda turn, seen, decide=watch.decide: decide(turn, snapshot(turn)))
        graft(trader.desk, "_snapshot", snapshot)

    return operate(environment, sabotage)


def knows_one_watermark(environment: Mapping[str, str]) -> Trader:
    """Nothing happens below the watermark that kills: drill 17 must say that the first one was passed (``degraded``).

    Real bugs look like this: only the alarm of the highest level is wired.
    """
    return operate(environment, lambda trader: graft(trader.watch.causes, "disk", lambda used_pct, now_ms: None))


def stays_high(environment: Mapping[str, str]) -> Trader:
    """A watermark that was passed is never left again: drill 17 must say that trading was not resumed (``eased``).

    Real bugs look like this: the hysteresis compares with the wrong end.
    """

    def sabotage(trader: Trader) -> None:
        causes = trader.watch.causes
        honest = causes.disk
        graft(causes, "disk", lambda used_pct, now_ms: honest(max(
            used_pct, trader.settings.disk_pause_archives_pct if "disk_watermark" in causes.present else 0), now_ms))

    return operate(environment, sabotage)
