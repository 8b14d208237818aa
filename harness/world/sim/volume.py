"""Small files, each known by its name, and who wants to hear of every change: a node's own, or those of a volume."""

from __future__ import annotations

from collections.abc import Callable

from harness.recording.tape import How
from harness.world.sim.room import Room, pages

Heard = Callable[[How, bytes | None], None]
"""How a file changed, and what it holds since; None for one that was removed."""


class Files(dict[str, bytes]):
    """File → its content. ``put`` is how it changes while somebody may look."""

    def __init__(self) -> None:
        super().__init__()
        self._heard: dict[str, list[Heard]] = {}

    def tell(self, file: str, heard: Heard) -> None:
        """From now on call this at every change of that file."""
        self._heard.setdefault(file, []).append(heard)

    def put(self, file: str, data: bytes | None, how: How) -> None:
        """Replaced, in_place or removed (no data). What was not there appears, and is empty at first unless it comes whole."""
        if data is None:
            if self.pop(file, None) is not None:
                self._tell(file, "removed", None)
            return
        there = file in self
        self[file] = data
        if not there and how == "in_place":
            self._tell(file, "appeared", b"")
        self._tell(file, how if there or how == "in_place" else "appeared", data)

    def _tell(self, file: str, how: How, data: bytes | None) -> None:
        for heard in self._heard.get(file, ()):
            heard(how, data)


class Volume(Room):
    """A file system of its own that several nodes share; its files have the names by which those know them."""

    def __init__(self, at: str, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self._folder = f"{at}/"
        self.files = Files()

    def holds(self, file: str) -> bool:
        return file.startswith(self._folder)

    def _taken(self) -> int:
        return sum(pages(len(data)) for data in self.files.values())
