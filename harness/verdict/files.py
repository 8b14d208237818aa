"""Laws over the histories of state files: replaced whole, by one writer, never backwards, in agreement with one another.

A file is seen on a grid and at each change of it, and the tape says of each change how it was made. What a drill itself
wrote into a file is known by its bytes and excused; so is a removal while a drill removes that file. Nothing else is.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import orjson

from harness.contracts.reading import shown
from harness.contracts.state_files import Contract
from harness.contracts.state_files.cross import PAIRS, Rows, Together, Told, entries_of, held_in, misstated
from harness.contracts.state_files.finding import Tolerance, mapping
from harness.contracts.state_files.risk import drawdown_state, jumped
from harness.contracts.state_files.times import seconds_of
from harness.drill.model import Clock, Disk, Fill, Overwrite, Remove
from harness.drill.predicate import MISSING, is_number, look
from harness.recording.tape import canonical
from harness.recording.writes import Written
from harness.verdict.case import Case, Window, overlaps
from harness.verdict.check import Finding, failed, passed, unsure

Parameters = Mapping[str, Any]
Document = Mapping[str, Any]

UNSEEN = ("missed", "timeout", "down")
"""Looks that did not see what the file held."""

FIELDS_KEPT = 100_000
"""What a file held stays in memory while the laws are asked if its documents have no more fields than this, all together.
Each document is a dict of its own, also of fields that the tape told once; what is nested in them it told at each change."""

LOOPS_KEPT = 32
"""Files of one loop are seen within a second of one another; so many loops are waited for."""

STRANGERS_MIN = 3
"""Two files of one loop that were told so often, and never under one time, are compared by nobody; nor are so many of one life
of which no two are neighbours."""


class Version(msgspec.Struct, frozen=True):
    """What a file held from one look to another: a document, or None with why there was none."""

    surface: str
    slot: int
    """of the look that saw it first"""
    first: int
    """when that look was asked"""
    seen: int
    """when it was answered: by then it was there"""
    last: int
    """when the last look was answered that saw it"""
    document: Document | None
    why: str | None
    ours: bool
    """whether the drill itself wrote it"""
    seconds: float | None
    """when the document says it was written"""


@dataclass(frozen=True, slots=True)
class Files:
    """The state files that a drill watches, by the names that the contract has for them."""

    case: Case
    contracts: Mapping[str, Contract]
    """surface → its contract"""
    _kept: dict[str, list[Version] | None]
    """surface → its history; None for a long one"""

    @classmethod
    def of(cls, case: Case) -> Files:
        """Of the sampled surfaces. Raises SpecError where their rules are missing."""
        return cls(case, *case.once("files", partial(_contracts_of, case)))

    def called(self, part: str) -> str | None:
        """The sampled surface that the contract calls so."""
        return next((surface for surface, each in self.contracts.items() if each.surface.name == part), None)

    def versions(self, surface: str) -> Iterable[Version]:
        """Everything that the file was seen to hold, in time. A short history is kept for the next law; a long one is told
        again, one after another, because a day of it, or of large documents, is a lot."""
        if surface not in self._kept:
            self._kept[surface] = _short(_versions(self.case, surface, self.contracts[surface]))
        kept = self._kept[surface]
        return _versions(self.case, surface, self.contracts[surface]) if kept is None else kept

    def told(self, surface: str) -> Iterator[tuple[Version, Document]]:
        """Of these the documents that the drill did not write."""
        return ((each, each.document) for each in self.versions(surface) if each.document is not None and not each.ours)

    def stamps(self, surface: str) -> Iterator[tuple[Version, Document, float]]:
        """Of these the ones that say when they were written."""
        return ((version, document, version.seconds) for version, document in self.told(surface) if version.seconds is not None)

    def writers(self, surface: str) -> Sequence[str]:
        """Whose stamp it may carry: of the owners those that the stack has, or all where it calls its nodes otherwise."""
        return self._owners_there(surface) or self.contracts[surface].surface.owners

    def writer(self, surface: str) -> str | None:
        """The node that writes it."""
        return next(iter(self._owners_there(surface)), self.case.timeline.node_of(surface))

    def _owners_there(self, surface: str) -> list[str]:
        nodes = self.case.timeline.stack.get("nodes")
        return [each for each in self.contracts[surface].surface.owners if isinstance(nodes, Mapping) and each in nodes]

    def held_up(self, surface: str) -> list[Window]:
        """When a declared fault keeps the file's writer from writing, and as long as it may take to write again."""
        node, bound = self.writer(surface), self.contracts[surface].surface.bound_ms
        windows = [*self.case.down(node), *self.case.disturbed]
        for fault in self.case.drill.faults:
            window = self.case.window(fault)
            if window is not None and isinstance(fault.force, Disk | Fill) and not self.case.timeline.placebo \
                    and (fault.force.node == node or getattr(fault.force, "volume", None) is not None):
                windows.append(window)
        return [(begin, end + bound) for begin, end in windows]

    def misdated(self, surface: str) -> list[Window]:
        """When a declared fault is at the clock of the file's writer, which stands still until the time is as late again as it
        was: for as long as the clock was off, and then for as long as it may take to write."""
        found, bound = [], self.contracts[surface].surface.bound_ms
        for fault in self.case.drill.faults:
            window = self.case.window(fault)
            if window is not None and isinstance(fault.force, Clock) and fault.force.node == self.writer(surface):
                off: float = abs(fault.force.step_ms) + abs(fault.force.drift_ppm) * (window[1] - window[0]) // 1_000_000
                if fault.force.to_ms is not None:       # by how much only its witness knows
                    off += max((abs(each.value) for each in self.case.timeline.probes(fault.id, "clock.offset_ms")
                                if is_number(each.value)), default=0)
                found.append((window[0], window[1] + round(off) + bound))
        return found

    def changes(self, surface: str) -> list[Written]:
        """Every change that the tape tells of, without those of the drill's own hand."""
        hands = _hands(self.case, surface)
        return [each for each in self.case.timeline.written(surface) if not any(hand.made(each) for hand in hands)]


