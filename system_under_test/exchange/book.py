"""One instrument's order book: what market makers quote, and the account's resting orders, by price and then time.

The market makers' side is replaced as a whole at every re-quote, so at one price the account's orders, which stayed,
come first. Invariant: the best bid is below the best ask after every public method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from system_under_test.exchange.orders import Order

Levels = Mapping[int, int]
"""ticks → lots, best price first"""


@dataclass(frozen=True, slots=True)
class Match:
    """Part of an incoming order met this much at this price; ``maker`` is None for a market maker's quote."""

    ticks: int
    lots: int
    maker: Order | None


class Book:
    """Prices in ticks, amounts in lots."""

    def __init__(self) -> None:
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}
        self.buys: list[Order] = []
        """resting buys, best first"""
        self.sells: list[Order] = []

    # ---- looking

    @property
    def best_bid(self) -> int | None:
        quoted = next(iter(self.bids), None)
        resting = self.buys[0].ticks if self.buys else None
        return resting if quoted is None else quoted if resting is None else max(quoted, resting)

    @property
    def best_ask(self) -> int | None:
        quoted = next(iter(self.asks), None)
        resting = self.sells[0].ticks if self.sells else None
        return resting if quoted is None else quoted if resting is None else min(quoted, resting)

    @property
    def crossed(self) -> bool:
        bid, ask = self.best_bid, self.best_ask
        return bid is not None and ask is not None and bid >= ask

    def levels(self, buy: bool) -> Levels:
        """One side as everybody sees it, best first. The account's orders are in it like anybody's."""
        quotes, orders = (self.bids, self.buys) if buy else (self.asks, self.sells)
        if not orders:
            return quotes
        merged = dict(quotes)
        for order in orders:
            assert order.ticks is not None
            merged[order.ticks] = merged.get(order.ticks, 0) + order.left
        return {ticks: merged[ticks] for ticks in sorted(merged, reverse=buy)}

    def depth(self, buy: bool, limit: int | None) -> int:
        """How many lots an incoming order of this direction could meet at ``limit`` or better."""
        levels = self.levels(not buy)
        return sum(lots for ticks, lots in levels.items() if limit is None or (ticks <= limit if buy else ticks >= limit))

    # ---- changing

    def rest(self, order: Order) -> None:
        """Put the rest of an order in its queue. The caller has matched it: it does not cross."""
        queue = self.buys if order.buy else self.sells
        assert order.ticks is not None
        key = (-order.ticks if order.buy else order.ticks, order.place)
        at = 0
        while at < len(queue) and _rank(queue[at]) <= key:
            at += 1
        queue.insert(at, order)

    def remove(self, order: Order) -> None:
        """Take an order out; one that is not in the book is no error."""
        queue = self.buys if order.buy else self.sells
        if order in queue:
            queue.remove(order)

    def take(self, buy: bool, limit: int | None, lots: int) -> list[Match]:
        """What an incoming order meets, best first, removing the quotes that it takes.

        Resting orders are only named: whoever owns them counts the fill and removes them when they are done.
        """
        quotes = dict(self.asks if buy else self.bids)
        orders = self.sells if buy else self.buys
        matches: list[Match] = []
        for ticks in sorted({*quotes, *(order.ticks for order in orders if order.ticks is not None)}, reverse=not buy):
            if lots <= 0 or (limit is not None and (ticks > limit if buy else ticks < limit)):
                break
            makers: list[Order | None] = [order for order in orders if order.ticks == ticks]
            for maker in (*makers, None):
                size = min(lots, quotes.get(ticks, 0) if maker is None else maker.left)
                if size > 0:
                    matches.append(Match(ticks, size, maker))
                    lots -= size
                    if maker is None:
                        quotes[ticks] -= size
        left = {ticks: size for ticks, size in quotes.items() if size > 0}
        if buy:
            self.asks = left
        else:
            self.bids = left
        return matches

    def quote(self, bids: dict[int, int], asks: dict[int, int]) -> list[Match]:
        """Replace the market makers' quotes. Where they would cross a resting order they trade with it first.

        Returns those matches (at the resting orders' prices). A quote that met an order is smaller by that much, and
        one that would still cross what is left is dropped.
        """
        matches: list[Match] = []
        self.bids = self._reach(bids, self.sells, True, matches) if self.sells else bids
        self.asks = self._reach(asks, self.buys, False, matches) if self.buys else asks
        return matches

    @staticmethod
    def _reach(quotes: dict[int, int], orders: list[Order], buy: bool, matches: list[Match]) -> dict[int, int]:
        quotes = dict(quotes)
        for order in orders:
            assert order.ticks is not None
            left = order.left
            for ticks in [each for each in quotes if (each >= order.ticks if buy else each <= order.ticks)]:
                size = min(left, quotes[ticks])
                if size > 0:
                    matches.append(Match(order.ticks, size, order))
                    left -= size
                    quotes[ticks] -= size
            if left > 0:
                return {t: n for t, n in quotes.items() if n > 0 and (t < order.ticks if buy else t > order.ticks)}
        return {ticks: lots for ticks, lots in quotes.items() if lots > 0}


def _rank(order: Order) -> tuple[int, int]:
    assert order.ticks is not None
    return (-order.ticks if order.buy else order.ticks, order.place)
