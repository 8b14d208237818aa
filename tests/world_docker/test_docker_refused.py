"""What the docker world does not do is said by name before anything starts, with the line that mends it."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker  # type: ignore[import-untyped]
import pytest

from harness.errors import UsageError
from harness.world.real import images
from harness.world.real.container import ports_inside
from harness.world.real.docker import lacks
from harness.world.real.engine import connect
from harness.world.stack import Port, Stack, load_stack

ROOT = Path(__file__).resolve().parents[2]
DRILL = ROOT / "drills" / "phase2" / "2_market_data_stale.yaml"
NODE = """
stack: one
deployment_environment: DEV
nodes:
  only:
    image: some/image:1
    {line}
    ports: {{http: {{env: LISTEN}}}}
"""


@pytest.mark.parametrize(("where", "why"), [
    ("unix:///nowhere/docker.sock", "make engine"),
    ("tcp://192.0.2.1:2375", "never reaches beyond this machine"),
    ("ssh://somebody@192.0.2.1", "never reaches beyond this machine"),
])
def test_without_an_engine_of_this_machine_nothing_starts(where: str, why: str, monkeypatch: pytest.MonkeyPatch,
                                                          tmp_path: Path) -> None:
    """Wrong set-up, said at once, by the command too; nobody else's engine is spoken to."""
    monkeypatch.setenv("DOCKER_HOST", where)
    with pytest.raises(UsageError, match=why):
        connect()
    done = subprocess.run([sys.executable, "-m", "harness.cli", "run", str(DRILL), "--world", "docker", "--out", str(tmp_path)],
                          cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, why in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "runs.jsonl").exists()


def test_what_cannot_run_in_containers_is_named(client: docker.APIClient, toy: Stack) -> None:
    """A node without an image, an image that is not there, a mutant, a node of the proxy's name."""
    with contextlib.closing(images.connect()) as found:
        ours = images.current(found)
    assert lacks(toy, {}, client, ours) is None
    assert "no sabotages" in str(lacks(toy, {"client": "some:mutant"}, client, ours))
    for node, why in ((dataclasses.replace(toy.nodes["client"], image=None), "names no image"),
                      (dataclasses.replace(toy.nodes["client"], image="nobody/has:this"), "a run never does")):
        assert why in str(lacks(dataclasses.replace(toy, nodes={**toy.nodes, "client": node}), {}, client, ours))
    taken = {**toy.nodes, "toxiproxy": toy.nodes["client"]}
    assert "may be called" in str(lacks(dataclasses.replace(toy, nodes=taken), {}, client, ours))
    outward = {**toy.links, "wire": dataclasses.replace(toy.links["wire"], server="elsewhere", port="")}
    assert "upstreams" in str(lacks(dataclasses.replace(toy, links=outward), {}, client, ours))


@pytest.mark.parametrize(("volumes", "why"), [(None, None), ({"/data/db": {}}, None), ({"/var/lib/svc": {}}, "/var/lib/svc")])
def test_an_image_that_writes_beside_its_data_is_refused(toy: Stack, volumes: dict[str, Any] | None, why: str | None) -> None:
    """A full or a slow disk that the system does not use is no fault."""
    told, ours = {"Id": "sha256:1", "Config": {"Volumes": volumes}}, images.Image("ours", "sha256:2", "", {})
    node = dataclasses.replace(toy.nodes["client"], image="some/image:1")
    found = lacks(dataclasses.replace(toy, nodes={"client": node}, links={}), {},
                  SimpleNamespace(inspect_image=lambda name: told), images.Images(ours, ours))
    assert found is None if why is None else why in str(found)


@pytest.mark.parametrize("line", ["user: root", 'user: "0:0"', 'user: "10001:0"', "data: relative", "data: /a/../b", "data: /",
                                  "memory_mib: 0", "memory_mib: 99999", "memory: 5"])
def test_a_container_s_words_are_held_to_their_forms(line: str, tmp_path: Path) -> None:
    """Never root, a data folder of its own, memory within bounds; a key that nobody reads is refused too."""
    file = tmp_path / "stack.yaml"
    file.write_text(NODE.format(line=line))
    with pytest.raises(UsageError, match=line.partition(":")[0]):
        load_stack(file)


def test_ports_inside_are_counted_up_around_those_that_are_named(toy: Stack) -> None:
    """A port that the image has of its own is taken as it is."""
    node = dataclasses.replace(toy.nodes["server"], ports={"a": Port("a", "A"), "b": Port("b", "", 8_002), "c": Port("c", "C")})
    assert ports_inside(node) == {"a": 8_001, "b": 8_002, "c": 8_003}
