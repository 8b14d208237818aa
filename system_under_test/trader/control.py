"""The control plane: three things to read, one lever, and the lever only ever makes the system safer.

    GET  /api/v1/status                    the contract's document
    GET  /api/v1/health                    is the process up; with the watchdog's token it is also the heartbeat
    GET  /metrics                          counters as Prometheus text
    POST /api/v1/emergency/reduce_only     bearer token; reduce-only now, answered when it is on disk

There is no way to set Active. Sampling never feeds the heartbeat, or the observer would prop up the accused.
Tokens are compared in constant time and appear in no answer.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import orjson
from msgspec import Struct

from system_under_test.machine import Request, Response
from system_under_test.trader.ledger import Ledger
from system_under_test.trader.settings import Tokens

BODY_BYTES_MAX = 16_384
REASON_CHARACTERS_MAX = 200
PRESSES_MAX = 64
"""Presses that wait for the disk; who is pressed more often answers the oldest without it."""

STATUS = "/api/v1/status"
HEALTH = "/api/v1/health"
METRICS = "/metrics"
EMERGENCY = "/api/v1/emergency/reduce_only"
METHOD: Mapping[str, str] = MappingProxyType({STATUS: "GET", HEALTH: "GET", METRICS: "GET", EMERGENCY: "POST"})
"""Every route and its one method."""

_JSON = (("content-type", "application/json"), ("cache-control", "no-store"))
_TEXT = (("content-type", "text/plain; version=0.0.4"), ("cache-control", "no-store"))


class Answer(Struct, frozen=True, gc=False):
    """The response, and what the request did: nothing, ``heartbeat``, ``emergency`` or ``emergency_refused``."""

    response: Response | None
    """None for an emergency: it is answered when its row is durable (`Presses`)"""
    act: str | None = None
    said: Mapping[str, str] = MappingProxyType({})
    """for an emergency: what the caller gave as reason and name; display only"""


class ControlPlane:
    """Answers requests. Documents are made by a callable, only when their route is asked for."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def answer(self, request: Request, tell: Callable[[str], bytes]) -> Answer:
        """The answer to one request, and the act it stands for. ``tell`` makes the document of a route."""
        path = request.target.partition("?")[0]
        allowed = METHOD.get(path)
        if allowed is None:
            return Answer(_refused(request, 404, "there is nothing here"))
        if request.method != allowed:
            return Answer(_refused(request, 405, f"only {allowed}", (("allow", allowed),)))
        if path == STATUS:
            return Answer(Response(request.conn, request.id, 200, _JSON, tell(path)))
        if path == METRICS:
            return Answer(Response(request.conn, request.id, 200, _TEXT, tell(path)))
        if path == HEALTH:
            act = "heartbeat" if _bears(request, self._tokens.watchdog) else None
            return Answer(Response(request.conn, request.id, 200, _JSON, tell(path)), act)
        return self._emergency(request)

    def _emergency(self, request: Request) -> Answer:
        if not _bears(request, self._tokens.emergency):
            challenge = (("www-authenticate", "Bearer"),)
            return Answer(_refused(request, 401, "a bearer token is needed", challenge), "emergency_refused")
        if len(request.body) > BODY_BYTES_MAX:
            return Answer(_refused(request, 413, f"at most {BODY_BYTES_MAX} bytes"), "emergency_refused")
        return Answer(None, "emergency", _said(request.body))


class Presses:
    """Emergencies that have taken effect and are answered once their row is on disk, so that whoever reads ``durable``
    knows that a crash will not undo it. A ledger that cannot be waited for is told, and never waited for."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: deque[tuple[Request, int | None]] = deque()

    def take(self, request: Request, seq: int | None) -> None:
        """The row's sequence number; None when the ledger had no room for it."""
        self._waiting.append((request, seq))

    def answers(self, ts: int) -> Iterator[Response]:
        """What can be answered by now, oldest first."""
        while self._waiting:
            request, seq = self._waiting[0]
            durable = seq is not None and self._ledger.holds(seq)
            if not durable and seq is not None and len(self._waiting) <= PRESSES_MAX and not self._ledger.stalled(ts):
                return
            self._waiting.popleft()
            body = orjson.dumps({"taken": True, "durable": durable})
            yield Response(request.conn, request.id, 200, _JSON, body)


def _said(body: bytes) -> dict[str, str]:
    """Reason and name from the body, for the note. They decide nothing, so a damaged body does not refuse."""
    try:
        raw = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(raw, dict):
        return {}
    return {name: raw[name][:REASON_CHARACTERS_MAX] for name in ("reason", "invoked_by")
            if isinstance(raw.get(name), str)}


def _bears(request: Request, token: str) -> bool:
    """Whether the request carries exactly one authorization header, with this bearer token."""
    given = [value for name, value in request.headers if name == "authorization"]
    if len(given) != 1:
        return False
    scheme, _, credentials = given[0].partition(" ")
    same = hmac.compare_digest(credentials.strip().encode(), token.encode())
    return same and scheme.lower() == "bearer"


def _refused(request: Request, code: int, why: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    return Response(request.conn, request.id, code, (*_JSON, *headers), orjson.dumps({"error": why}))
