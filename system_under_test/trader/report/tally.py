"""What was wanted, sent, filled and refused, counted where it happens: since this life began, and over the last 24 hours."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

MINUTE_MS = 60_000
DAY_MS = 86_400_000
UNKNOWN = "unknown"


@dataclass(slots=True)
class Sums:
    """Orders that left, those of them that were filled at least in part, and refusals by code."""

    begin_ts: int
    orders: int = 0
    filled: int = 0
    vetoes: Counter[str] = field(default_factory=Counter)


class Tally:
    """Times in monotonic-epoch ms; None before the first of its kind in this life."""

    def __init__(self) -> None:
        self.since_ts = 0
        """when this life began"""
        self.signals = self.orders = 0
        self.vetoes: Counter[str] = Counter()
        """refusals of wishes and intents of this life, by code"""
        self.signal_ts: int | None = None
        self.order_ts: int | None = None
        self.veto_ts: int | None = None
        self.router_ts: int | None = None
        """when an order last left, or the exchange last said something about one"""
        self._minutes: deque[Sums] = deque()
        self._day = Sums(0)

    def signal(self, ts: int) -> None:
        """The strategy wants something."""
        self.signals += 1
        self.signal_ts = ts

    def order(self, ts: int) -> None:
        """An order has left by the door."""
        self.orders += 1
        self.order_ts = self.router_ts = ts
        for sums in self._now(ts):
            sums.orders += 1

    def veto(self, ts: int, code: str) -> None:
        """A wish or an intent does not go on."""
        reason = code or UNKNOWN
        self.vetoes[reason] += 1
        self.veto_ts = ts
        for sums in self._now(ts):
            sums.vetoes[reason] += 1

    def fill(self, ts: int, *, first_of: int | None) -> None:
        """A fill that counts. ``first_of``: it is the first of an order that was sent at this time, which makes that one an
        order that was executed, in the minute that it was sent; what an earlier life sent is not among this one's orders."""
        self.router_ts = ts
        if first_of is None or first_of < self.since_ts:
            return
        for minute in reversed(self._minutes):
            if minute.begin_ts <= first_of:
                minute.filled += 1
                self._day.filled += 1
                return

    def day(self, ts: int) -> Sums:
        """The sums of the last 24 hours, to the minute."""
        while self._minutes and self._minutes[0].begin_ts <= ts - DAY_MS:
            gone, day = self._minutes.popleft(), self._day
            day.orders -= gone.orders
            day.filled -= gone.filled
            day.vetoes -= gone.vetoes
        return self._day

    def _now(self, ts: int) -> tuple[Sums, Sums]:
        begin = ts - ts % MINUTE_MS
        if not self._minutes or self._minutes[-1].begin_ts != begin:
            self._minutes.append(Sums(begin))
        return self._minutes[-1], self._day
