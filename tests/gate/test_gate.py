"""The gate: what opens an item, and everything that does not."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pack_kit import COMMIT, DRILL, REPOSITORY, MakeRun, fake_judge

from harness.drill.text import worlds_of
from harness.errors import SpecError, UsageError
from harness.gate import REAL_WORLDS, Evidence, Gate, _listed, at_hand, decide, render, weigh
from harness.pack import derive
from harness.pack.build import build, seal
from harness.pack.manifest import verify
from harness.pack.origin import AtHand, sha256_file
from harness.pack.phases import Item, drills_of, load_phase, lock, parse_phase
from harness.pack.seals import create_key, load_key, sign_off
from harness.pack.shelf import read_pack

ITEM = Item("P2-F-STALE-DATA", "AUTO", "fault-injection", "DEV", "text", {}, (DRILL,), 1, ("no_opening_while_blocked",),
            "engineer", "run it")
HAND = AtHand("system", "stack", {"specs/events.yaml": "e"}, {DRILL: "drill"}, {"drill": "policy"},
              {"trader": "the.trader:make"}, "recorder")
HEAD: dict[str, Any] = {
    "world": "local", "placebo": False, "machines": {"trader": "the.trader:make"}, "recorder": "recorder",
    "system": "system", "stack": {"name": "s", "sha256": "stack"},
    "drill": {"name": DRILL, "sha256": "drill"}, "policy": {"name": "drill", "sha256": "policy"},
    "rules": {"specs/events.yaml": "e"}, "proxy": {"kind": "toxiproxy", "version": "2.12.0", "sha256": "p"}}
VERSIONS = {"git": {"commit": COMMIT, "dirty": False}}
CHECK = {"id": "no_opening_while_blocked", "verdict": "PASS", "says": "", "at": None, "details": {"asked": 1}}
VERDICT = {"status": "completed", "verdict": "PASS", "placebo": False, "premises": [{**CHECK, "id": "landed:feed"}],
           "promises": [{**CHECK, "id": "latched"}],
           "laws": [CHECK], "golden": None}
PAGES = ("SUMMARY_1PAGE.md", "README.md", "report.html", "test_results.xml", "test_results.txt")
GOOD = Evidence(HEAD, VERSIONS, {"deployment_environment": "DEV"}, VERDICT)


def changed(value: Any, path: tuple[str, ...], new: Any) -> Any:
    """A copy of nested mappings with one field replaced."""
    return {**value, path[0]: changed(value[path[0]], path[1:], new) if path[1:] else new}


def test_good_evidence_opens() -> None:
    """PASS in a real world through Toxiproxy, of the build at hand."""
    decided = weigh(ITEM, {DRILL: GOOD}, HAND)
    assert (decided.state, decided.fulfilled, decided.rungs) == ("open", True, ("DEV",))


@pytest.mark.parametrize(("part", "path", "value", "says"), [
    ("head", ("world",), "sim", "ran in the world sim"),
    ("head", ("placebo",), True, "placebo"),
    ("head", ("machines",), {"trader": "mutants.ledger:forgets"}, "mutant"),
    ("head", ("machines",), {}, "mutant"),
    ("head", ("recorder",), "other", "stale: ran with another recorder"),
    ("verdict", ("premises",), [CHECK], "nothing was broken in it"),
    ("verdict", ("promises",), [{**CHECK, "id": "converge"}], "it promised nothing but to come back"),
    ("verdict", ("laws",), [{**CHECK, "details": {"asked": 0}}], "was never put to the test"),
    ("verdict", ("laws",), [{**CHECK, "details": {}}], "was never put to the test"),
    ("head", ("proxy", "kind"), "sim", "Toxiproxy"),
    ("head", ("proxy", "sha256"), "", "Toxiproxy"),
    ("head", ("system",), "other", "stale: ran with another system"),
    ("head", ("stack", "sha256"), "other", "stale: ran with another stack"),
    ("head", ("drill", "sha256"), "other", "stale: ran with another drill text than the one at hand: run it again"),
    ("head", ("policy", "sha256"), "other", "stale: ran with another policy"),
    ("head", ("policy", "name"), "home-made", "stale: ran with another policy"),
    ("head", ("rules",), {"specs/events.yaml": "other"}, "specs/events.yaml"),
    ("head", ("rules",), {}, "other rules"),
    ("versions", ("git", "dirty"), True, "dirty"),
    ("versions", ("git", "dirty"), None, "dirty"),
    ("versions", ("git", "commit"), None, "which commit"),
    ("verdict", ("verdict",), "FAIL", "FAIL"),
    ("verdict", ("verdict",), "INCONCLUSIVE", "INCONCLUSIVE"),
    ("verdict", ("status",), "interrupted", "interrupted"),
    ("verdict", ("placebo",), True, "placebo"),
    ("verdict", ("promises",), [], "no promise"),
    ("verdict", ("laws",), [{**CHECK, "verdict": "INCONCLUSIVE"}], "the law no_opening_while_blocked is INCONCLUSIVE"),
    ("verdict", ("laws",), [{**CHECK, "id": "other"}], "not judged"),
    ("stack", ("deployment_environment",), "LIVE", "recorded at None"),
])
def test_nothing_else_does(part: str, path: tuple[str, ...], value: Any, says: str) -> None:
    """Each thing that keeps evidence from counting, named in the reason."""
    evidence = replace(GOOD, **{part: changed(getattr(GOOD, part), path, value)})
    decided = weigh(ITEM, {DRILL: evidence}, HAND)
    assert decided.state == "closed"
    assert says in decided.reason


def test_absence_closes() -> None:
    """No evidence at all, and no drill that would give any."""
    assert "is not in the pack" in weigh(ITEM, {}, HAND).reason
    assert "nothing proves it yet" in weigh(replace(ITEM, drills=()), {DRILL: GOOD}, HAND).reason
    assert weigh(replace(ITEM, at_least=2), {DRILL: GOOD}, HAND).state == "closed"


def test_drills_of_two_commits_do_not_add_up() -> None:
    """An item that needs two drills needs them of one build."""
    item = replace(ITEM, drills=(DRILL, "other"), at_least=2)
    versions = {"git": {"commit": "f" * 40, "dirty": False}}
    other = replace(GOOD, head=changed(HEAD, ("drill", "name"), "other"), versions=versions)
    hand = replace(HAND, drills={DRILL: "drill", "other": "drill"})
    assert "mixed" in weigh(item, {DRILL: GOOD, "other": other}, hand).reason


def test_the_rung_must_be_reached() -> None:
    """DEV evidence opens no PAPER item."""
    assert "needs PAPER" in weigh(replace(ITEM, rung="PAPER"), {DRILL: GOOD}, HAND).reason


CONTAINED = replace(ITEM, recorded={"world": "docker", "policy": "reference"})
SHIPPED = replace(GOOD, head={**HEAD, "world": "docker", "policy": {"name": "reference", "sha256": "policy"}})
@pytest.mark.parametrize(("world", "present", "says"), [
    ("docker", {"svc": "sha256:a"}, None), ("docker", {"svc": "sha256:b"}, "another image of svc"),
    ("docker", {"svc": None}, "no engine"), ("docker", {"svc": "sha256:a", "new": "sha256:a"}, "another image of new"),
    ("local", {"svc": None}, None), ("docker", {}, None)])
def test_another_image_under_the_same_name_is_another_system(world: str, present: dict[str, str | None],
                                                             says: str | None) -> None:
    """What ran in containers is known by the ids of its images; what did not needs no engine."""
    evidence = replace(GOOD, head={**HEAD, "world": world},
                       versions={**VERSIONS, "world": {"images": {"svc": {"name": "svc:1", "id": "sha256:a"}}}})
    decided = weigh(ITEM, {DRILL: evidence}, replace(HAND, images=present))
    assert (decided.state == "open", says is None or says in decided.reason) == (says is None, True)


BOTH_POLICIES = replace(HAND, policies={"drill": "policy", "reference": "policy"})


def test_where_it_was_recorded_must_be_where_the_item_asks_for() -> None:
    """An item about containers opens by a PASS in containers under its policy, and by no other world or policy."""
    assert weigh(CONTAINED, {DRILL: SHIPPED}, BOTH_POLICIES).state == "open"
    local = replace(SHIPPED, head={**SHIPPED.head, "world": "local"})
    assert "in the world local; this item needs docker" in weigh(CONTAINED, {DRILL: local}, BOTH_POLICIES).reason
    drill = replace(SHIPPED, head={**SHIPPED.head, "policy": {"name": "drill", "sha256": "policy"}})
    assert "in the policy drill; this item needs reference" in weigh(CONTAINED, {DRILL: drill}, BOTH_POLICIES).reason
    for taken in ("world", "policy"):
        less = replace(SHIPPED, head={key: value for key, value in SHIPPED.head.items() if key != taken})
        assert weigh(CONTAINED, {DRILL: less}, BOTH_POLICIES).state == "closed"


def test_every_item_says_where_it_counts() -> None:
    """Nothing is filled in: ``any`` has to be written, and one half of a place is none."""
    for wrong in ({}, {"world": "docker"}, {"policy": "reference"}, "some", None):
        raw = yaml.safe_load((REPOSITORY / "specs/phases/phase_2.yaml").read_bytes())
        raw["items"][0]["proof"]["recorded"] = wrong
        with pytest.raises(SpecError):
            parse_phase(raw)
        del raw["items"][0]["proof"]["recorded"]
        with pytest.raises(SpecError):
            parse_phase(raw)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every field and every list member in nested values."""
    if isinstance(value, Mapping):
        return [found for key, each in value.items() for found in [(*path, key), *paths_of(each, (*path, key))]]
    if isinstance(value, list):
        return [found for n, each in enumerate(value) for found in [(*path, n), *paths_of(each, (*path, n))]]
    return []


