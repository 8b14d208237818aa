"""Prices, momentum and scores, by hand."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from system_under_test.intelligence.factors import FACTORS
from system_under_test.intelligence.files import Quote, read_positions, read_router
from system_under_test.intelligence.prices import WINDOW, Prices, read_listing
from system_under_test.intelligence.scores import Momentum, baskets, symbol_scores, vectors


def seen(*runs: dict[str, float]) -> Prices:
    """Prices after runs; the index is 100 for everything."""
    prices = Prices()
    for run in runs:
        prices.take({symbol: Quote(mark, None if symbol.endswith("-C") else 100.0) for symbol, mark in run.items()})
    return prices


def test_momentum_and_volatility_by_hand() -> None:
    """100 → 110 → 99 → 108.9: 8.9 % won; returns of 10 %, -10 %, 10 % deviate by 0.2 * sqrt(2) / 3."""
    prices = seen(*({"A": each} for each in (100.0, 110.0, 99.0, 108.9)))
    assert prices.momentum("A") == pytest.approx(0.089)
    assert prices.volatility("A") == pytest.approx(0.2 * 2 ** 0.5 / 3)
    assert (prices.known, prices.span) == (("A",), 3)


def test_only_the_window_counts() -> None:
    """What is older than sixteen prices is forgotten; a symbol that was gone begins anew; a gap ends everything."""
    prices = seen(*({"A": float(each), "B": 1.0} for each in range(1, 31)))
    assert prices.momentum("A") == pytest.approx(30 / 15 - 1)
    assert prices.span == WINDOW - 1
    prices.take({"A": Quote(31.0)})
    prices.take({"A": Quote(31.0), "B": Quote(2.0)})
    assert prices.known == ("A",)
    prices.clear()
    prices.take({"A": Quote(40.0)})
    assert prices.known == ()


def test_relative_momentum_by_hand() -> None:
    """10 %, 4 % and -2 % around a middle of 4 %: the widest is 1, the spread of the coins is 7 % less -2 %."""
    prices = seen({"BTC-PERPETUAL": 100, "BTC-27NOV26": 100, "ETH-PERPETUAL": 100},
                  {"BTC-PERPETUAL": 110, "BTC-27NOV26": 104, "ETH-PERPETUAL": 98})
    document = Momentum(prices).document()
    assert {symbol: each["raw_score"] for symbol, each in document["per_symbol"].items()} == pytest.approx(
        {"BTC-PERPETUAL": 0.06, "BTC-27NOV26": 0.0, "ETH-PERPETUAL": -0.06}, abs=1e-12)
    assert document["per_symbol"]["ETH-PERPETUAL"]["score"] == pytest.approx(-1.0)
    assert document["spreads"] == {"btc_vs_eth": pytest.approx(0.09), "l1_vs_alt": None, "meme_vs_rest": None}


def test_a_market_that_stands_still_has_no_scores_but_zero() -> None:
    """Nothing is divided by nothing."""
    document = Momentum(seen({"BTC-PERPETUAL": 100}, {"BTC-PERPETUAL": 100})).document()
    assert document["per_symbol"]["BTC-PERPETUAL"] == {"score": 0.0, "raw_score": 0.0, "baskets": ["btc", "perpetual"]}
    assert document["spreads"]["btc_vs_eth"] is None


@pytest.mark.parametrize(("symbol", "company"), [
    ("BTC-PERPETUAL", ("btc", "perpetual")), ("ETH_USDC-PERPETUAL", ("eth", "perpetual")), ("ETH-27NOV26", ("eth", "dated")),
    ("BTC-27NOV26-100000-C", ("btc", "option")),
])
def test_baskets(symbol: str, company: tuple[str, str]) -> None:
    """The coin and the kind, from the name."""
    assert baskets(symbol) == company


def router(**scores: float) -> bytes:
    per_symbol = {symbol.replace("_", "-"): {"quality_score": score} for symbol, score in scores.items() if symbol != "whole"}
    return orjson.dumps({"router_health": {"global": {"quality_score": scores["whole"]}, "per_symbol": per_symbol},
                         "writer": {"node": "trader", "boot": 1, "seq": 1}})


def test_vectors_by_hand() -> None:
    """Long and short are each other's mirror where a sign is carried; what is not known is left out."""
    prices = seen({"BTC-PERPETUAL": 100, "X-C": 10}, {"BTC-PERPETUAL": 102, "X-C": 10})
    told = read_router(router(whole=0.7, BTC_PERPETUAL=0.65), "trader")
    found = {each.key: each for each in vectors(prices, Momentum(prices), told)}
    assert list(found) == ["BTC-PERPETUAL:LONG", "BTC-PERPETUAL:SHORT", "X-C:LONG", "X-C:SHORT"]
    assert found["BTC-PERPETUAL:LONG"].factors == pytest.approx(
        {"momentum": 0.02, "rv_momentum": 0.01, "carry": -0.02, "volatility": 0.0, "router_quality": -0.05}, abs=1e-12)
    assert found["BTC-PERPETUAL:SHORT"].factors == pytest.approx(
        {"momentum": -0.02, "rv_momentum": -0.01, "carry": 0.02, "volatility": 0.0, "router_quality": -0.05}, abs=1e-12)
    assert found["X-C:LONG"].factors.keys() == set(FACTORS) - {"carry"}
    assert {each.regime for each in found.values()} == {"calm"}
    unrouted = vectors(prices, Momentum(prices), None)
    assert all("router_quality" not in each.factors for each in unrouted)


