"""Laws about candour: that the status says who answers, and goes on saying what its own record and its own numbers say.
Each is a check of ``specs/invariants.yaml``, as in ``invariants``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from harness.drill.model import Deploy, Disk, Fill
from harness.drill.predicate import is_number, same
from harness.recording.columns import Stretch, clipped
from harness.recording.rows import Row
from harness.recording.series import together
from harness.recording.timeline import Mark
from harness.verdict.agreement import any_in_force, held_longer, told
from harness.verdict.case import Case, Window, overlaps
from harness.verdict.check import Finding, failed, passed, unsure

Parameters = Mapping[str, Any]


def says_who_it_is(case: Case, with_: Parameters) -> Finding:
    """Fields that never change within a life (``constant``), and one that is the digest of the policy in force
    (``digest_of_policy``), until the drill itself deploys another build, which may bring another policy along."""
    surface, asked = with_["surface"], 0
    grid = case.timeline.track(surface).grid
    wanted = (case.timeline.head.get("policy") or {}).get("sha256")
    other = min((mark.begin for mark in _deployed(case, surface)), default=case.end)
    for life in case.lives(surface):
        for path in with_["constant"]:
            before: Any = None
            for first, _, value in case.values(surface, path, life):
                if before is not None and not same(before, value):
                    return failed(f"{path} changed from {before!r} to {value!r} within one life", grid.asked[first])
                before = value
        path = with_["digest_of_policy"]
        for first, past, value in case.values(surface, path, life):
            if grid.asked[first] >= other:
                continue
            if value != wanted:
                return failed(f"{path} is {value!r}, and the policy in force has the digest {wanted}", grid.asked[first])
            asked += past - first
    return passed(f"{asked} answers named the same build under the policy in force", asked=asked)


def _deployed(case: Case, surface: str) -> Iterator[Mark]:
    """When each other build took the place of the surface's node."""
    for fault in case.drill.faults:
        mark = case.mark(fault.id)
        if isinstance(fault.force, Deploy) and fault.force.build is not None and mark is not None \
                and fault.force.node == case.timeline.node_of(surface):
            yield mark


def full_queue_degrades(case: Case, with_: Parameters) -> Finding:
    """A queue that is full for longer than a bound, or that has just refused something, is told of by ``says``."""
    surface, bound, asked = with_["surface"], with_["bound_ms"], 0
    says = any_in_force(case, surface, with_)
    full = case.timeline.where_usable(surface, _reached(case, with_))
    for begin, end in held_longer(case, surface, full, bound):
        for point in says.inside(begin, end) if begin < end else ():
            asked += point.holds is not None
            if point.holds is False:
                return failed(f"{with_['depth']} had reached {with_['capacity']} for {bound} ms, and {surface} did not say "
                              f"{told(with_)}", point.asked)
    for before, since in _rises(case, surface, with_["failures"]):
        answers = [each for each in says.inside(before, since + bound) if each.holds is not None]
        asked += len(answers)
        if answers and answers[-1].asked + case.grain_ms((surface,)) >= since + bound \
                and not any(each.holds for each in answers):
            return failed(f"{with_['failures']} rose, and for {bound} ms {surface} did not say {told(with_)}", since)
    return passed(f"{asked} answers beside a full queue or a refusal said so", asked=asked)


def _reached(case: Case, with_: Parameters) -> Iterator[tuple[int, int, bool]]:
    surface, depth_of, capacity_of = with_["surface"], with_["depth"], with_["capacity"]
    told_of = case.timeline.track(surface).states((depth_of, capacity_of))
    for first, past, fields in clipped(told_of, case.timeline.usable(surface)):
        depth, capacity = fields.get(depth_of), fields.get(capacity_of)
        yield first, past, is_number(depth) and is_number(capacity) and depth >= capacity


