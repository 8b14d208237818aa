"""One node of a stack: what every real world knows of it, and as a process of this machine."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import resource
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import limits
from harness.errors import WorldError
from harness.world.real import http
from harness.world.real.clock import Epoch, faketime_environment
from harness.world.real.hands import ORDERS
from harness.world.real.ports import LOOPBACK
from harness.world.real.processes import MARKER, NODE, Process, dies_with_us, group, marked
from harness.world.secrets import Secrets
from harness.world.stack import Node, Stack

INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
"""All that a node gets of the person's environment: credentials that lie about there are none of its business, nor are
rules that no digest in the recording's head knows."""

LAST_WORDS_BYTES = 4_096
READY_EVERY_S = 0.02
EXIT_POLL_S = 0.005
PACKAGES = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all nodes of a run share."""

    stack: Stack
    run_id: str
    marker: str
    seed: int
    folder: Path
    policy: Mapping[str, object]
    secrets: Secrets = field(repr=False)
    outlives: bool = False
    """held: the stack may stand when the harness is gone"""


class RealNode(ABC):
    """A node through all its lives; ports and data folder stay the same. A force asks it by ``do``, and does not know
    whether its processes and files are here or in a container."""

    poll_s = 0.002
    """How often it may be asked for something that is waited for."""

    def __init__(self, node: Node, around: Surroundings, ports: Mapping[str, int], machine: str | None, home: str,
                 data: str) -> None:
        """``ports`` as we dial them; ``home`` and ``data``: the folders of its trap and clock, and of its data, where it is."""
        self.node, self.name, self.ports = node, node.name, dict(ports)
        self.urls: dict[str, str] = {}
        self._around, self._machine = around, machine
        self.data, self.trap_file, self.clock_file = data, f"{home}.trap", f"{home}.clock"
        self.log = around.folder / "node-logs" / f"{node.name}.log"
        self.build = next(iter(node.builds), "current")
        self.process: Process | None = None
        self.lives = 0

    # ---- what a world provides ----------------------------------------------------------------------------

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Running or paused."""

    @property
    @abstractmethod
    def returncode(self) -> int | None:
        """With what it ended."""

    @property
    @abstractmethod
    def fakes_time(self) -> bool:
        """Whether its wall clock can be moved."""

    @abstractmethod
    async def do(self, order: str, **args: Any) -> Any:
        """Have one of the hands' orders (hands.py) carried out where its processes and files are. Raises OSError."""

    @abstractmethod
    def where(self) -> dict[str, str]:
        """What undo must know to find its processes and files when this world is gone."""

    @abstractmethod
    async def start(self, build: str | None = None) -> None:
        """Lay out what an operator lays out, and start. Raises WorldError; does not wait until it is ready."""

    @abstractmethod
    async def stop(self) -> str:
        """Ask it to end, then make it; returns how it went."""

    @abstractmethod
    async def kill(self) -> None:
        """``kill -9`` of the node's process alone: what it started must notice by itself."""

    @abstractmethod
    def _listens(self, port: str) -> str:
        """``host:port`` on which it is to serve a port."""

    @abstractmethod
    def _surrounding(self) -> dict[str, str]:
        """What its environment holds of its whereabouts."""

    # ---- what forces ask --------------------------------------------------------------------------------

    async def writers(self) -> dict[str, Process]:
        """Log → the process that writes it, for logs that have one."""
        logs = [each for each in self.node.environment.get("NODE_WRITER_LOGS", "").split(",") if each]
        found = await self.do("writers", data=self.data, logs=logs) if logs else {}
        return {log: Process(**each) for log, each in found.items()}

    async def kin(self) -> tuple[Process, ...]:
        """Every process of it that lives, also one that left its group."""
        return tuple(Process(**each) for each in await self.do("kin", marker=self._around.marker, node=self.name))

    async def send(self, processes: Iterable[Process], number: signal.Signals) -> int:
        """Send a signal to processes of it; how many it reached."""
        told = [each.to_json() for each in processes]
        return int(await self.do("send", processes=told, number=int(number))) if told else 0

    async def states(self, processes: Iterable[Process]) -> list[str | None]:
        told = [each.to_json() for each in processes]
        return list(await self.do("states", processes=told)) if told else []

    async def put(self, file: str, data: bytes) -> None:
        """Put a file in its place, whole."""
        await self.do("put", file=file, data=base64.b64encode(data).decode())

    async def tell_clock(self, text: str) -> None:
        """Replace the clock file whole: a half-written one would end the node."""
        await self.put(self.clock_file, f"{text}\n".encode())

    # ---- shared -------------------------------------------------------------------------------------------

    async def until_ready(self, epoch: Epoch, by_ms: int) -> bool:
        """Wait until it serves; False when it ended or ``by_ms`` came first."""
        while self.alive and epoch.floor_ms() < by_ms:
            if await self._ready():
                return True
            await asyncio.sleep(READY_EVERY_S)
        return False

    async def gone_within(self, for_ms: int) -> bool:
        """Wait until the process has ended and is reaped."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + for_ms / 1000
        while self.alive and loop.time() < deadline:
            await asyncio.sleep(EXIT_POLL_S)
        return not self.alive

    def last_words(self, lines: int = 3) -> str:
        """The end of its log, for an error message."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LAST_WORDS_BYTES - self._around.secrets.longest))
            said = self._around.secrets.blotted(log.read().decode(errors="replace"), f"node-logs/{self.log.name}")
        return " | ".join(said[-LAST_WORDS_BYTES:].splitlines()[-lines:])

    async def _ready(self) -> bool:
        if self.node.ready is None:
            return True
        port, path = self.node.ready
        try:
            answer = await http.once(LOOPBACK, self.ports[port], "GET", path)
        except http.Unreachable:
            return False
        return answer.status == 200

    async def _provision(self, environment: Mapping[str, str]) -> None:
        """What an operator lays out before a start, made in a process with the node's own environment."""
        if self.node.provision is None:
            return
        module = self.node.provision
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "harness.world.real.provision", module, env=environment, cwd=self._around.stack.file.parent,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            start_new_session=True, preexec_fn=dies_with_us())
        try:
            async with asyncio.timeout(limits.NODE_START_MS_MAX / 1000):
                said, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise WorldError(f"{self.name}: {module} did not end within {limits.NODE_START_MS_MAX} ms") from None
        if process.returncode:
            why = self._around.secrets.blotted(said.decode(errors="replace"), module)[-500:].strip()
            raise WorldError(f"{self.name}: {module} failed: {why}")

    def _environment(self) -> dict[str, str]:
        around, node = self._around, self.node
        machine = self._machine or node.machine
        entries = {**node.environment, **node.builds.get(self.build, {})}
        if self.build not in node.builds:
            raise WorldError(f"{self.name} has no build {self.build!r}; known: {', '.join(node.builds)}")
        return {
            **self._surrounding(),
            "PYTHONUNBUFFERED": "1",
            MARKER: around.marker,
            NODE: self.name,
            **({"NODE_MACHINE": machine} if machine else {}),
            "NODE_DATA": self.data,
            "NODE_SEED": str(around.seed),
            "NODE_RUN_ID": around.run_id,
            "NODE_TRAP_FILE": self.trap_file,
            **{name: self._places(around.secrets.fill(value, around.policy, around.stack.overlay))
               for name, value in entries.items()},
            **{port.env: self._listens(port.name) for port in node.ports.values() if port.env},
            **self.urls,
        }

    def _places(self, text: str) -> str:
        """``{port:NAME}`` is the number of its own port, ``{url:LINK}`` where a link leads: for systems that are told by
        arguments, or by a variable that wants only the number."""
        for port in self.node.ports:
            text = text.replace(f"{{port:{port}}}", self._listens(port).rpartition(":")[2])
        for link in self._around.stack.links.values():
            if link.client == self.name:
                text = text.replace(f"{{url:{link.name}}}", self.urls.get(link.env, ""))
        return text


