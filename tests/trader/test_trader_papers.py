"""Identity, the grid, the ledger's papers, the door and the gates: each seen green and seen red."""

from __future__ import annotations

from decimal import Decimal

import orjson
import pytest
from bench_trader import INSTRUMENTS, OPTION, PERPETUAL, Bench
from hypothesis import given
from hypothesis import strategies as some

from system_under_test.machine import LogImage
from system_under_test.trader import quantize
from system_under_test.trader.dispatch import DispatchError
from system_under_test.trader.exposure import Exposure, reduces
from system_under_test.trader.intents import (
    CLOSE,
    EMERGENCY_CLOSE,
    HEDGE,
    OPEN,
    Intent,
    LabelTooLong,
    classify,
    intent_hash,
    make_intent,
    make_label,
    parse_label,
)
from system_under_test.trader.ledger import Ledger, LedgerError, Recorded, Waived, fold
from system_under_test.trader.orders import Order
from system_under_test.trader.policy import PermitError, Refusal
from system_under_test.trader.registry import TradeRegistry, parse_trade
from system_under_test.trader.strategy import Leg

PERP, CALL = (quantize.parse_instrument(each) for each in INSTRUMENTS)


def intent(intent_class: str = OPEN, side: str = "buy", qty: str = "0.1", instrument: str = OPTION,
           leg_idx: int = 0, expires: int | None = None) -> Intent:
    return make_intent(
        strategy_id="reference", group_id="0123456789abcdef0123456789abcdef", leg_idx=leg_idx, intent_class=intent_class,
        instrument=instrument, side=side, qty=Decimal(qty), price=Decimal("0.03"), steps=1, ticks=60,
        reduce_only=intent_class in (CLOSE, EMERGENCY_CLOSE), expires_ts=expires)


# ---- identity ----


def test_the_hash_is_of_the_content_alone() -> None:
    """The same content gives the same hash, any field another one; there is no clock in it (AT-343)."""
    base = (OPTION, "buy", 1, 60, "g", 0)
    assert intent_hash(*base) == intent_hash(*base) == f"{int(intent_hash(*base), 16):016x}"
    for number, other in enumerate((PERPETUAL, "sell", 2, 61, "h", 1)):
        changed = list(base)
        changed[number] = other
        assert intent_hash(*changed) != intent_hash(*base)


def test_a_label_is_read_back_and_never_cut() -> None:
    """s4:{sid8}:{gid12}:{li}:{ih16} fits and is parsed; one that would not fit is refused (AT-216, AT-921)."""
    label = make_label("reference", "01234567-89ab-cdef-0123-456789abcdef", 1, "f" * 16)
    assert len(label) <= 64 and label.startswith("s4:")
    parsed = parse_label(label)
    assert parsed is not None and (parsed.gid12, parsed.leg_idx, parsed.ih16) == ("0123456789ab", 1, "f" * 16)
    with pytest.raises(LabelTooLong):
        make_label("reference", "0123456789ab", 10**30, "f" * 16)
    for foreign in ("", "s4:a:b:c", "s4:a:b:x:d", "x4:a:b:0:d", None, 4):
        assert parse_label(foreign) is None


def test_what_cannot_be_classified_is_open() -> None:
    """A close without reduce_only, or a word nobody knows, counts as OPEN (AT-110, AT-201)."""
    assert classify(CLOSE, True) == CLOSE and classify(EMERGENCY_CLOSE, True) == EMERGENCY_CLOSE
    for requested, flag in ((CLOSE, None), (CLOSE, False), (CLOSE, "true"), ("close", True), ("", True)):
        assert classify(requested, flag) == OPEN


def test_a_row_gives_the_intent_back() -> None:
    """What the ledger says about an intent is all of it."""
    assert Intent.of_row(orjson.loads(orjson.dumps(intent(expires=5).row()))) == intent(expires=5)


# ---- the grid ----


@pytest.mark.parametrize(("side", "price", "expected"), [
    ("buy", "0.03049", "0.0300"), ("sell", "0.03001", "0.0305"), ("buy", "0.00449", "0.0044"), ("sell", "0.0041", "0.0041"),
])
def test_rounding_never_pays_more(side: str, price: str, expected: str) -> None:
    """A buy rounds down and a sell up, in the tick that holds at the price (AT-219)."""
    assert quantize.quantize(CALL, side, Decimal("0.1"), Decimal(price)).price == Decimal(expected)


