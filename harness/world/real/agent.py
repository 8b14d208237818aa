"""The agent in the keeper container of a node: carries out orders where the node's processes, sockets and files are.

A keeper shares its namespaces of processes and of the network with its node and runs as the same user, so the agent
sees what the harness sees of a process of its own machine, without any privilege. It is spoken to through the engine's
attach: one JSON object a line in, ``{id, do, args}``; one out, ``{id, saw}`` or ``{id, failed, errno}``. Its source is
handed over on the command line (pods.py), so that nothing of it need be in any image but a Python.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from harness.world.real.hands import ORDERS, Told, states
from harness.world.real.processes import Process
from harness.world.real.sockets import Diagnosis, Socket, dial_refused

LIFE = "DRILLPROOF_LIFE"
"""Environment variable by which the processes of a node's container are known: which life of which node."""


class Agent:
    """Answers one order after the other."""

    def __init__(self) -> None:
        self._diagnosis = Diagnosis()
        self._orders: dict[str, Callable[..., Any]] = {**ORDERS, "look": self.look, "leader": leader,
                                                       "dial_refused": dial_refused}

    def serve(self) -> None:
        """Until the input ends, which is when the container is stopped."""
        for line in sys.stdin.buffer:
            if line.strip():
                os.write(1, json.dumps(self.answer(line)).encode() + b"\n")

    def answer(self, line: bytes) -> dict[str, Any]:
        order: dict[str, Any] = {}
        try:
            order = json.loads(line)
            return {"id": order["id"], "saw": self._orders[order["do"]](**order["args"])}
        except OSError as why:
            return {"id": order["id"], "failed": f"{type(why).__name__}: {why}", "errno": why.errno or 0}
        except Exception as why:  # whoever asks wrongly is told, and the next one is served
            return {"id": order.get("id"), "failed": f"{type(why).__name__}: {why}", "errno": 0}

    def look(self, processes: Sequence[Told]) -> dict[str, Any]:
        """One reading: every TCP socket that stands, those that have ended since the last reading, and how processes do."""
        return {"live": told(self._diagnosis.of_both_families()), "ended": told(self._diagnosis.ended()),
                "lost": self._diagnosis.lost_news, "states": states(processes)}


def told(found: Iterable[Socket]) -> list[list[Any]]:
    return [[each.cookie, each.established, each.local_port, each.remote_host, each.remote_port, each.inode, each.offered,
             each.received, each.segments] for each in found]


def leader(life: str) -> dict[str, int] | None:
    """The first process of a container that joined us: none of ours started it, and its environment says whose it is."""
    wanted = f"{LIFE}={life}".encode()
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and wanted in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                process = Process.of(int(name))
                if process is not None and _parent(process.pid) == 0:
                    found.append(process)
        except OSError:  # gone meanwhile
            continue
    return min(found, key=lambda each: (each.start, each.pid)).to_json() if found else None


def _parent(pid: int) -> int:
    """0 where it lies outside of our namespace."""
    text = Path(f"/proc/{pid}/stat").read_bytes()
    return int(text[text.rindex(b")") + 2:].split()[1])


def main() -> None:
    Agent().serve()
