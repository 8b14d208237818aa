"""The clock gate: does our wall clock agree with the exchange's, as far as a round trip can tell?

An answer of ``public/get_time`` that was asked at *a* and answered at *b* on the monotonic clock fixes the
exchange's clock to an interval: at some moment between them it read T, so its offset to our monotonic clock lies
in [T - b, T - a]. Wall time now minus monotonic time now must lie in it too; by how much it does not is drift
that no delay of the network can explain. Because both clocks are compared at every question, a step of the wall
clock shows at once and not only at the next sample.

Drift above ``time_drift_threshold_ms`` degrades the risk state, and so does having no usable sample for too long.
A clock never kills: a wrong clock is no reason to be unable to leave a position (fact sheet 2.3).
"""

from __future__ import annotations

from system_under_test.machine import Now
from system_under_test.trader.settings import Settings


class ClockGate:
    """The last usable sample, and what it says about the wall clock now. Uses the machine's own clocks."""

    def __init__(self, settings: Settings, now: Now) -> None:
        self._settings = settings
        self._sampled_ms = now.mono_ms
        self._offset_ms: tuple[int, int] | None = None

    def sample(self, asked_mono_ms: int, answered_mono_ms: int, exchange_ms: int) -> bool:
        """The exchange's clock, read between two moments. False when the round trip was too long to tell much."""
        if not 0 <= answered_mono_ms - asked_mono_ms <= self._settings.clock_sample_round_trip_max_ms:
            return False
        self._offset_ms = (exchange_ms - answered_mono_ms, exchange_ms - asked_mono_ms)
        self._sampled_ms = answered_mono_ms
        return True

    def drift_ms(self, now: Now) -> int | None:
        """Signed drift of our wall clock that the round trip cannot explain, ms; None before a first sample."""
        if self._offset_ms is None:
            return None
        earliest, latest = self._offset_ms
        ours = now.wall_ms - now.mono_ms
        if ours > latest:
            return ours - latest
        return ours - earliest if ours < earliest else 0

    def tripped(self, now: Now) -> bool:
        """Whether the wall clock is proven wrong, or has not been checked for too long."""
        drift = self.drift_ms(now)
        if drift is not None and abs(drift) > self._settings.time_drift_threshold_ms:
            return True
        return now.mono_ms - self._sampled_ms > self._settings.clock_sample_max_age_ms
