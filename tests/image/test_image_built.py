"""The images as the engine has them: what is in them, as whom they run, and that they are those of this checkout."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from harness.errors import UsageError
from harness.world.real import images, setup

LABEL = "drillproof.test"


@contextmanager
def running(engine: Any, image: str, command: list[str] | None = None, **more: Any) -> Iterator[Any]:
    """A container of ours for one test: read-only, without network, gone afterwards."""
    container = engine.containers.run(image, command, detach=True, read_only=True, network_mode="none", cap_drop=["ALL"],
                                      security_opt=["no-new-privileges:true"], labels={LABEL: "image"}, **more)
    try:
        yield container
    finally:
        container.remove(force=True, v=True)


def foreign(listing: str) -> list[str]:
    """Of an image's file list, what the product must not have."""
    return [line for line in listing.splitlines()
            if any(part in line for part in ("mutants", "/harness/", "/drills/", "/packages/pip", ".env"))]


def test_the_image_holds_no_sabotage(engine: Any, built: images.Images) -> None:
    """Its own file list has the machines and libfaketime, and neither mutants nor harness, drills, pip or secrets."""
    told = engine.containers.run(built.system.id, ["find", "/opt", "/data", "-type", "f"], remove=True, network_mode="none")
    listing = told.decode()
    assert "/opt/drillproof/system_under_test/trader/trader.py" in listing
    assert foreign(listing) == []
    assert foreign(listing + "/opt/drillproof/system_under_test/mutants/policy.py\n")


def test_the_system_runs_read_only_as_nobody(engine: Any, built: images.Images) -> None:
    """The exchange serves on a read-only root, as user 10001, and the health check says so; its files lie in /data."""
    environment = {"NODE_NAME": "exchange", "NODE_MACHINE": "system_under_test.exchange:make", "NODE_SEED": "1",
                   "NODE_RUN_ID": "image", "NODE_READY": "control:/clock", "API_LISTEN": "0.0.0.0:8090",
                   "CONTROL_LISTEN": "0.0.0.0:8091", "CLIENT_ID": "drill", "CLIENT_SECRET": secrets.token_hex(8)}
    wait = ["sh", "-c", "until python3 -m system_under_test.shell.healthy; do sleep 0.1; done; id -u; ls /data; ! touch /opt/x"]
    with running(engine, built.system.id, environment=environment, tmpfs={"/data": "uid=10001,mode=0700"}) as container:
        code, said = container.exec_run(wait)
    assert code == 0, said
    assert {b"10001", b"notes.jsonl"} <= set(said.split())


def test_a_sick_node_is_told(engine: Any, built: images.Images) -> None:
    """Where nothing serves, the same health check fails."""
    environment = {"NODE_READY": "control:/clock", "CONTROL_LISTEN": "0.0.0.0:8091"}
    with running(engine, built.system.id, ["sleep", "60"], environment=environment) as container:
        assert container.exec_run(["python3", "-m", "system_under_test.shell.healthy"])[0] == 1


NEEDED = """
import re
from importlib import metadata
names = {each.metadata["Name"].lower(): each.requires or () for each in metadata.distributions(path=["/opt/packages"])}
told = {name.replace("_", "-"): lines for name, lines in names.items()}
needed = {re.split("[ ;<>=!~([]", line)[0].lower().replace("_", "-")
          for lines in told.values() for line in lines if "extra" not in line}
print(*sorted(set(told) - needed))
"""


def test_the_image_has_no_package_too_many(engine: Any, built: images.Images) -> None:
    """What no other package needs is what the system imports, the zones of the market hours, and the clock's library."""
    told = engine.containers.run(built.system.id, ["python3", "-c", NEEDED], remove=True, network_mode="none").decode().split()
    assert {*told} - {"libfaketime"} == {"aiohttp", "msgspec", "numpy", "orjson", "pyyaml", "tzdata", "xxhash"}


def test_the_clock_can_be_moved_inside(engine: Any, built: images.Images) -> None:
    """libfaketime lies where the label says, and moves the wall clock of what preloads it."""
    library = built.system.labels.get(images.FAKETIME)
    if library is None:
        pytest.skip("libfaketime's package is for x86-64 only")
    ask = ["python3", "-c", "import time; print(time.time())"]
    told = engine.containers.run(built.system.id, ask, remove=True, network_mode="none",
                                 environment={"LD_PRELOAD": library, "FAKETIME": "@2001-01-01 00:00:00"})
    assert float(told) < 1_000_000_000


def test_the_proxy_is_the_server_at_hand(engine: Any, built: images.Images) -> None:
    """The label holds the digest of the executable that the local world would run, and the image runs it unprivileged."""
    server = setup.find()
    assert server is not None
    assert built.toxiproxy.labels[images.EXECUTABLE] == setup.sha256_of(server)
    assert built.toxiproxy.labels[images.VERSION] == setup.version_of(server)
    with running(engine, built.toxiproxy.id) as container:
        asked = container.exec_run(["sh", "-c", "sha256sum /usr/local/bin/toxiproxy-server; id -u"])[1].split()
    assert asked[0].decode() == setup.sha256_of(server) and asked[2] == b"65534"


def test_what_is_current_is_not_built_again(engine: Any, built: images.Images) -> None:
    """A second build finds both, says so, and gives the same ids."""
    said: list[str] = []
    again = images.build(engine, said.append)
    assert [line.partition(": ")[2] for line in said] == ["is of this build"] * 2
    assert (again.system.id, again.toxiproxy.id) == (built.system.id, built.toxiproxy.id)


def test_a_stale_image_is_refused(engine: Any, built: images.Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a source changes, or the base does, the image is of another build, and the line that mends it is named."""
    recipes = images.recipes()
    changed = {**recipes[images.SYSTEM], "system_under_test/trader/trader.py": b"# another trader\n"}
    with monkeypatch.context() as patch:
        patch.setattr(images, "recipes", lambda: {**recipes, images.SYSTEM: changed})
        with pytest.raises(UsageError, match="drillproof-system is missing or of another build; this line .*make image"):
            images.current(engine)
    monkeypatch.setenv("DRILLPROOF_BASE", built.system.id)
    with pytest.raises(UsageError, match="drillproof-system stands on another base image"):
        images.current(engine)


def test_a_build_has_no_network(engine: Any, built: images.Images) -> None:
    """A step that asks for anything outside fails, with the engine's words for it."""
    base = images.base_at_hand(engine)
    reach = "import socket; socket.create_connection(('1.1.1.1', 53), 3)"
    files = {"Dockerfile": f"ARG BASE\nFROM ${{BASE}}\nRUN python3 -c \"{reach}\"\n".encode()}
    with pytest.raises(UsageError, match="drillproof-test:0+ could not be built"):
        images._build(engine, "drillproof-test", files, {images.INPUTS: "0" * 64}, base, lambda line: None)
