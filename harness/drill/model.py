"""What a drill is, as frozen values: marks, faults, stimuli, promises. Integer milliseconds everywhere.

Zero is the moment ``given`` has held for its whole ``for``; every ``at`` counts from there. Faults name
their target and never perform themselves: worlds give them force (DESIGN, section 3).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Literal

WorldName = Literal["sim", "local", "docker"]
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


# ---- predicates -------------------------------------------------------------------------------------------

Operator = Literal["equals", "is_not", "at_least", "at_most", "has", "has_not", "rises", "one_of"]
"""``equals`` is exact, also for lists; ``has`` asks a list for a member; ``rises`` compares with the value that
the field had in the last usable sample before zero."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of one surface's document: ``status.trading_mode equals "Active"``. ``path`` is dotted."""

    surface: str
    path: str
    operator: Operator
    value: Json


@dataclass(frozen=True, slots=True)
class Predicate:
    """A conjunction of fields. Over one sample it is yes, no or unknown."""

    fields: tuple[Field, ...]

    @property
    def surfaces(self) -> tuple[str, ...]:
        """The surfaces it asks, in order of first mention."""
        return tuple(dict.fromkeys(each.surface for each in self.fields))


# ---- faults -----------------------------------------------------------------------------------------------

Effect = Literal["stall", "drop", "cut", "delay", "throttle", "fragment", "reset", "truncate"]
Toward = Literal["client", "server", "both"]


@dataclass(frozen=True, slots=True)
class LinkFault:
    """An effect on the bytes of one link; a drill that breaks several links names several faults.

    ``toward`` says which way the troubled bytes travel, seen from the dialling node (``client``).
    ``amount`` by effect: delay ms · throttle kilobytes (1000 B) a second · fragment bytes a piece ·
    truncate bytes until the connection closes; None for stall, drop, cut and reset.
    """

    link: str
    effect: Effect
    toward: Toward = "both"
    amount: int | None = None


@dataclass(frozen=True, slots=True)
class RawToxic:
    """A toxic in Toxiproxy's own words, where no effect fits."""

    link: str
    type: str
    stream: Literal["upstream", "downstream"]
    attributes: Mapping[str, int]


Death = Literal["kill", "stop", "out_of_memory"]
Crash = tuple[str, str, int] | tuple[str, str, int, str]
"""A crash point: the meaning of an outgoing value, its name, which one of them; of a replace, before which step of its plan."""


@dataclass(frozen=True, slots=True)
class Kill:
    """The node dies. Healing starts it again, with the named build (None: the one that died).

    ``how``: ``kill -9`` · stop: SIGTERM, and time to end in order · out_of_memory: the kernel kills it, because it may
    have no more memory than it has. ``before`` holds the crash point of a kill: the node dies before its ``nth`` outgoing
    value of that meaning, e.g. ``("send", "private/buy", 2)`` or ``("append", "ledger", 1)``, or inside of one, as
    ``("replace", "state/nav.json", 1, "rename")``; None kills at once.
    """

    node: str
    build: str | None = None
    before: Crash | None = None
    how: Death = "kill"


@dataclass(frozen=True, slots=True)
class Pause:
    """SIGSTOP; healing resumes."""

    node: str


@dataclass(frozen=True, slots=True)
class Deploy:
    """Orderly stop, then a start with another build over the same data; None: a restart, with the same one. Healing
    leaves it."""

    node: str
    build: str | None


@dataclass(frozen=True, slots=True)
class Starve:
    """The node gets so many percent of the processor time that it has used until now. Healing takes the limit away."""

    node: str
    percent: int


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The node's network is gone: what it sends is lost on the way, or waits in the kernel. Healing brings it back."""

    node: str


