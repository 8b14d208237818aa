"""risk_snapshot.json: limits and their flags, drawdown states, anomalies, and the risk mode computed again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from harness.contracts.reading import pointer, shown
from harness.contracts.state_files.books import fraction
from harness.contracts.state_files.finding import Document, Finding, Tolerance, deviation, mapping
from harness.drill.predicate import is_number

Z = {0.90: 1.2816, 0.95: 1.6449, 0.975: 1.96, 0.99: 2.3263, 0.995: 2.5758, 0.999: 3.0902}
"""The source's table of the normal distribution, by confidence."""

TRADING_DAYS = 252

CANCELLED = 1e-8
"""By this share of its parts without their signs a variance may be off: a writer that keeps nine digits is, by less."""

SCORES = {"HALTED": 1.0, "WARN": 0.5, "OK": 0.0}
"""Of the modes that have one score, whatever brought them about."""


def risk_snapshot(document: Document, near: Tolerance, limits: Mapping[str, float]) -> Iterator[Finding]:
    """Everything that one snapshot says, against itself and the limits."""
    nav = next((document[key] for key in ("nav", "nav_total") if is_number(document.get(key))), None)
    if is_number(document.get("nav_total")) and nav is not None and not near.near(document["nav_total"], nav):
        yield Finding("SEMANTIC", "/nav_total", f"{shown(document['nav_total'])}, and nav is {shown(nav)}")
    yield from _drawdown(document, near, nav)
    yield from drawdown_state(document, limits)
    yield from _var(document, near, nav, limits)
    yield from _covariance(mapping(document.get("var")), near)
    yield from _cvar(document, limits)
    yield from _anomalies(document, near, nav, limits)
    yield from _registry(mapping(document.get("tp_sl_registry")))
    yield from _mode(document, near, limits)


def _drawdown(document: Document, near: Tolerance, nav: float | None) -> Iterator[Finding]:
    state = mapping(document.get("dd_state"))
    drawdown = mapping(state.get("drawdown"))
    told, peak = drawdown.get("dd_pct"), drawdown.get("peak")
    yield from fraction("/dd_state/drawdown/dd_pct", told)
    if is_number(peak) and nav is not None and peak < nav and not near.near(peak, nav):
        yield Finding("SEMANTIC", "/dd_state/drawdown/peak", f"{shown(peak)}, and nav is higher: {shown(nav)}")
    if is_number(peak) and nav is not None and peak > 0:
        yield from near.follows("/dd_state/drawdown/dd_pct", told, max(0.0, (peak - nav) / peak), "the fall from the peak is")
    today = mapping(state.get("daily_loss"))
    if is_number(begun := today.get("day_start")) and nav is not None and begun > 0:
        yield from near.follows("/dd_state/daily_loss/pct", today.get("pct"), max(0.0, (begun - nav) / begun),
                                "since day_start it is")
    for key in ("dd_frac", "daily_loss_frac"):
        if (source := _given(document, key)) is not None:
            if key in document and document[key] is None:
                yield Finding("RECOMPUTED", f"/{key}", f"null, and dd_state gives {shown(source)}")
            yield from near.follows(f"/{key}", document.get(key), source, "dd_state gives")
    whole = document.get("portfolio_dd_pct")
    if is_number(whole) and is_number(told) and not near.near(whole, told):
        yield deviation("SEMANTIC", "/portfolio_dd_pct", f"{shown(whole)}, and dd_state says {shown(told)}")


def _given(document: Document, key: str) -> float | None:
    """What dd_state gives as a fraction under this key; above 1 it is told in per cent."""
    block, name = {"dd_frac": ("drawdown", "dd_pct"), "daily_loss_frac": ("daily_loss", "pct")}[key]
    value = mapping(mapping(document.get("dd_state")).get(block)).get(name)
    return (value / 100 if value > 1 else value) if is_number(value) else None


