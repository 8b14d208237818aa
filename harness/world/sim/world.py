"""The verbs of a world over simulated time. Given the same stack, policy and seed, the recording is the same bytes.

    SimWorld(stack, policy_name, policy, seed, folder, placebo=False, machines={node: "module:function"})

``machines`` replaces a node's machine by another, such as a mutant. Machines are loaded by name; nothing else of the
system under test is known here.
"""

from __future__ import annotations

import hashlib
import importlib
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from harness import limits
from harness.drill.model import Call, Drop, Fault, Force, Json, Predicate, Stimulus
from harness.drill.predicate import evaluate
from harness.errors import NotApplied, UsageError, WorldError, hint
from harness.recording.tape import Tape, canonical
from harness.world import DrillAct, one_by_one
from harness.world.real.streams import leaks
from harness.world.secrets import Secrets
from harness.world.sim import dice, disk, wire
from harness.world.sim.clock import MS, Agenda
from harness.world.sim.forces import Applied, Forces, refuses
from harness.world.sim.node import EPOCH_MS, Node
from harness.world.sim.observe import ClockReader, FileSampler, Question, Sampler
from harness.world.sim.shelf import Shelf
from harness.world.sim.volume import Volume
from harness.world.stack import Stack
from system_under_test.machine import Response

SPAWN_US = (80 * MS, 200 * MS)
"""From a start to the machine's first value, drawn for each: an interpreter and its imports (measured 0.1 to 0.3 s)."""

READY_EVERY_US = 10 * MS
MONO_OFFSET_MS_MAX = 10_000_000
WALL_OFFSET_US_MAX = 5 * MS
"""How far nodes' clocks lie apart: monotonic clocks have no common zero, wall clocks are well kept."""

FLUSH_EVERY_US = 10_000 * MS
DRILLED = ("applied", "pressed", "healed")
"""Steps of acts that a drill wants at a moment."""