@dataclass(frozen=True, slots=True)
class Clock:
    """The node's wall clock, never its monotonic one: a step in ms, which is a skew for as long as the fault lasts, and a
    drift in parts per million. ``to_ms`` is a moment instead of a step, Unix time in ms: what the clock shows first."""

    node: str
    step_ms: int = 0
    drift_ppm: int = 0
    to_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Disk:
    """The node's durable writes.

    stall: nothing becomes durable, nothing fails · slow: each sync takes ``amount`` ms · refuse: records of the log
    are refused with an error · read_only: nothing in the data folder can be written, made or replaced · torn: the last
    record is cut by the next crash · unsynced: the next crash loses what was not synced (the last two in the sim only).
    """

    node: str
    kind: Literal["stall", "slow", "refuse", "read_only", "torn", "unsynced"]
    amount: int | None = None


@dataclass(frozen=True, slots=True)
class Fill:
    """A file on the node's data disk, as large as makes the share ``to`` of the disk used; 1 leaves no room at all.

    ``volume``: on that volume of the stack instead, which the node shares with others. ``unlinked``: the file is deleted
    and held open, so that the file system is as full as before and a sum over its files is not. Healing gives the room back.
    """

    node: str
    to: float
    unlinked: bool = False
    volume: str | None = None


class OfFile:
    """What is done to a small file of a node, ``file`` relative to what it calls its files."""

    __slots__ = ()
    file: str

    @property
    def lies_within(self) -> bool:
        """Whether the name leads nowhere else."""
        path = PurePosixPath(self.file)
        return not path.is_absolute() and ".." not in path.parts


