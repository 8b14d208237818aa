"""Seeded luck by name: the same seed and name give the same numbers, whatever else is asked.

Two forms. ``stream`` is a generator to draw from in order; ``salt`` and ``noise`` are pure functions of their arguments,
so that a book can be quoted on demand without shifting anybody's luck.
"""

from __future__ import annotations

import hashlib
import random

_MASK = (1 << 64) - 1


def salt(seed: int, name: str) -> int:
    """A 64-bit number that belongs to (seed, name)."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big")


def stream(seed: int, name: str) -> random.Random:
    """A generator of its own for (seed, name)."""
    return random.Random(salt(seed, name))  # ambient-ok: seeded stream


def noise(salted: int, position: int) -> float:
    """A number in [0, 1) that belongs to (salt, position): the finalizer of splitmix64."""
    mixed = (salted + position * 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return (mixed ^ (mixed >> 31)) / 18446744073709551616.0


def token(seed: int, *parts: object) -> str:
    """A text id made of its content."""
    return hashlib.sha256(":".join(map(str, (seed, *parts))).encode()).hexdigest()
