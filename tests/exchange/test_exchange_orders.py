"""Orders: matching, time in force, post-only, reduce-only, rules of price and amount, edit, cancel, triggers."""

from __future__ import annotations

import pytest

PERPETUAL = "BTC-PERPETUAL"


def _touch(client):
    ticker = client.call("public/ticker", instrument_name=PERPETUAL)
    return ticker["best_bid_price"], ticker["best_ask_price"]


def _option(client):
    return next(i["instrument_name"] for i in client.call("public/get_instruments", currency="BTC", kind="option")
                if i["strike"] == 100_000 and i["option_type"] == "call")


def _size(client, instrument=PERPETUAL):
    return client.call("private/get_position", instrument_name=instrument)["size"]


def test_a_taker_walks_the_book(client):
    """An order larger than the best level fills level by level, best first, and pays the average."""
    asks = client.call("public/get_order_book", instrument_name=PERPETUAL)["asks"]
    amount = asks[0][1] + 100
    result = client.buy(PERPETUAL, amount, price=asks[3][0])
    assert [trade["price"] for trade in result["trades"]] == [asks[0][0], asks[1][0]]
    assert result["order"]["order_state"] == "filled" and result["order"]["filled_amount"] == amount
    assert asks[0][0] < result["order"]["average_price"] < asks[1][0]
    assert _size(client) == amount


def test_what_does_not_fill_rests_or_ends_by_its_time_in_force(client):
    """GTC rests, IOC cancels the rest, FOK fills all or nothing."""
    bid, ask = _touch(client)
    depth = client.call("public/get_order_book", instrument_name=PERPETUAL)["asks"][0][1]
    immediate = client.buy(PERPETUAL, depth + 500, price=ask, time_in_force="immediate_or_cancel")
    assert (immediate["order"]["order_state"], immediate["order"]["filled_amount"]) == ("cancelled", depth)
    killed = client.buy(PERPETUAL, 10_000_000, price=ask, time_in_force="fill_or_kill")
    assert (killed["order"]["order_state"], killed["trades"]) == ("cancelled", [])
    rests = client.buy(PERPETUAL, 100, price=bid)
    assert rests["order"]["order_state"] == "open" and rests["order"]["time_in_force"] == "good_til_cancelled"
    assert [o["order_id"] for o in client.call("private/get_open_orders")] == [rests["order"]["order_id"]]


def test_a_resting_order_is_filled_when_the_market_comes(driver, client):
    """Joining the best bid, an order trades as maker once others sell; news and history agree."""
    client.call("private/subscribe", channels=["user.trades.any.any.raw", "user.orders.any.any.raw"])
    bid, ask = _touch(client)
    order = client.buy(PERPETUAL, 100, price=ask - 0.5, post_only=True)["order"]
    for _ in range(600):
        driver.pass_ms(200)
        if client.news("user.trades"):
            break
    trades = [t for news in client.news("user.trades") for t in news]
    assert trades and trades[0]["liquidity"] == "M" and trades[0]["order_id"] == order["order_id"]
    assert trades[0]["price"] == order["price"]
    assert client.call("private/get_user_trades_by_order", order_id=order["order_id"], sorting="asc")[0] == trades[0]


def test_post_only_moves_inside_the_spread_or_is_refused(client):
    """It is repriced just inside; with reject_post_only it is 11054; with another time in force 11055."""
    bid, ask = _touch(client)
    moved = client.buy(PERPETUAL, 100, price=ask + 50, post_only=True)
    assert moved["trades"] == [] and moved["order"]["price"] == ask - 0.5
    assert moved["order"]["reject_post_only"] is False
    assert client.code("private/buy", instrument_name=PERPETUAL, amount=100, price=ask, post_only=True,
                       reject_post_only=True) == 11054
    for wrong in ({"time_in_force": "immediate_or_cancel"}, {"time_in_force": "fill_or_kill"}):
        assert client.code("private/buy", instrument_name=PERPETUAL, amount=100, price=bid, post_only=True, **wrong) == 11055
    assert client.code("private/buy", instrument_name=PERPETUAL, amount=100, type="market", post_only=True) == 11055


def test_reduce_only_is_trimmed_by_quantity_and_never_flips(client):
    """Twice the position closes it once; from flat, and on the wrong side, it is refused."""
    assert client.code("private/sell", instrument_name=PERPETUAL, amount=100, price=90_000, reduce_only=True) == 11030
    client.buy(PERPETUAL, 500, type="market")
    assert client.code("private/buy", instrument_name=PERPETUAL, amount=100, price=90_000, reduce_only=True) == 11030
    closed = client.sell(PERPETUAL, 1_000, price=99_000, reduce_only=True, time_in_force="immediate_or_cancel")
    assert (closed["order"]["amount"], closed["order"]["order_state"]) == (500, "filled")
    assert _size(client) == 0


