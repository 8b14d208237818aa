"""Each switch and act: it has its effect, it counts, it stops when it is off, and the control port says so."""

from __future__ import annotations

import orjson
import pytest

PERPETUAL = "BTC-PERPETUAL"


def _option(client):
    return next(i["instrument_name"] for i in client.call("public/get_instruments", currency="BTC", kind="option")
                if i["strike"] == 100_000 and i["option_type"] == "call")


def _gaps(messages):
    changes = [m for m in messages if m["type"] == "change"]
    return sum(after["prev_change_id"] != before["change_id"] for before, after in zip(changes, changes[1:], strict=False))


def test_the_control_port_answers_as_agreed(driver):
    """PUT gives the switch, DELETE its uses (twice), GET all of them; the wrong is told what is wrong."""
    put = driver.http("PUT", "/switches/session_end", b'{"times": 2}', "control")
    assert put == (200, {"name": "session_end", "on": True, "arguments": {"times": 2, "every_ms": 0}, "uses": 0})
    assert driver.http("GET", "/switches", b"", "control")[1]["session_end"]["on"] is True
    assert driver.http("DELETE", "/switches/session_end", b"", "control") == (200, {"uses": 0})
    assert driver.http("DELETE", "/switches/session_end", b"", "control") == (200, {"uses": 0})
    status, wrong = driver.http("PUT", "/switches/sesion_end", b"", "control")
    assert status == 404 and "session_end" in wrong["error"]
    for name, body in (("session_end", b'{"times": "x"}'), ("session_end", b'{"often": 1}'), ("session_end", b"["),
                       ("reject_leg", b'{"code": 1}'), ("frozen", b'{"instrument": "NOPE"}'), ("session_end", b"[1]")):
        assert driver.http("PUT", f"/switches/{name}", body, "control")[0] == 400
    assert driver.http("GET", "/clock", b"", "control") == (200, {"mono_ms": driver.mono_ms, "wall_ms": driver.wall_ms})
    assert driver.http("PATCH", "/clock", b"", "control")[0] == 405
    assert driver.http("GET", "/nothing", b"", "control")[0] == 404
    assert driver.http("POST", "/acts/nothing", b"", "control")[0] == 404
    assert driver.http("POST", "/acts/ghost_order", b"{}", "control")[0] == 400
    assert [row["event"] for row in driver.rows("switch", name="session_end")] == ["on", "off"]


def test_reject_leg_refuses_what_would_open(driver, client):
    """So often, that kind, with that code; reduce-only passes, and so does the other kind."""
    client.buy(PERPETUAL, 100, type="market")
    driver.put("reject_leg", kind="future", code=10009, times=2)
    for _ in range(2):
        assert client.code("private/sell", instrument_name=PERPETUAL, amount=500, price=90_000) == 10009
    client.sell(PERPETUAL, 100, price=99_000, reduce_only=True, time_in_force="immediate_or_cancel")
    client.buy(_option(client), 0.1, type="market")
    assert driver.uses("reject_leg") == 2
    client.sell(PERPETUAL, 500, type="market")
    assert driver.off("reject_leg") == 2
    assert [r["code"] for r in driver.rows("order", outcome="rejected")] == [10009, 10009]


def test_reject_leg_refuses_the_hedging_leg_too(driver, client):
    """Leg B lowers the net delta but raises its own position: it is refused, and its row says it opens nothing."""
    client.buy(_option(client), 0.1, type="market")
    driver.put("reject_leg", kind="future")
    assert client.code("private/sell", instrument_name=PERPETUAL, amount=5_000, price=99_000) == 10009
    assert driver.rows("order")[-1]["opening"] is False


def test_partial_fill_bounds_what_fills_at_once(driver, client):
    """Half of an IOC fills and the rest is cancelled; one lot cannot be halved and does not fill."""
    driver.put("partial_fill", fraction=0.5)
    half = client.buy(PERPETUAL, 1_000, price=101_000, time_in_force="immediate_or_cancel")["order"]
    assert (half["filled_amount"], half["order_state"]) == (500, "cancelled")
    one = client.buy(_option(client), 0.1, type="market")["order"]
    assert one["filled_amount"] == 0
    resting = client.buy(PERPETUAL, 1_000, price=101_000)["order"]
    assert (resting["filled_amount"], resting["order_state"]) == (500, "open")
    book = driver.machine.engine.book(driver.machine.instrument(PERPETUAL))
    assert not book.crossed
    assert driver.off("partial_fill") == 3
    driver.pass_ms(200)
    assert client.buy(PERPETUAL, 1_000, type="market")["order"]["order_state"] == "filled"


