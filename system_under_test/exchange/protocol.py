"""JSON-RPC 2.0 as the venue speaks it, over frames and HTTP: bytes in, a checked ``Call`` out, answers as bytes.

The method and error tables are data (`specs/exchange/methods.yaml`, `errors.yaml`); parameter checks, defaults, scopes, costs
and the transport rule come from there. Whatever the bytes are, a ``Refused`` and never another exception leaves this file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import orjson
import yaml

FRAME_BYTES_MAX = 32_768
"""Larger frames are refused by the venue ("Message Too Big")."""
FIELDS_MAX = 100
"""More query fields than any method has."""
API_PREFIX = "/api/v2"
PROCESSING_US = 137
"""What ``usDiff`` says: the exchange has no clock finer than the one reading that it is handed."""


class Refused(Exception):
    """The call is answered with an error of the table. ``data`` goes on the wire."""

    def __init__(self, code: int, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(code, data)
        self.code, self.data = code, data


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    type: str
    required: bool = False
    enum: tuple[Any, ...] | None = None
    default: Any = None
    min: float | None = None
    max: float | None = None
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """One kind of credit: what a call costs, how many are held at most, how many come back per second."""

    cost: int
    burst: int
    rate: int


@dataclass(frozen=True, slots=True)
class Method:
    name: str
    scope: str | None
    pool: str
    cost: int
    websocket_only: bool
    open_in_maintenance: bool
    parameters: tuple[Parameter, ...]
    result: Any
    private: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "private", self.name.startswith("private/"))


@dataclass(frozen=True, slots=True)
class Tables:
    """Both tables, read once."""

    methods: Mapping[str, Method]
    pools: Mapping[str, Pool]
    objects: Mapping[str, Mapping[str, str]]
    errors: Mapping[int, tuple[str, int]]

    @classmethod
    @cache
    def load(cls, specs: Path) -> Tables:
        raw = read_table(specs / "exchange" / "methods.yaml")
        wrong = read_table(specs / "exchange" / "errors.yaml")
        pools = {name: Pool(**value) for name, value in raw["pools"].items()}
        methods = {name: _method(name, value, pools) for name, value in raw["methods"].items()}
        errors = {code: (row["message"], row.get("http", wrong["http_default"])) for code, row in wrong["errors"].items()}
        return cls(methods, pools, raw["objects"], errors)

    def error(self, code: int, data: Mapping[str, Any] | None) -> dict[str, Any]:
        error: dict[str, Any] = {"code": code, "message": self.errors[code][0]}
        if data is not None:
            error["data"] = data
        return error


@cache
def read_table(file: Path) -> Any:
    """A table of the exchange, read once a process; libyaml, where it is there, takes a tenth of its Python twin's time."""
    return yaml.load(file.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def read_parameters(raw: Mapping[str, Mapping[str, Any]]) -> tuple[Parameter, ...]:
    """Parameters as the tables write them: name → its rules."""
    forms: list[Parameter] = []
    for name, rules in raw.items():
        fields: dict[str, Any] = dict(rules)
        if "enum" in fields:
            fields["enum"] = tuple(fields["enum"])
        forms.append(Parameter(name, **fields))
    return tuple(forms)


def _method(name: str, raw: Mapping[str, Any], pools: Mapping[str, Pool]) -> Method:
    pool = raw["pool"]
    parameters = read_parameters(raw.get("params", {}))
    cost = raw.get("cost", pools[pool].cost if pool in pools else 0)
    return Method(name, raw.get("scope"), pool, cost, raw.get("transport") == "ws", raw.get("maintenance") == "open",
                  parameters, raw["result"])


@dataclass(slots=True)
class Envelope:
    """What one message asks, before its parameters are checked. ``id`` is absent (``...``) on GET."""

    method: str = ""
    id: Any = None
    params: Mapping[str, Any] = field(default_factory=dict)
    textual: bool = False
    """values came as text and are read by the type that the table gives them"""


def read_frame(data: bytes) -> Envelope:
    """One WebSocket message. Raises Refused; its ``envelope`` attribute holds what could be read."""
    return read_body(data, None)


def read_body(data: bytes, path_method: str | None) -> Envelope:
    """A JSON-RPC body; ``path_method`` names the method where the path does."""
    try:
        message = orjson.loads(data) if data or path_method is None else {}
    except orjson.JSONDecodeError:
        raise Refused(-32700) from None
    if not isinstance(message, dict):
        raise Refused(11050, {"reason": "one JSON object expected; batches are not supported"})
    if path_method is not None and "method" not in message and "params" not in message:
        message = {"method": path_method, "params": message, "id": message.get("id", ...)}
    id = message.get("id", ... if path_method is not None else None)
    if isinstance(id, bool) or not (id is ... or isinstance(id, int | float | str)):
        raise Refused(11050, {"reason": "id must be a number or a text", "param": "id"})
    method = message.get("method", path_method)
    if not isinstance(method, str):
        raise _with(Envelope(id=id), Refused(11050, {"reason": "method must be a text", "param": "method"}))
    method = method.removeprefix("/")
    params = message.get("params")
    if params is None:
        params = {}
    if not isinstance(params, dict):
        raise _with(Envelope(method, id), Refused(11050, {"reason": "params must be an object", "param": "params"}))
    if message.get("jsonrpc", "2.0") != "2.0":
        raise _with(Envelope(method, id), Refused(11050, {"reason": "jsonrpc must be 2.0", "param": "jsonrpc"}))
    return Envelope(method, id, params)


def read_http(method: str, target: str, body: bytes) -> Envelope | None:
    """An HTTP request, or None when its path is none of ours. Raises Refused."""
    path, _, query = target.partition("?")
    path = path.partition("#")[0]
    if path.startswith(("http://", "https://")):  # absolute form
        path = "/" + path.split("/", 3)[3] if path.count("/") >= 3 else "/"
    if not path.startswith(API_PREFIX):
        return None
    name = path[len(API_PREFIX):].strip("/")
    if method == "GET":
        return _read_query(name, query) if name else None
    envelope = read_body(body, name or None)
    if query and not envelope.params:
        asked = _read_query(envelope.method, query)
        asked.id = envelope.id
        return asked
    return envelope


def _read_query(name: str, query: str) -> Envelope:
    try:
        fields = _fields(query)
    except ValueError:
        raise Refused(11050, {"reason": "query cannot be read"}) from None
    return Envelope(name, ..., dict(fields), textual=True)


@lru_cache(maxsize=64)  # clients ask the same again and again
def _fields(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query, keep_blank_values=True, errors="replace", max_num_fields=FIELDS_MAX)


def _with(envelope: Envelope, refused: Refused) -> Refused:
    refused.envelope = envelope  # type: ignore[attr-defined]
    return refused


def check(method: Method, given: Mapping[str, Any], textual: bool) -> dict[str, Any]:
    """The parameters as the table wants them: typed, within bounds, defaults filled. Unknown ones are ignored (venue)."""
    values: dict[str, Any] = {}
    for parameter in method.parameters:
        raw = given.get(parameter.name)
        if raw is None or (textual and raw == "" and parameter.type != "string"):
            if parameter.required:
                raise _invalid(parameter.name, "required")
            values[parameter.name] = parameter.default
            continue
        values[parameter.name] = _value(parameter, raw, textual)
    return values


def _value(parameter: Parameter, raw: Any, textual: bool) -> Any:
    value = _READERS[parameter.type](parameter.name, raw, textual)
    if parameter.enum is not None and value not in parameter.enum:
        raise _invalid(parameter.name, f"must be one of: {', '.join(map(str, parameter.enum))}")
    if parameter.min is not None and value < parameter.min:
        raise _invalid(parameter.name, f"must be at least {parameter.min:g}")
    if parameter.max is not None and value > parameter.max:
        raise _invalid(parameter.name, f"must be at most {parameter.max:g}")
    if parameter.length is not None and len(value) > parameter.length:
        raise _invalid(parameter.name, f"must have at most {parameter.length} characters")
    return value


def _invalid(param: str, reason: str) -> Refused:
    return Refused(-32602, {"reason": reason, "param": param})


def _text(name: str, raw: Any, textual: bool) -> str:
    if not isinstance(raw, str):
        raise _invalid(name, "must be a string")
    return raw


def _number(name: str, raw: Any, textual: bool) -> float | int:
    if isinstance(raw, str) and len(raw) <= 64:  # clients that keep decimals write them as text
        try:
            raw = float(raw) if not raw.strip().lstrip("-").isdecimal() else int(raw)
        except ValueError:
            raise _invalid(name, "must be a number") from None
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw):
        raise _invalid(name, "must be a number")
    return raw


