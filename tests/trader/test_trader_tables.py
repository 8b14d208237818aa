"""The tables: what may follow what, what is refused and changes nothing, and that the published files say the same."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml

from system_under_test.trader import group, orders

MACHINES = Path(__file__).resolve().parents[2] / "specs" / "machines"


def published(name: str) -> dict:
    return yaml.safe_load((MACHINES / f"{name}.yaml").read_text())


def test_the_published_order_lifecycle_is_the_table() -> None:
    """specs/machines/order_lifecycle.yaml says what the code does, anomalies included."""
    file = published("order_lifecycle")
    assert {(each["from"], each["event"]): orders.Step(each["to"], each.get("anomaly", False))
            for each in file["transitions"]} == dict(orders.TABLE)
    assert tuple(file["states"]) == orders.STATES and tuple(file["events"]) == orders.EVENTS
    assert file["initial"] == orders.CREATED


def test_the_published_atomic_group_is_the_table() -> None:
    """specs/machines/atomic_group.yaml says what the code does."""
    file = published("atomic_group")
    assert {(each["from"], each["event"]): each["to"] for each in file["transitions"]} == dict(group.TABLE)
    assert file["initial"] == group.NEW


def test_an_event_that_is_not_in_the_table_raises() -> None:
    """Every pair outside the order's table is refused; none is silently ignored."""
    for state, event in itertools.product(orders.STATES, orders.EVENTS):
        if (state, event) in orders.TABLE:
            assert orders.advance(state, event).to in orders.STATES
        else:
            with pytest.raises(orders.IllegalTransition):
                orders.advance(state, event)


def test_final_orders_stay_what_they_are() -> None:
    """No event leads out of a final state."""
    assert all(step.to == state for (state, _), step in orders.TABLE.items() if state in orders.TERMINAL)


@pytest.mark.parametrize("events", [
    ("sent", "acked", "partial_fill", "filled"),
    ("sent", "filled", "acked"),
    ("sent", "partial_fill", "acked", "filled"),
    ("acked", "filled"),
])
def test_fills_in_any_order_end_filled(events: tuple[str, ...]) -> None:
    """A fill before its acknowledgement, or before we know that it was sent, ends Filled (AT-230)."""
    state = orders.CREATED
    for event in events:
        state = orders.advance(state, event).to
    assert state == orders.FILLED


def test_a_group_is_never_complete_early() -> None:
    """Complete is reached from Dispatched or by a rescue only, and the first failure cannot be undone (AT-220)."""
    reach = {event: state for (state, event), to in group.TABLE.items() if to == group.COMPLETE}
    assert reach == {"all_filled": group.DISPATCHED, "rescued": group.MIXED_FAILED}
    for state, event in [(group.NEW, "all_filled"), (group.FLATTENING, "rescued"), (group.FLATTENING, "all_filled"),
                         (group.COMPLETE, "mixed"), (group.FLATTENED, "dispatch"), (group.MIXED_FAILED, "all_filled")]:
        with pytest.raises(group.IllegalTransition):
            group.advance(state, event)


def test_churn_rests_a_structure() -> None:
    """More than two flattened groups in the window: the structure rests for its time, others do not (AT-221)."""
    breaker = group.ChurnBreaker(2, 300, 900)
    for now in (0, 1_000):
        breaker.flattened("a", now)
    assert not breaker.resting("a", 1_000)
    breaker.flattened("a", 2_000)
    assert breaker.resting("a", 2_000) and not breaker.resting("b", 2_000)
    assert not breaker.resting("a", 902_000)
    for now in (1_000_000, 1_400_000, 1_800_000):
        breaker.flattened("c", now)
    assert not breaker.resting("c", 1_800_000), "they were further apart than the window"
