"""What each effect does to bytes, measured on the real server: the table of effects.py, line by line.

The sim's links are held to the same meanings by the conformance suite.
"""

from __future__ import annotations

import itertools
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from harness.drill.model import LinkFault, RawToxic
from harness.world.real import effects, sockets
from harness.world.real.ports import LOOPBACK, Ports
from harness.world.real.sockets import Diagnosis
from harness.world.real.toxiproxy import ProxyClient

QUIET_S = 0.25
PATIENCE_S = 20
names = itertools.count()


@dataclass
class Line:
    """A proxy with a listening server behind it."""

    client: ProxyClient
    name: str
    port: int
    server: socket.socket

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """A connection through the proxy: the dialling end and the accepted one, both known to work."""
        near = socket.create_connection((LOOPBACK, self.port), 2)
        far, _ = self.server.accept()
        near.settimeout(2)
        far.settimeout(2)
        near.sendall(b"?")
        assert far.recv(1) == b"?"
        far.sendall(b"!")
        assert near.recv(1) == b"!"
        return near, far

    def inject(self, force: LinkFault | RawToxic) -> Callable[[], None]:
        """Apply; returns what heals."""
        if effects.is_cut(force):
            self.client.enable(self.name, False)
            return lambda: self.client.enable(self.name, True) and None
        toxics = effects.toxics("fault", force)
        for toxic in toxics:
            self.client.add(self.name, toxic)
        return lambda: [self.client.remove(self.name, toxic.name) for toxic in toxics] and None


@pytest.fixture
def line(proxy_port: int) -> Iterator[Line]:
    ports, server = Ports(), socket.socket()
    server.bind((LOOPBACK, 0))
    server.listen()
    server.settimeout(2)
    client, name, port = ProxyClient(LOOPBACK, proxy_port), f"line{next(names)}", ports.reserve()
    client.create(name, f"{LOOPBACK}:{port}", f"{LOOPBACK}:{server.getsockname()[1]}")
    yield Line(client, name, port, server)
    client.enable(name, False)
    server.close()
    ports.release()


def wire(effect: str, toward: str = "client", amount: int | None = None) -> LinkFault:
    return LinkFault("line", effect, toward, amount)  # type: ignore[arg-type]


def heard(end: socket.socket, for_s: float = QUIET_S) -> bytes:
    """Everything that arrives within ``for_s``; ``<end>`` where the connection ended."""
    data, deadline = b"", time.monotonic() + for_s
    while (left := deadline - time.monotonic()) > 0:
        end.settimeout(left)
        try:
            part = end.recv(65_536)
        except TimeoutError:
            break
        except ConnectionResetError:
            return data + b"<reset>"
        if not part:
            return data + b"<end>"
        data += part
    return data


def comes(end: socket.socket, what: bytes) -> bool:
    """Whether exactly these bytes arrive next, however long a busy machine takes over them."""
    data, deadline = b"", time.monotonic() + PATIENCE_S
    while len(data) < len(what) and (left := deadline - time.monotonic()) > 0:
        end.settimeout(left)
        part = end.recv(len(what) - len(data))
        if not part:
            break
        data += part
    return data == what


def await_more(things: list[bytes], count: int) -> None:
    """Return once so many have been added."""
    wanted, deadline = len(things) + count, time.monotonic() + PATIENCE_S
    while len(things) < wanted:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ends(end: socket.socket) -> bool:
    """Whether the connection ends here, with nothing before."""
    return heard(end, PATIENCE_S) in (b"<end>", b"<reset>")


def test_stall_holds_everything_and_loses_nothing(line: Line) -> None:
    """A stalled direction is silent, the other flows, and healing delivers every byte in order."""
    near, far = line.pair()
    heal = line.inject(wire("stall", "client"))
    sent = b"".join(b"%06d" % n for n in range(20_000))
    far.sendall(sent)
    assert heard(near) == b""
    near.sendall(b"up")
    assert comes(far, b"up")
    heal()
    assert comes(near, sent) and heard(near) == b""


@pytest.mark.parametrize("effect", ["stall", "delay"])
def test_healing_is_possible_when_the_reader_has_died_meanwhile(line: Line, effect: str) -> None:
    """The server's API locks up over what a dead connection was to get (its issue 558): the proxy is then made anew,
    what else stands on the link stays, and the link works again."""
    near, far = line.pair()
    heal = line.inject(wire(effect, "client", 60_000 if effect == "delay" else None))
    other = effects.toxics("other", wire("delay", "server", 30))[0]
    line.client.add(line.name, other)
    for _ in range(20):
        far.sendall(b"x" * 1_000)
        time.sleep(0.005)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    near.close()
    time.sleep(0.2)
    heal()
    assert set(line.client.toxics(line.name)) == {other.name}
    assert ends(far)
    line.pair()
    line.client.remove(line.name, other.name)


