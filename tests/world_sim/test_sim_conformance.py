"""The simulated world obeys the law that all worlds share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from toy_world import toy_world

from harness.drill.model import LinkFault, RawToxic
from harness.world.conformance import TRIALS, check_world
from harness.world.sim.forces import Hand
from harness.world.sim.node import Node
from harness.world.sim.observe import FileSampler
from harness.world.sim.trap import Trap
from harness.world.sim.volume import Files
from harness.world.sim.wire import Link, Trouble


def test_sim_obeys_the_law_of_worlds_and_refuses_nothing(tmp_path: Path) -> None:
    """Every trial lands, shows itself and heals in the sim."""
    assert check_world(lambda folder, placebo: toy_world(folder, placebo=placebo), tmp_path) == ()


def test_the_law_catches_a_stall_that_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A world whose stalls are marked but not applied is told so by the witnesses."""
    monkeypatch.setattr(Link, "_note_stalls", lambda self: None)
    with pytest.raises(AssertionError, match="stall: its witnesses do not show"):
        check_world(lambda folder, placebo: toy_world(folder, placebo=placebo), tmp_path)


def test_the_law_catches_a_link_that_only_notes_its_troubles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trial of a link is refuted by its witnesses where the troubles are accepted, shown, and do nothing."""
    troubled(monkeypatch, lambda trouble: replace(trouble, effect="none"))
    with pytest.raises(AssertionError) as caught:
        check_world(lambda folder, placebo: toy_world(folder, placebo=placebo), tmp_path)
    for id in (trial.id for trial in TRIALS if isinstance(trial.force, LinkFault | RawToxic)):
        assert f"- {id}: its witnesses do not show" in str(caught.value)


def test_the_law_catches_a_delay_of_a_fifth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traffic takes a few milliseconds of itself, and what the trial before held back comes very late: neither is a delay."""
    troubled(monkeypatch, lambda each: replace(each, amount=each.amount // 5) if each.effect == "delay" else each)
    with pytest.raises(AssertionError) as caught:
        check_world(lambda folder, placebo: toy_world(folder, placebo=placebo), tmp_path)
    for id in ("delay", "toxic"):
        assert f"- {id}: its witnesses do not show" in str(caught.value)


def troubled(monkeypatch: pytest.MonkeyPatch, otherwise: Callable[[Trouble], Trouble]) -> None:
    """Every trouble of a link becomes another one."""
    inject = Link.inject
    monkeypatch.setattr(Link, "inject", lambda self, id, trouble: inject(self, id, otherwise(trouble)))


def test_the_law_catches_a_black_hole_that_closes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Healing a drop closes its connections, as the real proxy does; a world that keeps them open is caught."""
    monkeypatch.setattr(Link, "_close_all", lambda self, why: None)
    with pytest.raises(AssertionError, match="drop: the client's documents do not show it"):
        check_world(lambda folder, placebo: toy_world(folder, placebo=placebo), tmp_path)


def test_the_law_catches_a_trap_that_never_springs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash point that is armed and passed by is told so, for every meaning."""
    monkeypatch.setattr(Trap, "springs", lambda self, value, step=None: False)
    with pytest.raises(AssertionError) as caught:
        check_world(lambda folder, placebo: toy_world(folder, placebo=placebo), tmp_path)
    for id in ("kill_before", "kill_before_send", "kill_before_replace", "kill_before_request",
               "kill_inside_write_temporary", "kill_inside_rename"):
        assert f"{id}: its witnesses do not show" in str(caught.value)


def test_the_law_catches_a_trap_that_knows_no_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever dies before the value that is to be carried out has not died inside of it."""
    monkeypatch.setattr(Node, "dies_before", lambda self, value, step: False)
    with pytest.raises(AssertionError) as caught:
        check_world(lambda folder, placebo: toy_world(folder, placebo=placebo), tmp_path)
    assert "kill_inside_rename: its witnesses do not show" in str(caught.value)
    assert "kill_before_replace" not in str(caught.value)


def test_the_law_catches_a_hand_that_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said to be written, cut or taken away is read back."""
    write = Hand.write
    monkeypatch.setattr(Hand, "write", lambda self, _=None: write(self) if self._force.file == "shared/note.json" else None)
    monkeypatch.setattr(Files, "pop", lambda self, file, default=None: self.get(file, default))
    with pytest.raises(AssertionError) as caught:
        check_world(lambda folder, placebo: toy_world(folder, placebo=placebo), tmp_path)
    for id in ("overwrite", "overwrite_in_place", "remove"):
        assert f"{id}: its witnesses do not show" in str(caught.value)


def test_the_law_catches_a_watcher_that_waits_for_the_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes that nobody tells, and contents that are seen half a second late."""
    monkeypatch.setattr(FileSampler, "_heard", lambda self, how, data: None)
    with pytest.raises(AssertionError) as caught:
        check_world(lambda folder, placebo: toy_world(folder, placebo=placebo), tmp_path)
    for said in ("note_appears: nobody looked before the grid", "note_removed: one change was made, and 0 are told"):
        assert said in str(caught.value)


def test_the_law_catches_a_watcher_that_takes_all_for_replacing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cannot tell a write in place from a file that was put there whole is no witness of either."""
    tell = Files._tell
    monkeypatch.setattr(Files, "_tell", lambda self, file, how, data: tell(self, file, "replaced", data))
    with pytest.raises(AssertionError) as caught:
        check_world(lambda folder, placebo: toy_world(folder, placebo=placebo), tmp_path)
    for id in ("note_appears", "note_in_place", "note_removed"):
        assert f"{id}: the file should be told to be" in str(caught.value)


def test_the_law_catches_a_clock_that_is_set_to_another_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute late is late, whatever was marked."""
    wall_ms = Node.wall_ms
    monkeypatch.setattr(Node, "wall_ms", lambda self: wall_ms(self) + 60_000)
    with pytest.raises(AssertionError, match="clock_to: its witnesses do not show"):
        check_world(lambda folder, placebo: toy_world(folder, placebo=placebo), tmp_path)
