"""The F1 certificate: does a fresh PASS exist for exactly this build, configuration and contract?

Looked at anew each tick; there is no last-known-good and no grace (AT-021, AT-423). The contract leaves the
precedence open when several things are wrong; ours says what an operator must do first:

    MISSING   absent, unreadable, or not a certificate at all        lay one out
    INVALID   issued for another build, configuration or contract    its other words are about something else
    FAIL      it says that this build did not pass                   no fresher copy would help
    STALE     older than the window, or from the future              issue it anew
    PASS      none of these

``expires_at`` is generation plus window for everything that can be parsed, and None exactly for MISSING. Ages are
taken on the monotonic-epoch clock, so that a stepped wall clock cannot expire a certificate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from system_under_test.trader.settings import Settings

FILE = "certificate.json"
"""Where the certificate lies among the node's files."""

BYTES_MAX = 65_536
FUTURE_TOLERANCE_MS = 60_000
"""How far ahead a time of issue may lie before it is no time of issue: hosts' clocks differ by seconds, not minutes."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the status says about the certificate. ``expires_at`` in epoch ms."""

    state: str
    expires_at: int | None


MISSING = Certificate("MISSING", None)


def evaluate(value: bytes | None, settings: Settings, now_ms: int) -> Certificate:
    """The state of the certificate's bytes at a moment (monotonic-epoch ms)."""
    return read(value, settings).at(now_ms)


@dataclass(frozen=True, slots=True)
class Paper:
    """What a certificate's bytes mean to this build: one thing between two moments, and another before and after."""

    fresh: Certificate
    old: Certificate
    from_ms: int = 0
    until_ms: int = 0

    def at(self, now_ms: int) -> Certificate:
        """The state at a moment (monotonic-epoch ms)."""
        return self.fresh if self.from_ms <= now_ms <= self.until_ms else self.old


def read(value: bytes | None, settings: Settings) -> Paper:
    """Understand a certificate's bytes once; how old it is shows at every moment."""
    raw = _parsed(value)
    if raw is None:
        return Paper(MISSING, MISSING)
    generated_ms: int = raw["generated_ts_ms"]
    expires_at = generated_ms + settings.f1_cert_freshness_window_s * 1_000
    bound = (raw["build_id"], raw["runtime_config_hash"], raw["contract_version"])
    if bound != (settings.build_id, settings.runtime_config_hash, settings.contract_version):
        return Paper(Certificate("INVALID", expires_at), Certificate("INVALID", expires_at))
    if raw["status"] == "FAIL":
        return Paper(Certificate("FAIL", expires_at), Certificate("FAIL", expires_at))
    return Paper(Certificate("PASS", expires_at), Certificate("STALE", expires_at),
                 generated_ms - FUTURE_TOLERANCE_MS, expires_at)


def issue(build_id: str, runtime_config_hash: str, contract_version: str, generated_ms: int, window_s: int) -> bytes:
    """The bytes of a PASS certificate that binds these three."""
    return orjson.dumps({
        "status": "PASS",
        "generated_ts_ms": generated_ms,
        "expires_at_ts_ms": generated_ms + window_s * 1_000,
        "build_id": build_id,
        "runtime_config_hash": runtime_config_hash,
        "contract_version": contract_version,
    }, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _parsed(value: bytes | None) -> Mapping[str, Any] | None:
    """The certificate's fields, or None when these bytes are no certificate."""
    if value is None or len(value) > BYTES_MAX:
        return None
    try:
        raw = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(raw, dict) or raw.get("status") not in ("PASS", "FAIL"):
        return None
    generated = raw.get("generated_ts_ms")
    if isinstance(generated, bool) or not isinstance(generated, int):
        return None
    if not all(isinstance(raw.get(name), str) for name in ("build_id", "runtime_config_hash", "contract_version")):
        return None
    return raw
