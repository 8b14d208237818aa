"""Every rule of the status contract, green on all goldens and red on one bad case each."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from harness.contracts.csp_status import FINDINGS_MAX, Contract
from harness.contracts.drift import listing
from harness.contracts.library import REPOSITORY, manifest_of
from harness.errors import SpecError

Get = Callable[[str], dict[str, Any]]
GOLDENS = (*listing()["fixtures"], "active")
NOW = 1769440710300
"""loop_tick_last_ts_ms of the document that ``active`` is made of"""


@pytest.mark.parametrize("name", GOLDENS)
def test_goldens_are_lawful(contract: Contract, golden: Get, name: str) -> None:
    """Every golden, and a healthy Active document, passes the exact contract strictly."""
    data = json.dumps(golden(name)).encode()
    assert contract.check(data, strict=True) == []
    assert Contract.load(exact=True).check(data, strict=True) == []


LATCHED = {"open_permission_blocked_latch": True, "open_permission_requires_reconcile": True,
           "connectivity_degraded": True}
RED = [
    # name, base document, changes (None removes the key), tag, path
    ("omitted key", "active", {"mm_util": None}, "CSP-MIN", "/mm_util"),
    ("wrong type", "active", {"mm_util": "0.1"}, "SCHEMA", "/mm_util"),
    ("boolean for a count", "active", {"429_count_5m": True}, "SCHEMA", "/429_count_5m"),
    ("ratio above one", "active", {"disk_used_pct": 1.01}, "SCHEMA", "/disk_used_pct"),
    ("no capacity", "active", {"wal_queue_capacity": 0, "wal_queue_depth": 0}, "SCHEMA", "/wal_queue_capacity"),
    ("profile beyond CSP", "active", {"enforced_profile": "GOP"}, "SCHEMA", "/enforced_profile"),
    ("CSP not supported", "active", {"supported_profiles": ["GOP"]}, "SCHEMA", "/supported_profiles"),
    ("missing certificate with an end", "active", {"f1_cert_state": "MISSING"}, "SCHEMA", "/f1_cert_expires_at"),
    ("certificate without an end", "active", {"f1_cert_expires_at": "null"}, "SCHEMA", "/f1_cert_expires_at"),
    ("owner view with free text", "active", {"owner_view": {"note": "all is well"}}, "SCHEMA", "/owner_view"),
    ("owner view is a text", "active", {"owner_view": "fine"}, "SCHEMA", "/owner_view"),
    ("other contract", "active", {"contract_version": "5.3"}, "CONTRACT", "/contract_version"),
    ("Active with a reason", "active", {"mode_reasons": ["REDUCEONLY_POLICY_STALE"]}, "INVARIANT", "/mode_reasons"),
    ("ReduceOnly without one", "wal_backpressure", {"mode_reasons": []}, "INVARIANT", "/mode_reasons"),
    ("reasons are no list", "wal_backpressure", {"mode_reasons": "x"}, "INVARIANT", "/mode_reasons"),
    ("reason of another tier", "wal_backpressure",
     {"mode_reasons": ["REDUCEONLY_RISKSTATE_DEGRADED", "KILL_CORTEX_FORCE_KILL"]}, "TIER", "/mode_reasons/1"),
    ("unknown reason", "wal_backpressure", {"mode_reasons": ["REDUCEONLY_BORED"]}, "TIER", "/mode_reasons/0"),
    ("reasons out of order", "partial_fill_containment",
     {"mode_reasons": ["REDUCEONLY_RISKSTATE_DEGRADED", "REDUCEONLY_EMERGENCY_REDUCEONLY_ACTIVE"]}, "ORDER",
     "/mode_reasons/1"),
    ("unknown mode", "active", {"trading_mode": "KillHardStop"}, "ENUM", "/trading_mode"),
    ("unknown risk state", "active", {"risk_state": "Fine"}, "ENUM", "/risk_state"),
    ("unknown certificate state", "active", {"f1_cert_state": "OK"}, "ENUM", "/f1_cert_state"),
    ("unknown latch code", "market_data_stale", {"open_permission_reason_codes": ["WS_BORED_RECONCILE_REQUIRED"]},
     "ENUM", "/open_permission_reason_codes/0"),
    ("latched without a code", "market_data_stale", {"open_permission_reason_codes": []}, "LATCH",
     "/open_permission_reason_codes"),
    ("latched without reconciling", "market_data_stale", {"open_permission_requires_reconcile": False}, "LATCH",
     "/open_permission_requires_reconcile"),
    ("clear with a code", "active", {"open_permission_reason_codes": ["RESTART_RECONCILE_REQUIRED"]}, "LATCH",
     "/open_permission_reason_codes"),
    ("clear and reconciling", "active", {"open_permission_requires_reconcile": True}, "LATCH",
     "/open_permission_requires_reconcile"),
    ("latch is a number", "active", {"open_permission_blocked_latch": 1}, "LATCH", "/open_permission_blocked_latch"),
    ("latched while Active", "active", {**LATCHED, "open_permission_reason_codes": ["RESTART_RECONCILE_REQUIRED"]},
     "DECISION-A", "/trading_mode"),
    ("latched and unsaid", "wal_backpressure",
     {**LATCHED, "open_permission_reason_codes": ["RESTART_RECONCILE_REQUIRED"]}, "DECISION-A", "/mode_reasons"),
    ("queue above capacity", "active", {"wal_queue_depth": 1025}, "SEMANTIC", "/wal_queue_depth"),
    ("degraded without cause", "active", {"connectivity_degraded": True}, "SEMANTIC", "/connectivity_degraded"),
    ("cause without degraded", "market_data_stale", {"connectivity_degraded": False}, "SEMANTIC",
     "/connectivity_degraded"),
    ("a reason twice", "wal_backpressure", {"mode_reasons": ["REDUCEONLY_RISKSTATE_DEGRADED"] * 2}, "SEMANTIC",
     "/mode_reasons/1"),
    ("a latch code twice", "market_data_stale",
     {"open_permission_reason_codes": ["WS_DATA_STALE_RECONCILE_REQUIRED"] * 2}, "SEMANTIC",
     "/open_permission_reason_codes/1"),
    ("latch codes out of order", "market_data_stale", {"open_permission_reason_codes": [
        "WS_DATA_STALE_RECONCILE_REQUIRED", "WS_BOOK_GAP_RECONCILE_REQUIRED"]}, "SEMANTIC",
     "/open_permission_reason_codes/1"),
    ("negative time stamp", "active", {"last_policy_update_ts": -1}, "SEMANTIC", "/last_policy_update_ts"),
    ("Active and degraded", "active", {"risk_state": "Degraded"}, "SEMANTIC", "/trading_mode"),
    ("Active in maintenance", "active", {"risk_state": "Maintenance"}, "SEMANTIC", "/trading_mode"),
    ("Active and risk Kill", "active", {"risk_state": "Kill"}, "SEMANTIC", "/trading_mode"),
    ("Active in the bunker", "active", {"bunker_mode_active": True, "connectivity_degraded": True}, "SEMANTIC",
     "/trading_mode"),
    ("Active with margin high", "active", {"mm_util": 0.85}, "SEMANTIC", "/trading_mode"),
    ("Active without a certificate", "active", {"f1_cert_state": "FAIL"}, "SEMANTIC", "/trading_mode"),
    ("Active with an expired certificate", "active", {"f1_cert_expires_at": NOW - 1}, "SEMANTIC", "/trading_mode"),
    ("Active with an old policy", "active", {"policy_age_sec": 301}, "SEMANTIC", "/trading_mode"),
    ("Active with an old margin", "active", {"mm_util_last_update_ts_ms": NOW - 30001}, "SEMANTIC", "/trading_mode"),
    ("Active with an old disk reading", "active", {"disk_used_last_update_ts_ms": NOW - 30001}, "SEMANTIC",
     "/trading_mode"),
    ("Active with an old second reading", "active", {"disk_used_secondary_last_update_ts_ms": NOW - 30001}, "SEMANTIC",
     "/trading_mode"),
    ("Active with a full disk", "active", {"disk_used_pct": 0.92, "disk_used_pct_secondary": 0.92}, "SEMANTIC",
     "/trading_mode"),
    ("Active with one full disk", "active", {"disk_used_pct": 0.92}, "SEMANTIC", "/trading_mode"),
    ("ReduceOnly with critical margin", "wal_backpressure", {"mm_util": 0.95}, "SEMANTIC", "/trading_mode"),
    ("degraded and unlisted", "market_data_stale", {"risk_state": "Degraded"}, "SEMANTIC", "/mode_reasons"),
    ("listed and not degraded", "wal_backpressure", {"risk_state": "Healthy"}, "SEMANTIC", "/mode_reasons"),
    ("listed and not latched", "market_data_stale", {
        "open_permission_blocked_latch": False, "open_permission_requires_reconcile": False,
        "open_permission_reason_codes": [], "connectivity_degraded": False}, "SEMANTIC", "/mode_reasons"),
    ("unconfirmed and confirmed", "session_termination", {"10028_count_5m": 5}, "SEMANTIC", "/mode_reasons"),
    ("bunker listed and off", "wal_backpressure", {
        "mode_reasons": ["REDUCEONLY_BUNKER_MODE_ACTIVE", "REDUCEONLY_RISKSTATE_DEGRADED"]}, "SEMANTIC",
     "/mode_reasons"),
    ("certificate listed and PASS", "wal_backpressure", {
        "mode_reasons": ["REDUCEONLY_F1_CERT_INVALID", "REDUCEONLY_RISKSTATE_DEGRADED"]}, "SEMANTIC", "/mode_reasons"),
    ("margin kill on a low margin", "unknown_token_force_kill", {
        "mode_reasons": ["KILL_MARGIN_MM_UTIL_CRITICAL", "KILL_CORTEX_FORCE_KILL"]}, "SEMANTIC", "/mode_reasons"),
    ("session kill on few events", "unknown_token_force_kill", {
        "mode_reasons": ["KILL_RATE_LIMIT_SESSION_TERMINATION", "KILL_CORTEX_FORCE_KILL"]}, "SEMANTIC",
     "/mode_reasons"),
    ("disk kill by one measure", "unknown_token_force_kill", {
        "disk_used_pct": 0.95, "mode_reasons": ["KILL_DISK_WATERMARK_KILL", "KILL_CORTEX_FORCE_KILL"]}, "SEMANTIC",
     "/mode_reasons"),
    ("disk kill by a stale measure", "disk_watermark_kill", {"disk_used_secondary_last_update_ts_ms": 1769440000000},
     "SEMANTIC", "/mode_reasons"),
    ("disk over by a stale measure and unconfirmed unlisted", "wal_backpressure", {
        "mode_reasons": ["REDUCEONLY_RISKSTATE_DEGRADED", "REDUCEONLY_INPUT_MISSING_OR_STALE"], "disk_used_pct": 0.95,
        "disk_used_pct_secondary": 0.95, "disk_used_secondary_last_update_ts_ms": 1769430000000}, "SEMANTIC", "/mode_reasons"),
    ("evidence chain under CSP", "wal_backpressure", {
        "mode_reasons": ["REDUCEONLY_EVIDENCE_CHAIN_NOT_GREEN", "REDUCEONLY_RISKSTATE_DEGRADED"]}, "SEMANTIC", "/mode_reasons"),
    ("a banned name", "active", {"429_count": 0}, "CSP-MIN", "/429_count"),
    ("a field of another profile", "active", {"evidence_chain_state": "GREEN"}, "SEMANTIC", "/evidence_chain_state"),
    ("a count beyond 64 bits", "active", {"wal_queue_enqueue_failures": 1e300}, "SCHEMA", "/wal_queue_enqueue_failures"),
]


@pytest.mark.parametrize(("base", "changes", "tag", "path"), [pytest.param(*row[1:], id=row[0]) for row in RED])
def test_one_bad_case_each(contract: Contract, golden: Get, base: str, changes: dict[str, Any], tag: str,
                           path: str) -> None:
    """The rule's own tag is found at the place that is wrong."""
    document = {key: value for key, value in {**golden(base), **changes}.items() if value is not None}
    found = contract.check(json.dumps(document).encode())
    assert (tag, path) in {(each.tag, each.path) for each in found}, [str(each) for each in found]


