"""An order and a trade of the account, and how the venue writes them.

States are the venue's: open, filled, rejected, cancelled, untriggered, triggered. Prices in ticks, amounts in lots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from system_under_test.exchange.instruments import Instrument

USER_ID = 7_001
"""The one account of this exchange."""
CLOSED_STATES = ("filled", "rejected", "cancelled")


@dataclass(slots=True, eq=False)
class Order:
    """One order. ``lots`` is the whole amount, ``filled`` what has traded; prices are ticks."""

    id: str
    instrument: Instrument
    buy: bool
    lots: int
    ticks: int | None
    type: str
    time_in_force: str
    label: str
    post_only: bool
    reject_post_only: bool
    reduce_only: bool
    created_ms: int
    updated_ms: int
    conn: str
    """the connection it came on: cancel-on-disconnect goes by it"""
    web: bool = False
    mmp: bool = False
    advanced: str | None = None
    display_lots: int | None = None
    state: str = "open"
    filled: int = 0
    paid: float = 0.0
    """sum of amount × price over the fills"""
    replaced: bool = False
    cancel_reason: str | None = None
    original_type: str | None = None
    trigger: str | None = None
    trigger_ticks: int | None = None
    triggered: bool = False
    silenced: bool = False
    """placed while acknowledgements were held: no answer, and no news while the switch is on"""
    place: int = 0
    """rank in its queue; smaller is older"""

    @property
    def left(self) -> int:
        return self.lots - self.filled

    @property
    def resting(self) -> bool:
        return self.state == "open"

    @property
    def alive(self) -> bool:
        return self.state not in CLOSED_STATES

    @property
    def sign(self) -> int:
        return 1 if self.buy else -1

    @property
    def direction(self) -> str:
        return "buy" if self.buy else "sell"

    def document(self) -> dict[str, Any]:
        """As it goes on the wire."""
        instrument = self.instrument
        document: dict[str, Any] = {
            "order_id": self.id,
            "order_state": self.state,
            "order_type": self.type,
            "time_in_force": self.time_in_force,
            "instrument_name": instrument.name,
            "direction": self.direction,
            "price": "market_price" if self.ticks is None else instrument.price(self.ticks),
            "amount": instrument.amount(self.lots),
            "contracts": instrument.contracts(self.lots),
            "max_show": instrument.amount(self.display_lots or self.lots),
            "label": self.label,
            "post_only": self.post_only,
            "reduce_only": self.reduce_only,
            "is_liquidation": False,
            "risk_reducing": False,
            "mmp": self.mmp,
            "replaced": self.replaced,
            "api": True,
            "web": self.web,
            "mobile": False,
            "user_id": USER_ID,
            "creation_timestamp": self.created_ms,
            "last_update_timestamp": self.updated_ms,
        }
        if self.trigger is None or self.triggered:  # an untriggered order has no fill fields (recorded traffic)
            document["filled_amount"] = instrument.amount(self.filled)
            document["average_price"] = self.average_price
        if self.post_only:
            document["reject_post_only"] = self.reject_post_only
        if self.display_lots is not None:
            document["display_amount"] = instrument.amount(self.display_lots)
        if self.advanced is not None:
            document["advanced"] = self.advanced
        if self.original_type is not None:
            document["original_order_type"] = self.original_type
        if self.trigger is not None and self.trigger_ticks is not None:
            document |= {"trigger": self.trigger, "trigger_price": instrument.price(self.trigger_ticks),
                         "triggered": self.triggered}
        if self.cancel_reason is not None:
            document["cancel_reason"] = self.cancel_reason
        return document

    @property
    def average_price(self) -> float:
        if not self.filled:
            return 0.0
        digits = 6 if self.instrument.option else 4
        return round(self.paid / self.instrument.amount(self.filled), digits)


@dataclass(frozen=True, slots=True)
class Trade:
    """One fill of the account's order."""

    id: str
    seq: int
    order: Order
    at_ms: int
    """exchange wall clock"""
    ticks: int
    lots: int
    maker: bool
    fee: float
    index_price: float
    mark_price: float
    tick_direction: int
    state: str
    """the order's state after this fill"""
    profit_loss: float
    iv: float | None = None
    underlying_price: float | None = None

    def document(self) -> dict[str, Any]:
        order, instrument = self.order, self.order.instrument
        document: dict[str, Any] = {
            "trade_id": self.id,
            "trade_seq": self.seq,
            "instrument_name": instrument.name,
            "timestamp": self.at_ms,
            "order_type": "limit" if order.type.endswith("limit") else "market",
            "order_id": order.id,
            "matching_id": None,
            "direction": order.direction,
            "tick_direction": self.tick_direction,
            "index_price": self.index_price,
            "mark_price": self.mark_price,
            "price": instrument.price(self.ticks),
            "amount": instrument.amount(self.lots),
            "contracts": instrument.contracts(self.lots),
            "liquidity": "M" if self.maker else "T",
            "fee": self.fee,
            "fee_currency": instrument.settlement,
            "state": self.state,
            "reduce_only": order.reduce_only,
            "post_only": order.post_only,
            "mmp": order.mmp,
            "risk_reducing": False,
            "api": True,
            "self_trade": False,
            "user_id": USER_ID,
            "profit_loss": self.profit_loss,
        }
        if order.label:
            document["label"] = order.label
        if self.iv is not None:
            document |= {"iv": self.iv, "underlying_price": self.underlying_price}
        return document
