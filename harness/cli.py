"""The command ``drillproof``: one thin function per command; what can be typed stands in ``arguments``.

Exit codes of commands that judge (DESIGN, section 4): 0 all PASS (gate open, pack intact) · 1 something FAILED
(gate closed, pack altered) · 2 wrong usage or set-up · 3 nothing failed, but something is inconclusive or refused ·
70 our own fault · 130 interrupted · 141 nobody read the answer to its end. ``validate`` keeps its source's 0/1/2.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import io
import os
import pkgutil
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from harness import arguments, console, files, own, session, sweep
from harness.arguments import SEED, STACK
from harness.drill.text import Specs, check, load
from harness.errors import DrillproofError, Refused, UsageError, WorldError, hint
from harness.pack.origin import RUN_FILES
from harness.pack.phases import OWN
from harness.selection import choose, drill_files, every_drill
from harness.session import ROOT, Order, Result
from harness.sweep import parse_seeds
from harness.world.stack import Node, Stack, load_stack

if TYPE_CHECKING:
    from harness.fleet import Fleet

INTERRUPTED = 130
UNREAD = 141
OUT_BYTES_MIN = 1_048_576
"""A drill's folder takes several megabytes; with less room than this none could be recorded."""


def main(typed: Sequence[str] | None = None) -> int:
    """Entry point. Every expected failure is one line on standard error and an exit code."""
    args = arguments.parse(FUNCTIONS, typed)
    try:
        code: int = args.command(args)
        sys.stdout.flush()  # a verdict that cannot be told is none
        return code
    except DrillproofError as why:
        print(f"drillproof: {_lines(str(why))}", file=sys.stderr)
        return why.code
    except KeyboardInterrupt:
        print("drillproof: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # a reader like `head` had enough; what it did not read may have been the verdict
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return UNREAD
    except OSError as why:  # a full disk, a folder that may not be written, a file that went away
        print(f"drillproof: {console.plain(str(why.filename or 'a file'))}: {why.strerror or why}", file=sys.stderr)
        return UsageError.code
    except Exception:  # our own fault: say so, whole, and never with a code that could read as a verdict
        traceback.print_exc()
        print("drillproof: that is a fault of drillproof itself; please report the lines above", file=sys.stderr)
        return 70


def _lines(text: str) -> str:
    """A message for people: its own line breaks stay, whatever else could steer a terminal is written out."""
    return "\n".join(console.plain(line) for line in text.splitlines())


# ---- run, check, judge ------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    """Run drills and judge them."""
    from harness import shards
    from harness.fleet import Fleet

    stack = load_stack(Path(args.stack))
    choice = choose(own.named(stack, args.paths), args.world)
    policy = own.policy_meant(stack, args.world, args.policy)
    seeds = parse_seeds(args.seeds) if args.seeds is not None else (SEED if args.seed is None else args.seed,)
    sweeps = args.seeds is not None
    machines = _checked(args, stack, choice.files, policy)
    choice, share = shards.narrowed(choice, args.shard, stack, policy)
    if share:
        print(share, file=sys.stderr)
    orders = [Order(drill=str(file), world=args.world, seed=seed, stack=str(Path(args.stack).resolve()), policy=policy,
                    runs=str((Path(args.out) / "runs").resolve()), placebo=args.placebo, hold=args.hold,
                    machines=machines, keep=args.keep or ("unless-passed" if sweeps and args.world == "sim" else "all"),
                    tell=args.tell)
              for seed in seeds for file in choice.files]
    _recover_leftovers(Path(args.out) / "runs")
    if args.world == "docker":
        _make_room()
    names = [console.plain(Path(each.drill).stem) for each in orders]
    progress = sweep.Progress(names, [each.seed for each in orders]) if sweeps else console.Progress(names)
    fleet = Fleet(orders, 1 if args.hold else _side_by_side(args), progress)
    results = fleet.run()
    if args.again:
        fleet, results = _once_more(orders, results, fleet)
    if args.json:
        table = {"table": [each.to_json() for each in sweep.tallies(results)]} if sweeps else {}
        _print_json({"drills": [_result_json(each) for each in results], "not_run": choice.to_json(), **table})
    elif sweeps:
        _print_sweep(args, policy, seeds, results)
    else:
        _print_results(results)
    if not args.json:
        _print_lines(choice.says())
    _print_held(results, len(orders))
    if fleet.interrupted:
        print(f"drillproof: interrupted; {len(results)} of {console.counted(len(orders), 'drill')} started, "
              "nothing of them is left running", file=sys.stderr)
        return INTERRUPTED
    code = placebo_code(results) if args.placebo else exit_code(each.verdict for each in results)
    return code if code == 1 or not fleet.errors else max(fleet.errors)


def _once_more(orders: Sequence[Order], results: list[Result], fleet: Fleet) -> tuple[Fleet, list[Result]]:
    """Once more, one by one, what could not be told: most often the machine was busy with other things. A FAIL is never
    tried again, and the run log keeps both attempts."""
    from harness.fleet import Fleet

    unclear = [place for place, each in enumerate(results)
               if each.verdict == "INCONCLUSIVE" and each.status in ("completed", "aborted") and each.held is None]
    if fleet.interrupted or not unclear:
        return fleet, results
    names = [console.plain(results[place].drill) for place in unclear]
    print(f"\nonce more, one by one, what could not be told: {', '.join(names)}", file=sys.stderr)
    second = Fleet([orders[place] for place in unclear], 1, console.Progress(names))
    found = dict(enumerate(results)) | dict(zip(unclear, second.run(), strict=False))
    return second, list(found.values())


def _checked(args: argparse.Namespace, stack: Stack, files: Sequence[Path], policy: str) -> dict[str, str]:
    """Everything that can be wrong before the first stack starts. Returns the machines; raises UsageError."""
    if args.hold and args.world == "sim":
        raise UsageError("--hold leaves a stack up, and the sim has none: its recording holds all there is")
    if args.placebo and args.machine:
        raise UsageError(f"--placebo: found it beside --machine {args.machine[0]}, expected one of both: what a sabotage "
                         "breaks says nothing of whether the drill fails without its force")
    machines = _machines(args.machine, stack.nodes)
    if why := own.unfit(stack, args.world):
        raise Refused(why)
    own.texts_of(stack)
    specs = Specs.of(ROOT, stack, stack.policy(policy))
    problems = [str(each) for file in files for each in check(load(file, specs), specs)]
    if problems:
        raise UsageError("\n".join(problems))
    if args.world == "local" and not args.json:
        _must_have_a_proxy()
    if args.world == "docker":
        _must_have_an_engine(stack, machines)
    _must_be_writable(Path(args.out))
    return machines


def _print_lines(lines: Iterable[str]) -> None:
    for each in lines:
        print(console.plain(each))


def _must_have_an_engine(stack: Stack, machines: Mapping[str, str]) -> None:
    """Said once and before anything is started, with the line that mends it. Raises UsageError or Refused."""
    from harness.world.real import images
    from harness.world.real.docker import lacks
    from harness.world.real.engine import of_this_machine

    of_this_machine()
    client = images.connect()
    try:
        if (why := lacks(stack, machines, client.api, images.current(client))) is not None:
            raise Refused(f"the world docker: {why}")
    finally:
        client.close()


def _must_have_a_proxy() -> None:
    """Without one each drill would be refused by itself, each with the same words; machines get that, people this."""
    from harness.world.real import setup

    if setup.find() is None:
        raise Refused(f"the world local needs a Toxiproxy server. With Go 1.23 or newer on PATH this line installs one:\n"
                      f"  {setup.explain()}\nWithout one: --world sim")


def _must_be_writable(folder: Path) -> None:
    """Ask the disk, not its permissions: it may be full."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(OUT_BYTES_MIN))
    except OSError as why:
        raise UsageError(f"--out {folder}: nothing can be written there: {why.strerror}") from why


def exit_code(verdicts: Iterable[str]) -> int:
    """0 when there is something and all of it is PASS, 1 when anything is FAIL, else 3."""
    found = list(verdicts)
    if "FAIL" in found:
        return 1
    return 0 if found and set(found) == {"PASS"} else 3


def placebo_code(results: Sequence[Result]) -> int:
    """Of runs without their force (DESIGN, section 4): 0 when each drill broke a promise of its own, 1 when one kept all of
    them, which proves nothing with its force either, whatever a law said of the system; else 3."""
    hollow = [console.plain(each.drill) for each in results if "PASS" in (each.verdict, each.promises)]
    if hollow:
        print(f"passed without their force, so that their PASS proves nothing: {', '.join(dict.fromkeys(hollow))}",
              file=sys.stderr)
        return 1
    return 0 if results and {each.promises for each in results} == {"FAIL"} else 3


def _machines(pairs: Sequence[str], nodes: Mapping[str, Node]) -> dict[str, str]:
    """node → the machine that runs in its place; the stack's own there is no other, so that its run is no mutant's."""
    machines: dict[str, str] = {}
    for each in pairs:
        node, _, factory = each.partition("=")
        module, _, function = factory.partition(":")
        if not (module and function):
            raise UsageError(f"--machine: found {each!r}, expected NODE=package.module:function")
        if node not in nodes:
            raise UsageError(f"--machine: no node {node!r}; known: {', '.join(nodes)}{hint(node, nodes)}")
        if node in machines:
            raise UsageError(f"--machine: found {each!r}, expected {node} once: it was to run {machines[node]}")
        _must_be_a_machine(factory, "--machine")
        machines[node] = factory
    return {node: factory for node, factory in machines.items() if factory != nodes[node].machine}


def _must_be_a_machine(factory: str, where: str) -> None:
    """Load what ``module:function`` names, as every run would. Raises UsageError with the nearest right name."""
    name, _, function = factory.partition(":")
    try:
        module = importlib.import_module(name)
    except Exception as why:  # its code is somebody's, and may fail in any way
        missing = why.name if isinstance(why, ModuleNotFoundError) and why.name else ""
        if missing and f"{name}.".startswith(f"{missing}."):
            raise UsageError(f"{where}: no module {name!r}{hint(missing, _beside(missing))}") from why
        raise UsageError(f"{where}: {name} cannot be loaded: {type(why).__name__}: {why}") from why
    if not callable(getattr(module, function, None)):
        raise UsageError(f"{where}: no function {function!r} in {name}{hint(function, dir(module))}")


def _beside(name: str) -> list[str]:
    """The modules of the package that would hold one of that name."""
    package = name.rpartition(".")[0]
    folders = getattr(importlib.import_module(package), "__path__", ()) if package else ()
    return [f"{package}.{each.name}" for each in pkgutil.iter_modules(folders)]


def _side_by_side(args: argparse.Namespace) -> int:
    """How many stacks run at once."""
    return args.jobs or arguments.side_by_side(args.world)


def _recover_leftovers(runs: Path) -> None:
    """Every run begins by looking for what an earlier one left behind; what a person holds is only named."""
    from harness.world.real.undo import leftovers, recover

    for folder in leftovers(runs):
        if session.is_held(folder):
            print(f"drillproof: {folder.name} is still held; `drillproof recover {console.shown(folder)}` ends it",
                  file=sys.stderr)
            continue
        undone = recover(folder)
        print(f"drillproof: {folder.name} was not ended; undid {console.counted(len(undone), 'act')} of it",
              file=sys.stderr)


def _make_room() -> None:
    """Remove what could trouble a run in containers. Raises NotHealed where it stays, or without an engine."""
    from harness.world.real.container_undo import NetworkKept, orphans

    for why in _remove_orphans(orphans()):
        if not isinstance(why, NetworkKept):
            raise why


def _remove_orphans(runs: Iterable[str]) -> list[WorldError]:
    """Remove the containers of runs whose harness and folder are gone, and name each; why some of it is still there."""
    from harness.world.real.container_undo import remove

    failed: list[WorldError] = []
    for run in runs:
        try:
            removed = remove(run)
        except WorldError as why:
            failed.append(why)
            print(f"drillproof: {run} has lost its folder, and something of it {_lines(str(why))}", file=sys.stderr)
        else:
            print(f"drillproof: {run} has lost its folder; removed {_counts(removed)} of it", file=sys.stderr)
    return failed


def _counts(removed: Mapping[str, int]) -> str:
    return ", ".join(console.counted(number, kind.removesuffix("s")) for kind, number in removed.items() if number)


def _result_json(result: Result) -> dict[str, Any]:
    return {"drill": result.drill, "world": result.world, "status": result.status, "verdict": result.verdict,
            "time_to_safe_ms": result.time_to_safe_ms, "recording": result.recording, "run_id": result.run_id,
            "seed": result.seed, "placebo": result.placebo, "says": list(result.says), "kept": result.kept}


def _print_results(results: Sequence[Result]) -> None:
    if not results:
        return
    rows = [["verdict", "drill", "world", "status", "time to safe"]]
    for each in results:
        safe = f"{each.time_to_safe_ms} ms" if each.time_to_safe_ms is not None else "-"
        rows.append([each.verdict, each.drill, each.world, each.status, safe])
    print(console.table(rows, sys.stdout, paint=0))
    recorded = [each.recording for each in results if each.recording]
    if len(recorded) == 1:
        print(f"Recording: {console.shown(recorded[0])}")
    elif recorded:
        print(f"Recordings: {console.shown(Path(recorded[0]).parent)}/")
        for each in results:
            if each.recording and each.verdict != "PASS":
                print(f"  {each.verdict} {Path(each.recording).name}")


def _print_sweep(args: argparse.Namespace, policy: str, seeds: Sequence[int], results: Sequence[Result]) -> None:
    """The table of a run over many seeds, and where its folders went."""
    if not results:
        return
    options = ["--policy", policy, *(["--placebo"] if args.placebo else []),
               *(word for each in args.machine for word in ("--machine", each)),
               *(["--stack", args.stack] if args.stack != str(STACK) else [])]
    print(sweep.render(results, options, seeds, sys.stdout))
    gone = sum(not each.kept for each in results)
    runs = console.shown(Path(args.out) / "runs")
    if gone:
        print(f"\nThe folders of {console.counted(gone, 'run')} that PASSED were thrown away; {runs}.jsonl knows each of "
              "them, and --keep all keeps them.")
    if gone < len(results):
        print(f"Recordings: {runs}/")


def _print_held(results: Sequence[Result], asked: int) -> None:
    """Where a stack that was left up can be looked at, and how to end it."""
    for each in results:
        if each.held is None:
            continue
        folder = console.shown(each.recording)
        told, boxed = each.held, each.held["containers"]
        rows = [[name, f"127.0.0.1:{port}", _runs_as(name.partition(".")[0], told)]
                for name, port in sorted(told["ports"].items())]
        within = "in the container: docker exec -it ID sh, docker logs ID" if boxed else f"{folder}/nodes/"
        print(f"\n{each.drill} is held: its faults are healed, its stack is still up.\n"
              f"{console.table(rows, sys.stderr)}\n"
              f"logs     {folder}/node-logs/\ndata     {within}\nend it   drillproof recover {folder}", file=sys.stderr)
        if len(results) < asked:
            print(f"{console.counted(asked - len(results), 'drill')} not run", file=sys.stderr)


def _runs_as(node: str, held: Mapping[str, Any]) -> str:
    """A node's container or process, as far as there is one."""
    for kind, word in (("containers", "container"), ("pids", "process")):
        if found := held[kind].get(node):
            return f"{word} {str(found[-1])[:12]}"
    return ""


def check_command(args: argparse.Namespace) -> int:
    """Read drills without running them."""
    stack = load_stack(Path(args.stack))
    policy = stack.policy(args.policy or "reference")
    own.texts_of(stack)
    specs, problems = Specs.of(ROOT, stack, policy), 0
    for file in drill_files(own.named(stack, args.paths)):
        try:
            found = [str(each) for each in check(load(file, specs), specs)]
        except UsageError as why:
            found = [str(why)]
        for each in found:
            print(_lines(each), file=sys.stderr)
        problems += len(found)
        if not found:
            print(f"OK {console.shown(file)}")
    return 2 if problems else 0


def init(args: argparse.Namespace) -> int:
    """Write a stack, a steady-state check and a first drill for a system of one's own."""
    from harness import init as init_room

    return init_room.main(args)


def judge_command(args: argparse.Namespace) -> int:
    """Judge recordings again, from their folders alone."""
    from harness.recording.sole import settled
    from harness.recording.tape import canonical
    from harness.verdict.judge import judge

    verdicts = []
    for name in args.runs:
        folder = Path(name)
        if not (folder / "recording.jsonl.gz").is_file():
            raise UsageError(f"{folder}: no recording.jsonl.gz there; expected a run folder or a pack's incident_drills/…")
        with settled(folder):
            verdict = judge(folder, _rules_of(folder, args.rules))
        verdicts.append(verdict["verdict"])
        if args.json:
            _print_json(verdict)
            continue
        kept = folder / "verdict.json"
        same = kept.is_file() and _same_verdict(kept, canonical(verdict))
        note = "same as recorded" if same else "DIFFERS from verdict.json" if kept.is_file() else "no verdict.json beside it"
        how = f"{verdict['status']}, a placebo: nothing was broken" if verdict["placebo"] else verdict["status"]
        print(f"{console.painted(verdict['verdict'], sys.stdout)} {verdict['drill']} ({how}); {note}")
        for each in _worth_saying(verdict, args.all):
            print(f"  {console.painted(each['verdict'], sys.stdout)} {each['id']}: {console.plain(each['says'])}")
    return exit_code(verdicts)


def compare_command(args: argparse.Namespace) -> int:
    """Show the same drill in two runs side by side. 0: they agree, 1: they differ, 2: one of them is no use.

    Of two packs: whether the second is worse than the first. 1: beyond the budget, 3: nothing can be said."""
    from harness import compare, regress

    if not args.courses and regress.means_pack(args.a) and regress.means_pack(args.b):
        return _compare_packs(args)
    runs = Path(args.out) / "runs"
    # what stands for a pack comes last: beside a misspelt word it is not what is wrong
    named = {name: compare.runs_of(name, runs) for name in sorted((args.a, args.b), key=regress.means_pack)}
    sides = named[args.a], named[args.b]
    both = [drill for drill in sides[0] if drill in sides[1]]
    alone, not_run = compare.unpaired(*sides)
    if not both:
        raise compare.Unusable(f"{args.a} and {args.b} have no drill in common")
    found, modeless = compare.compared(sides[0], sides[1], both)
    agree = not alone and all(each.agree for each in found)
    if args.json:
        _print_json({"agree": agree, "not_run": not_run, "not_compared": modeless,
                     "only_a": [each for each in alone if each in sides[0]],
                     "only_b": [each for each in alone if each in sides[1]], "drills": [each.to_json() for each in found]})
        return 0 if agree else 1
    if len(found) == 1 and not alone:
        print(compare.render(found[0], sys.stdout))
    else:
        print(compare.table(found, alone, sides[0], sys.stdout))
    _print_lines([*not_run, *modeless])
    return 0 if agree else 1


def _compare_packs(args: argparse.Namespace) -> int:
    from harness import budget, regress

    out, phase = Path(args.out), args.phase
    file = Path(args.budget) if args.budget else budget.budget_file(out, ROOT)
    allowed = budget.read_budget(file)
    try:
        last, now = (regress.find(each, out, phase, allowed) for each in (args.a, args.b))
    except regress.NothingBefore as why:
        if not args.may_be_first:
            raise
        print(f"{why}; nothing to compare yet")
        return 0
    allowed = budget.read_budget(file, {*last.drills, *now.drills, *every_drill()})
    report = regress.compare(last, now, out, allowed, console.shown(file) if file else "the defaults")
    if args.json:
        _print_json(report.to_json())
    else:
        print(regress.render(report, sys.stdout))
    return 1 if report.worse else 0


def _worth_saying(verdict: Mapping[str, Any], every: bool) -> list[Mapping[str, Any]]:
    """The checks that were not PASS. Of a run that did not come to its end, only why that is, and what FAILED all the same:
    that nothing else can be decided follows from it."""
    checks = [*verdict["premises"], *verdict["promises"], *verdict["laws"], *filter(None, [verdict["golden"]])]
    if every:
        return checks
    if verdict["status"] == "completed":
        return [each for each in checks if each["verdict"] != "PASS"]
    return [each for each in checks if each["verdict"] == "FAIL" or (each["id"] == "recording" and each["verdict"] != "PASS")]


def _same_verdict(file: Path, verdict: bytes) -> bool:
    from harness.recording.tape import canonical

    try:
        return canonical(orjson.loads(file.read_bytes())) == verdict
    except (ValueError, TypeError, OSError):
        return False


def _rules_of(folder: Path, given: str | None) -> Path:
    """The rules a recording is judged by: those given, the pack's own when it lies in one, else the checkout's."""
    if given:
        return Path(given)
    own = folder.resolve().parent.parent / "rules"
    return own if own.is_dir() else ROOT


def mutants_command(args: argparse.Namespace) -> int:
    """Run drills against every sabotage of the catalogue and say which check noticed."""
    from harness import mutants, mutants_view
    from harness.pack.phases import load_phase

    stack = load_stack(Path(args.stack))
    everything = [] if own.drills_of(stack).is_dir() else load_phase(ROOT, 2).sets
    choice = choose(own.named(stack, args.drills or everything), args.world)
    plan = mutants.plan(Path(args.stack).resolve(), Path(args.catalogue) if args.catalogue else None, choice.files,
                        args.only, world=args.world, policy=args.policy, seed=args.seed, quick=args.quick)
    for each in plan.mutants:
        _must_be_a_machine(each.machine, f"{plan.catalogue.file}: mutant {each.name!r}")
    if args.world == "docker":
        raise UsageError("an image has no sabotages in it: mutants are run in sim and local")
    if args.world == "local":
        _must_have_a_proxy()
    out = Path(args.out)
    _must_be_writable(out)
    jobs = _side_by_side(args)
    made = mutants.make(plan, out.resolve(), jobs, mutants_view.Progress(plan), time.monotonic,
                        Path(args.keep).resolve() if args.keep else None)
    if made.interrupted:
        print("drillproof: interrupted; no matrix was made, and nothing is left running", file=sys.stderr)
        return INTERRUPTED
    if made.matrix is None:
        return max(made.errors, default=DrillproofError.code)
    matrix = made.matrix
    file = None if plan.unkept else mutants.store(matrix, out)
    if args.json:
        sys.stdout.buffer.write(matrix.data)
    else:
        print(mutants_view.render(matrix, sys.stdout))
        _print_lines(choice.says())
        print(f"Kept: {console.shown(file)}" if file else f"Not kept: {plan.unkept}")
    return max(made.errors) if made.errors else int(not matrix.whole)


# ---- pack, verify, gate -----------------------------------------------------------------------------------


def pack(args: argparse.Namespace) -> int:
    """Make a phase's evidence pack of the newest run of each of its drills, or join the shards of several machines."""
    from harness.pack.build import build, newest_runs

    if args.merge:
        return _merge(args)
    if args.phase is None:
        raise UsageError("say of which phase: drillproof pack 2")
    stack = _stack_of(args)
    for each in args.runs:
        _must_be_a_folder(each)
        if not any((Path(each) / file).is_file() for file in RUN_FILES):
            raise UsageError(f"{each}: no run folder; none of {', '.join(RUN_FILES)} is there")
    drills = own.drill_files(stack) if stack else None
    runs = [Path(each) for each in args.runs] or newest_runs(Path(args.out) / "runs", args.phase, args.world, ROOT, drills,
                                                            args.sets or ())
    return _packed(build(runs, args.phase, Path(args.out), ROOT, drills))


def _merge(args: argparse.Namespace) -> int:
    from harness.pack.merge import merge

    if args.runs:
        raise UsageError(f"{args.runs[0]}: a pack is made of runs or of shards; name one of both")
    if args.sets:
        raise UsageError("--sets: a merged pack holds the sets that its shards ran; leave it out")
    if args.phase is not None:
        _must_be_a_phase(args.phase)
    for each in args.merge:
        _must_be_a_folder(each)
    return _packed(merge([Path(each) for each in args.merge], args.phase, Path(args.out), ROOT))


def _packed(made: Path) -> int:
    """Tell of a pack that was made: what it is without, what in it does not count, and where it lies."""
    from harness.pack.build import left_out, of_another_text

    _print_lines([*left_out(made), *of_another_text(made)])
    print(f"{made}\n{made / 'SUMMARY_1PAGE.md'}")
    return 0


def trend_command(args: argparse.Namespace) -> int:
    """Draw the packs of a phase night after night."""
    from harness.pack.trend import trend, trend_page

    out = _evidence(args)
    target = Path(args.to) if args.to else out / "trend.html"
    if target.is_dir():
        raise UsageError(f"--to {target}: is a folder, expected a file")
    found = trend(out, args.phase, args.last)
    _must_be_writable(target.parent)
    files.replace(target, trend_page(found))
    print(f"{found.headline} ({console.counted(len(found.packs), 'pack')})\n{console.shown(target)}")
    return 0


def prune_command(args: argparse.Namespace) -> int:
    """Take away old packs and run folders, or say what would go; what stays is said with its reason."""
    from harness import pruning

    out = Path(args.out)
    found = pruning.prune(out, Path(args.retention) if args.retention else None, ROOT, args.dry_run)
    if args.json:
        _print_json(pruning.to_json(found, args.dry_run))
    else:
        print(pruning.render(found, args.dry_run, args.all, sys.stdout))
    return 0


def verify(args: argparse.Namespace) -> int:
    """Check a pack: nothing changed, added, removed, and everything derived is derived again."""
    from harness.pack.manifest import examine

    code = 0
    for name in args.packs:
        _must_be_a_folder(name)
        seen = examine(Path(name), _trusted(args))
        findings = seen.findings
        if args.json:
            _print_json({"pack": name, "intact": not findings, "seal": seen.seal_says,
                         "findings": [dataclasses.asdict(each) for each in findings]})
        elif findings:
            print(f"{console.painted('FAIL', sys.stdout)} {console.plain(name)}: {console.plain(str(findings[0]))}")
            for each in findings[1:]:
                print(f"     {console.plain(str(each))}")
        else:
            print(f"{console.painted('PASS', sys.stdout)} {console.plain(name)}: intact. {console.plain(seen.seal_says)}")
        code = 1 if findings else code
    return code


def _trusted(args: argparse.Namespace) -> dict[str, str] | None:
    """Whose signatures count: the keys of ``--signers``, or None."""
    from harness.pack.seals import load_signers

    return load_signers(Path(args.signers)) if args.signers else None


def gate(args: argparse.Namespace) -> int:
    """Decide a phase from its packs, item by item."""
    from harness import gate as gate_room

    stack = _stack_of(args)
    decision = gate_room.decide(args.phase, _evidence(args), ROOT, only=args.only, trusted=_trusted(args),
                                own=own.at_hand(stack, ROOT) if stack else None)
    if args.json:
        _print_json(decision.to_json())
    else:
        painted = sys.stdout if console.colours(sys.stdout) else io.StringIO()
        print(console.fitted(gate_room.render(decision, painted), sys.stdout))
    return 0 if decision.open else 1


def _stack_of(args: argparse.Namespace) -> Stack | None:
    """The stack of one's own that ``own`` means; None for a phase of the checkout. Raises UsageError for neither."""
    if args.phase == OWN:
        return load_stack(Path(args.stack))
    _must_be_a_phase(args.phase)
    return None


def _must_be_a_phase(number: int) -> None:
    known = sorted(int(each.stem.removeprefix("phase_")) for each in (ROOT / "specs" / "phases").glob("phase_*.yaml"))
    if number not in known:
        raise UsageError(f"no phase {number}; known: {', '.join(map(str, known))}")


def _must_be_a_folder(name: str) -> None:
    if not Path(name).is_dir():
        raise UsageError(f"{name}: {'is no folder' if Path(name).exists() else 'no such folder'}")


def _evidence(args: argparse.Namespace) -> Path:
    """The evidence folder that is read. One that was named must be there; the usual one may yet have to come."""
    if Path(args.out).exists() or args.out != str(arguments.EVIDENCE):
        _must_be_a_folder(args.out)
    return Path(args.out)


# ---- recover, doctor, nodes by hand -----------------------------------------------------------------------


def recover_command(args: argparse.Namespace) -> int:
    """Undo what runs left behind, as the janitor does."""
    from harness.world.real import container_undo
    from harness.world.real.undo import leftovers, recover

    folders = [Path(each) for each in args.runs] or leftovers(_evidence(args) / "runs")
    for each in args.runs:
        _must_be_a_folder(each)
    failed: list[WorldError] = []
    for folder in folders:
        try:
            undone = recover(folder)
        except WorldError as why:  # the others want recovering all the same
            failed.append(why)
            print(f"drillproof: {folder.name}: {_lines(str(why))}", file=sys.stderr)
            continue
        for undo in undone:
            print(console.plain(f"{folder.name}: undid {undo.verb} of {undo.id}"))
        if not undone:
            print(console.plain(f"{folder.name}: nothing was left behind"))
    orphans: tuple[str, ...] = ()
    if not args.runs:
        with suppress(WorldError):  # without an engine there are no containers either
            orphans = container_undo.orphans()
        failed += _remove_orphans(orphans)
    if not folders and not orphans:
        print("nothing was left behind")
    return failed[0].code if failed else 0


def doctor(args: argparse.Namespace) -> int:
    """Say what this machine can do, and how to get what is missing."""
    from harness.doctor import examine

    findings = examine()
    if args.json:
        _print_json({"findings": [dataclasses.asdict(each) for each in findings]})
    else:
        rows = [["state", "what", "found"]] + [[each.state, each.what, each.found] for each in findings]
        print(console.table(rows, sys.stdout, paint=0))
        for each in findings:
            if each.remedy:
                print(f"\nTo get {each.what}:\n  {each.remedy}")
    return 0


def node(args: argparse.Namespace) -> int:
    """Run one node of a stack in the foreground, to look at it or to point a client at it."""
    from harness.nodes import FOLDER, serve

    data = Path(args.data) if args.data else FOLDER / args.node
    return serve(args.node, Path(args.stack), args.policy, args.listen, args.url, data)


def floor_command(args: argparse.Namespace) -> int:
    """Ask every service for its ops status, and say what state they make together."""
    from harness import floor
    from harness.contracts.validate import TIMEOUT_S_MAX
    from harness.policies import policy_to_judge_by

    if not 0 < args.timeout <= TIMEOUT_S_MAX:
        raise UsageError(f"--timeout {args.timeout}: expected seconds above 0 and up to {TIMEOUT_S_MAX:g}")
    told = floor.ask(floor.whom(args.url, args.run), max(1, round(args.timeout * 1000)),
                     policy_to_judge_by(Path(args.policy)) if args.policy else None)
    if args.json:
        _print_json(told)
    else:
        print(floor.show(told))
    return floor.exit_code(told)


def setup_toxiproxy(args: argparse.Namespace) -> int:
    """Find or build the Toxiproxy server; called by make setup."""
    from harness.world.real import setup

    path = setup.find()
    if path is None:
        if shutil.which("go"):
            print("setup: building the Toxiproxy server with Go, once", file=sys.stderr, flush=True)
        path = setup.build()
    if not args.quiet:
        print(path)
    return 0


def _print_json(value: Any) -> None:
    from harness.pack.plain import harmless_json

    sys.stdout.write(harmless_json(orjson.dumps(value, option=orjson.OPT_INDENT_2)).decode() + "\n")


FUNCTIONS: dict[str, arguments.Function] = {
    "run": run, "judge": judge_command, "compare": compare_command, "check": check_command, "init": init,
    "mutants": mutants_command, "floor": floor_command, "pack": pack, "trend": trend_command, "prune": prune_command,
    "verify": verify, "gate": gate, "recover": recover_command, "doctor": doctor, "exchange": node, "trader": node,
    "toxiproxy": setup_toxiproxy,
}
"""Name of a command → what does it; `validate` and `seal` bring their own."""


def console_entry() -> None:
    """For ``python -m harness.cli``."""
    sys.exit(main())


if __name__ == "__main__":
    console_entry()
