"""What the laws over state files keep in memory of a file's history while they are asked."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from harness.drill.text import parse
from harness.recording import script
from harness.recording.columns import Track
from harness.recording.timeline import Timeline
from harness.verdict.case import Case
from harness.verdict.files import Files, Version
from harness.verdict.rules import load_rules

ROOT = Path(__file__).parents[2]
STATE_FILES = ROOT / "fixtures" / "recordings" / "lawful" / "state_files.yaml"


def watched(track: Track, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """The files of a drill whose positions were seen as this track has them."""
    told = script.read(STATE_FILES)
    timeline = Timeline.load(script.build(told, folder))
    monkeypatch.setattr(type(timeline), "track", lambda self, surface: track)
    return Files.of(Case(timeline, parse(told["drill"].encode(), "drill"), load_rules(ROOT), told["policy"]))


def history(keys: int, looks: int) -> Track:
    """A document of so many keys, one of which is another at each look."""
    track = Track("positions_state")
    document: dict[str, Any] = {f"k{number:05}": number for number in range(keys)}
    track.document_came((0, 0, 0, False), {**document, "updated_at": 0.5})
    for moment in range(1, looks):
        track.difference_came((moment, moment, moment, False), {"updated_at": moment + 0.5}, ())
    return track


def asked(files: Files) -> list[tuple[int, int, Any]]:
    return [(each.first, each.last, each.document["updated_at"]) for each in files.versions("positions_state")
            if each.document is not None]


def test_a_short_history_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And kept, however many laws ask for it."""
    files = watched(history(keys=20, looks=300), tmp_path / "run", monkeypatch)
    first: list[Version] = [*files.versions("positions_state")]
    assert len(first) == 300
    assert all(one is other for one, other in zip(first, files.versions("positions_state"), strict=True))


def test_a_history_of_large_documents_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six hundred looks at four thousand fields would be sixty megabytes; one after another they are little, and the same."""
    files = watched(history(keys=4_000, looks=600), tmp_path / "run", monkeypatch)
    tracemalloc.start()
    try:
        first = asked(files)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 12_000_000
    assert first == asked(files) == [(moment, moment, moment + 0.5) for moment in range(600)]
