"""The risk snapshot: its mode, limits and anomalies by the contract's tables, and what it makes of what it does not know."""

from __future__ import annotations

import math

import pytest
from risk_kit import CALL, PERPETUAL, START, Room, a_view, approx, call, perpetual, turn

from system_under_test.trader.limits import LaunchLimits, Opening
from system_under_test.trader.report.kpis import Kpis

MODES = [
    ({}, "OK", 0.0),
    ({"mode": "ReduceOnly"}, "OK", 0.0),
    ({"mode": "Kill"}, "HALTED", 1.0),
    ({"age_ms": 90_000}, "OK", 0.0),                   # equality is within
    ({"age_ms": 90_001}, "HALTED", 1.0),
    ({"equity": 7.001}, "OK", 0.0),
    ({"equity": 7.0}, "DEFENSIVE", 1.0),               # 30 % below the peak, equality counts
    ({"equity": 7.0, "mode": "Kill"}, "HALTED", 1.0),
    ({"unpriced": (CALL,)}, "HALTED", 1.0),
    ({"index": None}, "HALTED", 1.0),
    ({"equity": None}, "HALTED", 1.0),
]


@pytest.mark.parametrize(("view", "mode", "score"), MODES)
def test_the_mode_is_the_first_that_holds(view, mode, score):
    """The source's table, from worst to best; Kill is HALTED whatever else is well."""
    room = Room(risk_defensive_daily_loss_frac=1.0)
    room.publish()
    told = room.publish(**view)
    assert (told["risk_mode"], told["risk_mode_score"]) == (mode, score)
    assert told["risk_inputs"]["kill"] is (view.get("mode") == "Kill")


def test_a_bad_day_is_defensive():
    """A tenth lost since the day began, though less than that since the peak counts for nothing."""
    room = Room()
    assert room.publish(equity=10.0)["risk_mode"] == "OK"
    assert room.publish(equity=9.001)["risk_mode"] == "OK"
    told = room.publish(equity=9.0)
    assert (told["risk_mode"], told["daily_loss_frac"]) == ("DEFENSIVE", approx(0.1))


def test_a_router_in_trouble_is_a_warning():
    """A symbol whose orders fare badly, or most of the orders taking the way round."""
    room = Room()
    room.publish()
    for trouble in ({"degraded": 1}, {"broken": 1}, {"mean_fallback": 0.51}):
        room.router.trouble = lambda ts, found=trouble: {  # type: ignore[method-assign]
            "degraded": 0, "broken": 0, "maker_first_disabled": 0, "mean_fallback": 0.5, **found}
        told = room.publish()
        assert (told["risk_mode"], told["risk_mode_score"]) == ("WARN", 0.5)


def test_nothing_is_told_before_anything_is_known():
    """No value in this life and none of an earlier one: no document, rather than one of zeros."""
    room = Room()
    assert room.risk.document(turn(), a_view(equity=None)) is None
    assert room.risk.document(turn(), a_view(index=None)) is None


def test_what_is_not_known_any_more_is_told_as_it_was():
    """The last value stands, without VaR and halted."""
    room = Room()
    room.publish()
    told = room.publish(equity=None)
    assert (told["nav"], told["risk_mode"]) == (1_000_000.0, "HALTED")
    assert "var" not in told and "cvar" not in told and told["risk_inputs"]["sources_ok"] is False


# ---- anomalies ----


@pytest.mark.parametrize(("before", "after", "jumps"), [
    (10.0, 10.2, False),       # 20,000 USD exactly: within
    (10.0, 10.2001, True),
    (10.0, 9.7999, True),
    (0.05, 0.15, False),       # from 5,000 to 15,000: two hundred per cent exactly
    (0.05, 0.1501, True),
    (0.0, 10.0, False),        # from nothing, nothing jumps
])
def test_a_jump_of_the_value(before, after, jumps):
    """By share or by dollars, strictly beyond, against the snapshot before, and once."""
    room = Room()
    room.publish(equity=before)
    told = room.publish(equity=after)
    assert ("nav_jump" in told["anomalies"]) is jumps
    if jumps:
        old, new = before * 100_000, after * 100_000
        assert told["anomalies"]["nav_jump"] == {"old": approx(old), "new": approx(new), "pct": approx(abs(new - old) / old)}
        assert told["anomaly_codes"] == ["nav_jump"]
    assert room.publish(equity=after)["anomalies"] == {}


