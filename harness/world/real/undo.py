"""How every force is taken back, written down before it is applied.

``undo.jsonl`` in the run folder holds one line ``{n, id, verb, args}`` an act, synced before the act, and one line
``{n, done}`` when it was taken back. Healing, stopping, the janitor and ``drillproof recover`` all call ``undo``.
Nothing here needs a World. Identity is never a bare pid: a process is pid and start time, a proxy is the server's
process and port.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import limits
from harness.errors import NotHealed, UsageError, WorldError
from harness.recording.sole import is_busy
from harness.world.real import streams
from harness.world.real.clock import TRUE_TIME
from harness.world.real.hands import ORDERS
from harness.world.real.processes import Process, end_all, marked

FILE = "undo.jsonl"
LIFE = "end_run"
"""The verb of the first line of every run: as long as it is not done, the run is not over."""

HOLDS = 10
"""How often the end of marked processes is looked for again: one may fork while the others are ended."""

NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Undo:
    """How to take one act back. ``id`` is the fault's, or what of the run it is."""

    n: int
    id: str
    verb: str
    args: Mapping[str, Any]


class Gone(Exception):
    """What was to be asked is no longer there, and what was done to it has gone with it."""


class UndoLog:
    """The run's list of what stands."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / FILE
        self._handle = os.open(self.file, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._next = 0
        if not _ends_whole(self.file):  # what was torn there by a death stays a line of its own
            os.write(self._handle, b"\n")

    def will(self, id: str, verb: str, **args: Any) -> Undo:
        """Write down how an act will be taken back; returns only when that is on the disk."""
        entry = Undo(self._next, id, verb, args)
        self._next += 1
        self._write({"n": entry.n, "id": id, "verb": verb, "args": args})
        return entry

    def done(self, entry: Undo, saw: Any) -> None:
        """It was taken back. Only the end of the run is synced: were another line lost with the machine, taking back
        once more would find it done."""
        self._write({"n": entry.n, "done": saw}, synced=entry.verb == LIFE)

    def close(self) -> None:
        """Idempotent."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _write(self, line: Mapping[str, Any], synced: bool = True) -> None:
        data, size = json.dumps(line, sort_keys=True).encode() + b"\n", os.fstat(self._handle).st_size
        if os.write(self._handle, data) != len(data):  # the last room of a disk took the beginning of it
            os.ftruncate(self._handle, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.file))
        if synced:
            os.fsync(self._handle)


def _ends_whole(file: Path) -> bool:
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 1))
        return stream.read() in (b"", b"\n")


def standing(folder: Path) -> tuple[Undo, ...]:
    """What has not been taken back yet, oldest first. A torn last line was never acted upon."""
    entries: dict[int, Undo] = {}
    for line in (folder / FILE).read_bytes().splitlines():
        try:
            value = json.loads(line)
            if "done" in value:
                entries.pop(value["n"], None)
            else:
                entries[value["n"]] = Undo(int(value["n"]), str(value["id"]), str(value["verb"]), {**value["args"]})
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return tuple(entries.values())


def leftovers(runs: Path) -> list[Path]:
    """Run folders whose run is not over although the harness that ran it is gone.

    A harness may die before it could write who it is; then nobody holds the lock on its folder.
    """
    found = []
    for file in sorted(runs.glob(f"*/{FILE}")):
        left = standing(file.parent)
        lives = [entry for entry in left if entry.verb == LIFE]
        if not _harness(lives[0]).alive if lives else left and not is_busy(file.parent):
            found.append(file.parent)
    return found


def recover(folder: Path) -> tuple[Undo, ...]:
    """Take back everything that a run left behind, latest first; returns what was taken back.

    Idempotent. Raises UsageError while the run is still going on, NotHealed when something resisted (the rest is
    taken back all the same).
    """
    if not (folder / FILE).is_file():
        raise UsageError(f"{folder}: no run folder of a real world ({FILE} is missing)")
    with _alone(folder):
        left = standing(folder)
        for entry in left:
            if entry.verb == LIFE and _harness(entry).alive:
                raise UsageError(f"{folder.name} is still running (process {_harness(entry).pid}); stop it first")
        failed = [why for entry in reversed(left) if (why := _recover(folder, entry))]
    if failed:
        raise NotHealed("; ".join(failed))
    return tuple(reversed(left))


def _recover(folder: Path, entry: Undo) -> str | None:
    """Take one act back and write that down; says what resisted. A disk that takes no writing keeps nothing standing."""
    try:
        saw = undo(_within(folder, entry))
        log = UndoLog(folder)
        try:
            log.done(entry, {"recovered": saw})
        finally:
            log.close()
    except (WorldError, OSError, TypeError, KeyError, ValueError, AttributeError) as why:  # a list that others wrote
        return f"{entry.id}: {entry.verb}: {why}"
    return None


