"""Laws across contracts: what one surface says is seen in the others, each within a declared bound.

A surface is asked on a grid, so of a stretch it is certain what was said from its first answer to its last question. What
follows is asked only of samples that lie wholly in such a stretch, a bound after its beginning; and not of nodes that a
declared fault holds still, nor of what a declared fault keeps from arriving, nor for a bound after either.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness.contracts.ops_status.floor import Floor
from harness.contracts.ops_status.table import instant
from harness.drill.model import (
    HALTING,
    Clock,
    Disconnect,
    Disk,
    Fault,
    Fill,
    Kill,
    LinkFault,
    Overwrite,
    Pause,
    RawToxic,
    Remove,
)
from harness.drill.predicate import is_number, same
from harness.recording.columns import clipped
from harness.recording.series import Series
from harness.verdict.books import agree, positions
from harness.verdict.case import Case, Window, overlaps
from harness.verdict.check import Finding, failed, passed, unsure

Parameters = Mapping[str, Any]


def follows(case: Case, with_: Parameters) -> Finding:
    """While something holds on one surface for longer than a bound, every sample of the others says what follows from it."""
    bound, asked, broken = bound_of(case, with_), 0, []
    for cause in _meant(case, with_["when"]):
        windows = held_longer(case, cause, any_in_force(case, cause, with_["when"]), bound)
        for effect in _meant(case, with_["then"]):
            excused = _excused(case, (cause, effect), with_, bound)
            at, count = _denied(any_in_force(case, effect, with_["then"]), windows, excused)
            asked += count
            broken += [(at, cause, effect)] if at is not None else []
    if broken:
        at, cause, effect = min(broken)
        return failed(f"{cause} had said {told(with_['when'])} for {bound} ms, and {effect} did not say "
                      f"{told(with_['then'])}", at)
    return passed(f"{asked} samples said what follows", asked=asked)


def floor_not_better(case: Case, with_: Parameters) -> Finding:
    """The floor is never better than a service that has been worse for longer than a bound, nor than OFFLINE while a
    declared fault holds one down."""
    floor, bound, asked = Floor.load(case.rules.root), bound_of(case, with_), 0
    for shown in _meant(case, with_["floor"]):
        for service in _meant(case, with_["services"]):
            counted = [*_joined((first, past, floor.counted(_line(fields)))
                                for first, past, fields in _fields(case, service, "service_kind", "status"))]
            for state in floor.table.states:
                worse = case.timeline.where_usable(service, ((first, past, floor.worse(each, state))
                                                             for first, past, each in counted))
                windows = [*held_longer(case, service, worse, bound),
                           *(_down(case, service, bound) if floor.worse("OFFLINE", state) else ())]
                not_it = case.any_of([{shown: {"floor.state": {"is_not": state}}}])
                at, count = _denied(not_it, windows, _excused(case, (service, shown), with_, bound))
                asked += count
                if at is not None:
                    return failed(f"{shown} said {state}, and {service} had been worse for {bound} ms", at)
    return passed(f"in {asked} samples the floor was no better than a service that was worse", asked=asked)


def floor_shows(case: Case, with_: Parameters) -> Finding:
    """While a service says the same for longer than a bound, the floor has a line of its name that says just that, or that
    it is down: whom the floor cannot reach it must not show as anything else.

    A service may say something else between two looks at it, and the floor may have heard just that; whoever goes on telling
    it (``lasts_ms``) is wrong.
    """
    bound, asked, brief = bound_of(case, with_), 0, 0
    down = Floor.load(case.rules.root).line("", None)["reason_codes"]
    for shown in _meant(case, with_["floor"]):
        lines = [(first, past, {line["service_name"]: line for line in fields["services"]})
                 for first, past, fields in _fields(case, shown, "services")]
        grid = case.timeline.track(shown).grid
        for service in _meant(case, with_["services"]):
            excused = _excused(case, (service, shown), with_, bound)
            for name, state, codes, windows in _stretches(case, service, bound):
                since: int | None = None
                for slot, floor in ((slot, floor) for first, past, floor in lines for slot in range(first, past)):
                    begin, end = grid.asked[slot], grid.answered[slot]
                    if not any(low <= begin and end <= high for low, high in windows) or overlaps(begin, end, excused):
                        since = None
                        continue
                    asked, line = asked + 1, floor.get(name)
                    if line is None:
                        return failed(f"{shown} has no line of {name}, which had answered for {bound} ms", begin)
                    if line["reason_codes"] == down or (line["state"], line["reason_codes"]) == (state, codes):
                        since = None
                        continue
                    brief += 1
                    since = begin if since is None else since
                    if begin - since >= with_["lasts_ms"]:
                        return failed(f"{name} had said {state} {codes} for {bound} ms, and for another {begin - since} ms "
                                      f"{shown} said {line['state']} {line['reason_codes']} of it", begin)
    otherwise = f", {brief} for a look or two something else" if brief else ""
    return passed(f"{asked - brief} lines of the floor said what their services had said{otherwise}", asked=asked)


def _stretches(case: Case, service: str, bound: int) -> Iterator[tuple[str, str, list[str], list[Window]]]:
    """Name, state, reasons, and when a service had been saying so for a bound."""
    said = [*_joined((first, past, (fields["service_name"], fields["status"]["state"],
                                    tuple(fields["status"].get("reason_codes", ()))))
                     for first, past, fields in _fields(case, service, "service_name", "status") if fields["service_name"])]
    for each in dict.fromkeys(one for _, _, one in said):
        series = case.timeline.where_usable(service, ((first, past, one == each) for first, past, one in said))
        yield each[0], each[1], [*each[2]], held_longer(case, service, series, bound)


def told_anew(case: Case, with_: Parameters) -> Finding:
    """No answer tells an older time than the time that has passed since an earlier answer allows: what is served was computed
    after it was asked for. Not asked while a declared fault holds the node's clock, nor across its ends."""
    bound, asked = bound_of(case, with_), 0
    for surface, path in ((surface, each["at"]) for each in with_["surfaces"] for surface in _meant(case, each)):
        held = [window for fault in case.drill.faults if isinstance(fault.force, Clock)
                and fault.force.node == case.timeline.node_of(surface) and (window := case.window(fault)) is not None]
        grid, furthest, ends = case.timeline.track(surface).grid, None, 0
        for slot, value in ((slot, value) for first, past, value in case.values(surface, path, case.timeline.usable(surface))
                            for slot in range(first, past)):
            begin, end = grid.asked[slot], grid.answered[slot]
            passed_by = sum(low <= end for low, _ in held)
            at = instant(value)
            if overlaps(begin, end, held) or at is None:
                continue
            if passed_by != ends:
                furthest, ends = None, passed_by
            told, asked = round(at.timestamp() * 1_000), asked + 1
            if furthest is not None and furthest - (told - begin) > bound:
                return failed(f"{surface} told of a time {furthest - (told - begin)} ms older than when it was asked", begin)
            furthest = told - end if furthest is None else max(furthest, told - end)
    return passed(f"{asked} answers were computed when they were asked for", asked=asked)


