"""The command: names, exit codes, JSON, and one drill from its file to a verdict that can be reproduced."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from harness import arguments, cli, session
from harness.arguments import STACK
from harness.errors import UsageError
from harness.recording.script import build, read
from harness.session import Result
from harness.world.stack import load_stack

ROOT = Path(__file__).resolve().parent.parent.parent
DRILL = "phase2/2_market_data_stale.yaml"
MUTANTS = "system_under_test.mutants"
OWN = "system_under_test.trader:make"


@pytest.mark.parametrize(("verdicts", "code"), [
    (["PASS", "PASS"], 0), (["PASS", "FAIL", "INCONCLUSIVE"], 1), (["PASS", "INCONCLUSIVE"], 3), ([], 3)])
def test_only_all_pass_exits_with_zero(verdicts: list[str], code: int) -> None:
    """FAIL outweighs INCONCLUSIVE, and having run nothing is not success."""
    assert cli.exit_code(verdicts) == code


@pytest.mark.parametrize(("verdicts", "code"), [
    (["FAIL", "FAIL"], 0), (["FAIL", "PASS"], 1), (["FAIL", "INCONCLUSIVE"], 3), ([], 3),
    (["FAIL", "FAIL by a law alone; the promises PASS"], 1), (["FAIL by a premise; the promises INCONCLUSIVE"], 3)])
def test_placebos_must_all_fail(verdicts: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A drill that passes without its force is named: it proves nothing with it either."""
    results = [Result(f"d{n}", "sim", "completed", verdict.partition(" ")[0], None, "", "", 1, True, (),
                      promises=verdict.rpartition(" ")[2]) for n, verdict in enumerate(verdicts)]
    assert cli.placebo_code(results) == code
    assert ("passed without their force" in capsys.readouterr().err) is (code == 1)


def test_a_sabotaged_placebo_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a mutant breaks would be taken for what the drill promises."""
    told = ["run", "drills/phase2/2_market_data_stale.yaml", "--world", "sim", "--placebo", "--out", str(tmp_path / "out"),
            "--machine", "trader=system_under_test.mutants.reports:freezes_a_time_stamp"]
    assert cli.main(told) == 2 and not (tmp_path / "out").exists()
    assert "--placebo: found it beside --machine trader=" in capsys.readouterr().err


def test_the_stacks_own_machine_is_no_mutant() -> None:
    """Named or not, a run of it is one of the system itself, and the run log must say so."""
    nodes = load_stack(STACK).nodes
    assert cli._machines([f"trader={OWN}"], nodes) == {}
    assert cli._machines([f"trader={MUTANTS}.market:never_stale"], nodes) == {"trader": f"{MUTANTS}.market:never_stale"}


def test_drills_come_in_their_own_order() -> None:
    """2 comes before 10."""
    names = [int(file.stem.partition("_")[0]) for file in cli.drill_files(["phase2"])]
    assert names == sorted(names) and len(names) >= 12


def test_an_unknown_drill_gets_the_nearest_name() -> None:
    """A typing error is answered with the right name."""
    with pytest.raises(UsageError, match="nearest: 2_market_data_stale"):
        cli.drill_files(["2_market_data_stail"])


def test_a_broken_drill_has_a_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``check`` answers with file, line and column, and exits with 2."""
    file = tmp_path / "broken.yaml"
    file.write_bytes((ROOT / "drills" / DRILL).read_bytes().replace(b"stall:", b"stahl:"))
    assert cli.main(["check", str(file)]) == 2
    said = capsys.readouterr().err
    line = next(number for number, text in enumerate(file.read_text().splitlines(), 1) if "stahl" in text)
    assert f"{file}:{line}:" in said and "stall" in said


@pytest.mark.parametrize("arguments", [
    ["run", "--world", "moon"], ["run", "--seed", "one"], ["run", "--seed", "1", "--seeds", "2"],
    ["run", "--keep", "some"], ["run", "--seed", str(2**70)], ["run", "--jobs", "0"],
    ["gate", "two"], ["frobnicate"], []])
