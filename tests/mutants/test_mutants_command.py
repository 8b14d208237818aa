"""``drillproof mutants``: a catalogue is data of whoever brings it; the matrix says who noticed, and the exit code too."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import mutants
from harness.arguments import STACK
from harness.cli import drill_files, main
from harness.errors import UsageError
from harness.pack.matrix import read
from harness.session import ROOT
from harness.world.stack import load_stack

ROW = {"name": "never stale", "organ": "market", "machine": "market:never_stale", "drill": "2_market_data_stale",
       "caught_by": "latched", "says": "not yet", "sentence": "Silence is not noticed."}


def catalogue(folder: Path, *rows: dict[str, Any], **changes: Any) -> Path:
    file = folder / "catalogue.yaml"
    head = {"node": "trader", "package": "system_under_test.mutants"}
    file.write_text(yaml.safe_dump({**head, "mutants": list(rows), **changes}))
    return file


def command(folder: Path, *arguments: str) -> list[str]:
    return ["mutants", "--out", str(folder / "evidence"), "--jobs", "2", *arguments]


def stack_with(folder: Path, line: str) -> Path:
    """The reference stack with another line about its catalogue."""
    file = folder / "stack.yaml"
    file.write_text(STACK.read_text().replace("mutants: mutants/catalogue.yaml", line)
                    .replace("policies/", f"{STACK.parent}/policies/"))
    return file


def test_a_matrix_says_who_noticed(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """Two drills, one sabotage of a catalogue that a user brought: caught by name in one, not noticed in the other."""
    drills = ["--drills", "2_market_data_stale", "11_clock_drift"]
    stack = stack_with(tmp_path, f"mutants: {catalogue(tmp_path, ROW)}")
    code = main(command(tmp_path, *drills, "--json", "--stack", str(stack)))
    out = capsysbinary.readouterr().out
    document = json.loads(out)
    (row,) = document["mutants"]
    assert code == 0
    assert {"drill": "2_market_data_stale", "check": "latched"} in row["caught_by"]
    assert (row["caught"], row["survived"]) == (True, ["11_clock_drift"])
    assert [(each["drill"], each["verdict"]) for each in document["controls"]] == [
        ("2_market_data_stale", "PASS"), ("11_clock_drift", "PASS")]
    (kept,) = (tmp_path / "evidence" / "mutants").iterdir()
    assert kept.read_bytes() == out and not isinstance(read(out), str)
    assert mutants.of_this_build(tmp_path / "evidence", stack, drill_files(drills[1:])) is not None
    assert mutants.of_this_build(tmp_path / "evidence", stack, drill_files(["phase2"])) is None
    (tmp_path / "catalogue.yaml").write_text((tmp_path / "catalogue.yaml").read_text() + "# another\n")
    assert mutants.of_this_build(tmp_path / "evidence", stack, drill_files(drills[1:])) is None


@pytest.mark.parametrize("named", ["mutants: mutants/catalogue.yaml", ""])
def test_a_matrix_of_another_catalogue_is_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str], named: str) -> None:
    """One sabotage that somebody chose would pass for all that the stack names, in packs and the next `make drills`."""
    stack = stack_with(tmp_path, named.replace("mutants/", f"{STACK.parent}/mutants/"))
    code = main(command(tmp_path, "--drills", "2_market_data_stale", "--stack", str(stack), "--catalogue",
                        str(catalogue(tmp_path, ROW))))
    assert code == 0 and "Not kept: its catalogue is not the one that" in capsys.readouterr().out
    assert list((tmp_path / "evidence" / "mutants").iterdir()) == []


def test_one_that_slips_through_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Red for another reason than its own is slipping through, too, and the reason is told."""
    other = {**ROW, "caught_by": "counters_monotone", "says": "fell"}
    assert main(command(tmp_path, "--quick", "--only", "market", "--catalogue", str(catalogue(tmp_path, other)))) == 1
    assert "failed instead of counters_monotone" in capsys.readouterr().out


