"""What the machine writes as it goes: its logs, its notes and its small files.

Logs named in NODE_WRITER_LOGS go through a writer process each; the others are written at once and synced by one
thread, as many records a sync as have come (group commit). Small files are replaced and looked at by the same
thread, in order. Notes are lines flushed once a turn of the loop.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import orjson

from system_under_test.machine import Append, Done, Durable, Failed, LogImage, Look, Now, Replace, Seen, Value
from system_under_test.shell import files, limits
from system_under_test.shell.peers import Deliver
from system_under_test.shell.writer import HEADER

Crash = Callable[[BaseException], None]
"""How a failure that leaves nothing to rely on ends the process."""

Remark = Callable[[str, Mapping[str, object]], None]
"""How the shell itself writes a note: kind and fields."""


class Notes:
    """The note lines of one life. While the disk refuses them they wait, up to a bound; then they are counted. Half a
    line that an earlier life left on a full disk is cut off, so that it spoils no other."""

    def __init__(self, path: Path, run_id: str, boot: int) -> None:
        self._path, self._run_id, self._boot = path, run_id, boot
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        files.cut_half_a_line(self._fd)
        self._seq = 0
        self._dropped = 0
        self._lines: deque[bytes] = deque()

    def write(self, now: Now, kind: str, intent_id: str | None, fields: Mapping[str, object]) -> None:
        self._seq += 1
        if len(self._lines) >= limits.NOTES_WAITING_MAX:
            self._dropped += 1
            return
        line = {**fields, "run_id": self._run_id, "boot": self._boot, "seq": self._seq, "at": now.mono_ms,
                "wall": now.wall_ms, "kind": kind, "intent_id": intent_id}
        self._lines.append(orjson.dumps(line) + b"\n")

    def flush(self) -> None:
        """Hand every waiting line to the disk; a refusal leaves them waiting. A gap in ``seq`` shows what was lost."""
        while self._lines:  # a few at a time: what a full disk refuses is not put together anew each turn
            some = list(islice(self._lines, limits.NOTES_AT_ONCE))
            waiting = b"".join(some)
            try:
                written = os.write(self._fd, waiting)
            except OSError:
                return
            for _ in some:
                self._lines.popleft()
            if written < len(waiting):
                self._lines.appendleft(waiting[written:])
                return


class Log(Protocol):
    image: LogImage

    async def start(self) -> None: ...
    def append(self, value: Append) -> None: ...
    async def stop(self) -> None: ...


class DirectLog:
    """A log written by this process: the record is handed to the kernel at once and synced soon."""

    def __init__(self, name: str, path: Path, deliver: Deliver, disk: ThreadPoolExecutor, crash: Crash) -> None:
        self._name, self._deliver, self._disk, self._crash = name, deliver, disk, crash
        self._file = files.LogFile(path)
        self.image = LogImage(self._file.decoded.records, self._file.decoded.torn_bytes)
        self._written = 0
        self._syncing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Nothing to wait for."""

    def append(self, value: Append) -> None:
        try:
            self._file.append(files.frame_record(value.data))
        except OSError as why:
            self._deliver(Failed(value, str(why)))
            return
        self._written = value.seq
        if self._syncing is None:
            self._syncing = _spawn(self._sync(), self._crash)

    async def _sync(self) -> None:
        """Sync until nothing new was written meanwhile. A failing sync ends the process: what the kernel dropped
        cannot be known (crash-only)."""
        durable = -1
        while durable != self._written:
            durable = self._written
            await asyncio.get_running_loop().run_in_executor(self._disk, self._file.sync)
            self._deliver(Durable(self._name, durable))
        self._syncing = None

    async def stop(self) -> None:
        if self._syncing is not None:
            await self._syncing
        self._file.close()