def test_wrong_usage_is_one_line_and_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """argparse and we agree about wrong usage, and a line is enough for it."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("arguments", "word"), [
    (["run", "2_market", "--world", "sim"], "nearest: 2_market_data_stale"),
    (["run", DRILL, "--policy", "refrence"], "nearest: reference"),
    (["run", DRILL, "--stack", "/nowhere/stack.yaml"], "/nowhere/stack.yaml"),
    (["run", DRILL, "--world", "sim", "--hold"], "the sim has none"),
    (["run", DRILL, "--seeds", "9..3"], "write 3..9"),
    (["run", DRILL, "--machine", "trader"], "NODE=package.module:function"),
    (["run", DRILL, "--machine", "tradr=a.b:c"], "no node 'tradr'; known: exchange, trader, "),
    (["run", DRILL, "--machine", "tradr=a.b:c"], "(nearest: trader)"),
    (["run", DRILL, "--machine", "trader=nowhere.at_all:make"], "no module 'nowhere.at_all'"),
    (["run", DRILL, "--machine", f"trader={MUTANTS}.markt:never_stale"], f"(nearest: {MUTANTS}.market)"),
    (["run", DRILL, "--machine", f"trader={MUTANTS}.market:never_stal"], "no function 'never_stal'"),
    (["run", DRILL, "--machine", f"trader={MUTANTS}.market:never_stal"], "(nearest: never_stale)"),
    (["run", DRILL, "--machine", f"trader={OWN}", "--machine", f"trader={OWN}"], "expected trader once"),
    (["run", DRILL, "--out", "/proc/nowhere"], "nothing can be written there"),
    (["compare", "last", "nwo"], "nwo: no such folder; expected a run folder, a pack, a folder of runs, a world (sim, "),
    (["compare", "last", "nwo"], "(nearest: now)"), (["compare", "smi", "local"], "(nearest: sim)"),
    (["compare", "last", "now", "--courses"], "last: stands for a pack; expected"),
    (["compare", str(Path(__file__)), "now"], "test_cli.py: is no folder; expected"),
    (["judge", "/nowhere"], "no recording.jsonl.gz"),
    (["verify", "/nowhere"], "no such folder"),
    (["pack", "2", "/nowhere"], "no such folder"),
    (["pack", "99"], "no phase 99"),
    (["gate", "99"], "known: 2"),
    (["gate", "2", "--only", "nothing"], "no group 'nothing'"),
    (["mutants", "--only", "qqq"], "mutants/catalogue.yaml\n"), (["pack", "2", "--sets", "qqq"], "phase2, ops, state\n"),
    (["recover", "/nowhere"], "no such folder")])
def test_wrong_input_is_one_line_and_two(arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever can be known before a stack starts is said in one line, and nothing is started."""
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert word in said and said.count("\n") == 1, said


@pytest.mark.parametrize("arguments", [
    ["run", "PATH", "--world", "sim"], ["run", DRILL, "--stack", "PATH", "--world", "sim"], ["check", "PATH"],
    ["judge", "PATH"], ["compare", "PATH", "sim"], ["compare", "last", "now", "--budget", "PATH"],
    ["mutants", "--drills", "PATH"], ["mutants", "--catalogue", "PATH"], ["floor", "--run", "PATH"], ["pack", "2", "PATH"],
    ["pack", "--merge", "PATH"], ["pack", "own", "--stack", "PATH"], ["trend", "--out", "PATH"],
    ["prune", "--dry-run", "--retention", "PATH"], ["seal", "attest", "PATH", "--key", "KEY"],
    ["seal", "sign-off", "PATH", "--key", "KEY", "--name", "N", "--saw", "A=b"], ["recover", "PATH"],
    ["gate", "2", "--signers", "PATH"], ["exchange", "--stack", "PATH"]], ids=" ".join)
