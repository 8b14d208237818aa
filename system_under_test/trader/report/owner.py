"""The owner's view: the finished document once more, in an owner's words. Derived last, and never more than derived.

The rules are data (the manifest's ``owner`` section), the inputs are the document, the policy in force, the live
causes that a document cannot show, and four measurements. A validator with the same data comes to the same view.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from typing import Any

import orjson

from system_under_test.trader.settings import Settings

_PLACEHOLDER = re.compile(r"\{([a-z0-9_]+)\}")


class OwnerError(RuntimeError):
    """The manifest has no rule for this document, or a template names something that nobody knows."""


class Owner:
    """The rules and templates of one policy. What the policy says is written into a template once, before its first use."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._written: dict[str, tuple[str, ...]] = {}
        self._asked = frozenset(condition[field] for rule in settings.registries.owner_rules for condition in rule["when"]
                                for field in ("field", "at_least_field") if field in condition)
        self.reads: frozenset[str] = frozenset()
        """what the last view depends on: fields that rules ask for, fields and measurements that its words quote"""

    def view(self, document: Mapping[str, Any], causes: Set[str], measured: Mapping[str, str]) -> dict[str, Any]:
        """The view of a document. ``measured`` fills the placeholders that are no status key and no policy key."""
        rule = self._rule(document, causes)
        situation = self._settings.registries.owner_situations[rule["situation"]]
        self.reads = self._asked

        def filled(template: str) -> str:
            parts = self._written.get(template) or self._write(template, document, measured)
            self.reads = self.reads.union(parts[1::2])
            if len(parts) == 1:
                return parts[0]
            return "".join([(measured[part] if part in measured else _text(document[part])) if place % 2 else part
                            for place, part in enumerate(parts)])

        return {
            "primary_owner_reason_code": situation["primary_owner_reason_code"],
            "owner_message": filled(situation["owner_message"]),
            "unblock": [
                {"type": each["type"], "condition": filled(each["condition"]), "current": filled(each["current"]),
                 "target": filled(each["target"])}
                for each in situation["unblock"]
            ],
        }

    def _write(self, template: str, document: Mapping[str, Any], measured: Mapping[str, str]) -> tuple[str, ...]:
        """The template cut into text and the names of what changes, in turn, text first and last."""
        parts = [""]
        for place, part in enumerate(_PLACEHOLDER.split(template)):
            if place % 2 and (part in measured or part in document):
                parts += [part, ""]
            else:
                parts[-1] += _text(_policy(part, self._settings)) if place % 2 else part
        self._written[template] = tuple(parts)
        return self._written[template]

    def _rule(self, document: Mapping[str, Any], causes: Set[str]) -> Mapping[str, Any]:
        subject = _subject(document)
        for rule in self._settings.registries.owner_rules_of.get(subject, ()):
            if rule["cause"] is not None and rule["cause"] not in causes:
                continue
            if all(_holds(condition, document, self._settings) for condition in rule["when"]):
                return rule
        raise OwnerError(f"no owner rule for {subject}")


def _subject(document: Mapping[str, Any]) -> str:
    """What the view is about: the first reason, or what is behind the latch when the latch is the first reason."""
    if document["trading_mode"] == "Active":
        return "Active"
    first: str = document["mode_reasons"][0]
    codes = document["open_permission_reason_codes"]
    return codes[0] if first == "REDUCEONLY_OPEN_PERMISSION_LATCHED" and codes else first


def _holds(condition: Mapping[str, Any], document: Mapping[str, Any], settings: Settings) -> bool:
    value = document[condition["field"]]
    if "equals" in condition:
        return bool(value == condition["equals"])
    if "has" in condition:
        return condition["has"] in value
    if "at_least" in condition:
        return bool(value >= condition["at_least"])
    if "at_least_field" in condition:
        return bool(value >= document[condition["at_least_field"]])
    return bool(value >= _policy(condition["at_least_policy"], settings))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _policy(name: str, settings: Settings) -> Any:
    """A policy value by its key, or a duration in seconds whose key counts milliseconds."""
    for values in (settings.policy, settings.registries.policy_defaults):
        if name in values:
            return values[name]
        in_ms = name.removesuffix("_s") + "_ms"
        if name.endswith("_s") and in_ms in values:
            seconds, rest = divmod(values[in_ms], 1_000)
            return values[in_ms] / 1_000 if rest else seconds
    raise OwnerError(f"nobody knows {name!r}, which an owner template names")
