"""Market data: instruments, books, channels, and that all of it belongs to the seed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

PERPETUAL = "BTC-PERPETUAL"


def _option(client, strike=100_000, kind="call", nth=1):
    found = [i for i in client.call("public/get_instruments", currency="BTC", kind="option")
             if i["strike"] == strike and i["option_type"] == kind]
    return sorted(found, key=lambda i: i["expiration_timestamp"])[nth]


def _fold(messages):
    """A client's book, and the change ids that did not fit."""
    sides, last, gaps = {"bids": {}, "asks": {}}, None, 0
    for message in messages:
        if message["type"] == "snapshot":
            assert "prev_change_id" not in message
            sides = {"bids": {}, "asks": {}}
        elif message["prev_change_id"] != last:
            gaps += 1
        last = message["change_id"]
        for side, levels in sides.items():
            for action, price, amount in message[side]:
                assert (action == "new") == (price not in levels), (action, price)
                if action == "delete":
                    assert amount == 0
                    del levels[price]
                else:
                    levels[price] = amount
    return sides, gaps


@pytest.mark.parametrize("method", ["public/get_instruments", "public/get_currencies", "public/get_index_price_names"])
def test_listings_have_their_documented_form(driver, method):
    """Every field of every row (the driver checks them against methods.yaml)."""
    assert driver.connect().call(method)


def test_instruments_follow_the_venues_rules(driver):
    """Names, sizes, ticks and Friday 08:00 UTC expiries."""
    client = driver.connect()
    rows = {i["instrument_name"]: i for i in client.call("public/get_instruments")}
    perpetual, option = rows[PERPETUAL], _option(client)
    assert (perpetual["tick_size"], perpetual["contract_size"], perpetual["min_trade_amount"]) == (0.5, 10, 10)
    assert (option["tick_size"], option["min_trade_amount"], option["contract_size"]) == (0.0001, 0.1, 1)
    assert option["tick_size_steps"] == [{"above_price": 0.005, "tick_size": 0.0005}]
    assert option["quote_currency"] == "BTC" and perpetual["quote_currency"] == "USD"
    assert rows["ETH_USDC-PERPETUAL"]["instrument_type"] == "linear"
    for row in rows.values():
        if row["settlement_period"] != "perpetual":
            expiry = datetime.fromtimestamp(row["expiration_timestamp"] / 1000, UTC)
            assert expiry.weekday() == 4 and (expiry.hour, expiry.minute) == (8, 0)
            assert row["instrument_name"].split("-")[1] == expiry.strftime("%d%b%y").lstrip("0").upper()
    assert all(i["settlement_currency"] == "ETH" for i in client.call("public/get_instruments", currency="ETH"))


def test_the_perpetual_is_deep_and_tight(driver):
    """Five levels a side exceed 300,000 USD and the spread stays below 25 basis points, at every tick."""
    client = driver.connect()
    for _ in range(50):
        driver.pass_ms(200)
        book = driver.get("public/get_order_book", instrument_name=PERPETUAL)[1]["result"]
        assert sum(amount for _, amount in book["bids"]) > 300_000 < sum(amount for _, amount in book["asks"])
        spread = book["best_ask_price"] - book["best_bid_price"]
        assert 0.5 <= spread <= 1.0
        assert abs(book["mark_price"] / book["index_price"] - 1) < 0.001
    assert client.closed is None


@pytest.mark.parametrize("interval", ["raw", "100ms", "agg2"])
def test_book_changes_link_and_lead_to_the_book(driver, interval):
    """Snapshot and changes, folded as a client folds them, give the book; every prev_change_id fits."""
    client = driver.connect().login()
    client.call("private/subscribe", channels=[f"book.{PERPETUAL}.{interval}"])
    driver.pass_ms(500)
    late = driver.connect().login()
    late.call("private/subscribe", channels=[f"book.{PERPETUAL}.{interval}"])
    late.buy(PERPETUAL, 200_000, price=101_000, time_in_force="immediate_or_cancel")
    late.buy(PERPETUAL, 50, price=90_000)
    driver.pass_ms(5_000)
    for each in (client, late):
        sides, gaps = _fold(each.news("book."))
        assert gaps == 0
        assert max(sides["bids"]) < min(sides["asks"])
    book = client.call("public/get_order_book", instrument_name=PERPETUAL, depth=100)
    if interval == "raw":
        assert sides["bids"] == dict(map(tuple, book["bids"])) and sides["asks"] == dict(map(tuple, book["asks"]))
        assert client.news("book.")[-1]["change_id"] == book["change_id"]
    assert 90_000.0 in sides["bids"]


