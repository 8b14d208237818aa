"""``drillproof mutants``: what no drill has ever caught, no drill can be trusted to catch.

Runs drills against every sabotage of a catalogue, and against the healthy system as a control, and says which check of
which drill noticed. A catalogue belongs to the system under test and is read as data: the stack file names it (key
``mutants``), or ``--catalogue`` does. It says which node is spoiled, where the factories lie, and for each sabotage
the drill and the check that must FAIL, with words that must stand in its sentence.

What a run leaves on the disk is looked at and thrown away; the matrix of all that the stack names is kept, because a pack
holds it.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson

from harness import console, files, limits, own, session, texts
from harness.drill.text import Specs, load
from harness.errors import UsageError, hint
from harness.fleet import Fleet
from harness.pack import matrix as matrices
from harness.pack.inputs import content_sha256
from harness.pack.listing import encode
from harness.pack.manifest import made_by
from harness.pack.matrix import Matrix
from harness.pack.origin import recorder_sha256, rules_digests, sha256_file
from harness.pack.runlog import now_utc
from harness.recording.tape import canonical
from harness.selection import every_drill
from harness.session import ROOT, Order, Result
from harness.world.stack import Stack, load_stack, policy_sha256

FIELDS = frozenset({"name", "organ", "machine", "drill", "caught_by", "says", "sentence"})
"""Of a row; and ``node``, where it spoils another one than the catalogue's."""
GROUPS = ("promises", "golden", "laws")
"""Checks that accuse the system; a premise that FAILs says that the run itself was none."""
SHOWN = 16
"""Hexadecimal digits of a recording's digest: enough to tell whether a repetition gave the same."""
WORK = ".work-"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One sabotage, as the catalogue has it. ``machine`` is ``module:function``, whole."""

    name: str
    organ: str
    node: str
    machine: str
    drill: str
    check: str
    says: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The sabotages of a stack."""

    file: Path
    mutants: tuple[Mutant, ...]
    sha256: str


def read_catalogue(file: Path, stack: Stack) -> Catalogue:
    """Raises UsageError, naming the row that is wrong."""
    try:
        data = texts.read(file, limits.SPEC_FILE_BYTES_MAX)
        raw: Any = texts.load(data, str(file))
        node, package, rows = raw["node"], raw["package"], raw["mutants"]
    except (OSError, KeyError, TypeError) as why:
        raise UsageError(f"{file}: cannot be read as a catalogue of mutants (node, package, mutants): {why}") from why
    if not isinstance(rows, list) or not rows:
        raise UsageError(f"{file}: names no mutant")
    mutants = tuple(_mutant(file, number, row, node, package) for number, row in enumerate(rows, 1))
    for spoiled in (node, *(each.node for each in mutants)):
        if spoiled not in stack.nodes:
            raise UsageError(f"{file}: no node {spoiled!r} in {stack.file}; known: {', '.join(stack.nodes)}")
    for what in ("name", "machine"):
        told = [getattr(each, what) for each in mutants]
        if twice := next((each for each in told if told.count(each) > 1), None):
            raise UsageError(f"{file}: two mutants have the {what} {twice!r}")
    return Catalogue(file, mutants, hashlib.sha256(data).hexdigest())


def _named_by(stack: Stack) -> str | None:
    """The digest of the catalogue that a stack names; None where there is none."""
    return sha256_file(stack.mutants) if stack.mutants is not None and stack.mutants.is_file() else None


def _mutant(file: Path, number: int, row: Any, node: str, package: str) -> Mutant:
    told = row if isinstance(row, dict) else {}
    if set(told) - {"node"} != FIELDS or not all(isinstance(each, str) and each.strip() for each in told.values()):
        raise UsageError(f"{file}: mutant {number}: expected the texts {', '.join(sorted(FIELDS))}, and node where it spoils "
                         f"another one; found {row!r}")
    return Mutant(row["name"], row["organ"], row.get("node", node), f"{package}.{row['machine']}", row["drill"],
                  row["caught_by"], row["says"], row["sentence"])


