"""Bunker mode: the network to the exchange is too unsteady to take on new risk.

Entered when the 95th percentile of REST latency is too high on three evaluations in a row (one a second, over
30 s), when the last market-data message is too old, when too many requests time out, or when one of these cannot
be measured at all. Left only after everything has been good for ``bunker_exit_stable_s``. A grace at boot lets the
first measurements arrive (``specs/CONFLICTS.md``). Source: contract, section 2.2 (fact sheet 2.6).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from system_under_test.trader.settings import Settings

HTTP_WINDOW_MS = 30_000
TIMEOUT_WINDOW_MS = 60_000
EVALUATION_MS = 1_000
BREACHES_TO_ENTER = 3


class Bunker:
    """Whether the bunker is active, and the three measurements behind it."""

    def __init__(self, settings: Settings, booted_ms: int) -> None:
        self._settings = settings
        self._booted_ms = booted_ms
        self._latencies: deque[tuple[int, float]] = deque()
        self._requests: deque[tuple[int, bool]] = deque()
        self._timed_out = 0
        """how many of the requests timed out; kept, because it is asked every tick"""
        self._ws_ts_ms: int | None = None
        self._evaluated_ms = booted_ms
        self._breaches = 0
        self.p95_ms = 0.0
        """the percentile at the last evaluation; of the last window that held a request"""
        self._last_bad_ms: int | None = None
        self.active = False

    def http(self, now_ms: int, latency_ms: float) -> None:
        """A REST request was answered after so long, whatever the answer was."""
        self._latencies.append((now_ms, float(latency_ms)))
        self._requests.append((now_ms, False))

    def timeout(self, now_ms: int) -> None:
        """A REST request got no answer within its deadline. A refused dial is no time-out."""
        self._requests.append((now_ms, True))
        self._timed_out += 1

    def ws(self, now_ms: int) -> None:
        """A market-data message arrived. Heartbeats do not count."""
        self._ws_ts_ms = now_ms

    def tick(self, now_ms: int) -> bool:
        """Judge the measurements; True when the bunker is active."""
        latencies, requests = self._latencies, self._requests
        while latencies and latencies[0][0] < now_ms - HTTP_WINDOW_MS:
            latencies.popleft()
        while requests and requests[0][0] < now_ms - TIMEOUT_WINDOW_MS:
            self._timed_out -= requests.popleft()[1]
        if now_ms - self._evaluated_ms >= EVALUATION_MS:
            self._evaluated_ms = now_ms
            self._evaluate()
        bad = self._bad(now_ms)
        if bad or self._breaches >= BREACHES_TO_ENTER:
            self.active = True
        if bad or self._breaches:
            self._last_bad_ms = now_ms
        elif self.active and now_ms - (self._last_bad_ms or 0) >= self._settings.bunker_exit_stable_s * 1_000:
            self.active = False
        return self.active

    def lag_ms(self, now_ms: int) -> int:
        """Age of the last market-data message, ms; since boot before the first one."""
        heard_ms = self._booted_ms if self._ws_ts_ms is None else self._ws_ts_ms
        return now_ms - heard_ms if now_ms > heard_ms else 0

    def timeout_rate(self) -> float | None:
        """Share of requests of the last minute without an answer; None when there were none."""
        if not self._requests:
            return None
        return self._timed_out / len(self._requests)

    def _evaluate(self) -> None:
        if self._latencies:
            self.p95_ms = percentile_95([each for _, each in self._latencies])
            self._breaches = self._breaches + 1 if self.p95_ms > self._settings.bunker_http_p95_ms else 0

    def _bad(self, now_ms: int) -> bool:
        settings, heard_ms = self._settings, self._ws_ts_ms
        if (heard_ms is None or not self._requests or not self._latencies) and (
                now_ms - self._booted_ms > settings.bunker_grace_ms):
            return True
        if heard_ms is not None and now_ms - heard_ms > settings.bunker_jitter_threshold_ms:
            return True
        return self._timed_out > 0 and (self.timeout_rate() or 0.0) > settings.bunker_timeout_rate_pct


def percentile_95(values: Iterable[float]) -> float:
    """Nearest-rank 95th percentile of at least one value."""
    ordered = sorted(values)
    return float(ordered[math.ceil(0.95 * len(ordered)) - 1])
