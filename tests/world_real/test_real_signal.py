"""A signal ends a verb of a real world, wherever its loop happens to be, and takes nothing with it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from typing import Any

import pytest

from harness.run import Interrupted, _Signals
from harness.world.real.local import LocalWorld


class Struck(deque[Any]):
    """What a loop is about to do; the signal comes in the moment in which it has taken up the first of it."""

    def popleft(self) -> Any:
        taken = super().popleft()
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL and not self.struck:
            self.struck = True
            os.kill(os.getpid(), signal.SIGTERM)
        return taken

    struck = False


def test_a_signal_takes_nothing_from_the_loop() -> None:
    """Raised between taking up and doing it would leave a task behind that nothing ever ends: the world could not stop."""
    world = LocalWorld.__new__(LocalWorld)
    world._loop = loop = asyncio.new_event_loop()
    world._failed, world._tasks = None, set()

    async def background() -> None:
        while True:
            await asyncio.sleep(0)

    async def verb() -> None:
        world.background(background())
        await asyncio.sleep(0.01)
        loop._ready = Struck(loop._ready)
        await asyncio.sleep(60)

    with pytest.raises(Interrupted, match="SIGTERM"), _Signals(world) as signals, signals.raised():
        world._turn(verb())
    world._turn(world._end_background())  # raises where a task never ends
    assert not world._tasks
    loop.close()
