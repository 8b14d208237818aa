"""What other tools take from a pack: tables of numbers as CSV, and representative log lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from harness.pack.chapter import Chapter
from harness.pack.plain import cell
from harness.pack.story import SILENCES
from harness.recording.punctuality import FAULT_LATE_MS_MAX, REQUEST_LATE_MS_MAX, Punctuality, of_all


def metrics(chapters: Sequence[Chapter]) -> dict[str, bytes]:
    """``metrics_exports/``: one table each for time to safe, samples, orders and our own punctuality."""
    return {
        "metrics_exports/time_to_safe.csv": _table(
            ("drill", "world", "seed", "placebo", "verdict", "time_to_safe_ms_upper", "time_to_safe_ms_lower"),
            ((each.name, each.story.head.get("world"), each.story.head.get("seed"), each.story.head.get("placebo"),
              each.says, each.verdict["time_to_safe_ms"]["upper"], each.verdict["time_to_safe_ms"]["lower"])
             for each in chapters)),
        "metrics_exports/samples.csv": _table(
            ("drill", "surface", "answered", *SILENCES, "raw"),
            ((each.name, surface, *(counts[word] for word in ("answered", *SILENCES, "raw")))
             for each in chapters for surface, counts in sorted(each.story.counts.items()))),
        "metrics_exports/orders.csv": _table(
            ("drill", "opened", "reducing", "filled", "rejected_by_venue", "refused_by_trader"),
            ((each.name, *(each.tally[kind] for kind in ("opened", "reducing", "filled", "rejected", "refused")))
             for each in chapters)),
        "metrics_exports/timing.csv": _table(
            ("drill", "time", "requests", f"requests_within_{REQUEST_LATE_MS_MAX}_ms", "request_late_ms_p99",
             "request_late_ms_max", "slots_in_flight", "answer_ms_p99", "faults", f"faults_within_{FAULT_LATE_MS_MAX}_ms",
             "fault_late_ms_p99", "fault_late_ms_max", "stimuli_and_healing", "stimuli_and_healing_late_ms_p99"),
            (_timing(name, each) for name, each in
             [*((each.name, each.story.punctuality) for each in chapters),
              ("all", of_all(each.story.punctuality for each in chapters))])),
    }


def _timing(name: str, found: Punctuality) -> tuple[object, ...]:
    told = found.to_json()
    requests, faults, others = told["requests"], told["faults"], told["stimuli_and_healing"]
    return (name, "virtual" if found.virtual else "real", requests["count"], requests[f"within_{REQUEST_LATE_MS_MAX}_ms"],
            requests["late_ms_p99"], requests["late_ms_max"], told["slots_in_flight"], told["answer_ms_p99"],
            faults["count"], faults[f"within_{FAULT_LATE_MS_MAX}_ms"], faults["late_ms_p99"], faults["late_ms_max"],
            others["count"], others["late_ms_p99"])


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def run_logs(chapters: Sequence[Chapter]) -> dict[str, bytes]:
    """``run_logs/``: of each drill's notes the lines that tell the story."""
    return {f"run_logs/{each.folder}.log": each.notes for each in chapters}
