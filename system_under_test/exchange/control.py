"""The control port: switches, acts, the clock and the books' summary. Loopback only; no client of the venue sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import orjson

from system_under_test.exchange.matching import Wanted
from system_under_test.exchange.protocol import Refused
from system_under_test.exchange.switches import Unknown

if TYPE_CHECKING:
    from system_under_test.exchange.exchange import Exchange

PLATFORM_SWITCHES = ("maintenance", "locked", "unknown_token")

encode: Callable[[Any], bytes] = orjson.dumps


def answer(exchange: Exchange, method: str, target: str, body: bytes) -> tuple[int, Any]:
    """Status and document of one control request. Never raises: a wrong request is told what is wrong."""
    parts = [unquote(part) for part in target.partition("?")[0].strip("/").split("/")]
    try:
        match method, parts:
            case "GET", ["clock"]:
                return 200, {"mono_ms": exchange._now.mono_ms, "wall_ms": exchange._now.wall_ms}
            case "GET", ["switches"]:
                return 200, exchange.switches.document()
            case "GET", ["books"]:
                return 200, _books(exchange)
            case "PUT", ["switches", name]:
                return 200, _put(exchange, name, _arguments(body))
            case "DELETE", ["switches", name]:
                return 200, _off(exchange, name)
            case "POST", ["acts", name]:
                return 200, _act(exchange, name, _arguments(body))
    except Unknown as unknown:
        return 404, {"error": str(unknown)}
    except Refused as refused:
        return 400, {"error": exchange.tables.error(refused.code, refused.data)}
    known = "GET /clock /switches /books, PUT|DELETE /switches/<name>, POST /acts/<name>"
    return (404 if method in ("GET", "PUT", "POST", "DELETE") else 405), {"error": f"known: {known}"}


def _arguments(body: bytes) -> dict[str, Any]:
    try:
        arguments = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError as why:
        raise Refused(-32700, {"reason": str(why)[:120]}) from None
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise Refused(-32602, {"reason": "a JSON object of arguments is expected"})
    return arguments


def _put(exchange: Exchange, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    if name == "reject_leg" and arguments.get("code", 10009) not in exchange.tables.errors:
        raise Refused(-32602, {"reason": "no such code in the error table", "param": "code"})
    pattern = arguments.get("instrument")
    if isinstance(pattern, str) and pattern not in ("all", "options", "futures"):
        exchange.instrument(pattern)
    switch = exchange.switches.put(name, arguments)
    if name in PLATFORM_SWITCHES:
        exchange.platform_news()
    return {"name": name, "on": True, "arguments": switch.arguments, "uses": switch.uses}


def _off(exchange: Exchange, name: str) -> dict[str, Any]:
    uses = exchange.switches.off(name)
    if name == "frozen":
        exchange.engine.frozen = frozenset()
    if name in PLATFORM_SWITCHES:
        exchange.platform_news()
    return {"uses": uses}


def _books(exchange: Exchange) -> dict[str, Any]:
    """What the exchange holds now, for people and for checks beside the log."""
    resting = exchange.engine.resting()
    return {
        "boot": exchange.boot,
        "rows": exchange.books.seq,
        "net_delta": round(exchange.account.net_delta(), 8),
        "positions": {name: position.instrument.amount(position.lots)
                      for name, position in exchange.account.positions.items() if position.lots},
        "open_orders": [order.document() for order in exchange.engine.alive.values()],
        "resting": len(list(resting)),
        "sessions": {session.conn: session.client for session in exchange.sessions.values()},
    }


# ---- acts ---------------------------------------------------------------------------------------------------------------


def _act(exchange: Exchange, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    values = exchange.switches.act(name, arguments)
    result = _ACTS[name](exchange, values)
    exchange.books.row("act", name=name, arguments=values)
    return {"name": name, **result}


def _position_behind(exchange: Exchange, values: Mapping[str, Any]) -> dict[str, Any]:
    """The position changes and nobody is told: a liquidation engine, a colleague on the web page, an error."""
    instrument = exchange.instrument(values["instrument"])
    lots = instrument.lots_of(abs(values["amount"])) * (1 if values["amount"] > 0 else -1)
    price = exchange.market.mark(instrument, exchange.wall()).price
    exchange.account.fill(instrument, lots, price, 0.0)
    size = instrument.amount(exchange.account.lots(instrument))
    exchange.books.row("position", instrument=instrument.name, size=size, change=values["amount"], price=price,
                       why="position_behind", net_delta=round(exchange.account.net_delta(), 8))
    return {"size": size}


def _ghost_order(exchange: Exchange, values: Mapping[str, Any]) -> dict[str, Any]:
    """An order of the account that the client never placed. It rests, or fills where it may; neither is any news."""
    instrument = exchange.instrument(values["instrument"])
    wanted = Wanted(instrument, values["direction"] == "buy", instrument.lots_of(values["amount"]),
                    instrument.ticks_of(values["price"]), label=values["label"],
                    post_only=values["post_only"], conn="ghost", web=True, reduce_only=values["reduce_only"])
    told = len(exchange.engine.changes)
    order, _ = exchange.engine.place(wanted)
    del exchange.engine.changes[told:]
    return {"order_id": order.id, "price": instrument.price(order.ticks or 0), "amount": instrument.amount(order.lots)}


def _signal_burst(exchange: Exchange, values: Mapping[str, Any]) -> dict[str, Any]:
    """Many large public trades at once, between others: nobody's quotes are taken."""
    instrument = exchange.instrument(values["instrument"])
    lots = instrument.lots_of(values["amount"])
    book = exchange.engine.book(instrument)
    for number in range(values["count"]):
        buy = number % 2 == 0
        ticks = (book.best_ask if buy else book.best_bid) or exchange.engine.last_ticks.get(instrument.name) or 1
        exchange.engine.print(instrument, ticks, lots, buy)
    return {"count": values["count"], "amount": instrument.amount(lots)}


def _transfer(exchange: Exchange, values: Mapping[str, Any]) -> dict[str, Any]:
    """Money comes into the account or leaves it, as when its owner moves it: no trade, and no news but the balance."""
    currency, amount = values["currency"], values["amount"]
    balances = exchange.account.balances
    if balances[currency] + amount < 0:
        raise Refused(-32602, {"reason": f"the account holds {balances[currency]} {currency}", "param": "amount"})
    balances[currency] += amount
    exchange.books.row("transfer", currency=currency, amount=amount, balance=round(balances[currency], 9))
    exchange.hub.portfolio_moved(currency)
    return {"balance": round(balances[currency], 9)}


def _price_jump(exchange: Exchange, values: Mapping[str, Any]) -> dict[str, Any]:
    """The market moves by this share from one moment to the next, and stays there."""
    index = values["index"]
    before = exchange.market.index(index)
    exchange.jump(index, values["share"])
    after = exchange.market.index(index)
    exchange.books.row("market", event="price_jump", index=index, share=values["share"], before=before, after=after)
    return {"before": before, "after": after}


_ACTS: Mapping[str, Callable[[Exchange, Mapping[str, Any]], dict[str, Any]]] = {
    "position_behind": _position_behind, "ghost_order": _ghost_order, "signal_burst": _signal_burst,
    "transfer": _transfer, "price_jump": _price_jump,
}
