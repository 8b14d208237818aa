"""Questions to a recording. It never raises on damaged input: what is missing is unknown, and reported.

Time is the tape's: integer milliseconds from the world's start. A sample is an interval ``[asked, answered]``, a mark
``[begin, end]``, and a row that a node wrote on its own clock becomes an interval too, as narrow as the ``clock``
lines of its node allow. ``docs/recording.md`` describes every line that is read here.
"""

from __future__ import annotations

import gc
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from heapq import merge
from pathlib import Path
from typing import Any

import msgspec
import orjson

from harness import limits, texts
from harness.drill.model import Predicate
from harness.drill.predicate import evaluate
from harness.errors import TextError
from harness.recording import columns
from harness.recording.columns import Document, Sample, Slots, Stretch, Track, elsewhere_none, without
from harness.recording.rows import Book, Row, Rows
from harness.recording.series import Grid, Point, Series, gaps, grain_of, within
from harness.recording.writes import Writes, Written

__all__ = ["FOREVER", "Act", "Document", "Mark", "Offsets", "Point", "Probe", "Row", "Sample", "Series",
           "Stream", "Timeline", "Written", "gaps", "read_yaml", "uncollected", "within"]

FOREVER = 2**53
"""Later than any recording: the end of an interval whose end nobody knows."""

CLOCK_MS_MAX = 100
"""A node's clock must be known this exactly: rows that may lie anywhere would never be certain to break a rule."""

LINES = ("head", "mark", "sample", "written", "act", "probe", "clock", "limit", "seal")


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


@dataclass(frozen=True, slots=True)
class Stream:
    """Everything a node wrote as it went. Complete only when its seal fits, which is what ``whole`` says."""

    name: str
    node: str | None
    rows: Rows
    whole: bool
    why: str | None = None
    """why it is not whole"""
    size: int = 0
    """bytes of the stream's file"""
    illegible: int | None = None
    """the first line that is no row although the file is as it was sealed: its node wrote it so"""


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


