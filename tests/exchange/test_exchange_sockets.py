"""The real thing over sockets: the shell carries the machine, and ccxt, unchanged but for its urls, trades on it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import aiohttp
import ccxt
import ccxt.pro
import orjson
import pytest

ROOT = Path(__file__).resolve().parents[2]
SYMBOL = "BTC/USD:BTC"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Venue:
    """One exchange process."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.api, self.control = _free_port(), _free_port()
        environment = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "NODE_NAME": "exchange",
            "NODE_MACHINE": "system_under_test.exchange:make", "NODE_DATA": str(data), "NODE_SEED": "11", "NODE_RUN_ID": "test",
            "CLIENT_ID": "drill", "CLIENT_SECRET": "s3cret", "API_LISTEN": f"127.0.0.1:{self.api}",
            "CONTROL_LISTEN": f"127.0.0.1:{self.control}",
        }
        self.process = subprocess.Popen([sys.executable, "-m", "system_under_test.shell"], env=environment, cwd=ROOT)
        for _ in range(200):
            try:
                self.ask("GET", "/clock")
                return
            except (urllib.error.URLError, ConnectionError):
                assert self.process.poll() is None, "the shell ended"
                time.sleep(0.05)
        raise AssertionError("the exchange did not come up")

    def ask(self, method: str, path: str, body: dict | None = None) -> dict:
        data = None if body is None else orjson.dumps(body)
        request = urllib.request.Request(f"http://127.0.0.1:{self.control}{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return orjson.loads(answer.read())

    def settings(self) -> dict:
        return {"apiKey": "drill", "secret": "s3cret", "enableRateLimit": False, "urls": {"api": {
            "rest": f"http://127.0.0.1:{self.api}", "ws": f"ws://127.0.0.1:{self.api}/ws/api/v2"}}}

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)


@pytest.fixture(scope="module")
def venue(tmp_path_factory):
    venue = Venue(tmp_path_factory.mktemp("exchange"))
    yield venue
    venue.stop()


@pytest.fixture
def rest(venue):
    client = ccxt.deribit(venue.settings())
    client.load_markets()
    return client


def test_ccxt_reads_markets_and_account(rest):
    """load_markets, time, status, ticker, book, trades, balance, positions."""
    assert {SYMBOL, "ETH/USD:ETH", "BTC/USDC:USDC"} <= set(rest.markets)
    assert [m for m in rest.markets.values() if m["option"]]
    assert abs(rest.fetch_time() - time.time() * 1_000) < 5_000
    assert rest.fetch_status()["status"] == "ok"
    ticker, book = rest.fetch_ticker(SYMBOL), rest.fetch_order_book(SYMBOL)
    assert ticker["bid"] < ticker["ask"] and book["nonce"] and book["bids"][0][0] < book["asks"][0][0]
    assert rest.fetch_balance()["BTC"]["total"] == pytest.approx(100, abs=0.1)
    assert rest.fetch_balance({"code": "BTC"})["BTC"]["free"] > 99
    assert rest.fetch_positions() == []
    assert isinstance(rest.fetch_trades(SYMBOL), list)
    assert isinstance(rest.fetch_trades(SYMBOL, since=rest.milliseconds() - 60_000), list)
    assert rest.fetch_tickers(params={"currency": "BTC"})
    assert rest.fetch_currencies()["BTC"]["id"] == "BTC"


def test_ccxt_trades_over_rest(rest):
    """create, edit, fetch, cancel; fills and positions as ccxt reads them; errors become its classes."""
    order = rest.create_order(SYMBOL, "limit", "buy", 100, 90_000, {"postOnly": True, "label": "mine"})
    assert (order["status"], order["postOnly"]) == ("open", True)
    assert rest.edit_order(order["id"], SYMBOL, "limit", "buy", 200, 91_000)["amount"] == 200
    assert [o["id"] for o in rest.fetch_open_orders(SYMBOL)] == [o["id"] for o in rest.fetch_open_orders()] == [order["id"]]
    assert rest.fetch_order(order["id"])["price"] == 91_000
    assert rest.cancel_order(order["id"])["status"] == "canceled"
    assert rest.create_order(SYMBOL, "market", "buy", 100)["status"] == "closed"
    position = rest.fetch_positions([SYMBOL])[0]
    assert (position["side"], position["contracts"]) == ("long", 100)
    reduced = rest.create_order(SYMBOL, "market", "sell", 500, None, {"reduceOnly": True})
    assert reduced["filled"] == 100 and rest.fetch_positions([SYMBOL]) == []
    assert len(rest.fetch_my_trades(SYMBOL)) == 2
    assert len(rest.fetch_my_trades(SYMBOL, since=rest.milliseconds() - 60_000)) == 2
    assert rest.fetch_closed_orders(SYMBOL)
    rest.create_order(SYMBOL, "limit", "sell", 100, 110_000)
    rest.cancel_all_orders(SYMBOL)
    rest.cancel_all_orders()
    assert rest.fetch_open_orders(SYMBOL) == []
    with pytest.raises(ccxt.InvalidOrder):
        rest.create_order(SYMBOL, "limit", "buy", 100, 150_000, {"post_only": True, "reject_post_only": True})
    with pytest.raises(ccxt.OrderNotFound):
        rest.cancel_order("BTC-1")
    with pytest.raises(ccxt.InsufficientFunds):
        rest.create_order(SYMBOL, "limit", "buy", 10**9, 100_000)


