"""What the shell does to the disk: framing, atomic replacement, names, looks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from system_under_test.machine import REPLACE_PLAN, SWAP_PLAN, Now
from system_under_test.shell import files
from system_under_test.shell.journal import Notes


def test_a_log_is_read_up_to_its_first_bad_line() -> None:
    """Whole records count, the rest is torn."""
    whole = files.frame_record(b'{"a": 1}') + files.frame_record(b'{"b": 2}')
    assert files.decode_log(whole) == files.Decoded((b'{"a": 1}', b'{"b": 2}'), len(whole), 0)
    assert files.decode_log(whole + b"1234").torn_bytes == 4


@pytest.mark.parametrize("at", range(17))
def test_a_flipped_byte_ends_the_valid_prefix(at: int) -> None:
    """No byte of a record can change unseen, its checksum, blank and end included."""
    first, second = files.frame_record(b'{"n": 1}'), files.frame_record(b'{"n": 2}')
    broken = bytearray(first + second)
    broken[len(first) + at] ^= 0x01
    decoded = files.decode_log(bytes(broken))
    assert decoded.records == (b'{"n": 1}',)
    assert decoded.torn_bytes == len(second)


def test_a_torn_tail_is_cut_off_by_the_first_append_only(tmp_path: Path) -> None:
    """A life that writes nothing leaves the evidence as it found it."""
    path = tmp_path / "x.log"
    path.write_bytes(files.frame_record(b"one") + b"half")
    log = files.LogFile(path)
    assert log.decoded.torn_bytes == 4 and path.read_bytes().endswith(b"half")
    log.append_synced(files.frame_record(b"two"))
    log.close()
    assert path.read_bytes() == files.frame_record(b"one") + files.frame_record(b"two")


def test_a_log_has_one_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one is refused while the first lives, and welcome afterwards."""
    monkeypatch.setattr(files, "LOCK_WAIT_S", 0.05)
    first = files.LogFile(tmp_path / "x.log")
    with pytest.raises(files.FileError, match="another process"):
        files.LogFile(tmp_path / "x.log")
    first.close()
    files.LogFile(tmp_path / "x.log").close()


@pytest.mark.parametrize("stop_before", range(len(REPLACE_PLAN)))
def test_a_replace_that_stops_between_steps_leaves_old_or_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_before: int
) -> None:
    """The new content stands from the rename on, the old one before it; never a mixture, never a temporary."""

    class Crash(Exception):
        pass

    def crash(*_: object) -> None:
        raise Crash

    files.replace(tmp_path, "state.json", b"old")
    monkeypatch.setattr(files, "_STEPS", {**files._STEPS, REPLACE_PLAN[stop_before]: crash})
    with pytest.raises(Crash):
        files.replace(tmp_path, "state.json", b"new")
    expected = b"new" if stop_before > REPLACE_PLAN.index("rename") else b"old"
    assert files.read_files(tmp_path) == {"state.json": expected}


def test_a_start_finds_the_files_of_a_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is joined by a link; one of its files that another node takes away meanwhile is not there, and no reason to fall."""
    data, shared = tmp_path / "data", tmp_path / "shared"
    for folder in (data, shared):
        folder.mkdir()
    (data / "state").symlink_to(shared)
    for file in (data / "own.json", shared / "nav.json", shared / ".nav.json.new", shared / "gone.json"):
        file.write_bytes(b"{}")
    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path: is_file(path) and (path.name != "gone.json" or not path.unlink()))
    assert files.read_files(data) == {"own.json": b"{}", "state/nav.json": b"{}"}
    assert files.read_files(tmp_path / "none") == {}


def test_a_plan_that_writes_in_place_shows_it(tmp_path: Path) -> None:
    """Empty, half and whole, and what a shorter content does not cover stays: every reader in between sees it."""
    files.replace(tmp_path, "state.json", b"older", ("truncate", "write"))
    seen = []
    files.replace(tmp_path, "state.json", b"new!", ("truncate", "write_half", "write"),
                  lambda step: seen.append((step, (tmp_path / "state.json").read_bytes())))
    assert seen == [("truncate", b"older"), ("write_half", b""), ("write", b"ne")]
    files.replace(tmp_path, "state.json", b"in", ("write",))
    assert (tmp_path / "state.json").read_bytes() == b"inw!"


def test_a_replace_that_fails_leaves_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk half a temporary would take the room that is needed."""

    def full(temporary: Path, target: Path, data: bytes) -> None:
        temporary.write_bytes(data[:1])
        raise OSError(28, "No space left on device")

    files.replace(tmp_path, "state.json", b"old")
    monkeypatch.setattr(files, "_STEPS", {**files._STEPS, "write_temporary": full})
    with pytest.raises(OSError, match="No space"):
        files.replace(tmp_path, "state.json", b"new", SWAP_PLAN)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("state.json", b"old")]


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x", "a\0b"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    """A machine's file names stay below its folder."""
    with pytest.raises(files.FileError):
        files.replace(tmp_path, name, b"")


