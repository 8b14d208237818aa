"""factor_diagnostics.json: normalisation, covariance, Gram-Schmidt and weights computed again, in our own arithmetic.

A few factors over a few symbols need no library, and the judge shares none with the accused. Each step is computed from
what the file says of the step before, so a wrong step is found where it is wrong and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from harness.contracts.reading import pointer, shown
from harness.contracts.state_files.finding import Document, Finding, Tolerance, deviation, mapping, recomputed
from harness.drill.predicate import is_number

Vector = Sequence[float]
Coefficients = tuple[float, float, float, float]

NOTHING = 1e-9
"""A deviation, a norm or a vol of at most this counts as none."""

VECTORS_MIN = 10
"""Fewer say nothing about what a factor earns for its risk."""

PASSES = 10
FACTORS_MAX, VECTORS_MAX = 64, 2_000
"""Beyond these nobody computes again; an honest file has a dozen factors."""

MODES: Mapping[str, Callable[[float, float], float]] = {
    "equal": lambda ir, vol: 1.0, "vol_inverse": lambda ir, vol: 1 / (vol + NOTHING), "ir_only": lambda ir, vol: ir,
    "vol_inverse_ir": lambda ir, vol: ir / (vol + NOTHING)}


def factor_diagnostics(document: Document, near: Tolerance) -> Iterator[Finding]:
    """Every step that the file shows."""
    raw, normal = mapping(document.get("raw_factors")), mapping(document.get("per_symbol"))
    names = _names(document)
    if len(names) > FACTORS_MAX or len(raw) > VECTORS_MAX or len(normal) > VECTORS_MAX:
        yield Finding("SCHEMA", "/raw_factors", "more factors or vectors than anybody computes again")
        return
    for part in (raw, normal):
        yield from _directions(part, "raw_factors" if part is raw else "per_symbol")
    if raw.keys() != normal.keys():
        yield Finding("SEMANTIC", "/per_symbol", "not the vectors of raw_factors")
    yield from _unnamed(normal, names)
    yield from _coefficients(raw, mapping(document.get("normalization_coeffs")), names, near)
    yield from _normalised(document, raw, normal, names, near)
    columns = _columns(normal, names)
    covariance = mapping(document.get("covariance"))
    yield from _echoes(document, names)
    if normal:
        yield from _enabled(document)
    yield from _covariance(covariance, names, columns, near)
    yield from _orthogonal(document, names, list(normal), columns, near)
    yield from _earnings(document, covariance, raw, near)
    yield from _weights(document, covariance, names, near)


def _names(document: Document) -> list[str]:
    for block in ("covariance", "config"):
        told = mapping(document.get(block)).get("factors")
        if isinstance(told, list):
            return [each for each in told if isinstance(each, str)]
    return list(mapping(document.get("normalization_coeffs")))


def _unnamed(normal: Document, names: list[str]) -> Iterator[Finding]:
    """What no list names, no rule looks at."""
    for key, each in normal.items():
        for name in sorted(mapping(mapping(each).get("factors")).keys() - {*names}):
            yield Finding("SEMANTIC", pointer("per_symbol", key, "factors", name), f"no factor of {shown(names)}")


def _echoes(document: Document, names: list[str]) -> Iterator[Finding]:
    """What the file says that it was told to do is what it did."""
    config, block = mapping(document.get("config")), mapping(document.get("factor_weights"))
    if isinstance(told := config.get("factors"), list) and told != names:
        yield Finding("SEMANTIC", "/config/factors", f"{shown(told)}, and the file is of {shown(names)}")
    mode, done = mapping(config.get("auto_weighting")).get("mode"), block.get("mode")
    if isinstance(mode, str) and isinstance(done, str) and mode != done:
        yield Finding("SEMANTIC", "/factor_weights/mode", f"{shown(done)}, and the configuration says {shown(mode)}")


NULL_WHERE_DISABLED = ("covariance", "orthogonalized", "factor_weights", "pnl_attribution")
"""The parts that factors are told in."""


def _enabled(document: Document) -> Iterator[Finding]:
    """What is enabled is told where there is something to tell it of; what is not is not told."""
    if mapping(document.get("config")).get("enabled") is False:
        for part in NULL_WHERE_DISABLED:
            if document.get(part) is not None:
                yield Finding("SEMANTIC", f"/{part}", "told, and config.enabled is false")
        return
    parts = [("covariance", True), ("pnl_attribution", True), ("orthogonalized", document.get("orthogonalization_enabled")),
             ("factor_weights", document.get("auto_weighting_enabled")), ("weights", document.get("auto_weighting_enabled"))]
    for part, enabled in parts:
        if enabled is True and not document.get(part):
            yield Finding("SEMANTIC", f"/{part}", "enabled, there are vectors, and nothing is told")


def _columns(part: Document, names: list[str]) -> dict[str, Vector]:
    """Each factor over all vectors; 0 where a vector has none."""
    vectors = [mapping(mapping(each).get("factors")) for each in part.values()]
    return {name: [value if is_number(value := each.get(name)) else 0.0 for each in vectors] for name in names}


def _directions(part: Document, name: str) -> Iterator[Finding]:
    """The key ``SYMBOL:DIRECTION`` and the direction inside agree."""
    for key, each in part.items():
        _, colon, direction = key.rpartition(":")
        told = mapping(each).get("direction", direction)
        if not colon:
            yield Finding("SEMANTIC", pointer(name, key), "the key is not SYMBOL:DIRECTION")
        elif told != direction:
            yield Finding("SEMANTIC", pointer(name, key, "direction"), f"{shown(told)} under the key {shown(key)}")


# ---- normalisation ----------------------------------------------------------------------------------------


def _coefficients(raw: Document, told: Document, names: list[str], near: Tolerance) -> Iterator[Finding]:
    columns = _columns(raw, names)
    for name in names if raw else ():
        column = columns[name]
        mean = math.fsum(column) / len(column)
        spread = math.sqrt(math.fsum((each - mean) ** 2 for each in column) / len(column))
        expected = {"mean": mean, "std": spread if spread > NOTHING else 1.0, "min": min(column), "max": max(column),
                    "range": max(column) - min(column)}
        if name not in told:
            yield Finding("SEMANTIC", pointer("normalization_coeffs", name), "missing")
        for key, value in expected.items():
            found = mapping(told.get(name)).get(key)
            if not (key == "range" and value == 0 and found == 1):     # some writers keep 1 to divide by
                yield from near.follows(("normalization_coeffs", name, key), found, value, "the raw factors give")


def _normalised(document: Document, raw: Document, normal: Document, names: list[str], near: Tolerance) -> Iterator[Finding]:
    """Each value from its raw one and the coefficients as told."""
    config, told = mapping(document.get("config")), mapping(document.get("normalization_coeffs"))
    mode, most = config.get("normalization_mode", "zscore"), config.get("max_abs_zscore", 3.0)
    most = most if is_number(most) else 3.0
    coefficients = {name: _told_coefficients(mapping(told.get(name))) for name in names}
    for key, each in normal.items():
        values, own = mapping(mapping(raw.get(key)).get("factors")), mapping(mapping(each).get("factors"))
        for name in names:
            value, found = values.get(name), own.get(name)
            if not is_number(found):
                yield _missing("per_symbol", key, "factors", name)
            expected = _normal(value if is_number(value) else 0.0, coefficients[name], mode, most)
            if expected is not None and near.off(found, expected):
                yield recomputed(pointer("per_symbol", key, "factors", name), found, expected, "the raw factor gives")


def _told_coefficients(told: Document) -> Coefficients | None:
    mean, spread, least, width = (told.get(key) for key in ("mean", "std", "min", "range"))
    if is_number(mean) and is_number(spread) and is_number(least) and is_number(width):
        return mean, spread, least, width
    return None


def _normal(value: float, told: Coefficients | None, mode: Any, most: float) -> float | None:
    if told is None:
        return None
    mean, spread, least, width = told
    if mode == "minmax":
        return (value - least) / width if width > NOTHING else 0.0
    return max(-most, min(most, (value - mean) / spread)) if spread > 0 else None


# ---- covariance -------------------------------------------------------------------------------------------


def _covariance(told: Document, names: list[str], columns: Mapping[str, Vector], near: Tolerance) -> Iterator[Finding]:
    if not told:
        return
    for key in ("covariance_matrix", "correlation_matrix"):
        if not _is_square(told.get(key), len(names)):
            yield Finding("SEMANTIC", f"/covariance/{key}", f"not {len(names)} by {len(names)} numbers")
            return
    matrix, correlation = told["covariance_matrix"], told["correlation_matrix"]
    vols = [math.sqrt(max(0.0, matrix[place][place])) for place in range(len(names))]
    centred = [_centred(columns[name]) for name in names]
    for one, name in enumerate(names):
        for two in range(len(names)):
            yield from _entry("covariance_matrix", matrix, one, two, _covaries(centred[one], centred[two]), near)
            related = matrix[one][two] / (vols[one] * vols[two]) if min(vols[one], vols[two]) > NOTHING else float(one == two)
            yield from _entry("correlation_matrix", correlation, one, two, related, near)
        vol = mapping(told.get("factor_vols")).get(name)
        yield from near.follows(("covariance", "factor_vols", name), vol, vols[one], "the diagonal gives")


def _entry(key: str, matrix: list[list[float]], one: int, two: int, expected: float, near: Tolerance) -> Iterator[Finding]:
    """One number of a symmetric matrix."""
    if one < two and not near.near(matrix[one][two], matrix[two][one]):
        yield Finding("SEMANTIC", f"/covariance/{key}/{one}/{two}", "not symmetric")
    if near.off(matrix[one][two], expected):
        yield recomputed(f"/covariance/{key}/{one}/{two}", matrix[one][two], expected, "the vectors give")


def _is_square(matrix: Any, size: int) -> bool:
    return isinstance(matrix, list) and len(matrix) == size and all(
        isinstance(row, list) and len(row) == size and all(map(is_number, row)) for row in matrix)


def _centred(column: Vector) -> Vector:
    mean = math.fsum(column) / len(column) if column else 0.0
    return [each - mean for each in column]


def _covaries(one: Vector, two: Vector) -> float:
    """Of columns whose mean is taken off."""
    return _dot(one, two) / (len(one) - 1) if len(one) > 1 else 0.0


# ---- Gram-Schmidt -----------------------------------------------------------------------------------------


def _orthogonal(document: Document, names: list[str], keys: list[str], columns: Mapping[str, Vector],
                near: Tolerance) -> Iterator[Finding]:
    told = mapping(document.get("orthogonalized"))
    if not told:
        return
    vectors, norms = mapping(told.get("per_symbol")), mapping(told.get("norms"))
    if not vectors.keys() >= set(keys):
        if vectors.keys() == {key.rpartition(":")[0] for key in keys}:
            yield deviation("SEMANTIC", "/orthogonalized/per_symbol", "by symbol alone: long and short overwrite one another")
        else:
            yield Finding("SEMANTIC", "/orthogonalized/per_symbol", "not the vectors of per_symbol")
        keys = []
    expected, degenerate = orthogonalised([columns[name] for name in names])
    lengths, rows = [_dot(column, column) for column in expected], [mapping(vectors.get(key)) for key in keys]
    for name, column, length in zip(names, expected, lengths, strict=True):
        for key, row, value in zip(keys, rows, column, strict=False):
            found = row.get(name)
            if not is_number(found):
                yield _missing("orthogonalized", "per_symbol", key, name)
            elif near.off(found, value):
                yield recomputed(pointer("orthogonalized", "per_symbol", key, name), found, value, "Gram-Schmidt gives")
        if not is_number(norms.get(name)):
            yield _missing("orthogonalized", "norms", name)
        yield from near.follows(("orthogonalized", "norms", name), norms.get(name), math.sqrt(length), "Gram-Schmidt gives")
    nothing = [names[place] for place in degenerate]
    if isinstance(listed := told.get("degenerate"), list) and listed != nothing:
        yield Finding("RECOMPUTED", "/orthogonalized/degenerate", f"{shown(listed)}, and nothing is left of {nothing}")
    yield from _dots(mapping(told.get("dot_products")), names, lengths, near)
    short = mapping(mapping(document.get("pnl_attribution")).get("orthogonalized_summary"))
    for key in ("degenerate", "norms"):
        if key in short and short[key] != told.get(key):
            yield Finding("SEMANTIC", f"/pnl_attribution/orthogonalized_summary/{key}", f"not the {key} of /orthogonalized")


def _missing(*path: str) -> Finding:
    return Finding("SEMANTIC", pointer(*path), "missing")


def _dots(told: Document, names: list[str], lengths: Vector, near: Tolerance) -> Iterator[Finding]:
    """Products of what is orthogonal: nothing, on the scale of the columns."""
    for one, two in combinations(range(len(names)), 2):
        pair = f"{names[one]}|{names[two]}"
        scale = math.sqrt(lengths[one] * lengths[two])
        if not is_number(told.get(pair)):
            yield deviation("KEY", pointer("orthogonalized", "dot_products", pair), "the product is missing")
        if is_number(found := told.get(pair)) and abs(found) > near.absolute + near.relative * scale:
            yield Finding("RECOMPUTED", pointer("orthogonalized", "dot_products", pair),
                          f"{shown(found)}, and orthogonal columns give 0")


def orthogonalised(columns: Sequence[Vector]) -> tuple[list[Vector], list[int]]:
    """Each column without what the ones before it say, and the places of those of which nothing is left."""
    kept: list[Vector] = []
    lengths: list[float] = []
    degenerate = []
    for place, column in enumerate(columns):
        rest = list(column)
        for other, length in zip(kept, lengths, strict=True):
            if length > NOTHING ** 2:
                share = _dot(rest, other) / length
                rest = [a - share * b for a, b in zip(rest, other, strict=True)]
        length = _dot(rest, rest)
        if math.sqrt(length) <= NOTHING:
            rest, length = [0.0] * len(rest), 0.0
            degenerate.append(place)
        kept.append(rest)
        lengths.append(length)
    return kept, degenerate


def _dot(one: Vector, two: Vector) -> float:
    return math.fsum([a * b for a, b in zip(one, two, strict=True)])


# ---- earnings and weights ---------------------------------------------------------------------------------


def _earnings(document: Document, covariance: Document, raw: Document, near: Tolerance) -> Iterator[Finding]:
    """By its profit where any is known, else by how steady the raw factor is over enough vectors."""
    vols, told = _numbers(covariance.get("factor_vols")), _numbers(document.get("factor_ir"))
    profit = _numbers(mapping(document.get("pnl_attribution")).get("by_factor"))
    expected: dict[str, float] = {}
    if any(profit.values()):
        expected = {name: value / (vols.get(name, 0.0) + NOTHING) for name, value in profit.items()}
    elif len(raw) >= VECTORS_MIN:
        own = {name: _numbers(each) for name, each in mapping(document.get("normalization_coeffs")).items()}
        expected = {name: each["mean"] / each["std"] for name, each in own.items() if each.get("std", 0) > 0 and "mean" in each}
    yield from _same("/factor_ir", told, expected, near, "profit, vols and vectors")
    if isinstance(copy := mapping(document.get("pnl_attribution")).get("factor_ir"), Mapping):
        yield from _same("/pnl_attribution/factor_ir", _numbers(copy), told, near, "the factor_ir told elsewhere")


def _weights(document: Document, covariance: Document, names: list[str], near: Tolerance) -> Iterator[Finding]:
    """From what a factor earns to its raw weight, to its share within bounds, to the smoothed weight."""
    weights, block = mapping(document.get("weights")), mapping(document.get("factor_weights"))
    for place, copy in (("/factor_weights/weights", block.get("weights")),
                        ("/pnl_attribution/weights", mapping(document.get("pnl_attribution")).get("weights"))):
        if isinstance(copy, Mapping) and dict(copy) != dict(weights):
            yield Finding("SEMANTIC", place, "not the weights of /weights")
    if not weights:
        return
    numbers = {name: value for name, value in weights.items() if is_number(value)}
    if not near.near(math.fsum(numbers.values()), 1.0):
        yield Finding("RECOMPUTED", "/weights", f"they add up to {math.fsum(numbers.values()):.9g}, not to 1")
    config = mapping(mapping(document.get("config")).get("auto_weighting"))
    low, high, alpha = (value if is_number(value := config.get(key)) else default
                        for key, default in (("min_weight", 0.05), ("max_weight", 0.40), ("smoothing_alpha", 0.2)))
    yield from _outside(numbers, low, high, near)
    yield from _raw(document, block, covariance, names, near)
    for name in names:
        if name not in weights:
            yield Finding("SEMANTIC", pointer("weights", name), "missing")
    raw, target = _numbers(block.get("raw")) or _expected_raw(document, block, covariance, names), _numbers(block.get("target"))
    if raw and target:
        yield from _target(target, raw, low, high, near)
    if target and "previous" in block:
        previous = _numbers(block.get("previous"))
        smooth = {name: alpha * target.get(name, 0.0) + (1 - alpha) * previous.get(name, 0.0)
                  for name in dict.fromkeys([*target, *previous])} if previous else target
        yield from _same("/weights", numbers, smooth, near, "target and previous weights")
    elif raw and len(raw) == len(numbers):
        yield from _possible(numbers, target or clamped(raw, low, high), alpha, near)


def _possible(weights: Mapping[str, float], target: Mapping[str, float], alpha: float, near: Tolerance) -> Iterator[Finding]:
    """A file that does not say from which weights it came: there must be some from which it may have."""
    for name, value in weights.items():
        share = alpha * target.get(name, 0.0)
        if not (share <= value <= share + 1 - alpha or near.near(value, share) or near.near(value, share + 1 - alpha)):
            yield Finding("RECOMPUTED", pointer("weights", name), f"{shown(value)}, and no weight before gives it")


def _target(target: Mapping[str, float], raw: Mapping[str, float], low: float, high: float,
            near: Tolerance) -> Iterator[Finding]:
    """Shares within their bounds; those of the source, which may leave them, are tolerated."""
    found = list(_same("/factor_weights/target", target, clamped(raw, low, high), near, "normalised and clamped raw weights"))
    if found and not list(_same("", target, clamped(raw, low, high, scales=True), near, "")):
        yield deviation("LIMIT", "/factor_weights/target", "scaled out of their bounds, as the source does")
    else:
        yield from found


def _outside(weights: Mapping[str, float], low: float, high: float, near: Tolerance) -> Iterator[Finding]:
    """The last scaling may leave the bounds, so this alone breaks nothing (specs/CONFLICTS.md)."""
    if len(weights) * low <= 1 <= len(weights) * high:
        for name, value in weights.items():
            if not (low <= value <= high or near.near(value, low) or near.near(value, high)):
                yield deviation("LIMIT", pointer("weights", name), f"{shown(value)} is outside of [{low:g}, {high:g}]")


def _raw(document: Document, block: Document, covariance: Document, names: list[str], near: Tolerance) -> Iterator[Finding]:
    ir, vols = _numbers(document.get("factor_ir")), _numbers(covariance.get("factor_vols"))
    if raw := _numbers(block.get("raw")):
        expected = _expected_raw(document, block, covariance, names)
        yield from _same("/factor_weights/raw", raw, expected, near, "mode, earnings and vols")
    for key, other in (("factor_vols", vols), ("factor_ir", ir)):
        if isinstance(told := block.get(key), Mapping):
            yield from _same(f"/factor_weights/{key}", _numbers(told), other, near, f"the {key} told elsewhere")


def _expected_raw(document: Document, block: Document, covariance: Document, names: list[str]) -> dict[str, float]:
    """Raw weights by the mode, which is that of the configuration where the block says none."""
    told = block.get("mode", mapping(mapping(document.get("config")).get("auto_weighting")).get("mode"))
    mode = MODES.get(str(told), MODES["equal"])
    ir, vols = _numbers(document.get("factor_ir")), _numbers(covariance.get("factor_vols"))
    return {name: mode(ir.get(name, 0.0), vols.get(name, 0.0)) for name in names}


def _numbers(value: Any) -> dict[str, float]:
    return {name: each for name, each in mapping(value).items() if is_number(each)}


def _same(path: str, found: Mapping[str, float], expected: Mapping[str, float], near: Tolerance,
          source: str) -> Iterator[Finding]:
    for name in dict.fromkeys([*found, *expected]):
        if name in found and name in expected:
            if near.off(found[name], expected[name]):
                yield recomputed(path + pointer(name), found[name], expected[name], f"{source} give")
        else:
            yield Finding("RECOMPUTED", path + pointer(name), f"missing, or {source} give none")


def clamped(raw: Mapping[str, float], low: float, high: float, scales: bool = False) -> dict[str, float]:
    """Absolute values as shares of 1, none outside of its bounds as far as ten passes bring it. Where none is left between
    the bounds, those at one of them share the rest; the source scales them all."""
    whole = math.fsum(map(abs, raw.values()))
    shares = {name: abs(value) / whole if whole > 1e-12 else 1 / len(raw) for name, value in raw.items()}
    for _ in range(PASSES):
        shares = {name: max(low, min(high, value)) for name, value in shares.items()}
        free = [name for name, value in shares.items() if low < value < high]
        if not free:
            return _filled(shares, low, high, scales)
        rest = 1 - math.fsum(value for name, value in shares.items() if name not in free)
        scale = max(0.0, rest) / math.fsum(shares[name] for name in free)
        shares.update({name: shares[name] * scale for name in free})
        if all(low <= value <= high for value in shares.values()):
            break
    return shares


def _filled(shares: dict[str, float], low: float, high: float, scales: bool) -> dict[str, float]:
    """None lies between the bounds: those at the lower one share what is missing, those at the upper one what is too much."""
    total = math.fsum(shares.values())
    sharing = {name for name, value in shares.items() if (value <= low if total < 1 else value >= high)}
    if sharing and not scales:
        return {name: value + (1 - total) / len(sharing) if name in sharing else value for name, value in shares.items()}
    return {name: value / total for name, value in shares.items()} if total > 0 else shares
