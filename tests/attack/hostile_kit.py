"""Runs of the ordinary command against the reference stack with a hostile mouth before its trader."""

from __future__ import annotations

import fcntl
import gzip
import os
import pickle
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from harness.world.real import setup

ROOT = Path(__file__).resolve().parents[2]
DRILL = Path(__file__).parent / "hostile" / "drill.yaml"
FULL = os.environ.get("ATTACK") == "full"
LASTS_S_MAX = 150


def need_toxiproxy() -> None:
    """The real server. Without one nothing here says anything."""
    assert setup.find() is not None, f"the Toxiproxy server is needed here: {setup.explain()}"


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that one of the test workers makes and all of them use."""
    base = factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder, made = shared / name, shared / f"{name}.made"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


TRADER = "    machine: system_under_test.trader:make\n    image: drillproof-system\n"


def hostile_stack(folder: Path, mode: str) -> Path:
    """The reference stack, its trader behind the mouth: one file that differs in three lines from the real one."""
    sut = ROOT / "system_under_test"
    text = (sut / "stack.yaml").read_text(encoding="utf-8")
    for old, new in (
        ("stack: reference", "stack: hostile"),
        (f'{TRADER}    command: ["{{python}}", -m, system_under_test.shell]',
         f'{TRADER}    command: ["{{python}}", -m, tests.attack.hostile.mouth]'),
        ("      DEPLOYMENT_ENVIRONMENT: DEV\n",
         f"      DEPLOYMENT_ENVIRONMENT: DEV\n      MODE: {mode}\n      TOLD: {folder}/told\n"),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    text = re.sub(r"(?<=[ {])(policies|mutants)/", rf"{sut}/\1/", text)  # the files beside the real one
    file = folder / "stack.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@dataclass(frozen=True)
class Seen:
    """What a person has after a run: what the terminal said, and the folder."""

    code: int
    said: bytes
    folder: Path
    out: Path
    peak_kb: int
    """of the largest process of the run"""

    def kept(self) -> bytes:
        """To be read again by another worker."""
        return pickle.dumps(self)

    @property
    def verdict(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = orjson.loads((self.folder / "verdict.json").read_bytes())
        return found

    def check(self, id: str) -> str:
        """The verdict of one check by its id."""
        groups = (*self.verdict["premises"], *self.verdict["promises"], *self.verdict["laws"])
        return next(str(each["verdict"]) for each in groups if each["id"] == id)


def drillproof(*arguments: str | Path, out: Path) -> subprocess.CompletedProcess[bytes]:
    """The ordinary command, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DRILLPROOF_EVIDENCE": str(out)}
    return subprocess.run([sys.executable, "-m", "harness.cli", *map(str, arguments)], cwd=ROOT, env=environment,
                          capture_output=True, timeout=LASTS_S_MAX, check=False)


def attacked(mode: str, folder: Path) -> Seen:
    """One run in local against a mouth of this mode."""
    out = folder / "evidence"
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    done = drillproof("run", DRILL, "--world", "local", "--stack", hostile_stack(folder, mode), "--policy", "drill",
                      "--out", out, out=out)
    (run,) = (out / "runs").iterdir()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return Seen(done.returncode, done.stdout + done.stderr, run, out, max(peak, before))


def everything(folder: Path) -> dict[str, bytes]:
    """Each file below a folder by its path, the packed ones unpacked."""
    return {str(file.relative_to(folder)): gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
            for file in sorted(folder.rglob("*")) if file.is_file()}
