"""``evidence/`` on a full disk, read-only, or removed in the middle of a run: an error with a name, and what was there
before is intact, whichever command it strikes.

Disks of their own need root: without, what needs one says so and is skipped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from attack_kit import (
    FULL,
    LASTS_S_MAX,
    POLL_S,
    Attacked,
    Report,
    begin,
    drill,
    eventually,
    left_behind,
    need_toxiproxy,
    processes,
    run,
    side_by_side,
    verdicts,
)

from harness.pack.runlog import verify_runlog

DISK_MB = 6
DRILL = "2_market_data_stale"


class Disk:
    """A small file system of its own under ``place``/evidence, with an evidence folder in it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.out = place / "evidence"
        self.out.mkdir(parents=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "attack", str(self.out)], capture_output=True,
                              text=True, timeout=30)
        if done.returncode:
            pytest.skip(f"a disk of its own cannot be mounted here: {done.stderr.strip()}")

    def fill(self) -> None:
        """To the last byte."""
        with (self.out / "fill").open("ab", buffering=0) as file:
            try:
                while file.write(b"x" * 4_096):
                    pass
            except OSError:
                return

    def drain(self) -> None:
        (self.out / "fill").unlink(missing_ok=True)

    def read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(self.out)], check=True, timeout=30)

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.out)], timeout=30)


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Callable[[str], Disk]]:
    made: list[Disk] = []

    def make(name: str) -> Disk:
        made.append(Disk(tmp_path / name))
        return made[-1]

    yield make
    for each in made:
        each.close()


def snapshot(out: Path) -> dict[str, str]:
    """Every file that is there, by the digest of its contents."""
    return {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(out.rglob("*"))
            if file.is_file() and file.name not in ("fill", "runs.jsonl", ".pack.lock", ".job.lock")}


def lay_by(place: Path) -> tuple[dict[str, str], bytes]:
    """An earlier run and a pack, as they stand before the attack: their files, and the run log."""
    out = place / "evidence"
    assert run(place, "run", DRILL, "--world", "sim").code == 0
    packed = run(place, "pack", "2", "--world", "sim")
    assert packed.code == 0, packed.said.decode()
    return snapshot(out), (out / "runs.jsonl").read_bytes()


def harmed(out: Path, before: tuple[dict[str, str], bytes]) -> Iterator[str]:
    """What of the earlier evidence is not as it was; the run log may have grown, in one chain."""
    files, log = before
    now = snapshot(out)
    yield from (f"{name} was changed or lost" for name, digest in files.items() if now.get(name) != digest)
    if not (out / "runs.jsonl").read_bytes().startswith(log):
        yield "the run log was changed"
    yield from (f"run log: {each}" for each in verify_runlog(out / "runs.jsonl"))


def key_of(place: Path) -> Path:
    key = place / "key"
    assert run(place, "seal", "key", str(key)).code == 0
    return key


def commands(place: Path) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """Every command that writes or reads evidence, with the codes that it may end with when nothing can be written."""
    out = str(place / "evidence")
    run_folder = str(next((place / "evidence" / "runs").iterdir()))
    return {
        "run, sim": (("run", DRILL, "--world", "sim"), (2,)),
        "run, local": (("run", drill("short_stall"), "--world", "local"), (2,)),
        "pack": (("pack", "2", "--world", "sim"), (2,)),
        "seal": (("seal", "attest", f"{out}/phase2", "--key", str(key_of(place))), (2,)),
        "judge": (("judge", run_folder), (0,)),
        "verify": (("verify", f"{out}/phase2"), (0,)),
        "gate": (("gate", "2", "--out", out), (1,)),
        "recover": (("recover", "--out", out), (0,)),
        "mutants": (("mutants", "--quick", "--out", out), (2,)),
    }


