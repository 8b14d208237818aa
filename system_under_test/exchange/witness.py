"""The exchange's books: an append-only account of what reached it and what it did, written before anybody is answered.

These rows are the independent witness in every judgement, so each says by itself what it means: an order row carries
the exposure before and after, refused or not. No credential is ever in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import orjson

from system_under_test.exchange.orders import Order, Trade
from system_under_test.machine import Append, Value

LOG = "books"


class Books:
    """Writes rows; the carrier stores them. ``emit`` takes the values that go out."""

    def __init__(self, emit: Callable[[Value], None]) -> None:
        self._emit = emit
        self.seq = 0
        self.at_ms = 0
        self.news_of: Callable[[Trade], str] = lambda trade: "sent"
        """how the news of a fill travels: sent | late | duplicate | held"""

    def resume(self, seq: int) -> None:
        """Go on after the records that the log holds."""
        self.seq = seq

    def row(self, kind: str, **fields: Any) -> None:
        self.seq += 1
        self._emit(Append(LOG, self.seq, orjson.dumps({"at": self.at_ms, "kind": kind, **fields})))

    def filled(self, trade: Trade, position_after: float, net_before: float, net_after: float) -> None:
        order, instrument = trade.order, trade.order.instrument
        self.row("fill", trade_id=trade.id, trade_seq=trade.seq, order_id=order.id, label=order.label,
                 instrument=instrument.name, direction=order.direction, amount=instrument.amount(trade.lots),
                 price=instrument.price(trade.ticks), maker=trade.maker, fee=trade.fee, reduce_only=order.reduce_only,
                 position_after=position_after, net_delta_before=round(net_before, 8),
                 net_delta_after=round(net_after, 8), order_state=order.state, news=self.news_of(trade))

    def cancelled(self, order: Order, by: str) -> None:
        self.row("cancel", order_id=order.id, label=order.label, instrument=order.instrument.name,
                 direction=order.direction, amount_left=order.instrument.amount(order.left), by=by,
                 reduce_only=order.reduce_only, web=order.web)


def read(records: Iterable[bytes]) -> list[dict[str, Any]]:
    """The rows of a log; what cannot be read as a row is left out (the log's framing has its own checksum)."""
    rows = []
    for record in records:
        try:
            row = orjson.loads(record)
        except orjson.JSONDecodeError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
