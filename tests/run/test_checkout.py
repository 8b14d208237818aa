"""What a recording says of the checkout: a commit that is not what lies there is never told as if it were."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.checkout import git_of, uncommitted
from harness.session import ROOT
from harness.world.real.nodes import inherited

DRILL = ROOT / "drills" / "phase2" / "2_market_data_stale.yaml"
OLD = 1_000_000_000


def git(checkout: Path, *words: str) -> None:
    subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@x", *words], cwd=checkout, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one file, committed."""
    place = tmp_path / "checkout"
    place.mkdir()
    git(place, "init", "-q")
    (place / "code.py").write_text("one\n")
    git(place, "add", ".")
    git(place, "commit", "-qm", "one")
    assert git_of(place)["commit"] and git_of(place)["dirty"] is False
    return place


def test_a_file_that_no_commit_holds(checkout: Path) -> None:
    """Also where the person's git is told not to look for such files."""
    git(checkout, "config", "status.showUntrackedFiles", "no")
    (checkout / "extra.py").write_text("extra\n")
    assert git_of(checkout)["dirty"] is True


@pytest.mark.parametrize("hidden", ["--assume-unchanged", "--skip-worktree"])
def test_a_change_that_git_was_told_to_overlook(checkout: Path, hidden: str) -> None:
    """Git says nothing of such a file, so nothing is known of it, whether it was changed or not."""
    git(checkout, "update-index", hidden, "code.py")
    (checkout / "code.py").write_text("two\n")
    assert git_of(checkout)["dirty"] is True


def overlook(checkout: Path, other: Path, how: str) -> None:
    """Change what runs without a word of git's ``status`` about it."""
    judge, shadow = checkout / "harness" / "judge.py", checkout / "harness" / "judge" / "__init__.py"
    if how in ("exclude", "ignore"):
        (checkout / ".git/info/exclude").write_text("harness/judge/\n" if how == "exclude" else "")
        shadow.parent.mkdir()
        shadow.write_text("soft\n")
        return
    if how == "worktree":
        shutil.copytree(checkout, other)
        git(checkout, "config", "core.worktree", str(other))
    if how == "stat":
        git(checkout, "config", "core.trustctime", "false")
        git(checkout, "config", "core.checkStat", "minimal")
        time.sleep(1.1)  # git looks at the seconds
    judge.write_text("soft\n" if how == "stat" else "softened\n")
    os.utime(judge, (OLD, OLD))
    if how == "replace":
        git(checkout, "commit", "-qam", "soft")
        git(checkout, "replace", "HEAD~", "HEAD")
        git(checkout, "reset", "-q", "--soft", "HEAD~")


@pytest.mark.parametrize("how", ["exclude", "ignore", "worktree", "stat", "replace"])
def test_code_that_git_was_told_to_overlook(checkout: Path, tmp_path: Path, how: str) -> None:
    """A package that stands before a module and is ignored, the files of another clone, a change of the same size and date,
    and a commit in the place of another. What Python compiled is no change."""
    (checkout / "harness/__pycache__").mkdir(parents=True)
    (checkout / "harness/__pycache__/judge.cpython-313.pyc").write_bytes(b"compiled")
    (checkout / "harness/judge.py").write_text("hard\n")
    (checkout / ".gitignore").write_text("__pycache__/\n" + "judge/\n" * (how == "ignore"))
    os.utime(checkout / "harness/judge.py", (OLD, OLD))
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "two")
    assert git_of(checkout)["dirty"] is False and uncommitted(checkout) is None
    overlook(checkout, tmp_path / "other", how)
    assert git_of(checkout)["dirty"] is True and str(uncommitted(checkout)).startswith("harness/judge")


def test_a_linked_worktree_is_a_checkout_too(checkout: Path, tmp_path: Path) -> None:
    """Its ``.git`` is a file; what is asked is the tree at hand, and not the first one. So is a folder within one."""
    git(checkout, "worktree", "add", "-q", str(tmp_path / "linked"))
    (tmp_path / "linked" / "within").mkdir()
    assert git_of(tmp_path / "linked" / "within") == git_of(tmp_path / "linked") == git_of(checkout)
    (tmp_path / "linked" / "code.py").write_text("two\n")
    assert (git_of(tmp_path / "linked")["dirty"], git_of(checkout)["dirty"]) == (True, False)


def test_another_repository_in_the_environment(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a hook of git exports it: the checkout is asked all the same."""
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-qm", "other", "--allow-empty")
    (checkout / "code.py").write_text("two\n")
    before = git_of(checkout)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert git_of(checkout) == before and before["dirty"] is True


def test_no_repository_at_all(tmp_path: Path) -> None:
    """No commit, and dirty: which no gate accepts."""
    assert git_of(tmp_path) == {"commit": None, "dirty": True}


@pytest.mark.parametrize("name", ["system_under_test", "mytrader"])
def test_code_from_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    """In the sim machines are imported: by PYTHONPATH, another copy would run than the one whose digest the head tells."""
    elsewhere, mine = tmp_path / "elsewhere", tmp_path / "mine"
    if name == "system_under_test":
        shutil.copytree(ROOT / name, elsewhere / name)
    for folder in (elsewhere, mine):
        folder.mkdir(exist_ok=True)
        (folder / "mytrader.py").write_text("from system_under_test.trader import make\n")
    shutil.copytree(ROOT / "system_under_test" / "policies", mine / "policies")
    stack = (ROOT / "system_under_test" / "stack.yaml").read_text()
    (mine / "stack.yaml").write_text(stack.replace("system_under_test.trader:make", "mytrader:make"))
    path = os.pathsep.join(map(str, (elsewhere, ROOT, mine)))
    done = subprocess.run([sys.executable, "-m", "harness.cli", "run", str(DRILL), "--world", "sim", "--policy", "drill"],
                          cwd=mine, env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stdout
    assert f"module {name}: found {elsewhere}" in done.stderr


def test_a_node_reads_the_specs_of_its_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules that no digest knows are none: a folder in the person's environment is not handed on."""
    monkeypatch.setenv("SPECS", "/elsewhere")
    assert "SPECS" not in inherited()
