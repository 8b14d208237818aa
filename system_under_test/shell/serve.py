"""Run one machine: sockets, files and a clock around ``handle``. Crash-only: whatever it raises ends the process.

The environment is the only configuration: NODE_NAME, NODE_MACHINE (``module:function``), NODE_DATA, NODE_SEED,
NODE_RUN_ID, ``<PORT>_LISTEN=host:port`` for each listening port, ``<LINK>_URL`` for each link,
NODE_WRITER_LOGS (logs with a writer process), NODE_TRAP_FILE (`trap`).

Exit codes: what the machine says · 70 it raised · 74 files or ports cannot be had · 75 an orderly stop was forced.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from system_under_test.machine import (
    Append,
    Close,
    Exit,
    Factory,
    Frame,
    Look,
    Machine,
    Note,
    Now,
    Open,
    Replace,
    Request,
    Response,
    Start,
    Stop,
    Timer,
    Value,
    link_of,
)
from system_under_test.shell import files, limits
from system_under_test.shell.dial import Dialler
from system_under_test.shell.journal import DirectLog, Disk, Log, Notes, WriterLog
from system_under_test.shell.listen import Listener
from system_under_test.shell.trap import Trap

EXIT_RAISED, EXIT_SETUP, EXIT_FORCED = 70, 74, 75
_LISTEN = "_LISTEN"


class Shell:
    """Carries one machine's values. Made in a running loop; `run` returns the exit code."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._data = Path(environment["NODE_DATA"])
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(1, "disk")
        self._inbox: deque[Value] = deque()
        self._pumping = self._frozen = self._stopping = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._logs: dict[str, Log] = {}
        self._listeners: dict[str, Listener] = {}
        self._dialler = Dialler(environment, self.deliver)
        self._disk = Disk(self._data, self.deliver, self._executor)
        self._disk.before_step = self._stop_before
        self._trap: Trap | None = None
        self._machine: Machine
        self._notes: Notes
        self._exit: asyncio.Future[int] = self._loop.create_future()
        self._carriers: dict[type, Callable[[Any], None]] = {
            Frame: self._send, Timer: self._set_timer, Note: self._note, Append: self._append,
            Replace: self._disk.replace, Look: self._disk.look, Open: lambda value: self._dialler.open(value.conn),
            Request: self._dialler.request, Response: self._respond, Close: self._close, Exit: self._end,
        }

    async def run(self) -> int:
        """Start, serve until ``Exit`` or a signal, stop in order."""
        self._loop.set_exception_handler(self._loop_failed)
        try:
            await self._start()
        except (OSError, files.FileError, KeyError, TimeoutError) as why:
            print(f"shell: cannot start: {type(why).__name__}: {why}", file=sys.stderr)
            return EXIT_SETUP
        code = await self._exit
        await self._stop()
        return code

    def deliver(self, value: Value) -> None:
        """Give the machine a value: now, or after the one it is busy with."""
        self._inbox.append(value)
        if not self._pumping:
            self._pump()

    # ---- starting and stopping

    async def _start(self) -> None:
        boot = self._open_data()
        self._machine = _load(self._environment["NODE_MACHINE"])(self._environment)
        await self._open_logs()
        await self._dialler.start()
        self._listen_to_signals()
        images = {name: log.image for name, log in self._logs.items()}
        for name, image in images.items():
            if image.torn_bytes:
                self._remark("shell.torn_tail", {"log": name, "bytes": image.torn_bytes})
        self._remark("shell.boot", {"node": self._environment.get("NODE_NAME", "")})
        self.deliver(Start(boot, int(self._environment.get("NODE_SEED", "0")), images,
                           files.read_files(self._data / "files")))
        for name, address in sorted(self._environment.items()):
            if name.endswith(_LISTEN):
                await self._listen(name.removesuffix(_LISTEN).lower(), address)

    def _open_data(self) -> int:
        """Take the data folder for this process alone, count the boot, open the notes."""
        self._data.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self._data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        files.lock(self._lock, str(self._data / "lock"))
        boot = files.count_boot(self._data)
        self._notes = Notes(self._data / "notes.jsonl", self._environment.get("NODE_RUN_ID", ""), boot)
        return boot

    async def _open_logs(self) -> None:
        written_apart = self._environment.get("NODE_WRITER_LOGS", "").replace(",", " ").split()
        found = [path.stem for path in sorted((self._data / "logs").glob("*.log"))]
        for name in dict.fromkeys([*written_apart, *found]):
            path = self._log_path(name)
            if name in written_apart:
                self._logs[name] = WriterLog(name, path, self.deliver, self._remark, self._crash)
            else:
                self._logs[name] = DirectLog(name, path, self.deliver, self._executor, self._crash)
        await asyncio.gather(*(log.start() for log in self._logs.values()))

    async def _listen(self, port: str, address: str) -> None:
        host, _, number = address.rpartition(":")
        self._listeners[port] = Listener(port, host, int(number), self.deliver)
        await self._listeners[port].start()

    def _listen_to_signals(self) -> None:
        self._loop.add_signal_handler(signal.SIGTERM, self._asked_to_stop, "SIGTERM")
        self._loop.add_signal_handler(signal.SIGINT, self._asked_to_stop, "SIGINT")
        self._loop.add_signal_handler(signal.SIGUSR1, self._arm_trap)

    def _asked_to_stop(self, why: str) -> None:
        if not self._stopping:
            self._stopping = True
            self._loop.call_later(limits.STOP_S, self._end, Exit(EXIT_FORCED))
            self.deliver(Stop(why))

    def _end(self, value: Exit) -> None:
        if not self._exit.done():
            self._exit.set_result(value.code)
            self._frozen = True

    async def _stop(self) -> None:
        """Let out what was handed over, within bounds."""
        await self._drain()
        await asyncio.gather(*(listener.stop() for listener in self._listeners.values()), self._dialler.stop(),
                             *(log.stop() for log in self._logs.values()), return_exceptions=True)
        self._executor.shutdown(wait=True)
        self._notes.flush()

    async def _drain(self) -> None:
        carriers: list[Dialler | Disk | Listener] = [self._dialler, self._disk, *self._listeners.values()]
        deadline = self._loop.time() + limits.CLOSE_S
        while not all(carrier.idle for carrier in carriers) and self._loop.time() < deadline:
            await asyncio.sleep(0.001)

    # ---- the machine's turn

    def _now(self) -> Now:
        return Now(time.monotonic_ns() // 1_000_000, time.time_ns() // 1_000_000)

    def _pump(self) -> None:
        """Handle what is waiting, a bounded number at a time; the rest comes in the loop's next turn."""
        self._pumping = True
        try:
            for _ in range(limits.TURN_VALUES):
                if not self._inbox or self._frozen:
                    break
                self._handle(self._inbox.popleft())
        finally:
            self._pumping = False
        self._notes.flush()
        if self._inbox and not self._frozen:
            self._loop.call_soon(self._pump_again)

    def _pump_again(self) -> None:
        if not self._pumping:
            self._pump()

    def _handle(self, value: Value) -> None:
        try:
            going_out = self._machine.handle(self._now(), value)
            for each in going_out:
                if self._trap is not None and self._trap.springs(each):
                    self._spring(self._trap)
                    return
                self._carriers[type(each)](each)
        except Exception as why:  # crash-only: a machine that raises has no state worth keeping
            self._crash(why)

    def _crash(self, why: BaseException) -> None:
        traceback.print_exception(why)
        sys.stderr.flush()
        self._notes.flush()
        os._exit(EXIT_RAISED)

    def _loop_failed(self, loop: asyncio.AbstractEventLoop, context: dict) -> None:
        """A callback of the shell's own that raises ends the process; a client's broken connection does not."""
        why = context.get("exception")
        if why is not None and not isinstance(why, (OSError, asyncio.CancelledError)) and "handle" in context:
            self._crash(why)
        print(f"shell: {context.get('message')}: {why!r}", file=sys.stderr)

    # ---- carrying values out

    def _send(self, value: Frame) -> None:
        listener = self._listeners.get(link_of(value.conn))
        if listener is None:
            self._dialler.send(value.conn, value.data)
        elif listener.knows(value.conn):
            listener.send(value.conn, value.data)

    def _close(self, value: Close) -> None:
        listener = self._listeners.get(link_of(value.conn))
        if listener is None:
            self._dialler.close(value.conn, value.why)
        elif listener.knows(value.conn):
            listener.close(value.conn, value.why)

    def _respond(self, value: Response) -> None:
        self._listeners[link_of(value.conn)].answer(value)

    def _append(self, value: Append) -> None:
        log = self._logs.get(value.log)
        if log is None:
            log = self._logs[value.log] = DirectLog(value.log, self._log_path(value.log), self.deliver,
                                                    self._executor, self._crash)
        log.append(value)

    def _log_path(self, name: str) -> Path:
        return files.inside(self._data / "logs", f"{name}.log")

    def _note(self, value: Note) -> None:
        self._notes.write(self._now(), value.kind, value.intent_id, value.fields)

    def _remark(self, kind: str, fields: Mapping[str, object]) -> None:
        self._notes.write(self._now(), kind, None, fields)

    def _set_timer(self, value: Timer) -> None:
        earlier = self._timers.pop(value.name, None)
        if earlier is not None:
            earlier.cancel()
        if value.at_ms is not None:
            self._timers[value.name] = self._loop.call_at(value.at_ms / 1_000, self._fire, value, value.at_ms)

    def _fire(self, value: Timer, at_ms: int) -> None:
        """Never early: a loop that wakes a fraction too soon sleeps again."""
        if time.monotonic_ns() // 1_000_000 < at_ms:
            self._timers[value.name] = self._loop.call_later(0.001, self._fire, value, at_ms)
            return
        del self._timers[value.name]
        self.deliver(value)

    # ---- the crash trap

    def _arm_trap(self) -> None:
        try:
            self._trap = Trap(Path(self._environment["NODE_TRAP_FILE"]))
        except (KeyError, ValueError, OSError) as why:
            self._remark("shell.trap_refused", {"why": f"{type(why).__name__}: {why}"})
            return
        self._trap.say("armed")

    def _spring(self, trap: Trap) -> None:
        """Nothing more is handled; what went before the trapped value is let out, then the process stops itself."""
        self._frozen = True
        self._standing_still = self._loop.create_task(self._stand_still(trap))

    async def _stand_still(self, trap: Trap) -> None:
        await self._drain()
        self._notes.flush()
        trap.say("hit")
        os.kill(os.getpid(), signal.SIGSTOP)


    def _stop_before(self, value: Replace, step: str) -> None:
        """In the disk's thread, which must not get one step further: so it is the one that the signal is sent to."""
        if self._trap is not None and self._trap.springs(value, step):
            self._trap.say("hit")
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def _load(name: str) -> Factory:
    """The factory that ``module:function`` names."""
    module, _, function = name.partition(":")
    factory: Factory = getattr(importlib.import_module(module), function)
    return factory


async def _run() -> int:
    return await Shell(dict(os.environ)).run()


def main() -> int:
    return asyncio.run(_run())
