"""``router_health.json``: how well orders were executed lately, over all and per symbol (v7.6 state contract).

What is measured of an order as it goes: the middle and the spread when it left, how long the exchange took to answer,
what was filled and at what price against that middle. Each belongs to the moment the order left, and time alone takes
it out of the window again; sums are kept by adding and taking away, so that a publish costs the same on every day.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from system_under_test.trader.market import Market
from system_under_test.trader.orders import Order
from system_under_test.trader.quantize import OPTION
from system_under_test.trader.registry import Trade
from system_under_test.trader.report.view import View, iso
from system_under_test.trader.settings import Settings
from system_under_test.trader.turn import Turn

BASE, LEAST, MOST, WITHOUT_TWAP = 0.8, 0.2, 1.0, 0.10
BUCKETS = {"A_HIGH": 0.0, "B_MEDIUM": -0.05, "C_LOW": -0.15}
DRIFTS = {"GREEN": 0.0, "YELLOW": -0.05, "RED": -0.12}
LATENCIES = {"FAST": 0.0, "NORMAL": -0.03, "SLOW": -0.08}
SPREADS_BPS = ((5.0, "A_HIGH"), (25.0, "B_MEDIUM"))
"""Ours: the source takes a symbol's bucket from a table; here it is how wide its book was when orders left."""
GOOD, FAIR, DEGRADED = 0.9, 0.5, 0.2
BPS = 10_000.0
CHILDREN_MAX = 50_000
TWAP = 0.0
"""The reference trader cuts no order into slices."""


@dataclass(slots=True)
class Child:
    """One order on its way. ``half_bps`` is half the spread when it left: what crossing it should cost."""

    symbol: str
    ts: int
    middle: float | None
    half_bps: float
    usd_per_unit: float
    asked: float
    immediate: bool
    fallback: bool
    latency_ms: int | None = None
    filled: float = 0.0
    fills: int = 0
    slipped: float = 0.0
    """slippage in basis points, times what was filled in USD"""


@dataclass(slots=True)
class Sums:
    """What the window holds of one symbol."""

    orders: int = 0
    fallbacks: int = 0
    children: int = 0
    asked: float = 0.0
    got: float = 0.0
    """of children: asked and filled, in the instrument's unit"""
    answers: int = 0
    latency_ms: int = 0
    fills: int = 0
    notional: float = 0.0
    slipped: float = 0.0
    expected: float = 0.0
    spreads: int = 0
    half_bps: float = 0.0
    last_order_ts: int | None = None
    last_fill_ts: int | None = None

    def ordered(self, child: Child, sign: int) -> None:
        self.orders += sign
        self.fallbacks += sign * child.fallback
        self.children += sign * child.immediate
        self.asked += sign * child.asked * child.immediate
        if child.middle is not None:
            self.spreads += sign
            self.half_bps += sign * child.half_bps

    def answered(self, child: Child, sign: int) -> None:
        if child.latency_ms is not None:
            self.answers += sign
            self.latency_ms += sign * child.latency_ms

    def filled(self, child: Child, sign: int, qty: float, fills: int, slipped: float) -> None:
        self.fills += sign * fills
        self.got += sign * qty * child.immediate
        if child.middle is not None:
            self.notional += sign * qty * child.usd_per_unit
            self.slipped += sign * slipped
            self.expected += sign * qty * child.usd_per_unit * child.half_bps


@dataclass(slots=True)
class Quality:
    """The metrics of one symbol, or of all; None where nothing was measured."""

    slippage_bps: float | None
    drift_bps: float | None
    latency_ms: float | None
    bucket: str
    drift: str = field(init=False)
    latency: str = field(init=False)
    score: float = field(init=False)

    def __post_init__(self) -> None:
        drift, latency = self.drift_bps or 0.0, self.latency_ms or 0.0
        self.drift = "GREEN" if drift <= 2.0 else "YELLOW" if drift <= 6.0 else "RED"
        self.latency = "FAST" if latency <= 150.0 else "NORMAL" if latency <= 400.0 else "SLOW"
        raw = BASE + BUCKETS[self.bucket] + DRIFTS[self.drift] + LATENCIES[self.latency] - WITHOUT_TWAP * (1 - TWAP)
        self.score = min(MOST, max(LEAST, raw))

    def document(self) -> dict[str, Any]:
        return {
            "quality_score": self.score, "avg_slippage_bps": self.slippage_bps, "slippage_drift_bps": self.drift_bps,
            "slippage_drift_bucket": self.drift, "avg_latency_ms": self.latency_ms, "latency_bucket": self.latency,
            "twap_usage_ratio": TWAP, "router_bucket": self.bucket,
        }


