"""Factors against numbers done by hand, and against a second computation in exact fractions that shares no line with them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from fractions import Fraction
from statistics import covariance, fmean, pstdev
from typing import Any

import numpy as np
import pytest

from system_under_test.intelligence.factors import (
    ALPHA,
    FACTORS,
    WEIGHT_MAX,
    WEIGHT_MIN,
    Profit,
    Vector,
    attributed,
    clamped,
    diagnose,
    normalised,
    orthogonal,
    tidied,
    tidy,
)
from system_under_test.intelligence.factors import covariance as covariance_of

CLOSE = 1e-9


def vectors(rows: Sequence[Sequence[float | None]]) -> list[Vector]:
    """Symbols S0, S1, …, each in one direction, with these raw factors; None is not known."""
    return [Vector(f"S{at // 2}", ("LONG", "SHORT")[at % 2],
                   {factor: value for factor, value in zip(FACTORS, row, strict=False) if value is not None}, "calm")
            for at, row in enumerate(rows)]


def some(seed: int, count: int = 12) -> list[Vector]:
    """Vectors of many sizes and signs, some factors unknown, one that is the same for all, now and then twins."""
    dice = random.Random(seed)
    rows: list[list[float | None]] = [
        [round(dice.gauss(0, 1e-4), 9), dice.gauss(0, 1e-3), dice.choice([None, dice.uniform(-0.01, 0.01)]), 0.5, dice.random()]
        for _ in range(count)]
    if seed % 3 == 0:
        rows = [[row[0], -2 * (row[0] or 0.0), *row[2:]] for row in rows]
    return vectors(rows)


def columns_of(document: Mapping[str, Any]) -> dict[str, list[float]]:
    return {factor: [each["factors"][factor] for each in document["per_symbol"].values()] for factor in FACTORS}


# ---- by hand ----------------------------------------------------------------------------------------------


def test_normalising_by_hand() -> None:
    """1, 2, 3, 6 have mean 3 and population deviation sqrt(3.5); a factor that is the same for all is 0 everywhere."""
    raw = np.array([[each, 5.0, 0.0, 0.0, 0.0] for each in (1.0, 2.0, 3.0, 6.0)])
    found = normalised(["a", "b", "c", "d"], raw)
    assert found.stats["momentum"] == {
        "mean": 3.0, "std": pytest.approx(3.5 ** 0.5), "min": 1.0, "max": 6.0, "range": 5.0}
    assert found.stats["rv_momentum"]["std"] == 1.0
    assert found.values[:, 0].tolist() == pytest.approx([-2 / 3.5 ** 0.5, -1 / 3.5 ** 0.5, 0.0, 3 / 3.5 ** 0.5])
    assert not found.values[:, 1].any()


def test_far_away_is_clamped() -> None:
    """One of twenty stands four deviations away and is told as three."""
    raw = np.zeros((20, 5))
    raw[0, 0] = 1.0
    values = normalised([str(each) for each in range(20)], raw).values[:, 0]
    assert values[0] == 3.0
    assert (0.95 / (0.05 * 0.95) ** 0.5) > 4


def test_covariance_by_hand() -> None:
    """(1, 2), (2, 4), (3, 9): variances 1 and 13, covariance 3.5; what does not move correlates with itself alone."""
    values = np.array([[1.0, 2.0, 7.0], [2.0, 4.0, 7.0], [3.0, 9.0, 7.0]])
    found = covariance_of(values)
    assert found.matrix.tolist() == pytest.approx(np.array([[1, 3.5, 0], [3.5, 13, 0], [0, 0, 0]]))
    assert found.correlation.tolist() == pytest.approx(np.array([[1, 3.5 / 13 ** 0.5, 0], [3.5 / 13 ** 0.5, 1, 0], [0, 0, 1]]))
    assert found.vols.tolist() == pytest.approx([1, 13 ** 0.5, 0])


def test_one_vector_has_no_covariance() -> None:
    """Zeros, the identity, no vols."""
    found = covariance_of(np.array([[1.0, -2.0, 0.5, 0.0, 3.0]]))
    assert (found.matrix.any(), found.vols.any()) == (False, False)
    assert (found.correlation == np.identity(5)).all()


def test_gram_schmidt_by_hand() -> None:
    """(3, 4) stays; of (1, 2) is left (1, 2) - 11/25 (3, 4); (6, 8) and nothing leave nothing, and are named."""
    values = np.array([[3.0, 1.0, 6.0, 0.0, 0.0], [4.0, 2.0, 8.0, 0.0, 1e-10]])
    found = orthogonal(values)
    assert found.values[:, 0].tolist() == [3.0, 4.0]
    assert found.values[:, 1].tolist() == pytest.approx([1 - 33 / 25, 2 - 44 / 25])
    assert found.norms.tolist() == pytest.approx([5, 0.4, 0, 0, 0])
    assert found.degenerate == ("carry", "volatility", "router_quality")
    assert not found.values[:, 2:].any()


@pytest.mark.parametrize(("raw", "weights"), [
    ([1, 1, 1, 1, 1], [0.2] * 5),
    ([0, 0, 0, 0, 0], [0.2] * 5),                                        # nothing is known: all alike
    ([-3, 1, 2, -2, 2], [0.3, 0.1, 0.2, 0.2, 0.2]),                      # signs do not count
    ([5, 3, 1, 1, 0], [0.4, 0.3 * 0.55 / 0.5, 0.1 * 1.1, 0.1 * 1.1, 0.05]),
    ([1, 0, 0, 0, 0], [0.4, 0.15, 0.15, 0.15, 0.15]),                    # nobody is inside: the rest is shared
    ([1, 1, 0, 0, 0], [0.4, 0.4, 0.2 / 3, 0.2 / 3, 0.2 / 3]),
    ([1e9, 3, 2, 1, 1e-3], [0.4, 0.15, 0.15, 0.15, 0.15]),
    ([0.46, 0.48, 0.057, 0, 0, 0, 0], [0.375, 0.375, *[0.05] * 5]),      # of more than five: those at the top give way
])
def test_clamping_by_hand(raw: list[float], weights: list[float]) -> None:
    """Shares of 1 within 0.05 and 0.40."""
    assert clamped(np.array(raw, dtype=float)).tolist() == pytest.approx(weights)


def test_profit_is_shared_out_by_hand() -> None:
    """12 USD on a vector that says (2, -1, 0, 0, 0) under equal weights: 8 and 4. Of a vector nobody knows, nothing."""
    raw = np.array([[2.0, -1.0, 0, 0, 0], [-2.0, 1.0, 0, 0, 0]])
    columns = normalised(["A:LONG", "A:SHORT"], raw * [1, 1, 0, 0, 0])
    columns = type(columns)(columns.keys, raw, columns.stats)
    equal = dict.fromkeys(FACTORS, 0.2)
    assert attributed(columns, [Profit("A:LONG", 12.0)], equal) == {
        "momentum": 8.0, "rv_momentum": 4.0, "carry": 0.0, "volatility": 0.0, "router_quality": 0.0}
    assert attributed(columns, [Profit("A:SHORT", -3.0)], equal)["momentum"] == -2.0
    assert attributed(columns, [Profit("B:LONG", 12.0)], equal) == {}
    silent = type(columns)(columns.keys, np.zeros((2, 5)), columns.stats)
    assert attributed(silent, [Profit("A:LONG", 5.0)], equal) == dict.fromkeys(FACTORS, 1.0)


# ---- against a second computation -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_normalising_and_covariance_again(seed: int) -> None:
    """The standard library's statistics, from what is written, give what is written."""
    document = diagnose(some(seed), [], None, 1.0, 1.0)
    for factor in FACTORS:
        raw = [each["factors"].get(factor, 0.0) for each in document["raw_factors"].values()]
        spread = pstdev(raw)
        told = document["normalization_coeffs"][factor]
        assert told["mean"] == pytest.approx(fmean(raw), abs=1e-12)
        assert told["std"] == pytest.approx(spread if spread > 1e-9 else 1.0, abs=1e-12)
        normal = [max(-3.0, min(3.0, (each - told["mean"]) / told["std"])) for each in raw]
        assert columns_of(document)[factor] == pytest.approx(normal, abs=CLOSE)
    columns, block = columns_of(document), document["covariance"]
    for one, name in enumerate(FACTORS):
        for two, other in enumerate(FACTORS):
            expected = covariance(columns[name], columns[other])
            assert block["covariance_matrix"][one][two] == pytest.approx(expected, abs=CLOSE)
            assert block["covariance_matrix"][one][two] == block["covariance_matrix"][two][one]
            sizes = covariance(columns[name], columns[name]) * covariance(columns[other], columns[other])
            related = expected / sizes ** 0.5 if sizes > 1e-12 else float(one == two)
            assert block["correlation_matrix"][one][two] == pytest.approx(related, abs=CLOSE)