def test_boots_are_counted_over_the_same_data(tmp_path: Path) -> None:
    """From one, and on from what is there; a spoilt counter begins anew."""
    assert [files.count_boot(tmp_path) for _ in range(3)] == [1, 2, 3]
    (tmp_path / "boot").write_text("spoilt")
    assert files.count_boot(tmp_path) == 1


def test_the_measures_of_the_disk_ask_two_different_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system's own count, and the files added up: what one of them says does not depend on the other."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "ledger.log").write_bytes(b"x" * 65_536)
    (tmp_path / "link").symlink_to("/")
    size = 1_048_576

    def statvfs(free: float) -> None:
        values = {"f_blocks": size // 4_096, "f_frsize": 4_096, "f_bavail": int(free * size / 4_096)}
        monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(**values))

    seen = []
    for free in (1.0, 0.25, 0.0):
        statvfs(free)
        seen.append(tuple(float(files.look(tmp_path, source)) for source in ("disk_primary", "disk_secondary")))
    assert [primary for primary, _ in seen] == [0.0, 0.75, 1.0]
    assert {secondary for _, secondary in seen} == {seen[0][1]} and 0.0625 <= seen[0][1] < 0.1


def test_a_folder_with_too_many_files_is_not_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A measure that takes long is none; the trader's reading then grows old and it says so."""
    monkeypatch.setattr(files, "FILES_MAX", 3)
    for n in range(4):
        (tmp_path / str(n)).touch()
    with pytest.raises(files.FileError, match="more than 3 files"):
        files.look(tmp_path, "disk_secondary")


def test_a_failing_sync_takes_the_record_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be synced is not left in the log to be found later."""
    log = files.LogFile(tmp_path / "x.log")
    log.append_synced(files.frame_record(b"one"))

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(OSError, match="Input/output"):
        log.append_synced(files.frame_record(b"two"))
    monkeypatch.undo()
    log.append_synced(files.frame_record(b"three"))
    log.close()
    assert files.decode_log((tmp_path / "x.log").read_bytes()).records == (b"one", b"three")


def test_a_note_that_a_death_tore_does_not_spoil_the_next_one(tmp_path: Path) -> None:
    """On a full disk a line may be written by half; the next life's first line is a line of its own, all others stay."""
    file = tmp_path / "notes.jsonl"
    for torn in (b"", b'{"kind":"tor', b'{"kind":"' + b"x" * 200_000):
        file.write_bytes(b'{"kind":"whole"}\n' + torn)
        notes = Notes(file, "run", 2)
        notes.write(Now(1, 2), "next", None, {})
        notes.flush()
        assert [json.loads(line)["kind"] for line in file.read_bytes().splitlines()] == ["whole", "next"]
    file.write_bytes(b'{"kind":"tor')
    Notes(file, "run", 3)
    assert file.read_bytes() == b""


def test_notes_that_a_full_disk_refused_come_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes half a line, then nothing, then everything: no line is lost, doubled or out of place."""
    notes, real, room = Notes(tmp_path / "notes.jsonl", "run", 1), os.write, [100]

    def write(fd: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        written = real(fd, data[:room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", write)
    for n in range(700):
        notes.write(Now(n, n), "note", None, {"n": n})
        notes.flush()
    assert (tmp_path / "notes.jsonl").stat().st_size == 100
    room[0] = 10**9
    notes.flush()
    assert [json.loads(line)["n"] for line in (tmp_path / "notes.jsonl").read_bytes().splitlines()] == list(range(700))
