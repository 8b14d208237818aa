"""Recordings and streams in which a node lied with every honest seal around it: judged, never a traceback, never bent."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import random
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
from hostile_kit import FULL, drillproof

from harness import limits
from harness.recording.tape import Tape, canonical, read_lines
from harness.recording.timeline import Timeline
from harness.verdict.judge import judge
from tests.attack.hostile.words import WORST

LIES = 400 if FULL else 40
ODD: tuple[Any, ...] = (None, True, -1, 0, 2**63 - 1, -2**63, 1e308, "", WORST, "Active", [], [[]], {}, {"a": {}}, [None] * 50)
"""Values that no honest row has where they are put."""


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that PASSED."""
    out = tmp_path_factory.mktemp("honest")
    done = drillproof("run", "drills/phase2/5_book_gap_late_fills.yaml", "--world", "sim", "--out", out, out=out)
    assert done.returncode == 0, done.stderr.decode()
    return next((out / "runs").iterdir())


def sealed(folder: Path, lines: list[dict[str, Any]]) -> None:
    """The recording and its streams as an honest harness would have written them."""
    seal = lines[-1]
    for name in seal["streams"]:
        data = (folder / "streams" / f"{name}.jsonl").read_bytes()
        seal["streams"][name] = {"n": data.count(b"\n"), "sha256": hashlib.sha256(data).hexdigest(), "torn_bytes": 0}
    counts: dict[str, int] = {}
    for line in lines[:-1]:
        kind = str(line.get("line"))
        counts[kind] = counts.get(kind, 0) + 1
    seal["counts"] = dict(sorted(counts.items()))
    (folder / "recording.jsonl.gz").write_bytes(gzip.compress(b"".join(canonical(each) + b"\n" for each in lines), 1))


def odd(row: dict[str, Any], dice: random.Random) -> None:
    """Some field of a row made odd, at any depth; a new one; or one taken away."""
    holder: Any = row
    while True:
        key = dice.choice(list(holder) or ["x"])
        if isinstance(holder.get(key), dict) and dice.random() < 0.5:
            holder = holder[key]
            continue
        break
    if dice.random() < 0.15:
        holder.pop(key, None)
    else:
        holder[dice.choice((key, key, key, WORST))] = dice.choice(ODD)


def test_lies_by_chance_are_judged(honest: Path, tmp_path: Path) -> None:
    """Rows, documents, acts and probes with odd values, sealed: three values, sentences of bounded length, no error."""
    dice = random.Random(21)
    for number in range(LIES):
        folder = tmp_path / str(number)
        shutil.copytree(honest, folder)
        lines = list(read_lines(folder / "recording.jsonl.gz"))
        for _ in range(dice.randint(1, 6)):
            if dice.random() < 0.6:
                file = folder / "streams" / f"{dice.choice(('books', 'ledger', 'notes'))}.jsonl"
                rows = [orjson.loads(each) for each in file.read_bytes().splitlines()]
                odd(dice.choice(rows), dice)
                file.write_bytes(b"".join(canonical(each) + b"\n" for each in rows))
            else:
                odd(dice.choice(lines[1:-1]), dice)
        sealed(folder, lines)
        verdict = judge(folder)
        assert verdict["verdict"] in ("PASS", "INCONCLUSIVE", "FAIL")
        checks = [*verdict["premises"], *verdict["promises"], *verdict["laws"]]
        assert all(len(each["says"]) < 5_000 for each in checks)
        shutil.rmtree(folder)


def test_bytes_by_chance_are_damage(honest: Path, tmp_path: Path) -> None:
    """A recording or stream that is no more what it was is read as far as it goes, and never PASSES."""
    dice = random.Random(22)
    for number in range(LIES):
        folder = tmp_path / str(number)
        shutil.copytree(honest, folder)
        file = folder / dice.choice(("recording.jsonl.gz", "streams/books.jsonl", "streams/notes.jsonl"))
        data = bytearray(file.read_bytes())
        at = dice.randrange(20, len(data) - 20)
        match dice.randrange(3):
            case 0:
                del data[at:]
            case 1:
                data[at:at] = dice.randbytes(30)
            case _:
                data[at:at + 8] = bytes(each ^ 0x5A for each in data[at:at + 8])
        file.write_bytes(data)
        assert judge(folder)["verdict"] != "PASS", (file.name, at)
        shutil.rmtree(folder)


@pytest.mark.parametrize("rows", [
    b'{"at":1}\n' * 3 + b'{"at":', b"\0" * 100, b'{"at":9}\n{"at":1}\n', b"[]\n", b'{"at":1.5}\n', b'{"at":"1"}\n', b"\xff\n",
    b'{"at":1,"at":2}\r\n', b"{" * 100_000 + b"\n", b'{"at":1}' + b" " * 3_000_000,
])
def test_a_stream_of_lies_makes_no_verdict(honest: Path, tmp_path: Path, rows: bytes) -> None:
    """Torn, binary, backwards, nested, not rows at all: what rests on the stream is INCONCLUSIVE, and why is said."""
    folder = tmp_path / "run"
    shutil.copytree(honest, folder)
    lines = list(read_lines(folder / "recording.jsonl.gz"))
    file = folder / "streams" / "notes.jsonl"
    file.write_bytes(file.read_bytes() + rows)
    sealed(folder, lines)
    verdict = judge(folder)
    assert verdict["verdict"] != "PASS"
    said = [each["says"] for each in verdict["premises"] if each["id"] == "recording"]
    assert said and "stream notes" in said[0]


def test_documents_have_a_budget(tmp_path: Path) -> None:
    """A surface that answers with lawful megabytes, each another one, takes so much of a recording and no more."""
    tape = Tape(tmp_path)
    tape.head(surfaces={})
    for number in range(200):
        tape.sample("status", number, number, number, {"n": number, "more": [os.urandom(8).hex()] * 50_000})
    tape.seal("completed", {})
    timeline = Timeline.load(tmp_path)
    kept = sum(len(canonical(each.document)) for each in timeline.samples("status") if each.document is not None)
    assert kept <= limits.DOCUMENTS_BYTES_MAX + 2 * limits.DOCUMENT_BYTES_MAX
    assert {each.why for each in timeline.samples("status")} == {None, "raw"}
    assert "DOCUMENTS_BYTES_MAX" in timeline.limits


def test_one_line_without_end_is_not_read_into_memory(tmp_path: Path) -> None:
    """A recording that unpacks to one line of 200 MB is damage after the first few."""
    (tmp_path / "recording.jsonl.gz").write_bytes(gzip.compress(bytes(200_000_000), 1))
    timeline = Timeline.load(tmp_path)
    assert any("cannot be read" in each or "cut off" in each for each in timeline.damage)
    assert math.isfinite(timeline.end)
