"""A status contract of one's own: a JSON Schema, and a rules file for what a schema cannot say. No code.

    enumerations: {mode: [running, halted]}            ENUM     a value, or each member of a list, is one of these
    monotone:     [quotes_seen]                        MONOTONE a number that never falls while its process lives
    orderings:                                         ORDER
      by_weight:  {list: reasons, order: [A, B, C]}               a list's members, each once, stand in this order
      counted:    {numbers: [failed, asked]}                      none of these numbers is larger than the next
    reasons:                                           REASON   a list that must not be empty while something holds
      says_why:   {field: reasons, when: {mode: halted}, some_of: [A, B]}
    implications:                                      IMPLIES
      is_fresh:   {when: {mode: running}, then: {age_ms: {at_most: 2000}}}

What a rule asks for must be there: a missing field breaks the rule that names it, and what never falls is a number.
Predicates are those of drills, without ``rises``. ``monotone`` is asked of documents one after another, so that a fall is
seen only where there are several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

from harness import limits, texts
from harness.contracts.csp_status import FINDINGS_MAX, Finding
from harness.contracts.following import Whole
from harness.contracts.own_schema import validator_of
from harness.contracts.reading import Unreadable, pointer, read_object, shown
from harness.drill.model import Field, Predicate
from harness.drill.predicate import MISSING, evaluate_field, is_number, look, same
from harness.errors import TextError
from harness.texts import Spot

Document = Mapping[str, Any]
Rule = Callable[[Document], list[Finding]]
SECTIONS = ("enumerations", "monotone", "orderings", "reasons", "implications")
OPERATORS = ("equals", "is_not", "at_least", "at_most", "has", "has_not", "one_of")
RULES_MAX = 500


FOLDER = "own/contracts"
"""Where the texts lie, in a run's folder and under a pack's rules."""


def files_of(name: str, entry: Any) -> dict[str, str]:
    """``schema`` and ``rules``, as far as a stack's entry has them → where the text lies."""
    named = entry if isinstance(entry, Mapping) else {}
    return {part: f"{FOLDER}/{name}.{part}.{end}" for part, end in (("schema", "json"), ("rules", "yaml")) if named.get(part)}


@dataclass(frozen=True, slots=True)
class Rules:
    """What a rules file says: a check for each rule, and the fields that never fall."""

    checks: tuple[Rule, ...] = ()
    monotone: tuple[str, ...] = ()


class Contract:
    """The compiled rules of one schema and one rules file; either may be missing."""

    def __init__(self, schema: Any = None, rules: Rules | None = None, file: str = "the schema") -> None:
        self._schema = validator_of(schema, file) if schema is not None else None
        self._rules = rules or Rules()

    @property
    def monotone(self) -> tuple[str, ...]:
        """Fields that never fall, for whoever has more than one document."""
        return self._rules.monotone

    @classmethod
    def read(cls, schema: tuple[str, bytes] | None, rules: tuple[str, bytes] | None) -> Contract:
        """Of both files, each as its name and its bytes. Raises TextError with the place, SpecError."""
        document = None
        if schema is not None:
            document = texts.load_json(schema[1], schema[0])
            if not isinstance(document, dict | bool):
                raise TextError(schema[0], 1, 1, "no object", "a JSON Schema")
        read = read_rules(rules[1], rules[0]) if rules is not None else None
        return cls(document, read, schema[0] if schema is not None else "")

    def check(self, data: bytes | Document) -> list[Finding]:
        """What is wrong with one document by itself, in a stable order. Never raises."""
        if isinstance(data, bytes):
            try:
                data = read_object(data)
            except Unreadable as why:
                return [Finding("SCHEMA", "", str(why))]
        found = [*self._schema_findings(data), *(each for rule in self._rules.checks for each in rule(data))]
        return found[:FINDINGS_MAX]

    def falls(self, before: Document, after: Document) -> list[Finding]:
        """Which fields that never fall have fallen from one document of a process to its next."""
        found = []
        for path in self.monotone:
            old, new = look(before, path), look(after, path)
            if is_number(old) and is_number(new) and new < old:
                found.append(Finding("MONOTONE", _at(path), f"fell from {old} to {new}"))
        return found

    def following(self) -> Whole:
        """A reader of documents that come one after another."""
        return Whole(self)

    def _schema_findings(self, document: Document) -> list[Finding]:
        if self._schema is None:
            return []
        try:
            return [Finding("SCHEMA", pointer(*error.instance_path), str(error.message)[:300])
                    for error in islice(self._schema.iter_errors(document), FINDINGS_MAX)]
        except Exception as why:  # the schema library refuses what JSON cannot hold
            return [Finding("SCHEMA", "", f"the document is no JSON value: {str(why)[:200]}")]


