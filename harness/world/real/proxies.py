"""The Toxiproxy server of one run, its proxies, and the meters of its links.

Each link has two proxies of the same server: ``<link>``, which the client node dials and which is troubled, and
``<link>.tap`` behind it, which is left alone and only gives the far end of the link a port of its own, so that the
kernel's counters there speak of this link and of no other (sockets.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness import limits
from harness.errors import WorldError
from harness.world.real.ports import LOOPBACK, Ports
from harness.world.real.processes import Process, dies_with_us
from harness.world.real.sockets import Diagnosis, LinkMeter, Meters, Socket, dial_refused
from harness.world.real.toxiproxy import ProxyClient

START_POLL_S = 0.01


class Proxies(ABC):
    """A Toxiproxy server and what it should be like. ``fronts`` are the ports that client nodes dial, by link."""

    def __init__(self, host: str, port: int) -> None:
        """Where its API is reached from here."""
        self.host, self.port = host, port
        self.fronts: dict[str, int] = {}
        self.client = ProxyClient(host, port)
        self.meters = Meters({})
        self._should: dict[str, dict[str, Any]] = {}
        self._acts = 0
        self._under_way = 0
        """acts of ours that have ended, and that have not: of one moment there may be several"""
        self.right_ms = 0
        """when it was last asked and was as we left it"""

    # ---- what a world provides

    @property
    @abstractmethod
    def died(self) -> int | None:
        """Its exit code when it ended although nobody asked it to."""

    @property
    def stopped(self) -> bool:
        """Whether somebody else has stopped it (SIGSTOP); no, where that cannot be told."""
        return False

    @property
    @abstractmethod
    def lost_news(self) -> bool:
        """Whether totals may be too small, because connections ended faster than we listened."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """This very server, for whoever takes back what we did to it."""

    @abstractmethod
    async def read(self, at_ms: int) -> None:
        """Take one reading of every link's counters."""

    @abstractmethod
    async def refuses_dial(self, link: str) -> bool:
        """Whether nothing listens where the link's client dials; asked by a dial of our own, which no meter counts."""

    # ---- making links

    def until_ready(self, version: str) -> None:
        """Wait until the server answers, and is what it should be. Raises WorldError."""
        deadline = time.monotonic() + limits.PROXY_CALL_MS_MAX / 1000
        while True:
            try:
                found = self.client.version()
                break
            except WorldError as why:
                if self.died is not None:
                    raise WorldError(f"Toxiproxy ended with code {self.died}; see node-logs/toxiproxy.log") from why
                if time.monotonic() > deadline:
                    raise
            time.sleep(START_POLL_S)
        if found != version:
            raise WorldError(f"the Toxiproxy server says that it is {found}, its executable {version}")

    def make(self, link: str, listen: str, tap: str, upstream: str) -> None:
        """Make a link's two proxies: what its client dials at ``listen``, and the untroubled one behind it at ``tap``."""
        self.client.create(f"{link}.tap", tap, upstream)
        self.client.create(link, listen, tap)
        with self.acting():
            self._should[f"{link}.tap"] = {"listen": tap, "upstream": upstream, "enabled": True, "toxics": {}}
            self._should[link] = {"listen": listen, "upstream": tap, "enabled": True, "toxics": {}}

    # ---- whether it is as we left it

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """While an act of ours is under way nobody can say how the server ought to be."""
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._acts += 1

    def should_have(self, link: str, toxics: Mapping[str, Any]) -> None:
        """These toxics stand from now on."""
        self._should[link]["toxics"] |= toxics

    def should_not_have(self, link: str, toxics: Iterable[str]) -> None:
        for name in toxics:
            self._should[link]["toxics"].pop(name, None)

    def should_be(self, link: str, *, enabled: bool) -> None:
        self._should[link]["enabled"] = enabled

    def strayed(self, at_ms: int) -> str | None:
        """What of the server is not as we left it; None when all is, or while that cannot be said. Raises WorldError.

        ``at_ms`` is now, on the tape's clock."""
        acts = self._acts
        if self._under_way:
            return None
        try:
            found = self.client.state()
        except WorldError:
            if self._under_way or acts != self._acts:
                return None
            raise
        if self._under_way or acts != self._acts:
            return None
        why = _difference(self._should, found)
        if why is None:
            self.right_ms = at_ms
            return None
        return f"somebody else changed Toxiproxy: {why}"


