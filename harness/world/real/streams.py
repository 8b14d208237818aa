"""What the nodes wrote as they went, brought into the run folder: payload lines, framing removed."""

from __future__ import annotations

import base64
import gzip
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness import limits

CHECKSUM_DIGITS = 8
BLOCK_BYTES = 1_048_576


def keep(folder: Path, nodes: Path, sources: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Any]]:
    """Copy each stream ``{name: {node, path, framing}}`` to ``streams/<name>.jsonl``.

    Returns ``{name: {n, sha256, torn_bytes}}``, with ``cut`` where the stream was longer than STREAM_BYTES_MAX.
    A file that is not there was never written: no lines.
    """
    return {name: _keep(nodes / each["node"] / each["path"], folder / "streams" / f"{name}.jsonl", each["framing"])
            for name, each in sources.items()}


def _keep(source: Path, target: Path, framing: str) -> dict[str, Any]:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, n, taken = hashlib.sha256(), 0, 0
    size = source.stat().st_size if source.is_file() else 0
    partial = target.with_name(f".{target.name}.partial")
    with partial.open("wb") as out:
        for line, length in _records(source, framing) if size else ():
            if taken + length > limits.STREAM_BYTES_MAX:
                break
            taken += length
            n += 1
            digest.update(line)
            out.write(line)
    partial.replace(target)
    kept: dict[str, Any] = {"n": n, "sha256": digest.hexdigest(), "torn_bytes": size - taken}
    if taken + BLOCK_BYTES > limits.STREAM_BYTES_MAX and size > taken:
        kept["cut"] = True
    return kept


def _records(source: Path, framing: str) -> Iterator[tuple[bytes, int]]:
    """(payload line, bytes taken of the file), up to the first bad line."""
    with source.open("rb") as file:
        for line in file:
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
    """Where a secret of the run stands in what it recorded, plain or in base64: ``{secret, file}`` each.

    ``except_in`` is the subfolder of the nodes' own data, which is no record and does not outlive the run.
    """
    needles = {name: _disguises(value) for name, value in secrets.items()}
    found = []
    for file in sorted(each for each in folder.rglob("*") if each.is_file()
                       and each.relative_to(folder).parts[0] != except_in):
        for name, disguises in needles.items():
            if any(_occurs(disguise, file) for disguise in disguises):
                found.append({"secret": name, "file": str(file.relative_to(folder))})
    return found


def _disguises(secret: str) -> tuple[bytes, ...]:
    """The secret as it stands, and the part of its base64 that does not depend on what precedes or follows it."""
    plain = secret.encode()
    encoded = (base64.b64encode(b"\0" * shift + plain)[4 if shift else 0:(shift + len(plain)) // 3 * 4]
               for shift in range(3))
    return (plain, *encoded)


def _occurs(needle: bytes, file: Path) -> bool:
    tail = b""
    for block in _blocks(file):
        if needle in tail + block:
            return True
        tail = block[-len(needle):]
    return False


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
