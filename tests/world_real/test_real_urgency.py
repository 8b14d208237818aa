"""Being first in line: what is granted is told, nothing is inherited, and what was taken for a while is given back."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness.world.real import urgency

ROOT = Path(__file__).resolve().parent.parent.parent
TOLD = "import os; print(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, os.getpriority(os.PRIO_PROCESS, 0))"
ASKS = "from harness.world.real import urgency; print(urgency.take(), urgency.told(0), sep='|')"


def child() -> str:
    return subprocess.run([sys.executable, "-c", TOLD], capture_output=True, text=True, check=True).stdout.strip()


def test_what_is_taken_for_a_while_is_given_back_and_not_inherited() -> None:
    """A node that is started while we are urgent is an ordinary process, and so are we afterwards."""
    before, ordinary = os.sched_getscheduler(0), child()
    with urgency.urgent():
        during, started = os.sched_getscheduler(0), child()
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(os.sched_getscheduler(0)))
        thread.start()
        thread.join()
    assert started == ordinary and seen[0] & ~os.SCHED_RESET_ON_FORK != os.SCHED_RR
    assert os.sched_getscheduler(0) == before
    assert during & ~os.SCHED_RESET_ON_FORK in (os.SCHED_RR, before)


def test_a_failure_gives_it_back_too() -> None:
    """Whatever happens meanwhile."""
    before = os.sched_getscheduler(0)
    try:
        with urgency.urgent():
            raise KeyError
    except KeyError:
        assert os.sched_getscheduler(0) == before


def test_a_process_tells_what_it_was_granted() -> None:
    """As root: the round-robin class; without the privilege: what there is, in words, and no error."""
    ours = subprocess.run([sys.executable, "-c", ASKS], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    taken, told = ours.strip().split("|")
    assert taken == told and taken.startswith(("round-robin ", "niceness ", "ordinary"))


def test_without_the_privilege_nothing_is_taken_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel refuses is done without."""
    def refuse(*_: object) -> None:
        raise PermissionError

    before = urgency.told(0)
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(os, "setpriority", refuse)
    assert urgency.take() == before
    with urgency.urgent():
        assert urgency.told(0) == before


def test_a_process_that_is_gone_is_unknown() -> None:
    """Asked after its end, nobody can say."""
    done = subprocess.Popen([sys.executable, "-c", "pass"])
    done.wait()
    assert urgency.told(done.pid) == "unknown"


def test_who_was_started_nicely_stays_nice() -> None:
    """``nice drillproof run …`` lets other work go first, and so does everything that it starts."""
    script = f"import os\nos.nice(3)\n{ASKS}\nwith urgency.urgent(): print(urgency.told(0))"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert said.split() == f"niceness {before + 3}|niceness {before + 3} niceness {before + 3}".split()
