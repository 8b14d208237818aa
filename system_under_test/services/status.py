"""A service's state and its document: the source's truth table, top to bottom, in the source's order of priority.

Source: "Ops Status Contract (AgentTrader v2)" (specs/ops_status/README.md). What is not known never counts as good: market
data that was never seen makes nothing safe to run, a calendar that cannot be asked is a required field that is missing.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import orjson
from msgspec import Struct

SUMMARY = {"OK": "Healthy", "DEGRADED": "Degraded", "HALTED": "Halted", "MARKET_CLOSED": "Market closed", "OFFLINE": "Offline",
           "UNKNOWN": "Unknown"}
KINDS = ("marketdata", "strategy", "execution", "ingest", "ops")
WATCHERS = ("marketdata", "strategy", "execution")
"""Kinds that live on market data."""

SKEW_MS_MAX = 1_000
"""A tick from further in the future is not fresh."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MS = 253_402_300_799_999
"""The last millisecond that a time stamp can name; a clock beyond it, or before 1970, is written as the nearest it can."""


class Identity(Struct, frozen=True, kw_only=True):
    """Who a service is: the part of its document that never changes in a life."""

    service_name: str
    service_kind: str
    repo_id: str
    git_sha: str | None
    build_id: str | None
    agent_name: str
    agent_role: str
    agent_mode: str

    @property
    def whole(self) -> bool:
        """Whether every field that the contract requires is there."""
        return bool(self.service_name and self.service_kind in KINDS and self.repo_id and self.agent_name)


class Facts(Struct, frozen=True, kw_only=True):
    """What a service knows of itself at one moment. Ages by its monotonic clock."""

    wall_ms: int
    beat_age_ms: int
    beat_ttl_s: int
    calendar: str
    market_is_open: bool | None
    kill_switch_by: tuple[str, ...]
    tick_age_ms: int | None
    """signed: a tick from the future is negative; None when none was ever seen"""
    stale_threshold_s: int
    execution_enabled: bool | None = None
    execution_replicas: int | None = None

    @property
    def is_fresh(self) -> bool | None:
        """Whether the last tick is fresh, both ends included; None without a tick."""
        age_ms = self.tick_age_ms
        return None if age_ms is None else -SKEW_MS_MAX <= age_ms <= self.stale_threshold_s * 1_000


def trusted(who: Identity, facts: Facts) -> bool:
    """Whether nothing is missing that the contract requires."""
    return who.whole and facts.market_is_open is not None


def state_of(who: Identity, facts: Facts) -> tuple[str, str | None]:
    """State and reason; the first rule that holds decides. Whoever asks itself is up, so it never says PROCESS_DOWN."""
    kind, fresh = who.service_kind, facts.is_fresh
    if not trusted(who, facts):
        return "UNKNOWN", "REQUIRED_FIELDS_MISSING"
    if kind == "execution" and (facts.execution_enabled is False
                                or (facts.execution_replicas is not None and facts.execution_replicas <= 0)):
        return "OFFLINE", "EXECUTION_DISABLED"
    if facts.kill_switch_by:
        return "HALTED", "KILL_SWITCH"
    if facts.market_is_open and fresh is not True and kind in ("strategy", "execution"):
        return "HALTED", "MARKETDATA_STALE" if fresh is False else "MARKETDATA_MISSING"
    if facts.market_is_open and fresh is False:
        return "DEGRADED", "MARKETDATA_STALE"
    if facts.market_is_open and fresh is None and kind == "marketdata":
        return "DEGRADED", "MARKETDATA_MISSING"
    if facts.beat_age_ms > facts.beat_ttl_s * 1_000:
        return "DEGRADED", "HEARTBEAT_STALE"
    if not facts.market_is_open and kind != "ops":
        return "MARKET_CLOSED", "MARKET_CLOSED"
    return "OK", None


def gates(who: Identity, facts: Facts) -> tuple[list[str], bool]:
    """Everything that stands in the way, and whether strategies may run all the same."""
    found, fresh = [], facts.is_fresh
    if not trusted(who, facts):
        found.append("REQUIRED_FIELDS_MISSING")
    if facts.kill_switch_by:
        found.append("KILL_SWITCH")
    if facts.market_is_open and fresh is False:
        found.append("MARKETDATA_STALE")
    if facts.market_is_open and fresh is None and who.service_kind in WATCHERS:
        found.append("MARKETDATA_MISSING")
    safe = not found
    if who.service_kind == "execution":
        found.append("EXECUTION_ORDERS_DISABLED_CONTRACT")
    return found, safe


def document(who: Identity, facts: Facts) -> dict[str, Any]:
    """What ``GET /ops/status`` answers. Time stamps are made from ages, so a stepped clock contradicts nothing."""
    state, reason = state_of(who, facts)
    gating, safe = gates(who, facts)
    wall_ms, age_ms = facts.wall_ms, facts.tick_age_ms
    now = stamp(wall_ms)
    return {
        "service_name": who.service_name,
        "service_kind": who.service_kind,
        "repo_id": who.repo_id,
        "git_sha": who.git_sha,
        "build_id": who.build_id,
        "agent_identity": {"agent_name": who.agent_name, "agent_role": who.agent_role, "agent_mode": who.agent_mode},
        "status": {"state": state, "summary": SUMMARY[state], "reason_codes": [reason] if reason else [],
                   "last_updated_utc": now},
        "heartbeat": {"last_heartbeat_utc": stamp(wall_ms - facts.beat_age_ms),
                      "age_seconds": facts.beat_age_ms / 1_000, "ttl_seconds": facts.beat_ttl_s},
        "marketdata": _marketdata(facts) if who.service_kind in WATCHERS else None,
        "safety": {"kill_switch": bool(facts.kill_switch_by), "safe_to_run_strategies": safe, "safe_to_execute_orders": False,
                   "gating_reasons": gating},
        "endpoints": {"healthz": "/healthz", "heartbeat": None, "metrics": None},
        "inputs": {
            "extension": "drillproof ops 1",
            "as_of_utc": f"{now[:-1]}.{_within(wall_ms) % 1_000:03d}000Z",
            "calendar": facts.calendar,
            "market_is_open": facts.market_is_open,
            "tick_age_seconds": None if age_ms is None else age_ms / 1_000,
            "execution_enabled": facts.execution_enabled,
            "execution_replicas": facts.execution_replicas,
            "kill_switch_by": list(facts.kill_switch_by),
        },
    }


def _marketdata(facts: Facts) -> dict[str, Any]:
    age_ms = facts.tick_age_ms
    return {"last_tick_utc": None if age_ms is None else stamp(facts.wall_ms - age_ms), "last_bar_utc": None,
            "stale_threshold_seconds": facts.stale_threshold_s, "is_fresh": facts.is_fresh}


def encoded(raw: dict[str, Any]) -> bytes:
    """A document as it is sent."""
    return orjson.dumps(raw)


def stamp(wall_ms: int) -> str:
    """Unix time as text, cut to whole seconds: ``2026-01-07T12:00:00Z``."""
    return _second(_within(wall_ms) // 1_000)


@lru_cache(maxsize=64)  # a document names the same few seconds again and again
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _within(wall_ms: int) -> int:
    return min(max(wall_ms, 0), _LATEST_MS)
