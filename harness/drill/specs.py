"""The names that a drill may use: what a stack, a policy and the files under ``specs/`` and ``fixtures/`` know.

``None`` means that nobody said which names there are, so ``check`` does not ask; a judge that has only a run folder
still reads the drill. The stack is taken as a value with the attributes below, because the room of drills knows no
world.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from harness import limits, texts
from harness.drill.controls import Arguments, arguments_of
from harness.drill.predicate import MISSING, look
from harness.drill.words import Words, read_json, schema_of, shaped, texts_in, words_of
from harness.errors import SpecError, TextError

Names = frozenset[str] | None


class StackNames(Protocol):
    """The part of ``harness.world.stack.Stack`` that drills refer to."""

    @property
    def nodes(self) -> Mapping[str, Any]: ...
    @property
    def links(self) -> Mapping[str, Any]: ...
    @property
    def surfaces(self) -> Mapping[str, Any]: ...
    @property
    def contracts(self) -> Mapping[str, Any]: ...
    @property
    def secrets(self) -> Iterable[str]: ...
    @property
    def streams(self) -> Iterable[str]: ...
    @property
    def checklist(self) -> Path | None: ...
    @property
    def volumes(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Specs:
    """Known names. ``policy`` maps a key to its value, ``nodes`` a node to its builds and ports."""

    policy: Mapping[str, Any] = field(default_factory=dict)
    surfaces: Names = None
    links: Names = None
    nodes: Names = None
    builds: Mapping[str, frozenset[str]] | None = None
    ports: Mapping[str, frozenset[str]] | None = None
    controlled: Mapping[str, str] | None = None
    """node with a control port → that port"""
    switches: Mapping[str, Arguments] | None = None
    """switch → its arguments"""
    acts: Mapping[str, Arguments] | None = None
    """act of a control port → its arguments"""
    events: Mapping[str, bool] | None = None
    """event → whether it is written down as it happens (true), or only sampled (false)"""
    tried: Names = None
    """the events of which it is written down when somebody wanted them and was refused"""
    fixtures: Mapping[str, frozenset[str]] | None = None
    """contract → its goldens"""
    items: Names = None
    secrets: Names = None
    streams: Names = None
    told_by: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """event → the streams that tell of it"""
    clocked: Names = None
    """the nodes that tell their wall clock"""
    linked: Names = None
    """the nodes at an end of a link"""
    clients: Mapping[str, str] = field(default_factory=dict)
    """link → the node that dials it"""
    shelled: Names = None
    """the nodes in our shell, which knows crash points and writes logs by a process of its own"""
    contracts: Mapping[str, str | None] | None = None
    """surface → its contract"""
    words: Mapping[str, Words] = field(default_factory=dict)
    """surface → what its fields may hold"""
    schemas: Mapping[str, Any] = field(default_factory=dict)
    """surface → the JSON Schema of its documents"""
    volumes: Mapping[str, frozenset[str]] | None = None
    """volume → the nodes that share it"""

    @classmethod
    def of(cls, root: Path, stack: StackNames, policy: Mapping[str, Any]) -> Specs:
        """Everything known to a stack, a policy's values, and the files under ``root``. Raises SpecError."""
        contracts = {name: (each.contract, getattr(stack.contracts.get(each.contract), "schema", None))
                     for name, each in stack.surfaces.items()}
        return cls(
            policy=policy,
            surfaces=frozenset(stack.surfaces),
            links=frozenset(stack.links),
            nodes=frozenset(stack.nodes),
            builds={name: frozenset(node.builds) for name, node in stack.nodes.items()},
            ports={name: frozenset(node.ports) for name, node in stack.nodes.items()},
            controlled={name: node.control for name, node in stack.nodes.items() if node.control},
            switches=_told(root / "specs" / "exchange", "switches"),
            acts=_told(root / "specs" / "exchange", "acts"),
            events=_events(root / "specs" / "events.yaml"),
            tried=_tried(root / "specs" / "events.yaml"),
            fixtures=_fixtures(root),
            items=_items_of(stack.checklist) if stack.checklist is not None else _items(root / "specs" / "phases"),
            secrets=frozenset(stack.secrets),
            streams=frozenset(stack.streams),
            told_by=_told_by(root / "specs" / "events.yaml"),
            clocked=frozenset(name for name, node in stack.nodes.items() if node.clock is not None and node.clock.wall),
            linked=frozenset(end for link in stack.links.values() for end in (link.client, link.server)),
            clients={name: link.client for name, link in stack.links.items()},
            shelled=frozenset(name for name, node in stack.nodes.items()
                              if node.machine is not None or "NODE_WRITER_LOGS" in node.environment),
            contracts={name: each.contract for name, each in stack.surfaces.items()},
            words={name: words_of(root, *told) for name, told in contracts.items()},
            schemas={name: schema_of(root, *told) for name, told in contracts.items()},
            volumes={name: frozenset(each.nodes) for name, each in stack.volumes.items()},
        )


