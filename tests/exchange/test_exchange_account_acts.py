"""Acts on money and prices: what drills provoke drawdowns and volatility with, and what the books say of it."""

from __future__ import annotations

import orjson
import pytest

from system_under_test.exchange.market import Market

PERPETUAL = "BTC-PERPETUAL"
FEED = [f"book.{PERPETUAL}.100ms", f"ticker.{PERPETUAL}.100ms", f"trades.{PERPETUAL}.100ms", "deribit_price_index.btc_usd"]


def option(driver) -> str:
    """A call near the money, some days away."""
    found = [each for each in driver.get("public/get_instruments", currency="BTC", kind="option")[1]["result"]
             if each["strike"] == 100_000 and each["option_type"] == "call"]
    return max(found, key=lambda each: each["expiration_timestamp"])["instrument_name"]


def equity(client) -> float:
    return client.call("private/get_account_summary", currency="BTC")["equity"]


def test_a_transfer_moves_the_balance_and_nothing_else(driver, client):
    """Coins come and go; positions, orders and the market do not notice; the books and the portfolio's channel say so."""
    client.call("private/subscribe", channels=["user.portfolio.btc", "user.changes.any.any.raw"])
    driver.pass_ms(300)
    client.messages.clear()
    before = equity(client)
    assert driver.act("transfer", amount=12) == {"name": "transfer", "balance": before + 12}
    driver.act("transfer", amount=-5.5)
    driver.pass_ms(300)
    assert equity(client) == pytest.approx(before + 6.5)
    assert [(row["currency"], row["amount"]) for row in driver.rows("transfer")] == [("BTC", 12), ("BTC", -5.5)]
    assert client.news("user.portfolio") and not client.news("user.changes")


def test_nobody_takes_out_more_than_there_is(driver, client):
    """Refused with a reason; nothing has moved and no act is in the books."""
    before = equity(client)
    status, answer = driver.http("POST", "/acts/transfer", orjson.dumps({"amount": -before - 1}), "control")
    assert status == 400 and "the account holds" in orjson.dumps(answer).decode()
    assert equity(client) == before and not driver.rows("transfer") and not driver.rows("act")


@pytest.mark.parametrize("share", [-0.12, -0.0003, 0.01])
def test_a_price_jump_moves_index_marks_books_and_last_prices_together(driver, client, share):
    """At once, without crossing a book, and the chain of changes stays whole."""
    client.call("public/subscribe", channels=FEED)
    driver.pass_ms(1_000)
    name = option(driver)
    before = client.call("public/ticker", instrument_name=PERPETUAL)
    client.call("public/get_order_book", instrument_name=name)
    told = driver.act("price_jump", share=share)
    after = client.call("public/ticker", instrument_name=PERPETUAL)
    assert told["after"] == pytest.approx(told["before"] * (1 + share), abs=0.02)
    for key in ("index_price", "mark_price", "best_bid_price", "best_ask_price", "last_price"):
        assert after[key] / before[key] - 1 == pytest.approx(share, abs=2e-4), key
    for each in (PERPETUAL, name):
        book = client.call("public/get_order_book", instrument_name=each)
        assert book["best_bid_price"] < book["best_ask_price"]
    driver.pass_ms(2_000)
    changes = [news for news in client.news("book.") if "prev_change_id" in news]
    assert all(b["prev_change_id"] == a["change_id"] for a, b in zip(changes, changes[1:], strict=False))
    assert client.news("deribit_price_index")[-1]["price"] == pytest.approx(told["after"], rel=3e-4)
    assert driver.rows("market")[0]["share"] == share


def test_a_jump_fills_the_resting_orders_that_it_reaches(driver, client):
    """At the order's own price, as market makers who quote through it would."""
    order = client.buy(PERPETUAL, 1_000, type="limit", price=95_000, post_only=True)["order"]
    driver.act("price_jump", share=-0.12)
    (fill,) = [row for row in driver.rows("fill") if row["order_id"] == order["order_id"]]
    assert (fill["amount"], fill["price"], fill["maker"]) == (1_000, 95_000, True)


def test_what_stands_still_does_not_jump(driver, client):
    """A frozen market shows nothing of it until it thaws."""
    client.call("public/subscribe", channels=FEED)
    driver.pass_ms(1_000)
    driver.put("frozen", instrument=PERPETUAL)
    driver.pass_ms(400)
    before = client.call("public/ticker", instrument_name=PERPETUAL)
    driver.act("price_jump", share=0.1)
    driver.pass_ms(400)
    still = client.call("public/ticker", instrument_name=PERPETUAL)
    assert (still["mark_price"], still["best_bid_price"]) == (before["mark_price"], before["best_bid_price"])
    driver.off("frozen")
    driver.pass_ms(400)
    assert client.call("public/ticker", instrument_name=PERPETUAL)["mark_price"] > before["mark_price"] * 1.09


def test_the_walk_goes_on_around_the_new_price():
    """Nothing draws it back to where it was, and luck is what it would have been: the same walk, scaled."""
    plain, jumped = Market(7), Market(7)
    jumped.jump("btc_usd", -0.12)
    for _ in range(5_000):
        plain.tick()
        jumped.tick()
    assert jumped.index("btc_usd") == pytest.approx(plain.index("btc_usd") * 0.88, abs=0.02)
    assert jumped.index("eth_usd") == plain.index("eth_usd")


def test_money_and_price_survive_the_exchange(driver, client, make_driver):
    """After a restart the balance is what was moved, and the market stands where it jumped to."""
    driver.act("transfer", amount=12)
    driver.act("price_jump", share=0.25)
    again = make_driver(records=tuple(driver.records), boot=2)
    assert equity(again.connect().login()) == pytest.approx(equity(client)) == pytest.approx(112)
    before, after = (each.get("public/get_index_price", index_name="btc_usd")[1]["result"]["index_price"]
                     for each in (driver, again))
    assert after == pytest.approx(before, rel=0.01)
