"""Who is there and what they may: connections, tokens and their scopes, credit pools."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from system_under_test.exchange import dice
from system_under_test.exchange.protocol import Pool, Refused

SIGNATURE_MS_MAX = 60_000
"""A signature older or newer than this is refused."""
TOKENS_MAX = 4_096
"""Oldest tokens are forgotten beyond this; a client in a login loop must not fill the memory."""
REFRESH_FACTOR = 10
"""A refresh token lives this much longer than its access token."""
ALL_SCOPES = ("account:read_write", "block_trade:read_write", "trade:read_write", "wallet:read_write")
_READ = {"account:read", "block_trade:read", "trade:read", "wallet:read"}


@dataclass(slots=True, eq=False)
class Grant:
    """A pair of tokens and what they allow. Times are monotonic."""

    access: str
    refresh: str
    scopes: tuple[str, ...]
    expires_ms: int
    expires_in: int
    refresh_until_ms: int
    conn: str | None
    """the connection it dies with; None for a named session"""
    session: str | None = None

    def allows(self, scope: str) -> bool:
        return scope == "any" or scope in self.scopes or (scope.endswith(":read") and f"{scope}_write" in self.scopes)

    def document(self, state: str | None) -> dict[str, Any]:
        document: dict[str, Any] = {
            "access_token": self.access, "token_type": "bearer", "expires_in": self.expires_in,
            "refresh_token": self.refresh, "scope": " ".join(self.scopes), "sid": self.refresh[:16],
            "enabled_features": [], "mandatory_tfa_status": "disabled", "google_login": False,
        }
        if state is not None:
            document["state"] = state
        return document


@dataclass(slots=True, eq=False)
class Session:
    """One WebSocket connection, or one HTTP request for as long as it lasts."""

    conn: str
    websocket: bool
    client: str = ""
    grant: Grant | None = None
    heard_ms: int = 0
    heartbeat_ms: int | None = None
    tested: bool = False
    """a test_request is out and unanswered"""
    cancel_on_disconnect: bool = False
    disconnect_fired: bool = False
    channels: dict[str, str | None] = field(default_factory=dict)
    """channel → label of the subscription"""
    frames: int = 0
    bytes: int = 0
    told_frames: int = 0
    told_ms: int = 0
    pools: dict[str, Credits] = field(default_factory=dict)
    closing: bool = False


class Credits:
    """A pool that refills with time. Whole numbers: credits × 1000, so that a millisecond's share is exact."""

    __slots__ = ("pool", "held", "at_ms")

    def __init__(self, pool: Pool, now_ms: int) -> None:
        self.pool, self.held, self.at_ms = pool, pool.burst * 1_000, now_ms

    def take(self, cost: int, now_ms: int) -> bool:
        """Draw ``cost`` credits, or say that they are not there."""
        self.held = min(self.pool.burst * 1_000, self.held + (now_ms - self.at_ms) * self.pool.rate)
        self.at_ms = now_ms
        if self.held < cost * 1_000:
            return False
        self.held -= cost * 1_000
        return True


