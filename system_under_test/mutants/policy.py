"""Sabotages of the policy guard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from msgspec import structs

from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader
from system_under_test.trader.group import Group
from system_under_test.trader.policy import ACTIVE, CLOSE, KILL, Decision, Permit, Refusal, Snapshot, decide
from system_under_test.trader.turn import Turn


def kills_by_clock(environment: Mapping[str, str]) -> Trader:
    """A wrong clock kills: drill 11 must say that Kill was seen (``never_killed``).

    Real bugs look like this: every failed self-test goes to the same emergency stop.
    """

    def sabotage(trader: Trader) -> None:
        watch = trader.watch
        honest = watch.snapshot

        def snapshot(turn: Turn) -> Snapshot:
            seen = honest(turn)
            return structs.replace(seen, risk_state="Kill") if watch.clock.tripped(turn.now) else seen

        graft(watch, "snapshot", snapshot)
        graft(trader.desk, "_snapshot", snapshot)

    return operate(environment, sabotage)


def kills_unconfirmed(environment: Mapping[str, str]) -> Trader:
    """One ended session kills, without the corroboration that the contract asks for: drill 7 must say that Kill was
    seen (``never_killed``).

    Real bugs look like this: the threshold is compared before the new answer is counted, or never.
    """

    def sabotage(trader: Trader) -> None:
        hasty = replace(trader.settings, rate_limit_kill_min_10028=1)
        graft(trader.watch, "_settings", hasty)
        graft(trader.guard, "_settings", hasty)

    return operate(environment, sabotage)


def traps_in_kill(environment: Mapping[str, str]) -> Trader:
    """Kill forbids everything, also to reduce: drill 8 must say that nothing was reduced under Kill (``closing``).

    Real bugs look like this: Kill is implemented as *stop sending*, and the position stays.
    """

    def sabotage(trader: Trader) -> None:
        guard = trader.guard
        honest = guard.permit

        def permit(snapshot: Snapshot | None, intent_class: str) -> Permit | Refusal:
            if decide(snapshot, trader.settings).mode == KILL:
                return Refusal("TradingModeForbidsOpen", "mode", "killed is killed")
            return honest(snapshot, intent_class)

        graft(guard, "permit", permit)

    return operate(environment, sabotage)


def opens_in_every_mode(environment: Mapping[str, str]) -> Trader:
    """Every permit is granted, and the status is honest about the mode: drill 2 must say that risk was opened while the
    status said that it is blocked (``no_risk``).

    Real bugs look like this: the mode is shown on a dashboard and asked about nowhere else.
    """

    def sabotage(trader: Trader) -> None:
        guard = trader.guard
        honest = guard.permit

        def permit(snapshot: Snapshot | None, intent_class: str) -> Permit | Refusal:
            answer = honest(snapshot, intent_class)
            if isinstance(answer, Permit):
                return answer
            reducing = honest(snapshot, CLOSE)
            return reducing if isinstance(reducing, Refusal) else replace(reducing, intent_class=intent_class)

        graft(guard, "permit", permit)

    return operate(environment, sabotage)


def holds_on(environment: Mapping[str, str]) -> Trader:
    """Outside Active nothing is closed: drill 2 must say that a wish to reduce led to nothing
    (law ``reducing_always_possible``).

    Real bugs look like this: *do not trade* was meant to block opening, and was written in front of everything.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.floor._shrink

        def shrink(turn: Turn, group: Group, intent_class: str) -> None:
            if trader.watch.mode == ACTIVE:
                honest(turn, group, intent_class)

        graft(trader.floor, "_shrink", shrink)

    return operate(environment, sabotage)


def lets_one_more_through(environment: Mapping[str, str]) -> Trader:
    """For 200 ms after Active has ended one more pair is let through, unless the latch did it: drill 16 must say that it was
    sent (law ``no_opening_sent_outside_active``).

    Real bugs look like this: the door asks for the mode of the last turn, which is cheaper than to decide again.
    """

    def sabotage(trader: Trader) -> None:
        guard, watch, left = trader.guard, trader.watch, [0, 0]
        permit, decided = guard.permit, watch.decide

        def permit_late(snapshot: Snapshot | None, intent_class: str) -> Permit | Refusal:
            answer = permit(snapshot, intent_class)
            if snapshot is None or snapshot.latch_blocked or not isinstance(answer, Refusal) or left[1] == 0 \
                    or snapshot.now_ms - left[0] > 200:
                return answer
            left[1] -= 1
            return replace(permit(snapshot, CLOSE), intent_class=intent_class)

        def decide_and_remember(turn: Turn, snapshot: Snapshot) -> Decision:
            before, decision = watch.mode, decided(turn, snapshot)
            if before == ACTIVE != decision.mode:
                left[:] = [turn.ts, 3]      # asked once when the pair is wished for, and once for each leg
            return decision

        graft(guard, "permit", permit_late)
        graft(watch, "decide", decide_and_remember)

    return operate(environment, sabotage)
