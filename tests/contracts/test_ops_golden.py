"""Goldens of the ops status contract: what a running service may differ in, and what it may not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.contracts.golden import NEVER_OF, PLAIN, Tolerances, compare, matches, tolerances_of
from harness.contracts.library import REPOSITORY
from harness.errors import SpecError

FOLDER = REPOSITORY / "fixtures/ops_status"
GOLDENS = sorted(file.stem for file in FOLDER.glob("*.json"))
TOLERANCES = tolerances_of(REPOSITORY, "ops_status")


def golden(name: str) -> dict[str, Any]:
    return dict(json.loads((FOLDER / f"{name}.json").read_text()))


def meets(observed: dict[str, Any], name: str) -> bool:
    return matches(compare(observed, golden(name), TOLERANCES, {}, fixture=name, manifest=PLAIN))


@pytest.mark.parametrize("name", GOLDENS)
def test_each_golden_meets_itself_and_no_other(name: str) -> None:
    """No two states can be taken for one another."""
    assert [each for each in GOLDENS if meets(golden(name), each)] == [name]


def test_a_running_service_differs_where_it_may() -> None:
    """Names, addresses, builds, time stamps and ages are a run's own; further keys are extensions."""
    seen = golden("ok")
    seen |= {"service_name": "marketdata", "repo_id": "ours", "git_sha": None, "build_id": "reference-1", "mood": "calm"}
    seen["heartbeat"] |= {"age_seconds": 2.5, "ttl_seconds": 3}
    seen["marketdata"] |= {"stale_threshold_seconds": 4, "last_bar_utc": "2026-01-07T12:00:00Z"}
    seen["endpoints"] = {"healthz": "/healthz", "heartbeat": "/heartbeat", "metrics": None}
    assert meets(seen, "ok")


@pytest.mark.parametrize(("name", "block", "changes"), [
    ("ok", "status", {"state": "DEGRADED"}), ("ok", "status", {"reason_codes": ["KILL_SWITCH"]}),
    ("ok", "heartbeat", {"age_seconds": 60.5}), ("degraded_heartbeat_stale", "heartbeat", {"age_seconds": 59.0}),
    ("ok", "safety", {"safe_to_run_strategies": False}), ("ok", "marketdata", {"is_fresh": None}),
    ("ok", "marketdata", {"last_tick_utc": None}), ("halted_kill_switch", "inputs", {"kill_switch_by": ["trader"]}),
    ("floor_ok", "floor", {"state": "HALTED"}), ("offline_execution_disabled", "inputs", {"execution_replicas": 1})])
def test_what_a_golden_proves_must_be_equal(name: str, block: str, changes: dict[str, Any]) -> None:
    """State, reasons, safety, freshness and what they follow from; an age on the wrong side of its limit is another state."""
    seen = golden(name)
    seen[block] |= changes
    assert not meets(seen, name)


def test_a_floor_with_a_service_more_is_another() -> None:
    """Which services there are, and what each is, belongs to the floor's golden."""
    seen = golden("floor_ok")
    seen["services"] = [*seen["services"], seen["services"][0]]
    assert not meets(seen, "floor_ok")


@pytest.mark.parametrize("path", ["/status/state", "/status", "/safety/kill_switch", "/services/*/state", "/floor"])
def test_what_is_proved_can_never_be_tolerated(path: str) -> None:
    """Neither itself, nor something above it, nor below."""
    text = f"all:\n  {path}: {{kind: volatile, reason: because}}\n".encode()
    with pytest.raises(SpecError, match="never be tolerated"):
        Tolerances.parse(text, "t.yaml", NEVER_OF["ops_status"])