def _within(folder: Path, entry: Undo) -> Undo:
    """The act as this folder may ask for it: a list that came from elsewhere must not reach beyond its own run.

    Raises NotHealed. A folder that was moved since is helped where it lies now.
    """
    args = dict(entry.args)
    if entry.verb == "keep_streams":
        args |= {"folder": str(folder.resolve()), "nodes": str(folder.resolve() / "nodes")}
        if any(Path(name).name != name for name in args.get("sources", ())):
            raise NotHealed("names a stream that is no plain name")
    elif entry.verb == "keep_container_streams":
        args |= {"folder": str(folder.resolve())}
        named = (*args.get("sources", ()), *(str(each.get("node")) for each in args.get("sources", {}).values()))
        if any(Path(name).name != name for name in named):
            raise NotHealed("names a stream or a node that is no plain name")
    elif entry.verb == "true_clock" and "keeper" not in args and not _lies_in(folder, str(args.get("file"))):
        raise NotHealed("names a clock outside of the run's folder")
    elif entry.verb in ("empty_disk", "unlock_data") and not args.get("keeper"):
        raise NotHealed("names a disk of this machine")
    elif entry.verb == "switch_off" and not str(args.get("url")).startswith("http://127.0.0.1:"):
        raise NotHealed("names a node beyond this machine")
    if "container" in entry.verb and not str(args.get("run")).startswith(f"{folder.name}."):
        raise NotHealed("names containers of another run")
    return Undo(entry.n, entry.id, entry.verb, args)


def _lies_in(folder: Path, file: str) -> bool:
    return Path(file).resolve().is_relative_to(folder.resolve())


def undo(entry: Undo) -> Any:
    """Take one act back, or find it taken back already; returns what was seen. Raises NotHealed, OSError."""
    verb = _VERBS.get(entry.verb)
    if verb is None:
        raise NotHealed(f"undo.jsonl names a verb that this version does not know: {entry.verb!r}")
    return verb(**entry.args)


def _harness(life: Undo) -> Process:
    return Process(**life.args["harness"])


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The janitor and a person may both come to help; one of them waits."""
    with (folder / FILE).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# ---- the verbs --------------------------------------------------------------------------------------------


def _remove_toxics(server: Mapping[str, Any], proxy: str, toxics: list[str]) -> str:
    client = _client(server)
    if client is None:
        return "the proxy server is gone, and its toxics with it"
    for name in toxics:
        client.remove(proxy, name)
    return "removed"


def _enable_proxy(server: Mapping[str, Any], proxy: str) -> str:
    client = _client(server)
    if client is None:
        return "the proxy server is gone"
    client.enable(proxy, True)
    return "enabled"


def _client(server: Mapping[str, Any]) -> Any:
    if "container" in server:
        from harness.world.real.container_undo import runs

        alive = runs(server["container"])
    else:
        alive = Process(server["pid"], server["start"]).alive
    if not alive:
        return None
    from harness.world.real.toxiproxy import ProxyClient  # requests is slow to import, and rarely needed here

    return ProxyClient(server["host"], server["port"])


def _do(keeper: str | None, order: str, **args: Any) -> Any:
    """An order of the hands (hands.py), here or in the keeper container of a node. Raises Gone with the container."""
    if keeper is None:
        return ORDERS[order](**args)
    from harness.world.real.container_undo import ask  # the docker package is slow to import as well

    return ask(keeper, order, args)


def _resume(processes: list[Mapping[str, int]], keeper: str | None = None) -> Any:
    try:
        return {"resumed": _do(keeper, "send", processes=processes, number=int(signal.SIGCONT))}
    except Gone as why:
        return str(why)


def _lift_file_limit(process: Mapping[str, int], soft: int, keeper: str | None = None) -> str:
    try:
        found = _do(keeper, "limit_files", process=process, soft=soft)
    except Gone as why:
        return str(why)
    if found is None:
        return "the process is gone, and its limit with it"
    if found != soft:
        raise NotHealed(f"process {process['pid']}: its file-size limit could not be lifted")
    return "lifted"


def _empty_disk(folder: str, keeper: str | None = None) -> Any:
    try:
        return {"filler": _do(keeper, "empty_disk", folder=folder)}
    except Gone as why:
        return str(why)


def _unlock_data(modes: Mapping[str, int], processes: list[Mapping[str, int]], softs: list[int],
                 keeper: str | None = None) -> Any:
    try:
        found = _do(keeper, "unlock_data", modes=modes, processes=processes, softs=softs)
    except Gone as why:
        return str(why)
    if wrong := [each for each, soft in zip(found, softs, strict=True) if each not in (None, soft)]:
        raise NotHealed(f"file-size limits could not be lifted: {wrong}")
    return {"processes": len(found), "folders": len(modes)}


def _true_clock(file: str, keeper: str | None = None) -> str:
    if keeper is None and not Path(file).parent.is_dir():
        return "the run's folders are gone"
    try:
        _do(keeper, "put", file=file, data=base64.b64encode(f"{TRUE_TIME}\n".encode()).decode())
    except Gone as why:
        return str(why)
    return "true time"


def _switch_off(url: str, process: Mapping[str, int], keeper: str | None = None) -> Any:
    """``DELETE`` is idempotent by contract; the node's answer says how often the switch was used."""
    try:
        if _do(keeper, "states", processes=[process]) == [None]:
            return "the node is gone, and its switches with it"
    except Gone as why:
        return str(why)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, method="DELETE")
    try:
        with opener.open(request, timeout=limits.ANSWER_MS_MAX / 1000) as answer:
            return json.loads(answer.read(limits.DOCUMENT_BYTES_MAX))
    except (OSError, ValueError) as why:
        if isinstance(why, urllib.error.HTTPError) and why.code == NOT_FOUND:
            return "the node has no such switch, so nothing stands"
        raise NotHealed(f"DELETE {url}: {why}") from why


