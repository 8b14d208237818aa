"""The local world over the toy stack: side by side, refused, interrupted, and held to the law of all worlds."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.drill.model import (
    Call,
    Clock,
    Deploy,
    Disconnect,
    Disk,
    Drop,
    Fault,
    Field,
    Fill,
    Kill,
    LinkFault,
    Overwrite,
    Pause,
    Predicate,
    RawToxic,
    Remove,
    Starve,
    Stimulus,
    Switch,
)
from harness.errors import NotApplied, UsageError, WorldError
from harness.recording.tape import Tape, read_lines
from harness.world.conformance import check_world
from harness.world.real import setup
from harness.world.real.clock import fake_time
from harness.world.real.local import LocalWorld
from harness.world.real.money import foreign_hosts
from harness.world.real.nodes import start_order
from harness.world.real.processes import MARKER, Process, marked
from harness.world.real.stacked import each_behind
from harness.world.real.undo import leftovers, recover, standing
from harness.world.real.world import RealWorld, Standing
from harness.world.stack import Node, Stack, load_stack

ROOT = Path(__file__).resolve().parents[2]
MakeLocal = Callable[..., LocalWorld]
CONNECTED = Predicate((Field("status", "connected", "equals", True),))
STALL = Fault("feed", 0, 0, LinkFault("wire", "stall", "client"))


def up(world: LocalWorld) -> LocalWorld:
    """Started, sampled, and seen connected."""
    tape = Tape(world.folder)
    tape.head(**world.describe())
    world.watch("status", 50)
    world.start(tape)
    assert world.advance_until(CONNECTED, 200, world.now_ms() + 15_000) is not None
    return world


def lines(world: LocalWorld, kind: str) -> list[dict[str, Any]]:
    world.tape.flush(10**12)
    return [line for line in read_lines(world.folder / "recording.jsonl.gz") if line["line"] == kind]


def probes(world: LocalWorld, id: str, what: str) -> list[Any]:
    return [line["value"] for line in lines(world, "probe") if line["id"] == id and line["what"] == what]


@pytest.mark.timeout(240)
def test_the_local_world_obeys_the_law_of_all_worlds(toy: Stack, server_file: Path, tmp_path: Path) -> None:
    """The conformance suite passes; refused are a slow, filled or read-only disk and what needs containers."""
    refused = check_world(lambda folder, placebo: LocalWorld(toy, "toy", toy.policy("toy"), 1, folder,
                                                             placebo=placebo), tmp_path)
    assert refused == ("disk_slow", "fill", "fill_unlinked", "fill_full", "fill_volume", "disk_read_only", "starve",
                       "disconnect", "out_of_memory")


def test_two_worlds_at_once_do_not_disturb_one_another(make_local: MakeLocal) -> None:
    """A stall in one leaves the other's flow alone; ports, folders and secrets are apart."""
    one, two = up(make_local("one")), up(make_local("two"))
    one.inject(STALL)
    two.inject(dataclasses.replace(STALL, force=LinkFault("wire", "fragment", "client", 20)))
    for _ in range(4):
        one.advance_to(one.now_ms() + 200)
        two.advance_to(two.now_ms() + 200)
    stalled, flowing = probes(one, "feed", "flow.received_bytes"), probes(two, "feed", "flow.received_bytes")
    assert len(set(stalled[1:])) == 1
    assert flowing[-1] > flowing[1]
    ports = [set(dict(world.versions()["ports"]).values()) for world in (one, two)]  # type: ignore[arg-type]
    assert not ports[0] & ports[1]
    assert not {*one.secrets.values.values()} & {*two.secrets.values.values()}
    one.heal(STALL)
    one.stop()
    assert two.advance_until(CONNECTED, 200, two.now_ms() + 5_000) is not None


def test_a_stranger_on_the_link_is_no_witness(make_local: MakeLocal) -> None:
    """Bytes of a connection that the accused node does not hold never count for it."""
    world = up(make_local())
    port = world.proxies.fronts["wire"]
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"GET /echo HTTP/1.1\r\nHost: x\r\n" + b"X-Fill: y\r\n" * 50)
        world.inject(STALL)
        before = probes(world, "feed", "link.connections")
        world.heal(STALL)
    assert before == [1]


