"""``specs/state/surfaces.yaml`` and the schemas beside it, read once: which surfaces there are and by which numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema_rs

from harness import limits, texts
from harness.contracts.library import REPOSITORY, read_json
from harness.contracts.reading import shown
from harness.contracts.state_files.finding import Tolerance
from harness.drill.predicate import is_number
from harness.errors import SpecError, TextError

FOLDER = "specs/state"
SURFACES = f"{FOLDER}/surfaces.yaml"
MANIFEST = f"{FOLDER}/v7_manifest.json"


@dataclass(frozen=True, slots=True)
class Surface:
    """One surface as the contract has it."""

    name: str
    file: str
    manifest_key: str
    owners: tuple[str, ...]
    frequency: str
    optional: bool
    time: str
    expected: tuple[str, ...]
    stale_after_s: float
    bound_ms: int
    mirrors: str | None
    description: str
    schema: Any
    """the compiled validator"""


@dataclass(frozen=True, slots=True)
class Surfaces:
    """All of them, with the numbers that their rules need."""

    contract: str
    folder: str
    time_keys: tuple[str, ...]
    milliseconds_above: float
    defaults: Mapping[str, float]
    tolerance: Tolerance
    by_name: Mapping[str, Surface]

    def limits(self, policy: Mapping[str, Any] | None = None) -> dict[str, float]:
        """The numbers under a policy. Raises SpecError for one that is no number."""
        found = {}
        for key, default in self.defaults.items():
            value = (policy or {}).get(key, default)
            if not is_number(value):
                raise SpecError(f"the policy's {key} is {shown(value)}, not a number")
            found[key] = value
        return found

    def of_file(self, name: str) -> Surface | None:
        """The surface that lies in a file of that name."""
        return next((each for each in self.by_name.values() if each.file == name), None)


def read_surfaces(root: Path = REPOSITORY) -> Surfaces:
    """The surfaces under ``root``, a repository or a pack's ``rules`` folder; read again when the file has changed. Raises
    SpecError."""
    folder = Path(root) / FOLDER
    files = sorted([folder / "surfaces.yaml", *folder.glob("schemas/*.json")])
    try:
        stamp = tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    except OSError as why:
        raise SpecError(f"{why.filename}: cannot be read: {why.strerror}") from why
    return _read(folder, stamp)


@lru_cache(maxsize=4)
def _read(folder: Path, stamp: tuple[Any, ...]) -> Surfaces:
    file = folder / "surfaces.yaml"
    try:
        raw: Any = texts.load(texts.read(file, limits.SPEC_FILE_BYTES_MAX), str(file))
    except TextError as why:
        raise SpecError(str(why)) from why
    except OSError as why:
        raise SpecError(f"{file}: cannot be read: {why.strerror}") from why
    try:
        return Surfaces(raw["contract"], raw["folder"], tuple(raw["times"]["keys"]), float(raw["times"]["milliseconds_above"]),
                        {key: float(value) for key, value in raw["limits"].items()}, Tolerance(**raw["tolerance"]),
                        {name: _surface(folder, name, each) for name, each in raw["surfaces"].items()})
    except (KeyError, TypeError, ValueError, AttributeError) as why:
        raise SpecError(f"{file}: a part has the wrong shape: {why!r}") from why


def _surface(folder: Path, name: str, raw: Mapping[str, Any]) -> Surface:
    document = read_json(folder / raw["schema"])
    try:
        schema = jsonschema_rs.Draft202012Validator(document)
    except Exception as why:
        raise SpecError(f"{folder / raw['schema']}: no JSON Schema: {why}") from why
    return Surface(name, raw["file"], raw.get("manifest_key", name), tuple(raw["owners"]), raw["frequency"], raw["optional"],
                   raw["time"], tuple(raw["expected"]), float(raw["stale_after_s"]), int(raw["bound_ms"]), raw.get("mirrors"),
                   raw["description"], schema)
