"""Drawdown: its states by the source's table, what a restart remembers, and when a state flaps."""

from __future__ import annotations

import random

import orjson
import pytest
from risk_kit import START, Room, approx, kept, notes, settings, turn

from system_under_test.trader.report.drawdown import FILE, Drawdown
from system_under_test.trader.report.risk_snapshot import FILE as SNAPSHOT

DAY_MS = 86_400_000


def walked(*navs: float, **overrides: object) -> tuple[Drawdown, list[str]]:
    """The states that a series of values is told with."""
    drawdown, states = Drawdown(settings(**overrides)), []
    for number, nav in enumerate(navs):
        at = turn(START + number * 1_000)
        drawdown.take(at, nav)
        states.append(drawdown.state)
        drawdown.landed(at)
    return drawdown, states


def test_the_states_by_hand():
    """Ten per cent is a drawdown, equality included; on the way back it is a recovery; at the peak all is well."""
    _, states = walked(100.0, 91.0, 90.0, 95.0, 99.999, 100.0, 95.0)
    assert states == ["NORMAL", "NORMAL", "DRAWDOWN", "RECOVERY", "RECOVERY", "NORMAL", "NORMAL"]


def test_a_recovery_may_fail():
    """From recovery back into drawdown, and the peak is still the old one."""
    drawdown, states = walked(100.0, 85.0, 95.0, 89.0)
    assert states[1:] == ["DRAWDOWN", "RECOVERY", "DRAWDOWN"] and drawdown.peak == 100.0


@pytest.mark.parametrize("seed", range(10))
def test_against_the_table(seed):
    """A random walk of values against the source's rule, written down once more: peak, share and state."""
    luck = random.Random(seed)
    navs = [100.0]
    navs += [navs[-1] * luck.uniform(0.9, 1.11) for _ in range(60)]
    drawdown, states = walked(*navs)
    before = "NORMAL"
    for number, state in enumerate(states):
        lost = 1 - navs[number] / max(navs[:number + 1])
        before = ("DRAWDOWN" if lost >= 0.1 else "RECOVERY" if lost > 1e-12 and before in ("DRAWDOWN", "RECOVERY")
                  else "NORMAL")
        assert state == before, number
    assert drawdown.peak == max(navs) and drawdown.pct == approx(1 - navs[-1] / max(navs))


def test_a_loss_beyond_everything_is_everything():
    """An account below zero has lost all of it, not more: a fraction stays one."""
    drawdown, states = walked(100.0, -20.0)
    assert drawdown.pct == 1.0 and states[-1] == "DRAWDOWN" and drawdown.broken


def test_the_day_s_loss_is_of_the_day():
    """Counted from the day's first value (UTC); a new day begins anew, a gain is none."""
    drawdown = Drawdown(settings())
    for ts, nav, loss in ((START, 100.0, 0.0), (START + 1, 95.0, 0.05), (START + 2, 104.0, 0.0), (START + DAY_MS, 52.0, 0.0),
                          (START + DAY_MS + 1, 39.0, 0.25)):
        drawdown.take(turn(ts), nav)
        assert drawdown.daily_loss == approx(loss)


# ---- flapping ----


def test_more_than_so_many_changes_flap():
    """Three changes are none, the fourth is, and is counted in the very snapshot that tells it."""
    room = Room(dd_flap_changes_max=3)
    told = room.equities(10.0, 8.9, 9.5, 8.9, 9.5)
    assert [each["dd_state"]["state"] for each in told] == ["NORMAL", "DRAWDOWN", "RECOVERY", "DRAWDOWN", "RECOVERY"]
    assert ["dd_flap" in each["anomalies"] for each in told] == [False] * 4 + [True]
    assert told[-1]["anomalies"]["dd_flap"] == {"changes": 4, "window_s": room.settings.dd_flap_window_s, "changes_max": 3}


def test_changes_go_out_of_the_window_with_time():
    """A window's length after the first of four changes there are three, and no flap."""
    room = Room(dd_flap_window_s=20)
    room.equities(10.0, 8.9, 9.5, 8.9, 9.5)
    assert "dd_flap" in room.publish(17_000, equity=9.5)["anomalies"]
    assert "dd_flap" not in room.publish(1_000, equity=9.5)["anomalies"]


# ---- what lasts ----