def drawdown_state(document: Document, limits: Mapping[str, float]) -> Iterator[Finding]:
    """DRAWDOWN from the limit on, RECOVERY between it and nothing, NORMAL else."""
    told = mapping(document.get("dd_state"))
    state, before, fall = told.get("state"), told.get("previous"), mapping(told.get("drawdown")).get("dd_pct")
    limit = mapping(document.get("circuit_breaker")).get("max_portfolio_dd_nav_pct")
    if is_number(limit) and limit != limits["max_portfolio_dd_nav_pct"]:
        yield Finding("LIMIT", "/circuit_breaker/max_portfolio_dd_nav_pct",
                      f"{shown(limit)}, and the policy's is {limits['max_portfolio_dd_nav_pct']:g}")
    if state == "UNKNOWN":
        yield deviation("SEMANTIC", "/dd_state/state", "nobody knows the drawdown")
        return
    limit = limit if is_number(limit) else limits["max_portfolio_dd_nav_pct"]
    if not is_number(fall) or not isinstance(state, str):
        return
    fall = fall / 100 if fall > 1 else fall
    yield from _breaker(mapping(document.get("circuit_breaker")).get("active"), fall, limit)
    if fall >= limit:
        expected: tuple[str, ...] = ("DRAWDOWN",)
    elif fall <= 0:
        expected = ("NORMAL",)
    elif "previous" in told:
        expected = ("RECOVERY",) if before in ("DRAWDOWN", "RECOVERY") else ("NORMAL",)
    else:
        expected = ("NORMAL", "RECOVERY")
    if state not in expected:
        after = f" after {before}" if isinstance(before, str) else ""
        yield Finding("LIMIT", "/dd_state/state", f"{state} at {fall:.9g}{after}, limit {limit:g}: {' or '.join(expected)}")


def _breaker(active: Any, fall: float, limit: float) -> Iterator[Finding]:
    """It trips at the limit. The source asks its log of values alone, which may be shorter than what the drawdown is of."""
    if active is True and fall < limit:
        yield Finding("LIMIT", "/circuit_breaker/active", f"true at {fall:.9g}, limit {limit:g}")
    elif active is False and fall >= limit:
        yield deviation("LIMIT", "/circuit_breaker/active", f"false at {fall:.9g}, limit {limit:g}")


def _var(document: Document, near: Tolerance, nav: float | None, limits: Mapping[str, float]) -> Iterator[Finding]:
    block = mapping(document.get("var"))
    loss, share, limit = (block.get(key) for key in ("portfolio_var_usd", "portfolio_var_nav_pct", "max_portfolio_var_nav_pct"))
    if is_number(loss) and nav is not None and nav > 0:
        yield from near.follows("/var/portfolio_var_nav_pct", share, loss / nav, "of the net asset value it is")
    yield from fraction("/var/portfolio_var_nav_pct", share)
    yield from _flag("/var", block, share, limit, limits["max_portfolio_var_nav_pct"])
    yield from _confidence("/var", block, limits["var_confidence"])
    volatility, confidence = block.get("portfolio_volatility"), block.get("confidence")
    if is_number(volatility) and is_number(confidence) and confidence not in Z:
        yield Finding("SEMANTIC", "/var/confidence", f"{shown(confidence)} is none of the table: {', '.join(map(str, Z))}")
    elif is_number(volatility) and is_number(confidence):
        yield from near.follows("/var/portfolio_var_nav_pct", share, Z[confidence] * volatility / math.sqrt(TRADING_DAYS),
                                "the volatility gives")


def covered(var: Document) -> tuple[list[str], list[float], list[list[float]]] | None:
    """Assets, weights and matrix of a VaR block that tells them (ours); None of one that does not, or in another shape."""
    block = mapping(var.get("covariance"))
    assets, weights, matrix = block.get("assets"), block.get("weights"), block.get("matrix")
    if not isinstance(assets, list) or not isinstance(weights, list) or not isinstance(matrix, list) \
            or not len(assets) == len(weights) == len(matrix) or not all(isinstance(each, str) for each in assets) \
            or not all(isinstance(row, list) and len(row) == len(assets) for row in matrix) \
            or not all(map(is_number, (*weights, *(each for row in matrix for each in row)))):
        return None
    return assets, weights, matrix


