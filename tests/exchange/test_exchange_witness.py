"""The books: every order has a row, written before anybody is answered, with the exposure it would leave."""

from __future__ import annotations

import orjson
import pytest

from system_under_test.machine import Append, Frame, Now

PERPETUAL = "BTC-PERPETUAL"


def _option(client, kind="call"):
    return next(i["instrument_name"] for i in client.call("public/get_instruments", currency="BTC", kind="option")
                if i["strike"] == 100_000 and i["option_type"] == kind)


def _last(driver):
    return driver.rows("order")[-1]


def test_rows_are_written_before_the_answer(driver, client):
    """Order row, its fills, the answer's row, and only then the frame."""
    body = orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": "private/buy",
                         "params": {"instrument_name": PERPETUAL, "amount": 100, "type": "market"}})
    out = driver.machine.handle(Now(driver.mono_ms, driver.wall_ms), Frame(client.conn, body))
    kinds = [orjson.loads(v.data)["kind"] if isinstance(v, Append) else type(v).__name__ for v in out]
    assert kinds == ["request", "order", "fill", "answer", "Frame"]


def test_opening_is_judged_by_the_worst_case(driver, client):
    """Position and net delta must both rise: opening up, hedging not, closing not, and open orders count."""
    option = _option(client)
    client.buy(option, 1, type="market")
    assert _last(driver)["opening"] is True
    client.sell(PERPETUAL, 40_000, type="market")
    hedge = _last(driver)
    assert hedge["opening"] is False and hedge["worst_after"] == 40_000
    client.sell(PERPETUAL, 200_000, price=110_000)
    assert _last(driver)["opening"] is True
    client.buy(PERPETUAL, 40_000, type="market", reduce_only=True)
    assert _last(driver)["opening"] is False
    client.call("private/cancel_all")
    client.sell(option, 1, type="market")
    assert _last(driver)["opening"] is False


def test_open_orders_on_the_same_side_add_up(driver, client):
    """Short 100 with a bid of 100 resting, another bid of 50 cannot exceed what is held: no opening; the next can."""
    client.sell(PERPETUAL, 100, type="market")
    for amount, opening in ((100, False), (50, False), (50, False), (50, True)):
        client.buy(PERPETUAL, amount, price=90_000)
        assert _last(driver)["opening"] is opening, amount


def test_a_refused_order_is_measured_too(driver, client):
    """Whatever refused it: locked, maintenance, throttle, funds, deadline."""
    for switch in ("locked", "maintenance", "too_many_requests"):
        driver.put(switch)
        client.ask("private/buy", instrument_name=PERPETUAL, amount=100, price=100_000, label=switch)
        driver.off(switch)
        row = _last(driver)
        assert (row["outcome"], row["opening"], row["label"], row["worst_after"]) == ("rejected", True, switch, 100)
    client.ask("private/buy", instrument_name=PERPETUAL, amount=100, price=100_000, valid_until=driver.wall_ms - 1)
    assert (_last(driver)["late"], _last(driver)["opening"], _last(driver)["code"]) == (True, True, 13888)
    client.ask("private/buy", instrument_name="NOPE", amount="x", price={})
    assert _last(driver)["opening"] is False and _last(driver)["instrument"] == "NOPE"
    client.ask("private/buy")
    assert _last(driver)["instrument"] is None
    driver.connect().ask("private/sell", instrument_name=PERPETUAL, amount=100, price=100_000)
    assert (_last(driver)["code"], _last(driver)["opening"]) == (10000, True)


def test_an_edit_is_measured_against_what_it_replaces(driver, client):
    """Making an order larger opens, making it smaller does not."""
    order = client.buy(PERPETUAL, 100, price=90_000)["order"]["order_id"]
    client.call("private/edit", order_id=order, amount=200)
    assert (_last(driver)["opening"], _last(driver)["method"], _last(driver)["order_id"]) == (True, "private/edit", order)
    client.call("private/edit", order_id=order, amount=50)
    assert _last(driver)["opening"] is False
    assert len(driver.rows("order")) == 3


def test_fills_carry_the_position_and_net_delta_around_them(driver, client):
    """Each fill says what the account held after it."""
    option = _option(client, "put")
    client.buy(option, 0.2, type="market")
    client.sell(PERPETUAL, 1_000, type="market")
    first, second = driver.rows("fill")
    assert (first["position_after"], second["position_after"]) == (0.2, -1_000)
    assert first["net_delta_before"] == 0 > first["net_delta_after"]
    assert second["net_delta_after"] == pytest.approx(first["net_delta_after"] - 0.01, abs=1e-4)


