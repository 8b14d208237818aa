"""Prices as the exchange tells them, and what has become of them over the last few runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import islice

import orjson
from msgspec import Struct

from system_under_test.state import number_of

WINDOW = 16
"""Prices that are remembered of a symbol: half a minute at a run every two seconds."""
LISTED_MAX = 3
"""Of what is listed in a currency: the perpetual and the next dates, as the exchange lists them."""


class Quote(Struct, frozen=True):
    """What a symbol is worth, and the index under it, both in the same unit; no index where none is told."""

    mark: float
    index: float | None = None


def read_listing(body: bytes) -> dict[str, Quote] | None:
    """The first symbols of ``public/get_book_summary_by_currency``; None for an answer that is none."""
    try:
        rows = orjson.loads(body)["result"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    if not isinstance(rows, list):
        return None
    told = (row for row in rows if isinstance(row, dict) and isinstance(row.get("instrument_name"), str))
    return {row["instrument_name"]: Quote(mark, _above_zero(row, "estimated_delivery_price"))
            for row in islice(told, LISTED_MAX) if (mark := _above_zero(row, "mark_price")) is not None}


def _above_zero(row: Mapping[str, object], key: str) -> float | None:
    found = number_of(row, key)
    return found if found is not None and found > 0 else None


class Prices:
    """The latest prices of each symbol that is still quoted."""

    def __init__(self) -> None:
        self._marks: dict[str, deque[float]] = {}
        self.quotes: dict[str, Quote] = {}

    def take(self, quotes: Mapping[str, Quote]) -> None:
        """One run's prices. A symbol that is not among them begins anew when it comes back."""
        self.quotes = dict(sorted(quotes.items()))
        self._marks = {symbol: self._marks.get(symbol) or deque(maxlen=WINDOW) for symbol in self.quotes}
        for symbol, quote in self.quotes.items():
            self._marks[symbol].append(quote.mark)

    def clear(self) -> None:
        """A run is missing: what lies apart by more than a run is no return of one."""
        self._marks.clear()

    @property
    def known(self) -> tuple[str, ...]:
        """The symbols that have a return."""
        return tuple(symbol for symbol, marks in self._marks.items() if len(marks) > 1)

    @property
    def span(self) -> int:
        """Runs between the oldest and the newest price."""
        return max((len(marks) for marks in self._marks.values()), default=1) - 1

    def momentum(self, symbol: str) -> float:
        """How much of its oldest price a symbol has won."""
        marks = self._marks[symbol]
        return marks[-1] / marks[0] - 1.0

    def volatility(self, symbol: str) -> float:
        """Population deviation of the returns from run to run."""
        marks = self._marks[symbol]
        returns = [new / old - 1.0 for old, new in zip(marks, islice(marks, 1, None), strict=False)]
        mean = sum(returns) / len(returns)
        return float((sum([(each - mean) ** 2 for each in returns]) / len(returns)) ** 0.5)
