"""One run: what the three files say. Loading this loads the numerical library."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from system_under_test.intelligence.factors import Profit, diagnose
from system_under_test.intelligence.files import DIAGNOSTICS, MOMENTUM, SCORES, Position, Router
from system_under_test.intelligence.prices import Prices
from system_under_test.intelligence.scores import Momentum, symbol_scores, vectors


def documents(prices: Prices, router: Router | None, positions: Iterable[Position], weights: Mapping[str, float] | None,
              days: float, time_of: Callable[[str], float]) -> dict[str, dict[str, Any]]:
    """File to document, unsigned. ``weights`` stand in the file now, ``days`` is how far prices reach back; without a
    router there are no scores."""
    momentum = Momentum(prices)
    profits = [Profit(each.key, each.profit) for each in positions]
    diagnostics = diagnose(vectors(prices, momentum, router), profits, weights, time_of(DIAGNOSTICS), days)
    told = {DIAGNOSTICS: diagnostics, MOMENTUM: {"updated_ts": time_of(MOMENTUM), **momentum.document()}}
    if router is not None:
        told[SCORES] = {"updated_ts": time_of(SCORES), "symbols": symbol_scores(diagnostics, router)}
    return told