def _contracts_of(case: Case) -> tuple[dict[str, Contract], dict[str, list[Version] | None]]:
    """What the case keeps for every ``Files`` of it, which is not the ``Files``: that one holds the case."""
    names = {surface: case.timeline.contract_of(surface) or "" for surface in case.drill.sample}
    return {surface: case.rules.contract(name, case.policy) for surface, name in names.items()
            if name.startswith("state_files.")}, {}


def optional_files(case: Case) -> frozenset[str]:
    """The sampled surfaces that their contract allows to be absent."""
    return frozenset(surface for surface, each in Files.of(case).contracts.items() if each.surface.optional)


# ---- what the drill's own hand does -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Hand:
    """A force that writes into a file, or takes it away."""

    begin: int
    end: int
    content: bytes | None
    document: Any
    in_place: bool

    def made(self, change: Written) -> bool:
        """Whether the hand made this change: its bytes, or the first of them while they are being written in place. What was
        covered before it could be read is known by its kind alone, and only while the hand is at work."""
        if change.end < self.begin:
            return False
        if self.content is None:
            return change.how == "removed" and change.begin <= self.end
        if change.bytes is None:
            return self.in_place and change.how == "in_place" and change.begin <= self.end
        return self.wrote(change.bytes, change.sha256)

    def wrote(self, size: int, sha256: str | None) -> bool:
        return self.content is not None and size <= len(self.content) \
            and hashlib.sha256(self.content[:size]).hexdigest() == sha256

    def is_seen(self, document: Document | None, raw: Any) -> bool:
        """Whether a look saw what the hand wrote."""
        if document is not None:
            return self.document == document
        return isinstance(raw, Mapping) and isinstance(raw.get("bytes"), int) and self.wrote(raw["bytes"], raw.get("sha256"))


def _hands(case: Case, surface: str) -> list[_Hand]:
    file, found = case.timeline.file_of(surface), []
    for fault in case.drill.faults:
        force, window = fault.force, case.window(fault)
        if window is not None and isinstance(force, Overwrite | Remove) and force.file == file and not case.timeline.placebo:
            content = force.content if isinstance(force, Overwrite) else None
            found.append(_Hand(*window, content, _parsed(content), isinstance(force, Overwrite) and force.in_place))
    return found


def _parsed(content: bytes | None) -> Any:
    try:
        return orjson.loads(content) if content is not None else None
    except orjson.JSONDecodeError:
        return None


