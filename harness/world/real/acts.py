"""The forces on a node: kill, pause, deploy, clock and disk. They reach its processes and files by ``node.do``."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from harness import limits
from harness.drill.model import Clock, Crash, Deploy, Disk, Fault, Json, Kill
from harness.errors import NotApplied, NotHealed
from harness.world.real import http
from harness.world.real.clock import TRUE_TIME, fake_time, wall_ms
from harness.world.real.documents import parse
from harness.world.real.nodes import RealNode
from harness.world.real.processes import Process

if TYPE_CHECKING:
    from harness.world.real.stacked import StackedWorld

TRAP_ARMED_MS_MAX = 2_000
NEVER = ("send", "", 1_000_000_000)
"""A trap that nothing springs: how an armed one is disarmed."""
STOPPED_MS_MAX = 1_000
STOPPED = frozenset({"T", "t", None})
"""States in which a process does nothing more."""
CLOCK_TOLERANCE_MS = 50
"""How far a node's clock may be from where it was put, read over HTTP on a busy machine."""


async def wait_for(condition: Callable[[], Awaitable[bool]], within_ms: int, every_s: float = 0.005) -> bool:
    """Wait until ``condition()``; False at the deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_ms / 1000
    while not (holds := await condition()) and loop.time() < deadline:
        await asyncio.sleep(every_s)
    return bool(holds)


class OnNode:
    """What the forces on one node have in common."""

    marks_itself = False

    def __init__(self, world: StackedWorld, node: RealNode, fault: Fault) -> None:
        self._world, self._node, self._fault = world, node, fault

    def _live(self) -> Process:
        """The node's process. Raises NotApplied when there is none."""
        process = self._node.process
        if process is None or not self._node.alive:
            raise NotApplied(f"{self._node.name} is not running")
        return process

    def _will(self, verb: str, **args: object) -> None:
        """Write down how it is taken back, where the node's processes and files are."""
        self._world.will(self._fault, verb, **args, **self._node.where())

    async def prepare(self) -> None:
        """Nothing, unless a force says otherwise."""

    async def heal(self) -> Json:
        return await self._world.take_back(self._fault)


class OnLife(OnNode):
    """``kill -9``, at once or in a trap before a named effect, or an orderly stop; healing starts the node again."""

    def __init__(self, world: StackedWorld, node: RealNode, fault: Fault, force: Kill) -> None:
        super().__init__(world, node, fault)
        self._force = force
        self._victim = node.process
        self._writers: tuple[Process, ...] | None = None
        self.marks_itself = force.before is not None
        self._hit: bool | None = None if force.before is None else False
        self._hunter: asyncio.Task[None] | None = None

    async def prepare(self) -> None:
        self._live()
        self._will("start_again", node=self._node.name, build=self._force.build)

    async def apply(self) -> tuple[Json, Json]:
        self._victim = self._live()
        asked: Json = {"kill": self._node.name, **self._victim.to_json()}
        if self._force.how == "stop":
            how = await self._world.shut(self._node)
            return {"stop": self._node.name, **self._victim.to_json()}, {"stopped": how, "exit_code": self._node.returncode}
        if self._force.before is None:
            await self._world.kill(self._node)
            return asked, {"alive": await self._lives(self._victim)}
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
        if self._writers is None:
            self._writers = tuple((await self._node.writers()).values())
        found: dict[str, Json] = {"process.alive": self._victim is not None and await self._lives(self._victim),
                                  "process.start_time": self._node.process.start if self._node.alive
                                  and self._node.process else None}
        if self._force.how == "stop":
            found["process.exit_code"] = None if self._node.alive else self._node.returncode
        if self._writers:
            found["writer.alive"] = any(state is not None for state in await self._node.states(self._writers))
        if self._hit is not None:
            found["trap.hit"] = self._hit
        return found

    async def _lives(self, process: Process) -> bool:
        return (await self._node.states([process]))[0] is not None

    async def _arm(self, before: Crash) -> None:
        """Set the trap and wait until the node says that it has it."""
        process, node = self._live(), self._node
        armed = f"{node.trap_file}.armed"
        await node.do("unlink", names=[armed, f"{node.trap_file}.hit"])
        await node.put(node.trap_file, json.dumps({"before": list(before)}).encode())
        await node.send([process], signal.SIGUSR1)

        async def is_armed() -> bool:
            return bool(await node.do("exists", file=armed))

        if not await wait_for(is_armed, TRAP_ARMED_MS_MAX, node.poll_s):
            raise NotApplied(f"{node.name} did not arm its crash trap within {TRAP_ARMED_MS_MAX} ms")

    async def _hunt(self) -> None:
        """Kill the node once it has stopped itself in the trap."""
        process, epoch, node = self._live(), self._world.epoch, self._node
        while not (await node.do("exists", file=f"{node.trap_file}.hit") and (await node.states([process]))[0] in STOPPED):
            await asyncio.sleep(node.poll_s)
        begin = epoch.floor_ms()
        self._hit = True
        self._writers = tuple((await node.writers()).values())
        await self._world.kill(node)
        end = epoch.ceil_ms()
        alive = await self._lives(process)
        self._world.tape.act(self._fault.id, "applied", begin, end, {"trap": "hit", "alive": alive})
        self._world.mark(self._fault, begin, end)


