"""YAML ⇄ Drill: what is read, what is refused and where, and that a drill survives being written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness import limits
from harness.drill import grammar
from harness.drill.model import (
    Always,
    Answers,
    Call,
    Clock,
    Converge,
    Count,
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
    Kill,
    LinkFault,
    Never,
    OnlyAfter,
    Overwrite,
    Pause,
    Predicate,
    RawToxic,
    Remove,
    Starve,
    Stimulus,
    Switch,
    Within,
)
from harness.drill.text import Specs, dump, load, parse
from harness.errors import TextError, UsageError
from harness.world.stack import load_stack
from system_under_test import machine

ROOT = Path(__file__).parents[2]
GOOD = """\
drill: example
title: An example
proves: [P2-EXAMPLE]
sample: {status: 50ms}
given: {status: {trading_mode: Active}, for: 3s, within: 1m}
faults:
  feed: {at: 0s, for: 6s, stall: {link: market_data, toward: client}}
promises:
  latched: {within: policy.stale_ms + 500ms, after: feed, status: {trading_mode: ReduceOnly}, stays_until: feed.healed}
converge: {status: {trading_mode: Active}, within: 20s, for: 2s}
"""
SPECS = Specs(policy={"stale_ms": 3000, "dwell_s": 2, "half_s": 0.5, "odd_s": 0.0005, "label": "x", "on_ms": True})


def refused(text: str | bytes, specs: Specs = SPECS) -> TextError:
    with pytest.raises(TextError) as caught:
        parse(text if isinstance(text, bytes) else text.encode(), "d.yaml", specs)
    return caught.value


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_drill_is_read_into_values() -> None:
    """Every clause becomes its value, durations in integer milliseconds."""
    drill = parse(GOOD.encode(), "d.yaml", SPECS)
    assert drill.given == Given(Predicate((Field("status", "trading_mode", "equals", "Active"),)), 3_000, 60_000)
    assert drill.faults == (Fault("feed", 0, 6_000, LinkFault("market_data", "stall", "client")),)
    assert drill.promises == (Within("latched", 3_500, "feed", Predicate((
        Field("status", "trading_mode", "equals", "ReduceOnly"),)), "feed.healed"),)
    assert (drill.file, drill.text) == ("d.yaml", GOOD.encode())


@pytest.mark.parametrize(("old", "new", "line", "column", "says"), [
    ("title: An example", "title: no", 2, 8, "found the boolean no, expected text (put quotes"),
    ("title: An example", "title: 12", 2, 8, "found the number 12"),
    ("title: An example", "title: 2026-01-01", 2, 8, "found the date 2026-01-01"),
    ("title: An example", "title:", 2, 7, "found nothing"),
    ("title: An example", "titel: An example", 2, 1, "found the key 'titel'"),
    ("title: An example", "title: a\ntitle: b", 3, 1, "found the key 'title' again, expected each key once"),
    ("title: An example", "title: &a An example", 2, 8, "the anchor &a"),
    ("title: An example", "title: !!str An example", 2, 8, "the tag"),
    ("title: An example", "title: [a, b", 2, 8, ""),
    ("6s, stall", "1:30, stall", 7, 23, "found the number 1:30, expected a duration with a unit"),
    ("6s, stall", "90, stall", 7, 23, "found the number 90"),
    ("6s, stall", "-6s, stall", 7, 23, "found '-6s'"),
    ("6s, stall", "0s, stall", 7, 23, "expected a duration of more than nothing"),
    ("6s, stall", "25h, stall", 7, 23, "at most a day"),
    ("6s, stall", "6 s, stall", 7, 23, "found '6 s'"),
    ("6s, stall", "6s+1s, stall", 7, 23, "found '6s+1s'"),
    ("6s, stall", "policy.stale, stall", 7, 23, "(nearest: policy.stale_ms)"),
    ("6s, stall", "policy.label, stall", 7, 23, "expected a policy value whose name ends in _ms or _s"),
    ("6s, stall", "policy.odd_s, stall", 7, 23, "expected a policy value of whole milliseconds"),
    ("6s, stall", "policy.on_ms, stall", 7, 23, "found policy.on_ms = True"),
    ("stall:", "stal:", 7, 27, "found the key 'stal', expected one verb of a fault"),
    ("stall: {link: market_data, toward: client}", "stall: {link: a}, drop: {link: a}", 7, 45, "'drop' beside 'stall'"),
    ("stall: {link: market_data, toward: client}", "kill: {node: trader, when: now}", 7, 48, "found the key 'when'"),
    ("toward: client", "toward: clinet", 7, 62, "(nearest: client)"),
    ("link: market_data, ", "", 7, 34, "expected the key 'link'"),
    ("link: market_data", "link: ../../etc", 7, 41, "found '../../etc', expected a name"),
    ("  feed:", "  Feed:", 7, 3, "expected a name of small letters"),
    ("  feed:", "  healed:", 7, 3, "expected a name other than the marks"),
    ("within: policy", "whithin: policy", 9, 13, "expected a promise of the form"),
    ("after: feed,", "aftr: feed,", 9, 46, "(nearest: after)"),
    ("{trading_mode: Active}, for: 3s", "{trading_mode: {at_lest: 3}}, for: 3s", 5, 33, "(nearest: at_least)"),
    ("{trading_mode: Active}, for: 3s", "{trading_mode: {at_least: x}}, for: 3s", 5, 43, "expected a number for at_least"),
    ("{trading_mode: Active}, for: 3s", "{trading_mode: yes}, for: 3s", 5, 32, "found the boolean yes"),
    ("{trading_mode: Active}, for: 3s", "{trading_mode: 0x1f}, for: 3s", 5, 32, "found the number 0x1f"),
    ("{trading_mode: Active}, for: 3s", "{trading_mode: .inf}, for: 3s", 5, 32, "found the number .inf"),
    ("{trading_mode: Active}, for: 3s", "{trading mode: Active}, for: 3s", 5, 18, "expected a field's dotted path"),
    ("status: {trading_mode: Active}, for: 3s", "for: 3s", 5, 8, "found no predicate"),
    ("given: {status: {trading_mode: Active}", "given: {status: {}", 5, 17, "expected at least one field"),
    ("drill: example", "drill: ../example", 1, 8, "expected a drill's name"),
    ("sample: {status: 50ms}", "sample: [status]", 4, 9, "found a list"),
    ("sample: {status: 50ms}", "sample: {<<: {status: 50ms}}", 4, 10, "found the merge key <<"),
    ("proves: [P2-EXAMPLE]", "proves: P2-EXAMPLE", 3, 9, "expected a list of phase items"),
    ("proves: [P2-EXAMPLE]", "proves: [on]", 3, 10, "found the boolean on"),
])
def test_a_mistake_is_named_where_it_stands(old: str, new: str, line: int, column: int, says: str) -> None:
    """file:line:column, what was found, what was expected, and the nearest right name."""
    error = refused(changed(old, new))
    assert str(error).startswith("d.yaml:")
    assert says in str(error)
    if says:
        assert (error.line, error.column) == (line, column)


@pytest.mark.parametrize("text", [
    b"", b"# nothing\n", b"- a\n- b\n", b"just text", b"\xff\xfe\x00", b"a: \x00b", b"a: \xc3\x28", b"{",
    b"a: *b", b"drill: x\n---\ndrill: y\n", b"? [1, 2]\n: x\n", b"1: x\n", b"%YAML 9.9\n---\na: b\n",
    b"[" * 5_000, b"x: " * 100, b"a: &a [*a]", "drill: \u0007x\n".encode(), b"\t- x",
])
def test_whatever_the_bytes_are_there_is_one_error_with_a_place(text: bytes) -> None:
    """Never a traceback of the reader."""
    error = refused(text)
    assert error.line >= 1 and error.column >= 1


@pytest.mark.skipif(not hasattr(yaml, "CSafeLoader"), reason="the words are those of libyaml")
@pytest.mark.parametrize(("text", "says"), [
    ('a: "b\n', "2:1: found unexpected end of stream, expected YAML while scanning a quoted scalar, which begins at 1:4"),
    ("a: [b\n", "2:1: found something else, expected ',' or ']' while parsing a flow sequence, which begins at 1:4"),
    ("a: b\nc\nd: e\n", "3:1: found something else, expected ':' while scanning a simple key, which begins at 2:1"),
    ("a: b: c\n", "1:5: found mapping values, not allowed in this context, expected YAML"),
    ("a: @b\n", "1:4: found character that cannot start any token, expected YAML"),
])
def test_what_is_no_yaml_is_told_in_one_sentence(text: str, says: str) -> None:
    """Found, expected, and where that began which does not end; no word twice."""
    assert str(refused(text)) == f"d.yaml:{says}"


def test_a_bomb_of_aliases_is_refused_before_anything_is_built() -> None:
    """The first alias ends the reading."""
    bomb = "a: &a [x]\n" + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20))
    assert "the anchor &a" in str(refused(bomb))


def test_a_text_beyond_its_bound_is_refused() -> None:
    """A drill is read by people."""
    assert "at most 65536 bytes" in str(refused(GOOD + "#" * limits.DRILL_FILE_BYTES_MAX))


def test_too_many_faults_are_refused() -> None:
    """More than the bound cannot be explained on one page."""
    fault = "  f{}: {{at: 0s, for: 1s, pause: {{node: trader}}}}\n"
    many = "faults:\n" + "".join(fault.format(n) for n in range(limits.DRILL_FAULTS_MAX + 1))
    text = changed("faults:\n  feed: {at: 0s, for: 6s, stall: {link: market_data, toward: client}}\n", many)
    assert f"at most {limits.DRILL_FAULTS_MAX} faults" in str(refused(text))


def test_ten_thousand_faults_are_refused_at_once() -> None:
    """By the size of the text or by their number, with a place, and long before anything is built from them."""
    fault = "  f{}: {{at: 0s, for: 1s, pause: {{node: trader}}}}\n"
    many = "faults:\n" + "".join(fault.format(n) for n in range(10_000))
    text = changed("faults:\n  feed: {at: 0s, for: 6s, stall: {link: market_data, toward: client}}\n", many)
    assert "at most 65536 bytes" in str(refused(text))
    short = "faults: {" + ", ".join(f"f{n}: 0" for n in range(6_000)) + "}\n"
    error = refused(changed("faults:\n  feed: {at: 0s, for: 6s, stall: {link: market_data, toward: client}}\n", short))
    assert f"at most {limits.DRILL_FAULTS_MAX} faults" in str(error) and (error.line, error.column) == (6, 9)


HOSTILE = "faults:\n  feed: {at: 0s, for: 6s, stall: {link: market_data, toward: client}}\n"


@pytest.mark.parametrize(("new", "line", "says"), [
    ("stimuli:\n  s: {at: 0s, drop: {node: trader, file: ../../etc/passwd, body: {}}}", 7, "relative path inside"),
    ("stimuli:\n  s: {at: 0s, drop: {node: trader, file: /etc/passwd}}", 7, "relative path inside"),
    ("stimuli:\n  s: {at: 0s, drop: {node: trader, file: a/../../b}}", 7, "relative path inside"),
    ("stimuli:\n  s: {at: 0s, call: {node: t, port: p, method: GET, path: http://evil/}}", 7, "absolute HTTP path"),
    ("stimuli:\n  s: {at: 0s, call: {node: t, port: p, method: GET, path: /a/../b}}", 7, "absolute HTTP path"),
    ('stimuli:\n  s: {at: 0s, call: {node: t, port: p, method: GET, path: "/a b\\r\\nX: y"}}', 7, "absolute HTTP path"),
    ("golden: {fixture: ../../secret, reached_within: 1s}", 6, "found '../../secret'"),
    ("golden: {fixture: /etc/passwd, reached_within: 1s}", 6, "found '/etc/passwd'"),
    ("faults:\n  f: {at: 99999999999999999999h, for: 1s, pause: {node: t}}", 7, "expected a duration"),
    ("faults:\n  f: {at: 0s, for: 1s, throttle: {link: l, kilobytes_per_s: 99999999999999999999}}", 7, "a number from 1"),
    ("faults:\n  f: {at: 0s, for: 1s, throttle: {link: l, kilobytes_per_s: 1e9}}", 7, "a number from 1"),
    ("faults:\n  f: {at: 0s, for: 1s, throttle: {link: l, kilobytes_per_s: 1_000}}", 7, "a number from 1"),
    ("faults:\n  f: {at: 0s, for: 1s, clock: {node: t, drift_ppm: 2000000}}", 7, "parts per million"),
    ("faults:\n  f: {at: 0s, for: 1s, fill: {node: t, to: 0}}", 7, "a share above 0 and at most 1"),
    ("faults:\n  f: {at: 0s, for: 1s, fill: {node: t, to: 93}}", 7, "a share above 0 and at most 1"),
    ("faults:\n  f: {at: 0s, for: 1s, fill: {node: t, to: true}}", 7, "a share above 0 and at most 1"),
    ("faults:\n  f: {at: 0s, for: 1s, clock: {node: t, step: 25h}}", 7, "of at most a day"),
    ("faults:\n  f: {at: 0s, for: 1s, switch: {node: t, name: s, arguments: [a]}}", 7, "found a list"),
    ("faults:\n  f: {at: 0s, for: 1s, kill: {node: t, before: {send: x, append: y}}}", 7, "exactly one of"),
    ("faults:\n  f: {at: 0s, for: 1s, kill: {node: t, before: {send: x, nth: 0}}}", 7, "a number from 1"),
    ("faults:\n  f: {at: 0s, for: 1s, kill: {node: t, before: {send: x, step: rename}}}", 7, "one of the keys send"),
    ("faults:\n  f: {at: 0s, for: 1s, kill: {node: t, before: {replace: x, step: renam}}}", 7, "nearest: rename"),
    ("faults:\n  f: {at: 0s, for: 1s, clock: {node: t, to: 2026-11-20T14:29:57Z}}", 7, "text"),
    ("faults:\n  f: {at: 0s, for: 1s, clock: {node: t, to: '2026-02-30T14:29:57Z'}}", 7, "a moment of UTC"),
    ("faults:\n  f: {at: 0s, for: 1s, clock: {node: t, to: '2026-02-20T14:29:57+01:00'}}", 7, "a moment of UTC"),
    ("faults:\n  f: {at: 0s, for: 1s, clock: {node: t, to: '2026-02-20T14:29:57Z', step: 1s}}", 7, "a step or the moment"),
    ("faults:\n  f: {at: 0s, for: 1s, overwrite: {node: t, file: a}}", 7, "a JSON body or a text"),
    ("faults:\n  f: {at: 0s, for: 1s, overwrite: {node: t, file: a, body: 1, text: x}}", 7, "found both"),
    ("faults:\n  f: {at: 0s, for: 1s, overwrite: {node: t, file: ../a, text: x}}", 7, "inside the node's data folder"),
    ('faults:\n  f: {at: 0s, for: 1s, kill: {node: t, before: {send: "a b; rm"}}}', 7, "a method, log, file or path"),
])
def test_hostile_words_are_refused_where_they_stand(new: str, line: int, says: str) -> None:
    """Paths that lead elsewhere, numbers that no machine holds, and things of the wrong shape."""
    error = refused(changed(HOSTILE, new + "\n"))
    assert says in str(error) and error.line == line


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_arbitrary_bytes_are_a_drill_or_an_error(text: bytes) -> None:
    """Nothing but TextError leaves the reader."""
    with pytest.raises(TextError):
        parse(text, "d.yaml")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.sampled_from(["", "{", "}", ":", "\n", "&a ", "*a", "- ", "'", "no", "\t", "é"]))
def test_one_change_in_a_drill_is_a_drill_or_an_error(at: int, new: str) -> None:
    """A slip of the finger never ends in a traceback."""
    try:
        parse((GOOD[:at] + new + GOOD[at + 1:]).encode(), "d.yaml", SPECS)
    except TextError as error:
        assert error.line >= 1


@pytest.mark.parametrize(("text", "ms"), [
    ("50ms", 50), ("3s", 3_000), ("2m", 120_000), ("1h", 3_600_000), ("policy.stale_ms", 3_000), ("policy.dwell_s", 2_000),
    ("policy.half_s", 500), ("policy.dwell_s + 20s", 22_000), ("policy.dwell_s + policy.stale_ms + 1ms", 5_001),
])
def test_durations(text: str, ms: int) -> None:
    """Units, policy values in seconds or milliseconds, and sums."""
    assert parse(changed("6s, stall", f"{text}, stall").encode(), "d", SPECS).faults[0].for_ms == ms


P = Predicate((Field("status", "a.b", "equals", [1, "x", None, True, 1.5]), Field("status", "n", "at_least", 3),
               Field("status", "n", "at_most", 9), Field("ops", "list", "has", "no"), Field("ops", "m", "is_not", "1:30"),
               Field("ops", "o", "one_of", ["a", 2]), Field("ops", "r", "rises", True), Field("ops", "h", "has_not", "~"),
               Field("ops", "d", "equals", {"k": [1]})))
EVERYTHING = Drill(
    name="everything", title="no", proves=("P2-X", "P2-Y"), why="a: b\nand: more # text\n",
    sample={"status": 50, "ops": 1_000}, given=Given(P, 3_000, 60_000, idle=True, one_day=True),
    faults=(
        Fault("stall", 0, 1_000, LinkFault("l", "stall", "client")), Fault("drop", 1, 1, LinkFault("l", "drop", "server")),
        Fault("cut", 0, 1_500, LinkFault("m", "cut")), Fault("slow", 0, 60_000, LinkFault("n", "delay", "both", 200)),
        Fault("thin", 0, 3_600_000, LinkFault("n", "throttle", "both", 10)),
        Fault("bits", 0, 10, LinkFault("o", "fragment", "both", 3)), Fault("reset", 0, 10, LinkFault("p", "reset")),
        Fault("short", 0, 10, LinkFault("q", "truncate", "client", 1000)),
        Fault("raw", 0, 10, RawToxic("r", "slicer", "upstream", {"average_size": 3})),
        Fault("kill", 0, 10, Kill("trader", "next", ("send", "private/buy", 2))), Fault("die", 50, 10, Kill("trader")),
        Fault("pause", 100, 10, Pause("exchange")), Fault("deploy", 200, 10, Deploy("trader", "next")),
        Fault("stop", 400, 10, Kill("trader", how="stop")),
        Fault("memory", 500, 10, Kill("trader", "next", how="out_of_memory")),
        Fault("again", 600, 10, Deploy("trader", None)), Fault("lean", 700, 10, Starve("trader", 30)),
        Fault("alone", 0, 10, Disconnect("exchange")),
        Fault("step", 0, 10, Clock("trader", -500)), Fault("drift", 20, 10, Clock("trader", 0, -200)),
        Fault("both", 40, 10, Clock("trader", 1_500, 7)), Fault("bell", 60, 10, Clock("trader", to_ms=1_795_185_003_250)),
        Fault("inside", 800, 10, Kill("trader", before=("replace", "state/nav.json", 3, "rename"))),
        Fault("rogue", 0, 10, Overwrite("trader", "state/nav.json", {"nav": [1, None]}, every_ms=250)),
        Fault("nothing", 20, 10, Overwrite("trader", "state/nav.json")),
        Fault("torn", 40, 10, Overwrite("trader", "state/nav.json", text="{\"nav\": 1", in_place=True)),
        Fault("gone", 0, 10, Remove("trader", "state/nav.json")), Fault("shared", 90, 10, Fill("trader", 1.0, False, "state")),
        Fault("full", 0, 10, Fill("trader", 1.0)),
        Fault("fuller", 50, 10, Fill("trader", 0.93, True)), Fault("ro", 70, 10, Disk("trader", "read_only")),
        Fault("sluggish", 0, 10, Disk("trader", "slow", 250)),
        Fault("switch", 0, 10, Switch("exchange", "frozen", {"instrument": "no", "n": [1, {"x": None}]})),
        Fault("button", 300, 10, Call("trader", "control_plane", "POST", "/stop", {"authorization": "${secret:T}"}, [1], 202)),
    ),
    stimuli=(
        Stimulus("press", 5, Call("trader", "control_plane", "POST", "/a?b=1", {"authorization": "Bearer ${secret:T}"},
                                  {"reason": "yes"}, 200)),
        Stimulus("get", 0, Call("trader", "control_plane", "GET", "/")),
        Stimulus("note", 1_000, Drop("trader", "operator/acknowledge.json", {"a": 1})),
    ),
    promises=(Within("w", 1, "stall", P, "stall.healed"), Within("v", 1_000, "given", P), Always("a", P, None),
              Always("b", P, P, "press", "healed"), Never("n", "order.opening", P), OnlyAfter("o", "x.y", "cut", P),
              Count("c", "order.any", 1, 2, "press", "get"), Count("d", "order.any", 0, 0), Count("e", "order.any", None, 5),
              Answers("s", 401, "get")),
    golden=Golden("market_data_stale", 4_000, "stall", "status"), converge=Converge(P, 7_000, 2_000, latched=True),
    grain_ms={"status": 400}, worlds=("sim", "docker"),
)


def test_every_word_of_the_grammar_survives_being_written() -> None:
    """parse(dump(drill)) == drill, with every force, act, form and operator, and texts that look like other things."""
    assert parse(dump(EVERYTHING), "d") == EVERYTHING
    assert {type(fault.force) for fault in EVERYTHING.faults} == {*get_args(Force)}
    assert {f.force.effect for f in EVERYTHING.faults if isinstance(f.force, LinkFault)} == set(grammar.EFFECTS)
    assert {field.operator for field in P.fields} == set(grammar.OPERATORS)


def test_the_steps_of_a_plan_are_those_of_the_machines() -> None:
    """What a drill may name and what a machine may ask for is the same list."""
    assert grammar.REPLACE_STEPS == machine.STEPS


NAMES = st.from_regex(grammar.ID, fullmatch=True).filter(lambda name: name not in grammar.RESERVED_MARKS)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Co", "Cn")), min_size=1, max_size=40)
LITERALS = st.none() | st.booleans() | st.integers(-10**15, 10**15) | TEXTS | st.lists(TEXTS | st.integers(0, 9), max_size=3)
PREDICATES = st.lists(st.tuples(st.sampled_from(["status", "ops"]), NAMES, LITERALS), min_size=1, max_size=4,
                      unique_by=lambda each: each[:2]).map(
    lambda each: Predicate(tuple(Field(surface, path, "equals", value) for surface, path, value in sorted(each, key=str))))


@settings(max_examples=150, deadline=None)
@given(NAMES, PREDICATES, st.integers(1, 10**7), TEXTS.filter(lambda text: text.strip() and text.isprintable()))
@example("on", Predicate((Field("status", "a", "equals", None),)), 1, "0")     # YAML reads it as a boolean
def test_any_drill_survives_being_written(name: str, predicate: Predicate, ms: int, title: str) -> None:
    """Names, texts and literals of any kind come back as they were, grouped by surface."""
    grouped = Predicate(tuple(sorted(predicate.fields, key=lambda each: each.surface)))
    drill = replace(EVERYTHING, title=title, faults=(Fault(name, ms, ms, Pause("trader")),),
                    promises=(Within("w", ms, name, grouped),))
    assert parse(dump(drill), "d") == drill


def shipped() -> list[Path]:
    return sorted((ROOT / "drills").rglob("*.yaml"))


@pytest.mark.parametrize("file", shipped(), ids=lambda file: file.stem)
def test_shipped_drills_are_read_and_survive_being_written(file: Path) -> None:
    """Every drill file of the checkout is a drill for the shipped stack and its drill policy."""
    stack = load_stack(ROOT / "system_under_test" / "stack.yaml")
    drill = load(file, Specs.of(ROOT, stack, stack.policy("drill")))
    assert parse(dump(drill), "d") == drill


def test_load_names_every_problem(tmp_path: Path) -> None:
    """A file with two wrong names is refused with both."""
    file = tmp_path / "d.yaml"
    file.write_text(changed("after: feed,", "after: fed,").replace("stays_until: feed.healed", "stays_until: nothing"))
    with pytest.raises(UsageError) as caught:
        load(file, SPECS)
    assert "'fed'" in str(caught.value) and "'nothing'" in str(caught.value)
    with pytest.raises(UsageError, match="cannot be read as a drill"):
        load(tmp_path / "missing.yaml", SPECS)


def test_nodes_are_read_not_values() -> None:
    """What a loader would have made of the same text is what the reader refuses."""
    assert yaml.safe_load("a: no\nb: 1:30\nc: 1\nc: 2") == {"a": False, "b": 90, "c": 2}
