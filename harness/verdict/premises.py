"""Was this a fair trial? What must hold before a promise can be held against the system.

A premise is PASS or INCONCLUSIVE, with one exception: a system that opens and fills no order while its given holds
has FAILED, because the sealed books say so. When a premise is not PASS, no promise is decided.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from operator import lt
from typing import Any

import orjson

from harness.drill.check import verb_of
from harness.drill.model import (
    Answers,
    Call,
    Clock,
    Deploy,
    Disk,
    Drill,
    Fault,
    Fill,
    Kill,
    Overwrite,
    Pause,
    RawToxic,
    Remove,
    Stimulus,
)
from harness.drill.predicate import is_number, same
from harness.errors import SpecError
from harness.recording.columns import elsewhere_none, within
from harness.recording.series import Series, grain_of
from harness.recording.timeline import Probe
from harness.verdict.case import Case, Window, sha256_of
from harness.verdict.check import Check, Finding, failed, guarded, passed, unsure
from harness.verdict.files import optional_files

STANDING_SHARE_MIN, STANDING_SLACK_MS = 0.9, 250
"""A fault must have stood for this share of its planned time; applying and healing real forces takes a little of it, of a short
one never more than half."""

GRAIN_MS_MAX = 1_000
"""A drill may declare a coarser grain for a loaded machine, but not one under which nothing needs to be seen."""

SAMPLING_TAIL_MS = 250
"""The sampler is stopped with the world: the last slots before the mark may not have been written any more."""

USABLE_SHARE_MIN = 0.9
"""Of the slots outside declared down times: below it the recording is too sparse to speak of the run as a whole."""


def premises(case: Case) -> list[Check]:
    """Every premise, in the order of the run."""
    checks = [
        guarded("recording", partial(_recording, case)),
        guarded("same_inputs", partial(_same_inputs, case)),
        guarded("substance", partial(_substance, case)),
        guarded("clocks", partial(_clocks, case)),
        guarded("limits", partial(_limits, case)),
        guarded("given", partial(_given, case)),
        guarded("traded", partial(_traded, case)),
        guarded("sampling", partial(_sampling, case)),
    ]
    checks += [guarded(f"landed:{fault.id}", partial(landed, fault, case)) for fault in case.drill.faults]
    checks += [guarded(f"pressed:{each.id}", partial(_pressed, each, case)) for each in case.drill.stimuli]
    return [*checks, guarded("healed", partial(_healed, case))]


# ---- the recording itself ---------------------------------------------------------------------------------


def _recording(case: Case) -> Finding:
    """Whole, sealed, and of a run that went to its end."""
    timeline = case.timeline
    if timeline.status != "completed":
        return unsure(f"the run was {timeline.status}", damage=list(timeline.damage))
    if (disturbed := case.mark("disturbed")) is not None:
        return unsure("what is no part of the drill was at work", disturbed.begin)
    if timeline.damage:
        return unsure(timeline.damage[0], damage=list(timeline.damage))
    return passed("the recording is whole and sealed", streams=list(timeline.streams))


def _same_inputs(case: Case) -> Finding:
    """Drill, stack and policy in the folder are those that the head names."""
    folder, head = case.timeline.folder, case.timeline.head
    found = {"drill": sha256_of(folder / "drill.yaml"), "stack": sha256_of(folder / "stack.yaml"),
             "policy": hashlib.sha256(orjson.dumps(case.policy, option=orjson.OPT_SORT_KEYS)).hexdigest()}
    other = [name for name, digest in found.items()
             if not isinstance(head.get(name), Mapping) or head[name].get("sha256") != digest]
    if other:
        return unsure(f"the {' and the '.join(other)} in the folder is not the one that was run", other=other)
    return passed("drill, stack and policy are those that were run")


def _substance(case: Case) -> Finding:
    """Something was broken, and something was promised: a drill without either proves nothing."""
    drill = case.drill
    if not drill.faults and not drill.stimuli:
        return unsure("the drill breaks nothing")
    if not drill.promises:
        return unsure("the drill promises nothing")
    return passed(f"{len(drill.faults)} faults, {len(drill.stimuli)} stimuli, {len(drill.promises)} promises")


def _clocks(case: Case) -> Finding:
    """A node's monotonic clock begins anew only when a declared fault ends its life."""
    for node in dict.fromkeys(case.timeline.stream(name).node for name in case.timeline.streams):
        began, lives = case.timeline.clock_began(node), 1 + len(case.restarts(node))
        if began > lives:
            return unsure(f"the clock of {node} contradicts itself: it began {began} times in {lives} lives")
    return passed("every clock ran on")


