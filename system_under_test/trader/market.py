"""What is known of the market: books, tickers, index, instruments, and whether any of it can be believed.

A book is believed while its chain of change ids is whole. A gap is said once, the book is not believed from then
on, and it is rebuilt from a snapshot, of the stream or of REST, whichever comes first. Silence is judged for the
feed as a whole: one quiet instrument proves nothing, and heartbeats are no market data. So that a feed that runs
on minutes late is not taken for a fresh one, the age of its newest event counts beside its silence.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from operator import mul
from typing import Any

from msgspec import Struct

from system_under_test.trader.holdings import OPTION_ENDS
from system_under_test.trader.quantize import OPTION, Instrument, MetadataMissing, parse_instrument
from system_under_test.trader.settings import Settings

Level = tuple[float, float]

PUBLIC_TRADES_MAX = 10_000
"""So many public trades are remembered by id. A feed that repeats older ones has stepped back, and latches."""

EVENT_AGE_HOLDS_MS = 2_500
"""A late feed is called stale after it has been late this long: longer than two samples of the exchange's clock, so
that a stepped clock, which moves the reckoning until the next sample, does not pass for a late feed."""

OPTION_DAYS_MIN_MS = 2 * 86_400_000
"""The option traded expires no sooner than this, so that no drill runs into an expiry."""


class Book:
    """One order book: amounts by price, and the prices of each side in order, kept so with every change."""

    __slots__ = ("change_id", "synced", "ts", "_sides", "_prices", "_depths")

    def __init__(self) -> None:
        self.change_id: int | None = None
        self.synced = False
        self.ts: int | None = None
        self._sides: dict[str, dict[float, float]] = {"bids": {}, "asks": {}}
        self._prices: dict[str, list[float]] = {"bids": [], "asks": []}
        """rising"""
        self._depths: dict[tuple[int, bool], float] = {}
        """what was asked for since the last change"""

    def load(self, data: Mapping[str, Any], ts: int) -> None:
        """A snapshot, of the stream (``[action, price, amount]``) or of REST (``[price, amount]``)."""
        sides = {side: {_real(level[-2]): _real(level[-1]) for level in data[side] if level[-1] > 0}
                 for side in ("bids", "asks")}
        self._depths.clear()
        self._sides, self._prices = sides, {side: sorted(levels) for side, levels in sides.items()}
        self.change_id, self.ts, self.synced = data["change_id"], ts, True

    def change(self, data: Mapping[str, Any], ts: int) -> bool:
        """A change of the stream. False when its chain does not go on from what we have, or when it cannot be read:
        a gap."""
        before = data.get("prev_change_id")
        if before is None or before != self.change_id:
            if before is not None and self.change_id is not None and data["change_id"] <= self.change_id:
                return True  # older than the snapshot that REST gave us
            self.synced = False
            return False
        self._depths.clear()
        try:
            for side in ("bids", "asks"):
                self._apply(self._sides[side], self._prices[side], data[side])
            self.change_id, self.ts = data["change_id"], ts
        except (KeyError, TypeError, ValueError):  # half applied: nothing of this book is believed any more
            self.synced = False
        return self.synced

    @staticmethod
    def _apply(levels: dict[float, float], prices: list[float], changes: Iterable[tuple[str, float, float]]) -> None:
        for action, price, amount in changes:
            if action == "delete":
                if levels.pop(price, None) is not None:
                    del prices[bisect_left(prices, price)]
            else:
                if type(price) is not float or type(amount) is not float:
                    price, amount = _real(price), _real(amount)
                if price not in levels:
                    insort(prices, price)
                levels[price] = amount

    @property
    def best(self) -> tuple[Level | None, Level | None]:
        """Best bid and best ask, each ``(price, amount)`` or None."""
        bids, asks = self._prices["bids"], self._prices["asks"]
        return ((bids[-1], self._sides["bids"][bids[-1]]) if bids else None,
                (asks[0], self._sides["asks"][asks[0]]) if asks else None)

    @property
    def spread_bps(self) -> float | None:
        """Between best bid and best ask, in basis points of their middle; None while a side is empty, or crossed."""
        bids, asks = self._prices["bids"], self._prices["asks"]
        if not (bids and asks and bids[-1] < asks[0]):
            return None
        bid, ask = bids[-1], asks[0]
        return (ask - bid) / ((ask + bid) / 2) * 10_000

    def levels(self, side: str, depth: int) -> list[Level]:
        """The best levels of ``bids`` or ``asks``, best first."""
        levels = self._sides[side]
        return [(price, levels[price]) for price in self._nearest(side, depth)]

    def _nearest(self, side: str, depth: int) -> list[float]:
        return self._prices[side][:-depth - 1:-1] if side == "bids" else self._prices[side][:depth]

    def depth_usd(self, depth: int, *, inverse: bool) -> float:
        """What the thinner side's best levels are worth. ``inverse``: amounts are in USD already, else in coins."""
        known = self._depths.get((depth, inverse))
        if known is None:
            worth = []
            for side in ("bids", "asks"):
                levels, prices = self._sides[side], self._nearest(side, depth)
                amounts = map(levels.__getitem__, prices)
                worth.append(sum(amounts if inverse else map(mul, prices, amounts)))
            known = self._depths[depth, inverse] = min(worth)
        return known


