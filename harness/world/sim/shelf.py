"""Where a simulated node's lines are kept: the latest in memory, the older ones in a file without a name.

A virtual day of the reference stack is more than a gigabyte of rows, and no run may hold that. The world puts shelves
away as time passes (`Shelf.put_away`), never while a machine has its turn: a full disk under the evidence is our
trouble and must not look like a machine that raised.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

PUT_AWAY_BYTES = 65_536
"""Less than that stays in memory."""
BLOCK_BYTES = 1_048_576


class Shelf:
    """Lines, appended one by one. Only the last ones can be taken away again."""

    __slots__ = ("count", "size", "_recent", "_file", "_put_away")

    def __init__(self) -> None:
        self.count = 0
        self.size = 0
        """bytes of all lines, each with its newline"""
        self._recent = bytearray()
        self._file: IO[bytes] | None = None
        self._put_away = 0

    def __len__(self) -> int:
        return self.count

    def append(self, record: bytes) -> None:
        """Keep a record. Raises ValueError for one that is not one line."""
        if b"\n" in record:
            raise ValueError(f"a record is one line, this one is not: {record[:60]!r}")
        self._recent += record
        self._recent += b"\n"
        self.count += 1
        self.size += len(record) + 1

    def cut(self, count: int, size: int) -> None:
        """Take away so many of the last lines, which have so many bytes together."""
        self.count -= count
        self.size -= size
        if self.size < self._put_away:
            assert self._file is not None
            self._file.truncate(self.size)
            self._put_away = self.size
        del self._recent[self.size - self._put_away:]

    def put_away(self, folder: Path) -> None:
        """Move what is in memory to the file, which lies in that folder and has no name: nothing of it can be left."""
        if len(self._recent) < PUT_AWAY_BYTES:
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 open for as long as the shelf is
        self._file.seek(self._put_away)
        self._file.write(self._recent)
        self._file.flush()
        self._put_away += len(self._recent)
        self._recent.clear()

    def blocks(self) -> Iterator[bytes]:
        """All of it, in pieces of whole lines."""
        if self._file is not None:
            self._file.seek(0)
            while lines := self._file.readlines(BLOCK_BYTES):
                yield b"".join(lines)
        if self._recent:
            yield bytes(self._recent)

    def records(self) -> tuple[bytes, ...]:
        """Every line, without its newline."""
        return tuple(line for block in self.blocks() for line in block[:-1].split(b"\n"))
