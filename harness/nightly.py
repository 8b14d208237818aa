"""The night, ``make nightly``: the drills of Phase 2 in shards, joined into one pack, verified, compared with the last
one, drawn, what may go, and the gate as the last word. The same commands as in ``.github/workflows/nightly.yml``, here on
one machine.

    python -m harness.nightly [--world docker] [--policy reference] [--shards 2] [--jobs N]
    python -m harness.nightly --summary FILE      only the summary of the newest pack, added to the end of a file

Every step is told with its command and what came of it. A night goes on after a drill or a comparison that failed, and
ends where there is no pack to go on with. Each shard keeps its run log in ``evidence/nightly/``, and its runs until they
are in the pack. The sim is for trying: no gate opens from it, so there the gate is shown and does not count.
"""

from __future__ import annotations

import argparse
import io
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from harness import arguments, cli, console, engine, files, mutants
from harness.errors import DrillproofError
from harness.mainjob import CUT_SHORT, GROUP, PHASE, SETS, proven, worst
from harness.selection import choose

GROUPS = {"containers": ("docker",), GROUP: ("docker", "local")}
"""What the night decides, the last of them last; and the worlds from which it can be opened at all."""
PLACE = "nightly"
LAST, NOW = "last", "now"
SUMMARY = "nightly.md"


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the night. ``needed``: without it there is nothing to go on with. ``counts``: for the exit code."""

    name: str
    words: tuple[str, ...]
    needed: bool = False
    counts: bool = True

    def __str__(self) -> str:
        return shlex.join(("drillproof", *self.words))


def shard_steps(world: str, policy: str, number: int, of: int, jobs: int | None, out: Path) -> list[Step]:
    """What one machine does. ``jobs``: None leaves it to `run` how many stacks stand side by side."""
    shard, place = f"{number}/{of}", str(out)
    return [Step(f"run shard {shard}", ("run", *SETS, "--world", world, "--policy", policy, "--shard", shard,
                                        *(("--jobs", str(jobs)) if jobs else ()), "--again", "--out", place)),
            Step(f"pack shard {shard}", ("pack", str(PHASE), "--world", world, "--out", place), needed=True)]


def night_steps(shards: Sequence[Path], out: Path, world: str) -> list[Step]:
    """What is done once, with what all of them left. Where a whole matrix of this build is kept, red has been seen."""
    at = ("--out", str(out))
    pack = str(out / f"phase{PHASE}")
    seen = mutants.red_was_seen(out, arguments.STACK, choose(SETS, "sim").files)
    return [*([] if seen else [Step("see red", ("mutants", "--quick", *at))]),
            Step("join", ("pack", str(PHASE), "--merge", *map(str, shards), *at), needed=True),
            Step("verify", ("verify", pack), needed=True),
            Step("compare", ("compare", LAST, NOW, "--may-be-first", *at)),
            Step("trend", ("trend", *at)),
            Step("prune", ("prune", "--dry-run", *at)),
            *(Step(f"gate {group}", ("gate", str(PHASE), "--only", group, *at), counts=world in worlds)
              for group, worlds in GROUPS.items())]


def main() -> int:
    """The worst code of the steps that count and of the drills in the pack: 2, 70 or 130 before 1, before 3."""
    parser = argparse.ArgumentParser(prog="python -m harness.nightly", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="docker")
    parser.add_argument("--policy", default="reference")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--jobs", type=int, help=f"drills side by side within a shard (default: {arguments.JOBS})")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="only tell the newest pack, at the end of FILE")
    parser.add_argument("--out", type=Path, default=arguments.EVIDENCE)
    args = parser.parse_args()
    try:
        if args.summary is not None:
            return summarise(args.summary, args.out)
        with files.alone(args.out / PLACE / ".lock", wait=False):
            return night(args)
    except BlockingIOError:
        print(f"drillproof: {args.out / PLACE}: another night is under way there", file=sys.stderr)
        return 2
    except DrillproofError as why:
        print(f"drillproof: {why}", file=sys.stderr)
        return why.code


def night(args: argparse.Namespace) -> int:
    """All of it, one step after the other, and a table at the end."""
    if args.world == "docker" and (unready := engine.main(["images"])):
        return unready
    if args.world == "local" and (missing := cli.main(["toxiproxy", "--quiet"])):
        return missing
    places = [args.out / PLACE / f"shard-{number}-of-{args.shards}" for number in range(1, args.shards + 1)]
    steps = [step for number, place in enumerate(places, 1)
             for step in shard_steps(args.world, args.policy, number, args.shards, args.jobs, place)]
    done = walk([*steps, *night_steps(places, args.out, args.world)])
    if done[-1][1] == cli.INTERRUPTED:
        return cli.INTERRUPTED
    held = 0
    if any(step.name == "verify" and not code for step, code in done):
        for place in places:
            _let_go(place)
        held = proven(args.out / f"phase{PHASE}")  # also of drills that no item of what the night decides names
        summarise(args.out / SUMMARY, args.out, fresh=True)
    print(f"\n{told(done, args.world)}")
    return worst([held, *(code for step, code in done if step.counts)])


def walk(steps: Sequence[Step]) -> list[tuple[Step, int]]:
    """The steps that were taken, each with its code."""
    done: list[tuple[Step, int]] = []
    for step in steps:
        print(f"\n=== {step.name}: {step}", flush=True)
        code = cli.main(list(step.words))
        done.append((step, code))
        if code == cli.INTERRUPTED or (code and step.needed) or (step.name.startswith("run ") and code in CUT_SHORT):
            break
    return done


def told(done: Sequence[tuple[Step, int]], world: str) -> str:
    """The night as a table; a gate that this world cannot open is shown as what it is."""
    words = {0: "ok", 1: "FAILED", 3: "nothing proven", cli.INTERRUPTED: "interrupted"}
    rows = [["step", "", "code"]]
    for step, code in done:
        word = words.get(code, "could not be done")
        if step.name.startswith("gate "):
            word = "open" if code == 0 else "closed" + f", as always from {world}" * (not step.counts)
        rows.append([step.name, word, str(code)])
    return console.table(rows, sys.stdout)


def _let_go(place: Path) -> None:
    """The runs of a shard are in the joined pack now; its log stays, for the next night's chain goes on from it."""
    for each in sorted(place.iterdir()):
        if each.is_dir() and (each.name == "runs" or each.name.split(".")[0] == f"phase{PHASE}"):
            shutil.rmtree(each)


