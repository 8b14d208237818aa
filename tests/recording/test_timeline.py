"""Questions to a recording: what was written comes back, and damage is reported, never raised."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness import limits
from harness.drill.model import Field, Predicate
from harness.recording import script
from harness.recording.tape import Tape, canonical
from harness.recording.timeline import FOREVER, Offsets, Point, Series, Timeline, gaps, within

ROOT = Path(__file__).parents[2]
LAWFUL = ROOT / "fixtures" / "recordings" / "lawful" / "market_data_stale.yaml"
STACK = """\
stack: s
deployment_environment: DEV
nodes: {a: {}, b: {}, c: {}}
links: {ab: {from: a, to: b.api, env: X, url: u, transit_ms_max: 250}, cb: {from: c, to: b.api, transit_ms_max: 400}}
surfaces: {status: {node: a, contract: csp_status, every: 50ms}, ops: {node: b, every: 1s}}
streams: {books: {node: b}, notes: {node: a}}
"""


def tape_in(folder: Path) -> Tape:
    tape = Tape(folder)
    (folder / "stack.yaml").write_text(STACK)
    tape.head(world="sim", surfaces={"status": {"every_ms": 50, "node": "a"}})
    return tape


def stream(folder: Path, name: str, *rows: dict[str, Any]) -> dict[str, Any]:
    data = b"".join(canonical(row) + b"\n" for row in rows)
    (folder / "streams" / f"{name}.jsonl").write_bytes(data)
    return {"n": len(rows), "sha256": hashlib.sha256(data).hexdigest(), "torn_bytes": 0}


def predicate(path: str, value: Any, operator: Any = "equals", surface: str = "status") -> Predicate:
    return Predicate((Field(surface, path, operator, value),))


PLAIN = st.integers(0, 3) | st.booleans() | st.sampled_from([None, 0.0, -0.0, 1.0])
VALUES = PLAIN | st.lists(PLAIN, max_size=2) | st.dictionaries(st.sampled_from("xy"), PLAIN, max_size=2)
DOCUMENTS = st.lists(st.none() | st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4), max_size=30)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DOCUMENTS, st.integers(1, 7))
@example([{"a": {"x": 0}}, {"a": {"x": False}}, {"a": [1.0]}, {"a": [True]}, {"a": 0.0}, {"a": -0.0}], 7)
def test_documents_come_back_from_their_differences(tmp_path: Path, documents: list[Any], keyframe: int) -> None:
    """Whatever was sampled, the timeline rebuilds it as it was written: 1, 1.0 and true are three values, inside of others,
    too. None stands for an answer that was no object."""
    folder = tmp_path / str(abs(hash(orjson.dumps([documents, keyframe]))))
    before, limits.KEYFRAME_EVERY = limits.KEYFRAME_EVERY, keyframe
    try:
        tape = tape_in(folder)
        for number, document in enumerate(documents):
            at = 50 * number
            if document is None:
                tape.raw("status", at, at, at + 1, 3, b"[1]", "00")
            else:
                tape.sample("status", at, at, at + 1, document)
        tape.seal("completed", {})
    finally:
        limits.KEYFRAME_EVERY = before
    timeline = Timeline.load(folder)
    assert canonical([sample.document for sample in timeline.samples("status")]) == canonical(documents)
    asked = predicate("a", True)
    assert [point.holds for point in timeline.series(asked)] == \
        [None if document is None or "a" not in document else document["a"] is True for document in documents]


def test_a_document_that_is_changed_and_told_again_is_seen_changed(tmp_path: Path) -> None:
    """The tape remembers what it wrote, not the caller's object."""
    tape, document = tape_in(tmp_path), {"a": 1, "b": 1}
    tape.sample("status", 0, 0, 1, document)
    document["a"] = 2
    del document["b"]
    tape.sample("status", 50, 50, 51, document)
    tape.sample("status", 100, 100, 101, {"a": 2, "b": 1})
    tape.seal("completed", {})
    assert [each.document for each in Timeline.load(tmp_path).samples("status")] == [
        {"a": 1, "b": 1}, {"a": 2}, {"a": 2, "b": 1}]


