"""State and document of a service: every combination against the judge's tables, and market hours to the millisecond."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest

from harness.contracts.ops_status import Contract
from system_under_test.machine import Seen
from system_under_test.services import hours, status
from system_under_test.services.status import Facts, Identity
from system_under_test.services.switch import FILE, FileSwitch

CONTRACT = Contract.load()
NEW_YORK = hours.new_york()
NOON = 1_763_740_800_000       # 2025-11-21T16:00:00Z, a Friday


def identity(kind: str = "marketdata", **more: Any) -> Identity:
    return Identity(**{"service_name": f"a-{kind}", "service_kind": kind, "repo_id": "here", "git_sha": None, "build_id": None,
                       "agent_name": "agent", "agent_role": kind, "agent_mode": "OBSERVE", **more})


def facts(**more: Any) -> Facts:
    return Facts(**{"wall_ms": NOON, "beat_age_ms": 0, "beat_ttl_s": 60, "calendar": "continuous", "market_is_open": True,
                    "kill_switch_by": (), "tick_age_ms": 0, "stale_threshold_s": 120, **more})


TICKS = (None, -1_001, -1_000, 0, 120_000, 120_001, 10**9)
BEATS = (0, 60_000, 60_001)
SWITCHES: tuple[tuple[str, ...], ...] = ((), ("file",), ("unreadable_file", "trader_unknown"))
HOURS = (("continuous", True), ("closed", False), ("nowhere", None))
OFF = tuple(product((None, True, False), (None, -1, 0, 1)))


@pytest.mark.parametrize("kind", status.KINDS)
def test_every_combination_is_what_the_judge_s_tables_say(kind):
    """Straight-line code and declared tables, written apart, agree on every document."""
    ticks = TICKS if kind in status.WATCHERS else (None,)
    for named, tick, beat, switch, (calendar, is_open), (enabled, replicas) in product(
            (True, False), ticks, BEATS, SWITCHES, HOURS, OFF if kind == "execution" else ((None, None),)):
        told = facts(tick_age_ms=tick, beat_age_ms=beat, kill_switch_by=switch, calendar=calendar, market_is_open=is_open,
                     execution_enabled=enabled, execution_replicas=replicas)
        document = status.document(identity(kind, agent_name="agent" if named else ""), told)
        assert CONTRACT.check(status.encoded(document)) == [], document


@pytest.mark.parametrize("missing", ["service_name", "repo_id", "agent_name"])
def test_a_field_that_is_missing_makes_the_document_unknown(missing):
    """Nothing else decides then, not even the kill switch."""
    said = status.state_of(identity(**{missing: ""}), facts(kill_switch_by=("file",)))
    assert said == ("UNKNOWN", "REQUIRED_FIELDS_MISSING")


def test_what_is_not_known_is_never_safe():
    """Without a tick, without a calendar, without a name: strategies may not run, and the reasons say why."""
    for told, who in ((facts(tick_age_ms=None), identity()), (facts(market_is_open=None), identity()),
                      (facts(), identity(agent_name=""))):
        reasons, safe = status.gates(who, told)
        assert reasons and not safe


def test_a_clock_beyond_all_calendars_is_written_as_the_nearest():
    """A time stamp is always one, whatever the clock says."""
    assert status.stamp(-5) == "1970-01-01T00:00:00Z"
    assert status.stamp(10**18) == "9999-12-31T23:59:59Z"
    assert hours.is_open("nyse", 10**18, NEW_YORK) is None


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000)


@pytest.mark.parametrize(("when", "is_open"), [
    ("2026-11-20T14:29:59.999", False),      # winter: New York is five hours behind
    ("2026-11-20T14:30:00.000", True),
    ("2026-11-20T21:00:00.000", True),
    ("2026-11-20T21:00:00.001", False),
    ("2026-07-17T13:29:59.999", False),      # summer: four
    ("2026-07-17T13:30:00.000", True),
    ("2026-07-17T20:00:00.000", True),
    ("2026-07-17T20:00:00.001", False),
    ("2026-03-09T13:30:00.000", True),       # the Monday after the clocks went forward
    ("2026-11-02T14:29:59.999", False),      # and after they went back
    ("2026-11-21T16:00:00.000", False),      # a Saturday
    ("2026-11-22T16:00:00.000", False),
    ("2026-12-25T16:00:00.000", True),       # holidays are none of the source's business
])
def test_new_york_s_hours_hold_both_ends(when, is_open):
    """Monday to Friday, 09:30 to 16:00, both ends included, in the zone's own time."""
    assert hours.is_open("nyse", at(when), NEW_YORK) is is_open


def test_a_calendar_that_cannot_be_asked_is_neither_open_nor_closed():
    """No rules of the zone, an unknown name, a file that names none."""
    assert hours.is_open("nyse", NOON, None) is None
    assert hours.is_open("lse", NOON, NEW_YORK) is None
    for seen in (b"", b"\xff\xfe", b"[]", b'{"calendar": 7}', b'{"calendar": ""}', b'{"calender": "nyse"}', b"nyse"):
        assert hours.is_open(hours.named(seen), NOON, NEW_YORK) is None
    assert hours.named(b'{"calendar": "nyse"}') == "nyse"


@pytest.mark.parametrize(("value", "why", "by"), [
    (None, "FileNotFoundError: no such file", None),
    (None, "FileNotFoundError", None),
    (None, "PermissionError: no", "unreadable_file"),
    (None, "IsADirectoryError: a folder", "unreadable_file"),
    (None, "FileError: EXECUTION_HALTED is larger than 1048576 bytes", "unreadable_file"),
    (b"\xff\xfe1", "", "unreadable_file"),
    (b"1", "", "file"), (b"true", "", "file"), (b" YES \n0", "", "file"), (b"On\r\n", "", "file"),
    (b"0", "", None), (b"maybe", "", "unreadable_file"), (b"ture", "", "unreadable_file"), (b"\x00\x00", "", "unreadable_file"),
    (b"", "", None), (b"off\non", "", None), (b"\n1", "", None),
])
def test_the_kill_switch_s_file(value, why, by):
    """The first line decides; absent is off, and what cannot be read is on."""
    switch = FileSwitch()
    assert switch.on                         # before anybody has looked
    switch.seen(Seen(FILE, value, why))
    assert switch.by == by
