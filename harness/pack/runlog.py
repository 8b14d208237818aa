"""The run log ``evidence/runs.jsonl``: every attempt, in a chain of hashes, so that running until green shows.

One canonical JSON object a line. ``prev`` is the sha256 of the line before (without its newline), ``n`` counts
from 1. ``started`` is synced to the disk before a run begins; ``ended`` carries its verdict and the digests of its
files; ``packed`` closes the slice that goes into a pack, and ``sealed`` says which manifest was signed. A run that was
killed leaves a ``started`` without an ``ended``. ``joined`` holds a line of another machine's log word for word, so that
its chain stands whole within this one; ``pruned`` says what was taken away.

Deleting the newest lines cannot be seen from the log alone; the packs hold its head at the time of packing.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from harness import limits
from harness.errors import RunLogError
from harness.pack.listing import MANIFEST, Finding
from harness.pack.origin import build_of, sha256_file
from harness.recording.tape import canonical

RUN_LOG_FILE = "runs.jsonl"
"""Where the log lies under evidence/."""

GENESIS = "0" * 64
"""``prev`` of the first line."""

JOINED = "joined"
TOLD = ("started", "ended", "packed", "sealed", "pruned")
"""What a log says of its own; ``joined`` is what another one said."""
EVENTS = (*TOLD, JOINED)
OWN_FIELDS = frozenset({"n", "prev", "event", "utc", "run_id", "mended_bytes"})


def now_utc() -> str:
    """The wall clock, to the second: the only clock of the packing rooms."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Entry:
    """A line that was written: hand it back to ``ended``."""

    n: int
    run_id: str
    inode: int
    """the log in which it stands: one that was removed meanwhile is not continued by another"""


