"""A driver with virtual time for the exchange machine: one node, no socket."""

from __future__ import annotations

import itertools
from typing import Any
from urllib.parse import urlencode

import orjson

from system_under_test.exchange import make
from system_under_test.machine import (
    Append,
    Close,
    Frame,
    LogImage,
    Now,
    Open,
    Request,
    Response,
    Start,
    Timer,
    Value,
)

WALL_MS = 1_795_000_000_000
"""A Wednesday in November 2026."""


class Client:
    """One WebSocket connection."""

    def __init__(self, driver: Driver, conn: str) -> None:
        self.driver, self.conn = driver, conn
        self.messages: list[dict[str, Any]] = []
        self.closed: str | None = None
        self._ids = itertools.count(1_001)
        driver.clients[conn] = self
        driver.give(Open(conn))

    def send(self, data: bytes) -> None:
        self.driver.give(Frame(self.conn, data))

    def ask(self, method: str, **params: Any) -> dict[str, Any] | None:
        """The whole answer, or None."""
        id = next(self._ids)
        self.send(orjson.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
        return next((m for m in self.messages if m.get("id") == id and "method" not in m), None)

    def call(self, method: str, **params: Any) -> Any:
        """The result; its documented form is checked."""
        answer = self.ask(method, **params)
        assert answer is not None and "result" in answer, answer
        self.driver.check(method, answer["result"])
        return answer["result"]

    def code(self, method: str, **params: Any) -> int:
        answer = self.ask(method, **params)
        assert answer is not None and "error" in answer, answer
        return answer["error"]["code"]

    def login(self, scope: str = "") -> Client:
        self.call("public/auth", grant_type="client_credentials", client_id="drill", client_secret="s3cret",
                  **({"scope": scope} if scope else {}))
        return self

    def news(self, prefix: str) -> list[Any]:
        """The data of every notification of channels that begin so."""
        return [m["params"]["data"] for m in self.messages
                if m.get("method") == "subscription" and m["params"]["channel"].startswith(prefix)]

    def buy(self, instrument: str, amount: float, **params: Any) -> Any:
        return self.call("private/buy", instrument_name=instrument, amount=amount, **params)

    def sell(self, instrument: str, amount: float, **params: Any) -> Any:
        return self.call("private/sell", instrument_name=instrument, amount=amount, **params)


class Driver:
    """Carries the machine through virtual time, as a world would."""

    def __init__(self, seed: int = 7, records: tuple[bytes, ...] = (), boot: int = 1, **environment: str) -> None:
        self.machine = make({"CLIENT_ID": "drill", "CLIENT_SECRET": "s3cret", **environment})
        self.mono_ms, self.wall_ms = 1_000, WALL_MS
        self.timers: dict[str, int] = {}
        self.clients: dict[str, Client] = {}
        self.records: list[bytes] = list(records)
        self.responses: dict[int, Response] = {}
        self._ids = itertools.count(1)
        self.give(Start(boot, seed, {"books": LogImage(records)} if records else {}))

    def give(self, value: Value) -> None:
        for out in self.machine.handle(Now(self.mono_ms, self.wall_ms), value):
            self._take(out)

    def _take(self, out: object) -> None:
        match out:
            case Frame(conn, data):
                self.clients[conn].messages.append(orjson.loads(data))
            case Close(conn, why):
                self.clients[conn].closed = why
            case Append(log, seq, data):
                assert log == "books" and seq == len(self.records) + 1
                self.records.append(data)
            case Timer(name, None):
                self.timers.pop(name, None)
            case Timer(name, at_ms):
                assert at_ms is not None
                self.timers[name] = at_ms
            case Response():
                self.responses[out.id] = out

    def pass_ms(self, duration_ms: int) -> None:
        end = self.mono_ms + duration_ms
        while self.timers:
            name, at_ms = min(self.timers.items(), key=lambda item: (item[1], item[0]))
            if at_ms > end:
                break
            self._move(max(at_ms, self.mono_ms))
            del self.timers[name]
            self.give(Timer(name, at_ms))
        self._move(end)

    def _move(self, to_ms: int) -> None:
        self.wall_ms += to_ms - self.mono_ms
        self.mono_ms = to_ms

    def connect(self, number: int = 0) -> Client:
        return Client(self, f"api#{number or len(self.clients) + 1}")

    def drop(self, client: Client) -> None:
        self.give(Close(client.conn, "cut"))

    def http(self, method: str, target: str, body: bytes = b"", port: str = "api", **headers: str) -> tuple[int, Any]:
        id = next(self._ids)
        named = tuple((name.replace("_", "-"), text) for name, text in headers.items())
        self.give(Request(f"{port}#0", id, method, target, named, body))
        if id not in self.responses:
            return 0, None
        answer = self.responses[id]
        return answer.status, orjson.loads(answer.body)

    def get(self, method: str, authorization: str = "", **params: Any) -> tuple[int, Any]:
        headers = {"authorization": authorization} if authorization else {}
        return self.http("GET", f"/api/v2/{method}?{urlencode(params)}", **headers)

    def put(self, switch: str, **arguments: Any) -> None:
        status, document = self.http("PUT", f"/switches/{switch}", orjson.dumps(arguments), "control")
        assert status == 200, document

    def off(self, switch: str) -> int:
        status, document = self.http("DELETE", f"/switches/{switch}", b"", "control")
        assert status == 200
        return document["uses"]

    def uses(self, switch: str) -> int:
        return self.http("GET", "/switches", b"", "control")[1][switch]["uses"]

    def act(self, name: str, **arguments: Any) -> dict[str, Any]:
        status, document = self.http("POST", f"/acts/{name}", orjson.dumps(arguments), "control")
        assert status == 200, document
        return document

    def rows(self, kind: str, **where: Any) -> list[dict[str, Any]]:
        rows = (orjson.loads(record) for record in self.records)
        return [row for row in rows if row["kind"] == kind and all(row.get(k) == v for k, v in where.items())]

    # ---- is the answer as documented?

    def check(self, method: str, result: Any) -> None:
        self._form(self.machine.tables.methods[method].result, result, method)

    def _form(self, form: Any, value: Any, where: str) -> None:
        objects = self.machine.tables.objects
        if isinstance(form, list):
            assert isinstance(value, list), where
            for each in value:
                self._form(form[0], each, where)
        elif isinstance(form, dict) or form in objects:
            fields = form if isinstance(form, dict) else objects[form]
            assert isinstance(value, dict), where
            stray = set(value) - set(fields)
            assert not stray, f"{where}: not documented: {stray}"
            for name, type in fields.items():
                optional = isinstance(type, str) and type.startswith("optional ")
                if name in value or not optional:
                    assert name in value, f"{where}: {name} is missing"
                    self._form(type.removeprefix("optional ") if optional else type, value[name], f"{where}.{name}")
        else:
            assert _TYPES[form](value), f"{where}: {value!r} is no {form}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES = {
    "any": lambda value: True, "none": lambda value: value is None, "string": lambda value: isinstance(value, str),
    "number": _is_number, "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool), "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict), "number_or_null": lambda value: value is None or _is_number(value),
    "number_or_text": lambda value: isinstance(value, str) or _is_number(value),
}
