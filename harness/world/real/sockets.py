"""The kernel's own word on TCP connections: byte counters by socket, over netlink (sock_diag). No privileges.

A link runs through two proxies of the same server: the one that is troubled, and behind it a plain one, the tap.
Client node → proxy (``front`` port) → tap (``tap`` port) → server node. So both ends of the troubled stretch have
sockets with a port that belongs to this link alone, and what went in and what came out can be counted exactly:

    the client's end   sockets whose remote port is ``front``, held by the client node
    the server's end   sockets whose local port is ``tap``

Connections that live shorter than the pause between two readings are counted when the kernel reports their end.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import limits

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY, TCPDIAG_GETSOCK = 20, 18
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST_DUMP = 0x301
GROUPS_TCP_DESTROY = 1 << 0 | 1 << 2
"""of IPv4 and of IPv6"""
INET_DIAG_INFO = 2
ESTABLISHED = 1
STATES = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11
"""Established and the half-closed ones: all in which data still counts. TIME_WAIT has no counters any more."""

DIAL_S_MAX = 0.5

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_PORTS = struct.Struct("!HH")  # of this end, of the other
_COUNTERS = struct.Struct("=QQII")  # tcpi_bytes_acked, tcpi_bytes_received, tcpi_segs_out, tcpi_segs_in
_COUNTERS_AT = 120
_DATA_SEGMENTS_AT = 152  # tcpi_data_segs_in


@dataclass(frozen=True, slots=True)
class Socket:
    """One TCP socket; bytes since it was opened."""

    cookie: int
    """names the socket for as long as the kernel runs; ports do not"""
    established: bool
    local_port: int
    remote_host: str
    remote_port: int
    inode: int
    offered: int
    """bytes that its owner wrote: acknowledged, in flight, or waiting"""
    received: int
    segments: int
    """segments with data that came in"""


class Diagnosis:
    """Questions to the kernel, and a netlink socket for news of connections that ended."""

    def __init__(self) -> None:
        self._news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
        self._news.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, limits.SOCKET_NEWS_BYTES_MAX)
        self._news.bind((0, GROUPS_TCP_DESTROY))
        self._news.setblocking(False)
        self.lost_news = False
        """the kernel had more to tell than we took: totals may be too small from here on"""

    def close(self) -> None:
        """Idempotent."""
        self._news.close()

    def strangers(self) -> list[Socket]:
        """Connections of this machine that leave it."""
        return [each for each in self.of_both_families() if not is_loopback(each.remote_host)]

    def sockets(self, family: int = socket.AF_INET, ports: Container[int] | None = None) -> list[Socket]:
        """Every TCP socket of the machine that can still carry data; with ``ports`` those that have one of them at either end.
        Runs side by side share a machine, and none should pay for the sockets of the others."""
        asked = struct.pack("=BBBBI48s", family, socket.IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0, STATES, b"")
        return self._dump(SOCK_DIAG_BY_FAMILY, asked, ports)

    def of_both_families(self, ports: Container[int] | None = None) -> list[Socket]:
        """Those of IPv4 and of IPv6, by which a JVM reaches IPv4, too; ``ports`` as above. Asked in the older way, which knows
        no families: the kernel walks through all sockets of the machine for each question, whatever comes of it, and where
        every node has its own agent that is most of the work."""
        asked = struct.pack("=BBBB48sII", 0, 0, 0, 1 << (INET_DIAG_INFO - 1), b"", STATES, 0)
        return self._dump(TCPDIAG_GETSOCK, asked, ports)

    def _dump(self, question: int, payload: bytes, ports: Container[int] | None) -> list[Socket]:
        """Each question has a socket of its own: one that Ctrl-C cuts short leaves half an answer in it, and the kernel is busy
        there for whoever asks next, which is the healing."""
        found: list[Socket] = []
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as ask:
            ask.settimeout(1.0)
            ask.send(_HEADER.pack(_HEADER.size + len(payload), question, NLM_F_REQUEST_DUMP, 1, 0) + payload)
            while True:
                for kind, body in _messages(ask.recv(1_048_576)):
                    if kind == NLMSG_DONE:
                        return found
                    if kind == NLMSG_ERROR:
                        raise OSError(-struct.unpack_from("=i", body)[0], "sock_diag refused the question")
                    if ports is None or _touches(body, ports):
                        found.append(_socket(body))

    def ended(self, ports: Container[int] | None = None) -> Iterator[Socket]:
        """The connections that ended since the last call, with their last counters; ``ports`` as above."""
        while True:
            try:
                data = self._news.recv(65_536)
            except BlockingIOError:
                return
            except OSError as why:
                if why.errno != errno.ENOBUFS:
                    raise
                self.lost_news = True
                continue
            for kind, body in _messages(data):
                if kind == SOCK_DIAG_BY_FAMILY and (ports is None or _touches(body, ports)):
                    yield _socket(body)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        yield kind, data[at + _HEADER.size:at + length]
        at += (length + 3) & ~3


def _touches(body: bytes, ports: Container[int]) -> bool:
    local_port, remote_port = _PORTS.unpack_from(body, 4)
    return local_port in ports or remote_port in ports


def _socket(body: bytes) -> Socket:
    family, state = body[0], body[1]
    local_port, remote_port = _PORTS.unpack_from(body, 4)
    remote = body[24:28] if family == socket.AF_INET else body[24:40]
    cookie, _, _, queued, _, inode = struct.unpack_from("=QIIIII", body, 44)
    acked = received = segments = 0
    at = 72
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if kind == INET_DIAG_INFO and length >= _DATA_SEGMENTS_AT + 8:
            acked, received, *_ = _COUNTERS.unpack_from(body, at + 4 + _COUNTERS_AT)
            segments, = struct.unpack_from("=I", body, at + 4 + _DATA_SEGMENTS_AT)
        if length == 0:
            break
        at += (length + 3) & ~3
    return Socket(cookie, state == ESTABLISHED, local_port, socket.inet_ntop(family, remote), remote_port, inode,
                  acked + queued, received, segments)


def _without_handshake(each: Socket) -> Socket:
    """The kernel counts the dialling side's SYN among the bytes that were acknowledged."""
    return replace(each, offered=max(0, each.offered - 1))


