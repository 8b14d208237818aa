"""The trading floor: wishes become groups, groups are contained when they break and closed when they are done.

Exposure is shrunk in every mode (capital supremacy). Whatever has to be shrunk, the naked leg of a mixed group, a
complete group whose time has come, everything under Kill, or a residue that no group explains, goes the same way:
one order at a time, the part first whose closing brings the delta nearer to zero, an option before its hedge,
three tries that reach 5, 10 and 20 ticks into the book, then a hedge on the perpetual, then a pause and again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from decimal import Decimal

from system_under_test.trader.desk import Desk
from system_under_test.trader.exposure import delta_of
from system_under_test.trader.gates import Gates, Priced, closing_price
from system_under_test.trader.group import (
    COMPLETE,
    DISPATCHED,
    FLATTENING,
    MIXED_FAILED,
    NEW,
    ChurnBreaker,
    Group,
    LegPlan,
    advance,
    structure_of,
)
from system_under_test.trader.intents import (
    CLOSE,
    EMERGENCY_CLOSE,
    HEDGE,
    OPEN,
    Intent,
    LabelTooLong,
    classify,
    make_intent,
    parse_label,
    short_group,
)
from system_under_test.trader.ledger import History, Ledger
from system_under_test.trader.levels import LONG
from system_under_test.trader.market import Market
from system_under_test.trader.orders import CREATED, FAILED, Order
from system_under_test.trader.policy import KILL, Refusal
from system_under_test.trader.quantize import OPTION, Quantized, floor_to
from system_under_test.trader.registry import Trade
from system_under_test.trader.report.metrics import Metrics
from system_under_test.trader.settings import Settings
from system_under_test.trader.strategy import CLOSE as WISH_CLOSE
from system_under_test.trader.strategy import QUOTE as WISH_QUOTE
from system_under_test.trader.strategy import GroupView, Leg, Wish
from system_under_test.trader.turn import Turn
from system_under_test.trader.venue import MAINTENANCE_CODES

ZERO = Decimal(0)

CLOSE_PAUSE_MS = 500
"""Between two rounds of closing attempts: the market needs time to change."""

CLOSED_PAUSE_MS = 1_000
"""Between two attempts while the exchange is being maintained or locked."""

BALANCED = 0.2
"""A group whose delta is less than this share of its larger leg's is closed as the pair it is, option first."""

ATTEMPTS_PER_BOOT = 1_000
"""Numbers of a group's orders start so much higher in every life."""

CLOSES_SETTLE_MS = 500
"""For so long a rescue waits for closes of other groups that are under way."""
RESIDUE_AFTER_MS = 1_000
"""A position that no group explains is closed once it has been unexplained for so long: news may be under way."""