def left_over(column: Sequence[Fraction], before: Sequence[Sequence[Fraction]]) -> list[Fraction]:
    """What the columns before cannot explain of a column: least squares by Gaussian elimination, exactly."""
    def dot(one: Sequence[Fraction], other: Sequence[Fraction]) -> Fraction:
        return sum((a * b for a, b in zip(one, other, strict=True)), Fraction(0))

    table = [[dot(one, other) for other in before] + [dot(one, column)] for one in before]
    for at, pivot in enumerate(table):
        for row in table:
            if row is not pivot:
                share = row[at] / pivot[at]
                row[:] = [a - share * b for a, b in zip(row, pivot, strict=True)]
    shares = [row[-1] / row[at] for at, row in enumerate(table)]
    return [each - sum((share * one[at] for share, one in zip(shares, before, strict=True)), Fraction(0))
            for at, each in enumerate(column)]


@pytest.mark.parametrize("seed", range(6))
def test_gram_schmidt_again(seed: int) -> None:
    """What is left of each column is the residual of its regression on the ones before it, in exact fractions."""
    document = diagnose(some(seed), [], None, 1.0, 1.0)
    told = document["orthogonalized"]
    before: list[list[Fraction]] = []
    for factor, column in columns_of(document).items():
        rest = left_over([Fraction(each) for each in column], before)
        norm = float(sum(each * each for each in rest)) ** 0.5
        found = [each[factor] for each in told["per_symbol"].values()]
        if factor in told["degenerate"]:
            assert norm < 1e-9
            assert (any(found), told["norms"][factor]) == (False, 0.0)
        else:
            assert found == pytest.approx([float(each) for each in rest], abs=CLOSE)
            assert told["norms"][factor] == pytest.approx(norm, abs=CLOSE)
            before.append([Fraction(each) for each in column])
    assert ("volatility" in told["degenerate"], "rv_momentum" in told["degenerate"]) == (True, seed % 3 == 0)
    assert max(map(abs, told["dot_products"].values())) < CLOSE