def _integer(name: str, raw: Any, textual: bool) -> int:
    value = _number(name, raw, textual)
    if value != int(value):
        raise _invalid(name, "must be an integer")
    return int(value)


def _boolean(name: str, raw: Any, textual: bool) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.lower() in ("true", "false"):
        return raw.lower() == "true"
    raise _invalid(name, "must be a boolean")


def _array(name: str, raw: Any, textual: bool) -> list[Any]:
    if textual and isinstance(raw, str):
        try:
            raw = orjson.loads(raw)
        except orjson.JSONDecodeError:
            raw = raw.split(",")
    if not isinstance(raw, list):
        raise _invalid(name, "must be an array")
    return raw


def _object(name: str, raw: Any, textual: bool) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise _invalid(name, "must be an object")
    return raw


def _any(name: str, raw: Any, textual: bool) -> Any:
    return raw


_READERS = {"string": _text, "number": _number, "integer": _integer, "boolean": _boolean, "array": _array,
            "object": _object, "any": _any}


def answer(id: Any, wall_ms: int, body: Mapping[str, Any]) -> bytes:
    """An answer's bytes: ``body`` holds ``result`` or ``error``."""
    us = wall_ms * 1_000
    named = {} if id is ... else {"id": id}
    return orjson.dumps({"jsonrpc": "2.0", **named, **body, "usIn": us, "usOut": us + PROCESSING_US,
                         "usDiff": PROCESSING_US, "testnet": True})


def notification(channel: str, data: Any, label: str | None = None) -> bytes:
    params = {"channel": channel, "data": data}
    if label:
        params["label"] = label
    return orjson.dumps({"jsonrpc": "2.0", "method": "subscription", "params": params})


def heartbeat(kind: str) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "method": "heartbeat", "params": {"type": kind}})