def inodes_of(pid: int) -> frozenset[int]:
    """The sockets that a process holds; empty when it is gone."""
    found = set()
    try:
        handles = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return frozenset()
    for handle in handles:
        try:
            name = os.readlink(f"/proc/{pid}/fd/{handle}")
        except OSError:  # closed between the two looks
            continue
        if name.startswith("socket:["):
            found.add(int(name[8:-1]))
    return frozenset(found)


# ---- links ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class End:
    """Totals of one end of a link over all its connections, past and present; they never fall."""

    last: dict[int, Socket] = field(default_factory=dict)
    past_offered: int = 0
    past_received: int = 0
    past_segments: int = 0
    ended: int = 0

    def see(self, each: Socket) -> None:
        before = self.last.get(each.cookie)
        if before is not None and each.offered < before.offered:
            each = replace(each, offered=before.offered)  # what waited unsent when it ended was written all the same
        self.last[each.cookie] = each

    def end(self, each: Socket) -> None:
        if each.cookie not in self.last and not each.offered and not each.received:
            return  # a dial that was refused was never a connection
        self.see(each)
        final = self.last.pop(each.cookie)
        self.past_offered += final.offered
        self.past_received += final.received
        self.past_segments += final.segments
        self.ended += 1

    @property
    def offered(self) -> int:
        return self.past_offered + sum(each.offered for each in self.last.values())

    @property
    def received(self) -> int:
        return self.past_received + sum(each.received for each in self.last.values())

    @property
    def segments(self) -> int:
        return self.past_segments + sum(each.segments for each in self.last.values())


HISTORY = 4_096
"""Readings kept for the lag: more than three minutes at twenty a second."""


