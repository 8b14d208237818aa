"""What only containers make real of a node's life: how much memory it may have, how much of the processor, and whether it
has a network. Each through the engine's API alone, which knows nothing of what is inside.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import docker  # type: ignore[import-untyped]

from harness import limits
from harness.drill.model import Disconnect, Fault, Json, Kill, Starve
from harness.errors import NotApplied
from harness.world.real.acts import OnLife, OnNode, wait_for
from harness.world.real.container import ContainerNode
from harness.world.real.engine import Engine

if TYPE_CHECKING:
    from harness.world.real.docker import DockerWorld

PAGE = 4_096
ROOM_BYTES = 1_048_576
"""What is left to a node that is to run out of memory: enough for the process that takes it to come up."""
EATER = ("python3", "-c", "taken = [bytearray(1 << 20) for _ in range(1 << 16)]")
"""Takes memory until there is none; the kernel then ends whoever it was told to take first."""
POLL_S = 0.02
PERIOD_US = 100_000
QUOTA_US_MIN, PERIOD_US_MAX = 1_000, 1_000_000
"""The kernel's own bounds of a quota: who is to have less has to wait for it longer."""


class OnMemory(OnLife):
    """Its limit is lowered to what it has, and the little that is left is taken by another process beside it: the kernel
    must end somebody, and was told to take the node first. Healing starts it again, under its usual limit."""

    def __init__(self, world: DockerWorld, node: ContainerNode, fault: Fault, force: Kill) -> None:
        super().__init__(world, node, fault, force)
        self._engine, self._container = world.engine, node
        self._oom_killed = False

    async def apply(self) -> tuple[Json, Json]:
        victim = self._victim = self._live()
        node, container = self._container, self._container.container
        held = int((await stats(self._engine, container))["memory_stats"]["usage"])
        limit = (held // PAGE + 1) * PAGE + ROOM_BYTES
        await node.do("sacrifice", process=victim.to_json())
        self._world.goes_down(node)
        await self._engine.call("lower the limit of its memory", lambda client: client.update_container(
            container, mem_limit=limit, memswap_limit=limit))
        await self._engine.call("take what is left of its memory", lambda client: client.exec_start(
            client.exec_create(container, list(EATER), user=node.node.user)["Id"], detach=True))

        async def is_gone() -> bool:
            return not (await self._engine.state(container)).get("Running")

        if not await wait_for(is_gone, limits.NODE_STOP_MS_MAX, POLL_S):
            raise NotApplied(f"{node.name} did not run out of memory: it lives on with {limit} bytes")
        await node.notice(None)
        state = await self._engine.state(container)
        self._oom_killed = state.get("OOMKilled") is True
        return {"memory_bytes_max": limit, "held": held, **victim.to_json()}, \
            {"oom_killed": self._oom_killed, "exit_code": state.get("ExitCode")}

    async def probe(self) -> Mapping[str, Json]:
        return {**await super().probe(), "process.oom_killed": self._oom_killed}


class OnStarve(OnNode):
    """A quota of the processor, as the kernel's bandwidth control gives it out, in each tenth of a second if it can be."""

    def __init__(self, world: DockerWorld, node: ContainerNode, fault: Fault, force: Starve) -> None:
        super().__init__(world, node, fault)
        self._force, self._engine, self._container = force, world.engine, node
        self._run = world.marker
        self._before = 0.0
        """nanoseconds of the processor in a second"""
        self._last: tuple[float, int] | None = None

    async def prepare(self) -> None:
        process = self._live()
        age_ms = int(await self._container.do("age_ms", process=process.to_json()))
        used_ms = int(await self._container.do("used_ms", process=process.to_json()))
        self._before = 1_000_000_000 * used_ms / max(1, age_ms)
        self._world.will(self._fault, "feed_container", container=self._container.container, run=self._run)

    async def apply(self) -> tuple[Json, Json]:
        share = max(0.000_1, self._before * self._force.percent / 100 / 1_000_000_000)
        period = min(PERIOD_US_MAX, max(PERIOD_US, round(QUOTA_US_MIN / share)))
        quota, container = max(QUOTA_US_MIN, int(share * period)), self._container.container
        await self._engine.call("limit its share of the processor", lambda client: client.update_container(
            container, cpu_period=period, cpu_quota=quota))
        seen = await self._engine.call("inspect", lambda client: client.inspect_container(container)["HostConfig"])
        if seen.get("CpuQuota") != quota:
            raise NotApplied(f"{self._container.name}: its quota reads {seen.get('CpuQuota')}, {quota} us were asked for")
        return {"quota_us": quota, "period_us": period, "used_ns_per_s": int(self._before)}, \
            {"CpuQuota": seen["CpuQuota"], "CpuPeriod": seen["CpuPeriod"]}

    async def probe(self) -> Mapping[str, Json]:
        seen = (await stats(self._engine, self._container.container)).get("cpu_stats", {})
        if not seen.get("cpu_usage", {}).get("total_usage"):
            return {}
        now, used = time.monotonic(), int(seen["cpu_usage"]["total_usage"])
        found: dict[str, Json] = {"cpu.throttled_ms": int(seen["throttling_data"]["throttled_time"]) // 1_000_000}
        if self._last is not None and self._before and now > self._last[0]:
            found["cpu.percent_of_before"] = round(100 * (used - self._last[1]) / (now - self._last[0]) / self._before)
        self._last = now, used
        return found


class OnDisconnect(OnNode):
    """The wire is taken from the node's pod: what is under way on it is lost or waits, and nothing can be dialled."""

    def __init__(self, world: DockerWorld, node: ContainerNode, fault: Fault, force: Disconnect) -> None:
        super().__init__(world, node, fault)
        self._engine, self._container, self._proxies = world.engine, node, world.proxies
        self._wire, self._run = node.pod.networks[0], world.marker
        stack = world.stack
        self._links = [each.name for each in stack.links.values() if force.node in (each.client, each.server)]

    async def prepare(self) -> None:
        self._live()
        self._world.will(self._fault, "reconnect_container", keeper=self._container.keeper, network=self._wire,
                         name=self._container.name, run=self._run)

    async def apply(self) -> tuple[Json, Json]:
        keeper = self._container.keeper
        await self._engine.call("take the network away", lambda client: client.disconnect_container_from_network(
            keeper, self._wire, force=True))
        attached = await self._attached()
        if attached:
            raise NotApplied(f"{self._container.name} still has its network")
        return {"disconnect": self._container.name, "network": self._wire}, {"attached": attached}

    async def probe(self) -> Mapping[str, Json]:
        await self._proxies.read(self._world.epoch.floor_ms())
        passages = [each for link in self._links
                    for each in self._proxies.meters.links[link].passages(("upstream", "downstream"))]
        return {"network.attached": await self._attached(),
                "flow.offered_bytes": sum(each.sender.offered for each in passages),
                "flow.received_bytes": sum(each.receiver.received for each in passages)}

    async def _attached(self) -> bool:
        seen = await self._engine.call("inspect a keeper", lambda client: client.inspect_container(self._container.keeper))
        return any(each.get("NetworkID") == self._wire for each in seen["NetworkSettings"]["Networks"].values())


async def stats(engine: Engine, container: str) -> Mapping[str, Any]:
    """What the engine counts of a container, now."""
    def look(client: docker.APIClient) -> Mapping[str, Any]:
        found: Mapping[str, Any] = client.stats(container, stream=False, one_shot=True)
        return found

    return await engine.call("stats", look)
