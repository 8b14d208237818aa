"""The drift guard: the files of the status contract are exactly those that ``specs/status/files.yaml`` lists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import limits, texts
from harness.contracts.library import FILES, REPOSITORY
from harness.errors import SpecError, TextError

FOLDERS = ("specs/status", "fixtures/status")


def listing(root: Path = REPOSITORY) -> Mapping[str, Any]:
    """The list itself: folder → file name → kind, and ``fixtures``: name → title and source."""
    file = root / FILES
    try:
        found: Any = texts.load(texts.read(file, limits.SPEC_FILE_BYTES_MAX), str(file))
        if all(isinstance(found[name], dict) for name in (*FOLDERS, "fixtures")):
            return dict(found)
    except TextError as why:
        raise SpecError(str(why)) from why
    except (OSError, KeyError, TypeError) as why:
        raise SpecError(f"{file}: cannot be read: {why!r}") from why
    raise SpecError(f"{file}: expected mappings for {', '.join((*FOLDERS, 'fixtures'))}")


def drift(root: Path = REPOSITORY) -> list[str]:
    """One sentence for each missing or unlisted file, in order; empty when there is no drift."""
    listed = listing(root)
    found: list[str] = []
    for folder in FOLDERS:
        there = {each.name for each in (root / folder).iterdir()} if (root / folder).is_dir() else set()
        found += [f"{folder}/{name}: listed and missing" for name in sorted(set(listed[folder]) - there)]
        found += [f"{folder}/{name}: not listed in {FILES}" for name in sorted(there - set(listed[folder]))]
    goldens = {name.removesuffix(".json") for name in listed["fixtures/status"] if name.endswith(".json")}
    found += [f"fixture {name}: has no title, or no file" for name in sorted(goldens ^ set(listed["fixtures"]))]
    return found
