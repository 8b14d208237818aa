"""How the tests of this room make a simulated world over the toy stack."""

from __future__ import annotations

import sys
from pathlib import Path

from harness.recording.tape import Tape
from harness.world.sim.world import SimWorld
from harness.world.stack import load_stack

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # the toy machines are named from the root of the checkout
    sys.path.insert(0, str(ROOT))

STACK = load_stack(ROOT / "tests" / "worlds" / "toy" / "stack.yaml")


def toy_world(folder: Path, *, seed: int = 1, placebo: bool = False, machines: dict[str, str] | None = None) -> SimWorld:
    return SimWorld(STACK, "toy", STACK.policy("toy"), seed, folder, placebo=placebo, machines=machines)


def started(folder: Path, **how: object) -> tuple[SimWorld, Tape]:
    """A world that is up, watched, and on tape."""
    tape = Tape(folder)
    world = toy_world(folder, **how)
    tape.head(**world.describe())
    world.watch("status", 50)
    world.start(tape)
    return world, tape
