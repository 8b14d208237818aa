"""The sampler before hostile surfaces: bounded in bytes and time, never fooled, never late for the next slot."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from harness import limits
from harness.world.real.clock import Epoch
from harness.world.real.documents import parse
from harness.world.real.http import Answer
from harness.world.real.sampler import classify
from harness.world.real.sampling import Sampling
from harness.world.real.sidecar import Sidecar

EVERY_MS = 50
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def watch(serve: Serve, tmp_path: Path, for_s: float = 0.7) -> list[dict[str, Any]]:
    """The lines that a real sampler process says about a surface that is served by ``serve``."""
    lines: list[dict[str, Any]] = []

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        fallen: list[Exception] = []
        sampling = Sampling(Epoch(), lines.append, fallen.append, {})  # type: ignore[arg-type]
        await sampling.start(tmp_path / "sampler.log")
        sampling.watch("surface", "127.0.0.1", port, "/status", EVERY_MS)
        begin = time.monotonic()
        while not lines and time.monotonic() - begin < 10:
            await asyncio.sleep(0.01)
        await asyncio.sleep(for_s)
        await sampling.stop()
        assert not fallen, (tmp_path / "sampler.log").read_text()
        server.close()

    asyncio.run(main())
    assert lines
    return lines


def answering(body: bytes, status: str = "200 OK", headers: str = "") -> Serve:
    """Serves the same answer for ever, on kept connections."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()

    return quietly(serve)


def quietly(serve: Serve) -> Serve:
    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    return guarded


def test_a_lawful_surface_is_sampled_on_the_grid(tmp_path: Path) -> None:
    """Every slot of the grid has one line, asked when due and answered within an interval that holds both."""
    lines = watch(answering(b'{"mode": "Active"}'), tmp_path)
    assert all(line["doc"] == {"mode": "Active"} for line in lines if "doc" in line)
    assert sum("doc" in line for line in lines) >= len(lines) // 2
    due = sorted(line["due"] for line in lines)
    assert due == list(range(due[0], due[0] + EVERY_MS * len(due), EVERY_MS))
    assert all(line["due"] <= line["asked"] <= line["answered"] for line in lines)


def test_a_gigabyte_is_cut_and_shown_as_raw(tmp_path: Path) -> None:
    """A surface that sends a gigabyte costs one bounded read, and never a document."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
        for _ in range(1_024):
            writer.write(b" " * 1_048_576)
            await writer.drain()

    lines = watch(quietly(serve), tmp_path)
    answered = [line for line in lines if "silence" not in line]
    assert answered
    assert all(line["raw"][0] == limits.DOCUMENT_BYTES_MAX and line["raw"][3] for line in answered)


def test_chunks_without_end_are_cut(tmp_path: Path) -> None:
    """An endpoint that never ends its answer is cut at the same bound."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            await writer.drain()

    answered = [line for line in watch(quietly(serve), tmp_path) if "silence" not in line]
    assert answered
    assert all(line["raw"][3] for line in answered)


def test_one_byte_a_second_is_silence_at_the_deadline(tmp_path: Path) -> None:
    """A dripping answer is a timeout after ANSWER_MS_MAX, and the slots meanwhile are said to be missed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in b"HTTP/1.1 200 OK\r\n":
            writer.write(bytes([byte]))
            await asyncio.sleep(1)

    lines = watch(quietly(serve), tmp_path, for_s=limits.ANSWER_MS_MAX / 1000 + 0.5)
    first = lines[0]
    assert first["silence"] == "timeout"
    assert limits.ANSWER_MS_MAX <= first["answered"] - first["asked"] <= limits.ANSWER_MS_MAX + 500
    missed = [line for line in lines if line.get("silence") == "missed"]
    assert len(missed) >= limits.ANSWER_MS_MAX // EVERY_MS - 2


def test_a_redirect_is_an_answer_and_is_not_followed(tmp_path: Path) -> None:
    """A redirect to itself is raw, with its status line for a person to see, and one request a slot."""
    lines = watch(answering(b"", "302 Found", "Location: /status\r\n"), tmp_path)
    assert {line["raw"][2].splitlines()[0] for line in lines if "raw" in line} == {"HTTP/1.1 302 Found"}


def test_a_service_that_hangs_up_is_silent(tmp_path: Path) -> None:
    """Accepted and closed without an answer is silence, by its name."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    assert {line["silence"] for line in watch(quietly(serve), tmp_path)} <= {"closed", "missed"}


