"""A sign of life: the watchdog's heartbeat, the loop's own tick. Lost at once, earned again slowly.

The guard asks how old the last sign is (contract, section 2.2.2: heartbeat and loop tick). After a silence beyond its
limit one sign proves little: what was asked during the silence is answered all at once when it ends. So the moment
that counts stays the last one before the silence, until signs have come steadily for a while.
"""

from __future__ import annotations


class Pulse:
    """``ts`` is the last sign that counts, monotonic-epoch ms; None before the first. All parameters are ms."""

    def __init__(self, *, lost_after_ms: int, steady_ms: int, dwell_ms: int) -> None:
        self._lost_after_ms, self._steady_ms, self._dwell_ms = lost_after_ms, steady_ms, dwell_ms
        self.ts: int | None = None
        self._last: int | None = None
        self._since = 0

    def beat(self, ts: int) -> None:
        """A sign came. Between two that are steady lie at most ``steady_ms``."""
        last, self._last = self._last, ts
        if self.ts is None or ts - self.ts <= self._lost_after_ms:
            self.ts = ts
        elif last is None or ts - last > self._steady_ms:
            self._since = ts
        elif ts - self._since >= self._dwell_ms:
            self.ts = ts
