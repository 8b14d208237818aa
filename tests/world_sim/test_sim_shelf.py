"""A node's lines: what is put away is still there, and only the last can be taken away again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.world.sim import shelf as room
from harness.world.sim.shelf import Shelf


def filled(folder: Path, monkeypatch: pytest.MonkeyPatch, put_away_every: int) -> tuple[Shelf, list[bytes]]:
    monkeypatch.setattr(room, "PUT_AWAY_BYTES", 1)
    shelf, lines = Shelf(), [b'{"n":%d}' % number for number in range(100)]
    for number, line in enumerate(lines, 1):
        shelf.append(line)
        if number % put_away_every == 0:
            shelf.put_away(folder)
    return shelf, lines


@pytest.mark.parametrize("every", [1, 7, 30, 1_000])
def test_lines_come_back_in_order_wherever_they_lie(tmp_path, monkeypatch, every):
    """Whether in the file, in memory or in both, and in whole lines a block."""
    monkeypatch.setattr(room, "BLOCK_BYTES", 50)
    shelf, lines = filled(tmp_path, monkeypatch, every)
    assert list(shelf.records()) == lines and len(shelf) == 100
    assert all(block.endswith(b"\n") for block in shelf.blocks())
    assert sum(map(len, shelf.blocks())) == shelf.size


@pytest.mark.parametrize("every", [1, 7, 30, 1_000])
@pytest.mark.parametrize("count", [0, 1, 12, 100])
def test_the_last_lines_can_be_taken_away(tmp_path, monkeypatch, every, count):
    """As a crash does with what was not durable; what is appended then follows what is left."""
    shelf, lines = filled(tmp_path, monkeypatch, every)
    kept, gone = lines[:100 - count], lines[100 - count:]
    shelf.cut(count, sum(len(line) + 1 for line in gone))
    shelf.append(b"{}")
    shelf.put_away(tmp_path)
    assert list(shelf.records()) == [*kept, b"{}"]


def test_the_file_has_no_name(tmp_path, monkeypatch):
    """Nothing of it is left, however the process ends."""
    filled(tmp_path, monkeypatch, 10)
    assert os.listdir(tmp_path) == []


def test_a_record_is_one_line():
    """Otherwise what is read back would not be what was written."""
    with pytest.raises(ValueError, match="one line"):
        Shelf().append(b"{}\n{}")
