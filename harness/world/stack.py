"""A stack: what the system under test consists of, read from ``stack.yaml`` by every world.

Nothing here knows the reference trader: nodes, ports, links, surfaces and streams are whatever the file names.
Durations in the file carry units (``50ms``, ``1s``); the values hold integer milliseconds. What is wrong is said with
``file:line:column``, at the entry that it stands in.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import orjson

from harness import limits, texts
from harness.drill.predicate import of_plain
from harness.errors import TextError, UsageError, hint, nearest
from harness.policies import load_policy
from harness.texts import Spot

_OVERLAY = re.compile(r"\{policy:(\w+)\}")
_PLACE = re.compile(r"\{(port|url):([^{}]*)\}")
_UPSTREAM = re.compile(r"(?:127\.0\.0\.1|localhost):([1-9][0-9]{0,4})\Z")
_SECRET = re.compile(r"\{secret:(\w+)\}")

DISK_MIB, DISK_MIB_MAX = 64, 1_024
"""The size of a data disk that nobody declared: small, because on tmpfs a full one lies in memory."""

PORT_MAX = 65_535
MEMORY_MIB, MEMORY_MIB_MAX = 512, 8_192
"""What a container may use: the reference trader takes 60."""
CONTAINER_USER = "10001:10001"
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._/:@-]{0,199}\Z")
_USER = re.compile(r"[1-9][0-9]{0,8}:[1-9][0-9]{0,8}\Z")
_MOUNT = re.compile(r"(?!.*\.\.)(/[A-Za-z0-9_][A-Za-z0-9_.-]*){1,8}\Z")

FRAMINGS = ("crc32", "lines")

LAWFUL_ENVIRONMENTS = ("DEV", "STAGING", "PAPER")
"""Never real money (DESIGN, section 3): LIVE is none of these, however it is spelled, nor is anything unheard of."""


@dataclass(frozen=True, slots=True)
class Port:
    name: str
    env: str
    """The variable that tells the node where to listen; empty where its image has its port of its own"""
    inside: int | None = None
    """The port in its container, for worlds that have one; counted up where none is named"""


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
    disk_mib: int = DISK_MIB
    """The size of its data disk, where the world gives it one of its own"""
    image: str | None = None
    """What the world ``docker`` runs; ``command`` goes to it, or the image's own where there is none"""
    user: str = CONTAINER_USER
    """``uid:gid`` in its container: never root"""
    data: str = "/data"
    """Where its data disk is mounted in its container"""
    memory_mib: int = MEMORY_MIB

    def secrets_named(self) -> tuple[str, ...]:
        """The secrets that its environment asks for, in any build."""
        told = [self.environment, *self.builds.values()]
        return tuple(name for each in told for value in each.values() for name in _SECRET.findall(value))

    def overlays_named(self) -> tuple[str, ...]:
        """The policy overlays that its environment asks for, in any build."""
        told = [self.environment, *self.builds.values()]
        return tuple(name for each in told for value in each.values() for name in _OVERLAY.findall(value))

    def places_named(self) -> tuple[tuple[str, str], ...]:
        """(``port`` or ``url``, name) of every port of its own and link that its command or environment asks for."""
        told = [self.environment, *self.builds.values()]
        return tuple(found for text in (*self.command, *(value for each in told for value in each.values()))
                     for found in _PLACE.findall(text))

    def says_live(self) -> str | None:
        """The variable by which the node, in any of its builds, would take itself for the live one; or None."""
        told = [self.environment, *self.builds.values()]
        return next((key for each in told for key, value in each.items() if value.strip().upper() == "LIVE"), None)


@dataclass(frozen=True, slots=True)
class Link:
    """What a node dials: another node's port, or an upstream, which then has no ``port``."""

    name: str
    client: str
    server: str
    port: str
    env: str
    url: str
    transit_ms_max: int

    @property
    def target(self) -> str:
        """As the file names it: ``node.port``, or the upstream's name."""
        return f"{self.server}.{self.port}" if self.port else self.server


@dataclass(frozen=True, slots=True)
class Surface:
    """What a node shows: the answer at ``port`` and ``path``, or where ``file`` names one, a file of its own."""

    name: str
    node: str
    port: str
    path: str
    contract: str | None
    every_ms: int
    file: str | None = None
    """relative to the node's ``files/``; read on the grid and at each change"""


