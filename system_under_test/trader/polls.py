"""What is asked again and again over REST, and what the answers mean.

The account (margin, limits, equity), the exchange's clock and state are asked in every weather; tickers and
instruments are data, and data is the first thing to be shed under a rate limit. The tickers of REST stand beside
those of the stream, so that prices are known while the stream is silent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from system_under_test.machine import Replace
from system_under_test.trader.breaker import DATA
from system_under_test.trader.gates import Gates
from system_under_test.trader.limits import LaunchLimits
from system_under_test.trader.market import Market
from system_under_test.trader.report.metrics import Metrics
from system_under_test.trader.settings import Settings
from system_under_test.trader.turn import Turn
from system_under_test.trader.venue import MAINTENANCE_CODES, TOO_MANY_REQUESTS, Answer, Lost, Venue
from system_under_test.trader.watch import Watch

FEES_FILE = "fees.json"
AGAIN_MS = 1_000

DELTA_OFF_BTC = 0.1
"""So far may the exchange's net delta of the account lie from ours (two legs that are under way, greeks of two moments)
before the books are compared at once instead of at their next time."""

LIMITED_AGAIN_MS = 5_000
"""A question that was refused for being one too many is not asked again soon."""

EQUITY_MIN = 1e-9
"""Margin use is measured against at least this much equity: an account of nothing is in use, not unused."""


@dataclass(slots=True)
class _Poll:
    name: str
    every_ms: int
    data: bool
    due_ts: int = 0


class Polls:
    """The questions and their next times."""

    def __init__(self, settings: Settings, *, venue: Venue, market: Market, watch: Watch, gates: Gates,
                 limits: LaunchLimits, metrics: Metrics) -> None:
        self._settings, self._venue, self._market, self._watch = settings, venue, market, watch
        self._gates, self._limits, self._metrics = gates, limits, metrics
        self._polls = (
            _Poll("time", settings.poll_time_ms, False),
            _Poll("account", settings.poll_account_ms, False),
            _Poll("status", min(settings.poll_account_ms, settings.exchange_health_poll_s * 1_000), False),
            _Poll("instruments", settings.poll_instruments_ms, True),
            _Poll("ticker", settings.poll_ticker_ms, True),
        )
        self._limits_ts: int | None = None
        self._ticker_turn = 0
        self.equity: float | None = None
        """what the account is worth in coins, as it was told last in this life"""
        self.equity_ts: int | None = None
        self.held: Callable[[], tuple[str, ...]] = tuple
        self.net_delta: Callable[[], float | None] = lambda: None

    def tick(self, turn: Turn) -> None:
        """Ask what is due."""
        for poll in self._polls:
            if turn.ts < poll.due_ts:
                continue
            if poll.data and self._shed(turn, poll):
                continue
            if self._ask(turn, poll.name):
                poll.due_ts = turn.ts + poll.every_ms

    def _shed(self, turn: Turn, poll: _Poll) -> bool:
        if poll.name == "instruments" and self._market.instruments_ts is None:
            return False  # a life that begins in a storm must know them, or it could not even close
        if self._watch.breaker.refuses(DATA, turn.ts) is None:
            return False
        poll.due_ts = turn.ts + poll.every_ms
        self._metrics.add("shed_total", 1, **{"class": "DATA"})
        turn.note("shed", None, what=poll.name, **{"class": "DATA"})
        return True

    def _ask(self, turn: Turn, name: str) -> bool:
        rest = self._venue.rest
        if name == "time":
            return rest(turn, "public/get_time", {}, ("poll", name))
        if name == "status":
            return rest(turn, "public/status", {}, ("poll", name))
        if name == "account":
            params = {"currency": self._settings.currency, "extended": True}
            return rest(turn, "private/get_account_summary", params, ("poll", name))
        if name == "instruments":
            return rest(turn, "public/get_instruments", {"currency": self._settings.currency}, ("poll", name))
        names = tuple(dict.fromkeys((self._settings.perpetual, *self._market.watched, *self.held())))
        self._ticker_turn += 1
        instrument = names[self._ticker_turn % len(names)]
        return rest(turn, "public/ticker", {"instrument_name": instrument}, ("poll", name, instrument))

    def fees_remembered(self, value: bytes | None) -> None:
        """When an earlier life last confirmed the fees (AT-031: their age survives a restart)."""
        try:
            known = orjson.loads(value) if value is not None else {}
            confirmed = known.get("confirmed_ts_ms")
        except (orjson.JSONDecodeError, AttributeError):
            return
        if isinstance(confirmed, int) and not isinstance(confirmed, bool):
            self._gates.fee_ts = self._watch.fee_ts = confirmed

    def on_lost(self, turn: Turn, lost: Lost) -> None:
        """No answer. Failing to learn the limits counts."""
        self._again(turn, lost.tag[1])
        if lost.tag[1] == "account":
            self._limits_failed(turn)

    def _again(self, turn: Turn, name: str, after_ms: int = AGAIN_MS) -> None:
        """What was not answered is asked again soon, however rarely it is asked otherwise."""
        for poll in self._polls:
            if poll.name == name:
                poll.due_ts = min(poll.due_ts, turn.ts + after_ms)

    def _limits_failed(self, turn: Turn) -> None:
        if self._limits_ts is None or turn.ts - self._limits_ts >= self._settings.poll_limits_ms:
            self._limits_ts = turn.ts
            self._watch.causes.limits(False, turn.ts)

    def on_answer(self, turn: Turn, answer: Answer) -> None:
        """What an answer means; one that cannot be read is none."""
        name = answer.tag[1]
        if answer.code is not None:
            self._again(turn, name, LIMITED_AGAIN_MS if answer.code == TOO_MANY_REQUESTS else AGAIN_MS)
            if name == "account":
                self._limits_failed(turn)
            if name == "status" and answer.code not in MAINTENANCE_CODES:
                self._watch.cortex.health(turn.ts, False)
            return
        try:
            self._take(turn, name, answer)
        except (KeyError, TypeError, ValueError, AttributeError) as why:
            self._again(turn, name)
            turn.note("unreadable", None, what=name, why=f"{type(why).__name__} {why}")

    def _take(self, turn: Turn, name: str, answer: Answer) -> None:
        result = answer.result
        if name == "time":
            self._time(turn, answer.asked_mono, int(result))
        elif name == "account":
            self._account(turn, result)
        elif name == "status":
            self._watch.cortex.health(turn.ts, True)
            self._watch.platform(turn, result["locked"])
        elif name == "instruments":
            self._instruments(turn, result)
        else:
            self._market.on_ticker(answer.tag[2], result, turn.ts)

    def _time(self, turn: Turn, asked_mono: int, exchange_ms: int) -> None:
        if self._watch.clock.sample(asked_mono, turn.mono, exchange_ms):
            anchor = turn.ts - turn.mono
            self._market.exchange_offset = exchange_ms - ((asked_mono + turn.mono) // 2 + anchor)

    def _account(self, turn: Turn, result: dict[str, Any]) -> None:
        margin, equity = float(result["maintenance_margin"]), float(result["equity"])
        if not (math.isfinite(margin) and math.isfinite(equity)):
            raise ValueError("margin is not finite")
        self._watch.mm_util = self._gates.mm_util = margin / max(equity, EQUITY_MIN)
        self._watch.mm_util_ts = self.equity_ts = turn.ts
        self.equity = equity
        if self._market.index is not None:
            row = self._limits.equity(turn.ts, equity, self._market.index)
            if row is not None:
                self._watch.fact(turn, row)
        self._compare(turn, result.get("delta_total"))
        matching = result["limits"]["matching_engine"]["trading"]["total"]
        self._watch.breaker.limits(float(matching["rate"]), float(matching["burst"]), turn.ts)
        self._watch.causes.limits(True, turn.ts)
        self._limits_ts = turn.ts

    def _compare(self, turn: Turn, theirs: object) -> None:
        """An account whose delta is far from ours holds something that we do not know: only comparing tells what."""
        ours = self.net_delta()
        if isinstance(theirs, int | float) and ours is not None and abs(theirs - ours) > DELTA_OFF_BTC:
            turn.note("delta_off", None, theirs=theirs, ours=round(ours, 8))
            self._watch.ask_reconciliation(turn.ts)

    def _instruments(self, turn: Turn, result: list[dict[str, Any]]) -> None:
        unusable = self._market.on_instruments(result, turn.ts)
        if unusable:
            turn.note("unreadable", None, what="instruments", why=", ".join(unusable[:5]))
        self._gates.fee_ts = self._watch.fee_ts = turn.ts
        turn.send(Replace(FEES_FILE, orjson.dumps({"confirmed_ts_ms": turn.ts})))
