"""The table of forms is sound: whatever the luck of sampling, it never accuses a promise kept nor clears one broken.

A hidden signal is known at every millisecond; samples see it at one instant of their interval, marks lie somewhere in
theirs. The judge gets the intervals only, and its word is compared with the truth.
"""

from __future__ import annotations

import bisect
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.drill.model import Always, Converge, Count, Deploy, Drill, Fault, Given, Within
from harness.drill.predicate import of_plain
from harness.recording.columns import Sample, Track
from harness.recording.rows import Row
from harness.recording.timeline import Mark, Timeline
from harness.verdict.case import Case
from harness.verdict.promises import converges, judge
from harness.verdict.rules import load_rules

ROOT = Path(__file__).parents[2]
RULES = load_rules(ROOT)
YES = of_plain({"s": {"on": True}})
END, EVERY, GRAIN = 6_000, 50, 150
QUIET = Drill("d", "t", (), "", {"s": EVERY}, Given(YES, 1, 1, idle=True), (), (), (), None, Converge(YES, 2_000, 500))


class World:
    """A signal that changes at given moments (each stretch longer than the grain), and how it was sampled."""

    def __init__(self, draw: Any) -> None:
        steps = draw(st.lists(st.integers(GRAIN + 60, 2_000), max_size=5))
        self.changes = [sum(steps[: n + 1]) for n in range(len(steps))]
        self.starts = draw(st.booleans())
        self.samples = []
        lost = draw(st.sets(st.integers(0, END // EVERY), max_size=12))
        for number, asked in enumerate(range(0, END, EVERY)):
            takes = draw(st.integers(0, 40))
            seen = asked + draw(st.integers(0, takes))
            self.samples.append(Sample("s", asked, asked, asked + takes,
                                       None if number in lost else {"on": self.holds(seen)}))

    def holds(self, at: int) -> bool:
        return self.starts ^ bool(bisect.bisect_right(self.changes, at) % 2)

    def stretch(self, begin: int, end: int) -> list[bool]:
        """Every value that the signal takes in [begin, end]."""
        return [self.holds(begin), *(self.holds(at) for at in self.changes if begin < at <= end)]


def mark_around(draw: Any, name: str, true: int) -> Mark:
    return Mark(name, true - draw(st.integers(0, 30)), true + draw(st.integers(0, 30)))


def case_of(world: World, *marks: Mark) -> Case:
    timeline = Timeline(Path("/nowhere"), marks={mark.name: mark for mark in marks})
    timeline._tracks["s"] = Track.of(world.samples)
    return Case(timeline, QUIET, RULES, {})


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_within_never_lies(data: st.DataObject) -> None:
    """FAIL only if it began too late or did not stay; PASS only if it began in time (by a sample's breadth) and stayed."""
    world = World(data.draw)
    true = data.draw(st.integers(100, 2_000))
    bound = data.draw(st.integers(GRAIN, 2_500))
    until = data.draw(st.none() | st.integers(true + bound + 100, END - 400))
    after = mark_around(data.draw, "m", true)
    marks = [after] + ([mark_around(data.draw, "n", until)] if until is not None else [])
    promise = Within("w", bound, "m", YES, "n" if until is not None else None)
    verdict = judge(promise, case_of(world, *marks)).verdict
    begun = next((at for at in range(true, END) if world.holds(at)), None)
    if until is None:
        if verdict == "FAIL":
            assert begun is None or begun > true or not all(world.stretch(true, true + bound))
            assert False in world.stretch(true + bound, END)
        if verdict == "PASS":
            assert begun is not None and begun <= after.end + bound
    elif verdict == "PASS":
        stays = range(after.begin + bound, marks[1].begin - GRAIN)
        assert all(world.stretch(stays.start, max(stays.start, stays.stop)))
    elif verdict == "FAIL":
        assert False in world.stretch(true, until)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_within_that_is_well_kept_is_never_accused(data: st.DataObject) -> None:
    """On from the mark to the end: not FAIL. Off all the time: not PASS."""
    world = World(data.draw)
    after = mark_around(data.draw, "m", data.draw(st.integers(100, 3_000)))
    verdict = judge(Within("w", 500, "m", YES), case_of(world, after)).verdict
    seen = world.stretch(after.begin, END)
    if all(seen):
        assert verdict != "FAIL"
    if not any(seen):
        assert verdict != "PASS"


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_always_never_lies(data: st.DataObject) -> None:
    """FAIL only if it was off between the marks; PASS only if no stretch of off lies between them."""
    world = World(data.draw)
    begin = data.draw(st.integers(100, 2_000))
    end = data.draw(st.integers(begin + 500, END - 400))
    since, until = mark_around(data.draw, "m", begin), mark_around(data.draw, "n", end)
    verdict = judge(Always("a", YES, None, "m", "n"), case_of(world, since, until)).verdict
    if verdict == "FAIL":
        assert False in world.stretch(begin, end)
    if verdict == "PASS":
        assert all(world.stretch(since.end + GRAIN, until.begin - GRAIN))


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_converging_never_lies(data: st.DataObject) -> None:
    """PASS only if it really lasted; FAIL only if nothing that began in time did."""
    world = World(data.draw)
    healed = mark_around(data.draw, "healed", data.draw(st.integers(100, 2_500)))
    case = case_of(world, healed)
    clause = case.drill.converge
    verdict = converges(case).verdict
    lasting = [at for at in (healed.begin, *world.changes) if healed.begin <= at <= healed.end + clause.within_ms
               and world.holds(at) and all(world.stretch(at, at + clause.for_ms + 2 * GRAIN))]
    if verdict == "FAIL":
        assert not [at for at in lasting if at + clause.for_ms + 2 * GRAIN < END and healed.end <= at
                    and at + EVERY + 40 - healed.begin <= clause.within_ms]
    if verdict == "PASS":
        begins = [at for at in (healed.begin, *world.changes) if world.holds(at)]
        assert any(all(world.stretch(max(at, healed.begin), max(at, healed.begin) + clause.for_ms - GRAIN)) for at in begins)


class Counting(Case):
    """A build begins at 1 s, the next at 14 s, and the event happened twice while the first was there."""

    def __init__(self, ready_ms: int) -> None:
        deploys = tuple(Fault(id, at_ms, 1_000, Deploy("node", "b")) for id, at_ms in (("new", 1_000), ("next", 14_000)))
        marks = {"new": Mark("new", 1_000, ready_ms), "next": Mark("next", 14_000, 15_000)}
        super().__init__(Timeline(Path("/nowhere"), marks=marks), replace(QUIET, faults=deploys), RULES, {})

    def rows(self, event: str) -> Any:
        return [Row(at, at, {}) for at in (13_000, 13_500)]

    def not_whole(self, *streams: str) -> None:
        return None


@pytest.mark.parametrize(("ready_ms", "at_least", "verdict"), [
    (2_500, 2, "PASS"), (2_500, 3, "FAIL"), (5_000, 3, "FAIL"), (5_001, 3, "INCONCLUSIVE"), (12_000, 3, "INCONCLUSIVE")])
def test_a_start_that_ate_the_window_accuses_nobody(ready_ms: int, at_least: int, verdict: str) -> None:
    """Too few is a broken promise where there was time for more, and says nothing where a slow start left none."""
    promise = Count("c", "order.opened", at_least, None, "new", "next")
    assert judge(promise, Counting(ready_ms)).verdict == verdict
