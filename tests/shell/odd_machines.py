"""Machines that behave as a shell must survive."""

from __future__ import annotations

from system_under_test.machine import Close, Exit, Frame, Open, Request, Response, Start, Stop, Timer


class Flood:
    """Sends ten times 100 kB a tick to whoever connects, asked or not; tells its ticks."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.closed = self.ticks = self.lag_ms_max = 0

    def handle(self, now, value):
        if isinstance(value, Start):
            return (Timer("tick", now.mono_ms + 20),)
        if isinstance(value, Open):
            self.open.append(value.conn)
        elif type(value).__name__ == "Close":
            self.open.remove(value.conn)
            self.closed += 1
        elif isinstance(value, Timer):
            self.ticks += 1
            self.lag_ms_max = max(self.lag_ms_max, now.mono_ms - value.at_ms)
            return (Timer("tick", now.mono_ms + 20), *(Frame(conn, b"x" * 100_000) for conn in self.open
                                                       for _ in range(10)))
        elif isinstance(value, Request):
            body = b'{"ticks": %d, "closed": %d, "lag": %d}' % (self.ticks, self.closed, self.lag_ms_max)
            return (Response(value.conn, value.id, 200, (), body),)
        elif isinstance(value, Stop):
            return (Exit(5),)
        return ()


class Raises:
    def handle(self, now, value):
        if isinstance(value, Request):
            raise RuntimeError("on purpose")
        return ()


class Deaf:
    """Neither answers nor ends."""

    def handle(self, now, value):
        return ()


class Curt:
    """Answers the first message and hangs up at once."""

    def handle(self, now, value):
        return (Frame(value.conn, b"goodbye"), Close(value.conn, "said enough")) if isinstance(value, Frame) else ()


def curt(environment):
    return Curt()


def flood(environment):
    return Flood()


def raises(environment):
    return Raises()


def deaf(environment):
    return Deaf()
