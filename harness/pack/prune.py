"""``prune``: take away old packs and run folders by ``evidence/retention.yaml``, and leave a trace of each in the run log.

What is taken away is first renamed (``.NAME.pruned``), then written into the run log, then deleted. Whoever is killed in
between leaves a folder of that name, which the next prune writes down and deletes; nothing is ever half there under its
own name, and nothing goes without its line in the chain.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from harness import texts
from harness.errors import UsageError
from harness.files import alone
from harness.pack.build import LOCK
from harness.pack.runlog import RUN_LOG_FILE, Attempt, RunLog, attempts, now_utc
from harness.pack.shelf import NAME, is_pack, is_sealed, manifest_sha256, read_pack
from harness.recording.sole import is_busy
from harness.texts import Spot

RETENTION_FILE = "retention.yaml"
RUNS = "runs"
GONE = "pruned"
PACK, RUN = "pack", "run"
BUSY = "being written"
DAY_S = 86_400
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Packs:
    keep_last: int = 14
    keep_days: int = 30
    total_mb: int = 4096


@dataclass(frozen=True, slots=True)
class Runs:
    keep_days: int = 7
    failed_days: int = 30
    total_mb: int = 4096


@dataclass(frozen=True, slots=True)
class Retention:
    """What may go. See ``evidence/retention.yaml`` for what each number means."""

    packs: Packs = Packs()
    runs: Runs = Runs()


@dataclass(frozen=True, slots=True)
class Thing:
    """A pack or a run folder: how old it is in whole days, how large, whether it goes, and why or why not."""

    kind: str
    folder: Path
    utc: str
    days: int
    bytes: int
    goes: bool = False
    safe: bool = False
    """never taken away, whatever else is asked"""
    why: str = ""

    def to_json(self) -> dict[str, object]:
        return {"kind": self.kind, "name": self.folder.name, "utc": self.utc, "days": self.days, "bytes": self.bytes,
                "goes": self.goes, "why": self.why}


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that was looked at, oldest first; ``left``: what an earlier prune renamed and did not delete."""

    things: tuple[Thing, ...]
    left: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def going(self) -> list[Thing]:
        return [each for each in self.things if each.goes]


# ---- the file ---------------------------------------------------------------------------------------------


def read_retention(file: Path) -> Retention:
    """Strictly: a key that is not known, twice, or no whole number is refused with its place. Raises TextError, OSError."""
    found = texts.settings(file, "what may go").known(("packs", "runs"))
    packs = _numbers(found["packs"], ("keep_last", "keep_days", "total_mb"), "keep_last") if "packs" in found else {}
    runs = _numbers(found["runs"], ("keep_days", "failed_days", "total_mb"), None) if "runs" in found else {}
    return Retention(replace(Packs(), **packs), replace(Runs(), **runs))


def _numbers(spot: Spot, names: tuple[str, ...], from_one: str | None) -> dict[str, int]:
    return {name: value.integer(int(name == from_one), 1_000_000, f"a whole number of at least {int(name == from_one)}")
            for name, value in spot.known(names).items()}


# ---- what goes --------------------------------------------------------------------------------------------


def plan(evidence: Path, retention: Retention, baselines: Collection[str], in_use: Callable[[Path], str | None]) -> Plan:
    """What would go and what stays; ``in_use`` says of a run folder why nobody may take it away."""
    now = datetime.fromisoformat(now_utc())
    notes: list[str] = []
    packs = list(_packs(evidence, retention.packs, baselines, now, notes))
    runs = list(_runs(evidence, retention.runs, now, in_use, notes))
    there = {each.folder.name for each in packs}
    notes += [f"the baseline {name} lies nowhere here" for name in sorted(set(baselines) - there)]
    things = [*_within(packs, retention.packs.total_mb, notes), *_within(runs, retention.runs.total_mb, notes)]
    return Plan(tuple(things), tuple(_left(evidence)), tuple(notes))


def _packs(evidence: Path, rule: Packs, baselines: Collection[str], now: datetime, notes: list[str]) -> Iterator[Thing]:
    found: dict[int, list[Thing]] = {}
    for folder in sorted(evidence.iterdir()) if evidence.is_dir() else ():
        named = NAME.fullmatch(folder.name)
        if named is None:
            continue
        told = read_pack(folder) if is_pack(folder) else "is no pack"
        if isinstance(told, str):
            notes.append(f"{folder.name}: {told}: left alone")
            continue
        found.setdefault(told.phase, []).append(_thing(PACK, folder, told.utc, now))
    for phase in sorted(found):
        newest_first = sorted(found[phase], key=_recent, reverse=True)
        decided = [_pack(each, place, rule, baselines) for place, each in enumerate(newest_first)]
        yield from reversed(decided)


def _recent(thing: Thing) -> tuple[str, bool, str]:
    """Of two packs of the same runs the one without a moment in its name is the newer."""
    return thing.utc, "." not in thing.folder.name, thing.folder.name


def _pack(thing: Thing, place: int, rule: Packs, baselines: Collection[str]) -> Thing:
    name = thing.folder.name
    if is_sealed(thing.folder):
        return replace(thing, safe=True, why="somebody vouched for it")
    if place == 0 or "." not in name:
        return replace(thing, safe=True, why="the newest of its phase")
    if name in baselines:
        return replace(thing, safe=True, why="the baseline of the budget")
    if thing.days < 0:
        return replace(thing, safe=True, why="its age cannot be told")
    if place < rule.keep_last:
        return replace(thing, why=f"among the last {rule.keep_last}")
    if thing.days < rule.keep_days:
        return replace(thing, why=f"younger than {rule.keep_days} days")
    return replace(thing, goes=True, why=f"older than {rule.keep_days} days, and {place} newer ones lie here")


