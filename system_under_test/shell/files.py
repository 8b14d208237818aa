"""What the shell does to the disk: framed logs, files replaced atomically, a boot count, looks at the outside.

Layout of a node's data folder::

    logs/<log>.log      one record a line: ``<crc32 of the payload, 8 hex digits> <payload>\\n``
    files/<file>        small files, replaced whole; an operator's files are under files/operator/
    notes.jsonl         one note a line
    boot                how often a process has started over this data
    lock                held by the running process, so that two never share the data

Everything here is synchronous; `serve` calls what may block from a thread of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from system_under_test.machine import REPLACE_PLAN

FILE_BYTES_MAX = 1_048_576
"""A file a machine keeps or an operator lays out is small; anything larger is not read."""

FILES_MAX = 10_000
"""What a data folder holds at most, for its use to be added up: a machine keeps a dozen files."""

BLOCK_BYTES = 512
"""The unit of st_blocks (stat(2))."""

LOCK_WAIT_S = 5.0
"""How long a start waits for the process before it to be gone: a killed one lets go at once."""


class FileError(Exception):
    """A name that leads out of the data folder, or a file that is too large."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A log's valid prefix: its records, its length in bytes, and how many bytes follow it."""

    records: tuple[bytes, ...]
    valid_bytes: int
    torn_bytes: int


def frame_record(payload: bytes) -> bytes:
    """One record as it stands in a log."""
    return b"%08x %s\n" % (zlib.crc32(payload), payload)


def decode_log(data: bytes) -> Decoded:
    """The records of a log up to the first line that is not whole and right."""
    records, at = [], 0
    while (end := data.find(b"\n", at)) >= 0:
        line = data[at:end]
        payload = line[9:]
        if line[8:9] != b" " or line[:8] != b"%08x" % zlib.crc32(payload):
            break
        records.append(payload)
        at = end + 1
    return Decoded(tuple(records), at, len(data) - at)


class LogFile:
    """One append-only log. The torn tail of an earlier life is cut off before the first append, not before:
    a process that dies again without writing leaves the evidence as it found it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        lock(self._fd, str(path))
        self.decoded = decode_log(path.read_bytes())
        self._end = self.decoded.valid_bytes
        self._torn = self.decoded.torn_bytes > 0

    def append(self, data: bytes) -> None:
        """Write framed records at the end of the valid prefix. A write that fails or falls short leaves no tail:
        it is cut off again (truncating works under a file-size limit too), and OSError is raised."""
        if self._torn:
            self._repair()
        try:
            written = os.pwrite(self._fd, data, self._end)
            while written < len(data):
                written += os.pwrite(self._fd, data[written:], self._end + written)
        except OSError:
            self._torn = True
            self._repair()
            raise
        self._end += len(data)

    def append_synced(self, data: bytes) -> None:
        """Append and sync, or raise OSError with nothing of it left in the log."""
        before = self._end
        self.append(data)
        try:
            self.sync()
        except OSError:
            self._end, self._torn = before, True
            self._repair()
            raise

    def sync(self) -> None:
        """Everything appended is on disk when this returns."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)

    def _repair(self) -> None:
        os.ftruncate(self._fd, self._end)
        self._torn = False


def cut_half_a_line(fd: int) -> None:
    """Cut off what follows the last end of a line."""
    end = os.fstat(fd).st_size
    while end:
        begin = max(0, end - FILE_BYTES_MAX)
        found = os.pread(fd, end - begin, begin).rfind(b"\n")
        if found >= 0:
            os.ftruncate(fd, begin + found + 1)
            return
        end = begin
    os.ftruncate(fd, 0)


def lock(fd: int, what: str) -> None:
    """Take the lock of an open file, waiting for a dying holder. Raises FileError when it stays taken."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise FileError(f"{what}: another process holds it") from None
            time.sleep(0.005)


def inside(folder: Path, name: str) -> Path:
    """The path of a file's name below a folder. Raises FileError for a name that leads elsewhere."""
    parts = PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts or "\0" in name:
        raise FileError(f"{name!r} is no name of a file here")
    return folder / parts


