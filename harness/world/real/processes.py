"""Processes by identity: a pid alone is nobody, because pids are given out again. Pid and start time are somebody.

A killed process whose parent has not reaped it stays as a zombie: it counts as gone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MARKER = "DRILLPROOF_RUN"
"""Environment variable that every process of a run carries; children inherit it."""

NODE = "NODE_NAME"
"""Another, by which each knows whose process it is, or was started by."""

GONE_STATES = frozenset("ZXx")
POLL_S = 0.005
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Process:
    """``start`` is in clock ticks since boot, as the kernel has it."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The live process that has this pid now, or None."""
        stat = _stat(pid)
        return None if stat is None or stat.state in GONE_STATES else cls(pid, stat.start)

    @property
    def state(self) -> str | None:
        """``R``, ``S``, ``T`` and so on, as in proc(5); None when it is gone."""
        stat = _stat(self.pid)
        if stat is None or stat.start != self.start or stat.state in GONE_STATES:
            return None
        return stat.state

    @property
    def alive(self) -> bool:
        return self.state is not None

    @property
    def age_ms(self) -> int:
        """How long ago it started."""
        return int((time.clock_gettime(time.CLOCK_BOOTTIME) - self.start / os.sysconf("SC_CLK_TCK")) * 1000)

    def send(self, number: signal.Signals) -> bool:
        """Send a signal to this very process; False when it is gone. Raises PermissionError."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            # Opened first, identified after: from here on the pid cannot become somebody else.
            if not self.alive:
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True

    def to_json(self) -> dict[str, int]:
        return {"pid": self.pid, "start": self.start}


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    group: int
    start: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2:].split()  # the name before it may hold anything
    return _Stat(fields[0].decode(), int(fields[2]), int(fields[19]))


def _group(pid: int) -> int | None:
    """One call to the kernel, where `_stat` opens, reads and takes apart a file; there are many processes to ask."""
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def group(leader: int) -> tuple[Process, ...]:
    """Every live process of a process group."""
    found = ((pid, _stat(pid)) for pid in _pids() if _group(pid) == leader)
    return tuple(Process(pid, stat.start) for pid, stat in found
                 if stat is not None and stat.group == leader and stat.state not in GONE_STATES)


def marked(marker: str, node: str | None = None) -> tuple[Process, ...]:
    """Every live process of ours that carries a run's marker in its environment, or that of a run's node; not this one."""
    wanted = {f"{MARKER}={marker}".encode(), *([f"{NODE}={node}".encode()] if node is not None else [])}
    found = []
    for pid in _pids():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:  # gone meanwhile, or another user's
            continue
        if pid != os.getpid() and wanted.issubset(environment.split(b"\0")) and (process := Process.of(pid)):
            found.append(process)
    return tuple(found)


def kin(leader: Process) -> tuple[Process, ...]:
    """Every live process of the group and the session that a process has led, dead or not, whatever its environment is. While
    any of them lives, nobody else is given that number."""
    if Process.of(leader.pid) not in (None, leader):
        return ()
    found = (Process.of(pid) for pid in _pids() if leader.pid in (_group(pid), _session(pid)))
    return tuple(each for each in found if each is not None and each.start >= leader.start)


def end_all(processes: tuple[Process, ...], within_s: float = 2.0) -> tuple[Process, ...]:
    """Kill them, stopped or not, and wait; returns those that are still there."""
    for each in processes:
        each.send(signal.SIGKILL)
    deadline = time.monotonic() + within_s
    left = processes
    while (left := tuple(each for each in left if each.alive)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return left


def dies_with_us() -> Callable[[], None]:
    """A ``preexec_fn``: the kernel kills the process when we are gone, though the janitor be gone as well.

    To be started from the main thread: the kernel takes the end of the starting *thread* for our end.
    """
    libc, parent = ctypes.CDLL(None), os.getpid()

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # we died before the line above
            os._exit(1)

    return ask