def test_equal_documents_are_one_object(tmp_path: Path) -> None:
    """What did not change is not rebuilt, so that judging it once is enough."""
    tape = tape_in(tmp_path)
    for at in (0, 50, 100):
        tape.sample("status", at, at, at, {"a": 1})
    tape.seal("completed", {})
    first, second, third = (each.document for each in Timeline.load(tmp_path).samples("status"))
    assert first is second is third


def test_everything_that_was_written_is_there(tmp_path: Path) -> None:
    """Head, marks, acts, probes, limits, silence, seal and streams, on the tape's clock."""
    tape = tape_in(tmp_path)
    tape.mark("given", 10, 20)
    tape.act("feed", "applied", 20, 21, {"toxic": "x"})
    tape.probe("feed", "flow.lag_ms", 7, 30)
    tape.clock("b", 40, 42, 1_041)
    tape.limit("stream_bytes_max", 5)
    tape.silence("status", 50, 50, 52, "timeout")
    tape.seal("completed", {"books": stream(tmp_path, "books", {"at": 1_100, "kind": "order"}),
                            "notes": stream(tmp_path, "notes")})
    timeline = Timeline.load(tmp_path)
    assert timeline.damage == []
    assert (timeline.status, timeline.placebo, timeline.end) == ("completed", False, 52)
    assert (timeline.marks["given"].begin, timeline.marks["given"].end) == (10, 20)
    assert [(act.id, act.step, act.saw) for act in timeline.acts] == [("feed", "applied", {"toxic": "x"})]
    assert [(probe.what, probe.value, probe.at) for probe in timeline.probes("feed", "flow.lag_ms")] == [("flow.lag_ms", 7, 30)]
    assert timeline.probes("feed", "other") == timeline.probes("nobody") == []
    assert timeline.limits == {"stream_bytes_max": 5}
    assert timeline.samples("status")[0].why == "timeout"
    row, = timeline.stream("books").rows
    assert (row.earliest, row.latest) == (98, 102)
    assert timeline.stream("books").whole and timeline.stream("notes").whole


def test_who_is_who_comes_from_the_stack(tmp_path: Path) -> None:
    """Nodes of surfaces and streams, contracts, and how long something may be under way."""
    tape_in(tmp_path).seal("completed", {"books": stream(tmp_path, "books"), "notes": stream(tmp_path, "notes")})
    timeline = Timeline.load(tmp_path)
    assert (timeline.node_of("status"), timeline.node_of("ops"), timeline.node_of("x")) == ("a", "b", None)
    assert timeline.contract_of("status") == "csp_status" and timeline.contract_of("ops") is None
    assert timeline.stream("books").node == "b"
    assert [timeline.transit_ms("a", "b"), timeline.transit_ms("a", "a"), timeline.transit_ms("a", "c")] == [250, 0, 400]


def test_damage_is_reported_and_never_raised(tmp_path: Path) -> None:
    """Each kind of damage has its sentence, and what it touches is unknown."""
    timeline = Timeline.load(tmp_path / "nothing")
    assert timeline.status == "interrupted" and not timeline.stream("books").whole
    assert any("interrupted: there is no seal" in each for each in timeline.damage)


@pytest.mark.parametrize(("line", "says"), [
    ({"line": "mark", "name": "x", "begin": 5, "end": 4}, "ends before it begins"),
    ({"line": "mark", "name": "x", "begin": "5", "end": 6}, "expected a whole number"),
    ({"line": "mark", "name": "x", "begin": True, "end": 6}, "expected a whole number"),
    ({"line": "mark", "name": "x"}, "KeyError"),
    ({"line": "head", "world": "again"}, "a second head"),
    ({"line": "nonsense"}, "of no known kind"),
    ({"line": "__class__"}, "of no known kind"),
    ({"line": "sample", "surface": "status", "due": 0, "asked": 9, "answered": 8, "full": {}}, "before it was asked"),
    ({"line": "sample", "surface": "status", "due": 0, "asked": 9, "answered": 9, "full": []}, "full is no object"),
    ({"line": "probe", "id": "f", "what": "w", "at": 3}, "KeyError"),
    ({"line": "clock", "node": "b", "asked": 0, "answered": 0, "mono": 1.5}, "expected a whole number"),
])
def test_a_line_that_is_not_what_it_should_be_is_named(tmp_path: Path, line: dict[str, Any], says: str) -> None:
    """The rest of the recording is still read."""
    tape = tape_in(tmp_path)
    tape._write(line["line"], {key: value for key, value in line.items() if key != "line"})
    tape.sample("status", 50, 50, 51, {"a": 1})
    tape.seal("completed", {})
    timeline = Timeline.load(tmp_path)
    assert any(says in each for each in timeline.damage)
    assert timeline.samples("status")[-1].document == {"a": 1}


