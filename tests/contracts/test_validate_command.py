"""``drillproof validate status`` end to end: files, standard input and endpoints that behave badly."""

from __future__ import annotations

import argparse
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import cli
from harness.contracts import source
from harness.contracts.library import MANIFEST, REPOSITORY, SCHEMA_EXACT
from harness.contracts.validate import _command, add_parser
from harness.policies import load_policy, policy_to_judge_by

FIXTURE = REPOSITORY / "fixtures/status/market_data_stale.json"
Get = Callable[[str], dict[str, Any]]


def run(*arguments: str | Path) -> int:
    """The command's exit code, also where argparse ends it."""
    try:
        return _command(["status", *map(str, arguments)])
    except SystemExit as end:
        return int(end.code or 0)


def test_a_lawful_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0 and one line."""
    assert run("--file", FIXTURE, "--schema", REPOSITORY / SCHEMA_EXACT, "--manifest", REPOSITORY / MANIFEST) == 0
    out = capsys.readouterr()
    assert (out.out, out.err) == (f"VALIDATION OK: {FIXTURE}\n", "")


def test_an_unlawful_file(tmp_path: Path, golden: Get, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1, a header, a count and one tagged line for each finding."""
    file = tmp_path / "status.json"
    file.write_text(json.dumps({**golden("active"), "trading_mode": "ReduceOnly"}))
    assert run("--file", file) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"VALIDATION FAILED: {file}" and lines[1].endswith("findings:")
    assert "- [INVARIANT] /mode_reasons: ReduceOnly needs at least one reason" in lines


def test_quiet_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the exit code is left."""
    (tmp_path / "bad.json").write_text("[]")
    codes = [run("--quiet", "--file", FIXTURE), run("--quiet", "--file", tmp_path / "bad.json"),
             run("--quiet", "--file", tmp_path / "none.json")]
    assert codes == [0, 1, 2] and capsys.readouterr() == ("", "")


def test_strict_refuses_extension_keys(tmp_path: Path, golden: Get) -> None:
    """Extra keys are lawful without ``--strict`` only."""
    file = tmp_path / "status.json"
    file.write_text(json.dumps({**golden("active"), "note": 1}))
    assert (run("--file", file), run("--file", file, "--strict")) == (0, 1)


def test_the_policy_in_force(tmp_path: Path) -> None:
    """Dwells in ``owner_view`` are those of ``--policy``, ``extends`` resolved beside it."""
    (tmp_path / "base.yaml").write_text("stale_clear_dwell_ms: 60000\n")
    (tmp_path / "short.yaml").write_text("extends: base.yaml\noverrides: {stale_clear_dwell_ms: 2000}\n")
    assert load_policy(tmp_path / "short.yaml") == {"stale_clear_dwell_ms": 2000}
    assert run("--file", FIXTURE, "--policy", tmp_path / "base.yaml") == 0
    assert run("--file", FIXTURE, "--policy", tmp_path / "short.yaml") == 1


@pytest.mark.parametrize(("text", "says"), [
    ("extends: base.yaml\nstale_clear_dwell_ms: 2000\n", "stale_clear_dwell_ms"),
    ("extends: base.yaml\noveride: {stale_clear_dwell_ms: 2000}\n", "overrides"),
    ("extends: base.yaml\noverrides: {stale_clear_dwel_ms: 2000}\n", "stale_clear_dwell_ms"),
])
def test_a_value_that_would_not_be_read_is_refused(tmp_path: Path, text: str, says: str,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    """Beside ``extends``, under a wrong word or a wrong name: with its place and the nearest right one."""
    (tmp_path / "base.yaml").write_text("stale_clear_dwell_ms: 60000\n")
    (tmp_path / "short.yaml").write_text(text)
    assert run("--file", FIXTURE, "--policy", tmp_path / "short.yaml") == 2
    err = capsys.readouterr().err
    assert "short.yaml:2:" in err and says in err


@pytest.mark.parametrize(("text", "says"), [
    ("extend: base.yaml\noverrides: {mm_util_kill: 0.3}\n", "p.yaml:2:1: found overrides of nothing, expected extends: FILE"),
    ("{}\n", "p.yaml:1:1: found no value"), ("policy_version: 7\n", "p.yaml:1:1"), ("mine: 7\n", "p.yaml:1:1: found mine"),
    ("mm_util_reduceonly: 0.2\nmm_util_kil: 0.3\n", "p.yaml:2:1: found the name 'mm_util_kil'"),
])
def test_a_policy_that_changes_nothing_is_refused(tmp_path: Path, text: str, says: str,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    """It would silently be the default; a system's own values beside known ones are its own affair."""
    (tmp_path / "p.yaml").write_text(text)
    for command in (["validate", "status", "--file", FIXTURE], ["validate", "ops-status", "--file", FIXTURE],
                    ["validate", "state", FIXTURE.parent], ["floor", "--url", "a=http://127.0.0.1:1/"]):
        assert cli.main([str(each) for each in (*command, "--policy", tmp_path / "p.yaml")]) == 2
        assert says in capsys.readouterr().err
    (tmp_path / "p.yaml").write_text("mm_util_kill: 0.3\nquotes_most: 7\n")
    assert policy_to_judge_by(tmp_path / "p.yaml")["quotes_most"] == 7