def test_half_an_answer_is_silence_and_not_a_document(tmp_path: Path) -> None:
    """Fewer bytes than promised: nothing was answered, however lawful the part looks."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"mode": "Active"}')
        writer.close()

    assert {line["silence"] for line in watch(quietly(serve), tmp_path)} <= {"closed", "missed"}


def test_what_is_no_http_is_raw(tmp_path: Path) -> None:
    """Another protocol's greeting is kept as what it was."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail ready\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.close()

    assert {line["raw"][2] for line in watch(quietly(serve), tmp_path) if "raw" in line} == {"220 mail ready\r\n\r\n"}


def test_a_connection_closed_between_two_slots_is_dialled_again(tmp_path: Path) -> None:
    """A server that closes after each answer is not taken for a silent one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}')
        await writer.drain()
        writer.close()

    lines = watch(quietly(serve), tmp_path)
    assert all(line.get("doc") == {} for line in lines if line.get("silence") != "missed")


@pytest.mark.parametrize("body", [
    b"<html>oops</html>", b"", b"[1, 2]", b"null", b'"Active"', b'{"a": NaN}', b'{"a": Infinity}', b'{"a": 1, "a": 2}',
    b'{"a": {"b": 1, "b": 2}}', b'{"a": 1} trailing', b"{'a': 1}", b'{"a": 1e999}', b'{"a": "\xff"}', b'{"a": 1',
    b'{"a": 123456789012345678901234567890}', b'{"a": "\\ud800"}', b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    b'{"a":' * 70 + b"1" + b"}" * 70, b"\xef\xbb\xbf{}",
])
def test_what_is_not_a_json_object_to_the_letter_is_raw(body: bytes) -> None:
    """Arrays, NaN, duplicate keys, bad UTF-8, numbers beyond 64 bits, depth: kept raw, size and digest true."""
    assert parse(body) is None
    raw = classify(Answer(200, b"", body))["raw"]
    assert raw[:2] == [len(body), hashlib.sha256(body).hexdigest()]
    assert len(raw[2]) <= limits.RAW_HEAD_BYTES


def test_a_document_with_a_bad_status_is_raw() -> None:
    """HTTP 503 with a lawful body is not the surface's document."""
    assert "raw" in classify(Answer(503, b"HTTP/1.1 503 No\r\n\r\n", b"{}"))


def test_a_lawful_document_is_taken_as_it_is() -> None:
    """Nested values, nulls, unicode and floats come through unchanged."""
    assert parse('{"a": [1, 2.5, null, true, {"ü": "é"}]}'.encode()) == {"a": [1, 2.5, None, True, {"ü": "é"}]}


def test_a_program_that_ends_as_it_is_to_be_killed_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time to end was over, and in that moment it ended by itself: there is nobody left to be killed."""
    monkeypatch.setattr(limits, "NODE_STOP_MS_MAX", 10)

    class Gone:
        pid, stdin, waits = 0, None, 0

        async def wait(self) -> int:
            self.waits += 1
            await asyncio.sleep(60 if self.waits == 1 else 0)
            return 0

        def kill(self) -> None:
            raise ProcessLookupError

    sidecar = Sidecar("sampler", (), {}, lambda line: None, lambda why: None)
    gone: Any = Gone()
    sidecar._process = gone
    asyncio.run(sidecar.stop())
    assert gone.waits == 2