def _versions(case: Case, surface: str, contract: Contract) -> Iterator[Version]:
    """Looks one after another, those that saw the same joined."""
    track, hands = case.timeline.track(surface), _hands(case, surface)
    told, standing = track.told(), _Standing(case.timeline.written(surface))
    held: Document | None = None
    wherefore: str | None = None
    begun: tuple[int, int, int] | None = None
    ours, last = False, 0
    for slot, (why, asked, end) in enumerate(zip(track.reasons(), track.grid.asked, track.grid.answered, strict=True)):
        document = next(told)[1] if why is None else None
        if why in UNSEEN:
            continue
        same = begun is not None and wherefore == why and (held is document or held == document)
        mine = bool(hands) and (ours if same and why != "raw" else _is_ours(hands, document, track.raw(slot), standing, end))
        if not same or ours is not mine:
            if begun is not None:
                yield _version(surface, begun, last, held, wherefore, ours, contract)
            held, wherefore, ours, begun = document, why, mine, (slot, asked, end)
        last = end
    if begun is not None:
        yield _version(surface, begun, last, held, wherefore, ours, contract)


def _short(versions: Iterable[Version]) -> list[Version] | None:
    """All of them, unless they are too much to keep."""
    kept, fields = [], 0
    for each in versions:
        fields += 1 + len(each.document or ())
        if fields > FIELDS_KEPT:
            return None
        kept.append(each)
    return kept


def _version(surface: str, begun: tuple[int, int, int], last: int, document: Document | None, why: str | None, ours: bool,
             contract: Contract) -> Version:
    seconds = seconds_of(document, contract.surface, contract.surfaces) if document is not None else None
    return Version(surface, *begun, last, document, why, ours, seconds)


def _is_ours(hands: Iterable[_Hand], document: Document | None, raw: Any, standing: _Standing, end: int) -> bool:
    """Whether a look saw what the drill's hand wrote. Of many torn looks only the first are kept: the others are known by the
    change that stands."""
    change = standing.at(end) if document is None and raw is None else None
    return any(hand.made(change) if change is not None else hand.begin <= end and hand.is_seen(document, raw) for hand in hands)


class _Standing:
    """The change by which a file holds what it holds; asked in time."""

    def __init__(self, changes: Sequence[Written]) -> None:
        self._changes, self._next = changes, 0

    def at(self, moment: int) -> Written | None:
        while self._next < len(self._changes) and self._changes[self._next].begin <= moment:
            self._next += 1
        return self._changes[self._next - 1] if self._next else None


# ---- each file by itself ------------------------------------------------------------------------------------


def files_lawful(case: Case, with_: Parameters) -> Finding:
    """Every document that a file held keeps its contract."""
    files = Files.of(case)
    asked = 0
    for surface, contract in files.contracts.items():
        spotless = not case.findings(surface)  # every document was held to it before, those that the drill wrote among them
        for version, document in files.told(surface):
            asked += 1
            if not spotless and (found := contract.breaches(document)):
                return failed(f"{contract.surface.file} breaks its contract: {found[0]}", version.first,
                              findings=[str(each) for each in found[:10]])
    return passed(f"all {asked} documents keep it", asked=asked)


def files_whole(case: Case, with_: Parameters) -> Finding:
    """A file changes by being replaced, is never seen torn, and is never taken away."""
    files, asked = Files.of(case), 0
    for surface, contract in files.contracts.items():
        for change in files.changes(surface):
            asked += 1
            if change.how in ("in_place", "removed"):
                said = "was written in place" if change.how == "in_place" else "was taken away"
                return failed(f"{contract.surface.file} {said}", change.begin)
        torn = next((each for each in files.versions(surface) if each.why == "raw" and not each.ours), None)
        if torn is not None:
            return failed(f"{contract.surface.file} was seen as no JSON object", torn.first)
    return passed(f"all {asked} changes put another file in the place of the old one", asked=asked)


