"""What must hold whatever is done, in whatever order."""

from __future__ import annotations

import orjson
import pytest
from exchange_driver import Driver
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from system_under_test.exchange.book import Book
from system_under_test.exchange.instruments import listing
from system_under_test.exchange.market import black

PERPETUAL = "BTC-PERPETUAL"
directions = st.sampled_from(["buy", "sell"])


class Trading(RuleBasedStateMachine):
    """A client that does anything; a market that moves; switches that come and go."""

    @initialize(seed=st.integers(0, 1_000))
    def start(self, seed):
        self.driver = Driver(seed=seed)
        self.driver.put("credits", rate=1_000_000, burst=1_000_000)
        self.client = self.driver.connect().login()
        self.engine = self.driver.machine.engine
        self.option = next(n for n in self.engine.instruments if n.endswith("-100000-C"))
        self.read, self.sums = 0, {}

    @rule(direction=directions, amount=st.integers(1, 40_000), off=st.integers(-40, 40), post=st.booleans(),
          reduce=st.booleans(), force=st.sampled_from(["good_til_cancelled", "immediate_or_cancel", "fill_or_kill"]))
    def order(self, direction, amount, off, post, reduce, force):
        ticker = self.client.ask("public/ticker", instrument_name=PERPETUAL)
        if "result" not in ticker:
            return
        price = round(ticker["result"]["mark_price"]) + off / 2
        before = self._lots(PERPETUAL)
        self.client.ask(f"private/{direction}", instrument_name=PERPETUAL, amount=amount * 10, price=price, post_only=post,
                        reduce_only=reduce, time_in_force=force)
        if reduce:
            after = self._lots(PERPETUAL)
            assert abs(after) <= abs(before) and after * before >= 0

    @rule(direction=directions, time_ms=st.integers(200, 20_000))
    def rest_at_the_touch(self, direction, time_ms):
        """An order in the way of the market makers, and time for them to come."""
        price = 200_000 if direction == "buy" else 50_000
        self.client.ask(f"private/{direction}", instrument_name=PERPETUAL, amount=1_000, price=price, post_only=True)
        self.driver.pass_ms(time_ms)

    @rule(direction=directions)
    def fill_in_part(self, direction):
        """A crossing order that a switch lets fill only in part rests beside quotes that it reached."""
        self.driver.put("partial_fill")
        price = 101_000 if direction == "buy" else 99_000
        self.client.ask(f"private/{direction}", instrument_name=PERPETUAL, amount=1_000, price=price)

    @rule(direction=directions, amount=st.integers(1, 30), steps=st.integers(-6, 6), reduce=st.booleans())
    def option_order(self, direction, amount, steps, reduce):
        instrument = self.engine.instruments[self.option]
        mark = self.engine.market.mark(instrument, self.driver.wall_ms).price
        price = instrument.price(instrument.floor(round(mark * 10_000) + steps * 5))
        self.client.ask(f"private/{direction}", instrument_name=self.option, amount=amount / 10, price=price,
                        reduce_only=reduce)

    @rule(pick=st.integers(0, 20), amount=st.integers(1, 40_000), off=st.integers(-40, 40))
    def edit(self, pick, amount, off):
        orders = list(self.engine.alive.values())
        if orders:
            price = 100_000 + off / 2 if orders[pick % len(orders)].instrument.name == PERPETUAL else 0.02
            self.client.ask("private/edit", order_id=orders[pick % len(orders)].id, amount=amount * 10, price=price)

    @rule(pick=st.integers(0, 20))
    def cancel(self, pick):
        orders = list(self.engine.alive.values())
        if orders:
            self.client.call("private/cancel", order_id=orders[pick % len(orders)].id)

    @rule(time_ms=st.integers(1, 3_000))
    def wait(self, time_ms):
        self.driver.pass_ms(time_ms)

    @rule(name=st.sampled_from(["thin_book", "wide_book", "collapsed_book", "partial_fill", "late_fills", "frozen",
                                "crossed_book", "hold_acknowledgement"]), on=st.booleans())
    def switch(self, name, on):
        if on:
            self.driver.put(name)
        else:
            self.driver.off(name)

    @rule(lots=st.integers(1, 500), buy=st.booleans())
    def others_trade(self, lots, buy):
        self.engine.background(self.engine.instruments[PERPETUAL], buy, lots)
        self.driver.http("GET", "/clock", b"", "control")  # any value carries out what happened

    @precondition(lambda self: hasattr(self, "engine"))
    @invariant()
    def no_book_crosses_itself(self):
        assert not [name for name, book in self.engine.books.items() if book.crossed]

    @precondition(lambda self: hasattr(self, "engine"))
    @invariant()
    def amounts_are_conserved(self):
        """An order has filled what its trades say, never more than its amount; alive orders have something left."""
        filled: dict[str, int] = {}
        for trade in self.engine.trades:
            filled[trade.order.id] = filled.get(trade.order.id, 0) + trade.lots
        for order in self.engine.orders.values():
            assert order.filled == filled.get(order.id, 0) <= order.lots
            assert order.alive == (order.id in self.engine.alive)
            if order.alive:
                assert order.left > 0
                queue = self.engine.books[order.instrument.name]
                assert (order in queue.buys) + (order in queue.sells) == 1

    @precondition(lambda self: hasattr(self, "engine"))
    @invariant()
    def positions_are_the_sum_of_fills(self):
        """In the engine, and in the books that the judge reads."""
        for record in self.driver.records[self.read:]:
            row = orjson.loads(record)
            if row["kind"] == "fill":
                signed = row["amount"] if row["direction"] == "buy" else -row["amount"]
                self.sums[row["instrument"]] = self.sums.get(row["instrument"], 0) + signed
        self.read = len(self.driver.records)
        for name, position in self.driver.machine.account.positions.items():
            assert position.instrument.amount(position.lots) == pytest.approx(self.sums.get(name, 0), abs=1e-6)

    @precondition(lambda self: hasattr(self, "engine"))
    @invariant()
    def resting_reduce_only_never_exceeds_the_position(self):
        for name in (PERPETUAL, self.option):
            instrument = self.engine.instruments[name]
            for buy in (True, False):
                resting = sum(o.left for o in self.engine._reducing(instrument) if o.buy == buy)
                held = self._lots(name)
                assert resting <= max(-held if buy else held, 0)

    def _lots(self, name):
        return self.driver.machine.account.lots(self.engine.instruments[name])


