"""Questions to a peer over HTTP: one in flight at a time, each with a deadline, and no trust in what comes back.

An answer is taken when it is the one that was asked for, says 200, and is of a decent size; everything else (a redirect, an
error, a megabyte, half an answer, nothing at all) is no answer. What is known is as old as its question, not as its answer.
"""

from __future__ import annotations

from itertools import count

from msgspec import Struct

from system_under_test.machine import Close, Note, Now, Request, Response, Unanswered, Value

DEADLINE_MS = 1_500
BODY_BYTES_MAX = 65_536
"""No status document is longer; a longer answer is not even looked at."""


class Heard(Struct, frozen=True):
    """What became of a question: ``body`` is None when there was no answer to be taken."""

    asked_ms: int
    body: bytes | None
    why: str | None = None
    reached: bool = False
    """whether anybody answered at all, whatever it was"""


class Asker:
    """The questions of one kind to one peer. ``numbers`` is shared by all that ask over one link."""

    def __init__(self, link: str, target: str, *, method: str = "GET", headers: tuple[tuple[str, str], ...] = (),
                 body: bytes = b"", numbers: count[int] | None = None) -> None:
        self.link = link
        self._question = (method, target, headers, body)
        self._numbers = count(1) if numbers is None else numbers
        self._pending: tuple[str, int, int] | None = None
        self._trouble: str | None = None

    def ask(self, now: Now) -> list[Value]:
        """Ask now, unless a question is still in flight; one beyond its deadline is given up."""
        out: list[Value] = []
        if self._pending is not None:
            conn, _, asked_ms = self._pending
            if now.mono_ms - asked_ms < DEADLINE_MS:
                return out
            out += [Close(conn, "no answer in time"), *self.trouble(f"no answer within {DEADLINE_MS} ms")]
        number = next(self._numbers)
        conn = f"{self.link}#{number}"
        self._pending = (conn, number, now.mono_ms)
        method, target, headers, body = self._question
        out.append(Request(conn, number, method, target, headers, body))
        return out

    def settle(self, value: Response | Unanswered) -> Heard | None:
        """What the question in flight came to; None when this belongs to another."""
        if self._pending is None or (value.conn, value.id) != self._pending[:2]:
            return None
        asked_ms, self._pending = self._pending[2], None
        if isinstance(value, Unanswered):
            return Heard(asked_ms, None, "asked, and got no answer" if value.sent else "not reachable")
        if value.status != 200:
            return Heard(asked_ms, None, f"answered {value.status}", True)
        if len(value.body) > BODY_BYTES_MAX:
            return Heard(asked_ms, None, f"answered more than {BODY_BYTES_MAX} bytes", True)
        return Heard(asked_ms, value.body, None, True)

    def trouble(self, why: str | None) -> list[Value]:
        """A note when trouble with the peer begins, changes or ends."""
        if why == self._trouble:
            return []
        self._trouble = why
        return [Note("peer_well" if why is None else "peer_trouble", None, {"link": self.link, "why": why})]
