"""A stack: what the system under test consists of, read from ``stack.yaml`` by every world.

Nothing here knows the reference trader: nodes, ports, links, surfaces and streams are whatever the file names.
Durations in the file carry units (``50ms``, ``1s``); the values hold integer milliseconds.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

from harness.errors import UsageError, nearest

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml, where it is there: the same values in a tenth of the time."""

_OVERLAY = re.compile(r"\{policy:(\w+)\}")
_SECRET = re.compile(r"\{secret:(\w+)\}")

LAWFUL_ENVIRONMENTS = ("DEV", "STAGING", "PAPER")
"""Never real money (DESIGN, section 3): LIVE is none of these, however it is spelled, nor is anything unheard of."""


@dataclass(frozen=True, slots=True)
class Port:
    name: str
    env: str


@dataclass(frozen=True, slots=True)
class ClockSource:
    """Where a node tells its clocks: port and path of a JSON document, and its fields for both clocks."""

    port: str
    path: str
    mono: str
    wall: str | None


@dataclass(frozen=True, slots=True)
class Node:
    """One process. ``machine`` is for the sim, ``command`` for local; ``{python}`` is this interpreter."""

    name: str
    machine: str | None
    command: tuple[str, ...]
    environment: Mapping[str, str]
    builds: Mapping[str, Mapping[str, str]]
    ports: Mapping[str, Port]
    control: str | None
    clock: ClockSource | None
    logs: tuple[str, ...]
    ready: tuple[str, str] | None
    """port and path that answer 200 once the node serves"""
    provision: str | None
    """``module:function(environment, wall_ms) -> {file name: bytes}``: what an operator lays out before a start"""

    def secrets_named(self) -> tuple[str, ...]:
        """The secrets that its environment asks for, in any build."""
        told = [self.environment, *self.builds.values()]
        return tuple(name for each in told for value in each.values() for name in _SECRET.findall(value))

    def overlays_named(self) -> tuple[str, ...]:
        """The policy overlays that its environment asks for, in any build."""
        told = [self.environment, *self.builds.values()]
        return tuple(name for each in told for value in each.values() for name in _OVERLAY.findall(value))

    def says_live(self) -> str | None:
        """The variable by which the node, in any of its builds, would take itself for the live one; or None."""
        told = [self.environment, *self.builds.values()]
        return next((key for each in told for key, value in each.items() if value.strip().upper() == "LIVE"), None)


@dataclass(frozen=True, slots=True)
class Link:
    name: str
    client: str
    server: str
    port: str
    env: str
    url: str
    transit_ms_max: int


@dataclass(frozen=True, slots=True)
class Surface:
    name: str
    node: str
    port: str
    path: str
    contract: str | None
    every_ms: int


@dataclass(frozen=True, slots=True)
class Stream:
    name: str
    node: str
    path: str
    framing: str
    """``crc32``: lines of checksum and payload · ``lines``: plain JSON lines"""


@dataclass(frozen=True, slots=True)
class Stack:
    name: str
    deployment_environment: str
    secrets: tuple[str, ...]
    nodes: Mapping[str, Node]
    links: Mapping[str, Link]
    surfaces: Mapping[str, Surface]
    streams: Mapping[str, Stream]
    policies: Mapping[str, Path]
    file: Path
    text: bytes = field(repr=False, default=b"")
    overlays: Mapping[str, Path] = field(default_factory=dict)
    """Files by which a build may change the policy in force, for drills about policies that nobody approved"""
    mutants: Path | None = None
    """The catalogue of its sabotages, which ``drillproof mutants`` runs"""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text).hexdigest()

    def overlay(self, name: str) -> dict[str, Any]:
        """The values by which an overlay changes the policy. Raises UsageError."""
        return load_policy(self.overlays[name])

    def policy(self, name: str) -> dict[str, Any]:
        """The values of a policy, ``extends`` resolved. Raises UsageError for an unknown name."""
        if name not in self.policies:
            hint = nearest(name, self.policies)
            raise UsageError(f"{self.file}: no policy {name!r}; known: {', '.join(self.policies)}"
                             + (f" (nearest: {hint})" if hint else ""))
        return load_policy(self.policies[name])


_DURATION = re.compile(r"(\d+)(ms|s|m|h)\Z")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


def duration_ms(text: object, where: str = "duration") -> int:
    """``"50ms"``, ``"3s"``, ``"2m"``, ``"1h"`` → milliseconds. Raises UsageError."""
    match = _DURATION.match(text) if isinstance(text, str) else None
    if match is None:
        raise UsageError(f"{where}: found {text!r}, expected a duration with a unit, such as 50ms, 3s, 2m or 1h")
    return int(match[1]) * _UNIT_MS[match[2]]


def load_policy(file: Path) -> dict[str, Any]:
    """A policy file's values; ``{extends: other.yaml, overrides: {...}}`` is resolved beside it."""
    try:
        values = yaml.load(file.read_bytes(), Loader=_LOADER)
    except (OSError, yaml.YAMLError) as why:
        raise UsageError(f"{file}: cannot be read as a policy: {why}") from why
    if not isinstance(values, dict):
        raise UsageError(f"{file}: expected a mapping of policy values")
    if "extends" not in values:
        return values
    base = load_policy(file.parent / values["extends"])
    unknown = set(values.get("overrides", {})) - set(base)
    if unknown:
        raise UsageError(f"{file}: overrides {sorted(unknown)}, which {values['extends']} does not have")
    version = values.get("policy_version", base.get("policy_version"))
    return {**base, **values.get("overrides", {}), "policy_version": version}


