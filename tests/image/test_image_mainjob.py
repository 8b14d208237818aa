"""What the main job asks of the command, world by world."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import cli, engine, mainjob


@pytest.mark.parametrize(("world", "more"), [
    ("sim", []), ("local", ["--again"]), ("docker", ["--again"]),
    ("docker", ["--policy", "reference", "--again"])])
def test_real_worlds_try_once_more_what_could_not_be_told(world: str, more: list[str], tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """One run of the sets, their pack, its verification, the gate of each; in containers the images come first."""
    asked: list[list[str]] = []
    monkeypatch.setattr(cli, "main", lambda arguments: asked.append([*arguments]) or 0)
    monkeypatch.setattr(engine, "main", lambda arguments: asked.append([*arguments]) or 0)
    monkeypatch.setattr(mainjob, "_see_red", lambda out, sets: 0)
    monkeypatch.setattr(mainjob, "proven", lambda pack: 0)
    policy = ["--policy", "reference"] if "reference" in more else []
    monkeypatch.setattr(sys, "argv", ["mainjob", "--world", world, "--out", str(tmp_path), *policy])
    assert mainjob.main() == 0
    if world != "sim":
        assert asked.pop(0) == (["images"] if world == "docker" else ["toxiproxy", "--quiet"])
    assert [each[0] for each in asked] == ["run", "pack", "verify", *["gate"] * len(mainjob.SETS)]
    assert asked[0] == ["run", *mainjob.SETS, "--world", world, "--seed", "1", "--out", str(tmp_path), *more]


@pytest.mark.parametrize(("codes", "code"), [
    ({"run": 1}, 1), ({"run": 3}, 3), ({"run": 3, "gate": 1}, 1), ({"run": 1, "pack": 2}, 2), ({"run": 3, "verify": 1}, 1),
    ({"gate": 1}, 1), ({"pack": 70}, 70), ({"pack says": "hollow"}, 1), ({"pack says": "superseded"}, 1),
    ({"pack says": "INCONCLUSIVE"}, 3)])
def test_a_drill_that_no_gate_asks_for_still_counts(codes: dict[str, Any], code: int, tmp_path: Path, capsys: Any,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """Drills that only containers make real belong to a group of their own: an open gate does not speak for them, nor for one
    of which the pack says that its PASS proves nothing."""
    monkeypatch.setattr(cli, "main", lambda words: codes.get(words[0], 0))
    monkeypatch.setattr(engine, "main", lambda words: 0)
    monkeypatch.setattr(mainjob, "_see_red", lambda out, sets: 0)
    monkeypatch.setattr(mainjob, "read_pack", lambda pack: SimpleNamespace(drills={
        "1_a": SimpleNamespace(says="PASS"), "2_b": SimpleNamespace(says=codes.get("pack says", "PASS"))}))
    monkeypatch.setattr(sys, "argv", ["mainjob", "--world", "docker", "--out", str(tmp_path)])
    assert mainjob.main() == code
    assert ("Not PASS in this pack: 2_b" in capsys.readouterr().out) is ("pack says" in codes)


@pytest.mark.parametrize("kept", [None, SimpleNamespace(whole=False)])
def test_red_is_seen_of_all_sets(kept: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of some sets alone no matrix is kept, and the pack of one set would hold none; one with a gap spares no look."""
    asked: list[list[str]] = []
    monkeypatch.setattr(cli, "main", lambda words: asked.append(words) or 0)
    monkeypatch.setattr(mainjob.mutants, "of_this_build", lambda *_: kept)
    assert mainjob._see_red(tmp_path, ["phase2"]) == 0
    assert asked == [["mutants", "--quick", "--out", str(tmp_path)]]
