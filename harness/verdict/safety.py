"""How long until the system was safe: from a fault's begin to the later of two moments.

One is the first sample from which all block opening until everything is healed, the other the last opening order
that the books accepted before then. Both are known to intervals, so there is an upper and a lower bound. A system
that is seen open again before the healing has no such time, unless it first was blocked: then the first stretch of
blocking is taken.
"""

from __future__ import annotations

from harness.drill.model import Kill, Pause
from harness.recording.timeline import Mark, Point
from harness.verdict.case import Case, Run, Window

Bounds = dict[str, int | None]
UNKNOWN: Bounds = {"upper": None, "lower": None}
TOUCHING_MS = 500
"""A fault that begins so soon after another was healed meets a system still busy with that one."""


def time_to_safe_ms(case: Case) -> Bounds:
    """``{"upper", "lower"}`` in milliseconds; None where it was never seen safe.

    Faults that touch one another in time are one trouble, up to the healing of all of them; each is counted from its own
    begin, for one that strikes while another stands may be answered later than the first. The longest of all counts; a fault
    that never led to blocking (a single order refused while all else goes on) has no such time of its own.
    """
    if case.mark("healed") is None or not case.knows_safe \
            or any(surface not in case.drill.sample for surface in case.safe_surfaces):
        return dict(UNKNOWN)
    each_one = (_safe_in(case, mark, over) for marks, over in troubles(case) for mark in marks)
    found = [each for each in each_one if each["upper"] is not None]
    return max(found, key=lambda each: each["upper"] or 0) if found else dict(UNKNOWN)


def troubles(case: Case) -> list[tuple[list[Mark], int]]:
    """Each stretch of faults: their marks, the first one first, and when the last of them began to be healed."""
    found: list[tuple[list[Mark], int]] = []
    healed = case.mark("healed")
    end = healed.begin if healed is not None else case.end
    stood = [(mark, case.mark(f"{fault.id}.healed")) for fault in case.drill.faults
             if (mark := case.mark(fault.id)) is not None]
    for mark, its_end in sorted(stood, key=lambda each: each[0].begin):
        over = its_end.end if its_end is not None else end
        if found and mark.begin <= found[-1][1] + TOUCHING_MS:
            found[-1] = [*found[-1][0], mark], max(found[-1][1], over)
        else:
            found.append(([mark], over))
    return found


def _safe_in(case: Case, begin: Mark, healed: int) -> Bounds:
    """The same for one fault, up to the healing of its trouble."""
    surfaces = case.safe_surfaces
    safe = case.safe.inside(begin.begin, healed)
    runs = case.runs(safe.among(_down(case, begin.begin, healed)), case.grain_ms(surfaces))
    if not runs:
        return dict(UNKNOWN)
    run = _last_if_it_lasts(_joined(runs, case.waived(surfaces), case.grain_ms(surfaces)))
    until = healed if run.after is None else run.last.answered
    opened = [row for row in case.rows(case.rules.opening) if row.latest >= begin.begin and row.earliest <= until]
    upper = max([run.first.answered, *(row.latest for row in opened)]) - begin.begin
    earliest = run.before.asked if run.before is not None else begin.begin
    lower = max([earliest, *(row.earliest for row in opened)]) - begin.end
    return {"upper": max(upper, 0), "lower": max(min(lower, upper), 0)}


def _down(case: Case, begin: int, end: int) -> list[Point]:
    """A node that a declared fault keeps down opens nothing: its dying and its coming back are moments of blocking.

    A deployment is not meant: nobody knows when within its mark the old build ended.
    """
    nodes = {case.timeline.node_of(surface) for surface in case.safe_surfaces}
    found = []
    for fault in case.drill.faults:
        mark, window = case.mark(fault.id), case.window(fault)
        if isinstance(fault.force, (Kill, Pause)) and fault.force.node in nodes and mark is not None \
                and window is not None and begin <= window[0] <= end and not case.timeline.placebo:
            found += [Point(moment, moment, True) for moment in (mark.end, max(mark.end, min(window[1], end)))]
    return found


def _joined(runs: list[Run], down: list[Window], grain_ms: int) -> list[Run]:
    """Stretches between which only a declared down time lies are one: a node that is down opens nothing."""
    found = runs[:1]
    for run in runs[1:]:
        last = found[-1]
        only_down = last.after is None and run.before is None and any(
            begin - grain_ms <= last.last.asked and run.first.asked <= end + grain_ms for begin, end in down)
        if only_down:
            found[-1] = Run(last.first, run.last, last.before, run.after)
        else:
            found.append(run)
    return found


def _last_if_it_lasts(runs: list[Run]) -> Run:
    """The stretch that still stands at the healing, else the first one."""
    return runs[-1] if runs[-1].after is None else runs[0]
