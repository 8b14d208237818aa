"""What a surface said, kept as columns: a status is asked twenty times a second and differs from its last answer in two
fields of forty, so a slot takes its three times and what changed, and a day of them fits in memory.

A ``Stretch`` is ``(first, past)``: neighbouring slots, the second one no more of them. Slots stand in the order in which
they were asked; a document is known by the changes of its fields up to its slot.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from heapq import merge
from itertools import chain, islice, pairwise, repeat
from typing import Any, overload

import msgspec
import orjson

from harness.drill.predicate import MISSING, look
from harness.recording.tape import as_json, differ

Document = Mapping[str, Any]
Stretch = tuple[int, int]
Times = tuple[int, int, int] | tuple[int, int, int, bool]
"""due, asked, answered, and whether it is an extra look between the slots of the grid"""

WORDS_MAX = 200
"""So many words for silence are told apart; the tape knows five."""
OTHER_WORD = "silent"

RAWS_KEPT = 16
"""Of so many answers that were no JSON object it is kept what they were: the first one is shown."""

MOVED_MAX = 50_000_000
"""Slots that may have to make room for others that were asked before them, all together: a recording is nearly in order."""

LEAST = -2**62
"""Whole numbers from here to 2**63 - 1 stand in a column as they are; below are the numbers of everything else."""
ELSE = -2**63

DECODED_MAX = 4_096

DOCUMENT, RAW = range(2)


class Sample(msgspec.Struct, frozen=True):
    """One slot of a surface. ``document`` is None when it was silent, no JSON object, or could not be rebuilt."""

    surface: str
    due: int
    asked: int
    answered: int
    document: Document | None
    why: str | None = None
    """why there is no document: the silence's word, ``raw`` or ``damaged``"""
    raw: Any = None
    extra: bool = False


class Grid:
    """When the slots of a surface were due, asked and answered; in time by when they were asked."""

    def __init__(self) -> None:
        self.due, self.asked, self.answered = array("q"), array("q"), array("q")
        self.extra = bytearray()
        """for each slot, whether it is none of the grid but a look at a file that had just changed"""
        self._moved = 0
        self._known: dict[tuple[str, int], Any] = {}

    def __len__(self) -> int:
        return len(self.asked)

    def add(self, due: int, asked: int, answered: int, extra: bool = False) -> int:
        """Returns the slot's place. Raises ValueError for times that no clock shows, and for one too far out of turn."""
        place = size = len(self.asked)
        if place and asked <= (last := self.asked[-1]) and (asked < last or due < self.due[-1]):
            place = self._place(due, asked)
        try:
            if place == size:
                self.due.append(due)
                self.asked.append(asked)
                self.answered.append(answered)
            else:
                self.due.insert(place, due)
                self.asked.insert(place, asked)
                self.answered.insert(place, answered)
        except OverflowError as why:
            for column in (self.due, self.asked, self.answered):
                del column[place:place + len(column) - size]
            raise ValueError("no clock shows such a time") from why
        self.extra.insert(place, extra)
        if self._known:
            self._known.clear()
        return place

    def _place(self, due: int, asked: int) -> int:
        place = bisect_right(self.asked, asked)
        while place and self.asked[place - 1] == asked and self.due[place - 1] > due:
            place -= 1
        self._moved += len(self.asked) - place
        if self._moved > MOVED_MAX:
            raise ValueError("too many slots are out of turn")
        return place

    # ---- questions; each answer is found once

    def _once(self, name: str, argument: int, find: Any) -> Any:
        key = name, argument
        if key not in self._known:
            self._known[key] = find()
        return self._known[key]

    @property
    def period_ms(self) -> int:
        """The smallest distance between neighbouring slots of the grid; 0 without any."""
        return int(self._once("period", 0, lambda: min(
            (after - before for before, after in pairwise(self.regular(self.due)) if after > before), default=0)))

    def regular(self, column: Sequence[Any]) -> Sequence[Any]:
        """Of a column with an entry for each slot, those of the grid's."""
        return column if 1 not in self.extra else [each for each, extra in zip(column, self.extra, strict=True) if not extra]

    @property
    def longest_ms(self) -> int:
        """The longest that any answer took."""
        return int(self._once("longest", 0, lambda: max(map(int.__sub__, self.answered, self.asked), default=0)))

    def holes(self, grain_ms: int, first: int, past: int) -> Sequence[int]:
        """The slots after the first one up to past that were asked more than a grain after the one before."""
        found = self._once("holes", grain_ms, lambda: array("q", (
            slot for slot, (before, after) in enumerate(pairwise(self.asked), 1) if after - before > grain_ms)))
        return found[bisect_right(found, first):bisect_left(found, past)]  # type: ignore[no-any-return]

    def slow(self, grain_ms: int, first: int, past: int) -> Sequence[int]:
        """The slots from first up to past whose answer took longer than a grain."""
        if self.longest_ms <= grain_ms:
            return ()
        found = self._once("slow", grain_ms, lambda: array("q", (
            slot for slot, (asked, answered) in enumerate(zip(self.asked, self.answered, strict=True))
            if answered - asked > grain_ms)))
        return found[bisect_left(found, first):bisect_left(found, past)]  # type: ignore[no-any-return]

    def asked_in(self, begin: int, end: int) -> Stretch:
        """The slots that were asked from begin to end."""
        return bisect_left(self.asked, begin), bisect_right(self.asked, end)

    def inside(self, begin: int, end: int | None) -> list[Stretch]:
        """The slots that were asked at or after begin, and answered at or before end where there is one."""
        first = bisect_left(self.asked, begin)
        if end is None:
            return [(first, len(self))] if first < len(self) else []
        past = bisect_right(self.asked, end, first)
        edge = max(first, bisect_left(self.asked, end - self.longest_ms))
        late = [slot for slot in range(edge, past) if self.answered[slot] > end]
        return without([(first, past)], [(slot, slot + 1) for slot in late])

    def touching(self, begin: int, end: int) -> list[Stretch]:
        """The slots that were under way at some moment from begin to end."""
        past = bisect_right(self.asked, end)
        early = range(bisect_left(self.asked, begin - self.longest_ms), min(bisect_left(self.asked, begin), past))
        found = [(slot, slot + 1) for slot in early if self.answered[slot] >= begin]
        return [*found, (early.stop, past)] if early.stop < past else found


