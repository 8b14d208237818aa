"""The owner's view: the state in an owner's words, derived from the document and never more than derived.

The manifest's ``owner`` section is the rule. A document has one *subject*: in Kill the first reason, in ReduceOnly
the first reason or, when that is the latch, the first latch code, else ``Active``. The first row of that subject
which holds gives the view. Some rows hold by a cause that only the trader knows (a containment, a clock that
drifts); judging from the document alone, every row up to the first one that the document itself decides is
admissible, and a view that equals none of them contradicts its document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from harness.contracts.library import Manifest
from harness.errors import SpecError

Document = Mapping[str, Any]
_LATCHED = "REDUCEONLY_OPEN_PERMISSION_LATCHED"
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Template:
    """A text with policy values filled in; ``parts`` are ("text" | "field" | "hidden", text or name) in turn."""

    parts: tuple[tuple[str, str], ...]
    patterns: Mapping[str, str]
    """hidden value's name → regular expression of its form"""
    literal: str | None
    """the whole text, when nothing in it depends on the document"""

    def fill(self, document: Document, hidden: Mapping[str, str]) -> str:
        """The text over ``document``; a hidden value that is not given reads ``unknown``."""
        return "".join(_filled(kind, value, document, hidden) for kind, value in self.parts)

    def outline(self) -> str:
        """The text with the policy filled in and everything else by its name: ``wal_queue_depth<{wal_queue_capacity}``."""
        return "".join(value if kind == "text" else "{" + value + "}" for kind, value in self.parts)

    def matches(self, text: Any, document: Document) -> bool:
        """Whether ``text`` is this template over ``document``; hidden values need only have their form."""
        if not isinstance(text, str) or text == self.literal:
            return isinstance(text, str)
        if not any(kind == "hidden" for kind, _ in self.parts):
            return text == self.fill(document, {})
        pattern = "".join(f"(?:{self.patterns[value]})" if kind == "hidden" else
                          re.escape(_filled(kind, value, document, {})) for kind, value in self.parts)
        return re.fullmatch(pattern, text) is not None


@dataclass(frozen=True, slots=True)
class Situation:
    """One row's view: code, message and the conditions that end it."""

    name: str
    code: str
    message: str
    unblock: tuple[tuple[str, Template, Template, Template], ...]
    """(type, condition, current, target)"""

    def matches(self, view: Mapping[str, Any], document: Document) -> str | None:
        """None when ``view`` is this situation's, else the part of the view that differs."""
        if view.get("primary_owner_reason_code") != self.code:
            return "/primary_owner_reason_code"
        if view.get("owner_message") != self.message:
            return "/owner_message"
        unblock = view.get("unblock")
        if not isinstance(unblock, list) or len(unblock) != len(self.unblock):
            return "/unblock"
        for index, (entry, (kind, *templates)) in enumerate(zip(unblock, self.unblock, strict=True)):
            if not (type(entry) is dict or isinstance(entry, Mapping)) or entry.get("type") != kind:
                return f"/unblock/{index}/type"
            for name, template in zip(("condition", "current", "target"), templates, strict=True):
                if not template.matches(entry.get(name), document):
                    return f"/unblock/{index}/{name}"
        return None


@dataclass(frozen=True, slots=True)
class Row:
    """One rule of a subject. ``cause`` None: the document alone decides."""

    cause: str | None
    when: Callable[[Document], bool]
    situation: Situation


