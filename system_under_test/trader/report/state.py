"""The trader's own state documents (v7.6 state contract): value, positions, their exit levels, and how it fares.

Each is a pure function of one `View`. Times that name the document are added by `files`; all others are ISO 8601 with Z.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from system_under_test.trader.levels import Levels
from system_under_test.trader.report.drawdown import number
from system_under_test.trader.report.view import Held, View, iso
from system_under_test.trader.settings import Settings

UNDERWATER_FRAC = -0.02
"""Profit as a share of the entry price, at or below which a position without levels counts (v7.6)."""

TOP_VETOES = 5


class Nav:
    """``nav.json``: net asset value in USD, what the exchange says the account is worth, at the index of now.

    Before the account has spoken in this life it is the last value of an earlier one, with the time it was told; before
    that there is no file: a value that was never told is not 0.
    """

    def __init__(self) -> None:
        self._known: dict[str, Any] | None = None

    def restore(self, document: Mapping[str, Any] | None) -> None:
        """What this node wrote last in an earlier life, if that can be read."""
        if document is not None and number(document.get("nav_usd")) is not None:
            self._known = {key: document.get(key) for key in VALUED}

    @property
    def value(self) -> float | None:
        """What is told until a new value is heard, if anything is."""
        return None if self._known is None else float(self._known["nav_usd"])

    def document(self, view: View) -> dict[str, Any] | None:
        """The document of this moment; None while nobody knows the value."""
        value = view.nav_usd
        if value is not None:
            self._known = {
                "nav": value, "nav_usd": value, "aum": {"futures": value, "offexchange": {}, "total": value},
                "nav_detail": {"equity": view.equity_btc, "index_price": view.index, "told_ts": iso(view.equity_ts)},
            }
        return None if self._known is None else {**self._known, "exec_stats": _exec_stats(view)}


VALUED = ("nav", "nav_usd", "aum", "nav_detail")
"""The keys of nav.json that say what the account is worth."""


def _exec_stats(view: View) -> dict[str, Any]:
    day = view.tally.day(view.ts)
    return {
        "attempted_24h": day.orders, "executed_24h": day.filled, "vetoes_24h": sum(day.vetoes.values()),
        "fill_rate": day.filled / day.orders if day.orders else 0.0,
        "top_vetoes": [{"reason": reason, "count": count} for reason, count in day.vetoes.most_common(TOP_VETOES)],
    }


def positions(view: View) -> dict[str, Any]:
    """Everything that is held."""
    return {"positions": [{
        "symbol": each.symbol, "side": each.side, "qty": float(each.qty), "qty_unit": each.qty_unit,
        "entry_price": each.entry_price, "mark_price": each.mark_price, "unrealized_pnl": each.unrealized_usd,
        "realized_pnl": each.realized_usd, "notional": each.notional_usd, "leverage": None, "ts": iso(each.mark_ts),
    } for each in view.positions]}


def ledger(view: View) -> dict[str, Any]:
    """What the intent ledger durably says about exit levels, beside the registry that is scanned."""
    held = {each.key: each for each in view.positions}
    entries = [_entry(levels, held.get(key)) for key, levels in view.entries.items()]
    return {
        "entries": entries,
        "tp_sl_levels": {key: {"tp": each.take_profit, "sl": each.stop_loss} for key, each in view.registry.items()},
        "metadata": {"version": "v1", "entry_count": len(entries)},
    }


def _entry(levels: Levels, held: Held | None) -> dict[str, Any]:
    return {
        "position_key": levels.key, "symbol": levels.name, "side": levels.side,
        "qty": levels.qty if held is None else abs(float(held.qty)),
        "entry_price": levels.entry if held is None else held.entry_price,
        "tp": levels.take_profit, "sl": levels.stop_loss,
        "created_ts": iso(levels.created_ts), "updated_ts": iso(levels.updated_ts),
    }


def diagnostics(view: View, settings: Settings) -> dict[str, Any]:
    """Refusals by reason, the exit pipeline, and what has been idle for too long."""
    tally = view.tally
    return {"runtime_diagnostics": {
        "veto_counters": {
            "by_reason": dict(tally.vetoes), "total_signals": tally.signals, "total_orders": tally.orders,
            "total_vetoes": sum(tally.vetoes.values()), "last_signal_ts": iso(tally.signal_ts),
            "last_order_ts": iso(tally.order_ts), "last_veto_ts": iso(tally.veto_ts),
        },
        "exit_pipeline": {
            "last_exit_scan_ts": iso(view.scanned_ts), "last_exit_trigger_ts": iso(view.triggered_ts),
            "last_router_event_ts": iso(tally.router_ts), **pipeline(view),
        },
        "liveness": liveness(view, settings),
    }}


def pipeline(view: View) -> dict[str, Any]:
    """Positions, ledger and registry against each other."""
    held = {each.key: each for each in view.positions}
    without_levels = [key for key in view.entries if key not in view.registry]  # an entry always has both levels
    breakdown = {
        "missing_ledger_positions": sum(key not in view.entries for key in held),
        "ghost_ledger_entries": sum(key not in held for key in view.entries),
        "missing_tp_sl_entries": len(without_levels),
        "stale_tp_sl_entries": sum(key not in held for key in view.registry),
    }
    return {
        "open_positions_count": len(held),
        "tp_sl_registered_count": len(view.entries),
        "tp_sl_missing_count": breakdown["missing_tp_sl_entries"] + breakdown["missing_ledger_positions"],
        "underwater_without_tp_sl_count": sum(key in held and _profit(held[key]) <= UNDERWATER_FRAC for key in without_levels),
        "tp_sl_coverage_pct": len(view.entries) / len(held) if held else 0.0,
        "ledger_registry_mismatch": any(breakdown.values()),
        "mismatch_breakdown": breakdown,
    }


def _profit(held: Held) -> float:
    moved = (held.mark_price - held.entry_price) / held.entry_price
    return moved if held.qty > 0 else -moved


def liveness(view: View, settings: Settings) -> dict[str, Any]:
    """What has not happened for longer than it may. A limit of 0 is none."""
    tally = view.tally
    idle: dict[str, bool] = {}
    details: dict[str, float] = {}
    missing: dict[str, bool] = {}
    for name, last_ts, limit_s in (
        ("signals", tally.signal_ts, settings.max_idle_signals_seconds),
        ("orders", tally.order_ts, settings.max_idle_orders_seconds),
        ("exits", view.triggered_ts, settings.max_idle_exits_seconds),
        ("router", tally.router_ts, settings.max_idle_router_events_seconds),
    ):
        idle[f"idle_{name}"] = False
        if not limit_s:
            continue
        if last_ts is None:
            missing[f"{name}_idle_seconds"] = True
        age_s = limit_s + 1.0 if last_ts is None else max(0, view.stamp_ms - last_ts) / 1_000
        details[f"{name}_idle_seconds"] = age_s
        idle[f"idle_{name}"] = age_s > limit_s
    return {**idle, "details": details, "missing": missing}


