"""The crash trap: stop this process just before a named effect, so that it can be killed exactly there.

The file NODE_TRAP_FILE holds ``{"before": [meaning, name, nth]}``; SIGUSR1 arms it and ``<file>.armed`` says so.
Meanings: ``send`` a message or request whose JSON-RPC method is the name · ``append`` to the log of that name ·
``replace`` of the file of that name · ``request`` whose path begins with the name. The nth counts from arming. A fourth
word is a step of a replace's plan: then the process stops while that is being carried out, just before the step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from system_under_test.machine import Append, Frame, Replace, Request, Value


class Trap:
    def __init__(self, file: Path) -> None:
        self.file = file
        meaning, self._name, self._nth, *step = json.loads(file.read_bytes())["before"]
        self._matches, self._step = _MEANINGS[meaning], step[0] if step else None

    def springs(self, value: Value, step: str | None = None) -> bool:
        """Whether this outgoing value is the one, or this step of its plan; counts it."""
        if step != self._step or not self._matches(value, self._name):
            return False
        self._nth -= 1
        return self._nth == 0

    def say(self, suffix: str) -> None:
        """Leave ``<file>.<suffix>`` for whoever set the trap, whole or not at all."""
        temporary = self.file.with_name(self.file.name + ".new")
        temporary.write_text("{}")
        temporary.replace(self.file.with_name(f"{self.file.name}.{suffix}"))


def _sends(value: Value, method: str) -> bool:
    if not isinstance(value, (Frame, Request)):
        return False
    body = value.data if isinstance(value, Frame) else value.body
    try:
        document = json.loads(body)
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("method") == method


_MEANINGS: Mapping[str, Callable[[Value, str], bool]] = {
    "send": _sends,
    "append": lambda value, log: isinstance(value, Append) and value.log == log,
    "replace": lambda value, file: isinstance(value, Replace) and value.file == file,
    "request": lambda value, path: isinstance(value, Request) and value.target.startswith(path),
}