Trading.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None, derandomize=True,
                                     suppress_health_check=[HealthCheck.too_slow])
test_trading = Trading.TestCase


def test_black_agrees_with_put_call_parity():
    """Call minus put is forward minus strike, and deltas differ by one."""
    for strike in (80_000, 100_000, 120_000):
        call, put = (black(100_000, strike, 0.05, 0.5, side) for side in (True, False))
        assert (call.price - put.price) * 100_000 == pytest.approx(100_000 - strike, abs=1e-6)
        assert call.delta - put.delta == pytest.approx(1)
        bumped = black(100_001, strike, 0.05, 0.5, True)
        assert bumped.price * 100_001 - call.price * 100_000 == pytest.approx(call.delta, abs=1e-3)


def test_ticks_and_lots_survive_the_door():
    """Every lawful price and amount comes back as the number that went out."""
    for instrument in listing(1_795_000_000_000):
        for ticks in (1, 7, 49, 50, 55, 100, 5_000, 200_000):
            lawful = instrument.floor(ticks)
            if lawful:
                assert instrument.ticks_of(instrument.price(lawful)) == lawful
        for lots in (1, 3, 7, 12_345):
            assert instrument.lots_of(instrument.amount(lots)) == lots


def test_an_empty_book_gives_nothing():
    """Nothing to take, no best price, no crossing."""
    book = Book()
    assert book.take(True, None, 10) == [] and book.best_bid is None and not book.crossed
