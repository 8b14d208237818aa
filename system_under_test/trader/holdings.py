"""What each position was bought for, and what closing parts of it has earned, in USD.

Positions themselves are counted in `exposure`; this is their price. An option is quoted in coins, and its price in USD is
that of the index at the fill. A contract whose amount is in dollars (an inverse perpetual) is worth ``amount / price``
coins, so its average is harmonic; both sums are kept, because whoever folds the ledger has no metadata yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

ZERO = Decimal(0)
OPTION_ENDS = ("-C", "-P")


@dataclass(slots=True)
class Holding:
    """One position. ``cost`` and ``coins`` are of what is held: sums of |amount| * price and of |amount| / price."""

    size: Decimal
    opened_ts: int
    cost: float = 0.0
    coins: float = 0.0
    earned: float = 0.0
    """by closing parts of it, where amounts are in coins"""
    earned_inverse: float = 0.0
    """the same where amounts are in USD, valued at the price of the close"""

    def entry(self, *, inverse: bool) -> float | None:
        """The average price of what is held; None when it is not known."""
        if not (self.cost > 0 and self.coins > 0):
            return None
        amount = abs(float(self.size))
        return amount / self.coins if inverse else self.cost / amount

    def realized(self, *, inverse: bool) -> float:
        """USD that closing parts of this position has earned since it was opened."""
        return self.earned_inverse if inverse else self.earned


class Holdings:
    """By instrument. Times in monotonic-epoch ms, prices in USD."""

    def __init__(self) -> None:
        self.by_name: dict[str, Holding] = {}

    def fill(self, name: str, signed: Decimal, price: float | None, ts: int) -> None:
        """A fill; without a price (in USD) the average is not known from then on."""
        held = self.by_name.get(name)
        if held is None or (held.size > 0) == (signed > 0):
            self._grow(name, held, signed, price, ts)
            return
        closed = min(abs(signed), abs(held.size))
        self._shrink(held, closed, price)
        rest = held.size + signed
        if rest and (rest > 0) == (held.size > 0):
            held.size = rest
            return
        del self.by_name[name]
        if rest:  # through zero: the other side begins anew
            self._grow(name, None, rest, price, ts)

    def _grow(self, name: str, held: Holding | None, signed: Decimal, price: float | None, ts: int) -> None:
        known = held is None or held.cost > 0
        if held is None:
            held = self.by_name[name] = Holding(ZERO, ts)
        held.size += signed
        if known and price is not None and price > 0:
            held.cost += abs(float(signed)) * price
            held.coins += abs(float(signed)) / price
        else:
            held.cost = held.coins = 0.0

    @staticmethod
    def _shrink(held: Holding, closed: Decimal, price: float | None) -> None:
        share = float(closed / abs(held.size))
        if price is not None and price > 0 and held.cost > 0:
            sign = 1 if held.size > 0 else -1
            held.earned += sign * (float(closed) * price - held.cost * share)
            held.earned_inverse += sign * (held.coins * share * price - float(closed))
        held.cost *= 1 - share
        held.coins *= 1 - share

    def adopt(self, name: str, size: Decimal, price: float | None, ts: int) -> None:
        """The exchange's number takes the place of ours, and its average price with it."""
        held = self.by_name.pop(name, None)
        if size:
            same = held is not None and (held.size > 0) == (size > 0)
            self._grow(name, None, size, price, held.opened_ts if held is not None and same else ts)

    def priced(self, name: str, price: float) -> None:
        """A position whose price nobody told: it is reckoned from this price on."""
        held = self.by_name[name]
        self._grow(name, None, held.size, price, held.opened_ts)


def usd_of(name: str, price: float, index: float | None) -> float | None:
    """The price in USD of an instrument that is quoted at ``price``: an option is quoted in coins."""
    if not name.endswith(OPTION_ENDS):
        return price
    return None if index is None else price * index
