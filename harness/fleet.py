"""Many runs side by side, each in a process of its own, with live progress.

Results come back in the order asked for, whatever finished first. Ctrl-C is passed on to every session as one SIGTERM:
each heals, stops its stack and seals its recording, and only then does the fleet return. A second Ctrl-C kills the
sessions, and their janitors clear up. Runs of the sim are forked from a nursery a slot, which has imported everything
once. Sessions have process groups of their own, because a terminal would send its
SIGINT to each of them besides.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import msgspec
import orjson

from harness.errors import DrillproofError
from harness.pack import told
from harness.session import ROOT, TOLD, Order, Result

TICK_S = 0.2


class Watcher(Protocol):
    """Who is told how the runs get on."""

    def __call__(self, index: int, word: str, facts: Mapping[str, Any]) -> None:
        """Run ``index`` has come to a word (queued runs say nothing; then starting, given, …, done) with facts."""
        ...

    def tick(self) -> None:
        """Time passed and nothing happened."""
        ...

    def stopping(self, how: str) -> None:
        """The fleet was interrupted."""
        ...

    def close(self) -> None:
        """All is over; what follows on the stream is somebody else's."""
        ...


NURSERIES_TRIED_MAX = 3
STOPPING = "healing, stopping the stacks and sealing the recordings; Ctrl-C again kills them"
KILLED = "killed; the janitors clear up"

STOPPING_MS_MAX = 30_000
"""A session that was told to stop and has not by now is killed; its janitor cleans up after it."""