class SimWorld:
    """One run. Verbs may be called in the order of `harness.run`; ``stop`` at any time."""

    name = "sim"

    def __init__(self, stack: Stack, policy_name: str, policy: Mapping[str, Any], seed: int, folder: Path, *,
                 placebo: bool = False, machines: Mapping[str, str] | None = None) -> None:
        self.stack, self._policy, self._seed, self._folder = stack, policy, seed, folder
        self._placebo = placebo
        self._machines: dict[str, Any] = {name: node.machine for name, node in stack.nodes.items()} | dict(machines or {})
        for name, machine in self._machines.items():
            if machine is None:
                raise UsageError(f"{stack.file}: node {name} names no machine, so it cannot run in the sim")
        self.secrets = Secrets({name: dice.token(seed, name) for name in stack.secrets})
        self.agenda = Agenda()
        self.observing = dice.stream(seed, "observing")
        self._spawning = dice.stream(seed, "spawning")
        self._tape: Tape | None = None
        self._watches: dict[str, int] = {}
        self._samplers: dict[str, Sampler | FileSampler] = {}
        self._standing: dict[str, Applied] = {}
        self._documents: dict[str, Mapping[str, Any] | None] = {}
        self._baseline: dict[str, Mapping[str, Any] | None] | None = None
        self._awaiting: _Awaited | None = None
        self._due: int | None = None
        self._streams: dict[str, dict[str, Json]] | None = None
        self.volumes = {name: Volume(each.at, each.disk_mib * disk.MIB) for name, each in stack.volumes.items()}
        self.nodes = {name: self._make_node(name) for name in stack.nodes}
        self.links = {name: self._make_link(name) for name in stack.links}
        self.builds = {name: next(iter(node.builds), "") for name, node in stack.nodes.items()}
        self.clock_readers: dict[str, ClockReader] = {}
        self._forces = Forces(self)

    # ---- what it is

    def describe(self) -> Mapping[str, Json]:
        """The head's facts, the same for equal runs."""
        return {
            "world": self.name, "placebo": self._placebo, "build": dict(self.builds),
            "proxy": {"kind": "sim", "version": "1"},
            "surfaces": {name: {"every_ms": self._watches.get(name, each.every_ms), "contract": each.contract,
                                "node": each.node} for name, each in self.stack.surfaces.items()},
            "links": {name: {"from": each.client, "to": f"{each.server}.{each.port}",
                             "transit_ms_max": each.transit_ms_max} for name, each in self.stack.links.items()},
            "nodes": list[Json](sorted(self.stack.nodes)),
        }

    def versions(self) -> Mapping[str, Json]:
        return {"python": platform.python_version(), "orjson": orjson.__version__}

    def refuses(self, act: Force | Stimulus) -> str | None:
        """Why this world cannot do that, or None."""
        return self._refuses_stimulus(act) if isinstance(act, Stimulus) else refuses(act, self.stack)

    def _refuses_stimulus(self, act: Stimulus) -> str | None:
        what = act.act
        if what.node not in self.stack.nodes:
            return f"no node {what.node!r} in the stack{hint(what.node, self.stack.nodes)}"
        ports = self.stack.nodes[what.node].ports
        if isinstance(what, Call) and what.port not in ports:
            return f"node {what.node} has no port {what.port!r}{hint(what.port, ports)}"
        if isinstance(what, Drop) and not what.lies_within:
            return f"{what.file}: a dropped file lies within the node's folder"
        return None

    # ---- time

    def now_ms(self) -> int:
        return self.agenda.now_ms

    def wall_ms(self) -> int:
        return EPOCH_MS + self.agenda.now_ms

    def interrupt(self, why: BaseException) -> bool:
        return False

    def advance_to(self, at_ms: int) -> None:
        self.agenda.run_to(at_ms * MS)

    def advance_until(self, predicate: Predicate, for_ms: int, by_ms: int) -> int | None:
        """Time passes from sample to sample until the predicate has held for so long."""
        awaited = self._awaiting = _Awaited(predicate, for_ms)
        self.agenda.run_to(by_ms * MS)
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
        if awaited is not None and surface in awaited.surfaces:
            awaited.see(evaluate(awaited.predicate, self._documents, self._baseline), at)
            if awaited.held_at is not None:
                self.agenda.halt()

    def wait_for(self, done: Callable[[], bool], for_us: int) -> bool:
        """Let time pass in small steps until something is so, at most so long."""
        until_us = self.agenda.now_us + for_us
        while not done() and self.agenda.now_us < until_us:
            self.agenda.run_to(min(self.agenda.now_us + READY_EVERY_US, until_us))
        return done()

    # ---- start, watch, stop

    def start(self, tape: Tape) -> None:
        """Bring every node up and wait until each is ready."""
        self._tape = tape
        for surface, every_ms in self._watches.items():
            self._begin_sampling(surface, every_ms)
        self.agenda.at(FLUSH_EVERY_US, self._flush)
        for name in self.nodes:
            self.spawn(name, self.builds[name])
        for name in self.nodes:
            self.await_ready(name)
        for reader in self.clock_readers.values():
            self.agenda.at(self.agenda.now_us, reader.every_second)

    def watch(self, surface: str, every_ms: int) -> None:
        if surface not in self.stack.surfaces:
            raise UsageError(f"no surface {surface!r}{hint(surface, self.stack.surfaces)}")
        self._watches[surface] = every_ms
        if self._tape is not None and surface not in self._samplers:
            self._begin_sampling(surface, every_ms)

    def stop(self) -> Mapping[str, Mapping[str, Json]]:
        """End every node in order, write the streams. Idempotent."""
        if self._streams is not None:
            return self._streams
        self._standing.clear()
        for node in self.nodes.values():
            node.on_exit = node.on_trap = _nothing
            node.resume()
            node.feed()
            node.expected_down = True
            node.ask_to_stop()
        self.wait_for(lambda: not any(node.alive for node in self.nodes.values()), limits.NODE_STOP_MS_MAX * MS)
        for node in self.nodes.values():
            node.kill()
        self._streams = {name: self._write_stream(name) for name in self.stack.streams}
        self._write_node_logs()
        if self._tape is not None:
            self._search_secrets(self._tape)
        return self._streams

    def _search_secrets(self, tape: Tape) -> None:
        """Where a secret of the run stands in what it left behind."""
        now = self.now_ms()
        tape.flush(now + FLUSH_EVERY_US // MS)
        found = self.secrets.found(leaks(self._folder, self.secrets.values, "nodes"))
        self.act("secrets", "searched", now, {"found": found})

    def _begin_sampling(self, name: str, every_ms: int) -> None:
        surface = self.stack.surfaces[name]
        node = self.nodes[surface.node]
        self._samplers[name] = \
            Sampler(self.agenda, self.observing, self.tape, self.secrets, surface, node, every_ms, self._saw) \
            if surface.file is None else \
            FileSampler(self.agenda, self.tape, self.secrets, surface, node.disk.home_of(surface.file), every_ms, self._saw)

    def _flush(self, _: object) -> None:
        self.tape.flush(self.agenda.now_ms)
        for node in self.nodes.values():
            for shelf in (node.notes, *(log.records for log in node.disk.logs.values())):
                shelf.put_away(self._folder)
        self.agenda.at(self.agenda.now_us + FLUSH_EVERY_US, self._flush)

    def _write_stream(self, name: str) -> dict[str, Json]:
        """One line a record, framing removed, as the real worlds collect it."""
        stream = self.stack.streams[name]
        node, path = self.nodes[stream.node], Path(stream.path)
        log = node.disk.logs.get(path.stem)
        shelf, torn = (node.notes, 0) if stream.framing == "lines" else \
            (log.records, log.torn_bytes) if log is not None else (Shelf(), 0)
        digest, n, room = hashlib.sha256(), 0, limits.STREAM_BYTES_MAX
        file = self._folder / "streams" / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as out:
            for block in shelf.blocks():
                fits = block if len(block) <= room else block[:block.rfind(b"\n", 0, room) + 1]
                n += fits.count(b"\n")
                room -= len(fits)
                digest.update(fits)
                out.write(fits)
                if len(fits) < len(block):
                    self.tape.limit("STREAM_BYTES_MAX", limits.STREAM_BYTES_MAX)
                    break
        return {"n": n, "sha256": digest.hexdigest(), "torn_bytes": torn}

    def _write_node_logs(self) -> None:
        """What a machine that raised had to say."""
        for name, node in self.nodes.items():
            if node.log_lines:
                file = self._folder / "node-logs" / f"{name}.log"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("".join(node.log_lines))

    # ---- nodes

    def _make_node(self, name: str) -> Node:
        mono_us = (1 + dice.integer(self._seed, f"mono:{name}", MONO_OFFSET_MS_MAX)) * MS
        wall_us = dice.integer(self._seed, f"wall:{name}", 2 * WALL_OFFSET_US_MAX) - WALL_OFFSET_US_MAX
        node = Node(name, self.agenda, self._folder.name, mono_us, wall_us)
        piped = tuple(self.stack.nodes[name].environment.get("NODE_WRITER_LOGS", "").replace(",", " ").split())
        node.disk = disk.Disk(self.agenda, dice.stream(self._seed, f"disk:{name}"), piped, node.give, node.remark,
                              self.stack.nodes[name].disk_mib * disk.MIB,
                              [self.volumes[each.name] for each in self.stack.volumes.values() if name in each.nodes])
        node.disk.dies_before = node.dies_before
        node.on_exit = self._node_ended
        return node

    def _make_link(self, name: str) -> wire.Link:
        spec = self.stack.links[name]
        server = self.nodes[spec.server]
        link = wire.Link(name, self.agenda, dice.stream(self._seed, f"link:{name}"), server, spec.port)
        self.nodes[spec.client].links[name] = link
        server.serving.append(link)
        return link

    def spawn(self, name: str, build: str) -> None:
        """Start a process; its machine hears of it a little later."""
        self.builds[name] = build
        self.nodes[name].exit_code = None
        took_us = SPAWN_US[0] + int((SPAWN_US[1] - SPAWN_US[0]) * self._spawning.random())
        self.agenda.at(self.agenda.now_us + took_us, self._begin_life, (name, build))
        source = self.stack.nodes[name].clock
        if source is not None and name not in self.clock_readers:
            self.clock_readers[name] = ClockReader(self.agenda, self.observing, self.tape,
                                                    self.nodes[name], source)

    def _begin_life(self, about: tuple[str, str]) -> None:
        name, build = about
        node = self.nodes[name]
        if self._streams is not None or node.alive:
            return
        environment = self._environment(name, build)
        provision = self.stack.nodes[name].provision
        if provision is not None:
            for file, data in _load(provision)(environment, node.wall_ms()).items():
                node.disk.put(file, data, "replaced")
        factory = _load(self._machines[name])
        node.start(lambda: factory(environment), build, int(environment["NODE_SEED"]))

    def _environment(self, name: str, build: str) -> dict[str, str]:
        """The only configuration a machine gets; the same names as in the real worlds."""
        spec = self.stack.nodes[name]
        values = {
            "NODE_NAME": name, "NODE_MACHINE": self._machines[name], "NODE_DATA": f"/sim/{name}",
            "NODE_SEED": str(dice.integer(self._seed, f"node:{name}", 2**31)), "NODE_RUN_ID": self._folder.name,
            **spec.environment, **spec.builds[build],
        }
        values = {key: self.secrets.fill(value, self._policy, self.stack.overlay) for key, value in values.items()}
        for port in spec.ports.values():
            values[port.env] = self._address(name, port.name)
        for link in self.stack.links.values():
            if link.client == name:
                values[link.env] = link.url.replace("{address}", self._address(link.server, link.port))
        return values

    def _address(self, node: str, port: str) -> str:
        """A name that looks like an address; nothing listens there."""
        known = [(name, each) for name, spec in self.stack.nodes.items() for each in spec.ports]
        return f"127.0.0.1:{20_000 + known.index((node, port))}"

    def await_ready(self, name: str) -> None:
        """Until the node answers 200 at its ready path. Raises WorldError when it does not in time."""
        node, ready = self.nodes[name], self.stack.nodes[name].ready
        until_us = self.agenda.now_us + limits.NODE_START_MS_MAX * MS
        while self.agenda.now_us < until_us:
            self.wait_for(lambda: node.alive or node.exit_code is not None, until_us - self.agenda.now_us)
            if node.alive and (ready is None or self._answers_200(name, *ready)):
                return
            if not node.alive:
                raise WorldError(f"node {name} ended with code {node.exit_code} while starting: "
                                 + (node.log_lines[-1].strip() if node.log_lines else "it said nothing"))
            self.agenda.run_to(self.agenda.now_us + READY_EVERY_US)
        raise WorldError(f"node {name} was not ready within {limits.NODE_START_MS_MAX} ms")

    def _answers_200(self, name: str, port: str, path: str) -> bool:
        answer = self.ask(name, port, "GET", path)
        return answer is not None and answer.status == 200

    def ask(self, name: str, port: str, method: str, target: str, headers: tuple[tuple[str, str], ...] = (),
             body: bytes = b"") -> Response | None:
        """Ask a node and let time pass until it has answered, or is known not to."""
        heard: list[tuple[Response | None, int]] = []
        question = Question(self.agenda, self.observing, lambda answer, at, why: heard.append((answer, at)))
        question.ask(self.nodes[name], port, method, target, headers, body)
        self.wait_for(lambda: bool(heard), 2 * limits.ANSWER_MS_MAX * MS)
        answer, at = heard[0]
        self.advance_to(at)
        return answer

    def _node_ended(self, node: Node) -> None:
        """A process that ends by itself is worth a line: nobody asked it to."""
        if node.exit_code is not None and not node.expected_down:
            now = self.agenda.now_ms
            self.tape.act(f"process.{node.name}", "exited", now, now, {"code": node.exit_code})

    # ---- stimuli

    def carry_out(self, due_ms: int, acts: Sequence[DrillAct]) -> None:
        """At their moment, one after the other: here doing takes no time, or as long as a node takes to answer."""
        self.advance_to(due_ms)
        self._due = due_ms
        try:
            one_by_one(self, acts)
        finally:
            self._due = None

    def press(self, stimulus: Stimulus) -> None:
        """Carry out an act and record what answered."""
        begin = self.now_ms()
        saw: Json = self.call(stimulus.id, stimulus.act) if isinstance(stimulus.act, Call) else self._drop(stimulus.act)
        self.act(stimulus.id, "pressed", begin, saw)
        self.tape.mark(stimulus.id, begin, self.now_ms())

    def call(self, id: str, call: Call) -> dict[str, Json]:
        """Ask as the drill says, and tell what was answered; a status of None is no answer."""
        headers = tuple((name.lower(), self.secrets.fill_header(text)) for name, text in call.headers.items())
        body = b"" if call.body is None else canonical(call.body)
        answer = self.ask(call.node, call.port, call.method, call.path, headers, body)
        if answer is None:
            return {"status": None, "taken": False, "expect": call.expect}
        taken = call.expect is None or answer.status == call.expect
        return {"status": answer.status, "taken": taken, "expect": call.expect, "answer": self.shown(answer.body, id)}

    def _drop(self, drop: Drop) -> Json:
        name = drop.file.removeprefix("files/")
        data = canonical(drop.body)
        self.nodes[drop.node].disk.put(name, data, "replaced")
        return {"file": name, "sha256": hashlib.sha256(data).hexdigest(), "taken": True}

    def shown(self, body: bytes, id: str) -> str:
        """The beginning of the answer to an act of ours, with every secret of the run blotted out."""
        return self.secrets.blotted(body.decode("utf-8", "replace"), f"the answer to {id}")[:limits.ANSWER_SHOWN_CHARS]

    # ---- faults

    def inject(self, fault: Fault) -> None:
        """Apply a fault, read it back, call its witnesses. A placebo leaves the mark and nothing else."""
        if fault.id in self._standing:
            raise NotApplied(f"{fault.id} is in force already")
        begin = self.now_ms()
        if self._placebo:
            applied = Applied(lambda: None, {"placebo": True})
        else:
            applied = self._forces.apply(fault.id, fault.force)
        self._standing[fault.id] = applied
        self.act(fault.id, "applied", begin, applied.saw)
        if not self._placebo:
            self.act(fault.id, "read_back", self.now_ms(), applied.saw)
        if applied.marks:
            self.tape.mark(fault.id, begin, self.now_ms())

    def heal(self, fault: Fault) -> None:
        """Undo a fault; a second time does nothing."""
        applied = self._standing.pop(fault.id, None)
        if applied is None:
            return
        begin = self.now_ms()
        self._forces.dismiss(fault.id)
        applied.undo()
        self.act(fault.id, "healed", begin, {"standing": list[Json](sorted(self._standing))})
        self.tape.mark(f"{fault.id}.healed", begin, self.now_ms())

    # ---- what forces need

    @property
    def tape(self) -> Tape:
        if self._tape is None:
            raise WorldError("the world has not been started")
        return self._tape

    def act(self, id: str, step: str, begin: int, saw: Json) -> None:
        due = self._due if step in DRILLED else None
        self.tape.act(id, step, begin, self.now_ms(), saw, due)


class _Awaited:
    """A predicate that is waited for: since when every sample has said yes, and when that was long enough."""

    def __init__(self, predicate: Predicate, for_ms: int) -> None:
        self.predicate, self.surfaces, self._for_ms = predicate, predicate.surfaces, for_ms
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


def _load(name: str) -> Callable[..., Any]:
    """What ``module:function`` names. Raises UsageError."""
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as why:
        raise UsageError(f"{name!r} cannot be loaded: {why}") from why


def _nothing(node: Node) -> None:
    """Nobody listens any more."""

