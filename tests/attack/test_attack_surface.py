"""Surfaces that lie in HTTP itself: whatever bytes come, the sampler answers in time, in bounds, and lives on."""

from __future__ import annotations

import asyncio
import os
import random
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from harness import limits
from harness.world.real import http
from harness.world.real.clock import Epoch
from harness.world.real.documents import parse
from harness.world.real.sampler import classify
from harness.world.real.sampling import Sampling
from harness.world.real.sidecar import LINE_BYTES_MAX

ANSWERS = 20_000 if os.environ.get("ATTACK") == "full" else 1_000
SIDE_BY_SIDE = 20
DEADLINE_MS = 100
SAMPLER_RSS_KB_MAX = 300_000
"""A document of a megabyte in memory, several times over, and what may wait for a harness that hangs."""

OK = b"HTTP/1.1 200 OK\r\n"
LAWFUL = b'{"mode": "Active"}'


def chunked(*parts: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """A chunked answer, each part a chunk."""
    return OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + end


def sized(body: bytes, head: bytes = b"") -> bytes:
    return OK + head + b"Content-Length: %d\r\n\r\n" % len(body) + body


BOMB = zlib.compress(bytes(10_000_000), 9)
CATALOGUE: dict[str, bytes] = {
    "interims without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000,
    "a length of 5000 digits": OK + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n{}",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 18\r\n\r\n" + LAWFUL,
    "a negative length": OK + b"Content-Length: -1\r\n\r\n{}",
    "a length in words": OK + b"Content-Length: two\r\n\r\n{}",
    "a length and too little": OK + b"Content-Length: 99\r\n\r\n" + LAWFUL,
    "a chunk without its end": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}" + b"x" * 300_000,
    "a chunk size of 5000 digits": OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 5_000 + b"\r\n{}",
    "a chunk line without end": OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 300_000,
    "a negative chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    "chunks of one byte": chunked(*(bytes([each]) for each in b"[" * 100_000)),
    "trailers without end": chunked(LAWFUL, end=b"0\r\n" + b"X: y\r\n" * 100_000),
    "a head without end": OK + b"X: y\r\n" * 100_000,
    "a head line without end": OK + b"X: " + b"y" * 300_000,
    "headers that repeat": OK + b"Connection: close\r\n" * 30_000 + b"\r\n" + LAWFUL,
    "no HTTP": b"220 mail ready\r\n\r\n",
    "a status of words": b"HTTP/1.1 two OK\r\n\r\n{}",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "nothing but line ends": b"\r\n" * 300_000,
    "nulls": b"\0" * 300_000,
    "a packed bomb": sized(BOMB, b"Content-Encoding: deflate\r\n"),
    "a page": sized(b"<!doctype html><script>alert(1)</script>", b"Content-Type: text/html\r\n"),
    "numbers that grow": sized(b'{"a": [' + b",".join([b"1e15"] * 200_000) + b"]}"),
    "deep brackets": sized(b'{"a":' + b"[" * 500_000),
    "an integer of 900000 digits": sized(b'{"a": ' + b"9" * 900_000 + b"}"),
    "duplicate keys": sized(b'{"a": 1, "a": 2}'),
    "another character set": sized('{"a": "é"}'.encode("utf-16"), b"Content-Type: application/json; charset=utf-16\r\n"),
}
"""What a hostile surface might answer. None of these is a document."""


async def ask(answer: bytes, pieces: Callable[[bytes], list[bytes]] = lambda data: [data]) -> dict[str, Any]:
    """What the sampler's own client makes of one answer, under its deadline; ``silence`` where there was none."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces(answer):
                writer.write(piece)
                await writer.drain()
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    connection = http.Connection("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        async with asyncio.timeout(DEADLINE_MS / 1000):
            return classify(await connection.request("GET", "/status"))
    except TimeoutError:
        return {"silence": "timeout"}
    except http.Unreachable as why:
        return {"silence": why.kind}
    finally:
        connection.close()
        server.close()


@pytest.mark.parametrize("name", CATALOGUE)
def test_no_hostile_answer_is_a_document(name: str) -> None:
    """Each is raw or silence, and what is kept of it is small."""
    seen = asyncio.run(ask(CATALOGUE[name]))
    assert "doc" not in seen
    assert len(orjson.dumps(seen)) < 8 * limits.RAW_HEAD_BYTES


def test_an_answer_that_nobody_asked_for_is_none(tmp_path: Path) -> None:
    """A surface that sends the next answer ahead of its question would show us the past: its connection is dropped."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(10):
            try:
                await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            writer.write(sized(b'{"n": %d}' % number) + sized(b'{"n": -1}'))
            await writer.drain()
        writer.close()

    async def twice() -> list[Any]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        connection = http.Connection("127.0.0.1", server.sockets[0].getsockname()[1])
        seen = [classify(await connection.request("GET", "/")) for _ in range(3)]
        connection.close()
        server.close()
        return seen

    assert asyncio.run(twice()) == [{"doc": {"n": 0}}] * 3


def test_answers_by_chance_never_end_the_sampler() -> None:
    """Random mutations of lawful and of hostile answers, cut into random pieces: a document, raw or silence; nothing else."""
    dice = random.Random(7)
    seeds = [sized(LAWFUL), chunked(LAWFUL[:5], LAWFUL[5:]), OK + b"\r\n" + LAWFUL,
             *(each for each in CATALOGUE.values() if len(each) < 20_000)]

    async def attack() -> None:
        for _ in range(ANSWERS // SIDE_BY_SIDE):
            answers = [mutated(dice.choice(seeds), dice) for _ in range(SIDE_BY_SIDE)]
            for seen in await asyncio.gather(*(ask(each, partial(torn, dice=dice)) for each in answers)):
                assert set(seen) & {"doc", "raw", "silence"}
                assert len(orjson.dumps(seen)) <= LINE_BYTES_MAX

    asyncio.run(attack())


def mutated(data: bytes, dice: random.Random) -> bytes:
    """A few bytes changed, cut, repeated or put elsewhere."""
    found = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at, length = dice.randrange(len(found) + 1), dice.choice((1, 1, 2, 8, 64))
        match dice.randrange(5):
            case 0:
                found[at:at + length] = dice.randbytes(length)
            case 1:
                del found[at:at + length]
            case 2:
                found[at:at] = found[at:at + length] * dice.choice((1, 2, 500))
            case 3:
                found[at:at] = dice.choice((b"\r\n", b"\n", b"\0", b"0", b"-", b"99999999999999999999", b";", b":", b"chunked"))
            case _:
                found[at:at] = dice.choice(list(CATALOGUE.values()))[:200]
    return bytes(found)


def torn(data: bytes, dice: random.Random) -> list[bytes]:
    """The same bytes in a few pieces."""
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.randint(0, 3)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def test_documents_as_large_as_may_be_fit_what_carries_them() -> None:
    """What is a document fits one line of the sampler and of the tape, however it is written there."""
    for item in (b"[]", b"1e15", b'"\\u0001"', '"é"'.encode(), b"1.5e-7", b"true"):
        many = limits.DOCUMENT_BYTES_MAX // (len(item) + 1) - 16
        body = b'{"a": [' + b",".join([item] * many) + b"]}"
        document = parse(body)
        assert document is None or len(orjson.dumps({"doc": document})) < LINE_BYTES_MAX


def test_the_sampler_stays_small_and_punctual_beside_the_worst(tmp_path: Path) -> None:
    """One hostile surface of each kind and an honest one, all at once: the process lives, its memory is bounded."""
    names = list(CATALOGUE)
    lines: list[dict[str, Any]] = []
    peak_kb = 0

    async def main() -> None:
        nonlocal peak_kb
        ports = {name: await serving(CATALOGUE[name]) for name in names}
        ports["brackets"] = await serving(sized(b'{"a": [' + b",".join([b"[]"] * 340_000) + b"]}"))
        ports["endless"] = await serving(sized(b" " * 1_000_000) + b" " * 1_000_000)
        ports["honest"] = await serving(sized(LAWFUL), keep=True)
        fallen: list[Exception] = []
        sampling = Sampling(Epoch(), lines.append, fallen.append, {})  # type: ignore[arg-type]
        await sampling.start(tmp_path / "sampler.log")
        for name, port in ports.items():
            sampling.watch(name, "127.0.0.1", port, "/", 50 if name == "honest" else 500)
        await asyncio.sleep(3)
        status = Path(f"/proc/{sampling.pid}/status").read_text()
        peak_kb = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
        await sampling.stop()
        assert not fallen, (tmp_path / "sampler.log").read_text()

    asyncio.run(main())
    assert {line["name"] for line in lines} >= {*names, "endless", "honest"}
    assert any(line.get("doc") for line in lines if line["name"] == "honest")
    assert {line["name"] for line in lines if "doc" in line} <= {"honest", "brackets"}
    print(f"the sampler's peak beside {len(names) + 1} hostile surfaces: {peak_kb // 1000} MB")
    assert peak_kb < SAMPLER_RSS_KB_MAX


async def serving(answer: bytes, keep: bool = False) -> int:
    """A port that gives one answer to each connection, or to each request of a kept one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(answer)
                await writer.drain()
                if not keep:
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return int(server.sockets[0].getsockname()[1])
