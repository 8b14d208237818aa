"""A run's secrets: put where the stack and the drill ask for them, and kept out of what the run tells.

``{secret:NAME}`` in a node's environment and ``${secret:NAME}`` in a header of the drill are the places. What a node
says back to us, in an answer or an error, is blotted before it is written down; that it said a secret is written down
all the same, by name, because a system that tells its secrets has failed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from harness.drill.model import Json
from harness.recording.tape import canonical

BLOT = "***"
_BLANK = re.compile(r"\{(?:secret:(?P<secret>\w+)|policy)\}")
_HEADER = re.compile(r"\$\{secret:(\w+)\}")


class Secrets:
    """``values``: name → secret. The names are those that the stack lists (`load_stack` holds it to that)."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = dict(values)
        self._told: dict[tuple[str, str], None] = {}

    def fill(self, text: str, policy: Mapping[str, object]) -> str:
        """Put secrets and policy into a value of stack.yaml, in one pass: what was put in is not read again."""
        return _BLANK.sub(lambda blank: self.values[blank["secret"]] if blank["secret"] else canonical(policy).decode(), text)

    def fill_header(self, text: str) -> str:
        """Put secrets into a header of the drill; an unknown name stays as it stands."""
        return _HEADER.sub(lambda blank: self.values.get(blank[1], blank[0]), text)

    def blotted(self, text: str, where: str) -> str:
        """The text without any secret of the run. ``where`` it stood is remembered for `found`."""
        for name, secret in self.values.items():
            if secret in text:
                self._told[name, where] = None
                text = text.replace(secret, BLOT)
        return text

    def found(self, leaks: Sequence[Mapping[str, str]]) -> list[Json]:
        """Where secrets of the run came to light: in files (``{secret, file}`` each), and where they were blotted."""
        told = [{"secret": name, "file": where} for name, where in self._told]
        return [dict(each) for each in [*leaks, *(each for each in told if each not in leaks)]]