def _covariance(block: Document, near: Tolerance) -> Iterator[Finding]:
    """The volatility is that of the matrix beside it."""
    if "covariance" not in block:
        return
    told, volatility = covered(block), block.get("portfolio_volatility")
    if told is None:
        yield Finding("SEMANTIC", "/var/covariance", "not as many weights, and rows and columns of numbers, as assets")
        return
    assets, weights, matrix = told
    if is_number(count := block.get("n_assets")) and count != len(assets):
        yield Finding("RECOMPUTED", "/var/n_assets", f"{shown(count)}, and the covariance is of {len(assets)}")
    parts = [one * each * two for one, row in zip(weights, matrix, strict=True) for each, two in zip(row, weights, strict=True)]
    variance, spread = math.fsum(parts) * TRADING_DAYS, math.fsum(map(abs, parts)) * TRADING_DAYS
    # where assets nearly cancel, the root makes much of their last digits
    if is_number(volatility) and abs(volatility * volatility - variance) > CANCELLED * spread:
        yield from near.follows("/var/portfolio_volatility", volatility, math.sqrt(max(0.0, variance)),
                                "weights and matrix give")


def _confidence(path: str, block: Document, policy: float) -> Iterator[Finding]:
    if is_number(told := block.get("confidence")) and told != policy:
        yield Finding("LIMIT", f"{path}/confidence", f"{shown(told)}, and the policy's is {policy:g}")


def _cvar(document: Document, limits: Mapping[str, float]) -> Iterator[Finding]:
    block = mapping(document.get("cvar"))
    yield from _confidence("/cvar", block, limits["cvar_confidence"])
    most = block.get("max_position_cvar_nav_pct")
    if is_number(most) and most != limits["max_position_cvar_nav_pct"]:
        yield Finding("LIMIT", "/cvar/max_position_cvar_nav_pct",
                      f"{shown(most)}, and the policy's is {limits['max_position_cvar_nav_pct']:g}")
    for symbol, each in mapping(block.get("per_symbol")).items():
        path, own = pointer("cvar", "per_symbol", symbol), mapping(each)
        yield from fraction(f"{path}/cvar_nav_pct", own.get("cvar_nav_pct"))
        yield from _flag(path, own, own.get("cvar_nav_pct"), own.get("limit"), limits["max_position_cvar_nav_pct"])


def _flag(path: str, block: Document, value: Any, limit: Any, policy: float) -> Iterator[Finding]:
    """A limit is the policy's; at it is within it."""
    if is_number(limit) and limit != policy:
        yield Finding("LIMIT", path, f"the limit {shown(limit)} is not the policy's, {policy:g}")
    within = block.get("within_limit")
    if is_number(value) and is_number(limit) and isinstance(within, bool) and within is not (value <= limit):
        yield Finding("LIMIT", f"{path}/within_limit", f"{shown(within)} at {shown(value)} with the limit {shown(limit)}")


def jumped(old: float, new: float, limits: Mapping[str, float]) -> bool:
    """Whether a step of the net asset value is an anomaly; at the limit it is none."""
    change = abs(new - old)
    return old > 0 and (change / old > limits["nav_jump_multiplier"] - 1 or change > limits["nav_jump_usd"])


def _anomalies(document: Document, near: Tolerance, nav: float | None, limits: Mapping[str, float]) -> Iterator[Finding]:
    """Each is there exactly while its cause is; the two that look back are asked for what they say themselves."""
    said = mapping(document.get("anomalies"))
    portfolio, symbols = mapping(document.get("var")), mapping(mapping(document.get("cvar")).get("per_symbol"))
    causes = {"var_limit_breach": _above(portfolio, "portfolio_var_nav_pct", "max_portfolio_var_nav_pct"),
              "cvar_limit_breach": any(_above(mapping(each), "cvar_nav_pct", "limit") for each in symbols.values())}
    for name, cause in causes.items():
        if (name in said) is not cause:
            why = "the limit is kept" if name in said else "missing while the limit is broken"
            yield Finding("LIMIT", f"/anomalies/{name}", why)
    jump = said.get("nav_jump")
    if jump is True:
        yield deviation("SEMANTIC", "/anomalies/nav_jump", "true says neither from where nor how far")
    elif isinstance(jump, Mapping):
        yield from _jump(jump, near, nav, limits)
    flap = said.get("dd_flap")
    if flap is True:
        yield deviation("SEMANTIC", "/anomalies/dd_flap", "true says neither how often nor how long")
    elif isinstance(flap, Mapping):
        changes, most = flap.get("changes"), limits["dd_flap_changes_max"]
        if is_number(changes) and changes <= most:
            yield Finding("LIMIT", "/anomalies/dd_flap/changes", f"{shown(changes)} changes are within the limit {most:g}")
        if flap.get("window_s") != limits["dd_flap_window_s"]:
            yield Finding("LIMIT", "/anomalies/dd_flap/window_s", f"not the policy's {limits['dd_flap_window_s']:g}")


