"""The trader: a small reducer over its organs. One value comes in, each organ does its part, what goes out is returned.

Starting cold and starting after a crash are the same path: the ledger is folded, opening is latched, the links are
dialled, and nothing that an earlier life began is touched before the exchange has been asked about it.

    every tick   links · producers and latch · mode · polls · reconciliation · sweeping · exits · groups · wishes · dispatch ·
                 state files
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from system_under_test.machine import Append as AppendValue
from system_under_test.machine import (
    Close,
    Done,
    Durable,
    Exit,
    Failed,
    Frame,
    Now,
    Open,
    Replace,
    Request,
    Response,
    Seen,
    Start,
    Stop,
    Timer,
    Unanswered,
    Value,
)
from system_under_test.trader import certificate, refresher
from system_under_test.trader.breaker import OPEN as OPEN_PRIORITY
from system_under_test.trader.breaker import Breaker
from system_under_test.trader.control import HEALTH, STATUS, ControlPlane, Presses
from system_under_test.trader.desk import Desk
from system_under_test.trader.dispatch import Door
from system_under_test.trader.exits import Exits
from system_under_test.trader.exposure import Exposure, delta_of
from system_under_test.trader.floor import Floor
from system_under_test.trader.gates import Gates
from system_under_test.trader.group import IllegalTransition as GroupTransition
from system_under_test.trader.intents import OPEN
from system_under_test.trader.ledger import LOG, History, Ledger, fold
from system_under_test.trader.limits import LaunchLimits
from system_under_test.trader.market import Market
from system_under_test.trader.orders import IllegalTransition as OrderTransition
from system_under_test.trader.orders import OrderBook
from system_under_test.trader.policy import ACTIVE, Guard, Refusal
from system_under_test.trader.polls import FEES_FILE, Polls
from system_under_test.trader.reconcile import Reconciliation
from system_under_test.trader.registry import Trade
from system_under_test.trader.report import state
from system_under_test.trader.report.drawdown import FILE as MEMORY
from system_under_test.trader.report.files import FOLDER, Publisher, Surface
from system_under_test.trader.report.kpis import Kpis
from system_under_test.trader.report.metrics import Metrics
from system_under_test.trader.report.risk_snapshot import RiskSnapshot
from system_under_test.trader.report.router_health import RouterHealth
from system_under_test.trader.report.state import Nav
from system_under_test.trader.report.status import Report
from system_under_test.trader.report.view import View, held_of
from system_under_test.trader.settings import Settings, SettingsError, Tokens
from system_under_test.trader.strategy import MarketView, Strategy
from system_under_test.trader.sweeper import Sweeper
from system_under_test.trader.turn import Turn
from system_under_test.trader.venue import (
    MAINTENANCE_CODES,
    MARKET_DATA,
    ORDERS,
    UNAUTHORIZED,
    Answer,
    Down,
    Event,
    Limited,
    Lost,
    Notice,
    Up,
    Venue,
)
from system_under_test.trader.watch import BOOK_GAP, RESTART, TRADES_GAP, Watch

TICK = "tick"
NAV_FILE = FOLDER + "nav.json"
UNREADABLE = (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError)
"""What reading something of the exchange's may raise, whatever it sends."""

MODE_NUMBER = {"Active": 0, "ReduceOnly": 1, "Kill": 2}


def make(environment: Mapping[str, str]) -> Trader:
    """The machine of stack.yaml. Raises SettingsError when it must not start."""
    return Trader(environment)


