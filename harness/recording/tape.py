"""The tape: what was seen, one canonical JSON object a line, integer milliseconds from zero. No opinion in it.

The lines and their fields are listed in DESIGN section 7 and in ``docs/recording.md``. A run folder holds

    recording.jsonl.gz     this tape
    streams/<name>.jsonl   what a node wrote as it went: books, ledger, notes (payload lines, framing removed)
    versions.json          everything that may differ between two equal runs: wall time, pids, ports, paths, hosts
    drill.yaml  undo.jsonl

Contents are hashed, never gzip bytes. Lines are written as they happen and flushed at least every
``FLUSH_EVERY_MS``, so that a killed harness leaves a readable tape without a seal, which reads as interrupted.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Mapping
from math import copysign
from pathlib import Path
from typing import Any, Literal

import orjson

from harness import limits

FORMAT = 1
FLUSH_EVERY_MS = 250
GATHERED_BYTES = 65_536
"""Lines are hashed and compressed by so much, and at every flush."""
_ABSENT = object()
_LINE = orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
"""`canonical`, and the end of the line."""

Silence = Literal["missed", "timeout", "refused", "closed", "down", "missing"]
"""missed: the slot came while a request was still in flight · timeout, refused, closed: what the request met ·
down: the node was known to be dead by an act of ours · missing: there is no such file"""

How = Literal["replaced", "in_place", "appeared", "removed"]
"""replaced: another file was put in its place, whole · in_place: the file itself was written or cut ·
appeared, removed: there was none before, is none after"""


def canonical(value: Any) -> bytes:
    """The one encoding of everything that is hashed: orjson, keys sorted, no whitespace."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def differ(one: Any, other: Any) -> bool:
    """Whether two values are written differently; 1, 1.0 and true are, at any depth."""
    if one is other:
        return False
    if type(one) is not type(other) or one != other:
        return True
    if isinstance(one, float):
        return copysign(1, one) != copysign(1, other)
    return isinstance(one, dict | list) and (as_json(one) != as_json(other) or not as_json(one))


