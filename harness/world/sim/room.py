"""The room of a simulated file system: its size, what is in use at rest, and what a fault fills it with.

What is in use at rest stays as it was; while something fills the room, all that is written there counts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

PAGE_BYTES = 4_096
"""In such pieces room is given, as on tmpfs."""


def pages(size: int) -> int:
    """So many bytes of room a file of that size takes."""
    return -(-size // PAGE_BYTES) * PAGE_BYTES


class Room(ABC):
    def __init__(self, size_bytes: int, at_rest_bytes: int = 0) -> None:
        self.size_bytes, self._at_rest_bytes = size_bytes, at_rest_bytes
        self._fillers: dict[str, tuple[int, bool]] = {}
        """fault → bytes, and whether their file is unlinked"""
        self._taken_at_rest = 0

    @abstractmethod
    def _taken(self) -> int:
        """The room that what is kept here takes."""

    def fill(self, id: str, to: float, unlinked: bool) -> int:
        """Take room until that share is used; how many bytes it took, which may be none."""
        if not self._fillers:
            self._taken_at_rest = self._taken()
        left = (int(to * self.size_bytes) - self.used_bytes) // PAGE_BYTES * PAGE_BYTES
        self._fillers[id] = max(0, left), unlinked
        return self._fillers[id][0]

    def heal(self, id: str) -> None:
        """What that fault took is free again."""
        self._fillers.pop(id, None)

    @property
    def used_bytes(self) -> int:
        """What the file system counts as used."""
        grown = self._taken() - self._taken_at_rest if self._fillers else 0
        return self._at_rest_bytes + grown + sum(size for size, _ in self._fillers.values())

    @property
    def used_ratio(self) -> float:
        """The share in use, by the file system's own count."""
        return self.used_bytes / self.size_bytes

    @property
    def files_ratio(self) -> float:
        """The share in use, by adding up its files: one that is deleted and held open is not among them."""
        return (self.used_bytes - sum(size for size, unlinked in self._fillers.values() if unlinked)) / self.size_bytes

    def lacks(self, more_bytes: int) -> bool:
        """Whether so much more does not fit; asked only where something fills the room."""
        return bool(self._fillers) and self.used_bytes + more_bytes > self.size_bytes

    def refuses_file(self, size: int) -> str | None:
        """Why a new file of that size cannot be written; None when it can."""
        return "ENOSPC" if self.lacks(pages(size)) else None
