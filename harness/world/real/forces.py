"""The forces that every real world has: on links, through Toxiproxy, and on switches of a node's control port."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import orjson

from harness import limits
from harness.drill.model import Call, Fault, Json, LinkFault, RawToxic, Switch
from harness.errors import NotApplied, NotHealed
from harness.world.real import effects, http
from harness.world.real.nodes import RealNode
from harness.world.real.proxies import Proxies
from harness.world.real.sockets import LinkMeter, Passage
from harness.world.real.world import RealWorld

OK = 200


class OnLink:
    """An effect or a raw toxic on one link. Its witnesses are the byte counters of that link's own sockets."""

    marks_itself = False

    def __init__(self, world: RealWorld, proxies: Proxies, fault: Fault, force: LinkFault | RawToxic) -> None:
        self._world, self._proxies, self._fault, self._force = world, proxies, fault, force
        self._toxics = effects.toxics(fault.id, force)
        self._before: tuple[int, int, int] | None = None
        self._base: tuple[int, int] | None = None
        self._refused = 0
        self._stands = False
        """wholly: whoever was interrupted while applying or healing cannot say how the server ought to be"""

    async def prepare(self) -> None:
        link = self._force.link
        if not any(isinstance(each.fault.force, (LinkFault, RawToxic)) and each.fault.force.link == link
                   and each.fault is not self._fault for each in self._world.standing):
            for passage in self._passages():
                passage.rebase()
        if effects.is_cut(self._force):
            self._world.will(self._fault, "enable_proxy", server=self._proxies.identity(), proxy=link)
            return
        names: list[Json] = [each.name for each in self._toxics]
        self._world.will(self._fault, "remove_toxics", server=self._proxies.identity(), proxy=link, toxics=names)

    async def apply(self) -> tuple[Json, Json]:
        with self._proxies.acting():
            seen = await self._apply(self._force.link)
        self._stands = True
        return seen

    async def _apply(self, link: str) -> tuple[Json, Json]:
        if effects.is_cut(self._force):
            seen = await asyncio.to_thread(self._proxies.client.enable, link, False)
            self._proxies.should_be(link, enabled=False)
            return {"proxy": link, "enabled": False}, seen
        read: list[Json] = []
        for each in self._toxics:
            read.append(await asyncio.to_thread(self._proxies.client.add, link, each))
            self._proxies.should_have(link, {each.name: read[-1]})
        asked: list[Json] = [{"name": each.name, "type": each.type, "stream": each.stream,
                              "attributes": dict(each.attributes)} for each in self._toxics]
        return {"proxy": link, "toxics": asked}, read

    async def heal(self) -> Json:
        if self._stands and self._proxies.died is None:
            why = await asyncio.to_thread(self._proxies.strayed, self._world.epoch.floor_ms())
            if why is not None:
                raise NotHealed(self._world.disturbed(why, self._proxies.right_ms))
        self._stands = False
        with self._proxies.acting():
            seen = await self._world.take_back(self._fault)
            self._proxies.should_not_have(self._force.link, [each.name for each in self._toxics])
            if effects.is_cut(self._force):
                self._proxies.should_be(self._force.link, enabled=True)
        return seen

    async def probe(self) -> Mapping[str, Json]:
        now = self._world.epoch.floor_ms()
        await self._proxies.read(now)
        meter, passages = self._meter(), self._passages()
        found: dict[str, Json] = {
            "flow.offered_bytes": sum(each.sender.offered for each in passages),
            "flow.received_bytes": sum(each.receiver.received for each in passages),
            "flow.lag_ms": max(each.lag_ms(now) for each in passages),
            "link.connections": meter.connections,
            "link.connections_ended": meter.client.ended,
            **self._rates(now),
        }
        if effects.is_cut(self._force):
            self._refused += await self._proxies.refuses_dial(self._force.link)
            found["link.dial_refused"] = self._refused
        return found

    def _rates(self, now: int) -> dict[str, Json]:
        """Bytes a connection since the first reading; bytes a second, and a segment where any came, since the last.
        The first reading says how it was before, since the link began."""
        received = sum(each.receiver.received for each in self._passages())
        segments = sum(each.receiver.segments for each in self._passages())
        ended, standing = self._meter().client.ended, self._meter().connections
        base, (before, self._before) = self._base or (0, 0), (self._before, (now, received, segments))
        rates: dict[str, Json] = {}
        if ended - base[1] + standing:
            rates["flow.bytes_per_connection"] = (received - base[0]) // (ended - base[1] + standing)
        if before is None:
            self._base, before = (received, ended), (now, 0, 0)
        if now > before[0]:
            rates["flow.rate_bytes_per_s"] = (received - before[1]) * 1000 // (now - before[0])
        if segments > before[2]:
            rates["flow.bytes_per_segment"] = (received - before[1]) // (segments - before[2])
        return rates

    def _meter(self) -> LinkMeter:
        return self._proxies.meters.links[self._force.link]

    def _passages(self) -> tuple[Passage, ...]:
        streams = ("upstream", "downstream") if effects.is_cut(self._force) else [each.stream for each in self._toxics]
        return self._meter().passages(streams)


