"""What can be traded: contract sizes, ticks, amounts and expiries (facts: instrument rules).

Inside the exchange prices are whole ticks and amounts are whole lots, so that nothing is lost in sums; floats are made
at the door. The calendar is a pure function of the wall clock: Fridays 08:00 UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

from system_under_test.exchange.protocol import Refused

DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
PERPETUAL_EXPIRY_MS = 32_503_708_800_000
"""How the venue writes "never": the year 3000."""
_FIRST_FRIDAY_MS = (1 * DAY_MS) + 8 * 3_600_000
"""1970-01-02 08:00 UTC was a Friday."""
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


@dataclass(frozen=True, slots=True, eq=False)
class Instrument:
    """One row of the instrument table. ``tick`` and ``lot`` are exact fractions (numerator, denominator)."""

    name: str
    id: int
    kind: str
    """``future`` (perpetuals too) or ``option``"""
    base: str
    settlement: str
    index: str
    linear: bool
    tick: tuple[int, int]
    steps: tuple[tuple[int, int], ...]
    """(above how many ticks, how many ticks one step is then)"""
    lot: tuple[int, int]
    minimum_lots: int
    contract_size: float
    maker: float
    taker: float
    created_ms: int
    expires_ms: int
    period: str
    strike: int = 0
    call: bool = False
    perpetual: bool = field(init=False)
    option: bool = field(init=False)
    quote: str = field(init=False)
    """what a price is in"""
    walk: str = field(init=False)
    """the index that moves it: USD and USDC are worth the same here"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "perpetual", self.expires_ms == PERPETUAL_EXPIRY_MS)
        object.__setattr__(self, "option", self.kind == "option")
        object.__setattr__(self, "quote", self.base if self.option else "USDC" if self.linear else "USD")
        object.__setattr__(self, "walk", self.index.removesuffix("c"))

    def price(self, ticks: int) -> float:
        return ticks * self.tick[0] / self.tick[1]

    def amount(self, lots: int) -> float:
        return lots * self.lot[0] / self.lot[1]

    def contracts(self, lots: int) -> float:
        return round(lots * self.lot[0] / self.lot[1] / self.contract_size, 8)

    def step(self, ticks: int) -> int:
        """How many ticks the price grid is wide at this price."""
        width = 1
        for above, size in self.steps:
            if ticks >= above:
                width = size
        return width

    def floor(self, ticks: int) -> int:
        """The highest lawful price at or below ``ticks``."""
        return ticks - ticks % self.step(ticks) if self.steps else ticks

    def ceil(self, ticks: int) -> int:
        """The lowest lawful price at or above ``ticks``."""
        return ticks + -ticks % self.step(ticks) if self.steps else ticks

    def below(self, ticks: int) -> int:
        """The next lawful price below ``ticks``, which is lawful."""
        return self.floor(ticks - 1)

    def above(self, ticks: int) -> int:
        return self.ceil(ticks + 1)

    def ticks_of(self, price: float | str, code: int = 10043) -> int:
        """A client's price in ticks. Raises Refused: 10023 invalid, 10026 too precise, ``code`` off the tick grid."""
        exact = _decimal(price, 10023, "price")
        if exact <= 0 or exact > 10**12:
            raise Refused(10023, {"reason": "out of range", "param": "price"})
        if -exact.normalize().as_tuple().exponent > 8:  # type: ignore[operator]
            raise Refused(10026, {"reason": "more than 8 decimals", "param": "price"})
        ticks = exact * self.tick[1] / self.tick[0]
        if ticks != int(ticks) or int(ticks) % self.step(int(ticks)):
            raise Refused(code, {"reason": "must conform to tick size", "param": "price"})
        return int(ticks)

    def lots_of(self, amount: float | str, param: str = "amount") -> int:
        """A client's amount in lots. Raises Refused: 10002 too low, 10021 off the step."""
        exact = _decimal(amount, 10021, param)
        if param == "contracts":
            exact *= Decimal(repr(self.contract_size))
        if exact > 10**12:
            raise Refused(10021, {"reason": "out of range", "param": param})
        lots = exact * self.lot[1] / self.lot[0]
        if lots < self.minimum_lots:
            raise Refused(10002, {"reason": f"must be at least {self.amount(self.minimum_lots)}", "param": param})
        if lots != int(lots):
            raise Refused(10021, {"reason": "must be a multiple of contract size", "param": param})
        return int(lots)

    def document(self, now_ms: int, state: str) -> dict[str, object]:
        """As ``public/get_instruments`` gives it."""
        document: dict[str, object] = {
            "kind": self.kind,
            "instrument_name": self.name,
            "instrument_id": self.id,
            "base_currency": self.base,
            "quote_currency": self.quote,
            "counter_currency": "USDC" if self.linear else "USD",
            "settlement_currency": self.settlement,
            "settlement_period": self.period,
            "price_index": self.index,
            "instrument_type": "linear" if self.linear else "reversed",
            "underlying_type": "crypto",
            "is_active": now_ms < self.expires_ms,
            "state": state,
            "min_trade_amount": self.amount(self.minimum_lots),
            "contract_size": self.contract_size,
            "tick_size": self.price(1),
            "tick_size_steps": [
                {"above_price": self.price(above), "tick_size": self.price(size)} for above, size in self.steps
            ],
            "creation_timestamp": self.created_ms,
            "expiration_timestamp": self.expires_ms,
            "maker_commission": self.maker,
            "taker_commission": self.taker,
            "block_trade_commission": self.taker,
            "block_trade_tick_size": self.price(1),
            "block_trade_min_trade_amount": 25 if self.option else 200_000,
            "rfq": False,
        }
        if self.option:
            document |= {"strike": float(self.strike), "option_type": "call" if self.call else "put"}
        else:
            document |= {
                "future_type": document["instrument_type"], "max_leverage": 50, "max_liquidation_commission": 0.0075,
            }
        return document