# ---- what to run ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about a matrix that is known before it is made."""

    stack: Stack
    catalogue: Catalogue
    drills: Mapping[str, Path]
    mutants: tuple[Mutant, ...]
    """those whose own drill is among the drills, in the catalogue's order"""
    world: str
    policy: str
    seed: int
    quick: bool
    left_out: int = 0
    """mutants of the catalogue that were not asked for"""

    @property
    def sets(self) -> dict[str, str]:
        """drill → the folder that it lies in: a sabotage is tried under the drills that lie beside its own."""
        return {name: file.parent.name for name, file in self.drills.items()}

    @property
    def cells(self) -> list[tuple[Mutant | None, str]]:
        """(who, drill): the healthy system first, then each sabotage under its own drill, then under those beside it."""
        healthy: list[tuple[Mutant | None, str]] = [(None, drill) for drill in self.drills]
        others = [] if self.quick else [(each, drill) for each in self.mutants for drill in self.drills
                                        if drill != each.drill and self.sets[drill] == self.sets[each.drill]]
        return [*healthy, *((each, each.drill) for each in self.mutants), *others]

    @property
    def unkept(self) -> str | None:
        """Why its matrix is not kept, because it would pass for one of all that the stack names; None where it is."""
        if self.left_out:
            return f"{console.counted(self.left_out, 'sabotage')} left out"
        return None if self.catalogue.sha256 == _named_by(self.stack) else \
            f"its catalogue is not the one that {console.shown(self.stack.file)} names under `mutants`"

    def orders(self, runs: Path) -> list[Order]:
        return [Order(str(self.drills[drill]), self.world, self.seed, str(self.stack.file), self.policy,
                      str(runs / f"{number}" / "runs"), machines={who.node: who.machine} if who else {})
                for number, (who, drill) in enumerate(self.cells)]


def plan(stack_file: Path, catalogue: Path | None, drill_files: Sequence[Path], only: Sequence[str], *, world: str, policy: str,
         seed: int, quick: bool) -> Plan:
    """Read stack, catalogue and drills, and choose. Raises UsageError for what cannot be run."""
    stack = load_stack(stack_file)
    file = catalogue or stack.mutants
    if file is None:
        raise UsageError(f"{stack_file}: names no catalogue of mutants (key `mutants`); give one with --catalogue FILE")
    found = read_catalogue(file, stack)
    specs = Specs.of(ROOT, stack, stack.policy(policy))
    drills = {load(file, specs).name: file for file in drill_files}
    beside = [*own.drills_of(stack).rglob("*.yaml"), *(each for file in drill_files for each in file.parent.glob("*.yaml"))]
    _must_be_drills(found, {*drills, *every_drill(), *(each.stem for each in beside)})
    chosen = tuple(each for each in found.mutants if each.drill in drills and _wanted(each, only))
    for word in only:
        if not any(_wanted(each, [word]) for each in found.mutants):
            known = [text for each in found.mutants for text in (each.name, each.organ)]
            raise UsageError(f"--only: no mutant or organ {word!r} in {found.file}{hint(word, known)}")
    if not chosen:
        raise UsageError(f"{found.file}: no mutant is left for these drills")
    if quick and only:
        drills = {name: file for name, file in drills.items() if any(each.drill == name for each in chosen)}
    return Plan(stack, found, drills, chosen, world, policy, seed, quick, len(found.mutants) - len(chosen))


def _must_be_drills(found: Catalogue, known: Collection[str]) -> None:
    """A sabotage whose own drill is none of these is run by nobody, whichever drills are asked for. Raises UsageError."""
    for number, each in enumerate(found.mutants, 1):
        if each.drill not in known:
            raise UsageError(f"{found.file}: mutant {number}: no drill {each.drill!r}{hint(each.drill, known)}")


def _wanted(mutant: Mutant, only: Sequence[str]) -> bool:
    return not only or any(word in (mutant.name, mutant.organ, mutant.machine) for word in only)


# ---- running ----------------------------------------------------------------------------------------------


class Watcher(Protocol):
    """Who is told how the matrix gets on."""

    def began(self, who: Mutant | None, drill: str) -> None: ...

    def ended(self, who: Mutant | None, cell: Mapping[str, Any], why: str | None) -> None:
        """``why``: for a sabotage under its own drill, why it was not caught; None elsewhere or when it was."""
        ...

    def tick(self) -> None: ...

    def stopping(self, how: str) -> None: ...

    def close(self) -> None: ...


@dataclass
class Made:
    """What came of it: a matrix, or none when it was interrupted."""

    matrix: Matrix | None
    interrupted: bool
    errors: list[int]


