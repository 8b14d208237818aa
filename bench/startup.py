"""What a process costs before it does anything: each drill of a fleet has one of its own."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator

from harness.session import ROOT

STEPS = (
    ("the interpreter", "pass"),
    ("and a session", "import harness.session"),
    ("and the sim with its machines", "import harness.session, harness.world.sim.world, system_under_test.trader, "
                                      "system_under_test.exchange, system_under_test.watchdog"),
)


def lines(rounds: int) -> Iterator[str]:
    """The table's lines: CPU time of a child process, the best of so many."""
    before = 0.0
    for name, code in STEPS:
        seconds = min(_child_s(code) for _ in range(rounds))
        yield f"{name:<32}{seconds * 1_000:>8.0f} ms {(seconds - before) * 1_000:>+8.0f} ms"
        before = seconds


def _child_s(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
