"""Two small machines that any world can carry: an echo server with switches, and a client that never stops asking.

The server answers WebSocket frames and ``/echo``, keeps books, and has a control port with /clock, /switches and
/acts. The client dials ``wire`` (WebSocket) and ``rest`` (HTTP), records every tick in its ledger, and tells how
far it got at /status and /clock. Neither parses more than it must.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from system_under_test.machine import (
    Append,
    Close,
    Done,
    Durable,
    Exit,
    Failed,
    Frame,
    Look,
    Note,
    Now,
    Open,
    Replace,
    Request,
    Response,
    Seen,
    Start,
    Stop,
    Timer,
    Unanswered,
    Value,
    link_of,
)

TICK_MS = 20


def _json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def _answer(asked: Request, document: object, status: int = 200) -> Response:
    return Response(asked.conn, asked.id, status, (("content-type", "application/json"),), _json(document))


class Server:
    """Echoes what it is sent. Switch ``mute``: frames are recorded but not echoed, and each counts as a use."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.build = environment.get("BUILD_ID", "")
        self.boot = self.row_seq = self.frames = self.acts = 0
        self.open: dict[str, int] = {}
        self.switches: dict[str, dict] = {"mute": {"on": False, "arguments": {}, "uses": 0}}

    def handle(self, now: Now, value: Value) -> tuple[Value, ...]:
        match value:
            case Start():
                self.boot = value.boot
                self.row_seq = len(value.logs["books"].records) if "books" in value.logs else 0
                return (self.row(now, kind="boot", boot=value.boot), Timer("feed", now.mono_ms + TICK_MS))
            case Timer("feed"):
                return (Timer("feed", now.mono_ms + TICK_MS),
                        *(Frame(conn, _json({"feed": now.mono_ms})) for conn in self.open))
            case Open():
                self.open[value.conn] = 0
                return (self.row(now, kind="session", conn=value.conn, event="opened"),)
            case Close():
                self.open.pop(value.conn, None)
                return (self.row(now, kind="session", conn=value.conn, event="closed", why=value.why),)
            case Frame():
                return self.echo(now, value)
            case Request():
                return self.serve(now, value)
            case Stop():
                return (Exit(0),)
        return ()

    def echo(self, now: Now, value: Frame) -> tuple[Value, ...]:
        self.frames += 1
        row = self.row(now, kind="request", conn=value.conn, bytes=len(value.data))
        if self.switches["mute"]["on"]:
            self.switches["mute"]["uses"] += 1
            return (row,)
        return (row, Frame(value.conn, value.data))

    def serve(self, now: Now, asked: Request) -> tuple[Value, ...]:
        path = asked.target.partition("?")[0]
        if link_of(asked.conn) == "api":
            return (self.row(now, kind="http", path=path), _answer(asked, {"echo": asked.body.decode()}))
        if path == "/clock":
            return (_answer(asked, {"mono_ms": now.mono_ms, "wall_ms": now.wall_ms}),)
        if path == "/status":
            return (_answer(asked, {"frames": self.frames, "acts": self.acts, "boot": self.boot,
                                    "open": len(self.open), "build": self.build}),)
        if path.startswith("/acts/"):
            self.acts += 1
            return (_answer(asked, {"acts": self.acts}),)
        return (self.switch(asked, path),)

    def switch(self, asked: Request, path: str) -> Response:
        if path == "/switches":
            return _answer(asked, self.switches)
        name = path.removeprefix("/switches/")
        if name not in self.switches:
            return _answer(asked, {"unknown": name}, 404)
        switch = self.switches[name]
        if asked.method == "DELETE":
            switch["on"] = False
            return _answer(asked, {"uses": switch["uses"]})
        switch.update(on=True, arguments=json.loads(asked.body or b"{}"))
        return _answer(asked, {"name": name, **switch})

    def row(self, now: Now, **fields: object) -> Append:
        self.row_seq += 1
        return Append("books", self.row_seq, _json({"at": now.mono_ms, **fields}))


