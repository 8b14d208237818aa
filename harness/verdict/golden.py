"""Did the system ever look exactly like the golden document, in time?

The earliest matching sample decides. When none matches, the nearest one (fewest differing paths, then earliest) is
shown, because a person wants to see how near it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.contracts.golden import PLAIN, compare, tolerances_of
from harness.contracts.library import manifest_of
from harness.drill.predicate import look
from harness.recording.timeline import Document
from harness.verdict.case import Case
from harness.verdict.check import Finding, failed, passed, unsure

CONTRACT = "csp_status"
"""What a golden is a document of that names no surface."""

CLOSE_ENOUGH = {"csp_status": ("trading_mode", "mode_reasons", "open_permission_reason_codes"),
                "ops_status": ("status.state", "status.reason_codes", "floor.state", "floor.reason_codes")}
"""Samples that differ here are compared in full only when nothing nearer is found."""


def golden(case: Case) -> Finding:
    """The golden clause of the drill. PASS, FAIL, or INCONCLUSIVE when the time was not covered."""
    clause = case.drill.golden
    if clause is None:
        raise ValueError("the drill has no golden")
    mark = case.mark(clause.after)
    if mark is None:
        return unsure(f"the mark {clause.after} is missing")
    surface = surface_of(case)
    expected = case.rules.fixture(clause.fixture, contract_of(case))
    grid = case.timeline.track(surface).grid
    slots = list(case.timeline.documents(surface, *grid.asked_in(mark.begin, mark.end + clause.reached_within_ms)))
    best, differences = _nearest(case, slots, expected)
    if best is None:
        return unsure(f"no usable sample within {clause.reached_within_ms} ms of {clause.after}", mark.end)
    slot, document = best
    asked, answered = grid.asked[slot], grid.answered[slot]
    shown = {"fixture": clause.fixture, "surface": surface, "asked": asked, "answered": answered, "observed": document,
             "differences": [_plain(each) for each in differences]}
    wrong = [each for each in differences if not each.tolerated]
    took = answered - mark.begin
    if not wrong and took <= clause.reached_within_ms:
        return passed(f"{clause.fixture} was reached {took} ms after {clause.after}", asked, took_ms=took, **shown)
    if not wrong:
        return unsure(f"{clause.fixture} was reached between samples around the deadline, after {took} ms", asked,
                      took_ms=took, **shown)
    holes = case.gaps(case.answers(surface), (surface,), mark.begin, mark.end + clause.reached_within_ms)
    if holes:
        return unsure(f"no usable sample for {holes[0][1] - holes[0][0]} ms, longer than the grain", holes[0][0], **shown)
    return failed(f"{clause.fixture} was not reached; the nearest sample differs in "
                  f"{', '.join(each.pointer for each in wrong[:5])}", asked, **shown)


def surface_of(case: Case) -> str:
    """The sampled surface whose documents the golden is one of. Raises ValueError when the drill samples none."""
    if case.drill.golden is not None and case.drill.golden.surface is not None:
        return case.drill.golden.surface
    found = [surface for surface in case.drill.sample if case.timeline.contract_of(surface) == CONTRACT]
    if not found:
        raise ValueError(f"the drill samples no surface of the contract {CONTRACT}")
    return found[0]


def contract_of(case: Case) -> str:
    """The contract of that surface, without its part."""
    return (case.timeline.contract_of(surface_of(case)) or CONTRACT).partition(".")[0]


def _nearest(case: Case, slots: list[tuple[int, Document]], expected: Document) -> tuple[Any, list[Any]]:
    """The earliest match, else the nearest sample; those that agree on mode and codes are tried first."""
    paths = CLOSE_ENOUGH.get(contract_of(case), ())
    near = [slot for slot in slots if all(look(slot[1], path) == look(expected, path) for path in paths)]
    best, best_differences, fewest = None, [], None
    for slot in near or slots:
        differences = _compare(case, slot[1], expected)
        count = sum(1 for each in differences if not each.tolerated)
        if fewest is None or count < fewest:
            best, best_differences, fewest = slot, differences, count
        if count == 0:
            break
    return best, best_differences


def _compare(case: Case, document: Document, expected: Document) -> list[Any]:
    root, contract = case.rules.root, contract_of(case)
    return compare(document, expected, tolerances_of(root, contract), case.policy,
                   case.timeline.baseline().get(surface_of(case)),
                   fixture=case.drill.golden.fixture if case.drill.golden else None,
                   manifest=manifest_of(root) if contract == CONTRACT else PLAIN)


def _plain(difference: Any) -> Mapping[str, Any]:
    def value(each: Any) -> Any:
        return each if isinstance(each, (str, int, float, bool, list, dict, type(None))) else str(each)

    return {"pointer": difference.pointer, "expected": value(difference.expected),
            "observed": value(difference.observed), "tolerated": difference.tolerated, "reason": difference.reason}
