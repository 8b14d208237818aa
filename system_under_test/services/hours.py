"""When a market is open, by the name of its calendar (specs/ops_status/calendars.yaml).

New York trades Monday to Friday from 09:30 to 16:00, both ends included; holidays are none of the source's business. What
cannot be asked (a name that nobody knows, no time zone rules on this machine, a clock beyond the calendar) is neither open
nor closed: None.
"""

from __future__ import annotations

from datetime import datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson

CONTINUOUS = "continuous"
UNREADABLE = "unreadable"
"""Stands for a name that could not be read; no calendar is called so."""

NAME_CHARACTERS_MAX = 80
OPENS_MS = (9 * 60 + 30) * 60_000
CLOSES_MS = 16 * 60 * 60_000
FRIDAY = 4


def new_york() -> tzinfo | None:
    """The rules of New York's clock; None where this machine has none."""
    try:
        return ZoneInfo("America/New_York")
    except (ZoneInfoNotFoundError, OSError, ValueError):
        return None


def is_open(calendar: str, wall_ms: int, zone: tzinfo | None) -> bool | None:
    """Whether the market is open at this Unix time."""
    if calendar == CONTINUOUS:
        return True
    if calendar == "closed":
        return False
    if calendar != "nyse" or zone is None:
        return None
    seconds, ms = divmod(wall_ms, 1_000)
    try:
        there = datetime.fromtimestamp(seconds, zone)
    except (OverflowError, OSError, ValueError):
        return None
    of_day_ms = ((there.hour * 60 + there.minute) * 60 + there.second) * 1_000 + ms
    return there.weekday() <= FRIDAY and OPENS_MS <= of_day_ms <= CLOSES_MS


def named(seen: bytes) -> str:
    """The calendar that an operator's file names: ``{"calendar": "nyse"}``."""
    try:
        raw = orjson.loads(seen)
    except orjson.JSONDecodeError:
        return UNREADABLE
    name = raw.get("calendar") if isinstance(raw, dict) else None
    return name[:NAME_CHARACTERS_MAX] if isinstance(name, str) and name else UNREADABLE
