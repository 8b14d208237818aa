"""Columns say what a plain list of documents would say, whatever was written in whatever order."""

from __future__ import annotations

import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.drill.predicate import MISSING, look
from harness.recording import columns
from harness.recording.columns import Grid, Sample, Slots, Track, clipped, within, without
from harness.recording.series import Point, Series, together

VALUES = st.integers(0, 3) | st.sampled_from([None, True, 1.0, 0.0, -0.0, "x", "", 2**63, -2**63, 2**62, -2**62 - 1, [1],
                                              [True], {"n": 1}, {"n": [2]}])
TOLD = st.none() | st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)
SLOTS = st.lists(st.tuples(st.integers(0, 12), TOLD, st.sampled_from(["missed", "raw", "document", "document"])), max_size=25)


def written(slots: list[Any]) -> tuple[Track, list[Sample]]:
    """The slots as a tape tells them, documents by their differences where that is shorter; and as a list, in time."""
    track, plain, last = Track("s"), [], None
    for number, (asked, document, what) in enumerate(slots):
        times = number, asked, asked + number % 3, number % 4 == 3
        if document is None and what == "raw":
            track.raw_came(times, {"n": number})
            last = None
        elif document is None:
            track.nothing_came(times, what)
        elif last is None or number % 5 == 0:
            track.document_came(times, dict(document))
            last = document
        else:
            changes = {key: value for key, value in document.items() if key not in last or repr(last[key]) != repr(value)}
            track.difference_came(times, changes, [key for key in last if key not in document])
            last = document
        plain.append(Sample("s", *times[:3], document, None if document is not None else what,
                            {"n": number} if document is None and what == "raw" else None, times[3]))
    return track, sorted(plain, key=lambda each: (each.asked, each.due))


def same(one: Any, other: Any) -> bool:
    """Written alike: 1, 1.0 and true are three values."""
    left, right = (orjson.dumps(each, option=orjson.OPT_SORT_KEYS, default=repr) for each in (one, other))
    return left == right


