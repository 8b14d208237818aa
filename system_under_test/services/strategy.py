"""The strategy service: it may run while nothing stands in its way, and says so in its notes when that changes."""

from __future__ import annotations

from collections.abc import Mapping

from system_under_test.services.follower import Follower


class Strategy(Follower):
    """What would decide; it holds no lever at all."""

    kind = "strategy"
    control = "strategy_control"
    source = "strategy_marketdata"


def make(environment: Mapping[str, str]) -> Strategy:
    """The strategy service. Raises ValueError where the policy lacks what it needs."""
    return Strategy(environment)
