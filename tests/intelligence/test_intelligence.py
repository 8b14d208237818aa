"""The intelligence node: when it writes and when it does not, what it remembers, and that the same is always the same."""

from __future__ import annotations

import hashlib
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from numpy._core import _multiarray_umath as umath

from system_under_test.intelligence import make
from system_under_test.machine import (
    SWAP_PLAN,
    Done,
    Exit,
    Failed,
    Look,
    Note,
    Now,
    Replace,
    Request,
    Response,
    Seen,
    Start,
    Stop,
    Timer,
    Unanswered,
    Value,
)

ROUTER, POSITIONS = "state/router_health.json", "state/positions_state.json"
SCORES, MOMENTUM, FACTORS = "state/symbol_scores_v6.json", "state/rv_momentum.json", "state/factor_diagnostics.json"
OURS = {SCORES, MOMENTUM, FACTORS}
ENVIRONMENT = {"NODE_NAME": "intelligence", "POLICY": '{"intelligence_interval_ms": 2000}'}
ROOT = Path(__file__).resolve().parents[2]


def by_trader(document: dict[str, Any], node: str = "trader") -> bytes:
    return orjson.dumps({**document, "writer": {"node": node, "boot": 1, "seq": 1}})


GLOBAL = by_trader({"router_health": {
    "global": {"quality_score": 0.7}, "per_symbol": {"BTC-PERPETUAL": {"quality_score": 0.6}}}})
HELD = by_trader({"positions": [
    {"symbol": "BTC-PERPETUAL", "side": "SHORT", "qty": -10, "mark_price": 1e5, "unrealized_pnl": 12.5, "realized_pnl": 1.0},
    {"symbol": "BTC-27NOV26-100000-C", "side": "LONG", "qty": 0.1, "mark_price": 2_500.0, "unrealized_pnl": -4.0}]})


def listing(currency: str, run: int) -> bytes:
    """What the exchange tells of a currency: three symbols that walk."""
    dice = random.Random(f"{currency} {run}")
    rows = [{"instrument_name": f"{currency}-{each}", "mark_price": 100 * dice.uniform(0.999, 1.001),
             "estimated_delivery_price": 100.0} for each in ("PERPETUAL", "27NOV26", "4DEC26")]
    return orjson.dumps({"jsonrpc": "2.0", "result": rows})


