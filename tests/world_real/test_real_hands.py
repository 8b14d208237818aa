"""What is done to a node's files, here on a folder of our own: it is taken back to what it was, however often."""

from __future__ import annotations

import base64
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from harness.world.real import hands
from harness.world.real.processes import Process


def test_data_that_takes_no_writing_is_given_back_as_it_was(tmp_path: Path) -> None:
    """The processes bear a limit of nothing and the folders no new file; modes and limits come back, also twice."""
    data = tmp_path / "data"
    (data / "logs").mkdir(parents=True)
    data.chmod(0o750)
    modes = hands.folder_modes(str(data))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        process = Process.of(child.pid)
        assert process is not None
        told, soft = process.to_json(), hands.file_limit(process.to_json())
        assert hands.lock_data(str(data), [told]) == [0]
        assert resource.prlimit(child.pid, resource.RLIMIT_FSIZE)[0] == 0
        assert {os.stat(each).st_mode & 0o777 for each in (data, data / "logs")} == {hands.LOCKED_MODE}
        for _ in range(2):
            assert hands.unlock_data(modes, [told], [soft]) == [soft]
            assert hands.folder_modes(str(data)) == modes
        child.communicate(b"\n")
    assert hands.unlock_data(modes, [told], [soft]) == [None]


def test_a_filler_takes_what_it_was_asked_for_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that is imagined: 256 pages, of which the files take some; in the folder or held open without a name."""
    data = tmp_path / "data"
    data.mkdir()
    pages = 256

    def held() -> int:
        fillers = [data / hands.FILLER, *(f"/proc/self/fd/{fd}" for fd in hands._held.values())]
        return max((os.stat(each).st_size for each in fillers if os.path.exists(each)), default=0)

    class Imagined:
        f_blocks, f_frsize = pages, hands.PAGE

        @property
        def f_bavail(self) -> int:
            return pages - 26 - held() // hands.PAGE

    monkeypatch.setattr(hands.os, "statvfs", lambda folder: Imagined())
    for unlinked in (False, True):
        assert hands.fill_disk(str(data), 0.9, unlinked) == (230 - 26) * hands.PAGE
        use = hands.disk_use(str(data))
        assert use["used"] == 0.8984 and use["refused"] is False
        assert use["files"] < 0.1 if unlinked else use["files"] > 0.7
        assert sorted(each.name for each in data.iterdir()) == ([] if unlinked else [hands.FILLER])
        assert [hands.empty_disk(str(data)) for _ in range(2)] == [True, False]
        assert list(data.iterdir()) == [] and not hands._held
    assert hands.fill_disk(str(data), 0.1, False) == 0
    assert hands.empty_disk(str(data))


def test_what_a_hand_writes_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of the file, or where it stands: one that others hold open sees only the latter. What was written over
    at once did not stand, and what is there again was not taken away."""
    file = tmp_path / "state" / "nav.json"
    data = base64.b64encode(b"{}").decode()
    assert hands.overwrite(str(file), data, False) and file.read_bytes() == b"{}"
    with file.open("rb") as held:
        assert hands.overwrite(str(file), base64.b64encode(b"[0]").decode(), False) and held.read() == b"{}"
    with file.open("rb") as held:
        assert hands.overwrite(str(file), base64.b64encode(b"1").decode(), True) and held.read() == b"1"
    assert [each.name for each in file.parent.iterdir()] == ["nav.json"]
    monkeypatch.setattr(hands, "_read", lambda file: b"somebody else's")
    assert not hands.overwrite(str(file), data, True) and not hands.remove(str(file))
    monkeypatch.undo()
    assert not file.exists()
    with pytest.raises(FileNotFoundError):
        hands.remove(str(file))
