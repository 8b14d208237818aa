"""The owner's view: derived from the document, and a view that says otherwise is found."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from harness.contracts.conditions import Clause, parse_condition
from harness.contracts.csp_status import Contract
from harness.contracts.drift import listing
from harness.contracts.library import REPOSITORY, Manifest, manifest_of
from harness.contracts.owner import OwnerRules, seconds, written
from harness.errors import SpecError
from harness.policies import load_policy
from system_under_test.trader.registries import Registries
from system_under_test.trader.report.owner import Owner

MANIFEST = manifest_of()
RULES = OwnerRules(MANIFEST, {})
CAUSES = {"partial_fill_containment": {"containment"}, "unknown_token_force_kill": {"unknown_token"}, "disk_read_only": {"wal"}}
Get = Callable[[str], dict[str, Any]]


@pytest.mark.parametrize("name", tuple(listing()["fixtures"]))
def test_goldens_are_derived_word_for_word(golden: Get, name: str) -> None:
    """Manifest, reference dwells and the document give the source examples' own texts."""
    document = golden(name)
    derived = RULES.derive(document, CAUSES.get(name, ()), {"net_exposure_delta": "+0.42"})
    assert derived == document["owner_view"]


@pytest.mark.parametrize("subject", sorted(RULES.rows))
def test_every_code_has_a_view_with_a_way_out(golden: Get, subject: str) -> None:
    """Every mode reason and latch code says what ends it, AUTO with something to measure or MANUAL."""
    for row in RULES.rows[subject]:
        assert row.situation.message and (row.situation.unblock or subject == "Active")
        for kind, condition, current, target in row.situation.unblock:
            assert kind in ("AUTO", "MANUAL") and current.parts and target.parts
            clauses = parse_condition(condition.fill({}, {}))
            assert kind == "MANUAL" or all(each.operator for each in clauses)


def test_every_reason_can_be_primary() -> None:
    """No mode reason and no latch code is without a row that needs no hidden cause."""
    codes = {*MANIFEST.tiers["Kill"], *MANIFEST.tiers["ReduceOnly"], *MANIFEST.latch_codes}
    codes.remove("REDUCEONLY_OPEN_PERMISSION_LATCHED")
    assert codes | {"Active"} == set(RULES.rows)
    assert all(rows[-1].cause is None for rows in RULES.rows.values())


def test_owner_codes_are_registered_or_the_contract_s_own() -> None:
    """No row shows a word that no registry has."""
    codes = {each.code for each in RULES.situations.values()}
    assert codes <= MANIFEST.codes


def test_display_strings_are_complete() -> None:
    """Every code that a dashboard may meet has a display string, and no string is for a code nobody has."""
    registries = MANIFEST.raw["registries"]
    shown = {code for name in ("TradingMode", "OpenPermissionReasonCode", "OwnerStateCode", "OwnerReasonCode")
             for code in registries[name]} | {code for codes in MANIFEST.tiers.values() for code in codes}
    assert shown == set(MANIFEST.raw["display"])
    assert set(MANIFEST.raw["reject_extensions"]) == set(MANIFEST.registry("RejectReasonCode")[25:])


WRONG = [
    ("market_data_stale", "primary_owner_reason_code", "EXT_WEBSOCKET_GAP"),
    ("market_data_stale", "owner_message", "All is well."),
    ("market_data_stale", "unblock", []),
    ("wal_backpressure", "primary_owner_reason_code", "EXT_RATE_LIMITED"),
    ("session_termination", "primary_owner_reason_code", "EXT_CONNECTIVITY_LOSS"),
    ("unknown_token_force_kill", "primary_owner_reason_code", "STATE_IDLE_HEALTHY"),
]


@pytest.mark.parametrize(("name", "key", "value"), WRONG)
def test_a_view_that_contradicts_its_document(contract: Contract, golden: Get, name: str, key: str, value: Any) -> None:
    """The contract recomputes the view and names the part that differs."""
    document = golden(name)
    document["owner_view"][key] = value
    assert [(each.tag, each.path) for each in contract.check_document(document)] == [("SEMANTIC", f"/owner_view/{key}")]


