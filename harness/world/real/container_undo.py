"""How what the world ``docker`` made is taken back by whoever comes: the world itself, the janitor, a person.

Everything is found by its labels, never by its name. A call of a harness that was killed may still be carried out by the
engine after we have looked, so it is looked for until nothing has been there for a while.
"""

from __future__ import annotations

import io
import json
import shutil
import socket
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import docker  # type: ignore[import-untyped]
from docker.errors import APIError, DockerException, NotFound  # type: ignore[import-untyped]
from requests.exceptions import RequestException

from harness import limits
from harness.errors import NotHealed, UsageError
from harness.world.real import streams
from harness.world.real.engine import (
    FOLDER,
    HARNESS,
    KEEPER,
    KIND,
    MACHINE,
    MADE_BY,
    NODE,
    NODE_KIND,
    RUN,
    connect,
    machine,
    said,
)
from harness.world.real.processes import Process
from harness.world.real.undo import FILE, Gone

QUIET_S = 2.0
"""Nothing of the run was there for so long: then no call of the dead harness is still being carried out."""
REMOVED_S_MAX = 60.0
THREADS = 8


class NetworkKept(NotHealed):
    """Of a run only networks are left, which its engine does not give up (it counts endpoints of containers that are gone).
    They trouble no other run: names and addresses are a run's own."""


def runs(container: str) -> bool:
    """Whether this very container is running. Raises NotHealed when no engine answers."""
    with _engine() as client:
        return _running(client, container)


def ask(keeper: str, order: str, args: Mapping[str, Any]) -> Any:
    """Have the agent in a keeper carry out an order. Raises Gone with the keeper, NotHealed when it fails."""
    with _engine() as client:
        if not _running(client, keeper):
            raise Gone("the container is gone, and what was done to it with it")
        attached = client.attach_socket(keeper, params={"stdin": 1, "stdout": 1, "stream": 1})
        raw: socket.socket = getattr(attached, "_sock", attached)
        raw.settimeout(limits.AGENT_ANSWER_MS_MAX / 1000)
        try:
            name = f"undo-{time.monotonic_ns()}"
            raw.sendall(b"\n" + json.dumps({"id": name, "do": order, "args": args}).encode() + b"\n")
            answer = _answer(raw, name)
        except (OSError, ValueError) as why:
            raise NotHealed(f"the agent of a keeper: {order}: {why}") from why
        finally:
            raw.close()
    if "failed" in answer:
        raise NotHealed(f"{order}: {answer['failed']}")
    return answer["saw"]


def _answer(raw: socket.socket, name: str) -> Mapping[str, Any]:
    """The line that answers us, out of what an attached container says."""
    said_so_far = b""
    with raw.makefile("rb") as stream:
        while True:
            head = stream.read(8)
            if len(head) < 8:
                raise ValueError("it ended instead of answering")
            said_so_far += stream.read(int.from_bytes(head[4:], "big"))
            *lines, said_so_far = said_so_far.split(b"\n")
            for line in lines:
                answer: Mapping[str, Any] = json.loads(line)
                if answer.get("id") == name:
                    return answer


# ---- the run's things -------------------------------------------------------------------------------------


def remove(run: str, quiet_s: float = QUIET_S) -> dict[str, int]:
    """Remove every container, volume and network of a run; how many there were of each kind. Raises NotHealed (NetworkKept).

    ``quiet_s``: for so long nothing of it must be there, because a call may still be on its way."""
    counts = {"containers": 0, "keepers": 0, "volumes": 0, "networks": 0}
    deadline = time.monotonic() + REMOVED_S_MAX
    quiet_since: float | None = None
    refused: dict[str, str] = {}
    with _engine() as client:
        while True:
            left = found(client, run)
            now = time.monotonic()
            if not any(left.values()):
                quiet_since = quiet_since or now
                if now - quiet_since >= quiet_s:
                    return counts
            elif now > deadline:
                counted = ", ".join(f"{len(ids)} {kind if len(ids) > 1 else kind[:-1]}" for kind, ids in left.items() if ids)
                says = "; ".join(dict.fromkeys(refused[each] for ids in left.values() for each in ids if each in refused))
                message = f"could not be removed: {counted}" + f" (the engine says: {says})" * bool(says)
                if any(ids for kind, ids in left.items() if kind != "networks"):
                    raise NotHealed(message)
                raise NetworkKept(f"{message}; it gives up what nobody is connected to when it is started anew")
            else:
                quiet_since = None
                for kind, ids in left.items():
                    counts[kind] += _remove_all(client, kind, ids, refused)
                continue
            time.sleep(0.1)


