"""What nobody declared: Toxiproxy, the exchange or the trader killed or frozen in the middle of a real run; that
Toxiproxy lies is in tests/attack.

Whatever it is, the verdict is never PASS, nothing of the run is left, and the recording can be read.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_kit import lines, order

from harness.recording.timeline import Timeline
from harness.session import Result, conduct
from harness.world.real import setup
from harness.world.real.undo import leftovers, standing

STALL = "short_stall"
UP_WITHIN_S, GONE_WITHIN_S = 60, 20


def processes_of(runs: Path) -> dict[int, bytes]:
    """Living processes that carry a run of this folder, by pid, with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and str(runs).encode() in environment + command:
                found[int(entry.name)] = command
        except OSError:
            continue
    return found


def carrying(marker: str) -> list[int]:
    """Living processes with the run's marker in their environment."""
    from harness.world.real.processes import marked

    return [each.pid for each in marked(marker)]


class Watched:
    """A run in this process, with something done to it from outside when its fault has stood for a while."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self._fault = threading.Event()

    def conduct(self, deed: Callable[[Path], None], drill: str = STALL, after_s: float = 0.6) -> Result:
        assert setup.find() is not None, f"the Toxiproxy server is needed here: {setup.explain()}"

        def outside() -> None:
            if self._fault.wait(UP_WITHIN_S):
                time.sleep(after_s)
                deed(next(self.runs.iterdir()))

        def told(word: str, facts: object) -> None:
            if word == "inject":
                self._fault.set()

        hand = threading.Thread(target=outside)
        hand.start()
        try:
            return conduct(order(drill, self.runs, "local"), told)
        finally:
            self._fault.set()
            hand.join()


def pid_of(folder: Path, what: bytes, more: bytes = b"") -> int:
    """The run's process whose command line and environment hold these."""
    for pid in carrying(_marker(folder)):
        about = Path(f"/proc/{pid}/cmdline").read_bytes(), Path(f"/proc/{pid}/environ").read_bytes()
        if what in about[0] and more in about[1]:
            return pid
    raise AssertionError(f"no process of the run is {what!r} {more!r}")


def _marker(folder: Path) -> str:
    return next(entry.args["marker"] for entry in standing(folder) if entry.verb == "end_run")


def kill(what: bytes, more: bytes = b"", number: signal.Signals = signal.SIGKILL) -> Callable[[Path], None]:
    return lambda folder: os.kill(pid_of(folder, what, more), number)


SHELL = b"system_under_test.shell"


@pytest.mark.parametrize(("deed", "status", "says", "disturbs"), [
    (kill(b"toxiproxy-server"), "aborted", "Toxiproxy ended by itself", True),
    (kill(b"harness.world.real.sampler"), "aborted", "the sampler ended", False),
    (kill(SHELL, b"NODE_NAME=exchange\0"), "aborted", "exchange ended by itself with code -9", True),
    (kill(SHELL, b"NODE_NAME=trader\0"), "completed", "", False),
], ids=["toxiproxy", "sampler", "exchange", "trader"])
def test_killed_from_outside(tmp_path: Path, deed: Callable[[Path], None], status: str, says: str, disturbs: bool) -> None:
    """A death that no drill declared never passes, and is not held against a system that only suffered it; what is left is a
    readable recording and nothing else."""
    result = Watched(tmp_path / "runs").conduct(deed)
    assert (result.status, result.verdict != "PASS") == (status, True), result.says
    assert result.verdict == "INCONCLUSIVE" or status == "completed", result.says
    assert any(says in sentence for sentence in result.says), result.says
    folder = Path(result.recording)
    assert standing(folder) == () and leftovers(tmp_path / "runs") == []
    assert processes_of(tmp_path / "runs") == {}
    timeline = Timeline.load(folder)
    assert timeline.seal is not None and ("disturbed" in timeline.marks) == disturbs
    if status == "completed":
        assert any(line["step"] == "exited" for line in lines(str(folder), "act"))


def test_a_frozen_proxy_never_passes(tmp_path: Path) -> None:
    """Toxiproxy stopped by SIGSTOP: its API hangs, healing fails by its deadline, and the run ends all the same."""
    result = Watched(tmp_path / "runs").conduct(kill(b"toxiproxy-server", number=signal.SIGSTOP))
    assert result.status == "aborted" and result.verdict != "PASS"
    assert any("no end within" in sentence or "Timeout" in sentence for sentence in result.says), result.says
    assert processes_of(tmp_path / "runs") == {}