def _rises(case: Case, surface: str, path: str) -> Iterator[Window]:
    """Between which two moments a counter rose: (the last answer before was asked for, the first after it had come)."""
    grid = case.timeline.track(surface).grid
    for life in case.lives(surface):
        before: tuple[int, Any] | None = None
        for first, past, value in case.values(surface, path, life):
            if before is not None and is_number(value) and is_number(before[1]) and value > before[1]:
                yield grid.asked[before[0]], grid.answered[first]
            before = past - 1, value


def kept_until(case: Case, with_: Parameters) -> Finding:
    """What begins with one measure ends only with another: from a bound after ``when`` was first said, every answer of the same
    life says ``then``, until one says ``until``. What nobody saw ends it, too."""
    surface, bound, asked = with_["surface"], with_["bound_ms"], 0
    grid = case.timeline.track(surface).grid
    said = together(*(any_in_force(case, surface, with_[part]) for part in ("when", "until", "then")))
    lives = [stretch for life in case.lives(surface) for stretch in life]
    since, last = None, -1
    for first, past, (begins, ends, keeps) in clipped(said, lives):
        if first != last or begins is None or ends is not False:
            since = None
        if since is None and begins and ends is False:
            since = grid.answered[first]
        last = past
        if since is None or keeps is None:
            continue
        late = [slot for slot in range(first, past) if grid.asked[slot] - since > bound]
        asked += len(late)
        if late and not keeps:
            return failed(f"{surface} had said {told(with_['when'])}, had not yet said {told(with_['until'])}, and did not "
                          f"say {told(with_['then'])}", grid.asked[late[0]])
    return passed(f"{asked} answers kept to it", asked=asked)


def outlasts(case: Case, with_: Parameters) -> Finding:
    """What has held for ``lasts_ms`` is told of by ``then`` a bound later, and for as long after it was last seen as the
    policy in force says (``dwell_policy``, seconds; less a bound). What nobody saw ends it; a flicker does not."""
    surface, bound, asked = with_["surface"], with_["bound_ms"], 0
    grid, grain = case.timeline.track(surface).grid, case.grain_ms((surface,))
    dwell_s = case.policy.get(with_["dwell_policy"], 0)
    dwell = dwell_s * 1000 - bound if is_number(dwell_s) else 0
    when, then = (any_in_force(case, surface, with_[part]) for part in ("when", "then"))
    if not any(piece.holds for piece in when.pieces):
        return passed(f"{surface} never said {told(with_['when'])}", asked=0)
    held_since: int | None = None
    due_since: int | None = None
    held_last, answered = 0, 0
    lives = [stretch for life in case.lives(surface) for stretch in life]
    for first, past, (holds, tells) in clipped(together(when, then), lives):
        for slot in range(first, past):
            at = grid.asked[slot]
            if holds is None or at - answered > grain:
                held_since = due_since = None
            answered = grid.answered[slot]
            if holds:
                held_since = held_since if held_since is not None else answered
                due_since = at if due_since is None and at - held_since >= with_["lasts_ms"] else due_since
                held_last = at
            elif holds is False:
                held_since = None
                due_since = due_since if at - held_last <= dwell else None
            if due_since is None or tells is None or at - due_since <= bound:
                continue
            asked += 1
            if not tells:
                return failed(f"{surface} had said {told(with_['when'])} for {with_['lasts_ms']} ms, last "
                              f"{at - held_last} ms ago, and did not say {told(with_['then'])}", at)
    return passed(f"{asked} answers said what follows", asked=asked)


