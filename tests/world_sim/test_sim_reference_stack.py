"""The reference stack lives in the sim, and its life is the same bytes for the same seed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from toy_world import ROOT

from harness.drill.model import Fault, Field, Kill, LinkFault, Predicate, Switch
from harness.recording.tape import Tape
from harness.world.sim.world import SimWorld
from harness.world.stack import load_stack

ACTIVE = Predicate((Field("status", "trading_mode", "equals", "Active"),))
FORCES = (
    LinkFault("market_data", "stall", "client"), Switch("exchange", "session_end", {"times": 1}),
    LinkFault("orders", "cut"), Kill("trader", before=("append", "ledger", 2)),
)


def record(folder: Path, seed: int) -> dict[str, str]:
    """A rough life of the reference stack; digests of everything it wrote."""
    stack = load_stack(ROOT / "system_under_test" / "stack.yaml")
    tape, world = Tape(folder), SimWorld(stack, "drill", stack.policy("drill"), seed, folder)
    tape.head(**world.describe())
    world.watch("status", 50)
    world.start(tape)
    assert world.advance_until(ACTIVE, 1_000, 120_000) is not None
    for number, force in enumerate(FORCES):
        fault = Fault(f"f{number}", 0, 4_000, force)
        assert world.refuses(force) is None
        world.inject(fault)
        world.advance_to(world.now_ms() + 4_000)
        world.heal(fault)
        world.advance_to(world.now_ms() + 2_000)
    streams = world.stop()
    tape.seal("completed", streams)
    assert all(stream["n"] > 0 for stream in streams.values())
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((folder / "streams").iterdir())}
    return {"recording": tape.sha256, **found}


def _start(folder: Path, seed: int, hash_seed: str) -> subprocess.Popen[str]:
    code = "import sys; from test_sim_reference_stack import *; print(record(Path(sys.argv[1]), int(sys.argv[2])))"
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    return subprocess.Popen([sys.executable, "-c", code, str(folder), str(seed)], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path})


def test_the_reference_stack_writes_the_same_bytes_whatever_the_hash_seed(tmp_path: Path) -> None:
    """Two processes, two hash seeds, one content; another seed writes another."""
    runs = [_start(tmp_path / name / "run", seed, hash_seed)
            for name, seed, hash_seed in (("a", 3, "1"), ("b", 3, "999"), ("c", 4, "1"))]
    said = [(run.communicate(timeout=100), run.returncode) for run in runs]
    assert all(code == 0 for _, code in said), said
    first, second, other = (out for (out, _), _ in said)
    assert first == second
    assert first != other
