"""nav, its mirror, positions, their ledger and the key figures: each by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.contracts.reading import pointer, shown
from harness.contracts.state_files.finding import Document, Finding, Tolerance, deviation, mapping, rows
from harness.contracts.state_files.times import row_times
from harness.drill.predicate import is_number

LEVELS_MOVED = 0.001
"""Ours: by so much an entry price may move before its levels do."""

SIDES = {"LONG": "LONG", "SHORT": "SHORT", "BUY": "LONG", "SELL": "SHORT"}


def position_key(row: Mapping[str, Any]) -> str | None:
    """``SYMBOL:SIDE``, as the ledger and the exit scanner name a position; None where a row is none (no quantity, no entry
    price). A side that says neither way, such as BOTH, is that of the quantity's sign."""
    symbol, qty, entry = row.get("symbol"), row.get("qty"), row.get("entry_price")
    if not isinstance(symbol, str) or not is_number(qty) or qty == 0 or not is_number(entry) or entry <= 0:
        return None
    told = next((row[name] for name in ("positionSide", "position_side", "side") if isinstance(row.get(name), str)), "")
    return f"{symbol.upper()}:{SIDES.get(told.upper()) or ('LONG' if qty > 0 else 'SHORT')}"


def nav(document: Document, near: Tolerance) -> Iterator[Finding]:
    """Net asset value; assets under management are a sum."""
    yield from _aum(document, near)
    detail = mapping(document.get("nav_detail"))
    equity, index = detail.get("equity"), detail.get("index_price")
    if is_number(equity) and is_number(index):
        for key in ("nav", "nav_usd"):
            yield from near.follows(f"/{key}", document.get(key), equity * index, "equity and index_price give")
    yield from _executed(mapping(document.get("exec_stats")), near)


def _executed(stats: Document, near: Tolerance) -> Iterator[Finding]:
    """No more orders were executed than attempted, and that share of them."""
    attempted, executed, path = stats.get("attempted_24h"), stats.get("executed_24h"), "/exec_stats"
    if not is_number(attempted) or not is_number(executed):
        return
    if executed > attempted:
        yield Finding("SEMANTIC", f"{path}/executed_24h", f"{shown(executed)} of {shown(attempted)} that were attempted")
    elif attempted > 0:
        yield from near.follows(f"{path}/fill_rate", stats.get("fill_rate"), executed / attempted, "the counters give")


def nav_state(document: Document, near: Tolerance) -> Iterator[Finding]:
    """The mirror by itself; against its source it is asked in ``cross``."""
    yield from _aum(document, near)
    peak, drawdown = document.get("peak_equity"), document.get("drawdown")
    name = next((key for key in ("total_equity", "nav_usd", "nav") if is_number(document.get(key))), "")
    equity = document.get(name)
    yield from fraction("/drawdown", drawdown)
    if is_number(equity) and is_number(peak) and peak < equity and not near.near(peak, equity):
        yield Finding("SEMANTIC", "/peak_equity", f"{shown(peak)}, and {name} is higher: {shown(equity)}")
    if is_number(equity) and is_number(peak) and peak > 0:
        yield from near.follows("/drawdown", drawdown, max(0.0, (peak - equity) / peak), "the fall from peak_equity is")


def positions_state(document: Document, near: Tolerance) -> Iterator[Finding]:
    """Every open position has its prices, once, and a notional that follows from them."""
    seen: set[str] = set()
    for place, row in rows(document.get("positions")):
        path, qty, side, mark = f"/positions/{place}", row.get("qty"), row.get("side"), row.get("mark_price")
        if not is_number(qty):
            continue
        for price in ("entry_price", "mark_price"):
            value = row.get(price)
            if qty != 0 and is_number(value) and value <= 0:
                yield Finding("SEMANTIC", f"{path}/{price}", f"a position of {shown(qty)} has the price {shown(value)}")
        yield from _side(path, side, qty)
        if (notional := _notional(row, qty, mark)) is not None:
            yield from near.follows(f"{path}/notional", row.get("notional"), notional, "quantity and price give")
        if (profit := _profit(row, qty, mark)) is not None:
            yield from near.follows(f"{path}/unrealized_pnl", row.get("unrealized_pnl"), profit, "quantity and prices give")
        if (key := position_key(row)) is not None:
            if key in seen:
                yield Finding("SEMANTIC", path, f"the position {shown(key)} is listed twice")
            seen.add(key)


