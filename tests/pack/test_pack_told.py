"""What a run tells the process that started it, so that a rehearsal judges each recording once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pack_kit import REPOSITORY

from harness import session
from harness.pack import derive, told
from harness.pack.build import build
from harness.pack.listing import encode
from harness.pack.manifest import verify
from harness.session import TOLD, Order, Result, conduct
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
    monkeypatch.setattr("harness.verdict.judge.judge", counting)
    return found


def telling(runs: Path) -> tuple[Result, list[Mapping[str, Any]]]:
    """A run that was asked to tell its chapter, and what it told."""
    heard: list[Mapping[str, Any]] = []
    order = Order(str(DRILL), "sim", 1, str(STACK), "drill", str(runs), tell=True)
    return conduct(order, lambda word, facts: heard.append(facts) if word == TOLD else None), heard


@pytest.fixture
def told_of(judged: list[Path], tmp_path: Path) -> tuple[Path, Mapping[str, Any]]:
    """A run's folder, and its chapter as it was told; not yet heard."""
    result, (facts,) = telling(tmp_path / "runs")
    assert judged == [Path(result.recording)]
    judged.clear()
    return Path(result.recording), facts


@pytest.fixture
def run(told_of: tuple[Path, Mapping[str, Any]]) -> Path:
    """A run that told its chapter, and was heard."""
    told.hear(told_of[1]["inputs"], told_of[1]["chapter"], "PASS")
    return told_of[0]


def test_what_was_told_is_what_judging_gives(run: Path, judged: list[Path], tmp_path: Path) -> None:
    """Packed without judging again; whoever verifies judges, and finds every byte of the pack to be as judged."""
    made = build([run], 2, tmp_path, REPOSITORY)
    assert judged == []
    assert (made / "incident_drills/drill_trivial/verdict.json").read_bytes() == (run / "verdict.json").read_bytes()
    assert verify(made) == [] and len(judged) == 1


def test_it_is_believed_once(run: Path, judged: list[Path], tmp_path: Path) -> None:
    """A second pack of the same run is judged."""
    build([run], 2, tmp_path, REPOSITORY)
    build([run], 2, tmp_path, REPOSITORY)
    assert len(judged) == 1


@pytest.mark.parametrize("file", ["versions.json", "recording.jsonl.gz", "streams/notes.jsonl"])
def test_of_one_other_byte_nothing_was_told(run: Path, file: str) -> None:
    """What was told holds for the bytes that the run left, and for no others."""
    rules = {"specs/events.yaml": "1"}
    before = told.inputs_sha256(run, rules)
    (run / file).write_bytes((run / file).read_bytes() + b" ")
    assert told.inputs_sha256(run, rules) != before
    assert told.recall(told.inputs_sha256(run, rules)) is None


def test_other_rules_are_other_inputs(run: Path) -> None:
    """A verdict is by its rules."""
    assert len({told.inputs_sha256(run, rules) for rules in ({}, {"a": "1"}, {"a": "2"}, {"b": "1"})}) == 4


def turned(chapter: str) -> str:
    """The same chapter with the opposite verdict, wherever it says one."""
    honest = msgspec.json.decode(chapter, type=derive.Chapter)
    lie = {**honest.verdict, "verdict": "FAIL"}
    return msgspec.json.encode(replace(honest, verdict=lie, files={**honest.files, "verdict.json": encode(lie)})).decode()


def test_whoever_verifies_believes_nothing(told_of: tuple[Path, Mapping[str, Any]], judged: list[Path], tmp_path: Path) -> None:
    """Of a pack that was made of a lie every verification finds the lie, in the process that was told it too."""
    run, facts = told_of
    told.hear(facts["inputs"], turned(facts["chapter"]), "FAIL")
    made = build([run], 2, tmp_path, REPOSITORY)
    assert judged == [] and b"FAIL" in (made / "incident_drills/drill_trivial/verdict.json").read_bytes()
    told.hear(facts["inputs"], turned(facts["chapter"]), "FAIL")
    assert "incident_drills/drill_trivial/verdict.json" in {each.path for each in verify(made)}
    assert len(judged) == 1
    assert told.recall(facts["inputs"]) is not None  # nobody took it


def test_a_chapter_of_another_verdict_than_the_run_s_is_not_believed(told_of: tuple[Path, Mapping[str, Any]]) -> None:
    """The run's own result says PASS; what it told says FAIL."""
    told.hear(told_of[1]["inputs"], turned(told_of[1]["chapter"]), "PASS")
    assert told.recall(told_of[1]["inputs"]) is None


@pytest.mark.parametrize(("inputs", "chapter"), [
    (None, None), ("ab" * 32, None), ("ab" * 32, "no JSON"), ("ab" * 32, "[]"), ("ab" * 32, '{"verdict": "PASS"}'),
    (["ab" * 32], '{"verdict": {"verdict": "PASS"}}'), ("ab" * 32, {"verdict": {"verdict": "PASS"}})])
def test_what_is_no_chapter_is_not_remembered(inputs: Any, chapter: Any) -> None:
    """Nor does it end whoever heard it."""
    told.hear(inputs, chapter, "PASS")
    assert told.recall("ab" * 32) is None


def test_half_a_chapter_is_judged(told_of: tuple[Path, Mapping[str, Any]], judged: list[Path], tmp_path: Path) -> None:
    """A verdict alone makes no pages."""
    run, facts = told_of
    told.hear(facts["inputs"], '{"verdict": {"verdict": "PASS"}}', "PASS")
    assert verify(build([run], 2, tmp_path, REPOSITORY)) == [] and judged


def test_rules_that_changed_meanwhile_are_not_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The run's head names the rules of its start; a verdict by others is not a verdict by them."""
    digests = iter([session.rules_digests(session.ROOT), {"specs/events.yaml": "another"}])
    monkeypatch.setattr(session, "rules_digests", lambda _root: next(digests))
    result, heard = telling(tmp_path / "runs")
    assert result.verdict == "PASS" and heard == []


def test_a_chapter_that_cannot_be_told_costs_no_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The verdict and its line in the run log stand; whoever packs the run meets what is wrong with its chapter."""

    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("harness.pack.chapter.chapter", broken)
    monkeypatch.setattr(derive, "chapter", broken)
    result, heard = telling(tmp_path / "runs")
    assert result.verdict == "PASS" and heard == []
    assert (Path(result.recording) / "verdict.json").is_file()
    assert '"event":"ended"' in (tmp_path / "runs.jsonl").read_text().replace('": ', '":')
