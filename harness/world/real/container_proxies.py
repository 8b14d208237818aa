"""Toxiproxy in a container of its own, in both wires, and the meters of the links, read by the agents of the pods.

What a link's client offered and got is read where the client is, what its server offered and got where Toxiproxy is: the
same counters of the same kernel as in ``local``, each in its own network namespace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import docker  # type: ignore[import-untyped]

from harness import limits
from harness.errors import WorldError
from harness.world.real.agent import LIFE
from harness.world.real.engine import KIND, PROXY, SHORT_LOG, Engine
from harness.world.real.pods import Pod, Stream
from harness.world.real.ports import LOOPBACK
from harness.world.real.processes import Process
from harness.world.real.proxies import Proxies
from harness.world.real.sockets import End, LinkMeter, Socket, is_loopback

API = 8_474
FRONT_FROM, TAP_FROM = 20_000, 30_000
MEMORY_BYTES = 256 * 1_048_576
Reading = tuple[list[Socket], list[Socket]]


class ContainerProxies(Proxies):
    """Start first, stop last."""

    def __init__(self, pod: Pod, engine: Engine, image: str, log: Path, clients: Mapping[str, Pod]) -> None:
        """``clients``: the pods of all nodes, by name."""
        super().__init__(LOOPBACK, pod.publishes[API])
        self._pod, self._engine, self._image, self._log, self._clients = pod, engine, image, log, clients
        self._addresses: dict[str, tuple[str, int]] = {}
        """what each link's client dials"""
        self._client_of: dict[str, str] = {}
        self._container = ""
        self._process: Process | None = None
        self._saying: Stream | None = None
        self._code: int | None = None
        self._stopping = False
        self._lost = False
        self._strangers: dict[str, str] = {}

    async def start(self, network: str) -> None:
        """Start the server; its API listens in this network alone, which no node's wire reaches. Raises WorldError."""
        await self._engine.call("make Toxiproxy", lambda client: self._make(client, self._pod.addresses[network]))
        attached = await self._engine.call("attach to Toxiproxy", lambda client: client.attach_socket(
            self._container, params={"stdout": 1, "stderr": 1, "stream": 1}))
        self._saying = Stream(attached, self._said)
        await self._saying.open()
        await self._engine.call("start Toxiproxy", lambda client: client.start(self._container))
        try:
            async with asyncio.timeout(limits.NODE_START_MS_MAX / 1000):
                while (found := await self._pod.ask("leader", life=PROXY)) is None:
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise WorldError("Toxiproxy did not start; see node-logs/toxiproxy.log") from None
        self._process = Process(**found)

    def _make(self, client: docker.APIClient, address: str) -> None:
        keeper = f"container:{self._pod.keeper}"
        host = self._engine.host({}, network_mode=keeper, pid_mode=keeper, mem_limit=MEMORY_BYTES,
                                 memswap_limit=MEMORY_BYTES, log_config=SHORT_LOG)
        self._container = client.create_container(
            self._image, ["-host", address, "-port", str(API)], name=f"{self._pod.token}-{self._pod.name}",
            user=self._pod.user, host_config=host,
            environment={"LOG_LEVEL": "info", LIFE: PROXY}, labels={**self._pod.labels, KIND: PROXY},
            healthcheck={"test": ["NONE"]})["Id"]

    def add(self, link: str, client: str, here: str, upstream: str) -> None:
        """Make a link's two proxies; ``here`` is our address in the wire of the node that dials it."""
        front, tap = FRONT_FROM + len(self.fronts), TAP_FROM + len(self.fronts)
        self.make(link, f"{here}:{front}", f"{LOOPBACK}:{tap}", upstream)
        self.fronts[link], self._addresses[link], self._client_of[link] = front, (here, front), client
        self.meters.links[link] = LinkMeter(front, tap, lambda inode: True)

    def address(self, link: str) -> str:
        """What the link's client dials."""
        host, port = self._addresses[link]
        return f"{host}:{port}"

    def identity(self) -> dict[str, Any]:
        return {"container": self._container, "host": LOOPBACK, "port": self.port}

    @property
    def died(self) -> int | None:
        return None if self._stopping else self._code

    @property
    def lost_news(self) -> bool:
        return self._lost

    async def read(self, at_ms: int) -> None:
        names = [*dict.fromkeys(self._client_of.values())]
        proxy, *clients = await asyncio.gather(self._look(self._pod), *(self._look(self._clients[each]) for each in names))
        self.meters.take(*proxy, _far_end)
        for name, reading in zip(names, clients, strict=True):
            self.meters.take(*reading, partial(self._near_end, name))
            self._watch(name, [*reading[0], *reading[1]])
        self.meters.note(at_ms)

    async def _look(self, pod: Pod) -> Reading:
        watched = [self._process.to_json()] if pod is self._pod and self._process is not None else []
        seen = await pod.ask("look", processes=watched)
        if watched and seen["states"] == [None] and self._code is None and not self._stopping:
            self._code = int((await self._engine.state(self._container)).get("ExitCode", -1))
        self._lost |= seen["lost"]
        return [Socket(*each) for each in seen["live"]], [Socket(*each) for each in seen["ended"]]

    def _near_end(self, client: str, meter: LinkMeter, each: Socket) -> End | None:
        """In a client's pod: the sockets that dialled its link's proxy. Nobody dials there but the node."""
        link = next(name for name, found in self.meters.links.items() if found is meter)
        return meter.client if self._client_of[link] == client and each.remote_port == meter.front else None

    def _watch(self, name: str, found: list[Socket]) -> None:
        """Remember whom a node dialled that is not Toxiproxy. What it accepted is its own port's."""
        ours = {host for host, _ in self._addresses.values()}
        for each in found:
            host = each.remote_host.removeprefix("::ffff:")
            dialled = each.remote_port != 0  # some runtimes make a socket to try what the kernel can, and never dial with it
            if dialled and not is_loopback(host) and host not in ours and each.local_port not in self._clients[name].publishes:
                self._strangers[name] = host

    def strangers(self) -> Mapping[str, str]:
        """Node → somebody other than Toxiproxy whom it dialled."""
        return self._strangers

    async def refuses_dial(self, link: str) -> bool:
        host, port = self._addresses[link]
        return bool(await self._pod.ask("dial_refused", host=host, port=port))

    def _said(self, _: int, data: bytes) -> None:
        with self._log.open("ab") as log:
            log.write(data)

    async def stop(self) -> None:
        """End the server. Idempotent."""
        self._stopping = True
        if self._process is not None:
            await self._pod.ask("send", processes=[self._process.to_json()], number=9)
            self._process = None

    def hush(self) -> None:
        """Hear no more of it. Idempotent."""
        if self._saying is not None:
            self._saying.close()
            self._saying = None


def _far_end(meter: LinkMeter, each: Socket) -> End | None:
    """In Toxiproxy's pod: the sockets that its untroubled proxy accepted."""
    return meter.server if each.local_port == meter.tap else None
