"""What a run tells the process that started it, so that a rehearsal judges each recording once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pack_kit import REPOSITORY

from harness.pack import derive, told
from harness.pack.build import build
from harness.pack.manifest import verify
from harness.session import TOLD, Order, conduct
from harness.verdict.judge import judge

DRILL = REPOSITORY / "bench" / "trivial.yaml"
STACK = REPOSITORY / "system_under_test" / "stack.yaml"


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that the real judge judges from now on."""
    found: list[Path] = []

    def counting(folder: Path, *others: Any) -> dict[str, Any]:
        found.append(folder)
        return judge(folder, *others)

    monkeypatch.setattr(derive, "judge", counting)
    return found


@pytest.fixture
def run(judged: list[Path], tmp_path: Path) -> Path:
    """A run that told its chapter, and was heard."""

    def progress(word: str, facts: Mapping[str, Any]) -> None:
        if word == TOLD:
            told.hear(facts["inputs"], facts["chapter"])

    order = Order(str(DRILL), "sim", 1, str(STACK), "drill", str(tmp_path / "runs"), tell=True)
    folder = Path(conduct(order, progress).recording)
    assert judged == [folder]
    judged.clear()
    return folder


def test_what_was_told_is_what_judging_gives(run: Path, judged: list[Path], tmp_path: Path) -> None:
    """Packed without judging again; whoever verifies judges, and finds every byte of the pack to be as judged."""
    made = build([run], 2, tmp_path, REPOSITORY)
    assert judged == []
    assert (made / "incident_drills/drill_trivial/verdict.json").read_bytes() == (run / "verdict.json").read_bytes()
    derive._KNOWN.clear()  # as in another process
    assert verify(made) == [] and len(judged) == 1


def test_it_is_believed_once(run: Path, judged: list[Path], tmp_path: Path) -> None:
    """A second pack of the same run is judged."""
    build([run], 2, tmp_path, REPOSITORY)
    derive._KNOWN.clear()
    build([run], 2, tmp_path, REPOSITORY)
    assert len(judged) == 1


@pytest.mark.parametrize("file", ["versions.json", "recording.jsonl.gz", "streams/notes.jsonl"])
def test_one_other_byte_is_judged(run: Path, judged: list[Path], file: str) -> None:
    """What was told holds for the bytes that the run left, and for no others."""
    rules = {"specs/events.yaml": "1"}
    before = told.inputs_sha256(run, rules)
    (run / file).write_bytes((run / file).read_bytes() + b" ")
    assert told.inputs_sha256(run, rules) != before
    derive._chapter(run, REPOSITORY, told.inputs_sha256(run, rules))
    assert judged == [run]


def test_other_rules_are_other_inputs(run: Path) -> None:
    """A verdict is by its rules."""
    assert len({told.inputs_sha256(run, rules) for rules in ({}, {"a": "1"}, {"a": "2"}, {"b": "1"})}) == 4