@pytest.mark.parametrize("text", ["[]", "{", "extends: self.yaml", "extends: 7", "extends: none.yaml",
                                  "extends: self.yaml\noverrides: []", "max_policy_age_sec: soon"])
def test_a_policy_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    """Set-up, exit 2; a policy that extends itself ends, too."""
    (tmp_path / "self.yaml").write_text(text)
    assert run("--file", FIXTURE, "--policy", tmp_path / "self.yaml") == 2


def test_set_up_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong arguments and files are exit 2 with a reason."""
    (tmp_path / "text.json").write_text("no")
    (tmp_path / "five.json").write_text("5")
    (tmp_path / "loop.json").write_text('{"$ref": "#/nowhere"}')
    assert [run(), run("-", "--file", FIXTURE), run("--file", FIXTURE, "--url", "http://127.0.0.1:1/"),
            run("--file", tmp_path), run("--file", tmp_path / "none"), run("--file", "a\0b"),
            run("--file", FIXTURE, "--schema", tmp_path / "text.json"),
            run("--file", FIXTURE, "--schema", tmp_path / "five.json"),
            run("--file", FIXTURE, "--schema", tmp_path / "loop.json"),
            run("--file", FIXTURE, "--manifest", tmp_path / "five.json"),
            run("--file", FIXTURE, "--manifest", tmp_path / "none"),
            run("--file", FIXTURE, "--bogus"),
            run("--url", "http://127.0.0.1:1/", "--timeout", "0"),
            run("--url", "http://127.0.0.1:1/", "--timeout", "nan")] == [2] * 14
    assert capsys.readouterr().err.count("SETUP ERROR: ") == 13


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    """A named pipe that nobody writes would keep us waiting for ever."""
    os.mkfifo(tmp_path / "pipe")
    assert run("--file", tmp_path / "pipe") == 2


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """``-`` reads it, up to the bound."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(FIXTURE.read_bytes())))
    assert run("-") == 0 and "standard input" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x" * 3_000_000)))
    assert run("-") == 1 and "larger than" in capsys.readouterr().err


def test_as_a_program_in_a_plain_locale(tmp_path: Path) -> None:
    """The module runs by itself; foreign names cannot break an ASCII terminal or forge a line."""
    file = tmp_path / "st\u00e4tus\n[OK].json"
    file.write_text('{"trading_mode\\n[OK]\\u0000\\u2028": 1}')
    done = subprocess.run([sys.executable, "-m", "harness.contracts.validate", "status", "--strict", "--file", file],
                          cwd=REPOSITORY, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PYTHONUTF8": "0"},
                          capture_output=True, timeout=60)
    assert done.returncode == 1 and b"Traceback" not in done.stderr and done.stderr.isascii()
    assert not any(line.startswith(b"[OK]") for line in done.stderr.splitlines())


# ---- endpoints ----------------------------------------------------------------------------------------------

Serve = Callable[[socket.socket], None]


