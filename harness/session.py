"""One run, from a drill file to a verdict: its folder, its run-log lines, its world, its judgement.

``conduct`` does it in this process; ``python -m harness.session ORDER PARENT`` does it in one of its own (ORDER is the
JSON of an ``Order``) and prints progress as JSON lines, which is how ``fleet`` keeps runs from disturbing one
another. The parent's death ends a session, and a session's death is noticed by its world's janitor.
"""

from __future__ import annotations

import ctypes
import getpass
import hashlib
import importlib
import importlib.util
import os
import platform
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import orjson

from harness import files, own
from harness.checkout import git_of
from harness.drill.model import Drill
from harness.drill.text import Specs, load
from harness.errors import DrillproofError, UsageError
from harness.pack import runlog
from harness.pack.listing import encode
from harness.pack.origin import RUN_FILES, build_of, machines_of, recorder_sha256, rules_digests, sha256_file, tree_sha256
from harness.recording.sole import alone
from harness.recording.tape import Tape, canonical
from harness.run import Outcome, run
from harness.world import WORLDS, World
from harness.world.stack import Stack, load_stack, policy_sha256

if TYPE_CHECKING:
    from harness.pack.story import Story
    from harness.recording.timeline import Timeline

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: drills, specs, fixtures and templates are read from here."""

PACKAGES = ("aiohttp", "jinja2", "jsonschema-rs", "orjson", "pyyaml", "toxiproxy-python")
PR_SET_PDEATHSIG = 1
TOLD = "told"
"""The word by which a run tells its chapter."""
HOLDABLE = ("completed", "aborted")
"""What became of a run that leaves something to look at; a refused one started nothing, an interrupted one is over."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to run. ``machines`` replaces a node's machine by another (a mutant): node → ``module:function``."""

    drill: str
    world: str
    seed: int
    stack: str
    policy: str
    runs: str
    placebo: bool = False
    hold: bool = False
    machines: Mapping[str, str] = field(default_factory=dict)
    keep: str = "all"
    """all | unless-passed: whether the folder of a run that PASSED stays"""
    tell: bool = False
    """whether the run tells its chapter of a pack to whoever started it (``harness.pack.told``)"""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it. ``recording`` is the run folder; ``says`` are the sentences of what was not PASS."""

    drill: str
    world: str
    status: str
    verdict: str
    time_to_safe_ms: int | None
    recording: str
    run_id: str
    seed: int
    placebo: bool
    says: tuple[str, ...]
    held: Mapping[str, Any] | None = None
    """Where the stack of a held run still stands: ``{ports: {node.port: number}, pids: {node: [pid]}, containers: {node:
    [id]}}``"""
    kept: bool = True
    """Whether ``recording`` is still there: of a run whose folder was thrown away, only the run log knows."""
    promises: str = "INCONCLUSIVE"
    """the worst verdict of the promises and the golden alone: of a placebo they must be FAIL"""


Progress = Callable[[str, Mapping[str, Any]], None]


def conduct(order: Order, progress: Progress) -> Result:
    """Run one drill and judge it. Raises UsageError for bad input; everything else is in the result."""
    stack = load_stack(Path(order.stack))
    policy = stack.policy(order.policy)
    drill = load(Path(order.drill), Specs.of(ROOT, stack, policy))
    started = datetime.now(UTC)
    if order.world == "sim":
        _must_run_what_is_digested(stack)
    beside = own.texts_of(stack)
    identity = _identity(order, drill, stack, policy, own.digests(beside))
    run_id = _run_id(order, drill, identity, started)
    with alone(Path(order.runs) / run_id) as before:
        return _carry_out(order, drill, stack, policy, beside, identity, run_id, before, progress, started)


def _carry_out(order: Order, drill: Drill, stack: Stack, policy: Mapping[str, Any], beside: dict[str, bytes],
               identity: Mapping[str, Any], run_id: str, before: bool, progress: Progress, started: datetime) -> Result:
    """The run itself, in a folder that nobody else touches meanwhile; ``before``: it is that of an equal run."""
    folder = Path(order.runs) / run_id
    if before:
        _remove_previous(folder)
    log = runlog.RunLog(Path(order.runs).parent / "runs.jsonl")
    entry = log.started(run_id, {"drill": drill.name, "world": order.world, "seed": order.seed,
                                 "placebo": order.placebo, "policy": order.policy, **git_state(),
                                 "machines": dict(order.machines), "drill_sha256": identity["drill"]["sha256"],
                                 "build": build_of(identity)})
    _lay_out(folder, drill, stack, policy, beside)
    tape = Tape(folder)
    world = make_world(order, stack, policy, folder)
    outcome = run(drill, world, tape, identity, progress)
    if not tape.file.is_file():
        raise UsageError(f"{tape.file}: was taken away while the run was being recorded; nothing can be judged"
                         + "".join(f"; {each}" for each in outcome.why))
    files.replace(folder / "versions.json", encode(_versions(order, run_id, world, outcome, started)))
    progress("judging", {})
    story = _story(folder) if order.tell else None
    verdict = judged(folder, story.timeline if story is not None else None)
    files.replace(folder / "verdict.json", encode(verdict))
    kept = order.keep == "all" or before or verdict["verdict"] != "PASS"
    log.ended(entry, {"status": verdict["status"], "verdict": verdict["verdict"], "recording_sha256": tape.sha256,
                      "files": {name: sha256_file(folder / name) for name in RUN_FILES},
                      "time_to_safe_ms": verdict["time_to_safe_ms"]["upper"], "promises": promised(verdict),
                      **({} if kept else {"kept": False})})
    if story is not None and {**rules_digests(ROOT), **own.digests(beside)} == identity["rules"]:  # judged by them
        _tell(story, verdict, identity["rules"], progress)
    held = _held(order, world, outcome, verdict["verdict"])
    if not kept:
        shutil.rmtree(folder)
    return _result(order, drill, verdict, folder, run_id, outcome, held, kept)


def judged(folder: Path, timeline: Timeline | None = None) -> dict[str, Any]:
    """The verdict on a run by the rules of the checkout. The judge is loaded when there is something to judge."""
    from harness.verdict.judge import judge

    return judge(folder, ROOT, timeline)


def _story(folder: Path) -> Story:
    from harness.pack.story import read_story

    return read_story(folder)


def _tell(story: Story, verdict: Mapping[str, Any], rules: Mapping[str, str], progress: Progress) -> None:
    """The run's chapter, of the reading that it was judged by, for whoever is going to pack it. The verdict stands without
    it: what cannot be told, whoever packs the run makes again, and meets what is wrong with it."""
    import msgspec

    from harness.pack.chapter import chapter
    from harness.pack.told import inputs_sha256

    try:
        made = msgspec.json.encode(chapter(story, ROOT, verdict)).decode()
        facts = {"inputs": inputs_sha256(story.folder, rules), "chapter": made}
    except Exception:
        traceback.print_exc()
        return
    progress(TOLD, facts)


def warm(order: Order) -> None:
    """Load what every run like this one needs: code by its name, and texts that are read once for the same bytes."""
    from harness.verdict.rules import load_rules

    ours = ("harness.verdict.judge", f"harness.world.{'sim.world' if order.world == 'sim' else f'real.{order.world}'}",
            *(("harness.pack.derive", "harness.pack.chapter") if order.tell else ()))
    stack = load_stack(Path(order.stack))
    theirs = (*(each for node in stack.nodes.values() for each in (node.machine, node.provision)), *order.machines.values())
    for name in (*ours, *theirs):
        if name is not None:
            module = importlib.import_module(name.partition(":")[0])
            getattr(module, "prepare", _nothing)()
    policy = stack.policy(order.policy)
    Specs.of(ROOT, stack, policy)
    rules = load_rules(ROOT)
    for contract in {each.contract for each in stack.surfaces.values()} - {None, *stack.contracts}:
        rules.contract(str(contract), policy)
    for once in (_code, _packages, git_state):
        once()


def _nothing() -> None:
    """A module may offer ``prepare``: it reads ahead what each of its starts reads."""


@runtime_checkable
class Holding(Protocol):
    """What a world can do that can leave its stack up after ``stop``."""

    def release(self, keep: bool) -> None:
        """Let the stack stand, or end it after all."""
        ...


def _held(order: Order, world: World, outcome: Outcome, verdict: str) -> Mapping[str, Any] | None:
    """A held stack outlives its run only when there is something to look at: a failure, and nobody's Ctrl-C."""
    if not order.hold or not isinstance(world, Holding):
        return None
    keep = verdict != "PASS" and outcome.status in HOLDABLE
    world.release(keep)
    told = world.versions()
    return {each: told.get(each, {}) for each in ("ports", "pids", "containers")} if keep else None


