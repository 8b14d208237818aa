"""What the tests of this room share: settings of a policy, and a snapshot in which nothing is wrong."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
import yaml
from msgspec import structs

from system_under_test.trader.policy import Snapshot
from system_under_test.trader.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
POLICIES = REPOSITORY / "system_under_test" / "policies"
NOW = 1_700_000_000_000
"""A monotonic-epoch moment."""


@lru_cache
def policy_values(name: str = "reference") -> dict[str, Any]:
    """A policy file's values, resolved."""
    values = yaml.safe_load((POLICIES / f"{name}.yaml").read_text())
    if "extends" not in values:
        return values
    return {**yaml.safe_load((POLICIES / values["extends"]).read_text()), **values["overrides"]}


def environment(name: str = "reference", **changes: Any) -> dict[str, str]:
    """The environment of a trader under a policy; changes of None remove a key."""
    values = {**policy_values(name), **changes}
    values = {key: value for key, value in values.items() if value is not None}
    return {"POLICY": orjson.dumps(values).decode(), "BUILD_ID": "build-1", "DEPLOYMENT_ENVIRONMENT": "DEV"}


def settings_of(name: str = "reference", **changes: Any) -> Settings:
    """Settings under a policy with some values changed."""
    return Settings.load(environment(name, **changes))


@lru_cache
def reference() -> Settings:
    """Settings of the reference policy."""
    return settings_of()


def well(**changes: Any) -> Snapshot:
    """A snapshot that decides Active, with some inputs changed."""
    snapshot = Snapshot(
        now_ms=NOW, risk_state="Healthy", heartbeat_ts_ms=NOW, loop_tick_ts_ms=NOW, mm_util=0.1, mm_util_ts_ms=NOW,
        session_kill_active=False, count_10028_5m=0, count_429_5m=0, disk_used_pct=0.4, disk_used_ts_ms=NOW,
        disk_used_pct_secondary=0.4, disk_used_secondary_ts_ms=NOW, cortex_override="None", emergency_active=False,
        latch_blocked=False, latch_codes=(), bunker_active=False, cert_state="PASS",
        cert_expires_at=NOW + 86_400_000, evidence_chain_state=None, fee_cache_ts_ms=NOW, policy_generated_ts_ms=NOW,
    )
    return structs.replace(snapshot, **changes)