def test_the_peak_is_written_through():
    """At once for the first, again when it has risen by more than a hair or the state has changed; noise is not written."""
    drawdown = Drawdown(settings())
    at = turn()
    drawdown.take(at, 100.0)
    drawdown.landed(at)
    assert kept(at)[-1]["peak"] == 100.0
    at = turn(START + 1_000)
    drawdown.take(at, 100.005)
    drawdown.landed(at)
    assert kept(at) == []
    drawdown.take(at, 100.02)
    assert [each["peak"] for each in kept(at)] == [100.02]
    at = turn(START + 2_000)
    drawdown.take(at, 80.0)
    drawdown.landed(at)
    assert [each["state"] for each in kept(at)] == ["DRAWDOWN"]
    assert [(each.fields["from"], each.fields["to"]) for each in notes(at)] == [("NORMAL", "DRAWDOWN")]


def test_what_the_disk_refused_is_kept_later():
    """A failed write is tried again with the next publish."""
    drawdown = Drawdown(settings())
    drawdown.take(turn(), 100.0)
    drawdown.failed()
    at = turn(START + 1_000)
    drawdown.take(at, 100.0)
    assert len(kept(at)) == 1


def restored(memory: object, snapshot: object) -> Drawdown:
    """A new life over what an earlier one left."""
    room = Room()
    files = {FILE: memory, SNAPSHOT: snapshot}
    room.risk.restore({name: each if isinstance(each, bytes) else orjson.dumps(each)
                       for name, each in files.items() if each is not None})
    return room.drawdown


def snapshot(peak: float, state: str, nav: float, node: str = "trader") -> dict[str, object]:
    return {"nav": nav, "dd_state": {"state": state, "drawdown": {"peak": peak}}, "writer": {"node": node},
            "updated_ts": START / 1_000}


MEMORY = {"peak": 100.0, "state": "DRAWDOWN", "day": START // DAY_MS, "day_start": 99.0, "changes": [START - 5_000]}


@pytest.mark.parametrize(("memory", "told", "peak", "state"), [
    (MEMORY, snapshot(100.005, "DRAWDOWN", 80.0), 100.005, "DRAWDOWN"),     # the snapshot knows it to the cent
    (MEMORY, None, 100.0, "DRAWDOWN"),                                      # the surface is lost, the loss is not
    (MEMORY, b'{"nav": 80.0, "dd_st', 100.0, "DRAWDOWN"),                   # torn
    (MEMORY, snapshot(1e9, "DRAWDOWN", 80.0), 100.0, "DRAWDOWN"),           # claims what nobody ever saw
    (MEMORY, snapshot(100.005, "NORMAL", 80.0, "rogue"), 100.0, "DRAWDOWN"),  # not ours
    (None, snapshot(100.005, "RECOVERY", 95.0), 100.005, "RECOVERY"),
    (b"\x00\xff", snapshot(100.0, "RECOVERY", 95.0), 100.0, "RECOVERY"),
    (b'{"peak": "high", "state": 7, "changes": [true, null, "x"], "day": [], "day_start": {}}', None, 0.0, "NORMAL"),
    (b"[]", b"[1]", 0.0, "NORMAL"),
    (None, None, 0.0, "NORMAL"),
])
def test_a_restart_forgives_nothing(memory, told, peak, state):
    """Peak and state outlive the process, the loss of the surface, and what others write into it."""
    drawdown = restored(memory, told)
    assert (drawdown.peak, drawdown.state, drawdown.told_state) == (peak, state, state)


def test_a_restart_goes_on_where_it_stopped():
    """In recovery before and after; its first value is compared with the last that was told; the day's start is known."""
    drawdown = restored({**MEMORY, "state": "RECOVERY"}, snapshot(100.0, "RECOVERY", 95.0))
    assert drawdown.told_nav == 95.0
    drawdown.take(turn(), 96.0)
    assert (drawdown.state, drawdown.daily_loss) == ("RECOVERY", approx(3 / 99))


def test_a_change_that_was_told_and_not_remembered_counts():
    """The snapshot landed, the crash came before the memory of it: the change is among those that flap."""
    assert restored(MEMORY, snapshot(100.0, "RECOVERY", 95.0)).changes(START) == 2


def test_before_the_first_value_the_circuit_breaker_holds():
    """A life that has not yet asked its account knows from the last one how much is lost."""
    assert restored(MEMORY, snapshot(100.0, "DRAWDOWN", 80.0)).broken
    assert not restored(MEMORY, snapshot(100.0, "RECOVERY", 95.0)).broken
