"""A run's secrets: put where the stack and the drill ask for them, and kept out of what the run tells.

``{secret:NAME}`` in a node's environment and ``${secret:NAME}`` in a header of the drill are the places. ``{policy}`` in an
environment is the run's policy, ``{policy:NAME}`` the same as an overlay of the stack changes it. What a node
says to us, in an answer, an error, a log or a stream, is blotted before it is kept; that it said a secret is written
down all the same, by name and place, because a system that tells its secrets has failed.

A secret is known as it stands, as JSON writes it, in base64 at any offset, and in hexadecimal. In pieces that do not
touch, encrypted or otherwise disguised it is not.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from harness.drill.model import Json
from harness.recording.tape import canonical

BLOT = "***"
PIECE_MIN = 8
"""Of what was cut off in its middle, so much of a secret's beginning is blotted, too."""
WORD = 8
"""Bytes that are compared at once where secrets are looked for."""
_BLANK = re.compile(r"\{(?:secret:(?P<secret>\w+)|policy(?P<overlay>:\w+)?)\}")
_HEADER = re.compile(r"\$\{secret:(\w+)\}")


class Secrets:
    """``values``: name → secret. The names are those that the stack lists (`load_stack` holds it to that)."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = dict(values)
        self._needles = tuple((name, needle) for name, value in values.items() for needle in disguises(value))
        self._sieve = Sieve(needle for _, needle in self._needles)
        self._texts = tuple((name, needle.decode()) for name, needle in self._needles)
        self._told: dict[tuple[str, str], None] = {}

    def fill(self, text: str, policy: Mapping[str, object],
             overlay: Callable[[str], Mapping[str, object]] = lambda name: {}) -> str:
        """Put secrets and policy into a value of stack.yaml, in one pass: what was put in is not read again.

        ``overlay`` gives the values by which a named overlay changes the policy; a mapping is changed key by key."""
        def filled(blank: re.Match[str]) -> str:
            if blank["secret"]:
                return self.values[blank["secret"]]
            return canonical(overlaid(policy, overlay(blank["overlay"][1:]) if blank["overlay"] else {})).decode()

        return _BLANK.sub(filled, text)

    def fill_header(self, text: str) -> str:
        """Put secrets into a header of the drill; an unknown name stays as it stands."""
        return _HEADER.sub(lambda blank: self.values.get(blank[1], blank[0]), text)

    def blotted(self, text: str, where: str) -> str:
        """The text without any secret of the run. ``where`` it stood is remembered for `found`."""
        for name, needle in self._texts:
            if needle in text:
                self._told[name, where] = None
                text = text.replace(needle, BLOT)
        return text

    def stands_in(self, data: bytes) -> bool:
        return self._sieve.may_hold(data) and any(needle in data for _, needle in self._needles)

    def starred(self, data: bytes, where: str) -> bytes:
        """The same number of bytes, with a star for each byte of a secret: what holds lengths or JSON holds still."""
        if not self._sieve.may_hold(data):
            return data
        for name, needle in self._needles:
            if needle in data:
                self._told[name, where] = None
                data = data.replace(needle, b"*" * len(needle))
        return data

    def without_piece(self, data: bytes) -> bytes:
        """``data`` was cut off somewhere: without the beginning of a secret at its end."""
        for _, needle in self._needles:
            for size in range(len(needle) - 1, PIECE_MIN - 1, -1):
                if data.endswith(needle[:size]):
                    return data[:-size] + b"*" * size
        return data

    @property
    def longest(self) -> int:
        """Bytes of the longest disguise of any secret; 0 without one."""
        return max((len(needle) for _, needle in self._needles), default=0)

    def found(self, leaks: Sequence[Mapping[str, str]]) -> list[Json]:
        """Where secrets of the run came to light: in files (``{secret, file}`` each), and where they were blotted."""
        told = [{"secret": name, "file": where} for name, where in self._told]
        return [dict(each) for each in [*leaks, *(each for each in told if each not in leaks)]]


class Sieve:
    """A quick no to whether one of many needles lies in a haystack. Only some of the haystack's words are looked at, just so
    far apart that wherever a needle lies, one of them lies wholly within it; so if none of them is a piece of a needle,
    there is no needle. Where a needle is too short for that, the answer is always: maybe."""

    def __init__(self, needles: Iterable[bytes]) -> None:
        needles = tuple(needles)
        self._apart = (min(map(len, needles), default=2 * WORD) - WORD + 1) // WORD
        self._pieces = {int.from_bytes(needle[at:at + WORD], sys.byteorder) for needle in needles
                        for at in range(len(needle) - WORD + 1)}

    def may_hold(self, data: bytes) -> bool:
        apart = self._apart
        return apart < 1 or not self._pieces.isdisjoint(memoryview(data)[:len(data) // WORD * WORD].cast("Q")[::apart])


def overlaid(policy: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """A policy with some of its values changed; where both are mappings, key by key."""
    changed: dict[str, object] = dict(policy)
    for key, value in over.items():
        before = policy.get(key)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        changed[key] = {**before, **value} if both else value  # type: ignore[dict-item]
    return changed


def disguises(secret: str) -> tuple[bytes, ...]:
    """The secret as JSON writes it (first: the secret itself may be a piece of that) and as it stands, the part of its
    base64 that does not depend on what precedes or follows it, and its hexadecimal digits in both cases."""
    plain = secret.encode()
    written = (json.dumps(secret, ensure_ascii=ascii)[1:-1].encode() for ascii in (True, False))
    encoded = (base64.b64encode(b"\0" * shift + plain)[4 if shift else 0:(shift + len(plain)) // 3 * 4]
               for shift in range(3))
    digits = plain.hex()
    known = (*written, plain, *(each for each in encoded if each), digits.encode(), digits.upper().encode())
    return tuple(dict.fromkeys(known))
