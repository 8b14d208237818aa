"""What a recording says of the checkout: a commit that is not what lies there is never told as if it were."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.session import git_of


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