class RunLog:
    """Appends to one log; any number of processes may do so side by side."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def started(self, run_id: str, fields: Mapping[str, Any]) -> Entry:
        """Say what is about to be tried. It is on the disk when this returns."""
        return Entry(self._append("started", run_id, fields), run_id, self.file.stat().st_ino)

    def ended(self, entry: Entry, fields: Mapping[str, Any]) -> None:
        """Say what came of it: ``{status, verdict, recording_sha256}``. Raises RunLogError when the log is another."""
        if not self.file.exists() or self.file.stat().st_ino != entry.inode:
            raise RunLogError(f"{self.file}: was removed or replaced while {entry.run_id} was running")
        self._append("ended", entry.run_id, {**fields, "start": entry.n})

    def packed(self, name: str, manifest_sha256: str) -> None:
        """Close the slice: what is written from now on belongs to the next pack of that name."""
        self._append("packed", name, {"manifest_sha256": manifest_sha256})

    def sealed(self, name: str, manifest_sha256: str) -> None:
        """A pack was signed, which gave it another manifest. No slice ends here."""
        self._append("sealed", name, {"manifest_sha256": manifest_sha256})

    def pruned(self, name: str, fields: Mapping[str, Any]) -> None:
        """A pack or a run was taken away: ``{what, why, bytes}`` and the digest by which the log knows it."""
        self._append("pruned", name, fields)

    def join(self, name: str, lines: Sequence[bytes]) -> int:
        """Take in another log, word for word; what was taken in before is not taken in again. Returns how many are new.
        ``name`` is what people call it. Raises RunLogError for one that does not stand whole within this one."""
        fresh = self.not_joined(lines)
        for line in fresh:
            self._append(JOINED, name, {"log": _digest(lines[0]), "line": line.decode()})
        return len(fresh)

    def not_joined(self, lines: Sequence[bytes]) -> list[bytes]:
        """Those lines of another log that this one has not taken in yet."""
        known = {_digest(inner) for _, _, inner in _joined_lines(self.lines())}
        return [line for line in lines if _digest(line) not in known]

    def lines(self) -> list[bytes]:
        """The whole lines so far, without newlines. Raises RunLogError where the chain is broken."""
        if not self.file.exists():
            return []
        with self._locked() as stream:
            lines, _ = _whole_lines(stream)
        if found := check_chain(lines):
            raise RunLogError(f"{self.file}: {found[0]}")
        return lines

    def since_pack(self, name: str) -> tuple[list[bytes], list[bytes]]:
        """The log, cut after the last ``packed`` of that name whose pack came to be: (before, since). Whoever is killed before
        a pack has its name leaves that line, too, and no page that tells what was tried."""
        lines = self.lines()
        rows = [orjson.loads(line) for line in lines]
        came_to_be = {row.get("manifest_sha256") for row in rows if row["event"] == "pruned"}
        came_to_be |= {sha256_file(file) for file in self.file.parent.glob(f"{name}*/{MANIFEST}")}  # there, and put aside
        cut = end = 0
        for index, row in enumerate(rows, 1):
            if row["event"] in ("packed", "sealed") and row["run_id"] == name:
                end = index if row["event"] == "packed" else end  # a seal gives the same pack another manifest
                cut = end if row["manifest_sha256"] in came_to_be else cut
        return lines[:cut], lines[cut:]

    def _append(self, event: str, run_id: str, fields: Mapping[str, Any]) -> int:
        if clash := OWN_FIELDS & fields.keys():
            raise RunLogError(f"{self.file}: {event} must not set {sorted(clash)}")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self._locked() as stream:
            last, torn = _last_line(stream)
            row = {"n": 1, "prev": GENESIS, "event": event, "run_id": run_id, "utc": now_utc(), **fields}
            if last is not None:
                row["n"], row["prev"] = self._number(last) + 1, _digest(last)
            if torn:  # a writer died in the middle of a line, so what it announced never began
                row["mended_bytes"] = torn
                stream.truncate(stream.seek(0, os.SEEK_END) - torn)
            data = canonical(row) + b"\n"
            if len(data) > limits.RUN_LOG_LINE_BYTES_MAX:
                raise RunLogError(f"{self.file}: a line of {len(data)} bytes; the run log holds no results")
            self._write(stream, data)
        return int(row["n"])

    def _write(self, stream: BinaryIO, data: bytes) -> None:
        """All of it or nothing: a full disk must not leave half a line behind what was there before."""
        size = stream.seek(0, os.SEEK_END)
        try:
            written = os.write(stream.fileno(), data)
            if written != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.file))
            os.fsync(stream.fileno())
        except OSError:
            os.ftruncate(stream.fileno(), size)
            raise

    def _number(self, line: bytes) -> int:
        try:
            return int(orjson.loads(line)["n"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as why:
            raise RunLogError(f"{self.file}: the last line cannot be read, so nothing is appended to it") from why

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """The file, open for reading and writing, held by nobody else."""
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield stream


def whole_lines(data: bytes) -> list[bytes]:
    """The lines of a log without their newlines. What stands behind the last newline is a line of its own, and a
    carriage return belongs to its line: either breaks the chain."""
    lines = data.split(b"\n")
    return lines[:-1] if lines[-1] == b"" else lines


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _whole_lines(stream: BinaryIO) -> tuple[list[bytes], int]:
    """Every line that was written to its end, and the size of a torn tail."""
    stream.seek(0)
    *lines, tail = stream.read().split(b"\n")
    return lines, len(tail)


def _last_line(stream: BinaryIO) -> tuple[bytes | None, int]:
    """The last whole line and the size of a torn tail, without reading a long log from its beginning."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - 2 * limits.RUN_LOG_LINE_BYTES_MAX))
    *lines, tail = stream.read().split(b"\n")
    return (lines[-1] if lines else None), len(tail)


def check_chain(lines: Sequence[bytes], after: str | None = GENESIS, path: str = "runs.jsonl") -> list[Finding]:
    """Where a chain breaks, by line, or a run ends that did not begin so; ``after`` is the digest before the first line (None:
    whatever it says)."""
    found: list[Finding] = []
    number: int | None = 1 if after == GENESIS else None
    inner = Inner(whole=after == GENESIS)
    for position, line in enumerate(lines, 1):
        try:
            row = orjson.loads(line)
            n, prev, event = row["n"], row["prev"], row["event"]
            fits = all(type(row[name]) is str for name in ("prev", "event", "run_id", "utc")) and type(n) is int \
                and (event != "ended" or type(row["start"]) is int) \
                and (event != JOINED or (type(row["log"]) is str and type(row["line"]) is str))
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return [*found, Finding("RUNLOG", path, f"line {position} cannot be read")]
        if not fits or canonical(row) != line or event not in EVENTS:
            return [*found, Finding("RUNLOG", path, f"line {position} is not written as the run log writes")]
        if (after is not None and prev != after) or (number is not None and n != number):
            return [*found, Finding("RUNLOG", path, f"the chain is broken at line {position} (n={n}): the line before "
                                                    "was changed, removed or added")]
        if event == JOINED and (why := inner.broken_by(row["log"], row["line"].encode())):
            return [*found, Finding("RUNLOG", path, f"line {position} (n={n}) joins a log of {row['run_id']} that {why}")]
        after, number = _digest(line), n + 1
    return [*found, *_wrong_ends(lines, path)]


