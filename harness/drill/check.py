"""Does a drill make sense? What the grammar cannot see: unknown names, marks, overlapping faults, empty proofs.

``check`` returns every problem it finds, each a ``TextError`` with the place in the drill's text; none is raised.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any
from urllib.parse import unquote

from harness import limits
from harness.drill import grammar
from harness.drill.controls import Arguments
from harness.drill.model import (
    Always,
    Answers,
    Call,
    Clock,
    Count,
    Deploy,
    Disconnect,
    Disk,
    Drill,
    Fault,
    Field,
    Fill,
    Force,
    Golden,
    Kill,
    LinkFault,
    Never,
    OnlyAfter,
    Overwrite,
    Pause,
    Predicate,
    RawToxic,
    Remove,
    Starve,
    Switch,
    Within,
)
from harness.drill.predicate import evaluate_field, is_number, same
from harness.drill.specs import Specs
from harness.drill.words import bounds_of, kind, kinds_of, part_of, values_of
from harness.errors import TextError, nearest
from harness.texts import Spot, compose, wrong_at

DELAY_MS_MIN = 20
"""A delay by less could not be told from the lag that a link has by itself."""
COMPARING = ("equals", "is_not", "has", "has_not", "one_of")
"""The operators that ask for a value, of whatever kind."""
TAKEN = range(200, 300)
"""The answers by which a request was taken."""
SHOWN = 60
"""Characters of a value that are shown."""
_SECRET = re.compile(r"\$\{secret:([^}]*)\}")


def check(drill: Drill, specs: Specs) -> list[TextError]:
    """Every problem of the drill against the names that ``specs`` knows, in the order of the text."""
    at = _Places(drill)
    found = [*_names(drill, specs, at), *_told(drill, specs, at), *_samples(drill, at), *_words(drill, specs, at),
             *_kinds(drill, specs, at), *_marks(drill, at), *_events(drill, specs, at), *_windows(drill, at),
             *_moments(drill, at), *_overlaps(drill, specs, at), *_substance(drill, at), *_unbreakable(drill, specs, at),
             *_too_early(drill, at)]
    return sorted(found, key=lambda problem: (problem.line, problem.column))


def marks(drill: Drill) -> tuple[str, ...]:
    """Every mark that a run of the drill makes."""
    own = [mark for fault in drill.faults for mark in (fault.id, f"{fault.id}.healed")]
    return (*grammar.BUILT_IN_MARKS, *own, *(each.id for each in drill.stimuli))


GOLDEN_CONTRACT = "csp_status"
"""What a golden is a document of that names no surface."""

SHELL_DISKS = ("stall", "slow", "refuse", "read_only", "torn", "unsynced")
"""Disk faults that are done to a log's writer process or to a process that bears a limit on its files, or within the
simulated disk."""


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none at all"


class _Places:
    """Where a clause stands in the text: by path of keys, as near as the text has it."""

    def __init__(self, drill: Drill) -> None:
        self.file = drill.file or "drill.yaml"
        self.root = compose(drill.text, self.file) if drill.text else None

    def error(self, path: Iterable[str], found: str, expected: str, known: Iterable[str] = (),
              name: str | None = None) -> TextError:
        spot = self._spot(tuple(path))
        mark = spot.node.start_mark if spot else None
        return wrong_at(self.file, mark, found, expected, nearest(name, known) if name is not None else None)

    def unknown(self, path: Iterable[str], what: str, name: str, known: Iterable[str]) -> TextError:
        known = sorted(known)
        shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
        return self.error(path, f"the {what} {name!r}", f"one of {shown or 'none at all'}", known, name)

    def _spot(self, path: tuple[str, ...]) -> Spot | None:
        spot = self.root
        for key in path:
            if spot is None or not spot.is_mapping:
                break
            entries = spot.mapping()
            if key not in entries:
                break
            spot = entries[key][1]
        return spot


# ---- names ------------------------------------------------------------------------------------------------


def _names(drill: Drill, specs: Specs, at: _Places) -> Iterator[TextError]:
    for item in drill.proves:
        if specs.items is not None and item not in specs.items:
            yield at.unknown(("proves",), "phase item", item, specs.items)
    for section, periods in (("sample", drill.sample), ("grain", drill.grain_ms)):
        for surface in periods:
            if specs.surfaces is not None and surface not in specs.surfaces:
                yield at.unknown((section, surface), "surface", surface, specs.surfaces)
    for fault in drill.faults:
        yield from _force_names(fault, specs, at)
    for stimulus in drill.stimuli:
        act = stimulus.act
        where = ("stimuli", stimulus.id, "call" if isinstance(act, Call) else "drop")
        yield from _node_name(act.node, specs, at, where)
        if isinstance(act, Call):
            yield from _call_names(act, specs, at, where)
    if drill.golden is not None:
        yield from _golden_names(drill.golden, drill, specs, at)


def _golden_names(golden: Golden, drill: Drill, specs: Specs, at: _Places) -> Iterator[TextError]:
    contract: str | None = GOLDEN_CONTRACT
    if golden.surface is not None:
        if golden.surface not in drill.sample:
            yield at.unknown(("golden", "surface"), "surface", golden.surface, frozenset(drill.sample))
            return
        if specs.contracts is None:
            return
        contract = specs.contracts.get(golden.surface)
    elif specs.contracts is not None and GOLDEN_CONTRACT not in specs.contracts.values():
        yield at.error(("golden",), f"a golden of the contract {GOLDEN_CONTRACT}",
                       f"a surface that keeps it; this stack has {_list(specs.contracts)}")
    if specs.fixtures is None:
        return
    fixtures = specs.fixtures.get((contract or "").partition(".")[0])
    if fixtures is None:
        yield at.error(("golden", "surface"), f"a golden of {contract or 'no contract'}",
                       f"a surface under one of {_list(specs.fixtures)}")
    elif golden.fixture not in fixtures:
        yield at.unknown(("golden", "fixture"), "fixture", golden.fixture, fixtures)


def _force_names(fault: Fault, specs: Specs, at: _Places) -> Iterator[TextError]:
    force = fault.force
    where = ("faults", fault.id, verb_of(fault))
    if isinstance(force, (LinkFault, RawToxic)):
        if specs.links is not None and force.link not in specs.links:
            yield at.unknown((*where, "link"), "link", force.link, specs.links)
        return
    yield from _node_name(force.node, specs, at, where)
    build = getattr(force, "build", None)
    builds = (specs.builds or {}).get(force.node)
    if build is not None and builds is not None and build not in builds:
        yield at.unknown((*where, "build"), "build", build, builds)
    if isinstance(force, Call):
        yield from _call_names(force, specs, at, where)
    yield from _beyond_the_stack(force, specs, at, where)
    if isinstance(force, Fill) and force.volume is not None and specs.volumes is not None:
        if force.volume not in specs.volumes:
            yield at.unknown((*where, "volume"), "volume", force.volume, specs.volumes)
        elif force.node not in specs.volumes[force.volume]:
            yield at.unknown((*where, "node"), f"node without the volume {force.volume}:", force.node,
                             specs.volumes[force.volume])
    if isinstance(force, Switch) and specs.controlled is not None and specs.nodes is not None \
            and force.node in specs.nodes - specs.controlled.keys():
        yield at.unknown((*where, "node"), "node without a control port", force.node, specs.controlled)


def _beyond_the_stack(force: Force, specs: Specs, at: _Places, where: tuple[str, ...]) -> Iterator[TextError]:
    """What needs more of a node than that it is a process: said here, by name, and not when the drill runs."""
    node = getattr(force, "node", None)
    if node is None or (specs.nodes is not None and node not in specs.nodes):
        return
    if isinstance(force, Clock) and specs.clocked is not None and node not in specs.clocked:
        yield at.error((*where, "node"), f"the node {node!r}, which does not tell its wall clock",
                       "a node with `clock: {port, path, mono, wall}` in the stack, or nothing could witness the fault",
                       specs.clocked, node)
    if isinstance(force, Disconnect) and specs.linked is not None and node not in specs.linked:
        yield at.error((*where, "node"), f"the node {node!r}, which is at no end of a link: nobody would miss its network",
                       f"a node with a link ({', '.join(sorted(specs.linked)) or 'this stack has none'})", specs.linked, node)
    if specs.shelled is None or node in specs.shelled:
        return
    if isinstance(force, Kill) and force.before is not None:
        yield at.error((*where, "before"), f"a crash point of {node!r}, which is no machine in our shell",
                       "a kill at its own moment, without 'before'")
    if isinstance(force, Disk) and force.kind in SHELL_DISKS:
        yield at.error(where, f"a disk fault {force.kind!r} of {node!r}, which is no machine in our shell",
                       "a node whose log has a writer process of its own (NODE_WRITER_LOGS)")


def _node_name(node: str, specs: Specs, at: _Places, where: tuple[str, ...]) -> Iterator[TextError]:
    if specs.nodes is not None and node not in specs.nodes:
        yield at.unknown((*where, "node"), "node", node, specs.nodes)


def _call_names(act: Call, specs: Specs, at: _Places, where: tuple[str, ...]) -> Iterator[TextError]:
    ports = (specs.ports or {}).get(act.node)
    if ports is not None and act.port not in ports:
        yield at.unknown((*where, "port"), "port", act.port, ports)
    for name, value in act.headers.items():
        for secret in _SECRET.findall(value):
            if specs.secrets is not None and secret not in specs.secrets:
                yield at.unknown((*where, "headers", name), "secret", secret, specs.secrets)


def _told(drill: Drill, specs: Specs, at: _Places) -> Iterator[TextError]:
    """What a control port is told, by a switch or by a call: it would refuse a wrong value, and the run be INCONCLUSIVE. A call
    that is meant to be refused is left alone."""
    refused = {each.to for each in drill.promises if isinstance(each, Answers) and each.status not in TAKEN}
    for fault in drill.faults:
        if isinstance(fault.force, Switch) and specs.switches is not None:
            where, force = ("faults", fault.id, "switch"), fault.force
            yield from _arguments("switch", force.name, force.arguments, specs.switches, at, (*where, "name"),
                                  (*where, "arguments"))
    acts = [(("faults", each.id, "call"), each.force) for each in drill.faults]
    acts += [(("stimuli", each.id, "call"), each.act) for each in drill.stimuli if isinstance(each.act, Call)]
    for where, call in acts:
        if isinstance(call, Call) and where[1] not in refused and (call.expect is None or call.expect in TAKEN) \
                and (specs.controlled or {}).get(call.node) == call.port:
            yield from _request(call, specs, at, where)


def _request(call: Call, specs: Specs, at: _Places, where: tuple[str, ...]) -> Iterator[TextError]:
    """A call of a control port that turns a switch on or has something done."""
    match call.method, [unquote(part) for part in call.path.partition("?")[0].strip("/").split("/")]:
        case "PUT", ["switches", name]:
            what, known = "switch", specs.switches
        case "POST", ["acts", name]:
            what, known = "act", specs.acts
        case _:
            return
    given = {} if call.body is None else call.body
    if known is None:
        return
    if isinstance(given, dict):
        yield from _arguments(what, name, given, known, at, (*where, "path"), (*where, "body"))
    else:
        yield at.error((*where, "body"), json.dumps(given)[:SHOWN], f"a mapping of {name}'s arguments")


def _arguments(what: str, name: str, given: Mapping[str, Any], known: Mapping[str, Arguments], at: _Places,
               named: tuple[str, ...], where: tuple[str, ...]) -> Iterator[TextError]:
    """The arguments at ``where`` against those of the switch or act that is named at ``named``; null is as good as none."""
    if name not in known:
        yield at.unknown(named, what, name, known)
        return
    for argument, value in given.items():
        fitting = known[name].get(argument)
        if fitting is None:
            yield at.unknown((*where, argument), f"argument of {name}", argument, known[name])
        elif value is not None and not fitting.fits(value):
            yield at.error((*where, argument), f"{argument} {json.dumps(value)[:SHOWN]}", fitting.says, fitting.enum,
                           value if isinstance(value, str) else None)
    for argument, fitting in known[name].items():
        if fitting.required and given.get(argument) is None:
            yield at.error(where, f"no {argument}", f"{name} with its {argument}, {fitting.says}")


def verb_of(fault: Fault) -> str:
    """The word of the grammar that the fault's force is written with."""
    force = fault.force
    if isinstance(force, LinkFault):
        return force.effect
    if isinstance(force, Kill):
        return force.how
    if isinstance(force, Deploy):
        return "deploy" if force.build else "restart"
    return {RawToxic: "toxic", Pause: "pause", Starve: "starve", Disconnect: "disconnect", Clock: "clock", Disk: "disk",
            Fill: "fill", Overwrite: "overwrite", Remove: "remove", Switch: "switch", Call: "call"}[type(force)]


