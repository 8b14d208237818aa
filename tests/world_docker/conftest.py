"""What the tests of the docker world share: an engine, our images, the toy's image. Where no engine answers, they are
skipped with the reason that the engine's client gives; .ci/run makes one, so that they run there."""

from __future__ import annotations

import secrets as randomness
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker  # type: ignore[import-untyped]
import pytest

from harness.errors import UsageError
from harness.world.real import images
from harness.world.real.docker import DockerWorld
from harness.world.stack import Stack, load_stack

ROOT = Path(__file__).resolve().parents[2]
TOY = "drillproof-toy:test"
"""As tests/worlds/toy/stack.yaml names it."""
DOCKERFILE = b"ARG BASE\nFROM ${BASE}\nCOPY tests /opt/drillproof/tests\n"


@pytest.fixture(scope="session")
def client() -> Iterator[docker.APIClient]:
    """The engine, with the images of this checkout in it."""
    try:
        found = images.connect(20)
        images.recipes()
    except UsageError as why:
        pytest.skip(f"no containers here: {why}")
    if images.base_at_hand(found) is None:
        pytest.skip(f"no containers here: the engine has no base image; this line makes one: {images.ENGINE_REMEDY}")
    built = images.build(found, print)
    _build_toy(found, built.system.id)
    yield found.api
    found.close()


def _build_toy(client: Any, base: str) -> None:
    """The system's image and the toy's machines, which are no part of it."""
    machines = (ROOT / "tests" / "worlds" / "toy" / "machines.py").read_bytes()
    context = images.packed({"Dockerfile": DOCKERFILE, "tests/worlds/toy/machines.py": machines})
    for line in client.api.build(fileobj=context, custom_context=True, tag=TOY, rm=True, decode=True, network_mode="none",
                                 buildargs={"BASE": base}):
        assert "error" not in line, line


@pytest.fixture(scope="session")
def toy() -> Stack:
    return load_stack(ROOT / "tests" / "worlds" / "toy" / "stack.yaml")


@pytest.fixture
def make_docker(toy: Stack, client: docker.APIClient, tmp_path: Path) -> Iterator[Callable[..., DockerWorld]]:
    """Makes worlds over the toy stack, and stops them however the test ends."""
    made: list[DockerWorld] = []

    def make(name: str = "run", **keywords: object) -> DockerWorld:
        made.append(DockerWorld(toy, "toy", toy.policy("toy"), 1, tmp_path / name, **keywords))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for world in made:
        world.stop()


@pytest.fixture
def stranger(client: docker.APIClient) -> Iterator[tuple[str, str, str]]:
    """Somebody else's container, volume and network, called as if they were ours."""
    token = randomness.token_hex(4)
    volume = client.create_volume(f"drillproof-{token}-data", labels={"their": "own"})["Name"]
    network = client.create_network(f"drillproof-{token}-near", labels={"their": "own"})["Id"]
    image = client.images(name=TOY)[0]["Id"]
    container = client.create_container(image, ["python3", "-c", "import time; time.sleep(600)"], labels={"their": "own"},
                                        name=f"drillproof-{token}-client-1", healthcheck={"test": ["NONE"]},
                                        host_config=client.create_host_config(binds=[f"{volume}:/data"], network_mode=network,
                                                                              init=True))["Id"]
    client.start(container)
    yield container, volume, network
    client.remove_container(container, force=True, v=True)
    client.remove_volume(volume)
    client.remove_network(network)
