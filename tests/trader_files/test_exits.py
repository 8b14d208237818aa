"""Exit levels: every position has them, the ledger knows them, a restart finds them, and reaching one closes for real."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest
from bench_trader import OPTION, PERPETUAL, WALL, Bench

from system_under_test.trader.holdings import Holdings
from system_under_test.trader.ledger import fold

KEYS = {f"{OPTION}:LONG", f"{PERPETUAL}:SHORT"}


def holding(**overrides: Any) -> Bench:
    """A trader that holds groups and does not mean to close them for an hour."""
    bench = Bench(hold_ms=3_600_000, **overrides).active()
    bench.until(lambda: len(bench.trader.desk.exposure.positions) == 2 and len(bench.trader.exits.recorded) == 2)
    bench.run(1_100)
    return bench


def pipeline(bench: Bench) -> dict[str, Any]:
    return bench.state("diagnostics")["runtime_diagnostics"]["exit_pipeline"]


def move(bench: Bench, share: float) -> None:
    """The index and the perpetual move by a share; the option keeps its price in coins."""
    exchange = bench.exchange
    exchange.index *= 1 + share
    bid, ask, amount = exchange.quotes[PERPETUAL]
    exchange.quotes[PERPETUAL] = (round(bid * (1 + share)), round(ask * (1 + share)) + 1, amount)


def test_every_position_has_levels_that_the_ledger_knows() -> None:
    """Registry, ledger and positions name the same keys; coverage is one, and nothing disagrees."""
    bench = holding()
    ledger = bench.state("positions_ledger")
    assert {each["position_key"] for each in ledger["entries"]} == set(ledger["tp_sl_levels"]) == KEYS
    short = ledger["tp_sl_levels"][f"{PERPETUAL}:SHORT"]
    (entry,) = [each["entry_price"] for each in bench.state("positions_state")["positions"] if each["side"] == "SHORT"]
    assert short == {"tp": pytest.approx(entry * 0.95), "sl": pytest.approx(entry * 1.05)}
    told = pipeline(bench)
    assert (told["open_positions_count"], told["tp_sl_registered_count"], told["tp_sl_coverage_pct"]) == (2, 2, 1.0)
    assert not told["ledger_registry_mismatch"] and not any(told["mismatch_breakdown"].values())
    assert told["last_exit_scan_ts"] is not None and told["last_exit_trigger_ts"] is None


@pytest.mark.parametrize(("share", "key", "level"), [
    (0.06, f"{PERPETUAL}:SHORT", "sl"), (-0.06, f"{PERPETUAL}:SHORT", "tp"),
])
def test_a_level_that_is_reached_closes_for_real(share: float, key: str, level: str) -> None:
    """The market jumps beyond a level: every group that holds the instrument is closed, reducing only, option and hedge."""
    bench = holding()
    groups = list(bench.trader.floor.groups)
    assert groups and not bench.sent(reduce_only=True)
    move(bench, share)
    bench.until(lambda: bool(bench.noted("exit_triggered", key=key, level=level)), 3_000)
    bench.until(lambda: not set(groups) & set(bench.trader.floor.groups), 5_000)
    closed = {order["instrument_name"] for order in bench.sent(reduce_only=True)}
    assert closed == {OPTION, PERPETUAL}
    bench.run(1_100)
    assert pipeline(bench)["last_exit_trigger_ts"] is not None
    ours = {name: float(size) for name, size in bench.trader.desk.exposure.positions.items()}
    assert ours == pytest.approx({name: size for name, size in bench.exchange.positions.items() if size})


def test_a_price_short_of_its_level_closes_nothing() -> None:
    """Four per cent against the position, of five: it is under water, has its levels, and is kept."""
    bench = holding()
    move(bench, 0.04)
    bench.run(2_000)
    assert not bench.noted("exit_triggered") and not bench.sent(reduce_only=True)
    assert pipeline(bench)["underwater_without_tp_sl_count"] == 0


def test_no_level_is_compared_with_an_old_price() -> None:
    """While nothing is heard of the market the scan stands still, and says so."""
    bench = holding()
    bench.run(1_000)
    bench.exchange.feed, bench.exchange.silent = False, lambda method, params: method == "public/ticker"
    bench.trader.market.tickers.clear()
    scanned = bench.trader.exits.scanned_ts
    bench.exchange.index *= 1.2
    bench.run(3_000)
    assert bench.trader.exits.scanned_ts == scanned and not bench.noted("exit_triggered")


def test_a_restart_knows_the_levels() -> None:
    """Before the exchange has said a word the second life has the levels of the first, from the ledger alone."""
    bench = holding()
    before = bench.trader.exits.registry
    bench.kill()
    bench.exchange.silent = lambda method, params: True
    bench.life()
    assert bench.trader.exits.registry == bench.trader.exits.recorded == before
    bench.run(100)
    assert set(bench.state("positions_ledger")["tp_sl_levels"]) == KEYS


def test_nothing_is_closed_before_the_exchange_was_asked() -> None:
    """A level that was passed while the trader was dead waits for the reconciliation, and is then acted on."""
    bench = holding()
    bench.kill()
    move(bench, 0.06)
    asked = len(bench.exchange.queries)
    bench.life()
    bench.until(lambda: bool(bench.noted("exit_triggered")), 20_000)
    assert {"open_orders", "positions", "user_trades"} <= set(bench.exchange.queries[asked:])
    bench.until(lambda: not any(bench.exchange.positions.values()) or bool(bench.sent(reduce_only=True)), 5_000)


def test_a_stalled_ledger_leaves_a_position_without_its_entry() -> None:
    """The record of the levels is not durable: the registry has them, the ledger does not, and the files say so; healed,
    they agree again."""
    bench = Bench(hold_ms=3_600_000).active()
    bench.until(lambda: len(bench.trader.exits.recorded) == 2)
    bench.disk_stalled = True
    bench.exchange.positions[PERPETUAL] = bench.exchange.positions[PERPETUAL] + 50_000.0  # through zero, behind its back
    bench.until(lambda: bench.trader.desk.exposure.of(PERPETUAL) > 0, 20_000)
    bench.run(1_100)
    told = pipeline(bench)
    assert told["ledger_registry_mismatch"] is True
    assert told["mismatch_breakdown"]["missing_ledger_positions"] == 1
    assert told["mismatch_breakdown"]["ghost_ledger_entries"] == 1
    assert f"{PERPETUAL}:LONG" in bench.state("positions_ledger")["tp_sl_levels"], "it is guarded all the same"
    bench.heal_disk()
    bench.run(1_500)
    assert not pipeline(bench)["ledger_registry_mismatch"]


def test_what_was_adopted_has_the_exchange_s_price() -> None:
    """A position that another hand opened: the exchange's average price is its entry; without one, the mark, and a note."""
    bench = holding()
    honest = bench.exchange.on_private_get_positions

    def positions(params: Any) -> Any:
        told, code = honest(params)
        return [{**each, "average_price": 99_000.0} for each in told], code

    bench.exchange.on_private_get_positions = positions
    bench.exchange.positions[PERPETUAL] += 40_000.0
    bench.until(lambda: bool(bench.noted("adopted")), 20_000)
    assert bench.trader.desk.holdings.by_name[PERPETUAL].entry(inverse=True) == pytest.approx(99_000.0)
    (row,) = bench.rows("adopted")
    assert row["entry"] == 99_000.0


