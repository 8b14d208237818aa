"""``pack --merge``: what several machines ran of one phase, joined into one pack that verifies.

A shard is what ``drillproof run --shard K/N`` left under ``--out``: its run log beside a pack of its part (``pack N``), or
beside its run folders. Nothing of a shard is believed before it was looked at as ``verify`` looks; whatever does not
belong together is refused by name, all of it at once, and then nothing is written. The run logs are taken in line by
line, word for word, each chain whole within that of the place where the pack is made (``RunLog.join``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import PackError, UsageError
from harness.pack.build import build, newest_runs, refusals
from harness.pack.derive import PACK_FILE, RUN_LOG, drill_folders
from harness.pack.inputs import Run, altered_since, last_digest, told_otherwise
from harness.pack.listing import Finding, drill_order
from harness.pack.manifest import examine, made_by, verify
from harness.pack.phases import drills_of, pack_name
from harness.pack.runlog import RUN_LOG_FILE, Attempt, RunLog, attempts, check_chain, has_joined, whole_lines
from harness.pack.story import read_json
from harness.recording.timeline import read_yaml

RUNS = "runs"
PACKS = re.compile(r"phase([0-9]{1,4})")


@dataclass(frozen=True, slots=True)
class Shard:
    """One part of a phase: where it lies, its runs, its log, and what is wrong with it on its own."""

    place: Path
    runs: tuple[Run, ...]
    log: tuple[bytes, ...]
    phase: int | None
    """of its pack; None where there are only run folders"""
    harness: Mapping[str, Any] | None
    """the build that made its pack"""
    findings: tuple[Finding, ...] = ()


def merge(places: Sequence[Path], phase: int | None, out: Path, root: Path) -> Path:
    """Make ``out/phaseN`` of these shards; returns it. Raises PackError with everything that is refused."""
    shards = [read_shard(place, phase, root) for place in places]
    phases = {each.phase for each in shards if each.phase is not None} | ({phase} if phase is not None else set())
    if not phases:
        raise UsageError("no shard is a pack, so none says of which phase it is: drillproof pack N --merge …")
    number = min(phases)
    runs, log = [run for shard in shards for run in shard.runs], RunLog(out / RUN_LOG_FILE)
    refused = [*(f"{shard.place}: {finding}" for shard in shards for finding in shard.findings)]
    if not refused:  # what was altered says nothing about what belongs together
        refused += [*_of_another_phase(shards, phases), *_refused(shards, runs),
                    *_copies(shards, log), *_twice(shards, log), *_outranked(shards, log, number),
                    *(_missing(runs, number, root) if len(phases) == 1 else ()), *refusals(runs, root)]
    if refused:
        raise PackError(f"no pack was made: {'; '.join(dict.fromkeys(refused))}")
    for shard in [each for each in shards if not _is_home(each, log)]:  # which knows its own past already, in its own order
        log.join(shard.place.name, shard.log)
    made = build([run.folder for run in runs], number, out, root)
    if found := verify(made):
        raise PackError(f"{made}: was made, and does not verify: {found[0]}")
    return made


# ---- one shard --------------------------------------------------------------------------------------------


def read_shard(place: Path, phase: int | None, root: Path) -> Shard:
    """A pack, a folder with a pack and its log, or one with runs and their log. Raises UsageError where there is none."""
    pack = place if (place / PACK_FILE).is_file() else _pack_in(place, phase)
    if pack is not None:
        return _of_pack(place, pack)
    if (place / RUNS).is_dir() and (place / RUN_LOG_FILE).is_file():
        return _of_runs(place, phase, root)
    raise UsageError(f"{place}: no shard lies there; expected a pack, or a folder with {RUN_LOG_FILE} and a pack or {RUNS}/")


def _pack_in(place: Path, phase: int | None) -> Path | None:
    found = [each for each in sorted(place.iterdir() if place.is_dir() else ()) if PACKS.fullmatch(each.name)]
    found = [each for each in found if phase is None or each.name == pack_name(phase)]
    if len(found) > 1:
        raise UsageError(f"{place}: holds packs of {len(found)} phases: drillproof pack N --merge …")
    return found[0] if found else None


def _of_pack(place: Path, pack: Path) -> Shard:
    """The log beside a pack tells more than the slice in it; where a pack lies alone, the slice must be the whole log."""
    looked = examine(pack)
    about = read_json(pack / PACK_FILE)
    beside = pack.parent / RUN_LOG_FILE
    if looked.findings:
        return Shard(place, (), (), None, None, tuple(_within(pack, place, each) for each in looked.findings))
    runs = tuple(Run.read(folder) for folder in drill_folders(pack))
    log = _lines(beside) if beside.is_file() else _lines(pack / RUN_LOG)
    findings = tuple(_wrong_with_log(log, runs, altered=False))
    return Shard(place, runs, tuple(log), about.get("phase"), about.get("made_by"), findings)


def _of_runs(place: Path, phase: int | None, root: Path) -> Shard:
    log = _lines(place / RUN_LOG_FILE)
    if broken := check_chain(log):
        return Shard(place, (), (), None, None, tuple(broken))
    if phase is None:
        raise UsageError(f"{place}: holds runs and no pack, so it does not say of which phase: drillproof pack N --merge …")
    worlds = sorted({each.world for each in attempts(log) if each.honest and each.log is None})
    if len(worlds) != 1:
        raise UsageError(f"{place}: holds runs of {', '.join(worlds) or 'no world'}; expected those of one")
    runs = tuple(Run.read(folder) for folder in newest_runs(place / RUNS, phase, worlds[0], root))
    return Shard(place, runs, tuple(log), None, None, tuple(_wrong_with_log(log, runs, altered=True)))


def _lines(file: Path) -> list[bytes]:
    """The whole lines of a log; one whose writer died within a line announced a run that never began."""
    data = file.read_bytes() if file.is_file() else b""
    return whole_lines(data[:data.rfind(b"\n") + 1])


def _within(pack: Path, place: Path, finding: Finding) -> Finding:
    inside = pack.relative_to(place).as_posix() if pack != place else ""
    return Finding(finding.tag, f"{inside}/{finding.path}".strip("/"), finding.message)


def _wrong_with_log(log: Sequence[bytes], runs: Sequence[Run], altered: bool) -> Iterator[Finding]:
    """The log must be whole from its first line on, of this one machine, and know every run as it is."""
    if not log:
        yield Finding("RUNLOG", RUN_LOG_FILE, "there is no run log: nobody can tell how often it was tried")
        return
    if broken := check_chain(log):
        yield Finding("RUNLOG", RUN_LOG_FILE, f"is not whole from its beginning on ({broken[0].message})")
        return
    if has_joined(log):
        yield Finding("RUNLOG", RUN_LOG_FILE, "is joined of several already: merge the shards themselves")
        return
    known = {(each.run_id, each.recording_sha256): each for each in attempts(log)}
    for run in runs:
        attempt = known.get((run.run_id, run.recorded.sha256))
        if attempt is None:
            yield Finding("RUNLOG", RUN_LOG_FILE, f"knows no run {run.run_id} with this recording")
        elif other := told_otherwise(run, attempt):
            yield Finding("RUNLOG", RUN_LOG_FILE, f"tells another {other} of the run {run.run_id} than the run does")
        elif altered:
            yield from altered_since(run, attempt, f"{RUNS}/{run.folder.name}")


# ---- what does not belong together ------------------------------------------------------------------------


def _of_another_phase(shards: Sequence[Shard], phases: set[int]) -> Iterator[str]:
    if len(phases) > 1:
        yield "mixed: phases " + " · ".join(f"{shard.phase} in {shard.place}" for shard in shards if shard.phase is not None)


def _refused(shards: Sequence[Shard], runs: Sequence[Run]) -> Iterator[str]:
    logs: dict[bytes, Path] = {}
    for shard in shards:
        if shard.log and shard.log[0] in logs:
            yield f"{shard.place}: has the run log of {logs[shard.log[0]]}: one shard twice"
        logs.setdefault(shard.log[0], shard.place)
        if shard.harness is not None and shard.harness != made_by():
            yield f"{shard.place}: mixed: its pack was made by another build of drillproof than the one at hand"
    yield from _worlds(runs)


def _worlds(runs: Sequence[Run]) -> Iterator[str]:
    worlds: dict[str, list[str]] = {}
    for run in runs:
        worlds.setdefault(str(run.head.get("world")), []).append(run.drill)
    if len(worlds) > 1:
        yield f"mixed: {len(worlds)} worlds: " + " · ".join(f"{world} in {', '.join(names)}" for world, names in worlds.items())


def _twice(shards: Sequence[Shard], log: RunLog) -> Iterator[str]:
    """A drill in two shards; also one that another shard only tried since what was joined before: of two machines nobody
    can say which was last."""
    home = {run.drill: shard for shard in shards for run in shard.runs}
    world = next((run.head.get("world") for shard in shards for run in shard.runs), None)
    for shard in shards:
        own = {run.drill for run in shard.runs}
        yield from (f"{name} twice: in {shard.place} and in {home[name].place}" for name in own if home[name] is not shard)
        for each in attempts(log.not_joined(shard.log)):
            if each.honest and each.world == world and each.drill in home.keys() - own:
                yield (f"{each.drill} twice: its run lies in {home[each.drill].place}, and {shard.place} tried it, too "
                       f"({each.run_id})")


def _is_home(shard: Shard, log: RunLog) -> bool:
    """Whether a shard is the place itself where the pack is made: its log is that of the place, line for line."""
    return shard.log == tuple(log.lines())


def _copies(shards: Sequence[Shard], log: RunLog) -> Iterator[str]:
    """A shard that was copied from the place where the pack is made, before or after the place went on: the same runs would
    stand in its log twice, and what came after them here before what they are now."""
    first = log.lines()[:1]
    for shard in shards:
        if first and shard.log[:1] == tuple(first) and not _is_home(shard, log):
            yield (f"{shard.place}: is a copy of the place where the pack is made: its run log begins as {log.file} does, and "
                   "goes on otherwise")


def _outranked(shards: Sequence[Shard], log: RunLog, phase: int) -> Iterator[str]:
    """What did not pass in the place where the pack is made, or in a log that was joined there before: whatever is joined now
    stands later, so a PASS of a shard would outrank it, however old that is. What a pack of the place tells of already is
    outranked by a later run alone. Of what a shard's own log told before, that log's own order decides."""
    before, since = log.since_pack(pack_name(phase))
    bad = [each for each in attempts((*before, *since)) if each.honest and each.came_of != "PASS"]
    for shard in shards:
        home, own = _is_home(shard, log), last_digest(list(shard.log[:1]))
        for run, mine in _began(shard):
            for each in bad:
                if each.log == own or not _is_of(run, each):
                    continue
                where = "here" if each.log is None else "in a log that was joined here"
                twice = f"{each.drill} twice: its run lies in {shard.place}, and {where} it came to {each.came_of}"
                if each.n > mine.n if home else each.utc >= mine.utc:
                    yield f"{twice} after that run began ({each.run_id}, {each.utc}): run it again"
                elif not home and each.log is None and each.n > len(before):
                    yield f"{twice} since the last pack ({each.run_id}): `drillproof pack {phase}` tells of that first"


def _began(shard: Shard) -> Iterator[tuple[Run, Attempt]]:
    """Each run of a shard with what its log says of it."""
    known = {(each.run_id, each.recording_sha256): each for each in attempts(shard.log)}
    yield from ((run, known[run.run_id, run.recorded.sha256]) for run in shard.runs)


def _is_of(run: Run, attempt: Attempt) -> bool:
    """Whether an attempt was at the same drill in the same world with the same build as a run."""
    return (attempt.drill, attempt.world) == (run.drill, run.head.get("world")) \
        and attempt.of_build(run.head, (run.versions.get("git") or {}).get("commit"))


def _missing(runs: Sequence[Run], phase: int, root: Path) -> Iterator[str]:
    """The whole set that is meant for the world, and nothing else."""
    world, present = str(runs[0].head.get("world")) if runs else "", {run.drill for run in runs}
    meant = [file.stem for file in drills_of(root, phase) if world in (read_yaml(file).get("worlds") or [world])]
    if missing := [name for name in meant if name not in present]:
        yield f"missing: {', '.join(missing)}"
    if strange := sorted(present - set(meant), key=drill_order):
        yield f"no drill of phase {phase} in the world {world}: {', '.join(strange)}"
