"""When the market is open: a zone's own time, both ends inclusive to the microsecond, across changes of the clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from freezegun import freeze_time
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.contracts.ops_status import Contract, table
from harness.contracts.ops_status.table import Calendars, calendars_of, instant
from harness.errors import SpecError

CALENDARS = calendars_of()
NEW_YORK = ZoneInfo("America/New_York")
TICK = timedelta(microseconds=1)


def is_open(at: str | datetime) -> bool | None:
    moment = datetime.fromisoformat(at) if isinstance(at, str) else at
    return CALENDARS.is_open("nyse", moment)


@pytest.mark.parametrize(("at", "open_"), [
    ("2026-11-20T14:29:59.999999Z", False), ("2026-11-20T14:30:00Z", True), ("2026-11-20T14:30:00.000001Z", True),
    ("2026-11-20T20:59:59.999999Z", True), ("2026-11-20T21:00:00Z", True), ("2026-11-20T21:00:00.000001Z", False),
    ("2026-11-21T15:00:00Z", False), ("2026-11-22T15:00:00Z", False), ("2026-11-23T15:00:00Z", True),
    ("2026-11-26T15:00:00Z", True),   # Thanksgiving: the source's code knows no holidays
    ("2026-11-20T03:00:00Z", False),  # a Thursday evening in New York, and a Friday elsewhere
])
def test_both_ends_belong_to_it(at: str, open_: bool) -> None:
    """09:30:00 and 16:00:00 in New York are open; a microsecond before and after is not."""
    assert is_open(at) is open_


@pytest.mark.parametrize(("friday", "monday"), [("2026-03-06", "2026-03-09"), ("2026-10-30", "2026-11-02")])
def test_the_bell_follows_the_clocks(friday: str, monday: str) -> None:
    """Around both changes of the clocks the bell rings at half past nine in New York, an hour elsewhere in UTC."""
    bells = [datetime.fromisoformat(f"{day}T09:30:00").replace(tzinfo=NEW_YORK).astimezone(UTC) for day in (friday, monday)]
    assert abs(bells[0].hour - bells[1].hour) == 1
    for bell in bells:
        assert (is_open(bell - TICK), is_open(bell)) == (False, True)
        close = bell + timedelta(hours=6, minutes=30)
        assert (is_open(close), is_open(close + TICK)) == (True, False)


@pytest.mark.parametrize("day", ["2026-03-08", "2026-11-01"])
def test_the_days_on_which_clocks_change_are_closed(day: str) -> None:
    """They are Sundays; every hour of them is there, also the one that comes twice and the one that never comes."""
    start = datetime.fromisoformat(f"{day}T00:00:00+00:00")
    assert not any(is_open(start + timedelta(minutes=15 * step)) for step in range(120))


@given(st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2090, 1, 1)))
@settings(max_examples=300, deadline=None)
def test_any_moment_is_asked_in_new_york(naive: datetime) -> None:
    """A naive time is UTC, and the zone in which a moment is written down does not matter."""
    local = naive.replace(tzinfo=UTC).astimezone(NEW_YORK)
    minutes = (local.hour * 60 + local.minute) * 60 + local.second + local.microsecond / 1e6
    wanted = local.weekday() < 5 and 34_200 <= minutes <= 57_600
    assert is_open(naive) is wanted
    assert is_open(naive.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=9)))) is wanted


@pytest.mark.parametrize(("now", "open_"), [
    ("2026-01-07T14:29:59.999999", False), ("2026-01-07T14:30:00", True), ("2026-01-07T21:00:00", True),
    ("2026-01-07T21:00:00.000001", False), ("2026-07-08T13:30:00", True), ("2026-07-08T20:00:00.000001", False)])
def test_what_a_service_says_of_frozen_hours(now: str, open_: bool) -> None:
    """A document computed at the frozen moment is lawful with the market's true hours, and with no other."""
    with freeze_time(now):
        document = closing_document(datetime.now(UTC))
    contract = Contract.load()
    assert document["inputs"]["market_is_open"] is open_ and contract.check(document) == []
    document["inputs"]["market_is_open"] = not open_
    assert "CALENDAR" in {each.tag for each in contract.check(document)}


