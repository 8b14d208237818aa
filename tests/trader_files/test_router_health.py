"""The router's health: slippage, latency and fill ratios of real orders, by hand and against a plain recount."""

from __future__ import annotations

import random
from statistics import fmean

import pytest
from risk_kit import CALL, PERPETUAL, START, Prices, a_view, approx, order, settings, trade, turn

from system_under_test.trader.report.router_health import Quality, RouterHealth


def router(**overrides: object) -> RouterHealth:
    return RouterHealth(settings(**overrides), Prices())  # type: ignore[arg-type]


def told(router: RouterHealth, ts: int = START) -> dict:
    return router.document(turn(ts), a_view(ts))["router_health"]


def symbol(router: RouterHealth, name: str = PERPETUAL, ts: int = START) -> dict:
    return told(router, ts)["per_symbol"][name]


def test_slippage_by_hand():
    """A buy at 100,001 and a sell at 99,998, the middle at 100,000: 0.1 and 0.2 bps, each by what it traded."""
    health = router()
    for number, (side, price, usd) in enumerate((("buy", 100_001.0, 1_000.0), ("sell", 99_998.0, 3_000.0))):
        health.sent(turn(), order(number, side=side, qty=usd), fallback=False)
        health.filled(turn(), f"i{number}", trade(PERPETUAL, side, usd, price))
    found = symbol(health)
    assert found["avg_slippage_bps"] == approx((0.1 * 1_000 + 0.2 * 3_000) / 4_000)
    assert found["slippage_drift_bps"] == approx(found["avg_slippage_bps"] - 0.05)  # half the spread was to be expected
    assert (found["total_notional"], found["child_orders"]) == (4_000.0, {"count": 2, "fill_ratio": 1.0})


def test_a_better_price_is_negative_slippage():
    """A fill inside the spread has a sign."""
    health = router()
    health.sent(turn(), order(1, side="sell"), fallback=False)
    health.filled(turn(), "i1", trade(PERPETUAL, "sell", 1_000.0, 100_010.0))
    assert symbol(health)["avg_slippage_bps"] == approx(-1.0)


def test_an_option_is_measured_in_its_own_price_and_weighs_in_dollars():
    """0.0505 against a middle of 0.05 is 100 bps, as its wide book promised; 0.1 coins of it are 500 dollars."""
    health = router()
    health.sent(turn(), order(1, CALL, qty=0.1), fallback=False)
    health.filled(turn(), "i1", trade(CALL, "buy", 0.1, 0.0505))
    found = symbol(health, CALL)
    assert (found["avg_slippage_bps"], found["slippage_drift_bps"]) == (approx(100.0), approx(0.0, abs=1e-9))
    assert (found["router_bucket"], found["total_notional"]) == ("C_LOW", approx(500.0))


def test_what_was_told_belongs_to_who_asked():
    """Whatever becomes of a document, the next one says what the window says."""
    health = router_with_one_order()
    first, untouched = (health.document(turn(), a_view(START)) for _ in range(2))
    for part in (first["summary"]["quality_counts"], symbol_of(first)["child_orders"], symbol_of(first),
                 first["router_health"]["global"]):
        part.clear()
    assert health.document(turn(), a_view(START)) == untouched
    assert symbol_of(untouched)["child_orders"] and untouched["summary"]["quality_counts"]


def symbol_of(document: dict) -> dict:
    return document["router_health"]["per_symbol"][PERPETUAL]


def test_latency_is_from_dispatch_to_the_first_word():
    """Only the first word counts; an order without one is not measured."""
    health = router()
    for number, answer_ms in ((1, 20), (2, 100), (3, None)):
        health.sent(turn(START), order(number), fallback=False)
        if answer_ms is not None:
            health.answered(turn(START + answer_ms), f"i{number}")
            health.answered(turn(START + 5_000), f"i{number}")
    assert symbol(health)["avg_latency_ms"] == approx(60.0)
    assert symbol(router_with_one_order())["avg_latency_ms"] is None


def router_with_one_order() -> RouterHealth:
    health = router()
    health.sent(turn(), order(1), fallback=False)
    return health


