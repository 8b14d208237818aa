"""The life of one order (TLSM), as a table, and the book of every order the trader knows.

News of an order comes in any order: the answer, the stream, REST after an outage. The table says what each event
means in each state; what it does not list is illegal, raises and changes nothing. Some events are accepted out of
order and said to be an anomaly. Fills are counted by the trade registry, never by a state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

from system_under_test.trader.intents import Intent, parse_label
from system_under_test.trader.registry import SWEEP_MIN

CREATED, SENT, ACKED, PARTIAL = "Created", "Sent", "Acked", "PartiallyFilled"
FILLED, CANCELED, FAILED = "Filled", "Canceled", "Failed"
TERMINAL = frozenset((FILLED, CANCELED, FAILED))
STATES = (CREATED, SENT, ACKED, PARTIAL, FILLED, CANCELED, FAILED)
EVENTS = ("sent", "acked", "partial_fill", "filled", "cancelled", "rejected", "failed")


@dataclass(frozen=True, slots=True)
class Step:
    """Where an event leads, and whether it came out of order."""

    to: str
    anomaly: bool = False


def _table() -> Mapping[tuple[str, str], Step]:
    rows: dict[tuple[str, str], Step] = {
        (CREATED, "sent"): Step(SENT), (CREATED, "acked"): Step(ACKED, True),
        (CREATED, "partial_fill"): Step(PARTIAL, True), (CREATED, "filled"): Step(FILLED, True),
        (CREATED, "cancelled"): Step(CANCELED), (CREATED, "rejected"): Step(FAILED), (CREATED, "failed"): Step(FAILED),
        (SENT, "sent"): Step(SENT), (SENT, "acked"): Step(ACKED), (SENT, "partial_fill"): Step(PARTIAL, True),
        (SENT, "filled"): Step(FILLED, True), (SENT, "cancelled"): Step(CANCELED), (SENT, "rejected"): Step(FAILED),
        (SENT, "failed"): Step(FAILED),
    }
    for state in (ACKED, PARTIAL):
        rows |= {
            (state, "sent"): Step(state), (state, "acked"): Step(state), (state, "partial_fill"): Step(PARTIAL),
            (state, "filled"): Step(FILLED), (state, "cancelled"): Step(CANCELED), (state, "failed"): Step(FAILED),
        }
    # A late echo of what is already known is no news. A verdict that contradicts a final state is illegal.
    rows |= {(FILLED, event): Step(FILLED) for event in ("sent", "acked", "partial_fill", "filled")}
    rows |= {(CANCELED, event): Step(CANCELED) for event in ("sent", "acked", "partial_fill", "cancelled")}
    rows |= {(FAILED, event): Step(FAILED) for event in ("sent", "rejected", "failed")}
    return MappingProxyType(rows)


TABLE = _table()


class IllegalTransition(ValueError):
    """An event that the table does not know for this state. Nothing was changed."""


def advance(state: str, event: str) -> Step:
    """Where the event leads. Raises IllegalTransition."""
    step = TABLE.get((state, event))
    if step is None:
        raise IllegalTransition(f"{event} in {state}: not in the table of the order lifecycle")
    return step


@dataclass(slots=True)
class Order:
    """What is known of one intent's order. Times in monotonic-epoch ms."""

    intent: Intent
    state: str = CREATED
    seq: int | None = None
    """the ledger record that must be durable before it may be sent; None: never recorded"""
    recorded_ts: int = 0
    sent_ts: int | None = None
    order_id: str | None = None
    filled: Decimal = Decimal(0)
    """what the trade registry has counted"""
    reported: Decimal = Decimal(0)
    """what the exchange says is filled; more than ``filled`` means that news of trades is missing"""
    final: str | None = None
    """the exchange's last word (an event of the table) while news of its trades is still missing"""
    ambiguous: bool = False
    """sent, and no answer came: only looking it up at the exchange can tell"""
    settled_ts: int = 0
    """when it became final"""
    lookup_at: int = 0
    cancel_at: int = 0
    from_ledger: bool = False
    refused_code: int | None = None
    """the error by which the exchange refused it"""

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL

    @property
    def remaining(self) -> Decimal:
        return self.intent.qty - self.filled

    @property
    def resting(self) -> bool:
        """Whether it may lie on the exchange's book for longer than an instant."""
        return not self.terminal and self.intent.time_in_force == "good_til_cancelled"


