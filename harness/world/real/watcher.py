"""The watcher: a process of its own that reads files on a fixed grid and at each change, and says how each came about.

    python -m harness.world.real.watcher EPOCH_NS

In, one JSON object a line: ``{"watch": name, "folder", "file", "every_ms"}``, or ``{"clock": true}``. Out, one a line:
``{"name", "due", "asked", "answered", "extra"}`` with one of ``body`` (base64), ``same`` (as it was said last), ``raw``
([bytes, sha256, head, cut]: more than is read) or ``silence`` (missing, refused: nothing that may be read);
``{"name", "begin", "end", "how", "bytes", "sha256"}`` for a change; ``{"limit": name}``; ``{"clock": ns}``. It ends when
its input does. The same program watches on this machine and in a keeper container, so nothing here but the standard
library and what is handed over with it.

The kernel tells of changes (inotify); where it does not, files are compared every few milliseconds. A file is reached
folder by folder and through no symbolic link, and only a plain one is read: whoever writes there is not trusted.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import select
import stat
import struct
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness import limits
from harness.world.real import urgency
from harness.world.real.clock import NANOSECONDS_A_MS, Epoch

COMPARE_EVERY_MS = 20
"""How often files are compared where the kernel tells nothing, and folders are looked for that are not there yet."""
ROUNDS_MAX = 16
"""So often a file that goes on changing is read at one waking; then the grid has its turn."""
PAUSE_S = 0.001
"""Between two wakings that changes caused, so that a file that never rests does not keep a processor busy."""
INPUT_BYTES = 65_536
FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

IN_MODIFY, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x2, 0x40, 0x80, 0x100, 0x200
IN_Q_OVERFLOW, IN_IGNORED, IN_ONLYDIR, IN_EXCL_UNLINK = 0x4000, 0x8000, 0x01000000, 0x04000000
WATCHED = IN_MODIFY | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
OPTIONS = IN_ONLYDIR | IN_EXCL_UNLINK
"""folders alone; and nothing of a file whose name has become another's, into which somebody still writes"""
EVENT = struct.Struct("iIII")
"""inotify(7): which watch, what happened, a cookie, how long the name is that follows"""


@dataclass(frozen=True, slots=True)
class Look:
    """What was found at a moment within [asked, answered]: bytes, or why there are none."""

    asked: int
    answered: int
    data: bytes | None
    why: str = ""
    stamp: tuple[int, ...] = ()
    """by which the file and its state are told from another: device, inode, size, time of its content"""
    changed_ns: int = 0
    """the wall clock's reading when it was last changed or renamed, as coarse as the kernel's"""

    @property
    def cut(self) -> bool:
        return self.data is not None and len(self.data) > limits.DOCUMENT_BYTES_MAX

    @property
    def digest(self) -> str | None:
        return hashlib.sha256(self.data).hexdigest() if self.data is not None and not self.cut else None


@dataclass(slots=True, eq=False)
class Watched:
    """One file, and what was said of it last."""

    name: str
    parts: Sequence[str]
    """the folders below the one that is given, and the file's own name"""
    folder: str
    every_ms: int
    due: int
    known: bool = False
    """whether anybody has looked before: what had been there already did not appear"""
    looked: int = 0
    there: bool = False
    stamp: tuple[int, ...] = ()
    last: Look | None = None
    """what was found when it was looked at last"""
    stirred: bool = False
    """whether the kernel has told of it since"""
    watch: int | None = None
    said: str | None = None
    held: int | None = None
    """the file itself, where files are compared: so long no other one gets its inode"""
    changes: list[int] = field(default_factory=lambda: [0, 0])
    """the second that is counted, and how many changes it had"""


