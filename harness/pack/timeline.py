"""Which lanes a drill's picture has: what each of the three contracts' surfaces said, each fault, what reached the exchange."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from harness.contracts.state_files.surfaces import Surfaces, read_surfaces
from harness.drill.predicate import MISSING, look, same
from harness.errors import SpecError
from harness.pack.story import ABSENT, Story
from harness.pack.svg import LABEL_MAX, TICKS, Band, Lane, Mark, draw
from harness.recording.columns import elsewhere_none
from harness.recording.writes import Written

MODE, LATCH = "trading_mode", "open_permission_blocked_latch"
OPS, FLOOR, FILES = "ops_status", "ops_status.floor", "state_files."
RISK = {"risk_mode": "risk mode", "dd_state.state": "drawdown"}
"""What is shown of risk_snapshot: field → lane."""
OWN_LANES_MAX = 4
CODES_MAX = 6
"""How many reasons of a service a label names."""
LEAD_MS = 5_000
"""How much of the calm before zero is shown; a long start would squeeze the drill into a corner."""
MARKS_MAX = 4
"""How many of the checks that did not pass are marked in the picture."""
FRESH_MS = 3_000
"""How long a file counts as fresh whose contract says nothing of it."""

WRITTEN = "#86a896"
"""The colour of a file's ticks: they are many, and stand on what they keep fresh."""

Said = tuple[str, str]
"""(colour, label)"""


def timeline(story: Story, rules: Path, troubles: Sequence[Mapping[str, Any]] = ()) -> str:
    """The picture of one drill, as an ``<svg>`` element; ``rules`` say how old a file may be, ``troubles`` (the checks that
    did not pass, worst first) are marked where they failed."""
    begin = max(0, story.zero_ms - LEAD_MS)
    ours = story.obeys_status_contract
    status = [_lane(story, "mode", str(story.surface), (MODE, LATCH), _mode),
              _lane(story, "opening latch", str(story.surface), (MODE, LATCH), _latch)] if ours else [*_own(story)]
    done = story.head.get("placebo") is False
    colour, word = ("fault", "") if done else ("not done", "NOT DONE: ")
    broken = [*(Lane(f"fault {id}", (Band(from_ms, to_ms, colour, f"{word}{force}"),))
                for id, force, from_ms, to_ms in story.faults()),
              *(Lane(f"act {id}", (Band(at_ms, at_ms, "act", what),)) for id, what, at_ms in story.stimuli())]
    moments = _moments(story) if ours else {}
    orders = [Lane(name, ticks=tuple(moments.get(kind, ())), colour=TICKS[kind]) for kind, name in _ROWS.items() if ours]
    parts = {"/status": status, "ops status": [*_services(story)], "state files": [*_files(story, rules)],
             "what was done" if done else "what a placebo leaves out": broken, "the exchange's books": orders}
    told = [name for name in ("ops status", "state files") if parts[name]]
    lanes = [lane for name, group in parts.items() if group for lane in ([Lane(name, heading=True)] if told else []) + group]
    shown = ", ".join(("mode, latch", *told, "faults and orders")) if ours else "what it said, and the faults,"
    return draw(f"{story.name}: {shown} over time", lanes, begin, story.end_ms, story.zero_ms, _marks(troubles))


def _marks(troubles: Sequence[Mapping[str, Any]]) -> list[Mark]:
    """The failures that have a moment, in time; where nothing failed, what stayed open."""
    placed = [each for each in troubles if type(each.get("at")) is int]
    worst = [each for each in placed if each["verdict"] == "FAIL"] or placed
    marks = [Mark(each["at"], str(each["verdict"]), f"{each['id']}: {each['says']}") for each in worst[:MARKS_MAX]]
    return sorted(marks, key=lambda each: each.at_ms)


# ---- /status ----------------------------------------------------------------------------------------------


def _own(story: Story) -> Iterator[Lane]:
    """Of a system under no contract of ours: the fields by which the drill knows the steady state, green as it wants them."""
    given = story.drill.get("given")
    wanted = given.get(str(story.surface)) if isinstance(given, Mapping) else None
    for path, value in [*wanted.items()][:OWN_LANES_MAX] if isinstance(wanted, Mapping) else ():
        yield _lane(story, str(path), str(story.surface), (str(path).partition(".")[0],), partial(_field, str(path), value))


def _field(path: str, wanted: Any, document: Mapping[str, Any] | None) -> Said:
    found = MISSING if document is None else look(document, path)
    if found is MISSING:
        return "silent", "silent"
    said = found if isinstance(found, str) else orjson.dumps(found).decode()
    return ("Active" if same(found, wanted) or isinstance(wanted, Mapping) else "ReduceOnly"), said[:40]


def _mode(document: Mapping[str, Any] | None) -> Said:
    value = None if document is None else document.get(MODE)
    return ("silent", "silent") if value is None else (str(value), str(value)[:LABEL_MAX])


def _latch(document: Mapping[str, Any] | None) -> Said:
    value = None if document is None else document.get(LATCH)
    if value is None:
        return "silent", "silent"
    return ("latched", "latched") if value else ("clear", "clear")


