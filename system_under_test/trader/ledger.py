"""The intent ledger: what was meant is durable before it is done, and a start folds it back into knowledge.

The queue is state of this machine: depth = appended - durable, at most ``capacity``. A refusal at capacity is a
pure decision, counted. `Recorded` is minted here alone, after the disk has said ``Durable``; `Waived` stands in
for it only where an intent makes exposure smaller and the ledger is stalled or refuses, because a dead ledger
must not trap a position.

Facts that the exchange has told (acks, fills, states) are no decisions and cannot be refused. What finds no room
waits in a bounded backlog; beyond its bound it is dropped and counted, and the next reconciliation learns it anew
from the exchange, which is the better witness anyway.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from system_under_test.machine import Append, LogImage
from system_under_test.trader import levels
from system_under_test.trader.group import COMPLETE, FLATTENED
from system_under_test.trader.holdings import Holdings
from system_under_test.trader.intents import REDUCING, Intent
from system_under_test.trader.levels import Levels
from system_under_test.trader.orders import TERMINAL
from system_under_test.trader.registry import SWEEP_MIN, TradeRegistry, seq_of

LOG = "ledger"

DAY_MS = 86_400_000
BACKLOG_MAX = 8_192
"""Facts that may wait for room. Fills of a whole minute at the order-rate limit fit."""


class LedgerError(RuntimeError):
    """A paper was asked for that the ledger cannot vouch for."""


_MINT = object()


@dataclass(frozen=True, slots=True)
class Recorded:
    """Proof that the record with this sequence number is on disk."""

    seq: int
    intent_id: str
    _mint: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        if self._mint is not _MINT:
            raise LedgerError("only the ledger vouches for a record")


@dataclass(frozen=True, slots=True)
class Waived:
    """The reason why a reducing intent goes on without a durable record. It is counted and noted."""

    why: str
    intent_id: str
    _mint: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        if self._mint is not _MINT:
            raise LedgerError("only the ledger waives a record")


class Ledger:
    """The bounded queue to the disk."""

    def __init__(self, capacity: int, waive_after_ms: int) -> None:
        self.capacity = capacity
        self.appended = 0
        self.durable = 0
        self.enqueue_failures = 0
        self.dropped_facts = 0
        self.waived = 0
        self.refused_ts: int | None = None
        """when an append was last refused, here or by the disk"""
        self._waive_after_ms = waive_after_ms
        self._pending_since: deque[tuple[int, int]] = deque()
        self._failed: set[int] = set()
        self._backlog: deque[dict[str, object]] = deque()

    def start(self, image: LogImage) -> None:
        """Go on after what the log holds; everything in it is durable."""
        self.appended = self.durable = len(image.records)

    @property
    def depth(self) -> int:
        return self.appended - self.durable

    def room(self, records: int = 1) -> bool:
        """Whether so many records fit. Facts that wait for room go first."""
        return self.depth + len(self._backlog) + records <= self.capacity

    def refuse(self, ts: int) -> None:
        """An intent found no room: counted, and the moment kept."""
        self.enqueue_failures += 1
        self.refused_ts = ts

    def append(self, row: Mapping[str, object], mono_ms: int, ts: int) -> Append:
        """One record. The caller has asked for `room`; raises LedgerError when there is none."""
        if self.depth >= self.capacity:
            raise LedgerError("the queue is full; ask for room first")
        self.appended += 1
        self._pending_since.append((self.appended, ts))
        return Append(LOG, self.appended, orjson.dumps({"at": mono_ms, "ts": ts, **row}))

    def fact(self, row: dict[str, object], mono_ms: int, ts: int) -> Append | None:
        """Record what has happened; when there is no room it waits. None when nothing goes out now."""
        if self._backlog or self.depth >= self.capacity:
            if len(self._backlog) >= BACKLOG_MAX:
                self.dropped_facts += 1
            else:
                self._backlog.append({"at": mono_ms, "ts": ts, **row})
            return None
        return self.append(row, mono_ms, ts)

    def drain(self, ts: int) -> list[Append]:
        """Facts that have waited and find room now."""
        out = []
        while self._backlog and self.depth < self.capacity:
            self.appended += 1
            self._pending_since.append((self.appended, ts))
            out.append(Append(LOG, self.appended, orjson.dumps(self._backlog.popleft())))
        return out

    def on_durable(self, seq: int) -> None:
        """Everything up to seq is on disk."""
        self.durable = max(self.durable, min(seq, self.appended))
        while self._pending_since and self._pending_since[0][0] <= self.durable:
            self._pending_since.popleft()
        if self._failed:
            self._failed = {each for each in self._failed if each > self.durable}

    def on_failed(self, seq: int, ts: int) -> None:
        """The disk refused a record. It may come to be written later; nothing of it may be relied on."""
        self._failed.add(seq)
        self.enqueue_failures += 1
        self.refused_ts = ts

    @property
    def refusing(self) -> bool:
        """Whether a record that the disk refused is still not on it."""
        return bool(self._failed)

    def stalled(self, ts: int) -> bool:
        """Whether waiting for the disk has taken longer than a reducing intent can afford."""
        if self._failed:
            return True
        return bool(self._pending_since) and ts - self._pending_since[0][1] >= self._waive_after_ms

    def recorded(self, intent: Intent, seq: int | None) -> Recorded | None:
        """The paper for an intent whose record is durable; None while it is not."""
        if seq is None or not self.holds(seq):
            return None
        return Recorded(seq, intent.intent_id, _MINT)

    def holds(self, seq: int) -> bool:
        """Whether this record is on disk."""
        return seq <= self.durable and seq not in self._failed

    def failed(self, seq: int | None) -> bool:
        """Whether the disk has refused this very record."""
        return seq in self._failed

    def waive(self, intent: Intent, ts: int) -> Waived | None:
        """The paper for a reducing intent that cannot wait; None when the ledger works or the intent opens."""
        if intent.intent_class not in REDUCING:
            return None
        full = self.depth >= self.capacity
        if not (full or self.stalled(ts)):
            return None
        self.waived += 1
        return Waived("ledger full" if full else "ledger stalled", intent.intent_id, _MINT)


# ---- the fold -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Known:
    """What the ledger says about one intent."""

    intent: Intent
    seq: int
    recorded_ts: int
    sent_ts: int | None = None
    order_id: str | None = None
    state: str | None = None
    filled: Decimal = Decimal(0)
    settled_ts: int = 0
    """when it became final"""


@dataclass(slots=True)
class KnownGroup:
    """What the ledger says about one group."""

    group_id: str
    kind: str
    legs: list[dict[str, Any]]
    recorded_ts: int
    state: str = "New"
    since_ts: int = 0
    held: dict[str, Decimal] = field(default_factory=dict)
    """what it holds of each instrument, by its fills"""

    @property
    def over(self) -> bool:
        """Whether nothing is left to be done about it."""
        return self.state == FLATTENED or (self.state == COMPLETE and not any(self.held.values()))


@dataclass(slots=True)
class History:
    """Everything that a restart needs, folded from the valid prefix of the log."""

    intents: dict[str, Known] = field(default_factory=dict)
    groups: dict[str, KnownGroup] = field(default_factory=dict)
    trades: TradeRegistry = field(default_factory=TradeRegistry)
    positions: dict[str, Decimal] = field(default_factory=dict)
    holdings: Holdings = field(default_factory=Holdings)
    """what the positions were bought for"""
    exits: dict[str, Levels] = field(default_factory=dict)
    """the exit levels that stand, by position key"""
    naked: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    """rows of the kinds in KEPT: other organs fold them themselves"""
    born_ts: int | None = None
    boots: int = 0
    unreadable: int = 0
    last_ts: int | None = None
    _sweep_at: int = field(default_factory=lambda: SWEEP_MIN)

    def forget(self, before_ts: int) -> None:
        """Let go of what the trader itself had let go of when this was recorded (`Desk.forget`), so that folding a long
        life needs no more memory than living it."""
        self.trades.forget(before_ts)
        if len(self.intents) < self._sweep_at:
            return
        for known in list(self.intents.values()):
            group = self.groups.get(known.intent.group_id)
            if known.state in TERMINAL and known.settled_ts < before_ts and (group is None or group.over):
                del self.intents[known.intent.intent_id]
        needed = {known.intent.group_id for known in self.intents.values()}
        for group in list(self.groups.values()):
            if group.over and group.since_ts < before_ts and group.group_id not in needed:
                del self.groups[group.group_id]
        self.naked = [row for row in self.naked if row["ts"] > (self.last_ts or 0) - DAY_MS]
        self._sweep_at = max(SWEEP_MIN, 2 * len(self.intents))


KEPT = frozenset(("latch", "operator", "token", "caps", "day", "emergency", "session_end"))


def fold(records: Iterable[bytes], keep_ms: int | None = None) -> History:
    """What the records say, in order. A record that makes no sense is counted and passed over: the exchange is
    asked before anything is done, whatever the ledger says. ``keep_ms``: how long before a reconciliation that succeeded
    something must have been over to be forgotten; None keeps everything."""
    history = History()
    for seq, record in enumerate(records, start=1):
        try:
            row = orjson.loads(record)
            _fold_row(history, seq, row)
            if keep_ms is not None and row["kind"] == "reconciled":
                history.forget(row["begun_ts"] - keep_ms)
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError, InvalidOperation):
            history.unreadable += 1
    return history


def _fold_row(history: History, seq: int, row: dict[str, Any]) -> None:
    kind, ts = row["kind"], row["ts"]
    history.last_ts = ts
    if kind in KEPT:
        history.rows.append(row)
    elif kind == "boot":
        history.boots += 1
        if history.born_ts is None:
            history.born_ts = ts
    elif kind == "group":
        history.groups[row["group_id"]] = KnownGroup(row["group_id"], row["group_kind"], row["legs"], ts, since_ts=ts)
    elif kind == "group_state":
        group = history.groups[row["group_id"]]
        group.state, group.since_ts = row["to"], ts
    elif kind == "intent":
        intent = Intent.of_row(row)
        history.intents[intent.intent_id] = Known(intent, seq, ts)
    elif kind == "fill":
        _fold_fill(history, row)
    elif kind == "adopted":
        history.positions[row["instrument"]] = Decimal(row["size"])
        history.holdings.adopt(row["instrument"], Decimal(row["size"]), row.get("entry"), ts)
    elif kind == "exit":
        levels.fold(history.exits, row)
    elif kind == "naked":
        history.naked.append(row)
    elif kind in ("sent", "acked", "state"):
        known = history.intents[row["intent_id"]]
        if kind == "sent":
            known.sent_ts = ts
        elif kind == "acked":
            known.order_id = row["order_id"]
        else:
            known.state, known.settled_ts = row["state"], ts


def _fold_fill(history: History, row: dict[str, Any]) -> None:
    trade_id, intent_id = row["trade_id"], row["intent_id"]
    qty, instrument = Decimal(row["qty"]), row["instrument"]
    signed = qty if row["side"] == "buy" else -qty
    if not history.trades.count(trade_id, instrument, seq_of(row), row["ts"]):
        return
    history.positions[instrument] = history.positions.get(instrument, Decimal(0)) + signed
    history.holdings.fill(instrument, signed, row.get("usd"), row["ts"])
    known = history.intents.get(intent_id)
    if known is not None:
        known.filled += qty
        group = history.groups.get(known.intent.group_id)
        if group is not None:
            group.held[instrument] = group.held.get(instrument, Decimal(0)) + signed
