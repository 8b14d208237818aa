"""What the control port turned on, and how often each thing had effect.

A switch that is on changes nothing by itself: whoever does the thing asks here, and says so with ``use`` when it changed
what would have happened. Names and arguments are data: `specs/exchange/switches.yaml`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from system_under_test.exchange.instruments import Instrument
from system_under_test.exchange.protocol import Method, Refused, check, read_parameters, read_table


class Unknown(Exception):
    """No switch or act of that name; the text names the nearest."""


@dataclass(slots=True)
class Switch:
    arguments: Mapping[str, Any]
    uses: int = 0
    last_ms: int | None = None
    """when it last had effect, monotonic"""


class Switches:
    """The state of all switches."""

    def __init__(self, specs: Path, on_event: Callable[[str, str, int], None]) -> None:
        raw = read_table(specs / "exchange" / "switches.yaml")
        self._known = {name: _form(name, value) for name, value in raw["switches"].items()}
        self._acts = {name: _form(name, value) for name, value in raw["acts"].items()}
        self._on: dict[str, Switch] = {}
        self._tell = on_event
        self.any_on = False
        """whether there is any switch to ask for"""

    def put(self, name: str, arguments: Mapping[str, Any]) -> Switch:
        """Turn a switch on (again). Raises Unknown, or Refused for bad arguments."""
        values = _checked(self._known, name, arguments)
        self._on[name] = Switch(values)
        self.any_on = True
        self._tell(name, "on", 0)
        return self._on[name]

    def off(self, name: str) -> int:
        """Turn it off; returns its uses. Idempotent. Raises Unknown."""
        if name not in self._known:
            raise _unknown(name, self._known)
        switch = self._on.pop(name, None)
        self.any_on = bool(self._on)
        if switch is None:
            return 0
        self._tell(name, "off", switch.uses)
        return switch.uses

    def act(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The checked arguments of an act. Raises Unknown or Refused."""
        return _checked(self._acts, name, arguments)

    def document(self) -> dict[str, Any]:
        return {name: {"on": name in self._on, "arguments": self._on[name].arguments if name in self._on else {},
                       "uses": self._on[name].uses if name in self._on else 0} for name in self._known}

    def get(self, name: str) -> Mapping[str, Any] | None:
        """Its arguments while it is on and has effect left."""
        switch = self._on.get(name)
        if switch is None:
            return None
        times = switch.arguments.get("times")
        return None if times is not None and switch.uses >= times else switch.arguments

    def active(self, name: str) -> bool:
        """Whether it is on and has effect left."""
        return name in self._on and self.get(name) is not None

    def due(self, name: str, now_ms: int, every_ms: int) -> bool:
        """Whether its last use lies ``every_ms`` back."""
        last = self._on[name].last_ms
        return last is None or now_ms - last >= every_ms

    def use(self, name: str, now_ms: int) -> None:
        """It changed what would have happened."""
        switch = self._on[name]
        switch.uses += 1
        switch.last_ms = now_ms
        self._tell(name, "use", switch.uses)

    def on_instrument(self, name: str, instrument: Instrument) -> Mapping[str, Any] | None:
        """Its arguments, if it is on and names this instrument."""
        arguments = self.get(name)
        return arguments if arguments is not None and names(arguments["instrument"], instrument) else None


def names(pattern: str, instrument: Instrument) -> bool:
    """Whether a switch's ``instrument`` argument means this one."""
    return (pattern in ("all", instrument.name) or (pattern == "options" and instrument.option)
            or (pattern == "futures" and not instrument.option))


def _form(name: str, raw: Mapping[str, Any]) -> Method:
    return Method(name, None, "none", 0, False, True, read_parameters(raw), None)


def _checked(known: Mapping[str, Method], name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    if name not in known:
        raise _unknown(name, known)
    form = known[name]
    stray = set(arguments) - {parameter.name for parameter in form.parameters}
    if stray:
        raise Refused(-32602, {"reason": f"unknown argument; known: {[p.name for p in form.parameters]}",
                               "param": sorted(stray)[0]})
    return check(form, arguments, textual=False)


def _unknown(name: str, known: Mapping[str, Method]) -> Unknown:
    near = difflib.get_close_matches(name, known, 1)
    return Unknown(f"no {name!r}" + (f"; nearest: {near[0]}" if near else f"; known: {', '.join(known)}"))
