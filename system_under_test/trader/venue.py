"""The exchange as the trader speaks with it: JSON-RPC over two WebSocket links, and REST beside them.

Requests have ids and deadlines. *No answer is not a failure*: a request whose deadline passes, or whose connection
goes down, is reported as `Lost`, and what became of it must be looked up. After every reconnect the whole
handshake is done again: name, authentication, heartbeat, cancel-on-disconnect, subscriptions. What the exchange
silently did not subscribe ends the connection, because a feed that is believed to be there is worse than none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from msgspec import Struct

from system_under_test.machine import Close, Frame, Open, Request, Response, Unanswered
from system_under_test.trader.settings import Settings
from system_under_test.trader.turn import Turn

MARKET_DATA = "market_data"
ORDERS = "orders"
REST = "rest"
REST_CONN = "rest#0"

TOO_MANY_REQUESTS = 10028
MAINTENANCE_CODES = frozenset((11051, 10041, 10019))
UNAUTHORIZED = frozenset((13009, 10000, 13004))

AUTH_AGAIN_MS = 500
"""Between two attempts to get a token: refused credentials do not get better by haste."""

FALLBACK_AFTER_MS = 1_500
"""What reduces goes out over REST once the order link has been down for so long: an ordinary reconnect is quicker."""

FALLBACK_FRESH_MS = 2_500
"""and only while REST has answered within this time: three polls of the exchange's clock."""

RENEW_SHARE_MS = 800
"""Papers are renewed after so many ms of each second of their life: four fifths."""

Tag = tuple[Any, ...]
"""Whom an answer is for, as the asker named it."""


class Answer(Struct, frozen=True):
    """An answer came. ``code`` and ``message`` are those of an error; times in monotonic ms."""

    tag: Tag
    method: str
    result: Any
    code: int | None
    message: str
    asked_mono: int


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer will come that we know of. ``sent`` False proves that nothing happened at the exchange."""

    tag: Tag
    method: str
    sent: bool
    why: str


class Notice(Struct, frozen=True, gc=False):
    """A notification of a subscription."""

    link: str
    channel: str
    data: Any


@dataclass(frozen=True, slots=True)
class Up:
    """A link has finished its handshake."""

    link: str


@dataclass(frozen=True, slots=True)
class Down:
    """A link went down. ``was_ready``: it had finished its handshake."""

    link: str
    why: str
    was_ready: bool


@dataclass(frozen=True, slots=True)
class Limited:
    """The exchange had enough of us: HTTP 429, or a JSON-RPC error 10028 over a link."""

    link: str
    status: int


Event = Answer | Lost | Notice | Up | Down | Limited


@dataclass(slots=True)
class _Pending:
    tag: Tag
    method: str
    link: str
    asked_mono: int
    deadline_mono: int


@dataclass(slots=True)
class Link:
    """One WebSocket link and where its handshake stands."""

    name: str
    generation: int = 0
    conn: str | None = None
    state: str = "down"
    """down, dialing, greeting, ready"""
    redial_mono: int = 0
    backoff_ms: int = 0
    since_mono: int = 0
    heard_mono: int = 0
    steps: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    granted: set[str] = field(default_factory=set)
    """channels that the exchange has confirmed on this connection"""
    renew_mono: int | None = None
    """when the connection's papers are renewed"""