class OnPause(OnNode):
    """SIGSTOP to the node and everything that it started; healing resumes what was stopped."""

    def __init__(self, world: StackedWorld, node: RealNode, fault: Fault) -> None:
        super().__init__(world, node, fault)
        self._targets: tuple[Process, ...] = ()

    async def prepare(self) -> None:
        leader = self._live()
        members = [Process(**each) for each in await self._node.do("members", leader=leader.pid)]
        self._targets = tuple(dict.fromkeys((*members, *await self._node.kin(), *(await self._node.writers()).values())))
        self._will("resume", processes=[each.to_json() for each in self._targets])

    async def apply(self) -> tuple[Json, Json]:
        self._live()
        await self._node.send(self._targets, signal.SIGSTOP)

        async def are_stopped() -> bool:
            return STOPPED.issuperset(await self._node.states(self._targets))

        stopped = await wait_for(are_stopped, STOPPED_MS_MAX)
        states: list[Json] = [*await self._node.states(self._targets)]
        if not stopped:
            raise NotApplied(f"{self._node.name} was not stopped: {states}")
        return {"pause": self._node.name, "processes": len(self._targets)}, {"states": states}

    async def probe(self) -> Mapping[str, Json]:
        process = self._node.process
        return {"process.state": (await self._node.states([process]))[0] if process else None,
                "process.start_time": process.start if process else None}


class OnBuild(OnNode):
    """Orderly stop, then a start with another build over the same data, or with the same one; healing leaves it."""

    def __init__(self, world: StackedWorld, node: RealNode, fault: Fault, force: Deploy) -> None:
        super().__init__(world, node, fault)
        self._force = force

    async def apply(self) -> tuple[Json, Json]:
        before = self._node.build
        how = await self._world.shut(self._node)
        ready = await self._world.boot(self._node, self._force.build or before)
        return {"deploy": self._node.build, "over": before}, {"stopped": how, "ready": ready}

    async def heal(self) -> Json:
        return {"build": self._node.build}

    async def probe(self) -> Mapping[str, Json]:
        process = self._node.process
        return {"node.build": self._node.build, "process.alive": self._node.alive,
                "process.start_time": process.start if process else None}


