"""Memory stays flat over a life of trading, and what was let go of is still known for what it is."""

from __future__ import annotations

from typing import Any

import pytest
from bench_trader import PERPETUAL, Bench

from system_under_test.machine import LogImage
from system_under_test.trader import ledger, orders, registry
from system_under_test.trader.ledger import fold

LOOKBACK_S = 2
SWEEP = 16


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for what may be forgotten after a few orders instead of some hundreds."""
    for module in (registry, orders, ledger):
        monkeypatch.setattr(module, "SWEEP_MIN", SWEEP)


def traded(for_ms: int) -> Bench:
    bench = Bench(reconcile_trade_lookback_sec=LOOKBACK_S, wish_interval_ms=500).active()
    bench.run(for_ms)
    return bench


def tell_again(bench: Bench, trade: dict[str, Any]) -> None:
    bench.push("orders", "user.changes.any.BTC.raw",
               {"instrument_name": trade["instrument_name"], "orders": [], "trades": [trade], "positions": []})


def forgotten(bench: Bench) -> list[dict[str, Any]]:
    """Trades of the exchange that the trader's registry does not know by their id any more."""
    return [trade for trade in bench.exchange.trades if trade["trade_id"] not in bench.trader.desk.registry]


def test_orders_and_trades_are_let_go_when_they_cannot_be_news() -> None:
    """Four times the trading leaves no more in memory, and what is left is what the lookback covers."""
    bench = traded(15_000)
    early = len(bench.trader.desk.registry), len(bench.trader.desk.orders)
    bench.run(45_000)
    late = len(bench.trader.desk.registry), len(bench.trader.desk.orders)
    assert len(bench.exchange.trades) > 6 * max(late) / 2 and len(bench.exchange.placed) > 200
    assert all(now <= max(2 * before, 4 * SWEEP) for before, now in zip(early, late, strict=True)), (early, late)
    book = bench.trader.desk.orders
    assert len(book._by_label) == len(book._by_intent) == len(book._hashes) >= len(book._by_order_id)
    assert not bench.noted("mismatch") and not bench.noted("anomaly")


def test_a_late_duplicate_of_a_forgotten_trade_is_still_one() -> None:
    """Told again long after its id was let go of: nothing is counted."""
    bench = traded(20_000)
    first = forgotten(bench)[0]
    positions, fills = dict(bench.trader.desk.exposure.positions), len(bench.rows("fill"))
    tell_again(bench, first)
    assert bench.trader.desk.exposure.positions == positions and len(bench.rows("fill")) == fills
    assert bench.noted("duplicate_noop", what="fill", trade_id=first["trade_id"])


def test_without_the_number_it_would_be_counted_twice() -> None:
    """The test above can fail: a registry that only forgets counts the same duplicate again."""
    bench = traded(20_000)
    first = forgotten(bench)[0]
    bench.trader.desk.registry._settled.clear()
    fills = len(bench.noted("fill", trade_id=first["trade_id"]))
    tell_again(bench, first)
    assert len(bench.noted("fill", trade_id=first["trade_id"])) == fills + 1 == 2


def test_a_trade_with_a_higher_number_is_news_whenever_it_comes() -> None:
    """Forgetting moves no border beyond what was counted: the next fill of the instrument counts."""
    bench = traded(20_000)
    known = bench.trader.desk.registry
    assert known._settled
    highest = max(trade["trade_seq"] for trade in bench.exchange.trades if trade["instrument_name"] == PERPETUAL)
    assert not known.knows("T-new", PERPETUAL, highest + 1) and known.knows("T-old", PERPETUAL, 1)
    assert not known.knows("T-none", PERPETUAL, None)


def test_a_restart_forgets_the_same() -> None:
    """The fold of a long life holds no more than the life did, agrees on positions, and knows a late duplicate."""
    bench = traded(60_000)
    history = fold(LogImage(tuple(bench.log)).records, LOOKBACK_S * 1_000)
    whole = fold(LogImage(tuple(bench.log)).records)
    assert history.unreadable == 0
    assert len(whole.intents) > 200 and len(history.intents) < len(whole.intents) / 2
    assert len(history.trades) < len(whole.trades) / 2 and len(history.groups) < len(whole.groups) / 2
    assert history.positions == whole.positions
    assert {name for name, known in whole.intents.items() if known.state is None} <= set(history.intents)
    bench.kill()
    bench.life()
    bench.active()
    first = bench.exchange.trades[0]
    counted = len([row for row in bench.rows("fill") if row["trade_id"] == first["trade_id"]])
    tell_again(bench, first)
    assert counted == 1 == len([row for row in bench.rows("fill") if row["trade_id"] == first["trade_id"]])
    assert not bench.noted("mismatch")


def test_nothing_is_forgotten_before_positions_agree() -> None:
    """While no reconciliation succeeds, every trade stays known by its id."""
    bench = Bench(reconcile_trade_lookback_sec=LOOKBACK_S, wish_interval_ms=500).active()
    bench.exchange.error = lambda method, params: 10001 if method == "private/get_positions" else None
    known, trades = bench.trader.desk.registry, len(bench.exchange.trades)
    bench.run(20_000)
    assert len(bench.exchange.trades) > trades + 4 * SWEEP
    assert not [trade for trade in bench.exchange.trades[trades:-4] if trade["trade_id"] not in known]
    assert bench.noted("reconciled", ok=False)


def test_a_group_that_is_fought_over_keeps_only_what_is_under_way() -> None:
    """However many attempts closing takes, a group remembers the orders that are not final."""
    bench = traded(2_000)
    bench.exchange.fill_fraction = lambda params: 0.0 if params.get("reduce_only") else 1.0
    bench.run(20_000)
    held = [group for group in bench.trader.floor.groups.values() if group.close_attempts > 6]
    assert held and all(len(group.intent_ids) <= 2 for group in held), [len(each.intent_ids) for each in held]
