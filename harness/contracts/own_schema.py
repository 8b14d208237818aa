"""A JSON Schema that somebody else wrote, read so that nothing in it is passed over.

A reader of JSON Schema ignores what it does not know, so a misspelt keyword, or one of another draft, is a rule that
nobody keeps. Here it is refused, as a schema is that asks for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema_rs

from harness.contracts.reading import pointer, shown
from harness.errors import SpecError, nearest

DRAFT = "https://json-schema.org/draft/2020-12/schema"

_ASSERTING = frozenset({
    "type", "enum", "const", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength",
    "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "maxContains", "minContains", "maxProperties",
    "minProperties", "required", "dependentRequired", "format"})
_TELLING = frozenset({
    "$schema", "$id", "$ref", "$dynamicRef", "$anchor", "$dynamicAnchor", "$vocabulary", "$comment", "title", "description",
    "default", "deprecated", "readOnly", "writeOnly", "examples", "contentEncoding", "contentMediaType"})
_ONE = frozenset({
    "items", "contains", "additionalProperties", "propertyNames", "not", "if", "then", "else", "unevaluatedItems",
    "unevaluatedProperties", "contentSchema"})
_SEVERAL = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
_KNOWN = _ASSERTING | _TELLING | _ONE | _SEVERAL | _NAMED


def validator_of(schema: Any, file: str) -> Any:
    """The compiled schema, which asks for formats, too. Raises SpecError with the place in the document."""
    asserted = _refused(schema, file)
    if schema is not False and not asserted:
        raise SpecError(f"{file}: a schema that asks for nothing: expected a keyword such as type, required or enum")
    try:
        return jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    except Exception as why:
        raise SpecError(f"{file}: no JSON Schema: {' '.join(str(why).split())[:300]}") from why


def _refused(schema: Any, file: str) -> bool:
    """Whether anything is asserted; raises on what a reader of this draft would pass over, or would have to fetch."""
    asserted = False
    for place, each in _subschemas(schema, ()):
        asserted = asserted or each is False or (isinstance(each, dict) and not _ASSERTING.isdisjoint(each))
        for key, value in each.items() if isinstance(each, dict) else ():
            where = f"{file}#{pointer(*place, key)}"
            if key not in _KNOWN:
                raise SpecError(f"{where}: no keyword of JSON Schema 2020-12; nearest: {nearest(key, _KNOWN)}")
            if key == "$schema" and str(value).rstrip("#") != DRAFT:
                raise SpecError(f"{where}: found {shown(value)}, expected {DRAFT}")
            if key in ("$ref", "$dynamicRef") and not str(value).startswith("#"):
                raise SpecError(f"{where}: a $ref leads out of the file; judging again must need nothing else")
    return asserted


def _subschemas(schema: Any, place: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    yield place, schema
    for key, value in schema.items() if isinstance(schema, dict) else ():
        if key in _ONE:
            yield from _subschemas(value, (*place, key))
        elif key in _SEVERAL and isinstance(value, list):
            for number, each in enumerate(value):
                yield from _subschemas(each, (*place, key, number))
        elif key in _NAMED and isinstance(value, dict):
            for name, each in value.items():
                yield from _subschemas(each, (*place, key, name))