def names_apart(case: Case, with_: Parameters) -> Finding:
    """No two nodes answer under one name, nor one node at two places: one that answers for another would be asked twice, and
    the other never. A file may tell again what its own node answers."""
    first: dict[str, str] = {}
    for surface in _meant(case, with_):
        for slot, _, fields in _fields(case, surface, "service_name"):
            name = fields["service_name"]
            other = first.setdefault(name, surface)
            of_two = case.timeline.node_of(other) != case.timeline.node_of(surface)
            answered = case.timeline.file_of(other) is case.timeline.file_of(surface) is None
            if other != surface and (of_two or answered):
                return failed(f"{other} and {surface} are of {'two nodes' if of_two else 'one node'} and both answer as {name}",
                              case.timeline.track(surface).grid.asked[slot])
    return passed(f"{len(first)} names, each of one answer", asked=len(first))


def files_agree(case: Case, with_: Parameters) -> Finding:
    """While the system trusts what it knows, each position in its file is one that the books held a bound ago or since.

    News of several fills may come in another order than the books had them, so one file may tell what never was at once;
    whoever goes on telling it (``lasts_ms``), or tells it of what the books did not move, is wrong.
    """
    bound, asked = bound_of(case, with_), 0
    why, states = case.not_whole(with_["books"]), positions(case, with_)
    for surface in _meant(case, with_["file"]):
        trusting = [window for each in _meant(case, with_["while"]) for window in held_longer(
            case, each, any_in_force(case, each, with_["while"]), bound)]
        excused = _excused(case, (surface,), with_, bound)
        grid = case.timeline.track(surface).grid
        since: dict[str, int] = {}
        for slot, document in _documents(case, surface):
            begin, end = grid.asked[slot], grid.answered[slot]
            if not any(low <= begin and end <= high for low, high in trusting) or overlaps(begin, end, excused):
                since = {}
                continue
            asked += 1
            own: Counter[str] = Counter()      # a symbol may be held on both sides; the books hold what is left of it
            for row in document[with_["rows"]]:
                own[str(row.get(with_["instrument"]))] += row[with_["size"]]
            held = states.held(begin - bound, end)
            since = {name: since.get(name, begin) for name in sorted({*own, *(name for each in held for name in each)})
                     if not any(agree(own[name], each.get(name, 0)) for each in held)}
            wrong = next((name for name, first in since.items() if begin - first > with_["lasts_ms"] or _still(held, name)),
                         None)
            if wrong is not None and why is None:
                return failed(f"{surface} tells of {own[wrong]} {wrong}, which the books have not held for {bound} ms",
                              begin, file=dict(own), books=[dict(each) for each in held][-5:])
    return passed(f"{asked} files told of what the books held", asked=asked) if why is None else unsure(why)


