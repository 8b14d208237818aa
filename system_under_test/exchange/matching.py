"""Orders meet the book: placing, editing, cancelling, triggering, and the fills that follow.

The engine refuses by raising ``Refused`` before anything changes. What happened is told to a ``Witness`` as it happens
(the books) and kept as ``changes`` for whoever spreads the news.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from system_under_test.exchange.account import EPSILON, Account
from system_under_test.exchange.book import Book, Match
from system_under_test.exchange.instruments import DAY_MS, Instrument
from system_under_test.exchange.market import Market, Shape
from system_under_test.exchange.orders import Order, Trade
from system_under_test.exchange.protocol import Refused

CLOSED_ORDERS_MAX = 20_000
"""Closed orders that can still be asked for: an hour and a half of the reference trader at its busiest."""
TRADES_MAX = 50_000
"""Trades of the account that can still be asked for: four of its busiest hours."""
PUBLIC_TRADES_MAX = 1_000
OPEN_ORDERS_MAX = 10_000
_IMMEDIATE = ("immediate_or_cancel", "fill_or_kill")


@dataclass(frozen=True, slots=True)
class Wanted:
    """An order that was asked for and can be read; nothing about it has been decided."""

    instrument: Instrument
    buy: bool
    lots: int
    ticks: int | None
    type: str = "limit"
    time_in_force: str = "good_til_cancelled"
    label: str = ""
    post_only: bool = False
    reject_post_only: bool = False
    reduce_only: bool = False
    display_lots: int | None = None
    advanced: str | None = None
    mmp: bool = False
    trigger: str | None = None
    trigger_ticks: int | None = None
    conn: str = ""
    web: bool = False
    instead_of: Order | None = None
    """the order that an edit changes; ``lots`` is then what is to be left of it"""


@dataclass(slots=True)
class Change:
    """What one step did to the account on one instrument: order documents and trades, in order."""

    instrument: Instrument
    orders: list[tuple[Order, dict[str, Any]]] = field(default_factory=list)
    trades: list[Trade] = field(default_factory=list)


class Witness(Protocol):
    """Who keeps the books."""

    def filled(self, trade: Trade, position_after: float, net_before: float, net_after: float) -> None: ...

    def cancelled(self, order: Order, by: str) -> None: ...


class Engine:
    """All books and all orders of the account."""

    def __init__(self, market: Market, account: Account, witness: Witness, wall: Callable[[], int]) -> None:
        self.market, self.account = market, account
        self._witness, self._wall = witness, wall
        self.instruments: dict[str, Instrument] = {}
        self.books: dict[str, Book] = {}
        self.quoted_at: dict[str, int] = {}
        """the tick at which an instrument's quotes were last made"""
        self.shape: Callable[[Instrument], Shape] = lambda instrument: _PLAIN
        """what a switch does to an instrument's quotes"""
        self.frozen: frozenset[str] = frozenset()
        """instruments whose market stands still"""
        self.orders: dict[str, Order] = {}
        """every order that can still be asked for, oldest first"""
        self.alive: dict[str, Order] = {}
        self._closed: deque[str] = deque()
        self.trades: deque[Trade] = deque(maxlen=TRADES_MAX)
        self.public_trades: dict[str, deque[dict[str, Any]]] = {}
        self.seqs: dict[str, int] = {}
        self.counts = {"order": 0, "trade": 0}
        self.last_ticks: dict[str, int] = {}
        self.volume: dict[str, float] = {}
        self.changes: list[Change] = []
        self.prints: list[dict[str, Any]] = []
        """public trades that nobody has been told of"""
        self.dirty: dict[str, None] = {}
        """instruments whose book may look different"""

    # ---- books

    def book(self, instrument: Instrument) -> Book:
        """The book, quoted at this tick."""
        name = instrument.name
        if self.quoted_at.get(name) != self.market.ticks and not self._still(instrument):
            self.requote(instrument)
        return self.books.get(name) or self._book_of(instrument)  # a book is never false, even an empty one

    def _book_of(self, instrument: Instrument) -> Book:
        """The book as it is."""
        book = self.books.get(instrument.name)
        if book is None:
            book = self.books[instrument.name] = Book()
        return book

    def _still(self, instrument: Instrument) -> bool:
        return instrument.name in self.frozen and instrument.name in self.quoted_at

    def requote(self, instrument: Instrument) -> None:
        """The market makers replace their quotes; resting orders that they reach are filled."""
        self.quoted_at[instrument.name] = self.market.ticks
        wall_ms = self._wall()
        shape = _NOTHING if wall_ms >= instrument.expires_ms else self.shape(instrument)
        matches = self._book_of(instrument).quote(*self.market.quotes(instrument, wall_ms, shape))
        self.dirty[instrument.name] = None
        for match in matches:
            assert match.maker is not None
            self._fill(match.maker, match, maker=True, taker_buy=not match.maker.buy)

    def background(self, instrument: Instrument, buy: bool, lots: int) -> None:
        """Somebody else takes liquidity."""
        for match in self.book(instrument).take(buy, None, lots):
            if match.maker is None:
                self.print(instrument, match.ticks, match.lots, buy)
            else:
                self._fill(match.maker, match, maker=True, taker_buy=buy)
        self.dirty[instrument.name] = None

    def print(self, instrument: Instrument, ticks: int, lots: int, buy: bool) -> dict[str, Any]:
        """One public trade: its document, numbered."""
        seq = self.seqs[instrument.name] = self.seqs.get(instrument.name, 0) + 1
        self.counts["trade"] += 1
        prefix = "" if instrument.settlement == "BTC" else f"{instrument.settlement}-"
        mark = self.market.mark(instrument, self._wall())
        before = self.last_ticks.get(instrument.name)
        zero = before is None or ticks == before
        up = before is None or ticks >= before
        document: dict[str, Any] = {
            "trade_id": f"{prefix}{40_000_000 + self.counts['trade']}",
            "trade_seq": seq,
            "instrument_name": instrument.name,
            "timestamp": self._wall(),
            "direction": "buy" if buy else "sell",
            "tick_direction": (1 if zero else 0) if up else 2,
            "price": instrument.price(ticks),
            "amount": instrument.amount(lots),
            "contracts": instrument.contracts(lots),
            "index_price": mark.index,
            "mark_price": mark.price,
        }
        if instrument.option:
            document["iv"] = round(mark.iv, 2)
        self.last_ticks[instrument.name] = ticks
        self.volume[instrument.name] = self.volume.get(instrument.name, 0.0) + instrument.amount(lots)
        self.public_trades.setdefault(instrument.name, deque(maxlen=PUBLIC_TRADES_MAX)).append(document)
        self.prints.append(document)
        return document

    # ---- placing

    def resting(self) -> Iterable[Order]:
        """Orders that could still fill."""
        return [order for order in self.alive.values() if order.resting]

    def lawful(self, wanted: Wanted) -> Wanted:
        """The order as it will be placed: trimmed, clamped, repriced. Raises Refused; changes nothing."""
        if len(self.alive) >= OPEN_ORDERS_MAX:
            raise Refused(10047)
        if self._wall() >= wanted.instrument.expires_ms:
            raise Refused(10012)
        if wanted.reduce_only:
            wanted = _with(wanted, lots=self._trimmed(wanted))
        if wanted.trigger is None:
            wanted = self._priced(wanted)
        self._funded(wanted)
        return wanted

    def _trimmed(self, wanted: Wanted) -> int:
        """A reduce-only order's amount: no more than the position, over all resting reduce-only orders together."""
        position = self.account.lots(wanted.instrument)
        room = -position if wanted.buy else position
        if wanted.time_in_force not in _IMMEDIATE and wanted.ticks is not None:
            room -= sum(order.left for order in self._reducing(wanted.instrument)
                        if order.buy == wanted.buy and order is not wanted.instead_of)
        if room <= 0:
            raise Refused(11030, {"reason": "invalid_reduce_only_order"})
        return min(wanted.lots, room)

    def _reducing(self, instrument: Instrument) -> list[Order]:
        return [o for o in self.alive.values() if o.reduce_only and o.instrument is instrument and o.resting]

    def _priced(self, wanted: Wanted) -> Wanted:
        """Clamp to the price band, and move a post-only order inside the spread."""
        instrument, ticks = wanted.instrument, wanted.ticks
        if ticks is None:
            return wanted
        low, high = self.market.band(instrument, self.market.mark(instrument, self._wall()))
        if instrument.option and wanted.buy and ticks > high:
            raise Refused(10007, {"limit": instrument.price(high)})
        if instrument.option and not wanted.buy and ticks < low:
            raise Refused(10005, {"limit": instrument.price(low)})
        ticks = min(ticks, high) if wanted.buy else max(ticks, low)
        if wanted.post_only:
            ticks = self._inside(wanted, ticks)
        return _with(wanted, ticks=ticks)

    def _inside(self, wanted: Wanted, ticks: int) -> int:
        book, instrument = self.book(wanted.instrument), wanted.instrument
        other = book.best_ask if wanted.buy else book.best_bid
        if other is None or (ticks < other if wanted.buy else ticks > other):
            return ticks
        if wanted.reject_post_only:
            raise Refused(11054)
        inside = instrument.below(other) if wanted.buy else instrument.above(other)
        if inside <= 0:
            raise Refused(11054)
        return inside

    def _funded(self, wanted: Wanted) -> None:
        if wanted.reduce_only:
            return
        added = wanted.lots - (wanted.instead_of.left if wanted.instead_of else 0)
        lots = added if wanted.buy else -added
        need = self.account.margin_change(wanted.instrument, lots)
        if need > EPSILON and need > self.account.summary(wanted.instrument.settlement, self.resting())["available_funds"]:
            raise Refused(10009)

    def admit(self, wanted: Wanted, silenced: bool = False) -> Order:
        """Make an order of what ``lawful`` has passed. Nothing has met the book yet."""
        order = self._make(wanted)
        order.silenced = silenced
        if order.trigger is not None:
            order.state = "untriggered"
        self.orders[order.id] = self.alive[order.id] = order
        return order

    def run(self, order: Order, immediate_lots: int | None = None) -> list[Trade]:
        """Let an admitted order meet the book. ``immediate_lots`` bounds what may fill at once (a switch's doing)."""
        if order.state == "untriggered":
            self._changed(order)
            return []
        return self._match(order, immediate_lots)

    def place(self, wanted: Wanted) -> tuple[Order, list[Trade]]:
        """``lawful``, ``admit`` and ``run`` in one. Raises Refused."""
        order = self.admit(self.lawful(wanted))
        return order, self.run(order)

    def _make(self, wanted: Wanted) -> Order:
        self.counts["order"] += 1
        number = self.counts["order"]
        name = f"{wanted.instrument.settlement}-{'SL' if wanted.trigger else ''}{584_000_000 + number}"
        now = self._wall()
        return Order(name, wanted.instrument, wanted.buy, wanted.lots, wanted.ticks, wanted.type, wanted.time_in_force,
                     wanted.label, wanted.post_only, wanted.reject_post_only, wanted.reduce_only, now, now, wanted.conn,
                     web=wanted.web, mmp=wanted.mmp, advanced=wanted.advanced, display_lots=wanted.display_lots,
                     trigger=wanted.trigger, trigger_ticks=wanted.trigger_ticks, place=number)

    def _match(self, order: Order, immediate_lots: int | None) -> list[Trade]:
        """Let an order meet the book, then rest, end or be cancelled."""
        book = self.book(order.instrument)
        limit = self._limit(order, book)
        lots = order.left if immediate_lots is None else min(order.left, immediate_lots)
        if order.time_in_force == "fill_or_kill" and book.depth(order.buy, limit) < order.left:
            lots = 0
        trades: list[Trade] = []
        while lots > 0:  # a fill may re-trim or cancel makers, so the book is asked again while it still gives
            matches = [] if limit is _NO_PRICE else book.take(order.buy, limit, lots)
            if not matches:
                break
            for match in matches:
                lots -= match.lots
                if match.maker is not None:
                    self.cancel(match.maker, "risk_mitigation", "self_trade")  # never with itself: the maker goes
                    lots += match.lots
                    continue
                trades.append(self._fill(order, match, maker=False, taker_buy=order.buy, quiet=True))
        self._settle(order, book, limit)
        self._changed(order, trades)
        return trades

    def _limit(self, order: Order, book: Book) -> int | None:
        if order.type == "market_limit" and order.ticks is None:
            order.ticks = book.best_ask if order.buy else book.best_bid
            return order.ticks if order.ticks is not None else _NO_PRICE
        if order.ticks is not None:
            return order.ticks
        low, high = self.market.band(order.instrument, self.market.mark(order.instrument, self._wall()))
        return high if order.buy else low

    def _settle(self, order: Order, book: Book, limit: int | None) -> None:
        """What becomes of the part that did not trade at once."""
        if not order.alive:
            return
        if order.ticks is None or order.time_in_force in _IMMEDIATE or limit is _NO_PRICE:
            self._close(order, "cancelled")
        else:
            self._withdraw(order, book)
            book.rest(order)
        self.dirty[order.instrument.name] = None

    def _withdraw(self, order: Order, book: Book) -> None:
        """What an order reached but was not let meet (a switch) is pulled, own orders too: a book is never crossed."""
        assert order.ticks is not None
        if order.buy:
            book.asks = {ticks: lots for ticks, lots in book.asks.items() if ticks > order.ticks}
        else:
            book.bids = {ticks: lots for ticks, lots in book.bids.items() if ticks < order.ticks}
        for own in list(book.sells if order.buy else book.buys):
            assert own.ticks is not None
            if own.ticks <= order.ticks if order.buy else own.ticks >= order.ticks:
                self.cancel(own, "risk_mitigation", "self_trade")

    # ---- filling

    def _fill(self, order: Order, match: Match, maker: bool, taker_buy: bool, quiet: bool = False) -> Trade:
        """Count one fill of the account's order. ``quiet`` leaves the news to the caller, who has more to tell."""
        instrument = order.instrument
        price, amount = instrument.price(match.ticks), instrument.amount(match.lots)
        public = self.print(instrument, match.ticks, match.lots, taker_buy)
        fee = self.fee(instrument, price, amount, maker)
        net_before = self.account.net_delta()
        profit = self.account.fill(instrument, match.lots * order.sign, price, fee)
        order.filled += match.lots
        order.paid += amount * price
        order.updated_ms = self._wall()
        if not order.left:
            self._close(order, "filled")
        mark = self.market.mark(instrument, self._wall())
        trade = Trade(public["trade_id"], public["trade_seq"], order, self._wall(), match.ticks, match.lots, maker, fee,
                      mark.index, mark.price, public["tick_direction"], order.state, round(profit, 9),
                      round(mark.iv, 2) if instrument.option else None, round(mark.forward, 4) if instrument.option else None)
        self.trades.append(trade)
        self.dirty[instrument.name] = None
        self._witness.filled(trade, instrument.amount(self.account.lots(instrument)), net_before, self.account.net_delta())
        if not quiet:
            self._changed(order, [trade])
        self._retrim(instrument)
        return trade

    def fee(self, instrument: Instrument, price: float, amount: float, maker: bool) -> float:
        """What a fill costs, in the settlement currency; an option's fee is at most an eighth of its price."""
        rate = instrument.maker if maker else instrument.taker
        if instrument.option:
            return round(min(rate, 0.125 * price) * amount, 9)
        return round(rate * (amount * price if instrument.linear else amount / price), 9)

    def _retrim(self, instrument: Instrument) -> None:
        """Resting reduce-only orders never exceed the position; they shrink with it and never grow again."""
        position = self.account.lots(instrument)
        room = {True: max(-position, 0), False: max(position, 0)}
        for order in self._reducing(instrument):
            keep = min(order.left, room[order.buy])
            room[order.buy] -= keep
            if keep == order.left:
                continue
            if not keep:
                self.cancel(order, "risk_mitigation")
            else:
                order.lots = order.filled + keep
                order.updated_ms = self._wall()
                self._changed(order)

    # ---- ending

    def cancel(self, order: Order, reason: str, by: str | None = None) -> None:
        """Cancel an order that is alive."""
        order.cancel_reason = reason
        self._book_of(order.instrument).remove(order)
        self._close(order, "cancelled")
        self.dirty[order.instrument.name] = None
        self._witness.cancelled(order, by or reason)
        self._changed(order)

    def _close(self, order: Order, state: str) -> None:
        order.state = state
        order.updated_ms = self._wall()
        self._book_of(order.instrument).remove(order)
        if self.alive.pop(order.id, None) is not None:
            self._closed.append(order.id)
            if len(self._closed) > CLOSED_ORDERS_MAX:
                self.orders.pop(self._closed.popleft(), None)

    def edit(self, order: Order, wanted: Wanted) -> list[Trade]:
        """Change an order to what ``lawful`` has passed. Keeps its place when only the amount shrinks (venue's rule)."""
        keeps_place = wanted.ticks == order.ticks and wanted.lots <= order.left
        book = self.book(order.instrument)
        book.remove(order)
        order.lots, order.ticks = order.filled + wanted.lots, wanted.ticks
        order.post_only, order.reject_post_only = wanted.post_only, wanted.reject_post_only
        order.reduce_only, order.trigger_ticks = wanted.reduce_only, wanted.trigger_ticks
        order.replaced, order.updated_ms = True, self._wall()
        if not keeps_place:
            self.counts["order"] += 1
            order.place = self.counts["order"]
        if order.state == "untriggered":
            self._changed(order)
            return []
        return self._match(order, None)

    # ---- time

    def pass_time(self) -> None:
        """Expire good-til-day orders and trigger what the market has reached."""
        now = self._wall()
        for order in list(self.alive.values()):
            if order.time_in_force == "good_til_day" and now >= _end_of_day(order.created_ms):
                self.cancel(order, "settlement")
            elif order.state == "untriggered" and self._reached(order):
                self._triggered(order)

    def _reached(self, order: Order) -> bool:
        instrument = order.instrument
        mark = self.market.mark(instrument, self._wall())
        last = self.last_ticks.get(instrument.name)
        seen = {"index_price": mark.index, "mark_price": mark.price,
                "last_price": mark.price if last is None else instrument.price(last)}[order.trigger or "mark_price"]
        assert order.trigger_ticks is not None
        level = instrument.price(order.trigger_ticks)
        rising = order.buy == order.type.startswith("stop")
        return seen >= level if rising else seen <= level

    def _triggered(self, order: Order) -> None:
        order.original_type, order.triggered = order.type, True
        order.type = "limit" if order.type.endswith("limit") else "market"
        order.state = "open"
        if order.reduce_only:
            position = self.account.lots(order.instrument)
            room = -position if order.buy else position
            if room <= 0:
                self.cancel(order, "risk_mitigation")
                return
            order.lots = min(order.lots, room)
        self._match(order, None)

    def deliver(self, instrument: Instrument) -> None:
        """An instrument has expired: its orders end."""
        for order in [o for o in self.alive.values() if o.instrument is instrument]:
            self.cancel(order, "settlement")

    def _changed(self, order: Order, trades: Iterable[Trade] = ()) -> None:
        self.changes.append(Change(order.instrument, [(order, order.document())], list(trades)))


_PLAIN = Shape()
_NOTHING = Shape(collapsed=True)
_NO_PRICE = -1
"""A market_limit order on an empty book has no price to become a limit at."""


def _with(wanted: Wanted, **fields: Any) -> Wanted:
    values = {name: getattr(wanted, name) for name in Wanted.__slots__}
    return Wanted(**(values | fields))


def _end_of_day(created_ms: int) -> int:
    """The first 08:00 UTC after the order was made."""
    offset = 8 * 3_600_000
    return ((created_ms - offset) // DAY_MS + 1) * DAY_MS + offset
