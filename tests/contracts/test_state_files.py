"""The state files, one by one: every rule is broken by a document that breaks nothing else, and every oddity is decided."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from harness.contracts import state_files
from harness.contracts.state_files import Contract, Finding, read_surfaces
from harness.contracts.state_files.factors import _dot, clamped, orthogonalised
from harness.errors import SpecError

ROOT = Path(__file__).parents[2]
LAWFUL = ROOT / "fixtures" / "state" / "lawful"
SURFACES = read_surfaces()
GONE = object()


def lawful(name: str) -> dict[str, Any]:
    """The lawful document of a surface."""
    found: dict[str, Any] = json.loads((LAWFUL / SURFACES.by_name[name].file).read_bytes())
    return found


def edited(document: dict[str, Any], edits: Mapping[str, Any]) -> dict[str, Any]:
    """The document with values at paths of keys and positions; GONE takes one away."""
    document = deepcopy(document)
    for path, value in edits.items():
        place: Any = document
        *parts, last = path.split("/")
        for part in parts:
            place = place[int(part)] if isinstance(place, list) else place[part]
        key: Any = int(last) if isinstance(place, list) else last
        if value is GONE:
            del place[key]
        elif isinstance(place, list) and key == len(place):
            place.append(value)
        else:
            place[key] = value
    return document


def found_in(name: str, edits: Mapping[str, Any], policy: Mapping[str, Any] | None = None) -> list[Finding]:
    return Contract.load(part=name, policy=policy).check(edited(lawful(name), edits))


@pytest.mark.parametrize("name", SURFACES.by_name)
def test_the_lawful_folder_keeps_every_rule(name: str) -> None:
    """One document of each surface has neither a breach nor a deviation, and the reference validator agrees."""
    document = lawful(name)
    assert Contract.load(part=name).check(json.dumps(document).encode()) == []
    schema = json.loads((ROOT / "specs/state/schemas" / f"{Path(SURFACES.by_name[name].file).stem}.schema.json").read_bytes())
    Draft202012Validator.check_schema(schema)
    assert list(Draft202012Validator(schema).iter_errors(document)) == []


T = 1795262400.25
LONG, SHORT = "BTC-27NOV26-60000-C", "BTC-PERPETUAL"
PIPE, LIVE, VETO = (f"runtime_diagnostics/{each}" for each in ("exit_pipeline", "liveness", "veto_counters"))
GLOBAL, SYMBOL = "router_health/global", f"router_health/per_symbol/{SHORT}"
WEIGHTS = dict.fromkeys(("momentum", "carry", "liquidity", "volatility"), 0.25)
UNEVEN = dict(zip(WEIGHTS, (0.05, 0.4, 0.4, 0.15), strict=True))
ONE = {"momentum": 1.0}


def weights_of(weights: dict[str, float]) -> dict[str, Any]:
    """The edits by which a file says these weights wherever it says any."""
    return {"weights": weights, "factor_weights/weights": weights, "pnl_attribution/weights": weights}


VAR, VOLATILITY = (lawful("risk_snapshot")["var"][key] for key in ("portfolio_var_nav_pct", "portfolio_volatility"))


def loss_of(share: float) -> dict[str, Any]:
    """The edits by which a snapshot tells this value at risk."""
    return {"var/portfolio_var_nav_pct": share, "var/portfolio_var_usd": share * 600_000}


BROKEN: list[tuple[str, dict[str, Any], str, str]] = [
    # surface, edits, tag, path of the finding; a tag in lower case is a deviation
    ("nav", {"nav": "600000"}, "SCHEMA", "/nav"),
    ("nav", {"nav": None}, "SCHEMA", "/nav"),
    ("nav", {"nav_usd": GONE}, "SCHEMA", ""),
    ("nav", {"aum/total": 1.0}, "RECOMPUTED", "/aum/total"),
    ("nav", {"exec_stats/fill_rate": 1.25}, "SCHEMA", "/exec_stats/fill_rate"),
    ("nav", {"updated_ts": GONE}, "TIME", "/updated_ts"),
    ("nav", {"updated_ts": None}, "SCHEMA", "/updated_ts"),
    ("nav", {"updated_ts": -1}, "TIME", "/updated_ts"),
    ("nav", {"updated_ts": "yesterday"}, "TIME", "/updated_ts"),
    ("nav", {"updated_ts": "2026-11-21T12:00:00"}, "TIME", "/updated_ts"),
    ("nav", {"updated_ts": "2026-13-21T12:00:00Z"}, "TIME", "/updated_ts"),
    ("nav", {"updated_ts": "1795262400.25"}, "TIME", "/updated_ts"),
    ("nav", {"updated_ts": "2026-11-21T12:00:00Z"}, "time", "/updated_ts"),
    ("nav", {"updated_ts": T * 1000}, "time", "/updated_ts"),
    ("nav", {"updated_ts": "1795262400"}, "time", "/updated_ts"),
    ("nav", {"updated_ts": GONE, "updated_at": T}, "time", "/updated_ts"),
    ("nav", {"updated_ts": GONE, "timestamp": T}, "time", "/updated_ts"),
    ("nav", {"updated_at": T - 60}, "TIME", "/updated_ts"),
    ("nav", {"writer/node": "sync"}, "WRITER", "/writer/node"),
    ("nav", {"writer/seq": GONE}, "SCHEMA", "/writer"),
    ("nav", {"nav_detail": {"equity": 5.0, "index_price": 1e5}}, "RECOMPUTED", "/nav_usd"),
    ("nav", {"exec_stats/executed_24h": 500}, "SEMANTIC", "/exec_stats/executed_24h"),
    ("nav", {"exec_stats/fill_rate": 1.0}, "RECOMPUTED", "/exec_stats/fill_rate"),
    ("nav_state", {"total_equity": GONE, "peak_equity": 1.2e6}, "RECOMPUTED", "/drawdown"),
    ("nav_state", {"total_equity": GONE, "nav_usd": GONE, "peak_equity": 5.0}, "SEMANTIC", "/peak_equity"),
    ("nav_state", {"total_equity": GONE, "nav": GONE, "nav_usd": GONE}, "SCHEMA", ""),
    ("nav_state", {"total_equity": GONE}, "key", "/total_equity"),
    ("nav_state", {"drawdown": GONE}, "key", "/drawdown"),
    ("nav_state", {"aum": GONE}, "key", "/aum"),
    ("nav_state", {"drawdown": 0.1}, "RECOMPUTED", "/drawdown"),
    ("nav_state", {"drawdown": -0.1, "peak_equity": GONE}, "UNIT", "/drawdown"),
    ("nav_state", {"drawdown": 9.0, "peak_equity": GONE}, "unit", "/drawdown"),
    ("nav_state", {"peak_equity": 5.0}, "SEMANTIC", "/peak_equity"),
    ("nav", {"aum": {"futures": 1.7e308, "offexchange": {"vault": 1.7e308}, "total": 6e5}}, "RECOMPUTED", "/aum/total"),
    ("positions_state", {"positions/0/qty": 1e200, "positions/0/mark_price": 1e200, "positions/0/notional": 0.0},
     "RECOMPUTED", "/positions/0/notional"),
    ("positions_state", {"positions": GONE}, "SCHEMA", ""),
    ("positions_state", {"positions/0/mark_price": 0.0, "positions/0/notional": 0.0}, "SEMANTIC", "/positions/0/mark_price"),
    ("positions_state", {"positions/1/entry_price": 0.0}, "SEMANTIC", "/positions/1/entry_price"),
    ("positions_state", {"positions/0/notional": 240.0}, "RECOMPUTED", "/positions/0/notional"),
    ("positions_state", {"positions/1/notional": 1.0}, "RECOMPUTED", "/positions/1/notional"),
    ("positions_state", {"positions/0/unrealized_pnl": 1e9}, "RECOMPUTED", "/positions/0/unrealized_pnl"),
    ("positions_state", {"positions/1/unrealized_pnl": -5.0}, "RECOMPUTED", "/positions/1/unrealized_pnl"),
    ("positions_state", {"positions/1/side": "LONG"}, "SEMANTIC", "/positions/1/side"),
    ("positions_state", {"positions/1/side": "BOTH"}, "semantic", "/positions/1/side"),
    ("positions_state", {"positions/2": {**lawful("positions_state")["positions"][1], "side": "SELL"}},
     "SEMANTIC", "/positions/2"),
    ("positions_state", {"positions/0/realized_pnl": GONE}, "SCHEMA", "/positions/0"),
    ("positions_ledger", {"entries": GONE}, "SCHEMA", ""),
    ("positions_ledger", {"entries": {}}, "SCHEMA", "/entries"),
    ("positions_ledger", {"metadata/entry_count": 3}, "RECOMPUTED", "/metadata/entry_count"),
    ("positions_ledger", {"entries/0/qty": 0}, "SCHEMA", "/entries/0/qty"),
    ("positions_ledger", {"entries/0/position_key": "X:LONG"}, "SEMANTIC", "/entries/0/position_key"),
    ("positions_ledger", {"entries/2": lawful("positions_ledger")["entries"][0], "metadata/entry_count": 3},
     "SEMANTIC", "/entries/2"),
    ("positions_ledger", {"entries/0/tp": 1100.0}, "SEMANTIC", "/entries/0/tp"),
    ("positions_ledger", {f"tp_sl_levels/{SHORT}:SHORT/sl": 50000.0}, "SEMANTIC", f"/tp_sl_levels/{SHORT}:SHORT/tp"),
    ("positions_ledger", {"tp_sl_levels": GONE}, "key", "/tp_sl_levels"),
    ("positions_ledger", {"entries/0/created_ts": "yesterday"}, "TIME", "/entries/0/created_ts"),
    ("positions_ledger", {"entries/0/updated_ts": "2026-11-21T12:00:00"}, "TIME", "/entries/0/updated_ts"),
    ("positions_ledger", {"entries/0/created_ts": T}, "SEMANTIC", "/entries/0/updated_ts"),
    ("kpis", {"updated_at": GONE}, "TIME", "/updated_at"),
    ("kpis", {"portfolio": GONE}, "SCHEMA", ""),
    ("kpis", {"portfolio/dd_pct": 3.0}, "unit", "/portfolio/dd_pct"),
    ("diagnostics", {LIVE: GONE}, "SCHEMA", "/runtime_diagnostics"),
    ("diagnostics", {f"{VETO}/total_vetoes": 2}, "RECOMPUTED", f"/{VETO}/total_vetoes"),
    ("diagnostics", {f"{VETO}/total_orders": 0}, "SEMANTIC", f"/{VETO}/last_order_ts"),
    ("diagnostics", {f"{VETO}/by_reason": {"": 3}}, "SEMANTIC", f"/{VETO}/by_reason"),
    ("diagnostics", {f"{PIPE}/tp_sl_coverage_pct": 0.5}, "RECOMPUTED", f"/{PIPE}/tp_sl_coverage_pct"),
    ("diagnostics", {f"{PIPE}/tp_sl_coverage_pct": 1.5, f"{PIPE}/tp_sl_registered_count": 3},
     "unit", f"/{PIPE}/tp_sl_coverage_pct"),
    ("diagnostics", {f"{PIPE}/tp_sl_missing_count": 1}, "RECOMPUTED", f"/{PIPE}/tp_sl_missing_count"),
    ("diagnostics", {f"{PIPE}/ledger_registry_mismatch": True}, "RECOMPUTED", f"/{PIPE}/ledger_registry_mismatch"),
    ("diagnostics", {f"{PIPE}/mismatch_breakdown/stale_tp_sl_entries": 1}, "RECOMPUTED", f"/{PIPE}/ledger_registry_mismatch"),
    ("diagnostics", {f"{PIPE}/underwater_without_tp_sl_count": 1}, "RECOMPUTED", f"/{PIPE}/underwater_without_tp_sl_count"),
    ("diagnostics", {f"{PIPE}/last_exit_scan_ts": "2026-11-21T12:00:00"}, "TIME", f"/{PIPE}/last_exit_scan_ts"),
    ("diagnostics", {f"{PIPE}/last_exit_scan_ts": None}, "semantic", f"/{PIPE}/last_exit_scan_ts"),
    ("diagnostics", {f"{PIPE}/last_exit_scan_ts": "2026-11-21T11:44:00.000Z"}, "semantic", f"/{PIPE}/last_exit_scan_ts"),
    ("diagnostics", {f"{VETO}/last_veto_ts": T - 60}, "time", f"/{VETO}/last_veto_ts"),
    ("diagnostics", {f"{LIVE}/idle_signals": True}, "LIMIT", f"/{LIVE}/idle_signals"),
    ("diagnostics", {f"{LIVE}/details/signals_idle_seconds": 3.0}, "RECOMPUTED", f"/{LIVE}/details/signals_idle_seconds"),
    ("diagnostics", {f"{LIVE}/details/orders_idle_seconds": GONE}, "RECOMPUTED", f"/{LIVE}/details/orders_idle_seconds"),
    ("diagnostics", {f"{LIVE}/missing": {}}, "RECOMPUTED", f"/{LIVE}/missing/exits_idle_seconds"),
    ("diagnostics", {f"{LIVE}/missing/router_idle_seconds": True}, "RECOMPUTED", f"/{LIVE}/missing/router_idle_seconds"),
    ("diagnostics", {f"{LIVE}/details": {}, f"{LIVE}/missing": {}, f"{LIVE}/idle_exits": True},
     "RECOMPUTED", f"/{LIVE}/details/exits_idle_seconds"),
    ("diagnostics", {f"{LIVE}/idle_exits": False, f"{LIVE}/details/exits_idle_seconds": 3600.0},
     "LIMIT", f"/{LIVE}/idle_exits"),
    ("risk_snapshot", {"risk_mode": "PANIC"}, "SCHEMA", "/risk_mode"),
    ("risk_snapshot", {"circuit_breaker": GONE}, "SCHEMA", ""),
    ("risk_snapshot", {"nav": GONE, "nav_total": GONE}, "SCHEMA", ""),
    ("risk_snapshot", {"nav_total": 600001.9}, "SEMANTIC", "/nav_total"),
    ("risk_snapshot", {"dd_state": {"dd_state": "normal", "drawdown": {"dd_pct": 0.0}}}, "SCHEMA", "/dd_state"),
    ("risk_snapshot", {"dd_state/drawdown/dd_pct": 0.1, "dd_state/state": "DRAWDOWN", "dd_frac": 0.1},
     "RECOMPUTED", "/dd_state/drawdown/dd_pct"),
    ("risk_snapshot", {"dd_state/daily_loss/day_start": 650_000.0}, "RECOMPUTED", "/dd_state/daily_loss/pct"),
    ("risk_snapshot", {"dd_state/drawdown/peak": 5.0}, "SEMANTIC", "/dd_state/drawdown/peak"),
    ("risk_snapshot", {"portfolio_dd_pct": 0.5}, "semantic", "/portfolio_dd_pct"),
    ("risk_snapshot", {"dd_frac": None}, "RECOMPUTED", "/dd_frac"),
    ("risk_snapshot", {"circuit_breaker/active": True}, "LIMIT", "/circuit_breaker/active"),
    ("risk_snapshot", {"dd_state": {"state": "DRAWDOWN", "drawdown": {"dd_pct": 0.1}}, "dd_frac": 0.1, "portfolio_dd_pct": 0.1},
     "limit", "/circuit_breaker/active"),
    ("risk_snapshot", {"cvar/max_position_cvar_nav_pct": 0.9}, "LIMIT", "/cvar/max_position_cvar_nav_pct"),
    ("risk_snapshot", {"risk_inputs": GONE, "risk_mode": "HALTED"}, "RECOMPUTED", "/risk_mode_score"),
    ("risk_snapshot", {"dd_frac": 0.01}, "RECOMPUTED", "/dd_frac"),
    ("risk_snapshot", {"daily_loss_frac": 0.01}, "RECOMPUTED", "/daily_loss_frac"),
    ("risk_snapshot", {"dd_state/state": "RECOVERY"}, "LIMIT", "/dd_state/state"),
    ("risk_snapshot", {"dd_state/state": "UNKNOWN"}, "semantic", "/dd_state/state"),
    ("risk_snapshot", {"circuit_breaker/max_portfolio_dd_nav_pct": 0.2}, "LIMIT", "/circuit_breaker/max_portfolio_dd_nav_pct"),
    ("risk_snapshot", {"var/within_limit": False}, "LIMIT", "/var/within_limit"),
    ("risk_snapshot", {"var/max_portfolio_var_nav_pct": 0.5}, "LIMIT", "/var"),
    ("risk_snapshot", {"var/portfolio_var_usd": 1.0}, "RECOMPUTED", "/var/portfolio_var_nav_pct"),
    ("risk_snapshot", {"var/portfolio_volatility": 1.0}, "RECOMPUTED", "/var/portfolio_var_nav_pct"),
    ("risk_snapshot", {"var/portfolio_volatility": 99.0, "var/confidence": 0.8}, "SEMANTIC", "/var/confidence"),
    ("risk_snapshot", {"var/confidence": 0.95, **loss_of(VAR * 1.6449 / 2.3263)}, "LIMIT", "/var/confidence"),
    ("risk_snapshot", {**loss_of(VAR / 2), "var/portfolio_volatility": VOLATILITY / 2},
     "RECOMPUTED", "/var/portfolio_volatility"),
    ("risk_snapshot", {"var/covariance/weights/2": 0.005}, "RECOMPUTED", "/var/portfolio_volatility"),
    ("risk_snapshot", {"var/n_assets": 2}, "RECOMPUTED", "/var/n_assets"),
    ("risk_snapshot", {"var/covariance/matrix/1": [0.0]}, "SEMANTIC", "/var/covariance"),
    ("risk_snapshot", {"cvar/confidence": 0.9}, "LIMIT", "/cvar/confidence"),
    ("risk_snapshot", {f"cvar/per_symbol/{SHORT}/within_limit": False}, "LIMIT", f"/cvar/per_symbol/{SHORT}/within_limit"),
    ("risk_snapshot", {f"cvar/per_symbol/{SHORT}/limit": 0.5}, "LIMIT", f"/cvar/per_symbol/{SHORT}"),
    ("risk_snapshot", {"anomalies/var_limit_breach": True}, "LIMIT", "/anomalies/var_limit_breach"),
    ("risk_snapshot", {"anomalies/cvar_limit_breach": True}, "LIMIT", "/anomalies/cvar_limit_breach"),
    ("risk_snapshot", {f"cvar/per_symbol/{SHORT}/cvar_nav_pct": 0.05, f"cvar/per_symbol/{SHORT}/within_limit": False},
     "LIMIT", "/anomalies/cvar_limit_breach"),
    ("risk_snapshot", {"anomalies/nav_jump": True}, "semantic", "/anomalies/nav_jump"),
    ("risk_snapshot", {"anomalies/nav_jump": False}, "SCHEMA", "/anomalies/nav_jump"),
    ("risk_snapshot", {"anomalies/nav_jump": {"old": 580000.0, "new": 600000.0, "pct": 20 / 580}},
     "LIMIT", "/anomalies/nav_jump"),
    ("risk_snapshot", {"anomalies/nav_jump": {"old": 579999.0, "new": 600000.0, "pct": 0.5}},
     "RECOMPUTED", "/anomalies/nav_jump/pct"),
    ("risk_snapshot", {"anomalies/nav_jump": {"old": 500000.0, "new": 550000.0, "pct": 0.1}},
     "SEMANTIC", "/anomalies/nav_jump/new"),
    ("risk_snapshot", {"anomalies/dd_flap": True}, "semantic", "/anomalies/dd_flap"),
    ("risk_snapshot", {"anomalies/dd_flap": {"changes": 3, "window_s": 60}}, "LIMIT", "/anomalies/dd_flap/changes"),
    ("risk_snapshot", {"anomalies/dd_flap": {"changes": 4, "window_s": 9}}, "LIMIT", "/anomalies/dd_flap/window_s"),
    ("risk_snapshot", {"tp_sl_registry/registry_mismatch": True}, "RECOMPUTED", "/tp_sl_registry/registry_mismatch"),
    ("risk_snapshot", {"risk_mode": "WARN", "risk_mode_score": 0.0}, "RECOMPUTED", "/risk_mode"),
    ("risk_snapshot", {"risk_mode_score": 0.5}, "RECOMPUTED", "/risk_mode_score"),
    ("risk_snapshot", {"risk_inputs": GONE, "risk_mode": "DEFENSIVE"}, "RECOMPUTED", "/risk_mode"),
    ("risk_snapshot", {"var": GONE}, "key", "/var"),
    ("router_health", {GLOBAL: GONE}, "SCHEMA", "/router_health"),
    ("router_health", {"router_health/per_symbol": []}, "SCHEMA", "/router_health/per_symbol"),
    ("router_health", {"router_health_score": 0.9}, "RECOMPUTED", "/router_health_score"),
    ("router_health", {f"{SYMBOL}/quality_score": 0.7}, "RECOMPUTED", f"/{SYMBOL}/quality_score"),
    ("router_health", {f"{SYMBOL}/latency_bucket": "SLOW", f"{SYMBOL}/quality_score": 0.595},
     "RECOMPUTED", f"/{SYMBOL}/latency_bucket"),
    ("router_health", {f"{SYMBOL}/slippage_drift_bps": 2.1}, "RECOMPUTED", f"/{SYMBOL}/slippage_drift_bucket"),
    ("router_health", {f"{SYMBOL}/twap_notional": 1.0}, "RECOMPUTED", f"/{SYMBOL}/twap_usage_ratio"),
    ("router_health", {f"{SYMBOL}/symbol": "ETH"}, "SEMANTIC", f"/{SYMBOL}/symbol"),
    ("router_health", {f"{SYMBOL}/last_fill_ts": "garbage"}, "TIME", f"/{SYMBOL}/last_fill_ts"),
    ("router_health", {"summary/count": 2}, "RECOMPUTED", "/summary/count"),
    ("router_health", {f"{GLOBAL}/avg_latency_ms": 21.0}, "RECOMPUTED", f"/{GLOBAL}/avg_latency_ms"),
    ("router_health", {f"{GLOBAL}/avg_slippage_bps": None}, "RECOMPUTED", f"/{GLOBAL}/avg_slippage_bps"),
    ("router_health", {f"{SYMBOL}/avg_slippage_bps": None}, "RECOMPUTED", f"/{GLOBAL}/avg_slippage_bps"),
    ("router_health", {f"{GLOBAL}/router_bucket": "A_HIGH", f"{GLOBAL}/quality_score": 0.725, "router_health_score": 0.725},
     "RECOMPUTED", f"/{GLOBAL}/router_bucket"),
    ("router_health", {f"{GLOBAL}/twap_usage_ratio": 1.0, f"{GLOBAL}/quality_score": 0.75, "router_health_score": 0.75},
     "RECOMPUTED", f"/{GLOBAL}/twap_usage_ratio"),
    ("router_health", {f"{SYMBOL}/quality_score": 5.0, f"{SYMBOL}/router_bucket": GONE}, "UNIT", f"/{SYMBOL}/quality_score"),
    ("router_health", {"router_health/per_symbol": {}, "summary/count": 0}, "RECOMPUTED", f"/{GLOBAL}/avg_latency_ms"),
    ("router_health", {"summary/quality_counts/broken": 1}, "RECOMPUTED", "/summary/quality_counts/broken"),
    ("symbol_scores", {"symbols": {}}, "SCHEMA", "/symbols"),
    ("symbol_scores", {"symbols/0/hybrid/passes_emission": False}, "LIMIT", "/symbols/0/hybrid/passes_emission"),
    ("symbol_scores", {"symbols/0/hybrid_score": 0.7}, "RECOMPUTED", "/symbols/0/hybrid_score"),
    ("symbol_scores", {"symbols/0/hybrid_score": 0.1, "symbols/0/hybrid/score": 0.1, "symbols/0/hybrid/passes_emission": False},
     "SEMANTIC", "/symbols/1"),
    ("symbol_scores", {"symbols/1/symbol": SHORT}, "SEMANTIC", "/symbols/1"),
    ("rv_momentum", {"per_symbol": []}, "SCHEMA", "/per_symbol"),
    ("rv_momentum", {"spreads": GONE}, "key", "/spreads"),
    ("factor_diagnostics", {"weights": GONE}, "SCHEMA", ""),
    ("factor_diagnostics", {f"raw_factors/{SHORT}:LONG/direction": "SHORT"},
     "SEMANTIC", f"/raw_factors/{SHORT}:LONG/direction"),
    ("factor_diagnostics", {"normalization_coeffs/carry/mean": 0.5}, "RECOMPUTED", "/normalization_coeffs/carry/mean"),
    ("factor_diagnostics", {"normalization_coeffs/carry/range": 1}, "RECOMPUTED", "/normalization_coeffs/carry/range"),
    ("factor_diagnostics", {f"per_symbol/{SHORT}:LONG/factors/carry": 0.9},
     "RECOMPUTED", f"/per_symbol/{SHORT}:LONG/factors/carry"),
    ("factor_diagnostics", {f"per_symbol/{SHORT}:LONG/factors/carry": GONE},
     "SEMANTIC", f"/per_symbol/{SHORT}:LONG/factors/carry"),
    ("factor_diagnostics", {f"per_symbol/{SHORT}:LONG/factors/luck": 99.0},
     "SEMANTIC", f"/per_symbol/{SHORT}:LONG/factors/luck"),
    ("factor_diagnostics", {"covariance/covariance_matrix/0/1": 0.5}, "SEMANTIC", "/covariance/covariance_matrix/0/1"),
    ("factor_diagnostics", {"covariance/covariance_matrix/2/1": 0.5}, "RECOMPUTED", "/covariance/covariance_matrix/2/1"),
    ("factor_diagnostics", {"covariance/covariance_matrix": [[1.0]]}, "SEMANTIC", "/covariance/covariance_matrix"),
    ("factor_diagnostics", {"covariance/correlation_matrix/3/3": 0.9}, "RECOMPUTED", "/covariance/correlation_matrix/3/3"),
    ("factor_diagnostics", {"covariance/factor_vols/carry": 0.5}, "RECOMPUTED", "/covariance/factor_vols/carry"),
    ("factor_diagnostics", {f"orthogonalized/per_symbol/{SHORT}:LONG/carry": 0.5},
     "RECOMPUTED", f"/orthogonalized/per_symbol/{SHORT}:LONG/carry"),
    ("factor_diagnostics", {"orthogonalized/norms/carry": 0.5}, "RECOMPUTED", "/orthogonalized/norms/carry"),
    ("factor_diagnostics", {"orthogonalized/norms/carry": GONE}, "SEMANTIC", "/orthogonalized/norms/carry"),
    ("factor_diagnostics", {"orthogonalized/degenerate": ["carry"]}, "RECOMPUTED", "/orthogonalized/degenerate"),
    ("factor_diagnostics", {"orthogonalized/dot_products/momentum|carry": 0.1},
     "RECOMPUTED", "/orthogonalized/dot_products/momentum|carry"),
    ("factor_diagnostics", {"factor_ir/carry": 5.0}, "RECOMPUTED", "/factor_ir/carry"),
    ("factor_diagnostics", {"factor_ir/carry": GONE}, "RECOMPUTED", "/factor_ir/carry"),
    ("factor_diagnostics", {"weights": WEIGHTS}, "SEMANTIC", "/factor_weights/weights"),
    ("factor_diagnostics", {"weights/carry": 0.9}, "RECOMPUTED", "/weights"),
    ("factor_diagnostics", {"factor_weights/raw/carry": 5.0}, "RECOMPUTED", "/factor_weights/raw/carry"),
    ("factor_diagnostics", {"factor_weights/target": dict(zip(WEIGHTS, (2 / 3, 1 / 6, 1 / 12, 1 / 12), strict=True))},
     "RECOMPUTED", "/factor_weights/target/momentum"),
    ("factor_diagnostics", {"factor_weights/previous/carry": 0.5}, "RECOMPUTED", "/weights/carry"),
    ("factor_diagnostics", {f"per_symbol/{SHORT}:LONG": GONE}, "SEMANTIC", "/per_symbol"),
    ("factor_diagnostics", {"raw_factors/BTC": {"factors": {}, "direction": "LONG", "regime": None}},
     "SEMANTIC", "/raw_factors/BTC"),
    ("factor_diagnostics", {"normalization_coeffs/carry": GONE}, "SEMANTIC", "/normalization_coeffs/carry"),
    ("factor_diagnostics", {"orthogonalized/per_symbol": {}}, "SEMANTIC", "/orthogonalized/per_symbol"),
    ("factor_diagnostics", {"orthogonalized/per_symbol": {LONG: {}, SHORT: {}, "BTC-27NOV26": {}}}, "semantic",
     "/orthogonalized/per_symbol"),
    ("factor_diagnostics", {"covariance/factors": [f"f{number}" for number in range(70)]}, "SCHEMA", "/raw_factors"),
    ("factor_diagnostics", {"config": GONE}, "key", "/config"),
    *(("factor_diagnostics", {"config/enabled": False, "orthogonalization_enabled": False, "auto_weighting_enabled": False},
       "SEMANTIC", f"/{part}") for part in ("covariance", "orthogonalized", "factor_weights", "pnl_attribution")),
    ("factor_diagnostics", {"config/factors": ["other"]}, "SEMANTIC", "/config/factors"),
    ("factor_diagnostics", {"config/auto_weighting/mode": "equal"}, "SEMANTIC", "/factor_weights/mode"),
    ("factor_diagnostics", {"covariance": None}, "SEMANTIC", "/covariance"),
    ("factor_diagnostics", {"pnl_attribution": None}, "SEMANTIC", "/pnl_attribution"),
    ("factor_diagnostics", {"orthogonalized": None}, "SEMANTIC", "/orthogonalized"),
    ("factor_diagnostics", {"factor_weights": None}, "SEMANTIC", "/factor_weights"),
    ("factor_diagnostics", weights_of({}), "SEMANTIC", "/weights"),
    ("factor_diagnostics", {**weights_of(ONE), "factor_weights/raw": GONE, "factor_weights/target": GONE},
     "SEMANTIC", "/weights/carry"),
    ("factor_diagnostics", {**weights_of(WEIGHTS), "factor_weights/raw": GONE, "factor_weights/target": WEIGHTS},
     "RECOMPUTED", "/factor_weights/target/momentum"),
    ("factor_diagnostics", {**weights_of(UNEVEN), "factor_weights/raw": GONE, "factor_weights/target": GONE,
                            "factor_weights/previous": GONE}, "RECOMPUTED", "/weights/momentum"),
    ("factor_diagnostics", {"pnl_attribution/factor_ir/carry": 99.0}, "RECOMPUTED", "/pnl_attribution/factor_ir/carry"),
    ("factor_diagnostics", {"pnl_attribution/orthogonalized_summary/norms/carry": 9.0},
     "SEMANTIC", "/pnl_attribution/orthogonalized_summary/norms"),
    ("factor_diagnostics", {"orthogonalized/dot_products": {}}, "key", "/orthogonalized/dot_products/momentum|carry"),
]


@pytest.mark.parametrize(("name", "edits", "tag", "path"), BROKEN, ids=lambda value: value if isinstance(value, str) else "")
def test_every_rule_is_seen_broken(name: str, edits: dict[str, Any], tag: str, path: str) -> None:
    """The finding that is meant is there, with its severity; a tolerated document has no breach at all."""
    found = found_in(name, edits)
    said = {(each.tag, each.path, each.severity) for each in found}
    assert (tag.upper(), path, "deviation" if tag.islower() else "breach") in said, sorted(map(str, found))
    if tag.islower():
        assert {each.severity for each in found} == {"deviation"}, sorted(map(str, found))


@pytest.mark.parametrize(("key", "level", "told"), [(f"{LONG}:LONG", "sl", 0.0), (f"{SHORT}:SHORT", "sl", 70_000.0),
                                                    (f"{SHORT}:SHORT", "tp", 58_000.0), (f"{SHORT}:SHORT", "sl", 63_050.0)])
def test_levels_lie_where_the_policy_says(key: str, level: str, told: float) -> None:
    """A stop that is out of reach is none. What lies there because the entry price moved by a hair is lawful, and so is
    anything where no policy says otherwise."""
    policy = {"exit_take_profit_pct": 0.05, "exit_stop_loss_pct": 0.05, "exit_option_take_profit_pct": 0.5,
              "exit_option_stop_loss_pct": 0.5}
    edits = {f"tp_sl_levels/{key}/{level}": told}
    assert found_in("positions_ledger", {}, policy) == [] == found_in("positions_ledger", edits)
    found = [(each.tag, each.path) for each in found_in("positions_ledger", edits, policy)]
    assert found == ([] if told == 63_050.0 else [("LIMIT", f"/tp_sl_levels/{key}/{level}")])


def test_no_tag_goes_untested() -> None:
    """Every tag that some rule of one document gives, with each severity that it gives it, is in the table."""
    told = {(each, "breach") for each in _tags("Finding")} | {(each, "deviation") for each in _tags("deviation")}
    elsewhere = {("CROSS", "breach"), ("CROSS", "deviation"), ("MANIFEST", "breach"), ("MANIFEST", "deviation"),
                 ("STALE", "deviation"), ("MISSING", "breach"), ("UNREADABLE", "breach")}
    # each of these has its own test
    assert told - elsewhere == {(tag.upper(), "deviation" if tag.islower() else "breach") for _, _, tag, _ in BROKEN}


def _tags(name: str) -> set[str]:
    """The first argument of every call of that name in the contract's modules."""
    found = set()
    for file in Path(state_files.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name and node.args \
                    and isinstance(node.args[0], ast.Constant):
                found.add(str(node.args[0].value))
    return found


@pytest.mark.parametrize(("text", "why"), [
    (b'{"nav": NaN}', "NaN"), (b'{"nav": Infinity}', "Infinity"), (b'{"nav": 1e999}', "too large"),
    (b'{"nav": 1, "nav": 2}', "twice"), (b"[]", "not an object"), (b"", "not JSON"), (b'{"nav": 60000', "not JSON"),
    (b"\xff\xfe", "UTF-8"),
    (b'{"nav": 123456789012345678901234567890}', "64 bits"), (b"[" * 100, "deeper")])
def test_what_is_no_lawful_json_is_a_breach(text: bytes, why: str) -> None:
    """NaN and infinities, keys that stand twice, halves and other oddities are refused in words."""
    found = Contract.load(part="nav").check(text)
    assert [(each.tag, each.severity) for each in found] == [("SCHEMA", "breach")] and why in str(found[0])


# ---- boundaries -------------------------------------------------------------------------------------------


def test_at_a_limit_is_within_it() -> None:
    """VaR and CVaR at their limits are within; the smallest step above is not."""
    share = 0.04
    at = {f"cvar/per_symbol/{SHORT}/cvar_nav_pct": share}
    assert found_in("risk_snapshot", at) == []
    above = {f"cvar/per_symbol/{SHORT}/cvar_nav_pct": share * (1 + 1e-15)}
    assert {each.path for each in found_in("risk_snapshot", above)} == {
        f"/cvar/per_symbol/{SHORT}/within_limit", "/anomalies/cvar_limit_breach"}


@pytest.mark.parametrize(("fall", "before", "state"), [
    (0.0, "DRAWDOWN", "NORMAL"), (0.05, "NORMAL", "NORMAL"), (0.05, "DRAWDOWN", "RECOVERY"), (0.05, "RECOVERY", "RECOVERY"),
    (0.0999999, "DRAWDOWN", "RECOVERY"), (0.10, "NORMAL", "DRAWDOWN"), (0.25, "DRAWDOWN", "DRAWDOWN"), (0.05, None, "NORMAL")])
def test_drawdown_states(fall: float, before: str | None, state: str) -> None:
    """Of the three states exactly one is lawful at each fall and after each state."""
    for told in ("NORMAL", "DRAWDOWN", "RECOVERY"):
        found = found_in("risk_snapshot", {"dd_state/drawdown": {"dd_pct": fall}, "dd_state/previous": before,
                                           "dd_state/state": told, "dd_frac": fall, "portfolio_dd_pct": fall,
                                           "circuit_breaker/active": fall >= 0.1})
        assert (found == []) is (told == state), (told, list(map(str, found)))


@pytest.mark.parametrize(("inputs", "rest", "mode", "score"), [
    ({"config_load_failed": True}, {}, "HALTED", 1.0), ({"sources_ok": False}, {}, "HALTED", 1.0),
    ({"kill": True}, {}, "HALTED", 1.0),
    ({"nav_age_s": 90.0}, {}, "OK", 0.0), ({"nav_age_s": 90.001}, {}, "HALTED", 1.0),
    ({}, {"daily_loss_frac": 0.10, "dd_state/daily_loss/pct": 0.10}, "DEFENSIVE", 1.0),
    ({}, {"daily_loss_frac": 0.0999, "dd_state/daily_loss/pct": 0.0999}, "OK", 0.0),
    ({"router/degraded": 1}, {}, "WARN", 0.5), ({"router/broken": 1}, {}, "WARN", 0.5),
    ({"router/maker_first_disabled": 5}, {}, "OK", 0.0), ({"router/maker_first_disabled": 6}, {}, "WARN", 0.5),
    ({"router/mean_fallback": 0.5}, {}, "OK", 0.0), ({"router/mean_fallback": 0.51}, {}, "WARN", 0.5),
    ({"sources_ok": None}, {}, "OK", 0.0), ({"router": None}, {}, "OK", 0.0)])
def test_risk_modes(inputs: dict[str, Any], rest: dict[str, Any], mode: str, score: float) -> None:
    """The mode is the one that its inputs give, and no other."""
    edits = {f"risk_inputs/{key}": value for key, value in inputs.items()} | rest
    for told in ("OK", "WARN", "DEFENSIVE", "HALTED"):
        found = found_in("risk_snapshot", {**edits, "risk_mode": told, "risk_mode_score": score})
        assert (found == []) is (told == mode), (told, list(map(str, found)))


HALF = {"dd_state": {"state": "DRAWDOWN", "drawdown": {"dd_pct": 0.5}, "daily_loss": {"pct": 0.0}}, "dd_frac": GONE,
        "portfolio_dd_pct": 0.5, "circuit_breaker/active": True}


@pytest.mark.parametrize(("edits", "path"), [
    (HALF, "/risk_mode"),
    ({**HALF, "dd_state": {**HALF["dd_state"], "drawdown": {"dd_pct": 50.0}}}, "/risk_mode"),
    ({**HALF, "risk_inputs": GONE}, "/risk_mode"),
    ({"dd_state/daily_loss/pct": 0.5, "daily_loss_frac": GONE}, "/risk_mode"),
    ({**HALF, "dd_frac": 0.5, "risk_inputs": GONE, "risk_mode": "DEFENSIVE", "risk_mode_score": 0.0}, "/risk_mode_score")])
def test_a_loss_that_is_left_out_is_a_loss(edits: dict[str, Any], path: str) -> None:
    """Half of the money is gone: no mode is OK because the fractions beside dd_state are not told, and no score is 0."""
    assert path in {each.path for each in found_in("risk_snapshot", edits) if each.severity == "breach"}


@pytest.mark.parametrize(("drift", "latency", "route", "twap", "score"), [
    (2.0, 150.0, "A_HIGH", 1.0, 0.8), (2.01, 150.0, "A_HIGH", 1.0, 0.75), (6.0, 400.0, "B_MEDIUM", 1.0, 0.67),
    (6.01, 400.01, "C_LOW", 0.0, 0.35), (None, None, "A_HIGH", 0.0, 0.7)])
def test_router_scores(drift: float | None, latency: float | None, route: str, twap: float, score: float) -> None:
    """Buckets at their edges, and the score that they give."""
    drifts = "GREEN" if drift is None or drift <= 2 else "YELLOW" if drift <= 6 else "RED"
    speed = "FAST" if latency is None or latency <= 150 else "NORMAL" if latency <= 400 else "SLOW"
    metrics = {"slippage_drift_bps": drift, "slippage_drift_bucket": drifts, "avg_latency_ms": latency, "latency_bucket": speed,
               "router_bucket": route, "twap_usage_ratio": twap}
    edits = {f"{part}/{key}": value for part in (GLOBAL, SYMBOL) for key, value in metrics.items()}
    edits |= {f"{SYMBOL}/quality_score": score, f"{SYMBOL}/twap_notional": 0.0, "summary/quality_counts/ok": int(score >= 0.5),
              "summary/quality_counts/degraded": int(score < 0.5)}
    assert found_in("router_health", {**edits, f"{GLOBAL}/quality_score": score, "router_health_score": score}) == []
    off = score + 1e-5
    found = found_in("router_health", {**edits, f"{GLOBAL}/quality_score": off, "router_health_score": off})
    assert [each.path for each in found] == [f"/{GLOBAL}/quality_score"]


def test_liveness_that_is_off_says_nothing() -> None:
    """Disabled, all four are false and both maps empty; a limit of 0 is not asked."""
    off = {f"{LIVE}/details": {}, f"{LIVE}/missing": {}, f"{LIVE}/idle_exits": False}
    assert found_in("diagnostics", off) == []
    assert [each.path for each in found_in("diagnostics", {}, {"max_idle_exits_seconds": 0})] == [f"/{LIVE}/idle_exits"]
    unlimited = {f"{LIVE}/details/exits_idle_seconds": GONE, f"{LIVE}/missing": {}, f"{LIVE}/idle_exits": False}
    assert found_in("diagnostics", unlimited, {"max_idle_exits_seconds": 0}) == []


def test_the_policy_moves_the_limits() -> None:
    """A limit of the policy in force counts, and one that is no number is refused."""
    found = found_in("risk_snapshot", {}, {"max_position_cvar_nav_pct": 0.05})
    assert [each.path for each in found] == ["/cvar/max_position_cvar_nav_pct", f"/cvar/per_symbol/{SHORT}"]
    with pytest.raises(SpecError, match="not a number"):
        Contract.load(part="nav", policy={"nav_jump_usd": "many"})
    with pytest.raises(SpecError, match="no state file"):
        Contract.load(part="navel")


# ---- factors ----------------------------------------------------------------------------------------------


def test_columns_of_unequal_length_have_no_product() -> None:
    """What is missing from one of them is not nothing."""
    assert _dot([1.0, 2.0], [3.0, 4.0]) == 11.0
    with pytest.raises(ValueError):
        _dot([1.0, 2.0], [3.0])


def test_a_column_that_says_nothing_new_is_degenerate() -> None:
    """A factor that repeats another one is nothing after Gram-Schmidt, and must be listed as that."""
    kept, degenerate = orthogonalised([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, 0.0]])
    assert degenerate == [1] and kept[1] == [0.0, 0.0, 0.0]
    assert abs(sum(a * b for a, b in zip(kept[0], kept[2], strict=True))) < 1e-12