def test_every_tag_has_a_red_case() -> None:
    """No tag of the contract is trusted unseen."""
    assert {row[3] for row in RED} | {"STRICT"} == {"SCHEMA", "CSP-MIN", "CONTRACT", "INVARIANT", "TIER", "ORDER", "ENUM",
                                                   "LATCH", "DECISION-A", "SEMANTIC", "STRICT"}


@pytest.mark.parametrize("key", manifest_of().minimum_keys)
def test_omission_of_any_minimum_key_is_found(contract: Contract, golden: Get, key: str) -> None:
    """Omission is a failure: exactly one CSP-MIN for exactly the key that is gone."""
    document = golden("session_termination")
    del document[key]
    assert [each.path for each in contract.check_document(document) if each.tag == "CSP-MIN"] == [f"/{key}"]


def test_missing_mode_accuses_nothing_else(contract: Contract, golden: Get) -> None:
    """A key that is not there satisfies no condition of the schema."""
    document = golden("market_data_stale")
    del document["trading_mode"]
    assert {each.tag for each in contract.check_document(document)} == {"SCHEMA", "CSP-MIN"}


def test_thresholds_are_exact(contract: Contract, golden: Get) -> None:
    """Staleness is strictly above, utilisation is at or above (contract 2.2.3)."""
    green = {**golden("active"), "policy_age_sec": 300, "mm_util": 0.8499, "disk_used_pct": 0.9199,
             "mm_util_last_update_ts_ms": NOW - 30000, "disk_used_last_update_ts_ms": NOW - 30000}
    assert contract.check_document(green) == []


