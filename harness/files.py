"""Files that are there whole or not at all."""

from __future__ import annotations

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