CHILD = """
import socket, sys, time
end = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
end.sendall(b"GET /echo HTTP/1.1\\r\\nHost: x\\r\\n" + b"X-Fill: y\\r\\n" * 50)
print("sent", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_a_child_in_a_session_of_its_own_is_a_witness(make_local: MakeLocal, host: str) -> None:
    """What a node's child says on the link is the node's, also where it reaches IPv4 by a socket of IPv6."""
    world = up(make_local())
    names = {**os.environ, MARKER: world.marker, "NODE_NAME": "client"}
    port = world.proxies.fronts["wire"]
    with subprocess.Popen([sys.executable, "-c", CHILD, host, str(port)], env=names, stdout=subprocess.PIPE,
                          start_new_session=True) as child:
        assert child.stdout is not None and child.stdout.readline() == b"sent\n"
        world.inject(STALL)
        stand = probes(world, "feed", "link.connections")[0]
        world.heal(STALL)
        child.kill()
    world.advance_to(world.now_ms() + 1_000)
    assert stand == 2 and world.proxies.meters.links["wire"].client.ended == 1


def test_who_cleared_its_environment_ends_with_its_node(toy: Stack, server_file: Path, tmp_path: Path) -> None:
    """A child without our marker is known by the group that its node led."""
    client = toy.nodes["client"]
    command = ("sh", "-c", 'env -i sleep 300 & echo $! >"$0.child"; exec "$@"', str(tmp_path / "it"), *client.command)
    stack = dataclasses.replace(toy, nodes={**toy.nodes, "client": dataclasses.replace(client, command=command)})
    world = up(LocalWorld(stack, "toy", toy.policy("toy"), 1, tmp_path / "run"))
    child = Process.of(int((tmp_path / "it.child").read_text()))
    assert child is not None and child.alive
    world.stop()
    assert not child.alive


def test_a_toxiproxy_that_somebody_stops_ends_the_run(make_local: MakeLocal) -> None:
    """For a moment only: what went through it meanwhile was troubled by no fault of the drill."""
    world = up(make_local())
    pid = world.proxies.identity()["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(WorldError, match="Toxiproxy was stopped"):
            world.advance_to(world.now_ms() + 1_000)
    finally:
        os.kill(pid, signal.SIGCONT)


def test_nothing_of_a_node_is_there_before_its_janitor(make_local: MakeLocal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is killed before there is a janitor leaves nothing that only a janitor would remove."""
    world = make_local()

    def nobody() -> None:
        assert (world.folder / "undo.jsonl").exists() and not (world.folder / "nodes").exists()
        raise WorldError("there is nobody to be posted")

    monkeypatch.setattr(world, "_post_janitor", nobody)
    with pytest.raises(WorldError, match="nobody"):
        up(world)
    assert not (world.folder / "nodes").exists()


def test_acts_of_a_moment_are_made_ready_together(make_local: MakeLocal, monkeypatch: pytest.MonkeyPatch) -> None:
    """None waits for the witness of another: here each answers only when both have been asked."""
    world = up(make_local())
    pause = Fault("pause", 0, 0, Pause("client"))
    ask, asked = RealWorld._probe, asyncio.Barrier(2)

    async def patient(self: RealWorld, standing: Standing) -> None:
        async with asyncio.timeout(10):
            await asked.wait()
        await ask(self, standing)

    with monkeypatch.context() as patched:
        patched.setattr(RealWorld, "_probe", patient)
        world.carry_out(world.now_ms() + 100, [("inject", STALL), ("inject", pause)])
    assert {each["id"] for each in lines(world, "act") if each["step"] == "applied"} >= {STALL.id, "pause"}
    world.heal(pause)
    world.heal(STALL)


def test_a_fault_on_a_dead_node_is_not_applied(make_local: MakeLocal) -> None:
    """What is not there cannot be paused, and nothing says that it was."""
    world = up(make_local())
    kill, pause = Fault("kill", 0, 0, Kill("client")), Fault("pause", 0, 0, Pause("client"))
    world.inject(kill)
    with pytest.raises(NotApplied, match="not running"):
        world.inject(pause)
    world.heal(pause)
    world.heal(kill)
    assert world.advance_until(CONNECTED, 200, world.now_ms() + 10_000) is not None


