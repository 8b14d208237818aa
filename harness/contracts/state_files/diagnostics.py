"""diagnostics.json: veto counters, the exit pipeline by itself, and liveness computed again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.contracts.reading import shown
from harness.contracts.state_files.finding import Document, Finding, Tolerance, deviation, mapping
from harness.contracts.state_files.times import read_moment
from harness.drill.predicate import is_number

MISMATCHES = ("missing_ledger_positions", "ghost_ledger_entries", "missing_tp_sl_entries", "stale_tp_sl_entries")
ROOT = "/runtime_diagnostics"

AGE_TOLERANCE_S = 1.0
"""A writer stamps the file a moment after it has looked at its timers."""


@dataclass(frozen=True, slots=True)
class Timer:
    """One of the four: where its last time stands, and the limit that it must not exceed."""

    name: str
    block: str
    last: str
    limit: str


TIMERS = (Timer("signals", "veto_counters", "last_signal_ts", "max_idle_signals_seconds"),
          Timer("orders", "veto_counters", "last_order_ts", "max_idle_orders_seconds"),
          Timer("exits", "exit_pipeline", "last_exit_trigger_ts", "max_idle_exits_seconds"),
          Timer("router", "exit_pipeline", "last_router_event_ts", "max_idle_router_events_seconds"))

LAST = (("veto_counters", "last_veto_ts"), ("exit_pipeline", "last_exit_scan_ts"),
        *((timer.block, timer.last) for timer in TIMERS))


def diagnostics(document: Document, near: Tolerance, limits: Mapping[str, float], written: float | None,
                milliseconds_above: float, stale_after_s: float) -> Iterator[Finding]:
    """What the document says of itself; against positions and ledger it is asked in ``cross``. Exits may not have been scanned
    for as long as the file may stand behind the others (``stale_after_s``)."""
    runtime = mapping(document.get("runtime_diagnostics"))
    yield from _vetoes(mapping(runtime.get("veto_counters")))
    yield from _pipeline(mapping(runtime.get("exit_pipeline")), near)
    yield from _scanned(mapping(runtime.get("exit_pipeline")), written, milliseconds_above, stale_after_s)
    for block, key in LAST:
        value = mapping(runtime.get(block)).get(key)
        moment = read_moment(value, milliseconds_above)
        if value is not None and moment.problem:
            yield Finding("TIME", f"{ROOT}/{block}/{key}", moment.problem)
        elif value is not None and moment.form != "ISO 8601":
            yield deviation("TIME", f"{ROOT}/{block}/{key}", f"{shown(value)} is not ISO 8601")
    for timer in TIMERS:
        yield from _idle(runtime, timer, limits[timer.limit], written, milliseconds_above)


COUNTED = (("total_signals", "last_signal_ts"), ("total_orders", "last_order_ts"), ("total_vetoes", "last_veto_ts"))
"""What is counted, and when it happened last: never, where the count is 0."""


def _vetoes(counters: Document) -> Iterator[Finding]:
    for count, last in COUNTED:
        if counters.get(count) == 0 and counters.get(last) is not None:
            yield Finding("SEMANTIC", f"{ROOT}/veto_counters/{last}", f"{shown(counters[last])}, and {count} is 0")
    counts = [each for each in mapping(counters.get("by_reason")).values() if is_number(each)]
    total = counters.get("total_vetoes")
    if is_number(total) and total != sum(counts):
        yield Finding("RECOMPUTED", f"{ROOT}/veto_counters/total_vetoes",
                      f"{shown(total)}, and the reasons add up to {sum(counts)}")
    if "" in mapping(counters.get("by_reason")):
        yield Finding("SEMANTIC", f"{ROOT}/veto_counters/by_reason", "a veto without a reason counts as unknown")


def _pipeline(pipeline: Document, near: Tolerance) -> Iterator[Finding]:
    """Counters that follow from other counters of the same block."""
    path, get = f"{ROOT}/exit_pipeline", pipeline.get
    breakdown = mapping(get("mismatch_breakdown"))
    counts = {key: value for key in MISMATCHES if is_number(value := breakdown.get(key))}
    mismatch, missing, opened = get("ledger_registry_mismatch"), get("tp_sl_missing_count"), get("open_positions_count")
    if len(counts) == len(MISMATCHES):
        if isinstance(mismatch, bool) and mismatch is not any(counts.values()):
            yield Finding("RECOMPUTED", f"{path}/ledger_registry_mismatch",
                          f"{shown(mismatch)}, and the breakdown counts {sum(counts.values())}")
        expected = counts["missing_tp_sl_entries"] + counts["missing_ledger_positions"]
        if is_number(missing) and missing != expected:
            yield Finding("RECOMPUTED", f"{path}/tp_sl_missing_count", f"{shown(missing)}, and the breakdown gives {expected}")
        underwater = get("underwater_without_tp_sl_count")
        if is_number(underwater) and underwater > counts["missing_tp_sl_entries"]:
            yield Finding("RECOMPUTED", f"{path}/underwater_without_tp_sl_count",
                          f"{shown(underwater)} of {counts['missing_tp_sl_entries']} without levels")
    registered, coverage = get("tp_sl_registered_count"), get("tp_sl_coverage_pct")
    if is_number(registered) and is_number(opened) and is_number(coverage):
        share = registered / opened if opened > 0 else 0.0
        yield from near.follows(f"{path}/tp_sl_coverage_pct", coverage, share, "the counters give")
        if coverage > 1:
            yield deviation("UNIT", f"{path}/tp_sl_coverage_pct", f"{shown(coverage)}: ghosts are counted as covered")


def _scanned(pipeline: Document, written: float | None, milliseconds_above: float,
             stale_after_s: float) -> Iterator[Finding]:
    """Whether anybody compares open positions with their levels. In the dark nobody can, and honest is who says so."""
    opened, value = pipeline.get("open_positions_count"), pipeline.get("last_exit_scan_ts")
    if not is_number(opened) or opened <= 0:
        return
    path, last = f"{ROOT}/exit_pipeline/last_exit_scan_ts", read_moment(value, milliseconds_above).seconds
    if value is None:
        yield deviation("SEMANTIC", path, f"{opened} positions are open, and exits were never scanned")
    elif last is not None and written is not None and written - last > stale_after_s:
        yield deviation("SEMANTIC", path, f"{opened} positions are open, and exits were scanned {written - last:.0f} s ago, "
                        f"more than {stale_after_s:g} s")


def _idle(runtime: Document, timer: Timer, limit: float, written: float | None, milliseconds_above: float) -> Iterator[Finding]:
    """One timer: its age, whether that is too long, and what is said where there was never anything."""
    liveness, key = mapping(runtime.get("liveness")), f"{timer.name}_idle_seconds"
    details, missing = mapping(liveness.get("details")), mapping(liveness.get("missing"))
    idle, told = liveness.get(f"idle_{timer.name}"), details.get(key)
    path = f"{ROOT}/liveness"
    if not isinstance(idle, bool):
        return
    if limit <= 0 or not details and not missing and not idle:     # not evaluated, or liveness is off
        if idle:
            yield Finding("RECOMPUTED", f"{path}/idle_{timer.name}", "idle, and nothing is asked of it")
        return
    last = read_moment(mapping(runtime.get(timer.block)).get(timer.last), milliseconds_above).seconds
    if (missing.get(key) is True) is not (last is None):
        yield Finding("RECOMPUTED", f"{path}/missing/{key}", f"{timer.last} is {'missing' if last is None else 'there'}")
    if not is_number(told):
        yield Finding("RECOMPUTED", f"{path}/details/{key}", "no age is told")
        return
    if idle is not (told > limit or last is None):
        yield Finding("LIMIT", f"{path}/idle_{timer.name}", f"{shown(idle)} at {shown(told)} s, the limit is {limit:g} s")
    age = limit + 1 if last is None else max(0.0, written - last) if written is not None else told
    if abs(told - age) > AGE_TOLERANCE_S:
        yield Finding("RECOMPUTED", f"{path}/details/{key}", f"{shown(told)}, and {timer.last} gives {age:.3f}")