def nothing_writable(disk: Disk, how: Callable[[], None], words: bytes, report: Report, title: str) -> None:
    before = lay_by(disk.place)
    asked = commands(disk.place)
    how()
    wrong = []
    for name, (arguments, codes) in asked.items():
        done = run(disk.place, *arguments)
        if done.code not in codes:
            wrong.append(f"{name} ended with {done.code}: {done.said.decode()[-300:]}")
        elif done.code == 2 and (words not in done.said or b"Traceback" in done.said):
            wrong.append(f"{name} says: {done.said.decode()[-300:]}")
        report.add(f"{title}: {name}", f"code {done.code}")
    wrong += [*harmed(disk.out, before), *left_behind(disk.place, 2)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.timeout(300)
def test_nothing_can_be_written(disks: Callable[[str], Disk]) -> None:
    """On a full or a read-only disk every command that writes ends with 2 and the disk's own words; those that only read
    go on, and nothing is harmed."""
    need_toxiproxy()
    report = Report("nothing can be written")
    full, locked = disks("full"), disks("read_only")
    try:
        nothing_writable(full, full.fill, b"No space left on device", report, "full")
        nothing_writable(locked, locked.read_only, b"Read-only file system", report, "read-only")
    finally:
        report.show()


# ---- in the middle of a run --------------------------------------------------------------------------------

MOMENTS: dict[str, Callable[[Attacked], object]] = {
    "booting": lambda made: made.saw("node-logs/exchange.log"),
    "waiting for the given": lambda made: b"waiting for steady state" in made.said,
    "the fault is on": lambda made: b"fault on" in made.said,
    "recovering": lambda made: b"recovering" in made.said,
    "stopping": lambda made: b"stopping the stack" in made.said,
}
LATER_S = 0.3


def newest(made: Attacked) -> Path:
    return max(made.runs, key=lambda each: each.stat().st_mtime)


def local_run(made: Attacked) -> Path:
    return next(each for each in made.runs if "-local-" in each.name)


DEEDS: dict[str, tuple[Callable[[Disk | None, Attacked], object], tuple[bytes, ...]]] = {
    "the disk fills up": (lambda disk, made: disk and disk.fill(), (b"no room is left", b"No space left")),
    "its run folder is removed": (lambda disk, made: shutil.rmtree(local_run(made), ignore_errors=True),
                                  (b"was taken away", b"No such file")),
    "its recording is removed": (lambda disk, made: (local_run(made) / "recording.jsonl.gz").unlink(), (b"was taken away",)),
    "evidence is removed": (lambda disk, made: [shutil.rmtree(each, ignore_errors=True) for each in
                                                (made.out / "runs",)] and (made.out / "runs.jsonl").unlink(),
                            (b"was taken away", b"was removed", b"No such file")),
}


def struck(place: Path, disk: Disk | None, what: str, when: str, report: Report) -> None:
    before = lay_by(place) if what != "evidence is removed" else None
    made = begin(place, "run", drill("short_stall"), "--world", "local", "--json")
    end = time.monotonic() + LASTS_S_MAX
    while not MOMENTS[when](made) and made.process.poll() is None:
        assert time.monotonic() < end, "the moment never came"
        time.sleep(POLL_S)
    if when != "stopping":
        time.sleep(LATER_S)
    deed, words = DEEDS[what]
    deed(disk, made)
    code = made.wait()
    wrong = []
    late = when == "stopping" and code == 0  # everything had been seen, and there was room to say so
    if not late and (code not in (2, 3) or "PASS" in verdicts(made).values()):
        wrong.append(f"ended with {code} {dict(verdicts(made))}")
    if code in (2, 3) and not any(each in made.said for each in words):
        wrong.append(f"the reason is not told: {made.said.decode()[-400:]}")
    if b"Traceback" in made.said:
        wrong.append(f"a traceback: {made.said.decode()[-600:]}")
    if disk is not None:
        disk.drain()
    if not eventually(lambda: not processes(f"{place}/"), 20):
        wrong.append(f"left: {processes(f'{place}/')}")
    if before is not None:
        wrong += harmed(made.out, before)
    for turn in (1, 2):
        done = run(place, "recover")
        if done.code or (turn == 2 and b"nothing was left behind" not in done.told):
            wrong.append(f"recover {turn}: {done.code} {done.told.decode()} {done.said.decode()}")
    wrong += left_behind(place, 1)
    report.add(f"{what}, {when}", "WRONG" if wrong else f"ended with {code}")
    assert not wrong, f"{what}, {when}: " + "\n".join(wrong)


SHARE = [("the disk fills up", "the fault is on"), ("its run folder is removed", "the fault is on"),
         ("evidence is removed", "recovering")]


@pytest.mark.timeout(900)
def test_evidence_is_struck_in_the_middle_of_a_run(tmp_path: Path, disks: Callable[[str], Disk]) -> None:
    """Full, or taken away, at any moment: the run ends with a name, the stack with it, and earlier evidence is intact."""
    need_toxiproxy()
    report = Report("evidence struck")
    wanted = [(what, when) for what in DEEDS for when in MOMENTS] if FULL else SHARE
    if os.geteuid() != 0:
        print("without root no disk can be filled: only what is removed is tried")
        wanted = [each for each in wanted if each[0] != "the disk fills up"]
    jobs = []
    for n, (what, when) in enumerate(wanted):
        disk = disks(str(n)) if what == "the disk fills up" else None
        jobs.append(partial(struck, disk.place if disk else tmp_path / str(n), disk, what, when, report))
    try:
        side_by_side(jobs)
    finally:
        report.show()


def _half_made(out: Path, made: Attacked) -> bool:
    return bool(list(out.glob(".phase2.*.partial"))) or made.process.poll() is not None


@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", ["pack", "seal"])
def test_a_killed_pack_leaves_the_former_one(tmp_path: Path, what: str) -> None:
    """``kill -9`` while a pack is made or sealed: what was there verifies as before, and the next one sweeps up."""
    before = lay_by(tmp_path)
    out = tmp_path / "evidence"
    asked = ("pack", "2", "--world", "sim") if what == "pack" else \
        ("seal", "attest", str(out / "phase2"), "--key", str(key_of(tmp_path)))
    struck = 0
    for _ in range(8 if FULL else 2):
        made = begin(tmp_path, *asked)
        eventually(partial(_half_made, out, made), 60)
        if made.process.poll() is None:
            made.process.kill()
            struck += 1
        made.wait()
        assert not [*harmed(out, before)]
        assert run(tmp_path, "verify", str(out / "phase2")).code == 0
    assert struck
    done = run(tmp_path, *asked)
    assert done.code == 0, done.said.decode()
    assert run(tmp_path, "verify", str(out / "phase2")).code == 0
    assert not list(out.glob(".phase2.*.partial"))
