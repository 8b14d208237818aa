"""YAML ⇄ Drill. Every error says ``file:line:column``, what was found, what was expected, and the nearest right name.

``parse`` reads the grammar (shapes, units, bounds, known keys); ``harness.drill.check`` then asks whether the drill
makes sense against a stack, its events, fixtures and phase items; ``load`` does both. ``dump`` writes a drill back:
``parse(dump(drill)) == drill``, with policy values written out in milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from harness import limits
from harness.drill import grammar
from harness.drill.check import check
from harness.drill.grammar import Clause, Part
from harness.drill.model import (
    Always,
    Answers,
    Call,
    Clock,
    Converge,
    Count,
    Crash,
    Deploy,
    Disconnect,
    Disk,
    Drill,
    Drop,
    Fault,
    Field,
    Fill,
    Force,
    Given,
    Golden,
    Json,
    Kill,
    LinkFault,
    Never,
    OnlyAfter,
    Overwrite,
    Pause,
    Predicate,
    Promise,
    RawToxic,
    Remove,
    Starve,
    Stimulus,
    Switch,
    Within,
    WorldName,
)
from harness.drill.specs import Specs
from harness.errors import UsageError
from harness.texts import Spot, compose, read

__all__ = ["Specs", "check", "dump", "load", "parse", "worlds_of"]

Entries = dict[str, tuple[Spot, Spot]]


def parse(text: bytes, file: str = "drill.yaml", specs: Specs | None = None) -> Drill:
    """A drill from its YAML text. ``specs`` supplies policy values for ``policy.<key>``. Raises TextError."""
    return _Reader(specs or Specs()).drill(compose(text, file), file, text)


def worlds_of(path: Path) -> tuple[WorldName, ...]:
    """The worlds that a drill file is meant for, whatever the rest of it says; none: all of them. Raises TextError."""
    text = read(path, limits.DRILL_FILE_BYTES_MAX)
    if b"worlds" not in text:  # most say nothing of it, and reading all of them costs as much as running one
        return ()
    entries = compose(text, str(path)).mapping()
    return _Reader(Specs()).worlds(entries["worlds"][1]) if "worlds" in entries else ()


def load(path: Path, specs: Specs | None = None) -> Drill:
    """Read, parse and check a drill file. Raises TextError, or UsageError with every problem on a line of its own."""
    try:
        text = read(path, limits.DRILL_FILE_BYTES_MAX)
    except OSError as why:
        raise UsageError(f"{path}: cannot be read as a drill: {why.strerror or why}") from why
    specs = specs or Specs()
    drill = parse(text, str(path), specs)
    problems = check(drill, specs)
    if len(problems) > 1:
        raise UsageError("\n".join(map(str, problems)))
    if problems:
        raise problems[0]
    return drill


# ---- reading ----------------------------------------------------------------------------------------------


class _Reader:
    """Walks the nodes of one drill. ``specs`` is only asked for policy values and for names to suggest."""

    def __init__(self, specs: Specs) -> None:
        self.specs = specs

    def drill(self, root: Spot, file: str, text: bytes) -> Drill:
        entries = root.mapping("a mapping with the keys " + ", ".join(grammar.TOP))
        self._known(root, entries, grammar.TOP, grammar.TOP_REQUIRED)
        faults = tuple(self._fault(key, spot) for key, spot in self._named(entries, "faults", limits.DRILL_FAULTS_MAX))
        return Drill(
            name=self._matching(entries["drill"][1], grammar.DRILL_NAME, "a drill's name, such as 2_market_data_stale"),
            title=self._prose(entries["title"][1], 120),
            proves=self._proves(entries["proves"][1]) if "proves" in entries else (),
            why=self._prose(entries["why"][1], 2_000) if "why" in entries else "",
            sample=self._periods(entries["sample"][1]),
            given=self._given(entries["given"][1]),
            faults=faults,
            stimuli=tuple(self._stimulus(key, spot)
                          for key, spot in self._named(entries, "stimuli", limits.DRILL_FAULTS_MAX)),
            promises=tuple(self._promise(key, spot)
                           for key, spot in self._named(entries, "promises", grammar.PROMISES_MAX)),
            golden=self._golden(entries["golden"][1], faults) if "golden" in entries else None,
            converge=self._converge(entries["converge"][1]),
            grain_ms=self._periods(entries["grain"][1]) if "grain" in entries else MappingProxyType({}),
            worlds=self.worlds(entries["worlds"][1]) if "worlds" in entries else (),
            file=file,
            text=text,
        )

    def _proves(self, spot: Spot) -> tuple[str, ...]:
        items = spot.items("a list of phase items")
        return tuple(self._matching(each, grammar.ITEM, "the id of a phase item") for each in items)

    def worlds(self, spot: Spot) -> tuple[WorldName, ...]:
        """Worlds by name, each once; a list that names none would be a drill for nowhere."""
        items = spot.items("a list of worlds")
        if not items:
            raise spot.wrong("at least one of " + ", ".join(grammar.WORLD_NAMES), found="no world")
        found: list[WorldName] = []
        for each in items:
            name: Any = self._choice(each, grammar.WORLD)
            if name in found:
                raise each.wrong("each world once", found=f"{name!r} twice")
            found.append(name)
        return tuple(found)

    # ---- keys

    def _known(self, spot: Spot, entries: Entries, known: Iterable[str], required: Iterable[str]) -> None:
        known = tuple(known)
        for name, (key, _) in entries.items():
            if name not in known:
                raise key.wrong("one of the keys " + ", ".join(known), known, found=f"the key {name!r}")
        for name in required:
            if name not in entries:
                raise spot.wrong(f"the key {name!r}", found="no such key" if entries else spot.shown())

    def _named(self, entries: Entries, section: str, most: int) -> list[tuple[Spot, Spot]]:
        """The named clauses of a section; ids follow one pattern."""
        if section not in entries:
            return []
        spot = entries[section][1]
        clauses = spot.mapping(f"a mapping of names to {section}")
        if len(clauses) > most:
            raise spot.wrong(f"at most {most} {section}", found=f"{len(clauses)} {section}")
        for name, (key, _) in clauses.items():
            self._matching(key, grammar.ID, "a name of small letters, digits and _, such as feed")
            if section != "promises" and name in grammar.RESERVED_MARKS:
                raise key.wrong(f"a name other than the marks {', '.join(grammar.RESERVED_MARKS)}")
        return list(clauses.values())

    def _clause(self, spot: Spot, clause: Clause, extra: Iterable[str] = ()) -> dict[str, Any]:
        """The values of a clause's keys, each read by its kind."""
        entries = spot.mapping("a mapping with the keys " + ", ".join(clause))
        known = [*clause, *extra]
        self._known(spot, {name: value for name, value in entries.items() if name not in extra}, known,
                    [name for name, part in clause.items() if part.required])
        return {name: self._value(value, clause[name]) for name, (_, value) in entries.items() if name in clause}

    def _value(self, spot: Spot, part: Part) -> Any:
        return _READERS[part.kind](self, spot, part)

    # ---- scalars

    def _matching(self, spot: Spot, pattern: str, expected: str, known: Iterable[str] = ()) -> str:
        text = spot.text(expected)
        if not re.fullmatch(pattern, text):
            raise spot.wrong(expected, known)
        return text

    def _prose(self, spot: Spot, most: int) -> str:
        text = spot.text()
        if not text.strip() or len(text) > most:
            raise spot.wrong(f"1 to {most} characters of text", found=f"{len(text)} characters")
        if not text.replace("\n", " ").isprintable():
            raise spot.wrong("text in which every character shows itself")
        return text

    def _choice(self, spot: Spot, part: Part) -> str:
        text = spot.text("one of " + ", ".join(part.choices))
        if text not in part.choices:
            raise spot.wrong("one of " + ", ".join(part.choices), part.choices)
        return text

    def duration(self, spot: Spot, lowest: int = 1) -> int:
        """``3s``, ``policy.ws_data_stale_ms``, or a sum of such terms joined by " + ", in milliseconds."""
        expected = "a duration with a unit, such as 50ms, 3s, 2m or 1h, policy.<key>, or a sum of these joined by ' + '"
        total = sum(self._term(spot, term, expected) for term in spot.text(expected).split(" + "))
        if not lowest <= total <= grammar.MS_MAX:
            least = "more than nothing" if lowest == 1 else "not before zero"
            raise spot.wrong(f"a duration of {least} and at most a day")
        return total

    def _term(self, spot: Spot, term: str, expected: str) -> int:
        if not re.fullmatch(grammar.DURATION, term):
            raise spot.wrong(expected)
        if term.startswith("policy."):
            return self._policy_ms(spot, term.removeprefix("policy."))
        return _milliseconds(term)

    def _policy_ms(self, spot: Spot, key: str) -> int:
        known = [name for name in self.specs.policy if name.endswith(("_ms", "_s"))]
        if key not in known:
            raise spot.wrong("a policy value whose name ends in _ms or _s", [f"policy.{name}" for name in known])
        value = self.specs.policy[key]
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        ms = value * (1 if key.endswith("_ms") else 1_000) if number else -1
        if ms < 0 or ms != int(ms):
            raise spot.wrong("a policy value of whole milliseconds", found=f"policy.{key} = {value!r}")
        return int(ms)

    def _signed(self, spot: Spot, _: Part) -> int:
        text = self._matching(spot, grammar.SIGNED_DURATION, "a duration with a unit, such as 30s or -500ms")
        ms = -_milliseconds(text[1:]) if text.startswith("-") else _milliseconds(text)
        if abs(ms) > grammar.MS_MAX or ms == 0:
            raise spot.wrong("a step other than nothing and of at most a day")
        return ms

    def _ratio(self, spot: Spot, _: Part) -> float:
        value = spot.json()
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
            raise spot.wrong("a share above 0 and at most 1, such as 0.93")
        return float(value)

    def _moment(self, spot: Spot, _: Part) -> int:
        """Unix time in milliseconds."""
        expected = 'a moment of UTC in quotes, such as "2026-11-20T14:29:57Z"'
        text = self._matching(spot, grammar.MOMENT, expected)
        try:
            return round(datetime.fromisoformat(text).timestamp() * 1_000)
        except ValueError:
            raise spot.wrong(expected) from None

    def _content(self, spot: Spot, _: Part) -> str:
        text = spot.text()
        if len(text) > grammar.CONTENT_CHARACTERS_MAX:
            raise spot.wrong(f"at most {grammar.CONTENT_CHARACTERS_MAX} characters", found=f"{len(text)} characters")
        return text

    def _crash(self, spot: Spot, _: Part) -> Crash:
        """``{send: private/buy, nth: 2}``; the first one if ``nth`` is absent. Of a replace also the ``step``."""
        entries = spot.mapping("a crash point, such as {send: private/buy, nth: 1}")
        kinds = [name for name in entries if name in grammar.CRASH_POINTS]
        self._known(spot, entries, (*grammar.CRASH_POINTS, "nth", *(("step",) if kinds == ["replace"] else ())), ())
        if len(kinds) != 1:
            raise spot.wrong("exactly one of " + ", ".join(grammar.CRASH_POINTS))
        name = self._matching(entries[kinds[0]][1], r"[A-Za-z0-9_./\-]{1,80}", "a method, log, file or path prefix")
        nth = entries["nth"][1].integer(1, 1_000_000, "a number from 1") if "nth" in entries else 1
        if "step" not in entries:
            return kinds[0], name, nth
        return kinds[0], name, nth, self._choice(entries["step"][1], Part("choice", "", choices=grammar.REPLACE_STEPS))

    def _headers(self, spot: Spot, _: Part) -> dict[str, str]:
        """Names and values that fit one line of an HTTP head: a line end in one would begin a header of its own."""
        found = {}
        for name, (key, value) in spot.mapping().items():
            self._matching(key, grammar.HEADER_NAME, "a header's name")
            found[name] = self._matching(value, grammar.HEADER_VALUE, "a header's value, printable ASCII on one line")
        return found

    def _numbers(self, spot: Spot, _: Part) -> dict[str, int]:
        return {name: value.integer(0, 2**40, "a number") for name, (_, value) in spot.mapping().items()}

    def _periods(self, spot: Spot) -> Mapping[str, int]:
        return MappingProxyType({name: self.duration(value)
                                 for name, (_, value) in spot.mapping("surfaces and durations").items()})

    # ---- predicates

    def predicate(self, spot: Spot) -> Predicate:
        entries = spot.mapping("a predicate, such as {status: {trading_mode: Active}}")
        if not entries:
            raise spot.wrong("at least one surface", found="an empty predicate")
        return Predicate(tuple(field for name, (key, value) in entries.items()
                               for field in self._fields(name, key, value)))

    def _inline(self, spot: Spot, clause: Clause) -> Predicate:
        """The predicate whose surfaces stand beside a clause's own keys."""
        entries = spot.mapping()
        surfaces = {name: both for name, both in entries.items() if name not in clause}
        for name, (key, value) in surfaces.items():
            if not value.is_mapping:
                known = (*clause, *(self.specs.surfaces or ()))
                raise key.wrong(f"one of the keys {', '.join(clause)}, or a surface with its fields", known,
                                found=f"the key {name!r}")
        if not surfaces:
            raise spot.wrong("a surface with its fields, such as status: {trading_mode: Active}",
                             found="no predicate")
        return Predicate(tuple(field for name, (key, value) in surfaces.items()
                               for field in self._fields(name, key, value)))

    def _fields(self, surface: str, key: Spot, spot: Spot) -> list[Field]:
        self._matching(key, grammar.NAME, "a surface's name", self.specs.surfaces or ())
        entries = spot.mapping("a surface's fields, such as {trading_mode: Active}")
        if not entries:
            raise spot.wrong("at least one field", found="no fields")
        return [field for name, (path, value) in entries.items() for field in self._field(surface, path, value, name)]

    def _field(self, surface: str, key: Spot, spot: Spot, path: str) -> list[Field]:
        self._matching(key, grammar.FIELD_PATH, "a field's dotted path")
        if not spot.is_mapping:
            return [Field(surface, path, "equals", spot.json())]
        operators = spot.mapping()
        self._known(spot, operators, grammar.OPERATORS, ())
        if not operators:
            raise spot.wrong("a value, or one of the operators " + ", ".join(grammar.OPERATORS), found="no operator")
        return [Field(surface, path, name, self._operand(name, value))  # type: ignore[arg-type]
                for name, (_, value) in operators.items()]

    def _operand(self, operator: str, spot: Spot) -> Json:
        value = spot.json()
        if operator in ("at_least", "at_most") and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise spot.wrong(f"a number for {operator}")
        if operator == "rises" and not isinstance(value, bool):
            raise spot.wrong("true or false for rises")
        if operator == "one_of" and (not isinstance(value, list) or not value):
            raise spot.wrong("a list of choices for one_of")
        return value

    # ---- clauses

    def _given(self, spot: Spot) -> Given:
        own = self._clause(spot, grammar.GIVEN, _surfaces(spot, grammar.GIVEN))
        return Given(self._inline(spot, grammar.GIVEN), own["for"], own["within"], own.get("idle", False),
                     own.get("one_day", False))

    def _converge(self, spot: Spot) -> Converge:
        own = self._clause(spot, grammar.CONVERGE, _surfaces(spot, grammar.CONVERGE))
        return Converge(self._inline(spot, grammar.CONVERGE), own["within"], own["for"], own.get("latched", False))

    def _golden(self, spot: Spot, faults: tuple[Fault, ...]) -> Golden:
        own = self._clause(spot, grammar.GOLDEN)
        after = own.get("after") or (min(faults, key=lambda fault: fault.at_ms).id if faults else "given")
        return Golden(own["fixture"], own["reached_within"], after, own.get("surface"))

    def _fault(self, key: Spot, spot: Spot) -> Fault:
        verb, body = self._verb(spot, grammar.VERBS, "one verb of a fault")
        own = self._clause(spot, grammar.FAULT, (verb,))
        force = _FORCES[verb](self._clause(body, grammar.VERBS[verb]), verb, body)
        return Fault(key.key(), own["at"], own["for"], force)

    def _stimulus(self, key: Spot, spot: Spot) -> Stimulus:
        verb, body = self._verb(spot, grammar.ACTS, "one act")
        own = self._clause(spot, grammar.STIMULUS, (verb,))
        parts = self._clause(body, grammar.ACTS[verb])
        return Stimulus(key.key(), own["at"], _call(parts) if verb == "call" else Drop(**parts))

    def _verb(self, spot: Spot, verbs: Mapping[str, Clause], what: str) -> tuple[str, Spot]:
        entries = spot.mapping(f"a mapping with at and {what}")
        found = [name for name in entries if name in verbs]
        if len(found) == 1:
            return found[0], entries[found[0]][1]
        if len(found) > 1:
            raise entries[found[1]][0].wrong(f"{what}: {', '.join(verbs)}", found=f"{found[1]!r} beside {found[0]!r}")
        for name, (key, _) in entries.items():
            if name not in ("at", "for"):
                raise key.wrong(f"{what}: {', '.join(verbs)}", verbs, found=f"the key {name!r}")
        raise spot.wrong(f"{what}: {', '.join(verbs)}", found="no verb")

    def _promise(self, key: Spot, spot: Spot) -> Promise:
        entries = spot.mapping("a promise")
        form = next((name for name in grammar.PROMISES if name in entries), None)
        if form is None:
            first = next(iter(entries.values()))[0] if entries else spot
            raise first.wrong("a promise of the form " + ", ".join(grammar.PROMISES), grammar.PROMISES)
        clause = grammar.PROMISES[form]
        extra = _surfaces(spot, clause) if form == "within" else ()
        own = self._clause(spot, clause, extra)
        return getattr(self, f"_make_{form}")(key.key(), own, spot)

    def _make_within(self, id: str, own: dict[str, Any], spot: Spot) -> Within:
        predicate = self._inline(spot, grammar.PROMISES["within"])
        return Within(id, own["within"], own["after"], predicate, own.get("stays_until"))

    def _make_always(self, id: str, own: dict[str, Any], spot: Spot) -> Always:
        return Always(id, own["always"], own.get("while"), own.get("since"), own.get("until"))

    def _make_never(self, id: str, own: dict[str, Any], spot: Spot) -> Never:
        return Never(id, own["never"], own["while"])

    def _make_only_after(self, id: str, own: dict[str, Any], spot: Spot) -> OnlyAfter:
        return OnlyAfter(id, own["only_after"], own["since"], own["becomes"])

    def _make_count(self, id: str, own: dict[str, Any], spot: Spot) -> Count:
        bounds = {name: own[name] for name in ("at_least", "at_most", "exactly") if name in own}
        if not bounds or ("exactly" in bounds and len(bounds) > 1):
            raise spot.wrong("at_least, at_most or exactly (the last one alone)", found=", ".join(bounds) or "no bound")
        low, high = bounds.get("at_least", bounds.get("exactly")), bounds.get("at_most", bounds.get("exactly"))
        if low is not None and high is not None and low > high:
            raise spot.mapping()["at_most"][1].wrong(f"at least {low}, because at_least says so")
        return Count(id, own["count"], low, high, own.get("since"), own.get("until"))

    def _make_answers(self, id: str, own: dict[str, Any], spot: Spot) -> Answers:
        return Answers(id, own["answers"], own["to"])


