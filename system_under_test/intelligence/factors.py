"""factor_diagnostics.json: from raw factors to weights, as specs/state/README.md says ("Factors").

Every number is rounded before anything is computed from it, so that what is written can be computed again from what is
written. Sums go along the vectors, one after the other, and nothing is left to a linear-algebra kernel that a processor
chooses: the same input gives the same bytes on every machine.
"""

from __future__ import annotations

import os  # ambient-ok: for one variable that numpy reads when it is loaded
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # ambient-ok: matrices of five by five need no second thread

import numpy as np  # noqa: E402

Array = Any
"""A numpy array of float64."""

FACTORS = ("momentum", "rv_momentum", "carry", "volatility", "router_quality")
DECIMALS = 12
"""Of every number that is written: what is smaller is left over from a difference."""
RAW_DECIMALS = 15
"""Raw factors and their coefficients are small: returns of seconds."""

ZSCORE_MAX = 3.0
NOTHING = 1e-9
"""A deviation or a norm of at most this is none; and what is added to a divisor that may be none."""
IR_VECTORS_MIN = 10
MODE = "vol_inverse_ir"
WEIGHT_MIN, WEIGHT_MAX = 0.05, 0.40
CLAMPS_MAX = 10
TOTAL_MIN = 1e-12
"""Raw weights that add up to no more are all nothing."""
ALPHA = 0.2
"""Share of the new in the smoothed weights."""

CONFIG: Mapping[str, Any] = {
    "enabled": True, "factors": list(FACTORS), "normalization_mode": "zscore", "max_abs_zscore": ZSCORE_MAX,
    "ir_vectors_min": IR_VECTORS_MIN, "decimals": DECIMALS,
    "auto_weighting": {"mode": MODE, "min_weight": WEIGHT_MIN, "max_weight": WEIGHT_MAX, "smoothing_alpha": ALPHA},
}


class Vector(Struct, frozen=True):
    """What is known of a symbol in one direction: raw factors, those that are known."""

    symbol: str
    direction: str
    factors: Mapping[str, float]
    regime: str

    @property
    def key(self) -> str:
        return f"{self.symbol}:{self.direction}"


class Profit(Struct, frozen=True):
    """What a position has brought, in USD."""

    key: str
    usd: float


class Columns(Struct, frozen=True):
    """The normalised factors of every vector: keys downwards, factors across."""

    keys: tuple[str, ...]
    values: Array
    stats: Mapping[str, Mapping[str, float]]


class Covariance(Struct, frozen=True):
    matrix: Array
    correlation: Array
    vols: Array


class Orthogonal(Struct, frozen=True):
    """The columns after Gram-Schmidt, not normalised."""

    values: Array
    norms: Array
    degenerate: tuple[str, ...]


class Weights(Struct, frozen=True):
    """From raw to smoothed."""

    raw: Array
    target: Array
    smoothed: Array


def tidy(value: float) -> float:
    """A number as it is written, and no zero below zero."""
    return round(value, DECIMALS) + 0.0


def tidied(values: Array, decimals: int = DECIMALS) -> Array:
    """Every number of an array as it is written."""
    return values.round(decimals) + 0.0


def raw_columns(vectors: Sequence[Vector]) -> Array:
    """Raw factors as they are written; a missing one is 0."""
    return tidied(np.array([[each.factors.get(factor, 0.0) for factor in FACTORS] for each in vectors]), RAW_DECIMALS)


def normalised(keys: Sequence[str], raw: Array) -> Columns:
    """z-scores with the population's deviation, clamped."""
    mean = raw.mean(axis=0)
    spread = np.sqrt(((raw - mean) ** 2).mean(axis=0))
    low, high = raw.min(axis=0), raw.max(axis=0)
    parts = {"mean": mean, "std": np.where(spread <= NOTHING, 1.0, spread), "min": low, "max": high, "range": high - low}
    told = {name: tidied(part, RAW_DECIMALS) for name, part in parts.items()}
    stats = {factor: {name: part[at].item() for name, part in told.items()} for at, factor in enumerate(FACTORS)}
    scores = np.clip((raw - told["mean"]) / told["std"], -ZSCORE_MAX, ZSCORE_MAX)
    return Columns(tuple(keys), tidied(scores), stats)


