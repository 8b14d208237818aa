"""What the images are made of, and what the compose file says: held without any engine."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import doctor, engine
from harness.errors import UsageError
from harness.world.real import images
from harness.world.stack import load_stack

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = ROOT / "system_under_test"
CONTEXT = images.system_context(ROOT)


def test_the_context_holds_the_system_and_no_sabotage() -> None:
    """Code and tables are there; mutants, drills, the harness, policies and the stack are not."""
    assert {"Dockerfile", "requirements.txt", "system_under_test/trader/trader.py", "system_under_test/exchange/exchange.py",
            "system_under_test/watchdog/__init__.py", "system_under_test/shell/writer.py", "specs/exchange/methods.yaml",
            "specs/status/status_reason_registries_manifest.json"} <= CONTEXT.keys()
    foreign = ("harness", "drills", "system_under_test/mutants", "system_under_test/policies")
    assert [name for name in CONTEXT if "__pycache__" in name or name.startswith(foreign)] == []
    assert (SYSTEM / "mutants" / "surgery.py").is_file()  # what is left out exists: the line above can fail


def test_every_change_is_another_image(tmp_path: Path) -> None:
    """One changed byte, one file more or another name gives other inputs, and so another tag."""
    whole = dict(CONTEXT)
    one = {**whole, "specs/exchange/errors.yaml": whole["specs/exchange/errors.yaml"] + b"#"}
    more = {**whole, "system_under_test/more.py": b""}
    renamed = {("x" if name == "requirements.txt" else name): data for name, data in whole.items()}
    tags = {images.tag_of("x", images.inputs_of(each)) for each in (whole, one, more, renamed)}
    assert len(tags) == 4
    assert images.inputs_of(whole) == images.inputs_of(dict(reversed(whole.items())))


def test_a_context_is_packed_the_same_each_time() -> None:
    """Equal files make equal bytes, so that the engine knows a step again; the server may be executed."""
    files = {"b": b"2", "toxiproxy-server": b"1"}
    first, again = images.packed(files).getvalue(), images.packed(dict(reversed(files.items()))).getvalue()
    assert first == again
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        assert {each.name: each.mode for each in tar} == {"b": 0o644, "toxiproxy-server": 0o755}


def _imported() -> set[str]:
    """Top-level packages that the system imports, beyond itself and the standard library."""
    found: set[str] = set()
    for file in SYSTEM.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {each.name.partition(".")[0] for each in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"system_under_test"}


def test_the_packages_are_those_that_the_system_imports() -> None:
    """Everything imported is pinned, each package to one version; the build itself tries whether they can be imported."""
    pinned = {pin.partition("==")[0]: pin.partition("==")[2]
              for pin in images.pins((SYSTEM / "requirements.txt").read_text(), "x86_64")}
    assert all(re.fullmatch(r"[0-9][0-9.]*", version) for version in pinned.values())
    assert {{"yaml": "pyyaml"}.get(name, name) for name in _imported()} <= pinned.keys()
    tried = re.search(rb'-c "import (.*)"', CONTEXT["Dockerfile"])
    assert tried is not None
    assert {each.partition(".")[0] for each in tried[1].decode().split(", ")} == _imported()


def test_pins_know_their_machine() -> None:
    """A pin with a machine's name is for that machine; comments are none."""
    text = '# a comment\nboth==1\nonly==2 ; platform_machine == "x86_64"  # why\n\n'
    assert images.pins(text, "x86_64") == ["both==1", "only==2"]
    assert images.pins(text, "aarch64") == ["both==1"]


@pytest.mark.parametrize(("said", "told"), [("20.10.24+dfsg1", (20, 10)), ("28.2.2", (28, 2)), ("edge", (0, 0))])
def test_release(said: str, told: tuple[int, int]) -> None:
    """An engine's version as numbers; what is no version is too old."""
    assert images.release(said) == told


def test_no_engine_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing answers, the line that makes an engine usable is named; a wrong DOCKER_HOST is named as that."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/at/all.sock")
    with pytest.raises(UsageError, match="there is no unix:///nowhere/at/all.sock.*make engine"):
        images.connect(5)
    with pytest.raises(UsageError, match="start that engine, or unset DOCKER_HOST"):
        engine.ready()


# ---- compose.yaml -----------------------------------------------------------------------------------------

COMPOSE = yaml.safe_load((SYSTEM / "compose.yaml").read_text())