def test_a_path_that_leads_to_nothing_of_use_is_named(arguments: list[str], tmp_path: Path,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing there, a file or a folder that is none of ours: one line that names it, and code 2."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    assert cli.main(["seal", "key", str(tmp_path / "key")]) == 0
    capsys.readouterr()
    for name in ("nowhere", "file", "empty"):
        typed = [{"PATH": str(tmp_path / name), "KEY": str(tmp_path / "key")}.get(each, each) for each in arguments]
        assert cli.main(typed) == 2, typed
        assert (said := capsys.readouterr().err).count("\n") == 1 and str(tmp_path / name) in said, said


def test_evidence_that_was_named_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A gate that is closed, or nothing to recover, would be said of another folder than was meant."""
    (tmp_path / "file").write_text("x")
    for name, what in (("nowhere", "no such folder"), ("file", "is no folder")):
        for command in (["gate", "2"], ["recover"], ["trend"]):
            assert cli.main([*command, "--out", str(tmp_path / name)]) == 2
            assert capsys.readouterr().err == f"drillproof: {tmp_path / name}: {what}\n"


def test_a_broken_drill_stops_all_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The twelfth drill's typing error is told before the first one starts."""
    file = tmp_path / "broken.yaml"
    file.write_bytes((ROOT / "drills" / DRILL).read_bytes().replace(b"stall:", b"stahl:"))
    assert cli.main(["run", DRILL, str(file), "--world", "sim", "--out", str(tmp_path / "out")]) == 2
    assert f"{file}:" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("surface", ["status", "ops-status", "own", "state"])
def test_each_thing_to_validate_has_an_example_of_its_own(surface: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Help about a contract shows that contract, and a file without its option says which one."""
    with pytest.raises(SystemExit):
        cli.main(["validate", surface, "--help"])
    assert f"example:  drillproof validate {surface} " in capsys.readouterr().out
    if surface != "state":
        with pytest.raises(SystemExit):
            cli.main(["validate", surface, "status.json"])
        assert "--file status.json" in capsys.readouterr().err


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A command's parser, and those of what it is made of."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for part in action.choices.values():
                yield from parsers(part)


@pytest.mark.parametrize("parser", [*parsers(arguments.parser_of(cli.FUNCTIONS))], ids=lambda parser: parser.prog)
def test_an_example_can_be_typed_in_a_fresh_clone(parser: argparse.ArgumentParser) -> None:
    """``--help`` ends with it. The files that it names are there, or a line before says what it needs beside the clone."""
    *first, example = (parser.epilog or "none").splitlines()
    assert example.startswith("example:  drillproof ") and [each[:10] for each in first] in ([], ["first:    "])
    words = shlex.split(example)[2:]
    arguments.parse(cli.FUNCTIONS, words)
    assert words[0] in parser.prog or parser.prog in ("drillproof", f"drillproof {words[0]}")
    places = [word for word in words if "/" in word and "://" not in word]
    assert first or [place for place in places if not (ROOT / place).exists()] == []


def test_what_is_open_ended_goes_on_behind_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where a command takes one thing and then many; what no command takes is still refused."""
    typed = arguments.parse(cli.FUNCTIONS, ["pack", "2", "--world", "sim", "one", "other"])
    assert (typed.phase, typed.runs, typed.world) == (2, ["one", "other"], "sim")
    assert arguments.parse(cli.FUNCTIONS, ["run", "a", "--world", "sim", "b"]).paths == ["a", "b"]
    for wrong in (["doctor", "more"], ["run", "a", "--wurld", "sim"], ["gate", "2", "3"]):
        with pytest.raises(SystemExit, match="2"):
            arguments.parse(cli.FUNCTIONS, wrong)
        assert "unrecognized arguments" in capsys.readouterr().err


@pytest.mark.parametrize(("cores", "told"), [(1, (1, 3, 1)), (2, (2, 3, 1)), (8, (8, 3, 4))])
def test_stacks_side_by_side(monkeypatch: pytest.MonkeyPatch, cores: int, told: tuple[int, ...]) -> None:
    """By the world and the cores that this process may use."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    assert tuple(arguments.side_by_side(each) for each in ("sim", "local", "docker")) == told


def test_a_full_disk_has_a_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An error of the system is one line with the file and what is wrong, never a traceback."""
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "/evidence/phase2/summary")

    monkeypatch.setattr("harness.pack.build.build", full)
    monkeypatch.setattr("harness.pack.build.newest_runs", lambda *_: [])
    assert cli.main(["pack", "2"]) == 2
    assert capsys.readouterr().err == "drillproof: /evidence/phase2/summary: No space left on device\n"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[bytes], Path]:
    """Drill 2 in the sim under the drill policy, as a user runs it."""
    out = tmp_path_factory.mktemp("evidence")
    done = subprocess.run([sys.executable, "-m", "harness.cli", "run", DRILL, "--world", "sim", "--policy", "drill", "--json",
                           "--out", str(out)], cwd=ROOT, capture_output=True, timeout=240)
    return done, out