def _surfaces(spot: Spot, clause: Clause) -> tuple[str, ...]:
    """The keys of an inline predicate: those that are not the clause's own and hold a mapping."""
    return tuple(name for name, (_, value) in spot.mapping().items() if name not in clause and value.is_mapping)


def _milliseconds(term: str) -> int:
    digits = term.rstrip("msh")
    return int(digits) * grammar.UNIT_MS[term[len(digits):]]


_READERS: Mapping[str, Callable[[_Reader, Spot, Part], Any]] = {
    "text": lambda reader, spot, part: reader._prose(spot, 200),
    "id": lambda reader, spot, part: reader._matching(spot, grammar.ID, "a name of small letters, digits and _"),
    "name": lambda reader, spot, part: reader._matching(spot, grammar.NAME, "a name"),
    "file": lambda reader, spot, part: reader._matching(
        spot, grammar.RELATIVE_FILE, "a relative path inside the node's data folder"),
    "path": lambda reader, spot, part: reader._matching(
        spot, grammar.HTTP_PATH, "an absolute HTTP path without '..'"),
    "mark": lambda reader, spot, part: reader._matching(
        spot, grammar.MARK, "a mark: given, healed, converge, stopped, a fault, <fault>.healed or a stimulus"),
    "duration": lambda reader, spot, part: reader.duration(spot),
    "offset": lambda reader, spot, part: reader.duration(spot, lowest=0),
    "signed": _Reader._signed,
    "count": lambda reader, spot, part: spot.integer(1, grammar.COUNT_MAX, "a number from 1"),
    "bound": lambda reader, spot, part: spot.integer(0, grammar.COUNT_MAX, "a number from 0"),
    "ppm": lambda reader, spot, part: spot.integer(
        -grammar.DRIFT_PPM_MAX, grammar.DRIFT_PPM_MAX,
        f"parts per million, {-grammar.DRIFT_PPM_MAX} to {grammar.DRIFT_PPM_MAX}"),
    "ratio": _Reader._ratio,
    "percent": lambda reader, spot, part: spot.integer(1, 50, "a number of percent, 1 to 50"),
    "object": lambda reader, spot, part: {name: value.json() for name, (_, value) in spot.mapping().items()},
    "flag": lambda reader, spot, part: spot.boolean(),
    "choice": _Reader._choice,
    "predicate": lambda reader, spot, part: reader.predicate(spot),
    "json": lambda reader, spot, part: spot.json(),
    "headers": _Reader._headers,
    "numbers": _Reader._numbers,
    "status": lambda reader, spot, part: spot.integer(100, 599, "an HTTP status, 100 to 599"),
    "crash": _Reader._crash,
    "moment": _Reader._moment,
    "content": _Reader._content,
}


