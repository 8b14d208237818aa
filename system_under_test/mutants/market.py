"""Sabotages of what is known of the market."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader
from system_under_test.trader.turn import Turn


def never_stale(environment: Mapping[str, str]) -> Trader:
    """Silence is not noticed: drill 2 must say that opening was not latched in time (``latched``).

    Real bugs look like this: the age of the feed is taken from its heartbeats, which go on when the data does not.
    """

    def sabotage(trader: Trader) -> None:
        graft(trader.market, "stale", lambda ts: False)

    return operate(environment, sabotage)


def ignores_gaps(environment: Mapping[str, str]) -> Trader:
    """A change is applied whatever its predecessor was: drill 5 must say that the gap latched nothing (``latched``).

    Real bugs look like this: ``prev_change_id`` is parsed and never compared, because no test ever left one out.
    """

    def sabotage(trader: Trader) -> None:
        market = trader.market
        honest = market.on_book

        def on_book(data: Mapping[str, Any], ts: int) -> bool:
            book = market.books.get(data["instrument_name"])
            if book is not None and "prev_change_id" in data:
                data = {**data, "prev_change_id": book.change_id}
            return honest(data, ts)

        graft(market, "on_book", on_book)

    return operate(environment, sabotage)


def never_rebuilds(environment: Mapping[str, str]) -> Trader:
    """After a gap the book is never fetched anew: drill 5 must say that it did not come back (``converge``).

    Real bugs look like this: the book is marked as broken, and the mending waits for a message that has passed.
    """

    def sabotage(trader: Trader) -> None:
        venue = trader.venue
        honest = venue.subscribe

        def subscribe(turn: Turn, channels: Sequence[str], *, anew: bool = False) -> None:
            if not anew:
                honest(turn, channels)

        graft(trader.market, "rebuild", lambda instrument, data, ts: None)
        graft(venue, "subscribe", subscribe)

    return operate(environment, sabotage)


def ignores_trade_gaps(environment: Mapping[str, str]) -> Trader:
    """Numbers of public trades are not compared: drill 6 must say that the gap latched nothing (``latched``).

    Real bugs look like this: the book has its chain of ids, so the trades were thought to be watched as well.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.market.on_trades
        graft(trader.market, "on_trades", lambda trades: ([], honest(trades)[1]))

    return operate(environment, sabotage)


def hears_twice(environment: Mapping[str, str]) -> Trader:
    """A public trade that is told again signals again: drill 6 must say that too many wishes were made (``counted_once``).

    Real bugs look like this: duplicates are dropped where fills are counted, and nowhere else.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.market.on_trades

        def on_trades(trades: Sequence[Mapping[str, Any]]) -> tuple[list[str], Sequence[Mapping[str, Any]]]:
            return honest(trades)[0], trades

        graft(trader.market, "on_trades", on_trades)

    return operate(environment, sabotage)
