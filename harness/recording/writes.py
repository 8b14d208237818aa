"""What became of a surface's file, change by change, kept as columns: a file of state is rewritten every second."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import overload

import msgspec

HOWS = ("replaced", "in_place", "appeared", "removed")
DIGEST_BYTES = 32
UNKNOWN = -1


class Written(msgspec.Struct, frozen=True):
    """The file of a surface changed within ``[begin, end]``."""

    surface: str
    begin: int
    end: int
    how: str
    """one of HOWS (tape.How)"""
    bytes: int | None
    """None where nobody could read what it then held, or nothing was there"""
    sha256: str | None


class Writes(Sequence[Written]):
    """All changes of one surface's file, in the order of the tape."""

    def __init__(self, surface: str) -> None:
        self._surface = surface
        self._times = array("q")
        """of each change its begin, its end, and how many bytes the file then held"""
        self._how, self._digests = bytearray(), bytearray()

    def add(self, written: Written) -> None:
        """Raises ValueError for what no watcher tells."""
        if written.how not in HOWS or written.end < written.begin or (written.bytes or 0) < 0:
            raise ValueError(f"no change of a file: {written.how[:20]!r} from {written.begin} to {written.end}")
        digest = bytes.fromhex(written.sha256) if written.sha256 else bytes(DIGEST_BYTES)
        if len(digest) != DIGEST_BYTES or (written.bytes is None) != (written.sha256 is None):
            raise ValueError("no digest of what it holds")
        try:
            self._times += array("q", (written.begin, written.end, UNKNOWN if written.bytes is None else written.bytes))
        except OverflowError as why:
            raise ValueError("no clock and no file shows such a number") from why
        self._how.append(HOWS.index(written.how))
        self._digests += digest

    def __len__(self) -> int:
        return len(self._how)

    @overload
    def __getitem__(self, which: int) -> Written: ...
    @overload
    def __getitem__(self, which: slice) -> list[Written]: ...
    def __getitem__(self, which: int | slice) -> Written | list[Written]:
        if isinstance(which, slice):
            return [self[place] for place in range(*which.indices(len(self)))]
        place = range(len(self))[which]
        return self._written(place, *self._times[3 * place:3 * place + 3])

    def __iter__(self) -> Iterator[Written]:
        times = iter(self._times)
        return map(self._written, range(len(self)), times, times, times)

    def _written(self, place: int, begin: int, end: int, size: int) -> Written:
        how = HOWS[self._how[place]]
        if size == UNKNOWN:
            return Written(self._surface, begin, end, how, None, None)
        digest = self._digests[place * DIGEST_BYTES:(place + 1) * DIGEST_BYTES]
        return Written(self._surface, begin, end, how, size, digest.hex())