def _limits(case: Case) -> Finding:
    hit = case.timeline.limits
    if hit:
        return unsure(f"limit: {', '.join(sorted(hit))}", hit=dict(sorted(hit.items())))
    return passed("no limit was hit")


# ---- the steady state -------------------------------------------------------------------------------------


def _given(case: Case) -> Finding:
    """The given held, in samples, for its whole time up to zero."""
    mark, clause = case.mark("given"), case.drill.given
    if mark is None:
        return unsure("the given never held: the mark is missing")
    surfaces = clause.predicate.surfaces
    points = case.series(clause.predicate)
    begin = mark.begin - clause.for_ms
    # of several surfaces that were asked at the moment the hold begins, the first was paired with an older look at the rest
    seen = points.inside(begin + 1, mark.begin).pieces
    broken = next((each for each in seen if each.holds is False), None)
    if broken is not None:
        return unsure("the given was broken before zero", broken.grid.asked[broken.first])
    if not any(each.holds for each in seen):        # one that is shorter than the grain may lie in a hole that nobody minds
        return unsure("the given was not seen to hold")
    # the hold is counted from an answer, so its first sample was asked up to a grain before
    holes = case.gaps(points, surfaces, begin + case.grain_ms(surfaces), mark.begin)
    if holes:
        return unsure(f"no usable sample for {holes[0][1] - holes[0][0]} ms while the given held", holes[0][0])
    return passed(f"the given held for {clause.for_ms} ms", mark.begin)


def _traded(case: Case) -> Finding:
    """An order was opened and filled on the books before zero, so that there is something to lose."""
    if case.drill.given.idle:
        return passed("this drill wants a system at rest")
    if none := case.lacks(*case.streams_of_all(case.rules.traded)):
        return passed(f"not asked: the stack has no {none}")
    zero = case.zero
    if zero is None:
        return unsure("the given never held: the mark is missing")
    missing = case.not_traded(0, zero)
    if not missing:
        return passed("an order was opened and filled on the books before zero")
    why = case.not_whole(*case.streams_of_all(case.rules.traded))
    if why is not None:
        return unsure(why)
    return failed(f"there was no {' and no '.join(missing)} on the books while the given held", zero)


def _sampling(case: Case) -> Finding:
    """Every slot of every surface stands in the recording, nearly all are usable, and no hole is longer than the grain.

    What a declared down time excuses does not count, nor that a file which may be absent is absent. A status that answers
    only when all is well is no witness.
    """
    begin, shares, optional = case.zero or 0, {}, optional_files(case)
    for surface, period in case.drill.sample.items():
        grain = case.grain_ms([surface])
        if grain > max(GRAIN_MS_MAX, grain_of(period)):
            return unsure(f"{surface}: a grain of {grain} ms asks for nothing")
        dues, asked, usable = _slots(case, surface, begin, grain, surface in optional)
        if missing := _missing(dues, period, begin, case.end):
            return unsure(f"{missing} slots of {surface} are not in the recording")
        shares[surface] = round(usable / asked, 4) if asked else float(surface in optional)
        if shares[surface] < USABLE_SHARE_MIN:
            return unsure(f"too few usable samples: {surface} {100 * shares[surface]:.0f} %", usable=shares)
        seen = _looked_for(case, surface) if surface in optional else case.answers(surface)
        holes = case.gaps(seen, (surface,), begin, case.end)
        if holes:
            return unsure(f"{surface} was not seen for {holes[0][1] - holes[0][0]} ms, longer than the grain of {grain} ms",
                          holes[0][0], usable=shares, gaps=[list(hole) for hole in holes])
    return passed("every surface was sampled densely", usable=shares)


def _looked_for(case: Case, surface: str) -> Series:
    """Yes where a file that may be absent was read, or was found to be absent."""
    track, usable = case.timeline.track(surface), case.timeline.usable(surface)
    absent = [(slot, slot + 1) for slot in range(len(track)) if track.why(slot) == "missing"]
    return Series(track.grid, elsewhere_none([(0, len(track), True)], sorted([*usable, *absent]), len(track)))


