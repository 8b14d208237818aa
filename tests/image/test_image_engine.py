"""``make engine`` where things are missing, with programs of ours in the place of apt, dockerd and debootstrap."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from docker.errors import DockerException

from harness import engine
from harness.errors import UsageError
from harness.world.real import images

Lay = Callable[..., Path]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lay:
    """A machine with nothing but the programs that a test lays out (name → shell lines), where no engine answers."""
    folder, kept = tmp_path / "bin", tmp_path / ".drillproof"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(images, "KEPT", kept)
    monkeypatch.setattr(images, "ROOT", tmp_path)
    monkeypatch.setattr(engine, "LOG", kept / "dockerd.log")
    monkeypatch.setattr(images, "connect", _nobody)
    monkeypatch.setattr(engine.shutil, "which", lambda name: str(folder / name) if (folder / name).exists() else None)
    monkeypatch.setattr(engine, "_is_there", lambda name: (folder / name).exists())
    monkeypatch.setattr(engine, "_has_systemd", lambda: False)
    monkeypatch.setattr(engine.os, "geteuid", lambda: 0)

    def lay(**programs: str) -> Path:
        for name, lines in programs.items():
            (folder / name.replace("_", "-")).write_text(f"#!/bin/sh\n{lines}\n")
            (folder / name.replace("_", "-")).chmod(0o755)
        return folder

    return lay


def _nobody(*_: Any) -> Any:
    raise UsageError("no container engine answers (there is no /var/run/docker.sock); this line makes one usable: make engine")


def test_without_apt_it_says_what_to_install(bare: Lay) -> None:
    """On a machine that is not Debian's, the package and the next step are named."""
    with pytest.raises(UsageError, match="no apt-get: install docker.io by the means of your system.*from 20.10 on"):
        engine.ready()


def test_without_root_it_says_what_to_type(bare: Lay, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person without root, and a sudo that asks for a password, are told both ways: with root, and without."""
    bare(apt_get="exit 0", sudo="exit 1")
    monkeypatch.setattr(engine.os, "geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="only root may install docker.io: call `sudo make engine`; or"):
        engine.ready()


def test_what_apt_says_is_told(bare: Lay) -> None:
    """When an installation fails, its last words are in the error."""
    bare(apt_get='echo "E: Unable to locate package" >&2; exit 100')
    with pytest.raises(UsageError, match="could not install docker.io:\nE: Unable to locate package"):
        engine.ready()


def test_an_engine_that_ends_tells_why(bare: Lay) -> None:
    """A daemon that cannot start: its log's end is the error, and the log stays."""
    bare(dockerd='echo "failed to start daemon: no cgroups" >&2; exit 1')
    with pytest.raises(UsageError, match="dockerd does not answer; the end of .*\n.*no cgroups"):
        engine.ready()
    assert "no cgroups" in engine.LOG.read_text()


def test_it_installs_starts_and_waits(bare: Lay, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """From nothing: apt brings the daemon, the daemon is started by hand, and the first answer ends the waiting."""
    up = images.KEPT / "up"
    folder = bare(apt_get="true")
    daemon = f"#!/bin/sh\\ntouch {up}\\nwhile test -e {up}; do sleep 0.1; done\\n"
    bare(apt_get=f'case "$*" in *install*) printf "{daemon}" >{folder}/dockerd; chmod +x {folder}/dockerd;; esac')

    class Client:
        """Answers as soon as the daemon is up."""

    monkeypatch.setattr(images, "connect", lambda *_: Client() if up.exists() else _nobody())
    assert isinstance(engine._engine(), Client)
    up.unlink()  # which ends it
    said = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert said == ["install docker.io", "install docker.io", "starting dockerd by hand; its log"]


def test_a_permission_is_not_mended_by_installing(bare: Lay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an engine is there and the person may not talk to it, nothing is installed."""
    def forbidden(*_: Any) -> Any:
        raise UsageError("no container engine answers (you may not talk to /var/run/docker.sock); this line …")

    monkeypatch.setattr(images, "connect", forbidden)
    with pytest.raises(UsageError, match="sudo usermod -aG docker"):
        engine.ready()


def test_a_base_image_without_pulling(bare: Lay, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the public image cannot be pulled, a base system is put together, imported whole, and cleared away."""
    bare(debootstrap='for folder; do :; done; mkdir -p "$folder/etc" "$folder/dev" "$folder/var/cache/apt"; '
                     'echo Debian >"$folder/etc/issue"; touch "$folder/dev/null" "$folder/var/cache/apt/x"; '
                     'echo "I: Base system installed successfully."')
    client = FakeClient()
    engine._base(client)
    assert client.imported[0] == ("drillproof-base", "bookworm")
    with tarfile.open(fileobj=io.BytesIO(client.imported[1])) as tar:
        names = set(tar.getnames())
    assert {"./etc/issue", "./dev", "./var/cache/apt"} <= names and not {"./dev/null", "./var/cache/apt/x"} & names
    assert not (images.KEPT / "base.new").exists()
    assert "I: Base system installed successfully." in capsys.readouterr().out


class FakeClient:
    """An engine that can pull nothing, and remembers what it was given to import."""

    def __init__(self) -> None:
        self.images, self.api = self, self
        self.attrs = {"Size": 117_000_000}
        self.imported: tuple[tuple[str, str], bytes] = (("", ""), b"")

    def pull(self, name: str) -> None:
        raise DockerException("no such host")

    def get(self, name: str) -> FakeClient:
        return self

    def import_image_from_stream(self, stream: Any, repository: str, tag: str) -> str:
        self.imported = ((repository, tag), stream.read())
        return "{}"
