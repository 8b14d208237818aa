"""Where a document to validate comes from: a file, standard input or an endpoint. Bounded in bytes and in time.

Whatever could not be read is a SourceError (the person's set-up); whatever was read is returned as it is, one byte
longer than the bound at most, so that the contract can say that it is too large.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from harness import limits
from harness.errors import UsageError

_READ_MAX = limits.DOCUMENT_BYTES_MAX + 1
_CHUNK = 65_536


class SourceError(UsageError):
    """The document could not be had."""


def read_file(path: str) -> bytes:
    """A regular file's bytes; a pipe or a device could keep us waiting for ever and is refused."""
    file = Path(path)
    try:
        if file.exists() and not file.is_file():
            raise SourceError(f"{path}: not a regular file")
        with file.open("rb") as stream:
            return stream.read(_READ_MAX)
    except (OSError, ValueError) as why:
        raise SourceError(f"{path}: {getattr(why, 'strerror', None) or why}") from why


def read_stdin(stream: BinaryIO | None = None) -> bytes:
    """Standard input, up to the bound."""
    try:
        return (stream or sys.stdin.buffer).read(_READ_MAX)
    except (OSError, ValueError) as why:
        raise SourceError(f"standard input: {why}") from why


def read_url(url: str, timeout_ms: int) -> bytes:
    """The body of one GET, within ``timeout_ms`` altogether. Redirects are not followed: the address that was
    named is the surface that is judged. Raises SourceError.

    The request runs in a thread of its own, because neither a name server nor headers that come one byte a second
    can be bounded by a socket's own timeout; when time is up its socket is closed, which ends the thread.
    """
    request = _Request(url, timeout_ms)
    worker = threading.Thread(target=request.run, name="validate-url", daemon=True)
    worker.start()
    worker.join(timeout_ms / 1000)
    if worker.is_alive():
        request.abandon()
        raise SourceError(f"{url}: no complete answer within {timeout_ms} ms")
    if request.failure is not None:
        raise SourceError(f"{url}: {request.failure}")
    return bytes(request.body)


@dataclass
class _Request:
    url: str
    timeout_ms: int
    body: bytearray = field(default_factory=bytearray)
    failure: str | None = None
    _connection: http.client.HTTPConnection | None = None
    _abandoned: bool = False

    def run(self) -> None:
        try:
            self._get()
        except TimeoutError:
            self.failure = f"no complete answer within {self.timeout_ms} ms"
        except (OSError, ValueError, http.client.HTTPException) as why:
            self.failure = f"{type(why).__name__}: {why}" if str(why) else type(why).__name__
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the socket under the request; idempotent."""
        self._abandoned = True
        sock = self._connection.sock if self._connection else None
        if sock is not None:
            with contextlib.suppress(OSError):  # already closed by the other side: that is what we want
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _get(self) -> None:
        parts = urlsplit(self.url)
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        if parts.scheme not in kinds or not parts.hostname:
            raise ValueError("expected an address such as http://127.0.0.1:8080/api/v1/status")
        until = time.monotonic() + self.timeout_ms / 1000  # ambient-ok: a bound on a real socket, no judgement
        self._connection = kinds[parts.scheme](parts.hostname, parts.port, timeout=self.timeout_ms / 1000)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._connection.request("GET", target, headers={"Accept": "application/json", "Connection": "close"})
        answer = self._connection.getresponse()
        if answer.status != http.client.OK:
            raise ValueError(f"answered {answer.status} {answer.reason}, expected 200")
        while len(self.body) < _READ_MAX and not self._abandoned:
            if time.monotonic() > until:  # ambient-ok: as above
                raise TimeoutError
            piece = answer.read1(min(_CHUNK, _READ_MAX - len(self.body)))
            if not piece:
                if answer.length:  # cut off: half a document must not be judged, even where the half is lawful
                    raise ValueError(f"the answer ended {answer.length} bytes short of what it had announced")
                return
            self.body += piece


def now() -> datetime:
    """When something is read, by this machine's clock."""
    return datetime.now(UTC)  # ambient-ok: what a running system answers is held against the time at which it was asked
