"""What a page tells of a recording is what the judge read of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pack_kit import REPOSITORY

from harness.pack.story import Story, read_story
from harness.recording import script
from harness.recording.timeline import Timeline

LAWFUL = REPOSITORY / "fixtures/recordings/lawful/market_data_stale.yaml"


@pytest.fixture
def told(tmp_path: Path) -> Story:
    """A recording with every kind of slot."""
    written = script.read(LAWFUL)
    written["silence"] = [{"surface": "status", "from": 0, "to": 1000, "why": "refused"},
                          {"surface": "status", "from": 5000, "to": 5200, "why": "down"},
                          {"surface": "status", "from": 9000, "to": 9100, "why": "timeout"}]
    written["marks"]["started"] = [0, 1000]
    written["raw"] = [{"surface": "status", "at": 7000, "body": "<html>"}]
    return read_story(script.build(written, tmp_path / "run"))


def test_slots_without_an_answer_are_told_apart(told: Story) -> None:
    """Before the start, while an act of ours kept the node down, and those of which nobody knows why."""
    assert told.counts["status"] == {"answered": 305, "booting": 12, "down": 4, "absent": 0, "missed": 2, "raw": 1}


def test_it_is_the_judges_own_reading(told: Story) -> None:
    """Documents, marks and rows come from the timeline, and from nowhere else."""
    timeline = Timeline.load(told.folder)
    assert list(told.timeline.samples("status")) == list(timeline.samples("status")) and len(told.track) == 324
    assert told.marks == {name: (mark.begin, mark.end) for name, mark in timeline.marks.items()}
    assert [row for _, row in told.rows("books")] == [row.value for row in timeline.stream("books").rows]
    assert all(row.earliest <= at_ms <= row.latest for (at_ms, _), row
               in zip(told.rows("books"), timeline.stream("books").rows, strict=True))
