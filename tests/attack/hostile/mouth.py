"""A trader that works, behind a mouth that lies: the reference trader as a child, and its control plane passed on until
the hostility in the environment variable MODE begins. A command of a tests' stack.yaml; no part of any product.

    MODE=honest            everything is passed on
    MODE=<name of MODES>   from QUIET_S after the first status on, every answer to /api/v1/status is that one

It also writes what MODE says into its log and its notes.
"""

from __future__ import annotations

import asyncio
import base64
import ctypes
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.attack.hostile.words import SCRIPT, WORST

STATUS = b"GET /api/v1/status "
OK = b"HTTP/1.1 200 OK\r\n"
PR_SET_PDEATHSIG = 1
NOTES_AT_A_TIME = 200_000


def sized(body: bytes, head: bytes = b"", status: bytes = OK) -> bytes:
    return status + head + b"Content-Length: %d\r\n\r\n" % len(body) + body


Answers = Callable[[dict], Iterator[bytes | float]]
"""From the last lawful document to what is sent: bytes, or seconds to wait in between."""


def changed(**fields: object) -> Answers:
    return lambda document: iter([sized(json.dumps({**document, **fields}).encode())])


def words(document: dict) -> dict:
    """Every text of a document, and a key besides, turned into the worst one."""
    return {key: WORST if isinstance(value, str) else [WORST] if isinstance(value, list) else value
            for key, value in document.items()} | {WORST: WORST}


def gigabyte(document: dict) -> Iterator[bytes | float]:
    yield OK + b"Content-Length: 1073741824\r\n\r\n"
    yield from itertools.repeat(b" " * 1_048_576, 1_024)


def drip(document: dict) -> Iterator[bytes | float]:
    for byte in sized(json.dumps(document).encode()):
        yield bytes([byte])
        yield 1.0


def endless(document: dict) -> Iterator[bytes | float]:
    yield OK + b"Transfer-Encoding: chunked\r\n\r\n"
    yield from itertools.repeat(b"1\r\n \r\n")


def huge(document: dict) -> Iterator[bytes | float]:
    """A lawful megabyte that is another one each time."""
    more = [time.monotonic_ns(), *itertools.repeat([], 330_000)]
    yield sized(json.dumps({**document, "more": more}, separators=(",", ":")).encode())


MODES: dict[str, Answers] = {
    "gigabyte": gigabyte,
    "drip": drip,
    "endless": endless,
    "huge": huge,
    "page": lambda document: iter([sized(f"<!doctype html><p>{WORST}</p>".encode(), b"Content-Type: text/html\r\n")]),
    "redirect": lambda document: iter([sized(b"", b"Location: /api/v1/status\r\n", b"HTTP/1.1 302 Found\r\n")]),
    "no_json": lambda document: iter([sized(json.dumps(document).encode()[:-1])]),
    "words": lambda document: iter([sized(json.dumps(words(document)).encode())]),
    "raw_words": lambda document: iter([sized(json.dumps(words(document), ensure_ascii=False).encode())]),
    "version": changed(contract_version="9.9"),
    "script_mode": changed(trading_mode=SCRIPT),
    "numbers": lambda document: iter([sized(json.dumps({**document, "wal_queue_depth": 10**400}).encode())]),
    "not_a_number": changed(wal_queue_depth=float("nan")),
    "deep": lambda document: iter([sized(b'{"trading_mode":' + b"[" * 400_000)]),
    "twice": lambda document: iter([sized(json.dumps(document).encode()[:-1] + b',"trading_mode":"Active"}')]),
    "cut": lambda document: iter([OK + b"Content-Length: 9999\r\n\r\n" + json.dumps(document).encode()]),
    "long": lambda document: iter([OK + b"Content-Length: 2\r\n\r\n" + json.dumps(document).encode()]),
    "bomb": lambda document: iter([sized(zlib.compress(json.dumps(document).encode() + b" " * 50_000_000, 9),
                                         b"Content-Encoding: deflate\r\n")]),
    "headers": lambda document: iter([OK + b"X: y\r\n" * 200_000 + b"\r\n" + json.dumps(document).encode()]),
    "interims": lambda document: iter([b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000]),
    "silence": lambda document: iter([60.0]),
    "hang_up": lambda document: iter([]),
}


def turning() -> Answers:
    """Each answer another one of them all, the slow ones left out."""
    kinds = itertools.cycle(each for name, each in MODES.items() if name not in ("drip", "silence", "endless", "gigabyte"))
    return lambda document: next(kinds)(document)


