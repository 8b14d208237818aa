"""Sabotages of what tells whether somebody still lives and keeps up: heartbeat, loop tick, and how late it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import structs

from system_under_test.machine import Request, Start
from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader, make
from system_under_test.trader.desk import _restored
from system_under_test.trader.ledger import History
from system_under_test.trader.policy import Snapshot
from system_under_test.trader.pulse import Pulse
from system_under_test.trader.turn import Turn
from system_under_test.trader.watch import DATA_STALE


def _seen_otherwise(environment: Mapping[str, str], other: Callable[[Snapshot], Snapshot]) -> Trader:
    """The guard is shown another snapshot than was taken, wherever it asks."""

    def sabotage(trader: Trader) -> None:
        honest = trader.watch.snapshot

        def snapshot(turn: Turn) -> Snapshot:
            return other(honest(turn))

        graft(trader.watch, "snapshot", snapshot)
        graft(trader.desk, "_snapshot", snapshot)

    return operate(environment, sabotage)


def is_fed_by_anybody(environment: Mapping[str, str]) -> Trader:
    """Every question counts as the watchdog's: drill 19 must say that nobody missed it (``unconfirmed``).

    Real bugs look like this: the dashboard polls the health page, and with it keeps a dead watchdog alive.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader._requested

        def requested(turn: Turn, request: Request) -> None:
            trader.watch.heartbeat.beat(turn.ts)
            honest(turn, request)

        graft(trader, "_requested", requested)

    return operate(environment, sabotage)


def kills_on_one_witness(environment: Mapping[str, str]) -> Trader:
    """A silent watchdog is Kill, whatever the loop does: drill 19 must say that Kill was seen (``not_killed``).

    Real bugs look like this: the watchdog is the kill switch, and a watchdog that crashes sells the book.
    """
    return _seen_otherwise(environment, lambda seen: structs.replace(seen, loop_tick_ts_ms=seen.heartbeat_ts_ms))


def asks_one_witness(environment: Mapping[str, str]) -> Trader:
    """The loop is always taken to run: drill 19 must say that both were silent and nobody killed (``killed``).

    Real bugs look like this: the tick is stamped before it is asked how old it is.
    """
    return _seen_otherwise(environment, lambda seen: structs.replace(seen, loop_tick_ts_ms=seen.now_ms))


def believes_the_first_sign(environment: Mapping[str, str]) -> Trader:
    """After any silence the first sign is enough: drill 19 must say that Kill was never seen (``killed``).

    Real bugs look like this: everything that was asked meanwhile is answered first, and all looks well again.
    """

    def sabotage(trader: Trader) -> None:
        def gullible(pulse: Pulse) -> None:
            graft(pulse, "beat", lambda ts: setattr(pulse, "ts", ts))

        gullible(trader.watch.heartbeat)
        gullible(trader.watch.loop)

    return operate(environment, sabotage)


def wakes_up_trusting(environment: Mapping[str, str]) -> Trader:
    """However late, the feed is taken for good: drill 19 must say that nothing was latched (``latched``).

    Real bugs look like this: staleness is measured from the last message that was handled, and many have just been.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.watch.lagged
        most = trader.settings.ws_data_stale_ms

        def lagged(turn: Turn, lag_ms: int) -> None:
            if lag_ms > most:
                trader.market.last_ts = turn.ts
            honest(turn, min(lag_ms, most))

        graft(trader.watch, "lagged", lagged)

    return operate(environment, sabotage)


def is_never_late(environment: Mapping[str, str]) -> Trader:
    """A late turn is a turn like any other: drill 19 must say that the risk state never told of it (``degraded``).

    Real bugs look like this: the loop measures how long its work takes, and not how long it waited.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.watch.lagged

        def lagged(turn: Turn, lag_ms: int) -> None:
            honest(turn, min(lag_ms, trader.settings.loop_lag_noted_ms))
            if lag_ms > trader.settings.ws_data_stale_ms:
                trader.watch.set_latch(turn, DATA_STALE)

        graft(trader.watch, "lagged", lagged)

    return operate(environment, sabotage)


def takes_slow_for_normal(environment: Mapping[str, str]) -> Trader:
    """Answers that take seconds change nothing: drill 21 must say that no shelter was sought (``sheltered``).

    Real bugs look like this: the latency is taken where the answer is handled, by a clock that stood still with it.
    """

    def sabotage(trader: Trader) -> None:
        bunker = trader.watch.bunker
        honest = bunker.http
        graft(bunker, "http", lambda now_ms, latency_ms: honest(now_ms, 1.0))
        graft(bunker, "timeout", lambda now_ms: honest(now_ms, 1.0))

    return operate(environment, sabotage)


def lags_in_silence(environment: Mapping[str, str]) -> Trader:
    """A late turn is acted on and not written down: drill 21 must say that no note tells of it (``noticed``).

    Real bugs look like this: the log line is at a level that production does not write.
    """

    def sabotage(trader: Trader) -> None:
        watch = trader.watch
        honest = watch.lagged

        def lagged(turn: Turn, lag_ms: int) -> None:
            before = len(turn.out)
            honest(turn, lag_ms)
            turn.out[before:] = [each for each in turn.out[before:] if getattr(each, "kind", None) != "lagging"]

        graft(watch, "lagged", lagged)

    return operate(environment, sabotage)


def forgets_what_was_under_way(environment: Mapping[str, str]) -> Trader:
    """What had no answer when it died is not known after the restart: drill 20 must say that strange orders were found besides
    (``latched``).

    Real bugs look like this: what is under way lies in memory, and is written down when the process ends in order.
    """
    trader = make(environment)
    honest = trader._build

    def build(turn: Turn, start: Start, history: History) -> None:
        for intent_id in [id for id, known in history.intents.items() if not _restored(known).terminal]:
            del history.intents[intent_id]
        honest(turn, start, history)

    graft(trader, "_build", build)
    return trader
