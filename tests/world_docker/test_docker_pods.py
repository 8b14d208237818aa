"""How pods are made and taken away, of which no engine is needed."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from harness.world.real import container_undo, pods
from harness.world.real.engine import KEEPER, KIND, NODE_KIND, Engine
from harness.world.real.pods import Pod

HOLD_S = 0.02


class Talk:
    """The conversation with an agent that answers at once."""

    def __init__(self, *_: object) -> None: ...

    async def open(self) -> None: ...

    until_up = open


class Recorder:
    """An engine's client that notes how many of each call were under way at once, at most."""

    def __init__(self) -> None:
        self._lock, self._ids = threading.Lock(), itertools.count()
        self._now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    @contextmanager
    def under_way(self, name: str) -> Iterator[None]:
        with self._lock:
            self._now[name] += 1
            self.most[name] = max(self.most[name], self._now[name])
        time.sleep(HOLD_S)
        yield
        with self._lock:
            self._now[name] -= 1

    def __getattr__(self, name: str) -> Any:
        def call(*_: object, **__: object) -> Any:
            with self.under_way(name):
                return {"Id": f"{next(self._ids)}", "NetworkSettings": {"Networks": {}}}

        return call


class Full(Recorder):
    """One that has six pods of a run, until they are removed."""

    def __init__(self) -> None:
        super().__init__()
        self._has = {f"{kind} {number}": kind for kind in (KEEPER, NODE_KIND) for number in range(6)}

    def containers(self, **_: object) -> list[dict[str, Any]]:
        return [{"Id": id, "Labels": {KIND: kind}} for id, kind in self._has.items()]

    def volumes(self, **_: object) -> dict[str, None]:
        return {"Volumes": None}

    def networks(self, **_: object) -> list[Any]:
        return []

    def remove_container(self, id: str, **_: object) -> None:
        with self.under_way(self._has[id]):
            del self._has[id]


def test_ends_of_networks_are_made_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that makes two at once on one network may count a third, and then keeps the network for ever."""
    monkeypatch.setattr(pods, "Channel", Talk)
    client: Any = Recorder()
    engine = Engine(client)

    async def make() -> None:
        await asyncio.gather(*(Pod(name, "token", ("near", "observing"), {}, "1:1", {}, {}, {}).make(engine, "image", print)
                               for name in "abcdef"))

    asyncio.run(make())
    engine.close()
    assert client.most["start"] == 1
    assert client.most["create_container"] > 1  # or nothing is ever at once here, and the line above says nothing


def test_ends_of_networks_are_taken_away_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node's container has none of its own; all of those may go at once."""
    client = Full()

    @contextmanager
    def engine() -> Iterator[Any]:
        yield client

    monkeypatch.setattr(container_undo, "_engine", engine)
    assert container_undo.remove("run", 0.0) == {"containers": 6, "keepers": 6, "volumes": 0, "networks": 0}
    assert client.most[KEEPER] == 1
    assert client.most[NODE_KIND] > 1
