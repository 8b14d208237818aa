"""The harness's end of a watcher in the keeper of a pod, where its node's files are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from harness import limits
from harness.errors import WorldError
from harness.world.real.clock import Epoch
from harness.world.real.engine import Engine
from harness.world.real.pods import WATCHER, Pod, Stream, command
from harness.world.real.watching import Clean, Heard


class KeeperWatching:
    """See the module."""

    def __init__(self, pod: Pod, engine: Engine, epoch: Epoch, saw: Callable[[Mapping[str, Any]], None],
                 fell: Callable[[BaseException], None], clean: Clean) -> None:
        self._pod, self._engine, self._epoch, self._fell = pod, engine, epoch, fell
        self._heard = Heard(saw, clean)
        self._errors: Path | None = None
        self._stream: Stream | None = None
        self._line = b""

    async def start(self, errors: Path) -> None:
        self._errors = errors
        self._stream = await self._pod.run(self._engine, command(WATCHER, str(self._epoch.start_ns)), self._hear)
        if self._stream.reading is not None:
            self._stream.reading.add_done_callback(self._ended)
        self._order({"clock": True})

    def watch(self, name: str, folder: str, file: str, every_ms: int) -> None:
        self._order({"watch": name, "folder": folder, "file": file, "every_ms": every_ms})

    async def stop(self) -> None:
        """With its input it ends; what it still had to say is heard."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        stream.end_input()
        if stream.reading is not None:
            await asyncio.wait((stream.reading,), timeout=limits.NODE_STOP_MS_MAX / 1000)
        stream.close()

    def _order(self, order: Mapping[str, Any]) -> None:
        if self._stream is None:
            raise WorldError("the watcher is not running")
        self._stream.write(orjson.dumps(order) + b"\n")

    def _hear(self, stream: int, data: bytes) -> None:
        if stream != 1 and self._errors is not None:
            with self._errors.open("ab") as log:
                log.write(data)
            return
        *lines, self._line = (self._line + data).split(b"\n")
        try:
            for line in lines:
                self._heard(line)
        except ValueError as why:
            self._fell(WorldError(f"the watcher of {self._pod.name} said something unreadable: {why}"))
        except WorldError as why:
            self._fell(why)

    def _ended(self, reading: asyncio.Task[None]) -> None:
        if self._stream is not None and not reading.cancelled():
            self._fell(reading.exception() or WorldError(
                f"the watcher of {self._pod.name} ended; see node-logs/watcher.log"))
