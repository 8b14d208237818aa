"""What a fleet hears of its runs: whatever a machine prints, or a run says wrongly, decides nothing and ends nothing."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from harness import fleet as room
from harness.fleet import Fleet
from harness.pack import told
from harness.session import ROOT, Order, Result

ORDER = Order("drills/phase2/1.yaml", "docker", 1, "stack.yaml", "drill", "runs")
RESULT = asdict(Result("1", "docker", "completed", "PASS", 5, "runs/1", "1", 1, False, ()))
INPUTS = "ab" * 32
CHAPTER = {"progress": "told", "inputs": INPUTS, "chapter": '{"verdict": {"verdict": "PASS"}}'}


class Heard:
    """A watcher that notes all it is told."""

    def __init__(self) -> None:
        self.words: list[tuple[str, Mapping[str, Any]]] = []

    def __call__(self, index: int, word: str, facts: Mapping[str, Any]) -> None:
        self.words.append((word, facts))

    def tick(self) -> None:
        """Nothing to show."""

    def stopping(self, how: str) -> None:
        """Nobody stops it."""

    def close(self) -> None:
        """Nothing to close."""

    @property
    def said(self) -> list[str]:
        return [facts["text"] for word, facts in self.words if word == "said"]


def fleet_of(lines: Sequence[bytes], monkeypatch: pytest.MonkeyPatch, order: Order = ORDER,
             code: int = 0) -> tuple[Fleet, Heard]:
    """A fleet of one run, a session of its own that says these lines and ends."""
    session = SimpleNamespace(stdout=io.BytesIO(b"\n".join(lines) + b"\n"), wait=lambda: code)
    monkeypatch.setattr(room.subprocess, "Popen", lambda *_, **__: session)
    heard = Heard()
    return Fleet([order], 1, heard), heard


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "_TOLD", {})


@pytest.mark.parametrize("line", [
    b"a print", b"[1]", b"3", b"null", b'"result"', b"{}", b'{"a": 1}', b'{"progress": 3}', b'{"progress": ["told"]}',
    b"[" * 2_000, b'{"progress": "done"}',
    b'{"result": 1}', b'{"result": {}}', b'{"result": {"verdict": "PASS"}}', b'{"ended": "now"}',
    b'{"error": 3}', b'{"error": "x", "code": "y"}', b'{"result": null, "ended": null}',
    orjson.dumps({"result": {**RESULT, "says": 3}}), orjson.dumps({"result": {**RESULT, "verdict": ["PASS"]}})])
def test_a_line_that_is_no_event_is_shown_and_no_more(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on, and its result is its own."""
    fleet, heard = fleet_of([line, orjson.dumps({"result": RESULT})], monkeypatch)
    assert [each.verdict for each in fleet.run()] == ["PASS"]
    assert heard.said == [line.decode()] and fleet.errors == []


def test_what_nobody_asked_for_is_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run tells its chapter when its order says so."""
    fleet_of([orjson.dumps(CHAPTER), orjson.dumps({"result": RESULT})], monkeypatch)[0].run()
    assert told.recall(INPUTS) is None


@pytest.mark.parametrize(("verdict", "believed"), [("PASS", True), ("FAIL", False)])
def test_a_chapter_is_believed_with_its_run_s_verdict(verdict: str, believed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it tells must be what its result says."""
    lines = [orjson.dumps(CHAPTER), orjson.dumps({"result": {**RESULT, "verdict": verdict}})]
    fleet_of(lines, monkeypatch, replace(ORDER, tell=True))[0].run()
    assert (told.recall(INPUTS) is not None) is believed


def test_a_chapter_without_a_result_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever said no verdict has none to tell of."""
    fleet, _ = fleet_of([orjson.dumps(CHAPTER)], monkeypatch, replace(ORDER, tell=True))
    assert [each.verdict for each in fleet.run()] == ["INCONCLUSIVE"] and told.recall(INPUTS) is None


@pytest.mark.parametrize("facts", [{}, {"inputs": 3}, {"inputs": INPUTS}, {"inputs": [], "chapter": {}},
                                   {"inputs": INPUTS, "chapter": "[]"}])
def test_half_a_chapter_ends_nothing(facts: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is passed over."""
    lines = [orjson.dumps({"progress": "told", **facts}), orjson.dumps({"result": RESULT})]
    fleet, _ = fleet_of(lines, monkeypatch, replace(ORDER, tell=True))
    assert [each.verdict for each in fleet.run()] == ["PASS"] and told.recall(INPUTS) is None


@pytest.mark.parametrize("code", [-9, -40, 3])
def test_a_session_that_is_lost_says_how(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal without a name is told by its number."""
    (result,) = fleet_of([], monkeypatch, code=code)[0].run()
    assert {-9: "SIGKILL", -40: "signal 40", 3: "code 3"}[code] in result.says[0]


def test_what_a_machine_prints_is_no_event(tmp_path: Path, capfd: pytest.CaptureFixture[str],
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """In the sim machines share their session's process; its standard output is not where events go."""
    order = Order(str(ROOT / "bench/trivial.yaml"), "sim", 1, str(ROOT / "system_under_test/stack.yaml"), "drill",
                  str(tmp_path / "runs"), machines={"trader": "loud_machine:make"})
    heard = Heard()
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{Path(__file__).parent}")
    fleet = Fleet([order], 1, heard)
    (result,) = fleet.run()
    assert result.drill == "trivial" and result.verdict == "PASS" and fleet.errors == []
    assert heard.said == [] and "told" not in [word for word, _ in heard.words]
    out, err = capfd.readouterr()
    assert out == "" and '{"result": 1}' in err and '{"ended": 0}' in err