@dataclass(frozen=True, slots=True)
class Volume:
    """A folder that several nodes share: each of them finds it as ``files/<at>/`` of its data."""

    name: str
    nodes: tuple[str, ...]
    at: str
    disk_mib: int = DISK_MIB

    def holds(self, file: str) -> str | None:
        """The name in the volume of a file that its nodes know by that one; None for one that lies elsewhere."""
        inside = file.removeprefix(self.at + "/")
        return inside if inside != file else None


@dataclass(frozen=True, slots=True)
class OwnContract:
    """A status contract of one's own: a JSON Schema, a rules file, or both."""

    name: str
    schema: Path | None
    rules: Path | None


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
    upstreams: Mapping[str, str] = field(default_factory=dict)
    """Servers on this machine that no run starts: name → ``127.0.0.1:port``"""
    contracts: Mapping[str, OwnContract] = field(default_factory=dict)
    safe: tuple[Mapping[str, Any], ...] = ()
    """Alternatives of plain predicates: in one of these states the system does nothing that could hurt"""
    checklist: Path | None = None
    """Its own phase file, which ``pack own`` and ``gate own`` go by"""
    volumes: Mapping[str, Volume] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text).hexdigest()

    def volume_of(self, node: str, file: str) -> tuple[Volume, str] | None:
        """The volume in which a file of a node lies, and its name there; None for a file of the node's own."""
        for volume in self.volumes.values():
            if node in volume.nodes and (inside := volume.holds(file)) is not None:
                return volume, inside
        return None

    def lacks_volume(self, node: str, name: str) -> str | None:
        """Why a node has no such volume; None when it has."""
        if name not in self.volumes:
            return f"no volume {name!r} in the stack; known: {', '.join(self.volumes) or 'none at all'}"
        nodes = self.volumes[name].nodes
        return None if node in nodes else f"{node} does not share the volume {name}; {', '.join(nodes)} do"

    def overlay(self, name: str) -> dict[str, Any]:
        """The values by which an overlay changes the policy. Raises UsageError."""
        return load_policy(self.overlays[name])

    def policy(self, name: str) -> dict[str, Any]:
        """The values of a policy, ``extends`` resolved. Raises UsageError for an unknown name. A stack without policies has
        the empty one."""
        if not self.policies:
            return {}
        if name not in self.policies:
            raise UsageError(f"{self.file}: no policy {name!r}; known: {', '.join(self.policies)}" + hint(name, self.policies))
        return load_policy(self.policies[name])


_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h)\Z")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,79}\Z")
"""Names become names of folders and files."""
_RELATIVE = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_.\-]*(/[A-Za-z0-9_][A-Za-z0-9_.\-]*){0,7}\Z")
THEIR_CONTRACTS = ("csp_status", "ops_status", "state_files")
"""What a surface's contract may be called without a file of one's own: ``harness.contracts`` has them."""
ASKED_AS = ("csp_status", "status")
"""The contract whose laws are asked of one surface, and what that is called (``specs/invariants.yaml``)."""
PARTED = ("ops_status", "state_files")
"""Of these a contract has several parts, each for documents of another shape: ``state_files.nav``."""
_PART = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


def duration_ms(text: object, where: str = "duration") -> int:
    """``"50ms"``, ``"3s"``, ``"2m"``, ``"1h"`` → milliseconds, from 1 to a day. Raises UsageError."""
    match = _DURATION.match(text) if isinstance(text, str) else None
    found = int(match[1]) * _UNIT_MS[match[2]] if match is not None else 0
    if not 0 < found <= limits.DRILL_DURATION_MS_MAX:
        raise UsageError(f"{where}: found {text!r}, expected a duration with a unit, such as 50ms, 3s, 2m or 1h")
    return found


def policy_sha256(values: Mapping[str, Any]) -> str:
    """Digest of a policy's resolved values."""
    return hashlib.sha256(orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).hexdigest()


def load_stack(file: Path) -> Stack:
    """Read a ``stack.yaml``; the same bytes are taken apart once. Raises UsageError with the place and what is wrong."""
    try:
        text = texts.read(file, limits.SPEC_FILE_BYTES_MAX)
    except OSError as why:
        raise UsageError(f"{file}: cannot be read as a stack: {why.strerror or why}") from why
    return _stack(text, file)


