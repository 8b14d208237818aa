"""What lies in a pack's folder, and its manifest: every file by path, size and sha256.

Everything but the manifest itself and the two seals is listed. The folder is walked without following a link,
and what some file system would take for another file is refused before anything is opened.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from harness import limits
from harness.errors import PackError
from harness.pack.origin import sha256_file
from harness.pack.plain import harmless_json, visible

FORMAT = 1
MANIFEST = "manifest.json"
SEALS = "seals"
SEAL_FILES = ("seals/attestation.json", "seals/signoff.json")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be. ``tag``: UNSAFE, MANIFEST, CHANGED, ADDED, REMOVED, DERIVED, INPUT,
    SEAL, SIGNOFF, RUNLOG. Sorted by path, so that the first finding is the first file."""

    tag: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"[{self.tag}] {visible(self.path)}: {visible(self.message)}"


@dataclass(frozen=True, slots=True)
class Listing:
    """What really lies in a pack's folder: regular files by path, and what must not lie in any pack."""

    files: tuple[str, ...]
    unsafe: tuple[Finding, ...]


def drill_order(drill: str) -> tuple[int, str]:
    """Drills by their number, those without one last."""
    digits = drill.partition("_")[0]
    return (int(digits) if digits.isascii() and digits.isdecimal() else 1_000_000), drill


def folder_name(drill: str) -> str:
    """``2_market_data_stale`` → ``drill_2_market_data_stale``, which is a plain name on every file system."""
    plain = "".join(each if each.isascii() and (each.isalnum() or each in "_-") else "_" for each in drill)
    return f"drill_{plain}"


def list_files(pack: Path) -> Listing:
    """Walk a pack without ever following a link."""
    files: list[str] = []
    unsafe: list[Finding] = []
    if pack.is_symlink() or not pack.is_dir():
        return Listing((), (Finding("UNSAFE", ".", "is not a folder"),))
    for folder, folders, names in os.walk(pack):
        for name in (*folders, *names):
            full = Path(folder) / name
            path = full.relative_to(pack).as_posix()
            mode = full.lstat().st_mode
            if stat.S_ISREG(mode):
                files.append(path)
            elif not stat.S_ISDIR(mode):
                unsafe.append(Finding("UNSAFE", path, "is neither a file nor a folder (links are never followed)"))
            elif not any(full.iterdir()):
                unsafe.append(Finding("UNSAFE", path, "is an empty folder, which no manifest can list"))
        if len(files) > limits.PACK_FILES_MAX:
            return Listing((), (Finding("UNSAFE", ".", f"holds more than {limits.PACK_FILES_MAX} files"),))
    unsafe += [finding for path in files if (finding := _unsafe_file(pack, path))]
    return Listing(tuple(sorted(files)), tuple(sorted((*unsafe, *_twins(files)), key=lambda each: each.path)))


def _unsafe_file(pack: Path, path: str) -> Finding | None:
    size, recorded = (pack / path).lstat().st_size, path.endswith(".gz") or "/streams/" in path
    most = limits.PACK_FILE_BYTES_MAX if recorded else min(limits.PACK_TEXT_BYTES_MAX, limits.PACK_FILE_BYTES_MAX)
    if size > most:
        return Finding("UNSAFE", path, f"has {size} bytes, more than {most}")
    if why := unsafe_path(path):
        return Finding("UNSAFE", path, why)
    return None


def unsafe_path(path: str) -> str | None:
    """Why a path may not stand in a manifest, or None. Paths are relative, forward and printable ASCII."""
    parts = path.split("/")
    if not path or path.startswith("/") or "\\" in path or any(part in {"", ".", ".."} for part in parts):
        return "is not a plain relative path"
    if not path.isascii() or not path.isprintable() or ":" in path:
        return "holds characters that not every file system keeps apart"
    return None


def _twins(paths: list[str]) -> list[Finding]:
    """Paths that some file system takes for one another."""
    seen: dict[str, str] = {}
    found = []
    for path in sorted(paths):
        key = unicodedata.normalize("NFC", path).casefold()
        if key in seen:
            found.append(Finding("UNSAFE", path, f"differs from {seen[key]} only in case or accents"))
        seen.setdefault(key, path)
    return found


def make_manifest(pack: Path) -> bytes:
    """The manifest of what lies there now. Raises PackError for what no pack may hold."""
    listing = list_files(pack)
    if listing.unsafe:
        raise PackError(str(listing.unsafe[0]))
    files = [{"path": path, "size": (pack / path).stat().st_size, "sha256": sha256_file(pack / path)}
             for path in listing.files if _is_listed(path)]
    return encode({"format": FORMAT, "files": files})


def encode(value: Mapping[str, Any]) -> bytes:
    """How the pack's own JSON files are written: sorted keys, two spaces, one newline at the end."""
    return harmless_json(orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)) + b"\n"


def _is_listed(path: str) -> bool:
    return path != MANIFEST and path not in SEAL_FILES


def check_manifest(pack: Path) -> list[Finding]:
    """Compare the folder with its manifest: what was changed, added or removed, sorted by path."""
    listing = list_files(pack)
    if listing.unsafe:
        return list(listing.unsafe)
    listed = _read(pack / MANIFEST)
    if isinstance(listed, Finding):
        return [listed]
    found = []
    present = [path for path in listing.files if _is_listed(path)]
    for path in sorted({*present, *listed.entries}):
        if path not in listed.entries:
            found.append(Finding("ADDED", path, "is in the folder but not in the manifest"))
        elif path not in present:
            found.append(Finding("REMOVED", path, "is in the manifest but not in the folder"))
        elif why := _differs(pack / path, listed.entries[path]):
            found.append(Finding("CHANGED", path, why))
    if not found and make_manifest(pack) != listed.data:
        found.append(Finding("CHANGED", MANIFEST, "lists the right files, but is not written as manifests are"))
    return found


@dataclass(frozen=True, slots=True)
class _Listed:
    data: bytes
    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def _read(file: Path) -> _Listed | Finding:
    """The manifest's entries by path, or what is wrong with it."""
    try:
        data = file.read_bytes()
    except OSError:
        return Finding("REMOVED", MANIFEST, "is missing: nothing can be said about this folder")
    try:
        document = orjson.loads(data)
        entries = {entry["path"]: {"size": entry["size"], "sha256": entry["sha256"]} for entry in document["files"]}
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return Finding("CHANGED", MANIFEST, "cannot be read as a manifest")
    if document.get("format") != FORMAT or len(entries) != len(document["files"]):
        return Finding("CHANGED", MANIFEST, "is of another format, or lists a file twice")
    for path in entries:
        if not isinstance(path, str) or unsafe_path(path):
            return Finding("UNSAFE", MANIFEST, f"lists {path!r}, which is not a plain path within the pack")
    for path, entry in entries.items():
        if not is_digest(entry["sha256"]) or type(entry["size"]) is not int:
            return Finding("CHANGED", MANIFEST, f"says of {path} what is no size or no sha256")
    return _Listed(data, entries)


def is_digest(value: object) -> bool:
    """Whether it is a sha256 as packs write it."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _differs(file: Path, entry: Mapping[str, Any]) -> str | None:
    size = file.stat().st_size
    if size != entry["size"]:
        return f"has {size} bytes, the manifest says {entry['size']}"
    if (digest := sha256_file(file)) != entry["sha256"]:
        return f"has sha256 {digest}, the manifest says {entry['sha256']}"
    return None
