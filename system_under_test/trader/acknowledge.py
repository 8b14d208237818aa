"""An operator's acknowledgement: the only way past a MANUAL latch, beside a clean reconciliation.

The operator leaves ``operator/acknowledge.json`` with ``{code, reason, name, digest}``. The digest is the SHA-256
(hex) of code, reason and name, joined by line feeds: it shows that the note is whole and was not edited after it
was written. It is no signature; who may write into that folder is the host's business. A digest counts once, so
yesterday's note never clears today's latch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

import orjson

FILE = "operator/acknowledge.json"
"""Where the note lies among the node's files."""

BYTES_MAX = 4_096
"""A note of an operator is a sentence; anything longer is a mistake."""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A note that is whole: which code, why, who."""

    code: str
    reason: str
    name: str
    digest: str


def digest(code: str, reason: str, name: str) -> str:
    """What the note's digest must be."""
    return hashlib.sha256(f"{code}\n{reason}\n{name}".encode()).hexdigest()


def read(value: bytes | None, waiting: Collection[str], used: Collection[str]) -> Acknowledgement | str | None:
    """The acknowledgement in the file; a sentence why it is refused; or None when there is nothing new.

    ``waiting`` are the codes that wait for an operator, ``used`` the digests that the ledger has seen.
    """
    if value is None:
        return None
    note = _parsed(value)
    if isinstance(note, str):
        return note
    if note.digest in used:
        return None
    if note.digest != digest(note.code, note.reason, note.name):
        return "the digest is not that of code, reason and name"
    if note.code not in waiting:
        return f"{note.code} does not wait for an operator"
    return note


def _parsed(value: bytes) -> Acknowledgement | str:
    if len(value) > BYTES_MAX:
        return f"the note is {len(value)} bytes; at most {BYTES_MAX} are read"
    try:
        raw = orjson.loads(value)
    except orjson.JSONDecodeError as why:
        return f"the note is not JSON: {why}"
    if not isinstance(raw, dict):
        return "the note is no JSON object"
    fields = []
    for name in ("code", "reason", "name", "digest"):
        text = raw.get(name)
        if not isinstance(text, str) or not text.strip() or "\n" in text:
            return f"the note's {name} must be a text of one line"
        fields.append(text)
    return Acknowledgement(*fields)
