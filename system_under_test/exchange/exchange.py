"""The exchange as a machine: values in, values out, nothing else.

``handle`` takes one value, lets the part concerned act, and then spreads what happened: rows of the books first (they
are written as things happen), then answers, then news. Every answer and every order row comes out of ``_answer``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from system_under_test.exchange import control, dice, handlers, protocol, replay
from system_under_test.exchange.account import Account
from system_under_test.exchange.channels import BookFeed, Feed, Hub
from system_under_test.exchange.instruments import Instrument, listing, next_friday
from system_under_test.exchange.market import Market, Shape
from system_under_test.exchange.matching import Change, Engine, Wanted
from system_under_test.exchange.orders import Order, Trade
from system_under_test.exchange.protocol import Envelope, Method, Refused, Tables
from system_under_test.exchange.quotes import Quotes
from system_under_test.exchange.sessions import Credits, Grant, Session, Tokens
from system_under_test.exchange.switches import Switches, names
from system_under_test.exchange.trading import CANCELLING, PLACING, Placing
from system_under_test.exchange.witness import LOG, Books
from system_under_test.machine import (
    Close,
    Exit,
    Frame,
    Now,
    Open,
    Request,
    Response,
    Start,
    Stop,
    Timer,
    Value,
    link_of,
)

SENDS_EVERY_MS = 1_000
"""How often the books say how much was sent to a connection that is being sent to."""
SILENT_MS_MAX = 600_000
"""Cancel-on-disconnect fires after this much silence (the venue's ten minutes)."""
PATTERN_TRADES = {"BTC-PERPETUAL": 1.0, "ETH-PERPETUAL": 0.3}
"""Public trades per second of instruments that anybody follows; others 0.05."""
SPECS = Path(__file__).resolve().parents[2] / "specs"
_JSON = (("content-type", "application/json"),)
_HELD = object()
"""The result of a call that is never answered."""


@dataclass(slots=True, eq=False)
class Call:
    """One request on its way through the exchange."""

    session: Session
    transport: str
    id: Any
    method: Method
    raw: Mapping[str, Any]
    textual: bool
    now_ms: int
    params: dict[str, Any] = field(default_factory=dict)
    afterwards: list[str] = field(default_factory=list)
    """channels whose first message goes out behind the answer"""
    label: str | None = None


class Exchange:
    """The reducer. Parts hang on it: market, account, engine, quotes, hub, tokens, switches, books."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        specs = Path(environment.get("SPECS") or SPECS)
        self.tables = Tables.load(specs)
        self._handlers = handlers.table(self.tables.methods)
        self._out: list[Value] = []
        self._now = Now(0, 0)
        self._wall_ms = 0
        self._tick_ms = int(environment.get("MARKET_TICK_MS") or 200)
        self._grace_ms = int(environment.get("HEARTBEAT_GRACE_MS") or 5_000)
        self.books = Books(self._out.append)
        self.switches = Switches(specs, self._switched)
        self.sessions: dict[str, Session] = {}
        self.cancel_on_disconnect_default = False
        self._account_pools: dict[str, Credits] = {}
        self._http_pools: dict[str, Credits] = {}
        self.expired: dict[str, Instrument] = {}
        self._late: list[tuple[int, Change]] = []
        self._news: dict[str, str] = {}
        self._roll_ms = 0
        self._flush_at: int | None = None
        self._http = Session("", websocket=False)
        self.boot = 0
        self._takers: dict[type, Callable[[Any], None]] = {
            Start: self._start, Frame: self._frame, Request: self._request, Timer: self._timer, Open: self._opened,
            Close: self._closed, Stop: self._stop,
        }

    # ---- life

    def handle(self, now: Now, value: Value) -> tuple[Value, ...]:
        """Take one value, return what goes out."""
        take = self._takers.get(type(value))
        if take is None:  # such as Durable: nobody waits for the books
            return ()
        self._now = now
        offset = self.switches.get("time_offset")
        self._wall_ms = now.wall_ms + (offset["ms"] if offset else 0)
        self.books.at_ms = now.mono_ms
        take(value)
        if self.boot:
            self._spread()
        out = tuple(self._out)
        self._out.clear()
        return out

    def _start(self, start: Start) -> None:
        self.seed, self.boot = start.seed, start.boot
        image = start.logs.get(LOG)
        self.books.resume(len(image.records) if image else 0)
        self.market = Market(self.seed)
        balances = {code: float(self._environment.get(f"BALANCE_{code}") or amount)
                    for code, amount in (("BTC", 100.0), ("ETH", 1_000.0), ("USDC", 1_000_000.0))}
        self.account = Account(self.market, balances, self.wall)
        self.books.news_of = self._news_of
        self.engine = Engine(self.market, self.account, self.books, self.wall)
        self.engine.shape = self._shape
        self.quotes = Quotes(self.engine, self.seed, self.wall)
        self.quotes.crossed, self.quotes.state_of = self._crossed, self.state_of
        self.hub = Hub(self.quotes, self.wall, self._send, self.engine.instruments.get)
        self.hub.index, self.hub.volatility = self.index_document, self._volatility_document
        self.hub.portfolio, self.hub.times = lambda currency: self.summary(currency, False), self._times
        credentials = {self._environment.get("CLIENT_ID") or "drill": self._environment.get("CLIENT_SECRET") or "drill"}
        self.tokens = Tokens(self.seed + 1_000_003 * start.boot, credentials,
                             int(self._environment.get("TOKEN_TTL_S") or 900))
        self._flow = dice.stream(self.seed, f"flow:{start.boot}")
        self._roll(first=True)
        if image:
            replay.restore(self, image.records)
        self.books.row("boot", boot=start.boot, mono=self._now.mono_ms, index=self.market.index("btc_usd"),
                       net_delta=round(self.account.net_delta(), 8))
        self._out.append(Timer("tick", self._now.mono_ms + self._tick_ms))

    def wall(self) -> int:
        """The exchange's time, Unix milliseconds: the wall clock and what the time_offset switch adds."""
        return self._wall_ms

    def told_time(self) -> int:
        if self.switches.active("time_offset"):
            self.use("time_offset")
        return self.wall()

    def _timer(self, timer: Timer) -> None:
        if timer.name == "tick":
            planned = timer.at_ms if timer.at_ms is not None else self._now.mono_ms
            self._out.append(Timer("tick", max(planned, self._now.mono_ms - self._tick_ms) + self._tick_ms))
            self._tick()
        elif timer.name == "flush":
            self._flush_at = None
        elif timer.name == "late":
            self._tell_late()
        elif timer.name.startswith("heart:"):
            session = self.sessions.get(timer.name[6:])
            if session is not None:
                self._heart(session)

    # ---- market

    def _tick(self) -> None:
        """One step of the market, and of everything that only needs looking at now and then."""
        frozen = self._frozen()
        engine, live = self.engine, list(self.hub.by_instrument)
        if frozen != "all":
            engine.frozen = frozenset(frozen)
            self.market.tick(engine.frozen)
            moving = dict.fromkeys(live)
            if engine.alive:
                moving.update((order.instrument.name, None) for order in engine.alive.values())
            for name in moving:
                instrument = engine.instruments.get(name)
                if instrument is not None and name not in engine.frozen:
                    engine.requote(instrument)
                    self.hub.book_moved(name)
                    engine.dirty.pop(name)  # as requoting always marks it, and this is said already
            self._public_trades(live)
            self.hub.indices_moved()
        if engine.alive:
            engine.pass_time()
        self._count_sends()
        if self.wall() >= self._roll_ms:
            self._roll()

    def jump(self, index: str, share: float) -> None:
        """The market moves at once: index, marks and the quotes of whoever is looked at or has orders; where somebody
        trades now it is at the new price, so that no last price of before stays behind."""
        engine, still = self.engine, self._still()
        self.market.jump(index, share, still)
        names = dict.fromkeys((*PATTERN_TRADES, *self.hub.by_instrument, *(o.instrument.name for o in engine.alive.values())))
        for each in [engine.instruments[name] for name in names if name in engine.instruments and name not in still]:
            if each.index.removesuffix("c") == index:
                engine.requote(each)
                engine.background(each, share > 0, 1)
                self.hub.book_moved(each.name)
        self.hub.indices_moved()

    def _frozen(self) -> str | list[str]:
        """``all`` or the names that stand still. A switch that nobody would notice is not used."""
        arguments = self.switches.get("frozen")
        if arguments is None:
            return []
        still = self._still()
        if any(name in self.hub.by_instrument for name in still):
            self.use("frozen")
        return "all" if arguments["instrument"] == "all" else list(still)

    def _still(self) -> frozenset[str]:
        """The instruments whose market stands still."""
        arguments = self.switches.get("frozen")
        return frozenset() if arguments is None else frozenset(
            name for name, each in self.engine.instruments.items() if names(arguments["instrument"], each))

    def _public_trades(self, live: list[str]) -> None:
        """Others trade: small amounts, below any signal."""
        for name in dict.fromkeys(["BTC-PERPETUAL", *live]):
            instrument = self.engine.instruments.get(name)
            if instrument is None or name in self.engine.frozen:
                continue
            rate = PATTERN_TRADES.get(name, 0.05)
            if self._flow.random() < rate * self._tick_ms / 1_000:
                lots = int(self._flow.random() ** 3 * (2_000 if not instrument.option else 10)) + 1
                self.engine.background(instrument, self._flow.random() < 0.5, lots)

    def _roll(self, first: bool = False) -> None:
        """Deliver what has expired, list what is new."""
        now = self.wall()
        self._roll_ms = next_friday(now)
        listed = {each.name: each for each in listing(now)}
        for name, instrument in list(self.engine.instruments.items()):
            if now >= instrument.expires_ms:
                self._deliver(instrument)
                self.expired[name] = self.engine.instruments.pop(name)
        for name, instrument in listed.items():
            if name not in self.engine.instruments:
                self.engine.instruments[name] = instrument
                if not first:
                    self._state_news(instrument, "created")

    def _deliver(self, instrument: Instrument) -> None:
        """Cash settlement at the index: orders end, the position becomes money."""
        self.engine.deliver(instrument)
        lots = self.account.lots(instrument)
        if lots:
            index = self.market.index(instrument.index)
            price = index
            if instrument.option:
                side = 1 if instrument.call else -1
                price = max(side * (index - instrument.strike), 0.0) / index
            self.account.fill(instrument, -lots, price, 0.0)
            self.books.row("position", instrument=instrument.name, size=0.0, why="delivery", price=price)
        self._state_news(instrument, "delivered")

    def _state_news(self, instrument: Instrument, state: str) -> None:
        data = {"instrument_name": instrument.name, "state": state, "timestamp": self.wall()}
        for kind in (instrument.kind, "any"):
            for currency in (instrument.settlement, "any"):
                self.hub.say(f"instrument.state.{kind}.{currency}", data)

    def find(self, name: str) -> Instrument | None:
        return self.engine.instruments.get(name) or self.expired.get(name)

    def instrument(self, name: str) -> Instrument:
        """A listed or expired instrument. Raises Refused."""
        found = self.find(name)
        if found is None:
            raise Refused(10020, {"reason": "unknown instrument", "param": "instrument_name"})
        return found

    def state_of(self, instrument: Instrument) -> str:
        if self._wall_ms >= instrument.expires_ms:
            return "delivered"
        if not self.switches.any_on:
            return "open"
        return "locked" if self.switches.active("locked") or self.switches.active("maintenance") else "open"

    def index_document(self, name: str) -> dict[str, Any] | None:
        if name not in self.market.index_names():
            return None
        return {"index_name": name, "price": self.market.index(name), "timestamp": self.wall()}

    def _volatility_document(self, name: str) -> dict[str, Any] | None:
        if name not in ("btc_usd", "eth_usd"):
            return None
        return {"index_name": name, "volatility": round(self.market.volatility, 2), "timestamp": self.wall(),
                "estimated_delivery": round(self.market.volatility, 2)}

    def summary(self, currency: str, extended: bool) -> dict[str, Any]:
        return self.account.summary(currency, self.engine.resting(), self.limits(), extended)

    def limits(self) -> dict[str, Any]:
        """Credit pools in calls, as the account summary shows them."""
        def calls(pool: str) -> dict[str, int]:
            form = self._pool(pool)
            return {"burst": form.burst // form.cost, "rate": form.rate // form.cost}

        trading = calls("trading")
        return {"limits_per_currency": False, "non_matching_engine": calls("non_matching"),
                "matching_engine": {"trading": {"total": trading}, "spot": trading, "quotes": trading, "max_quotes": trading,
                                    "guaranteed_quotes": trading, "cancel_all": calls("cancel_all")}}

    # ---- connections

    def _stop(self, stop: Stop) -> None:
        self._out.append(Exit(0))

    def _closed(self, close: Close) -> None:
        session = self.sessions.get(close.conn)
        if session is not None:
            self._gone(session, close.why, "closed")

    def _opened(self, opened: Open) -> None:
        conn = opened.conn
        if link_of(conn) == "control":  # the control port speaks HTTP only
            self._out.append(Close(conn, "no WebSocket here"))
            return
        session = Session(conn, websocket=True, heard_ms=self._now.mono_ms,
                          cancel_on_disconnect=self.cancel_on_disconnect_default)
        self.sessions[conn] = session
        self.session_row(session, "opened", "")

    def session_row(self, session: Session, event: str, why: str) -> None:
        self.books.row("session", conn=session.conn, client=session.client, event=event, why=why[:200])

    def end(self, session: Session, why: str) -> None:
        """Close a connection from this side, once the answer under way is out."""
        session.closing = True
        self._out.append(Close(session.conn, why))
        self._gone(session, why, "ended")

    def _gone(self, session: Session, why: str, event: str) -> None:
        self._tell_sends(session)
        self.session_row(session, event, why)
        if session.heartbeat_ms is not None:
            self._out.append(Timer(f"heart:{session.conn}", None))
        for channel in list(session.channels):
            self.hub.unsubscribe(session, channel)
        self.sessions.pop(session.conn, None)
        self.tokens.closed(session.conn)
        self._disconnected(session)

    def _disconnected(self, session: Session) -> None:
        """Cancel-on-disconnect: the orders of this connection, if it is armed."""
        if not session.cancel_on_disconnect:
            return
        for order in [o for o in self.engine.alive.values() if o.conn == session.conn]:
            self.engine.cancel(order, "cancel_on_disconnect")

    def beat(self, session: Session, interval_ms: int | None, now_ms: int) -> None:
        """Set or stop a connection's heartbeat."""
        session.heartbeat_ms, session.tested = interval_ms, False
        at = None if interval_ms is None else now_ms + interval_ms
        self._out.append(Timer(f"heart:{session.conn}", at))

    def _heart(self, session: Session) -> None:
        """A beat is due, or the answer to a test_request is."""
        if session.heartbeat_ms is None:
            return
        now = self._now.mono_ms
        if session.tested:
            self.end(session, "heartbeat: test_request was not answered")
            return
        silent = now - session.heard_ms >= session.heartbeat_ms
        self._send(session, protocol.heartbeat("test_request" if silent else "heartbeat"))
        session.tested = silent
        self._out.append(Timer(f"heart:{session.conn}", now + (self._grace_ms if silent else session.heartbeat_ms)))

    def _heard(self, session: Session) -> None:
        session.heard_ms = self._now.mono_ms
        session.disconnect_fired = False
        if session.tested:
            self.beat(session, session.heartbeat_ms, self._now.mono_ms)

    def _send(self, session: Session, data: bytes) -> None:
        if not session.closing:
            session.frames += 1
            session.bytes += len(data)
            self._out.append(Frame(session.conn, data))

    def _count_sends(self) -> None:
        now = self._now.mono_ms
        for session in self.sessions.values():
            if session.frames != session.told_frames and now - session.told_ms >= SENDS_EVERY_MS:
                self._tell_sends(session)
            if now - session.heard_ms >= SILENT_MS_MAX and not session.disconnect_fired:
                session.disconnect_fired = True
                self._disconnected(session)

    def _tell_sends(self, session: Session) -> None:
        if session.frames != session.told_frames:
            session.told_frames, session.told_ms = session.frames, self._now.mono_ms
            self.books.row("sends", conn=session.conn, client=session.client, frames=session.frames, bytes=session.bytes)

    def authorised(self, session: Session, now_ms: int) -> bool:
        return session.grant is not None and now_ms < session.grant.expires_ms

    # ---- requests

    def _frame(self, frame: Frame) -> None:
        session = self.sessions.get(frame.conn)
        if session is None:
            return
        self._heard(session)
        if len(frame.data) > protocol.FRAME_BYTES_MAX:
            self.end(session, "Message Too Big")
            return
        try:
            envelope = protocol.read_frame(frame.data)
            if envelope.id is None:
                raise Refused(11050, {"reason": "id is required", "param": "id"})
        except Refused as refused:
            self._malformed(session, refused)
            return
        body, call = self._answer(envelope, session, "ws", None)
        if body is None:
            return
        if call is not None:
            self._answer_row(call, body)
        self._send(session, protocol.answer(envelope.id, self.wall(), body))
        for channel in call.afterwards if call else ():
            if channel in session.channels:
                self.hub.greet(session, channel)
        reason = (body.get("error", {}).get("data") or {}).get("reason")
        if reason in ("session_terminated", "credits_exhausted"):
            self.end(session, str(reason))

    def _malformed(self, session: Session, refused: Refused) -> None:
        known: Envelope = getattr(refused, "envelope", Envelope())
        self.books.row("request", conn=session.conn, client=session.client, transport="ws", method=None, id=None)
        body = {"error": self.tables.error(refused.code, refused.data)}
        self._send(session, protocol.answer(known.id, self.wall(), body))

    def _request(self, request: Request) -> None:
        if link_of(request.conn) == "control":
            status, document = control.answer(self, request.method, request.target, request.body)
            self._out.append(Response(request.conn, request.id, status, _JSON, control.encode(document)))
            return
        status, body = self._http_answer(request)
        if status:
            self._out.append(Response(request.conn, request.id, status, _JSON, body))

    def _http_answer(self, request: Request) -> tuple[int, bytes]:
        """Status and body; status 0 is an answer that is held for ever."""
        if request.method not in ("GET", "POST"):
            return 405, b'{"error":"method not allowed"}'
        session = self._http_session(request)
        id: Any = ...
        try:
            envelope = protocol.read_http(request.method, request.target, request.body)
            if envelope is None:
                return 404, b'{"error":"not found"}'
            id = envelope.id
            body, call = self._answer(envelope, session, "http", request)
        except Refused as refused:
            body, call = {"error": self.tables.error(refused.code, refused.data)}, None
            id = getattr(refused, "envelope", Envelope(id=id)).id
        if body is None:
            return 0, b""
        if call is not None:
            self._answer_row(call, body)
        status = self.tables.errors[body["error"]["code"]][1] if "error" in body else 200
        return status, protocol.answer(id, self.wall(), body)

    def _http_session(self, request: Request) -> Session:
        agent = next((text for name, text in request.headers if name == "user-agent"), "http")
        return Session(request.conn, websocket=False, client=agent[:64], pools=self._http_pools)

    def _answer(self, envelope: Envelope, session: Session, transport: str,
                request: Request | None) -> tuple[dict[str, Any] | None, Call | None]:
        """What one call is answered with; None is no answer. The only place that turns refusals into errors."""
        now = self._now.mono_ms
        self.books.row("request", conn=session.conn, client=session.client, transport=transport,
                       method=envelope.method[:64], id=envelope.id if isinstance(envelope.id, int | str) else None)
        method = self.tables.methods.get(envelope.method)
        if method is None:
            return {"error": self.tables.error(-32601, None)}, None
        call = Call(session, transport, envelope.id, method, envelope.params, envelope.textual, now)
        placing = Placing(self, call) if method.name in PLACING else None
        try:
            self._admit(call, request)
            call.params = protocol.check(method, envelope.params, envelope.textual)
            if placing is not None:
                result = handlers.PLACING[method.name](self, call, placing)
            else:
                result = self._handlers[method.name](self, call)
        except Refused as refused:
            if placing is not None:
                placing.guess()
                placing.row(refused)
            return {"error": self.tables.error(refused.code, refused.data)}, call
        if result is _HELD or method.result == "none":
            return None, call
        return {"result": result}, call

    def _answer_row(self, call: Call, body: Mapping[str, Any]) -> None:
        """An answer to an order or cancel method is about to be sent."""
        if call.method.name not in PLACING and call.method.name not in CANCELLING:
            return
        result = body.get("result")
        order = result.get("order", result) if isinstance(result, dict) else {}
        label = order.get("label", call.raw.get("label"))
        self.books.row("answer", conn=call.session.conn, client=call.session.client, method=call.method.name,
                       id=call.id if isinstance(call.id, int | str) else None,
                       label=label[:64] if isinstance(label, str) else None,
                       code=body["error"]["code"] if "error" in body else None)

    def query_row(self, what: str, call: Call) -> None:
        self.books.row("query", what=what, conn=call.session.conn, client=call.session.client, transport=call.transport)

    # ---- admission

    def _admit(self, call: Call, request: Request | None) -> None:
        """Everything that is asked before a handler is: transport, throttle, maintenance, papers, credits. Raises Refused."""
        method = call.method
        if method.websocket_only and call.transport != "ws":
            raise Refused(10030)
        self._throttle(call)
        if self.switches.active("maintenance") and not method.open_in_maintenance:
            self.use("maintenance")
            raise Refused(11051)
        grant = self._grant(call, request)
        if method.private:
            self._session_end(call)
            if grant is None:
                raise Refused(10000)
            if not grant.allows(method.scope or "any"):
                raise Refused(13021, {"reason": f"scope {method.scope} is required"})
        if self.switches.active("locked") and method.name in PLACING:
            self.use("locked")
            raise Refused(10019)
        self._credit(call, grant)

    def _throttle(self, call: Call) -> None:
        arguments = self.switches.get("too_many_requests")
        if arguments is None or arguments["transport"] not in ("both", call.transport):
            return
        quiet = ("public/auth", "public/hello", "public/test", "public/set_heartbeat")
        if call.method.name in CANCELLING or (call.transport == "ws" and call.method.name in quiet):
            return
        self.use("too_many_requests")
        raise Refused(10028, {"reason": "rate_limit"})

    def _grant(self, call: Call, request: Request | None) -> Grant | None:
        """The papers of a call: in its parameters, its header, or its connection. Raises Refused where they are bad."""
        token = call.raw.get("access_token")
        if isinstance(token, str) and token:
            return self.tokens.of(token, call.session, call.now_ms)
        if request is not None:
            if not call.method.private:
                return None
            header = next((text for name, text in request.headers if name == "authorization"), None)
            if header:
                proof = (request.method, request.target, request.body)
                return self.tokens.from_header(header, call.session, proof, call.now_ms, self.wall())
            return None
        grant = call.session.grant
        if grant is not None and call.method.private and call.now_ms >= grant.expires_ms:
            raise Refused(13009, {"reason": "invalid_token"})
        return grant

    def _session_end(self, call: Call) -> None:
        arguments = self.switches.get("session_end")
        if arguments is None or call.transport != "ws" or call.method.name == "private/logout":
            return
        if self.switches.due("session_end", call.now_ms, arguments["every_ms"]):
            self.use("session_end")
            raise Refused(10028, {"reason": "session_terminated"})

    def _credit(self, call: Call, grant: Grant | None) -> None:
        name = call.method.pool
        if name == "none":
            return
        pools = self._account_pools if grant is not None else call.session.pools
        form = self._pool(name)
        credits = pools.get(name)
        if credits is None or (credits.pool is not form and credits.pool != form):
            credits = pools[name] = Credits(form, call.now_ms)
        if not credits.take(form.cost if form is not self.tables.pools[name] else call.method.cost, call.now_ms):
            if form is not self.tables.pools[name]:
                self.use("credits")
            raise Refused(10028, {"reason": "credits_exhausted"})

    def _pool(self, name: str) -> protocol.Pool:
        arguments = self.switches.get("credits")
        if arguments is None or arguments["pool"] != name:
            return self.tables.pools[name]
        return protocol.Pool(1_000, int(arguments["burst"] * 1_000), int(arguments["rate"] * 1_000))

    # ---- orders, as the switches have them

    def reject_leg(self, placing: Placing, wanted: Wanted) -> None:
        arguments = self.switches.get("reject_leg")
        exposure = placing.exposure
        if arguments is None or exposure is None or wanted.reduce_only:
            return
        if arguments["kind"] not in (None, wanted.instrument.kind) or placing.call.method.name not in arguments["methods"]:
            return
        if exposure.worst_after > exposure.worst_before or exposure.net_delta_after > exposure.net_delta_before:
            self.use("reject_leg")
            raise Refused(arguments["code"])

    def holds(self, method: str) -> bool:
        """Whether the answer to this method is withheld. Counts, so it is asked once an order."""
        arguments = self.switches.get("hold_acknowledgement")
        if arguments is None or method not in arguments["methods"]:
            return False
        self.use("hold_acknowledgement")
        return True

    def immediate_lots(self, wanted: Wanted) -> int | None:
        """How much of an order may fill at once, where a switch bounds it."""
        arguments = self.switches.get("partial_fill")
        if arguments is None or wanted.trigger is not None or arguments["kind"] not in (None, wanted.instrument.kind):
            return None
        bound = int(wanted.lots * arguments["fraction"])
        reach = self.engine.book(wanted.instrument).depth(wanted.buy, wanted.ticks)
        if min(reach, wanted.lots) <= bound:
            return None
        self.use("partial_fill")
        return bound

    def placed(self, order: Order, trades: list[Trade], held: bool, before: dict[str, Any]) -> Any:
        """The result of a placing, or none at all."""
        if held:
            return _HELD
        if any(self._news.get(trade.id) == "late" for trade in trades):
            before = self._shown(before)
            self.hub.tell("user.orders", order.instrument, [before])
            return {"order": before, "trades": []}
        return {"order": self.order_document(order), "trades": [trade.document() for trade in trades]}

    def order_document(self, order: Order) -> dict[str, Any]:
        return self._shown(order.document())

    def _shown(self, document: dict[str, Any]) -> dict[str, Any]:
        arguments = self.switches.get("unknown_token")
        if arguments is None or arguments["field"] != "order_state":
            return document
        self.use("unknown_token")
        return document | {"order_state": arguments["token"]}

    # ---- news

    def _news_of(self, trade: Trade) -> str:
        """How the news of a fill will travel; decided once, when it happens."""
        news = "sent"
        if self._silenced(trade.order):
            news = "held"
        elif self.switches.active("late_fills"):
            self.use("late_fills")
            news = "late"
        elif self.switches.active("duplicate_fills"):
            self.use("duplicate_fills")
            news = "duplicate"
        if news != "sent":
            self._news[trade.id] = news
        return news

    def _silenced(self, order: Order) -> bool:
        return order.silenced and self.switches.active("hold_acknowledgement")

    def _spread(self) -> None:
        """Tell everybody what happened in this step."""
        engine = self.engine
        if engine.changes:
            changes, engine.changes = engine.changes, []
            for change in changes:
                self._spread_change(change)
        if engine.prints:
            prints, engine.prints = engine.prints, []
            for document in prints:
                instrument = engine.instruments.get(document["instrument_name"])
                if instrument is not None:
                    self.hub.tell("trades", instrument, [document])
        if engine.dirty:
            for name in engine.dirty:
                if name not in engine.frozen:
                    self.hub.book_moved(name)
            engine.dirty.clear()
        due = self.hub.speak(self._now.mono_ms)
        if due is not None and (self._flush_at is None or due < self._flush_at):
            self._flush_at = due
            self._out.append(Timer("flush", due))

    def _spread_change(self, change: Change) -> None:
        change.orders = [(order, document) for order, document in change.orders if not self._silenced(order)]
        modes = {self._news.pop(trade.id, "sent") for trade in change.trades}
        if not change.orders:
            return
        if "late" in modes:
            arguments = self.switches.get("late_fills")
            due = self._now.mono_ms + (arguments["delay_ms"] if arguments else 0)
            self._late.append((due, change))
            self._out.append(Timer("late", min(at for at, _ in self._late)))
            return
        for _ in range(2 if "duplicate" in modes else 1):
            self._tell_change(change)

    def _tell_late(self) -> None:
        now = self._now.mono_ms
        ripe = [change for at, change in self._late if at <= now]
        self._late = [(at, change) for at, change in self._late if at > now]
        for change in ripe:
            self._tell_change(change)
        if self._late:
            self._out.append(Timer("late", min(at for at, _ in self._late)))

    def _tell_change(self, change: Change) -> None:
        instrument, hub = change.instrument, self.hub
        if not any(channel.startswith("user.") for channel in hub.feeds):
            return
        orders = [self._shown(document) for _, document in change.orders]
        trades = [trade.document() for trade in change.trades]
        hub.tell("user.orders", instrument, orders)
        if trades:
            hub.tell("user.trades", instrument, trades)
        position = self.account.positions.get(instrument.name)
        positions = [self.account.position_document(position, self.engine.resting())] if position and trades else []
        hub.tell("user.changes", instrument, [
            {"instrument_name": instrument.name, "orders": orders, "trades": trades, "positions": positions}])
        hub.portfolio_moved(instrument.settlement)

    # ---- switches

    def use(self, name: str) -> None:
        """A switch changed what would have happened."""
        self.switches.use(name, self._now.mono_ms)

    def _switched(self, name: str, event: str, uses: int) -> None:
        self.books.row("switch", name=name, event=event, uses=uses)

    def platform_locked(self) -> str:
        """``locked`` of public/status: "true", "false", or a token that nobody knows."""
        token = self.switches.get("unknown_token")
        if token is not None and token["field"] == "platform_state":
            self.use("unknown_token")
            return str(token["token"])
        locked = [name for name in ("maintenance", "locked") if self.switches.active(name)]
        for name in locked:
            self.use(name)
        return "true" if locked else "false"

    def platform_news(self) -> None:
        """The platform's state has changed, or may have. Where somebody listens, telling it is an effect of the switch."""
        if {"platform_state", "user.lock"} & self.hub.feeds.keys():
            for name in ("maintenance", "locked"):
                if self.switches.active(name):
                    self.use(name)
        token = self.switches.get("unknown_token")
        locked: bool | str = self.switches.active("maintenance") or self.switches.active("locked")
        if token is not None and token["field"] == "platform_state":
            self.use("unknown_token")
            locked = str(token["token"])
        for index in self.market.index_names():
            self.hub.say("platform_state", {"price_index": index, "locked": locked})
        if isinstance(locked, bool):
            self.hub.say("user.lock", {"locked": locked, "currency": "ALL"})

    def _shape(self, instrument: Instrument) -> Shape:
        """What the book switches make of an instrument's quotes. Asked at each re-quote, so each counts as a use."""
        if not self.switches.any_on:
            return PLAIN_SHAPE
        fields: dict[str, Any] = {}
        for name, key in (("thin_book", "depth_usd"), ("wide_book", "spread_bps"), ("collapsed_book", None)):
            arguments = self.switches.on_instrument(name, instrument)
            if arguments is not None:
                fields["collapsed" if key is None else key] = True if key is None else arguments[key]
                if name == "thin_book":
                    fields["steps"] = arguments["steps"]
                self.use(name)
        return Shape(**fields) if fields else PLAIN_SHAPE

    def _crossed(self, instrument: Instrument) -> bool:
        if not self.switches.any_on or self.switches.on_instrument("crossed_book", instrument) is None:
            return False
        self.use("crossed_book")
        return True

    def _times(self, feed: Feed, message: Any) -> int:
        """How often a channel says this message."""
        if not self.switches.any_on:
            return 1
        if self._swallowed(feed, message):
            return 0
        return 2 if self._repeated(feed, message) else 1

    def _swallowed(self, feed: Feed, message: Any) -> bool:
        """Whether a gap switch takes this message out of its channel."""
        if isinstance(feed, BookFeed):
            assert feed.instrument is not None
            switch, instrument = "book_gap", feed.instrument
        elif feed.channel.startswith("trades.") and message:
            switch, instrument = "trade_gap", self.instrument(message[0]["instrument_name"])
        else:
            return False
        if self.switches.on_instrument(switch, instrument) is None:
            return False
        self.use(switch)
        return True

    def _repeated(self, feed: Feed, message: Any) -> bool:
        """Whether a switch makes a channel of public trades say this message again."""
        if not feed.channel.startswith("trades.") or not message:
            return False
        if self.switches.on_instrument("trade_repeat", self.instrument(message[0]["instrument_name"])) is None:
            return False
        self.use("trade_repeat")
        return True


PLAIN_SHAPE = Shape()


def prepare() -> None:
    """What every start reads, read ahead: the tables. A process that others are forked from calls it."""
    Tables.load(SPECS)
    Switches(SPECS, lambda name, event, uses: None)


def make(environment: Mapping[str, str]) -> Exchange:
    """The machine factory. ``environment``: CLIENT_ID, CLIENT_SECRET, and as options MARKET_TICK_MS, TOKEN_TTL_S,
    HEARTBEAT_GRACE_MS, BALANCE_BTC|ETH|USDC, SPECS (folder)."""
    return Exchange(environment)
