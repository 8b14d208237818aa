"""Sabotages of the emergency endpoint and of what it begins."""

from __future__ import annotations

from collections.abc import Mapping

from system_under_test.machine import Request, Response
from system_under_test.mutants.surgery import graft, operate
from system_under_test.trader import Trader
from system_under_test.trader.control import Answer
from system_under_test.trader.turn import Turn
from system_under_test.trader.venue import ORDERS

ONE_SECOND_MS = 1_000


def needs_no_token(environment: Mapping[str, str]) -> Trader:
    """Whoever presses is believed: drill 16 must say that a call without the token was taken (``keyless_refused``), and
    that it had an effect (``no_effect``).

    Real bugs look like this: the check sits in front of a proxy that the drill, like an intruder, does not use.
    """

    def sabotage(trader: Trader) -> None:
        def emergency(request: Request) -> Answer:
            return Answer(Response(request.conn, request.id, 200, (), b'{"taken":true}'), "emergency")

        graft(trader._control, "_emergency", emergency)

    return operate(environment, sabotage)


def says_taken(environment: Mapping[str, str]) -> Trader:
    """The call is answered with 200, and that was it: drill 16 must say that nothing stopped (``stopped``).

    Real bugs look like this: the handler puts a message on a queue that nobody reads any more.
    """

    def sabotage(trader: Trader) -> None:
        emergency = trader.watch.emergency
        graft(emergency, "endpoint", lambda now_ms: {"kind": "emergency", "until_ts": now_ms})

    return operate(environment, sabotage)


def hurries(environment: Mapping[str, str]) -> Trader:
    """The cooldown is a second: drill 16 must say that it was over too soon (``stopped``).

    Real bugs look like this: a key of the policy ends in _s, and somebody took it for milliseconds.
    """

    def sabotage(trader: Trader) -> None:
        emergency = trader.watch.emergency
        honest = emergency.endpoint

        def endpoint(now_ms: int) -> dict[str, object]:
            row = honest(now_ms)
            emergency._until_ms = now_ms + ONE_SECOND_MS
            return row

        graft(emergency, "endpoint", endpoint)

    return operate(environment, sabotage)


def never_lets_go(environment: Mapping[str, str]) -> Trader:
    """Each look at the emergency is taken for a new cause: drill 16 must say that it was not over in time (``over``).

    Real bugs look like this: the watchdog reads the state by calling the endpoint.
    """

    def sabotage(trader: Trader) -> None:
        emergency = trader.watch.emergency
        honest = emergency.active

        def active(now_ms: int, *, safe: bool) -> bool:
            if honest(now_ms, safe=safe):
                emergency.endpoint(now_ms)
                return True
            return False

        graft(emergency, "active", active)

    return operate(environment, sabotage)


def forgets_the_press(environment: Mapping[str, str]) -> Trader:
    """A restart ends what an operator asked for: drill 16 must say that it did not survive (``survives``).

    Real bugs look like this: the first reflex in an emergency is to restart, and the second lever undoes the first.
    """

    def sabotage(trader: Trader) -> None:
        trader.watch.emergency._until_ms = None

    return operate(environment, sabotage)


def cancels_everything(environment: Mapping[str, str]) -> Trader:
    """Outside Active one call cancels all that rests, reducing or not, ours or not: drill 16 must say that a reducing
    order was taken off (``reducers_stay``).

    Real bugs look like this: the venue has one method for it, and it works every time.
    """

    def sabotage(trader: Trader) -> None:
        next_ts = [0]

        def cancel_openers(turn: Turn) -> None:
            if turn.ts >= next_ts[0]:
                next_ts[0] = turn.ts + ONE_SECOND_MS
                trader.venue.call(turn, ORDERS, "private/cancel_all", {}, ("cancel_all",), ONE_SECOND_MS)

        graft(trader.desk, "cancel_openers", cancel_openers)

    return operate(environment, sabotage)