def without(value: Any, path: tuple[Any, ...]) -> Any:
    """A copy with one field or list member taken away."""
    if isinstance(value, list):
        kept = [without(value[path[0]], path[1:])] if path[1:] else []
        return [*value[:path[0]], *kept, *value[path[0] + 1:]]
    if path[1:]:
        return {**value, path[0]: without(value[path[0]], path[1:])}
    return {key: each for key, each in value.items() if key != path[0]}


CHECKLIST = yaml.safe_load((REPOSITORY / "specs/phases/phase_2.yaml").read_bytes())

BREAKS: list[tuple[str, tuple[str, ...], Any]] = [
    ("head", ("world",), "sim"), ("head", ("placebo",), True), ("head", ("machines",), {"trader": "mutant"}),
    ("head", ("proxy", "kind"), "sim"), ("head", ("system",), "x"), ("head", ("rules", "specs/events.yaml"), "x"),
    ("head", ("policy", "sha256"), "x"), ("head", ("stack", "sha256"), "x"), ("head", ("drill", "sha256"), "x"),
    ("versions", ("git", "dirty"), True), ("versions", ("git", "commit"), ""), ("verdict", ("verdict",), "FAIL"),
    ("verdict", ("status",), "aborted"), ("verdict", ("laws",), [{**CHECK, "verdict": "FAIL"}]),
    ("verdict", ("laws",), [{**CHECK, "details": {"asked": 0}}]), ("head", ("recorder",), "x"),
    ("stack", ("deployment_environment",), "nowhere"),
]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(BREAKS), st.data())
def test_taking_away_a_field_never_opens_a_closed_item(broken: tuple[str, tuple[str, ...], Any], data: st.DataObject) -> None:
    """Whatever closes an item, no field of its evidence can be removed to open it."""
    part, path, value = broken
    parts = {name: getattr(GOOD, name) for name in ("head", "versions", "stack", "verdict")}
    parts[part] = changed(parts[part], path, value)
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(parts)))
        if fields := paths_of(parts[name]):
            parts[name] = without(parts[name], data.draw(st.sampled_from(fields)))
    assert weigh(ITEM, {DRILL: Evidence(**parts)}, HAND).state == "closed"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_field_taken_from_the_checklist_opens_nothing(data: st.DataObject, tmp_path: Path) -> None:
    """A checklist with anything left out is not the locked one, and mostly cannot be read at all."""
    folder = tmp_path / "specs/phases"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(REPOSITORY / "specs/phases/lock.json", folder / "lock.json")
    less = without(CHECKLIST, data.draw(st.sampled_from(paths_of(CHECKLIST))))
    (folder / "phase_2.yaml").write_bytes(orjson.dumps(less))  # JSON is YAML
    with pytest.raises(SpecError):
        load_phase(tmp_path, 2)