class Trader:
    """The reducer. Everything it knows lives in its organs, which exist from `Start` on."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.settings = Settings.load(environment)
        self._control = ControlPlane(Tokens.load(environment))
        self._client = environment.get("CLIENT_ID", ""), environment.get("CLIENT_SECRET", "")
        if not all(self._client):
            raise SettingsError("CLIENT_ID and CLIENT_SECRET are needed: without them no order can be placed")
        self._anchor: int | None = None
        self._report = Report(self.settings)

    def handle(self, now: Now, value: Value) -> tuple[Value, ...]:
        """Take one incoming value, return what goes out, in order."""
        if isinstance(value, Start):
            return self._start(now, value)
        if self._anchor is None:
            return ()
        turn = Turn(now, self._anchor)
        self.guard.turn()
        self._take(turn, value)
        return tuple(turn.out)

    # ---- life ----

    def _start(self, now: Now, start: Start) -> tuple[Value, ...]:
        self._anchor = now.wall_ms - now.mono_ms
        turn = Turn(now, self._anchor)
        image = start.logs.get(LOG)
        history = fold(image.records if image is not None else (), self.settings.reconcile_trade_lookback_sec * 1_000)
        self._build(turn, start, history)
        if image is not None:
            self.ledger.start(image)
        self.desk.restore(history)
        self.desk.tally.since_ts = turn.ts
        self.floor.restore(history, start.boot)
        if history.born_ts is not None:
            self.reconciliation.born_ts = history.born_ts
        self.desk.fact(turn, {"kind": "boot", "boot": start.boot, "build_id": self.settings.build_id})
        caps = self.limits.row()
        if caps is not None:
            self.desk.fact(turn, caps)
        turn.note("boot", None, boot=start.boot, build_id=self.settings.build_id, rows=self.ledger.durable,
                  torn_bytes=image.torn_bytes if image is not None else 0, unreadable=history.unreadable,
                  live=sum(1 for _ in self.desk.orders.live()))
        self.watch.set_latch(turn, RESTART)
        for name in (certificate.FILE, refresher.FILE):
            if name in start.files:
                self.watch.seen(turn, name, start.files[name], "")
        self.polls.fees_remembered(start.files.get(FEES_FILE))
        self.nav.restore(self.publisher.restore(turn, start.files).get(NAV_FILE))
        self.risk.restore(start.files, self.nav.value)
        self._tick(turn)
        turn.send(Timer(TICK, turn.mono + self.settings.tick_interval_ms))
        return tuple(turn.out)

    def _build(self, turn: Turn, start: Start, history: History) -> None:
        settings = self.settings
        self.metrics, self.guard = Metrics(), Guard(settings)
        self.ledger = Ledger(settings.ledger_queue_capacity, settings.ledger_waive_after_ms)
        self._presses = Presses(self.ledger)
        self.market = Market(settings)
        self.venue = Venue(settings, *self._client)
        self.breaker = Breaker(settings, turn.ts)
        self.limits = LaunchLimits(settings, history.rows)
        exposure, orders = Exposure(), OrderBook()
        self.watch = Watch(settings, turn.now, turn.ts, history, market=self.market, venue=self.venue,
                           ledger=self.ledger, limits=self.limits, breaker=self.breaker)
        door = Door(settings, self.guard, self.ledger, self.venue, self.market, exposure, orders, self.metrics,
                    lambda turn, row: self.desk.fact(turn, row))
        self.router = RouterHealth(settings, self.market)
        self.risk = RiskSnapshot(settings, self.market, self.router)
        self.desk = Desk(settings, ledger=self.ledger, venue=self.venue, guard=self.guard, breaker=self.breaker,
                         door=door, limits=self.limits, exposure=exposure, orders=orders, metrics=self.metrics,
                         router=self.router, snapshot=self.watch.snapshot, token=self.watch.token)
        self.gates = Gates(settings, self.market, exposure, orders, self.limits)
        self.floor = Floor(settings, desk=self.desk, gates=self.gates, market=self.market, ledger=self.ledger,
                           metrics=self.metrics, auth=self._auth, mode=lambda: self.watch.mode,
                           label_trouble=self._label_trouble)
        self.reconciliation = Reconciliation(
            settings, desk=self.desk, venue=self.venue, market=self.market, metrics=self.metrics,
            mismatch=self.watch.mismatch, adopted=lambda turn, name, size: self.floor.adopted(name, size),
            distrust=lambda: self.watch.latch.blocked)
        self.sweeper = Sweeper(settings, self.desk)
        self.polls = Polls(settings, venue=self.venue, market=self.market, watch=self.watch, gates=self.gates,
                           limits=self.limits, metrics=self.metrics)
        self.strategy = Strategy(settings, start.seed, start.boot)
        self.exits = Exits(settings, exposure=exposure, holdings=history.holdings, market=self.market, ledger=self.ledger,
                           standing=history.exits)
        self.nav = Nav()
        self.publisher = Publisher(self._surfaces(), settings.state_publish_interval_ms, start.boot, self._reading)
        self._join(orders)

    def _join(self, orders: OrderBook) -> None:
        """Tell the organs whom to ask, where two know of each other."""
        watch = self.watch
        self.exits.close, self.desk.on_position = self.floor.exit, self.exits.follow
        self.desk.index = lambda: self.market.index
        watch.fact, watch.ask_reconciliation = self.desk.fact, self.reconciliation.request
        watch.reconciled_ts = lambda: self.reconciliation.succeeded_ts
        watch.exposed = lambda: self.floor.exposed or any(True for _ in orders.live())
        watch.containing = lambda: self.floor.containing
        self.limits.broken = lambda: self.risk.drawdown.broken
        self.polls.held = lambda: tuple(self.desk.exposure.positions)
        self.polls.net_delta = lambda: delta_of(self.desk.exposure.positions, self.market.unit_delta)
        self.sweeper.found = lambda turn, order_id: watch.mismatch(turn, f"no intent explains the order {order_id}")
        watch.haunted = lambda: self.sweeper.certain
        self.desk.on_orphan = self._orphan
        self._channels_for: tuple[str, ...] = ()
        self._subscribe(None)

    def _orphan(self, turn: Turn, trade: Trade) -> None:
        """A fill under our label that no order of ours explains: it counts, and it shakes the trust in our inventory."""
        self.floor.orphan(turn, trade)
        self.watch.mismatch(turn, f"no intent explains the fill {trade.trade_id}")

    # ---- what comes in ----

    def _take(self, turn: Turn, value: Value) -> None:
        if isinstance(value, Frame):
            for event in self.venue.on_frame(turn, value.conn, value.data):
                self._event(turn, event)
        elif isinstance(value, Request):
            self._requested(turn, value)
        elif isinstance(value, Timer):
            self._timer(turn, value)
        elif isinstance(value, Response):
            self._answered(turn, value)
        elif isinstance(value, Done):
            self.publisher.done(turn, value.file)
        elif isinstance(value, Seen):
            self.watch.seen(turn, value.source, value.value, value.why)
        elif isinstance(value, Durable):
            self.ledger.on_durable(value.seq)
            for append in self.ledger.drain(turn.ts):
                turn.send(append)
            self.desk.pump(turn)
            self._answer_presses(turn)
        elif isinstance(value, Unanswered):
            self._events(turn, self.venue.on_unanswered(turn, value))
        elif isinstance(value, Open):
            self._events(turn, self.venue.on_open(turn, value.conn))
        elif isinstance(value, Close):
            self._events(turn, self.venue.on_close(turn, value.conn, value.why))
        elif isinstance(value, Failed):
            self._failed(turn, value)
        elif isinstance(value, Stop):
            self._stop(turn)
        else:
            turn.note("ignored", None, what=type(value).__name__)

    def _timer(self, turn: Turn, value: Timer) -> None:
        if value.name != TICK:
            return
        lag_ms = turn.mono - (value.at_ms or turn.mono)
        self.metrics.set("loop_lag_ms", lag_ms)
        self.watch.lagged(turn, lag_ms)
        self._tick(turn)
        every = self.settings.tick_interval_ms
        due = (value.at_ms or turn.mono) + every
        # A loop that was held up does not run its missed ticks one after another.
        turn.send(Timer(TICK, due if due > turn.mono else turn.mono + every))

    def _failed(self, turn: Turn, value: Failed) -> None:
        if isinstance(value.op, AppendValue):
            self.ledger.on_failed(value.op.seq, turn.ts)
            self.metrics.add("ledger_failures_total")
            turn.note("ledger_failed", None, why=value.why, seq=value.op.seq)
            self.desk.pump(turn)
            self._answer_presses(turn)
        elif not (isinstance(value.op, Replace) and self.publisher.failed(turn, value.op.file, value.why)):
            turn.note("disk_failed", None, what=type(value.op).__name__, why=value.why)
            if isinstance(value.op, Replace) and value.op.file == MEMORY:
                self.risk.drawdown.failed()

    def _stop(self, turn: Turn) -> None:
        for name in self.venue.links:
            self.venue.hang_up(turn, name, "stopping")
        turn.send(Timer(TICK, None))
        turn.send(Exit(0))

    def _answered(self, turn: Turn, response: Response) -> None:
        for event in self.venue.on_response(turn, response):
            if isinstance(event, Answer):
                self.watch.bunker.http(turn.ts, turn.mono - event.asked_mono)
            self._event(turn, event)

    def _requested(self, turn: Turn, request: Request) -> None:
        answer = self._control.answer(request, lambda path: self._document(turn, path))
        if answer.response is not None:
            turn.send(answer.response)
        if answer.act == "heartbeat":
            self.watch.heartbeat.beat(turn.ts)
        elif answer.act is not None:
            taken = answer.act == "emergency"
            self.metrics.add("emergency_requests_total", outcome="taken" if taken else "refused")
            turn.note("emergency", None, by="endpoint", taken=taken, **answer.said)
            if taken:
                seq = self.desk.fact(turn, self.watch.emergency.endpoint(turn.ts))
                self._decide(turn)
                if answer.response is None:
                    self._presses.take(request, seq)
                    self._answer_presses(turn)

    def _answer_presses(self, turn: Turn) -> None:
        for response in self._presses.answers(turn.ts):
            turn.send(response)

    # ---- events of the venue ----

    def _events(self, turn: Turn, events: list[Event]) -> None:
        for event in events:
            self._event(turn, event)

    def _event(self, turn: Turn, event: Event) -> None:
        if isinstance(event, Notice):
            self._notice(turn, event)
        elif isinstance(event, Answer):
            self._answer(turn, event)
        elif isinstance(event, Lost):
            self._lost(turn, event)
        elif isinstance(event, Up):
            self.watch.link_up(turn, event.link)
            self.metrics.add("reconnects_total", link=event.link)
            self.reconciliation.request(turn.ts)
        elif isinstance(event, Down):
            turn.note("link_down", None, link=event.link, why=event.why)
            self.watch.link_down(turn, event.link, event.was_ready)
        elif isinstance(event, Limited):
            if event.status == 10028 and event.link in self.venue.links:
                self.venue.hold_off(turn, event.link, 1_000)
            self.watch.limited(turn, event.link, event.status)

    def _answer(self, turn: Turn, answer: Answer) -> None:
        """An answer that cannot be read is no answer: what it was about is unsure, and is asked for again."""
        try:
            self._understood(turn, answer)
        except (GroupTransition, OrderTransition):
            raise  # ours, not the exchange's
        except UNREADABLE as why:
            turn.note("unreadable", None, what=answer.method, why=f"{type(why).__name__} {why}")
            self._lost(turn, Lost(answer.tag, answer.method, True, "unreadable answer"))

    def _understood(self, turn: Turn, answer: Answer) -> None:
        if answer.code in MAINTENANCE_CODES:
            self.watch.maintenance(turn)
        kind = answer.tag[0]
        if kind in ("order", "cancel", "ghost"):
            self.desk.on_answer(turn, answer)
            if answer.code in UNAUTHORIZED:  # the connection has lost its papers: only a new handshake brings them back
                self._events(turn, self.venue.hang_up(turn, ORDERS, "no longer authorized"))
        elif kind == "poll":
            self.polls.on_answer(turn, answer)
        elif kind == "reconcile":
            before = self.reconciliation.succeeded_ts
            self.reconciliation.on_answer(turn, answer)
            self.floor.settled = not self.reconciliation.first
            if self.reconciliation.succeeded_ts != before:
                self.floor.balance()
        elif kind == "rebuild" and answer.code is None:
            self.market.rebuild(answer.tag[1], answer.result, turn.ts)

    def _lost(self, turn: Turn, lost: Lost) -> None:
        kind = lost.tag[0]
        if lost.sent and lost.why == "deadline" and (kind in ("poll", "reconcile", "rest_auth", "rebuild")):
            self.watch.bunker.timeout(turn.ts)
        if kind in ("order", "cancel", "ghost"):
            self.desk.on_lost(turn, lost)
        elif kind == "poll":
            self.polls.on_lost(turn, lost)
        elif kind == "reconcile":
            self.reconciliation.on_lost(turn, lost)

    def _notice(self, turn: Turn, notice: Notice) -> None:
        channel, data = notice.channel, notice.data
        try:
            kind = channel.partition(".")[0]
            if kind == "user":
                self._changes(turn, data)
            elif kind == "platform_state":
                if "locked" in data:
                    self.watch.platform(turn, data["locked"])
            else:
                self._market_notice(turn, kind, channel, data)
        except (GroupTransition, OrderTransition):
            raise
        except UNREADABLE as why:
            turn.note("unreadable", None, what=channel, why=f"{type(why).__name__} {why}")
            self.reconciliation.request(turn.ts)

    def _changes(self, turn: Turn, data: Mapping[str, Any]) -> None:
        for raw in data.get("orders") or ():
            self.desk.on_order(turn, raw)
        for raw in data.get("trades") or ():
            self.desk.on_trade(turn, raw)

    def _market_notice(self, turn: Turn, kind: str, channel: str, data: Any) -> None:
        ts = turn.ts
        self.watch.bunker.ws(ts)
        if kind == "book":
            self.market.heard(data["timestamp"], ts)
            if not self.market.on_book(data, ts):
                self._book_gap(turn, channel, data["instrument_name"])
        elif kind == "trades":
            self.market.heard(data[-1]["timestamp"] if data else None, ts)
            gaps, fresh = self.market.on_trades(data)
            for name in gaps:
                self.metrics.add("gaps_total", kind="trades")
                turn.note("gap", None, channel=channel, instrument=name, kind="trade_seq")
                self.watch.gap(turn, TRADES_GAP, name)
            for trade in fresh:
                if trade["instrument_name"] == self.settings.perpetual:
                    self.strategy.signal(trade["amount"])
        elif kind == "ticker":
            self.market.heard(data["timestamp"], ts)
            self.market.on_ticker(data["instrument_name"], data, ts)
        elif kind == "deribit_price_index":
            self.market.heard(data["timestamp"], ts)
            self.market.index = float(data["price"])
        elif kind == "deribit_volatility_index":
            self.watch.cortex.dvol(ts, float(data["volatility"]))

    def _book_gap(self, turn: Turn, channel: str, instrument: str) -> None:
        self.metrics.add("gaps_total", kind="book")
        turn.note("gap", None, channel=channel, instrument=instrument, kind="change_id")
        self.watch.gap(turn, BOOK_GAP, instrument)
        self.venue.subscribe(turn, [channel], anew=True)
        self.venue.rest(turn, "public/get_order_book", {"instrument_name": instrument, "depth": 50},
                        ("rebuild", instrument))

    # ---- every tick ----

    def _tick(self, turn: Turn) -> None:
        self._events(turn, self.venue.tick(turn))
        watch = self.watch
        watch.look(turn)
        watch.causes.report("contracts_mismatch", self.gates.mismatch, turn.ts)
        watch.tick(turn)
        self.risk.tick(turn, tuple(self.desk.exposure.positions))
        self._decide(turn)
        self._answer_presses(turn)
        self.polls.tick(turn)
        self.reconciliation.tick(turn)
        self._choose(turn)
        self.sweeper.tick(turn)
        self.exits.tick(turn)
        self.floor.tick(turn)
        if self.floor.groups or not self.strategy.idle(turn.ts, self.floor.quote_open):
            for wish in self.strategy.wishes(self._view(), turn.ts):
                self.floor.wish(turn, wish)
        for append in self.ledger.drain(turn.ts):
            turn.send(append)
        self.desk.pump(turn)
        self.metrics.set("wal_queue_depth", self.ledger.depth)
        self.publisher.tick(turn)

    def _decide(self, turn: Turn) -> None:
        decision = self.watch.decide(turn, self.watch.snapshot(turn))
        self.metrics.set("mode", MODE_NUMBER[decision.mode])
        if decision.mode != ACTIVE:
            self.desk.cancel_openers(turn)

    def _auth(self, turn: Turn) -> Refusal | None:
        """DispatchAuth, asked when a wish is made; the door asks again."""
        brownout = self.breaker.refuses(OPEN_PRIORITY, turn.ts)
        if brownout is not None:
            return Refusal(brownout, "rate_limit")
        answer = self.guard.permit(self.watch.snapshot(turn), OPEN)
        return answer if isinstance(answer, Refusal) else None

    def _label_trouble(self, turn: Turn) -> None:
        self.watch.causes.report("label", True, turn.ts)

    def _choose(self, turn: Turn) -> None:
        """Choose the option to trade until it runs out, and watch it and whatever else is held."""
        market, held = self.market, self.desk.exposure.positions
        exchange_now = turn.ts + (market.exchange_offset or 0)
        if market.option is None or market.option_is_old(exchange_now):
            market.option = market.choose_option(exchange_now)
        if held or market.option not in self._channels_for:
            wanted = [name for name in (market.option, *held) if name is not None and name not in self._channels_for]
            if wanted:
                self._subscribe(turn, *dict.fromkeys(wanted))

    def _subscribe(self, turn: Turn | None, *instruments: str) -> None:
        names = instruments or (self.settings.perpetual,)
        channels = [f"{kind}.{name}.100ms" for name in names for kind in ("book", "trades", "ticker")]
        if turn is None:
            names_of_index = (f"{kind}.{self.settings.index_name}"
                              for kind in ("deribit_price_index", "deribit_volatility_index"))
            self.venue.channels = (*channels, *names_of_index, "platform_state")
        elif self.venue.ready(MARKET_DATA):
            self.venue.subscribe(turn, channels)
        else:
            self.venue.channels = tuple(dict.fromkeys((*self.venue.channels, *channels)))
        self._channels_for = (*self._channels_for, *names)
        self.market.watch(self._channels_for)

    def _view(self) -> MarketView:
        market, option = self.market, self.market.option
        ticker = market.tickers.get(option) if option is not None else None
        return MarketView(market.index, option, ticker.delta if ticker is not None else None, market.touches,
                          self.floor.views(), self.floor.quote_open)

    # ---- state files ----

    def _surfaces(self) -> tuple[Surface, ...]:
        """In the order of the v7.6 contract's loop."""
        kpis = Kpis(self.risk, self.router)
        return (
            Surface("nav.json", "updated_ts", lambda turn, view: self.nav.document(view)),
            Surface("positions_state.json", "updated_at", lambda turn, view: state.positions(view)),
            Surface("positions_ledger.json", "updated_at", lambda turn, view: state.ledger(view)),
            Surface("risk_snapshot.json", "updated_ts", self.risk.document, self.risk.landed),
            Surface("diagnostics.json", "updated_ts", lambda turn, view: state.diagnostics(view, self.settings)),
            Surface("router_health.json", "updated_ts", self.router.document),
            Surface("kpis_v7.json", "updated_at", kpis.document),
        )

    def _reading(self, turn: Turn, stamp_ms: int) -> View:
        """The books at this moment, for all files of a loop."""
        decision = self.watch.decision
        positions, unpriced = held_of(self.desk.exposure, self.desk.holdings, self.market)
        if unpriced:
            turn.note("unpriced", None, instruments=list(unpriced))
        return View(
            ts=turn.ts, stamp_ms=stamp_ms, mode=self.watch.mode, reasons=decision.reasons if decision is not None else (),
            equity_btc=self.polls.equity, equity_ts=self.polls.equity_ts, index=self.market.index, positions=positions,
            unpriced=unpriced, entries=dict(self.exits.recorded), registry=dict(self.exits.registry),
            scanned_ts=self.exits.scanned_ts, triggered_ts=self.exits.triggered_ts, tally=self.desk.tally)

    # ---- the control plane ----

    def _document(self, turn: Turn, path: str) -> bytes:
        if path == STATUS:
            return self._status(turn)
        return self._health(turn) if path == HEALTH else self._metrics(turn)

    def _status(self, turn: Turn) -> bytes:
        readings = self.watch.readings(
            turn, self.watch.snapshot(turn), naked=self.floor.naked_24h(turn.ts),
            net_delta=delta_of(self.desk.exposure.positions, self.market.unit_delta))
        return self._report.tell(readings)

    def _health(self, turn: Turn) -> bytes:
        return orjson.dumps({
            "ok": True, "build_id": self.settings.build_id, "contract_version": self.settings.contract_version,
            "mono_ms": turn.mono, "wall_ms": turn.now.wall_ms,
        })

    def _metrics(self, turn: Turn) -> bytes:
        self.metrics.set("wal_queue_depth", self.ledger.depth)
        return self.metrics.text()
