"""What each effect does to the bytes of a link, message by message, with Toxiproxy's meanings."""

from __future__ import annotations

from random import Random

import pytest

from harness.drill.model import LinkFault, RawToxic
from harness.world.sim import disk, wire, witness
from harness.world.sim.clock import MS, Agenda
from harness.world.sim.node import Node
from harness.world.sim.trap import Trap
from system_under_test.machine import Append, Close, Exit, Frame, Open, Request, Response, Stop, Unanswered


class Scribe:
    """A machine that writes down what comes, with the time, and sends what it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, object]] = []
        self.outbox: list[object] = []

    def handle(self, now, value):
        self.seen.append((now.mono_ms, value))
        if isinstance(value, Request):
            return (Response(value.conn, value.id, 200, (), b"pong"),)
        if isinstance(value, Stop):
            return (Exit(0),)
        out, self.outbox = tuple(self.outbox), []
        return out

    def got(self, kind: type) -> list:
        return [value for _, value in self.seen if isinstance(value, kind)]

    def when(self, kind: type) -> list[int]:
        return [at for at, value in self.seen if isinstance(value, kind)]


class Pair:
    """A client and a server joined by one link; the client has dialled and is up unless a test wants it otherwise."""

    def __init__(self, dialled: bool = True) -> None:
        self.agenda = Agenda()
        self.scribes = {"client": Scribe(), "server": Scribe()}
        self.nodes = {}
        for name, scribe in self.scribes.items():
            node = self.nodes[name] = Node(name, self.agenda, "run", 0, 0)
            node.disk = disk.Disk(self.agenda, Random(1), (), node.give, node.remark)
            node.start(lambda scribe=scribe: scribe, "current", 1)
        self.link = wire.Link("wire", self.agenda, Random(5), self.nodes["server"], "api")
        self.nodes["client"].links["wire"] = self.link
        self.nodes["server"].serving.append(self.link)
        if dialled:
            self.do("client", Open("wire#1"))
            self.run(50)

    def do(self, name: str, *values: object) -> None:
        """Let a node send values now."""
        self.scribes[name].outbox = list(values)
        self.nodes[name].give(Frame("nudge", b""))

    def run(self, ms: int) -> None:
        self.agenda.run_to(self.agenda.now_us + ms * MS)

    def frames(self, name: str) -> list[bytes]:
        return [frame.data for frame in self.scribes[name].got(Frame) if frame.conn != "nudge"]

    def fault(self, effect: str, toward: str = "both", amount: int | None = None) -> None:
        self.link.inject("f", wire.trouble_of(LinkFault("wire", effect, toward, amount)))

    def send_many(self, count: int) -> None:
        for number in range(count):
            self.do("client", Frame("wire#1", b"%d" % number))
            self.run(5)


def test_messages_arrive_in_order_after_a_transit_time() -> None:
    """Each takes 1 to 8 ms and none overtakes another."""
    pair = Pair()
    before = pair.agenda.now_ms
    pair.do("client", *(Frame("wire#1", b"%d" % number) for number in range(50)))
    pair.run(20)
    assert pair.frames("server") == [b"%d" % number for number in range(50)]
    assert all(before + 1 <= at <= before + 8 for at in pair.scribes["server"].when(Frame) if at > before)


def test_a_stall_holds_everything_and_lets_it_go_in_order() -> None:
    """Nothing arrives while it lasts, nothing is lost, and the connection lives on."""
    pair = Pair()
    pair.fault("stall", "server")
    pair.send_many(20)
    assert pair.frames("server") == []
    pair.link.heal("f")
    pair.run(20)
    assert pair.frames("server") == [b"%d" % number for number in range(20)]
    assert not pair.scribes["client"].got(Close)


def test_what_a_stall_held_back_is_no_word_about_the_fault_after_it() -> None:
    """A witness that is called when the stall is over sees how late its own fault makes things, not what was late before."""
    pair = Pair()
    pair.fault("stall", "server")
    pair.send_many(60)
    pair.link.heal("f")
    pair.run(20)
    assert pair.link.lag_us_max[wire.UP] > 250 * MS
    looks = witness.flow(pair.link, (wire.UP,))
    seen = []
    for _ in range(2):
        seen.append(dict(looks()))
        pair.send_many(3)
    assert "flow.lag_ms" not in seen[0] and seen[1]["flow.lag_ms"] < 20


def test_a_stall_toward_the_client_leaves_the_other_way_alone() -> None:
    """Effects act on the way that they name."""
    pair = Pair()
    pair.fault("stall", "client")
    pair.send_many(3)
    pair.do("server", Frame("api#1", b"news"))
    pair.run(50)
    assert pair.frames("server") == [b"0", b"1", b"2"]
    assert pair.frames("client") == []


def test_a_stalled_close_comes_behind_what_was_held() -> None:
    """The other end learns of a close only when the stall is healed."""
    pair = Pair()
    pair.fault("stall", "server")
    pair.do("client", Frame("wire#1", b"last"), Close("wire#1", "bye"))
    pair.run(500)
    assert not pair.scribes["server"].got(Close)
    pair.link.heal("f")
    pair.run(20)
    assert pair.frames("server") == [b"last"]
    assert [close.why for close in pair.scribes["server"].got(Close)] == ["closed 1000: bye"]


def test_a_drop_loses_what_is_sent_and_closes_when_healed() -> None:
    """As Toxiproxy's timeout toxic: a black hole, whose removal closes the connection for both ends."""
    pair = Pair()
    pair.fault("drop", "server")
    pair.send_many(5)
    assert not pair.scribes["client"].got(Close)
    pair.link.heal("f")
    pair.run(20)
    assert pair.frames("server") == []
    assert len(pair.scribes["client"].got(Close)) == len(pair.scribes["server"].got(Close)) == 1


