"""Nothing is trusted green until it has been seen red: every rule has a hand-made recording that breaks it, alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.recording import script
from harness.verdict.invariants import checks
from harness.verdict.judge import judge
from harness.verdict.rules import load_rules

ROOT = Path(__file__).parents[2]
RECORDINGS = ROOT / "fixtures" / "recordings"
LAWFUL = sorted((RECORDINGS / "lawful").glob("*.yaml"))
BROKEN = sorted((RECORDINGS / "broken").glob("*.yaml"))


def expected_of(expect: dict[str, Any], verdict: dict[str, Any]) -> dict[str, str]:
    """What each check must say: PASS, unless the script names it; promises are undecided under a false premise."""
    unfair = any(value != "PASS" for value in expect.get("premises", {}).values())
    found = {f"premises/{each['id']}": "PASS" for each in verdict["premises"]}
    found |= {f"promises/{each['id']}": "INCONCLUSIVE" if unfair else "PASS" for each in verdict["promises"]}
    found |= {f"laws/{each['id']}": "PASS" for each in verdict["laws"]}
    if verdict["golden"] is not None:
        found["golden"] = expect.get("golden", "INCONCLUSIVE" if unfair else "PASS")
    for part in ("premises", "promises", "laws"):
        found |= {f"{part}/{id}": value for id, value in expect.get(part, {}).items()}
    return found


def said_by(verdict: dict[str, Any]) -> dict[str, str]:
    said = {f"{part}/{each['id']}": each["verdict"] for part in ("premises", "promises", "laws") for each in verdict[part]}
    if verdict["golden"] is not None:
        said["golden"] = verdict["golden"]["verdict"]
    return said


@pytest.mark.parametrize("file", [*LAWFUL, *BROKEN], ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_each_recording_is_judged_for_its_own_reason_only(file: Path, tmp_path: Path) -> None:
    """A script says what breaks; everything it does not name must be PASS."""
    told = script.read(file)
    expect = told["expect"]
    verdict = judge(script.build(told, tmp_path / "run"), ROOT)
    said, wanted = said_by(verdict), expected_of(expect, verdict)
    stumbled = [each for part in ("premises", "promises", "laws") for each in verdict[part]
                if each["says"].startswith("the check itself failed")]
    assert not stumbled
    if expect.get("others") == "not FAIL":
        named = {f"{part}/{id}": value for part in ("premises", "promises", "laws")
                 for id, value in expect.get(part, {}).items()}
        assert {id: said[id] for id in named} == named
        assert "FAIL" not in [value for id, value in said.items() if id not in named]
    else:
        assert {id: value for id, value in said.items() if value != "PASS"} == \
            {id: value for id, value in wanted.items() if value != "PASS"}
    assert verdict["verdict"] == expect["verdict"]
    assert verdict["status"] == expect.get("status", "completed")


def broken_ids(part: str) -> dict[str, set[str]]:
    """id → verdicts that some broken recording expects of it."""
    found: dict[str, set[str]] = {}
    for file in BROKEN:
        for id, value in script.read(file)["expect"].get(part, {}).items():
            found.setdefault(id, set()).add(value)
    return found


def test_every_law_has_a_recording_that_breaks_it() -> None:
    """A law that no recording was ever seen to break is not trusted. Why a node ended by itself nobody knows."""
    red = {id for id, values in broken_ids("laws").items() if "FAIL" in values or id == "nodes_live_on"}
    assert {law.id for law in load_rules(ROOT).laws} | {"contract:status"} == red     # the last: what a stack brings along


def test_every_law_names_a_check_and_every_check_has_a_law() -> None:
    """No check without a law that uses it, no law without its check."""
    assert {law.how for law in load_rules(ROOT).laws} == set(checks())


def test_every_premise_has_a_recording_that_breaks_it() -> None:
    """Each kind of premise was seen false."""
    red = {id.partition(":")[0] for id, values in broken_ids("premises").items() if values - {"PASS"}}
    assert red == {"recording", "same_inputs", "substance", "clocks", "limits", "given", "traded", "sampling", "landed",
                   "pressed", "healed"}


@pytest.mark.parametrize("id", ["latched", "calm", "no_risk", "reconciled", "wished", "told", "converge"])
def test_every_form_was_seen_failing_and_undecided(id: str) -> None:
    """Each of the six forms and convergence has a recording that fails it and one that leaves it open."""
    assert broken_ids("promises")[id] == {"FAIL", "INCONCLUSIVE"}