def test_a_part_is_filled_and_a_quote_is_no_child():
    """A quarter of what was asked for; what rests far from the market asks for nothing now."""
    health = router()
    health.sent(turn(), order(1, qty=4_000.0), fallback=False)
    health.filled(turn(), "i1", trade(PERPETUAL, "buy", 1_000.0, 100_000.5))
    health.sent(turn(), order(2, qty=50_000.0, immediate=False), fallback=False)
    found = symbol(health)
    assert found["child_orders"] == {"count": 1, "fill_ratio": 0.25} and found["event_count"] == 3


def test_the_window_trims_with_time_alone():
    """Nothing happens but time, and the order is forgotten to the millisecond; so are its symbol and what is left of it."""
    health = router(router_window_s=15)
    health.sent(turn(), order(1), fallback=False)
    health.answered(turn(START + 10), "i1")
    health.filled(turn(START + 20), "i1", trade(PERPETUAL, "buy", 1_000.0, 100_050.0))
    assert symbol(health, ts=START + 15_000)["event_count"] == 3
    after = told(health, START + 15_001)
    assert after["per_symbol"] == {} and health.symbols == {} and health._known == {}
    assert after["global"] == told(router(), START + 15_001)["global"]
    assert health.trouble(START + 15_001) == router().trouble(START)


def test_a_late_fill_of_a_forgotten_order_is_no_news():
    """The order has left the window: neither word nor fill of it counts, and nothing fails."""
    health = router(router_window_s=15)
    health.sent(turn(), order(1), fallback=False)
    told(health, START + 20_000)
    health.answered(turn(START + 20_000), "i1")
    health.filled(turn(START + 20_000), "i1", trade(PERPETUAL, "buy", 1_000.0, 100_050.0))
    assert told(health, START + 20_000)["per_symbol"] == {}


def test_where_there_was_no_book_nothing_is_claimed():
    """Without a middle no slippage can be told; the order, its answer and its fill count."""
    health = router()
    health._market.touches[PERPETUAL] = None  # type: ignore[attr-defined]
    health.sent(turn(), order(1), fallback=False)
    health.filled(turn(), "i1", trade(PERPETUAL, "buy", 1_000.0, 100_050.0))
    found = symbol(health)
    assert found["avg_slippage_bps"] is None and found["slippage_drift_bps"] is None
    assert found["child_orders"]["fill_ratio"] == 1.0


@pytest.mark.parametrize(("drift", "latency", "bucket", "score"), [
    (None, None, "A_HIGH", 0.7), (2.0, 150.0, "A_HIGH", 0.7), (2.01, 150.0, "A_HIGH", 0.65), (6.0, 150.0, "A_HIGH", 0.65),
    (6.01, 150.0, "A_HIGH", 0.58), (0.0, 150.1, "A_HIGH", 0.67), (0.0, 400.0, "A_HIGH", 0.67), (0.0, 400.1, "A_HIGH", 0.62),
    (0.0, 0.0, "B_MEDIUM", 0.65), (0.0, 0.0, "C_LOW", 0.55), (7.0, 500.0, "C_LOW", 0.35)])
def test_the_score_is_the_source_s(drift, latency, bucket, score):
    """0.8, less what bucket, drift and latency cost, less a tenth for cutting no order into slices."""
    assert Quality(None, drift, latency, bucket).score == approx(score)


def test_the_score_is_clamped(monkeypatch):
    """However bad the parts are, it is between 0.2 and 1."""
    from system_under_test.trader.report import router_health as room
    monkeypatch.setattr(room, "BASE", -3.0)
    assert Quality(None, None, None, "A_HIGH").score == 0.2
    monkeypatch.setattr(room, "BASE", 3.0)
    assert Quality(None, None, None, "A_HIGH").score == 1.0


def test_trouble_is_a_degraded_symbol_or_the_way_round():
    """Slow answers on a wide book are degraded (0.47); two of three orders by the other link are told."""
    health = router()
    for number in range(3):
        health.sent(turn(), order(number, CALL, qty=0.1), fallback=number > 0)
        health.answered(turn(START + 900), f"i{number}")
    assert health.trouble(START) == {"degraded": 1, "broken": 0, "maker_first_disabled": 0, "mean_fallback": approx(2 / 3)}
    summary = health.document(turn(), a_view())["summary"]
    assert summary["quality_counts"] == {"good": 0, "ok": 0, "degraded": 1, "broken": 0}


