"""Is this answer a JSON object, to the letter? Whatever is doubtful is kept raw, and judged as such."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson

from harness import limits


class _Doubtful(ValueError):
    pass


def parse(body: bytes) -> dict[str, Any] | None:
    """The object, or None: another type, bad UTF-8, a duplicate key, NaN, a number beyond 64 bits, too deep, or more than
    DOCUMENT_BYTES_MAX as the tape would write it (``1e15`` is sixteen digits there)."""
    try:
        document = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant,
                              parse_float=_finite)
        if not isinstance(document, dict) or _depth(document) > limits.DOCUMENT_DEPTH_MAX:
            return None
        if len(orjson.dumps(document)) > limits.DOCUMENT_BYTES_MAX:  # raises on what it cannot write down exactly
            return None
    except (ValueError, RecursionError, orjson.JSONEncodeError):
        return None
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Doubtful("a key appears twice")
    return found


def _no_constant(name: str) -> Any:
    raise _Doubtful(f"{name} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Doubtful(f"{text} is no finite number")
    return value


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0
