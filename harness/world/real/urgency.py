"""Being on time on a busy machine: the few threads that must not wait for their turn.

Linux may share the processors between sessions first and heed niceness only within one (autogroups), so niceness alone
does not help a process that was given a session of its own. The round-robin class goes before all ordinary work; it
needs a privilege, as does a negative niceness, and where neither is allowed we are as punctual as everybody. What was
granted is told, so that a reader knows under which conditions the punctuality in the recording came about. Nothing is
inherited: a node that is started meanwhile is an ordinary process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

PRIORITY = 1
"""The lowest of the class is enough: it has to go before ordinary work only."""
NICENESS = -10
ORDINARY = "ordinary"


def take() -> str:
    """Put the calling thread first, as far as it is allowed; returns how, in a word or two."""
    if _is_nice():
        return told(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    except OSError:  # needs CAP_SYS_NICE, and a control group that grants real time
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    return told(0)


def _is_nice() -> bool:
    """Whoever started us with ``nice`` wants other work to go before ours; and what is started meanwhile would lose it."""
    return os.getpriority(os.PRIO_PROCESS, 0) > 0


def told(pid: int) -> str:
    """How a process is scheduled, in a word or two."""
    try:
        if os.sched_getscheduler(pid) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR:
            return f"round-robin {os.sched_getparam(pid).sched_priority}"
        niceness = os.getpriority(os.PRIO_PROCESS, pid)
    except OSError:  # it is gone
        return "unknown"
    return f"niceness {niceness}" if niceness else ORDINARY


@contextlib.contextmanager
def urgent() -> Iterator[None]:
    """The round-robin class for a while, where it is allowed; niceness, once lowered, could not be given back."""
    before, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    if _is_nice():
        yield
        return
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    except OSError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, parameter)
