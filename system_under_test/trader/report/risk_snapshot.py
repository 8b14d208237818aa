"""``risk_snapshot.json``: what the account risks, against which limits, and what is odd about it (v7.6 state contract).

Made once per publish from the view of that moment, so that it agrees with what is written beside it. Value is in USD,
and the coins that the account holds are an asset like any position: most of what may be lost is there. A source that is
missing (no value in this life, no index, a position without a price) is a reason to halt, never a zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from system_under_test.trader.market import Market
from system_under_test.trader.policy import KILL
from system_under_test.trader.report.bars import DAY_MS, DAYS_A_YEAR, Bars, Z, deviation
from system_under_test.trader.report.drawdown import Drawdown, entry, read
from system_under_test.trader.report.files import NODE
from system_under_test.trader.report.router_health import RouterHealth
from system_under_test.trader.report.view import INVERSE, OPTION, View
from system_under_test.trader.settings import Settings
from system_under_test.trader.turn import Turn

FILE = "state/risk_snapshot.json"
VAR_CONFIDENCE, CVAR_CONFIDENCE = 0.99, 0.95
OK, WARN, DEFENSIVE, HALTED = "OK", "WARN", "DEFENSIVE", "HALTED"
MEAN_FALLBACK_MAX = 0.5


class RiskSnapshot:
    """The document, and what it must remember from one to the next."""

    def __init__(self, settings: Settings, market: Market, router: RouterHealth) -> None:
        self._settings, self._market, self._router = settings, market, router
        self.drawdown = Drawdown(settings)
        self.bars = Bars(settings.risk_bar_ms, settings.risk_window_bars, settings.risk_half_life_bars)
        self._noted_ts = 0
        self.last: Mapping[str, Any] | None = None
        """what was told last"""

    def restore(self, files: Mapping[str, bytes], nav: float | None = None) -> None:
        """What an earlier life left: its memory, its last snapshot, and the value that nav.json goes on telling, which may be a
        loop younger than the snapshot."""
        snapshot = read(files.get(FILE))
        own = entry(snapshot, "writer").get("node") == NODE  # a stranger's snapshot is not what we said
        self.drawdown.restore(files, snapshot if own else {}, nav)

    def tick(self, turn: Turn, held: Sequence[str]) -> None:
        """Note the prices when a bar is over, if any has been heard since; a silent market moves nobody's risk."""
        market = self._market
        if not self.bars.due(turn.ts) or market.index is None or (market.last_ts or 0) <= self._noted_ts:
            return
        self._noted_ts = turn.ts
        prices = {self._settings.currency: market.index}
        for name in dict.fromkeys((*market.watched, *held)):
            ticker, known = market.tickers.get(name), market.instruments.get(name)
            if ticker is not None and ticker.mark is not None and known is not None:
                prices[name] = ticker.mark * market.index if known.kind == OPTION else ticker.mark
        self.bars.note(turn.ts, prices)

    def document(self, turn: Turn, view: View) -> dict[str, Any] | None:
        """The snapshot; None before any value is known, of this life or an earlier one."""
        known = view.nav_usd is not None
        nav = view.nav_usd if known else self.drawdown.nav
        if nav is None:
            return None
        self.drawdown.take(turn, nav)
        weights = self._weights(view, nav)
        var = cvar = None
        if nav > 0 and weights is not None and all(map(math.isfinite, weights.values())):
            var, cvar = self._var(nav, weights), self._cvar(weights)
        inputs = {
            "config_load_failed": False, "sources_ok": known and weights is not None,
            "nav_age_s": None if view.nav_age_ms is None else view.nav_age_ms / 1_000,
            "kill": view.mode == KILL, "router": self._router.trouble(turn.ts),
        }
        anomalies = self._anomalies(turn, nav, var, cvar)
        self.last = {
            "nav": nav, "nav_total": nav, **self._mode(inputs), **self._drawdown(),
            "circuit_breaker": {"max_portfolio_dd_nav_pct": self._settings.max_portfolio_dd_nav_pct,
                                "active": self.drawdown.broken},
            "correlation_groups": self._groups(view, nav), "tp_sl_registry": _registry(view),
            **({"var": var, "cvar": cvar} if var is not None else {}),
            "anomalies": anomalies, "anomaly_codes": sorted(anomalies), "risk_inputs": inputs,
        }
        return dict(self.last)

    def landed(self, turn: Turn) -> None:
        """The last document stands in its file: from now on it is the snapshot before."""
        self.drawdown.landed(turn)

    # ---- the parts ----

    def _drawdown(self) -> dict[str, Any]:
        seen = self.drawdown
        return {
            "dd_frac": seen.pct, "daily_loss_frac": seen.daily_loss, "portfolio_dd_pct": seen.pct,
            "drawdown": {"dd_pct": seen.pct, "peak": seen.peak},
            "dd_state": {"state": seen.state, "previous": seen.told_state,
                         "drawdown": {"dd_pct": seen.pct, "peak": seen.peak},
                         "daily_loss": {"pct": seen.daily_loss, "day_start": seen.day_start}},
        }

    def _mode(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        mode, reason, score = self._first_mode(inputs)
        return {"risk_mode": mode, "risk_mode_reason": reason, "risk_mode_score": score}

    def _first_mode(self, inputs: Mapping[str, Any]) -> tuple[str, str, float]:
        """The first that holds, from worst to best."""
        limits, lost, today = self._settings, self.drawdown.pct, self.drawdown.daily_loss
        age, router = inputs["nav_age_s"], inputs["router"]
        if not inputs["sources_ok"]:
            return HALTED, "sources: the account's value is not known", 1.0
        if inputs["kill"]:
            return HALTED, "trading_mode is Kill", 1.0
        if age > limits.risk_nav_age_s_max:
            return HALTED, f"nav is {age:.0f} s old", 1.0
        if lost >= limits.risk_defensive_dd_frac:
            return DEFENSIVE, f"drawdown {lost:.4f}", min(1.0, lost / limits.risk_defensive_dd_frac)
        if today >= limits.risk_defensive_daily_loss_frac:
            return DEFENSIVE, f"daily loss {today:.4f}", min(1.0, today / limits.risk_defensive_daily_loss_frac)
        if router["degraded"] + router["broken"] > 0 or router["mean_fallback"] > MEAN_FALLBACK_MAX:
            return WARN, "router", 0.5
        return OK, "within limits", 0.0

    def _weights(self, view: View, nav: float) -> dict[str, float] | None:
        """What each asset is worth, or moves like, as a share of the value, signed; None when a price is missing."""
        index, coins = view.index, view.equity_btc
        if index is None or coins is None or nav <= 0 or view.unpriced:
            return None
        weights: dict[str, float] = {}
        for each in view.positions:
            worth = float(each.qty) if each.kind == INVERSE else float(each.qty) * each.mark_price
            weights[each.symbol] = worth / nav
            if each.kind == OPTION:  # its premium has been paid out of the coins, and is part of the account's equity
                coins -= worth / index
        return {self._settings.currency: coins * index / nav, **weights}

    def _var(self, nav: float, weights: Mapping[str, float]) -> dict[str, Any]:
        assets, limit = list(weights), self._settings.max_portfolio_var_nav_pct
        shares, matrix = list(weights.values()), self.bars.covariance(assets)
        day = deviation(shares, matrix)
        var = Z[VAR_CONFIDENCE] * day
        return {
            "portfolio_var_usd": var * nav, "portfolio_var_nav_pct": var, "max_portfolio_var_nav_pct": limit,
            "within_limit": var <= limit, "portfolio_volatility": day * DAYS_A_YEAR ** 0.5,
            "confidence": VAR_CONFIDENCE, "z": Z[VAR_CONFIDENCE], "n_assets": len(assets), "bars": self.bars.count,
            "horizon_s": DAY_MS // 1_000, "covariance": {"assets": assets, "weights": shares, "matrix": matrix},
        }

    def _cvar(self, weights: Mapping[str, float]) -> dict[str, Any]:
        limit = self._settings.max_position_cvar_nav_pct
        tails = {name: self.bars.tail({name: weight}, CVAR_CONFIDENCE) for name, weight in weights.items()}
        whole = self.bars.tail(weights, CVAR_CONFIDENCE) if len(tails) != 1 else next(iter(tails.values()))
        return {
            "per_symbol": {name: {"cvar_nav_pct": tail, "limit": limit, "within_limit": tail <= limit}
                           for name, tail in tails.items()},
            "portfolio_cvar_nav_pct": whole, "max_position_cvar_nav_pct": limit,
            "confidence": CVAR_CONFIDENCE,
        }

    def _groups(self, view: View, nav: float) -> dict[str, Any]:
        """Everything here moves with one currency: one group."""
        gross = sum(each.notional_usd for each in view.positions)
        return {self._settings.currency: {"gross_nav_pct": gross / nav if nav > 0 else 0.0,
                                          "max_group_nav_pct": self._settings.max_group_nav_pct}}

    def _anomalies(self, turn: Turn, nav: float, var: Mapping[str, Any] | None,
                   cvar: Mapping[str, Any] | None) -> dict[str, Any]:
        limits, before, found = self._settings, self.drawdown.told_nav, dict[str, Any]()
        if before is not None and before > 0:
            moved = abs(nav - before)
            if moved / before > limits.nav_jump_multiplier - 1 or moved > limits.nav_jump_usd:
                found["nav_jump"] = {"old": before, "new": nav, "pct": moved / before}
        if var is not None and not var["within_limit"]:
            found["var_limit_breach"] = True
        if cvar is not None and not all(each["within_limit"] for each in cvar["per_symbol"].values()):
            found["cvar_limit_breach"] = True
        if self.drawdown.flaps(turn.ts):
            found["dd_flap"] = {"changes": self.drawdown.changes(turn.ts), "window_s": limits.dd_flap_window_s,
                                "changes_max": limits.dd_flap_changes_max}
        return found


def _registry(view: View) -> dict[str, Any]:
    positions, levels = len(view.positions), len(view.registry)
    return {"num_positions": positions, "num_registry_entries": levels, "registry_mismatch": positions > 0 and not levels}