# ---- samples, marks, events -------------------------------------------------------------------------------


def predicates(drill: Drill) -> Iterator[tuple[tuple[str, ...], Predicate]]:
    """Every predicate of the drill, with the path of its clause."""
    yield ("given",), drill.given.predicate
    for promise in drill.promises:
        where = ("promises", promise.id)
        match promise:
            case Within():
                yield where, promise.predicate
            case Always():
                yield (*where, "always"), promise.predicate
                if promise.while_ is not None:
                    yield (*where, "while"), promise.while_
            case Never():
                yield (*where, "while"), promise.while_
            case OnlyAfter():
                yield (*where, "becomes"), promise.becomes
    yield ("converge",), drill.converge.predicate


def _samples(drill: Drill, at: _Places) -> Iterator[TextError]:
    if not drill.sample:
        yield at.error(("sample",), "no surface", "at least one surface to sample")
    for where, predicate in predicates(drill):
        for surface in predicate.surfaces:
            if surface not in drill.sample:
                yield at.error((*where, surface), f"the surface {surface!r}, which this drill does not sample",
                               "a surface under 'sample'", drill.sample, surface)
        yield from _contradictions(predicate.fields, where, at)
    for field in drill.given.predicate.fields:
        if field.operator == "rises":
            yield at.error(("given", field.surface, field.path), "rises in the given",
                           "a comparison that needs no baseline: the baseline is taken when the given has held")
    for surface, grain in drill.grain_ms.items():
        if surface not in drill.sample:
            yield at.error(("grain", surface), f"a grain for {surface!r}, which is not sampled", "a sampled surface",
                           drill.sample, surface)
        elif grain < drill.sample[surface]:
            yield at.error(("grain", surface), f"a grain of {grain} ms",
                           f"at least the sampling period, {drill.sample[surface]} ms")