class Touches(Mapping[str, tuple[float, float] | None]):
    """Best bid and best ask by instrument, looked up when asked; None while a side is empty."""

    def __init__(self, books: Mapping[str, Book]) -> None:
        self._books = books

    def __getitem__(self, instrument: str) -> tuple[float, float] | None:
        bid, ask = self._books[instrument].best
        return (bid[0], ask[0]) if bid and ask else None

    def __iter__(self) -> Iterator[str]:
        return iter(self._books)

    def __len__(self) -> int:
        return len(self._books)


class Ticker(Struct, frozen=True, gc=False):
    """The exchange's summary of an instrument. ``ts`` is when we received it."""

    mark: float | None
    last: float | None
    index: float | None
    bid: float | None
    ask: float | None
    delta: float | None
    ts: int


def parse_ticker(raw: Mapping[str, Any], ts: int) -> Ticker:
    """A ticker of the stream or of REST; a price of 0 is the exchange's way to say none."""
    greeks = raw.get("greeks") or {}
    return Ticker(_price(raw.get("mark_price")), _price(raw.get("last_price")), _price(raw.get("index_price")),
                  _price(raw.get("best_bid_price")), _price(raw.get("best_ask_price")), _number(greeks.get("delta")), ts)


class Market:
    """Everything that the trader believes about the market. Times in monotonic-epoch ms."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.books: dict[str, Book] = {}
        self.tickers: dict[str, Ticker] = {}
        self.instruments: dict[str, Instrument] = {}
        self.instruments_ts: int | None = None
        self.index: float | None = None
        self.option: str | None = None
        self.last_ts: int | None = None
        """when the last market message was received"""
        self.exchange_offset: int | None = None
        """exchange's clock minus our monotonic-epoch, by the last good question"""
        self._event_age: int | None = None
        self._late_since: int | None = None
        self._trade_seq: dict[str, int] = {}
        self._told: dict[str, None] = {}
        """the ids of the public trades that were told last, oldest first"""
        self._watched: tuple[str, ...] = ()
        self.touches: Mapping[str, tuple[float, float] | None] = Touches(self.books)

    # ---- news ----

    def heard(self, event_ms: object, ts: int) -> None:
        """A market message was received; its event happened at this time of the exchange's clock."""
        self.last_ts = ts
        if isinstance(event_ms, int) and self.exchange_offset is not None:
            self._event_age = max(0, ts + self.exchange_offset - event_ms)
            if self._event_age <= self._settings.ws_data_stale_ms:
                self._late_since = None
            elif self._late_since is None:
                self._late_since = ts

    def on_book(self, data: Mapping[str, Any], ts: int) -> bool:
        """A message of a book channel. False when it shows a gap that was not known before."""
        book = self.books.setdefault(data["instrument_name"], Book())
        if data.get("type") == "snapshot":
            book.load(data, ts)
            return True
        before = book.synced
        if not book.synced:
            return True
        return book.change(data, ts) or not before

    def rebuild(self, instrument: str, data: Mapping[str, Any], ts: int) -> None:
        """The snapshot that REST gave after a gap; not taken when the stream was quicker."""
        book = self.books.setdefault(instrument, Book())
        if not book.synced:
            book.load(data, ts)

    def on_trades(self, trades: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[Mapping[str, Any]]]:
        """Public trades. Returns the instruments whose sequence shows a gap or a step back, and the trades that are
        news: a trade that was told before counts no second time, whatever became of the sequence."""
        gaps: list[str] = []
        fresh: list[Mapping[str, Any]] = []
        for trade in trades:
            name, seq, trade_id = trade["instrument_name"], trade["trade_seq"], trade["trade_id"]
            last = self._trade_seq.get(name)
            if last is not None and (seq > last + 1 or seq < last):  # the same number twice is old news
                gaps.append(name)
            self._trade_seq[name] = seq
            if trade_id not in self._told:
                self._told[trade_id] = None
                fresh.append(trade)
        while len(self._told) > PUBLIC_TRADES_MAX:
            del self._told[next(iter(self._told))]
        return gaps, fresh

    def on_ticker(self, instrument: str, raw: Mapping[str, Any], ts: int) -> None:
        ticker = parse_ticker(raw, ts)
        self.tickers[instrument] = ticker
        if ticker.index is not None:
            self.index = ticker.index

    def reconnected(self) -> None:
        """The feed begins anew: chains and sequences start with what it says first."""
        for book in self.books.values():
            book.synced = False
        self._trade_seq.clear()
        self._event_age = self._late_since = None

    def on_instruments(self, raw: Iterable[Mapping[str, Any]], ts: int) -> list[str]:
        """``public/get_instruments``. Returns the names of entries that cannot be used."""
        unusable = []
        for each in raw:
            try:
                instrument = parse_instrument(each)
            except MetadataMissing:
                unusable.append(str(each.get("instrument_name")))
                continue
            self.instruments[instrument.name] = instrument
        self.instruments_ts = ts
        return unusable

    def option_is_old(self, now_ms: int) -> bool:
        """Whether the option traded so far runs out soon enough for another one to be chosen."""
        instrument = self.instruments.get(self.option or "")
        return instrument is None or instrument.expires_ms < now_ms + OPTION_DAYS_MIN_MS // 2

    def choose_option(self, now_ms: int) -> str | None:
        """The call to trade: nearest to the money among those that expire soonest, but not at once."""
        if self.index is None:
            return None
        index = self.index
        calls = [each for each in self.instruments.values()
                 if each.kind == OPTION and each.option_type == "call" and each.strike is not None
                 and each.state == "open" and each.expires_ms >= now_ms + OPTION_DAYS_MIN_MS]
        if not calls:
            return None
        soonest = min(each.expires_ms for each in calls)
        best = min((each for each in calls if each.expires_ms == soonest),
                   key=lambda each: (abs((each.strike or 0.0) - index), each.name))
        return best.name

    # ---- questions ----

    def silence_ms(self, ts: int) -> int | None:
        """How long the feed has been silent; None before its first message."""
        return None if self.last_ts is None else ts - self.last_ts

    def stale(self, ts: int) -> bool:
        """Whether the feed as a whole is too old to trade on."""
        silence = self.silence_ms(ts)
        if silence is None:
            return False
        late = self._late_since is not None and ts - self._late_since >= EVENT_AGE_HOLDS_MS
        return silence > self._settings.ws_data_stale_ms or late

    def current(self, ts: int) -> bool:
        """Whether the feed is fresh enough to say that a staleness is over."""
        silence = self.silence_ms(ts)
        return silence is not None and silence <= 500 and self._late_since is None

    def gapped(self) -> bool:
        """Whether a watched book waits to be rebuilt."""
        return any(not self.books[name].synced for name in self._watched if name in self.books)

    def watch(self, instruments: tuple[str, ...]) -> None:
        """The instruments whose books must be whole."""
        self._watched = instruments

    @property
    def watched(self) -> tuple[str, ...]:
        return self._watched

    def l2(self, instrument: str, ts: int) -> Book | None:
        """The book, if it may be traded on: whole, fresh, two-sided and not crossed."""
        book = self.books.get(instrument)
        if book is None or not book.synced or book.ts is None:
            return None
        if ts - book.ts > self._settings.l2_book_snapshot_max_age_ms:
            return None
        bid, ask = book.best
        return book if bid and ask and bid[0] < ask[0] else None

    def l1(self, instrument: str, ts: int) -> tuple[float, float] | None:
        """Best bid and ask by a fresh ticker: what closing falls back on."""
        ticker = self.tickers.get(instrument)
        if ticker is None or ts - ticker.ts > self._settings.basis_price_max_age_ms:
            return None
        if ticker.bid is None or ticker.ask is None or ticker.bid > ticker.ask:
            return None
        return ticker.bid, ticker.ask

    def touch(self, instrument: str, ts: int) -> tuple[float, float] | None:
        """Best bid and ask for closing: the book, else the ticker."""
        book = self.l2(instrument, ts)
        if book is not None:
            bid, ask = book.best
            if bid and ask:
                return bid[0], ask[0]
        return self.l1(instrument, ts)

    def unit_delta(self, instrument: str) -> float | None:
        """Delta in BTC of one unit of an instrument that is watched; None when it is unknown."""
        known, ticker = self.instruments.get(instrument), self.tickers.get(instrument)
        if known is None or (ticker is None and instrument not in self._watched):
            return None
        if known.kind == OPTION:
            return None if ticker is None else ticker.delta
        if not self.index:
            return None
        return 1.0 / self.index if known.inverse else 1.0

    def inverse(self, instrument: str) -> bool:
        """Whether its amount is in USD; by its name (Deribit) while it is unknown."""
        known = self.instruments.get(instrument)
        return not instrument.endswith(OPTION_ENDS) and "_" not in instrument if known is None else known.inverse

    def depth_usd(self, instrument: str, levels: int) -> tuple[float | None, float | None, int | None]:
        """Spread in basis points, depth of the thinner side in USD, and when the book was last heard of."""
        book, known = self.books.get(instrument), self.instruments.get(instrument)
        if book is None or book.ts is None or not book.synced:
            return None, None, None if book is None else book.ts
        return book.spread_bps, book.depth_usd(levels, inverse=known is not None and known.inverse), book.ts


def _real(value: object) -> float:
    """A price or an amount of a book. Raises TypeError: a text among them would only be found when they are sorted."""
    if type(value) is float or type(value) is int:
        return value
    raise TypeError(f"{type(value).__name__} among the levels of a book")


def _number(value: object) -> float | None:
    if type(value) is float:
        return value
    return float(value) if type(value) is int else None


def _price(value: object) -> float | None:
    return float(value) if (type(value) is float or type(value) is int) and value > 0 else None