def files_one_writer(case: Case, with_: Parameters) -> Finding:
    """Each file has one writer, by its stamp: one node, whose writes are counted upwards, also over its restarts."""
    files, asked = Files.of(case), 0
    for surface, contract in files.contracts.items():
        file, track, order = contract.surface.file, case.timeline.track(surface), _Order()
        nodes, slots, writers = set[str](), dict[tuple[float, float], int](), files.writers(surface)
        for version, document in files.told(surface):
            asked += 1
            node, boot, seq = _writer(document)
            if not isinstance(node, str) or not is_number(boot) or not is_number(seq):
                return failed(f"{file} does not say who wrote it", version.first)
            nodes.add(node)
            if node not in writers or len(nodes) > 1:
                return failed(f"{file} was written by {' and '.join(map(shown, sorted(nodes)))}", version.first)
            slot = slots.setdefault((boot, seq), version.slot)
            if slot != version.slot and canonical(track.document(slot)) != canonical(document):
                return failed(f"{file} was written twice as number {seq} of life {boot}: there are two writers", version.first)
            if (before := order.falls(version, (boot, seq))) is not None:
                return failed(f"{file} went back from number {before[1]} of life {before[0]} to {seq} of {boot}", version.first)
    return passed(f"{asked} documents carry the stamps of one writer each", asked=asked)


def files_never_back(case: Case, with_: Parameters) -> Finding:
    """The time that a file says it was written never falls, over no restart and no step of a clock."""
    files, asked = Files.of(case), 0
    for surface, contract in files.contracts.items():
        order = _Order()
        for version, _, seconds in files.stamps(surface):
            asked += 1
            if (before := order.falls(version, (seconds,))) is not None:
                return failed(f"{contract.surface.file} went back in time by {before[0] - seconds:.3f} s", version.first)
    return passed(f"{asked} documents, none older than the one before", asked=asked)


def _writer(document: Document) -> tuple[Any, Any, Any]:
    """Its node, which life of it, and how many it has written in that."""
    stamp = mapping(document.get("writer"))
    return stamp.get("node", MISSING), stamp.get("boot", MISSING), stamp.get("seq", MISSING)


class _Order:
    """What never falls from look to look. Two looks that were under way together are in no order."""

    def __init__(self) -> None:
        self._most: tuple[float, ...] | None = None
        self._pending: list[tuple[int, tuple[float, ...]]] = []

    def falls(self, version: Version, value: tuple[float, ...]) -> tuple[float, ...] | None:
        """The larger value that was seen before, or None."""
        while self._pending and self._pending[0][0] <= version.first:
            settled = self._pending.pop(0)[1]
            self._most = settled if self._most is None else max(self._most, settled)
        self._pending.append((version.seen, value))
        return self._most if self._most is not None and value < self._most else None


def files_fresh(case: Case, with_: Parameters) -> Finding:
    """What is written in every loop is written anew again and again, with another content and another time, as long as
    nothing of ours is in its writer's way."""
    files, zero = Files.of(case), case.zero
    asked = longest = 0
    if zero is None:
        return unsure("nobody knows when the system was up")
    for surface, contract in files.contracts.items():
        if contract.surface.optional:
            continue
        bound, excused = contract.surface.bound_ms, files.held_up(surface)
        news = [("was not written", _written_anew(files, surface), excused)]
        if contract.surface.mirrors is None:        # a mirror carries the time of what it shows
            news.append(("carried the same time", _stamped_anew(files, surface), [*excused, *files.misdated(surface)]))
        for said, moments, waived in news:
            edges = [*([zero] if not any(each <= zero for each in moments) else []), *moments, case.end]
            for before, after in zip(edges, edges[1:], strict=False):
                if after < zero:
                    continue
                stood = after - before - _covered(before, after, waived)
                asked, longest = asked + 1, max(longest, stood)
                if stood > bound:
                    return failed(f"{contract.surface.file} {said} for {stood} ms", before)
    return passed(f"never older than {longest} ms", longest_ms=longest, asked=asked)


def _written_anew(files: Files, surface: str) -> list[int]:
    """When a file became another one: one that is put in the place of the same bytes is no news."""
    moments, before = [], None
    for each in files.changes(surface):
        if each.how != "removed" and (each.sha256 is None or each.sha256 != before):
            moments.append(each.begin)
        before = each.sha256
    return moments


def _stamped_anew(files: Files, surface: str) -> list[int]:
    """When a file said another time than before; that none is earlier is a law of its own."""
    moments: list[int] = []
    before: float | None = None
    for version, _, seconds in files.stamps(surface):
        if seconds != before:
            moments.append(version.first)
        before = seconds
    return moments