def replace(folder: Path, name: str, data: bytes, plan: Sequence[str] = REPLACE_PLAN,
            before: Callable[[str], None] = lambda step: None) -> None:
    """Give a file its content by a plan, step by step; ``before`` is called before each. Where the plan renames, the old or
    the new content stands at every point, whole, and one that fails leaves no temporary in the room of others."""
    target = inside(folder, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.new")
    try:
        for step in plan:
            before(step)
            _STEPS[step](temporary, target, data)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _write_temporary(temporary: Path, target: Path, data: bytes) -> None:
    temporary.write_bytes(data)


def _sync_temporary(temporary: Path, target: Path, data: bytes) -> None:
    _sync(temporary)


def _rename(temporary: Path, target: Path, data: bytes) -> None:
    os.replace(temporary, target)


def _sync_folder(temporary: Path, target: Path, data: bytes) -> None:
    _sync(target.parent)


def _truncate(temporary: Path, target: Path, data: bytes) -> None:
    target.write_bytes(b"")


def _write_half(temporary: Path, target: Path, data: bytes) -> None:
    _write_at_the_beginning(target, data[:len(data) // 2])


def _write(temporary: Path, target: Path, data: bytes) -> None:
    _write_at_the_beginning(target, data)


def _write_at_the_beginning(target: Path, data: bytes) -> None:
    """In place: what stood there beyond it stays."""
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        written = os.pwrite(fd, data, 0)
        while written < len(data):
            written += os.pwrite(fd, data[written:], written)
    finally:
        os.close(fd)


_STEPS: Mapping[str, Callable[[Path, Path, bytes], None]] = {
    "write_temporary": _write_temporary,
    "sync_temporary": _sync_temporary,
    "rename": _rename,
    "sync_folder": _sync_folder,
    "truncate": _truncate,
    "write_half": _write_half,
    "write": _write,
}


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_files(folder: Path) -> dict[str, bytes]:
    """Every small file below a folder, by its name, also in one that is joined by a link and shared with others, who may take
    a file away meanwhile; temporaries of an unfinished replace are no files."""
    found = (Path(top, name) for top, _, names in os.walk(folder, followlinks=True) for name in names
             if not name.startswith("."))
    files = {}
    for path in sorted(islice(found, FILES_MAX)):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and path.stat().st_size <= FILE_BYTES_MAX:
                files[path.relative_to(folder).as_posix()] = path.read_bytes()
    return files


def count_boot(data: Path) -> int:
    """Count one more start over this data, durably, and say which one it is (from 1)."""
    counter = data / "boot"
    try:
        boot = int(counter.read_text()) + 1
    except (FileNotFoundError, ValueError):
        boot = 1
    replace(data, "boot", str(boot).encode())
    return boot


def look(data: Path, source: str) -> bytes:
    """What a ``Look`` sees. Raises OSError or FileError when it cannot be read."""
    if source == "disk_primary":
        return _primary_ratio(data)
    if source == "disk_secondary":
        return _secondary_ratio(data)
    path = inside(data / "files", source)
    if path.stat().st_size > FILE_BYTES_MAX:
        raise FileError(f"{source} is larger than {FILE_BYTES_MAX} bytes")
    return path.read_bytes()


def _primary_ratio(data: Path) -> bytes:
    """Share of the data folder's file system that is used, by statvfs, as decimal text."""
    seen = os.statvfs(data)
    return b"%.6f" % (1.0 - seen.f_bavail / seen.f_blocks) if seen.f_blocks else b"1.000000"


def _secondary_ratio(data: Path) -> bytes:
    """Share of the file system that the files of the data folder take, by adding up what each of them takes.

    Where the folder has a volume of its own, the two agree on a healthy machine. They differ when something is counted
    that is no file of the folder: one that is deleted and held open, or somebody else's on a disk that is shared.
    """
    whole = os.statvfs(data)
    size = whole.f_blocks * whole.f_frsize
    return b"%.6f" % (min(1.0, _taken(data, FILES_MAX) / size) if size else 1.0)


def _taken(folder: Path, most: int) -> int:
    """Bytes of the blocks that everything below a folder takes; links are not followed. Raises FileError beyond ``most``
    entries, because a measure that takes long is none."""
    taken, waiting, seen = 0, [os.fspath(folder)], 0
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                seen += 1
                if seen > most:
                    raise FileError(f"{folder} holds more than {most} files; adding them up is no measure of its use")
                with contextlib.suppress(FileNotFoundError):  # gone since it was listed, and so is what it took
                    taken += entry.stat(follow_symlinks=False).st_blocks * BLOCK_BYTES
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
    return taken
