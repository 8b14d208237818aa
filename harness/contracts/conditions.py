"""Unblock conditions as data: ``ws_event_lag_ms <= 500 for >= 60s AND reconciliation_success == true``.

A condition is clauses joined by ``AND`` or ``+``. A clause is ``metric operator value``, ``metric stops increasing``
or, for what only a person can do, plain words; any of them may end in ``for >= <n>s``, its dwell.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Clause:
    """One clause. Plain words have no operator and no value; ``dwell_ms`` is None where none is named.

    ``value`` is a JSON value where the text reads as one, else the word itself.
    """

    metric: str
    operator: str | None = None
    value: Any = None
    dwell_ms: int | None = None


_JOINT = re.compile(r"\s+AND\s+|\s+\+\s+")
_DWELL = re.compile(r"\s+for\s+>=\s*([0-9]+(?:\.[0-9]+)?)\s*s\Z")
_COMPARISON = re.compile(r"(\w+)\s*(<=|>=|==|!=|<|>)\s*(\S+)(?:\s+\(.*\))?\Z")
_STEADY = re.compile(r"(\w+)\s+stops increasing\Z")


def parse_condition(text: str) -> tuple[Clause, ...]:
    """The clauses in order. Never raises: what is no comparison is plain words, with its whitespace collapsed."""
    return tuple(_clause(part.strip()) for part in _JOINT.split(text.strip()))


def _clause(text: str) -> Clause:
    dwell = _DWELL.search(text)
    dwell_ms = round(float(dwell[1]) * 1000) if dwell else None
    text = text[:dwell.start()] if dwell else text
    if comparison := _COMPARISON.fullmatch(text):
        return Clause(comparison[1], comparison[2], _value(comparison[3]), dwell_ms)
    if steady := _STEADY.fullmatch(text):
        return Clause(steady[1], "stops increasing", None, dwell_ms)
    return Clause(" ".join(text.split()), None, None, dwell_ms)


def _value(word: str) -> Any:
    try:
        return json.loads(word)
    except (ValueError, RecursionError):
        return word
