"""``python -m bench.load COMMAND …``: a command while every core is busy with other work; its exit code is ours.

A burner a core, each an endless loop in a process of its own and a session of its own, as strangers' work would be. They
end with the command, and with us.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PR_SET_PDEATHSIG = 1
BURN = "while True: pass"


@contextmanager
def burners(count: int) -> Iterator[None]:
    """So many cores' worth of other work."""
    started = [subprocess.Popen([sys.executable, "-S", "-c", BURN], start_new_session=True, preexec_fn=_dies_with_us)
               for _ in range(count)]
    try:
        yield
    finally:
        for each in started:
            each.kill()
            each.wait()


def _dies_with_us() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def cores() -> int:
    """Those that we may use."""
    return len(os.sched_getaffinity(0))


def main() -> int:
    """Run the command of the arguments under load. A Ctrl-C is the command's to answer."""
    if not sys.argv[1:]:
        print("usage: python -m bench.load COMMAND …", file=sys.stderr)
        return 2
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with burners(cores()):
        return subprocess.run(sys.argv[1:], preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)).returncode  # type: ignore[func-returns-value]


if __name__ == "__main__":
    sys.exit(main())