def closing_document(now: datetime) -> dict[str, Any]:
    """What a healthy ingest says at a moment."""
    stamp, open_ = now.strftime("%Y-%m-%dT%H:%M:%SZ"), is_open(now)
    state = ("OK", "Healthy", []) if open_ else ("MARKET_CLOSED", "Market closed", ["MARKET_CLOSED"])
    return {
        "service_name": "ingest", "service_kind": "ingest", "repo_id": "drillproof",
        "agent_identity": {"agent_name": "ingest", "agent_role": "ingest", "agent_mode": "SERVICE"},
        "status": {"state": state[0], "summary": state[1], "reason_codes": state[2], "last_updated_utc": stamp},
        "heartbeat": {"last_heartbeat_utc": stamp, "age_seconds": 0.0, "ttl_seconds": 60}, "marketdata": None,
        "safety": {"kill_switch": False, "safe_to_run_strategies": True, "safe_to_execute_orders": False, "gating_reasons": []},
        "inputs": {"extension": "drillproof ops 1", "as_of_utc": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "calendar": "nyse",
                   "market_is_open": open_, "tick_age_seconds": None, "kill_switch_by": []}}


def test_what_cannot_be_asked_is_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an unknown name nor a zone without rules is taken for an open market, as the source's code does."""
    assert CALENDARS.is_open("lunar", datetime(2026, 1, 7, 15)) is None
    nowhere = Calendars({"calendars": {"x": {"zone": "Moon/Tranquility", "days": ["Monday"], "opens": "09:00:00",
                                             "closes": "10:00:00"}}})
    assert nowhere.is_open("x", datetime(2026, 1, 5, 9, 30)) is None
    monkeypatch.setattr(table, "ZoneInfo", no_rules)
    assert is_open("2026-01-07T15:00:00Z") is None


def no_rules(name: str) -> ZoneInfo:
    """As on a machine without the zones' rules."""
    raise ZoneInfoNotFoundError(name)


def test_the_plain_calendars() -> None:
    """A venue that never closes, and one that never opens."""
    at = datetime(2026, 1, 4, 3)
    assert (CALENDARS.is_open("continuous", at), CALENDARS.is_open("closed", at)) == (True, False)


@pytest.mark.parametrize("raw", [{}, {"calendars": {"x": {"zone": "UTC"}}}, {"calendars": {"x": {"always": "maybe"}}},
                                 {"calendars": {"x": {"zone": "UTC", "days": ["Funday"], "opens": "9", "closes": "10"}}}])
def test_a_calendar_that_says_nothing_is_refused(raw: dict[str, Any]) -> None:
    """A half-told calendar would be closed, or open, by luck."""
    with pytest.raises(SpecError):
        Calendars(raw)


@pytest.mark.parametrize(("text", "found"), [
    ("2026-01-07T12:00:00Z", datetime(2026, 1, 7, 12, tzinfo=UTC)),
    ("2026-01-07T12:00:00", datetime(2026, 1, 7, 12, tzinfo=UTC)),
    ("2026-01-07T14:00:00.5+02:00", datetime(2026, 1, 7, 12, 0, 0, 500_000, tzinfo=UTC)),
    ("2026-02-31T12:00:00Z", None), ("garbage", None), ("", None), (None, None), (1769440710, None), ("2026-01-07", None),
    ("0001-01-01T00:00:00+23:59", None), ("2026-01-07T12:00:00Z\n", None), ("२०२६-01-07T12:00:00Z", None),
    ("2026-W02-3T12:00:00Z", None), ("2026-01-07T24:00:00Z", None)])
def test_reading_a_time_stamp(text: object, found: datetime | None) -> None:
    """What names a moment is read as that moment, what does not is none; a time without a zone is UTC."""
    assert instant(text) == found
