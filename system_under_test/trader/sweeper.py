"""The sweeper: orders that lie on the exchange's book and should not.

* a *ghost* carries our label and no intent explains it: opening is latched, for our inventory is not what we think it
  is, and it is cancelled, well within ten seconds; what carries anybody else's label is theirs and stays;
* a *stale* order rests for longer than the policy wants, and is no reduce-only order: it is cancelled, and only the
  strategy may wish for it again.

Orders that we believe in and that the exchange does not know are the reconciliation's business: it asks for order
and trades before it calls anything failed.
"""

from __future__ import annotations

from collections.abc import Callable

from system_under_test.trader.desk import Desk
from system_under_test.trader.settings import Settings
from system_under_test.trader.turn import Turn


class Sweeper:
    """Looks over the resting orders every ``sweep_interval_ms``, and after ghosts as soon as they are certain."""

    def __init__(self, settings: Settings, desk: Desk) -> None:
        self._settings, self._desk = settings, desk
        self._next_ts = 0
        self._asked: dict[str, int] = {}
        self._certain: set[str] = set()
        self.found: Callable[[Turn, str], None] = lambda turn, order_id: None
        """told once of each ghost that has become certain"""

    @property
    def certain(self) -> bool:
        """Whether a ghost that is certain still lies on the book."""
        return bool(self._certain)

    def tick(self, turn: Turn) -> None:
        """Cancel what is due."""
        self._ghosts(turn)
        if turn.ts < self._next_ts:
            return
        self._next_ts = turn.ts + self._settings.sweep_interval_ms
        for order in list(self._desk.orders.live()):
            old = order.sent_ts is not None and turn.ts - order.sent_ts > self._settings.stale_order_sec * 1_000
            if old and order.resting and not order.intent.reduce_only and self._desk.cancel(turn, order):
                turn.note("stale_order", order.intent.intent_id)

    def _ghosts(self, turn: Turn) -> None:
        """A ghost is certain after the grace: until then news of the order that explains it may be under way."""
        for order_id, since in self._desk.ghosts.items():
            if turn.ts - since < self._settings.ghost_grace_ms:
                continue
            if order_id not in self._certain:
                self._certain.add(order_id)
                self.found(turn, order_id)
            if turn.ts >= self._asked.get(order_id, 0) and self._desk.cancel_ghost(turn, order_id):
                self._asked[order_id] = turn.ts + self._settings.order_answer_ms_max
        if self._certain:
            self._certain &= self._desk.ghosts.keys()
        if self._asked:
            self._asked = {order_id: at for order_id, at in self._asked.items() if order_id in self._desk.ghosts}
