"""The open-permission latch: while it is set, nothing opens, whatever the mode says.

A trigger adds its code; the codes leave only all together, after a reconciliation found nothing wrong. Most
latches are AUTO. A MANUAL one (the exchange ended our session for cause) survives a restart and waits for an
operator's acknowledgement as well. Clearing never opens anything by itself: the guard is still asked.

The machine is the table below; it equals ``specs/machines/open_permission_latch.yaml`` by test. An event that
the table does not know for the state raises `LatchError` and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

PERMITTED = "Permitted"
BLOCKED_AUTO = "BlockedAuto"
BLOCKED_MANUAL = "BlockedManual"

TABLE: Mapping[tuple[str, str], str] = MappingProxyType({
    (PERMITTED, "trigger_auto"): BLOCKED_AUTO,
    (PERMITTED, "trigger_manual"): BLOCKED_MANUAL,
    (BLOCKED_AUTO, "trigger_auto"): BLOCKED_AUTO,
    (BLOCKED_AUTO, "trigger_manual"): BLOCKED_MANUAL,
    (BLOCKED_AUTO, "reconciled"): PERMITTED,
    (BLOCKED_MANUAL, "trigger_auto"): BLOCKED_MANUAL,
    (BLOCKED_MANUAL, "trigger_manual"): BLOCKED_MANUAL,
    (BLOCKED_MANUAL, "acknowledged"): BLOCKED_AUTO,
})
"""State and event to next state. ``acknowledged`` means that no unacknowledged MANUAL code is left."""

RESTART = "RESTART_RECONCILE_REQUIRED"
BOOK_GAP = "WS_BOOK_GAP_RECONCILE_REQUIRED"
TRADES_GAP = "WS_TRADES_GAP_RECONCILE_REQUIRED"
DATA_STALE = "WS_DATA_STALE_RECONCILE_REQUIRED"
INVENTORY = "INVENTORY_MISMATCH_RECONCILE_REQUIRED"
SESSION = "SESSION_TERMINATION_RECONCILE_REQUIRED"
SESSION_KILL = "KILL_RATE_LIMIT_SESSION_TERMINATION"
"""Who acknowledges this one has acknowledged the sessions that it is made of, too."""

CODES = (RESTART, BOOK_GAP, TRADES_GAP, DATA_STALE, INVENTORY, SESSION)
"""Every code, in registry order. A certificate or evidence failure can never be one (AT-411)."""


class LatchError(RuntimeError):
    """An event that the latch does not know in its state. Nothing was changed."""


class Latch:
    """Starts blocked, with the restart code: no process may open before it has reconciled (AT-430)."""

    def __init__(self) -> None:
        self.state = BLOCKED_AUTO
        self._since: dict[str, int | None] = {RESTART: None}
        self._manual: set[str] = set()

    @staticmethod
    def restored(rows: Iterable[Mapping[str, object]]) -> Latch:
        """A latch after a restart: MANUAL codes that nobody acknowledged come back from the ledger's rows.

        AUTO codes need not: the restart code covers them, for it asks for the same reconciliation.
        """
        waiting: dict[str, None] = {}
        for row in rows:
            code = SESSION if row.get("kind") == "operator" and row.get("code") == SESSION_KILL else row.get("code")
            if not isinstance(code, str) or code not in CODES:
                continue
            if row.get("kind") == "latch" and row.get("event") == "set" and row.get("manual") is True:
                waiting[code] = None
            elif row.get("kind") == "operator" or (row.get("kind") == "latch" and row.get("event") == "cleared"):
                waiting.pop(code, None)
        latch = Latch()
        for code in waiting:
            latch.set(code, None, manual=True)
        return latch

    @property
    def blocked(self) -> bool:
        """Whether opening is blocked."""
        return self.state != PERMITTED

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes in force, in registry order."""
        return tuple([code for code in CODES if code in self._since]) if self._since else ()

    @property
    def manual_codes(self) -> tuple[str, ...]:
        """Codes that wait for an operator, in registry order."""
        return tuple([code for code in CODES if code in self._manual]) if self._manual else ()

    def since(self, code: str) -> int | None:
        """When the code was last triggered (monotonic ms); None when it is not in force or came with the boot."""
        return self._since.get(code)

    def set(self, code: str, now_ms: int | None, *, manual: bool = False) -> bool:
        """A trigger. True when it changed something (a ledger row and a note are due).

        A code that is set again moves its ``since`` on, so that dwells count from the last trigger.
        """
        if code not in CODES:
            raise LatchError(f"{code!r} is no latch code")
        self.state = self._next("trigger_manual" if manual else "trigger_auto")
        changed = code not in self._since or (manual and code not in self._manual)
        self._since[code] = now_ms
        if manual:
            self._manual.add(code)
        return changed

    def acknowledge(self, code: str) -> None:
        """An operator has acknowledged a MANUAL code. Raises LatchError when it does not wait for one."""
        if code not in self._manual:
            raise LatchError(f"{code} does not wait for an operator")
        if self._manual == {code}:
            self.state = self._next("acknowledged")
        self._manual.discard(code)

    def may_clear(self) -> bool:
        """Whether a clean reconciliation would clear it: set, and no operator is waited for."""
        return self.state == BLOCKED_AUTO

    def clear(self) -> tuple[str, ...]:
        """A reconciliation found nothing wrong: all codes leave together. Returns them. Raises LatchError."""
        self.state = self._next("reconciled")
        cleared = self.codes
        self._since.clear()
        return cleared

    def row(self, event: str, code: str) -> dict[str, object]:
        """The fields of the ledger row for a code that was ``set`` or ``cleared``."""
        return {"event": event, "code": code, "manual": code in self._manual}

    def _next(self, event: str) -> str:
        state = TABLE.get((self.state, event))
        if state is None:
            raise LatchError(f"{event} in {self.state}: not in the latch's table")
        return state
