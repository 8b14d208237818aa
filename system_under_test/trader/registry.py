"""The trade registry: every fill counts once, whether it comes by stream, by an answer, by REST or from the ledger.

The exchange's ``trade_id`` is the identity. It is registered first and applied then; whoever comes second with the
same trade is told that it is old news.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from system_under_test.trader.quantize import MetadataMissing, decimal_of


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
                     decimal_of(raw["amount"]), decimal_of(raw["price"]), int(raw["timestamp"]))
    except (KeyError, TypeError, ValueError, MetadataMissing):
        return None


class TradeRegistry:
    """Which trades were counted, and for which intent."""

    def __init__(self, known: Mapping[str, str | None] | None = None) -> None:
        self._known: dict[str, str | None] = dict(known or {})
        self.duplicates = 0

    def first(self, trade: Trade, intent_id: str | None) -> bool:
        """Register the trade; False when it was counted before."""
        if trade.trade_id in self._known:
            self.duplicates += 1
            return False
        self._known[trade.trade_id] = intent_id
        return True

    def __contains__(self, trade_id: str) -> bool:
        return trade_id in self._known

    def __len__(self) -> int:
        return len(self._known)
