"""Handlers of the order methods, and the row that the books keep of every order, refused or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from system_under_test.exchange.account import Exposure
from system_under_test.exchange.instruments import Instrument, matches
from system_under_test.exchange.matching import Wanted
from system_under_test.exchange.orders import Order
from system_under_test.exchange.protocol import Refused

if TYPE_CHECKING:
    from system_under_test.exchange.exchange import Call, Exchange

PLACING = ("private/buy", "private/sell", "private/edit", "private/edit_by_label", "private/close_position")
CANCELLING = ("private/cancel", "private/cancel_all", "private/cancel_all_by_currency", "private/cancel_all_by_instrument",
              "private/cancel_all_by_kind_or_type", "private/cancel_by_label")


class Placing:
    """One attempt to place or change an order, as far as it has been understood. Ends in exactly one order row."""

    def __init__(self, exchange: Exchange, call: Call) -> None:
        self.exchange, self.call = exchange, call
        self.instrument: Instrument | None = None
        self.buy: bool | None = {"private/buy": True, "private/sell": False}.get(call.method.name)
        self.lots: int | None = None
        self.old: Order | None = None
        self.wanted: Wanted | None = None
        self.exposure: Exposure | None = None
        self.late = False

    def measure(self, lots: int, reduce_only: bool) -> None:
        """What the order would leave; asked before anything changes."""
        assert self.instrument is not None and self.buy is not None
        engine = self.exchange.engine
        signed = lots if self.buy else -lots
        self.exposure = self.exchange.account.exposure(self.instrument, signed, engine.resting(), self.old, reduce_only)

    def guess(self) -> None:
        """For a refused order: measure it as far as its raw parameters can be read."""
        params = self.call.raw
        engine = self.exchange.engine
        if self.old is None and isinstance(params.get("order_id"), str):
            self.old = engine.alive.get(params["order_id"])
        if self.old is not None:
            self.instrument, self.buy = self.old.instrument, self.old.buy
        name = params.get("instrument_name")
        if self.instrument is None and isinstance(name, str):
            self.instrument = engine.instruments.get(name)
        if self.instrument is None or self.exposure is not None:
            return
        if self.call.method.name == "private/close_position":
            held = self.exchange.account.lots(self.instrument)
            self.buy, self.lots = held < 0, abs(held)
        amount = params.get("amount", params.get("contracts"))
        if self.lots is None and amount is not None and self.buy is not None:
            try:
                self.lots = self.instrument.lots_of(amount, "amount" if "amount" in params else "contracts")
            except (Refused, TypeError, ValueError):
                return
        if self.lots is not None:
            self.measure(self.lots, params.get("reduce_only") in (True, "true"))

    def row(self, refused: Refused | None, order: Order | None = None, held: bool = False) -> None:
        """Write the one order row, before any of its fills."""
        call, instrument = self.call, self.instrument
        shown = self._asked() if self.wanted is None else self._lawful(self.wanted)
        if order is not None:
            shown["order_id"] = order.id
        exposure = self.exposure.row() if self.exposure else {
            "position_before": None, "worst_before": None, "worst_after": None, "net_delta_before": None,
            "net_delta_after": None, "opening": False}
        self.exchange.books.row(
            "order", conn=call.session.conn, client=call.session.client, method=call.method.name,
            instrument=instrument.name if instrument else _plain(call.raw.get("instrument_name")),
            direction=None if self.buy is None else "buy" if self.buy else "sell", **shown,
            outcome="rejected" if refused else "accepted", code=refused.code if refused else None,
            reason=self.exchange.tables.errors[refused.code][0] if refused else None, held=held, late=self.late, **exposure)

    def _lawful(self, wanted: Wanted) -> dict[str, Any]:
        instrument = wanted.instrument
        return {"order_id": self.old.id if self.old else None, "label": wanted.label,
                "amount": instrument.amount(wanted.lots),
                "price": None if wanted.ticks is None else instrument.price(wanted.ticks), "type": wanted.type,
                "time_in_force": wanted.time_in_force, "reduce_only": wanted.reduce_only, "post_only": wanted.post_only}

    def _asked(self) -> dict[str, Any]:
        """What a refused order said of itself, as far as it can be repeated."""
        params, old = self.call.raw, self.old
        return {"order_id": old.id if old else _plain(params.get("order_id")),
                "label": old.label if old else _plain(params.get("label")) or "",
                "amount": _number(params.get("amount")), "price": _number(params.get("price")),
                "type": _plain(params.get("type")) or "limit",
                "time_in_force": _plain(params.get("time_in_force")) or "good_til_cancelled",
                "reduce_only": params.get("reduce_only") in (True, "true"),
                "post_only": params.get("post_only") in (True, "true")}


def _plain(value: Any) -> str | None:
    """A client's text, short enough for a row."""
    return value[:64] if isinstance(value, str) else None


