"""Sabotages of the rate-limit breaker."""

from __future__ import annotations

from collections.abc import Mapping

from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader
from system_under_test.trader.breaker import DATA, HEDGE, NORMAL, OPEN
from system_under_test.trader.turn import Turn


def shrugs_off_429(environment: Mapping[str, str]) -> Trader:
    """A 429 is taken for any other failed request: drill 10 must say that the mode did not follow (``degraded``).

    Real bugs look like this: the HTTP library raises for a status, and the code around it catches and retries.
    """

    def sabotage(trader: Trader) -> None:
        honest = trader.watch.limited

        def limited(turn: Turn, link: str, status: int) -> None:
            if status != 429:
                honest(turn, link, status)

        graft(trader.watch, "limited", limited)

    return operate(environment, sabotage)


def sheds_nothing(environment: Mapping[str, str]) -> Trader:
    """Questions about data go on in a brownout: drill 10 must say that nothing was shed (``shed``).

    Real bugs look like this: the poller has a client of its own, which nobody told about the limit.
    """

    def sabotage(trader: Trader) -> None:
        breaker = trader.breaker
        honest = breaker.refuses
        graft(breaker, "refuses", lambda priority, now_ms, cost=1.0: None if priority == DATA
              else honest(priority, now_ms, cost))

    return operate(environment, sabotage)


def sheds_the_wrong_end(environment: Mapping[str, str]) -> Trader:
    """In a brownout closing is put off, and opening is not: drill 10 must say that a wish to reduce led to
    nothing (law ``reducing_always_possible``).

    Real bugs look like this: priorities compared the wrong way round, which shows only when there is too little.
    """

    def sabotage(trader: Trader) -> None:
        breaker = trader.breaker
        honest = breaker.refuses

        def refuses(priority: int, now_ms: int, cost: float = 1.0) -> str | None:
            if breaker.state == NORMAL:
                return honest(priority, now_ms, cost)
            return "RateLimitBrownout" if priority <= HEDGE or priority == DATA else None

        graft(breaker, "refuses", refuses)

    return operate(environment, sabotage)


def counts_ends_as_limits(environment: Mapping[str, str]) -> Trader:
    """An ended session is counted as a 429: drill 7 must say that its 10028 were not counted (``counted``).

    Real bugs look like this: both mean *too many requests*, so they share a counter.
    """

    def sabotage(trader: Trader) -> None:
        graft(trader.breaker, "answer_10028", trader.breaker.answer_429)

    return operate(environment, sabotage)


def opens_in_brownout(environment: Mapping[str, str]) -> Trader:
    """Opening is not refused for the rate limit: drill 10 must say that nothing was refused for it (``refused``).

    Real bugs look like this: the limit is asked about by the client library, after the decision to send.
    """

    def sabotage(trader: Trader) -> None:
        breaker = trader.breaker
        honest = breaker.refuses
        graft(breaker, "refuses", lambda priority, now_ms, cost=1.0: None if priority == OPEN
              else honest(priority, now_ms, cost))

    return operate(environment, sabotage)


def forgets_the_kill(environment: Mapping[str, str]) -> Trader:
    """A restart begins with no ended sessions: drill 14 must say that the Kill did not survive it (``survives``).

    Real bugs look like this: the counter lives in memory, and so does the Kill that it had confirmed.
    """

    def sabotage(trader: Trader) -> None:
        breaker = trader.breaker
        breaker.state, breaker._confirmed = NORMAL, 0
        breaker._10028.clear()

    return operate(environment, sabotage)


def takes_any_signature(environment: Mapping[str, str]) -> Trader:
    """Who signs for the ended session has signed for the Kill: drill 14 must say that it ended too soon (``survives``).

    Real bugs look like this: one list of codes that wait, and any line of it clears them all.
    """

    def sabotage(trader: Trader) -> None:
        latch = trader.watch.latch
        honest = latch.acknowledge

        def acknowledge(code: str) -> None:
            honest(code)
            trader.breaker.acknowledge()

        graft(latch, "acknowledge", acknowledge)

    return operate(environment, sabotage)


def stops_counting(environment: Mapping[str, str]) -> Trader:
    """Refusals are counted up to three: drill 14 must say that the Kill was not confirmed.

    Real bugs look like this: a ring of three, because three was the threshold when it was written.
    """

    def sabotage(trader: Trader) -> None:
        breaker = trader.breaker
        honest = breaker._count
        graft(breaker, "_count", lambda times, now_ms: min(3, honest(times, now_ms)))

    return operate(environment, sabotage)


def never_calms_down(environment: Mapping[str, str]) -> Trader:
    """A brownout is for ever: drill 10 must say that it did not come back (``converge``).

    Real bugs look like this: every question that is asked to see whether it is over counts as a new complaint.
    """

    def sabotage(trader: Trader) -> None:
        graft(trader.breaker, "tick", lambda now_ms: False)

    return operate(environment, sabotage)
