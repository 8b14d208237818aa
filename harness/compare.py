"""The same drill in two runs, side by side: the order of mode changes, reasons and latch codes.

A run's *course* is what its system said of itself from zero on, each state once: ``trading_mode``, ``mode_reasons`` and
the opening latch with its codes, in the samples of the status surface. How long a state lasted is not compared: worlds
and policies differ in that. Two courses agree when they are the same states in the same order.

Sampling can miss what is shorter than its grain (three sampling periods). So a state that lasted less than the grain in the
one run, and has no partner in the other, is shown (``~``) and does not count as a difference. What does count besides is
exact: the rows that the system wrote down at every change of its mode and of its latch (kinds ``mode`` and ``latch``,
whatever stream they stand in), compared in the same way, where both runs have them. A report says which of the two it rests on.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

from harness import console
from harness.drill.text import worlds_of
from harness.errors import UsageError, hint
from harness.pack.story import machines_in
from harness.recording.tape import read_lines
from harness.recording.timeline import Timeline, read_yaml
from harness.regress import NAMED
from harness.world import WORLDS

CONTRACT = "csp_status"
FIELDS = ("trading_mode", "mode_reasons", "open_permission_blocked_latch", "open_permission_reason_codes")
RECORDING = "recording.jsonl.gz"
PACKED = "incident_drills"
OWN_MARKS = frozenset({"started", "given", "healed", "converge", "stopped"})
"""The marks of the drill's own course; the others are those of faults and stimuli (``docs/recording.md``)."""
SAME, ONLY_A, ONLY_B, BRIEF = "=", "<", ">", "~"


class Unusable(UsageError):
    """A run that cannot be compared: exit code 2, like every input that is none."""


class Modeless(Unusable):
    """A run of which nothing that was watched says a mode: a drill that never looks at the trader's status."""


Begin = tuple[Hashable, str, int, int]
"""A state's key and text, when it was there, and until when the one before it was"""


@dataclass(frozen=True, slots=True)
class State:
    """What a system said of itself, from ``begin`` for ``lasted`` milliseconds of the tape's clock."""

    key: Hashable
    text: str
    begin: int
    lasted: int


@dataclass(frozen=True, slots=True)
class Row:
    """One line of two courses side by side. ``a`` and ``b`` count milliseconds from the mark ``since`` of the own run;
    a state that only one run has leaves the other None."""

    sign: str
    text: str
    since: str
    a: int | None
    b: int | None

    @property
    def apart_ms(self) -> int:
        """How far apart the two runs came to this state."""
        return abs(self.a - self.b) if self.a is not None and self.b is not None else 0

    def to_json(self) -> dict[str, Any]:
        return {"sign": self.sign, "state": self.text, "since": self.since, "a_ms": self.a, "b_ms": self.b}