def policy_sha256(values: Mapping[str, Any]) -> str:
    """Digest of a policy's resolved values."""
    return hashlib.sha256(orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).hexdigest()


def load_stack(file: Path) -> Stack:
    """Read a ``stack.yaml``. Raises UsageError with the file and what is wrong."""
    try:
        text = file.read_bytes()
        raw = yaml.load(text, Loader=_LOADER)
    except (OSError, yaml.YAMLError) as why:
        raise UsageError(f"{file}: cannot be read as a stack: {why}") from why
    try:
        return _stack(raw, file, text)
    except (KeyError, TypeError, AttributeError, ValueError) as why:
        raise UsageError(f"{file}: not a stack: {type(why).__name__}: {why}") from why


def _stack(raw: dict[str, Any], file: Path, text: bytes) -> Stack:
    environment = raw["deployment_environment"]
    if environment not in LAWFUL_ENVIRONMENTS:
        raise UsageError(f"{file}: deployment_environment is {environment!r}, expected one of "
                         f"{', '.join(LAWFUL_ENVIRONMENTS)}; drills never touch real money")
    nodes = {name: _node(name, value) for name, value in raw["nodes"].items()}
    for each in nodes.values():
        if key := each.says_live():
            raise UsageError(f"{file}: node {each.name} is told {key} LIVE; drills never touch real money")
    links = {name: _link(name, value) for name, value in raw.get("links", {}).items()}
    surfaces = {
        name: Surface(name, value["node"], value["port"], value["path"], value.get("contract"),
                      duration_ms(value["every"], f"{file}: surface {name}"))
        for name, value in raw.get("surfaces", {}).items()
    }
    streams = {name: Stream(name, value["node"], value["path"], value["framing"])
               for name, value in raw.get("streams", {}).items()}
    for kind, name, node in (
        *(("link", each.name, each.client) for each in links.values()),
        *(("link", each.name, each.server) for each in links.values()),
        *(("surface", each.name, each.node) for each in surfaces.values()),
        *(("stream", each.name, each.node) for each in streams.values()),
    ):
        if node not in nodes:
            raise UsageError(f"{file}: {kind} {name} names node {node!r}, which does not exist; "
                             f"nearest: {nearest(node, nodes)}")
    secrets = tuple(raw.get("secrets", ()))
    for kind, node, port in _ports_named(nodes, links, surfaces):
        if port not in nodes[node].ports:
            raise UsageError(f"{file}: {kind} names port {port!r} of {node}, which does not exist; "
                             f"nearest: {nearest(port, nodes[node].ports)}")
    for name in sorted({name for each in nodes.values() for name in each.secrets_named()} - {*secrets}):
        raise UsageError(f"{file}: secret {name!r} is not listed under secrets; nearest: {nearest(name, secrets)}")
    policies = {name: file.parent / path for name, path in raw.get("policies", {}).items()}
    overlays = {name: file.parent / path for name, path in raw.get("overlays", {}).items()}
    for name in sorted({name for each in nodes.values() for name in each.overlays_named()} - {*overlays}):
        raise UsageError(f"{file}: overlay {name!r} is not listed under overlays; nearest: {nearest(name, overlays)}")
    mutants = file.parent / str(raw["mutants"]) if raw.get("mutants") is not None else None
    return Stack(raw["stack"], environment, secrets, nodes, links, surfaces, streams, policies,
                 file, text, overlays, mutants)


def _ports_named(nodes: Mapping[str, Node], links: Mapping[str, Link],
                 surfaces: Mapping[str, Surface]) -> Iterator[tuple[str, str, str]]:
    """(who names it, node, port) for every port that something in the stack refers to."""
    yield from ((f"link {each.name}", each.server, each.port) for each in links.values())
    yield from ((f"surface {each.name}", each.node, each.port) for each in surfaces.values())
    for node in nodes.values():
        if node.control is not None:
            yield "control", node.name, node.control
        if node.clock is not None:
            yield "clock", node.name, node.clock.port
        if node.ready is not None:
            yield "ready", node.name, node.ready[0]


def _node(name: str, raw: dict[str, Any]) -> Node:
    clock, ready = raw.get("clock"), raw.get("ready")
    return Node(
        name=name,
        machine=raw.get("machine"),
        command=tuple(raw.get("command", ())),
        environment={key: str(value) for key, value in raw.get("environment", {}).items()},
        builds={build: {key: str(value) for key, value in entries.items()}
                for build, entries in raw.get("builds", {"current": {}}).items()},
        ports={port: Port(port, value["env"]) for port, value in raw.get("ports", {}).items()},
        control=raw.get("control"),
        clock=ClockSource(clock["port"], clock["path"], clock["mono"], clock.get("wall")) if clock else None,
        logs=tuple(raw.get("logs", ())),
        ready=(ready["port"], ready["path"]) if ready else None,
        provision=raw.get("provision"),
    )


def _link(name: str, raw: dict[str, Any]) -> Link:
    server, _, port = raw["to"].partition(".")
    return Link(name, raw["from"], server, port, raw["env"], raw["url"], int(raw["transit_ms_max"]))
