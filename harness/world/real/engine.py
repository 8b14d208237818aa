"""The container engine, asked in threads of its own and under deadlines: a slow engine never delays a sample."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import docker  # type: ignore[import-untyped]
from docker.errors import DockerException, NotFound  # type: ignore[import-untyped]
from requests.exceptions import RequestException

from harness import limits
from harness.errors import UsageError, WorldError
from harness.world.real.processes import Process

Result = TypeVar("Result")

RUN, FOLDER, MACHINE, HARNESS, MADE_BY, NODE, KIND = (
    f"drillproof.{each}" for each in ("run", "folder", "machine", "harness", "made_by", "node", "kind"))
"""Labels of everything that a run makes: its marker · its folder · where its harness lives · pid and start time of that ·
us · whose it is · what it is."""
KEEPER, NODE_KIND, PROXY = "keeper", "node", "proxy"
THREADS = 8
CPU_SHARES = 8_192
"""Eight times what the engine gives a container, and the kernel a session of processes."""
SHORT_LOG = {"Type": "json-file", "Config": {"max-size": f"{limits.LOG_BYTES_MAX}", "max-file": "1"}}
"""What the engine itself keeps of what a container prints."""
LOCAL = ("unix://", "http+unix://", "npipe://")


def connect() -> docker.APIClient:
    """The engine of this machine. Raises UsageError with the line that makes one usable."""
    where = of_this_machine()
    try:
        client = docker.APIClient(base_url=where or None, version="auto", timeout=limits.ENGINE_CALL_MS_MAX / 1000,
                                  num_pools=THREADS)
        client.ping()
    except (DockerException, RequestException, OSError) as why:
        raise UsageError(f"no container engine answers ({str(why).splitlines()[0][:120]}); this line makes one usable: "
                         "make engine") from why
    return client


def of_this_machine() -> str:
    """Where the person's settings have the engine; empty for the usual place. Raises UsageError where that is elsewhere."""
    where = os.environ.get("DOCKER_HOST", "")
    if where and not where.startswith(LOCAL):
        raise UsageError(f"DOCKER_HOST is {where}: a drill never reaches beyond this machine")
    return where


def labels(marker: str, folder: Path, harness: Process) -> dict[str, str]:
    """What everything that a run makes is known by."""
    return {MADE_BY: "drillproof", RUN: marker, FOLDER: str(folder.resolve()), MACHINE: machine(),
            HARNESS: f"{harness.pid}.{harness.start}"}


def machine() -> str:
    """Where our pids mean something: this boot of this machine, and this namespace of processes."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}.{os.stat('/proc/self/ns/pid').st_ino}"


class Engine:
    """Asynchronous calls of the engine's API. Every method raises WorldError and nothing else."""

    def __init__(self, client: docker.APIClient) -> None:
        self.client = client
        self.told: Mapping[str, Any] = client.info()
        self._threads = ThreadPoolExecutor(THREADS, "engine")
        self.one_end_at_a_time = asyncio.Lock()
        """Held by whoever starts a container with networks of its own. Where several come to one network at once, or leave it,
        the engine may count one too many (moby's issue 42119, seen with 20.10) and never gives that network up."""

    def host(self, volumes: Mapping[str, str], **more: Any) -> Any:
        """How every container of ours runs: no capability, nothing to gain, nothing to write to but its volumes and /tmp.

        Each stands in the control groups beside this machine's processes and weighs more than one of them: all containers
        under one parent would weigh as one process together, and on a busy machine a node starve that nobody meant to.
        """
        rootless = any("rootless" in each for each in self.told.get("SecurityOptions") or ())
        if self.told.get("CgroupDriver") == "cgroupfs" and not rootless:
            more |= {"cgroup_parent": "/", "cpu_shares": CPU_SHARES}
        return self.client.create_host_config(
            binds={name: {"bind": place, "mode": "rw"} for name, place in volumes.items()}, read_only=True,
            cap_drop=["ALL"], security_opt=["no-new-privileges"], tmpfs={"/tmp": "size=16m,mode=1777"},
            pids_limit=limits.CONTAINER_PIDS_MAX, **more)

    async def call(self, what: str, act: Callable[[docker.APIClient], Result]) -> Result:
        """Carry out ``act`` in a thread; ``what`` names it in errors. The client's own timeout ends a thread that hangs."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(limits.ENGINE_CALL_MS_MAX / 1000):
                return await loop.run_in_executor(self._threads, act, self.client)
        except TimeoutError:
            raise WorldError(f"the engine: {what}: no end within {limits.ENGINE_CALL_MS_MAX} ms") from None
        except (DockerException, RequestException, OSError) as why:
            raise WorldError(f"the engine: {what}: {said(why)}") from why

    async def calls(self, what: str, acts: Iterable[Callable[[docker.APIClient], Result]]) -> list[Result]:
        """Several at once; the first failure is raised when all have ended."""
        done = await asyncio.gather(*(self.call(what, each) for each in acts), return_exceptions=True)
        for each in done:
            if isinstance(each, BaseException):
                raise each
        return [each for each in done if not isinstance(each, BaseException)]

    async def state(self, container: str) -> Mapping[str, Any]:
        """``State`` of a container as the engine inspects it; empty when there is no such container."""
        def look(client: docker.APIClient) -> Mapping[str, Any]:
            try:
                found: Mapping[str, Any] = client.inspect_container(container)["State"]
            except NotFound:
                return {}
            return found

        return await self.call("inspect", look)

    def close(self) -> None:
        """When the calls that are on their way have ended. Idempotent."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self.client.close()


def said(why: BaseException) -> str:
    """What the engine says, without the client's preamble."""
    explanation = getattr(why, "explanation", None)
    return str(explanation or why).strip().splitlines()[0][:300]
