"""What one drill's folder tells, ready to be shown: no judgement, only what the reports need.

A view over ``harness.recording.timeline``, which is also what the judge reads: what a page shows is what was judged.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from harness import limits, texts
from harness.errors import TextError
from harness.recording.columns import Track, within
from harness.recording.punctuality import Punctuality, punctuality
from harness.recording.tape import read_lines
from harness.recording.timeline import FOREVER, Row, Sample, Timeline, read_yaml

STATUS_CONTRACT = "csp_status"
ABSENT = "missing"
"""The tape's word for a file that is not there."""
SILENCES = ("booting", "down", "absent", "missed")
"""Why a slot may have no answer: nothing had started yet, an act of ours kept the node down, the file was not there, or nobody
knows."""


@dataclass(frozen=True)
class Outline:
    """What the pages of a whole pack tell of a drill: little, so that all of them fit where one recording hardly does."""

    drill: Mapping[str, Any]
    versions: Mapping[str, Any]
    head: Mapping[str, Any]
    stack: Mapping[str, Any]
    marks: Mapping[str, tuple[int, int]]
    """name → (begin, end)"""
    counts: Mapping[str, Mapping[str, int]]
    """surface → how many slots were answered, booting, down, absent, missed, raw"""
    punctuality: Punctuality
    """whether we asked, and broke, when we were to"""
    end_ms: int
    """the last moment that anything in the recording speaks of"""

    @property
    def name(self) -> str:
        """The drill's name as the recording has it."""
        return str((self.head.get("drill") or {}).get("name"))

    @property
    def zero_ms(self) -> int:
        """The moment from which the drill counts: given has held."""
        return self.marks["given"][1] if "given" in self.marks else 0

    @property
    def lawless(self) -> list[str]:
        """The surfaces that were watched and obey no contract, as the head says."""
        watched = _mapping(self.head.get("surfaces"))
        return sorted(str(name) for name, each in watched.items() if _mapping(each).get("contract", "unsaid") is None)

    @property
    def own_machines(self) -> bool:
        """Whether every node ran what the stack names, and the recording says so for each."""
        return self.head.get("machines") == machines_in(self.stack)


@dataclass(frozen=True)
class Story(Outline):
    """One drill with its recording at hand, from its folder in a pack. Times are milliseconds on the tape's clock."""

    folder: Path
    policy: Mapping[str, Any]
    timeline: Timeline

    @property
    def outline(self) -> Outline:
        """What remains of it when the recording is put away."""
        return Outline(**{each.name: getattr(self, each.name) for each in fields(Outline)})

    @cached_property
    def surface(self) -> str | None:
        """The surface that obeys the status contract, else the first by name."""
        surfaces = _mapping(self.head.get("surfaces"))
        lawful = [name for name in surfaces if self._contract_of(name) == STATUS_CONTRACT]
        return next(iter(sorted(lawful) or sorted(surfaces)), None)

    @cached_property
    def shown(self) -> str | None:
        """The surface whose document is shown: the golden's, else that of the first promise to reach a state, the main one
        before others."""
        golden = _mapping(self.drill.get("golden"))
        reached = [surface for promise in _mapping(self.drill.get("promises")).values() if "within" in _mapping(promise)
                   for surface in self.timeline.surfaces if isinstance(promise.get(surface), Mapping)]
        named = self.surface if golden or self.surface in reached else next(iter(reached), self.surface)
        return str(golden["surface"]) if golden.get("surface") in self.timeline.surfaces else named

    @property
    def track(self) -> Track:
        """The slots of the main surface, in time."""
        return self.timeline.track(str(self.surface))

    @property
    def obeys_status_contract(self) -> bool:
        """Whether the main surface declares the status contract."""
        return self._contract_of(str(self.surface)) == STATUS_CONTRACT

    def _contract_of(self, surface: str) -> object:
        """As the recording's head says; else as the stack does."""
        said = _mapping(_mapping(self.head.get("surfaces")).get(surface))
        return said["contract"] if "contract" in said else self.timeline.contract_of(surface)

    def rows(self, stream: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """A stream's rows with their time on the tape's clock; what is damaged is passed over."""
        return ((_moment(row), row.value) for row in self.timeline.stream(stream).rows)

    def look_at(self, at_ms: int) -> Sample | None:
        """The answered slot of the surface that is shown that was asked at a moment, else the one nearest to it."""
        track = self.timeline.track(str(self.shown))
        grid, answered, samples = track.grid, track.answered, self.timeline.samples(str(self.shown))
        exact = next(iter(within(answered, [grid.asked_in(at_ms, at_ms)])), None)
        if exact is not None:
            return samples[exact[0]]
        slots = (slot for first, past in answered for slot in range(first, past))
        nearest = min(slots, key=lambda slot: max(grid.asked[slot] - at_ms, at_ms - grid.answered[slot], 0), default=None)
        return samples[nearest] if nearest is not None else None

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
    """What the nodes of a stack run: each one's machine, or its command or image where it names none."""
    nodes = {str(name): _mapping(node) for name, node in _mapping(stack.get("nodes")).items()}
    return {name: str(node.get("machine") or " ".join(map(str, node.get("command") or ())) or node.get("image") or "")
            for name, node in nodes.items()}


def _moment(row: Row) -> int:
    """The middle of the interval in which a row was written; 0 for one of a node whose clock was never read."""
    return (row.earliest + row.latest) // 2 if row.latest < FOREVER else 0


def read_json(file: Path) -> Mapping[str, Any]:
    """A JSON object, or nothing when it is none."""
    try:
        return _mapping(orjson.loads(texts.read(file, limits.PACK_TEXT_BYTES_MAX)))
    except (OSError, orjson.JSONDecodeError, TextError):
        return {}


def read_head(folder: Path) -> Mapping[str, Any]:
    """The head of a recording: its first line, or nothing."""
    try:
        first = _mapping(next(read_lines(folder / "recording.jsonl.gz"), {}))
    except OSError:  # not there, or not gzip at all
        return {}
    return first if first.get("line") == "head" else {}


def read_story(folder: Path) -> Story:
    """Read a drill's folder. Never raises on damaged content: what cannot be read is not there."""
    timeline = Timeline.load(folder)
    marks = {name: (mark.begin, mark.end) for name, mark in timeline.marks.items()}
    counts = {surface: _counted(timeline.track(surface), marks) for surface in sorted(timeline.surfaces)}
    return Story(read_yaml(folder / "drill.yaml"), read_json(folder / "versions.json"), timeline.head, timeline.stack, marks,
                 counts, punctuality(timeline), timeline.end, folder, read_json(folder / "policy.json"), timeline)


def _counted(track: Track, marks: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """What came of the slots: whatever is nothing else was missed, and booting before the start."""
    started = bisect_left(track.grid.asked, marks.get("started", (0, 0))[1])
    answered, raw, down = (track.count(why) for why in (None, "raw", "down"))
    booting = started - sum(track.count(why, started) for why in (None, "raw", "down"))
    absent = track.count(ABSENT) - track.count(ABSENT, started)
    return {"answered": answered, "booting": booting, "down": down, "absent": absent,
            "missed": len(track) - answered - raw - down - booting - absent, "raw": raw}