def test_a_snapshot_that_never_landed_is_no_snapshot_before():
    """While the disk is full the jump stays news; so does the state that nobody was told."""
    room = Room()
    room.publish(equity=10.0)
    assert "nav_jump" in room.publish(equity=8.0, lands=False)["anomalies"]
    told = room.publish(equity=8.0)
    assert told["anomalies"]["nav_jump"]["old"] == approx(1_000_000.0)
    assert (told["dd_state"]["previous"], told["dd_state"]["state"]) == ("NORMAL", "DRAWDOWN")
    assert room.publish(equity=8.0)["dd_state"]["previous"] == "DRAWDOWN"


def test_equality_is_within_a_limit():
    """VaR and CVaR at the very limit are no breach; a hair beyond is, and the anomaly says so."""
    room = Room(risk_window_bars=30)
    room.bars(*([0.001, -0.001] * 12))
    told = room.publish(index=room.market.index)
    var, cvar = told["var"]["portfolio_var_nav_pct"], told["cvar"]["per_symbol"]["BTC"]["cvar_nav_pct"]
    assert var > 0 and cvar > 0
    for most, breach in ((1.0, False), (1 - 1e-9, True)):
        again = Room(risk_window_bars=30, max_portfolio_var_nav_pct=var * most, max_position_cvar_nav_pct=cvar * most)
        again.bars(*([0.001, -0.001] * 12))
        told = again.publish(index=again.market.index)
        assert told["var"]["within_limit"] is told["cvar"]["per_symbol"]["BTC"]["within_limit"] is not breach
        assert ("var_limit_breach" in told["anomalies"]) is ("cvar_limit_breach" in told["anomalies"]) is breach


def test_a_small_fall_breaks_the_tail_alone_and_a_rise_the_deviation_alone():
    """What drills provoke under the drill policy: -0.03 % is a bad tail, +1 % is volatile, and both pass with the window."""
    for share, codes in ((-0.0003, ["cvar_limit_breach"]), (0.01, ["var_limit_breach"]),
                         (-0.01, ["cvar_limit_breach", "var_limit_breach"])):
        room = Room()
        room.bars(*[0.0] * 23)
        room.bars(share)
        assert room.publish(0, index=room.market.index)["anomaly_codes"] == codes, share
        room.bars(*[0.0] * 24)
        assert room.publish(0, index=room.market.index)["anomaly_codes"] in ([], ["nav_jump"]), share


# ---- VaR and CVaR ----


def test_var_by_hand():
    """Ten coins and nothing else: z times the deviation of the index, of all that there is."""
    room = Room(risk_window_bars=30, risk_half_life_bars=10**6)
    room.bars(*([0.001, -0.001] * 12))
    var = room.publish(index=room.market.index)["var"]
    day = 0.001 * math.sqrt(86_400_000 / room.settings.risk_bar_ms)
    assert var["portfolio_var_nav_pct"] == approx(2.3263 * day, rel=1e-3)
    assert var["portfolio_volatility"] == approx(day * math.sqrt(252), rel=1e-3)
    assert var["portfolio_var_usd"] == approx(var["portfolio_var_nav_pct"] * room.market.index * 10)
    assert (var["n_assets"], var["confidence"], var["covariance"]["weights"]) == (1, 0.99, [1.0])


def test_var_follows_from_what_is_told_beside_it():
    """``z * sqrt(w' Cov w)`` over the assets, weights and covariance of the document."""
    room = Room(risk_window_bars=40)
    room.bars(*([0.001, -0.0007, 0.0002] * 8))
    told = room.publish(index=room.market.index, positions=(perpetual(-400_000.0), call(2.0, 5_000.0)))
    parts = told["var"]["covariance"]
    shares, matrix = parts["weights"], parts["matrix"]
    variance = sum(a * b * matrix[i][j] for i, a in enumerate(shares) for j, b in enumerate(shares))
    assert told["var"]["portfolio_var_nav_pct"] == approx(2.3263 * math.sqrt(variance))
    assert parts["assets"] == ["BTC", PERPETUAL, CALL]


