"""The watcher: each change of a file is told as what it was, whoever writes there; and it reads nothing but plain files."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness import limits
from harness.errors import WorldError
from harness.recording.tape import Tape
from harness.recording.timeline import Timeline
from harness.world.real.clock import Epoch
from harness.world.real.local import LocalWorld
from harness.world.real.watcher import Watcher, kernel
from harness.world.real.watching import Heard, LocalWatching
from harness.world.stack import Stack, load_stack

PATIENCE_S = 20
SELDOM_MS = 3_600_000
"""A grid so wide that every line is about a change."""
BY = [pytest.param(kernel, id="inotify"), pytest.param(lambda: None, id="comparing")]


class Said:
    """What one watcher says, and waiting for it."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self._past = 0

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Every line since the last one that was waited for, up to this one."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for place in range(self._past, len(self.lines)):
                if wanted(self.lines[place]):
                    found, self._past = self.lines[self._past:place + 1], place + 1
                    return found
            time.sleep(0.005)
        raise AssertionError(self.lines[self._past:])

    def hows(self, wanted: Callable[[dict[str, Any]], bool]) -> list[str]:
        return [line["how"] for line in self.until(wanted) if "how" in line]


@contextmanager
def watching(folder: Path, file: str = "nav.json", every_ms: int = SELDOM_MS, by: Any = kernel) -> Iterator[Said]:
    """A watcher in a thread of this process, which has looked at the file once."""
    into, out = os.pipe(), os.pipe()
    said = Said()
    watcher = Watcher(Epoch(), out[1], by())

    def hear() -> None:
        with os.fdopen(out[0], "rb") as stream:
            said.lines += [{}]
            for line in stream:
                said.lines.append(json.loads(line))

    threads = [threading.Thread(target=watcher.run, args=(into[0],)), threading.Thread(target=hear)]
    for each in threads:
        each.start()
    orders = ({"watch": "nav", "folder": str(folder), "file": file, "every_ms": every_ms}, {"clock": True})
    os.write(into[1], b"".join(json.dumps(each).encode() + b"\n" for each in orders))
    try:
        said.until(lambda line: "clock" in line)
        yield said
    finally:
        os.close(into[1])
        threads[0].join()
        os.close(out[1])
        threads[1].join()
        os.close(into[0])


def put(file: Path, text: str) -> None:
    """In the place of the file, whole."""
    other = file.with_name(".new")
    other.write_text(text)
    other.replace(file)


def holds(text: str) -> Callable[[dict[str, Any]], bool]:
    return lambda line: "body" in line and base64.b64decode(line["body"]) == text.encode()


def is_silent(why: str) -> Callable[[dict[str, Any]], bool]:
    return lambda line: line.get("silence") == why


@pytest.mark.parametrize("by", BY)
def test_every_change_is_told_as_what_it_was(tmp_path: Path, by: Any) -> None:
    """It appears, is replaced, is written in place, is removed, and appears again; each content is seen."""
    nav = tmp_path / "nav.json"
    with watching(tmp_path, by=by) as said:
        put(nav, '{"nav": 1}')
        assert said.hows(holds('{"nav": 1}')) == ["appeared"]
        put(nav, '{"nav": 2}')
        assert said.hows(holds('{"nav": 2}')) == ["replaced"]
        nav.write_text('{"nav": 333}')
        assert {*said.hows(holds('{"nav": 333}'))} == {"in_place"}
        nav.unlink()
        assert {*said.hows(is_silent("missing"))} - {"in_place"} == {"removed"}  # of a write that was read before its end
        put(nav, '{"nav": 4}')
        assert said.hows(holds('{"nav": 4}')) == ["appeared"]


def test_a_change_that_leaves_the_same_is_told_and_not_seen_again(tmp_path: Path) -> None:
    """Who writes the same once more has written; what it left is known by its digest, and is no other content."""
    nav, digest = tmp_path / "nav.json", hashlib.sha256(b"{}").hexdigest()
    put(nav, "{}")
    with watching(tmp_path) as said:
        put(nav, "{}")
        first = said.until(lambda line: line.get("how") == "replaced")[-1]
        assert (first["bytes"], first["sha256"]) == (2, digest) and first["begin"] <= first["end"]
        put(nav, "{}")
        nav.unlink()
        looks = [line for line in said.until(is_silent("missing"))[:-1] if "extra" in line]
        assert len(looks) <= 1 and said.lines[-1]["silence"] == "missing"