@pytest.mark.parametrize("seed", range(8))
def test_sums_kept_by_adding_and_taking_away_are_right(seed):
    """Random orders over several windows: the same as counting everything that is in the window anew."""
    luck, health, log, ts = random.Random(seed), router(router_window_s=15), [], START
    for number in range(300):
        ts += luck.randrange(0, 400)
        name, side = luck.choice((PERPETUAL, CALL)), luck.choice(("buy", "sell"))
        middle, qty = (100_000.0, 10.0 * luck.randrange(1, 50)) if name == PERPETUAL else (0.05, luck.randrange(1, 9) / 10)
        health.sent(turn(ts), order(number, name, side, qty), fallback=False)
        entry = {"ts": ts, "name": name, "latency": None, "fills": [], "qty": qty}
        if luck.random() < 0.8:
            entry["latency"] = luck.randrange(1, 900)
            health.answered(turn(ts + entry["latency"]), f"i{number}")
        for _ in range(luck.randrange(0, 3)):
            part, price = qty / 4, middle * (1 + luck.uniform(-1e-3, 1e-3))
            bps = (price / middle - 1) * 10_000 * (1 if side == "buy" else -1)
            entry["fills"].append((part, part if name == PERPETUAL else part * 5_000.0, bps))
            health.filled(turn(ts + 5), f"i{number}", trade(name, side, part, price))
        log.append(entry)
    found = told(health, ts)["per_symbol"]
    for name in (PERPETUAL, CALL):
        inside = [each for each in log if each["name"] == name and each["ts"] >= ts - 15_000]
        fills = [fill for each in inside for fill in each["fills"]]
        assert found[name]["child_orders"]["count"] == len(inside)
        assert found[name]["child_orders"]["fill_ratio"] == approx(sum(f[0] for f in fills) / sum(e["qty"] for e in inside))
        assert found[name]["avg_latency_ms"] == approx(fmean(e["latency"] for e in inside if e["latency"] is not None))
        assert found[name]["avg_slippage_bps"] == approx(
            sum(usd * bps for _, usd, bps in fills) / sum(usd for _, usd, _ in fills), rel=1e-5, abs=1e-6)


def test_all_symbols_together_weigh_by_what_they_traded():
    """A metric of all is the mean by dollars, 1 for whoever traded nothing; the bucket is that of the heaviest."""
    health = router()
    health.sent(turn(), order(1, PERPETUAL, qty=900.0), fallback=False)
    health.answered(turn(START + 100), "i1")
    health.filled(turn(), "i1", trade(PERPETUAL, "buy", 900.0, 100_001.0))
    health.sent(turn(), order(2, CALL, qty=0.1), fallback=False)
    health.answered(turn(START + 300), "i2")
    overall = told(health)["global"]
    assert overall["avg_latency_ms"] == approx((900 * 100 + 1 * 300) / 901)
    assert overall["avg_slippage_bps"] == approx(0.1) and overall["router_bucket"] == "A_HIGH"
    document = health.document(turn(), a_view())
    assert document["router_health_score"] == document["router_health"]["global"]["quality_score"] == health.score


def test_memory_is_bounded(monkeypatch):
    """More orders than can be kept push the oldest out."""
    from system_under_test.trader.report import router_health as room
    monkeypatch.setattr(room, "CHILDREN_MAX", 10)
    health = router()
    for number in range(50):
        health.sent(turn(), order(number), fallback=False)
    assert len(health._known) == 10 and symbol(health)["child_orders"]["count"] == 10


def test_a_fill_at_no_price_says_nothing():
    """A price beyond all numbers is measured by nobody."""
    health = router()
    health.sent(turn(), order(1), fallback=False)
    health.filled(turn(), "i1", trade(PERPETUAL, "buy", 1_000.0, "1e400"))  # type: ignore[arg-type]
    assert symbol(health)["avg_slippage_bps"] is None
