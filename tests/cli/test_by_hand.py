"""Exchange and trader by hand, in two terminals, as docs/by-hand.md tells it; its programs are run as they stand."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from harness import arguments, cli, nodes
from harness.world.stack import load_stack

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "by-hand.md").read_text()
ACTIVE_WITHIN_S = 60
Start = Callable[..., subprocess.Popen[bytes]]


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    numbers = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return numbers


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where secrets and data of this test's nodes lie, at the place that the page names."""
    return tmp_path / ".drillproof" / "by-hand"


@pytest.fixture
def start(home: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts a node by its command; all of them are ended afterwards."""
    started: list[subprocess.Popen[bytes]] = []
    environment = {each: os.environ[each] for each in ("PATH", "HOME") if each in os.environ}

    def begin(*arguments: str, **more: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-m", "harness.cli", *arguments], cwd=tmp_path, stderr=subprocess.PIPE,
                                   env={**environment, "PYTHONPATH": str(ROOT), "DRILLPROOF_BY_HAND": str(home), **more})
        started.append(process)
        return process

    yield begin
    for each in started:
        each.terminate()
        each.wait(timeout=20)


def told(process: subprocess.Popen[bytes], word: bytes) -> None:
    """Read what a node says until it says the word."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if word in line:
            return
    pytest.fail(f"never said {word!r}: {b''.join(said).decode()}")


def answers(address: str) -> bytes | None:
    try:
        with urllib.request.urlopen(f"http://{address}", timeout=2) as answer:
            return bytes(answer.read())
    except OSError:
        return None


def until(condition: Callable[[], object], within_s: float, why: str) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, why
        time.sleep(0.1)


def test_the_trader_becomes_active_against_the_exchange(start: Start, home: Path) -> None:
    """Two commands without any setting but free ports: Active, lawful, secrets shared and readable by their owner only."""
    api, control, plane = free_ports(3)
    told(start("exchange", "--listen", f"api=127.0.0.1:{api}", "--listen", f"control=127.0.0.1:{control}"), b"Ctrl-C")
    links = [part for link in ("market_data", "orders", "rest") for part in ("--url", f"{link}=127.0.0.1:{api}")]
    told(start("trader", "--listen", f"control_plane=127.0.0.1:{plane}", *links), b"Ctrl-C")
    status = f"127.0.0.1:{plane}/api/v1/status"
    until(lambda: b'"trading_mode":"Active"' in (answers(status) or b""), ACTIVE_WITHIN_S, f"last: {answers(status)!r}")
    assert cli.main(["validate", "status", "--url", f"http://{status}"]) == 0
    assert (home / "secrets.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_node_never_outlives_its_command(start: Start, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end it in order with 0; even ``kill -9`` of the command leaves nothing that listens."""
    api, control = free_ports(2)
    process = start("exchange", "--listen", f"api=127.0.0.1:{api}", "--listen", f"control=127.0.0.1:{control}")
    told(process, b"Ctrl-C")
    until(lambda: answers(f"127.0.0.1:{control}/clock"), 20, "the exchange never answered")
    process.send_signal(number)
    assert process.wait(timeout=20) == (-9 if number is signal.SIGKILL else 0)
    until(lambda: answers(f"127.0.0.1:{control}/clock") is None, 10, "the exchange still answers")


def test_the_programs_of_the_page_run(start: Start, home: Path, tmp_path: Path) -> None:
    """ccxt over REST and WebSocket, copied from the page, with nothing changed but the port."""
    api, control = free_ports(2)
    told(start("exchange", "--listen", f"api=127.0.0.1:{api}", "--listen", f"control=127.0.0.1:{control}"), b"Ctrl-C")
    until(lambda: answers(f"127.0.0.1:{control}/clock"), 20, "the exchange never answered")
    programs = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(programs) == 2
    for program in programs:
        done = subprocess.run([sys.executable, "-c", program.replace(":8090", f":{api}")], cwd=tmp_path, capture_output=True,
                              text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_the_page_names_the_default_ports() -> None:
    """What the page says about ports is what a node listens on."""
    for port, number in nodes.PORTS_BY_HAND.items():
        assert f"127.0.0.1:{number}" in PAGE, port


def test_an_environment_variable_comes_before_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Secrets are made once, kept, and overridden by name."""
    monkeypatch.setattr(nodes, "FOLDER", tmp_path / "home")
    stack = load_stack(arguments.STACK)
    first = nodes._secrets(stack)
    monkeypatch.setenv("CLIENT_SECRET", "mine")
    assert nodes._secrets(stack) == {**first, "CLIENT_SECRET": "mine"}
    assert orjson.loads((tmp_path / "home" / "secrets.json").read_bytes()) == first


@pytest.mark.parametrize("arguments", [
    ["exchange", "--listen", "foo"], ["exchange", "--listen", "api=127.0.0.1:ten"],
    ["exchange", "--listen", "api=127.0.0.1:70000"], ["exchange", "--url", "rest=127.0.0.1:1"],
    ["trader", "--policy", "nope"], ["trader", "--stack", "/nowhere.yaml"],
    ["exchange", "--data", "/proc/nowhere"], ["exchange", "--listen", "api=192.0.2.1:1"]])
def test_wrong_input_is_one_line_and_two(arguments: list[str], capsys: pytest.CaptureFixture[str],
                                         monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is started, and the line says what was expected."""
    monkeypatch.setattr(nodes, "FOLDER", tmp_path)
    monkeypatch.setattr(nodes, "PORTS_BY_HAND", {"api": 0, "control": 0, "control_plane": 0})
    monkeypatch.setattr(nodes, "_signals_raise", lambda: None)
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("drillproof: ")
