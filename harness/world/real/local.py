"""The local world: processes of this machine, real sockets through the real Toxiproxy, ``kill -9``, libfaketime."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from harness.drill.model import Json
from harness.errors import NotHealed, WorldError
from harness.recording.tape import Tape
from harness.world.real import setup, sockets
from harness.world.real.acts import true_clock
from harness.world.real.clock import faketime_library
from harness.world.real.nodes import INHERITED, LocalNode
from harness.world.real.ports import LOOPBACK
from harness.world.real.processes import MARKER, end_all, kin
from harness.world.real.proxies import LinkProxies
from harness.world.real.stacked import CANNOT, CONTAINED, StackedWorld
from harness.world.real.watching import LocalWatching, Watching
from harness.world.stack import Stack

VOLUMES = ".volumes"
"""Among the nodes' folders; no node can be called so."""
HERE = "here"


class LocalWorld(StackedWorld):
    """See the module. ``machines`` replaces a node's machine by another (a mutant): node → ``module:function``."""

    name = "local"
    cannot = {
        **CANNOT, **CONTAINED,
        "fill": "this machine's own disk is never filled; a disk of fixed size needs the sim or docker",
        "read_only": "a data folder of the node's own user is never read-only to it; use refuse, the sim or docker",
    }

    def __init__(self, stack: Stack, policy_name: str, policy: Mapping[str, Any], seed: int, folder: Path, *,
                 placebo: bool = False, machines: Mapping[str, str] | None = None, hold: bool = False,
                 toxiproxy: Path | None = None, allow_hosts: tuple[str, ...] = ()) -> None:
        super().__init__(stack, policy_name, policy, seed, folder, placebo=placebo, machines=machines, hold=hold,
                         allow_hosts=allow_hosts)
        self._toxiproxy = toxiproxy or setup.find()
        self._library = faketime_library()
        self._nodes: dict[str, LocalNode] = {}
        self._links: LinkProxies | None = None

    # ---- what it refuses ----------------------------------------------------------------------------------

    def _lacks(self) -> str | None:
        if self._toxiproxy is None:
            return f"there is no Toxiproxy server on this machine; this line installs it:\n  {setup.explain()}"
        return setup.unfit(self._toxiproxy)

    def _lacks_for_links(self) -> str | None:
        if sockets.available():
            return None
        return "this kernel does not tell a connection's byte counters (sock_diag): no witness for links"

    def _lacks_for_clock(self, node: str) -> str | None:
        if self._library is not None:
            return None
        return "libfaketime is not installed; this line installs it: pip install libfaketime==3.0.1"

    # ---- starting -----------------------------------------------------------------------------------------

    def start(self, tape: Tape) -> None:
        if self._toxiproxy is None:
            raise WorldError(f"there is no Toxiproxy server; this line installs it:\n  {setup.explain()}")
        super().start(tape)

    def _will_keep(self) -> None:
        self._keep = self.undo_log.will("streams", "keep_streams", folder=str(self.folder.resolve()),
                                        nodes=str((self.folder / "nodes").resolve()), sources=self._sources())

    async def _make_stack(self) -> None:
        await self._make_nodes()
        self._links = self._start_toxiproxy()
        await asyncio.to_thread(self._make_proxies, self._links)
        for link in self.stack.links.values():  # every node is told the proxies' addresses, and no other
            address = f"{LOOPBACK}:{self.proxies.fronts[link.name]}"
            self._nodes[link.client].urls[link.env] = link.url.replace("{address}", address)

    async def _make_nodes(self) -> None:
        around = self._surroundings()
        for name, node in self.stack.nodes.items():
            ports = {port: self.ports.reserve() for port in node.ports}
            self._nodes[name] = LocalNode(node, around, ports, self.machines.get(name),
                                          self._library if name in self._clocks else None)
            await true_clock(self._nodes[name])
        await self._join_volumes()

    def _start_toxiproxy(self) -> LinkProxies:
        if self._toxiproxy is None:
            raise WorldError("there is no Toxiproxy server")
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        environment = inherited | {MARKER: self.marker, "LOG_LEVEL": "info"}
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

    def volume_folder(self, name: str) -> str:
        """It ends with the nodes' data, whoever clears that away."""
        folder = (self.folder / "nodes" / VOLUMES / name).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    def place_of(self, node: str, file: str) -> tuple[str, str, str]:
        found = self.stack.volume_of(node, file)
        if found is not None:
            return HERE, self.volume_folder(found[0].name), found[1]
        return HERE, f"{self._nodes[node].data}/files", file

    def make_watching(self, place: str) -> Watching:
        return LocalWatching(self.epoch, self.saw_file, self._fail, {MARKER: self.marker}, self._clean_file)

    # ---- for the forces -----------------------------------------------------------------------------------

    @property
    def nodes(self) -> Mapping[str, LocalNode]:
        return self._nodes

    @property
    def proxies(self) -> LinkProxies:
        if self._links is None:
            raise WorldError("Toxiproxy is not running")
        return self._links

    def address(self, node: str, port: str) -> tuple[str, int]:
        return LOOPBACK, self._nodes[node].ports[port]

    # ---- beside everything else ---------------------------------------------------------------------------

    async def _notice_ends(self) -> None:
        """Nothing to be done: the kernel tells at once who of our children has ended."""

    async def _watch_money(self) -> None:
        """A node that reaches beyond this machine, whatever its configuration says, is killed, and the run with it."""
        leaving = {each.inode: each for each in self.proxies.strangers()}
        if not leaving:
            return
        for node in self._nodes.values():
            family = node.family()
            for process in family:
                for inode in sockets.inodes_of(process.pid) & leaving.keys():
                    for each in family:
                        each.send(signal.SIGKILL)
                    raise WorldError(f"{node.name} was connected to {leaving[inode].remote_host}: killed, because a "
                                     f"drill never reaches beyond this machine")

    # ---- stopping -----------------------------------------------------------------------------------------

    async def _end_stragglers(self) -> None:
        """Also those that have cleared their environment, where they stayed in their node's group or session."""
        for node in self._nodes.values():
            left = end_all(tuple(each for leader in node.led for each in kin(leader)))
            if left:
                raise NotHealed(f"{node.name}: processes that could not be ended: {[each.pid for each in left]}")
        await super()._end_stragglers()

    async def _stop_proxies(self) -> None:
        if self._links is not None:
            await asyncio.to_thread(self._links.stop)

    async def _bring_data_home(self) -> None:
        """It is there."""

    async def _take_down(self) -> None:
        """There is nothing else."""

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
        inode in sockets.inodes_of(each.pid) for each in node.family())
