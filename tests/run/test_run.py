"""The life of a drill, driven against a scripted world that only writes down what it was told."""

from __future__ import annotations

import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.drill.model import Converge, Drill, Drop, Fault, Field, Given, Pause, Predicate, Stimulus
from harness.errors import NotApplied, NotHealed
from harness.recording.tape import Tape, read_lines
from harness.run import DAY_MS, LEAD_MS, Interrupted, run, steps
from harness.world import one_by_one

ACTIVE = Predicate((Field("status", "trading_mode", "equals", "Active"),))


class ScriptedWorld:
    """Obeys the protocol, keeps a diary, and fails where the script says so."""

    name = "scripted"

    def __init__(self, fails: dict[str, BaseException] | None = None, holds: tuple[bool, ...] = (True, True),
                 started_ms: int = 0) -> None:
        self.diary: list[str] = []
        self._fails = fails or {}
        self._holds = list(holds)
        self._started_ms = started_ms
        self._now = 0

    def _do(self, what: str) -> None:
        self.diary.append(what)
        if what in self._fails:
            raise self._fails.pop(what)

    def describe(self) -> dict[str, Any]:
        return {"world": self.name}

    def versions(self) -> dict[str, Any]:
        return {}

    def refuses(self, act: Any) -> str | None:
        return self._fails.get("refuses")  # type: ignore[return-value]

    def now_ms(self) -> int:
        return self._now

    def wall_ms(self) -> int:
        return self._started_ms + self._now

    def start(self, tape: Tape) -> None:
        self._do("start")

    def watch(self, surface: str, every_ms: int) -> None:
        self._do(f"watch {surface}")

    def carry_out(self, due_ms: int, acts: Any) -> None:
        self.advance_to(due_ms)
        one_by_one(self, acts)

    def press(self, stimulus: Stimulus) -> None:
        self._do(f"press {stimulus.id}")

    def inject(self, fault: Fault) -> None:
        self._do(f"inject {fault.id}")

    def heal(self, fault: Fault) -> None:
        self._do(f"heal {fault.id}")

    def advance_to(self, at_ms: int) -> None:
        self._now = max(self._now, at_ms)

    def advance_until(self, predicate: Predicate, for_ms: int, by_ms: int) -> int | None:
        self._now += for_ms
        return self._now - for_ms if self._holds.pop(0) else None

    def interrupt(self, why: BaseException) -> bool:
        return False

    def stop(self) -> dict[str, Any]:
        self._do("stop")
        return {"books": {"n": 0, "sha256": "", "torn_bytes": 0}}


def drill(*faults: Fault, stimuli: tuple[Stimulus, ...] = ()) -> Drill:
    """A drill of these faults over a status that is Active before and after."""
    return Drill(name="toy", title="", proves=(), why="", sample={"status": 50}, given=Given(ACTIVE, 1000, 5000),
                 faults=faults, stimuli=stimuli, promises=(), golden=None, converge=Converge(ACTIVE, 5000, 1000))


ONE = Fault("one", 0, 1000, Pause("trader"))
TWO = Fault("two", 500, 1000, Pause("exchange"))


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in read_lines(folder / "recording.jsonl.gz") if line["line"] == kind]


def conduct(world: ScriptedWorld, what: Drill, folder: Path) -> str:
    return run(what, world, Tape(folder), {"drill": {"name": "toy"}}, lambda _word, _facts: None).status


def test_a_drill_runs_top_to_bottom(tmp_path: Path) -> None:
    """Watch, start, inject and heal in time order, stop, and a seal that says completed."""
    world = ScriptedWorld()
    assert conduct(world, drill(ONE, TWO), tmp_path) == "completed"
    assert world.diary == ["watch status", "start", "inject one", "inject two", "heal one", "heal two", "stop"]
    assert [mark["name"] for mark in lines(tmp_path, "mark")] == ["started", "given", "healed", "converge", "stopped"]
    assert lines(tmp_path, "seal")[0]["status"] == "completed"


