"""Everything that can go wrong, as one tree.

    DrillproofError                 70  our own fault, unless a subclass says otherwise
    ├── UsageError                   2  wrong usage or set-up: the person can mend it
    │   ├── TextError                2  bad input text, with file:line:column, found, expected, nearest
    │   ├── SpecError                2  a file under specs/ or fixtures/ is missing or contradicts itself
    │   └── RunLogError              2  evidence/runs.jsonl is broken
    ├── Refused                      3  this world cannot do what the drill asks, named before it starts
    ├── WorldError                   3  the world failed: a fault was not applied, a node did not start
    │   ├── NotApplied               3  an inject that could not be read back
    │   └── NotHealed                3  an undo that could not be carried out
    └── PackError                    1  a pack is altered, incomplete or mixed

``code`` is the exit code of a command that ends by the error (DESIGN, section 4).
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class DrillproofError(Exception):
    """Root of the tree; the message is what a person reads."""

    code = 70


class UsageError(DrillproofError):
    code = 2


class TextError(UsageError):
    """Bad input text. ``str()`` gives ``file:line:column: found X, expected Y (nearest: Z)``."""

    def __init__(
        self, file: str, line: int, column: int, found: str, expected: str, nearest: str | None = None
    ) -> None:
        hint = f" (nearest: {nearest})" if nearest else ""
        super().__init__(f"{file}:{line}:{column}: found {found}, expected {expected}{hint}")
        self.file, self.line, self.column = file, line, column
        self.found, self.expected, self.nearest = found, expected, nearest


class SpecError(UsageError):
    pass


class RunLogError(UsageError):
    pass


class Refused(DrillproofError):
    code = 3


class WorldError(DrillproofError):
    code = 3


class NotApplied(WorldError):
    pass


class NotHealed(WorldError):
    pass


class PackError(DrillproofError):
    code = 1


def nearest(name: str, known: Iterable[str], alike: float = 0.6) -> str | None:
    """The known name that looks most like ``name``, or None when nothing is close."""
    found = get_close_matches(name, list(known), n=1, cutoff=alike)
    return found[0] if found else None


def hint(name: str, known: Iterable[str]) -> str:
    """`` (nearest: …)`` for the end of a message, or nothing where nothing is close."""
    near = nearest(name, known)
    return f" (nearest: {near})" if near else ""