def test_stall_toward_the_server_is_the_other_direction(line: Line) -> None:
    """``toward: server`` stalls what the client sends, also on connections made since."""
    heal = line.inject(wire("stall", "server"))
    near = socket.create_connection((LOOPBACK, line.port), 2)
    far, _ = line.server.accept()
    near.sendall(b"order")
    assert heard(far) == b""
    far.sendall(b"news")
    assert comes(near, b"news")
    heal()
    assert comes(far, b"order")


def test_stall_can_be_healed_while_bytes_keep_coming(line: Line) -> None:
    """Healing under traffic neither loses nor reorders nor repeats a byte."""
    near, far = line.pair()
    heal = line.inject(wire("stall", "client"))
    going, sent = threading.Event(), [b""]
    going.set()

    def feed() -> None:
        while going.is_set():
            sent.append(b"%08d" % len(sent))
            far.sendall(sent[-1])
            time.sleep(0.001)

    feeder = threading.Thread(target=feed)
    feeder.start()
    await_more(sent, 100)
    heal()
    await_more(sent, 20)
    going.clear()
    feeder.join()
    assert comes(near, b"".join(sent)) and heard(near) == b""


def test_drop_loses_the_bytes_and_healing_closes(line: Line) -> None:
    """Dropped bytes never come, the connection stands meanwhile, and healing ends it at both ends."""
    near, far = line.pair()
    heal = line.inject(wire("drop", "server"))
    near.sendall(b"lost order")
    assert heard(far) == b""
    far.sendall(b"still connected")
    assert comes(near, b"still connected")
    heal()
    assert heard(near, PATIENCE_S) == b"<end>"
    assert heard(far, PATIENCE_S) == b"<end>"
    line.pair()


def test_cut_closes_and_refuses_until_healed(line: Line) -> None:
    """A cut link ends what is open, refuses what is dialled, and dials again when healed."""
    near, far = line.pair()
    heal = line.inject(wire("cut", "both"))
    assert ends(near)
    assert ends(far)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, line.port), 2)
    heal()
    line.pair()


def test_delay_makes_every_chunk_late(line: Line) -> None:
    """A delay of 200 ms is at least 200 ms, in that direction alone: what goes the other way meanwhile is there first."""
    near, far = line.pair()
    line.inject(wire("delay", "client", 200))
    begin = time.monotonic()
    far.sendall(b"late")
    near.sendall(b"soon")
    first, _, _ = select.select([near, far], [], [], PATIENCE_S)
    assert far in first and comes(far, b"soon")
    assert comes(near, b"late")
    assert time.monotonic() - begin >= 0.19


def test_throttle_counts_kilobytes_of_1000_bytes(line: Line) -> None:
    """10 kB at 20 kB/s take at least half a second."""
    near, far = line.pair()
    line.inject(wire("throttle", "client", 20))
    begin = time.monotonic()
    far.sendall(b"x" * 10_000)
    assert comes(near, b"x" * 10_000)
    assert time.monotonic() - begin >= 0.45


def test_fragment_cuts_into_small_pieces_and_loses_nothing(line: Line) -> None:
    """A hundred bytes come in at least ten segments, in order, as the kernel counts them."""
    near, far = line.pair()
    line.inject(wire("fragment", "client", 10))
    diagnosis = Diagnosis()

    def segments() -> int:
        return next(each.segments for each in diagnosis.sockets() if each.local_port == near.getsockname()[1]
                    and each.remote_port == line.port)

    before = segments()
    far.sendall(b"0123456789" * 10)
    assert comes(near, b"0123456789" * 10)
    assert segments() - before >= 10
    diagnosis.close()


def test_the_kernel_counts_a_short_connection_after_its_end(line: Line) -> None:
    """What a connection carried is told when it ends, however short it lived."""
    diagnosis = Diagnosis()
    list(diagnosis.ended())
    near, far = line.pair()
    port = near.getsockname()[1]
    far.sendall(b"x" * 999)
    assert len(heard(near)) == 999
    near.close()
    far.close()
    time.sleep(QUIET_S)
    found = [each for each in diagnosis.ended() if each.local_port == port and each.remote_port == line.port]
    assert len(found) == 1
    assert 0 <= found[0].received - 1_000 <= 1  # the kernel counts the end of the stream as one byte
    diagnosis.close()