@pytest.fixture
def endpoint() -> Iterator[Callable[[Serve], str]]:
    """A server on a free port whose every connection is handled by the given function; its URL."""
    listeners: list[socket.socket] = []

    def serve(handle: Serve) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def loop() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=quietly, args=(handle, connection), daemon=True).start()

        threading.Thread(target=loop, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1/status"

    yield serve
    for listener in listeners:
        listener.close()


def quietly(handle: Serve, connection: socket.socket) -> None:
    """One connection; the other side hanging up is how these tests end."""
    with connection:
        try:
            connection.recv(65536)
            handle(connection)
        except OSError:
            return


def answer(body: bytes, status: str = "200 OK", *headers: str) -> Serve:
    """A whole, well-behaved answer."""
    head = "\r\n".join((f"HTTP/1.1 {status}", *(headers or (f"Content-Length: {len(body)}",)), "", "")).encode()
    return lambda connection: connection.sendall(head + body)


def drip(head: bytes, piece: bytes, every_s: float) -> Serve:
    """Sends the head and then the same piece for ever."""
    def handle(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(piece)
            time.sleep(every_s)

    return handle


def test_a_lawful_endpoint(endpoint: Callable[[Serve], str], capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way over a socket."""
    url = endpoint(answer(FIXTURE.read_bytes()))
    assert run("--url", url) == 0 and capsys.readouterr().out == f"VALIDATION OK: {url}\n"


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
BAD = {
    "an unlawful document": (answer(b"[]"), 1, "an array"),
    "an answer that never ends, fast": (drip(HEAD, b" " * 65536, 0), 1, "larger than"),
    "an answer that never ends, slowly": (drip(HEAD, b" ", 0.05), 2, "within"),
    "headers that never end": (drip(b"HTTP/1.1 200 OK\r\n", b"x", 0.05), 2, "within"),
    "no answer": (lambda connection: time.sleep(5), 2, "within"),
    "a redirect to itself": (answer(b"", "302 Found", "Location: /api/v1/status", "Content-Length: 0"), 2, "302"),
    "an error": (answer(b"{}", "503 Service Unavailable"), 2, "503"),
    "no HTTP": (lambda connection: connection.sendall(b"\x00\xff" * 100 + b"\n"), 2, "BadStatusLine"),
    "hung up": (lambda connection: None, 2, "RemoteDisconnected"),
    "cut off": (answer(b'{"trading_mode": "Act', "200 OK", "Content-Length: 999"), 2, "short of"),
    "cut off behind a whole document": (answer(FIXTURE.read_bytes(), "200 OK", "Content-Length: 9999"), 2, "short of"),
    "broken chunks": (answer(b"zz\r\n", "200 OK", "Transfer-Encoding: chunked"), 2, "IncompleteRead"),
}


@pytest.mark.parametrize(("handle", "code", "says"), BAD.values(), ids=BAD)
def test_bad_endpoints_end_soon(endpoint: Callable[[Serve], str], capsys: pytest.CaptureFixture[str], handle: Serve,
                                code: int, says: str) -> None:
    """A finding or a set-up error, within the time that was given, and no thread is left behind."""
    url, began = endpoint(handle), time.monotonic()
    assert run("--url", url, "--timeout", "0.7") == code
    assert time.monotonic() - began < 5 and says in capsys.readouterr().err
    workers = [each for each in threading.enumerate() if each.name == "validate-url"]
    for worker in workers:
        worker.join(3)
    assert not any(worker.is_alive() for worker in workers)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://", "127.0.0.1:80", "http://127.0.0.1:99999/", "http://[::1/",
                                 "http://127.0.0.1:1/", "http://127.0.0.1:1/a b\r\nX: y", "http://\udcff/"])
def test_addresses_that_cannot_be_asked(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Set-up errors, whatever the address is."""
    assert run("--url", url) == 2 and capsys.readouterr().err.startswith("SETUP ERROR: ")


def test_reading_stops_at_the_bound(endpoint: Callable[[Serve], str]) -> None:
    """Not one byte more than the contract needs to say that it is too much."""
    assert len(source.read_url(endpoint(drip(HEAD, b" " * 65536, 0)), 5000)) == source._READ_MAX


def test_it_is_a_command_of_the_toolkit() -> None:
    """The console finds the function that runs it."""
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    args = parser.parse_args(["validate", "status", "--quiet", "--file", str(FIXTURE)])
    assert args.command(args) == 0
