"""What the trader means to do, as frozen values: class, identity, label.

The identity of an intent is its content (contract, section 1.1): xxh64 over instrument, side, quantity in steps,
price in ticks, group and leg, and no clock, so that the same thought is the same intent on every code path and
after every restart. Its label at the exchange is ``s4:{sid8}:{gid12}:{li}:{ih16}``, at most 64 characters and
never truncated.

An order within a group has a number of its own: ``leg_idx = leg + 2 * attempt``, leg 0 or 1. The attempts of a
rescue, a close or a hedge are different intents even at the same price, and the parity tells the leg.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import xxhash

OPEN = "OPEN"
CLOSE = "CLOSE"
HEDGE = "HEDGE"
CANCEL = "CANCEL"
EMERGENCY_CLOSE = "EMERGENCY_CLOSE"

REDUCING = frozenset((CLOSE, HEDGE, EMERGENCY_CLOSE))
"""Classes of orders that may only make the exposure smaller; the door checks that they do."""

LABEL_MAX = 64
"""Deribit's limit for a label."""

PREFIX = "s4:"


class LabelTooLong(ValueError):
    """The label would not fit; it is refused rather than cut, because a cut label identifies nothing."""


@dataclass(frozen=True, slots=True)
class Intent:
    """One order that the trader means to place. Quantities are in the exchange's unit of the instrument."""

    intent_id: str
    intent_hash: str
    label: str
    group_id: str
    leg_idx: int
    intent_class: str
    instrument: str
    side: str
    qty: Decimal
    price: Decimal
    reduce_only: bool
    time_in_force: str
    post_only: bool
    expires_ts: int | None
    """monotonic-epoch ms after which it must not be sent; None for intents that reduce"""

    @property
    def signed(self) -> Decimal:
        """The quantity with its direction: what a whole fill does to the position."""
        return self.qty if self.side == "buy" else -self.qty

    @property
    def leg(self) -> int:
        """Which leg of its group it belongs to, whatever the attempt."""
        return self.leg_idx % 2

    def row(self) -> dict[str, object]:
        """The ledger row of the intent."""
        return {
            "kind": "intent", "intent_id": self.intent_id, "intent_hash": self.intent_hash, "label": self.label,
            "group_id": self.group_id, "leg_idx": self.leg_idx, "class": self.intent_class,
            "instrument": self.instrument, "side": self.side, "qty": str(self.qty), "price": str(self.price),
            "reduce_only": self.reduce_only, "time_in_force": self.time_in_force, "post_only": self.post_only,
            "expires_ts": self.expires_ts,
        }

    @staticmethod
    def of_row(row: Mapping[str, Any]) -> Intent:
        """The intent of a ledger row. Raises KeyError or ArithmeticError on a row that is no intent."""
        return Intent(
            row["intent_id"], row["intent_hash"], row["label"], row["group_id"], row["leg_idx"], row["class"],
            row["instrument"], row["side"], Decimal(row["qty"]), Decimal(row["price"]), row["reduce_only"],
            row["time_in_force"], row["post_only"], row["expires_ts"],
        )


def classify(requested: str, reduce_only: object) -> str:
    """The class an order counts as. Whatever is not plainly reducing is OPEN (AT-110, AT-201)."""
    if requested in (CLOSE, EMERGENCY_CLOSE):
        return requested if reduce_only is True else OPEN
    return HEDGE if requested == HEDGE else OPEN


def intent_hash(instrument: str, side: str, steps: int, ticks: int, group_id: str, leg_idx: int) -> str:
    """xxh64 (seed 0) over the content, fields parted by 0xFF, numbers little-endian; 16 hex digits."""
    content = b"\xff".join((
        instrument.encode(), side.encode(), struct.pack("<q", steps), struct.pack("<q", ticks),
        group_id.encode(), struct.pack("<I", leg_idx),
    ))
    return xxhash.xxh64(content, seed=0).hexdigest()


def short_group(group_id: str) -> str:
    """The first twelve characters of the group's id without dashes: what fits into a label."""
    return group_id.replace("-", "")[:12]


def make_label(strategy_id: str, group_id: str, leg_idx: int, hash16: str) -> str:
    """The label at the exchange. Raises LabelTooLong."""
    sid8 = xxhash.xxh64(strategy_id.encode(), seed=0).hexdigest()[:8]
    label = f"{PREFIX}{sid8}:{short_group(group_id)}:{leg_idx}:{hash16}"
    if len(label) > LABEL_MAX:
        raise LabelTooLong(f"label of {len(label)} characters, at most {LABEL_MAX}: {label}")
    return label


@dataclass(frozen=True, slots=True)
class Label:
    """What a label of ours says."""

    sid8: str
    gid12: str
    leg_idx: int
    ih16: str


def parse_label(label: object) -> Label | None:
    """The parts of a label that this system made; None for anybody else's."""
    if not isinstance(label, str) or not label.startswith(PREFIX):
        return None
    parts = label.split(":")
    if len(parts) != 5 or not parts[3].isdecimal():
        return None
    return Label(parts[1], parts[2], int(parts[3]), parts[4])


def make_intent(
    *, strategy_id: str, group_id: str, leg_idx: int, intent_class: str, instrument: str, side: str, qty: Decimal,
    price: Decimal, steps: int, ticks: int, reduce_only: bool, time_in_force: str = "immediate_or_cancel",
    post_only: bool = False, expires_ts: int | None = None,
) -> Intent:
    """An intent with its hash, label and id. Raises LabelTooLong."""
    hash16 = intent_hash(instrument, side, steps, ticks, group_id, leg_idx)
    label = make_label(strategy_id, group_id, leg_idx, hash16)
    return Intent(f"{short_group(group_id)}.{leg_idx}", hash16, label, group_id, leg_idx, intent_class, instrument,
                  side, qty, price, reduce_only, time_in_force, post_only, expires_ts)