@pytest.mark.parametrize("key", ["type", "condition", "current", "target"])
def test_a_way_out_that_contradicts_its_document(contract: Contract, golden: Get, key: str) -> None:
    """Each of the four parts of a condition is compared; ``current`` with the document's own value."""
    document = golden("market_data_stale")
    document["owner_view"]["unblock"][0][key] = {"type": "MANUAL"}.get(key, "ws_event_lag_ms=3199")
    found = contract.check_document(document)
    assert [(each.tag, each.path) for each in found] == [("SEMANTIC", f"/owner_view/unblock/0/{key}")]


def test_a_golden_view_on_an_active_document(contract: Contract, golden: Get) -> None:
    """A view left over from another mode is a contradiction."""
    document = {**golden("active"), "owner_view": golden("wal_backpressure")["owner_view"]}
    assert [each.tag for each in contract.check_document(document)] == ["SEMANTIC"]


def test_hidden_causes_are_admissible_and_no_more(contract: Contract, golden: Get) -> None:
    """A degraded risk state may come of a clock or of a full ledger; with a full ledger in the document only of that."""
    document = golden("wal_backpressure")
    drained = {**document, "wal_queue_depth": 0}
    for cause in ("wal", "clock_drift", "order_invariant"):
        drained["owner_view"] = RULES.derive(drained, {cause})
        assert contract.check_document(drained) == []
    document["owner_view"] = RULES.derive(drained, {"clock_drift"})
    assert [each.path for each in contract.check_document(document)] == ["/owner_view/primary_owner_reason_code"]


def test_hidden_values_keep_their_form(contract: Contract, golden: Get) -> None:
    """A value that only the system knows is free in what it says, not in how."""
    document = golden("partial_fill_containment")
    way_out = document["owner_view"]["unblock"][0]
    for good in ("+0.00", "-12.50", "unknown"):
        way_out["current"] = f"net_exposure={good} (delta)"
        assert contract.check_document(document) == []
    for bad in ("0.42", "+0.4", "fine"):
        way_out["current"] = f"net_exposure={bad} (delta)"
        assert [each.path for each in contract.check_document(document)] == ["/owner_view/unblock/0/current"]


def test_dwells_are_those_of_the_policy_in_force(golden: Get) -> None:
    """A drill's policy shortens dwells, and the view says so."""
    document = golden("market_data_stale")
    short = Contract.load(policy={"stale_clear_dwell_ms": 1500})
    assert [each.path for each in short.check_document(document)] == ["/owner_view/unblock/0/condition"]
    document["owner_view"] = OwnerRules(MANIFEST, {"stale_clear_dwell_ms": 1500}).derive(document)
    assert ">= 1.5s" in document["owner_view"]["unblock"][0]["condition"] and short.check_document(document) == []


def test_the_first_latch_code_is_explained(golden: Get) -> None:
    """With the latch as first reason the owner reads why it is set."""
    document = golden("session_termination")
    document["open_permission_reason_codes"].insert(0, "WS_DATA_STALE_RECONCILE_REQUIRED")
    assert RULES.derive(document)["primary_owner_reason_code"] == "DATA_MARKET_FEED_STALE"


def test_a_lost_connection_is_not_an_ended_session(golden: Get) -> None:
    """The same latch code without 10028 needs no person."""
    document = golden("session_termination")
    document["mode_reasons"] = document["mode_reasons"][:1]
    assert RULES.derive(document)["primary_owner_reason_code"] == "EXT_CONNECTIVITY_LOSS"
    assert RULES.derive(document, {"session_terminated"})["unblock"][0]["type"] == "MANUAL"


def test_a_document_without_subject_has_no_view() -> None:
    """Nothing is invented for a document that is broken already."""
    with pytest.raises(SpecError):
        RULES.derive({"trading_mode": "ReduceOnly", "mode_reasons": []})


