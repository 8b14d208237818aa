"""Exits: every open position has a take-profit and a stop-loss level, which are scanned every turn of the loop.

The levels of a position stand in the registry as soon as it is seen. What the intent ledger holds of them is another
matter: an entry counts as recorded once its row is durable, and it is struck once that row is, so that whoever compares
positions, ledger and registry sees a ledger that has fallen behind. A restart folds the rows and knows the levels again.

Levels follow the average entry price: a position that is added to and reduced for days has little to do with the price of
its first contract. What a trigger closes are the groups that hold the instrument, each as the pair it is; the floor does
that, and what no group explains it closes by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from system_under_test.trader.exposure import Exposure
from system_under_test.trader.holdings import OPTION_ENDS, Holdings, usd_of
from system_under_test.trader.ledger import Ledger
from system_under_test.trader.levels import LONG, SHORT, Levels
from system_under_test.trader.market import Market
from system_under_test.trader.settings import Settings
from system_under_test.trader.turn import Turn

MOVED_MIN = 0.001
"""Levels are set anew when the average entry price has moved by more than this share: less is worth no record."""


class Exits:
    """The registry, what the ledger holds of it, and the scan."""

    def __init__(
        self, settings: Settings, *, exposure: Exposure, holdings: Holdings, market: Market, ledger: Ledger,
        standing: Mapping[str, Levels],
    ) -> None:
        self._settings, self._exposure, self._holdings = settings, exposure, holdings
        self._market, self._ledger = market, ledger
        self.recorded = dict(standing)
        """by position key, what the ledger durably says"""
        self.registry = dict(self.recorded)
        self.scanned_ts: int | None = None
        """when every open position was last compared with a fresh price"""
        self.triggered_ts: int | None = None
        self.close: Callable[[Turn, str, str], int] = lambda turn, name, side: 0
        """closes what holds this side of an instrument; how many groups that newly began"""
        self._pending: deque[tuple[int, str, Levels | None]] = deque()
        self._told: dict[str, Levels | None] = dict(self.recorded)
        """what the ledger will say once everything pending is durable"""

    def tick(self, turn: Turn) -> None:
        """Levels for what is open and none for what is not; then compare prices with them."""
        self.follow(turn)
        self._scan(turn)

    def follow(self, turn: Turn) -> None:
        """Levels for what is open and none for what is not, in the registry and, as far as it has room, in the ledger."""
        if self._exposure.positions or self.registry:
            self._register(turn)
        if self.registry or self._told or self._pending:
            self._record(turn)

    # ---- the registry ----

    def _register(self, turn: Turn) -> None:
        open_keys = set()
        for name in self._exposure.positions:
            key = self._of(turn, name)
            if key is not None:
                open_keys.add(key)
        for key in self.registry.keys() - open_keys:
            del self.registry[key]

    def _of(self, turn: Turn, name: str) -> str | None:
        """The key of a position, whose levels are in the registry from now on; None while it has no price."""
        held = self._holdings.by_name.get(name)
        if held is None:
            return None
        entry = held.entry(inverse=self._market.inverse(name))
        if entry is None:
            mark = self.price(name, turn.ts)
            if mark is None:
                return None
            self._holdings.priced(name, mark)
            turn.note("entry_assumed", None, instrument=name, price=mark)
            entry = mark
        side = LONG if held.size > 0 else SHORT
        known = self.registry.get(f"{name}:{side}")
        if known is None or abs(known.entry - entry) > MOVED_MIN * entry:
            known = self._levels(turn, name, side, abs(float(held.size)), entry, known)
            self.registry[known.key] = known
        return known.key

    def _levels(self, turn: Turn, name: str, side: str, qty: float, entry: float, known: Levels | None) -> Levels:
        option = name.endswith(OPTION_ENDS)
        settings = self._settings
        gain = settings.exit_option_take_profit_pct if option else settings.exit_take_profit_pct
        loss = settings.exit_option_stop_loss_pct if option else settings.exit_stop_loss_pct
        sign = 1 if side == LONG else -1
        return Levels(name, side, qty, entry, entry * (1 + sign * gain), max(0.0, entry * (1 - sign * loss)),
                      turn.ts if known is None else known.created_ts, turn.ts)

    # ---- the ledger ----

    def _record(self, turn: Turn) -> None:
        """Tell the ledger what has changed, as far as it has room; and see what it holds by now."""
        while self._pending and self._ledger.holds(self._pending[0][0]):
            _, key, levels = self._pending.popleft()
            if levels is None:
                self.recorded.pop(key, None)
            else:
                self.recorded[key] = levels
        for key in dict.fromkeys((*self._told, *self.registry)):
            levels = self.registry.get(key)
            if self._told.get(key) == levels:
                continue
            if not self._ledger.room():
                return
            row = {"kind": "exit", "event": "struck", "key": key} if levels is None else levels.row()
            turn.send(self._ledger.append(row, turn.mono, turn.ts))
            self._pending.append((self._ledger.appended, key, levels))
            self._told[key] = levels
        for key in [key for key, levels in self._told.items() if levels is None]:
            del self._told[key]

    # ---- the scan ----

    def _scan(self, turn: Turn) -> None:
        seen_all = True
        for levels in list(self.registry.values()):
            price = self.price(levels.name, turn.ts)
            if price is None:
                seen_all = False
                continue
            reached = levels.hit(price)
            if reached is None:
                continue
            closing = self.close(turn, levels.name, levels.side)
            if closing:
                self.triggered_ts = turn.ts
                turn.note("exit_triggered", None, key=levels.key, level=reached, price=price, groups=closing)
        if seen_all:
            self.scanned_ts = turn.ts

    def price(self, name: str, ts: int) -> float | None:
        """The mark in USD, while it is fresh enough to act on."""
        ticker = self._market.tickers.get(name)
        if ticker is None or ticker.mark is None or ts - ticker.ts > self._settings.basis_price_max_age_ms:
            return None
        return usd_of(name, ticker.mark, self._market.index)