def orphans() -> tuple[str, ...]:
    """Runs whose harness died on this machine and whose folder is gone, so that nothing but their labels tells of them.

    A run that has its folder still is the matter of whoever recovers that. Raises NotHealed when no engine answers.
    """
    with _engine() as client:
        wanted = {"label": [f"{MADE_BY}=drillproof", f"{MACHINE}={machine()}"]}
        told = [each["Labels"] for each in (*client.containers(all=True, filters=wanted), *client.networks(filters=wanted),
                                            *(client.volumes(filters=wanted)["Volumes"] or ()))]
    return tuple(dict.fromkeys(each[RUN] for each in told if _is_orphan(each)))


def _is_orphan(labels: Mapping[str, str]) -> bool:
    pid, _, start = labels.get(HARNESS, "").partition(".")
    known = RUN in labels and FOLDER in labels and pid.isdigit() and start.isdigit()
    return known and not Process(int(pid), int(start)).alive and not (Path(labels[FOLDER]) / FILE).is_file()


def found(client: docker.APIClient, run: str) -> dict[str, list[str]]:
    """Everything of a run that the engine has, by its label and in the order of its removal: ids, and names of volumes."""
    wanted = {"label": f"{RUN}={run}"}
    containers = client.containers(all=True, filters=wanted)
    return {
        "containers": [each["Id"] for each in containers if each["Labels"].get(KIND) != KEEPER],
        "keepers": [each["Id"] for each in containers if each["Labels"].get(KIND) == KEEPER],
        "volumes": [each["Name"] for each in client.volumes(filters=wanted)["Volumes"] or ()],
        "networks": [each["Id"] for each in client.networks(filters=wanted)],
    }


def _remove_all(client: docker.APIClient, kind: str, ids: list[str], refused: dict[str, str]) -> int:
    """How many are gone by us; what has networks one after the other (`Engine.one_end_at_a_time`). ``refused``: id → what the
    engine said when it last refused."""
    remove_container = partial(client.remove_container, v=True, force=True)
    remove_one: Mapping[str, Callable[[str], Any]] = {
        "containers": remove_container,
        "keepers": remove_container,
        "volumes": lambda name: client.remove_volume(name, force=True),
        "networks": client.remove_network,
    }

    def carry(id: str) -> int:
        try:
            remove_one[kind](id)
        except NotFound:
            return 0
        except APIError as why:  # in use by what is just being removed, or already being removed: looked for again
            if why.status_code is None or why.status_code < 400:
                raise
            refused[id] = str(why.explanation)
            return 0
        return 1

    if not ids:
        return 0
    with ThreadPoolExecutor(1 if kind == "keepers" else THREADS) as threads:
        return sum(threads.map(carry, ids))


def feed(container: str, run: str) -> str:
    """Lift a container's quota of the processor. Raises NotHealed where it stays."""
    with _engine() as client:
        if not _of_run(client, container, run):
            return "the container is gone, and its quota with it"
        client.update_container(container, cpu_quota=-1)
        left = client.inspect_container(container)["HostConfig"].get("CpuQuota")
        if left and left > 0:
            raise NotHealed(f"its quota still reads {left} us")
    return "fed"


