"""The main job tries once more what could not be told, and never what failed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from harness import cli, mainjob

DRILLS = ("1_partial_fill_containment", "2_market_data_stale", "3_wal_backpressure")


def came_of(folder: Path, drill: str, verdict: str, status: str = "completed") -> Path:
    """A run folder, as far as the main job reads it."""
    made = folder / f"{drill}-{verdict}-{status}"
    made.mkdir(parents=True)
    (made / "verdict.json").write_text(json.dumps({"drill": drill, "verdict": verdict, "status": status}))
    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the main job asks of the command, which does nothing and ends well."""
    calls: list[list[str]] = []
    monkeypatch.setattr(cli, "main", lambda arguments: calls.append(list(arguments)) or 0)
    monkeypatch.setattr(mainjob, "_see_red", lambda out: 0)
    return calls


@pytest.mark.parametrize(("verdicts", "again"), [
    ([("PASS", "completed"), ("INCONCLUSIVE", "completed"), ("FAIL", "completed")], [DRILLS[1]]),
    ([("INCONCLUSIVE", "aborted"), ("PASS", "completed"), ("INCONCLUSIVE", "completed")], [DRILLS[0], DRILLS[2]]),
    ([("INCONCLUSIVE", "refused"), ("INCONCLUSIVE", "interrupted"), ("FAIL", "aborted")], []),
    ([("PASS", "completed")] * 3, []),
])
def test_what_could_not_be_told_is_run_once_more(verdicts: list[tuple[str, str]], again: list[str], asked: list[list[str]],
                                                 tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """INCONCLUSIVE drills run a second time, one after the other; FAIL, refused and interrupted ones do not."""
    runs = [came_of(tmp_path / "runs", drill, *each) for drill, each in zip(DRILLS, verdicts, strict=True)]
    monkeypatch.setattr(mainjob, "newest_runs", lambda *_: runs)
    monkeypatch.setattr(sys, "argv", ["mainjob", "--world", "local", "--out", str(tmp_path)])
    assert mainjob.main() == 0
    told = [each for each in asked if each[0] == "run"]
    assert [Path(each).stem for each in told[-1] if each.endswith(".yaml")] == again
    assert len(told) == (2 if again else 1) and ("--jobs" in told[-1]) == bool(again)


def test_the_simulator_is_never_asked_twice(asked: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An equal run there has an equal end."""
    monkeypatch.setattr(sys, "argv", ["mainjob", "--world", "sim", "--out", str(tmp_path)])
    assert mainjob.main() == 0
    assert [each[0] for each in asked].count("run") == 1


def test_a_run_without_a_verdict_is_none_to_repeat(tmp_path: Path) -> None:
    """What was cut off before it was judged says nothing here; the pack names it."""
    assert mainjob._verdict(tmp_path) == {}
    (tmp_path / "verdict.json").write_text("{")
    assert mainjob._verdict(tmp_path) == {}
