"""The crash trap: which outgoing value a process dies before (`harness.drill.model.Kill.before`).

Meanings, as the shell has them: ``send`` a message or request whose JSON-RPC method is the name · ``append`` to
the log of that name · ``replace`` of the file of that name · ``request`` whose target begins with the name. The nth
counts from arming. A replace may name a step of its plan; then the process dies while it is being carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import orjson

from system_under_test.machine import Append, Frame, Replace, Request, Value


class Trap:
    def __init__(self, meaning: str, name: str, nth: int, step: str | None = None) -> None:
        self._matches, self._name, self._left, self._step = MEANINGS[meaning], name, nth, step

    def springs(self, value: Value, step: str | None = None) -> bool:
        """Whether this outgoing value is the one, or this step of its plan; counts it."""
        if step != self._step or not self._matches(value, self._name):
            return False
        self._left -= 1
        return self._left == 0


def _sends(value: Value, method: str) -> bool:
    if not isinstance(value, (Frame, Request)):
        return False
    try:
        document = orjson.loads(value.data if isinstance(value, Frame) else value.body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(document, dict) and document.get("method") == method


MEANINGS: Mapping[str, Callable[[Value, str], bool]] = {
    "send": _sends,
    "append": lambda value, log: isinstance(value, Append) and value.log == log,
    "replace": lambda value, file: isinstance(value, Replace) and value.file == file,
    "request": lambda value, path: isinstance(value, Request) and value.target.startswith(path),
}