def _wrong_ends(lines: Sequence[bytes], path: str) -> Iterator[Finding]:
    """A run ends once and under its own name: a second word about it would stand for the first."""
    began: dict[tuple[str | None, int], object] = {}
    over: set[tuple[str | None, int]] = set()
    for position, (n, log, row) in enumerate(told(lines), 1):
        if row["event"] == "started":
            began[log, row["n"]] = row.get("run_id")
        elif row["event"] == "ended":
            run, name = (log, row["start"]), row.get("run_id")
            if run in over:
                yield Finding("RUNLOG", path, f"line {position} (n={n}) ends {name} a second time")
            elif began.get(run, name) != name:
                yield Finding("RUNLOG", path, f"line {position} (n={n}) ends {name}, and what began on its line "
                                              f"{row['start']} is {began[run]}")
            over.add(run)


class Inner:
    """The logs that were joined into one, each followed line by line; ``whole``: the one that holds them begins here."""

    def __init__(self, whole: bool) -> None:
        self._whole = whole
        self._ends: dict[str, tuple[str, int]] = {}
        """log → digest and number of the last of its lines"""

    def broken_by(self, log: str, line: bytes) -> str | None:
        """Why a line cannot be the next one of its log, or None."""
        try:
            row = orjson.loads(line)
            n, prev, event = row["n"], row["prev"], row["event"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return "cannot be read"
        fits = type(n) is int and event in TOLD and (event != "ended" or type(row.get("start")) is int)
        if not fits or canonical(row) != line:
            return "is not written as a run log of one machine is"
        first = n == 1 and prev == GENESIS and _digest(line) == log
        follows = (prev, n - 1) == self._ends[log] if log in self._ends else not self._whole and n > 1
        if not (first and log not in self._ends) and not follows:
            return f"does not stand whole in it: its line {n} does not follow what was joined before"
        self._ends[log] = _digest(line), n
        return None


def _joined_lines(lines: Iterable[bytes]) -> Iterator[tuple[int, str, bytes]]:
    """(n, log, line) of every line that was joined from another log."""
    for line in lines:
        row = orjson.loads(line)
        if row["event"] == JOINED:
            yield int(row["n"]), str(row["log"]), row["line"].encode()


def has_joined(lines: Iterable[bytes]) -> bool:
    """Whether another log was joined into this one."""
    return next(_joined_lines(lines), None) is not None


def told(lines: Iterable[bytes]) -> Iterator[tuple[int, str | None, Mapping[str, Any]]]:
    """(n in this log, the joined log that says it or None, row) of everything that a log and those joined into it say."""
    for line in lines:
        row = orjson.loads(line)
        if row["event"] == JOINED:
            yield int(row["n"]), str(row["log"]), orjson.loads(row["line"])
        else:
            yield int(row["n"]), None, row


def verify_runlog(file: Path) -> list[Finding]:
    """What is wrong with a run log; empty when its chain holds. A torn tail is a finding, too."""
    try:
        with file.open("rb") as stream:
            lines, torn = _whole_lines(stream)
    except OSError as why:
        return [Finding("RUNLOG", file.name, f"cannot be read: {why.strerror}")]
    found = check_chain(lines, path=file.name)
    if torn:
        found.append(Finding("RUNLOG", file.name, f"ends in {torn} bytes of a line that was never finished"))
    return found


def knows_manifest(file: Path, run_ids: Collection[str], manifest_sha256: str) -> list[Finding]:
    """Whether the log beside a pack, if it is the one in which the pack's runs began, has packed or sealed this manifest.

    A log of other runs says nothing about the pack; nor does a pack that lies alone.
    """
    lines = _whole(file)
    if broken := check_chain(lines, path=f"../{file.name}"):
        return broken
    if _is_strange(lines, run_ids, manifest_sha256):
        return [Finding("RUNLOG", f"../{file.name}", "tells of these runs, but never packed or sealed this manifest")]
    return []


def disowns_manifest(file: Path, run_ids: Collection[str], manifest_sha256: str) -> bool:
    """Whether the log beside a pack, itself whole, is that of the pack's runs and never packed or sealed this manifest."""
    lines = _whole(file)
    return not check_chain(lines) and _is_strange(lines, run_ids, manifest_sha256)


def _whole(file: Path) -> list[bytes]:
    """The log's lines; none where there is no log. Somebody may be writing the next one."""
    try:
        data = file.read_bytes()
    except OSError:
        return []
    return whole_lines(data[:data.rfind(b"\n") + 1])


def _is_strange(lines: list[bytes], run_ids: Collection[str], manifest_sha256: str) -> bool:
    rows = [row for _, _, row in told(lines)]
    return any(row["event"] == "started" and row["run_id"] in run_ids for row in rows) \
        and manifest_sha256 not in {row.get("manifest_sha256") for row in rows if row["event"] in ("packed", "sealed")}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run as the log tells it; ``verdict`` is None when it never ended."""

    n: int
    run_id: str
    drill: str
    world: str
    placebo: bool
    mutant: bool
    """some node ran another machine than the stack's own"""
    utc: str
    status: str | None
    verdict: str | None
    recording_sha256: str | None
    commit: str | None = None
    dirty: bool | None = None
    files: Mapping[str, Any] | None = None
    """file of the run → its sha256 when the run ended; None in a log of an earlier build"""
    kept: bool = True
    """False when it PASSED in a sweep over seeds and its folder was thrown away"""
    policy: str = ""
    time_to_safe_ms: int | None = None
    """at most; None when it never was safe, or in a log of an earlier build"""
    drill_sha256: str | None = None
    """of the drill's file; None in a log of an earlier build"""
    build: Mapping[str, Any] | None = None
    """the digests of what was drilled and recorded it (``origin.build_of``); None in a log of an earlier build"""
    promises: str | None = None
    """the worst verdict of the promises and the golden alone; None when it never ended, or in a log of an earlier build"""
    log: str | None = None
    """the log of another machine in which it stands, or None: its folder lies elsewhere"""

    @property
    def honest(self) -> bool:
        """An attempt at the drill itself: the force was applied, and the stack's own machines ran."""
        return not self.placebo and not self.mutant

    @property
    def hollow(self) -> bool:
        """Kept its promises without its force: they hold when nothing is broken, so that the drill proves nothing."""
        return self.placebo and not self.mutant and "PASS" in (self.verdict, self.promises)

    @property
    def blind(self) -> bool:
        """Broke a promise without its force, as it must. A law that was broken, or what a mutant did, says nothing of that."""
        return self.placebo and not self.mutant and self.promises == "FAIL"

    def of_build(self, head: Mapping[str, Any], commit: object) -> bool:
        """Whether it tried the build of a recording with this head, made on this commit: the question of everyone who asks what
        came of it later. In a log of an earlier build nothing but the commit can tell."""
        return self.build == build_of(head) if self.build is not None else self.commit == commit

    @property
    def came_of(self) -> str:
        """One word for counting. A placebo's FAIL is as it should be, so it is not counted among the failures."""
        if not self.honest:
            return "mutant" if self.mutant else "placebo"
        return self.verdict if self.verdict in {"PASS", "FAIL", "INCONCLUSIVE"} else "never ended"


def attempts(lines: Sequence[bytes]) -> tuple[Attempt, ...]:
    """Every ``started`` with its ``ended``, in the order in which this log came to know of them."""
    rows = list(told(lines))
    ends = {(log, row.get("start")): row for _, log, row in rows if row["event"] == "ended"}
    return tuple(_attempt(n, log, row, ends.get((log, row["n"]), {})) for n, log, row in rows if row["event"] == "started")


def attempts_beside(file: Path, run_ids: Collection[str]) -> tuple[Attempt, ...]:
    """Every attempt that the log beside a pack tells of, if the pack's runs began in it; none of any other log.

    For a pack that was examined, which holds the log to its chain.
    """
    found = attempts(_whole(file))
    return found if any(each.run_id in run_ids for each in found) else ()


def _word(told: object) -> str | None:
    return told if isinstance(told, str) else None


def _attempt(n: int, log: str | None, start: Mapping[str, Any], end: Mapping[str, Any]) -> Attempt:
    safe = end.get("time_to_safe_ms")
    return Attempt(n, str(start["run_id"]), str(start.get("drill")), str(start.get("world")),
                   start.get("placebo") is True, bool(start.get("machines")), str(start["utc"]),
                   _word(end.get("status")), _word(end.get("verdict")), end.get("recording_sha256"), start.get("commit"),
                   start.get("dirty"), end["files"] if isinstance(end.get("files"), Mapping) else None,
                   end.get("kept") is not False, str(start.get("policy")), safe if type(safe) is int else None,
                   _word(start.get("drill_sha256")), start["build"] if isinstance(start.get("build"), Mapping) else None,
                   _word(end.get("promises")), log)
