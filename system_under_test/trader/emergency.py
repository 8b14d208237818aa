"""Emergency reduce-only: asked for by an operator at the endpoint, or by a containment that is not clean.

It ends by itself after a cooldown without a new cause (300 s for the endpoint, 60 s clean for containment;
DESIGN 9.7), and only while the exposure is known to be safe. Nothing can end it early: what an operator asked for is
in the ledger and survives a restart. Containment needs no row, for its groups come back and are contained again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from system_under_test.trader.settings import Settings


class Emergency:
    """Whether emergency reduce-only is active, and who asked for it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._until_ms: int | None = None
        self._by: set[str] = set()

    def restore(self, rows: Iterable[Mapping[str, Any]], now_ms: int) -> None:
        """What an operator asked for before the restart. However the clocks differ, it lasts one cooldown at most."""
        longest = now_ms + self._settings.emergency_reduceonly_cooldown_s * 1_000
        for row in rows:
            if row.get("kind") == "emergency" and min(int(row["until_ts"]), longest) > now_ms:
                self._extend("endpoint", min(int(row["until_ts"]), longest))

    def endpoint(self, now_ms: int) -> dict[str, object]:
        """An operator (or a watchdog with the token) asked for it. Returns the ledger row that is due."""
        until_ms = now_ms + self._settings.emergency_reduceonly_cooldown_s * 1_000
        self._extend("endpoint", until_ms)
        return {"kind": "emergency", "until_ts": until_ms}

    def containment(self, now_ms: int) -> None:
        """A mixed group is being contained at this moment; to be said every tick until it is clean."""
        self._extend("containment", now_ms + self._settings.containment_cooldown_ms)

    def active(self, now_ms: int, *, safe: bool) -> bool:
        """Whether it is in force. ``safe``: the exposure is reconciled; unknown is not safe."""
        if self._until_ms is None:
            return False
        if now_ms < self._until_ms or not safe:
            return True
        self._until_ms = None
        self._by.clear()
        return False

    @property
    def asked(self) -> bool:
        """Whether anybody has asked for it and it has not been seen to end."""
        return self._until_ms is not None

    @property
    def by_containment(self) -> bool:
        """Whether containment has asked for the emergency now in force."""
        return "containment" in self._by

    def _extend(self, by: str, until_ms: int) -> None:
        self._until_ms = max(self._until_ms or 0, until_ms)
        self._by.add(by)
