"""Many seeds of the same drills: how they are asked for, what is said while they run, and the table at the end.

A healthy system passes under every seed, so what is worth a line is what did not. The run log knows every run; of a
sweep, the folders of runs that PASSED are thrown away unless somebody asks to keep them, because they fill a disk and
the sim makes the very same one again from its seed. What is thrown away is said.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from harness import console
from harness.errors import UsageError
from harness.session import Result

SEEDS_MAX = 10_000
"""More seeds than this in one command are a slip of the finger: they would take a day."""

SEED_MAX = 2**63 - 1
VERDICTS = ("PASS", "INCONCLUSIVE", "FAIL")
LISTED_MAX = 50
"""Runs that did not pass, told one by one, before the rest is only counted."""

RANGE = re.compile(r"(?P<first>[0-9]{1,19})(?:\.\.(?P<last>[0-9]{1,19}))?", re.ASCII)


def parse_seeds(text: str) -> tuple[int, ...]:
    """``7`` · ``0..99`` (both ends included) · ``1,5,8..10``, in the order given. Raises UsageError."""
    seeds: dict[int, None] = {}
    for part in text.split(","):
        found = RANGE.fullmatch(part.strip())
        if found is None:
            raise UsageError(f"--seeds: found {part.strip()!r}, expected whole numbers such as 7, 0..99 or 1,5,8..10")
        first = int(found["first"])
        last = int(found["last"]) if found["last"] is not None else first
        if last < first:
            raise UsageError(f"--seeds: {part.strip()} runs backwards; write {last}..{first}")
        if last > SEED_MAX:
            raise UsageError(f"--seeds: {last} is more than a seed may be ({SEED_MAX})")
        if last - first + 1 + len(seeds) > SEEDS_MAX:
            raise UsageError(f"--seeds: {text.strip()[:40]} names more than {SEEDS_MAX} seeds")
        seeds |= dict.fromkeys(range(first, last + 1))
    return tuple(seeds)


@dataclass(frozen=True, slots=True)
class Tally:
    """What came of one drill under all seeds."""

    drill: str
    counts: Mapping[str, int]
    safe_ms_max: int | None
    """the longest time to safe of any seed; None when none of them has one"""

    def to_json(self) -> dict[str, Any]:
        return {"drill": self.drill, **{word: self.counts.get(word, 0) for word in VERDICTS},
                "time_to_safe_ms_max": self.safe_ms_max}


def tallies(results: Sequence[Result]) -> list[Tally]:
    """One for each drill, in the order in which they were asked for."""
    by_drill: dict[str, list[Result]] = {}
    for each in results:
        by_drill.setdefault(each.drill, []).append(each)
    return [Tally(drill, Counter(each.verdict for each in found),
                  max((each.time_to_safe_ms for each in found if each.time_to_safe_ms is not None), default=None))
            for drill, found in by_drill.items()]


def repeating(result: Result, options: Sequence[str]) -> str:
    """The command that does one run again; ``options`` are those of the sweep that decide what a run does."""
    return " ".join(["drillproof run", result.drill, "--world", result.world, "--seed", str(result.seed), *options])


def render(results: Sequence[Result], options: Sequence[str], seeds: Sequence[int], stream: TextIO) -> str:
    """The closing table, and every run that did not pass with its reason and the command that repeats it."""
    rows = [["drill", *(f"{word:>{len(word)}}" for word in VERDICTS), "safe after, at most"]]
    for tally in tallies(results):
        safe = f"{tally.safe_ms_max} ms" if tally.safe_ms_max is not None else "-"
        rows.append([tally.drill, *(f"{tally.counts.get(word, 0) or '·':>{len(word)}}" for word in VERDICTS), safe])
    lines = [console.table(rows, stream)]
    bad = [each for each in results if each.verdict != "PASS"]
    counts = Counter(each.verdict for each in results)
    told = ", ".join(f"{counts[word]} {console.painted(word, stream)}" for word in VERDICTS if counts[word])
    runs, under = console.counted(len(results), "run"), console.counted(len(seeds), "seed")
    lines += ["", f"{runs} under {under}: {told}"]
    for each in bad[:LISTED_MAX]:
        why = console.plain(each.says[0]) if each.says else f"the run was {each.status}"
        more = f" (and {len(each.says) - 1} more)" if len(each.says) > 1 else ""
        lines += ["", f"{console.painted(each.verdict, stream)} {each.drill} seed {each.seed}: {why}{more}",
                  f"  again: {repeating(each, options)}"]
        if each.recording:
            lines.append(f"  recording: {console.shown(each.recording)}")
    if len(bad) > LISTED_MAX:
        lines += ["", f"… and {len(bad) - LISTED_MAX} more that did not pass; --json tells them all"]
    return "\n".join(lines)


class Progress(console.Progress):
    """Live progress of a sweep: on a terminal what is running and how far it is, elsewhere a line a seed; and always,
    at once, whatever did not pass."""

    def __init__(self, names: Sequence[str], seeds: Sequence[int], stream: TextIO = sys.stderr) -> None:
        """``names`` and ``seeds`` of the runs, both by index."""
        super().__init__([f"{name} seed {seed}" for name, seed in zip(names, seeds, strict=True)], stream)
        self._seeds = seeds
        self._left = Counter(seeds)
        self._bad: Counter[int] = Counter()

    def __call__(self, index: int, word: str, facts: Mapping[str, Any]) -> None:
        """An event of run ``index``; the shape is fleet.Watcher's."""
        self._since.setdefault(index, self._clock())
        if word == "done" or self._live:
            super().__call__(index, word, facts)

    def _finish(self, index: int, result: Any) -> None:
        seed = self._seeds[index]
        self._left[seed] -= 1
        self._bad[seed] += result.verdict != "PASS"
        if result.verdict == "PASS":
            self._passed(index)
        else:
            super()._finish(index, result)
        if not self._left[seed] and not self._live:
            bad = self._bad[seed]
            self._print(f"  seed {seed}: " + (f"{bad} did not pass" if bad else "all passed")
                        + f" ({self._done} of {console.counted(len(self._names), 'run')}, {self._elapsed()})")

    def _told(self) -> str:
        bad = sum(self._bad.values())
        return super()._told() + (f", {bad} did not pass" if bad else "")