def _number(value: Any) -> float | str | None:
    if isinstance(value, str):
        return value[:32]
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


# ---- placing ------------------------------------------------------------------------------------------------------------


def place(exchange: Exchange, call: Call, placing: Placing) -> dict[str, Any]:
    """``private/buy`` and ``private/sell``."""
    params = call.params
    instrument = placing.instrument = exchange.instrument(params["instrument_name"])
    assert placing.buy is not None
    placing.lots = _amount(instrument, params)
    placing.measure(placing.lots, params["reduce_only"])
    _in_time(exchange, placing, params["valid_until"])
    return _go(exchange, placing, exchange.engine.lawful(_wanted(call, instrument, placing.buy, placing.lots)))


def close_position(exchange: Exchange, call: Call, placing: Placing) -> dict[str, Any]:
    """``private/close_position``: a reduce-only order over the whole position."""
    params = call.params
    instrument = placing.instrument = exchange.instrument(params["instrument_name"])
    held = exchange.account.lots(instrument)
    if not held:
        raise Refused(11030, {"reason": "no position to close"})
    buy = placing.buy = held < 0
    placing.lots = abs(held)
    placing.measure(placing.lots, True)
    limit = params["type"] == "limit"
    if limit and params["price"] is None:
        raise _invalid("price", "required for a limit order")
    ticks = instrument.ticks_of(params["price"]) if limit else None
    wanted = Wanted(instrument, buy, abs(held), ticks, params["type"], reduce_only=True, conn=call.session.conn)
    return _go(exchange, placing, exchange.engine.lawful(wanted))


def _go(exchange: Exchange, placing: Placing, wanted: Wanted) -> dict[str, Any]:
    """Place a lawful order as the switches have it."""
    placing.wanted = wanted
    if wanted.lots != placing.lots:
        placing.lots = wanted.lots
        placing.measure(wanted.lots, wanted.reduce_only)
    exchange.reject_leg(placing, wanted)
    held = exchange.holds(placing.call.method.name)
    immediate = exchange.immediate_lots(wanted)
    order = exchange.engine.admit(wanted, silenced=held)
    placing.row(None, order, held)
    before = order.document()
    trades = exchange.engine.run(order, immediate)
    return exchange.placed(order, trades, held, before)


def _wanted(call: Call, instrument: Instrument, buy: bool, lots: int) -> Wanted:
    """What the parameters ask for. Raises Refused where they contradict each other."""
    params = call.params
    type = params["type"]
    limited = type in ("limit", "stop_limit", "take_limit")
    triggered = type.startswith(("stop_", "take_"))
    if limited and params["price"] is None:
        raise _invalid("price", "required for a limit order")
    if triggered and (params["trigger_price"] is None or params["trigger"] is None):
        raise _invalid("trigger" if params["trigger"] is None else "trigger_price", "required for a trigger order")
    if not limited and params["time_in_force"] is not None:
        raise Refused(11047, {"reason": "time_in_force is for limit orders", "param": "time_in_force"})
    if params["advanced"] is not None:
        raise Refused(11047, {"reason": "advanced orders are not supported here", "param": "advanced"})
    force = params["time_in_force"] or "good_til_cancelled"
    if params["post_only"] and (type != "limit" or force not in ("good_til_cancelled", "good_til_day")):
        raise Refused(11055)
    shown = params["display_amount"] if params["display_amount"] is not None else params["max_show"]
    return Wanted(
        instrument, buy, lots, instrument.ticks_of(params["price"]) if limited else None, type, force,
        params["label"] or "", params["post_only"], params["reject_post_only"], params["reduce_only"],
        instrument.lots_of(shown, "display_amount") if shown else None, None, params["mmp"],
        params["trigger"] if triggered else None,
        instrument.ticks_of(params["trigger_price"], 10044) if triggered else None, call.session.conn)


def _amount(instrument: Instrument, params: dict[str, Any]) -> int:
    if params["amount"] is None and params["contracts"] is None:
        raise _invalid("amount", "amount or contracts is required")
    if params["amount"] is None:
        return instrument.lots_of(params["contracts"], "contracts")
    lots = instrument.lots_of(params["amount"])
    if params["contracts"] is not None and instrument.lots_of(params["contracts"], "contracts") != lots:
        raise _invalid("contracts", "must match amount")
    return lots


