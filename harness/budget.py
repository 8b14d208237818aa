"""``evidence/budget.yaml``: by how much a pack may be worse than the past before `compare` says so with its exit code."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import limits, texts
from harness.texts import Spot

BUDGET_FILE = "budget.yaml"
MS_MAX = limits.DRILL_DURATION_MS_MAX


@dataclass(frozen=True, slots=True)
class Limits:
    """What one drill may do. Slower is beyond the budget only when it is so by both measures."""

    slower_ms: int = 250
    """a time to safe may be so much above the longest of the past runs; sampling alone moves it by 50 ms"""
    slower_ratio: float = 1.25
    """and so many times as long"""
    at_most_ms: int | None = None
    """and never above this, whatever the past was; null: no such bound"""
    more_missed: int = 20
    """so many samples more may be missed than in the worst of the past runs"""
    new_reasons: int = 0
    """so many modes, reasons and codes may be new, that no pack at hand has told before"""


@dataclass(frozen=True, slots=True)
class Budget:
    """``past_runs_min``: with fewer past runs than that nobody can tell change from chance: what got slower, quieter or
    new is told then, and does not count. ``baseline``: the pack that ``compare baseline …`` means, and that ``prune``
    never takes away."""

    every: Limits = Limits()
    drills: Mapping[str, Limits] = field(default_factory=dict)
    past_runs_min: int = 5
    baseline: str | None = None

    def of(self, drill: str) -> Limits:
        """The limits of one drill."""
        return self.drills.get(drill, self.every)


def budget_file(evidence: Path, root: Path) -> Path | None:
    """The budget of a folder of evidence, else that of the checkout; None where neither has one."""
    return next((each for each in (evidence / BUDGET_FILE, root / "evidence" / BUDGET_FILE) if each.is_file()), None)


def read_budget(file: Path | None, known: Collection[str] | None = None) -> Budget:
    """The budget in a file; the defaults without one. Raises OSError, and TextError, too, for a drill that is none of the
    ``known`` ones, where they are given: its bounds would hold nobody."""
    if file is None:
        return Budget()
    found = texts.settings(file, "a budget").known(("past_runs_min", "baseline", "every", "drills"))
    every = _limits(found["every"], Limits()) if "every" in found else Limits()
    own = found["drills"].mapping() if "drills" in found else {}
    if stranger := next((each for each in own if known is not None and each not in known), None):
        raise own[stranger][0].wrong("a drill of these packs or of the checkout", known or (), f"the drill {stranger!r}")
    drills = {name: _limits(each, every) for name, (_, each) in own.items()}
    past = found["past_runs_min"].integer(1, 10_000, "a whole number of at least 1") if "past_runs_min" in found else 5
    baseline = _or_null(found["baseline"]) if "baseline" in found else None
    return Budget(every, drills, past, baseline)


def _or_null(spot: Spot) -> str | None:
    return None if spot.json() is None else spot.text("a pack's name, or null")


def _limits(spot: Spot, base: Limits) -> Limits:
    found = spot.known(("slower_ms", "slower_ratio", "at_most_ms", "more_missed", "new_reasons"))
    whole = {name: found[name].integer(0, MS_MAX, "a whole number of milliseconds or samples, from 0 on")
             for name in ("slower_ms", "more_missed", "new_reasons") if name in found}
    limited = replace(base, **whole)
    if "slower_ratio" in found:
        limited = replace(limited, slower_ratio=_ratio(found["slower_ratio"]))
    if "at_most_ms" in found:
        none = found["at_most_ms"].json() is None
        at_most = None if none else found["at_most_ms"].integer(1, MS_MAX, "a whole number of milliseconds, or null")
        limited = replace(limited, at_most_ms=at_most)
    return limited


def _ratio(spot: Spot) -> float:
    value = spot.json()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 1000:
        raise spot.wrong("a ratio from 1 to 1000, such as 1.25")
    return float(value)
