"""The forces that only processes of this machine can feel: kill, pause, deploy, clock and disk."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness import files
from harness.drill.model import Clock, Deploy, Disk, Fault, Json, Kill
from harness.errors import NotApplied, NotHealed
from harness.world.real import http
from harness.world.real.clock import TRUE_TIME, fake_time, wall_ms, write_clock
from harness.world.real.documents import parse
from harness.world.real.nodes import LocalNode
from harness.world.real.processes import Process

if TYPE_CHECKING:
    from harness.world.real.local import LocalWorld

TRAP_POLL_S = 0.002
TRAP_ARMED_MS_MAX = 2_000
NEVER = ("send", "", 1_000_000_000)
"""A trap that nothing springs: how an armed one is disarmed."""
STOPPED_MS_MAX = 1_000
CLOCK_TOLERANCE_MS = 50
"""How far a node's clock may be from where it was put, read over HTTP on a busy machine."""


async def wait_for(condition: Callable[[], bool], within_ms: int, every_s: float = 0.005) -> bool:
    """Wait until ``condition()``; False at the deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_ms / 1000
    while not (holds := condition()) and loop.time() < deadline:
        await asyncio.sleep(every_s)
    return bool(holds)


class OnNode:
    """What the forces on one node have in common."""

    marks_itself = False

    def __init__(self, world: LocalWorld, node: LocalNode, fault: Fault) -> None:
        self._world, self._node, self._fault = world, node, fault

    def _live(self) -> Process:
        """The node's process. Raises NotApplied when there is none."""
        process = self._node.process
        if process is None or not self._node.alive:
            raise NotApplied(f"{self._node.name} is not running")
        return process

    async def prepare(self) -> None:
        """Nothing, unless a force says otherwise."""

    async def heal(self) -> Json:
        return await self._world.take_back(self._fault)


class OnLife(OnNode):
    """``kill -9``, at once or in a trap before a named effect; healing starts the node again."""

    def __init__(self, world: LocalWorld, node: LocalNode, fault: Fault, force: Kill) -> None:
        super().__init__(world, node, fault)
        self._force = force
        self._victim = node.process
        self._writers = tuple(node.writers().values())
        self.marks_itself = force.before is not None
        self._hit: bool | None = None if force.before is None else False
        self._hunter: asyncio.Task[None] | None = None

    async def prepare(self) -> None:
        self._live()
        self._world.will(self._fault, "start_again", node=self._node.name, build=self._force.build)

    async def apply(self) -> tuple[Json, Json]:
        self._victim = self._live()
        asked: Json = {"kill": self._node.name, **self._victim.to_json()}
        if self._force.before is None:
            await self._world.kill(self._node)
            return asked, {"alive": self._victim.alive}
        await self._arm(self._force.before)
        self._hunter = self._world.background(self._hunt())
        return {"trap": list(self._force.before), "node": self._node.name}, {"armed": True}

    async def heal(self) -> Json:
        if self._hunter is not None and self._hit is False:
            self._hunter.cancel()
            if self._node.alive:
                await self._arm(NEVER)
            await self._world.take_back(self._fault)
            return {"trap": "disarmed; it was never hit"}
        ready = None
        if not self._node.alive:
            ready = await self._world.boot(self._node, self._force.build)
        await self._world.take_back(self._fault)
        return {"build": self._node.build, "ready": ready,
                **(self._node.process.to_json() if self._node.process else {})}

    async def probe(self) -> Mapping[str, Json]:
        found: dict[str, Json] = {"process.alive": self._victim is not None and self._victim.alive,
                                  "process.start_time": self._node.process.start if self._node.alive
                                  and self._node.process else None}
        if self._writers:
            found["writer.alive"] = any(each.alive for each in self._writers)
        if self._hit is not None:
            found["trap.hit"] = self._hit
        return found

    async def _arm(self, before: tuple[str, str, int]) -> None:
        """Set the trap and wait until the node says that it has it."""
        process, file = self._live(), self._node.trap_file
        armed, hit = file.with_name(file.name + ".armed"), file.with_name(file.name + ".hit")
        for stale in (armed, hit):
            stale.unlink(missing_ok=True)
        files.replace(file, json.dumps({"before": list(before)}).encode())
        process.send(signal.SIGUSR1)
        if not await wait_for(armed.exists, TRAP_ARMED_MS_MAX, TRAP_POLL_S):
            raise NotApplied(f"{self._node.name} did not arm its crash trap within {TRAP_ARMED_MS_MAX} ms")

    async def _hunt(self) -> None:
        """Kill the node once it has stopped itself in the trap."""
        process, epoch = self._live(), self._world.epoch
        hit = self._node.trap_file.with_name(self._node.trap_file.name + ".hit")
        while not (hit.exists() and process.state in ("T", "t", None)):
            await asyncio.sleep(TRAP_POLL_S)
        begin = epoch.floor_ms()
        self._hit = True
        self._writers = tuple(self._node.writers().values())
        await self._world.kill(self._node)
        end = epoch.ceil_ms()
        self._world.tape.act(self._fault.id, "applied", begin, end, {"trap": "hit", "alive": process.alive})
        self._world.mark(self._fault, begin, end)


