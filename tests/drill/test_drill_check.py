"""Does a drill make sense against the names that a stack and the specs know?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml

from harness.contracts import library
from harness.drill import schema, specs, words
from harness.drill.check import check
from harness.drill.controls import Argument
from harness.drill.text import Specs, parse
from harness.world.stack import load_stack

ROOT = Path(__file__).parents[2]
GOOD = """\
drill: example
title: An example
proves: [P2-EXAMPLE]
sample: {status: 50ms}
given: {status: {trading_mode: Active}, for: 3s, within: 1m}
faults:
  feed: {at: 0s, for: 6s, stall: {link: market_data, toward: client}}
  wide: {at: 1s, for: 2s, switch: {node: exchange, name: wide_book}}
stimuli:
  press: {at: 2s, call: {node: trader, port: control_plane, method: POST, path: /x, headers: {a: "Bearer ${secret:TOKEN}"}}}
promises:
  latched: {within: 3s, after: feed, status: {trading_mode: ReduceOnly}, stays_until: feed.healed}
  no_risk: {never: order.opening, while: {status: {trading_mode: ReduceOnly}}}
golden: {fixture: stale, reached_within: 4s}
converge: {status: {trading_mode: Active}, within: 20s, for: 2s}
"""
SPECS = Specs(
    surfaces=frozenset({"status", "health"}), links=frozenset({"market_data", "orders"}),
    nodes=frozenset({"trader", "exchange", "keeper"}),
    builds={"trader": frozenset({"current", "next"}), "exchange": frozenset()},
    ports={"trader": frozenset({"control_plane"}), "exchange": frozenset({"control"})}, controlled={"exchange": "control"},
    switches={"wide_book": {"instrument": Argument("string")}, "frozen": {}},
    linked=frozenset({"trader", "exchange"}), events={"order.opening": True, "order.filled": True, "status.flapped": False},
    tried=frozenset({"order.opening"}), clients={"market_data": "trader", "orders": "trader"},
    volumes={"state": frozenset({"trader"})},
    words={"status": {"trading_mode": frozenset({"Active", "ReduceOnly", "Kill"})}},
    fixtures={"csp_status": frozenset({"stale"})}, items=frozenset({"P2-EXAMPLE"}), secrets=frozenset({"TOKEN"}))


CALL = 'path: /x, headers: {a: "Bearer ${secret:TOKEN}"}'


def problems(old: str = "", new: str = "") -> list[str]:
    assert old in GOOD
    return [str(each) for each in check(parse(GOOD.replace(old, new).encode(), "d.yaml", SPECS), SPECS)]


def test_a_good_drill_has_no_problem() -> None:
    """Nor has it when nobody knows any names."""
    assert problems() == []
    assert check(parse(GOOD.encode(), "d.yaml"), Specs()) == []


@pytest.mark.parametrize(("old", "new", "says"), [
    ("P2-EXAMPLE", "P2-EXAMPEL", "d.yaml:3:9: found the phase item 'P2-EXAMPEL', expected one of P2-EXAMPLE (nearest"),
    ("link: market_data", "link: market_dat", "'market_dat', expected one of market_data, orders (nearest: market_data)"),
    ("node: exchange", "node: exchang", "the node 'exchang'"),
    ("name: wide_book", "name: wide_bok", "(nearest: wide_book)"),
    ("switch: {node: exchange, name: wide_book}", "switch: {node: trader, name: wide_book}", "node without a control port"),
    ("name: wide_book}", "name: wide_book, arguments: {instrment: x}}", "'instrment', expected one of instrument (nearest"),
    ("port: control_plane", "port: control", "the port 'control'"),
    ("secret:TOKEN", "secret:TOKN", "the secret 'TOKN'"),
    ("fixture: stale", "fixture: stael", "the fixture 'stael'"),
    ("never: order.opening", "never: order.openin", "the event 'order.openin', expected one of"),
    ("never: order.opening", "never: status.flapped", "'status.flapped', which is only sampled"),
    ("never: order.opening", "never: order.filled",
     "'order.filled', of which nobody writes down that it was tried, expected one of order.opening"),
    ("after: feed,", "after: fed,", "the mark 'fed'"),
    ("stays_until: feed.healed", "stays_until: given", "'given', which does not come after 'feed'"),
    ("stays_until: feed.healed", "stays_until: feed", "'feed', which does not come after 'feed'"),
    ("sample: {status: 50ms}", "sample: {status: 50ms}\ngrain: {health: 1s}", "a grain for 'health', which is not sampled"),
    ("sample: {status: 50ms}", "sample: {status: 50ms}\ngrain: {status: 10ms}", "at least the sampling period, 50 ms"),
    ("while: {status:", "while: {health:", "the surface 'health', which this drill does not sample"),
    ("sample: {status: 50ms}", "sample: {status: 50ms, helth: 1s}", "the surface 'helth'"),
    ("given: {status: {trading_mode: Active}", "given: {status: {n: {rises: true}}", "rises in the given"),
    ("given: {status: {trading_mode: Active}", "given: {status: {n: {at_least: 4, at_most: 3}}", "found at most 3"),
    ("for: 3s, within: 1m", "for: 3s, within: 2s", "at least its 'for', 3000 ms"),
    ("within: 3s, after", "within: 100ms, after", "it could never be decided"),
    ("within: 20s, for: 2s", "within: 20s, for: 40ms", "found 40 ms, expected at least the sampling period of status, 50 ms"),
    ("wide: {at: 1s, for: 2s,", "wide: {at: 99ms, for: 3s,", "d.yaml:8:14: found a moment 99 ms after feed, expected the"),
    ("press: {at: 2s,", "press: {at: 3050ms,", "found a moment 50 ms after the end of wide, expected the same moment"),
    ("wide: {at: 1s, for: 2s,", "wide: {at: 1s, for: 4999ms,", "d.yaml:7:23: found a moment 1 ms after the end of wide"),
    ("reached_within: 4s", "reached_within: 9s", "a deadline 1000 ms after the earliest end of the run, expected at most 8000"),
    ("within: 3s, after", "within: 8001ms, after", "a deadline 1 ms after the earliest end of the run"),
    ("within: 3s, after", "within: 6s, after", "a deadline not before feed.healed, until which it is asked"),
    ("  press: {at", "  feed: {at", "the name 'feed' twice"),
    ("switch: {node: exchange, name: wide_book}", "cut: {link: market_data}", "nothing travels on market_data while it is cut"),
    ("switch: {node: exchange, name: wide_book}", "drop: {link: market_data}", "troubled twice"),
    ("switch: {node: exchange, name: wide_book}", "disk: {node: trader, kind: torn}", "a torn disk without a crash of trader"),
    ("at: 0s, for: 6s", "at: 20h, for: 6h", "an end within a day"),
    ("while: {status: {trading_mode: ReduceOnly}}", "while: {status: {trading_mode: {is_not: active}}}",
     "the value of trading_mode 'active', expected one of Active, Kill, ReduceOnly (nearest: Active)"),
    ("given: {status: {trading_mode: Active}", "given: {status: {trading_mode: {one_of: [Active, KILL]}}",
     "trading_mode 'KILL'"),
    ("switch: {node: exchange, name: wide_book}", "delay: {link: orders, by: 19ms}", "a delay of 19 ms, expected at least 20"),
    ("switch: {node: exchange, name: wide_book}", "toxic: {link: orders, type: latency, stream: upstream, "
     "attributes: {latency: 0, jitter: 5}}", "a latency of 0 ms, expected at least 20 ms"),
    ("no_risk: {never: order.opening,", "rare: {count: order.opening, at_least: 0}\n  no_risk: {never: order.opening,",
     "found at least 0, which nothing can break, expected a number from 1"),
    ("sample: {status: 50ms}", "sample: {status: 50ms, health: 20s}", "need not see what lasts for 60010 ms"),
    ("switch: {node: exchange, name: wide_book}", "fill: {node: trader, to: 1, volume: stat}", "'stat', expected one of state"),
    ("switch: {node: exchange, name: wide_book}", "fill: {node: exchange, to: 1, volume: state}",
     "node without the volume state: 'exchange', expected one of trader"),
    ("switch: {node: exchange, name: wide_book}", "disconnect: {node: keeper}",
     "the node 'keeper', which is at no end of a link: nobody would miss its network, expected a node with a link (exchange, "),
])
def test_what_makes_no_sense_is_named(old: str, new: str, says: str) -> None:
    """Each problem has its place, and the nearest right name where there is one."""
    found = problems(old, new)
    assert len(found) == 1
    assert says in found[0]


KINDS = {"properties": {
    "mode": {"enum": ["Up", "Down"]}, "reasons": {"type": "array", "items": {"type": "string"}}, "latch": {"type": "boolean"},
    "version": {"const": 3}, "used": {"type": "number", "minimum": 0, "maximum": 1}, "lag": {"exclusiveMinimum": 0},
    "expires": {"type": ["integer", "null"]}, "build": {}, "inner": {"properties": {"at": {}}, "additionalProperties": False}}}


@pytest.mark.parametrize(("fields", "says"), [
    ("mode: {is_not: true}", "d.yaml:13:58: found mode {is_not: true}, expected a text, as mode always is"),
    ("mode: {is_not: null}", "expected a text"), ("mode: {one_of: [Up, 1]}", "expected a text"),
    ("mode: {has_not: Up}", "expected is_not: mode is a text, and no list"),
    ('latch: {is_not: "true"}', 'found latch {is_not: "true"}, expected true or false'),
    ("expires: {is_not: soon}", "expected a number or null"), ("reasons: LOST", "expected has, or a list"),
    ("reasons: {is_not: LOST}", "expected has_not, or a list"), ("reasons: {has_not: 7}", "expected a text, as reasons holds"),
    ("reasons: {is_not: [7]}", "expected a list of a text each, none of a number"),
    ("inner.ta: {is_not: 1}", "the field 'inner.ta', expected one of inner.at (nearest: inner.at)"),
    *((lawful, None) for lawful in ("expires: {is_not: null}", "expires: 1.0", "build: {is_not: 7}", "other: {is_not: null}",
                                    "reasons: []", "reasons: {has_not: LOST}", "reasons.0: {is_not: LOST}", "inner.at: 7")),
])
def test_a_value_that_no_document_has_is_refused(fields: str, says: str | None) -> None:
    """Whoever denies it is never wrong; where the contract does not say of which kind a field is, nothing is said."""
    text = GOOD.replace("while: {status: {trading_mode: ReduceOnly}}", f"while: {{status: {{{fields}}}}}")
    knowing = replace(SPECS, schemas={"status": KINDS})
    found = [str(each) for each in check(parse(text.encode(), "d.yaml", knowing), knowing)]
    assert [says in each for each in found] == [True] if says is not None else found == []


@pytest.mark.parametrize(("promise", "says"), [
    ("always: {status: {mode: {one_of: [Down, Up]}}}", 'd.yaml:10:31: found mode {one_of: ["Down", "Up"]}, every value'),
    ("within: 1s, after: wide, status: {latch: {one_of: [true, false]}}", "it may have: nothing can break that"),
    ("always: {status: {mode: Up, build: 1}}, while: {status: {build: 1, mode: Up}}", "as 'while' has it already"),
    ("always: {status: {mode: {is_not: Down}}}, while: {status: {mode: Up}}", "expected a field that may be seen otherwise"),
    ("always: {status: {version: 3}}", "found version {equals: 3}, every value that it may have"),
    ("always: {status: {used: {at_least: 0, at_most: 1.5}}}", "found used {at_least: 0}, every value that it may have"),
    ("within: 1s, after: wide, status: {lag: {at_least: 0}}", "it may have: nothing can break that"),
    ("always: {status: {used: {is_not: -1}}}", "every value that it may have"),
    ("always: {status: {used: {at_most: 0.9}}}, while: {status: {used: {at_most: 0.8}}}", "as 'while' has it already"),
    ("always: {status: {mode: Up}}, while: {status: {mode: {is_not: Down}}}", "as 'while' has it already"),
    ("always: {status: {mode: Up}}, since: given, until: wide", "d.yaml:10:58: found an end at 1000 ms, before any"),
    ("within: 1s, after: given, status: {mode: Up}", "a promise that lasts longer: the first fault or stimulus begins"),
    ("within: 500ms, after: started, status: {mode: Up}, stays_until: wide", "found an end at 1000 ms"),
    ("count: order.filled, at_least: 1, until: wide", "found an end at 1000 ms"),
    *((lawful, None) for lawful in (
        "always: {status: {mode: Up, latch: {one_of: [true, false]}}}", "always: {status: {other: {one_of: [1, 2]}}}",
        "always: {status: {mode: Up, build: 1}}, while: {status: {mode: Up}}",
        "within: 1100ms, after: given, status: {mode: Up}", "always: {status: {build: 1}}, while: {status: {build: true}}",
        "count: order.filled, at_most: 1, until: wide.healed", "always: {status: {used: {at_least: 0, at_most: 0.8}}}",
        "always: {status: {used: {at_most: 0.8}}}, while: {status: {used: {at_least: 0.8}}}",
        "always: {status: {used: {is_not: 0}}}", "always: {status: {expires: {at_least: 0}}}", "always: {status: {lag: 1}}",
        "always: {status: {mode: Up}}, until: wide}\n  other: {within: 1s, after: wide, status: {mode: Down}")),
])
def test_a_promise_that_nothing_can_break_is_refused(promise: str, says: str | None) -> None:
    """It allows whatever there may be, asks for no more than its own 'while', or is over before anything happens. One that is
    over so early is a control, where another lasts."""
    kept = [line for line in GOOD.replace("feed: {at: 0s", "feed: {at: 1s").splitlines()
            if not line.startswith(("stimuli", "  press", "  no_risk", "golden"))]
    text = "\n".join(f"  p: {{{promise}}}" if line.startswith("  latched") else line for line in kept)
    knowing = replace(SPECS, schemas={"status": KINDS})
    found = [str(each) for each in check(parse(text.encode(), "d.yaml", knowing), knowing)]
    assert [says in each for each in found] == [True] if says is not None else found == []


@pytest.mark.parametrize(("old", "new", "says"), [
    ("wide_book}", "wide_book, arguments: {instrument: 7}}", "d.yaml:8:93: found instrument 7, expected a text"),
    ("wide_book}", 'wide_book, arguments: {spread_bps: "40"}}', 'found spread_bps "40", expected a number of at least 0'),
    ("wide_book}", "wide_book, arguments: {spread_bps: -1}}", "spread_bps -1, expected a number of at least 0"),
    ("wide_book}", "wide_book, arguments: {spread_bps: true}}", "spread_bps true, expected a number"),
    ("wide_book}", "reject_leg, arguments: {kind: futur}}", "kind \"futur\", expected one of option, future (nearest: future)"),
    ("wide_book}", "reject_leg, arguments: {methods: private/buy}}", "expected a list"),
    ("wide_book}", "reject_leg, arguments: {times: 1.5}}", "times 1.5, expected a whole number of at least 1"),
    ("wide_book}", "partial_fill, arguments: {fraction: 50}}", "fraction 50, expected a number, 0 to 1"),
    ("wide_book}", "time_offset}", "d.yaml:8:35: found no ms, expected time_offset with its ms, a whole number"),
    (CALL, "path: /acts/ghost_oder", "the act 'ghost_oder', expected one of ghost_order"),
    (CALL, "path: /acts/transfer, body: 7", "d.yaml:10:99: found 7, expected a mapping of transfer's arguments"),
    (CALL, "path: /acts/transfer, body: {amount: 1, currency: BTK}", "d.yaml:10:121: found currency \"BTK\", expected one of"),
    (CALL, "path: /acts/transfer", "found no amount, expected transfer with its amount, a number"),
    (CALL, "path: /acts/signal_burst, body: {count: 5001}, expect: 200", "count 5001, expected a whole number, 1 to 5000"),
    (CALL, "path: /acts/transfer, body: {amont: 1, amount: 1}", "'amont', expected one of amount, currency (nearest: amount)"),
    *((old, new, None) for old, new in (
        ("wide_book}", "wide_book, arguments: {spread_bps: 0, instrument: options}}"),
        ("wide_book}", "reject_leg, arguments: {kind: null, times: 3.0}}"), ("wide_book}", "time_offset, arguments: {ms: -5}}"),
        (CALL, "path: /acts/signal_burst, body: {count: 5001}, expect: 400"), (CALL, "path: /clock"),
        (CALL, "path: /acts/signal_burst, body: {count: 12}"))),
])
def test_what_a_control_port_would_refuse_is_refused_before(old: str, new: str, says: str | None) -> None:
    """A value of another type, another word or beyond its bounds, at its place. Whoever asks for a refusal gets one."""
    known = specs.Specs.of(ROOT, load_stack(ROOT / "system_under_test" / "stack.yaml"), {})
    knowing = replace(SPECS, switches=known.switches, acts=known.acts)
    text = GOOD.replace("call: {node: trader, port: control_plane,", "call: {node: exchange, port: control,")
    assert old in text
    found = [str(each) for each in check(parse(text.replace(old, new).encode(), "d.yaml", knowing), knowing)]
    assert [says in each for each in found] == [True] if says is not None else found == []


def test_the_kinds_of_every_contract_of_ours_are_known() -> None:
    """Of each surface that keeps one: what its schema says of a field that all of its documents have."""
    stack = load_stack(ROOT / "system_under_test" / "stack.yaml")
    schemas = specs.Specs.of(ROOT, stack, {}).schemas
    assert {name for name in stack.surfaces if not schemas[name]} == {"health"}
    assert words.kinds_of(words.part_of(schemas["status"], "f1_cert_expires_at")[0]) == {"a number", "null"}


@pytest.mark.parametrize(("first", "second", "clash"), [
    ("kill: {node: trader}", "pause: {node: trader}", True), ("kill: {node: trader}", "pause: {node: exchange}", False),
    ("deploy: {node: trader, build: next}", "kill: {node: trader}", True),
    ("stop: {node: trader}", "restart: {node: trader}", True), ("out_of_memory: {node: trader}", "pause: {node: trader}", True),
    ("starve: {node: trader, percent: 20}", "pause: {node: trader}", True),
    ("starve: {node: trader, percent: 20}", "disconnect: {node: trader}", False),
    ("disconnect: {node: trader}", "disconnect: {node: trader}", True),
    ("disconnect: {node: trader}", "disconnect: {node: exchange}", False),
    ("clock: {node: trader, step: 1s}", "clock: {node: trader, drift_ppm: 3}", True),
    ("disk: {node: trader, kind: stall}", "disk: {node: trader, kind: stall}", True),
    ("disk: {node: trader, kind: slow, by: 1s}", "disk: {node: trader, kind: refuse}", False),
    ("fill: {node: trader, to: 0.9}", "fill: {node: trader, to: 1}", True),
    ("fill: {node: trader, to: 0.9}", "fill: {node: exchange, to: 1}", False),
    ("fill: {node: trader, to: 0.9}", "disk: {node: trader, kind: stall}", False),
    ("fill: {node: trader, to: 0.9}", "fill: {node: trader, to: 0.9, volume: state}", False),
    ("overwrite: {node: trader, file: a.json, body: 1}", "overwrite: {node: trader, file: a.json, text: x}", True),
    ("overwrite: {node: trader, file: a.json, body: 1}", "overwrite: {node: trader, file: b.json, body: 1}", False),
    ("kill: {node: trader}", "remove: {node: trader, file: a.json}", False),
    ("clock: {node: trader, step: 1s}", 'clock: {node: trader, to: "2026-11-20T14:29:57Z"}', True),
    ("disk: {node: trader, kind: read_only}", "fill: {node: trader, to: 0.9}", True),
    ("disk: {node: trader, kind: refuse}", "disk: {node: trader, kind: read_only}", True),
    ("switch: {node: exchange, name: frozen}", "switch: {node: exchange, name: frozen}", True),
    ("kill: {node: exchange}", "switch: {node: exchange, name: frozen}", True),
    ("kill: {node: exchange, before: {send: x, nth: 1}}", "switch: {node: exchange, name: frozen}", True),
    ("switch: {node: exchange, name: frozen}", "restart: {node: exchange}", True),
    ("switch: {node: exchange, name: frozen}", "restart: {node: trader}", False),
    ("switch: {node: exchange, name: frozen}", "pause: {node: exchange}", True),
    ("stall: {link: orders, toward: client}", "stall: {link: orders, toward: server}", False),
    ("stall: {link: orders}", "delay: {link: orders, by: 20ms}", False),
    ("disk: {node: trader, kind: unsynced}", "kill: {node: trader}", False),
    ("kill: {node: trader}", "call: {node: trader, port: control_plane, method: GET, path: /a}", True),
    ("kill: {node: trader}", "call: {node: exchange, port: control, method: GET, path: /a}", False),
    ("call: {node: trader, port: control_plane, method: GET, path: /a}", "kill: {node: trader}", False),
    ("kill: {node: trader}", "stall: {link: orders, toward: client}", True),
    ("kill: {node: exchange}", "stall: {link: orders, toward: client}", False),
    ("kill: {node: trader, before: {send: x, nth: 1}}", "stall: {link: orders}", False),
    ("pause: {node: trader}", "stall: {link: orders, toward: client}", False),      # the other end may send all the same
    ("stall: {link: orders}", "kill: {node: trader}", False),
])
def test_overlapping_faults(first: str, second: str, clash: bool) -> None:
    """Two faults at once on one target are refused when they could not both be seen to land."""
    text = GOOD.replace("stall: {link: market_data, toward: client}", first)
    text = text.replace("switch: {node: exchange, name: wide_book}", second)
    assert bool(check(parse(text.encode(), "d", SPECS), SPECS)) is clash


def test_a_drill_that_proves_nothing_is_refused() -> None:
    """Neither a fault nor a promise: nothing happens and nothing is asked."""
    left_out = ("faults", "stimuli", "  ", "promises", "golden")
    empty = "\n".join(line for line in GOOD.splitlines() if not line.startswith(left_out))
    found = [str(each) for each in check(parse(f"{empty}\npromises: {{}}\n".encode(), "d"), Specs())]
    assert any("no promise" in each for each in found) and any("neither a fault nor a stimulus" in each for each in found)


def test_the_schema_file_is_what_the_grammar_says() -> None:
    """specs/drill.schema.json is generated; a change of the grammar without it fails here."""
    assert (ROOT / "specs" / "drill.schema.json").read_text(encoding="utf-8") == schema.text()
    assert schema.main(["--check"]) == 0


def test_the_schema_takes_what_the_reader_takes_and_refuses_what_it_refuses() -> None:
    """An editor with the schema sees the same keys, choices and shapes."""
    jsonschema.Draft202012Validator.check_schema(schema.schema())
    validator = jsonschema.Draft202012Validator(json.loads(schema.text()))
    assert validator.is_valid(yaml.safe_load(GOOD))
    for old, new in (("stall:", "stal:"), ("6s, stall", "90, stall"), ("toward: client", "toward: clinet"),
                     ("never: order.opening", "nver: order.opening"), ("link: market_data", "link: ../x"),
                     ("title: An example", "titel: An example"),
                     ("title: An example", "worlds: [moon]\ntitle: An example"),
                     ("title: An example", "worlds: []\ntitle: An example"),
                     ("title: An example", "worlds: [sim, sim]\ntitle: An example"),
                     ("name: wide_book}", "name: wide_book, arguments: [x]}"),
                     ("{never: order.opening, while: {status: {trading_mode: ReduceOnly}}}", "{count: x, at_least: -1}"),
                     ("switch: {node: exchange, name: wide_book}", "clock: {node: trader, drift_ppm: 1.5}"),
                     ("{trading_mode: ReduceOnly}}}", "{trading_mode: {at_lest: 1}}}}")):
        assert old in GOOD
        assert not validator.is_valid(yaml.safe_load(GOOD.replace(old, new)))


WRITTEN = sorted([*(ROOT / "drills").rglob("*.yaml"), *(ROOT / "tests" / "faults" / "drills").glob("*.yaml")])


@pytest.mark.parametrize("file", WRITTEN, ids=lambda file: file.stem)
def test_written_drills_keep_the_schema_that_their_first_line_names(file: Path) -> None:
    """What the reader takes, the schema takes; and an editor finds the schema where the first line says it is."""
    first = file.read_text().splitlines()[0]
    prefix = "# yaml-language-server: $schema="
    assert first.startswith(prefix)
    named = (file.parent / first.removeprefix(prefix)).resolve()
    assert named == schema.FILE
    jsonschema.Draft202012Validator(json.loads(named.read_text())).validate(yaml.safe_load(file.read_text()))


def test_goldens_lie_where_the_contracts_look_for_them() -> None:
    """Two rooms name the folders, because neither may know the other."""
    assert specs.GOLDENS == library.GOLDENS


@pytest.mark.parametrize(("golden", "wrong"), [
    ("{fixture: ok, surface: ops, reached_within: 4s}", None),
    ("{fixture: stale, surface: ops, reached_within: 4s}", "the fixture 'stale', expected one of ok"),
    ("{fixture: ok, surface: health, reached_within: 4s}", "a golden of no contract"),
    ("{fixture: ok, surface: nobody, reached_within: 4s}", "the surface 'nobody'"),
    ("{fixture: ok, reached_within: 4s}", "the fixture 'ok', expected one of stale"),
])
def test_a_golden_is_of_its_surfaces_contract(golden: str, wrong: str | None) -> None:
    """A fixture is looked for among those of the surface's contract, and of the status contract where none is named."""
    known = replace(SPECS, surfaces=frozenset({"status", "health", "ops"}),
                    contracts={"status": "csp_status", "health": None, "ops": "ops_status.floor"},
                    fixtures={"csp_status": frozenset({"stale"}), "ops_status": frozenset({"ok"})})
    text = GOOD.replace("{fixture: stale, reached_within: 4s}", golden).replace(
        "sample: {status: 50ms}", "sample: {status: 50ms, health: 1s, ops: 500ms}")
    found = [str(each) for each in check(parse(text.encode(), "d.yaml", known), known)]
    assert found == [] if wrong is None else len(found) == 1 and wrong in found[0]
