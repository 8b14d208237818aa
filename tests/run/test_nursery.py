"""Runs of the sim that are forked from a nursery are runs like any other: same bytes, same ends, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from harness.fleet import Fleet
from harness.recording.tape import read_lines
from harness.session import ROOT, Order

WITHIN_S = 60


def order(runs: Path, seed: int = 1) -> Order:
    return Order(str(ROOT / "drills/phase2/4_crash_restart_mid_flight.yaml"), "sim", seed,
                 str(ROOT / "system_under_test/stack.yaml"), "drill", str(runs))


class Silent:
    """A watcher that only notes the words."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def __call__(self, index: int, word: str, facts: Mapping[str, Any]) -> None:
        self.words.append(word)

    def tick(self) -> None:
        """Nothing to show."""

    def stopping(self, how: str) -> None:
        self.words.append("stopping")

    def close(self) -> None:
        """Nothing to close."""


def nursery() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "harness.nursery", str(os.getpid())], cwd=ROOT,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def ask(process: subprocess.Popen[bytes], asked: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(asked + b"\n")
    process.stdin.flush()


def heard(process: subprocess.Popen[bytes], until: str) -> list[dict[str, Any]]:
    """Everything that is said up to the first line that has this key or is this word of progress."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(orjson.loads(line))
        if until in said[-1] or said[-1].get("progress") == until:
            return said
    raise AssertionError(f"it ended without {until}: {said[-3:]}")


def child_of(process: subprocess.Popen[bytes]) -> int:
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


def test_one_nursery_serves_many_and_writes_what_a_session_writes(tmp_path: Path) -> None:
    """The second run of a slot is not coloured by the first: it equals the one of a session that began from nothing."""
    fleet = Fleet([order(tmp_path / "a/runs", 2), order(tmp_path / "a/runs", 1)], 1, Silent())
    forked = fleet.run()
    subprocess.run([sys.executable, "-m", "harness.session", orjson.dumps(asdict(order(tmp_path / "b/runs"))).decode(),
                    str(os.getpid())], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=WITHIN_S)
    assert [each.verdict for each in forked] == ["PASS", "PASS"]
    alone = tmp_path / "b/runs" / forked[1].run_id
    assert list(read_lines(alone / "recording.jsonl.gz")) == list(read_lines(Path(forked[1].recording) / "recording.jsonl.gz"))
    assert fleet.errors == []


def test_a_killed_run_ends_alone(tmp_path: Path) -> None:
    """The nursery says by which signal, and carries out the next order."""
    process = nursery()
    asked = orjson.dumps(asdict(order(tmp_path / "runs")))
    ask(process, asked)
    heard(process, "starting")
    os.kill(child_of(process), signal.SIGKILL)
    assert heard(process, "ended")[-1] == {"ended": -signal.SIGKILL}
    ask(process, asked)
    assert heard(process, "result")[-1]["result"]["verdict"] == "PASS"
    process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0


def test_a_nursery_that_is_told_to_end_hands_it_on(tmp_path: Path) -> None:
    """A run under way is interrupted in order and sealed; a nursery at rest just ends."""
    process = nursery()
    ask(process, orjson.dumps(asdict(order(tmp_path / "runs"))))
    heard(process, "given")
    process.send_signal(signal.SIGTERM)
    result = heard(process, "result")[-1]["result"]
    assert result["status"] == "interrupted"
    assert list(read_lines(Path(result["recording"]) / "recording.jsonl.gz"))[-1]["line"] == "seal"
    heard(process, "ended")
    process.send_signal(signal.SIGTERM)
    assert process.wait(WITHIN_S) == 128 + signal.SIGTERM


def test_an_order_that_cannot_be_read_is_an_error_of_the_run(tmp_path: Path) -> None:
    """Nothing can be imported ahead for it, and the nursery lives on."""
    process = nursery()
    ask(process, orjson.dumps(asdict(order(tmp_path / "runs"))).replace(b"stack.yaml", b"no_such.yaml"))
    said = heard(process, "ended")
    assert any("no_such.yaml" in str(each.get("error")) for each in said)
    process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0