def test_book_gap_skips_a_change(driver, client):
    """So many changes are never sent: the next prev_change_id does not fit."""
    client.call("public/subscribe", channels=[f"book.{PERPETUAL}.100ms"])
    driver.pass_ms(2_000)
    assert _gaps(client.news("book.")) == 0
    driver.put("book_gap", instrument=PERPETUAL, times=1)
    driver.pass_ms(2_000)
    assert driver.off("book_gap") == 1 and _gaps(client.news("book.")) == 1


def test_trade_gap_skips_public_trades(driver, client):
    """trade_seq has a hole where news was swallowed."""
    client.call("public/subscribe", channels=[f"trades.{PERPETUAL}.100ms"])
    driver.put("trade_gap", instrument=PERPETUAL, times=1)
    driver.pass_ms(20_000)
    seqs = [t["trade_seq"] for news in client.news("trades.") for t in news]
    assert driver.uses("trade_gap") == 1 and seqs[0] > 1


def test_trade_repeat_says_public_trades_twice(driver, client):
    """The same message comes again at once, with the same ids; once it is off, each comes once."""
    client.call("public/subscribe", channels=[f"trades.{PERPETUAL}.100ms"])
    driver.put("trade_repeat", instrument=PERPETUAL)
    driver.pass_ms(20_000)
    told = client.news("trades.")
    assert driver.uses("trade_repeat") == len(told) // 2 > 0
    assert told[::2] == told[1::2]
    driver.off("trade_repeat")
    driver.pass_ms(20_000)
    ids = [trade["trade_id"] for news in client.news("trades.")[len(told):] for trade in news]
    assert ids and len(ids) == len(set(ids))


def test_late_fills_are_answered_open_and_told_later(driver, client):
    """The answer says open and unfilled; queries tell the truth; the news comes after the delay."""
    client.call("private/subscribe", channels=["user.changes.any.any.raw", "user.orders.any.any.raw"])
    driver.put("late_fills", delay_ms=800)
    result = client.buy(PERPETUAL, 100, price=101_000, time_in_force="immediate_or_cancel")
    assert (result["order"]["order_state"], result["order"]["filled_amount"], result["trades"]) == ("open", 0, [])
    assert client.news("user.changes") == [] and client.news("user.orders")[0]["order_state"] == "open"
    assert client.call("private/get_order_state", order_id=result["order"]["order_id"])["order_state"] == "filled"
    driver.pass_ms(799)
    assert client.news("user.changes") == []
    driver.pass_ms(1)
    assert client.news("user.changes")[0]["trades"][0]["amount"] == 100
    assert client.news("user.orders")[-1]["order_state"] == "filled"
    assert driver.off("late_fills") == 1 and driver.rows("fill")[0]["news"] == "late"


def test_news_under_way_arrives_after_the_switch_is_off(driver, client):
    """Healing does not swallow what was late already."""
    client.call("private/subscribe", channels=["user.trades.any.any.raw"])
    driver.put("late_fills", delay_ms=800)
    client.buy(PERPETUAL, 100, type="market")
    driver.off("late_fills")
    driver.pass_ms(900)
    assert len(client.news("user.trades")) == 1


def test_duplicate_fills_are_told_twice(driver, client):
    """The same trade comes twice, so many times; it happened once."""
    client.call("private/subscribe", channels=["user.trades.any.any.raw", "user.changes.any.any.raw"])
    driver.put("duplicate_fills", times=1)
    client.buy(PERPETUAL, 100, type="market")
    client.buy(PERPETUAL, 100, type="market")
    ids = [t["trade_id"] for news in client.news("user.changes") for t in news["trades"]]
    assert len(ids) == 3 and len(set(ids)) == 2
    assert driver.off("duplicate_fills") == 1
    assert [row["news"] for row in driver.rows("fill")] == ["duplicate", "sent"]


def test_hold_acknowledgement_takes_effect_in_silence(driver, client):
    """The order fills, no answer and no news come, ever; after healing queries show the truth."""
    client.call("private/subscribe",
                channels=["user.changes.any.any.raw", "user.orders.any.any.raw", "user.trades.any.any.raw"])
    driver.put("hold_acknowledgement", methods=["private/buy"])
    assert client.ask("private/buy", instrument_name=PERPETUAL, amount=100, type="market", label="held") is None
    assert client.ask("private/buy", instrument_name=PERPETUAL, amount=100, price=90_000, label="rests") is None
    assert client.ask("private/sell", instrument_name=PERPETUAL, amount=10, price=110_000) is not None
    driver.pass_ms(3_000)
    assert driver.off("hold_acknowledgement") == 2
    driver.pass_ms(1_000)
    assert not [n for n in client.news("user.orders") if n["label"]] and client.news("user.trades") == []
    states = [client.call("private/get_order_state_by_label", currency="BTC", label=each)[0]["order_state"]
              for each in ("held", "rests")]
    assert states == ["filled", "open"]
    assert [row["held"] for row in driver.rows("order")] == [True, True, False]
    assert [row["label"] for row in driver.rows("answer")] == [""]
    assert driver.rows("fill")[0]["news"] == "held"


