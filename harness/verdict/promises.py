"""The six forms of promise and the golden of convergence, judged exactly by the table of DESIGN section 4.

A sample is an interval and a mark is one; a deadline is judged against the system and an ordering for it, both by at
most one grain. What no sample covered, and what nothing strained against, is INCONCLUSIVE, never PASS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial, singledispatch
from itertools import pairwise

from harness.drill.model import Always, Answers, Count, Never, OnlyAfter, Predicate, Promise, Within
from harness.drill.predicate import is_number
from harness.recording.columns import Grid, clipped
from harness.recording.rows import Row
from harness.recording.series import Piece, Point, Series, together
from harness.recording.timeline import Mark
from harness.verdict.case import Case, Run, Window, inside
from harness.verdict.check import Check, Finding, failed, guarded, passed, unsure

Both = tuple[bool | None, bool | None]
SHRUNK_MS_MAX = 4_000
"""By so much a drill's acts may eat into its windows, as every start of a process does; beyond, too few is no accusation."""


def promises(case: Case) -> list[Check]:
    """Every promise of the drill, then its convergence."""
    checks = [guarded(promise.id, partial(judge, promise, case)) for promise in case.drill.promises]
    return [*checks, guarded("converge", partial(converges, case))]


@singledispatch
def judge(promise: Promise, case: Case) -> Finding:
    raise TypeError(f"no such form of promise: {type(promise).__name__}")


def _absent(name: str) -> Finding:
    return unsure(f"the mark {name} is missing")


def _gap(found: Sequence[Window]) -> Finding:
    begin, end = found[0]
    return unsure(f"no usable sample for {end - begin} ms, longer than the grain", begin, gaps=[list(gap) for gap in found])


def _unseen(case: Case, points: Series, surfaces: Sequence[str], begin: int, end: int) -> Finding | None:
    """Nobody knows of all of the window. A declared fault excuses that nothing was seen in the middle of it, and not that
    nothing is known of how it ended."""
    if holes := case.gaps(points, surfaces, begin, end):
        return _gap(holes)
    last = next((piece.grid.asked[piece.past - 1] for piece in reversed(points.inside(begin, end).pieces)
                 if piece.holds is not None), begin)
    if end - last > case.grain_ms(surfaces):
        return unsure(f"nobody saw how it ended: nothing is known of the last {end - last} ms", last)
    return None


# ---- within D after m: p, stays_until n -------------------------------------------------------------------


@judge.register
def _(promise: Within, case: Case) -> Finding:
    mark = case.mark(promise.after)
    until = case.mark(promise.stays_until) if promise.stays_until is not None else None
    if mark is None:
        return _absent(promise.after)
    if promise.stays_until is not None and until is None:
        return _absent(promise.stays_until)
    points = _asked_since(case, promise.predicate, mark.begin, until.begin if until is not None else None)
    return _within(promise, case, mark, until, points)


def _asked_since(case: Case, predicate: Predicate, begin: int, end: int | None) -> Series:
    """What a predicate said from a moment on. One of several surfaces says yes only when each of them was asked since: paired
    with a look from before, what never held at once would hold."""
    points = case.series(predicate).inside(begin, end)
    edge = _paired_since(case, predicate.surfaces, begin, points.grid)
    pieces: list[tuple[int, int, bool | None]] = []
    for piece in points.pieces:
        middle = min(max(edge, piece.first), piece.past)
        pieces += [(piece.first, middle, None if piece.holds else piece.holds), (middle, piece.past, piece.holds)]
    return Series(points.grid, (each for each in pieces if each[0] < each[1]))


def _paired_since(case: Case, surfaces: Sequence[str], begin: int, slots: Grid) -> int:
    """The first slot beside which every surface was asked since a moment; 0 for one surface, which needs no other."""
    if len(surfaces) < 2:
        return 0
    grids = [case.timeline.track(surface).grid for surface in surfaces]
    since = max(grid.asked[slot] if (slot := grid.asked_in(begin, begin)[0]) < len(grid) else case.end for grid in grids)
    return slots.asked_in(since, since)[0]