class Tokens:
    """Logs clients in and knows what tokens allow."""

    def __init__(self, seed: int, credentials: Mapping[str, str], life_s: int) -> None:
        self._seed, self._credentials, self._life_s = seed, credentials, life_s
        self._by_access: dict[str, Grant] = {}
        self._by_refresh: dict[str, Grant] = {}
        self._made = 0

    def login(self, params: Mapping[str, Any], session: Session, now_ms: int, wall_ms: int) -> Grant:
        """``public/auth``. Raises Refused."""
        kind = params["grant_type"]
        if kind == "refresh_token":
            return self.refresh(params["refresh_token"], session, now_ms)
        if kind == "client_credentials":
            self._secret(params["client_id"], params["client_secret"])
        else:
            signed = f"{params['timestamp']}\n{params['nonce'] or ''}\n{params['data'] or ''}"
            self._signature(params["client_id"], params["timestamp"], signed, params["signature"], wall_ms)
        return self.grant(params["scope"] or "", session, now_ms)

    def refresh(self, token: str | None, session: Session, now_ms: int) -> Grant:
        old = self._by_refresh.get(token or "")
        if old is None or now_ms >= old.refresh_until_ms:
            raise Refused(13009, {"reason": "invalid_token"})
        self.forget(old)
        return self.grant(" ".join(old.scopes), session, now_ms)

    def grant(self, asked: str, session: Session, now_ms: int) -> Grant:
        """Make tokens for what is asked; nothing asked is everything. A named session has one grant at a time."""
        scopes, name, life_s, bound = _scopes(asked, self._life_s, session.websocket)
        if name is not None:
            for old in [g for g in self._by_access.values() if g.session == name]:
                self.forget(old)
        self._made += 1
        access = f"1.{dice.token(self._seed, 'access', self._made)[:43]}"
        refresh = f"1.{dice.token(self._seed, 'refresh', self._made)[:43]}"
        grant = Grant(access, refresh, scopes, now_ms + life_s * 1_000, life_s,
                      now_ms + life_s * 1_000 * REFRESH_FACTOR, session.conn if bound else None, name)
        self._by_access[access] = self._by_refresh[refresh] = grant
        if len(self._by_access) > TOKENS_MAX:
            self.forget(next(iter(self._by_access.values())))
        return grant

    def forget(self, grant: Grant) -> None:
        self._by_access.pop(grant.access, None)
        self._by_refresh.pop(grant.refresh, None)
        grant.expires_ms = grant.refresh_until_ms = -1

    def closed(self, conn: str) -> None:
        """Tokens bound to this connection die with it."""
        for grant in [g for g in self._by_access.values() if g.conn == conn]:
            self.forget(grant)

    def of(self, access: str, session: Session, now_ms: int) -> Grant:
        """The grant of an access token. Raises 13009."""
        grant = self._by_access.get(access)
        if grant is None or now_ms >= grant.expires_ms or (grant.conn is not None and grant.conn != session.conn):
            raise Refused(13009, {"reason": "invalid_token"})
        return grant

    def from_header(self, header: str, session: Session, request: tuple[str, str, bytes], now_ms: int, wall_ms: int) -> Grant:
        """The grant of an Authorization header. Raises Refused."""
        kind, _, rest = header.strip().partition(" ")
        if kind.lower() == "bearer":
            return self.of(rest.strip(), session, now_ms)
        if kind.lower() == "basic":
            id, _, secret = _basic(rest).partition(":")
            self._secret(id, secret)
            return self._passing(session, now_ms)
        if kind.lower() == "deri-hmac-sha256":
            fields = dict(part.strip().partition("=")[::2] for part in rest.split(","))
            method, target, body = request
            text = f"{fields.get('ts', '')}\n{fields.get('nonce', '')}\n{method}\n{target}\n".encode() + body + b"\n"
            ts = fields.get("ts", "")
            self._signature(fields.get("id"), int(ts) if ts.isascii() and ts.isdigit() and len(ts) < 20 else None, text,
                            fields.get("sig"), wall_ms)
            return self._passing(session, now_ms)
        raise Refused(13009, {"reason": "unknown authorization scheme"})

    def _passing(self, session: Session, now_ms: int) -> Grant:
        """Rights for one request that proved itself."""
        return Grant("", "", ALL_SCOPES, now_ms + 1, 0, 0, session.conn)

    def _secret(self, id: str | None, secret: str | None) -> None:
        known = self._credentials.get(id or "")
        if known is None or not hmac.compare_digest(known.encode(), (secret or "").encode()):
            raise Refused(13004)

    def _signature(self, id: str | None, timestamp: int | None, text: str | bytes, given: str | None, wall_ms: int) -> None:
        known = self._credentials.get(id or "")
        text = text.encode() if isinstance(text, str) else text
        if known is None or timestamp is None or given is None:
            raise Refused(13004)
        made = hmac.new(known.encode(), text, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(made.encode(), given.lower().encode()):
            raise Refused(13004)
        if abs(wall_ms - timestamp) > SIGNATURE_MS_MAX:
            raise Refused(13004, {"reason": "timestamp too far from server time", "param": "timestamp"})


def _basic(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        raise Refused(13004) from None


def _scopes(asked: str, life_s: int, websocket: bool) -> tuple[tuple[str, ...], str | None, int, bool]:
    """What a scope text grants: the scopes to echo, the session's name, the life in seconds, bound to the connection or not."""
    words = asked.split()
    name = next((word[8:] for word in words if word.startswith("session:") and word[8:]), None)
    for word in words:
        if word.startswith("expires:") and word[8:].isascii() and word[8:].isdigit() and len(word) < 16:
            life_s = max(min(life_s, int(word[8:])), 1)
    rights = [word for word in words if word in ALL_SCOPES or word in _READ]
    named = any(word.split(":")[0] in ("account", "trade", "wallet", "block_trade") for word in words)
    if not rights and not named:
        rights = list(ALL_SCOPES)
    bound = websocket and name is None
    first = [f"session:{name}"] if name else ["connection"] if bound else []
    extra = [word for word in words if word.startswith("ip:") or word == "mainaccount"]
    return (*first, *dict.fromkeys(rights), *(extra or ["mainaccount"])), name, life_s, bound