def test_a_held_http_order_gets_no_response(driver, client):
    """Over REST the request stays unanswered, and the order exists."""
    driver.put("hold_acknowledgement")
    login = driver.get("public/auth", grant_type="client_credentials", client_id="drill", client_secret="s3cret")[1]["result"]
    status, _ = driver.get("private/buy", f"Bearer {login['access_token']}", instrument_name=PERPETUAL, amount=10, price=90_000)
    assert status == 0 and len(client.call("private/get_open_orders")) == 1


@pytest.mark.parametrize("transport", ["http", "ws", "both"])
def test_too_many_requests_throttles_without_ending(driver, client, transport):
    """429 over REST, 10028 with reason rate_limit on the WebSocket; the session lives and cancels pass."""
    order = client.buy(PERPETUAL, 10, price=90_000)["order"]["order_id"]
    driver.put("too_many_requests", transport=transport)
    status, body = driver.get("public/get_time")
    assert (status == 429) == (transport != "ws")
    if status == 429:
        assert body["error"]["code"] == 10028
    answer = client.ask("private/get_positions")
    assert ("error" in answer) == (transport != "http")
    if "error" in answer:
        assert answer["error"]["data"]["reason"] == "rate_limit"
    assert client.call("private/cancel", order_id=order)["order_state"] == "cancelled" and client.closed is None
    assert driver.off("too_many_requests") == (2 if transport == "both" else 1)


def test_session_end_answers_10028_and_closes(driver):
    """So many times in all, so far apart; public calls are left alone; cancel-on-disconnect fires."""
    driver.put("session_end", times=3, every_ms=200)
    first = driver.connect().login()
    answer = first.ask("private/get_positions")
    assert answer["error"]["code"] == 10028 and answer["error"]["data"]["reason"] == "session_terminated"
    assert first.closed == "session_terminated"
    second = driver.connect().login()
    second.call("private/enable_cancel_on_disconnect")
    order = second.buy(PERPETUAL, 10, price=90_000)["order"]["order_id"]
    driver.pass_ms(200)
    assert second.code("private/get_positions") == 10028 and second.closed
    driver.pass_ms(200)
    assert driver.connect().login().code("private/get_open_orders") == 10028
    driver.pass_ms(1_000)
    fine = driver.connect().login()
    assert fine.call("private/get_order_state", order_id=order)["cancel_reason"] == "cancel_on_disconnect"
    assert driver.off("session_end") == 3
    assert [row["why"] for row in driver.rows("session", event="ended")] == ["session_terminated"] * 3


def test_maintenance_refuses_all_but_the_open_methods(driver, client):
    """11051 with 503, status locked, platform_state tells; afterwards everything goes on."""
    client.call("public/subscribe", channels=["platform_state"])
    driver.put("maintenance")
    assert client.code("private/buy", instrument_name=PERPETUAL, amount=10, price=90_000) == 11051
    assert client.code("private/cancel_all") == 11051 and client.code("public/ticker", instrument_name=PERPETUAL) == 11051
    assert driver.get("private/get_positions")[0] == 503
    assert client.call("public/status")["locked"] == "true" and client.call("public/get_time")
    assert client.news("platform_state")[-1] == {"price_index": "eth_usdc", "locked": True}
    assert driver.off("maintenance") == 6  # the news of it, four refusals, one status
    assert client.news("platform_state")[-1]["locked"] is False
    assert client.call("public/status")["locked"] == "false"
    client.buy(PERPETUAL, 10, price=90_000)


def test_locked_takes_cancels_only(driver, client):
    """Orders and edits get 10019, cancels and reads work."""
    order = client.buy(PERPETUAL, 10, price=90_000)["order"]["order_id"]
    driver.put("locked")
    assert client.code("private/buy", instrument_name=PERPETUAL, amount=10, price=90_000) == 10019
    assert client.code("private/edit", order_id=order, amount=20) == 10019
    assert client.call("public/status")["locked"] == "true"
    assert client.call("public/ticker", instrument_name=PERPETUAL)["state"] == "locked"
    assert client.call("private/get_positions") == []
    assert client.call("private/cancel", order_id=order)["order_state"] == "cancelled"
    assert driver.off("locked") == 3  # two refusals, one status