@pytest.mark.parametrize("key", ["id", "kind", "group", "rung", "text", "source", "proof", "closes"])
def test_every_field_of_an_item_is_required(key: str) -> None:
    """Nothing is filled in for what is missing, also when the lock was written anew."""
    raw = yaml.safe_load((REPOSITORY / "specs/phases/phase_2.yaml").read_bytes())
    del raw["items"][0][key]
    with pytest.raises(SpecError):
        parse_phase(raw)


def test_the_lock_holds_the_checklist(root: Path) -> None:
    """The committed lock is that of the committed file; an edit without a new lock closes the gate."""
    assert load_phase(REPOSITORY, 2).items
    file = root / "specs/phases/phase_2.yaml"
    file.write_text(file.read_text().replace("at_least: 8", "at_least: 1"))
    with pytest.raises(SpecError, match="lock.json"):
        load_phase(root, 2)
    lock(root)
    assert load_phase(root, 2).items


def test_drills_and_checklist_agree() -> None:
    """A drill says that it proves an item exactly when the item names it; items that ask for every drill need no mention."""
    items = {item.id: item for item in load_phase(REPOSITORY, 2).items}
    drills = {file.stem: yaml.safe_load(file.read_bytes()) for file in (REPOSITORY / "drills").glob("*/*.yaml")}
    for name, drill in drills.items():
        for id in drill["proves"]:
            assert name in items[id].drills, f"{name} proves {id}, whose checklist line does not name it"
    all_of_them = ["P2-F-EIGHT", "P2-F-TRANSITIONS", "P2-C-RECORDED"]
    named = {(name, item.id) for item in items.values() for name in item.drills if item.id not in all_of_them}
    assert {(name, id) for name, drill in drills.items() for id in drill["proves"]} == named


