"""One reading of the books: every state file of one loop is made from the same, so that none contradicts another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING

from system_under_test.trader.exposure import Exposure
from system_under_test.trader.holdings import OPTION_ENDS, Holding, Holdings, usd_of
from system_under_test.trader.levels import LONG, SHORT, Levels
from system_under_test.trader.market import Market

if TYPE_CHECKING:
    from system_under_test.trader.report.tally import Tally

OPTION, INVERSE, LINEAR = "option", "inverse", "linear"
COIN, USD = "coin", "usd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One position, prices in USD. ``qty`` is the exchange's amount, signed: coins, or dollars of an inverse contract."""

    symbol: str
    side: str
    qty: Decimal
    kind: str
    entry_price: float
    mark_price: float
    """the last that is known, however old: see ``mark_ts``"""
    mark_ts: int
    notional_usd: float
    unrealized_usd: float
    realized_usd: float
    """earned by closing parts of this position since it was opened"""
    delta_btc: float | None
    opened_ts: int

    @property
    def key(self) -> str:
        return f"{self.symbol}:{self.side}"

    @property
    def qty_unit(self) -> str:
        return USD if self.kind == INVERSE else COIN


def held_of(exposure: Exposure, holdings: Holdings, market: Market) -> tuple[tuple[Held, ...], tuple[str, ...]]:
    """Every position with its prices, by name; and the names of those that have none, so that nothing can be said of them.

    The mark is the last that was heard. Of what was never quoted in this life it is the price that it was bought for.
    """
    positions, unpriced = [], []
    for name in sorted(exposure.positions):
        holding, ticker = holdings.by_name.get(name), market.tickers.get(name)
        kind = OPTION if name.endswith(OPTION_ENDS) else INVERSE if market.inverse(name) else LINEAR
        entry = None if holding is None else holding.entry(inverse=kind == INVERSE)
        mark = None if ticker is None or ticker.mark is None else usd_of(name, ticker.mark, market.index)
        if holding is None or entry is None:
            unpriced.append(name)
            continue
        marked_ts = holding.opened_ts if ticker is None or mark is None else ticker.ts
        positions.append(_held(name, exposure.positions[name], kind, entry, mark or entry, marked_ts, holding,
                               market.unit_delta(name)))
    return tuple(positions), tuple(unpriced)


def _held(name: str, size: Decimal, kind: str, entry: float, mark: float, mark_ts: int, holding: Holding,
          unit_delta: float | None) -> Held:
    qty = float(size)
    if kind == INVERSE:
        notional, unrealized = abs(qty), qty * (mark - entry) / entry
    else:
        notional, unrealized = abs(qty) * mark, qty * (mark - entry)
    return Held(symbol=name, side=LONG if size > 0 else SHORT, qty=size, kind=kind, entry_price=entry, mark_price=mark,
                mark_ts=mark_ts, notional_usd=notional, unrealized_usd=unrealized,
                realized_usd=holding.realized(inverse=kind == INVERSE),
                delta_btc=None if unit_delta is None else qty * unit_delta, opened_ts=holding.opened_ts)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the trader knows at one moment. Times in monotonic-epoch ms; None is unknown."""

    ts: int
    stamp_ms: int
    """what every file of this loop is dated: the time, but never before what any of them was dated"""
    mode: str
    reasons: tuple[str, ...]
    equity_btc: float | None
    """what the account is worth, as the exchange told it last in this life"""
    equity_ts: int | None
    index: float | None
    positions: tuple[Held, ...]
    unpriced: tuple[str, ...]
    """instruments that are held and have no price yet, so that nothing can be said of them"""
    entries: Mapping[str, Levels]
    """what the intent ledger durably says about exit levels, by position key"""
    registry: Mapping[str, Levels]
    """the levels that are scanned"""
    scanned_ts: int | None
    triggered_ts: int | None
    """when exits were last scanned, and when one was last triggered"""
    tally: Tally

    @property
    def nav_usd(self) -> float | None:
        """What the account is worth; None while that is not known, or no number."""
        if self.equity_btc is None or self.index is None:
            return None
        value = self.equity_btc * self.index
        return value if math.isfinite(value) else None

    @property
    def nav_age_ms(self) -> int | None:
        """How long ago the account told its worth."""
        return None if self.equity_ts is None else self.ts - self.equity_ts


@lru_cache(maxsize=512)  # most times that a loop tells were told by the loop before
def iso(ts: int | None) -> str | None:
    """A time as text: ISO 8601 with milliseconds and ``Z``."""
    if ts is None:
        return None
    return datetime.fromtimestamp(ts / 1_000, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