def covariance(values: Array) -> Covariance:
    """Of normalised factors, over one vector less than there are."""
    count, width = values.shape
    if count < 2:
        return Covariance(np.zeros((width, width)), np.identity(width), np.zeros(width))
    away = values - values.mean(axis=0)
    matrix = (away[:, :, None] * away[:, None, :]).sum(axis=0) / (count - 1)
    vols = np.sqrt(np.diagonal(matrix))
    still = vols <= NOTHING
    correlation = matrix / np.outer(np.where(still, 1.0, vols), np.where(still, 1.0, vols))
    correlation[still, :] = correlation[:, still] = 0.0
    correlation[still, still] = 1.0
    return Covariance(matrix, correlation, vols)


def orthogonal(values: Array) -> Orthogonal:
    """Gram-Schmidt in the order of the factors: the first column stays as it is."""
    made = np.zeros_like(values)
    norms = np.zeros(values.shape[1])
    for at in range(values.shape[1]):
        column = values[:, at].copy()
        for before in range(at):
            if norms[before] > 0:
                column -= made[:, before] * ((column * made[:, before]).sum() / norms[before] ** 2)
        norm = np.sqrt((column ** 2).sum())
        if norm > NOTHING:
            made[:, at], norms[at] = column, norm
    return Orthogonal(made, norms, tuple(factor for factor, norm in zip(FACTORS, norms, strict=True) if not norm))


def attributed(columns: Columns, profits: Iterable[Profit], weights: Mapping[str, float]) -> dict[str, float]:
    """What positions brought, each shared out by how much each factor speaks in its vector; nothing brought is ``{}``."""
    by_factor = np.zeros(len(FACTORS))
    for profit in profits:
        if profit.key not in columns.keys:
            continue
        voice = np.abs(columns.values[columns.keys.index(profit.key)]) * np.array([weights.get(each, 0.0) for each in FACTORS])
        loudness = voice.sum()
        by_factor += profit.usd * (voice / loudness if loudness > 0 else np.full(len(FACTORS), 1 / len(FACTORS)))
    told = {factor: tidy(each) for factor, each in zip(FACTORS, by_factor.tolist(), strict=True)}
    return told if any(told.values()) else {}


def ratios(columns: Columns, by_factor: Mapping[str, float], vols: Array) -> dict[str, float]:
    """Information ratios: profit over volatility, else mean over deviation where there are vectors enough."""
    if by_factor:
        return {factor: tidy(by_factor[factor] / (vol + NOTHING)) for factor, vol in zip(FACTORS, vols.tolist(), strict=True)}
    if len(columns.keys) < IR_VECTORS_MIN:
        return {}
    return {factor: tidy(columns.stats[factor]["mean"] / columns.stats[factor]["std"]) for factor in FACTORS}


def clamped(raw: Array) -> Array:
    """Absolute values that sum to 1 and lie within the bounds: what lies inside them is scaled; where nothing does, those
    at the lower bound share what is missing, or those at the upper one what is too much."""
    sizes = np.abs(raw)
    total = sizes.sum()
    weights = sizes / total if total > TOTAL_MIN else np.full(len(sizes), 1 / len(sizes))
    for _ in range(CLAMPS_MAX):
        weights = np.clip(weights, WEIGHT_MIN, WEIGHT_MAX)
        free = (weights > WEIGHT_MIN) & (weights < WEIGHT_MAX)
        if not free.any():
            missing = 1.0 - weights.sum()
            bound = weights <= WEIGHT_MIN if missing > 0 else weights >= WEIGHT_MAX
            weights[bound] += missing / max(bound.sum(), 1)
            break
        weights[free] *= max(1.0 - weights[~free].sum(), 0.0) / weights[free].sum()
        if (weights >= WEIGHT_MIN).all() and (weights <= WEIGHT_MAX).all():
            break
    return weights


