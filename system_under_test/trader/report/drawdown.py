"""Drawdown: how far the account's value lies below its highest, and what state that is.

``DRAWDOWN`` from the limit on; ``RECOVERY`` below it, until the last of the loss is made good; else ``NORMAL``. The
highest value must outlive the process, or every crash would forgive a loss: it is kept in a file of the trader's own,
written through to the disk when it has risen by more than a hair or when the state has changed, and beside that the
last snapshot says it to the cent. A snapshot that claims more than a hair beyond the file is not believed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import orjson

from system_under_test.machine import Replace
from system_under_test.trader.settings import Settings
from system_under_test.trader.turn import Turn

FILE = "risk_memory.json"
NORMAL, DRAWDOWN, RECOVERY = "NORMAL", "DRAWDOWN", "RECOVERY"
STATES = (NORMAL, DRAWDOWN, RECOVERY)
HAIR = 1e-4
"""A peak is written through when it has risen by more than this share since it last was."""
DAY_MS = 86_400_000


class Drawdown:
    """Peak, state and day's start. Fed once per publish; what was *told* is what really stands in the file since then, so
    that a snapshot that never landed is no snapshot before."""

    def __init__(self, settings: Settings) -> None:
        self._limit = settings.max_portfolio_dd_nav_pct
        self._changes_max, self._flap_ms = settings.dd_flap_changes_max, settings.dd_flap_window_s * 1_000
        self.peak = 0.0
        self.pct = 0.0
        self.nav: float | None = None
        self.state = NORMAL
        self.told_nav: float | None = None
        self.told_state = NORMAL
        self._day: int | None = None
        self.day_start = 0.0
        self._changes: deque[int] = deque()
        """when the state that is told changed, within the window"""
        self._kept: tuple[object, ...] = ()
        self._kept_peak = 0.0

    @property
    def broken(self) -> bool:
        """Whether the loss is so large that nothing may be opened."""
        return self.pct >= self._limit

    @property
    def daily_loss(self) -> float:
        """Share of the day's first value that is lost."""
        if self.nav is None or self.day_start <= 0:
            return 0.0
        return max(0.0, (self.day_start - self.nav) / self.day_start)

    def changes(self, ts: int) -> int:
        """How often the state changed within the window, with the change that is told now."""
        while self._changes and self._changes[0] < ts - self._flap_ms:
            self._changes.popleft()
        return len(self._changes) + (self.state != self.told_state)

    def flaps(self, ts: int) -> bool:
        """Whether the state changes more often than a state should."""
        return self.changes(ts) > self._changes_max

    def take(self, turn: Turn, nav: float) -> None:
        """The account's value as it is told now."""
        day = turn.ts // DAY_MS
        if day != self._day:
            self._day, self.day_start = day, nav
        self.nav, self.peak = nav, max(self.peak, nav)
        self.pct = min(1.0, (self.peak - nav) / self.peak) if self.peak > 0 else 0.0
        self.state = self._next()
        self._keep(turn)

    def _next(self) -> str:
        if self.broken:
            return DRAWDOWN
        return RECOVERY if self.pct > 0 and self.told_state != NORMAL else NORMAL

    def landed(self, turn: Turn) -> None:
        """What was told last stands in the file."""
        if self.state != self.told_state:
            self._changes.append(turn.ts)
            turn.note("drawdown", None, **{"from": self.told_state}, to=self.state, dd_pct=self.pct, nav=self.nav,
                      peak=self.peak)
        self.told_state, self.told_nav = self.state, self.nav
        self._keep(turn)

    def _keep(self, turn: Turn) -> None:
        """Write through what must not be forgotten, when it has become something else."""
        kept = (self.told_state, self._day, tuple(self._changes))
        if kept != self._kept or self.peak > self._kept_peak * (1 + HAIR):
            self._kept, self._kept_peak = kept, self.peak
            turn.send(Replace(FILE, orjson.dumps({
                "peak": self.peak, "state": self.told_state, "day": self._day, "day_start": self.day_start,
                "changes": list(self._changes)})))

    def failed(self) -> None:
        """The disk refused to keep it: it is kept with the next publish."""
        self._kept = ()

    # ---- another life ----

    def restore(self, files: Mapping[str, bytes], snapshot: Mapping[str, Any], nav: float | None = None) -> None:
        """What an earlier life knew: from the file, from the last snapshot what the file does not say so finely, and the value
        that is told elsewhere until a new one is heard."""
        memory, told = read(files.get(FILE)), entry(snapshot, "dd_state")
        self.peak = _peak(number(memory.get("peak")), number(entry(told, "drawdown").get("peak")))
        self.state = next((each for each in (told.get("state"), memory.get("state")) if each in STATES), NORMAL)
        self.told_state, self.told_nav = self.state, number(snapshot.get("nav"))
        self.nav = nav if nav is not None else self.told_nav
        day, day_start, changes = number(memory.get("day")), number(memory.get("day_start")), memory.get("changes")
        if day is not None and day_start is not None:
            self._day, self.day_start = int(day), day_start
        self._changes.extend(sorted(each for each in changes if type(each) is int) if isinstance(changes, list) else ())
        dated = number(snapshot.get("updated_ts"))
        if dated is not None and memory.get("state") in STATES and memory["state"] != self.state:
            self._changes.append(int(dated * 1_000))  # it landed, and the memory of it did not
        if self.peak > 0 and self.nav is not None:
            self.pct = min(1.0, max(0.0, (self.peak - self.nav) / self.peak))


def _peak(kept: float | None, told: float | None) -> float:
    """The highest value: as it was kept, or a hair more, as it was told."""
    if told is not None and (kept is None or told <= kept * (1 + HAIR)):
        return max(0.0, told, kept or 0.0)
    return max(0.0, kept or 0.0)


def read(data: bytes | None) -> dict[str, Any]:
    """A file as an object; one that is not there or cannot be read holds nothing."""
    try:
        value = orjson.loads(data) if data else {}
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def entry(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object within an object; what is none holds nothing."""
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def number(value: object) -> float | None:
    """A finite number, or nothing."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None
