"""WebSocket peers, dialled or accepted: a bounded outbox with one sender, and one reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiohttp import ClientWebSocketResponse, WSMsgType
from aiohttp.web import WebSocketResponse

from system_under_test.machine import Close, Frame, Value
from system_under_test.shell import limits

Deliver = Callable[[Value], None]
Socket = ClientWebSocketResponse | WebSocketResponse


class Peer:
    """One connection. ``send`` never blocks: it queues, and a peer that does not take its bytes is cut off.

    The machine gets exactly one ``Close`` for a connection that it did not close itself, and none for one it did.
    """

    def __init__(self, conn: str, deliver: Deliver) -> None:
        self.conn = conn
        self._deliver = deliver
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._more = asyncio.Event()
        self._told = False
        self._ending: str | None = None
        self._leaving = False
        self._transport: asyncio.Transport | None = None

    def send(self, data: bytes) -> None:
        """Queue one message."""
        if self._ending is not None:
            return
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        self._more.set()
        if self._waiting_bytes > limits.WAITING_BYTES_MAX:
            self._waiting.clear()
            self._tell(f"slow peer: more than {limits.WAITING_BYTES_MAX} bytes waiting")
            self._abort()

    def close(self, why: str) -> None:
        """Close from our side, after what is queued; the machine knows and is not told."""
        self._told = self._leaving = True
        self._ending = self._ending or why
        self._more.set()

    @property
    def given_up(self) -> bool:
        """The machine closed it, perhaps before it was up."""
        return self._ending is not None

    @property
    def idle(self) -> bool:
        """Nothing is queued or half sent."""
        return self._waiting_bytes == 0

    async def serve(self, socket: Socket, transport: asyncio.Transport | None) -> None:
        """Carry messages both ways until either side ends; tells the machine how it ended."""
        self._transport = transport
        receiver, sender = asyncio.ensure_future(self._receive_all(socket)), asyncio.ensure_future(self._send_all(socket))
        try:
            await asyncio.wait((receiver, sender), return_when=asyncio.FIRST_COMPLETED)
            if self._leaving and not receiver.done():
                await _alone(receiver)
                await self._hang_up(socket)
            why = "closed by us" if receiver.cancelled() else await receiver
        finally:
            await _alone(receiver, sender)
            self._ending = self._ending or "closed"
        self._tell(why)

    async def _receive_all(self, socket: Socket) -> str:
        while True:
            message = await socket.receive()
            if message.type is WSMsgType.TEXT:
                self._deliver(Frame(self.conn, message.data.encode()))
            elif message.type is WSMsgType.BINARY:
                self._deliver(Frame(self.conn, bytes(message.data)))
            else:
                return _why_ended(socket, message)

    async def _send_all(self, socket: Socket) -> None:
        """Until the machine has closed it and everything before that is sent, or the transport fails."""
        try:
            while self._waiting or self._ending is None:
                while self._waiting:
                    data = self._waiting.popleft()
                    await _send_message(socket, data)
                    self._waiting_bytes = max(0, self._waiting_bytes - len(data))
                if self._ending is None:
                    self._more.clear()
                    await self._more.wait()
        except (ConnectionError, TimeoutError, RuntimeError):
            self._waiting.clear()
            self._waiting_bytes = 0
            self._abort()

    async def _hang_up(self, socket: Socket) -> None:
        """The closing handshake, with nobody else reading: what the peer still sends is read and dropped until it has
        closed too, because unread bytes would reset the connection and take our last words with them."""
        with suppress(ConnectionError, TimeoutError, RuntimeError):
            await asyncio.wait_for(socket.close(message=(self._ending or "").encode()[:120]), limits.CLOSE_S)
        self._abort()

    def _tell(self, why: str) -> None:
        if not self._told:
            self._told = True
            self._deliver(Close(self.conn, why))

    def _abort(self) -> None:
        """Cut the transport: the reader sees the end at once, whatever the peer does."""
        self._ending = self._ending or "cut off"
        if self._transport is not None:
            self._transport.abort()


async def _alone(*others: asyncio.Future[Any]) -> None:
    """End these tasks and wait until they have."""
    for each in others:
        each.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _send_message(socket: Socket, data: bytes) -> None:
    """JSON goes as text, as venues expect it; bytes that are no text go as they are."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        await socket.send_bytes(data)
        return
    await socket.send_str(text)


def _why_ended(socket: Socket, message: object) -> str:
    code = getattr(message, "data", None) if isinstance(getattr(message, "data", None), int) else socket.close_code
    reason = getattr(message, "extra", None)
    failure = socket.exception()
    said = f"{reason}" if reason else f"{type(failure).__name__}: {failure}" if failure else ""
    return f"closed {code or 1006}" + (f": {said}" if said else "")