def _covered(begin: int, end: int, windows: Iterable[Window]) -> int:
    """How much of a stretch lies in the windows."""
    covered, reached = 0, begin
    for low, high in sorted(windows):
        low, high = max(low, reached), min(high, end)
        if low < high:
            covered, reached = covered + high - low, high
    return covered


# ---- the mirror ---------------------------------------------------------------------------------------------


def _mirrors(files: Files) -> Iterator[tuple[str, str]]:
    """(mirror, source) where both are watched."""
    for surface, contract in files.contracts.items():
        source = files.called(contract.surface.mirrors) if contract.surface.mirrors is not None else None
        if source is not None:
            yield surface, source


def mirror_never_ahead(case: Case, with_: Parameters) -> Finding:
    """The mirror never says a time that its source had not said by then."""
    files, asked = Files.of(case), 0
    for mirror, source in _mirrors(files):
        said, newest = deque((version.first, seconds) for version, _, seconds in files.stamps(source)), float("-inf")
        for version, _, seconds in files.stamps(mirror):
            while said and said[0][0] <= version.seen + with_["slack_ms"]:
                newest = max(newest, said.popleft()[1])
            asked += 1
            if seconds > newest:
                how = f"by {seconds - newest:.3f} s" if newest > 0 else "which never said anything"
                return failed(f"{files.contracts[mirror].surface.file} is ahead of its source {how}", version.first)
    return passed(f"{asked} documents of a mirror, none ahead of its source", asked=asked)


def mirror_is_true(case: Case, with_: Parameters) -> Finding:
    """The mirror shows what its source said at the time that it carries, however long ago that was; and carries none at which
    the source said nothing, as far as every document of the source around it was seen."""
    files, asked = Files.of(case), 0
    for mirror, source in _mirrors(files):
        near, name = files.contracts[mirror].surfaces.tolerance, files.contracts[mirror].surface.file
        drills = {each.seconds for each in files.versions(source) if each.ours} if _hands(case, source) else set()
        said: dict[float, tuple[Document | None, Any]] = {}
        for surface, version, document, seconds in heapq.merge(_each(files, source), _each(files, mirror),
                                                               key=lambda each: (each[1].seen, each[0] == mirror)):
            if surface == source:
                # a clock that stands still says nothing
                said[seconds] = None if seconds in said else document, document.get("writer")
                continue
            before = max((moment for moment in said if moment <= seconds), default=seconds)
            said = {moment: told for moment, told in said.items() if moment >= before}
            told = said.get(seconds, (None, None))[0]
            if told is None:
                later = min((moment for moment in said if moment > seconds), default=seconds)
                if before < seconds < later and seconds not in drills and _follow(said[before][1], said[later][1]):
                    return failed(f"{name} carries the time {seconds:.3f}, at which its source said nothing", version.first)
                continue
            asked += 1
            for key, there in with_["fields"].items():
                ours: Any = document.get(key)
                theirs: Any = told.get(there)
                if is_number(ours) and is_number(theirs) and not near.near(ours, theirs):
                    return failed(f"{name} shows {key} {ours}, and its source said {theirs}", version.first)
    return passed(f"{asked} documents of a mirror show what their source said", asked=asked)


def _follow(before: Any, after: Any) -> bool:
    """Whether two stamps of a writer are those of two documents between which it wrote none."""
    if not (isinstance(before, Mapping) and isinstance(after, Mapping) and is_number(before.get("seq"))):
        return False
    return {**before, "seq": before["seq"] + 1} == {**after}


def mirror_keeps_up(case: Case, with_: Parameters) -> Finding:
    """The mirror says what its source said a bound ago, as long as nothing of ours is in its writer's way; nodes that are
    still starting before zero are waited for."""
    files, zero, asked = Files.of(case), case.zero, 0
    if zero is None:
        return unsure("nobody knows when the system was up")
    for mirror, source in _mirrors(files):
        bound = with_["bound_ms"]
        excused = [*files.held_up(mirror), *((hand.begin, hand.end + bound) for hand in _hands(case, source))]
        shows, newest = deque((version.seen, seconds) for version, _, seconds in files.stamps(mirror)), float("-inf")
        for version, _, seconds in files.stamps(source):
            due = max(version.seen, zero) + bound
            while shows and shows[0][0] <= due:
                newest = max(newest, shows.popleft()[1])
            if due > case.end or overlaps(version.seen, due, excused):
                continue
            asked += 1
            if newest < seconds:
                behind = f"is {seconds - newest:.3f} s behind" if newest > 0 else "shows nothing"
                return failed(f"{files.contracts[mirror].surface.file} {behind} after {bound} ms", due)
    return passed(f"the mirror followed {asked} times within its bound", asked=asked)


