"""What other tools take from a pack: tables of numbers as CSV, and representative log lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from itertools import islice

import orjson

from harness import limits
from harness.pack.chapter import Chapter
from harness.pack.plain import cell, visible
from harness.pack.story import SILENCES
from harness.recording.punctuality import FAULT_LATE_MS_MAX, REQUEST_LATE_MS_MAX, Punctuality, of_all

TOLD = frozenset({"mode", "latch", "reconciled", "gap", "reconnect", "breaker", "rescue", "close_attempt", "hedge",
                  "emergency", "token", "ledger_failed", "ghost_cancelled", "duplicate_noop", "boot"})
"""Notes that tell the story; the others (wishes, refusals, dispatches) are told by their first few."""

OTHERS_MAX = 3
LINE_MAX = 400


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
    """``run_logs/``: of each drill's notes the lines that tell the story, each with its run_id; bounded."""
    return {f"run_logs/{each.folder}.log": _representative(each) for each in chapters}


def _representative(chapter: Chapter) -> bytes:
    """The first lines of every kind, all of the telling kinds, in their order, up to ``limits.RUN_NOTES_MAX``."""
    run_id = visible(chapter.story.versions.get("run_id", "?"))
    shown: dict[str, int] = {}
    left_out = 0
    lines: list[str] = []
    for at_ms, row in chapter.story.rows("notes"):
        kind = str(row.get("kind"))
        shown[kind] = shown.get(kind, 0) + 1
        if len(lines) < limits.RUN_NOTES_MAX and (kind in TOLD or shown[kind] <= OTHERS_MAX):
            text = orjson.dumps({**row, "run_id": row.get("run_id", run_id)}, option=orjson.OPT_SORT_KEYS).decode()
            lines.append(f"{at_ms - chapter.story.zero_ms:>8} ms {visible(text, LINE_MAX)}")
        else:
            left_out += 1
    kinds = ", ".join(f"{visible(kind, 40)} {count}" for kind, count in islice(sorted(shown.items()), 40))
    header = [f"run_id {run_id}; times from zero; whole stream: incident_drills/{chapter.folder}/streams/notes.jsonl",
              f"{left_out} lines left out; all by kind: {kinds or 'none'}"]
    return ("\n".join((*header, *lines)) + "\n").encode()
