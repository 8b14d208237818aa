"""The night on one machine: what it goes on after, where it ends, what counts, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import cli, engine, files, mutants, nightly

Codes = dict[str, int]
Night = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def night(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Night:
    """A night in which every command answers with the code that a test gives it: (exit code, the commands that were called)."""

    def run(codes: Codes, *options: str) -> tuple[int, list[str]]:
        called: list[str] = []

        def main(words: list[str]) -> int:
            line = " ".join(words)
            called.append(line)
            if words[0] == "pack" and "--merge" not in words:
                (Path(words[-1]) / "phase2").mkdir(parents=True, exist_ok=True)
                (Path(words[-1]) / "runs").mkdir(exist_ok=True)
                (Path(words[-1]) / "runs.jsonl").touch()
            if words[0] == "verify":
                (tmp_path / "phase2").mkdir(exist_ok=True)
                (tmp_path / "phase2" / "SUMMARY_1PAGE.md").write_text("the page ``` ends nothing\n")
            return next((code for words, code in codes.items() if words in line), 0)

        monkeypatch.setattr(cli, "main", main)
        monkeypatch.setattr(engine, "main", lambda words: codes.get("images", 0))
        monkeypatch.setattr(nightly, "proven", lambda pack: codes.get("proven", 0))
        monkeypatch.setattr("sys.argv", ["nightly", "--out", str(tmp_path), *options])
        return nightly.main(), called

    return run


def commands(called: list[str]) -> list[str]:
    return [line.split()[0] for line in called]


def test_a_quiet_night(night: Night, tmp_path: Path) -> None:
    """All steps in their order; the shards' runs and packs are let go, their logs stay, and there is a summary."""
    code, called = night({}, "--world", "docker", "--shards", "3")
    assert code == 0
    once = ["mutants", "pack", "verify", "compare", "trend", "prune", "gate", "gate"]
    assert commands(called)[:14] == ["run", "pack"] * 3 + once
    assert called[0].startswith("run phase2 ops state --world docker --policy reference --shard 1/3 --again")
    places = sorted((tmp_path / "nightly").glob("shard-*"))
    assert [[each.name for each in place.iterdir()] for place in places] == [["runs.jsonl"]] * 3
    page = (tmp_path / "nightly.md").read_text()
    assert page.count("```") % 2 == 0 and "the page ''' ends nothing" in page


def test_red_that_was_seen_is_not_seen_again(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a matrix of this very build is kept, the night joins at once; the pack holds that matrix."""
    monkeypatch.setattr(mutants, "of_this_build", lambda *of: SimpleNamespace(whole=True))
    assert commands(night({}, "--world", "docker")[1])[:6] == ["run", "pack", "run", "pack", "pack", "verify"]


def test_red_that_was_not_seen_is_looked_for_again(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    """A matrix that says SLIPPED THROUGH is kept, and is no leave to be green the next night with nothing mended."""
    monkeypatch.setattr(mutants, "of_this_build", lambda *of: SimpleNamespace(whole=False))
    code, called = night({"mutants": 1}, "--world", "docker")
    assert code == 1 and "mutants" in commands(called)


@pytest.mark.parametrize(("codes", "options", "code", "last"), [
    ({"--shard 1/2": 1}, (), 1, "gate"),  # a drill that failed is packed, and the night goes on
    ({"--shard 1/2": 3, "compare": 1}, (), 1, "gate"),
    ({"--shard 1/2": 3}, (), 3, "gate"),
    ({"mutants": 1}, (), 1, "gate"),
    ({"proven": 1}, (), 1, "gate"),  # a hollow drill of a set that the night decides nothing of
    ({"--only fault-injection": 1}, (), 1, "gate"),
    ({"--only containers": 1}, ("--world", "local"), 0, "gate"),  # local cannot open it
    ({"gate": 1}, ("--world", "sim"), 0, "gate"),
    ({"--merge": 1}, (), 1, "pack"),  # nothing to go on with, and an older pack is not asked
    ({"verify": 1}, (), 1, "verify"),
    ({"pack 2 --world": 1}, (), 1, "pack"),
    ({"--shard 1/2": 2}, (), 2, "run"),
    ({"trend": 130}, (), 130, "trend"),
    ({"images": 2}, (), 2, "")])
def test_where_a_night_goes_on_and_where_it_ends(night: Night, codes: Codes, options: tuple[str, ...], code: int,
                                                 last: str) -> None:
    """The exit code is the worst of what counts; the last command is the gate only where tonight has a pack."""
    found, called = night(codes, *options)
    steps = [line for line in called if "toxiproxy" not in line]
    assert found == code and (steps[-1].split()[0] if steps else "") in (last, "compare" if last == "gate" else last)


def test_a_night_without_a_pack_lets_nothing_go(night: Night, tmp_path: Path) -> None:
    """What was run and not joined stays to be looked at."""
    assert night({"--merge": 1})[0] == 1
    assert all((place / "runs").is_dir() for place in (tmp_path / "nightly").glob("shard-*"))


def test_one_night_at_a_time(night: Night, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second one is told so, and calls nothing."""
    with files.alone(tmp_path / "nightly" / ".lock"):
        code, called = night({})
    assert (code, called) == (2, []) and "another night" in capsys.readouterr().err
