"""What one drill's folder tells, ready to be shown: no judgement, only what the reports need, read once.

The judge has its own, stricter reading of a recording (``harness.recording.timeline``); this one serves pictures
and pages. Where it has to choose, it takes the simplest thing that a reader can check by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

from harness import limits
from harness.recording.tape import read_lines

STATUS_CONTRACT = "csp_status"
NOTE_LINE_BYTES_MAX = 65_536
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml, where it is there: a tenth of the time."""


@dataclass(frozen=True, slots=True)
class Look:
    """One slot of the main surface: when it was asked and answered, and the document (None: silence, or no JSON)."""

    asked: int
    answered: int
    document: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Story:
    """One drill, from its folder in a pack. Times are milliseconds on the tape's clock."""

    folder: Path
    drill: Mapping[str, Any]
    head: Mapping[str, Any]
    versions: Mapping[str, Any]
    stack: Mapping[str, Any]
    policy: Mapping[str, Any]
    marks: Mapping[str, tuple[int, int]]
    looks: tuple[Look, ...]
    surface: str | None
    counts: Mapping[str, Mapping[str, int]]
    """surface → answered, silent, raw"""
    offsets: Mapping[str, int]
    """node → what to add to its monotonic clock to get the tape's"""
    end_ms: int

    @property
    def name(self) -> str:
        """The drill's name as the recording has it."""
        return str((self.head.get("drill") or {}).get("name"))

    @property
    def zero_ms(self) -> int:
        """The moment from which the drill counts: given has held."""
        return self.marks["given"][1] if "given" in self.marks else 0

    @property
    def obeys_status_contract(self) -> bool:
        """Whether the main surface declares the status contract."""
        return _mapping(_mapping(self.head.get("surfaces")).get(str(self.surface))).get("contract") == STATUS_CONTRACT

    @property
    def own_machines(self) -> bool:
        """Whether every node ran what the stack names, and the recording says so for each."""
        return self.head.get("machines") == machines_in(self.stack)

    def rows(self, stream: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """A stream's rows with their time on the tape's clock; what is damaged is passed over."""
        node = ((self.stack.get("streams") or {}).get(stream) or {}).get("node")
        offset = self.offsets.get(str(node), 0)
        for row in read_stream(self.folder / "streams" / f"{stream}.jsonl"):
            at = row.get("at")
            yield (at + offset if isinstance(at, int) else 0), row

    def look_at(self, at_ms: int) -> Look | None:
        """The answered slot that was asked at a moment, else the one nearest to it."""
        usable = [each for each in self.looks if each.document is not None]
        return min(usable, key=lambda each: (each.asked != at_ms, max(each.asked - at_ms, at_ms - each.answered, 0),
                                             each.asked), default=None)

    def faults(self) -> Iterator[tuple[str, str, int, int]]:
        """Each fault: id, what it does, when it stood (to the end of the tape when it was never healed)."""
        for id, raw in (_mapping(self.drill.get("faults"))).items():
            if str(id) in self.marks:
                healed = self.marks.get(f"{id}.healed")
                yield str(id), force_of(raw), self.marks[str(id)][0], healed[1] if healed else self.end_ms

    def stimuli(self) -> Iterator[tuple[str, str, int]]:
        """Each stimulus: id, what was done, when."""
        for id, raw in (_mapping(self.drill.get("stimuli"))).items():
            if str(id) in self.marks:
                yield str(id), force_of(raw), self.marks[str(id)][0]


def force_of(raw: Any) -> str:
    """A fault or stimulus of a drill file in words: ``stall link=market_data toward=client``."""
    verbs = {key: value for key, value in _mapping(raw).items() if key not in {"at", "for"}}
    return "; ".join(f"{verb} " + " ".join(f"{key}={_short(value)}" for key, value in _mapping(arguments).items())
                     if isinstance(arguments, Mapping) else f"{verb} {arguments}"
                     for verb, arguments in verbs.items())


def _short(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value, default=str).decode()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def machines_in(stack: Mapping[str, Any]) -> dict[str, str]:
    """What the nodes of a stack run: each one's machine, or its command where it names none."""
    return {str(name): str(_mapping(node).get("machine") or " ".join(map(str, _mapping(node).get("command") or ())))
            for name, node in _mapping(stack.get("nodes")).items()}


def read_stream(file: Path) -> Iterator[Mapping[str, Any]]:
    """The JSON objects of a stream, line by line; other lines are passed over."""
    if not file.is_file():
        return
    with file.open("rb") as stream:
        while line := stream.readline(NOTE_LINE_BYTES_MAX):
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            if isinstance(row, dict):
                yield row


def read_yaml(file: Path) -> Mapping[str, Any]:
    """A YAML mapping, or nothing when it is none: a report is written about damaged folders, too.

    Aliases count as damage: a page of text with them can stand for a billion values. So does nesting deeper than any
    drill's or stack's, which libyaml would follow until the process dies.
    """
    try:
        data = file.read_bytes()
        depth = 0
        for event in yaml.parse(data, _LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > limits.DOCUMENT_DEPTH_MAX:
                return {}
        return _mapping(yaml.load(data, Loader=_LOADER))
    except (OSError, yaml.YAMLError, RecursionError):
        return {}


def read_json(file: Path) -> Mapping[str, Any]:
    """A JSON object, or nothing when it is none."""
    try:
        return _mapping(orjson.loads(file.read_bytes()))
    except (OSError, orjson.JSONDecodeError):
        return {}


def read_head(folder: Path) -> Mapping[str, Any]:
    """The head of a recording: its first line, or nothing."""
    first = next(_lines(folder), {})
    return first if first.get("line") == "head" else {}


def read_seal(folder: Path) -> Mapping[str, Any] | None:
    """The seal of a recording: its last line, or None."""
    last: Mapping[str, Any] = {}
    for last in _lines(folder):  # noqa: B007 (only the last one matters)
        pass
    return last if last.get("line") == "seal" else None


def _lines(folder: Path) -> Iterator[Mapping[str, Any]]:
    file = folder / "recording.jsonl.gz"
    if not file.is_file():
        return
    seen = 0
    try:
        for line in read_lines(file):
            seen += 1
            if seen > limits.SAMPLES_MAX * 4:
                return
            if isinstance(line, dict):
                yield line
    except OSError:  # not gzip at all
        return


def read_story(folder: Path) -> Story:
    """Read a drill's folder. Never raises on damaged content: what cannot be read is not there."""
    reader = _Reader(read_head(folder))
    for line in _lines(folder):
        reader.take(line)
    return Story(folder, read_yaml(folder / "drill.yaml"), reader.head, read_json(folder / "versions.json"),
                 read_yaml(folder / "stack.yaml"), read_json(folder / "policy.json"), reader.marks,
                 tuple(reader.looks), reader.surface, reader.counts,
                 {node: offset for node, (_, offset) in reader.clocks.items()}, reader.end_ms)


class _Reader:
    """Folds the lines of one tape."""

    def __init__(self, head: Mapping[str, Any]) -> None:
        self.head = head
        self.surface = _main_surface(head)
        self.marks: dict[str, tuple[int, int]] = {}
        self.looks: list[Look] = []
        self.counts: dict[str, dict[str, int]] = {}
        self.clocks: dict[str, tuple[int, int]] = {}
        self.end_ms = 0
        self._document: dict[str, Any] | None = None

    def take(self, line: Mapping[str, Any]) -> None:
        kind = line.get("line")
        try:
            if kind == "mark":
                self.marks.setdefault(line["name"], (line["begin"], line["end"]))
                self.end_ms = max(self.end_ms, line["end"])
            elif kind == "clock":
                self._clock(line["node"], line["asked"], line["answered"], line["mono"])
            elif kind == "sample":
                self._sample(line)
        except (KeyError, TypeError):  # a line without its fields says nothing
            return

    def _clock(self, node: str, asked: int, answered: int, mono: int) -> None:
        """The narrowest reading is the best one; the first of equals, so that the choice is the same every time."""
        width = answered - asked
        if node not in self.clocks or width < self.clocks[node][0]:
            self.clocks[node] = (width, (asked + answered) // 2 - mono)

    def _sample(self, line: Mapping[str, Any]) -> None:
        word = "silent" if "silence" in line else "raw" if "raw" in line else "answered"
        counts = self.counts.setdefault(line["surface"], {"answered": 0, "silent": 0, "raw": 0})
        counts[word] += 1
        self.end_ms = max(self.end_ms, line["answered"])
        if line["surface"] != self.surface:
            return
        if "full" in line:
            self._document = dict(line["full"])
        elif "raw" in line:
            self._document = None
        elif word == "answered" and self._document is not None:
            self._document = {**self._document, **line.get("set", {})}
            for key in line.get("unset", ()):
                self._document.pop(key, None)
        self.looks.append(Look(line["asked"], line["answered"], self._document if word == "answered" else None))


def _main_surface(head: Mapping[str, Any]) -> str | None:
    """The surface that obeys the status contract, else the first by name."""
    surfaces = _mapping(head.get("surfaces"))
    lawful = [name for name, each in surfaces.items() if _mapping(each).get("contract") == STATUS_CONTRACT]
    return next(iter(sorted(lawful) or sorted(surfaces)), None)
