"""Which lanes a drill's picture has: mode, latch, each fault, and what reached the exchange."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import orjson

from harness.drill.predicate import MISSING, look, same
from harness.pack.story import Story
from harness.pack.svg import TICKS, Band, Lane, draw
from harness.recording.columns import elsewhere_none

MODE, LATCH = "trading_mode", "open_permission_blocked_latch"
OWN_LANES_MAX = 4
LEAD_MS = 5_000
"""How much of the calm before zero is shown; a long start would squeeze the drill into a corner."""


def timeline(story: Story) -> str:
    """The picture of one drill, as an ``<svg>`` element."""
    begin = max(0, story.zero_ms - LEAD_MS)
    ours = story.obeys_status_contract
    lanes = [Lane("mode", tuple(_bands(story, (MODE, LATCH), _mode))),
             Lane("opening latch", tuple(_bands(story, (MODE, LATCH), _latch)))] if ours else [*_own(story)]
    lanes += [Lane(f"fault {id}", (Band(from_ms, to_ms, "fault", force),))
              for id, force, from_ms, to_ms in story.faults()]
    lanes += [Lane(f"act {id}", (Band(at_ms, at_ms, "act", what),)) for id, what, at_ms in story.stimuli()]
    moments = _moments(story) if ours else {}
    lanes += [Lane(name, ticks=tuple(moments.get(kind, ())), colour=TICKS[kind]) for kind, name in _ROWS.items() if ours]
    shown = "mode, latch, faults and orders" if ours else "what it said, and the faults,"
    return draw(f"{story.name}: {shown} over time", lanes, begin, story.end_ms, story.zero_ms)


def _own(story: Story) -> Iterator[Lane]:
    """Of a system under no contract of ours: the fields by which the drill knows the steady state, green as it wants them."""
    given = story.drill.get("given")
    wanted = given.get(str(story.surface)) if isinstance(given, Mapping) else None
    for path, value in [*wanted.items()][:OWN_LANES_MAX] if isinstance(wanted, Mapping) else ():
        yield Lane(str(path), tuple(_bands(story, (str(path).partition(".")[0],), partial(_field, str(path), value))))


def _field(path: str, wanted: Any, document: Mapping[str, Any] | None) -> tuple[str, str]:
    found = MISSING if document is None else look(document, path)
    if found is MISSING:
        return "silent", "silent"
    said = found if isinstance(found, str) else orjson.dumps(found).decode()
    return ("Active" if same(found, wanted) or isinstance(wanted, Mapping) else "ReduceOnly"), said[:40]


_ROWS = {"opened": "orders that open", "reducing": "orders that reduce", "filled": "fills",
         "rejected": "venue rejected", "refused": "trader refused"}


def _mode(document: Mapping[str, Any] | None) -> tuple[str, str]:
    value = None if document is None else document.get(MODE)
    return ("silent", "silent") if value is None else (str(value), str(value))


def _latch(document: Mapping[str, Any] | None) -> tuple[str, str]:
    value = None if document is None else document.get(LATCH)
    if value is None:
        return "silent", "silent"
    return ("latched", "latched") if value else ("clear", "clear")


def _bands(story: Story, fields_read: tuple[str, ...], name: Any) -> Iterator[Band]:
    """Neighbouring samples that say the same, as one band each, from the first ``asked`` to the next one's."""
    current: tuple[str, str] | None = None
    begin = 0
    track = story.track
    for first, _, fields in elsewhere_none(track.states(fields_read), track.answered, len(track)):
        value = name(fields)
        if value != current:
            if current is not None:
                yield Band(begin, track.grid.asked[first], *current)
            current, begin = value, track.grid.asked[first]
    if current is not None:
        yield Band(begin, story.end_ms, *current)


def _moments(story: Story) -> dict[str, list[int]]:
    """When orders opened, reduced, were rejected or filled (the exchange's books), or refused (the trader's notes)."""
    moments: dict[str, list[int]] = {}
    for at_ms, row in story.rows("books"):
        if row.get("kind") == "order":
            kind = "rejected" if row.get("outcome") != "accepted" else "opened" if row.get("opening") else "reducing"
            moments.setdefault(kind, []).append(at_ms)
        elif row.get("kind") == "fill":
            moments.setdefault("filled", []).append(at_ms)
    for at_ms, row in story.rows("notes"):
        if row.get("kind") == "refused":
            moments.setdefault("refused", []).append(at_ms)
    return moments


def tally(story: Story) -> dict[str, int]:
    """How many of each moment the whole recording holds."""
    moments = _moments(story)
    return {kind: len(moments.get(kind, ())) for kind in _ROWS}
