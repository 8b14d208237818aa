"""The reference trader on a disk that is full, slow or refusing, that tears a record or loses what was not synced.

The laws that every verdict holds (recorded before dispatched, nothing durable lost, every fill once) are what is
tested here; the sabotaged trader shows that they can fail.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_kit import DRILLS, failed, lines, order, run

KINDS = tuple(sorted(file.stem for file in DRILLS.glob("disk_*.yaml")))
SEEDS = (1, 2, 3, 4, 5, 6)


def test_every_kind_of_disk_trouble_is_drilled() -> None:
    """All that a simulated disk can do beside stalling, which drill 3 does."""
    assert KINDS == ("disk_full", "disk_refuse", "disk_slow", "disk_torn", "disk_unsynced")


@pytest.mark.parametrize("name", KINDS)
def test_nothing_durable_is_lost_and_nothing_happens_twice(tmp_path: Path, name: str) -> None:
    """Over several seeds: never a FAIL. A crash that finds everything synced loses nothing, and then proves nothing."""
    results = [run(order(name, tmp_path, seed=seed, policy="drill")) for seed in SEEDS]
    assert [failed(result) for result in results] == [set()] * len(SEEDS)
    decided = [result for result in results if result.verdict == "PASS"]
    assert len(decided) >= (2 if name == "disk_unsynced" else len(SEEDS)), [result.says for result in results]
    for result in results:
        if result.verdict != "PASS":
            assert any("landed:disk" in sentence and "disk.lost_bytes" in sentence for sentence in result.says)


@pytest.mark.parametrize(("name", "sabotage", "caught_by"), [
    ("disk_unsynced", "sends_before_durable", {"recorded_before_dispatched", "nothing_durable_lost"}),
    ("disk_unsynced", "calls_cached_durable", {"recorded_before_dispatched", "nothing_durable_lost"}),
])
def test_a_trader_that_does_not_wait_for_its_disk_is_caught(tmp_path: Path, name: str, sabotage: str,
                                                             caught_by: set[str]) -> None:
    """What left before it was durable is missed after the crash, in some seed at least."""
    seen = set()
    for seed in SEEDS:
        seen |= failed(run(order(name, tmp_path, seed=seed, policy="drill",
                                 machines={"trader": f"system_under_test.mutants.ledger:{sabotage}"})))
    assert seen & caught_by, seen


def test_a_torn_tail_is_found_and_cut_off(tmp_path: Path) -> None:
    """The next life says how many bytes it found torn, and the sealed ledger has none."""
    result = run(order("disk_torn", tmp_path, policy="drill"))
    lost = [line["value"] for line in lines(result.recording, "probe") if line["what"] == "disk.lost_bytes"]
    assert max(lost) > 0
    assert lines(result.recording, "seal")[0]["streams"]["ledger"]["torn_bytes"] == 0
