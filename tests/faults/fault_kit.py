"""How the tests of this room run a small drill of their own, or a shipped one, with the reference stack."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from harness.recording.tape import read_lines
from harness.session import Order, Result, conduct
from harness.world import POLICY_BY_WORLD

ROOT = Path(__file__).resolve().parents[2]
DRILLS = Path(__file__).parent / "drills"
STACK = ROOT / "system_under_test" / "stack.yaml"


def order(name: str, runs: Path, world: str = "sim", seed: int = 1, *, policy: str | None = None,
          machines: Mapping[str, str] | None = None) -> Order:
    """An order for a drill of this room, or of drills/phase2."""
    found = [file for folder in (DRILLS, ROOT / "drills" / "phase2") if (file := folder / f"{name}.yaml").is_file()]
    return Order(str(found[0]), world, seed, str(STACK), policy or POLICY_BY_WORLD[world], str(runs),
                 machines=machines or {})


def run(what: Order) -> Result:
    """In this process."""
    return conduct(what, lambda word, facts: None)


def command(runs: Path, world: str, *names: str, more: Sequence[str] = ()) -> tuple[int, list[dict[str, Any]]]:
    """``drillproof run --json`` of drills, two side by side in processes of their own: exit code and what it says of each.

    What a busy machine kept from being seen is run once more, as the main job does."""
    files = [order(name, runs).drill for name in names]
    done = subprocess.run([sys.executable, "-m", "harness.cli", "run", *files, "--world", world, "--out", str(runs),
                           "--jobs", "2", "--again", "--json", *more], cwd=ROOT, capture_output=True, timeout=550)
    return done.returncode, orjson.loads(done.stdout)["drills"] if done.stdout else []


def lines(recording: str, kind: str) -> list[dict[str, Any]]:
    """The recording's lines of a kind."""
    return [line for line in read_lines(Path(recording) / "recording.jsonl.gz") if line["line"] == kind]


def rows(recording: str, stream: str) -> list[dict[str, Any]]:
    """The rows of a stream."""
    data = (Path(recording) / "streams" / f"{stream}.jsonl").read_bytes()
    return [orjson.loads(line) for line in data.splitlines()]


def failed(result: Result) -> set[str]:
    """Ids of the checks that FAILED."""
    return {sentence.split()[1].rstrip(":") for sentence in result.says if sentence.startswith("FAIL ")}