class Kernel:
    """inotify by its system calls. Raises OSError or ImportError where there is none."""

    def __init__(self) -> None:
        import ctypes

        self._c = ctypes.CDLL(None, use_errno=True)
        self._errno = ctypes.get_errno
        self.fd = self._c.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(self._errno(), "inotify_init1")

    def watch(self, folder: int) -> int:
        """Watch an open folder; the same one has the same number. Raises OSError."""
        found = int(self._c.inotify_add_watch(self.fd, f"/proc/self/fd/{folder}".encode(), WATCHED | OPTIONS))
        if found < 0:
            raise OSError(self._errno(), "inotify_add_watch")
        return found

    def events(self) -> Iterable[tuple[int, int, str]]:
        """(watch, what, name) of everything that is told up to now."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.fd, INPUT_BYTES):
                at = 0
                while at < len(data):
                    watch, what, _, size = EVENT.unpack_from(data, at)
                    at += EVENT.size + size
                    yield watch, what, os.fsdecode(data[at - size:at].rstrip(b"\0"))


class Watcher:
    """All files of one process, in one thread: each reading takes some microseconds."""

    def __init__(self, epoch: Epoch, out: int, kernel: Kernel | None) -> None:
        self._epoch, self._out, self._kernel = epoch, out, kernel
        self._files: list[Watched] = []
        self._left: dict[Watched, list[str]] = {}
        self._quiet = epoch.floor_ms()
        """no change that is not told yet came before"""
        self._compared = 0

    # ---- its course

    def run(self, source: int) -> None:
        """Until the input ends."""
        poll, rest = select.poll(), b""
        poll.register(source, select.POLLIN)
        if self._kernel is not None:
            poll.register(self._kernel.fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(self._patience_ms())}
            if source in ready:
                given = os.read(source, INPUT_BYTES)
                if not given:
                    return
                *lines, rest = (rest + given).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))
            self._changes()
            self._slots()
            if self._kernel is not None and self._kernel.fd in ready:
                time.sleep(PAUSE_S)

    def _patience_ms(self) -> float:
        """Until the next slot; or until files are compared."""
        waits = [each.due for each in self._files]
        if any(each.watch is None for each in self._files):
            waits.append(self._compared + COMPARE_EVERY_MS)
        return 0 if self._left else max(0.0, 1_000 * self._epoch.seconds_until(min(waits))) if waits else -1

    def _obey(self, order: Mapping[str, Any]) -> None:
        if "clock" in order:
            self._say({"clock": time.monotonic_ns()})
            return
        due = (self._epoch.floor_ms() // order["every_ms"] + 1) * order["every_ms"]
        self._files.append(Watched(order["watch"], order["file"].split("/"), order["folder"], order["every_ms"], due))
        self._reach(self._files[-1])

    def _say(self, line: Mapping[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        while data:
            data = data[os.write(self._out, data):]

    # ---- the grid

    def _slots(self) -> None:
        now = self._epoch.floor_ms()
        if now >= self._compared + COMPARE_EVERY_MS:
            self._compared = now
            for each in self._files:
                if each.watch is None:
                    self._reach(each)
        for each in self._files:
            if each.due > now:
                continue
            self._reach(each)
            before, stirred, seen = each.last, each.stirred, self._look(each)
            if before is not None and not stirred and self._was_written_untold(each, before, seen):
                each.stamp = ()
                self._tell(each, ["in_place"], seen, before.asked, sure=True)
            self._sample(each, seen, each.due, extra=False)
            each.due += each.every_ms
            while each.due < seen.answered:
                self._say({"name": each.name, "due": each.due, "asked": each.due, "answered": each.due, "extra": False,
                           "silence": "missed"})
                each.due += each.every_ms

    def _was_written_untold(self, file: Watched, before: Look, seen: Look) -> bool:
        """Whether the very file has other bytes and the kernel, asked once more, knows nothing: they came through a mapping, or
        by another name of it."""
        if self._kernel is None or None in (before.data, seen.data) or before.data == seen.data \
                or before.stamp[:2] != seen.stamp[:2]:
            return False
        quiet = self._quiet
        self._left, self._quiet = self._drain(), quiet
        return not file.stirred

    def _sample(self, file: Watched, seen: Look, due: int, extra: bool) -> None:
        told = {"name": file.name, "due": due, "asked": seen.asked, "answered": seen.answered, "extra": extra}
        said = seen.digest or seen.why
        if seen.data is None:
            told["silence"] = seen.why
        elif seen.cut:
            told["raw"] = [len(seen.data), hashlib.sha256(seen.data).hexdigest(),
                           seen.data[:limits.RAW_HEAD_BYTES].decode("latin-1"), True]
        elif said == file.said:
            told["same"] = True
        else:
            told["body"] = base64.b64encode(seen.data).decode()
        file.said = said
        self._say(told)

    # ---- changes

    def _changes(self) -> None:
        """Tell all that the kernel has told, each with what the file holds, unless that was changed again meanwhile."""
        since, pending = self._quiet, self._drain()
        for _ in range(ROUNDS_MAX):
            if not pending:
                return
            seen = {each: self._look(each) for each in pending}
            until, later = self._quiet, self._drain()
            for each, hows in pending.items():
                self._tell(each, hows, seen[each], since, each not in later)
            since, pending = until, later
        self._left = pending

    def _drain(self) -> dict[Watched, list[str]]:
        pending, self._left, self._quiet = self._left, {}, self._epoch.floor_ms()
        if self._kernel is None:
            return pending
        for watch, what, name in self._kernel.events():
            if what & IN_Q_OVERFLOW:
                self._say({"limit": "FILE_CHANGES_PER_S_MAX"})
            for each in self._files:
                if each.watch != watch:
                    continue
                if what & IN_IGNORED:
                    each.watch = None
                elif each.parts[-1] == name:
                    each.stirred = True
                    if self._is_due(each):
                        pending.setdefault(each, []).append(self._how(each, what))
        return pending

    def _how(self, file: Watched, what: int) -> str:
        there = file.there
        file.there = not what & (IN_DELETE | IN_MOVED_FROM)
        if not file.there:
            return "removed"
        if what & IN_MODIFY:
            return "in_place"
        return "replaced" if there else "appeared"

    def _is_due(self, file: Watched) -> bool:
        """Whether one more change of it is told in this second."""
        second = self._epoch.floor_ms() // 1_000
        if file.changes[0] != second:
            file.changes = [second, 0]
        file.changes[1] += 1
        if file.changes[1] == limits.FILE_CHANGES_PER_S_MAX + 1:
            self._say({"limit": "FILE_CHANGES_PER_S_MAX"})
        return file.changes[1] <= limits.FILE_CHANGES_PER_S_MAX

    def _tell(self, file: Watched, hows: Sequence[str], seen: Look, since: int, sure: bool) -> None:
        """Changes of a file, of which the last left what was seen, if that is sure; and a look at it, if it is another."""
        if file.stamp and seen.stamp == file.stamp:
            return  # it was found as it is when we came
        file.stamp = ()
        hows = [how for place, how in enumerate(hows) if how != "in_place" or hows[place - 1:place] != ["in_place"]]
        for place, how in enumerate(hows):
            last = sure and place == len(hows) - 1
            known = last and how != "removed" and seen.digest is not None
            self._say({"name": file.name, "begin": max(since, self._not_before(seen)) if last else since,
                       "end": seen.answered, "how": how, "bytes": len(seen.data or b"") if known else None,
                       "sha256": seen.digest if known else None})
        if (seen.digest or seen.why) != file.said or seen.cut:
            self._sample(file, seen, seen.asked, extra=True)

    def _not_before(self, seen: Look) -> int:
        """The file's own time of its last change, or its folder's, which is never later than that was; unless a clock was set
        meanwhile."""
        at_ns = seen.changed_ns - time.time_ns() + time.monotonic_ns()
        at = (at_ns - self._epoch.start_ns) // NANOSECONDS_A_MS
        return at if at <= seen.asked else 0

    # ---- files

    def _reach(self, file: Watched) -> None:
        """See to it that the kernel watches its folder, and say what has come about while nobody looked; else compare."""
        watch = self._watch(file)
        if watch is not None and watch == file.watch:
            return
        file.watch = watch
        seen = self._look(file)
        how, file.stamp = _between(file.stamp, seen.stamp), ()
        if how is not None and (file.known or self._not_before(seen) > 0):
            self._tell(file, [how], seen, file.looked, sure=True)
        file.stamp, file.there, file.known, file.looked = seen.stamp, bool(seen.stamp), True, seen.asked

    def _watch(self, file: Watched) -> int | None:
        if self._kernel is None:
            return None
        try:
            with _folder(file) as folder:
                return self._kernel.watch(folder)
        except OSError:  # not there yet, or no more of them are to be had: compared meanwhile
            return None

    def _look(self, file: Watched) -> Look:
        file.stirred = False
        file.last = self._found(file)
        return file.last

    def _found(self, file: Watched) -> Look:
        asked = self._epoch.floor_ms()
        try:
            with _folder(file) as folder:
                fd = os.open(file.parts[-1], FILE, dir_fd=folder)
        except FileNotFoundError:
            self._hold(file, None)
            return Look(asked, self._epoch.ceil_ms(), None, "missing", (), _changed_ns(file))
        except OSError:  # a link, a socket, a folder in its way, or not ours to read
            return Look(asked, self._epoch.ceil_ms(), None, "refused")
        try:
            found = os.fstat(fd)
            data = _read(fd) if stat.S_ISREG(found.st_mode) else None
        except OSError:
            data = None
        finally:
            self._hold(file, fd)
        if data is None:
            return Look(asked, self._epoch.ceil_ms(), None, "refused")
        stamp = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
        return Look(asked, self._epoch.ceil_ms(), data, "", stamp, found.st_ctime_ns)

    def _hold(self, file: Watched, fd: int | None) -> None:
        if file.held is not None:
            os.close(file.held)
        file.held = fd if self._kernel is None else None
        if fd is not None and self._kernel is not None:
            os.close(fd)


def _between(before: tuple[int, ...], after: tuple[int, ...]) -> str | None:
    """How a file became another one, by what its stamps say; None where it did not."""
    if before == after:
        return None
    if not before or not after:
        return "appeared" if after else "removed"
    return "replaced" if before[:2] != after[:2] else "in_place"


def _changed_ns(file: Watched) -> int:
    """When its folder was last changed, which the going of a file does; 0 where there is none."""
    try:
        with _folder(file) as folder:
            return os.fstat(folder).st_ctime_ns
    except OSError:
        return 0


@contextlib.contextmanager
def _folder(file: Watched) -> Any:
    """The folder in which it lies, open. Raises OSError where the way leads through a link."""
    fd = os.open(file.folder, FOLDER)
    try:
        for part in file.parts[:-1]:
            inner = os.open(part, FOLDER, dir_fd=fd)
            os.close(fd)
            fd = inner
        yield fd
    finally:
        os.close(fd)


def _read(fd: int) -> bytes:
    """As much as is read of any file, and one byte more."""
    data = b""
    while len(data) <= limits.DOCUMENT_BYTES_MAX and (piece := os.read(fd, limits.DOCUMENT_BYTES_MAX + 1 - len(data))):
        data += piece
    return data


def kernel() -> Kernel | None:
    """inotify, or None where it is not to be had."""
    try:
        return Kernel()
    except (OSError, ImportError, AttributeError):
        return None


def main(argument: str | None = None) -> None:
    urgency.take()
    Watcher(Epoch(int(argument or sys.argv[1])), 1, kernel()).run(0)


if __name__ == "__main__":
    main()
