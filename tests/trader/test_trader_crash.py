"""Killed before every value that goes out: nothing is sent twice, nothing opens before the exchange was asked."""

from __future__ import annotations

import pytest
from bench_trader import OPTION, PERPETUAL, WALL, Bench

from system_under_test.machine import Append, Frame, Value

WINDOW_MS = 1_300
"""One wish, its two legs and their news lie in it, and with the hold of half a second its closing too."""


def started() -> Bench:
    """A trader that has just become Active, with a short hold so that closing falls into the window."""
    return Bench(hold_ms=500).active()


def values_in_window() -> int:
    bench = started()
    before = bench.out_count
    bench.run(WINDOW_MS)
    return bench.out_count - before


def crashed_at(number: int, lose_unsynced: bool) -> Bench:
    """The same script, killed before the so-manieth outgoing value of the window; then started again."""
    bench = started()
    last = bench.out_count + number
    bench.lose_unsynced = lose_unsynced
    bench.crash_before = lambda value: bench.out_count >= last
    bench.run(WINDOW_MS)
    if not bench.crashed:
        bench.kill(lose_unsynced)
    bench.run(200)
    bench.life()
    return bench


def check(bench: Bench, number: int) -> None:
    """The laws of a restart, whatever the moment of the crash."""
    placed, asked = len(bench.exchange.placed), len(bench.exchange.queries)
    while bench.status()["trading_mode"] != "Active":
        opened = [order for order in bench.exchange.placed[placed:] if not order.get("reduce_only")]
        hedging = list(bench.noted("rescue")) + list(bench.noted("hedge"))
        assert len(opened) <= len(hedging), f"opened while latched, crash {number}"
        bench.run(50)
        assert bench.mono < 60_000, f"never Active again, crash {number}: {bench.status()['mode_reasons']}"
    assert {"open_orders", "positions", "user_trades"} <= set(bench.exchange.queries[asked:])
    bench.run(1_000)
    labels = [order["label"] for order in bench.exchange.placed]
    assert len(labels) == len(set(labels)), f"sent twice, crash {number}"
    ours = {name: float(size) for name, size in bench.trader.desk.exposure.positions.items()}
    theirs = {name: size for name, size in bench.exchange.positions.items() if size}
    assert ours == pytest.approx(theirs), f"positions differ, crash {number}"
    assert not bench.rows("adopted"), f"a position had to be adopted, crash {number}"


@pytest.mark.parametrize("lose_unsynced", [False, True], ids=["page cache kept", "unsynced lost"])
def test_killed_before_every_outgoing_value(lose_unsynced: bool) -> None:
    """Every crash point of the window: no duplicate, no opening before reconciling, positions right, Active again."""
    count = values_in_window()
    assert count > 25
    for number in range(count):
        check(crashed_at(number, lose_unsynced), number)


def of_method(method: str):
    def match(value: Value) -> bool:
        return isinstance(value, Frame) and f'"{method}"'.encode() in value.data
    return match


def crash_before(match) -> Bench:
    bench = started()
    bench.crash_before = match
    bench.run(5_000)
    assert bench.crashed
    return bench


def test_recorded_but_unsent_is_not_sent_when_it_has_expired() -> None:
    """Killed before the send: the exchange is asked, the intent has expired, nothing of it is ever sent (AT-935)."""
    bench = crash_before(of_method("private/buy"))
    label = next(row["label"] for row in bench.rows("intent") if row["instrument"] == OPTION)
    bench.run(3_000)
    bench.life()
    bench.active()
    bench.run(3_000)
    assert label not in [order["label"] for order in bench.exchange.placed]
    assert "by_label" in bench.exchange.queries
    assert bench.noted("refused", code="IntentExpired")


