"""One check and its three values. ``PASS < INCONCLUSIVE < FAIL``: merging takes the worst.

A check says one plain sentence, the moment it speaks of (milliseconds on the tape's clock), and details. A check
that raises is INCONCLUSIVE with the exception named: a judge that stumbles accuses nobody and acquits nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["PASS", "INCONCLUSIVE", "FAIL"]
PASS: Verdict = "PASS"
INCONCLUSIVE: Verdict = "INCONCLUSIVE"
FAIL: Verdict = "FAIL"
_ORDER: tuple[Verdict, ...] = (PASS, INCONCLUSIVE, FAIL)


@dataclass(frozen=True, slots=True)
class Check:
    """What one rule says about one recording."""

    id: str
    verdict: Verdict
    says: str
    at: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "verdict": self.verdict, "says": self.says, "at": self.at, "details": dict(self.details)}


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict of a rule before it has a name."""

    verdict: Verdict
    says: str
    at: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def named(self, id: str) -> Check:
        return Check(id, self.verdict, self.says, self.at, self.details)


def passed(says: str, at: int | None = None, **details: Any) -> Finding:
    return Finding(PASS, says, at, details)


def unsure(says: str, at: int | None = None, **details: Any) -> Finding:
    return Finding(INCONCLUSIVE, says, at, details)


def failed(says: str, at: int | None = None, **details: Any) -> Finding:
    return Finding(FAIL, says, at, details)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of them; PASS of none."""
    return max(verdicts, key=_ORDER.index, default=PASS)


def guarded(id: str, judge: Callable[[], Finding]) -> Check:
    """The check, or INCONCLUSIVE with the exception's name."""
    try:
        return judge().named(id)
    except Exception as why:  # whatever a rule stumbles over must not become an acquittal
        return Check(id, INCONCLUSIVE, f"the check itself failed: {type(why).__name__}: {why}")