def test_a_position_without_a_price_is_reckoned_from_the_mark() -> None:
    """The exchange tells a size and no price: the mark of that moment is the entry, which is noted."""
    bench = holding()
    bench.exchange.positions[PERPETUAL] += 40_000.0
    bench.until(lambda: bool(bench.noted("adopted")), 20_000)
    bench.run(300)
    assert bench.noted("entry_assumed", instrument=PERPETUAL)
    assert bench.trader.desk.holdings.by_name[PERPETUAL].entry(inverse=True) == pytest.approx(bench.exchange.index)


def test_the_ledger_tells_what_the_trader_knew() -> None:
    """Folded again, the log gives the sizes, entry prices, earnings and levels that were in memory."""
    bench = Bench(hold_ms=700).active()
    for _ in range(8):
        bench.run(997)
        bench.run(20)  # what was appended last is durable by now
        history = fold(bench.log)
        live = bench.trader.desk.holdings.by_name
        assert {name: (each.size, pytest.approx(each.cost), pytest.approx(each.coins), pytest.approx(each.earned))
                for name, each in live.items()} == {
            name: (each.size, each.cost, each.coins, each.earned) for name, each in history.holdings.by_name.items()}
        assert history.exits == bench.trader.exits.recorded == bench.trader.exits.registry
        assert {name: each.size for name, each in live.items()} == bench.trader.desk.exposure.positions


@pytest.mark.parametrize("inverse", [False, True])
def test_averages_against_lots_that_are_counted_one_by_one(inverse: bool) -> None:
    """Random fills, some through zero, against a book of single lots closed at the average; prices and earnings agree."""
    dice = random.Random(20261121)
    for _ in range(200):
        holdings, size, average, earned = Holdings(), 0, 0.0, 0.0
        for _ in range(dice.randrange(1, 12)):
            signed, price = dice.choice([-3, -2, -1, 1, 2, 3]), dice.uniform(50.0, 150.0)
            holdings.fill("X", Decimal(signed), price, WALL)
            step = 1 if signed > 0 else -1
            for _ in range(abs(signed)):
                if size * step >= 0:
                    held = abs(size)
                    if inverse:
                        average = (held + 1) / ((held / average if held else 0.0) + 1 / price)
                    else:
                        average = (held * average + price) / (held + 1)
                else:
                    earned += -step * ((price - average) / average if inverse else price - average)
                size += step
                if not size:
                    average = earned = 0.0
            known = holdings.by_name.get("X")
            assert (known is None) == (size == 0)
            if known is not None:
                assert int(known.size) == size
                assert known.entry(inverse=inverse) == pytest.approx(average)
                assert known.realized(inverse=inverse) == pytest.approx(earned, abs=1e-9)