def test_a_lost_float_digit_costs_no_step() -> None:
    """0.1 * 3 is three steps, not two."""
    assert quantize.quantize(CALL, "buy", Decimal(repr(0.1 * 3)), Decimal("0.03")).qty == Decimal("0.3")
    assert quantize.quantize(CALL, "buy", Decimal("0.29999999999999998"), Decimal("0.03")).qty == Decimal("0.3")


def test_too_small_and_unknown_are_refused() -> None:
    """Less than the minimum is TooSmall; metadata that is no finite positive number is missing (AT-908, AT-926)."""
    with pytest.raises(quantize.TooSmall):
        quantize.quantize(CALL, "buy", Decimal("0.09"), Decimal("0.03"))
    for name, bad in (("tick_size", 0), ("tick_size", None), ("min_trade_amount", float("inf")), ("tick_size", "x"),
                      ("contract_size", float("nan")), ("min_trade_amount", -1.0), ("tick_size", True)):
        with pytest.raises(quantize.MetadataMissing):
            quantize.parse_instrument({**INSTRUMENTS[1], name: bad})
    with pytest.raises(quantize.MetadataMissing):
        quantize.quantize(CALL, "buy", Decimal("0.1"), Decimal("NaN"))


@given(qty=some.floats(min_value=0.1, max_value=1e4), price=some.floats(min_value=0.0006, max_value=2.0),
       side=some.sampled_from(["buy", "sell"]))
def test_the_grid_is_always_lawful(qty: float, price: float, side: str) -> None:
    """Whatever is asked, the result lies on the grid, is no more than asked, and never worse than the price."""
    grid = quantize.quantize(CALL, side, Decimal(repr(qty)), Decimal(repr(price)))
    assert grid.qty % CALL.amount_step == 0 and grid.qty <= Decimal(repr(qty)) + Decimal("1e-6")
    assert grid.price > 0 and grid.price % Decimal("0.0001") == 0
    if side == "sell":
        assert grid.price >= Decimal(repr(price)) - Decimal("1e-6")


# ---- the ledger ----


def test_the_queue_is_bounded_and_counts_refusals() -> None:
    """At capacity there is no room, an append without asking raises, and a refusal is counted (AT-906)."""
    ledger = Ledger(2, 500)
    for _ in range(2):
        ledger.append({"kind": "x"}, 0, 0)
    assert not ledger.room() and ledger.depth == 2
    with pytest.raises(LedgerError):
        ledger.append({"kind": "x"}, 0, 0)
    ledger.refuse(7)
    assert ledger.enqueue_failures == 1 and ledger.refused_ts == 7
    ledger.on_durable(1)
    assert ledger.room() and ledger.depth == 1


def test_facts_wait_for_room_and_keep_their_order() -> None:
    """A fact is never refused: it waits, goes before later records, and leaves when there is room."""
    ledger = Ledger(1, 500)
    assert ledger.fact({"kind": "a"}, 0, 0) is not None
    assert ledger.fact({"kind": "b"}, 1, 1) is None and ledger.fact({"kind": "c"}, 2, 2) is None
    assert not ledger.room()
    ledger.on_durable(1)
    assert [orjson.loads(append.data)["kind"] for append in ledger.drain(3)] == ["b"]
    ledger.on_durable(2)
    assert [orjson.loads(append.data)["kind"] for append in ledger.drain(3)] == ["c"]


def test_recorded_is_minted_for_durable_records_only() -> None:
    """No paper before the disk has said so, none for a record that it refused, and nobody else can mint one."""
    ledger = Ledger(8, 500)
    append = ledger.append(intent().row(), 0, 0)
    assert ledger.recorded(intent(), append.seq) is None
    ledger.on_failed(append.seq, 1)
    assert ledger.failed(append.seq) and ledger.recorded(intent(), append.seq) is None
    ledger.on_durable(append.seq)
    assert ledger.recorded(intent(), append.seq) is not None
    with pytest.raises(LedgerError):
        Recorded(1, "x", object())
    with pytest.raises(LedgerError):
        Waived("why", "x", object())


def test_only_reducing_is_waived_and_only_when_the_ledger_fails() -> None:
    """A working ledger waives nothing; a stalled or full one waives what reduces, and never what opens."""
    ledger = Ledger(2, 500)
    ledger.append({"kind": "x"}, 0, 1_000)
    assert ledger.waive(intent(CLOSE, "sell"), 1_100) is None
    assert ledger.waive(intent(CLOSE, "sell"), 1_500) is not None
    assert ledger.waive(intent(OPEN), 9_000) is None
    ledger.on_durable(1)
    assert ledger.waive(intent(CLOSE, "sell"), 9_000) is None
    assert ledger.waived == 1