SUPERVISOR = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
time.sleep(600)
"""


@pytest.mark.parametrize("force", [Kill("client"), Kill("client", how="stop"), Deploy("client", None)], ids=str)
def test_what_lives_on_under_a_nodes_name_was_not_ended(toy: Stack, tmp_path: Path, force: Any) -> None:
    """A process that a start script left in a group of its own serves on: the kill is not applied. A pause stops it, too."""
    node = dataclasses.replace(toy.nodes["client"], command=("{python}", "-c", SUPERVISOR), provision=None, ready=None)
    world = LocalWorld(dataclasses.replace(toy, nodes={**toy.nodes, "client": node}), "toy", {}, 1, tmp_path / "run")
    try:
        world.start(Tape(world.folder))
        world.advance_to(world.now_ms() + 1_000)
        world.inject(pause := Fault("pause", 0, 0, Pause("client")))
        assert [each.state for each in marked(world.marker, "client")] == ["T", "T"]
        world.heal(pause)
        with pytest.raises(NotApplied, match="live on"):
            world.inject(Fault("end", 0, 0, force))
    finally:
        world.stop()


def test_a_disk_that_refuses_goes_on_to_refuse_when_the_node_begins_anew(make_local: MakeLocal) -> None:
    """Its next writer is held at the same limit before it has written, and healing lifts that one."""
    world = up(make_local())
    refuse, again = Fault("full", 0, 0, Disk("client", "refuse")), Fault("again", 0, 0, Deploy("client", None))
    world.inject(refuse)
    world.advance_to(world.now_ms() + 500)
    world.inject(again)
    world.heal(again)
    world.advance_to(world.now_ms() + 1_500)
    written = probes(world, "full", "ledger.durable_bytes")[2:]
    assert len(written) > 5 and len(set(written)) == 1
    world.heal(refuse)
    world.advance_to(world.now_ms() + 1_000)
    assert os.path.getsize(f"{world.nodes['client'].data}/logs/ledger.log") > written[-1]


def test_a_switch_is_asked_whether_it_is_on(make_local: MakeLocal) -> None:
    """Also when somebody has turned it off meanwhile."""
    world = up(make_local())
    mute = Fault("mute", 0, 0, Switch("server", "mute"))
    world.inject(mute)
    world.advance_to(world.now_ms() + 500)
    host, port = world.address("server", "control")
    with urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/switches/mute", method="DELETE"), timeout=5):
        world.advance_to(world.now_ms() + 500)
    said = probes(world, "mute", "switch.on")
    assert said[1] is True and said[-1] is False
    world.heal(mute)


def test_an_unknown_switch_is_not_applied(make_local: MakeLocal) -> None:
    """The node's refusal is passed on with its words."""
    world = up(make_local())
    odd = Fault("odd", 0, 0, Switch("server", "unknown"))
    with pytest.raises(NotApplied, match="404"):
        world.inject(odd)
    world.heal(odd)
    assert [line["name"] for line in lines(world, "mark")] == []


def test_acts_of_one_moment_are_done_together_and_on_time(make_local: MakeLocal) -> None:
    """A switch that is thrown anew when its former use ends stands afterwards; each act's line says when it was due, and
    none of them waits for another's answer."""
    world = up(make_local())
    old, new = (Fault(name, 0, 0, Switch("server", "mute")) for name in ("old", "new"))
    due = world.now_ms() + 100
    world.carry_out(due, [("inject", old), ("inject", STALL)])
    world.carry_out(due + 500, [("heal", old), ("inject", new)])
    world.carry_out(due + 900, [("heal", STALL), ("inject", Fault("pause", 0, 0, Pause("client")))])
    acts = {(line["id"], line["step"]): line for line in lines(world, "act") if "due" in line}
    assert {key: line["due"] - due for key, line in acts.items()} == {
        ("old", "applied"): 0, ("feed", "applied"): 0, ("old", "healed"): 500, ("new", "applied"): 500,
        ("feed", "healed"): 900, ("pause", "applied"): 900}
    assert all(line["begin"] >= line["due"] for line in acts.values())
    assert acts["old", "applied"]["begin"] <= acts["feed", "applied"]["end"]
    assert acts["old", "healed"]["begin"] <= acts["new", "applied"]["begin"] <= acts["old", "healed"]["end"]
    world.advance_to(world.now_ms() + 300)
    uses = probes(world, "new", "switch.uses")
    assert len(uses) > 1, "the switch that was thrown anew still stands, so its witness answers"
    world.heal(new)
    assert [line["saw"] for line in lines(world, "act") if line["id"] == "new" and line["step"] == "read_back"][0]["on"]


