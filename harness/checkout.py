"""What git says of a checkout: its commit, and what in it no commit holds."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

GIT_S_MAX = 10
CODE = ("harness", "system_under_test", "specs", "fixtures", "drills", "templates")
"""What decides what runs and how it is judged: here a file counts though git was told to ignore it, as a package does that
stands before a module of its name."""


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
    may be anything, so it counts; so does one that it was told to ignore, among what runs and judges."""
    told = _git(checkout, "status", "--porcelain", "--untracked-files=all", "--ignore-submodules=none", *where).splitlines()
    tracked = _git(checkout, "ls-files", "-v", *where).splitlines()
    beside = _git(checkout, "ls-files", "--others", "-z", "--", *CODE).split("\0")
    found = [*(line[3:] for line in told), *(line[2:] for line in tracked if line[0] == "S" or line[0].islower()),
             *(file for file in beside if file and not _is_compiled(file))]
    return list(dict.fromkeys(found))


def _is_compiled(file: str) -> bool:
    """What Python keeps of a source beside it; outside of that folder it would be loaded without one."""
    return file.endswith(".pyc") and Path(file).parent.name == "__pycache__"


def _git(checkout: Path, *words: str) -> str:
    """What git says. Raises OSError and SubprocessError. It asks the checkout, and not the repository that the environment or
    the tree that the repository's settings name; nor does it believe a watcher of files that may have died, a size and a date
    where more is known of a file, or a commit put in another's place, or hold up whoever works beside it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    whole = checkout.resolve()
    top = next((place for place in (whole, *whole.parents) if (place / ".git").exists()), None)
    here = () if top is None else (f"--git-dir={top / '.git'}", f"--work-tree={top}")
    strict = ("-c", "core.fsmonitor=false", "-c", "core.trustctime=true", "-c", "core.checkStat=default")
    return subprocess.run(["git", "--no-optional-locks", "--no-replace-objects", *here, *strict, *words], cwd=checkout,
                          env=environment, check=True, capture_output=True, text=True, errors="surrogateescape",
                          timeout=GIT_S_MAX).stdout
