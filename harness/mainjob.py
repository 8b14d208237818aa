"""The main job, ``make drills``: run the drills of Phase 2, see them fail on sabotages, pack them, verify the pack, print
the gate's tables, exit by the gate, and by the drills that no gate here asks for.

Where the Toxiproxy server cannot be had, it says so with the line that installs it, and rehearses in the sim:
good for a look at the system, and never enough for the gate.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import arguments, cli, console, engine, files, mutants
from harness.errors import UsageError
from harness.gate import REAL_WORLDS
from harness.pack.phases import load_phase
from harness.pack.shelf import read_pack
from harness.selection import choose
from harness.session import ROOT

PHASE = 2
SETS = load_phase(ROOT, PHASE).sets
GROUP = "fault-injection"
GROUPS = {"phase2": GROUP}
"""Set → the group of the checklist that the gate decides of it; the other sets' groups have their names."""
CUT_SHORT = (2, 70, cli.INTERRUPTED, cli.UNREAD)
"""Codes of ``run`` after which there is nothing to pack."""


def main() -> int:
    """Returns the worst of what ``run``, ``mutants``, ``verify``, the gate of each set's group and ``proven`` return: an open
    gate says nothing of a drill that no item of its group names. 2, 70 or 130 when the drills could not be run to the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="local")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--policy", default="", help="default: reference in the sim, drill in real worlds")
    parser.add_argument("--sets", default=" ".join(SETS), help="folders of drills/ (default: %(default)s)")
    parser.add_argument("--out", default=str(arguments.EVIDENCE))
    args = parser.parse_args()
    world = args.world
    if world == "local" and cli.main(["toxiproxy", "--quiet"]):
        print("\nWithout a Toxiproxy server nothing can be proven in a real world here. Get one by the line above, then call "
              "`make drills` again.\nRehearsing in the sim instead; the gate will stay closed.\n", file=sys.stderr)
        world = "sim"
    if world == "docker" and (unready := engine.main(["images"])):
        return unready
    policy = ["--policy", args.policy] if args.policy else []
    again = ["--again"] if world in REAL_WORLDS else []  # an equal run in the sim has an equal end
    how = [*policy, *again]
    code = cli.main(["run", *args.sets.split(), "--world", world, "--seed", args.seed, "--out", args.out, *how])
    if code in CUT_SHORT:
        return code
    blind = _see_red(Path(args.out), args.sets.split())
    if blind in CUT_SHORT:
        return blind
    print()
    with files.alone(Path(args.out) / ".job.lock"):  # jobs side by side pack, verify and decide one after the other
        decided = _decide(world, args.out, args.sets.split())
    if code and not decided:
        print(f"\nThe gate asked for fewer drills than were run, and not all of these PASSED: exit code {code}.")
    return worst([decided, code, blind])


def worst(codes: Sequence[int]) -> int:
    """What could not be done at all comes before what failed, and that before what proved nothing."""
    return next((code for code in (cli.INTERRUPTED, 70, 2, 1, 3) if code in codes), next((each for each in codes if each), 0))


def _decide(world: str, out: str, sets: Sequence[str]) -> int:
    packed = cli.main(["pack", str(PHASE), "--sets", *sets, "--world", world, "--out", out])
    if packed:
        return packed
    intact = cli.main(["verify", str(Path(out) / f"phase{PHASE}")])
    decisions = []
    for each in sets:
        print()
        decisions.append(cli.main(["gate", str(PHASE), "--only", GROUPS.get(each, each), "--out", out]))
    held = proven(Path(out) / f"phase{PHASE}")
    print(f"\nOne-page summary: {Path(out) / f'phase{PHASE}' / 'SUMMARY_1PAGE.md'}")
    return intact or worst([*decisions, held])


def proven(pack: Path) -> int:
    """Whether every drill of a pack reads PASS in it; names those that do not. Neither does ``run`` know what a placebo or a
    later attempt says of a drill, nor a gate what no item of its group names. 3 where nothing is worse than INCONCLUSIVE."""
    told = read_pack(pack)
    if isinstance(told, str):
        print(f"\n{console.shown(pack)}: {console.plain(told)}")
        return UsageError.code
    left = {name: each.says for name, each in told.drills.items() if each.says != "PASS"}
    if left:
        print(f"\nNot PASS in this pack: {console.plain(', '.join(f'{name} ({says})' for name, says in left.items()))}")
    return 0 if not left else 3 if set(left.values()) == {"INCONCLUSIVE"} else 1


def _see_red(out: Path, sets: Sequence[str]) -> int:
    """Drills that never failed on anything prove nothing: where no whole matrix of this build is kept, make the quick one."""
    if mutants.red_was_seen(out, arguments.STACK, choose(sets, "sim").files):
        return 0
    print("\nEach sabotage of the catalogue under its own drill, in the sim, so that the pack can say that these drills see:",
          flush=True)
    return cli.main(["mutants", "--quick", "--out", str(out)])  # all of them: of some sets alone no matrix is kept


if __name__ == "__main__":
    sys.exit(main())
