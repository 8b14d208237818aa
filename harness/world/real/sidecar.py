"""A program of ours that runs beside the harness: it takes orders and tells, one JSON object a line each way.

A process of its own, because a thread beside busy Python is late.
"""

from __future__ import annotations

import asyncio
import contextlib
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
from harness.world.real.processes import dies_with_us

LINE_BYTES_MAX = 2 * limits.DOCUMENT_BYTES_MAX + 65_536
"""A document of control characters takes several bytes for each when it is passed on; raw answers are cut first."""
PACKAGES = Path(__file__).resolve().parents[3]


class Sidecar:
    """Starts the program, passes orders on, and hands every line that it says to ``heard``."""

    def __init__(self, name: str, arguments: tuple[str, ...], environment: Mapping[str, str], heard: Callable[[bytes], None],
                 fell: Callable[[BaseException], None]) -> None:
        """``name``: a module beside this one. ``fell`` is called when it ends although nobody asked it to, and for whatever
        is raised by ``heard``; a ValueError means that the line cannot be read."""
        self.name, self._arguments, self._environment = name, arguments, environment
        self._heard, self._fell = heard, fell
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._stopping = False
        self._scheduling = ""

    async def start(self, errors: Path) -> None:
        path = os.pathsep.join(filter(None, (str(PACKAGES), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, **self._environment, "PYTHONPATH": path}
        with errors.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", f"harness.world.real.{self.name}", *self._arguments,
                stdin=PIPE, stdout=PIPE, stderr=log, env=environment, start_new_session=True, limit=LINE_BYTES_MAX,
                preexec_fn=dies_with_us())
        self._reading = asyncio.create_task(self._read())

    def order(self, order: Mapping[str, Any]) -> None:
        if self._process is None or self._process.stdin is None:
            raise WorldError(f"the {self.name} is not running")
        self._process.stdin.write(orjson.dumps(order) + b"\n")

    @property
    def scheduling(self) -> str:
        """How it is scheduled: what punctuality the system allowed it."""
        return self._scheduling or (urgency.told(self._process.pid) if self._process else "unknown")

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def stop(self) -> None:
        """End the program and hand over what it still had to say. Idempotent."""
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
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                self._process.kill()
            await self._process.wait()
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self) -> None:
        if self._process is None or self._process.stdout is None:
            raise WorldError(f"the {self.name} is not running")
        try:
            while (line := await self._process.stdout.readline()).endswith(b"\n"):  # its end may cut the last one off
                self._heard(line)
        except ValueError as why:
            self._fell(WorldError(f"the {self.name} said something unreadable: {why}"))
            return
        except asyncio.CancelledError:
            raise
        except BaseException as why:  # a tape that cannot be written, or a signal that came up here of all places
            self._fell(why)
            return
        if not self._stopping:
            code = await self._process.wait()
            self._fell(WorldError(f"the {self.name} ended with code {code}; see node-logs/{self.name}.log"))
