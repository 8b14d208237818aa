"""The JSON Schemas of ``GET /api/v1/status`` (Draft 2020-12), generated from the manifest.

The minimum schema is for what a running system answers: more keys are allowed. The exact schema is for golden
fixtures: not one key more. They hold the same rules otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.contracts.library import Manifest

Schema = dict[str, Any]


def schema(manifest: Manifest, exact: bool) -> Schema:
    """One of the two schemas."""
    name = "exact" if exact else "min"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:drillproof:status-csp-{name}:{manifest.contract_version}",
        "title": f"GET /api/v1/status, contract {manifest.contract_version}, CSP "
                 + ("exact" if exact else "minimum"),
        "description": "Generated from status_reason_registries_manifest.json by harness.contracts.generate. "
                       + ("For golden fixtures only: no further key is allowed." if exact else
                          "For running systems: further keys are allowed."),
        "type": "object",
        "required": list(manifest.minimum_keys),
        "properties": {key: _property(manifest, key) for key in (*manifest.minimum_keys,
                                                                 *manifest.raw["csp"]["optional_keys"])},
        "allOf": _conditions(manifest),
        "additionalProperties": not exact,
    }


def _property(manifest: Manifest, key: str) -> Schema:
    field = manifest.raw["csp"]["fields"][key]
    unit = f" ({field['unit']})" if "unit" in field else ""
    return {"description": field["means"] + unit, **_KINDS[field["kind"]](manifest, field)}


def _enum(manifest: Manifest, field: Schema) -> Schema:
    return {"type": "string", "enum": list(field.get("only", manifest.registry(field["registry"])))}


def _constant(manifest: Manifest, field: Schema) -> Schema:
    return {"const": manifest.raw[field["from"]]}


def _profiles(manifest: Manifest, field: Schema) -> Schema:
    return {"type": "array", "items": {"enum": list(manifest.registry(field["registry"]))}, "uniqueItems": True,
            "contains": {"const": "CSP"}}


def _codes(manifest: Manifest, field: Schema) -> Schema:
    return {"type": "array", "items": {"type": "string"}}


def _owner_view(manifest: Manifest, field: Schema) -> Schema:
    text = {"type": "string", "minLength": 1}
    condition = {"type": {"enum": ["AUTO", "MANUAL"]}, "condition": text, "current": text, "target": text}
    view = {"primary_owner_reason_code": text, "owner_message": text,
            "unblock": {"type": "array", "items": _closed(condition)}}
    return _closed(view)


def _closed(properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties, "additionalProperties": False}


_SIXTY_FOUR_BITS: Schema = {"maximum": 2**63 - 1}

_KINDS: dict[str, Callable[[Manifest, Schema], Schema]] = {
    "constant": _constant,
    "text": lambda manifest, field: {"type": "string", "minLength": 1},
    "flag": lambda manifest, field: {"type": "boolean"},
    "enum": _enum,
    "profile": _enum,
    "profiles": _profiles,
    "mode_reasons": _codes,
    "latch_codes": _codes,
    "count": lambda manifest, field: {"type": "integer", "minimum": 0, **_SIXTY_FOUR_BITS},
    "positive": lambda manifest, field: {"type": "integer", "minimum": 1, **_SIXTY_FOUR_BITS},
    "quantity": lambda manifest, field: {"type": "number", "minimum": 0},
    "ratio": lambda manifest, field: {"type": "number", "minimum": 0, "maximum": 1},
    "timestamp": lambda manifest, field: {"type": "integer", **_SIXTY_FOUR_BITS},
    "timestamp_or_null": lambda manifest, field: {"type": ["integer", "null"], **_SIXTY_FOUR_BITS},
    "owner_view": _owner_view,
}


def _conditions(manifest: Manifest) -> list[Schema]:
    """Mode and its reasons, latch and its codes, certificate and its expiry."""
    blocked = [mode for mode in manifest.registry("TradingMode") if mode != "Active"]
    tiers = [_when("trading_mode", mode, {"mode_reasons": _listed(codes)}) for mode, codes in manifest.tiers.items()]
    return [
        *tiers,
        _when("open_permission_blocked_latch", False, {
            "open_permission_reason_codes": {"maxItems": 0}, "open_permission_requires_reconcile": {"const": False}}),
        _when("open_permission_blocked_latch", True, {
            "open_permission_reason_codes": _listed(manifest.latch_codes),
            "open_permission_requires_reconcile": {"const": True}, "trading_mode": {"enum": blocked}}),
        _when("f1_cert_state", "MISSING", {"f1_cert_expires_at": {"type": "null"}}),
        *(_when("f1_cert_state", state, {"f1_cert_expires_at": {"type": "integer"}})
          for state in manifest.registry("F1CertState") if state != "MISSING"),
    ]


def _listed(codes: tuple[str, ...]) -> Schema:
    return {"minItems": 1, "items": {"enum": list(codes)}} if codes else {"maxItems": 0}


def _when(key: str, value: Any, then: Schema) -> Schema:
    """``required`` in the condition: without it an absent key would satisfy it and accuse the wrong field."""
    return {"if": {"properties": {key: {"const": value}}, "required": [key]}, "then": {"properties": then}}
