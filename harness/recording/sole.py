"""Who may write a run folder, and who may read it, while several commands work side by side.

Equal runs of the sim have equal names, so two that are asked for at once would write one folder. The writer holds the
kernel's lock on the folder itself: nothing lies about afterwards, and whoever is killed lets go. Where a file system
knows no such locks, everybody goes ahead as if alone.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Nobody else writes or reads this folder meanwhile; it is made where it is missing. Yields whether it was there."""
    while True:
        before = folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _lock(handle, fcntl.LOCK_EX)
            if _is_still(handle, folder):
                yield before
                return
        finally:
            os.close(handle)  # the one that we waited for took the folder away: once more


@contextmanager
def settled(folder: Path) -> Iterator[None]:
    """Nobody writes this folder meanwhile. What is not there needs no waiting."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        _lock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def is_busy(folder: Path) -> bool:
    """Whether somebody writes this folder now."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no locks here
        return False
    finally:
        os.close(handle)
    return False


def _lock(handle: int, kind: int) -> None:
    try:
        fcntl.flock(handle, kind)
    except OSError:  # a file system without locks: one command at a time is then the person's business
        return


def _is_still(handle: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), folder.stat())
    except FileNotFoundError:
        return False
