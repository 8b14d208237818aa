"""A bench for the trader: virtual time, a disk that can stall, and a small fake exchange that can misbehave.

Written for these tests only. The fake is not the reference exchange: it fills at once at its own quotes and does
what a test tells it, so that a test shows what the trader makes of it.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

from system_under_test.machine import (
    Append,
    Close,
    Done,
    Durable,
    Exit,
    Failed,
    Frame,
    LogImage,
    Look,
    Note,
    Now,
    Open,
    Replace,
    Request,
    Response,
    Seen,
    Start,
    Timer,
    Unanswered,
    Value,
    link_of,
)
from system_under_test.provision import files as provisioned
from system_under_test.trader import make

PERPETUAL = "BTC-PERPETUAL"
OPTION = "BTC-25DEC26-100000-C"
WALL = 1_790_000_000_000
PRESS = 7
"""id of the request that asks for the emergency"""
SILENT = "silent"
POLICIES = Path(__file__).resolve().parents[2] / "system_under_test" / "policies"


def policy(**overrides: object) -> dict[str, Any]:
    """The drill policy, with what a test needs otherwise."""
    drill = yaml.safe_load((POLICIES / "drill.yaml").read_text())
    return {**yaml.safe_load((POLICIES / "reference.yaml").read_text()), **drill["overrides"], **overrides}


def environment(build: str = "reference-1", **overrides: object) -> dict[str, str]:
    """What stack.yaml would give the trader."""
    return {
        "CLIENT_ID": "drill", "CLIENT_SECRET": "c-7f31a9", "EMERGENCY_TOKEN": "e-5b20cc", "WATCHDOG_TOKEN": "w-91d4e2",
        "POLICY": orjson.dumps(policy(**overrides)).decode(), "DEPLOYMENT_ENVIRONMENT": "DEV", "BUILD_ID": build,
    }


def _instrument(name: str, kind: str, **more: object) -> dict[str, object]:
    return {"instrument_name": name, "kind": kind, "instrument_type": "reversed", "is_active": True,
            "settlement_period": "month", "tick_size_steps": [], **more}


INSTRUMENTS = [
    _instrument(PERPETUAL, "future", tick_size=0.5, min_trade_amount=10.0, contract_size=10.0, taker_commission=0.0005,
                maker_commission=0.0, expiration_timestamp=32_503_708_800_000, settlement_period="perpetual"),
    _instrument(OPTION, "option", tick_size=0.0001, tick_size_steps=[{"above_price": 0.005, "tick_size": 0.0005}],
                min_trade_amount=0.1, contract_size=1.0, taker_commission=0.0003, maker_commission=0.0003,
                expiration_timestamp=WALL + 30 * 86_400_000, strike=100_000.0, option_type="call"),
]


@dataclass
class FakeExchange:
    """Quotes, orders, fills, positions. Every knob is a plain attribute that a test sets."""

    clock: Callable[[], int]
    index: float = 100_000.0
    quotes: dict[str, tuple[float, float, float]] = field(default_factory=lambda: {
        PERPETUAL: (99_990.0, 100_000.0, 500_000.0), OPTION: (0.0300, 0.0305, 25.0)})
    delta: float = 0.5
    positions: dict[str, float] = field(default_factory=dict)
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    trades: list[dict[str, Any]] = field(default_factory=list)
    placed: list[dict[str, Any]] = field(default_factory=list)
    rejects: Callable[[dict[str, Any]], int | None] = lambda params: None
    fill_fraction: Callable[[dict[str, Any]], float] = lambda params: 1.0
    silent: Callable[[str, Mapping[str, Any]], bool] = lambda method, params: False
    error: Callable[[str, Mapping[str, Any]], int | None] = lambda method, params: None
    http_status: int = 200
    feed: bool = True
    heartbeats: bool = True
    fill_news: bool = True
    state_word: str | None = None
    maintenance_margin: float = 0.5
    change_id: int = 1
    fills: int = 0
    trade_seq: int = 1
    skip_change: bool = False
    queries: list[str] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    """(connection, method) of everything that arrived"""

    def answer(self, conn: str, method: str, params: Mapping[str, Any]) -> tuple[Any, int | None]:
        """Result and error code."""
        self.seen.append((conn, method))
        code = self.error(method, params)
        if code is not None:
            return None, code
        handler = getattr(self, "on_" + method.replace("/", "_"), None)
        return ("ok", None) if handler is None else handler(params)

    def on_public_hello(self, params: Any) -> Any:
        return {"version": "1"}, None

    def on_public_auth(self, params: Any) -> Any:
        return {"access_token": "t", "expires_in": 900, "refresh_token": "r", "scope": "", "token_type": "bearer"}, None

    def on_public_subscribe(self, params: Any) -> Any:
        return list(params["channels"]), None

    on_private_subscribe = on_public_unsubscribe = on_public_subscribe

    def on_public_get_time(self, params: Any) -> Any:
        return self.clock(), None

    def on_public_status(self, params: Any) -> Any:
        return {"locked": "false", "locked_indices": []}, None

    def on_public_get_instruments(self, params: Any) -> Any:
        return INSTRUMENTS, None

    def on_public_ticker(self, params: Any) -> Any:
        return self.ticker(params["instrument_name"]), None

    def on_public_get_order_book(self, params: Any) -> Any:
        return self.book(params["instrument_name"]), None

    def on_private_get_account_summary(self, params: Any) -> Any:
        limits = {"matching_engine": {"trading": {"total": {"rate": 20, "burst": 200}}}}
        return {"equity": 10.0, "maintenance_margin": self.maintenance_margin, "limits": limits}, None

    def on_private_get_positions(self, params: Any) -> Any:
        self.queries.append("positions")
        return [{"instrument_name": name, "size": size, "direction": "buy" if size > 0 else "sell" if size else "zero"}
                for name, size in self.positions.items()], None

    def on_private_get_open_orders_by_currency(self, params: Any) -> Any:
        self.queries.append("open_orders")
        return [order for order in self.orders.values() if order["order_state"] == "open"], None

    def on_private_get_user_trades_by_currency_and_time(self, params: Any) -> Any:
        self.queries.append("user_trades")
        return {"trades": list(self.trades), "has_more": False}, None

    def on_private_get_order_state_by_label(self, params: Any) -> Any:
        self.queries.append("by_label")
        return [order for order in self.orders.values() if order["label"] == params["label"]], None

    def on_private_buy(self, params: Any) -> Any:
        return self.place("buy", params)

    def on_private_sell(self, params: Any) -> Any:
        return self.place("sell", params)

    def on_private_cancel(self, params: Any) -> Any:
        order = self.orders[params["order_id"]]
        order.update(order_state="cancelled", cancel_reason="user_request")
        return dict(order), None

    def place(self, side: str, params: dict[str, Any]) -> tuple[Any, int | None]:
        """Fill at the quote, at once, as much as the knobs allow."""
        self.placed.append({"side": side, **params})
        if params["valid_until"] < self.clock():
            return None, 13888
        code = self.rejects({"side": side, **params})
        if code is not None:
            return None, code
        bid, ask, _ = self.quotes[params["instrument_name"]]
        crosses = params["price"] >= ask if side == "buy" else params["price"] <= bid
        resting = params["time_in_force"] == "good_til_cancelled"
        amount = params["amount"]
        filled = 0.0
        if crosses:
            step = 10.0 if params["instrument_name"] == PERPETUAL else 0.1
            share = self.fill_fraction({"side": side, **params})
            filled = amount if share == 1.0 else round(math.floor(amount * share / step + 1e-9) * step, 9)
        order_id = f"BTC-{len(self.orders) + 1}"
        state = "filled" if filled == amount else "open" if resting else "cancelled"
        order = {"order_id": order_id, "label": params["label"], "instrument_name": params["instrument_name"],
                 "direction": side, "amount": amount, "filled_amount": filled, "order_state": self.state_word or state,
                 "price": params["price"], "reduce_only": params.get("reduce_only", False)}
        self.orders[order_id] = order
        trades = []
        if filled:
            name = params["instrument_name"]
            self.positions[name] = round(self.positions.get(name, 0.0) + (filled if side == "buy" else -filled), 9)
            self.fills += 1
            trades = [{"trade_id": f"T{self.fills}", "trade_seq": self.fills, "order_id": order_id,
                       "label": params["label"], "instrument_name": name, "direction": side, "amount": filled,
                       "price": ask if side == "buy" else bid, "timestamp": self.clock()}]
            self.trades += trades
        return {"order": dict(order), "trades": trades if self.fill_news else []}, None

    def ticker(self, name: str) -> dict[str, Any]:
        bid, ask, _ = self.quotes[name]
        document = {"instrument_name": name, "timestamp": self.clock(), "best_bid_price": bid, "best_ask_price": ask,
                    "mark_price": (bid + ask) / 2, "last_price": (bid + ask) / 2, "index_price": self.index}
        if name == PERPETUAL:
            document.update(mark_price=self.index, last_price=self.index)
        else:
            document["greeks"] = {"delta": self.delta}
        return document

    def book(self, name: str) -> dict[str, Any]:
        bid, ask, amount = self.quotes[name]
        return {"instrument_name": name, "timestamp": self.clock(), "change_id": self.change_id,
                "bids": [[bid, amount]] if amount else [], "asks": [[ask, amount]] if amount else []}


class Bench:
    """One trader over several lives, with its disk, its links and the exchange."""

    def __init__(self, build: str = "reference-1", seed: int = 7, watchdog: bool = True, **overrides: object) -> None:
        self.overrides, self.seed, self.watchdog = overrides, seed, watchdog
        self.mono, self.wall_shift, self.boot = 1_000, 0, 0
        self.log: list[bytes] = []
        self.files: dict[str, bytes] = {}
        self.notes: list[tuple[str, str | None, dict[str, Any]]] = []
        self.exchange = FakeExchange(lambda: WALL + self.mono)
        self.disk_stalled = False
        self.replaced: list[Replace] = []
        self.refuses: Callable[[Replace], str | None] = lambda value: None
        """why a file is not replaced; SILENT: nobody ever says"""
        self.answered: list[Response] = []
        self.unacked: list[int] = []
        self.cut: set[str] = set()
        self.links: dict[str, str] = {}
        self.exited: int | None = None
        self.crash_before: Callable[[Value], bool] | None = None
        self.crashed = False
        self.lose_unsynced = False
        self.out_count = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._timer: int | None = None
        self.life(build)

    # ---- life ----

    def life(self, build: str = "reference-1") -> None:
        """Start the trader over what the disk holds."""
        self.boot += 1
        self.crashed, self.crash_before = False, None
        self._queue.clear()
        self.links, self.unacked = {}, []
        self.environment = environment(build, **self.overrides)
        self.files.update(provisioned(self.environment, WALL + self.mono))
        self.trader = make(self.environment)
        self.appended = len(self.log)
        self.give(Start(self.boot, self.seed, {"ledger": LogImage(tuple(self.log))}, dict(self.files)))
        self._feed()
        if self.watchdog:
            self._watch()

    def kill(self, lose_unsynced: bool = False) -> None:
        """kill -9: the trader's connections fall, and the exchange cancels what rests of them."""
        self.crashed = True
        self._queue.clear()
        if lose_unsynced:
            self.log = self.log[:len(self.log) - len(self.unacked)]
        for order in self.exchange.orders.values():
            if order["order_state"] == "open":
                order.update(order_state="cancelled", cancel_reason="cancel_on_disconnect")

    # ---- time ----

    def later(self, after_ms: int, act: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.mono + after_ms, next(self._order), act))

    def run(self, for_ms: int) -> None:
        """Let virtual time pass."""
        until = self.mono + for_ms
        while self._queue and self._queue[0][0] <= until and not self.crashed:
            at, _, act = heapq.heappop(self._queue)
            self.mono = max(self.mono, at)
            act()
        self.mono = max(self.mono, until)

    def until(self, condition: Callable[[], bool], for_ms: int = 30_000) -> None:
        """Let time pass until something holds; fails when it does not."""
        deadline = self.mono + for_ms
        while not condition():
            assert self.mono < deadline, f"did not happen; {self.status()['mode_reasons']} {self.notes[-12:]}"
            self.run(50)

    def active(self) -> Bench:
        """Wait until the trader is Active."""
        self.until(lambda: self.status()["trading_mode"] == "Active")
        return self

    # ---- the shell ----

    def give(self, value: Value) -> tuple[Value, ...]:
        """Hand the trader one value and carry out what it returns."""
        if self.crashed:
            return ()
        out = self.trader.handle(Now(self.mono, WALL + self.mono + self.wall_shift), value)
        for each in out:
            if self.crashed:
                break
            if not isinstance(each, Note | Timer | Look):
                self.out_count += 1
                if self.crash_before is not None and self.crash_before(each):
                    self.kill(self.lose_unsynced)
                    break
            self._carry(each)
        return out

    def _carry(self, value: Value) -> None:
        if isinstance(value, Note):
            self.notes.append((value.kind, value.intent_id, dict(value.fields)))
        elif isinstance(value, Append):
            assert value.seq == self.appended + 1, "sequence numbers have no holes"
            self.appended = value.seq
            self.unacked.append(value.seq)
            self.log.append(value.data)
            if not self.disk_stalled:
                self.later(1, self._sync)
        elif isinstance(value, Timer):
            if value.at_ms is not None:
                due = value.at_ms
                self.later(max(0, due - self.mono), lambda: self.give(Timer(value.name, due)))
        elif isinstance(value, Look):
            found = {"disk_primary": b"0.41", "disk_secondary": b"0.40"}.get(value.source, self.files.get(value.source))
            self.later(1, lambda: self.give(Seen(value.source, found)))
        elif isinstance(value, Replace):
            self._replace(value)
        elif isinstance(value, Response) and value.id == PRESS:
            self.answered.append(value)
        elif isinstance(value, Exit):
            self.exited = value.code
        else:
            self._wire(value)

    def _replace(self, value: Replace) -> None:
        self.replaced.append(value)
        why = self.refuses(value)
        if why is None:
            self.files[value.file] = value.data
            self.later(1, lambda: self.give(Done(value.file)))
        elif why != SILENT:
            self.later(1, lambda: self.give(Failed(value, why)))

    def _sync(self) -> None:
        if self.unacked and not self.disk_stalled:
            last = self.unacked[-1]
            self.unacked.clear()
            self.give(Durable("ledger", last))

    def heal_disk(self) -> None:
        self.disk_stalled = False
        self._sync()

    def _wire(self, value: Value) -> None:
        if isinstance(value, Open):
            link = link_of(value.conn)
            if link in self.cut:
                self.later(1, lambda: self.give(Close(value.conn, "refused")))
            else:
                self.links[link] = value.conn
                self.later(1, lambda: self.give(Open(value.conn)))
        elif isinstance(value, Close):
            self._fallen(value.conn)
        elif isinstance(value, Frame):
            self._ask(value.conn, orjson.loads(value.data))
        elif isinstance(value, Request):
            self._http(value)

    def _fallen(self, conn: str) -> None:
        if self.links.get(link_of(conn)) == conn:
            del self.links[link_of(conn)]

    def drop(self, link: str, why: str = "cut") -> None:
        """The connection of a link falls."""
        conn = self.links.pop(link, None)
        if conn is not None:
            self.give(Close(conn, why))

    def _ask(self, conn: str, message: dict[str, Any]) -> None:
        method, params = message["method"], message["params"]
        link = link_of(conn)
        if link in self.cut or self.links.get(link) != conn:
            return
        result, code = self.exchange.answer(link, method, params)
        if self.exchange.silent(method, params):
            return
        body = {"jsonrpc": "2.0", "id": message["id"]}
        body |= {"result": result} if code is None else {"error": {"code": code, "message": f"e{code}"}}
        self.later(1, lambda: self.links.get(link) == conn and self.give(Frame(conn, orjson.dumps(body))))

    def _http(self, request: Request) -> None:
        if "rest" in self.cut:
            self.later(1, lambda: self.give(Unanswered(request.conn, request.id, False, "refused")))
            return
        message = orjson.loads(request.body)
        result, code = self.exchange.answer("rest", message["method"], message["params"])
        if self.exchange.silent(message["method"], message["params"]):
            return
        body = {"jsonrpc": "2.0", "id": message["id"]}
        body |= {"result": result} if code is None else {"error": {"code": code, "message": f"e{code}"}}
        status = self.exchange.http_status if code is not None else 200
        self.later(1, lambda: self.give(Response(request.conn, request.id, status, (), orjson.dumps(body))))

    def push(self, link: str, channel: str, data: object) -> None:
        """A notification of the exchange."""
        conn = self.links.get(link)
        if conn is not None and link not in self.cut:
            message = {"jsonrpc": "2.0", "method": "subscription", "params": {"channel": channel, "data": data}}
            self.give(Frame(conn, orjson.dumps(message)))

    def _feed(self) -> None:
        if self.exchange.feed and self.trader.venue.ready("market_data"):
            for name in self.trader._channels_for:
                self._book(name)
                self.push("market_data", f"ticker.{name}.100ms", self.exchange.ticker(name))
        for link, conn in list(self.links.items()):
            if self.mono % 5_000 < 100 and link not in self.cut and self.exchange.heartbeats:
                self.give(Frame(conn, b'{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"heartbeat"}}'))
        self.later(100, self._feed)

    def _book(self, name: str) -> None:
        exchange = self.exchange
        held = self.trader.market.books.get(name)
        data: dict[str, Any] = exchange.book(name)
        exchange.change_id += 1
        data["change_id"] = exchange.change_id
        for side in ("bids", "asks"):
            data[side] = [["new", *level] for level in data[side]]
        data["type"] = "snapshot"
        if held is not None and held.synced and exchange.skip_change and name == PERPETUAL:
            exchange.skip_change = False
            data |= {"type": "change", "prev_change_id": exchange.change_id + 5, "change_id": exchange.change_id + 6}
            exchange.change_id += 10
        self.push("market_data", f"book.{name}.100ms", data)

    def _watch(self) -> None:
        self.get("/api/v1/health", self.environment["WATCHDOG_TOKEN"])
        self.later(500, self._watch)

    # ---- the control plane ----

    def get(self, path: str, token: str | None = None, method: str = "GET") -> Response:
        headers = (("authorization", f"Bearer {token}"),) if token else ()
        out = self.give(Request("control_plane#1", 1, method, path, headers))
        return next(value for value in out if isinstance(value, Response))

    def press(self) -> list[Response]:
        """Ask for the emergency with its token; the list to which its answer will come."""
        self.answered = []
        self.give(Request("control_plane#1", PRESS, "POST", "/api/v1/emergency/reduce_only",
                          (("authorization", f"Bearer {self.environment['EMERGENCY_TOKEN']}"),)))
        return self.answered

    def status(self) -> dict[str, Any]:
        return orjson.loads(self.get("/api/v1/status").body)

    # ---- reading ----

    def noted(self, kind: str, **fields: object) -> list[tuple[str, str | None, dict[str, Any]]]:
        return [note for note in self.notes if note[0] == kind
                and all(note[2].get(name) == value for name, value in fields.items())]

    def state(self, name: str) -> dict[str, Any]:
        """A state file as it stands."""
        return orjson.loads(self.files[f"state/{name}.json"])

    def rows(self, kind: str) -> list[dict[str, Any]]:
        return [row for row in map(orjson.loads, self.log) if row["kind"] == kind]

    def sent(self, **fields: object) -> list[dict[str, Any]]:
        return [order for order in self.exchange.placed
                if all(order.get(name) == value for name, value in fields.items())]
