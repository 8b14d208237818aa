"""The chokepoint, held by reading the code: one file places orders, one mints each paper, the strategy reaches none."""

from __future__ import annotations

import ast
from pathlib import Path

TRADER = Path(__file__).resolve().parents[2] / "system_under_test" / "trader"
PLACING = ("private/buy", "private/sell", "private/edit", "private/cancel", "private/close_position")


def strings(file: Path) -> set[str]:
    return {node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)
            and isinstance(node.value, str)}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


def calls(file: Path) -> set[str]:
    return {node.func.id for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


def test_only_the_door_names_a_method_that_places_or_cancels() -> None:
    """No other file of the trader holds the name of such a method."""
    named = {file.name for file in TRADER.rglob("*.py") if any(text.startswith(PLACING) for text in strings(file))}
    assert named == {"dispatch.py"}


def test_only_the_ledger_makes_its_papers_and_only_the_guard_permits() -> None:
    """Recorded and Waived are built in ledger.py, Permit in policy.py."""
    assert {file.name for file in TRADER.rglob("*.py") if {"Recorded", "Waived"} & calls(file)} == {"ledger.py"}
    assert {file.name for file in TRADER.rglob("*.py") if "Permit" in calls(file)} == {"policy.py"}


def test_the_strategy_reaches_neither_venue_nor_door() -> None:
    """It may only return wishes."""
    forbidden = ("venue", "dispatch", "desk", "floor", "policy", "ledger", "trader.trader")
    assert not [name for name in imports(TRADER / "strategy.py") if any(word in name.split(".") for word in forbidden)]


def test_the_trader_never_imports_the_exchange() -> None:
    """They meet on the wire."""
    for file in TRADER.rglob("*.py"):
        assert not [name for name in imports(file) if "exchange" in name.split(".")], file
