"""The market that nobody trades in: index, marks, greeks and what market makers quote, all from a seed.

The index walks once a tick and is drawn back to its anchor, so that a fortnight's soak stays near the strikes. Everything
else is a pure function of (seed, instrument, tick), computed when somebody asks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from msgspec import Struct

from system_under_test.exchange import dice
from system_under_test.exchange.instruments import DAY_MS, Instrument

YEAR_MS = 365 * DAY_MS
_ANCHORS = {"btc_usd": 100_000.0, "eth_usd": 4_000.0}
_PULL = 1e-5
"""Share of the way home per tick: holds the walk within about one percent."""
_STEP = 2e-5
"""Largest relative step of the index in a tick: 2 USD at 100,000."""
_DATED_CARRY = 0.04
"""Yearly premium of a dated future."""
_VOLATILITY = 0.50
_LEVELS = 20


class Mark(Struct, frozen=True, gc=False):
    """What the exchange thinks an instrument is worth, in the instrument's own price unit."""

    price: float
    index: float
    forward: float
    delta: float
    """of one coin of option, or of one unit of future's coin value (1.0)"""
    gamma: float = 0.0
    vega: float = 0.0
    theta: float = 0.0
    rho: float = 0.0
    iv: float = 0.0
    """percent"""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a switch does to an instrument's quotes."""

    spread_bps: float | None = None
    depth_usd: float | None = None
    steps: int = 0
    """how far a thinned option's touch stands away, in steps of its price grid"""
    collapsed: bool = False


PLAIN = Shape()


def normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def normal_pdf(x: float) -> float:
    return math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def black(forward: float, strike: float, years: float, sigma: float, call: bool) -> Mark:
    """Black-76 without interest; price in coins (USD value over the forward), greeks per coin.

    vega is per percent of volatility, theta per day, both in USD, as the venue gives them.
    """
    root = math.sqrt(years)
    d1 = (math.log(forward / strike) + 0.5 * sigma * sigma * years) / (sigma * root)
    d2 = d1 - sigma * root
    sign = 1.0 if call else -1.0
    near, far = normal_cdf(sign * d1), normal_cdf(sign * d2)
    usd = sign * (forward * near - strike * far)
    density = normal_pdf(d1)
    return Mark(
        price=max(usd, 0.0) / forward,
        index=forward,
        forward=forward,
        delta=near if call else normal_cdf(d1) - 1.0,
        gamma=density / (forward * sigma * root),
        vega=forward * density * root / 100.0,
        theta=-forward * density * sigma / (2.0 * root) / 365.0,
        rho=sign * strike * years * far / 100.0,
        iv=sigma * 100.0,
    )


