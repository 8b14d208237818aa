"""How the attacks run drills, strike them, and look at what is left.

Every attacked run has a folder of its own for evidence and for temporary files. All that it starts inherits that
folder's name in its environment, so whatever is left of it anywhere on the machine is found, however it was started.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from harness.pack.runlog import verify_runlog
from harness.recording.tape import read_lines
from harness.world.real import setup

ROOT = Path(__file__).resolve().parents[2]
DRILLS = Path(__file__).parent / "drills"
FULL = os.environ.get("ATTACK") == "full"
"""The whole campaign (``make attack``), or the share of it that runs with every test."""

AT_ONCE = 5 if FULL else 3
"""Attacked runs side by side: a local run mostly waits."""
POLL_S = 0.002
LASTS_S_MAX = 150
GONE_WITHIN_S = 20
GHOSTS = ("nodes", "*.clock", "*.trap*", ".*.partial", ".*.new", "*.new")
"""What a run makes and takes away again."""


def need_toxiproxy() -> Path:
    """The real server. Without one nothing here says anything."""
    found = setup.find()
    assert found is not None, f"the Toxiproxy server is needed here: {setup.explain()}"
    return found


@dataclass(frozen=True)
class Found:
    """One living process of a run."""

    pid: int
    command: bytes
    environment: bytes
    state: str

    def holds(self, *words: bytes) -> bool:
        """Whether its command line and environment hold all these words."""
        return all(word in self.command + b"\n" + self.environment for word in words)


def look(pid: int) -> Found | None:
    """A living process, or None."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # it ended while we looked
        return None
    return Found(pid, command, environment, state) if state not in "ZX" else None


def processes(sign: str) -> list[Found]:
    """Living processes that carry ``sign`` in their command line or environment; not this one."""
    looked = (look(int(name)) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid())
    return [each for each in looked if each is not None and each.holds(sign.encode())]


@dataclass
class Attacked:
    """One command under attack. ``said`` is its standard error so far, ``told`` its standard output at the end; ``heard``:
    each line of both, and when (seconds of the wall clock)."""

    place: Path
    process: subprocess.Popen[bytes]
    begun: float
    said: bytes = b""
    told: bytes = b""
    code: int | None = None
    readers: list[threading.Thread] = field(default_factory=list)
    heard: list[tuple[float, bytes]] = field(default_factory=list)

    def heard_at(self, words: bytes) -> float:
        """When it first said this; endlessly late if it never did."""
        return next((at for at, line in self.heard if words in line), math.inf)

    @property
    def out(self) -> Path:
        return self.place / "evidence"

    @property
    def runs(self) -> list[Path]:
        return sorted(each for each in (self.out / "runs").glob("*") if each.is_dir())

    def saw(self, pattern: str) -> bool:
        """Whether such a file lies in a run folder."""
        return next((self.out / "runs").glob(f"*/{pattern}"), None) is not None

    def of(self, *words: bytes) -> list[int]:
        """Its processes whose command line and environment hold all these words."""
        return [each.pid for each in processes(f"{self.place}/") if each.holds(*words)]

    def wait(self, seconds: float = LASTS_S_MAX) -> int:
        """Its exit code; negative for the signal that ended it."""
        self.code = self.process.wait(seconds)
        for each in self.readers:
            each.join(5)
        return self.code


def environment(place: Path) -> dict[str, str]:
    """Temporary files go where they are seen, and the folder's name marks every process."""
    (place / "tmp").mkdir(parents=True, exist_ok=True)
    return {**os.environ, "TMPDIR": str(place / "tmp"), "PYTHONPATH": str(ROOT), "DRILLPROOF_EVIDENCE": str(place / "evidence")}


def begin(place: Path, *arguments: str, module: str = "harness.cli", more: Mapping[str, str] | None = None,
          **options: Any) -> Attacked:
    """Start a command of ours in a session of its own; its evidence goes to ``place``/evidence. ``more`` adds to its
    environment, ``options`` to Popen's."""
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=options.pop("cwd", ROOT),
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=environment(place) | dict(more or {}), start_new_session=True, **options)
    made = Attacked(place, process, time.monotonic())

    def read(stream: Any, name: str) -> None:
        for line in stream:
            made.heard.append((time.time(), line))
            setattr(made, name, getattr(made, name) + line)

    for stream, name in ((process.stderr, "said"), (process.stdout, "told")):
        made.readers.append(threading.Thread(target=read, args=(stream, name), daemon=True))
        made.readers[-1].start()
    return made


def run(place: Path, *arguments: str, **more: Any) -> Attacked:
    """A command of ours to its end."""
    made = begin(place, *arguments, **more)
    made.wait()
    return made


def drill(name: str) -> str:
    """A drill file of this room, of tests/faults, or of drills/phase2."""
    for folder in (DRILLS, ROOT / "tests" / "faults" / "drills", ROOT / "drills" / "phase2"):
        if (folder / f"{name}.yaml").is_file():
            return str(folder / f"{name}.yaml")
    raise AssertionError(f"no drill {name}")


