"""Checking by the difference says what checking the whole says, whatever changes into whatever."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from harness.contracts.csp_status import Contract
from harness.contracts.following import Parts, Watched
from harness.contracts.library import FIXTURES, REPOSITORY

GOLDENS = [json.loads(file.read_bytes()) for file in sorted((REPOSITORY / FIXTURES).glob("*.json"))]
ODD: tuple[Any, ...] = (None, True, False, 0, -1, 1.5, 10**13, "", "Active", "Kill", [], ["KILL_RISKSTATE_KILL"], [[]],
                        {}, {"a": 1})


@pytest.mark.parametrize("seed", range(8))
def test_a_walk_through_documents(seed: int) -> None:
    """A field at a time becomes another golden's, or nonsense, or goes, or comes back; at each step both agree."""
    dice, contract = random.Random(seed), Contract.load()
    following, document = contract.following(), dict(GOLDENS[0])
    following.check(document, None)
    unlawful = lawful = 0
    for _ in range(1500):
        target, before = dice.choice(GOLDENS), document
        document = dict(document)
        for key in dice.sample(sorted(target), dice.choice((1, 1, 2, 5, len(target)))):
            if (roll := dice.random()) < 0.02:
                document.pop(key, None)
            else:
                document[key] = dice.choice(ODD) if roll < 0.04 else target[key]
        changed = [key for key in {**before, **document} if before.get(key, before) != document.get(key, before)
                   or type(before.get(key)) is not type(document.get(key))]
        changed += dice.sample(sorted(document), dice.choice((0, 3)))
        known = None if dice.random() < 0.05 else changed
        found = following.check(document, known)
        assert found == contract.check_document(document)
        unlawful += bool(found)
        lawful += not found
    assert unlawful and lawful


def test_only_what_changed_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A field that no rule read costs no rule; one that was read runs those that read it, and no other."""
    contract, ran = Contract.load(), []

    def counted(number: int, rule: Any) -> Any:
        return lambda document: ran.append(number) or rule(document)

    contract.rules = tuple(counted(number, rule) for number, rule in enumerate(contract.rules))
    following, document = contract.following(), dict(GOLDENS[0])
    following.check(document, None)
    assert sorted(ran) == list(range(len(contract.rules)))
    ran.clear()
    following.check({**document, "deribit_http_p95_ms": 41}, ["deribit_http_p95_ms"])
    assert ran == []
    following.check({**document, "contract_version": "4"}, ["contract_version"])
    assert 0 < len(ran) < len(contract.rules)


@pytest.mark.parametrize("seed", range(3))
def test_one_object_that_goes_on_changing(seed: int) -> None:
    """As a recording is replayed: the same object again, None where a key came or went."""
    dice, contract = random.Random(seed), Contract.load()
    following, document = contract.following(), dict(GOLDENS[0])
    for _ in range(1500):
        target, shape = dice.choice(GOLDENS), document.keys() | set()
        changed = tuple(dice.sample(sorted(target), dice.choice((0, 1, 1, 2, 5))))
        for key in changed:
            if (roll := dice.random()) < 0.02:
                document.pop(key, None)
            else:
                document[key] = dice.choice(ODD) if roll < 0.04 else target[key]
        assert following.check(document, changed if document.keys() == shape else None) == contract.check_document(document)


def test_what_is_read_is_remembered() -> None:
    """By every way of reading a value; knowing the keys alone reads none."""
    watched = Watched({"a": 1, "b": 2, "c": 3})
    assert "a" in watched and list(watched) == ["a", "b", "c"] and len(watched) == 3 and watched.read == set()
    assert watched["a"] == 1 and watched.get("z") is None and watched.read == {"a", "z"}
    assert dict(watched.items()) == {"a": 1, "b": 2, "c": 3} and watched.read == {"a", "b", "c", "z"}


@pytest.mark.parametrize("schema", [
    True, {"type": "object"}, {"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {}}},
    {"properties": {"a": {}}, "patternProperties": {"b": False}}, {"properties": {"a": {}}, "anyOf": [{}]},
    {"properties": {"a": {}}, "additionalProperties": {"type": "integer"}},
])
def test_a_schema_that_cannot_be_taken_apart(schema: Any) -> None:
    """Is asked whole for every document."""
    parts = Parts(schema)
    assert parts.whole
    assert parts.asked(["a"]) is None


def test_conditions_are_asked_whole() -> None:
    """A field that a condition names, on either side of it, is not judged alone."""
    parts = Parts({"properties": {"a": {}, "b": {}, "c": {"type": "integer"}},
                   "allOf": [{"if": {"properties": {"a": {"const": 1}}, "required": ["a"]},
                              "then": {"properties": {"b": {}}}}]})
    assert parts.asked("a") is parts.asked("b") is parts.asked("ca") is None
    (field, is_valid), = parts.asked("cd") or ()
    assert field == "c" and is_valid(3) and not is_valid("x")