class Fleet:
    """Runs orders, at most ``jobs`` at once."""

    def __init__(self, orders: Sequence[Order], jobs: int, watcher: Watcher) -> None:
        self._orders = orders
        self._jobs = max(1, jobs)
        self._watcher = watcher
        self._events: queue.Queue[tuple[int, dict[str, Any]]] = queue.Queue()
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._results: dict[int, Result] = {}
        self._told: dict[int, Mapping[str, Any]] = {}
        """Chapters that were asked for, until the run's result is there too."""
        self._nurseries: list[subprocess.Popen[bytes]] = []
        """Those that wait for an order."""
        self._to_say: list[str] = []
        self.interrupted = False
        self.errors: list[int] = []
        """Exit codes of sessions that ended by an error instead of a result."""

    def run(self) -> list[Result]:
        """Every order's result, in order; fewer when interrupted, or when a stack was left up to be looked at."""
        waiting = list(enumerate(self._orders))
        before = {each: signal.signal(each, self._interrupt) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            while self._running or (waiting and not self._over()):
                while waiting and len(self._running) < self._jobs and not self._over():
                    self._start(*waiting.pop(0))
                if self._running:
                    self._take()
                while self._to_say:
                    self._watcher.stopping(self._to_say.pop(0))
        finally:
            self._dismiss()
            for each, handler in before.items():
                signal.signal(each, handler)
            self._watcher.close()
        return [self._results[index] for index in sorted(self._results)]

    def _over(self) -> bool:
        return self.interrupted or any(each.held is not None for each in self._results.values())

    def _start(self, index: int, order: Order) -> None:
        asked = orjson.dumps(asdict(order))
        if order.world == "sim":
            process = self._hand_over(asked)
        else:
            command = [sys.executable, "-m", "harness.session", asked.decode(), str(os.getpid())]
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       start_new_session=True)
        self._running[index] = process
        if self.interrupted:  # in between: whoever interrupted did not see this one
            process.send_signal(signal.SIGTERM)
        threading.Thread(target=self._read, args=(index, process), daemon=True).start()

    def _hand_over(self, asked: bytes) -> subprocess.Popen[bytes]:
        """Ask a nursery for a run. One that died while it waited, and cannot be asked, is passed over."""
        for _ in range(NURSERIES_TRIED_MAX):
            process = self._nursery()
            assert process.stdin is not None
            try:
                process.stdin.write(asked + b"\n")
                process.stdin.flush()
                return process
            except BrokenPipeError:
                process.wait()
        raise DrillproofError("sessions of the sim cannot be started: their nurseries end at once")

    def _nursery(self) -> subprocess.Popen[bytes]:
        """One that waits for an order, else a new one."""
        while self._nurseries:
            process = self._nurseries.pop()
            if process.poll() is None:
                return process
        return subprocess.Popen([sys.executable, "-m", "harness.nursery", str(os.getpid())], cwd=ROOT,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)

    def _dismiss(self) -> None:
        """Nurseries end when nobody can ask them any more."""
        for process in self._nurseries:
            process.communicate()

    def _read(self, index: int, process: subprocess.Popen[bytes]) -> None:
        """Hand on what a run says, until its nursery says that it has ended or its own process has."""
        assert process.stdout is not None
        for line in process.stdout:
            event = _event(line)
            self._events.put((index, event))
            if "ended" in event:
                return
        self._events.put((index, {"ended": process.wait(), "gone": True}))

    def _take(self) -> None:
        try:
            index, event = self._events.get(timeout=TICK_S)
        except queue.Empty:
            self._watcher.tick()
            return
        if "ended" in event:
            process = self._running.pop(index)
            if "gone" not in event:
                self._nurseries.append(process)
            if index not in self._results:
                self._results[index] = self._lost(index, _ending(event["ended"]), DrillproofError.code)
            self._watcher(index, DONE, {"result": self._results[index]})
        elif "result" in event:
            self._results[index] = event["result"]
            if (facts := self._told.pop(index, None)) is not None:
                told.hear(facts.get("inputs"), facts.get("chapter"), event["result"].verdict)
        elif "error" in event:
            self._results[index] = self._lost(index, event["error"], event.get("code", DrillproofError.code))
        elif event["progress"] == TOLD:
            if self._orders[index].tell:
                self._told[index] = event
        else:
            self._watcher(index, event.pop("progress"), event)

    def _lost(self, index: int, why: str, code: int) -> Result:
        """A session without a result proves nothing."""
        if not self.interrupted:
            self.errors.append(code)
        order = self._orders[index]
        name = os.path.basename(order.drill).removesuffix(".yaml")
        status = "interrupted" if self.interrupted else "aborted"
        return Result(name, order.world, status, "INCONCLUSIVE", None, "", "", order.seed, order.placebo, (why,))

    def _interrupt(self, _number: int, _frame: object) -> None:
        first = not self.interrupted
        self.interrupted = True
        for process in tuple(self._running.values()):
            process.send_signal(signal.SIGTERM if first else signal.SIGKILL)
        self._to_say.append(STOPPING if first else KILLED)  # said by the loop: this may have struck in the middle of a print
        if first:
            threading.Thread(target=self._insist, daemon=True).start()

    def _insist(self) -> None:
        for process in tuple(self._running.values()):
            try:
                process.wait(STOPPING_MS_MAX / 1000)
            except subprocess.TimeoutExpired:
                process.kill()


EVENTS: Mapping[str, Any] = {"ended": int, "result": Result, "error": str, "progress": str}
"""What a line may be: by which key it is known, and of which kind that is."""
FACTS: Mapping[str, Any] = {**EVENTS, "code": int}
DONE = "done"
"""The word that is the fleet's own."""


def _event(line: bytes) -> dict[str, Any]:
    """What a run says. A line that is no event decides nothing and ends nothing: it is shown as it is."""
    try:
        facts = msgspec.convert(orjson.loads(line), dict[str, Any])
        event = {key: msgspec.convert(value, FACTS[key]) if key in FACTS else value for key, value in facts.items()}
        if EVENTS.keys().isdisjoint(event) or event.get("progress") == DONE:
            raise ValueError
        return event
    except ValueError:
        return {"progress": "said", "text": line.decode("utf-8", "replace").rstrip()}


def _ending(code: int) -> str:
    name = next((each.name for each in signal.Signals if each == -code), f"signal {-code}")
    return f"the run's process was killed by {name}" if code < 0 else f"the run's process ended with code {code}"