def _clock(parts: dict[str, Any], body: Spot) -> Clock:
    drift = parts.get("drift_ppm", 0)
    if not drift and "step" not in parts and "to" not in parts:
        raise body.wrong("a step, a moment or a drift_ppm", found="a clock that nothing happens to")
    if "step" in parts and "to" in parts:
        raise body.wrong("a step or the moment that the clock is set to", found="both")
    return Clock(parts["node"], parts.get("step", 0), drift, parts.get("to"))


def _overwrite(parts: dict[str, Any], body: Spot) -> Overwrite:
    if ("body" in parts) == ("text" in parts):
        raise body.wrong("a JSON body or a text", found="both" if "body" in parts else "nothing to be written")
    return Overwrite(parts["node"], parts["file"], parts.get("body"), parts.get("text"), parts.get("every"),
                     parts.get("in_place", False))


def _disk(parts: dict[str, Any], body: Spot) -> Disk:
    if (parts["kind"] == "slow") != ("by" in parts):
        raise body.wrong("'by' with kind slow, and only there")
    return Disk(parts["node"], parts["kind"], parts.get("by"))


def _call(parts: dict[str, Any]) -> Call:
    return Call(**parts | {"headers": MappingProxyType(parts.get("headers", {}))})


def _switch(parts: dict[str, Any], body: Spot) -> Switch:
    return Switch(parts["node"], parts["name"], MappingProxyType(parts.get("arguments", {})))


