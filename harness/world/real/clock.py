"""Time in real worlds: the tape's own, and a node's wall clock that a drill may move.

The tape's clock is CLOCK_MONOTONIC from the moment of ``start``; it is the same for every process of a machine,
so the sampler's readings need no translation. Readings are rounded outwards: an interval never shrinks.

A node's wall clock is moved by libfaketime (its PyPI package carries the library). What was measured and binds us:
the library must not cache (a step would show a second late) and must not fake the monotonic clock (every timeout
would hang); the rate counts from process start, so a drift that begins later needs an offset; a rate sticks until
another is written, so healing is ``+0 x1``; an unparsable file ends the process, so it is always replaced whole;
and its own repair of timed waits must be off: with glibc 2.30 or newer it makes threads that wait for CPython's
interpreter lock spin (pauses of up to 1.2 s measured, 8 ms without; timed waits are exact without it).
"""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

from harness import files

NANOSECONDS_A_MS = 1_000_000
TRUE_TIME = "+0 x1"


class Epoch:
    """The tape's zero, as a reading of the monotonic clock in nanoseconds."""

    def __init__(self, start_ns: int | None = None) -> None:
        self.start_ns = time.monotonic_ns() if start_ns is None else start_ns

    def floor_ms(self) -> int:
        """Now, for the beginning of an interval."""
        return (time.monotonic_ns() - self.start_ns) // NANOSECONDS_A_MS

    def ceil_ms(self) -> int:
        """Now, for the end of an interval."""
        return -((self.start_ns - time.monotonic_ns()) // NANOSECONDS_A_MS)

    def seconds_until(self, at_ms: int) -> float:
        """How long to wait for ``at_ms``; 0 when it has passed."""
        return max(0.0, (self.start_ns + at_ms * NANOSECONDS_A_MS - time.monotonic_ns()) / 1e9)


def wall_ms() -> int:
    """Unix time in milliseconds, as this machine has it."""
    return time.time_ns() // NANOSECONDS_A_MS


def faketime_library() -> Path | None:
    """The shared library inside libfaketime's PyPI package, or None."""
    found = importlib.util.find_spec("libfaketime")  # not imported: importing it patches this process
    if found is None or found.origin is None:
        return None
    library = Path(found.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    return library if library.is_file() else None


def faketime_environment(library: Path | str, file: Path | str) -> dict[str, str]:
    """What a node's environment needs so that ``file`` rules its wall clock, and nothing else of it."""
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    }


def fake_time(step_ms: int, drift_ppm: int, age_ms: int) -> str:
    """The file's text: ``step_ms`` from now on, drifting from now on, in a process that is ``age_ms`` old."""
    rate = 1 + drift_ppm / 1e6
    offset_s = (step_ms + (1 - rate) * age_ms) / 1000
    return f"{offset_s:+.6f} x{rate:.6f}" if drift_ppm else f"{offset_s:+.6f} x1"


def write_clock(file: Path, text: str) -> None:
    """Replace the clock file whole: a half-written one would end the node."""
    files.replace(file, f"{text}\n".encode())
