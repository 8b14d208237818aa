"""From run folders to ``evidence/phaseN/``: copy the inputs, derive the pages, list everything, rename.

A pack is written under a temporary name and appears whole or not at all. The former pack is kept beside it as
``phaseN.<utc>``; nothing here ever deletes or overwrites one. Runs that do not belong together, or were
interrupted, are refused by name: a pack speaks of one build, one policy and one set of rules.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from harness.drill.text import worlds_of
from harness.errors import PackError, UsageError, hint
from harness.files import alone
from harness.pack.derive import DRILLS, FORMAT, PACK_FILE, RULES, RUN_LOG, STREAMS, derive, drill_folders, folder_name
from harness.pack.inputs import Run, altered_since, first_prev, last_digest, mixed, told_otherwise, wrong_with
from harness.pack.listing import MANIFEST, drill_order, encode, make_manifest
from harness.pack.manifest import examine, made_by
from harness.pack.matrix import FOLDER, MATRIX_FILE, newest
from harness.pack.origin import RUN_FILES, sha256_file
from harness.pack.phases import OWN, Phase, drills_of, load_phase, pack_name, set_of
from harness.pack.runlog import RUN_LOG_FILE, RunLog, attempts, now_utc, whole_lines
from harness.pack.seals import attest, key_id
from harness.pack.story import read_json
from harness.recording.sole import is_busy, settled

FORMER_MAX = 99
LOCK = ".pack.lock"
"""One pack at a time is made, signed or moved in an evidence folder."""


def newest_runs(runs: Path, phase: int, world: str, root: Path, own: Sequence[Path] | None = None,
                sets: Sequence[str] = ()) -> list[Path]:
    """The newest attempt of each drill of a phase (of these of its sets, where some are named), or of the files ``own``, in
    a world, as the run log has it, in the drills' order.

    Placebo runs and mutants are no attempts at the phase. An attempt that never ended is still the newest one:
    ``build`` refuses it by name, and nobody slides back to an older success unseen. What PASSED in a sweep over
    seeds and was thrown away cannot be packed; the run log's slice tells of it all the same.
    """
    known = load_phase(root, phase).sets if sets else ()
    for name in sets:
        if name not in known:
            raise UsageError(f"--sets: no set {name!r} in phase {phase}, expected one of {', '.join(known)}"
                             f"{hint(name, known)}")
    files = own if own is not None else [each for each in drills_of(root, phase) if not sets or set_of(root, each) in sets]
    names = sorted((file.stem for file in files), key=drill_order)
    newest: dict[str, Path] = {}
    for each in attempts(RunLog(runs.parent / RUN_LOG_FILE).lines()):
        if is_busy(runs / each.run_id):  # another command's run that is going on now: its own pack will tell of it
            continue
        if each.drill in names and each.world == world and each.honest and each.kept and each.log is None:
            newest[each.drill] = runs / each.run_id
    if not newest:
        whose = "your own drills" if own is not None else f"phase {phase}"
        named = "drills" if own is not None else " ".join(load_phase(root, phase).sets)
        raise UsageError(f"{runs}: no run of {whose} in the world {world}; run `drillproof run {named} --world {world}`")
    return [newest[name] for name in names if name in newest]


def left_out(pack: Path) -> list[str]:
    """A line for each drill of the phase that a pack is without because it needs another world."""
    about = read_json(pack / PACK_FILE)
    world = Run.read(drill_folders(pack)[0]).head["world"]
    return [f"NOT RUN in {world}: {drill}: needs {' or '.join(worlds)}" for drill, worlds in about["left_out"].items()]


def of_another_text(pack: Path) -> list[str]:
    """A line for each drill of a pack of which another text ran than lay under its name when the pack was made."""
    return [f"ANOTHER TEXT: {drill}: run it again: the drill of this name has another text now"
            for drill in read_json(pack / PACK_FILE)["other_text"]]


def build(runs: list[Path], phase: int, out: Path, root: Path, own: Sequence[Path] | None = None) -> Path:
    """Make ``out/phaseN`` of these run folders, whose drills are those of the phase, or the files ``own``; returns it. Raises
    PackError, naming every run that is refused."""
    load_phase(root, phase)
    with ExitStack() as stack:
        for folder in runs:
            stack.enter_context(settled(folder))
        return _build(runs, phase, out, root, drills_of(root, phase) if own is None else own)


def _build(runs: list[Path], phase: int, out: Path, root: Path, drills: Sequence[Path]) -> Path:
    told = [Run.read(folder) for folder in runs]
    if refused := refusals(told, root):
        raise PackError(f"no pack was made: {'; '.join(refused)}")
    out.mkdir(parents=True, exist_ok=True)
    with alone(out / LOCK):
        _sweep(out, pack_name(phase))
        log = RunLog(out / RUN_LOG_FILE)
        place = Path(tempfile.mkdtemp(prefix=f".{pack_name(phase)}.", suffix=".partial", dir=out))
        try:
            place.chmod(0o755)
            _copy_inputs(told, place, root)
            matrix = newest(out / FOLDER, [run.head for run in told], made_by()["harness"])
            if matrix is not None:
                _write(place, MATRIX_FILE, matrix.data)
            about = _about(told, load_phase(place / RULES, phase), root, drills)
            about["run_log"] = _cut_log(log, told, pack_name(phase), place)
            _write(place, PACK_FILE, encode({**about, "mutants": matrix.sha256 if matrix else None}))
            _finish(place, believing=True)
            log.packed(pack_name(phase), sha256_file(place / MANIFEST))  # first, so that no pack stands unknown to it
            return _put(place, out / pack_name(phase))
        finally:
            shutil.rmtree(place, ignore_errors=True)  # after a rename there is nothing left to remove


def seal(pack: Path, key: Ed25519PrivateKey, signed_at: str | None = None) -> None:
    """Attest an intact, unsealed pack: the pages say so from line 1 on, then the manifest is signed.

    The unsealed one is kept beside like any former pack, so that a power cut in between loses nothing.
    Raises PackError for a pack that is altered or sealed already.
    """
    found = examine(pack)
    if found.findings:
        raise PackError(f"{pack}: cannot be sealed: {found.findings[0]}")
    if found.about.get("sealed_by") is not None:
        raise PackError(f"{pack}: is sealed already; a sealed pack is never changed")
    with alone(pack.parent / LOCK):
        _sweep(pack.parent, pack.name)
        place = Path(tempfile.mkdtemp(prefix=f".{pack.name}.", suffix=".partial", dir=pack.parent))
        try:
            shutil.copytree(pack, place, dirs_exist_ok=True)
            _write(place, PACK_FILE, encode({**found.about, "sealed_by": key_id(key.public_key())}))
            _finish(place)
            attest(place, key, signed_at or now_utc())
            place.chmod(0o755)
            if (pack.parent / RUN_LOG_FILE).is_file():
                RunLog(pack.parent / RUN_LOG_FILE).sealed(pack.name, sha256_file(place / MANIFEST))
            _put(place, pack)
        finally:
            shutil.rmtree(place, ignore_errors=True)


# ---- what is refused --------------------------------------------------------------------------------------


def refusals(runs: list[Run], root: Path) -> list[str]:
    """Everything that keeps these runs from being one pack."""
    return [*_refusals(runs), *_rules_changed(runs, root)]


def _refusals(runs: list[Run]) -> Iterator[str]:
    if not runs:
        yield "there are no runs"
        return
    for run in runs:
        for name, why in wrong_with(run):
            yield f"{run.folder}: {name} {why}"
        if "run_id" not in run.versions:
            yield f"{run.folder}: versions.json has no run_id"
    for word, groups in mixed(runs).items():
        yield f"mixed: {len(groups)} values of {word}: " + " · ".join(
            f"{value[:12]} in {', '.join(run.folder.name for run in members)}" for value, members in groups.items())
    for folder, count in Counter(folder_name(run.drill) for run in runs).items():
        if count > 1:
            yield f"{count} runs would lie in {folder}: name the one that counts"


def _rules_changed(runs: list[Run], root: Path) -> Iterator[str]:
    """The rules are copied from the checkout, so they must still be those of the runs."""
    rules = runs[0].head.get("rules") if runs else None
    for path, digest in sorted((rules or {}).items() if isinstance(rules, Mapping) else ()):
        file = _rule(path, runs[0], root)
        if not file.is_file() or sha256_file(file) != digest:
            yield f"{path}: has changed since the runs, which must be judged by the rules they were made for"


# ---- writing ----------------------------------------------------------------------------------------------


def _rule(path: str, run: Run, root: Path) -> Path:
    """Where a rule lies: in the checkout, or beside the run where its stack brought it along."""
    return (run.folder if path.startswith("own/") else root) / path


def _copy_inputs(runs: list[Run], place: Path, root: Path) -> None:
    for run in runs:
        folder = place / DRILLS / folder_name(run.drill)
        (folder / STREAMS).mkdir(parents=True)
        for name in RUN_FILES:
            shutil.copyfile(run.folder / name, folder / name)
        for stream in (run.recorded.seal or {}).get("streams", {}):
            shutil.copyfile(run.folder / STREAMS / f"{stream}.jsonl", folder / STREAMS / f"{stream}.jsonl")
        if not any((folder / STREAMS).iterdir()):
            (folder / STREAMS).rmdir()
    first = runs[0]
    for path in first.head["rules"]:
        _write(place, f"{RULES}/{path}", _rule(path, first, root).read_bytes())
    for name in ("stack.yaml", "policy.json"):
        _write(place, f"{RULES}/{name}", (first.folder / name).read_bytes())


def _about(runs: list[Run], phase: Phase, root: Path, drills: Sequence[Path]) -> dict[str, Any]:
    """``drills``: the files that lie there now, of the phase or of a system of one's own."""
    left_out = _left_out(runs, drills)
    return {"format": FORMAT, "phase": phase.number, "sealed_by": None, "made_by": made_by(),
            "runs": {folder_name(run.drill): run.run_id for run in runs}, "left_out": left_out,
            "not_run": _not_run(runs, phase, drills, left_out), "other_text": _other_text(runs, drills),
            "sets": {} if phase.number == OWN else _sets(runs, root, drills)}


