"""The status document of ``GET /api/v1/status``: the 33 keys of the contract, and the owner's view.

Every field is a reading; none is a constant but versions and profiles (DESIGN 9.9, a test moves each). It is
built from the very snapshot that the guard decided on, so the document never says one thing and the guard another.
A number that was never measured is 0 with the time stamp 0: the contract's numbers cannot say "missing", but a
time stamp of 0 can, and the reasons hold ``REDUCEONLY_INPUT_MISSING_OR_STALE`` meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from types import MappingProxyType
from typing import Any

import orjson
from msgspec import Struct
from msgspec.structs import astuple

from system_under_test.trader.policy import Decision, Snapshot
from system_under_test.trader.report.owner import Owner
from system_under_test.trader.settings import PROFILES, Settings


class Readings(Struct, frozen=True, kw_only=True, gc=False):
    """What the document needs beside the settings. Times are monotonic-epoch ms."""

    snapshot: Snapshot
    decision: Decision
    wal_queue_depth: int
    wal_queue_enqueue_failures: int
    atomic_naked_events_24h: int
    http_p95_ms: float
    ws_event_lag_ms: int
    causes: frozenset[str] = frozenset()
    """live causes in the owner section's words (risk, cortex, environment)"""
    net_delta_btc: float | None = None
    time_drift_ms: int | None = None
    spread_bps: float | None = None
    depth_usd: float | None = None


def build(readings: Readings, settings: Settings, owner: Owner) -> dict[str, Any]:
    """The document, keys in the contract's order, the owner's view last."""
    seen, decision, moving = readings.snapshot, readings.decision, _moving(readings)
    latched = seen.latch_blocked is not False
    codes = [code for code in settings.registries.latch_codes if code in seen.latch_codes] if seen.latch_codes else []
    if latched and not codes:  # a latch that cannot be read is blocked, as it is after a restart: reconcile first
        codes = [settings.registries.latch_codes[0]]
    document: dict[str, Any] = {
        "status_schema_version": settings.registries.status_schema_version,
        "contract_version": settings.contract_version,
        "build_id": settings.build_id,
        "runtime_config_hash": settings.runtime_config_hash,
        "supported_profiles": list(PROFILES),
        "enforced_profile": settings.enforced_profile,
        "trading_mode": decision.mode,
        "risk_state": seen.risk_state if seen.risk_state in settings.registries.risk_states else "Degraded",
        "bunker_mode_active": seen.bunker_active is not False,
        "connectivity_degraded": seen.bunker_active is not False or bool(codes),
        "mode_reasons": list(decision.reasons),
        "open_permission_blocked_latch": latched,
        "open_permission_reason_codes": codes,
        "open_permission_requires_reconcile": latched,
        "policy_age_sec": moving["policy_age_sec"],
        "last_policy_update_ts": seen.policy_generated_ts_ms or 0,
        "f1_cert_state": seen.cert_state or "MISSING",
        "f1_cert_expires_at": seen.cert_expires_at if seen.cert_state not in (None, "MISSING") else None,
        "disk_used_pct": _ratio(seen.disk_used_pct),
        "disk_used_last_update_ts_ms": moving["disk_used_last_update_ts_ms"],
        "disk_used_pct_secondary": _ratio(seen.disk_used_pct_secondary),
        "disk_used_secondary_last_update_ts_ms": moving["disk_used_secondary_last_update_ts_ms"],
        "mm_util": _ratio(seen.mm_util),
        "mm_util_last_update_ts_ms": moving["mm_util_last_update_ts_ms"],
        "loop_tick_last_ts_ms": moving["loop_tick_last_ts_ms"],
        "wal_queue_depth": readings.wal_queue_depth,
        "wal_queue_capacity": settings.ledger_queue_capacity,
        "wal_queue_enqueue_failures": readings.wal_queue_enqueue_failures,
        "atomic_naked_events_24h": readings.atomic_naked_events_24h,
        "429_count_5m": seen.count_429_5m or 0,
        "10028_count_5m": seen.count_10028_5m or 0,
        "deribit_http_p95_ms": readings.http_p95_ms,
        "ws_event_lag_ms": moving["ws_event_lag_ms"],
    }
    document["owner_view"] = owner.view(document, readings.causes, Measured(readings))
    return document


