"""What is wrong with a state file: a finding with a severity, and the few helpers by which rules read foreign values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

from harness.contracts.reading import pointer, printable, shown
from harness.drill.predicate import is_number

Document = Mapping[str, Any]
Severity = Literal["breach", "deviation"]
Number = int | float


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule. ``path`` is an RFC 6901 pointer into ``file``; a *deviation* is what the contract lets pass."""

    tag: str
    path: str
    message: str
    severity: Severity = "breach"
    file: str = ""

    @property
    def place(self) -> str:
        """``nav.json#/nav``; the path alone where no file is named, the file alone where it is the whole of it."""
        return f"{self.file}#{self.path}" if self.file and self.path else self.file or self.path or "/"

    def __str__(self) -> str:
        tolerated = " (tolerated)" if self.severity == "deviation" else ""
        return printable(f"[{self.tag}] {self.place}: {self.message}{tolerated}")


def deviation(tag: str, path: str, message: str, file: str = "") -> Finding:
    """A finding that the contract tolerates."""
    return Finding(tag, path, message, "deviation", file)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a number may be from what it follows from (specs/state/surfaces.yaml argues why)."""

    absolute: float
    relative: float

    def near(self, found: Number, expected: Number) -> bool:
        """Whether the one may be the other, written or computed in another way. What overflows is near to nothing."""
        return found == expected or (math.isfinite(expected)
                                     and abs(found - expected) <= self.absolute + self.relative * abs(expected))

    def off(self, found: Any, expected: Number) -> TypeGuard[Number]:
        """Whether a number is not what it should be. What is no number the schema says."""
        return is_number(found) and not self.near(found, expected)

    def follows(self, path: str | tuple[str, ...], found: Any, expected: Number, source: str) -> Iterator[Finding]:
        """A finding where a number is not what its source, told with a verb, gives. The path may be told by its parts: there is
        hardly ever anything to be found."""
        if self.off(found, expected):
            yield recomputed(path if isinstance(path, str) else pointer(*path), found, expected, source)


def recomputed(path: str, found: Number, expected: Number, source: str) -> Finding:
    """Of a number that is off."""
    return Finding("RECOMPUTED", path, f"{shown(found)}, and {source} {expected:.9g}")


def mapping(value: Any) -> Mapping[str, Any]:
    """The object itself; nothing where it is none, which the schema says."""
    return value if type(value) is dict or isinstance(value, Mapping) else {}  # the first is what JSON gives


def rows(value: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(place, row) of a list's objects; what is no object the schema names."""
    return ((place, row) for place, row in enumerate(value if isinstance(value, list) else ())
            if type(row) is dict or isinstance(row, Mapping))
