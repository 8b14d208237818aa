"""The verbs of a world over simulated time. Given the same stack, policy and seed, the recording is the same bytes.

    SimWorld(stack, policy_name, policy, seed, folder, placebo=False, machines={node: "module:function"})

``machines`` replaces a node's machine by another, such as a mutant. Machines are loaded by name; nothing else of the
system under test is known here.
"""

from __future__ import annotations

import hashlib
import importlib
import platform
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from harness import limits
from harness.drill.model import (
    Call,
    Clock,
    Deploy,
    Disk,
    Drop,
    Fault,
    Force,
    Json,
    Kill,
    LinkFault,
    Pause,
    Predicate,
    RawToxic,
    Stimulus,
    Switch,
)
from harness.drill.predicate import evaluate
from harness.errors import NotApplied, NotHealed, UsageError, WorldError, nearest
from harness.recording.tape import Tape, canonical
from harness.world.sim import dice, wire, witness
from harness.world.sim import disk as sim_disk
from harness.world.sim.clock import MS, Agenda
from harness.world.sim.node import EPOCH_MS, Node
from harness.world.sim.observe import ClockReader, Question, Sampler
from harness.world.sim.trap import MEANINGS, Trap
from harness.world.stack import Stack
from system_under_test.machine import Response

SPAWN_US = (80 * MS, 200 * MS)
"""From a start to the machine's first value, drawn for each: an interpreter and its imports (measured 0.1 to 0.3 s)."""

READY_EVERY_US = 10 * MS
MONO_OFFSET_MS_MAX = 10_000_000
WALL_OFFSET_US_MAX = 5 * MS
"""How far nodes' clocks lie apart: monotonic clocks have no common zero, wall clocks are well kept."""

FLUSH_EVERY_US = 10_000 * MS

_SECRET = re.compile(r"\$\{secret:([A-Z_]+)\}")


