"""Sabotages of the status: a trader that does the right thing and says something else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from system_under_test.machine import Now, Value
from system_under_test.mutants.surgery import graft, operate, retell
from system_under_test.trader import Trader
from system_under_test.trader.latch import RESTART
from system_under_test.trader.turn import Turn


def lies_in_owner_view(environment: Mapping[str, str]) -> Trader:
    """The owner is told what was true while all was well: drill 2 must say that a document breaks its contract
    (law ``status_lawful``).

    Real bugs look like this: the text for people is made elsewhere, from another source, a little earlier.
    """
    well: dict[str, Any] = {}

    def tell(trader: Trader, document: dict[str, Any]) -> dict[str, Any]:
        if document["trading_mode"] == "Active":
            well.update(document["owner_view"])
        return {**document, "owner_view": well or document["owner_view"]}

    return retell(environment, tell)


def hides_a_reason(environment: Mapping[str, str]) -> Trader:
    """Once it has been Active, only the first reason is told: drill 1 must say that a document breaks its contract
    (law ``status_lawful``).

    Real bugs look like this: the first rule that matches returns.
    """
    been_active: list[bool] = []

    def tell(trader: Trader, document: dict[str, Any]) -> dict[str, Any]:
        been_active.extend([True] if document["trading_mode"] == "Active" else [])
        return {**document, "mode_reasons": document["mode_reasons"][:1]} if been_active else document

    return retell(environment, tell)


def reorders_reasons(environment: Mapping[str, str]) -> Trader:
    """Reasons are told backwards: drill 7 must say that one stands in the wrong place (law ``reasons_pure_and_ordered``).

    Real bugs look like this: the newest reason is put in front, because it is the news.
    """
    return retell(environment, lambda trader, document: {**document, "mode_reasons": document["mode_reasons"][::-1]})


def freezes_a_time_stamp(environment: Mapping[str, str]) -> Trader:
    """The loop's time stamp stands still while opening is blocked: drill 3 must say that it stands behind
    (law ``loop_ticks_on``).

    Real bugs look like this: the stamp is set where orders are sent, and nothing is sent.
    """
    last: dict[str, Any] = {}

    def tell(trader: Trader, document: dict[str, Any]) -> dict[str, Any]:
        if document["trading_mode"] == "Active" or not last:
            last["loop_tick_last_ts_ms"] = document["loop_tick_last_ts_ms"]
        return {**document, **last}

    return retell(environment, tell)


def serves_a_cache(environment: Mapping[str, str]) -> Trader:
    """The document of the last good moment is served for ever: drill 2 must say that the latch was not seen
    (``latched``).

    Real bugs look like this: a cache in front of the status, refreshed by what has stopped.
    """
    kept: dict[str, Any] = {}

    def tell(trader: Trader, document: dict[str, Any]) -> dict[str, Any]:
        if document["trading_mode"] == "Active" or not kept:
            kept.clear()
            kept.update(document)
        return dict(kept)

    return retell(environment, tell)


def resets_a_counter(environment: Mapping[str, str]) -> Trader:
    """The failures of the ledger are told since the last question: drill 3 must say that a counter fell
    (law ``counters_monotone``).

    Real bugs look like this: a counter that is read and cleared, as some metric libraries do.
    """
    told = [0]

    def tell(trader: Trader, document: dict[str, Any]) -> dict[str, Any]:
        total = document["wal_queue_enqueue_failures"]
        since, told[0] = total - told[0], total
        return {**document, "wal_queue_enqueue_failures": since}

    return retell(environment, tell)


def tells_a_secret(environment: Mapping[str, str]) -> Trader:
    """Its environment gets into the log: every drill must say that a secret was found (law ``no_secret_leaked``).

    Real bugs look like this: the configuration is logged at start, so that support can see it.
    """

    class Talkative(Trader):
        def _start(self, now: Now, start: Any) -> tuple[Value, ...]:
            out = super()._start(now, start)
            turn = Turn(now, 0)
            turn.note("configuration", None, **dict(environment))
            return (*out, *turn.out)

    return Talkative(environment)


def goes_quiet(environment: Mapping[str, str]) -> Trader:
    """Active again after a latch, it drops every wish without a word: drill 2 must say that a wish was neither sent nor
    refused (law ``active_serves_wishes``), and that no order was opened any more (``converge``).

    Real bugs look like this: a task died of an exception, and the rest of the process did not.
    """

    def sabotage(trader: Trader) -> None:
        floor, metrics = trader.floor, trader.metrics
        honest, latched = floor.wish, []

        def wish(turn: Turn, each: Any) -> None:
            latch = trader.watch.latch
            if latch.blocked and RESTART not in latch.codes:
                latched.append(turn.ts)
            if not latched or latch.blocked:
                honest(turn, each)
            else:
                metrics.add("wishes_total", 1, **{"class": "OPEN"})
                turn.note("wish", None, group_id=each.wish_id, wish=each.kind, **{"class": "OPEN"})

        graft(floor, "wish", wish)

    return operate(environment, sabotage)


def names_another_policy(environment: Mapping[str, str]) -> Trader:
    """The configuration's digest is one that nobody approved: drill 2 must say that it is not the one of the policy in force
    (law ``status_says_who_it_is``).

    Real bugs look like this: the digest is taken of the file's default and not of what was read.
    """
    return retell(environment, lambda trader, document: {**document, "runtime_config_hash": "0" * 64})


def is_another_build_each_time(environment: Mapping[str, str]) -> Trader:
    """Who answers changes from one document to the next: drill 2 must say that the build changed within one life
    (law ``status_says_who_it_is``).

    Real bugs look like this: the build's name is made of the time at which it is asked for.
    """
    def tell(trader: Trader, document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "build_id": f"{document['build_id']}-{document['loop_tick_last_ts_ms']}"}

    return retell(environment, tell)


def hides_a_code(environment: Mapping[str, str]) -> Trader:
    """Of several codes of the latch only the first is told: drill 9 must say that the ledger holds another
    (law ``latch_codes_told``).

    Real bugs look like this: the field of a single code has become a list, and whoever fills it has not noticed.
    """
    def tell(trader: Trader, document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "open_permission_reason_codes": document["open_permission_reason_codes"][:1]}

    return retell(environment, tell)