def test_resting_reduce_only_orders_share_the_position_and_shrink_with_it(client):
    """Their sum never exceeds the position; when it shrinks they are trimmed, and they never grow again."""
    client.buy(PERPETUAL, 500, type="market")
    first = client.sell(PERPETUAL, 300, price=101_000, reduce_only=True)["order"]
    second = client.sell(PERPETUAL, 300, price=101_000, reduce_only=True)["order"]
    assert second["amount"] == 200
    assert client.code("private/sell", instrument_name=PERPETUAL, amount=10, price=101_000, reduce_only=True) == 11030
    client.sell(PERPETUAL, 350, type="market")
    state = {o["order_id"]: o for o in client.call("private/get_open_orders")}
    assert state[first["order_id"]]["amount"] == 150 and second["order_id"] not in state
    client.buy(PERPETUAL, 350, type="market")
    assert client.call("private/get_order_state", order_id=first["order_id"])["amount"] == 150


@pytest.mark.parametrize(("params", "code"), [
    ({"amount": 15}, 10021), ({"amount": 5}, 10002), ({"amount": 0}, 10002), ({"amount": -10}, 10002),
    ({"price": 90_000.3}, 10043), ({"price": 0}, 10023), ({"price": -1}, 10023), ({"price": 90_000.123456789}, 10026),
    ({"price": None}, -32602), ({"amount": None}, -32602), ({"instrument_name": "BTC-NOPE"}, 10020),
    ({"instrument_name": None}, -32602), ({"type": "nonsense"}, -32602), ({"label": "x" * 65}, -32602),
    ({"amount": 100, "contracts": 3}, -32602), ({"type": "market", "time_in_force": "good_til_cancelled"}, 11047),
    ({"type": "stop_market"}, -32602), ({"advanced": "usd"}, 11047), ({"valid_until": 1}, 13888),
    ({"amount": "abc"}, -32602), ({"amount": 10**9, "price": 100_000}, 10009),
])
def test_orders_against_the_rules_are_refused_by_code(client, driver, params, code):
    """Tick, amount, type, label, deadline and funds; a refused order leaves a row and nothing else."""
    wanted = {"instrument_name": PERPETUAL, "amount": 100, "price": 90_000} | params
    assert client.code("private/buy", **{k: v for k, v in wanted.items() if v is not None}) == code
    row = driver.rows("order")[-1]
    assert (row["outcome"], row["code"]) == ("rejected", code)
    assert row["late"] is (code == 13888)
    assert client.call("private/get_open_orders") == [] and _size(client) == 0


def test_option_prices_have_steps_and_bounds(client):
    """0.0001 below 0.005 and 0.0005 from there; beyond the band 10007 and 10005 with the limit."""
    option = _option(client)
    assert client.buy(option, 0.1, price=0.0049)["order"]["price"] == 0.0049
    assert client.code("private/buy", instrument_name=option, amount=0.1, price=0.0071) == 10043
    assert client.code("private/buy", instrument_name=option, amount=0.05, price=0.007) == 10002
    assert client.code("private/buy", instrument_name=option, amount=0.15, price=0.007) == 10021
    answer = client.ask("private/buy", instrument_name=option, amount=0.1, price=0.9)
    assert answer["error"]["code"] == 10007 and answer["error"]["data"]["limit"] < 0.2
    client.buy(option, 0.1, type="market")
    assert _size(client, option) == 0.1


def test_futures_prices_beyond_the_band_are_clamped(client):
    """Not refused: a buy far above fills at the book, a sell far above rests where it was put."""
    top = client.call("public/ticker", instrument_name=PERPETUAL)["max_price"]
    assert client.buy(PERPETUAL, 10, price=500_000)["order"]["price"] == top
    assert client.sell(PERPETUAL, 10, price=500_000)["order"]["price"] == 500_000


def test_contracts_and_amount_mean_the_same(client):
    """Ten dollars a contract on the perpetual."""
    assert client.call("private/buy", instrument_name=PERPETUAL, contracts=3, price=90_000)["order"]["amount"] == 30
    assert client.call("private/buy", instrument_name=PERPETUAL, contracts=3, amount=30, price=90_000)


