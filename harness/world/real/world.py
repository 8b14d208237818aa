"""What every real world shares: a synchronous face over one event loop that every verb turns.

While a verb waits for a slow proxy or a node that boots, the loop goes on writing down samples, probes and deaths;
sampling itself happens in a process of its own. Facts go to the tape; nothing is returned but what the protocol
names. A force is applied by its ``Applied`` object (forces.py), which writes its undo down first.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets as randomness
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import orjson

from harness import limits
from harness.drill.model import Call, Drop, Fault, Force, Json, LinkFault, Predicate, RawToxic, Stimulus, Switch
from harness.drill.predicate import evaluate
from harness.errors import NotHealed, WorldError, hint
from harness.recording.series import grain_of
from harness.recording.tape import Silence, Tape
from harness.world import DrillAct
from harness.world.real import http, urgency
from harness.world.real.clock import Epoch, wall_ms
from harness.world.real.money import foreign_hosts
from harness.world.real.ports import Ports
from harness.world.real.processes import MARKER
from harness.world.real.sampling import Sampling
from harness.world.real.undo import Undo, UndoLog, undo
from harness.world.real.watching import Watching
from harness.world.secrets import Secrets
from harness.world.stack import Stack

Result = TypeVar("Result")

PROBE_EVERY_MS = 200
CLOCK_EVERY_MS = 1_000
CLOCK_PREFIX = "clock:"
"""Names of the sampler's watches that read a node's clock and are no surface."""
SECRET_BYTES = 24
WARM_S = 0.001
"""Long enough for as many threads as there are acts to be at hand: starting one takes milliseconds on a busy machine."""
SPIN_MS = 2
"""The last of the wait for a moment is not slept: on a busy machine a sleeper wakes milliseconds late (measured: 4)."""


class Applied(Protocol):
    """One force upon its target. ``marks_itself``: it tells when it really began, by ``world.mark``."""

    marks_itself: bool

    async def prepare(self) -> None:
        """What need not wait for the moment, always before ``apply``: write the undo down. Raises NotApplied."""
        ...

    async def apply(self) -> tuple[Json, Json]:
        """Apply, read back; returns what was asked and what was read. Raises NotApplied."""
        ...

    async def heal(self) -> Json:
        """Take it back. Raises NotHealed."""
        ...

    async def probe(self) -> Mapping[str, Json]:
        """What its witnesses say now."""
        ...


@dataclass(slots=True)
class Standing:
    """A fault on its way from injecting to healed."""

    fault: Fault
    applied: Applied
    injected: bool = False
    marked: bool = False
    ending: bool = False
    """its healing is under way: from here on the witnesses are asked at its moment only, not while it goes on"""
    healed: bool = False
    entries: list[Undo] = field(default_factory=list)
    probing: asyncio.Task[None] | None = None


class RealWorld(ABC):
    """A world of processes and sockets. Subclasses say where nodes live and what forces reach them."""

    name = "real"

    def __init__(self, stack: Stack, policy_name: str, policy: Mapping[str, Any], seed: int, folder: Path, *,
                 placebo: bool = False, machines: Mapping[str, str] | None = None, hold: bool = False,
                 allow_hosts: tuple[str, ...] = ()) -> None:
        self.stack, self.policy_name, self.policy, self.seed = stack, policy_name, dict(policy), seed
        self._foreign = foreign_hosts(stack, allow_hosts)
        self.folder, self.placebo, self.machines, self.hold = folder, placebo, dict(machines or {}), hold
        self.secrets = Secrets({name: randomness.token_hex(SECRET_BYTES) for name in stack.secrets})
        self.marker = f"{folder.name}.{randomness.token_hex(8)}"
        self.ports = Ports()
        self._every_ms: dict[str, int] = {}
        self._standing: dict[str, Standing] = {}
        self._documents: dict[str, Mapping[str, Any] | None] = {}
        self._usable: dict[str, Mapping[str, Any]] = {}
        self._baseline: dict[str, Mapping[str, Any]] = {}
        self._holding: _Holding | None = None
        self._epoch: Epoch | None = None
        self._tape: Tape | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failed: asyncio.Future[BaseException] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._undo_log: UndoLog | None = None
        self._life: Undo | None = None
        self._sampling: Sampling | None = None
        self._watching: dict[str, Watching] = {}
        self._pipelines: dict[tuple[str, int], http.Pipeline] = {}
        self._stopping: list[Callable[[], Coroutine[Any, Any, None]]] | None = None
        self._streams: Mapping[str, Mapping[str, Json]] = {}
        self._was_disturbed = False

    # ---- the verbs ----------------------------------------------------------------------------------------

    def refuses(self, act: Force | Stimulus) -> str | None:
        """What no real world does: reach beyond this machine. A subclass says what it cannot do besides."""
        if self._foreign:
            return f"{self.stack.file} names {', '.join(self._foreign)}: a drill never reaches beyond this machine"
        return None

    def start(self, tape: Tape) -> None:
        if self._foreign:
            raise WorldError(f"{', '.join(self._foreign)}: a drill never reaches beyond this machine")
        self._tape, self._epoch = tape, Epoch()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._loop_failed)
        for folder in ("node-logs", "streams"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        self._turn(self._start())

    def now_ms(self) -> int:
        return self._epoch.floor_ms() if self._epoch else 0

    def wall_ms(self) -> int:
        return wall_ms()

    def watch(self, surface: str, every_ms: int) -> None:
        if surface not in self.stack.surfaces:
            raise WorldError(f"no surface {surface!r}{hint(surface, self.stack.surfaces)}")
        self._every_ms[surface] = every_ms
        if self._sampling is not None:
            self._turn(self._watch_surface(surface))

    def carry_out(self, due_ms: int, acts: Sequence[DrillAct]) -> None:
        self._turn(self._carry_out(due_ms, acts))

    def press(self, stimulus: Stimulus) -> None:
        self._turn(self._press(stimulus, None))

    def inject(self, fault: Fault) -> None:
        self._turn(self._carry_out(self.now_ms(), [("inject", fault)], timely=False))

    def heal(self, fault: Fault) -> None:
        self._turn(self._carry_out(self.now_ms(), [("heal", fault)], timely=False))

    def advance_to(self, at_ms: int) -> None:
        self._turn(asyncio.sleep(self.epoch.seconds_until(at_ms)))

    def advance_until(self, predicate: Predicate, for_ms: int, by_ms: int) -> int | None:
        held = self._turn(self._until(predicate, for_ms, by_ms))
        if held is not None and not self._baseline:
            self._baseline = dict(self._usable)
        # An answer's time is rounded up and now is rounded down: the moment must not lie after now.
        return None if held is None else min(held, self.now_ms())

    def interrupt(self, why: BaseException) -> bool:
        """Raised in the loop's own code it could lose what the loop had just taken up: a task that waits for ever after."""
        if self._loop is None or self._failed is None:
            return False
        self._loop.call_soon_threadsafe(_settle, self._failed, why)  # of this verb: the next one may be the healing
        return True

    def stop(self) -> Mapping[str, Mapping[str, Json]]:
        if self._loop is None:
            return {}
        if self._stopping is None:
            self._stopping = self._last_steps()
        if not self._stopping:
            return self._streams
        errors: list[str] = []
        while self._stopping:
            try:
                self._turn(self._stopping[0]())
            except WorldError as why:
                errors.append(str(why))
            del self._stopping[0]  # a step that was interrupted is tried again; one that failed is not
        self._loop.close()
        if errors:
            raise WorldError("; ".join(errors))
        return self._streams

    def describe(self) -> Mapping[str, Json]:
        return {
            "world": self.name,
            "placebo": self.placebo,
            "build": {name: next(iter(node.builds), None) for name, node in self.stack.nodes.items()},
            "proxy": self._describe_proxy(),
            "surfaces": {name: {"every_ms": every_ms, "contract": self.stack.surfaces[name].contract,
                                "node": self.stack.surfaces[name].node}
                         for name, every_ms in sorted(self._surfaces().items())},
            "links": {each.name: {"from": each.client, "to": each.target,
                                  "transit_ms_max": each.transit_ms_max} for each in self.stack.links.values()},
            "nodes": [*sorted(self.stack.nodes)],
        }

    @abstractmethod
    def versions(self) -> Mapping[str, Json]:
        """What may differ between two equal runs: ports, pids, paths."""

    # ---- what a subclass provides -------------------------------------------------------------------------

    @abstractmethod
    async def _start(self) -> None:
        """Bring the nodes up."""

    @abstractmethod
    def _last_steps(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """What is done when the world stops, in this order, each whatever became of the one before."""

    @abstractmethod
    def _describe_proxy(self) -> dict[str, Json]:
        """The proxy, as the head of a recording names it."""

    @abstractmethod
    def _applied(self, fault: Fault) -> Applied:
        """How this world applies a force and takes it back."""

    @abstractmethod
    def address(self, node: str, port: str) -> tuple[str, int]:
        """Where a node's port is to be reached from here."""

    @abstractmethod
    def place_of(self, node: str, file: str) -> tuple[str, str, str]:
        """Where a file of a node is watched: the place of the watcher, a folder there, and its name below that."""

    @abstractmethod
    def make_watching(self, place: str) -> Watching:
        """A watcher for a place; what it says goes to ``self.saw_file``."""

    @abstractmethod
    async def lay_out(self, node: str, file: str, data: bytes) -> None:
        """Put a file among those that an operator lays out for a node."""

    @abstractmethod
    def was_down(self, node: str, begin: int, end: int) -> bool:
        """Whether a node was dead, stopping or starting by an act of ours, at any time in [begin, end]."""

    # ---- for the forces -----------------------------------------------------------------------------------

    @property
    def epoch(self) -> Epoch:
        if self._epoch is None:
            raise WorldError("the world was not started")
        return self._epoch

    @property
    def tape(self) -> Tape:
        if self._tape is None:
            raise WorldError("the world was not started")
        return self._tape

    def will(self, fault: Fault, verb: str, **args: Any) -> None:
        """Write down how a force will be taken back, before it is applied."""
        self._standing[fault.id].entries.append(self.undo_log.will(fault.id, verb, **args))

    async def take_back(self, fault: Fault) -> list[Any]:
        """Carry out what ``will`` wrote down, latest first. Raises NotHealed; what it did not reach still stands."""
        entries, saw = self._standing[fault.id].entries, []
        while entries:
            try:
                seen = await self._undo(entries[-1])
            except OSError as why:
                raise NotHealed(f"{entries[-1].verb}: {why}") from why
            self.undo_log.done(entries[-1], seen)
            saw.append(seen)
            del entries[-1]
        return saw

    async def _undo(self, entry: Undo) -> Any:
        """Carry out one entry. A world that stands in a shorter way to what it did may go that way."""
        return await asyncio.to_thread(undo, entry)

    def took_back(self, fault: Fault, seen: Json) -> None:
        """What ``will`` wrote down was taken back by the force itself, on a shorter way than ``undo``'s."""
        entries = self._standing[fault.id].entries
        while entries:
            self.undo_log.done(entries.pop(), seen)

    @property
    def undo_log(self) -> UndoLog:
        if self._undo_log is None:
            raise WorldError("the world was not started")
        return self._undo_log

    def mark(self, fault: Fault, begin: int, end: int) -> None:
        """The force really began in [begin, end]. Once a fault."""
        standing = self._standing[fault.id]
        if not standing.marked:
            standing.marked = True
            self.tape.mark(fault.id, begin, end)

    def disturbed(self, why: str, since_ms: int) -> str:
        """What is no part of the drill is at work. The run ends by it, and whatever the system did since all was last seen to
        be in order it may have done because of that: the tape says from when on. Returns ``why``."""
        if not self._was_disturbed:
            self._was_disturbed = True
            self.tape.mark("disturbed", since_ms, self.epoch.ceil_ms())
        return why

    def background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run beside everything else; if it fails, the next verb (or this one) fails with it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    @property
    def standing(self) -> tuple[Standing, ...]:
        """The faults that are injected and not healed."""
        return tuple(each for each in self._standing.values() if not each.healed)

    # ---- faults -------------------------------------------------------------------------------------------

    async def _carry_out(self, due_ms: int, acts: Sequence[DrillAct], timely: bool = True) -> None:
        """All of one moment: prepare, wait, take back what ends, start what begins, and ask the witnesses after it.

        What begins is started together, because each waits for answers and none is to be late for another's. Whatever
        fails, everything that was started has ended before the first failure is raised.
        """
        ending = [self._standing[thing.id] for verb, thing in acts if verb == "heal" and thing.id in self._standing]
        ending = [each for each in ending if not each.healed]
        beginning = [Standing(thing, self._applied(thing)) for verb, thing in acts
                     if isinstance(thing, Fault) and verb == "inject"]
        pressing = [thing for _, thing in acts if isinstance(thing, Stimulus)]
        for each in ending:
            each.ending = True
        for each in beginning:
            self._standing[each.fault.id] = each
        try:
            with urgency.urgent():
                await self._together([*(self._probe(each) for each in ending),  # their last word while the force stands
                                      *(self._get_ready(each) for each in beginning),
                                      *(asyncio.to_thread(time.sleep, WARM_S) for _ in beginning)])
                await self._moment(due_ms)
                await self._do(due_ms if timely else None, ending, pressing, beginning)
        finally:
            while self._pipelines:
                self._pipelines.popitem()[1].close()
        if ending:
            await self._next_ms()
        for each in ending:
            await self._probe(each)

    async def _get_ready(self, standing: Standing) -> None:
        """What the witnesses say before, and everything that need not wait for the moment."""
        await self._probe(standing)
        if not self.placebo:
            await standing.applied.prepare()

    async def _do(self, due: int | None, ending: Sequence[Standing], pressing: Sequence[Stimulus],
                  beginning: Sequence[Standing]) -> None:
        """What ends where something is pressed, or begins at the same place, ends first; all else goes on together.

        Switches of one node are told through one pipeline, so there it is enough that what ends is sent first.
        """
        first = [each for each in ending
                 if pressing or any(_meet(each.fault.force, other.fault.force) for other in beginning)]
        rest = [each for each in ending if each not in first]
        waiting = [each for each in beginning if any(_meet(other.fault.force, each.fault.force) for other in first)]
        works = [*(self._heal(each, due) for each in rest if isinstance(each.fault.force, Switch)),
                 self._heal_each([each for each in rest if not isinstance(each.fault.force, Switch)], due),
                 self._after(first, due, [*(self._press(each, due) for each in pressing),
                                          *(self._inject(each, due) for each in waiting)]),
                 *(self._inject(each, due) for each in beginning if each not in waiting)]
        await self._together(works)

    async def _after(self, ending: Sequence[Standing], due: int | None, works: Sequence[Coroutine[Any, Any, None]]) -> None:
        """Works that wait until these have ended; where that fails they are not begun."""
        try:
            await self._heal_each(ending, due)
        except BaseException:
            for each in works:
                each.close()
            raise
        await self._together(works)

    async def _together(self, works: Sequence[Coroutine[Any, Any, None]]) -> None:
        """All at once; the first failure is raised when all have ended."""
        failed = [each for each in await asyncio.gather(*works, return_exceptions=True) if each is not None]
        if failed:
            raise failed[0]

    async def open_pipeline(self, address: tuple[str, int]) -> None:
        """Until the acts of this moment are done. Where nobody listens there is none, and the act itself will say so."""
        pipeline = http.Pipeline(*address)
        with contextlib.suppress(http.Unreachable):
            await pipeline.open()
            self._pipelines.setdefault(address, pipeline)
        if self._pipelines.get(address) is not pipeline:
            pipeline.close()

    def pipeline(self, address: tuple[str, int]) -> http.Pipeline | None:
        """The way to a node's control port that was opened for this moment."""
        return self._pipelines.get(address)

    async def _heal_each(self, standing: Sequence[Standing], due: int | None) -> None:
        for each in standing:
            await self._heal(each, due)

    async def _moment(self, due_ms: int) -> None:
        """Wait for a moment, or at least for the next millisecond, so that what was read before a mark cannot bear the
        mark's time. Sleeping ends a little before, and the rest is spun."""
        at_ms = max(due_ms, self.epoch.ceil_ms() + 1)
        await asyncio.sleep(self.epoch.seconds_until(at_ms - SPIN_MS))
        while self.epoch.floor_ms() < at_ms:
            time.sleep(0)

    async def _inject(self, standing: Standing, due: int | None) -> None:
        fault = standing.fault
        begin = self.epoch.floor_ms()
        if self.placebo:
            asked: Json = {"placebo": True}
            read: Json = {"placebo": True}
        else:
            asked, read = await standing.applied.apply()
        end = self.epoch.ceil_ms()
        standing.injected = True
        self.tape.act(fault.id, "applied", begin, end, asked, due)
        self.tape.act(fault.id, "read_back", begin, end, read)
        if self.placebo or not standing.applied.marks_itself:
            self.mark(fault, begin, end)
        standing.probing = self.background(self._keep_probing(standing))

    async def _heal(self, standing: Standing, due: int | None) -> None:
        begin = self.epoch.floor_ms()
        saw: Json = {"placebo": True} if self.placebo else await standing.applied.heal()
        end = self.epoch.ceil_ms()
        standing.healed = True
        self.tape.act(standing.fault.id, "healed", begin, end, saw, due)
        if standing.injected:  # what was never applied never began: no marks, so that nothing is measured from it
            self.mark(standing.fault, begin, begin)  # a trap that nothing sprang was felt by nobody until here
            self.tape.mark(f"{standing.fault.id}.healed", begin, end)

    async def _next_ms(self) -> int:
        """Let the millisecond end, so that what was read before a mark and after it cannot bear the mark's time."""
        now = self.epoch.ceil_ms()
        await asyncio.sleep(self.epoch.seconds_until(now + 1))
        return self.epoch.floor_ms()

    async def _keep_probing(self, standing: Standing) -> None:
        while not standing.ending:
            await asyncio.sleep(PROBE_EVERY_MS / 1000)
            if not standing.ending:
                found = await standing.applied.probe()
                if not standing.ending:
                    self._witness(standing, found)

    async def _probe(self, standing: Standing) -> None:
        self._witness(standing, await standing.applied.probe())

    def _witness(self, standing: Standing, found: Mapping[str, Json]) -> None:
        for what, value in found.items():
            self.tape.probe(standing.fault.id, what, value, self.epoch.floor_ms())

    # ---- stimuli ------------------------------------------------------------------------------------------

    async def _press(self, stimulus: Stimulus, due: int | None) -> None:
        act = stimulus.act
        begin = self.epoch.floor_ms()
        saw = await self.call(stimulus.id, act) if isinstance(act, Call) else await self._drop(act)
        end = self.epoch.ceil_ms()
        self.tape.act(stimulus.id, "pressed", begin, end, saw, due)
        self.tape.mark(stimulus.id, begin, end)

    async def call(self, id: str, call: Call) -> dict[str, Json]:
        """Ask as the drill says, and tell what was answered; a status of None is no answer."""
        host, port = self.address(call.node, call.port)
        body = b"" if call.body is None else orjson.dumps(call.body)
        headers = {name: self.secrets.fill_header(value) for name, value in call.headers.items()}
        if body:
            headers.setdefault("Content-Type", "application/json")
        try:
            answer = await http.once(host, port, call.method, call.path, headers, body)
        except http.Unreachable as why:
            return {"taken": False, "status": None, "expect": call.expect, "why": why.kind}
        return {"taken": call.expect in (None, answer.status), "status": answer.status, "expect": call.expect,
                "answer": self.shown(answer.body, id)}

    def shown(self, body: bytes, id: str) -> str:
        """The beginning of the answer to an act of ours, with every secret of the run blotted out."""
        return self.secrets.blotted(body.decode("utf-8", "replace"), f"the answer to {id}")[:limits.ANSWER_SHOWN_CHARS]

    async def _drop(self, drop: Drop) -> dict[str, Json]:
        data = orjson.dumps(drop.body)
        await self.lay_out(drop.node, drop.file.removeprefix("files/"), data)
        return {"taken": True, "file": drop.file, "bytes": len(data)}

    def _refuses_stimulus(self, stimulus: Stimulus) -> str | None:
        act = stimulus.act
        if act.node not in self.stack.nodes:
            return f"no node {act.node!r}{hint(act.node, self.stack.nodes)}"
        if isinstance(act, Call) and act.port not in self.stack.nodes[act.node].ports:
            return f"{act.node} has no port {act.port!r}; known: {', '.join(self.stack.nodes[act.node].ports)}"
        if isinstance(act, Drop) and not act.lies_within:
            return f"{act.file}: a dropped file lies within the node's folder"
        return None

    # ---- sampling -----------------------------------------------------------------------------------------

    async def _start_sampling(self) -> None:
        self._sampling = Sampling(self.epoch, self._saw, self._fail, {MARKER: self.marker}, self._clean)
        await self._sampling.start(self.folder / "node-logs" / "sampler.log")
        for surface in self._surfaces():
            await self._watch_surface(surface)
        for node in self.stack.nodes.values():
            if node.clock is not None:
                host, port = self.address(node.name, node.clock.port)
                self._sampling.watch(CLOCK_PREFIX + node.name, host, port, node.clock.path, CLOCK_EVERY_MS)

    def _surfaces(self) -> dict[str, int]:
        """Surfaces that are watched and how often: those that a drill asked for."""
        return dict(self._every_ms)

    async def _watch_surface(self, name: str) -> None:
        surface = self.stack.surfaces[name]
        if surface.file is not None:
            await self._watch_file(name, *self.place_of(surface.node, surface.file))
            return
        host, port = self.address(surface.node, surface.port)
        if self._sampling is not None:
            self._sampling.watch(name, host, port, surface.path, self._every_ms[name])

    async def _watch_file(self, name: str, place: str, folder: str, file: str) -> None:
        if place not in self._watching:
            self._watching[place] = watching = self.make_watching(place)
            await watching.start(self.folder / "node-logs" / "watcher.log")
        self._watching[place].watch(name, folder, file, self._every_ms[name])

    def _clean_file(self, data: bytes, name: str) -> bytes:
        """The content of a surface's file without the secrets that it told."""
        return self.secrets.starred(data, f"the file of {name}") if self.secrets.stands_in(data) else data

    def _clean(self, line: bytes) -> bytes:
        """A line of the sampler without the secrets that a surface told."""
        if not self.secrets.stands_in(line):
            return line
        return self.secrets.starred(line, f"the answers of {orjson.loads(line)['name']}")

    def _saw(self, line: Mapping[str, Any]) -> None:
        """One line of the sampler. Runs in the loop, so that nothing else writes the tape meanwhile."""
        name = line["name"]
        if name.startswith(CLOCK_PREFIX):
            self._saw_clock(name.removeprefix(CLOCK_PREFIX), line)
            return
        due, asked, answered, extra = line["due"], line["asked"], line["answered"], line.get("extra", False)
        document = line.get("doc")
        if document is not None:
            self._usable[name] = document
            self.tape.sample(name, due, asked, answered, document, extra)
        elif "raw" in line:
            size, sha256, head, cut = line["raw"]
            if cut:
                self.tape.limit("DOCUMENT_BYTES_MAX", limits.DOCUMENT_BYTES_MAX)
            self.tape.raw(name, due, asked, answered, size, self.secrets.without_piece(head.encode("latin-1")), sha256, extra)
        else:
            surface = self.stack.surfaces[name]
            down = surface.file is None and self.was_down(surface.node, asked, answered)
            why: Silence = "down" if down else line["silence"]
            self.tape.silence(name, due, asked, answered, why, extra)
            if line["silence"] == "missed":
                return  # the request that was in flight will say more
        self._documents[name] = document
        if self._holding is not None:
            self._holding.see(name, asked, answered, self._documents, self._baseline)

    def saw_file(self, line: Mapping[str, Any]) -> None:
        """One line of a watcher: a look at a file, or how it changed."""
        if "limit" in line:
            self.tape.limit("FILE_CHANGES_PER_S_MAX", limits.FILE_CHANGES_PER_S_MAX)
        elif "how" in line:
            self.tape.written(line["name"], line["begin"], line["end"], line["how"], line["bytes"], line["sha256"])
        else:
            self._saw(line)

    def _saw_clock(self, node: str, line: Mapping[str, Any]) -> None:
        source = self.stack.nodes[node].clock
        if source is not None and isinstance(mono := line.get("doc", {}).get(source.mono), int):
            self.tape.clock(node, line["asked"], line["answered"], mono)

    async def _until(self, predicate: Predicate, for_ms: int, by_ms: int) -> int | None:
        holding = self._holding = _Holding(predicate, for_ms, self._every_ms)
        try:
            async with asyncio.timeout(self.epoch.seconds_until(by_ms)):
                return await holding.reached
        except TimeoutError:
            return None
        finally:
            self._holding = None

    # ---- the loop -----------------------------------------------------------------------------------------

    def _turn(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Turn the loop until ``work`` is done; whatever fails in the background meanwhile fails here.

        asyncio keeps an exception in the task where it came up: so failures of background work are looked for, and
        passed on from here, as a signal is (``interrupt``).
        """
        loop = self._loop
        if loop is None:
            work.close()
            raise WorldError("the world was not started")
        failed: asyncio.Future[BaseException] = loop.create_future()
        self._failed = failed
        task = loop.create_task(work)
        try:
            either: list[asyncio.Future[Any]] = [task, failed]
            loop.run_until_complete(asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED))
        except BaseException:
            self._abandon(task)
            raise
        finally:
            self._failed = None
        if failed.done():
            self._abandon(task)
            raise failed.result()
        try:
            return task.result()
        except OSError as why:  # the machine's refusal ends the run in order, as any failure of the world does
            raise WorldError(f"{type(why).__name__}: {why}") from why

    def _abandon(self, task: asyncio.Task[Any]) -> None:
        """Cancel the verb's work and let it tidy up."""
        task.cancel()
        if self._loop is not None:
            with contextlib.suppress(asyncio.CancelledError, Exception):  # the first error is the one to tell
                self._loop.run_until_complete(task)

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (why := task.exception()) is not None:
            self._fail(why)

    def _loop_failed(self, _: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        self._fail(context.get("exception") or WorldError(str(context.get("message"))))

    def _fail(self, why: BaseException) -> None:
        if self._failed is not None and not self._failed.done():
            self._failed.set_result(why if isinstance(why, WorldError) or not isinstance(why, Exception)
                                    else WorldError(f"{type(why).__name__}: {why}"))

    # ---- stopping -----------------------------------------------------------------------------------------

    async def _end_background(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        left = (await asyncio.wait(tasks, timeout=limits.NODE_STOP_MS_MAX / 1000))[1] if tasks else ()
        if left:  # whatever it waits for, the rest of the stack is to be stopped all the same
            raise WorldError(f"{len(left)} of what ran in the background did not end within {limits.NODE_STOP_MS_MAX} ms")

    async def _end_sampling(self) -> None:
        for each in (self._sampling, *self._watching.values()):
            if each is not None:
                await each.stop()

    async def _undo_what_stands(self) -> None:
        """Healing that failed, or was cut short, is tried once more."""
        for standing in self.standing:
            if not self.placebo:
                await self.take_back(standing.fault)

    async def _free_ports(self) -> None:
        self.ports.release()


def _settle(failed: asyncio.Future[BaseException], why: BaseException) -> None:
    if not failed.done():
        failed.set_result(why)


def _meet(one: Force, other: Force) -> bool:
    """Whether two forces have to do with the same place: a link, or a node unless they are switches of it."""
    if isinstance(one, (LinkFault, RawToxic)) or isinstance(other, (LinkFault, RawToxic)):
        return isinstance(one, (LinkFault, RawToxic)) and isinstance(other, (LinkFault, RawToxic)) and one.link == other.link
    return one.node == other.node and not (isinstance(one, Switch) and isinstance(other, Switch))


class _Holding:
    """Has a predicate held for so long, without a no and without a gap longer than the grain?"""

    def __init__(self, predicate: Predicate, for_ms: int, every_ms: Mapping[str, int]) -> None:
        """To be made inside the loop."""
        self._predicate, self._for_ms = predicate, for_ms
        self._grain_ms = {name: grain_of(every_ms.get(name, 0)) for name in predicate.surfaces}
        self._last: dict[str, int] = {}
        self._since: int | None = None
        self.reached: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def see(self, surface: str, asked: int, answered: int, documents: Mapping[str, Any],
            baseline: Mapping[str, Any]) -> None:
        """A sample of any surface came in."""
        if surface not in self._grain_ms or self.reached.done():
            return
        before = self._last.get(surface)
        self._last[surface] = answered
        if before is not None and asked - before > self._grain_ms[surface]:
            self._since = None
        if evaluate(self._predicate, documents, baseline) is not True:
            self._since = None
            return
        self._since = answered if self._since is None else self._since
        if asked - self._since >= self._for_ms:
            self.reached.set_result(answered)