@pytest.mark.parametrize("instrument", [PERPETUAL, "all"])
def test_frozen_stands_still_while_the_connection_lives(driver, client, instrument):
    """No market message comes, requests are answered, other instruments move unless all are frozen."""
    channels = [f"book.{PERPETUAL}.100ms", f"ticker.{PERPETUAL}.100ms", f"trades.{PERPETUAL}.100ms"]
    client.call("public/subscribe", channels=[*channels, "ticker.ETH-PERPETUAL.100ms", "deribit_price_index.btc_usd"])
    driver.pass_ms(1_000)
    driver.put("frozen", instrument=instrument)
    before = client.call("public/get_order_book", instrument_name=PERPETUAL)["change_id"]
    driver.pass_ms(200)
    client.messages.clear()
    driver.pass_ms(3_000)
    assert not client.news(f"book.{PERPETUAL}") + client.news(f"ticker.{PERPETUAL}") + client.news(f"trades.{PERPETUAL}")
    assert bool(client.news("ticker.ETH")) == (instrument != "all") == bool(client.news("deribit_price_index"))
    assert client.call("public/get_order_book", instrument_name=PERPETUAL)["change_id"] == before
    assert driver.off("frozen") >= 10
    driver.pass_ms(1_000)
    assert client.news(f"book.{PERPETUAL}") and _gaps(client.news("book.")) == 0


def _book(client, instrument):
    return client.call("public/get_order_book", instrument_name=instrument, depth=20)


def test_thin_wide_and_collapsed_books(driver, client):
    """Little depth, a broad spread, nothing at all; each ends with its switch."""
    option = _option(client)
    normal = _book(client, option)
    driver.put("thin_book", instrument="options", depth_usd=500)
    driver.pass_ms(200)
    thin = _book(client, option)
    usd = sum(amount * thin["mark_price"] * thin["index_price"] for _, amount in thin["asks"])
    assert 0 < usd < 1_000 and thin["best_ask_price"] > normal["best_ask_price"]
    assert sum(a for _, a in _book(client, PERPETUAL)["asks"]) > 300_000
    driver.put("thin_book", instrument="options", depth_usd=500, steps=2)
    driver.pass_ms(200)
    assert normal["best_ask_price"] < _book(client, option)["best_ask_price"] < thin["best_ask_price"]
    driver.off("thin_book")
    driver.put("thin_book", instrument=PERPETUAL, depth_usd=20_000)
    driver.pass_ms(200)
    assert sum(a for _, a in _book(client, PERPETUAL)["bids"]) <= 20_000
    driver.off("thin_book")
    driver.put("wide_book", instrument=PERPETUAL, spread_bps=120)
    driver.pass_ms(200)
    wide = _book(client, PERPETUAL)
    assert (wide["best_ask_price"] - wide["best_bid_price"]) / wide["mark_price"] * 10_000 == pytest.approx(120, abs=0.5)
    driver.put("collapsed_book", instrument="options")
    driver.pass_ms(200)
    gone = _book(client, option)
    assert gone["bids"] == gone["asks"] == [] and gone["best_ask_price"] == 0
    assert client.buy(option, 0.1, type="market")["order"]["order_state"] == "cancelled"
    assert driver.off("collapsed_book") > 0 and driver.off("wide_book") > 0
    driver.pass_ms(200)
    healed = _book(client, PERPETUAL)
    assert _book(client, option)["bids"] and healed["best_ask_price"] - healed["best_bid_price"] <= 1


def test_a_crossed_book_is_published_and_not_traded(driver, client):
    """Bids above asks on the wire; what can be traded stays sane, and the news keeps linking."""
    client.call("public/subscribe", channels=[f"book.{PERPETUAL}.100ms"])
    driver.put("crossed_book", instrument=PERPETUAL)
    driver.pass_ms(1_000)
    crossed = _book(client, PERPETUAL)
    assert crossed["bids"][0][0] > crossed["asks"][0][0]
    trade = client.buy(PERPETUAL, 10, type="market")["trades"][0]
    assert trade["price"] == crossed["asks"][0][0]
    assert driver.off("crossed_book") > 0
    driver.pass_ms(1_000)
    assert _book(client, PERPETUAL)["bids"][0][0] < _book(client, PERPETUAL)["asks"][0][0]
    assert _gaps(client.news("book.")) == 0


