"""A small HTTP client for hostile answers: bounded in bytes, never follows a redirect, never guesses.

One connection, one request at a time, kept alive where the server allows. Deadlines are the caller's business
(``asyncio.timeout``): whoever cancels a request gets a closed connection. Nothing is asked for in compressed form and
nothing is unpacked: an answer that comes packed all the same is no document.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from harness import limits

HEAD_BYTES_MAX = 65_536
READ_BYTES = 65_536
INTERIMS_MAX = 8
"""Answers of the kind "100 Continue" before the real one; a server that only ever says these says nothing."""
TRAILERS_MAX = 64
LENGTH_DIGITS_MAX = 18
NO_BODY = frozenset({204, 304})


class Unreachable(Exception):
    """No answer: ``kind`` is ``refused`` (nothing listens) or ``closed`` (it hung up before the whole answer)."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Answer:
    """``status`` is 0 for bytes that are no HTTP; ``cut`` says that the body was longer than allowed."""

    status: int
    head: bytes
    body: bytes
    cut: bool = False


class Malformed(Exception):
    """What came is no HTTP; carries the bytes."""

    def __init__(self, seen: bytes) -> None:
        super().__init__("not an HTTP answer")
        self.seen = seen


class _Reader(asyncio.StreamReader):
    """A stream that can say whether more came than was read: an answer that nobody asked for."""

    @property
    def more_came(self) -> bool:
        return bool(getattr(self, "_buffer", b""))