class OwnerRules:
    """The manifest's rules with the policy in force filled in."""

    def __init__(self, manifest: Manifest, policy: Mapping[str, Any]) -> None:
        values = {**manifest.policy_defaults, **policy}
        self._known = manifest.known_keys
        self._hidden = {name: each["pattern"] for name, each in manifest.raw["owner"]["placeholders"].items()}
        self.situations = {name: self._situation(name, raw, values)
                           for name, raw in manifest.raw["owner"]["situations"].items()}
        self.rows: dict[str, tuple[Row, ...]] = {}
        for rule in manifest.raw["owner"]["rules"]:
            row = Row(rule["cause"], _condition(rule["when"], values), self.situations[rule["situation"]])
            self.rows[rule["subject"]] = (*self.rows.get(rule["subject"], ()), row)

    def subject(self, document: Document) -> str | None:
        """What the view is about; None when the document is too broken to say."""
        mode = document.get("trading_mode")
        if mode == "Active":
            return "Active"
        first = _first(document.get("mode_reasons"))
        if mode == "ReduceOnly" and first == _LATCHED:
            return _first(document.get("open_permission_reason_codes"))
        return first

    def admissible(self, document: Document) -> tuple[Situation, ...]:
        """The situations that the document allows, in order; the last one needs no hidden cause."""
        found: list[Situation] = []
        for row in self.rows.get(self.subject(document) or "", ()):
            if row.when(document):
                found.append(row.situation)
                if row.cause is None:
                    break
        return tuple(found)

    def derive(self, document: Document, causes: Iterable[str] = (),
               hidden: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The view itself, given the live causes and the hidden values by placeholder name.

        Raises SpecError when the document has no subject.
        """
        causes = frozenset(causes)
        for row in self.rows.get(self.subject(document) or "", ()):
            if row.when(document) and (row.cause is None or row.cause in causes):
                return self._view(row.situation, document, hidden or {})
        raise SpecError(f"no owner rule for {document.get('trading_mode')} {document.get('mode_reasons')}")

    def contradiction(self, view: Mapping[str, Any], document: Document) -> tuple[str, tuple[str, ...]] | None:
        """None, or the part that differs from the nearest admissible situation and the names of all of them.

        A document without a subject is not judged: it breaks other rules already.
        """
        deepest = ""
        names = []
        for situation in self.admissible(document):
            part = situation.matches(view, document)
            if part is None:
                return None
            names.append(situation.name)
            deepest = max(deepest, part, key=_closeness)
        return (deepest, tuple(names)) if names else None

    def _view(self, situation: Situation, document: Document, hidden: Mapping[str, str]) -> dict[str, Any]:
        return {
            "primary_owner_reason_code": situation.code,
            "owner_message": situation.message,
            "unblock": [{"type": kind, **{name: template.fill(document, hidden) for name, template
                                          in zip(("condition", "current", "target"), templates, strict=True)}}
                        for kind, *templates in situation.unblock],
        }

    def _situation(self, name: str, raw: Mapping[str, Any], values: Mapping[str, Any]) -> Situation:
        unblock = tuple((each["type"], *(self._template(each[part], values)
                                         for part in ("condition", "current", "target"))) for each in raw["unblock"])
        return Situation(name, raw["primary_owner_reason_code"], raw["owner_message"], unblock)

    def _template(self, text: str, values: Mapping[str, Any]) -> Template:
        pieces = _PLACEHOLDER.split(text)
        parts = [("text", piece) if index % 2 == 0 else self._placeholder(piece, values)
                 for index, piece in enumerate(pieces) if piece or index % 2]
        literal = "".join(piece for _, piece in parts) if all(kind == "text" for kind, _ in parts) else None
        return Template(tuple(parts), self._hidden, literal)

    def _placeholder(self, name: str, values: Mapping[str, Any]) -> tuple[str, str]:
        """Where a placeholder's value comes from: the document, the trader, or the policy (filled in at once)."""
        if name in self._known:
            return "field", name
        if name in self._hidden:
            return "hidden", name
        if name in values:
            return "text", written(values[name])
        if name.endswith("_s") and f"{name[:-2]}_ms" in values:
            return "text", written(seconds(values[f"{name[:-2]}_ms"]))
        raise SpecError(f"the manifest's placeholder {{{name}}} is no status key, hidden value or policy key")


def seconds(milliseconds: float) -> float:
    """60000 → 60, 1500 → 1.5: whole seconds stay whole."""
    value = milliseconds / 1000
    return int(value) if value == int(value) else value


def written(value: Any) -> str:
    """A value in a text: strings bare, everything else as JSON writes it; ``?`` for what JSON cannot hold."""
    if isinstance(value, str):
        return value
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return "?"


def _filled(kind: str, value: str, document: Document, hidden: Mapping[str, str]) -> str:
    if kind == "text":
        return value
    return hidden.get(value, "unknown") if kind == "hidden" else written(document.get(value))


def _condition(when: Iterable[Mapping[str, Any]], values: Mapping[str, Any]) -> Callable[[Document], bool]:
    tests = tuple(_test(each, values) for each in when)
    if not tests:
        return lambda document: True
    return lambda document: all(test(document) for test in tests)


def _test(raw: Mapping[str, Any], values: Mapping[str, Any]) -> Callable[[Document], bool]:
    """One condition over the finished document."""
    match raw:
        case {"field": field, "equals": value}:
            return lambda document: document.get(field) == value
        case {"field": field, "has": value}:
            return lambda document: isinstance(document.get(field), list) and value in document[field]
        case {"field": field, "at_least": bound}:
            return lambda document: _at_least(document.get(field), bound)
        case {"field": field, "at_least_policy": key}:
            return lambda document: _at_least(document.get(field), values.get(key))
        case {"field": field, "at_least_field": other}:
            return lambda document: _at_least(document.get(field), document.get(other))
    raise SpecError(f"the manifest's owner rules hold a condition nobody knows: {raw}")


def _at_least(value: Any, bound: Any) -> bool:
    return isinstance(value, int | float) and isinstance(bound, int | float) and value >= bound


def _first(codes: Any) -> str | None:
    return codes[0] if isinstance(codes, list) and codes and isinstance(codes[0], str) else None


def _closeness(part: str) -> int:
    """How far a view got before it differed: the furthest one is the situation that was meant."""
    return {"": 0, "/primary_owner_reason_code": 1, "/owner_message": 2}.get(part, 3)