def _runs(evidence: Path, rule: Runs, now: datetime, in_use: Callable[[Path], str | None], notes: list[str]) -> Iterator[Thing]:
    known = {each.run_id: each for each in attempts(RunLog(evidence / RUN_LOG_FILE).lines()) if each.log is None}
    newest = {(each.drill, each.world): each.run_id for each in known.values() if each.honest and each.kept}
    things = []
    for folder in sorted((evidence / RUNS).iterdir()) if (evidence / RUNS).is_dir() else ():
        attempt = known.get(folder.name)
        if attempt is None or folder.is_symlink() or not folder.is_dir():
            notes.append(f"{RUNS}/{folder.name}: the run log knows no such run: left alone")
            continue
        thing = _thing(RUN, folder, attempt.utc, now)
        things.append(_run(thing, attempt, rule, BUSY if is_busy(folder) else in_use(folder),
                           folder.name in newest.values()))
    yield from sorted(things, key=lambda each: (each.utc, each.folder.name))


def _run(thing: Thing, attempt: Attempt, rule: Runs, used: str | None, newest: bool) -> Thing:
    if used is not None:
        return replace(thing, safe=True, why=used)
    if newest:
        return replace(thing, safe=True, why="the newest run of its drill in its world")
    if thing.days < 0:
        return replace(thing, safe=True, why="its age cannot be told")
    days = rule.keep_days if attempt.came_of == "PASS" else rule.failed_days
    what = attempt.came_of if attempt.came_of != "PASS" else "passed"
    if thing.days < days:
        return replace(thing, why=f"younger than {days} days ({what})")
    return replace(thing, goes=True, why=f"older than {days} days ({what})")


def _within(things: Sequence[Thing], total_mb: int, notes: list[str]) -> list[Thing]:
    """The oldest go, too, until the rest takes no more than that; what is never taken away stays all the same."""
    rest = sum(each.bytes for each in things if not each.goes)
    decided = []
    for each in things:
        if rest > total_mb * MB and not each.goes and not each.safe:
            rest -= each.bytes
            each = replace(each, goes=True, why=f"all together take more than {total_mb} MB")
        decided.append(each)
    if rest > total_mb * MB:
        notes.append(f"the {things[0].kind}s that are never taken away take {rest // MB} MB, more than {total_mb}")
    return decided


def _thing(kind: str, folder: Path, utc: str, now: datetime) -> Thing:
    """Its age in whole days; -1 where nobody can tell."""
    try:
        age = now - datetime.fromisoformat(utc).astimezone(UTC)
        days = max(0, int(age.total_seconds()) // DAY_S)
    except ValueError:
        days = -1
    return Thing(kind, folder, utc, days, sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir()))


def _left(evidence: Path) -> Iterator[Path]:
    for place in (evidence, evidence / RUNS):
        yield from sorted(place.glob(f".*.{GONE}"))


# ---- taking away ------------------------------------------------------------------------------------------


def prune(evidence: Path, made: Callable[[], Plan], dry: bool) -> Plan:
    """Make a plan and carry it out, while nobody packs here. Raises OSError where something cannot be taken away."""
    if not evidence.is_dir():
        raise UsageError(f"{evidence}: no such folder")
    if dry:
        return made()
    with alone(evidence / LOCK):
        log = RunLog(evidence / RUN_LOG_FILE)
        for place in _left(evidence):
            _finish(log, place)
        _sweep(evidence)
        found = made()
        things = tuple(replace(each, goes=False, why=BUSY) if each.goes and not _take(log, each) else each
                       for each in found.things)
        return replace(found, things=things)


def _sweep(evidence: Path) -> None:
    """Notes of what was not renamed, or deleted already."""
    for place in (evidence, evidence / RUNS):
        for note in place.glob(f".*.{GONE}.json"):
            note.unlink()


def _take(log: RunLog, thing: Thing) -> bool:
    """Whether it went. What it was is kept with it until it is gone, so that whoever finishes this knows as much."""
    if is_busy(thing.folder):  # an equal run of the sim began in its folder meanwhile
        return False
    place, facts = thing.folder.with_name(f".{thing.folder.name}.{GONE}"), _facts(thing)
    _note_of(place).write_bytes(orjson.dumps(facts))
    thing.folder.rename(place)
    log.pruned(thing.folder.name, facts)
    _delete(place)
    return True


def _note_of(place: Path) -> Path:
    return place.with_name(f"{place.name}.json")


def _facts(thing: Thing) -> dict[str, object]:
    facts: dict[str, object] = {"what": thing.kind, "why": thing.why, "bytes": thing.bytes}
    return {**facts, "manifest_sha256": manifest_sha256(thing.folder)} if thing.kind == PACK else facts


def _finish(log: RunLog, place: Path) -> None:
    """What somebody who was killed had renamed: write it down unless it was written down already, then delete it."""
    name, note = place.name.removeprefix(".").removesuffix(f".{GONE}"), _note_of(place)
    facts: Mapping[str, Any] = orjson.loads(note.read_bytes()) if note.is_file() else {"what": "?", "why": "left half pruned"}
    if not _is_written(log, name, facts):
        log.pruned(name, facts)
    _delete(place)


def _delete(place: Path) -> None:
    shutil.rmtree(place)
    _note_of(place).unlink(missing_ok=True)


def _is_written(log: RunLog, name: str, facts: Mapping[str, Any]) -> bool:
    """Whether the log's last word about it is that it was pruned."""
    rows = [orjson.loads(line) for line in log.lines()]
    last: Mapping[str, Any] = next((row for row in reversed(rows) if row["run_id"] == name), {})
    return last.get("event") == "pruned" and all(last.get(key) == value for key, value in facts.items())
