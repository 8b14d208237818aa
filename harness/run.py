"""The whole life of a drill, top to bottom: start, given, inject, heal, converge, stop.

It cannot branch on what was seen: worlds return nothing but whether the given held and whether the end
converged, and everything else goes to the tape. Healing sits in one ``finally`` that no path skips.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from harness import limits
from harness.drill.model import Drill, Fault, Stimulus
from harness.errors import NotHealed, WorldError
from harness.recording.tape import Tape
from harness.world import World

LEAD_MS = limits.MOMENTS_MS_MIN
"""Zero lies so far ahead of the moment at which the given has held, and every act is begun so far before its own moment:
what need not wait for it (an undo written down, a witness asked before) is done by then."""

DAY_MS = 86_400_000

TAIL_MS = 500
"""Watched after convergence, so that the last promise has usable samples on both sides of its end."""

STOP_FAILURES_MAX = 2
"""A world whose stop failed is asked once more: what it had not come to is then done."""

Progress = Callable[[str, Mapping[str, Any]], None]


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM, as an exception that no ``except Exception`` swallows."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run; whether it was good is the judge's business."""

    status: str
    """completed | refused | aborted | interrupted"""
    why: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One act on the drill's clock."""

    at_ms: int
    order: int
    verb: str
    """heal | press | inject: at one moment, what ends comes before what begins"""
    thing: Fault | Stimulus


def steps(drill: Drill) -> tuple[Step, ...]:
    """Every act of the drill in the order in which it happens."""
    found = [Step(each.at_ms, 2, "inject", each) for each in drill.faults]
    found += [Step(each.at_ms + each.for_ms, 0, "heal", each) for each in drill.faults]
    found += [Step(each.at_ms, 1, "press", each) for each in drill.stimuli]
    return tuple(sorted(found, key=lambda step: (step.at_ms, step.order, step.thing.id)))


def refusals(drill: Drill, world: World) -> tuple[str, ...]:
    """Why this world cannot carry out this drill, each reason once with the acts it is about; empty when it can."""
    acts = [(each.id, each.force) for each in drill.faults] + [(each.id, each) for each in drill.stimuli]
    reasons: dict[str, list[str]] = {}
    for id, act in acts:
        if (why := world.refuses(act)) is not None:
            reasons.setdefault(why, []).append(id)
    needs = drill.needs(world.name)
    unfit = (f"{drill.name}: needs {needs}, and this is {world.name}",) if needs else ()
    return (*unfit, *(f"{', '.join(ids)}: {why}" for why, ids in reasons.items()))


def run(drill: Drill, world: World, tape: Tape, head: Mapping[str, Any], progress: Progress) -> Outcome:
    """Run one drill in one world onto one tape; always seals the tape. Raises nothing the drill can cause;
    a fault of our own is raised once the world is stopped and the tape sealed.

    ``head`` holds the digests of drill, stack, policy and rules; ``progress`` is called with a word and facts.
    """
    for surface, every_ms in drill.sample.items():
        world.watch(surface, every_ms)
    tape.head(**head, **world.describe())
    if refused := refusals(drill, world):
        tape.seal("refused", {})
        return Outcome("refused", refused)
    with _Signals(world) as signals:
        try:
            with signals.raised():
                outcome = _live(drill, world, tape, signals.between(progress))
        except Interrupted as why:
            outcome = Outcome("interrupted", (str(why),))
        except WorldError as why:  # after a signal: healing failed, which takes nothing from having been interrupted
            outcome = Outcome("interrupted" if signals.heard else "aborted", _reasons(why))
        except BaseException as why:  # a fault of ours or of the set-up: it is told, after everything has ended in order
            _stop(world, tape, Outcome("aborted", (f"{type(why).__name__}: {why}",)), signals)
            raise
        progress("stopping", {})
        return _stop(world, tape, outcome, signals)


def _reasons(why: WorldError) -> tuple[str, ...]:
    """The failure; before it, the one that it came up in: what could not be healed is not why healing began."""
    first = (why.__context__,) if isinstance(why, NotHealed) and isinstance(why.__context__, WorldError | Interrupted) else ()
    return tuple(f"{type(each).__name__}: {each}" for each in (*first, why))


