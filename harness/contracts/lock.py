"""The lock: what the contract said at each version. Whoever changes its meaning must change its version.

Digests are of canonical JSON, so reformatting a file is no change. Former versions stay in the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.contracts.drift import listing
from harness.contracts.library import FIXTURES, LOCK, MANIFEST, REPOSITORY, SCHEMA_EXACT, SCHEMA_MIN, read_json
from harness.errors import SpecError


def digests(root: Path = REPOSITORY) -> dict[str, str]:
    """Path → SHA-256 of the canonical content, for manifest, schemas and goldens."""
    fixtures = [f"{FIXTURES}/{name}.json" for name in sorted(listing(root)["fixtures"])]
    return {path: _digest(read_json(root / path)) for path in (MANIFEST, SCHEMA_MIN, SCHEMA_EXACT, *fixtures)}


def broken(root: Path = REPOSITORY) -> list[str]:
    """One sentence for each file that is not what its contract version says; empty when the lock holds."""
    version, locked = _version(root), _locked(root)
    if version not in locked:
        return [f"contract {version} is not locked: python -m harness.contracts.generate --lock"]
    now, then = digests(root), locked[version]
    return [f"{path}: changed without a new contract_version (locked as {version})"
            for path in sorted(now.keys() | then.keys()) if now.get(path) != then.get(path)]


def written(root: Path = REPOSITORY) -> str:
    """The lock file's text with the present version in it. Former versions are kept as they are."""
    locked = {**_locked(root), _version(root): digests(root)}
    return json.dumps({"lock_schema_version": 1, "versions": locked}, indent=2) + "\n"


def _version(root: Path) -> str:
    return str(read_json(root / MANIFEST)["contract_version"])


def _locked(root: Path) -> Mapping[str, Mapping[str, str]]:
    if not (root / LOCK).exists():
        return {}
    found = read_json(root / LOCK)
    if not isinstance(found, dict) or not isinstance(found.get("versions"), dict):
        raise SpecError(f"{root / LOCK}: expected versions")
    return dict(found["versions"])


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
