"""Storms: many things break at once, in any order, for a while; then everything heals, and the books must agree."""

from __future__ import annotations

import hashlib
import random

import orjson
import pytest
from bench_trader import OPTION, PERPETUAL, Bench

STEPS = 30
STEP_MS = 400


def acknowledge(bench: Bench) -> None:
    """The operator signs for a session that the exchange has ended."""
    code, reason, name = "SESSION_TERMINATION_RECONCILE_REQUIRED", f"storm at {bench.mono}", "operator"
    digest = hashlib.sha256(f"{code}\n{reason}\n{name}".encode()).hexdigest()
    note = {"code": code, "reason": reason, "name": name, "digest": digest}
    bench.files["operator/acknowledge.json"] = orjson.dumps(note)


def heal(bench: Bench) -> None:
    exchange = bench.exchange
    exchange.rejects, exchange.fill_fraction = lambda params: None, lambda params: 1.0
    exchange.silent, exchange.error = lambda method, params: False, lambda method, params: None
    exchange.feed, exchange.fill_news, exchange.http_status = True, True, 200
    bench.cut.clear()
    bench.wall_shift = 0
    bench.heal_disk()


def blow(bench: Bench, dice: random.Random) -> None:
    """One thing breaks, or heals."""
    exchange = bench.exchange
    what = dice.randrange(14)
    if what == 0:
        bench.drop(dice.choice(["orders", "market_data"]))
    elif what == 1:
        bench.cut.add(dice.choice(["orders", "market_data", "rest"]))
        for link in list(bench.cut):
            bench.drop(link)
    elif what == 2:
        bench.cut.clear()
    elif what == 3:
        name = dice.choice([OPTION, PERPETUAL])
        exchange.rejects = lambda params: 10009 if params["instrument_name"] == name else None
    elif what == 4:
        share = dice.choice([0.0, 0.5, 1.0])
        exchange.fill_fraction = lambda params: share
    elif what == 5:
        exchange.silent = lambda method, params: method in ("private/buy", "private/sell")
    elif what == 6:
        exchange.fill_news = not exchange.fill_news
    elif what == 7:
        exchange.feed = not exchange.feed
    elif what == 8:
        exchange.skip_change = True
    elif what == 9:
        bench.disk_stalled = True
    elif what == 10:
        code = dice.choice([11051, 10028, 11094])
        exchange.http_status = 429 if code == 10028 else 200
        exchange.error = lambda method, params: code if bench.exchange.seen[-1][0] == "rest" or code == 11094 else None
    elif what == 11:
        bench.kill(lose_unsynced=dice.random() < 0.5)
        bench.run(dice.randrange(1, 1_500))
        bench.disk_stalled = False
        bench.life()
    elif what == 12:
        bench.wall_shift = dice.choice([0, 700, -700])
    else:
        heal(bench)


@pytest.mark.parametrize("seed", range(24))
def test_after_the_storm_the_books_agree(seed: int) -> None:
    """Nothing was sent twice, nothing opened while latched, positions are those of the exchange, Active again."""
    dice = random.Random(seed)  # ambient-ok: the seed is the test's own
    bench = Bench(build="reference-1").active()
    for _ in range(STEPS):
        blow(bench, dice)
        latched = bench.status()["open_permission_blocked_latch"]
        placed = len(bench.exchange.placed)
        bench.run(STEP_MS)
        if latched and bench.status()["open_permission_blocked_latch"] and bench.noted("latch")[-1][2]["event"] == "set":
            # A number of a leg below 2 is a group's own leg or a quote; rescues and hedges are numbered on from there.
            assert not [order for order in bench.exchange.placed[placed:]
                        if not order.get("reduce_only") and int(order["label"].split(":")[3]) < 2]
    heal(bench)
    acknowledge(bench)
    bench.until(lambda: bench.status()["trading_mode"] == "Active", 90_000)
    bench.run(8_000)
    labels = [order["label"] for order in bench.exchange.placed]
    assert len(labels) == len(set(labels))
    bench.until(lambda: agree(bench), 5_000)
    assert bench.trader.metrics.value("duplicate_dispatch_count") == 0
    assert bench.trader.metrics.value("illegal_order_attempts") == 0


def agree(bench: Bench) -> bool:
    ours = {name: float(size) for name, size in bench.trader.desk.exposure.positions.items()}
    return ours == pytest.approx({name: size for name, size in bench.exchange.positions.items() if size})