def _decimal(value: float | str, code: int, param: str) -> Decimal:
    try:
        exact = Decimal(value if isinstance(value, str) else repr(value))
    except InvalidOperation:
        raise Refused(code, {"reason": "not a number", "param": param}) from None
    if not exact.is_finite():
        raise Refused(code, {"reason": "not a number", "param": param})
    return exact


def date_code(expires_ms: int) -> str:
    """``25DEC26``: the day is not zero-padded."""
    day = datetime.fromtimestamp(expires_ms / 1000, UTC)
    return f"{day.day}{_MONTHS[day.month - 1]}{day.year % 100:02d}"


def next_friday(wall_ms: int) -> int:
    """The first Friday 08:00 UTC strictly after ``wall_ms``."""
    return _FIRST_FRIDAY_MS + ((wall_ms - _FIRST_FRIDAY_MS) // WEEK_MS + 1) * WEEK_MS


def expiries(wall_ms: int) -> tuple[int, ...]:
    """What is listed at this moment: the next three Fridays, and two more that lie on every fourth and twelfth Friday."""
    first = next_friday(wall_ms)
    week = (first - _FIRST_FRIDAY_MS) // WEEK_MS
    far = [first + (-week % every) * WEEK_MS for every in (4, 12)]
    return tuple(sorted({first, first + WEEK_MS, first + 2 * WEEK_MS, *far}))


def period_of(expires_ms: int) -> str:
    return "month" if (expires_ms - _FIRST_FRIDAY_MS) // WEEK_MS % 4 == 0 else "week"


_STRIKES = {"BTC": (80_000, 90_000, 95_000, 100_000, 105_000, 110_000, 120_000), "ETH": (3_500, 4_000, 4_500)}
_OPTION_TICKS: dict[str, tuple[tuple[int, int], tuple[tuple[int, int], ...]]] = {
    "BTC": ((1, 10_000), ((50, 5),)), "ETH": ((1, 10_000), ((50, 5),)),
}
_FUTURE_TICKS = {"BTC": (1, 2), "ETH": (1, 20)}


def listing(wall_ms: int) -> Iterator[Instrument]:
    """Every instrument that is listed at this moment, nearest first."""
    for currency in ("BTC", "ETH"):
        yield _perpetual(currency)
        dates = expiries(wall_ms)
        for expires_ms in dates:
            yield _future(currency, expires_ms)
        for expires_ms in dates[:3] if currency == "BTC" else dates[1:2]:
            for strike in _STRIKES[currency]:
                yield _option(currency, expires_ms, strike, call=True)
                yield _option(currency, expires_ms, strike, call=False)
    yield _linear("BTC", (1, 2), (1, 10_000), 0.0001)
    yield _linear("ETH", (1, 20), (1, 1_000), 0.001)


def _id(name: str) -> int:
    """A number that belongs to the name, stable between runs."""
    value = 0
    for letter in name.encode():
        value = (value * 131 + letter) % 1_000_003
    return 100_000 + value


def _created(expires_ms: int) -> int:
    return expires_ms - 13 * WEEK_MS


def _perpetual(base: str) -> Instrument:
    name = f"{base}-PERPETUAL"
    size = 10 if base == "BTC" else 1
    return Instrument(name, _id(name), "future", base, base, f"{base.lower()}_usd", False, _FUTURE_TICKS[base], (),
                      (size, 1), 1, float(size), 0.0, 0.0005, 1_534_242_287_000, PERPETUAL_EXPIRY_MS, "perpetual")


def _linear(base: str, tick: tuple[int, int], lot: tuple[int, int], size: float) -> Instrument:
    name = f"{base}_USDC-PERPETUAL"
    return Instrument(name, _id(name), "future", base, "USDC", f"{base.lower()}_usdc", True, tick, (), lot, 1, size,
                      0.0, 0.0005, 1_650_620_605_000, PERPETUAL_EXPIRY_MS, "perpetual")


def _future(base: str, expires_ms: int) -> Instrument:
    name = f"{base}-{date_code(expires_ms)}"
    size = 10 if base == "BTC" else 1
    return Instrument(name, _id(name), "future", base, base, f"{base.lower()}_usd", False,
                      (5, 2) if base == "BTC" else (1, 4), (), (size, 1), 1, float(size), 0.0, 0.0005,
                      _created(expires_ms), expires_ms, period_of(expires_ms))


def _option(base: str, expires_ms: int, strike: int, call: bool) -> Instrument:
    name = f"{base}-{date_code(expires_ms)}-{strike}-{'C' if call else 'P'}"
    tick, steps = _OPTION_TICKS[base]
    return Instrument(name, _id(name), "option", base, base, f"{base.lower()}_usd", False, tick, steps,
                      (1, 10) if base == "BTC" else (1, 1), 1, 1.0, 0.0003, 0.0003, _created(expires_ms), expires_ms,
                      period_of(expires_ms), strike, call)


def matches(instrument: Instrument, currency: str | None, kind: str | None) -> bool:
    """Whether an instrument falls under the filters that many methods share; ``any`` and None let all pass."""
    return (currency in (None, "any", instrument.settlement)) and (kind in (None, "any", instrument.kind))


def matching(instruments: Iterable[Instrument], currency: str | None, kind: str | None) -> list[Instrument]:
    """Those of them that fall under both filters."""
    any_currency, any_kind = currency in (None, "any"), kind in (None, "any")
    return [each for each in instruments
            if (any_currency or each.settlement == currency) and (any_kind or each.kind == kind)]