def _sets(runs: list[Run], root: Path, drills: Sequence[Path]) -> dict[str, str]:
    """Drill → the set that it belongs to; strangers belong to none."""
    names = {run.drill for run in runs}
    return {file.stem: set_of(root, file) for file in drills if file.stem in names}


def _left_out(runs: list[Run], drills: Sequence[Path]) -> dict[str, list[str]]:
    """The drills that are not meant for the world of these runs, and those that they are meant for."""
    world, present = runs[0].head.get("world"), {run.drill for run in runs}
    meant: dict[str, list[str]] = {file.stem: list(worlds_of(file)) for file in drills if file.stem not in present}
    return {drill: worlds for drill, worlds in meant.items() if worlds and world not in worlds}


def _not_run(runs: list[Run], phase: Phase, drills: Sequence[Path], left_out: Mapping[str, Any]) -> list[str]:
    """The drills, and those that the phase's items name, that are meant for the world and that nobody ran."""
    names = dict.fromkeys([*(file.stem for file in drills), *phase.drills])
    return [name for name in names if name not in left_out and name not in {run.drill for run in runs}]


def _other_text(runs: list[Run], drills: Sequence[Path]) -> list[str]:
    """Of which drills another text ran than lies there under the name: a stranger's, or one that was edited since. A name
    that no drill has there is nobody's."""
    texts = {file.stem: sha256_file(file) for file in drills}
    return [run.drill for run in runs if run.drill in texts and run.head["drill"]["sha256"] != texts[run.drill]]


