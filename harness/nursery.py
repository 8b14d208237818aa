"""Sessions of the sim without the wait: a process that has imported everything once, and forks for each order.

Every run still has a process of its own, so that none disturbs another; what they share is the third of a second
that importing takes, as much as a minute of simulation. ``python -m harness.nursery PARENT`` takes one order a line
on standard input, carries it out as ``python -m harness.session`` would, and says ``{"ended": code}`` after it. It
has one thread and opens nothing, so forking it is safe. Real worlds, with their loops and children, are not for it.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import traceback

import orjson

from harness import session


class Nursery:
    """One order at a time. SIGTERM is handed to the run that is under way; a nursery that dies takes its run along."""

    def __init__(self, events: int) -> None:
        self._events = events
        """where it, and the runs, say what they have to say"""
        self._child: int | None = None

    def serve(self) -> int:
        """Until nobody asks any more. Returns the exit code."""
        signal.signal(signal.SIGTERM, self._pass_on)
        for line in sys.stdin.buffer:
            _warm(line)
            code = self._carry_out(line)
            try:
                os.write(self._events, orjson.dumps({"ended": code}) + b"\n")
            except BrokenPipeError:  # whoever asked is gone
                return 0
        return 0

    def _carry_out(self, line: bytes) -> int:
        """The exit code of the run, negative for the signal that ended it."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # none falls between the fork and knowing of the child
        nursery = os.getpid()
        self._child = os.fork()
        if not self._child:
            os._exit(_run(line, nursery, self._events))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        _, status = os.waitpid(self._child, 0)
        self._child = None
        return os.waitstatus_to_exitcode(status)

    def _pass_on(self, number: int, _frame: object) -> None:
        if self._child is None:
            sys.exit(128 + number)
        try:
            os.kill(self._child, number)
        except ProcessLookupError:  # it has just ended by itself
            return


def _run(line: bytes, nursery: int, events: int) -> int:
    """In the child: what ``python -m harness.session ORDER PARENT`` does."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        sys.argv = ["harness.session", line.decode(), str(nursery)]
        code = session.main(events)
        sys.stdout.flush()
        return code
    except BaseException:  # as the interpreter would end it
        traceback.print_exc()
        return 1


def _warm(line: bytes) -> None:
    """Load what the order needs. What cannot be loaded the run itself complains of."""
    try:
        session.warm(session.Order(**orjson.loads(line)))
    except Exception as why:
        print(f"nursery: nothing was imported ahead: {why}", file=sys.stderr)
    gc.freeze()  # what was imported stays shared: a collection in a child does not touch it
    gc.set_threshold(20_000, 20, 20)  # a run makes little that only a collection could free


def main() -> int:
    """Serve for as long as the parent lives."""
    ctypes.CDLL(None).prctl(session.PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):  # it died before the line above
        return 130
    return Nursery(session.channel()).serve()


if __name__ == "__main__":
    sys.exit(main())
