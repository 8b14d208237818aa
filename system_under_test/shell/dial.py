"""The client side: WebSocket dials and HTTP requests, each over the link that its connection names.

A link's address is the environment's ``<LINK>_URL``. Every HTTP request has a connection of its own: a kept-alive
one would be retried by the library behind the machine's back, and a retried order is a second order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import aiohttp

from system_under_test.machine import Close, Open, Request, Response, Unanswered, link_of
from system_under_test.shell import limits
from system_under_test.shell.peers import Deliver, Peer


class Dialler:
    def __init__(self, environment: Mapping[str, str], deliver: Deliver) -> None:
        self._environment = environment
        self._deliver = deliver
        self._peers: dict[str, Peer] = {}
        self._dials: dict[str, asyncio.Task[None]] = {}
        self._requests: dict[asyncio.Task[None], str] = {}
        self._session: aiohttp.ClientSession | None = None

    def knows(self, conn: str) -> bool:
        return conn in self._dials

    async def start(self) -> None:
        timeout = aiohttp.ClientTimeout(total=limits.REQUEST_S, sock_connect=limits.CONNECT_S)
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False,
                                              cookie_jar=aiohttp.DummyCookieJar())

    def open(self, conn: str) -> None:
        """Dial; the machine hears ``Open``, or ``Close`` with the reason."""
        if conn in self._dials:
            self._deliver(Close(conn, "this generation was dialled before"))
            return
        self._peers[conn] = Peer(conn, self._deliver)
        self._dials[conn] = asyncio.get_running_loop().create_task(self._dial(conn))

    def send(self, conn: str, data: bytes) -> None:
        if conn in self._peers:
            self._peers[conn].send(data)

    def close(self, conn: str, why: str) -> None:
        """Close a connection, give up a dial, or give up the requests of an HTTP link."""
        if conn in self._peers:
            self._peers[conn].close(why)
            return
        for task, owner in list(self._requests.items()):
            if owner == conn:
                task.cancel()

    def request(self, value: Request) -> None:
        """Ask; the machine hears ``Response`` or ``Unanswered``."""
        if len(self._requests) >= limits.REQUESTS_MAX:
            self._deliver(Unanswered(value.conn, value.id, False, f"{limits.REQUESTS_MAX} requests in flight"))
            return
        task = asyncio.get_running_loop().create_task(self._ask(value))
        self._requests[task] = value.conn
        task.add_done_callback(lambda done: self._requests.pop(done, None))

    @property
    def idle(self) -> bool:
        """Everything handed over has left."""
        return all(peer.idle for peer in self._peers.values())

    async def stop(self) -> None:
        tasks = [*self._dials.values(), *self._requests]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _dial(self, conn: str) -> None:
        peer = self._peers[conn]
        try:
            socket = await self._connect(conn)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as why:
            if not peer.given_up:
                peer.close("never opened")
                self._deliver(Close(conn, f"dial failed: {_said(why)}"))
        else:
            if not peer.given_up:
                self._deliver(Open(conn))
            # the library has no public way to the transport of a dialled WebSocket
            await peer.serve(socket, getattr(socket._conn, "transport", None))
        finally:
            self._peers.pop(conn, None)
            self._dials.pop(conn, None)

    async def _connect(self, conn: str) -> aiohttp.ClientWebSocketResponse:
        assert self._session is not None, "started before the machine is"
        url = self._url(conn)
        dialling = self._session.ws_connect(url, max_msg_size=limits.MESSAGE_BYTES_MAX, compress=0)
        return await asyncio.wait_for(dialling, limits.CONNECT_S)

    async def _ask(self, value: Request) -> None:
        assert self._session is not None, "started before the machine is"
        try:
            url = self._url(value.conn) + value.target
            async with self._session.request(
                value.method, url, headers=value.headers, data=value.body or None, allow_redirects=False
            ) as answer:
                body = await _read_bounded(answer)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as why:
            self._deliver(Unanswered(value.conn, value.id, False, _said(why)))
        except (aiohttp.ClientError, OSError, TimeoutError) as why:
            self._deliver(Unanswered(value.conn, value.id, True, _said(why)))
        except asyncio.CancelledError:
            self._deliver(Unanswered(value.conn, value.id, True, "given up"))
            raise
        else:
            if body is None:
                self._deliver(Unanswered(value.conn, value.id, True, f"answer over {limits.ANSWER_BYTES_MAX} bytes"))
                return
            headers = tuple((name.lower(), text) for name, text in answer.headers.items())
            self._deliver(Response(value.conn, value.id, answer.status, headers, body))

    def _url(self, conn: str) -> str:
        name = f"{link_of(conn).upper()}_URL"
        if name not in self._environment:
            raise aiohttp.InvalidURL(conn, f"no {name} in the environment")
        return self._environment[name]


async def _read_bounded(answer: aiohttp.ClientResponse) -> bytes | None:
    """The whole body, or None when it does not end in time."""
    parts, size = [], 0
    async for part in answer.content.iter_any():
        size += len(part)
        if size > limits.ANSWER_BYTES_MAX:
            return None
        parts.append(part)
    return b"".join(parts)


def _said(why: BaseException) -> str:
    return f"{type(why).__name__}: {why}" if str(why) else type(why).__name__