def test_a_damaged_record_does_not_stop_the_fold() -> None:
    """What cannot be understood is counted and passed over; what is before and after it holds."""
    records = [orjson.dumps({"at": 0, "ts": 5, "kind": "boot", "boot": 1, "build_id": "b"}), b"not json", b"[]",
               orjson.dumps({"at": 0, "ts": 6, "kind": "sent", "intent_id": "unheard of"}),
               orjson.dumps({"at": 0, "ts": 7, **intent().row()})]
    history = fold(records)
    assert history.unreadable == 3 and history.born_ts == 5 and len(history.intents) == 1


def test_the_fold_counts_a_fill_once() -> None:
    """The same trade twice in the log is one fill."""
    fill = {"at": 0, "ts": 8, "kind": "fill", "trade_id": "T1", "intent_id": intent().intent_id, "instrument": OPTION,
            "side": "buy", "qty": "0.1", "price": "0.03"}
    history = fold([orjson.dumps({"at": 0, "ts": 7, **intent().row()}), orjson.dumps(fill), orjson.dumps(fill)])
    assert history.positions == {OPTION: Decimal("0.1")}
    assert history.intents[intent().intent_id].filled == Decimal("0.1")


def test_the_registry_counts_once() -> None:
    """A trade is first once; what lacks a field is no trade."""
    raw = {"trade_id": "T1", "direction": "buy", "instrument_name": OPTION, "amount": 0.1, "price": 0.03, "timestamp": 1}
    trade = parse_trade(raw)
    assert trade is not None
    registry = TradeRegistry()
    assert registry.first(trade, "i") and not registry.first(trade, None) and registry.duplicates == 1
    for missing in raw:
        assert parse_trade({key: value for key, value in raw.items() if key != missing}) is None
    assert parse_trade({**raw, "direction": "zero"}) is None


# ---- resulting exposure ----

UNITS = {OPTION: 0.5, PERPETUAL: 1 / 100_000}.get


def order(what: Intent, sent: int | None = 1) -> Order:
    return Order(what, sent_ts=sent, state="Sent")


@pytest.mark.parametrize(("held", "what", "expected"), [
    ({}, intent(CLOSE, "sell"), False),                                            # from flat nothing shrinks
    ({OPTION: "0.1"}, intent(CLOSE, "sell"), True),
    ({OPTION: "0.1"}, intent(CLOSE, "buy"), False),                                # the wrong way
    ({OPTION: "0.1"}, intent(CLOSE, "sell", "0.2"), False),                        # would pass zero
    ({OPTION: "-0.1"}, intent(EMERGENCY_CLOSE, "buy"), True),
    ({OPTION: "0.1"}, intent(OPEN, "sell"), False),                                # OPEN never counts as reducing
    ({OPTION: "0.1"}, intent(HEDGE, "sell", "5000", PERPETUAL), True),             # delta 0.05 to 0
    ({OPTION: "0.1"}, intent(HEDGE, "sell", "20000", PERPETUAL), False),           # delta 0.05 to -0.15
    ({OPTION: "0.1"}, intent(HEDGE, "buy", "5000", PERPETUAL), False),
    ({}, intent(HEDGE, "sell", "5000", PERPETUAL), False),                         # a hedge of nothing
])
def test_reducing_is_judged_by_what_would_be_held(held: dict[str, str], what: Intent, expected: bool) -> None:
    """Quantity, side, and from flat; a flag alone proves nothing."""
    exposure = Exposure({name: Decimal(size) for name, size in held.items()})
    assert reduces(what, exposure, [], UNITS, 0.0001) is expected


def test_what_is_under_way_counts() -> None:
    """Two closes of the whole position do not both reduce; nor do two hedges of the same delta."""
    exposure = Exposure({OPTION: Decimal("0.1")})
    assert not reduces(intent(CLOSE, "sell"), exposure, [order(intent(CLOSE, "sell", leg_idx=2))], UNITS, 0.0001)
    hedge = intent(HEDGE, "sell", "5000", PERPETUAL)
    assert not reduces(hedge, exposure, [order(intent(HEDGE, "sell", "5000", PERPETUAL, 3))], UNITS, 0.0001)


def test_an_unknown_delta_lets_no_hedge_pass() -> None:
    """A hedge whose effect cannot be computed is no hedge."""
    exposure = Exposure({OPTION: Decimal("0.1")})
    assert not reduces(intent(HEDGE, "sell", "5000", PERPETUAL), exposure, [], {PERPETUAL: 1e-5}.get, 0.0001)


