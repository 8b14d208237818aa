"""``run --again``: what could not be told is tried once more, and nothing else is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from harness import cli
from harness.session import Order, Result

DRILLS = ["2_market_data_stale", "3_wal_backpressure", "11_clock_drift"]
Came = tuple[str, str]


@pytest.mark.parametrize(("first", "second", "tried", "code"), [
    ([("PASS", "completed")] * 3, [], [], 0),
    ([("PASS", "completed"), ("INCONCLUSIVE", "completed"), ("PASS", "completed")], [("PASS", "completed")], [DRILLS[1]], 0),
    ([("INCONCLUSIVE", "aborted"), ("FAIL", "completed"), ("INCONCLUSIVE", "completed")],
     [("PASS", "completed"), ("INCONCLUSIVE", "completed")], [DRILLS[0], DRILLS[2]], 1),
    ([("INCONCLUSIVE", "refused")] + [("PASS", "completed")] * 2, [], [], 3),
    ([("PASS", "completed")] * 2 + [("INCONCLUSIVE", "completed")], [("FAIL", "completed")], [DRILLS[2]], 1),
    ([("PASS", "completed")] * 2 + [("INCONCLUSIVE", "completed")], [("INCONCLUSIVE", "completed")], [DRILLS[2]], 3)])
def test_only_what_could_not_be_told_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first: list[Came],
                                                    second: list[Came], tried: list[str], code: int) -> None:
    """One by one and once; a FAIL and a refusal stand, and what came of the second attempt counts."""
    asked: list[tuple[list[str], int]] = []
    answers = [first, second]

    class Fleet:
        interrupted, errors = False, ()

        def __init__(self, orders: Sequence[Order], jobs: int, watcher: object) -> None:
            self.orders = orders
            asked.append(([Path(each.drill).stem for each in orders], jobs))

        def run(self) -> list[Result]:
            return [Result(Path(each.drill).stem, "sim", status, verdict, None, "", "", 1, False, ())
                    for each, (verdict, status) in zip(self.orders, answers.pop(0), strict=True)]

    monkeypatch.setattr("harness.fleet.Fleet", Fleet)
    assert cli.main(["run", *DRILLS, "--world", "sim", "--jobs", "4", "--again", "--out", str(tmp_path)]) == code
    assert asked == [(DRILLS, 4), *([(tried, 1)] if tried else [])]
