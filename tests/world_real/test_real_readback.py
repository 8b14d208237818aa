"""A proxy that lies, errs, hangs or is dead never makes a fault look applied, nor healed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from harness.errors import NotApplied, NotHealed, WorldError
from harness.world.real.effects import Toxic
from harness.world.real.ports import Ports
from harness.world.real.proxies import LinkProxies
from harness.world.real.toxiproxy import ProxyClient

TOXIC = Toxic("fault.downstream", "latency", "downstream", {"latency": 500, "jitter": 0})
DEADLINE_MS = 1_000
HANGS_S = 30
"""Far beyond the deadline, so that a busy machine cannot make them look alike."""


class Liar:
    """An API that looks like Toxiproxy's, with one proxy; ``twist`` may answer a request instead of it."""

    def __init__(self) -> None:
        self.toxics: dict[str, dict[str, Any]] = {}
        self.enabled = True
        self.twist: Callable[[str, str, Any], tuple[int, Any] | None] = lambda method, path, body: None
        liar = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
                status, answer = liar.twist(self.command, self.path, body) or liar.honest(self.command, self.path, body)
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = _serve

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # the client hung up: as intended
        self.client = ProxyClient("127.0.0.1", self.server.server_address[1], DEADLINE_MS)

    def honest(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        proxy = {"name": "wire", "listen": "127.0.0.1:1", "upstream": "127.0.0.1:2", "enabled": self.enabled}
        if path == "/version":
            return 200, {"version": "2.12.0"}
        if path == "/proxies":
            return 200, {"wire": proxy}
        if path == "/proxies/wire":
            self.enabled = body["enabled"]
            return 200, proxy
        if method == "POST":
            self.toxics[body["name"]] = body
            return 200, body
        if method == "DELETE":
            self.toxics.pop(path.rpartition("/")[2], None)
            return 204, b""
        return 200, list(self.toxics.values())


@pytest.fixture
def liar() -> Iterator[Liar]:
    made = Liar()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def on(method: str, ending: str, answer: Callable[[Any], tuple[int, Any]]) -> Callable[..., tuple[int, Any] | None]:
    return lambda got, path, body: answer(body) if got == method and path.endswith(ending) else None


def hang(_: Any) -> tuple[int, Any]:
    time.sleep(HANGS_S)
    return 200, {}


def test_an_honest_server_is_believed(liar: Liar) -> None:
    """The fake is fair: without a twist, a toxic goes in, is read back, and comes out."""
    assert liar.client.add("wire", TOXIC)["attributes"] == {"latency": 500, "jitter": 0}
    liar.client.remove("wire", TOXIC.name)
    liar.client.remove("wire", TOXIC.name)
    assert liar.client.enable("wire", False) == {"enabled": False}


@pytest.mark.parametrize(("what", "answer"), [
    ("accepted without applying", lambda body: (200, body)),
    ("an error that the client passes over", lambda body: (500, b'{"error": "no"}')),
    ("a timeout page", lambda body: (503, b"<html>")),
    ("hanging", hang),
    ("no JSON", lambda body: (200, b"ok")),
    ("refused", lambda body: (400, {"error": "bad toxic"})),
])
def test_a_toxic_that_was_not_applied_is_never_green(liar: Liar, what: str, answer: Any) -> None:
    """Whatever a lying proxy answers to the setting of a toxic, the fault counts as not applied."""
    liar.twist = on("POST", "/toxics", answer)
    begin = time.monotonic()
    with pytest.raises(NotApplied):
        liar.client.add("wire", TOXIC)
    assert time.monotonic() - begin < HANGS_S


@pytest.mark.parametrize("wrong", [
    {"attributes": {"latency": 5, "jitter": 0}}, {"stream": "upstream"}, {"toxicity": 0.5}, {"type": "timeout"},
    {"attributes": {"latency": 500, "jitter": 400}},
])
def test_a_toxic_that_reads_back_otherwise_is_not_applied(liar: Liar, wrong: dict[str, Any]) -> None:
    """Type, stream, toxicity and every attribute are compared with what was asked."""
    liar.twist = on("POST", "/toxics", lambda body: (200, liar.toxics.update({body["name"]: {**body, **wrong}}) or {}))
    with pytest.raises(NotApplied, match="read back"):
        liar.client.add("wire", TOXIC)


def test_a_removal_that_did_not_happen_is_not_healed(liar: Liar) -> None:
    """A removal is believed when the toxic is gone, and not before."""
    liar.client.add("wire", TOXIC)
    liar.twist = on("DELETE", TOXIC.name, lambda body: (204, b""))
    with pytest.raises(NotHealed, match="still there"):
        liar.client.remove("wire", TOXIC.name)


def test_a_removal_that_hangs_but_happens_is_healed(liar: Liar) -> None:
    """Toxiproxy's removal can hang although it takes effect: what is there afterwards decides."""
    liar.client.add("wire", TOXIC)
    liar.twist = on("DELETE", TOXIC.name, lambda body: (liar.toxics.clear(), hang(body))[1])
    liar.client.remove("wire", TOXIC.name)


def test_a_switch_of_the_proxy_is_read_back(liar: Liar) -> None:
    """A cut that did not cut is not applied; a mend that did not mend is not healed."""
    liar.twist = on("POST", "/proxies/wire", lambda body: (200, {}))
    with pytest.raises(NotApplied, match="enabled"):
        liar.client.enable("wire", False)
    liar.enabled = False
    with pytest.raises(NotHealed, match="enabled"):
        liar.client.enable("wire", True)


def test_a_dead_server_is_an_error_and_not_a_success() -> None:
    """Nobody listens: not applied, not healed, no version."""
    client = ProxyClient("127.0.0.1", 9, DEADLINE_MS)
    with pytest.raises(NotApplied):
        client.add("wire", TOXIC)
    with pytest.raises(NotHealed):
        client.remove("wire", TOXIC.name)
    with pytest.raises(WorldError):
        client.version()


def test_an_unknown_proxy_is_not_applied(liar: Liar) -> None:
    """The client answers None for a proxy that is not there; that is no reason to be silent."""
    with pytest.raises(NotApplied, match="no proxy"):
        liar.client.add("other", TOXIC)


def test_two_clients_keep_their_addresses_apart(liar: Liar) -> None:
    """toxiproxy-python keeps its address in a class; ours are copies, so that worlds do not mix."""
    other = ProxyClient("127.0.0.1", 9, DEADLINE_MS)
    assert liar.client.version() == "2.12.0"
    with pytest.raises(WorldError):
        other.version()
    assert liar.client.version() == "2.12.0"


def test_the_shells_http_proxy_is_not_asked(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY in a person's environment must not stand between the harness and loopback."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert liar.client.version() == "2.12.0"


def test_several_acts_of_ours_at_once_are_nobody_elses(tmp_path: Path) -> None:
    """While any of them is under way, and when one has ended meanwhile, nobody says that the server strayed."""
    links = LinkProxies(tmp_path / "server", Ports(), {}, tmp_path / "log")
    links._should = {"wire": {"listen": "a", "upstream": "b", "enabled": True, "toxics": {}}}
    found = {"wire": {"listen": "a", "upstream": "b", "enabled": False, "toxics": {}}}
    links.client.state = lambda: found  # type: ignore[method-assign]
    try:
        assert "enabled" in str(links.strayed(7))
        with links.acting():
            assert links.strayed(7) is None
            with links.acting():
                assert links.strayed(7) is None
            assert links.strayed(7) is None
        assert "enabled" in str(links.strayed(7))
    finally:
        links.stop()
        links._ports.release()
