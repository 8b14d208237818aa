"""Killed at every moment of a run in containers: nothing of ours is left on the engine, and nobody else's is touched.

``kill -9`` of the session leaves its janitor, which takes everything back; of all of ours, janitor and all, leaves that to
``drillproof recover``. Beside the runs stand strangers: a container, a network and a volume without our labels, the same
with names and labels that look like ours, and those of another run that is still alive. They stand there afterwards, and
their containers were never so much as restarted.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attack_kit import (
    FULL,
    Attacked,
    Report,
    begin,
    complaints,
    drill,
    eventually,
    is_whole,
    need_toxiproxy,
    side_by_side,
    signal_name,
)
from test_attack_kills import INTERRUPTED, JANITOR, SESSION, Moment, command, said, strike, unborn, wait_for

from harness.errors import UsageError
from harness.world.real import images
from harness.world.real.engine import HARNESS, KEEPER, KIND, MADE_BY, NODE, NODE_KIND, PROXY, RUN

GONE_WITHIN_S = 240
"""A loaded engine takes its time over two dozen containers, their volumes and networks."""
AT_ONCE = 2
DIES_S_MAX = 20
KINDS = ("containers", "networks", "volumes")

STARTING: dict[str, Moment] = {f"starting, {later_ms} ms": (said("starting the stack"), later_ms)
                               for later_ms in (0, 100, 200, 300, 400, 550, 700, 850, 1000, 1300, 1600, 2000, 2500, 3000)}
STOPPING: dict[str, Moment] = {f"stopping, {later_ms} ms": (said("stopping the stack"), later_ms)
                               for later_ms in (0, 50, 150, 300, 500, 800, 1200)}
UNDERWAY: dict[str, Moment] = {
    "importing": (lambda made: True, 120),
    "the run folder is there": (lambda made: made.runs, 0),
    "waiting for the given": (said("waiting for steady state"), 700),
    "the link is stalled": (said("fault on: feed"), 50),
    "a link is cut": (said("fault on: asked"), 50),
    "the clock is stepped": (said("fault on: step"), 50),
    "the writer is stopped": (said("fault on: disk"), 5),
    "the watchdog is paused": (said("fault on: dog"), 100),
    "the last is healed": (said("fault off: feed"), 10),
    "recovering": (said("recovering"), 300),
    "judging": (said("judging"), 0),
}
MOMENTS = {**UNDERWAY, **STARTING, **STOPPING}
OVER = ("judging", *STOPPING)
"""From here on everything has been seen: what is struck now may come too late to matter."""


def ours(client: Any, runs: list[str]) -> list[str]:
    """Everything on the engine that these runs made, as ``kind name``; a run's label begins with its folder's name."""
    wanted = {"label": RUN}
    found = [*(("container", each.name, each.labels) for each in _all_containers(client)),
             *(("network", each.name, each.attrs["Labels"]) for each in client.networks.list(filters=wanted)),
             *(("volume", each.name, each.attrs["Labels"]) for each in client.volumes.list(filters=wanted))]
    return [f"{kind} {name}" for kind, name, labels in found if labels[RUN].rpartition(".")[0] in runs]


def _all_containers(client: Any) -> list[Any]:
    return list(client.containers.list(all=True, filters={"label": RUN}, ignore_removed=True))


Deed = Callable[[Any, Attacked], list[float]]
"""When each of those it struck was struck, in seconds of the wall clock."""


def contained(kind: str, node: str) -> Deed:
    """A stranger who ends one container of the run, as ``docker kill`` does. One question to the engine, so that it is
    done at its moment: the engine has others to serve, and says afterwards when the container died."""
    def deed(client: Any, made: Attacked) -> list[float]:
        runs = [run.name for run in made.runs]
        found = [each for each in client.api.containers(filters={"label": [f"{KIND}={kind}", f"{NODE}={node}"]})
                 if each["Labels"][RUN].rpartition(".")[0] in runs]
        before = int(time.time())
        for each in found:
            client.api.kill(each["Id"])
        return [died_at(client, each["Id"], before) for each in found]

    return deed


def died_at(client: Any, container: str, since: int) -> float:
    """When a container died, by the engine's own word: its answer to who had it killed may come much later."""
    for wait_s in (1, DIES_S_MAX):
        for each in client.api.events(since=since, until=int(time.time()) + wait_s, decode=True,
                                      filters={"container": container, "event": "die"}):
            return float(each["timeNano"] / 1_000_000_000)
    raise AssertionError(f"{container[:12]} was killed, and did not die within {DIES_S_MAX} s")


def process(deed: Callable[[Attacked], int]) -> Deed:
    """Processes are struck when they are."""
    return lambda client, made: [time.time()] * deed(made)


VICTIMS: dict[str, Deed] = {
    "kill -9 of the session": process(lambda made: strike(made, signal.SIGKILL, SESSION)),
    "kill -9 of all of ours": process(lambda made: strike(made, signal.SIGKILL, b"harness.")),
    "kill -9 of the command": process(command(signal.SIGKILL)),
    "kill -9 of the janitor": process(lambda made: strike(made, signal.SIGKILL, JANITOR)),
    "Ctrl-C": process(command(signal.SIGINT)),
    "kill of the trader's keeper": contained(KEEPER, "trader"),
    "kill of Toxiproxy": contained(PROXY, "toxiproxy"),
    "kill of the exchange": contained(NODE_KIND, "exchange"),
}
HARMLESS = ("kill -9 of the janitor",)


