"""Changes of files come back from the tape, and a look between two slots of a grid stands in for none of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from harness.recording import script
from harness.recording.punctuality import punctuality
from harness.recording.tape import Tape
from harness.recording.timeline import Timeline, Written
from harness.recording.writes import Writes
from harness.session import ROOT
from harness.verdict.judge import judge

DIGEST = hashlib.sha256(b"{}").hexdigest()
STACK = "stack: s\nnodes: {a: {}}\nsurfaces: {nav: {node: a, file: state/nav.json, contract: null, every: 100ms}}\n"


def tape_in(folder: Path) -> Tape:
    tape = Tape(folder)
    (folder / "stack.yaml").write_text(STACK)
    tape.head(world="local", surfaces={"nav": {"every_ms": 100, "node": "a"}})
    return tape


def test_every_change_comes_back(tmp_path: Path) -> None:
    """How it came about, when, and what the file held since, if anybody could read that."""
    tape = tape_in(tmp_path)
    told = [Written("nav", 10, 12, "appeared", 2, DIGEST), Written("nav", 20, 20, "in_place", None, None),
            Written("nav", 20, 22, "replaced", 0, DIGEST), Written("nav", 30, 31, "removed", None, None)]
    for each in told:
        tape.written(each.surface, each.begin, each.end, each.how, each.bytes, each.sha256)  # type: ignore[arg-type]
    tape.seal("completed", {})
    timeline = Timeline.load(tmp_path)
    found = timeline.written("nav")
    assert timeline.damage == [] and [*found] == told and found[1:3] == told[1:3] and found[-1] == told[-1]
    assert len(timeline.written("other")) == 0 and timeline.file_of("nav") == "state/nav.json" and timeline.file_of("x") is None


@pytest.mark.parametrize("change", [
    {"how": "moved"}, {"how": 1}, {"end": 9}, {"end": 2**63}, {"bytes": -1}, {"bytes": None}, {"sha256": None},
    {"sha256": "ab"}, {"sha256": "x" * 64}, {"surface": 7},
])
def test_what_no_watcher_tells_is_damage(tmp_path: Path, change: dict[str, Any]) -> None:
    """Named by its line, and nothing of it is kept."""
    tape = tape_in(tmp_path)
    line = {"surface": "nav", "begin": 10, "end": 12, "how": "replaced", "bytes": 2, "sha256": DIGEST, **change}
    tape._write("written", line)
    tape.written("nav", 20, 21, "replaced", 2, DIGEST)
    tape.seal("completed", {})
    timeline = Timeline.load(tmp_path)
    assert any(each.startswith("line 2 (written) is not what it should be") for each in timeline.damage)
    assert [*timeline.written("nav")] == [Written("nav", 20, 21, "replaced", 2, DIGEST)]


def test_a_day_of_changes_is_small() -> None:
    """57 bytes each: a file that is rewritten every second takes five megabytes a day."""
    writes = Writes("nav")
    for at in range(1_000):
        writes.add(Written("nav", at, at, "replaced", 2, DIGEST))
    assert len(writes._times) * writes._times.itemsize + len(writes._how) + len(writes._digests) == 57 * 1_000


def test_a_look_at_a_change_is_no_slot(tmp_path: Path) -> None:
    """It was never due: it makes nobody punctual, gives the grid no other period, and shows as what it is."""
    tape = tape_in(tmp_path)
    for due, asked, extra in ((100, 130, False), (160, 160, True), (161, 161, True), (200, 200, False)):
        tape.sample("nav", due, asked, asked + 1, {"n": asked}, extra)
    tape.silence("nav", 250, 250, 250, "missing", True)
    tape.raw("nav", 260, 260, 261, 1, b"{", DIGEST, True)
    tape.seal("completed", {})
    timeline = Timeline.load(tmp_path)
    found, samples = punctuality(timeline), timeline.samples("nav")
    assert found.requests == (31, 1) and found.answers == ()
    assert timeline.track("nav").grid.period_ms == 100
    assert [each.extra for each in samples] == [False, True, True, False, True, True]
    assert [each.document and each.document["n"] for each in samples] == [130, 160, 161, 200, None, None]
    assert [each.why for each in samples[4:]] == ["missing", "raw"]


@pytest.mark.parametrize(("extra", "says"), [(True, "1 slots of status are not in the recording"), (False, "densely")])
def test_a_look_at_a_change_makes_up_for_no_missing_slot(tmp_path: Path, extra: bool, says: str) -> None:
    """A slot that is not in the recording is missing, whatever was seen beside it; as a slot it would have filled the hole."""
    told = script.read(ROOT / "fixtures" / "recordings" / "lawful" / "market_data_stale.yaml")
    folder = script.build(told, tmp_path / "run")
    slots = [each for each in Timeline.load(folder).samples("status") if each.document]
    hole = slots[len(slots) // 2]

    class Holed(Tape):
        def sample(self, surface: str, due: int, asked: int, answered: int, document: Any, extra_: bool = False) -> None:
            super().sample(surface, due, asked, answered, document, extra and (surface, due) == ("status", hole.due))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "Tape", Holed)
        folder = script.build(told, tmp_path / "holed")
    said, = (each["says"] for each in judge(folder, ROOT)["premises"] if each["id"] == "sampling")
    assert says in said
