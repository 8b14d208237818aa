"""The words of the contract, read once at start from ``specs/status/status_reason_registries_manifest.json``.

The manifest is data that the harness reads too; the two packages share it and no code. Without it the trader
does not know which words it may say, so it refuses to start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

MANIFEST = Path("status") / "status_reason_registries_manifest.json"
"""Where the manifest lies in the folder of specs."""


class RegistriesError(ValueError):
    """The manifest is missing, damaged, or lacks a registry that the trader speaks."""


@dataclass(frozen=True, slots=True)
class Registries:
    """The registries by name, and the rules by which the owner's words are derived."""

    contract_version: str
    status_schema_version: int
    kill_reasons: tuple[str, ...]
    reduceonly_reasons: tuple[str, ...]
    latch_codes: tuple[str, ...]
    reject_codes: frozenset[str]
    risk_states: tuple[str, ...]
    certificate_states: tuple[str, ...]
    owner_codes: frozenset[str]
    minimum_keys: tuple[str, ...]
    policy_defaults: Mapping[str, Any]
    owner_rules: tuple[Mapping[str, Any], ...]
    owner_situations: Mapping[str, Mapping[str, Any]]
    owner_rules_of: Mapping[str, tuple[Mapping[str, Any], ...]]
    """the rules by their subject, in the manifest's order"""

    @staticmethod
    def load(specs: Path) -> Registries:
        """Read the manifest under the folder of specs. Raises RegistriesError."""
        file = specs / MANIFEST
        try:
            raw = orjson.loads(file.read_bytes())
            return _registries(raw)
        except OSError as why:
            raise RegistriesError(f"{file}: cannot be read: {why.strerror}") from why
        except orjson.JSONDecodeError as why:
            raise RegistriesError(f"{file}: is not JSON: {why}") from why
        except (KeyError, TypeError, AttributeError) as why:
            raise RegistriesError(f"{file}: lacks what the trader speaks: {type(why).__name__} {why}") from why


def _registries(raw: Mapping[str, Any]) -> Registries:
    named, owner = raw["registries"], raw["owner"]
    by_subject: dict[str, tuple[Mapping[str, Any], ...]] = {}
    for rule in owner["rules"]:
        by_subject[rule["subject"]] = (*by_subject.get(rule["subject"], ()), rule)
    return Registries(
        contract_version=raw["contract_version"],
        status_schema_version=raw["status_schema_version"],
        kill_reasons=tuple(named["ModeReasonCode"]["Kill"]),
        reduceonly_reasons=tuple(named["ModeReasonCode"]["ReduceOnly"]),
        latch_codes=tuple(named["OpenPermissionReasonCode"]),
        reject_codes=frozenset(named["RejectReasonCode"]),
        risk_states=tuple(named["RiskState"]),
        certificate_states=tuple(named["F1CertState"]),
        owner_codes=frozenset((*named["OwnerReasonCode"], *named["OwnerStateCode"])),
        minimum_keys=tuple(raw["csp"]["minimum_keys"]),
        policy_defaults=dict(raw["policy_defaults"]),
        owner_rules=tuple(owner["rules"]),
        owner_situations=dict(owner["situations"]),
        owner_rules_of=by_subject,
    )