@lru_cache(maxsize=4)
def _stack(text: bytes, file: Path) -> Stack:
    root = texts.compose(text, str(file), limits.SPEC_FILE_BYTES_MAX, empty="a stack")
    raw = root.mapping("a stack: a mapping")
    _strictly(raw)
    for key in ("stack", "deployment_environment", "nodes"):
        if key not in raw:
            raise root.wrong(f"the key {key!r}", found="no such key")
    environment = raw["deployment_environment"][1].json()
    if environment not in LAWFUL_ENVIRONMENTS:
        raise UsageError(f"{file}: deployment_environment is {environment!r}, expected one of "
                         f"{', '.join(LAWFUL_ENVIRONMENTS)}; drills never touch real money")
    nodes = _each(raw, "nodes", _node)
    for each in nodes.values():
        if live := each.says_live():
            raise UsageError(f"{file}: node {each.name} is told {live} LIVE; drills never touch real money")
    mutants = raw["mutants"][1].json() if "mutants" in raw else None
    stack = Stack(raw["stack"][1].text("the stack's name"), str(environment), _secrets(raw), nodes,
                  _each(raw, "links", _link), _each(raw, "surfaces", _surface), _each(raw, "streams", _stream),
                  _each(raw, "policies", lambda name, path: file.parent / path), file, text,
                  _each(raw, "overlays", lambda name, path: file.parent / path),
                  file.parent / str(mutants) if mutants is not None else None,
                  _each(raw, "upstreams", _upstream), _each(raw, "contracts", partial(_own_contract, file.parent)),
                  _safe(raw), _beside(file, raw, "checklist"), _each(raw, "volumes", _volume))
    _refers(stack, raw)
    return stack


KEYS = ("stack", "deployment_environment", "secrets", "policies", "overlays", "mutants", "nodes", "volumes", "links",
        "upstreams", "surfaces", "streams", "contracts", "safe", "checklist")
KEYS_OF: Mapping[str, tuple[str, ...]] = {
    "nodes": ("machine", "image", "command", "provision", "environment", "builds", "ports", "control", "clock", "logs", "ready",
              "user", "data", "disk_mib", "memory_mib"),
    "links": ("from", "to", "env", "url", "transit_ms_max"),
    "volumes": ("nodes", "at", "disk_mib"),
    "surfaces": ("node", "port", "path", "file", "contract", "every"),
    "streams": ("node", "path", "framing"),
    "contracts": ("schema", "rules"),
}


def _strictly(raw: Raw) -> None:
    """A key that nobody reads was meant for something, so it is refused where it stands. Raises TextError."""
    def known(entries: Raw, names: tuple[str, ...]) -> None:
        for name, (key, _) in entries.items():
            if name not in names:
                raise key.wrong("one of the keys " + ", ".join(names), names, found=f"the key {name!r}")

    known(raw, KEYS)
    for section, names in KEYS_OF.items():
        for _, entry in raw[section][1].mapping().values() if section in raw else ():
            known(entry.mapping(f"an entry with the keys {', '.join(names)}"), names)


Raw = Mapping[str, tuple[Spot, Spot]]
Value = TypeVar("Value")


def _each(raw: Raw, section: str, make: Callable[[str, Any], Value]) -> dict[str, Value]:
    """Every entry of a section by its name; what is wrong with one is said where it stands."""
    made = {}
    for name, (key, spot) in raw[section][1].mapping().items() if section in raw else ():
        if not _NAME.match(name):
            raise key.wrong("a name of letters, digits, '_', '.' and '-'")
        value = spot.json()
        try:
            made[name] = make(name, value)
        except TextError:
            raise
        except UsageError as why:
            raise UsageError(f"{_place(spot)}: {why}") from why
        except KeyError as why:
            raise spot.wrong(f"the key {why}", found=f"{section} {name} without it") from why
        except (TypeError, AttributeError, ValueError) as why:
            raise spot.wrong(f"an entry of {section} ({type(why).__name__}: {why})"[:300]) from why
    return made


def _place(spot: Spot) -> str:
    mark = spot.node.start_mark
    return f"{spot.file}:{mark.line + 1}:{mark.column + 1}"


