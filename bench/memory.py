"""A long watch: what the simulated reference stack holds in memory as virtual time passes.

``python -m bench memory --virtual-min 1440`` watches a whole day. A shorter watch is drawn out to a day along a straight
line through its second half; the line says so. The watch has a process of its own, so that nothing else is measured.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import orjson

from harness.recording.tape import Tape
from harness.session import ROOT
from harness.world.sim.world import SimWorld
from harness.world.stack import load_stack

LOOKS = 12
DAY_MIN = 1_440


def lines(seed: int, policy: str, virtual_min: int) -> Iterator[str]:
    """The table's lines."""
    command = [sys.executable, "-m", "bench.memory", str(seed), policy, str(virtual_min)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as watch:
        assert watch.stdout is not None
        seen: list[tuple[int, float]] = []
        for line in watch.stdout:
            at_min, rss_mib, cpu_s = orjson.loads(line)
            seen.append((at_min, rss_mib))
            yield f"after {at_min:>5} virtual minutes {rss_mib:>8.1f} MiB resident {cpu_s:>9.1f} CPU s"
    if watch.returncode:
        raise SystemExit(f"the watch ended with code {watch.returncode}")
    (first_min, first), (last_min, last) = seen[len(seen) // 2], seen[-1]
    slope = (last - first) / (last_min - first_min)
    if last_min < DAY_MIN:
        after_day = last + slope * (DAY_MIN - last_min)
        yield (f"second half: {slope * 60:+.1f} MiB a virtual hour; along a straight line {after_day:.0f} MiB after a day"
               " (extrapolated)")


def watched(seed: int, policy: str, virtual_min: int) -> Iterator[tuple[int, float, float]]:
    """(virtual minutes, resident MiB, CPU seconds), a dozen times on the way."""
    stack = load_stack(ROOT / "system_under_test" / "stack.yaml")
    with tempfile.TemporaryDirectory() as place:
        tape = Tape(Path(place) / "run")
        world = SimWorld(stack, policy, stack.policy(policy), seed, tape.folder)
        world.watch("status", 50)
        world.start(tape)
        begin_ms, begin_s = world.now_ms(), time.process_time()
        for look in range(LOOKS + 1):
            at_min = virtual_min * look // LOOKS
            world.advance_to(begin_ms + at_min * 60_000)
            yield at_min, resident_mib(), time.process_time() - begin_s
        tape.seal("completed", world.stop())


def resident_mib() -> float:
    """What this process holds in memory now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4_096 / 1_048_576


if __name__ == "__main__":
    for seen in watched(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])):
        print(orjson.dumps(seen).decode(), flush=True)