def test_grouped_books_are_whole_and_grouped(driver):
    """Every message a full snapshot of so many levels, prices on the group's grid."""
    client = driver.connect()
    client.call("public/subscribe", channels=[f"book.{PERPETUAL}.10.10.100ms", f"book.{PERPETUAL}.none.1.100ms"])
    driver.pass_ms(1_000)
    grouped = client.news(f"book.{PERPETUAL}.10.")[-1]
    assert "type" not in grouped and all(price % 5 == 0 for price, _ in grouped["bids"] + grouped["asks"])
    assert len(client.news(f"book.{PERPETUAL}.none.1.")[-1]["bids"]) == 1


def test_every_kind_of_channel_speaks(driver):
    """Subscribing answers with what exists only, and each existing channel says something."""
    client = driver.connect().login()
    option = _option(client)["instrument_name"]
    channels = [f"ticker.{option}.100ms", f"ticker.{PERPETUAL}.raw", f"incremental_ticker.{PERPETUAL}", f"quote.{PERPETUAL}",
                "deribit_price_index.btc_usd", "deribit_volatility_index.btc_usd", f"perpetual.{PERPETUAL}.100ms",
                f"trades.{PERPETUAL}.100ms", "trades.future.BTC.100ms", "trades.any.any.agg2", "user.portfolio.BTC",
                "user.portfolio.any"]
    taken = client.call("private/subscribe", channels=[*channels, "ticker.NOPE.100ms", "chart.x", "user.orders.NOPE.raw"])
    assert taken == channels
    driver.pass_ms(20_000)
    for channel in channels:
        assert client.news(channel), channel
    assert all(set(t) >= {"trade_seq", "tick_direction", "mark_price"} for t in client.news("trades.future.BTC.100ms")[0])
    tickers = client.news(f"ticker.{option}")
    driver.check("public/ticker", tickers[-1])
    assert 0 < tickers[-1]["greeks"]["delta"] < 1 and tickers[-1]["best_bid_price"] < tickers[-1]["best_ask_price"]
    kinds = {m["type"] for m in client.news("incremental_ticker")}
    assert kinds == {"snapshot", "change"}


def test_raw_needs_papers_and_user_channels_need_the_private_method(driver):
    """13778 for raw without authentication; user.* is silently left out of public/subscribe."""
    client = driver.connect()
    assert client.code("public/subscribe", channels=[f"book.{PERPETUAL}.raw"]) == 13778
    assert client.call("public/subscribe", channels=["user.orders.any.any.raw", "platform_state"]) == ["platform_state"]
    assert client.code("private/subscribe", channels=["user.orders.any.any.raw"]) == 10000


def test_unsubscribed_channels_fall_silent(driver):
    """Unsubscribing answers with what was subscribed, and nothing more comes."""
    client = driver.connect()
    client.call("public/subscribe", channels=[f"ticker.{PERPETUAL}.100ms", f"quote.{PERPETUAL}"])
    assert client.call("public/unsubscribe", channels=[f"ticker.{PERPETUAL}.100ms", "quote.X"]) == [f"ticker.{PERPETUAL}.100ms"]
    client.call("public/unsubscribe_all")
    client.messages.clear()
    driver.pass_ms(2_000)
    assert client.messages == []