def test_a_cut_closes_everything_and_refuses_dials_until_healed() -> None:
    """Only here a request is known not to have been sent."""
    pair = Pair()
    pair.fault("cut")
    pair.run(10)
    assert len(pair.scribes["client"].got(Close)) == len(pair.scribes["server"].got(Close)) == 1
    pair.do("client", Open("wire#2"), Request("wire#9", 1, "GET", "/x"))
    pair.run(10)
    assert "refused" in pair.scribes["client"].got(Close)[-1].why
    assert [each.sent for each in pair.scribes["client"].got(Unanswered)] == [False]
    pair.link.heal("f")
    pair.do("client", Open("wire#3"))
    pair.run(50)
    assert pair.scribes["client"].got(Open)[-1].conn == "wire#3"


def test_a_delay_adds_to_the_transit_and_lets_go_when_healed() -> None:
    """What waits when it is healed arrives at once."""
    pair = Pair()
    pair.fault("delay", "server", 500)
    sent_at = pair.agenda.now_ms
    pair.do("client", Frame("wire#1", b"slow"))
    pair.run(600)
    assert 501 <= pair.scribes["server"].when(Frame)[-1] - sent_at <= 508
    pair.do("client", Frame("wire#1", b"freed"))
    pair.run(100)
    assert pair.frames("server") == [b"slow"]
    pair.link.heal("f")
    pair.run(1)
    assert pair.frames("server") == [b"slow", b"freed"]


def test_a_throttle_lets_so_many_kilobytes_pass() -> None:
    """Ten messages of a thousand bytes at 10 kB/s take a second."""
    pair = Pair()
    pair.fault("throttle", "server", 10)
    began = pair.agenda.now_ms
    pair.do("client", *(Frame("wire#1", bytes(992)) for _ in range(10)))
    pair.run(2_000)
    assert len(pair.frames("server")) == 10
    assert 990 <= pair.scribes["server"].when(Frame)[-1] - began <= 1_020


def test_fragments_arrive_as_one_message_when_the_last_one_has() -> None:
    """Framing survives fragmentation; the pieces are counted."""
    pair = Pair()
    before = pair.link.segments[wire.UP]
    pair.fault("fragment", "server", 10)
    pair.do("client", Frame("wire#1", bytes(94)))
    pair.run(50)
    assert pair.frames("server") == [bytes(94)]
    assert pair.link.segments[wire.UP] - before == 10


def test_a_reset_waits_for_the_first_bytes() -> None:
    """An idle connection is never reset; the first message after the fault closes it and is lost."""
    pair = Pair()
    pair.fault("reset")
    pair.run(500)
    assert not pair.scribes["client"].got(Close)
    pair.do("client", Frame("wire#1", b"first"))
    pair.run(20)
    assert pair.frames("server") == []
    assert len(pair.scribes["client"].got(Close)) == len(pair.scribes["server"].got(Close)) == 1


def test_truncation_passes_whole_messages_and_none_that_is_cut() -> None:
    """Half a message is no message: the connection closes instead."""
    pair = Pair()
    pair.fault("truncate", "server", 40)
    pair.do("client", *(Frame("wire#1", bytes(10)) for _ in range(4)))
    pair.run(50)
    assert len(pair.frames("server")) == 2
    assert len(pair.scribes["client"].got(Close)) == 1


def test_a_dead_server_is_accepted_by_the_proxy_and_closed() -> None:
    """The client cannot know that nothing was sent, so it is not told so."""
    pair = Pair()
    pair.nodes["server"].kill()
    pair.run(20)
    assert [close.why for close in pair.scribes["client"].got(Close)] == ["closed 1006"]
    pair.do("client", Request("wire#9", 1, "GET", "/x"), Open("wire#2"))
    pair.run(50)
    assert [each.sent for each in pair.scribes["client"].got(Unanswered)] == [True]
    assert pair.scribes["client"].got(Close)[-1].why.startswith("dial failed")
    assert pair.link.connections == {}


def test_an_http_request_is_answered_and_its_connection_is_gone() -> None:
    """One request, one connection, one answer."""
    pair = Pair()
    pair.do("client", Request("wire#9", 7, "POST", "/x", (("X-Name", "v"),), b"ping"))
    pair.run(50)
    assert pair.scribes["client"].got(Response) == [Response("wire#9", 7, 200, (), b"pong")]
    assert ("x-name", "v") in pair.scribes["server"].got(Request)[0].headers
    assert len(pair.link.connections) == 1