# ---- the summary ------------------------------------------------------------------------------------------


def summarise(target: Path, out: Path, fresh: bool = False) -> int:
    """One page of Markdown: what the gate says, what got worse, and the pack's own first page."""
    pack = out / f"phase{PHASE}"
    parts = [f"# The night: {_say('verify', str(pack))[1].splitlines()[0]}"]
    for group in GROUPS:
        code, text = _say("gate", str(PHASE), "--only", group, "--out", str(out))
        parts += [f"\n## Gate, {group}: {'open' if code == 0 else 'closed'}\n", _fenced(text)]
    code, text = _say("compare", LAST, NOW, "--may-be-first", "--out", str(out))
    word = {0: "no regression", 1: "worse"}.get(code, "not comparable")
    parts += [f"\n## Compared with the last pack: {word}\n",
              _fenced(text), "\n## The pack\n", _fenced((pack / "SUMMARY_1PAGE.md").read_text())]
    with target.open("w" if fresh else "a") as stream:
        stream.write("\n".join(parts) + "\n")
    print(f"\nSummary: {console.shown(target)}")
    return 0


def _say(*words: str) -> tuple[int, str]:
    """A command's code and what it says, both streams."""
    heard = io.StringIO()
    with redirect_stdout(heard), redirect_stderr(heard):
        code = cli.main(list(words))
    return code, heard.getvalue().strip() or "nothing"


def _fenced(text: str) -> str:
    """As it is, in a block that nothing in it can end."""
    return f"```text\n{text.replace('`', chr(39))}\n```"


if __name__ == "__main__":
    sys.exit(main())
