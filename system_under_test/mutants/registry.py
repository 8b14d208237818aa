"""Sabotages of the trade registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader
from system_under_test.trader.ledger import History
from system_under_test.trader.registry import Trade, TradeRegistry
from system_under_test.trader.turn import Turn

REMEMBERED = 2


def forgets_fills(environment: Mapping[str, str]) -> Trader:
    """Only the last two trades are remembered: drill 5 must say that a late fill was counted twice
    (law ``every_fill_once``).

    Real bugs look like this: a bounded cache of ids, large enough for every day on which nothing is late.
    """

    def sabotage(trader: Trader) -> None:
        restore = trader.desk.restore

        def restore_and_spoil(history: History) -> None:
            restore(history)
            registry = trader.desk.registry
            honest, recent = registry.first, list[str]()

            def first(trade: Trade, intent_id: str | None, ts: int = 0) -> bool:
                fresh = honest(trade, intent_id, ts) or trade.trade_id not in recent
                recent[:] = [*recent, trade.trade_id][-REMEMBERED:] if fresh else recent
                return fresh

            graft(registry, "first", first)

        graft(trader.desk, "restore", restore_and_spoil)

    return operate(environment, sabotage)


def forgets_over_night(environment: Mapping[str, str]) -> Trader:
    """Which trades were counted is forgotten by a restart: drill 4 must say that a fill was counted twice
    (law ``every_fill_once``).

    Real bugs look like this: a set in memory, filled as trades come in.
    """

    def sabotage(trader: Trader) -> None:
        restore = trader.desk.restore

        def restore_without_trades(history: History) -> None:
            restore(history)
            trader.desk.registry = TradeRegistry()

        graft(trader.desk, "restore", restore_without_trades)

    return operate(environment, sabotage)


def passes_over_orphans(environment: Mapping[str, str]) -> Trader:
    """A fill that belongs to no known order is passed over: drill 15 must say that it was never counted (law
    ``every_fill_once``).

    Real bugs look like this: the fill is looked up by its order, and where there is none the function returns.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.desk.on_trade

        def on_trade(turn: Turn, raw: Mapping[str, Any]) -> None:
            if trader.desk.orders.match(raw.get("label"), raw.get("order_id")) is not None:
                honest(turn, raw)

        graft(trader.desk, "on_trade", on_trade)

    return operate(environment, sabotage)


def shrugs_off_orphans(environment: Mapping[str, str]) -> Trader:
    """A fill that belongs to no known order is counted, and nothing is latched: drill 15 must say so (``orphaned``).

    Real bugs look like this: the numbers add up again, so the ticket was closed.
    """

    def sabotage(trader: Trader) -> None:
        graft(trader.desk, "on_orphan", trader.floor.orphan)

    return operate(environment, sabotage)