def _nothing(**_: Any) -> str:
    """A killed node is started again by healing alone: when the run is over there is nothing to start it for."""
    return "nothing stands"


def _leave_file(file: str, keeper: str | None = None) -> str:
    """Whose hand wrote it is gone, and no write of it is ever half done: the file is its owner's again."""
    return "left as it is"


def _keep_streams(folder: str, nodes: str, sources: Mapping[str, Mapping[str, str]]) -> Any:
    """What the nodes had written is evidence, also of a run that was cut off; then their folders may go."""
    data = Path(nodes)
    if not data.is_dir():
        return "already kept"
    # The streams of a held run are sealed already, and its nodes wrote on since: what is there stays as it is.
    missing = {name: each for name, each in sources.items()
               if not (Path(folder) / "streams" / f"{name}.jsonl").is_file()}
    kept = streams.keep(Path(folder), data, missing)
    shutil.rmtree(data)
    return kept


def remove_containers(run: str) -> Any:
    """Every container, volume and network of a run."""
    from harness.world.real import container_undo

    return container_undo.remove(run)


def _keep_container_streams(folder: str, run: str, sources: Mapping[str, Mapping[str, str]], data: Mapping[str, str]) -> Any:
    from harness.world.real import container_undo

    return container_undo.keep_streams(folder, run, sources, data)


def feed_container(container: str, run: str) -> str:
    """Its quota of the processor is lifted; ``run`` says whose it must be."""
    from harness.world.real import container_undo

    return container_undo.feed(container, run)


def reconnect_container(keeper: str, network: str, name: str, run: str) -> str:
    """A pod gets its wire back, under the name by which it is known there."""
    from harness.world.real import container_undo

    return container_undo.reconnect(keeper, network, name, run)


def _end_run(harness: Mapping[str, int], marker: str) -> dict[str, int]:
    return {"ended": end_marked(marker, harness["pid"])}


def end_marked(marker: str, harness: int = 0) -> int:
    """End every process of the run, also those that were born while the others were ended; how many there were."""
    ended = 0
    for _ in range(HOLDS):
        found = tuple(each for each in marked(marker) if each.pid != harness and not _is_janitor(each.pid))
        if not found:
            return ended
        ended += len(found) - len(end_all(found))
        time.sleep(0.01)
    raise NotHealed(f"processes that could not be ended: {[each.pid for each in marked(marker)]}")


def _is_janitor(pid: int) -> bool:
    """The janitor carries the marker as well, and ends by itself when all is done."""
    try:
        return b"harness.world.real.janitor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


_VERBS: Mapping[str, Callable[..., Any]] = {
    "remove_toxics": _remove_toxics,
    "enable_proxy": _enable_proxy,
    "resume": _resume,
    "lift_file_limit": _lift_file_limit,
    "true_clock": _true_clock,
    "empty_disk": _empty_disk,
    "unlock_data": _unlock_data,
    "switch_off": _switch_off,
    "start_again": _nothing,
    "leave_file": _leave_file,
    "keep_streams": _keep_streams,
    "keep_container_streams": _keep_container_streams,
    "remove_containers": remove_containers,
    "feed_container": feed_container,
    "reconnect_container": reconnect_container,
    LIFE: _end_run,
}
