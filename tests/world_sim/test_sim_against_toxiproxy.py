"""Each effect of the sim's links, beside the real Toxiproxy server: the same messages, the same fault, the same fate.

One schedule for both: messages every 20 ms; the fault begins after 200 ms and ends after 700; then 500 ms more. What
is compared is what a drill can rest on: what arrived before healing and after it, whether the connection ended and
when, whether a dial was refused. Skipped where no server can be found.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from dataclasses import dataclass

import pytest
from test_sim_wire import Pair
from toy_world import ROOT

from harness.drill.model import LinkFault
from harness.world.real.effects import toxics
from harness.world.sim import wire
from system_under_test.machine import Close, Frame, Open

STEP_MS, BEGIN_MS, HEAL_MS, END_MS = 20, 200, 700, 1_200
ATTEMPTS_MAX, LATE_MS_MAX = 200, 20
SIZE = 100
"""Bytes of a message on the wire, with its framing."""


@dataclass
class Fate:
    """Messages that had arrived whole when the fault ended, and at the end; when the connection ended."""

    before_healing: int
    at_the_end: int
    ended: str
    """no · during the fault · by healing"""
    dial_refused: bool


def sim_fate(fault: LinkFault) -> Fate:
    pair = Pair()
    counted: dict[str, int] = {}
    for at in range(0, END_MS, STEP_MS):
        if at == BEGIN_MS:
            pair.link.inject("f", wire.trouble_of(fault))
        if at == HEAL_MS:
            counted["healing"] = len(pair.frames("server"))
            ended = "during the fault" if pair.scribes["client"].got(Close) else "no"
            refused = pair.link.cuts != {} and _sim_dial_refused(pair)
            pair.link.heal("f")
        pair.do("client", Frame("wire#1", bytes(SIZE - 6)))
        pair.run(STEP_MS)
    if ended == "no" and pair.scribes["client"].got(Close):
        ended = "by healing"
    return Fate(counted["healing"], len(pair.frames("server")), ended, refused)


def _sim_dial_refused(pair: Pair) -> bool:
    pair.do("client", Open("wire#2"))
    pair.run(5)
    return "refused" in pair.scribes["client"].got(Close)[-1].why


class Sink:
    """A server that counts the bytes it gets."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.bytes = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._read, args=(peer,), daemon=True).start()

    def _read(self, peer: socket.socket) -> None:
        with peer:
            try:
                while data := peer.recv(65_536):
                    self.bytes += len(data)
            except OSError:
                return

    def close(self) -> None:
        self._listening.close()