def _refers(stack: Stack, raw: Raw) -> None:
    """Every node, port, contract and secret that something names must be there."""
    nodes = stack.nodes
    for section, name, named in (
        *(("links", each.name, each.client) for each in stack.links.values()),
        *(("links", each.name, each.server) for each in stack.links.values() if each.target not in stack.upstreams),
        *(("volumes", each.name, node) for each in stack.volumes.values() for node in each.nodes),
        *(("surfaces", each.name, each.node) for each in stack.surfaces.values()),
        *(("streams", each.name, each.node) for each in stack.streams.values()),
    ):
        if named not in nodes:
            spot = raw[section][1].mapping()[name][1]
            raise UsageError(f"{_place(spot)}: {section[:-1]} {name} names node {named!r}, which does not exist"
                             f"{hint(str(named), nodes)}")
    _volumes_apart(stack, raw)
    for volume in stack.volumes.values():
        if len(users := {nodes[name].user for name in volume.nodes}) > 1:
            spot = raw["volumes"][1].mapping()[volume.name][1]
            raise UsageError(f"{_place(spot)}: the nodes of volume {volume.name} run as {', '.join(sorted(users))}, "
                             "expected one user, to whom its files belong")
    for surface in stack.surfaces.values():
        if not _is_contract(surface.contract, stack):
            known = (*stack.contracts, *THEIR_CONTRACTS)
            spot = raw["surfaces"][1].mapping()[surface.name][1].mapping()["contract"][1]
            raise spot.wrong(f"null, or one of the contracts {', '.join(known)}", known)
    _asked_by_name(stack, raw)
    _surfaces_apart(stack, raw)
    for kind, node, port in _ports_named(nodes, stack.links, stack.surfaces):
        if port not in nodes[node].ports:
            raise UsageError(f"{stack.file}: {kind} names port {port!r} of {node}, which does not exist"
                             f"{hint(str(port), nodes[node].ports)}")
    for each in nodes.values():
        _places_are_its_own(each, stack, raw["nodes"][1].mapping()[each.name][1])
    for name in sorted({name for each in nodes.values() for name in each.secrets_named()} - {*stack.secrets}):
        raise UsageError(f"{stack.file}: secret {name!r} is not listed under secrets; nearest: "
                         f"{nearest(name, stack.secrets)}")
    for name in sorted({name for each in nodes.values() for name in each.overlays_named()} - {*stack.overlays}):
        raise UsageError(f"{stack.file}: overlay {name!r} is not listed under overlays; nearest: "
                         f"{nearest(name, stack.overlays)}")


def _is_contract(name: str | None, stack: Stack) -> bool:
    if name is None or name in (*THEIR_CONTRACTS, *stack.contracts):
        return True
    whole, _, part = name.partition(".")
    return whole in PARTED and _PART.match(part) is not None


def _asked_by_name(stack: Stack, raw: Mapping[str, tuple[Spot, Spot]]) -> None:
    """Laws ask a surface by its name: under another, a stack would be judged by half of them and nobody told."""
    contract, name = ASKED_AS
    keeping = [each.name for each in stack.surfaces.values() if each.contract == contract]
    if keeping and name not in keeping:
        key, _ = raw["surfaces"][1].mapping()[keeping[0]]
        raise key.wrong(f"the name {name!r} for the surface under {contract} that the laws ask")


def _surfaces_apart(stack: Stack, raw: Mapping[str, tuple[Spot, Spot]]) -> None:
    """No surface is another one under a second name, however its path is spelled: what should have been there would be asked
    by nobody. A query may ask for another document, but not of a contract of ours, whose documents have one place each."""
    before: dict[str, list[Surface]] = {}
    for each in stack.surfaces.values():
        place, query = _shown_at(each, stack)
        for other in before.setdefault(place, []):
            ours = each.contract == other.contract and (each.contract or "").partition(".")[0] in THEIR_CONTRACTS
            if ours or query == _shown_at(other, stack)[1]:
                spot = raw["surfaces"][1].mapping()[each.name][1]
                raise UsageError(f"{_place(spot)}: surface {each.name} is what surface {other.name} is, {place}; "
                                 "expected an answer of its own")
        before[place].append(each)


def _shown_at(surface: Surface, stack: Stack) -> tuple[str, str]:
    """Where a surface is shown, each place in one spelling, and what it is asked for there."""
    if surface.file is not None:
        volume = stack.volume_of(surface.node, surface.file)
        return (f"{volume[1]} of volume {volume[0].name}" if volume is not None else f"{surface.file} of {surface.node}"), ""
    path, _, query = surface.path.partition("#")[0].partition("?")
    path = posixpath.normpath("/" + unquote(path).lstrip("/"))
    return f"{surface.port} of {surface.node} at {path}", query


