"""Market data: follows one ticker of the exchange and says how old the last one is.

A tick's age is measured, not believed. On each connection the exchange is asked what time it is; its clock is carried on by
our monotonic one from the moment of asking, so an age is never too small, whatever the round trip took: a feed that comes in
time is fresh, one that runs ten seconds late is ten seconds old, and no step of our wall clock makes a difference. A feed
that has shown nothing fresh for three times the threshold is dialled anew, and the time asked again: until then one that is
only late is heard, and said to be late.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from system_under_test.machine import Close, Frame, Note, Now, Open, Value
from system_under_test.services.service import Service
from system_under_test.services.status import SKEW_MS_MAX
from system_under_test.services.switch import document

LINK = "ops_feed"
CLIENT = "marketdata/ops_feed"
CHANNEL = "ticker.BTC-PERPETUAL.agg2"
FRAME_BYTES_MAX = 65_536
BACKOFF_MIN_MS, BACKOFF_MAX_MS = 500, 2_000
TIME = 2
"""The id of the question what time it is."""


class Marketdata(Service):
    """One WebSocket connection at a time."""

    kind = "marketdata"
    control = "marketdata_control"

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__(environment)
        self._generation = 0
        self._up = self._dialling = False
        self._dial_at_ms = self._dialled_ms = self._fresh_ms = 0
        self._backoff_ms = BACKOFF_MIN_MS
        self._asked_ms: int | None = None
        self._exchange: int | None = None
        """the exchange's clock minus our monotonic one, at most"""
        self._tick: tuple[int, int] | None = None
        """the last tick's time by the exchange's clock, and the clock it is to be compared with"""

    @property
    def _conn(self) -> str:
        return f"{LINK}#{self._generation}"

    def tick_age_ms(self, now: Now) -> int | None:
        return None if self._tick is None else now.mono_ms + self._tick[1] - self._tick[0]

    def work(self, now: Now) -> list[Value]:
        if not self._up and not self._dialling:
            return self._dial(now) if now.mono_ms >= self._dial_at_ms else []
        if self._up and now.mono_ms - self._fresh_ms > 3 * self.limits.marketdata_stale_threshold_s * 1_000:
            return [Close(self._conn, "nothing fresh"), *self._lost(now, "nothing fresh")]
        if self._up and self._exchange is None and self._asked_ms is None:
            return self._ask_time(now)
        return []

    def other(self, now: Now, value: Value) -> list[Value]:
        match value:
            case Open() if value.conn == self._conn:
                return self._opened(now)
            case Frame() if value.conn == self._conn and len(value.data) <= FRAME_BYTES_MAX:
                self._read(now, value.data)
            case Close() if value.conn == self._conn:
                return self._lost(now, value.why)
        return []

    def _dial(self, now: Now) -> list[Value]:
        self._generation += 1
        self._dialling = True
        return [Open(self._conn)]

    def _opened(self, now: Now) -> list[Value]:
        self._up, self._dialling, self._fresh_ms = True, False, now.mono_ms
        return [_call(self._conn, 1, "public/hello", {"client_name": CLIENT, "client_version": "1"}), *self._ask_time(now),
                _call(self._conn, 3, "public/subscribe", {"channels": [CHANNEL]}),
                Note("feed", None, {"event": "up", "generation": self._generation})]

    def _ask_time(self, now: Now) -> list[Value]:
        self._asked_ms = now.mono_ms
        return [_call(self._conn, TIME, "public/get_time", {})]

    def _lost(self, now: Now, why: str) -> list[Value]:
        """It is down. The next dial waits, and longer each time until something fresh has come."""
        was_up, self._up, self._dialling = self._up, False, False
        self._asked_ms = self._exchange = None
        self._dial_at_ms = now.mono_ms + self._backoff_ms
        self._backoff_ms = min(2 * self._backoff_ms, BACKOFF_MAX_MS)
        self._generation += 1  # whatever that connection still brings is not listened to
        return [Note("feed", None, {"event": "down", "why": why[:200]})] if was_up else []

    def _read(self, now: Now, data: bytes) -> None:
        raw = document(data)
        if raw is None:
            return
        if raw.get("id") == TIME:
            self._told_time(raw.get("result"))
            return
        news = raw.get("params")
        if not isinstance(news, dict) or news.get("channel") != CHANNEL or not isinstance(news.get("data"), dict):
            return
        at_ms = news["data"].get("timestamp")
        if _is_time(at_ms) and self._exchange is not None:
            self._tick = (at_ms, self._exchange)
            age_ms = self.tick_age_ms(now) or 0
            if -SKEW_MS_MAX <= age_ms <= self.limits.marketdata_stale_threshold_s * 1_000:
                self._fresh_ms, self._backoff_ms = now.mono_ms, BACKOFF_MIN_MS

    def _told_time(self, at_ms: object) -> None:
        """What the exchange's clock says; a refusal is asked again with the next beat."""
        if isinstance(at_ms, int) and _is_time(at_ms) and self._asked_ms is not None:
            self._exchange = at_ms - self._asked_ms
        self._asked_ms = None


def _is_time(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**53


def _call(conn: str, id: int, method: str, params: Mapping[str, object]) -> Frame:
    return Frame(conn, orjson.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))


def make(environment: Mapping[str, str]) -> Marketdata:
    """The service of market data. Raises ValueError where the policy lacks what it needs."""
    return Marketdata(environment)