def test_every_drill_is_worth_something_and_every_item_is_asked_of_the_roadmap() -> None:
    """No drill of the phase is left out of the count, and each item says where in the roadmap it stands."""
    items = {item.id: item for item in load_phase(REPOSITORY, 2).items}
    worlds = {file.stem: worlds_of(file) for file in (REPOSITORY / "drills/phase2").glob("*.yaml")}
    drills, everywhere = set(worlds), {name for name, meant in worlds.items() if not meant or "local" in meant}
    assert set(items["P2-F-EIGHT"].drills) == set(items["P2-F-TRANSITIONS"].drills) == everywhere
    assert items["P2-F-TRANSITIONS"].at_least == len(everywhere)
    assert set(items["P2-C-RECORDED"].drills) == drills and items["P2-C-RECORDED"].at_least == len(drills)
    assert all(item.source["section"].startswith(("Phase 2, ", "Milestone checklist, Phase 2")) for item in items.values()
               if item.source["document"] == "roadmap")
    assert all(item.invariants for item in items.values() if item.drills)


def test_every_item_can_be_opened_in_the_world_that_decides_it() -> None:
    """No item waits for a drill that only the simulator can run, which no gate accepts; and what the main job decides on
    this machine waits for none that needs containers."""
    worlds = {file.stem: worlds_of(file) for file in drills_of(REPOSITORY, 2)}
    for item in load_phase(REPOSITORY, 2).items:
        decides = ("docker",) if item.group == "containers" else REAL_WORLDS if item.group == "paper" else ("local",)
        able = [name for name in item.drills if not worlds[name] or set(decides) & set(worlds[name])]
        assert len(able) >= item.at_least, f"{item.id} needs {item.at_least} of {item.drills}, of which {able} can count"


def test_the_laws_of_the_checklist_exist() -> None:
    """A law that nobody judges would keep its item closed for ever."""
    laws = {law["id"] for law in yaml.safe_load((REPOSITORY / "specs/invariants.yaml").read_bytes())["laws"]}
    assert {law for item in load_phase(REPOSITORY, 2).items for law in item.invariants} <= laws


def test_the_roadmap_faults_are_all_there() -> None:
    """The eight faults of the baseline (stale data and liquidity are one line there), the count, and transitions."""
    found = {item.id for item in load_phase(REPOSITORY, 2).items if item.group == "fault-injection"}
    assert found == {f"P2-F-{name}" for name in (
        "DISCONNECT", "RATE-LIMIT", "WS-GAP", "MIXED-FILL", "CRASH", "STALE-DATA", "LIQUIDITY", "CLOCK", "MAINTENANCE",
        "EIGHT", "TRANSITIONS")}


# ---- on packs ---------------------------------------------------------------------------------------------


