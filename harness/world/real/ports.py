"""Ports on loopback that belong to one run until it ends, also while nothing listens on them.

They lie outside the range from which the kernel takes ports for outgoing connections, and each is held by a name in
the kernel's abstract socket space, so that neither a client's socket nor another run takes a port whose node is down.
Those names reach exactly as far as ports do, whoever runs and wherever their temporary files lie; nothing of them is on
any disk, and the kernel drops them when the harness dies, however it dies.
"""

from __future__ import annotations

import errno
import random
import socket
from pathlib import Path

from harness.errors import WorldError

LOOPBACK = "127.0.0.1"
LOWEST = 10_240
"""Below it live services with registered ports that a developer's machine may well run."""
TRIES = 2_000


class Ports:
    """Ports reserved by one run."""

    def __init__(self) -> None:
        self._locks: dict[int, socket.socket] = {}

    def reserve(self) -> int:
        """One more port. Raises WorldError when none is free."""
        dice, candidates = random.SystemRandom(), _candidates()
        for _ in range(TRIES):
            port = dice.choice(candidates)
            if port not in self._locks and self._lock(port):
                return port
        raise WorldError(f"no free port on {LOOPBACK} after {TRIES} tries")

    def release(self) -> None:
        """Give them all back. Idempotent."""
        while self._locks:
            self._locks.popitem()[1].close()

    def _lock(self, port: int) -> bool:
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            lock.bind(f"\0drillproof-port-{port}")
        except OSError as why:
            lock.close()
            if why.errno == errno.EADDRINUSE:
                return False
            raise
        if _taken(port):
            lock.close()
            return False
        self._locks[port] = lock
        return True


def _candidates() -> range:
    """The larger of the two ranges that outgoing connections leave alone."""
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    below, above = range(LOWEST, low), range(high + 1, 65_536)
    return max(below, above, key=len)


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError as why:
            if why.errno == errno.EADDRINUSE:
                return True
            raise
    return False
