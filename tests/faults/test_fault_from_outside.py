"""What nobody declared: Toxiproxy, the exchange or the trader killed, frozen or lying in the middle of a real run.

Whatever it is, the verdict is never PASS, nothing of the run is left, and the recording can be read.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_kit import DRILLS, ROOT, lines, order

from harness.recording.timeline import Timeline
from harness.session import Result, conduct
from harness.world.real import setup
from harness.world.real.undo import leftovers, standing

STALL = "short_stall"
UP_WITHIN_S, GONE_WITHIN_S = 60, 20


def processes_of(runs: Path) -> dict[int, bytes]:
    """Living processes that carry a run of this folder, by pid, with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and str(runs).encode() in environment + command:
                found[int(entry.name)] = command
        except OSError:
            continue
    return found


def carrying(marker: str) -> list[int]:
    """Living processes with the run's marker in their environment."""
    from harness.world.real.processes import marked

    return [each.pid for each in marked(marker)]


class Watched:
    """A run in this process, with something done to it from outside when its fault has stood for a while."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self._fault = threading.Event()

    def conduct(self, deed: Callable[[Path], None], drill: str = STALL, after_s: float = 0.6) -> Result:
        assert setup.find() is not None, f"the Toxiproxy server is needed here: {setup.explain()}"

        def outside() -> None:
            if self._fault.wait(UP_WITHIN_S):
                time.sleep(after_s)
                deed(next(self.runs.iterdir()))

        def told(word: str, facts: object) -> None:
            if word == "inject":
                self._fault.set()

        hand = threading.Thread(target=outside)
        hand.start()
        try:
            return conduct(order(drill, self.runs, "local"), told)
        finally:
            self._fault.set()
            hand.join()


def pid_of(folder: Path, what: bytes, more: bytes = b"") -> int:
    """The run's process whose command line and environment hold these."""
    for pid in carrying(_marker(folder)):
        about = Path(f"/proc/{pid}/cmdline").read_bytes(), Path(f"/proc/{pid}/environ").read_bytes()
        if what in about[0] and more in about[1]:
            return pid
    raise AssertionError(f"no process of the run is {what!r} {more!r}")


def _marker(folder: Path) -> str:
    return next(entry.args["marker"] for entry in standing(folder) if entry.verb == "end_run")


def kill(what: bytes, more: bytes = b"", number: signal.Signals = signal.SIGKILL) -> Callable[[Path], None]:
    return lambda folder: os.kill(pid_of(folder, what, more), number)


SHELL = b"system_under_test.shell"


@pytest.mark.parametrize(("deed", "status", "says"), [
    (kill(b"toxiproxy-server"), "aborted", "Toxiproxy ended by itself"),
    (kill(b"harness.world.real.sampler"), "aborted", "the sampler ended"),
    (kill(SHELL, b"NODE_NAME=exchange\0"), "aborted", "exchange ended by itself with code -9"),
    (kill(SHELL, b"NODE_NAME=trader\0"), "completed", ""),
], ids=["toxiproxy", "sampler", "exchange", "trader"])
def test_killed_from_outside(tmp_path: Path, deed: Callable[[Path], None], status: str, says: str) -> None:
    """A death that no drill declared never passes; what is left is a readable recording and nothing else."""
    result = Watched(tmp_path / "runs").conduct(deed)
    assert (result.status, result.verdict != "PASS") == (status, True), result.says
    assert any(says in sentence for sentence in result.says)
    folder = Path(result.recording)
    assert standing(folder) == () and leftovers(tmp_path / "runs") == []
    assert processes_of(tmp_path / "runs") == {}
    assert Timeline.load(folder).seal is not None
    if status == "completed":
        assert any(line["step"] == "exited" for line in lines(str(folder), "act"))


def test_a_frozen_proxy_never_passes(tmp_path: Path) -> None:
    """Toxiproxy stopped by SIGSTOP: its API hangs, healing fails by its deadline, and the run ends all the same."""
    result = Watched(tmp_path / "runs").conduct(kill(b"toxiproxy-server", number=signal.SIGSTOP))
    assert result.status == "aborted" and result.verdict != "PASS"
    assert any("no end within" in sentence or "Timeout" in sentence for sentence in result.says), result.says
    assert processes_of(tmp_path / "runs") == {}


LIAR = """#!{python}
import http.client, json, re, socket, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

way, real = {way!r}, {real!r}
if "-version" in sys.argv:
    sys.exit(subprocess.run([real, "-version"]).returncode)
port = int(sys.argv[sys.argv.index("-port") + 1])
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port_behind = probe.getsockname()[1]
server = subprocess.Popen([real, "-host", "127.0.0.1", "-port", str(port_behind)])
told = {{}}


class Front(BaseHTTPRequestHandler):
    def serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        toxics = re.fullmatch(r"/proxies/([^/]+)/toxics", self.path)
        one = re.fullmatch(r"/proxies/([^/]+)/toxics/([^/]+)", self.path)
        if toxics and self.command == "POST":
            if way == "error":
                return self.answer(500, b'{{"error": "no"}}')
            if way == "hang":
                time.sleep(30)
            if way == "pretends":
                told.setdefault(toxics[1], {{}})[json.loads(body)["name"]] = json.loads(body)
            return self.answer(200, body)
        if toxics and way == "pretends":
            return self.answer(200, json.dumps(list(told.get(toxics[1], {{}}).values())).encode())
        if one and self.command == "DELETE" and way == "pretends":
            told.get(one[1], {{}}).pop(one[2], None)
            return self.answer(204, b"")
        asked = http.client.HTTPConnection("127.0.0.1", port_behind, timeout=5)
        asked.request(self.command, self.path, body)
        answer = asked.getresponse()
        self.answer(answer.status, answer.read())

    do_GET = do_POST = do_DELETE = do_PATCH = serve

    def answer(self, status, data):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


for _ in range(500):
    try:
        socket.create_connection(("127.0.0.1", port_behind), 0.1).close()
        break
    except OSError:
        time.sleep(0.01)
ThreadingHTTPServer(("127.0.0.1", port), Front).serve_forever()
"""


@pytest.mark.parametrize(("way", "status", "says"), [
    ("ignores", "aborted", "accepted by Toxiproxy, but not there when read back"),
    ("error", "aborted", "500"),
    ("hang", "aborted", "NotApplied"),
    ("pretends", "completed", "landed:feed: the fault was not seen to land"),
])
def test_a_proxy_that_lies_never_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, status: str,
                                        says: str) -> None:
    """End to end: toxics that are taken and not set, errors, a hanging API; and a server that even reads its lie back,
    which the link's own byte counters refute."""
    real = setup.find()
    assert real is not None, f"the Toxiproxy server is needed here: {setup.explain()}"
    liar = tmp_path / "bin" / setup.EXECUTABLE
    liar.parent.mkdir()
    liar.write_text(LIAR.format(python=sys.executable, way=way, real=str(real)))
    liar.chmod(0o755)
    monkeypatch.setattr(setup, "FOLDER", liar.parent)
    result = conduct(order(STALL, tmp_path / "runs", "local"), lambda word, facts: None)
    assert result.status == status and result.verdict not in ("PASS", "FAIL"), result.says
    assert any(says in sentence for sentence in result.says), result.says
    assert processes_of(tmp_path / "runs") == {}


def test_the_liar_is_fair(tmp_path: Path) -> None:
    """With the real server the very same drill passes, so it is the lies that are caught."""
    done = subprocess.run([sys.executable, "-m", "harness.cli", "run", str(DRILLS / f"{STALL}.yaml"), "--world", "local",
                           "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
