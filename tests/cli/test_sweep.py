"""Many seeds: how they are named, what stays on the disk, and what the table says."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from harness import sweep
from harness.errors import UsageError
from harness.pack.build import newest_runs
from harness.pack.runlog import attempts, verify_runlog
from harness.session import Result

ROOT = Path(__file__).resolve().parent.parent.parent
DRILL = "2_market_data_stale"


def result(drill: str, seed: int, verdict: str = "PASS", says: tuple[str, ...] = (), safe: int | None = 900) -> Result:
    return Result(drill, "sim", "completed", verdict, safe, f"/runs/{drill}-{seed}", f"{drill}-{seed}", seed, False, says)


@pytest.mark.parametrize(("text", "seeds"), [
    ("7", (7,)), ("0..3", (0, 1, 2, 3)), ("1,5, 7", (1, 5, 7)), ("8..10,1,9", (8, 9, 10, 1))])
def test_seeds_are_named_one_by_one_or_from_to(text: str, seeds: tuple[int, ...]) -> None:
    """Both ends of a range count, the order is the one given, and none comes twice."""
    assert sweep.parse_seeds(text) == seeds


@pytest.mark.parametrize(("text", "word"), [
    ("", "found ''"), ("a", "found 'a'"), ("1..", "found '1..'"), ("-1", "found '-1'"), ("1-5", "found '1-5'"),
    ("1,,2", "found ''"),
    ("9..3", "write 3..9"), ("0..10000", "more than 10000 seeds"), ("0..9999999999999999999", "more than"),
    ("0..99999999999999999999", "expected whole numbers"), ("٣", "found")])
def test_seeds_that_mean_nothing_are_refused(text: str, word: str) -> None:
    """Whatever is no number, runs backwards or never ends is told with what was expected."""
    with pytest.raises(UsageError, match=word.replace(".", r"\.")):
        sweep.parse_seeds(text)


def test_the_table_counts_and_names_what_did_not_pass() -> None:
    """A line a drill with its verdicts, then each run that did not pass: its seed, its reason, the line that repeats it."""
    results = [result("1_a", 0), result("2_b", 0), result("1_a", 1, "FAIL", ("FAIL law: it lied", "FAIL other: so"), None),
               result("2_b", 1, safe=1200)]
    text = sweep.render(results, ["--policy", "drill"], (0, 1), io.StringIO())
    assert "1_a       1             ·     1  900 ms" in text.splitlines()
    assert "2_b       2             ·     ·  1200 ms" in text.splitlines()
    assert "4 runs under 2 seeds: 3 PASS, 1 FAIL" in text
    assert "FAIL 1_a seed 1: FAIL law: it lied (and 1 more)" in text
    assert "  again: drillproof run 1_a --world sim --seed 1 --policy drill" in text


def test_a_system_cannot_steer_the_terminal_through_the_table() -> None:
    """What a system said into a verdict is written out."""
    text = sweep.render([result("1_a", 0, "FAIL", ("FAIL law: \x1b[2J\nPASS",))], [], (0,), io.StringIO())
    assert "\\x1b[2J\\x0aPASS" in text and "\x1b" not in text


def test_off_a_terminal_there_is_a_line_a_seed() -> None:
    """Passed runs are silent, failed ones are told at once, and each seed ends with a line."""
    told = io.StringIO()
    progress = sweep.Progress(["1_a", "2_b", "1_a", "2_b"], [4, 4, 5, 5], told)
    for index, each in enumerate([result("1_a", 4), result("2_b", 4), result("1_a", 5, "FAIL", ("FAIL law: it lied",))]):
        progress(index, "starting", {})
        progress(index, "done", {"result": each})
    progress(3, "done", {"result": result("2_b", 5)})
    lines = told.getvalue().splitlines()
    assert lines[0] == "  seed 4: all passed (2 of 4 runs, 0:00)"
    assert lines[1].startswith("FAIL") and "1_a seed 5" in lines[1] and lines[2].strip() == "FAIL law: it lied"
    assert lines[3] == "  seed 5: 1 did not pass (4 of 4 runs, 0:00)" and len(lines) == 4


def swept(out: Path, *more: str) -> tuple[int, dict[str, object]]:
    """A sweep of one drill in the sim, as a user runs it."""
    done = subprocess.run([sys.executable, "-m", "harness.cli", "run", DRILL, "--world", "sim", "--policy", "drill",
                           "--jobs", "2", "--json", "--out", str(out), *more], cwd=ROOT, capture_output=True, timeout=240)
    return done.returncode, orjson.loads(done.stdout)


def test_what_passed_is_thrown_away_and_still_known(tmp_path: Path) -> None:
    """The folders of passed runs go, the run log says so of each in an unbroken chain, and no pack asks for them."""
    code, told = swept(tmp_path, "--seeds", "3..4")
    assert code == 0 and told["table"] == [{"drill": DRILL, "PASS": 2, "INCONCLUSIVE": 0, "FAIL": 0,
                                            "time_to_safe_ms_max": max(each["time_to_safe_ms"] for each in told["drills"])}]
    assert [(each["seed"], each["kept"]) for each in told["drills"]] == [(3, False), (4, False)]
    assert not any((tmp_path / "runs").iterdir())
    assert verify_runlog(tmp_path / "runs.jsonl") == []
    known = attempts((tmp_path / "runs.jsonl").read_bytes().splitlines())
    assert [(each.verdict, each.kept) for each in known] == [("PASS", False)] * 2
    assert all(each.recording_sha256 for each in known)
    with pytest.raises(UsageError, match="no run of phase 2"):
        newest_runs(tmp_path / "runs", 2, "sim", ROOT)


def test_what_did_not_pass_stays(tmp_path: Path) -> None:
    """A run that FAILED (here: a placebo) keeps its folder, and so does a passed one that somebody asks for."""
    code, told = swept(tmp_path, "--seeds", "3", "--placebo")
    assert code == 0 and told["drills"][0]["verdict"] == "FAIL"
    assert Path(told["drills"][0]["recording"]).is_dir() and told["drills"][0]["kept"]
    code, told = swept(tmp_path, "--seeds", "3", "--keep", "all")
    assert code == 0 and Path(told["drills"][0]["recording"]).is_dir()
    code, told = swept(tmp_path, "--seeds", "3")
    assert code == 0 and Path(told["drills"][0]["recording"]).is_dir(), "it was there before the sweep"
