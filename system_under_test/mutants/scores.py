"""Sabotages of the intelligence node: numbers that look like factors, and are not what they are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from msgspec import structs

from system_under_test.intelligence import Intelligence, make
from system_under_test.intelligence.files import DIAGNOSTICS, SCORES
from system_under_test.intelligence.prices import Quote
from system_under_test.machine import Now, Replace, Value
from system_under_test.mutants.surgery import graft

Document = dict[str, Any]
Weights = dict[str, float]


def _rewritten(environment: Mapping[str, str], file: str, write: Callable[[Document], bytes]) -> Intelligence:
    """The real node, one of whose files is written by somebody else."""
    node = make(environment)
    honest = node.handle

    def handle(now: Now, value: Value) -> tuple[Value, ...]:
        return tuple(structs.replace(each, data=write(orjson.loads(each.data)))
                     if isinstance(each, Replace) and each.file == file else each for each in honest(now, value))

    graft(node, "handle", handle)
    return node


def _retold(environment: Mapping[str, str], tell: Callable[[Document], Document], file: str = DIAGNOSTICS) -> Intelligence:
    return _rewritten(environment, file, lambda told: orjson.dumps(tell(told)))


def _reweighted(environment: Mapping[str, str], target_of: Callable[[Weights], Weights] | None,
                smooth: Callable[[Weights, Weights | None], Weights] | None = None) -> Intelligence:
    """Weights that are made in another way, and told consistently wherever weights are told."""
    last: dict[str, Weights | None] = {"weights": None}

    def tell(told: Document) -> Document:
        block = told["factor_weights"]
        target = target_of(block["raw"]) if target_of is not None else block["target"]
        before = last["weights"]
        weights = last["weights"] = (smooth or _smooth)(target, before)
        return {**told, "weights": weights, "pnl_attribution": {**told["pnl_attribution"], "weights": weights},
                "factor_weights": {**block, "weights": weights, "target": target, "previous": before}}

    return _retold(environment, tell)


def _smooth(target: Weights, before: Weights | None) -> Weights:
    return {name: 0.2 * value + 0.8 * before[name] for name, value in target.items()} if before else target


def clamps_nothing(environment: Mapping[str, str]) -> Intelligence:
    """Shares of 1 without bounds: drill 16 must say that the target does not follow (law ``state_files_lawful``).

    Real bugs look like this: bounds are read from a section of the configuration that has another name by now.
    """

    def target_of(raw: Weights) -> Weights:
        whole = sum(map(abs, raw.values()))
        return {name: abs(value) / whole if whole else 1 / len(raw) for name, value in raw.items()}

    return _reweighted(environment, target_of)


def normalises_nothing(environment: Mapping[str, str]) -> Intelligence:
    """Within their bounds, and together anything but 1: drill 16 must say so (law ``state_files_lawful``).

    Real bugs look like this: clamping comes last.
    """
    return _reweighted(environment, lambda raw: {name: min(0.4, max(0.05, abs(value))) for name, value in raw.items()})


def clamps_what_is_smooth(environment: Mapping[str, str]) -> Intelligence:
    """The smoothed weights are clamped once more, tighter, and not made to sum to 1: drill 16 must say so (law
    ``state_files_lawful``).

    Real bugs look like this: a safety belt over the braces, with bounds of its own.
    """
    return _reweighted(environment, None, lambda target, before: {
        name: min(0.3, max(0.1, value)) for name, value in _smooth(target, before).items()})


def smooths_nothing(environment: Mapping[str, str]) -> Intelligence:
    """Each run throws the weights where it wants them: drill 16 must say that they do not follow from those before (law
    ``state_files_lawful``).

    Real bugs look like this: the share of the new and the share of the old have changed places, and one of them is 1.
    """
    return _reweighted(environment, None, lambda target, before: target)


def forgets_its_weights(environment: Mapping[str, str]) -> Intelligence:
    """After a restart there are no weights before: drill 16 must say that they were not gone on from (``goes_on``).

    Real bugs look like this: the state lies in memory, and the first run after a deployment jumps.
    """
    node = make(environment)
    honest = node._restore

    def restore(name: str, data: bytes | None) -> tuple[Value, ...]:
        said = honest(name, data)
        node._weights = None
        return said

    graft(node, "_restore", restore)
    return node


def skips_gram_schmidt(environment: Mapping[str, str]) -> Intelligence:
    """What is called orthogonal are the factors as they were: drill 16 must say so (law ``state_files_lawful``).

    Real bugs look like this: the result is written into a copy, and the original is returned.
    """
    return _retold(environment, lambda told: {**told, "orthogonalized": {
        **told["orthogonalized"], "per_symbol": {key: each["factors"] for key, each in told["per_symbol"].items()}}})


def fills_half_a_matrix(environment: Mapping[str, str]) -> Intelligence:
    """Only one half of the covariance is computed: drill 16 must say that it is not symmetric (law
    ``state_files_lawful``).

    Real bugs look like this: a loop over ``j < i``, and nobody mirrors what it made.
    """

    def tell(told: Document) -> Document:
        matrix = [[value if at <= row else 0.0 for at, value in enumerate(values)]
                  for row, values in enumerate(told["covariance"]["covariance_matrix"])]
        return {**told, "covariance": {**told["covariance"], "covariance_matrix": matrix}}

    return _retold(environment, tell)


def divides_by_nothing(environment: Mapping[str, str]) -> Intelligence:
    """A factor that does not move correlates by 0 / 0: drill 16 must say that the file is no JSON object (law
    ``state_files_whole``).

    Real bugs look like this: the library warns, the standard encoder writes ``NaN``, and no other language reads it.
    """

    def write(told: Document) -> bytes:
        told["covariance"]["correlation_matrix"][-1][-1] = "nothing"
        return orjson.dumps(told).replace(b'"nothing"', b"NaN")

    return _rewritten(environment, DIAGNOSTICS, write)


def forgets_the_direction(environment: Mapping[str, str]) -> Intelligence:
    """Keyed by the symbol alone, the short overwrites the long: drill 16 must say so (law ``state_files_lawful``).

    Real bugs look like this: the key was unique until somebody held both sides.
    """

    def tell(told: Document) -> Document:
        return {**told, **{block: {key.partition(":")[0]: each for key, each in told[block].items()}
                           for block in ("raw_factors", "per_symbol")}}

    return _retold(environment, tell)


def emits_everything(environment: Mapping[str, str]) -> Intelligence:
    """Every score passes: drill 16 must say that one below its minimum did (law ``state_files_lawful``).

    Real bugs look like this: the flag is set from the score that was there before the router's share was mixed in.
    """
    return _retold(environment, lambda told: {**told, "symbols": [
        {**row, "hybrid": {**row["hybrid"], "passes_emission": True}} for row in told["symbols"]]}, SCORES)


def scores_old_prices(environment: Mapping[str, str]) -> Intelligence:
    """Where the exchange says nothing, it is taken to say what it said last: drill 16 must say that scores were made of it
    (``aged``).

    Real bugs look like this: a cache between the client and its callers that nobody told how old an answer may be.
    """
    node = make(environment)
    honest = node._answered
    told: dict[str, Quote] = {}

    def answered(now: Now, id: int, quotes: dict[str, Quote] | None) -> tuple[Value, ...]:
        told.update(quotes or {})
        return honest(now, id, quotes or dict(told))

    graft(node, "_answered", answered)
    return node
