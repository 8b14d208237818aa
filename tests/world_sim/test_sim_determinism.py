"""Equal seeds, equal bytes: in one process, in two with different hash seeds, and not for another seed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy_world import ROOT, started

from harness.drill.model import Clock, Deploy, Disk, Fault, Field, Fill, Kill, LinkFault, Pause, Predicate, Switch

FORCES = (
    LinkFault("wire", "stall", "client"), LinkFault("rest", "delay", "both", 150), LinkFault("wire", "drop", "server"),
    Switch("server", "mute"), Disk("client", "torn"), Kill("client", before=("append", "ledger", 4)),
    Pause("server"), Clock("client", 500, 700), Disk("client", "unsynced"), Kill("client"), Deploy("client", "next"),
    Fill("client", 1.0), Disk("client", "read_only"),
)


def record(folder: Path, seed: int) -> dict[str, str]:
    """Run a rough life and say the digest of everything it wrote."""
    world, tape = started(folder, seed=seed)
    world.advance_until(Predicate((Field("status", "connected", "equals", True),)), 300, 20_000)
    for number, force in enumerate(FORCES):
        fault = Fault(f"f{number}", 0, 400, force)
        world.inject(fault)
        world.advance_to(world.now_ms() + 400)
        world.heal(fault)
    streams = world.stop()
    tape.seal("completed", streams)
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((folder / "streams").iterdir())}
    return {"recording": tape.sha256, **found}


def in_another_process(folder: Path, seed: int, hash_seed: str) -> str:
    code = "import sys; from test_sim_determinism import *; print(record(Path(sys.argv[1]), int(sys.argv[2])))"
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    done = subprocess.run([sys.executable, "-c", code, str(folder), str(seed)], capture_output=True, text=True,
                          timeout=60, env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path}, check=True)
    return done.stdout.strip()


def test_two_processes_with_different_hash_seeds_write_the_same(tmp_path: Path) -> None:
    """Nothing in a recording comes from the order in which Python hashes things."""
    first = in_another_process(tmp_path / "a" / "run", 7, "1")
    second = in_another_process(tmp_path / "b" / "run", 7, "4242")
    assert first == second == str(record(tmp_path / "c" / "run", 7))


@pytest.mark.parametrize("seed", [1, 2])
def test_another_seed_writes_something_else(tmp_path: Path, seed: int) -> None:
    """The seed reaches the network, the disk and the clocks."""
    ours, other = record(tmp_path / "a" / "run", seed), record(tmp_path / "b" / "run", seed + 10)
    assert all(ours[name] != other[name] for name in ours)


def test_a_stream_of_dice_does_not_learn_of_another() -> None:
    """What one link draws does not depend on what another drew before."""
    from harness.world.sim import dice

    alone = dice.stream(3, "link:orders").random()
    dice.stream(3, "link:rest").random()
    assert dice.stream(3, "link:orders").random() == alone
    assert dice.token(3, "CANARY") != dice.token(4, "CANARY")