def test_edit_changes_what_it_names_and_cancel_ends_it(client):
    """The edited order says replaced; closed orders can be neither edited nor cancelled."""
    order = client.buy(PERPETUAL, 100, price=90_000, label="one")["order"]["order_id"]
    edited = client.call("private/edit", order_id=order, amount=200, price=91_000)["order"]
    assert (edited["amount"], edited["price"], edited["replaced"], edited["order_id"]) == (200, 91_000, True, order)
    assert client.call("private/edit_by_label", label="one", instrument_name=PERPETUAL, amount=50)["order"]["amount"] == 50
    assert client.code("private/edit", order_id=order, amount=55) == 10021
    assert client.code("private/edit", order_id=order, amount=50, valid_until=1) == 13888
    taken = client.call("private/edit", order_id=order, price=101_000)
    assert taken["order"]["order_state"] == "filled" and taken["trades"]
    assert client.code("private/edit", order_id=order, amount=50) == 11044
    assert client.code("private/cancel", order_id=order) == 11044
    assert client.code("private/cancel", order_id="BTC-1") == 10004
    other = client.buy(PERPETUAL, 100, price=90_000)["order"]["order_id"]
    cancelled = client.call("private/cancel", order_id=other)
    assert (cancelled["order_state"], cancelled["cancel_reason"]) == ("cancelled", "user_request")


def test_labels_are_not_unique_and_find_their_orders(client):
    """The same label twice is accepted; reads give lists, an edit by it is refused, a cancel takes both."""
    for _ in range(2):
        client.buy(PERPETUAL, 10, price=90_000, label="twin")
    assert len(client.call("private/get_order_state_by_label", currency="BTC", label="twin")) == 2
    assert len(client.call("private/get_open_orders_by_label", currency="BTC", label="twin")) == 2
    assert client.code("private/edit_by_label", label="twin", instrument_name=PERPETUAL, amount=20) == 13032
    assert client.call("private/cancel_by_label", label="twin") == 2
    after = client.call("private/get_order_state_by_label", currency="BTC", label="twin")
    assert {order["order_state"] for order in after} == {"cancelled"}
    assert client.call("private/get_order_state_by_label", currency="ETH", label="twin") == []


def test_mass_cancels_take_what_their_filters_say(client):
    """By currency, instrument, kind and type; detailed gives the orders."""
    option = _option(client)
    client.buy(PERPETUAL, 10, price=90_000)
    client.buy(option, 0.1, price=0.001)
    client.buy("ETH-PERPETUAL", 1, price=3_900)
    assert client.call("private/cancel_all_by_instrument", instrument_name="ETH-PERPETUAL") == 1
    assert client.call("private/cancel_all_by_currency", currency="BTC", kind="option") == 1
    client.buy(option, 0.1, price=0.001)
    assert client.call("private/cancel_all_by_kind_or_type", currency=["BTC", "ETH"], kind="option") == 1
    detailed = client.call("private/cancel_all", detailed=True)
    assert detailed[0]["result"][0]["instrument_name"] == PERPETUAL
    assert client.call("private/cancel_all") == 0


def test_close_position_closes_and_only_closes(client):
    """Market or limit, reduce-only; with nothing to close it is refused."""
    assert client.code("private/close_position", instrument_name=PERPETUAL, type="market") == 11030
    client.sell(PERPETUAL, 300, type="market")
    assert client.code("private/close_position", instrument_name=PERPETUAL, type="limit") == -32602
    result = client.call("private/close_position", instrument_name=PERPETUAL, type="market")
    assert result["order"]["reduce_only"] and _size(client) == 0


def test_market_limit_rests_at_the_price_it_got(client):
    """What a market_limit cannot fill at the best price stays there as a limit order."""
    asks = client.call("public/get_order_book", instrument_name=PERPETUAL)["asks"]
    result = client.buy(PERPETUAL, asks[0][1] + 50, type="market_limit")
    assert (result["order"]["order_state"], result["order"]["price"]) == ("open", asks[0][0])


def test_stop_orders_wait_and_fire(driver, client):
    """Untriggered they have no filled_amount and can be edited and cancelled; at their price they trade."""
    price = client.call("public/ticker", instrument_name=PERPETUAL)["index_price"]
    waits = client.call("private/sell", instrument_name=PERPETUAL, amount=10, type="stop_market", trigger="mark_price",
                        trigger_price=80_000)["order"]
    assert waits["order_state"] == "untriggered" and "filled_amount" not in waits
    assert client.call("private/edit", order_id=waits["order_id"], trigger_price=81_000)["order"]["trigger_price"] == 81_000
    assert client.call("private/cancel_all_by_currency", currency="BTC", type="trigger_all") == 1
    fires = client.call("private/buy", instrument_name=PERPETUAL, amount=10, type="stop_limit", price=round(price) + 400,
                        trigger="index_price", trigger_price=round(price) - 300)["order"]
    driver.pass_ms(400)
    state = client.call("private/get_order_state", order_id=fires["order_id"])
    assert (state["order_state"], state["order_type"], state["triggered"]) == ("filled", "limit", True)