@dataclass(frozen=True)
class Side:
    """One run, as far as it is compared."""

    folder: Path
    timeline: Timeline

    @classmethod
    def read(cls, folder: Path) -> Side:
        """Raises Unusable with the reason."""
        if not (folder / RECORDING).is_file():
            raise Unusable(f"{folder}: no {RECORDING} there; expected a run folder, a pack, or a folder of runs")
        side = cls(folder, Timeline.load(folder))
        if side.timeline.status != "completed":
            raise Unusable(f"{folder}: the run was {side.timeline.status}; only completed runs are compared")
        if "given" not in side.timeline.marks:
            raise Unusable(f"{folder}: the recording has no mark `given`, so nothing says where its course begins")
        if side.surface is None:
            raise Modeless(f"{folder}: no surface of it says what {', '.join(FIELDS[:2])} were")
        return side

    @property
    def drill(self) -> str:
        return str((self.timeline.head.get("drill") or {}).get("name"))

    @property
    def world(self) -> str:
        return str(self.timeline.head.get("world"))

    def about(self) -> dict[str, Any]:
        """What a reader must know of the run before believing a comparison."""
        head = self.timeline.head
        drill, policy = head.get("drill") or {}, head.get("policy") or {}
        return {"run": self.folder.name, "folder": str(self.folder), "world": self.world, "seed": head.get("seed"),
                "placebo": head.get("placebo") is True, "mutants": self.mutants, "policy": policy.get("name"),
                "drill_sha256": drill.get("sha256"), "system": head.get("system"), "damage": list(self.timeline.damage[:3])}

    @property
    def mutants(self) -> dict[str, str]:
        """node → the machine that it ran instead of the one that its stack names."""
        own, ran = machines_in(read_yaml(self.folder / "stack.yaml")), self.timeline.head.get("machines")
        return {str(node): str(machine) for node, machine in ran.items() if own.get(node) != machine} \
            if isinstance(ran, Mapping) else {}

    @property
    def zero(self) -> int:
        return self.timeline.marks["given"].end

    @cached_property
    def surface(self) -> str | None:
        """The first surface, by name, whose documents have a mode."""
        named = sorted(self.timeline.surfaces, key=lambda name: (self.timeline.contract_of(name) != CONTRACT, name))
        return next((name for name in named for sample in self.timeline.samples(name)
                     if sample.document is not None and FIELDS[0] in sample.document), None)

    @property
    def grain(self) -> int:
        return self.timeline.grain_ms(str(self.surface))

    @cached_property
    def course(self) -> list[State]:
        """The sampled states from zero on, each once. Silence in between is no state; one that stood before it and was never
        said again is known to have lasted until then."""
        found: list[Begin] = []
        silent: int | None = None
        for sample in self.timeline.samples(str(self.surface)):
            if sample.document is None:
                silent = sample.asked if silent is None else silent
                continue
            key = _key(sample.document)
            if sample.asked <= self.zero:
                found = [(key, _told(sample.document), self.zero, self.zero)]
            elif not found or found[-1][0] != key:
                found.append((key, _told(sample.document), sample.answered, sample.answered if silent is None else silent))
            silent = None
        return _lasting(found, self.timeline.end if silent is None else silent)

    @cached_property
    def modes(self) -> list[State]:
        """Every change of mode or reasons that the system wrote down, from zero on."""
        found: list[Begin] = []
        for at, row in self._rows("mode"):
            key = str(row.get("to")), _names(row.get("reasons"))
            if not found or found[-1][0] != key:
                found.append((key, _listed(key[0], key[1]), at, at))
        return _lasting(found, self.timeline.end)

    @cached_property
    def latches(self) -> list[State]:
        """Every change of the opening latch that the system wrote down, from zero on."""
        found: list[Begin] = []
        for at, row in self._rows("latch"):
            key = str(row.get("event")), _names(row.get("codes") or row.get("code"))
            found.append((key, _listed(f"latch {key[0]}", key[1]), at, at))
        return _lasting(found, self.timeline.end)

    @cached_property
    def mode_stream(self) -> str | None:
        """The stream in which the system writes its changes of mode down (and those of its latch: a ledger that holds
        them as well would tell each twice); None when there is none, or when it is not whole."""
        streams = (self.timeline.stream(name) for name in self.timeline.streams)
        return next((each.name for each in streams if each.whole and any(row.kind == "mode" for row in each.rows)), None)

    def _rows(self, kind: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
        rows = self.timeline.stream(self.mode_stream).rows if self.mode_stream else ()
        return ((row.latest, row.value) for row in rows if row.kind == kind and row.latest > self.zero)

    @cached_property
    def begins(self) -> dict[str, int]:
        """When each fault or stimulus began, and when each was healed, from zero on."""
        found = {name: mark.begin for name, mark in self.timeline.marks.items() if name not in OWN_MARKS}
        return {"zero": self.zero, **{name: begin for name, begin in found.items() if begin >= self.zero}}


def _key(document: Mapping[str, Any]) -> Hashable:
    mode, reasons, latched, codes = (document.get(name) for name in FIELDS)
    return str(mode), _names(reasons), latched, _names(codes)


def _names(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else () if value is None else (str(value),)


def _told(document: Mapping[str, Any]) -> str:
    mode, reasons, latched, codes = (document.get(name) for name in FIELDS)
    told = _listed(str(mode), _names(reasons))
    return told + (f" · latch {' '.join(_names(codes)) or 'without a code'}" if latched else "")


def _listed(word: str, names: Sequence[str]) -> str:
    return f"{word}: {' '.join(names)}" if names else word


def _lasting(found: Sequence[Begin], end: int) -> list[State]:
    ends = [before for *_, before in found[1:]] + [end]
    return [State(key, text, begin, max(after - begin, 0)) for (key, text, begin, _), after in zip(found, ends, strict=False)]


# ---- two courses ------------------------------------------------------------------------------------------


def align(a: Sequence[State], b: Sequence[State], side_a: Side, side_b: Side) -> list[Row]:
    """The two sequences side by side; what has no partner stands alone.

    The courses agree when they are equal once the brief ones among the lonely states are left out (and what they had
    parted is joined again): then every lonely row is marked as brief, and none as a difference.
    """
    rows: list[Row] = []
    rest_a: list[State] = []
    rest_b: list[State] = []
    matcher = SequenceMatcher(None, [each.key for each in a], [each.key for each in b], autojunk=False)
    for what, a_from, a_to, b_from, b_to in matcher.get_opcodes():
        ours, theirs = a[a_from:a_to], b[b_from:b_to]
        if what == "equal":
            rows += [_pair(one, other, side_a.begins, side_b.begins) for one, other in zip(ours, theirs, strict=True)]
            rest_a += ours
            rest_b += theirs
            continue
        rows += [_alone(each, side_a, ONLY_A) for each in ours]
        rows += [_alone(each, side_b, ONLY_B) for each in theirs]
        rest_a += [each for each in ours if each.lasted >= side_a.grain]
        rest_b += [each for each in theirs if each.lasted >= side_b.grain]
    if _joined(rest_a) == _joined(rest_b):
        return [row if row.sign == SAME else replace(row, sign=BRIEF) for row in rows]
    return rows


def _pair(a: State, b: State, begins_a: Mapping[str, int], begins_b: Mapping[str, int]) -> Row:
    """Both counted from the newest mark that lies before both."""
    common = [name for name, begin in begins_a.items() if begin <= a.begin and begins_b.get(name, b.begin + 1) <= b.begin]
    since = max(common, key=lambda name: begins_a[name], default="zero")
    return Row(SAME, a.text, since, a.begin - begins_a[since], b.begin - begins_b[since])


def _alone(state: State, side: Side, sign: str) -> Row:
    since = max((name for name, begin in side.begins.items() if begin <= state.begin), key=lambda name: side.begins[name],
                default="zero")
    after = state.begin - side.begins[since]
    a, b = (after, None) if sign == ONLY_A else (None, after)
    return Row(BRIEF if state.lasted < side.grain else sign, state.text, since, a, b)


def _joined(states: Sequence[State]) -> list[Hashable]:
    return [key for key, _ in groupby(each.key for each in states)]


@dataclass(frozen=True)
class Comparison:
    """Two runs of one drill. ``parts`` maps samples, modes and latches to their rows."""

    drill: str
    a: Mapping[str, Any]
    b: Mapping[str, Any]
    parts: Mapping[str, list[Row]]
    warnings: list[str] = field(default_factory=list)

    @property
    def agree(self) -> bool:
        return not any(row.sign in (ONLY_A, ONLY_B) for rows in self.parts.values() for row in rows)

    @property
    def rests_on(self) -> str:
        return "samples and notes" if len(self.parts) > 1 else "samples alone"

    @property
    def apart_ms(self) -> int:
        """The farthest that the two runs were apart in coming to a state."""
        return max((row.apart_ms for rows in self.parts.values() for row in rows), default=0)

    @property
    def brief(self) -> int:
        return sum(row.sign == BRIEF for rows in self.parts.values() for row in rows)

    def to_json(self) -> dict[str, Any]:
        return {"drill": self.drill, "agree": self.agree, "rests_on": self.rests_on, "a": self.a, "b": self.b,
                "warnings": self.warnings,
                "parts": {name: [row.to_json() for row in rows] for name, rows in self.parts.items()}}


def compare(a: Side, b: Side) -> Comparison:
    """Raises Unusable when the runs are not of one drill."""
    if a.drill != b.drill:
        raise Unusable(f"{a.folder.name} is a run of {a.drill}, {b.folder.name} one of {b.drill}")
    parts = {"samples": align(a.course, b.course, a, b)}
    if a.mode_stream and b.mode_stream:
        parts |= {"modes": align(a.modes, b.modes, a, b), "latches": align(a.latches, b.latches, a, b)}
    return Comparison(a.drill, a.about(), b.about(), parts, list(_warnings(a, b)))


def _warnings(a: Side, b: Side) -> Iterator[str]:
    one, other = a.about(), b.about()
    for key, word in (("drill_sha256", "drill files"), ("system", "systems"), ("policy", "policies")):
        if one[key] != other[key]:
            yield f"the {word} differ" + (f": {one[key]} and {other[key]}" if key == "policy" else "")
    for side, about in ((a, one), (b, other)):
        if about["damage"]:
            yield f"{about['run']} is damaged: {about['damage'][0]}"
        if about["placebo"]:
            yield f"{about['run']} is a placebo: nothing was broken in it"
        for node, machine in about["mutants"].items():
            yield f"{about['run']} ran another machine than its stack names (a mutant): {node} as {machine}"
        if side.mode_stream is None:
            yield f"{about['run']} has no whole stream of its mode changes: what was shorter than its grain may be missing"


# ---- which runs -------------------------------------------------------------------------------------------


def runs_of(name: str, runs: Path) -> dict[str, Path]:
    """drill → run folder, of a run folder, a pack, a folder of runs, or the name of a world (whose newest runs under
    ``runs`` are meant). Of several runs of one drill the newest that completed counts. Raises Unusable."""
    folder = Path(name)
    if name in WORLDS and not folder.is_dir():
        found = _newest((each for each in _folders(runs)), name)
        if not found:
            raise Unusable(f"{runs}: no completed run of the world {name} there")
        return found
    if (folder / RECORDING).is_file():
        return {Side.read(folder).drill: folder}
    if name in NAMED and not folder.exists():
        raise Unusable(f"{name}: stands for a pack; expected a pack beside it, and no --courses, or the folder of that pack")
    if not folder.is_dir():
        raise Unusable(f"{name}: {'is no folder' if folder.exists() else 'no such folder'}; expected a run folder, a pack, a "
                       f"folder of runs, a world ({', '.join(WORLDS)}), or one of {', '.join(NAMED)}"
                       + ("" if folder.exists() else hint(name, (*WORLDS, *NAMED))))
    found = _newest(_folders(folder / PACKED if (folder / PACKED).is_dir() else folder), None)
    if not found:
        raise Unusable(f"{name}: no completed run lies there")
    return found


def unpaired(a: Mapping[str, Path], b: Mapping[str, Path]) -> tuple[list[str], list[str]]:
    """The drills that one side lacks; and, in a line each, those that it lacks because they need another world."""
    alone, not_run = [], []
    worlds = [sorted({str(_peek(folder)[1]) for folder in side.values()}) for side in (a, b)]
    for drill in sorted(a.keys() ^ b.keys(), key=_number):
        folder, there = (a[drill], worlds[1]) if drill in a else (b[drill], worlds[0])
        needs = _meant_for(folder / "drill.yaml")
        if needs and not {*there} & {*needs}:
            not_run.append(f"NOT RUN in {', '.join(there)}: {drill}: needs {' or '.join(needs)}")
        else:
            alone.append(drill)
    return alone, not_run


def compared(a: Mapping[str, Path], b: Mapping[str, Path], drills: Sequence[str]) -> tuple[list[Comparison], list[str]]:
    """Each drill of both; and, in a line each, those that have no mode to be compared. Raises Unusable, also where no drill has
    one."""
    found, modeless = [], []
    for drill in drills:
        try:
            found.append(compare(Side.read(a[drill]), Side.read(b[drill])))
        except Modeless as why:
            if len(drills) == 1:
                raise
            modeless.append(f"NOT COMPARED: {drill}: nothing that it watches says a mode ({why})")
    if not found:
        raise Unusable(f"nothing to compare: {modeless[0]}")
    return found, modeless


def _meant_for(drill: Path) -> tuple[str, ...]:
    """The worlds that a run's drill names; none where it names none, or cannot be read."""
    try:
        return worlds_of(drill)
    except (OSError, UsageError):
        return ()


def _folders(parent: Path) -> Iterator[Path]:
    yield from (each for each in sorted(parent.iterdir() if parent.is_dir() else ()) if (each / RECORDING).is_file())


def _newest(folders: Iterator[Path], world: str | None) -> dict[str, Path]:
    """By when the recording was written: its last line is its seal."""
    newest: dict[str, tuple[int, Path]] = {}
    for folder in folders:
        drill, of_world, placebo = _peek(folder)
        written = (folder / RECORDING).stat().st_mtime_ns
        if drill is None or placebo or world not in (None, of_world) or not (folder / "verdict.json").is_file():
            continue
        if drill not in newest or written > newest[drill][0]:
            newest[drill] = written, folder
    return {drill: folder for drill, (_, folder) in sorted(newest.items(), key=lambda each: _number(each[0]))}


def _peek(folder: Path) -> tuple[str | None, str | None, bool]:
    """Drill, world and placebo of a run, from its tape's first line."""
    head = next(iter(read_lines(folder / RECORDING)), {})
    about = head.get("drill")
    name = about.get("name") if isinstance(about, dict) else None
    return (str(name) if name else None), head.get("world"), head.get("placebo") is True


def _number(drill: str) -> tuple[int, str]:
    found = re.match(r"[0-9]{1,9}", drill)
    return (int(found[0]) if found else 10**9), drill


# ---- telling ----------------------------------------------------------------------------------------------

TITLES = {"samples": "seen in the samples", "modes": "modes, as the system wrote them down",
          "latches": "the opening latch, as the system wrote it down"}


def render(comparison: Comparison, stream: TextIO) -> str:
    """Side by side: sign, when in A, when in B, the state."""
    word = console.painted("PASS" if comparison.agree else "FAIL", stream).replace("PASS", "agree").replace("FAIL", "differ")
    lines = [f"{word}  {comparison.drill} ({comparison.rests_on})"]
    lines += [f"  {name}  {_title(each)}  {console.shown(each['folder'])}"
              for name, each in (("A", comparison.a), ("B", comparison.b))]
    lines += [f"  note: {console.plain(each)}" for each in comparison.warnings]
    for name, rows in comparison.parts.items():
        cells = [["", "since", "A", "B", TITLES[name]]]
        cells += [[row.sign, row.since, _after(row.a), _after(row.b), console.plain(row.text)] for row in rows]
        lines += ["", console.table(cells, stream)] if rows else ["", f"{TITLES[name]}: nothing, in both"]
    signs = {row.sign for rows in comparison.parts.values() for row in rows}
    meaning = {ONLY_A: "< in A only", ONLY_B: "> in B only",
               BRIEF: "~ in one only, and shorter than sampling can tell: no difference"}
    if told := [text for sign, text in meaning.items() if sign in signs]:
        lines += ["", "; ".join(told)]
    return "\n".join(lines)


def _after(moment_ms: int | None) -> str:
    return "-" if moment_ms is None else f"{moment_ms:+d} ms"


def _title(about: Mapping[str, Any]) -> str:
    odd = ", placebo" * about["placebo"] + ", mutant" * bool(about["mutants"])
    return console.plain(f"{about['world']}, seed {about['seed']}, policy {about['policy']}{odd}")


def line(comparison: Comparison) -> list[str]:
    """One row of a table: agree or differ, drill, what it rests on, the first difference."""
    differing = (row for rows in comparison.parts.values() for row in rows if row.sign in (ONLY_A, ONLY_B))
    first = next((f"{row.sign} {row.text} ({row.since} {_after(row.b if row.a is None else row.a)})" for row in differing), "")
    states = len([row for row in comparison.parts["samples"] if row.sign == SAME])
    more = f", {comparison.brief} brief in one only" if comparison.brief else ""
    return ["agree" if comparison.agree else "differ", comparison.drill,
            first or f"{console.counted(states, 'state')} in the same order, {comparison.apart_ms} ms apart at most{more} "
            f"({comparison.rests_on})"]


def table(found: Sequence[Comparison], alone: Sequence[str], of_a: Collection[str], stream: TextIO) -> str:
    """A line a drill, and how to see one of them side by side."""
    rows = [["", "drill", "what was found"], *(line(each) for each in found),
            *(["alone", drill, f"in {'A' if drill in of_a else 'B'} only"] for drill in alone)]
    lines = [console.table([[console.plain(cell) for cell in row] for row in rows], stream)]
    lines += [f"note: {console.plain(each)}" for each in dict.fromkeys(warning for each in found for warning in each.warnings)]
    first = next((each for each in found if not each.agree), found[0])
    lines += ["", f"side by side: drillproof compare {console.shown(first.a['folder'])} {console.shown(first.b['folder'])}"]
    return "\n".join(lines)
