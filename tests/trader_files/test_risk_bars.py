"""Bars: deviation and tail, by hand and against a numerical library that computes them its own way."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from risk_kit import START, approx

from system_under_test.trader.report.bars import Bars, deviation

DAY_MS = 86_400_000


def bars_of(columns: dict[str, list[float]], *, bar_ms: int = 1_000, window: int = 500, half_life: int = 100) -> Bars:
    """Bars with these returns."""
    bars = Bars(bar_ms, window, half_life)
    prices = dict.fromkeys(columns, 1000.0)
    bars.note(START, prices)
    for number, moves in enumerate(zip(*columns.values(), strict=True)):
        prices = {name: price * (1 + move) for (name, price), move in zip(prices.items(), moves, strict=True)}
        bars.note(START + (number + 1) * bar_ms, prices)
    return bars


def test_two_bars_by_hand():
    """+1 % and -1 % with equal weights (a half-life of ages): mean 0, variance 1e-4 a bar, 8.64 a day of 1 s bars."""
    bars = bars_of({"A": [0.01, -0.01]}, half_life=10**9)
    assert bars.covariance(["A"])[0][0] == approx(1e-4 * 86_400, rel=1e-6)
    assert deviation([0.5], bars.covariance(["A"])) == approx(0.5 * 0.01 * math.sqrt(86_400), rel=1e-6)


def test_the_mean_is_taken_off():
    """A steady rise is no deviation."""
    assert deviation([1.0], bars_of({"A": [0.01] * 5}).covariance(["A"])) == approx(0, abs=1e-9)


def test_a_half_life_halves():
    """With a half-life of one bar the weights of three bars are 1/7, 2/7, 4/7."""
    bars = bars_of({"A": [0.07, 0.0, 0.0]}, half_life=1)
    mean = 0.01
    by_hand = (1 / 7) * (0.07 - mean) ** 2 + (6 / 7) * mean**2
    assert bars.covariance(["A"])[0][0] == approx(by_hand * 86_400, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_against_numpy(seed):
    """Three assets, random returns and weights: the same matrix and the same deviation."""
    luck = random.Random(seed)
    columns = {name: [luck.gauss(0, 1e-4) for _ in range(60)] for name in ("A", "B", "C")}
    bars = bars_of(columns, half_life=20)
    rows = np.array([list(bars.columns[name]) for name in ("A", "B", "C")])
    expected = np.cov(rows, aweights=0.5 ** (np.arange(59, -1, -1) / 20), ddof=0) * 86_400
    assert np.allclose(bars.covariance(["A", "B", "C"]), expected, rtol=1e-9, atol=1e-15)
    weights = [luck.uniform(-1, 1) for _ in range(3)]
    assert deviation(weights, bars.covariance(["A", "B", "C"])) == approx(math.sqrt(np.array(weights) @ expected @ weights))


def test_a_hedge_takes_the_deviation_away():
    """Two assets that move alike, one held and one owed: nothing is left; uncorrelated, it would be the root of two."""
    luck = random.Random(1)
    moves = [luck.gauss(0, 1e-3) for _ in range(40)]
    covariance = bars_of({"A": moves, "B": moves}).covariance(["A", "B"])
    one = deviation([1.0], [[covariance[0][0]]])
    assert deviation([1.0, -1.0], covariance) == approx(0, abs=one * 1e-6)
    assert deviation([1.0, -1.0], [[covariance[0][0], 0], [0, covariance[1][1]]]) == approx(one * math.sqrt(2))


def test_a_long_bar_is_scaled_back():
    """A feed that stood still for four bars and then moved by 2 % counts as one bar of 1 %."""
    bars = Bars(1_000, 100, 100)
    bars.note(START, {"A": 100.0})
    bars.note(START + 4_000, {"A": 102.0})
    assert list(bars.columns["A"]) == [approx(0.01)]


def test_the_window_has_an_end():
    """Only the last bars count; what lies before them is gone."""
    assert deviation([1.0], bars_of({"A": [0.5] + [0.0] * 24}, window=24).covariance(["A"])) == 0.0


def test_an_asset_that_came_later_did_not_move_before():
    """Its missing bars are no moves, and make nobody fail."""
    bars = Bars(1_000, 10, 10**9)
    for number, prices in enumerate(({"A": 100.0}, {"A": 101.0, "B": 50.0}, {"A": 101.0, "B": 50.5})):
        bars.note(START + number * 1_000, prices)
    assert {name: list(column) for name, column in bars.columns.items()} == {
        "A": [approx(0.01), 0.0], "B": [None, approx(0.01)]}
    assert bars.covariance(["B"])[0][0] == approx(0.005**2 * 86_400)


@pytest.mark.parametrize("weight", [0.7, -0.7, 0.0])
def test_the_worst_are_known_bar_by_bar(weight):
    """What is kept in rank is what sorting the window would find, while it slides and assets come and go."""
    luck, bars, price = random.Random(7), Bars(1_000, 40, 100), 100.0
    for number in range(150):
        price *= 1 + luck.choice((0.0, -0.01, luck.gauss(0, 1e-3)))
        bars.note(START + number * 1_000, {"A": price} if number % 97 > 60 else {"A": price, "B": 2 * price})
        for name, column in bars.columns.items():
            known = sorted(weight * each for each in column if each is not None)
            worst = max(1, int(len(known) * 0.05))
            expected = max(0.0, -sum(known[:worst]) / worst * bars.day) if len(known) >= 20 else 0.0
            assert bars.tail({name: weight}, 0.95) == expected
    assert set(bars.columns) == {"A", "B"} == set(bars._ranked) == set(bars._moved)


@pytest.mark.parametrize(("count", "confidence", "worst"), [
    (19, 0.95, 0), (20, 0.95, 1), (39, 0.95, 1), (40, 0.95, 2), (60, 0.95, 3), (300, 0.95, 15), (50, 0.99, 1)])
def test_the_tail_is_the_mean_of_the_worst(count, confidence, worst):
    """``k = max(1, int(n * (1 - confidence)))`` worst outcomes; fewer than twenty bars say nothing."""
    moves = [-(number + 1) * 1e-5 for number in range(count)]
    expected = sum(sorted(moves)[:worst]) / worst * -math.sqrt(86_400) if worst else 0.0
    assert bars_of({"A": moves}).tail({"A": 1.0}, confidence) == approx(expected, rel=1e-6)


def test_the_tail_knows_the_side():
    """What falls hurts who holds it; who owes it gains, and a gain is no loss below zero."""
    bars = bars_of({"A": [-1e-4] * 30})
    assert bars.tail({"A": 0.5}, 0.95) == approx(0.5e-4 * math.sqrt(86_400), rel=1e-3)
    assert bars.tail({"A": -0.5}, 0.95) == 0.0


def test_a_portfolio_s_tail_is_of_its_sum():
    """Two legs that undo one another have none, though each has one."""
    luck = random.Random(2)
    moves = [luck.gauss(0, 1e-3) for _ in range(30)]
    bars = bars_of({"A": moves, "B": moves})
    assert bars.tail({"A": 1.0}, 0.95) > 0.01
    assert bars.tail({"A": 1.0, "B": -1.0}, 0.95) == approx(0, abs=1e-6)


def test_a_day_is_a_day_whatever_the_bar():
    """The same walk in bars of 300 ms and of 600 ms has about the same deviation of a day."""
    luck = random.Random(3)
    walk = [luck.gauss(0, 1e-4) for _ in range(400)]
    pairs = [(1 + a) * (1 + b) - 1 for a, b in zip(walk[::2], walk[1::2], strict=True)]
    fine, coarse = bars_of({"A": walk}, bar_ms=300), bars_of({"A": pairs}, bar_ms=600)
    assert deviation([1.0], fine.covariance(["A"])) == approx(deviation([1.0], coarse.covariance(["A"])), rel=0.15)


def test_an_asset_that_nobody_asks_for_is_forgotten():
    """A whole window after its last price its column is gone; those that stay have all the same length."""
    bars = Bars(1_000, 5, 100)
    for number in range(12):
        bars.note(START + number * 1_000, {"A": 100.0 + number, **({"B": 50.0} if number < 3 else {})})
        assert {len(column) for column in bars.columns.values()} <= {bars.count}
    assert (list(bars.columns), bars.count) == (["A"], 5)


@pytest.mark.parametrize("price", [0.0, 5e-324, 1e308, math.inf, -1.0])
def test_a_price_that_is_none_makes_numbers_all_the_same(price):
    """Whatever an exchange says between two prices: deviation and tail stay finite."""
    bars = Bars(1_000, 30, 100)
    for number in range(26):
        bars.note(START + number * 1_000, {"A": price if number % 5 == 3 else 100.0, "B": 50.0})
    covariance = bars.covariance(["A", "B"])
    assert all(math.isfinite(each) for row in covariance for each in row) and math.isfinite(deviation([1.0, 1.0], covariance))
    assert math.isfinite(bars.tail({"A": 1.0, "B": 1.0}, 0.95)) and math.isfinite(bars.tail({"A": -1.0}, 0.95))
