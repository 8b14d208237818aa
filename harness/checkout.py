"""What git says of a checkout: its commit, and what in it no commit holds."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

GIT_S_MAX = 10


def git_of(checkout: Path) -> dict[str, Any]:
    """``{commit, dirty}``; commit is None outside a repository, which no gate accepts."""
    try:
        return {"commit": _git(checkout, "rev-parse", "HEAD").strip(), "dirty": bool(_changed(checkout))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": True}


def uncommitted(checkout: Path) -> str | None:
    """The first thing in a checkout that no commit holds, or why nobody can tell; None where a commit holds all of it.
    ``evidence/`` is no part of it: a pack may be committed, and the next one there changes nothing of what makes it."""
    try:
        changed = _changed(checkout, "--", ".", ":(exclude)evidence")
    except subprocess.CalledProcessError:
        return "git does not know the checkout at hand"
    except (OSError, subprocess.SubprocessError):
        return "git could not be asked"
    return f"{changed[0]}{f' and {len(changed) - 1} more' * (len(changed) > 1)}" if changed else None


def _changed(checkout: Path, *where: str) -> list[str]:
    """The files that are not as the commit has them. One that git was told to overlook (``ls-files -v``: a small letter, or S)
    may be anything, so it counts."""
    told = _git(checkout, "status", "--porcelain", "--untracked-files=all", "--ignore-submodules=none", *where).splitlines()
    tracked = _git(checkout, "ls-files", "-v", *where).splitlines()
    return [*(line[3:] for line in told), *(line[2:] for line in tracked if line[0] == "S" or line[0].islower())]


def _git(checkout: Path, *words: str) -> str:
    """What git says. Raises OSError and SubprocessError. It asks the checkout, and not the repository that the environment
    names, as a hook's does; nor does it believe a watcher of files that may have died, or hold up whoever works beside it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *words], cwd=checkout, env=environment,
                          check=True, capture_output=True, text=True, errors="surrogateescape", timeout=GIT_S_MAX).stdout
