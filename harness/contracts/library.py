"""Reads ``specs/status`` once: the manifest is the single source of truth for every registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harness import limits, texts
from harness.errors import SpecError, TextError

REPOSITORY = Path(__file__).resolve().parents[2]
"""Where this toolkit's own specs/ and fixtures/ lie."""

MANIFEST = "specs/status/status_reason_registries_manifest.json"
SCHEMA_MIN = "specs/status/status_csp_min.schema.json"
SCHEMA_EXACT = "specs/status/status_csp_exact.schema.json"
FILES = "specs/status/files.yaml"
LOCK = "specs/status/lock.json"
FIXTURES = "fixtures/status"
GOLDENS = {"csp_status": FIXTURES, "ops_status": "fixtures/ops_status"}
"""Contract → where its golden documents lie, and with them tolerances.yaml."""


@dataclass(frozen=True, eq=False)
class Manifest:
    """The registries of one contract version, in canonical order, and the data derived views are made from.

    Compared by identity: it is read once, and what is derived from it is cached by it.
    """

    raw: Mapping[str, Any]

    @property
    def contract_version(self) -> str:
        return str(self.raw["contract_version"])

    @property
    def minimum_keys(self) -> tuple[str, ...]:
        """The 33 keys that every document holds (choice 1 of specs/CONFLICTS.md)."""
        return tuple(self.raw["csp"]["minimum_keys"])

    @property
    def known_keys(self) -> frozenset[str]:
        return frozenset(self.minimum_keys) | frozenset(self.raw["csp"]["optional_keys"])

    @property
    def banned_keys(self) -> Mapping[str, str]:
        """Names that no field may have, and the one that is meant."""
        return dict(self.raw["csp"].get("banned_keys", {}))     # a pack's manifest may be older than the list

    @property
    def keys_of_other_profiles(self) -> tuple[str, ...]:
        """Fields that belong to profiles beyond CSP."""
        return tuple(self.raw["csp"].get("keys_of_other_profiles", ()))

    def registry(self, name: str) -> tuple[str, ...]:
        """The codes of one flat registry, in order."""
        return tuple(self.raw["registries"][name])

    @property
    def tiers(self) -> Mapping[str, tuple[str, ...]]:
        """Mode → its reason codes in canonical order. Active has none."""
        found = self.raw["registries"]["ModeReasonCode"]
        return {"Active": (), **{mode: tuple(codes) for mode, codes in found.items()}}

    @property
    def latch_codes(self) -> tuple[str, ...]:
        return self.registry("OpenPermissionReasonCode")

    @property
    def policy_defaults(self) -> Mapping[str, Any]:
        """Thresholds and dwells, each under the name that a policy file gives it, in the unit of its name."""
        defaults: Mapping[str, Any] = self.raw["policy_defaults"]
        return defaults

    @property
    def codes(self) -> frozenset[str]:
        """Every code of every registry."""
        flat = [code for value in self.raw["registries"].values() if isinstance(value, list) for code in value]
        return frozenset(flat) | frozenset(code for codes in self.tiers.values() for code in codes)


def read_json(file: Path) -> Any:
    """A JSON file of ours. Raises SpecError: our own files are no accused, they must be right."""
    try:
        return texts.load_json(texts.read(file, limits.SPEC_FILE_BYTES_MAX), str(file))
    except TextError as why:
        raise SpecError(str(why)) from why
    except OSError as why:
        raise SpecError(f"{file}: cannot be read as JSON: {why.strerror}") from why


def read_manifest(file: Path) -> Manifest:
    """A manifest file, checked for the parts that every user of it relies on."""
    raw = read_json(file)
    missing = [key for key in ("contract_version", "registries", "csp", "policy_defaults", "owner", "display")
               if not isinstance(raw, dict) or key not in raw]
    if missing:
        raise SpecError(f"{file}: a status manifest needs {', '.join(missing)}")
    manifest = Manifest(raw)
    _agrees_with_itself(file, manifest)
    return manifest


@cache
def manifest_of(root: Path = REPOSITORY) -> Manifest:
    """The manifest under ``root`` (a repository, or a pack's ``rules`` folder), read once."""
    return read_manifest(root / MANIFEST)


def _agrees_with_itself(file: Path, manifest: Manifest) -> None:
    """Every name that one part uses is defined by another; a dangling one would silently disable a rule."""
    try:
        owner, fields = manifest.raw["owner"], manifest.raw["csp"]["fields"]
        subjects = {"Active", *manifest.tiers["Kill"], *manifest.tiers["ReduceOnly"], *manifest.latch_codes}
        subjects.discard("REDUCEONLY_OPEN_PERMISSION_LATCHED")
        ruled = {rule["subject"] for rule in owner["rules"]}
        decided = {rule["subject"] for rule in owner["rules"] if rule["cause"] is None and not rule["when"]}
        situations = {rule["situation"] for rule in owner["rules"]}
        problems = [
            *(f"owner.rules has no row for {name}" for name in sorted(subjects - decided)),
            *(f"owner.rules names {name}, which is no subject" for name in sorted(ruled - subjects)),
            *(f"situation {name} is used or defined alone" for name in sorted(situations ^ set(owner["situations"]))),
            *(f"csp.fields and the keys disagree on {name}" for name in sorted(set(fields) ^ manifest.known_keys)),
        ]
    except (KeyError, TypeError, AttributeError) as why:
        raise SpecError(f"{file}: a part has the wrong shape: {why!r}") from why
    if problems:
        raise SpecError(f"{file}: " + "; ".join(problems))