class Market:
    """Index and marks; a machine of numbers, no book."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._walks = {name: dice.stream(seed, f"index:{name}") for name in _ANCHORS}
        self._smile = dice.stream(seed, "volatility")
        self._salts: dict[str, int] = {}
        self._marks: dict[str, Mark] = {}
        self._sizes_of: dict[str, list[int]] = {}
        self.ticks = 0
        self.volatility = _VOLATILITY * 100.0
        """the volatility index, in points"""
        self._usd, self._home = dict(_ANCHORS), dict(_ANCHORS)
        for name, walk in self._walks.items():
            self._usd[name] *= 1.0 + (walk.random() - 0.5) * 0.002

    def tick(self, frozen: frozenset[str] = frozenset()) -> None:
        """One step of everything that moves. Marks of ``frozen`` instruments stay as they were."""
        self.ticks += 1
        for name, walk in self._walks.items():
            price = self._usd[name]
            price += price * (walk.random() - 0.5) * 2.0 * _STEP + (self._home[name] - price) * _PULL
            self._usd[name] = price
        self.volatility += (self._smile.random() - 0.5) * 0.02 + (_VOLATILITY * 100.0 - self.volatility) * 1e-3
        self._marks = {name: mark for name, mark in self._marks.items() if name in frozen} if frozen else {}

    def jump(self, name: str, share: float, frozen: frozenset[str] = frozenset()) -> None:
        """The index, and with it everything on it, is worth this share more (or less) from now on; so is its anchor."""
        for each in (self._usd, self._home):
            each[name.removesuffix("c")] *= 1.0 + share
        self._marks = {name: mark for name, mark in self._marks.items() if name in frozen}

    def index(self, name: str) -> float:
        return round(self._usd[name.removesuffix("c")], 2)

    @staticmethod
    def index_names() -> tuple[str, ...]:
        return ("btc_usd", "eth_usd", "btc_usdc", "eth_usdc")

    def mark(self, instrument: Instrument, wall_ms: int) -> Mark:
        """What it is worth at this tick."""
        mark = self._marks.get(instrument.name)
        if mark is None:
            mark = self._marks[instrument.name] = self._price(instrument, wall_ms)
        return mark

    def _price(self, instrument: Instrument, wall_ms: int) -> Mark:
        index = self._usd[instrument.walk]
        if instrument.perpetual:
            return Mark(round(index * 1.00002, 2), round(index, 2), index, 1.0)
        years = max(instrument.expires_ms - wall_ms, 60_000) / YEAR_MS
        forward = index * math.exp(_DATED_CARRY * years)
        if not instrument.option:
            return Mark(round(forward, 2), round(index, 2), forward, 1.0)
        skew = math.log(instrument.strike / forward)
        sigma = self.volatility / 100.0 + 0.35 * skew * skew - 0.05 * skew
        mark = black(forward, instrument.strike, years, sigma, instrument.call)
        return Mark(max(round(mark.price, 6), 0.000001), round(index, 2), forward, mark.delta, mark.gamma, mark.vega,
                    mark.theta, mark.rho, mark.iv)

    def usd_per_lot(self, instrument: Instrument, wall_ms: int) -> float:
        """What one lot at the mark costs: the amount for inverse futures, the premium for options."""
        coins = instrument.amount(1)
        if instrument.option:
            mark = self.mark(instrument, wall_ms)
            return coins * mark.price * mark.index
        return coins * self.mark(instrument, wall_ms).price if instrument.linear else coins

    @staticmethod
    def band(instrument: Instrument, mark: Mark) -> tuple[int, int]:
        """Lowest price to sell at and highest to buy at, in ticks, around what it is worth."""
        if instrument.option:
            low, high = max(mark.price - 0.04, instrument.price(1)), mark.price + 0.04
        else:
            low, high = mark.price * 0.985, mark.price * 1.015
        scale = instrument.tick[1] / instrument.tick[0]
        return instrument.ceil(math.ceil(low * scale - 1e-9)), instrument.floor(math.floor(high * scale + 1e-9))

    # ---- quotes

    def quotes(self, instrument: Instrument, wall_ms: int, shape: Shape = PLAIN) -> tuple[dict[int, int], dict[int, int]]:
        """What the market makers show at this tick: bids and asks, ticks → lots, best first."""
        if shape.collapsed:
            return {}, {}
        bid, ask = self._touch(instrument, wall_ms, shape)
        if shape.depth_usd is not None:
            lots = self._thin(instrument, wall_ms, shape.depth_usd)
            if instrument.option:  # few and far between
                for _ in range(shape.steps):
                    bid, ask = instrument.below(bid), instrument.above(ask)
            return self._ladder(instrument, bid, lots, False), self._ladder(instrument, ask, lots, True)
        levels = 5 if instrument.option else _LEVELS
        return self._side(instrument, bid, levels, False), self._side(instrument, ask, levels, True)

    def _touch(self, instrument: Instrument, wall_ms: int, shape: Shape) -> tuple[int, int]:
        """Best bid and ask in ticks."""
        middle = self.mark(instrument, wall_ms).price * instrument.tick[1] / instrument.tick[0]
        if shape.spread_bps is not None:
            half = middle * shape.spread_bps / 20_000
            return (max(instrument.floor(math.floor(middle - half)), 1), instrument.ceil(math.ceil(middle + half)))
        if not instrument.option:  # every tick is a lawful price of a future
            bid = max(math.floor(middle), 0)
            return bid, bid + (2 if dice.noise(self._salt(instrument), self.ticks // 8) < 0.3 else 1)
        bid = instrument.floor(max(math.floor(middle - 0.2), 0))
        ask = instrument.above(bid) if bid else 1
        while ask < middle:
            ask = instrument.above(ask)
        return bid, ask

    def _salt(self, instrument: Instrument) -> int:
        salt = self._salts.get(instrument.name)
        if salt is None:
            salt = self._salts[instrument.name] = dice.salt(self._seed, f"quotes:{instrument.name}")
        return salt

    def _side(self, instrument: Instrument, best: int, levels: int, ask: bool) -> dict[int, int]:
        """A full side. A level's size belongs to its price and changes every sixteenth tick, each at its own time."""
        sizes = self._sizes_of.get(instrument.name)
        if sizes is None:
            sizes = self._sizes_of[instrument.name] = self._sizes(instrument)
        ticks = self.ticks
        return {price: sizes[(price * 37 + ((ticks + price * 7) >> 4) * 11) & 1023]
                for price in self._grid(instrument, best, levels, ask)}

    @staticmethod
    def _grid(instrument: Instrument, best: int, levels: int, ask: bool) -> Iterable[int]:
        """The next lawful prices from ``best`` on, away from the middle."""
        if not instrument.steps:
            return range(best, best + levels) if ask else range(best, max(best - levels, 0), -1)
        step = instrument.step(best)
        end = best + levels * step if ask else best - levels * step
        if end > 0 and instrument.step(end) == step:
            return range(best, end, step if ask else -step)
        prices = []
        for _ in range(levels):
            if best <= 0:
                break
            prices.append(best)
            best = instrument.above(best) if ask else instrument.below(best)
        return prices

    def _sizes(self, instrument: Instrument) -> list[int]:
        """1,024 sizes in lots that levels may have: five levels of the perpetual exceed 400,000 USD."""
        base, spread = 100, 300
        if not instrument.option:
            usd = 80_000 if instrument.perpetual else 20_000
            lot_usd = instrument.amount(1) * (_ANCHORS[instrument.walk] if instrument.linear else 1.0)
            base = spread = max(int(usd / lot_usd), 1)
        salt = self._salt(instrument)
        return [base + int(spread * dice.noise(salt, at)) for at in range(1_024)]

    def _thin(self, instrument: Instrument, wall_ms: int, depth_usd: float) -> list[int]:
        """At most ``depth_usd`` a side over five levels, and one lot at least: a side of nothing is a collapsed book."""
        total = max(int(depth_usd / self.usd_per_lot(instrument, wall_ms)), 1)
        share = max(total // 5, 1)
        return [share] * min(5, total // share)

    @staticmethod
    def _ladder(instrument: Instrument, best: int, lots: list[int], ask: bool) -> dict[int, int]:
        return dict(zip(Market._grid(instrument, best, len(lots), ask), lots, strict=False))