def _moving(readings: Readings) -> dict[str, int]:
    """What time alone, or every turn of the loop, moves without anything having happened."""
    seen = readings.snapshot
    return {
        "policy_age_sec": max(0, (seen.now_ms - (seen.policy_generated_ts_ms or 0)) // 1_000),
        "disk_used_last_update_ts_ms": seen.disk_used_ts_ms or 0,
        "disk_used_secondary_last_update_ts_ms": seen.disk_used_secondary_ts_ms or 0,
        "mm_util_last_update_ts_ms": seen.mm_util_ts_ms or 0,
        "loop_tick_last_ts_ms": seen.loop_tick_ts_ms or 0,
        "ws_event_lag_ms": readings.ws_event_lag_ms,
    }


def encode(document: dict[str, Any]) -> bytes:
    """The document as it is served."""
    return orjson.dumps(document)


_MEASUREMENTS: Mapping[str, tuple[str, Callable[[float], str]]] = MappingProxyType({
    "net_exposure_delta": ("net_delta_btc", lambda delta: f"{delta + 0.0:+.2f}"),
    "time_drift_ms": ("time_drift_ms", lambda drift: f"{drift:+.0f}"),
    "spread_bps": ("spread_bps", lambda spread: format(round(max(0.0, spread), 2), "g")),
    "depth_usd": ("depth_usd", lambda depth: f"{max(0.0, depth):.0f}"),
})
"""Placeholder of the owner's templates to the reading behind it, and how it is said."""


_MOVED_BY_TIME = {"now_ms", "heartbeat_ts_ms", "loop_tick_ts_ms", "mm_util_ts_ms", "disk_used_ts_ms",
                  "disk_used_secondary_ts_ms"}
_MOVED_BY_MARKETS = {"snapshot", "ws_event_lag_ms", *(reading for reading, _ in _MEASUREMENTS.values())}
_still_seen, _still_read = (
    itemgetter(*(place for place, name in enumerate(of.__struct_fields__) if name not in moved))
    for of, moved in ((Snapshot, _MOVED_BY_TIME), (Readings, _MOVED_BY_MARKETS)))


class Report:
    """The document as it is served, question after question. What stands still, which is most of it for minutes, is put
    together again only when a reading behind it differs from the last time."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._owner = settings, Owner(settings)
        self._document: dict[str, Any] = {}
        self._still: tuple[object, ...] = ()
        self._quotes: tuple[str, ...] = ()
        """what the owner's view says of what moves"""
        self._quoted: list[object] = []

    def tell(self, readings: Readings) -> bytes:
        """The document of these readings: the same bytes as of ``build``."""
        moving = _moving(readings)
        still = (_still_seen(astuple(readings.snapshot)), _still_read(astuple(readings)))
        if still != self._still:
            self._document, self._still = build(readings, self._settings, self._owner), still
            self._quotes = tuple(name for name in self._owner.reads if name in moving or name in _MEASUREMENTS)
            self._quoted = self._said(readings)
            return encode(self._document)
        document = self._document
        document.update(moving)
        if self._quotes and self._quoted != (quoted := self._said(readings)):
            self._quoted = quoted
            document["owner_view"] = self._owner.view(document, readings.causes, Measured(readings))
        return encode(document)

    def _said(self, readings: Readings) -> list[object]:
        document = self._document
        return [getattr(readings, _MEASUREMENTS[name][0]) if name in _MEASUREMENTS else document[name] for name in self._quotes]


class Measured(Mapping[str, str]):
    """The owner's measurements as text, put into words when a template asks; ``unknown`` where nothing was measured."""

    __slots__ = ("_readings",)

    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    def __getitem__(self, name: str) -> str:
        reading, say = _MEASUREMENTS[name]
        value = getattr(self._readings, reading)
        return say(value) if value is not None and math.isfinite(value) else "unknown"

    def __contains__(self, name: object) -> bool:
        return name in _MEASUREMENTS

    def __iter__(self) -> Iterator[str]:
        return iter(_MEASUREMENTS)

    def __len__(self) -> int:
        return len(_MEASUREMENTS)


def _ratio(value: float | None) -> float:
    """A ratio as the contract can say it: between 0 and 1; 0 when it was never measured."""
    if value is not None and 0.0 <= value <= 1.0:
        return value
    if value is None or not math.isfinite(value):
        return 0.0
    return min(1.0, max(0.0, value))