class WriterLog:
    """A log written by a process of its own (`writer`), which can stall without stalling the machine."""

    def __init__(self, name: str, path: Path, deliver: Deliver, remark: Remark, crash: Crash) -> None:
        self._name, self._path, self._deliver, self._remark, self._crash = name, path, deliver, remark, crash
        self.image = LogImage()
        self._process: asyncio.subprocess.Process
        self._in: asyncio.StreamWriter
        self._out: asyncio.StreamReader
        self._reading: asyncio.Task[None] | None = None
        self._waiting: deque[Append] = deque()
        self._refused_seq: int | None = None

    async def start(self) -> None:
        """Start the writer, wait until it holds the lock, then read what the log holds."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "system_under_test.shell.writer", str(self._path), str(os.getpid()),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdin and self._process.stdout, "both are pipes"
        self._in, self._out = self._process.stdin, self._process.stdout
        pid_file = f"writer.{self._name}.pid"
        files.replace(self._path.parent.parent, pid_file, str(self._process.pid).encode())
        line = await asyncio.wait_for(self._out.readline(), files.LOCK_WAIT_S + limits.STOP_S)
        if not line.startswith(b"ready "):
            raise files.FileError(f"the writer of {self._name} did not start")
        decoded = files.decode_log(self._path.read_bytes())
        self.image = LogImage(decoded.records, decoded.torn_bytes)
        self._reading = _spawn(self._read(), self._crash)

    def append(self, value: Append) -> None:
        if self._in.transport.get_write_buffer_size() > limits.WRITER_BYTES_MAX:
            self._deliver(Failed(value, f"more than {limits.WRITER_BYTES_MAX} bytes wait for the writer"))
            return
        self._waiting.append(value)
        self._in.write(HEADER.pack(value.seq, len(value.data)) + value.data)

    async def _read(self) -> None:
        while line := await self._out.readline():
            word, seq, *why = line.decode().split()
            if word == "durable":
                self._became_durable(int(seq))
            else:
                self._was_refused(int(seq), why[0])
        raise ChildProcessError(f"the writer of {self._name} is gone; without it nothing is recorded")

    def _became_durable(self, seq: int) -> None:
        while self._waiting and self._waiting[0].seq <= seq:
            self._waiting.popleft()
        self._refused_seq = None
        self._deliver(Durable(self._name, seq))

    def _was_refused(self, seq: int, why: str) -> None:
        """The writer keeps trying; the machine hears of each refused record once, the notes as often as told."""
        self._remark("shell.append_refused", {"log": self._name, "record": seq, "why": why})
        if seq != self._refused_seq and self._waiting and self._waiting[0].seq == seq:
            self._refused_seq = seq
            self._deliver(Failed(self._waiting[0], why))

    async def stop(self) -> None:
        """Let the writer finish what it was given, if it can."""
        if self._reading is None:  # it never came up
            return
        self._reading.cancel()
        self._in.close()
        try:
            await asyncio.wait_for(self._process.wait(), limits.WRITER_STOP_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


class Disk:
    """Small files, and looks at the outside world, by one thread in the order asked."""

    def __init__(self, data: Path, deliver: Deliver, executor: ThreadPoolExecutor) -> None:
        self._data, self._deliver, self._executor = data, deliver, executor
        self._waiting = 0
        self.before_step: Callable[[Replace, str], None] = lambda value, step: None
        """called in the disk's thread before each step of a plan"""

    def replace(self, value: Replace) -> None:
        self._run(lambda: files.replace(self._data / "files", value.file, value.data, value.plan,
                                        lambda step: self.before_step(value, step)),
                  lambda _: Done(value.file), lambda why: Failed(value, why))

    def look(self, value: Look) -> None:
        self._run(lambda: files.look(self._data, value.source),
                  lambda seen: Seen(value.source, seen), lambda why: Seen(value.source, None, why))

    @property
    def idle(self) -> bool:
        return self._waiting == 0

    def _run(self, work: Callable[[], Any], then: Callable[[Any], Value], otherwise: Callable[[str], Value]) -> None:
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        future.add_done_callback(lambda done: self._finish(done, then, otherwise))

    def _finish(self, done: asyncio.Future[Any], then: Callable[[Any], Value],
                otherwise: Callable[[str], Value]) -> None:
        self._waiting -= 1
        if done.cancelled():
            return
        why = done.exception()
        if why is None:
            self._deliver(then(done.result()))
        elif isinstance(why, (OSError, files.FileError)):
            self._deliver(otherwise(f"{type(why).__name__}: {why}"))
        else:
            raise why


def _spawn(work: Coroutine[None, None, None], crash: Crash) -> asyncio.Task[None]:
    """A task whose failure ends the process."""
    task = asyncio.get_running_loop().create_task(work)

    def ended(done: asyncio.Task[None]) -> None:
        why = None if done.cancelled() else done.exception()
        if why is not None:
            crash(why)

    task.add_done_callback(ended)
    return task