def test_a_full_hedge_takes_the_risk_away():
    """Ten coins against a short perpetual of their whole worth: what is left moves with nothing."""
    room = Room(risk_window_bars=30)
    room.bars(*([0.001, -0.001] * 12))
    naked = room.publish(index=room.market.index)["var"]["portfolio_var_nav_pct"]
    nav = room.market.index * 10
    hedged = room.publish(index=room.market.index, positions=(perpetual(-nav),))
    assert hedged["var"]["portfolio_var_nav_pct"] == approx(0, abs=naked * 1e-5)
    assert hedged["cvar"]["portfolio_cvar_nav_pct"] == approx(0, abs=1e-5)
    assert hedged["cvar"]["per_symbol"]["BTC"]["cvar_nav_pct"] > 0.01
    assert hedged["correlation_groups"]["BTC"]["gross_nav_pct"] == approx(1.0)


def test_an_option_s_premium_is_part_of_the_account():
    """Coins that were paid for an option are not coins any more: the weights add up to the value."""
    told = Room().publish(positions=(call(2.0, 5_000.0),))
    assert told["var"]["covariance"]["weights"] == [approx(0.99), approx(0.01)]


def test_a_silent_market_makes_no_bars():
    """Nothing was heard: no bar; and what is then heard is a bar of the whole silence, scaled back."""
    room = Room()
    room.bars(0.0)
    bars = room.risk.bars.count
    for _ in range(5):
        room.ts += room.settings.risk_bar_ms
        room.risk.tick(turn(room.ts), ())
    assert room.risk.bars.count == bars
    room.bars(0.01)
    assert 0 < room.risk.bars.columns["BTC"][-1] < 0.005


# ---- what follows from it ----


def test_the_circuit_breaker_refuses_openings():
    """While the drawdown is at its limit nothing may be opened: what the snapshot says, the gate does."""
    room = Room()
    limits = LaunchLimits(room.settings)
    limits.broken = lambda: room.drawdown.broken
    opening = Opening(amount_btc=0.01, amount_usd=1_000, position_btc_after=0.01, net_delta_btc_after=0.01,
                      gross_notional_usd_after=1_000)
    for equity, active in ((10.0, False), (9.001, False), (9.0, True), (9.5, False)):
        told = room.publish(equity=equity)
        refusal = limits.refuses(START, opening)
        assert told["circuit_breaker"] == {"max_portfolio_dd_nav_pct": 0.1, "active": active}
        assert (refusal is not None and refusal.why == "max_portfolio_dd_nav_pct") is active


@pytest.mark.parametrize(("positions", "registry", "mismatch"), [(0, 0, False), (1, 0, True), (1, 1, False), (0, 1, False)])
def test_the_registry_of_levels_is_counted(positions, registry, mismatch):
    """Positions and no level at all is a mismatch."""
    told = Room().publish(positions=(perpetual(1_000.0),) * positions, registry=registry)
    assert told["tp_sl_registry"] == {"num_positions": positions, "num_registry_entries": registry,
                                      "registry_mismatch": mismatch}


def test_key_figures_are_those_of_the_documents_beside_them():
    """None of them is computed twice; before there is a snapshot there are none."""
    room = Room()
    kpis = Kpis(room.risk, room.router)
    assert kpis.document(turn(), a_view()) is None
    told = room.publish(equity=9.5, positions=(perpetual(1_000.0),))
    figures = kpis.document(turn(room.ts), a_view(room.ts, positions=(perpetual(1_000.0),)))
    assert figures is not None
    assert figures["portfolio"] == {"nav": told["nav"], "dd_pct": told["dd_frac"],
                                    "var_nav_pct": told["var"]["portfolio_var_nav_pct"],
                                    "cvar_nav_pct": told["cvar"]["portfolio_cvar_nav_pct"]}
    assert figures["dd_state"] == told["dd_state"]["state"] and figures["drawdown"] == told["drawdown"]
    assert list(figures["per_symbol"]) == [PERPETUAL]


@pytest.mark.parametrize("index", [math.inf, 1e308, 0.0])
def test_a_value_that_is_no_number_is_not_known(index):
    """An index that no market has: the last value stands, halted, and the peak is not spoilt for ever."""
    room = Room()
    room.publish()
    told = room.publish(index=index)
    assert all(each is not None for each in (told["nav"], told["dd_frac"], told["drawdown"]["peak"]))
    assert told["risk_mode"] == "HALTED" or index == 0.0
    assert room.publish()["drawdown"]["peak"] == approx(1_000_000.0)