def test_a_difference_without_its_document_is_unknown(tmp_path: Path) -> None:
    """A delta whose beginning is missing rebuilds nothing, until the next whole document."""
    tape = tape_in(tmp_path)
    tape._last["status"], tape._since_keyframe["status"] = {"a": 1}, 1
    tape.sample("status", 0, 0, 1, {"a": 2})
    tape._last.clear()
    tape.sample("status", 50, 50, 51, {"a": 3})
    tape.seal("completed", {})
    assert [each.document for each in Timeline.load(tmp_path).samples("status")] == [None, {"a": 3}]


def rewrite(folder: Path, edit: Any) -> None:
    file = folder / "recording.jsonl.gz"
    lines = [orjson.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    file.write_bytes(gzip.compress(b"".join(canonical(each) + b"\n" for each in edit(lines)), mtime=0))


@pytest.mark.parametrize(("edit", "says"), [
    (lambda lines: lines[:5] + lines[6:], "counts other lines than there are"),
    (lambda lines: [*lines, lines[1]], "stands after the seal"),
    (lambda lines: lines[1:], "the head is missing"),
    (lambda lines: lines[:-1], "interrupted: there is no seal"),
    (lambda lines: [*lines[:-1], {**lines[-1], "streams": {}}], "stream books has no seal"),
    (lambda lines: [*lines[:-1], {**lines[-1], "counts": None}], "counts other lines"),
])
def test_lines_added_or_taken_away_show(tmp_path: Path, edit: Any, says: str) -> None:
    """The seal counts what there was."""
    folder = script.build(script.read(LAWFUL), tmp_path / "run")
    rewrite(folder, edit)
    assert any(says in each for each in Timeline.load(folder).damage)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_flipped_byte_never_raises_and_never_goes_unseen(tmp_path: Path, data: st.DataObject) -> None:
    """In the tape or in a stream: the timeline reads on, and says that something is wrong or reads the same."""
    folder = tmp_path / "run"
    if not folder.exists():
        script.build(script.read(LAWFUL), folder)
    whole = Timeline.load(folder)
    name = data.draw(st.sampled_from(["recording.jsonl.gz", *(f"streams/{each}.jsonl" for each in whole.streams)]))
    file = folder / name
    before = file.read_bytes()
    at = data.draw(st.integers(0, len(before) - 1))
    bit = data.draw(st.integers(0, 7))
    try:
        file.write_bytes(before[:at] + bytes([before[at] ^ (1 << bit)]) + before[at + 1:])
        damaged = Timeline.load(folder)
        same = all(list(damaged.samples(each)) == list(whole.samples(each)) for each in whole.surfaces)
        assert damaged.damage or (same and damaged.marks == whole.marks)
    finally:
        file.write_bytes(before)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 3_000))
def test_a_cut_tape_is_interrupted(tmp_path: Path, left: int) -> None:
    """As a killed harness leaves it: readable so far, without a seal."""
    folder = tmp_path / "run"
    if not folder.exists():
        script.build(script.read(LAWFUL), folder)
    file = folder / "recording.jsonl.gz"
    before = file.read_bytes()
    try:
        file.write_bytes(before[:left])
        assert Timeline.load(folder).status == "interrupted"
    finally:
        file.write_bytes(before)


def clock(*readings: tuple[int, int, int]) -> Offsets:
    """By (asked, answered, what it said)."""
    offsets = Offsets()
    for each in readings:
        offsets.read(*each)
    return offsets


