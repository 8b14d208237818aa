"""The command ``drillproof``: parsers, and one thin function per command.

Exit codes of commands that judge (DESIGN, section 4): 0 all PASS (gate open, pack intact) · 1 something FAILED
(gate closed, pack altered) · 2 wrong usage or set-up · 3 nothing failed, but something is inconclusive or refused ·
70 our own fault · 130 interrupted · 141 nobody read the answer to its end. ``validate`` keeps its source's 0/1/2.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import io
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import orjson

from harness import console, files, own, session, sweep
from harness.contracts import validate
from harness.drill.text import Specs, check, load
from harness.errors import DrillproofError, Refused, UsageError, WorldError
from harness.pack import sealing
from harness.pack.phases import OWN
from harness.selection import choose, drill_files
from harness.session import ROOT, Order, Result
from harness.sweep import parse_seeds
from harness.world import POLICY_BY_WORLD, WORLDS
from harness.world.stack import Stack, load_stack

if TYPE_CHECKING:
    from harness.fleet import Fleet

EVIDENCE = Path(os.environ.get("DRILLPROOF_EVIDENCE", "evidence"))
STACK = ROOT / "system_under_test" / "stack.yaml"
HERE = "stack.yaml"
JOBS = {"local": 3, "docker": 2}
"""Stacks side by side in a world that is real, where nobody asks for another number: each is ten nodes, in containers each
with its keeper, and two cores have to do for all of them without a sample being missed. In the sim: one for each core."""
SEED = 1
INTERRUPTED = 130
UNREAD = 141
OUT_BYTES_MIN = 1_048_576
"""A drill's folder takes several megabytes; with less room than this none could be recorded."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Every expected failure is one line on standard error and an exit code."""
    parser = _parser()
    args = parser.parse_args(arguments)
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
    policy = args.policy or (POLICY_BY_WORLD[args.world] if stack.policies else own.NO_POLICY)
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
        _remove_orphans()
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
    code = exit_code(each.verdict for each in results)
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


def _machines(pairs: Sequence[str], nodes: Collection[str]) -> dict[str, str]:
    machines = {}
    for each in pairs:
        node, _, factory = each.partition("=")
        module, _, function = factory.partition(":")
        if not (module and function):
            raise UsageError(f"--machine: found {each!r}, expected NODE=package.module:function")
        if node not in nodes:
            raise UsageError(f"--machine: no node {node!r}; known: {', '.join(nodes)}")
        _must_be_a_module(module, "--machine")
        machines[node] = factory
    return machines


def _must_be_a_module(name: str, where: str) -> None:
    try:
        found = importlib.util.find_spec(name)
    except ImportError:  # of a package above it
        found = None
    if found is None:
        raise UsageError(f"{where}: no module {name!r}")


def _side_by_side(args: argparse.Namespace) -> int:
    """How many stacks run at once."""
    return args.jobs or JOBS.get(args.world) or len(os.sched_getaffinity(0))


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


