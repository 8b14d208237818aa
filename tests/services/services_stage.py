"""A service alone on a stage: its clocks, its files and its peers are the test's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from system_under_test.machine import (
    Close,
    Frame,
    Look,
    Note,
    Now,
    Open,
    Request,
    Response,
    Seen,
    Start,
    Timer,
    Unanswered,
    Value,
    link_of,
)

POLICY = {"ops_heartbeat_ttl_s": 3, "marketdata_stale_threshold_s": 4, "ops_control_ttl_ms": 2_000}
ENVIRONMENT = {"SERVICE_NAME": "one", "REPO_ID": "here", "AGENT_NAME": "agent", "EMERGENCY_TOKEN": "key",
               "POLICY": orjson.dumps(POLICY).decode()}
ACTIVE = orjson.dumps({"trading_mode": "Active"})

Peer = Callable[[Request], Response | Unanswered | None]


def says(body: bytes | dict[str, Any], code: int = 200) -> Peer:
    """A peer that always answers the same."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    return lambda asked: Response(asked.conn, asked.id, code, (), data)


def silent(asked: Request) -> None:
    """A peer that never answers."""


def gone(asked: Request) -> Unanswered:
    """A peer that nobody reaches."""
    return Unanswered(asked.conn, asked.id, False, "connection refused")


class Stage:
    """Time goes in steps of 10 ms; what is asked is answered at once, by the peers of the moment."""

    def __init__(self, make: Callable[[Mapping[str, str]], Any], peers: Mapping[str, Peer] | None = None,
                 looks: str = "FileNotFoundError: no such file", **environment: str) -> None:
        self.machine = make({**ENVIRONMENT, **environment})
        self.peers = dict(peers or {})
        self.files: dict[str, bytes | str] = {}
        """what a look shows: bytes, or why nothing can be read"""
        self.looks = looks
        self.mono_ms, self.wall_ms = 50_000, 1_795_187_000_000
        self.timers: dict[str, int] = {}
        self.requests: list[Request] = []
        self.frames: list[tuple[str, dict[str, Any]]] = []
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.notes: list[tuple[str, Mapping[str, object]]] = []
        self.feed = True
        self.give(Start(1, 1))

    @property
    def now(self) -> Now:
        return Now(self.mono_ms, self.wall_ms)

    def give(self, value: Value) -> None:
        """A value in, and everything that comes of it."""
        waiting = [value]
        while waiting:
            for out in self.machine.handle(self.now, waiting.pop(0)):
                waiting += self._carry(out)

    def _carry(self, out: Value) -> list[Value]:
        match out:
            case Timer():
                if out.at_ms is None:
                    self.timers.pop(out.name, None)
                else:
                    self.timers[out.name] = out.at_ms
            case Look():
                seen = self.files.get(out.source, self.looks)
                if seen != "hangs":
                    return [Seen(out.source, seen) if isinstance(seen, bytes) else Seen(out.source, None, seen)]
            case Request():
                self.requests.append(out)
                answer = self.peers.get(link_of(out.conn), gone)(out)
                return [] if answer is None else [answer]
            case Open():
                self.opened.append(out.conn)
                return [Open(out.conn)] if self.feed else [Close(out.conn, "dial failed")]
            case Close():
                self.closed.append(out.conn)
            case Frame():
                self.frames.append((out.conn, orjson.loads(out.data)))
            case Note():
                self.notes.append((out.kind, out.fields))
        return []

    def run(self, ms: int, wall: bool = True) -> None:
        """Let time pass; the wall clock goes along unless it is told to stand still."""
        for _ in range(ms // 10):
            self.mono_ms += 10
            self.wall_ms += 10 if wall else 0
            for name, at_ms in list(self.timers.items()):
                if self.mono_ms >= at_ms:
                    del self.timers[name]
                    self.give(Timer(name, at_ms))

    def get(self, path: str = "/ops/status", method: str = "GET") -> tuple[int, dict[str, Any]]:
        """Ask the service itself."""
        answer, = (out for out in self.machine.handle(self.now, Request("ops#0", 1, method, path)) if isinstance(out, Response))
        return answer.status, orjson.loads(answer.body)

    @property
    def said(self) -> tuple[str, ...]:
        """State and reasons at this moment."""
        told = self.get()[1]["status"]
        return (told["state"], *told["reason_codes"])
