"""Sabotages of the sweeper, who looks after orders that nobody meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader
from system_under_test.trader.turn import Turn


def leaves_ghosts(environment: Mapping[str, str]) -> Trader:
    """A ghost is found and latches, and is never cancelled: drill 15 must say that it was not swept (``swept``).

    Real bugs look like this: the alert was built first, and the cancel is on the list for the next version.
    """

    def sabotage(trader: Trader) -> None:
        graft(trader.desk, "cancel_ghost", lambda turn, order_id: False)

    return operate(environment, sabotage)


def sees_no_ghosts(environment: Mapping[str, str]) -> Trader:
    """Orders that no intent explains are passed over: drill 15 must say that nothing was latched (``haunted``).

    Real bugs look like this: the list of open orders is only searched for what is expected on it.
    """

    def sabotage(trader: Trader) -> None:
        graft(trader.sweeper, "_ghosts", lambda turn: None)

    return operate(environment, sabotage)


def sweeps_strangers(environment: Mapping[str, str]) -> Trader:
    """Whatever is not ours is cancelled: drill 15 must say that a person's own order was taken off (``left_alone``).

    Real bugs look like this: "cancel everything that we do not know" is one line shorter.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.desk.on_order

        def on_order(turn: Turn, raw: Mapping[str, Any]) -> None:
            honest(turn, raw)
            if raw.get("label") == "" and raw.get("order_state") == "open":
                trader.desk.ghosts.setdefault(str(raw["order_id"]), turn.ts)

        graft(trader.desk, "on_order", on_order)

    return operate(environment, sabotage)


def leaves_stale_orders(environment: Mapping[str, str]) -> Trader:
    """A resting order grows as old as it likes: drill 16 of the state files must say that one did
    (law ``nothing_rests_for_long``).

    Real bugs look like this: the age is reckoned from the last change, and the sweeper's own look is one.
    """

    def sabotage(trader: Trader) -> None:
        graft(trader.sweeper, "tick", trader.sweeper._ghosts)

    return operate(environment, sabotage)