@dataclass(frozen=True, slots=True)
class Overwrite(OfFile):
    """A hand that is not the node's writes one of its small files, ``file`` as in ``Drop``: a second writer, or damage.

    The content is ``text`` or else the JSON ``body``; once, or again ``every_ms`` until healed. It is put in the place of
    the file whole, or ``in_place``: cut to nothing and written anew where it stands. Healing leaves the file as it is.
    """

    node: str
    file: str
    body: Json = None
    text: str | None = None
    every_ms: int | None = None
    in_place: bool = False

    @property
    def content(self) -> bytes:
        """The bytes that it writes."""
        return self.text.encode() if self.text is not None else json.dumps(self.body, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Remove(OfFile):
    """One of the node's small files is taken away, once. Healing does not bring it back."""

    node: str
    file: str


@dataclass(frozen=True, slots=True)
class Switch:
    """A switch of a node's control port, on until healed: ``PUT /switches/<name>``, ``DELETE`` to heal."""

    node: str
    name: str
    arguments: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """An HTTP request to a node's port. ``expect`` is the HTTP status that says it was taken (None: any answer).

    A header value ``${secret:NAME}`` is replaced by the run's secret of that name and never recorded. As a stimulus it
    happens beside what breaks; as a fault it *is* what breaks, done at one stroke and never undone, and a placebo
    leaves it out.
    """

    node: str
    port: str
    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Json = None
    expect: int | None = None


NodeForce = Kill | Pause | Deploy | Starve | Disconnect | Clock | Disk | Fill | Overwrite | Remove | Switch | Call
Force = LinkFault | RawToxic | NodeForce

HALTING = (Kill, Pause, Deploy, Starve)
"""Forces under which a node may not answer: it is gone, stands still, or is too slow."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One named fault: applied at ``at_ms``, healed at ``at_ms + for_ms``.

    Marks it makes: ``<id>`` (applied) and ``<id>.healed``.
    """

    id: str
    at_ms: int
    for_ms: int
    force: Force


# ---- stimuli ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Drop(OfFile):
    """A small file put into a node's data folder, as an operator would: atomic, ``file`` relative."""

    node: str
    file: str
    body: Json = None


@dataclass(frozen=True, slots=True)
class Stimulus:
    """One named act of an operator or of the market, at ``at_ms``. Makes the mark ``<id>``."""

    id: str
    at_ms: int
    act: Call | Drop


# ---- promises ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Within:
    """``p`` begins at most ``within_ms`` after the mark and stays until another mark (None: it only begins)."""

    id: str
    within_ms: int
    after: str
    predicate: Predicate
    stays_until: str | None = None


@dataclass(frozen=True, slots=True)
class Always:
    """``p`` in every sample in which ``q`` holds, optionally only between two marks."""

    id: str
    predicate: Predicate
    while_: Predicate | None
    since: str | None = None
    until: str | None = None


@dataclass(frozen=True, slots=True)
class Never:
    """The event does not happen while ``q`` holds, and it was tried (DESIGN, section 4)."""

    id: str
    event: str
    while_: Predicate


@dataclass(frozen=True, slots=True)
class OnlyAfter:
    """The predicate becomes true (from no to yes) only after the event has happened since the mark."""

    id: str
    event: str
    since: str
    becomes: Predicate


@dataclass(frozen=True, slots=True)
class Count:
    """How often an event happens between two marks (None: the whole recording). Over sealed streams only."""

    id: str
    event: str
    at_least: int | None = None
    at_most: int | None = None
    since: str | None = None
    until: str | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """A call of the drill is answered with this HTTP status. ``to`` is a stimulus or a fault that is a call."""

    id: str
    status: int
    to: str


Promise = Within | Always | Never | OnlyAfter | Count | Answers


@dataclass(frozen=True, slots=True)
class Given:
    """The steady state that must hold before anything is broken.

    The judge also asks the books for an order opened and filled before zero, unless ``idle`` says that this
    drill wants a system at rest. ``one_day``: it must all happen within one day (UTC), because the system counts
    something by the day.
    """

    predicate: Predicate
    for_ms: int
    within_ms: int
    idle: bool = False
    one_day: bool = False


@dataclass(frozen=True, slots=True)
class Golden:
    """A fixture that some sample must match, within ``reached_within_ms`` after the mark ``after``."""

    fixture: str
    reached_within_ms: int
    after: str
    surface: str | None = None
    """whose samples; None means the sampled surface under the contract csp_status"""


@dataclass(frozen=True, slots=True)
class Converge:
    """After everything is healed the predicate must begin within ``within_ms`` and last ``for_ms``.

    ``latched`` says that this drill ends blocked on purpose, so no order has to be opened after healing.
    """

    predicate: Predicate
    within_ms: int
    for_ms: int
    latched: bool = False


@dataclass(frozen=True, slots=True)
class Drill:
    """A promise with a fault in it. ``file`` and ``text`` are where it came from; ``text`` is what is hashed."""

    name: str
    title: str
    proves: tuple[str, ...]
    why: str
    sample: Mapping[str, int]
    """surface → period in ms"""
    given: Given
    faults: tuple[Fault, ...]
    stimuli: tuple[Stimulus, ...]
    promises: tuple[Promise, ...]
    golden: Golden | None
    converge: Converge
    grain_ms: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """surface → declared grain in ms; three sampling periods and a little where absent"""
    worlds: tuple[WorldName, ...] = ()
    """the worlds it is meant for; none named: all of them"""
    file: str = field(default="", compare=False)
    text: bytes = field(default=b"", compare=False, repr=False)

    def needs(self, world: str) -> str | None:
        """``sim or docker`` where the drill is not meant for this world, else None."""
        return " or ".join(self.worlds) if self.worlds and world not in self.worlds else None

    @property
    def due_ms(self) -> Mapping[str, int]:
        """The drill's marks and their moments, in ms from zero."""
        faults = {each.id: each.at_ms for each in self.faults}
        healed = {f"{each.id}.healed": each.at_ms + each.for_ms for each in self.faults}
        return {**faults, **healed, **{each.id: each.at_ms for each in self.stimuli}}

    @property
    def heal_at_ms(self) -> int:
        """When the last fault is healed and the last stimulus has been pressed."""
        return max(self.due_ms.values(), default=0)

    @property
    def lasts_ms(self) -> int:
        """At most so long from zero to its end, as planned."""
        return self.heal_at_ms + self.converge.within_ms + self.converge.for_ms