def test_what_another_profile_adds_may_say_that_it_is_not_enforced(contract: Contract, golden: Get) -> None:
    """Left out, or marked (contract 7.0)."""
    assert contract.check_document({**golden("active"), "evidence_chain_state": "NOT_ENFORCED"}) == []


def test_kill_need_not_list_the_latch(contract: Contract, golden: Get) -> None:
    """Kill is its own reason (decision A)."""
    document = {**golden("unknown_token_force_kill"), **LATCHED,
                "open_permission_reason_codes": ["RESTART_RECONCILE_REQUIRED"]}
    assert contract.check_document(document) == []


def test_extension_keys_are_lawful_unless_strict(contract: Contract, golden: Get) -> None:
    """The minimum schema lets a system say more; strict and exact do not."""
    document = {**golden("active"), "x_more": 1}
    assert contract.check_document(document) == []
    assert [(each.tag, each.path) for each in contract.check_document(document, strict=True)] == [("STRICT", "/x_more")]
    assert "SCHEMA" in {each.tag for each in Contract.load(exact=True).check_document(document)}


def test_thresholds_come_from_the_policy(golden: Get) -> None:
    """Another policy, another judgement."""
    document = {**golden("active"), "mm_util": 0.6}
    assert Contract.load().check_document(document) == []
    found = Contract.load(policy={"mm_util_reduceonly": 0.5}).check_document(document)
    assert [each.tag for each in found] == ["SEMANTIC"]