def test_both_families_are_told_at_once_and_ports_choose() -> None:
    """One walk of the kernel tells what a question for each family tells; a run hears of its own ports alone."""
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as why:
        pytest.skip(f"no IPv6 on this machine: {why}")
    diagnosis = Diagnosis()
    with server, socket.create_server((LOOPBACK, server.getsockname()[1])):
        port = server.getsockname()[1]
        with socket.create_connection(("::1", port)), socket.create_connection((LOOPBACK, port)):
            apart = diagnosis.sockets() + diagnosis.sockets(socket.AF_INET6)
            ours = {each.cookie: each for each in apart if port in (each.local_port, each.remote_port)}
            told = {each.cookie: each for each in diagnosis.of_both_families()}
            assert len(ours) == 4 and all(told[cookie] == each for cookie, each in ours.items())
            assert {each.remote_host for each in ours.values()} == {"::1", LOOPBACK}
            assert {each.cookie for family in (socket.AF_INET, socket.AF_INET6)
                    for each in diagnosis.sockets(family, {port})} == set(ours)
    diagnosis.close()


def test_a_question_that_was_cut_short_spoils_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between two parts of an answer: healing asks again, and hears the whole answer to its own question."""
    diagnosis = Diagnosis()
    with socket.create_server((LOOPBACK, 0)) as server, ExitStack() as stack:
        port = server.getsockname()[1]
        for _ in range(200):  # more than one part holds
            stack.enter_context(socket.create_connection((LOOPBACK, port)))
            stack.enter_context(server.accept()[0])
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(sockets, "_messages", interrupted)
            diagnosis.sockets()
        assert len(diagnosis.sockets(ports={port})) == 400
    diagnosis.close()


def interrupted(_data: bytes) -> Iterator[tuple[int, bytes]]:
    raise KeyboardInterrupt


def test_reset_strikes_at_the_first_byte(line: Line) -> None:
    """An idle connection is spared; the first byte ends an open one and resets one that was made since."""
    near, far = line.pair()
    heal = line.inject(wire("reset", "client"))
    assert heard(near) == b""
    far.sendall(b"x")
    assert ends(near)
    newer = socket.create_connection((LOOPBACK, line.port), 2)
    behind, _ = line.server.accept()
    behind.sendall(b"x")
    assert heard(newer) == b"<reset>"
    heal()
    line.pair()


def test_truncate_closes_after_so_many_bytes(line: Line) -> None:
    """Exactly so many bytes come through, then the end."""
    near, far = line.pair()
    line.inject(wire("truncate", "client", 1_000))
    far.sendall(b"x" * 5_000)
    assert heard(near) == b"x" * 1_000 + b"<end>"


def test_both_directions_are_two_toxics(line: Line) -> None:
    """``toward: both`` stalls both ways, under names that tell the directions apart."""
    near, far = line.pair()
    heal = line.inject(wire("stall", "both"))
    assert set(line.client.toxics(line.name)) == {"fault.upstream", "fault.downstream"}
    near.sendall(b"a")
    far.sendall(b"b")
    assert heard(near) == heard(far) == b""
    heal()
    assert (heard(near), heard(far)) == (b"b", b"a")


def test_a_raw_toxic_is_taken_at_its_word(line: Line) -> None:
    """Toxiproxy's own vocabulary passes through and is read back."""
    line.inject(RawToxic("line", "slow_close", "upstream", {"delay": 100}))
    assert line.client.toxics(line.name)["fault.upstream"]["attributes"] == {"delay": 100}


@pytest.mark.parametrize(("force", "word"), [
    (RawToxic("line", "bandwidth", "upstream", {"rate": -1}), "at least"),
    (RawToxic("line", "bandwith", "upstream", {"rate": 1}), "no toxic"),
    (RawToxic("line", "latency", "upstream", {"delay": 1}), "no attribute"),
    (wire("delay", "client"), "amount"),
    (wire("throttle", "client", 0), "amount"),
    (wire("cut", "client"), "both directions"),
])
def test_what_toxiproxy_cannot_do_is_refused_by_name(force: LinkFault | RawToxic, word: str) -> None:
    """A force that the server would choke on, or silently mistake, is refused before anything starts."""
    assert word in (effects.refuses(force) or "")
