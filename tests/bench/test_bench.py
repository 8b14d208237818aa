"""The bench runs and measures what it says; nothing here looks at how long anything took."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from bench import contract, feed, judging, load, memory, sampling, timing
from bench.clock import side_by_side
from bench.drills import measured
from harness import limits
from harness.recording.timeline import Timeline
from harness.session import ROOT
from harness.verdict.judge import judge
from harness.world.stack import load_stack


def test_contenders_take_turns() -> None:
    """Within a round every contender works once, in order, so that a busy neighbour slows all of them."""
    seen: list[str] = []
    best = side_by_side({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, rounds=2)
    assert seen == ["a", "b", "a", "b"]
    assert list(best) == ["a", "b"]


def test_the_contract_is_measured_on_lawful_documents() -> None:
    """All contenders have a line, and the first is the yardstick."""
    lines = list(contract.lines(rounds=1))
    assert [line.split("  ")[0] for line in lines] == [
        "jsonschema, schema alone", "jsonschema-rs, schema alone", "contract check, everything"]
    assert lines[0].endswith(" 1.0 ×")


def test_a_measured_drill_is_a_real_run(tmp_path: Path) -> None:
    """The bench's drill is judged like any other, and its parts make up its total."""
    drill = ROOT / "drills" / "phase2" / "4_crash_restart_mid_flight.yaml"
    cost = measured(drill, 1, "drill", tmp_path / "runs")
    assert cost.verdict == "PASS"
    assert (cost.folder / "verdict.json").is_file()
    assert cost.virtual_s > 5
    assert cost.total_s == cost.prepare_s + cost.run_s + cost.judge_s > 0


def test_every_way_of_watching_has_a_line() -> None:
    """Not at all, loosely, closely: each is measured over the same virtual time."""
    assert len(list(sampling.lines(rounds=1, seed=1, policy="reference", virtual_s=3))) == len(sampling.WAYS)


def test_a_command_under_load_keeps_its_exit_code_and_leaves_nothing() -> None:
    """The burners end with the command, whose code is told."""
    count = "import subprocess, sys; sys.exit(subprocess.run(['pgrep', '-fc', '[w]hile True: pass']).returncode)"
    under_load = [sys.executable, "-m", "bench.load"]
    assert subprocess.run([*under_load, sys.executable, "-c", "raise SystemExit(7)"], cwd=ROOT).returncode == 7
    with load.burners(2):
        assert subprocess.run([sys.executable, "-c", count], capture_output=True).returncode == 0
    assert subprocess.run(under_load, cwd=ROOT, capture_output=True).returncode == 2


def test_without_a_server_the_timing_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A line with the command that installs it, and no figures."""
    monkeypatch.setattr(timing.setup, "find", lambda: None)
    (line,) = timing.lines(1, tmp_path)
    assert "go install" in line or "go " in line


def test_the_feed_is_heard_whole(tmp_path: Path) -> None:
    """A minute of it holds 600 messages, whichever of the two was up first, and none is missing."""
    stack = load_stack(ROOT / "bench" / "feed" / "stack.yaml")
    assert all(feed.fed(stack, seed, tmp_path / str(seed)) in (600, 601, 602) for seed in range(6))


def test_a_watch_is_looked_at_on_the_way() -> None:
    """Memory is read a dozen times over the virtual time, from the process that holds it."""
    looks = list(memory.watched(1, "drill", 1))
    assert len(looks) == memory.LOOKS + 1 and looks[-1][0] == 1
    assert all(rss_mib > 10 for _, rss_mib, _ in looks)


def test_a_drawn_out_recording_is_lawful(tmp_path: Path) -> None:
    """What is measured is the judging of a run that PASSES, as long as was asked for and sampled as before."""
    *told, per_sample = judging.lines(1, "drill", 4, tmp_path)
    assert [line.split()[0] for line in told] == ["1", "4"] and all(" PASS " in line for line in told)
    few, many = (int(line.split()[3]) for line in told)
    assert many - few == 3 * 60 * 20 and per_sample.endswith(" bytes a sample")


def test_what_judging_holds_grows_by_less_than_a_sample_is_long(tmp_path: Path) -> None:
    """Measured by what is allocated, not by the clock: a law that lists the looks, or a reader that keeps what it has
    understood, takes a hundred bytes a sample each, and a day has two million."""
    run = judging.calm_run(1, "drill", tmp_path)
    held: list[tuple[int, int]] = []
    for length_min in (2, 12):
        folder = judging.drawn_out(run, tmp_path / f"{length_min}", length_min * 60_000)
        tracemalloc.start()
        try:
            verdict = judge(folder, ROOT)
            held.append((verdict["samples"]["status"]["answered"], tracemalloc.get_traced_memory()[1]))
        finally:
            tracemalloc.stop()
        assert verdict["verdict"] == "PASS"
    (few, little), (many, much) = held
    assert many - few == 10 * 60 * 20 and (much - little) / (many - few) < 110


def test_a_tape_that_goes_on_and_on_is_read_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And never judged as a whole one."""
    run = judging.calm_run(1, "drill", tmp_path)
    monkeypatch.setattr(limits, "TAPE_LINES_MAX", 100)
    assert "limit: tape_lines_max 100" in Timeline.load(run).damage
    assert judge(run, ROOT)["verdict"] == "INCONCLUSIVE"