def test_the_account_never_trades_with_itself(client):
    """An own resting order in the way is cancelled; the incoming one goes on."""
    bid, ask = _touch(client)
    if ask - bid < 1:
        client.buy(PERPETUAL, 2_000_000, type="market")
        bid, ask = _touch(client)
    resting = client.sell(PERPETUAL, 100, price=ask - 0.5, post_only=True)["order"]
    result = client.buy(PERPETUAL, 200, price=ask, time_in_force="immediate_or_cancel")
    assert client.call("private/get_order_state", order_id=resting["order_id"])["order_state"] == "cancelled"
    assert {t["price"] for t in result["trades"]} == {ask}


def test_good_til_day_ends_at_eight_utc(driver, client):
    """08:00 UTC ends it."""
    order = client.buy(PERPETUAL, 10, price=90_000, time_in_force="good_til_day")["order"]["order_id"]
    driver.machine._tick_ms = 60_000
    driver.pass_ms(86_400_000)
    client.login()
    assert client.call("private/get_order_state", order_id=order)["order_state"] == "cancelled"


def test_news_of_orders_come_in_the_form_of_their_channel(driver, client):
    """raw orders are objects, 100ms orders are lists, changes hold orders, trades and positions."""
    client.call("private/subscribe", channels=["user.orders.any.any.raw", f"user.orders.{PERPETUAL}.100ms",
                                               "user.changes.future.BTC.100ms", "user.trades.option.BTC.raw",
                                               "user.portfolio.btc"], label="mine")
    result = client.buy(PERPETUAL, 100, type="market")
    driver.pass_ms(1_000)
    assert client.news("user.orders.any.any.raw")[-1] == result["order"]
    assert client.news(f"user.orders.{PERPETUAL}.100ms") == [[result["order"]]]
    changes = client.news("user.changes")[0]
    assert changes["trades"] == result["trades"] and changes["positions"][0]["size"] == 100
    assert client.news("user.trades.option") == []
    assert client.news("user.portfolio.btc")[-1]["currency"] == "BTC"
    assert all(m["params"]["label"] == "mine" for m in client.messages if m.get("method") == "subscription")


def test_reports_page_and_sort(client):
    """User trades by currency, time and id; order history with and without the unfilled."""
    for _ in range(5):
        client.buy(PERPETUAL, 10, type="market")
    everything = client.call("private/get_user_trades_by_currency", currency="BTC", sorting="asc", count=1_000)
    assert [t["trade_seq"] for t in everything["trades"]] == sorted(t["trade_seq"] for t in everything["trades"])
    page = client.call("private/get_user_trades_by_instrument", instrument_name=PERPETUAL, count=2, include_old=True)
    assert page["has_more"] and page["trades"][0] == everything["trades"][-1]
    start = everything["trades"][0]["timestamp"]
    timed = client.call("private/get_user_trades_by_currency_and_time", currency="BTC", start_timestamp=start)
    assert len(timed["trades"]) == 5
    after = client.call("private/get_user_trades_by_currency", currency="BTC", start_id=everything["trades"][3]["trade_id"])
    assert len(after["trades"]) == 2
    client.call("private/cancel", order_id=client.buy(PERPETUAL, 10, price=90_000)["order"]["order_id"])
    assert len(client.call("private/get_order_history_by_currency", currency="BTC")) == 5
    assert len(client.call("private/get_order_history_by_instrument", instrument_name=PERPETUAL, include_unfilled=True)) == 6
    assert client.call("private/get_user_trades_by_currency", currency="USDT")["trades"] == []


def test_the_account_adds_up(client):
    """Equity is balance and unrealised profit; deltas follow positions; extended names the account."""
    option = _option(client)
    client.buy(option, 1, type="market")
    client.sell(PERPETUAL, 50_000, type="market")
    client.buy("ETH_USDC-PERPETUAL", 0.5, type="market")
    summary = client.call("private/get_account_summary", currency="BTC", extended=True)
    positions = {p["instrument_name"]: p for p in client.call("private/get_positions", currency="any")}
    assert len(positions) == 3
    assert summary["delta_total"] == pytest.approx(positions[option]["delta"] + positions[PERPETUAL]["delta"], abs=1e-8)
    assert summary["equity"] == pytest.approx(
        summary["balance"] + positions[PERPETUAL]["floating_profit_loss"] + summary["options_value"], abs=1e-8)
    assert 99.9 < summary["equity"] < 100 and summary["initial_margin"] > 0
    summaries = client.call("private/get_account_summaries", extended=True)
    assert [s["currency"] for s in summaries["summaries"]] == ["BTC", "ETH", "USDC"]
    margins = client.call("private/get_margins", instrument_name=PERPETUAL, amount=1_000, price=100_000)
    assert margins["sell"] > 0 and margins["buy_maker_fee"] == 0 and margins["sell_taker_fee"] == 0.000005
    assert client.call("private/get_subaccounts")[0]["type"] == "main"
    assert client.code("private/get_account_summary", currency="XRP") == -32602