@pytest.mark.parametrize("damage", [
    lambda owner: owner["rules"][0].update(when=[{"field": "mm_util", "sounds_like": 1}]),
    lambda owner: owner["situations"]["wal"]["unblock"][0].update(target="{nobody_knows}"),
])
def test_a_rule_that_nobody_can_read_is_refused(damage: Callable[[dict[str, Any]], None]) -> None:
    """An unknown verb or placeholder is an error of ours, found at load."""
    raw = copy.deepcopy(dict(MANIFEST.raw))
    damage(raw["owner"])
    with pytest.raises(SpecError):
        OwnerRules(Manifest(raw), {})


def test_values_are_written_as_json_writes_them() -> None:
    """Whole seconds stay whole, texts stay bare."""
    assert [written(each) for each in (9, 0.9, True, None, "PASS", 10**5000)] == ["9", "0.9", "true", "null", "PASS", "?"]
    assert (seconds(60000), seconds(1500)) == (60, 1.5)


CONDITIONS = {
    "ws_event_lag_ms <= 500 for >= 60s AND reconciliation_success == true": (
        Clause("ws_event_lag_ms", "<=", 500, 60000), Clause("reconciliation_success", "==", True)),
    "net_exposure == 0 AND containment_state == CLEAN for >= 1.5s": (
        Clause("net_exposure", "==", 0), Clause("containment_state", "==", "CLEAN", 1500)),
    "failures stops increasing for >= 60s": (Clause("failures", "stops increasing", None, 60000),),
    "re-authenticate + reconciliation_success == true (artifact recorded)": (
        Clause("re-authenticate"), Clause("reconciliation_success", "==", True)),
    "mm_util < 0.85": (Clause("mm_util", "<", 0.85),),
    "  wait   a while ": (Clause("wait a while"),),
    "": (Clause(""),),
}


@pytest.mark.parametrize(("text", "clauses"), CONDITIONS.items())
def test_conditions_are_data(text: str, clauses: tuple[Clause, ...]) -> None:
    """Metric, operator, value and dwell; plain words stay words."""
    assert parse_condition(text) == clauses


def test_the_reference_policy_agrees_with_the_defaults() -> None:
    """Fixtures are written under the manifest's defaults, so the reference policy must not say otherwise."""
    policy = load_policy(REPOSITORY / "system_under_test/policies/reference.yaml")
    assert {key: policy[key] for key in MANIFEST.policy_defaults} == MANIFEST.policy_defaults


@pytest.mark.parametrize("subject", sorted(RULES.rows))
def test_the_trader_derives_the_same_view(golden: Get, subject: str) -> None:
    """Two programs, one set of data: for every row of every code, with and without its cause."""
    mode = "Active" if subject == "Active" else "Kill" if subject in MANIFEST.tiers["Kill"] else "ReduceOnly"
    latched = subject in MANIFEST.latch_codes
    document = {**golden("session_termination"), "trading_mode": mode, "mm_util": 0.00001, "disk_used_pct": 0.81,
                "429_count_5m": 2, "mode_reasons": ["REDUCEONLY_OPEN_PERMISSION_LATCHED"] if latched else [subject],
                "open_permission_reason_codes": [subject] if latched else []}
    policy = {"gap_clear_dwell_ms": 1500}
    settings: Any = SimpleNamespace(policy=policy, registries=Registries.load(REPOSITORY / "specs"))
    ours, theirs_of = OwnerRules(MANIFEST, policy), Owner(settings)
    hidden = dict.fromkeys(MANIFEST.raw["owner"]["placeholders"], "unknown")
    for causes in ({row.cause} - {None} for row in RULES.rows[subject]):
        theirs = theirs_of.view(document, causes, hidden)
        assert theirs == ours.derive(document, causes, hidden)
        assert ours.contradiction(theirs, document) is None
