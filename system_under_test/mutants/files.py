"""Sabotages of the trader's own state files and of its exit levels: it trades as it should, and its files say otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from system_under_test.machine import Replace
from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader
from system_under_test.trader.policy import KILL
from system_under_test.trader.report.files import Surface
from system_under_test.trader.report.view import View
from system_under_test.trader.turn import Turn

Tell = Callable[[dict[str, Any], View], dict[str, Any] | None]


def rewrite(environment: Mapping[str, str], name: str, tell: Tell) -> Trader:
    """The real trader, one of whose files is told by somebody else."""

    def sabotage(trader: Trader) -> None:
        surface = surface_of(trader, name)
        honest = surface.make

        def make(turn: Turn, view: View) -> dict[str, Any] | None:
            document = honest(turn, view)
            return None if document is None else tell(document, view)

        graft(surface, "make", make)

    return operate(environment, sabotage)


def surface_of(trader: Trader, name: str) -> Surface:
    """The surface of a file. Raises StopIteration when the mutant is older than the trader."""
    return next(each for each in trader.publisher.surfaces if each.name == name)


def forgets_its_date(environment: Mapping[str, str]) -> Trader:
    """diagnostics.json says no longer when it was written: law ``state_files_lawful``.

    Real bugs look like this: a key is renamed where the file is written, and its readers fall back to the file's mtime.
    """

    def sabotage(trader: Trader) -> None:
        graft(surface_of(trader, "diagnostics.json"), "dated", "written")

    return operate(environment, sabotage)


def holds_for_nothing(environment: Mapping[str, str]) -> Trader:
    """What is held for less than a second has an entry price of 0: law ``state_files_lawful``.

    Real bugs look like this: the fill is known before its price is, and nobody waits.
    """

    def tell(document: dict[str, Any], view: View) -> dict[str, Any]:
        young = {each.symbol for each in view.positions if view.ts - each.opened_ts < 1_000}
        return {"positions": [{**row, "entry_price": 0.0} if row["symbol"] in young else row
                              for row in document["positions"]]}

    return rewrite(environment, "positions_state.json", tell)


def forgets_an_entry(environment: Mapping[str, str]) -> Trader:
    """The ledger file leaves out what is short: law ``state_files_agree``.

    Real bugs look like this: a filter that was written for quantities above zero, before they were made absolute.
    """

    def tell(document: dict[str, Any], view: View) -> dict[str, Any]:
        entries = [each for each in document["entries"] if each["side"] == "LONG"]
        return {**document, "entries": entries, "metadata": {**document["metadata"], "entry_count": len(entries)}}

    return rewrite(environment, "positions_ledger.json", tell)


def covers_everything(environment: Mapping[str, str]) -> Trader:
    """Coverage is one and nothing is ever missing: law ``state_files_lawful``.

    Real bugs look like this: the number of levels is divided by itself, because both are called entries.
    """

    def tell(document: dict[str, Any], view: View) -> dict[str, Any]:
        told = document["runtime_diagnostics"]
        covered = {
            **told["exit_pipeline"], "tp_sl_coverage_pct": 1.0, "tp_sl_missing_count": 0, "ledger_registry_mismatch": False,
            "mismatch_breakdown": dict.fromkeys(told["exit_pipeline"]["mismatch_breakdown"], 0),
        }
        return {"runtime_diagnostics": {**told, "exit_pipeline": covered}}

    return rewrite(environment, "diagnostics.json", tell)


def freezes_the_value(environment: Mapping[str, str]) -> Trader:
    """The account's worth is asked for once: the drill that moves money must not see it (``jumped``).

    Real bugs look like this: a cache whose key does not change.
    """

    def sabotage(trader: Trader) -> None:
        honest, first = trader._reading, []

        def reading(turn: Turn, stamp_ms: int) -> View:
            view = honest(turn, stamp_ms)
            if view.nav_usd is not None and not first:
                first.append((view.equity_btc, view.index))
            return view if not first else replace(view, equity_btc=first[0][0], index=first[0][1])

        graft(trader.publisher, "_read", reading)

    return operate(environment, sabotage)


def tells_the_ledger_late(environment: Mapping[str, str]) -> Trader:
    """The ledger file is of the loop before, under today's date: law ``state_files_agree``.

    Real bugs look like this: one file is made in another thread, which is always one loop behind.
    """
    kept: list[dict[str, Any]] = []

    def tell(document: dict[str, Any], view: View) -> dict[str, Any] | None:
        kept.append(document)
        return kept.pop(0) if len(kept) > 1 else None

    return rewrite(environment, "positions_ledger.json", tell)


def counts_no_veto(environment: Mapping[str, str]) -> Trader:
    """Refusals are noted and not counted: the drill that refuses must not see them counted (``counted``).

    Real bugs look like this: the counter sits in the code that was replaced.
    """

    def sabotage(trader: Trader) -> None:
        graft(trader.desk.tally, "veto", lambda ts, code: None)

    return operate(environment, sabotage)


def writes_what_changed(environment: Mapping[str, str]) -> Trader:
    """positions_state.json is written when a position has changed, and not every loop: law ``state_files_fresh``.

    Real bugs look like this: an optimisation; nobody can tell a quiet account from a dead writer any more.
    """
    last: list[dict[Any, Any]] = [{}]

    def tell(document: dict[str, Any], view: View) -> dict[str, Any] | None:
        held = {each.key: each.qty for each in view.positions}
        changed, last[0] = held != last[0], held
        return document if changed else None

    return rewrite(environment, "positions_state.json", tell)


def keeps_quiet_when_killed(environment: Mapping[str, str]) -> Trader:
    """Under Kill nothing is published: law ``state_files_fresh``.

    Real bugs look like this: publishing sits behind the check that ends the loop.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.publisher.tick
        graft(trader.publisher, "tick", lambda turn: None if trader.watch.mode == KILL else honest(turn))

    return operate(environment, sabotage)