@dataclass
class _Table:
    """A fleet's watcher that keeps of each run what a row needs, and nothing else."""

    plan: Plan
    watcher: Watcher
    keep: Path | None
    cells: dict[int, dict[str, Any]] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    """machine → the sentence of the check that the catalogue names"""
    told: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.asked = self.plan.cells

    def __call__(self, index: int, word: str, facts: Mapping[str, Any]) -> None:
        who, drill = self.asked[index]
        if word == "starting":
            self.watcher.began(who, drill)
        if word == "done":
            self._keep(index, who, drill, facts["result"])

    def _keep(self, index: int, who: Mutant | None, drill: str, result: Result) -> None:
        folder = Path(result.recording) if result.recording else None
        cell = _cell(drill, result, folder)
        self.cells[index] = cell
        self.told[index] = result.says
        if who is not None and drill == who.drill:
            said = _sentence(folder, who.check)
            if said is not None:
                self.said[who.machine] = said
        if folder is not None:
            _put_away(folder, self.keep)
        self.watcher.ended(who, cell, self._why(who, drill, cell))

    def _why(self, who: Mutant | None, drill: str, cell: Mapping[str, Any]) -> str | None:
        if who is None or drill != who.drill:
            return None
        healthy: list[Mapping[str, Any]] = [self._control(number) for number, (each, _) in enumerate(self.asked)
                                            if each is None and number in self.cells]
        if all(each["drill"] != drill for each in healthy):  # still running beside; the matrix in the end knows
            healthy.append({"drill": drill, "verdict": "PASS"})
        row = {"named": _named(who), "runs": [cell], "said": self.said.get(who.machine)}
        return matrices.why_not(row, healthy)

    def _control(self, number: int) -> dict[str, Any]:
        cell = self.cells[number]
        return {"drill": cell["drill"], "status": cell["status"], "verdict": cell["verdict"], "says": list(self.told[number]),
                "recording": cell["recording"]}

    def tick(self) -> None:
        self.watcher.tick()

    def stopping(self, how: str) -> None:
        self.watcher.stopping(how)

    def close(self) -> None:
        self.watcher.close()

    def document(self, made: Mapping[str, Any]) -> dict[str, Any]:
        """The whole matrix; every run has ended."""
        cells = self.asked
        controls = [self._control(number) for number, (who, _) in enumerate(cells) if who is None]
        rows = []
        for mutant in self.plan.mutants:
            mine = {drill: self.cells[number] for number, (who, drill) in enumerate(cells) if who == mutant}
            runs = [mine[drill] for drill in sorted(mine, key=matrices.drill_order)]
            row: dict[str, Any] = {"name": mutant.name, "organ": mutant.organ, "machine": mutant.machine,
                                   "sentence": mutant.sentence, "named": _named(mutant), "runs": runs,
                                   "said": self.said.get(mutant.machine), "caught_by": matrices.caught_by(runs),
                                   "survived": matrices.survived(runs)}
            why = matrices.why_not(row, controls)
            rows.append({**row, "caught": why is None, "why": why})
        return {"format": matrices.FORMAT, "identity": identity(self.plan), "made": dict(made), "controls": controls,
                "mutants": rows}


def _named(mutant: Mutant) -> dict[str, str]:
    return {"drill": mutant.drill, "check": mutant.check, "says": mutant.says}


def _cell(drill: str, result: Result, folder: Path | None) -> dict[str, Any]:
    verdict = _verdict(folder)
    checks = [each["id"] for each in _checks(verdict, GROUPS) if each["verdict"] == "FAIL"]
    premises = [each["id"] for each in _checks(verdict, ("premises",)) if each["verdict"] == "FAIL"]
    crashed = folder is not None and any("Traceback" in log.read_text(encoding="utf-8", errors="replace")
                                         for log in (folder / "node-logs").glob("*.log"))
    digest = content_sha256(folder)[:SHOWN] if folder is not None and (folder / "recording.jsonl.gz").is_file() else ""
    return {"drill": drill, "status": result.status, "verdict": result.verdict, "checks": list(dict.fromkeys(checks)),
            "premises": list(dict.fromkeys(premises)), "crashed": crashed, "recording": digest}


def _verdict(folder: Path | None) -> Mapping[str, Any]:
    file = folder / "verdict.json" if folder is not None else None
    return orjson.loads(file.read_bytes()) if file is not None and file.is_file() else {}


