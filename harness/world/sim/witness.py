"""Witnesses: who can show that a fault landed. Each takes its probes when the fault is applied, as time passes, and
when it is healed. The names of what they see are listed in specs/witnesses.yaml."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import orjson

from harness.drill.model import Json
from harness.recording.tape import Tape
from harness.world.sim.clock import MS, Agenda
from harness.world.sim.node import Node
from harness.world.sim.room import Room
from harness.world.sim.wire import Link

FLOW_EVERY_MS, PROCESS_EVERY_MS, SWITCH_EVERY_MS = 200, 500, 500

Probes = Callable[[], Iterable[tuple[str, Json]]]
"""What can be seen now: pairs of name and value."""


class Witness:
    """Takes the probes of one fault until it is dismissed."""

    def __init__(self, agenda: Agenda, tape: Tape, id: str, every_ms: int, probes: Probes) -> None:
        self._agenda, self._tape, self._id, self._every_us, self._probes = agenda, tape, id, every_ms * MS, probes
        self._dismissed = False
        self._regularly(None)

    def look(self) -> None:
        for what, value in self._probes():
            self._tape.probe(self._id, what, value, self._agenda.now_ms)

    def dismiss(self) -> None:
        """One last look."""
        if not self._dismissed:
            self.look()
            self._dismissed = True

    def _regularly(self, _: object) -> None:
        if not self._dismissed:
            self.look()
            self._agenda.at(self._agenda.now_us + self._every_us, self._regularly)


def flow(link: Link, ways: tuple[int, ...]) -> Probes:
    """The accused link's own counters, in the troubled directions. Rates are since the last look, bytes a connection
    since the first; the first look says how it was before, since the link began."""
    before = {"received": 0, "segments": 0, "us": link.agenda.now_us}
    base: dict[str, int] = {}

    def probes() -> Iterable[tuple[str, Json]]:
        received, segments = _sum(link.received, ways), _sum(link.segments, ways)
        if each := link.ended - base.get("ended", 0) + len(link.connections):
            yield "flow.bytes_per_connection", (received - base.get("received", 0)) // each
        yield "flow.received_bytes", received
        yield "flow.offered_bytes", _sum(link.offered, ways)
        yield "link.connections", len(link.connections)
        yield "link.connections_ended", link.ended
        yield "link.dial_refused", link.refused
        passed_us = link.agenda.now_us - before["us"]
        if passed_us:
            yield "flow.rate_bytes_per_s", (received - before["received"]) * 1_000_000 // passed_us
        if segments > before["segments"]:
            yield "flow.bytes_per_segment", (received - before["received"]) // (segments - before["segments"])
            if base:  # what was late before is no word about this fault
                yield "flow.lag_ms", max(link.lag_us_max[way] for way in ways) // MS
        before.update(received=received, segments=segments, us=link.agenda.now_us)
        if not base:
            base.update(received=received, ended=link.ended)
        for way in ways:
            link.lag_us_max[way] = 0

    return probes


def _sum(counters: list[int], ways: tuple[int, ...]) -> int:
    return sum(counters[way] for way in ways)


def process(node: Node) -> Probes:
    """The process table's word: T while stopped, S otherwise, X when there is none."""

    def probes() -> Iterable[tuple[str, Json]]:
        yield "process.alive", node.alive
        yield "process.state", {"up": "S", "throttled": "R", "paused": "T", "down": "X"}[node.state]
        yield "process.start_time", node.started_ms
        yield "process.exit_code", node.exit_code
        yield "process.oom_killed", node.oom_killed
        yield "node.build", node.build

    return probes


def processor(node: Node, before_us_per_s: int, now_us: Callable[[], int]) -> Probes:
    """How long the node was kept from the processor, and what it gets of it, in percent of what it used before."""
    last = {"used": node.used_us, "at": now_us()}

    def probes() -> Iterable[tuple[str, Json]]:
        yield "cpu.throttled_ms", node.throttled_us // MS
        passed_us = now_us() - last["at"]
        if passed_us >= PROCESS_EVERY_MS * MS:
            yield "cpu.percent_of_before", 100 * (node.used_us - last["used"]) * 1_000_000 // (passed_us * before_us_per_s)
            last.update(used=node.used_us, at=now_us())

    return probes


def network(links: Iterable[Link], attached: Callable[[], bool]) -> Probes:
    """Whether a node has its network, and the bytes of all its links, whatever way."""
    links = tuple(links)

    def probes() -> Iterable[tuple[str, Json]]:
        yield "network.attached", attached()
        yield "flow.received_bytes", sum(sum(each.received) for each in links)
        yield "flow.offered_bytes", sum(sum(each.offered) for each in links)

    return probes


def disk(node: Node) -> Probes:
    """The disk's own counters."""

    def probes() -> Iterable[tuple[str, Json]]:
        yield "ledger.durable_bytes", node.disk.durable_bytes
        yield "disk.refusals", node.disk.refusals
        yield "disk.sync_ms", node.disk.sync_us // MS
        yield "disk.lost_bytes", node.disk.lost_bytes
        yield "disk.waiting", node.disk.waiting

    return probes


def room(room: Room) -> Probes:
    """How full a disk is by either count, and whether somebody else could still write a page there."""

    def probes() -> Iterable[tuple[str, Json]]:
        yield "disk.used_ratio", round(room.used_ratio, 4)
        yield "disk.files_ratio", round(room.files_ratio, 4)
        yield "disk.write_refused", room.refuses_file(1) is not None

    return probes


def switch(name: str, body: bytes) -> Iterable[tuple[str, Json]]:
    """Whether a switch is on and how often it was used, from the answer to GET /switches."""
    try:
        switches = orjson.loads(body)
    except orjson.JSONDecodeError:
        return
    found = switches.get(name) if isinstance(switches, Mapping) else None
    if isinstance(found, Mapping):
        yield from ((f"switch.{what}", found[what]) for what in ("on", "uses") if found.get(what) is not None)
