"""The atomic group: two legs that are one intent, as a table (contract, section 1.2).

    New -> Dispatched -> Complete | MixedFailed -> Flattening -> Flattened

The first failure decides and cannot be undone: a group that was mixed once is contained, by at most two rescues
and then by closing what was filled. Two edges are ours. A rescue that succeeds completes the group, as the
contract's own sketch does although its table forgets it; and a group that was recorded but never sent ends at
Flattened, since there is nothing to flatten. ``specs/machines/atomic_group.yaml`` equals this table by test.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Protocol

NEW, DISPATCHED, COMPLETE = "New", "Dispatched", "Complete"
MIXED_FAILED, FLATTENING, FLATTENED = "MixedFailed", "Flattening", "Flattened"

TABLE: Mapping[tuple[str, str], str] = MappingProxyType({
    (NEW, "dispatch"): DISPATCHED,
    (NEW, "abandon"): FLATTENED,
    (DISPATCHED, "all_filled"): COMPLETE,
    (DISPATCHED, "mixed"): MIXED_FAILED,
    (MIXED_FAILED, "rescued"): COMPLETE,
    (MIXED_FAILED, "flatten"): FLATTENING,
    (FLATTENING, "flat"): FLATTENED,
})
TERMINAL = frozenset((COMPLETE, FLATTENED))


class IllegalTransition(ValueError):
    """An event that the table does not know for this state. Nothing was changed."""


def advance(state: str, event: str) -> str:
    """Where the event leads. Raises IllegalTransition."""
    to = TABLE.get((state, event))
    if to is None:
        raise IllegalTransition(f"{event} in {state}: not in the table of the atomic group")
    return to


@dataclass(frozen=True, slots=True)
class LegPlan:
    """What one leg was to become."""

    instrument: str
    side: str
    qty: Decimal

    @property
    def signed(self) -> Decimal:
        return self.qty if self.side == "buy" else -self.qty


@dataclass(slots=True)
class Group:
    """One group and what became of its legs. Times in monotonic-epoch ms."""

    group_id: str
    legs: tuple[LegPlan, ...]
    recorded_ts: int
    state: str = NEW
    since_ts: int = 0
    intent_ids: list[str] = field(default_factory=list)
    """every order of the group, the legs' first"""
    held: dict[str, Decimal] = field(default_factory=dict)
    """what the group holds of each instrument, by its fills"""
    rescues: int = 0
    attempts: int = 0
    """orders made beyond the legs' first: they number the next ``leg_idx``"""
    closing: bool = False
    """a complete group that is being closed on purpose"""
    mixed_ts: int | None = None
    naked_usd: float = 0.0
    """exposure when the group was found mixed"""
    hedged: bool = False
    close_attempts: int = 0

    @property
    def flat(self) -> bool:
        return not self.held or not any(self.held.values())

    @property
    def alive(self) -> bool:
        """Whether what it holds is meant to be held (or is being dealt with)."""
        return self.state != FLATTENED and not (self.state == COMPLETE and self.flat)

    def fill(self, instrument: str, signed: Decimal) -> None:
        self.held[instrument] = self.held.get(instrument, Decimal(0)) + signed

    def missing(self, leg: int) -> Decimal:
        """How much of a leg was not filled; negative when more was."""
        plan = self.legs[leg]
        held = self.held.get(plan.instrument, Decimal(0))
        return plan.qty - (held if plan.side == "buy" else -held)

    def whole(self, epsilon: float) -> bool:
        """All legs filled as planned."""
        return all(abs(self.missing(leg)) <= Decimal(repr(epsilon)) for leg in range(len(self.legs)))

    def next_leg_idx(self, leg: int) -> int:
        """The number of a further order for a leg: never one that was used before."""
        self.attempts += 1
        return leg + 2 * self.attempts

    def row(self) -> dict[str, object]:
        """The ledger row of the group, before any leg."""
        legs = [{"instrument": leg.instrument, "side": leg.side, "qty": str(leg.qty)} for leg in self.legs]
        return {"kind": "group", "group_id": self.group_id, "group_kind": "atomic", "legs": legs,
                "intents": len(self.legs)}


class ChurnBreaker:
    """Too many flattened groups of one structure in a while: the structure rests (contract, section 1.2.2)."""

    def __init__(self, flattens_max: int, window_s: int, blacklist_s: int) -> None:
        self._max, self._window_ms, self._rest_ms = flattens_max, window_s * 1_000, blacklist_s * 1_000
        self._flattened: dict[str, deque[int]] = {}
        self._until: dict[str, int] = {}

    def flattened(self, structure: str, now: int) -> None:
        """A group of this structure was flattened in an emergency."""
        times = self._flattened.setdefault(structure, deque())
        times.append(now)
        while times and now - times[0] > self._window_ms:
            times.popleft()
        if len(times) > self._max:
            self._until[structure] = now + self._rest_ms

    def resting(self, structure: str, now: int) -> bool:
        """Whether the structure may not be opened now."""
        return now < self._until.get(structure, now)


class Sided(Protocol):
    """A leg as far as the structure of a group goes."""

    @property
    def instrument(self) -> str: ...

    @property
    def side(self) -> str: ...


def structure_of(legs: Iterable[Sided]) -> str:
    """The fingerprint of a group's structure: instruments and sides."""
    return "|".join(f"{leg.instrument}:{leg.side}" for leg in legs)