class LinkProxies(Proxies):
    """The server as a process of this machine: start first, stop last."""

    def __init__(self, executable: Path, ports: Ports, environment: Mapping[str, str], log: Path, *,
                 outlives: bool = False) -> None:
        """``outlives``: held, so that the proxies may stand when the harness is gone."""
        super().__init__(LOOPBACK, ports.reserve())
        self.executable, self._ports, self._environment, self._log = executable, ports, environment, log
        self._outlives = outlives
        self.diagnosis = Diagnosis()
        self._server: subprocess.Popen[bytes] | None = None
        self._process: Process | None = None

    def start(self) -> None:
        """Start the server, in the main thread. Raises WorldError."""
        try:
            with self._log.open("ab") as log:
                self._server = subprocess.Popen([self.executable, "-host", LOOPBACK, "-port", str(self.port)],
                                                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                env=dict(self._environment), start_new_session=True,
                                                preexec_fn=None if self._outlives else dies_with_us())
        except (OSError, subprocess.SubprocessError) as why:
            raise WorldError(f"{self.executable}: {why}") from why
        self._process = Process.of(self._server.pid)

    def until_ready(self, version: str) -> None:
        if self._server is None:
            raise WorldError("Toxiproxy is not running")
        super().until_ready(version)

    def add(self, link: str, upstream: str, holds: Callable[[int], bool]) -> None:
        """Make a link's two proxies; ``holds`` says whether a socket belongs to the node that dials it."""
        front, tap = self._ports.reserve(), self._ports.reserve()
        self.make(link, f"{LOOPBACK}:{front}", f"{LOOPBACK}:{tap}", upstream)
        self.fronts[link] = front
        self.meters.links[link] = LinkMeter(front, tap, holds)

    def identity(self) -> dict[str, Any]:
        """Process, start time, address."""
        if self._process is None:
            raise WorldError("Toxiproxy is not running")
        return {**self._process.to_json(), "host": LOOPBACK, "port": self.port}

    @property
    def died(self) -> int | None:
        return self._server.poll() if self._server else None

    @property
    def stopped(self) -> bool:
        return self._process is not None and self._process.state == "T"

    @property
    def lost_news(self) -> bool:
        return self.diagnosis.lost_news

    async def read(self, at_ms: int) -> None:
        ports = self.meters.ports
        live, ended = self.diagnosis.of_both_families(ports), self.diagnosis.ended(ports)
        self.meters.read(at_ms, live, ended)

    async def refuses_dial(self, link: str) -> bool:
        return await asyncio.to_thread(dial_refused, LOOPBACK, self.fronts[link])

    def strangers(self) -> list[Socket]:
        """Connections of this machine that leave it."""
        return self.diagnosis.strangers()

    def stop(self) -> None:
        """End the server. Idempotent."""
        if self._server is not None and self._server.poll() is None:
            self._server.terminate()
            try:
                self._server.wait(limits.NODE_STOP_MS_MAX / 1000)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
        self._server = None
        self.diagnosis.close()


def _difference(should: Mapping[str, Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The first thing that is not as it should be."""
    for name in (*should, *(each for each in found if each not in should)):
        if name not in found:
            return f"the proxy {name} is gone"
        if name not in should:
            return f"there is a proxy {name} that is none of ours"
        for what in ("listen", "upstream", "enabled"):
            if found[name].get(what) != should[name][what]:
                return f"{what} of the proxy {name} is {found[name].get(what)!r} and should be {should[name][what]!r}"
        if found[name]["toxics"] != should[name]["toxics"]:
            return f"the toxics of the proxy {name} are {_names(found[name])} and should be {_names(should[name])}"
    return None


def _names(proxy: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {each['attributes']}" for name, each in sorted(proxy["toxics"].items())) or "none"
