"""How mutants get at a trader: after it has built its organs, and never at anything but that one trader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import orjson
from msgspec import Struct, structs

from system_under_test.trader import Trader, make
from system_under_test.trader.ledger import History
from system_under_test.trader.turn import Turn


def operate(environment: Mapping[str, str], sabotage: Callable[[Trader], None]) -> Trader:
    """The real trader, whose organs the sabotage gets into its hands as soon as a start has built them."""
    trader = make(environment)
    build = trader._build

    def build_and_spoil(turn: Turn, start: Any, history: History) -> None:
        build(turn, start, history)
        sabotage(trader)

    graft(trader, "_build", build_and_spoil)
    return trader


def graft(organ: object, name: str, by: object) -> None:
    """Put something else in the place of one method or collaborator of this very instance."""
    if not hasattr(organ, name):
        raise AttributeError(f"{type(organ).__name__} has no {name}: the mutant is older than the trader")
    setattr(organ, name, by)


def altered(value: Any, **changes: object) -> Any:
    """A copy of a frozen value with some fields changed, whichever kind of frozen it is."""
    return structs.replace(value, **changes) if isinstance(value, Struct) else replace(value, **changes)


def retell(environment: Mapping[str, str], tell: Callable[[Trader, dict[str, Any]], dict[str, Any]]) -> Trader:
    """The real trader, whose status documents are told by somebody else: what it does is right, what it says is not."""

    def sabotage(trader: Trader) -> None:
        honest = trader._status
        graft(trader, "_status", lambda turn: orjson.dumps(tell(trader, orjson.loads(honest(turn)))))

    return operate(environment, sabotage)