class Found(NamedTuple):
    """What a window says, undated: over all, by symbol, and how many symbols are how good."""

    overall: dict[str, Any]
    symbols: dict[str, dict[str, Any]]
    counts: dict[str, int]


class RouterHealth:
    """The window and its sums. Fed by the desk, order by order."""

    def __init__(self, settings: Settings, market: Market) -> None:
        self._market, self._window_ms = market, settings.router_window_s * 1_000
        self._children: deque[tuple[str, Child]] = deque()
        """by intent, in the order in which they left"""
        self._known: dict[str, Child] = {}
        self.symbols: dict[str, Sums] = {}
        self._found: Found | None = None
        """what the window said when it was asked last; None once something in it has changed since"""
        self.score = _overall({}, {}).score
        """what was told last"""

    def restore(self, files: Mapping[str, bytes]) -> None:
        """Nothing: how an earlier life fared says nothing about this one's links."""

    # ---- what happens to an order ----

    def sent(self, turn: Turn, order: Order, fallback: bool) -> None:
        """It leaves now; ``fallback``: not by the order link."""
        intent, market = order.intent, self._market
        touch, known = market.touch(intent.instrument, turn.ts), market.instruments.get(intent.instrument)
        middle = None if touch is None else (touch[0] + touch[1]) / 2
        index = market.index or 0.0
        unit = (0.0 if middle is None or known is None else middle * index if known.kind == OPTION
                else 1.0 if known.inverse else middle)
        child = Child(intent.instrument, turn.ts, middle, 0.0 if touch is None else _half_bps(*touch), unit,
                      float(intent.qty), intent.time_in_force == "immediate_or_cancel", fallback)
        if len(self._children) >= CHILDREN_MAX:
            self._forget(self._children.popleft())
        self._children.append((intent.intent_id, child))
        self._known[intent.intent_id] = child
        self._found = None
        sums = self.symbols.setdefault(child.symbol, Sums())
        sums.last_order_ts = turn.ts
        sums.ordered(child, 1)

    def answered(self, turn: Turn, intent_id: str) -> None:
        """The exchange's first word about it, or the end of waiting for one."""
        child = self._known.get(intent_id)
        if child is not None and child.latency_ms is None:
            child.latency_ms = turn.ts - child.ts
            self._found = None
            self.symbols[child.symbol].answered(child, 1)

    def filled(self, turn: Turn, intent_id: str, trade: Trade) -> None:
        """A fill that counts."""
        child = self._known.get(intent_id)
        if child is None:
            return
        qty, slipped = float(trade.qty), 0.0
        if child.middle:
            away = (float(trade.price) - child.middle) * (1 if trade.side == "buy" else -1)
            slipped = away / child.middle * BPS * qty * child.usd_per_unit
        if not math.isfinite(slipped):
            return  # no price that a book knows: nothing can be said of it
        child.filled, child.fills, child.slipped = child.filled + qty, child.fills + 1, child.slipped + slipped
        self._found = None
        sums = self.symbols[child.symbol]
        sums.last_fill_ts = turn.ts
        sums.filled(child, 1, qty, 1, slipped)

    def _trim(self, ts: int) -> None:
        """Time takes orders out of the window, whether or not anything happens."""
        children = self._children
        while children and children[0][1].ts < ts - self._window_ms:
            self._forget(children.popleft())

    def _forget(self, oldest: tuple[str, Child]) -> None:
        intent_id, child = oldest
        if self._known.get(intent_id) is child:
            del self._known[intent_id]
        self._found = None
        sums = self.symbols[child.symbol]
        sums.ordered(child, -1)
        sums.answered(child, -1)
        sums.filled(child, -1, child.filled, child.fills, child.slipped)
        if not sums.orders:  # and with it what adding and taking away has left behind the point
            del self.symbols[child.symbol]

    # ---- what is told ----

    def trouble(self, ts: int) -> dict[str, Any]:
        """What the risk mode asks of the router."""
        self._trim(ts)
        counts, symbols = self._find().counts, self.symbols.values()
        orders = sum([each.orders for each in symbols])
        return {"degraded": counts["degraded"], "broken": counts["broken"], "maker_first_disabled": 0,
                "mean_fallback": sum([each.fallbacks for each in symbols]) / orders if orders else 0.0}

    def document(self, turn: Turn, view: View) -> dict[str, Any]:
        """The window as it is now, for whoever asks to keep: no part of it is told twice."""
        self._trim(turn.ts)
        found, now = self._find(), view.stamp_ms / 1_000
        self.score = found.overall["quality_score"]
        return {
            "router_health_score": self.score,
            "router_health": {
                "global": {**found.overall, "updated_ts": now},
                "per_symbol": {name: {**symbol, "child_orders": {**symbol["child_orders"]}, "updated_ts": now}
                               for name, symbol in found.symbols.items()},
                "meta": {"window_seconds": self._window_ms // 1_000, "min_events": 1, "updated_ts": now},
            },
            "summary": {"updated_ts": now, "count": len(found.symbols), "quality_counts": {**found.counts}},
        }

    def _find(self) -> Found:
        """What the window says, reckoned once for all who ask while nothing in it changes."""
        if self._found is None:
            qualities = {name: _quality(sums) for name, sums in sorted(self.symbols.items())}
            self._found = Found(_overall(self.symbols, qualities).document(),
                                {name: _symbol(name, self.symbols[name], quality) for name, quality in qualities.items()},
                                _counts(qualities.values()))
        return self._found


def _half_bps(bid: float, ask: float) -> float:
    return (ask - bid) / (ask + bid) * BPS


def _quality(sums: Sums) -> Quality:
    spread = 2 * sums.half_bps / sums.spreads if sums.spreads else 0.0
    bucket = next((name for most, name in SPREADS_BPS if spread <= most), "C_LOW")
    traded = sums.notional if sums.fills else 0.0
    return Quality(sums.slipped / traded if traded > 0 else None,
                   (sums.slipped - sums.expected) / traded if traded > 0 else None,
                   sums.latency_ms / sums.answers if sums.answers else None, bucket)


def _overall(symbols: Mapping[str, Sums], qualities: Mapping[str, Quality]) -> Quality:
    """All symbols, each by what it traded (1 where it traded nothing); the bucket of whoever weighs most."""
    weight = {name: symbols[name].notional if symbols[name].fills else 1.0 for name in qualities}

    def mean(values: Mapping[str, float | None]) -> float | None:
        known = {name: value for name, value in values.items() if value is not None}
        total = sum(weight[name] for name in known)
        return sum(weight[name] * value for name, value in known.items()) / total if total > 0 else None

    heaviest = max(qualities, key=weight.__getitem__, default=None)
    return Quality(mean({name: each.slippage_bps for name, each in qualities.items()}),
                   mean({name: each.drift_bps for name, each in qualities.items()}),
                   mean({name: each.latency_ms for name, each in qualities.items()}),
                   "A_HIGH" if heaviest is None else qualities[heaviest].bucket)


def _counts(qualities: Iterable[Quality]) -> dict[str, int]:
    counts = {"good": 0, "ok": 0, "degraded": 0, "broken": 0}
    for each in qualities:
        score = each.score
        counts["good" if score >= GOOD else "ok" if score >= FAIR else "degraded" if score >= DEGRADED else "broken"] += 1
    return counts


def _symbol(name: str, sums: Sums, quality: Quality) -> dict[str, Any]:
    return {
        "symbol": name, **quality.document(), "last_order_ts": iso(sums.last_order_ts),
        "last_fill_ts": iso(sums.last_fill_ts), "twap_notional": 0.0,
        "total_notional": max(0.0, sums.notional) if sums.fills else 0.0,
        "child_orders": {"count": sums.children,
                         "fill_ratio": min(1.0, max(0.0, sums.got / sums.asked)) if sums.asked > 0 else 0.0},
        "event_count": sums.orders + sums.answers + sums.fills,
    }