def test_of_two_acts_at_once_the_second_failure_is_waited_for(make_local: MakeLocal) -> None:
    """One that cannot be applied is told, when the other that was begun with it has been applied and can be healed."""
    world = up(make_local())
    odd = Fault("odd", 0, 0, Switch("server", "nowhere"))
    with pytest.raises(NotApplied, match="nowhere"):
        world.carry_out(world.now_ms() + 50, [("inject", odd), ("inject", STALL)])
    assert [line["step"] for line in lines(world, "act") if line["id"] == "feed"] == ["applied", "read_back"]
    world.heal(odd)
    world.heal(STALL)


def test_a_witness_speaks_before_after_and_never_on_the_mark(make_local: MakeLocal) -> None:
    """What was read before injecting or after healing bears a time outside the fault's marks."""
    world = up(make_local())
    mute = Fault("mute", 0, 0, Switch("server", "mute"))
    world.inject(mute)
    world.advance_to(world.now_ms() + 500)
    world.heal(mute)
    marks = {line["name"]: line for line in lines(world, "mark")}
    times = [line["at"] for line in lines(world, "probe") if (line["id"], line["what"]) == ("mute", "switch.uses")]
    begun, healed = marks["mute"], marks["mute.healed"]
    assert times[0] < begun["begin"]
    assert times[-1] > healed["end"]
    assert times[-2] < healed["begin"]
    assert len([at for at in times if begun["end"] < at < healed["begin"]]) >= 2


def test_a_node_that_dies_by_itself_is_a_fact(make_local: MakeLocal) -> None:
    """An unasked death is written down, with its code, and is not called down by our act."""
    world = up(make_local())
    process = world._nodes["client"].process
    assert process is not None
    process.send(signal.SIGKILL)
    world.advance_to(world.now_ms() + 500)
    assert [line["saw"] for line in lines(world, "act") if line["step"] == "exited"] == [{"code": -9}]
    assert {line.get("silence") for line in lines(world, "sample")[-3:]} == {"refused"}


def test_a_proxy_that_dies_aborts_the_run(make_local: MakeLocal) -> None:
    """Without its proxies a run proves nothing."""
    world = up(make_local())
    os.kill(world.proxies.identity()["pid"], signal.SIGKILL)
    with pytest.raises(WorldError, match="Toxiproxy"):
        world.advance_to(world.now_ms() + 1_000)


def test_a_sampler_that_dies_aborts_the_run(make_local: MakeLocal) -> None:
    """A run that sees nothing must not look calm."""
    world = up(make_local())
    assert world._sampling is not None
    assert world._sampling.pid is not None
    os.kill(world._sampling.pid, signal.SIGKILL)
    with pytest.raises(WorldError, match="sampler"):
        world.advance_until(Predicate((Field("status", "connected", "equals", False),)), 100, world.now_ms() + 30_000)
    assert world.now_ms() < 25_000


def test_a_placebo_leaves_marks_and_no_force(make_local: MakeLocal) -> None:
    """Marks, acts and probes as ever; nothing is killed and no toxic is set."""
    world = up(make_local(placebo=True))
    kill = Fault("kill", 0, 0, Kill("client"))
    for fault in (STALL, kill):
        world.inject(fault)
    assert world.proxies.client.toxics("wire") == {}
    assert world._nodes["client"].alive
    for fault in (STALL, kill):
        world.heal(fault)
    assert [line["name"] for line in lines(world, "mark")] == ["feed", "kill", "feed.healed", "kill.healed"]
    assert world._nodes["client"].lives == 1


def test_stop_leaves_nothing_and_can_be_called_again(make_local: MakeLocal) -> None:
    """No process, no data folder, nothing to undo; and the same answer twice."""
    world = up(make_local())
    world.inject(Fault("pause", 0, 0, Pause("client")))
    world.inject(STALL)
    streams = world.stop()
    assert world.stop() == streams
    assert marked(world.marker) == ()
    assert not (world.folder / "nodes").exists()
    assert standing(world.folder) == ()
    assert streams["ledger"]["n"] > 0


def test_a_secret_that_leaks_is_told(make_local: MakeLocal) -> None:
    """A node that prints its secret is found out by name, without the secret being written down again."""
    world = up(make_local())
    with (world.folder / "node-logs" / "client.log").open("a") as log:
        log.write(f"debug: token is {world.secrets.values['TOKEN']}\n")
    world.stop()
    searched = [line["saw"] for line in lines(world, "act") if line["id"] == "secrets"]
    assert searched == [{"found": [{"secret": "TOKEN", "file": "node-logs/client.log"}]}]