class Mouth:
    """Passes connections on, and answers for itself where MODE says so."""

    def __init__(self, mode: str, quiet_s: float, inner: int) -> None:
        self.answers = turning() if mode == "turning" else MODES.get(mode)
        self.quiet_s, self.inner = quiet_s, inner
        self.since: float | None = None
        self.document: dict = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                answer = await self.passed_on(head + await reader.readexactly(length(head)))
                if self.answers is not None and self.hostile(head):
                    await self.lie(self.answers, writer)
                    return
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def lie(self, answers: Answers, writer: asyncio.StreamWriter) -> None:
        for part in answers(self.document):
            if isinstance(part, float):
                await asyncio.sleep(part)
            else:
                writer.write(part)
                await writer.drain()

    def hostile(self, head: bytes) -> bool:
        return self.answers is not None and head.startswith(STATUS) and self.since is not None \
            and time.monotonic() - self.since > self.quiet_s

    async def passed_on(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.inner)
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(length(head))
        finally:
            writer.close()
        if request.startswith(STATUS):
            self.document, self.since = json.loads(body), self.since or time.monotonic()
        return head + body


def length(head: bytes) -> int:
    found = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return int(found[0]) if found else 0


def talk(mode: str) -> None:
    """What goes to the log and the notes beside the trader's own."""
    secret, notes = os.environ["CANARY"], Path(os.environ["NODE_DATA"]) / "notes.jsonl"
    if mode == "canary":
        Path(os.environ["TOLD"]).write_text(secret)  # to the test, outside of all evidence
        for each in disguised(secret):
            sys.stdout.write(f"debug: {each} {WORST}\n")
            say(notes, {"at": int(time.monotonic() * 1000), "kind": "debug", "text": each})
        for half in (secret[:20], secret[20:]):  # in two writes, one word
            os.write(1, half.encode())
            time.sleep(0.3)
        sys.stdout.flush()
    elif mode == "raw_words":
        say(notes, {"at": int(time.monotonic() * 1000), "kind": WORST, "intent_id": WORST, WORST: [WORST]})
    elif mode == "notes_flood":
        with notes.open("ab") as file:
            row = json.dumps({"at": int(time.monotonic() * 1000), "kind": "flood", "text": "x" * 40}).encode() + b"\n"
            for _ in range(5):
                file.write(row * NOTES_AT_A_TIME)
    elif mode == "notes_back":
        say(notes, {"at": 1, "kind": "refused", "code": "OpenPermissionLatched"})
    elif mode == "notes_binary":
        with notes.open("ab") as file:
            file.write(os.urandom(5_000_000) + b"\n")
    elif mode == "notes_line":
        with notes.open("ab") as file:
            file.write(b'{"at":1,"kind":"' + b"x" * 100_000_000)
    elif mode == "log_flood":
        block = f"{secret} {SCRIPT}\n".encode() * 20_000
        while True:
            os.write(1, block)


def disguised(secret: str) -> list[str]:
    """Plain, in base64 at each offset, in hexadecimal."""
    return [secret, *(base64.b64encode(b"x" * shift + secret.encode() + b"yyy").decode() for shift in range(3)),
            secret.encode().hex(), secret.encode().hex().upper()]


def say(notes: Path, row: dict) -> None:
    with notes.open("ab") as file:
        file.write(json.dumps(row).encode() + b"\n")


def talking_status(mode: str, mouth: Mouth) -> None:
    """A status that tells the secret in a lawful place, by the same path as the other hostilities."""
    if mode == "canary":
        told = itertools.cycle(disguised(os.environ["CANARY"]))
        mouth.answers = lambda document: iter([sized(json.dumps({**document, "build_id": next(told)}).encode())])


async def main() -> int:
    mode, listen = os.environ["MODE"], os.environ["CONTROL_PLANE_LISTEN"]
    host, _, port = listen.rpartition(":")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        inner = probe.getsockname()[1]
    child = subprocess.Popen([sys.executable, "-m", "system_under_test.shell"],
                             env={**os.environ, "CONTROL_PLANE_LISTEN": f"127.0.0.1:{inner}"},
                             preexec_fn=lambda: ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
    mouth = Mouth(mode, float(os.environ.get("QUIET_S", "4")), inner)
    talking_status(mode, mouth)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.start_server(mouth.serve, host, int(port))
    beginning = asyncio.create_task(begin_to_talk(mode, mouth))
    await stop.wait()
    beginning.cancel()
    server.close()
    child.send_signal(signal.SIGTERM)
    return child.wait(2)


async def begin_to_talk(mode: str, mouth: Mouth) -> None:
    while mouth.since is None or time.monotonic() - mouth.since < mouth.quiet_s:
        await asyncio.sleep(0.05)
    threading.Thread(target=talk, args=(mode,), daemon=True).start()


if __name__ == "__main__":
    code = asyncio.run(main())
    os._exit(code)
