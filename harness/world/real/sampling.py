"""The harness's end of the sampler process."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from harness import limits
from harness.errors import WorldError
from harness.world.real import urgency
from harness.world.real.clock import Epoch
from harness.world.real.processes import dies_with_us

LINE_BYTES_MAX = 2 * limits.DOCUMENT_BYTES_MAX + 65_536
"""A document of control characters takes several bytes for each when it is passed on; raw answers are cut first."""
PACKAGES = Path(__file__).resolve().parents[3]


class Sampling:
    """Starts the sampler, passes watches on, and hands every line that it says to ``saw``."""

    def __init__(self, epoch: Epoch, saw: Callable[[Mapping[str, Any]], None], fell: Callable[[BaseException], None],
                 environment: Mapping[str, str], clean: Callable[[bytes], bytes] = bytes) -> None:
        """``saw`` is called with every line, ``fell`` when the sampler ends although nobody asked it to; ``clean`` takes
        out of a line, before it is read, what may not be kept."""
        self._epoch, self._saw, self._fell, self._environment, self._clean = epoch, saw, fell, environment, clean
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._stopping = False
        self._scheduling = ""

    async def start(self, errors: Path) -> None:
        path = os.pathsep.join(filter(None, (str(PACKAGES), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, **self._environment, "PYTHONPATH": path}
        with errors.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "harness.world.real.sampler", str(self._epoch.start_ns),
                stdin=PIPE, stdout=PIPE, stderr=log, env=environment, start_new_session=True, limit=LINE_BYTES_MAX,
                preexec_fn=dies_with_us())
        self._reading = asyncio.create_task(self._read())

    def watch(self, name: str, host: str, port: int, path: str, every_ms: int) -> None:
        """Ask for ``path`` every ``every_ms`` from now on, under ``name``."""
        if self._process is None or self._process.stdin is None:
            raise WorldError("the sampler is not running")
        order = {"watch": name, "host": host, "port": port, "path": path, "every_ms": every_ms}
        self._process.stdin.write(orjson.dumps(order) + b"\n")

    @property
    def scheduling(self) -> str:
        """How the sampler is scheduled: what punctuality the system allowed it."""
        return self._scheduling or (urgency.told(self._process.pid) if self._process else "unknown")

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def stop(self) -> None:
        """End the sampler and hand over what it still had to say. Idempotent."""
        self._stopping = True
        if self._process is None:
            return
        self._scheduling = self.scheduling
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(limits.NODE_STOP_MS_MAX / 1000):
                await self._process.wait()
                if self._reading is not None:
                    await self._reading
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self) -> None:
        if self._process is None or self._process.stdout is None:
            raise WorldError("the sampler is not running")
        try:
            while (line := await self._process.stdout.readline()).endswith(b"\n"):  # its end may cut the last one off
                self._saw(orjson.loads(self._clean(line)))
        except ValueError as why:
            self._fell(WorldError(f"the sampler said something unreadable: {why}"))
            return
        except asyncio.CancelledError:
            raise
        except BaseException as why:  # a tape that cannot be written, or a signal that came up here of all places
            self._fell(why)
            return
        if not self._stopping:
            code = await self._process.wait()
            self._fell(WorldError(f"the sampler ended with code {code}; see node-logs/sampler.log"))


