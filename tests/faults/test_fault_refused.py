"""What a world cannot or must not do is refused before anything starts: with the reason, status refused, exit 3."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from fault_kit import DRILLS, ROOT, STACK, command, lines, order, run

from harness.errors import UsageError
from harness.world.real.undo import FILE

REASONS = {"disk_full": "own disk is never filled", "disk_slow": "needs a block device of our own",
           "disk_torn": "nothing is torn unless by luck", "disk_unsynced": "nothing unsynced is lost"}


def test_disks_that_cannot_be_broken_for_real(tmp_path: Path) -> None:
    """Each kind is refused by its name and reason; nothing was started, and the command's exit code is 3."""
    code, said = command(tmp_path, "local", *REASONS)
    assert code == 3
    for name, each in zip(REASONS, said, strict=True):
        assert (each["status"], each["verdict"]) == ("refused", "INCONCLUSIVE")
        assert any(REASONS[name] in sentence for sentence in each["says"])
        assert {line["line"] for kind in ("head", "seal", "mark", "act") for line in lines(each["recording"], kind)} == {
            "head", "seal"}
        assert not (Path(each["recording"]) / FILE).exists() and not (Path(each["recording"]) / "node-logs").exists()


def test_the_reason_is_shown_to_a_person(tmp_path: Path) -> None:
    """Not only to machines."""
    done = subprocess.run([sys.executable, "-m", "harness.cli", "run", str(DRILLS / "disk_full.yaml"), "--world", "local",
                           "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert REASONS["disk_full"] in done.stderr + done.stdout


def _stack(tmp_path: Path, old: str, new: str) -> str:
    text = STACK.read_text()
    assert old in text
    folder = tmp_path / "stack"
    folder.mkdir()
    (folder / "policies").symlink_to(STACK.parent / "policies")
    (folder / "stack.yaml").write_text(text.replace(old, new, 1))
    return str(folder / "stack.yaml")


def test_a_foreign_upstream_is_refused_end_to_end(tmp_path: Path) -> None:
    """A link that leads to a real exchange starts nothing."""
    stack = _stack(tmp_path, 'env: ORDERS_URL, url: "ws://{address}', 'env: ORDERS_URL, url: "wss://www.deribit.com')
    result = run(dataclasses.replace(order("short_stall", tmp_path / "runs", "local"), stack=stack))
    assert (result.status, result.verdict) == ("refused", "INCONCLUSIVE")
    assert "www.deribit.com" in result.says[0] and "beyond this machine" in result.says[0]
    assert not (Path(result.recording) / FILE).exists()


@pytest.mark.parametrize("world", ["sim", "local"])
def test_a_live_stack_is_refused_in_every_world(tmp_path: Path, world: str) -> None:
    """Before a run folder exists."""
    stack = _stack(tmp_path, "deployment_environment: DEV", "deployment_environment: LIVE")
    with pytest.raises(UsageError, match="never touch real money"):
        run(dataclasses.replace(order("short_stall", tmp_path / "runs", world), stack=stack))
    assert not (tmp_path / "runs").exists()
