"""What retention takes away, what it never does, that each leaves its trace, and that a kill in between harms nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from freezegun import freeze_time
from pack_kit import DRILL, MakeRun

from harness import cli
from harness.errors import TextError
from harness.pack import prune as room
from harness.pack.build import build, seal
from harness.pack.manifest import verify
from harness.pack.prune import Packs, Plan, Retention, Runs, plan, prune, read_retention
from harness.pack.runlog import RunLog, verify_runlog
from harness.pack.seals import create_key, load_key, sign_off
from harness.recording.sole import alone

NOW = "2026-06-01T00:00:00Z"
Nights = Callable[..., Path]


@pytest.fixture
def nights(make_run: MakeRun, root: Path, tmp_path: Path) -> Nights:
    """Evidence with a pack of each of these days of 2026, the last one under the plain name."""

    def make(*days: str, remove_runs: bool = True) -> Path:
        evidence = tmp_path / "evidence"
        for day in days:
            with freeze_time(f"{day}T03:00:00Z"):
                run = make_run(run_id=f"{DRILL}-{day}", versions={"started_utc": f"{day}T02:00:00+00:00",
                                                                  "ended_utc": f"{day}T02:10:00+00:00"})
                build([run], 2, evidence, root)
        if remove_runs:
            shutil.rmtree(evidence / "runs")
        return evidence

    return make


def planned(evidence: Path, *baselines: str, packs: Packs = Packs(1, 30, 4096), runs: Runs = Runs(),  # noqa: B008
            in_use: Callable[[Path], str | None] = lambda folder: None) -> Plan:
    with freeze_time(NOW):
        return plan(evidence, Retention(packs, runs), baselines, in_use)


def gone(found: Plan) -> set[str]:
    return {each.folder.name for each in found.going}


def why(found: Plan, name: str) -> str:
    return next(each.why for each in found.things if each.folder.name == name)


# ---- packs ------------------------------------------------------------------------------------------------


def test_an_old_pack_goes_and_leaves_its_trace(nights: Nights) -> None:
    """Its name, size and manifest stand in the log; the chain holds, and the packs that stay verify against it."""
    evidence = nights("2026-01-01", "2026-05-31")
    (old,) = gone(planned(evidence))
    digest = room.manifest_sha256(evidence / old)
    prune(evidence, lambda: planned(evidence), dry=False)
    assert sorted(each.name for each in evidence.glob("*phase2*")) == ["phase2"] and verify(evidence / "phase2") == []
    row = orjson.loads(RunLog(evidence / "runs.jsonl").lines()[-1])
    assert (row["event"], row["run_id"], row["manifest_sha256"], row["what"]) == ("pruned", old, digest, "pack")
    assert verify_runlog(evidence / "runs.jsonl") == []


def test_a_dry_run_takes_nothing_away(nights: Nights) -> None:
    """It says the same, and no byte changes."""
    evidence = nights("2026-01-01", "2026-05-31")
    before = {file: file.read_bytes() for file in evidence.rglob("*") if file.is_file()}
    assert len(gone(prune(evidence, lambda: planned(evidence), dry=True))) == 1
    assert {file: file.read_bytes() for file in evidence.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(("packs", "days"), [
    (Packs(keep_last=2, keep_days=1), {"2026-01-01"}),
    (Packs(keep_last=1, keep_days=60), {"2026-01-01"}),
    (Packs(keep_last=1, keep_days=1), {"2026-01-01", "2026-05-01"}),
    (Packs(keep_last=9, keep_days=1), set()),
    (Packs(keep_last=1, keep_days=999), set())])
def test_both_rules_keep(nights: Nights, packs: Packs, days: set[str]) -> None:
    """A pack goes only when it is neither among the last so many nor younger than so many days."""
    evidence = nights("2026-01-01", "2026-05-01", "2026-05-31")
    found = planned(evidence, packs=packs)
    assert {each.utc[:10] for each in found.going} == days


def test_the_oldest_go_where_there_is_no_room(nights: Nights) -> None:
    """The size wins over both rules, oldest first, and never over what is never taken away."""
    evidence = nights("2026-05-29", "2026-05-30", "2026-05-31")
    found = planned(evidence, packs=Packs(9, 99, 0))
    assert {each.utc[:10] for each in found.going} == {"2026-05-29", "2026-05-30"}
    assert why(found, "phase2") == "the newest of its phase" and "never taken away take" in found.notes[-1]


def test_what_is_sealed_signed_newest_or_baseline_never_goes(nights: Nights, tmp_path: Path, root: Path,
                                                             make_run: MakeRun) -> None:
    """Whatever the rules say; of a sealed pack the unsealed twin beside it may go."""
    evidence = nights("2026-01-01", "2026-01-02", "2026-01-03", remove_runs=False)
    for name in ("engineer", "owner"):
        create_key(tmp_path / name)
    with freeze_time("2026-01-03T04:00:00Z"):
        seal(evidence / "phase2", load_key(tmp_path / "engineer"))
        sign_off(evidence / "phase2", load_key(tmp_path / "owner"), "Her Name", {"P2-O-SIGNOFF": "seen"}, NOW)
    with freeze_time("2026-01-04T03:00:00Z"):
        build([make_run(run_id="later", versions={"ended_utc": "2026-01-04T02:10:00+00:00"})], 2, evidence, root)
    first, second, *_ = sorted(each.name for each in evidence.glob("phase2.*"))
    found = planned(evidence, first, packs=Packs(1, 0, 0))
    kept = {each.folder.name: each.why for each in found.things if each.kind == "pack" and not each.goes}
    assert sorted(kept.values()) == ["somebody vouched for it", "the baseline of the budget", "the newest of its phase"]
    assert kept[first] == "the baseline of the budget" and second in gone(found)


def test_what_is_no_pack_is_left_alone(nights: Nights, tmp_path: Path) -> None:
    """A link, an empty folder and a damaged pack that look like packs by name: named, and not touched."""
    evidence = nights("2026-01-01", "2026-01-02", "2026-05-31")
    first, second = sorted(evidence.glob("phase2.*"))
    shutil.move(first, tmp_path / "elsewhere")
    first.symlink_to(tmp_path / "elsewhere")
    (second / "pack.json").write_bytes(b"{}")
    (evidence / "phase3").mkdir()
    found = prune(evidence, lambda: planned(evidence, packs=Packs(1, 0, 0)), dry=False)
    assert not found.going and len(found.notes) == 4
    assert first.is_symlink() and (tmp_path / "elsewhere" / "pack.json").is_file() and second.is_dir()


# ---- runs -------------------------------------------------------------------------------------------------


def test_runs_go_by_their_age_and_what_came_of_them(make_run: MakeRun, tmp_path: Path) -> None:
    """Those that PASSED sooner than those that failed; the newest of each drill and world never, nor one in use."""
    for day, latched in (("2026-01-01", True), ("2026-05-20", False), ("2026-05-21", True), ("2026-05-31", True)):
        with freeze_time(f"{day}T00:00:00Z"):
            make_run(run_id=f"run-{day}", latched=latched)
    with freeze_time("2026-01-02T00:00:00Z"):
        make_run("11_clock_drift", run_id="other")
    (tmp_path / "evidence" / "runs" / "stranger").mkdir()
    found = planned(tmp_path / "evidence")
    assert gone(found) == {"run-2026-01-01", "run-2026-05-21"}
    assert why(found, "other") == "the newest run of its drill in its world" and why(found, "run-2026-05-20").endswith("(FAIL)")
    assert "stranger" in found.notes[0]
    assert gone(planned(tmp_path / "evidence", in_use=lambda folder: "held")) == set()
    prune(tmp_path / "evidence", lambda: found, dry=False)
    assert not (tmp_path / "evidence" / "runs" / "run-2026-01-01").exists()
    assert verify_runlog(tmp_path / "evidence" / "runs.jsonl") == []


def test_a_folder_that_is_being_written_stays(make_run: MakeRun, tmp_path: Path) -> None:
    """Also when its writer came after the plan was made, and it is said so."""
    for day in ("2026-01-01", "2026-05-31"):
        with freeze_time(f"{day}T00:00:00Z"):
            folder = make_run(run_id=f"run-{day}")
    evidence, old = tmp_path / "evidence", folder.with_name("run-2026-01-01")
    made = planned(evidence)
    with alone(old):
        found = prune(evidence, lambda: made, dry=False)
        assert why(planned(evidence), old.name) == why(found, old.name) == "being written" and not found.going
    assert old.is_dir() and gone(prune(evidence, lambda: planned(evidence), dry=False)) == {old.name}


# ---- killed in between ------------------------------------------------------------------------------------

MOMENTS = ("note written", "renamed", "logged", "half deleted", "deleted")


@pytest.mark.parametrize("moment", MOMENTS)
def test_whoever_is_killed_leaves_nothing_half_pruned(nights: Nights, tmp_path: Path, moment: str) -> None:
    """Killed at any moment: the pack is whole under its name or gone, and after the next prune there is exactly one line."""
    evidence = nights("2026-01-01", "2026-05-31")
    (old,) = gone(planned(evidence))
    _killed(evidence, moment)
    assert not (evidence / old).exists() or verify(evidence / old) == []
    assert verify(evidence / "phase2") == [] and verify_runlog(evidence / "runs.jsonl") == []
    prune(evidence, lambda: planned(evidence), dry=False)
    rows = [orjson.loads(line) for line in RunLog(evidence / "runs.jsonl").lines()]
    assert [row["run_id"] for row in rows if row["event"] == "pruned"] == [old]
    assert sorted(each.name for each in evidence.iterdir()) == [".pack.lock", "phase2", "runs.jsonl"]


def _killed(evidence: Path, moment: str) -> None:
    """Prune in a process of its own, which kills itself as soon as it has come to this moment."""
    code = ("import os, shutil, signal, sys\nfrom pathlib import Path\nfrom harness.pack import prune as room\n"
            "from harness.pack.runlog import RunLog\n"
            "evidence, moment = Path(sys.argv[1]), sys.argv[2]\n"
            "def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)\n"
            "def half(place):\n    next(file for file in place.rglob('*') if file.is_file()).unlink()\n    die()\n"
            "if moment == 'note written': Path.rename = die\n"
            "if moment == 'renamed': RunLog.pruned = die\n"
            "if moment == 'logged': shutil.rmtree = die\n"
            "if moment == 'half deleted': shutil.rmtree = half\n"
            "if moment == 'deleted': Path.unlink = die\n"
            "rule = room.Retention(room.Packs(1, 30, 4096))\n"
            "room.prune(evidence, lambda: room.plan(evidence, rule, (), lambda folder: None), dry=False)\n")
    done = subprocess.run([sys.executable, "-c", code, str(evidence), moment], capture_output=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": str(cli.ROOT)})
    assert done.returncode == -9, done.stderr.decode()


# ---- the file and the command -----------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "says"), [
    ("packs: {keep_lats: 3}", "retention.yaml:1:9: found the key 'keep_lats', expected one of keep_last"),
    ("packs: {keep_last: 0}", "retention.yaml:1:20: found the number 0, expected a whole number of at least 1"),
    ("packs: {keep_days: -1}", "expected a whole number of at least 0"),
    ("packs: {keep_days: 1.5}", "expected a whole number"),
    ("packs: {keep_days: many}", "expected a whole number"),
    ("packs: {keep_days: 1, keep_days: 2}", "each key once"),
    ("pack: {}", "found the key 'pack', expected one of packs, runs (nearest: packs)"),
    ("runs: [1]", "expected a mapping"), ("", "found nothing"), ("runs: &a {}", "the anchor")])
def test_the_file_is_read_strictly(tmp_path: Path, text: str, says: str) -> None:
    """What is misspelt must not mean that something else is taken away."""
    file = tmp_path / "retention.yaml"
    file.write_text(text)
    with pytest.raises(TextError) as found:
        read_retention(file)
    assert says in str(found.value)


def test_the_shipped_file_is_the_default(root: Path) -> None:
    """What stands in evidence/retention.yaml are the very numbers that the code has."""
    assert read_retention(cli.ROOT / "evidence" / "retention.yaml") == Retention()


def test_the_command_says_what_goes_what_stays_and_why(nights: Nights, capsys: pytest.CaptureFixture[str],
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """With the file beside the evidence; the budget's baseline stays; the dry run says the same as the act."""
    evidence = nights("2026-01-01", "2026-01-02", "2026-05-31")
    first, second = sorted(each.name for each in evidence.glob("phase2.*"))
    (evidence / "retention.yaml").write_text("packs: {keep_last: 1, keep_days: 1}\n")
    (evidence / "budget.yaml").write_text(f"baseline: {first}\n")
    told: list[dict[str, Any]] = []
    for options in (["--dry-run"], []):
        assert cli.main(["prune", "--out", str(evidence), "--json", *options]) == 0
        told.append(orjson.loads(capsys.readouterr().out))
    assert [each["name"] for each in told[0]["goes"]] == [each["name"] for each in told[1]["goes"]] == [second]
    assert not (evidence / second).exists() and (evidence / first).is_dir()
    assert cli.main(["prune", "--out", str(evidence)]) == 0
    page = capsys.readouterr().out
    assert "the baseline of the budget" in page and "gone: 0 packs and 0 runs, 0.0 MB; 2 stay" in page


def test_without_a_file_nothing_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder or a file that is not there is wrong usage."""
    assert cli.main(["prune", "--out", str(tmp_path), "--retention", str(tmp_path / "none.yaml")]) == 2
    assert "nothing says what may be taken away" in capsys.readouterr().err
    assert cli.main(["prune", "--out", str(tmp_path / "none")]) == 2
