"""What can be typed: the commands with their options, defaults and examples. What they do stands in ``cli``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from harness import console
from harness.contracts import validate
from harness.errors import UsageError
from harness.pack import sealing
from harness.pack.phases import OWN
from harness.session import ROOT
from harness.world import WORLDS

EVIDENCE = Path(os.environ.get("DRILLPROOF_EVIDENCE", "evidence"))
STACK = ROOT / "system_under_test" / "stack.yaml"
HERE = "stack.yaml"
JOBS = "one for each core in the sim, 3 in local, one for two cores in docker"
SEED = 1
OPEN_ENDED = ("paths", "runs", "packs")
"""What a command takes any number of; it may go on behind an option."""

Function = Callable[[argparse.Namespace], int]


def parse(functions: Mapping[str, Function], arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What was typed, with the function it asks for as ``command``. Ends with 2 and one line where it is wrong usage.

    ``functions``: name of a command → what does it."""
    parser = parser_of(functions)
    args, more = parser.parse_known_args(arguments)
    if more:  # argparse lets nothing open-ended go on behind an option: `pack 2 --world sim RUN`
        name = next((each for each in OPEN_ENDED if hasattr(args, each)), None)
        if name is None or any(each.startswith("-") for each in more):
            parser.error(f"unrecognized arguments: {' '.join(more)}")
        setattr(args, name, [*getattr(args, name), *more])
    return args


