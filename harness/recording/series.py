"""What a predicate says over time: yes, no or unknown in every slot, kept as the pieces in which it said the same."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, overload

import msgspec

from harness import limits
from harness.recording.columns import Grid, Stretch, clipped, without
from harness.recording.columns import within as both


class Point(msgspec.Struct, frozen=True):
    """What a predicate says in one interval: yes, no, or unknown (None)."""

    asked: int
    answered: int
    holds: bool | None


class Piece(NamedTuple):
    """Neighbouring slots of a grid, ``first`` up to ``past``, in which it said the same."""

    grid: Grid
    first: int
    past: int
    holds: bool | None

    def point(self, slot: int) -> Point:
        return Point(self.grid.asked[slot], self.grid.answered[slot], self.holds)

    def after(self, moment: int) -> Point | None:
        """The first point that was asked later."""
        slot = bisect_right(self.grid.asked, moment, self.first, self.past)
        return self.point(slot) if slot < self.past else None


class Series(Sequence[Point]):
    """Points in time, kept as pieces."""

    __slots__ = ("grid", "pieces")

    def __init__(self, grid: Grid, pieces: Iterable[tuple[int, int, bool | None]]) -> None:
        self.grid = grid
        self.pieces: list[Piece] = []
        first, past, holds = 0, 0, None
        for begin, end, said in pieces:  # neighbours that say the same are one
            if begin == past and said is holds:
                past = end
                continue
            if first < past:
                self.pieces.append(Piece(grid, first, past, holds))
            first, past, holds = begin, end, said
        if first < past:
            self.pieces.append(Piece(grid, first, past, holds))

    @classmethod
    def of(cls, points: Iterable[Point]) -> Series:
        """Points in time as a series."""
        grid = Grid()
        holds: list[bool | None] = []
        for each in points:
            holds.insert(grid.add(each.asked, each.asked, each.answered), each.holds)
        return cls(grid, ((slot, slot + 1, said) for slot, said in enumerate(holds)))

    def __len__(self) -> int:
        return sum(each.past - each.first for each in self.pieces)

    def __iter__(self) -> Iterator[Point]:
        return (piece.point(slot) for piece in self.pieces for slot in range(piece.first, piece.past))

    @overload
    def __getitem__(self, which: int) -> Point: ...
    @overload
    def __getitem__(self, which: slice) -> list[Point]: ...
    def __getitem__(self, which: int | slice) -> Point | list[Point]:
        return list(self)[which]

    def only(self, stretches: Iterable[Stretch]) -> Series:
        """The points in these slots."""
        return Series(self.grid, clipped(((each.first, each.past, each.holds) for each in self.pieces), stretches))

    def inside(self, begin: int, end: int | None = None) -> Series:
        """The points that were asked at or after begin, and answered at or before end where there is one."""
        return self.only(self.grid.inside(begin, end))

    def among(self, others: Iterable[Point]) -> list[Piece]:
        """The pieces with those of other points, in time."""
        pieces = list(self.pieces)
        for point in sorted(others, key=_moment):
            extra = Series.of([point]).pieces
            index = next((index for index, each in enumerate(pieces) if _moment(point) < _moment(each.point(each.past - 1))),
                         len(pieces))
            if index == len(pieces):
                pieces += extra
                continue
            grid, first, past, holds = pieces[index]
            slot = next(slot for slot in range(max(first, bisect_left(grid.asked, point.asked, first, past)), past)
                        if _moment(point) < (grid.asked[slot], grid.answered[slot]))
            pieces[index:index + 1] = [each for each in (Piece(grid, first, slot, holds), *extra,
                                                         Piece(grid, slot, past, holds)) if each.first < each.past]
        return pieces

    def known(self, grain_ms: int) -> list[Stretch]:
        """Slots that say yes or no, were answered within a grain, and lie no further than that from one another."""
        found: list[Stretch] = []
        said = [(each.first, each.past) for each in self.pieces if each.holds is not None]
        slow = [(slot, slot + 1) for each in said for slot in self.grid.slow(grain_ms, *each)]
        for first, past in without(said, slow):
            edges = [first, *self.grid.holes(grain_ms, first, past), past]
            found += zip(edges, edges[1:], strict=False)
        return found


def _moment(point: Point) -> tuple[int, int]:
    return point.asked, point.answered


def together(*series: Series) -> Iterator[tuple[int, int, tuple[bool | None, ...]]]:
    """(first, past, what each says) of series that speak of the same slots. Raises ValueError for others."""
    grid, size = series[0].grid, len(series[0])
    if any(each.grid is not grid or len(each) != size for each in series):
        raise ValueError("series of different slots")
    pieces = [each.pieces for each in series]
    places = [0] * len(series)
    at = 0
    while all(place < len(each) for place, each in zip(places, pieces, strict=True)):
        current = [each[place] for place, each in zip(places, pieces, strict=True)]
        first, past = max(at, *(piece.first for piece in current)), min(piece.past for piece in current)
        if first < past:
            yield first, past, tuple(piece.holds for piece in current)
        at = past
        for index, piece in enumerate(current):
            places[index] += piece.past == past


def within(points: Series, begin: int, end: int) -> Series:
    """The points that lie wholly in ``[begin, end]``."""
    return points.inside(begin, end)


def grain_of(period_ms: int) -> int:
    """How far apart usable samples of a surface may be that is asked so often."""
    return limits.GRAIN_PERIODS * period_ms + limits.GRAIN_SLACK_MS


def gaps(points: Series, begin: int, end: int, grain_ms: int,
         waived: Sequence[tuple[int, int]] = ()) -> list[tuple[int, int]]:
    """Stretches of ``[begin, end]`` in which no usable sample was asked for longer than the grain.

    A sample that took longer than the grain to answer is not usable: it knows one instant of a stretch too long.
    Stretches inside a waived window (a node that a declared fault keeps down), widened by a grain, do not count, nor those
    inside of several that then touch: the node may be down again before anybody could look.
    """
    if end <= begin:
        return []
    found = [gap for gap in _unseen(points, begin, end, grain_ms) if gap[1] - gap[0] > grain_ms]
    excused = _joined((low - grain_ms, high + grain_ms) for low, high in waived)
    return [gap for gap in found if not any(low <= gap[0] and gap[1] <= high for low, high in excused)]


def _joined(windows: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same time in as few windows as there can be."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(windows):
        if found and low <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], high)
        else:
            found.append((low, high))
    return found


def _unseen(points: Series, begin: int, end: int, grain_ms: int) -> Iterator[tuple[int, int]]:
    """From where to where nothing is known, between the last thing known before begin and the first one after end; what
    is further than a grain outside does not count."""
    asked, seen = points.grid.asked, begin
    near = points.grid.asked_in(begin - grain_ms, end + grain_ms)
    for first, past in both(points.known(grain_ms), [near]):
        if asked[first] > begin:
            yield seen, asked[first]
        seen = asked[past - 1]
        if seen >= end:
            return
    yield seen, end