def _link_fault(parts: dict[str, Any], effect: str) -> LinkFault:
    amount = parts.get(grammar.AMOUNT_OF_EFFECT[effect][0]) if effect in grammar.AMOUNT_OF_EFFECT else None
    return LinkFault(parts["link"], effect, parts.get("toward", "both"), amount)  # type: ignore[arg-type]


_FORCES: Mapping[str, Callable[[dict[str, Any], str, Spot], Force]] = {
    **{effect: lambda parts, verb, body: _link_fault(parts, verb) for effect in grammar.EFFECTS},
    "toxic": lambda parts, verb, body: RawToxic(parts["link"], parts["type"], parts["stream"],
                                                MappingProxyType(parts.get("attributes", {}))),
    "kill": lambda parts, verb, body: Kill(parts["node"], parts.get("build"), parts.get("before")),
    "stop": lambda parts, verb, body: Kill(parts["node"], parts.get("build"), how="stop"),
    "out_of_memory": lambda parts, verb, body: Kill(parts["node"], parts.get("build"), how="out_of_memory"),
    "restart": lambda parts, verb, body: Deploy(parts["node"], None),
    "pause": lambda parts, verb, body: Pause(parts["node"]),
    "starve": lambda parts, verb, body: Starve(parts["node"], parts["percent"]),
    "disconnect": lambda parts, verb, body: Disconnect(parts["node"]),
    "deploy": lambda parts, verb, body: Deploy(parts["node"], parts["build"]),
    "clock": lambda parts, verb, body: _clock(parts, body),
    "disk": lambda parts, verb, body: _disk(parts, body),
    "fill": lambda parts, verb, body: Fill(**parts),
    "overwrite": lambda parts, verb, body: _overwrite(parts, body),
    "remove": lambda parts, verb, body: Remove(**parts),
    "switch": lambda parts, verb, body: _switch(parts, body),
    "call": lambda parts, verb, body: _call(parts),
}


