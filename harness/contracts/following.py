"""Documents one after another: what a rule said of the last one stands until something changes that the rule read.

A status is asked twenty times a second and differs from its last answer in two fields of forty. So each rule runs over
a document that remembers which keys it was asked for, and runs again only when one of those has changed. Nothing of this
is declared by hand: a rule is a pure function of what it reads, whatever that is. The schema cannot be watched reading,
but where it has the plain form that ours has, a changed field concerns its own subschema and the conditions that name it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jsonschema_rs

if TYPE_CHECKING:
    from harness.contracts.csp_status import Contract, Finding

Document = Mapping[str, Any]

PLAIN = frozenset({"$schema", "$id", "title", "description", "type", "required", "properties", "allOf",
                   "additionalProperties"})
"""Keywords of a schema that can be asked field by field; with any other it is asked whole."""


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

    def still_valid(self, document: Document, changed: Collection[str]) -> bool:
        """Whether a document that was valid surely still is, after these of its fields changed; False asks the whole."""
        if self.whole or not self.conditional.isdisjoint(changed):
            return False
        try:
            return all(self._fields[key].is_valid(document[key]) for key in changed if key in self._fields)
        except Exception:  # noqa: BLE001 (what JSON cannot hold; the whole schema says so in its own words)
            return False


class Following:
    """Checks documents that come one after another, each with the keys in which it differs from the one before."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._last: Document | None = None
        self._valid = False
        self._found: list[list[Finding]] = []
        self._reads: list[frozenset[str]] = []
        self._read: frozenset[str] = frozenset()
        self._findings: list[Finding] = []

    def check(self, document: Document, changed: Collection[str] | None) -> list[Finding]:
        """What ``Contract.check_document`` says of it. ``changed`` is None where it is not known, and may name too many
        keys, never too few."""
        last, self._last = self._last, document
        if changed is None or last is None or any((key in last) is not (key in document) for key in changed):
            changed = None
        elif not changed:
            return self._findings
        stale = self._schema(document, changed)
        if changed is None or not self._read.isdisjoint(changed):
            self._rules(document, changed)
            stale = True
        if stale:
            self._findings = self._contract.together(self._found)
        return self._findings

    def _schema(self, document: Document, changed: Collection[str] | None) -> bool:
        """Ask the schema, as far as it must be; whether its findings may be others now."""
        if changed is not None and self._valid and self._contract.parts.still_valid(document, changed):
            return False
        found = self._contract.schema_findings(document)
        self._valid = not found
        self._found[:1] = [found]
        return True

    def _rules(self, document: Document, changed: Collection[str] | None) -> None:
        """Run the rules that read something that has changed."""
        rules = self._contract.rules
        if changed is None:
            self._found[1:] = [[] for _ in rules]
            self._reads = [frozenset() for _ in rules]
        for number, rule in enumerate(rules):
            if changed is None or not self._reads[number].isdisjoint(changed):
                watched = Watched(document)
                self._found[number + 1] = rule(watched)
                self._reads[number] = frozenset(watched.read)
        self._read = frozenset().union(*self._reads)


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
