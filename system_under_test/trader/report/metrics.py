"""Counters as Prometheus text. Every metric is declared here with its help; an unknown name is a mistake.

``duplicate_dispatch_count`` and ``illegal_order_attempts`` are the roadmap's proof for phase 1: they are always
present, because a counter that only appears when something is wrong cannot show that nothing was.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

METRICS: Mapping[str, tuple[str, str]] = MappingProxyType({
    "duplicate_dispatch_count": ("counter", "orders sent a second time under the same intent; must stay 0"),
    "illegal_order_attempts": ("counter", "orders that reached the dispatch door without lawful papers; must stay 0"),
    "wishes_total": ("counter", "what the strategy wanted, by class"),
    "dispatched_total": ("counter", "orders and cancels that left, by class"),
    "refused_total": ("counter", "wishes and intents refused, by code and class"),
    "shed_total": ("counter", "requests that were shed under rate limit, by class"),
    "waived_total": ("counter", "reducing intents that left without waiting for the ledger"),
    "fills_total": ("counter", "fills that counted"),
    "duplicate_fills_total": ("counter", "fills that were told more than once and counted once"),
    "rescues_total": ("counter", "rescue attempts of mixed groups"),
    "emergency_closes_total": ("counter", "emergency close attempts"),
    "ghost_orders_total": ("counter", "orders on the books that no intent explained, cancelled"),
    "reconciliations_total": ("counter", "reconciliations, by result"),
    "reconnects_total": ("counter", "connections that were dialled again, by link"),
    "gaps_total": ("counter", "gaps found in feeds, by kind"),
    "ledger_failures_total": ("counter", "rows that the ledger refused or could not write"),
    "emergency_requests_total": ("counter", "requests at the emergency endpoint, by outcome"),
    "mode": ("gauge", "trading mode: 0 Active, 1 ReduceOnly, 2 Kill"),
    "wal_queue_depth": ("gauge", "ledger rows accepted and not yet durable"),
    "loop_lag_ms": ("gauge", "how late the last turn of the hot loop was"),
})
"""Name to type and help."""

ALWAYS = ("duplicate_dispatch_count", "illegal_order_attempts")

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """The counters of one process."""

    def __init__(self) -> None:
        self._values: dict[str, dict[Labels, float]] = {name: {} for name in METRICS}
        for name in ALWAYS:
            self._values[name][()] = 0

    def add(self, name: str, amount: int = 1, **labels: str) -> None:
        """Count. Raises KeyError for a metric that is not declared."""
        series, key = self._values[name], _key(labels)
        series[key] = series.get(key, 0) + amount

    def set(self, name: str, value: float, **labels: str) -> None:
        """State a gauge. Raises KeyError for a metric that is not declared."""
        self._values[name][_key(labels) if labels else ()] = value

    def value(self, name: str, **labels: str) -> float:
        """One series; 0 when it was never counted."""
        return self._values[name].get(_key(labels), 0)

    def text(self) -> bytes:
        """The exposition format 0.0.4, names and series in a fixed order."""
        lines: list[str] = []
        for name, (kind, means) in METRICS.items():
            lines += [f"# HELP {name} {means}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{_labels(key)} {_number(value)}" for key, value in sorted(self._values[name].items())]
        return ("\n".join(lines) + "\n").encode()


def _key(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items())) if labels else ()


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