def read_yaml(file: Path) -> Any:
    """A file of ours under ``specs/``. Raises SpecError when it is missing or no YAML that is read strictly. Nobody may
    change what it returns: the same bytes are read into the same value."""
    try:
        return _value_of(texts.read(file, limits.SPEC_FILE_BYTES_MAX), str(file))
    except TextError as why:
        raise SpecError(str(why)) from why
    except OSError as why:
        raise SpecError(f"{file}: cannot be read: {why.strerror}") from why


@lru_cache(maxsize=32)
def _value_of(data: bytes, file: str) -> Any:
    return texts.load(data, file, aliases=True)


def _events(file: Path) -> Mapping[str, bool] | None:
    if not file.is_file():
        return None
    with shaped(file):
        return _event_names(file, read_yaml(file))


def _event_names(file: Path, raw: Any) -> Mapping[str, bool]:
    streams = set(raw["streams"])
    named = {name: "all_of" in event or event.get("stream") in streams for name, event in raw["events"].items()}
    for family, event in raw.get("families", {}).items():
        codes = registry_codes(file.parents[1], event["registry"])
        named |= {f"{family}.{code}": event["stream"] in streams for code in codes}
    return named


def _tried(file: Path) -> Names:
    if not file.is_file():
        return None
    with shaped(file):
        return frozenset(name for name, event in read_yaml(file)["events"].items() if "tried" in event)


def _told_by(file: Path) -> Mapping[str, frozenset[str]]:
    """The streams that each event is told by; of a composite one, those of its parts."""
    if not file.is_file():
        return {}
    with shaped(file):
        raw = read_yaml(file)
        named = _event_names(file, raw)
        plain = {name: {event["stream"]} for name, event in raw["events"].items() if "stream" in event}
        plain |= {name: {event["stream"]} for family, event in raw.get("families", {}).items()
                  for name in named if name.startswith(f"{family}.")}

        def streams(name: str) -> set[str]:
            return plain[name] if name in plain else set[str]().union(*map(streams, raw["events"][name]["all_of"]))

        return {name: frozenset(streams(name)) for name in named}


def registry_codes(root: Path, registry: Mapping[str, Any]) -> tuple[str, ...]:
    """Every code of the named registries of a file: ``{file, names: [a.b, …]}``; lists at any depth below count."""
    file = root / registry["file"]
    document = read_json(file)
    found: list[str] = []
    for name in registry["names"]:
        value = look(document, name)
        if value is MISSING:
            raise SpecError(f"{file}: has no {name}")
        found += texts_in(value)
    return tuple(dict.fromkeys(found))


GOLDENS = {"csp_status": "fixtures/status", "ops_status": "fixtures/ops_status"}
"""Contract → where its golden documents lie; ``harness.contracts.library`` has the same."""


def _fixtures(root: Path) -> Mapping[str, frozenset[str]] | None:
    found = {contract: frozenset(file.stem for file in (root / folder).glob("*.json"))
             for contract, folder in GOLDENS.items() if (root / folder).is_dir()}
    return found or None


def _told(folder: Path, part: str) -> Mapping[str, Arguments] | None:
    """The switches or acts of a controlled node with their arguments: a part of ``specs/exchange/switches.yaml``."""
    file = folder / "switches.yaml"
    if not file.is_file():
        return None
    with shaped(file):
        return arguments_of(read_yaml(file)[part])


def _items(folder: Path) -> Names:
    """Every item id of every phase file: whatever mapping under ``items`` (a list or a mapping) has an ``id``."""
    names: set[str] = set()
    for file in sorted(folder.glob("*.yaml")) if folder.is_dir() else ():
        with shaped(file):
            names.update(_ids(read_yaml(file)))
    return frozenset(names) or None


def _items_of(checklist: Path) -> Names:
    """The item ids of one's own checklist."""
    with shaped(checklist):
        return frozenset(_ids(read_yaml(checklist)))


def _ids(value: Any) -> Iterable[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("id"), str):
            yield value["id"]
        for key, each in value.items():
            if key == "items" and isinstance(each, Mapping):
                yield from each
            yield from _ids(each)
    elif isinstance(value, list):
        for each in value:
            yield from _ids(each)