def _above(block: Document, key: str, limit: str) -> bool:
    value, most = block.get(key), block.get(limit)
    return is_number(value) and is_number(most) and value > most


def _jump(jump: Document, near: Tolerance, nav: float | None, limits: Mapping[str, float]) -> Iterator[Finding]:
    old, new, share = jump.get("old"), jump.get("new"), jump.get("pct")
    if not is_number(old) or not is_number(new):
        return
    if nav is not None and not near.near(new, nav):
        yield Finding("SEMANTIC", "/anomalies/nav_jump/new", f"{shown(new)}, and nav is {shown(nav)}")
    if not jumped(old, new, limits):
        yield Finding("LIMIT", "/anomalies/nav_jump", f"from {shown(old)} to {shown(new)} is within the limits")
    if old > 0:
        yield from near.follows("/anomalies/nav_jump/pct", share, abs(new - old) / old, "from old to new it was")


def _registry(registry: Document) -> Iterator[Finding]:
    positions, entries, told = (registry.get(key) for key in ("num_positions", "num_registry_entries", "registry_mismatch"))
    if is_number(positions) and is_number(entries) and told is not (positions > 0 and entries == 0):
        yield Finding("RECOMPUTED", "/tp_sl_registry/registry_mismatch",
                      f"{shown(told)} with {positions} positions and {entries} entries")


def expected_mode(dd: Any, daily: Any, inputs: Document, limits: Mapping[str, float]) -> tuple[str, float]:
    """Risk mode and score: the first that holds."""
    age, router = inputs.get("nav_age_s"), mapping(inputs.get("router"))
    if inputs.get("config_load_failed") is True or inputs.get("sources_ok") is False or inputs.get("kill") is True:
        return "HALTED", 1.0
    if is_number(age) and age > limits["risk_nav_age_s_max"]:
        return "HALTED", 1.0
    for value, limit in ((dd, limits["risk_defensive_dd_frac"]), (daily, limits["risk_defensive_daily_loss_frac"])):
        if is_number(value) and value >= limit:
            return "DEFENSIVE", min(1.0, value / limit)
    off, fallback = router.get("maker_first_disabled"), router.get("mean_fallback")
    if any(is_number(router.get(key)) and router[key] > 0 for key in ("degraded", "broken")) \
            or (is_number(off) and off > limits["risk_maker_first_disabled_max"]) \
            or (is_number(fallback) and fallback > limits["risk_mean_fallback_max"]):
        return "WARN", 0.5
    return "OK", 0.0


def _mode(document: Document, near: Tolerance, limits: Mapping[str, float]) -> Iterator[Finding]:
    """Exactly where the file says from what it was computed; else a mode that its own numbers forbid is found. A fraction that
    is left out is what dd_state gives: not to tell a loss does not undo it."""
    mode, score, inputs = document.get("risk_mode"), document.get("risk_mode_score"), document.get("risk_inputs")
    dd, daily = (document[key] if key in document else _given(document, key) for key in ("dd_frac", "daily_loss_frac"))
    expected, much = expected_mode(dd, daily, mapping(inputs), limits)
    if isinstance(inputs, Mapping):
        if mode != expected:
            yield Finding("RECOMPUTED", "/risk_mode", f"{shown(mode)}, and its inputs give {expected}")
        yield from near.follows("/risk_mode_score", score, much, "its inputs give")
    elif mode in SCORES and is_number(score) and score != SCORES[mode]:
        yield Finding("RECOMPUTED", "/risk_mode_score", f"{shown(score)}, and {mode} is {SCORES[mode]:g}")
    elif (expected == "DEFENSIVE" and mode in ("OK", "WARN")) or (mode == "DEFENSIVE" and expected == "OK" and is_number(dd)):
        yield Finding("RECOMPUTED", "/risk_mode", f"{shown(mode)} at a fall of {shown(dd)}, {shown(daily)} of it today")
    elif mode == expected == "DEFENSIVE":
        yield from near.follows("/risk_mode_score", score, much, "the loss gives")