def test_public_trades_number_on_and_stay_small(driver):
    """About one a second on the perpetual, trade_seq without holes, below the signal amount."""
    client = driver.connect()
    client.call("public/subscribe", channels=[f"trades.{PERPETUAL}.100ms"])
    driver.pass_ms(60_000)
    trades = [trade for news in client.news("trades.") for trade in news]
    assert 30 < len(trades) < 120
    assert all(trade["amount"] < 250_000 for trade in trades)
    assert [t["trade_seq"] for t in trades] == list(range(trades[0]["trade_seq"], trades[0]["trade_seq"] + len(trades)))
    recent = client.call("public/get_last_trades_by_instrument", instrument_name=PERPETUAL, count=5)
    assert recent["has_more"] and recent["trades"][0]["trade_seq"] == trades[-1]["trade_seq"]


def test_other_reads_of_the_market_have_their_form(driver):
    """Summaries, index, instrument, last trades by currency."""
    client = driver.connect()
    driver.pass_ms(30_000)
    assert client.call("public/get_book_summary_by_currency", currency="BTC", kind="option")
    assert client.call("public/get_book_summary_by_instrument", instrument_name=PERPETUAL)[0]["mid_price"]
    assert client.call("public/get_index_price", index_name="eth_usd")["index_price"] > 1_000
    assert client.code("public/get_index_price", index_name="doge") == -32602
    assert client.call("public/get_instrument", instrument_name=PERPETUAL)["is_active"]
    assert client.call("public/get_last_trades_by_currency", currency="BTC", kind="future", count=3)["trades"]
    assert client.call("public/status")["locked"] == "false"
    assert client.code("public/test", expected_result="exception") == 10001


def _story(make_driver, seed):
    driver = make_driver(seed=seed)
    client = driver.connect().login()
    option = _option(client)["instrument_name"]
    client.call("private/subscribe", channels=[f"book.{PERPETUAL}.100ms", f"ticker.{option}.100ms", f"trades.{PERPETUAL}.raw",
                                               "user.changes.any.any.raw"])
    for number in range(20):
        driver.pass_ms(330)
        client.sell(PERPETUAL, 10 * (number + 1), price=99_000, time_in_force="immediate_or_cancel", label=str(number))
    return client.messages, driver.records


def test_the_same_seed_tells_the_same_story(make_driver):
    """Frames and books byte for byte; another seed, another story."""
    assert _story(make_driver, 3) == _story(make_driver, 3)
    assert _story(make_driver, 3)[0] != _story(make_driver, 4)[0]


def test_looking_does_not_shift_anybodys_luck(make_driver):
    """A client that reads forty books changes nothing in the market that another sees."""
    plain, curious = make_driver(seed=5), make_driver(seed=5)
    asker = curious.connect()
    for instrument in asker.call("public/get_instruments")[:40]:
        asker.ask("public/get_order_book", instrument_name=instrument["instrument_name"])
    books = []
    for driver in (plain, curious):
        driver.pass_ms(10_000)
        book = driver.connect().call("public/get_order_book", instrument_name=PERPETUAL, depth=20)
        books.append((book["bids"], book["asks"], book["index_price"]))
    assert books[0] == books[1]


def test_what_expires_is_delivered_and_followed(driver):
    """On Friday 08:00 UTC orders end, positions become money, the instrument closes and new ones are listed."""
    client = driver.connect().login("session:long")
    option = _option(client, 90_000, nth=0)
    client.call("private/subscribe", channels=["instrument.state.any.any"])
    client.buy(option["instrument_name"], 0.1, price=0.13, time_in_force="immediate_or_cancel")
    quote = client.buy(option["instrument_name"], 0.1, price=0.0705)["order"]["order_id"]
    before = {i["instrument_name"] for i in client.call("public/get_instruments")}
    driver.machine._tick_ms = 60_000
    driver.pass_ms(option["expiration_timestamp"] - driver.wall_ms + 120_000)
    client.login("session:long")
    assert client.call("private/get_positions") == []
    assert client.call("private/get_order_state", order_id=quote)["order_state"] == "cancelled"
    after = {i["instrument_name"] for i in client.call("public/get_instruments")}
    assert option["instrument_name"] not in after and after - before
    assert client.code("private/buy", instrument_name=option["instrument_name"], amount=0.1, price=0.1) == 10012
    assert client.call("private/get_account_summary", currency="BTC")["balance"] > 99.9
    assert {n["state"] for n in client.news("instrument.state")} == {"created", "delivered"}
