"""Undo before fault: what was written down can be taken back by anyone, twice, and touches nobody else."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import NotHealed, UsageError
from harness.recording.sole import alone
from harness.world.real import streams
from harness.world.real.processes import MARKER, Process, end_all, group, marked
from harness.world.real.undo import LIFE, Undo, UndoLog, leftovers, recover, standing, undo

SLEEPER = [sys.executable, "-c", "import time\nwhile True: time.sleep(60)"]
NOBODY = {"pid": 2, "start": 1}


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(SLEEPER, env={**os.environ, MARKER: f"test.{os.getpid()}"}, start_new_session=True)
    yield process
    process.kill()
    process.wait()


def identity(process: subprocess.Popen[bytes]) -> Process:
    found = Process.of(process.pid)
    assert found is not None
    return found


def state_becomes(process: Process, state: str | None) -> bool:
    deadline = time.monotonic() + 20
    while process.state != state and time.monotonic() < deadline:
        time.sleep(0.005)
    return process.state == state


def dead_run(folder: Path, marker: str) -> UndoLog:
    """The undo log of a run whose harness is gone."""
    log = UndoLog(folder)
    log.will("run", LIFE, harness=NOBODY, marker=marker)
    return log


def test_an_entry_is_on_the_disk_before_the_act(tmp_path: Path) -> None:
    """``will`` returns when the line can be read by another process; ``done`` takes it off the list."""
    log = UndoLog(tmp_path)
    entry = log.will("feed", "remove_toxics", server=NOBODY, proxy="feed", toxics=["feed.downstream"])
    assert standing(tmp_path) == (entry,)
    log.done(entry, "removed")
    assert standing(tmp_path) == ()


def test_a_torn_last_line_is_passed_over(tmp_path: Path) -> None:
    """A harness that died while writing had not acted yet."""
    log = UndoLog(tmp_path)
    entry = log.will("a", "start_again", node="trader")
    with log.file.open("ab") as file:
        file.write(b'{"n": 1, "id": "b", "verb": "res')
    assert standing(tmp_path) == (entry,)


def test_resume_wakes_the_very_process(sleeper: subprocess.Popen[bytes]) -> None:
    """Identity is pid and start time: a namesake is left alone."""
    process = identity(sleeper)
    process.send(signal.SIGSTOP)
    assert state_becomes(process, "T")
    stranger = {"pid": process.pid, "start": process.start + 1}
    assert undo(Undo(0, "x", "resume", {"processes": [stranger]})) == {"resumed": 0}
    assert process.state == "T"
    assert undo(Undo(0, "x", "resume", {"processes": [process.to_json()]})) == {"resumed": 1}
    assert state_becomes(process, "S")


def test_a_file_limit_is_lifted_to_what_it_was(sleeper: subprocess.Popen[bytes]) -> None:
    """The soft limit comes back, the hard one was never touched, and twice is the same as once."""
    process = identity(sleeper)
    soft, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, hard))
    entry = Undo(0, "x", "lift_file_limit", {"process": process.to_json(), "soft": soft})
    assert undo(entry) == undo(entry) == "lifted"
    assert resource.prlimit(process.pid, resource.RLIMIT_FSIZE) == (soft, hard)


def test_undoing_what_is_gone_is_done_already(tmp_path: Path) -> None:
    """Server, node or process gone: each verb finds that nothing stands."""
    for verb, args in (
        ("remove_toxics", {"server": {**NOBODY, "host": "127.0.0.1", "port": 9}, "proxy": "a", "toxics": ["t"]}),
        ("enable_proxy", {"server": {**NOBODY, "host": "127.0.0.1", "port": 9}, "proxy": "a"}),
        ("lift_file_limit", {"process": NOBODY, "soft": -1}),
        ("switch_off", {"url": "http://127.0.0.1:9/switches/x", "process": NOBODY}),
        ("true_clock", {"file": str(tmp_path / "gone" / "clock")}),
        ("start_again", {"node": "trader", "build": None}),
        ("leave_file", {"file": str(tmp_path / "gone" / "files" / "nav.json")}),
        ("keep_streams", {"folder": str(tmp_path), "nodes": str(tmp_path / "gone"), "sources": {}}),
        (LIFE, {"harness": NOBODY, "marker": "nobody carries this"}),
    ):
        undo(Undo(0, "x", verb, args))


def test_an_unknown_verb_is_told() -> None:
    """A line that a newer version wrote is no reason for silence."""
    with pytest.raises(NotHealed, match="fly"):
        undo(Undo(0, "x", "fly", {}))


def test_recover_ends_what_carries_the_marker_and_nobody_else(tmp_path: Path) -> None:
    """Stopped or not, child or grandchild, a marked process ends; an unmarked one lives."""
    marker = f"marker.{os.getpid()}"
    stranger = subprocess.Popen(SLEEPER, start_new_session=True)
    parent = subprocess.Popen([sys.executable, "-c", f"import subprocess, time\nsubprocess.Popen({SLEEPER!r}, "
                               "start_new_session=True)\ntime.sleep(60)"], env={**os.environ, MARKER: marker})
    try:
        deadline = time.monotonic() + 30
        while len(marked(marker)) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        found = marked(marker)
        assert len(found) == 2
        for each in found:
            each.send(signal.SIGSTOP)
        dead_run(tmp_path / "runs" / "one", marker).close()
        assert leftovers(tmp_path / "runs") == [tmp_path / "runs" / "one"]
        undone = recover(tmp_path / "runs" / "one")
        assert [each.verb for each in undone] == [LIFE]
        assert not any(each.alive for each in found)
        assert stranger.poll() is None
        assert leftovers(tmp_path / "runs") == []
        assert recover(tmp_path / "runs" / "one") == ()
    finally:
        end_all(tuple(process for each in (stranger, parent) if (process := Process.of(each.pid))))
        stranger.wait()
        parent.wait()


def test_a_harness_that_died_before_it_could_say_who_it_is_is_helped_too(tmp_path: Path) -> None:
    """Its folders go as soon as nobody holds the lock on the run, and not before."""
    folder = tmp_path / "runs" / "early"
    (folder / "nodes").mkdir(parents=True)
    UndoLog(folder).will("streams", "keep_streams", folder=str(folder), nodes=str(folder / "nodes"), sources={})
    with alone(folder):
        assert leftovers(tmp_path / "runs") == []
    assert leftovers(tmp_path / "runs") == [folder]
    recover(folder)
    assert not (folder / "nodes").exists()
    assert leftovers(tmp_path / "runs") == []


def test_a_run_that_goes_on_is_not_recovered(tmp_path: Path) -> None:
    """Another harness's live run is no leftover, and recovering it by hand is refused."""
    log = UndoLog(tmp_path / "runs" / "live")
    own = Process.of(os.getpid())
    assert own is not None
    log.will("run", LIFE, harness=own.to_json(), marker="live")
    assert leftovers(tmp_path / "runs") == []
    with pytest.raises(UsageError, match="still running"):
        recover(tmp_path / "runs" / "live")