def _volumes_apart(stack: Stack, raw: Raw) -> None:
    """No node finds two volumes at one place, or one within another."""
    before: list[Volume] = []
    for volume in stack.volumes.values():
        for other in before:
            one, two = volume.at + "/", other.at + "/"
            if set(volume.nodes) & set(other.nodes) and (one.startswith(two) or two.startswith(one)):
                spot = raw["volumes"][1].mapping()[volume.name][1]
                raise UsageError(f"{_place(spot)}: volume {volume.name} lies at {volume.at}, and so does volume {other.name}")
        before.append(volume)


def _places_are_its_own(node: Node, stack: Stack, spot: Spot) -> None:
    """What a node asks to be told, ``{port:…}`` and ``{url:…}``, is a port of its own or a link from it."""
    links = [link for link in stack.links.values() if link.client == node.name]
    own: Mapping[str, tuple[str, ...]] = {"port": tuple(node.ports), "url": tuple(link.name for link in links)}
    for kind, name in node.places_named():
        if name not in own[kind]:
            raise UsageError(f"{_place(spot)}: node {node.name} asks for the {kind} {name!r}, which is not its own; "
                             f"known: {', '.join(own[kind]) or 'none'}")
    if twice := {link.env for link in links} & {port.env for port in node.ports.values()}:
        raise UsageError(f"{_place(spot)}: node {node.name} would be told two things by {min(twice)}")


def _secrets(raw: Raw) -> tuple[str, ...]:
    return tuple(each.text("a secret's name") for each in raw["secrets"][1].items()) if "secrets" in raw else ()


def _beside(file: Path, raw: Raw, key: str) -> Path | None:
    """A file that the stack names, relative to the stack's own."""
    if key not in raw:
        return None
    try:
        return _file_in(file.parent, key, raw[key][1].json())
    except TextError:
        raise
    except UsageError as why:
        raise UsageError(f"{_place(raw[key][1])}: {why}") from why


def _file_in(folder: Path, what: str, name: Any) -> Path:
    if not isinstance(name, str) or not _RELATIVE.match(name):
        raise UsageError(f"{what}: found {name!r}, expected a relative path inside the stack's folder")
    return folder / name


def _upstream(name: str, raw: Any) -> str:
    match = _UPSTREAM.match(raw) if isinstance(raw, str) else None
    if match is None or int(match[1]) > PORT_MAX:
        raise UsageError(f"upstream {name}: found {raw!r}, expected an address on this machine such as 127.0.0.1:9100; "
                         "a drill never reaches beyond it")
    return f"127.0.0.1:{match[1]}"


def _own_contract(folder: Path, name: str, raw: dict[str, Any]) -> OwnContract:
    if name in THEIR_CONTRACTS:
        raise UsageError(f"contract {name}: that is the name of a contract of drillproof's own")
    if not raw:
        raise UsageError(f"contract {name}: found nothing, expected schema, rules or both")
    schema, rules = (_file_in(folder, f"contract {name}", raw[key]) if key in raw else None for key in ("schema", "rules"))
    return OwnContract(name, schema, rules)


def _safe(raw: Raw) -> tuple[Mapping[str, Any], ...]:
    """Alternatives, each a plain predicate: ``[{status: {mode: halted}}]``."""
    if "safe" not in raw:
        return ()
    surfaces = raw["surfaces"][1].mapping() if "surfaces" in raw else {}
    found: list[Mapping[str, Any]] = []
    for spot in raw["safe"][1].items("a list of predicates, such as [{status: {mode: halted}}]"):
        entries = spot.mapping("a predicate, such as {status: {mode: halted}}")
        for name, (key, fields) in entries.items():
            if name not in surfaces:
                raise key.wrong(f"one of the surfaces {', '.join(surfaces) or '(none)'}", surfaces)
            if not fields.mapping("a surface's fields, such as {mode: halted}"):
                raise fields.wrong("at least one field", found="no fields")
        if len(entries) != 1:
            raise spot.wrong("one surface", found=f"{len(entries)} surfaces")
        told: Any = {name: value.json() for name, (_, value) in entries.items()}
        try:
            of_plain(told)
        except ValueError as why:
            raise spot.wrong("operators of a predicate, such as {at_least: 1}", found=str(why)) from None
        found.append(told)
    if len({name for each in found for name in each}) != 1:
        raise raw["safe"][1].wrong("predicates over one surface", found="predicates over several, or none")
    return tuple(found)


