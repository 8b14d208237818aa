"""The sync process: what it takes from its source, what it keeps meanwhile, and what it remembers over a restart."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest

from system_under_test.machine import (
    SWAP_PLAN,
    Done,
    Exit,
    Failed,
    Look,
    Note,
    Now,
    Replace,
    Request,
    Response,
    Seen,
    Start,
    Stop,
    Timer,
    Value,
)
from system_under_test.sync import make

NAV, OWN = "state/nav.json", "state/nav_state.json"
ENVIRONMENT = {"NODE_NAME": "sync", "POLICY": '{"sync_interval_ms": 500}'}


def nav(seq: int = 1, usd: Any = 1_000.0, *, boot: int = 1, node: str = "trader", ts: float = 100.0, **more: Any) -> bytes:
    """A nav.json as the trader writes it."""
    return orjson.dumps({"nav": usd, "nav_usd": usd, "updated_ts": ts,
                         "writer": {"node": node, "boot": boot, "seq": seq}, **more})


class Bench:
    """A sync process with a disk of two files, beat by beat."""

    def __init__(self, own: bytes | None = None) -> None:
        self.files: dict[str, bytes | None] = {NAV: None, OWN: own}
        self.notes: list[tuple[str, dict[str, Any]]] = []
        self.writes: list[dict[str, Any]] = []
        self.full = False
        self.boot(1)

    def boot(self, boot: int) -> None:
        self.machine = make(ENVIRONMENT)
        self.now = 0
        self.give(Start(boot, 1))

    def give(self, value: Value) -> tuple[Value, ...]:
        out = self.machine.handle(Now(self.now, 1_000_000 + self.now), value)
        for each in out:
            self._carry(each)
        return out

    def _carry(self, value: Value) -> None:
        match value:
            case Look(source=name):
                self.give(Seen(name, self.files[name], "" if self.files[name] else "no such file"))
            case Replace() if self.full:
                self.give(Failed(value, "no space left"))
            case Replace(file=name, data=data, plan=plan):
                assert (name, plan) == (OWN, SWAP_PLAN)
                self.files[OWN] = data
                self.writes.append(orjson.loads(data))
                self.give(Done(name))
            case Note(kind=kind, fields=fields):
                self.notes.append((kind, dict(fields)))
            case Timer(at_ms=int(at)):
                self.due = at

    def beat(self, source: bytes | None, times: int = 1) -> dict[str, Any] | None:
        """The source as it lies there, some beats, and what the mirror then says."""
        self.files[NAV] = source
        for _ in range(times):
            self.now = self.due
            self.give(Timer("beat", self.due))
        own = self.files[OWN]
        return orjson.loads(own) if own else None


def told(document: dict[str, Any] | None) -> tuple[Any, ...]:
    assert document is not None
    return document["nav"], document["updated_ts"], document["stale"], document["source"]["condition"]


def test_it_mirrors_word_for_word() -> None:
    """Numbers, time and origin are the source's; the funds are made of it where it tells none."""
    shown = Bench().beat(nav(7, 600_000.25, ts=1795262400.25, boot=3))
    assert shown == {
        "nav": 600_000.25, "nav_usd": 600_000.25, "total_equity": 600_000.25, "drawdown": 0.0, "peak_equity": 600_000.25,
        "aum": {"futures": 600_000.25, "offexchange": {}, "total": 600_000.25}, "updated_ts": 1795262400.25,
        "stale": False, "source": {"surface": "nav", "node": "trader", "boot": 3, "seq": 7, "condition": "taken"},
        "writer": {"node": "sync", "boot": 1, "seq": 1}}
    assert Bench().beat(nav(aum={"total": 5.0}))["aum"] == {"total": 5.0}  # type: ignore[index]


def test_what_has_not_changed_is_not_written_again() -> None:
    """One write for each that the trader writes, however often it looks, and one every two seconds as a sign of life."""
    bench = Bench()
    bench.beat(nav(1), 4)
    bench.beat(nav(2), 4)
    assert [each["source"]["seq"] for each in bench.writes] == [1, 2]
    bench.beat(nav(2), 4)
    assert [each["source"]["seq"] for each in bench.writes] == [1, 2, 2]
    assert [each["writer"]["seq"] for each in bench.writes] == [1, 2, 3]


@pytest.mark.parametrize(("spoiled", "condition"), [
    (None, "missing"),
    (b"", "torn"),
    (nav(2)[:-20], "torn"),
    (b"[1]", "torn"),
    (nav(2).replace(b"1000.0", b"NaN"), "torn"),
    (nav(2, None), "unlawful"),
    (nav(2, "1000"), "unlawful"),
    (nav(2, True), "unlawful"),
    (orjson.dumps({"nav": 1.0, "nav_usd": 1.0, "writer": {"node": "trader", "boot": 1, "seq": 2}}), "unlawful"),
    (nav(2, 9.0, node="sync"), "foreign"),
    (orjson.dumps({"nav": 9.0, "nav_usd": 9.0, "updated_ts": 101.0}), "foreign"),
    (orjson.dumps({"nav": 9.0, "nav_usd": 9.0, "updated_ts": 101.0, "writer": {"node": "trader", "boot": 1}}), "foreign"),
    (nav(1, 9.0), "forged"),
    (nav(0, 9.0, ts=101.0), "forged"),
    (nav(9, 9.0, boot=0, ts=101.0), "forged"),
], ids=lambda value: value if isinstance(value, str) else None)
def test_the_last_known_good_stands(spoiled: bytes | None, condition: str) -> None:
    """Whatever is wrong with the source, the mirror keeps number and time, says that it is stale and why, and recovers."""
    bench = Bench()
    bench.beat(nav(1))
    assert told(bench.beat(spoiled)) == (1_000.0, 100.0, True, condition)
    assert told(bench.beat(nav(3, 1_001.0, ts=102.0))) == (1_001.0, 102.0, False, "taken")
    assert bench.notes == [("mirror_source", {"condition": each}) for each in ("missing", "taken", condition, "taken")]