def test_scores_by_hand() -> None:
    """A symbol is scored in its better direction; 0.7 of that and 0.3 of its route decide; the highest stands first."""
    weights = dict(zip(FACTORS, (0.4, 0.3, 0.1, 0.1, 0.1), strict=True))
    rows = {"A:LONG": (-3.0, -3.0), "A:SHORT": (3.0, 3.0), "B:LONG": (1.0, 0.0), "B:SHORT": (-1.0, 0.0)}
    diagnostics: dict[str, Any] = {"weights": weights, "per_symbol": {
        key: {"factors": dict(zip(FACTORS, (*row, 0.0, 0.0, 0.0), strict=True))} for key, row in rows.items()}}
    told = read_router(router(whole=0.5, A=0.8), "trader")
    assert told is not None
    first, second = symbol_scores(diagnostics, told)
    assert first == {"symbol": "A", "direction": "SHORT", "score": 0.85, "router_quality_score": 0.8,
                     "hybrid_score": pytest.approx(0.835), "hybrid": {
                         "score": pytest.approx(0.835), "router_quality_score": 0.8, "passes_emission": True,
                         "min_for_emission": 0.6}}
    assert (second["symbol"], second["direction"], second["router_quality_score"]) == ("B", "LONG", 0.5)
    assert second["hybrid_score"] == pytest.approx(0.7 * (0.5 + 0.4 / 6) + 0.15)
    assert second["hybrid"]["passes_emission"] is False


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"error": {}}', b'{"result": {}}', b'{"result": null}', b"\xff"])
def test_an_answer_that_is_none(body: bytes) -> None:
    """It is known as such."""
    assert read_listing(body) is None


def test_a_listing_is_read_strictly() -> None:
    """Three symbols at most; a price that is none is no price."""
    rows = [{"instrument_name": "A", "mark_price": 1.5, "estimated_delivery_price": 2},
            {"instrument_name": "B", "mark_price": 0}, {"instrument_name": 3, "mark_price": 1}, 7,
            {"instrument_name": "C", "mark_price": 2.0},
            {"instrument_name": "D", "mark_price": 2.0}]
    assert read_listing(orjson.dumps({"result": rows})) == {"A": Quote(1.5, 2), "C": Quote(2.0)}


SIGNED = {"writer": {"node": "trader", "boot": 1, "seq": 1}}


@pytest.mark.parametrize("data", [
    None, b"", b"{", b"[]", orjson.dumps({"router_health": {"global": {"quality_score": 0.5}}}),
    router(whole=0.5).replace(b"trader", b"rogue_"), orjson.dumps(SIGNED), orjson.dumps({**SIGNED, "router_health": []}),
    orjson.dumps({**SIGNED, "router_health": {"global": {"quality_score": "0.5"}}}),
])
def test_a_router_that_says_nothing(data: bytes | None) -> None:
    """Missing, torn, unsigned, somebody else's, or without the number."""
    assert read_router(data, "trader") is None


def test_positions_are_read_strictly() -> None:
    """Open ones with a side; profit is what is realized and what is not."""
    row = {"symbol": "A", "side": "LONG", "qty": 2, "mark_price": 5.0, "unrealized_pnl": 3.0, "realized_pnl": None}
    rows = [row, {**row, "symbol": "B", "side": "SHORT", "realized_pnl": -1.0, "mark_price": 0}, {**row, "qty": 0},
            {**row, "side": "BOTH"}, {**row, "symbol": 1}, None]
    found = read_positions(orjson.dumps({**SIGNED, "positions": rows}), "trader")
    assert [(each.key, each.profit, each.quote) for each in found] == [("A:LONG", 3.0, Quote(5.0)), ("B:SHORT", 2.0, None)]
    assert read_positions(orjson.dumps({"positions": rows}), "trader") == ()
    assert read_positions(orjson.dumps({**SIGNED, "positions": {}}), "trader") == ()
