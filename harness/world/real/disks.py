"""The forces on a node's data disk, where it has one of its own: a file that fills it, and data that cannot be written.

A kernel remounts no file system on which something stands open for writing, so read-only data is made of two things
that need no privilege: the node's processes may write to no file (a soft limit on its size), and no folder of its data
takes a new one (its mode).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.drill.model import Disk, Fault, Fill, Json
from harness.errors import NotApplied, NotHealed
from harness.world.real.acts import OnNode
from harness.world.real.nodes import RealNode

if TYPE_CHECKING:
    from harness.world.real.stacked import StackedWorld

SHARE = 0.98
"""As the witnesses have it: nearly as full as was asked for is full."""


class OnRoom(OnNode):
    """What the forces on a data disk have in common: the eyes of somebody else who may write there."""

    @property
    def _folder(self) -> str:
        """Below which the disk is that it acts on."""
        return self._node.data

    async def _use(self) -> dict[str, Json]:
        found: dict[str, Json] = await self._node.do("disk_use", folder=self._folder)
        return found

    async def probe(self) -> Mapping[str, Json]:
        use = await self._use()
        return {"disk.used_ratio": use["used"], "disk.files_ratio": use["files"], "disk.write_refused": use["refused"]}


class OnFill(OnRoom):
    """A file on the data disk, as large as it takes; one that is unlinked is held open where it was written."""

    def __init__(self, world: StackedWorld, node: RealNode, fault: Fault, force: Fill) -> None:
        super().__init__(world, node, fault)
        self._force = force

    @property
    def _folder(self) -> str:
        if self._force.volume is None:
            return self._node.data
        return f"{self._node.data}/files/{self._world.stack.volumes[self._force.volume].at}"

    async def prepare(self) -> None:
        self._will("empty_disk", folder=self._folder)

    async def apply(self) -> tuple[Json, Json]:
        force = self._force
        taken = await self._node.do("fill_disk", folder=self._folder, to=force.to, unlinked=force.unlinked)
        use = await self._use()
        if not taken:
            raise NotApplied(f"the disk of {self._node.name} is full to {use['used']} already")
        if not isinstance(use["used"], float) or use["used"] < SHARE * force.to:
            raise NotApplied(f"the disk of {self._node.name} was to be full to {force.to}, and is to {use['used']}")
        return {"fill": force.volume or self._node.name, "to": force.to, "unlinked": force.unlinked}, {"bytes": taken, **use}

    async def heal(self) -> Json:
        said = await self._world.take_back(self._fault)
        use = await self._use()
        if not isinstance(use["used"], float) or use["used"] >= self._force.to or use["refused"]:
            raise NotHealed(f"the disk of {self._node.name} is still full to {use['used']}")
        return {"undo": said, **use}


class OnReadOnly(OnRoom):
    """See the module."""

    def __init__(self, world: StackedWorld, node: RealNode, fault: Fault, force: Disk) -> None:
        super().__init__(world, node, fault)
        self._kind = force.kind
        self._targets: list[dict[str, int]] = []

    async def prepare(self) -> None:
        leader = self._live()
        members: list[dict[str, int]] = await self._node.do("members", leader=leader.pid)
        writers = [each.to_json() for each in (await self._node.writers()).values()]
        self._targets = [each for n, each in enumerate([*members, *writers]) if each not in [*members, *writers][:n]]
        softs = [await self._node.do("file_limit", process=each) for each in self._targets]
        modes = await self._node.do("folder_modes", folder=self._node.data)
        self._will("unlock_data", modes=modes, processes=self._targets, softs=softs)

    async def apply(self) -> tuple[Json, Json]:
        limits = await self._node.do("lock_data", folder=self._node.data, processes=self._targets)
        use = await self._use()
        if any(each not in (0, None) for each in limits) or not use["refused"]:
            raise NotApplied(f"the data of {self._node.name} still takes writing: limits {limits}, {use}")
        return {"disk": self._kind, "processes": len(self._targets)}, {"file_size_limits": limits, **use}

    async def heal(self) -> Json:
        said = await self._world.take_back(self._fault)
        use = await self._use()
        if use["refused"]:
            raise NotHealed(f"the data of {self._node.name} still takes no writing")
        return {"undo": said, **use}

    async def probe(self) -> Mapping[str, Json]:
        found = dict(await super().probe())
        for log in await self._node.writers():
            found[f"{log}.durable_bytes"] = int(await self._node.do("size", file=f"{self._node.data}/logs/{log}.log"))
        return found
