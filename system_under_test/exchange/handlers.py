"""One small handler for each method that is no order: ``public/get_time`` is ``public_get_time`` here.

A handler takes checked parameters and returns the result; it refuses by raising ``Refused``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from system_under_test.exchange import trading
from system_under_test.exchange.account import CURRENCIES, IDENTITY, Position
from system_under_test.exchange.instruments import Instrument, matches, matching
from system_under_test.exchange.orders import USER_ID, Order, Trade
from system_under_test.exchange.protocol import Refused
from system_under_test.exchange.sessions import Grant

if TYPE_CHECKING:
    from system_under_test.exchange.exchange import Call, Exchange

VERSION = "1.2.26"
OK = "ok"


# ---- session ------------------------------------------------------------------------------------------------------------


def public_auth(exchange: Exchange, call: Call) -> dict[str, Any]:
    grant = exchange.tokens.login(call.params, call.session, call.now_ms, exchange.wall())
    return _authorised(exchange, call, grant, call.params["state"])


def public_exchange_token(exchange: Exchange, call: Call) -> dict[str, Any]:
    grant = exchange.tokens.refresh(call.params["refresh_token"], call.session, call.now_ms)
    return _authorised(exchange, call, grant, None)


def public_fork_token(exchange: Exchange, call: Call) -> dict[str, Any]:
    exchange.tokens.refresh(call.params["refresh_token"], call.session, call.now_ms)
    grant = exchange.tokens.grant(f"session:{call.params['session_name']}", call.session, call.now_ms)
    return _authorised(exchange, call, grant, None)


def _authorised(exchange: Exchange, call: Call, grant: Grant, state: str | None) -> dict[str, Any]:
    if call.session.websocket:
        call.session.grant = grant
        exchange.session_row(call.session, "authenticated", "")
    return grant.document(state)


def public_hello(exchange: Exchange, call: Call) -> dict[str, Any]:
    call.session.client = call.params["client_name"][:64]
    exchange.session_row(call.session, "named", "")
    return {"version": VERSION}


def public_set_heartbeat(exchange: Exchange, call: Call) -> str:
    exchange.beat(call.session, int(call.params["interval"] * 1_000), call.now_ms)
    return OK


def public_disable_heartbeat(exchange: Exchange, call: Call) -> str:
    exchange.beat(call.session, None, call.now_ms)
    return OK


def public_test(exchange: Exchange, call: Call) -> dict[str, Any]:
    if call.params["expected_result"] == "exception":
        raise Refused(10001, {"reason": "as asked"})
    return {"version": VERSION}


def public_ping(exchange: Exchange, call: Call) -> str:
    return "pong"


def public_get_time(exchange: Exchange, call: Call) -> int:
    return exchange.told_time()


def public_status(exchange: Exchange, call: Call) -> dict[str, Any]:
    locked = exchange.platform_locked()
    return {"locked": locked, "locked_indices": [] if locked == "false" else list(exchange.market.index_names())}


def private_logout(exchange: Exchange, call: Call) -> None:
    session = call.session
    if session.grant is not None and call.params["invalidate_token"]:
        exchange.tokens.forget(session.grant)
    session.cancel_on_disconnect = False  # a graceful logout cancels nothing
    exchange.end(session, "logout")


def private_enable_cancel_on_disconnect(exchange: Exchange, call: Call) -> str:
    call.session.cancel_on_disconnect = True
    exchange.session_row(call.session, "armed", call.params["scope"])
    if call.params["scope"] == "account":
        exchange.cancel_on_disconnect_default = True
    return OK


def private_disable_cancel_on_disconnect(exchange: Exchange, call: Call) -> str:
    call.session.cancel_on_disconnect = False
    if call.params["scope"] == "account":
        exchange.cancel_on_disconnect_default = False
    return OK


def private_get_cancel_on_disconnect(exchange: Exchange, call: Call) -> dict[str, Any]:
    scope = call.params["scope"]
    enabled = exchange.cancel_on_disconnect_default if scope == "account" else call.session.cancel_on_disconnect
    return {"scope": scope, "enabled": enabled}


# ---- subscriptions ------------------------------------------------------------------------------------------------------


def public_subscribe(exchange: Exchange, call: Call) -> list[str]:
    return _subscribe(exchange, call, None)


def private_subscribe(exchange: Exchange, call: Call) -> list[str]:
    return _subscribe(exchange, call, call.params["label"])


def _subscribe(exchange: Exchange, call: Call, label: str | None) -> list[str]:
    """The channels that were really subscribed: what does not exist is silently left out, as the venue does."""
    authorised = exchange.authorised(call.session, call.now_ms)
    channels = [each for each in call.params["channels"] if isinstance(each, str) and len(each) <= 128]
    if not authorised and any(each.startswith(("book.", "trades.", "ticker.")) and each.endswith(".raw") for each in channels):
        raise Refused(13778)
    taken = []
    for channel in dict.fromkeys(channels):
        if channel.startswith("user.") and not (authorised and call.method.private):
            continue
        fresh = channel not in call.session.channels
        if exchange.hub.subscribe(call.session, channel, label, call.now_ms):
            taken.append(channel)
            if fresh:
                call.afterwards.append(channel)
    return taken


def public_unsubscribe(exchange: Exchange, call: Call) -> list[str]:
    return [each for each in dict.fromkeys(c for c in call.params["channels"] if isinstance(c, str))
            if exchange.hub.unsubscribe(call.session, each)]


def public_unsubscribe_all(exchange: Exchange, call: Call) -> str:
    for channel in list(call.session.channels):
        exchange.hub.unsubscribe(call.session, channel)
    return OK


private_unsubscribe = public_unsubscribe
private_unsubscribe_all = public_unsubscribe_all


# ---- market data --------------------------------------------------------------------------------------------------------


def public_get_currencies(exchange: Exchange, call: Call) -> list[dict[str, Any]]:
    names = {"BTC": ("Bitcoin", "BITCOIN", 4), "ETH": ("Ethereum", "ETHER", 4), "USDC": ("USD Coin", "USDC", 6)}
    return [{"currency": code, "currency_long": long, "coin_type": coin, "fee_precision": 4, "min_confirmations": 1,
             "min_withdrawal_fee": 0.0001, "withdrawal_fee": 0.0001, "withdrawal_priorities": [], "apr": 0.0,
             "in_cross_collateral_pool": False, "network_currency": "BTC" if code == "BTC" else "ETH",
             "network_fee": 0.0001, "decimals": digits} for code, (long, coin, digits) in names.items()]


def public_get_index_price(exchange: Exchange, call: Call) -> dict[str, Any]:
    price = exchange.index_document(call.params["index_name"])
    if price is None:
        raise Refused(-32602, {"reason": "unknown index", "param": "index_name"})
    return {"index_price": price["price"], "estimated_delivery_price": price["price"]}


def public_get_index_price_names(exchange: Exchange, call: Call) -> list[str]:
    return list(exchange.market.index_names())


def public_get_instrument(exchange: Exchange, call: Call) -> dict[str, Any]:
    instrument = exchange.instrument(call.params["instrument_name"])
    return instrument.document(exchange.wall(), exchange.state_of(instrument))


def public_get_instruments(exchange: Exchange, call: Call) -> list[dict[str, Any]]:
    params = call.params
    source = exchange.expired.values() if params["expired"] else exchange.engine.instruments.values()
    return [each.document(exchange.wall(), exchange.state_of(each))
            for each in matching(source, params["currency"], params["kind"])]


def public_get_order_book(exchange: Exchange, call: Call) -> dict[str, Any]:
    return exchange.quotes.order_book(exchange.instrument(call.params["instrument_name"]), call.params["depth"])


def public_ticker(exchange: Exchange, call: Call) -> dict[str, Any]:
    return exchange.quotes.ticker(exchange.instrument(call.params["instrument_name"]))


def public_get_book_summary_by_instrument(exchange: Exchange, call: Call) -> list[dict[str, Any]]:
    return [exchange.quotes.summary(exchange.instrument(call.params["instrument_name"]))]


def public_get_book_summary_by_currency(exchange: Exchange, call: Call) -> list[dict[str, Any]]:
    return [exchange.quotes.summary(each)
            for each in matching(exchange.engine.instruments.values(), call.params["currency"], call.params["kind"])]


def public_get_last_trades_by_instrument(exchange: Exchange, call: Call) -> dict[str, Any]:
    instrument = exchange.instrument(call.params["instrument_name"])
    return _page(call.params, exchange.engine.public_trades.get(instrument.name, ()))


def public_get_last_trades_by_currency(exchange: Exchange, call: Call) -> dict[str, Any]:
    params = call.params
    trades = [trade for name, trades in exchange.engine.public_trades.items() for trade in trades
              if (found := exchange.find(name)) and matches(found, params["currency"], params["kind"])]
    return _page(params, sorted(trades, key=lambda trade: (trade["timestamp"], trade["trade_id"])))


public_get_last_trades_by_instrument_and_time = public_get_last_trades_by_instrument
public_get_last_trades_by_currency_and_time = public_get_last_trades_by_currency


_BOUNDS = ("start_timestamp", "end_timestamp", "start_seq", "end_seq", "start_id", "end_id")


def _page(params: Mapping[str, Any], trades: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the filters leave: newest first unless ``asc`` is asked, or a start is given and nothing else."""
    if all(params[each] is None for each in _BOUNDS):
        return _cut(params, trades)
    (since, until), numbered = _times(params), _numbers(params)
    return _cut(params, [trade for trade in trades
                         if since <= trade["timestamp"] <= until and numbered(trade["trade_seq"], trade["trade_id"])])