def attack(client: Any, place: Path, who: str, when: str, report: Report) -> None:
    """One run, one strike; raises AssertionError with all that is wrong."""
    made = begin(place, "run", drill("everything"), "--world", "docker", "--policy", "drill")
    wait_for(made, MOMENTS[when])
    struck = VICTIMS[who](client, made)
    code = made.wait()
    over = when in OVER or any(at > made.heard_at(b"stopping the stack") for at in struck)
    runs = [each.name for each in made.runs]
    unguarded = who == "kill -9 of all of ours" or not made.saw("node-logs/janitor.log")
    left = [] if unguarded or eventually(lambda: not ours(client, runs), GONE_WITHIN_S) else ours(client, runs)
    wrong = [f"left on the engine: {each}" for each in left]
    wrong += complaints(made, may_leave_files=unguarded)
    wrong += [f"left on the engine after recover: {each}" for each in ours(client, runs)]
    late = over and any(is_whole(each) for each in made.runs)
    if struck and code == 0 and who not in HARMLESS and not late:
        wrong.append("the command ended with 0")
    if struck and who == "Ctrl-C" and code not in (INTERRUPTED, *((0, 1, 3) if late else ()), *unborn(made, "SIGINT")):
        wrong.append(f"the command ended with {code}")
    if not struck and when not in (*OVER, "importing"):  # of which some have already ended, and some not yet begun
        wrong.append("nobody was there to be struck")
    ended = f"ended with {code}" if code >= 0 else f"ended by {signal_name(-code)}"
    if late and when not in OVER:
        ended += ", struck too late to matter"
    report.add(f"{who}, {when}", f"WRONG: {'; '.join(wrong)}" if wrong else ended if struck else "nobody was there")
    assert not wrong, f"{who}, {when} (code {code}): {'; '.join(wrong)}\n{made.said.decode()[-1500:]}"


# ---- strangers --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client() -> Any:
    """The engine with the images of this checkout; without one, this is said and skipped."""
    need_toxiproxy()
    try:
        engine = images.connect(10)
        if images.base_at_hand(engine) is None:
            raise UsageError(f"the engine has no base image; this line makes one: {images.ENGINE_REMEDY}")
        images.build(engine, print)
    except UsageError as why:
        pytest.skip(str(why))
    return engine


LOOKALIKES: Mapping[str, Mapping[str, str]] = {
    "nobodys": {},
    "drillproof-near": {KIND: NODE_KIND, NODE: "trader"},
    "drillproof-another": {RUN: "another-run.0123456789abcdef", MADE_BY: "drillproof", KIND: KEEPER, NODE: "trader",
                           HARNESS: ""},
}
"""Name → labels: without ours, with a few of ours, and those of another run whose harness lives (it is this process)."""


@pytest.fixture
def strangers(client: Any) -> Iterator[Callable[[], dict[str, Any]]]:
    """Containers, networks and volumes of others; call it to see how they are."""
    mark, made = f"{os.getpid()}-stranger", {kind: [] for kind in KINDS}
    start = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[19]
    image = images.current(client).system.id
    for name, labels in LOOKALIKES.items():
        told = {key: value or f"{os.getpid()}.{start}" for key, value in labels.items()}
        made["networks"].append(client.networks.create(f"{name}-{mark}", labels=told, internal=True))
        made["volumes"].append(client.volumes.create(f"{name}-{mark}", labels=told))
        made["containers"].append(client.containers.run(
            image, ["sleep", "3600"], detach=True, init=True, name=f"{name}-{mark}", labels=told, network=f"{name}-{mark}",
            volumes={f"{name}-{mark}": {"bind": "/data"}}, healthcheck={"test": ["NONE"]}))

    def how_they_are() -> dict[str, Any]:
        for each in made["containers"]:
            each.reload()
        return {**{each.id: (each.status, each.attrs["State"]["StartedAt"], each.attrs["RestartCount"])
                   for each in made["containers"]},
                **{each.id: sorted(client.networks.get(each.id).attrs["Containers"]) for each in made["networks"]},
                **{each.name: client.volumes.get(each.name).attrs["CreatedAt"] for each in made["volumes"]}}

    yield how_they_are
    for kind in KINDS:
        for each in made[kind]:
            each.remove(force=True) if kind != "networks" else each.remove()


SHARE = [("kill -9 of the session", "starting, 700 ms"), ("kill -9 of the session", "the watchdog is paused"),
         ("kill -9 of all of ours", "the link is stalled")]


SOME = ("waiting for the given", "the clock is stepped", "the watchdog is paused", "stopping, 150 ms")


def wanted() -> list[tuple[str, str]]:
    """All of it: the session, and all of ours, at every moment; the others at some."""
    first, second, *others = VICTIMS
    return [*((first, when) for when in MOMENTS), *((second, when) for when in (*STARTING, *UNDERWAY)),
            *((who, when) for who in others for when in SOME)]


@pytest.mark.timeout(7200 if FULL else 900)
def test_struck_at_every_moment_in_containers(client: Any, strangers: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    """No container, network or volume of a struck run is left, no run passes, and strangers were not touched."""
    before, report = strangers(), Report("killed in containers")
    try:
        side_by_side([partial(attack, client, tmp_path / str(n), who, when, report)
                      for n, (who, when) in enumerate(wanted() if FULL else SHARE)], AT_ONCE)
    finally:
        report.show()
    assert strangers() == before


def test_what_is_left_would_be_seen(client: Any, strangers: Callable[[], dict[str, Any]]) -> None:
    """The eye of this campaign: things with a run's label are found, and a stranger that is touched is not as before."""
    assert {each.split()[0] for each in ours(client, ["another-run"])} == {"container", "network", "volume"}
    before = strangers()
    client.containers.get(f"nobodys-{os.getpid()}-stranger").restart(timeout=0)
    assert strangers() != before