def test_ccxt_meets_the_switches_as_its_own_errors(rest, venue):
    """Maintenance, lock, throttle and wrong credentials are what ccxt calls them."""
    for switch, expected in (("maintenance", ccxt.OnMaintenance), ("locked", ccxt.PermissionDenied),
                             ("too_many_requests", ccxt.DDoSProtection)):
        venue.ask("PUT", f"/switches/{switch}", {})
        with pytest.raises(expected):
            rest.create_order(SYMBOL, "limit", "buy", 100, 90_000)
        assert venue.ask("DELETE", f"/switches/{switch}")["uses"] >= 1
    with pytest.raises(ccxt.AuthenticationError):
        ccxt.deribit(venue.settings() | {"secret": "wrong"}).fetch_balance()
    assert rest.fetch_status()["status"] == "ok"


def test_ccxt_watches_over_websocket(venue):
    """Books, tickers, quotes, trades without papers; orders, fills and balance with them."""

    async def story() -> None:
        client = ccxt.pro.deribit(venue.settings())
        try:
            for _ in range(3):
                book = await client.watch_order_book(SYMBOL)
                assert book["bids"][0][0] < book["asks"][0][0]
            assert (await client.watch_ticker(SYMBOL))["bid"]
            assert (await client.watch_bids_asks([SYMBOL]))[SYMBOL]["ask"]
            assert (await client.watch_trades(SYMBOL))[0]["amount"]
            balance = asyncio.ensure_future(client.watch_balance())
            news = asyncio.gather(client.watch_orders(), client.watch_my_trades())
            await asyncio.sleep(0.5)
            placed = await client.create_order(SYMBOL, "market", "sell", 100)
            orders, trades = await news
            assert orders[-1]["id"] == placed["id"] == trades[-1]["order"]
            assert (await balance)["BTC"]["total"]["BTC"] > 99  # ccxt nests it so
        finally:
            await client.close()

    asyncio.run(asyncio.wait_for(story(), 30))


def test_a_session_end_and_a_cut_reach_the_socket(venue):
    """10028 and then the close frame; a connection that is just dropped fires cancel-on-disconnect."""

    async def connect(http: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse:
        socket = await http.ws_connect(f"ws://127.0.0.1:{venue.api}/ws/api/v2")
        await ask(socket, "public/auth", grant_type="client_credentials", client_id="drill", client_secret="s3cret")
        return socket

    async def ask(socket: aiohttp.ClientWebSocketResponse, method: str, **params: object) -> dict:
        await socket.send_bytes(orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
        while True:
            message = await socket.receive(5)
            answer = orjson.loads(message.data)
            if answer.get("id") == 1:
                return answer

    async def story() -> None:
        async with aiohttp.ClientSession() as http:
            first = await connect(http)
            await ask(first, "private/enable_cancel_on_disconnect")
            placed = await ask(first, "private/buy", instrument_name="BTC-PERPETUAL", amount=10, price=90_000)
            order = placed["result"]["order"]
            assert first._response.connection is not None
            first._response.connection.transport.abort()
            second = await connect(http)
            for _ in range(50):
                state = (await ask(second, "private/get_order_state", order_id=order["order_id"]))["result"]
                if state["order_state"] == "cancelled":
                    break
                await asyncio.sleep(0.05)
            assert state["cancel_reason"] == "cancel_on_disconnect"
            venue.ask("PUT", "/switches/session_end", {"times": 1})
            assert (await ask(second, "private/get_positions"))["error"]["code"] == 10028
            assert (await second.receive(5)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
            assert venue.ask("DELETE", "/switches/session_end")["uses"] == 1

    asyncio.run(asyncio.wait_for(story(), 30))


def test_the_books_are_on_disk(venue):
    """What reached the exchange is in its log, framed with checksums, and SIGTERM ends it in order."""
    venue.stop()
    assert venue.process.returncode == 0
    log = venue.data / "logs" / "books.log"
    kinds = {orjson.loads(line.split(b" ", 1)[1])["kind"] for line in log.read_bytes().splitlines()}
    assert {"boot", "session", "request", "order", "fill", "answer", "switch", "query", "sends"} <= kinds

