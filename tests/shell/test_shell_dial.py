"""The client side of the shell: what a machine hears of dials and requests that go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from shell_nodes import free_port

from system_under_test.machine import Close, Frame, Open, Request, Response, Unanswered
from system_under_test.shell import limits
from system_under_test.shell.dial import Dialler


class Desk:
    """A dialler whose values are written down."""

    def __init__(self, port: int) -> None:
        self.said: list[object] = []
        environment = {"WIRE_URL": f"ws://127.0.0.1:{port}/ws", "REST_URL": f"http://127.0.0.1:{port}"}
        self.dialler = Dialler(environment, self.said.append)

    async def until(self, kind: type, count: int = 1) -> list:
        for _ in range(500):
            found = [value for value in self.said if isinstance(value, kind)]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.01)
        raise AssertionError(f"no {kind.__name__} among {self.said}")


def play(handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] | None,
         scene: Callable[[Desk], Awaitable[None]]) -> None:
    """Run a scene against a server with that handler, or against a port on which nobody listens."""

    async def run() -> None:
        port = free_port()
        runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1) if handler else None
        if runner is not None:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port).start()
        desk = Desk(port)
        await desk.dialler.start()
        try:
            await asyncio.wait_for(scene(desk), 20)
        finally:
            await desk.dialler.stop()
            if runner is not None:
                await asyncio.wait_for(runner.cleanup(), 2)

    asyncio.run(run())


async def echo(request: web.BaseRequest) -> web.StreamResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.data == "end":
            await socket.close(code=4001, message=b"enough")
        else:
            await socket.send_str(message.data)
    return socket


async def slow(request: web.BaseRequest) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


def test_nobody_listens_means_not_sent() -> None:
    """A refused connection alone proves that nothing happened."""

    async def scene(desk: Desk) -> None:
        desk.dialler.open("wire#1")
        desk.dialler.request(Request("rest#1", 1, "GET", "/"))
        assert (await desk.until(Close))[0].why.startswith("dial failed")
        assert (await desk.until(Unanswered))[0].sent is False

    play(None, scene)


def test_a_request_without_an_answer_may_have_been_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection stood, so nobody knows."""
    monkeypatch.setattr(limits, "REQUEST_S", 0.3)

    async def scene(desk: Desk) -> None:
        desk.dialler.request(Request("rest#1", 1, "POST", "/order", (), b"{}"))
        assert (await desk.until(Unanswered))[0].sent is True

    play(slow, scene)


def test_requests_that_are_given_up_say_so_once() -> None:
    """Closing an HTTP link ends its requests; each is unanswered exactly once."""

    async def scene(desk: Desk) -> None:
        for id in (1, 2):
            desk.dialler.request(Request("rest#1", id, "GET", "/"))
        await asyncio.sleep(0.1)
        desk.dialler.close("rest#1", "enough")
        assert {(each.id, each.sent) for each in await desk.until(Unanswered, 2)} == {(1, True), (2, True)}

    play(slow, scene)


def test_messages_travel_as_text_and_an_end_tells_its_code() -> None:
    """What comes back is what was sent; the close carries code and reason."""

    async def scene(desk: Desk) -> None:
        desk.dialler.open("wire#1")
        await desk.until(Open)
        desk.dialler.send("wire#1", b'{"a": 1}')
        assert await desk.until(Frame) == [Frame("wire#1", b'{"a": 1}')]
        desk.dialler.send("wire#1", b"end")
        assert (await desk.until(Close))[0].why.startswith("closed 4001")

    play(echo, scene)


def test_a_dial_that_was_given_up_is_not_told_as_open() -> None:
    """Closed before it was up: neither Open nor Close follows."""

    async def scene(desk: Desk) -> None:
        desk.dialler.open("wire#1")
        desk.dialler.close("wire#1", "changed my mind")
        await asyncio.sleep(0.4)
        assert desk.said == []

    play(echo, scene)


def test_a_generation_is_dialled_once() -> None:
    """A second dial of the same name is refused while the first stands."""

    async def scene(desk: Desk) -> None:
        desk.dialler.open("wire#1")
        desk.dialler.open("wire#1")
        assert "before" in (await desk.until(Close))[0].why
        await desk.until(Open)

    play(echo, scene)


def test_an_answer_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body beyond the bound is no answer, and it was sent."""
    monkeypatch.setattr(limits, "ANSWER_BYTES_MAX", 10_000)

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(1_000):
            await answer.write(b"x" * 1_000)
        return answer

    async def scene(desk: Desk) -> None:
        desk.dialler.request(Request("rest#1", 1, "GET", "/"))
        unanswered = (await desk.until(Unanswered))[0]
        assert unanswered.sent and "10000" in unanswered.why

    play(endless, scene)


def test_redirects_are_answers() -> None:
    """The machine decides what to make of them; nothing is followed behind its back."""

    async def elsewhere(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})

    async def scene(desk: Desk) -> None:
        desk.dialler.request(Request("rest#1", 1, "GET", "/"))
        assert (await desk.until(Response))[0].status == 302

    play(elsewhere, scene)
