"""Does a predicate hold in these documents? Yes, no, or unknown (None): never a guess.

A field that is missing, a surface that did not answer, a comparison between things that do not compare: each is
unknown. A conjunction is no as soon as one field is no, and yes only when every field is yes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from harness.drill.model import Field, Json, Operator, Predicate

MISSING = object()
"""What ``look`` returns for a path that leads nowhere; None would be a JSON null."""

Documents = Mapping[str, Mapping[str, Any] | None]
"""The latest document of each surface; None for a surface that was silent or answered unlawfully."""


def look(document: Any, path: str) -> Any:
    """The value at a dotted path (a number selects from a list), or MISSING."""
    if "." not in path and type(document) is dict:  # most paths of most questions
        return document.get(path, MISSING)
    value = document
    for part in path.split("."):
        if type(value) is dict or isinstance(value, Mapping):  # the first is what JSON gives, asked some million times
            value = value.get(part, MISSING)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return MISSING
        if value is MISSING:
            return MISSING
    return value


def same(left: Any, right: Any) -> bool:
    """Equality as JSON has it: ``true`` is no 1, but 1 and 1.0 are the same number."""
    if type(left) is str:  # what is compared most
        return bool(left == right)
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


def is_number(value: Any) -> TypeGuard[int | float]:
    """A JSON number; ``true`` is none. By identity of the types, because this runs a dozen times a sample."""
    return type(value) is int or type(value) is float


def _at_least(found: Any, bound: Json, _: Any) -> bool | None:
    return found >= bound if is_number(found) and is_number(bound) else None


def _at_most(found: Any, bound: Json, _: Any) -> bool | None:
    return found <= bound if is_number(found) and is_number(bound) else None


def _has(found: Any, member: Json, _: Any) -> bool | None:
    return any(same(each, member) for each in found) if isinstance(found, list) else None


def _has_not(found: Any, member: Json, _: Any) -> bool | None:
    return not any(same(each, member) for each in found) if isinstance(found, list) else None


def _one_of(found: Any, choices: Json, _: Any) -> bool | None:
    return any(same(found, each) for each in choices) if isinstance(choices, list) else None


def _rises(found: Any, wanted: Json, before: Any) -> bool | None:
    return (found > before) is bool(wanted) if is_number(found) and is_number(before) else None


_COMPARE: dict[Operator, Callable[[Any, Json, Any], bool | None]] = {
    "equals": lambda found, value, _: same(found, value),
    "is_not": lambda found, value, _: not same(found, value),
    "at_least": _at_least,
    "at_most": _at_most,
    "has": _has,
    "has_not": _has_not,
    "one_of": _one_of,
    "rises": _rises,
}


def evaluate_field(field: Field, document: Mapping[str, Any] | None, before: Mapping[str, Any] | None) -> bool | None:
    """One field over its surface's document; ``before`` is that surface's baseline document."""
    found = MISSING if document is None else look(document, field.path)
    if found is MISSING:
        return None
    baseline = look(before, field.path) if field.operator == "rises" and before is not None else MISSING
    return _COMPARE[field.operator](found, field.value, baseline)


def evaluate(predicate: Predicate, documents: Documents, baseline: Documents | None = None) -> bool | None:
    """Yes, no or unknown over the documents by surface.

    ``baseline`` holds each surface's last usable document before zero, which ``rises`` compares with; without one
    ``rises`` is unknown.
    """
    unknown = False
    for field in predicate.fields:
        before = baseline.get(field.surface) if baseline is not None else None
        holds = evaluate_field(field, documents.get(field.surface), before)
        if holds is False:
            return False
        unknown = unknown or holds is None
    return None if unknown else True


def of_plain(value: Mapping[str, Mapping[str, Any]]) -> Predicate:
    """A predicate from plain values of our own rule files: ``{status: {trading_mode: {is_not: Active}}}``."""
    return Predicate(tuple(each for surface, fields in value.items() for path, wanted in fields.items()
                           for each in _plain_fields(surface, path, wanted)))


def _plain_fields(surface: str, path: str, wanted: Any) -> list[Field]:
    if not isinstance(wanted, Mapping):
        return [Field(surface, path, "equals", wanted)]
    unknown = set(wanted) - set(_COMPARE)
    if unknown or not wanted:
        raise ValueError(f"{surface}.{path}: no operator {sorted(unknown)}")
    return [Field(surface, path, operator, value) for operator, value in wanted.items()]
