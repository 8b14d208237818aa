"""One node of a stack as a container that joins its pod."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from collections.abc import Mapping
from typing import Any

import docker  # type: ignore[import-untyped]
from docker.errors import NotFound  # type: ignore[import-untyped]

from harness import limits
from harness.errors import WorldError
from harness.world.real.agent import LIFE
from harness.world.real.clock import faketime_environment
from harness.world.real.engine import KIND, NODE_KIND, SHORT_LOG, Engine
from harness.world.real.nodes import RealNode, Surroundings, host_environment
from harness.world.real.pods import RUN_FOLDER, Pod, Stream
from harness.world.real.processes import Process
from harness.world.stack import Node

MIB = 1_048_576
INSIDE_FROM = 8_001
"""Ports inside are counted up from here, unless the stack names them."""
POLL_S = 0.005


def ports_inside(node: Node) -> dict[str, int]:
    """Port name → its number in the container."""
    free = iter(each for each in range(INSIDE_FROM, 65_536) if each not in {port.inside for port in node.ports.values()})
    return {name: port.inside or next(free) for name, port in node.ports.items()}


class ContainerNode(RealNode):
    """A node's container through all its lives: a new one each, in the same pod, over the same data."""

    poll_s = 0.01

    def __init__(self, node: Node, around: Surroundings, ports: Mapping[str, int], pod: Pod, engine: Engine, image: str,
                 faketime: str | None) -> None:
        """``image``: its id. ``faketime``: where libfaketime lies in it, if its clock is to be moved."""
        super().__init__(node, around, ports, None, f"{RUN_FOLDER}/node", node.data)
        self.pod, self._engine, self._image, self._faketime = pod, engine, image, faketime
        self.inside = ports_inside(node)
        self.container = ""
        """the id of its present life's, or its last"""
        self.containers: list[str] = []
        self._alive = False
        self._code: int | None = None
        self._saying: Stream | None = None

    @property
    def keeper(self) -> str:
        """The id of the container that holds its networks, processes' namespace and volumes."""
        return self.pod.keeper

    @property
    def alive(self) -> bool:
        """As the agent saw it last."""
        return self._alive

    @property
    def returncode(self) -> int | None:
        return self._code

    @property
    def fakes_time(self) -> bool:
        return self._faketime is not None

    async def do(self, order: str, **args: Any) -> Any:
        return await self.pod.ask(order, **args)

    def where(self) -> dict[str, str]:
        return {"keeper": self.keeper}

    async def notice(self, state: str | None) -> None:
        """The agent says how its process does: gone, and with which code, or not."""
        if self._alive and state is None:
            self._alive = False
            self._code = await self._exit_code()

    async def start(self, build: str | None = None) -> None:
        self.build = build or self.build
        environment = self._environment()
        await self._lay_out(environment)
        if self._faketime is not None:
            environment |= faketime_environment(self._faketime, self.clock_file)
        before, life = self.container, f"{self.name}.{self.lives + 1}"
        await self._engine.call(f"make {self.name}", lambda client: self._make(client, before, environment | {LIFE: life}))
        await self._listen()
        await self._engine.call(f"start {self.name}", lambda client: client.start(self.container))
        process = await self._leader(life)
        code = await self._exit_code() if process is None else None
        self.process, self._code, self._alive, self.lives = process, code, process is not None, self.lives + 1

    async def stop(self) -> str:
        if not self.alive or self.process is None:
            return "was not running"
        members = await self._members()
        await self.do("send", processes=members, number=int(signal.SIGCONT))  # a stopped process cannot obey
        await self.do("send", processes=[self.process.to_json()], number=int(signal.SIGTERM))
        if await self._gone():
            return f"ended with code {self._code}"
        await self.kill()
        return "killed: it did not end when asked"

    async def kill(self) -> None:
        if self.process is None:
            raise WorldError(f"{self.name} was never started")
        await self.do("send", processes=[self.process.to_json()], number=int(signal.SIGKILL))
        if not await self._gone():
            raise WorldError(f"{self.name}: process {self.process.pid} of its container survived SIGKILL")

    def hush(self) -> None:
        """Hear no more of what it prints. Idempotent."""
        if self._saying is not None:
            self._saying.close()
            self._saying = None

    # ---- the container ------------------------------------------------------------------------------------

    def _make(self, client: docker.APIClient, before: str, environment: Mapping[str, str]) -> None:
        """Its life's container, in the place of the one before. Runs in a thread."""
        if before:
            with contextlib.suppress(NotFound):  # somebody took it away; a new one comes all the same
                client.remove_container(before, v=True, force=True)
        memory = self.node.memory_mib * MIB
        host = self._engine.host(self.pod.volumes, network_mode=f"container:{self.keeper}", log_config=SHORT_LOG,
                                 pid_mode=f"container:{self.keeper}", mem_limit=memory, memswap_limit=memory)
        command = [self._placeholders(each) for each in self.node.command]
        self.container = client.create_container(
            self._image, command or None, name=f"{self.pod.token}-{self.name}-{self.lives + 1}", user=self.node.user,
            environment=dict(environment), host_config=host,
            labels={**self.pod.labels, KIND: NODE_KIND}, healthcheck={"test": ["NONE"]})["Id"]
        self.containers.append(self.container)

    async def _listen(self) -> None:
        """What it prints goes to its log, from its first word."""
        self.hush()
        attached = await self._engine.call(f"attach to {self.name}", lambda client: client.attach_socket(
            self.container, params={"stdout": 1, "stderr": 1, "stream": 1}))
        self._saying = Stream(attached, self._said)
        await self._saying.open()

    def _said(self, _: int, data: bytes) -> None:
        with self.log.open("ab") as log:
            log.write(data)

    async def _leader(self, life: str) -> Process | None:
        """Its first process, or None when the container has ended before it was seen."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limits.NODE_START_MS_MAX / 1000
        while loop.time() < deadline:
            if found := await self.do("leader", life=life):
                return Process(**found)
            if not (await self._engine.state(self.container)).get("Running"):
                return None
            await asyncio.sleep(POLL_S)
        raise WorldError(f"{self.name}: no process of its container shows itself")

    async def _members(self) -> list[dict[str, int]]:
        return list(await self.do("members", leader=self.process.pid)) if self.process else []

    async def _gone(self) -> bool:
        """Wait until the process has ended, and learn with which code."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limits.NODE_STOP_MS_MAX / 1000
        while self.process is not None and (await self.states([self.process]))[0] is not None:
            if loop.time() > deadline:
                return False
            await asyncio.sleep(POLL_S)
        await self.notice(None)
        return True

    async def _exit_code(self) -> int | None:
        """The engine learns of the end a moment after the kernel."""
        for _ in range(400):
            state = await self._engine.state(self.container)
            if not state.get("Running"):
                return int(state["ExitCode"]) if state else None
            await asyncio.sleep(POLL_S)
        return None

    # ---- what it is told --------------------------------------------------------------------------------

    def _listens(self, port: str) -> str:
        return f"0.0.0.0:{self.inside[port]}"

    def _surrounding(self) -> dict[str, str]:
        return {}

    def _placeholders(self, part: str) -> str:
        return self._places(part).replace("{python}", "python3").replace("{data}", self.data)

    async def _lay_out(self, environment: Mapping[str, str]) -> None:
        """An operator's files are made here, in the node's own environment, and put into its data disk."""
        if self.node.provision is None:
            return
        home = (self._around.folder / "nodes" / self.name).resolve()
        home.mkdir(parents=True, exist_ok=True)
        await self._provision({**environment, **host_environment(self._around), "NODE_DATA": str(home)})
        files = home / "files"
        for file in sorted(each for each in files.rglob("*") if each.is_file()):
            await self.put(f"{self.data}/files/{file.relative_to(files)}", file.read_bytes())
        shutil.rmtree(home)