# ---- reading the rules file -------------------------------------------------------------------------------


def read_rules(data: bytes, file: str) -> Rules:
    """A rules file, strictly. Raises TextError with ``file:line:column``."""
    root = texts.compose(data, file, limits.SPEC_FILE_BYTES_MAX, empty="a rules file")
    entries = _keys(root, SECTIONS, ())
    if not entries:
        raise root.wrong("at least one of " + ", ".join(SECTIONS), found="no rules")
    checks: list[Rule] = []
    for section, make in _MAKERS.items():
        named = entries[section].mapping(f"a mapping of names to {section}") if section in entries else {}
        checks += [make(name, key, spot) for name, (key, spot) in named.items()]
    paths = [_path(each) for each in entries["monotone"].items("a list of fields")] if "monotone" in entries else []
    if len(checks) + len(paths) > RULES_MAX:
        raise root.wrong(f"at most {RULES_MAX} rules", found=f"{len(checks) + len(paths)} rules")
    if not checks and not paths:
        raise root.wrong("at least one rule", found="sections without rules")
    return Rules((*checks, *(partial(_counted, path) for path in paths)), tuple(paths))


def _keys(spot: Spot, known: Iterable[str], required: Iterable[str]) -> dict[str, Spot]:
    known = tuple(known)
    entries = spot.mapping("a mapping with the keys " + ", ".join(known))
    for name, (key, _) in entries.items():
        if name not in known:
            raise key.wrong("one of the keys " + ", ".join(known), known, found=f"the key {name!r}")
    for name in required:
        if name not in entries:
            raise spot.wrong(f"the key {name!r}", found="no such key")
    return {name: value for name, (_, value) in entries.items()}


def _path(spot: Spot) -> str:
    path = spot.text("a field's dotted path")
    if not path or not all(path.split(".")):
        raise spot.wrong("a field's dotted path, such as feed.age_ms")
    return path


def _words(spot: Spot, what: str) -> list[Any]:
    items = spot.items(f"a list of {what}")
    values = [each.json() for each in items]
    if not values:
        raise spot.wrong(f"a list of {what}", found="an empty list")
    for number, (item, value) in enumerate(zip(items, values, strict=True)):
        if isinstance(value, list | dict):
            raise item.wrong("a plain value")
        if any(same(value, each) for each in values[:number]):
            raise item.wrong("each value once")
    return values


def _predicate(spot: Spot) -> Predicate:
    """``{mode: halted, age_ms: {at_least: 3000}}``: as in a drill, of the one document at hand."""
    entries = spot.mapping("a predicate, such as {mode: halted}")
    if not entries:
        raise spot.wrong("at least one field", found="an empty predicate")
    fields: list[Field] = []
    for path, (key, value) in entries.items():
        _path(key)
        if not value.is_mapping:
            fields.append(Field("", path, "equals", value.json()))
            continue
        for operator, wanted in _keys(value, OPERATORS, ()).items():
            operand = wanted.json()
            if operator in ("at_least", "at_most") and not is_number(operand):
                raise wanted.wrong(f"a number for {operator}")
            if operator == "one_of" and (not isinstance(operand, list) or not operand):
                raise wanted.wrong("a list of choices for one_of")
            fields.append(Field("", path, operator, operand))  # type: ignore[arg-type]
        if not value.mapping():
            raise value.wrong("a value, or one of the operators " + ", ".join(OPERATORS), found="no operator")
    return Predicate(tuple(fields))


# ---- the kinds of rules -----------------------------------------------------------------------------------


def _enumeration(path: str, key: Spot, spot: Spot) -> Rule:
    _path(key)
    return partial(_enumerated, path, _words(spot, "values"))


def _enumerated(path: str, known: list[Any], document: Document) -> list[Finding]:
    found = look(document, path)
    if found is MISSING:
        return [_missing("ENUM", path)]
    members = found if isinstance(found, list) else [found]
    return [Finding("ENUM", _at(path), f"{shown(each)} is none of {', '.join(map(shown, known))}")
            for each in members if not any(same(each, one) for one in known)]


def _counted(path: str, document: Document) -> list[Finding]:
    found = look(document, path)
    if found is MISSING:
        return [_missing("MONOTONE", path)]
    return [] if is_number(found) else [Finding("MONOTONE", _at(path), f"{shown(found)} is no number")]