def _remove_orphans() -> int:
    """Containers of runs whose harness and folder are gone; how many runs those were. Raises NotHealed without an engine."""
    from harness.world.real import container_undo

    runs = container_undo.orphans()
    for run in runs:
        print(f"drillproof: {run} has lost its folder; removed {_counts(container_undo.remove(run))} of it", file=sys.stderr)
    return len(runs)


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
            print(console.plain(each), file=sys.stderr)
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
        print(f"{console.painted(verdict['verdict'], sys.stdout)} {verdict['drill']} ({verdict['status']}); {note}")
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
    sides = [compare.runs_of(name, runs) for name in (args.a, args.b)]
    both = [drill for drill in sides[0] if drill in sides[1]]
    alone, not_run = compare.unpaired(*sides)
    if not both:
        raise compare.Unusable(f"{args.a} and {args.b} have no drill in common")
    found = [compare.compare(*(compare.Side.read(side[drill]) for side in sides)) for drill in both]
    agree = not alone and all(each.agree for each in found)
    if args.json:
        _print_json({"agree": agree, "not_run": not_run, "only_a": [each for each in alone if each in sides[0]],
                     "only_b": [each for each in alone if each in sides[1]], "drills": [each.to_json() for each in found]})
        return 0 if agree else 1
    if len(found) == 1 and not alone:
        print(compare.render(found[0], sys.stdout))
    else:
        print(compare.table(found, alone, sides[0], sys.stdout))
    _print_lines(not_run)
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

    choice = choose(args.drills or load_phase(ROOT, 2).sets, args.world)
    plan = mutants.plan(Path(args.stack).resolve(), Path(args.catalogue) if args.catalogue else None, choice.files,
                        args.only, world=args.world, policy=args.policy, seed=args.seed, quick=args.quick)
    for each in plan.mutants:
        _must_be_a_module(each.machine.partition(":")[0], f"{plan.catalogue.file}: mutant {each.name!r}")
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
    file = None if plan.left_out else mutants.store(matrix, out)
    if args.json:
        sys.stdout.buffer.write(matrix.data)
    else:
        print(mutants_view.render(matrix, sys.stdout))
        _print_lines(choice.says())
        print(f"Kept: {console.shown(file)}" if file else f"Not kept: {console.counted(plan.left_out, 'sabotage')} left out")
    return max(made.errors) if made.errors else int(not matrix.whole)


# ---- pack, verify, gate -----------------------------------------------------------------------------------


def pack(args: argparse.Namespace) -> int:
    """Make a phase's evidence pack of the newest run of each of its drills, or join the shards of several machines."""
    from harness.pack.build import build, left_out, newest_runs

    if args.merge:
        return _merge(args)
    if args.phase is None:
        raise UsageError("say of which phase: drillproof pack 2")
    stack = _stack_of(args)
    for each in args.runs:
        _must_be_a_folder(each)
    runs = [Path(each) for each in args.runs] or newest_runs(Path(args.out) / "runs", args.phase, args.world, ROOT,
                                                            own.drills_of(stack) if stack else None, args.sets or ())
    made = build(runs, args.phase, Path(args.out), ROOT)
    _print_lines(left_out(made))
    print(f"{made}\n{made / 'SUMMARY_1PAGE.md'}")
    return 0


def _merge(args: argparse.Namespace) -> int:
    from harness.pack.build import left_out
    from harness.pack.merge import merge

    if args.runs:
        raise UsageError(f"{args.runs[0]}: a pack is made of runs or of shards; name one of both")
    if args.phase is not None:
        _must_be_a_phase(args.phase)
    for each in args.merge:
        _must_be_a_folder(each)
    made = merge([Path(each) for each in args.merge], args.phase, Path(args.out), ROOT)
    _print_lines(left_out(made))
    print(f"{made}\n{made / 'SUMMARY_1PAGE.md'}")
    return 0