class OnPause(OnNode):
    """SIGSTOP to the node and everything in its process group; healing resumes what was stopped."""

    def __init__(self, world: LocalWorld, node: LocalNode, fault: Fault) -> None:
        super().__init__(world, node, fault)
        self._targets: tuple[Process, ...] = ()

    async def prepare(self) -> None:
        self._live()
        self._targets = tuple(dict.fromkeys((*self._node.group(), *self._node.writers().values())))
        self._world.will(self._fault, "resume", processes=[each.to_json() for each in self._targets])

    async def apply(self) -> tuple[Json, Json]:
        self._live()
        targets = self._targets
        for each in targets:
            each.send(signal.SIGSTOP)
        if not await wait_for(lambda: all(each.state in ("T", None) for each in targets), STOPPED_MS_MAX):
            raise NotApplied(f"{self._node.name} was not stopped: {[each.state for each in targets]}")
        states: list[Json] = [each.state for each in targets]
        return {"pause": self._node.name, "processes": len(targets)}, {"states": states}

    async def probe(self) -> Mapping[str, Json]:
        process = self._node.process
        return {"process.state": process.state if process else None,
                "process.start_time": process.start if process else None}


class OnBuild(OnNode):
    """Orderly stop, then a start with another build over the same data; healing leaves it."""

    def __init__(self, world: LocalWorld, node: LocalNode, fault: Fault, force: Deploy) -> None:
        super().__init__(world, node, fault)
        self._force = force

    async def apply(self) -> tuple[Json, Json]:
        before = self._node.build
        how = await self._world.shut(self._node)
        ready = await self._world.boot(self._node, self._force.build)
        return {"deploy": self._force.build, "over": before}, {"stopped": how, "ready": ready, "build": self._node.build}

    async def heal(self) -> Json:
        return {"build": self._node.build}

    async def probe(self) -> Mapping[str, Json]:
        process = self._node.process
        return {"node.build": self._node.build, "process.alive": self._node.alive,
                "process.start_time": process.start if process else None}


class OnClock(OnNode):
    """The node's wall clock, stepped and set adrift by libfaketime; its witness is the clock that it serves."""

    def __init__(self, world: LocalWorld, node: LocalNode, fault: Fault, force: Clock) -> None:
        super().__init__(world, node, fault)
        self._force = force
        self._before: int | None = None

    async def prepare(self) -> None:
        self._live()
        if not self._node.fakes_time:
            raise NotApplied(f"{self._node.name} runs without libfaketime: the world was not asked about this fault "
                             f"before it started (refuses)")
        self._before = await self._offset_ms()
        self._world.will(self._fault, "true_clock", file=str(self._node.clock_file))

    async def apply(self) -> tuple[Json, Json]:
        process, before = self._live(), self._before
        write_clock(self._node.clock_file, fake_time(self._force.step_ms, self._force.drift_ppm, process.age_ms))
        after = await self._offset_ms()
        if before is None or after is None:
            raise NotApplied(f"{self._node.name} does not tell its wall clock")
        if abs(after - before - self._force.step_ms) > CLOCK_TOLERANCE_MS:
            raise NotApplied(f"{self._node.name}: its clock was to step by {self._force.step_ms} ms, "
                             f"and went from {before} to {after} ms off")
        return {"step_ms": self._force.step_ms, "drift_ppm": self._force.drift_ppm}, \
            {"offset_ms_before": before, "offset_ms_after": after}

    async def heal(self) -> Json:
        await self._world.take_back(self._fault)
        offset = await self._offset_ms()
        if offset is not None and abs(offset) > CLOCK_TOLERANCE_MS:
            raise NotHealed(f"{self._node.name}: its clock is still {offset} ms off")
        return {"offset_ms": offset}

    async def probe(self) -> Mapping[str, Json]:
        offset = await self._offset_ms()
        return {} if offset is None else {"clock.offset_ms": offset}

    async def _offset_ms(self) -> int | None:
        """The node's wall clock minus ours, as near as one request tells."""
        source = self._node.node.clock
        if source is None or source.wall is None:
            return None
        host, port = self._world.address(self._node.name, source.port)
        begin = wall_ms()
        try:
            answer = await http.once(host, port, "GET", source.path)
        except http.Unreachable:
            return None
        middle = (begin + wall_ms()) // 2
        told = (parse(answer.body) or {}).get(source.wall)
        return told - middle if isinstance(told, int) else None


