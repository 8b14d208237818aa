"""What the engine does not let go of is told in the engine's own words; no engine is needed for that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError

from harness import cli
from harness.errors import NotHealed
from harness.world.real import container_undo


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What an engine has of an orphan, a network, and will not let go of; kind → its things."""
    has: dict[str, list[Any]] = {"networks": [{"Id": "near"}], "containers": []}

    def refuse(*_: object, **__: object) -> None:
        raise APIError("403 Client Error", response=SimpleNamespace(status_code=403, url=""), explanation="active endpoints")

    @contextmanager
    def engine() -> Iterator[Any]:
        yield SimpleNamespace(containers=lambda **_: has["containers"], volumes=lambda **_: {"Volumes": None},
                              networks=lambda **_: has["networks"], remove_network=refuse, remove_container=refuse)

    monkeypatch.setattr(container_undo, "_engine", engine)
    monkeypatch.setattr(container_undo, "REMOVED_S_MAX", 0.2)
    monkeypatch.setattr(container_undo, "orphans", lambda: ("a run",))
    return has


def test_a_network_that_stays_says_why(kept: dict[str, list[Any]]) -> None:
    """An engine may count an end on a network that none of its containers has any more."""
    with pytest.raises(NotHealed, match=r"be removed: 1 network \(the engine says: active endpoints\); .* started anew"):
        container_undo.remove("a run")


def test_a_network_that_stays_stops_no_other_run(kept: dict[str, list[Any]], capsys: pytest.CaptureFixture[str]) -> None:
    """It is named and troubles nobody; a container that stays might, and does stop."""
    cli._make_room()
    assert "a run has lost its folder, and something of it could not be removed: 1 network" in capsys.readouterr().err
    kept["containers"] = [{"Id": "alive", "Labels": {}}]
    with pytest.raises(NotHealed, match="1 container, 1 network"):
        cli._make_room()


def test_recover_does_not_say_that_nothing_was_left(kept: dict[str, list[Any]], tmp_path: Path,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    """Where it could not remove what it found, it says so, also by its exit code."""
    assert cli.main(["recover", "--out", str(tmp_path)]) == NotHealed.code
    told = capsys.readouterr()
    assert "active endpoints" in told.err and "nothing was left" not in told.out
