"""Equal inputs, equal bytes, with the reference stack and shipped drills; and what a run leaves holds no secret."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from fault_kit import ROOT, order, run

from harness.verdict.judge import judge
from harness.world.sim import dice
from harness.world.stack import load_stack

CODE = ("import sys; from pathlib import Path; from test_fault_determinism import digests; "
        "print(digests(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])))")
SHIPPED = ("1_partial_fill_containment", "4_crash_restart_mid_flight", "8_unknown_token_force_kill")


def digests(name: str, runs: Path, policy: str, seed: int) -> dict[str, str]:
    """Everything that a run wrote, unpacked, but for what may differ between equal runs."""
    folder = Path(run(order(name, runs, seed=seed, policy=policy)).recording)
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != "versions.json"]
    return {str(file.relative_to(folder)): hashlib.sha256(unpacked(file)).hexdigest() for file in files} | {
        "run_id": folder.name}


def unpacked(file: Path) -> bytes:
    return gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()


def beginning(name: str, runs: Path, policy: str, seed: int, hash_seed: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    return subprocess.Popen([sys.executable, "-c", CODE, name, str(runs), policy, str(seed)], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
                            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path})


@pytest.mark.parametrize(("name", "policy"), [*zip(SHIPPED, ("reference", "drill", "drill"), strict=True)])
def test_two_processes_write_the_same_bytes(tmp_path: Path, name: str, policy: str) -> None:
    """The same seed with two hash seeds: recording, streams and verdict are equal; another seed writes others."""
    runs = [beginning(name, tmp_path / str(n), policy, seed, hash_seed)
            for n, (seed, hash_seed) in enumerate(((7, "1"), (7, "31337"), (8, "1")))]
    said = [(each.communicate(timeout=200), each.returncode) for each in runs]
    assert all(code == 0 for _, code in said), said
    first, second, other = (out for (out, _), _ in said)
    assert first == second
    assert first != other


@pytest.mark.parametrize("name", SHIPPED)
def test_judging_again_says_the_same_bytes(tmp_path: Path, name: str) -> None:
    """From the folder alone, in a process with another hash seed."""
    folder = Path(run(order(name, tmp_path, policy="drill")).recording)
    kept = orjson.loads((folder / "verdict.json").read_bytes())
    assert orjson.dumps(judge(folder, ROOT), option=orjson.OPT_SORT_KEYS) == orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)
    done = subprocess.run([sys.executable, "-m", "harness.cli", "judge", "--json", str(folder)], cwd=ROOT, timeout=60,
                          capture_output=True, env={**os.environ, "PYTHONHASHSEED": "99"})
    assert orjson.loads(done.stdout) == kept


def test_no_secret_stands_in_anything_that_a_run_leaves(tmp_path: Path) -> None:
    """The canary and every other secret, plain, in base64 and in hexadecimal: in no file, versions and verdict included."""
    stack = load_stack(ROOT / "system_under_test" / "stack.yaml")
    result = run(order("7_session_termination", tmp_path / "runs", seed=5, policy="drill"))
    secrets = [dice.token(5, name).encode() for name in stack.secrets]
    assert len(secrets) >= 4
    needles = [form for secret in secrets for form in (secret, base64.b64encode(secret)[:-4], secret.hex().encode())]
    for file in (tmp_path).rglob("*"):
        if file.is_file():
            data = unpacked(file)
            assert not [needle for needle in needles if needle in data], file
    assert not any("no_secret_leaked" in sentence for sentence in result.says)


def test_a_trader_that_tells_its_canary_is_caught(tmp_path: Path) -> None:
    """Wherever it says it: the search finds it in the recording, the streams or the log, and the law FAILs."""
    for where in ("note", "status"):
        result = run(order("short_stall", tmp_path / where, policy="drill",
                           machines={"trader": f"test_fault_determinism:tells_in_{where}"}))
        assert any("FAIL no_secret_leaked" in sentence for sentence in result.says), result.says


class _Tells:
    """The reference trader, which also says its canary: in a note at its start, or in every status."""

    def __init__(self, environment, where: str) -> None:
        from system_under_test.trader import make

        self._machine, self._canary, self._where = make(environment), environment["CANARY"], where

    def handle(self, now, value):
        from system_under_test.machine import Note, Response, Start

        for out in self._machine.handle(now, value):
            if self._where == "status" and isinstance(out, Response):
                yield Response(out.conn, out.id, out.status, (("x-debug", self._canary),), out.body[:-1]
                               + b',"debug":"' + self._canary.encode() + b'"}')
            else:
                yield out
        if self._where == "note" and isinstance(value, Start):
            yield Note("debug", None, {"environment": {"CANARY": self._canary}})


def tells_in_note(environment):
    return _Tells(environment, "note")


def tells_in_status(environment):
    return _Tells(environment, "status")
