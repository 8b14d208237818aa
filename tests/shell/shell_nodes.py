"""How the tests of this room run machines in the real shell: own ports, own folders, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


class Process:
    """One node in the shell."""

    def __init__(self, folder: Path, name: str, machine: str, **environment: str) -> None:
        self.data = folder / name
        self.log = folder / f"{name}.stderr"
        self._environment = {
            "PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}", "NODE_NAME": name,
            "NODE_MACHINE": machine, "NODE_DATA": str(self.data), "NODE_SEED": "1", "NODE_RUN_ID": "test",
            **environment,
        }
        self.process: subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "system_under_test.shell"], cwd=ROOT, stderr=log,
                                            env=self._environment, start_new_session=True)

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def ended(self, within_s: float = 60.0) -> int:
        return self.process.wait(within_s)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(5)

    def writer_pid(self) -> int:
        return int((self.data / "writer.ledger.pid").read_text())

    def notes(self) -> list[dict]:
        path = self.data / "notes.jsonl"
        return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def dispose(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.kill()


class Toy:
    """The toy stack in the shell, without proxies."""

    def __init__(self, folder: Path) -> None:
        self.api, self.control, self.status_port = free_port(), free_port(), free_port()
        self.server = Process(folder, "server", "tests.worlds.toy.machines:server", API_LISTEN=f"127.0.0.1:{self.api}",
                              CONTROL_LISTEN=f"127.0.0.1:{self.control}")
        self.client = Process(
            folder, "client", "tests.worlds.toy.machines:client", BUILD_ID="toy-1", NODE_WRITER_LOGS="ledger",
            STATUS_LISTEN=f"127.0.0.1:{self.status_port}", WIRE_URL=f"ws://127.0.0.1:{self.api}/ws/echo",
            REST_URL=f"http://127.0.0.1:{self.api}", NODE_TRAP_FILE=str(folder / "trap"))

    def status(self) -> dict:
        """What the client says of itself; empty while it says nothing."""
        try:
            return json.loads(get(self.status_port, "/status")[1])
        except OSError:
            return {}

    def until(self, true: Callable[[dict], bool], within_s: float = 60.0) -> dict:
        """The first status of which it is true."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            status = self.status()
            if status and true(status):
                return status
            time.sleep(0.02)
        raise AssertionError(f"not so within {within_s} s: {self.status()}; {self.client.log.read_text()[-2000:]}")

    def dispose(self) -> None:
        self.client.dispose()
        self.server.dispose()


def get(port: int, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method, data=body)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as why:
        return why.code, why.read()


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def eventually(true: Callable[[], bool], within_s: float = 60.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.01)
    return true()