# ---- writing ----------------------------------------------------------------------------------------------


def dump(drill: Drill) -> bytes:
    """The drill as YAML text, one clause a line: what the shrinker hands to a person."""
    lines = [f"drill: {_flow(drill.name)}", f"title: {_flow(drill.title)}"]
    lines += [f"why: {_flow(drill.why)}"] if drill.why else []
    lines += [f"proves: {_flow(list(drill.proves))}"]
    lines += [f"worlds: {_flow(list(drill.worlds))}"] if drill.worlds else []
    lines += [f"sample: {_flow(_durations(drill.sample))}"]
    lines += [f"grain: {_flow(_durations(drill.grain_ms))}"] if drill.grain_ms else []
    given = {**_plain(drill.given.predicate), "for": _ms(drill.given.for_ms), "within": _ms(drill.given.within_ms)}
    flags = {name: True for name in ("idle", "one_day") if getattr(drill.given, name)}
    lines.append(f"given: {_flow(given | flags)}")
    lines += _section("faults", {each.id: _plain_fault(each) for each in drill.faults})
    lines += _section("stimuli", {each.id: _plain_stimulus(each) for each in drill.stimuli})
    lines += _section("promises", {each.id: _plain_promise(each) for each in drill.promises})
    if drill.golden is not None:
        named = {"surface": drill.golden.surface} if drill.golden.surface is not None else {}
        lines.append("golden: " + _flow({"fixture": drill.golden.fixture, **named,
                                         "reached_within": _ms(drill.golden.reached_within_ms),
                                         "after": drill.golden.after}))
    end = drill.converge
    lines.append("converge: " + _flow({**_plain(end.predicate), "within": _ms(end.within_ms), "for": _ms(end.for_ms)}
                                      | ({"latched": True} if end.latched else {})))
    return ("\n".join(lines) + "\n").encode()


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _flow(value: Any) -> str:
    """One value on one line. Texts that YAML would read as something else get their quotes from the dumper."""
    style = '"' if isinstance(value, str) and "\n" in value else None
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, width=10**9,
                     allow_unicode=True, default_style=style)
    return text.removesuffix("\n").removesuffix("\n...")


