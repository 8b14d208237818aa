"""A feeder and a listener: real machines with as little in them as a feed can have."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from system_under_test.machine import Append, Close, Exit, Frame, Now, Open, Start, Stop, Timer, Value

TICK_MS, REDIAL_MS = 100, 10


class Feeder:
    """Tells every connection the price, ten times a second."""

    def __init__(self) -> None:
        self._conns: list[str] = []
        self._seq = 0

    def handle(self, now: Now, value: Value) -> tuple[Value, ...]:
        if isinstance(value, Timer):
            self._seq += 1
            price = 100_000 + (self._seq * 7_919) % 101 - 50
            data = orjson.dumps({"channel": "ticker.BTC-PERPETUAL", "seq": self._seq, "at": now.wall_ms, "price": price})
            return (Timer("tick", now.mono_ms + TICK_MS), *[Frame(conn, data) for conn in self._conns])
        if isinstance(value, Open):
            self._conns.append(value.conn)
            return () if self._seq else (Timer("tick", now.mono_ms + TICK_MS),)
        return (Exit(0),) if isinstance(value, Stop) else ()


class Listener:
    """Reads every message, sees whether one is missing, and writes down at the end what it has heard."""

    def __init__(self) -> None:
        self._heard = self._missing = 0
        self._high = self._dials = 0

    def handle(self, now: Now, value: Value) -> tuple[Value, ...]:
        if isinstance(value, Frame):
            message = orjson.loads(value.data)
            self._missing += message["seq"] - self._heard - self._missing - 1
            self._heard += 1
            self._high = max(self._high, message["price"])
            return ()
        if isinstance(value, Start | Close):  # the feeder may not be up yet
            self._dials += 1
            return (Timer("dial", now.mono_ms + REDIAL_MS),)
        if isinstance(value, Timer):
            return (Open(f"wire#{self._dials}"),)
        if isinstance(value, Stop):
            row = {"heard": self._heard, "missing": self._missing, "high": self._high}
            return (Append("heard", 1, orjson.dumps(row)), Exit(0))
        return ()


def feeder(environment: Mapping[str, str]) -> Feeder:
    return Feeder()


def listener(environment: Mapping[str, str]) -> Listener:
    return Listener()