def positions_ledger(document: Document, near: Tolerance, milliseconds_above: float) -> Iterator[Finding]:
    """Entries under their keys, each once, as many as the file says, with levels on their own sides of the price."""
    seen: set[str] = set()
    for place, row in rows(document.get("entries")):
        path = f"/entries/{place}"
        key = f"{row.get('symbol')}:{row.get('side')}".upper()
        if row.get("position_key", key) != key:
            yield Finding("SEMANTIC", f"{path}/position_key", f"{shown(row['position_key'])}, and the entry is {shown(key)}")
        if key in seen:
            yield Finding("SEMANTIC", path, f"the entry {shown(key)} is listed twice")
        seen.add(key)
        yield from _levels(path, row.get("side"), row.get("tp"), row.get("sl"))
        yield from row_times(path, row, ("created_ts", "updated_ts"), milliseconds_above)
    entries, told = document.get("entries"), mapping(document.get("metadata")).get("entry_count")
    if isinstance(entries, list) and is_number(told) and told != len(entries):
        yield Finding("RECOMPUTED", "/metadata/entry_count", f"{shown(told)}, and there are {len(entries)} entries")
    for key, levels in mapping(document.get("tp_sl_levels")).items():
        yield from _levels(pointer("tp_sl_levels", key), key.rpartition(":")[2], mapping(levels).get("tp"),
                           mapping(levels).get("sl"))


def exit_levels(document: Document, policy: Mapping[str, Any]) -> Iterator[Finding]:
    """Levels that are scanned lie where the policy says, of what the position was bought for; where it says nothing of that,
    nothing is asked. They are set anew when the entry price has moved by more than ``LEVELS_MOVED``."""
    entries = {row.get("position_key"): row.get("entry_price") for _, row in rows(document.get("entries"))}
    for key, levels in mapping(document.get("tp_sl_levels")).items():
        entry, (symbol, _, side) = entries.get(key), key.rpartition(":")
        kind = "exit_option_" if symbol.endswith(("-C", "-P")) else "exit_"
        for name, what, sign in (("tp", "take_profit_pct", 1), ("sl", "stop_loss_pct", -1)):
            share, told = policy.get(kind + what), mapping(levels).get(name)
            if side not in ("LONG", "SHORT") or not is_number(entry) or not is_number(share) or not is_number(told):
                continue
            level = max(0.0, entry * (1 + (sign if side == "LONG" else -sign) * share))
            if abs(told - level) > LEVELS_MOVED * (level + entry):
                yield Finding("LIMIT", pointer("tp_sl_levels", key, name),
                              f"{shown(told)}, and {kind}{what} {share:g} of {shown(entry)} gives {level:.9g}")


def kpis(document: Document, near: Tolerance) -> Iterator[Finding]:
    """Key figures by themselves: fractions are fractions."""
    portfolio = mapping(document.get("portfolio"))
    for key in ("dd_pct", "var_nav_pct", "cvar_nav_pct"):
        yield from fraction(f"/portfolio/{key}", portfolio.get(key))


def _aum(document: Document, near: Tolerance) -> Iterator[Finding]:
    aum = mapping(document.get("aum"))
    futures = aum.get("futures")
    elsewhere = [each for each in mapping(aum.get("offexchange")).values() if is_number(each)]
    if is_number(futures):
        yield from near.follows("/aum/total", aum.get("total"), futures + sum(elsewhere), "its parts add up to")


def fraction(path: str, value: Any) -> Iterator[Finding]:
    """The unit trap: 0.9 meant as per cent reads as ninety of them. Above 1 it is certain, and read as per cent."""
    if is_number(value) and value > 1:
        yield deviation("UNIT", path, f"{shown(value)} is no fraction; it is read as per cent")
    elif is_number(value) and value < 0:
        yield Finding("UNIT", path, f"{shown(value)} is below 0")


def _side(path: str, side: Any, qty: float) -> Iterator[Finding]:
    meant = SIDES.get(side.upper()) if isinstance(side, str) else None
    if side not in ("LONG", "SHORT"):
        yield deviation("SEMANTIC", f"{path}/side", f"{shown(side)} is neither LONG nor SHORT; read by the quantity's sign")
    if meant is not None and qty != 0 and (qty > 0) is not (meant == "LONG"):
        yield Finding("SEMANTIC", f"{path}/side", f"{meant} with the quantity {shown(qty)}")


def _notional(row: Mapping[str, Any], qty: float, mark: Any) -> float | None:
    if row.get("qty_unit") == "usd":
        return abs(qty)
    return abs(qty) * mark if is_number(mark) else None


def _profit(row: Mapping[str, Any], qty: float, mark: Any) -> float | None:
    """Only where the row says what its quantity counts: what an exchange calls profit otherwise, it alone knows."""
    unit, entry = row.get("qty_unit"), row.get("entry_price")
    if unit is None or not is_number(mark) or not is_number(entry) or entry <= 0:
        return None
    return qty * (mark - entry) / (entry if unit == "usd" else 1)


def _levels(path: str, side: Any, tp: Any, sl: Any) -> Iterator[Finding]:
    """A stop beyond its target would close the position as soon as somebody looks."""
    if is_number(tp) and is_number(sl) and ((side == "LONG" and tp <= sl) or (side == "SHORT" and tp >= sl)):
        yield Finding("SEMANTIC", f"{path}/tp", f"{side} with the target {shown(tp)} and the stop {shown(sl)}")