def _words(drill: Drill, specs: Specs, at: _Places) -> Iterator[TextError]:
    """A text that the field's contract does not know can never be seen, so whoever denies it is never wrong."""
    for where, predicate in predicates(drill):
        for field in predicate.fields:
            known = specs.words.get(field.surface, {}).get(field.path, frozenset())
            named = field.value if isinstance(field.value, list) else [field.value]
            for value in named if known and field.operator in COMPARING else ():
                if isinstance(value, str) and value not in known:
                    yield at.unknown((*where, field.surface, field.path), f"value of {field.path}", value, known)


def _kinds(drill: Drill, specs: Specs, at: _Places) -> Iterator[TextError]:
    """A value of a kind that the field never has can never be seen, either; nor a field that its contract is closed to."""
    for where, predicate in predicates(drill):
        for field in predicate.fields:
            place = (*where, field.surface, field.path)
            part, instead = part_of(specs.schemas.get(field.surface), field.path)
            expected = _fitting(field, part) if field.operator in COMPARING else None
            if instead:
                yield at.unknown(place, "field", field.path, instead)
            elif expected is not None:
                yield at.error(place, f"{field.path} {{{field.operator}: {json.dumps(field.value)}}}", expected)


def _fitting(field: Field, part: Any) -> str | None:
    """What would fit a field of which the contract says that; None where the value does, or nothing is said."""
    kinds, members = kinds_of(part), kinds_of(part.get("items") if isinstance(part, Mapping) else None)
    among, values = field.operator in ("has", "has_not"), [field.value]
    if kinds and among and "a list" not in kinds:
        return f"{'equals' if field.operator == 'has' else 'is_not'}: {field.path} is {' or '.join(sorted(kinds))}, and no list"
    if among:
        kinds = members
    elif field.operator == "one_of" and isinstance(field.value, list):
        values = field.value
    for value in values:
        if kinds and kind(value) not in kinds:
            listed = f"{'has_not' if field.operator == 'is_not' else 'has'}, or " if "a list" in kinds and not among else ""
            return f"{listed}{' or '.join(sorted(kinds))}, as {field.path} {'holds' if among else 'always is'}"
        if not among and isinstance(value, list) and members and (alien := {*map(kind, value)} - members):
            return f"a list of {' or '.join(sorted(members))} each, none of {' or '.join(sorted(alien))}"
    return None


