"""What one drill costs beside what it waits for: started, recorded, judged and written; beside one run of Chaos Toolkit.

``trivial.yaml`` is the least that is still a drill, in the sim, so nobody waits: all that is left is the engine. Chaos
Toolkit gets the least that is still an experiment, one probe and no method, in a virtual environment of its own under
``.drillproof/``, made when the table is first asked for.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.clock import taken_s
from harness.session import ROOT, Order, conduct, warm

DRILL = ROOT / "bench" / "trivial.yaml"
STACK = ROOT / "system_under_test" / "stack.yaml"
PEER = ROOT / ".drillproof" / "chaostoolkit"
PEER_NAME = "chaostoolkit==1.19.0"
INSTALL_S_MAX = 300
EXPERIMENT: Mapping[str, Any] = {
    "title": "one probe", "description": "The least that is still an experiment.", "method": [], "rollbacks": [],
    "steady-state-hypothesis": {"title": "there is a root", "probes": [
        {"type": "probe", "name": "root", "tolerance": True,
         "provider": {"type": "python", "module": "os.path", "func": "exists", "arguments": {"path": "/"}}}]},
}


def lines(rounds: int, place: Path) -> Iterator[str]:
    """The table's lines."""
    order = Order(str(DRILL), "sim", 1, str(STACK), "drill", str(place / "engine" / "runs"))
    warm(order)
    verdicts: list[str] = []
    own_s = min(taken_s(lambda: verdicts.append(conduct(order, lambda word, facts: None).verdict)) for _ in range(rounds + 1))
    yield f"{'the engine: start, record, judge, write':<44}{own_s:>8.3f} s   {verdicts[-1]}, everything loaded"
    drillproof = [sys.executable, "-m", "harness.cli", "run", str(DRILL), "--world", "sim", "--policy", "drill",
                  "--out", str(place / "shell")]
    (place / "experiment.json").write_text(json.dumps(EXPERIMENT), encoding="utf-8")
    contenders: dict[str, Sequence[str]] = {"drillproof run, from the prompt to its exit": drillproof}
    peer = _peer()
    if isinstance(peer, Path):
        contenders["chaos run, one probe, the same"] = [str(peer), "--no-version-check", "run", str(place / "experiment.json"),
                                                        "--journal-path", str(place / "journal.json")]
    best = dict.fromkeys(contenders, float("inf"))
    for _ in range(rounds):
        for name, command in contenders.items():
            best[name] = min(best[name], _child_s(command, place))
    ours = best["drillproof run, from the prompt to its exit"]
    for name, seconds in best.items():
        yield f"{name:<44}{seconds:>8.3f} s {seconds / ours:>6.2f} ×"
    if isinstance(peer, Path):
        yield f"the engine itself takes {own_s / best['chaos run, one probe, the same']:.2f} of what one `chaos run` takes"
    else:
        yield f"Chaos Toolkit is not beside it: {peer}"


def _child_s(command: Sequence[str], place: Path) -> float:
    """CPU seconds of a command and of its children. Raises CalledProcessError for one that does not return 0."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=place, env=_environment(), check=True, timeout=120, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _environment() -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "HOME": str(ROOT / ".drillproof"), "PYTHONPATH": str(ROOT)}


def _peer() -> Path | str:
    """Its command, or why there is none."""
    command = PEER / "bin" / "chaos"
    if command.is_file():
        return command
    try:
        venv.create(PEER, with_pip=True, clear=True)
        done = subprocess.run([PEER / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                               PEER_NAME], capture_output=True, text=True, timeout=INSTALL_S_MAX)
    except (OSError, subprocess.SubprocessError) as why:
        return f"{PEER_NAME} cannot be installed: {why}"
    said = done.stderr.strip().splitlines()
    return command if done.returncode == 0 else f"{PEER_NAME} cannot be installed: {said[-1] if said else 'pip failed'}"
