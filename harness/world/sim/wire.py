"""Links of the simulated world: what an effect does to bytes in time.

A link is a proxy between one dialling node and one listening port, as Toxiproxy is in the real worlds, and the
effects mean what was measured of Toxiproxy 2.12:

    stall      lossless: everything is held, in order, and let go when healed
    drop       the bytes vanish; healing closes the connections (its ``timeout`` toxic). A close still passes
    cut        every connection is closed, dials are refused until healed (the proxy is disabled)
    delay      bytes come later; healing lets go of what waits (``latency``)
    throttle   so many kilobytes a second; healing lets go of what waits (``bandwidth``)
    fragment   a message comes in pieces and is there when its last piece is (``slicer``)
    reset      the first bytes after the fault began, or on a new connection, close it (``reset_peer``)
    truncate   after so many bytes the connection closes; half a message is none (``limit_data``)

Messages are carried whole, effects act on their length in bytes with the overhead of their framing. The dial to a
dead node is accepted by the proxy and closed at once, as the real one does: only a cut link proves that nothing was
sent. Each direction of each connection is an ordered queue with a seeded transit time for each message.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any

from harness.drill.model import LinkFault, RawToxic
from harness.world.sim.clock import MS, Agenda
from system_under_test.machine import Close, Frame, Open, Request, Response, Unanswered

if TYPE_CHECKING:
    from harness.world.sim.node import Node

TRANSIT_US = (1_000, 8_000)
TRANSIT_RANGE_US = TRANSIT_US[1] - TRANSIT_US[0]
"""One way through proxy and network, drawn for each message."""

PIECE_US = 20
"""Pause between the pieces of a fragmented message: one more read and write in the proxy."""

WAITING_BYTES_MAX = 4 * 1_048_576
"""What a sender's shell queues for a peer that takes nothing, before it closes the connection."""

JOINED_BYTES_MAX = 65_536
"""Messages of one moment travel together until so much is on its way, as writes join in a socket's buffer."""

MESSAGE_BYTES_MAX = 1_048_576
"""The largest message a receiving shell takes."""

CONNECT_US = 3_000 * MS
REQUEST_US = 10_000 * MS
"""How long the shell waits for a dial and for an answer."""

HELLO_BYTES, WELCOME_BYTES, HEAD_BYTES = 220, 130, 120
"""WebSocket handshake up and down; start line and usual headers of an HTTP message."""

HOST = ("host", "127.0.0.1")
"""A header that clients add by themselves."""

UP, DOWN = 0, 1
"""Directions: toward the server, toward the client."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One effect in force on a link. ``amount`` as in `harness.drill.model.LinkFault`; ``after_ms`` is the time that
    Toxiproxy's ``timeout`` and ``reset_peer`` wait before they close."""

    effect: str
    ways: tuple[int, ...]
    amount: int = 0
    after_ms: int = 0


_WAYS = {"client": (DOWN,), "server": (UP,), "both": (UP, DOWN)}
_STREAMS = {"upstream": (UP,), "downstream": (DOWN,)}
_RAW = {
    "latency": ("delay", "latency"), "bandwidth": ("throttle", "rate"), "timeout": ("drop", None),
    "reset_peer": ("reset", None), "slicer": ("fragment", "average_size"), "limit_data": ("truncate", "bytes"),
    "slow_close": ("slow_close", "delay"),
}
_NEED_AMOUNT = ("delay", "throttle", "fragment", "truncate")
_UNSIMULATED = ("jitter", "size_variation")
"""Attributes that draw from Toxiproxy's own unseeded luck."""


def trouble_of(force: LinkFault | RawToxic) -> Trouble:
    """What a drill's force means on this wire."""
    if isinstance(force, LinkFault):
        return Trouble(force.effect, _WAYS[force.toward], force.amount or 0)
    effect, key = _RAW[force.type]
    amount = force.attributes.get(key, 0) if key else 0
    if effect == "throttle" and amount == 0:
        effect = "stall"  # measured: a rate of zero holds everything and lets go when removed
    return Trouble(effect, _STREAMS[force.stream], amount, force.attributes.get("timeout", 0))


