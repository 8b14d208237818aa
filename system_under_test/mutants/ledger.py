"""Sabotages of the intent ledger."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from system_under_test.machine import Append, LogImage, Now, Start, Value
from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader
from system_under_test.trader.intents import REDUCING, Intent
from system_under_test.trader.ledger import LOG
from system_under_test.trader.turn import Turn
from system_under_test.trader.venue import Answer


def forgets(environment: Mapping[str, str]) -> Trader:
    """A restart reads its records and understands none: drill 4 must say that a fill was never counted
    (law ``every_fill_once``).

    Real bugs look like this: a new version of the record format, and a reader that passes over what it cannot parse.
    """

    class Forgetful(Trader):
        def handle(self, now: Now, value: Value) -> tuple[Value, ...]:
            if isinstance(value, Start) and LOG in value.logs:
                image = value.logs[LOG]
                blank = LogImage(tuple(b"{}" for _ in image.records), image.torn_bytes)
                value = replace(value, logs={**value.logs, LOG: blank})
            return super().handle(now, value)

    return Forgetful(environment)


def calls_cached_durable(environment: Mapping[str, str]) -> Trader:
    """A record counts as durable once it is handed over: drill 3 must say that orders opened risk while the disk took
    no records (``unrecorded``), and that the queue never filled (``full``).

    Real bugs look like this: ``write`` returned, so it is on disk.
    """

    def sabotage(trader: Trader) -> None:
        ledger = trader.ledger
        honest = ledger.append

        def append(row: Mapping[str, object], mono_ms: int, ts: int) -> Append:
            out = honest(row, mono_ms, ts)
            ledger.on_durable(ledger.appended)
            return out

        graft(ledger, "append", append)

    return operate(environment, sabotage)


def sends_before_durable(environment: Mapping[str, str]) -> Trader:
    """Orders leave while their record still waits for the disk, and the depth is told honestly: drill 3 must say that
    orders opened risk while the disk took no records (``unrecorded``).

    Real bugs look like this: recording and sending were made concurrent, to save a millisecond.
    """

    def sabotage(trader: Trader) -> None:
        ledger, door = trader.ledger, trader.desk._door
        mint = ledger.recorded

        def recorded(intent: object, seq: int | None) -> object:
            durable, ledger.durable = ledger.durable, ledger.appended
            try:
                return mint(intent, seq)  # type: ignore[arg-type]
            finally:
                ledger.durable = durable

        graft(ledger, "recorded", recorded)
        graft(door, "_check", lambda order, permit, paper: None)

    return operate(environment, sabotage)


def never_full(environment: Mapping[str, str]) -> Trader:
    """The queue has no bound: drill 3 must say that it never refused an intent (``full``).

    Real bugs look like this: an unbounded channel, which is a bound that nobody chose.
    """

    def sabotage(trader: Trader) -> None:
        trader.ledger.capacity = 1 << 30

    return operate(environment, sabotage)


def traps_positions(environment: Mapping[str, str]) -> Trader:
    """Reducing waits for the disk like everything else: drill 3 must say that nothing was reduced (``reducing``).

    Real bugs look like this: *durable before dispatch*, taken literally, holds a position hostage to a disk.
    """

    def sabotage(trader: Trader) -> None:
        graft(trader.ledger, "waive", lambda intent, ts: None)

    return operate(environment, sabotage)



def records_afterwards(environment: Mapping[str, str]) -> Trader:
    """An order leaves first and is recorded then: some drill must say that it was recorded only after it had arrived
    (law ``recorded_before_dispatched``).

    Real bugs look like this: recording was moved into the handler of the answer, where the order's id is known.
    """

    def sabotage(trader: Trader) -> None:
        desk, ledger, door = trader.desk, trader.ledger, trader.desk._door
        record, answered = desk.record, desk.on_answer
        held: dict[str, Intent] = {}

        def record_later(turn: Turn, intents: list[Intent], before: dict[str, object] | None = None) -> object:
            append = ledger.append

            def pretend(row: Mapping[str, object], mono_ms: int, ts: int) -> Append | None:
                if row["kind"] != "intent":
                    return append(row, mono_ms, ts)
                return None

            for each in intents:
                held[each.intent_id] = each
            ledger.append = pretend  # type: ignore[method-assign, assignment]
            try:
                size = len(turn.out)
                refusal = record(turn, intents, before)
                turn.out[size:] = [each for each in turn.out[size:] if each is not None]
                return refusal
            finally:
                ledger.append = append  # type: ignore[method-assign]

        def on_answer(turn: Turn, answer: Answer) -> None:
            intent = held.pop(str(answer.tag[1]), None)
            if intent is not None:
                turn.send(ledger.append(intent.row(), turn.mono, turn.ts))
            answered(turn, answer)

        graft(desk, "record", record_later)
        graft(desk, "on_answer", on_answer)
        graft(door, "_check", lambda order, permit, paper: None)

    return operate(environment, sabotage)


def records_what_was_meant(environment: Mapping[str, str]) -> Trader:
    """A fill is recorded with the amount of its order: drill 9 must say that the amounts differ (law ``every_fill_once``).

    Real bugs look like this: most orders are filled whole, and the tests had none that was not.
    """

    def sabotage(trader: Trader) -> None:
        ledger, orders = trader.ledger, trader.desk.orders
        honest = ledger.fact

        def fact(row: dict[str, object], mono_ms: int, ts: int) -> Append | None:
            order = orders.get(str(row["intent_id"])) if row["kind"] == "fill" and row["intent_id"] else None
            return honest(row if order is None else {**row, "qty": str(order.intent.qty)}, mono_ms, ts)

        graft(ledger, "fact", fact)

    return operate(environment, sabotage)


def takes_refusals_for_writes(environment: Mapping[str, str]) -> Trader:
    """A record that the disk refused counts as written: drill 18 must say that orders opened risk while the disk took
    nothing (``unrecorded_again``).

    Real bugs look like this: whatever answer comes completes the future.
    """

    def sabotage(trader: Trader) -> None:
        ledger = trader.ledger
        honest = ledger.append
        answered: list[int] = []

        def append(row: Mapping[str, object], mono_ms: int, ts: int) -> Append:
            out = honest(row, mono_ms, ts)
            if answered:
                ledger.on_durable(ledger.appended)
            return out

        def failed(seq: int, ts: int) -> None:
            answered.append(seq)
            ledger.on_durable(ledger.appended)

        graft(ledger, "append", append)
        graft(ledger, "on_failed", failed)

    return operate(environment, sabotage)


def drops_what_is_refused(environment: Mapping[str, str]) -> Trader:
    """Facts that come while the disk refuses are let go: drill 18 must say that nothing tells of an order that was sent
    (law ``what_was_sent_is_recorded``); the fills it learns anew from the exchange.

    Real bugs look like this: a full buffer is emptied, so that the process survives.
    """

    def sabotage(trader: Trader) -> None:
        ledger = trader.ledger
        honest = ledger.fact
        graft(ledger, "fact", lambda row, mono_ms, ts: None if ledger.refusing else honest(row, mono_ms, ts))

    return operate(environment, sabotage)


def tears_a_record(environment: Mapping[str, str]) -> Trader:
    """Of the first record after a refusal only half is kept: drill 18 must say that nobody can read it (law
    ``ledger_legible``).

    Real bugs look like this: a short write is taken for a whole one, and the rest is never written.
    """

    def sabotage(trader: Trader) -> None:
        ledger = trader.ledger
        honest = ledger.append
        torn: list[int] = []

        def append(row: Mapping[str, object], mono_ms: int, ts: int) -> Append:
            out = honest(row, mono_ms, ts)
            if ledger.refusing and not torn:
                torn.append(out.seq)
                return replace(out, data=out.data[:len(out.data) // 2])
            return out

        graft(ledger, "append", append)

    return operate(environment, sabotage)


def never_trusts_it_again(environment: Mapping[str, str]) -> Trader:
    """A disk that has refused once is taken to refuse for ever: drill 18 must say that trading was not resumed
    (``recovered``).

    Real bugs look like this: the error flag is cleared by a restart.
    """

    def sabotage(trader: Trader) -> None:
        ledger = trader.ledger
        honest = ledger.on_failed

        def failed(seq: int, ts: int) -> None:
            honest(seq, ts)
            ledger._failed.add(sys.maxsize)

        graft(ledger, "on_failed", failed)

    return operate(environment, sabotage)


def _notes_facts(environment: Mapping[str, str], change: Callable[[dict[str, object]], dict[str, object] | None]) -> Trader:
    """The real trader, whose ledger has what is no intent otherwise, or (None) not at all."""

    def sabotage(trader: Trader) -> None:
        honest = trader.ledger.fact

        def fact(row: dict[str, object], mono_ms: int, ts: int) -> Append | None:
            changed = change(row)
            return None if changed is None else honest(changed, mono_ms, ts)

        graft(trader.ledger, "fact", fact)

    return operate(environment, sabotage)


def fills_of_nobody(environment: Mapping[str, str]) -> Trader:
    """A fill's row does not say which intent it is of: drill 2 must say that the ledger has it as one of nobody
    (law ``every_fill_once``).

    Real bugs look like this: the column is filled in by a join that was made the wrong way round.
    """
    return _notes_facts(environment, lambda row: {**row, "intent_id": None} if row["kind"] == "fill" else row)


def records_the_limit(environment: Mapping[str, str]) -> Trader:
    """A fill is recorded and reckoned with the limit of its order: drill 2 must say that its price is not the one of the books
    (law ``every_fill_once``).

    Real bugs look like this: the order and its trade both have a field that is called price.
    """

    def sabotage(trader: Trader) -> None:
        desk = trader.desk
        honest = desk.on_trade

        def on_trade(turn: Turn, raw: Mapping[str, Any]) -> None:
            order = desk.orders.match(raw.get("label"), raw.get("order_id"))
            honest(turn, raw if order is None else {**raw, "price": float(order.intent.price)})

        graft(desk, "on_trade", on_trade)

    return operate(environment, sabotage)


def fills_are_cancels(environment: Mapping[str, str]) -> Trader:
    """What was filled whole is recorded as cancelled: drill 2 must say so (law ``what_became_is_recorded``).

    Real bugs look like this: an order of the kind immediate-or-cancel is over, so it is mapped to what its name ends with.
    """
    return _notes_facts(environment, lambda row: {**row, "state": "Canceled"} if row.get("state") == "Filled" else row)


def never_notes_ids(environment: Mapping[str, str]) -> Trader:
    """The exchange's id of an order is not recorded: drill 2 must say that the ledger has none
    (law ``what_became_is_recorded``).

    Real bugs look like this: the id is kept in memory, where everybody who asks for it finds it.
    """
    return _notes_facts(environment, lambda row: None if row["kind"] == "acked" else row)


def waives_always(environment: Mapping[str, str]) -> Trader:
    """What reduces never waits for its record, however well the disk is: drill 2 must say that the queue was empty
    (law ``waived_only_when_stalled``).

    Real bugs look like this: closing is urgent, so the exception for a dead disk became the rule.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.ledger.recorded
        graft(trader.ledger, "recorded", lambda intent, seq: None if intent.intent_class in REDUCING else honest(intent, seq))
        graft(trader.ledger, "stalled", lambda ts: True)

    return operate(environment, sabotage)