class Venue:
    """Requests out, events in."""

    def __init__(self, settings: Settings, client_id: str, client_secret: str) -> None:
        self._settings = settings
        self._client_id, self._client_secret = client_id, client_secret
        self._silent_ms = (2 * settings.heartbeat_interval_s + 5) * 1_000
        self._next_id = 0
        self._pending: dict[int, _Pending] = {}
        self.links = {MARKET_DATA: Link(MARKET_DATA), ORDERS: Link(ORDERS)}
        self.channels: tuple[str, ...] = ()
        """what the market-data link subscribes to"""
        self.user_channels: tuple[str, ...] = (f"user.changes.any.{settings.currency}.raw",)
        self._token: str | None = None
        self._token_until_mono = 0
        self._token_next_mono = 0
        self._orders_lost_mono: int | None = None
        self._rest_heard_mono: int | None = None

    # ---- questions ----

    def ready(self, link: str) -> bool:
        return self.links[link].state == "ready"

    def falls_back(self, turn: Turn) -> bool:
        """Whether the order link has been lost for a while and REST, with papers, is known to answer."""
        lost, heard = self._orders_lost_mono, self._rest_heard_mono
        return (lost is not None and turn.mono - lost >= FALLBACK_AFTER_MS and heard is not None
                and turn.mono - heard <= FALLBACK_FRESH_MS
                and self._token is not None and turn.mono < self._token_until_mono)

    def awaits(self, kind: str) -> bool:
        """Whether an answer for this kind of tag is still expected."""
        return any(pending.tag[0] == kind for pending in self._pending.values())

    # ---- requests ----

    def call(self, turn: Turn, link: str, method: str, params: Mapping[str, Any], tag: Tag, within_ms: int) -> bool:
        """Ask over a WebSocket link. False when the link is not ready, and nothing went out."""
        at = self.links[link]
        if at.state != "ready" or at.conn is None:
            return False
        self._send(turn, at, method, params, tag, within_ms)
        return True

    def rest(self, turn: Turn, method: str, params: Mapping[str, Any], tag: Tag) -> bool:
        """Ask over REST. False when a private method has no token yet, and nothing went out."""
        headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)
        if method.startswith("private/"):
            if self._token is None:
                self._authenticate(turn)
                return False
            if turn.mono >= self._token_until_mono:
                self._authenticate(turn)
            headers = (*headers, ("authorization", f"Bearer {self._token}"))
        number = self._number(turn, REST, method, tag, self._settings.request_ms_max)
        body = orjson.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        turn.send(Request(REST_CONN, number, "POST", f"/api/v2/{method}", headers, body))
        return True

    def _authenticate(self, turn: Turn) -> None:
        if turn.mono < self._token_next_mono or self.awaits("rest_auth"):
            return
        self._token_next_mono = turn.mono + AUTH_AGAIN_MS
        self.rest(turn, "public/auth", self._credentials(), ("rest_auth",))

    def _credentials(self) -> dict[str, Any]:
        return {"grant_type": "client_credentials", "client_id": self._client_id, "client_secret": self._client_secret}

    def _number(self, turn: Turn, link: str, method: str, tag: Tag, within_ms: int) -> int:
        self._next_id += 1
        self._pending[self._next_id] = _Pending(tag, method, link, turn.mono, turn.mono + within_ms)
        return self._next_id

    def _send(self, turn: Turn, at: Link, method: str, params: Mapping[str, Any], tag: Tag, within_ms: int) -> None:
        number = self._number(turn, at.name, method, tag, within_ms)
        frame = orjson.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        turn.send(Frame(str(at.conn), frame))

    # ---- links ----

    def tick(self, turn: Turn) -> list[Event]:
        """Dial what is due, give up what is silent, report requests whose deadline has passed."""
        events: list[Event] = []
        for at in self.links.values():
            state = at.state
            if state == "down":
                if turn.mono >= at.redial_mono:
                    self._dial(turn, at)
            elif state != "ready" and turn.mono - at.since_mono > self._settings.handshake_ms_max:
                events += self.hang_up(turn, at.name, "the handshake took too long")
            elif turn.mono - at.heard_mono > self._silent_ms:
                events += self.hang_up(turn, at.name, "silent, even without heartbeats")
            elif state == "ready":
                self._keep(turn, at)
        if self._pending:
            for number in [number for number, pending in self._pending.items() if turn.mono >= pending.deadline_mono]:
                pending = self._pending.pop(number)
                events.append(Lost(pending.tag, pending.method, True, "deadline"))
        return events

    def _keep(self, turn: Turn, at: Link) -> None:
        """Renew papers before they run out, and ask for channels that were added while the handshake was under way, or
        whose answer was lost."""
        if at.renew_mono is not None and turn.mono >= at.renew_mono:
            at.renew_mono = turn.mono + self._settings.handshake_ms_max
            self._send(turn, at, "public/auth", self._credentials(), ("renew",), self._settings.request_ms_max)
        if at.name != MARKET_DATA:
            return
        if not at.granted.issuperset(self.channels) and not self.awaits("subscribe"):
            self.subscribe(turn, [channel for channel in self.channels if channel not in at.granted])

    def _dial(self, turn: Turn, at: Link) -> None:
        at.generation += 1
        at.granted, at.renew_mono = set(), None
        at.conn, at.state, at.since_mono, at.heard_mono = f"{at.name}#{at.generation}", "dialing", turn.mono, turn.mono
        turn.send(Open(at.conn))

    def hang_up(self, turn: Turn, link: str, why: str) -> list[Event]:
        """Close a link from our side; it is dialled again after its backoff."""
        at = self.links[link]
        if at.conn is None:
            return []
        turn.send(Close(at.conn, why))
        return self._went_down(turn, at, why)

    def hold_off(self, turn: Turn, link: str, for_ms: int) -> None:
        """Do not dial again before this has passed."""
        self.links[link].redial_mono = max(self.links[link].redial_mono, turn.mono + for_ms)

    def _went_down(self, turn: Turn, at: Link, why: str) -> list[Event]:
        was_ready = at.state == "ready"
        if was_ready and at.name == ORDERS:
            self._orders_lost_mono = turn.mono
        least, most = self._settings.reconnect_backoff_min_ms, self._settings.reconnect_backoff_max_ms
        at.backoff_ms = least if was_ready else min(most, max(least, 2 * at.backoff_ms))
        at.state, at.conn, at.redial_mono = "down", None, turn.mono + at.backoff_ms
        events: list[Event] = [Down(at.name, why, was_ready)]
        gone = [number for number, pending in self._pending.items() if pending.link == at.name]
        for number in gone:
            pending = self._pending.pop(number)
            events.append(Lost(pending.tag, pending.method, True, why))
        return events

    def on_open(self, turn: Turn, conn: str) -> list[Event]:
        """A dial succeeded: begin the handshake."""
        at = self._of(conn)
        if at is None:
            turn.send(Close(conn, "of an earlier generation"))
            return []
        at.state, at.heard_mono = "greeting", turn.mono
        at.steps = self._handshake(at.name)
        return self._next_step(turn, at)

    def on_close(self, turn: Turn, conn: str, why: str) -> list[Event]:
        """A connection is down, or a dial failed."""
        at = self._of(conn)
        return [] if at is None else self._went_down(turn, at, why)

    def _of(self, conn: str) -> Link | None:
        for at in self.links.values():
            if at.conn == conn:  # the number of the generation is part of the name
                return at
        return None

    def _handshake(self, name: str) -> list[tuple[str, dict[str, Any]]]:
        hello = ("public/hello", {"client_name": f"trader/{name}", "client_version": self._settings.build_id})
        heartbeat = ("public/set_heartbeat", {"interval": self._settings.heartbeat_interval_s})
        if name == MARKET_DATA:
            return [hello, heartbeat, ("public/subscribe", {"channels": list(self.channels)})]
        return [
            hello, ("public/auth", self._credentials()), heartbeat,
            ("private/enable_cancel_on_disconnect", {"scope": "connection"}),
            ("private/subscribe", {"channels": list(self.user_channels)}),
        ]

    def _next_step(self, turn: Turn, at: Link) -> list[Event]:
        if at.steps:
            method, params = at.steps[0]
            self._send(turn, at, method, params, ("handshake", at.name), self._settings.handshake_ms_max)
            return []
        at.state, at.backoff_ms = "ready", 0
        if at.name == ORDERS:
            self._orders_lost_mono = None
        return [Up(at.name)]

    def subscribe(self, turn: Turn, channels: Sequence[str], *, anew: bool = False) -> None:
        """Subscribe to further market data; ``anew`` first unsubscribes, so that a fresh snapshot comes."""
        self.channels = tuple(dict.fromkeys((*self.channels, *channels)))
        params = {"channels": list(channels)}
        if anew:
            self.links[MARKET_DATA].granted -= set(channels)
            self.call(turn, MARKET_DATA, "public/unsubscribe", params, ("unsubscribe",), self._settings.request_ms_max)
        self.call(turn, MARKET_DATA, "public/subscribe", params, ("subscribe", tuple(channels)),
                  self._settings.request_ms_max)

    # ---- what comes in ----

    def on_frame(self, turn: Turn, conn: str, data: bytes) -> list[Event]:
        """A frame of a link. Stale generations are not listened to; what cannot be read ends the connection."""
        at = self._of(conn)
        if at is None:
            return []
        at.heard_mono = turn.mono
        try:
            message = orjson.loads(data)
            method = message.get("method")
            if method == "subscription":
                params = message["params"]
                return [Notice(at.name, params["channel"], params["data"])]
            if method == "heartbeat":
                if message["params"]["type"] == "test_request":
                    self._send(turn, at, "public/test", {}, ("test",), self._settings.request_ms_max)
                return []
            return self._answered(turn, at, message)
        except (AttributeError, KeyError, TypeError, ValueError) as why:
            return self.hang_up(turn, at.name, f"unreadable frame: {type(why).__name__}")

    def _answered(self, turn: Turn, at: Link, message: Mapping[str, Any]) -> list[Event]:
        pending = self._pending.get(message.get("id", 0))
        error = message.get("error")
        limited: list[Event] = []
        if error is not None and _code(error) == TOO_MANY_REQUESTS:
            limited = [Limited(at.name, 10028)]
        # Until here nothing was taken: a frame that cannot be read ends the connection, and what it answered is lost.
        self._pending.pop(message.get("id", 0), None)
        if pending is None:
            return limited  # too late: it was reported as lost, and looked up since
        if pending.tag[0] == "handshake":
            return limited + self._greeted(turn, at, pending, message)
        if pending.tag[0] == "subscribe" and (error is not None or not _covers(message["result"], pending.tag[1])):
            return limited + self.hang_up(turn, at.name, "a subscription was not granted")
        if error is None:
            self._renewed(turn, at, pending.method, message)
        if pending.tag[0] == "subscribe":
            at.granted |= set(message["result"])
        return [*limited, _answer(pending, message)]

    @staticmethod
    def _renewed(turn: Turn, at: Link, method: str, message: Mapping[str, Any]) -> None:
        if method == "public/auth":
            at.renew_mono = turn.mono + int(message["result"]["expires_in"]) * RENEW_SHARE_MS

    def _greeted(self, turn: Turn, at: Link, pending: _Pending, message: Mapping[str, Any]) -> list[Event]:
        error = message.get("error")
        method, params = at.steps[0]
        if error is not None:
            events = self.hang_up(turn, at.name, f"{method}: {error['code']} {error.get('message', '')}")
            return [*events, _answer(pending, message)]
        if method.endswith("/subscribe") and not _covers(message["result"], params["channels"]):
            return self.hang_up(turn, at.name, "a subscription was not granted")
        if method.endswith("/subscribe"):
            at.granted |= set(message["result"])
        self._renewed(turn, at, method, message)
        at.steps.pop(0)
        return self._next_step(turn, at)

    def on_response(self, turn: Turn, response: Response) -> list[Event]:
        """An answer of REST: the body says what happened, the status only whether it was 429."""
        pending = self._pending.pop(response.id, None)
        if pending is None or pending.link != REST:
            return []
        self._rest_heard_mono = turn.mono
        limited: list[Event] = [Limited(REST, 429)] if response.status == 429 else []
        try:
            message = orjson.loads(response.body)
            if not isinstance(message, dict) or ("result" not in message and "error" not in message):
                raise TypeError("no JSON-RPC answer")
            answer = _answer(pending, message)
        except (KeyError, TypeError, ValueError) as why:
            if limited:
                return [*limited, Answer(pending.tag, pending.method, None, TOO_MANY_REQUESTS, "429", pending.asked_mono)]
            return [Lost(pending.tag, pending.method, True, f"unreadable answer: {type(why).__name__}")]
        if not limited and answer.code == TOO_MANY_REQUESTS:
            limited = [Limited(REST, 10028)]
        if answer.code in UNAUTHORIZED:
            self._token = None
        if pending.tag[0] == "rest_auth":
            self._authorized(turn, answer)
        return [*limited, answer]

    def _authorized(self, turn: Turn, answer: Answer) -> None:
        if answer.code is not None:
            return
        self._token = answer.result["access_token"]
        self._token_until_mono = turn.mono + int(answer.result["expires_in"]) * RENEW_SHARE_MS

    def on_unanswered(self, turn: Turn, value: Unanswered) -> list[Event]:
        """A REST request got no answer."""
        pending = self._pending.pop(value.id, None)
        if pending is None:
            return []
        return [Lost(pending.tag, pending.method, value.sent, value.why)]


def _answer(pending: _Pending, message: Mapping[str, Any]) -> Answer:
    error = message.get("error")
    if error is not None:
        return Answer(pending.tag, pending.method, None, _code(error), str(error.get("message", "")), pending.asked_mono)
    return Answer(pending.tag, pending.method, message["result"], None, "", pending.asked_mono)


def _code(error: Mapping[str, Any]) -> int:
    """The code of an error. Raises KeyError or TypeError when it has none."""
    code = error["code"]
    if isinstance(code, bool) or not isinstance(code, int):
        raise TypeError(f"the error's code is a {type(code).__name__}")
    return code


def _covers(granted: object, asked: Sequence[str]) -> bool:
    return isinstance(granted, list) and set(asked) <= set(granted)
