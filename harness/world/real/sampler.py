"""The sampler: a process of its own that asks surfaces on a fixed grid and says what it saw.

A process, because a thread beside busy Python asks late (measured: 17 % of answers within 10 ms, against 100 %).

    python -m harness.world.real.sampler EPOCH_NS

In, one JSON object a line: ``{"watch": name, "host", "port", "path", "every_ms"}``. Out, one a line: ``{"name",
"due", "asked", "answered"}`` and one of ``doc`` (a JSON object), ``raw`` ([bytes, sha256, head, cut]), ``silence``
(missed, timeout, refused, closed). It ends when its input does.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import sys
from typing import Any

import orjson

from harness import limits
from harness.world.real import urgency
from harness.world.real.clock import Epoch
from harness.world.real.documents import parse
from harness.world.real.http import Answer, Connection, Unreachable

UNREAD_BYTES_MAX = 64 * 1_048_576
"""More than this unread by the harness means that it hangs; what comes then is dropped and shows as a gap."""
FLUSH_EVERY_S = 0.005
OK = 200


class Sampler:
    """One task a surface, one request in flight each."""

    def __init__(self, epoch: Epoch, out: asyncio.WriteTransport) -> None:
        self._epoch, self._out = epoch, out

    async def watch(self, name: str, host: str, port: int, path: str, every_ms: int) -> None:
        """Ask for ever. Slots that pass while a request is in flight are said to be missed."""
        connection = Connection(host, port)
        due = (self._epoch.floor_ms() // every_ms + 1) * every_ms
        while True:
            await asyncio.sleep(self._epoch.seconds_until(due))
            asked = self._epoch.floor_ms()
            seen = await self._ask(connection, path)
            answered = self._epoch.ceil_ms()
            self._say({"name": name, "due": due, "asked": asked, "answered": answered, **seen})
            due += every_ms
            while due < answered:
                self._say({"name": name, "due": due, "asked": due, "answered": due, "silence": "missed"})
                due += every_ms

    async def _ask(self, connection: Connection, path: str) -> dict[str, Any]:
        try:
            async with asyncio.timeout(limits.ANSWER_MS_MAX / 1000):
                answer = await connection.request("GET", path, {"Accept": "application/json"})
        except TimeoutError:
            return {"silence": "timeout"}
        except Unreachable as why:
            return {"silence": why.kind}
        return classify(answer)

    def _say(self, line: dict[str, Any]) -> None:
        if self._out.get_write_buffer_size() < UNREAD_BYTES_MAX:
            self._out.write(orjson.dumps(line) + b"\n")


def classify(answer: Answer) -> dict[str, Any]:
    """A document only if the answer is 200 and a JSON object to the letter; else raw, with what a person needs."""
    if answer.status == OK and not answer.cut and (document := parse(answer.body)) is not None:
        return {"doc": document}
    seen = answer.body if answer.status == OK else answer.head + answer.body
    return {"raw": [len(answer.body), hashlib.sha256(answer.body).hexdigest(),
                    seen[:limits.RAW_HEAD_BYTES].decode("latin-1"), answer.cut]}


async def main() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin.buffer)
    out, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, sys.stdout.buffer)
    sampler, tasks = Sampler(Epoch(int(sys.argv[1])), out), set()
    while line := await lines.readline():
        order = orjson.loads(line)
        task = asyncio.create_task(sampler.watch(order["watch"], order["host"], order["port"], order["path"],
                                                 order["every_ms"]))
        tasks.add(task)
        task.add_done_callback(_fall_over)
    for task in tasks:
        task.cancel()
    while out.get_write_buffer_size():  # what was seen is told before the end; who waits for it has a deadline
        await asyncio.sleep(FLUSH_EVERY_S)


def _fall_over(task: asyncio.Task[None]) -> None:
    """A watch never ends by itself: if it does, end loudly, so that the harness knows that it sees nothing."""
    if not task.cancelled() and (why := task.exception()) is not None:
        print(f"sampler: {why!r}", file=sys.stderr, flush=True)
        os._exit(70)


if __name__ == "__main__":
    urgency.take()
    gc.freeze()  # what was imported need not be looked through again while a request is due
    asyncio.run(main())
