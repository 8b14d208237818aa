"""The three contracts on one axis: which lanes a picture has, and what stands in them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.pack.story import Story, read_story
from harness.pack.svg import Lane, draw
from harness.pack.timeline import timeline
from harness.recording.script import build, read

ROOT = Path(__file__).parents[2]
RECORDINGS = ROOT / "fixtures/recordings"


def told(tmp_path: Path, name: str) -> Story:
    return read_story(build(read(RECORDINGS / f"{name}.yaml"), tmp_path / "run"))


def shown(story: Story) -> tuple[list[str], list[str]]:
    """The texts of the picture, and its titles."""
    picture = ElementTree.fromstring(timeline(story, ROOT))
    return [[each.text or "" for each in picture.iter() if each.tag.endswith(kind)] for kind in ("text", "title")]  # type: ignore[return-value]


def test_the_three_contracts_stand_side_by_side(tmp_path: Path) -> None:
    """Each part under its heading, in this order; a kill is seen in the lanes of all three."""
    texts, titles = shown(told(tmp_path, "lawful/three_contracts"))
    order = ["/status", "mode", "opening latch", "ops status", "marketdata", "strategy", "execution", "ingest", "Trading Floor",
             "state files", "risk mode", "drawdown", "positions_state", "risk_snapshot", "what was done", "fault feed",
             "the exchange's books", "orders that open"]
    assert [each for each in texts if each in order] == order
    for word in ("Kill", "HALTED KILL_SWITCH", "HALTED MARKETDATA_STALE", "DEGRADED MARKETDATA_STALE", "HALTED", "NORMAL",
                 "fresh"):
        assert any(title.startswith(f"{word}:") for title in titles), word


def test_a_file_that_is_damaged_or_gone_is_seen(tmp_path: Path) -> None:
    """Torn and taken away, each as such; and a drill that watches one contract has no headings."""
    torn = [shown(told(tmp_path / name, f"broken/state_files_whole{name}"))[1] for name in ("_torn", "_removed")]
    assert any(title.startswith("unreadable:") for title in torn[0])
    assert any(title.startswith("missing:") for title in torn[1])
    texts, _ = shown(told(tmp_path / "plain", "lawful/market_data_stale"))
    assert "mode" in texts and not {"/status", "ops status", "what was done"} & {*texts}


@pytest.mark.parametrize("name", ["a heading", "<script>", "\x1b[2J"])
def test_a_heading_is_a_name_and_a_line(name: str) -> None:
    """As harmless as every other text."""
    picture = draw("t", [Lane(name, heading=True)], 0, 1000, 0)
    assert ElementTree.fromstring(picture) is not None and "\x1b" not in picture and "<script" not in picture
