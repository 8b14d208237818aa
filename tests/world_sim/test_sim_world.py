"""The verbs of the simulated world: what they refuse, what they record, what they leave."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_world import STACK, started, toy_world

from harness.drill.model import (
    Call,
    Clock,
    Deploy,
    Disk,
    Fault,
    Field,
    Kill,
    LinkFault,
    Pause,
    Predicate,
    RawToxic,
    Stimulus,
    Switch,
)
from harness.errors import NotApplied, UsageError, WorldError
from harness.recording.tape import Tape, read_lines
from harness.world.sim import dice
from system_under_test.machine import Exit, Start

CONNECTED = Predicate((Field("status", "connected", "equals", True),))


class Stubborn:
    """Serves nothing, ends at once, or raises: as its name says."""

    def __init__(self, how: str) -> None:
        self.how = how

    def handle(self, now, value):
        if self.how == "raises":
            raise RuntimeError("on purpose")
        if self.how == "exits" and isinstance(value, Start):
            return (Exit(7),)
        return ()


def raises(environment):
    return Stubborn("raises")


def mute(environment):
    return Stubborn("mute")


def exits(environment):
    return Stubborn("exits")


def lines_of(folder: Path, kind: str) -> list[dict]:
    return [line for line in read_lines(folder / "recording.jsonl.gz") if line["line"] == kind]


@pytest.mark.parametrize(
    "force",
    [
        LinkFault("wires", "stall"),
        LinkFault("wire", "delay"),
        LinkFault("wire", "cut", "client"),
        RawToxic("wire", "latency", "upstream", {"latency": 1, "jitter": 1}),
        Kill("nobody"),
        Kill("client", build="unheard"),
        Kill("client", before=("whistle", "x", 1)),
        Deploy("client", "unheard"),
        Disk("client", "slow"),
        Switch("client", "mute"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(tmp_path: Path, force: object) -> None:
    """Before anything starts, with the reason."""
    assert toy_world(tmp_path).refuses(force)


@pytest.mark.parametrize(
    "force", [LinkFault("wire", "stall"), Kill("client", "next"), Pause("server"), Clock("client", -500, 100),
              Disk("client", "torn"), Switch("server", "mute")])
def test_what_can_be_done_is_not_refused(tmp_path: Path, force: object) -> None:
    """None means yes."""
    assert toy_world(tmp_path).refuses(force) is None


def test_a_stimulus_for_an_unknown_port_is_refused(tmp_path: Path) -> None:
    """The nearest name is offered."""
    assert "status" in toy_world(tmp_path).refuses(Stimulus("s", 0, Call("client", "statuss", "GET", "/")))


@pytest.mark.parametrize(("machine", "says"), [("raises", "RuntimeError: on purpose"), ("exits", "code 7"),
                                               ("mute", "not ready")])
def test_a_node_that_does_not_become_ready_fails_the_start(tmp_path: Path, machine: str, says: str) -> None:
    """The start says which node and why; stopping still works."""
    tape, world = Tape(tmp_path), toy_world(tmp_path, machines={"client": f"test_sim_world:{machine}"})
    with pytest.raises(WorldError, match=says):
        world.start(tape)
    world.stop()


def test_a_machine_that_raises_dies_and_leaves_its_traceback(tmp_path: Path) -> None:
    """Crash-only: exit 70, an act on the tape, the traceback in the run folder, silence from then on."""
    world, tape = started(tmp_path)
    world.advance_to(world.now_ms() + 500)
    world.nodes["client"]._machine = Stubborn("raises")
    world.advance_to(world.now_ms() + 500)
    tape.seal("completed", world.stop())
    exited = [line for line in lines_of(tmp_path, "act") if line["step"] == "exited"]
    assert [(line["id"], line["saw"]) for line in exited] == [("process.client", {"code": 70})]
    assert "RuntimeError: on purpose" in (tmp_path / "node-logs" / "client.log").read_text()
    assert lines_of(tmp_path, "sample")[-1]["silence"] == "refused"


def test_silence_says_why(tmp_path: Path) -> None:
    """Down after an act of ours, timeout and missed slots while paused."""
    world, tape = started(tmp_path)
    world.advance_until(CONNECTED, 100, 5_000)
    for id, force in (("k", Kill("client")), ("p", Pause("client"))):
        fault = Fault(id, 0, 3_000, force)
        world.inject(fault)
        world.advance_to(world.now_ms() + 3_000)
        world.heal(fault)
    tape.seal("completed", world.stop())
    marks = {line["name"]: line for line in lines_of(tmp_path, "mark")}
    reasons = {id: {line.get("silence") for line in lines_of(tmp_path, "sample")
                    if marks[id]["end"] < line["due"] <= line["answered"] < marks[f"{id}.healed"]["begin"]}
               for id in ("k", "p")}
    assert reasons == {"k": {"down"}, "p": {"timeout", "missed"}}


def test_a_crash_point_that_is_never_reached_is_said_to_have_missed(tmp_path: Path) -> None:
    """The mark spans from arming to healing, and the trap says no."""
    world, tape = started(tmp_path)
    fault = Fault("k", 0, 500, Kill("client", before=("send", "private/buy", 1)))
    world.inject(fault)
    begun = world.now_ms()
    world.advance_to(begun + 500)
    world.heal(fault)
    tape.seal("completed", world.stop())
    assert [line["value"] for line in lines_of(tmp_path, "probe") if line["what"] == "trap.hit"] == [False] * 2
    mark = next(line for line in lines_of(tmp_path, "mark") if line["name"] == "k")
    assert (mark["begin"], mark["end"]) == (begun, begun + 500)


@pytest.mark.parametrize("nth", [1, 2, 5])
def test_a_crash_point_lies_before_its_value(tmp_path: Path, nth: int) -> None:
    """Killed before the nth ask after arming: n - 1 asks reach the server, and the record of the nth is on disk."""
    world, tape = started(tmp_path)
    world.advance_until(CONNECTED, 500, 5_000)
    asked_before = world._documents["status"]["sent"]
    fault = Fault("k", 0, 1_000, Kill("client", before=("send", "echo", nth)))
    world.inject(fault)
    world.advance_to(world.now_ms() + 1_000)
    tape.seal("completed", world.stop())
    server = world.nodes["server"]
    asks = [record for record in server.disk.logs["books"].records.records() if b'"kind": "request"' in record]
    assert asked_before + nth - 2 <= len(asks) <= asked_before + nth - 1 + 1
    hits = [line["value"] for line in lines_of(tmp_path, "probe") if line["what"] == "trap.hit"]
    assert hits == [False, True]


def test_a_refused_switch_is_not_applied(tmp_path: Path) -> None:
    """An unknown switch raises instead of passing for a fault."""
    world, _ = started(tmp_path)
    with pytest.raises(NotApplied, match="404"):
        world.inject(Fault("s", 0, 100, Switch("server", "unknown")))
    world.stop()


def test_a_dead_node_can_be_neither_paused_nor_killed(tmp_path: Path) -> None:
    """Reading back says no."""
    world, _ = started(tmp_path)
    world.inject(Fault("k", 0, 100, Kill("client")))
    for force in (Pause("client"), Kill("client")):
        with pytest.raises(NotApplied):
            world.inject(Fault("p", 0, 100, force))
    world.stop()


def test_waiting_gives_up_at_its_end(tmp_path: Path) -> None:
    """None when the predicate did not hold for long enough; the clock stands where it was told to."""
    world, _ = started(tmp_path)
    never = Predicate((Field("status", "connected", "equals", "perhaps"),))
    assert world.advance_until(never, 100, 2_000) is None
    assert world.now_ms() == 2_000
    world.stop()


def test_what_rises_is_compared_with_the_moment_given_held(tmp_path: Path) -> None:
    """The baseline is what was last seen when the first wait returned."""
    world, _ = started(tmp_path)
    world.advance_until(CONNECTED, 100, 5_000)
    rises = Predicate((Field("status", "ticks", "rises", True),))
    assert world.advance_until(rises, 100, world.now_ms() + 1_000) is not None
    world.stop()


def test_secrets_reach_the_machines_and_nothing_else(tmp_path: Path) -> None:
    """No secret of the run stands in anything that it wrote."""
    world, tape = started(tmp_path)
    world.press(Stimulus("secret", 0, Call("client", "status", "GET", "/status", {"x-token": "${secret:TOKEN}"}, None, 200)))
    tape.seal("completed", world.stop())
    assert lines_of(tmp_path, "act")[0]["saw"]["taken"] is True
    secrets = [dice.token(1, name).encode() for name in STACK.secrets]
    assert [line["saw"] for line in lines_of(tmp_path, "act") if line["id"] == "secrets"] == [{"found": []}]
    recorded = b"".join(repr(line).encode() for line in read_lines(tmp_path / "recording.jsonl.gz"))
    recorded += b"".join(path.read_bytes() for path in (tmp_path / "streams").iterdir())
    assert not any(secret in recorded for secret in secrets)


def test_an_unknown_surface_or_machine_is_wrong_usage(tmp_path: Path) -> None:
    """Said with the nearest name, before anything runs."""
    with pytest.raises(UsageError, match="status"):
        toy_world(tmp_path).watch("statuss", 50)
    with pytest.raises(UsageError, match="cannot be loaded"):
        toy_world(tmp_path, machines={"client": "no.such:thing"}).start(Tape(tmp_path / "tape"))
