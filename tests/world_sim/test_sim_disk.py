"""What the simulated disk holds when, and what a crash leaves of it."""

from __future__ import annotations

from random import Random

import pytest

from harness.world.sim.clock import MS, Agenda
from harness.world.sim.disk import Disk
from harness.world.sim.room import PAGE_BYTES
from system_under_test.machine import SWAP_PLAN, Append, Done, Durable, Failed, Look, Replace, Seen


class Desk:
    """A disk with somebody who writes down what it says."""

    def __init__(self, seed: int = 1, piped: tuple[str, ...] = ("ledger",)) -> None:
        self.agenda = Agenda()
        self.said: list[object] = []
        self.remarks: list[str] = []
        self.disk = Disk(self.agenda, Random(seed), piped, self.said.append, lambda kind, fields: self.remarks.append(kind))
        self.seq = 0

    def append(self, count: int, log: str = "ledger") -> None:
        for _ in range(count):
            self.seq += 1
            self.disk.append(Append(log, self.seq, b'{"n": %d}' % self.seq))

    def run(self, ms: int) -> None:
        self.agenda.run_to(self.agenda.now_us + ms * MS)

    def got(self, kind: type) -> list:
        return [value for value in self.said if isinstance(value, kind)]

    def records(self, log: str = "ledger") -> int:
        return len(self.disk.image()[log].records)


def test_what_is_written_becomes_durable_in_groups() -> None:
    """One sync covers all that was written when it began; the next one the rest."""
    desk = Desk()
    desk.append(1)
    desk.append(9)
    desk.run(10)
    assert [each.seq for each in desk.got(Durable)] == [1, 10]


def test_a_stall_fails_nothing_and_makes_nothing_durable() -> None:
    """Healing brings everything, in order."""
    desk = Desk()
    desk.disk.inject("f", "stall", None)
    desk.append(30)
    desk.run(5_000)
    assert desk.said == [] and desk.disk.waiting == 30
    desk.disk.heal("f")
    desk.run(10)
    assert desk.got(Durable)[-1].seq == 30
    assert desk.records() == 30


def test_a_crash_during_a_stall_takes_what_was_in_the_pipe() -> None:
    """The writer process dies with the node; what it had not written was never on the disk."""
    desk = Desk()
    desk.append(3)
    desk.run(10)
    desk.disk.inject("f", "stall", None)
    desk.append(5)
    desk.disk.crash()
    desk.disk.heal("f")
    desk.run(10)
    assert desk.records() == 3
    assert desk.disk.waiting == 0


def test_a_crash_alone_loses_nothing_that_was_written() -> None:
    """kill -9 never loses what the kernel has."""
    desk = Desk()
    desk.append(5)
    desk.disk.crash()
    assert desk.records() == 5
    desk.run(10)
    assert desk.got(Durable) == []


@pytest.mark.parametrize(("kind", "why"), [("refuse", "EFBIG"), ("read_only", "EROFS")])
def test_a_refused_record_is_told_once_and_tried_until_it_succeeds(kind: str, why: str) -> None:
    """The head of the line is retried, order is kept, refusals are counted."""
    desk = Desk()
    desk.disk.inject("f", kind, None)
    desk.append(4)
    desk.run(1_000)
    assert [(each.op.seq, each.why) for each in desk.got(Failed)] == [(1, why)]
    assert desk.disk.refusals >= 15 and desk.remarks == ["shell.append_refused"]
    desk.disk.heal("f")
    desk.run(10)
    assert desk.got(Durable)[-1].seq == 4
    assert desk.records() == 4


def test_a_log_without_a_writer_is_refused_for_good() -> None:
    """The process that writes it is told of each record and does not try again."""
    desk = Desk(piped=())
    desk.disk.inject("f", "refuse", None)
    desk.append(2, "books")
    desk.disk.heal("f")
    desk.run(100)
    assert [each.op.seq for each in desk.got(Failed)] == [1, 2]
    assert desk.got(Durable) == []


def test_a_slow_disk_takes_as_long_as_it_is_told() -> None:
    """The sync's own time is the amount."""
    desk = Desk()
    desk.disk.inject("f", "slow", 300)
    desk.append(1)
    desk.run(299)
    assert desk.got(Durable) == []
    desk.run(2)
    assert desk.got(Durable) == [Durable("ledger", 1)]


@pytest.mark.parametrize("seed", range(20))
def test_a_torn_tail_never_touches_a_durable_record(seed: int) -> None:
    """At most the record that was being written is cut, and the next start sees torn bytes."""
    desk = Desk(seed)
    desk.append(5)
    desk.run(10)
    desk.append(seed % 3)
    desk.disk.inject("f", "torn", None)
    desk.disk.crash()
    assert 5 <= desk.records() <= 5 + seed % 3
    assert desk.disk.image()["ledger"].torn_bytes > 0
    assert desk.disk.lost_bytes > 0
    desk.append(1)
    assert desk.disk.image()["ledger"].torn_bytes == 0