def test_weights_of_the_source_that_leave_their_bounds_are_tolerated() -> None:
    """With all profit in one factor the source scales out of the bounds: a deviation. Ours fill up from below."""
    raw = {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0, "e": 0.0}
    assert clamped(raw, 0.05, 0.4) == pytest.approx({"a": 0.4, "b": 0.15, "c": 0.15, "d": 0.15, "e": 0.15})
    assert clamped(raw, 0.05, 0.4, scales=True)["a"] == pytest.approx(2 / 3)
    raw = dict(zip(WEIGHTS, (1.0, 0.0, 0.0, 0.0), strict=True))
    profit = {"momentum": 1.0, "carry": 0.0, "liquidity": 0.0, "volatility": 0.0}
    document = lawful("factor_diagnostics")
    vol = document["covariance"]["factor_vols"]["momentum"] + 1e-9
    ir = {name: value / vol for name, value in profit.items()}
    scaled = clamped(raw, 0.05, 0.4, scales=True)
    edits: dict[str, Any] = {
        "factor_ir": ir, "factor_weights/factor_ir": ir, "factor_weights/raw": {key: value / vol for key, value in ir.items()},
        "pnl_attribution/by_factor": profit, "pnl_attribution/factor_ir": ir,
        "factor_weights/target": scaled, "factor_weights/previous": None,
        **dict.fromkeys(("weights", "factor_weights/weights", "pnl_attribution/weights"), scaled)}
    assert {(each.tag, each.severity) for each in found_in("factor_diagnostics", edits)} == {("LIMIT", "deviation")}


