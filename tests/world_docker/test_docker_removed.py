"""What the engine does not let go of is told in the engine's own words; no engine is needed for that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError

from harness.errors import NotHealed
from harness.world.real import container_undo


def test_a_network_that_stays_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine may count an end on a network that none of its containers has any more."""
    def refuse(_id: str) -> None:
        raise APIError("403 Client Error", response=SimpleNamespace(status_code=403, url=""), explanation="active endpoints")

    @contextmanager
    def engine() -> Iterator[Any]:
        yield SimpleNamespace(containers=lambda **_: [], volumes=lambda **_: {"Volumes": None},
                              networks=lambda **_: [{"Id": "near"}], remove_network=refuse)

    monkeypatch.setattr(container_undo, "_engine", engine)
    monkeypatch.setattr(container_undo, "REMOVED_S_MAX", 0.2)
    with pytest.raises(NotHealed, match=r"1 networks \(the engine says: active endpoints\)"):
        container_undo.remove("a run")
