"""The forces on a node's small files: a hand that is not the node's overwrites one of them, or takes it away.

Whatever state the node's process is in, its files are there; what is done to them is left when it is healed.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.drill.model import Fault, Json, Overwrite, Remove
from harness.errors import NotApplied
from harness.world.real.acts import OnNode
from harness.world.real.nodes import RealNode

if TYPE_CHECKING:
    from harness.world.real.stacked import StackedWorld

TRIES = 3
"""How often something is tried that the rightful writer may undo before it could be read back."""


class OnFile(OnNode):
    """What both have in common: nothing stands when they are over."""

    def __init__(self, world: StackedWorld, node: RealNode, fault: Fault, file: str) -> None:
        super().__init__(world, node, fault)
        self._name, self._path = file, f"{node.data}/files/{file}"

    async def prepare(self) -> None:
        self._will("leave_file", file=self._path)


class OnOverwrite(OnFile):
    """A second writer, or damage: once, or as often as the drill says, until it is healed."""

    def __init__(self, world: StackedWorld, node: RealNode, fault: Fault, force: Overwrite) -> None:
        super().__init__(world, node, fault, force.file)
        self._force, self._data = force, base64.b64encode(force.content).decode()
        self._writes, self._stood = 0, False
        self._writing: asyncio.Task[None] | None = None

    async def apply(self) -> tuple[Json, Json]:
        for _ in range(TRIES):
            try:
                await self._write()
            except OSError as why:
                raise NotApplied(f"{self._node.name}: {self._name} could not be written: {why}") from why
            if self._stood:
                break
        if not self._stood:
            raise NotApplied(f"{self._node.name}: what was written into {self._name} did not stand for a moment")
        if self._force.every_ms is not None:
            self._writing = self._world.background(self._write_on(self._force.every_ms / 1000))
        return {"overwrite": self._name, "bytes": len(self._force.content), "in_place": self._force.in_place}, {"stood": True}

    async def heal(self) -> Json:
        if self._writing is not None:
            self._writing.cancel()
        return {"undo": await self._world.take_back(self._fault), "writes": self._writes}

    async def probe(self) -> Mapping[str, Json]:
        return {"file.writes": self._writes, "file.stood": self._stood}

    async def _write_on(self, every_s: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + every_s, loop.time())
            await asyncio.sleep(due - loop.time())
            try:
                await self._write()
            except OSError:  # a full disk refuses this hand as well; it does not count as written
                continue

    async def _write(self) -> None:
        stood = await self._node.do("overwrite", file=self._path, data=self._data, in_place=self._force.in_place)
        self._writes += 1
        self._stood = self._stood or bool(stood)


class OnRemove(OnFile):
    """Once; whoever owns the file may make it anew."""

    def __init__(self, world: StackedWorld, node: RealNode, fault: Fault, force: Remove) -> None:
        super().__init__(world, node, fault, force.file)
        self._gone = False

    async def apply(self) -> tuple[Json, Json]:
        for _ in range(TRIES):
            try:
                self._gone = bool(await self._node.do("remove", file=self._path))
            except OSError as why:
                raise NotApplied(f"{self._node.name}: {self._name} could not be taken away: {why}") from why
            if self._gone:
                break
        else:
            raise NotApplied(f"{self._node.name}: {self._name} was there again at once")
        return {"remove": self._name}, {"gone": True}

    async def probe(self) -> Mapping[str, Json]:
        return {"file.gone": self._gone}