def _contradictions(fields: tuple[Field, ...], where: tuple[str, ...], at: _Places) -> Iterator[TextError]:
    low = {(each.surface, each.path): each.value for each in fields if each.operator == "at_least"}
    for field in fields:
        bound = low.get((field.surface, field.path))
        if field.operator == "at_most" and isinstance(bound, (int, float)) and isinstance(field.value, (int, float)) \
                and field.value < bound:
            yield at.error((*where, field.surface, field.path), f"at most {field.value}",
                           f"at least {bound}, because at_least says so")


def _marks(drill: Drill, at: _Places) -> Iterator[TextError]:
    known = marks(drill)
    own = [*(fault.id for fault in drill.faults), *(each.id for each in drill.stimuli)]
    for name in sorted({name for name in own if own.count(name) > 1}):
        yield at.error(("stimuli", name), f"the name {name!r} twice", "each fault and stimulus with a name of its own")
    for where, mark in _mark_uses(drill):
        if mark not in known:
            yield at.unknown(where, "mark", mark, known)
    calls = {each.id for each in drill.faults if isinstance(each.force, Call)}
    calls |= {each.id for each in drill.stimuli if isinstance(each.act, Call)}
    order = nominal_ms(drill)
    for promise in drill.promises:
        if isinstance(promise, Answers) and promise.to in known and promise.to not in calls:
            yield at.error(("promises", promise.id, "to"), f"{promise.to!r}, which asks nobody",
                           "a stimulus or a fault that is a call", calls, promise.to)
        begin, end = (promise.after, promise.stays_until) if isinstance(promise, Within) else \
            (promise.since, promise.until) if isinstance(promise, (Always, Count)) else (None, None)
        if begin is not None and end is not None and begin in order and end in order and order[end] <= order[begin]:
            key = "stays_until" if isinstance(promise, Within) else "until"
            found = f"{end!r}, which does not come after {begin!r}"
            yield at.error(("promises", promise.id, key), found, "a later mark")