class Client:
    """Asks every tick over ``wire``, every ten ticks over ``rest``, and records each tick before it asks."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.build = environment.get("BUILD_ID", "")
        self.secret = environment.get("TOKEN", "")
        self.generation = self.ticks = self.sent = self.echoed = self.fed = self.durable = self.appended = 0
        self.answered = self.unanswered = self.refused = self.lag_ms_max = self.boot = 0
        self.conn = ""
        self.disk = self.operator = None
        self.records_found = 0

    def handle(self, now: Now, value: Value) -> tuple[Value, ...]:
        match value:
            case Start():
                return self.begin(now, value)
            case Timer("tick"):
                self.lag_ms_max = max(self.lag_ms_max, now.mono_ms - value.at_ms)
                return self.tick(now)
            case Timer("dial"):
                return self.dial()
            case Open():
                self.conn = value.conn
                return (Note("connected", None, {"conn": value.conn}),)
            case Close():
                self.conn = ""
                return (Note("closed", None, {"why": value.why}), Timer("dial", now.mono_ms + 100))
            case Frame():
                self.echoed += b"echo" in value.data
                self.fed += b"feed" in value.data
            case Durable():
                self.durable = value.seq
                return self.ask()
            case Failed():
                self.refused += 1
                return (Note("ledger_failed", None, {"why": value.why}),)
            case Response():
                self.answered += 1
            case Unanswered():
                self.unanswered += 1
                return (Note("unanswered", None, {"sent": value.sent, "why": value.why}),)
            case Seen():
                self.see(value)
            case Request():
                return (self.serve(now, value),)
            case Done():
                return ()
            case Stop():
                return (Note("stopping", None, {"why": value.why}), Exit(0))
        return ()

    def begin(self, now: Now, value: Start) -> tuple[Value, ...]:
        self.boot = value.boot
        self.records_found = len(value.logs["ledger"].records) if "ledger" in value.logs else 0
        self.appended = self.durable = self.records_found
        return (Note("boot", None, {"build": self.build}), *self.dial(), Timer("tick", now.mono_ms + TICK_MS))

    def dial(self) -> tuple[Value, ...]:
        self.generation += 1
        return (Open(f"wire#{self.boot}.{self.generation}"),)

    def tick(self, now: Now) -> tuple[Value, ...]:
        self.ticks += 1
        self.appended += 1
        out: list[Value] = [Timer("tick", now.mono_ms + TICK_MS),
                            Append("ledger", self.appended, _json({"at": now.mono_ms, "kind": "tick"}))]
        if self.ticks % 10 == 0:
            out += [Request("rest#1", self.ticks, "POST", "/echo?x=1", (("x-tick", "1"),), b"hello"),
                    Look("disk_primary"), Look("operator/hello.json"),
                    Replace("state.json", _json({"ticks": self.ticks}))]
        return tuple(out)

    def ask(self) -> tuple[Value, ...]:
        if not self.conn:
            return ()
        self.sent += 1
        return (Frame(self.conn, _json({"id": self.sent, "method": "echo"})),)

    def see(self, value: Seen) -> None:
        if value.source == "disk_primary" and value.value is not None:
            self.disk = float(value.value)
        elif value.source.startswith("operator/") and value.value is not None:
            self.operator = json.loads(value.value)

    def serve(self, now: Now, asked: Request) -> Response:
        if dict(asked.headers).get("x-token", self.secret) != self.secret:
            return _answer(asked, {"refused": True}, 401)
        return _answer(asked, {
            "build": self.build, "connected": bool(self.conn), "sent": self.sent, "echoed": self.echoed,
            "fed": self.fed, "ticks": self.ticks, "boot": self.boot, "depth": self.appended - self.durable,
            "answered": self.answered, "unanswered": self.unanswered, "refused": self.refused, "disk": self.disk,
            "operator": self.operator, "records_found": self.records_found, "lag_ms_max": self.lag_ms_max,
            "mono_ms": now.mono_ms, "wall_ms": now.wall_ms,
        })


def server(environment: Mapping[str, str]) -> Server:
    return Server(environment)


def client(environment: Mapping[str, str]) -> Client:
    return Client(environment)


def files(environment: Mapping[str, str], wall_ms: int) -> dict[str, bytes]:
    """What an operator lays out before a start."""
    return {"certificate.json": _json({"build": environment.get("BUILD_ID", ""), "issued_ms": wall_ms})}
