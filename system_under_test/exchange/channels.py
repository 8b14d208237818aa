"""Subscriptions: which channels there are, what each says first, and what it says when something moved.

A message is encoded once for all subscribers of its channel. ``raw`` channels speak at once; ``100ms`` and ``agg2``
(one second) gather what happened and speak when their interval is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from system_under_test.exchange.account import CURRENCIES
from system_under_test.exchange.instruments import Instrument, matches
from system_under_test.exchange.protocol import notification
from system_under_test.exchange.quotes import Quotes
from system_under_test.exchange.sessions import Session

INTERVALS_MS = {"raw": 0, "100ms": 100, "agg2": 1_000}
GROUPS = ("none", "1", "2", "5", "10", "25", "100", "250")
DEPTHS = ("1", "10", "20")
ITEMS_MAX = 100
"""Items in one message: a burst comes in several, as clients bound their frames."""
CHANNELS_MAX = 500
"""Subscriptions one connection may hold (the venue's limit)."""


@dataclass(slots=True)
class Feed:
    """One channel with its subscribers."""

    channel: str
    interval_ms: int
    subscribers: dict[str, Session] = field(default_factory=dict)
    spoke_ms: int = -1_000_000
    gathered: list[Any] = field(default_factory=list)

    def first(self) -> Iterable[Any]:
        """What a new subscriber hears at once."""
        return ()

    def now(self) -> Iterable[Any]:
        """What everybody hears now that the channel may speak."""
        gathered, self.gathered = self.gathered, []
        return [gathered[at:at + ITEMS_MAX] for at in range(0, len(gathered), ITEMS_MAX)]


@dataclass(slots=True)
class EachFeed(Feed):
    """Says every gathered item as a message of its own."""

    def now(self) -> Iterable[Any]:
        gathered, self.gathered = self.gathered, []
        return gathered


@dataclass(slots=True)
class BookFeed(Feed):
    """Snapshot, then changes linked by change ids. A gap switch drops a change after it was made."""

    quotes: Quotes | None = None
    instrument: Instrument | None = None
    wall: Callable[[], int] = int
    told: tuple[Mapping[int, int], Mapping[int, int]] = ({}, {})
    told_id: int | None = None

    def first(self) -> Iterable[Any]:
        """The state that the other subscribers have been told, so that the next change fits everybody."""
        assert self.quotes and self.instrument
        if self.told_id is None:
            self.told = self.quotes.view(self.instrument)
            self.told_id = self.quotes.change_ids[self.instrument.name]
        bids, asks = self.told
        yield {"type": "snapshot", "timestamp": self.wall(), "instrument_name": self.instrument.name,
               "change_id": self.told_id, "bids": self._all(bids), "asks": self._all(asks)}

    def _all(self, levels: Mapping[int, int]) -> list[list[Any]]:
        assert self.instrument
        return [["new", self.instrument.price(t), self.instrument.amount(n)] for t, n in levels.items()]

    def now(self) -> Iterable[Any]:
        assert self.quotes and self.instrument and self.told_id is not None
        told, name = self.told, self.instrument.name
        view = self.quotes.view(self.instrument)
        change_id = self.quotes.change_ids[name]
        if view is told or change_id == self.told_id:
            return ()
        bids, asks = self._changes(told[0], view[0]), self._changes(told[1], view[1])
        self.told = view
        if not bids and not asks:
            return ()
        before, self.told_id = self.told_id, change_id
        return ({"type": "change", "timestamp": self.wall(), "instrument_name": name, "prev_change_id": before,
                 "change_id": change_id, "bids": bids, "asks": asks},)

    def _changes(self, old: Mapping[int, int], new: Mapping[int, int]) -> list[list[Any]]:
        assert self.instrument
        (tick, ticks_of), (lot, lots_of) = self.instrument.tick, self.instrument.lot
        changes: list[list[Any]] = [["change" if ticks in old else "new", ticks * tick / ticks_of, lots * lot / lots_of]
                                    for ticks, lots in new.items() if old.get(ticks) != lots]
        changes += [["delete", ticks * tick / ticks_of, 0.0] for ticks in old if ticks not in new]
        return changes


@dataclass(slots=True)
class ValueFeed(Feed):
    """Says a document, whole, whenever it differs from what was said last."""

    make: Callable[[], Any] = dict
    said: Any = None
    increment: bool = False
    """after a whole first message only what changed (incremental_ticker)"""

    def first(self) -> Iterable[Any]:
        document = self.make()
        if self.increment:
            self.said = self.said or document
            yield {"type": "snapshot", **self.said}
        else:
            self.said = document
            yield document

    def now(self) -> Iterable[Any]:
        document, said = self.make(), self.said or {}
        if document is said or document == said:
            return ()
        self.said = document
        if not self.increment:
            return (document,)
        changed = {key: value for key, value in document.items() if said.get(key) != value}
        return ({"type": "change", "instrument_name": document["instrument_name"], "timestamp": document["timestamp"],
                 **changed},)


class Hub:
    """All channels that somebody listens to."""

    def __init__(self, quotes: Quotes, wall: Callable[[], int], send: Callable[[Session, bytes], None],
                 instrument: Callable[[str], Instrument | None]) -> None:
        self._quotes, self._wall, self._send, self._instrument = quotes, wall, send, instrument
        self.feeds: dict[str, Feed] = {}
        self.by_instrument: dict[str, dict[str, Feed]] = {}
        """feeds that follow one instrument's book"""
        self._indices: dict[str, Feed] = {}
        """feeds that follow an index"""
        self._restless: dict[str, Feed] = {}
        """feeds that may have something to say"""
        self._waiting: dict[str, Feed] = {}
        """those of them whose interval is not over; the first of them is due at ``_due``"""
        self._due: int | None = None
        self.index: Callable[[str], dict[str, Any] | None] = lambda name: None
        self.volatility: Callable[[str], dict[str, Any] | None] = lambda name: None
        self.portfolio: Callable[[str], dict[str, Any]] = lambda currency: {}
        self.times: Callable[[Feed, Any], int] = lambda feed, message: 1
        """how often a message is sent: a switch may swallow or repeat it"""

    # ---- who listens

    def subscribe(self, session: Session, channel: str, label: str | None, now_ms: int) -> bool:
        """Whether there is such a channel; its first messages are sent later, by ``greet``."""
        if channel in session.channels:
            session.channels[channel] = label
            return True
        if len(session.channels) >= CHANNELS_MAX:
            return False
        feed = self.feeds.get(channel) or self._make(channel)
        if feed is None:
            return False
        if channel not in self.feeds:
            self.feeds[channel] = feed
            feed.spoke_ms = now_ms
            if (name := _book_of(channel)) is not None:
                self.by_instrument.setdefault(name, {})[channel] = feed
            elif channel.startswith("deribit_"):
                self._indices[channel] = feed
        feed.subscribers[session.conn] = session
        session.channels[channel] = label
        return True

    def greet(self, session: Session, channel: str) -> None:
        """Say to one new subscriber what the channel says first."""
        feed = self.feeds[channel]
        for data in feed.first():
            self._send(session, notification(channel, data, session.channels[channel]))

    def unsubscribe(self, session: Session, channel: str) -> bool:
        if channel not in session.channels:
            return False
        del session.channels[channel]
        feed = self.feeds[channel]
        feed.subscribers.pop(session.conn, None)
        if not feed.subscribers:
            del self.feeds[channel]
            self._restless.pop(channel, None)
            if self._waiting.pop(channel, None) is not None:
                self._due = min((each.spoke_ms + each.interval_ms for each in self._waiting.values()), default=None)
            self._indices.pop(channel, None)
            name = _book_of(channel)
            if name is not None:
                del self.by_instrument[name][channel]
                if not self.by_instrument[name]:
                    del self.by_instrument[name]
        return True

    # ---- what there is

    def _make(self, channel: str) -> Feed | None:
        parts = channel.split(".")
        match parts:
            case ["book", name, interval] if interval in INTERVALS_MS and (found := self._instrument(name)):
                return BookFeed(channel, INTERVALS_MS[interval], quotes=self._quotes, instrument=found, wall=self._wall)
            case ["book", name, group, depth, interval] if (
                group in GROUPS and depth in DEPTHS and interval in INTERVALS_MS and (found := self._instrument(name))
            ):
                make = _grouped(self._quotes, found, group, int(depth), self._wall)
                return ValueFeed(channel, INTERVALS_MS[interval], make=make)
            case ["ticker", name, interval] if interval in INTERVALS_MS and (found := self._instrument(name)):
                return ValueFeed(channel, INTERVALS_MS[interval], make=partial(self._quotes.ticker, found))
            case ["incremental_ticker", name] if found := self._instrument(name):
                return ValueFeed(channel, 0, make=partial(self._quotes.ticker, found), increment=True)
            case ["quote", name] if found := self._instrument(name):
                return ValueFeed(channel, 0, make=partial(self._quotes.quote, found))
            case ["perpetual", name, interval] if (
                interval in INTERVALS_MS and (found := self._instrument(name)) and found.perpetual
            ):
                return ValueFeed(channel, max(INTERVALS_MS[interval], 1_000), make=partial(_perpetual, self._quotes, found))
            case ["deribit_price_index", name] if self.index(name):
                return ValueFeed(channel, 0, make=partial(self.index, name))
            case ["deribit_volatility_index", name] if self.volatility(name):
                return ValueFeed(channel, 1_000, make=partial(self.volatility, name))
            case ["platform_state"] | ["platform_state", "public_methods_state"] | ["user", "lock"]:
                return EachFeed(channel, 0)
            case ["instrument", "state", _, _]:
                return EachFeed(channel, 0)
            case ["user", "portfolio", currency] if currency.upper() in (*CURRENCIES, "ANY"):
                return _Portfolio(channel, 0, hub=self, currency=currency.upper())
            case ["user", "portfolio", _]:
                return Feed(channel, 0)  # a currency that the account does not hold: nothing to say
        return self._filtered(channel, parts)

    def _filtered(self, channel: str, parts: list[str]) -> Feed | None:
        """trades and user.orders|trades|changes, of one instrument or of kind.currency."""
        user = parts[0] == "user"
        words = parts[1:] if user else parts
        if not words or words[0] not in (("orders", "trades", "changes") if user else ("trades",)):
            return None
        if len(words) not in (3, 4) or words[-1] not in INTERVALS_MS:
            return None
        if len(words) == 3 and self._instrument(words[1]) is None:
            return None
        interval = INTERVALS_MS[words[-1]]
        each = user and (words[0] == "changes" or (words[0] == "orders" and interval == 0))
        return (EachFeed if each else Feed)(channel, interval)

    # ---- what moved

    def book_moved(self, instrument: str) -> None:
        self._restless.update(self.by_instrument.get(instrument, {}))

    def indices_moved(self) -> None:
        self._restless.update(self._indices)

    def tell(self, kind: str, instrument: Instrument, items: list[Any]) -> None:
        """Give items to the channels ``<kind>.…`` that this instrument falls under."""
        depth = kind.count(".") + 1
        for channel, feed in self.feeds.items():
            if channel.startswith(kind + ".") and _covers(channel.split(".")[depth:], instrument):
                feed.gathered.extend(items)
                self._restless[channel] = feed

    def portfolio_moved(self, currency: str) -> None:
        """The account's money in this currency is not what it was."""
        for channel, feed in self.feeds.items():
            if isinstance(feed, _Portfolio) and feed.currency in (currency, "ANY"):
                feed.gathered.append(currency)
                self._restless[channel] = feed

    def say(self, channel: str, data: Any) -> None:
        """Give one item to one channel."""
        feed = self.feeds.get(channel)
        if feed is not None:
            feed.gathered.append(data)
            self._restless[channel] = feed

    def speak(self, now_ms: int) -> int | None:
        """Send what is due. Returns when the next channel is due, if any."""
        if not self._restless and (self._due is None or now_ms < self._due):
            return self._due
        waiting: dict[str, Feed] = {}
        due: int | None = None
        restless, self._restless = self._waiting | self._restless, {}
        while restless:
            for channel, feed in restless.items():
                at = feed.spoke_ms + feed.interval_ms
                if at > now_ms:
                    waiting[channel] = feed
                    due = at if due is None else min(due, at)
                else:
                    self._broadcast(feed, now_ms)
            restless, self._restless = self._restless, {}
        self._waiting, self._due = waiting, due
        return due

    def _broadcast(self, feed: Feed, now_ms: int) -> None:
        channel = feed.channel
        for data in feed.now():
            feed.spoke_ms = now_ms
            times = self.times(feed, data)
            if not times:
                continue
            plain = notification(channel, data)
            for session in list(feed.subscribers.values()) * times:
                label = session.channels.get(channel)
                self._send(session, notification(channel, data, label) if label else plain)


@dataclass(slots=True)
class _Portfolio(Feed):
    """The account's summary, of one currency or of each."""

    hub: Hub | None = None
    currency: str = "ANY"

    def first(self) -> Iterable[Any]:
        assert self.hub
        return [self.hub.portfolio(each) for each in (CURRENCIES if self.currency == "ANY" else (self.currency,))]

    def now(self) -> Iterable[Any]:
        """``gathered`` holds the currencies that moved."""
        assert self.hub
        moved, self.gathered = dict.fromkeys(self.gathered), []
        return [self.hub.portfolio(each) for each in moved]


def _book_of(channel: str) -> str | None:
    """The instrument whose book a channel follows."""
    parts = channel.split(".")
    return parts[1] if parts[0] in ("book", "ticker", "incremental_ticker", "quote", "perpetual") else None


def _covers(parts: list[str], instrument: Instrument) -> bool:
    """Whether ``{instrument}.{interval}`` or ``{kind}.{currency}.{interval}`` covers an instrument."""
    if len(parts) == 2:
        return parts[0] == instrument.name
    return len(parts) == 3 and matches(instrument, parts[1], parts[0])


def _grouped(quotes: Quotes, instrument: Instrument, group: str, depth: int, wall: Callable[[], int]) -> Callable[[], Any]:
    """A book gathered into price steps of ``group`` ticks (bids downwards, asks upwards), ``depth`` levels a side."""
    width = 1 if group == "none" else int(group)

    def gather(levels: Mapping[int, int], up: bool) -> dict[int, int]:
        if width == 1:
            return dict(levels)
        sums: dict[int, int] = {}
        for ticks, lots in levels.items():
            step = ticks + (-ticks % width if up else -(ticks % width))
            sums[step] = sums.get(step, 0) + lots
        return sums

    def make() -> dict[str, Any]:
        bids, asks = quotes.view(instrument)
        return {"timestamp": wall(), "instrument_name": instrument.name, "change_id": quotes.change_ids[instrument.name],
                "bids": quotes.side(instrument, gather(bids, False), depth),
                "asks": quotes.side(instrument, gather(asks, True), depth)}

    return make


def _perpetual(quotes: Quotes, instrument: Instrument) -> dict[str, Any]:
    ticker = quotes.ticker(instrument)
    return {"interest": ticker["current_funding"], "timestamp": ticker["timestamp"], "index_price": ticker["index_price"]}
