"""What the small nodes beside the trader have in common: the state files they read and write, and two questions they answer.

A state file is one JSON object, replaced whole. Each of ours says who wrote it, ``writer: {node, boot, seq}``, so that a
second writer shows, and when, by a time that never goes back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

import orjson
from msgspec import Struct

from system_under_test.machine import SWAP_PLAN, Now, Replace, Request, Response

HEALTH, CLOCK = "/healthz", "/clock"
_JSON = (("content-type", "application/json"), ("cache-control", "no-store"))


class Stamp(Struct, frozen=True, order=True):
    """Which write of a file it is: ordered within one node."""

    boot: int
    seq: int


class Author:
    """Writes the state files of one node in one life of it."""

    def __init__(self, node: str, boot: int) -> None:
        self.node, self.boot = node, boot
        self._seqs: dict[str, int] = {}

    def replace(self, file: str, document: Mapping[str, Any]) -> Replace:
        """The next content of a file, signed."""
        self._seqs[file] = seq = self._seqs.get(file, 0) + 1
        signed = {**document, "writer": {"node": self.node, "boot": self.boot, "seq": seq}}
        return Replace(file, orjson.dumps(signed), SWAP_PLAN)


def document_of(data: bytes | None) -> dict[str, Any] | None:
    """The object that a state file holds; None for anything that is none, such as a torn one."""
    try:
        found = orjson.loads(data or b"")
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def author_of(document: Mapping[str, Any]) -> tuple[str, Stamp] | None:
    """Who signed a document, and as its how-manieth; None where nobody did."""
    writer = document.get("writer")
    if not isinstance(writer, dict):
        return None
    node, boot, seq = (writer.get(key) for key in ("node", "boot", "seq"))
    if not isinstance(node, str) or not _whole(boot) or not _whole(seq):
        return None
    return node, Stamp(boot, seq)


def number_of(document: Mapping[str, Any], key: str) -> float | None:
    """A finite number under a key, and nothing that only looks like one."""
    found = document.get(key)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        return None
    return found


def _whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def answer(request: Request, now: Now, node: str) -> Response:
    """What a small node says when asked: that it lives, and what its clocks show."""
    path = request.target.partition("?")[0]
    if path not in (HEALTH, CLOCK):
        return _told(request, 404, {"error": "there is nothing here"})
    if request.method != "GET":
        return _told(request, 405, {"error": "only GET"})
    if path == CLOCK:
        return _told(request, 200, {"mono_ms": now.mono_ms, "wall_ms": now.wall_ms})
    return _told(request, 200, {"ok": True, "node": node})


def _told(request: Request, status: int, document: Mapping[str, Any]) -> Response:
    return Response(request.conn, request.id, status, _JSON, orjson.dumps(document))