def _mark_uses(drill: Drill) -> Iterator[tuple[tuple[str, ...], str]]:
    for promise in drill.promises:
        where = ("promises", promise.id)
        for key in ("after", "stays_until", "since", "until", "to"):
            mark = getattr(promise, key, None)
            if mark is not None:
                yield (*where, key), mark
    if drill.golden is not None:
        yield ("golden", "after"), drill.golden.after


def nominal_ms(drill: Drill) -> Mapping[str, int]:
    """When each mark is due by the plan, from zero; marks that depend on the system are far out but in order."""
    order = {"started": -2, "given": -1, "healed": grammar.MS_MAX, "converge": grammar.MS_MAX + 1,
             "stopped": grammar.MS_MAX + 2}
    for fault in drill.faults:
        order |= {fault.id: fault.at_ms, f"{fault.id}.healed": fault.at_ms + fault.for_ms}
    return order | {each.id: each.at_ms for each in drill.stimuli}


def _events(drill: Drill, specs: Specs, at: _Places) -> Iterator[TextError]:
    for promise in drill.promises:
        if not isinstance(promise, (Never, OnlyAfter, Count)):
            continue
        key = {Never: "never", OnlyAfter: "only_after", Count: "count"}[type(promise)]
        where = ("promises", promise.id, key)
        if specs.events is None:
            continue
        if promise.event not in specs.events:
            yield at.unknown(where, "event", promise.event, specs.events)
        elif specs.streams is not None and (missing := sorted(specs.told_by.get(promise.event, frozenset()) - specs.streams)):
            yield at.error(where, f"{promise.event!r}, which {' and '.join(missing)} would tell",
                           f"a stack with that stream; this one has {_list(specs.streams)}")
        elif not specs.events[promise.event]:
            yield at.error(where, f"{promise.event!r}, which is only sampled",
                           "an event that a node writes down: sampling cannot prove that nothing happened in between")
        elif isinstance(promise, Never) and specs.tried is not None and promise.event not in specs.tried:
            yield at.error(where, f"{promise.event!r}, of which nobody writes down that it was tried",
                           f"one of {_list(specs.tried)}: that nobody wanted it proves nothing", specs.tried, promise.event)


# ---- time -------------------------------------------------------------------------------------------------


def _windows(drill: Drill, at: _Places) -> Iterator[TextError]:
    for fault in drill.faults:
        if fault.at_ms + fault.for_ms > grammar.MS_MAX:
            yield at.error(("faults", fault.id), f"an end at {fault.at_ms + fault.for_ms} ms", "an end within a day")
    for name, clause in (("given", drill.given), ("converge", drill.converge)):
        if name == "given" and clause.within_ms < clause.for_ms:
            yield at.error((name, "within"), f"{clause.within_ms} ms", f"at least its 'for', {clause.for_ms} ms")
    for surface in drill.converge.predicate.surfaces:
        if drill.converge.for_ms < drill.sample.get(surface, 0):
            yield at.error(("converge", "for"), f"{drill.converge.for_ms} ms", f"at least the sampling period of {surface}, "
                           f"{drill.sample[surface]} ms: nobody need look at it in less")
    yield from _undecided(drill, at)
    for surface in drill.sample:
        grain = _grain_ms(drill, surface)
        for promise in drill.promises:
            if isinstance(promise, Within) and surface in promise.predicate.surfaces and promise.within_ms < grain:
                yield at.error(("promises", promise.id, "within"), f"{promise.within_ms} ms",
                               f"at least the grain of {surface}, {grain} ms: it could never be decided")