class OnClock(OnNode):
    """The node's wall clock, stepped and set adrift by libfaketime; its witness is the clock that it serves."""

    def __init__(self, world: StackedWorld, node: RealNode, fault: Fault, force: Clock) -> None:
        super().__init__(world, node, fault)
        self._force = force
        self._before: int | None = None
        self._aims: int | None = None
        """the offset that the clock has when it shows the moment it was set to"""

    async def prepare(self) -> None:
        self._live()
        if not self._node.fakes_time:
            raise NotApplied(f"{self._node.name} runs without libfaketime: the world was not asked about this fault "
                             f"before it started (refuses)")
        self._before = await self._offset_ms()
        self._will("true_clock", file=self._node.clock_file)

    async def apply(self) -> tuple[Json, Json]:
        process, before = self._live(), self._before
        age_ms = int(await self._node.do("age_ms", process=process.to_json()))
        if self._force.to_ms is not None:
            self._aims = self._force.to_ms - wall_ms()
        step_ms = self._force.step_ms if self._aims is None else self._aims
        await self._node.tell_clock(fake_time(step_ms, self._force.drift_ppm, age_ms))
        after = await self._offset_ms()
        if before is None or after is None:
            raise NotApplied(f"{self._node.name} does not tell its wall clock")
        if abs(after - before - step_ms) > CLOCK_TOLERANCE_MS:
            raise NotApplied(f"{self._node.name}: its clock was to step by {step_ms} ms, "
                             f"and went from {before} to {after} ms off")
        return {"step_ms": step_ms, "drift_ppm": self._force.drift_ppm}, \
            {"offset_ms_before": before, "offset_ms_after": after}

    async def heal(self) -> Json:
        await self._world.take_back(self._fault)
        offset = await self._offset_ms()
        if offset is not None and abs(offset) > CLOCK_TOLERANCE_MS:
            raise NotHealed(f"{self._node.name}: its clock is still {offset} ms off")
        return {"offset_ms": offset}

    async def probe(self) -> Mapping[str, Json]:
        offset = await self._offset_ms()
        if offset is None:
            return {}
        missed: dict[str, Json] = {} if self._aims is None else {"clock.missed_ms": abs(offset - self._aims)}
        return {"clock.offset_ms": offset, **missed}

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

    def __init__(self, world: StackedWorld, node: RealNode, fault: Fault, force: Disk) -> None:
        super().__init__(world, node, fault)
        self._force = force
        self._log: str | None = None
        self._writer: Process | None = None
        self._calls: tuple[int, int] | None = None
        self._refusals = 0

    async def prepare(self) -> None:
        writer = await self._running()
        if self._force.kind == "stall":
            self._will("resume", processes=[writer.to_json()])
        else:
            soft = await self._node.do("file_limit", process=writer.to_json())
            self._will("lift_file_limit", process=writer.to_json(), soft=soft)

    async def apply(self) -> tuple[Json, Json]:
        writer = await self._running()
        return await (self._stall(writer) if self._force.kind == "stall" else self._refuse(writer))

    async def _running(self) -> Process:
        await self._find()
        if self._writer is None or await self._state(self._writer) is None:
            raise NotApplied(f"{self._node.name} has no running writer process for a log")
        return self._writer

    async def _find(self) -> None:
        """The writer that there is when the fault is first asked about."""
        if self._writer is None:
            self._log, self._writer = next(iter((await self._node.writers()).items()), (None, None))

    async def _state(self, writer: Process) -> str | None:
        return (await self._node.states([writer]))[0]

    async def _stall(self, writer: Process) -> tuple[Json, Json]:
        await self._node.send([writer], signal.SIGSTOP)

        async def is_stopped() -> bool:
            return await self._state(writer) == "T"

        if not await wait_for(is_stopped, STOPPED_MS_MAX):
            raise NotApplied(f"the writer of {self._log} was not stopped: state {await self._state(writer)}")
        return {"stall": self._log, **writer.to_json()}, {"state": "T"}

    async def _refuse(self, writer: Process) -> tuple[Json, Json]:
        found = await self._node.do("limit_files", process=writer.to_json(), soft=0)
        if found != 0:
            raise NotApplied(f"the writer of {self._log}: its file-size limit reads {found}")
        return {"refuse": self._log, **writer.to_json()}, {"file_size_limit": found}

    async def again(self, node: RealNode) -> None:
        """A node was started anew; where it is this one, its disk refuses its new writer, too, before that has written."""
        if node is not self._node or self._force.kind != "refuse":
            return
        found: list[Process] = []

        async def has_writer() -> bool:
            found.extend(each for each in (await self._node.writers()).values() if each != self._writer)
            return bool(found) or not self._node.alive

        await wait_for(has_writer, limits.NODE_START_MS_MAX, self._node.poll_s)
        if found:
            self._writer, self._calls = found[0], None
            await self.prepare()
            await self._refuse(found[0])

    async def probe(self) -> Mapping[str, Json]:
        await self._find()
        if self._writer is None or self._log is None:
            return {}
        size = int(await self._node.do("size", file=f"{self._node.data}/logs/{self._log}.log"))
        calls = await self._node.do("write_calls", process=self._writer.to_json())
        if calls is not None:
            if self._calls is not None and self._calls[0] == size:
                self._refusals += max(0, calls - self._calls[1])
            self._calls = (size, calls)
        found: dict[str, Json] = {"ledger.durable_bytes": size, "writer.state": await self._state(self._writer)}
        if self._force.kind == "refuse":
            found["disk.refusals"] = self._refusals
        return found


async def true_clock(node: RealNode) -> None:
    """A clock file must be there before its node starts, and must say the truth."""
    await node.tell_clock(TRUE_TIME)