def test_run_tells_machines(ran: tuple[subprocess.CompletedProcess[bytes], Path]) -> None:
    """``run --json`` prints the agreed keys, and exits by the verdict."""
    done, _ = ran
    (drill,) = orjson.loads(done.stdout)["drills"]
    assert {"drill", "world", "status", "verdict", "time_to_safe_ms", "recording"} <= set(drill)
    assert (drill["verdict"], done.returncode) == ("PASS", 0), drill["says"]


def test_judging_again_gives_the_same_bytes(ran: tuple[subprocess.CompletedProcess[bytes], Path],
                                            capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """From the folder alone, the same verdict."""
    done, _ = ran
    folder = orjson.loads(done.stdout)["drills"][0]["recording"]
    assert cli.main(["judge", folder]) == 0
    assert b"same as recorded" in capsysbinary.readouterr().out


def test_the_run_is_in_the_run_log(ran: tuple[subprocess.CompletedProcess[bytes], Path]) -> None:
    """Started and ended are both there, so running until green leaves a trace."""
    lines = [orjson.loads(line) for line in (ran[1] / "runs.jsonl").read_bytes().splitlines()]
    assert len(lines) == 2 and b"PASS" in orjson.dumps(lines[-1])


def test_a_drill_file_is_a_test(tmp_path: Path) -> None:
    """``pytest FILE --world sim`` collects one test. A placebo that fails, as it must, is green; one that passes is red with
    the command that repeats it."""
    hollow = tmp_path / "hand_once.yaml"
    hollow.write_text(HAND_ONCE)
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "drills" / DRILL),
                           str(hollow), "--world", "sim", "--drill-policy", "drill", "--placebo",
                           "--drill-out", str(tmp_path / "out")], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1 and "1 failed, 1 passed" in done.stdout, done.stdout
    repeat = f"drillproof run {os.path.relpath(hollow, ROOT)} --world sim --seed 1 --policy drill --placebo"
    assert f"repeat:    {repeat}" in done.stdout
    assert "without its force its promises came to PASS, and they must FAIL then" in done.stdout
    folders = sorted((tmp_path / "out" / "runs").iterdir(), key=lambda each: each.name)
    judged = subprocess.run([sys.executable, "-m", "harness.cli", "judge", *map(str, folders)], cwd=ROOT, capture_output=True,
                            text=True, timeout=240)
    assert judged.stdout.count("a placebo: nothing was broken); same as recorded") == 2, judged.stdout


def test_no_drill_is_collected_without_a_world() -> None:
    """Pytest over the drills folder starts nothing unless a world is named."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "drills")], cwd=ROOT,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 5, done.stdout


def test_a_refused_run_says_why_and_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Judged again, a run that never began has one line about that, and none for each thing that can then not be decided."""
    script = read(session.ROOT / "fixtures" / "recordings" / "lawful" / "market_data_stale.yaml")
    script |= {"status": "refused", "marks": {}, "samples": {}, "probes": [], "acts": [], "streams": {}, "clocks": {}}
    folder = str(build(script, tmp_path / "refused"))
    assert cli.main(["judge", folder]) == 3
    assert [line.split(":")[0].strip() for line in capsys.readouterr().out.splitlines()][1:] == ["INCONCLUSIVE recording"]
    assert cli.main(["judge", "--all", folder]) == 3
    assert len(capsys.readouterr().out.splitlines()) > 10


HAND_ONCE = """\
drill: hand_once
title: A hand damages nav.json, once; the trader writes it anew within a second
sample: {status: 50ms, nav: 1s}
given: {status: {trading_mode: Active}, for: 3s, within: policy.bunker_exit_stable_s + 90s}
faults:
  damage: {at: 0s, for: 30s, overwrite: {node: trader, file: state/nav.json, text: "{", in_place: true}}
promises:
  trades_on: {always: {status: {trading_mode: Active}}}
converge: {status: {trading_mode: Active}, within: 60s, for: 2s}
"""


def test_what_could_be_read_while_a_fault_stood_counts(tmp_path: Path) -> None:
    """A file that was damaged once and is whole again is a witness, however long the drill gives the fault."""
    (tmp_path / "hand_once.yaml").write_text(HAND_ONCE)
    told = [str(tmp_path / "hand_once.yaml"), "--world", "sim", "--policy", "drill", "--out", str(tmp_path / "out")]
    assert cli.main(["run", *told]) == 0
    assert cli.main(["run", *told, "--placebo"]) == 1, "it promises what holds without a force, too"
