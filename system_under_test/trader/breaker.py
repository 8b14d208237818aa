"""The rate-limit breaker: what may still be asked of an exchange that has had enough of us.

A 429 browns out: questions about data are shed, opening is refused with ``RateLimitBrownout``, and the room that
is left goes to closing, cancelling and hedging. An answer 10028 ends the session: the kill flag stands until a
reconciliation has cleared the latch, and the counts of the last five minutes decide whether the guard believes
it. A token bucket keeps us within the exchange's credits; each priority leaves a reserve to the better ones.

Ends of sessions are in the ledger, so a restart neither lowers the count nor the flag. Once they confirm a Kill, it
stays until an operator has acknowledged it and a reconciliation has succeeded, and until then the count that
confirmed it is the least that is told: a Kill whose evidence has aged out of the window would contradict itself.

States are the table below; it equals ``specs/machines/breaker.yaml`` by test.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from system_under_test.trader.settings import Settings

KILL_CODE = "KILL_RATE_LIMIT_SESSION_TERMINATION"
"""The code by which an operator acknowledges a confirmed session kill."""

SESSION_CODE = "SESSION_TERMINATION_RECONCILE_REQUIRED"
"""The latch code whose clearing ends what the ends of sessions began."""

NORMAL = "Normal"
BROWNOUT = "Brownout"
TERMINATED = "Terminated"

TABLE: Mapping[tuple[str, str], str] = MappingProxyType({
    (NORMAL, "rate_limited"): BROWNOUT,
    (NORMAL, "session_ended"): TERMINATED,
    (BROWNOUT, "rate_limited"): BROWNOUT,
    (BROWNOUT, "session_ended"): TERMINATED,
    (BROWNOUT, "quiet"): NORMAL,
    (TERMINATED, "rate_limited"): TERMINATED,
    (TERMINATED, "session_ended"): TERMINATED,
    (TERMINATED, "reconciled"): BROWNOUT,
})

EMERGENCY_CLOSE, CANCEL, HEDGE, RECONCILE, OPEN, DATA = range(6)
"""Priorities, best first. RECONCILE is ours: the questions that recovering needs must outlive the storm."""

RESERVE: Mapping[int, float] = MappingProxyType({
    EMERGENCY_CLOSE: 0.0, CANCEL: 0.05, HEDGE: 0.10, RECONCILE: 0.20, OPEN: 0.30, DATA: 0.50,
})
"""Share of the bucket that a priority must leave to the better ones."""


class BreakerError(RuntimeError):
    """An event that the breaker does not know in its state. Nothing was changed."""


class Breaker:
    """The state, the two rolling counts and the bucket."""

    def __init__(self, settings: Settings, now_ms: int) -> None:
        self._settings = settings
        self.state = NORMAL
        self._rate_per_s = settings.rate_limit_default_per_s
        self._burst = settings.rate_limit_default_burst
        self._tokens = self._burst
        self._filled_ms = now_ms
        self._troubled_ms = now_ms
        self._429: deque[int] = deque()
        self._10028: deque[int] = deque()
        self._confirmed = 0
        """how many ends had confirmed a Kill that stands; 0: none does"""
        self._acknowledged = False

    def restore(self, rows: Iterable[Mapping[str, object]], now_ms: int) -> None:
        """The ends of sessions before the restart, and what became of them (rows ``session_end``, ``latch``, ``operator``)."""
        ended = False
        for row in rows:
            kind, code = row.get("kind"), row.get("code")
            if kind == "session_end":
                ended = True
                self._10028.append(min(int(str(row["ts"])), now_ms))
            elif kind == "latch" and code == KILL_CODE and row.get("event") == "set":
                self._confirmed, self._acknowledged = int(str(row["count"])), False
            elif kind == "operator" and code == KILL_CODE:
                self._acknowledged = True
            elif kind == "latch" and code == SESSION_CODE and row.get("event") == "cleared":
                ended, self._confirmed = False, 0
        if ended:
            self.state, self._troubled_ms = TERMINATED, self._10028[-1]

    def confirms(self, now_ms: int) -> int | None:
        """Whether the ends of sessions have just confirmed a Kill: how many there were (a row is due), else None."""
        count = self._count(self._10028, now_ms)
        if self._confirmed or self.state != TERMINATED or count < self._settings.rate_limit_kill_min_10028:
            return None
        self._confirmed, self._acknowledged = count, False
        return count

    @property
    def troubled_ms(self) -> int:
        """When the exchange last complained."""
        return self._troubled_ms

    @property
    def waits(self) -> bool:
        """Whether a confirmed session kill waits for an operator."""
        return self._confirmed > 0 and not self._acknowledged

    def acknowledge(self) -> None:
        """An operator has acknowledged the session kill; it ends with the next clean reconciliation."""
        self._acknowledged = True

    def answer_429(self, now_ms: int) -> bool:
        """The exchange answered 429 (or 10028 without ending the session). True when the state changed."""
        self._429.append(now_ms)
        return self._trouble("rate_limited", now_ms)

    def answer_10028(self, now_ms: int) -> bool:
        """The exchange answered 10028 and ended the session. True when the state changed."""
        self._10028.append(now_ms)
        return self._trouble("session_ended", now_ms)

    def reconciled(self, now_ms: int) -> bool:
        """The latch was cleared by a reconciliation: the session kill flag falls. What is left of the dwell since
        the exchange's last complaint is spent in brownout; a reconciliation is no new complaint."""
        if self.state != TERMINATED or self.waits:
            return False
        self.state, self._confirmed = self._next("reconciled"), 0
        self.tick(now_ms)
        return True

    def tick(self, now_ms: int) -> bool:
        """Time has passed. True when a quiet dwell has just ended the brownout."""
        if self.state == BROWNOUT and now_ms - self._troubled_ms >= self._settings.rate_limit_clear_dwell_ms:
            self.state = self._next("quiet")
            return True
        return False

    def limits(self, rate_per_s: float, burst: float, now_ms: int) -> None:
        """The account's own limits, as the exchange states them. Anything not positive is ignored."""
        if rate_per_s > 0 and burst > 0:
            self._refill(now_ms)
            self._rate_per_s, self._burst = rate_per_s, burst
            self._tokens = min(self._tokens, burst)

    @property
    def session_kill_active(self) -> bool:
        """Whether the exchange ended our session and nothing has been reconciled since."""
        return self.state == TERMINATED

    def count_429(self, now_ms: int) -> int:
        """429 answers within the counting window."""
        return self._count(self._429, now_ms) if self._429 else 0

    def count_10028(self, now_ms: int) -> int:
        """Session ends (10028) within the counting window; while a Kill stands, at least those that confirmed it."""
        count = self._count(self._10028, now_ms) if self._10028 else 0
        return count if count > self._confirmed else self._confirmed

    def refuses(self, priority: int, now_ms: int, cost: float = 1.0) -> str | None:
        """``RateLimitBrownout`` when a request of this priority may not go now, else None. Takes nothing."""
        if self.state != NORMAL and priority >= OPEN:
            return "RateLimitBrownout"
        self._refill(now_ms)
        left = self._tokens - cost
        return None if left >= RESERVE[priority] * self._burst - 1e-9 else "RateLimitBrownout"

    def take(self, priority: int, now_ms: int, cost: float = 1.0) -> bool:
        """Take from the bucket; False when this priority may not have it now."""
        if self.refuses(priority, now_ms, cost) is not None:
            return False
        self._tokens -= cost
        return True

    def _refill(self, now_ms: int) -> None:
        elapsed_ms = max(0, now_ms - self._filled_ms)
        self._tokens = min(self._burst, self._tokens + elapsed_ms * self._rate_per_s / 1_000)
        self._filled_ms = max(self._filled_ms, now_ms)

    def _count(self, times: deque[int], now_ms: int) -> int:
        while times and times[0] <= now_ms - self._settings.count_window_s * 1_000:
            times.popleft()
        return len(times)

    def _trouble(self, event: str, now_ms: int) -> bool:
        before, self.state = self.state, self._next(event)
        self._troubled_ms = now_ms
        return self.state != before

    def _next(self, event: str) -> str:
        state = TABLE.get((self.state, event))
        if state is None:
            raise BreakerError(f"{event} in {self.state}: not in the breaker's table")
        return state
