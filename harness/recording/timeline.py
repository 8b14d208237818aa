"""Questions to a recording. It never raises on damaged input: what is missing is unknown, and reported.

Time is the tape's: integer milliseconds from the world's start. A sample is an interval ``[asked, answered]``, a mark
``[begin, end]``, and a row that a node wrote on its own clock becomes an interval too, as narrow as the ``clock``
lines of its node allow. ``docs/recording.md`` describes every line that is read here.
"""

from __future__ import annotations

import gc
import gzip
import hashlib
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import orjson

from harness import limits, texts
from harness.drill.model import Predicate
from harness.drill.predicate import evaluate
from harness.errors import TextError

Document = Mapping[str, Any]
FOREVER = 2**53
"""Later than any recording: the end of an interval whose end nobody knows."""

CLOCK_MS_MAX = 100
"""A node's clock must be known this exactly: rows that may lie anywhere would never be certain to break a rule."""

LINES = ("head", "mark", "sample", "act", "probe", "clock", "limit", "seal")


@contextmanager
def uncollected() -> Iterator[None]:
    """Reading and judging build no cycles, but values by the hundred thousand: a collector that walks through all of them to
    find that out takes a seventh of the time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


@dataclass(frozen=True, slots=True)
class Mark:
    """A named moment that lies in ``[begin, end]``."""

    name: str
    begin: int
    end: int


class Sample(msgspec.Struct, frozen=True):
    """One slot of a surface. ``document`` is None when it was silent, no JSON object, or could not be rebuilt."""

    surface: str
    due: int
    asked: int
    answered: int
    document: Document | None
    why: str | None = None
    """why there is no document: the silence's word, ``raw`` or ``damaged``"""
    changed: frozenset[str] | None = None
    """top-level keys that differ from the last document; None when that is not known"""
    raw: Mapping[str, Any] | None = None


class Point(msgspec.Struct, frozen=True):
    """What a predicate says in one interval: yes, no, or unknown (None)."""

    asked: int
    answered: int
    holds: bool | None


class Row(msgspec.Struct, frozen=True):
    """One row of a node's stream, written between ``earliest`` and ``latest`` on the tape's clock."""

    earliest: int
    latest: int
    value: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return str(self.value.get("kind", ""))


@dataclass(frozen=True, slots=True)
class Stream:
    """Everything a node wrote as it went. Complete only when its seal fits, which is what ``whole`` says."""

    name: str
    node: str | None
    rows: tuple[Row, ...]
    whole: bool
    why: str | None = None
    """why it is not whole"""
    size: int = 0
    """bytes of the stream's file"""


@dataclass(frozen=True, slots=True)
class Act:
    id: str
    step: str
    begin: int
    end: int
    saw: Any
    due: int | None = None
    """when the drill wanted it; None where no drill says so, such as what becomes of a process"""


class Probe(msgspec.Struct, frozen=True):
    id: str
    what: str
    value: Any
    at: int


@dataclass(frozen=True, slots=True)
class ClockReading:
    node: str
    asked: int
    answered: int
    mono: int


