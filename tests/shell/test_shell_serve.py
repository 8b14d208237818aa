"""The shell around real machines: sockets, signals, crashes, and clients that mean no good."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from shell_nodes import Process, Toy, alive, eventually, free_port, get

from system_under_test.machine import REPLACE_PLAN


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Toy]:
    stack = Toy(tmp_path)
    yield stack
    stack.dispose()


@pytest.fixture
def node(tmp_path: Path) -> Iterator:
    """Start one odd machine on a port of its own."""
    started = []

    def start(machine: str) -> tuple[Process, int]:
        port = free_port()
        started.append(Process(tmp_path, machine, f"odd_machines:{machine}", API_LISTEN=f"127.0.0.1:{port}"))
        assert eventually(lambda: _listens(port))
        return started[0], port

    yield start
    for each in started:
        each.dispose()


def _listens(port: int) -> bool:
    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", port)) == 0


def test_two_machines_meet_and_end_in_order(toy: Toy) -> None:
    """WebSocket, HTTP, ledger, files and notes work; SIGTERM ends with the machine's own code."""
    toy.until(lambda status: status["echoed"] > 20 and status["answered"] > 1 and status["disk"] is not None)
    assert get(toy.api, "/echo", "POST", b"hi")[1] == b'{"echo": "hi"}'
    toy.client.signal(signal.SIGTERM)
    assert toy.client.ended() == 0
    notes = toy.client.notes()
    assert [note["seq"] for note in notes] == list(range(1, len(notes) + 1))
    assert {"run_id", "boot", "seq", "at", "wall", "kind", "intent_id"} <= set(notes[0])
    assert notes[-1]["kind"] == "stopping" and notes[-1]["why"] == "SIGTERM"
    assert json.loads((toy.client.data / "files" / "state.json").read_bytes())["ticks"] >= 10
    assert eventually(lambda: not alive(toy.client.writer_pid()))


def test_a_killed_machine_starts_again_over_what_it_recorded(toy: Toy) -> None:
    """Its ledger is whole, its boot is counted, its writer died with it."""
    before = toy.until(lambda status: status["ticks"] > 20)
    writer = toy.client.writer_pid()
    toy.client.kill()
    assert eventually(lambda: not alive(writer))
    toy.client.start()
    after = toy.until(lambda status: status["boot"] == 2 and status["connected"])
    assert after["records_found"] >= before["ticks"]


def test_a_stopped_writer_stalls_the_ledger_and_nothing_else(toy: Toy) -> None:
    """The loop ticks on time while nothing becomes durable; resuming brings everything, in order."""
    toy.until(lambda status: status["ticks"] > 5)
    os.kill(toy.client.writer_pid(), signal.SIGSTOP)
    stalled = toy.until(lambda status: status["depth"] > 30)
    assert stalled["lag_ms_max"] < 200 and stalled["refused"] == 0
    os.kill(toy.client.writer_pid(), signal.SIGCONT)
    toy.until(lambda status: status["depth"] <= 2)
    assert _ledger_is_whole(toy)


def test_a_stopped_writer_never_writes_after_a_crash(toy: Toy) -> None:
    """Killed while its writer is stopped: what the pipe held is gone, the log does not grow behind the next life."""
    toy.until(lambda status: status["ticks"] > 5)
    writer = toy.client.writer_pid()
    os.kill(writer, signal.SIGSTOP)
    toy.until(lambda status: status["depth"] > 20)
    size = (toy.client.data / "logs" / "ledger.log").stat().st_size
    toy.client.kill()
    assert eventually(lambda: not alive(writer))
    assert (toy.client.data / "logs" / "ledger.log").stat().st_size == size


