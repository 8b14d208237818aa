"""The local world: processes of this machine, real sockets through the real Toxiproxy, ``kill -9``, libfaketime."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import shutil
import signal
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from harness import limits
from harness.drill.model import (
    Call,
    Clock,
    Deploy,
    Disk,
    Fault,
    Fill,
    Force,
    Json,
    Kill,
    LinkFault,
    Pause,
    RawToxic,
    Stimulus,
    Switch,
)
from harness.errors import NotApplied, NotHealed, WorldError, nearest
from harness.recording.tape import Tape
from harness.world.real import effects, setup, sockets, streams
from harness.world.real.acts import OnBuild, OnClock, OnDisk, OnLife, OnPause, true_clock
from harness.world.real.clock import faketime_library
from harness.world.real.forces import OnCall, OnLink, OnSwitch
from harness.world.real.janitor import Janitor
from harness.world.real.logs import Logs
from harness.world.real.nodes import INHERITED, LocalNode, Surroundings, start_order
from harness.world.real.ports import LOOPBACK
from harness.world.real.processes import MARKER, Process, marked
from harness.world.real.proxies import LinkProxies
from harness.world.real.undo import LIFE, Undo, UndoLog, undo
from harness.world.real.world import Applied, RealWorld
from harness.world.stack import Stack

METER_EVERY_S = 0.05
HOUSEKEEPING_EVERY_S = 0.1
PROXIES_EVERY_S = 1.0
MONEY_EVERY_TICKS = 10
CANNOT: Mapping[str, str] = {
    "fill": "this machine's own disk is never filled; a disk of fixed size needs the sim or docker",
    "slow": "slowing each sync needs a block device of our own (root); use stall, or the sim",
    "read_only": "a data folder of the node's own user is never read-only to it; use refuse, the sim or docker",
    "torn": "the page cache survives kill -9, so nothing is torn unless by luck; the sim alone can do it",
    "unsynced": "the page cache survives kill -9, so nothing unsynced is lost; the sim alone can do it",
}


class LocalWorld(RealWorld):
    """See the module. ``machines`` replaces a node's machine by another (a mutant): node → ``module:function``."""

    name = "local"

    def __init__(self, stack: Stack, policy_name: str, policy: Mapping[str, Any], seed: int, folder: Path, *,
                 placebo: bool = False, machines: Mapping[str, str] | None = None, hold: bool = False,
                 toxiproxy: Path | None = None, allow_hosts: tuple[str, ...] = ()) -> None:
        super().__init__(stack, policy_name, policy, seed, folder, placebo=placebo, machines=machines, hold=hold,
                         allow_hosts=allow_hosts)
        self._toxiproxy = toxiproxy or setup.find()
        self._library = faketime_library()
        self._clocks: set[str] = set()
        self._nodes: dict[str, LocalNode] = {}
        self._down: dict[str, list[list[int | None]]] = {}
        self._deaths: set[tuple[str, int]] = set()
        self._links: LinkProxies | None = None
        self._proxies_made = False
        self._janitor: Janitor | None = None
        self._pids: dict[str, list[int]] = {}
        self._keep: Undo | None = None
        self._logs = Logs(folder / "node-logs", self.secrets)

    # ---- what it refuses ----------------------------------------------------------------------------------

    def refuses(self, act: Force | Stimulus) -> str | None:
        """As in the protocol. The whole drill is asked before it starts, so this is also where the world learns
        whose clock will be troubled: only those nodes start under libfaketime, which is not free (every reading
        of the clock reads a file)."""
        if (why := super().refuses(act)) is not None:
            return why
        if self._toxiproxy is None:
            return f"there is no Toxiproxy server on this machine; this line installs it:\n  {setup.explain()}"
        if (why := setup.unfit(self._toxiproxy)) is not None:
            return why
        if isinstance(act, Stimulus):
            return self._refuses_stimulus(act)
        if isinstance(act, (LinkFault, RawToxic)):
            if act.link not in self.stack.links:
                return f"no link {act.link!r}; nearest: {nearest(act.link, self.stack.links)}"
            if not sockets.available():
                return "this kernel does not tell a connection's byte counters (sock_diag): no witness for links"
            return effects.refuses(act)
        if act.node not in self.stack.nodes:
            return f"no node {act.node!r}; nearest: {nearest(act.node, self.stack.nodes)}"
        return self._refuses_on_node(act)

    def _refuses_on_node(self, act: Kill | Pause | Deploy | Clock | Disk | Fill | Switch | Call) -> str | None:
        node = self.stack.nodes[act.node]
        build = act.build if isinstance(act, (Kill, Deploy)) else None
        if build is not None and build not in node.builds:
            return f"{act.node} has no build {build!r}; known: {', '.join(node.builds)}"
        if isinstance(act, Clock):
            if self._library is None:
                return "libfaketime is not installed; this line installs it: pip install libfaketime==3.0.1"
            if node.clock is None or node.clock.wall is None:
                return f"{act.node} does not tell its wall clock, so nothing could witness the fault"
            self._clocks.add(act.node)
        if isinstance(act, Fill):
            return f"fill: {CANNOT['fill']}"
        if isinstance(act, Disk):
            if act.kind in CANNOT:
                return f"disk {act.kind}: {CANNOT[act.kind]}"
            if not node.environment.get("NODE_WRITER_LOGS"):
                return f"disk {act.kind}: {act.node} has no log with a writer process of its own (NODE_WRITER_LOGS)"
        if isinstance(act, Switch) and node.control is None:
            return f"{act.node} has no control port"
        if isinstance(act, Call) and act.port not in node.ports:
            return f"{act.node} has no port {act.port!r}; known: {', '.join(node.ports)}"
        return None

    # ---- starting -----------------------------------------------------------------------------------------

    def start(self, tape: Tape) -> None:
        if self._toxiproxy is None:
            raise WorldError(f"there is no Toxiproxy server; this line installs it:\n  {setup.explain()}")
        super().start(tape)

    async def _start(self) -> None:
        self._write_life()
        self._post_janitor()
        self._make_nodes()
        self._links = self._start_toxiproxy()
        await asyncio.to_thread(self._make_proxies, self._links)
        self._proxies_made = True
        self._aim_links()
        await self._start_sampling()
        self.background(self._keep_house())
        self.background(self._keep_metering())
        self.background(self._keep_looking_at_proxies())
        for name in start_order(self.stack):
            node = self._nodes[name]
            if not await self._boot(node, None):
                self._watch_evidence()  # a full disk is the better reason
                why = f"ended with code {node.returncode}" if not node.alive else "is not ready"
                raise WorldError(f"{name} {why} after {limits.NODE_START_MS_MAX} ms at most: {node.last_words()}")

    def _write_life(self) -> None:
        """What ends this run, written before anything of it exists."""
        harness = Process.of(os.getpid())
        if harness is None:
            raise WorldError("the harness cannot find itself in /proc")
        self._undo_log = UndoLog(self.folder)
        sources = {each.name: {"node": each.node, "path": each.path, "framing": each.framing}
                   for each in self.stack.streams.values()}
        self._keep = self._undo_log.will("streams", "keep_streams", folder=str(self.folder.resolve()),
                                         nodes=str((self.folder / "nodes").resolve()), sources=sources)
        self._life = self._undo_log.will("run", LIFE, harness=harness.to_json(), marker=self.marker)

    def _post_janitor(self) -> None:
        """From here on somebody ends the run if we cannot."""
        self._janitor = Janitor(self.folder, {MARKER: self.marker})
        self._pids.setdefault("janitor", []).append(self._janitor.pid)

    def _make_nodes(self) -> None:
        around = Surroundings(self.stack, self.folder.name, self.marker, self.seed, self.folder, self.policy,
                              self.secrets, outlives=self.hold)
        for name, node in self.stack.nodes.items():
            ports = {port: self.ports.reserve() for port in node.ports}
            self._nodes[name] = LocalNode(node, around, ports, {}, self.machines.get(name),
                                          self._library if name in self._clocks else None)
            self._down[name] = []
            true_clock(self._nodes[name])

    def _start_toxiproxy(self) -> LinkProxies:
        if self._toxiproxy is None:
            raise WorldError("there is no Toxiproxy server")
        environment = _inherited() | {MARKER: self.marker, "LOG_LEVEL": "info"}
        links = LinkProxies(self._toxiproxy, self.ports, environment, self.folder / "node-logs" / "toxiproxy.log",
                            outlives=self.hold)
        links.start()
        return links

    def _make_proxies(self, links: LinkProxies) -> None:
        links.until_ready(setup.version_of(links.executable))
        for link in self.stack.links.values():
            client = self._nodes[link.client]
            server = self._nodes.get(link.server)
            address = f"{LOOPBACK}:{server.ports[link.port]}" if server is not None else self.stack.upstreams[link.server]
            links.add(link.name, address, partial(_holds, client))

    def _aim_links(self) -> None:
        """Every node is told the proxies' addresses, and no other."""
        for link in self.stack.links.values():
            address = f"{LOOPBACK}:{self.proxies.fronts[link.name]}"
            self._nodes[link.client].urls[link.env] = link.url.replace("{address}", address)

    async def boot(self, node: LocalNode, build: str | None) -> bool:
        """Start a node again and wait until it serves. Its surfaces are down by our act until then."""
        if node.fakes_time and not any(isinstance(each.fault.force, Clock) and each.fault.force.node == node.name
                                       for each in self.standing):
            true_clock(node)
        try:
            ready = await self._boot(node, build)
        except WorldError as why:
            raise NotHealed(str(why)) from why
        self._up_again(node)
        return ready

    async def _boot(self, node: LocalNode, build: str | None) -> bool:
        begin = self.epoch.floor_ms()
        await node.start(build)
        if node.process is not None:
            self._pids.setdefault(node.name, []).append(node.process.pid)
        ready = await node.until_ready(self.epoch, begin + limits.NODE_START_MS_MAX)
        self.tape.act(f"process.{node.name}", "started", begin, self.epoch.ceil_ms(),
                      {"build": node.build, "life": node.lives, "ready": ready})
        return ready

    # ---- for the forces -----------------------------------------------------------------------------------

    def _applied(self, fault: Fault) -> Applied:
        force = fault.force
        if isinstance(force, (LinkFault, RawToxic)):
            return OnLink(self, self.proxies, fault, force)
        if isinstance(force, Call):
            return OnCall(self, fault, force)
        node = self._nodes[force.node]
        if isinstance(force, Switch):
            if node.process is None or node.node.control is None:
                raise NotApplied(f"{node.name} has no control port to be reached")
            return OnSwitch(self, node.process, self.address(node.name, node.node.control), fault, force)
        if isinstance(force, Kill):
            return OnLife(self, node, fault, force)
        if isinstance(force, Deploy):
            return OnBuild(self, node, fault, force)
        if isinstance(force, Clock):
            return OnClock(self, node, fault, force)
        if isinstance(force, Disk):
            return OnDisk(self, node, fault, force)
        return OnPause(self, node, fault)

    @property
    def proxies(self) -> LinkProxies:
        if self._links is None:
            raise WorldError("Toxiproxy is not running")
        return self._links

    async def kill(self, node: LocalNode) -> None:
        """``kill -9`` of a node by our act. Its writers must die by themselves, and are made to before it restarts."""
        writers = tuple(node.writers().values())
        self._goes_down(node)
        await node.kill()
        for _ in range(200):
            if not any(each.alive for each in writers):
                return
            await asyncio.sleep(0.005)
        raise NotApplied(f"{node.name}: a writer process outlived it: {[each.pid for each in writers if each.alive]}")

    async def shut(self, node: LocalNode) -> str:
        """An orderly stop by our act."""
        self._goes_down(node)
        return await node.stop()

    def address(self, node: str, port: str) -> tuple[str, int]:
        return LOOPBACK, self._nodes[node].ports[port]

    def data_folder(self, node: str) -> Path:
        return self._nodes[node].data

    def was_down(self, node: str, begin: int, end: int) -> bool:
        return any(down[0] is not None and down[0] <= end and (down[1] is None or down[1] >= begin)
                   for down in self._down[node])

    def _goes_down(self, node: LocalNode) -> None:
        self._deaths.add((node.name, node.lives))
        self._down[node.name].append([self.epoch.floor_ms(), None])

    def _up_again(self, node: LocalNode) -> None:
        for down in self._down[node.name]:
            down[1] = self.epoch.ceil_ms() if down[1] is None else down[1]

    # ---- beside everything else ---------------------------------------------------------------------------

    async def _keep_metering(self) -> None:
        """Read the links' counters often enough for the lag, and before short connections are forgotten."""
        while True:
            self.proxies.meters.read(self.epoch.floor_ms())
            if self.proxies.meters.lost_news:
                self.tape.limit("SOCKET_NEWS_BYTES_MAX", limits.SOCKET_NEWS_BYTES_MAX)
            await asyncio.sleep(METER_EVERY_S)

    async def _keep_looking_at_proxies(self) -> None:
        while True:
            await self._look_at_proxies()
            await asyncio.sleep(PROXIES_EVERY_S)

    async def _look_at_proxies(self) -> None:
        """What somebody else does to the proxies is no part of the drill, and ends it."""
        if self._links is None or not self._proxies_made or self._links.died is not None:
            return
        try:
            why = await asyncio.to_thread(self._links.strayed)
        except WorldError:
            await asyncio.sleep(HOUSEKEEPING_EVERY_S)
            self._proxies_live()  # that it ended is the better reason, and shows a moment later
            raise
        if why is not None:
            raise WorldError(f"somebody else changed Toxiproxy: {why}")

    def _is_stopped_by_a_stranger(self, node: LocalNode) -> bool:
        """No fault that stands on the node would stop it, and it is stopped all the same."""
        return node.process is not None and node.process.state == "T" and not any(
            isinstance(each.fault.force, (Pause, Kill, Disk)) and each.fault.force.node == node.name
            for each in self.standing)

    def _proxies_live(self) -> None:
        if (code := self.proxies.died) is not None:
            raise WorldError(f"Toxiproxy ended by itself with code {code}; see node-logs/toxiproxy.log")

    async def _keep_house(self) -> None:
        ticks = 0
        while True:
            self._notice_deaths()
            if self._janitor is not None and not self._janitor.alive:
                self._post_janitor()  # no run goes on unguarded
            self._watch_evidence()
            self.tape.flush(self.epoch.floor_ms())
            if ticks % MONEY_EVERY_TICKS == 0:
                self._watch_money()
            self._keep_logs()
            ticks += 1
            await asyncio.sleep(HOUSEKEEPING_EVERY_S)

    def _notice_deaths(self) -> None:
        """That a node ended by itself is a fact about it when the drill looks at its surfaces. Whatever else ends, a
        node that only takes part or a proxy, ends the run: nobody could be judged by what follows."""
        watched = {self.stack.surfaces[name].node for name in self._every_ms}
        for node in self._nodes.values():
            life = (node.name, node.lives)
            if node.lives and not node.alive and life not in self._deaths:
                self._deaths.add(life)
                now = self.epoch.floor_ms()
                self.tape.act(f"process.{node.name}", "exited", now, now, {"code": node.returncode})
                if node.name not in watched:
                    raise WorldError(f"{node.name} ended by itself with code {node.returncode}; "
                                     f"see node-logs/{node.log.name}: {node.last_words()}")
            if node.name not in watched and self._is_stopped_by_a_stranger(node):
                raise WorldError(f"{node.name} was stopped (SIGSTOP) by somebody else")
        self._proxies_live()

    def _watch_evidence(self) -> None:
        """What cannot be written down to its end is ended while that can still be said."""
        try:
            room = os.statvfs(self.tape.file)
        except OSError as why:
            raise WorldError(f"{self.tape.file}: was taken away while the run was being recorded: {why.strerror}") from why
        if room.f_flag & os.ST_RDONLY:
            raise WorldError(f"{self.folder}: its disk has become read-only; nothing more can be recorded")
        if room.f_bavail * room.f_frsize < limits.EVIDENCE_ROOM_BYTES_MIN:
            raise WorldError(f"{self.folder}: no room is left on its disk; less than "
                             f"{limits.EVIDENCE_ROOM_BYTES_MIN} bytes, so that the recording is ended in order")

    def _watch_money(self) -> None:
        """A node that reaches beyond this machine, whatever its configuration says, is killed, and the run with it."""
        leaving = {each.inode: each for each in self.proxies.meters.strangers()}
        if not leaving:
            return
        for node in self._nodes.values():
            for process in node.group():
                for inode in sockets.inodes_of(process.pid) & leaving.keys():
                    for each in node.group():
                        each.send(signal.SIGKILL)
                    raise WorldError(f"{node.name} was connected to {leaving[inode].remote_host}: killed, because a "
                                     f"drill never reaches beyond this machine")

    def _keep_logs(self) -> None:
        if self._logs.keep():
            self.tape.limit("LOG_BYTES_MAX", limits.LOG_BYTES_MAX)

    # ---- stopping -----------------------------------------------------------------------------------------

    def _last_steps(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        if self.hold:
            return [self._look_at_proxies, self._end_background, self._undo_what_stands, self._end_sampling,
                    self._copy_streams, self._search_secrets]
        return [self._look_at_proxies, self._end_background, self._undo_what_stands, self._end_sampling, self._stop_nodes,
                self._stop_proxies, self._end_stragglers, self._copy_streams, self._search_secrets,
                self._clear_away, self._free_ports]

    async def _stop_nodes(self) -> None:
        """Clients before their servers, so that nothing is accused of its server's orderly end."""
        for name in reversed(start_order(self.stack)):
            node = self._nodes.get(name)
            if node is not None and node.lives and node.alive:
                begin = self.epoch.floor_ms()
                how = await node.stop()
                self.tape.act(f"process.{name}", "stopped", begin, self.epoch.ceil_ms(), how)

    async def _stop_proxies(self) -> None:
        if self._links is not None:
            await asyncio.to_thread(self._links.stop)

    async def _end_stragglers(self) -> None:
        """Whatever carries our marker and still lives, a writer or a child's child, ends before its data is read."""
        if self._life is not None:
            await asyncio.to_thread(undo, self._life)

    async def _copy_streams(self) -> None:
        sources = {each.name: {"node": each.node, "path": each.path, "framing": each.framing}
                   for each in self.stack.streams.values()}
        kept = await asyncio.to_thread(streams.keep, self.folder, self.folder / "nodes", sources, self.secrets)
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
        await self._clear_away()
        await self._free_ports()

    # ---- telling ------------------------------------------------------------------------------------------

    def _describe_proxy(self) -> dict[str, Json]:
        if self._toxiproxy is None:
            return {"kind": "toxiproxy", "version": None, "sha256": None}
        return {"kind": "toxiproxy", "version": setup.version_of(self._toxiproxy),
                "sha256": setup.sha256_of(self._toxiproxy)}

    def versions(self) -> Mapping[str, Json]:
        ports: dict[str, Json] = {f"{name}.{port}": number for name, node in self._nodes.items()
                                  for port, number in node.ports.items()}
        if self._links is not None:
            ports |= {f"link.{name}": number for name, number in self._links.fronts.items()}
            ports["toxiproxy"] = self._links.port
        pids: dict[str, Json] = {name: list(found) for name, found in self._pids.items()}
        return {
            "toxiproxy": {**self._describe_proxy(), "file": self._toxiproxy.name if self._toxiproxy else None},
            "toxiproxy_client": importlib.metadata.version("toxiproxy-python"),
            "libfaketime": _version("libfaketime"),
            "kernel": platform.release(),
            "sampler": {"scheduling": self._sampling.scheduling if self._sampling else None},
            "ports": ports,
            "pids": pids,
            "held": self.hold,
        }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _holds(node: LocalNode, inode: int) -> bool:
    """Whether a socket is held by a node's process, or by one that it started."""
    if node.process is None:
        return False
    return inode in sockets.inodes_of(node.process.pid) or any(
        inode in sockets.inodes_of(each.pid) for each in node.group())


def _inherited() -> dict[str, str]:
    return {name: os.environ[name] for name in INHERITED if name in os.environ}