# ---- the door ----


@pytest.fixture
def bench() -> Bench:
    """An Active trader, between two turns."""
    bench = Bench().active()
    bench.run(2_000)
    return bench


def papers(bench: Bench, what: Intent) -> tuple[Order, object, object]:
    trader = bench.trader
    trader.guard.turn()
    fresh = Order(what, seq=trader.ledger.durable)
    permit = trader.guard.permit(trader.watch.snapshot(turn_of(bench)), what.intent_class)
    return fresh, permit, trader.ledger.recorded(what, fresh.seq)


def turn_of(bench: Bench):
    from system_under_test.machine import Now
    from system_under_test.trader.turn import Turn
    return Turn(Now(bench.mono, 0), bench.trader._anchor)


def door(bench: Bench):
    return bench.trader.desk._door


def test_the_door_lets_an_order_out_once(bench: Bench) -> None:
    """With its papers it leaves; the same order again is refused, counted, and nothing goes out."""
    what, permit, paper = papers(bench, intent(OPEN))
    turn = turn_of(bench)
    assert door(bench).send(turn, what, permit, paper) is None
    assert [value for value in turn.out if type(value).__name__ == "Frame"]
    what2, permit2, paper2 = papers(bench, intent(OPEN))
    what2.sent_ts = 1
    again = turn_of(bench)
    with pytest.raises(DispatchError):
        door(bench).send(again, what2, permit2, paper2)
    assert not again.out and bench.trader.metrics.value("duplicate_dispatch_count") == 1


def test_a_spent_or_stale_permit_opens_no_door(bench: Bench) -> None:
    """A permit is good once and for its own call."""
    what, permit, paper = papers(bench, intent(OPEN))
    bench.trader.guard.turn()
    turn = turn_of(bench)
    with pytest.raises(PermitError):
        door(bench).send(turn, what, permit, paper)
    assert not turn.out


def test_papers_of_another_order_are_refused(bench: Bench) -> None:
    """A permit of another class, a paper of another intent, a record that is not durable: no frame leaves."""
    trader = bench.trader
    what, permit, paper = papers(bench, intent(OPEN))
    other = Order(intent(OPEN, leg_idx=4), seq=1)
    close_permit = trader.guard.permit(trader.watch.snapshot(turn_of(bench)), CLOSE)
    for order_, permit_, paper_ in ((what, close_permit, paper), (other, permit, paper)):
        turn = turn_of(bench)
        with pytest.raises(DispatchError):
            door(bench).send(turn, order_, permit_, paper_)
        assert not turn.out
    assert trader.metrics.value("illegal_order_attempts") == 2


def test_a_close_from_flat_is_turned_away_at_the_door(bench: Bench) -> None:
    """Whatever the flags say, an order that would open does not pass as a close."""
    bench.trader.desk.exposure.positions.clear()
    what, permit, paper = papers(bench, intent(CLOSE, "sell"))
    turn = turn_of(bench)
    refusal = door(bench).send(turn, what, permit, paper)
    assert isinstance(refusal, Refusal) and refusal.code == "ReduceOnlyWouldOpen" and not turn.out


# ---- the gates ----

BUY, SELL = Leg(OPTION, "buy", "0.1"), Leg(PERPETUAL, "sell", "5000")


def refused(bench: Bench, *legs: Leg, edge: float | None = 50.0) -> str | None:
    answer = bench.trader.gates.open(legs or (BUY, SELL), edge, turn_of(bench).ts)
    return answer.code if isinstance(answer, Refusal) else None


def test_all_gates_pass_on_a_good_day(bench: Bench) -> None:
    """The non-trip of every test below."""
    assert refused(bench) is None