def test_time_offset_moves_the_exchanges_clock(driver, client):
    """get_time and every stamp move; the control port's clock does not."""
    driver.put("time_offset", ms=-90_000)
    assert client.call("public/get_time") == driver.wall_ms - 90_000
    assert client.buy(PERPETUAL, 10, price=90_000)["order"]["creation_timestamp"] == driver.wall_ms - 90_000
    assert driver.http("GET", "/clock", b"", "control")[1]["wall_ms"] == driver.wall_ms
    assert driver.off("time_offset") == 1
    assert client.call("public/get_time") == driver.wall_ms


def test_unknown_token_reaches_the_client(driver, client):
    """A state that no registry knows, in answers and news; or in the platform's state."""
    client.call("private/subscribe", channels=["user.orders.any.any.raw", "platform_state"])
    driver.put("unknown_token")
    assert client.buy(PERPETUAL, 10, price=90_000)["order"]["order_state"] == "quarantined"
    assert client.news("user.orders")[-1]["order_state"] == "quarantined"
    assert driver.off("unknown_token") == 2
    assert client.call("private/get_open_orders")[0]["order_state"] == "open"
    driver.put("unknown_token", field="platform_state", token="sideways")
    assert client.call("public/status")["locked"] == "sideways" and client.news("platform_state")[-1]["locked"] == "sideways"


def test_credits_run_out_as_the_knob_says(driver, client):
    """An empty pool is 10028 and the end of the session; the pool of cancels is another."""
    order = client.buy(PERPETUAL, 10, price=90_000)["order"]["order_id"]
    driver.put("credits", rate=1, burst=2)
    for _ in range(2):
        client.buy(PERPETUAL, 10, price=90_000)
    assert client.call("private/cancel", order_id=order)
    assert client.call("private/get_account_summary", currency="BTC")["limits"]["matching_engine"]["trading"]["total"] == {
        "burst": 2, "rate": 1}
    answer = client.ask("private/buy", instrument_name=PERPETUAL, amount=10, price=90_000)
    assert answer["error"]["code"] == 10028 and client.closed == "credits_exhausted"
    driver.pass_ms(1_000)
    driver.connect().login().buy(PERPETUAL, 10, price=90_000)
    assert driver.off("credits") == 1


def test_real_pools_empty_and_refill(driver):
    """A hundred reads at once are one too many; five seconds later they are back. Over HTTP that is 429."""
    client = driver.connect().login()
    answers = [client.ask("private/get_positions") for _ in range(101)]
    assert "error" in answers[-1] or any(a and "error" in a for a in answers if a)
    assert client.closed == "credits_exhausted"
    assert [driver.get("public/get_time")[0] for _ in range(101)][-1] == 429
    driver.pass_ms(5_000)
    assert driver.get("public/get_time")[0] == 200
    hungry = driver.connect()
    assert sum("result" in (hungry.ask("public/subscribe", channels=[]) or {}) for _ in range(12)) == 10


def test_acts_move_the_position_and_place_ghosts_in_silence(driver, client):
    """Nobody is told; queries show them; the books say why."""
    client.call("private/subscribe", channels=["user.changes.any.any.raw", "user.orders.any.any.raw", "user.portfolio.any"])
    client.messages.clear()
    assert driver.act("position_behind", instrument=PERPETUAL, amount=-500) == {"name": "position_behind", "size": -500}
    ghost = driver.act("ghost_order", instrument=PERPETUAL, direction="sell", amount=20, price=105_000)
    assert client.messages == []
    assert client.call("private/get_positions")[0]["size"] == -500
    assert client.call("private/get_open_orders")[0]["order_id"] == ghost["order_id"]
    assert driver.rows("position")[0]["size"] == -500 and len(driver.rows("act")) == 2
    books = driver.http("GET", "/books", b"", "control")[1]
    assert books["positions"] == {PERPETUAL: -500} and books["open_orders"][0]["order_id"] == ghost["order_id"]
    client.call("private/cancel_all")


def test_signal_burst_prints_large_trades_at_once(driver, client):
    """So many public trades of signal size, in frames that clients take, numbered without a hole."""
    client.call("public/subscribe", channels=[f"trades.{PERPETUAL}.100ms"])
    driver.act("signal_burst", count=900)
    driver.pass_ms(100)
    trades = [t for news in client.news("trades.") for t in news]
    assert len([t for t in trades if t["amount"] >= 250_000]) == 900
    assert [t["trade_seq"] for t in trades] == list(range(1, len(trades) + 1))
    assert all(len(orjson.dumps(m)) < 64_000 for m in client.messages)