def _still(held: Sequence[Mapping[str, float]], name: str) -> bool:
    """Whether the books did not move this position in any of these states."""
    return all(agree(each.get(name, 0), held[0].get(name, 0)) for each in held)


CHECKS: tuple[Callable[[Case, Parameters], Finding], ...] = (follows, floor_not_better, floor_shows, told_anew, names_apart,
                                                                   files_agree)


def bound_of(case: Case, with_: Parameters) -> int:
    """``bound_ms``, and on top of it a value of the policy in force where the law names one (``bound_policy``)."""
    value = case.policy.get(with_.get("bound_policy", ""), 0)
    return int(with_["bound_ms"] + (value if is_number(value) else 0))


# ---- what is meant, and when it was said -------------------------------------------------------------------


def _meant(case: Case, part: Mapping[str, Any]) -> list[str]:
    """The sampled surfaces that a part of a law speaks of: one by its name, or all under a contract, of some kinds."""
    if "surface" in part:
        return [part["surface"]] if part["surface"] in case.drill.sample else []
    return [surface for surface in case.drill.sample if case.timeline.contract_of(surface) == part["contract"]
            and ("kinds" not in part or any(same(value, kind) for kind in part["kinds"]
                                            for _, _, value in case.timeline.track(surface).values("service_kind")))]


def any_in_force(case: Case, surface: str, part: Mapping[str, Any]) -> Series:
    """When a surface said any of what ``says`` lists, each a set of fields with what is wanted of them."""
    return case.any_of([{surface: {path: _in_force(case, wanted) for path, wanted in each.items()}} for each in part["says"]])


def _in_force(case: Case, wanted: Any) -> Any:
    """``{above_policy: name}``, ``{from_policy: name}`` and ``{below_policy: name}`` with the value that the policy in force
    has for it; a number that nothing reaches where it has none."""
    if not isinstance(wanted, Mapping) or not {*wanted} <= {"above_policy", "from_policy", "below_policy"}:
        return wanted
    (word, name), = wanted.items()
    value = case.policy.get(name)
    nowhere = -math.inf if word == "below_policy" else math.inf
    limit: float = value if isinstance(value, int | float) else nowhere
    if word == "below_policy":
        return {"at_most": math.nextafter(limit, -math.inf)}
    return {"at_least": math.nextafter(limit, math.inf) if word == "above_policy" else limit}


def told(part: Mapping[str, Any]) -> str:
    """The same in words."""
    return " or ".join(", ".join(f"{path} {value}" for path, value in each.items()) for each in part["says"])