@pytest.mark.parametrize(("before_midnight_ms", "waits"), [(8_000, True), (8_700, False), (500, False)])
def test_a_drill_of_one_day_waits_for_the_next_one_where_this_one_would_end_in_it(tmp_path: Path, before_midnight_ms: int,
                                                                                 waits: bool) -> None:
    """It lasts for at most 7.5 s once its given has held for 1 s; a midnight before that is none of its own."""
    usual = drill(ONE, TWO)
    one_day = replace(usual, given=replace(usual.given, one_day=True))
    for what, name, waiting in ((usual, "usual", False), (one_day, "one_day", waits)):
        world = ScriptedWorld(holds=(True,) * (2 + waiting), started_ms=3 * DAY_MS - before_midnight_ms)
        assert conduct(world, what, tmp_path / name) == "completed"
        given = next(mark for mark in lines(tmp_path / name, "mark") if mark["name"] == "given")
        assert (given["begin"] > before_midnight_ms) is waiting


def test_the_steady_state_must_be_there_on_the_next_day_too(tmp_path: Path) -> None:
    """Where it is not, nothing was broken: the run is aborted, as for any given that does not hold."""
    usual = drill(ONE)
    world = ScriptedWorld(holds=(True, False), started_ms=DAY_MS - 5_000)
    assert conduct(world, replace(usual, given=replace(usual.given, one_day=True)), tmp_path) == "aborted"
    assert world.diary == ["watch status", "start", "stop"]


def test_at_one_moment_what_ends_comes_first() -> None:
    """A heal precedes a press, which precedes an inject, at the same millisecond."""
    press = Stimulus("press", 1000, Drop("trader", "operator/x.json"))
    found = steps(drill(ONE, Fault("next", 1000, 10, Pause("trader")), stimuli=(press,)))
    assert [(step.verb, step.thing.id) for step in found if step.at_ms == 1000] == [
        ("heal", "one"), ("press", "press"), ("inject", "next")]


def test_a_fault_that_was_not_applied_aborts_and_heals(tmp_path: Path) -> None:
    """NotApplied ends the run as aborted, with the earlier fault healed and the world stopped."""
    world = ScriptedWorld({"inject two": NotApplied("toxic not there")})
    assert conduct(world, drill(ONE, TWO), tmp_path) == "aborted"
    assert world.diary[-3:] == ["heal two", "heal one", "stop"]


def test_one_unhealable_fault_never_keeps_the_others(tmp_path: Path) -> None:
    """When healing one fails, the other is healed all the same, and the run is aborted."""
    world = ScriptedWorld({"inject two": NotApplied("no"), "heal two": NotHealed("stuck")})
    assert conduct(world, drill(ONE, TWO), tmp_path) == "aborted"
    assert "heal one" in world.diary and world.diary[-1] == "stop"


@pytest.mark.parametrize("moment", ["start", "inject one", "heal one", "stop"])
def test_an_interrupt_at_any_moment_leaves_a_sealed_tape(tmp_path: Path, moment: str) -> None:
    """Wherever the signal comes in, everything is healed, the world is stopped and the seal says interrupted."""
    world = ScriptedWorld({moment: Interrupted("SIGINT")})
    assert conduct(world, drill(ONE), tmp_path) == "interrupted"
    assert world.diary[-1] == "stop"
    assert ("inject one" in world.diary) <= ("heal one" in world.diary)
    assert lines(tmp_path, "seal")[0]["status"] == "interrupted"


def test_a_signal_that_a_library_swallows_is_heard_all_the_same(tmp_path: Path) -> None:
    """A bare ``except`` under a verb takes the exception away, but not the signal: the run ends before its next verb."""
    class Deaf(ScriptedWorld):
        def start(self, tape: Tape) -> None:
            with suppress(Interrupted):
                signal.raise_signal(signal.SIGTERM)
            super().start(tape)

    world = Deaf()
    assert conduct(world, drill(ONE), tmp_path) == "interrupted"
    assert "inject one" not in world.diary and world.diary[-1] == "stop"