def _undecided(drill: Drill, at: _Places) -> Iterator[TextError]:
    """A run ends soon after it has converged; a deadline beyond that could never be seen broken, not even by a placebo."""
    planned, last = nominal_ms(drill), drill.heal_at_ms + drill.converge.for_ms
    own = {name for each in drill.faults for name in (each.id, f"{each.id}.healed")} | {each.id for each in drill.stimuli}
    deadlines: list[tuple[tuple[str, ...], str, int]] = [
        (("promises", each.id, "within"), each.after, each.within_ms) for each in drill.promises
        if isinstance(each, Within)]
    if drill.golden is not None:
        deadlines.append((("golden", "reached_within"), drill.golden.after, drill.golden.reached_within_ms))
    for where, mark, within_ms in deadlines:
        if mark in own and planned[mark] + within_ms > last:
            yield at.error(where, f"a deadline {planned[mark] + within_ms - last} ms after the earliest end of the run",
                           f"at most {last - planned[mark]} ms: the last healing and converge's 'for' end the run")
    for promise in drill.promises:
        until = promise.stays_until if isinstance(promise, Within) else None
        if isinstance(promise, Within) and {promise.after, until} <= own and until is not None \
                and planned[promise.after] < planned[until] <= planned[promise.after] + promise.within_ms <= last:
            yield at.error(("promises", promise.id, "within"), f"a deadline not before {until}, until which it is asked",
                           f"less than {planned[until] - planned[promise.after]} ms: it could never be seen missed")


def _moments(drill: Drill, at: _Places) -> Iterator[TextError]:
    """What begins while the world still carries out what came before begins late, and not when the drill says."""
    acts = [(each.at_ms, ("faults", each.id, "at")) for each in drill.faults]
    acts += [(each.at_ms + each.for_ms, ("faults", each.id, "for")) for each in drill.faults]
    acts += [(each.at_ms, ("stimuli", each.id, "at")) for each in drill.stimuli]
    for (before_ms, before), (at_ms, where) in pairwise(sorted(acts)):
        if 0 < at_ms - before_ms < limits.MOMENTS_MS_MIN:
            what = f"the end of {before[1]}" if before[-1] == "for" else before[1]
            yield at.error(where, f"a moment {at_ms - before_ms} ms after {what}",
                           f"the same moment, or one at least {limits.MOMENTS_MS_MIN} ms later")


def _overlaps(drill: Drill, specs: Specs, at: _Places) -> Iterator[TextError]:
    for first, second in combinations(drill.faults, 2):
        together = first.at_ms < second.at_ms + second.for_ms and second.at_ms < first.at_ms + first.for_ms
        clash = _clash(first, second) or _unused(first, second, specs) or _unused(second, first, specs) if together else None
        if clash:
            yield at.error(("faults", second.id), f"{second.id!r} during {first.id!r}: {clash}",
                           "faults that can both be seen to land")
    for fault in drill.faults:
        if isinstance(fault.force, Disk) and fault.force.kind in ("torn", "unsynced") and not _crashes(fault, drill):
            yield at.error(("faults", fault.id), f"a {fault.force.kind} disk without a crash of {fault.force.node}",
                           "a kill of that node while the disk fault lasts")


def _crashes(disk: Fault, drill: Drill) -> bool:
    return any(isinstance(each.force, Kill) and isinstance(disk.force, Disk) and each.force.node == disk.force.node
               and disk.at_ms <= each.at_ms < disk.at_ms + disk.for_ms for each in drill.faults)


def _clash(first: Fault, second: Fault) -> str | None:
    """Why two forces at the same time on the same target make no sense, or None."""
    one, two = first.force, second.force
    if isinstance(one, LinkFault) and isinstance(two, LinkFault) and one.link == two.link:
        return _link_clash(one, two)
    life = (Kill, Pause, Deploy, Starve)
    nodes = getattr(one, "node", None), getattr(two, "node", None)
    if isinstance(one, Disconnect) and isinstance(two, Disconnect) and one == two:
        return f"{one.node} has one network"
    if None in nodes or nodes[0] != nodes[1]:
        return None
    if isinstance(one, life) and isinstance(two, life):
        return f"{nodes[0]} cannot be stopped twice"
    if isinstance(one, Clock) and isinstance(two, Clock):
        return f"{nodes[0]} has one wall clock"
    if isinstance(one, Disk) and isinstance(two, Disk) and one.kind == two.kind:
        return f"the disk of {nodes[0]} already does that"
    if isinstance(one, Overwrite) and isinstance(two, Overwrite) and one.file == two.file:
        return f"{one.file} is overwritten already, and neither could be told from the other"
    if isinstance(one, Fill) and isinstance(two, Fill) and one.volume == two.volume:
        return f"the disk of {nodes[0]} is filled once at a time"
    disks = [each for each in (one, two) if isinstance(each, (Disk, Fill))]
    if len(disks) == 2 and any(isinstance(each, Disk) and each.kind == "read_only" for each in disks):
        return f"nothing else can be done to a disk of {nodes[0]} that takes no writing"
    if isinstance(one, Switch) and isinstance(two, Switch) and one.name == two.name:
        return f"the switch {one.name} is on already"
    if isinstance(one, Switch) or isinstance(two, Switch):
        return _switch_clash(first, second) if isinstance(one, Switch) else _switch_clash(second, first)
    dead, other = (one, two) if isinstance(one, Kill) else (two, one)
    if isinstance(dead, Kill) and dead.before is None and isinstance(other, Call):
        killing, asking = (first, second) if dead is one else (second, first)
        if killing.at_ms <= asking.at_ms:
            return f"{nodes[0]} is dead and answers nobody"
    return None


