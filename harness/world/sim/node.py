"""One simulated process: a machine, its timers and notes, its life and death.

A node is ``down``, ``up``, ``paused`` or ``throttled``. Every start is a new *life*; whatever an earlier life began (a timer, a
sync, a dial) ends with it. While paused, values queue up in the order of their arrival, the monotonic clock goes
on, and timers fire late, as under SIGSTOP. A starved node gets a quota of the processor in each tenth of a second;
when it has used that up it stands still until the next, as under the kernel's bandwidth control.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from harness.world.sim.clock import MS, Agenda
from harness.world.sim.disk import Disk
from harness.world.sim.shelf import Shelf
from harness.world.sim.trap import Trap
from harness.world.sim.wire import UP, Connection, Link
from system_under_test.machine import (
    Append,
    Close,
    Exit,
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

EPOCH_MS = 1_769_440_000_000
"""Unix time at the start of every simulated run: fixed, so that equal runs write equal bytes."""

EXIT_RAISED, EXIT_SETUP, EXIT_FORCED = 70, 74, 75
"""What the shell exits with when the machine raises, when its data cannot be had, and when an orderly stop is forced."""

FORCED_US = 2_000 * MS
"""After so long the shell forces an orderly stop."""

TURN_US, EXCHANGE_US = 250, 1_000
"""What a process needs of the processor for one value, and for an HTTP request or answer: an interpreter at its sockets."""
EXCHANGED = (Request, Response)

QUOTA_EVERY_US = 100 * MS
"""How often the kernel refills a quota (the default period of its bandwidth control)."""

Answer = Callable[[Response | None], None]
"""How a request that is being served is answered; None when the process died over it."""


class Node:
    def __init__(self, name: str, agenda: Agenda, run_id: str, mono_offset_us: int, wall_offset_us: int) -> None:
        self.name, self._agenda, self._run_id = name, agenda, run_id
        self._mono_offset_us, self._wall_offset_us = mono_offset_us, wall_offset_us
        self.disk: Disk
        self.links: dict[str, Link] = {}
        self.serving: list[Link] = []
        self.state = "down"
        self.life = 0
        self.started_ms: int | None = None
        self.exit_code: int | None = None
        self.build = ""
        self.expected_down = False
        self.on_exit: Callable[[Node], None] = lambda node: None
        self.on_trap: Callable[[Node], None] = lambda node: None
        self.log_lines: list[str] = []
        self.notes = Shelf()
        self.endpoints: dict[str, tuple[Connection, int]] = {}
        self.trap: Trap | None = None
        self.clock_faults: dict[str, tuple[int, int, int]] = {}
        self.quota_us: int | None = None
        self.used_us = self.throttled_us = 0
        self.oom_killed = False
        self._left_us = self._throttled_since = 0
        self._machine: Machine
        self._timers: dict[str, tuple[Timer]] = {}
        """name → the setting in force; another setting of the same timer is another object"""
        self._inbox: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._backlog: deque[Value] = deque()
        self._busy = False
        self._answers: dict[tuple[str, int], Answer] = {}
        self._generations: dict[str, int] = {}
        self._ids: dict[str, int] = {}
        self._note_seq = 0
        self._carriers: dict[type, Callable[[Any], None]] = {
            Frame: self._send, Timer: self._set_timer, Note: self._note, Append: self._append, Open: self._open,
            Request: self._request, Response: self._respond, Close: self._close, Exit: self._end,
            Replace: self._replace, Look: self._look,
        }

    @property
    def alive(self) -> bool:
        return self.state != "down"

    # ---- clocks

    def mono_ms(self) -> int:
        return (self._agenda.now_us + self._mono_offset_us) // MS

    def wall_ms(self) -> int:
        now_us = self._agenda.now_us + self._wall_offset_us
        return EPOCH_MS + (now_us + self._trouble_us() if self.clock_faults else now_us) // MS

    def _trouble_us(self) -> int:
        """How far faults have set the wall clock off."""
        now_us = self._agenda.now_us
        return sum(step_ms * MS + (now_us - since_us) * ppm // 1_000_000
                   for step_ms, ppm, since_us in self.clock_faults.values())

    # ---- life

    def start(self, machine: Callable[[], Machine], build: str, seed: int) -> None:
        """A new process over the same data. A machine that cannot be made ends like one that raises."""
        self.life += 1
        self.state, self.build, self.exit_code, self.expected_down = "up", build, None, False
        self.oom_killed = False
        self.started_ms = self._agenda.now_ms
        self.disk.boots += 1
        self._note_seq = 0
        if (full := self.disk.refuses_file(1)) is not None:  # the boot cannot be counted
            self.log_lines.append(f"shell: cannot start: {full}\n")
            self._gone(EXIT_SETUP)
            return
        try:
            self._machine = machine()
        except Exception as why:  # crash-only, as in the shell
            self._raised(why)
            return
        images = self.disk.image()
        for name, image in images.items():
            if image.torn_bytes:
                self.remark("shell.torn_tail", {"log": name, "bytes": image.torn_bytes})
        self.remark("shell.boot", {"node": self.name})
        self.give(Start(self.disk.boots, seed, images, self.disk.small_files()))

    def kill(self) -> None:
        """``kill -9``: the kernel closes the connections, the disk keeps what it has."""
        if self.alive:
            self.disk.crash()
            self._gone(None)

    def run_out_of_memory(self) -> None:
        """The kernel kills it, which is a ``kill -9`` with the reason written down."""
        self.kill()
        self.oom_killed = True

    def ask_to_stop(self) -> None:
        """SIGTERM, and force after the shell's patience."""
        if self.alive:
            self._agenda.at(self._agenda.now_us + FORCED_US, self._force, self.life)
            self.give(Stop("SIGTERM"))

    def pause(self) -> None:
        if self.state in ("up", "throttled"):
            self.state = "paused"

    def resume(self) -> None:
        """Everything that waited happens now, in the order in which it came, but first the timers that fell due: so does the
        shell, whose loop knows at once what time it is, and has yet to read what waits in its sockets."""
        if self.state == "paused":
            self.state = "up"
            self._inbox = deque(sorted(self._inbox, key=lambda each: each[0] != self._fire))
            self._go_on()

    def _go_on(self) -> None:
        life = self.life
        while self._inbox and self.state == "up" and self.life == life:
            act, argument = self._inbox.popleft()
            act(argument)

    # ---- its share of the processor

    def starve(self, quota_us: int) -> None:
        """From now on so much of the processor in each period."""
        self.quota_us = self._left_us = quota_us
        self._agenda.at(self._agenda.now_us + QUOTA_EVERY_US, self._refill, quota_us)

    def feed(self) -> None:
        """The quota is gone; what waited happens now."""
        self.quota_us = None
        self._end_throttle()

    def _refill(self, quota_us: int) -> None:
        if self.quota_us != quota_us:
            return
        self._left_us = min(quota_us, self._left_us + quota_us)
        self._agenda.at(self._agenda.now_us + QUOTA_EVERY_US, self._refill, quota_us)
        if self._left_us > 0:
            self._end_throttle()

    def _end_throttle(self) -> None:
        if self.state != "throttled":
            return
        self.throttled_us += self._agenda.now_us - self._throttled_since
        self.state = "up"
        self._go_on()

    def _spend(self, took_us: int) -> None:
        """A process that has used up its quota stands still."""
        if self.state != "up":
            return
        self._left_us -= took_us
        if self._left_us <= 0:
            self.state, self._throttled_since = "throttled", self._agenda.now_us

    # ---- values coming in

    def give(self, value: Value) -> None:
        """Hand a value to the machine: now, when it has finished the one before, or when it runs again."""
        if self._busy:
            self._backlog.append(value)
        elif self.state == "up":
            self._handle(value)
            if self._backlog:
                self._catch_up()
        elif self.state != "down":
            self._inbox.append((self.give, value))

    def _catch_up(self) -> None:
        while self._backlog and self.state == "up":
            self._handle(self._backlog.popleft())
        if self.state != "down":
            self._inbox.extendleft((self.give, each) for each in reversed(self._backlog))
        self._backlog.clear()

    def give_of(self, about: tuple[int, Value]) -> None:
        """Hand a value to the life that it is for."""
        if about[0] == self.life:
            self.give(about[1])

    def when_running(self, act: Callable[[Any], None], argument: Any) -> None:
        """Do something in this process: at once, or when it runs again."""
        if self.state == "up":
            act(argument)
        elif self.state != "down":
            self._inbox.append((act, argument))

    def accept(self, port: str, connection: Connection | None) -> str:
        """The name of an accepted connection; every HTTP exchange of a port shares one."""
        if connection is None:
            return f"{port}#0"
        self._generations[port] = self._generations.get(port, 0) + 1
        conn = f"{port}#{self._generations[port]}"
        self.endpoints[conn] = (connection, 1 - UP)
        return conn

    def dies_before(self, value: Replace, step: str) -> bool:
        """Whether the process dies, here and now, before this step of giving a file its content."""
        if self.trap is None or not self.trap.springs(value, step):
            return False
        self.kill()
        self.on_trap(self)
        return True

    def serve(self, port: str, method: str, target: str, headers: tuple[tuple[str, str], ...], body: bytes,
              answer: Answer) -> None:
        """An HTTP request on a listening port of this node."""
        self._ids[port] = id = self._ids.get(port, 0) + 1
        conn = f"{port}#0"
        self._answers[conn, id] = answer
        self.give(Request(conn, id, method, target, headers, body))

    # ---- the machine's turn

    def _handle(self, value: Value) -> None:
        """One value in, what comes of it out. A death on the way (every death ends a life) leaves the rest undone."""
        self._busy = True
        life, carriers, trap, now_us = self.life, self._carriers, self.trap, self._agenda.now_us
        try:
            wall_us = now_us + self._wall_offset_us
            if self.clock_faults:
                wall_us += self._trouble_us()
            now = Now((now_us + self._mono_offset_us) // MS, EPOCH_MS + wall_us // MS)
            for going_out in self._machine.handle(now, value):
                if self.life != life:
                    break
                if trap is not None and trap.springs(going_out):
                    self.kill()
                    self.on_trap(self)
                    break
                carriers[type(going_out)](going_out)
        except Exception as why:  # crash-only: a machine that raises has no state worth keeping
            self._raised(why)
        finally:
            self._busy = False
            took_us = EXCHANGE_US if isinstance(value, EXCHANGED) else TURN_US
            self.used_us += took_us
            if self.quota_us is not None:
                self._spend(took_us)
            if self._backlog and self.state == "down":
                self._backlog.clear()

    def _raised(self, why: BaseException) -> None:
        self.log_lines += traceback.format_exception(why)
        self.disk.crash()
        self._gone(EXIT_RAISED)

    def _end(self, value: Exit) -> None:
        self.disk.close()
        self._gone(value.code)

    def _force(self, life: int) -> None:
        if life == self.life and self.alive:
            self.disk.crash()
            self._gone(EXIT_FORCED)

    def _gone(self, code: int | None) -> None:
        """The process is no more: its connections are closed, and those who asked it hear nothing."""
        self.state, self.exit_code, self.trap = "down", code, None
        dead, self.life = self.life, self.life + 1
        self._timers.clear()
        self._inbox.clear()
        self._backlog.clear()
        self.endpoints.clear()
        for answer in list(self._answers.values()):
            answer(None)
        self._answers.clear()
        self._generations.clear()
        for link in (*self.links.values(), *self.serving):
            link.process_gone(self, dead)
        self.on_exit(self)

    # ---- carrying values out

    def _send(self, value: Frame) -> None:
        end = self.endpoints.get(value.conn)
        if end is not None:
            end[0].send(end[1], value.data)

    def _close(self, value: Close) -> None:
        end = self.endpoints.pop(value.conn, None)
        if end is not None:
            end[0].close_by(end[1], f"closed 1000: {value.why}")
            return
        link = self.links.get(link_of(value.conn))
        if link is not None:
            link.give_up(self, value.conn)

    def _open(self, value: Open) -> None:
        if value.conn in self.endpoints:
            self.give(Close(value.conn, "this generation was dialled before"))
            return
        self.links[link_of(value.conn)].dial(self, value.conn)

    def _request(self, value: Request) -> None:
        self.links[link_of(value.conn)].ask(self, value)

    def _respond(self, value: Response) -> None:
        answer = self._answers.pop((value.conn, value.id), None)
        if answer is not None:
            answer(value)

    def _append(self, value: Append) -> None:
        self.disk.append(value)

    def _replace(self, value: Replace) -> None:
        self.disk.replace(value)

    def _look(self, value: Look) -> None:
        self.disk.look(value)

    def _set_timer(self, value: Timer) -> None:
        if value.at_ms is None:
            self._timers.pop(value.name, None)
            return
        self._timers[value.name] = setting = (value,)
        self._agenda.at(value.at_ms * MS - self._mono_offset_us, self._fire, setting)

    def _fire(self, setting: tuple[Timer]) -> None:
        """The timer is due, unless it was set anew or cancelled, or its process has died."""
        value, = setting
        if self._timers.get(value.name) is not setting:
            return
        if self.state != "up":
            self._inbox.append((self._fire, setting))
            return
        del self._timers[value.name]
        self.give(value)

    def _note(self, value: Note) -> None:
        self._write_note(value.kind, value.intent_id, value.fields)

    def remark(self, kind: str, fields: Mapping[str, object]) -> None:
        """A note of the carrier itself, with the shell's names."""
        self._write_note(kind, None, fields)

    def _write_note(self, kind: str, intent_id: str | None, fields: Mapping[str, object]) -> None:
        self._note_seq += 1
        self.notes.append(orjson.dumps({
            **fields, "run_id": self._run_id, "boot": self.disk.boots, "seq": self._note_seq, "at": self.mono_ms(),
            "wall": self.wall_ms(), "kind": kind, "intent_id": intent_id,
        }))