def _cut(params: Mapping[str, Any], left: Sequence[Any]) -> dict[str, Any]:
    """One page of the trades that the filters leave, in the order that is asked for."""
    started = params["start_timestamp"] is not None or params["start_seq"] is not None or params["start_id"] is not None
    oldest_first = params["sorting"] == "asc" or (params["sorting"] == "default" and started)
    count = params["count"]
    return {"trades": list(islice(left if oldest_first else reversed(left), count)), "has_more": len(left) > count}


def _times(params: Mapping[str, Any]) -> tuple[float, float]:
    """Between which times a trade is to lie."""
    return _bound(params["start_timestamp"], -1), _bound(params["end_timestamp"], 1)


def _numbers(params: Mapping[str, Any]) -> Callable[[int, str], bool]:
    """Whether a trade's sequence number and its id lie within the bounds that were asked for."""
    if all(params[each] is None for each in _BOUNDS[2:]):
        return lambda seq, trade_id: True
    seq_low, seq_high = _bound(params["start_seq"], -1), _bound(params["end_seq"], 1)
    id_low, id_high = _bound(_number(params["start_id"]), -1), _bound(_number(params["end_id"]), 1)

    def numbered(seq: int, trade_id: str) -> bool:
        return seq_low <= seq <= seq_high and id_low <= (_number(trade_id) or 0) <= id_high

    return numbered