def as_json(value: Any) -> bytes:
    """As JSON; nothing for what is nested deeper than is written."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return b""


class Tape:
    """Writes a recording. One instance a run, one thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "streams").mkdir(exist_ok=True)
        self.file = folder / "recording.jsonl.gz"
        self._file = gzip.GzipFile(self.file, "wb", compresslevel=1, mtime=0)
        self._digest = hashlib.sha256()
        self._gathered = bytearray()
        self._counts: dict[str, int] = {}
        self._last: dict[str, dict[str, Any]] = {}
        self._since_keyframe: dict[str, int] = {}
        self._limits: set[str] = set()
        self._document_bytes = self._slots = 0
        self._flushed_at_ms = 0
        self.sealed = False

    # Each line kind has one verb, so that no two writers can disagree about its fields.

    def head(self, **fields: Any) -> None:
        """drill, stack, policy, rules: sha256 each; seed, world, proxy, surfaces {name: {every_ms, contract, node}},
        links, nodes, format."""
        self._write("head", {"format": FORMAT, **fields})

    def mark(self, name: str, begin: int, end: int) -> None:
        """A named moment, known to lie in [begin, end]: started, given, <fault>, <fault>.healed, <stimulus>,
        healed (everything), converge, stopped; disturbed."""
        self._write("mark", {"name": name, "begin": begin, "end": end})

    def sample(self, surface: str, due: int, asked: int, answered: int, document: Mapping[str, Any],
               extra: bool = False) -> None:
        """One answered slot with a JSON object. Written whole, or as the difference from the last one. ``extra``: no slot of
        the grid, but a look at a file that had just changed. The document is the caller's again; the values in it are kept for
        the next difference, and nobody changes what is inside of them."""
        if self._document_bytes > limits.DOCUMENTS_BYTES_MAX + self._slots * limits.DOCUMENT_BYTES_A_SLOT:
            self._too_much(surface, due, asked, answered, document, extra)
            return
        line = _slot(surface, due, asked, answered, extra)
        last = self._last.get(surface)
        since = self._since_keyframe.get(surface, 0)
        if last is None or since >= limits.KEYFRAME_EVERY:
            line["full"] = document
            self._since_keyframe[surface] = 1
        else:
            before = last.get
            line["set"] = {key: value for key, value in document.items()
                           if (was := before(key, _ABSENT)) is not value and differ(was, value)}
            if document.keys() != last.keys() and (unset := [key for key in last if key not in document]):
                line["unset"] = sorted(unset)
            self._since_keyframe[surface] = since + 1
        self._last[surface] = dict(document)
        self._document_bytes += self._write("sample", line)
        self._slots += 1

    def _too_much(self, surface: str, due: int, asked: int, answered: int, document: Mapping[str, Any], extra: bool) -> None:
        """The documents took all the room there is for them; what this one was is shown as far as any raw answer is."""
        self.limit("DOCUMENTS_BYTES_MAX", limits.DOCUMENTS_BYTES_MAX)
        data = canonical(document)
        head, digest = data[:limits.RAW_HEAD_BYTES], hashlib.sha256(data).hexdigest()
        self.raw(surface, due, asked, answered, len(data), head, digest, extra)
        self._slots += 1

    def silence(self, surface: str, due: int, asked: int, answered: int, why: Silence, extra: bool = False) -> None:
        """One slot without an answer; ``answered`` is when we knew."""
        self._write("sample", {**_slot(surface, due, asked, answered, extra), "silence": why})

    def raw(self, surface: str, due: int, asked: int, answered: int, size: int, head: bytes, sha256: str,
            extra: bool = False) -> None:
        """An answer that is no JSON object: its size, digest and first bytes. It resets the delta chain."""
        self._last.pop(surface, None)
        self._write("sample", {**_slot(surface, due, asked, answered, extra),
                               "raw": {"bytes": size, "sha256": sha256, "head": head.decode("latin-1")}})

    def written(self, surface: str, begin: int, end: int, how: How, size: int | None, sha256: str | None) -> None:
        """The file of a surface changed within [begin, end]: how, and what it holds since; None where that was gone before
        anybody could read it, or nothing is there."""
        self._write("written", {"surface": surface, "begin": begin, "end": end, "how": how, "bytes": size, "sha256": sha256})

    def act(self, id: str, step: str, begin: int, end: int, saw: Any, due: int | None = None) -> None:
        """What we did: applied, read_back, healed, pressed; and what answered. ``due``: when the drill wanted it."""
        timely = {} if due is None else {"due": due}
        self._write("act", {"id": id, "step": step, "begin": begin, "end": end, "saw": saw, **timely})

    def probe(self, id: str, what: str, value: Any, at: int) -> None:
        """A witness's word about fault ``id``. The names in ``what`` are listed in specs/witnesses.yaml."""
        self._write("probe", {"id": id, "what": what, "value": value, "at": at})

    def clock(self, node: str, asked: int, answered: int, mono: int) -> None:
        """A node's own monotonic clock, read between two readings of ours."""
        self._write("clock", {"node": node, "asked": asked, "answered": answered, "mono": mono})

    def limit(self, name: str, bound: int) -> None:
        """A bound of harness.limits was hit; written once a name."""
        if name not in self._limits:
            self._limits.add(name)
            self._write("limit", {"name": name, "bound": bound})

    def seal(self, status: str, streams: Mapping[str, Mapping[str, Any]]) -> None:
        """The last line: completed | refused | aborted | interrupted; streams {name: {n, sha256, torn_bytes}}."""
        self._write("seal", {"status": status, "counts": dict(sorted(self._counts.items())),
                             "streams": {name: dict(value) for name, value in streams.items()}})
        self.close()
        self.sealed = True

    @property
    def sha256(self) -> str:
        """Digest of every line written so far."""
        self._pass_on()
        return self._digest.hexdigest()

    def flush(self, at_ms: int) -> None:
        """Push what was written to the disk if FLUSH_EVERY_MS have passed; worlds call it as time passes."""
        if at_ms - self._flushed_at_ms >= FLUSH_EVERY_MS:
            self._flushed_at_ms = at_ms
            self._pass_on()
            self._file.flush(zlib.Z_SYNC_FLUSH)
            raw: Any = self._file.fileobj
            raw.flush()

    def close(self) -> None:
        """Close the file; without a seal the recording reads as interrupted. Idempotent."""
        try:
            self._pass_on()
        finally:
            self._file.close()

    def _write(self, line: str, fields: dict[str, Any]) -> int:
        """Returns how many bytes the line takes. The fields are those of a line and of nothing else."""
        fields["line"] = line
        data = orjson.dumps(fields, option=_LINE)
        self._counts[line] = self._counts.get(line, 0) + 1
        self._gathered += data
        if len(self._gathered) >= GATHERED_BYTES:
            self._pass_on()
        return len(data)

    def _pass_on(self) -> None:
        """Hash and compress what has been gathered."""
        gathered, self._gathered = self._gathered, bytearray()
        if gathered:
            self._digest.update(gathered)
            self._file.write(gathered)


def _slot(surface: str, due: int, asked: int, answered: int, extra: bool) -> dict[str, Any]:
    line = {"surface": surface, "due": due, "asked": asked, "answered": answered}
    return {**line, "extra": True} if extra else line


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of a recording, as far as they can be read: a cut-off tail ends the iteration."""
    with gzip.open(file, "rb") as stream:
        try:
            while line := stream.readline(limits.TAPE_LINE_BYTES_MAX):
                if not line.endswith(b"\n"):
                    return
                yield orjson.loads(line)
        except (EOFError, zlib.error, orjson.JSONDecodeError):
            return


def length_s(recording: Path) -> float:
    """When the world had stopped, in seconds from the recording's zero; 0 for one without marks."""
    return max((line["end"] for line in read_lines(recording) if line["line"] == "mark"), default=0) / 1_000