def make_world(order: Order, stack: Stack, policy: Mapping[str, Any], folder: Path) -> World:
    """The world that the order names; imported here, so that the sim needs nothing of the real ones."""
    if order.world == "sim":
        from harness.world.sim.world import SimWorld

        return SimWorld(stack, order.policy, policy, order.seed, folder, placebo=order.placebo, machines=order.machines)
    if order.world == "local":
        from harness.world.real.local import LocalWorld

        return LocalWorld(stack, order.policy, policy, order.seed, folder, placebo=order.placebo, machines=order.machines,
                          hold=order.hold)
    if order.world == "docker":
        from harness.world.real.docker import DockerWorld

        return DockerWorld(stack, order.policy, policy, order.seed, folder, placebo=order.placebo, machines=order.machines,
                           hold=order.hold)
    raise UsageError(f"no world {order.world!r}; known: {', '.join(WORLDS)}")


# ---- identity: what makes two runs equal ------------------------------------------------------------------


def _identity(order: Order, drill: Drill, stack: Stack, policy: Mapping[str, Any], beside: Mapping[str, str]) -> dict[str, Any]:
    """The head's digests: everything that decides what a run does, and nothing that differs between equal runs."""
    return {
        "drill": {"name": drill.name, "sha256": hashlib.sha256(drill.text).hexdigest()},
        "stack": {"name": stack.name, "sha256": stack.sha256},
        "policy": {"name": order.policy, "sha256": policy_sha256(policy)},
        "rules": {**rules_digests(ROOT), **beside},
        **_code(),
        "system": own.build_sha256(stack, ROOT, _code()["system"]),
        "seed": order.seed,
        "machines": machines_of(stack, order.machines),
    }