def test_headers_may_be_lists() -> None:
    """A machine of one's own may hand them over as JSON gave them: they arrive as any others."""
    pair = Pair()
    pair.do("client", Request("wire#9", 7, "POST", "/x", [["X-Name", "v"]], b"ping"))  # type: ignore[arg-type]
    pair.run(50)
    assert pair.nodes["client"].log_lines == []
    assert pair.scribes["client"].got(Response) == [Response("wire#9", 7, 200, (), b"pong")]
    assert ("x-name", "v") in pair.scribes["server"].got(Request)[0].headers


@pytest.mark.parametrize("effect", ["stall", "drop"])
def test_a_request_without_an_answer_times_out_as_sent(effect: str) -> None:
    """After the shell's ten seconds it is unanswered, and may well have arrived."""
    pair = Pair()
    pair.fault(effect, "client")
    pair.do("client", Request("wire#9", 1, "GET", "/x"))
    pair.run(11_000)
    assert [each.sent for each in pair.scribes["client"].got(Unanswered)] == [True]
    assert len(pair.scribes["server"].got(Request)) == 1


def test_a_dial_through_a_stall_fails_in_time() -> None:
    """The handshake's answer never comes: the shell gives up after three seconds."""
    pair = Pair(dialled=False)
    pair.fault("stall", "client")
    pair.do("client", Open("wire#1"))
    pair.run(3_100)
    assert [close.why for close in pair.scribes["client"].got(Close)] == ["dial failed: TimeoutError"]


def test_a_peer_that_takes_nothing_is_cut_off() -> None:
    """What waits for it is bounded, as in the shell."""
    pair = Pair()
    pair.fault("stall", "server")
    for _ in range(5):
        pair.do("client", Frame("wire#1", bytes(1_000_000)))
    pair.run(10)
    assert pair.scribes["client"].got(Close)[0].why.startswith("slow peer")


@pytest.mark.parametrize(
    ("toxic", "effect"),
    [
        (RawToxic("wire", "latency", "upstream", {"latency": 100}), "delay"),
        (RawToxic("wire", "bandwidth", "upstream", {"rate": 0}), "stall"),
        (RawToxic("wire", "timeout", "downstream", {"timeout": 0}), "drop"),
        (RawToxic("wire", "reset_peer", "upstream", {"timeout": 0}), "reset"),
        (RawToxic("wire", "slicer", "upstream", {"average_size": 10}), "fragment"),
        (RawToxic("wire", "limit_data", "upstream", {"bytes": 100}), "truncate"),
    ],
)
def test_raw_toxics_mean_effects(toxic: RawToxic, effect: str) -> None:
    """Toxiproxy's own words are understood."""
    assert wire.refuses(toxic) is None
    assert wire.trouble_of(toxic).effect == effect


@pytest.mark.parametrize(
    "toxic",
    [RawToxic("wire", "latency", "upstream", {"latency": 100, "jitter": 5}), RawToxic("wire", "chaos", "upstream", {})],
)
def test_luck_of_another_and_unknown_toxics_are_refused(toxic: RawToxic) -> None:
    """Jitter is Toxiproxy's unseeded luck; the sim does not pretend to repeat it."""
    assert wire.refuses(toxic) is not None


def test_a_timeout_toxic_closes_after_silence_not_before() -> None:
    """Its timer begins anew with every chunk, so a busy connection stays open."""
    pair = Pair()
    pair.link.inject("f", wire.trouble_of(RawToxic("wire", "timeout", "upstream", {"timeout": 100})))
    for _ in range(10):
        pair.do("client", Frame("wire#1", b"busy"))
        pair.run(50)
    assert not pair.scribes["client"].got(Close)
    pair.run(120)
    assert len(pair.scribes["client"].got(Close)) == 1


def test_a_trap_does_not_spring_on_who_has_ended() -> None:
    """What follows an Exit in one answer is never carried out, so nobody dies before it."""
    pair = Pair(dialled=False)
    node, sprung = pair.nodes["client"], []
    node.trap, node.on_trap = Trap("append", "ledger", 1), sprung.append
    pair.do("client", Exit(0), Append("ledger", 1, b"{}"))
    assert (sprung, node.exit_code) == ([], 0)


def test_a_paused_node_takes_everything_later_and_in_order() -> None:
    """Frames and a new connection wait for it, as in the kernel's queues."""
    pair = Pair()
    pair.nodes["server"].pause()
    pair.send_many(3)
    pair.do("client", Request("wire#9", 1, "GET", "/x"))
    pair.run(200)
    assert pair.frames("server") == []
    pair.nodes["server"].resume()
    pair.run(20)
    assert pair.frames("server") == [b"0", b"1", b"2"]
    assert len(pair.scribes["client"].got(Response)) == 1
