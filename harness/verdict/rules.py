"""What a recording is judged by: events, witnesses, laws, goldens and contracts, read from one folder.

The folder holds ``specs/`` and ``fixtures/``: the checkout, or the ``rules/`` of a pack. Reading it again is only done
when a file under it has changed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from harness.contracts.library import GOLDENS
from harness.drill.predicate import MISSING, is_number, look, same
from harness.drill.specs import read_yaml, registry_codes
from harness.drill.words import shaped
from harness.errors import SpecError

CONTRACTS = ("csp_status", "ops_status", "state_files")
"""Modules of harness.contracts with a ``Contract`` that judges one document."""
PARTED = ("ops_status", "state_files")
"""Of these a contract has several parts, for documents of several shapes: ``Contract.load`` is told which is meant."""


@dataclass(frozen=True, slots=True)
class Event:
    """A thing that may happen: rows of a stream, or several events together."""

    name: str
    stream: str | None = None
    kind: str | None = None
    where: Mapping[str, Any] = field(default_factory=dict)
    all_of: tuple[str, ...] = ()
    repeats: str | None = None
    tried: str | None = None

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Whether the row is one of the event (``repeats`` apart, which asks about the rows before)."""
        return row.get("kind") == self.kind and all(_fits(look(row, path), wanted)
                                                    for path, wanted in self.where.items())


def _fits(found: Any, wanted: Any) -> bool:
    """A missing field fits nothing but ``is_not``."""
    if not isinstance(wanted, Mapping):
        return found is not MISSING and same(found, wanted)
    for operator, value in wanted.items():
        if operator == "is_not":
            fine = found is MISSING or not same(found, value)
        elif operator == "one_of":
            fine = found is not MISSING and any(same(found, each) for each in value)
        elif operator == "at_least":
            fine = is_number(found) and found >= value
        elif operator == "at_most":
            fine = is_number(found) and found <= value
        else:
            raise SpecError(f"events: no operator {operator!r}")
        if not fine:
            return False
    return True


@dataclass(frozen=True, slots=True)
class Law:
    """An invariant over a whole history: what it says, where that is written, and how it is asked."""

    id: str
    sentence: str
    source: str
    how: str
    parameters: Mapping[str, Any]
    surfaces: tuple[str, ...]
    """asked only of drills that sample these"""
    streams: tuple[str, ...] = ()
    """what its parameters read: streams by their names, and those of the events that they name"""
    keeps: str | None = None
    """asked only of drills that sample a surface under this contract, or a part of it"""


@dataclass(slots=True)
class Rules:
    root: Path
    events: Mapping[str, Event]
    witnesses: Mapping[str, Any]
    laws: tuple[Law, ...]
    blocked: tuple[Mapping[str, Any], ...]
    opening: str
    """the event of an opening order that the exchange took"""
    traded: tuple[str, ...]
    """the events that show a system at work: given and convergence ask for each"""
    traded_as: str
    """field of an order's id in the rows of those events"""
    surfaces_keep: str | None = None
    """the contract under which the laws read the surfaces that they name"""
    _contracts: dict[str, Any] = field(default_factory=dict)
    _registries: dict[str, frozenset[str]] = field(default_factory=dict)

    def contract(self, name: str, policy: Mapping[str, Any]) -> Any:
        """The contract that judges documents of that kind under a policy, such as ``csp_status`` or ``state_files.nav``: a
        module, and the part of it that is meant. Raises SpecError for one nobody knows."""
        whole, dot, part = name.partition(".")
        if whole not in CONTRACTS or (dot and whole not in PARTED):
            raise SpecError(f"no contract {name!r}; known: {', '.join(CONTRACTS)}")
        key = name + orjson.dumps(policy, option=orjson.OPT_SORT_KEYS).decode()
        if key not in self._contracts:
            module = importlib.import_module(f"harness.contracts.{whole}")
            self._contracts[key] = module.Contract.load(self.root, policy=policy, **({"part": part} if dot else {}))
        return self._contracts[key]

    def codes(self, registry: Mapping[str, Any]) -> frozenset[str]:
        """Every code of the registries that a rule names."""
        key = orjson.dumps(registry).decode()
        if key not in self._registries:
            self._registries[key] = frozenset(registry_codes(self.root, registry))
        return self._registries[key]

    def fixture(self, name: str, contract: str = "csp_status") -> Mapping[str, Any]:
        """A golden document of a contract. Raises SpecError."""
        folder = GOLDENS.get(contract.partition(".")[0])
        if folder is None:
            raise SpecError(f"fixture {name}: the contract {contract} has no goldens")
        value = _json(self.root / folder / f"{name}.json")
        if not isinstance(value, dict):
            raise SpecError(f"fixture {name}: expected an object")
        return value


def load_rules(root: Path) -> Rules:
    """The rules under a folder, read again only when one of its files has changed. Raises SpecError."""
    files = sorted(file for folder in ("specs", *GOLDENS.values()) for file in (root / folder).rglob("*")
                   if file.is_file())
    stamp = tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    return _rules(root, stamp)


@lru_cache(maxsize=4)
def _rules(root: Path, stamp: tuple[Any, ...]) -> Rules:
    specs = root / "specs"
    with shaped(specs / "invariants.yaml"):
        raw = read_yaml(specs / "invariants.yaml")
        blocked, opening, traded = tuple(raw["blocked"]), raw["opening"], (tuple(raw["traded"]), raw["traded_as"])
    with shaped(specs / "events.yaml"):
        told = read_yaml(specs / "events.yaml")
        events, streams = _events(root, told), frozenset(told["streams"])
    with shaped(specs / "invariants.yaml"):
        laws = tuple(Law(each["id"], each["sentence"], each["source"], each["how"], each.get("with", {}),
                         tuple(each.get("surfaces", ())), _streams_in(each.get("with", {}), events, streams), each.get("keeps"))
                     for each in raw["laws"])
    return Rules(root, events, read_yaml(specs / "witnesses.yaml"), laws, blocked, opening, *traded, raw.get("contract"))


def streams_of(event: str, events: Mapping[str, Event]) -> tuple[str, ...]:
    """The streams that tell of an event."""
    each = events[event]
    parts = [stream for part in each.all_of for stream in streams_of(part, events)] if each.all_of else [each.stream or ""]
    return tuple(dict.fromkeys(parts))


def _streams_in(value: Any, events: Mapping[str, Event], streams: frozenset[str]) -> tuple[str, ...]:
    """Every stream that a law's parameters name, or whose events they name, at any depth."""
    if isinstance(value, str):
        return (value,) if value in streams else streams_of(value, events) if value in events else ()
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return tuple(dict.fromkeys(stream for each in parts for stream in _streams_in(each, events, streams)))


def _events(root: Path, raw: Mapping[str, Any]) -> Mapping[str, Event]:
    events = {name: Event(name, each.get("stream"), each.get("kind"), each.get("where", {}),
                          tuple(each.get("all_of", ())), each.get("repeats"), each.get("tried"))
              for name, each in raw["events"].items()}
    for family, each in raw.get("families", {}).items():
        for code in registry_codes(root, each["registry"]):
            events[f"{family}.{code}"] = Event(f"{family}.{code}", each["stream"], each["kind"], {each["field"]: code})
    return events


def _json(file: Path) -> Any:
    try:
        return orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError) as why:
        raise SpecError(f"{file}: cannot be read: {why}") from why