def _bound(value: int | None, open_side: int) -> float:
    return open_side * float("inf") if value is None else value


def _number(trade_id: str | None) -> int | None:
    """The number in a trade id, which sorts them."""
    digits = (trade_id or "").rpartition("-")[2]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 20 else None


# ---- orders -------------------------------------------------------------------------------------------------------------


def private_get_open_orders(exchange: Exchange, call: Call) -> list[dict[str, Any]]:
    """Every read of open orders: the parameters are filters."""
    params = call.params
    name = exchange.instrument(params["instrument_name"]).name if "instrument_name" in params else None
    exchange.query_row("open_orders", call)
    return [exchange.order_document(order) for order in exchange.engine.alive.values()
            if (name is None or order.instrument.name == name)
            and matches(order.instrument, params.get("currency"), params.get("kind"))
            and trading.of_type(order, params.get("type"))
            and (not params.get("label") or order.label == params["label"])]


private_get_open_orders_by_currency = private_get_open_orders
private_get_open_orders_by_instrument = private_get_open_orders
private_get_open_orders_by_label = private_get_open_orders


def private_get_order_state(exchange: Exchange, call: Call) -> dict[str, Any]:
    order = exchange.engine.orders.get(call.params["order_id"])
    if order is None:
        raise Refused(10004)
    exchange.query_row("order_state", call)
    return exchange.order_document(order)


def private_get_order_state_by_label(exchange: Exchange, call: Call) -> list[dict[str, Any]]:
    exchange.query_row("order_state", call)
    return [exchange.order_document(order) for order in exchange.engine.orders.values()
            if matches(order.instrument, call.params["currency"], None)
            and order.label == (call.params["label"] or "")]


def private_get_order_history_by_currency(exchange: Exchange, call: Call) -> Any:
    params = call.params
    name = exchange.instrument(params["instrument_name"]).name if params.get("instrument_name") else None
    chosen: list[Order] = [
        order for order in reversed(exchange.engine.orders.values())
        if not order.alive and (order.filled or params["include_unfilled"])
        and (name is None or order.instrument.name == name)
        and matches(order.instrument, params["currency"] if name is None else None, params["kind"])]
    page = chosen[params["offset"]:params["offset"] + params["count"]]
    documents = [exchange.order_document(order) for order in page]
    return {"orders": documents, "continuation": None} if params["with_continuation"] else documents


private_get_order_history_by_instrument = private_get_order_history_by_currency