def honest(raw: list[list[float]], profit: list[float], previous: list[float] | None, mode: str = "zscore") -> dict[str, Any]:
    """factor_diagnostics.json as an honest writer makes it from raw factors: a second reckoning, beside the judge's."""
    names, keys = [f"f{at}" for at in range(len(raw[0]))], [f"S{at}:LONG" for at in range(len(raw))]
    matrix = np.array(raw)
    mean, spread, low, high = matrix.mean(0), matrix.std(0), matrix.min(0), matrix.max(0)
    spread, width = np.where(spread <= 1e-9, 1.0, spread), high - low
    steep = np.where(width > 1e-9, width, 1.0)
    shares = np.where(width > 1e-9, (matrix - low) / steep, 0.0)
    normal = np.clip((matrix - mean) / spread, -3, 3) if mode == "zscore" else shares
    moved = np.atleast_2d(np.cov(normal, rowvar=False)) if len(raw) > 1 else np.zeros((len(names), len(names)))
    vols = np.sqrt(np.maximum(np.diagonal(moved), 0))
    known = np.outer(vols, vols)
    steady = np.minimum.outer(vols, vols) > 1e-9
    related = np.where(steady, moved / np.where(steady, known, 1.0), np.eye(len(names)))
    apart, degenerate = orthogonalised(normal.T.tolist())
    ratios = {}
    if any(profit):
        ratios = {name: gain / (vol + 1e-9) for name, gain, vol in zip(names, profit, vols.tolist(), strict=True)}
    elif len(raw) >= 10:
        ratios = dict(zip(names, (mean / spread).tolist(), strict=True))
    weight = {name: ratios.get(name, 0.0) / (vol + 1e-9) for name, vol in zip(names, vols.tolist(), strict=True)}
    target = clamped(weight, 0.05, 0.4)
    last = dict(zip(names, previous, strict=True)) if previous else None
    weights = {name: 0.2 * target[name] + 0.8 * last[name] for name in names} if last else target

    def named(values: Any) -> dict[str, float]:
        return dict(zip(names, (float(each) for each in values), strict=True))

    def vectors(rows: Any) -> dict[str, Any]:
        return {key: {"factors": named(row), "direction": "LONG", "regime": None} for key, row in zip(keys, rows, strict=True)}

    return {
        "updated_ts": T, "raw_factors": vectors(raw), "per_symbol": vectors(normal),
        "normalization_coeffs": {name: {"mean": float(mean[at]), "std": float(spread[at]), "min": float(low[at]),
                                        "max": float(high[at]), "range": float(width[at])} for at, name in enumerate(names)},
        "covariance": {"factors": names, "covariance_matrix": moved.tolist(), "correlation_matrix": related.tolist(),
                       "factor_vols": named(vols), "lookback_days": 1},
        "orthogonalized": {"per_symbol": dict(zip(keys, map(named, np.array(apart).T), strict=True)),
                           "norms": named(np.linalg.norm(np.array(apart), axis=1)),
                           "dot_products": {}, "degenerate": [names[at] for at in degenerate]},
        "factor_ir": ratios, "weights": weights, "factor_weights": {"weights": weights, "mode": "vol_inverse_ir", "raw": weight,
                                                                    "target": target, "previous": last},
        "orthogonalization_enabled": True, "auto_weighting_enabled": True,
        "pnl_attribution": {"window_days": 1, "by_factor": named(profit), "factor_ir": ratios, "weights": weights},
        "config": {"factors": names, "normalization_mode": mode, "max_abs_zscore": 3.0}}