@pytest.mark.parametrize(("rows", "changes", "found"), [
    ([{**ROW, "organ": ""}], {}, "mutant 1: expected the texts"),
    ([{**ROW, "says": " "}], {}, "mutant 1: expected the texts"),
    ([{**ROW, "extra": "x"}], {}, "mutant 1: expected the texts"),
    ([ROW, {**ROW, "machine": "market:ignores_gaps"}], {}, "two mutants have the name 'never stale'"),
    ([ROW, {**ROW, "name": "other"}], {}, "two mutants have the machine"),
    ([ROW], {"node": "trade"}, "no node 'trade'"),
    ([{**ROW, "node": "exchnage"}], {}, "no node 'exchnage'"),
    ([], {}, "names no mutant"),
    ([{**ROW, "machine": "nowhere:never_stale"}], {}, "no module 'system_under_test.mutants.nowhere'"),
    ([ROW, {**ROW, "name": "other", "machine": "market:ignores_gaps", "drill": "5_book_gap_late_fils"}], {},
     "mutant 2: no drill '5_book_gap_late_fils' (nearest: 5_book_gap_late_fill"),
])
def test_a_wrong_catalogue_is_refused_by_row(tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[dict[str, Any]],
                                             changes: dict[str, Any], found: str) -> None:
    """Exit code 2, before anything runs."""
    assert main(command(tmp_path, "--quick", "--catalogue", str(catalogue(tmp_path, *rows, **changes)))) == 2
    assert found in capsys.readouterr().err


def test_who_is_asked_for_must_exist(tmp_path: Path) -> None:
    """A mistyped organ is no empty matrix; a stack without a catalogue says how to give one."""
    with pytest.raises(UsageError, match="nearest: ledger"):
        mutants.plan(STACK, None, drill_files(["phase2"]), ["ledgr"], world="sim", policy="drill", seed=1, quick=True)
    bare = stack_with(tmp_path, "")
    with pytest.raises(UsageError, match="--catalogue FILE"):
        mutants.plan(bare, None, drill_files(["phase2"]), [], world="sim", policy="drill", seed=1, quick=True)


def test_the_plan_has_every_pair_once() -> None:
    """Full: each sabotage under each drill, and the healthy system under each; quick: each under its own."""
    files = drill_files(["phase2"])
    full, quick = (mutants.plan(STACK, None, files, [], world="sim", policy="drill", seed=1, quick=quick)
                   for quick in (False, True))
    assert len(full.cells) == len(set(full.cells)) == (len(full.mutants) + 1) * len(files)
    assert quick.cells == [*((None, drill) for drill in quick.drills), *((each, each.drill) for each in quick.mutants)]
    others = [each for each in full.catalogue.mutants if each.drill not in full.drills]
    assert full.left_out == quick.left_out == len(others) > 0  # of the sets ops and state
    assert [order.machines for order in quick.orders(Path("x"))][: len(files)] == [{}] * len(files)


def test_interrupted_it_leaves_nothing(tmp_path: Path) -> None:
    """SIGINT: exit code 130, no matrix, no work folder."""
    process = subprocess.Popen([sys.executable, "-m", "harness.cli", *command(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.readline()  # the first sabotage has been judged
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"no matrix was made" in told
    assert list((tmp_path / "evidence" / "mutants").iterdir()) == []


def test_a_row_may_spoil_another_node(tmp_path: Path) -> None:
    """Which machine is replaced is said by the row, else by the catalogue."""
    rows = [ROW, {**ROW, "name": "other", "machine": "market:ignores_gaps", "node": "watchdog"}]
    made = mutants.plan(STACK, catalogue(tmp_path, *rows), drill_files(["2_market_data_stale"]), [], world="sim",
                        policy="drill", seed=1, quick=True)
    assert [order.machines for order in made.orders(tmp_path)] == [
        {}, {"trader": "system_under_test.mutants.market:never_stale"},
        {"watchdog": "system_under_test.mutants.market:ignores_gaps"}]


def test_the_catalogue_of_the_reference_stack_is_read() -> None:
    """The stack names it, and every row is whole."""
    stack = load_stack(STACK)
    assert stack.mutants is not None
    assert len(mutants.read_catalogue(stack.mutants, stack).mutants) >= 30