# ---- several files together ---------------------------------------------------------------------------------


def loops_agree(case: Case, with_: Parameters) -> Finding:
    """Files that carry the same time are of one loop, and then they agree on everything that they both tell."""
    files, asked = Files.of(case), 0
    if not files.contracts:
        return passed("no state file is watched", asked=0)
    one = next(iter(files.contracts.values()))
    stamped = {contract.surface.name: sum(1 for _ in files.stamps(surface)) for surface, contract in files.contracts.items()}
    met: set[tuple[str, str]] = set()
    for seconds, told in _loops(files):
        names = {files.contracts[surface].surface.name for surface in told}
        if len(told) < 2:
            continue
        met |= {(name, other) for name, _, other, _ in PAIRS if {name, other} <= names}
        asked += 1
        surfaces = {surface: files.contracts[surface].surface for surface in told}
        loop = Together(one.surfaces, one.limits, {surfaces[surface].name: Told(surfaces[surface], document, seconds)
                                                   for surface, (_, document) in told.items()})
        found = [each for each in loop.disagreements() if each.severity == "breach"]
        if found:
            return failed(f"files of {seconds:.3f} disagree: {found[0]}", max(version.first for version, _ in told.values()),
                          findings=[str(each) for each in found[:10]])
    for name, _, other, _ in PAIRS:
        if (name, other) not in met and min(stamped.get(name, 0), stamped.get(other, 0)) >= STRANGERS_MIN:
            return unsure(f"{name} and {other} never met under one time of their own, so nobody knows whether they agree")
    return passed(f"the files of {asked} loops agree", asked=asked)


def _loops(files: Files) -> Iterator[tuple[float, dict[str, tuple[Version, Document]]]]:
    """Time → the documents that carry it. A clock that stands still stamps several loops alike: a file that has two documents
    of one time says nothing there."""
    loops: dict[float, dict[str, tuple[Version, Document] | None]] = {}
    for surface, version, document, seconds in heapq.merge(*(_each(files, surface) for surface in files.contracts),
                                                           key=lambda each: each[1].seen):
        told = loops.setdefault(seconds, {})
        told[surface] = None if surface in told else (version, document)
        if len(loops) > LOOPS_KEPT:
            yield _sure(loops, next(iter(loops)))
    for seconds in list(loops):
        yield _sure(loops, seconds)


def _each(files: Files, surface: str) -> Iterator[tuple[str, Version, Document, float]]:
    return ((surface, *each) for each in files.stamps(surface))


def _sure(loops: dict[float, dict[str, tuple[Version, Document] | None]],
          seconds: float) -> tuple[float, dict[str, tuple[Version, Document]]]:
    return seconds, {surface: each for surface, each in loops.pop(seconds).items() if each is not None}


def positions_in_ledger(case: Case, with_: Parameters) -> Finding:
    """Positions and ledger differ no longer than a bound, by their keys and quantities; a difference that comes back within
    a bound goes on."""
    files, bound = Files.of(case), with_["bound_ms"]
    positions, ledger = files.called("positions_state"), files.called("positions_ledger")
    if positions is None or ledger is None:
        return passed("positions and ledger are not both watched", asked=0)
    if (zero := case.zero) is None:
        return unsure("nobody knows when the system was up")
    excused = [*files.held_up(positions), *files.held_up(ledger)]
    near, rows_of = files.contracts[positions].surfaces.tolerance, {positions: held_in, ledger: entries_of}
    latest: dict[str, Rows | None] = {}
    differences: dict[str, _Difference] = {}
    asked = now = 0
    for version in heapq.merge(files.versions(positions), files.versions(ledger), key=lambda each: each.seen):
        if wrong := _lasting(differences, version.seen, excused, bound):
            return wrong
        latest[version.surface] = rows_of[version.surface](version.document) \
            if version.document is not None and not version.ours else None
        differing = _differing(near, latest.get(positions), latest.get(ledger))
        asked += differing is not None
        now = max(now, version.last)
        for key in sorted({*differences, *(differing or ())}):
            differences.setdefault(key, _Difference()).seen(key in (differing or ()), max(version.seen, zero), excused, bound)
    if wrong := _lasting(differences, min(now, case.end), excused, bound):
        return wrong
    longest = max((each.longest for each in differences.values()), default=0)
    return passed(f"they never differed for longer than {longest} ms", longest_ms=longest, asked=asked)


