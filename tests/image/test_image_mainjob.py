"""What the main job asks of the command, world by world."""

from __future__ import annotations

import sys
from pathlib import Path

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
    policy = ["--policy", "reference"] if "reference" in more else []
    monkeypatch.setattr(sys, "argv", ["mainjob", "--world", world, "--out", str(tmp_path), *policy])
    assert mainjob.main() == 0
    if world != "sim":
        assert asked.pop(0) == (["images"] if world == "docker" else ["toxiproxy", "--quiet"])
    assert [each[0] for each in asked] == ["run", "pack", "verify", *["gate"] * len(mainjob.SETS)]
    assert asked[0] == ["run", *mainjob.SETS, "--world", world, "--seed", "1", "--out", str(tmp_path), *more]