def test_what_an_operator_sends_may_hold_a_secret_that_stays_one(make_local: MakeLocal) -> None:
    """A header's secret is filled in on the way and never recorded."""
    world = up(make_local())
    world.press(Stimulus("ask", 0, Call("client", "status", "GET", "/status", {"x-token": "${secret:TOKEN}"}, None, 200)))
    world.stop()
    assert [line["saw"]["taken"] for line in lines(world, "act") if line["id"] == "ask"] == [True]
    assert [line["saw"] for line in lines(world, "act") if line["id"] == "secrets"] == [{"found": []}]


def test_a_node_that_does_not_start_is_told_with_its_last_words(toy: Stack, server_file: Path, tmp_path: Path) -> None:
    """The error names the node and shows the end of its log; nothing is left behind."""
    world = LocalWorld(toy, "toy", toy.policy("toy"), 1, tmp_path / "run", machines={"client": "tests.nowhere:make"})
    with pytest.raises(WorldError, match=r"client ended (by itself )?with code .*nowhere"):
        world.start(Tape(world.folder))
    world.stop()
    assert marked(world.marker) == ()


def test_hold_leaves_the_stack_up_until_recovered(make_local: MakeLocal) -> None:
    """Held nodes answer on after stop; ``recover`` is refused while we live, and ends them later."""
    world = up(make_local(hold=True))
    streams = world.stop()
    assert streams["books"]["n"] > 0
    assert world._nodes["client"].alive
    assert world.versions()["held"] is True
    for name in ("client", "server"):
        assert (world.folder / "node-logs" / f"{name}.log").exists()
    world.release(keep=True)
    assert world._nodes["client"].alive
    undo_own_hold(world)
    assert marked(world.marker) == ()


def test_a_held_run_that_is_released_leaves_nothing(make_local: MakeLocal) -> None:
    """Held for a verdict that turned out well: the stack ends after all, and there is nothing to recover."""
    world = up(make_local(hold=True))
    world.stop()
    world.release(keep=False)
    assert marked(world.marker) == ()
    assert standing(world.folder) == ()


def undo_own_hold(world: LocalWorld) -> None:
    """As ``recover`` would once this process is gone."""
    from harness.world.real.undo import undo

    for entry in reversed(standing(world.folder)):
        undo(entry)


# ---- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("act", "word"), [
    (LinkFault("wyre", "stall"), "nearest: wire"),
    (LinkFault("wire", "delay"), "amount"),
    (RawToxic("wire", "latencyy", "upstream", {}), "no toxic"),
    (Kill("clientt"), "nearest: client"),
    (Kill("client", "newest"), "no build"),
    (Deploy("client", "newest"), "no build"),
    (Kill("client", how="out_of_memory"), "control group"),
    (Starve("client", 20), "control group"),
    (Disconnect("client"), "network"),
    (Fill("client", 1.0), "never filled"),
    (Disk("client", "read_only"), "use refuse"),
    (Disk("client", "slow", 100), "block device"),
    (Disk("client", "torn"), "page cache"),
    (Disk("client", "unsynced"), "page cache"),
    (Disk("server", "stall"), "writer process"),
    (Switch("client", "mute"), "no control port"),
    (Stimulus("x", 0, Call("server", "apy", "GET", "/")), "no port"),
    (Stimulus("x", 0, Drop("nobody", "a.json")), "no node"),
    (Stimulus("x", 0, Drop("client", "../../etc/passwd")), "within the node"),
    (Overwrite("client", "/etc/passwd"), "within the node"),
    (Remove("client", "operator/../../notes.jsonl"), "within the node"),
    (Fill("client", 1.0, volume="shared"), "never filled"),
])
def test_what_this_world_cannot_do_is_refused_by_name(make_local: MakeLocal, act: Any, word: str) -> None:
    """The reason is named before anything starts."""
    assert word in (make_local().refuses(act) or "")


@pytest.mark.parametrize("act", [
    LinkFault("wire", "stall", "client"), Kill("client"), Kill("client", "next", ("append", "ledger", 2)), Pause("server"),
    Kill("client", how="stop"), Deploy("client", "next"), Deploy("client", None),
    Clock("client", 500), Clock("client", to_ms=1_800_000_000_000), Disk("client", "stall"), Disk("client", "refuse"),
    Overwrite("client", "state.json", every_ms=100), Remove("client", "state.json"),
    Kill("client", before=("replace", "state.json", 1, "rename")),
    Switch("server", "mute"), Stimulus("x", 0, Drop("client", "operator/a.json")),
])
def test_what_it_can_do_is_not_refused(make_local: MakeLocal, act: Any) -> None:
    """Everything that has a real way without privileges is taken."""
    assert make_local().refuses(act) is None