class OrderBook:
    """The orders of this life and those that the ledger remembers, found by intent, label or order id.

    Orders that are final are kept as long as news of them may still be under way (`forget`).
    """

    def __init__(self) -> None:
        self._by_intent: dict[str, Order] = {}
        self._by_label: dict[str, Order] = {}
        self._by_order_id: dict[str, Order] = {}
        self._live: dict[str, Order] = {}
        self._hashes: set[str] = set()
        self._pending: dict[tuple[str, str], Decimal] = {}
        self._sweep_at = SWEEP_MIN

    def add(self, order: Order) -> None:
        intent = order.intent
        self._by_intent[intent.intent_id] = order
        self._by_label[intent.label] = order
        self._hashes.add(intent.intent_hash)
        if order.order_id is not None:
            self._by_order_id[order.order_id] = order
        if not order.terminal:
            self._live[intent.intent_id] = order
            self._move(intent, order.remaining)

    def _move(self, intent: Intent, by: Decimal) -> None:
        key = (intent.instrument, intent.side)
        self._pending[key] = self._pending.get(key, Decimal(0)) + by

    def filled(self, order: Order, qty: Decimal) -> None:
        """A fill of the order counts."""
        if order.intent.intent_id in self._live:
            self._move(order.intent, -qty)
        order.filled += qty

    def pending(self, instrument: str, side: str) -> Decimal:
        """How much live orders may still do of an instrument in one direction."""
        return max(Decimal(0), self._pending.get((instrument, side), Decimal(0)))

    def under_way(self) -> Iterable[tuple[str, str, Decimal]]:
        """Instrument, side and quantity of everything that live orders may still do."""
        return ((instrument, side, qty) for (instrument, side), qty in self._pending.items() if qty > 0)

    def pending_notional(self, usd: Callable[[str, float], float]) -> float:
        """What live orders may still do, valued by the given function of instrument and quantity."""
        return sum(usd(instrument, max(0.0, float(qty))) for (instrument, _), qty in self._pending.items())

    def named(self, order: Order, order_id: str) -> None:
        """The exchange has told the order's id."""
        order.order_id = order_id
        self._by_order_id[order_id] = order

    def settled(self, order: Order) -> None:
        """The order is final: it is live no longer."""
        if self._live.pop(order.intent.intent_id, None) is not None:
            self._move(order.intent, -order.remaining)

    def forget(self, before_ts: int, needed: Callable[[str], bool]) -> None:
        """Let go of orders that became final before this and whose group is over. ``needed`` tells whether a group still
        asks for its orders. Looked over only when the book has doubled."""
        if len(self._by_intent) < self._sweep_at:
            return
        for order in list(self._by_intent.values()):
            intent = order.intent
            if order.terminal and order.settled_ts < before_ts and not needed(intent.group_id):
                del self._by_intent[intent.intent_id]
                self._by_label.pop(intent.label, None)
                self._by_order_id.pop(order.order_id or "", None)
                self._hashes.discard(intent.intent_hash)
        self._sweep_at = max(SWEEP_MIN, 2 * len(self._by_intent))

    def known_hash(self, intent_hash: str) -> bool:
        """Whether this very intent was made before (AT-928: it is a NOOP then), as far back as orders are kept. Older ones
        cannot come again: no group's id is ever used twice."""
        return intent_hash in self._hashes

    def get(self, intent_id: str) -> Order | None:
        return self._by_intent.get(intent_id)

    def match(self, label: object, order_id: object = None) -> Order | None:
        """The order that the exchange speaks of: by its label, else by its id."""
        if isinstance(label, str) and label in self._by_label:
            return self._by_label[label]
        return self._by_order_id.get(order_id) if isinstance(order_id, str) else None

    def ambiguous(self, label: object) -> bool:
        """Whether a label of ours fits more than one intent's group and leg, and none exactly."""
        parsed = parse_label(label)
        if parsed is None or (isinstance(label, str) and label in self._by_label):
            return False
        alike = [order for order in self._live.values()
                 if order.intent.leg_idx == parsed.leg_idx and order.intent.group_id.startswith(parsed.gid12)]
        return len(alike) > 1

    def live(self) -> Iterable[Order]:
        """Orders that are not final, oldest first. Do not settle while iterating: take a list."""
        return self._live.values()

    def __len__(self) -> int:
        return len(self._by_intent)