class Bench:
    """An intelligence node with a disk and an exchange that answers at once, run by run."""

    def __init__(self, **files: bytes) -> None:
        self.files: dict[str, bytes] = {ROUTER: GLOBAL, POSITIONS: HELD, **files}
        self.wall_ms = 1_000_000
        self.silent = self.full = False
        self.notes: list[str] = []
        self.boot(1)

    def boot(self, boot: int) -> None:
        self.machine, self.now = make(ENVIRONMENT), 0
        self.written: list[tuple[str, dict[str, Any]]] = []
        self.questions: list[Request] = []
        self.give(Start(boot, 1))

    def give(self, value: Value) -> tuple[Value, ...]:
        out = self.machine.handle(Now(self.now, self.wall_ms), value)
        for each in out:
            self._carry(each)
        return out

    def _carry(self, value: Value) -> None:
        match value:
            case Look(source=name):
                self.give(Seen(name, self.files.get(name)))
            case Request(conn=conn, id=id) if self.silent:
                self.give(Unanswered(conn, id, True, "no answer"))
            case Request(conn=conn, id=id, target=target):
                self.questions.append(value)
                currency = target.partition("currency=")[2][:3]
                self.give(Response(conn, id, 200, (), listing(currency, self.now // 2_000)))
            case Replace() if self.full:
                self.give(Failed(value, "no space left"))
            case Replace(file=name, data=data, plan=plan):
                assert plan == SWAP_PLAN
                self.files[name] = data
                self.written.append((name, orjson.loads(data)))
                self.give(Done(name))
            case Note(kind=kind):
                self.notes.append(kind)
            case Timer(at_ms=int(at)):
                self.due = at

    def run(self, times: int = 1) -> dict[str, dict[str, Any]]:
        """Some runs, and what they wrote last, by file."""
        self.written.clear()
        for _ in range(times):
            self.wall_ms += self.due - self.now
            self.now = self.due
            self.give(Timer("beat", self.due))
        return dict(self.written)


def numbers(value: Any) -> list[float]:
    """Every number in a document."""
    if isinstance(value, dict):
        return [each for part in value.values() for each in numbers(part)]
    if isinstance(value, list):
        return [each for part in value for each in numbers(part)]
    return [value] if isinstance(value, int | float) else []


def test_a_return_needs_two_prices() -> None:
    """The first look at the market writes nothing; the second writes all three, signed."""
    bench = Bench()
    assert bench.written == []
    told = bench.run()
    assert told.keys() == OURS
    assert {each["writer"]["seq"] for each in told.values()} == {1}
    assert {each["updated_ts"] for each in told.values()} == {bench.wall_ms / 1_000}
    assert bench.run(3)[SCORES]["writer"] == {"node": "intelligence", "boot": 1, "seq": 4}


def test_what_it_asks_the_exchange() -> None:
    """One public question a currency and run, by its name."""
    bench = Bench()
    bench.run(2)
    assert [each.target for each in bench.questions[:2]] == [
        f"/api/v2/public/get_book_summary_by_currency?currency={currency}&kind=future" for currency in ("BTC", "ETH")]
    assert len(bench.questions) == 6
    assert len({each.id for each in bench.questions}) == 6
    assert {each.headers for each in bench.questions} == {(("user-agent", "intelligence"),)}


def test_positions_and_routes_are_in_it() -> None:
    """Symbols that are held are scored beside those that are listed; what positions brought is shared out whole."""
    told = Bench().run(2)
    option = "BTC-27NOV26-100000-C"
    assert {f"{option}:LONG", f"{option}:SHORT", "ETH-4DEC26:LONG"} <= told[FACTORS]["raw_factors"].keys()
    assert sum(told[FACTORS]["pnl_attribution"]["by_factor"].values()) == pytest.approx(9.5)
    scores = {row["symbol"]: row for row in told[SCORES]["symbols"]}
    assert (scores["BTC-PERPETUAL"]["router_quality_score"], scores[option]["router_quality_score"]) == (0.6, 0.7)
    assert [row["hybrid_score"] for row in told[SCORES]["symbols"]] == sorted(
        (row["hybrid_score"] for row in told[SCORES]["symbols"]), reverse=True)


@pytest.mark.parametrize("nothing", [b"", b"{", by_trader({}), by_trader({"router_health": 1, "positions": 1}),
                                     GLOBAL.replace(b"trader", b"rogue_"), HELD.replace(b"trader", b"rogue_")])
def test_files_that_say_nothing_are_left_out(nothing: bytes) -> None:
    """Without a router there are no scores; without positions no profit; momentum and factors go on."""
    told = Bench(**{ROUTER: nothing, POSITIONS: nothing}).run(2)
    assert told.keys() == {FACTORS, MOMENTUM}
    assert told[FACTORS]["pnl_attribution"]["by_factor"] == {}
    assert "router_quality" not in told[FACTORS]["raw_factors"]["BTC-PERPETUAL:LONG"]["factors"]


def test_without_prices_nothing_is_written() -> None:
    """A score that nobody computed anew keeps its old time; after a gap returns begin anew."""
    bench = Bench()
    bench.run(2)
    bench.silent = True
    assert bench.run(3) == {}
    bench.silent = False
    assert bench.run() == {}
    assert bench.run().keys() == OURS
    assert bench.notes == ["scored", "scored", "intelligence_trouble", "intelligence_recovered", "scored"]


def test_answers_that_come_late_are_nobodys() -> None:
    """A run that has not heard everything by the next beat is given up, and what still comes is not taken for the new one's."""
    machine = make(ENVIRONMENT)
    out = machine.handle(Now(0, 0), Start(1, 1))
    late = next(each for each in out if isinstance(each, Request))
    machine.handle(Now(2_000, 0), Timer("beat", 2_000))
    assert machine.handle(Now(2_001, 0), Response(late.conn, late.id, 200, (), listing("BTC", 0))) == ()
    assert machine.handle(Now(2_002, 0), Unanswered(late.conn, late.id, True, "closed")) == ()


def test_time_never_goes_back() -> None:
    """Neither when the clock is set back nor over a restart."""
    bench = Bench()
    before = bench.run(2)[FACTORS]["updated_ts"]
    bench.wall_ms -= 500_000
    assert bench.run()[FACTORS]["updated_ts"] == before
    bench.boot(2)
    told = bench.run(2)
    assert {each["updated_ts"] for each in told.values()} == {before}
    assert told[FACTORS]["writer"]["boot"] == 2


def test_weights_are_smoothed_over_a_restart() -> None:
    """The weights before are those that stand in the file, and no others."""
    bench = Bench()
    first = bench.run(2)[FACTORS]
    assert bench.run()[FACTORS]["factor_weights"]["previous"] == first["weights"]
    standing = orjson.loads(bench.files[FACTORS])["weights"]
    bench.full = True
    assert bench.run(3) == {}
    bench.full = False
    assert bench.run()[FACTORS]["factor_weights"]["previous"] == standing
    standing = orjson.loads(bench.files[FACTORS])["weights"]
    bench.boot(2)
    assert bench.run()[FACTORS]["factor_weights"]["previous"] == standing


@pytest.mark.parametrize("spoiled", [b"", b"{", b'{"updated_ts": 9e99}', by_trader({"updated_ts": 9e99}),
                                     by_trader({"updated_ts": "9"}, "intelligence")])
def test_a_corrupted_own_file_is_noted_and_replaced(spoiled: bytes) -> None:
    """It is not believed: neither its time nor its weights."""
    bench = Bench(**{FACTORS: spoiled})
    assert bench.notes == ["own_file_corrupted"]
    told = bench.run()[FACTORS]
    assert told["updated_ts"] == bench.wall_ms / 1_000
    assert told["factor_weights"]["previous"] is None


def test_every_number_is_one() -> None:
    """No NaN, no infinity, whatever the market does: standing still, a single price, prices far apart."""
    for price in (1e-9, 1.0, 1e12):
        bench = Bench()
        for at in range(6):
            marks = {f"X{each}": price * (1 if at % 2 else 1 + 10.0 ** each) for each in range(-12, 12)}
            rows = [{"instrument_name": name, "mark_price": mark, "estimated_delivery_price": price}
                    for name, mark in marks.items()]
            out = bench.machine.handle(Now(at * 2_000, 0), Timer("beat", at * 2_000))
            for each in out:
                if isinstance(each, Request):
                    bench.give(Response(each.conn, each.id, 200, (), orjson.dumps({"result": rows})))
                elif not isinstance(each, Timer):
                    bench._carry(each)
        assert bench.written
        for name, document in bench.written:
            assert all(math.isfinite(each) for each in numbers(document)), name
            assert b"null" not in orjson.dumps({**document, "spreads": 0, "factor_weights": 0})


def fingerprint() -> str:
    """A digest of everything that a hundred seconds write."""
    bench = Bench()
    told = []
    for _ in range(50):
        bench.run()
        told += [bench.files[name] for name in sorted(OURS) if name in bench.files]
    return hashlib.sha256(b"".join(told)).hexdigest()


@pytest.mark.parametrize("seed", ["1", "4242"])
def test_the_same_is_always_the_same(seed: str) -> None:
    """Byte for byte in another process with another hash seed, and with the processor's faster instructions switched off."""
    command = "from test_intelligence import fingerprint; print(fingerprint())"
    faster = [each for each in umath.__cpu_dispatch__ if umath.__cpu_features__.get(each)]
    slow = " ".join(faster) if seed == "4242" else ""
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, timeout=60, check=True, env={
        **os.environ, "PYTHONHASHSEED": seed, "NPY_DISABLE_CPU_FEATURES": slow,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"})
    assert done.stdout.strip() == fingerprint()


def test_it_starts_without_the_library() -> None:
    """Whoever waits for it to be ready does not wait for numpy."""
    command = ("import sys; from system_under_test.intelligence import make, prepare; print('numpy' in sys.modules); prepare();"
               "print('numpy' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "True"]


def test_it_answers_and_stops() -> None:
    """Readiness and clocks for the world, and an orderly end."""
    bench = Bench()
    (response,) = bench.machine.handle(Now(7, 8), Request("answers#1", 1, "GET", "/clock"))
    assert isinstance(response, Response)
    assert orjson.loads(response.body) == {"mono_ms": 7, "wall_ms": 8}
    assert bench.machine.handle(Now(7, 8), Stop("SIGTERM"))[-1] == Exit(0)
