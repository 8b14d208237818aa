"""The gate of the launch limits: what the policy file allows, as numbers, and only as approved.

Only opening is limited; a limit must never trap a position. The caps of the environment in force count, and LIVE
states the micro-live caps. Nobody can raise a cap silently:

* the policy carries an approval with the digest of all caps, for this policy version; caps that differ from what
  was approved refuse every opening (``PolicyNotApproved``);
* the ledger remembers the caps of the last approved version; a higher cap under the same or an older version is
  refused too, even when somebody recomputed the digest.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from system_under_test.trader.policy import Refusal
from system_under_test.trader.settings import CAPS, Settings

GATE = "launch_limits"
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What an opening order would lead to. ``after`` counts what is pending as if it were filled."""

    amount_btc: float
    amount_usd: float
    position_btc_after: float
    net_delta_btc_after: float
    gross_notional_usd_after: float
    orders: int = 1
    """how many orders it would be"""


def caps_digest(launch_limits: Mapping[str, Any]) -> str:
    """SHA-256 of all environments' caps as canonical JSON: what an approval names."""
    return hashlib.sha256(orjson.dumps(dict(launch_limits), option=orjson.OPT_SORT_KEYS)).hexdigest()


class LaunchLimits:
    """The caps in force, the openings of the last minute, and the day's loss."""

    def __init__(self, settings: Settings, rows: Iterable[Mapping[str, object]] = ()) -> None:
        self._caps = {name: float(settings.caps[name]) for name in CAPS}
        self._version = settings.policy_version
        self._digest = caps_digest(settings.launch_limits)
        self._approval = settings.approval
        self._remembered: Mapping[str, Any] | None = None
        self._opened: deque[int] = deque()
        self._just_opened: deque[int] = deque()
        """those of the last second"""
        self._day: int | None = None
        self._start_btc: float | None = None
        self._loss_usd = 0.0
        self.broken: Callable[[], bool] = lambda: False
        """whether the drawdown has reached its limit: the circuit breaker of the risk snapshot"""
        for row in rows:
            if row.get("kind") == "caps":
                self._remembered = row
            elif row.get("kind") == "day":
                self._day, self._start_btc = int(str(row["day"])), float(str(row["equity_btc"]))

    @property
    def approved(self) -> bool:
        """Whether these caps were approved for this policy version, and none was raised under a known version."""
        if self._approval["policy_version"] != self._version or self._approval["caps_sha256"] != self._digest:
            return False
        known = self._remembered
        if known is None or self._version > int(known["policy_version"]):
            return True
        return all(self._caps[name] <= float(known["caps"].get(name, 0)) for name in CAPS)

    def row(self) -> dict[str, object] | None:
        """The ledger row ``caps`` that is due at boot: the first, or a newer approved version's. Else None."""
        known = self._remembered
        if not self.approved or (known is not None and self._version <= int(known["policy_version"])):
            return None
        return {"kind": "caps", "policy_version": self._version, "caps_sha256": self._digest, "caps": dict(self._caps)}

    def equity(self, now_ms: int, equity_btc: float, index: float) -> dict[str, object] | None:
        """A reading of the account. Returns the ledger row ``day`` that is due when a day (UTC) begins.

        Loss is counted in coins and valued at today's index, so that a moving index alone is no loss.
        """
        day, row = now_ms // DAY_MS, None
        if day != self._day or self._start_btc is None:
            self._day, self._start_btc = day, equity_btc
            row = {"kind": "day", "day": day, "equity_btc": equity_btc}
        self._loss_usd = max(0.0, (self._start_btc - equity_btc) * index)
        return row

    @property
    def loss_reached(self) -> bool:
        """Whether the day's loss has reached its cap."""
        return self._loss_usd >= self._caps["max_daily_loss_usd"]

    def opened(self, now_ms: int, orders: int = 1) -> None:
        """Opening orders were recorded; they count against the order rates from then on, whenever they leave."""
        self._opened.extend([now_ms] * orders)
        self._just_opened.extend([now_ms] * orders)

    def refuses(self, now_ms: int, opening: Opening) -> Refusal | None:
        """Why this opening may not be, or None."""
        if not self.approved:
            return Refusal("PolicyNotApproved", GATE, "the caps in force are not those that were approved")
        if self.loss_reached:
            return Refusal("PolicyLimitExceeded", GATE, "max_daily_loss_usd")
        if self.broken():
            return Refusal("PolicyLimitExceeded", GATE, "max_portfolio_dd_nav_pct")
        for name, value in (
            ("max_order_btc", opening.amount_btc),
            ("max_order_usd", opening.amount_usd),
            ("max_position_btc", abs(opening.position_btc_after)),
            ("max_net_delta_btc", abs(opening.net_delta_btc_after)),
            ("max_gross_notional_usd", opening.gross_notional_usd_after),
        ):
            if not value <= self._caps[name]:  # a value that is no number is refused too
                return Refusal("PolicyLimitExceeded", GATE, name)
        while self._opened and self._opened[0] <= now_ms - 60_000:
            self._opened.popleft()
        while self._just_opened and self._just_opened[0] <= now_ms - 1_000:
            self._just_opened.popleft()
        if len(self._opened) + opening.orders > self._caps["max_orders_per_minute"]:
            return Refusal("PolicyLimitExceeded", GATE, "max_orders_per_minute")
        if len(self._just_opened) + opening.orders > self._caps["max_orders_per_second"]:
            return Refusal("PolicyLimitExceeded", GATE, "max_orders_per_second")
        return None
