"""A pod: the keeper container of a node, which holds what the node does not take along when it dies.

The keeper has the node's networks, published ports, volumes and namespace of processes for the whole run; the node's
own container joins it, and may be killed, stopped or made anew. In the keeper runs the agent (agent.py), through which
forces and meters reach the node's processes, sockets and files. Nothing in it has a privilege, and the engine's API is
all that the harness needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files as resources
from typing import Any

import docker  # type: ignore[import-untyped]

from harness import limits
from harness.errors import WorldError
from harness.world.real.engine import KEEPER, KIND, Engine
from harness.world.real.ports import LOOPBACK

RUN_FOLDER = "/run/drillproof"
"""Where a node's trap and clock lie: beside its data, so that a full data disk keeps no force from them."""
RUN_BYTES = 1_048_576
VOLUMES_FOLDER = "/run/volumes"
"""Where the volumes that nodes share lie, each in a folder called as the stack calls it."""
PACKAGES = ("harness", "harness.world", "harness.world.real")
AGENT = ("harness.limits", "harness.files", "harness.world.real.processes", "harness.world.real.hands",
         "harness.world.real.sockets", "harness.world.real.agent")
WATCHER = ("harness.limits", "harness.files", "harness.world.real.clock", "harness.world.real.urgency",
           "harness.world.real.watcher")
"""What the agent and the watcher consist of, each module after what it needs; the last one has the program."""
BOOT = """
import json, sys, types
for name, source in json.loads(sys.argv[1]):
    module = sys.modules[name] = types.ModuleType(name)
    if source is None:
        module.__path__ = []
    else:
        exec(compile(source, name, "exec", dont_inherit=True), module.__dict__)
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
sys.modules[name].main(*sys.argv[2:])
"""
SECOND_LOOK_S = 0.1
FRAME = 8
"""Bytes before each piece of an attached container's output: which stream, and how long."""


def command(modules: Sequence[str], *arguments: str) -> list[str]:
    """A program of ours, source and all, for any Python that can run this version of it."""
    sources: list[tuple[str, str | None]] = [(name, None) for name in PACKAGES]
    for name in modules:
        package, _, module = name.rpartition(".")
        sources.append((name, (resources(package) / f"{module}.py").read_text()))
    return ["python3", "-I", "-c", BOOT, json.dumps(sources), *arguments]


class Stream:
    """What a container says, while it is attached: every piece goes to ``hear``, until it ends."""

    def __init__(self, attached: Any, hear: Callable[[int, bytes], None]) -> None:
        """``attached``: what the client's ``attach_socket`` gave; it must be kept, lest the connection be closed."""
        self._attached, self._hear = attached, hear
        self._writer: asyncio.StreamWriter | None = None
        self.reading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        raw = getattr(self._attached, "_sock", self._attached)
        raw.setblocking(False)
        reader, self._writer = await asyncio.open_connection(sock=raw)
        self.reading = asyncio.get_running_loop().create_task(self._read(reader))

    def write(self, data: bytes) -> None:
        if self._writer is None or self._writer.is_closing():
            raise WorldError("a container that was attached is gone")
        self._writer.write(data)

    def end_input(self) -> None:
        """Say nothing more; what is said is heard to its end."""
        if self._writer is not None and self._writer.can_write_eof():
            self._writer.write_eof()

    def close(self) -> None:
        """Idempotent."""
        if self._writer is not None:
            self._writer.transport.abort()
        if self.reading is not None:
            self.reading.cancel()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await reader.readexactly(FRAME)
                self._hear(head[0], await reader.readexactly(int.from_bytes(head[4:], "big")))


class Channel:
    """The conversation with one agent: questions may overlap, answers come in their order."""

    def __init__(self, name: str, attached: Any, errors: Callable[[bytes], None]) -> None:
        self._name, self._errors = name, errors
        self._stream = Stream(attached, self._hear)
        self._ids = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._line = b""
        self._gone = False

    async def open(self) -> None:
        await self._stream.open()
        if self._stream.reading is not None:
            self._stream.reading.add_done_callback(self._ended)

    async def ask(self, order: str, **args: Any) -> Any:
        """Have an order carried out. Raises OSError as the order did, WorldError when nobody answers."""
        return await self._ask(limits.AGENT_ANSWER_MS_MAX, order, args)

    async def until_up(self) -> None:
        """Wait for the first answer, which is as late as the container's interpreter. Raises WorldError."""
        await self._ask(limits.NODE_START_MS_MAX, "states", {"processes": []})

    async def _ask(self, within_ms: int, order: str, args: Mapping[str, Any]) -> Any:
        if self._gone:
            raise WorldError(f"the keeper of {self._name} is gone")
        id, asked = next(self._ids), asyncio.get_running_loop().create_future()
        self._asked[id] = asked
        try:
            self._stream.write(json.dumps({"id": id, "do": order, "args": args}).encode() + b"\n")
            await asyncio.wait((asked,), timeout=within_ms / 1000)
            if not asked.done():  # or nobody turned the loop meanwhile, and the answer is at hand
                await asyncio.wait((asked,), timeout=SECOND_LOOK_S)
            if not asked.done():
                raise WorldError(f"the agent of {self._name}: {order}: no answer within {within_ms} ms")
            answer = asked.result()
        finally:
            self._asked.pop(id, None)
        if "failed" in answer:
            raise OSError(answer["errno"], f"{order}: {answer['failed']}")
        return answer["saw"]

    def close(self) -> None:
        self._stream.close()

    def _hear(self, stream: int, data: bytes) -> None:
        if stream != 1:
            self._errors(data)
            return
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            answer = json.loads(line)
            asked = self._asked.get(answer["id"])
            if asked is not None and not asked.done():
                asked.set_result(answer)

    def _ended(self, _: asyncio.Task[None]) -> None:
        self._gone = True
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(WorldError(f"the keeper of {self._name} is gone"))