def test_recorded_but_unsent_closing_is_sent_once() -> None:
    """A closing intent does not expire: after the exchange was asked it goes out, once over two restarts."""
    bench = started()
    bench.crash_before = lambda value: (isinstance(value, Append) and b'"kind":"sent"' in value.data
                                        and bool(bench.rows("intent")) and bench.rows("intent")[-1]["class"] == "CLOSE")
    bench.run(5_000)
    assert bench.crashed
    label = [row["label"] for row in bench.rows("intent") if row["class"] == "CLOSE"][-1]
    bench.life()
    bench.run(150)
    bench.kill()
    bench.run(100)
    bench.life()
    bench.active()
    bench.run(2_000)
    assert [order["label"] for order in bench.exchange.placed].count(label) == 1


def test_a_send_that_was_noted_counts_as_sent() -> None:
    """Killed between the row and the frame: nobody can know, so it reads as sent; it is never sent, a new one is."""
    bench = started()
    bench.crash_before = lambda value: isinstance(value, Frame) and b"reduce_only" in value.data
    bench.run(5_000)
    assert bench.crashed
    label = [row["label"] for row in bench.rows("intent") if row["class"] == "CLOSE"][-1]
    bench.life()
    bench.active()
    bench.run(6_000)
    assert label not in [order["label"] for order in bench.exchange.placed]
    assert bench.noted("lost_order", label=label)


def test_killed_after_the_send_the_fill_is_found() -> None:
    """The order is on the books and its answer was never heard: found by the trades, never resent (AT-233, AT-234)."""
    bench = started()
    bench.exchange.silent = lambda method, params: method in ("private/buy", "private/sell")
    bench.run(1_500)
    bench.kill()
    sent = [order["label"] for order in bench.exchange.placed]
    assert sent
    bench.exchange.silent = lambda method, params: False
    bench.life()
    bench.active()
    bench.run(6_000)
    labels = [order["label"] for order in bench.exchange.placed]
    assert len(labels) == len(set(labels))
    assert not any(size for name, size in bench.exchange.positions.items()
                   if abs(size) > sum(abs(float(group.held.get(name, 0))) for group in bench.trader.floor.groups.values()))


def test_half_a_group_is_flattened_after_the_restart() -> None:
    """Killed between the legs: the option is held, the future was never sent; it is contained, not completed blindly."""
    bench = crash_before(of_method("private/sell"))
    assert bench.exchange.positions == {OPTION: 0.1}
    bench.life()
    bench.active()
    assert not bench.exchange.positions.get(PERPETUAL) or bench.exchange.positions[OPTION]
    assert {row["to"] for row in bench.rows("group_state")} >= {"MixedFailed"}


def test_a_torn_ledger_is_no_excuse() -> None:
    """The last rows are gone: the label is found by the ghost hunt or the trades, positions agree in the end."""
    bench = started()
    bench.run(1_500)
    bench.kill()
    del bench.log[-6:]
    bench.life()
    bench.run(12_000)
    bench.active()
    ours = {name: float(size) for name, size in bench.trader.desk.exposure.positions.items()}
    assert ours == pytest.approx({name: size for name, size in bench.exchange.positions.items() if size})


def test_a_manual_latch_survives_the_restart() -> None:
    """A session that the exchange ended stays latched over a restart until an operator has acknowledged it."""
    bench = started()
    bench.trader.watch.limited(_turn(bench), "rest", 10028)
    bench.disk_stalled = False
    for append in _turns.pop().out:
        if isinstance(append, Append):
            bench.log.append(append.data)
    bench.kill()
    bench.life()
    bench.run(8_000)
    status = bench.status()
    assert "SESSION_TERMINATION_RECONCILE_REQUIRED" in status["open_permission_reason_codes"]


_turns: list = []


def _turn(bench: Bench):
    from system_under_test.machine import Now
    from system_under_test.trader.turn import Turn
    turn = Turn(Now(bench.mono, WALL + bench.mono), bench.trader._anchor)
    _turns.append(turn)
    return turn


def test_the_same_seed_gives_the_same_life() -> None:
    """Two traders, one script: the same values in the same order."""
    def lived() -> tuple[list[bytes], list]:
        bench = Bench().active()
        bench.run(8_000)
        return bench.log, bench.notes

    assert lived() == lived()
