"""The reference trader killed before a named effect: nothing twice, nothing opened before reconciling, in both worlds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fault_kit import DRILLS, command, lines, order, rows, run

from harness.drill.grammar import CRASH_POINTS
from harness.world.real import setup

POINTS = tuple(sorted(file.stem for file in DRILLS.glob("crash_before_*.yaml")))
QUICK = tuple(name for name in POINTS if name != "crash_before_replace")
"""The trader replaces its small file once a minute: long for a real clock, where the toy stack's own is replaced
(`harness.world.conformance`); with this trader the sim waits for it."""


def trap(recording: str) -> list[Any]:
    return [line["value"] for line in lines(recording, "probe") if line["what"] == "trap.hit"]


def test_every_meaning_of_a_crash_point_is_drilled() -> None:
    """send, append, replace, request."""
    assert {f"crash_before_{meaning}" for meaning in CRASH_POINTS} == {*POINTS}


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", POINTS)
def test_in_the_sim(tmp_path: Path, name: str, seed: int) -> None:
    """The trap is sprung, and everything that was promised is kept."""
    result = run(order(name, tmp_path, seed=seed, policy="drill"))
    assert (result.status, result.verdict) == ("completed", "PASS"), result.says
    assert True in trap(result.recording)


def test_with_real_processes(tmp_path: Path) -> None:
    """The same drills, unchanged: the process stops itself before the effect and is killed there."""
    assert setup.find() is not None, f"the Toxiproxy server is needed here: {setup.explain()}"
    code, said = command(tmp_path, "local", *QUICK)
    assert [(each["status"], each["verdict"]) for each in said] == [("completed", "PASS")] * len(QUICK), said
    assert all(True in trap(each["recording"]) for each in said)
    assert code == 0


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_what_lies_behind_the_crash_point_never_happened(tmp_path: Path, seed: int) -> None:
    """Killed before the second order: one order reached the exchange since arming, and the second is in the ledger."""
    result = run(order("crash_before_send", tmp_path, seed=seed, policy="drill"))
    seen = result.recording
    reading = next(line for line in lines(seen, "clock") if line["node"] == "exchange")
    shift = reading["asked"] - reading["mono"]
    armed = next(line["begin"] for line in lines(seen, "act") if line["id"] == "crash" and line["step"] == "applied")
    healed = next(line["begin"] for line in lines(seen, "mark") if line["name"] == "crash.healed")
    bought = [row for row in rows(seen, "books") if row["kind"] == "request" and row["method"] == "private/buy"
              and armed <= row["at"] + shift < healed]
    assert len(bought) == 1
