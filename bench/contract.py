"""Judging one status document: the contract check (schema, registries, cross-field rules, owner's view) against what
plain jsonschema takes for the schema alone."""

from __future__ import annotations

import json
from collections.abc import Iterator

import jsonschema
import jsonschema_rs

from bench.clock import side_by_side
from harness.contracts.csp_status import Contract
from harness.contracts.library import FIXTURES, REPOSITORY, SCHEMA_MIN, read_json

TIMES = 20
"""How often a contender judges every golden in one round."""


def lines(rounds: int) -> Iterator[str]:
    """The table's lines."""
    schema = read_json(REPOSITORY / SCHEMA_MIN)
    documents = [json.loads(file.read_bytes()) for file in sorted((REPOSITORY / FIXTURES).glob("*.json"))]
    contract = Contract.load()
    pure, compiled = jsonschema.Draft202012Validator(schema), jsonschema_rs.Draft202012Validator(schema)
    judged = TIMES * len(documents)
    best = side_by_side({
        "jsonschema, schema alone": lambda: [list(pure.iter_errors(each)) for _ in range(TIMES) for each in documents],
        "jsonschema-rs, schema alone": lambda: [compiled.is_valid(each) for _ in range(TIMES) for each in documents],
        "contract check, everything": lambda: [contract.check_document(each) for _ in range(TIMES) for each in documents],
    }, rounds)
    slowest = best["jsonschema, schema alone"]
    for name, seconds in best.items():
        yield f"{name:<30}{seconds / judged * 1e6:>10.1f} µs a document {slowest / seconds:>8.1f} ×"
