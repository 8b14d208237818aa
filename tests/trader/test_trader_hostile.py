"""Whatever the exchange answers or says, the trader goes on, and trusts nothing that it could not read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from bench_trader import OPTION, PERPETUAL, Bench

from system_under_test.machine import Frame, Request, Response

METHODS = (
    "public/get_time", "public/status", "public/get_instruments", "public/ticker", "private/get_account_summary",
    "private/get_positions", "private/get_open_orders_by_currency", "private/get_user_trades_by_currency_and_time",
    "private/get_order_state_by_label", "private/buy", "private/sell", "private/cancel", "public/auth", "public/subscribe",
    "private/subscribe", "public/get_order_book",
)
GARBAGE: tuple[Any, ...] = (
    None, True, 7, -1.5, "text", [], {}, [None], [7], [[]], [{}], {"order": None}, {"order": 7}, {"order": {}, "trades": 5},
    {"trades": None}, {"trades": [None]}, {"trades": [{}], "has_more": True}, {"access_token": None, "expires_in": "soon"},
    {"locked": None}, {"equity": "much", "maintenance_margin": 0},
)
ERRORS: tuple[Any, ...] = (7, "no", [], {}, {"code": "a word"}, {"code": None}, {"code": 1.5}, {"code": [1]},
                           {"code": 10001, "message": {}})


def answers(bench: Bench, method: str, body: Mapping[str, Any]) -> None:
    """From now on the exchange answers this method so, on every transport; what it does is undisturbed."""
    frame, http = bench._ask, bench._http

    def ask(conn: str, message: dict[str, Any]) -> None:
        if message["method"] != method:
            frame(conn, message)
            return
        data = orjson.dumps({"jsonrpc": "2.0", "id": message["id"], **body})
        bench.later(1, lambda: bench.give(Frame(conn, data)))

    def request(value: Request) -> None:
        message = orjson.loads(value.body)
        if message["method"] != method:
            http(value)
            return
        data = orjson.dumps({"jsonrpc": "2.0", "id": message["id"], **body})
        bench.later(1, lambda: bench.give(Response(value.conn, value.id, 200, (), data)))

    bench._ask, bench._http = ask, request  # type: ignore[method-assign]


def healed(bench: Bench) -> None:
    del bench._ask, bench._http


@pytest.mark.parametrize("method", METHODS)
def test_an_answer_that_makes_no_sense_ends_nothing(method: str) -> None:
    """Every garbage as result and as error of every method: the trader lives, and is Active again afterwards."""
    bench = Bench().active()
    for body in (*({"result": each} for each in GARBAGE), *({"error": each} for each in ERRORS)):
        answers(bench, method, body)
        bench.run(700)
        healed(bench)
        bench.run(50)
        assert bench.exited is None and bench.status()["status_schema_version"] == 1
    if method == "public/status":  # a state that no registry knows is a token, and a token kills this build
        assert bench.status()["mode_reasons"] == ["KILL_CORTEX_FORCE_KILL"]
    else:
        bench.until(lambda: bench.status()["trading_mode"] == "Active", 120_000)
    assert bench.trader.metrics.value("duplicate_dispatch_count") == 0


CHANNELS = (
    f"book.{PERPETUAL}.100ms", f"trades.{PERPETUAL}.100ms", f"ticker.{OPTION}.100ms", "deribit_price_index.btc_usd",
    "deribit_volatility_index.btc_usd", "platform_state", "user.changes.any.BTC.raw",
)
NEWS: tuple[Any, ...] = (
    None, 7, "text", [], {}, [None], [{}], {"orders": 7}, {"orders": [None]}, {"orders": [{"label": [], "order_id": {}}]},
    {"trades": [7]}, {"instrument_name": PERPETUAL}, {"instrument_name": PERPETUAL, "type": "change", "timestamp": 1},
    {"timestamp": "late", "price": None}, {"instrument_name": PERPETUAL, "timestamp": 1, "type": "snapshot", "change_id": 1,
                                           "bids": [["new", "a", 1]], "asks": 5},
)


@pytest.mark.parametrize("channel", CHANNELS)
def test_news_that_makes_no_sense_end_nothing(channel: str) -> None:
    """The same for notifications of every channel that the trader follows."""
    bench = Bench().active()
    link = "orders" if channel.startswith("user.") else "market_data"
    for data in NEWS:
        bench.push(link, channel, data)
        bench.run(150)
        assert bench.exited is None and bench.status()["status_schema_version"] == 1
    bench.until(lambda: bench.status()["trading_mode"] == "Active", 60_000)


def test_an_unreadable_answer_to_an_order_is_looked_up() -> None:
    """The exchange took the order and answered nonsense: it is neither sent again nor called failed."""
    bench = Bench().active()
    placed = len(bench.exchange.placed)
    frame = bench._ask

    def ask(conn: str, message: dict[str, Any]) -> None:
        if message["method"] not in ("private/buy", "private/sell"):
            frame(conn, message)
            return
        bench.exchange.answer("orders", message["method"], message["params"])
        bench.later(1, lambda: bench.give(Frame(conn, orjson.dumps({"jsonrpc": "2.0", "id": message["id"], "result": "ok"}))))

    bench._ask = ask  # type: ignore[method-assign]
    bench.until(lambda: len(bench.exchange.placed) > placed)
    bench.run(200)
    del bench._ask
    assert bench.noted("ambiguous")
    bench.run(6_000)
    labels = [order["label"] for order in bench.exchange.placed]
    assert len(labels) == len(set(labels))
    assert not bench.noted("lost_order")


def test_a_change_that_says_not_what_it_follows_is_a_gap() -> None:
    """Only a snapshot is a snapshot: a change without its predecessor must not replace the whole book."""
    bench = Bench().active()
    before = dict(bench.trader.market.books[PERPETUAL]._sides["bids"])
    bench.push("market_data", f"book.{PERPETUAL}.100ms", {
        "type": "change", "instrument_name": PERPETUAL, "timestamp": 1, "change_id": 5, "bids": [["new", 1.0, 10.0]],
        "asks": []})
    book = bench.trader.market.books[PERPETUAL]
    assert not book.synced and book._sides["bids"] == before
    assert gaps(bench, "change_id")


def test_a_sequence_of_trades_that_runs_backwards_is_a_gap() -> None:
    """The contract latches on a gap and on a sequence that is not monotonic; the same number twice is old news."""
    bench = Bench().active()

    def trade(seq: int) -> None:
        bench.push("market_data", f"trades.{PERPETUAL}.100ms", [
            {"instrument_name": PERPETUAL, "trade_seq": seq, "trade_id": str(seq),
             "timestamp": 1_790_000_000_000 + bench.mono, "amount": 10.0}])

    for seq in (50, 51, 51):
        trade(seq)
    assert not gaps(bench, "trade_seq")
    trade(49)
    assert gaps(bench, "trade_seq")
    assert bench.status()["open_permission_reason_codes"] == ["WS_TRADES_GAP_RECONCILE_REQUIRED"]


def gaps(bench: Bench, kind: str) -> list[object]:
    return [note for note in bench.noted("gap") if note[2]["kind"] == kind]