def wrong_with(compose: dict[str, Any]) -> list[str]:
    """Everything that a compose file of ours must not say."""
    services, found = compose["services"], []
    for name, service in services.items():
        found += [f"{name}: {port} is not on loopback alone" for port in service.get("ports", ())
                  if not port.startswith("127.0.0.1:")]
        if not (service.get("read_only") and service.get("cap_drop") == ["ALL"] and "mem_limit" in service):
            found.append(f"{name}: may do more than it needs")
        found += [f"{name}: {key} stands there in words" for key, value in service.get("environment", {}).items()
                  if re.search("SECRET|TOKEN", key) and not value.startswith("${")]
    if set(services["trader"]["networks"]) & set(services["exchange"]["networks"]):
        found.append("the trader reaches the exchange without Toxiproxy")
    inner = {each for service in ("trader", "exchange") for each in services[service]["networks"] if each.endswith("_side")}
    found += [f"{each} leads outside" for each in inner if not compose["networks"][each].get("internal")]
    return found


def test_compose_keeps_what_it_promises() -> None:
    """Loopback only, no privileges, no secret, and no way to the exchange but through Toxiproxy."""
    assert wrong_with(COMPOSE) == []


def test_compose_can_be_wrong() -> None:
    """Each promise is seen broken."""
    broken = json.loads(json.dumps(COMPOSE))
    trader = broken["services"]["trader"]
    trader["ports"], trader["networks"] = ["8080:8080"], ["trader_side", "exchange_side"]
    trader["environment"]["EMERGENCY_TOKEN"] = "hunter2"
    broken["networks"]["exchange_side"] = {}
    del broken["services"]["watchdog"]["read_only"]
    assert len(wrong_with(broken)) == 5


def test_compose_has_the_links_of_the_stack() -> None:
    """Toxiproxy's list leads every link of stack.yaml to the node and port that the compose file gives it."""
    stack, services = load_stack(SYSTEM / "stack.yaml"), COMPOSE["services"]
    proxies = {each["name"]: each for each in json.loads((SYSTEM / "toxiproxy.json").read_text())}
    assert proxies.keys() == stack.links.keys()
    for link in stack.links.values():
        listens = services[link.server]["environment"][stack.nodes[link.server].ports[link.port].env].rpartition(":")[2]
        assert proxies[link.name]["upstream"] == f"{link.server}:{listens}"
        dialled = services[link.client]["environment"][link.env]
        assert dialled == link.url.format(address=f"toxiproxy:{proxies[link.name]['listen'].rpartition(':')[2]}")


def test_compose_is_told_all_that_it_asks_for() -> None:
    """The environment file names each variable without a default, with new secrets each time."""
    told = engine.compose_environment(SYSTEM / "stack.yaml")
    names = {line.partition("=")[0] for line in told.splitlines()}
    asked = set(re.findall(r"\$\{(\w+)(?:\}|:\?)", (SYSTEM / "compose.yaml").read_text()))
    assert asked <= names
    assert told != engine.compose_environment(SYSTEM / "stack.yaml")
    policy = next(line for line in told.splitlines() if line.startswith("POLICY="))
    assert "$" not in policy and json.loads(policy.removeprefix("POLICY=").strip("'"))["policy_version"]


# ---- the health check -------------------------------------------------------------------------------------


@pytest.fixture
def answering() -> Iterator[int]:
    """A server that answers 200 on /well and 503 elsewhere; its port."""
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/well" else 503)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def _health(**environment: str) -> int:
    return subprocess.run([sys.executable, "-m", "system_under_test.shell.healthy"], cwd=ROOT, env=environment,
                          capture_output=True).returncode


def test_the_health_check_asks_the_node(answering: int) -> None:
    """Healthy is who answers 200 where it said it would; who listens on nothing is healthy while it runs."""
    listens = {"API_LISTEN": f"0.0.0.0:{answering}"}
    assert _health() == 0
    assert _health(NODE_READY="api:/well", **listens) == 0
    assert _health(NODE_READY="api:/ill", **listens) == 1
    assert _health(NODE_READY="other:/well", **listens) == 1


def test_the_health_check_sees_a_dead_node() -> None:
    """Nobody listens: not healthy."""
    assert _health(NODE_READY="api:/well", API_LISTEN="0.0.0.0:1") == 1


def test_the_main_job_says_what_is_missing(tmp_path: Path) -> None:
    """Without an engine nothing is run in containers, and nothing is rehearsed instead: exit 2, and the line that mends it."""
    done = subprocess.run([sys.executable, "-m", "harness.mainjob", "--world", "docker", "--out", str(tmp_path / "evidence")],
                          cwd=ROOT, env={**os.environ, "DOCKER_HOST": "unix:///nowhere"}, capture_output=True, text=True)
    assert done.returncode == 2
    assert "make engine" in done.stderr
    assert not (tmp_path / "evidence" / "runs").exists()


def test_the_doctor_says_what_the_world_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an engine: which line makes one; the worlds that need none are as they were."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    found = {each.what: each for each in doctor.examine()}
    assert (found["engine"].state, found["engine"].remedy) == ("limited", "make engine")
    assert found["world docker"].state == "limited" and found["world sim"].state == "ok"
