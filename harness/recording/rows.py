"""The rows of a node's stream, read by the block: a day of them is larger than the memory that a judge may take.

Everything is read once, whole: hashed, each line decoded, its kind remembered. What is looked at later is read again from
the disk, by blocks whose digest must be the one of the first reading; of a short stream every block stays in memory.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import merge
from pathlib import Path
from typing import Any, Protocol, overload

import msgspec
import orjson

from harness import limits, texts

BLOCK_BYTES = 65_536
BLOCKS_KEPT = 64
"""So many blocks of a stream stay in memory, decoded as far as anybody looked: at most about seven times their length."""


class Row(msgspec.Struct, frozen=True):
    """One row of a node's stream, written between ``earliest`` and ``latest`` on the tape's clock."""

    earliest: int
    latest: int
    value: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return str(self.value.get("kind", ""))


class Clock(Protocol):
    """Where a node's monotonic clock stands on the tape's."""

    def interval(self, mono: int) -> tuple[int, int]:
        """When the node's clock read ``mono``, on the tape's clock."""
        ...


class Book:
    """A stream's file. What was wrong with it is told in ``no_row`` and ``back``; ``lines``, ``size`` and ``sha256`` are what
    the seal speaks of. Raises TextError, OSError."""

    def __init__(self, file: Path, clock: Clock) -> None:
        self._file, self._clock = file, clock
        self.lines = self.size = 0
        self.no_row: int | None = None
        """the first line that is no row"""
        self.back: int | None = None
        """the first row that is stamped earlier than the one before"""
        self.kinds: list[str | None] = [None]
        self.kind = array("I")
        """of each row, the number of its kind"""
        self._begins, self._ends, self._first = array("Q"), array("Q"), array("Q")
        self._digests: list[bytes] = []
        self._kept: dict[int, list[Row | bytes]] = {}
        self._read()

    def __len__(self) -> int:
        return len(self.kind)

    def row(self, number: int) -> Row:
        return next(self.rows((number,)))

    def rows(self, numbers: Iterable[int]) -> Iterator[Row]:
        """These rows, one after the other. Raises ValueError where the file is not what it was."""
        first = past = 0
        for number in numbers:
            if not first <= number < past:
                block = bisect_right(self._first, number) - 1
                lines = self._block(block)
                first, past = self._first[block], self._first[block] + len(lines)
            row = lines[number - first]
            if type(row) is bytes:
                row = lines[number - first] = self._placed(orjson.loads(row))
            yield row  # type: ignore[misc]

    def _placed(self, value: dict[str, Any]) -> Row:
        return Row(*self._clock.interval(value["at"]), value)

    def _block(self, number: int) -> list[Row | bytes]:
        """The rows of a block, each as its line until somebody looks at it."""
        if number not in self._kept:
            with self._file.open("rb") as stream:
                stream.seek(self._begins[number])
                data = stream.read(self._ends[number] - self._begins[number])
            if _digest(data) != self._digests[number]:
                raise ValueError(f"{self._file.name} was changed while it was being judged")
            lines = data.splitlines()
            self._keep(number, [*lines] if self.no_row is None else [line for line in lines if _row(line) is not None])
        return self._kept[number]

    def _keep(self, number: int, rows: list[Row | bytes]) -> None:
        self._kept[number] = rows
        if len(self._kept) > BLOCKS_KEPT:
            del self._kept[next(iter(self._kept))]

    # ---- the first reading

    def _read(self) -> None:
        digest = hashlib.sha256()
        numbers: dict[str | None, int] = {None: 0}
        last: int | None = None
        for data in texts.blocks(self._file, limits.STREAM_BYTES_MAX, BLOCK_BYTES):
            digest.update(data)
            rows: list[Row | bytes] = []
            for number, line in enumerate(data.splitlines(), start=self.lines + 1):
                self.lines = number
                value = _row(line)
                if value is None:
                    self.no_row = self.no_row or number
                    continue
                kind, at = value.get("kind"), value["at"]
                said = kind if isinstance(kind, str) else None
                if last is not None and at < last and self.back is None:
                    self.back = len(self.kind) + 1
                last = at
                self.kind.append(numbers.setdefault(said, len(numbers)))
                rows.append(self._placed(value))
            self._begins.append(self.size)
            self.size += len(data)
            self._ends.append(self.size)
            self._first.append(len(self.kind) - len(rows))
            self._digests.append(_digest(data))
            self._keep(len(self._digests) - 1, rows)
        self.kinds = list(numbers)
        self.sha256 = digest.hexdigest()


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("at"), int) else None


class Rows(Sequence[Row]):
    """Some rows of a book, by their numbers; each is read when it is looked at."""

    def __init__(self, book: Book | None = None, numbers: Sequence[int] | None = None) -> None:
        self._book = book
        self._numbers: Sequence[int] = numbers if numbers is not None else range(len(book) if book is not None else 0)
        self._by_kind: dict[str | None, array[int]] | None = None

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Row]:
        return self._book.rows(self._numbers) if self._book is not None else iter(())

    @overload
    def __getitem__(self, which: int) -> Row: ...
    @overload
    def __getitem__(self, which: slice) -> Rows: ...
    def __getitem__(self, which: int | slice) -> Row | Rows:
        if isinstance(which, slice):
            return Rows(self._book, self._numbers[which])
        if self._book is None:
            raise IndexError(which)
        return self._book.row(self._numbers[which])

    def of_kind(self, *kinds: str | None) -> Rows:
        """Those of these kinds, in their order; None: those that are of no kind."""
        if self._by_kind is None:
            self._by_kind = self._sorted()
        found = [self._by_kind[kind] for kind in dict.fromkeys(kinds) if kind in self._by_kind]
        return Rows(self._book, found[0] if len(found) == 1 else array("I", merge(*found)))

    def _sorted(self) -> dict[str | None, array[int]]:
        if self._book is None:
            return {}
        found = [array("I") for _ in self._book.kinds]
        for number in self._numbers:
            found[self._book.kind[number]].append(number)
        return dict(zip(self._book.kinds, found, strict=True))

    def that(self, fits: Callable[[Row], bool]) -> Rows:
        """Those that fit, in their order."""
        return Rows(self._book, array("I", (number for number, row in zip(self._numbers, self, strict=True) if fits(row))))

    def in_time(self) -> Rows:
        """As they happened; a record that waited for the disk may stand behind a later one."""
        moments = array("q", (max(-2**63, min(row.earliest, 2**63 - 1)) for row in self))
        order = sorted(range(len(moments)), key=moments.__getitem__)
        return Rows(self._book, array("I", (self._numbers[place] for place in order)))

    def among(self, others: Rows) -> Rows:
        """Both, in the order of the book; without one, those of the other."""
        if self._book is not others._book and self._numbers and others._numbers:
            raise ValueError("rows of different streams")
        return Rows(self._book or others._book, array("I", merge(self._numbers, others._numbers)))
