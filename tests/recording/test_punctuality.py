"""Were we on time? Counted from recordings that are late in known ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.recording.punctuality import Punctuality, of_all, percentile, punctuality
from harness.recording.tape import Tape
from harness.recording.timeline import Timeline


def recorded(folder: Path, samples: list[tuple[int, int, int, str | None]], acts: list[tuple[str, int, int | None]],
             world: str = "local") -> Punctuality:
    """Of a tape with these samples (due, asked, answered, silence) and acts (step, begin, due)."""
    tape = Tape(folder)
    tape.head(world=world)
    for due, asked, answered, silence in samples:
        if silence is None:
            tape.sample("status", due, asked, answered, {"n": due})
        else:
            tape.silence("status", due, asked, answered, silence)  # type: ignore[arg-type]
    for number, (step, begin, due) in enumerate(acts):
        tape.act(f"a{number}", step, begin, begin + 3, {}, due)
    tape.seal("completed", {})
    return punctuality(Timeline.load(folder))


def test_requests_are_counted_by_their_upper_bound(tmp_path: Path) -> None:
    """Written as 9 ms late means less than 10 ms, so it is on time; written as 10 ms it may have been later."""
    samples = [(100, 100, 103, None), (150, 159, 160, None), (200, 210, 212, None), (250, 250, 252, "refused")]
    found = recorded(tmp_path, samples, [])
    assert found.requests == (1, 10, 11, 1) and found.requests_on_time == 0.75 and not found.kept
    assert found.answers == (3, 1, 2)


def test_a_slot_lost_by_our_own_lateness_is_a_late_request(tmp_path: Path) -> None:
    """The request due at 100 left at 160 only, so the slot at 150 was missed by us: it counts, with its lateness."""
    found = recorded(tmp_path, [(100, 160, 170, None), (150, 150, 150, "missed"), (200, 200, 201, None)], [])
    assert sorted(found.requests) == [1, 11, 61] and found.in_flight == 0


def test_a_slot_lost_to_a_slow_system_is_not_ours(tmp_path: Path) -> None:
    """The request due at 100 left in time and was answered at 170: the slot at 150 had no request of its own."""
    found = recorded(tmp_path, [(100, 100, 170, None), (150, 150, 150, "missed"), (200, 200, 201, None)], [])
    assert found.requests == (1, 1) and found.in_flight == 1 and found.kept


def test_faults_count_by_when_they_began(tmp_path: Path) -> None:
    """Only acts with a due time count; healing and stimuli are counted apart."""
    found = recorded(tmp_path, [], [("applied", 1002, 1000), ("applied", 2005, 2000), ("healed", 3020, 3000),
                                    ("started", 5, None), ("read_back", 2000, None)])
    assert found.faults == (3, 6) and found.others == (21,) and found.kept is False
    assert "99 % of 2 began within 6 ms" in found.says()[1]


def test_virtual_time_says_so(tmp_path: Path) -> None:
    """In the sim the grid is kept exactly, and no reader can take that for a measurement."""
    found = recorded(tmp_path, [(100, 100, 101, None)], [("applied", 1000, 1000)], world="sim")
    assert found.requests == (0,) and found.faults == (0,) and all("virtual time" in each for each in found.says())
    assert found.to_json()["virtual"] is True


def test_nothing_is_not_punctual(tmp_path: Path) -> None:
    """Without requests and due times there is nothing to say, and nothing is claimed."""
    found = recorded(tmp_path, [], [("applied", 7, None)])
    assert found.kept is None and found.says() == ("Requests: none was asked.", "Faults: none with a due time.")
    assert found.to_json()["requests"]["late_ms_p99"] is None


def test_sums_count_every_request_once() -> None:
    """The 99th percentile of all drills is not the mean of theirs."""
    one, other = Punctuality(False, (1,) * 198, 0, (), (1,), ()), Punctuality(False, (50, 60), 1, (), (9,), ())
    found = of_all([one, other])
    assert len(found.requests) == 200 and found.to_json()["requests"]["late_ms_p99"] == 1 and found.in_flight == 1
    assert found.faults == (1, 9) and not found.kept


@pytest.mark.parametrize(("values", "expected"), [([], None), ([7], 7), (list(range(1, 101)), 99), (list(range(1, 102)), 100)])
def test_the_percentile_is_a_value_that_was_seen(values: list[int], expected: int | None) -> None:
    """The smallest value that at least 99 of 100 do not exceed."""
    assert percentile(values) == expected


def test_a_share_is_never_rounded_up() -> None:
    """99,999 of 100,000 are not 100 %."""
    assert "99.99 %" in Punctuality(False, (1,) * 99_999 + (70,), 0, (), (), ()).says()[0]