def _cut_log(log: RunLog, runs: list[Run], name: str, place: Path) -> dict[str, Any] | None:
    """Write the slice of the run log since the last pack, reaching back as far as the oldest run in this one, and as the last
    placebo of its drills that passed: packing once more must not make it forgotten."""
    before, since = log.since_pack(name)
    everything = [*before, *since]
    _must_go_on(log, everything, place.with_name(name))
    if not everything:
        return None
    start = min([len(before), *(_began(everything, run) for run in runs), *_hollow(everything, runs)])
    earlier, part = everything[:start], everything[start:]
    _write(place, RUN_LOG, b"".join(line + b"\n" for line in part))
    counts = Counter(each.came_of for each in attempts(earlier))
    return {"after": first_prev(part), "lines": len(part), "last": last_digest(part),
            "earlier": {"started": sum(counts.values()), **counts}}


def _must_go_on(log: RunLog, lines: list[bytes], former: Path) -> None:
    """A log that holds some of what stands in the former pack must hold all of it: one that was cut forgets what was tried.
    One that holds nothing of it is another place's, as where a pack was committed and the repository cloned."""
    told = read_json(former / PACK_FILE).get("run_log")
    before, last = (str(told.get(end)) if isinstance(told, Mapping) else "" for end in ("after", "last"))
    stood = whole_lines((former / RUN_LOG).read_bytes()) if (former / RUN_LOG).is_file() else []
    present = {last_digest([line]) for line in lines}
    if last not in present and present & {before, *(last_digest([line]) for line in stood)}:
        raise PackError(f"no pack was made: {former}: {log.file} no longer holds the last line that stands in its {RUN_LOG}: "
                        "put back the log that it was made with, or move the pack elsewhere")


