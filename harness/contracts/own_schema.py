"""A JSON Schema that somebody else wrote, read so that nothing in it is passed over.

A reader of JSON Schema ignores what it does not know, so a misspelt keyword or format, or one of another draft, is a rule
that nobody keeps; and so is a keyword without the one that it belongs to. Here it is refused, as a schema is that asks for
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import jsonschema_rs

from harness.contracts.reading import pointer, shown
from harness.errors import SpecError, hint

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
_HOLLOW = {"required": [], "dependentRequired": {}, "minLength": 0, "minItems": 0, "minProperties": 0, "uniqueItems": False}
"""Values of asserting keywords that every document keeps."""
_BESIDE = {"if": ("then", "else"), "then": ("if",), "else": ("if",), "minContains": ("contains",), "maxContains": ("contains",)}
"""Keywords that are passed over where none of these stands beside them."""
_FORMATS = frozenset({
    "date", "date-time", "time", "duration", "email", "idn-email", "hostname", "idn-hostname", "ipv4", "ipv6", "uri",
    "uri-reference", "iri", "iri-reference", "uuid", "uri-template", "json-pointer", "relative-json-pointer", "regex"})


def validator_of(schema: Any, file: str) -> Any:
    """The compiled schema, which asks for formats, too. Raises SpecError with the place in the document."""
    _nothing_passed_over(schema, file)
    if schema is not False and not _asks(schema, schema, set()):
        raise SpecError(f"{file}: a schema that asks for nothing: expected a keyword such as type, required or enum")
    try:
        return jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    except Exception as why:
        raise SpecError(f"{file}: no JSON Schema: {' '.join(str(why).split())[:300]}") from why


def _nothing_passed_over(schema: Any, file: str) -> None:
    """Raises SpecError on what a reader of this draft would pass over, or would have to fetch."""
    for place, each in _subschemas(schema, ()):
        for key, value in each.items() if isinstance(each, dict) else ():
            where = f"{file}#{pointer(*place, key)}"
            if key not in _KNOWN:
                raise SpecError(f"{where}: no keyword of JSON Schema 2020-12{hint(key, _KNOWN)}")
            if key == "$schema" and str(value).rstrip("#") != DRAFT:
                raise SpecError(f"{where}: found {shown(value)}, expected {DRAFT}")
            if key in ("$ref", "$dynamicRef") and not str(value).startswith("#"):
                raise SpecError(f"{where}: a $ref leads out of the file; judging again must need nothing else")
            if key in _BESIDE and not any(other in each for other in _BESIDE[key]):
                raise SpecError(f"{where}: nobody asks it alone; expected {' or '.join(_BESIDE[key])} beside it")
            if key == "contentSchema":
                raise SpecError(f"{where}: nobody asks what is within a text; expected keywords that are asked")
            if key == "format" and str(value) not in _FORMATS:
                raise SpecError(f"{where}: found {shown(value)}, expected a format of JSON Schema 2020-12"
                                f"{hint(str(value), _FORMATS)}")


def _asks(schema: Any, root: Any, seen: set[str]) -> bool:
    """Whether anything is asked of a document: here, below, or where a ``$ref`` leads. Definitions that nobody refers to ask
    for nothing, and a condition only by what follows from it."""
    if not isinstance(schema, dict):
        return schema is False
    if any(key in _ASSERTING and not (key in _HOLLOW and value == _HOLLOW[key]) for key, value in schema.items()):
        return True
    for key in ("$ref", "$dynamicRef"):
        if key in schema and schema[key] not in seen:
            seen.add(schema[key])
            if any(_asks(each, root, seen) for place, each in _subschemas(root, ()) if _is(schema[key], place, each)):
                return True
    return any(_asks(each, root, seen) for place, each in _below(schema, ())
               if place[0] not in ("$defs", "definitions", "if"))


def _is(reference: str, place: tuple[str | int, ...], schema: Any) -> bool:
    """Whether a ``$ref`` within the file means the schema at this place."""
    anchors = [schema.get("$anchor"), schema.get("$dynamicAnchor")] if isinstance(schema, dict) else []
    return unquote(reference[1:]) in (pointer(*place), *anchors)


def _subschemas(schema: Any, place: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    yield place, schema
    for below, each in _below(schema, place):
        yield from _subschemas(each, below)


def _below(schema: Any, place: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The schemas that stand in a schema's keywords, each with its place."""
    for key, value in schema.items() if isinstance(schema, dict) else ():
        if key in _ONE:
            yield (*place, key), value
        elif key in _SEVERAL and isinstance(value, list):
            yield from (((*place, key, number), each) for number, each in enumerate(value))
        elif key in _NAMED and isinstance(value, dict):
            yield from (((*place, key, name), each) for name, each in value.items())
