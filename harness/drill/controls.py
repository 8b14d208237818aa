"""What a node's control port may be told: its switches and acts with their arguments, as ``specs/exchange/switches.yaml``
has them.

Names, types, words and bounds are known here. Which instruments, error codes and methods there are, the exchange alone knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.drill.words import KINDS, kind


@dataclass(frozen=True, slots=True)
class Argument:
    """What one argument may be; ``length`` bounds the characters of a text."""

    type: str
    required: bool = False
    enum: tuple[str, ...] = ()
    default: Any = None
    min: float | None = None
    max: float | None = None
    length: int | None = None

    @classmethod
    def read(cls, rules: Mapping[str, Any]) -> Argument:
        """Raises TypeError, KeyError or ValueError for rules of another shape."""
        found = cls(**{**rules, "enum": tuple(rules.get("enum", ()))})
        bounds = [each for each in (found.min, found.max, found.length) if each is not None]
        if not all(kind(each) == "a number" for each in bounds) or not all(isinstance(each, str) for each in found.enum):
            raise ValueError(f"a bound is a number and a word a text, not {dict(rules)}")
        if rules.keys() & {"min", "max"} and KINDS[found.type] != "a number" or \
                rules.keys() & {"enum", "length"} and KINDS[found.type] != "a text":
            raise ValueError(f"min and max are of a number, enum and length of a text, not {dict(rules)}")
        return found

    def fits(self, value: Any) -> bool:
        """Whether the argument may have the value. A number in quotes is a text."""
        if kind(value) != KINDS[self.type] or (self.type == "integer" and value != int(value)):
            return False
        if self.enum and value not in self.enum:
            return False
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max) \
            and (self.length is None or len(value) <= self.length)

    @property
    def says(self) -> str:
        """What fits, in words."""
        if self.enum:
            return f"one of {', '.join(self.enum)}"
        what = "a whole number" if self.type == "integer" else KINDS[self.type]
        if self.min is not None and self.max is not None:
            return f"{what}, {self.min:g} to {self.max:g}"
        least, most = (f" of at {side} {bound:g}" if bound is not None else ""
                       for side, bound in (("least", self.min), ("most", self.max)))
        return f"{what}{least}{most}{f' of at most {self.length} characters' if self.length is not None else ''}"


Arguments = Mapping[str, Argument]


def arguments_of(table: Mapping[str, Any]) -> Mapping[str, Arguments]:
    """Switch or act → its arguments, of one part of the file. Raises TypeError, KeyError, AttributeError or ValueError."""
    return {name: {argument: Argument.read(rules) for argument, rules in (told or {}).items()} for name, told in table.items()}