def _live(drill: Drill, world: World, tape: Tape, progress: Progress) -> Outcome:
    progress("starting", {})
    begin = world.now_ms()
    world.start(tape)
    tape.mark("started", begin, world.now_ms())

    progress("given", {"within_ms": drill.given.within_ms})
    given = _steady(drill, world)
    if given is not None and drill.given.one_day and (rest_ms := DAY_MS - world.wall_ms() % DAY_MS) <= drill.lasts_ms + LEAD_MS:
        progress("tomorrow", {"in_ms": rest_ms})
        world.advance_to(world.now_ms() + rest_ms + LEAD_MS)
        given = _steady(drill, world)
    if given is None:
        return Outcome("aborted", (f"given did not hold for {drill.given.for_ms} ms within {drill.given.within_ms} ms",))
    zero = world.now_ms() + LEAD_MS
    tape.mark("given", given, zero)

    _trouble(drill, world, tape, zero, progress)

    progress("converge", {"within_ms": drill.converge.within_ms})
    by_ms = world.now_ms() + drill.converge.within_ms
    converged = world.advance_until(drill.converge.predicate, drill.converge.for_ms, by_ms)
    if converged is not None:
        tape.mark("converge", converged, world.now_ms())
    world.advance_to(world.now_ms() + TAIL_MS)
    return Outcome("completed")


def _steady(drill: Drill, world: World) -> int | None:
    """Since when the given has held for as long as it must, or None."""
    return world.advance_until(drill.given.predicate, drill.given.for_ms, world.now_ms() + drill.given.within_ms)


def _trouble(drill: Drill, world: World, tape: Tape, zero: int, progress: Progress) -> None:
    """Carry out every step on its moment; whatever happens, everything injected is healed before this returns."""
    standing: dict[str, Fault] = {}
    try:
        for at_ms, found in groupby(steps(drill), key=lambda step: step.at_ms):
            now = list(found)
            world.advance_to(zero + at_ms - LEAD_MS)
            for step in now:
                progress(step.verb, {"id": step.thing.id, "at_ms": at_ms})
                if step.verb == "inject" and isinstance(step.thing, Fault):
                    standing[step.thing.id] = step.thing
            world.carry_out(zero + at_ms, [(step.verb, step.thing) for step in now])
            for step in now:
                if step.verb == "heal":
                    del standing[step.thing.id]
    finally:
        _heal_all(tuple(standing.values()), world, tape)


def _heal_all(standing: tuple[Fault, ...], world: World, tape: Tape) -> None:
    """Heal what still stands, latest first. One that cannot be healed never keeps the others from it."""
    begin, failed = world.now_ms(), []
    for fault in reversed(standing):
        try:
            world.heal(fault)
        except WorldError as why:
            failed.append(f"{fault.id}: {why}")
    tape.mark("healed", begin, world.now_ms())
    if failed:
        raise NotHealed("; ".join(failed))


def _stop(world: World, tape: Tape, outcome: Outcome, signals: _Signals) -> Outcome:
    """Stop the world and seal the tape. However often a signal comes in between, stopping goes on where it was."""
    streams: Mapping[str, Any] = {}
    failures = 0
    while failures < STOP_FAILURES_MAX:
        try:
            begin = world.now_ms()
            streams = world.stop()
            tape.mark("stopped", begin, world.now_ms())
            break
        except Interrupted as why:
            outcome = Outcome("interrupted", (*outcome.why, str(why)))
        except WorldError as why:
            outcome = Outcome("aborted", (*outcome.why, f"{type(why).__name__}: {why}"))
            failures += 1
    if signals.heard and outcome.status != "interrupted":
        outcome = Outcome("interrupted", (*outcome.why, signals.heard))
    tape.seal(outcome.status, streams)
    return outcome


class _Signals:
    """The first SIGINT or SIGTERM becomes ``Interrupted`` while the drill lives, by way of the world if that is at work;
    elsewhere it is only noted.

    Later ones change nothing, and stopping is never cut short: it has its own deadlines, and a signal that struck
    between two lines of it could cost the seal. Whoever cannot wait has ``kill -9``, and the janitor then does the rest.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.heard = ""
        self._raises = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        try:
            for each in (signal.SIGINT, signal.SIGTERM):
                self._before[each] = signal.signal(each, self._hear)
        except ValueError:  # not the main thread (a test runner's worker): its signals are not ours to take
            self._before = {}
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    @contextmanager
    def raised(self) -> Iterator[None]:
        """In here the first one raises, also one that came before."""
        self._raises = True
        try:
            if self.heard:
                raise Interrupted(self.heard)
            yield
        finally:
            self._raises = False

    def between(self, progress: Progress) -> Progress:
        """Progress is told between two verbs, and there a signal raises that a library's bare ``except`` swallowed."""
        def tell(word: str, facts: Mapping[str, Any]) -> None:
            if self.heard:
                raise Interrupted(self.heard)
            progress(word, facts)

        return tell

    def _hear(self, number: int, _frame: object) -> None:
        if self.heard:
            return
        self.heard = signal.Signals(number).name
        if self._raises and not self._world.interrupt(why := Interrupted(self.heard)):
            raise why