@pytest.mark.parametrize("fails", ["heal one", "stop"])
def test_whoever_was_interrupted_stays_interrupted(tmp_path: Path, fails: str) -> None:
    """What could not be healed or stopped after a signal is told as well, and does not turn the run into an aborted one."""
    class Signalled(ScriptedWorld):
        def carry_out(self, due_ms: int, acts: Any) -> None:
            super().carry_out(due_ms, acts)
            signal.raise_signal(signal.SIGINT)

    assert conduct(Signalled({fails: NotHealed("stuck")}), drill(ONE), tmp_path) == "interrupted"
    assert lines(tmp_path, "seal")[0]["status"] == "interrupted"


@pytest.mark.parametrize("moment", ["start", "inject one", "heal one"])
def test_a_fault_of_our_own_is_told_after_everything_has_ended(tmp_path: Path, moment: str) -> None:
    """Whatever a world raises: what was injected is healed, the world is stopped, the tape sealed, the error told."""
    world = ScriptedWorld({moment: KeyError("our own")})
    with pytest.raises(KeyError, match="our own"):
        conduct(world, drill(ONE), tmp_path)
    assert world.diary[-1] == "stop"
    assert ("inject one" in world.diary) <= ("heal one" in world.diary)
    assert lines(tmp_path, "seal")[0]["status"] == "aborted"


def test_impatience_never_leaves_a_world_up(tmp_path: Path) -> None:
    """Signals that come while the world is stopping never cut the stopping short."""
    class Slow(ScriptedWorld):
        left = 5

        def stop(self) -> dict[str, Any]:
            if self.left:
                self.left -= 1
                raise Interrupted("SIGINT")
            return super().stop()

    world = Slow()
    assert conduct(world, drill(ONE), tmp_path) == "interrupted"
    assert world.diary[-1] == "stop"
    assert list(lines(tmp_path, "seal")[0]["streams"]) == ["books"]


def test_a_given_that_never_holds_injects_nothing(tmp_path: Path) -> None:
    """No steady state, no fault."""
    world = ScriptedWorld(holds=(False, True))
    assert conduct(world, drill(ONE), tmp_path) == "aborted"
    assert world.diary == ["watch status", "start", "stop"]


def test_a_refused_drill_starts_nothing(tmp_path: Path) -> None:
    """The whole drill is asked before anything starts."""
    world = ScriptedWorld({"refuses": "this world has no disk"})  # type: ignore[dict-item]
    assert conduct(world, drill(ONE), tmp_path) == "refused"
    assert world.diary == ["watch status"]
    assert lines(tmp_path, "seal")[0]["status"] == "refused"


def test_a_system_that_never_converges_still_completes(tmp_path: Path) -> None:
    """Not converging is for the judge: the run is completed and has no converge mark."""
    world = ScriptedWorld(holds=(True, False))
    assert conduct(world, drill(ONE), tmp_path) == "completed"
    assert "converge" not in [mark["name"] for mark in lines(tmp_path, "mark")]


def test_what_happens_at_one_moment_is_handed_over_at_once(tmp_path: Path) -> None:
    """Acts of one moment reach the world together and ahead of it, with their due time; zero lies ahead, too."""
    seen: list[tuple[int, int, list[tuple[str, str]]]] = []

    class Watching(ScriptedWorld):
        def carry_out(self, due_ms: int, acts: Any) -> None:
            seen.append((self.now_ms(), due_ms, [(verb, thing.id) for verb, thing in acts]))
            super().carry_out(due_ms, acts)

    world = Watching()
    assert conduct(world, drill(ONE, Fault("next", 1000, 500, Pause("exchange"))), tmp_path) == "completed"
    zero = next(mark["end"] for mark in lines(tmp_path, "mark") if mark["name"] == "given")
    assert [(due - zero, acts) for _, due, acts in seen] == [
        (0, [("inject", "one")]), (1000, [("heal", "one"), ("inject", "next")]), (1500, [("heal", "next")])]
    assert all(due - now == LEAD_MS for now, due, _ in seen)
