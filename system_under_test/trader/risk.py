"""The risk state: what is wrong with the machinery, as named causes that each end by their own dwell.

Degrading is immediate, recovering is slow: a cause counts while it is present and for its dwell after it was
last present. The state is the worst of the causes. Gaps and silence of market data are no causes here, they
latch opening instead; the source's second example shows a stale feed with a Healthy risk state (DESIGN, 9.2).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from system_under_test.trader.settings import Settings

HEALTHY = "Healthy"
DEGRADED = "Degraded"
MAINTENANCE = "Maintenance"
KILL = "Kill"
SEVERITY = (HEALTHY, DEGRADED, MAINTENANCE, KILL)
"""From good to bad. Maintenance outranks Degraded: it explains the failures that come with it."""

NOTHING: frozenset[str] = frozenset()

MANUAL_CODE = "KILL_RISKSTATE_KILL"
"""The code by which an operator acknowledges a MANUAL cause."""


@dataclass(frozen=True, slots=True)
class Cause:
    """What a cause does to the risk state, how long it lasts, and what the owner's view calls it."""

    state: str
    dwell: str | None = None
    """policy key of its clear dwell in ms; None ends at once"""
    owner: str | None = None
    manual: bool = False
    """stays until an operator acknowledges it, across restarts"""


CAUSES: Mapping[str, Cause] = MappingProxyType({
    "max_loss": Cause(KILL, owner="max_loss", manual=True),
    "maintenance": Cause(MAINTENANCE, "maintenance_clear_dwell_ms"),
    "wal_backpressure": Cause(DEGRADED, "wal_clear_dwell_ms", "wal"),
    "loop_lag": Cause(DEGRADED, "loop_clear_dwell_ms"),
    "mixed_failed": Cause(DEGRADED, "containment_cooldown_ms", "containment"),
    "session_terminated": Cause(DEGRADED, "session_clear_dwell_ms", "session_terminated"),
    "connection_lost": Cause(DEGRADED, "session_clear_dwell_ms", "connection_lost"),
    "rate_limited": Cause(DEGRADED, "rate_limit_clear_dwell_ms", "rate_limited"),
    "clock_drift": Cause(DEGRADED, "clock_clear_dwell_ms", "clock_drift"),
    "contracts_mismatch": Cause(DEGRADED, owner="order_invariant"),
    "label": Cause(DEGRADED, owner="order_invariant"),
    "instrument_stale": Cause(DEGRADED, owner="instruments"),
    "limits_fetch": Cause(DEGRADED, owner="limits"),
    "disk_watermark": Cause(DEGRADED, owner="disk"),
    "fee_hard_stale": Cause(DEGRADED),
})
"""Every cause (fact sheet 2.7 and its gaps; DESIGN 9.2). One machine has no lock to wait for; what waits for its turn
is a queue too, whose length shows as a late one; a missing limit in the policy refuses the start. So two of the contract
cannot occur here."""


def risk_state(causes: Iterable[str]) -> str:
    """The worst that the causes say; Healthy without any. An unknown name is Degraded: doubt is not health."""
    worst = 0
    for name in causes:
        cause = CAUSES.get(name)
        worst = max(worst, SEVERITY.index(cause.state if cause else DEGRADED))
    return SEVERITY[worst]


class Causes:
    """Which causes are live. Fed each tick or event; asked for the state at a moment."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.present: set[str] = set()
        """causes that were present when they were last reported"""
        self._until: dict[str, int] = {}
        self._last_until = 0
        """the latest of them: after it no cause is left that is not present"""
        self._manual: set[str] = set()
        self._limit_failures: deque[int] = deque()

    def restore(self, rows: Iterable[Mapping[str, object]]) -> None:
        """MANUAL causes that nobody acknowledged before the restart (ledger rows ``latch`` and ``operator``)."""
        for row in rows:
            if row.get("code") != MANUAL_CODE:
                continue
            cause = row.get("cause")
            if row.get("kind") == "operator":
                self._manual.clear()
            elif row.get("event") == "set" and isinstance(cause, str) and cause in CAUSES:
                self._manual.add(cause)

    def report(self, cause: str, present: bool, now_ms: int) -> bool:
        """The cause is present now, or is not. True when a MANUAL cause has just been set (a row is due)."""
        known = CAUSES[cause]
        if known.manual:
            fresh = present and cause not in self._manual
            if fresh:
                self._manual.add(cause)
            return fresh
        if present:
            self.present.add(cause)
            self._lasts(cause, now_ms)
        elif cause in self.present:
            self.present.discard(cause)
            self._lasts(cause, now_ms)
        return False

    def pulse(self, cause: str, now_ms: int) -> None:
        """The cause happened at this moment; it lasts its dwell."""
        if cause not in self.present:
            self._lasts(cause, now_ms)

    def _lasts(self, cause: str, now_ms: int) -> None:
        """It is, or was, present at this moment: it goes on for its dwell."""
        dwell = CAUSES[cause].dwell
        self._until[cause] = until = now_ms + (int(getattr(self._settings, dwell)) if dwell else 0)
        self._last_until = max(self._last_until, until)

    def disk(self, used_pct: float | None, now_ms: int) -> None:
        """Degraded from 0.85 until use falls below 0.80, so that the watermark does not flutter."""
        if used_pct is None:
            return
        bad = "disk_watermark" in self.present
        limit = self._settings.disk_pause_archives_pct if bad else self._settings.disk_degraded_pct
        self.report("disk_watermark", used_pct >= limit, now_ms)

    def limits(self, fetched: bool, now_ms: int) -> None:
        """The account's limits were fetched, or were not: three failures within the window degrade (AT-106)."""
        if fetched:
            self._limit_failures.clear()
        else:
            self._limit_failures.append(now_ms)
        oldest = now_ms - self._settings.limits_fetch_failure_window_s * 1_000
        while self._limit_failures and self._limit_failures[0] < oldest:
            self._limit_failures.popleft()
        tripped = len(self._limit_failures) >= self._settings.limits_fetch_failures_trip_count
        self.report("limits_fetch", tripped, now_ms)

    def acknowledge(self) -> None:
        """An operator has acknowledged the MANUAL causes; the latch still asks for a reconciliation."""
        self._manual.clear()

    @property
    def manual(self) -> tuple[str, ...]:
        """MANUAL causes that wait for an operator."""
        return tuple(sorted(self._manual))

    def active(self, now_ms: int) -> tuple[str, ...]:
        """The live causes, in the order of the table."""
        live = {name for name, until in self._until.items() if now_ms < until} | self.present | self._manual
        return tuple([name for name in CAUSES if name in live] if len(live) > 1 else live)

    def state(self, now_ms: int) -> str:
        """The risk state at this moment."""
        return HEALTHY if self._calm(now_ms) else risk_state(self.active(now_ms))

    def owner(self, now_ms: int) -> frozenset[str]:
        """The live causes in the owner section's words."""
        if self._calm(now_ms):
            return NOTHING
        return frozenset([each for name in self.active(now_ms) if (each := CAUSES[name].owner) is not None])

    def _calm(self, now_ms: int) -> bool:
        """Whether no cause is live, as it is most of the time."""
        return now_ms >= self._last_until and not self.present and not self._manual
