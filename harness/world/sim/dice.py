"""Named random streams from one seed: a stream never learns how much another was used.

Removing one fault, link or node from a drill shifts nobody else's luck, and the order in which Python hashes
things has no say (DESIGN, section 10).
"""

from __future__ import annotations

import hashlib
from random import Random


def digest(seed: int, name: str) -> bytes:
    """32 bytes that depend on seed and name alone."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def stream(seed: int, name: str) -> Random:
    """The random stream of that name."""
    return Random(int.from_bytes(digest(seed, name), "big"))


def integer(seed: int, name: str, below: int) -> int:
    """One number in [0, below), for things that are drawn once a run."""
    return int.from_bytes(digest(seed, name)[:8], "big") % below


def token(seed: int, name: str) -> str:
    """A run's secret of that name: 32 hex digits."""
    return digest(seed, f"secret:{name}").hex()[:32]