def test_without_a_proxy_server_everything_is_refused_with_the_line_that_installs_it(
        toy: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal holds the very line to type."""
    monkeypatch.setattr(setup, "FOLDER", tmp_path)
    monkeypatch.setattr(setup, "ROOT", tmp_path.parent)
    monkeypatch.setenv("PATH", str(tmp_path))
    world = LocalWorld(toy, "toy", toy.policy("toy"), 1, tmp_path / "run")
    assert "go install" in (world.refuses(Kill("client")) or "")
    with pytest.raises(WorldError, match="go install"):
        world.start(Tape(tmp_path / "run"))


def with_link(stack: Stack, url: str) -> Stack:
    return dataclasses.replace(stack, links={**stack.links, "wire": dataclasses.replace(stack.links["wire"], url=url)})


def with_environment(stack: Stack, environment: Mapping[str, str]) -> Stack:
    node: Node = dataclasses.replace(stack.nodes["client"], environment=environment)
    return dataclasses.replace(stack, nodes={**stack.nodes, "client": node})


@pytest.mark.parametrize("url", ["wss://www.deribit.com/ws/api/v2", "https://user:key@10.0.0.1/x", "ws://[2001:db8::1]/"])
def test_a_stack_that_reaches_beyond_this_machine_is_refused(toy: Stack, tmp_path: Path, url: str) -> None:
    """Never real money: in a link or in an environment, by name or by address."""
    for stack in (with_link(toy, url), with_environment(toy, {"FALLBACK": f"try {url} next"})):
        assert len(foreign_hosts(stack)) == 1
        world = LocalWorld(stack, "toy", {}, 1, tmp_path)
        assert "beyond this machine" in (world.refuses(Kill("client")) or "")
        with pytest.raises(WorldError, match="beyond this machine"):
            world.start(Tape(tmp_path / "run"))
        assert world.stop() == {}


@pytest.mark.parametrize(("old", "new", "says"), [
    ("deployment_environment: DEV", "deployment_environment: LIVE", "'LIVE', expected one of DEV"),
    ("deployment_environment: DEV", "deployment_environment: live", "'live', expected one of DEV"),
    ("deployment_environment: DEV", "deployment_environment: production", "'production', expected one of DEV"),
    ("deployment_environment: DEV", "deployment_environment: {a: b}", "expected one of DEV"),
    ('POLICY: "{policy}"', "MODE: Live", "node client is told MODE LIVE"),
    ("next: {BUILD_ID: toy-2}", "next: {MODE: LIVE}", "node client is told MODE LIVE"),
])
def test_a_live_stack_is_refused_however_it_is_spelled(toy: Stack, tmp_path: Path, old: str, new: str, says: str) -> None:
    """Only the environments that are known not to be the live one are drilled, for the stack and for every node."""
    assert old in toy.text.decode()
    file = tmp_path / "stack.yaml"
    file.write_text(toy.text.decode().replace(old, new))
    with pytest.raises(UsageError, match=says):
        load_stack(file)


DIALLER = """
import os, socket, time
host, port = os.environ["FAR"].split()
connection = socket.create_connection((host, int(port)))
time.sleep(60)
"""


def own_address() -> str | None:
    """An address of this machine that is not loopback; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        host: str = probe.getsockname()[0]
    return None if host.startswith("127.") else host


def test_a_node_that_leaves_loopback_is_killed(toy: Stack, server_file: Path, tmp_path: Path) -> None:
    """Whatever the configuration did not say: a connection to another address ends the node and the run."""
    host = own_address()
    if host is None:
        pytest.skip("this machine has no address but loopback")
    with socket.create_server((host, 0)) as far:
        node = dataclasses.replace(toy.nodes["client"], command=("{python}", "-c", DIALLER), provision=None, ready=None,
                                   environment={"FAR": f"{host} {far.getsockname()[1]}"})
        stack = dataclasses.replace(toy, nodes={**toy.nodes, "client": node})
        world = LocalWorld(stack, "toy", {}, 1, tmp_path / "run")
        try:
            world.start(Tape(world.folder))
            with pytest.raises(WorldError, match="beyond this machine"):
                world.advance_to(world.now_ms() + 5_000)
            deadline = time.monotonic() + 30  # SIGKILL is sent before the error is told, and takes effect when it does
            while world._nodes["client"].alive and time.monotonic() < deadline:
                time.sleep(0.01)
            assert not world._nodes["client"].alive
        finally:
            world.stop()


def test_loopback_and_allowed_hosts_are_taken(toy: Stack) -> None:
    """Loopback by name or number, the world's own address, and what is explicitly allowed."""
    for url in ("ws://{address}/ws", "http://127.0.0.1:1", "http://[::1]/", "http://localhost/x"):
        assert foreign_hosts(with_link(toy, url)) == ()
    assert foreign_hosts(with_link(toy, "https://test.deribit.com"), ("test.deribit.com",)) == ()


# ---- when the harness dies --------------------------------------------------------------------------------

HARNESS = """
import os, signal, sys, time
from pathlib import Path
from harness.drill.model import *
from harness.recording.tape import Tape
from harness.world.real.local import LocalWorld
from harness.world.stack import load_stack
stack = load_stack(Path("tests/worlds/toy/stack.yaml"))
world = LocalWorld(stack, "toy", stack.policy("toy"), 1, Path(sys.argv[1]))
for force in (clock := Clock("client", 500),):
    assert world.refuses(force) is None
tape = Tape(world.folder)
tape.head(**world.describe())
world.watch("status", 50)
world.start(tape)
world.inject(Fault("feed", 0, 0, LinkFault("wire", "stall", "client")))
world.inject(Fault("cut", 0, 0, LinkFault("rest", "cut")))
world.inject(Fault("clock", 0, 0, clock))
world.inject(Fault("pause", 0, 0, Pause("server")))
world.inject(Fault("disk", 0, 0, Disk("client", "stall")))
world.advance_to(world.now_ms() + 400)
print(world.marker, flush=True)
world.advance_to(world.now_ms() + 60_000)
"""


def troubled_harness(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """A harness in a process of its own, with every kind of fault standing."""
    process = subprocess.Popen([sys.executable, "-c", HARNESS, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def none_left(marker: str, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while marked(marker) and time.monotonic() < deadline:
        time.sleep(0.02)
    return marked(marker) == ()


@pytest.mark.timeout(90)
def test_the_janitor_clears_up_after_kill_9(server_file: Path, tmp_path: Path) -> None:
    """No process and no toxic is left, the recording is readable without a seal, the streams are kept."""
    folder = tmp_path / "runs" / "killed"
    process, marker = troubled_harness(folder)
    assert len(marked(marker)) >= 6
    process.kill()
    process.wait()
    assert none_left(marker, 30), [Path(f"/proc/{each.pid}/cmdline").read_bytes() for each in marked(marker)]
    found = list(read_lines(folder / "recording.jsonl.gz"))
    assert found[0]["line"] == "head"
    assert any(line["line"] == "sample" for line in found)
    assert all(line["line"] != "seal" for line in found)
    assert (folder / "streams" / "books.jsonl").stat().st_size > 0
    assert not (folder / "nodes").exists()
    assert leftovers(tmp_path / "runs") == []
    assert recover(folder) == ()


@pytest.mark.timeout(90)
def test_recover_does_it_by_hand_when_the_janitor_died_too(server_file: Path, tmp_path: Path) -> None:
    """Harness and janitor killed at once: the kernel ends the stack, stopped or not; the rest of the run is found as a
    leftover, and recovered once."""
    folder = tmp_path / "runs" / "killed"
    process, marker = troubled_harness(folder)
    janitors = [each for each in marked(marker) if b"real.janitor" in Path(f"/proc/{each.pid}/cmdline").read_bytes()]
    assert len(janitors) == 1
    janitors[0].send(signal.SIGKILL)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while marked(marker) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert marked(marker) == ()
    assert leftovers(tmp_path / "runs") == [folder]
    verbs = [each.verb for each in recover(folder)]
    assert verbs == ["resume", "resume", "true_clock", "enable_proxy", "remove_toxics", "end_run", "keep_streams"]
    assert marked(marker) == ()
    assert recover(folder) == ()


RUN = """
import sys
from pathlib import Path
from harness.drill.model import *
from harness.recording.tape import Tape
from harness.run import run
from harness.world.real.local import LocalWorld
from harness.world.stack import load_stack
stack = load_stack(Path("tests/worlds/toy/stack.yaml"))
well = Predicate((Field("status", "connected", "equals", True),))
faults = (Fault("feed", 0, 60_000, LinkFault("wire", "stall", "client")), Fault("pause", 0, 60_000, Pause("server")))
drill = Drill("toy", "", (), "", {"status": 50}, Given(well, 200, 15_000), faults, (), (), None, Converge(well, 5_000, 200))
world = LocalWorld(stack, "toy", stack.policy("toy"), 1, Path(sys.argv[1]))
print(world.marker, flush=True)
outcome = run(drill, world, Tape(world.folder), {}, lambda word, facts: print(word, flush=True))
print(outcome.status, outcome.why, flush=True)
"""


@pytest.mark.timeout(90)
@pytest.mark.parametrize(("number", "word", "later_s"), [
    (signal.SIGINT, "inject", 0.5), (signal.SIGTERM, "inject", 0.1), (signal.SIGINT, "starting", 0.2)])
def test_ctrl_c_ends_in_order(server_file: Path, tmp_path: Path, number: signal.Signals, word: str,
                              later_s: float) -> None:
    """Interrupted while troubled or while starting: healed, stopped, sealed as interrupted, nothing left."""
    folder = tmp_path / "runs" / "interrupted"
    process = subprocess.Popen([sys.executable, "-c", RUN, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True)
    assert process.stdout is not None
    marker = process.stdout.readline().strip()
    while process.stdout.readline().strip() != word:
        assert process.poll() is None
    time.sleep(later_s)
    process.send_signal(number)
    said, _ = process.communicate(timeout=40)
    assert f"interrupted ('{number.name}'" in said
    assert marked(marker) == ()
    assert [line["status"] for line in read_lines(folder / "recording.jsonl.gz") if line["line"] == "seal"] == ["interrupted"]
    assert standing(folder) == ()


# ---- small parts ------------------------------------------------------------------------------------------


def test_a_drift_that_begins_later_needs_an_offset() -> None:
    """libfaketime counts the rate from process start: what it would add at once is taken off."""
    assert fake_time(500, 0, 99_000) == "+0.500000 x1"
    assert fake_time(-500, 0, 0) == "-0.500000 x1"
    assert fake_time(0, 10_000, 10_000) == "-0.100000 x1.010000"


def test_servers_start_before_their_clients(toy: Stack) -> None:
    """A client that finds nobody at first would be accused of it."""
    assert start_order(toy) == ("server", "client")


def test_who_waits_for_nobody_waits_for_no_turn_but_its_own() -> None:
    """Each begins when all it comes behind are done, not when its turn in the order comes; a circle is cut by the order."""
    behind = {"server": {"loop"}, "loop": {"server"}, "client": {"server"}, "alone": set[str](), "last": {"client", "alone"}}
    said: list[str] = []

    async def work(name: str) -> None:
        said.append(f"{name} begins")
        await asyncio.sleep(0.02)
        said.append(f"{name} is done")

    asyncio.run(each_behind(("server", "loop", "client", "alone", "last"), behind.__getitem__, work))
    assert said[:2] == ["server begins", "alone begins"]
    for name, others in (("loop", ["server"]), ("client", ["server"]), ("last", ["client", "alone"])):
        assert all(said.index(f"{other} is done") < said.index(f"{name} begins") for other in others)


def test_behind_one_that_fails_nothing_begins() -> None:
    """And the failure is the one that is told."""
    begun: list[str] = []

    async def work(name: str) -> None:
        begun.append(name)
        await asyncio.sleep(0)
        raise WorldError(f"{name} failed")

    with pytest.raises(WorldError, match="server failed"):
        asyncio.run(each_behind(("server", "client"), {"server": set[str](), "client": {"server"}}.__getitem__, work))
    assert begun == ["server"]


def test_the_install_line_names_version_and_place() -> None:
    """What ``explain`` prints is what ``build`` does."""
    assert "@v2.12.0" in setup.explain()
    assert "-X github.com/Shopify/toxiproxy/v2.Version=2.12.0" in setup.explain()
    assert ".drillproof/bin/toxiproxy-server" in setup.explain()


def test_the_server_on_hand_states_the_measured_version(server_file: Path) -> None:
    """The table of effects was measured on this version."""
    assert setup.version_of(server_file) == setup.VERSION
    assert len(setup.sha256_of(server_file)) == 64