@dataclass(slots=True)
class Timeline:
    """One recording, read whole. ``damage`` lists in plain words what could not be read or does not fit."""

    folder: Path
    head: Mapping[str, Any] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)
    acts: list[Act] = field(default_factory=list)
    clocks: dict[str | None, Offsets] = field(default_factory=dict)
    """node → its clock, as far as it was read"""
    limits: dict[str, int] = field(default_factory=dict)
    seal: Mapping[str, Any] | None = None
    damage: list[str] = field(default_factory=list)
    stack: Mapping[str, Any] = field(default_factory=dict)
    _tracks: dict[str, Track] = field(default_factory=dict)
    _written: dict[str, Writes] = field(default_factory=dict)
    _probes: dict[str, list[Probe]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _streams: dict[str, Stream] = field(default_factory=dict)
    _absent: dict[str, Track] = field(default_factory=dict)
    """the empty tracks of surfaces that were asked for and never sampled"""
    _unlawful: dict[str, Sequence[Stretch]] = field(default_factory=dict)
    _usable: dict[str, list[Stretch]] = field(default_factory=dict)
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
        moments = [each.grid.answered[-1] for each in self._tracks.values() if len(each)]
        return max([*moments, *(mark.end for mark in self.marks.values())], default=0)

    # ---- samples and predicates

    @property
    def surfaces(self) -> tuple[str, ...]:
        """Every surface that was sampled."""
        return tuple(self._tracks)

    def track(self, surface: str) -> Track:
        """What a surface said, in columns."""
        track = self._tracks.get(surface)
        return track if track is not None else self._absent.setdefault(surface, Track(surface))

    def samples(self, surface: str) -> Sequence[Sample]:
        """Every slot of a surface, in time; each is made when it is looked at."""
        return Slots(self.track(surface))

    def judge_documents(self, surface: str, unlawful: Sequence[Stretch]) -> None:
        """From now on, the documents in these slots of the surface are unknown to every predicate."""
        self._unlawful[surface] = unlawful
        self._usable.pop(surface, None)
        self._baseline = None

    def usable(self, surface: str) -> list[Stretch]:
        """The slots of a surface that hold a document which is not unlawful."""
        if surface not in self._usable:
            self._usable[surface] = without(self.track(surface).answered, self._unlawful.get(surface, ()))
        return self._usable[surface]

    def documents(self, surface: str, first: int, past: int) -> Iterator[tuple[int, Document]]:
        """Every usable document of these slots of a surface, with its slot."""
        usable = iter(columns.within(self.usable(surface), [(first, past)]))
        low, high = next(usable, (past, past))
        for slot, document in self.track(surface).told(first, past):
            while slot >= high and high < past:
                low, high = next(usable, (past, past))
            if low <= slot < high:
                yield slot, document

    def baseline(self) -> dict[str, Document | None]:
        """Each surface's last usable document before zero, the end of the mark ``given``."""
        if self._baseline is None:
            zero = self.marks.get("given")
            end = zero.end if zero is not None else -FOREVER
            self._baseline = {surface: self._last_before(surface, end) for surface in self._tracks}
        return self._baseline

    def _last_before(self, surface: str, end: int) -> Document | None:
        """The last one in front of the first slot that was answered later."""
        track = self.track(surface)
        late = next((slot for slot, answered in enumerate(track.grid.answered) if answered > end), len(track))
        before = [min(past, late) for first, past in self.usable(surface) if first < late]
        return track.document(before[-1] - 1) if before else None

    def series(self, predicate: Predicate) -> Series:
        """What the predicate says at every sample of its surfaces."""
        surfaces = predicate.surfaces
        baseline = self.baseline()
        if len(surfaces) == 1:
            return self._series_of_one(predicate, surfaces[0], baseline)
        return self._series_of_many(predicate, surfaces, baseline)

    def _series_of_one(self, predicate: Predicate, surface: str, baseline: Mapping[str, Document | None]) -> Series:
        """Asked anew only where one of its fields has changed; in between it says what it said."""
        said = ((first, past, evaluate(predicate, {surface: fields}, baseline))
                for first, past, fields in self.track(surface).states(_keys(predicate, surface)))
        return self.where_usable(surface, said)

    def where_usable(self, surface: str, said: Iterable[tuple[int, int, bool | None]]) -> Series:
        """A series over all slots of a surface: what was said where there is something usable, unknown elsewhere."""
        track = self.track(surface)
        return Series(track.grid, elsewhere_none(said, self.usable(surface), len(track)))

    def _series_of_many(self, predicate: Predicate, surfaces: Sequence[str],
                        baseline: Mapping[str, Document | None]) -> Series:
        """Each sample together with the latest ones of the other surfaces; older than their grain is unknown."""
        latest: dict[str, tuple[int, Document | None]] = {}
        grid, said = Grid(), []
        for asked, answered, surface, fields in merge(*(self._seen(each, predicate) for each in surfaces), key=_moment):
            latest[surface] = (asked, fields)
            documents = {name: document for name, (when, document) in latest.items()
                         if asked - when <= self.grain_ms(name)}
            said.append(evaluate(predicate, documents, baseline))
            grid.add(asked, asked, answered)
        return Series(grid, ((slot, slot + 1, holds) for slot, holds in enumerate(said)))

    def _seen(self, surface: str, predicate: Predicate) -> Iterator[tuple[int, int, str, Document | None]]:
        """(asked, answered, surface, the predicate's fields there or None) of every slot of a surface."""
        track = self.track(surface)
        states = track.states(_keys(predicate, surface))
        for first, past, fields in elsewhere_none(states, self.usable(surface), len(track)):
            for slot in range(first, past):
                yield track.grid.asked[slot], track.grid.answered[slot], surface, fields

    def contract_of(self, surface: str) -> str | None:
        """The contract that the stack says the surface's documents follow."""
        surfaces = self.stack.get("surfaces")
        entry = surfaces.get(surface) if isinstance(surfaces, Mapping) else None
        contract = entry.get("contract") if isinstance(entry, Mapping) else None
        return contract if isinstance(contract, str) else None

    def file_of(self, surface: str) -> str | None:
        """The file that the stack says the surface is; None for one that is asked over a port."""
        surfaces = self.stack.get("surfaces")
        entry = surfaces.get(surface) if isinstance(surfaces, Mapping) else None
        file = entry.get("file") if isinstance(entry, Mapping) else None
        return file if isinstance(file, str) else None

    def written(self, surface: str) -> Sequence[Written]:
        """Every change of the surface's file that was noticed, in time; each is made when it is looked at."""
        return self._written.get(surface) or Writes(surface)

    def every_ms(self, surface: str) -> int:
        """The sampling period of a surface: the head's, else the smallest distance of its slots."""
        said = self.head.get("surfaces")
        described = said.get(surface) if isinstance(said, Mapping) else None
        every = described.get("every_ms") if isinstance(described, Mapping) else None
        measured = self.track(surface).grid.period_ms
        return measured or (every if isinstance(every, int) and every > 0 else 1_000)

    def grain_ms(self, surface: str) -> int:
        """How far apart usable samples of a surface may be, where the drill declares nothing."""
        return grain_of(self.every_ms(surface))

    # ---- everything else

    def probes(self, id: str, what: str | None = None) -> list[Probe]:
        """The witnesses' words about a fault, in time."""
        return [each for each in self._probes.get(id, ()) if what is None or each.what == what]

    def stream(self, name: str) -> Stream:
        """A node's stream; one that nobody sealed or wrote is empty and not whole."""
        return self._streams.get(name) or Stream(name, None, Rows(), False, f"stream {name} missing")

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(self._streams)

    def clock_began(self, node: str | None) -> int:
        """How often a node's monotonic clock began anew: more than once where its readings contradict one another."""
        return self.clock(node).stretches

    def clock(self, node: str | None) -> Offsets:
        """A node's clock; one that was never read is known nowhere."""
        return self.clocks.get(node) or Offsets()

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


def _keys(predicate: Predicate, surface: str) -> set[str]:
    """The top-level fields of a surface's documents that a predicate asks about."""
    return {each.path.split(".", 1)[0] for each in predicate.fields if each.surface == surface}


def _moment(slot: tuple[int, int, str, Any]) -> tuple[int, int, str]:
    return slot[:3]


# ---- reading the tape -------------------------------------------------------------------------------------


class _Reader:
    """Folds the tape's lines into a timeline; each line kind has one method."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline, self._tracks = timeline, timeline._tracks

    def read(self) -> None:
        timeline, counts, folds = self.timeline, self.timeline._counts, {kind: getattr(self, kind) for kind in LINES}
        for number, line in enumerate(_lines(timeline), start=1):
            kind: Any = line.get("line")
            if timeline.seal is not None:
                timeline.damage.append(f"line {number} stands after the seal")
                return
            fold = folds.get(kind) if isinstance(kind, str) else None
            if fold is None:
                timeline.damage.append(f"line {number} is of no known kind: {str(kind)[:40]!r}")
                continue
            try:
                fold(line)
            except (KeyError, TypeError, ValueError) as why:
                timeline.damage.append(f"line {number} ({kind}) is not what it should be: {type(why).__name__}: {why}")
                continue
            if kind != "seal":
                counts[kind] = counts.get(kind, 0) + 1
        self._close()

    def _close(self) -> None:
        timeline = self.timeline
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
        surface, due, asked, answered = line["surface"], line["due"], line["asked"], line["answered"]
        if not (type(surface) is str and type(due) is type(asked) is type(answered) is int):
            surface, due, asked, answered = _text(surface), _whole(due), _whole(asked), _whole(answered)
        track = self._tracks.get(surface)
        if track is None:
            track = self._tracks[surface] = Track(surface)
        if answered < asked:
            raise ValueError("it was answered before it was asked")
        times = due, asked, answered, line.get("extra") is True
        if "silence" in line:
            track.nothing_came(times, _text(line["silence"]))
        elif "raw" in line:
            track.raw_came(times, line["raw"])
        elif "full" in line:
            if not isinstance(line["full"], dict):
                raise ValueError("full is no object")
            track.document_came(times, line["full"])
        elif not track.follows:
            track.nothing_came(times, "damaged")
        else:
            changes, gone = line["set"], line.get("unset", ())
            if type(changes) is not dict:
                changes = {**changes} if changes or gone else {}
            track.difference_came(times, changes, frozenset(gone) if changes or gone else ())

    def written(self, line: dict[str, Any]) -> None:
        surface, size, sha256 = _text(line["surface"]), line["bytes"], line["sha256"]
        written = Written(surface, _whole(line["begin"]), _whole(line["end"]), _text(line["how"]),
                          None if size is None else _whole(size), None if sha256 is None else _text(sha256))
        self.timeline._written.setdefault(surface, Writes(surface)).add(written)

    def act(self, line: dict[str, Any]) -> None:
        self.timeline.acts.append(Act(_text(line["id"]), _text(line["step"]), _whole(line["begin"]),
                                      _whole(line["end"]), line["saw"],
                                      None if line.get("due") is None else _whole(line["due"])))

    def probe(self, line: dict[str, Any]) -> None:
        probe = Probe(_text(line["id"]), _text(line["what"]), line["value"], _whole(line["at"]))
        self.timeline._probes.setdefault(probe.id, []).append(probe)

    def clock(self, line: dict[str, Any]) -> None:
        node, *times = _text(line["node"]), _whole(line["asked"]), _whole(line["answered"]), _whole(line["mono"])
        self.timeline.clocks.setdefault(node, Offsets()).read(*times)

    def limit(self, line: dict[str, Any]) -> None:
        self.timeline.limits[_text(line["name"])] = _whole(line["bound"])

    def seal(self, line: dict[str, Any]) -> None:
        self.timeline.seal = line


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"found {value!r}, expected text")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"found {value!r}, expected a whole number")
    return value


def _lines(timeline: Timeline) -> Iterable[dict[str, Any]]:
    """The tape's lines as far as they can be read; what cannot be is damage."""
    count, most, read = 0, limits.TAPE_LINES_MAX, orjson.loads
    try:
        for count, line in enumerate(_split(timeline.folder / "recording.jsonl.gz"), start=1):
            value = read(line) if line is not None else None
            if type(value) is not dict:
                timeline.damage.append(f"line {count} of the tape is cut off")
                return
            if count > most:
                timeline.damage.append(f"limit: tape_lines_max {most}")
                return
            yield value
    except (OSError, EOFError, zlib.error, orjson.JSONDecodeError) as why:
        timeline.damage.append(f"the tape cannot be read after line {count}: {type(why).__name__}")


def _split(file: Path) -> Iterator[bytes | None]:
    """The lines of a packed file, by pieces as large as come before an error shows; None for one that is too long, or that
    nothing ends. As ``readline`` would tell them, in a third of the time."""
    held: list[bytes] = []
    with gzip.open(file, "rb") as stream:
        while data := stream.read1(io.DEFAULT_BUFFER_SIZE):  # type: ignore[union-attr]
            lines = data.split(b"\n")
            held.append(lines[0])
            if len(lines) > 1:
                lines[0], held = b"".join(held), [lines.pop()]
                if len(lines[0]) >= limits.TAPE_LINE_BYTES_MAX:
                    break
                yield from lines
            elif sum(map(len, held)) >= limits.TAPE_LINE_BYTES_MAX:
                break
        else:
            if not any(held):
                return
    yield None


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
    clock = timeline.clock(node)
    try:
        book = Book(timeline.folder / "streams" / f"{name}.jsonl", clock)
    except TextError as large:
        return _not_whole(timeline, Stream(name, node, Rows(), False, f"stream {name}: {large.found}, {large.expected}"))
    except OSError:
        return _not_whole(timeline, Stream(name, node, Rows(), False, f"stream {name} missing"))
    unsealed = _unsealed(name, book, _sealed_streams(timeline).get(name))
    why = f"stream {name}: line {book.no_row} is no row" if book.no_row is not None else unsealed
    if len(book):
        why = why or clock.unfit(node) or _goes_back(name, book, clock)
    stream = Stream(name, node, Rows(book), why is None, why, book.size, book.no_row if unsealed is None else None)
    return stream if why is None or why == _never_there(name) else _not_whole(timeline, stream)


def _not_whole(timeline: Timeline, stream: Stream) -> Stream:
    timeline.damage.append(stream.why or f"stream {stream.name} is not whole")
    return stream


def _never_there(name: str) -> str:
    """Nothing is damaged, and nobody is asked to write; but an empty stream is not known to be whole."""
    return f"stream {name}: its file was never there"


def _unsealed(name: str, book: Book, seal: Any) -> str | None:
    if not isinstance(seal, Mapping):
        return f"stream {name} has no seal"
    if seal.get("sha256") != book.sha256:
        return f"stream {name}: hash differs"
    if seal.get("n") != book.lines:
        return f"stream {name}: {book.lines} rows where the seal counts {seal.get('n')}"
    if seal.get("torn_bytes") != 0:
        return f"stream {name}: {seal.get('torn_bytes')} bytes at its end could not be read as rows"
    return _never_there(name) if seal.get("absent") is True else None


def _goes_back(name: str, book: Book, clock: Offsets) -> str | None:
    """A node writes in the order of its time; only a clock that began anew explains an earlier stamp."""
    if clock.stretches > 1 or book.back is None:
        return None
    return f"stream {name}: row {book.back} is stamped earlier than the one before"


class Offsets:
    """Where a node's monotonic clock stands on the tape's clock.

    Each reading ``m`` taken within ``[asked, answered]`` bounds the offset; both clocks count whole milliseconds, so
    each side is widened by one. Readings that contradict one another mean that the clock began anew (another boot on
    another host): each stretch has bounds of its own, and a row belongs to the stretch whose readings lie nearest.
    """

    def __init__(self) -> None:
        self._stretches: list[tuple[int, int, int, int]] = []
        """first mono, last mono, lowest offset, highest offset"""

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

    def read(self, asked: int, answered: int, mono: int) -> None:
        """A reading that was asked for and answered at these moments of the tape's clock, in milliseconds."""
        low, high = asked - mono - 1, answered - mono + 1
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
