"""How each force is applied, read back, witnessed and undone in the simulated world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import orjson

from harness import limits
from harness.drill.model import (
    Call,
    Clock,
    Deploy,
    Disconnect,
    Disk,
    Fill,
    Force,
    Json,
    Kill,
    LinkFault,
    NodeForce,
    Overwrite,
    Pause,
    RawToxic,
    Remove,
    Starve,
    Switch,
)
from harness.errors import NotApplied, NotHealed, WorldError, hint
from harness.recording.tape import canonical
from harness.world.sim import wire, witness
from harness.world.sim.clock import MS, Agenda
from harness.world.sim.disk import Disk as SimDisk
from harness.world.sim.node import EPOCH_MS, QUOTA_EVERY_US, Node
from harness.world.sim.observe import Question
from harness.world.sim.room import Room
from harness.world.sim.trap import MEANINGS, Trap
from harness.world.stack import Stack
from system_under_test.machine import Response

if TYPE_CHECKING:
    from harness.world.sim.world import SimWorld


@dataclass(frozen=True, slots=True)
class Applied:
    """A force that stands: how to undo it, and what reading it back said. ``marks`` is False for a crash trap, whose
    mark is the moment of death."""

    undo: Callable[[], None]
    saw: Json
    marks: bool = True


class Hand:
    """Writes a node's small file once, or again and again until it is stopped."""

    def __init__(self, agenda: Agenda, disk: SimDisk, force: Overwrite) -> None:
        self._agenda, self._disk, self._force = agenda, disk, force
        self._writes, self._stood, self._stopped = 0, False, False

    def write(self, _: object = None) -> None:
        force, disk = self._force, self._disk
        if self._stopped:
            return
        if force.in_place:
            disk.put(force.file, b"", "in_place")
        disk.put(force.file, force.content, "in_place" if force.in_place else "replaced")
        self._writes += 1
        self._stood = self._stood or disk.read(force.file) == force.content
        if force.every_ms is not None:
            self._agenda.at(self._agenda.now_us + force.every_ms * MS, self.write)

    def stop(self) -> None:
        self._stopped = True

    def probes(self) -> tuple[tuple[str, Json], ...]:
        return ("file.writes", self._writes), ("file.stood", self._stood)


def refuses(force: Force, stack: Stack) -> str | None:
    """Why the sim cannot do that to this stack, or None."""
    if isinstance(force, (LinkFault, RawToxic)):
        if force.link not in stack.links:
            return f"no link {force.link!r} in the stack{hint(force.link, stack.links)}"
        return wire.refuses(force)
    if force.node not in stack.nodes:
        return f"no node {force.node!r} in the stack{hint(force.node, stack.nodes)}"
    return _refuses_on_node(force, stack)


def _refuses_on_node(force: NodeForce, stack: Stack) -> str | None:
    node = stack.nodes[force.node]
    if isinstance(force, (Kill, Deploy)) and force.build is not None and force.build not in node.builds:
        return f"node {force.node} has no build {force.build!r}; it has {', '.join(node.builds)}"
    if isinstance(force, Kill) and force.before is not None and force.before[0] not in MEANINGS:
        return f"no crash point {force.before[0]!r}; known: {', '.join(MEANINGS)}"
    if isinstance(force, Switch) and node.control is None:
        return f"node {force.node} has no control port for switches"
    if isinstance(force, Call) and force.port not in node.ports:
        return f"node {force.node} has no port {force.port!r}; known: {', '.join(node.ports)}"
    if isinstance(force, Clock) and (node.clock is None or node.clock.wall is None):
        return f"node {force.node} does not tell its wall clock, so nothing could witness the fault"
    if isinstance(force, Fill) and force.volume is not None and (why := stack.lacks_volume(force.node, force.volume)):
        return why
    if isinstance(force, (Overwrite, Remove)) and not force.lies_within:
        return f"{force.file}: a file that is written or taken away lies within the node's folder"
    if isinstance(force, Disk) and force.kind == "slow" and not force.amount:
        return "a slow disk needs the time that a sync takes"
    return None


