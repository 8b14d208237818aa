"""Policy files: named values, or another file's with some of them overridden. Read strictly, since a threshold that nobody
reads is one that nobody keeps."""

from __future__ import annotations

from collections.abc import Set
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness import limits, texts
from harness.errors import UsageError, nearest

EXTENDS_MAX = 4
"""So many files may extend one another."""

BESIDE_EXTENDS = ("extends", "overrides", "policy_version")
"""What a file that extends another may say: a value beside them would look like an override and be none."""


REFERENCE = Path(__file__).resolve().parent.parent / "system_under_test" / "policies" / "reference.yaml"
"""The policy that has every value by which contracts judge."""

SLIP = 0.85
"""How much a name looks like another that it was meant to be; what looks like none is a system's own."""


def policy_to_judge_by(file: Path, besides: Set[str] = frozenset()) -> dict[str, Any]:
    """A policy that somebody names to a contract, which has defaults: one that changes none of them for want of a right name
    would be the defaults in silence. ``besides``: names that the contract reads beside the reference's. Raises UsageError."""
    known = (load_policy(REFERENCE).keys() | besides) - {"policy_version"}
    values = load_policy(file, known=known)
    if known.isdisjoint(values):
        raise UsageError(f"{file}:1:1: found {', '.join(list(values)[:3]) or 'no value'}, expected some value that "
                         f"{REFERENCE.name} has")
    return values


def load_policy(file: Path, extends_left: int = EXTENDS_MAX, known: Set[str] = frozenset()) -> dict[str, Any]:
    """A policy file's values; ``{extends: other.yaml, overrides: {...}}`` is resolved beside it. Names that look like a
    ``known`` one that is not there are refused. Raises UsageError."""
    try:
        data = texts.read(file, limits.SPEC_FILE_BYTES_MAX)
    except OSError as why:
        raise UsageError(f"{file}: cannot be read as a policy: {why.strerror or why}") from why
    values = deepcopy(_values_of(data, str(file)))      # the reader's own
    if not isinstance(values, dict):
        raise UsageError(f"{file}:1:1: expected a mapping of policy values")
    if "extends" not in values and "overrides" not in values and not known:
        return values
    entries = texts.compose(data, str(file), limits.SPEC_FILE_BYTES_MAX, empty="a policy").mapping("a policy")
    if "extends" not in values:
        for name, (key, _) in entries.items():
            if name == "overrides":
                raise key.wrong("extends: FILE beside it", found="overrides of nothing")
            if name not in known and (meant := nearest(name, known - values.keys(), SLIP)) is not None:
                raise key.wrong(f"a value that {REFERENCE.name} has", (meant,), found=f"the name {name!r}")
        return values
    for name, (key, _) in entries.items():
        if name not in BESIDE_EXTENDS:
            raise key.wrong("what a policy that extends another holds: " + ", ".join(BESIDE_EXTENDS), BESIDE_EXTENDS)
    extends, overrides = values["extends"], values.get("overrides", {})
    if not isinstance(extends, str) or not isinstance(overrides, dict) or not extends_left:
        raise UsageError(f"{file}:1:1: extends cannot be resolved: expected another file, {EXTENDS_MAX} deep at most, and "
                         "overrides")
    base = load_policy(file.parent / extends, extends_left - 1, known)
    for name, (key, _) in (entries["overrides"][1].mapping("a mapping of values") if "overrides" in entries else {}).items():
        if name not in base:
            raise key.wrong(f"a value that {extends} has", base, found=f"the name {name!r}")
    return {**base, **overrides, **({"policy_version": values["policy_version"]} if "policy_version" in values else {})}


@lru_cache(maxsize=8)
def _values_of(data: bytes, file: str) -> Any:
    return texts.load(data, file)
