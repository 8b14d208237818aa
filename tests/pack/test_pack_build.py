"""What a pack holds, what is refused, and what becomes of the former one."""

from __future__ import annotations

import csv
import gc
import io
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import orjson
import pytest
from freezegun import freeze_time
from pack_kit import COMMIT, DRILL, MakeRun, fake_judge

from harness import limits
from harness.errors import PackError, UsageError
from harness.pack import build as build_room
from harness.pack import derive as derive_room
from harness.pack.build import build, left_out, newest_runs, of_another_text
from harness.pack.derive import derive
from harness.pack.listing import drill_order, encode, make_manifest
from harness.pack.manifest import verify
from harness.pack.origin import RUN_FILES, sha256_file
from harness.pack.phases import load_phase
from harness.pack.runlog import RunLog
from harness.pack.shelf import read_pack
from harness.recording.timeline import Timeline

SEVEN_FILES = ("trigger.md", "observed_status.json", "expected_status.json", "diff.txt", "validation.log",
               "time_to_safe_ms", "notes.md")


def test_a_pack_holds_what_the_design_lists(pack: Path) -> None:
    """Every file of DESIGN section 8 is there, for the pack and for each drill."""
    for name in ("README.md", "SUMMARY_1PAGE.md", "report.html", "test_results.xml", "test_results.txt", "manifest.json",
                 "run_log.jsonl", "rules/specs/phases/phase_2.yaml", "rules/stack.yaml", "rules/policy.json",
                 "metrics_exports/time_to_safe.csv", f"run_logs/drill_{DRILL}.log"):
        assert (pack / name).is_file(), name
    for name in (*SEVEN_FILES, "drill.yaml", "recording.jsonl.gz", "versions.json", "verdict.json", "timeline.svg",
                 "streams/books.jsonl"):
        assert (pack / "incident_drills" / f"drill_{DRILL}" / name).is_file(), name


def test_a_fresh_pack_verifies(pack: Path) -> None:
    """What build writes, verify accepts."""
    assert verify(pack) == []


def test_a_pack_that_was_moved_verifies(pack: Path, tmp_path: Path) -> None:
    """Nothing in a pack depends on where it lies."""
    moved = pack.rename(tmp_path / "elsewhere")
    assert verify(moved) == []


def test_deriving_twice_gives_the_same_bytes(pack: Path) -> None:
    """The pages are a pure function of the inputs."""
    assert derive(pack).files == derive(pack).files


def test_the_observed_document_is_the_one_the_promise_saw(pack: Path) -> None:
    """observed_status.json is the first latched document, and its difference from the golden is listed."""
    folder = pack / "incident_drills" / f"drill_{DRILL}"
    assert orjson.loads((folder / "observed_status.json").read_bytes())["trading_mode"] == "ReduceOnly"
    assert "fixture market_data_stale" in (folder / "diff.txt").read_text()
    assert (folder / "time_to_safe_ms").read_text() == "7202\n"


def test_a_drill_without_fixture_expects_its_promise(pack: Path) -> None:
    """Where no golden exists, the expected state is what the first promise asks for."""
    folder = pack / "incident_drills" / "drill_11_clock_drift"
    assert "trading_mode" in orjson.loads((folder / "expected_status.json").read_bytes())
    assert "no fixture" in (folder / "diff.txt").read_text()


def test_junit_counts_the_failure(pack: Path) -> None:
    """A CI server sees the failed drill as failed."""
    root = ElementTree.fromstring((pack / "test_results.xml").read_bytes())
    assert root.get("failures") == "1"
    assert root.find(f"testsuite[@name='{DRILL}']//error") is None


def test_junit_counts_a_drill_that_is_not_there(pack: Path, root: Path) -> None:
    """Whatever the phase has or asks for and is not here is an error; what is meant for another world is none."""
    found = ElementTree.fromstring((pack / "test_results.xml").read_bytes())
    lost = {suite.get("name") for suite in found if suite.find("testcase[@name='run']/error") is not None}
    about = orjson.loads((pack / "pack.json").read_bytes())
    asked = {drill for item in load_phase(root, 2).items for drill in item.drills} - {DRILL, "11_clock_drift"}
    assert lost == set(about["not_run"]) and asked - about["left_out"].keys() <= lost and about["left_out"]


