"""What looking costs: the reference stack over the same virtual minute, watched closely, loosely and not at all.

The system serves each sample itself, so this is the cost of asking, of answering and of writing down together."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.clock import taken_s
from harness.recording.tape import Tape
from harness.session import ROOT
from harness.world.sim.world import SimWorld
from harness.world.stack import load_stack

VIRTUAL_S = 60
WAYS: tuple[tuple[str, int | None], ...] = (
    ("not at all", None), ("every 1 s", 1_000), ("every 50 ms", 50), ("every 20 ms", 20))


def lines(rounds: int, seed: int, policy: str, virtual_s: int = VIRTUAL_S) -> Iterator[str]:
    """The table's lines. The start of the world is not in it."""
    best = {name: float("inf") for name, _ in WAYS}
    written = {}
    for _ in range(rounds):
        for name, every_ms in WAYS:
            seconds, written[name] = _watched(every_ms, seed, policy, virtual_s)
            best[name] = min(best[name], seconds)
    nothing = best["not at all"]
    for name, seconds in best.items():
        yield (f"status watched {name:<14}{virtual_s / seconds:>8.0f} virtual s per CPU s {seconds / nothing:>7.2f} ×"
               f"{written[name] / 1024 / virtual_s * 60:>9.0f} KiB a minute")


def _watched(every_ms: int | None, seed: int, policy: str, virtual_s: int) -> tuple[float, int]:
    stack = load_stack(ROOT / "system_under_test" / "stack.yaml")
    with tempfile.TemporaryDirectory() as place:
        tape = Tape(Path(place) / "run")
        world = SimWorld(stack, policy, stack.policy(policy), seed, tape.folder)
        if every_ms is not None:
            world.watch("status", every_ms)
        world.start(tape)
        seconds = taken_s(partial(world.advance_to, world.now_ms() + virtual_s * 1_000))
        tape.seal("completed", world.stop())
        return seconds, (tape.folder / "recording.jsonl.gz").stat().st_size