class _Difference:
    """For how long one key has differed: whatever agrees for less than a bound in between has not ended it."""

    def __init__(self) -> None:
        self.begin = self.longest = self._before = 0
        self._since: int | None = None
        self._agreed: int | None = None

    def seen(self, differs: bool, now: int, excused: Iterable[Window], bound: int) -> None:
        """Whether it differs from now on."""
        if differs and self._since is None:
            if self._agreed is None or now - self._agreed > bound:
                self.begin, self._before = now, 0
            self._since = now
        elif not differs and self._since is not None:
            self._before, self._since, self._agreed = self.lasted(now, excused), None, now

    def lasted(self, now: int, excused: Iterable[Window]) -> int:
        """Until now, without what is excused."""
        lasted = self._before
        if self._since is not None:
            lasted += max(now - self._since - _covered(self._since, now, excused), 0)
        self.longest = max(self.longest, lasted)
        return lasted


def _lasting(differences: Mapping[str, _Difference], until: int, excused: Iterable[Window], bound: int) -> Finding | None:
    """What is wrong with a difference that has lasted too long until now."""
    for key, each in differences.items():
        if (lasted := each.lasted(until, excused)) > bound:
            return failed(f"positions and ledger differ on {shown(key)} for {lasted} ms", each.begin)
    return None


def _differing(near: Tolerance, held: Rows | None, entries: Rows | None) -> set[str] | None:
    """The keys on which they differ; None where one of them cannot be read."""
    if held is None or entries is None:
        return None
    return set(held.keys() ^ entries.keys()) | {
        key for key in held.keys() & entries.keys() if any(misstated(near, held[key], entries[key]))}


# ---- risk snapshots one after another -----------------------------------------------------------------------


def snapshots_follow(case: Case, with_: Parameters) -> Finding:
    """What a risk snapshot says of the one before is so: the state it was in, and how far the net asset value moved."""
    files, asked = Files.of(case), 0
    surface = files.called("risk_snapshot")
    if surface is None:
        return passed("the risk snapshot is not watched", asked=0)
    limits, changes = files.contracts[surface].limits, _Flaps(files.contracts[surface].limits)
    lives = Counter(_writer(document)[:2] for _, document in files.told(surface))
    for before, after, version in _in_turn(files, surface):
        asked += 1
        if wrong := _follows(before, after, limits) or changes.wrong(before, after, version.seconds):
            return failed(f"risk_snapshot.json {wrong}", version.first)
    if not asked and max(lives.values(), default=0) >= STRANGERS_MIN:
        return unsure("no two risk snapshots are neighbours by their writer's count, so nobody knows what was before each")
    return passed(f"{asked} snapshots follow from the ones before", asked=asked)


def _in_turn(files: Files, surface: str) -> Iterator[tuple[Document, Document, Version]]:
    """Documents whose stamps are neighbours: nothing was written in between."""
    before: Document | None = None
    for version, document in files.told(surface):
        if before is not None:
            (_, boot, seq), (_, boot_after, seq_after) = _writer(before), _writer(document)
            if boot == boot_after and is_number(seq) and seq_after == seq + 1:
                yield before, document, version
        before = document