class OnDisk(OnNode):
    """The writer of the node's ledger, stopped (stall), or held at a file-size limit of nothing (refuse)."""

    def __init__(self, world: LocalWorld, node: LocalNode, fault: Fault, force: Disk) -> None:
        super().__init__(world, node, fault)
        self._force = force
        found = next(iter(node.writers().items()), None)
        self._log: str | None = found[0] if found else None
        self._writer: Process | None = found[1] if found else None
        self._calls: tuple[int, int] | None = None
        self._refusals = 0

    async def prepare(self) -> None:
        writer = self._running()
        if self._force.kind == "stall":
            self._world.will(self._fault, "resume", processes=[writer.to_json()])
        else:
            soft = resource.prlimit(writer.pid, resource.RLIMIT_FSIZE)[0]
            self._world.will(self._fault, "lift_file_limit", process=writer.to_json(), soft=soft)

    async def apply(self) -> tuple[Json, Json]:
        writer = self._running()
        return await (self._stall(writer) if self._force.kind == "stall" else self._refuse(writer))

    def _running(self) -> Process:
        if self._writer is None or not self._writer.alive:
            raise NotApplied(f"{self._node.name} has no running writer process for a log")
        return self._writer

    async def _stall(self, writer: Process) -> tuple[Json, Json]:
        writer.send(signal.SIGSTOP)
        if not await wait_for(lambda: writer.state == "T", STOPPED_MS_MAX):
            raise NotApplied(f"the writer of {self._log} was not stopped: state {writer.state}")
        return {"stall": self._log, **writer.to_json()}, {"state": writer.state}

    async def _refuse(self, writer: Process) -> tuple[Json, Json]:
        hard = resource.prlimit(writer.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(writer.pid, resource.RLIMIT_FSIZE, (0, hard))
        found = resource.prlimit(writer.pid, resource.RLIMIT_FSIZE)[0]
        if found != 0 or not writer.alive:
            raise NotApplied(f"the writer of {self._log}: its file-size limit reads {found}")
        return {"refuse": self._log, **writer.to_json()}, {"file_size_limit": found}

    async def probe(self) -> Mapping[str, Json]:
        if self._writer is None or self._log is None:
            return {}
        size, calls = _size(self._node.data / "logs" / f"{self._log}.log"), _write_calls(self._writer.pid)
        if calls is not None:
            if self._calls is not None and self._calls[0] == size:
                self._refusals += max(0, calls - self._calls[1])
            self._calls = (size, calls)
        found: dict[str, Json] = {f"{self._log}.durable_bytes": size, "writer.state": self._writer.state}
        if self._force.kind == "refuse":
            found["disk.refusals"] = self._refusals
        return found


def _size(file: Path) -> int:
    return os.stat(file).st_size if file.exists() else 0


def _write_calls(pid: int) -> int | None:
    """How often a process has called write, whatever came of it; while its log does not grow, in vain."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("syscw:")), None)


def true_clock(node: LocalNode) -> None:
    """A clock file must be there before its node starts, and must say the truth."""
    write_clock(node.clock_file, TRUE_TIME)