def test_what_was_covered_before_it_could_be_read_has_its_line(tmp_path: Path) -> None:
    """A hand that writes in place and is gone before anybody looked is told all the same, without what it left."""
    nav = tmp_path / "nav.json"
    put(nav, "{}")
    for _ in range(50):  # whoever reads faster than both are made has seen both, which is no fault
        with watching(tmp_path) as said:
            with nav.open("r+") as file:
                file.write("[")
            put(nav, '{"nav": 2}')
            told = [line for line in said.until(holds('{"nav": 2}')) if "how" in line]
            assert [line["how"] for line in told] == ["in_place", "replaced"]
        if told[0]["sha256"] is None:
            return
        put(nav, "{}")
    raise AssertionError("fifty times the first of two changes was read before the second one was made")


def test_who_writes_into_what_was_replaced_changes_nothing(tmp_path: Path) -> None:
    """A hand that still holds the old file writes where nobody reads any more; its name belongs to another by then."""
    nav = tmp_path / "nav.json"
    put(nav, "{}")
    with watching(tmp_path) as said, nav.open("r+") as old:
        put(nav, '{"nav": 2}')
        assert said.hows(holds('{"nav": 2}')) == ["replaced"]
        old.write("[")
        old.flush()
        put(nav, '{"nav": 3}')
        assert said.hows(holds('{"nav": 3}')) == ["replaced"]


@pytest.mark.parametrize("way", ["mapping", "other name"])
def test_what_the_kernel_does_not_tell_is_seen_on_the_grid(tmp_path: Path, way: str) -> None:
    """Other bytes in the very same file were written in place; a file that is replaced is told once, as it was."""
    folder, other = tmp_path / "files", tmp_path / "other.json"
    folder.mkdir()
    (folder / "nav.json").write_bytes(b"aaaa")
    with watching(folder, every_ms=50) as said:
        os.link(folder / "nav.json", other)
        if way == "mapping":
            with other.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
                mapped[:] = b"bbbb"
        else:
            with other.open("r+b") as file:
                file.write(b"bbbb")
        assert said.hows(holds("bbbb")) == ["in_place"]
        for n in range(20):
            (folder / "nav.tmp").write_bytes(b"%04d" % n)
            os.replace(folder / "nav.tmp", folder / "nav.json")
            time.sleep(0.02)
        assert said.hows(holds("0019")) == ["replaced"] * 20


@pytest.mark.parametrize("by", BY)
def test_nothing_but_a_plain_file_is_read(tmp_path: Path, by: Any) -> None:
    """No link, no folder, no pipe, no way through a link; nor does one of them hold the watcher up."""
    secret, state = tmp_path / "secret.json", tmp_path / "state"
    put(secret, '{"secret": 1}')
    state.mkdir()
    nav = state / "nav.json"
    made: list[Callable[[], object]] = [lambda: nav.symlink_to(secret), lambda: nav.mkdir(), lambda: os.mkfifo(nav)]
    with watching(tmp_path, "state/nav.json", every_ms=50, by=by) as said:
        for make in made:
            said.until(is_silent("missing"))
            make()
            said.until(is_silent("refused"))
            nav.rmdir() if nav.is_dir() and not nav.is_symlink() else nav.unlink()
        put(nav, "{}")
        said.until(holds("{}"))
        state.rename(tmp_path / "moved")
        said.until(is_silent("missing"))
        state.symlink_to(tmp_path / "moved")
        said.until(is_silent("refused"))
    assert not any("secret" in base64.b64decode(line["body"]).decode() for line in said.lines if "body" in line)


def test_a_folder_that_comes_later_is_found(tmp_path: Path) -> None:
    """A node makes its folders when it starts; what then lies there appeared, and the kernel tells what follows."""
    with watching(tmp_path, "files/nav.json") as said:
        (tmp_path / "files").mkdir()
        put(tmp_path / "files" / "nav.json", "{}")
        assert said.hows(holds("{}")) == ["appeared"]
        put(tmp_path / "files" / "nav.json", "[]")
        assert said.hows(holds("[]")) == ["replaced"]


def test_what_lay_there_before_did_not_appear(tmp_path: Path) -> None:
    """It is seen at the first slot, and nobody says that it was just written."""
    put(tmp_path / "nav.json", "{}")
    time.sleep(0.02)  # the file's time is as coarse as the kernel's
    with watching(tmp_path, every_ms=50) as said:
        assert not any("how" in line for line in said.until(holds("{}")))


