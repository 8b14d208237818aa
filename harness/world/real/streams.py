"""What the nodes wrote as they went, brought into the run folder: payload lines, framing removed, without secrets."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import limits
from harness.world.secrets import Secrets, Sieve, disguises

CHECKSUM_DIGITS = 8
BLOCK_BYTES = 1_048_576


def keep(folder: Path, nodes: Path, sources: Mapping[str, Mapping[str, str]],
         secrets: Secrets | None = None) -> dict[str, dict[str, Any]]:
    """Copy each stream ``{name: {node, path, framing}}`` to ``streams/<name>.jsonl``, without the run's secrets.

    Returns ``{name: {n, sha256, torn_bytes}}``, with ``cut`` where the stream was longer than STREAM_BYTES_MAX, and with
    ``absent`` where there is no file: nobody knows whether nothing was written, or all of it at another place. A link to
    somewhere else is no file of the node's.
    """
    return {name: _keep(_own(nodes, each["node"], each["path"]), folder / "streams" / f"{name}.jsonl", each["framing"],
                        secrets or Secrets({})) for name, each in sources.items()}


def _own(nodes: Path, node: str, path: str) -> Path | None:
    """The node's file, or None where it is none or lies outside of the nodes' folders."""
    file = nodes / node / path
    return file if file.is_file() and file.resolve().is_relative_to(nodes.resolve()) else None


def _keep(source: Path | None, target: Path, framing: str, secrets: Secrets) -> dict[str, Any]:
    target.parent.mkdir(exist_ok=True)  # and nothing above it: a run folder that was taken away is not made again
    digest, n, taken = hashlib.sha256(), 0, 0
    size = source.stat().st_size if source is not None else 0
    partial = target.with_name(f".{target.name}.partial")
    telling = source is not None and any(map(secrets.stands_in, _windows(source, secrets.longest)))
    try:
        with partial.open("wb") as out:
            for line, length in _records(source, framing) if source is not None and size else ():
                if taken + length > limits.STREAM_BYTES_MAX:
                    break
                taken += length
                n += 1
                kept_line = secrets.starred(line, f"streams/{target.name}") if telling else line
                digest.update(kept_line)
                out.write(kept_line)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)  # of a disk that was full
    kept: dict[str, Any] = {"n": n, "sha256": digest.hexdigest(), "torn_bytes": size - taken}
    if taken + limits.ROW_BYTES_MAX > limits.STREAM_BYTES_MAX and size > taken:
        kept["cut"] = True
    if source is None:
        kept["absent"] = True
    return kept


def _records(source: Path, framing: str) -> Iterator[tuple[bytes, int]]:
    """(payload line, bytes taken of the file), up to the first bad line; one that is too long is bad."""
    with source.open("rb") as file:
        while line := file.readline(limits.ROW_BYTES_MAX):
            payload = line if framing == "lines" else _payload(line)
            if payload is None or not payload.endswith(b"\n"):
                return
            yield payload, len(line)


def _payload(line: bytes) -> bytes | None:
    """The payload of ``<crc32 as 8 hex digits> <payload>``, or None if it is not what was written."""
    checksum, space, payload = line[:CHECKSUM_DIGITS], line[CHECKSUM_DIGITS:CHECKSUM_DIGITS + 1], line[9:]
    if space != b" " or not payload.endswith(b"\n"):
        return None
    return payload if checksum == b"%08x" % zlib.crc32(payload[:-1]) else None


# ---- secrets ----------------------------------------------------------------------------------------------


def leaks(folder: Path, secrets: Mapping[str, str], except_in: str) -> list[dict[str, str]]:
    """Where a secret of the run stands in what it recorded: ``{secret, file}`` each.

    It is looked for plain, as JSON writes it, in base64 and in hexadecimal. ``except_in`` is the subfolder of the nodes'
    own data, which is no record and does not outlive the run.
    """
    needles = [(name, form) for name, value in secrets.items() for form in disguises(value)]
    sieve = Sieve(form for _, form in needles)
    return [{"secret": name, "file": str(file.relative_to(folder))}
            for file in sorted(each for each in folder.rglob("*") if each.is_file()
                               and each.relative_to(folder).parts[0] != except_in)
            for name in _occurring(needles, sieve, file)]


def _occurring(needles: Sequence[tuple[str, bytes]], sieve: Sieve, file: Path) -> Iterable[str]:
    """The names of the needles that stand in a file, read once."""
    found: dict[str, None] = {}
    for window in filter(sieve.may_hold, _windows(file, max((len(form) for _, form in needles), default=0))):
        found |= dict.fromkeys(name for name, form in needles if form in window)
    return found


def _windows(file: Path, overlap: int) -> Iterable[bytes]:
    """A file's contents in blocks, each led by the end of the one before."""
    tail = b""
    for block in _blocks(file):
        window = tail + block
        yield window
        tail = window[-overlap:] if overlap else b""


def _blocks(file: Path) -> Iterable[bytes]:
    """A file's contents, a gzip file's as far as they can be read (the tape is still being written)."""
    with file.open("rb") as plain, gzip.GzipFile(fileobj=plain) as unpacked:
        read = unpacked.read1 if file.suffix == ".gz" else plain.read
        while True:
            try:
                block = read(BLOCK_BYTES)
            except (EOFError, zlib.error):
                return
            if not block:
                return
            yield block