class Forces:
    """The forces of one run, over its nodes and links."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world
        self._witnesses: dict[str, witness.Witness] = {}
        self._armed_at: dict[str, int] = {}
        self._appliers: dict[type, Callable[[str, Any], Applied]] = {
            Starve: self._starve, Disconnect: self._disconnect,
            LinkFault: self._link, RawToxic: self._link, Kill: self._kill, Pause: self._pause, Deploy: self._deploy,
            Clock: self._clock, Disk: self._disk, Fill: self._fill, Switch: self._switch, Call: self._call,
            Overwrite: self._overwrite, Remove: self._remove,
        }

    def apply(self, id: str, force: Force) -> Applied:
        """Give a force its effect. Raises NotApplied when reading it back says no."""
        return self._appliers[type(force)](id, force)

    def dismiss(self, id: str) -> None:
        """One last look of the fault's witness, before it is healed."""
        witnessing = self._witnesses.pop(id, None)
        if witnessing is not None:
            witnessing.dismiss()

    def _witness(self, id: str, every_ms: int, probes: witness.Probes) -> witness.Witness:
        world = self._world
        self._witnesses[id] = witness.Witness(world.agenda, world.tape, id, every_ms, probes)
        return self._witnesses[id]

    def _probe(self, id: str, what: str, value: Json) -> None:
        self._world.tape.probe(id, what, value, self._world.now_ms())

    # ---- links

    def _link(self, id: str, force: LinkFault | RawToxic) -> Applied:
        link, trouble = self._world.links[force.link], wire.trouble_of(force)
        witnessing = self._witness(id, witness.FLOW_EVERY_MS, witness.flow(link, trouble.ways))
        link.inject(id, trouble)
        if not link.has(id):
            raise NotApplied(f"{id}: the link does not show it")
        witnessing.look()
        return Applied(lambda: link.heal(id), {"effect": trouble.effect, "amount": trouble.amount})

    # ---- processes

    def _kill(self, id: str, force: Kill) -> Applied:
        world, node = self._world, self._world.nodes[force.node]
        build = force.build or world.builds[node.name]
        if not node.alive:
            raise NotApplied(f"{id}: node {node.name} is not running")
        if force.before is not None:
            self._arm(id, node, Trap(*force.before))
            return Applied(lambda: self._disarm(id, node, build), {"armed": True}, marks=False)
        node.expected_down = True
        witnessing = self._witness(id, witness.PROCESS_EVERY_MS, witness.process(node))
        if force.how == "stop":
            self._end_in_order(node)
        elif force.how == "out_of_memory":
            node.run_out_of_memory()
        else:
            node.kill()
        witnessing.look()
        return Applied(lambda: self._start_again(id, node, build), {"alive": node.alive, "exit_code": node.exit_code})

    def _end_in_order(self, node: Node) -> None:
        node.expected_down = True
        node.ask_to_stop()
        if not self._world.wait_for(lambda: not node.alive, limits.NODE_STOP_MS_MAX * MS):
            node.kill()

    def _arm(self, id: str, node: Node, trap: Trap) -> None:
        node.trap, node.on_trap = trap, lambda dead: self._sprung(id, dead)
        self._armed_at[id] = self._world.now_ms()
        self._probe(id, "trap.hit", False)

    def _sprung(self, id: str, node: Node) -> None:
        """The process died before the named value: this is the fault's moment."""
        node.expected_down = True
        del self._armed_at[id]
        now = self._world.now_ms()
        self._world.tape.mark(id, now, now)
        self._probe(id, "trap.hit", True)
        self._witness(id, witness.PROCESS_EVERY_MS, witness.process(node))

    def _disarm(self, id: str, node: Node, build: str) -> None:
        """Start again what died; a trap that was never reached is taken away and said to have missed."""
        if id not in self._armed_at:
            self._start_again(id, node, build)
            return
        node.trap = None
        self._probe(id, "trap.hit", False)
        self._world.tape.mark(id, self._armed_at.pop(id), self._world.now_ms())

    def _start_again(self, id: str, node: Node, build: str) -> None:
        if not node.alive:
            self._world.spawn(node.name, build)
            try:
                self._world.await_ready(node.name)
            except WorldError as why:
                raise NotHealed(f"{id}: {why}") from why
        for what, value in witness.process(node)():
            self._probe(id, what, value)

    def _pause(self, id: str, force: Pause) -> Applied:
        node = self._world.nodes[force.node]
        node.pause()
        if node.state != "paused":
            raise NotApplied(f"{id}: node {node.name} is {node.state}")
        self._witness(id, witness.PROCESS_EVERY_MS, witness.process(node))
        return Applied(node.resume, {"state": "T"})

    def _deploy(self, id: str, force: Deploy) -> Applied:
        """Stop in order, start the other build over the same data. Healing has nothing to undo."""
        world, node = self._world, self._world.nodes[force.node]
        witnessing = self._witness(id, witness.PROCESS_EVERY_MS, witness.process(node))
        self._end_in_order(node)
        world.spawn(node.name, force.build or world.builds[node.name])
        try:
            world.await_ready(node.name)
        except WorldError as why:
            raise NotApplied(f"{id}: {why}") from why
        witnessing.look()
        return Applied(lambda: None, {"build": node.build})

    def _starve(self, id: str, force: Starve) -> Applied:
        """Measured by what the node used since it was started, so that it is short of it on any machine."""
        world, node = self._world, self._world.nodes[force.node]
        lived_us = world.agenda.now_us - (node.started_ms or 0) * MS
        if not node.alive or not node.used_us or lived_us <= 0:
            raise NotApplied(f"{id}: node {node.name} is {node.state}, so nobody knows what it needs")
        before = node.used_us * 1_000_000 // lived_us
        quota_us = max(1, before * force.percent * QUOTA_EVERY_US // 100 // 1_000_000)
        node.starve(quota_us)
        self._witness(id, witness.PROCESS_EVERY_MS, witness.processor(node, before, lambda: world.agenda.now_us))
        return Applied(node.feed, {"used_us_per_s": before, "quota_us": quota_us, "period_us": QUOTA_EVERY_US})

    def _disconnect(self, id: str, force: Disconnect) -> Applied:
        """What is sent waits, as the kernel's retransmission holds it, and a dial gets no answer."""
        node = self._world.nodes[force.node]
        links, gone = (*node.links.values(), *node.serving), wire.Trouble("stall", (wire.UP, wire.DOWN), 0)
        for link in links:
            link.inject(id, gone)
        self._witness(id, witness.FLOW_EVERY_MS, witness.network(links, lambda: not all(link.has(id) for link in links)))

        def undo() -> None:
            for link in links:
                link.heal(id)

        return Applied(undo, {"links": list[Json](sorted(link.name for link in links))})

    # ---- clocks and disks

    def _clock(self, id: str, force: Clock) -> Applied:
        node = self._world.nodes[force.node]
        aims = None if force.to_ms is None else force.to_ms - EPOCH_MS - self._world.now_ms()
        witnessing = self._witness(id, witness.PROCESS_EVERY_MS, self._clock_probes(id, node, aims))
        step_ms = force.step_ms if force.to_ms is None else force.to_ms - node.wall_ms()
        node.clock_faults[id] = (step_ms, force.drift_ppm, self._world.agenda.now_us)
        witnessing.look()

        def undo() -> None:
            del node.clock_faults[id]

        return Applied(undo, {"step_ms": step_ms, "drift_ppm": force.drift_ppm})

    def _clock_probes(self, id: str, node: Node, aims_ms: int | None) -> witness.Probes:
        """The node's own word on its wall clock, against ours and against the offset it was given; written down when it
        comes."""
        world, reader = self._world, self._world.clock_readers[node.name]

        def probes() -> tuple[()]:
            ours = EPOCH_MS + world.now_ms()

            def told(wall_ms: int | None) -> None:
                if wall_ms is not None:
                    self._probe(id, "clock.offset_ms", wall_ms - ours)
                if wall_ms is not None and aims_ms is not None:
                    self._probe(id, "clock.missed_ms", abs(wall_ms - ours - aims_ms))

            if node.alive:
                reader.read(told)
            return ()

        return probes

    def _disk(self, id: str, force: Disk) -> Applied:
        node = self._world.nodes[force.node]
        looks = (witness.disk(node), witness.room(node.disk)) if force.kind == "read_only" else (witness.disk(node),)
        witnessing = self._witness(id, witness.FLOW_EVERY_MS, lambda: chain.from_iterable(each() for each in looks))
        node.disk.inject(id, force.kind, force.amount)
        witnessing.look()
        return Applied(lambda: node.disk.heal(id), {"kind": force.kind, "amount": force.amount})

    def _fill(self, id: str, force: Fill) -> Applied:
        world, name = self._world, force.volume or f"the disk of {force.node}"
        room: Room = world.nodes[force.node].disk if force.volume is None else world.volumes[force.volume]
        before = room.used_ratio
        witnessing = self._witness(id, witness.FLOW_EVERY_MS, witness.room(room))
        taken = room.fill(id, force.to, force.unlinked)
        if not taken:
            room.heal(id)
            raise NotApplied(f"{id}: {name} is full to {before:.2f} already")
        witnessing.look()

        def undo() -> None:
            room.heal(id)
            if room.used_ratio >= force.to:
                raise NotHealed(f"{id}: {name} is still full to {room.used_ratio:.2f}")

        return Applied(undo, {"bytes": taken, "used_ratio": round(room.used_ratio, 4)})

    # ---- small files

    def _overwrite(self, id: str, force: Overwrite) -> Applied:
        """By a hand that has nothing to do with the node: it writes whatever state the process is in."""
        hand = Hand(self._world.agenda, self._world.nodes[force.node].disk, force)
        witnessing = self._witness(id, witness.PROCESS_EVERY_MS, hand.probes)
        hand.write()
        witnessing.look()
        return Applied(hand.stop, {"file": force.file, "bytes": len(force.content)})

    def _remove(self, id: str, force: Remove) -> Applied:
        disk = self._world.nodes[force.node].disk
        if disk.read(force.file) is None:
            raise NotApplied(f"{id}: {force.node} has no file {force.file}")
        self._probe(id, "file.gone", False)
        disk.put(force.file, None, "removed")
        self._probe(id, "file.gone", disk.read(force.file) is None)
        return Applied(lambda: None, {"file": force.file, "gone": True})

    # ---- calls

    def _call(self, id: str, force: Call) -> Applied:
        """Done at one stroke: the answer is the witness, and healing has nothing to undo."""
        saw = self._world.call(id, force)
        if saw["status"] is None:
            raise NotApplied(f"{id}: {force.node} did not answer {force.method} {force.path}")
        self._probe(id, "call.status", saw["status"])
        return Applied(lambda: None, saw)

    # ---- switches

    def _switch(self, id: str, force: Switch) -> Applied:
        answer = self._turn(force, "PUT", canonical(dict(force.arguments)))
        if answer is None or answer.status != 200:
            why = "no answer" if answer is None else f"{answer.status} {self._world.shown(answer.body, id)}"
            raise NotApplied(f"{id}: switch {force.name} of {force.node} refused: {why}")
        self._read_back(id, force)
        self._witness(id, witness.SWITCH_EVERY_MS, self._switch_probes(id, force))
        return Applied(lambda: self._turn_off(id, force), {"on": True, "arguments": dict(force.arguments)})

    def _turn(self, force: Switch, method: str, body: bytes = b"") -> Response | None:
        headers = (("content-type", "application/json"),)
        return self._world.ask(force.node, self._control(force), method, f"/switches/{force.name}", headers, body)

    def _control(self, force: Switch) -> str:
        return self._world.stack.nodes[force.node].control or ""

    def _read_back(self, id: str, force: Switch) -> None:
        answer = self._world.ask(force.node, self._control(force), "GET", "/switches")
        try:
            on = answer is not None and orjson.loads(answer.body)[force.name]["on"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            on = False
        if on is not True:
            raise NotApplied(f"{id}: {force.node} does not show switch {force.name} as on")

    def _turn_off(self, id: str, force: Switch) -> None:
        """A node that is down has forgotten its switches; one that lives must answer."""
        answer = self._turn(force, "DELETE")
        if answer is None and self._world.nodes[force.node].alive:
            raise NotHealed(f"{id}: {force.node} did not answer")
        if answer is not None and answer.status != 200:
            raise NotHealed(f"{id}: switching {force.name} off was answered {answer.status}")

    def _switch_probes(self, id: str, force: Switch) -> witness.Probes:
        """Whether the switch is on, and how often it changed what would have happened, by the node's own word."""
        world = self._world

        def heard(answer: Response | None, at: int, why: str) -> None:
            for what, value in witness.switch(force.name, answer.body) if answer is not None else ():
                world.tape.probe(id, what, value, at)

        def probes() -> tuple[()]:
            question = Question(world.agenda, world.observing, heard)
            question.ask(world.nodes[force.node], self._control(force), "GET", "/switches")
            return ()

        return probes