def eventually(what: Callable[[], object], within_s: float) -> bool:
    """Whether it comes true in time."""
    end = time.monotonic() + within_s
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


# ---- what is left ------------------------------------------------------------------------------------------


def ghosts(place: Path) -> list[str]:
    """Files that a run should have taken away, and anything at all among its temporary files."""
    found = [file for runs in [place / "evidence" / "runs"] for ghost in GHOSTS for file in runs.glob(f"**/{ghost}")]
    found += [*(place / "tmp").glob("**/*")]
    return sorted(str(each.relative_to(place)) for each in found)


def left_behind(place: Path, within_s: float = GONE_WITHIN_S) -> list[str]:
    """What is left of a run after a while: processes, stopped or not, and files."""
    eventually(lambda: not processes(f"{place}/") and not ghosts(place), within_s)
    return [f"process {each.pid} ({each.state}): {each.command.decode(errors='replace')[:120]}"
            for each in processes(f"{place}/")] + ghosts(place)


def recording(folder: Path) -> list[dict[str, Any]]:
    """The lines of a recording as far as it goes; none where the run had not come to one."""
    file = folder / "recording.jsonl.gz"
    return list(read_lines(file)) if file.is_file() else []


def is_whole(folder: Path) -> bool:
    """Whether a recording is sealed as completed: then its run was over before it was struck."""
    lines = recording(folder)
    return bool(lines) and lines[-1]["line"] == "seal" and lines[-1]["status"] == "completed"


def complaints(made: Attacked, *, may_leave_files: bool = False) -> Iterator[str]:
    """What is wrong after a strike, whatever it was: left-overs, an unreadable recording, a PASS, a broken run log."""
    left = left_behind(made.place)
    if may_leave_files:  # the guard was killed, too: files wait for `recover`, processes do not
        left = [each for each in left if each.startswith("process")]
    yield from (f"left: {each}" for each in left)
    for turn in ("first", "second"):
        done = run(made.place, "recover")
        if done.code:
            yield f"the {turn} recover ended with {done.code}: {done.said.decode()}"
        if turn == "second" and b"nothing was left behind" not in done.told:
            yield f"recover is not idempotent: {done.told.decode()}"
    yield from (f"left after recover: {each}" for each in left_behind(made.place, 0))
    for folder in made.runs:
        yield from _wrong_recording(made, folder)
    if (made.out / "runs.jsonl").exists():
        yield from (f"run log: {each}" for each in verify_runlog(made.out / "runs.jsonl"))


def _wrong_recording(made: Attacked, folder: Path) -> Iterator[str]:
    lines = recording(folder)
    if (folder / "recording.jsonl.gz").is_file() and (folder / "recording.jsonl.gz").stat().st_size > 100 and not lines:
        yield "the recording cannot be read"
    if lines and lines[0]["line"] != "head":
        yield f"the recording begins with {lines[0]['line']}"
    if not (folder / "recording.jsonl.gz").is_file():
        return
    judged = run(made.place, "judge", str(folder), "--json")
    try:
        verdict = orjson.loads(judged.told)
    except orjson.JSONDecodeError:
        yield f"judge ended with {judged.code}: {judged.said.decode()[-300:]}"
        return
    if not is_whole(folder) and (verdict["verdict"] == "PASS" or verdict["status"] == "completed" or judged.code == 0):
        yield f"a run that was cut off is judged {verdict['status']} {verdict['verdict']} ({judged.code})"


# ---- many strikes ------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What a campaign did, for people."""

    title: str
    rows: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, what: str, came_of: str) -> None:
        with self.lock:
            self.rows.append((what, came_of))

    def show(self) -> None:
        """Printed at the end of a campaign; pytest shows it with -s, and whenever something failed."""
        counts: dict[str, int] = {}
        for _, came_of in self.rows:
            counts[came_of] = counts.get(came_of, 0) + 1
        print(f"\n{self.title}: {len(self.rows)} strikes: " + " · ".join(f"{n} {what}" for what, n in sorted(counts.items())))
        if FULL:
            for what, came_of in sorted(self.rows):
                print(f"  {what:58} {came_of}")


def side_by_side(jobs: Sequence[Callable[[], None]], at_once: int = AT_ONCE) -> None:
    """Carry out jobs, so many at once; the first assertion that fails is raised when all have ended."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(at_once) as pool:
        failed = [each.exception() for each in [pool.submit(job) for job in jobs]]
    if wrong := [str(each) for each in failed if each is not None]:
        raise AssertionError("\n".join(wrong))


def signal_name(number: int) -> str:
    return signal.Signals(number).name


def verdicts(made: Attacked) -> Mapping[str, str]:
    """Drill → verdict as ``run --json`` told it."""
    return {each["drill"]: each["verdict"] for each in orjson.loads(made.told)["drills"]} if made.told else {}
