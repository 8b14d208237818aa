"""Bars: how prices moved lately, and what that says about a portfolio: its deviation, and its worst outcomes.

Every so often the prices are noted; a bar is the return since the note before. A bar that became longer than it should,
because the loop or the feed stood still, is scaled back to its length, so that an outage is no jump. Recent bars weigh
more, by a half-life; means are taken off. Plain sums over a short window: a few microseconds a bar, once per publish.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache
from operator import mul

Z = {0.90: 1.2816, 0.95: 1.6449, 0.975: 1.96, 0.99: 2.3263, 0.995: 2.5758, 0.999: 3.0902}
"""Quantiles of the normal distribution, as the source has them."""

DAY_MS = 86_400_000
DAYS_A_YEAR = 252

MOVE_MAX = 1e3
"""No bar moves by more than this, whatever an exchange says: squares of what it might say are no numbers any more."""

TAIL_BARS_MIN = 20
"""With fewer bars of an asset than this its tail is not known, and told as 0 (the source's rule)."""


class Bars:
    """The last returns of every asset, a column each; None in bars of before an asset was known."""

    def __init__(self, bar_ms: int, window: int, half_life: int) -> None:
        self._bar_ms, self._window, self._half_life = bar_ms, window, half_life
        self.columns: dict[str, deque[float | None]] = {}
        """oldest first, all of the same length"""
        self._moved: dict[str, deque[float]] = {}
        """the same, without a move in a bar of before an asset was known"""
        self._ranked: dict[str, list[float]] = {}
        """the returns that are known, worst first: kept so bar by bar, because the worst are asked for with every publish"""
        self.count = 0
        self._ts: int | None = None
        self._prices: Mapping[str, float] = {}
        self.day = math.sqrt(DAY_MS / bar_ms)
        """a day's deviation is a bar's times this"""

    @property
    def started(self) -> bool:
        """Whether prices were noted before, so that the next note makes a bar."""
        return self._ts is not None

    def due(self, ts: int) -> bool:
        """Whether it is time for a note."""
        return self._ts is None or ts - self._ts >= self._bar_ms

    def note(self, ts: int, prices: Mapping[str, float]) -> None:
        """The prices now, by asset, all in the same money."""
        if self._ts is not None:
            scale, before = math.sqrt(self._bar_ms / (ts - self._ts)), self._prices
            self._append({name: min((price / before[name] - 1.0) * scale, MOVE_MAX)
                          for name, price in prices.items() if name in before})
        self._ts, self._prices = ts, {name: price for name, price in prices.items() if 0 < price < math.inf}

    def _append(self, bar: Mapping[str, float]) -> None:
        for name in bar:
            if name not in self.columns:
                self.columns[name] = deque([None] * self.count, self._window)
                self._moved[name], self._ranked[name] = deque([0.0] * self.count, self._window), []
        full, self.count = self.count == self._window, min(self.count + 1, self._window)
        for name, column in list(self.columns.items()):
            ranked, oldest, latest = self._ranked[name], column[0] if full else None, bar.get(name)
            column.append(latest)
            self._moved[name].append(latest or 0.0)
            if oldest is not None:
                ranked.remove(oldest)
            if latest is not None:
                insort(ranked, latest)
            elif not ranked:
                del self.columns[name], self._moved[name], self._ranked[name]  # nobody has asked for it for a whole window

    def covariance(self, assets: Sequence[str]) -> list[list[float]]:
        """Of a day's returns, weighted by age, means taken off. An asset without a bar did not move in it."""
        weights = _weights(self.count, self._window, self._half_life)
        centred, scale = [], self.day * self.day
        for name in assets:
            column = self._moves(name)
            mean = sum(map(mul, weights, column))
            centred.append([each - mean for each in column])
        upper = {(a, b): sum(map(mul, map(mul, weights, centred[a]), centred[b])) * scale
                 for a in range(len(assets)) for b in range(a, len(assets))}
        return [[upper[min(a, b), max(a, b)] for b in range(len(assets))] for a in range(len(assets))]

    def tail(self, weights: Mapping[str, float], confidence: float) -> float:
        """Mean loss of the worst outcomes of a day for these weights; never below 0, and 0 while too little is known."""
        if len(weights) == 1:
            ((name, weight),) = weights.items()
            moves = self._ranked.get(name, ())
            count, worst = len(moves), _worst(len(moves), confidence)
            outcomes = [weight * each for each in (moves[:worst] if weight > 0 else moves[::-1][:worst])]
        else:
            known = [[weight * each for each in self._moved[name]] for name, weight in weights.items() if name in self._moved]
            every: list[float] = sorted([sum(each) for each in zip(*known, strict=True)])
            count, worst = len(every), _worst(len(every), confidence)
            outcomes = every[:worst]
        if count < TAIL_BARS_MIN:
            return 0.0
        return max(0.0, -sum(outcomes) / worst * self.day)

    def _moves(self, name: str) -> Sequence[float]:
        return self._moved[name] if name in self._moved else [0.0] * self.count


def _worst(count: int, confidence: float) -> int:
    """How many outcomes make up the tail."""
    return max(1, int(count * (1 - confidence)))


@lru_cache(maxsize=4)
def _raw_weights(window: int, half_life: int) -> tuple[float, ...]:
    """Of a full window, oldest first; the last is 1."""
    return tuple([0.5 ** (age / half_life) for age in range(window - 1, -1, -1)])


@lru_cache(maxsize=64)
def _weights(count: int, window: int, half_life: int) -> tuple[float, ...]:
    """Of the bars, oldest first; their sum is 1."""
    raw = _raw_weights(window, half_life)[window - count:]
    total = sum(raw)
    return tuple([each / total for each in raw])


def deviation(weights: Sequence[float], covariance: Sequence[Sequence[float]]) -> float:
    """``sqrt(w' Cov w)``."""
    variance = sum(weight * sum(map(mul, row, weights)) for weight, row in zip(weights, covariance, strict=True))
    return math.sqrt(max(0.0, variance))