def _must_run_what_is_digested(stack: Stack) -> None:
    """Machines of the sim are imported by this process, and PYTHONPATH may hold other copies of them. Raises UsageError."""
    homes = {"system_under_test": ROOT, **dict.fromkeys(own.imported(stack), stack.file.parent.resolve())}
    for module, home in homes.items():
        for name, places in _found_at(module):
            if any(not Path(place).resolve().is_relative_to(home) for place in places):
                raise UsageError(f"module {name}: found {', '.join(places)}, expected that of {home}, whose digest the "
                                 "recording would tell; mend PYTHONPATH")


def _found_at(module: str) -> Iterator[tuple[str, list[str]]]:
    """Each part of a module's name, with the file that it would be imported from, or for a package without ``__init__.py``
    every folder of it. Nothing is imported for that."""
    name, *rest = module.split(".")
    found = importlib.util.find_spec(name)
    while found is not None:
        inside = [*(found.submodule_search_locations or ())]
        yield name, [found.origin] if found.origin is not None else inside
        if not rest:
            return
        name = f"{name}.{rest.pop(0)}"
        found = PathFinder.find_spec(name, inside)


@cache
def _code() -> dict[str, str]:
    """The digests of the code that runs: once a process, as code is loaded once."""
    return {"system": tree_sha256(ROOT / "system_under_test"), "recorder": recorder_sha256(ROOT)}


@cache
def _packages() -> dict[str, str]:
    from importlib import metadata

    return {name: metadata.version(name) for name in PACKAGES}


def _run_id(order: Order, drill: Drill, identity: Mapping[str, Any], started: datetime) -> str:
    """Equal runs in the sim have equal names; real ones carry their moment."""
    content = canonical({**identity, "placebo": order.placebo, "world": order.world})
    if order.world == "sim":
        return f"{drill.name}-sim-{order.seed}-{hashlib.sha256(content).hexdigest()[:10]}"
    digest = hashlib.sha256(content + started.isoformat().encode() + str(os.getpid()).encode()).hexdigest()[:6]
    return f"{drill.name}-{order.world}-{order.seed}-{started:%Y%m%dT%H%M%SZ}-{digest}"