def shared(raw: Sequence[float]) -> list[float]:
    """Shares of 1 within the bounds, in exact fractions, one symbol at a time."""
    sizes = [abs(Fraction(each)) for each in raw]
    shares = [each / sum(sizes) if any(sizes) else Fraction(1, len(sizes)) for each in sizes]
    low, high = Fraction(WEIGHT_MIN), Fraction(WEIGHT_MAX)
    for _ in range(10):
        bound = [min(max(each, low), high) for each in shares]
        inside = sum(each for each in bound if low < each < high)
        missing = 1 - sum(bound)
        if inside:
            shares = [each * max(inside + missing, Fraction(0)) / inside if low < each < high else each for each in bound]
        else:
            end = low if missing > 0 else high
            shares = [each + missing / bound.count(end) if each == end else each for each in bound]
        if not inside or all(low <= each <= high for each in shares):
            break
    return [float(each) for each in shares]


@pytest.mark.parametrize("seed", range(40))
def test_weights_again(seed: int) -> None:
    """Ratios, raw weights, target and smoothing from what is written; shares that sum to 1 within their bounds."""
    dice = random.Random(seed)
    some_vectors = some(seed, dice.choice([1, 2, 8, 12]))
    profits = [Profit(each.key, dice.gauss(0, 100)) for each in some_vectors[:3]] if seed % 2 else []
    first = diagnose(some_vectors, profits, None, 1.0, 1.0)
    document = diagnose(some_vectors, profits, first["weights"], 3.0, 1.0)
    told, block, vols = document["factor_ir"], document["factor_weights"], document["covariance"]["factor_vols"]
    by_factor = document["pnl_attribution"]["by_factor"]
    if profits:
        assert sum(by_factor.values()) == pytest.approx(sum(each.usd for each in profits))
        assert told == {factor: pytest.approx(by_factor[factor] / (vols[factor] + 1e-9)) for factor in FACTORS}
    elif len(some_vectors) >= 10:
        coefficients = document["normalization_coeffs"]
        assert told == {factor: pytest.approx(each["mean"] / each["std"]) for factor, each in coefficients.items()}
    else:
        assert (told, by_factor) == ({}, {})
    assert block["raw"] == {factor: pytest.approx(told.get(factor, 0.0) / (vols[factor] + 1e-9)) for factor in FACTORS}
    assert list(block["target"].values()) == pytest.approx(shared(list(block["raw"].values())), abs=CLOSE)
    assert document["weights"] == {factor: pytest.approx(ALPHA * block["target"][factor] + 0.8 * first["weights"][factor])
                                   for factor in FACTORS}
    for weights in (first["weights"], block["target"], document["weights"]):
        assert sum(weights.values()) == pytest.approx(1.0, abs=1e-11)
        assert all(WEIGHT_MIN - 1e-12 <= each <= WEIGHT_MAX + 1e-12 for each in weights.values())
    assert document["weights"] == block["weights"] == document["pnl_attribution"]["weights"]