class Floor:
    """The groups that are alive, and what is done about them."""

    def __init__(
        self, settings: Settings, *, desk: Desk, gates: Gates, market: Market, ledger: Ledger, metrics: Metrics,
        auth: Callable[[Turn], Refusal | None], mode: Callable[[], str], label_trouble: Callable[[Turn], None],
    ) -> None:
        self._settings, self._desk, self._gates, self._market = settings, desk, gates, market
        self._ledger, self._metrics = ledger, metrics
        self._auth, self._mode, self._label_trouble = auth, mode, label_trouble
        self._churn = ChurnBreaker(settings.churn_flatten_max, settings.churn_window_s, settings.churn_blacklist_s)
        self.groups: dict[str, Group] = {}
        self.naked: list[int] = []
        """when naked events happened"""
        self.settled = False
        """whether a reconciliation has confirmed what this life knows; nothing old is touched before"""
        self._pauses: dict[str, int] = {}
        self._residue: Group | None = None
        self._residue_since: int | None = None
        self._residues = 0
        self._boot = 0
        self._quotes: dict[str, Order] = {}
        desk.on_sent, desk.on_settled, desk.on_fill = self._on_sent, self._on_settled, self._on_fill
        desk.on_orphan, desk.needed = self.orphan, self._needed

    def restore(self, history: History, boot: int) -> None:
        """Groups that the ledger remembers and that are not over."""
        self._boot = boot
        self.naked = [row["ts"] for row in history.naked]
        for known in history.groups.values():
            legs = tuple(LegPlan(leg["instrument"], leg["side"], Decimal(leg["qty"])) for leg in known.legs)
            # How often a rescue was tried is not on disk, and an unknown number is the limit.
            tried = self._settings.rescue_max if known.state == MIXED_FAILED else 0
            self.groups[known.group_id] = Group(known.group_id, legs, known.recorded_ts, known.state, known.since_ts,
                                                rescues=tried)
        for each in history.intents.values():
            group = self.groups.get(each.intent.group_id)
            if group is None:
                continue
            group.intent_ids.append(each.intent.intent_id)
            group.attempts = max(group.attempts, each.intent.leg_idx // 2)
            if each.filled:
                group.fill(each.intent.instrument, each.filled if each.intent.side == "buy" else -each.filled)
        self.groups = {name: group for name, group in self.groups.items() if group.alive}
        for group in self.groups.values():
            # An earlier life may have sent orders that the ledger never kept (waived, or lost): their numbers are taken.
            group.attempts = max(group.attempts, boot * ATTEMPTS_PER_BOOT)

    # ---- wishes ----

    def wish(self, turn: Turn, wish: Wish) -> None:
        """One wish of the strategy: it becomes orders, or it is refused with a code."""
        reducing = bool(wish.legs) and all(leg.reduce_only is True for leg in wish.legs)
        if classify(CLOSE if wish.kind == WISH_CLOSE else OPEN, reducing) == CLOSE:
            self._wish_close(turn, wish)
            return
        self._metrics.add("wishes_total", 1, **{"class": OPEN})
        self._desk.tally.signal(turn.ts)
        turn.note("wish", None, group_id=wish.wish_id, wish=wish.kind, **{"class": OPEN})
        refusal = self._open(turn, wish)
        if refusal is not None:
            self._desk.refused(turn, OPEN, refusal, group_id=wish.wish_id)

    def _open(self, turn: Turn, wish: Wish) -> Refusal | None:
        quote = wish.kind == WISH_QUOTE
        refusal = self._auth(turn)
        if refusal is None and not quote and self._churn.resting(structure_of(wish.legs), turn.ts):
            refusal = Refusal("ChurnBreakerActive", "churn")
        if refusal is not None:
            return refusal
        priced = self._gates.open(wish.legs, wish.gross_edge_usd, turn.ts)
        if isinstance(priced, Refusal):
            return priced
        try:
            intents = [self._opening(turn, wish, leg_idx, each) for leg_idx, each in enumerate(priced)]
        except LabelTooLong as why:
            self._label_trouble(turn)
            return Refusal("LabelTooLong", "label", str(why))
        if quote:
            return self._desk.record(turn, intents)
        legs = tuple(LegPlan(each.leg.instrument, each.leg.side, each.quantized.qty) for each in priced)
        group = Group(wish.wish_id, legs, turn.ts, since_ts=turn.ts)
        refusal = self._desk.record(turn, intents, group.row())
        if refusal is None:
            group.intent_ids = [intent.intent_id for intent in intents]
            self.groups[group.group_id] = group
        return refusal

    def _opening(self, turn: Turn, wish: Wish, leg_idx: int, each: Priced) -> Intent:
        grid = each.quantized
        return make_intent(
            strategy_id=self._settings.strategy_id, group_id=wish.wish_id, leg_idx=leg_idx, intent_class=OPEN,
            instrument=each.leg.instrument, side=each.leg.side, qty=grid.qty, price=grid.price, steps=grid.steps,
            ticks=grid.ticks, reduce_only=False, time_in_force=each.leg.time_in_force, post_only=each.leg.post_only,
            expires_ts=turn.ts + self._settings.intent_ttl_ms)

    def _wish_close(self, turn: Turn, wish: Wish) -> None:
        self._metrics.add("wishes_total", 1, **{"class": CLOSE})
        self._desk.tally.signal(turn.ts)
        turn.note("wish", None, group_id=wish.group_id, wish=wish.kind, **{"class": CLOSE})
        group = self.groups.get(wish.group_id or "")
        if group is None or group.state != COMPLETE or group.closing:
            self._desk.refused(turn, CLOSE, Refusal("DuplicateIntent", "floor", "it is closed, or being closed"),
                               group_id=wish.group_id)
            return
        group.closing = True
        self._shrink(turn, group, CLOSE)

    def exit(self, turn: Turn, instrument: str, side: str) -> int:
        """An exit level of this side of an instrument was reached: close every complete group that holds it, each as the
        pair it is. How many that newly began to close; what is being contained or left over is being closed anyway."""
        closing = 0
        for group in list(self.groups.values()) if self.settled else ():
            held = group.held.get(instrument, ZERO)
            if group.state == COMPLETE and not group.closing and held and (held > 0) == (side == LONG):
                group.closing = True
                self._shrink(turn, group, CLOSE)
                closing += 1
        return closing

    # ---- news of orders ----

    def _on_sent(self, turn: Turn, order: Order) -> None:
        group = self.groups.get(order.intent.group_id)
        if group is not None and group.state == NEW:
            self._go(turn, group, "dispatch")
        if order.resting:
            self._quotes[order.intent.intent_id] = order

    def _on_fill(self, turn: Turn, order: Order, trade: Trade) -> None:
        group = self._group_of(order)
        if group is not None:
            group.fill(trade.instrument, trade.signed)

    def _on_settled(self, turn: Turn, order: Order) -> None:
        self._quotes.pop(order.intent.intent_id, None)
        group = self._group_of(order)
        if group is None:
            return
        if order.refused_code in MAINTENANCE_CODES and order.intent.intent_class != OPEN:
            # A closed exchange refuses closing too: that was no attempt, and asking again at once helps nobody.
            group.close_attempts = max(0, group.close_attempts - 1)
            self._pauses[group.group_id] = turn.ts + CLOSED_PAUSE_MS
        if self.settled:
            self._look(turn, group)

    def _group_of(self, order: Order) -> Group | None:
        group_id = order.intent.group_id
        if self._residue is not None and self._residue.group_id == group_id:
            return self._residue
        return self.groups.get(group_id)

    # ---- the group's table ----

    def _go(self, turn: Turn, group: Group, event: str) -> None:
        before, group.state = group.state, advance(group.state, event)
        group.since_ts = turn.ts
        if group is not self._residue:
            self._desk.fact(turn, {"kind": "group_state", "group_id": group.group_id, "from": before, "to": group.state})
        turn.note("group", None, group_id=group.group_id, **{"from": before, "to": group.state})

    def _needed(self, group_id: str) -> bool:
        return group_id in self.groups or (self._residue is not None and self._residue.group_id == group_id)

    def _busy(self, group: Group) -> bool:
        """Whether an order of a group that is past its dispatch is under way. What is over is let go, so that a long
        fight costs no more with every attempt."""
        group.intent_ids = [order.intent.intent_id for order in self._orders(group) if not order.terminal]
        return bool(group.intent_ids)

    def _orders(self, group: Group) -> list[Order]:
        return [order for each in group.intent_ids if (order := self._desk.orders.get(each)) is not None]

    def _look(self, turn: Turn, group: Group) -> None:
        """See where a group stands after something of it has settled."""
        if group.state not in (NEW, DISPATCHED):
            return
        if group.state == NEW and group.intent_ids:
            first = self._desk.orders.get(group.intent_ids[0])
            if first is not None and first.state == CREATED:
                return  # it still waits to leave, and its legs leave together
        orders = self._orders(group)
        if group.state == NEW:
            if all(order.state == FAILED and order.sent_ts is None for order in orders):
                self._go(turn, group, "abandon")
                return
            if all(order.state == CREATED for order in orders):
                return
            if all(order.terminal or order.state != CREATED for order in orders):
                self._go(turn, group, "dispatch")  # an earlier life sent it and did not live to say so
            else:
                return
        over = all(order.terminal for order in orders)
        if over and group.whole(self._settings.atomic_qty_epsilon):
            self._go(turn, group, "all_filled")
            return
        failed = any(order.terminal and order.remaining > 0 for order in orders)
        late = turn.ts - group.since_ts > self._settings.group_answer_ms_max
        if not (over or ((failed or late) and not group.flat)):
            return
        self._go(turn, group, "mixed")
        group.mixed_ts, group.naked_usd = turn.ts, self._usd(group)
        if over and group.flat:
            self._go(turn, group, "flatten")
            self._go(turn, group, "flat")
        else:
            self._contain(turn, group)

    def tick(self, turn: Turn) -> None:
        """Go on with everything that is being shrunk, or has to be."""
        if not self.settled:
            return
        killing = self._mode() == KILL
        for group in list(self.groups.values()):
            if group.state in (NEW, DISPATCHED):
                self._look(turn, group)
            elif group.state in (MIXED_FAILED, FLATTENING):
                self._contain(turn, group)
            elif group.state == COMPLETE and (group.closing or killing):
                group.closing = True
                self._shrink(turn, group, EMERGENCY_CLOSE if killing else CLOSE)
            if not group.alive or (group.state == COMPLETE and group.closing and self._dust(group)):
                del self.groups[group.group_id]
                self._pauses.pop(group.group_id, None)
        self._residues_tick(turn)

    # ---- containment ----

    @property
    def containing(self) -> bool:
        """Whether a mixed group is being contained at this moment."""
        return bool(self.groups) and any(group.state in (MIXED_FAILED, FLATTENING) for group in self.groups.values())

    def _contain(self, turn: Turn, group: Group) -> None:
        if self._busy(group):
            return
        if group.mixed_ts is None:  # contained since an earlier life
            group.mixed_ts, group.naked_usd = group.since_ts, self._usd(group)
        if group.state == MIXED_FAILED:
            if group.whole(self._settings.atomic_qty_epsilon):
                self._go(turn, group, "rescued")
                self._event(turn, group, "atomic_legging_failure")
                return
            if not group.flat and group.rescues < self._settings.rescue_max:
                if turn.ts - group.mixed_ts < CLOSES_SETTLE_MS and self._closing_beside(group):
                    return
                if self._rescue(turn, group):
                    return
            self._go(turn, group, "flatten")
        if self._dust(group) or (group.hedged and self._neutral(group)):
            self._go(turn, group, "flat")
            self._churn.flattened(structure_of(group.legs), turn.ts)
            self._event(turn, group, "hedge_fallback" if group.hedged else "emergency_close_exhausted"
                        if group.close_attempts > self._settings.close_attempts_max else "atomic_legging_failure")
            return
        self._shrink(turn, group, EMERGENCY_CLOSE)

    def _closing_beside(self, group: Group) -> bool:
        """Whether a close of another group is under way: arriving first, it would take the delta that a rescue is to take,
        and the rescue would be one more position."""
        return any(order.intent.reduce_only and not order.terminal for other in self.groups.values() if other is not group
                   for order in self._orders(other))

    def _rescue(self, turn: Turn, group: Group) -> bool:
        """One attempt to complete the group. False when no gate would let it, and closing is all that is left."""
        leg = next((number for number in range(len(group.legs)) if group.missing(number) > 0), None)
        if leg is None:
            return False
        plan, missing = group.legs[leg], group.missing(leg)
        instrument = self._market.instruments.get(plan.instrument)
        if instrument is None or isinstance(
                self._gates.liquidity(instrument, plan.side, float(missing), turn.ts), Refusal):
            return False
        price = closing_price(self._market, instrument, plan.side, self._settings.rescue_cross_spread_ticks, turn.ts)
        if price is None:
            return False
        grid = self._gates.on_grid(Leg(plan.instrument, plan.side, str(missing)), price)
        if isinstance(grid, Refusal):
            return False
        group.rescues += 1
        self._metrics.add("rescues_total")
        return self._order(turn, group, leg, HEDGE, plan.instrument, plan.side, grid, "rescue", group.rescues)

    def _event(self, turn: Turn, group: Group, cause: str) -> None:
        """The one AtomicNakedEvent of a group that was mixed."""
        if group.naked_usd <= 0:
            return
        self.naked.append(turn.ts)
        incident = group.mixed_ts if group.mixed_ts is not None else turn.ts
        row: dict[str, object] = {
            "group_id": group.group_id, "strategy_id": self._settings.strategy_id, "incident_ts_ms": incident,
            "exposure_usd_before": round(group.naked_usd, 2), "exposure_usd_after": round(self._usd(group), 2),
            "time_to_delta_neutral_ms": turn.ts - incident, "close_attempts": group.close_attempts,
            "hedge_used": group.hedged, "cause": cause, "trading_mode_at_event": self._mode(),
        }
        self._desk.fact(turn, {"kind": "naked", **row})
        turn.note("naked", None, **row)

    def naked_24h(self, ts: int) -> int:
        """Naked events of the last 24 hours."""
        if self.naked:
            self.naked = [each for each in self.naked if each > ts - 86_400_000]
        return len(self.naked)

    # ---- shrinking ----

    def _shrink(self, turn: Turn, group: Group, intent_class: str) -> None:
        """One closing order for a group, when none is under way."""
        if group.flat or turn.ts < self._pauses.get(group.group_id, 0):
            return
        if self._busy(group):
            return
        tries = self._settings.close_attempts_max
        exhausted = group.close_attempts > 0 and group.close_attempts % tries == 0
        if exhausted and intent_class == EMERGENCY_CLOSE and not group.hedged and self._hedge(turn, group):
            return
        picked = self._pick(group)
        if picked is None:
            self._pause(turn, group)
            return
        name, side, qty = picked
        number = group.close_attempts % tries
        group.close_attempts += 1
        if group.close_attempts % tries == 0:
            self._pause(turn, group)
        if intent_class == EMERGENCY_CLOSE:
            self._metrics.add("emergency_closes_total")
        instrument = self._market.instruments[name]
        price = closing_price(self._market, instrument, side, self._settings.close_buffer_ticks * 2 ** number, turn.ts)
        grid: Quantized | Refusal = Refusal("EmergencyCloseNoPrice", "emergency_close", name)
        if price is not None:
            grid = self._gates.on_grid(Leg(name, side, str(qty)), price)
        if isinstance(grid, Refusal):
            self._desk.refused(turn, intent_class, grid, group_id=group.group_id)
            return
        leg = 0 if instrument.kind == OPTION else 1
        kind = "close_attempt" if intent_class == EMERGENCY_CLOSE else None
        self._order(turn, group, leg, intent_class, name, side, grid, kind, number + 1)

    def _pause(self, turn: Turn, group: Group) -> None:
        self._pauses[group.group_id] = turn.ts + CLOSE_PAUSE_MS

    def _pick(self, group: Group) -> tuple[str, str, Decimal] | None:
        """What to close next: instrument, side, quantity. Never what would make the delta larger, if it can be helped."""
        units = self._market.unit_delta
        held = {name: size for name, size in group.held.items()
                if size and (known := self._market.instruments.get(name)) is not None and abs(size) >= known.min_amount}
        if not held:
            return None
        options_first = sorted(held, key=lambda name: (self._market.instruments[name].kind != OPTION, name))
        delta = delta_of(held, units)
        if delta is not None and not self._balanced(held, delta):
            for name in options_first:
                unit = units(name)
                if not unit or float(held[name]) * unit * delta <= 0:
                    continue
                step = self._market.instruments[name].amount_step
                most = floor_to(Decimal(repr(abs(delta / unit))) * Decimal("1.001"), step) * step
                qty = min(abs(held[name]), most)
                if qty >= self._market.instruments[name].min_amount:
                    return name, "sell" if held[name] > 0 else "buy", qty
        name = options_first[0]
        return name, "sell" if held[name] > 0 else "buy", abs(held[name])

    def _balanced(self, held: Mapping[str, Decimal], delta: float) -> bool:
        units = self._market.unit_delta
        largest = max((abs(float(size) * (units(name) or 0.0)) for name, size in held.items()), default=0.0)
        return abs(delta) <= BALANCED * largest

    def _hedge(self, turn: Turn, group: Group) -> bool:
        """Closing did not work: take the delta away on the perpetual, as much as one hedge may be.

        A pair that is balanced is only closed: what it drifts by is worth no order, and would be in the way of a close.
        """
        delta, index = self._delta(group), self._market.index
        perpetual = self._market.instruments.get(self._settings.perpetual)
        if delta is None or not index or perpetual is None or self._neutral(group) or self._balanced(group.held, delta):
            return False
        side = "sell" if delta > 0 else "buy"
        usd = Decimal(repr(min(abs(delta) * index, self._settings.hedge_max_usd)))
        price = closing_price(self._market, perpetual, side, self._settings.close_buffer_ticks, turn.ts)
        if price is None:
            return False
        grid = self._gates.on_grid(Leg(perpetual.name, side, str(usd)), price)
        if isinstance(grid, Refusal):
            return False
        group.hedged = True
        return self._order(turn, group, 1, HEDGE, perpetual.name, side, grid, "hedge", 1)

    def _order(
        self, turn: Turn, group: Group, leg: int, intent_class: str, instrument: str, side: str, grid: Quantized,
        note: str | None, number: int,
    ) -> bool:
        try:
            intent = make_intent(
                strategy_id=self._settings.strategy_id, group_id=group.group_id, leg_idx=group.next_leg_idx(leg),
                intent_class=intent_class, instrument=instrument, side=side, qty=grid.qty, price=grid.price,
                steps=grid.steps, ticks=grid.ticks, reduce_only=intent_class != HEDGE)
        except LabelTooLong as why:
            self._label_trouble(turn)
            self._desk.refused(turn, intent_class, Refusal("LabelTooLong", "label", str(why)), group_id=group.group_id)
            return False
        group.intent_ids.append(intent.intent_id)
        if note is not None:
            turn.note(note, intent.intent_id, n=number, group_id=group.group_id)
        return self._desk.record(turn, [intent]) is None

    # ---- residues ----

    def _residues_tick(self, turn: Turn) -> None:
        """Close what the account holds and no group explains: fills of quotes, of lost orders, what others did."""
        residue = self._residue
        if residue is not None:
            if self._dust(residue):
                self._residue = None
                self._pauses.pop(residue.group_id, None)
            else:
                self._shrink(turn, residue, EMERGENCY_CLOSE)
            return
        held = self._unexplained() if self.exposed else {}
        if not held:
            self._residue_since = None
        elif self._residue_since is None:
            self._residue_since = turn.ts
        elif turn.ts - self._residue_since >= RESIDUE_AFTER_MS:
            self._residues += 1
            self._residue_since = None
            name = hashlib.sha256(f"residue/{self._boot}/{self._residues}".encode()).hexdigest()[:32]
            self._residue = Group(name, (), turn.ts, FLATTENING, turn.ts, held=held)
            turn.note("residue", None, group_id=name, held={each: str(size) for each, size in held.items()})

    def _unexplained(self) -> dict[str, Decimal]:
        left = dict(self._desk.exposure.positions)
        for group in self.groups.values():
            for name, size in group.held.items():
                left[name] = left.get(name, ZERO) - size
        found = {}
        for name, size in left.items():
            instrument = self._market.instruments.get(name)
            # Only what really shrinks the position of the account is a residue; the rest nets out with the groups.
            if instrument is not None and abs(size) >= instrument.min_amount and (
                    size * self._desk.exposure.of(name) > 0):
                found[name] = size
        return found

    def orphan(self, turn: Turn, trade: Trade) -> None:
        """A fill under a label of ours whose order nobody remembers: its group is still written on it."""
        label = parse_label(trade.label)
        for group in self.groups.values():
            if label is not None and short_group(group.group_id) == label.gid12:
                group.fill(trade.instrument, trade.signed)

    def balance(self) -> None:
        """Positions were confirmed and nothing is under way: the groups cannot hold more than the account does."""
        if any(not order.resting for order in self._desk.orders.live()):
            return
        for instrument in {name for group in self.groups.values() for name in group.held}:
            self.adopted(instrument, self._desk.exposure.of(instrument))

    def adopted(self, instrument: str, size: Decimal) -> None:
        """The exchange's position took the place of ours: no group may believe in more than there is."""
        for group in self.groups.values():
            held = group.held.get(instrument, ZERO)
            if not held:
                continue
            kept = max(ZERO, min(held, size)) if held > 0 else min(ZERO, max(held, size))
            group.held[instrument] = kept
            size -= kept

    # ---- readings ----

    def _delta(self, group: Group) -> float | None:
        return delta_of(group.held, self._market.unit_delta)

    def _usd(self, group: Group) -> float:
        delta, index = self._delta(group), self._market.index
        return 0.0 if delta is None or index is None else abs(delta) * index

    def _dust(self, group: Group) -> bool:
        """Whether nothing is left of a group that the exchange would let us close: flat, or less than its minimum."""
        if self._busy(group):
            return False
        known = self._market.instruments
        return all(abs(size) < known[name].min_amount if name in known else not size for name, size in group.held.items())

    def _neutral(self, group: Group) -> bool:
        """Whether the group's delta is within what one step of the perpetual can balance."""
        perpetual, index = self._market.instruments.get(self._settings.perpetual), self._market.index
        delta = self._delta(group)
        if delta is None or perpetual is None or not index:
            return False
        return abs(delta) <= float(perpetual.amount_step) / index

    def views(self) -> tuple[GroupView, ...]:
        """The groups as the strategy may see them."""
        return tuple([_view(group) for group in self.groups.values()])

    @property
    def quote_open(self) -> bool:
        """Whether a quote rests on the book, or is on its way there."""
        return bool(self._quotes) or any(order.resting for order in self._desk.orders.live())

    @property
    def exposed(self) -> bool:
        """Whether the account holds anything."""
        return not self._desk.exposure.flat


def _view(group: Group) -> GroupView:
    held = group.state == COMPLETE and not group.flat
    legs = tuple([(leg.instrument, leg.side, str(abs(group.held.get(leg.instrument, ZERO)))) for leg in group.legs]
                 ) if held and not group.closing else ()
    return GroupView(group.group_id, group.state, group.since_ts, held, group.closing, legs)