def _surface(name: str, raw: dict[str, Any]) -> Surface:
    every_ms = duration_ms(raw["every"], f"surface {name}")
    if "file" not in raw:
        return Surface(name, raw["node"], raw["port"], raw["path"], raw.get("contract"), every_ms)
    if given := [key for key in ("port", "path") if key in raw]:
        raise UsageError(f"surface {name}: found {' and '.join(given)} beside file, expected either a file or port and path")
    file = _inside(f"surface {name}: file", raw["file"], "a relative path inside the node's files")
    return Surface(name, raw["node"], "", "", raw.get("contract"), every_ms, file)


def _volume(name: str, raw: dict[str, Any]) -> Volume:
    nodes = raw["nodes"]
    if not isinstance(nodes, list) or not nodes or len(nodes) != len(set(map(str, nodes))):
        raise UsageError(f"volume {name}: nodes: found {nodes!r}, expected a list of nodes, each once")
    at = _inside(f"volume {name}: at", raw["at"], "a relative folder inside its nodes' files")
    return Volume(name, tuple(map(str, nodes)), at, _whole(raw, "disk_mib", DISK_MIB, DISK_MIB_MAX))


def _inside(what: str, path: Any, expected: str) -> str:
    if not isinstance(path, str) or not _RELATIVE.match(path):
        raise UsageError(f"{what}: found {path!r}, expected {expected}")
    return path


def _stream(name: str, raw: dict[str, Any]) -> Stream:
    if not _RELATIVE.match(raw["path"]):
        raise UsageError(f"stream {name}: found {raw['path']!r}, expected a relative path inside the node's data folder")
    if raw["framing"] not in FRAMINGS:
        raise UsageError(f"stream {name}: found {raw['framing']!r}, expected one of {', '.join(FRAMINGS)}")
    return Stream(name, raw["node"], raw["path"], raw["framing"])


def _ports_named(nodes: Mapping[str, Node], links: Mapping[str, Link],
                 surfaces: Mapping[str, Surface]) -> Iterator[tuple[str, str, str]]:
    """(who names it, node, port) for every port that something in the stack refers to."""
    yield from ((f"link {each.name}", each.server, each.port) for each in links.values() if each.port or each.server in nodes)
    yield from ((f"surface {each.name}", each.node, each.port) for each in surfaces.values() if each.file is None)
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
        ports={port: _port(port, value) for port, value in raw.get("ports", {}).items()},
        control=raw.get("control"),
        clock=ClockSource(clock["port"], clock["path"], clock["mono"], clock.get("wall")) if clock else None,
        logs=tuple(raw.get("logs", ())),
        ready=(ready["port"], ready["path"]) if ready else None,
        provision=raw.get("provision"),
        disk_mib=_whole(raw, "disk_mib", DISK_MIB, DISK_MIB_MAX),
        image=_matching(raw, "image", None, _IMAGE, "the name of an image"),
        user=str(_matching(raw, "user", CONTAINER_USER, _USER, "uid:gid, neither of them root's")),
        data=str(_matching(raw, "data", "/data", _MOUNT, "an absolute folder in its container")),
        memory_mib=_whole(raw, "memory_mib", MEMORY_MIB, MEMORY_MIB_MAX),
    )


def _port(name: str, raw: dict[str, Any]) -> Port:
    inside = _whole(raw, "inside", 0, PORT_MAX) if "inside" in raw else None
    return Port(name, raw.get("env", "") if inside else raw["env"], inside)


def _matching(raw: dict[str, Any], key: str, default: str | None, pattern: re.Pattern[str], expected: str) -> str | None:
    if key not in raw:
        return default
    if not isinstance(raw[key], str) or not pattern.match(raw[key]):
        raise UsageError(f"{key}: found {raw[key]!r}, expected {expected}")
    return str(raw[key])


def _whole(raw: dict[str, Any], key: str, default: int, most: int) -> int:
    value = raw.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise UsageError(f"{key}: found {value!r}, expected a whole number from 1 to {most}")
    return value


def _link(name: str, raw: dict[str, Any]) -> Link:
    server, _, port = raw["to"].partition(".")
    return Link(name, raw["from"], server, port, raw["env"], raw["url"], int(raw["transit_ms_max"]))