def _checks(verdict: Mapping[str, Any], groups: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    for group in groups:
        found = verdict.get(group) or ()
        yield from [found] if isinstance(found, Mapping) else found


def _sentence(folder: Path | None, check: str) -> str | None:
    """What the check said of the run, where it FAILed."""
    said = [str(each["says"]) for each in _checks(_verdict(folder), GROUPS)
            if each["id"] == check and each["verdict"] == "FAIL"]
    return " ".join(said)[:limits.MATRIX_SAYS_MAX] if said else None


def _put_away(folder: Path, keep: Path | None) -> None:
    """A run's folder and its log, thrown away or kept."""
    own = folder.parent.parent
    if keep is None:
        shutil.rmtree(own)
    else:
        keep.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(keep / folder.name, ignore_errors=True)  # of an earlier, equal run
        shutil.move(folder, keep / folder.name)


def identity(plan_: Plan) -> dict[str, Any]:
    """Which build, drills and rules the matrix is about."""
    return {
        "system": own.build_sha256(plan_.stack, ROOT), "recorder": recorder_sha256(ROOT),
        "harness": made_by()["harness"], "rules": hashlib.sha256(canonical(rules_digests(ROOT))).hexdigest(),
        "stack": plan_.stack.sha256, "catalogue": plan_.catalogue.sha256,
        "drills": {name: sha256_file(file) for name, file in plan_.drills.items()}, "sets": plan_.sets,
        "policy": {"name": plan_.policy, "sha256": policy_sha256(plan_.stack.policy(plan_.policy))},
        "seed": plan_.seed, "world": plan_.world, "extent": "quick" if plan_.quick else "full",
    }


def make(plan_: Plan, out: Path, jobs: int, watcher: Watcher, clock: Any, keep: Path | None = None) -> Made:
    """Run everything and put it together. ``clock()`` gives seconds."""
    before, begun = identity(plan_), clock()
    git = session.git_state()
    with _work(out / matrices.FOLDER) as place:
        table = _Table(plan_, watcher, keep)
        fleet = Fleet(plan_.orders(place), jobs, table)
        fleet.run()
    if fleet.interrupted or len(table.cells) < len(plan_.cells):
        return Made(None, fleet.interrupted, fleet.errors)
    if identity(plan_) != before:
        raise UsageError("the checkout changed while the matrix was made: it would be about no build at all")
    made = {"utc": now_utc(), "took_ms": round(1000 * (clock() - begun)), "jobs": jobs, **git}
    read = matrices.read(encode(table.document(made)))
    if isinstance(read, str):
        raise AssertionError(f"the matrix that was made {read}")
    return Made(read, False, fleet.errors)


def store(matrix: Matrix, out: Path) -> Path:
    """Keep a matrix under ``out/mutants``, by the digest of what it is about; an older one of the same is replaced."""
    about = hashlib.sha256(canonical(matrix.identity)).hexdigest()[:SHOWN]
    file = out / matrices.FOLDER / f"{matrix.identity['extent']}-{matrix.identity['world']}-{about}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    files.replace(file, matrix.data)
    return file


def of_this_build(out: Path, stack_file: Path, drill_files: Sequence[Path]) -> Matrix | None:
    """The best matrix kept under ``out`` that is about the checkout at hand, these drills and the catalogue that the stack
    names; None when there is none."""
    stack = load_stack(stack_file)
    if (catalogue := _named_by(stack)) is None:
        return None
    head = {"system": own.build_sha256(stack, ROOT), "recorder": recorder_sha256(ROOT), "rules": rules_digests(ROOT),
            "stack": {"sha256": stack.sha256}}
    heads = [{**head, "drill": {"name": file.stem, "sha256": sha256_file(file)}} for file in drill_files]
    return matrices.newest(out / matrices.FOLDER, heads, made_by()["harness"], catalogue)


def red_was_seen(out: Path, stack_file: Path, drill_files: Sequence[Path]) -> bool:
    """Whether nobody needs to look again. A matrix in which a sabotage slipped through is kept, too, and spares no look: else
    the night after it would be green with nothing mended."""
    kept = of_this_build(out, stack_file, drill_files)
    return kept is not None and kept.whole


@contextmanager
def _work(folder: Path) -> Iterator[Path]:
    """A folder for the runs, gone afterwards; what killed ones left is removed before."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{WORK}*"):
        with suppress(BlockingIOError), files.alone(old / "lock", wait=False):  # else somebody is at work there
            shutil.rmtree(old)
    place = Path(tempfile.mkdtemp(prefix=WORK, dir=folder))
    with files.alone(place / "lock"):
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)  # a session that was just killed may still write
