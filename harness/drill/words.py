"""Which words a field may hold, as far as the contract of its surface says.

A word that no field can ever hold is a slip of the pen, and where a promise denies it (``is_not``, ``has_not``), one that can
never be broken: not by any sabotage, and not by a placebo.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness import limits, texts
from harness.errors import SpecError, TextError

Words = Mapping[str, frozenset[str]]
"""dotted path → every text that may stand there, or in the list there"""

_MANIFEST = "specs/status/status_reason_registries_manifest.json"
_LISTED = {"mode_reasons": "ModeReasonCode", "latch_codes": "OpenPermissionReasonCode"}
"""Kind of a field of the status contract → the registry of what its list may hold; other kinds name theirs."""


def words_of(root: Path, contract: str | None, schema: Path | None = None) -> Words:
    """What the contract's files under ``root`` say, or the ``schema`` of a contract of one's own. Raises SpecError."""
    name, _, part = (contract or "").partition(".")
    if schema is not None:
        return dict(_of_schema(_json(schema), ""))
    if name == "csp_status":
        return _of_manifest(_json(root / _MANIFEST))
    if name == "ops_status":
        return dict(_of_schema(_json(root / f"specs/ops_status/{f'ops_{part}' if part else name}.schema.json"), ""))
    if name == "state_files":
        return dict(_of_schema(_json(root / f"specs/state/schemas/{part}.schema.json"), ""))
    return {}


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