class Pool:
    """Values that are no plain whole numbers, each kept once, by number; the first one is that there is none."""

    def __init__(self) -> None:
        self._numbers: dict[str | float | bytes, int] = {}
        self._kept: list[Any] = [MISSING]
        """texts and numbers as they are, everything else as JSON"""
        self._decoded: dict[int, Any] = {}
        self._deep: dict[int, Any] = {}
        """what is nested too deeply to be written again"""

    def code(self, value: Any) -> int:
        """What stands for a value in a column."""
        kind = type(value)
        if kind is str or (kind is float and value):  # 0.0 and -0.0 are equal, and two values
            kept: Any = value
        elif kind is int and LEAST <= value < -ELSE:
            return int(value)
        elif value is MISSING:
            return ELSE
        else:
            kept = as_json(value)
        number = self._numbers.get(kept)
        if number is None:
            number = len(self._kept)
            if type(kept) is bytes:
                kept = bytes(memoryview(kept))  # what orjson returns takes 4 KB, however short it is
            self._kept.append(kept)
            if kept == b"":
                self._deep[ELSE + number] = value
            else:
                self._numbers[kept] = number
        return ELSE + number

    def value(self, code: int) -> Any:
        """What a code below LEAST stands for. Nobody changes it: others hold it, too."""
        kept = self._kept[code - ELSE]
        if type(kept) is not bytes:
            return kept
        if code not in self._decoded:
            if len(self._decoded) > DECODED_MAX:
                self._decoded.clear()
            self._decoded[code] = self._deep[code] if code in self._deep else orjson.loads(kept)
        return self._decoded[code]


class Column:
    """The changes of one field: at which slots, and to what."""

    __slots__ = ("codes", "slots")

    def __init__(self) -> None:
        self.slots, self.codes = array("I"), array("q")

    def at(self, slot: int) -> int:
        """The code in force at a slot."""
        place = bisect_right(self.slots, slot)
        return self.codes[place - 1] if place else ELSE

    def insert(self, slot: int, code: int) -> None:
        place = bisect_left(self.slots, slot)
        self.slots.insert(place, slot)
        self.codes.insert(place, code)

    def make_room(self, slot: int) -> None:
        """One more slot stands where this one was."""
        for place in range(bisect_left(self.slots, slot), len(self.slots)):
            self.slots[place] += 1


