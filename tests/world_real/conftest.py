"""What the tests of the real worlds share. Without a Toxiproxy server they fail with the line that installs one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.errors import WorldError
from harness.world.real import setup
from harness.world.real.local import LocalWorld
from harness.world.real.ports import LOOPBACK, Ports
from harness.world.real.toxiproxy import ProxyClient
from harness.world.stack import Stack, load_stack

START_S_MAX = 10
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def server_file() -> Path:
    found = setup.find()
    if found is None:
        pytest.fail(f"these tests need the Toxiproxy server; this line installs it:\n  {setup.explain()}")
    return found


@pytest.fixture(scope="session")
def proxy_port(server_file: Path) -> Iterator[int]:
    """One real server for all tests of effects; each makes a proxy of its own."""
    ports = Ports()
    port = ports.reserve()
    server = subprocess.Popen([server_file, "-host", LOOPBACK, "-port", str(port)], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    client = ProxyClient(LOOPBACK, port)
    deadline = time.monotonic() + START_S_MAX
    while True:
        try:
            client.version()
            break
        except WorldError:
            assert server.poll() is None, "the Toxiproxy server ended at once"
            assert time.monotonic() < deadline, "the Toxiproxy server does not answer"
            time.sleep(0.02)
    yield port
    server.kill()
    server.wait()
    ports.release()


@pytest.fixture(scope="session")
def toy() -> Stack:
    return load_stack(ROOT / "tests" / "worlds" / "toy" / "stack.yaml")


@pytest.fixture
def make_local(toy: Stack, server_file: Path, tmp_path: Path) -> Iterator[Callable[..., LocalWorld]]:
    """Makes worlds over the toy stack, and stops them however the test ends."""
    made: list[LocalWorld] = []

    def make(name: str = "run", **keywords: object) -> LocalWorld:
        made.append(LocalWorld(toy, "toy", toy.policy("toy"), 1, tmp_path / name, **keywords))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for world in made:
        world.stop()