@dataclass(slots=True)
class Passage:
    """One direction of a link: what its sender offered and its receiver got, in time."""

    sender: End
    receiver: End
    history: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=HISTORY))
    """(time in ms, bytes offered), rising in both"""
    lost: int = 0
    """bytes offered that can never arrive any more, as far as known at the last rebase"""

    def note(self, at_ms: int) -> None:
        if not self.history or self.sender.offered > self.history[-1][1]:
            self.history.append((at_ms, self.sender.offered))

    def rebase(self) -> None:
        """Whatever is missing now counts as lost, so that the lag speaks of what comes after."""
        self.lost = self.sender.offered - self.receiver.received
        self.history.clear()

    def lag_ms(self, at_ms: int) -> int:
        """How long the oldest byte that has been offered and not received has been waiting; 0 when none has."""
        arrived = self.receiver.received + self.lost
        return next((at_ms - then for then, offered in self.history if offered > arrived), 0)


class LinkMeter:
    """Counts one link at both ends. ``holds`` says whether a socket belongs to the client node."""

    def __init__(self, front: int, tap: int, holds: Callable[[int], bool]) -> None:
        self.front, self.tap, self._holds = front, tap, holds
        self.client, self.server = End(), End()
        self.toward_client = Passage(sender=self.server, receiver=self.client)
        self.toward_server = Passage(sender=self.client, receiver=self.server)
        self._strangers: set[int] = set()

    @property
    def connections(self) -> int:
        """Connections of the client node that are established now."""
        return sum(each.established for each in self.client.last.values())

    def passages(self, streams: Collection[str]) -> tuple[Passage, ...]:
        """By Toxiproxy's names of the directions."""
        return (*((self.toward_server,) if "upstream" in streams else ()),
                *((self.toward_client,) if "downstream" in streams else ()))

    def end_of(self, each: Socket) -> End | None:
        """Which end of this link the socket is, if any."""
        if each.local_port == self.tap:
            return self.server
        if each.remote_port != self.front or each.cookie in self._strangers:
            return None
        if each.inode and each.cookie not in self.client.last and not self._holds(each.inode):
            self._strangers.add(each.cookie)  # somebody else dialled this port: no witness
            return None
        return self.client


class Meters:
    """All links of a run, read together."""

    def __init__(self, links: dict[str, LinkMeter]) -> None:
        self.links = links

    @property
    def ports(self) -> dict[int, LinkMeter]:
        """The ports by which sockets are known, each of one link alone."""
        return {port: meter for meter in self.links.values() for port in (meter.front, meter.tap)}

    def read(self, at_ms: int, live: Iterable[Socket], ended: Iterable[Socket]) -> None:
        """Take one reading of every link from the sockets that stand and those that have ended."""
        self.take(live, ended, LinkMeter.end_of)
        self.note(at_ms)

    def take(self, live: Iterable[Socket], ended: Iterable[Socket], end_of: Callable[[LinkMeter, Socket], End | None]) -> None:
        """The sockets of one place, before the time of the reading is noted; ``end_of`` knows which are whose there."""
        ports = self.ports
        for sockets, what in ((live, End.see), (ended, End.end)):
            for each in sockets:
                for meter in (ports.get(each.local_port), ports.get(each.remote_port)):
                    if meter is not None and (end := end_of(meter, each)) is not None:
                        what(end, _without_handshake(each) if end is meter.client else each)

    def note(self, at_ms: int) -> None:
        for meter in self.links.values():
            meter.toward_client.note(at_ms)
            meter.toward_server.note(at_ms)


def dial_refused(host: str, port: int) -> bool:
    """Whether nothing listens there; a dial of our own, that the link's meter takes for a stranger's."""
    with socket.socket() as probe:
        probe.settimeout(DIAL_S_MAX)
        return probe.connect_ex((host, port)) != 0


def is_loopback(host: str) -> bool:
    """Whether an address (not a name) stays on this machine."""
    return host == "::1" or host.startswith(("127.", "::ffff:127."))


def available() -> bool:
    """Whether this kernel answers sock_diag at all."""
    if not Path("/proc/net/netlink").exists():
        return False
    try:
        diagnosis = Diagnosis()
    except OSError:
        return False
    try:
        diagnosis.sockets()
    except OSError:
        return False
    finally:
        diagnosis.close()
    return True
