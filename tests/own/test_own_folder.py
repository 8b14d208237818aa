"""In the folder of a system of one's own every command means that system and its drills, and none of them is passed over."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import main
from harness.session import ROOT

STALE = "2_market_data_stale"
NEVER_STALE = ("system_under_test.trader:make", "system_under_test.mutants.market:never_stale")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system of one's own whose trader does not notice silence, with one drill."""
    reference = ROOT / "system_under_test"
    shutil.copytree(reference / "policies", tmp_path / "policies")
    (tmp_path / "stack.yaml").write_text((reference / "stack.yaml").read_text().replace(*NEVER_STALE)
                                         .replace("mutants: mutants/catalogue.yaml", "mutants: mine.yaml"))
    (tmp_path / "drills").mkdir()
    shutil.copy(ROOT / "drills" / "phase2" / f"{STALE}.yaml", tmp_path / "drills")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pytested(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, "--world", "sim",
               "--drill-policy", "drill", "--drill-out", str(cwd / "evidence")]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240)


def test_pytest_means_the_system_of_the_folder(folder: Path) -> None:
    """As ``drillproof run`` does; ``--stack`` names another, and the command that repeats it does, too."""
    own = pytested(folder, "drills")
    assert own.returncode == 1 and "FAIL latched" in own.stdout, own.stdout
    assert "--stack" not in own.stdout
    named = pytested(ROOT, str(folder / "drills"), "--stack", str(folder / "stack.yaml"), "--placebo")
    assert named.returncode == 1 and f"--stack {os.path.relpath(folder, ROOT)}/stack.yaml" in named.stdout, named.stdout
    reference = pytested(folder, "drills", "--stack", str(ROOT / "system_under_test" / "stack.yaml"))
    assert reference.returncode == 0, reference.stdout


def test_mutants_are_those_of_the_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The catalogue that the stack of the folder names, under the drills of the folder."""
    (folder / "mine.yaml").write_text("node: trader\npackage: system_under_test.mutants\nmutants:\n  - {name: mine, "
                                      "organ: reports, machine: 'reports:goes_quiet', drill: 2_market_data_stale, "
                                      "caught_by: latched, says: not yet, sentence: x}\n")
    assert main(["mutants", "--quick", "--out", "evidence", "--jobs", "1"]) == 1
    out = capsys.readouterr().out
    assert "mine" in out and "never stale" not in out
