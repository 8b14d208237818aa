"""What the tests of the risk documents share: settings, a market without a wire, a view of the books."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import yaml
from pytest import approx

from system_under_test.machine import Note, Now, Replace
from system_under_test.trader.orders import Order
from system_under_test.trader.registry import Trade
from system_under_test.trader.report.drawdown import Drawdown
from system_under_test.trader.report.risk_snapshot import RiskSnapshot
from system_under_test.trader.report.router_health import RouterHealth
from system_under_test.trader.report.tally import Tally
from system_under_test.trader.report.view import INVERSE, OPTION, Held, View
from system_under_test.trader.settings import Settings
from system_under_test.trader.turn import Turn

POLICIES = Path(__file__).resolve().parents[2] / "system_under_test" / "policies"
PERPETUAL, CALL = "BTC-PERPETUAL", "BTC-25DEC26-100000-C"
START = 1_790_000_000_000
"""A monotonic-epoch moment, early in a day (UTC)."""


def settings(**overrides: object) -> Settings:
    """The drill policy, with some values changed."""
    policy = {**_values("reference"), **_values("drill")["overrides"], **overrides}
    return Settings.load({"POLICY": orjson.dumps(policy).decode(), "BUILD_ID": "build-1", "DEPLOYMENT_ENVIRONMENT": "DEV"})


@cache
def _values(policy: str) -> dict[str, Any]:
    return yaml.safe_load((POLICIES / f"{policy}.yaml").read_text())


def turn(ts: int = START) -> Turn:
    return Turn(Now(ts - START, ts), START)


def kept(at: Turn) -> list[dict[str, Any]]:
    """What was written through to the disk in this turn."""
    return [orjson.loads(each.data) for each in at.out if isinstance(each, Replace)]


def notes(at: Turn) -> list[Note]:
    return [each for each in at.out if isinstance(each, Note)]


def a_view(ts: int = START, *, equity: float | None = 10.0, index: float | None = 100_000.0, mode: str = "Active",
           positions: tuple[Held, ...] = (), age_ms: int = 0, registry: int = 0, unpriced: tuple[str, ...] = ()) -> View:
    """A view of a million dollars in ten coins, unless a test needs it otherwise."""
    return View(ts=ts, stamp_ms=ts, mode=mode, reasons=(), equity_btc=equity, equity_ts=None if equity is None else ts - age_ms,
                index=index, positions=positions, unpriced=unpriced, entries={},
                registry={str(each): None for each in range(registry)}, scanned_ts=None,  # type: ignore[misc]
                triggered_ts=None, tally=Tally())


def perpetual(usd: float, mark: float = 100_000.0) -> Held:
    return _held(PERPETUAL, usd, INVERSE, mark, abs(usd))


def call(coins: float, mark_usd: float) -> Held:
    return _held(CALL, coins, OPTION, mark_usd, abs(coins) * mark_usd)


def _held(symbol: str, qty: float, kind: str, mark: float, notional: float) -> Held:
    return Held(symbol=symbol, side="LONG" if qty > 0 else "SHORT", qty=Decimal(str(qty)), kind=kind, entry_price=mark,
                mark_price=mark, mark_ts=START, notional_usd=notional, unrealized_usd=0.0, realized_usd=0.0, delta_btc=None,
                opened_ts=START)


@dataclass
class Prices:
    """As much of a market as the risk documents look at."""

    index: float | None = 100_000.0
    last_ts: int | None = START
    watched: tuple[str, ...] = (PERPETUAL, CALL)
    marks: dict[str, float] = field(default_factory=lambda: {PERPETUAL: 100_000.0, CALL: 0.05})
    touches: dict[str, tuple[float, float] | None] = field(default_factory=lambda: {
        PERPETUAL: (99_999.5, 100_000.5), CALL: (0.0495, 0.0505)})

    @property
    def tickers(self) -> dict[str, Any]:
        return {name: SimpleNamespace(mark=mark) for name, mark in self.marks.items()}

    @property
    def instruments(self) -> dict[str, Any]:
        return {PERPETUAL: SimpleNamespace(kind="future", inverse=True), CALL: SimpleNamespace(kind="option", inverse=False)}

    def touch(self, name: str, ts: int) -> tuple[float, float] | None:
        return self.touches[name]


class Room:
    """The risk organs as the trader has them, publish by publish."""

    def __init__(self, **overrides: object) -> None:
        self.settings = settings(**overrides)
        self.market = Prices()
        self.router = RouterHealth(self.settings, self.market)  # type: ignore[arg-type]
        self.risk = RiskSnapshot(self.settings, self.market, self.router)  # type: ignore[arg-type]
        self.ts = START

    def publish(self, after_ms: int = 1_000, *, lands: bool = True, **view: Any) -> dict[str, Any]:
        """Some time later the next snapshot is told, and stands in its file unless a test says otherwise."""
        self.ts += after_ms
        document = self.risk.document(turn(self.ts), a_view(self.ts, **view))
        assert document is not None
        if lands:
            self.risk.landed(turn(self.ts))
        return orjson.loads(orjson.dumps(document))

    def equities(self, *equities: float, **view: Any) -> list[dict[str, Any]]:
        """Snapshots of these values of the account in coins, a second apart."""
        return [self.publish(equity=each, **view) for each in equities]

    def bars(self, *moves: float, names: tuple[str, ...] = ("index", PERPETUAL)) -> None:
        """One bar for each move of the named prices."""
        for move in moves if self.risk.bars.started else (0.0, *moves):
            if "index" in names:
                self.market.index *= 1 + move  # type: ignore[operator]
            for name in names:
                if name in self.market.marks:
                    self.market.marks[name] *= 1 + move
            self.ts += self.settings.risk_bar_ms
            self.market.last_ts = self.ts
            self.risk.tick(turn(self.ts), ())

    @property
    def drawdown(self) -> Drawdown:
        return self.risk.drawdown


def order(number: int, name: str = PERPETUAL, side: str = "buy", qty: float = 1_000.0, *, immediate: bool = True) -> Order:
    """An order as far as the router looks at it."""
    intent = SimpleNamespace(intent_id=f"i{number}", instrument=name, side=side, qty=Decimal(str(qty)),
                             time_in_force="immediate_or_cancel" if immediate else "good_til_cancelled")
    return SimpleNamespace(intent=intent)  # type: ignore[return-value]


def trade(name: str, side: str, qty: float, price: float) -> Trade:
    return Trade("t", "o", None, name, side, Decimal(str(qty)), Decimal(str(price)), START)


__all__ = ["CALL", "PERPETUAL", "START", "Prices", "Room", "a_view", "approx", "call", "kept", "notes", "order", "perpetual",
           "settings", "trade", "turn"]
