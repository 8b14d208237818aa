"""What one position is closed at, as the registry of exits keeps it and the intent ledger records it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LONG, SHORT = "LONG", "SHORT"


@dataclass(frozen=True, slots=True)
class Levels:
    """What one position is closed at, in USD. Times in monotonic-epoch ms."""

    name: str
    side: str
    qty: float
    """absolute, when the levels were set"""
    entry: float
    take_profit: float
    stop_loss: float
    created_ts: int
    updated_ts: int

    @property
    def key(self) -> str:
        return f"{self.name}:{self.side}"

    def hit(self, price: float) -> str | None:
        """Which level a price has reached: ``tp``, ``sl`` or None."""
        beyond = price if self.side == LONG else -price
        sign = 1 if self.side == LONG else -1
        if beyond >= sign * self.take_profit:
            return "tp"
        return "sl" if beyond <= sign * self.stop_loss else None

    def row(self) -> dict[str, object]:
        return {"kind": "exit", "event": "set", "key": self.key, "instrument": self.name, "side": self.side, "qty": self.qty,
                "entry": self.entry, "tp": self.take_profit, "sl": self.stop_loss, "created_ts": self.created_ts,
                "updated_ts": self.updated_ts}

    @staticmethod
    def of_row(row: Mapping[str, Any]) -> Levels:
        """What a row of the ledger says. Raises KeyError, TypeError or ValueError."""
        return Levels(str(row["instrument"]), str(row["side"]), float(row["qty"]), float(row["entry"]), float(row["tp"]),
                      float(row["sl"]), int(row["created_ts"]), int(row["updated_ts"]))


def fold(standing: dict[str, Levels], row: Mapping[str, Any]) -> None:
    """What a row of the kind ``exit`` changes about the levels that stand. Raises KeyError, TypeError or ValueError."""
    if row["event"] == "struck":
        standing.pop(str(row["key"]), None)
    else:
        levels = Levels.of_row(row)
        standing[levels.key] = levels
