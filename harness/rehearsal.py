"""The rehearsal, ``make rehearse``: the drills of Phase 2 in the simulator under the reference policy, judged and packed, and
how fast.

It ends by saying how many seconds of drill went through one core in a second, judging and packing included. A core second
is a second of wall time on each core that was asked for, or the CPU time that the processes took if that is more, so that
neither waiting nor a second core is left out. Each recording is judged once: a run tells its chapter of the pack, of the
reading that judged it, to this process (``harness.pack.told``). The runs and the pack lie in a place of their own, which the
next rehearsal empties: a rehearsal proves nothing to a gate.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from harness import cli, files
from harness.errors import DrillproofError, UsageError
from harness.mainjob import CUT_SHORT, PHASE, SETS
from harness.pack.derive import DRILLS
from harness.recording.tape import length_s
from harness.session import ROOT

PLACE = ROOT / ".drillproof" / "rehearsal"


@dataclass(frozen=True, slots=True)
class Figures:
    """What a rehearsal took. Memory is that of its largest process."""

    drills: int
    jobs: int
    drill_s: float
    wall_s: float
    cpu_s: float
    peak_mb: int
    drill_s_per_core_s: float

    def __str__(self) -> str:
        return (f"{self.drills} drills of together {self.drill_s:.0f} s, run, judged and packed in {self.wall_s:.1f} s of wall "
                f"time with {self.jobs} job{'s' * (self.jobs != 1)} ({self.cpu_s:.1f} s of CPU): {self.drill_s_per_core_s:.0f} "
                f"drill seconds per second on one core; largest process {self.peak_mb} MB")


def main() -> int:
    """Returns what ``run`` or ``pack`` returned: 0 when every drill passed and was packed."""
    parser = argparse.ArgumentParser(prog="python -m harness.rehearsal", description=__doc__)
    parser.add_argument("--policy", default="reference")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--sets", default=" ".join(SETS), help="folders of drills/ (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="drills side by side (default: 1)")
    parser.add_argument("--out", type=Path, default=PLACE, help="emptied first (default: .drillproof/rehearsal)")
    parser.add_argument("--json", action="store_true", help="print for machines")
    args = parser.parse_args()
    try:
        with _alone(args.out), redirect_stdout(sys.stderr if args.json else sys.stdout):
            return rehearse(args)
    except DrillproofError as why:
        print(f"drillproof: {why}", file=sys.stderr)
        return why.code


def rehearse(args: argparse.Namespace) -> int:
    """Run, pack, and tell what it took."""
    began = time.monotonic()  # ambient-ok: what a rehearsal takes is what it is about
    code = cli.main(["run", *args.sets.split(), "--world", "sim", "--policy", args.policy, "--seed", args.seed,
                     "--jobs", str(args.jobs), "--out", str(args.out), "--tell"])
    if code in CUT_SHORT:
        return code
    packed = cli.main(["pack", str(PHASE), "--world", "sim", "--out", str(args.out)])
    if packed:
        return packed
    figures = _figures(args.out / f"phase{PHASE}", args.jobs, time.monotonic() - began)  # ambient-ok: as above
    print(figures)
    if args.json:
        sys.__stdout__.write(orjson.dumps(asdict(figures), option=orjson.OPT_INDENT_2).decode() + "\n")  # type: ignore[union-attr]
    return code


def _figures(pack: Path, jobs: int, wall_s: float) -> Figures:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu_s = sum(each.ru_utime + each.ru_stime for each in (own, children))
    lengths = [length_s(file) for file in (pack / DRILLS).glob("*/recording.jsonl.gz")]
    return Figures(len(lengths), jobs, sum(lengths), wall_s, cpu_s, max(own.ru_maxrss, children.ru_maxrss) // 1024,
                   sum(lengths) / max(wall_s * jobs, cpu_s))


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """An empty place, for one rehearsal at a time. Raises UsageError for one that holds something else, or is taken."""
    with ExitStack() as stack:
        try:
            stack.enter_context(files.alone(place.with_name(f"{place.name}.lock"), wait=False))
        except BlockingIOError as why:
            raise UsageError(f"{place}: another rehearsal is under way there") from why
        if place.is_dir():
            if others := sorted({each.name for each in place.iterdir()} - {"runs", "runs.jsonl", f"phase{PHASE}",
                                                                           ".pack.lock"}):
                raise UsageError(f"{place}: holds {others[0]}, which no rehearsal left there; name an empty folder")
            shutil.rmtree(place)
        yield


if __name__ == "__main__":
    sys.exit(main())
