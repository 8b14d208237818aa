"""After a restart: what the account holds is folded from the books, the same witness that everybody trusts.

Positions come from fills and position rows, money from those and from transfers, resting orders from order, fill and
cancel rows; what the market jumped by it has jumped by still. Orders that only lived on
their connection are gone with it: all connections ended with the process, so every restored order whose connection was
armed would have been cancelled; the venue cancels on restart what cannot be kept (cancel_on_disconnect), and so does this.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from system_under_test.exchange.orders import Order, Trade
from system_under_test.exchange.protocol import Refused
from system_under_test.exchange.witness import read

if TYPE_CHECKING:
    from system_under_test.exchange.exchange import Exchange


def restore(exchange: Exchange, records: Iterable[bytes]) -> None:
    """Fold the rows into the fresh engine and account. A row that cannot be understood is passed over."""
    armed: set[str] = set()
    handlers = {"order": _order, "fill": _fill, "cancel": _cancel, "position": _position, "transfer": _transfer,
                "market": _market}
    for row in read(records):
        apply = handlers.get(str(row.get("kind")))
        try:
            if apply is not None:
                apply(exchange, row)
            elif row.get("kind") == "session" and row.get("event") == "armed":
                armed.add(str(row["conn"]))
        except (KeyError, TypeError, ValueError, Refused):
            continue
    for order in list(exchange.engine.alive.values()):
        if order.conn in armed:
            exchange.engine.cancel(order, "cancel_on_disconnect")
    exchange.engine.changes.clear()


def _order(exchange: Exchange, row: dict[str, Any]) -> None:
    if row["outcome"] != "accepted":
        return
    engine, id = exchange.engine, row["order_id"]
    instrument = exchange.instrument(row["instrument"])
    ticks = None if row["price"] is None else instrument.ticks_of(row["price"])
    old = engine.orders.get(id)
    if old is not None:
        engine.books[instrument.name].remove(old)
        old.lots, old.ticks, old.replaced = old.filled + instrument.lots_of(row["amount"]), ticks, True
        engine.books[instrument.name].rest(old)
        return
    number = int(id.rpartition("-")[2].removeprefix("SL")) - 584_000_000
    engine.counts["order"] = max(engine.counts["order"], number)
    order = Order(id, instrument, row["direction"] == "buy", instrument.lots_of(row["amount"]), ticks, row["type"],
                  row["time_in_force"], row["label"], row["post_only"], False, row["reduce_only"], exchange.wall(),
                  exchange.wall(), f"boot:{row['conn']}", place=number)
    order.conn = row["conn"]
    engine.orders[id] = order
    if ticks is None or row["time_in_force"] in ("immediate_or_cancel", "fill_or_kill"):
        order.state = "cancelled"
        return
    engine.alive[id] = order
    engine.books.setdefault(instrument.name, type(engine.book(instrument))()).rest(order)


def _fill(exchange: Exchange, row: dict[str, Any]) -> None:
    engine = exchange.engine
    instrument = exchange.instrument(row["instrument"])
    lots, order = instrument.lots_of(row["amount"]), engine.orders[row["order_id"]]
    profit = exchange.account.fill(instrument, lots * order.sign, row["price"], row["fee"])
    order.filled += lots
    order.paid += row["amount"] * row["price"]
    if not order.left:
        engine._close(order, "filled")
    mark = exchange.market.mark(instrument, exchange.wall())
    engine.seqs[instrument.name] = max(engine.seqs.get(instrument.name, 0), row["trade_seq"])
    number = int(row["trade_id"].rpartition("-")[2]) - 40_000_000
    engine.counts["trade"] = max(engine.counts["trade"], number)
    engine.trades.append(Trade(row["trade_id"], row["trade_seq"], order, exchange.wall(), instrument.ticks_of(row["price"]),
                               lots, row["maker"], row["fee"], mark.index, mark.price, 1, row["order_state"], profit))


def _cancel(exchange: Exchange, row: dict[str, Any]) -> None:
    order = exchange.engine.orders[row["order_id"]]
    order.cancel_reason = row["by"]
    exchange.engine._close(order, "cancelled")


def _position(exchange: Exchange, row: dict[str, Any]) -> None:
    instrument = exchange.instrument(row["instrument"])
    size = instrument.lots_of(abs(row["size"])) * (1 if row["size"] > 0 else -1) if row["size"] else 0
    exchange.account.fill(instrument, size - exchange.account.lots(instrument), row["price"], 0.0)


def _transfer(exchange: Exchange, row: dict[str, Any]) -> None:
    exchange.account.balances[row["currency"]] += row["amount"]


def _market(exchange: Exchange, row: dict[str, Any]) -> None:
    if row["event"] == "price_jump":
        exchange.market.jump(row["index"], row["share"])
