"""The trade registry: every fill counts once, whether it comes by stream, by an answer, by REST or from the ledger.

The exchange's ``trade_id`` is the identity. It is registered first and applied then; whoever comes second with the
same trade is told that it is old news.

Memory is bounded by what could still be news. Once a reconciliation that was begun well after a trade has found that
positions agree, the trade is part of them, and so is every earlier trade of its instrument, whether or not it was ever
told. Of those only the highest ``trade_seq`` is kept: whatever comes with that number or a lower one is old news too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from msgspec import Struct

from system_under_test.trader.quantize import MetadataMissing, decimal_of

SWEEP_MIN = 512
"""So many trades or orders are kept before anybody asks which of them may be forgotten."""


@dataclass(frozen=True, slots=True)
class Trade:
    """One fill of ours, as the exchange tells it. Time in ms of the exchange's clock."""

    trade_id: str
    order_id: str | None
    label: str | None
    instrument: str
    side: str
    qty: Decimal
    price: Decimal
    timestamp: int
    seq: int | None = None
    """the number among all trades of the instrument; None when the exchange did not tell it"""
    index: float | None = None
    """the index at that moment, USD; None when the exchange did not tell it"""

    @property
    def signed(self) -> Decimal:
        return self.qty if self.side == "buy" else -self.qty


def parse_trade(raw: Mapping[str, Any]) -> Trade | None:
    """A trade of the exchange; None when it lacks what counting needs."""
    try:
        side = raw["direction"]
        if side not in ("buy", "sell"):
            return None
        return Trade(str(raw["trade_id"]), raw.get("order_id"), raw.get("label"), raw["instrument_name"], side,
                     decimal_of(raw["amount"]), decimal_of(raw["price"]), int(raw["timestamp"]), seq_of(raw), _index(raw))
    except (KeyError, TypeError, ValueError, MetadataMissing):
        return None


def _index(raw: Mapping[str, Any]) -> float | None:
    index = raw.get("index_price")
    if isinstance(index, bool) or not isinstance(index, int | float):
        return None
    return float(index) if 0 < index < math.inf else None


def seq_of(raw: Mapping[str, Any]) -> int | None:
    """The ``trade_seq`` of a trade or of a ledger row; None when it has none."""
    seq = raw.get("trade_seq")
    return seq if type(seq) is int else None


class Counted(Struct, frozen=True, gc=False):
    """A trade that was counted: of what, which number, and when (monotonic-epoch ms)."""

    instrument: str
    seq: int | None
    ts: int


class TradeRegistry:
    """Which trades were counted."""

    def __init__(self) -> None:
        self._known: dict[str, Counted] = {}
        self._settled: dict[str, int] = {}
        """instrument → the highest number of a trade that agreed positions hold and that is not known by id any more"""
        self._sweep_at = SWEEP_MIN
        self.duplicates = 0

    def first(self, trade: Trade, intent_id: str | None, ts: int = 0) -> bool:
        """Register the trade; False when it was counted before."""
        if self.count(trade.trade_id, trade.instrument, trade.seq, ts):
            return True
        self.duplicates += 1
        return False

    def count(self, trade_id: str, instrument: str, seq: int | None, ts: int) -> bool:
        """Register a trade by what identifies it; False when it was counted before."""
        if self.knows(trade_id, instrument, seq):
            return False
        self._known[trade_id] = Counted(instrument, seq, ts)
        return True

    def knows(self, trade_id: object, instrument: object, seq: int | None) -> bool:
        """Whether this trade was counted, or is part of positions that were found to agree."""
        return trade_id in self._known or (seq is not None and seq <= self._settled.get(instrument, -1))  # type: ignore[call-overload]

    def forget(self, before_ts: int) -> None:
        """Positions that hold everything counted before this have been found to agree. A trade without a number is never
        forgotten. Looked over only when the registry has doubled, so that forgetting costs nothing much."""
        if len(self._known) < self._sweep_at:
            return
        for trade_id, counted in list(self._known.items()):
            if counted.seq is not None and counted.ts < before_ts:
                del self._known[trade_id]
                self._settled[counted.instrument] = max(counted.seq, self._settled.get(counted.instrument, -1))
        self._sweep_at = max(SWEEP_MIN, 2 * len(self._known))

    def __contains__(self, trade_id: str) -> bool:
        return trade_id in self._known

    def __len__(self) -> int:
        return len(self._known)
