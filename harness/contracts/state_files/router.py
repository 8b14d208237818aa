"""router_health.json and symbol_scores_v6.json: scores computed again from what they are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from harness.contracts.reading import pointer, shown
from harness.contracts.state_files.finding import Document, Finding, Number, Tolerance, mapping, rows
from harness.contracts.state_files.times import row_times
from harness.drill.predicate import is_number

BASE, FLOOR, TOP, WITHOUT_TWAP = 0.8, 0.2, 1.0, 0.10
BUCKETS = {"A_HIGH": 0.0, "B_MEDIUM": -0.05, "C_LOW": -0.15}
DRIFTS = (("GREEN", 2.0, 0.0), ("YELLOW", 6.0, -0.05), ("RED", float("inf"), -0.12))
LATENCIES = (("FAST", 150.0, 0.0), ("NORMAL", 400.0, -0.03), ("SLOW", float("inf"), -0.08))
"""(bucket, up to which number, how much it takes off)"""

QUALITIES = (("good", 0.9), ("ok", 0.5), ("degraded", 0.2), ("broken", float("-inf")))


def router_health(document: Document, near: Tolerance, milliseconds_above: float) -> Iterator[Finding]:
    """Buckets follow from numbers, scores from buckets, counts from scores."""
    block = mapping(document.get("router_health"))
    overall, symbols = mapping(block.get("global")), mapping(block.get("per_symbol"))
    yield from _metrics("/router_health/global", overall, near)
    for symbol, each in symbols.items():
        for found in _symbol(symbol, mapping(each), near, milliseconds_above):
            yield replace(found, path=pointer("router_health", "per_symbol", symbol) + found.path)
    yield from _overall("/router_health/global", overall, [mapping(each) for each in symbols.values()], near)
    if is_number(score := overall.get("quality_score")):
        yield from near.follows("/router_health_score", document.get("router_health_score"), score, "the global quality is")
    summary = mapping(document.get("summary"))
    if is_number(count := summary.get("count")) and count != len(symbols):
        yield Finding("RECOMPUTED", "/summary/count", f"{shown(count)}, and there are {len(symbols)} symbols")
    yield from _counts(mapping(summary.get("quality_counts")), symbols)


def _metrics(path: str, metrics: Document, near: Tolerance) -> Iterator[Finding]:
    """A number nobody knows is taken for the best."""
    takes_off = 0.0
    for number, bucket, table in (("slippage_drift_bps", "slippage_drift_bucket", DRIFTS),
                                  ("avg_latency_ms", "latency_bucket", LATENCIES)):
        value, told = metrics.get(number), metrics.get(bucket)
        expected, little = _bucket(value, table)
        if told is not None and (is_number(value) or value is None) and told != expected:
            yield Finding("RECOMPUTED", f"{path}/{bucket}", f"{shown(told)} at {shown(value)}, which is {expected}")
        takes_off += little if not told or told == expected else next((much for name, _, much in table if name == told), 0.0)
    twap, route = metrics.get("twap_usage_ratio"), metrics.get("router_bucket")
    if is_number(twap) and route in BUCKETS:
        score = max(FLOOR, min(TOP, BASE + BUCKETS[route] + takes_off - WITHOUT_TWAP * (1 - twap)))
        yield from near.follows(f"{path}/quality_score", metrics.get("quality_score"), score, "its parts give")
    elif is_number(told := metrics.get("quality_score")) and not FLOOR <= told <= TOP:
        yield Finding("UNIT", f"{path}/quality_score", f"{shown(told)} is no score: from {FLOOR:g} to {TOP:g}")


def _bucket(value: Any, table: Iterable[tuple[str, float, float]]) -> tuple[str, float]:
    """Its name, and how much it takes off."""
    return next((name, much) for name, most, much in table if not is_number(value) or value <= most)


def _overall(path: str, overall: Document, symbols: list[Document], near: Tolerance) -> Iterator[Finding]:
    """All symbols, each by what it traded, and 1 where it traded nothing; the route of whoever weighs most. A number that is
    known of none is known of nobody."""
    weights = [float(each["total_notional"] or 1) for each in symbols if is_number(each.get("total_notional"))]
    if len(weights) != len(symbols):
        return
    for key in ("avg_slippage_bps", "slippage_drift_bps", "avg_latency_ms"):
        known = [(weight, each[key]) for weight, each in zip(weights, symbols, strict=True) if is_number(each.get(key))]
        if not all(key in each for each in symbols):
            continue
        if not known and is_number(overall.get(key)):
            yield Finding("RECOMPUTED", f"{path}/{key}", f"{shown(overall[key])}, and no symbol has any")
        if known and overall.get(key) is None:
            yield Finding("RECOMPUTED", f"{path}/{key}", "missing, and symbols have it")
        if known:
            mean = math.fsum(weight * value for weight, value in known) / math.fsum(weight for weight, _ in known)
            yield from near.follows(f"{path}/{key}", overall.get(key), mean, "the symbols, by what they traded, give")
    routes = {each.get("router_bucket") for weight, each in zip(weights, symbols, strict=True) if weight == max(weights)}
    if routes and None not in routes and overall.get("router_bucket") not in routes:
        yield Finding("RECOMPUTED", f"{path}/router_bucket",
                      f"{shown(overall.get('router_bucket'))}, and what traded most has {shown(sorted(map(str, routes))[0])}")
    if all(is_number(each.get("twap_notional")) for each in symbols):
        part, whole = (math.fsum(each[key] for each in symbols) for key in ("twap_notional", "total_notional"))
        if part > 0 and whole > 0:
            ratio = overall.get("twap_usage_ratio")
            yield from near.follows(f"{path}/twap_usage_ratio", ratio, part / whole, "the symbols give")


def _symbol(symbol: str, metrics: Document, near: Tolerance, milliseconds_above: float) -> Iterator[Finding]:
    """By itself; paths begin at the symbol."""
    yield from _metrics("", metrics, near)
    if metrics.get("symbol", symbol) != symbol:
        yield Finding("SEMANTIC", "/symbol", f"{shown(metrics['symbol'])} under the name {shown(symbol)}")
    part, whole = metrics.get("twap_notional"), metrics.get("total_notional")
    if is_number(part) and is_number(whole) and part > 0 and whole > 0:
        yield from near.follows("/twap_usage_ratio", metrics.get("twap_usage_ratio"), part / whole, "the notionals give")
    for key in ("last_order_ts", "last_fill_ts"):
        yield from row_times("", metrics, (key,), milliseconds_above)


def _counts(told: Document, symbols: Document) -> Iterator[Finding]:
    """How many symbols are of which quality."""
    if not told:
        return
    scores = [score for each in symbols.values() if is_number(score := mapping(each).get("quality_score"))]
    counted = dict.fromkeys((name for name, _ in QUALITIES), 0)
    for score in scores:
        counted[next(name for name, least in QUALITIES if score >= least)] += 1
    for name, count in counted.items():
        if is_number(told.get(name)) and told[name] != count:
            yield Finding("RECOMPUTED", f"/summary/quality_counts/{name}", f"{shown(told[name])}, and {count} symbols are")


def symbol_scores(document: Document, near: Tolerance) -> Iterator[Finding]:
    """Whoever passes is at least at the threshold, and the highest score stands first."""
    before: Number | None = None
    seen: set[str] = set()
    for place, row in rows(document.get("symbols")):
        hybrid, score, path = mapping(row.get("hybrid")), row.get("hybrid_score"), f"/symbols/{place}"
        own = hybrid.get("score", score)
        least, passes = hybrid.get("min_for_emission"), hybrid.get("passes_emission")
        if is_number(own):
            yield from near.follows(f"{path}/hybrid_score", score, own, "hybrid.score is")
        if is_number(own) and is_number(least) and isinstance(passes, bool) and passes is not (own >= least):
            yield Finding("LIMIT", f"{path}/hybrid/passes_emission", f"{shown(passes)} at {shown(own)}; {shown(least)} passes")
        if is_number(score) and before is not None and score > before:
            yield Finding("SEMANTIC", path, "a higher score stands after a lower one")
        before = score if is_number(score) else before
        if isinstance(symbol := row.get("symbol"), str):
            if symbol in seen:
                yield Finding("SEMANTIC", path, f"the symbol {shown(symbol)} is listed twice")
            seen.add(symbol)

