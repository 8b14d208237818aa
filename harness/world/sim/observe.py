"""What the simulated world looks at, on a path of its own: neither links nor faults stand between it and a node.

A question reaches the node at once and its answer takes up to a millisecond. Surfaces are asked on a fixed grid, one
request in flight; a slot without an answer is recorded as silence, with its reason. Reading a file takes no time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import Any

import orjson

from harness import limits
from harness.recording.tape import How, Tape
from harness.world.real.documents import parse
from harness.world.secrets import Secrets
from harness.world.sim.clock import MS, Agenda
from harness.world.sim.node import Node
from harness.world.sim.volume import Files
from harness.world.stack import ClockSource, Surface
from system_under_test.machine import Response

ANSWER_US_MAX = 1 * MS
CLOCK_EVERY_US = 1_000 * MS

Saw = Callable[[str, Mapping[str, Any] | None, int], None]
"""The surface, what it said or None, and the tape's time at which we knew."""

Heard = Callable[[Response | None, int, str], None]
"""What came of a question: the answer or None, the tape's time at which we knew, and why there is none."""


class Question:
    """One HTTP request of ours to a node's port. ``heard`` is called exactly once."""

    __slots__ = ("_agenda", "_random", "_heard", "_open")

    def __init__(self, agenda: Agenda, dice: Random, heard: Heard) -> None:
        self._agenda, self._random, self._heard, self._open = agenda, dice.random, heard, True

    def ask(self, node: Node, port: str, method: str, target: str, headers: tuple[tuple[str, str], ...] = (),
            body: bytes = b"") -> None:
        if not node.alive:
            self._end(None, "down" if node.expected_down else "refused")
            return
        node.serve(port, method, target, headers, body, self._answered)
        if self._open:
            self._agenda.at(self._agenda.now_us + limits.ANSWER_MS_MAX * MS, self._expired)

    def _answered(self, response: Response | None) -> None:
        self._end(response, "closed")

    def _expired(self, _: object) -> None:
        self._end(None, "timeout")

    def _end(self, response: Response | None, why: str) -> None:
        if self._open:
            self._open = False
            took_us = int(ANSWER_US_MAX * self._random()) if response is not None else 0
            self._heard(response, (self._agenda.now_us + took_us) // MS, why)


class Sampler:
    """Samples one surface for as long as the world lives."""

    def __init__(self, agenda: Agenda, dice: Random, tape: Tape, secrets: Secrets, surface: Surface, node: Node,
                 every_ms: int, saw: Saw) -> None:
        self._agenda, self._dice, self._tape, self._secrets = agenda, dice, tape, secrets
        self._surface, self._node, self._every_us, self._saw = surface, node, every_ms * MS, saw
        self._due_us = agenda.now_us
        self._in_flight = False
        agenda.at(self._due_us, self._slot)

    def _slot(self, _: object) -> None:
        due_us = self._due_us
        self._due_us += self._every_us
        self._agenda.at(self._due_us, self._slot)
        due = due_us // MS
        if self._in_flight:
            self._silent(due, due, due, "missed")
            return
        self._in_flight = True
        surface, heard = self._surface, partial(self._heard, due)
        Question(self._agenda, self._dice, heard).ask(self._node, surface.port, "GET", surface.path)

    def _heard(self, due: int, answer: Response | None, at: int, why: str) -> None:
        self._in_flight = False
        if answer is None:
            self._silent(due, due, at, why)
            return
        told = self._secrets.starred(answer.body, f"the answers of {self._surface.name}")
        fits = len(told) <= limits.DOCUMENT_BYTES_MAX
        if not fits:
            self._tape.limit("DOCUMENT_BYTES_MAX", limits.DOCUMENT_BYTES_MAX)
        document = document_of(told) if answer.status == 200 and fits else None
        if document is None:
            body = told if answer.status == 200 else b"HTTP %d\r\n\r\n" % answer.status + told
            self._tape.raw(self._surface.name, due, due, at, len(body), body[:limits.RAW_HEAD_BYTES],
                           hashlib.sha256(body).hexdigest())
        else:
            self._tape.sample(self._surface.name, due, due, at, document)
        self._saw(self._surface.name, document, at)

    def _silent(self, due: int, asked: int, at: int, why: Any) -> None:
        self._tape.silence(self._surface.name, due, asked, at, why)
        self._saw(self._surface.name, None, at)


class FileSampler:
    """Reads one file surface on its grid, and again whenever it holds something else; says how each change came about."""

    def __init__(self, agenda: Agenda, tape: Tape, secrets: Secrets, surface: Surface, files: Files, every_ms: int,
                 saw: Saw) -> None:
        self._agenda, self._tape, self._secrets = agenda, tape, secrets
        self._surface, self._files, self._saw = surface, files, saw
        self._file, self._every_us = str(surface.file), every_ms * MS
        self._due_us = agenda.now_us
        self._last: bytes | None = None
        self._clean = b""
        self._document: dict[str, Any] | None = None
        """what the last bytes are without secrets, and the document that they are"""
        agenda.at(self._due_us, self._slot)
        files.tell(self._file, self._heard)

    def _slot(self, _: object) -> None:
        due = self._due_us // MS
        self._due_us += self._every_us
        self._agenda.at(self._due_us, self._slot)
        self._record(due, due, self._files.get(self._file), extra=False)

    def _heard(self, how: How, data: bytes | None) -> None:
        begin, end = self._agenda.now_us // MS, -(-self._agenda.now_us // MS)
        size, sha256 = (None, None) if data is None else (len(data), hashlib.sha256(data).hexdigest())
        self._tape.written(self._surface.name, begin, end, how, size, sha256)
        if data != self._last:
            self._record(begin, end, data, extra=True)

    def _record(self, asked: int, answered: int, data: bytes | None, extra: bool) -> None:
        name = self._surface.name
        if data is None:
            self._last = None
            self._tape.silence(name, asked, asked, answered, "missing", extra)
            self._saw(name, None, answered)
            return
        if data != self._last:  # what still stands there was read when it came
            self._read(data)
            self._last = data
        clean, document = self._clean, self._document
        if document is None:
            self._tape.raw(name, asked, asked, answered, len(clean), clean[:limits.RAW_HEAD_BYTES],
                           hashlib.sha256(clean).hexdigest(), extra)
        else:
            self._tape.sample(name, asked, asked, answered, document, extra)
        self._saw(name, document, answered)

    def _read(self, data: bytes) -> None:
        self._clean = self._secrets.starred(data, f"the file of {self._surface.name}")
        fits = len(self._clean) <= limits.DOCUMENT_BYTES_MAX
        if not fits:
            self._tape.limit("DOCUMENT_BYTES_MAX", limits.DOCUMENT_BYTES_MAX)
        self._document = document_of(self._clean) if fits else None


class ClockReader:
    """Reads a node's clocks once a second for the tape, and on demand for a witness."""

    def __init__(self, agenda: Agenda, dice: Random, tape: Tape, node: Node, source: ClockSource) -> None:
        self._agenda, self._dice, self._tape, self._node, self._source = agenda, dice, tape, node, source

    def every_second(self, _: object) -> None:
        self._agenda.at(self._agenda.now_us + CLOCK_EVERY_US, self.every_second)
        if self._node.alive:
            self.read(lambda wall_ms: None)

    def read(self, then: Callable[[int | None], None]) -> None:
        """Record the monotonic clock; hand on the wall clock, or None when it was not told."""
        asked = self._agenda.now_ms

        def heard(answer: Response | None, at: int, why: str) -> None:
            document = (document_of(answer.body) if answer is not None else None) or {}
            mono = document.get(self._source.mono)
            if not isinstance(mono, int):
                then(None)
                return
            self._tape.clock(self._node.name, asked, at, mono)
            then(document.get(self._source.wall) if self._source.wall else None)

        Question(self._agenda, self._dice, heard).ask(self._node, self._source.port, "GET", self._source.path)


def document_of(body: bytes) -> dict[str, Any] | None:
    """The JSON object that an answer is, or None. What orjson writes back byte for byte holds no doubtful thing
    (a key twice, a number out of range), and with few brackets it is not too deep; anything else is read to the letter."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    shallow = body.count(b"{") + body.count(b"[") <= limits.DOCUMENT_DEPTH_MAX
    if shallow and isinstance(document, dict) and orjson.dumps(document) == body:
        return document
    return parse(body)