def _in_time(exchange: Exchange, placing: Placing, valid_until: int | None) -> None:
    if valid_until is not None and exchange.wall() > valid_until:
        placing.late = True
        raise Refused(13888, {"reason": "valid_until has passed", "param": "valid_until"})


def _invalid(param: str, reason: str) -> Refused:
    return Refused(-32602, {"reason": reason, "param": param})


def edit(exchange: Exchange, call: Call, placing: Placing) -> dict[str, Any]:
    """``private/edit`` and ``private/edit_by_label``."""
    params = call.params
    order = placing.old = _to_edit(exchange, params)
    instrument = placing.instrument = order.instrument
    placing.buy = order.buy
    given = params["amount"] is not None or params["contracts"] is not None
    lots = _amount(instrument, params) if given else order.lots
    reduce_only = order.reduce_only if params["reduce_only"] is None else params["reduce_only"]
    placing.lots = lots - order.filled
    if placing.lots <= 0:
        raise Refused(10021, {"reason": "less than what has been filled", "param": "amount"})
    placing.measure(placing.lots, reduce_only)
    _in_time(exchange, placing, params["valid_until"])
    ticks = order.ticks if params["price"] is None else instrument.ticks_of(params["price"])
    trigger = order.trigger_ticks if params["trigger_price"] is None else instrument.ticks_of(params["trigger_price"], 10044)
    wanted = Wanted(
        instrument, order.buy, placing.lots, ticks, order.type, order.time_in_force, order.label,
        order.post_only if params["post_only"] is None else params["post_only"],
        order.reject_post_only if params["reject_post_only"] is None else params["reject_post_only"],
        reduce_only, order.display_lots, None, order.mmp, order.trigger if order.state == "untriggered" else None, trigger,
        call.session.conn, instead_of=order)
    placing.wanted = wanted = exchange.engine.lawful(wanted)
    held = exchange.holds(call.method.name)
    order.silenced = order.silenced or held
    placing.row(None, order, held)
    before = order.document()
    trades = exchange.engine.edit(order, wanted)
    return exchange.placed(order, trades, held, before)


def _to_edit(exchange: Exchange, params: dict[str, Any]) -> Order:
    if params.get("order_id") is not None:
        return _open(exchange, params["order_id"])
    found = [o for o in exchange.engine.alive.values()
             if o.label == params["label"] and o.instrument.name == params["instrument_name"]]
    if not found:
        raise Refused(10004)
    if len(found) > 1:
        raise Refused(13032)
    return found[0]


def _open(exchange: Exchange, order_id: str) -> Order:
    order = exchange.engine.orders.get(order_id)
    if order is None:
        raise Refused(10004)
    if not order.alive:
        raise Refused(11044)
    return order


# ---- cancelling ---------------------------------------------------------------------------------------------------------


def cancel(exchange: Exchange, call: Call) -> dict[str, Any]:
    order = _open(exchange, call.params["order_id"])
    exchange.engine.cancel(order, "user_request")
    return exchange.order_document(order)


def cancel_many(exchange: Exchange, call: Call) -> Any:
    """Every other way to cancel: the parameters are filters."""
    params = call.params
    instrument = exchange.instrument(params["instrument_name"]).name if params.get("instrument_name") else None
    currencies = params.get("currency")
    wanted = currencies if isinstance(currencies, list) else [currencies]
    chosen = [
        order for order in list(exchange.engine.alive.values())
        if (instrument is None or order.instrument.name == instrument)
        and any(matches(order.instrument, each, params.get("kind")) for each in wanted)
        and of_type(order, params.get("type"))
        and (call.method.name != "private/cancel_by_label" or order.label == params["label"])
    ]
    for order in chosen:
        exchange.engine.cancel(order, "user_request")
    if not params.get("detailed"):
        return len(chosen)
    by_name: dict[str, list[dict[str, Any]]] = {}
    for order in chosen:
        by_name.setdefault(order.instrument.name, []).append(exchange.order_document(order))
    return [{"instrument_name": name, "currency": exchange.engine.instruments[name].settlement, "type": "limit",
             "result": documents} for name, documents in by_name.items()]


def of_type(order: Order, type: str | None) -> bool:
    """Whether an order falls under the ``type`` filter of cancels and open-order reads."""
    if type in (None, "all"):
        return True
    waiting = order.state == "untriggered"
    if type in ("trigger_all", "stop_all"):
        return waiting
    if type in ("stop", "take"):
        return waiting and order.type.startswith(type)
    return order.type == type
