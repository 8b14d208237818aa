"""The server side: HTTP and WebSocket on each listening port, in the face of clients that mean no good.

An upgrade on a path below /ws becomes ``Open("<port>#<n>")`` and frames; anything else becomes a ``Request`` on
``<port>#0`` that the machine answers. Sizes, times and numbers are bounded (`limits`).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from system_under_test.machine import Open, Request, Response
from system_under_test.shell import limits
from system_under_test.shell.peers import Deliver, Peer

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Listener:
    """One listening port."""

    def __init__(self, port: str, host: str, number: int, deliver: Deliver) -> None:
        self.port = port
        self._host, self._number = host, number
        self._deliver = deliver
        self._peers: dict[str, Peer] = {}
        self._answers: dict[int, asyncio.Future[Response]] = {}
        self._generations = itertools.count(1)
        self._ids = itertools.count(1)
        self._server: _BoundedServer
        self._runner: web.ServerRunner | None = None

    async def start(self) -> None:
        """Listen. Raises OSError when the address cannot be had."""
        self._server = _BoundedServer(self._handle, keepalive_timeout=limits.IDLE_S, access_log=None,
                                      lingering_time=0.5, max_line_size=65_536)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=limits.CLOSE_S / 2)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._number, backlog=256, reuse_address=True).start()

    async def stop(self) -> None:
        for peer in list(self._peers.values()):
            peer.close("stopping")
        if self._runner is not None:
            self._server.forget()
            await asyncio.wait_for(self._runner.shutdown(), limits.CLOSE_S)
            await asyncio.wait_for(self._runner.cleanup(), limits.CLOSE_S)

    def knows(self, conn: str) -> bool:
        return conn in self._peers

    def send(self, conn: str, data: bytes) -> None:
        self._peers[conn].send(data)

    def close(self, conn: str, why: str) -> None:
        self._peers[conn].close(why)

    def answer(self, value: Response) -> None:
        waiting = self._answers.pop(value.id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(value)

    @property
    def idle(self) -> bool:
        """Everything handed over has left."""
        return all(peer.idle for peer in self._peers.values())

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith("/ws") and request.headers.get("upgrade", "").lower() == "websocket":
            return await self._upgrade(request)
        return await self._serve(request)

    async def _upgrade(self, request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=limits.MESSAGE_BYTES_MAX, compress=False, timeout=limits.CLOSE_S)
        await socket.prepare(request)
        conn = f"{self.port}#{next(self._generations)}"
        peer = self._peers[conn] = Peer(conn, self._deliver)
        self._deliver(Open(conn))
        try:
            await peer.serve(socket, request.transport)
        finally:
            self._peers.pop(conn, None)
        return socket

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if len(self._answers) >= limits.REQUESTS_MAX:
            return _closing(web.Response(status=503, text="too many requests in flight\n"))
        try:
            body = await asyncio.wait_for(_read_bounded(request), limits.BODY_S)
        except TimeoutError:
            return _closing(web.Response(status=408, text="the body did not arrive in time\n"))
        if body is None:
            return _closing(web.Response(status=413, text=f"more than {limits.MESSAGE_BYTES_MAX} bytes\n"))
        return await self._ask(request, body)

    async def _ask(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        id = next(self._ids)
        waiting = self._answers[id] = asyncio.get_running_loop().create_future()
        headers = tuple((name.lower(), text) for name, text in request.headers.items())
        self._deliver(Request(f"{self.port}#0", id, request.method, request.raw_path, headers, body))
        try:
            answer = await asyncio.wait_for(waiting, limits.ANSWER_S)
        except TimeoutError:
            return _closing(web.Response(status=504))
        finally:
            self._answers.pop(id, None)
        return web.Response(status=answer.status, headers=list(answer.headers), body=answer.body)


class _BoundedServer(web.Server):
    """Counts its connections and closes those that hold one without completing a request."""

    def __init__(self, handler: Handler, **settings: Any) -> None:
        super().__init__(self._guard, **settings)
        self._real_handler = handler
        self._deadlines: dict[asyncio.Transport, asyncio.TimerHandle] = {}

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self.connections) > limits.CONNECTIONS_MAX:
            transport.abort()
            return
        self._expect(transport)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        for transport in [each for each in self._deadlines if each.is_closing()]:
            self._deadlines.pop(transport).cancel()

    def forget(self) -> None:
        """Stop watching: the server is going down."""
        for deadline in self._deadlines.values():
            deadline.cancel()
        self._deadlines.clear()

    async def _guard(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        if transport in self._deadlines:
            self._deadlines.pop(transport).cancel()
        try:
            return await self._real_handler(request)
        finally:
            if transport is not None and not transport.is_closing():
                self._expect(transport)

    def _expect(self, transport: asyncio.Transport) -> None:
        """A whole request has to come in time."""
        loop = asyncio.get_running_loop()
        self._deadlines[transport] = loop.call_later(limits.IDLE_S, transport.abort)


async def _read_bounded(request: web.BaseRequest) -> bytes | None:
    """The whole body, or None when it is larger than we take."""
    parts, size = [], 0
    async for part in request.content.iter_any():
        size += len(part)
        if size > limits.MESSAGE_BYTES_MAX:
            return None
        parts.append(part)
    return b"".join(parts)


def _closing(response: web.Response) -> web.Response:
    response.force_close()
    return response
