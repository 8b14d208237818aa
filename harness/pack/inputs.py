"""The inputs of a pack: what run folders bring, and whether they belong together.

``build`` refuses what does not; ``verify`` finds the same in a pack that somebody put together by other means.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from harness import limits
from harness.pack.derive import DRILLS, RUN_LOG, STREAMS, folder_name
from harness.pack.listing import Finding, unsafe_path
from harness.pack.matrix import wrong_with_matrix
from harness.pack.origin import RUN_FILES, build_of, sha256_file
from harness.pack.runlog import Attempt, attempts, check_chain, whole_lines
from harness.pack.story import machines_in, read_head, read_json
from harness.recording.tape import canonical
from harness.recording.timeline import read_yaml

TEXT_BYTES_MAX = {"drill.yaml": limits.DRILL_FILE_BYTES_MAX, "stack.yaml": limits.DRILL_FILE_BYTES_MAX,
                  "policy.json": limits.DOCUMENT_BYTES_MAX, "versions.json": limits.DOCUMENT_BYTES_MAX}
RECORDING = "recording.jsonl.gz"
CHUNK = 1 << 20


@dataclass(frozen=True)
class Run:
    """A run folder's identity: what its recording says about itself, and what versions.json adds."""

    folder: Path
    head: Mapping[str, Any]
    versions: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Run:
        return cls(folder, read_head(folder), read_json(folder / "versions.json"))

    @cached_property
    def recorded(self) -> Unpacked:
        """What its recording holds, read when somebody first asks. Raises OSError."""
        return unpacked(self.folder / RECORDING)

    @property
    def drill(self) -> str:
        return str(_at(self.head, "drill", "name"))

    @property
    def run_id(self) -> str:
        return str(self.versions.get("run_id"))


def _at(value: Any, *path: str) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _images(run: Run) -> str | None:
    """One digest over the images of its containers, by their ids; None of a run without any."""
    images = _at(run.versions, "world", "images")
    ids = {str(name): _at(each, "id") for name, each in images.items()} if isinstance(images, Mapping) else None
    return hashlib.sha256(canonical(ids)).hexdigest() if ids else None


SAME: Mapping[str, Callable[[Run], Any]] = {
    "commit": lambda run: _at(run.versions, "git", "commit"),
    "policy": lambda run: _at(run.head, "policy", "sha256"),
    "rules": lambda run: hashlib.sha256(canonical(_at(run.head, "rules"))).hexdigest(),
    "stack": lambda run: _at(run.head, "stack", "sha256"),
    "system": lambda run: _at(run.head, "system"),
    "recorder": lambda run: _at(run.head, "recorder"),
    "images": _images,
}
"""What must be one and the same in all runs of a pack."""


def mixed(runs: list[Run]) -> dict[str, dict[str, list[Run]]]:
    """What differs between runs that must share it: word → value → the runs that have it, most frequent first."""
    found: dict[str, dict[str, list[Run]]] = {}
    for word, look in SAME.items():
        groups: dict[str, list[Run]] = {}
        for run in runs:
            if run.head:  # one without a head is refused for that, and would differ in everything
                groups.setdefault(str(look(run)), []).append(run)
        if len(groups) > 1:
            found[word] = dict(sorted(groups.items(), key=lambda each: -len(each[1])))
    return found


def wrong_with(run: Run) -> Iterator[tuple[str, str]]:
    """(file, what is wrong) with one run folder on its own."""
    folder = run.folder
    for name in RUN_FILES:
        if not (folder / name).is_file():
            yield name, "is missing"
        elif (folder / name).stat().st_size > TEXT_BYTES_MAX.get(name, limits.PACK_FILE_BYTES_MAX):
            yield name, f"is larger than {TEXT_BYTES_MAX.get(name, limits.PACK_FILE_BYTES_MAX)} bytes"
    if not (folder / RECORDING).is_file():
        return
    if run.recorded.wrong:
        yield RECORDING, run.recorded.wrong
        return
    seal = run.recorded.seal
    if not run.head or seal is None:
        yield RECORDING, "has no seal: the run was interrupted" if run.head else "has no head"
        return
    yield from _streams(folder, _at(seal, "streams"))
    yield from _digests(run)