def refuses(force: LinkFault | RawToxic) -> str | None:
    """Why a force cannot be simulated; what the real server cannot do is refused here too."""
    if isinstance(force, LinkFault):
        if force.effect in _NEED_AMOUNT and (force.amount or 0) < 1:
            return f"{force.effect} needs an amount of at least 1"
        if force.effect == "cut" and force.toward != "both":
            return "a cut takes both directions: a proxy cannot be half disabled"
        return None
    if force.type not in _RAW:
        return f"toxic {force.type!r} is not simulated; known: {', '.join(sorted(_RAW))}"
    luck = [name for name in _UNSIMULATED if force.attributes.get(name)]
    return f"{', '.join(luck)}: Toxiproxy's own luck is not reproducible, so it is not simulated" if luck else None


class Direction:
    """One direction of a connection. This one is over: nothing is on its way, and nothing leaves any more."""

    __slots__ = ()

    def send(self, item: Any, size: int) -> None: ...

    def end(self, why: str) -> None: ...

    def let_go(self) -> None: ...

    def discard(self) -> None: ...


OVER = Direction(), Direction()


class Pipe(Direction):
    """One direction of an open connection: messages in order, each due at its moment."""

    __slots__ = ("link", "way", "queue", "queued_bytes", "open", "_connection", "_last_due_us", "_free_at_us", "_passed",
                 "_agenda", "_random")

    def __init__(self, connection: Connection, way: int) -> None:
        link = connection.link
        self.link, self.way, self._connection = link, way, connection
        self.queue: deque[list[Any]] = deque()
        self.queued_bytes = 0
        self.open = True
        self._last_due_us = self._free_at_us = 0
        self._passed: dict[str, int] = {}
        self._agenda, self._random = link.agenda, link.dice.random

    def send(self, item: Any, size: int) -> None:
        """Put a message on its way."""
        if not self.open:
            return
        now, link, way, queue = self._agenda.now_us, self.link, self.way, self.queue
        link.offered[way] += size
        troubles = link.troubles[way]
        if queue and queue[-1][4] == now and not troubles and self.queued_bytes < JOINED_BYTES_MAX:
            queue.append([self._last_due_us, self._last_due_us, size, item, now, 1])  # in one segment with the one before
            self.queued_bytes += size
            return
        plain = due = now + TRANSIT_US[0] + int(TRANSIT_RANGE_US * self._random())
        pieces = 1
        if troubles:
            troubled = self._through(now, due, size)
            if troubled is None:
                return
            due, pieces = troubled
        self._put(item, size, due if due > self._last_due_us else self._last_due_us, plain, pieces)

    def end(self, why: str) -> None:
        """The sender has closed: the end follows what was sent, except that a black hole lets it through at once."""
        if not self.open:
            return
        holes = [each for each in self.link.troubles[self.way].values() if each.effect == "drop"]
        slow = [each.amount for each in self.link.troubles[self.way].values() if each.effect == "slow_close"]
        self._put(_End(why), 0, max(self._agenda.now_us + TRANSIT_US[0] + max(slow, default=0) * MS,
                                    0 if holes else self._last_due_us), self._agenda.now_us, 1)
        self.open = False

    def let_go(self) -> None:
        """An effect has ended: what it kept back is due as if it had never been."""
        due = self._agenda.now_us
        for entry in self.queue:
            due = entry[0] = max(due, entry[1])
            self._agenda.at(due, self._pump)
        self._last_due_us = due
        self._free_at_us = 0

    def discard(self) -> None:
        """Nothing on its way arrives any more."""
        self.open = False
        self.queue.clear()
        self.queued_bytes = 0

    def _put(self, item: Any, size: int, due: int, plain: int, pieces: int) -> None:
        self._last_due_us = due
        self.queue.append([due, plain, size, item, self._agenda.now_us, pieces])
        self.queued_bytes += size
        self._agenda.at(due, self._pump)
        if self.queued_bytes > WAITING_BYTES_MAX:
            self._connection.break_off(f"slow peer: more than {WAITING_BYTES_MAX} bytes waiting")

    def _pump(self, _: object) -> None:
        now, link, queue = self._agenda.now_us, self.link, self.queue
        way = self.way
        arrive = self._connection.at_server if way == UP else self._connection.at_client
        while queue and queue[0][0] <= now and not link.stalled[way]:
            _, _, size, item, sent_us, pieces = queue.popleft()
            self.queued_bytes -= size
            if size:
                link.count_arrival(way, size, pieces, now - sent_us)
            arrive(item)

    def _through(self, now: int, due: int, size: int) -> tuple[int, int] | None:
        """When a message is due and in how many pieces, or None when it is not to arrive."""
        pieces = 1
        for id, trouble in self.link.troubles[self.way].items():
            amount = trouble.amount
            if trouble.effect == "drop":
                self.link.dropped_bytes += size
                if trouble.after_ms:
                    self._close_after_silence(id, trouble.after_ms)
                return None
            if trouble.effect == "reset":
                self._agenda.at(now + trouble.after_ms * MS, self._reset, None)
                return None
            if trouble.effect == "truncate" and self._passed.get(id, 0) + size >= amount:
                return self._cut_short(id, size, amount, due, pieces)
            if trouble.effect == "truncate":
                self._passed[id] = self._passed.get(id, 0) + size
            elif trouble.effect == "delay":
                due += amount * MS
            elif trouble.effect == "throttle":
                self._free_at_us = max(now, self._free_at_us) + size * 1_000 // amount
                due = max(due, self._free_at_us)
            elif trouble.effect == "fragment":
                pieces = max(1, -(-size // amount))
                due += (pieces - 1) * PIECE_US
        return due, pieces

    def _cut_short(self, id: str, size: int, amount: int, due: int, pieces: int) -> tuple[int, int] | None:
        """The limit falls into this message or on its end: what fits passes, then the connection closes."""
        fits = amount - self._passed.get(id, 0)
        self._passed[id] = amount
        self._agenda.at(max(due, self._last_due_us) + 1, self._reset, None)
        if fits == size:
            return due, pieces
        self.link.count_arrival(self.way, fits, pieces, 0)
        return None

    def _close_after_silence(self, id: str, after_ms: int) -> None:
        self._passed[id] = self._passed.get(id, 0) + 1
        self._agenda.at(self._agenda.now_us + after_ms * MS, self._silent_since, (id, self._passed[id]))

    def _silent_since(self, about: tuple[str, int]) -> None:
        id, chunk = about
        if self._passed.get(id) == chunk and id in self.link.troubles[self.way]:
            self._reset(None)

    def _reset(self, _: object) -> None:
        self._connection.break_off("closed 1006: reset by the link")


@dataclass(frozen=True, slots=True)
class _End:
    why: str


class Link:
    """One proxied dial target: its effects, its connections, its counters by direction."""

    def __init__(self, name: str, agenda: Agenda, dice: Random, server: Node, port: str) -> None:
        self.name, self.agenda, self.dice, self.server, self.port = name, agenda, dice, server, port
        self.troubles: tuple[dict[str, Trouble], dict[str, Trouble]] = ({}, {})
        self.stalled = [False, False]
        self.cuts: dict[str, None] = {}
        self.connections: dict[int, Connection] = {}
        self._numbers = count(1)
        self.offered = [0, 0]
        self.received = [0, 0]
        self.segments = [0, 0]
        self.lag_us_max = [0, 0]
        self.dropped_bytes = 0
        self.refused = 0
        self.ended = 0

    # ---- effects

    def inject(self, id: str, trouble: Trouble) -> None:
        if trouble.effect == "cut":
            self.cuts[id] = None
            self._close_all("closed 1006: link cut")
            return
        for way in trouble.ways:
            self.troubles[way][id] = trouble
        self._note_stalls()

    def heal(self, id: str) -> None:
        """Undo: a cut lets dials through, a black hole closes, everything else lets go of what it kept."""
        self.cuts.pop(id, None)
        gone = [self.troubles[way].pop(id, None) for way in (UP, DOWN)]
        self._note_stalls()
        if any(each is not None and each.effect == "drop" for each in gone):
            self._close_all("closed 1006: black hole removed")
        for connection in list(self.connections.values()):
            for way in (UP, DOWN):
                if gone[way] is not None:
                    connection.pipes[way].let_go()

    def has(self, id: str) -> bool:
        """Whether the effect is in force: what inject reads back."""
        return id in self.cuts or any(id in each for each in self.troubles)

    def _note_stalls(self) -> None:
        for way in (UP, DOWN):
            self.stalled[way] = any(each.effect == "stall" for each in self.troubles[way].values())

    # ---- connections

    def dial(self, client: Node, conn: str) -> None:
        """A WebSocket dial of a node."""
        if self.cuts:
            self._refuse(client, Close(conn, "dial failed: connection refused"))
            return
        connection = self._connection(client, conn, None)
        client.endpoints[conn] = (connection, UP)
        connection.pipes[UP].send("hello", HELLO_BYTES)
        self.agenda.at(self.agenda.now_us + CONNECT_US, self._dial_expires, connection.number)

    def ask(self, client: Node, request: Request) -> None:
        """An HTTP request of a node, on a connection of its own."""
        if self.cuts:
            self._refuse(client, Unanswered(request.conn, request.id, False, "connection refused"))
            return
        connection = self._connection(client, request.conn, request)
        connection.pipes[UP].send(request, HEAD_BYTES + len(request.target) + _head(request.headers)[1] + len(request.body))
        self.agenda.at(self.agenda.now_us + REQUEST_US, self._request_expires, connection.number)

    def _connection(self, client: Node, conn: str, request: Request | None) -> Connection:
        connection = Connection(self, next(self._numbers), client, conn, request)
        self.connections[connection.number] = connection
        return connection

    def _dial_expires(self, number: int) -> None:
        connection = self.connections.get(number)
        if connection is not None and connection.dialling:
            connection.break_off("TimeoutError")

    def _request_expires(self, number: int) -> None:
        """Most requests have long been answered by then; their number keeps nothing of them in memory."""
        connection = self.connections.get(number)
        if connection is not None:
            connection.break_off("TimeoutError")

    def process_gone(self, node: Node, life: int) -> None:
        """The kernel closes what a dead process had open: its dials, and what it had accepted."""
        for connection in list(self.connections.values()):
            if connection.client is node and connection.client_life == life:
                connection.close_by(UP, "closed 1006")
            elif self.server is node and connection.server_life == life:
                connection.close_by(DOWN, "closed 1006")

    def give_up(self, client: Node, conn: str) -> None:
        """A node closes an HTTP link: what it asked stays unanswered."""
        for connection in list(self.connections.values()):
            if connection.client is client and connection.conn == conn and connection.request is not None:
                connection.break_off("given up")

    def count_arrival(self, way: int, size: int, pieces: int, lag_us: int) -> None:
        self.received[way] += size
        self.segments[way] += pieces
        if lag_us > self.lag_us_max[way]:
            self.lag_us_max[way] = lag_us

    def _refuse(self, client: Node, value: Close | Unanswered) -> None:
        self.refused += 1
        self.agenda.at(self.agenda.now_us + TRANSIT_US[0], client.give_of, (client.life, value))

    def _close_all(self, why: str) -> None:
        for connection in list(self.connections.values()):
            connection.break_off(why)


class Connection:
    """One proxied connection, WebSocket or a single HTTP exchange (``request``).

    Each end hears of its end once: never after it closed itself, never after its process died.
    """

    __slots__ = ("link", "number", "client", "conn", "request", "client_life", "server_life", "server_conn", "dialling",
                 "pipes", "_client_ended", "_server_ended")

    def __init__(self, link: Link, number: int, client: Node, conn: str, request: Request | None) -> None:
        self.link, self.number, self.client, self.conn, self.request = link, number, client, conn, request
        self.client_life = client.life
        self.server_life = 0
        self.server_conn = ""
        self.dialling = request is None
        self._client_ended = self._server_ended = False
        self.pipes: tuple[Direction, Direction] = (Pipe(self, UP), Pipe(self, DOWN))

    # ---- what the ends do

    def send(self, way: int, data: bytes) -> None:
        """One end sends a WebSocket message; what a client sends is masked, four bytes more."""
        overhead = (2 if len(data) < 126 else 4) + (4 if way == UP else 0)
        self.pipes[way].send(data, len(data) + overhead)

    def respond(self, response: Response | None) -> None:
        """The server answers an HTTP request; with None it died over it, which ``process_gone`` tells."""
        if response is None:
            return
        self._server_ended = True
        self.pipes[DOWN].send(response, HEAD_BYTES + _head(response.headers)[1] + len(response.body))

    def close_by(self, way: int, why: str) -> None:
        """The end that sends this way closes, or its process dies: the other learns of it behind what was sent."""
        self.link.ended += 1
        if way == UP:
            self._client_ended = True
        else:
            self._server_ended = True
        self.pipes[way].end(why)
        self.pipes[1 - way].discard()

    def break_off(self, why: str) -> None:
        """The proxy closes both sides, or an end loses patience: what is on its way is lost."""
        if self.number not in self.link.connections:
            return
        self.link.ended += 1
        for pipe in self.pipes:
            pipe.discard()
        self._forget()
        at_us = self.link.agenda.now_us + int(TRANSIT_US[0] * self.link.dice.random())
        self.link.agenda.at(at_us, self._tell_both, why)

    # ---- arrivals

    def at_server(self, item: Any) -> None:
        server = self.link.server
        if isinstance(item, _End):
            self._forget()
            self._tell_server(item.why)
        elif self.server_life == 0 and not server.alive:
            self.break_off("closed 1006: nothing listens behind the link")
        elif self.server_life == 0:
            self.server_life = server.life
            server.when_running(self._accepted, item)
        elif server.life == self.server_life:
            self._hand(server, self.server_conn, item)

    def _accepted(self, item: Any) -> None:
        """The server's process takes the connection: at once, or when it runs again."""
        server = self.link.server
        if self.number not in self.link.connections:
            return
        self.server_conn = server.accept(self.link.port, None if isinstance(item, Request) else self)
        if isinstance(item, Request):
            headers, _ = _head(item.headers)
            server.serve(self.link.port, item.method, item.target, (HOST, *headers), item.body, self.respond)
            return
        self.pipes[DOWN].send("welcome", WELCOME_BYTES)
        server.give(Open(self.server_conn))

    def at_client(self, item: Any) -> None:
        client = self.client
        if type(item) is bytes and not self.dialling and client.life == self.client_life \
                and len(item) <= MESSAGE_BYTES_MAX:
            client.give(Frame(self.conn, item))
        elif isinstance(item, _End):
            self._forget()
            self._tell_client(item.why)
        elif self.client.life != self.client_life:
            return
        elif isinstance(item, Response) and self.request is not None:
            self._forget()
            self._client_ended = True
            headers, _ = _head(item.headers)
            self.client.give(Response(self.conn, self.request.id, item.status, headers, item.body))
        elif self.dialling:
            self.dialling = False
            self.client.give(Open(self.conn))
        else:
            self._hand(self.client, self.conn, item)

    def _hand(self, node: Node, conn: str, data: bytes) -> None:
        if len(data) > MESSAGE_BYTES_MAX:
            self.break_off("closed 1009: message too big")
            return
        node.give(Frame(conn, data))

    # ---- ends

    def _forget(self) -> None:
        """The connection is over for the link and for both ends."""
        self.link.connections.pop(self.number, None)
        self.pipes = OVER  # they know the connection, which would know them: garbage that only a collection finds
        if self.request is None and self.client.life == self.client_life:
            self.client.endpoints.pop(self.conn, None)
        if self.server_conn and self.link.server.life == self.server_life:
            self.link.server.endpoints.pop(self.server_conn, None)

    def _tell_both(self, why: str) -> None:
        self._tell_client(why)
        self._tell_server(why)

    def _tell_client(self, why: str) -> None:
        if self._client_ended or self.client.life != self.client_life:
            return
        self._client_ended = True
        if self.request is not None:
            self.client.give(Unanswered(self.conn, self.request.id, True, why))
        else:
            self.client.give(Close(self.conn, f"dial failed: {why}" if self.dialling else why))

    def _tell_server(self, why: str) -> None:
        server = self.link.server
        if self._server_ended or self.request is not None or server.life != self.server_life:
            return
        self._server_ended = True
        if self.server_conn:
            server.give(Close(self.server_conn, why))


def _head(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[tuple[str, str], ...], int]:
    """Headers as they arrive, and the bytes that they are."""
    try:
        return _known_head(headers)
    except TypeError:  # lists, as a machine of one's own may have them, cannot be looked up
        return _known_head(tuple((name, text) for name, text in headers))


@lru_cache(maxsize=64)
def _known_head(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[tuple[str, str], ...], int]:
    """Most messages have the same ones."""
    return tuple((name.lower(), text) for name, text in headers), sum(len(name) + len(text) + 4 for name, text in headers)