class OnSwitch:
    """A switch of a node's control port; its witnesses are whether it is on, and its own count of uses."""

    marks_itself = False

    def __init__(self, world: RealWorld, node: RealNode, address: tuple[str, int], fault: Fault, force: Switch) -> None:
        self._world, self._node, self._fault, self._force = world, node, fault, force
        self._host, self._port = address
        self._path = f"/switches/{force.name}"

    async def prepare(self) -> None:
        if self._node.process is None:
            raise NotApplied(f"{self._node.name} is not running: it has no control port to be reached")
        url = f"http://{self._host}:{self._port}{self._path}"
        self._world.will(self._fault, "switch_off", url=url, process=self._node.process.to_json(), **self._node.where())
        await self._world.open_pipeline((self._host, self._port))

    async def apply(self) -> tuple[Json, Json]:
        arguments = dict(self._force.arguments)
        answer = await self._ask("PUT", self._path, orjson.dumps(arguments))
        if answer.status != OK:
            raise NotApplied(f"PUT {self._path}: HTTP {answer.status}: {self._world.shown(answer.body, self._fault.id)}")
        found = (await self._switches()).get(self._force.name)
        if not isinstance(found, dict) or found.get("on") is not True:
            raise NotApplied(f"switch {self._force.name}: accepted, but read back as {found}")
        stated = found.get("arguments")
        held = stated if isinstance(stated, dict) else {}
        if wrong := {key: value for key, value in arguments.items() if held.get(key) != value}:
            raise NotApplied(f"switch {self._force.name}: asked for {wrong}, read back {stated}")
        return {"switch": self._force.name, "arguments": arguments}, found

    async def heal(self) -> Json:
        """Without a detour through a thread. Through a pipeline it is not tried again: the switch may be thrown anew."""
        shared = self._world.pipeline((self._host, self._port)) is not None
        try:
            answer = await self._ask("DELETE", self._path)
            seen = orjson.loads(answer.body) if answer.status == OK else None
        except (NotApplied, orjson.JSONDecodeError) as why:
            answer, seen, failed = None, None, str(why)
        if seen is None:
            if not shared:
                return await self._world.take_back(self._fault)
            raise NotHealed(f"DELETE {self._path}: {f'HTTP {answer.status}' if answer else failed}")
        self._world.took_back(self._fault, seen)
        return [seen]

    async def probe(self) -> Mapping[str, Json]:
        try:
            found = (await self._switches()).get(self._force.name)
        except NotApplied:  # the node is down or slow: its witness is silent, which is no use counted
            return {}
        if not isinstance(found, dict):
            return {}
        return {f"switch.{what}": found[what] for what in ("on", "uses") if found.get(what) is not None}

    async def _switches(self) -> dict[str, Json]:
        answer = await self._ask("GET", "/switches")
        try:
            found = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            found = None
        if answer.status != OK or not isinstance(found, dict):
            raise NotApplied(f"GET /switches: HTTP {answer.status}, no JSON object")
        return found

    async def _ask(self, method: str, path: str, body: bytes = b"") -> http.Answer:
        headers = {"Content-Type": "application/json"} if body else {}
        pipeline = self._world.pipeline((self._host, self._port))
        try:
            if pipeline is None:
                return await http.once(self._host, self._port, method, path, headers, body)
            async with asyncio.timeout(limits.ANSWER_MS_MAX / 1000):
                return await pipeline.request(method, path, headers, body)
        except TimeoutError:
            raise NotApplied(f"{method} {path}: no answer within {limits.ANSWER_MS_MAX} ms") from None
        except http.Unreachable as why:
            raise NotApplied(f"{method} {path}: {why.kind}: {why}") from why


class OnCall:
    """A call, done at one stroke: its witness is the answer, and healing has nothing to take back."""

    marks_itself = False

    def __init__(self, world: RealWorld, fault: Fault, force: Call) -> None:
        self._world, self._fault, self._force = world, fault, force
        self._status: Json = None

    async def prepare(self) -> None:
        return

    async def apply(self) -> tuple[Json, Json]:
        saw = await self._world.call(self._fault.id, self._force)
        self._status = saw["status"]
        if self._status is None:
            raise NotApplied(f"{self._force.method} {self._force.path}: {saw.get('why')}")
        return {"call": f"{self._force.method} {self._force.path}", "node": self._force.node}, saw

    async def heal(self) -> Json:
        return {"call": "is not undone"}

    async def probe(self) -> Mapping[str, Json]:
        return {} if self._status is None else {"call.status": self._status}
