"""The docker world: the law of all worlds, and what only containers promise."""

from __future__ import annotations

from pathlib import Path

import docker  # type: ignore[import-untyped]
import pytest

from harness.world.conformance import check_world
from harness.world.real.docker import DockerWorld
from harness.world.stack import Stack


@pytest.mark.timeout(300)
def test_the_docker_world_obeys_the_law_of_all_worlds(toy: Stack, client: docker.APIClient, tmp_path: Path) -> None:
    """The conformance suite passes; refused is what no world of real disks can do."""
    refused = check_world(lambda folder, placebo: DockerWorld(toy, "toy", toy.policy("toy"), 1, folder,
                                                              placebo=placebo), tmp_path)
    assert refused == ("disk_slow", "fill", "fill_unlinked", "fill_full", "disk_read_only", "starve", "disconnect",
                       "out_of_memory")
