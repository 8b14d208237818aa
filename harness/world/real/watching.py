"""The harness's end of the watcher, wherever that runs, and the one beside the harness."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import orjson

from harness import limits
from harness.errors import WorldError
from harness.world.real.clock import Epoch
from harness.world.real.documents import parse
from harness.world.real.sidecar import Sidecar

Clean = Callable[[bytes, str], bytes]
"""The content of a surface's file without what may not be kept."""


class Watching(Protocol):
    """A watcher that runs somewhere."""

    async def start(self, errors: Path) -> None: ...

    def watch(self, name: str, folder: str, file: str, every_ms: int) -> None:
        """Read a file below a folder every ``every_ms``, and at each change, from now on, under ``name``."""
        ...

    async def stop(self) -> None:
        """Idempotent."""
        ...


class Heard:
    """Turns what a watcher says into what a sampler would say: documents in the place of bytes. Raises ValueError."""

    def __init__(self, saw: Callable[[Mapping[str, Any]], None], clean: Clean) -> None:
        self._saw, self._clean = saw, clean
        self._last: dict[str, Mapping[str, Any]] = {}
        self._asked_ns = time.monotonic_ns()

    def __call__(self, line: bytes) -> None:
        told: dict[str, Any] = orjson.loads(line)
        if "clock" in told:
            self._bind(told["clock"])
            return
        if told.pop("same", False):
            told |= self._last[told["name"]]
        elif (body := told.pop("body", None)) is not None:
            told |= self._remember(told["name"], base64.b64decode(body))
        self._saw(told)

    def _remember(self, name: str, body: bytes) -> Mapping[str, Any]:
        """What it is, read once: a document only if it is a JSON object to the letter; else raw."""
        body = self._clean(body, name)
        document = parse(body)
        self._last[name] = {"doc": document} if document is not None else {"raw": [
            len(body), hashlib.sha256(body).hexdigest(), body[:limits.RAW_HEAD_BYTES].decode("latin-1"), False]}
        return self._last[name]

    def _bind(self, told_ns: int) -> None:
        """Its clock is the tape's, or nothing that it says could be placed."""
        if not self._asked_ns <= told_ns <= time.monotonic_ns():
            raise WorldError("the watcher's monotonic clock is not this machine's: what it sees could not be placed in time")


class LocalWatching(Sidecar):
    """Beside the harness."""

    def __init__(self, epoch: Epoch, saw: Callable[[Mapping[str, Any]], None], fell: Callable[[BaseException], None],
                 environment: Mapping[str, str], clean: Clean) -> None:
        super().__init__("watcher", (str(epoch.start_ns),), environment, Heard(saw, clean), fell)

    async def start(self, errors: Path) -> None:
        await super().start(errors)
        self.order({"clock": True})

    def watch(self, name: str, folder: str, file: str, every_ms: int) -> None:
        self.order({"watch": name, "folder": folder, "file": file, "every_ms": every_ms})
