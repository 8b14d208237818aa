"""Files that are there whole or not at all, and locks that die with whoever holds them."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def replace(file: Path, data: bytes) -> None:
    """Put ``data`` in the place of a file, under a temporary name first, so that no reader sees half of it.

    Raises OSError; the former file then stays as it was, and no part of the new one lies beside it.
    """
    temporary = file.with_name(f".{file.name}.partial")
    try:
        temporary.write_bytes(data)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)  # of a disk that was full


@contextmanager
def alone(lock: Path, *, wait: bool = True) -> Iterator[None]:
    """Nobody else holds this lock file meanwhile; it and its folder are made where they are missing, and it stays.

    Raises BlockingIOError when it is held and there is to be no waiting.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
