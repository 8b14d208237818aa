"""``kpis_v7.json``: the key figures, taken from the documents beside it, so that none says one thing and another the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from system_under_test.trader.report.risk_snapshot import RiskSnapshot
from system_under_test.trader.report.router_health import RouterHealth
from system_under_test.trader.report.view import View
from system_under_test.trader.turn import Turn


class Kpis:
    """Made after the risk snapshot of the same moment."""

    def __init__(self, risk: RiskSnapshot, router: RouterHealth) -> None:
        self._risk, self._router = risk, router

    def restore(self, files: Mapping[str, bytes]) -> None:
        """Nothing: it remembers nothing of its own."""

    def document(self, turn: Turn, view: View) -> dict[str, Any] | None:
        """The figures; None while there is no snapshot."""
        risk = self._risk.last
        if risk is None:
            return None
        var, cvar = risk.get("var"), risk.get("cvar")
        tails = {} if cvar is None else cvar["per_symbol"]
        return {
            "dd_state": risk["dd_state"]["state"], "drawdown": risk["drawdown"],
            "portfolio": {
                "nav": risk["nav"], "dd_pct": risk["dd_frac"],
                "var_nav_pct": None if var is None else var["portfolio_var_nav_pct"],
                "cvar_nav_pct": None if cvar is None else cvar["portfolio_cvar_nav_pct"],
            },
            "per_symbol": {each.symbol: {
                "notional": each.notional_usd, "unrealized_pnl": each.unrealized_usd,
                "cvar_nav_pct": tails[each.symbol]["cvar_nav_pct"] if each.symbol in tails else None,
                "fills": self._router.symbols[each.symbol].fills if each.symbol in self._router.symbols else 0,
            } for each in view.positions},
            "router_health_score": self._router.score,
        }
