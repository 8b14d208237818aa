"""Which words a field may hold, and values of which kinds, as far as the contract of its surface says.

A word or a kind that no field can ever hold is a slip of the pen, and where a promise denies it (``is_not``, ``has_not``), one
that can never be broken: not by any sabotage, and not by a placebo.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness import limits, texts
from harness.drill.model import Operator
from harness.drill.predicate import is_number
from harness.errors import SpecError, TextError

Words = Mapping[str, frozenset[str]]
"""dotted path → every text that may stand there, or in the list there"""

_MANIFEST = "specs/status/status_reason_registries_manifest.json"
_LISTED = {"mode_reasons": "ModeReasonCode", "latch_codes": "OpenPermissionReasonCode"}
"""Kind of a field of the status contract → the registry of what its list may hold; other kinds name theirs."""


_SURFACES = "specs/state/surfaces.yaml"
_STATUS = "specs/status/status_csp_min.schema.json"
KINDS = {"string": "a text", "number": "a number", "integer": "a number", "boolean": "true or false", "null": "null",
          "array": "a list", "object": "a mapping"}
"""The types of JSON Schema, as people call them."""


@contextmanager
def shaped(file: Path) -> Iterator[None]:
    """Whatever a reader stumbles over in a file of ours is said of that file. Raises SpecError."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as why:
        raise SpecError(f"{file}: a part of it has the wrong shape: {type(why).__name__}: {why}") from why


def words_of(root: Path, contract: str | None, schema: Path | None = None) -> Words:
    """What the contract's files under ``root`` say, or the ``schema`` of a contract of one's own. Raises SpecError."""
    if schema is None and contract == "csp_status":
        with shaped(root / _MANIFEST):
            return _of_manifest(_json(root / _MANIFEST))
    return dict(_of_schema(schema_of(root, contract, schema), ""))


def schema_of(root: Path, contract: str | None, schema: Path | None = None) -> Any:
    """The JSON Schema of what keeps a contract; one that asks for nothing where there is none. Raises SpecError."""
    name, _, part = (contract or "").partition(".")
    if schema is not None:
        return _json(schema)
    if name == "csp_status":
        return _json(root / _STATUS)
    if name == "ops_status":
        return _json(root / f"specs/ops_status/{f'ops_{part}' if part else name}.schema.json")
    if name == "state_files" and (root / _SURFACES).is_file():
        file = root / _SURFACES
        told = _schemas_named(texts.read(file, limits.SPEC_FILE_BYTES_MAX), str(file))
        return _json(file.parent / told[part]) if part in told else {}
    return {}


@lru_cache(maxsize=4)
def _schemas_named(data: bytes, file: str) -> Mapping[str, str]:
    """State file → its schema, which is not always called as the surface is. Raises SpecError."""
    try:
        raw: Any = texts.load(data, file, aliases=True)
        return {name: each["schema"] for name, each in raw["surfaces"].items()}
    except (TextError, KeyError, TypeError, AttributeError) as why:
        raise SpecError(f"{file}: no surfaces with their schemas: {why}") from why


def part_of(schema: Any, path: str) -> tuple[Any, frozenset[str]]:
    """What a schema says of the field at a dotted path, nothing where it leaves that open; and where it is closed to such a
    name, those that it has there."""
    before = ""
    for name in path.split("."):
        told = schema if isinstance(schema, Mapping) else {}
        properties = told["properties"] if isinstance(told.get("properties"), Mapping) else {}
        if name in properties:
            schema = properties[name]
        elif name.isdecimal() and "items" in told:
            schema = {} if "prefixItems" in told else told["items"]
        elif "patternProperties" in told:
            return {}, frozenset()
        elif told.get("additionalProperties") is False:
            return {}, frozenset(before + each for each in properties)
        else:
            schema = told.get("additionalProperties")
        before += name + "."
    return schema, frozenset()


def kinds_of(schema: Any) -> frozenset[str]:
    """Of which kinds a value may be, as a schema says; none where it does not say."""
    if not isinstance(schema, Mapping):
        return frozenset()
    for values in (schema.get("enum"), [schema["const"]] if "const" in schema else None):
        if isinstance(values, list):
            return frozenset(map(kind, values))
    types = schema.get("type")
    return frozenset(KINDS[each] for each in (types if isinstance(types, list) else [types])
                     if isinstance(each, str) and each in KINDS)


def values_of(schema: Any) -> list[Any]:
    """Every value that a field may hold, where a schema counts them; none where it does not."""
    if not isinstance(schema, Mapping):
        return []
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    return values if isinstance(values, list) else [True, False] if schema.get("type") == "boolean" else []


def bounds_of(schema: Any) -> dict[Operator, Any]:
    """The least and the most that a number may be, where a schema says so, as a drill would ask for it."""
    told = schema if isinstance(schema, Mapping) else {}
    least = [told[key] for key in ("minimum", "exclusiveMinimum") if is_number(told.get(key))]
    most = [told[key] for key in ("maximum", "exclusiveMaximum") if is_number(told.get(key))]
    found: dict[Operator, Any] = {}
    if least:
        found["at_least"] = max(least)
    if most:
        found["at_most"] = min(most)
    return found


def kind(value: Any) -> str:
    """Of which kind a JSON value is."""
    if value is None or isinstance(value, bool):
        return KINDS["null" if value is None else "boolean"]
    return next(KINDS[name] for name, types in (("string", str), ("number", (int, float)), ("array", list), ("object", object))
                if isinstance(value, types))


def _of_manifest(manifest: Any) -> Words:
    fields = {path: field.get("registry", _LISTED.get(field["kind"])) for path, field in manifest["csp"]["fields"].items()}
    return {path: frozenset(texts_in(manifest["registries"][registry])) for path, registry in fields.items() if registry}


def _of_schema(schema: Any, path: str) -> Iterator[tuple[str, frozenset[str]]]:
    """The enumerations that hold whatever else a document says: those that stand under ``properties`` alone."""
    if not isinstance(schema, Mapping):
        return
    items = schema.get("items")
    for each in (schema, items if isinstance(items, Mapping) else {}):
        allowed = each.get("enum", [each["const"]] if "const" in each else None)
        if path and isinstance(allowed, list):
            yield path, frozenset(value for value in allowed if isinstance(value, str))
    for name, each in (schema.get("properties") or {}).items():
        yield from _of_schema(each, f"{path}.{name}" if path else name)


def texts_in(value: Any) -> Iterator[str]:
    """Every text of a value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, Mapping)):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from texts_in(each)


def _json(file: Path) -> Any:
    return read_json(file) if file.is_file() else {}


def read_json(file: Path) -> Any:
    """A JSON file of ours; the same bytes are taken apart once, and nobody changes what comes of it. Raises SpecError."""
    try:
        return _value_of(texts.read(file, limits.SPEC_FILE_BYTES_MAX), str(file))
    except TextError as why:
        raise SpecError(str(why)) from why
    except OSError as why:
        raise SpecError(f"{file}: cannot be read: {why.strerror}") from why


@lru_cache(maxsize=32)
def _value_of(data: bytes, file: str) -> Any:
    return texts.load_json(data, file)
