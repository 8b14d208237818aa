"""The vocabulary between a machine and whatever carries it: plain values, no IO.

A machine is an object with one method, ``handle(now, value) -> tuple[value, ...]``. What it returns is
going out, what it is given has come in; most values travel both ways (as in h11). A thin shell
(`system_under_test.shell`) turns values into sockets, files and a clock, and the simulator turns the same
values into a simulated everything, so one machine runs unchanged in every world.

Rules of the house:

* ``Now`` is one reading of both clocks per ``handle`` call; a machine reads no clock itself.
* Values carry bytes. Parsing them belongs to the machine that is accused if it parses them badly.
* A machine is made by a factory ``make(environment) -> Machine``; ``environment`` maps names to strings
  and is the only configuration it gets.

Both the shell and the simulator depend on this module, and it depends on msgspec alone: a message is made and thrown
away a hundred times a simulated second, and a frozen dataclass costs eight times a frozen ``Struct`` (``make bench``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct, field


class Message(Struct, frozen=True, gc=False):
    """A plain value: compared by type and content, and never changed. It holds no reference to whoever made it, so
    it cannot be part of a cycle, and the garbage collector need not look at it."""



class Now(Message, frozen=True):
    """One reading of the clocks, in integer milliseconds.

    ``mono_ms`` never goes back and has no meaning between hosts; ``wall_ms`` is Unix time and may be wrong.
    """

    mono_ms: int
    wall_ms: int


# ---- wire -----------------------------------------------------------------------------------------------


class Open(Message, frozen=True):
    """Out: dial the link that ``conn`` names. In: a WebSocket connection is up.

    ``conn`` is ``"<link or listening port>#<generation>"``: stale traffic of an earlier generation shows.
    """

    conn: str


class Frame(Message, frozen=True):
    """One WebSocket message, either way."""

    conn: str
    data: bytes


class Request(Message, frozen=True):
    """One HTTP request. Out: as a client, over the link of ``conn``. In: as a server, on the port of ``conn``.

    ``target`` is path and query; ``headers`` is a tuple of lower-case name and value.
    """

    conn: str
    id: int
    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Response(Message, frozen=True):
    """The answer to the ``Request`` with the same ``conn`` and ``id``."""

    conn: str
    id: int
    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Unanswered(Message, frozen=True):
    """In only: the request got no answer. ``sent=False`` alone proves that nothing happened at the far side."""

    conn: str
    id: int
    sent: bool
    why: str


class Close(Message, frozen=True):
    """Out: close the connection. In: it is down, or the dial failed."""

    conn: str
    why: str


# ---- time -----------------------------------------------------------------------------------------------


class Timer(Message, frozen=True):
    """Out: set or replace the timer ``name`` (``at_ms`` on the monotonic clock), or cancel it (``None``).

    In: it fired; ``now.mono_ms - at_ms`` is how late the loop was.
    """

    name: str
    at_ms: int | None


# ---- disk -----------------------------------------------------------------------------------------------


class Append(Message, frozen=True):
    """Out: append one record to a log. ``seq`` counts from 1 over the life of the log and is the machine's own."""

    log: str
    seq: int
    data: bytes


class Durable(Message, frozen=True):
    """In: every record of the log up to and including ``seq`` is synced to disk."""

    log: str
    seq: int


REPLACE_PLAN = ("write_temporary", "sync_temporary", "rename", "sync_folder")
"""How a small file is replaced so that it stands through a crash of the machine: by the shell and by the simulated disk
alike, step by step. A crash may lie before each step."""

SWAP_PLAN = ("write_temporary", "rename")
"""For what is written anew every loop: whole at every moment, and nothing is waited for."""

STEPS = (*REPLACE_PLAN, "truncate", "write_half", "write")
"""Every step that a plan may be made of. The last three change the file where it stands, which no reader is spared."""


class Replace(Message, frozen=True):
    """Out: give a small file its new content, step by step as its plan says; atomically, if the plan renames."""

    file: str
    data: bytes
    plan: tuple[str, ...] = REPLACE_PLAN


class Done(Message, frozen=True):
    """In: the latest ``Replace`` of the file is on disk."""

    file: str


class Look(Message, frozen=True):
    """Out: read a source of the outside world: ``disk_primary``, ``disk_secondary`` or a file's name."""

    source: str


class Seen(Message, frozen=True):
    """In: what ``Look`` saw. ``value`` is None when it could not be read, and ``why`` says why."""

    source: str
    value: bytes | None
    why: str = ""


class Failed(Message, frozen=True):
    """In: an ``Append``, ``Replace`` or ``Look`` could not be carried out. Nothing of it may be relied on."""

    op: Append | Replace | Look
    why: str


# ---- life -----------------------------------------------------------------------------------------------


class LogImage(Message, frozen=True):
    """What a log holds on start: the records of its valid prefix, and how many torn bytes followed them."""

    records: tuple[bytes, ...] = ()
    torn_bytes: int = 0


class Start(Message, frozen=True):
    """In, first of all: the same path cold and after a crash.

    ``boot`` counts starts over the same data from 1; ``logs`` and ``files`` are what the disk holds.
    """

    boot: int
    seed: int
    logs: Mapping[str, LogImage] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


class Stop(Message, frozen=True):
    """In: the machine is asked to end in an orderly way; it answers with ``Exit``."""

    why: str


class Exit(Message, frozen=True):
    """Out: end the process with this exit code."""

    code: int


class Note(Message, frozen=True):
    """Out: one log line. The shell adds run_id, sequence and clocks; a metric is a fold over notes."""

    kind: str
    intent_id: str | None = None
    fields: Mapping[str, object] = field(default_factory=dict)


Value = (
    Open | Frame | Request | Response | Unanswered | Close | Timer | Append | Durable | Replace | Done | Look | Seen
    | Failed | Start | Stop | Exit | Note
)
"""Everything that passes between a machine and its carrier."""


class Machine(Protocol):
    """What every node of the system is."""

    def handle(self, now: Now, value: Value) -> tuple[Value, ...]:
        """Take one incoming value, return what goes out, in order."""
        ...


Factory = Callable[[Mapping[str, str]], Machine]
"""How a machine is made: ``stack.yaml`` names one as ``package.module:function``."""


def link_of(conn: str) -> str:
    """The link or listening port that a connection belongs to: ``link_of("orders#3") == "orders"``."""
    return conn.partition("#")[0]