@pytest.fixture
def lawful_judge(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """The fake judge, with every law of the checklist upheld."""
    laws = sorted({law for item in load_phase(root, 2).items for law in item.invariants})
    upheld = [{**CHECK, "id": law} for law in laws]
    monkeypatch.setattr(derive, "judge", lambda folder, rules, timeline: {**fake_judge(folder), "laws": upheld})


@pytest.fixture
def full(make_run: MakeRun, root: Path, tmp_path: Path, lawful_judge: None) -> Path:
    """A pack of all drills, all passed."""
    runs = [make_run(file.stem) for file in sorted((root / "drills/phase2").glob("*.yaml"))]
    return build(runs, 2, tmp_path / "evidence", root)


def test_a_drill_that_was_another_when_it_was_packed_opens_nothing(make_run: MakeRun, root: Path, tmp_path: Path,
                                                                   lawful_judge: None) -> None:
    """Not even where the text that ran lies there again now: the pack says that it is of no drill of its phase."""
    run, file = make_run(), root / "drills/phase2" / f"{DRILL}.yaml"
    text = file.read_text()
    for edited, says in ((f"{text}# edited\n", f"{DRILL}: ran with another drill text than lay under its name when the pack "
                                               "was made: run it again"), (text, f"PASS of {DRILL}")):
        file.write_text(edited)
        build([run], 2, tmp_path / "evidence", root)
        file.write_text(text)
        decided = next(each for each in decide(2, tmp_path / "evidence", root).items if each.item.id == "P2-F-STALE-DATA")
        assert says in decided.reason and (decided.state == "open") is (edited == text)


def states(decision: Gate) -> dict[str, str]:
    return {each.item.id: each.state for each in decision.items}


def test_fault_injection_opens_by_passes_alone(full: Path, root: Path) -> None:
    """The group that CI asks for is open, and the phase as a whole is not: people have not spoken."""
    decision = decide(2, full.parent, root, only="fault-injection")
    assert decision.open, [each for each in decision.items if each.state != "open"]
    assert set(states(decision).values()) == {"open"}
    whole = decide(2, full.parent, root)
    assert not whole.open
    assert states(whole)["P2-O-SIGNOFF"] == "MANUAL"
    contained = next(each for each in whole.items if each.item.id == "P2-C-RECORDED")
    assert contained.state == "closed" and "this item needs" in contained.reason


def test_the_json_is_what_machines_were_promised(full: Path, root: Path) -> None:
    """Phase, open, each item with what it rests on, and what nothing proves yet."""
    document = decide(2, full.parent, root).to_json()
    assert (document["phase"], document["open"]) == (2, False)
    assert {tuple(each) for each in document["items"]} == {
        ("id", "kind", "group", "state", "reason", "drills", "laws", "unproven")}
    item = next(each for each in document["items"] if each["id"] == "P2-F-STALE-DATA")
    assert item["drills"] == [{"drill": DRILL, "verdict": "PASS", "world": "local", "rung": "DEV", "counts": True,
                               "objection": None, "laws": dict.fromkeys(item["laws"], 1)}]
    assert set(item["laws"]) == {"no_opening_while_blocked", "latch_cleared_only_after_reconciliation"}
    told = {(each["what"], each["id"]) for each in document["unproven"]}
    assert {("part", "P2-A-ATOMIC-GROUP"), ("person", "P2-O-SIGNOFF")} <= told
    other_sets = {item.id for item in load_phase(root, 2).items if item.drills and not any(
        (root / "drills/phase2" / f"{drill}.yaml").is_file() for drill in item.drills)}
    assert {id for what, id in told if what == "item"} == {"P2-C-RECORDED", *other_sets}  # no container ran
    nothing = decide(2, full.parent / "elsewhere", root).to_json()
    assert ("item", "P2-F-STALE-DATA") in {(each["what"], each["id"]) for each in nothing["unproven"]}


def test_what_an_item_rests_on_is_said_and_decides_nothing() -> None:
    """A drill that does not count is named with its objection; laws are counted over those that do."""
    item = replace(ITEM, drills=(DRILL, "3_other"), unproven=("that pigs fly",))
    failed = replace(GOOD, head=changed(HEAD, ("drill", "name"), "3_other"), verdict={**VERDICT, "verdict": "FAIL"})
    decided = weigh(item, {DRILL: GOOD, "3_other": failed}, replace(HAND, drills={DRILL: "drill", "3_other": "drill"}))
    assert decided.state == "open"
    good, bad = decided.rests_on
    assert (good.objection, good.verdict, good.world, good.rung) == (None, "PASS", "local", "DEV")
    assert bad.objection == "FAIL" and decided.asked == {"no_opening_while_blocked": 1}
    gate = Gate(replace(load_phase(REPOSITORY, 2), items=(item,)), None, (decided,), "pack", "UNSIGNED")
    assert gate.unproven == ((item.id, "part", "that pigs fly"),)
    text = render(gate, io.StringIO())
    assert "drill 2: PASS in local, DEV · not counted: 3 · no_opening_while_blocked asked 1×" in text
    assert "What nothing proves yet" in text and "that pigs fly" in text
    of_ops = weigh(replace(item, drills=(DRILL, "15_at_the_bell")), {DRILL: replace(GOOD, set="ops")}, HAND)
    text = render(replace(gate, items=(of_ops,)), io.StringIO())  # two sets have a drill 2, and nobody has a 15 here
    assert "ops drill 2: PASS in local, DEV · not counted: 15_at_the_bell · " in text
    assert _listed(["1", "2", "3", "5", "6", "home_made", "8", "9", "10"]) == "1 to 3, 5, 6, home_made, 8 to 10"


def test_the_table_says_what_is_missing_and_who_can_close_it(full: Path, root: Path) -> None:
    """States, reasons, the rung, the permission."""
    text = render(decide(2, full.parent, root), io.StringIO())
    for word in ("Evidence of rung: DEV", "only the owner can open it", "would unlock: Paper trading",
                 "P2-A-SWEEPER", "What nothing proves yet", "asked 1×"):
        assert word in text
    without = render(decide(2, full.parent / "elsewhere", root), io.StringIO())
    assert "to open it (engineer): drillproof run" in " ".join(without.split())
    assert "\x1b" not in text


def test_one_flipped_byte_closes_everything(full: Path, root: Path) -> None:
    """A pack that is not intact opens nothing, and the reason names the file."""
    file = full / "incident_drills" / f"drill_{DRILL}" / "recording.jsonl.gz"
    data = file.read_bytes()
    file.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    decision = decide(2, full.parent, root, only="fault-injection")
    assert set(states(decision).values()) == {"closed"}
    assert f"drill_{DRILL}/recording.jsonl.gz" in decision.items[0].reason


def test_taking_any_file_away_closes_everything(full: Path, root: Path) -> None:
    """File by file (one of each kind)."""
    kinds: dict[str, Path] = {}
    for file in sorted(full.rglob("*")):
        if file.is_file():
            kinds.setdefault(f"{file.parent.parent.name}/{file.suffix}/{file.name}" if "rules" not in file.parts
                             else f"rules/{file.suffix}", file)
    for file in kinds.values():
        kept = file.read_bytes()
        file.unlink()
        assert not any(each.fulfilled for each in decide(2, full.parent, root, only="fault-injection").items), file
        file.write_bytes(kept)


def test_another_build_at_hand_makes_the_evidence_stale(full: Path, root: Path) -> None:
    """Changing the system, a drill, a rule or a policy after the runs closes what they proved."""
    for path, word in (("system_under_test/new.py", "another system"), ("harness/run.py", "another recorder"),
                       (f"drills/phase2/{DRILL}.yaml", "another drill"),
                       ("specs/events.yaml", "other rules"), ("system_under_test/policies/drill.yaml", "another")):
        file = root / path
        kept = file.read_bytes() if file.exists() else None
        file.write_bytes((kept or b"") + b"\n# changed\n")
        decision = decide(2, full.parent, root, only="fault-injection")
        reasons = {each.item.id: each.reason for each in decision.items}
        assert not decision.open
        assert "stale: " in reasons["P2-F-STALE-DATA"] and word in reasons["P2-F-STALE-DATA"], path
        file.write_bytes(kept) if kept is not None else file.unlink()
    assert decide(2, full.parent, root, only="fault-injection").open


def test_a_judge_that_no_commit_holds_opens_nothing(full: Path, root: Path) -> None:
    """The gate judges again by the code at hand, so that has to be a commit's; ignored files and evidence are no code."""
    assert decide(2, full.parent, root, only="fault-injection").open
    (root / "evidence/phase2").mkdir(parents=True)
    (root / "evidence/phase2/pack.json").write_text("{}")
    (root / ".git/info/exclude").write_text("*.ignored\n")
    (root / "local.ignored").write_text("")
    assert decide(2, full.parent, root, only="fault-injection").open
    subprocess.run(["git", "config", "status.showUntrackedFiles", "no"], cwd=root, check=True)
    (root / "harness/verdict").mkdir()
    (root / "harness/verdict/judge.py").write_text("# softened\n")
    decision = decide(2, full.parent, root, only="fault-injection")
    assert set(states(decision).values()) == {"closed"}
    assert "dirty: the checkout at hand has changes that no commit holds (harness/verdict/judge.py)" in decision.items[0].reason
    shutil.rmtree(root / ".git")
    decision = decide(2, full.parent, root, only="fault-injection")
    assert not decision.open and "git does not know the checkout at hand" in decision.items[0].reason


@pytest.mark.parametrize("same", [{}, {"commit": "f" * 40}, {"build": None}])
def test_an_older_success_does_not_outweigh_a_later_failure(make_run: MakeRun, root: Path, tmp_path: Path,
                                                           lawful_judge: None, same: dict[str, Any]) -> None:
    """Nobody may pick the run that suits; a placebo, another build or another world says nothing about this one. A commit that
    changed nothing of the build makes no other; it is asked where an older log knows no digests."""
    good = make_run()
    others: Sequence[dict[str, Any]] = ({"placebo": True}, {"world": "sim"}, {"build": {"system": "0" * 64}},
                                        {"build": None, "commit": "f" * 40})
    for number, told in enumerate(others):
        make_run(run_id=f"other-{number}", latched=False, logged_as=told)
    build([good], 2, tmp_path / "evidence", root)
    assert states(decide(2, tmp_path / "evidence", root))["P2-F-STALE-DATA"] == "open"
    make_run(run_id="later", latched=False, logged_as=same)
    made = build([good], 2, tmp_path / "evidence", root)
    page = (made / "SUMMARY_1PAGE.md").read_text()
    assert "0 of 1 drills passed, 1 proved nothing" in page and verify(made) == []
    assert f"- {DRILL}, superseded: a later attempt with the same build ended as FAIL (later)" in page
    assert read_pack(made).drills[DRILL].says == "superseded"
    assert 'name="superseded"' in (made / "test_results.xml").read_text()
    reasons = {each.item.id: each.reason for each in decide(2, tmp_path / "evidence", root).items}
    assert "a later attempt with the same build ended as FAIL (later)" in reasons["P2-F-STALE-DATA"]


def test_what_came_after_the_pack_counts_too(make_run: MakeRun, root: Path, tmp_path: Path, lawful_judge: None) -> None:
    """The run log beside the pack goes on where the slice in it ends; putting a former pack back does not turn time back."""
    evidence = tmp_path / "evidence"
    good = make_run()
    build([good], 2, evidence, root)
    make_run(run_id="again")
    make_run(run_id="other", latched=False, logged_as={"world": "sim"})
    shutil.copytree(evidence / "phase2", tmp_path / "far" / "phase2")
    assert states(decide(2, evidence, root))["P2-F-STALE-DATA"] == "open"
    make_run(run_id="later", latched=False)
    reasons = {each.item.id: each.reason for each in decide(2, evidence, root).items}
    assert "a later attempt with the same build ended as FAIL (later)" in reasons["P2-F-STALE-DATA"]
    assert states(decide(2, tmp_path / "far", root))["P2-F-STALE-DATA"] == "open"  # which nobody told of it


def test_a_placebo_that_passed_after_the_pack_counts_too(make_run: MakeRun, root: Path, tmp_path: Path,
                                                         lawful_judge: None) -> None:
    """What the drill is worth is known the moment that it passes without its force, packed or not."""
    good = make_run()
    build([good], 2, tmp_path / "evidence", root)
    make_run(run_id="hollow", logged_as={"placebo": True, "drill_sha256": sha256_file(good / "drill.yaml")})
    reasons = {each.item.id: each.reason for each in decide(2, tmp_path / "evidence", root).items}
    assert "passes without its force, too, and proves nothing (hollow)" in reasons["P2-F-STALE-DATA"]


@pytest.mark.parametrize("ended", [{}, {"promises": None}, {"verdict": "FAIL"}])
def test_a_drill_that_passes_without_its_force_proves_nothing(make_run: MakeRun, root: Path, tmp_path: Path,
                                                              lawful_judge: None, ended: dict[str, Any]) -> None:
    """The placebo of the very same drill file counts, in whatever world it ran, whatever a law said in it; of another file, of
    a sabotaged system, or one that FAILs, not. No page counts the drill among those that passed."""
    good = make_run()
    sha256 = sha256_file(good / "drill.yaml")
    make_run(run_id="blind", latched=False, logged_as={"placebo": True, "drill_sha256": sha256})
    make_run(run_id="older", logged_as={"placebo": True, "drill_sha256": "0" * 64})
    make_run(run_id="sabotaged", logged_as={"placebo": True, "machines": {"trader": "a:b"}})
    made = build([good], 2, tmp_path / "evidence", root)
    assert states(decide(2, tmp_path / "evidence", root))["P2-F-STALE-DATA"] == "open"
    assert "hollow" not in (made / "SUMMARY_1PAGE.md").read_text()
    make_run(run_id="hollow", logged_as={"placebo": True, "world": "sim", "drill_sha256": sha256}, ended_as=ended)
    made = build([good], 2, tmp_path / "evidence", root)
    assert verify(made) == []
    for page in PAGES:
        assert "hollow" in (made / page).read_text() and "1 of 1 drills passed" not in (made / page).read_text(), page
    assert "0 of 1 drills passed, 1 proved nothing" in (made / "SUMMARY_1PAGE.md").read_text()
    assert read_pack(made).drills[DRILL].says == "hollow"
    reasons = {each.item.id: each.reason for each in decide(2, tmp_path / "evidence", root).items}
    assert "passes without its force, too, and proves nothing (hollow)" in reasons["P2-F-STALE-DATA"]
    assert "2_market_data_stale, hollow: it passed without its force" in (made / "SUMMARY_1PAGE.md").read_text()


def test_a_dirty_checkout_is_named(make_run: MakeRun, root: Path, tmp_path: Path, lawful_judge: None) -> None:
    """What no commit holds cannot be signed for."""
    build([make_run(versions={"git": {"commit": COMMIT, "dirty": True}})], 2, tmp_path / "evidence", root)
    reasons = {each.item.id: each.reason for each in decide(2, tmp_path / "evidence", root).items}
    assert f"{DRILL}: dirty" in reasons["P2-F-STALE-DATA"]


def test_a_sim_pack_opens_nothing(make_run: MakeRun, root: Path, tmp_path: Path, lawful_judge: None) -> None:
    """A rehearsal is no evidence."""
    build([make_run(head={"world": "sim", "proxy": {"kind": "sim", "version": "1"}})], 2, tmp_path / "evidence", root)
    assert not any(each.fulfilled for each in decide(2, tmp_path / "evidence", root).items)


def test_no_pack_says_how_to_make_one(root: Path, tmp_path: Path) -> None:
    """The absence of evidence is a denial."""
    decision = decide(2, tmp_path, root, only="fault-injection")
    assert not decision.open
    assert "make drills" in decision.items[0].reason


def test_unknown_groups_and_phases_are_usage_errors(root: Path, tmp_path: Path) -> None:
    """With the nearest right name."""
    with pytest.raises(UsageError, match="nearest: fault-injection"):
        decide(2, tmp_path, root, only="fault-injections")
    with pytest.raises(UsageError):
        decide(9, tmp_path, root)


def test_a_persons_signature_counts_and_still_reads_manual(full: Path, root: Path, tmp_path: Path) -> None:
    """By a trusted key, on an attested pack, for the items that it names; by an unknown key for none."""
    ids = [create_key(tmp_path / name) for name in ("engineer", "owner")]
    seal(full, load_key(tmp_path / "engineer"), "2026-03-01T12:00:00Z")
    sign_off(full, load_key(tmp_path / "owner"), "An Owner", {"P2-O-SIGNOFF": "read, asked"}, "2026-03-02T12:00:00Z")
    trusted = dict(zip(ids, ("An Engineer", "An Owner"), strict=True))
    signed = {each.item.id: each for each in decide(2, full.parent, root, trusted=trusted).items}
    assert (signed["P2-O-SIGNOFF"].state, signed["P2-O-SIGNOFF"].fulfilled) == ("MANUAL", True)
    assert "An Owner" in signed["P2-O-SIGNOFF"].reason
    assert not signed["P2-O-FIVE-SECONDS"].fulfilled
    assert not any(each.fulfilled for each in decide(2, full.parent, root, only="owner").items)


def signed_off(pack: Path, keys: Path) -> dict[str, str]:
    """Attest a pack and sign its owner items off; returns the list of trusted keys."""
    ids = [create_key(keys / name) for name in ("engineer", "owner")]
    seal(pack, load_key(keys / "engineer"), "2026-03-01T12:00:00Z")
    items = [item.id for item in load_phase(pack / "rules", 2).items if item.group == "owner"]
    sign_off(pack, load_key(keys / "owner"), "An Owner", dict.fromkeys(items, "read, asked"), "2026-03-02T12:00:00Z")
    return dict(zip(ids, ("An Engineer", "An Owner"), strict=True))


def test_a_signature_is_not_a_proof(full: Path, root: Path, tmp_path: Path) -> None:
    """A group that people alone close is signed, when it is open."""
    decision = decide(2, full.parent, root, only="owner", trusted=signed_off(full, tmp_path))
    assert decision.open and "Everything on this list is signed." in render(decision, io.StringIO())


def test_a_signature_on_a_rehearsal_opens_nothing(make_run: MakeRun, root: Path, tmp_path: Path, lawful_judge: None) -> None:
    """One drill of the pack that ran in the simulator is enough: evidence from there never opens a gate."""
    simulated = {"world": "sim", "proxy": {"kind": "sim", "version": "1"}}
    made = build([make_run(), make_run("11_clock_drift", head=simulated)], 2, tmp_path / "evidence", root)
    decision = decide(2, made.parent, root, only="owner", trusted=signed_off(made, tmp_path))
    assert not any(each.fulfilled for each in decision.items)
    assert "An Owner signed it, which does not count: 11_clock_drift: ran in the world sim" in decision.items[0].reason


def test_a_signature_is_for_the_words_that_were_signed(full: Path, root: Path, tmp_path: Path) -> None:
    """An item that says something else now has to be signed again; the others stand."""
    trusted = signed_off(full, tmp_path)
    file = root / "specs/phases/phase_2.yaml"
    file.write_bytes(file.read_bytes().replace(b"by accident; the system", b"for long; the system"))
    lock(root)
    found = {each.item.id: each for each in decide(2, full.parent, root, only="owner", trusted=trusted).items}
    assert [id for id, each in found.items() if not each.fulfilled] == ["P2-O-SIGNOFF"]
    assert "the item says something else now than what was signed" in found["P2-O-SIGNOFF"].reason


def test_whoever_names_signers_opens_nothing_that_they_do_not_vouch_for(full: Path, root: Path, tmp_path: Path) -> None:
    """Neither an unsigned pack nor one that a stranger attested: the list says whose word counts."""
    id = create_key(tmp_path / "engineer")
    unsigned = decide(2, full.parent, root, only="fault-injection", trusted={id: "An Engineer"})
    assert not unsigned.open and "nobody on the list of trusted keys vouches for it" in unsigned.items[0].reason
    seal(full, load_key(tmp_path / "engineer"), "2026-03-01T12:00:00Z")
    stranger = decide(2, full.parent, root, only="fault-injection", trusted={"f" * 16: "Somebody Else"})
    assert set(states(stranger).values()) == {"closed"}
    assert f"sealed with {id} (a key that is on no list" in stranger.items[0].reason
    assert decide(2, full.parent, root, only="fault-injection", trusted={id: "An Engineer"}).open
    assert decide(2, full.parent, root, only="fault-injection").open


def test_verdict_json_is_never_read(full: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When judging now gives FAIL, the PASS beside the recording is worth nothing."""
    monkeypatch.setattr(derive, "judge", lambda folder, rules, timeline: {**fake_judge(folder), "verdict": "FAIL"})
    kept = orjson.loads((full / f"incident_drills/drill_{DRILL}/verdict.json").read_bytes())
    assert kept["verdict"] == "PASS"
    assert not decide(2, full.parent, root, only="fault-injection").open


def test_the_checkout_at_hand_is_read_whole(root: Path) -> None:
    """System, stack, rules, drills and both policies."""
    hand = at_hand(root, 2)
    assert set(hand.policies) == {"reference", "drill"}
    assert DRILL in hand.drills and "specs/events.yaml" in hand.rules