def inherited() -> dict[str, str]:
    """What any process gets of the person's environment."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ}


def host_environment(around: Surroundings) -> dict[str, str]:
    """What a process of ours on this machine needs to run a module of the stack's."""
    return {
        **inherited(),
        "PYTHONPATH": os.pathsep.join((str(PACKAGES), str(around.stack.file.resolve().parent))),
        "PYTHONSAFEPATH": "1",  # the working directory holds modules whose names could hide others
    }


class LocalNode(RealNode):
    """A node's process on this machine."""

    def __init__(self, node: Node, around: Surroundings, ports: Mapping[str, int], machine: str | None,
                 faketime: Path | None) -> None:
        home = (around.folder / "nodes" / node.name).resolve()
        super().__init__(node, around, ports, machine, str(home), str(home))
        self._faketime = faketime
        self._popen: subprocess.Popen[bytes] | None = None
        self.led: list[Process] = []
        """the processes of all its lives"""

    @property
    def alive(self) -> bool:
        """Reaps the process when it is not."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def returncode(self) -> int | None:
        return self._popen.poll() if self._popen else None

    @property
    def fakes_time(self) -> bool:
        return self._faketime is not None

    def group(self) -> tuple[Process, ...]:
        """The node's process and all it started in its group, the writers among them."""
        return group(self._popen.pid) if self._popen is not None else ()

    def family(self) -> tuple[Process, ...]:
        """Its group, and whoever it started in a group or a session of its own: they carry its name."""
        return tuple(dict.fromkeys((*self.group(), *marked(self._around.marker, self.name))))

    async def do(self, order: str, **args: Any) -> Any:
        return ORDERS[order](**args)

    def where(self) -> dict[str, str]:
        return {}

    async def start(self, build: str | None = None) -> None:
        self.build = build or self.build
        Path(self.data).mkdir(parents=True, exist_ok=True)
        environment = self._environment()
        await self._provision(environment)
        if self._faketime is not None:
            environment |= faketime_environment(self._faketime, self.clock_file)
        command = [self._placeholders(part) for part in self.node.command]
        if not command:
            raise WorldError(f"{self.name}: the stack names no command for it")
        try:
            with self.log.open("ab") as log:
                self._popen = subprocess.Popen(command, env=environment, cwd=self._around.stack.file.parent,
                                               stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                               preexec_fn=None if self._around.outlives else dies_with_us())
        except (OSError, subprocess.SubprocessError) as why:
            raise WorldError(f"{self.name}: {command[0]}: {why}") from why
        self.process = Process.of(self._popen.pid)
        self.led += [self.process] if self.process is not None else []
        self.lives += 1
        self._bound_files(self._popen.pid)

    def _bound_files(self, pid: int) -> None:
        """Only the soft limit, which whoever undoes a disk fault lifts again."""
        with contextlib.suppress(ProcessLookupError):  # it ended at once; that shows by itself
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (limits.NODE_FILE_BYTES_MAX, hard))

    async def stop(self) -> str:
        if not self.alive or self._popen is None:
            return "was not running"
        os.killpg(self._popen.pid, signal.SIGCONT)  # a stopped process cannot obey
        self._popen.send_signal(signal.SIGTERM)
        if await self.gone_within(limits.NODE_STOP_MS_MAX):
            return f"ended with code {self._popen.returncode}"
        await self.kill()
        return "killed: it did not end when asked"

    async def kill(self) -> None:
        if self._popen is None:
            raise WorldError(f"{self.name} was never started")
        self._popen.kill()
        if not await self.gone_within(limits.NODE_STOP_MS_MAX):
            raise WorldError(f"{self.name}: process {self._popen.pid} survived SIGKILL")

    def _listens(self, port: str) -> str:
        return f"{LOOPBACK}:{self.ports[port]}"

    def _surrounding(self) -> dict[str, str]:
        ours = self._machine or self.node.machine
        return host_environment(self._around) if ours else inherited()

    def _placeholders(self, part: str) -> str:
        return (self._places(part).replace("{python}", sys.executable).replace("{data}", self.data)
                .replace("{stack}", str(self._around.stack.file.resolve().parent)))


def start_order(stack: Stack) -> tuple[str, ...]:
    """Servers before their clients, else as in the file; a circle of links is broken where the file begins it."""
    needs = {name: {link.server for link in stack.links.values() if link.client == name and link.server != name
                    and link.server in stack.nodes}
             for name in stack.nodes}
    ordered: list[str] = []
    while len(ordered) < len(needs):
        left = [name for name in needs if name not in ordered]
        ordered.append(next((name for name in left if needs[name] <= set(ordered)), left[0]))
    return tuple(ordered)