def _within(promise: Within, case: Case, mark: Mark, until: Mark | None, points: Series) -> Finding:
    pieces = points.pieces
    first = next((index for index, piece in enumerate(pieces) if piece.holds), None)
    late = _late(promise, case, mark, points, pieces[first].grid.asked[pieces[first].first] if first is not None else None)
    if late is not None:
        took = late.asked - mark.end
        return failed(f"not yet {took} ms after {mark.name}, {promise.within_ms} ms were promised", late.asked, took_ms=took)
    if first is None:
        return unsure(f"never seen after {mark.name}, and nothing usable was sampled after its {promise.within_ms} ms",
                      mark.end + promise.within_ms)
    begun, until_begin = pieces[first].point(pieces[first].first), until.begin if until is not None else None
    if until_begin is not None:
        broken = next((piece.point(piece.first) for piece in pieces[first:] if piece.holds is False), None)
        if broken is not None:
            return failed(f"it began after {begun.answered - mark.begin} ms but was over before {promise.stays_until}",
                          broken.asked, took_ms=begun.answered - mark.begin)
    took = begun.answered - mark.begin
    if took > promise.within_ms:
        return unsure(f"it began between samples around the deadline: at the latest after {took} ms, "
                      f"{promise.within_ms} ms were promised", begun.answered, took_ms=took)
    dark = _unseen(case, points, promise.predicate.surfaces, begun.asked, until_begin) if until_begin is not None else None
    if dark is not None:
        return dark
    stayed = f" and stayed until {promise.stays_until}" if promise.stays_until else ""
    return passed(f"seen {took} ms after {mark.name}{stayed}; {promise.within_ms} ms were promised", begun.answered,
                  took_ms=took)


def _late(promise: Within, case: Case, mark: Mark, points: Series, begun: int | None) -> Point | None:
    """The first no that was asked for after the deadline and before it began. Of several surfaces one must have said so itself:
    a look at another one, beside its no from before, is none of its own."""
    deadline, surfaces = mark.end + promise.within_ms, promise.predicate.surfaces
    said = [points] if len(surfaces) < 2 else [
        case.series(Predicate(tuple(field for field in promise.predicate.fields if field.surface == surface))).inside(
            mark.begin, points.grid.answered[points.pieces[-1].past - 1] if points.pieces else None) for surface in surfaces]
    found = [point for each in said for piece in each.pieces if piece.holds is False
             and (point := piece.after(deadline)) is not None and (begun is None or point.asked < begun)]
    return min(found, key=lambda point: point.asked, default=None)


# ---- always p while q -------------------------------------------------------------------------------------


@judge.register
def _(promise: Always, case: Case) -> Finding:
    begin, end = _span(case, promise.since, promise.until)
    if begin is None or end is None:
        return _absent(str(promise.since if begin is None else promise.until))
    said, grid = _together(case, promise.predicate, promise.while_)
    inner = [Piece(grid, *each) for each in clipped(said, grid.inside(begin, end))]
    surfaces = _surfaces(promise.predicate, promise.while_)
    edge = _paired_since(case, surfaces, begin, grid)
    doubtful = next((piece for piece in inner if piece.holds == (True, False)), None)
    broken = next((max(piece.first, edge) for piece in inner if piece.holds == (True, False) and piece.past > edge), None)
    if broken is not None:
        return failed("it did not hold" + (" while it should have" if promise.while_ else ""), grid.asked[broken])
    own = [case.timeline.track(surface).grid for surface in promise.predicate.surfaces]
    looks = [each.asked_in(grid.asked[piece.first], grid.asked[piece.past - 1])
             for piece in inner if piece.holds == (True, True) for each in own]
    held = sum(past - first for first, past in looks)
    if not held:
        return unsure("vacuous: no sample in which it was asked and answered")
    # where p is broken and nobody knows whether it was asked for, nothing is known
    known = Series(grid, ((first, past, False if q is False else p if q or p else None) for first, past, (q, p) in said))
    if (dark := _unseen(case, known, surfaces, begin, end)) is not None:
        return dark
    if doubtful is not None:
        return unsure(f"it did not hold beside a look from before {promise.since or 'given'}", grid.asked[doubtful.first])
    return passed(f"it held in all {held} samples in which it was asked", samples=held)


def _span(case: Case, since: str | None, until: str | None) -> tuple[int | None, int | None]:
    """The window in which a promise is asked, taken narrowly: from the end of one mark to the begin of the other.

    Without marks it is the drill itself: from zero to the end.
    """
    first, last = case.mark(since or "given"), case.mark(until) if until is not None else None
    end = case.end if until is None else (last.begin if last is not None else None)
    return (first.end if first is not None else None), end