def _streams(folder: Path, sealed: Any) -> Iterator[tuple[str, str]]:
    """The streams must be those of the seal, each byte for byte, and no others."""
    sealed = sealed if isinstance(sealed, Mapping) else {}
    for stream in sealed:
        file = folder / STREAMS / f"{stream}.jsonl"
        if unsafe_path(str(stream)) or "/" in str(stream):
            yield RECORDING, f"names a stream {stream!r}, which is no plain name"
        elif not file.is_file():
            yield f"{STREAMS}/{file.name}", "is missing, though the recording's seal names it"
        elif sha256_file(file) != _at(sealed, stream, "sha256"):
            yield f"{STREAMS}/{file.name}", "is not the stream that the recording's seal names"
    for file in sorted((folder / STREAMS).iterdir()) if (folder / STREAMS).is_dir() else ():
        if file.name not in {f"{stream}.jsonl" for stream in sealed}:
            yield f"{STREAMS}/{file.name}", "is no stream that the recording's seal names"


def _digests(run: Run) -> Iterator[tuple[str, str]]:
    """Whether the texts beside a recording are those that its head names by digest."""
    texts = {"drill.yaml": _at(run.head, "drill", "sha256"), "stack.yaml": _at(run.head, "stack", "sha256")}
    for name, digest in texts.items():
        if (run.folder / name).is_file() and sha256_file(run.folder / name) != digest:
            yield name, "is not the one that the recording's head names"
    if hashlib.sha256(canonical(read_json(run.folder / "policy.json"))).hexdigest() != _at(run.head, "policy", "sha256"):
        yield "policy.json", "is not the one that the recording's head names"
    rules = _at(run.head, "rules")
    if not isinstance(rules, Mapping) or not rules:
        yield RECORDING, "does not say by which rules it is to be judged"
    elif outside := [path for path in rules if unsafe_path(path)]:
        yield RECORDING, f"names a rule {outside[0]!r}, which is no plain path"


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What a recording's bytes hold, of one pass through them."""

    wrong: str | None
    """why it is not unpacked: it would not end, one line of it would fill the memory, or something stands behind its end, which
    one reader would read and another not"""
    sha256: str
    """digest of the content, never of the gzip bytes, as ``Tape.sha256`` has it; as far as it can be unpacked"""
    last: bytes = b""
    """its last line; nothing where it cannot be unpacked to its end"""

    @property
    def seal(self) -> Mapping[str, Any] | None:
        """The seal of the recording: its last line, or None."""
        try:
            line = orjson.loads(self.last) if self.last.endswith(b"\n") else None
        except orjson.JSONDecodeError:
            line = None
        return line if isinstance(line, Mapping) and line.get("line") == "seal" else None


def unpacked(file: Path) -> Unpacked:
    """Read a recording once, by pieces. Raises OSError."""
    unpack, digest, last = zlib.decompressobj(wbits=31), hashlib.sha256(), b""
    total = line = 0
    with file.open("rb") as stream:
        while data := stream.read(CHUNK):
            while data and not unpack.eof:  # behind its end it would keep a tail that is never consumed
                try:
                    out = unpack.decompress(data, CHUNK)
                except zlib.error:  # torn: what there is reads as far as it goes
                    return Unpacked(None, digest.hexdigest())
                digest.update(out)
                total += len(out)
                line = len(out) - out.rfind(b"\n") - 1 if b"\n" in out else line + len(out)
                if total > limits.RECORDING_BYTES_MAX or line > limits.TAPE_LINE_BYTES_MAX:
                    return Unpacked("unpacks to more than a recording may hold", digest.hexdigest())
                last += out
                last = last[last.rfind(b"\n", 0, -1) + 1:]
                data = unpack.unconsumed_tail
            if unpack.eof:
                behind = "goes on behind its end" if unpack.unused_data or stream.read(1) else None
                return Unpacked(behind, digest.hexdigest(), last)
    return Unpacked(None, digest.hexdigest(), last)


def content_sha256(folder: Path) -> str:
    """Digest of a recording's content."""
    return unpacked(folder / RECORDING).sha256


def wrong_with_pack(pack: Path, about: Mapping[str, Any], folders: list[Path]) -> Iterator[Finding]:
    """Everything about a pack's inputs that no honest build would have written."""
    runs = [Run.read(folder) for folder in folders]
    for run in runs:
        path = f"{DRILLS}/{run.folder.name}"
        for name, why in wrong_with(run):
            yield Finding("INPUT", f"{path}/{name}", why)
        if run.head and run.folder.name != folder_name(run.drill):
            yield Finding("INPUT", path, f"holds a recording of {run.drill}")
    for word, groups in mixed(runs).items():
        for run in [run for members in list(groups.values())[1:] for run in members]:
            yield Finding("INPUT", f"{DRILLS}/{run.folder.name}", f"has another {word} than most of the pack")
    if len({run.run_id for run in runs}) < len(runs):
        yield Finding("INPUT", "pack.json", "holds one run twice")
    if {run.folder.name: run.run_id for run in runs} != about.get("runs"):
        yield Finding("INPUT", "pack.json", "names other runs than lie in the pack")
    if runs:
        yield from _rules(pack, runs[0])
    yield from wrong_with_matrix(pack, about, [run.head for run in runs])
    yield from wrong_with_log(pack, about, runs)