def test_a_policy_that_is_no_number_is_refused() -> None:
    """A threshold that cannot be compared would silently switch its rule off."""
    with pytest.raises(SpecError, match="max_policy_age_sec"):
        Contract.load(policy={"max_policy_age_sec": "300"})


@pytest.mark.parametrize(("junk"), [{"trading_mode": "\ud800"}, {1: 2}, {"mm_util": object()}, {"mm_util": 10**5000},
                                    {"mode_reasons": [[], {}, None]}, {"a": float("nan")}, {}])
def test_documents_that_no_reader_makes_are_findings(contract: Contract, golden: Get, junk: dict[Any, Any]) -> None:
    """The fast path never raises, whatever it is handed, and every finding prints as one ASCII line."""
    for document in (junk, {**golden("session_termination"), **junk}):
        for each in contract.check_document(document, strict=True):
            assert str(each).isascii() and str(each).isprintable()


def test_findings_are_bounded(contract: Contract, golden: Get) -> None:
    """A hostile array makes no report that nobody can read."""
    for code in ("x", "REDUCEONLY_RISKSTATE_DEGRADED", ["x"]):
        found = contract.check_document({**golden("session_termination"), "mode_reasons": [code] * 20_000})
        assert len(found) <= FINDINGS_MAX + 1
    assert "more" in found[-1].message


def test_a_broken_manifest_is_refused(tmp_path: Any) -> None:
    """A dangling name in the manifest would disable a rule without a word."""
    from harness.contracts.library import MANIFEST, read_manifest
    raw = json.loads((REPOSITORY / MANIFEST).read_text())
    raw["owner"]["rules"] = [each for each in raw["owner"]["rules"] if each["subject"] != "REDUCEONLY_POLICY_STALE"]
    (tmp_path / "m.json").write_text(json.dumps(raw))
    with pytest.raises(SpecError, match="REDUCEONLY_POLICY_STALE"):
        read_manifest(tmp_path / "m.json")
