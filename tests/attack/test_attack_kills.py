"""Killed at every moment of a run: by Ctrl-C, SIGTERM and ``kill -9``; the command, the session, its helpers, the stack.

Whatever is struck and whenever: no process of the run is left, stopped or not, no proxy, no clock file and no
temporary file; the recording up to then can be read and is never judged PASS; ``recover`` finds nothing more to do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from attack_kit import (
    FULL,
    LASTS_S_MAX,
    POLL_S,
    ROOT,
    Attacked,
    Report,
    begin,
    complaints,
    drill,
    environment,
    is_whole,
    look,
    need_toxiproxy,
    side_by_side,
    signal_name,
)

Moment = tuple[Callable[[Attacked], object], int]
"""When: a condition, and so many milliseconds after it."""


def said(words: str) -> Callable[[Attacked], object]:
    return lambda made: words.encode() in made.said


def saw(pattern: str) -> Callable[[Attacked], object]:
    return lambda made: made.saw(pattern)


MOMENTS: dict[str, Moment] = {
    "importing": (lambda made: True, 120),
    "the run folder is there": (lambda made: made.runs, 0),
    "what ends the run is written": (saw("undo.jsonl"), 0),
    "the janitor starts": (saw("node-logs/janitor.log"), 2),
    "Toxiproxy starts": (saw("node-logs/toxiproxy.log"), 5),
    "the sampler starts": (saw("node-logs/sampler.log"), 5),
    "the exchange boots": (saw("node-logs/exchange.log"), 30),
    "the trader boots": (saw("node-logs/trader.log"), 30),
    "waiting for the given": (said("waiting for steady state"), 700),
    "the link is stalled": (said("fault on: feed"), 50),
    "a link is cut": (said("fault on: asked"), 50),
    "a switch is on": (said("fault on: quiet"), 50),
    "the clock is stepped": (said("fault on: step"), 50),
    "the writer is stopped": (said("fault on: disk"), 5),
    "the watchdog is paused": (said("fault on: dog"), 100),
    "the first is healed": (said("fault off: dog"), 0),
    "the clock is right again": (said("fault off: step"), 3),
    "the last is healed": (said("fault off: feed"), 10),
    "recovering": (said("recovering"), 300),
    "stopping": (said("stopping the stack"), 0),
    "the nodes end": (said("stopping the stack"), 120),
    "the streams are kept": (saw("streams/books.jsonl"), 0),
    "judging": (said("judging"), 0),
}
OVER = ("stopping", "the nodes end", "the streams are kept", "judging")
"""From here on everything has been seen: what is struck now may come too late to matter."""

SESSION, JANITOR, SAMPLER, PROXY = b"harness.session", b"real.janitor", b"real.sampler", b"toxiproxy-server"
EXCHANGE = b"NODE_NAME=exchange\0"
PAUSE_S = 1.5
"""So long after its janitor a session is killed: by then it has another."""


def victims_of(made: Attacked, *words: bytes) -> list[int]:
    return [each for each in made.of(*words) if each != made.process.pid or words == (b"harness.",)]


def strike(made: Attacked, number: signal.Signals, *words: bytes) -> int:
    """Send a signal to all of its processes that hold these words; how many there were.

    Each is looked at once more: who was just born has its parent's command line until it runs a program of its own.
    """
    struck = 0
    for pid in victims_of(made, *words):
        if (now := look(pid)) is None or not now.holds(*words):
            continue
        try:
            os.kill(pid, number)
            struck += 1
        except ProcessLookupError:
            continue
    return struck


def command(number: signal.Signals) -> Callable[[Attacked], int]:
    def deed(made: Attacked) -> int:
        if made.process.poll() is not None:
            return 0
        made.process.send_signal(number)
        return 1

    return deed


def guard_first(made: Attacked) -> int:
    """The janitor, and a moment later the session that it guards."""
    struck = strike(made, signal.SIGKILL, JANITOR)
    time.sleep(PAUSE_S)
    return struck and struck + strike(made, signal.SIGKILL, SESSION)


VICTIMS: dict[str, Callable[[Attacked], int]] = {
    "Ctrl-C": command(signal.SIGINT),
    "SIGTERM": command(signal.SIGTERM),
    "kill -9 of the command": command(signal.SIGKILL),
    "kill -9 of the session": lambda made: strike(made, signal.SIGKILL, SESSION),
    "kill -9 of all of ours": lambda made: strike(made, signal.SIGKILL, b"harness."),
    "kill -9 of the janitor": lambda made: strike(made, signal.SIGKILL, JANITOR),
    "kill -9 of the janitor, then the session": guard_first,
    "kill -9 of the sampler": lambda made: strike(made, signal.SIGKILL, SAMPLER),
    "kill -9 of Toxiproxy": lambda made: strike(made, signal.SIGKILL, PROXY),
    "kill -9 of the exchange": lambda made: strike(made, signal.SIGKILL, EXCHANGE),
    "SIGSTOP of the exchange": lambda made: strike(made, signal.SIGSTOP, EXCHANGE),
}
HARMLESS = ("kill -9 of the janitor",)
"""The run is guarded anew and goes on."""
INTERRUPTS = ("Ctrl-C", "SIGTERM")
REASONS = {"kill -9 of the sampler": b"sampler", "kill -9 of Toxiproxy": b"oxiproxy", "kill -9 of the exchange": b"exchange",
           "SIGSTOP of the exchange": b"exchange"}
INTERRUPTED, UNREAD = 130, 141


def wait_for(made: Attacked, moment: Moment) -> None:
    condition, later_ms = moment
    end = time.monotonic() + LASTS_S_MAX
    while not condition(made) and made.process.poll() is None:
        assert time.monotonic() < end, "the moment never came"
        time.sleep(POLL_S)
    time.sleep(later_ms / 1000)


def attack(place: Path, who: str, when: str, report: Report, world: str = "local") -> None:
    """One run, one strike; raises AssertionError with all that is wrong."""
    made = begin(place, "run", drill("everything"), "--world", world)
    wait_for(made, MOMENTS[when])
    struck = VICTIMS[who](made)
    code = made.wait()
    late = when in OVER and any(is_whole(each) for each in made.runs)
    unguarded = who == "kill -9 of all of ours" or (who == "kill -9 of the janitor, then the session" and when in OVER)
    wrong = list(complaints(made, may_leave_files=unguarded))
    if struck and code == 0 and who not in HARMLESS and not late:
        wrong.append("the command ended with 0")
    if struck and who in INTERRUPTS and code not in (INTERRUPTED, *((0, 1, 3) if late else ()), *unborn(made, who)):
        wrong.append(f"the command ended with {code}")
    if struck and who in REASONS and not late and REASONS[who] not in made.said:
        wrong.append("the reason is not told")
    came_of = "nobody was there" if not struck else f"ended with {code}" if code >= 0 else f"ended by {signal_name(-code)}"
    report.add(f"{who}, {when}", f"WRONG: {'; '.join(wrong)}" if wrong else came_of)
    assert not wrong, f"{who}, {when} (code {code}): {'; '.join(wrong)}\n{made.said.decode()[-1500:]}"


def unborn(made: Attacked, who: str) -> tuple[int, ...]:
    """An interpreter that had not come to our first line is ended by the signal itself."""
    return () if made.runs else (-signal.SIGTERM, -signal.SIGINT)


SHARE = [("Ctrl-C", "the clock is stepped"), ("SIGTERM", "the trader boots"),
         ("kill -9 of the command", "the writer is stopped"),
         ("kill -9 of all of ours", "the watchdog is paused"), ("kill -9 of the janitor, then the session", "a link is cut"),
         ("kill -9 of Toxiproxy", "waiting for the given")]


HELPERS = ("kill -9 of the janitor", "kill -9 of the janitor, then the session", "kill -9 of the sampler",
           "SIGSTOP of the exchange")
SOME = ("the trader boots", "waiting for the given", "the link is stalled", "the watchdog is paused", "recovering", "stopping")
"""When helpers are struck: theirs are few states."""


@pytest.mark.timeout(1800 if FULL else 300)
def test_struck_at_every_moment(tmp_path: Path) -> None:
    """Seven ways to strike at twenty-three moments, four more at six: nothing is left, the recording is readable, nothing
    passes."""
    need_toxiproxy()
    wanted = [(who, when) for who in VICTIMS for when in (SOME if who in HELPERS else MOMENTS)] if FULL else SHARE
    report = Report("killed")
    try:
        side_by_side([partial(attack, tmp_path / str(n), who, when, report) for n, (who, when) in enumerate(wanted)])
    finally:
        report.show()


@pytest.mark.parametrize("arguments", [("gate", "2", "--json"), ("check", "phase2"),
                                       ("run", "2_market_data_stale", "--world", "sim")], ids=lambda each: each[0])
def test_an_answer_that_nobody_reads_is_no_pass(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A reader that hangs up, like ``head``, never makes an exit code of 0: what it did not read may have been a FAIL."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "harness.cli", *arguments], cwd=ROOT, env=environment(tmp_path),
                          stdout=writing, stderr=subprocess.PIPE, timeout=LASTS_S_MAX)
    os.close(writing)
    assert done.returncode == UNREAD, done.stderr.decode()