def test_metrics_are_tables(pack: Path) -> None:
    """The exports are CSV with one row a drill."""
    rows = list(csv.DictReader(io.StringIO((pack / "metrics_exports/time_to_safe.csv").read_text())))
    assert [row["verdict"] for row in rows] == ["PASS", "FAIL"]
    assert rows[0]["time_to_safe_ms_upper"] == "7202"


def test_run_logs_carry_the_run_id(pack: Path) -> None:
    """Every representative line names its run."""
    lines = (pack / f"run_logs/drill_{DRILL}.log").read_text().splitlines()
    assert len(lines) == 2 + 3 + 1
    assert all(f"{DRILL}-local-1" in line for line in lines[2:])


def test_the_failed_drill_is_named_with_its_reason(pack: Path) -> None:
    """The owner reads which drill failed, and why."""
    text = (pack / "SUMMARY_1PAGE.md").read_text()
    assert "1 of 2 drills passed, 1 FAILED" in text
    assert "was never latched" in text
    assert text.startswith("UNSIGNED")


def test_the_summary_is_one_page_whatever_happened(make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """Twelve failures with endless reasons, tried often, still fit a page of ninety-five columns."""
    names = [file.stem for file in sorted((root / "drills/phase2").glob("*.yaml"))]
    log = RunLog(tmp_path / "evidence/runs.jsonl")
    for number in range(30):
        log.started(f"lost-{number}", {"drill": f"lost_{number % 20}", "world": "local", "placebo": False})
    runs = [make_run(name, latched=False, says="word " * 400) for name in names]
    made = build(runs, 2, tmp_path / "evidence", root)
    lines = (made / "SUMMARY_1PAGE.md").read_text().splitlines()
    assert len(lines) <= limits.SUMMARY_LINES_MAX
    assert max(map(len, lines)) <= limits.SUMMARY_COLUMNS_MAX
    assert "30 never ended" in "\n".join(lines)


def test_what_needs_another_world_is_said(pack: Path) -> None:
    """A pack of local runs names the drills that need the sim or containers, and no others; the page has the reason."""
    left = orjson.loads((pack / "pack.json").read_bytes())["left_out"]
    assert left and all("local" not in worlds for worlds in left.values())
    assert "20_out_of_memory_restart" in left and "19_paused_then_resumed" not in left
    assert f"NOT RUN in local: {', '.join(left)}: needs sim or docker" in \
        " ".join((pack / "SUMMARY_1PAGE.md").read_text().split())
    assert left_out(pack) == [f"NOT RUN in local: {drill}: needs sim or docker" for drill in left]


def test_what_nobody_ran_is_said(pack: Path, root: Path, make_run: MakeRun, tmp_path: Path) -> None:
    """Two passed of two is not all that the phase has: the headline counts the others, the report names each."""
    about = orjson.loads((pack / "pack.json").read_bytes())
    missing = about["not_run"]
    assert {"7_session_termination", "14_session_kill_confirmed"} <= set(missing)
    assert not set(missing) & {DRILL, "11_clock_drift", *about["left_out"]}
    page = (pack / "SUMMARY_1PAGE.md").read_text()
    assert f"1 of 2 drills passed, 1 FAILED, {len(missing)} not run" in page
    assert f"NOT RUN by anybody, though meant for local: {missing[0]}" in page
    assert f"NOT RUN by anybody, though meant for local: {', '.join(missing)}" in (pack / "report.html").read_text()
    everything = {file.stem for file in (root / "drills/phase2").glob("*.yaml")} - set(about["left_out"])
    whole = build([make_run(name, run_id=f"{name}-again") for name in sorted(everything)], 2, tmp_path / "evidence", root)
    assert not any((root / "drills/phase2" / f"{name}.yaml").exists()
                   for name in orjson.loads((whole / "pack.json").read_bytes())["not_run"])


@pytest.mark.parametrize(("latched", "came_of"), [(False, "FAIL"), (True, "PASS")])
def test_what_was_tried_and_is_not_in_the_pack_is_said(latched: bool, came_of: str, make_run: MakeRun, root: Path,
                                                       tmp_path: Path) -> None:
    """A drill that FAILED and was left out of the pack is none that nobody ran, and failed; one that passed is neither. Its
    last attempt in that world counts. JUnit has an error for each that is not here."""
    make_run("11_clock_drift", run_id="before", latched=not latched)
    make_run("11_clock_drift", run_id="last", latched=latched)
    make_run("11_clock_drift", run_id="elsewhere", logged_as={"world": "sim"})
    make_run("7_session_termination", run_id="broken", logged_as={"machines": {"trader": "a:b"}})
    pack = build([make_run()], 2, tmp_path / "evidence", root)
    assert verify(pack) == []
    page, report = ((pack / name).read_text() for name in ("SUMMARY_1PAGE.md", "report.html"))
    failed = page[page.index("## What failed"):page.index("## What remains")]
    assert ("11_clock_drift: tried, came to FAIL, not in this pack" in failed) is (came_of == "FAIL")
    assert ("Nothing" in failed) is (came_of == "PASS")
    absent = orjson.loads((pack / "pack.json").read_bytes())["not_run"]
    assert f"1 of 1 drills passed, {len(absent) - 1} not run, 1 tried and not in this pack" in page
    assert f"Tried, and not in this pack: 11_clock_drift ({came_of})" in report
    not_run = report[report.index("NOT RUN by anybody"):].partition("</li>")[0]
    assert "7_session_termination" in not_run and "11_clock_drift" not in not_run
    errors = {case.get("classname") for case in ElementTree.parse(pack / "test_results.xml").iter("testcase")
              if case.find("error") is not None}
    assert set(absent) <= errors


def test_what_failed_is_told_before_what_proved_nothing(make_run: MakeRun, root: Path, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the page has no room for all, it is never the only FAIL that is left out."""
    names = sorted((file.stem for file in (root / "drills/phase2").glob("*.yaml")), key=drill_order)

    def judge(folder: Path, rules: Path | None = None, timeline: Any = None) -> dict[str, Any]:
        found = fake_judge(folder)
        return found if found["drill"] == names[-1] else {**found, "verdict": "INCONCLUSIVE"}

    monkeypatch.setattr(derive_room, "judge", judge)
    runs = [make_run(name, latched=False, verdict="FAIL" if name == names[-1] else "INCONCLUSIVE") for name in names]
    page = (build(runs, 2, tmp_path / "evidence", root) / "SUMMARY_1PAGE.md").read_text()
    assert page.partition("## What failed")[2].splitlines()[1].startswith(f"- {names[-1]}, FAIL")
    assert f"Did not pass at some time: {names[-1]} 1 FAIL" in page


@pytest.mark.parametrize("lie", [
    lambda names: [], lambda names: names[1:], lambda names: [*names, DRILL], lambda names: dict.fromkeys(names, "x")])
def test_a_lie_about_what_nobody_ran_is_found(pack: Path, lie: Any) -> None:
    """What the checklist in the pack asks for was run, was not meant for that world, or is told as not run."""
    about = orjson.loads((pack / "pack.json").read_bytes())
    (pack / "pack.json").write_bytes(encode(about | {"not_run": lie(about["not_run"])}))
    (pack / "manifest.json").unlink()
    (pack / "manifest.json").write_bytes(make_manifest(pack))
    assert any("does not say which drills nobody ran" in each.message for each in verify(pack))


def test_a_drill_of_another_text_counts_for_nothing(make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """A stranger's drill under the same name, or one that was edited since, is not the phase's drill: it is named, no page
    counts it as passed, and what to do stands beside it."""
    runs = [make_run(), make_run("11_clock_drift")]
    with (root / "drills/phase2" / f"{DRILL}.yaml").open("a") as file:
        file.write("# edited since\n")
    pack = build(runs, 2, tmp_path / "evidence", root)
    assert verify(pack) == [] and orjson.loads((pack / "pack.json").read_bytes())["other_text"] == [DRILL]
    assert of_another_text(pack) == [f"ANOTHER TEXT: {DRILL}: run it again: the drill of this name has another text now"]
    page = " ".join((pack / "SUMMARY_1PAGE.md").read_text().split())
    assert "1 of 2 drills passed, 1 proved nothing" in page
    assert f"- {DRILL}, another text: run it again: the drill of this name had another text" in page
    told = read_pack(pack)
    assert not isinstance(told, str) and (told.drills[DRILL].says, told.passed) == ("another text", 1)
    suite = ElementTree.parse(pack / "test_results.xml").find(f"testsuite[@name='{DRILL}']")
    assert suite is not None and suite.get("errors") == "1"
    about = orjson.loads((pack / "pack.json").read_bytes())
    for lie in (["9_nobody"], {DRILL: 1}):
        (pack / "pack.json").write_bytes(encode(about | {"other_text": lie}))
        (pack / "manifest.json").write_bytes(make_manifest(pack))
        assert any("another text ran" in each.message for each in verify(pack))


@pytest.mark.parametrize("lie", [
    {DRILL: ["sim"]}, {"20_out_of_memory_restart": ["moon"]}, {"20_out_of_memory_restart": []}, ["20_out_of_memory_restart"]])
def test_a_lie_about_what_was_left_out_is_found(pack: Path, lie: Any) -> None:
    """A drill that is in the pack after all, a world that nobody has, or none."""
    about = orjson.loads((pack / "pack.json").read_bytes())
    (pack / "pack.json").write_bytes(encode(about | {"left_out": lie}))
    (pack / "manifest.json").unlink()
    (pack / "manifest.json").write_bytes(make_manifest(pack))
    assert any("left out" in each.message for each in verify(pack))


def test_the_former_pack_is_kept_beside(pack: Path, make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """A new pack takes the name; the old one keeps its content under the time of the change."""
    before = (pack / "manifest.json").read_bytes()
    run = make_run(run_id="second")
    with freeze_time("2026-02-03 04:05:06"):
        build([run], 2, tmp_path / "evidence", root)
    former = tmp_path / "evidence/phase2.20260203T040506Z"
    assert (former / "manifest.json").read_bytes() == before
    assert verify(former) == []


def test_dates_come_from_the_runs(make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """A pack made a year later bears the dates of its runs, and none of its making."""
    run = make_run()
    with freeze_time("2031-05-06"):
        made = build([run], 2, tmp_path / "evidence", root)
    pages = [file for file in made.rglob("*") if file.is_file() and file.suffix in {".md", ".html", ".xml", ".txt", ".json"}]
    assert not [file for file in pages if b"2031-05" in file.read_bytes() and file.name != "run_log.jsonl"]
    assert "2026-01-01T00:00:00" in (made / "SUMMARY_1PAGE.md").read_text()


def test_running_until_green_leaves_a_trace(make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """The failed attempts before a success are in the pack that shows the success."""
    make_run(latched=False, run_id="first")
    make_run(latched=False, run_id="second")
    made = build([make_run(run_id="third")], 2, tmp_path / "evidence", root)
    text = (made / "SUMMARY_1PAGE.md").read_text()
    assert "3 runs began: 2 FAIL, 1 PASS" in text
    assert "2_market_data_stale (3 times in local)" in text


def test_a_rehearsal_is_no_second_attempt(make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """Once in the sim and once in local is once each."""
    make_run(run_id="rehearsed", logged_as={"world": "sim"})
    made = build([make_run(run_id="real")], 2, tmp_path / "evidence", root)
    assert "Run more than once: none" in (made / "SUMMARY_1PAGE.md").read_text()


def test_a_later_pack_still_counts_what_came_before(pack: Path, make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """A new slice begins after a pack, and says what the log held before."""
    made = build([make_run(run_id="later")], 2, tmp_path / "evidence", root)
    assert "1 run began: 1 PASS" in (made / "SUMMARY_1PAGE.md").read_text()
    assert "the run log holds 2 runs: 1 FAIL, 1 PASS" in (made / "SUMMARY_1PAGE.md").read_text()
    assert verify(made) == []


@pytest.mark.parametrize(("versions", "head", "word"), [
    ({"git": {"commit": "f" * 40, "dirty": False}}, {}, "commit"),
    ({}, {"rules": {"specs/events.yaml": "0" * 64}}, "rules"),
    ({}, {"system": "0" * 64}, "system"),
    ({}, {"recorder": "0" * 64}, "recorder"),
    ({"world": {"images": {"trader": {"id": "sha256:1"}}}}, {}, "images"),
])
def test_mixed_runs_are_refused(make_run: MakeRun, root: Path, tmp_path: Path, versions: dict, head: dict, word: str) -> None:
    """Runs of two builds make no pack, and the odd one is named."""
    odd = make_run("11_clock_drift", versions=versions, head=head)
    with pytest.raises(PackError, match=f"mixed: 2 values of {word}: .*11_clock_drift"):
        build([make_run(), odd], 2, tmp_path / "evidence", root)
    assert not (tmp_path / "evidence/phase2").exists()


@pytest.mark.parametrize(("logged", "word"), [
    ({"placebo": True}, "placebo"), ({"machines": {"trader": "mutants.ledger:forgets"}}, "machine"),
    ({"world": "sim"}, "world"), ({"dirty": True}, "state of the checkout"), ({"commit": "f" * 40}, "commit"),
    ({"drill": "11_clock_drift"}, "drill")])
def test_a_relabelled_run_is_refused(make_run: MakeRun, root: Path, tmp_path: Path, logged: dict, word: str) -> None:
    """What the log said before the run began stands against what the run's folder says afterwards."""
    with pytest.raises(PackError, match=f"tells another {word} of it"):
        build([make_run(logged_as=logged)], 2, tmp_path / "evidence", root)


def test_a_mutant_that_says_so_is_told_as_one(make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """It may lie in a pack, and counts as nothing there."""
    mutant = {"trader": "mutants.ledger:forgets"}
    made = build([make_run(logged_as={"machines": mutant}, head={"machines": mutant})], 2, tmp_path / "evidence", root)
    assert verify(made) == []
    summary = (made / "SUMMARY_1PAGE.md").read_text()
    assert "0 of 1 drills passed" in summary and "mutant: PASS" in summary


def test_a_run_without_seal_is_refused_by_name(make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """An interrupted run is no evidence, and nothing half-made is left behind."""
    with pytest.raises(PackError, match=f"{DRILL}.*interrupted"):
        build([make_run(sealed=False)], 2, tmp_path / "evidence", root)
    assert sorted(each.name for each in (tmp_path / "evidence").iterdir()) == ["runs", "runs.jsonl"]


def test_two_runs_of_one_drill_are_refused(make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """Which attempt counts is never chosen by the packer."""
    with pytest.raises(PackError, match="name the one that counts"):
        build([make_run(run_id="one"), make_run(run_id="two")], 2, tmp_path / "evidence", root)


def test_a_run_that_was_altered_is_refused(pack: Path, make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """What lies there is not what lay there when the run ended: the file is named, and the former pack stays where it is."""
    manifest, run = (pack / "manifest.json").read_bytes(), make_run(run_id="altered", logged=False)
    digests = {name: sha256_file(run / name) for name in RUN_FILES}
    shutil.rmtree(run)
    run = make_run(run_id="altered", ended_as={"files": digests}, versions={"operator": "somebody else"})
    with pytest.raises(PackError, match="no pack was made: .*altered/versions.json: is not the file that the run log names"):
        build([run], 2, tmp_path / "evidence", root)
    assert (pack / "manifest.json").read_bytes() == manifest and not list(pack.parent.glob("phase2.*"))


def test_a_hollow_drill_is_not_washed_by_packing_again(make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """The slice reaches back to the placebo that passed, so that a pack shows it wherever it lies, whatever came between."""
    good = make_run()
    sha256 = sha256_file(good / "drill.yaml")
    make_run(run_id="hollow", logged_as={"placebo": True, "drill_sha256": sha256})
    make_run(run_id="blind", latched=False, logged_as={"placebo": True, "drill_sha256": sha256})
    build([good], 2, tmp_path / "evidence", root)
    build([make_run(run_id="again")], 2, tmp_path / "evidence", root)
    made = build([make_run(run_id="and-again")], 2, tmp_path / "evidence", root).rename(tmp_path / "far")
    assert verify(made) == []
    assert "0 of 1 drills passed, 1 proved nothing" in (made / "SUMMARY_1PAGE.md").read_text()
    build([make_run("11_clock_drift")], 2, tmp_path / "evidence", root)
    assert b"hollow" not in (tmp_path / "evidence/phase2/run_log.jsonl").read_bytes()


def test_what_a_killed_packing_would_have_told_the_next_pack_tells(pack: Path, make_run: MakeRun, root: Path, tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """The log says that it packed, and no pack came to be: what failed meanwhile is told all the same."""
    with monkeypatch.context() as killed:
        killed.setattr(build_room, "_put", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
        with pytest.raises(OSError, match="no space"):
            build([make_run(run_id="bad", latched=False)], 2, tmp_path / "evidence", root)
    made = build([make_run(run_id="good")], 2, tmp_path / "evidence", root)
    page = (made / "SUMMARY_1PAGE.md").read_text()
    assert verify(made) == [] and "2 runs began: 1 FAIL, 1 PASS" in page and "log holds 2 runs: 1 FAIL, 1 PASS" in page


def test_changed_rules_are_refused(make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """A run is judged by the rules it was made for, or not packed."""
    run = make_run()
    (root / "specs/events.yaml").write_text("{}\n")
    with pytest.raises(PackError, match="specs/events.yaml: has changed"):
        build([run], 2, tmp_path / "evidence", root)


def test_a_run_that_the_log_does_not_know_is_refused(make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """A recording brought in from elsewhere has no place in this log's pack."""
    make_run("11_clock_drift")
    with pytest.raises(PackError, match="the run log knows no run"):
        build([make_run(logged=False)], 2, tmp_path / "evidence", root)


@pytest.mark.parametrize("kept", [1, 3])
def test_a_log_that_lost_what_the_former_pack_holds_packs_nothing(pack: Path, make_run: MakeRun, root: Path, tmp_path: Path,
                                                                  kept: int) -> None:
    """Whoever cuts the log has to move the former pack: else how often it was tried is forgotten."""
    log = pack.parent / "runs.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:kept]))
    run = make_run(run_id="next")
    with pytest.raises(PackError, match="no pack was made: .*phase2: .*runs.jsonl no longer holds .* move the pack elsewhere"):
        build([run], 2, tmp_path / "evidence", root)
    pack.rename(tmp_path / "elsewhere")
    assert verify(build([run], 2, tmp_path / "evidence", root)) == []


def test_a_log_that_lost_all_since_the_pack_before_packs_nothing(pack: Path, make_run: MakeRun, root: Path,
                                                                 tmp_path: Path) -> None:
    """The former slice begins after what is left: its first line names the one before."""
    log, before = pack.parent / "runs.jsonl", (pack.parent / "runs.jsonl").read_bytes()
    build([make_run(run_id="second")], 2, tmp_path / "evidence", root)
    log.write_bytes(before)
    with pytest.raises(PackError, match="no longer holds"):
        build([make_run(run_id="third")], 2, tmp_path / "evidence", root)


def test_a_committed_pack_in_a_fresh_clone_is_of_another_place(pack: Path, make_run: MakeRun, root: Path,
                                                               tmp_path: Path) -> None:
    """Run logs are no part of a repository, packs that were signed off are: the next pack goes on with a log of its own."""
    (pack.parent / "runs.jsonl").unlink()
    assert verify(build([make_run(run_id="next")], 2, tmp_path / "evidence", root)) == []


def test_the_newest_attempt_is_taken_from_the_log(make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """The newest attempt counts, also when an older one was better."""
    make_run(run_id="old")
    new = make_run(run_id="new", latched=False)
    assert newest_runs(tmp_path / "evidence/runs", 2, "local", root) == [new]
    with pytest.raises(UsageError, match="no run of phase 2 in the world docker"):
        newest_runs(tmp_path / "evidence/runs", 2, "docker", root)
    with pytest.raises(UsageError, match=r"no set 'phas2' in phase 2, expected one of .* \(nearest: phase2\)"):
        newest_runs(tmp_path / "evidence/runs", 2, "local", root, sets=["phase2", "phas2"])


def test_one_dirty_run_makes_the_pack_dirty(make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """Wherever it stands among the drills: the page speaks of all of them."""
    dirty = {"git": {"commit": COMMIT, "dirty": True}}
    made = build([make_run(), make_run("11_clock_drift", versions=dirty)], 2, tmp_path / "evidence", root)
    page = (made / "SUMMARY_1PAGE.md").read_text()
    assert f"{COMMIT[:12]} (DIRTY checkout)" in page and "(clean)" not in page
    assert "The checkout was dirty: what was tested is not what the commit says." in page
    assert "DIRTY checkout" in (made / "report.html").read_text()


def test_the_commit_is_on_the_page(pack: Path) -> None:
    """The summary says which commit was tested, and that it was clean."""
    assert f"{COMMIT[:12]} (clean)" in (pack / "SUMMARY_1PAGE.md").read_text()


@pytest.mark.parametrize("path", ["../../outside.yaml", "/etc/hostname"])
def test_a_recording_cannot_bring_files_from_elsewhere(make_run: MakeRun, root: Path, tmp_path: Path, path: str) -> None:
    """The paths of rules are a recording's word, so they are held to plain ones within the checkout."""
    (tmp_path / "outside.yaml").write_text("secret")
    with pytest.raises(PackError, match="no plain path"):
        build([make_run(head={"rules": {path: "0" * 64}})], 2, tmp_path / "evidence", root)


def test_the_one_failure_is_told_in_full(make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """While there is room, a reason is wrapped and not cut."""
    made = build([make_run(latched=False, says="and this is " * 8 + "the end")], 2, tmp_path / "evidence", root)
    assert "the end" in (made / "SUMMARY_1PAGE.md").read_text()


def test_the_same_bytes_are_thought_over_once(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one process the pages of unchanged inputs are made once; another judge or one changed byte makes them anew."""
    judged: list[Path] = []

    def judge(folder: Path, rules: Path, timeline: Timeline) -> dict[str, Any]:
        judged.append(folder)
        return fake_judge(folder)

    monkeypatch.setattr(derive_room, "judge", judge)
    first = derive(pack)
    assert derive(pack) is first and len(judged) == 2  # two drills
    file = next((pack / "incident_drills").glob("*/versions.json"))
    file.write_bytes(file.read_bytes() + b" ")
    assert derive(pack) is not first and len(judged) == 4


def test_one_recording_at_a_time_is_in_memory(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drill's recording is put away before the next one is read, and none is kept by what was derived."""
    alive: list[int] = []

    def judge(folder: Path, rules: Path | None = None, timeline: Any = None) -> dict[str, Any]:
        alive.append(_timelines())
        return fake_judge(folder, rules, timeline)

    monkeypatch.setattr(derive_room, "judge", judge)
    before = _timelines()
    derived = derive(pack)
    assert [each - before for each in alive] == [1, 1] and len(derived.chapters) == 2
    assert _timelines() == before


def _timelines() -> int:
    gc.collect()
    return sum(type(each) is Timeline for each in gc.get_objects())
