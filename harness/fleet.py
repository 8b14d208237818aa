"""Many runs side by side, each in a process of its own, with live progress.

Results come back in the order asked for, whatever finished first. Ctrl-C reaches every session (it is one
process group on a terminal, and SIGTERM is passed on): each heals, stops its stack and seals its recording, and
only then does the fleet return.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson

from harness.session import ROOT, Order, Result

Watcher = Callable[[int, str, Mapping[str, Any]], None]
"""Called with the order's index, a word (given, inject, heal, …, done) and facts."""

STOPPING_MS_MAX = 30_000
"""A session that was told to stop and has not by now is killed; its janitor cleans up after it."""


class Fleet:
    """Runs orders, at most ``jobs`` at once."""

    def __init__(self, orders: Sequence[Order], jobs: int, watcher: Watcher) -> None:
        self._orders = orders
        self._jobs = max(1, jobs)
        self._watcher = watcher
        self._events: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._results: dict[int, Result] = {}
        self.interrupted = False

    def run(self) -> list[Result]:
        """Every order's result, in order; fewer when interrupted."""
        waiting = list(enumerate(self._orders))
        before = {each: signal.signal(each, self._interrupt) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            while waiting or self._running:
                while waiting and len(self._running) < self._jobs and not self.interrupted:
                    self._start(*waiting.pop(0))
                if self.interrupted:
                    waiting = []
                if self._running:
                    self._take()
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
        return [self._results[index] for index in sorted(self._results)]

    def _start(self, index: int, order: Order) -> None:
        command = [sys.executable, "-m", "harness.session", orjson.dumps(asdict(order)).decode(), str(os.getpid())]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self._running[index] = process
        threading.Thread(target=self._read, args=(index, process), daemon=True).start()

    def _read(self, index: int, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                self._events.put((index, orjson.loads(line)))
            except orjson.JSONDecodeError:
                self._events.put((index, {"progress": "said", "text": line.decode("utf-8", "replace").rstrip()}))
        process.wait()
        self._events.put((index, None))

    def _take(self) -> None:
        try:
            index, event = self._events.get(timeout=0.2)
        except queue.Empty:
            return
        if event is None:
            process = self._running.pop(index)
            if index not in self._results:
                self._results[index] = self._lost(index, f"the session ended with code {process.returncode}")
            self._watcher(index, "done", {"result": self._results[index]})
        elif "result" in event:
            event["result"]["says"] = tuple(event["result"]["says"])
            self._results[index] = Result(**event["result"])
        elif "error" in event:
            self._results[index] = self._lost(index, event["error"])
        else:
            self._watcher(index, event.pop("progress"), event)

    def _lost(self, index: int, why: str) -> Result:
        """A session without a result proves nothing."""
        order = self._orders[index]
        name = os.path.basename(order.drill).removesuffix(".yaml")
        return Result(name, order.world, "aborted", "INCONCLUSIVE", None, "", "", order.seed, order.placebo, (why,))

    def _interrupt(self, number: int, _frame: object) -> None:
        first = not self.interrupted
        self.interrupted = True
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
        if first:
            threading.Thread(target=self._insist, daemon=True).start()

    def _insist(self) -> None:
        for process in tuple(self._running.values()):
            try:
                process.wait(STOPPING_MS_MAX / 1000)
            except subprocess.TimeoutExpired:
                process.kill()
