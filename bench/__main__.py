"""``python -m bench``: tables of what things cost. Nothing is asserted: the exit code says only whether it ran."""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import contract, drills, engine, feed, judging, memory, sampling, startup, timing
from harness.session import ROOT

DRILLS = ROOT / "drills" / "phase2"


def main() -> int:
    """Print the chosen tables."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE",
                        help="contract, startup, engine, feed, sampling, memory, judging, drills, timing; all by default")
    parser.add_argument("--policy", default="reference")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="the best round counts")
    parser.add_argument("--virtual-min", type=int, default=24, help="how long what is watched or judged lasts; 1440 is a day")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        tables: dict[str, tuple[str, Callable[[], Iterator[str]]]] = {
            "contract": ("one status document", lambda: contract.lines(args.rounds)),
            "startup": ("before anything happens", lambda: startup.lines(args.rounds)),
            "engine": ("one drill without what it waits for", lambda: engine.lines(args.rounds, Path(place))),
            "feed": ("the bare simulator, a plain feed", lambda: feed.lines(args.rounds)),
            "sampling": (f"a virtual minute, policy {args.policy}",
                         lambda: sampling.lines(args.rounds, args.seed, args.policy)),
            "memory": (f"resident memory as virtual time passes, policy {args.policy}",
                     lambda: memory.lines(args.seed, args.policy, args.virtual_min)),
            "judging": (f"a long recording is judged, policy {args.policy}",
                        lambda: judging.lines(args.seed, args.policy, args.virtual_min, Path(place) / "judging")),
            "drills": (f"the drills of phase 2, policy {args.policy}, seed {args.seed}",
                       lambda: drills.lines(sorted(DRILLS.glob("*.yaml"), key=_number), args.seed, args.policy, Path(place))),
            "timing": ("drill 9 in real processes, policy drill: were we on time? (wall seconds)",
                       lambda: timing.lines(args.seed, Path(place))),
        }
        if unknown := set(args.tables) - set(tables):
            parser.error(f"no table {', '.join(sorted(unknown))}; known: {', '.join(tables)}")
        print(f"python {platform.python_version()}, {platform.machine()}; CPU seconds, best of {args.rounds}")
        for name in args.tables or tables:
            title, lines = tables[name]
            print(f"\n{name}: {title}")
            for line in lines():
                print(f"  {line}", flush=True)
    return 0


def _number(file: Path) -> int:
    return int(file.stem.partition("_")[0])


if __name__ == "__main__":
    sys.exit(main())