def _surfaces(*predicates: Predicate | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(surface for each in predicates if each is not None for surface in each.surfaces))


def _together(case: Case, p: Predicate, q: Predicate | None) -> tuple[list[tuple[int, int, Both]], Grid]:
    """(first, past, (q, p)) over the slots of a grid; of several surfaces, over those of any of them."""
    if q is None:
        series = case.series(p)
        return [(piece.first, piece.past, (True, piece.holds)) for piece in series.pieces], series.grid
    both = case.series(Predicate((*q.fields, *p.fields)))
    asked = case.series(q) if set(q.surfaces) == set(_surfaces(p, q)) else _widened(case, q, both, lasting=True)
    held = case.series(p) if set(p.surfaces) == set(_surfaces(p, q)) else _widened(case, p, both)
    return [(first, past, (said[0], said[1])) for first, past, said in together(*_alike(asked, held, both))], both.grid


def _alike(*series: Series) -> list[Series]:
    """Series over the same moments, found in different ways, as series over one grid. Raises ValueError for others."""
    if any(each.grid.asked != series[-1].grid.asked for each in series):
        raise ValueError("series of different slots")
    return [Series(series[-1].grid, (piece[1:] for piece in each.pieces)) for each in series]


def _widened(case: Case, predicate: Predicate, slots: Series, lasting: bool = False) -> Series:
    """The predicate's latest answer at each slot of another series; unknown when older than the grain. ``lasting``: a yes is
    one only where the next answer says so, too, because it may have ended since."""
    own, grain = iter(case.series(predicate)), case.grain_ms(predicate.surfaces)
    found: list[bool | None] = []
    latest, coming = None, next(own, None)
    for asked in slots.grid.asked:
        while coming is not None and coming.asked <= asked:
            latest, coming = coming, next(own, None)
        known = latest is not None and asked - latest.asked <= grain
        over = lasting and asked != (latest.asked if latest else None) and not (coming is not None and coming.holds)
        found.append(latest.holds if latest is not None and known and not (latest.holds and over) else None)
    return Series(slots.grid, ((slot, slot + 1, holds) for slot, holds in enumerate(found)))


# ---- never e while q --------------------------------------------------------------------------------------


@judge.register
def _(promise: Never, case: Case) -> Finding:
    surfaces = promise.while_.surfaces
    points = case.series(promise.while_)
    runs = case.runs(points.pieces, case.grain_ms(surfaces))
    broken, doubtful = violations(case, promise.event, runs, surfaces)
    if broken:
        return failed(f"{promise.event} happened {len(broken)} times while it must not", broken[0].earliest,
                      rows=[dict(row.value) for row in broken[:10]])
    begin = case.zero
    if begin is None:
        return _absent("given")
    runs = [run for run in runs if run.last.asked >= begin]        # that it held while the system started proves nothing
    if not runs:
        return unsure("vacuous: the condition was never seen to hold")
    why = case.not_whole(*case.streams_of(promise.event))
    if why is not None:
        return unsure(why)
    if doubtful:
        return unsure(f"{promise.event} arrived over a link that was slowed: it may have been sent before",
                      doubtful[0].earliest)
    if dark := in_the_dark(case, promise.event, runs):
        return unsure(f"{promise.event} happened while nobody could see whether it might", dark[0].earliest)
    holes = case.gaps(points, surfaces, begin, case.end)
    if holes:
        return _gap(holes)
    return _tried(promise, case, runs, begin)


def violations(case: Case, event: str, runs: Sequence[Run], surfaces: Sequence[str]) -> tuple[list[Row], list[Row]]:
    """Events certainly inside a run, and among them those that a slowed link may have kept from an earlier time."""
    transit = case.transit_ms(event, surfaces)
    late = [window for surface in surfaces for stream in case.streams_of(event)
            for window in case.late(case.timeline.node_of(surface), case.timeline.stream(stream).node)]
    broken: list[Row] = []
    doubtful: list[Row] = []
    for row in case.rows(event):
        if any(row.earliest > run.first.answered + transit and row.latest < run.last.asked for run in runs):
            (doubtful if inside(row.earliest, late) else broken).append(row)
    return broken, doubtful


