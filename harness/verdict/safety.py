"""How long until the system was safe: from the first fault's begin to the later of two moments.

One is the first sample from which all block opening until everything is healed, the other the last opening order
that the books accepted before then. Both are known to intervals, so there is an upper and a lower bound. A system
that is seen open again before the healing has no such time, unless it first was blocked: then the first stretch of
blocking is taken.
"""

from __future__ import annotations

from harness.verdict.case import Case, Run, Window

Bounds = dict[str, int | None]
UNKNOWN: Bounds = {"upper": None, "lower": None}


def time_to_safe_ms(case: Case) -> Bounds:
    """``{"upper", "lower"}`` in milliseconds; None where it was never seen safe."""
    marks = [mark for fault in case.drill.faults if (mark := case.mark(fault.id)) is not None]
    healed = case.mark("healed")
    surfaces = case.blocked_surfaces
    if not marks or healed is None or any(surface not in case.drill.sample for surface in surfaces):
        return dict(UNKNOWN)
    begin = min(marks, key=lambda mark: mark.begin)
    points = [point for point in case.blocked if begin.begin <= point.asked and point.answered <= healed.begin]
    runs = case.runs(points, case.grain_ms(surfaces))
    if not runs:
        return dict(UNKNOWN)
    run = _last_if_it_lasts(_joined(runs, case.waived(surfaces), case.grain_ms(surfaces)))
    until = healed.begin if run.after is None else run.last.answered
    opened = [row for row in case.rows(case.rules.opening) if row.latest >= begin.begin and row.earliest <= until]
    upper = max([run.first.answered, *(row.latest for row in opened)]) - begin.begin
    earliest = run.before.asked if run.before is not None else begin.begin
    lower = max([earliest, *(row.earliest for row in opened)]) - begin.end
    return {"upper": max(upper, 0), "lower": max(min(lower, upper), 0)}


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