def test_nothing_is_mirrored_before_there_was_anything() -> None:
    """Without a first lawful source there is no mirror: a zero would be a number."""
    assert Bench().beat(None, 3) is None
    assert Bench().beat(nav(1)[:-9], 3) is None


def test_a_stale_mirror_is_written_again_and_again() -> None:
    """Whoever removes it while the source is gone finds the last known good there again."""
    bench = Bench()
    bench.beat(nav(1))
    bench.beat(None)
    bench.files[OWN] = None
    assert told(bench.beat(None)) == (1_000.0, 100.0, True, "missing")


def test_a_silent_writer_makes_it_stale() -> None:
    """A source that stays as it is for four seconds is no lie, but it is not news either."""
    bench = Bench()
    assert told(bench.beat(nav(1), 8))[2:] == (False, "taken")
    assert told(bench.beat(nav(1), 2))[2:] == (True, "still")
    assert told(bench.beat(nav(2, ts=111.0)))[1:] == (111.0, False, "taken")


def test_drawdown_is_from_the_highest_there_was() -> None:
    """900 below a peak of 1,200 is a quarter, and over a restart it still is."""
    bench = Bench()
    falls = [bench.beat(nav(seq, usd))["drawdown"] for seq, usd in  # type: ignore[index]
             enumerate((1_000.0, 1_200.0, 900.0, 1_200.0, 900.0), 1)]
    assert falls == [0.0, 0.0, 0.25, 0.0, 0.25]
    bench.files[NAV] = None
    bench.boot(2)
    shown = bench.beat(nav(6, 600.0))
    assert shown is not None
    assert (shown["drawdown"], shown["peak_equity"], shown["writer"]) == (0.5, 1_200.0, {"node": "sync", "boot": 2, "seq": 2})


def test_after_a_restart_it_shows_what_it_knew() -> None:
    """With the source gone meanwhile, its own file is the last known good; a forged one is still told as such."""
    bench = Bench()
    bench.beat(nav(5))
    bench.boot(2)
    assert told(bench.beat(None)) == (1_000.0, 100.0, True, "missing")
    assert told(bench.beat(nav(4, 5.0))) == (1_000.0, 100.0, True, "forged")


@pytest.mark.parametrize("spoiled", [
    b"{", b"\xff\x00", b'{"nav": 1.0}', nav(1),
    orjson.dumps({"peak_equity": 1.0, "writer": {"node": "sync", "boot": 1, "seq": 1}}),
])
def test_a_corrupted_own_file_is_noted_and_replaced(spoiled: bytes) -> None:
    """It is not believed; the next lawful source makes it whole again."""
    bench = Bench(spoiled)
    assert bench.notes[0] == ("mirror_corrupted", {"bytes": len(spoiled)})
    assert bench.writes == []
    assert told(bench.beat(nav(2))) == (1_000.0, 100.0, False, "taken")


def test_a_full_disk_is_noted_once_and_tried_again() -> None:
    """What could not be written is written by the beat after there is room."""
    bench = Bench()
    bench.full = True
    bench.beat(nav(1), 3)
    bench.full = False
    assert told(bench.beat(nav(1))) == (1_000.0, 100.0, False, "taken")
    assert [kind for kind, _ in bench.notes] == ["mirror_source", "mirror_source", "mirror_refused"]


def test_one_write_at_a_time() -> None:
    """While a write has not been answered, the next waits, and shows the newest then."""
    bench = Bench()
    bench.files[NAV] = nav(1)
    machine, now = bench.machine, Now(0, 0)
    first = machine.handle(now, Seen(NAV, nav(1)))
    assert [type(each) for each in first] == [Note, Replace]
    assert machine.handle(now, Seen(NAV, nav(2))) == ()
    machine.handle(now, Done(OWN))
    (replace,) = machine.handle(now, Seen(NAV, nav(3)))
    assert isinstance(replace, Replace)
    assert orjson.loads(replace.data)["source"]["seq"] == 3


def test_the_mirror_is_never_ahead() -> None:
    """Whatever the trader's clock did, the mirror's time is one that the source has told, and its numbers go with it."""
    bench, said = Bench(), set()
    for seq, (ts, usd) in enumerate([(100.0, 5.0), (99.0, 6.0), (200.0, 7.0), (200.0, 8.0), (150.5, 9.0)], 1):
        said.add((ts, usd))
        for source in (nav(seq, usd, ts=ts), None, nav(seq, usd, ts=ts)[:-4]):
            shown = bench.beat(source)
            assert shown is not None
            assert (shown["updated_ts"], shown["nav"]) == (ts, usd)
            assert not math.isnan(shown["drawdown"])
    assert {(each["updated_ts"], each["nav"]) for each in bench.writes} == said


def test_it_answers_and_stops() -> None:
    """Readiness and clocks for the world, nothing else, and an orderly end."""
    bench = Bench()
    bench.now = 42

    def asked(method: str, target: str) -> tuple[int, Any]:
        (response,) = bench.give(Request("port#1", 1, method, target))
        assert isinstance(response, Response)
        return response.status, orjson.loads(response.body)

    assert asked("GET", "/healthz") == (200, {"ok": True, "node": "sync"})
    assert asked("GET", "/clock?x=1") == (200, {"mono_ms": 42, "wall_ms": 1_000_042})
    assert asked("POST", "/clock")[0] == 405
    assert asked("GET", "/")[0] == 404
    assert bench.give(Stop("SIGTERM"))[-1] == Exit(0)