def _rules(pack: Path, run: Run) -> Iterator[Finding]:
    """The rules in the pack must be those by which the recordings say they are judged."""
    rules = _at(run.head, "rules") or {}
    for path, digest in sorted(rules.items()):
        file = pack / "rules" / path
        if not file.is_file() or sha256_file(file) != digest:
            yield Finding("INPUT", f"rules/{path}", "is not the rule that the recordings name")
    for name in ("stack.yaml", "policy.json"):
        file = pack / "rules" / name
        if not file.is_file() or file.read_bytes() != (run.folder / name).read_bytes():
            yield Finding("INPUT", f"rules/{name}", "is not the one that the drills ran with")


def wrong_with_log(pack: Path, about: Mapping[str, Any], runs: list[Run]) -> Iterator[Finding]:
    """The slice of the run log: unbroken, as long as pack.json says, and it knows every run of the pack."""
    says = about.get("run_log")
    data = (pack / RUN_LOG).read_bytes() if (pack / RUN_LOG).is_file() else None
    lines = whole_lines(data) if data is not None else None
    if (says is None) != (lines is None):
        yield Finding("RUNLOG", RUN_LOG, "pack.json does not agree whether there is a run log")
    if says is None or lines is None:
        return
    if data is not None and not data.endswith(b"\n"):
        yield Finding("RUNLOG", RUN_LOG, "ends within a line")
        return
    if broken := check_chain(lines, _at(says, "after"), RUN_LOG):
        yield from broken
        return
    if _at(says, "lines") != len(lines) or _at(says, "last") != last_digest(lines):
        yield Finding("RUNLOG", RUN_LOG, "is not the slice that pack.json names")
    known = {(each.run_id, each.recording_sha256): each for each in attempts(lines)}
    for run in runs:
        attempt = known.get((run.run_id, run.recorded.sha256))
        if attempt is None:
            yield Finding("RUNLOG", RUN_LOG, f"knows no run {run.run_id} with this recording")
        elif other := told_otherwise(run, attempt):
            yield Finding("RUNLOG", RUN_LOG, f"tells another {other} of the run {run.run_id} than the run does")
        else:
            yield from altered_since(run, attempt, f"{DRILLS}/{run.folder.name}")


def altered_since(run: Run, attempt: Attempt, path: str) -> Iterator[Finding]:
    """Each file of a run that is not, byte for byte, what lay there when the run ended; ``path`` is what it is called."""
    for name in RUN_FILES if attempt.files is not None else ():
        if (attempt.files or {}).get(name) != sha256_file(run.folder / name):
            yield Finding("INPUT", f"{path}/{name}", "is not the file that the run log names")


def told_otherwise(run: Run, attempt: Attempt) -> str | None:
    """What a run says of itself that the log, written before it began, does not say; None when they agree.

    A placebo, a mutant or a dirty checkout cannot be relabelled afterwards without forging the log's chain as well.
    """
    told = {"drill": (run.drill, attempt.drill), "world": (_at(run.head, "world"), attempt.world),
            "placebo": (_at(run.head, "placebo"), attempt.placebo),
            "build": (build_of(run.head), build_of(run.head) if attempt.build is None else attempt.build),
            "commit": (_at(run.versions, "git", "commit"), attempt.commit),
            "state of the checkout": (_at(run.versions, "git", "dirty"), attempt.dirty),
            "machine": (machines_in(read_yaml(run.folder / "stack.yaml")) != _at(run.head, "machines"), attempt.mutant)}
    return next((word for word, (says, logged) in told.items() if says != logged), None)


def last_digest(lines: list[bytes]) -> str | None:
    """Digest of the last line of a slice, or None for an empty one."""
    return hashlib.sha256(lines[-1]).hexdigest() if lines else None


def first_prev(lines: list[bytes]) -> str | None:
    """What the first line of a slice says about the line before it."""
    return orjson.loads(lines[0])["prev"] if lines else None