def _section(name: str, clauses: Mapping[str, Any]) -> list[str]:
    return [f"{name}:", *(f"  {_flow(id)}: {_flow(clause)}" for id, clause in clauses.items())] if clauses else []


def _ms(value: int) -> str:
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if value and value % size == 0:
            return f"{value // size}{unit}"
    return f"{value}ms"


def _moment(unix_ms: int | None) -> str | None:
    if unix_ms is None:
        return None
    return datetime.fromtimestamp(unix_ms / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _durations(periods: Mapping[str, int]) -> dict[str, str]:
    return {name: _ms(value) for name, value in periods.items()}


def _plain(predicate: Predicate) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for field in predicate.fields:
        fields = result.setdefault(field.surface, {})
        if field.operator == "equals" and field.path not in fields and not isinstance(field.value, dict):
            fields[field.path] = field.value
        else:
            fields.setdefault(field.path, {})[field.operator] = field.value
    return result


def _plain_fault(fault: Fault) -> dict[str, Any]:
    verb, body = _plain_force(fault.force)
    return {"at": _ms(fault.at_ms), "for": _ms(fault.for_ms), verb: body}


def _plain_force(force: Force) -> tuple[str, dict[str, Any]]:
    match force:
        case LinkFault():
            return force.effect, {"link": force.link, "toward": force.toward, **_plain_amount(force)}
        case RawToxic():
            return "toxic", {"link": force.link, "type": force.type, "stream": force.stream,
                             "attributes": dict(force.attributes)}
        case Kill():
            before = dict(zip((force.before[0], "nth", "step"), force.before[1:], strict=False)) if force.before else None
            return force.how, _without_none({"node": force.node, "build": force.build, "before": before})
        case Pause():
            return "pause", {"node": force.node}
        case Deploy():
            return "deploy" if force.build else "restart", _without_none({"node": force.node, "build": force.build})
        case Starve():
            return "starve", {"node": force.node, "percent": force.percent}
        case Disconnect():
            return "disconnect", {"node": force.node}
        case Clock():
            step = f"{'-' if force.step_ms < 0 else ''}{_ms(abs(force.step_ms))}" if force.step_ms else None
            return "clock", _without_none({"node": force.node, "step": step, "to": _moment(force.to_ms),
                                           "drift_ppm": force.drift_ppm or None})
        case Disk():
            by = _ms(force.amount) if force.amount is not None else None
            return "disk", _without_none({"node": force.node, "kind": force.kind, "by": by})
        case Fill():
            return "fill", _without_none({"node": force.node, "to": force.to, "unlinked": force.unlinked or None,
                                          "volume": force.volume})
        case Overwrite():
            every = _ms(force.every_ms) if force.every_ms is not None else None
            content = {"body": force.body} if force.text is None else {"text": force.text}
            return "overwrite", {"node": force.node, "file": force.file, **content,
                                 **_without_none({"every": every, "in_place": force.in_place or None})}
        case Remove():
            return "remove", {"node": force.node, "file": force.file}
        case Switch():
            return "switch", {"node": force.node, "name": force.name, "arguments": dict(force.arguments)}
        case Call():
            return "call", _plain_call(force)


def _plain_amount(force: LinkFault) -> dict[str, Any]:
    if force.amount is None:
        return {}
    return {grammar.AMOUNT_OF_EFFECT[force.effect][0]: _ms(force.amount) if force.effect == "delay" else force.amount}


def _plain_stimulus(stimulus: Stimulus) -> dict[str, Any]:
    act = stimulus.act
    if isinstance(act, Drop):
        return {"at": _ms(stimulus.at_ms), "drop": {"node": act.node, "file": act.file, "body": act.body}}
    return {"at": _ms(stimulus.at_ms), "call": _plain_call(act)}


def _plain_call(act: Call) -> dict[str, Any]:
    call: dict[str, Any] = {"node": act.node, "port": act.port, "method": act.method, "path": act.path}
    call |= {"headers": dict(act.headers)} if act.headers else {}
    call |= {"body": act.body} if act.body is not None else {}
    return call | ({"expect": act.expect} if act.expect is not None else {})


def _plain_promise(promise: Promise) -> dict[str, Any]:
    match promise:
        case Within():
            return _without_none({"within": _ms(promise.within_ms), "after": promise.after,
                                  **_plain(promise.predicate), "stays_until": promise.stays_until})
        case Always():
            asked = _plain(promise.while_) if promise.while_ is not None else None
            return _without_none({"always": _plain(promise.predicate), "while": asked, "since": promise.since,
                                  "until": promise.until})
        case Never():
            return {"never": promise.event, "while": _plain(promise.while_)}
        case OnlyAfter():
            return {"only_after": promise.event, "since": promise.since, "becomes": _plain(promise.becomes)}
        case Count():
            return _without_none({"count": promise.event, "at_least": promise.at_least, "at_most": promise.at_most,
                                  "since": promise.since, "until": promise.until})
        case Answers():
            return {"answers": promise.status, "to": promise.to}


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