def test_a_node_clock_is_known_as_narrowly_as_it_was_read() -> None:
    """Several readings narrow the offset; each side is a millisecond wider because clocks count whole ones."""
    assert clock((0, 100, 1_050), (200, 202, 1_201)).interval(1_500) == (498, 502)
    assert clock((0, 100, 1_050)).interval(1_500) == (449, 551)


def test_a_clock_that_began_anew_has_two_stretches() -> None:
    """A row belongs to the stretch whose readings lie nearest; a clock never read is known nowhere."""
    offsets = clock((0, 0, 90_000), (1_000, 1_000, 91_000), (5_000, 5_000, 10), (6_000, 6_000, 1_010))
    assert offsets.interval(90_500) == (499, 501)
    assert offsets.interval(500) == (5_489, 5_491)
    assert Offsets().interval(3) == (-FOREVER, FOREVER)


def points(*asked: int, holds: bool | None = True, takes: int = 1) -> Series:
    return Series.of(Point(each, each + takes, holds) for each in asked)


@pytest.mark.parametrize(("series", "waived", "found"), [
    (points(0, 100, 200, 300), (), []),
    (points(0, 100, 300), (), [(100, 300)]),
    (points(0, 100), (), [(100, 300)]),
    (points(200, 300), (), [(0, 200)]),
    (points(-100, 50, 200, 350), (), []),
    (points(0, 100, 200, 300, holds=None), (), [(0, 300)]),
    (points(0, 100, 200, 300, takes=151), (), [(0, 300)]),
    (points(0, 300), ((100, 200),), []),
    (points(0, 300), ((250, 280),), [(0, 300)]),
    (points(0, 300), ((200, 250), (50, 100)), []),              # one after the other, and no grain in between
    (points(0, 300), ((-200, -140), (180, 200)), [(0, 300)]),
    (points(), (), [(0, 300)]),
])
def test_a_window_is_covered_while_usable_samples_are_near(series: Series, waived: Any, found: Any) -> None:
    """A grain of 150 ms over 0 to 300; declared down times do not count."""
    assert gaps(series, 0, 300, 150, waived) == found


def test_within_takes_samples_that_lie_wholly_inside() -> None:
    """A sample that straddles an edge belongs to neither side."""
    series = points(0, 50, 100, 150, takes=10)
    assert [each.asked for each in within(series, 50, 159)] == [50, 100]


def test_several_surfaces_are_asked_together(tmp_path: Path) -> None:
    """At each sample with the latest of the other; one that is older than its grain is unknown."""
    tape = tape_in(tmp_path)
    for at in range(0, 500, 50):
        tape.sample("status", at, at, at + 1, {"a": 1})
        if at < 200 and at % 100 == 0:
            tape.sample("ops", at, at, at + 1, {"b": 2})
    tape.seal("completed", {})
    both = Predicate((Field("status", "a", "equals", 1), Field("ops", "b", "equals", 2)))
    holds = {point.asked: point.holds for point in Timeline.load(tmp_path).series(both)}
    assert holds[150] is True and holds[450] is None


def test_the_baseline_is_the_last_usable_document_before_zero(tmp_path: Path) -> None:
    """Unlawful documents are nobody's baseline, and unknown to every predicate."""
    tape = tape_in(tmp_path)
    for at, value in ((0, 1), (50, 2), (100, 99), (150, 3)):
        tape.sample("status", at, at, at + 1, {"n": value})
    tape.mark("given", 110, 120)
    tape.seal("completed", {})
    timeline = Timeline.load(tmp_path)
    timeline.judge_documents("status", [(2, 3)])
    assert timeline.baseline() == {"status": {"n": 2}}
    assert [point.holds for point in timeline.series(predicate("n", True, "rises"))] == [False, False, None, True]


def test_answers_out_of_turn_change_nothing_unseen(tmp_path: Path) -> None:
    """Slots written in another order than they were asked in: what each changed is then not known, and all is asked anew."""
    tape = tape_in(tmp_path)
    for at, value in ((0, 1), (100, 1), (50, 99), (150, 99)):
        tape.sample("status", at, at, at + 1, {"n": value})
    tape.seal("completed", {})
    assert [point.holds for point in Timeline.load(tmp_path).series(predicate("n", 99))] == [False, True, False, True]
