"""The sensitivity matrix: which sabotage of the system each drill noticed, and by which check, as a document.

``drillproof mutants`` makes one; a pack of the same build takes it in as an input. Everything in it that follows from
its cells is derived again when it is read, and its identity names the build: a matrix of another system, of other
drills, rules or another harness says nothing about the pack, and is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from harness import limits
from harness.pack.listing import Finding, drill_order, encode
from harness.recording.tape import canonical

FORMAT = 1
FOLDER = "mutants"
"""Where matrices are kept, under evidence/."""
MATRIX_FILE = "sensitivity/matrix.json"
EXTENTS = ("full", "quick")
"""Every sabotage under every drill of the set that its own drill lies in, or each under its own drill."""
MISSING = "not shown to be sensitive: no matrix of sabotages lies in this pack"

KEYS = frozenset({"format", "identity", "made", "controls", "mutants"})
IDENTITY = frozenset({"catalogue", "drills", "extent", "harness", "policy", "recorder", "rules", "seed", "stack", "system",
                      "world"})
MADE = frozenset({"commit", "dirty", "jobs", "took_ms", "utc"})
CONTROL = frozenset({"drill", "recording", "says", "status", "verdict"})
CELL = frozenset({"checks", "crashed", "drill", "premises", "recording", "status", "verdict"})
ROW = frozenset({"caught", "caught_by", "machine", "name", "named", "organ", "runs", "said", "sentence", "survived", "why"})
NAMED = frozenset({"check", "drill", "says"})


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix that was read and found whole."""

    data: bytes
    document: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        return self.document["mutants"]

    @property
    def identity(self) -> Mapping[str, Any]:
        return self.document["identity"]

    @property
    def drills(self) -> list[str]:
        """The drills that were run, by number."""
        return sorted(self.identity["drills"], key=drill_order)

    @property
    def slipped(self) -> list[Mapping[str, Any]]:
        return [row for row in self.rows if not row["caught"]]

    @property
    def sick(self) -> list[Mapping[str, Any]]:
        """Controls that did not pass: under such a drill nothing is shown."""
        return [each for each in self.document["controls"] if each["verdict"] != "PASS"]

    @property
    def whole(self) -> bool:
        """Every sabotage was caught for its own reason, and the healthy system passed every drill."""
        return not self.slipped and not self.sick

    @property
    def says(self) -> str:
        """The whole matrix in one line."""
        caught = len(self.rows) - len(self.slipped)
        sick = f"; the healthy system did not pass {len(self.sick)} drills" if self.sick else ""
        slipped = f"{len(self.slipped)} SLIPPED THROUGH, " if self.slipped else ""
        return (f"{len(self.rows)} sabotages, {caught} caught by name, {slipped}{self.identity['extent']} matrix of "
                f"{self.document['made']['utc'][:10]}, {self.identity['world']}, seed {self.identity['seed']}{sick}")


# ---- what follows from the cells --------------------------------------------------------------------------


