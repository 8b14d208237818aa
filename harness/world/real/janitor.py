"""The janitor: a child that outlives the harness and takes back what a killed harness left standing.

    python -m harness.world.real.janitor RUN_FOLDER

Its standard input is a pipe whose other end only the harness holds. The word ``over`` on it means that the run
ended in order; the end of the pipe without that word means that the harness is dead.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from harness.world.real.processes import MARKER

CONTAINERS = "DRILLPROOF_CONTAINERS"
"""Set where the run has containers: without its folder only this tells."""
OVER = b"over\n"
PATIENCE_S = 2.0
"""The pipe closes a moment before the dead harness has left the process table."""


class Janitor:
    """The harness's end: start it first, dismiss it last."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        packages = Path(__file__).resolve().parents[3]
        path = os.pathsep.join(filter(None, (str(packages), os.environ.get("PYTHONPATH"))))
        with (folder / "node-logs" / "janitor.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness.world.real.janitor", str(folder)], stdin=subprocess.PIPE,
                stdout=log, stderr=log, env={**os.environ, **environment, "PYTHONPATH": path},
                start_new_session=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def dismiss(self) -> None:
        """All is in order: go without touching anything. Idempotent."""
        if self._process.stdin is None or self._process.stdin.closed:
            return
        try:
            self._process.stdin.write(OVER)
            self._process.stdin.close()
        except BrokenPipeError:  # it was killed; nothing is left to dismiss
            self._process.stdin = None
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # whoever ends the harness thus gets the janitor's help, not its end
    if sys.stdin.buffer.read().endswith(OVER):
        return 0
    from harness.errors import UsageError, WorldError
    from harness.world.real.undo import FILE, end_marked, recover, remove_containers

    folder = Path(sys.argv[1])
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            for each in recover(folder):
                print(f"undid {each.id}: {each.verb}", flush=True)
            return 0
        except UsageError as why:
            if not (folder / FILE).is_file():  # somebody took the folder away; our own environment knows the run
                print(f"{why}; ended {end_marked(os.environ[MARKER])} processes of the run", file=sys.stderr)
                if os.environ.get(CONTAINERS):
                    print(f"removed {remove_containers(os.environ[MARKER])}", file=sys.stderr)
                return why.code
            if time.monotonic() > deadline:
                print(why, file=sys.stderr)
                return why.code
            time.sleep(0.02)
        except WorldError as why:
            print(why, file=sys.stderr)
            return why.code


if __name__ == "__main__":
    sys.exit(main())