def _remove_previous(folder: Path) -> None:
    """An equal sim run left the same folder; the new one must be a new writing of it, not a mixture."""
    for file in sorted(folder.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()


def _lay_out(folder: Path, drill: Drill, stack: Stack, policy: Mapping[str, Any], beside: Mapping[str, bytes]) -> None:
    """Save before the run: whatever happens later, it is known what was attempted."""
    (folder / "drill.yaml").write_bytes(drill.text)
    (folder / "stack.yaml").write_bytes(stack.text)
    files.replace(folder / "policy.json", encode(policy))
    for path, data in beside.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        files.replace(folder / path, data)


def _versions(order: Order, run_id: str, world: World, outcome: Outcome, started: datetime) -> dict[str, Any]:
    """Everything that may differ between two equal runs."""
    return {
        "run_id": run_id,
        "started_utc": started.isoformat(timespec="seconds"),
        "ended_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "operator": os.environ.get("DRILLPROOF_OPERATOR") or getpass.getuser(),
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "ci": os.environ.get("GITHUB_RUN_ID") or os.environ.get("CI"),
        "git": git_state(),
        "packages": _packages(),
        "world": dict(world.versions()),
        "outcome": {"status": outcome.status, "why": list(outcome.why)},
        "hold": order.hold,
    }


@cache
def git_state() -> dict[str, Any]:
    """``{commit, dirty}`` of the checkout that runs: once a process."""
    return git_of(ROOT)


def is_held(folder: Path) -> bool:
    """Whether a run's stack was left up on purpose: asked to be, judged, and not PASS."""
    try:
        asked = orjson.loads((folder / "versions.json").read_bytes())
        verdict = orjson.loads((folder / "verdict.json").read_bytes())
        return bool(asked["hold"]) and verdict["verdict"] != "PASS" and asked["outcome"]["status"] in HOLDABLE
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _result(order: Order, drill: Drill, verdict: Mapping[str, Any], folder: Path, run_id: str, outcome: Outcome,
            held: Mapping[str, Any] | None, kept: bool) -> Result:
    return Result(drill.name, order.world, verdict["status"], verdict["verdict"], verdict["time_to_safe_ms"]["upper"],
                  str(folder), run_id, order.seed, order.placebo, (*outcome.why, *_says(verdict)), held, kept,
                  promised(verdict))


def promised(verdict: Mapping[str, Any]) -> str:
    """What came of the drill's own promises and its golden, whatever laws and premises say: the worst of them."""
    golden = [verdict["golden"]] if verdict.get("golden") else []
    found = {each["verdict"] for each in (*verdict["promises"], *golden)}
    return next((word for word in ("FAIL", "INCONCLUSIVE") if word in found), "PASS" if found else "INCONCLUSIVE")


def _says(verdict: Mapping[str, Any]) -> list[str]:
    """The sentences of what was not PASS, the worst first. Of a run that did not complete, only what FAILED: that
    everything else is INCONCLUSIVE needs no saying."""
    golden = [verdict["golden"]] if verdict.get("golden") else []
    checks = [*verdict["premises"], *verdict["promises"], *verdict["laws"], *golden]
    wanted = ("FAIL", "INCONCLUSIVE") if verdict["status"] == "completed" else ("FAIL",)
    return [f"{word} {each['id']}: {each['says']}" for word in wanted for each in checks if each["verdict"] == word]


# ---- as a process -----------------------------------------------------------------------------------------


def channel() -> int:
    """What standard output was, for events alone. Machines of the sim live in this process: from here on whatever prints is
    heard on standard error, so that none of it can be taken for an event."""
    sys.stdout.flush()
    events = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return events


def main(events: int | None = None) -> int:
    """``python -m harness.session ORDER PARENT``: progress and the result as JSON lines on what was standard output;
    ``events`` is that of a nursery."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    parent = int(sys.argv[2])
    if os.getppid() != parent:  # it died before the line above
        return 130
    out = channel() if events is None else events

    def say(**line: Any) -> None:
        with suppress(BrokenPipeError):  # nobody listens any more: the signal of the parent's death is on its way
            rest = orjson.dumps(line) + b"\n"
            while rest:
                rest = rest[os.write(out, rest):]

    def tell(word: str, facts: Mapping[str, Any]) -> None:
        say(progress=word, **facts)

    def failed(error: str, code: int) -> int:
        say(error=error, code=code)
        return code

    order = Order(**orjson.loads(sys.argv[1]))
    try:
        result = conduct(order, tell)
    except DrillproofError as why:
        return failed(str(why), why.code)
    except OSError as why:  # a full or vanished disk under the evidence; the janitor ends what stands
        return failed(f"the run could not be recorded: {why}", UsageError.code)
    except Exception as why:  # our own fault, told whole where people see it
        traceback.print_exc()
        return failed(f"a fault of drillproof itself: {type(why).__name__}: {why}", DrillproofError.code)
    say(result=asdict(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