def test_smoothing_by_hand() -> None:
    """From 0.4 and 0.15 to equal shares: a fifth of the way."""
    previous = dict(zip(FACTORS, (0.4, 0.15, 0.15, 0.15, 0.15), strict=True))
    document = diagnose(vectors([[1.0], [2.0]]), [], previous, 1.0, 1.0)
    assert document["factor_weights"]["target"] == dict.fromkeys(FACTORS, 0.2)
    assert document["weights"] == {"momentum": 0.36, **dict.fromkeys(FACTORS[1:], 0.16)}
    assert document["factor_weights"]["previous"] == previous


def test_long_and_short_stay_apart() -> None:
    """Everything that is told by vector is told by symbol and direction: one symbol held both ways is two vectors."""
    document = diagnose(vectors([[1.0, 2.0], [-1.0, -2.0]]), [], None, 5.0, 1.0)
    for block in (document["raw_factors"], document["per_symbol"], document["orthogonalized"]["per_symbol"]):
        assert list(block) == ["S0:LONG", "S0:SHORT"]
    assert "carry" not in document["raw_factors"]["S0:LONG"]["factors"]
    assert document["per_symbol"]["S0:LONG"]["factors"]["carry"] == 0.0


def test_numbers_are_written_with_twelve_decimals() -> None:
    """And what a difference left over is nothing, not even less than nothing."""
    assert [tidy(each) for each in (1 / 3, 1.5e-9, 123456.7890123456)] == [0.333333333333, 1.5e-9, 123456.7890123456]
    assert [str(tidy(each)) for each in (-3e-16, -0.0)] == ["0.0", "0.0"]
    assert [str(each) for each in tidied(np.array([-3e-16, 2 / 3])).tolist()] == ["0.0", "0.666666666667"]
