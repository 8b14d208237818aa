"""A predicate is yes, no or unknown; never a guess."""

from __future__ import annotations

from typing import Any

import pytest

from harness.drill.model import Field, Predicate
from harness.drill.predicate import evaluate, look, of_plain


@pytest.mark.parametrize(("operator", "value", "found", "answer"), [
    ("equals", "x", "x", True), ("equals", 1, True, False), ("equals", True, 1, False), ("equals", 1, 1.0, True),
    ("equals", ["a", "b"], ["b", "a"], False), ("equals", [1, [True]], [1, [True]], True), ("equals", None, None, True),
    ("equals", {"a": 1}, {"a": 1.0}, True), ("is_not", "x", "y", True), ("is_not", "x", "x", False),
    ("at_least", 3, 3, True), ("at_least", 3, 2.9, False), ("at_least", 3, "4", None), ("at_least", 0, True, None),
    ("at_most", 3, 4, False), ("at_most", 3, None, None), ("has", "a", ["a", "b"], True), ("has", "c", ["a"], False),
    ("has", "a", "abc", None), ("has_not", "a", [], True), ("has_not", "a", ["a"], False), ("has_not", "a", {}, None),
    ("one_of", ["a", 1], 1, True), ("one_of", ["a", 1], True, False),
])
def test_each_operator_in_three_values(operator: Any, value: Any, found: Any, answer: bool | None) -> None:
    """What does not compare is unknown."""
    assert evaluate(Predicate((Field("s", "f", operator, value),)), {"s": {"f": found}}) is answer


@pytest.mark.parametrize(("before", "now", "wanted", "answer"), [
    (1, 2, True, True), (1, 1, True, False), (2, 1, False, True), (1, "2", True, None), (None, 2, True, None)])
def test_rises_compares_with_the_baseline(before: Any, now: Any, wanted: bool, answer: bool | None) -> None:
    """Against the last usable document before zero."""
    predicate = Predicate((Field("s", "f", "rises", wanted),))
    assert evaluate(predicate, {"s": {"f": now}}, {"s": {"f": before}}) is answer


def test_rises_without_a_baseline_is_unknown() -> None:
    """Also when the baseline's surface was silent."""
    predicate = Predicate((Field("s", "f", "rises", True),))
    assert evaluate(predicate, {"s": {"f": 2}}) is None
    assert evaluate(predicate, {"s": {"f": 2}}, {"s": None}) is None


def test_a_missing_field_or_surface_is_unknown_and_a_no_beats_it() -> None:
    """no ∧ unknown = no; yes ∧ unknown = unknown."""
    missing, no, yes = Field("s", "x", "equals", 1), Field("s", "f", "equals", 2), Field("s", "f", "equals", 1)
    documents = {"s": {"f": 1}, "silent": None}
    assert evaluate(Predicate((missing,)), documents) is None
    assert evaluate(Predicate((missing, no)), documents) is False
    assert evaluate(Predicate((missing, yes)), documents) is None
    assert evaluate(Predicate((Field("silent", "f", "equals", 1),)), documents) is None
    assert evaluate(Predicate((Field("absent", "f", "is_not", 1),)), documents) is None


def test_paths_are_dotted_and_reach_into_lists() -> None:
    """A number selects from a list; a path that leads nowhere is missing, null is a value."""
    document = {"a": {"b": [{"c": None}]}}
    assert look(document, "a.b.0.c") is None
    assert look(document, "a.b.1") is look(document, "a.x") is look(document, "a.b.c")


def test_rule_files_write_predicates_plainly() -> None:
    """The same shapes as in a drill; an unknown operator is an error."""
    assert of_plain({"s": {"f": 1, "g": {"at_least": 2}}}) == Predicate((Field("s", "f", "equals", 1),
                                                                        Field("s", "g", "at_least", 2)))
    with pytest.raises(ValueError, match="no operator"):
        of_plain({"s": {"f": {"atleast": 2}}})
