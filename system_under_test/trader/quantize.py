"""Quantities and prices in the exchange's steps, in Decimal: a float that is a hair off must not cost a step.

Metadata comes from ``public/get_instruments`` only (contract, section 1.1.2). Whatever is missing, not finite or
not positive is a refusal, never a guess. A buy's price is rounded down and a sell's up: rounding never pays more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

OPTION = "option"
FUTURE = "future"
_SNAP = Decimal("1e-9")


@dataclass(frozen=True, slots=True)
class Instrument:
    """What the exchange says about an instrument, as far as orders need it. Times in ms of the exchange's clock."""

    name: str
    kind: str
    tick_size: Decimal
    tick_steps: tuple[tuple[Decimal, Decimal], ...]
    """(above price, tick size), rising"""
    amount_step: Decimal
    min_amount: Decimal
    contract_size: Decimal
    expires_ms: int
    perpetual: bool
    inverse: bool
    """amounts are in USD (inverse perpetual and future); else in coins"""
    taker_fee: float
    maker_fee: float
    strike: float | None
    option_type: str | None
    state: str

    def tick_at(self, price: Decimal) -> Decimal:
        """The tick that holds at a price: the steps are of the exchange, e.g. 0.0005 above 0.005."""
        tick = self.tick_size
        for above, size in self.tick_steps:
            if price >= above:
                tick = size
        return tick


@dataclass(frozen=True, slots=True)
class Quantized:
    """A quantity and a price on the grid, and where on it."""

    qty: Decimal
    price: Decimal
    steps: int
    ticks: int


class MetadataMissing(ValueError):
    """InstrumentMetadataMissing: the exchange's description cannot be used."""


class TooSmall(ValueError):
    """TooSmallAfterQuantization: less than the exchange's minimum is left."""


def decimal_of(value: object) -> Decimal:
    """A JSON number as the shortest decimal that means it. Raises MetadataMissing when it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MetadataMissing(f"{value!r} is no number")
    if not math.isfinite(value):
        raise MetadataMissing(f"{value!r} is not finite")
    return Decimal(repr(value))


def parse_instrument(raw: Mapping[str, Any]) -> Instrument:
    """One entry of ``public/get_instruments``. Raises MetadataMissing."""
    try:
        tick, minimum = decimal_of(raw["tick_size"]), decimal_of(raw["min_trade_amount"])
        contract = decimal_of(raw["contract_size"])
        steps = tuple(sorted((decimal_of(each["above_price"]), decimal_of(each["tick_size"]))
                             for each in raw.get("tick_size_steps") or ()))
        name, kind = str(raw["instrument_name"]), str(raw["kind"])
        expires = int(raw["expiration_timestamp"])
        inverse = kind == FUTURE and raw.get("instrument_type", "reversed") == "reversed"
        taker, maker = float(raw["taker_commission"]), float(raw["maker_commission"])
    except (KeyError, TypeError, ValueError) as why:
        raise MetadataMissing(f"{raw.get('instrument_name')}: {type(why).__name__} {why}") from why
    if tick <= 0 or minimum <= 0 or contract <= 0 or any(size <= 0 for _, size in steps):
        raise MetadataMissing(f"{name}: tick, step and contract size must be positive")
    if not (math.isfinite(taker) and math.isfinite(maker)):
        raise MetadataMissing(f"{name}: fees are not finite")
    strike = raw.get("strike")
    return Instrument(
        name, kind, tick, steps, minimum, minimum, contract, expires, raw.get("settlement_period") == "perpetual",
        inverse, taker, maker, None if strike is None else float(strike), raw.get("option_type"),
        "open" if raw.get("is_active", True) else "inactive",
    )


def floor_to(value: Decimal, step: Decimal) -> int:
    """How many whole steps fit, after snapping away what a float lost."""
    return int((value / step + _SNAP).to_integral_value(ROUND_FLOOR))


def ceil_to(value: Decimal, step: Decimal) -> int:
    """The fewest steps that reach the value."""
    return int((value / step - _SNAP).to_integral_value(ROUND_CEILING))


def quantize(instrument: Instrument, side: str, qty: Decimal, price: Decimal) -> Quantized:
    """The order on the exchange's grid. Raises TooSmall or MetadataMissing."""
    if not (qty.is_finite() and price.is_finite()) or price <= 0:
        raise MetadataMissing(f"{instrument.name}: quantity {qty} at price {price}")
    steps = floor_to(qty, instrument.amount_step)
    quantity = steps * instrument.amount_step
    if quantity < instrument.min_amount:
        raise TooSmall(f"{instrument.name}: {qty} leaves {quantity}, minimum {instrument.min_amount}")
    tick = instrument.tick_at(price)
    ticks = floor_to(price, tick) if side == "buy" else ceil_to(price, tick)
    if ticks <= 0:
        ticks = 1
    return Quantized(quantity, ticks * tick, steps, ticks)


def consistent(instrument: Instrument, amount: Decimal, contracts: Decimal, tolerance: float) -> bool:
    """Amount and contracts say the same (contract, section 1.0): within the tolerance of the policy."""
    implied = contracts * instrument.contract_size
    return abs(amount - implied) / max(abs(amount), Decimal("1e-9")) <= Decimal(repr(tolerance))