def side_by_side(world: str) -> int:
    """How many stacks run at once where nobody asks for a number. In a real world each is ten nodes, and no sample is to be
    missed: while containers of one stack are made and removed, two cores leave too little for the watch of another."""
    cores = len(os.sched_getaffinity(0))
    return {"sim": cores, "local": 3, "docker": max(1, cores // 2)}[world]


def commands(functions: Mapping[str, Function]) -> tuple[str, ...]:
    """The names of all commands."""
    (action,) = (each for each in parser_of(functions)._actions if isinstance(each, argparse._SubParsersAction))
    return tuple(action.choices)


def parser_of(functions: Mapping[str, Function]) -> argparse.ArgumentParser:
    """The whole command, and below it all that it takes."""
    parser = Parser(prog="drillproof", description="Break a trading system for real, judge it from the "
                    "recording alone, hand over a pack that can be checked without trusting us.")
    add = Adder(parser.add_subparsers(title="commands", metavar="COMMAND", required=True), functions)
    for declare in (_run, _judge, _compare, _check, _init, _mutants, _validate, _floor, _pack, _trend, _prune, _verify,
                    _gate, _seal, _recover, _doctor, _nodes, _toxiproxy):
        declare(add)
    _give_example(parser, "drillproof run 2_market_data_stale --world sim")
    return parser


class Parser(argparse.ArgumentParser):
    """Wrong usage is one line that says where to read on; the whole usage is what ``--help`` is for."""

    def error(self, message: str) -> NoReturn:
        self.exit(UsageError.code, f"{self.prog}: {console.plain(message)} ({self.prog} --help)\n")


class Adder:
    """Adds one command after the other to the parser of all."""

    def __init__(self, commands: Any, functions: Mapping[str, Function]) -> None:
        self.commands, self._functions = commands, functions

    def __call__(self, name: str, help: str, example: str, first: str = "") -> argparse.ArgumentParser:
        end = "" if help.endswith("?") else "."
        told = f"{help[0].upper()}{help[1:]}{end}"
        made: argparse.ArgumentParser = self.commands.add_parser(name, help=help, description=told)
        _give_example(made, example, first)
        made.set_defaults(command=self._functions[name])
        return made


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


def here() -> str:
    """The stack that is meant where none is named: the one in this folder, else the reference."""
    return HERE if Path(HERE).is_file() else str(STACK)


def _give_example(parser: argparse.ArgumentParser, example: str, first: str = "") -> None:
    """What can be typed in a fresh clone; ``first``: what it needs beside that."""
    parser.epilog = (f"first:    {first}\n" if first else "") + f"example:  {example}"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def _give_examples(command: argparse.ArgumentParser, **of_parts: tuple[str, str]) -> None:
    """To a command that another room declares and to what it is made of: to each its own, to the command that of the first."""
    _give_example(command, *next(iter(of_parts.values())))
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, part in action.choices.items():
                _give_example(part, *of_parts[name])


# ---- what several commands take ---------------------------------------------------------------------------


def _add_paths(each: argparse.ArgumentParser) -> None:
    each.add_argument("paths", nargs="*", metavar="PATH|SET",
                      help="drill files, folders, sets (phase2, ops, state) or short names (default: phase2)")


def _add_stack(each: argparse.ArgumentParser) -> None:
    each.add_argument("--stack", default=here(), help="the system under test (default: ./stack.yaml, else the reference)")


def _add_out(each: argparse.ArgumentParser) -> None:
    each.add_argument("--out", default=str(EVIDENCE), help="evidence folder (default: evidence)")


def _add_json(each: argparse.ArgumentParser) -> None:
    each.add_argument("--json", action="store_true", help="print for machines")


# ---- the commands, in the order of `drillproof --help` ----------------------------------------------------


def _run(add: Adder) -> None:
    each = add("run", "run drills and judge them", "drillproof run phase2 --world sim")
    _add_paths(each)
    each.add_argument("--world", choices=WORLDS, default="local",
                      help="local: real processes through Toxiproxy (default) · sim: simulated, seeded · docker: the "
                      "images that ship, in containers")
    seeds = each.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=_whole(0), metavar="N", help=f"default: {SEED}")
    seeds.add_argument("--seeds", metavar="A..B", help="every drill under each of many seeds: 0..99, or 1,5,8..10; "
                       "ends with a table of what came of each drill")
    each.add_argument("--keep", choices=("all", "unless-passed"),
                      help="run folders that stay (default: all; of many seeds in the sim, those that did not pass)")
    each.add_argument("--jobs", type=_whole(1), metavar="N", help=f"stacks side by side (default: {JOBS})")
    _add_stack(each)
    each.add_argument("--policy", help="default: reference in the sim, drill in real worlds")
    _add_out(each)
    each.add_argument("--shard", metavar="K/N", help="of the drills only the K-th of N parts, about as long as the others; "
                      "`pack --merge` joins what N machines ran")
    each.add_argument("--again", action="store_true", help="what is INCONCLUSIVE once more, one by one; the log keeps both")
    each.add_argument("--tell", action="store_true", help=argparse.SUPPRESS)  # of a rehearsal: this process packs it next
    each.add_argument("--placebo", action="store_true", help="keep the marks, drop the force: each drill must FAIL then "
                      "(exit code 0); one that passes proves nothing (1)")
    each.add_argument("--machine", action="append", default=[], metavar="NODE=MODULE:FUNCTION",
                      help="run another machine in a node's place, such as a mutant")
    each.add_argument("--hold", action="store_true", help="leave the stack up after a failure; print ports and logs")
    _add_json(each)


def _judge(add: Adder) -> None:
    each = add("judge", "judge recordings again, from their folders alone",
               "drillproof judge evidence/phase2/incident_drills/drill_2_market_data_stale",
               first="make drills")
    each.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or a pack's incident_drills/…")
    each.add_argument("--rules", help="folder with specs/ and fixtures/ (default: the pack's own, else this checkout's)")
    each.add_argument("--all", action="store_true", help="print what passed, too")
    _add_json(each)


def _compare(add: Adder) -> None:
    each = add("compare", "show the same drill in two runs side by side; of two packs, what got worse",
               "drillproof compare last now",
               first="make drills, twice")
    for side in ("a", "b"):
        each.add_argument(side, metavar=f"RUN|PACK_{side.upper()}", help="a run folder; or, to compare drill by drill, a "
                          "folder of runs or a world's name (its newest runs); or a pack: its folder, `now` (the newest), "
                          "`last` (the one before), `baseline` (the budget's)")
    each.add_argument("--courses", action="store_true", help="of two packs, too: modes, reasons and latch codes side by side")
    each.add_argument("--budget", metavar="FILE", help="how much worse a pack may be (default: budget.yaml of the evidence)")
    each.add_argument("--phase", type=_whole(1), default=2, metavar="N", help="the phase of `last` and `now` (default: 2)")
    each.add_argument("--may-be-first", action="store_true", help="where there is no pack before: say so, and exit with 0")
    _add_out(each)
    _add_json(each)


def _check(add: Adder) -> None:
    each = add("check", "read drills without running them", "drillproof check drills/phase2")
    _add_paths(each)
    _add_stack(each)
    each.add_argument("--policy", help="whose durations count (default: reference)")


def _init(add: Adder) -> None:
    each = add("init", "write a stack, a steady-state check and a first drill for a system of your own",
               "drillproof init --command ./router --status-url http://127.0.0.1:8080/health",
               first="a system of your own that is started by ./router; docs/your-own-system.md builds one")
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


def _mutants(add: Adder) -> None:
    each = add("mutants", "run the drills against every sabotage of the system: who notices what?",
               "drillproof mutants --quick")
    each.add_argument("--quick", action="store_true", help="each sabotage under its own drill only (a minute or two)")
    each.add_argument("--drills", nargs="+", metavar="PATH|SET",
                      help="default: those beside the stack, else phase2, ops and state")
    each.add_argument("--only", action="append", default=[], metavar="NAME|ORGAN",
                      help="these sabotages only; the matrix is not kept")
    each.add_argument("--world", choices=WORLDS, default="sim", help="sim (default) · local: real processes, hours")
    each.add_argument("--seed", type=_whole(0), default=SEED, metavar="N", help=f"default: {SEED}")
    each.add_argument("--jobs", type=_whole(1), metavar="N", help=f"runs side by side (default: {JOBS})")
    _add_stack(each)
    each.add_argument("--catalogue", metavar="FILE", help="other sabotages than those the stack names; the matrix is not kept")
    each.add_argument("--policy", default="drill", help="default: drill")
    each.add_argument("--out", default=str(EVIDENCE), help="evidence folder, for mutants/ in it (default: evidence)")
    each.add_argument("--keep", metavar="FOLDER", help="keep the run folders there (default: throw them away)")
    _add_json(each)


def _validate(add: Adder) -> None:
    validate.add_parser(add.commands)
    _give_examples(add.commands.choices["validate"], **{
        "status": ("drillproof validate status --file fixtures/status/market_data_stale.json", ""),
        "ops-status": ("drillproof validate ops-status --file fixtures/ops_status/ok.json", ""),
        "own": ("drillproof validate own --schema docs/examples/order-router/status.schema.json --url http://127.0.0.1:8080/health",
                "a system of your own that answers there, and its schema"),
        "state": ("drillproof validate state fixtures/state/lawful", "")})


def _floor(add: Adder) -> None:
    each = add("floor", "ask every service for its ops status, and say what state they make together",
               "drillproof floor --url marketdata=http://127.0.0.1:8081 --url execution=http://127.0.0.1:8082",
               first="services that answer there; whoever does not is OFFLINE")
    each.add_argument("--url", action="append", default=[], metavar="NAME=URL", help="a service; repeat for each")
    each.add_argument("--run", metavar="FOLDER", help="the services of a stack that is held (`run --hold`), by its run folder")
    each.add_argument("--policy", metavar="F", help="the policy in force: its thresholds must be the services'")
    each.add_argument("--timeout", type=float, default=1.5, metavar="S", help="seconds for each service (default: 1.5)")
    _add_json(each)


def _pack(add: Adder) -> None:
    each = add("pack", "make a phase's evidence pack of the newest run of each of its drills",
               "drillproof pack 2 --world local",
               first="drillproof run phase2 ops state --world local")
    each.add_argument("phase", type=_phase, nargs="?", metavar="N|own",
                      help="number of the phase, such as 2 (of shards: theirs), or own: the drills beside your own stack")
    each.add_argument("runs", nargs="*", metavar="RUN", help="run folders (default: the newest of each drill)")
    each.add_argument("--sets", nargs="+", metavar="SET", help="only drills of these folders (default: all of the phase)")
    each.add_argument("--merge", nargs="+", metavar="SHARD", help="join what several machines ran: packs, or evidence folders "
                      "of `run --shard`; every shard is verified first")
    each.add_argument("--world", choices=WORLDS, default="local", help="whose runs (default: local)")
    each.add_argument("--stack", default=here(), help="whose drills own are (default: ./stack.yaml)")
    _add_out(each)


def _trend(add: Adder) -> None:
    each = add("trend", "draw the packs of a phase night after night, as one page", "drillproof trend",
               first="make drills")
    each.add_argument("--to", metavar="FILE", help="the page (default: trend.html in the evidence folder)")
    each.add_argument("--phase", type=_whole(1), default=2, metavar="N", help="default: 2")
    each.add_argument("--last", type=_whole(1), default=30, metavar="N", help="so many packs at most (default: 30)")
    _add_out(each)


def _prune(add: Adder) -> None:
    each = add("prune", "take away old packs and run folders by retention.yaml; the run log keeps a trace",
               "drillproof prune --dry-run")
    each.add_argument("--dry-run", action="store_true", help="take nothing away; say what would go, what stays, and why")
    each.add_argument("--all", action="store_true", help="name every run that stays, too")
    each.add_argument("--retention", metavar="FILE", help="what may go (default: retention.yaml of the evidence)")
    _add_out(each)
    _add_json(each)


def _verify(add: Adder) -> None:
    each = add("verify", "check that a pack is intact and re-derive everything in it",
               "drillproof verify evidence/phase2",
               first="make drills")
    each.add_argument("packs", nargs="+", metavar="PACK", help="pack folders, such as evidence/phase2")
    each.add_argument("--signers", metavar="FILE", help="list of trusted keys: whose seal and sign-off count")
    _add_json(each)


def _gate(add: Adder) -> None:
    each = add("gate", "decide a phase from its packs, item by item", "drillproof gate 2 --only fault-injection",
               first="make drills; without a pack every item is closed")
    each.add_argument("phase", type=_phase, metavar="N|own", help="number of the phase, such as 2, or own: your own checklist")
    each.add_argument("--stack", default=here(), help="whose checklist own is (default: ./stack.yaml)")
    each.add_argument("--only", metavar="GROUP", help="decide for one group of items")
    each.add_argument("--signers", metavar="FILE", help="list of trusted keys: whose seal and sign-off count")
    _add_out(each)
    _add_json(each)


def _seal(add: Adder) -> None:
    sealing.add_parser(add.commands)
    _give_examples(add.commands.choices["seal"], **{
        "key": ("drillproof seal key ~/.keys/engineer.pem", "mkdir -m 700 ~/.keys"),
        "attest": ("drillproof seal attest evidence/phase2 --key ~/.keys/engineer.pem",
                   "make drills; drillproof seal key ~/.keys/engineer.pem"),
        "sign-off": ('drillproof seal sign-off evidence/phase2 --key ~/.keys/owner.pem --name "Her Name" '
                     '--saw "P2-O-SIGNOFF=read the summary"',
                     "drillproof seal attest …; drillproof seal key ~/.keys/owner.pem")})


def _recover(add: Adder) -> None:
    each = add("recover", "undo what killed runs left behind", "drillproof recover")
    each.add_argument("runs", nargs="*", metavar="RUN", help="run folders (default: all that were left)")
    _add_out(each)


def _doctor(add: Adder) -> None:
    each = add("doctor", "say what this machine can do, and how to get what is missing", "drillproof doctor")
    _add_json(each)


def _nodes(add: Adder) -> None:
    for name, listen in (("exchange", "api=127.0.0.1:8090"), ("trader", "control_plane=127.0.0.1:8080")):
        each = add(name, f"run the reference {name} in the foreground", f"drillproof {name} --listen {listen}",
                   first="drillproof exchange, in another terminal" if name == "trader" else "")
        each.set_defaults(node=name)
        each.add_argument("--stack", default=str(STACK), help="default: the reference stack")
        each.add_argument("--policy", default="reference", help="default: reference, as validate expects it")
        each.add_argument("--listen", action="append", default=[], metavar="PORT=HOST:N", help=f"default: {listen}")
        each.add_argument("--url", action="append", default=[], metavar="LINK=HOST:N",
                          help="where a link leads (default: the exchange's default port)")
        each.add_argument("--data", help=f"data folder (default: .drillproof/by-hand/{name} in the checkout)")


def _toxiproxy(add: Adder) -> None:
    each = add("toxiproxy", "find the Toxiproxy server, or build it with Go", "drillproof toxiproxy")
    each.add_argument("--quiet", action="store_true", help="say nothing when it is there")