@dataclass(slots=True)
class Pod:
    """One keeper and how it is reached. ``publishes``: port inside → port on loopback."""

    name: str
    token: str
    """By which a person sees what belongs together; nothing is ever found by its name"""
    networks: Sequence[str]
    """ids, the one that publishes last"""
    publishes: Mapping[int, int]
    user: str
    volumes: Mapping[str, str]
    """name of the volume → where it is mounted"""
    labels: Mapping[str, str]
    sizes: Mapping[str, int]
    """where a volume of its own is mounted → its bytes; the others are there already, and shared"""
    keeper: str = ""
    channel: Channel | None = None
    addresses: dict[str, str] = field(default_factory=dict)
    """id of a network → address there"""

    async def make(self, engine: Engine, image: str, errors: Callable[[bytes], None]) -> None:
        """Make and start the keeper. Raises WorldError."""
        first, *others = self.networks

        def create(client: docker.APIClient) -> str:
            bindings = {port: (LOOPBACK, number) for port, number in self.publishes.items()}
            host = engine.host(self.volumes, init=True, network_mode=first, port_bindings=bindings,
                               log_config={"Type": "none", "Config": {}}, dns=[LOOPBACK],  # the run's own names, no others
                               dns_opt=["timeout:1", "attempts:1"])
            for volume, place in self.volumes.items():
                if place in self.sizes:
                    make_volume(client, volume, self.user, self.sizes[place], self.labels)
            wire = client.create_networking_config({first: client.create_endpoint_config(aliases=[self.name])})
            made: str = client.create_container(
                image, command(AGENT)[1:], name=f"{self.token}-{self.name}-keeper", entrypoint=["python3"], user=self.user,
                ports=[*self.publishes],
                stdin_open=True, detach=True,  # or the first to detach would end its input
                labels={**self.labels, KIND: KEEPER}, host_config=host, networking_config=wire,
                healthcheck={"test": ["NONE"]})["Id"]
            for network in others:
                client.connect_container_to_network(made, network)  # by its name it is known on its wire alone
            return made

        self.keeper = await engine.call(f"make the keeper of {self.name}", create)
        attached = await engine.call(f"attach to the keeper of {self.name}", lambda client: client.attach_socket(
            self.keeper, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}))
        self.channel = Channel(self.name, attached, errors)
        await self.channel.open()
        async with engine.one_end_at_a_time:
            await engine.call(f"start the keeper of {self.name}", lambda client: client.start(self.keeper))
        await self.channel.until_up()
        seen = await engine.call("inspect a keeper", lambda client: client.inspect_container(self.keeper))
        self.addresses = {each["NetworkID"]: each["IPAddress"] for each in seen["NetworkSettings"]["Networks"].values()}

    async def ask(self, order: str, **args: Any) -> Any:
        if self.channel is None:
            raise WorldError(f"{self.name} has no keeper yet")
        return await self.channel.ask(order, **args)

    async def run(self, engine: Engine, program: Sequence[str], hear: Callable[[int, bytes], None]) -> Stream:
        """Start a program in the keeper; it ends when its input does. Every piece that it says goes to ``hear``."""
        def start(client: docker.APIClient) -> Any:
            made = client.exec_create(self.keeper, list(program), stdin=True, user=self.user)
            return client.exec_start(made["Id"], socket=True)

        stream = Stream(await engine.call(f"start a program in the keeper of {self.name}", start), hear)
        await stream.open()
        return stream


def make_volume(client: docker.APIClient, name: str, user: str, size: int, labels: Mapping[str, str]) -> None:
    """A file system in memory that belongs to a user."""
    uid, _, gid = user.partition(":")
    client.create_volume(name, driver="local", labels={**labels, KIND: "volume"}, driver_opts={
        "type": "tmpfs", "device": "tmpfs", "o": f"size={size},uid={uid},gid={gid},mode=0700"})
