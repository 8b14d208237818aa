"""What the worlds share that start and stop a stack themselves: nodes that live and die, links through Toxiproxy,
forces on both, streams and logs brought home. ``local`` has the nodes as processes, ``docker`` as containers.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import limits
from harness.drill.model import (
    Call,
    Clock,
    Deploy,
    Disconnect,
    Disk,
    Fault,
    Fill,
    Force,
    Kill,
    LinkFault,
    NodeForce,
    Overwrite,
    Pause,
    RawToxic,
    Remove,
    Starve,
    Stimulus,
    Switch,
)
from harness.errors import NotApplied, NotHealed, WorldError, hint
from harness.world.real import effects, streams
from harness.world.real.acts import OnBuild, OnClock, OnDisk, OnLife, OnPause, true_clock, wait_for
from harness.world.real.disks import OnFill, OnReadOnly
from harness.world.real.forces import OnCall, OnLink, OnSwitch
from harness.world.real.janitor import Janitor
from harness.world.real.logs import Logs
from harness.world.real.nodes import RealNode, Surroundings, start_order
from harness.world.real.processes import MARKER, Process, marked
from harness.world.real.proxies import Proxies
from harness.world.real.small import OnOverwrite, OnRemove
from harness.world.real.undo import LIFE, Undo, UndoLog, undo
from harness.world.real.world import Applied, RealWorld
from harness.world.stack import Stack

METER_EVERY_S = 0.05
HOUSEKEEPING_EVERY_S = 0.1
PROXIES_EVERY_S = 1.0
MONEY_EVERY_TICKS = 10
NOTICE_MS_MAX = 2_000
"""So long may what a node has started live on when the node is gone."""
AT_ONCE_MAX = 4
"""So many nodes start at the same time: each takes a third of a second of a processor, and on a busy machine all of them
together would be late together."""
CANNOT: Mapping[str, str] = {
    "slow": "slowing each sync needs a block device of our own (root); use stall, or the sim",
    "torn": "the page cache survives kill -9, so nothing is torn unless by luck; the sim alone can do it",
    "unsynced": "the page cache survives kill -9, so nothing unsynced is lost; the sim alone can do it",
}
"""What no real world does to a disk."""
CONTAINED: Mapping[str, str] = {
    "out_of_memory": "a limit on memory of which the kernel kills needs a control group of our own; the sim or docker",
    "starve": "a quota of the processor needs a control group of our own; the sim or docker",
    "disconnect": "a node here has this machine's own network; cut its links, or use the sim or docker",
}
"""What a world without containers does to no node."""


class StackedWorld(RealWorld):
    """See the module. ``machines`` replaces a node's machine by another (a mutant): node → ``module:function``."""

    cannot: Mapping[str, str] = CANNOT
    """Forces on a disk or on the life of a node that this world refuses, each with its reason"""

    def __init__(self, stack: Stack, policy_name: str, policy: Mapping[str, Any], seed: int, folder: Path, *,
                 placebo: bool = False, machines: Mapping[str, str] | None = None, hold: bool = False,
                 allow_hosts: tuple[str, ...] = ()) -> None:
        super().__init__(stack, policy_name, policy, seed, folder, placebo=placebo, machines=machines, hold=hold,
                         allow_hosts=allow_hosts)
        self._clocks: set[str] = set()
        self._down: dict[str, list[list[int | None]]] = {name: [] for name in stack.nodes}
        self._deaths: set[tuple[str, int]] = set()
        self._proxies_made = False
        self._in_order_ms = 0
        """when nodes, Toxiproxy and the evidence's disk were last seen to be in order"""
        self._janitor: Janitor | None = None
        self._pids: dict[str, list[int]] = {}
        self._keep: Undo | None = None
        self._logs = Logs(folder / "node-logs", self.secrets)

    # ---- what a world provides ----------------------------------------------------------------------------

    @property
    @abstractmethod
    def nodes(self) -> Mapping[str, RealNode]:
        """Those that were made so far."""

    @property
    @abstractmethod
    def proxies(self) -> Proxies:
        """Raises WorldError while Toxiproxy is not running."""

    @abstractmethod
    def _lacks(self) -> str | None:
        """Why there can be no such world on this machine, with the line that mends it."""

    @abstractmethod
    def _lacks_for_links(self) -> str | None:
        """Why no fault on a link could be witnessed."""

    @abstractmethod
    def _lacks_for_clock(self, node: str) -> str | None:
        """Why a node's clock cannot be moved."""

    @abstractmethod
    async def _make_stack(self) -> None:
        """Everything but the nodes' processes: nodes, Toxiproxy, proxies, and the links' addresses told to the nodes."""

    @abstractmethod
    def volume_folder(self, name: str) -> str:
        """Where a volume's folder is for all that join it."""

    async def _join_volumes(self) -> None:
        """Each node of a volume finds its folder among its files."""
        for volume in self.stack.volumes.values():
            for name in volume.nodes:
                node = self.nodes[name]
                await node.do("join_volume", data=node.data, at=volume.at, folder=self.volume_folder(volume.name))

    @abstractmethod
    def _will_keep(self) -> None:
        """Write down how what the nodes wrote is brought home when we cannot, and what else this world makes."""

    @abstractmethod
    async def _notice_ends(self) -> None:
        """Learn whether nodes and Toxiproxy still live."""

    @abstractmethod
    async def _stop_proxies(self) -> None:
        """End Toxiproxy."""

    @abstractmethod
    async def _bring_data_home(self) -> None:
        """What the streams need is in the folder ``nodes`` when this returns."""

    async def _hush(self) -> None:
        """Let go of what only this loop can hold. Idempotent."""

    @abstractmethod
    async def _take_down(self) -> None:
        """What else this world made, when nothing is asked of it any more."""

    async def _end_of(self, node: RealNode, writers: tuple[Process, ...] = ()) -> None:
        """Whatever the node had started has a moment to notice that it is gone. Raises NotApplied for what serves on: the node
        was then not ended, only the process around it."""
        started = tuple(dict.fromkeys((*writers, *await node.kin())))

        async def are_gone() -> bool:
            return not any(await node.states(started))

        if not await wait_for(are_gone, NOTICE_MS_MAX):
            left = [each.pid for each, state in zip(started, await node.states(started), strict=True) if state]
            raise NotApplied(f"{node.name} was ended, and processes that it had started live on: {left}")

    # ---- what it refuses ----------------------------------------------------------------------------------

    def refuses(self, act: Force | Stimulus) -> str | None:
        """As in the protocol. The whole drill is asked before it starts, so this is also where the world learns
        whose clock will be troubled: only those nodes start under libfaketime, which is not free (every reading
        of the clock reads a file)."""
        if (why := super().refuses(act) or self._lacks()) is not None:
            return why
        if isinstance(act, Stimulus):
            return self._refuses_stimulus(act)
        if isinstance(act, (LinkFault, RawToxic)):
            if act.link not in self.stack.links:
                return f"no link {act.link!r}{hint(act.link, self.stack.links)}"
            return self._lacks_for_links() or effects.refuses(act)
        if act.node not in self.stack.nodes:
            return f"no node {act.node!r}{hint(act.node, self.stack.nodes)}"
        return self._refuses_on_node(act)

    def _refuses_on_node(self, act: NodeForce) -> str | None:
        node = self.stack.nodes[act.node]
        build = act.build if isinstance(act, (Kill, Deploy)) else None
        if build is not None and build not in node.builds:
            return f"{act.node} has no build {build!r}; known: {', '.join(node.builds)}"
        if isinstance(act, Clock):
            if (why := self._lacks_for_clock(act.node)) is not None:
                return why
            if node.clock is None or node.clock.wall is None:
                return f"{act.node} does not tell its wall clock, so nothing could witness the fault"
            self._clocks.add(act.node)
        word = act.how if isinstance(act, Kill) else {Starve: "starve", Disconnect: "disconnect"}.get(type(act), "")
        if word in self.cannot:
            return f"{word}: {self.cannot[word]}"
        if isinstance(act, Fill) and "fill" in self.cannot:
            return f"fill: {self.cannot['fill']}"
        if isinstance(act, Fill) and act.volume is not None and (why := self.stack.lacks_volume(act.node, act.volume)):
            return why
        if isinstance(act, (Overwrite, Remove)) and not act.lies_within:
            return f"{act.file}: a file that is written or taken away lies within the node's folder"
        if isinstance(act, Disk):
            if act.kind in self.cannot:
                return f"disk {act.kind}: {self.cannot[act.kind]}"
            if not node.environment.get("NODE_WRITER_LOGS"):
                return f"disk {act.kind}: {act.node} has no log with a writer process of its own (NODE_WRITER_LOGS)"
        if isinstance(act, Switch) and node.control is None:
            return f"{act.node} has no control port"
        if isinstance(act, Call) and act.port not in node.ports:
            return f"{act.node} has no port {act.port!r}; known: {', '.join(node.ports)}"
        return None

    # ---- starting -----------------------------------------------------------------------------------------

    async def _start(self) -> None:
        self._write_life()
        self._post_janitor()
        (self.folder / "nodes").mkdir(exist_ok=True)  # not before there is somebody to remove it
        await self._make_stack()
        self._proxies_made = True
        await self._start_sampling()
        self.background(self._keep_house())
        self.background(self._keep_metering())
        self.background(self._keep_looking_at_proxies())
        await each_behind(start_order(self.stack), self._dialled, self._boot_first)

    def _dialled(self, node: str) -> set[str]:
        return {link.server for link in self.stack.links.values() if link.client == node}

    def _dialling(self, node: str) -> set[str]:
        return {link.client for link in self.stack.links.values() if link.server == node}

    async def _boot_first(self, name: str) -> None:
        node = self.nodes[name]
        if not await self._boot(node, None):
            self._watch_evidence()  # a full disk is the better reason
            why = f"ended with code {node.returncode}" if not node.alive else "is not ready"
            if not node.alive:
                self._note_death(node)  # it is told here, and not once more when the world stops
            raise WorldError(f"{name} {why} after {limits.NODE_START_MS_MAX} ms at most: {node.last_words()}")

    def _write_life(self) -> None:
        """What ends this run, written before anything of it exists."""
        harness = Process.of(os.getpid())
        if harness is None:
            raise WorldError("the harness cannot find itself in /proc")
        self._undo_log = UndoLog(self.folder)
        self._will_keep()
        self._life = self._undo_log.will("run", LIFE, harness=harness.to_json(), marker=self.marker)

    def _post_janitor(self) -> None:
        """From here on somebody ends the run if we cannot."""
        self._janitor = Janitor(self.folder, self._janitor_environment())
        self._pids.setdefault("janitor", []).append(self._janitor.pid)

    def _janitor_environment(self) -> dict[str, str]:
        """By what it knows the run when its folder was taken away."""
        return {MARKER: self.marker}

    def _surroundings(self) -> Surroundings:
        return Surroundings(self.stack, self.folder.name, self.marker, self.seed, self.folder, self.policy,
                            self.secrets, outlives=self.hold)

    def _sources(self) -> dict[str, dict[str, str]]:
        return {each.name: {"node": each.node, "path": each.path, "framing": each.framing}
                for each in self.stack.streams.values()}

    async def boot(self, node: RealNode, build: str | None) -> bool:
        """Start a node again and wait until it serves. Its surfaces are down by our act until then."""
        if node.fakes_time and not any(isinstance(each.fault.force, Clock) and each.fault.force.node == node.name
                                       for each in self.standing):
            await true_clock(node)
        try:
            ready = await self._boot(node, build)
        except WorldError as why:
            raise NotHealed(str(why)) from why
        self._up_again(node)
        return ready

    async def _boot(self, node: RealNode, build: str | None) -> bool:
        begin = self.epoch.floor_ms()
        await node.start(build)
        if node.process is not None:
            self._pids.setdefault(node.name, []).append(node.process.pid)
        by_ms = begin + limits.NODE_START_MS_MAX
        ready, _ = await asyncio.gather(node.until_ready(self.epoch, by_ms), self._refuse_again(node))
        self.tape.act(f"process.{node.name}", "started", begin, self.epoch.ceil_ms(),
                      {"build": node.build, "life": node.lives, "ready": ready})
        return ready

    async def _refuse_again(self, node: RealNode) -> None:
        """A disk that refuses a node goes on to do so when the node begins anew."""
        for each in self.standing:
            if isinstance(each.applied, OnDisk) and each.injected:
                await each.applied.again(node)

    # ---- for the forces -----------------------------------------------------------------------------------

    def _applied(self, fault: Fault) -> Applied:
        force = fault.force
        if isinstance(force, (LinkFault, RawToxic)):
            return OnLink(self, self.proxies, fault, force)
        if isinstance(force, Call):
            return OnCall(self, fault, force)
        node = self.nodes[force.node]
        if isinstance(force, Switch):
            if node.process is None or node.node.control is None:
                raise NotApplied(f"{node.name} has no control port to be reached")
            return OnSwitch(self, node, self.address(node.name, node.node.control), fault, force)
        if isinstance(force, Kill):
            return OnLife(self, node, fault, force)
        if isinstance(force, Deploy):
            return OnBuild(self, node, fault, force)
        if isinstance(force, Clock):
            return OnClock(self, node, fault, force)
        if isinstance(force, Disk):
            return (OnReadOnly if force.kind == "read_only" else OnDisk)(self, node, fault, force)
        if isinstance(force, Fill):
            return OnFill(self, node, fault, force)
        if isinstance(force, Overwrite):
            return OnOverwrite(self, node, fault, force)
        if isinstance(force, Remove):
            return OnRemove(self, node, fault, force)
        if isinstance(force, (Starve, Disconnect)):
            raise NotApplied(f"{type(force).__name__.lower()}: {self.name} has no way to do it")
        return OnPause(self, node, fault)

    async def kill(self, node: RealNode) -> None:
        """``kill -9`` of a node by our act. Its writers must die by themselves, and are made to before it restarts."""
        writers = tuple((await node.writers()).values())
        self.goes_down(node)
        await node.kill()
        await self._end_of(node, writers)

    async def shut(self, node: RealNode) -> str:
        """An orderly stop by our act."""
        self.goes_down(node)
        how = await node.stop()
        await self._end_of(node)
        return how

    async def lay_out(self, node: str, file: str, data: bytes) -> None:
        await self.nodes[node].put(f"{self.nodes[node].data}/files/{file}", data)

    def was_down(self, node: str, begin: int, end: int) -> bool:
        return any(down[0] is not None and down[0] <= end and (down[1] is None or down[1] >= begin)
                   for down in self._down[node])

    def goes_down(self, node: RealNode) -> None:
        """From here on it is our act that it does not answer, until it is up again."""
        self._deaths.add((node.name, node.lives))
        self._down[node.name].append([self.epoch.floor_ms(), None])

    def _up_again(self, node: RealNode) -> None:
        for down in self._down[node.name]:
            down[1] = self.epoch.ceil_ms() if down[1] is None else down[1]

    # ---- beside everything else ---------------------------------------------------------------------------

    async def _keep_metering(self) -> None:
        """Read the links' counters often enough for the lag, and before short connections are forgotten."""
        while True:
            await self.proxies.read(self.epoch.floor_ms())
            if self.proxies.lost_news:
                self.tape.limit("SOCKET_NEWS_BYTES_MAX", limits.SOCKET_NEWS_BYTES_MAX)
            await asyncio.sleep(METER_EVERY_S)

    async def _keep_looking_at_proxies(self) -> None:
        while True:
            await self._look_at_proxies()
            await asyncio.sleep(PROXIES_EVERY_S)

    async def _look_at_proxies(self) -> None:
        """What somebody else does to the proxies is no part of the drill, and ends it."""
        if not self._proxies_made or self.proxies.died is not None:
            return
        try:
            why = await asyncio.to_thread(self.proxies.strayed, self.epoch.floor_ms())
        except WorldError as silent:
            await asyncio.sleep(HOUSEKEEPING_EVERY_S)
            await self._notice_ends()
            self._proxies_live()  # that it ended is the better reason, and shows a moment later
            self.disturbed(str(silent), self.proxies.right_ms)
            raise
        if why is not None:
            raise WorldError(self.disturbed(why, self.proxies.right_ms))

    def _proxies_live(self) -> None:
        if (code := self.proxies.died) is not None:
            raise WorldError(self.disturbed(f"Toxiproxy ended by itself with code {code}; see node-logs/toxiproxy.log",
                                            self._in_order_ms))
        if self.proxies.stopped:
            raise WorldError(self.disturbed("Toxiproxy was stopped (SIGSTOP) by somebody else", self._in_order_ms))

    async def _keep_house(self) -> None:
        ticks = 0
        while True:
            begin = self.epoch.floor_ms()
            await self._notice_deaths()
            if self._janitor is not None and not self._janitor.alive:
                self._post_janitor()  # no run goes on unguarded
            self._watch_evidence()
            self._in_order_ms = begin
            self.tape.flush(self.epoch.floor_ms())
            if ticks % MONEY_EVERY_TICKS == 0:
                await self._watch_money()
            self._keep_logs()
            ticks += 1
            await asyncio.sleep(HOUSEKEEPING_EVERY_S)

    async def _notice_deaths(self) -> None:
        """That a node ended by itself is a fact about it when the drill looks at what it answers. Whatever else ends, a node
        that only takes part or leaves files, or a proxy, ends the run: nobody could be judged by what follows."""
        await self._notice_ends()
        watched = {self.stack.surfaces[name].node for name in self._every_ms if self.stack.surfaces[name].file is None}
        for node in self.nodes.values():
            if node.lives and not node.alive and (node.name, node.lives) not in self._deaths:
                self._note_death(node)
                if node.name not in watched:
                    raise WorldError(self.disturbed(f"{node.name} ended by itself with code {node.returncode}; "
                                                    f"see node-logs/{node.log.name}: {node.last_words()}",
                                                    self._in_order_ms))
            if node.name not in watched and await self._is_stopped_by_a_stranger(node):
                raise WorldError(self.disturbed(f"{node.name} was stopped (SIGSTOP) by somebody else", self._in_order_ms))
        self._proxies_live()

    def _note_death(self, node: RealNode) -> None:
        now = self.epoch.floor_ms()
        self._deaths.add((node.name, node.lives))
        self.tape.act(f"process.{node.name}", "exited", now, now, {"code": node.returncode})

    async def _is_stopped_by_a_stranger(self, node: RealNode) -> bool:
        """No fault that stands on the node would stop it, and it is stopped all the same."""
        if node.process is None or any(isinstance(each.fault.force, (Pause, Kill, Disk))
                                       and each.fault.force.node == node.name for each in self.standing):
            return False
        return (await node.states([node.process]))[0] == "T"

    def _watch_evidence(self) -> None:
        """What cannot be written down to its end is ended while that can still be said."""
        try:
            room = os.statvfs(self.tape.file)
        except OSError as why:
            raise WorldError(f"{self.tape.file}: was taken away while the run was being recorded: {why.strerror}") from why
        if room.f_flag & os.ST_RDONLY:
            raise WorldError(f"{self.folder}: its disk has become read-only; nothing more can be recorded")
        if room.f_bavail * room.f_frsize < limits.EVIDENCE_ROOM_BYTES_MIN:
            raise WorldError(self.disturbed(f"{self.folder}: no room is left on its disk; less than "
                                            f"{limits.EVIDENCE_ROOM_BYTES_MIN} bytes, so that the recording is ended in order",
                                            self._in_order_ms))

    @abstractmethod
    async def _watch_money(self) -> None:
        """A node that reaches beyond what it was given, whatever its configuration says, is killed, and the run with it."""

    def _keep_logs(self) -> None:
        if self._logs.keep():
            self.tape.limit("LOG_BYTES_MAX", limits.LOG_BYTES_MAX)

    # ---- stopping -----------------------------------------------------------------------------------------

    def _last_steps(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        if self.hold:
            return [self._look_at_proxies, self._end_background, self._undo_what_stands, self._end_sampling,
                    self._bring_data_home, self._copy_streams, self._search_secrets, self._hush]
        return [self._look_at_proxies, self._end_background, self._undo_what_stands, self._end_sampling, self._stop_nodes,
                self._stop_proxies, self._end_stragglers, self._bring_data_home, self._copy_streams, self._hush,
                self._take_down, self._search_secrets, self._clear_away, self._free_ports]

    async def _stop_nodes(self) -> None:
        """Clients before their servers, so that nothing is accused of its server's orderly end."""
        await self._notice_ends()
        await each_behind(tuple(reversed(start_order(self.stack))), self._dialling, self._stop_node)

    async def _stop_node(self, name: str) -> None:
        node = self.nodes.get(name)
        if node is not None and node.lives and node.alive:
            begin = self.epoch.floor_ms()
            how = await node.stop()
            self.tape.act(f"process.{name}", "stopped", begin, self.epoch.ceil_ms(), how)

    async def _end_stragglers(self) -> None:
        """Whatever carries our marker and still lives, a writer or a child's child, ends before its data is read."""
        if self._life is not None:
            await asyncio.to_thread(undo, self._life)

    async def _copy_streams(self) -> None:
        kept = await asyncio.to_thread(streams.keep, self.folder, self.folder / "nodes", self._sources(), self.secrets)
        if any(each.pop("cut", False) for each in kept.values()):
            self.tape.limit("STREAM_BYTES_MAX", limits.STREAM_BYTES_MAX)
        self._streams = kept

    async def _search_secrets(self) -> None:
        begin = self.epoch.floor_ms()
        self._keep_logs()
        self.tape.flush(begin + limits.NODE_START_MS_MAX)  # all of it, whenever it was last flushed
        found = await asyncio.to_thread(streams.leaks, self.folder, self.secrets.values, "nodes")
        self.tape.act("secrets", "searched", begin, self.epoch.ceil_ms(), {"found": self.secrets.found(found)})

    async def _clear_away(self) -> None:
        """Our own end in order: data folders, undo log, janitor."""
        await asyncio.to_thread(shutil.rmtree, self.folder / "nodes", True)
        if self._keep is not None:
            self.undo_log.done(self._keep, "kept")
            self._keep = None
        if self._life is not None:
            self.undo_log.done(self._life, {"left": len(marked(self.marker)) - 1})  # one is the janitor
            self._life = None
            self.undo_log.close()
        if self._janitor is not None:
            self._janitor.dismiss()

    def release(self, keep: bool) -> None:
        """The end of a held run, now that its verdict is known: let the stack stand, or end it after all. Idempotent.

        Until here the janitor stands guard. What is let stand runs until ``drillproof recover`` is called on it.
        """
        if not self.hold or self._loop is None:
            return
        if not keep:
            asyncio.run(self._end_held())
        elif self._janitor is not None:
            self._janitor.dismiss()

    async def _end_held(self) -> None:
        """Without ceremony: everything that counts was collected when the run stopped."""
        await self._end_stragglers()
        await self._take_down()
        await self._clear_away()
        await self._free_ports()


async def each_behind(order: Sequence[str], behind: Callable[[str], set[str]],
                      work: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    """The work of each, a few at a time, as soon as that of all it comes behind is done, as far as those stand before it in
    the order. The first failure is raised, and what has not begun by then never does."""
    turn, tasks = asyncio.Semaphore(AT_ONCE_MAX), dict[str, asyncio.Task[None]]()

    async def wait_and_work(name: str, others: Sequence[asyncio.Task[None]]) -> None:
        await asyncio.gather(*map(asyncio.shield, others))
        async with turn:
            await work(name)

    for name in order:
        tasks[name] = asyncio.create_task(wait_and_work(name, [tasks[each] for each in behind(name) & tasks.keys()]))
    try:
        await asyncio.gather(*tasks.values())
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