class Track:
    """Everything that one surface said, in columns."""

    def __init__(self, surface: str = "") -> None:
        self.surface = surface
        self.grid = Grid()
        self._columns: dict[str, Column] = {}
        self._said = bytearray()
        """for each slot, what came of it: DOCUMENT, or the number of its word"""
        self._words: list[str | None] = [None, "raw", "damaged"]
        self._changed = array("I")
        """for each slot, the number of the set of fields that changed with it"""
        self._sets: list[tuple[str, ...]] = [()]
        self._set_numbers: dict[tuple[str, ...], int] = {(): 0}
        self._pool = Pool()
        self._end: dict[str, Any] = {}
        """the document at the columns' end"""
        self._last: dict[str, Any] | None = None
        """the document that was written last, which is what the next one is told by; nearly always the one at the end"""
        self._raws: dict[int, Any] = {}

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> Track:
        """The same as columns."""
        track = cls()
        for each in samples:
            times = each.due, each.asked, each.answered, each.extra
            if each.document is not None:
                track.document_came(times, dict(each.document))
            elif each.why == "raw":
                track.raw_came(times, each.raw)
            else:
                track.nothing_came(times, each.why or OTHER_WORD)
        return track

    # ---- writing: each verb adds one slot

    def nothing_came(self, times: Times, why: str) -> None:
        self._slot(times, self._word(why))

    def raw_came(self, times: Times, told: Any) -> None:
        """An answer that was no JSON object; the next document must be told whole."""
        slot = self._slot(times, RAW)
        self._last = None
        if len(self._raws) < RAWS_KEPT:
            self._raws[slot] = told

    def document_came(self, times: Times, document: dict[str, Any]) -> None:
        """A document told whole."""
        self._whole(self._slot(times, DOCUMENT), document)

    @property
    def follows(self) -> bool:
        """Whether it is known what the next difference would be from."""
        return self._last is not None

    def difference_came(self, times: Times, changes: dict[str, Any], gone: Collection[str]) -> None:
        """A document told by what is other than in the one that was written before it."""
        last = self._last
        if last is None:
            raise ValueError("there is nothing that it differs from")
        slot = self._slot(times, DOCUMENT)
        if last is not self._end or slot < len(self._said) - 1:
            self._whole(slot, {key: value for key, value in {**last, **changes}.items() if key not in gone})
            return
        last.update(changes)
        if gone:
            changes = {**changes, **dict.fromkeys(gone, MISSING)}
            for key in gone:
                last.pop(key, None)
        if changes:
            self._record(slot, changes)

    def _whole(self, slot: int, document: dict[str, Any]) -> None:
        self._last = document
        if slot < len(self._said) - 1:
            self._between(slot, document)
            return
        end = self._end
        changes = {key: value for key, value in document.items() if differ(end.get(key, MISSING), value)}
        self._record(slot, {**changes, **{key: MISSING for key in end if key not in document}})
        self._end = document

    def _word(self, why: str) -> int:
        if why not in self._words:
            why = why if len(self._words) < WORDS_MAX else OTHER_WORD
            self._words += [why] * (why not in self._words)
        return self._words.index(why)

    def _slot(self, times: Times, word: int) -> int:
        slot = self.grid.add(*times)
        if slot == len(self._said):
            self._said.append(word)
            self._changed.append(0)
            return slot
        self._said.insert(slot, word)
        self._changed.insert(slot, 0)
        for column in self._columns.values():
            column.make_room(slot)
        self._raws = {place + (place >= slot): told for place, told in self._raws.items()}
        return slot

    def _record(self, slot: int, changes: Mapping[str, Any]) -> None:
        """The last slot changed these fields."""
        columns, code = self._columns, self._pool.code
        for key, value in changes.items():
            column = columns.get(key)
            if column is None:
                column = columns[key] = Column()
            column.codes.append(value if type(value) is int and LEAST <= value < -ELSE else code(value))
            column.slots.append(slot)
        keys = tuple(changes)
        number = self._set_numbers.get(keys)
        self._changed[slot] = self._number(keys) if number is None else number

    def _number(self, keys: tuple[str, ...]) -> int:
        number = self._set_numbers.get(keys)
        if number is None:
            number = self._set_numbers[keys] = len(self._sets)
            self._sets.append(keys)
        return number

    def _between(self, slot: int, document: Mapping[str, Any]) -> None:
        """A document that was written after its successor: it changes its fields, and the slot after it changes them back."""
        here, back = [], list(self._sets[self._changed[slot + 1]])
        for key in dict.fromkeys((*self._columns, *document)):
            column = self._columns.setdefault(key, Column())
            before, now = column.at(slot), self._pool.code(document.get(key, MISSING))
            if before == now:
                continue
            here.append(key)
            column.insert(slot, now)
            if key not in back:
                back.append(key)
                column.insert(slot + 1, before)
        self._changed[slot] = self._number(tuple(here))
        self._changed[slot + 1] = self._number(tuple(back))

    # ---- reading

    def __len__(self) -> int:
        return len(self._said)

    @property
    def answered(self) -> list[Stretch]:
        """The slots that hold a document."""
        return [each.span() for each in re.finditer(rb"\x00+", self._said)]

    @property
    def heard(self) -> list[Stretch]:
        """The slots in which anybody answered, whatever it was."""
        return [each.span() for each in re.finditer(rb"[\x00\x01]+", self._said)]

    def count(self, why: str | None, past: int | None = None) -> int:
        """How many slots, up to past, came to this; None: to a document."""
        return self._said.count(self._words.index(why), 0, past) if why in self._words else 0

    def slots(self, why: str) -> Iterator[int]:
        """Every slot that came to this."""
        word = self._words.index(why) if why in self._words else None
        slot = self._said.find(word) if word is not None else -1
        while slot >= 0 and word is not None:
            yield slot
            slot = self._said.find(word, slot + 1)

    @property
    def extras(self) -> Iterator[int]:
        """Every slot that is none of the grid."""
        return (each.start() for each in re.finditer(rb"\x01", self.grid.extra))

    def why(self, slot: int) -> str | None:
        """Why there is no document in a slot; None where there is one."""
        return self._words[self._said[slot]]

    def reasons(self) -> Iterator[str | None]:
        """The same of every slot, in time."""
        return map(self._words.__getitem__, self._said)

    def raw(self, slot: int) -> Any:
        """What an answer was that is no JSON object."""
        return self._raws.get(slot)

    def document(self, slot: int) -> dict[str, Any] | None:
        """The document of a slot."""
        return self._state(slot) if self._said[slot] == DOCUMENT else None

    def _state(self, slot: int) -> dict[str, Any]:
        """The fields in force at a slot."""
        found = {key: self._value(column.at(slot)) for key, column in self._columns.items()}
        return {key: value for key, value in found.items() if value is not MISSING}

    def _value(self, code: int) -> Any:
        return code if code >= LEAST else self._pool.value(code)

    def replay(self, first: int = 0, past: int | None = None) -> Iterator[tuple[int, dict[str, Any], tuple[str, ...] | None]]:
        """(slot, document, fields that changed) of every document, in time. It is one object that goes on changing. The
        fields are None where others may have changed as well, or some came or went."""
        past = len(self) if past is None else past
        current = self._state(first - 1) if first else {}
        following = {key: islice(column.codes, bisect_left(column.slots, first), None) for key, column in self._columns.items()}
        decoded, sets, unsure = self._pool.value, self._sets, True
        for slot, word, number in zip(range(first, past), islice(self._said, first, past),
                                      islice(self._changed, first, past), strict=False):
            keys = sets[number]
            for key in keys:
                code = next(following[key])
                if code >= LEAST:
                    unsure = unsure or key not in current
                    current[key] = code
                elif (value := decoded(code)) is MISSING:
                    unsure = unsure or key in current
                    current.pop(key, None)
                else:
                    unsure = unsure or key not in current
                    current[key] = value
            if word == DOCUMENT:
                yield slot, current, None if unsure else keys
                unsure = False
            elif number:
                unsure = True

    def told(self, first: int = 0, past: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """(slot, document) of every document, in time. What did not change is one object."""
        document: dict[str, Any] | None = None
        for slot, current, changed in self.replay(first, past):
            if document is None or changed is None or changed:
                document = dict(current)
            yield slot, document

    def values(self, path: str) -> Iterator[tuple[int, int, Any]]:
        """(first, past, value) of every stretch of slots in which the value at a path stood; MISSING where it leads nowhere."""
        key, dot, rest = path.partition(".")
        column = self._columns.get(key) or Column()
        begin, value = 0, MISSING
        for slot, code in zip(column.slots, column.codes, strict=True):
            if slot > begin:
                yield begin, slot, value
            found = self._value(code)
            begin, value = slot, look(found, rest) if dot and found is not MISSING else found
        if begin < len(self):
            yield begin, len(self), value

    def states(self, keys: Iterable[str]) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """(first, past, fields) of every stretch of slots in which these fields of the documents stood; a new dict each."""
        lanes = [zip(column.slots, repeat(key), column.codes, strict=False)
                 for key in sorted(set(keys)) if (column := self._columns.get(key)) is not None]
        changes: Iterable[tuple[int, str, int]] = merge(*lanes) if len(lanes) > 1 else chain.from_iterable(lanes)
        begin = 0
        fields: dict[str, Any] = {}
        for slot, key, code in changes:
            if slot > begin:
                yield begin, slot, fields
                begin, fields = slot, dict(fields)
            if (value := self._value(code)) is MISSING:
                fields.pop(key, None)
            else:
                fields[key] = value
        if begin < len(self):
            yield begin, len(self), fields


class Slots(Sequence[Sample]):
    """A track as samples, each made when it is looked at."""

    def __init__(self, track: Track) -> None:
        self._track = track

    def __len__(self) -> int:
        return len(self._track)

    @overload
    def __getitem__(self, which: int) -> Sample: ...
    @overload
    def __getitem__(self, which: slice) -> list[Sample]: ...
    def __getitem__(self, which: int | slice) -> Sample | list[Sample]:
        if isinstance(which, slice):
            return [self[slot] for slot in range(*which.indices(len(self)))]
        slot = range(len(self))[which]
        return self._sample(slot, self._track.document(slot))

    def __iter__(self) -> Iterator[Sample]:
        told = self._track.told()
        for slot, why in enumerate(self._track.reasons()):
            yield self._sample(slot, next(told)[1] if why is None else None)

    def _sample(self, slot: int, document: Document | None) -> Sample:
        track, grid = self._track, self._track.grid
        return Sample(track.surface, grid.due[slot], grid.asked[slot], grid.answered[slot], document, track.why(slot),
                      track.raw(slot), bool(grid.extra[slot]))


# ---- stretches --------------------------------------------------------------------------------------------


def within(one: Iterable[Stretch], other: Iterable[Stretch]) -> list[Stretch]:
    """The slots in both; each in order."""
    return [(first, past) for first, past, _ in clipped(((*each, None) for each in one), other)]


def without(one: Iterable[Stretch], other: Iterable[Stretch]) -> list[Stretch]:
    """The slots of one that are not in the other; each in order."""
    found, cuts = [], list(other)
    place = 0
    for first, past in one:
        while place < len(cuts) and cuts[place][1] <= first:
            place += 1
        begin, cut = first, place
        while cut < len(cuts) and cuts[cut][0] < past:
            if cuts[cut][0] > begin:
                found.append((begin, cuts[cut][0]))
            begin = max(begin, cuts[cut][1])
            cut += 1
        if begin < past:
            found.append((begin, past))
    return found


def clipped(pieces: Iterable[tuple[int, int, Any]], stretches: Iterable[Stretch]) -> Iterator[tuple[int, int, Any]]:
    """What of the pieces lies in some stretch; each in order. A stretch may be empty."""
    cuts = iter(stretches)
    low, high = next(cuts, (0, -1))
    for first, past, value in pieces:
        while high >= 0:
            if high <= first or high <= low:
                low, high = next(cuts, (0, -1))
                continue
            if low >= past:
                break
            yield max(first, low), min(past, high), value
            if high >= past:
                break
            low, high = next(cuts, (0, -1))


def elsewhere_none(pieces: Iterable[tuple[int, int, Any]], stretches: Sequence[Stretch],
                   size: int) -> Iterator[tuple[int, int, Any]]:
    """Every one of so many slots: what the pieces say in the stretches, and None outside of them."""
    outside = iter(without([(0, size)] * (size > 0), stretches))
    gap = next(outside, None)
    for piece in clipped(pieces, stretches):
        while gap is not None and gap[0] < piece[0]:
            yield *gap, None
            gap = next(outside, None)
        yield piece
    while gap is not None:
        yield *gap, None
        gap = next(outside, None)