def dates_by_the_wall_clock(environment: Mapping[str, str]) -> Trader:
    """Files are dated by whatever the clock says: law ``state_files_never_back``.

    Real bugs look like this: ``time.time()``.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.publisher._read
        graft(trader.publisher, "_read", lambda turn, stamp_ms: honest(turn, turn.now.wall_ms))

    return operate(environment, sabotage)


def writes_in_place(environment: Mapping[str, str]) -> Trader:
    """positions_ledger.json is emptied and written where it stands: law ``state_files_whole``.

    Real bugs look like this: ``open(path, "w")``.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.publisher._publish

        def publish(turn: Turn, surface: Surface, view: View) -> None:
            before = len(turn.out)
            honest(turn, surface, view)
            if surface.name == "positions_ledger.json":
                turn.out[before:] = [Replace(each.file, each.data, ("truncate", "write")) if isinstance(each, Replace) else each
                                     for each in turn.out[before:]]

        graft(trader.publisher, "_publish", publish)

    return operate(environment, sabotage)


def loses_its_levels(environment: Mapping[str, str]) -> Trader:
    """Levels are set by fills alone, and a restart does not know them: the drill that starts again in the dark must not
    find them (``known``).

    Real bugs look like this: a registry in memory, filled by the code that opens positions.
    """

    def sabotage(trader: Trader) -> None:
        exits = trader.exits
        exits.registry.clear()
        exits.recorded.clear()
        exits._told.clear()

        def tick(turn: Turn) -> None:
            exits._record(turn)
            exits._scan(turn)

        graft(exits, "tick", tick)

    return operate(environment, sabotage)


def never_exits(environment: Mapping[str, str]) -> Trader:
    """Levels are kept and told, and nobody compares a price with them: the drill that reaches one sees nothing closed
    (``triggered``).

    Real bugs look like this: the scan runs over a list that is empty since the registry was moved.
    """

    def sabotage(trader: Trader) -> None:
        def scan(turn: Turn) -> None:
            trader.exits.scanned_ts = turn.ts

        graft(trader.exits, "_scan", scan)

    return operate(environment, sabotage)


def never_stops_a_loss(environment: Mapping[str, str]) -> Trader:
    """Targets close and stops do not: drill 17 of the state files must say that nothing was stopped (``stopped``).

    Real bugs look like this: stops are left to the exchange, which was never told of them.
    """
    return _deaf_to(environment, "sl")


def never_takes_a_profit(environment: Mapping[str, str]) -> Trader:
    """Stops close and targets do not: drill 17 of the state files must say that nothing was taken (``taken``).

    Real bugs look like this: a condition that asks for the loss first, and returns.
    """
    return _deaf_to(environment, "tp")


def _deaf_to(environment: Mapping[str, str], level: str) -> Trader:
    def sabotage(trader: Trader) -> None:
        exits, honest = trader.exits, trader.floor.exit

        def close(turn: Turn, name: str, side: str) -> int:
            levels, price = exits.registry.get(f"{name}:{side}"), exits.price(name, turn.ts)
            deaf = levels is not None and price is not None and levels.hit(price) == level
            return 0 if deaf else honest(turn, name, side)

        graft(exits, "close", close)

    return operate(environment, sabotage)
