"""The Toxiproxy server of one run, its proxies, and the meters of its links.

Each link has two proxies of the same server: ``<link>``, which the client node dials and which is troubled, and
``<link>.tap`` behind it, which is left alone and only gives the far end of the link a port of its own, so that the
kernel's counters there speak of this link and of no other (sockets.py).
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness import limits
from harness.errors import WorldError
from harness.world.real.ports import LOOPBACK, Ports
from harness.world.real.processes import Process, dies_with_us
from harness.world.real.sockets import Diagnosis, LinkMeter, Meters
from harness.world.real.toxiproxy import ProxyClient

START_POLL_S = 0.01


class LinkProxies:
    """Start first, stop last. ``fronts`` are the ports that client nodes dial, by link."""

    def __init__(self, executable: Path, ports: Ports, environment: Mapping[str, str], log: Path, *,
                 outlives: bool = False) -> None:
        """``outlives``: held, so that the proxies may stand when the harness is gone."""
        self._executable, self._ports, self._environment, self._log = executable, ports, environment, log
        self._outlives = outlives
        self.port = ports.reserve()
        self.fronts: dict[str, int] = {}
        self.meters = Meters(Diagnosis(), {})
        self.client = ProxyClient(LOOPBACK, self.port)
        self._server: subprocess.Popen[bytes] | None = None
        self._process: Process | None = None

    def start(self) -> None:
        """Start the server, in the main thread. Raises WorldError."""
        try:
            with self._log.open("ab") as log:
                self._server = subprocess.Popen([self._executable, "-host", LOOPBACK, "-port", str(self.port)],
                                                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                env=dict(self._environment), start_new_session=True,
                                                preexec_fn=None if self._outlives else dies_with_us())
        except (OSError, subprocess.SubprocessError) as why:
            raise WorldError(f"{self._executable}: {why}") from why
        self._process = Process.of(self._server.pid)

    def until_ready(self) -> None:
        """Wait until the server answers. Raises WorldError."""
        if self._server is None:
            raise WorldError("Toxiproxy is not running")
        deadline = time.monotonic() + limits.PROXY_CALL_MS_MAX / 1000
        while True:
            try:
                self.client.version()
                return
            except WorldError as why:
                if self._server.poll() is not None:
                    raise WorldError(f"Toxiproxy ended with code {self._server.returncode}; see {self._log}") from why
                if time.monotonic() > deadline:
                    raise
            time.sleep(START_POLL_S)

    def add(self, link: str, upstream: str, holds: Callable[[int], bool]) -> None:
        """Make a link's two proxies; ``holds`` says whether a socket belongs to the node that dials it."""
        front, tap = self._ports.reserve(), self._ports.reserve()
        self.client.create(f"{link}.tap", f"{LOOPBACK}:{tap}", upstream)
        self.client.create(link, f"{LOOPBACK}:{front}", f"{LOOPBACK}:{tap}")
        self.fronts[link] = front
        self.meters.links[link] = LinkMeter(front, tap, holds)

    def identity(self) -> dict[str, Any]:
        """This very server: process, start time, address."""
        if self._process is None:
            raise WorldError("Toxiproxy is not running")
        return {**self._process.to_json(), "host": LOOPBACK, "port": self.port}

    @property
    def died(self) -> int | None:
        """Its exit code when it ended although nobody asked it to."""
        return self._server.poll() if self._server else None

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
        self.meters.close()