def _slots(case: Case, surface: str, begin: int, grain_ms: int, optional: bool) -> tuple[Sequence[int], int, int]:
    """The moments at which slots were due; how many of them no declared down time excuses; how many of those are usable."""
    track = case.timeline.track(surface)
    grid = track.grid
    weighed = bytearray(b"\1") * len(grid)
    for slot in range(len(grid)) if optional else ():
        weighed[slot] = track.why(slot) != "missing"
    for first, past in case.timeline.usable(surface):
        weighed[first:past] = b"\2" * (past - first)
    for low, high in case.waived([surface]):       # what was usable all the same counts
        first, past = grid.asked_in(low - grain_ms, high + grain_ms)
        weighed[first:past] = weighed[first:past].replace(b"\1", b"\0")
    dues, kept = array("q"), bytearray()
    for due, weight in zip(grid.regular(grid.due), grid.regular(weighed), strict=True):
        if begin <= due <= case.end:
            dues.append(due)
            kept.append(weight)
    return dues, len(kept) - kept.count(0), kept.count(2)


def _missing(dues: Sequence[int], period: int, begin: int, end: int) -> int:
    """How many slots of the grid are not there; a slot still under way when the world stopped is none."""
    ordered = dues if all(map(lt, dues, islice(dues, 1, None))) else sorted({*dues})
    if not ordered:
        return max((end - begin) // period, 1)
    inner = sum((after - before - 1) // period for before, after in pairwise(ordered)) + (len(dues) - len(ordered))
    return inner + (ordered[0] - begin) // period + max((end - ordered[-1] - SAMPLING_TAIL_MS) // period, 0)


# ---- faults and stimuli -----------------------------------------------------------------------------------


def landed(fault: Fault, case: Case) -> Finding:
    """The witnesses of specs/witnesses.yaml saw the fault at work between its marks."""
    window = case.window(fault)
    if window is None:
        return unsure(f"the fault was never applied: the mark {fault.id} is missing")
    if case.timeline.placebo:
        return passed("placebo: the force was left out on purpose and is assumed to have landed", window[0])
    if not any(act.id == fault.id and act.step == "applied" for act in case.timeline.acts):
        return unsure("nothing says that the fault was applied", window[0])
    kind, rules = witness_kind(fault, case.drill), case.rules.witnesses
    conditions = rules["forces"].get(kind)
    if not conditions:
        return unsure(f"specs/witnesses.yaml has no witness for {kind}")
    seen = _seen(fault, case, window)
    if short := _too_short(fault, case):
        return unsure(short, window[0])
    missed = [_shown(each) for each in conditions if not _holds(each, fault, seen)]
    if missed:
        return unsure(f"the fault was not seen to land: not {' and not '.join(missed)}", window[0],
                      probes=_summary(seen))
    if (answered := _answered_on(fault, case, seen)) is not None:
        surface, moment = answered
        return unsure(f"the fault was not seen to land: {surface} answered while its node was down", moment,
                      probes=_summary(seen))
    return passed(f"{kind} was seen to land: {' and '.join(map(_shown, conditions))}", window[0],
                  probes=_summary(seen))


def _answered_on(fault: Fault, case: Case, seen: _Seen) -> tuple[str, int] | None:
    """The surface of a killed or paused node that was asked and answered while it was down, and when it was asked.

    Whatever it answers: what was killed is then no more than the shell around what serves. A file is there without whoever
    wrote it.
    """
    if not isinstance(fault.force, (Kill, Pause)):
        return None
    asked_over_ports = (name for name in case.timeline.surfaces
                        if case.timeline.node_of(name) == fault.force.node and case.timeline.file_of(name) is None)
    for surface in asked_over_ports:
        track = case.timeline.track(surface)
        for low, _ in within(track.heard, [track.grid.asked_in(seen.settled, seen.healing)]):
            if track.grid.answered[low] < seen.healing:
                return surface, track.grid.asked[low]
    return None


def _too_short(fault: Fault, case: Case) -> str | None:
    """Why the fault did not stand for the time that the drill gives it, or None.

    A deployment, a call and a hand that reaches for a file once are changes at one stroke, which healing leaves as they
    are; and a crash point waits for its moment: their length is not planned.
    """
    begin, healed, force = case.mark(fault.id), case.mark(f"{fault.id}.healed"), fault.force
    once = isinstance(force, Deploy | Call | Remove) or (isinstance(force, Overwrite) and force.every_ms is None)
    if begin is None or healed is None or once or (isinstance(force, Kill) and force.before):
        return None
    stood = healed.begin - begin.end
    if stood < max(STANDING_SHARE_MIN * fault.for_ms - STANDING_SLACK_MS, fault.for_ms / 2):
        return f"the fault stood for {stood} ms, {fault.for_ms} ms were planned"
    return None


@dataclass(frozen=True, slots=True)
class _Seen:
    """The probes of one fault: those of its window, the last ones before it, and when it stood undisturbed."""

    window: tuple[Probe, ...]
    before: tuple[Probe, ...]
    settled: int
    healing: int
    cover_ms: int

    def of(self, what: str) -> list[Probe]:
        return [each for each in self.window if each.what == what]

    def still(self, what: str) -> list[Probe]:
        """What was under way still arrives at first, and everything arrives once it is healed."""
        return [each for each in self.of(what) if self.settled <= each.at < self.healing]

    def covers(self, what: str) -> bool:
        """Whether the witness was asked all the while: its word from the first second says nothing about the last."""
        moments = [self.settled, *(each.at for each in self.still(what)), self.healing]
        return all(after - before <= self.cover_ms for before, after in zip(moments, moments[1:], strict=False))

    def since(self, what: str) -> list[Probe]:
        """With the last probe from before the fault, which a fault at one stroke is compared with."""
        return [*(each for each in self.before if each.what == what), *self.of(what)]


def _seen(fault: Fault, case: Case, window: Window) -> _Seen:
    probes, mark, healed = case.timeline.probes(fault.id), case.mark(fault.id), case.mark(f"{fault.id}.healed")
    before = {each.what: each for each in probes if each.at < window[0]}
    return _Seen(tuple(each for each in probes if window[0] <= each.at <= window[1]), tuple(before.values()),
                 (mark.end if mark is not None else window[0]) + case.rules.witnesses["settle_ms"],
                 healed.begin if healed is not None else window[1], case.rules.witnesses["cover_ms"])


def witness_kind(fault: Fault, drill: Drill) -> str:
    """The key of specs/witnesses.yaml under which the fault's witnesses stand."""
    force = fault.force
    if isinstance(force, Kill) and force.before is not None:
        return "kill_before"
    if isinstance(force, Clock):
        return "clock_to" if force.to_ms is not None else "clock_step" if force.step_ms else "clock_drift"
    if isinstance(force, Disk):
        return f"disk_{force.kind}"
    if isinstance(force, Fill):
        return "fill" + "_unlinked" * force.unlinked + "_full" * (force.to >= 1)
    if isinstance(force, Overwrite) and force.every_ms is not None:
        return "overwrite_often"
    if isinstance(force, Call) and force.expect is not None:
        return "call_expected"
    if isinstance(force, Call) and _answer_is_promised(drill, fault.id):
        return "call_promised"
    if isinstance(force, RawToxic):
        return f"toxic_{force.type}"
    return verb_of(fault)


def _holds(condition: Mapping[str, Any], fault: Fault, seen: _Seen) -> bool:
    if "any_of" in condition:
        return any(all(_holds(each, fault, seen) for each in group) for group in condition["any_of"])
    what, lasting = condition["probe"], condition.get("throughout") is True
    (word, bound), = _asked_by(condition)
    if word == "still":
        return _stands_still([each.value for each in seen.still(what)]) and seen.covers(what)
    if word == "drifts":
        return _drifts([each for each in seen.of(what) if each.at < seen.healing], fault, bound)
    if word not in _WORDS:
        raise SpecError(f"witnesses: no condition {word!r}")
    looks = {"rises": seen.since, "differs": seen.since, "starts_at_least": seen.since,
             "usual_at_least": seen.still, "usual_at_most": seen.still}.get(word, seen.of)
    values = [each.value for each in looks(what)]
    steady = [each.value for each in seen.still(what)] if lasting else []
    if isinstance(bound, Mapping):
        bound = _asked_of(bound, fault)
        values, steady = [_size(each) for each in values], [_size(each) for each in steady]
    return _WORDS[word](values, bound) and all(_WORDS[word]([each], bound) for each in steady) \
        and (seen.covers(what) or not lasting)


def _asked_by(condition: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The word of a condition with its bound."""
    return [(key, value) for key, value in condition.items() if key not in ("probe", "throughout")]


def _size(value: Any) -> Any:
    return abs(value) if is_number(value) else value


def _stands_still(values: list[Any]) -> bool:
    return len(values) >= 2 and all(same(each, values[0]) for each in values)


def _drifts(probes: list[Probe], fault: Fault, share: float) -> bool:
    """The clock moved away by at least that share of what its rate asks for between the first and the last look."""
    numbers = [each for each in probes if is_number(each.value)]
    if len(numbers) < 2 or not isinstance(fault.force, Clock):
        return False
    first, last = numbers[0], numbers[-1]
    due = abs(fault.force.drift_ppm) * (last.at - first.at) / 1_000_000
    return due > 0 and abs(last.value - first.value) >= share * due


def _asked_of(bound: Mapping[str, Any], fault: Fault) -> Any:
    """A bound that depends on the size of the force."""
    force = fault.force
    (name, factor), = bound.items()
    if name == "build" and isinstance(force, Deploy):
        return force.build
    value = abs(force.step_ms) if name == "step" and isinstance(force, Clock) else \
        force.attributes.get(name) if isinstance(force, RawToxic) else getattr(force, name, None)
    if not is_number(value):
        raise SpecError(f"witnesses: the force of {fault.id} has no {name}")
    return value * factor


_WORDS: dict[str, Callable[[list[Any], Any], bool]] = {
    "rises": lambda values, bound: len(values) >= 2 and is_number(values[0]) and is_number(values[-1])
    and values[-1] > values[0],
    "equals": lambda values, bound: any(same(each, bound) for each in values),
    "at_least": lambda values, bound: any(is_number(each) and each >= bound for each in values),
    "at_most": lambda values, bound: any(is_number(each) and each <= bound for each in values),
    "differs": lambda values, bound: any(not same(each, values[0]) for each in values),
    "starts_at_least": lambda values, bound: bool(values) and is_number(values[0]) and values[0] >= bound,
    "usual_at_least": lambda values, bound: (middle := _usual(values)) is not None and middle >= bound,
    "usual_at_most": lambda values, bound: (middle := _usual(values)) is not None and middle <= bound,
}


def _usual(values: list[Any]) -> float | int | None:
    """The middle one of the numbers that are not 0, where there was something to be seen; the lower of two."""
    numbers = sorted(each for each in values if is_number(each) and each)
    return numbers[(len(numbers) - 1) // 2] if numbers else None


def _shown(condition: Mapping[str, Any]) -> str:
    if "any_of" in condition:
        return " or ".join(" with ".join(map(_shown, group)) for group in condition["any_of"])
    (word, bound), = _asked_by(condition)
    return f"{condition['probe']} {word}" + ("" if bound is True and word != "equals" else f" {bound}") \
        + " throughout" * bool(condition.get("throughout"))


def _summary(seen: _Seen) -> dict[str, dict[str, Any]]:
    """First and last word of each witness."""
    found: dict[str, dict[str, Any]] = {}
    for each in seen.window:
        entry = found.setdefault(each.what, {"first": each.value, "last": each.value, "n": 0})
        entry["last"], entry["n"] = each.value, entry["n"] + 1
    return found


def _pressed(stimulus: Stimulus, case: Case) -> Finding:
    """The act was carried out, and answered as expected."""
    mark = case.mark(stimulus.id)
    acts = [act for act in case.timeline.acts if act.id == stimulus.id and act.step == "pressed"]
    if mark is None or not acts:
        return unsure("the stimulus was never pressed")
    expected = stimulus.act.expect if isinstance(stimulus.act, Call) else None
    told = acts[-1].saw if isinstance(acts[-1].saw, Mapping) else {"status": acts[-1].saw}
    saw = told.get("status")
    if told.get("taken", isinstance(stimulus.act, Call)) is not True:
        return unsure("the stimulus was not taken", mark.begin)
    if isinstance(stimulus.act, Call) and not isinstance(saw, int):
        return unsure(f"the stimulus was not answered: {str(saw)[:80]}", mark.begin)
    if expected is None and isinstance(saw, int) and saw >= 300 and not _answer_is_promised(case.drill, stimulus.id):
        return unsure(f"the stimulus was answered by {saw}, and nobody had expected that", mark.begin)
    if expected is not None and saw != expected:
        return unsure(f"the stimulus was answered by {saw}, expected {expected}", mark.begin)
    return passed("the stimulus was pressed" + (f" and answered by {saw}" if expected is not None else ""), mark.begin)


def _answer_is_promised(drill: Drill, act: str) -> bool:
    """Whether the drill promises how a call is answered: then whatever came is what it wants to know."""
    return any(isinstance(promise, Answers) and promise.to == act for promise in drill.promises)


def _healed(case: Case) -> Finding:
    """Everything was healed: each fault has its mark, and the whole has one."""
    open_faults = [fault.id for fault in case.drill.faults if case.mark(f"{fault.id}.healed") is None]
    if open_faults:
        return unsure(f"never healed: {', '.join(open_faults)}")
    if case.mark("healed") is None:
        return unsure("the mark healed is missing")
    return passed("everything was healed")