def test_a_file_that_never_rests_is_cut_to_its_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many changes a second are told and no more, and that it was so; the grid goes on."""
    monkeypatch.setattr(limits, "FILE_CHANGES_PER_S_MAX", 3)
    nav = tmp_path / "nav.json"
    with watching(tmp_path, every_ms=100) as said:
        deadline = time.monotonic() + PATIENCE_S
        while not any("limit" in line for line in said.lines) and time.monotonic() < deadline:
            for number in range(50):
                put(nav, str(number))
        said.until(lambda line: "limit" in line)
        said.until(lambda line: "due" in line and not line["extra"])
    seconds = {line["end"] // 1_000 for line in said.lines if "how" in line}
    assert sum("how" in line for line in said.lines) <= 3 * (len(seconds) + 1)


def test_a_large_file_is_read_as_far_as_any_document(tmp_path: Path) -> None:
    """And is said to be cut."""
    with watching(tmp_path) as said:
        put(tmp_path / "nav.json", "x" * (3 * limits.DOCUMENT_BYTES_MAX))
        size, _, head, cut = said.until(lambda line: "raw" in line)[-1]["raw"]
        assert size == limits.DOCUMENT_BYTES_MAX + 1 and len(head) == limits.RAW_HEAD_BYTES and cut is True


def test_a_clock_that_is_not_the_tapes_ends_the_run() -> None:
    """What such a watcher sees could not be placed in time."""
    hear = Heard(lambda line: None, lambda data, name: data)
    hear(b'{"clock": %d}' % time.monotonic_ns())
    for wrong_ns in (time.monotonic_ns() - 10**9, time.monotonic_ns() + 10**12):
        with pytest.raises(WorldError, match="is not this machine's"):
            hear(b'{"clock": %d}' % wrong_ns)


def test_what_is_said_is_said_as_a_sampler_says_it(tmp_path: Path) -> None:
    """Documents and raws in the place of bytes, without what may not be kept, also where the same is said once more."""
    lines: list[Any] = []

    async def main() -> None:
        fallen: list[BaseException] = []
        watching = LocalWatching(Epoch(), lines.append, fallen.append, {}, lambda data, _: data.replace(b"secret", b"******"))
        await watching.start(tmp_path / "watcher.log")
        put(tmp_path / "nav.json", '{"token": "secret"}')
        put(tmp_path / "torn.json", '{"token": "secret')
        for name in ("nav", "torn"):
            watching.watch(name, str(tmp_path), f"{name}.json", 50)
        async with asyncio.timeout(PATIENCE_S):
            while sum(not line.get("extra", True) for line in lines) < 6:
                await asyncio.sleep(0.01)
        await watching.stop()
        assert not fallen, (tmp_path / "watcher.log").read_text()

    asyncio.run(main())
    told = {name: [line for line in lines if line["name"] == name and "how" not in line] for name in ("nav", "torn")}
    assert all(line["doc"] == {"token": "******"} for line in told["nav"]) and len(told["nav"]) > 1
    body = b'{"token": "******'
    assert all(line["raw"] == [17, hashlib.sha256(body).hexdigest(), body.decode(), False] for line in told["torn"])


def test_a_secret_in_a_file_reaches_no_recording(server_file: Path, toy: Stack, tmp_path: Path) -> None:
    """It is starred, and where it stood is told; a file of the run's own folder is found, and cleared away with it."""
    world = LocalWorld(toy, "toy", toy.policy("toy"), 1, tmp_path / "run")
    tape = Tape(tmp_path / "run")
    tape.head(**world.describe())
    world.watch("note", 100)
    try:
        world.start(tape)
        volume = tmp_path / "run" / "nodes" / ".volumes" / "shared"
        put(volume / "note.json", json.dumps({"note": world.secrets.values["CANARY"]}))
        deadline = time.monotonic() + PATIENCE_S
        while not world._documents.get("note") and time.monotonic() < deadline:
            world.advance_to(world.now_ms() + 50)
    finally:
        tape.seal("completed", world.stop())
    timeline = Timeline.load(tmp_path / "run")
    assert {*timeline.samples("note")[-1].document["note"]} == {"*"}  # type: ignore[index]
    found = next(act.saw["found"] for act in timeline.acts if act.id == "secrets")
    assert found == [{"secret": "CANARY", "file": "the file of note"}]
    assert not (tmp_path / "run" / "nodes").exists() and len(timeline.written("note")) == 1


def test_a_watcher_that_ends_ends_the_run(server_file: Path, toy: Stack, tmp_path: Path) -> None:
    """Nobody would see what becomes of the files."""
    world = LocalWorld(toy, "toy", toy.policy("toy"), 1, tmp_path / "run")
    world.watch("note", 100)
    try:
        world.start(Tape(tmp_path / "run"))
        os.kill(world._watching["here"].pid, 9)  # type: ignore[attr-defined]
        with pytest.raises(WorldError, match="the watcher ended with code -9"):
            world.advance_to(world.now_ms() + 5_000)
    finally:
        world.stop()


def test_the_toy_has_a_volume() -> None:
    """Else these tests would say nothing."""
    assert load_stack(Path(__file__).resolve().parents[2] / "tests/worlds/toy/stack.yaml").volumes