def reconnect(keeper: str, network: str, name: str, run: str) -> str:
    """Connect a pod to its wire again, unless it is. Raises NotHealed."""
    with _engine() as client:
        if not _of_run(client, keeper, run):
            return "the container is gone, and its networks with it"
        joined = client.inspect_container(keeper)["NetworkSettings"]["Networks"].values()
        if any(each.get("NetworkID") == network for each in joined):
            return "is connected"
        client.connect_container_to_network(keeper, network, aliases=[name])
    return "connected"


def _of_run(client: docker.APIClient, container: str, run: str) -> bool:
    """Whether there is such a container. Raises NotHealed for one of somebody else's: a list may come from anywhere."""
    try:
        labels = client.inspect_container(container)["Config"].get("Labels") or {}
    except NotFound:
        return False
    if labels.get(RUN) != run:
        raise NotHealed(f"{container[:12]} is no container of this run")
    return True


def keep_streams(folder: str, run: str, sources: Mapping[str, Mapping[str, str]], data: Mapping[str, str]) -> Any:
    """What the nodes had written is evidence, also of a run that was cut off: the nodes are ended, and it is brought home.

    ``data``: node → where its data lies in its keeper.
    """
    target = Path(folder)
    missing = {name: each for name, each in sources.items() if not (target / "streams" / f"{name}.jsonl").is_file()}
    with _engine() as client:
        for each in client.containers(filters={"label": [f"{RUN}={run}", f"{KIND}={NODE_KIND}"]}):
            try:
                client.kill(each["Id"])
            except APIError:  # it has just ended by itself
                continue
        keepers = {each["Labels"][NODE]: each["Id"]
                   for each in client.containers(filters={"label": [f"{RUN}={run}", f"{KIND}={KEEPER}"]})}
        for each in missing.values():
            if each["node"] in keepers:
                bring_home(client, keepers[each["node"]], data[each["node"]], each["path"], target / "nodes" / each["node"])
    kept = streams.keep(target, target / "nodes", missing)
    shutil.rmtree(target / "nodes", ignore_errors=True)
    return kept


def bring_home(client: docker.APIClient, keeper: str, data: str, path: str, node: Path) -> None:
    """Copy one file of a node out of its keeper, as far as a stream may be long. One that is no plain file is none."""
    target = node / path
    if not target.resolve().is_relative_to(node.resolve()):
        raise NotHealed(f"{path} lies outside of the node's folder")
    try:
        parts, _ = client.get_archive(keeper, f"{data}/{path}")
    except NotFound:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=_Parts(parts), mode="r|") as tar, target.open("wb") as out:
        entry = tar.next()
        content = tar.extractfile(entry) if entry is not None and entry.isreg() else None
        if content is not None:
            left = limits.STREAM_BYTES_MAX + limits.ROW_BYTES_MAX
            while left > 0 and (piece := content.read(min(left, 1_048_576))):
                left -= len(piece)
                out.write(piece)


class _Parts(io.RawIOBase):
    """Pieces of bytes as a file to be read."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts, self._left = iter(parts), b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._left) < size:
            piece = next(self._parts, None)
            if piece is None:
                break
            self._left += piece
        size = len(self._left) if size < 0 else size
        given, self._left = self._left[:size], self._left[size:]
        return given


# ---- the engine -------------------------------------------------------------------------------------------


class _engine:
    """The engine for a while; whatever it says amiss is NotHealed."""

    def __enter__(self) -> docker.APIClient:
        try:
            self._client = connect()
        except UsageError as why:
            raise NotHealed(str(why)) from why
        return self._client

    def __exit__(self, kind: object, why: BaseException | None, trace: object) -> None:
        self._client.close()
        if isinstance(why, (DockerException, RequestException)):
            raise NotHealed(f"the engine: {said(why)}") from why


def _running(client: docker.APIClient, container: str) -> bool:
    try:
        return bool(client.inspect_container(container)["State"]["Running"])
    except NotFound:
        return False