# ---- ops status -------------------------------------------------------------------------------------------


def _services(story: Story) -> Iterator[Lane]:
    """Each service's state and its reason, then the floor that they make."""
    for contract, block in ((OPS, "status"), (FLOOR, "floor")):
        for surface in _under(story, contract):
            yield _lane(story, "Trading Floor" if contract == FLOOR else str(story.timeline.node_of(surface) or surface),
                        surface, (block,), partial(_state, block))


def _state(block: str, document: Mapping[str, Any] | None) -> Said:
    told = document.get(block) if document is not None else None
    state = told.get("state") if isinstance(told, Mapping) else None
    if not isinstance(told, Mapping) or not isinstance(state, str):
        return "silent", "silent"
    codes = told.get("reason_codes")
    told = [str(code)[:LABEL_MAX] for code in codes[:CODES_MAX] if code != state] if isinstance(codes, list) else []
    return state, " ".join([state[:LABEL_MAX], *told])[:LABEL_MAX]


# ---- state files ------------------------------------------------------------------------------------------


def _files(story: Story, rules: Path) -> Iterator[Lane]:
    """What risk_snapshot says, then of each file how fresh it is, and each time that it was written."""
    watched = [surface for surface in story.timeline.surfaces if (story.timeline.contract_of(surface) or "").startswith(FILES)]
    for surface in _under(story, f"{FILES}risk_snapshot"):
        for path, name in RISK.items():
            yield _lane(story, name, surface, (path.partition(".")[0],), partial(_word, path))
    surfaces = _surfaces(rules) if watched else None
    for surface in watched:
        part = str(story.timeline.contract_of(surface)).removeprefix(FILES)
        writes = [*story.timeline.written(surface)]
        yield Lane(part, tuple(_kept(story, surface, writes, _bound_ms(surfaces, part))),
                   tuple(each.end for each in writes if each.how != "in_place"), WRITTEN)


def _word(path: str, document: Mapping[str, Any] | None) -> Said:
    found = MISSING if document is None else look(document, path)
    return (found, found[:LABEL_MAX]) if isinstance(found, str) else ("silent", "silent")


def _surfaces(rules: Path) -> Surfaces | None:
    try:
        return read_surfaces(rules)
    except SpecError:  # rules of another time
        return None


def _bound_ms(surfaces: Surfaces | None, part: str) -> int:
    return surfaces.by_name[part].bound_ms if surfaces is not None and part in surfaces.by_name else FRESH_MS


def _kept(story: Story, surface: str, writes: Sequence[Written], bound_ms: int) -> Iterator[Band]:
    """Fresh for a bound from each writing, stale from then on; missing where it is not there, red where nobody can read it."""
    track = story.timeline.track(surface)
    asked = {"unreadable": track.slots("raw"), "silent": track.slots(ABSENT)}
    seen = {(track.grid.asked[slot], what) for what, slots in asked.items() for slot in slots}
    there = sorted({*seen, *((each.end, "silent" if each.how == "removed" else "fresh") for each in writes)},
                   key=lambda each: (each[0], each[1] == "fresh", each[1]))
    pieces: list[tuple[int, str]] = []
    for index, (at, what) in enumerate(there):
        until = there[index + 1][0] if index + 1 < len(there) else story.end_ms
        pieces += [(at, what), *([(at + bound_ms, "stale")] if what == "fresh" and at + bound_ms < until else [])]
    changes = [piece for before, piece in zip([(0, ""), *pieces], pieces, strict=False) if piece[1] != before[1]]
    for (at, what), (until, _) in zip(changes, [*changes[1:], (story.end_ms, "")], strict=False):
        yield Band(at, until, what, "missing" if what == "silent" else what)
    yield from (Band(each.begin, each.end, "in place", "written in place") for each in writes if each.how == "in_place")


# ---- bands and ticks --------------------------------------------------------------------------------------


def _under(story: Story, contract: str) -> list[str]:
    """The watched surfaces under a contract, in the order of the recording."""
    return [surface for surface in story.timeline.surfaces if story.timeline.contract_of(surface) == contract]


def _lane(story: Story, name: str, surface: str, fields_read: tuple[str, ...],
          says: Callable[[Mapping[str, Any] | None], Said]) -> Lane:
    return Lane(name, tuple(_bands(story, surface, fields_read, says)))


def _bands(story: Story, surface: str, fields_read: tuple[str, ...],
           says: Callable[[Mapping[str, Any] | None], Said]) -> Iterator[Band]:
    """Neighbouring samples that say the same, as one band each, from the first ``asked`` to the next one's."""
    current: Said | None = None
    begin = 0
    track = story.timeline.track(surface)
    for first, _, fields in elsewhere_none(track.states(fields_read), track.answered, len(track)):
        value = says(fields)
        if value != current:
            if current is not None:
                yield Band(begin, track.grid.asked[first], *current)
            current, begin = value, track.grid.asked[first]
    if current is not None:
        yield Band(begin, story.end_ms, *current)


_ROWS = {"opened": "orders that open", "reducing": "orders that reduce", "filled": "fills",
         "rejected": "venue rejected", "refused": "trader refused"}


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
