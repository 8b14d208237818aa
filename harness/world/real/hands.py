"""What is done to a node's processes and files, where they are: in this process for the world ``local``, in the keeper
container of the node for ``docker`` (agent.py). Arguments and results are JSON; whoever asks goes by ``ORDERS``.

A process is ``{pid, start}``, as ``Process.to_json`` says it. Nothing here but the standard library and what it needs
of ours, which is handed into the container as source.
"""

from __future__ import annotations

import base64
import errno
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness import files
from harness.world.real.processes import Process, group, marked

Told = Mapping[str, int]


def send(processes: Sequence[Told], number: int) -> int:
    """Send a signal; how many it reached."""
    return sum(Process(**each).send(signal.Signals(number)) for each in processes)


def states(processes: Sequence[Told]) -> list[str | None]:
    """The kernel's letter for the state of each; None for who is gone."""
    return [Process(**each).state for each in processes]


def age_ms(process: Told) -> int:
    return Process(**process).age_ms


def used_ms(process: Told) -> int:
    """How long a process has used the processor so far, by itself and by what it waited for; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{Process(**process).pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(each) for each in fields[11:15]) * 1_000 // os.sysconf("SC_CLK_TCK")


def members(leader: int) -> list[dict[str, int]]:
    """Every live process of a process group."""
    return [each.to_json() for each in group(leader)]


def kin(marker: str, node: str) -> list[dict[str, int]]:
    """Every live process of a run's node, whatever group it is in."""
    return [each.to_json() for each in marked(marker, node)]


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


def overwrite(file: str, data: str, in_place: bool) -> bool:
    """Put bytes (base64) into a file, whole or by cutting it to nothing and writing it where it stands; whether they were
    read back at once."""
    target, content = Path(file), base64.b64decode(data)
    target.parent.mkdir(parents=True, exist_ok=True)
    (target.write_bytes if in_place else partial(files.replace, target))(content)
    return _read(target) == content


def remove(file: str) -> bool:
    """Take a file away; whether it was gone at once. Raises FileNotFoundError."""
    Path(file).unlink()
    return _read(Path(file)) is None


def _read(file: Path) -> bytes | None:
    """Of a file that others replace and remove."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def join_volume(data: str, at: str, folder: str) -> None:
    """Let a node find the folder of a volume among its files."""
    place = Path(data) / "files" / at
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.is_symlink():
        place.symlink_to(folder)


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


# ---- the disk under a folder ------------------------------------------------------------------------------

FILLER, TRIAL = ".drillproof-filler", ".drillproof-trial"
PAGE = 4_096
NOTHING = bytes(1_048_576)
BLOCK_BYTES = 512
LOCKED_MODE = 0o555
_held: dict[str, int] = {}
"""Folder → the file that fills its disk, deleted and held open by this process"""


def disk_use(folder: str) -> dict[str, Any]:
    """The share of its disk that is used, by the file system's own count and by adding up its files, and whether one
    page more is refused to us."""
    seen = os.statvfs(folder)
    taken = os.lstat(folder).st_blocks + sum(_blocks(os.path.join(top, name)) for top, folders, names in os.walk(folder)
                                             for name in (*folders, *names))
    return {"used": round(1 - seen.f_bavail / seen.f_blocks, 4),
            "files": round(taken * BLOCK_BYTES / (seen.f_blocks * seen.f_frsize), 4), "refused": _is_refused(folder)}


def _blocks(file: str) -> int:
    """Of a file that may just have gone."""
    try:
        return os.lstat(file).st_blocks
    except FileNotFoundError:
        return 0


def _is_refused(folder: str) -> bool:
    trial = Path(folder) / TRIAL
    try:
        trial.write_bytes(bytes(PAGE))
    except OSError:
        return True
    finally:
        try:
            trial.unlink(missing_ok=True)
        except OSError:  # nothing was made where nothing can be made
            return True
    return False


def fill_disk(folder: str, to: float, unlinked: bool) -> int:
    """Write until that share of the disk is used, or nothing more is taken; how many bytes."""
    filler, taken = Path(folder) / FILLER, 0
    _held[folder] = fd = os.open(filler, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    if unlinked:
        filler.unlink()
    while (left := _room(folder, to)) >= PAGE:
        try:
            taken += os.write(fd, NOTHING[:left])
        except OSError as why:
            if why.errno != errno.ENOSPC:
                raise
            break
    if not unlinked:
        os.close(_held.pop(folder))
    return taken


def _room(folder: str, to: float) -> int:
    """Whole pages until that share is used."""
    seen = os.statvfs(folder)
    return int((to * seen.f_blocks - (seen.f_blocks - seen.f_bavail)) * seen.f_frsize) // PAGE * PAGE


def empty_disk(folder: str) -> bool:
    """Take the filler away, wherever it is; whether there was one."""
    fd = _held.pop(folder, None)
    if fd is not None:
        os.close(fd)
    there = (Path(folder) / FILLER).exists()
    unlink([f"{folder}/{FILLER}"])
    return there or fd is not None


def folder_modes(folder: str) -> dict[str, int]:
    """The mode of a folder and of every one below it."""
    return {top: os.stat(top).st_mode & 0o7777 for top, _, _ in os.walk(folder)}


def lock_data(folder: str, processes: Sequence[Told]) -> list[int | None]:
    """Let the processes write to no file, and the folders take no new one; the limits as they then are."""
    limits = [limit_files(each, 0) for each in processes]
    for top in folder_modes(folder):
        os.chmod(top, LOCKED_MODE)
    return limits


def unlock_data(modes: Mapping[str, int], processes: Sequence[Told], softs: Sequence[int]) -> list[int | None]:
    """The limits and modes as they were before; the limits as they then are."""
    for top, mode in modes.items():
        if Path(top).is_dir():
            os.chmod(top, mode)
    return [limit_files(each, soft) for each, soft in zip(processes, softs, strict=True)]


def sacrifice(process: Told) -> bool:
    """Of all whose memory is limited together, the kernel is to take this one first; whether it is there."""
    try:
        Path(f"/proc/{Process(**process).pid}/oom_score_adj").write_text("1000")
    except OSError:
        return False
    return True


ORDERS: dict[str, Callable[..., Any]] = {
    each.__name__: each for each in (send, states, age_ms, used_ms, members, kin, writers, put, overwrite, remove, join_volume,
                                     unlink, exists, size, write_calls, file_limit, limit_files, disk_use, fill_disk,
                                     empty_disk, folder_modes, lock_data, unlock_data, sacrifice)
}
