"""What an effect is to Toxiproxy, and what healing it does. Measured against server 2.12 (tests/world_real).

| effect   | toxic                      | while it stands                          | healing                         |
|----------|----------------------------|------------------------------------------|---------------------------------|
| stall    | latency, a week            | nothing arrives, the sender sends on     | everything arrives, in order    |
| drop     | timeout 0                  | bytes vanish, connections stay open      | the open connections are closed |
| cut      | the proxy is disabled      | connections closed, dialling refused     | dialling works; nothing resumes |
| delay    | latency                    | every chunk comes that much later        | what was held comes at once     |
| throttle | bandwidth                  | so many kilobytes (1000 B) a second      | what was held comes at once     |
| fragment | slicer                     | pieces of at most so many bytes          | whole pieces again              |
| reset    | reset_peer 0               | closed at the first byte (a newer: RST)  | traffic passes                  |
| truncate | limit_data                 | closed after so many bytes a connection  | traffic passes                  |

A stall holds up to 1,024 chunks (of at most 32 KB) a connection, then the sender's own buffers fill. Removing a
toxic waits until what it held is delivered: where the reader has died meanwhile, the server's API locks up for good.
The proxy is then deleted and made anew, which closes what was open on that link (toxiproxy.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.drill.model import LinkFault, RawToxic, Toward

STALL_MS = 7 * 24 * 3_600_000
"""Longer than any drill may last."""

STREAMS: Mapping[Toward, tuple[str, ...]] = {
    "client": ("downstream",), "server": ("upstream",), "both": ("upstream", "downstream"),
}
"""``toward`` in Toxiproxy's words: upstream is what flows from the dialling client to the server."""

DELAY_MS_MIN = 100
"""The links' counters are read every 50 ms: a shorter delay could not be told from the pause between two readings."""

NEEDS_AMOUNT = ("delay", "throttle", "fragment", "truncate")

RAW_ATTRIBUTES: Mapping[str, Mapping[str, int]] = {
    "latency": {"latency": 0, "jitter": 0}, "bandwidth": {"rate": 1}, "slow_close": {"delay": 0},
    "timeout": {"timeout": 0}, "reset_peer": {"timeout": 0}, "limit_data": {"bytes": 0},
    "slicer": {"average_size": 1, "size_variation": 0, "delay": 0},
}
"""Each toxic's attributes and their least lawful values: a negative rate crashes the server."""


@dataclass(frozen=True, slots=True)
class Toxic:
    """One toxic, in Toxiproxy's own words; ``toxicity`` is always 1, because a dice throw cannot be repeated."""

    name: str
    type: str
    stream: str
    attributes: Mapping[str, int] = field(default_factory=dict)


def is_cut(force: LinkFault | RawToxic) -> bool:
    """Whether this is no toxic, but the proxy switched off."""
    return isinstance(force, LinkFault) and force.effect == "cut"


def toxics(id: str, force: LinkFault | RawToxic) -> tuple[Toxic, ...]:
    """The toxics of one fault, one a direction; none for a cut."""
    if isinstance(force, RawToxic):
        return (Toxic(f"{id}.{force.stream}", force.type, force.stream, dict(force.attributes)),)
    if is_cut(force):
        return ()
    kind, attributes = _meaning(force)
    return tuple(Toxic(f"{id}.{stream}", kind, stream, attributes) for stream in STREAMS[force.toward])


def refuses(force: LinkFault | RawToxic) -> str | None:
    """Why Toxiproxy cannot do that, or None."""
    if isinstance(force, LinkFault):
        if force.effect in NEEDS_AMOUNT and (force.amount is None or force.amount < 1):
            return f"{force.effect} needs an amount of at least 1"
        if force.effect == "delay" and (force.amount or 0) < DELAY_MS_MIN:
            return f"a delay of less than {DELAY_MS_MIN} ms could not be seen to land here; the sim can tell"
        if force.effect == "cut" and force.toward != "both":
            return "a cut takes both directions: Toxiproxy cannot half-close"
        return None
    known = RAW_ATTRIBUTES.get(force.type)
    if known is None:
        return f"Toxiproxy has no toxic {force.type!r}; known: {', '.join(RAW_ATTRIBUTES)}"
    for name, value in force.attributes.items():
        if name not in known:
            return f"toxic {force.type} has no attribute {name!r}; known: {', '.join(known)}"
        if value < known[name]:
            return f"toxic {force.type}: {name} must be at least {known[name]}, not {value}"
    if force.type == "slow_close":
        return "slow_close makes the end of a connection late, which nothing here could witness"
    if force.type == "latency" and force.attributes.get("latency", 0) < DELAY_MS_MIN:
        return f"a latency of less than {DELAY_MS_MIN} ms could not be seen to land here"
    return None


def _meaning(force: LinkFault) -> tuple[str, dict[str, int]]:
    amount = force.amount or 0
    table: Mapping[str, tuple[str, dict[str, int]]] = {
        "stall": ("latency", {"latency": STALL_MS, "jitter": 0}),
        "drop": ("timeout", {"timeout": 0}),
        "delay": ("latency", {"latency": amount, "jitter": 0}),
        "throttle": ("bandwidth", {"rate": amount}),
        "fragment": ("slicer", {"average_size": amount, "size_variation": 0, "delay": 0}),
        "reset": ("reset_peer", {"timeout": 0}),
        "truncate": ("limit_data", {"bytes": amount}),
    }
    return table[force.effect]
