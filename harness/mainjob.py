"""The main job, ``make drills``: run Phase 2, see its drills fail on sabotages, pack it, verify the pack, print the
gate's table, exit by the gate.

Where the Toxiproxy server cannot be had, it says so with the line that installs it, and rehearses in the sim:
good for a look at the system, and never enough for the gate.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import orjson

from harness import cli, engine, files, mutants
from harness.errors import UsageError
from harness.gate import REAL_WORLDS
from harness.pack.build import newest_runs
from harness.selection import choose

PHASE = 2
GROUP = "fault-injection"
CUT_SHORT = (2, 70, cli.INTERRUPTED, cli.UNREAD)
"""Codes of ``run`` after which there is nothing to pack."""


def main() -> int:
    """Returns what ``gate 2 --only fault-injection`` returns; 2, 70 or 130 when the drills could not be run to the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="local")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--policy", default="", help="default: reference in the sim, drill in real worlds")
    parser.add_argument("--out", default=str(cli.EVIDENCE))
    args = parser.parse_args()
    world = args.world
    if world == "local" and cli.main(["toxiproxy", "--quiet"]):
        print("\nWithout a Toxiproxy server nothing can be proven in a real world here. Get one by the line above, then call "
              "`make drills` again.\nRehearsing in the sim instead; the gate will stay closed.\n", file=sys.stderr)
        world = "sim"
    if world == "docker" and (unready := engine.main(["images"])):
        return unready
    policy = ["--policy", args.policy] if args.policy else []
    options = ["--world", world, "--seed", args.seed, "--out", args.out, *policy]
    code = cli.main(["run", f"phase{PHASE}", *options])
    if code not in CUT_SHORT and (unclear := _could_not_be_told(Path(args.out), world)):
        print(f"\nOnce more, one by one, what could not be told: {', '.join(each.stem for each in unclear)}\n", flush=True)
        code = cli.main(["run", *map(str, unclear), *options, "--jobs", "1"])
    if code in CUT_SHORT:
        return code
    blind = _see_red(Path(args.out))
    if blind in CUT_SHORT:
        return blind
    print()
    with files.alone(Path(args.out) / ".job.lock"):  # jobs side by side pack, verify and decide one after the other
        return _decide(world, args.out) or blind


def _could_not_be_told(out: Path, world: str) -> list[Path]:
    """The drill files whose newest run is INCONCLUSIVE, in a real world: most often the machine was busy with other things.

    A FAIL is never tried again. The run log keeps both attempts, and the pack tells of them.
    """
    if world not in REAL_WORLDS:
        return []
    try:
        runs = newest_runs(out / "runs", PHASE, world, cli.ROOT)
    except UsageError:  # nothing was run at all, which packing says better
        return []
    return [cli.ROOT / "drills" / f"phase{PHASE}" / f"{judged['drill']}.yaml" for judged in map(_verdict, runs)
            if judged.get("verdict") == "INCONCLUSIVE" and judged.get("status") in ("completed", "aborted")]


def _verdict(folder: Path) -> dict[str, Any]:
    """What the run was judged to be; nothing where it was cut off before."""
    try:
        judged: dict[str, Any] = orjson.loads((folder / "verdict.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return judged


def _decide(world: str, out: str) -> int:
    packed = cli.main(["pack", str(PHASE), "--world", world, "--out", out])
    if packed:
        return packed
    intact = cli.main(["verify", str(Path(out) / f"phase{PHASE}")])
    print()
    decision = cli.main(["gate", str(PHASE), "--only", GROUP, "--out", out])
    print(f"\nOne-page summary: {Path(out) / f'phase{PHASE}' / 'SUMMARY_1PAGE.md'}")
    return intact or decision


def _see_red(out: Path) -> int:
    """Drills that never failed on anything prove nothing: where no matrix of this build is kept, make the quick one."""
    if mutants.of_this_build(out, cli.STACK, choose([f"phase{PHASE}"], "sim").files) is not None:
        return 0
    print("\nEach sabotage of the catalogue under its own drill, in the sim, so that the pack can say that these drills see:",
          flush=True)
    return cli.main(["mutants", "--quick", "--out", str(out)])


if __name__ == "__main__":
    sys.exit(main())
