"""Of what a drill's nodes noted as they went, the lines that tell the story, each with its run_id; bounded."""

from __future__ import annotations

from itertools import islice

import orjson

from harness import limits
from harness.pack.plain import visible
from harness.pack.story import Story

TELLING = frozenset({"mode", "latch", "reconciled", "gap", "reconnect", "breaker", "rescue", "close_attempt", "hedge",
                     "emergency", "token", "ledger_failed", "ghost_cancelled", "duplicate_noop", "boot"})
"""Notes that tell the story; the others (wishes, refusals, dispatches) are told by their first few."""

OTHERS_MAX = 3
LINE_MAX = 400


def representative(story: Story, place: str) -> bytes:
    """The first lines of every kind, all of the telling kinds, in their order, up to ``limits.RUN_NOTES_MAX``; ``place`` is
    the drill's folder in the pack."""
    run_id = visible(story.versions.get("run_id", "?"))
    shown: dict[str, int] = {}
    left_out = 0
    lines: list[str] = []
    for at_ms, row in story.rows("notes"):
        kind = str(row.get("kind"))
        shown[kind] = shown.get(kind, 0) + 1
        if len(lines) < limits.RUN_NOTES_MAX and (kind in TELLING or shown[kind] <= OTHERS_MAX):
            text = orjson.dumps({**row, "run_id": row.get("run_id", run_id)}, option=orjson.OPT_SORT_KEYS).decode()
            lines.append(f"{at_ms - story.zero_ms:>8} ms {visible(text, LINE_MAX)}")
        else:
            left_out += 1
    kinds = ", ".join(f"{visible(kind, 40)} {count}" for kind, count in islice(sorted(shown.items()), 40))
    header = [f"run_id {run_id}; times from zero; whole stream: incident_drills/{place}/streams/notes.jsonl",
              f"{left_out} lines left out; all by kind: {kinds or 'none'}"]
    return ("\n".join((*header, *lines)) + "\n").encode()