def _unused(trouble: Fault, death: Fault, specs: Specs) -> str | None:
    """What befalls a link while whoever dials it is dead all the time: nothing travels, whatever is done to it."""
    link, dead = trouble.force, death.force
    if isinstance(link, (LinkFault, RawToxic)) and isinstance(dead, Kill) and dead.before is None \
            and specs.clients.get(link.link) == dead.node \
            and death.at_ms <= trouble.at_ms and trouble.at_ms + trouble.for_ms <= death.at_ms + death.for_ms:
        return f"{dead.node} is dead all the while, and nobody else sends on {link.link}"
    return None


def _switch_clash(switch: Fault, other: Fault) -> str | None:
    """A node that begins anew has forgotten its switches, and one that is stopped does not say whether they are on."""
    force = other.force
    if isinstance(force, Kill):
        return f"{force.node} is dead and has no switches" if force.before is None else \
            f"{force.node} begins anew and has forgotten its switches"
    if isinstance(force, Deploy) and switch.at_ms <= other.at_ms:
        return f"{force.node} begins anew and has forgotten its switches"
    if isinstance(force, Pause):
        return f"{force.node} is stopped, and nobody can say whether its switches are on"
    return None


def _link_clash(one: LinkFault, two: LinkFault) -> str | None:
    if "cut" in (one.effect, two.effect):
        return f"nothing travels on {one.link} while it is cut"
    if one.toward != two.toward and "both" not in (one.toward, two.toward):
        return None
    still = ("stall", "drop")
    if one.effect == two.effect or (one.effect in still and two.effect in still):
        return f"the same bytes of {one.link} are troubled twice"
    return None


# ---- substance --------------------------------------------------------------------------------------------


def _substance(drill: Drill, at: _Places) -> Iterator[TextError]:
    """A drill without a fault, or without a promise, proves nothing."""
    if not drill.faults and not drill.stimuli:
        yield at.error(("faults",), "neither a fault nor a stimulus", "something that happens")
    if not drill.promises:
        yield at.error(("promises",), "no promise", "at least one promise")
    for promise in drill.promises:
        if isinstance(promise, Count) and not promise.at_least and promise.at_most is None:
            yield at.error(("promises", promise.id, "at_least"), "at least 0, which nothing can break", "a number from 1")
    yield from _too_small(drill, at)
    yield from _too_coarse(drill, at)


def _unbreakable(drill: Drill, specs: Specs, at: _Places) -> Iterator[TextError]:
    """A promise of what holds whatever a lawful system says, or of no more than its own 'while' asks for."""
    for promise in drill.promises:
        if not isinstance(promise, (Always, Within)):
            continue
        where = ("promises", promise.id, *(["always"] if isinstance(promise, Always) else []))
        asked = promise.while_.fields if isinstance(promise, Always) and promise.while_ is not None else ()
        fields = promise.predicate.fields
        if fields and all(_implied(each, (*_lawful(each, specs), *asked)) for each in fields):
            first = fields[0]
            why = "every value that it may have" if _implied(first, _lawful(first, specs)) else "as 'while' has it already"
            yield at.error((*where, first.surface, first.path),
                           f"{first.path} {{{first.operator}: {json.dumps(first.value)}}}, {why}: nothing can break that",
                           "a field that may be seen otherwise")


def _lawful(field: Field, specs: Specs) -> Iterator[Field]:
    """What its contract says of the field by itself, in the words of a drill."""
    part = part_of(specs.schemas.get(field.surface), field.path)[0]
    if values := values_of(part):
        yield replace(field, operator="one_of", value=values)
    for operator, bound in bounds_of(part).items():
        yield replace(field, operator=operator, value=bound)