def _began(lines: list[bytes], run: Run) -> int:
    """The line on which a run began. Raises PackError for a run that the log does not know as it is."""
    digest = run.recorded.sha256
    for attempt in reversed(attempts(lines)):
        if attempt.run_id == run.run_id and attempt.recording_sha256 == digest:
            if other := told_otherwise(run, attempt):
                raise PackError(f"no pack was made: {run.folder}: the run log tells another {other} of it than the run does")
            if altered := next(altered_since(run, attempt, str(run.folder)), None):
                raise PackError(f"no pack was made: {altered.path}: {altered.message}: run it again")
            return attempt.n - 1
    raise PackError(f"no pack was made: {run.folder}: the run log knows no run {run.run_id} with this recording")


def _hollow(lines: list[bytes], runs: list[Run]) -> list[int]:
    """The lines on which the last placebos began that prove a drill hollow whose very file is in this pack."""
    last = {each.drill_sha256: each.n - 1 for each in attempts(lines) if each.hollow}
    return [last[sha256] for run in runs if (sha256 := (run.head.get("drill") or {}).get("sha256")) in last]


def _finish(place: Path, believing: bool = False) -> None:
    """Derive the pages and list every file; the manifest comes last, synced."""
    for path, data in derive(place, believing).files.items():
        _write(place, path, data)
    manifest = place / MANIFEST
    manifest.unlink(missing_ok=True)
    data = make_manifest(place)
    with manifest.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _write(place: Path, path: str, data: bytes) -> None:
    file = place / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def _sweep(out: Path, name: str) -> None:
    """Take away what a killed pack left half made; nobody else makes one meanwhile."""
    for place in out.glob(f".{name}.*.partial"):
        shutil.rmtree(place)


def _put(place: Path, target: Path) -> Path:
    """Give the pack its name; a former one is kept under the moment in which it was replaced."""
    if target.exists():
        stamp = now_utc().replace("-", "").replace(":", "")
        names = [f"{target.name}.{stamp}", *(f"{target.name}.{stamp}-{n}" for n in range(2, FORMER_MAX))]
        target.rename(next(target.with_name(name) for name in names if not target.with_name(name).exists()))
    place.rename(target)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return target