def test_requests_queries_answers_and_sends_are_rows(driver, client):
    """What reached the exchange, what was asked, what was answered, how much was sent."""
    client.call("public/hello", client_name="trader/orders", client_version="1")
    client.call("private/get_open_orders")
    client.call("private/get_positions")
    client.call("private/get_user_trades_by_currency", currency="BTC")
    client.buy(PERPETUAL, 10, price=90_000, label="a")
    client.call("private/cancel_by_label", label="a")
    assert [row["what"] for row in driver.rows("query")] == ["open_orders", "positions", "user_trades"]
    assert [(row["method"], row["label"], row["code"]) for row in driver.rows("answer")] == [
        ("private/buy", "a", None), ("private/cancel_by_label", "a", None)]
    request = driver.rows("request")[-1]
    assert (request["conn"], request["client"], request["transport"], request["method"]) == (
        client.conn, "trader/orders", "ws", "private/cancel_by_label")
    client.call("public/subscribe", channels=[f"ticker.{PERPETUAL}.100ms"])
    driver.pass_ms(5_000)
    sends = driver.rows("sends", conn=client.conn)
    assert 5 <= len(sends) <= 20
    assert [s["frames"] for s in sends] == sorted({s["frames"] for s in sends}) and sends[-1]["bytes"] > 1_000


def test_a_silent_connection_has_no_sends_rows(driver, client):
    """The count grows or is not told."""
    driver.pass_ms(1_000)
    before = len(driver.rows("sends"))
    driver.pass_ms(10_000)
    assert len(driver.rows("sends")) == before


def test_a_restart_folds_the_books_back(driver, make_driver, client):
    """Positions, resting orders, trades and numbers survive; orders of armed connections are cancelled."""
    option = _option(client)
    client.buy(option, 0.3, type="market", label="call")
    client.sell(PERPETUAL, 5_000, type="market")
    kept = client.buy(PERPETUAL, 100, price=90_000, label="kept")["order"]["order_id"]
    client.call("private/edit", order_id=kept, amount=150, price=91_000)
    gone = client.buy(PERPETUAL, 100, price=90_000)["order"]["order_id"]
    client.call("private/cancel", order_id=gone)
    driver.act("position_behind", instrument=PERPETUAL, amount=-1_000)
    armed = driver.connect().login()
    armed.call("private/enable_cancel_on_disconnect")
    lost = armed.buy(PERPETUAL, 10, price=90_000)["order"]["order_id"]
    positions = {p["instrument_name"]: p["size"] for p in client.call("private/get_positions")}
    trades = client.call("private/get_user_trades_by_currency", currency="BTC")["trades"]

    again = make_driver(records=tuple(driver.records), boot=2)
    other = again.connect().login()
    assert {p["instrument_name"]: p["size"] for p in other.call("private/get_positions")} == positions
    assert [(o["order_id"], o["amount"], o["price"], o["label"]) for o in other.call("private/get_open_orders")] == [
        (kept, 150, 91_000, "kept")]
    assert other.call("private/get_order_state", order_id=lost)["cancel_reason"] == "cancel_on_disconnect"
    assert other.call("private/get_order_state", order_id=gone)["order_state"] == "cancelled"
    assert [t["trade_id"] for t in other.call("private/get_user_trades_by_currency", currency="BTC")["trades"]] == [
        t["trade_id"] for t in trades]
    fresh = other.buy(PERPETUAL, 10, type="market")
    assert fresh["order"]["order_id"] not in {kept, gone, lost}
    assert fresh["trades"][0]["trade_id"] not in {t["trade_id"] for t in trades}
    assert again.rows("boot")[-1]["boot"] == 2


def test_a_torn_or_strange_log_does_not_stop_the_start(make_driver):
    """Rows that cannot be understood are passed over."""
    strange = (b"{", b"[]", b'{"kind":"fill"}', b'{"kind":"order","outcome":"accepted"}',
               b'{"kind":"cancel","order_id":"x"}', b'{"kind":"position","instrument":"NOPE","size":1}')
    driver = make_driver(records=strange, boot=2)
    assert driver.connect().login().call("private/get_positions") == []
