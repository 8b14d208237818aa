"""Policy files: named values, or another file's with some of them overridden. Read strictly, since a threshold that nobody
reads is one that nobody keeps."""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness import limits, texts
from harness.errors import UsageError

EXTENDS_MAX = 4
"""So many files may extend one another."""

BESIDE_EXTENDS = ("extends", "overrides", "policy_version")
"""What a file that extends another may say: a value beside them would look like an override and be none."""


def load_policy(file: Path, extends_left: int = EXTENDS_MAX) -> dict[str, Any]:
    """A policy file's values; ``{extends: other.yaml, overrides: {...}}`` is resolved beside it. Raises UsageError."""
    try:
        data = texts.read(file, limits.SPEC_FILE_BYTES_MAX)
    except OSError as why:
        raise UsageError(f"{file}: cannot be read as a policy: {why.strerror or why}") from why
    values = deepcopy(_values_of(data, str(file)))      # the reader's own
    if not isinstance(values, dict):
        raise UsageError(f"{file}:1:1: expected a mapping of policy values")
    if "extends" not in values:
        return values
    entries = texts.compose(data, str(file), limits.SPEC_FILE_BYTES_MAX, empty="a policy").mapping("a policy")
    for name, (key, _) in entries.items():
        if name not in BESIDE_EXTENDS:
            raise key.wrong("what a policy that extends another holds: " + ", ".join(BESIDE_EXTENDS), BESIDE_EXTENDS)
    extends, overrides = values["extends"], values.get("overrides", {})
    if not isinstance(extends, str) or not isinstance(overrides, dict) or not extends_left:
        raise UsageError(f"{file}:1:1: extends cannot be resolved: expected another file, {EXTENDS_MAX} deep at most, and "
                         "overrides")
    base = load_policy(file.parent / extends, extends_left - 1)
    for name, (key, _) in (entries["overrides"][1].mapping("a mapping of values") if "overrides" in entries else {}).items():
        if name not in base:
            raise key.wrong(f"a value that {extends} has", base, found=f"the name {name!r}")
    return {**base, **overrides, **({"policy_version": values["policy_version"]} if "policy_version" in values else {})}


@lru_cache(maxsize=8)
def _values_of(data: bytes, file: str) -> Any:
    return texts.load(data, file)
