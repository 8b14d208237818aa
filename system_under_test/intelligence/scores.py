"""From prices and routes to vectors of factors, relative momentum, and a score for each symbol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from operator import mul
from typing import Any

from system_under_test.intelligence.factors import FACTORS, ZSCORE_MAX, Vector, tidy
from system_under_test.intelligence.files import Router
from system_under_test.intelligence.prices import Prices

DIRECTIONS = {"LONG": 1.0, "SHORT": -1.0}
CALM, STORMY = 1e-4, 1e-3
"""Volatility of the returns between two runs: below it a symbol is calm, from it on it is stormy."""
ROUTER_SHARE = 0.3
"""How much of the hybrid score is the router's."""
EMISSION_MIN = 0.6
OPTIONS = ("-C", "-P")


@cache
def baskets(symbol: str) -> tuple[str, ...]:
    """The company that a symbol is compared in: its coin, and what kind of contract it is."""
    coin = symbol.partition("-")[0].partition("_")[0].lower()
    kind = "option" if symbol.endswith(OPTIONS) else "perpetual" if symbol.endswith("-PERPETUAL") else "dated"
    return coin, kind


class Momentum:
    """How each symbol has moved, alone and against the middle of all."""

    def __init__(self, prices: Prices) -> None:
        self.own = {symbol: prices.momentum(symbol) for symbol in prices.known}
        middle = _mean(list(self.own.values()))
        self.relative = {symbol: won - middle for symbol, won in self.own.items()}

    def document(self) -> dict[str, Any]:
        """rv_momentum.json without its time: the score is the relative momentum in widest moves, from -1 to 1."""
        widest = max(map(abs, self.relative.values()))
        return {
            "per_symbol": {symbol: {"score": tidy(won / widest) if widest else 0.0, "raw_score": tidy(won),
                                    "baskets": list(baskets(symbol))} for symbol, won in self.relative.items()},
            "spreads": {"btc_vs_eth": self._spread("btc", "eth"), "l1_vs_alt": None, "meme_vs_rest": None},
        }

    def _spread(self, one: str, other: str) -> float | None:
        """By how much one basket's mean momentum is ahead; None where nobody is in one of them."""
        sides = [[won for symbol, won in self.own.items() if basket in baskets(symbol)] for basket in (one, other)]
        return tidy(_mean(sides[0]) - _mean(sides[1])) if all(sides) else None


def vectors(prices: Prices, momentum: Momentum, router: Router | None) -> list[Vector]:
    """Each symbol in both directions. What carries a sign is turned for who is short; what is unknown is left out."""
    return [each for symbol in momentum.own for each in _both(prices, momentum, router, symbol)]


def _both(prices: Prices, momentum: Momentum, router: Router | None, symbol: str) -> Iterator[Vector]:
    quote, volatility = prices.quotes[symbol], prices.volatility(symbol)
    signed = {"momentum": momentum.own[symbol], "rv_momentum": momentum.relative[symbol]}
    if quote.index is not None:  # who is long pays what the contract stands above its index
        signed["carry"] = 1.0 - quote.mark / quote.index
    told = {"volatility": -volatility}
    if router is not None:
        told["router_quality"] = router.score(symbol) - router.whole
    for direction, sign in DIRECTIONS.items():
        yield Vector(symbol, direction, {**{name: sign * value for name, value in signed.items()}, **told}, _regime(volatility))


def _regime(volatility: float) -> str:
    return "calm" if volatility < CALM else "stormy" if volatility >= STORMY else "normal"


def symbol_scores(diagnostics: Mapping[str, Any], router: Router) -> list[dict[str, Any]]:
    """The rows of symbol_scores_v6.json, highest first: each symbol in its better direction."""
    best: dict[str, tuple[float, str]] = {}
    weights = [diagnostics["weights"][factor] for factor in FACTORS]
    for key, vector in diagnostics["per_symbol"].items():
        symbol, _, direction = key.rpartition(":")
        said = sum(map(mul, weights, map(vector["factors"].__getitem__, FACTORS)))
        if symbol not in best or said > best[symbol][0]:
            best[symbol] = said, direction
    rows = [_row(symbol, direction, tidy(0.5 + said / (2 * ZSCORE_MAX)), router.score(symbol))
            for symbol, (said, direction) in best.items()]
    return sorted(rows, key=lambda row: (-row["hybrid_score"], row["symbol"]))


def _row(symbol: str, direction: str, score: float, quality: float) -> dict[str, Any]:
    hybrid = tidy((1 - ROUTER_SHARE) * score + ROUTER_SHARE * quality)
    return {"symbol": symbol, "direction": direction, "score": score, "router_quality_score": quality, "hybrid_score": hybrid,
            "hybrid": {"score": hybrid, "router_quality_score": quality, "passes_emission": hybrid >= EMISSION_MIN,
                       "min_for_emission": EMISSION_MIN}}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