@pytest.mark.parametrize(("change", "code"), [
    (lambda b: setattr(b.trader.gates, "fee_ts", None), "FeeCacheStale"),
    (lambda b: setattr(b.trader.gates, "fee_ts", 1), "FeeCacheStale"),
    (lambda b: setattr(b.trader.gates, "mm_util", 0.70), "MarginHeadroomRejectOpens"),
    (lambda b: setattr(b.trader.gates, "mm_util", None), "MarginHeadroomRejectOpens"),
    (lambda b: b.trader.market.instruments.pop(OPTION), "InstrumentMetadataMissing"),
    (lambda b: setattr(b.trader.market, "instruments_ts", 1), "InstrumentMetadataMissing"),
    (lambda b: setattr(b.trader.market, "exchange_offset", 40 * 86_400_000), "InstrumentExpiredOrDelisted"),
    (lambda b: setattr(b.trader.market.books[OPTION], "synced", False), "LiquidityGateNoL2"),
    (lambda b: setattr(b.trader.market.books[OPTION], "ts", 1), "LiquidityGateNoL2"),
    (lambda b: b.trader.desk.exposure.adopt(OPTION, Decimal(150)), "PendingExposureBudgetExceeded"),
    (lambda b: b.trader.desk.exposure.adopt(PERPETUAL, Decimal(30_000_000)), "GlobalExposureBudgetExceeded"),
    (lambda b: b.trader.market.tickers.pop(OPTION) and b.trader.desk.exposure.adopt(OPTION, Decimal(1)),
     "GlobalExposureBudgetExceeded"),
])
def test_each_gate_trips_alone(bench: Bench, change: object, code: str) -> None:
    """One thing is wrong, its own code comes, and nothing has left or was recorded."""
    appended, placed = bench.trader.ledger.appended, len(bench.exchange.placed)
    change(bench)  # type: ignore[operator]
    assert refused(bench) == code
    assert (bench.trader.ledger.appended, len(bench.exchange.placed)) == (appended, placed)


@pytest.mark.parametrize(("edge", "code"), [(None, "NetEdgeInputMissing"), (0.5, "NetEdgeTooLow"), (50.0, None)])
def test_the_edge_must_pay_for_fees_and_slippage(bench: Bench, edge: float | None, code: str | None) -> None:
    """A missing edge is no edge; a small one does not pay (AT-015, AT-932)."""
    assert refused(bench, edge=edge) == code


def test_the_net_edge_gate_says_which_policy_it_is(bench: Bench) -> None:
    """It is policy and not safety: its refusal carries the policy's version."""
    answer = bench.trader.gates.open((BUY, SELL), 0.5, turn_of(bench).ts)
    assert isinstance(answer, Refusal) and answer.gate.startswith("net_edge(policy ")


@pytest.mark.parametrize(("leg", "code"), [
    (Leg(OPTION, "buy", "0.05"), "TooSmallAfterQuantization"),
    (Leg(OPTION, "both", "0.1"), "OrderTypeMarketForbidden"),
    (Leg(OPTION, "buy", "0.1", time_in_force="fill_or_kill"), "OrderTypeStopForbidden"),
    (Leg(PERPETUAL, "buy", "10", "100000", time_in_force="good_til_cancelled", post_only=True), "PostOnlyWouldCross"),
    (Leg(PERPETUAL, "buy", "10", post_only=True), "OrderTypeMarketForbidden"),
    (Leg(OPTION, "buy", "100"), "InsufficientDepthWithinBudget"),
    (Leg("BTC-UNKNOWN", "buy", "1"), "InstrumentMetadataMissing"),
])
def test_unlawful_orders_are_refused_with_their_code(bench: Bench, leg: Leg, code: str) -> None:
    """Preflight, the grid and the book, one bad order each."""
    assert refused(bench, leg) == code


def test_a_touch_far_from_the_mark_is_slippage(bench: Bench) -> None:
    """A book whose best has moved away from the mark is as bad as one that must be walked (AT-222)."""
    bench.exchange.quotes[OPTION] = (0.0290, 0.0400, 25.0)
    bench.trader.market.books[OPTION].load(
        {"bids": [[0.0290, 25.0]], "asks": [[0.0400, 25.0]], "change_id": 9}, turn_of(bench).ts)
    assert refused(bench) == "ExpectedSlippageTooHigh"


def test_opening_prices_stay_within_the_slippage_budget(bench: Bench) -> None:
    """Limits reach the touch and at most the budget, or two ticks where a tick is wider (AT-223)."""
    option, future = bench.trader.gates.open((BUY, SELL), 50.0, turn_of(bench).ts)
    assert Decimal("0.0305") <= option.quantized.price <= Decimal("0.0315")
    assert Decimal("99890") <= future.quantized.price <= Decimal("99990")


# ---- the fold of a whole life ----


def test_a_life_folds_back_into_the_same_knowledge(bench: Bench) -> None:
    """Positions, trades and intents after a restart are those before it."""
    bench.run(5_000)
    trader = bench.trader
    before = (dict(trader.desk.exposure.positions), len(trader.desk.registry), len(trader.desk.orders))
    history = fold(LogImage(tuple(bench.log)).records)
    assert history.unreadable == 0
    assert {name: size for name, size in history.positions.items() if size} == before[0]
    assert len(history.trades) == before[1] and len(history.intents) == before[2]