def test_a_refused_write_is_retried_in_order(toy: Toy) -> None:
    """A file-size limit on the writer refuses; lifting it brings everything and leaves no bad line."""
    import resource

    toy.until(lambda status: status["ticks"] > 5)
    writer = toy.client.writer_pid()
    size = (toy.client.data / "logs" / "ledger.log").stat().st_size
    resource.prlimit(writer, resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
    refused = toy.until(lambda status: status["refused"] == 1 and status["depth"] > 30)
    assert refused["lag_ms_max"] < 200
    resource.prlimit(writer, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    toy.until(lambda status: status["depth"] <= 2)
    assert _ledger_is_whole(toy)
    refusals = [note for note in toy.client.notes() if note["kind"] == "shell.append_refused"]
    assert refusals and refusals[0]["why"] == "EFBIG"


def _ledger_is_whole(toy: Toy) -> bool:
    """Every line's checksum is right and every tick is there, in order."""
    from system_under_test.shell.files import decode_log

    decoded = decode_log((toy.client.data / "logs" / "ledger.log").read_bytes())
    times = [json.loads(record)["at"] for record in decoded.records]
    return times == sorted(times) and max(b - a for a, b in zip(times, times[1:], strict=False)) < 400


def test_a_torn_tail_is_told_and_repaired(toy: Toy) -> None:
    """The next start sees the valid prefix and says how much was torn."""
    toy.until(lambda status: status["ticks"] > 10)
    toy.client.kill()
    with (toy.client.data / "logs" / "ledger.log").open("ab") as log:
        log.write(b"0badbeef {\"half")
    toy.client.start()
    toy.until(lambda status: status["boot"] == 2 and status["depth"] == 0 and status["ticks"] > 2)
    torn = [note for note in toy.client.notes() if note["kind"] == "shell.torn_tail"]
    assert [note["bytes"] for note in torn] == [15]
    toy.client.kill()
    assert _no_torn_bytes(toy)


def _no_torn_bytes(toy: Toy) -> bool:
    from system_under_test.shell.files import decode_log

    return decode_log((toy.client.data / "logs" / "ledger.log").read_bytes()).torn_bytes == 0


@pytest.mark.parametrize("before", [["send", "echo", 3], ["append", "ledger", 2], ["replace", "state.json", 1],
                                    ["request", "/echo", 1]])
def test_the_crash_trap_stops_before_the_named_value(toy: Toy, tmp_path: Path, before: list) -> None:
    """Armed by a signal, it says so, and the process stops itself before the value is carried out."""
    toy.until(lambda status: status["ticks"] > 5)
    (tmp_path / "trap").write_text(json.dumps({"before": before}))
    toy.client.signal(signal.SIGUSR1)
    assert eventually(lambda: (tmp_path / "trap.armed").exists())
    assert eventually(lambda: (tmp_path / "trap.hit").exists())
    stat = Path(f"/proc/{toy.client.pid}/stat")
    assert eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")


@pytest.mark.parametrize("step", REPLACE_PLAN)
def test_the_crash_trap_stops_inside_a_plan(toy: Toy, tmp_path: Path, step: str) -> None:
    """What the steps before did is there, what this one and those after it do is not."""
    toy.until(lambda status: status["ticks"] > 25)
    state = toy.client.data / "files" / "state.json"
    (tmp_path / "trap").write_text(json.dumps({"before": ["replace", "state.json", 2, step]}))
    before = json.loads(state.read_text())["ticks"]
    toy.client.signal(signal.SIGUSR1)
    assert eventually(lambda: (tmp_path / "trap.hit").exists())
    stat = Path(f"/proc/{toy.client.pid}/stat")
    assert eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
    temporary, done = state.with_name(".state.json.new"), REPLACE_PLAN.index(step)
    assert temporary.exists() is (REPLACE_PLAN.index("write_temporary") < done <= REPLACE_PLAN.index("rename"))
    assert json.loads(state.read_text())["ticks"] > before


def test_a_machine_that_raises_ends_the_process(node) -> None:
    """Exit 70 with the traceback; nothing is swallowed."""
    process, port = node("raises")
    with pytest.raises(OSError):
        get(port, "/")
    assert process.ended() == 70
    assert "RuntimeError: on purpose" in process.log.read_text()


def test_a_machine_that_does_not_end_is_forced(node) -> None:
    """Not before two seconds after SIGTERM, but without another word."""
    process, _ = node("deaf")
    began = time.monotonic()
    process.signal(signal.SIGTERM)
    assert process.ended() == 75
    assert time.monotonic() - began > 1.8


def test_a_start_that_cannot_be_had_says_why(tmp_path: Path) -> None:
    """A port that is taken is a set-up error, not a traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = Process(tmp_path, "deaf", "odd_machines:deaf", API_LISTEN=f"127.0.0.1:{taken.getsockname()[1]}")
        assert process.ended() == 74
    assert "cannot start" in process.log.read_text()


def test_two_processes_never_share_their_data(toy: Toy, tmp_path: Path) -> None:
    """The second one waits for the lock and gives up."""
    toy.until(lambda status: status["ticks"] > 1)
    second = Process(tmp_path, "client", "odd_machines:deaf")
    try:
        assert second.ended() == 74
    finally:
        second.dispose()


# ---- hostile peers


def _upgrade(port: int) -> socket.socket:
    """A WebSocket connection by hand."""
    raw = socket.create_connection(("127.0.0.1", port), 5)
    key = base64.b64encode(os.urandom(16)).decode()
    raw.sendall((f"GET /ws/x HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
    assert raw.recv(65536).startswith(b"HTTP/1.1 101")
    return raw


def test_a_peer_that_takes_nothing_is_cut_off_and_never_blocks(node) -> None:
    """The flood that it does not read is bounded; the machine's timers stay on time."""
    _, port = node("flood")
    sleeper = _upgrade(port)
    assert eventually(lambda: json.loads(get(port, "/")[1])["closed"] == 1)
    assert json.loads(get(port, "/")[1])["lag"] < 250
    sleeper.close()


def test_hanging_up_lets_the_last_words_be_read(node) -> None:
    """A client that is still writing is heard out until it has closed too: no reset takes the answer from it."""
    _, port = node("curt")
    with _upgrade(port) as raw:
        for _ in range(20):
            raw.sendall(b"\x81\x82\0\0\0\0hi")
            time.sleep(0.01)
        raw.sendall(b"\x88\x82\0\0\0\0\x03\xe8")
        raw.settimeout(3)
        heard = b""
        while part := raw.recv(65536):
            heard += part
        assert b"goodbye" in heard and b"said enough" in heard


@pytest.mark.parametrize("bytes_", [b"\x00" * 100, b"GET / HTTP/9.9\r\n\r\n", b"GET " + b"a" * 200_000,
                                    b"POST / HTTP/1.1\r\ncontent-length: -5\r\n\r\n", b"\x16\x03\x01" * 50])
def test_garbage_leaves_the_server_as_it_was(node, bytes_: bytes) -> None:
    """Answered with an error or closed; the next client is served."""
    process, port = node("flood")
    with socket.create_connection(("127.0.0.1", port), 5) as raw:
        raw.sendall(bytes_)
        raw.settimeout(3)
        try:
            assert b"200 OK" not in raw.recv(65536)
        except (ConnectionResetError, TimeoutError):
            assert process.process.poll() is None
    assert get(port, "/")[0] == 200


def test_a_body_that_is_too_large_is_refused(node) -> None:
    """413, and the connection is closed."""
    _, port = node("flood")
    try:
        status = get(port, "/", "POST", b"x" * 1_200_000)[0]
    except OSError:  # it may close before all was sent
        status = 413
    assert status == 413
    assert get(port, "/")[0] == 200


def test_a_message_that_is_too_large_closes_its_connection(toy: Toy) -> None:
    """One mebibyte is the shell's bound; the server lives on."""
    toy.until(lambda status: status["connected"])
    with _upgrade(toy.api) as raw:
        raw.sendall(b"\x81\xff" + (2_000_000).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * 65_536)
        raw.settimeout(5)
        assert _ends(raw)
    assert toy.status()["connected"]


def _ends(raw: socket.socket) -> bool:
    """Whether the other side closes, with or without having read what was sent."""
    try:
        while raw.recv(65536):
            continue
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True
    return True


def test_a_body_that_never_comes_is_not_waited_for(node) -> None:
    """The head promises a body; after the limit the connection is answered and closed."""
    _, port = node("flood")
    with socket.create_connection(("127.0.0.1", port), 5) as raw:
        raw.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        raw.settimeout(8)
        assert b"408" in raw.recv(65536)
