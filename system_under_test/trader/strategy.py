"""The strategy: it always wants to open two-leg groups, and it can only say so.

It returns wishes and nothing else; it knows neither the venue nor the door, nor the mode, and goes on wishing
when it is refused. A drill needs that: what nobody tries to open proves nothing about what is refused.

* a group every ``wish_interval_ms``: buy a call, sell the perpetual for the call's delta;
* a group for every signal (a large public trade on the perpetual), so many per tick, the rest in a bounded
  backlog;
* the closing of every complete group after ``hold_ms``;
* one resting post-only quote far from the market.

Wish ids are hashes of seed, boot and a counter: the same run wishes the same, and a restart never repeats one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from msgspec import Struct

from system_under_test.trader.settings import Settings

USD_STEP = 10
"""Contract size of the inverse perpetual in USD: a hedge is a multiple of it."""

GROUP = "group"
CLOSE = "close"
QUOTE = "quote"


@dataclass(frozen=True, slots=True)
class Leg:
    """One order as it is wished for. ``qty`` in the instrument's amount; ``price`` None asks to cross the market."""

    instrument: str
    side: str
    qty: str
    price: str | None = None
    reduce_only: bool | None = False
    time_in_force: str = "immediate_or_cancel"
    post_only: bool = False
    type: str = "limit"
    trigger: str | None = None
    linked: str | None = None
    """a strategy may ask for other kinds of orders; preflight refuses them"""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the strategy wants. ``wish_id`` names the group of a group; ``group_id`` the group that a close ends."""

    wish_id: str
    kind: str
    legs: tuple[Leg, ...]
    group_id: str | None = None
    gross_edge_usd: float | None = None


class GroupView(Struct, frozen=True):
    """A group as the strategy may see it. ``open`` while it holds exposure; ``since_ms`` is its last change."""

    group_id: str
    state: str
    since_ms: int
    open: bool
    closing: bool = False
    legs: tuple[tuple[str, str, str], ...] = ()
    """instrument, side and filled quantity of each leg, while there is something to close"""


class MarketView(Struct, frozen=True):
    """What the strategy may know of the market. None is unknown, and then it wishes for nothing that needs it."""

    index: float | None
    option: str | None
    delta: float | None
    best: Mapping[str, tuple[float, float] | None]
    groups: tuple[GroupView, ...] = ()
    quote_open: bool = False


class Strategy:
    """Wishes on a beat and on signals. Holds no position and no authority."""

    def __init__(self, settings: Settings, seed: int, boot: int) -> None:
        self._settings = settings
        self._origin = f"{seed}/{boot}"
        self._amount = _decimal(settings.group_option_amount_btc)
        self._count = 0
        self._next_ms: int | None = None
        self._quote_ms: int | None = None
        self._backlog = 0
        self._closed_ms: dict[str, int] = {}

    def signal(self, amount_usd: float) -> bool:
        """A public trade on the perpetual. True when it is a signal (a group will be wished for)."""
        if amount_usd < self._settings.signal_amount_usd:
            return False
        self._backlog = min(self._backlog + 1, self._settings.signal_backlog_max)
        return True

    def idle(self, now_ms: int, quote_open: bool) -> bool:
        """Whether nothing but a close could be wanted at this moment, whatever the market is like."""
        return (not self._backlog and self._next_ms is not None and now_ms < self._next_ms
                and (quote_open or not self._quote_due(now_ms)))

    def _quote_due(self, now_ms: int) -> bool:
        return self._quote_ms is None or now_ms - self._quote_ms >= self._settings.wish_interval_ms

    def wishes(self, view: MarketView, now_ms: int) -> tuple[Wish, ...]:
        """Everything wanted at this moment. Closing comes first: what is held matters more than what is wanted."""
        wanted = self._closes(view, now_ms) if view.groups else []
        wanted += self._groups(view, now_ms)
        if not view.quote_open and (quote := self._quote(view, now_ms)) is not None:
            wanted.append(quote)
        return tuple(wanted)

    def _groups(self, view: MarketView, now_ms: int) -> list[Wish]:
        due = 0
        if self._next_ms is None or now_ms >= self._next_ms:
            self._next_ms = now_ms + self._settings.wish_interval_ms
            due = 1
        burst = min(self._backlog, self._settings.signal_wishes_per_tick_max)
        if due + burst == 0:
            return []
        legs = self._group_legs(view)
        if legs is None:
            return []
        self._backlog -= burst
        # The reference strategy has no model: what it believes a group is worth is a number of the policy.
        return [Wish(self._id(), GROUP, legs, gross_edge_usd=self._settings.believed_edge_usd) for _ in range(due + burst)]

    def _group_legs(self, view: MarketView) -> tuple[Leg, Leg] | None:
        if view.option is None or view.delta is None or view.index is None:
            return None
        amount = self._settings.group_option_amount_btc
        hedge_usd = max(1, _rounded(amount * view.delta * view.index / USD_STEP)) * USD_STEP
        return (
            Leg(view.option, "buy", self._amount),
            Leg(self._settings.perpetual, "sell", str(hedge_usd)),
        )

    def _closes(self, view: MarketView, now_ms: int) -> list[Wish]:
        wanted = []
        if self._closed_ms:
            live = {group.group_id for group in view.groups}
            self._closed_ms = {each: at for each, at in self._closed_ms.items() if each in live}
        for group in view.groups:
            if not group.open or group.closing or not group.legs:
                continue
            last = self._closed_ms.get(group.group_id)
            again = last is None or now_ms - last >= self._settings.wish_interval_ms
            if now_ms - group.since_ms >= self._settings.hold_ms and again:
                self._closed_ms[group.group_id] = now_ms
                legs = tuple(Leg(instrument, "sell" if side == "buy" else "buy", qty, reduce_only=True)
                             for instrument, side, qty in group.legs if Decimal(qty) > 0)
                wanted.append(Wish(self._id(), CLOSE, legs, group_id=group.group_id))
        return wanted

    def _quote(self, view: MarketView, now_ms: int) -> Wish | None:
        if not self._quote_due(now_ms):
            return None
        best = view.best.get(self._settings.perpetual)
        if best is None:
            return None
        self._quote_ms = now_ms
        price = _decimal(math.floor(best[0] * (1 - self._settings.quote_distance_pct)))
        leg = Leg(self._settings.perpetual, "buy", _decimal(self._settings.quote_amount_usd), price,
                  time_in_force="good_til_cancelled", post_only=True)
        return Wish(self._id(), QUOTE, (leg,))

    def _id(self) -> str:
        self._count += 1
        return hashlib.sha256(f"{self._origin}/{self._count}".encode()).hexdigest()[:32]


def _rounded(value: float) -> int:
    return int(Decimal(repr(value)).quantize(Decimal(1), ROUND_HALF_UP))


def _decimal(value: float) -> str:
    """A number as plain decimal text: 0.1 → "0.1", 10.0 → "10"."""
    text = format(Decimal(repr(float(value))), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