def _ordering(name: str, key: Spot, spot: Spot) -> Rule:
    entries = _keys(spot, ("list", "order", "numbers"), ())
    if set(entries) == {"list", "order"}:
        return partial(_ordered, name, _path(entries["list"]), _words(entries["order"], "values in their order"))
    if set(entries) == {"numbers"}:
        paths = [_path(each) for each in entries["numbers"].items("a list of fields")]
        if len(paths) < 2:
            raise entries["numbers"].wrong("at least two fields", found=f"{len(paths)}")
        return partial(_ascending, name, paths)
    raise spot.wrong("list with order, or numbers", found=" and ".join(entries) or "nothing")


def _ordered(name: str, path: str, order: list[Any], document: Document) -> list[Finding]:
    found = look(document, path)
    if not isinstance(found, list):
        return [_missing("ORDER", path) if found is MISSING else
                Finding("ORDER", _at(path), f"{name}: {shown(found)} is no list")]
    places = [next((place for place, one in enumerate(order) if same(each, one)), None) for each in found]
    if None in places:
        return [Finding("ORDER", _at(path), f"{name}: {shown(found[places.index(None)])} has no place in the order")]
    if any(after <= before for before, after in zip(places, places[1:], strict=False)):  # type: ignore[operator]
        return [Finding("ORDER", _at(path), f"{name}: {shown(found)} is not in the order {', '.join(map(shown, order))}")]
    return []


def _ascending(name: str, paths: list[str], document: Document) -> list[Finding]:
    values = [look(document, path) for path in paths]
    for path, value in zip(paths, values, strict=True):
        if not is_number(value):
            return [_missing("ORDER", path) if value is MISSING else
                    Finding("ORDER", _at(path), f"{name}: {shown(value)} is no number")]
    pairs = zip(paths, paths[1:], values, values[1:], strict=False)
    return [Finding("ORDER", _at(low), f"{name}: {low} is {one}, more than {high}, which is {two}")
            for low, high, one, two in pairs if one > two]


def _reason(name: str, key: Spot, spot: Spot) -> Rule:
    entries = _keys(spot, ("field", "when", "some_of"), ("field", "when"))
    return partial(_reasoned, name, _path(entries["field"]), _predicate(entries["when"]),
                   _words(entries["some_of"], "reasons") if "some_of" in entries else None)


def _reasoned(name: str, path: str, when: Predicate, some_of: list[Any] | None, document: Document) -> list[Finding]:
    if asked := _unless_held("REASON", name, when, document):
        return asked if isinstance(asked, list) else []
    found = look(document, path)
    if not isinstance(found, list):
        return [_missing("REASON", path) if found is MISSING else
                Finding("REASON", _at(path), f"{name}: {shown(found)} is no list")]
    if not found:
        return [Finding("REASON", _at(path), f"{name}: no reason is told")]
    if some_of is not None and not any(same(each, one) for each in found for one in some_of):
        return [Finding("REASON", _at(path), f"{name}: {shown(found)} holds none of {', '.join(map(shown, some_of))}")]
    return []


def _implication(name: str, key: Spot, spot: Spot) -> Rule:
    entries = _keys(spot, ("when", "then"), ("when", "then"))
    return partial(_implied, name, _predicate(entries["when"]), _predicate(entries["then"]))


def _implied(name: str, when: Predicate, then: Predicate, document: Document) -> list[Finding]:
    if asked := _unless_held("IMPLIES", name, when, document):
        return asked if isinstance(asked, list) else []
    found = []
    for field in then.fields:
        if evaluate_field(field, document, None) is not True:
            value = look(document, field.path)
            found.append(_missing("IMPLIES", field.path) if value is MISSING else
                         Finding("IMPLIES", _at(field.path), f"{name}: is {shown(value)}, not {_wanted(field)}"))
    return found


def _unless_held(tag: str, name: str, when: Predicate, document: Document) -> list[Finding] | bool:
    """Nothing when the condition holds; True when it does not; findings when nobody can say."""
    held = [evaluate_field(field, document, None) for field in when.fields]
    if False in held:
        return True
    unknown = [field for field, each in zip(when.fields, held, strict=True) if each is None]
    return [replace(_missing(tag, field.path), message=f"{name}: cannot be asked, because it is missing or not comparable")
            for field in unknown]


def _wanted(field: Field) -> str:
    word = "" if field.operator == "equals" else f"{field.operator} "
    return f"{word}{shown(field.value)}"


def _missing(tag: str, path: str) -> Finding:
    return Finding(tag, _at(path), "is missing")


def _at(path: str) -> str:
    return pointer(*path.split("."))


_MAKERS: Mapping[str, Callable[[str, Spot, Spot], Rule]] = {
    "enumerations": _enumeration, "orderings": _ordering, "reasons": _reason, "implications": _implication}
