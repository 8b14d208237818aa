"""The run log: every attempt, in a chain."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from freezegun import freeze_time

from harness.errors import RunLogError
from harness.pack.origin import sha256_file
from harness.pack.runlog import Entry, RunLog, attempts, check_chain, verify_runlog

FACTS = {"drill": "d", "world": "sim", "placebo": False}


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    """A log of three runs: passed, failed, never ended."""
    log = RunLog(tmp_path / "runs.jsonl")
    for verdict in ("PASS", "FAIL", None):
        entry = log.started(f"run-{verdict}", FACTS)
        if verdict:
            log.ended(entry, {"status": "completed", "verdict": verdict, "recording_sha256": "0" * 64})
    return log


def test_attempts_tell_what_came_of_each(log: RunLog) -> None:
    """A run that was killed is one that never ended."""
    assert [each.verdict for each in attempts(log.lines())] == ["PASS", "FAIL", None]


@pytest.mark.parametrize("verdict", [["PASS"], {"PASS": 1}, 1, True])
def test_a_verdict_that_is_no_word_is_none(tmp_path: Path, verdict: object) -> None:
    """A log that somebody else wrote may hold anything; such a run counts as one that never ended."""
    log = RunLog(tmp_path / "runs.jsonl")
    log.ended(log.started("run", FACTS), {"status": ["completed"], "verdict": verdict, "recording_sha256": "0" * 64})
    (attempt,) = attempts(log.lines())
    assert (attempt.verdict, attempt.status, attempt.came_of) == (None, None, "never ended")


def test_placebo_and_mutant_runs_are_counted_apart(tmp_path: Path) -> None:
    """They must fail, so their FAIL is no failure of the system."""
    log = RunLog(tmp_path / "runs.jsonl")
    for facts in ({**FACTS, "placebo": True}, {**FACTS, "machines": {"trader": "mutants.ledger:forgets"}}, FACTS):
        log.ended(log.started("run", facts), {"status": "completed", "verdict": "FAIL", "recording_sha256": "0" * 64})
    assert [each.came_of for each in attempts(log.lines())] == ["placebo", "mutant", "FAIL"]


def test_the_chain_holds(log: RunLog) -> None:
    """What is appended verifies."""
    assert verify_runlog(log.file) == []


@freeze_time("2026-04-05 06:07:08")
def test_lines_bear_the_wall_clock(tmp_path: Path) -> None:
    """Each line says when it was written."""
    log = RunLog(tmp_path / "runs.jsonl")
    log.started("run", FACTS)
    assert orjson.loads(log.lines()[0])["utc"] == "2026-04-05T06:07:08Z"


@pytest.mark.parametrize("line", range(5))
def test_a_changed_line_breaks_the_chain_after_it(log: RunLog, line: int) -> None:
    """A FAIL made PASS shows in the next line, which is named (the last one is held by the packs)."""
    lines = log.file.read_bytes().splitlines(keepends=True)
    changed = [*lines[:line], lines[line].replace(b'"d"', b'"x"').replace(b"FAIL", b"PASS").replace(b"run-", b"ran-"),
               *lines[line + 1:]]
    log.file.write_bytes(b"".join(changed))
    found = verify_runlog(log.file)
    assert (f"line {line + 2}" in str(found[0])) if line < 4 else found == []


@pytest.mark.parametrize("line", range(4))
def test_a_removed_line_is_named(log: RunLog, line: int) -> None:
    """Taking a failed attempt out is seen at the line after it."""
    lines = log.file.read_bytes().splitlines(keepends=True)
    log.file.write_bytes(b"".join(lines[:line] + lines[line + 1:]))
    assert f"line {line + 1}" in str(verify_runlog(log.file)[0])


ENDED = {"status": "completed", "verdict": "PASS", "recording_sha256": "0" * 64}


@pytest.mark.parametrize("joined", [False, True])
def test_a_run_ends_once(log: RunLog, tmp_path: Path, joined: bool) -> None:
    """A second word about a run would stand for the first: both in a log of its own and in one that was joined."""
    log.ended(Entry(3, "run-FAIL", log.file.stat().st_ino), ENDED)
    if joined:
        lines, log = log.file.read_bytes().splitlines(), RunLog(tmp_path / "other.jsonl")
        log.join("shard", lines)
    assert "(n=6) ends run-FAIL a second time" in str(verify_runlog(log.file)[0])
    assert check_chain(log.file.read_bytes().splitlines()[4:], None) == []  # a slice that holds one end says nothing of another


def test_a_run_ends_under_its_own_name(log: RunLog) -> None:
    """What never ended is not ended by another run."""
    log.ended(Entry(5, "run-PASS", log.file.stat().st_ino), ENDED)
    assert "(n=6) ends run-PASS, and what began on its line 5 is run-None" in str(verify_runlog(log.file)[0])


def test_a_broken_log_is_not_used(log: RunLog) -> None:
    """Reading it raises, with the file and the line."""
    log.file.write_bytes(log.file.read_bytes().replace(b"FAIL", b"PASS"))
    with pytest.raises(RunLogError, match="runs.jsonl.*line 4"):
        log.lines()


def test_a_torn_line_is_mended_and_said(log: RunLog) -> None:
    """A writer that died within a line announced a run that never began."""
    with log.file.open("ab") as stream:
        stream.write(b'{"event":"star')
    assert "14 bytes of a line" in str(verify_runlog(log.file)[0])
    log.started("next", FACTS)
    assert verify_runlog(log.file) == []
    assert orjson.loads(log.lines()[-1])["mended_bytes"] == 14


def test_own_fields_cannot_be_set(log: RunLog) -> None:
    """No caller can write its own place in the chain."""
    with pytest.raises(RunLogError, match="prev"):
        log.started("run", {"prev": "0" * 64})


def test_side_by_side_writers_make_one_chain(tmp_path: Path) -> None:
    """Four processes append at once, and every line is in the chain."""
    code = ("import sys\nfrom pathlib import Path\nfrom harness.pack.runlog import RunLog\n"
            "log = RunLog(Path(sys.argv[1]))\n"
            "for n in range(25):\n    log.ended(log.started(f'{sys.argv[2]}-{n}', {}), {'verdict': 'PASS'})\n")
    file = tmp_path / "runs.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(file), str(n)]) for n in range(4)]
    assert [each.wait(60) for each in writers] == [0] * 4
    assert verify_runlog(file) == []
    assert len(attempts(RunLog(file).lines())) == 100


@pytest.mark.parametrize("told", ["there", "aside", "sealed", "pruned", "nowhere"])
def test_the_slice_begins_after_the_last_pack_of_that_name(log: RunLog, told: str) -> None:
    """Another phase's pack does not end this phase's slice, nor one that never got its name: no page tells what was tried."""
    manifest = log.file.parent / ("phase2.20260101T000000Z" if told == "aside" else "phase2") / "manifest.json"
    manifest.parent.mkdir()
    manifest.write_bytes(b"{}")
    sha256 = sha256_file(manifest) if told in ("there", "aside") else "1" * 64
    log.packed("phase2", sha256)
    log.packed("phase1", "0" * 64)
    if told == "sealed":
        log.sealed("phase2", sha256_file(manifest))
    if told == "pruned":
        log.pruned("phase2.20260101T000000Z", {"what": "pack", "manifest_sha256": sha256})
    log.packed("phase2", "2" * 64)  # killed before the rename
    log.started("after", FACTS)
    before, _ = log.since_pack("phase2")
    assert len(before) == (0 if told == "nowhere" else 6)