def weighted(ir: Mapping[str, float], vols: Array, previous: Mapping[str, float] | None) -> Weights:
    """Ratio over volatility, clamped, then smoothed with what was written before."""
    raw = tidied(np.array([ir.get(factor, 0.0) for factor in FACTORS]) / (vols + NOTHING))
    target = tidied(clamped(raw))
    if previous is None:
        return Weights(raw, target, target)
    return Weights(raw, target, tidied(ALPHA * target + (1 - ALPHA) * np.array([previous.get(each, 0.0) for each in FACTORS])))


def diagnose(vectors: Sequence[Vector], profits: Iterable[Profit], previous: Mapping[str, float] | None,
             updated_ts: float, days: float) -> dict[str, Any]:
    """The whole document, unsigned. ``previous`` are the weights that were written last; ``days`` is how far prices reach."""
    raw = raw_columns(vectors)
    columns = normalised([each.key for each in vectors], raw)
    moved = covariance(columns.values)
    apart = orthogonal(columns.values)
    equal = dict.fromkeys(FACTORS, 1 / len(FACTORS))
    by_factor = attributed(columns, profits, previous or equal)
    vols = tidied(moved.vols)
    ir = ratios(columns, by_factor, vols)
    found = weighted(ir, vols, previous)
    weights, norms = _named(found.smoothed), _named(tidied(apart.norms))
    rows = zip(columns.keys, tidied(apart.values), strict=True)
    return {
        "updated_ts": updated_ts,
        "raw_factors": {each.key: {"factors": _known(each, row), "direction": each.direction, "regime": each.regime}
                        for each, row in zip(vectors, raw.tolist(), strict=True)},
        "per_symbol": {each.key: {"factors": _named(row), "direction": each.direction}
                       for each, row in zip(vectors, columns.values, strict=True)},
        "normalization_coeffs": columns.stats,
        "covariance": {"factors": list(FACTORS), "covariance_matrix": tidied(moved.matrix).tolist(),
                       "correlation_matrix": tidied(moved.correlation).tolist(), "factor_vols": _named(vols),
                       "lookback_days": tidy(days)},
        "orthogonalized": {"per_symbol": {key: _named(row) for key, row in rows}, "norms": norms,
                           "dot_products": _dots(apart.values), "degenerate": list(apart.degenerate)},
        "factor_ir": ir,
        "weights": weights,
        "factor_weights": {"weights": weights, "factor_vols": _named(vols), "factor_ir": ir, "mode": MODE,
                           "updated_ts": updated_ts, "raw": _named(found.raw), "target": _named(found.target),
                           "previous": previous},
        "orthogonalization_enabled": True,
        "auto_weighting_enabled": True,
        "pnl_attribution": {"window_days": tidy(days), "by_factor": by_factor, "factor_ir": ir, "weights": weights,
                            "orthogonalized_summary": {"degenerate": list(apart.degenerate), "norms": norms}},
        "config": CONFIG,
    }


def _known(vector: Vector, row: Sequence[float]) -> dict[str, float]:
    return {factor: value for factor, value in zip(FACTORS, row, strict=True) if factor in vector.factors}


def _named(values: Array) -> dict[str, float]:
    return dict(zip(FACTORS, values.tolist(), strict=True))


def _dots(values: Array) -> dict[str, float]:
    """What is left between any two columns: nothing but rounding."""
    return {f"{FACTORS[one]}|{FACTORS[other]}": tidy(float((values[:, one] * values[:, other]).sum()))
            for one in range(len(FACTORS)) for other in range(one + 1, len(FACTORS))}
