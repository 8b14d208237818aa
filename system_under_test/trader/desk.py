"""The desk: intents are recorded, wait until they are durable, leave by the door, and news of them comes back.

A *batch* is recorded together and leaves together or not at all: the legs of a group. What was recorded by an
earlier life waits until the exchange has been asked about it; an opening intent that waited too long expires.
No answer, and an answer that does not say what happened, make an order *ambiguous*: it is neither resent nor
called failed, it is looked up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from system_under_test.trader.breaker import CANCEL as CANCEL_PRIORITY
from system_under_test.trader.breaker import EMERGENCY_CLOSE as EMERGENCY_PRIORITY
from system_under_test.trader.breaker import HEDGE as HEDGE_PRIORITY
from system_under_test.trader.breaker import OPEN as OPEN_PRIORITY
from system_under_test.trader.breaker import Breaker
from system_under_test.trader.dispatch import Door
from system_under_test.trader.exposure import Exposure
from system_under_test.trader.holdings import Holdings, usd_of
from system_under_test.trader.intents import CANCEL, CLOSE, EMERGENCY_CLOSE, HEDGE, OPEN, REDUCING, Intent, parse_label
from system_under_test.trader.ledger import History, Known, Ledger, Recorded, Waived
from system_under_test.trader.limits import LaunchLimits
from system_under_test.trader.orders import (
    ACKED,
    CREATED,
    SENT,
    TERMINAL,
    IllegalTransition,
    Order,
    OrderBook,
    advance,
)
from system_under_test.trader.policy import Guard, Permit, Refusal, Snapshot
from system_under_test.trader.quantize import MetadataMissing, decimal_of
from system_under_test.trader.registry import Trade, TradeRegistry, parse_trade
from system_under_test.trader.report.metrics import Metrics
from system_under_test.trader.report.router_health import RouterHealth
from system_under_test.trader.report.tally import Tally
from system_under_test.trader.settings import Settings
from system_under_test.trader.turn import Turn
from system_under_test.trader.venue import ORDERS, Answer, Lost, Venue

PRIORITY = {OPEN: OPEN_PRIORITY, CLOSE: HEDGE_PRIORITY, HEDGE: HEDGE_PRIORITY, EMERGENCY_CLOSE: EMERGENCY_PRIORITY,
            CANCEL: CANCEL_PRIORITY}

UNCERTAIN_CODES = frozenset((10001, 10066, 11094, 13028))
"""Errors that do not say whether the order exists: error, too_many_concurrent_requests, internal_server_error,
temporarily_unavailable."""

NEWS_OF_STATE: Mapping[str, str] = {
    "open": "acked", "untriggered": "acked", "triggered": "acked", "filled": "filled", "rejected": "rejected",
    "cancelled": "cancelled",
}
"""The order states that the exchange documents, and what they are in our table."""

CANCEL_REASONS = frozenset((
    "user_request", "cancel_on_disconnect", "autoliquidation", "risk_mitigation", "position_locked", "settlement",
    "edit_post_only_reject", "mmp_trigger", "mmp_config_curtailment", "pme_risk_reduction", "delisting", "expired",
    "post_only_reject", "immediate_or_cancel", "reduce_only", "valid_until", "unfilled_immediate_or_cancel",
    "oco_other_closed", "oto_primary_closed", "partially_filled_immediate_or_cancel", "locked", "",
))
"""Reasons of a cancelled order that this build knows; another one is a token that nobody taught it."""

RETRY_CANCEL_MS = 1_000
TRADES_LATE_MS = 300
"""News of a fill may trail the news of its order by so much before the exchange is asked."""


class Desk:
    """Orders of this life and of earlier ones."""

    def __init__(
        self, settings: Settings, *, ledger: Ledger, venue: Venue, guard: Guard, breaker: Breaker, door: Door,
        limits: LaunchLimits, exposure: Exposure, orders: OrderBook, metrics: Metrics, router: RouterHealth,
        snapshot: Callable[[Turn], Snapshot], token: Callable[[Turn, str], None],
    ) -> None:
        self._settings, self._ledger, self._venue, self._guard = settings, ledger, venue, guard
        self._breaker, self._door, self._limits, self._metrics = breaker, door, limits, metrics
        self._router = router
        self._snapshot, self._token = snapshot, token
        self.exposure, self.orders = exposure, orders
        self.holdings, self.tally = Holdings(), Tally()
        self.index: Callable[[], float | None] = lambda: None
        self.on_position: Callable[[Turn], None] = lambda turn: None
        """told when a fill has changed what is held"""
        self.registry = TradeRegistry()
        self.ghosts: dict[str, int] = {}
        """order ids that carry our label and that no intent explains, and since when they are known"""
        self.activity = 0
        """rises with everything that changes orders or positions: a comparison across it proves nothing"""
        self.wants_reconciliation: str | None = None
        self._batches: deque[list[Order]] = deque()
        self._unverified: dict[str, Order] = {}
        self.on_sent: Callable[[Turn, Order], None] = _nobody
        self.on_settled: Callable[[Turn, Order], None] = _nobody
        self.on_fill: Callable[[Turn, Order, Trade], None] = _nobody_listens
        self.on_orphan: Callable[[Turn, Trade], None] = lambda turn, trade: None
        self.needed: Callable[[str], bool] = lambda group_id: True
        """whether a group is not over and may ask for its orders"""

    # ---- life ----

    def restore(self, history: History) -> None:
        """Orders, trades and positions that the ledger remembers. Nothing is sent before the exchange was asked."""
        self.registry, self.holdings = history.trades, history.holdings
        for name, size in history.positions.items():
            self.exposure.adopt(name, size)
        siblings: dict[tuple[str, int], list[Order]] = {}
        for known in history.intents.values():
            order = _restored(known)
            self.orders.add(order)
            siblings.setdefault((order.intent.group_id, order.intent.leg_idx // 2), []).append(order)
            if not order.terminal:
                self._unverified[order.intent.intent_id] = order
        self._batches.extend(batch for batch in siblings.values() if any(order.state == CREATED for order in batch))

    def fact(self, turn: Turn, row: dict[str, object]) -> int | None:
        """Something has happened: it is recorded now, or as soon as there is room; its sequence number when it is now."""
        append = self._ledger.fact(row, turn.mono, turn.ts)
        if append is None:
            return None
        turn.send(append)
        return append.seq

    def forget(self, before_ts: int) -> None:
        """A reconciliation found that everything agrees: what was over before this is part of it, and is let go."""
        self.registry.forget(before_ts)
        self.orders.forget(before_ts, self.needed)

    # ---- recording ----

    def record(self, turn: Turn, intents: Sequence[Intent], before: dict[str, object] | None = None) -> Refusal | None:
        """Record intents that leave together, after the row of their group. Nothing is half recorded."""
        if any(self.orders.known_hash(intent.intent_hash) for intent in intents):
            turn.note("duplicate_noop", intents[0].intent_id, what="intent")
            return Refusal("DuplicateIntent", "recorded_before_dispatch", intents[0].intent_hash)
        rows = ([before] if before else []) + [intent.row() for intent in intents]
        recorded = self._ledger.room(len(rows))
        if not recorded:
            self._ledger.refuse(turn.ts)
            self._metrics.add("ledger_failures_total")
            turn.note("ledger_failed", intents[0].intent_id, why="the queue is full", **{"class": intents[0].intent_class})
            if intents[0].intent_class == OPEN:
                return Refusal("RecordedBeforeDispatchFailed", "recorded_before_dispatch", "the queue is full")
        seqs: list[int | None] = []
        for row in rows:
            if recorded:
                turn.send(self._ledger.append(row, turn.mono, turn.ts))
            seqs.append(self._ledger.appended if recorded else None)
        batch = [Order(intent, seq=seq, recorded_ts=turn.ts)
                 for intent, seq in zip(intents, seqs[-len(intents):], strict=True)]
        for order in batch:
            self.orders.add(order)
        self._batches.append(batch)
        self._limits.opened(turn.ts, sum(intent.intent_class == OPEN for intent in intents))
        if not recorded:
            self.pump(turn)
        return None

    # ---- leaving ----

    def pump(self, turn: Turn) -> None:
        """Let every batch go on that can: leave, expire, be refused, or wait."""
        for _ in range(len(self._batches)):
            batch = self._batches.popleft()
            if not self._leave(turn, batch):
                self._batches.append(batch)

    def _leave(self, turn: Turn, batch: list[Order]) -> bool:
        """True when the batch waits no longer."""
        if self._unverified and any(order.intent.intent_id in self._unverified for order in batch):
            return False
        if any(order.terminal or order.state != CREATED for order in batch):
            for order in batch:
                if order.state == CREATED:
                    self._give_up(turn, order, Refusal("IntentExpired", "dispatch", "its group did not leave whole"))
            return True
        refusal = self._expired(turn, batch)
        if refusal is not None:
            for order in batch:
                self._give_up(turn, order, refusal)
            return True
        papers = self._papers(turn, batch)
        if papers is None or not self._door.way_out(turn, all(order.intent.intent_class in REDUCING for order in batch)):
            return False
        permits: list[Permit] = []
        for order in batch:
            answer = self._permit(turn, order.intent.intent_class)
            if isinstance(answer, Refusal):
                if order.intent.intent_class != OPEN:
                    return False  # reducing is only ever put off, by the rate limit
                for each in batch:
                    self._give_up(turn, each, answer)
                return True
            permits.append(answer)
        for order, permit, paper in zip(batch, permits, papers, strict=True):
            self._send(turn, order, permit, paper)
        return True

    def _expired(self, turn: Turn, batch: list[Order]) -> Refusal | None:
        for order in batch:
            expires = order.intent.expires_ts
            if expires is not None and turn.ts > expires:
                return Refusal("IntentExpired", "dispatch", f"waited {turn.ts - order.recorded_ts} ms")
            if self._ledger.failed(order.seq) and order.intent.intent_class == OPEN:
                return Refusal("RecordedBeforeDispatchFailed", "recorded_before_dispatch", "the disk refused the record")
        return None

    def _papers(self, turn: Turn, batch: list[Order]) -> list[Recorded | Waived] | None:
        papers: list[Recorded | Waived] = []
        for order in batch:
            paper = self._ledger.recorded(order.intent, order.seq)
            if paper is not None:
                papers.append(paper)
                continue
            waived = self._ledger.waive(order.intent, turn.ts)
            if waived is None:
                if order.seq is None and self._ledger.room():  # there is room again: record it after all
                    turn.send(self._ledger.append(order.intent.row(), turn.mono, turn.ts))
                    order.seq = self._ledger.appended
                return None
            papers.append(waived)
        return papers

    def _permit(self, turn: Turn, intent_class: str) -> Permit | Refusal:
        priority = PRIORITY[intent_class]
        brownout = self._breaker.refuses(priority, turn.ts)
        if brownout is not None:
            return Refusal(brownout, "rate_limit")
        return self._guard.permit(self._snapshot(turn), intent_class)

    def _send(self, turn: Turn, order: Order, permit: Permit, paper: Recorded | Waived) -> None:
        refusal = self._door.send(turn, order, permit, paper)
        if refusal is not None:
            self._give_up(turn, order, refusal)
            return
        self._breaker.take(PRIORITY[order.intent.intent_class], turn.ts)
        self.tally.order(turn.ts)
        self._router.sent(turn, order, fallback=not self._venue.ready(ORDERS))
        self.activity += 1
        order.state = advance(order.state, "sent").to
        self.on_sent(turn, order)

    def _give_up(self, turn: Turn, order: Order, refusal: Refusal) -> None:
        self.refused(turn, order.intent.intent_class, refusal, order.intent.intent_id, order.intent.group_id)
        self._advance(turn, order, "failed")

    def refused(self, turn: Turn, intent_class: str, refusal: Refusal, intent_id: str | None = None,
                group_id: str | None = None) -> None:
        """Say why a wish or an intent does not go on."""
        self.tally.veto(turn.ts, refusal.code)
        self._metrics.add("refused_total", 1, code=refusal.code, **{"class": intent_class})
        turn.note("refused", intent_id, code=refusal.code, gate=refusal.gate, why=refusal.why, group_id=group_id,
                  **{"class": intent_class})

    # ---- cancelling ----

    def cancel_openers(self, turn: Turn) -> None:
        """Outside Active nothing that could open may rest on the book. Bounded a tick, retried until none is left."""
        budget = self._settings.cancel_open_batch_max
        for order in list(self.orders.live()):
            if budget and order.resting and not order.intent.reduce_only and self.cancel(turn, order):
                budget -= 1

    def cancel(self, turn: Turn, order: Order) -> bool:
        """Cancel one order, at most once a second. True when a request went out."""
        if order.state == CREATED or turn.ts < order.cancel_at or not self._venue.ready(ORDERS):
            return False
        permit = self._permit(turn, CANCEL)
        if isinstance(permit, Refusal) or not self._door.cancel(turn, order, permit):
            return False
        self._breaker.take(CANCEL_PRIORITY, turn.ts)
        order.cancel_at = turn.ts + RETRY_CANCEL_MS
        self.activity += 1
        return True

    def cancel_ghost(self, turn: Turn, order_id: str) -> bool:
        """Cancel an order that no intent explains."""
        permit = self._permit(turn, CANCEL)
        if isinstance(permit, Refusal) or not self._door.cancel_ghost(turn, order_id, permit):
            return False
        self._breaker.take(CANCEL_PRIORITY, turn.ts)
        return True

    # ---- news ----

    def on_answer(self, turn: Turn, answer: Answer) -> None:
        """The answer to an order or a cancel."""
        kind, name = answer.tag[0], answer.tag[1]
        if kind == "ghost":
            if answer.code is None:
                self.ghosts.pop(name, None)
                self._metrics.add("ghost_orders_total")
                turn.note("ghost_cancelled", None, order_id=name, event="GhostOrderCanceled")
            return
        if kind == "order":
            self._router.answered(turn, name)
        order = self.orders.get(name)
        if order is None:
            return
        if kind == "cancel":
            if answer.code is None and isinstance(answer.result, dict):
                self.on_order(turn, answer.result)
            else:
                self.wants_reconciliation = "cancel"
        elif answer.code is None:
            order.ambiguous = False
            self.on_order(turn, answer.result["order"])
            for trade in answer.result.get("trades") or ():
                self.on_trade(turn, trade)
        elif answer.code in UNCERTAIN_CODES:
            self._uncertain(turn, order, f"{answer.code} {answer.message}")
        elif order.order_id is None:
            order.ambiguous, order.refused_code = False, answer.code
            turn.note("rejected", order.intent.intent_id, code=answer.code, message=answer.message)
            self._advance(turn, order, "rejected")

    def on_lost(self, turn: Turn, lost: Lost) -> None:
        """No answer: what became of it must be looked up. That nothing was sent is the only proof of nothing."""
        if lost.tag[0] == "ghost":
            return  # the sweeper asks again
        if lost.tag[0] == "order":
            self._router.answered(turn, lost.tag[1])  # waiting is over, and was as long as this
        order = self.orders.get(lost.tag[1])
        if order is None or order.terminal:
            return
        if lost.tag[0] == "cancel":
            order.cancel_at = turn.ts
            self.wants_reconciliation = "cancel"
        elif not lost.sent:
            self._advance(turn, order, "failed")
        elif order.order_id is None:
            self._uncertain(turn, order, lost.why)

    def _uncertain(self, turn: Turn, order: Order, why: str) -> None:
        order.ambiguous = True
        self.wants_reconciliation = "ambiguous"
        turn.note("ambiguous", order.intent.intent_id, why=why)

    def on_order(self, turn: Turn, raw: Mapping[str, Any]) -> None:
        """What the exchange says about an order, in an answer, on the stream, or over REST."""
        self.tally.router_ts = turn.ts
        label, order_id, state = raw.get("label"), raw.get("order_id"), raw.get("order_state")
        self._known_words(turn, raw)
        order = self.orders.match(label, order_id)
        if order is None:
            if parse_label(label) is not None and state in ("open", "untriggered") and isinstance(order_id, str):
                self.ghosts.setdefault(order_id, turn.ts)
            return
        if isinstance(order_id, str) and order.order_id != order_id:
            self._named(turn, order, order_id)
        try:
            reported = decimal_of(raw.get("filled_amount", 0))
            self.activity += reported > order.reported
            order.reported = max(order.reported, reported)
        except MetadataMissing:
            self.wants_reconciliation = "unreadable order"
        order.ambiguous = False
        event = NEWS_OF_STATE.get(str(state))
        if event is None:
            return
        if event == "acked":
            self._advance(turn, order, "acked")
            return
        if order.state in (CREATED, SENT) and event != "rejected":
            self._advance(turn, order, "acked")
        order.final = event
        order.lookup_at = turn.ts + TRADES_LATE_MS
        self._finish(turn, order)

    def _named(self, turn: Turn, order: Order, order_id: str) -> None:
        if order.order_id is not None:
            # Two orders under one label: the exchange has one more than we meant.
            self._metrics.add("duplicate_dispatch_count")
            turn.note("duplicate_order", order.intent.intent_id, first=order.order_id, second=order_id)
            self.ghosts.setdefault(order_id, turn.ts)
            return
        self.orders.named(order, order_id)
        self._router.answered(turn, order.intent.intent_id)
        self.fact(turn, {"kind": "acked", "intent_id": order.intent.intent_id, "order_id": order_id})
        turn.note("acked", order.intent.intent_id, order_id=order_id)

    def _known_words(self, turn: Turn, raw: Mapping[str, Any]) -> None:
        state, reason = raw.get("order_state"), raw.get("cancel_reason")
        if state is not None and state not in NEWS_OF_STATE:
            self._token(turn, f"order_state:{state}")
        if reason is not None and reason not in CANCEL_REASONS:
            self._token(turn, f"cancel_reason:{reason}")

    def on_trade(self, turn: Turn, raw: Mapping[str, Any]) -> None:
        """A fill of ours, from wherever; it counts once."""
        trade = parse_trade(raw)
        if trade is None:
            self.wants_reconciliation = "unreadable trade"
            return
        order = self.orders.match(trade.label, trade.order_id)
        intent_id = None if order is None else order.intent.intent_id
        if not self.registry.first(trade, intent_id, turn.ts):
            self._metrics.add("duplicate_fills_total")
            turn.note("duplicate_noop", intent_id, what="fill", trade_id=trade.trade_id)
            return
        self.activity += 1
        usd = usd_of(trade.instrument, float(trade.price), trade.index or self.index())
        self.exposure.apply(trade.instrument, trade.signed)
        self.holdings.fill(trade.instrument, trade.signed, usd, turn.ts)
        self.tally.fill(turn.ts, first_of=None if order is None or order.filled else order.sent_ts)
        self.fact(turn, {"kind": "fill", "trade_id": trade.trade_id, "trade_seq": trade.seq, "intent_id": intent_id,
                         "instrument": trade.instrument, "side": trade.side, "qty": str(trade.qty),
                         "price": str(trade.price), "usd": usd})
        self._metrics.add("fills_total")
        turn.note("fill", intent_id, trade_id=trade.trade_id, instrument=trade.instrument, side=trade.side,
                  qty=str(trade.qty), price=str(trade.price))
        self.on_position(turn)
        if order is None:
            self.on_orphan(turn, trade)
            self.wants_reconciliation = "orphan fill"
            return
        if order.order_id is None and trade.order_id:
            self._named(turn, order, trade.order_id)
        self.orders.filled(order, trade.qty)
        self._router.filled(turn, order.intent.intent_id, trade)
        order.ambiguous = False
        self.on_fill(turn, order, trade)
        self._advance(turn, order, "filled" if order.remaining <= 0 else "partial_fill")
        self._finish(turn, order)

    def _finish(self, turn: Turn, order: Order) -> None:
        """The exchange's last word holds once every fill that it reported has been counted."""
        if order.final is None or order.terminal:
            return
        if order.filled >= order.reported or order.remaining <= 0:
            self._advance(turn, order, "filled" if order.remaining <= 0 else
                          "cancelled" if order.final == "filled" else order.final)

    def _advance(self, turn: Turn, order: Order, event: str) -> None:
        intent_id = order.intent.intent_id
        try:
            step = advance(order.state, event)
        except IllegalTransition as why:
            turn.note("anomaly", intent_id, what="illegal transition", why=str(why))
            return
        if step.anomaly:
            turn.note("anomaly", intent_id, what="out of order", why=f"{event} in {order.state}")
        if step.to == order.state:
            return
        order.state = step.to
        self.activity += 1
        if step.to in TERMINAL:
            order.settled_ts = turn.ts
            self.orders.settled(order)
            self._unverified.pop(intent_id, None)
            self.fact(turn, {"kind": "state", "intent_id": intent_id, "state": step.to})
            self.on_settled(turn, order)

    # ---- what the reconciliation tells ----

    def unsettled(self, turn: Turn) -> list[Order]:
        """Orders of which the exchange must be asked: ambiguous, of an earlier life, or with fills still missing."""
        return [order for order in self.orders.live()
                if order.ambiguous or order.intent.intent_id in self._unverified
                or (order.final is not None and turn.ts >= order.lookup_at)
                or (not order.resting and order.sent_ts is not None
                    and turn.ts - order.sent_ts > self._settings.order_answer_ms_max)]

    def not_at_the_exchange(self, turn: Turn, order: Order) -> bool:
        """The exchange knows neither order nor trade of this label. True when that settled the order.

        Of what was sent it is believed only once the exchange would refuse a late arrival (``valid_until``).
        """
        if order.sent_ts is not None:
            certain = order.sent_ts + self._settings.intent_ttl_ms + self._settings.request_ms_max
            if turn.ts <= certain:
                return False
            order.ambiguous = False
            turn.note("lost_order", order.intent.intent_id, label=order.intent.label)
            self._advance(turn, order, "cancelled" if order.state == ACKED else "failed")
            return True
        self._unverified.pop(order.intent.intent_id, None)  # never sent: it may leave, once, with its siblings
        return True

    def at_the_exchange(self, order: Order) -> None:
        """The exchange knows the order: what an earlier life recorded was sent after all."""
        self._unverified.pop(order.intent.intent_id, None)

    def haunts(self, resting: Collection[str], asked_ts: int) -> None:
        """These orders rest on the exchange's books, as it was asked at that time: a ghost that does not is gone."""
        self.ghosts = {order_id: since for order_id, since in self.ghosts.items()
                       if order_id in resting or since >= asked_ts}

    @property
    def unverified(self) -> int:
        """How many orders of an earlier life the exchange has not been asked about."""
        return len(self._unverified)


def _restored(known: Known) -> Order:
    state = known.state or (ACKED if known.order_id else SENT if known.sent_ts is not None else CREATED)
    order = Order(known.intent, state=state, seq=known.seq, recorded_ts=known.recorded_ts, sent_ts=known.sent_ts,
                  order_id=known.order_id, filled=known.filled, settled_ts=known.settled_ts, from_ledger=True)
    order.ambiguous = state not in TERMINAL and known.sent_ts is not None
    return order


def _nobody(turn: Turn, order: Order) -> None:
    """Nobody listens yet."""


def _nobody_listens(turn: Turn, order: Order, trade: Trade) -> None:
    """Nobody listens yet."""