def test_unsynced_data_is_lost_by_the_seed_and_durable_data_never() -> None:
    """Some seeds lose much, some little, none more than was unsynced."""
    kept = []
    for seed in range(40):
        desk = Desk(seed)
        desk.append(3)
        desk.run(10)
        desk.disk.inject("slow", "slow", 1_000)
        desk.append(4)
        desk.disk.inject("f", "unsynced", None)
        desk.disk.crash()
        kept.append(desk.records())
    assert set(kept) == {3, 4, 5, 6, 7}


def test_a_file_is_replaced_whole_or_not_at_all() -> None:
    """Wherever the crash lies, the old content or the new one stands."""
    found = set()
    for at_us in range(0, 2_100, 50):
        desk = Desk()
        desk.disk.files["state"] = b"old"
        desk.disk.replace(Replace("state", b"new"))
        desk.agenda.run_to(at_us)
        desk.disk.crash()
        desk.run(10)
        found.add((desk.disk.files["state"], len(desk.got(Done))))
    assert found == {(b"old", 0), (b"new", 0), (b"new", 1)}


@pytest.mark.parametrize(("plan", "seen"), [
    (SWAP_PLAN, [b"older", b"new!"]),
    (("truncate", "write_half", "write"), [b"older", b"", b"ne", b"new!"]),
    (("write",), [b"older", b"new!r"]),
])
def test_a_plan_shows_what_its_steps_show(plan: tuple[str, ...], seen: list[bytes]) -> None:
    """Who renames shows the old or the new; who writes in place shows everything between, and what he forgot to cut off."""
    desk = Desk()
    desk.disk.files["state"] = b"older"
    desk.disk.replace(Replace("state", b"new!", plan))
    found = [desk.disk.files["state"]]
    for at_us in range(0, 200, 10):
        desk.agenda.run_to(at_us)
        if desk.disk.files["state"] != found[-1]:
            found.append(desk.disk.files["state"])
    assert found == seen and [each.file for each in desk.got(Done)] == ["state"]


def test_a_full_disk_leaves_what_is_written_in_place_cut_off() -> None:
    """The room is asked for at the step that needs it, not before the first."""
    for plan, left in ((SWAP_PLAN, b"old"), (("truncate", "write"), b"")):
        desk = Desk()
        desk.disk.files["state"] = b"old"
        desk.disk.fill("f", 1.0, False)
        desk.disk.replace(Replace("state", b"x" * 2 * PAGE_BYTES, plan))
        desk.run(10)
        assert [each.why for each in desk.got(Failed)] == ["ENOSPC"] and desk.disk.files["state"] == left


def test_looking_sees_the_disk_and_the_files() -> None:
    """The two sources of disk use agree at rest; a file that is not there says so."""
    desk = Desk()
    desk.disk.files["operator/note"] = b"hello"
    desk.disk.look(Look("disk_primary"))
    desk.disk.look(Look("disk_secondary"))
    desk.disk.look(Look("operator/note"))
    desk.disk.look(Look("nothing"))
    desk.run(1)
    primary, secondary, note, nothing = desk.got(Seen)
    assert primary.value == secondary.value and 0.3 <= float(primary.value) <= 0.6
    assert note.value == b"hello" and nothing.value is None


def test_a_full_disk_takes_what_fits_into_its_last_page() -> None:
    """Then it refuses, in order; the room given back, everything is written; no record is half there."""
    desk = Desk()
    desk.append(5)
    desk.run(10)
    assert desk.disk.fill("f", 1.0, False) > 0 and desk.disk.used_ratio > 0.999
    desk.append(400)
    desk.run(1_000)
    fitting = PAGE_BYTES // (len(b'{"n": 100}') + 10)
    assert fitting - 30 < desk.records() <= fitting + 30 and desk.disk.logs["ledger"].written_bytes <= PAGE_BYTES
    assert [(each.op.seq, each.why) for each in desk.got(Failed)] == [(desk.records() + 1, "ENOSPC")]
    desk.disk.replace(Replace("state", b"x"))
    desk.run(10)
    assert desk.got(Failed)[-1].why == "ENOSPC"
    desk.disk.heal("f")
    desk.run(10)
    assert desk.records() == 405 and desk.got(Durable)[-1].seq == 405


@pytest.mark.parametrize("unlinked", [False, True])
def test_what_fills_the_disk_is_seen_by_whom_it_should_be(unlinked: bool) -> None:
    """A file that is deleted and held open is counted by the file system and by nobody who adds up its files."""
    desk = Desk()
    at_rest = desk.disk.used_ratio
    desk.disk.fill("f", 0.93, unlinked)
    desk.append(1_000)
    for source in ("disk_primary", "disk_secondary"):
        desk.disk.look(Look(source))
    desk.run(10)
    first, second = (float(each.value) for each in desk.got(Seen))
    assert 0.93 <= first < 0.932
    assert 0.93 <= second < 0.932 if not unlinked else at_rest <= second < at_rest + 0.002
    desk.disk.heal("f")
    assert desk.disk.used_ratio == desk.disk.files_ratio == at_rest


def test_a_disk_that_is_fuller_already_gives_no_room() -> None:
    """Filling it to less takes nothing."""
    desk = Desk()
    assert desk.disk.fill("f", 0.1, False) == 0
