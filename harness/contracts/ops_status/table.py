"""The ladder of the ops status contract, as pure functions over ``specs/ops_status``. Source: ops, "Truth table".

``Table.decide`` says what a service's state must be, which row of the ladder says so, and what gates. ``Calendars.is_open``
says whether a market is open at a moment. Neither knows anything of documents.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from harness import limits, texts
from harness.contracts.library import REPOSITORY
from harness.errors import SpecError, TextError

FOLDER = "specs/ops_status"
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

Inputs = Mapping[str, Any]
Condition = Callable[[Inputs], bool]


def read_spec(root: Path, name: str) -> dict[str, Any]:
    """A YAML file of ``specs/ops_status``. Raises SpecError."""
    file = root / FOLDER / name
    try:
        found = texts.load(texts.read(file, limits.SPEC_FILE_BYTES_MAX), str(file))
    except TextError as why:
        raise SpecError(str(why)) from why
    except OSError as why:
        raise SpecError(f"{file}: cannot be read: {why.strerror}") from why
    if not isinstance(found, dict):
        raise SpecError(f"{file}: expected a mapping")
    return found


# ---- the ladder -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Decision:
    """What the table says of one set of inputs."""

    row: str
    state: str
    reason: str | None
    gating: tuple[str, ...]
    safe_to_run_strategies: bool

    @property
    def codes(self) -> list[str]:
        """As ``status.reason_codes`` holds them."""
        return [self.reason] if self.reason is not None else []


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the ladder (``state``), or a reason that gates (``stops``)."""

    name: str
    kinds: frozenset[str]
    condition: Condition
    reason: str | None
    state: str = ""
    stops: bool = False

    def holds(self, inputs: Inputs) -> bool:
        return inputs["service_kind"] in self.kinds and self.condition(inputs)


class Table:
    """``truth_table.yaml``, compiled."""

    def __init__(self, raw: Mapping[str, Any], file: str = "truth_table.yaml") -> None:
        try:
            self.states: tuple[str, ...] = tuple(raw["states"])
            self.summaries: Mapping[str, str] = dict(raw["summaries"])
            self.kinds: tuple[str, ...] = tuple(raw["kinds"])
            self.codes: tuple[str, ...] = tuple(raw["reason_codes"])
            self.watching = frozenset(raw["watches_market_data"])
            self.required: tuple[str, ...] = tuple(raw["required_fields"])
            self.skew_s = float(raw["freshness"]["skew_seconds_max"])
            self.stamps_apart_s = float(raw["heartbeat"]["clock_seconds_max"])
            self._inputs = frozenset(raw["inputs"])
            self.ladder = tuple(self._row(each, each["row"]) for each in raw["ladder"])
            self.gates = tuple(self._row(each, each["reason"]) for each in raw["gating"])
        except (KeyError, TypeError, ValueError, AttributeError) as why:
            raise SpecError(f"{file}: a part is missing or has the wrong shape: {why!r}") from why
        self._agrees(file)

    def decide(self, inputs: Inputs) -> Decision:
        """The first row of the ladder that holds, and every reason that gates."""
        row = next(each for each in self.ladder if each.holds(inputs))
        gates = [each for each in self.gates if each.holds(inputs)]
        return Decision(row.name, row.state, row.reason, tuple(str(each.reason) for each in gates),
                        not any(each.stops for each in gates))

    def knows(self, kind: str, state: str, codes: Sequence[Any]) -> bool:
        """Whether some row puts a service of that kind into that state, for just these reasons."""
        return any(kind in row.kinds and row.state == state and [*codes] == ([row.reason] if row.reason is not None else [])
                   for row in self.ladder)

    def is_fresh(self, tick_age_s: float | None, threshold_s: float) -> bool | None:
        """Whether a tick of that age is fresh; both ends belong to it, and a little of the future."""
        return None if tick_age_s is None else -self.skew_s <= tick_age_s <= threshold_s

    def in_order(self, codes: Iterable[str]) -> list[str]:
        """Each code once, in the table's order; codes that it does not know come last."""
        known = {code: place for place, code in enumerate(self.codes)}
        return sorted(set(codes), key=lambda code: (known.get(code, len(known)), code))

    def _row(self, raw: Mapping[str, Any], name: str) -> Row:
        return Row(name, frozenset(raw.get("kinds", self.kinds)), _all(raw["when"], self._inputs), raw["reason"],
                   raw.get("state", ""), raw.get("stops_strategies", False))

    def _agrees(self, file: str) -> None:
        wrong = [*(f"{row.name}: the state {row.state!r}" for row in self.ladder if row.state not in self.states),
                 *(f"{row.name}: the code {row.reason!r}" for row in self.ladder
                   if row.reason is not None and row.reason not in self.codes),
                 *(f"{row.name}: the kind {kind!r}" for row in (*self.ladder, *self.gates)
                   for kind in row.kinds - {*self.kinds}),
                 *(f"summaries: {state!r}" for state in {*self.states} ^ {*self.summaries})]
        if wrong:
            raise SpecError(f"{file}: nobody knows {'; '.join(sorted(wrong))}")
        if not self.ladder or self.ladder[-1].kinds != {*self.kinds}:
            raise SpecError(f"{file}: the last row of the ladder must hold for every kind")


