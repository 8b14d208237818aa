"""The kill switch as a service sees it: an operator's file of its own, and the trader's trading mode.

Not knowing counts as on: a file that is there and cannot be read or understood, and a trader that has not said its mode for
longer than the policy allows.
"""

from __future__ import annotations

import orjson

from system_under_test.machine import Now, Seen

FILE = "operator/EXECUTION_HALTED"
ON = frozenset({"1", "true", "yes", "on"})
OFF = frozenset({"", "0", "false", "no", "off"})
"""What a first line may be; any other was meant for something, and nobody knows for what."""

MODES = frozenset({"Active", "ReduceOnly", "Kill"})


class FileSwitch:
    """What the file's first line says. Until it has been looked at once, nobody knows."""

    def __init__(self) -> None:
        self.by: str | None = "unreadable_file"
        """what presses: ``file``, ``unreadable_file``, or None when it is off"""

        self.looked = False

    @property
    def on(self) -> bool:
        return self.by is not None

    def seen(self, seen: Seen) -> None:
        """What a look at the file has shown."""
        self.looked = True
        if seen.value is None:
            self.by = None if absent(seen) else "unreadable_file"
            return
        word = seen.value.partition(b"\n")[0].decode("utf-8", "replace").strip().lower()
        self.by = "file" if word in ON else None if word in OFF else "unreadable_file"


class TraderSwitch:
    """What the trader's status says of it: Kill is on, and so is not knowing for too long."""

    def __init__(self, ttl_ms: int) -> None:
        self._ttl_ms = ttl_ms
        self._mode: str | None = None
        self._asked_ms = 0

    def told(self, body: bytes, asked_ms: int) -> bool:
        """An answer to a question that was asked at that time (monotonic). Whether it says the mode."""
        raw = document(body)
        mode = raw.get("trading_mode") if raw is not None else None
        if not isinstance(mode, str) or mode not in MODES:
            return False
        self._mode, self._asked_ms = mode, asked_ms
        return True

    def by(self, now: Now) -> str | None:
        """What presses: ``trader``, ``trader_unknown``, or None when it is off."""
        if self._mode is None or now.mono_ms - self._asked_ms > self._ttl_ms:
            return "trader_unknown"
        return "trader" if self._mode == "Kill" else None


def absent(seen: Seen) -> bool:
    """Whether there is no such file, which is another thing than one that cannot be read."""
    return seen.value is None and seen.why.startswith("FileNotFoundError")


def document(body: bytes) -> dict[str, object] | None:
    """A peer's JSON object; None for anything else that a peer may answer."""
    try:
        raw = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return raw if isinstance(raw, dict) else None