class Connection:
    """Requests to one address."""

    def __init__(self, host: str, port: int, bytes_max: int = limits.DOCUMENT_BYTES_MAX) -> None:
        self._host, self._port, self._bytes_max = host, port, bytes_max
        self._streams: tuple[_Reader, asyncio.StreamWriter] | None = None

    async def request(self, method: str, target: str, headers: Mapping[str, str] | None = None,
                      body: bytes = b"") -> Answer:
        """Send one request and read its answer. Raises Unreachable.

        A kept connection may have been closed by the other side since its last answer; that says nothing about
        the service, so a request whose kept connection ends without one byte of answer is sent on a new one.
        """
        data = self._encode(method, target, headers or {}, body)
        if self._streams is not None and self._streams[0].more_came:  # what was sent before it was asked for is old
            self.close()
        kept = self._streams is not None
        try:
            return await self._exchange(data)
        except Unreachable as why:
            if not kept or why.kind != "closed" or method != "GET":
                raise
            return await self._exchange(data)

    async def open(self) -> None:
        """Connect now, so that the first request need not. Raises Unreachable."""
        if self._streams is None:
            self._streams = await self._connect()

    def close(self) -> None:
        """Drop the connection. Idempotent."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def in_turn(self, turn: asyncio.Lock, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send at once on the open connection, and read when it is this answer's turn. Raises Unreachable."""
        if self._streams is None:
            raise Unreachable("closed", "the connection is not open")
        reader, writer = self._streams
        writer.write(self._encode(method, target, headers, body))
        done = False
        try:
            async with turn:
                if self._streams is None:
                    raise Unreachable("closed", "a request before this one failed")
                answer, done = await self._read(reader, method == "HEAD")
                return answer
        except (OSError, asyncio.IncompleteReadError, Malformed) as why:
            raise Unreachable("closed", f"{type(why).__name__}: {why}") from why
        finally:
            if not done:
                self.close()

    def _encode(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> bytes:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._host}:{self._port}",
                 *(f"{name}: {value}" for name, value in headers.items())]
        if body or method in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    async def _exchange(self, data: bytes) -> Answer:
        done = False
        try:
            reader, writer = self._streams or await self._connect()
            self._streams = reader, writer
            writer.write(data)
            answer, reusable = await self._read(reader, data.startswith(b"HEAD "))
            done = reusable and not reader.more_came
            return answer
        except Malformed as why:
            return Answer(0, b"", why.seen)
        except (OSError, asyncio.IncompleteReadError) as why:
            raise Unreachable("closed", f"{type(why).__name__}: {why}") from why
        finally:
            if not done:  # also when cancelled: the rest of an abandoned answer must not meet the next request
                self.close()

    async def _connect(self) -> tuple[_Reader, asyncio.StreamWriter]:
        """As ``asyncio.open_connection``, with a reader of our own."""
        loop = asyncio.get_running_loop()
        reader = _Reader(limit=HEAD_BYTES_MAX, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport, _ = await loop.create_connection(lambda: protocol, self._host, self._port)
        except OSError as why:
            raise Unreachable("refused", f"{type(why).__name__}: {why}") from why
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _read(self, reader: asyncio.StreamReader, head_only: bool) -> tuple[Answer, bool]:
        head, status, headers = await self._read_heads(reader)
        if status in NO_BODY or head_only:
            return Answer(status, head, b""), True
        keep = headers.get("connection", "").lower() != "close"
        if "chunked" in headers.get("transfer-encoding", "").lower():
            body, cut = await self._read_chunks(reader, head)
        elif "content-length" in headers:
            if not headers["content-length"].isdecimal() or len(headers["content-length"]) > LENGTH_DIGITS_MAX:
                raise Malformed(head)
            size = int(headers["content-length"])
            body, cut = await self._read_some(reader, size), size > self._bytes_max
            if len(body) < min(size, self._bytes_max):
                raise asyncio.IncompleteReadError(body, size)
        else:
            body = await self._read_some(reader, self._bytes_max + 1)
            cut, keep = len(body) > self._bytes_max, False
        return Answer(status, head, body[:self._bytes_max], cut), keep and not cut

    async def _read_heads(self, reader: asyncio.StreamReader) -> tuple[bytes, int, dict[str, str]]:
        """The head of the real answer, behind a few interim ones."""
        for _ in range(INTERIMS_MAX):
            head = await self._read_head(reader)
            status, headers = _parse_head(head)
            if not 100 <= status < 200:
                return head, status, headers
        raise Malformed(head)

    async def _read_head(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise Malformed(await reader.read(limits.RAW_HEAD_BYTES)) from None
        except asyncio.IncompleteReadError as why:
            if why.partial:
                raise Malformed(why.partial) from None
            raise

    async def _read_some(self, reader: asyncio.StreamReader, size: int) -> bytes:
        """Up to ``size`` bytes, bounded, or fewer when the stream ends."""
        wanted, parts = min(size, self._bytes_max + 1), []
        while wanted > 0 and (part := await reader.read(min(wanted, READ_BYTES))):
            parts.append(part)
            wanted -= len(part)
        return b"".join(parts)

    async def _read_chunks(self, reader: asyncio.StreamReader, head: bytes) -> tuple[bytes, bool]:
        body = bytearray()
        while True:
            line = await self._read_line(reader, head)
            try:
                size = int(line.split(b";")[0], 16)
            except ValueError:
                raise Malformed(head) from None
            if size < 0:
                raise Malformed(head)
            if size == 0:
                break
            body += await self._read_some(reader, size)
            if len(body) > self._bytes_max:
                return bytes(body), True
            if await reader.readexactly(2) != b"\r\n":
                raise Malformed(head)
        for _ in range(TRAILERS_MAX):
            if await self._read_line(reader, head) == b"\r\n":
                return bytes(body), False
        raise Malformed(head)

    async def _read_line(self, reader: asyncio.StreamReader, head: bytes) -> bytes:
        try:
            return await reader.readuntil(b"\r\n")
        except asyncio.LimitOverrunError:
            raise Malformed(head) from None


class Pipeline:
    """Requests that reach one server in the order in which they were begun, none waiting for the answer to another.

    One that fails takes those after it along: nobody could say whose the next bytes are. To be opened before use.
    """

    def __init__(self, host: str, port: int) -> None:
        self._connection = Connection(host, port)
        self._turn = asyncio.Lock()
        """held by who reads the next answer; handed on in the order of the requests"""

    async def open(self) -> None:
        """Raises Unreachable."""
        await self._connection.open()

    async def request(self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Answer:
        """The request has left when this first waits. Raises Unreachable."""
        return await self._connection.in_turn(self._turn, method, target, headers or {}, body)

    def close(self) -> None:
        """Idempotent."""
        self._connection.close()


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head[:-4].split(b"\r\n")
    parts = first.split(b" ", 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit() or len(parts[1]) != 3:
        raise Malformed(head)
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.decode("latin-1").partition(":")
        name, value = name.strip().lower(), value.strip()
        if name == "content-length" and headers.get(name, value) != value:  # two readers would read two answers
            raise Malformed(head)
        headers[name] = value
    return int(parts[1]), headers


async def once(host: str, port: int, method: str, target: str, headers: Mapping[str, str] | None = None,
               body: bytes = b"", deadline_ms: int = limits.ANSWER_MS_MAX) -> Answer:
    """One request on a connection of its own. Raises Unreachable, with kind ``timeout`` at the deadline."""
    connection = Connection(host, port)
    try:
        async with asyncio.timeout(deadline_ms / 1000):
            return await connection.request(method, target, headers, body)
    except TimeoutError:
        raise Unreachable("timeout", f"no answer within {deadline_ms} ms") from None
    finally:
        connection.close()
