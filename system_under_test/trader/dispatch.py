"""The one door: every order and every cancel leaves through here, and the door asks for papers.

* a `Permit`, minted by the policy guard and spent in this same call, so that the guard was asked again just now;
* `Recorded`, the ledger's word that the intent is on disk, or `Waived`, for what only makes exposure smaller;
* and, whatever the flags say, the resulting exposure: a closing order that would open is turned away.

Nothing else in the trader builds a frame that places or cancels an order. An intent is sent at most once.
"""

from __future__ import annotations

from collections.abc import Callable

from system_under_test.trader.exposure import Exposure, reduces
from system_under_test.trader.intents import CANCEL, REDUCING
from system_under_test.trader.ledger import Ledger, Recorded, Waived
from system_under_test.trader.market import Market
from system_under_test.trader.orders import CREATED, Order, OrderBook
from system_under_test.trader.policy import Guard, Permit, PermitError, Refusal
from system_under_test.trader.report.metrics import Metrics
from system_under_test.trader.settings import Settings
from system_under_test.trader.turn import Turn
from system_under_test.trader.venue import ORDERS, Venue

METHOD = {"buy": "private/buy", "sell": "private/sell"}


class DispatchError(RuntimeError):
    """An order came to the door with papers that are not its own. The order did not leave."""


class Door:
    """Where orders leave."""

    def __init__(
        self, settings: Settings, guard: Guard, ledger: Ledger, venue: Venue, market: Market, exposure: Exposure,
        orders: OrderBook, metrics: Metrics, fact: Callable[[Turn, dict[str, object]], None],
    ) -> None:
        self._settings, self._guard, self._ledger, self._venue = settings, guard, ledger, venue
        self._market, self._exposure, self._orders, self._metrics = market, exposure, orders, metrics
        self._fact = fact

    def way_out(self, turn: Turn, reducing: bool) -> bool:
        """Whether an order could leave now: by the order link; what only reduces also over REST, when that link has been
        lost for a while, because a session that the exchange keeps ending must not trap a position."""
        return self._venue.ready(ORDERS) or (reducing and self._venue.falls_back(turn))

    def send(self, turn: Turn, order: Order, permit: Permit, paper: Recorded | Waived) -> Refusal | None:
        """Let the order leave. A refusal leaves it where it is; papers that lie raise DispatchError."""
        intent = order.intent
        self._check(order, permit, paper)
        if intent.intent_class in REDUCING and not self._shrinks(order):
            return Refusal("ReduceOnlyWouldOpen", "dispatch", f"{intent.side} {intent.qty} {intent.instrument}")
        if not self.way_out(turn, intent.intent_class in REDUCING):
            raise DispatchError(f"{intent.intent_id}: the order link is down")  # the desk asks before it comes here
        self._spend(permit)
        order.sent_ts = turn.ts
        self._fact(turn, {"kind": "sent", "intent_id": intent.intent_id})
        waived = {"waived": paper.why} if isinstance(paper, Waived) else {}
        by = {} if self._venue.ready(ORDERS) else {"by": "rest"}
        self._metrics.add("dispatched_total", 1, **{"class": intent.intent_class})
        if waived:
            self._metrics.add("waived_total")
        turn.note("dispatched", intent.intent_id, group_id=intent.group_id, label=intent.label,
                  instrument=intent.instrument, side=intent.side, qty=str(intent.qty), price=str(intent.price),
                  **{"class": intent.intent_class}, **waived, **by)
        method, params, tag = METHOD[intent.side], self._params(turn, order), ("order", intent.intent_id)
        if not self._venue.call(turn, ORDERS, method, params, tag, self._settings.order_answer_ms_max):
            self._venue.rest(turn, method, params, tag)
        return None

    def cancel(self, turn: Turn, order: Order, permit: Permit) -> bool:
        """Take a resting order off the exchange's book; by label while its id is unknown."""
        if not self._venue.ready(ORDERS):
            return False
        self._spend(permit, CANCEL)
        self._metrics.add("dispatched_total", 1, **{"class": CANCEL})
        turn.note("dispatched", order.intent.intent_id, label=order.intent.label, **{"class": CANCEL})
        if order.order_id is not None:
            method, params = "private/cancel", {"order_id": order.order_id}
        else:
            method = "private/cancel_by_label"
            params = {"label": order.intent.label, "currency": self._settings.currency}
        return self._venue.call(turn, ORDERS, method, params, ("cancel", order.intent.intent_id),
                                self._settings.order_answer_ms_max)

    def cancel_ghost(self, turn: Turn, order_id: str, permit: Permit) -> bool:
        """Take an order off the book that carries our label and that no intent explains."""
        if not self._venue.ready(ORDERS):
            return False
        self._spend(permit, CANCEL)
        self._metrics.add("dispatched_total", 1, **{"class": CANCEL})
        turn.note("sweep", None, order_id=order_id)
        return self._venue.call(turn, ORDERS, "private/cancel", {"order_id": order_id}, ("ghost", order_id),
                                self._settings.order_answer_ms_max)

    def _spend(self, permit: Permit, intent_class: str | None = None) -> None:
        """Use the permit up, or count the attempt to get by without one and raise."""
        try:
            if intent_class is not None and permit.intent_class != intent_class:
                raise DispatchError(f"a permit for {permit.intent_class} is no permit for {intent_class}")
            self._guard.spend(permit)
        except (DispatchError, PermitError):
            self._metrics.add("illegal_order_attempts")
            raise

    def _check(self, order: Order, permit: Permit, paper: Recorded | Waived) -> None:
        intent = order.intent
        if order.state != CREATED or order.sent_ts is not None:
            self._metrics.add("duplicate_dispatch_count")
            raise DispatchError(f"{intent.intent_id} was sent before")
        wrong = None
        if permit.intent_class != intent.intent_class:
            wrong = f"the permit is for {permit.intent_class}"
        elif paper.intent_id != intent.intent_id:
            wrong = f"the paper is of {paper.intent_id}"
        elif isinstance(paper, Recorded) and paper.seq > self._ledger.durable:
            wrong = f"record {paper.seq} is not durable"
        elif isinstance(paper, Waived) and intent.intent_class not in REDUCING:
            wrong = "what opens is never waived"
        if wrong is not None:
            self._metrics.add("illegal_order_attempts")
            raise DispatchError(f"{intent.intent_id} ({intent.intent_class}): {wrong}")

    def _shrinks(self, order: Order) -> bool:
        index = self._market.index
        slack = 0.0 if not index else self._hedge_step_usd() / index
        return reduces(order.intent, self._exposure, (each for each in self._orders.live() if each.sent_ts is not None),
                       self._market.unit_delta, slack)

    def _hedge_step_usd(self) -> float:
        perpetual = self._market.instruments.get(self._settings.perpetual)
        return 0.0 if perpetual is None else float(perpetual.amount_step)

    def _params(self, turn: Turn, order: Order) -> dict[str, object]:
        """The order as the exchange wants it. ``valid_until`` is on the exchange's clock: whatever arrives later, out
        of a buffer or a stalled link, is refused there, and a lost answer becomes certain after that moment."""
        intent = order.intent
        params: dict[str, object] = {
            "instrument_name": intent.instrument, "amount": float(intent.qty), "type": "limit",
            "price": float(intent.price), "label": intent.label, "time_in_force": intent.time_in_force,
            "valid_until": turn.ts + self._settings.intent_ttl_ms + (self._market.exchange_offset or 0),
        }
        if intent.reduce_only:
            params["reduce_only"] = True
        if intent.post_only:
            params["post_only"] = True
            params["reject_post_only"] = True
        return params


