"""Documents one after another: what a rule said of the last one stands until something changes that the rule read.

A status is asked twenty times a second and differs from its last answer in two fields of forty. So each rule runs over
a document that remembers which keys it was asked for, and runs again only when one of those has changed. Nothing of this
is declared by hand: a rule is a pure function of what it reads, whatever that is. The schema cannot be watched reading,
but where it has the plain form that ours has, a changed field concerns its own subschema and the conditions that name it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import jsonschema_rs

if TYPE_CHECKING:
    from harness.contracts.csp_status import Contract, Finding

Document = Mapping[str, Any]

PLAIN = frozenset({"$schema", "$id", "title", "description", "type", "required", "properties", "allOf",
                   "additionalProperties"})
"""Keywords of a schema that can be asked field by field; with any other it is asked whole."""


PLANS_MAX = 1_000
"""So many sets of fields that changed together are remembered; an honest system has a few dozen."""

Test = Callable[[Any], bool]
Plan = tuple[tuple[tuple[str, Test], ...] | None, tuple[int, ...]]
"""For a set of fields that changed: the tests of the schema (None: ask it whole), and the rules that read one of them."""


class Checks(Protocol):
    """A contract of one document."""

    def check(self, data: Document, /) -> list[Finding]:
        """What is wrong with it."""


class Watched(Mapping[str, Any]):
    """A document that remembers whose values were asked for. Which keys there are is no secret."""

    __slots__ = ("_document", "read")

    def __init__(self, document: Document) -> None:
        self._document = document
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return self._document[key]

    def get(self, key: str, default: Any = None) -> Any:
        """As of any mapping."""
        self.read.add(key)
        return self._document.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._document

    def __iter__(self) -> Iterator[str]:
        return iter(self._document)

    def __len__(self) -> int:
        return len(self._document)


class Whole:
    """Checks documents that come one after another whole, but one that has not changed not again."""

    def __init__(self, contract: Checks) -> None:
        self._contract = contract
        self._findings: list[Finding] | None = None

    def check(self, document: Document, changed: Collection[str] | None) -> list[Finding]:
        """``changed`` names the keys in which it differs from the one before; None where that is not known."""
        if changed is None or changed or self._findings is None:
            self._findings = self._contract.check(document)
        return self._findings


class Parts:
    """A schema taken apart: a validator for each field, and the fields that its conditions name."""

    def __init__(self, schema: Any) -> None:
        fields = schema.get("properties", ()) if isinstance(schema, Mapping) else ()
        self.whole = not isinstance(fields, Mapping) or not schema.keys() <= PLAIN \
            or not isinstance(schema.get("additionalProperties", True), bool) or _refers(schema)
        """Whether it can only be asked whole."""
        self.conditional: frozenset[str] = frozenset()
        self._fields: dict[str, Any] = {}
        if isinstance(fields, Mapping) and not self.whole:
            self.conditional = frozenset(_named(schema.get("allOf", [])))
            self._fields = {key: jsonschema_rs.Draft202012Validator(each) for key, each in fields.items()}

    def asked(self, changed: Iterable[str]) -> tuple[tuple[str, Test], ...] | None:
        """(field, its test) of every changed field whose value decides whether a document that was valid still is; None where
        the whole must be asked."""
        if self.whole or not self.conditional.isdisjoint(changed):
            return None
        return tuple((key, self._fields[key].is_valid) for key in changed if key in self._fields)


class Following:
    """Checks documents that come one after another, each with the keys in which it differs from the one before."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._last: Document | None = None
        self._valid = False
        self._found: list[list[Finding]] = []
        self._reads: list[frozenset[str]] = []
        self._findings: list[Finding] = []
        self._plans: dict[tuple[str, ...], Plan] = {}

    def check(self, document: Document, changed: Collection[str] | None) -> list[Finding]:
        """What ``Contract.check_document`` says of it. ``changed`` is None where it is not known, and may name too many
        keys, never too few. Whoever shows one object that goes on changing names None where keys came or went."""
        last, self._last = self._last, document
        if changed is None or last is None or (
                last is not document and any((key in last) is not (key in document) for key in changed)):
            return self._anew(document)
        if not changed:
            return self._findings
        keys = changed if type(changed) is tuple else tuple(changed)
        fields, rules = self._plans.get(keys) or self._planned(keys)
        stale = not (self._valid and fields is not None and _all_valid(fields, document)) and self._schema(document)
        for number in rules:
            stale |= self._rule(number, document)
        if stale:
            self._findings = self._contract.together(self._found)
        return self._findings

    def _anew(self, document: Document) -> list[Finding]:
        rules = self._contract.rules
        self._found = [[] for _ in range(len(rules) + 1)]
        self._reads = [frozenset() for _ in rules]
        self._schema(document)
        for number in range(len(rules)):
            self._rule(number, document)
        self._findings = self._contract.together(self._found)
        return self._findings

    def _planned(self, changed: tuple[str, ...]) -> Plan:
        """What these fields have to do with, as long as no rule reads others."""
        if len(self._plans) > PLANS_MAX:
            self._plans.clear()
        plan = self._contract.parts.asked(changed), tuple(
            number for number, reads in enumerate(self._reads) if not reads.isdisjoint(changed))
        self._plans[changed] = plan
        return plan

    def _schema(self, document: Document) -> bool:
        """Ask the whole schema; whether it says something else than before."""
        before, self._found[0] = self._found[0], self._contract.schema_findings(document)
        self._valid = not self._found[0]
        return before != self._found[0]

    def _rule(self, number: int, document: Document) -> bool:
        """Ask one rule; whether it says something else than before."""
        watched = Watched(document)
        before, self._found[number + 1] = self._found[number + 1], self._contract.rules[number](watched)
        if watched.read != self._reads[number]:
            self._reads[number] = frozenset(watched.read)
            self._plans.clear()
        return before != self._found[number + 1]


def _all_valid(fields: Iterable[tuple[str, Test]], document: Document) -> bool:
    try:
        for key, is_valid in fields:  # a comprehension would cost as much again
            if not is_valid(document[key]):
                return False
    except Exception:  # noqa: BLE001 (what JSON cannot hold; the whole schema says so in its own words)
        return False
    return True


def _named(conditions: Any) -> Iterator[str]:
    """Every field that some condition speaks of, at any depth; more than that does no harm."""
    if isinstance(conditions, Mapping):
        for word, value in conditions.items():
            if word == "properties" and isinstance(value, Mapping):
                yield from value
            elif word == "required" and isinstance(value, list):
                yield from (each for each in value if isinstance(each, str))
            yield from _named(value)
    elif isinstance(conditions, list):
        for each in conditions:
            yield from _named(each)


def _refers(schema: Any) -> bool:
    """Whether some part of it stands elsewhere, or speaks of fields by pattern, number or what is left over."""
    if isinstance(schema, Mapping):
        return any(word.startswith(("$ref", "$dynamicRef", "$defs", "patternProperties", "unevaluated", "minProperties",
                                    "maxProperties", "propertyNames", "dependent")) or _refers(value)
                   for word, value in schema.items())
    return isinstance(schema, list) and any(map(_refers, schema))
