"""The policy refresher: is the policy we run still the one that is laid out?

The trader's policy is fixed at start. The refresher reads ``policy_result.json`` again and again; a read counts
when the file names the policy in force (version and digest). The policy's age is the time since the last read
that counted, so a file that vanishes, breaks or names another policy makes the policy stale by itself, and the
guard says so after ``max_policy_age_sec``.
"""

from __future__ import annotations

import orjson

from system_under_test.trader.settings import Settings

FILE = "policy_result.json"
BYTES_MAX = 65_536


class PolicyRefresher:
    """When the policy in force was last confirmed (monotonic-epoch ms), or None before the first time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.generated_ts_ms: int | None = None

    def read(self, value: bytes | None, now_ms: int) -> str | None:
        """Take one reading of the file. None when it confirmed the policy, else why it did not."""
        why = self._refusal(value)
        if why is None:
            self.generated_ts_ms = now_ms
        return why

    def _refusal(self, value: bytes | None) -> str | None:
        if value is None:
            return "the file cannot be read"
        if len(value) > BYTES_MAX:
            return f"the file has {len(value)} bytes; at most {BYTES_MAX} are read"
        try:
            raw = orjson.loads(value)
        except orjson.JSONDecodeError as why:
            return f"the file is not JSON: {why}"
        if not isinstance(raw, dict):
            return "the file holds no JSON object"
        if raw.get("policy_sha256") != self._settings.runtime_config_hash:
            return "the file names another policy than the one in force"
        if raw.get("policy_version") != self._settings.policy_version:
            return "the file names another policy version than the one in force"
        return None


def result(policy_version: int, policy_sha256: str, generated_ms: int) -> bytes:
    """The bytes of a policy result that confirms this policy."""
    return orjson.dumps({
        "policy_version": policy_version, "policy_sha256": policy_sha256, "generated_ts_ms": generated_ms,
    }, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
