"""A status contract of one's own: each kind of rule has a document that keeps it and documents that break it, alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.contracts.own import Contract, read_rules
from harness.errors import SpecError, TextError

SCHEMA = json.dumps({"type": "object", "required": ["mode"], "properties": {"seen": {"type": "integer"}}}).encode()
RULES = b"""
enumerations: {mode: [running, halted], reasons: [STALE, LOST], feed.state: [up, down]}
monotone: [seen]
orderings:
  by_weight: {list: reasons, order: [LOST, STALE]}
  counted: {numbers: [seen, asked]}
reasons:
  says_why: {field: reasons, when: {mode: {is_not: running}}, some_of: [STALE]}
implications:
  is_fresh: {when: {mode: running}, then: {age_ms: {at_most: 500}, reasons: []}}
"""
GOOD: dict[str, Any] = {"mode": "running", "reasons": [], "feed": {"state": "up"}, "seen": 3, "asked": 4, "age_ms": 10}
HALTED = {**GOOD, "mode": "halted", "reasons": ["LOST", "STALE"], "age_ms": 900}


def contract() -> Contract:
    return Contract.read(("s.json", SCHEMA), ("r.yaml", RULES))


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name != key}


@pytest.mark.parametrize("document", [GOOD, HALTED, {**GOOD, "more": 1}])
def test_lawful_documents_are_lawful(document: dict[str, Any]) -> None:
    """What keeps every rule has no finding; a field that no rule names is free."""
    assert contract().check(json.dumps(document).encode()) == []


@pytest.mark.parametrize(("document", "found"), [
    ({**GOOD, "seen": 2.5}, ["SCHEMA /seen"]),
    ({**GOOD, "feed": {"state": "sideways"}}, ["ENUM /feed/state"]),
    ({**HALTED, "reasons": ["STALE", "OTHER"]}, ["ENUM /reasons", "ORDER /reasons"]),
    ({**HALTED, "reasons": ["STALE", "LOST"]}, ["ORDER /reasons"]),
    ({**HALTED, "reasons": ["STALE", "STALE"]}, ["ORDER /reasons"]),
    ({**HALTED, "reasons": "STALE"}, ["ORDER /reasons", "REASON /reasons"]),
    ({**GOOD, "seen": 5}, ["ORDER /seen"]),
    ({**GOOD, "asked": "4"}, ["ORDER /asked"]),
    ({**HALTED, "reasons": []}, ["REASON /reasons"]),
    ({**HALTED, "reasons": ["LOST"]}, ["REASON /reasons"]),
    ({**GOOD, "age_ms": 501}, ["IMPLIES /age_ms"]),
    ({**GOOD, "age_ms": None}, ["IMPLIES /age_ms"]),
    ({**GOOD, "reasons": ["STALE"]}, ["IMPLIES /reasons"]),
    (without("age_ms"), ["IMPLIES /age_ms"]),
    (without("feed"), ["ENUM /feed/state"]),
    (without("asked"), ["ORDER /asked"]),
    (without("mode"), ["SCHEMA ", "ENUM /mode", "REASON /mode", "IMPLIES /mode"]),
])
def test_each_kind_of_rule_is_broken_by_its_own_document(document: dict[str, Any], found: list[str]) -> None:
    """What a rule asks for and does not find breaks it; nothing that is missing passes for lawful."""
    assert [f"{each.tag} {each.path}" for each in contract().check(json.dumps(document).encode())] == found


def test_what_is_no_document_is_a_finding() -> None:
    """Bytes that are no JSON object are told as such, and nothing raises."""
    for data in (b"", b"[]", b"{", b'{"a":1,"a":2}', b'{"mode": NaN}'):
        assert [each.tag for each in contract().check(data)] == ["SCHEMA"]


def test_what_never_falls() -> None:
    """A number that falls between two documents is found; one that stays or rises is not."""
    assert contract().falls(GOOD, {**GOOD, "seen": 3}) == []
    assert [str(each) for each in contract().falls(GOOD, {**GOOD, "seen": 2})] == ["[MONOTONE] /seen: fell from 3 to 2"]


def test_following_says_what_checking_says() -> None:
    """Documents one after another: the same findings, whether or not it is known what has changed."""
    following = contract().following()
    assert following.check(GOOD, None) == []
    assert following.check(GOOD, ()) == []
    assert following.check({**GOOD, "age_ms": 501}, ("age_ms",)) == contract().check({**GOOD, "age_ms": 501})


@pytest.mark.parametrize(("text", "place"), [
    ("", "1:1: found nothing"),
    ("rules: {}", "1:1: found the key 'rules'"),
    ("enumeration: {a: [1]}", "1:1: found the key 'enumeration'"),
    ("enumerations: {}", "1:1: found sections without rules"),
    ("enumerations: {a: []}", "1:19: found an empty list"),
    ("enumerations: {a: [x, x]}", "1:23: found 'x', expected each value once"),
    ("enumerations: {a: [no]}", "1:20: found the boolean no"),
    ("enumerations: {a: [[1]]}", "1:20: found a list, expected a plain value"),
    ("enumerations: {a..b: [1]}", "1:16: found 'a..b', expected a field's dotted path"),
    ("monotone: seen", "1:11: found 'seen', expected a list of fields"),
    ("orderings:\n  x: {list: a}", "2:6: found list, expected list with order, or numbers"),
    ("orderings:\n  x: {numbers: [a]}", "2:16: found 1, expected at least two fields"),
    ("reasons:\n  x: {field: a}", "2:6: found no such key, expected the key 'when'"),
    ("reasons:\n  x: {field: a, when: {}}", "2:23: found an empty predicate"),
    ("implications:\n  x: {when: {a: {at_lest: 1}}, then: {b: 1}}", "2:18: found the key 'at_lest'"),
    ("implications:\n  x: {when: {a: {at_least: b}}, then: {b: 1}}", "2:28: found 'b', expected a number for at_least"),
    ("implications:\n  x: {when: {a: {rises: true}}, then: {b: 1}}", "2:18: found the key 'rises'"),
    ("implications: {x: {when: {a: 1}, then: {b: 1}}}\nimplications: {}", "2:1: found the key 'implications' again"),
])
def test_a_rules_file_is_read_strictly(text: str, place: str) -> None:
    """Whatever is wrong is told with its line and column."""
    with pytest.raises(TextError) as told:
        read_rules(text.encode(), "r.yaml")
    assert str(told.value).startswith(f"r.yaml:{place}")


@pytest.mark.parametrize(("schema", "says"), [
    (b'{"type": 7}', "no JSON Schema"), (b"[]", "expected a JSON Schema"), (b"{", "s.json"),
    (b'{"type": "object", "$ref": "other.json"}', "leads out of the file"),
    (b"{}", "asks for nothing"), (b"true", "asks for nothing"), (b'{"properties": {"a": {}}}', "asks for nothing"),
    (b'{"requierd": ["mode"]}', "s.json#/requierd: no keyword of JSON Schema 2020-12 (nearest: required)"),
    (b'{"type": "object", "properties": {"a": {"divisibleBy": 2}}}', "s.json#/properties/a/divisibleBy"),
    (b'{"required": ["at"], "properties": {"at": {"format": "date-tmie"}}}', "found 'date-tmie', expected"),
    (b'{"then": {"required": ["mode"]}}', "s.json#/then: nobody asks it alone; expected if beside it"),
    (b'{"if": {"required": ["mode"]}}', "s.json#/if: nobody asks it alone; expected then or else"),
    (b'{"type": "array", "minContains": 3}', "s.json#/minContains: nobody asks it alone"),
    (b'{"contentSchema": {"type": "object"}}', "s.json#/contentSchema: nobody asks"),
    (b'{"$defs": {"x": {"type": "string"}}}', "asks for nothing"), (b'{"required": []}', "asks for nothing"),
    (b'{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#"}, "b": {"type": "string"}}}', "asks for nothing"),
    (b'{"$schema": "http://json-schema.org/draft-03/schema#", "type": "object"}', "expected https://json-schema.org/draft/2020-12"),
])
def test_a_schema_that_is_none_or_holds_nothing_is_refused(schema: bytes, says: str) -> None:
    """Also one that leads out of its file, since what judges must lie in the pack; and what a reader would pass over."""
    with pytest.raises((SpecError, TextError), match=re.escape(says)):
        Contract.read(("s.json", schema), None)


def test_names_that_look_like_keywords_are_names() -> None:
    """What stands under ``properties`` is called as the document calls it; formats are asked."""
    schema = b'{"properties": {"requierd": {"format": "date-time"}, "at": {"const": {"x": 1}}}}'
    contract = Contract.read(("s.json", schema), None)
    assert contract.check({"requierd": "2026-01-26T15:00:00Z", "at": {"x": 1}}) == []
    assert [each.path for each in contract.check({"requierd": "banana"})] == ["/requierd"]


@pytest.mark.parametrize("schema", [
    b'{"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"required": ["at"]}}}',
    b'{"allOf": [{"$ref": "#there"}], "$defs": {"x": {"$anchor": "there", "required": ["at"]}}}',
    b'{"if": {"required": ["mode"]}, "then": {"required": ["at"]}}', b'{"properties": {"mode": false}}',
])
def test_what_is_asked_by_a_reference_or_a_condition_is_asked(schema: bytes) -> None:
    """Such a schema is taken, and a document that breaks it is found."""
    assert len(Contract.read(("s.json", schema), None).check({"mode": 1})) == 1


def test_what_never_falls_is_a_number() -> None:
    """A counter that is gone, or a text, cannot fall: it breaks the rule by itself."""
    assert "[MONOTONE] /seen: is missing" in [str(each) for each in contract().check(without("seen"))]
    assert "MONOTONE /seen" in [f"{each.tag} {each.path}" for each in contract().check({**GOOD, "seen": "7"})]


def test_validate_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command: 0 lawful, 1 a finding, 2 set-up; several files are asked what must never fall."""
    (tmp_path / "s.json").write_bytes(SCHEMA)
    (tmp_path / "r.yaml").write_bytes(RULES)
    for name, document in (("good", GOOD), ("later", {**GOOD, "seen": 2}), ("old", {**GOOD, "age_ms": 900})):
        (tmp_path / f"{name}.json").write_text(json.dumps(document))

    def validate(*files: str, rules: str = "r.yaml") -> int:
        return main(["validate", "own", "--schema", str(tmp_path / "s.json"), "--rules", str(tmp_path / rules), "--file",
                     *(str(tmp_path / each) for each in files)])

    assert validate("good.json") == 0
    assert "says nothing about seen" in capsys.readouterr().out
    assert validate("good.json", "later.json") == 1
    assert "[MONOTONE] /seen" in capsys.readouterr().err
    assert validate("old.json") == 1
    assert validate("nowhere.json") == 2
    assert validate("good.json", rules="nowhere.yaml") == 2
    assert main(["validate", "own", "--file", str(tmp_path / "good.json")]) == 2
