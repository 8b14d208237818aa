"""The files: what the trader's say of routing and positions. What cannot be read, or is not the trader's, says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from system_under_test.intelligence.prices import Quote
from system_under_test.state import author_of, document_of, number_of

ROUTER, POSITIONS = "state/router_health.json", "state/positions_state.json"
"""What is read …"""
SCORES, MOMENTUM, DIAGNOSTICS = "state/symbol_scores_v6.json", "state/rv_momentum.json", "state/factor_diagnostics.json"
"""… and what is written."""


class Position(Struct, frozen=True):
    """One open position: ``SYMBOL:SIDE``, what it is quoted at, and what it has brought so far, in USD."""

    symbol: str
    direction: str
    quote: Quote | None
    profit: float

    @property
    def key(self) -> str:
        return f"{self.symbol}:{self.direction}"


class Router(Struct, frozen=True):
    """The score of the routes that orders take: of all, and of the symbols that have one of their own."""

    whole: float
    of: Mapping[str, float]

    def score(self, symbol: str) -> float:
        return self.of.get(symbol, self.whole)


def _signed(data: bytes | None, writer: str) -> dict[str, Any] | None:
    document = document_of(data)
    author = author_of(document) if document is not None else None
    return document if author is not None and author[0] == writer else None


def read_router(data: bytes | None, writer: str) -> Router | None:
    """What router_health.json says; None where it says nothing."""
    document = _signed(data, writer)
    told = document.get("router_health") if document is not None else None
    if not isinstance(told, dict) or not isinstance(told.get("global"), dict):
        return None
    whole = number_of(told["global"], "quality_score")
    symbols = told.get("per_symbol")
    scores = {symbol: number_of(row, "quality_score") for symbol, row in symbols.items() if isinstance(row, dict)} \
        if isinstance(symbols, dict) else {}
    return None if whole is None else Router(whole, {key: value for key, value in scores.items() if value is not None})


def read_positions(data: bytes | None, writer: str) -> tuple[Position, ...]:
    """The open positions of positions_state.json, in the order of their keys."""
    document = _signed(data, writer)
    rows = document.get("positions") if document is not None else None
    found = [_position(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return tuple(sorted((each for each in found if each is not None), key=lambda each: each.key))


def _position(row: Mapping[str, Any]) -> Position | None:
    symbol, side, qty = row.get("symbol"), row.get("side"), number_of(row, "qty")
    if not isinstance(symbol, str) or side not in ("LONG", "SHORT") or not qty:
        return None
    mark = number_of(row, "mark_price")
    profit = (number_of(row, "unrealized_pnl") or 0.0) + (number_of(row, "realized_pnl") or 0.0)
    return Position(symbol, str(side), Quote(mark) if mark is not None and mark > 0 else None, profit)