def codes_told(case: Case, with_: Parameters) -> Finding:
    """From a bound after the ledger's setting of a code to its clearing, every answer names the code. A start ends all codes,
    and what waits for an operator is told by the next row that sets it; a process may answer before it has written that it
    started."""
    surface, path, asked = with_["surface"], with_["field"], 0
    stream = case.timeline.stream(with_["ledger"])
    rows = stream.rows.of_kind(with_["boot"], with_["latch"]).in_time()
    ends = sorted([*case.restarts(stream.node), case.end])
    for code, begin, cleared in _latched(rows, case.rules.codes(with_["registry"]), with_, case.end):
        end = min(cleared, next((moment for moment in ends if moment > begin), cleared))
        if end - begin <= with_["bound_ms"]:
            continue
        named = case.any_of([{surface: {path: {"has": code}}}]).inside(begin + with_["bound_ms"], end)
        for point in named:
            asked += point.holds is not None
            if point.holds is False:
                return failed(f"by the ledger {code} was set, and {surface} did not name it among {path}", point.asked)
    why = case.not_whole(with_["ledger"])
    return passed(f"{asked} answers named what the ledger had latched", asked=asked) if why is None else unsure(why)


def _latched(rows: Iterable[Row], codes: Iterable[str], with_: Parameters, end: int) -> Iterator[tuple[str, int, int]]:
    """(code, surely set by, not cleared before) of each time that the ledger held a code."""
    held: dict[str, int] = {}
    known = {*codes}
    for row in rows:
        if row.kind == with_["boot"]:
            yield from ((code, since, row.earliest) for code, since in held.items())
            held = {}
        elif (code := row.value.get("code")) in known:
            if row.value.get("event") == "set":
                held.setdefault(code, row.latest)
            elif code in held:
                yield code, held.pop(code), row.earliest
    yield from ((code, since, end) for code, since in held.items())


def waived_truly(case: Case, with_: Parameters) -> Finding:
    """A waiver says that a record has waited for the disk for so long already: no look of that time saw an empty queue. A disk
    that refuses, and a clock that jumps, need no such time."""
    surface, after = with_["surface"], case.policy.get(with_["after_ms"])
    if not is_number(after):
        return passed(f"the policy states no {with_['after_ms']}", asked=0)
    back, node = int(after) - with_["spare_ms"], case.timeline.node_of(surface)
    excused = [*_disks_troubled(case, node, with_["bound_ms"]), *case.clocks_troubled(node), *case.disturbed]
    grid, empty, asked = case.timeline.track(surface).grid, _stretches_of(case, surface, with_["depth"], 0), 0
    for row in case.of_kind(with_["notes"], with_["dispatched"]):
        if row.value.get(with_["waived"]) != with_["stalled"] or overlaps(row.earliest - back, row.latest, excused):
            continue
        asked += 1
        slot = _first_slot(empty, bisect_left(grid.asked, row.latest - back))
        if slot is not None and grid.answered[slot] <= row.earliest - with_["spare_ms"]:
            return failed(f"the record of {row.value.get('intent_id')} was waived ({with_['stalled']}), and "
                          f"{with_['depth']} was 0 a moment ({row.earliest - grid.answered[slot]} ms) before", row.earliest)
    if (why := case.not_whole(with_["notes"])) is not None:
        return unsure(why)
    return passed(f"{asked} waivers without a fault of the disk, each after a stall", asked=asked)


def _stretches_of(case: Case, surface: str, path: str, wanted: Any) -> list[Stretch]:
    """Where a surface said this value."""
    return [(first, past) for life in case.lives(surface)
            for first, past, value in case.values(surface, path, life) if same(value, wanted)]


def _first_slot(stretches: Sequence[Stretch], slot: int) -> int | None:
    """The first slot of stretches from a slot on."""
    place = bisect_right(stretches, slot, key=itemgetter(1))
    return max(slot, stretches[place][0]) if place < len(stretches) else None


def _disks_troubled(case: Case, node: str | None, bound_ms: int) -> list[Window]:
    """When a declared fault is at work on a node's disk, and a bound after it."""
    windows = [case.window(fault) for fault in case.drill.faults
               if isinstance(fault.force, (Disk, Fill)) and fault.force.node == node]
    return [(begin, end + bound_ms) for begin, end in (each for each in windows if each is not None)]


CHECKS = (says_who_it_is, full_queue_degrades, kept_until, outlasts, codes_told, waived_truly)