def test_recover_goes_on_after_what_resists(tmp_path: Path) -> None:
    """One act that cannot be taken back is told, and the others are taken back all the same."""
    folder = tmp_path / "run"
    log = dead_run(folder, "nobody carries this either")
    log.will("odd", "fly")
    with pytest.raises(NotHealed, match="fly"):
        recover(folder)
    assert [each.verb for each in standing(folder)] == ["fly"]


def test_recover_needs_a_run_folder(tmp_path: Path) -> None:
    """A wrong path is the person's to mend."""
    with pytest.raises(UsageError, match="no run folder"):
        recover(tmp_path)


def test_a_zombie_counts_as_gone() -> None:
    """A killed process that its parent has not reaped is dead."""
    process = subprocess.Popen(SLEEPER)
    found = identity(process)
    os.kill(process.pid, signal.SIGKILL)
    try:
        assert state_becomes(found, None)
        assert Process.of(process.pid) is None
        assert found not in group(os.getpgid(process.pid))
    finally:
        process.wait()


def framed(payload: bytes) -> bytes:
    import zlib

    return b"%08x " % zlib.crc32(payload) + payload + b"\n"


def test_streams_are_kept_up_to_the_first_bad_line(tmp_path: Path) -> None:
    """Framing is removed; what was torn or altered ends the stream and is counted."""
    log = tmp_path / "nodes" / "exchange" / "logs" / "books.log"
    log.parent.mkdir(parents=True)
    good = framed(b'{"at":1}') + framed(b'{"at":2}')
    log.write_bytes(good + framed(b'{"at":3}').replace(b"3", b"4", 1) + framed(b'{"at":5}'))
    kept = streams.keep(tmp_path, tmp_path / "nodes", {"books": {"node": "exchange", "path": "logs/books.log",
                                                                 "framing": "crc32"},
                                                       "notes": {"node": "trader", "path": "notes.jsonl",
                                                                 "framing": "lines"}})
    assert (tmp_path / "streams" / "books.jsonl").read_bytes() == b'{"at":1}\n{"at":2}\n'
    assert (kept["books"]["n"], kept["books"]["torn_bytes"]) == (2, log.stat().st_size - len(good))
    assert (kept["notes"]["n"], kept["notes"]["torn_bytes"], kept["notes"]["absent"]) == (0, 0, True)
    assert "absent" not in kept["books"]


def test_a_secret_is_found_in_whatever_disguise(tmp_path: Path) -> None:
    """Plain, in base64 at any offset, and inside the recording's gzip; the nodes' own folders are no record."""
    import base64
    import gzip

    secret = "s3cr3t-0123456789abcdef"
    (tmp_path / "a.log").write_text(f"token={secret}")
    for shift in range(3):
        (tmp_path / f"b{shift}.log").write_bytes(b"Basic " + base64.b64encode(b"x" * shift + secret.encode() + b"tail"))
    with gzip.open(tmp_path / "recording.jsonl.gz", "wb") as file:
        file.write(json.dumps({"saw": secret}).encode())
    (tmp_path / "clean.log").write_text("nothing to see")
    (tmp_path / "nodes").mkdir()
    (tmp_path / "nodes" / "own").write_text(secret)
    found = streams.leaks(tmp_path, {"CANARY": secret}, "nodes")
    assert [each["file"] for each in found] == ["a.log", "b0.log", "b1.log", "b2.log", "recording.jsonl.gz"]
