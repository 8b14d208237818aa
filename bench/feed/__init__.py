"""The bare simulator: a feed of 600 messages in a minute over one link, with nothing to judge."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import orjson

from bench.clock import taken_s
from harness.recording.tape import Tape
from harness.session import ROOT
from harness.world.sim.world import SimWorld
from harness.world.stack import Stack, load_stack

VIRTUAL_MS, SETTLING_MS, TICKS = 60_000, 200, 600
RUNS = 50
MEMORY = Path("/dev/shm")
"""A file system in memory, where there is one: making three folders on a disk costs a tenth of such a minute."""


def lines(rounds: int, runs: int = RUNS) -> Iterator[str]:
    """How many such minutes a CPU second holds: world made, both nodes up, 600 ticks, streams written, tape sealed."""
    stack = load_stack(ROOT / "bench" / "feed" / "stack.yaml")
    where = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where) as place:
        folders = (Path(place) / f"{number}" for number in range(rounds * runs + 1))
        heard = fed(stack, 0, next(folders))
        best = min(taken_s(lambda: [fed(stack, seed, next(folders)) for seed in range(runs)]) for _ in range(rounds))
    yield (f"one listener hears {heard} messages in a virtual minute {runs / best:>8.0f} runs per CPU s"
           f"{best / runs / TICKS * 1e6:>8.1f} µs a message"
           f", files {'in memory' if where else 'on disk'}")


def fed(stack: Stack, seed: int, folder: Path) -> int:
    """One run; returns how many messages were heard, none of them missing."""
    tape = Tape(folder)
    tape.head(seed=seed)
    world = SimWorld(stack, "none", {}, seed, folder)
    world.start(tape)
    world.advance_to(world.now_ms() + VIRTUAL_MS + SETTLING_MS)
    tape.seal("completed", world.stop())
    row = orjson.loads((folder / "streams" / "heard.jsonl").read_bytes())
    if row["missing"]:
        raise AssertionError(f"the listener missed {row['missing']} messages")
    return int(row["heard"])