def in_the_dark(case: Case, event: str, runs: Sequence[Run]) -> list[Row]:
    """Events between two runs of a condition between which nothing was seen, as under a declared fault that keeps its surface
    silent: they may have been forbidden, and may not. Where it does not hold on one side, as around a restart, an honest
    system may just have begun or ended: there the system's own record decides (``no_opening_sent_while_latched``)."""
    pairs = [(before.last.asked, after.first.asked) for before, after in pairwise(runs)
             if before.after is None and after.before is None]
    return [row for row in case.rows(event) if any(last < row.earliest and row.latest < first for last, first in pairs)]


def _tried(promise: Never, case: Case, runs: Sequence[Run], zero: int) -> Finding:
    """A never that nothing strained against proves nothing."""
    event = case.event(promise.event)
    if not case.drill.given.idle and not any(row.latest <= zero for row in case.rows(promise.event)):
        return unsure(f"vacuous: {promise.event} never happened while the given held, so nothing shows that it could")
    if event.tried is None:
        return unsure(f"vacuous: {promise.event} has no event that would show that it was tried (specs/events.yaml)")
    why = case.not_whole(*case.streams_of(event.tried))
    if why is not None:
        return unsure(why)
    transit = case.transit_ms(promise.event, promise.while_.surfaces)
    long_enough = [run for run in runs if run.first.answered + transit < run.last.asked]   # any other forbids nothing
    refused = sum(any(row.latest >= max(run.first.asked, zero) and row.earliest <= run.last.answered for run in long_enough)
                  for row in case.rows(event.tried))
    if not refused:
        return unsure(f"vacuous: nothing tried: no {event.tried} while the condition held")
    return passed(f"{promise.event} did not happen while the condition held; {refused} refusals were noted",
                  refused=refused)


# ---- only_after a, since m --------------------------------------------------------------------------------


@judge.register
def _(promise: OnlyAfter, case: Case) -> Finding:
    since = case.mark(promise.since)
    if since is None:
        return _absent(promise.since)
    surfaces = promise.becomes.surfaces
    points = case.series(promise.becomes).inside(since.begin)
    grain = case.grain_ms(surfaces)
    changes = becoming(points)
    for _, yes in changes:
        if not case.happened(promise.event, since.begin, yes.answered + grain):
            why = case.not_whole(*case.streams_of(promise.event))
            if why is not None:
                return unsure(why, yes.asked)
            return failed(f"it changed without {promise.event} since {promise.since}", yes.asked)
    if not changes:
        return unsure(f"vacuous: no such change was seen after {promise.since}")
    why = case.not_whole(*case.streams_of(promise.event))
    if why is not None:
        return unsure(why)
    holes = case.gaps(points, surfaces, since.end, case.end)
    if holes:
        return _gap(holes)
    return passed(f"each of {len(changes)} changes came after {promise.event}", changes[0][1].answered,
                  changes=len(changes))


def becoming(points: Series) -> list[tuple[Point, Point]]:
    """Every change from no to yes: the last no and the first yes."""
    found, before = [], None
    for piece in points.pieces:
        if piece.holds is False:
            before = piece.point(piece.past - 1)
        elif piece.holds and before is not None:
            found.append((before, piece.point(piece.first)))
            before = None
    return found


# ---- count ------------------------------------------------------------------------------------------------


@judge.register
def _(promise: Count, case: Case) -> Finding:
    since = case.mark(promise.since) if promise.since is not None else None
    until = case.mark(promise.until) if promise.until is not None else None
    for name, mark in ((promise.since, since), (promise.until, until)):
        if name is not None and mark is None:
            return _absent(name)
    rows = case.rows(promise.event)
    sure = [row.earliest for row in rows if (since is None or row.earliest >= since.end)
            and (until is None or row.latest <= until.begin)]
    possible = [row.earliest for row in rows if (since is None or row.latest >= since.begin)
                and (until is None or row.earliest <= until.end)]
    counted = {"sure": len(sure), "possible": len(possible)}
    why = case.not_whole(*case.streams_of(promise.event))
    if promise.at_most is not None and len(sure) > promise.at_most:
        return failed(f"{promise.event} happened {len(sure)} times, at most {promise.at_most} were promised",
                      sure[promise.at_most], **counted)
    if why is not None:
        return unsure(why, **counted)
    if promise.at_least is not None and len(possible) < promise.at_least:
        if (lost := _shrunk_ms(promise, case, since, until)) > SHRUNK_MS_MAX:
            return unsure(f"{promise.event} happened {len(possible)} times, but the time for it was {lost} ms shorter than "
                          f"planned: {promise.since} took that long", **counted)
        return failed(f"{promise.event} happened {len(possible)} times, at least {promise.at_least} were promised",
                      **counted)
    fine = (promise.at_most is None or len(possible) <= promise.at_most) \
        and (promise.at_least is None or len(sure) >= promise.at_least)
    if not fine:
        return unsure(f"{promise.event} happened {len(sure)} to {len(possible)} times: too near to a mark to say",
                      **counted)
    return passed(f"{promise.event} happened {len(sure)} times", **counted)