class Toxiproxy:
    """The real server with one proxy."""

    def __init__(self, executable: str, upstream: int) -> None:
        self.api, self.front = _free_port(), _free_port()
        self._process = subprocess.Popen([executable, "-port", str(self.api)], stdout=subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                self.call("GET", "/version")
                break
            except OSError:
                time.sleep(0.02)
        self.call("POST", "/proxies", {"name": "wire", "listen": f"127.0.0.1:{self.front}",
                                       "upstream": f"127.0.0.1:{upstream}"})

    def call(self, method: str, path: str, body: object = None) -> None:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.api}{path}", method=method, data=data,
                                         headers={"User-Agent": "tests"})
        urllib.request.urlopen(request, timeout=30).close()

    def inject(self, fault: LinkFault) -> None:
        if fault.effect == "cut":
            self.call("POST", "/proxies/wire", {"enabled": False})
        for toxic in toxics("f", fault):
            self.call("POST", "/proxies/wire/toxics", {"name": toxic.name, "type": toxic.type, "stream": toxic.stream,
                                                       "attributes": dict(toxic.attributes)})

    def heal(self, fault: LinkFault) -> None:
        if fault.effect == "cut":
            self.call("POST", "/proxies/wire", {"enabled": True})
        for toxic in toxics("f", fault):
            self.call("DELETE", f"/proxies/wire/toxics/{toxic.name}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def _free_port() -> int:
    with socket.socket() as trying:
        trying.bind(("127.0.0.1", 0))
        return trying.getsockname()[1]


@pytest.fixture(scope="module")
def executable() -> str:
    kept = ROOT / ".drillproof" / "bin" / "toxiproxy-server"
    found = os.environ.get("TOXIPROXY_SERVER") or (str(kept) if kept.exists() else shutil.which("toxiproxy-server"))
    if not found:
        pytest.skip("no Toxiproxy server here: make setup brings it")
    return found


def punctual_fate(executable: str, fault: LinkFault) -> Fate:
    """What became of everything on the real wire, from an attempt whose every message left on time: one that was held up
    by other work on this machine went through another schedule than the simulated one, and says nothing."""
    for _ in range(ATTEMPTS_MAX):
        sink = Sink()
        proxy = Toxiproxy(executable, sink.port)
        try:
            fate, late_ms = real_fate(proxy, sink, fault)
        finally:
            proxy.close()
            sink.close()
        if late_ms <= LATE_MS_MAX:
            return fate
    pytest.fail(f"in {ATTEMPTS_MAX} attempts this machine never kept to the schedule within {LATE_MS_MAX} ms")


def real_fate(proxy: Toxiproxy, sink: Sink, fault: LinkFault) -> tuple[Fate, float]:
    """The fate, and how late the latest message up to healing was."""
    began, counted, ended, refused, late_ms = time.monotonic(), 0, "no", False, 0.0
    with socket.create_connection(("127.0.0.1", proxy.front), 2) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, END_MS, STEP_MS):
            time.sleep(max(0.0, began + at / 1_000 - time.monotonic()))
            if at <= HEAL_MS:  # healing itself takes a moment
                late_ms = max(late_ms, (time.monotonic() - began) * 1_000 - at)
            if at == BEGIN_MS:
                proxy.inject(fault)
            if at == HEAL_MS:
                counted = sink.bytes // SIZE
                ended = "during the fault" if _ended(client) else "no"
                refused = fault.effect == "cut" and _refused(proxy.front)
                proxy.heal(fault)
                time.sleep(0.05)
            try:
                client.sendall(bytes(SIZE))
            except OSError:
                ended = ended if ended != "no" else "during the fault" if at < HEAL_MS else "by healing"
        time.sleep(0.1)
        if ended == "no" and _ended(client):
            ended = "by healing"
    return Fate(counted, sink.bytes // SIZE, ended, refused), late_ms


def _ended(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        client.setblocking(True)


def _refused(port: int) -> bool:
    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", port)) != 0


FAULTS = [
    LinkFault("wire", "stall", "server"), LinkFault("wire", "drop", "server"), LinkFault("wire", "cut"),
    LinkFault("wire", "delay", "server", 300), LinkFault("wire", "throttle", "server", 2),
    LinkFault("wire", "fragment", "server", 10), LinkFault("wire", "reset"), LinkFault("wire", "truncate", "server", 500),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.effect)
def test_the_sim_and_the_real_server_agree(executable: str, fault: LinkFault) -> None:
    """The same fate, up to two messages that were on their way, and three where rates decide."""
    ours, theirs = sim_fate(fault), punctual_fate(executable, fault)
    slack = 3 if fault.effect in ("delay", "throttle") else 2
    assert (ours.ended, ours.dial_refused) == (theirs.ended, theirs.dial_refused), (ours, theirs)
    assert abs(ours.before_healing - theirs.before_healing) <= slack, (ours, theirs)
    assert abs(ours.at_the_end - theirs.at_the_end) <= slack, (ours, theirs)


def test_the_comparison_sees_a_difference() -> None:
    """A stall is no drop: the schedule tells them apart."""
    stall, drop = sim_fate(FAULTS[0]), sim_fate(FAULTS[1])
    assert stall.ended != drop.ended and stall.at_the_end > drop.at_the_end + 20