def _implied(field: Field, known: Iterable[Field]) -> bool:
    """Whether a field of which all that is known holds can be nothing but as is asked, too."""
    known = [each for each in known if (each.surface, each.path) == (field.surface, field.path)]
    if any(each.operator == field.operator and same(each.value, field.value) for each in known):
        return True
    counted = next((each.value if each.operator == "one_of" else [each.value] for each in known
                    if each.operator in ("equals", "one_of")), [])
    left = [value for value in (counted if isinstance(counted, list) else [])
            if all(_of_value(each, value) is not False for each in known)]
    return _takes_all(field, left) or any(_bounds(each, field) for each in known)


def _bounds(known: Field, field: Field) -> bool:
    """Whether numbers within a bound are all as is asked: within a wider one, or none beyond it."""
    bound, asked = known.value, field.value
    if not is_number(bound) or not is_number(asked):
        return False
    beyond = asked < bound if known.operator == "at_least" else known.operator == "at_most" and asked > bound
    return beyond and field.operator in (known.operator, "is_not")


def _of_value(field: Field, value: Any) -> bool | None:
    """Whether the field holds with that value."""
    return evaluate_field(replace(field, path="it"), {"it": value}, None)


def _takes_all(field: Field, values: list[Any]) -> bool:
    """Whether the field holds with each of these values, of which there are some."""
    return bool(values) and all(_of_value(field, each) for each in values)


def _too_early(drill: Drill, at: _Places) -> Iterator[TextError]:
    """What is over before anything happens says nothing of what happens. Beside a promise that does it is a control."""
    first = min([*(each.at_ms for each in drill.faults), *(each.at_ms for each in drill.stimuli)], default=0)
    ends = list(_ends(drill))
    for where, ends_ms in ends if all(ends_ms is not None and ends_ms <= first for _, ends_ms in ends) else ():
        yield at.error(where, f"an end at {ends_ms} ms, before anything happens",
                       f"a promise that lasts longer: the first fault or stimulus begins at {first} ms")


def _ends(drill: Drill) -> Iterator[tuple[tuple[str, ...], int | None]]:
    """When each promise and the golden are over at the latest, by the plan; None where the plan does not say: a crash point
    waits for its moment."""
    waits = {each.id for each in drill.faults if isinstance(each.force, Kill) and each.force.before is not None}
    planned = {mark: max(at_ms, 0) for mark, at_ms in nominal_ms(drill).items() if mark not in waits}
    for promise in drill.promises:
        where, until = ("promises", promise.id), getattr(promise, "until", None) or getattr(promise, "stays_until", None)
        if isinstance(promise, Within) and until is None:
            yield (*where, "within"), _later(planned.get(promise.after), promise.within_ms)
        else:
            yield (*where, "stays_until" if isinstance(promise, Within) else "until"), planned.get(until) if until else None
    if drill.golden is not None:
        yield ("golden", "reached_within"), _later(planned.get(drill.golden.after), drill.golden.reached_within_ms)


def _later(moment_ms: int | None, by_ms: int) -> int | None:
    return moment_ms + by_ms if moment_ms is not None else None


def _too_small(drill: Drill, at: _Places) -> Iterator[TextError]:
    """A link has a lag of its own, of some milliseconds: less than that is no force that anybody could see landing."""
    for fault in drill.faults:
        force = fault.force
        if isinstance(force, LinkFault) and force.effect == "delay" and (force.amount or 0) < DELAY_MS_MIN:
            yield at.error(("faults", fault.id, "delay", "by"), f"a delay of {force.amount} ms",
                           f"at least {DELAY_MS_MIN} ms: a link's own lag is of that size")
        if isinstance(force, RawToxic) and force.type == "latency" and force.attributes.get("latency", 0) < DELAY_MS_MIN:
            yield at.error(("faults", fault.id, "toxic"), f"a latency of {force.attributes.get('latency', 0)} ms",
                           f"at least {DELAY_MS_MIN} ms: a link's own lag is of that size")


def _grain_ms(drill: Drill, surface: str) -> int:
    """How far apart usable samples of a surface may be."""
    return drill.grain_ms.get(surface, limits.GRAIN_PERIODS * drill.sample[surface] + limits.GRAIN_SLACK_MS)


def _too_coarse(drill: Drill, at: _Places) -> Iterator[TextError]:
    """What lasts for less than the grain need not be seen: where that is longer than all that happens, nothing need be."""
    acts = [*(fault.at_ms + fault.for_ms for fault in drill.faults), *(each.at_ms for each in drill.stimuli)]
    longest = max([*acts, drill.converge.for_ms, drill.given.for_ms], default=0)
    for surface, period in drill.sample.items():
        grain = _grain_ms(drill, surface)
        if drill.faults and grain > longest:
            yield at.error(("sample", surface), f"a look every {period} ms, which need not see what lasts for {grain} ms",
                           f"at most {longest} ms: all that happens here takes no longer")
