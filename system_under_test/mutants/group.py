"""Sabotages of the atomic group's containment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader
from system_under_test.trader.group import Group
from system_under_test.trader.intents import CLOSE, EMERGENCY_CLOSE, HEDGE
from system_under_test.trader.policy import KILL, REDUCE_ONLY
from system_under_test.trader.strategy import Wish
from system_under_test.trader.turn import Turn


def rescues_forever(environment: Mapping[str, str]) -> Trader:
    """A broken group is rescued again and again: drill 1 must say that it were more than two (``two_rescues``).

    Real bugs look like this: a retry loop that counts attempts in a variable which each attempt begins anew.
    """

    def sabotage(trader: Trader) -> None:
        graft(trader.floor, "_settings", replace(trader.settings, rescue_max=1_000))

    return operate(environment, sabotage)


def leaves_it_naked(environment: Mapping[str, str]) -> Trader:
    """A broken group is reported and left as it is: drill 1 must say that the account stayed
    naked (law ``naked_exposure_passes``).

    Real bugs look like this: the alarm works, and the action behind it was to come in a later release.
    """

    def sabotage(trader: Trader) -> None:
        graft(trader.floor, "_contain", lambda turn, group: None)

    return operate(environment, sabotage)


def opens_during_containment(environment: Mapping[str, str]) -> Trader:
    """A broken group does not stop the others: drill 1 must say that the mode was not what it promised (``contained``).

    Real bugs look like this: containment runs beside the strategy, and nobody told the strategy.
    """

    def sabotage(trader: Trader) -> None:
        graft(trader.watch, "containing", lambda: False)

    return operate(environment, sabotage)


def closes_one_leg(environment: Mapping[str, str]) -> Trader:
    """What is closed are options, and the hedge stays: drill 2 must say that the account stayed naked
    (law ``naked_exposure_passes``).

    Real bugs look like this: the loop over the legs returns inside its body.
    """

    def sabotage(trader: Trader) -> None:
        floor = trader.floor
        honest = floor._pick

        def pick(group: Group) -> tuple[str, str, Decimal] | None:
            found = honest(group)
            return None if found is not None and found[0] == trader.settings.perpetual else found

        graft(floor, "_pick", pick)
        graft(floor, "_residues_tick", lambda turn: None)

    return operate(environment, sabotage)


def closes_now_and_then(environment: Mapping[str, str]) -> Trader:
    """Of the wishes to close a group, those within 2.5 s of another one are noted and forgotten: drill 15 must say that one led
    to no order of its group (law ``reducing_always_possible``).

    Real bugs look like this: a pause that was meant for one group is kept for the account.
    """

    def sabotage(trader: Trader) -> None:
        honest, last = trader.floor._wish_close, [0]

        def wish_close(turn: Turn, wish: Wish) -> None:
            if turn.ts - last[0] < 2_500:
                turn.note("wish", None, group_id=wish.group_id, wish=wish.kind, **{"class": CLOSE})
                return
            last[0] = turn.ts
            honest(turn, wish)

        graft(trader.floor, "_wish_close", wish_close)

    return operate(environment, sabotage)


def waits_for_wishes_in_kill(environment: Mapping[str, str]) -> Trader:
    """In Kill nothing is closed but what the strategy happens to want closed: drill 8 must say that nothing was flattened
    (``flattened``).

    Real bugs look like this: Kill is one more mode that stops opening, and closing was always somebody else's.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.floor._mode
        graft(trader.floor, "_mode", lambda: REDUCE_ONLY if honest() == KILL else honest())

    return operate(environment, sabotage)


def hedges_the_wrong_way(environment: Mapping[str, str]) -> Trader:
    """Completing a broken group takes the side that it has already: drill 1 must say that exposure grew
    (law ``exposure_monotone_in_containment``).

    Real bugs look like this: a sign, and the sign of a sign.
    """

    def sabotage(trader: Trader) -> None:
        floor, door = trader.floor, trader.desk._door
        order = floor._order

        def order_other_way(turn: Turn, group: Group, leg: int, intent_class: str, instrument: str, side: str, *rest: object
                            ) -> bool:
            if intent_class in (EMERGENCY_CLOSE, HEDGE):
                side = "buy" if side == "sell" else "sell"
            return order(turn, group, leg, intent_class, instrument, side, *rest)  # type: ignore[arg-type]

        graft(floor, "_order", order_other_way)
        graft(door, "_shrinks", lambda order: True)

    return operate(environment, sabotage)
