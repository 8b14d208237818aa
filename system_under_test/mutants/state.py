"""Sabotages of how the trader writes its state files, whatever they say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from msgspec import structs

from system_under_test.machine import Now, Replace, Value
from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader, make
from system_under_test.trader.report import drawdown
from system_under_test.trader.turn import Turn

FOLDER = "state/"


def _outgoing(environment: Mapping[str, str], change: Callable[[Now, Replace], Replace]) -> Trader:
    """The real trader; what it writes into the folder of state files passes through other hands."""
    trader = make(environment)
    honest = trader.handle

    def handle(now: Now, value: Value) -> tuple[Value, ...]:
        return tuple(change(now, each) if isinstance(each, Replace) and each.file.startswith(FOLDER) else each
                     for each in honest(now, value))

    graft(trader, "handle", handle)
    return trader


def _retold(environment: Mapping[str, str], tell: Callable[[Now, dict[str, Any]], dict[str, Any]]) -> Trader:
    return _outgoing(environment, lambda now, value: structs.replace(
        value, data=orjson.dumps(tell(now, orjson.loads(value.data)))))


def writes_in_place(environment: Mapping[str, str]) -> Trader:
    """Files are emptied and written where they stand: drill 1 must say so (law ``state_files_whole``).

    Real bugs look like this: the helper that replaces files atomically is used by all but one of the callers.
    """
    return _outgoing(environment, lambda now, value: structs.replace(value, plan=("truncate", "write_half", "write")))


def forgets_the_time(environment: Mapping[str, str]) -> Trader:
    """Documents without a time of their own: drill 1 must say that they break their contract (law
    ``state_files_lawful``).

    Real bugs look like this: readers take the time of the file from the file system, until somebody copies it.
    """
    return _retold(environment, lambda now, told: {
        key: value for key, value in told.items() if key not in ("updated_ts", "updated_at")})


def dates_by_the_wall(environment: Mapping[str, str]) -> Trader:
    """The wall clock is believed, wherever it goes: drill 5 must say that files went back in time (law
    ``state_files_never_back``).

    Real bugs look like this: ``time.time()``.
    """
    return _retold(environment, lambda now, told: {
        key: now.wall_ms / 1_000 if key in ("updated_ts", "updated_at") else value for key, value in told.items()})


def forgets_its_lives(environment: Mapping[str, str]) -> Trader:
    """Each life counts its writes as if it were the first: drill 1 must say that the stamps went back (law
    ``state_files_one_writer``).

    Real bugs look like this: a number of the process lies in memory, and nobody can tell two processes apart.
    """
    return _retold(environment, lambda now, told: {**told, "writer": {**told["writer"], "boot": 1}})


def gives_up_when_full(environment: Mapping[str, str]) -> Trader:
    """A write that fails is waited for: drill 3 must say that no file was written again (``again``).

    Real bugs look like this: the flag that a write is under way is cleared where it succeeds.
    """

    def sabotage(trader: Trader) -> None:
        publisher = trader.publisher
        honest = publisher.failed

        def failed(turn: Turn, file: str, why: str) -> bool:
            waited = publisher._waiting.get(file)
            ours = honest(turn, file, why)
            if waited is not None:
                publisher._waiting[file] = waited
            return ours

        graft(publisher, "failed", failed)

    return operate(environment, sabotage)


def keeps_its_peak_in_a_report(environment: Mapping[str, str]) -> Trader:
    """The highest value is read back from the last report alone: drill 2 must say that a loss was forgiven when that was
    gone (``unforgiven``).

    Real bugs look like this: what is written for readers becomes the only memory, until somebody empties the folder.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.risk.restore
        graft(trader.risk, "restore", lambda files, nav: honest(
            {name: data for name, data in files.items() if name != drawdown.FILE}, nav))

    return operate(environment, sabotage)
