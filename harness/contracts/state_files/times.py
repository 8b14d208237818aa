"""Times in state files. Seven spellings occur in the wild, and one of them means another moment on every machine.

Unix seconds are the lawful one for a surface's own time. ISO 8601 with its offset, milliseconds and digits in a text are
understood by the source's loaders, so a deviation; ISO without an offset is read as local time by one reader, as UTC by
another, and makes a third raise, so a breach.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from harness.contracts.reading import shown
from harness.contracts.state_files.finding import Document, Finding, deviation
from harness.contracts.state_files.surfaces import Surface, Surfaces
from harness.drill.predicate import is_number

_DIGITS = re.compile(r"[0-9]{1,19}")
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:]{5,8}(?:[.,][0-9]{1,9})?(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})?")

TEXT_MAX = 40
"""Characters of the longest one."""


class Moment(msgspec.Struct, frozen=True):
    """A time as it was told: Unix seconds, or None with the reason; ``form`` names a spelling that is not plain seconds."""

    seconds: float | None
    form: str = ""
    problem: str = ""


def read_moment(value: Any, milliseconds_above: float) -> Moment:
    """What a value says as a time. Never raises."""
    if is_number(value):
        return _number(value, milliseconds_above, "")
    if isinstance(value, str) and len(value) <= TEXT_MAX:
        return _text(value, milliseconds_above)
    return Moment(None, problem=f"{shown(value)} is no time")


@lru_cache(maxsize=1_024)
def _text(value: str, milliseconds_above: float) -> Moment:
    """Read once: a file tells the same times again and again."""
    if _DIGITS.fullmatch(value):
        return _number(int(value), milliseconds_above, "digits in a text")
    found = _ISO.fullmatch(value)
    if found is None:
        return Moment(None, problem=f"{shown(value)} is no time")
    if found["zone"] is None:
        return Moment(None, problem=f"{shown(value)} has no time zone: every reader takes it for another moment")
    try:
        return Moment(datetime.fromisoformat(value).timestamp(), "ISO 8601")
    except (ValueError, OverflowError):
        return Moment(None, problem=f"{shown(value)} is no moment of any day")


def _number(value: float, milliseconds_above: float, form: str) -> Moment:
    if value < 0:
        return Moment(None, problem=f"{shown(value)} lies before 1970")
    return Moment(value / 1000, form or "milliseconds") if value > milliseconds_above else Moment(value, form)


def seconds_of(document: Document, surface: Surface, surfaces: Surfaces) -> float | None:
    """The moment a surface was written, by the first key of its own and then the others that holds one; None without."""
    for key in (surface.time, *surfaces.time_keys):
        moment = read_moment(document.get(key), surfaces.milliseconds_above)
        if moment.seconds is not None:
            return moment.seconds
    return None


def time_findings(document: Document, surface: Surface, surfaces: Surfaces) -> list[Finding]:
    """A surface's own time: under its key, as Unix seconds, and the same under every key that readers look at."""
    told = {key: read_moment(document[key], surfaces.milliseconds_above) for key in surfaces.time_keys if key in document}
    own = told.get(surface.time)
    if not told:
        return [Finding("TIME", f"/{surface.time}", "the file says no time")]
    if own is not None and len(told) == 1 and not own.problem and not own.form:  # as nearly all of them tell it
        return []
    found = [Finding("TIME", f"/{key}", each.problem) for key, each in told.items() if each.problem]
    found += [deviation("TIME", f"/{key}", f"{each.form}, not Unix seconds") for key, each in told.items() if each.form]
    if own is None:
        found.append(deviation("TIME", f"/{surface.time}", f"the time stands under {next(iter(told))}"))
    if len({each.seconds for each in told.values()}) > 1:
        found.append(Finding("TIME", f"/{surface.time}", f"{' and '.join(told)} say different moments: readers differ"))
    return found


def row_times(path: str, row: Document, keys: Sequence[str], milliseconds_above: float) -> Iterator[Finding]:
    """The times of a row, in the order in which they must have been: each a moment, or null, and none before the one before."""
    last: tuple[str, float] | None = None
    for key in keys:
        if row.get(key) is None:
            continue
        moment = read_moment(row[key], milliseconds_above)
        if moment.seconds is None:
            yield Finding("TIME", f"{path}/{key}", moment.problem)
        elif last is not None and moment.seconds < last[1]:
            yield Finding("SEMANTIC", f"{path}/{key}", f"before {last[0]}")
        else:
            last = (key, moment.seconds)