def caught_by(runs: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Every check that FAILed in a run that FAILed, drill by drill."""
    return [{"drill": cell["drill"], "check": check} for cell in runs if cell["verdict"] == "FAIL"
            for check in (*cell["premises"], *cell["checks"])]


def survived(runs: Iterable[Mapping[str, Any]]) -> list[str]:
    """The drills that did not notice: PASS, or nothing to be said."""
    return [cell["drill"] for cell in runs if cell["verdict"] != "FAIL"]


def why_not(row: Mapping[str, Any], controls: Iterable[Mapping[str, Any]]) -> str | None:
    """Why a sabotage does not count as caught for the reason that the catalogue names, or None when it was."""
    named = row["named"]
    cell = next((each for each in row["runs"] if each["drill"] == named["drill"]), None)
    if cell is None:
        return "its drill was not run"
    if not any(each["drill"] == named["drill"] and each["verdict"] == "PASS" for each in controls):
        return "the healthy system does not pass that drill"
    if cell["crashed"]:
        return "the system crashed, which is no sabotage of one organ"
    if cell["status"] != "completed" or cell["verdict"] != "FAIL":
        return f"the drill said {cell['verdict']}" + (f" ({cell['status']})" if cell["status"] != "completed" else "")
    if cell["premises"]:
        return f"it fell before the fault: {cell['premises'][0]} failed"
    if named["check"] not in cell["checks"]:
        return f"{', '.join(cell['checks']) or 'nothing'} failed instead of {named['check']}"
    if row["said"] is None or named["says"] not in row["said"]:
        return f"{named['check']} failed for another reason"
    return None


# ---- reading ----------------------------------------------------------------------------------------------


def read(data: bytes) -> Matrix | str:
    """The matrix, or in one sentence what is wrong with it."""
    if len(data) > limits.MATRIX_BYTES_MAX:
        return f"has more than {limits.MATRIX_BYTES_MAX} bytes"
    try:
        document = orjson.loads(data)
        if encode(document) != data:
            return "is not written as packs are"
        why = next(_wrong(document), None)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError) as why_:
        return f"is no matrix: {type(why_).__name__}: {why_}"
    return why or Matrix(data, document)


def _wrong(document: Mapping[str, Any]) -> Iterator[str]:
    if document.get("format") != FORMAT:
        yield f"is of another format than {FORMAT}"
        return
    identity, rows = document["identity"], document["mutants"]
    yield from _keys(document, KEYS, "the matrix")
    yield from _keys({key: value for key, value in identity.items() if key != "sets"}, IDENTITY, "its identity")
    yield from _keys(document["made"], MADE, "how it was made")
    if identity["extent"] not in EXTENTS:
        yield f"is neither of {' and '.join(EXTENTS)}"
    if not rows:
        yield "names no sabotage"
    if len({row["machine"] for row in rows}) < len(rows) or len({row["name"] for row in rows}) < len(rows):
        yield "names a sabotage twice"
    if sorted(each["drill"] for each in document["controls"]) != sorted(identity["drills"]):
        yield "does not have one healthy run of each drill"
    for each in document["controls"]:
        yield from _keys(each, CONTROL, "a healthy run")
    for row in rows:
        yield from _wrong_row(row, document)


def _wrong_row(row: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[str]:
    yield from _keys(row, ROW, f"the sabotage {row['name']!r}")
    yield from _keys(row["named"], NAMED, f"the sabotage {row['name']!r}")
    for cell in row["runs"]:
        yield from _keys(cell, CELL, f"a run of {row['name']!r}")
    drills = document["identity"]["drills"]
    sets, own = document["identity"].get("sets", {}), row["named"]["drill"]
    expected = sorted((each for each in drills if sets.get(each) == sets.get(own)), key=drill_order) \
        if document["identity"]["extent"] == "full" else [own]
    if [cell["drill"] for cell in row["runs"]] != expected or row["named"]["drill"] not in drills:
        yield f"does not have the runs of {row['name']!r} that a {document['identity']['extent']} matrix has"
        return
    why = why_not(row, document["controls"])
    follows = {"caught_by": caught_by(row["runs"]), "survived": survived(row["runs"]), "why": why, "caught": why is None}
    if any(row[key] != value for key, value in follows.items()):
        yield f"says otherwise of {row['name']!r} than its runs do"


def _keys(value: Mapping[str, Any], keys: frozenset[str], what: str) -> Iterator[str]:
    if set(value) != keys:
        yield f"has other keys in {what} than {', '.join(sorted(keys))}"


# ---- belonging to a pack ----------------------------------------------------------------------------------


def otherwise(matrix: Matrix, heads: Iterable[Mapping[str, Any]], harness: object) -> str | None:
    """What a matrix is about that these runs are not, in one word; None when both are of one build."""
    for head in heads:
        rules = hashlib.sha256(canonical(head.get("rules"))).hexdigest()
        told = {"system": head.get("system"), "recorder": head.get("recorder"), "rules": rules,
                "stack": (head.get("stack") or {}).get("sha256"), "harness": harness}
        for word, value in told.items():
            if matrix.identity[word] != value:
                return word
        drill = head.get("drill") or {}
        if matrix.identity["drills"].get(drill.get("name")) != drill.get("sha256"):
            return f"drill {drill.get('name')}"
    return None


def newest(folder: Path, heads: Sequence[Mapping[str, Any]], harness: object, catalogue: str | None = None) -> Matrix | None:
    """The matrix of this build under a folder that counts: one that is not whole before all others, as another seed does not
    mend what slipped; a full one before a quick one; then the newest. Only of the catalogue with this digest, where one is
    given: a pack cannot tell, for where it is made nobody knows the stack's own folder."""
    found = []
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        matrix = read(file.read_bytes())
        if isinstance(matrix, Matrix) and otherwise(matrix, heads, harness) is None \
                and catalogue in (None, matrix.identity["catalogue"]):
            found.append(matrix)
    if not found:
        return None
    last = max(found, key=_utc)
    return max(found, key=lambda each: (not each.whole and _asks_as(each, last), each.identity["extent"] == "full", _utc(each)))


def _utc(matrix: Matrix) -> str:
    return str(matrix.document["made"]["utc"])


def _asks_as(matrix: Matrix, last: Matrix) -> bool:
    """Whether it asked what the last one asked: a sabotage or a drill that was mended since is another."""
    one, other = matrix.identity, last.identity
    return bool(one["catalogue"] == other["catalogue"]) and all(
        other["drills"].get(name, sha256) == sha256 for name, sha256 in one["drills"].items())


def wrong_with_matrix(pack: Path, about: Mapping[str, Any], heads: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Whether the matrix in a pack is the one that pack.json names, whole, and of the build of the runs."""
    file, named = pack / MATRIX_FILE, about.get("mutants")
    if not file.is_file() or named is None:
        if file.is_file() or named is not None:
            yield Finding("INPUT", MATRIX_FILE, "pack.json does not agree whether there is a matrix")
        return
    matrix = read(file.read_bytes()) if file.stat().st_size <= limits.MATRIX_BYTES_MAX else "is too large"
    if isinstance(matrix, str):
        yield Finding("INPUT", MATRIX_FILE, matrix)
    elif matrix.sha256 != named:
        yield Finding("INPUT", MATRIX_FILE, "is not the one that pack.json names")
    elif word := otherwise(matrix, heads, (about.get("made_by") or {}).get("harness")):
        yield Finding("INPUT", MATRIX_FILE, f"is of another build than the runs: another {word}")
