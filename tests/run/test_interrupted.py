"""Ctrl-C and ``kill -9`` in the middle of a real run: nothing of ours is left, and the recording can be read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.recording.tape import read_lines
from harness.world.real import setup

ROOT = Path(__file__).resolve().parent.parent.parent
UP_WITHIN_S = 60
GONE_WITHIN_S = 60
INTO_THE_FAULT_S = 2
"""The fault lasts six seconds: long enough to be well inside it on a busy machine."""


def processes_of(folder: Path) -> list[int]:
    """Living processes whose command line or environment names the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if str(folder).encode() in text and state != "Z":
            found.append(int(entry.name))
    return found


def wait_until(what: object, within_s: float, why: str) -> None:
    """Poll a condition; fail with the reason when it does not come true."""
    end = time.monotonic() + within_s
    while not what():  # type: ignore[operator]
        assert time.monotonic() < end, why
        time.sleep(0.1)


def started(out: Path) -> subprocess.Popen[bytes]:
    """A local run of drill 2, returned while its fault is on."""
    assert setup.find() is not None, f"the Toxiproxy server is needed here: {setup.explain()}"
    process = subprocess.Popen([sys.executable, "-m", "harness.cli", "run", "phase2/2_market_data_stale.yaml", "--world",
                                "local", "--out", str(out)], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                               start_new_session=True)
    assert process.stderr is not None
    for line in process.stderr:
        if b"fault on: feed" in line:
            return process
    pytest.fail("the run ended before its fault")


def recording(out: Path) -> list[dict[str, object]]:
    (folder,) = (out / "runs").iterdir()
    return list(read_lines(folder / "recording.jsonl.gz"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_and_a_sealed_recording(tmp_path: Path, number: signal.Signals) -> None:
    """The run heals, stops its stack, seals as interrupted, and exits with 130."""
    process = started(tmp_path)
    time.sleep(INTO_THE_FAULT_S)
    process.send_signal(number)
    assert process.stderr is not None
    said = process.stderr.read().decode()
    assert process.wait(timeout=100) == 130
    wait_until(lambda: not processes_of(tmp_path), GONE_WITHIN_S, f"left: {processes_of(tmp_path)}")
    lines = recording(tmp_path)
    assert lines[-1]["line"] == "seal" and lines[-1]["status"] == "interrupted", said
    assert "feed.healed" in [line.get("name") for line in lines]


def test_kill_9_of_everything_above_leaves_nothing(tmp_path: Path) -> None:
    """When command and session are both killed, the janitor ends the stack; what was recorded can be read."""
    process = started(tmp_path)
    time.sleep(INTO_THE_FAULT_S)
    sessions = [pid for pid in processes_of(tmp_path)
                if b"harness.session" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert sessions
    os.kill(process.pid, signal.SIGKILL)
    for pid in sessions:
        os.kill(pid, signal.SIGKILL)
    process.wait(timeout=60)
    wait_until(lambda: not processes_of(tmp_path), GONE_WITHIN_S, f"left: {processes_of(tmp_path)}")
    lines = recording(tmp_path)
    assert lines[0]["line"] == "head" and lines[-1]["line"] != "seal"
    assert len(lines) > 20
