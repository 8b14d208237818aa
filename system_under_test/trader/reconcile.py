"""Reconciliation: what the exchange says about trades, orders and positions against what we believe.

Truth goes in this order: the exchange's trades, its open orders, its positions, our ledger (contract, section
3.4). A run asks for all three, then looks up by label every order of which something is unsure, and succeeds
when the four conditions of the latch hold:

1. every order that we hold for live rests on the exchange's book;
2. the positions agree, within the larger of the epsilon and the instrument's minimum;
3. no trade of the last ``reconcile_trade_lookback_sec`` is missing;
4. nothing is left unsure.

A run changes nothing that a second run would not find changed already, so a crash in its middle costs nothing.
When something happens while it asks, a difference proves nothing, and it asks again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from system_under_test.trader.desk import Desk
from system_under_test.trader.holdings import usd_of
from system_under_test.trader.market import Market
from system_under_test.trader.orders import Order
from system_under_test.trader.quantize import MetadataMissing, decimal_of
from system_under_test.trader.registry import seq_of
from system_under_test.trader.report.metrics import Metrics
from system_under_test.trader.settings import Settings
from system_under_test.trader.turn import Turn
from system_under_test.trader.venue import Answer, Lost, Venue

COVERED_OVERLAP_MS = 10_000
"""Runs overlap by so much: the exchange may book a trade later than its time stamp says."""

RETRY_MS = 250
"""After a run that proved nothing, the next one begins so much later."""

TRADES_MAX = 1_000
"""Trades asked for at once (Deribit's most)."""

PAGES_MAX = 20
"""Pages of trades in one run; more within the lookback is more than the order-rate limit allows."""

LOOKUPS_MAX = 20
"""Labels looked up in one run; the rest waits for the next, so that the credits of REST outlive a bad day."""

ZERO = Decimal(0)


class Reconciliation:
    """At most one run at a time."""

    def __init__(
        self, settings: Settings, *, desk: Desk, venue: Venue, market: Market, metrics: Metrics,
        mismatch: Callable[[Turn, str], None], adopted: Callable[[Turn, str, Decimal], None],
        distrust: Callable[[], bool],
    ) -> None:
        self._settings, self._desk, self._venue, self._market = settings, desk, venue, market
        self._metrics, self._mismatch, self._adopted, self._distrust = metrics, mismatch, adopted, distrust
        self.succeeded_ts: int | None = None
        """when the last run that succeeded was begun"""
        self.begun_ts: int | None = None
        self.running = False
        self.first = True
        """no run of this life has succeeded yet"""
        self.born_ts: int | None = None
        """when the ledger was born; trades before that belong to nobody we know. None: it is born in this life"""
        self._next_ts = 0
        self._number = 0
        self._patience_ms = RETRY_MS
        self._orders: list[Mapping[str, Any]] | None = None
        self._positions: list[Mapping[str, Any]] | None = None
        self._trades_done = False
        self._pages = 0
        self._lookups: set[str] = set()
        self._unsure = False
        self._activity = 0
        self._disputed: dict[str, Decimal] = {}

    def request(self, ts: int) -> None:
        """Begin a run as soon as possible."""
        self._next_ts = min(self._next_ts, ts)

    def tick(self, turn: Turn) -> None:
        """Begin a run when one is due."""
        if self._desk.wants_reconciliation is not None and not self.running:
            self.request(max(turn.ts, (self.begun_ts or 0) + RETRY_MS))
            self._desk.wants_reconciliation = None
        if not self.running and turn.ts >= self._next_ts:
            self._begin(turn)

    def _begin(self, turn: Turn) -> None:
        self._next_ts = turn.ts + self._settings.reconcile_interval_ms
        currency = {"currency": self._settings.currency}
        self._number += 1
        self._orders = self._positions = None
        self._trades_done, self._pages, self._unsure, self._lookups = False, 0, False, set()
        self._activity = self._desk.activity
        tag = ("reconcile", self._number)
        if not self._venue.rest(turn, "private/get_open_orders_by_currency", currency, (*tag, "orders")):
            self._next_ts = turn.ts + RETRY_MS  # no token yet
            return
        self.running, self.begun_ts = True, turn.ts
        self._venue.rest(turn, "private/get_positions", currency, (*tag, "positions"))
        self._ask_trades(turn, self._since(turn))

    def _since(self, turn: Turn) -> int:
        """From when on trades are asked for: the whole lookback, unless a run that succeeded has covered its older
        part already and nothing has shaken our trust since."""
        lookback_ms = self._settings.reconcile_trade_lookback_sec * 1_000
        if self.succeeded_ts is not None and not self._distrust():
            lookback_ms = min(lookback_ms, turn.ts - self.succeeded_ts + COVERED_OVERLAP_MS)
        return self._exchange_now(turn) - lookback_ms

    def _exchange_now(self, turn: Turn) -> int:
        return turn.ts + (self._market.exchange_offset or 0)

    def _ask_trades(self, turn: Turn, since: int) -> None:
        self._pages += 1
        params = {"currency": self._settings.currency, "start_timestamp": since, "sorting": "asc", "count": TRADES_MAX,
                  "end_timestamp": self._exchange_now(turn) + 60_000}
        self._venue.rest(turn, "private/get_user_trades_by_currency_and_time", params,
                         ("reconcile", self._number, "trades"))

    # ---- answers ----

    def on_lost(self, turn: Turn, lost: Lost) -> None:
        """A question of the run got no answer: the run proves nothing."""
        if self.running and lost.tag[1] == self._number:
            self._unanswered(turn, f"{lost.tag[2]}: {lost.why}")

    def on_answer(self, turn: Turn, answer: Answer) -> None:
        """One part of the run has been answered."""
        if not self.running or answer.tag[1] != self._number:
            return
        part = answer.tag[2]
        if answer.code is not None:
            self._unanswered(turn, f"{part}: {answer.code} {answer.message}")
            return
        if part == "orders":
            self._orders = answer.result
        elif part == "positions":
            self._positions = answer.result
        elif part == "trades":
            self._on_trades(turn, answer.result)
        else:
            self._on_lookup(turn, part, answer.result)
            return
        if self._orders is not None and self._positions is not None and self._trades_done:
            self._compare_orders(turn)

    def _unanswered(self, turn: Turn, why: str) -> None:
        """The exchange does not answer, or refuses to: ask again, each time a little later."""
        self._end(turn, False, why)
        self._patience_ms = min(2 * self._patience_ms, self._settings.reconcile_interval_ms)
        self._next_ts = turn.ts + self._patience_ms

    def _on_trades(self, turn: Turn, result: Mapping[str, Any]) -> None:
        trades = result["trades"]
        born = turn.ts if self.born_ts is None else self.born_ts
        for raw in trades:
            if self._desk.registry.knows(raw.get("trade_id"), raw.get("instrument_name"), seq_of(raw)):
                continue
            known = self._desk.orders.match(raw.get("label"), raw.get("order_id")) is not None
            if known or raw.get("timestamp", 0) >= born + (self._market.exchange_offset or 0):
                self._desk.on_trade(turn, raw)  # else it is part of the position that the ledger took over
        if result.get("has_more") and trades and self._pages < PAGES_MAX:
            self._ask_trades(turn, int(trades[-1]["timestamp"]))
            return
        self._unsure |= bool(result.get("has_more"))
        self._trades_done = True

    def _compare_orders(self, turn: Turn) -> None:
        resting: set[str] = set()
        for raw in self._orders or ():
            self._desk.on_order(turn, raw)
            order = self._desk.orders.match(raw.get("label"), raw.get("order_id"))
            if order is not None:
                resting.add(order.intent.intent_id)
                self._desk.at_the_exchange(order)
            elif self._desk.orders.ambiguous(raw.get("label")):
                self._unsure = True
        self._desk.haunts({str(raw.get("order_id")) for raw in self._orders or ()}, self.begun_ts or 0)
        unsure: dict[str, Order] = {}
        for order in self._desk.unsettled(turn):
            if order.intent.intent_id not in resting:
                unsure[order.intent.intent_id] = order
        for order in self._desk.orders.live():
            if order.resting and order.order_id is not None and order.intent.intent_id not in resting:
                unsure[order.intent.intent_id] = order
        for order in list(unsure.values())[:LOOKUPS_MAX]:
            if not self._look_up(turn, order):
                self._end(turn, False, "no token")
                return
        self._unsure |= len(unsure) > LOOKUPS_MAX
        if not self._lookups:
            self._conclude(turn)

    def _look_up(self, turn: Turn, order: Order) -> bool:
        intent = order.intent
        self._lookups.add(intent.intent_id)
        params = {"currency": self._settings.currency, "label": intent.label}
        return self._venue.rest(turn, "private/get_order_state_by_label", params,
                                ("reconcile", self._number, intent.intent_id))

    def _on_lookup(self, turn: Turn, intent_id: str, found: object) -> None:
        self._lookups.discard(intent_id)
        order = self._desk.orders.get(intent_id)
        if order is not None and not order.terminal:
            states = found if isinstance(found, list) else []
            for raw in states:
                self._desk.on_order(turn, raw)
            if states:
                self._desk.at_the_exchange(order)
            elif order.filled == 0 and not self._desk.not_at_the_exchange(turn, order):
                self._unsure = True
            if not order.terminal and order.final is not None:
                self._unsure = True  # its trades are still to come
        if not self._lookups:
            self._conclude(turn)

    def _conclude(self, turn: Turn) -> None:
        differences = self._differences()
        if self.born_ts is None and differences and self._activity == self._desk.activity:
            self._take_over(turn, differences)
            differences = {}
        if differences and self._activity != self._desk.activity:
            self._end(turn, False, "something happened meanwhile")
            return
        if differences:
            self._dispute(turn, differences)
            self._end(turn, False, "positions differ: " + ", ".join(sorted(differences)))
            return
        self._disputed = {}
        if self._unsure or self._desk.unverified:
            self._end(turn, False, "orders are unsure")
            return
        self._end(turn, True, "")

    def _differences(self) -> dict[str, Decimal]:
        """Instruments whose position at the exchange is not ours, with the exchange's size."""
        theirs: dict[str, Decimal] = {}
        for raw in self._positions or ():
            try:
                size = decimal_of(raw["size"])
            except (KeyError, MetadataMissing):
                self._unsure = True
                continue
            if size:
                theirs[raw["instrument_name"]] = -abs(size) if raw.get("direction") == "sell" else size
        ours = self._desk.exposure.positions
        epsilon = Decimal(repr(self._settings.position_reconcile_epsilon))
        different = {}
        for name in sorted({*theirs, *ours}):
            size = theirs.get(name, ZERO)
            instrument = self._market.instruments.get(name)
            # A position moves in whole steps: what is less than one step off is not off.
            least = epsilon if instrument is None else max(epsilon, instrument.min_amount * Decimal("0.999"))
            if abs(size - ours.get(name, ZERO)) > least:
                different[name] = size
        return different

    def _take_over(self, turn: Turn, differences: Mapping[str, Decimal]) -> None:
        for name, size in differences.items():
            self._adopt(turn, name, size, "first life")

    def _dispute(self, turn: Turn, differences: dict[str, Decimal]) -> None:
        """A first difference latches; the same again, with nothing happening between, and theirs is the truth."""
        self._mismatch(turn, ", ".join(f"{name}: {size} there, {self._desk.exposure.of(name)} here"
                                       for name, size in differences.items()))
        for name, size in differences.items():
            if self._disputed.get(name) == size:
                self._adopt(turn, name, size, "mismatch")
        self._disputed = differences

    def _adopt(self, turn: Turn, name: str, size: Decimal, why: str) -> None:
        entry = self._entry(name)
        self._desk.exposure.adopt(name, size)
        self._desk.holdings.adopt(name, size, entry, turn.ts)
        self._desk.fact(turn, {"kind": "adopted", "instrument": name, "size": str(size), "entry": entry, "why": why})
        turn.note("adopted", None, instrument=name, size=str(size), why=why)
        self._adopted(turn, name, size)

    def _entry(self, name: str) -> float | None:
        """The exchange's average price of a position, in USD; None when it does not tell one."""
        for raw in self._positions or ():
            price = raw.get("average_price") if raw.get("instrument_name") == name else None
            if isinstance(price, int | float) and 0 < price < math.inf:
                return usd_of(name, float(price), self._market.index)
        return None

    def _end(self, turn: Turn, ok: bool, why: str) -> None:
        self.running = False
        self._metrics.add("reconciliations_total", result="ok" if ok else "failed")
        turn.note("reconciled", None, ok=ok, why=why)
        if not ok:
            self._next_ts = min(self._next_ts, turn.ts + RETRY_MS)
            return
        if self.first:
            self.first = False
            self.born_ts = turn.ts if self.born_ts is None else self.born_ts
        self.succeeded_ts, self._patience_ms = self.begun_ts, RETRY_MS
        if self.begun_ts is not None:
            self._desk.forget(self.begun_ts - self._settings.reconcile_trade_lookback_sec * 1_000)
        self._desk.fact(turn, {"kind": "reconciled", "begun_ts": self.begun_ts,
                               "positions": {name: str(size) for name, size in self._desk.exposure.positions.items()}})
