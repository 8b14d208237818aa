"""A whole folder of state files: what is there, what is missing, each by itself, and all of them together.

Whatever lies in the folder, the answer is a list of findings: nothing is followed, nothing large is read, nothing raises.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import limits
from harness.contracts.reading import Unreadable, read_object
from harness.contracts.state_files.contract import Contract, together
from harness.contracts.state_files.finding import Document, Finding, deviation
from harness.contracts.state_files.manifest import Manifest
from harness.contracts.state_files.surfaces import Surfaces
from harness.contracts.state_files.times import time_findings
from harness.errors import UsageError

FILES_MAX = 1_000
"""The source's largest manifest names sixty; a folder of more is not read to its end."""

FINDINGS_MAX = 1_000

BYTES_MAX = 32 * limits.DOCUMENT_BYTES_MAX
"""All files together; an honest folder has a hundredth of it."""


def judge_folder(folder: Path, surfaces: Surfaces, manifest: Manifest,
                 policy: Mapping[str, Any] | None = None) -> list[Finding]:
    """Everything that is wrong with a folder of state files. Raises UsageError for one that cannot be listed."""
    found = list(manifest.findings(surfaces))
    named, present, documents, left = manifest.files(), set[str](), dict[str, Document](), BYTES_MAX
    for name, entry in _listed(folder, found):
        surface = surfaces.of_file(name)
        if name not in named and surface is None:
            found.append(_unnamed(name))
            continue
        present.add(name)
        if name not in named:
            found.append(Finding("MANIFEST", "", "the manifest does not name this file", file=name))
        data = _content(entry) if left > 0 else \
            Finding("UNREADABLE", "", f"the files together are larger than {BYTES_MAX} bytes")
        left -= len(data) if isinstance(data, bytes) else 0
        if isinstance(data, Finding):
            found.append(replace(data, file=name))
        elif surface is not None:
            found += [replace(each, file=name) for each in Contract(surfaces, surface.name, policy).check(data)]
            if (document := _object(data)) is not None:
                documents[surface.name] = document
        else:
            found += [replace(each, file=name) for each in _stranger(data, surfaces)]
    found += list(_missing(surfaces, manifest, present))
    return [*found, *together(surfaces, documents, policy)][:FINDINGS_MAX]


def _listed(folder: Path, found: list[Finding]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """The folder's entries by name, as many as are read."""
    try:
        with os.scandir(folder) as entries:
            listed = []
            for entry in entries:
                listed.append(entry)
                if len(listed) > FILES_MAX:
                    break
    except OSError as why:
        raise UsageError(f"{folder}: cannot be listed: {why.strerror}") from why
    if len(listed) > FILES_MAX:
        found.append(Finding("UNREADABLE", "", f"the folder holds more than {FILES_MAX} files"))
    for entry in sorted(listed, key=lambda each: each.name):
        yield entry.name.encode("utf-8", "backslashreplace").decode(), entry


def _unnamed(name: str) -> Finding:
    if name.startswith(".") or name.endswith((".tmp", ".new")):
        return deviation("MANIFEST", "", "a temporary that was left behind", name)
    return Finding("MANIFEST", "", "the manifest does not name this file", file=name)


def _content(entry: os.DirEntry[str]) -> bytes | Finding:
    """The bytes of an ordinary file within its bound; links, devices and folders are not opened."""
    try:
        if entry.is_symlink() or not entry.is_file(follow_symlinks=False):
            return Finding("UNREADABLE", "", "no ordinary file")
        descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return Finding("UNREADABLE", "", "no ordinary file")
            data = file.read(limits.DOCUMENT_BYTES_MAX + 1)
    except OSError as why:
        return Finding("UNREADABLE", "", f"cannot be read: {why.strerror}")
    if len(data) > limits.DOCUMENT_BYTES_MAX:
        return Finding("UNREADABLE", "", f"larger than {limits.DOCUMENT_BYTES_MAX} bytes")
    return data


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        return read_object(data)
    except Unreadable:  # which is a finding already
        return None


def _stranger(data: bytes, surfaces: Surfaces) -> list[Finding]:
    """A file that the manifest names and the contract does not know: a JSON object that says when it was written."""
    try:
        document = read_object(data)
    except Unreadable as why:
        return [Finding("SCHEMA", "", str(why))]
    return [each for each in time_findings(document, surfaces.by_name["nav"], surfaces) if each.severity == "breach"]


def _missing(surfaces: Surfaces, manifest: Manifest, present: set[str]) -> Iterator[Finding]:
    """What must be there and is not. Loaders tolerate that; whoever judges a folder does not, or an empty one would pass."""
    for surface in surfaces.by_name.values():
        if surface.file not in present and not surface.optional:
            yield Finding("MISSING", "", "the file is missing", file=surface.file)
    for name, key in manifest.files().items():
        if name not in present and surfaces.of_file(name) is None and not manifest.optional(key):
            yield Finding("MISSING", "", "the manifest names this file, and it is missing", file=name)
