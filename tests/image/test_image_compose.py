"""``compose.yaml`` as a person runs it: up, looked at, broken by a toxic, down, and nothing left."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness import engine as engines
from harness.world.real import images
from harness.world.stack import load_stack

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "system_under_test" / "compose.yaml"
PATIENCE_S = 240
"""Far beyond what a slow machine needs; a test that hangs ends by it."""


def composer() -> list[str]:
    """The command: the engine's plugin, or the older program. Skips where there is neither."""
    if shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    pytest.skip("neither `docker compose` nor docker-compose is here")


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has."""
    with_them = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in with_them]
    for each in with_them:
        each.close()
    return ports


@pytest.fixture
def stands(engine: Any, built: images.Images, tmp_path: Path) -> Iterator[Mapping[str, Any]]:
    """All of them under a name of this test's own; afterwards they are taken down, and nothing of them is left."""
    project, names = f"drillproof-test-{os.getpid()}", ("TRADER_PORT", "FLOOR_PORT", "EXCHANGE_PORT", "TOXIPROXY_PORT")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    told = engines.compose_environment(ROOT / "system_under_test" / "stack.yaml")
    more = {"COMPOSE_PROJECT_NAME": project, **ports, "DRILLPROOF_SYSTEM_IMAGE": built.system.name,
            "DRILLPROOF_TOXIPROXY_IMAGE": built.toxiproxy.name}
    file = tmp_path / "compose.env"
    file.write_text(told + "".join(f"{name}={value}\n" for name, value in more.items()))
    command = [*composer(), "--env-file", str(file), "-f", str(COMPOSE)]
    try:
        subprocess.run([*command, "up", "-d"], check=True, capture_output=True, timeout=PATIENCE_S)
        yield {**ports, "project": project}
    finally:
        subprocess.run([*command, "down", "-v", "-t", "1"], capture_output=True, timeout=PATIENCE_S)
        mine = {"label": f"com.docker.compose.project={project}"}
        left = [*engine.containers.list(all=True, filters=mine), *engine.networks.list(filters=mine),
                *engine.volumes.list(filters=mine)]
        assert left == []


def ask(port: int, path: str, data: Any = None) -> Any:
    """A JSON answer from loopback."""
    body = json.dumps(data).encode() if data is not None else None
    with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", body), timeout=30) as answer:
        return json.load(answer)


def until(holds: Callable[[], Any]) -> Any:
    """Wait until something holds; an answer that does not come does not hold."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if found := holds():
                return found
        except OSError:
            pass
        time.sleep(0.2)
    pytest.fail("it never came to hold")


REACH = """
import socket, sys
for place in sys.argv[1:]:
    try:
        socket.create_connection((place, 8090), 2).close()
        print("reached", place)
    except OSError:
        pass
"""


def test_a_person_runs_it_and_looks_around(stands: Mapping[str, Any], engine: Any) -> None:
    """The trader reconciles through Toxiproxy, a toxic on its market data latches it, and it knows no other way."""
    status = until(lambda: ask(stands["TRADER_PORT"], "/api/v1/status"))
    assert status["contract_version"] == "5.2"
    assert set(ask(stands["TOXIPROXY_PORT"], "/proxies")) == set(load_stack(ROOT / "system_under_test" / "stack.yaml").links)
    until(lambda: "trader/orders" in ask(stands["EXCHANGE_PORT"], "/books")["sessions"].values())
    until(lambda: not ask(stands["TRADER_PORT"], "/api/v1/status")["open_permission_blocked_latch"])
    ask(stands["TOXIPROXY_PORT"], "/proxies/market_data/toxics", {"type": "latency", "attributes": {"latency": 600_000}})
    until(lambda: "WS_DATA_STALE_RECONCILE_REQUIRED" in
          ask(stands["TRADER_PORT"], "/api/v1/status")["open_permission_reason_codes"])

    until(lambda: ask(stands["FLOOR_PORT"], "/ops/floor")["floor"]["state"] == "OK")

    mine = {"label": f"com.docker.compose.project={stands['project']}"}
    found = {each.labels["com.docker.compose.service"]: each for each in engine.containers.list(filters=mine)}
    addresses = [net["IPAddress"] for net in found["exchange"].attrs["NetworkSettings"]["Networks"].values()]
    assert b"reached" in found["toxiproxy"].exec_run(["python3", "-c", REACH, *addresses])[1]
    assert found["trader"].exec_run(["python3", "-c", REACH, *addresses])[1] == b""
    told = {name: found["sync"].exec_run(["cat", f"/state/{name}.json"])[1] for name in ("nav", "nav_state", "rv_momentum")}
    assert [json.loads(each)["writer"]["node"] for each in told.values()] == ["trader", "sync", "intelligence"]
