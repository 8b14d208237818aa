"""The main job, ``make drills``: run Phase 2, pack it, verify the pack, print the gate's table, exit by the gate.

Where the Toxiproxy server cannot be had, it says so with the line that installs it, and rehearses in the sim:
good for a look at the system, and never enough for the gate.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness import cli

PHASE = 2
GROUP = "fault-injection"
CUT_SHORT = (2, 70, cli.INTERRUPTED)
"""Codes of ``run`` after which there is nothing to pack."""


def main() -> int:
    """Returns what ``gate 2 --only fault-injection`` returns; 2, 70 or 130 when the drills could not be run to the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="local")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--out", default=str(cli.EVIDENCE))
    args = parser.parse_args()
    world = args.world
    if world == "local" and cli.main(["toxiproxy", "--quiet"]):
        print("\nWithout a Toxiproxy server nothing can be proven in a real world here. Get one by the line above, then call "
              "`make drills` again.\nRehearsing in the sim instead; the gate will stay closed.\n", file=sys.stderr)
        world = "sim"
    code = cli.main(["run", f"phase{PHASE}", "--world", world, "--seed", args.seed, "--out", args.out])
    if code in CUT_SHORT:
        return code
    print()
    packed = cli.main(["pack", str(PHASE), "--world", world, "--out", args.out])
    if packed:
        return packed
    intact = cli.main(["verify", str(Path(args.out) / f"phase{PHASE}")])
    print()
    decision = cli.main(["gate", str(PHASE), "--only", GROUP, "--out", args.out])
    print(f"\nOne-page summary: {Path(args.out) / f'phase{PHASE}' / 'SUMMARY_1PAGE.md'}")
    return intact or decision


if __name__ == "__main__":
    sys.exit(main())