def trend_command(args: argparse.Namespace) -> int:
    """Draw the packs of a phase night after night."""
    from harness.pack.trend import trend, trend_page

    target = Path(args.to) if args.to else Path(args.out) / "trend.html"
    found = trend(Path(args.out), args.phase, args.last)
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
    from harness.pack.manifest import Finding, examine
    from harness.pack.seals import ATTESTATION

    code = 0
    for name in args.packs:
        _must_be_a_folder(name)
        trusted = _trusted(args)
        seen = examine(Path(name), trusted)
        findings = seen.findings
        if trusted is not None and not findings and not seen.attestation.good:
            findings = (Finding("SEAL", ATTESTATION, f"nobody on the list of trusted keys vouches for it ({seen.seal_says})"),)
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
    decision = gate_room.decide(args.phase, Path(args.out), ROOT, only=args.only, trusted=_trusted(args),
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
        raise UsageError(f"{name}: no such folder")


# ---- recover, doctor, nodes by hand -----------------------------------------------------------------------


def recover_command(args: argparse.Namespace) -> int:
    """Undo what runs left behind, as the janitor does."""
    from harness.world.real.undo import leftovers, recover

    folders = [Path(each) for each in args.runs] or leftovers(Path(args.out) / "runs")
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
    orphans = 0
    if not args.runs:
        with suppress(WorldError):  # without an engine there are no containers either
            orphans = _remove_orphans()
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
    from harness.contracts.validate import TIMEOUT_S_MAX, read_policy

    if not 0 < args.timeout <= TIMEOUT_S_MAX:
        raise UsageError(f"--timeout {args.timeout}: expected seconds above 0 and up to {TIMEOUT_S_MAX:g}")
    told = floor.ask(floor.whom(args.url, args.run), max(1, round(args.timeout * 1000)),
                     read_policy(Path(args.policy)) if args.policy else None)
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


# ---- parsers ----------------------------------------------------------------------------------------------


def _whole(least: int) -> Callable[[str], int]:
    """A whole number from ``least`` on, as an argparse type."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or not least <= int(text) < 2**63:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number of at least {least}")
        return int(text)

    return parse


def _phase(text: str) -> int:
    """``2``, or ``own``, as an argparse type."""
    return OWN if text == "own" else _whole(1)(text)


def _here() -> str:
    """The stack that is meant where none is named: the one in this folder, else the reference."""
    return HERE if Path(HERE).is_file() else str(STACK)


def _give_example(parser: argparse.ArgumentParser, example: str, **of_parts: str) -> None:
    """To a command, and to what a command that another room declares is made of."""
    parser.epilog = f"example:  {example}"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, part in action.choices.items():
                _give_example(part, of_parts.get(name, example))


class Parser(argparse.ArgumentParser):
    """Wrong usage is one line that says where to read on; the whole usage is what ``--help`` is for."""

    def error(self, message: str) -> NoReturn:
        self.exit(UsageError.code, f"{self.prog}: {console.plain(message)} ({self.prog} --help)\n")


def commands() -> tuple[str, ...]:
    """The names of all commands."""
    (action,) = (each for each in _parser()._actions if isinstance(each, argparse._SubParsersAction))
    return tuple(action.choices)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="drillproof", description="Break a trading system for real, judge it from the "
                                     "recording alone, hand over a pack that can be checked without trusting us.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, function: Any, help: str, example: str) -> argparse.ArgumentParser:
        end = "" if help.endswith("?") else "."
        made = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}{end}")
        _give_example(made, example)
        made.set_defaults(command=function)
        return made

    each = command("run", run, "run drills and judge them", "drillproof run phase2 --world sim")
    each.add_argument("paths", nargs="*", metavar="PATH|phase2", help="drill files, folders or short names (default: phase2)")
    each.add_argument("--world", choices=WORLDS, default="local",
                      help="local: real processes through Toxiproxy (default) · sim: simulated, seeded")
    seeds = each.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=_whole(0), metavar="N", help=f"default: {SEED}")
    seeds.add_argument("--seeds", metavar="A..B", help="every drill under each of many seeds: 0..99, or 1,5,8..10; "
                       "ends with a table of what came of each drill")
    each.add_argument("--keep", choices=("all", "unless-passed"),
                      help="run folders that stay (default: all; of many seeds in the sim, those that did not pass)")
    each.add_argument("--jobs", type=_whole(1), metavar="N", help="stacks side by side (default: one for each "
                      f"core in the sim, {JOBS['local']} in local, {JOBS['docker']} in docker)")
    each.add_argument("--stack", default=_here(), help="the system under test (default: ./stack.yaml, else the reference)")
    each.add_argument("--policy", help="default: reference in the sim, drill in real worlds")
    each.add_argument("--out", default=str(EVIDENCE), help="evidence folder (default: evidence)")
    each.add_argument("--shard", metavar="K/N", help="of the drills only the K-th of N parts, about as long as the others; "
                      "`pack --merge` joins what N machines ran")
    each.add_argument("--again", action="store_true", help="what is INCONCLUSIVE once more, one by one; the log keeps both")
    each.add_argument("--tell", action="store_true", help=argparse.SUPPRESS)  # of a rehearsal: this process packs it next
    each.add_argument("--placebo", action="store_true", help="keep the marks, drop the force: a promise must FAIL")
    each.add_argument("--machine", action="append", default=[], metavar="NODE=MODULE:FUNCTION",
                      help="run another machine in a node's place, such as a mutant")
    each.add_argument("--hold", action="store_true", help="leave the stack up after a failure; print ports and logs")
    each.add_argument("--json", action="store_true", help="print for machines")

    each = command("judge", judge_command, "judge recordings again, from their folders alone",
                   "drillproof judge evidence/phase2/incident_drills/drill_2_market_data_stale")
    each.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or a pack's incident_drills/…")
    each.add_argument("--rules", help="folder with specs/ and fixtures/ (default: the pack's own, else this checkout's)")
    each.add_argument("--all", action="store_true", help="print what passed, too")
    each.add_argument("--json", action="store_true", help="print for machines")

    each = command("compare", compare_command, "show the same drill in two runs side by side; of two packs, what got worse",
                   "drillproof compare last now")
    for side in ("a", "b"):
        each.add_argument(side, metavar=f"RUN|PACK_{side.upper()}", help="a run folder; or, to compare drill by drill, a "
                          "folder of runs or a world's name (its newest runs); or a pack: its folder, `now` (the newest), "
                          "`last` (the one before), `baseline` (the budget's)")
    each.add_argument("--courses", action="store_true", help="of two packs, too: modes, reasons and latch codes side by side")
    each.add_argument("--budget", metavar="FILE", help="how much worse a pack may be (default: budget.yaml of the evidence)")
    each.add_argument("--phase", type=_whole(1), default=2, metavar="N", help="the phase of `last` and `now` (default: 2)")
    each.add_argument("--may-be-first", action="store_true", help="where there is no pack before: say so, and exit with 0")
    each.add_argument("--out", default=str(EVIDENCE), help="evidence folder (default: evidence)")
    each.add_argument("--json", action="store_true", help="print for machines")

    each = command("check", check_command, "read drills without running them", "drillproof check drills/phase2")
    each.add_argument("paths", nargs="*", metavar="PATH|phase2", help="drill files, folders or short names (default: phase2)")
    each.add_argument("--stack", default=_here(), help="the system under test (default: ./stack.yaml, else the reference)")
    each.add_argument("--policy", help="whose durations count (default: reference)")

    each = command("init", init, "write a stack, a steady-state check and a first drill for a system of your own",
                   "drillproof init --command ./router --status-url http://127.0.0.1:8080/health")
    how = each.add_mutually_exclusive_group(required=True)
    how.add_argument("--command", metavar="CMD", dest="own_command",
                     help="what starts it: './router -v', or './router --port {port:http}' if it is told by an argument")
    how.add_argument("--image", metavar="NAME", help="the image that it ships as; it runs in the world docker")
    each.add_argument("--status-url", required=True, metavar="URL",
                        help="where it says how it is, as JSON, when you run it by hand: http://127.0.0.1:8080/health")
    each.add_argument("--upstream", action="append", default=[], metavar="[NAME=][http://]HOST:PORT",
                        help="a server on this machine that it dials and that drills shall break; may be repeated")
    each.add_argument("--upstream-image", action="append", default=[], metavar="NAME=[http://]IMAGE:PORT",
                      help="beside --image: what it dials, as an image and the port in it")
    each.add_argument("--steady", action="append", default=[], metavar="FIELD=VALUE",
                        help="what its status says when all is well (default: guessed from the URL, if somebody answers)")
    each.add_argument("--safe", action="append", default=[], metavar="FIELD=VALUE",
                        help="what its status says when it has stopped doing what could hurt")
    each.add_argument("--listen-env", default="LISTEN", metavar="NAME",
                        help="the variable by which it is told host:port to listen on (default: LISTEN)")
    each.add_argument("--name", help="its name (default: of the command or image)")
    each.add_argument("--out", default=".", metavar="FOLDER", help="default: this folder")
    each.add_argument("--force", action="store_true", help="replace files that are there already")

    each = command("mutants", mutants_command, "run the drills against every sabotage of the system: who notices what?",
                   "drillproof mutants --quick")
    each.add_argument("--quick", action="store_true", help="each sabotage under its own drill only (seconds, not minutes)")
    each.add_argument("--drills", nargs="+", metavar="PATH|SET", help="default: phase2, ops and state")
    each.add_argument("--only", action="append", default=[], metavar="NAME|ORGAN",
                      help="these sabotages only; the matrix is not kept")
    each.add_argument("--world", choices=WORLDS, default="sim", help="sim (default) · local: real processes, hours")
    each.add_argument("--seed", type=_whole(0), default=SEED, metavar="N", help=f"default: {SEED}")
    each.add_argument("--jobs", type=_whole(1), metavar="N", help="runs side by side (default: one for each core in the sim, "
                      f"{JOBS['local']} in local)")
    each.add_argument("--stack", default=str(STACK), help="the system under test (default: the reference stack)")
    each.add_argument("--catalogue", metavar="FILE", help="its sabotages (default: what the stack names under `mutants`)")
    each.add_argument("--policy", default="drill", help="default: drill")
    each.add_argument("--out", default=str(EVIDENCE), help="evidence folder, for mutants/ in it (default: evidence)")
    each.add_argument("--keep", metavar="FOLDER", help="keep the run folders there (default: throw them away)")
    each.add_argument("--json", action="store_true", help="print for machines")

    validate.add_parser(commands)
    url = "http://127.0.0.1:8080/api/v1/status"
    _give_example(commands.choices["validate"], f"drillproof validate status --url {url}", **{
        "ops-status": "drillproof validate ops-status --url http://127.0.0.1:8082/ops/status",
        "own": "drillproof validate own --schema status.schema.json --url http://127.0.0.1:8080/health",
        "state": "drillproof validate state logs/state"})

    each = command("floor", floor_command, "ask every service for its ops status, and say what state they make together",
                   "drillproof floor --url marketdata=http://127.0.0.1:8081 --url execution=http://127.0.0.1:8082")
    each.add_argument("--url", action="append", default=[], metavar="NAME=URL", help="a service; repeat for each")
    each.add_argument("--run", metavar="FOLDER", help="the services of a stack that is held (`run --hold`), by its run folder")
    each.add_argument("--policy", metavar="F", help="the policy in force: its thresholds must be the services'")
    each.add_argument("--timeout", type=float, default=1.5, metavar="S", help="seconds for each service (default: 1.5)")
    each.add_argument("--json", action="store_true", help="print for machines")

    each = command("pack", pack, "make a phase's evidence pack of the newest run of each of its drills",
                   "drillproof pack 2 --world local")
    each.add_argument("phase", type=_phase, nargs="?", metavar="N|own",
                      help="number of the phase, such as 2 (of shards: theirs), or own: the drills beside your own stack")
    each.add_argument("runs", nargs="*", metavar="RUN", help="run folders (default: the newest of each drill)")
    each.add_argument("--sets", nargs="+", metavar="SET", help="only drills of these folders (default: all of the phase)")
    each.add_argument("--merge", nargs="+", metavar="SHARD", help="join what several machines ran: packs, or evidence folders "
                      "of `run --shard`; every shard is verified first")
    each.add_argument("--world", choices=WORLDS, default="local", help="whose runs (default: local)")
    each.add_argument("--stack", default=_here(), help="whose drills own are (default: ./stack.yaml)")
    each.add_argument("--out", default=str(EVIDENCE), help="evidence folder (default: evidence)")

    each = command("trend", trend_command, "draw the packs of a phase night after night, as one page", "drillproof trend")
    each.add_argument("--to", metavar="FILE", help="the page (default: trend.html in the evidence folder)")
    each.add_argument("--phase", type=_whole(1), default=2, metavar="N", help="default: 2")
    each.add_argument("--last", type=_whole(1), default=30, metavar="N", help="so many packs at most (default: 30)")
    each.add_argument("--out", default=str(EVIDENCE), help="evidence folder (default: evidence)")

    each = command("prune", prune_command, "take away old packs and run folders by retention.yaml; the run log keeps a trace",
                   "drillproof prune --dry-run")
    each.add_argument("--dry-run", action="store_true", help="take nothing away; say what would go, what stays, and why")
    each.add_argument("--all", action="store_true", help="name every run that stays, too")
    each.add_argument("--retention", metavar="FILE", help="what may go (default: retention.yaml of the evidence)")
    each.add_argument("--out", default=str(EVIDENCE), help="evidence folder (default: evidence)")
    each.add_argument("--json", action="store_true", help="print for machines")

    each = command("verify", verify, "check that a pack is intact and re-derive everything in it",
                   "drillproof verify evidence/phase2")
    each.add_argument("packs", nargs="+", metavar="PACK", help="pack folders, such as evidence/phase2")
    each.add_argument("--signers", metavar="FILE", help="list of trusted keys: whose seal counts")
    each.add_argument("--json", action="store_true", help="print for machines")

    each = command("gate", gate, "decide a phase from its packs, item by item", "drillproof gate 2 --only fault-injection")
    each.add_argument("phase", type=_phase, metavar="N|own", help="number of the phase, such as 2, or own: your own checklist")
    each.add_argument("--stack", default=_here(), help="whose checklist own is (default: ./stack.yaml)")
    each.add_argument("--only", metavar="GROUP", help="decide for one group of items")
    each.add_argument("--signers", metavar="FILE", help="list of trusted keys: whose sign-off counts for MANUAL items")
    each.add_argument("--out", default=str(EVIDENCE), help="evidence folder (default: evidence)")
    each.add_argument("--json", action="store_true", help="print for machines")

    sealing.add_parser(commands)
    attest = "drillproof seal attest evidence/phase2 --key ~/.keys/engineer.pem"
    _give_example(commands.choices["seal"], attest, **{
        "key": "drillproof seal key ~/.keys/engineer.pem",
        "sign-off": 'drillproof seal sign-off evidence/phase2 --key ~/.keys/owner.pem --name "Her Name" '
                    '--saw "P2-O-SIGNOFF=read the summary"'})

    each = command("recover", recover_command, "undo what killed runs left behind", "drillproof recover")
    each.add_argument("runs", nargs="*", metavar="RUN", help="run folders (default: all that were left)")
    each.add_argument("--out", default=str(EVIDENCE), help="evidence folder (default: evidence)")

    each = command("doctor", doctor, "say what this machine can do, and how to get what is missing", "drillproof doctor")
    each.add_argument("--json", action="store_true", help="print for machines")

    for name, listen in (("exchange", "api=127.0.0.1:8090"), ("trader", "control_plane=127.0.0.1:8080")):
        each = command(name, node, f"run the reference {name} in the foreground", f"drillproof {name} --listen {listen}")
        each.set_defaults(node=name)
        each.add_argument("--stack", default=str(STACK), help="default: the reference stack")
        each.add_argument("--policy", default="reference", help="default: reference, as validate expects it")
        each.add_argument("--listen", action="append", default=[], metavar="PORT=HOST:N", help=f"default: {listen}")
        each.add_argument("--url", action="append", default=[], metavar="LINK=HOST:N",
                          help="where a link leads (default: the exchange's default port)")
        each.add_argument("--data", help=f"data folder (default: .drillproof/by-hand/{name} in the checkout)")

    each = command("toxiproxy", setup_toxiproxy, "find the Toxiproxy server, or build it with Go", "drillproof toxiproxy")
    each.add_argument("--quiet", action="store_true", help="say nothing when it is there")
    return parser


def console_entry() -> None:
    """For ``python -m harness.cli``."""
    sys.exit(main())


if __name__ == "__main__":
    console_entry()
