"""What the account held on the exchange's books, and whether two writings of an amount are the same."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from typing import Any

from harness.drill.predicate import is_number
from harness.recording.rows import Row
from harness.verdict.case import Case

EPSILON = 1e-9
"""Two writings of one amount may differ by this much and no more."""


def agree(left: Any, right: Any) -> bool:
    """Equal; a number may be written as text, because ledgers do not trust binary fractions."""
    one, two = _number(left), _number(right)
    return abs(one - two) <= EPSILON if one is not None and two is not None else left == right


def at_most(less: Any, more: Any) -> bool:
    """Whether both are numbers, however written, and the first is not the larger one."""
    one, two = _number(less), _number(more)
    return one is not None and two is not None and one <= two + EPSILON


def _number(value: Any) -> float | None:
    if is_number(value):
        return float(value)
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None


def positions(case: Case, with_: Mapping[str, Any]) -> States:
    """Every state of the account on the books: the row that made it, and the size of each position after it."""
    found, sizes = States(), {}  # type: ignore[var-annotated]
    for row in case.of_kind(with_["books"], *with_["sizes"]):
        size = row.value.get(with_["sizes"].get(row.kind))
        if is_number(size):
            sizes = {**sizes, str(row.value.get("instrument")): float(size)}
            found.add(row, sizes)
    return found


class States:
    """States of the account, and when each may have begun."""

    def __init__(self) -> None:
        self._earliest: list[int] = []
        self._latest: list[int] = []
        self._sizes: list[Mapping[str, float]] = []
        self._in_time = True

    def add(self, row: Row, sizes: Mapping[str, float]) -> None:
        if self._sizes and (row.earliest < self._earliest[-1] or row.latest < self._latest[-1]):
            self._in_time = False
        self._earliest.append(row.earliest)
        self._latest.append(row.latest)
        self._sizes.append(sizes)

    def held(self, first: int, last: int) -> list[Mapping[str, float]]:
        """Each state in which the account was at some moment of a window, the one before its first row included."""
        if self._in_time:
            place = bisect_left(self._latest, first)
            return [self._sizes[place - 1] if place else {}, *self._sizes[place:bisect_right(self._earliest, last, place)]]
        states = list(zip(self._earliest, self._latest, self._sizes, strict=True))
        before = [sizes for _, latest, sizes in states if latest < first]
        return [before[-1] if before else {},
                *(sizes for earliest, latest, sizes in states if first <= latest and earliest <= last)]


def same_positions(own: Mapping[str, Any], held: Mapping[str, float]) -> bool:
    """The same size in every instrument; one that is not named is none."""
    return all(agree(own.get(name, 0), held.get(name, 0)) for name in {*own, *held})