class SimWorld:
    """One run. Verbs may be called in the order of `harness.run`; ``stop`` at any time."""

    name = "sim"

    def __init__(self, stack: Stack, policy_name: str, policy: Mapping[str, Any], seed: int, folder: Path, *,
                 placebo: bool = False, machines: Mapping[str, str] | None = None) -> None:
        self._stack, self._policy, self._seed, self._folder = stack, policy, seed, folder
        self._placebo = placebo
        self._machines = {name: node.machine for name, node in stack.nodes.items()} | dict(machines or {})
        self._secrets = {name: dice.token(seed, name) for name in stack.secrets}
        self._agenda = Agenda()
        self._observing = dice.stream(seed, "observing")
        self._spawning = dice.stream(seed, "spawning")
        self._tape: Tape | None = None
        self._watches: dict[str, int] = {}
        self._samplers: dict[str, Sampler] = {}
        self._standing: dict[str, Callable[[], None]] = {}
        self._witnesses: dict[str, witness.Witness] = {}
        self._armed: dict[str, tuple[str, int]] = {}
        self._documents: dict[str, Mapping[str, Any] | None] = {}
        self._baseline: dict[str, Mapping[str, Any] | None] | None = None
        self._awaiting: _Awaited | None = None
        self._streams: dict[str, dict[str, Json]] | None = None
        self._nodes = {name: self._make_node(name) for name in stack.nodes}
        self._links = {name: self._make_link(name) for name in stack.links}
        self._builds = {name: next(iter(node.builds), "") for name, node in stack.nodes.items()}
        self._clock_readers: dict[str, ClockReader] = {}
        self._inject = {
            LinkFault: self._inject_link, RawToxic: self._inject_link, Kill: self._inject_kill,
            Pause: self._inject_pause, Deploy: self._inject_deploy, Clock: self._inject_clock,
            Disk: self._inject_disk, Switch: self._inject_switch,
        }

    # ---- what it is

    def describe(self) -> Mapping[str, Json]:
        """The head's facts, the same for equal runs."""
        return {
            "world": self.name, "placebo": self._placebo, "build": dict(self._builds),
            "proxy": {"kind": "sim", "version": "1"},
            "surfaces": {name: {"every_ms": self._watches.get(name, each.every_ms), "contract": each.contract,
                                "node": each.node} for name, each in self._stack.surfaces.items()},
            "links": {name: {"from": each.client, "to": f"{each.server}.{each.port}",
                             "transit_ms_max": each.transit_ms_max} for name, each in self._stack.links.items()},
            "nodes": sorted(self._stack.nodes),
        }

    def versions(self) -> Mapping[str, Json]:
        return {"python": platform.python_version(), "orjson": orjson.__version__}

    def refuses(self, act: Force | Stimulus) -> str | None:
        """Why this world cannot do that, or None."""
        if isinstance(act, Stimulus):
            return self._refuses_stimulus(act)
        if isinstance(act, (LinkFault, RawToxic)):
            if act.link not in self._stack.links:
                return f"no link {act.link!r} in the stack; nearest: {nearest(act.link, self._stack.links)}"
            return wire.refuses(act)
        if act.node not in self._stack.nodes:
            return f"no node {act.node!r} in the stack; nearest: {nearest(act.node, self._stack.nodes)}"
        return self._refuses_on_node(act)

    def _refuses_on_node(self, act: Force) -> str | None:
        node = self._stack.nodes[act.node]
        if isinstance(act, (Kill, Deploy)) and act.build is not None and act.build not in node.builds:
            return f"node {act.node} has no build {act.build!r}; it has {', '.join(node.builds)}"
        if isinstance(act, Kill) and act.before is not None and act.before[0] not in MEANINGS:
            return f"no crash point {act.before[0]!r}; known: {', '.join(MEANINGS)}"
        if isinstance(act, Switch) and node.control is None:
            return f"node {act.node} has no control port for switches"
        if isinstance(act, Clock) and node.clock is None:
            return f"node {act.node} tells no clock, so a change of it could not be seen"
        if isinstance(act, Disk) and act.kind == "slow" and not act.amount:
            return "a slow disk needs the time that a sync takes"
        return None

    def _refuses_stimulus(self, act: Stimulus) -> str | None:
        what = act.act
        if what.node not in self._stack.nodes:
            return f"no node {what.node!r} in the stack; nearest: {nearest(what.node, self._stack.nodes)}"
        ports = self._stack.nodes[what.node].ports
        if isinstance(what, Call) and what.port not in ports:
            return f"node {what.node} has no port {what.port!r}; nearest: {nearest(what.port, ports)}"
        return None

    # ---- time

    def now_ms(self) -> int:
        return self._agenda.now_ms

    def advance_to(self, at_ms: int) -> None:
        self._agenda.run_to(at_ms * MS)

    def advance_until(self, predicate: Predicate, for_ms: int, by_ms: int) -> int | None:
        """Time passes from sample to sample until the predicate has held for so long."""
        awaited = self._awaiting = _Awaited(predicate, for_ms)
        self._agenda.run_to(by_ms * MS)
        self._awaiting = None
        if awaited.held_at is not None:
            self.advance_to(awaited.held_at)
        if self._baseline is None:
            self._baseline = dict(self._documents)
        return awaited.held_at

    def _saw(self, surface: str, document: Mapping[str, Any] | None, at: int) -> None:
        """A slot of a surface was answered or not: the latest word on it."""
        self._documents[surface] = document
        awaited = self._awaiting
        if awaited is not None and surface in awaited.predicate.surfaces:
            awaited.see(evaluate(awaited.predicate, self._documents, self._baseline), at)
            if awaited.held_at is not None:
                self._agenda.halt()

    def _wait_for(self, done: Callable[[], bool], for_us: int) -> bool:
        """Let time pass in small steps until something is so, at most so long."""
        until_us = self._agenda.now_us + for_us
        while not done() and self._agenda.now_us < until_us:
            self._agenda.run_to(min(self._agenda.now_us + READY_EVERY_US, until_us))
        return done()

    # ---- start, watch, stop

    def start(self, tape: Tape) -> None:
        """Bring every node up and wait until each is ready."""
        self._tape = tape
        for surface, every_ms in self._watches.items():
            self._begin_sampling(surface, every_ms)
        self._agenda.at(FLUSH_EVERY_US, self._flush)
        for name in self._nodes:
            self._spawn(name, self._builds[name])
        for name in self._nodes:
            self._await_ready(name)
        for reader in self._clock_readers.values():
            self._agenda.at(self._agenda.now_us, reader.every_second)

    def watch(self, surface: str, every_ms: int) -> None:
        if surface not in self._stack.surfaces:
            raise UsageError(f"no surface {surface!r}; nearest: {nearest(surface, self._stack.surfaces)}")
        self._watches[surface] = every_ms
        if self._tape is not None and surface not in self._samplers:
            self._begin_sampling(surface, every_ms)

    def stop(self) -> Mapping[str, Mapping[str, Json]]:
        """End every node in order, write the streams. Idempotent."""
        if self._streams is not None:
            return self._streams
        for id in list(self._standing):
            self._standing.pop(id)()
        for node in self._nodes.values():
            node.on_exit = node.on_trap = _nothing
            node.resume()
            node.expected_down = True
            node.ask_to_stop()
        self._wait_for(lambda: not any(node.alive for node in self._nodes.values()), limits.NODE_STOP_MS_MAX * MS)
        for node in self._nodes.values():
            node.kill()
        self._streams = {name: self._write_stream(name) for name in self._stack.streams}
        self._write_node_logs()
        return self._streams

    def _begin_sampling(self, name: str, every_ms: int) -> None:
        surface = self._stack.surfaces[name]
        self._samplers[name] = Sampler(self._agenda, self._observing, self._must_tape(), surface,
                                       self._nodes[surface.node], every_ms, self._saw)

    def _flush(self, _: object) -> None:
        self._must_tape().flush(self._agenda.now_ms)
        self._agenda.at(self._agenda.now_us + FLUSH_EVERY_US, self._flush)

    def _write_stream(self, name: str) -> dict[str, Json]:
        """One line a record, framing removed, as the real worlds collect it."""
        stream = self._stack.streams[name]
        node, path = self._nodes[stream.node], Path(stream.path)
        log = node.disk.logs.get(path.stem)
        records, torn = (node.notes, 0) if stream.framing == "lines" else \
            (log.records, log.torn_bytes) if log is not None else ([], 0)
        digest = hashlib.sha256()
        file = self._folder / "streams" / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as out:
            for record in records:
                digest.update(record + b"\n")
                out.write(record + b"\n")
        return {"n": len(records), "sha256": digest.hexdigest(), "torn_bytes": torn}

    def _write_node_logs(self) -> None:
        """What a machine that raised had to say."""
        for name, node in self._nodes.items():
            if node.log_lines:
                file = self._folder / "node-logs" / f"{name}.log"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("".join(node.log_lines))

    # ---- nodes

    def _make_node(self, name: str) -> Node:
        mono_us = (1 + dice.integer(self._seed, f"mono:{name}", MONO_OFFSET_MS_MAX)) * MS
        wall_us = dice.integer(self._seed, f"wall:{name}", 2 * WALL_OFFSET_US_MAX) - WALL_OFFSET_US_MAX
        node = Node(name, self._agenda, self._folder.name, mono_us, wall_us)
        piped = tuple(self._stack.nodes[name].environment.get("NODE_WRITER_LOGS", "").replace(",", " ").split())
        node.disk = sim_disk.Disk(self._agenda, dice.stream(self._seed, f"disk:{name}"), piped, node.give, node.remark)
        node.on_exit = self._node_ended
        return node

    def _make_link(self, name: str) -> wire.Link:
        spec = self._stack.links[name]
        server = self._nodes[spec.server]
        link = wire.Link(name, self._agenda, dice.stream(self._seed, f"link:{name}"), server, spec.port)
        self._nodes[spec.client].links[name] = link
        server.serving.append(link)
        return link

    def _spawn(self, name: str, build: str) -> None:
        """Start a process; its machine hears of it a little later."""
        self._builds[name] = build
        took_us = SPAWN_US[0] + int((SPAWN_US[1] - SPAWN_US[0]) * self._spawning.random())
        self._agenda.at(self._agenda.now_us + took_us, self._begin_life, (name, build))
        source = self._stack.nodes[name].clock
        if source is not None and name not in self._clock_readers:
            self._clock_readers[name] = ClockReader(self._agenda, self._observing, self._must_tape(),
                                                    self._nodes[name], source)

    def _begin_life(self, about: tuple[str, str]) -> None:
        name, build = about
        node = self._nodes[name]
        if self._streams is not None or node.alive:
            return
        environment = self._environment(name, build)
        provision = self._stack.nodes[name].provision
        if provision is not None:
            node.disk.files.update(_load(provision)(environment, node.wall_ms()))
        factory = _load(self._machines[name] or "")
        node.start(lambda: factory(environment), build, int(environment["NODE_SEED"]))

    def _environment(self, name: str, build: str) -> dict[str, str]:
        """The only configuration a machine gets; the same names as in the real worlds."""
        spec = self._stack.nodes[name]
        values = {
            "NODE_NAME": name, "NODE_MACHINE": self._machines[name] or "", "NODE_DATA": f"/sim/{name}",
            "NODE_SEED": str(dice.integer(self._seed, f"node:{name}", 2**31)), "NODE_RUN_ID": self._folder.name,
            **spec.environment, **spec.builds[build],
        }
        values = {key: self._filled(value) for key, value in values.items()}
        for port in spec.ports.values():
            values[port.env] = self._address(name, port.name)
        for link in self._stack.links.values():
            if link.client == name:
                values[link.env] = link.url.replace("{address}", self._address(link.server, link.port))
        return values

    def _filled(self, value: str) -> str:
        for name, secret in self._secrets.items():
            value = value.replace("{secret:" + name + "}", secret)
        return value.replace("{policy}", canonical(self._policy).decode()) if value == "{policy}" else value

    def _address(self, node: str, port: str) -> str:
        """A name that looks like an address; nothing listens there."""
        known = [(name, each) for name, spec in self._stack.nodes.items() for each in spec.ports]
        return f"127.0.0.1:{20_000 + known.index((node, port))}"

    def _await_ready(self, name: str) -> None:
        """Until the node answers 200 at its ready path. Raises WorldError when it does not in time."""
        node, ready = self._nodes[name], self._stack.nodes[name].ready
        until_us = self._agenda.now_us + limits.NODE_START_MS_MAX * MS
        while self._agenda.now_us < until_us:
            self._wait_for(lambda: node.alive or node.exit_code is not None, until_us - self._agenda.now_us)
            if node.alive and (ready is None or self._answers_200(name, *ready)):
                return
            if not node.alive:
                raise WorldError(f"node {name} ended with code {node.exit_code} while starting: "
                                 + (node.log_lines[-1].strip() if node.log_lines else "it said nothing"))
            self._agenda.run_to(self._agenda.now_us + READY_EVERY_US)
        raise WorldError(f"node {name} was not ready within {limits.NODE_START_MS_MAX} ms")

    def _answers_200(self, name: str, port: str, path: str) -> bool:
        answer = self._ask(name, port, "GET", path)
        return answer is not None and answer.status == 200

    def _ask(self, name: str, port: str, method: str, target: str, headers: tuple[tuple[str, str], ...] = (),
             body: bytes = b"") -> Response | None:
        """Ask a node and let time pass until it has answered, or is known not to."""
        heard: list[tuple[Response | None, int]] = []
        question = Question(self._agenda, self._observing, lambda answer, at, why: heard.append((answer, at)))
        question.ask(self._nodes[name], port, method, target, headers, body)
        self._wait_for(lambda: bool(heard), 2 * limits.ANSWER_MS_MAX * MS)
        answer, at = heard[0]
        self.advance_to(at)
        return answer

    def _node_ended(self, node: Node) -> None:
        """A process that ends by itself is worth a line: nobody asked it to."""
        if node.exit_code is not None and not node.expected_down:
            now = self._agenda.now_ms
            self._must_tape().act(f"process.{node.name}", "exited", now, now, {"code": node.exit_code})

    # ---- stimuli

    def press(self, stimulus: Stimulus) -> None:
        """Carry out an act and record what answered."""
        begin = self.now_ms()
        saw = self._call(stimulus.act) if isinstance(stimulus.act, Call) else self._drop(stimulus.act)
        self._act(stimulus.id, "pressed", begin, saw)
        self._must_tape().mark(stimulus.id, begin, self.now_ms())

    def _call(self, call: Call) -> Json:
        headers = tuple((name.lower(), _SECRET.sub(lambda match: self._secrets.get(match[1], ""), text))
                        for name, text in call.headers.items())
        body = b"" if call.body is None else canonical(call.body)
        answer = self._ask(call.node, call.port, call.method, call.path, headers, body)
        if answer is None:
            return {"status": None, "taken": False}
        taken = call.expect is None or answer.status == call.expect
        return {"status": answer.status, "taken": taken, "body": self._shown(answer.body)}

    def _drop(self, drop: Drop) -> Json:
        name = drop.file.removeprefix("files/")
        self._nodes[drop.node].disk.files[name] = data = canonical(drop.body)
        return {"file": name, "sha256": hashlib.sha256(data).hexdigest(), "taken": True}

    def _shown(self, body: bytes) -> str:
        """The beginning of an answer, with every secret of the run blotted out."""
        text = body[:limits.RAW_HEAD_BYTES].decode("utf-8", "replace")
        for secret in self._secrets.values():
            text = text.replace(secret, "***")
        return text

    # ---- faults

    def inject(self, fault: Fault) -> None:
        """Apply a fault, read it back, call its witnesses. A placebo leaves the mark and nothing else."""
        begin = self.now_ms()
        if self._placebo:
            self._standing[fault.id] = _nothing_to_undo
            self._act(fault.id, "applied", begin, {"placebo": True})
            self._must_tape().mark(fault.id, begin, self.now_ms())
            return
        if fault.id in self._standing:
            raise NotApplied(f"{fault.id} is in force already")
        self._inject[type(fault.force)](fault)
        if fault.id not in self._armed:
            self._must_tape().mark(fault.id, begin, self.now_ms())

    def heal(self, fault: Fault) -> None:
        """Undo a fault; a second time does nothing."""
        undo = self._standing.pop(fault.id, None)
        if undo is None:
            return
        begin = self.now_ms()
        witnessing = self._witnesses.pop(fault.id, None)
        if witnessing is not None:
            witnessing.dismiss()
        undo()
        self._act(fault.id, "healed", begin, {"standing": sorted(self._standing)})
        self._must_tape().mark(f"{fault.id}.healed", begin, self.now_ms())

    def _applied(self, fault: Fault, undo: Callable[[], None], saw: Json, witnessing: witness.Witness | None) -> None:
        """Keep how to undo it, write down that it was applied and what reading it back said."""
        self._standing[fault.id] = undo
        if witnessing is not None:
            self._witnesses[fault.id] = witnessing
        self._act(fault.id, "applied", self.now_ms(), saw)
        self._act(fault.id, "read_back", self.now_ms(), saw)

    def _witness(self, id: str, every_ms: int, probes: witness.Probes) -> witness.Witness:
        return witness.Witness(self._agenda, self._must_tape(), id, every_ms, probes)

    def _inject_link(self, fault: Fault) -> None:
        force = fault.force
        link, trouble = self._links[force.link], wire.trouble_of(force)
        witnessing = self._witness(fault.id, witness.FLOW_EVERY_MS, witness.flow(link, trouble.ways))
        link.inject(fault.id, trouble)
        if not link.has(fault.id):
            raise NotApplied(f"{fault.id}: the link does not show it")
        witnessing.look()
        self._applied(fault, lambda: link.heal(fault.id), {"effect": trouble.effect, "amount": trouble.amount},
                      witnessing)

    def _inject_kill(self, fault: Fault) -> None:
        node, force = self._nodes[fault.force.node], fault.force
        build = force.build or self._builds[node.name]
        if force.before is None:
            node.expected_down = True
            witnessing = self._witness(fault.id, witness.PROCESS_EVERY_MS, witness.process(node))
            node.kill()
            witnessing.look()
            self._applied(fault, lambda: self._start_again(fault, build), {"alive": node.alive}, witnessing)
            return
        self._arm(fault, node)
        self._applied(fault, lambda: self._disarm(fault, node, build), {"armed": True}, None)

    def _arm(self, fault: Fault, node: Node) -> None:
        """Set the trap; the fault's mark is the moment of death."""
        node.trap = Trap(*fault.force.before)
        node.on_trap = lambda dead: self._sprung(fault, dead)
        self._armed[fault.id] = (node.name, self.now_ms())
        self._must_tape().probe(fault.id, "trap.hit", False, self.now_ms())

    def _sprung(self, fault: Fault, node: Node) -> None:
        node.expected_down = True
        now = self.now_ms()
        self._armed.pop(fault.id, None)
        self._must_tape().mark(fault.id, now, now)
        self._must_tape().probe(fault.id, "trap.hit", True, now)
        self._witnesses[fault.id] = self._witness(fault.id, witness.PROCESS_EVERY_MS, witness.process(node))

    def _disarm(self, fault: Fault, node: Node, build: str) -> None:
        """Start again what died; a trap that was never reached is taken away and said to have missed."""
        missed = self._armed.pop(fault.id, None)
        if missed is not None:
            node.trap = None
            self._must_tape().mark(fault.id, missed[1], self.now_ms())
            self._must_tape().probe(fault.id, "trap.hit", False, self.now_ms())
            return
        self._start_again(fault, build)

    def _start_again(self, fault: Fault, build: str) -> None:
        name = fault.force.node
        if not self._nodes[name].alive:
            self._nodes[name].exit_code = None
            self._spawn(name, build)
            self._await_ready_or(fault, name)
        for what, value in witness.process(self._nodes[name])():
            self._must_tape().probe(fault.id, what, value, self.now_ms())

    def _await_ready_or(self, fault: Fault, name: str) -> None:
        try:
            self._await_ready(name)
        except WorldError as why:
            raise NotHealed(f"{fault.id}: {why}") from why

    def _inject_pause(self, fault: Fault) -> None:
        node = self._nodes[fault.force.node]
        node.pause()
        if node.state != "paused":
            raise NotApplied(f"{fault.id}: node {node.name} is {node.state}")
        witnessing = self._witness(fault.id, witness.PROCESS_EVERY_MS, witness.process(node))
        self._applied(fault, node.resume, {"state": "T"}, witnessing)

    def _inject_deploy(self, fault: Fault) -> None:
        """Stop in order, start the other build over the same data. Healing has nothing to undo."""
        node = self._nodes[fault.force.node]
        witnessing = self._witness(fault.id, witness.PROCESS_EVERY_MS, witness.process(node))
        node.expected_down = True
        node.ask_to_stop()
        if not self._wait_for(lambda: not node.alive, limits.NODE_STOP_MS_MAX * MS):
            node.kill()
        node.exit_code = None
        self._spawn(node.name, fault.force.build)
        try:
            self._await_ready(node.name)
        except WorldError as why:
            raise NotApplied(f"{fault.id}: {why}") from why
        witnessing.look()
        self._applied(fault, _nothing_to_undo, {"build": node.build}, witnessing)

    def _inject_clock(self, fault: Fault) -> None:
        node, force = self._nodes[fault.force.node], fault.force
        witnessing = self._witness(fault.id, witness.PROCESS_EVERY_MS, self._clock_probes(fault.id, node))
        node.clock_faults[fault.id] = (force.step_ms, force.drift_ppm, self._agenda.now_us)
        witnessing.look()
        self._applied(fault, lambda: self._heal_clock(fault.id, node),
                      {"step_ms": force.step_ms, "drift_ppm": force.drift_ppm}, witnessing)

    def _heal_clock(self, id: str, node: Node) -> None:
        node.clock_faults.pop(id, None)
        self._clock_probes(id, node)()

    def _clock_probes(self, id: str, node: Node) -> witness.Probes:
        """The node's own word on its wall clock, against ours; told when it comes."""
        reader, tape = self._clock_readers[node.name], self._must_tape()

        def probes() -> tuple[()]:
            ours = EPOCH_MS + self._agenda.now_ms
            reader.read(lambda wall: tape.probe(id, "clock.offset_ms", wall - ours, self._agenda.now_ms)
                        if isinstance(wall, int) else None)
            return ()

        return probes

    def _inject_disk(self, fault: Fault) -> None:
        node, force = self._nodes[fault.force.node], fault.force
        witnessing = self._witness(fault.id, witness.FLOW_EVERY_MS, witness.disk(node))
        node.disk.inject(fault.id, force.kind, force.amount)
        self._applied(fault, lambda: node.disk.heal(fault.id), {"kind": force.kind, "amount": force.amount},
                      witnessing)

    def _inject_switch(self, fault: Fault) -> None:
        force = fault.force
        begin = self.now_ms()
        answer = self._switch(force, "PUT", canonical(dict(force.arguments)))
        if answer is None or answer.status != 200:
            why = "no answer" if answer is None else f"{answer.status} {self._shown(answer.body)}"
            raise NotApplied(f"{fault.id}: switch {force.name} of {force.node} refused: {why}")
        self._act(fault.id, "applied", begin, {"status": answer.status})
        self._standing[fault.id] = lambda: self._heal_switch(fault)
        begin = self.now_ms()
        self._act(fault.id, "read_back", begin, {"on": self._switch_is_on(force)})
        self._witnesses[fault.id] = self._witness(fault.id, witness.SWITCH_EVERY_MS, self._switch_probes(fault))

    def _switch(self, force: Switch, method: str, body: bytes = b"") -> Response | None:
        port = self._stack.nodes[force.node].control or ""
        headers = (("content-type", "application/json"),)
        return self._ask(force.node, port, method, f"/switches/{force.name}", headers, body)

    def _switch_is_on(self, force: Switch) -> bool:
        """Read back; raises NotApplied when the node does not say that it is on."""
        answer = self._ask(force.node, self._stack.nodes[force.node].control or "", "GET", "/switches")
        try:
            on = answer is not None and orjson.loads(answer.body)[force.name]["on"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            on = False
        if on is not True:
            raise NotApplied(f"{force.node} does not show switch {force.name} as on")
        return True

    def _heal_switch(self, fault: Fault) -> None:
        """Switch off; a node that is down or mute keeps nothing on that a start would not clear."""
        answer = self._switch(fault.force, "DELETE")
        if answer is None and self._nodes[fault.force.node].alive:
            raise NotHealed(f"{fault.id}: {fault.force.node} did not answer")
        if answer is not None and answer.status != 200:
            raise NotHealed(f"{fault.id}: switching off was answered {answer.status}")
        if answer is not None:
            uses = _uses(answer.body)
            if uses is not None:
                self._must_tape().probe(fault.id, "switch.uses", uses, self.now_ms())

    def _switch_probes(self, fault: Fault) -> witness.Probes:
        """How often the switch changed what would have happened, by the node's own count."""
        force, tape = fault.force, self._must_tape()
        port = self._stack.nodes[force.node].control or ""

        def heard(answer: Response | None, at: int, why: str) -> None:
            uses = witness.uses_of(force.name, answer.body) if answer is not None else None
            if uses is not None:
                tape.probe(fault.id, "switch.uses", uses, at)

        def probes() -> tuple[()]:
            Question(self._agenda, self._observing, heard).ask(self._nodes[force.node], port, "GET", "/switches")
            return ()

        return probes

    # ---- small things

    def _act(self, id: str, step: str, begin: int, saw: Json) -> None:
        self._must_tape().act(id, step, begin, self.now_ms(), saw)

    def _must_tape(self) -> Tape:
        if self._tape is None:
            raise WorldError("the world has not been started")
        return self._tape


class _Awaited:
    """A predicate that is waited for: since when every sample has said yes, and when that was long enough."""

    def __init__(self, predicate: Predicate, for_ms: int) -> None:
        self.predicate, self._for_ms = predicate, for_ms
        self._since: int | None = None
        self.held_at: int | None = None

    def see(self, holds: bool | None, at: int) -> None:
        if not holds:
            self._since = None
            return
        if self._since is None:
            self._since = at
        if at - self._since >= self._for_ms and self.held_at is None:
            self.held_at = at


def _uses(body: bytes) -> int | None:
    try:
        uses = orjson.loads(body)["uses"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return uses if isinstance(uses, int) else None


def _load(name: str) -> Callable[..., Any]:
    """What ``module:function`` names. Raises UsageError."""
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as why:
        raise UsageError(f"{name!r} cannot be loaded: {why}") from why


def _nothing(node: Node) -> None:
    """Nobody listens any more."""


def _nothing_to_undo() -> None:
    """Healing leaves things as they are."""
