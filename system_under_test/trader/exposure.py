"""What the account holds and what is under way, and what an order would make of it.

Delta is counted in BTC: an option by the exchange's own greeks, an inverse perpetual or future by USD / index.
*Reducing* is judged by the resulting exposure, never by a flag or a side: a close must shrink the position of
its instrument without passing zero, counting what is already on its way, and from flat nothing shrinks; a hedge
must bring the net delta of the account nearer to zero without passing it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal

from system_under_test.trader.intents import HEDGE, REDUCING, Intent
from system_under_test.trader.orders import Order

ZERO = Decimal(0)

UnitDelta = Callable[[str], float | None]
"""Delta in BTC of one unit of an instrument, by its name; None when it is unknown."""


class Exposure:
    """Positions by instrument, in the exchange's units, as the trade registry has counted them."""

    def __init__(self, positions: Mapping[str, Decimal] | None = None) -> None:
        self.positions: dict[str, Decimal] = {name: size for name, size in (positions or {}).items() if size}

    def apply(self, instrument: str, signed: Decimal) -> None:
        """A fill."""
        size = self.positions.get(instrument, ZERO) + signed
        if size:
            self.positions[instrument] = size
        else:
            self.positions.pop(instrument, None)

    def adopt(self, instrument: str, size: Decimal) -> None:
        """The exchange's own number takes the place of ours."""
        if size:
            self.positions[instrument] = size
        else:
            self.positions.pop(instrument, None)

    def of(self, instrument: str) -> Decimal:
        return self.positions.get(instrument, ZERO)

    @property
    def flat(self) -> bool:
        return not self.positions


def delta_of(positions: Mapping[str, Decimal], unit_delta: UnitDelta) -> float | None:
    """Net delta in BTC; None when an instrument that is held has no known delta: unknown is not zero."""
    total = 0.0
    for name, size in positions.items():
        unit = unit_delta(name)
        if unit is None:
            if size:
                return None
            continue
        total += float(size) * unit
    return total


def reduces(
    intent: Intent, exposure: Exposure, live: Iterable[Order], unit_delta: UnitDelta, slack_btc: float,
) -> bool:
    """Whether the intent, with everything that is already under way, can only make the exposure smaller.

    ``slack_btc`` is what one step of the hedging instrument is worth: a hedge may pass zero by less than that.
    """
    if intent.intent_class not in REDUCING:
        return False
    others = [order for order in live if order.intent.intent_id != intent.intent_id]
    if intent.intent_class == HEDGE:
        return _hedges(intent, exposure, others, unit_delta, slack_btc)
    held = exposure.of(intent.instrument)
    if held == 0 or (held > 0) == (intent.side == "buy"):
        return False
    under_way = sum((order.remaining for order in others if order.intent.instrument == intent.instrument
                     and order.intent.side == intent.side and order.intent.reduce_only), ZERO)
    return intent.qty <= abs(held) - under_way


def _hedges(
    intent: Intent, exposure: Exposure, others: list[Order], unit_delta: UnitDelta, slack_btc: float,
) -> bool:
    unit = unit_delta(intent.instrument)
    before = delta_of(exposure.positions, unit_delta)
    if unit is None or before is None:
        return False
    for order in others:
        if order.intent.intent_class == HEDGE:
            rest = order.remaining if order.intent.side == "buy" else -order.remaining
            before += float(rest) * (unit_delta(order.intent.instrument) or 0.0)
    after = before + float(intent.signed) * unit
    return abs(after) < abs(before) and (before * after >= 0 or abs(after) <= slack_btc)