@dataclass(slots=True)
class Timeline:
    """One recording, read whole. ``damage`` lists in plain words what could not be read or does not fit."""

    folder: Path
    head: Mapping[str, Any] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)
    acts: list[Act] = field(default_factory=list)
    clocks: list[ClockReading] = field(default_factory=list)
    limits: dict[str, int] = field(default_factory=dict)
    seal: Mapping[str, Any] | None = None
    damage: list[str] = field(default_factory=list)
    stack: Mapping[str, Any] = field(default_factory=dict)
    _samples: dict[str, list[Sample]] = field(default_factory=dict)
    _probes: dict[str, list[Probe]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _streams: dict[str, Stream] = field(default_factory=dict)
    _lawful: dict[str, Sequence[bool]] = field(default_factory=dict)
    _turns: dict[str, Turns] = field(default_factory=dict)
    _baseline: dict[str, Document | None] | None = None

    @classmethod
    def load(cls, folder: Path) -> Timeline:
        """Read a run folder, as far as it can be read."""
        timeline = cls(Path(folder))
        with uncollected():
            timeline.stack = _read_stack(timeline)
            _Reader(timeline).read()
            for name in sorted({*_declared_streams(timeline), *_sealed_streams(timeline)}):
                timeline._streams[name] = _read_stream(timeline, name)
        return timeline

    # ---- what became of it

    @property
    def status(self) -> str:
        """completed | refused | aborted | interrupted: a recording without a seal was interrupted."""
        said = self.seal.get("status") if self.seal is not None else None
        return said if said in ("completed", "refused", "aborted") else "interrupted"

    @property
    def placebo(self) -> bool:
        return self.head.get("placebo") is True

    @property
    def end(self) -> int:
        """The last moment that anything in the recording speaks of."""
        moments = [each[-1].answered for each in self._samples.values() if each]
        return max([*moments, *(mark.end for mark in self.marks.values())], default=0)

    # ---- samples and predicates

    @property
    def surfaces(self) -> tuple[str, ...]:
        """Every surface that was sampled."""
        return tuple(self._samples)

    def samples(self, surface: str) -> Sequence[Sample]:
        """Every slot of a surface, in time."""
        return self._samples.get(surface, ())

    def judge_documents(self, surface: str, lawful: Sequence[bool]) -> None:
        """From now on, a document of the surface that is not lawful is unknown to every predicate; one word a slot."""
        self._lawful[surface] = lawful
        self._turns.pop(surface, None)
        self._baseline = None

    def usable(self, surface: str) -> list[Document | None]:
        """The document of every slot, None where it is silent or unlawful."""
        samples = self.samples(surface)
        verdicts = self._lawful.get(surface)
        if verdicts is None:
            return [sample.document for sample in samples]
        return [sample.document if fine else None for sample, fine in zip(samples, verdicts, strict=True)]

    def baseline(self) -> dict[str, Document | None]:
        """Each surface's last usable document before zero, the end of the mark ``given``."""
        if self._baseline is None:
            zero = self.marks.get("given")
            end = zero.end if zero is not None else -FOREVER
            self._baseline = {surface: self._last_before(surface, end) for surface in self._samples}
        return self._baseline

    def _last_before(self, surface: str, end: int) -> Document | None:
        found = None
        for sample, document in zip(self.samples(surface), self.usable(surface), strict=True):
            if sample.answered > end:
                break
            found = document if document is not None else found
        return found

    def series(self, predicate: Predicate) -> list[Point]:
        """What the predicate says at every sample of its surfaces."""
        surfaces = predicate.surfaces
        baseline = self.baseline()
        if len(surfaces) == 1:
            return self._series_of_one(predicate, surfaces[0], baseline)
        return self._series_of_many(predicate, surfaces, baseline)

    def _series_of_one(self, predicate: Predicate, surface: str, baseline: Mapping[str, Document | None]) -> list[Point]:
        """Asked anew only where one of its fields may have changed; in between it says what it said."""
        turns = self.turns(surface)
        points: list[Point] = []
        moments = turns.of({each.path.split(".", 1)[0] for each in predicate.fields})
        for begin, end in pairwise((*moments, len(turns.documents))):
            document = turns.documents[begin]
            held = None if document is None else evaluate(predicate, {surface: document}, baseline)
            points += turns.points(held)[begin:end]
        return points

    def turns(self, surface: str) -> Turns:
        """Where the usable documents of a surface change, and in what."""
        if surface not in self._turns:
            self._turns[surface] = Turns(self.samples(surface), self.usable(surface))
        return self._turns[surface]

    def _series_of_many(self, predicate: Predicate, surfaces: Sequence[str],
                        baseline: Mapping[str, Document | None]) -> list[Point]:
        """Each sample together with the latest ones of the other surfaces; older than their grain is unknown."""
        slots = sorted((sample.asked, sample.answered, surface, document) for surface in surfaces
                       for sample, document in ((s, _Shown(d)) for s, d in
                                                zip(self.samples(surface), self.usable(surface), strict=True)))
        latest: dict[str, tuple[int, Document | None]] = {}
        points = []
        for asked, answered, surface, shown in slots:
            latest[surface] = (asked, shown.document)
            documents = {name: document for name, (when, document) in latest.items()
                         if asked - when <= self.grain_ms(name)}
            points.append(Point(asked, answered, evaluate(predicate, documents, baseline)))
        return points

    def contract_of(self, surface: str) -> str | None:
        """The contract that the stack says the surface's documents follow."""
        surfaces = self.stack.get("surfaces")
        entry = surfaces.get(surface) if isinstance(surfaces, Mapping) else None
        contract = entry.get("contract") if isinstance(entry, Mapping) else None
        return contract if isinstance(contract, str) else None

    def every_ms(self, surface: str) -> int:
        """The sampling period of a surface: the head's, else the smallest distance of its slots."""
        said = self.head.get("surfaces")
        described = said.get(surface) if isinstance(said, Mapping) else None
        every = described.get("every_ms") if isinstance(described, Mapping) else None
        dues = [sample.due for sample in self.samples(surface)]
        steps = [after - before for before, after in zip(dues, dues[1:], strict=False) if after > before]
        measured = min(steps, default=0)
        return measured or (every if isinstance(every, int) and every > 0 else 1_000)

    def grain_ms(self, surface: str) -> int:
        """How far apart usable samples of a surface may be, where the drill declares nothing."""
        return limits.GRAIN_PERIODS * self.every_ms(surface)

    # ---- everything else

    def probes(self, id: str, what: str | None = None) -> list[Probe]:
        """The witnesses' words about a fault, in time."""
        return [each for each in self._probes.get(id, ()) if what is None or each.what == what]

    def stream(self, name: str) -> Stream:
        """A node's stream; one that nobody sealed or wrote is empty and not whole."""
        return self._streams.get(name) or Stream(name, None, (), False, f"stream {name} missing")

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(self._streams)

    def clock_began(self, node: str | None) -> int:
        """How often a node's monotonic clock began anew: more than once where its readings contradict one another."""
        return Offsets(self.clocks, node).stretches

    def node_of(self, surface: str) -> str | None:
        """The node that a surface belongs to."""
        for described in (self.head.get("surfaces"), self.stack.get("surfaces")):
            entry = described.get(surface) if isinstance(described, Mapping) else None
            if isinstance(entry, Mapping) and isinstance(entry.get("node"), str):
                return str(entry["node"])
        return None

    def transit_ms(self, client: str | None, server: str | None) -> int:
        """How long something under way from one node to another may take: the slowest link between them."""
        if client == server:
            return 0
        links = self.stack.get("links")
        found = [link.get("transit_ms_max") for link in links.values() if isinstance(link, Mapping)
                 and link.get("from") == client and str(link.get("to", "")).partition(".")[0] == server] \
            if isinstance(links, Mapping) else []
        numbers = [value for value in found if isinstance(value, int)]
        return max(numbers, default=_slowest_ms(links))


def _slowest_ms(links: Any) -> int:
    """Between nodes that no link joins, the slowest link of the stack is taken; 0 without any."""
    found = [link.get("transit_ms_max") for link in links.values() if isinstance(link, Mapping)] \
        if isinstance(links, Mapping) else []
    return max((value for value in found if isinstance(value, int)), default=0)


class Turns:
    """The slots of a surface at which a field of its documents may have changed, so that nobody asks at all the others."""

    def __init__(self, samples: Sequence[Sample], documents: Sequence[Document | None]) -> None:
        self.documents = documents
        self._samples = samples
        self._anew: list[int] = []
        """slots at which everything may be different: nothing usable, or the first usable one after that"""
        self._changed: dict[str, list[int]] = {}
        self._points: dict[bool | None, list[Point]] = {}
        stale = True
        for number, (sample, document) in enumerate(zip(samples, documents, strict=True)):
            if document is None or stale or sample.changed is None:
                if document is not None or not stale or not number:
                    self._anew.append(number)
                stale = document is None
            else:
                for key in sample.changed:
                    self._changed.setdefault(key, []).append(number)

    def of(self, keys: Iterable[str]) -> list[int]:
        """Every slot at which one of these top-level fields may have changed, in time."""
        return sorted({*self._anew, *(number for key in keys for number in self._changed.get(key, ()))})

    def points(self, holds: bool | None) -> list[Point]:
        """A point for each slot, if that is what a predicate said throughout; made once and shared."""
        if holds not in self._points:
            self._points[holds] = [Point(each.asked, each.answered, holds) for each in self._samples]
        return self._points[holds]


@dataclass(frozen=True, slots=True)
class _Shown:
    """A document in a tuple that is sorted: never compared by what it holds."""

    document: Document | None

    def __lt__(self, other: object) -> bool:
        return False


# ---- reading the tape -------------------------------------------------------------------------------------


class _Reader:
    """Folds the tape's lines into a timeline; each line kind has one method."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.last: dict[str, dict[str, Any] | None] = {}

    def read(self) -> None:
        timeline, folds = self.timeline, {kind: getattr(self, kind) for kind in LINES}
        for number, line in enumerate(_lines(timeline), start=1):
            kind = line.get("line")
            if timeline.seal is not None:
                timeline.damage.append(f"line {number} stands after the seal")
                return
            if kind not in LINES:
                timeline.damage.append(f"line {number} is of no known kind: {str(kind)[:40]!r}")
                continue
            try:
                folds[kind](line)
            except (KeyError, TypeError, ValueError) as why:
                timeline.damage.append(f"line {number} ({kind}) is not what it should be: {type(why).__name__}: {why}")
                continue
            if kind != "seal":
                timeline._counts[kind] = timeline._counts.get(kind, 0) + 1
        self._close()

    def _close(self) -> None:
        timeline = self.timeline
        for surface, slots in timeline._samples.items():  # a missed slot may be written before the answer it waited for
            timeline._samples[surface] = _in_time(slots)
        if not timeline.head:
            timeline.damage.append("the head is missing")
        if timeline.seal is None:
            timeline.damage.append("interrupted: there is no seal")
        elif timeline.seal.get("counts") != timeline._counts:
            timeline.damage.append("the seal counts other lines than there are")

    def head(self, line: dict[str, Any]) -> None:
        if self.timeline.head:
            raise ValueError("a second head")
        self.timeline.head = line

    def mark(self, line: dict[str, Any]) -> None:
        mark = Mark(_text(line["name"]), _whole(line["begin"]), _whole(line["end"]))
        if mark.end < mark.begin:
            raise ValueError("it ends before it begins")
        if mark.name in self.timeline.marks:
            raise ValueError(f"a second mark {mark.name}")
        self.timeline.marks[mark.name] = mark

    def sample(self, line: dict[str, Any]) -> None:
        surface, times = line["surface"], (line["due"], line["asked"], line["answered"])
        if type(surface) is not str or not all(type(each) is int for each in times):
            surface, times = _text(surface), (_whole(times[0]), _whole(times[1]), _whole(times[2]))
        slots = self.timeline._samples.setdefault(surface, [])
        if times[2] < times[1]:
            raise ValueError("it was answered before it was asked")
        if "silence" in line:
            slots.append(Sample(surface, *times, None, _text(line["silence"])))
        elif "raw" in line:
            self.last[surface] = None
            slots.append(Sample(surface, *times, None, "raw", raw=line["raw"]))
        else:
            slots.append(self._document(surface, times, line))

    def _document(self, surface: str, times: tuple[int, int, int], line: dict[str, Any]) -> Sample:
        """Rebuild the document: whole, or the last one with a difference."""
        last = self.last.get(surface)
        if "full" in line:
            document = line["full"]
            if not isinstance(document, dict):
                raise ValueError("full is no object")
            changed = None if last is None else _changed(last, document)
            if changed is not None and not changed:
                document = last
            self.last[surface] = document
            return Sample(surface, *times, document, None, changed)
        if last is None:
            return Sample(surface, *times, None, "damaged")
        if not line["set"] and not line.get("unset"):
            return Sample(surface, *times, last, None, frozenset())
        document = {**last, **line["set"]}
        for key in line.get("unset", ()):
            document.pop(key, None)
        self.last[surface] = document
        return Sample(surface, *times, document, None, frozenset((*line["set"], *line.get("unset", ()))))

    def act(self, line: dict[str, Any]) -> None:
        self.timeline.acts.append(Act(_text(line["id"]), _text(line["step"]), _whole(line["begin"]),
                                      _whole(line["end"]), line["saw"],
                                      None if line.get("due") is None else _whole(line["due"])))

    def probe(self, line: dict[str, Any]) -> None:
        probe = Probe(_text(line["id"]), _text(line["what"]), line["value"], _whole(line["at"]))
        self.timeline._probes.setdefault(probe.id, []).append(probe)

    def clock(self, line: dict[str, Any]) -> None:
        self.timeline.clocks.append(ClockReading(_text(line["node"]), _whole(line["asked"]), _whole(line["answered"]),
                                                 _whole(line["mono"])))

    def limit(self, line: dict[str, Any]) -> None:
        self.timeline.limits[_text(line["name"])] = _whole(line["bound"])

    def seal(self, line: dict[str, Any]) -> None:
        self.timeline.seal = line


def _in_time(slots: list[Sample]) -> list[Sample]:
    """The slots in the order in which they were asked; what a document changed is known only against its neighbour."""
    ordered = sorted(slots, key=lambda sample: (sample.asked, sample.due))
    if any(one.document is not other.document for one, other in zip(_answered(slots), _answered(ordered), strict=True)):
        return [msgspec.structs.replace(each, changed=None) for each in ordered]
    return ordered


def _answered(slots: Iterable[Sample]) -> Iterator[Sample]:
    return (each for each in slots if each.document is not None)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"found {value!r}, expected text")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"found {value!r}, expected a whole number")
    return value


def _changed(last: Mapping[str, Any], document: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(key for key in (*last, *document) if key not in last or key not in document
                     or last[key] != document[key] or type(last[key]) is not type(document[key]))


def _lines(timeline: Timeline) -> Iterable[dict[str, Any]]:
    """The tape's lines as far as they can be read; what cannot be is damage."""
    file = timeline.folder / "recording.jsonl.gz"
    count = 0
    try:
        with gzip.open(file, "rb") as stream:
            while line := stream.readline(limits.TAPE_LINE_BYTES_MAX):
                count += 1
                value = orjson.loads(line) if line.endswith(b"\n") else None
                if not isinstance(value, dict):
                    timeline.damage.append(f"line {count} of the tape is cut off")
                    return
                if count > limits.SAMPLES_MAX:
                    timeline.damage.append(f"limit: samples_max {limits.SAMPLES_MAX}")
                    return
                yield value
    except (OSError, EOFError, zlib.error, orjson.JSONDecodeError) as why:
        timeline.damage.append(f"the tape cannot be read after line {count}: {type(why).__name__}")


# ---- reading streams --------------------------------------------------------------------------------------


def read_yaml(file: Path) -> Mapping[str, Any]:
    """A YAML mapping, or nothing when it is none: damaged folders are read, too.

    What ``texts`` refuses counts as damage: aliases, with which a page of text can stand for a billion values, nesting
    that libyaml would follow until the process dies, and what two readers could read differently.
    """
    try:
        return _mapping_of(texts.read(file, limits.SPEC_FILE_BYTES_MAX))
    except (OSError, TextError):
        return {}


@lru_cache(maxsize=16)
def _mapping_of(data: bytes) -> Mapping[str, Any]:
    """One value for the same bytes: the runs of a pack have one stack."""
    try:
        value = texts.load(data, "")
    except TextError:
        return {}
    return value if isinstance(value, Mapping) else {}


def _read_stack(timeline: Timeline) -> Mapping[str, Any]:
    """``stack.yaml`` of the run folder, as plain values; for node, stream and transit names."""
    stack = read_yaml(timeline.folder / "stack.yaml")
    if not stack:
        timeline.damage.append("stack.yaml cannot be read")
    return stack


def _declared_streams(timeline: Timeline) -> dict[str, str | None]:
    """stream → node, as the stack declares them."""
    declared = timeline.stack.get("streams")
    if not isinstance(declared, Mapping):
        return {}
    return {str(name): entry.get("node") if isinstance(entry, Mapping) else None for name, entry in declared.items()}


def _sealed_streams(timeline: Timeline) -> Mapping[str, Any]:
    sealed = timeline.seal.get("streams") if timeline.seal is not None else None
    return sealed if isinstance(sealed, Mapping) else {}


def _read_stream(timeline: Timeline, name: str) -> Stream:
    """Rows of one stream with their times on the tape's clock; a reason when it is not whole."""
    node = _declared_streams(timeline).get(name)
    try:
        data = texts.read(timeline.folder / "streams" / f"{name}.jsonl", limits.STREAM_BYTES_MAX)
    except TextError as large:
        return _not_whole(timeline, Stream(name, node, (), False, f"stream {name}: {large.found}, {large.expected}"))
    except OSError:
        return _not_whole(timeline, Stream(name, node, (), False, f"stream {name} missing"))
    lines = data.splitlines()
    values: list[Mapping[str, Any]] = []
    why = None
    for number, line in enumerate(lines, start=1):
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            value = None
        if not isinstance(value, dict) or not isinstance(value.get("at"), int):
            why = why or f"stream {name}: line {number} is no row"
            continue
        values.append(value)
    why = why or _unsealed(name, data, len(lines), _sealed_streams(timeline).get(name))
    clock = Offsets(timeline.clocks, node)
    if values:
        why = why or clock.unfit(node) or _goes_back(name, values, clock)
    rows = tuple(Row(*clock.interval(value["at"]), value) for value in values)
    stream = Stream(name, node, rows, why is None, why, len(data))
    return stream if why is None else _not_whole(timeline, stream)


def _not_whole(timeline: Timeline, stream: Stream) -> Stream:
    timeline.damage.append(stream.why or f"stream {stream.name} is not whole")
    return stream


def _unsealed(name: str, data: bytes, lines: int, seal: Any) -> str | None:
    if not isinstance(seal, Mapping):
        return f"stream {name} has no seal"
    if seal.get("sha256") != hashlib.sha256(data).hexdigest():
        return f"stream {name}: hash differs"
    if seal.get("n") != lines:
        return f"stream {name}: {lines} rows where the seal counts {seal.get('n')}"
    if seal.get("torn_bytes") != 0:
        return f"stream {name}: {seal.get('torn_bytes')} bytes at its end could not be read as rows"
    return None


def _goes_back(name: str, values: Sequence[Mapping[str, Any]], clock: Offsets) -> str | None:
    """A node writes in the order of its time; only a clock that began anew explains an earlier stamp."""
    if clock.stretches > 1:
        return None
    back = next((number for number, (before, after) in enumerate(zip(values, values[1:], strict=False), start=2)
                 if after["at"] < before["at"]), None)
    return f"stream {name}: row {back} is stamped earlier than the one before" if back is not None else None


class Offsets:
    """Where a node's monotonic clock stands on the tape's clock.

    Each reading ``m`` taken within ``[asked, answered]`` bounds the offset; both clocks count whole milliseconds, so
    each side is widened by one. Readings that contradict one another mean that the clock began anew (another boot on
    another host): each stretch has bounds of its own, and a row belongs to the stretch whose readings lie nearest.
    """

    def __init__(self, readings: Iterable[ClockReading], node: str | None) -> None:
        self._stretches: list[tuple[int, int, int, int]] = []
        """first mono, last mono, lowest offset, highest offset"""
        for each in readings:
            if each.node == node:
                self._add(each.mono, each.asked - each.mono - 1, each.answered - each.mono + 1)

    @property
    def stretches(self) -> int:
        """How often the clock began, as far as its readings contradict one another."""
        return len(self._stretches)

    def unfit(self, node: str | None) -> str | None:
        """Why rows cannot be placed by this clock, or None."""
        if not self._stretches:
            return f"the clock of {node} was never read"
        widest = max(high - low for _, _, low, high in self._stretches)
        return f"the clock of {node} is known to {widest} ms only" if widest > CLOCK_MS_MAX else None

    def _add(self, mono: int, low: int, high: int) -> None:
        if self._stretches:
            first, last, old_low, old_high = self._stretches[-1]
            if max(low, old_low) <= min(high, old_high):
                self._stretches[-1] = (min(first, mono), max(last, mono), max(low, old_low), min(high, old_high))
                return
        self._stretches.append((mono, mono, low, high))

    def interval(self, mono: int) -> tuple[int, int]:
        """When the node's clock read ``mono``, on the tape's clock."""
        if not self._stretches:
            return -FOREVER, FOREVER
        if len(self._stretches) == 1:
            return mono + self._stretches[0][2], mono + self._stretches[0][3]
        distances = [max(first - mono, mono - last, 0) for first, last, _, _ in self._stretches]
        nearest = min(distances)
        fitting = [each for each, distance in zip(self._stretches, distances, strict=True) if distance == nearest]
        return mono + min(each[2] for each in fitting), mono + max(each[3] for each in fitting)


# ---- windows ----------------------------------------------------------------------------------------------


def within(points: Sequence[Point], begin: int, end: int) -> Sequence[Point]:
    """The points that lie wholly in ``[begin, end]``. Points are in time by ``asked``."""
    first = bisect_left(points, begin, key=lambda point: point.asked)
    last = bisect_right(points, end, key=lambda point: point.asked)
    return [point for point in points[first:last] if point.answered <= end]


def gaps(points: Sequence[Point], begin: int, end: int, grain_ms: int,
         waived: Sequence[tuple[int, int]] = ()) -> list[tuple[int, int]]:
    """Stretches of ``[begin, end]`` in which no usable sample was asked for longer than the grain.

    A sample that took longer than the grain to answer is not usable: it knows one instant of a stretch too long.
    Stretches inside a waived window (a node that a declared fault keeps down), widened by a grain, do not count.
    """
    if end <= begin:
        return []
    first = bisect_left(points, begin - grain_ms, key=lambda point: point.asked)
    last = bisect_right(points, end + grain_ms, key=lambda point: point.asked)
    known = [point.asked for point in points[first:last]
             if point.holds is not None and point.answered - point.asked <= grain_ms]
    edges = [begin, *(each for each in known if begin < each < end), end]
    if known and known[0] <= begin:
        edges[0] = max(each for each in known if each <= begin)
    if known and known[-1] >= end:
        edges[-1] = min(each for each in known if each >= end)
    found = [(before, after) for before, after in zip(edges, edges[1:], strict=False) if after - before > grain_ms]
    return [gap for gap in found if not any(low - grain_ms <= gap[0] and gap[1] <= high + grain_ms
                                            for low, high in waived)]