def _all(when: Mapping[str, Any], known: frozenset[str]) -> Condition:
    parts = [_any(value, known) if name == "any_of" else _one(name, value, known) for name, value in when.items()]
    return parts[0] if len(parts) == 1 else lambda inputs: all(part(inputs) for part in parts)


def _any(alternatives: Sequence[Mapping[str, Any]], known: frozenset[str]) -> Condition:
    parts = [_all(each, known) for each in alternatives]
    return lambda inputs: any(part(inputs) for part in parts)


def _one(name: str, wanted: Any, known: frozenset[str]) -> Condition:
    """``null`` is no false, and of null no comparison holds."""
    if name not in known:
        raise ValueError(f"no input {name!r}")
    if not isinstance(wanted, Mapping):
        return lambda inputs: inputs[name] is wanted
    (operator, value), = wanted.items()
    if operator == "at_most" and isinstance(value, int | float):
        return lambda inputs: inputs[name] is not None and inputs[name] <= value
    if operator == "above" and value in known:
        return lambda inputs: inputs[name] is not None and inputs[value] is not None and inputs[name] > inputs[value]
    raise ValueError(f"{name}: no condition {wanted!r}")


@cache
def table_of(root: Path = REPOSITORY) -> Table:
    """The table under ``root``, read once."""
    return Table(read_spec(root, "truth_table.yaml"), str(root / FOLDER / "truth_table.yaml"))


# ---- time -------------------------------------------------------------------------------------------------

_STAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})?\Z")


STAMP_MAX = 32
"""Characters of the longest one."""


def instant(text: object) -> datetime | None:
    """The moment that an ISO 8601 text names, in UTC; without an offset it is UTC. None where it names none."""
    return _instant(text) if isinstance(text, str) and len(text) <= STAMP_MAX else None


@lru_cache(maxsize=1_024)
def _instant(text: str) -> datetime | None:
    """Read once: services tell one time in several places, and some of them for minutes."""
    if not _STAMP.match(text):
        return None
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):  # the 31st of February; an offset that leads out of the calendar
        return None


class Calendars:
    """``calendars.yaml``: when a market is open, by name."""

    def __init__(self, raw: Mapping[str, Any], file: str = "calendars.yaml") -> None:
        try:
            self._calendars = {name: _calendar(each) for name, each in raw["calendars"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as why:
            raise SpecError(f"{file}: a calendar is missing or has the wrong shape: {why!r}") from why

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._calendars)

    def is_open(self, name: str, at: datetime) -> bool | None:
        """Whether the market is open; a naive time is UTC. None when the calendar, or its zone's rules, are not to be had."""
        calendar = self._calendars.get(name)
        if calendar is None:
            return None
        try:
            return calendar(at if at.tzinfo is not None else at.replace(tzinfo=UTC))
        except (OSError, KeyError, ValueError, OverflowError):  # ZoneInfoNotFoundError is a KeyError
            return None


def _calendar(raw: Mapping[str, Any]) -> Callable[[datetime], bool]:
    if "always" in raw:
        always = {"open": True, "closed": False}[raw["always"]]
        return lambda at: always
    zone, days = str(raw["zone"]), frozenset(DAYS.index(day) for day in raw["days"])
    opens, closes = time.fromisoformat(raw["opens"]), time.fromisoformat(raw["closes"])

    def is_open(at: datetime) -> bool:
        local = at.astimezone(ZoneInfo(zone))
        return local.weekday() in days and opens <= local.time() <= closes

    return is_open


@cache
def calendars_of(root: Path = REPOSITORY) -> Calendars:
    """The calendars under ``root``, read once."""
    return Calendars(read_spec(root, "calendars.yaml"), str(root / FOLDER / "calendars.yaml"))
