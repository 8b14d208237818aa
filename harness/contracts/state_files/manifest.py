"""``v7_manifest.json``: which state files there are, whose they are, and what they are for. The source's format."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.contracts.library import read_json
from harness.contracts.reading import pointer, shown
from harness.contracts.state_files.finding import Finding, deviation, mapping
from harness.contracts.state_files.surfaces import Surface, Surfaces
from harness.errors import SpecError

REQUIRED = ("path", "owner", "description")
ENTRIES_MAX = 1_000

PLAIN = re.compile(r"(?!.*(?:^|/)\.{1,2}(?:/|$))[^/\\\x00-\x1f]+(?:/[^/\\\x00-\x1f]+)*")
"""Folders and a name, none of which leads elsewhere: two readers find the same file."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The entries of a manifest that lie in the folder of state files."""

    name: str
    entries: Mapping[str, Any]
    """key → entry, as the file has them"""
    folder: str

    @classmethod
    def read(cls, file: Path, folder: str) -> Manifest:
        """A manifest for files that lie in ``folder``. Raises SpecError for one that cannot be read as such."""
        raw = read_json(file)
        entries = mapping(raw).get("state_files")
        if not isinstance(entries, Mapping):
            raise SpecError(f"{file}: a manifest needs state_files, an object")
        if len(entries) > ENTRIES_MAX:
            raise SpecError(f"{file}: more than {ENTRIES_MAX} state files")
        return cls(file.name, entries, folder)

    def files(self) -> dict[str, str]:
        """The name of each file in the folder → the key of its entry."""
        found = {}
        for key, entry in self.entries.items():
            path = mapping(entry).get("path")
            folder, _, name = path.rpartition("/") if isinstance(path, str) else ("", "", "")
            if folder == self.folder and name:
                found[name] = key
        return found

    def optional(self, key: str) -> bool:
        """Whether the file of an entry may be absent for good."""
        return mapping(self.entries.get(key)).get("optional") is True

    def findings(self, surfaces: Surfaces) -> Iterator[Finding]:
        """What is wrong with the manifest itself: each entry says where, whose and what for, and agrees with the contract."""
        seen: dict[str, str] = {}
        for key, entry in self.entries.items():
            for name in REQUIRED:
                if not isinstance(mapping(entry).get(name), str) or not mapping(entry)[name]:
                    yield self._wrong(pointer("state_files", key, name), "missing")
            path = mapping(entry).get("path")
            if isinstance(path, str) and not PLAIN.fullmatch(path):
                yield self._wrong(pointer("state_files", key, "path"), f"{shown(path)} is no plain path")
            if isinstance(path, str) and seen.setdefault(path, key) != key:
                yield self._wrong(pointer("state_files", key, "path"), f"{shown(path)} is also the path of {shown(seen[path])}")
        files = self.files()
        for surface in surfaces.by_name.values():
            yield from self._surface(surface, files.get(surface.file))

    def _surface(self, surface: Surface, key: str | None) -> Iterator[Finding]:
        if key is None:
            yield self._wrong("/state_files", f"{surface.file} is not named")
            return
        owner = mapping(self.entries[key]).get("owner")
        meant = mapping(self.entries.get(surface.manifest_key)).get("path")
        if key != surface.manifest_key and isinstance(meant, str) and meant != f"{self.folder}/{surface.file}":
            yield self._wrong(pointer("state_files", surface.manifest_key, "path"), f"{shown(meant)}, and not {surface.file}")
        told = mapping(self.entries[key]).get("update_frequency")
        if told != surface.frequency:
            yield deviation("MANIFEST", pointer("state_files", key, "update_frequency"),
                            f"{'missing' if told is None else shown(told)}; it is written {surface.frequency}", self.name)
        if isinstance(owner, str) and owner not in surface.owners:
            yield self._wrong(pointer("state_files", key, "owner"), f"{shown(owner)}; {' or '.join(surface.owners)} writes it")

    def _wrong(self, path: str, message: str) -> Finding:
        return Finding("MANIFEST", path, message, file=self.name)