def _documents(case: Case, surface: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    return case.timeline.documents(surface, 0, len(case.timeline.track(surface)))


def _fields(case: Case, surface: str, *keys: str) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
    """(first, past, fields) of each stretch of usable slots in which these fields stood."""
    return clipped(case.timeline.track(surface).states(keys), case.timeline.usable(surface))


def _joined(said: Iterable[tuple[int, int, Any]]) -> Iterator[tuple[int, int, Any]]:
    """Neighbours that say the same as one."""
    last: tuple[int, int, Any] | None = None
    for first, past, value in said:
        if last is not None and last[1] == first and last[2] == value:
            last = last[0], past, value
            continue
        if last is not None:
            yield last
        last = first, past, value
    if last is not None:
        yield last


def _line(document: Mapping[str, Any]) -> dict[str, Any]:
    """As the floor knows a service."""
    return {"service_kind": document["service_kind"], "state": document["status"]["state"],
            "reason_codes": document["status"].get("reason_codes", [])}


def held_longer(case: Case, surface: str, series: Series, bound: int) -> list[Window]:
    """From a bound after something began to be said to when it was said last, for each stretch that lasted longer."""
    return [(run.first.answered + bound, run.last.asked) for run in case.runs(series.pieces, case.grain_ms((surface,)))
            if run.last.asked - run.first.answered > bound]


def _down(case: Case, surface: str, bound: int) -> list[Window]:
    """The same, of when a declared fault had a surface's node killed or standing still."""
    found = []
    for fault in case.drill.faults if not case.timeline.placebo else ():
        begin, end = case.mark(fault.id), case.mark(f"{fault.id}.healed")
        if isinstance(fault.force, (Kill, Pause)) and fault.force.node == case.timeline.node_of(surface) and begin is not None:
            found.append((begin.end + bound, end.begin if end is not None else case.end))
    return found


def _denied(said: Series, windows: Iterable[Window], excused: Sequence[Window]) -> tuple[int | None, int]:
    """When first a sample in one of the windows denied it, and how many in them said yes or no."""
    first, asked = None, 0
    for begin, end in windows:
        for piece in said.inside(begin, end).pieces if begin < end else ():
            for slot in range(piece.first, piece.past) if piece.holds is not None else ():
                point = piece.point(slot)
                if overlaps(point.asked, point.answered, excused):
                    continue
                asked += 1
                if not piece.holds and (first is None or point.asked < first):
                    first = point.asked
    return first, asked


# ---- what is excused ---------------------------------------------------------------------------------------


def _excused(case: Case, surfaces: Sequence[str], with_: Parameters, bound: int) -> list[Window]:
    """When a declared fault stands between them, and a bound more. The last surface is the one that has to say something;
    ``excused`` names what counts beside holding its node still: ``links`` between them, ``files`` that it writes or is."""
    nodes, says = [case.timeline.node_of(each) for each in surfaces], with_.get("excused", ())
    found = case.disturbed
    for fault in case.drill.faults:
        window = case.window(fault)
        if window is not None and (_halts(fault, nodes[-1]) or ("links" in says and _parts(case, fault, nodes))
                                   or ("files" in says and _spoils(case, fault, surfaces[-1]))):
            found.append((window[0], window[1] + bound))
    return found


def _halts(fault: Fault, node: str | None) -> bool:
    return isinstance(fault.force, HALTING) and fault.force.node == node


def _parts(case: Case, fault: Fault, nodes: Sequence[str | None]) -> bool:
    """Whether a fault stands on a link between the nodes, or takes one of them off its network."""
    if isinstance(fault.force, (LinkFault, RawToxic)):
        link = (case.timeline.stack.get("links") or {}).get(fault.force.link) or {}
        return {link.get("from"), str(link.get("to", "")).partition(".")[0]} <= {*nodes}
    return isinstance(fault.force, Disconnect) and fault.force.node in nodes


def _spoils(case: Case, fault: Fault, surface: str) -> bool:
    """Whether a fault may keep a node from writing its files, or writes the surface's own."""
    force, node = fault.force, case.timeline.node_of(surface)
    if isinstance(force, Fill):
        return force.node == node or force.volume is not None
    if isinstance(force, (Overwrite, Remove)):
        return force.file == case.timeline.file_of(surface)
    return isinstance(force, Disk) and force.node == node
