"""What is done to a node's processes and files, where they are: in this process for the world ``local``, in the keeper
container of the node for ``docker`` (agent.py). Arguments and results are JSON; whoever asks goes by ``ORDERS``.

A process is ``{pid, start}``, as ``Process.to_json`` says it. Nothing here but the standard library and what it needs
of ours, which is handed into the container as source.
"""

from __future__ import annotations

import base64
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import files
from harness.world.real.processes import Process, group

Told = Mapping[str, int]


def send(processes: Sequence[Told], number: int) -> int:
    """Send a signal; how many it reached."""
    return sum(Process(**each).send(signal.Signals(number)) for each in processes)


def states(processes: Sequence[Told]) -> list[str | None]:
    """The kernel's letter for the state of each; None for who is gone."""
    return [Process(**each).state for each in processes]


def age_ms(process: Told) -> int:
    return Process(**process).age_ms


def members(leader: int) -> list[dict[str, int]]:
    """Every live process of a process group."""
    return [each.to_json() for each in group(leader)]


def writers(data: str, logs: Sequence[str]) -> dict[str, dict[str, int]]:
    """Log → the process that writes it, for logs that have one (its pid lies beside the log)."""
    found = {}
    for log in logs:
        try:
            process = Process.of(int((Path(data) / f"writer.{log}.pid").read_text()))
        except (OSError, ValueError):
            continue
        if process is not None:
            found[log] = process.to_json()
    return found


def put(file: str, data: str) -> int:
    """Put bytes (base64) in the place of a file, whole; how many."""
    target, content = Path(file), base64.b64decode(data)
    target.parent.mkdir(parents=True, exist_ok=True)
    files.replace(target, content)
    return len(content)


def unlink(names: Sequence[str]) -> None:
    for each in names:
        Path(each).unlink(missing_ok=True)


def exists(file: str) -> bool:
    return Path(file).exists()


def size(file: str) -> int:
    """Bytes of a file; 0 while there is none."""
    return os.stat(file).st_size if Path(file).exists() else 0


def write_calls(process: Told) -> int | None:
    """How often a process has called write, whatever came of it; while its log does not grow, in vain."""
    try:
        lines = Path(f"/proc/{process['pid']}/io").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("syscw:")), None)


def file_limit(process: Told) -> int:
    """The soft limit on the size of what a process writes."""
    return resource.prlimit(Process(**process).pid, resource.RLIMIT_FSIZE)[0]


def limit_files(process: Told, soft: int) -> int | None:
    """Set that limit, and what it then is; None when the process is gone, and its limit with it. Only the soft one is
    moved: a lowered hard one could never be lifted again."""
    found = Process(**process)
    if not found.alive:
        return None
    _, hard = resource.prlimit(found.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(found.pid, resource.RLIMIT_FSIZE, (soft, hard))
    return resource.prlimit(found.pid, resource.RLIMIT_FSIZE)[0]


ORDERS: dict[str, Callable[..., Any]] = {
    each.__name__: each for each in (send, states, age_ms, members, writers, put, unlink, exists, size, write_calls,
                                     file_limit, limit_files)
}