def private_get_user_trades_by_currency(exchange: Exchange, call: Call) -> dict[str, Any]:
    """Every read of the account's trades but the one by order."""
    params = call.params
    instrument = exchange.instrument(params["instrument_name"]) if "instrument_name" in params else None
    exchange.query_row("user_trades", call)
    (since, until), numbered = _times(params), _numbers(params)
    page = _cut(params, [trade for trade in exchange.engine.trades if since <= trade.at_ms <= until
                         and numbered(trade.seq, trade.id) and _mine(trade, instrument, params)])
    return page | {"trades": [trade.document() for trade in page["trades"]]}  # a long day's fills stay as they are


def _mine(trade: Trade, instrument: Instrument | None, params: Mapping[str, Any]) -> bool:
    if instrument is not None:
        return trade.order.instrument.name == instrument.name
    return matches(trade.order.instrument, params["currency"], params["kind"])


private_get_user_trades_by_currency_and_time = private_get_user_trades_by_currency
private_get_user_trades_by_instrument = private_get_user_trades_by_currency
private_get_user_trades_by_instrument_and_time = private_get_user_trades_by_currency


def private_get_user_trades_by_order(exchange: Exchange, call: Call) -> list[dict[str, Any]]:
    if call.params["order_id"] not in exchange.engine.orders:
        raise Refused(10004)
    exchange.query_row("user_trades", call)
    trades = [t.document() for t in exchange.engine.trades if t.order.id == call.params["order_id"]]
    return trades if call.params["sorting"] == "asc" else trades[::-1]


# ---- account ------------------------------------------------------------------------------------------------------------


def private_get_position(exchange: Exchange, call: Call) -> dict[str, Any]:
    instrument = exchange.instrument(call.params["instrument_name"])
    exchange.query_row("positions", call)
    held = exchange.account.positions.get(instrument.name) or Position(instrument)
    return exchange.account.position_document(held, exchange.engine.resting())


def private_get_positions(exchange: Exchange, call: Call) -> list[dict[str, Any]]:
    exchange.query_row("positions", call)
    return [exchange.account.position_document(position, exchange.engine.resting())
            for position in exchange.account.positions.values()
            if position.lots and matches(position.instrument, call.params["currency"], call.params["kind"])]


def private_get_account_summary(exchange: Exchange, call: Call) -> dict[str, Any]:
    currency = call.params["currency"]
    if currency not in CURRENCIES:
        raise Refused(-32602, {"reason": "unknown currency", "param": "currency"})
    return exchange.summary(currency, call.params["extended"])


def private_get_account_summaries(exchange: Exchange, call: Call) -> dict[str, Any]:
    identity: Mapping[str, Any] = {}
    if call.params["extended"]:
        identity = {**IDENTITY, "block_rfq_self_match_prevention": False}
    return {**identity, "summaries": [exchange.summary(currency, False) for currency in CURRENCIES]}


def private_get_margins(exchange: Exchange, call: Call) -> dict[str, Any]:
    instrument = exchange.instrument(call.params["instrument_name"])
    lots = instrument.lots_of(call.params["amount"])
    low, high = exchange.market.band(instrument, exchange.market.mark(instrument, exchange.wall()))
    price, amount = call.params["price"], instrument.amount(lots)
    fees = {"maker": exchange.engine.fee(instrument, price, amount, maker=True),
            "taker": exchange.engine.fee(instrument, price, amount, maker=False)}
    return {"buy": round(max(exchange.account.margin_change(instrument, lots), 0.0), 9),
            "sell": round(max(exchange.account.margin_change(instrument, -lots), 0.0), 9),
            **{f"{side}_{role}_fee": fee for side in ("buy", "sell") for role, fee in fees.items()},
            "min_price": instrument.price(low), "max_price": instrument.price(high)}


def private_get_subaccounts(exchange: Exchange, call: Call) -> list[dict[str, Any]]:
    return [{key: IDENTITY[key] for key in ("username", "email", "system_name", "type", "security_keys_enabled",
                                            "login_enabled", "receive_notifications")} | {"id": USER_ID, "is_password": True}]


Handler = Callable[["Exchange", "Call"], Any]


def table(methods: Iterable[str]) -> dict[str, Handler]:
    """The handler of each method that is no placing. A method of the table without one is a mistake: KeyError."""
    found: dict[str, Handler] = {}
    for method in methods:
        if method in trading.PLACING:
            continue
        if method == "private/cancel":
            found[method] = trading.cancel
        elif method in trading.CANCELLING:
            found[method] = trading.cancel_many
        else:
            found[method] = globals()[method.replace("/", "_")]
    return found


PLACING: Mapping[str, Callable[[Exchange, Call, trading.Placing], dict[str, Any]]] = {
    "private/buy": trading.place, "private/sell": trading.place, "private/close_position": trading.close_position,
    "private/edit": trading.edit, "private/edit_by_label": trading.edit,
}