NUMBERS = st.integers(-1000, 1000).map(lambda each: each / 16)


ROWS = st.integers(2, 5).flatmap(lambda width: st.lists(st.lists(NUMBERS, min_size=width, max_size=width), min_size=1,
                                                        max_size=12))


@given(raw=ROWS, gains=st.lists(NUMBERS, min_size=5, max_size=5), before=st.booleans(),
       mode=st.sampled_from(["zscore", "minmax"]))
@settings(max_examples=50, deadline=None)
def test_whatever_an_honest_writer_computes_is_lawful(raw: list[list[float]], gains: list[float], before: bool,
                                                      mode: str) -> None:
    """Over any factors, with one vector or twelve, constant columns and repeated ones: no breach."""
    width = len(raw[0])
    document = honest(raw, gains[:width], [1 / width] * width if before else None, mode)
    assert Contract.load(part="factor_diagnostics").breaches(document) == []


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4), min_size=1, max_size=5))
@example([[0.0, 5190.0, 1.0, 0.0], [0.0, 5.0, 0.0, 0.0], [0.0, 0.0, 610.0, 2.0 ** -24], [0.0, 0.0, 0.0, 1.0]])
@settings(max_examples=60, deadline=None)
def test_gram_schmidt_gives_orthogonal_columns(columns: list[list[float]]) -> None:
    """What is left of each column is orthogonal to the others: on the scale of the columns, and as far as arithmetic lets it
    where next to nothing is left of one beside another."""
    kept, _ = orthogonalised(columns)
    scale = max((abs(each) for column in columns for each in column), default=0.0) ** 2
    lengths = [length for column in kept if (length := math.hypot(*column)) > 0]
    spread = max(lengths, default=1.0) / min(lengths, default=1.0)
    for one in range(len(kept)):
        for two in range(one):
            assert abs(sum(a * b for a, b in zip(kept[one], kept[two], strict=True))) <= 1e-9 * spread ** 2 * max(scale, 1e-12)


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.floats(-1e9, 1e9), min_size=3, max_size=12))
@settings(max_examples=60, deadline=None)
def test_clamped_weights_add_up(raw: dict[str, float]) -> None:
    """Whatever the raw weights, the target adds up to 1."""
    assert sum(clamped(raw, 0.05, 0.4).values()) == pytest.approx(1.0)


# ---- whatever a file holds --------------------------------------------------------------------------------

JSON = st.recursive(st.none() | st.booleans() | st.integers(-2**63, 2**63 - 1) | st.text(max_size=8)
                    | st.floats(allow_nan=False, allow_infinity=False), lambda inner: st.lists(inner, max_size=4)
                    | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=8)


@pytest.mark.parametrize("name", SURFACES.by_name)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_no_document_makes_the_judge_stumble(name: str, data: Any) -> None:
    """A lawful document in which anything stands anywhere, and any bytes at all, get findings and never an exception."""
    contract, document = Contract.load(part=name), lawful(name)
    paths = sorted(_paths(document))
    for path in data.draw(st.lists(st.sampled_from(paths), min_size=1, max_size=3)):
        try:
            document = edited(document, {path: data.draw(JSON)})
        except (KeyError, IndexError, TypeError, ValueError):
            continue
    assert all(isinstance(each, Finding) and str(each).isprintable() for each in contract.check(document))
    contract.check(data.draw(st.binary(max_size=200)))


def _paths(value: Any, before: str = "") -> list[str]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, each in items:
        if "/" not in str(key):
            found += [f"{before}{key}", *_paths(each, f"{before}{key}/")]
    return found
