"""The JSON Schema of drill files, generated from the grammar, for editors and for other people's tools.

``python -m harness.drill.schema`` writes ``specs/drill.schema.json``; ``--check`` says whether it is up to date
(exit 0) or not (exit 1).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import limits
from harness.drill import grammar
from harness.drill.grammar import Clause, Part

FILE = Path(__file__).parents[2] / "specs" / "drill.schema.json"

Schema = dict[str, Any]


def _whole(pattern: str) -> str:
    return f"^(?:{pattern})$"


def _text(pattern: str) -> Schema:
    return {"type": "string", "pattern": _whole(pattern)}


_OF_KIND: Mapping[str, Schema] = {
    "text": {"type": "string", "minLength": 1, "maxLength": 200},
    "id": _text(grammar.ID),
    "name": _text(grammar.NAME),
    "file": _text(grammar.RELATIVE_FILE),
    "path": _text(grammar.HTTP_PATH),
    "mark": _text(grammar.MARK),
    "duration": _text(grammar.DURATIONS),
    "offset": _text(grammar.DURATIONS),
    "signed": _text(grammar.SIGNED_DURATION),
    "count": {"type": "integer", "minimum": 1, "maximum": grammar.COUNT_MAX},
    "bound": {"type": "integer", "minimum": 0, "maximum": grammar.COUNT_MAX},
    "ratio": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "ppm": {"type": "integer", "minimum": -grammar.DRIFT_PPM_MAX, "maximum": grammar.DRIFT_PPM_MAX},
    "percent": {"type": "integer", "minimum": 1, "maximum": 50},
    "object": {"type": "object"},
    "flag": {"type": "boolean"},
    "predicate": {"$ref": "#/$defs/predicate"},
    "json": {},
    "headers": {"type": "object", "propertyNames": _text(grammar.HEADER_NAME),
                "additionalProperties": _text(grammar.HEADER_VALUE)},
    "numbers": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}},
    "status": {"type": "integer", "minimum": 100, "maximum": 599},
    "crash": {"$ref": "#/$defs/crash"},
    "moment": _text(grammar.MOMENT),
    "content": {"type": "string", "maxLength": grammar.CONTENT_CHARACTERS_MAX},
}


def _part(part: Part) -> Schema:
    shape = {"enum": list(part.choices)} if part.kind == "choice" else _OF_KIND[part.kind]
    return {**shape, "description": part.about}


def _clause(clause: Clause, more: Schema | None = None, inline: bool = False) -> Schema:
    """An object with the clause's keys; ``inline`` lets surfaces with their fields stand beside them."""
    own = {name: _part(part) for name, part in clause.items()}
    required = [name for name, part in clause.items() if part.required]
    schema: Schema = {"type": "object", "properties": {**own, **(more or {})}, "required": required,
                      "additionalProperties": {"$ref": "#/$defs/fields"} if inline else False}
    return schema


def _one_verb(own: Clause, verbs: Mapping[str, Clause]) -> Schema:
    """``own`` keys and exactly one of the verbs."""
    schema = _clause(own, {verb: _clause(clause) for verb, clause in verbs.items()})
    schema["oneOf"] = [{"required": [verb]} for verb in verbs]
    return schema


def _named(clause: Schema, most: int) -> Schema:
    return {"type": "object", "propertyNames": {"pattern": _whole(grammar.ID)}, "additionalProperties": clause,
            "maxProperties": most}


def _operators() -> Schema:
    values: Schema = {name: {} for name in grammar.OPERATORS}
    values |= {"at_least": {"type": "number"}, "at_most": {"type": "number"}, "rises": {"type": "boolean"},
               "one_of": {"type": "array", "minItems": 1}}
    return {"type": "object", "properties": values, "additionalProperties": False, "minProperties": 1}


def _definitions() -> Schema:
    points = {name: {"type": "string"} for name in grammar.CRASH_POINTS}
    promises = [_clause(clause, inline=form == "within") for form, clause in grammar.PROMISES.items()]
    return {
        "fields": {"type": "object", "minProperties": 1, "additionalProperties": False, "patternProperties": {
            _whole(grammar.FIELD_PATH): {"anyOf": [{"not": {"type": "object"}}, {"$ref": "#/$defs/operators"}]}}},
        "operators": _operators(),
        "predicate": {"type": "object", "minProperties": 1, "additionalProperties": {"$ref": "#/$defs/fields"}},
        "crash": {"type": "object",
                  "properties": {**points, "nth": {"type": "integer", "minimum": 1},
                                 "step": {"enum": list(grammar.REPLACE_STEPS)}},
                  "additionalProperties": False, "oneOf": [{"required": [name]} for name in points],
                  "dependentRequired": {"step": ["replace"]}},
        "promise": {"anyOf": promises},
        "periods": {"type": "object", "additionalProperties": _OF_KIND["duration"]},
    }


def schema() -> Schema:
    """The schema as a value. Names, overlaps and marks are not in it: ``drillproof check`` asks those."""
    properties: Schema = {
        "drill": _text(grammar.DRILL_NAME),
        "title": {"type": "string", "minLength": 1, "maxLength": 120},
        "why": {"type": "string", "minLength": 1, "maxLength": 2_000},
        "proves": {"type": "array", "items": _text(grammar.ITEM)},
        "worlds": {"type": "array", "items": {"enum": list(grammar.WORLD_NAMES)}, "minItems": 1, "uniqueItems": True,
                   "description": "the worlds it is meant for; all of them if absent"},
        "sample": {"$ref": "#/$defs/periods"},
        "grain": {"$ref": "#/$defs/periods"},
        "given": _clause(grammar.GIVEN, inline=True),
        "faults": _named(_one_verb(grammar.FAULT, grammar.VERBS), limits.DRILL_FAULTS_MAX),
        "stimuli": _named(_one_verb(grammar.STIMULUS, grammar.ACTS), limits.DRILL_FAULTS_MAX),
        "promises": _named({"$ref": "#/$defs/promise"}, grammar.PROMISES_MAX),
        "golden": _clause(grammar.GOLDEN),
        "converge": _clause(grammar.CONVERGE, inline=True),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A drill: a promise with a fault in it",
        "description": "Generated by python -m harness.drill.schema; change harness/drill/grammar.py instead.",
        "type": "object",
        "properties": {name: properties[name] for name in grammar.TOP},
        "required": list(grammar.TOP_REQUIRED),
        "additionalProperties": False,
        "$defs": _definitions(),
    }


def text() -> str:
    """The schema as the file holds it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Write the file, or with ``--check`` compare it."""
    if arguments == ["--check"]:
        current = FILE.read_text(encoding="utf-8") if FILE.is_file() else ""
        print(f"{FILE.name}: {'up to date' if current == text() else 'not what the grammar says; run without --check'}")
        return 0 if current == text() else 1
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