def _shrunk_ms(promise: Count, case: Case, since: Mark | None, until: Mark | None) -> int:
    """How much less time there was between the marks than between the moments that the drill names: an act that takes long,
    such as a start on a busy machine, leaves less of it."""
    due = case.drill.due_ms
    if since is None or until is None or since.name not in due or until.name not in due:
        return 0
    return due[until.name] - due[since.name] - (until.begin - since.end)


# ---- answers s, to c --------------------------------------------------------------------------------------


@judge.register
def _(promise: Answers, case: Case) -> Finding:
    """The harness asked and wrote down what came back: the answer itself is the witness."""
    told = [act for act in case.timeline.acts if act.id == promise.to and act.step in ("pressed", "read_back")]
    status = told[-1].saw.get("status") if told and isinstance(told[-1].saw, Mapping) else None
    if not is_number(status):
        return unsure(f"nothing says how {promise.to} was answered")
    if status != promise.status:
        return failed(f"{promise.to} was answered by {status}, {promise.status} was promised", told[-1].begin)
    return passed(f"{promise.to} was answered by {status}", told[-1].begin)


# ---- converge ---------------------------------------------------------------------------------------------


def converges(case: Case) -> Finding:
    """After everything is healed the predicate begins in time and lasts; and the system opens again, unless latched."""
    healed = case.mark("healed")
    if healed is None:
        return _absent("healed")
    clause, surfaces = case.drill.converge, case.drill.converge.predicate.surfaces
    points = _asked_since(case, clause.predicate, healed.begin, None)
    for run in _stretches(case, points, surfaces):
        took = run.first.answered - healed.begin
        if took <= clause.within_ms and run.last.asked - run.first.answered >= clause.for_ms:
            return _opens_again(case, healed, run, took)
    return _not_converged(case, healed, points)


def _stretches(case: Case, points: Series, surfaces: Sequence[str]) -> list[Run]:
    return case.runs(points.pieces, case.grain_ms(surfaces))


def _not_converged(case: Case, healed: Mark, points: Series) -> Finding:
    clause, surfaces = case.drill.converge, case.drill.converge.predicate.surfaces
    deadline = healed.end + clause.within_ms
    if case.end < deadline:
        return unsure("the recording ends before the time to converge is over", case.end)
    holes = case.gaps(points, surfaces, healed.end, min(deadline + clause.for_ms, case.end))
    if holes:
        return _gap(holes)
    open_end = next((run for run in _stretches(case, points, surfaces)
                     if run.after is None and run.first.asked <= deadline), None)
    if open_end is not None:
        return unsure(f"it began in time, but the recording ends before it has lasted {clause.for_ms} ms",
                      open_end.first.asked)
    return failed(f"it did not converge within {clause.within_ms} ms of the healing", deadline)


def _opens_again(case: Case, healed: Mark, run: Run, took: int) -> Finding:
    """A system that came back but never opens an order again did not come back."""
    says = f"converged {took} ms after the healing"
    if case.drill.given.idle or (case.drill.converge.latched and _ended_safe(case, run)):
        return passed(says, run.first.answered, took_ms=took)
    streams = case.streams_of_all(case.rules.traded)
    if case.lacks(*streams):
        return passed(says, run.first.answered, took_ms=took)
    missing = case.not_traded(healed.begin)
    why = case.not_whole(*streams)
    if missing and why is not None:
        return unsure(why)
    if missing:
        return failed(f"{says}, but there was no {' and no '.join(missing)} on the books afterwards", run.first.answered)
    return passed(says + ", and it opens and fills orders again", run.first.answered, took_ms=took)


def _ended_safe(case: Case, run: Run) -> bool:
    """A drill that ends latched ends safe, by what was seen and not by its own word."""
    said = [piece.holds for piece in case.safe.inside(run.first.asked, run.last.answered).pieces if piece.holds is not None]
    return bool(said) and all(said)
