"""One recording with its drill and the rules: the questions that premises, promises and laws share."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from harness.contracts import own
from harness.contracts.own import Contract as OwnContract
from harness.drill.model import (
    HALTING,
    Clock,
    Deploy,
    Disconnect,
    Drill,
    Fault,
    Kill,
    LinkFault,
    Overwrite,
    Pause,
    Predicate,
    RawToxic,
    Remove,
    Starve,
    Switch,
)
from harness.drill.predicate import of_plain
from harness.errors import SpecError, UsageError
from harness.recording.columns import Stretch, clipped, within, without
from harness.recording.rows import Row, Rows
from harness.recording.series import Piece, Point, Series, gaps, grain_of, together
from harness.recording.timeline import Mark, Timeline
from harness.verdict.rules import Event, Law, Rules, streams_of

Window = tuple[int, int]
Found = TypeVar("Found")

WRITTEN_AGAIN_MS = 10_000
"""So long may a node take, from its start, until it writes a file again; what it had left behind says nothing until then."""

DELAYING = ("stall", "delay", "throttle", "fragment")
"""Effects that let bytes arrive later than the link's transit: what was sent before may arrive long after."""


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch in which a predicate held: ``first`` and ``last`` are its outermost yes samples.

    ``before`` is the last usable no in front of it and ``after`` the first one behind it; None where the recording
    begins or ends, or where a gap hides the change.
    """

    first: Point
    last: Point
    before: Point | None
    after: Point | None


@dataclass(slots=True)
class Case:
    """What is judged, by what."""

    timeline: Timeline
    drill: Drill
    rules: Rules
    policy: Mapping[str, Any]
    _series: dict[str, Series] = field(default_factory=dict)
    _rows: dict[str, Sequence[Row]] = field(default_factory=dict)
    _moments: dict[str, tuple[list[int], list[int], bool]] = field(default_factory=dict)
    _findings: dict[str, dict[int, list[Any]]] = field(default_factory=dict)
    _lives: dict[str, list[list[Stretch]]] = field(default_factory=dict)
    _end: int | None = None
    _blocked: Series | None = None
    _told: Mapping[str, Any] | None = None
    _found: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, find: Callable[[], Found]) -> Found:
        """What several checks ask for under one name, found by the first of them. It does not hold the case, which would then
        hold itself."""
        if name not in self._found:
            self._found[name] = find()
        found: Found = self._found[name]
        return found

    # ---- the stack

    @property
    def told(self) -> Mapping[str, Any] | None:
        """The stack in the folder where it is the one that was run, by digest; None where nobody can say what there was."""
        if self._told is None:
            said = self.timeline.head.get("stack")
            named = said.get("sha256") if isinstance(said, Mapping) else None
            self._told = self.timeline.stack if named is not None and named == sha256_of(self.timeline.folder / "stack.yaml") \
                else {}
        return self._told or None

    def lacks(self, *streams: str) -> str | None:
        """The first of these streams that the stack never had, or None: also where nobody can say what it had."""
        declared = (self.told or {}).get("streams", {})
        if self.told is None or not isinstance(declared, Mapping):
            return None
        return next((stream for stream in streams if stream and stream not in declared), None)

    def not_asked(self, law: Law) -> str | None:
        """Why a law has nothing to ask of this stack, or None."""
        if missing := self.lacks(*law.streams):
            return f"not asked: the stack has no {missing}"
        keep = self.rules.surfaces_keep
        other = next((name for name in law.surfaces if self.told and keep and self.timeline.contract_of(name) != keep), None)
        return f"not asked: the stack's {other} does not keep the contract {keep}" if other is not None else None

    def watches(self, contract: str | None) -> bool:
        """Whether the drill samples a surface under a contract, or a part of it; every drill does under none."""
        return contract is None or any((self.timeline.contract_of(surface) or "").partition(".")[0] == contract
                                       for surface in self.drill.sample)

    @property
    def knows_safe(self) -> bool:
        """Whether anybody said what is safe: the stack, or the contract that its surface keeps."""
        keep = self.rules.surfaces_keep
        return bool(self._safe) or not (self.told and keep and any(self.timeline.contract_of(name) != keep
                                                                   for name in self.blocked_surfaces))

    @property
    def safe(self) -> Series:
        """Where the system is safe, by its own stack; else where it says that nothing may be opened."""
        return self.any_of(self._safe) if self._safe else self.blocked

    @property
    def safe_surfaces(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for each in self._safe for name in each)) or self.blocked_surfaces

    @property
    def _safe(self) -> Sequence[Mapping[str, Any]]:
        safe = (self.told or {}).get("safe")
        return safe if isinstance(safe, list) else ()

    # ---- documents

    def judge_documents(self) -> None:
        """Hold each surface's documents to its contract; an unlawful one is unknown to every predicate.

        A surface without a contract is believed as it stands, but for a file that only its node's last life has written.
        """
        for surface in self.drill.sample:
            contract, left = self.timeline.contract_of(surface), self._left_behind(surface)
            if contract is None:
                if left:
                    self.timeline.judge_documents(surface, left)
                continue
            try:
                self._findings[surface], unlawful = self._judged(surface, self._contract_of(surface, contract))
            except UsageError:  # no rules, no acquittal: nothing of it is believed, and whoever asks hears why
                unlawful = [(0, len(self.timeline.track(surface)))]
            self.timeline.judge_documents(surface, sorted((*unlawful, *without(left, unlawful))))

    def _left_behind(self, surface: str) -> list[Stretch]:
        """The looks at a file that saw what an earlier life of its node has written: they say nothing about this one."""
        grid = self.timeline.track(surface).grid
        return [stretch for begin, end in self.unwritten(surface)
                if (stretch := grid.asked_in(begin, end - 1))[0] < stretch[1]]

    def unwritten(self, surface: str) -> list[Window]:
        """From each start of a file's node, where the drill has ended its last life, until the file is written again; only of a
        file that was written before."""
        return self.once(f"unwritten {surface}", partial(self._unwritten, surface))

    def _unwritten(self, surface: str) -> list[Window]:
        writes = self.timeline.written(surface)
        if self.timeline.file_of(surface) is None or self.timeline.placebo or not len(writes):
            return []
        found, node = [], self.timeline.node_of(surface)
        for fault in self.drill.faults:
            mark, window = self.mark(fault.id), self.window(fault)
            if mark is None or window is None or not isinstance(fault.force, (Kill, Deploy)) or fault.force.node != node \
                    or writes[0].end > mark.begin:
                continue
            healed = self.mark(f"{fault.id}.healed")
            moments = [healed.begin if isinstance(fault.force, Kill) and healed is not None else mark.begin,
                       *(act.begin for act in self.timeline.acts if (act.id, act.step) == (f"process.{node}", "started"))]
            begin = max(each for each in moments if each <= window[1])
            found.append((begin, next((each.begin for each in writes if each.begin >= begin), max(self.timeline.end, begin))))
        return sorted(found)

    def _contract_of(self, surface: str, name: str) -> Any:
        return self.own_contract(surface) if surface in self.own_surfaces else self.rules.contract(name, self.policy)

    @property
    def own_surfaces(self) -> tuple[str, ...]:
        """The sampled surfaces whose contract the stack brought along."""
        own = (self.told or {}).get("contracts")
        return tuple(surface for surface in self.drill.sample if isinstance(own, Mapping)
                     and self.timeline.contract_of(surface) in own)

    def own_contract(self, surface: str) -> OwnContract:
        """The contract that the stack brought along, from the texts that the recording's head names by digest, in the rules
        or beside the recording. Raises UsageError for one that cannot be had."""
        name = str(self.timeline.contract_of(surface))
        texts = own.files_of(name, (self.told or {}).get("contracts", {}).get(name))
        told = {part: self._text(path) for part, path in texts.items()}
        return OwnContract.read(told.get("schema"), told.get("rules"))

    def _text(self, path: str) -> tuple[str, bytes]:
        said = self.timeline.head.get("rules")
        digest = said.get(path) if isinstance(said, Mapping) else None
        for root in (self.rules.root, self.timeline.folder):
            if digest is not None and sha256_of(root / path) == digest:
                return path, (root / path).read_bytes()
        raise SpecError(f"{path}: is not there as the recording's head names it")

    def _judged(self, surface: str, contract: Any) -> tuple[dict[int, list[Any]], list[Stretch]]:
        """The findings of the first slot with each tag, and all slots with a finding."""
        check = contract.following().check
        known: set[str] = set()
        findings: dict[int, list[Any]] = {}
        unlawful: list[Stretch] = []
        for slot, document, changed in self.timeline.track(surface).replay():
            if not (found := check(document, changed)):
                continue
            if unlawful and unlawful[-1][1] == slot:
                unlawful[-1] = unlawful[-1][0], slot + 1
            else:
                unlawful.append((slot, slot + 1))
            if not known.issuperset(tags := {each.tag for each in found}):
                known |= tags
                findings[slot] = found
        return findings, unlawful

    def findings(self, surface: str) -> Mapping[int, list[Any]]:
        """What the surface's contract says about its documents: of each tag the first slot that has it, with all that is
        said there. Raises SpecError without a contract."""
        if surface not in self._findings:
            raise SpecError(f"the surface {surface} has no contract")
        return self._findings[surface]

    def lives(self, surface: str) -> list[list[Stretch]]:
        """The slots of each life of the surface's node that are usable, without those in which it was held down."""
        if surface not in self._lives:
            self._lives[surface] = self._find_lives(surface)
        return self._lives[surface]

    def _find_lives(self, surface: str) -> list[list[Stretch]]:
        node, grid = self.timeline.node_of(surface), self.timeline.track(surface).grid
        grain, usable = self.grain_ms((surface,)), self.timeline.usable(surface)
        for begin, end in self.down(node):
            usable = without(usable, grid.touching(begin, end + grain))
        edges = [0, *(bisect_left(grid.asked, restart) for restart in self.restarts(node)), len(grid)]
        return [within(usable, [(first, past)]) for first, past in pairwise(edges) if first < past]

    # ---- time

    def mark(self, name: str) -> Mark | None:
        return self.timeline.marks.get(name)

    @property
    def zero(self) -> int | None:
        """The end of the mark ``given``."""
        given = self.mark("given")
        return given.end if given is not None else None

    @property
    def end(self) -> int:
        """Until when the recording is asked: the moment the world began to stop, else its last word."""
        if self._end is None:
            stopped = self.mark("stopped")
            self._end = stopped.begin if stopped is not None else self.timeline.end
        return self._end

    # ---- samples

    def series(self, predicate: Predicate) -> Series:
        key = repr(predicate)
        if key not in self._series:
            self._series[key] = self.timeline.series(predicate)
        return self._series[key]

    def values(self, surface: str, path: str, life: Sequence[Stretch]) -> Iterator[tuple[int, int, Any]]:
        """(first, past, value) of each stretch of a life's slots in which the value at a path stood."""
        return clipped(self.timeline.track(surface).values(path), life)

    def any_of(self, alternatives: Sequence[Mapping[str, Any]]) -> Series:
        """One series that is yes where some alternative is, and no where each is no; all ask the same surface."""
        series = [self.series(of_plain(each)) for each in alternatives]
        return Series(series[0].grid, ((first, past, _either(said)) for first, past, said in together(*series)))

    @property
    def blocked(self) -> Series:
        """Where the system says that nothing may be opened (``blocked`` of specs/invariants.yaml)."""
        if self._blocked is None:
            self._blocked = self.any_of(self.rules.blocked)
        return self._blocked

    @property
    def blocked_surfaces(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for each in self.rules.blocked for name in each))

    def answers(self, surface: str) -> Series:
        """Yes where the surface answered usably, unknown elsewhere."""
        return self.timeline.where_usable(surface, [(0, len(self.timeline.track(surface)), True)])

    def grain_ms(self, surfaces: Sequence[str]) -> int:
        """The largest grain of these surfaces: declared by the drill, else three sampling periods and a little."""
        return max(map(self._grain_ms, surfaces), default=0)

    def _grain_ms(self, surface: str) -> int:
        declared, period = self.drill.grain_ms.get(surface), self.drill.sample.get(surface)
        if declared is not None:
            return declared
        return grain_of(period) if period is not None else self.timeline.grain_ms(surface)

    def gaps(self, points: Series, surfaces: Sequence[str], begin: int, end: int) -> list[Window]:
        """Stretches that no usable sample covers and no declared fault excuses."""
        return gaps(points, begin, end, self.grain_ms(surfaces), self.waived(surfaces))

    def runs(self, points: Iterable[Piece], grain_ms: int) -> list[Run]:
        """The stretches of yes. A no ends one, and so does a gap longer than the grain."""
        found: list[Run] = []
        first = last = before = None
        for piece in points:
            if piece.holds is None:
                continue
            edges = [piece.first, *piece.grid.holes(grain_ms, piece.first, piece.past), piece.past]
            for begin, past in pairwise(edges) if piece.holds else [(piece.first, piece.past)]:
                point = piece.point(begin)
                broken = last is not None and point.asked - last.asked > grain_ms
                if first is not None and last is not None and (broken or not piece.holds):
                    found.append(Run(first, last, before, None if broken else point))
                    first = last = before = None
                if piece.holds:
                    if first is None and before is not None and point.asked - before.asked > grain_ms:
                        before = None
                    first, last = first or point, piece.point(past - 1)
                else:
                    before = piece.point(past - 1)
        if first is not None and last is not None:
            found.append(Run(first, last, before, None))
        return found

    # ---- faults and what they excuse

    def window(self, fault: Fault) -> Window | None:
        """From the fault's beginning to its healing; to the end of the recording when it was never healed."""
        begin, end = self.mark(fault.id), self.mark(f"{fault.id}.healed")
        if begin is None:
            return None
        return begin.begin, end.end if end is not None else self.end

    @property
    def disturbed(self) -> list[Window]:
        """When something that is no part of the drill may have been at work: that excuses what a fault would, and no more."""
        mark = self.mark("disturbed")
        return [(mark.begin, max(mark.end, self.end))] if mark is not None else []

    def down(self, node: str | None) -> list[Window]:
        """When a declared kill, pause, deploy or starving keeps the node from answering."""
        found = []
        for fault in self.drill.faults:
            force, begin = fault.force, self.mark(fault.id)
            if begin is None or not isinstance(force, HALTING) or force.node != node:
                continue
            window = self.window(fault)
            if window is not None and not self.timeline.placebo:
                found.append((begin.begin, begin.end) if isinstance(force, Deploy) else window)
        return found

    def waived(self, surfaces: Sequence[str]) -> list[Window]:
        """When nobody can expect to see what a surface says: its node is down by our act, or our hand is in its file."""
        return [window for surface in surfaces
                for window in (*self.down(self.timeline.node_of(surface)), *self._in_hand(self.timeline.file_of(surface)),
                               *((begin, min(end, begin + WRITTEN_AGAIN_MS)) for begin, end in self.unwritten(surface)))]

    def _in_hand(self, file: str | None) -> list[Window]:
        """When a declared fault writes a file of the nodes, or has taken it away."""
        windows = [self.window(fault) for fault in self.drill.faults
                   if file is not None and isinstance(fault.force, (Overwrite, Remove)) and fault.force.file == file]
        return [] if self.timeline.placebo else [each for each in windows if each is not None]

    def restarts(self, node: str | None) -> list[int]:
        """When a declared fault ends the node's life: what it remembered in memory is gone."""
        return sorted(window[0] for fault in self.drill.faults
                      if isinstance(fault.force, (Kill, Deploy)) and fault.force.node == node
                      and (window := self.window(fault)) is not None)

    def troubled(self, nodes: Sequence[str | None], links: Sequence[str], switches: Sequence[str] = ()) -> list[Window]:
        """When one of these links or nodes is under a declared fault, or one of these switches is on: what is sent may
        not arrive, or not be taken."""
        found = self.disturbed
        for fault in self.drill.faults:
            force, window = fault.force, self.window(fault)
            if window is None:
                continue
            if isinstance(force, (LinkFault, RawToxic)):
                touches = force.link in links
            elif isinstance(force, Switch):
                touches = force.name in switches
            else:
                touches = isinstance(force, (*HALTING, Disconnect)) and force.node in nodes
            if touches:
                found.append(window)
        return found

    def clocks_troubled(self, node: str | None) -> list[Window]:
        """From when on a node's clock is not to be relied on: what it reckoned with a wrong one, it may still do afterwards."""
        return [(window[0], self.end) for fault in self.drill.faults
                if isinstance(fault.force, Clock) and fault.force.node == node and (window := self.window(fault)) is not None]

    def late(self, client: str | None, server: str | None) -> list[Window]:
        """When what a client sent may arrive at the server long after it was sent."""
        links = self.timeline.stack.get("links")
        found = []
        for fault in self.drill.faults:
            force, window = fault.force, self.window(fault)
            if window is None:
                continue
            if isinstance(force, (LinkFault, RawToxic)):
                link = links.get(force.link) if isinstance(links, Mapping) else None
                joins = isinstance(link, Mapping) and link.get("from") == client \
                    and str(link.get("to", "")).partition(".")[0] == server
                slows = isinstance(force, RawToxic) or (force.effect in DELAYING and force.toward != "client")
                if not (joins and slows):
                    continue
            elif isinstance(force, Disconnect):
                if force.node not in (client, server):
                    continue
            elif not (isinstance(force, (Pause, Starve)) and force.node == server):
                continue
            found.append((window[0], window[1] + self.timeline.transit_ms(client, server)))
        return found

    # ---- events

    def event(self, name: str) -> Event:
        if name not in self.rules.events:
            raise SpecError(f"no event {name!r} in specs/events.yaml")
        return self.rules.events[name]

    def rows(self, name: str) -> Sequence[Row]:
        """Every time the event happened, in time."""
        if name not in self._rows:
            self._rows[name] = self._find(self.event(name))
        return self._rows[name]

    def _find(self, event: Event) -> Sequence[Row]:
        if event.all_of:
            return self._together(event)
        rows = self.of_kind(event.stream or "", event.kind)
        fitting = rows.that(lambda row: event.fits(row.value)) if event.where or event.kind is None else rows
        return fitting if event.repeats is None else fitting.that(_Again(event.repeats))

    def of_kind(self, stream: str, *kinds: str | None) -> Rows:
        """The rows of a stream that are of one of these kinds, in their order."""
        return self.timeline.stream(stream).rows.of_kind(*kinds)

    def _together(self, event: Event) -> list[Row]:
        """Each moment at which the last missing part has happened; then all are asked for anew."""
        parts = sorted((row.earliest, index, place) for index, part in enumerate(event.all_of)
                       for place, row in enumerate(self.rows(part)))
        missing, found = set(range(len(event.all_of))), []
        for _, index, place in parts:
            missing.discard(index)
            if not missing:
                found.append(self.rows(event.all_of[index])[place])
                missing = set(range(len(event.all_of)))
        return found

    def happened(self, name: str, begin: int, end: int) -> bool:
        """Whether the event may have happened in the window: each of its parts, for a composite one."""
        event = self.event(name)
        if event.all_of:
            return all(self.happened(part, begin, end) for part in event.all_of)
        return self.any_near(name, begin, end)

    def any_near(self, name: str, begin: int, end: int) -> bool:
        """Whether some row of the event may lie in the window."""
        if name not in self._moments:
            rows = [(row.earliest, row.latest) for row in self.rows(name)]
            earliest, latest = ([each[which] for each in rows] for which in (0, 1))
            self._moments[name] = earliest, latest, earliest == sorted(earliest) and latest == sorted(latest)
        earliest, latest, sorted_ = self._moments[name]
        if not sorted_:
            return any(late >= begin and early <= end for early, late in zip(earliest, latest, strict=True))
        place = bisect_left(latest, begin)
        return place < len(latest) and earliest[place] <= end

    def streams_of(self, name: str) -> tuple[str, ...]:
        return streams_of(self.event(name).name, self.rules.events)

    def streams_of_all(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(stream for name in names for stream in self.streams_of(name)))

    def not_traded(self, begin: int, end: int | None = None) -> list[str]:
        """The events that show a system at work and did not happen from begin to end, all to one order where rows name it."""
        missing: list[str] = []
        orders: set[Any] = set()
        for name in self.rules.traded:
            rows = [row for row in self.rows(name) if begin <= row.latest and (end is None or row.latest <= end)]
            named = {row.value[self.rules.traded_as] for row in rows if self.rules.traded_as in row.value}
            if not rows or (orders and named and not orders & named):
                missing.append(name)
            orders = named or orders
        return missing

    def not_whole(self, *names: str) -> str | None:
        """Why one of these streams is not complete, or None."""
        return next((stream.why for stream in map(self.timeline.stream, names) if not stream.whole), None)

    def transit_ms(self, event: str, surfaces: Sequence[str]) -> int:
        """How long what a surface's node sends may take until the event's stream tells of it."""
        servers = [self.timeline.stream(stream).node for stream in self.streams_of(event)]
        return max((self.timeline.transit_ms(self.timeline.node_of(surface), server)
                    for surface in surfaces for server in servers), default=0)


def sha256_of(file: Path) -> str | None:
    """Digest of a small file of the folder, or None."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return None


class _Again:
    """Whether a row's value of a field was there before."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._seen: set[Any] = set()

    def __call__(self, row: Row) -> bool:
        value = row.value.get(self._field)
        known = value in self._seen
        self._seen.add(value)
        return known


def _either(values: Sequence[bool | None]) -> bool | None:
    if any(value is True for value in values):
        return True
    return None if any(value is None for value in values) else False


def inside(moment: int, windows: Sequence[Window]) -> bool:
    return any(begin <= moment <= end for begin, end in windows)


def overlaps(begin: int, end: int, windows: Sequence[Window]) -> bool:
    return any(low <= end and begin <= high for low, high in windows)