@settings(max_examples=150, deadline=None)
@given(SLOTS)
def test_every_slot_comes_back(slots: list[Any]) -> None:
    """In time, whatever order they were written in; by number, one after the other, and from the middle on."""
    track, plain = written(slots)
    view = Slots(track)
    for number, each in enumerate(plain):
        assert (view[number].due, view[number].asked, view[number].answered, view[number].why, view[number].raw,
                view[number].extra) == (each.due, each.asked, each.answered, each.why, each.raw, each.extra)
    for found in ([view[slot] for slot in range(len(view))], list(view)):
        assert same([each.document for each in found], [each.document for each in plain])
    for first in (0, len(plain) // 2, len(plain)):
        replayed = [(slot, dict(document)) for slot, document, _ in track.replay(first)]
        assert same(replayed, [(slot, each.document) for slot, each in enumerate(plain)
                               if slot >= first and each.document is not None])


@settings(max_examples=100, deadline=None)
@given(SLOTS)
def test_what_changed_is_never_left_out(slots: list[Any]) -> None:
    """A reader may skip what did not change: whoever says that only these fields did must be right."""
    track, _ = written(slots)
    before: dict[str, Any] = {}
    for _, document, changed in track.replay():
        if changed is not None:
            assert before.keys() == document.keys()
            assert {key for key in document if not same(before[key], document[key])} <= set(changed)
        before = dict(document)


@settings(max_examples=100, deadline=None)
@given(SLOTS, st.sampled_from(["a", "b", "c.n", "c.n.0", "zzz"]))
def test_values_and_states_cover_every_slot(slots: list[Any], path: str) -> None:
    """Each answered slot lies in one piece, which holds what its document holds."""
    track, plain = written(slots)
    values = {slot: value for first, past, value in track.values(path) for slot in range(first, past)}
    states = {slot: fields for first, past, fields in track.states({path[0], "b"}) for slot in range(first, past)}
    assert sorted(values) == sorted(states) == list(range(len(plain)))
    for slot, each in enumerate(plain):
        if each.document is not None:
            assert same(values[slot], look(each.document, path))
            assert same(states[slot], {key: value for key, value in each.document.items() if key in (path[0], "b")})


@settings(max_examples=100, deadline=None)
@given(SLOTS)
def test_counts_are_those_of_a_list(slots: list[Any]) -> None:
    """What came of the slots, how many of them up to one, and which hold documents."""
    track, plain = written(slots)
    for why in (None, "raw", "missed", "never said"):
        assert track.count(why) == sum(each.why == why for each in plain)
        assert track.count(why, 3) == sum(each.why == why for each in plain[:3])
    assert [slot for first, past in track.answered for slot in range(first, past)] == \
        [slot for slot, each in enumerate(plain) if each.document is not None]
    assert list(track.slots("raw")) == [slot for slot, each in enumerate(plain) if each.why == "raw"]


@pytest.mark.parametrize("times", [(2**63, 1, 2), (1, 2**63, 2**63), (1, 1, 2**64 - 1), (-2**63 - 1, 1, 1)])
def test_a_time_that_no_clock_shows_adds_nothing(times: tuple[int, int, int]) -> None:
    """It is refused whole: no column is longer than another."""
    grid = Grid()
    grid.add(5, 5, 5)
    with pytest.raises(ValueError, match="no clock"):
        grid.add(*times)
    assert (list(grid.due), list(grid.asked), list(grid.answered)) == ([5], [5], [5])


def test_slots_far_out_of_turn_have_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few may be; a recording backwards would take forever to put in order."""
    monkeypatch.setattr(columns, "MOVED_MAX", 1_000)
    grid = Grid()
    with pytest.raises(ValueError, match="out of turn"):
        for number in range(200):
            grid.add(-number, -number, 0)
    assert len(grid) < 60


def test_words_for_silence_have_a_budget() -> None:
    """The tape knows five; a forged one may hold a million, and they are told apart up to a bound."""
    track = Track()
    for number in range(1_000):
        track.nothing_came((number, number, number), f"word {number}")
    assert track.count("word 0") == 1 and track.count(columns.OTHER_WORD) > 700


STRETCHES = st.lists(st.integers(0, 30), max_size=8, unique=True).map(sorted).map(
    lambda edges: list(zip(edges[::2], edges[1::2], strict=False)))


@given(STRETCHES, STRETCHES)
def test_stretches_are_sets_of_slots(one: list[Any], other: list[Any]) -> None:
    """Both, one without the other, and pieces cut to stretches."""
    def slots(stretches: Any) -> set[int]:
        return {slot for each in stretches for slot in range(each[0], each[1])}

    assert slots(within(one, other)) == slots(one) & slots(other)
    assert slots(without(one, other)) == slots(one) - slots(other)
    pieces = [(*each, number) for number, each in enumerate(one)]
    assert {(slot, value) for first, past, value in clipped(pieces, other) for slot in range(first, past)} == \
        {(slot, value) for first, past, value in pieces for slot in range(first, past) if slot in slots(other)}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), st.sampled_from([True, False, None])), max_size=20),
       st.integers(-5, 60), st.integers(-5, 60), st.integers(0, 4))
def test_a_series_is_its_points(told: list[Any], begin: int, end: int, grain: int) -> None:
    """Cut to a window, and what is known in it, as of a list of points."""
    points, at = [], 0
    for step, takes, holds in told:
        at += step
        points.append(Point(at, at + takes, holds))
    series = Series.of(points)
    assert list(series) == points and len(series) == len(points)
    assert list(series.inside(begin)) == [each for each in points if each.asked >= begin]
    assert list(series.inside(begin, end)) == [each for each in points if each.asked >= begin and each.answered <= end]
    known = [each for each in points if each.holds is not None and each.answered - each.asked <= grain]
    found = [[points[slot] for slot in range(first, past)] for first, past in series.known(grain)]
    assert [each for part in found for each in part] == known
    assert all(after.asked - before.asked <= grain for part in found for before, after in zip(part, part[1:], strict=False))
    extra = [Point(begin, begin, True), Point(end, end, True)]
    among = [piece.point(slot) for piece in series.among(extra) for slot in range(piece.first, piece.past)]
    if all(one.answered <= two.answered for one, two in zip(points, points[1:], strict=False)):
        assert among == sorted([*points, *extra], key=lambda each: (each.asked, each.answered))


@given(st.lists(st.tuples(st.sampled_from([True, False, None]), st.sampled_from([True, False, None])), max_size=20))
def test_series_side_by_side(told: list[tuple[Any, Any]]) -> None:
    """What two say of the same slots; of others nothing is said."""
    grid = Grid()
    for number in range(len(told)):
        grid.add(number, number, number)
    one, other = (Series(grid, ((slot, slot + 1, both[which]) for slot, both in enumerate(told))) for which in (0, 1))
    found = [said for first, past, said in together(one, other) for _ in range(first, past)]
    assert found == told
    with pytest.raises(ValueError, match="different slots"):
        list(together(one, Series(Grid(), [])))


def test_a_value_takes_its_own_length() -> None:
    """What an encoder returns may hold on to the whole buffer that it was written in."""
    track = Track()
    tracemalloc.start()
    try:
        for at in range(1_000):
            track.document_came((at, at, at), {"nested": {"number": at}})
        assert tracemalloc.get_traced_memory()[0] < 500 * 1_000
    finally:
        tracemalloc.stop()


def test_nothing_was_ever_said() -> None:
    """An empty track has no document, value or state."""
    track = Track()
    assert list(track.replay()) == list(track.values("a")) == list(track.states("a")) == track.answered == []
    assert Track.of([Sample("s", 0, 0, 0, None, "missed")]).document(0) is None
    assert [value for _, _, value in Track.of([Sample("s", 0, 0, 0, {"b": 1})]).values("a")] == [MISSING]


def test_what_a_silent_slot_puts_back_is_known_to_have_changed() -> None:
    """A document came late, before a silence that its successor had already followed: the successor differs from it."""
    track = Track()
    track.document_came((0, 0, 0), {"a": 1})
    track.nothing_came((20, 20, 20), "timeout")
    track.difference_came((30, 30, 30), {"b": 2}, ())
    track.difference_came((10, 10, 10), {"a": 9}, ())
    assert [(dict(document), changed) for _, document, changed in track.replay()][2] == ({"a": 1, "b": 2}, None)
    track = Track()
    track.document_came((0, 0, 0), {"a": 1, "b": 0})
    track.nothing_came((20, 20, 20), "timeout")
    track.difference_came((30, 30, 30), {}, ())
    track.difference_came((10, 10, 10), {"a": 9}, ())
    assert [(dict(document), changed) for _, document, changed in track.replay()][1:] == [
        ({"a": 9, "b": 0}, ("a",)), ({"a": 1, "b": 0}, None)]