def _follows(before: Document, after: Document, limits: Mapping[str, float]) -> str | None:
    state, told = look(before, "dd_state.state"), look(after, "dd_state")
    if isinstance(told, Mapping) and "previous" in told and told["previous"] != state:
        return f"calls the state before {shown(told['previous'])}, and it was {shown(state)}"
    if isinstance(told, Mapping) and "previous" not in told:        # then the document before says what it was
        known = {**after, "dd_state": {**told, "previous": state}}
        for each in drawdown_state(known, limits):
            if each.severity == "breach":
                return f"{each.path}: {each.message}"
    old: Any = before.get("nav", before.get("nav_total"))
    new: Any = after.get("nav", after.get("nav_total"))
    jump = look(after, "anomalies.nav_jump")
    if not is_number(old) or not is_number(new):
        return None
    if jumped(old, new, limits) is not (isinstance(jump, Mapping) or jump is True):
        said = "that it jumped" if isinstance(jump, Mapping) else "nothing of a jump"
        return f"says {said}, and it went from {old:g} to {new:g}"
    if isinstance(jump, Mapping) and jump.get("old") != old:
        return f"says that it jumped from {shown(jump.get('old'))}, and it was {old:g}"
    return None


KEPT_SHARE = 1 - 1e-4
"""A peak is kept durably when it has risen by a ten-thousandth: so much of it may be forgotten by a death."""


def peaks_kept(case: Case, with_: Parameters) -> Finding:
    """A loss is told from the highest value: no peak is below a peak or a value that was told before, in this life or another,
    unless a declared fault took what the file's writer remembers."""
    files, asked = Files.of(case), 0
    for each in with_["peaks"]:
        surface = files.called(each["of"])
        forgets, highest, life = _forgets(files, surface), 0.0, None
        for version, document in files.told(surface) if surface is not None else ():
            if life != (life := _writer(document)[:2]) and any(begin <= version.seen for begin in forgets):
                forgets, highest = [begin for begin in forgets if begin > version.seen], 0.0
            peak, value = look(document, each["peak"]), look(document, each["value"])
            highest = max(highest, *(number for number in (peak, value) if is_number(number)), 0.0)
            if is_number(peak) and peak < highest * KEPT_SHARE:
                return failed(f"{surface} tells a peak of {peak:g}, and it was at {highest:g}", version.first)
            asked += is_number(peak)
    return passed(f"{asked} peaks are the highest value that was told", asked=asked)


def _forgets(files: Files, surface: str | None) -> list[int]:
    """When a declared fault was at what the file's writer, or its source's, keeps for its next life."""
    if surface is None:
        return []
    source = files.called(files.contracts[surface].surface.mirrors or "")
    nodes = {files.writer(name) for name in (surface, source) if name is not None}
    return [window[0] for fault in files.case.drill.faults if (window := files.case.window(fault)) is not None
            and isinstance(force := fault.force, Overwrite | Remove | Disk | Fill)
            and (force.node in nodes or getattr(force, "volume", None) is not None)]


FLAP_SLACK_S = 0.25
"""A change whose age is this near the end of the window may be counted or not: the file's date is rounded, and on a wall
clock that is slewed."""


class _Flaps:
    """How often the state of the drawdown changed within the policy's window, whose end is within, as far as it was seen."""

    def __init__(self, limits: Mapping[str, float]) -> None:
        self._window_s, self._most = limits["dd_flap_window_s"], limits["dd_flap_changes_max"]
        self._changes: list[float] = []
        self._last: Document | None = None
        self._since: float | None = None

    def wrong(self, before: Document, after: Document, seconds: float | None) -> str | None:
        """What is wrong with ``dd_flap`` of the later one."""
        if seconds is None:
            return None
        if before is not self._last:                   # something was missed in between: a change may have been, too
            self._since = seconds
        self._last = after
        if look(before, "dd_state.state") != look(after, "dd_state.state"):
            self._changes.append(seconds)
        self._changes = [each for each in self._changes if seconds - each < self._window_s + FLAP_SLACK_S]
        ages = [seconds - each for each in self._changes]
        surely = sum(age < self._window_s - FLAP_SLACK_S for age in ages)
        told = isinstance(look(after, "anomalies.dd_flap"), Mapping | bool)
        if not told and surely > self._most:
            return f"says nothing of a flap after {surely} changes"
        known = self._since is not None and seconds - self._since > self._window_s + FLAP_SLACK_S
        if told and known and len(ages) <= self._most:
            return f"says that it flaps after {len(ages)} changes"
        return None


CHECKS = (files_lawful, files_whole, files_one_writer, files_never_back, files_fresh, mirror_never_ahead, mirror_is_true,
          mirror_keeps_up,
          loops_agree, positions_in_ledger, snapshots_follow, peaks_kept)
