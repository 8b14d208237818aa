"""Never real money: a stack that could reach beyond this machine is refused before anything starts."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator

from harness.world.stack import Stack

_HOST = re.compile(r"\b[a-z][a-z0-9+.-]*://(?:[^/@\s\"']*@)?(\[[^\]]+\]|[^/:\s\"',?#]+)", re.IGNORECASE)
OURS = frozenset({"{address}", "localhost"})
"""What the world fills in, and the one name that means loopback."""


def foreign_hosts(stack: Stack, allowed: Collection[str] = ()) -> tuple[str, ...]:
    """Hosts that the stack names, in links, environments or commands, and that are neither loopback nor allowed."""
    named = {host for text in _texts(stack) for host in _HOST.findall(text)}
    return tuple(sorted(host for host in named if host not in OURS and host not in allowed and not _loopback(host)))


def _texts(stack: Stack) -> Iterator[str]:
    yield from (link.url for link in stack.links.values())
    for node in stack.nodes.values():
        yield from node.command
        yield from node.environment.values()
        for entries in node.builds.values():
            yield from entries.values()


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
