"""The docker world: a container for each node, the trader's side and the exchange's apart, Toxiproxy in between.

Three networks a run: two wires without a way out, one for the nodes that dial and one for those that only answer, with
Toxiproxy alone in both; and one for observing, whose members cannot talk to one another, and whose ports are published
on 127.0.0.1. So a node reaches another across the wires through Toxiproxy or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import platform
import secrets as randomness
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import docker  # type: ignore[import-untyped]
from docker.errors import DockerException, ImageNotFound  # type: ignore[import-untyped]

from harness.drill.model import Disconnect, Fault, Json, Kill, Starve
from harness.errors import UsageError, WorldError
from harness.recording.tape import Tape
from harness.world.real import container_undo, images
from harness.world.real.acts import true_clock
from harness.world.real.container import MIB, ContainerNode, ports_inside
from harness.world.real.container_life import OnDisconnect, OnMemory, OnStarve
from harness.world.real.container_proxies import API, ContainerProxies
from harness.world.real.container_watching import KeeperWatching
from harness.world.real.engine import KIND, NODE, Engine, connect, labels
from harness.world.real.janitor import CONTAINERS
from harness.world.real.nodes import Surroundings
from harness.world.real.pods import RUN_BYTES, RUN_FOLDER, VOLUMES_FOLDER, Pod, make_volume
from harness.world.real.ports import LOOPBACK
from harness.world.real.processes import MARKER, Process
from harness.world.real.stacked import CANNOT, StackedWorld
from harness.world.real.undo import Undo
from harness.world.real.watching import Watching
from harness.world.real.world import Applied
from harness.world.stack import Node, Stack

PROXY_POD = "toxiproxy"
PROXY_USER = "65534:65534"
NEAR, FAR, OBSERVING = "near", "far", "observing"
APART = {"com.docker.network.bridge.enable_icc": "false", "com.docker.network.bridge.enable_ip_masquerade": "false"}
"""The observing network: its members do not reach one another, nor anything beyond this machine."""


class DockerWorld(StackedWorld):
    """See the module. Raises UsageError where no engine answers or our images are missing."""

    name = "docker"
    cannot = CANNOT

    def __init__(self, stack: Stack, policy_name: str, policy: Mapping[str, Any], seed: int, folder: Path, *,
                 placebo: bool = False, machines: Mapping[str, str] | None = None, hold: bool = False,
                 allow_hosts: tuple[str, ...] = ()) -> None:
        super().__init__(stack, policy_name, policy, seed, folder, placebo=placebo, machines=machines, hold=hold,
                         allow_hosts=allow_hosts)
        self.engine = Engine(connect())  # first: it refuses an engine elsewhere
        with contextlib.closing(images.connect()) as client:
            self._images = images.current(client)
        self._found = {name: _image(self.engine.client, self._images, node) for name, node in stack.nodes.items()}
        self._networks: dict[str, str] = {}
        self._volumes = {name: f"drillproof-{randomness.token_hex(8)}" for name in stack.volumes}
        self._pods: dict[str, Pod] = {}
        self._nodes: dict[str, ContainerNode] = {}
        self._links: ContainerProxies | None = None
        self._made: Undo | None = None
        self._labels: dict[str, str] = {}
        self._token = f"drillproof-{randomness.token_hex(4)}"
        self._lost: set[str] = set()
        """nodes whose keeper ended, and with it what they had written"""

    # ---- what it refuses ----------------------------------------------------------------------------------

    def _lacks(self) -> str | None:
        return _lacking(self.stack, self.machines, self._found)

    def _lacks_for_links(self) -> str | None:
        return None

    def _lacks_for_clock(self, node: str) -> str | None:
        if self._faketime(node) is None:
            return f"the image of {node} carries no libfaketime (label {images.FAKETIME})"
        return None

    def _faketime(self, node: str) -> str | None:
        found = self._found[node]
        return None if isinstance(found, str) else found["labels"].get(images.FAKETIME)

    # ---- starting -----------------------------------------------------------------------------------------

    def start(self, tape: Tape) -> None:
        if (why := self._lacks()) is not None:
            raise WorldError(why)
        super().start(tape)

    def _will_keep(self) -> None:
        self._made = self.undo_log.will("containers", "remove_containers", run=self.marker)
        self._keep = self.undo_log.will("streams", "keep_container_streams", folder=str(self.folder.resolve()),
                                        run=self.marker, sources=self._sources(),
                                        data={name: node.data for name, node in self.stack.nodes.items()})

    def _janitor_environment(self) -> dict[str, str]:
        return {MARKER: self.marker, CONTAINERS: "1"}

    async def _make_stack(self) -> None:
        harness = Process.of(os.getpid())
        if harness is None:
            raise WorldError("the harness cannot find itself in /proc")
        self._labels = labels(self.marker, self.folder, harness)
        await asyncio.gather(self._make_networks(), self._make_volumes())
        self._pods = {name: self._pod_of(node) for name, node in self.stack.nodes.items()}
        self._pods[PROXY_POD] = self._pod_of_proxy()
        await asyncio.gather(*(self._make_pod(each) for each in self._pods.values()))
        around = self._surroundings()
        for name, node in self.stack.nodes.items():
            self._nodes[name] = self._node(node, around)
            await true_clock(self._nodes[name])
        await self._join_volumes()
        self._links = ContainerProxies(self._pods[PROXY_POD], self.engine, self._images.toxiproxy.id,
                                       self.folder / "node-logs" / "toxiproxy.log", self._pods)
        await self._make_links(self._links)

    async def _make_links(self, links: ContainerProxies) -> None:
        """Toxiproxy and its proxies; every node is told their addresses in its own wire, and no other."""
        await links.start(self._networks[OBSERVING])
        await asyncio.to_thread(links.until_ready, self._images.toxiproxy.labels[images.VERSION])
        for link in self.stack.links.values():
            here = self._pods[PROXY_POD].addresses[self._networks[self._wire(link.client)]]
            server = f"{link.server}:{ports_inside(self.stack.nodes[link.server])[link.port]}"
            await asyncio.to_thread(links.add, link.name, link.client, here, server)
            self._nodes[link.client].urls[link.env] = link.url.replace("{address}", links.address(link.name))

    async def _make_networks(self) -> None:
        def make(name: str, client: docker.APIClient) -> str:
            inner = name != OBSERVING
            made: str = client.create_network(f"{self._token}-{name}", driver="bridge", internal=inner,
                                              options=None if inner else APART, check_duplicate=True,
                                              labels={**self._labels, KIND: "network"})["Id"]
            return made

        names = (NEAR, FAR, OBSERVING)
        made = await self.engine.calls("make a network", [partial(make, name) for name in names])
        self._networks = dict(zip(names, made, strict=True))

    async def _make_volumes(self) -> None:
        def make(name: str, client: docker.APIClient) -> None:
            volume = self.stack.volumes[name]
            user = self.stack.nodes[volume.nodes[0]].user  # the stack sees to it that it is all its nodes'
            make_volume(client, self._volumes[name], user, volume.disk_mib * MIB, self._labels)

        await self.engine.calls("make a volume", [partial(make, name) for name in self._volumes])

    def volume_folder(self, name: str) -> str:
        return f"{VOLUMES_FOLDER}/{name}"

    def place_of(self, node: str, file: str) -> tuple[str, str, str]:
        """One watcher for all of a volume, whoever of its nodes is meant."""
        found = self.stack.volume_of(node, file)
        if found is None:
            return node, f"{self._nodes[node].data}/files", file
        return found[0].nodes[0], self.volume_folder(found[0].name), found[1]

    def make_watching(self, place: str) -> Watching:
        return KeeperWatching(self._pods[place], self.engine, self.epoch, self.saw_file, self._fail, self._clean_file)

    def _wire(self, node: str) -> str:
        """Who dials, and who has nothing to do with links, is on the near wire; who only answers is on the far one."""
        clients = {each.client for each in self.stack.links.values()}
        servers = {each.server for each in self.stack.links.values()}
        return FAR if node in servers - clients else NEAR

    def _pod_of(self, node: Node) -> Pod:
        inside = ports_inside(node)
        published = {inside[port]: self.ports.reserve() for port in node.ports}
        volumes = {f"drillproof-{randomness.token_hex(8)}": place for place in (node.data, RUN_FOLDER)}
        volumes |= {self._volumes[each.name]: self.volume_folder(each.name)
                    for each in self.stack.volumes.values() if node.name in each.nodes}
        networks = (self._networks[self._wire(node.name)], self._networks[OBSERVING])
        return Pod(node.name, self._token, networks, published, node.user, volumes, {**self._labels, NODE: node.name},
                   {node.data: node.disk_mib * MIB, RUN_FOLDER: RUN_BYTES})

    def _pod_of_proxy(self) -> Pod:
        networks = tuple(self._networks[each] for each in (NEAR, FAR, OBSERVING))
        return Pod(PROXY_POD, self._token, networks, {API: self.ports.reserve()}, PROXY_USER, {},
                   {**self._labels, NODE: PROXY_POD}, {})

    async def _make_pod(self, pod: Pod) -> None:
        await pod.make(self.engine, self._images.toxiproxy.id, partial(_write, self.folder / "node-logs" / "keepers.log"))

    def _node(self, node: Node, around: Surroundings) -> ContainerNode:
        found, pod = self._found[node.name], self._pods[node.name]
        if isinstance(found, str):
            raise WorldError(found)
        inside = ports_inside(node)
        ports = {port: pod.publishes[number] for port, number in inside.items()}
        faketime = self._faketime(node.name) if node.name in self._clocks else None
        return ContainerNode(node, around, ports, pod, self.engine, found["id"], faketime)

    # ---- for the forces -----------------------------------------------------------------------------------

    def _applied(self, fault: Fault) -> Applied:
        """What only containers make real; everything else as in every stacked world."""
        match fault.force:
            case Kill(how="out_of_memory") as force:
                return OnMemory(self, self._nodes[force.node], fault, force)
            case Starve() as force:
                return OnStarve(self, self._nodes[force.node], fault, force)
            case Disconnect() as force:
                return OnDisconnect(self, self._nodes[force.node], fault, force)
        return super()._applied(fault)

    @property
    def nodes(self) -> Mapping[str, ContainerNode]:
        return self._nodes

    @property
    def proxies(self) -> ContainerProxies:
        if self._links is None:
            raise WorldError("Toxiproxy is not running")
        return self._links

    def address(self, node: str, port: str) -> tuple[str, int]:
        return LOOPBACK, self._nodes[node].ports[port]

    # ---- beside everything else ---------------------------------------------------------------------------

    async def _notice_ends(self) -> None:
        for node in self._nodes.values():
            if node.alive and node.process is not None:
                await node.notice((await node.states([node.process]))[0])

    async def _watch_money(self) -> None:
        """A node that dials anything but Toxiproxy, whatever its configuration says, is killed, and the run with it."""
        for name, host in self.proxies.strangers().items():
            await self._nodes[name].kill()
            raise WorldError(f"{name} was connected to {host}: killed, because a node reaches others through Toxiproxy "
                             f"alone, and a drill never reaches beyond this machine")

    # ---- stopping -----------------------------------------------------------------------------------------

    async def _stop_proxies(self) -> None:
        if self._links is not None:
            await self._links.stop()

    async def _bring_data_home(self) -> None:
        """The streams' files, out of the keepers that hold the nodes' data. With a keeper that ended they are lost, and
        are missing: an empty stream would say that nothing had been written."""
        for name, pod in self._pods.items():
            if pod.keeper and not (await self.engine.state(pod.keeper)).get("Running"):
                self._lost.add(name)

        def fetch(node: str, path: str, client: docker.APIClient) -> None:
            container_undo.bring_home(client, self._pods[node].keeper, self._nodes[node].data, path,
                                      self.folder / "nodes" / node)

        await self.engine.calls("bring a stream home", [partial(fetch, each.node, each.path)
                                                        for each in self.stack.streams.values()
                                                        if each.node in self._nodes and each.node not in self._lost])
        if self._lost:
            raise WorldError(f"the keeper of {', '.join(sorted(self._lost))} is gone, and what was written there with it")

    def _sources(self) -> dict[str, dict[str, str]]:
        return {name: each for name, each in super()._sources().items() if each["node"] not in self._lost}

    async def _hush(self) -> None:
        for node in self._nodes.values():
            node.hush()
        if self._links is not None:
            self._links.hush()
        for pod in self._pods.values():
            if pod.channel is not None:
                pod.channel.close()
                pod.channel = None

    async def _take_down(self) -> None:
        await asyncio.to_thread(self.engine.close)  # a call that is still on its way makes something first
        if self._made is not None:
            self.undo_log.done(self._made, await asyncio.to_thread(container_undo.remove, self.marker, 0.0))
            self._made = None

    # ---- telling ------------------------------------------------------------------------------------------

    def _describe_proxy(self) -> dict[str, Json]:
        told = self._images.toxiproxy.labels
        return {"kind": "toxiproxy", "version": told[images.VERSION], "sha256": told[images.EXECUTABLE]}

    def versions(self) -> Mapping[str, Json]:
        ports: dict[str, Json] = {f"{name}.{port}": number for name, node in self._nodes.items()
                                  for port, number in node.ports.items()}
        if self._links is not None:
            ports["toxiproxy"] = self._links.port
        found: dict[str, Json] = {name: dict(each) for name, each in self._found.items() if not isinstance(each, str)}
        return {
            "toxiproxy": {**self._describe_proxy(), "image": self._images.toxiproxy.name},
            "toxiproxy_client": importlib.metadata.version("toxiproxy-python"),
            "kernel": platform.release(),
            "sampler": {"scheduling": self._sampling.scheduling if self._sampling else None},
            "ports": ports,
            "pids": {name: list(each) for name, each in self._pids.items()},
            "held": self.hold,
            "images": {**found, PROXY_POD: self._images.toxiproxy.to_json()},
            "containers": {name: list(node.containers) for name, node in self._nodes.items()},
            "engine": _told(self.engine.told),
        }


Found = Mapping[str, Mapping[str, Any] | str]
"""Node → its image as the engine has it, or why there is none."""


def lacks(stack: Stack, machines: Mapping[str, str], client: docker.APIClient, ours: images.Images) -> str | None:
    """Why this stack cannot run in containers on this machine."""
    return _lacking(stack, machines, {name: _image(client, ours, node) for name, node in stack.nodes.items()})


def _lacking(stack: Stack, machines: Mapping[str, str], found: Found) -> str | None:
    if PROXY_POD in stack.nodes:
        return f"no node may be called {PROXY_POD} here: that is the proxy's name"
    if machines:
        return f"{', '.join(sorted(machines))}: an image has no sabotages in it; mutants are run in sim and local"
    if dialled := [each.name for each in stack.links.values() if each.server not in stack.nodes]:
        return f"links to upstreams of this machine ({', '.join(dialled)}): no container reaches those"
    return next((f"node {name}: {each}" for name, each in found.items() if isinstance(each, str)), None)


def _image(client: docker.APIClient, ours: images.Images, node: Node) -> Mapping[str, Any] | str:
    """Name, id, digests and labels of a node's image as the engine has it, or why there is none."""
    if node.image is None:
        return "the stack names no image for it"
    name = ours.system.id if node.image == images.SYSTEM else node.image
    try:
        found = client.inspect_image(name)
    except ImageNotFound:
        return f"the engine has no image {node.image}; build or pull it first: a run never does"
    except DockerException as why:
        raise UsageError(f"the engine: image {node.image}: {why}") from why
    if beside := _beside(found["Config"].get("Volumes") or (), node.data):
        return (f"its image {node.image} keeps {', '.join(beside)} on a volume of its own, outside of its `data: {node.data}`: "
                f"no fault of a disk reaches what it writes there, and no later life finds it; let `data:` hold it")
    return {"name": node.image, "id": found["Id"], "digests": [*(found.get("RepoDigests") or ())],
            "tags": [*(found.get("RepoTags") or ())], "labels": dict(found["Config"].get("Labels") or {})}


def _beside(volumes: Iterable[str], data: str) -> list[str]:
    """The volumes that an image brings along and that do not lie among the node's data."""
    return sorted(each for each in volumes if not PurePosixPath(each).is_relative_to(data))


def _told(info: Mapping[str, Any]) -> dict[str, Json]:
    """The engine, for ``versions.json``."""
    return {"version": info.get("ServerVersion"), "storage_driver": info.get("Driver"),
            "cgroup_version": info.get("CgroupVersion", "1"), "cgroup_driver": info.get("CgroupDriver"),
            "kernel": info.get("KernelVersion"), "operating_system": info.get("OperatingSystem"),
            "client": docker.__version__}


def _write(file: Path, data: bytes) -> None:
    with file.open("ab") as log:
        log.write(data)
