"""The docker world: the law of all worlds, and what only containers promise."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker  # type: ignore[import-untyped]
import pytest

from harness.drill.model import Fault, Field, Kill, LinkFault, Pause, Predicate
from harness.errors import NotHealed, WorldError
from harness.recording.tape import Tape, read_lines
from harness.world.conformance import check_world
from harness.world.real import container_undo
from harness.world.real.container_proxies import API
from harness.world.real.docker import DockerWorld
from harness.world.real.engine import KEEPER, KIND, MADE_BY, NODE, NODE_KIND, PROXY, RUN
from harness.world.real.undo import LIFE, leftovers, recover, standing
from harness.world.stack import Stack

ROOT = Path(__file__).resolve().parents[2]
MakeDocker = Callable[..., DockerWorld]
CONNECTED = Predicate((Field("status", "connected", "equals", True),))
STALL = Fault("feed", 0, 0, LinkFault("wire", "stall", "client"))
GONE_S_MAX = 60
DIAL = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def dial(place):
    try:
        socket.create_connection(tuple(place), 3).close()
        return True
    except OSError:
        return False

places = json.loads(sys.argv[1])
with ThreadPoolExecutor(len(places)) as threads:
    print(json.dumps(list(threads.map(dial, places))))
"""


def up(world: DockerWorld) -> DockerWorld:
    """Started, sampled, and seen connected."""
    tape = Tape(world.folder)
    tape.head(**world.describe())
    world.watch("status", 50)
    world.start(tape)
    assert world.advance_until(CONNECTED, 200, world.now_ms() + 30_000) is not None
    return world


def lines(world: DockerWorld, kind: str) -> list[dict[str, Any]]:
    world.tape.flush(10**12)
    return [line for line in read_lines(world.folder / "recording.jsonl.gz") if line["line"] == kind]


def probes(world: DockerWorld, id: str, what: str) -> list[Any]:
    return [line["value"] for line in lines(world, "probe") if line["id"] == id and line["what"] == what]


@pytest.fixture(scope="module")
def shared(toy: Stack, client: docker.APIClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerWorld]:
    """One world for all who only look, or leave it as they found it."""
    world = DockerWorld(toy, "toy", toy.policy("toy"), 1, tmp_path_factory.mktemp("shared") / "run")
    try:
        yield up(world)
    finally:
        world.stop()


def things(client: docker.APIClient, run: str) -> dict[str, list[str]]:
    """All that the engine has of a run."""
    return container_undo.found(client, run)


def inside(client: docker.APIClient, container: str, *command: str) -> str:
    """What a command prints in a container."""
    said: bytes = client.exec_start(client.exec_create(container, list(command))["Id"])
    return said.decode().strip()


@pytest.mark.timeout(400)
def test_the_docker_world_obeys_the_law_of_all_worlds(toy: Stack, client: docker.APIClient, tmp_path: Path) -> None:
    """The conformance suite passes; refused is what no world of real disks can do."""
    refused = check_world(lambda folder, placebo: DockerWorld(toy, "toy", toy.policy("toy"), 1, folder,
                                                              placebo=placebo), tmp_path)
    assert refused == ("disk_slow",)


def test_a_node_reaches_another_through_toxiproxy_or_not_at_all(make_docker: MakeDocker, client: docker.APIClient) -> None:
    """By no name, address or published port; nothing beyond this machine; and it gives Toxiproxy no orders."""
    world = up(make_docker())
    server, proxy = world._pods["server"], world._pods["toxiproxy"]
    api, published = world._nodes["server"].inside["api"], world._nodes["server"].ports["api"]
    gateway = client.inspect_network(world._networks["observing"])["IPAM"]["Config"][0]["Gateway"]
    barred = [("server", api), *((each, api) for each in server.addresses.values()), (gateway, published), ("1.1.1.1", 53),
              *((each, API) for each in proxy.addresses.values())]
    host, _, front = world.proxies.address("wire").partition(":")
    places = json.dumps([*barred, (host, int(front))])
    found = json.loads(inside(client, world._nodes["client"].container, "python3", "-c", DIAL, places))
    assert dict(zip(map(str, barred), found, strict=False)) == {str(each): False for each in barred}
    assert found[-1] is True


def test_a_node_that_dials_anything_else_is_killed_and_the_run_with_it(make_docker: MakeDocker,
                                                                       client: docker.APIClient) -> None:
    """Its connection to another node of its own wire is seen, whatever came of it."""
    world = up(make_docker())
    here = next(iter(world._pods["client"].addresses.values()))
    proxy, _ = world.proxies.address("wire").split(":")
    stays = f"import socket, time\nc = socket.create_server(('{here}', 0))\n" \
            f"d = socket.create_connection(c.getsockname())\ntime.sleep(60)"
    job = client.exec_create(world._nodes["client"].container, ["python3", "-c", stays])["Id"]
    client.exec_start(job, detach=True)
    with pytest.raises(WorldError, match="client was connected to"):
        world.advance_to(world.now_ms() + 20_000)


def test_containers_run_without_privilege(shared: DockerWorld, client: docker.APIClient) -> None:
    """Not as root, on a root that cannot be written, without capabilities, published on loopback alone, labelled."""
    world = shared
    found = client.containers(all=True, filters={"label": f"{RUN}={world.marker}"})
    kinds = sorted((each["Labels"][NODE], each["Labels"][KIND]) for each in found)
    assert kinds == [("client", KEEPER), ("client", NODE_KIND), ("server", KEEPER), ("server", NODE_KIND),
                     ("toxiproxy", KEEPER), ("toxiproxy", PROXY)]
    for each in found:
        seen = client.inspect_container(each["Id"])
        host = seen["HostConfig"]
        assert seen["Config"]["User"].split(":")[0] not in ("", "0", "root")
        assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["Privileged"]
        assert "no-new-privileges" in host["SecurityOpt"][0]
        assert {bound["HostIp"] for bounds in (host["PortBindings"] or {}).values() for bound in bounds} <= {"127.0.0.1"}
        assert seen["Config"]["Labels"][MADE_BY] == "drillproof"
    root = inside(client, world._nodes["client"].container, "sh", "-c", "touch /opt/x 2>&1; id -u; cat /proc/1/comm")
    assert "Read-only" in root and "10001" in root and "docker-init" in root
    ids = {each["Id"] for each in client.networks(filters={"label": f"{RUN}={world.marker}"})}
    assert ids == {*world._networks.values()}


def test_data_survive_their_node_and_are_of_the_size_declared(shared: DockerWorld, client: docker.APIClient) -> None:
    """A killed node finds its records again; its disk is a file system of its own."""
    world = shared
    fault = Fault("death", 0, 0, Kill("client"))
    first = world._nodes["client"].container
    world.inject(fault)
    assert not client.inspect_container(first)["State"]["Running"] or probes(world, "death", "process.alive")[-1] is True
    world.heal(fault)
    assert world._nodes["client"].container != first
    assert world.advance_until(Predicate((Field("status", "records_found", "at_least", 1),)), 100,
                               world.now_ms() + 30_000) is not None
    said = inside(client, world._nodes["client"].container, "df", "-m", "--output=target,size", "/data", "/run/drillproof")
    assert said.splitlines()[1].split() == ["/data", "64"]


def test_two_worlds_at_once_do_not_disturb_one_another(make_docker: MakeDocker) -> None:
    """A stall in one leaves the other's flow alone; ports and networks are apart."""
    one, two = up(make_docker("one")), up(make_docker("two"))
    one.inject(STALL)
    two.inject(dataclasses.replace(STALL, force=LinkFault("wire", "fragment", "client", 20)))
    for _ in range(4):
        one.advance_to(one.now_ms() + 200)
        two.advance_to(two.now_ms() + 200)
    stalled, flowing = probes(one, "feed", "flow.received_bytes"), probes(two, "feed", "flow.received_bytes")
    assert len(set(stalled[1:])) == 1
    assert flowing[-1] > flowing[1]
    ports = [set(dict(world.versions()["ports"]).values()) for world in (one, two)]  # type: ignore[arg-type]
    assert not ports[0] & ports[1]
    one.heal(STALL)
    one.stop()
    assert two.advance_until(CONNECTED, 200, two.now_ms() + 10_000) is not None


def test_versions_say_what_ran(shared: DockerWorld) -> None:
    """Images by name and id, the engine and how it keeps files and groups; the proxy by the digest of its server."""
    world = shared
    told: Any = world.versions()
    assert {*told["images"]} == {"server", "client", "toxiproxy"}
    assert all(each["id"].startswith("sha256:") and each["name"] for each in told["images"].values())
    assert {"version", "storage_driver", "cgroup_version"} <= {*told["engine"]}
    assert len(told["toxiproxy"]["sha256"]) == 64 and told["toxiproxy"]["version"].startswith("2.12")


def test_an_orderly_stop_leaves_nothing_and_touches_nobody(make_docker: MakeDocker, client: docker.APIClient,
                                                           stranger: tuple[str, str, str]) -> None:
    """Not one container, volume or network of ours; a stranger's with names like ours lives on."""
    world = up(make_docker())
    assert all(len(each) >= 3 for each in things(client, world.marker).values())
    world.stop()
    assert not any(things(client, world.marker).values())
    assert not standing(world.folder)
    container, volume, network = stranger
    assert client.inspect_container(container)["State"]["Running"]
    assert client.inspect_volume(volume) and client.inspect_network(network)


def test_a_keeper_that_ends_ends_the_run_and_its_streams_are_missing(make_docker: MakeDocker,
                                                                     client: docker.APIClient) -> None:
    """What was lost with it is not said to have been empty."""
    world = up(make_docker())
    client.kill(world._pods["client"].keeper)
    with pytest.raises(WorldError, match="keeper of client is gone"):
        world.advance_to(world.now_ms() + 20_000)
    with pytest.raises(WorldError, match="written there"):
        world.stop()
    assert not (world.folder / "streams" / "ledger.jsonl").exists()
    assert (world.folder / "streams" / "books.jsonl").read_bytes()
    assert not any(things(client, world.marker).values())


LIVES = """
import sys
from pathlib import Path
from harness.recording.tape import Tape
from harness.world.real.container_proxies import API
from harness.world.real.docker import DockerWorld
from harness.drill.model import Fault, Pause
from harness.world.stack import load_stack

toy = load_stack(Path(sys.argv[1]))
world = DockerWorld(toy, "toy", toy.policy("toy"), 1, Path(sys.argv[2]))
tape = Tape(world.folder)
tape.head(**world.describe())
print(world.marker, flush=True)
world.start(tape)
world.inject(Fault("halt", 0, 0, Pause("client")))
print("standing", flush=True)
world.advance_to(world.now_ms() + 600_000)
"""


def life(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """A harness of its own, and its run's marker."""
    stack = ROOT / "tests" / "worlds" / "toy" / "stack.yaml"
    process = subprocess.Popen([sys.executable, "-c", LIVES, str(stack), str(folder)], stdout=subprocess.PIPE, text=True,
                               cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def wait_until_gone(client: docker.APIClient, run: str) -> None:
    deadline = time.monotonic() + GONE_S_MAX
    while any(things(client, run).values()):
        assert time.monotonic() < deadline, things(client, run)
        time.sleep(0.2)


@pytest.mark.parametrize("moment", ["while it starts", "while a fault stands"])
def test_a_harness_that_is_killed_leaves_nothing(moment: str, client: docker.APIClient, tmp_path: Path) -> None:
    """The janitor brings the streams home and removes every container, volume and network."""
    process, run = life(tmp_path / "run")
    assert process.stdout is not None
    if moment == "while it starts":
        deadline = time.monotonic() + GONE_S_MAX
        while not things(client, run)["keepers"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    else:
        assert process.stdout.readline().strip() == "standing"
    process.kill()
    process.wait()
    deadline = time.monotonic() + GONE_S_MAX
    while standing(tmp_path / "run"):
        assert time.monotonic() < deadline, (tmp_path / "run" / "node-logs" / "janitor.log").read_text()
        time.sleep(0.2)
    assert not any(things(client, run).values())
    assert not leftovers(tmp_path)
    if moment != "while it starts":
        assert (tmp_path / "run" / "streams" / "ledger.jsonl").read_bytes()


def test_without_a_janitor_a_person_recovers_the_same(client: docker.APIClient, tmp_path: Path) -> None:
    """``recover`` finds by label what was left; twice is once."""
    process, run = life(tmp_path / "run")
    assert process.stdout is not None and process.stdout.readline().strip() == "standing"
    for pid in _janitors(tmp_path / "run"):
        os.kill(pid, signal.SIGSTOP)  # it would be replaced if it were killed
    try:
        process.kill()
        process.wait()
        assert things(client, run)["containers"]
        assert leftovers(tmp_path) == [tmp_path / "run"]
        assert [each.verb for each in recover(tmp_path / "run")][-1] == "remove_containers"
        assert not any(things(client, run).values())
        assert recover(tmp_path / "run") == ()
    finally:
        for pid in _janitors(tmp_path / "run"):
            os.kill(pid, signal.SIGKILL)


def _janitors(folder: Path) -> list[int]:
    wanted = b"harness.world.real.janitor\0" + str(folder).encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and wanted in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:  # gone meanwhile
            continue
    return found


def test_a_list_from_elsewhere_removes_nothing_of_another_run(shared: DockerWorld, client: docker.APIClient,
                                                              tmp_path: Path) -> None:
    """Containers are named by a run's marker, which begins with the name of its folder."""
    world = shared
    forged = tmp_path / "forged"
    forged.mkdir()
    (forged / "undo.jsonl").write_text(json.dumps({"n": 0, "id": "containers", "verb": "remove_containers",
                                                   "args": {"run": world.marker}}) + "\n")
    with pytest.raises(NotHealed, match="another run"):
        recover(forged)
    assert things(client, world.marker)["containers"]


def test_a_pause_is_taken_back_by_whoever_comes(shared: DockerWorld) -> None:
    """Healing goes through the undo file's own words, by a conversation of its own with the agent."""
    world = shared
    fault = Fault("halt", 0, 0, Pause("client"))
    world.inject(fault)
    world.advance_to(world.now_ms() + 300)
    world.heal(fault)
    assert probes(world, "halt", "process.state")[-1] in ("S", "R")
    assert world.advance_until(CONNECTED, 200, world.now_ms() + 10_000) is not None


def test_what_has_lost_harness_janitor_and_folder_is_found_by_its_labels(client: docker.APIClient, tmp_path: Path) -> None:
    """Only where the harness is dead and the folder is gone: else it is somebody's matter."""
    process, run = life(tmp_path / "run")
    assert process.stdout is not None and process.stdout.readline().strip() == "standing"
    janitors = _janitors(tmp_path / "run")
    for pid in janitors:
        os.kill(pid, signal.SIGSTOP)
    assert run not in container_undo.orphans()
    process.kill()
    process.wait()
    for pid in janitors:
        os.kill(pid, signal.SIGKILL)
    assert run not in container_undo.orphans()
    shutil.rmtree(tmp_path / "run")
    assert run in container_undo.orphans()
    container_undo.remove(run)
    assert run not in container_undo.orphans()


def test_a_held_stack_stands_until_it_is_recovered(make_docker: MakeDocker, client: docker.APIClient) -> None:
    """Its streams are sealed already; whoever looks finds its ports and containers in what the run tells."""
    world = up(make_docker(hold=True))
    streams = world.stop()
    assert streams["ledger"]["n"] and world.versions()["held"] is True
    world.release(True)
    told: Any = world.versions()
    assert client.inspect_container(told["containers"]["client"][-1])["State"]["Running"]
    socket.create_connection(("127.0.0.1", told["ports"]["client.status"]), 5).close()
    entries = [json.loads(line) for line in (world.folder / "undo.jsonl").read_text().splitlines()]
    life = next(each for each in entries if each.get("verb") == LIFE)
    with (world.folder / "undo.jsonl").open("a") as file:  # as if this process, its harness, had ended
        file.write(json.dumps({**life, "args": {**life["args"], "harness": {"pid": os.getpid(), "start": 0}}}) + "\n")
    recover(world.folder)
    assert not any(things(client, world.marker).values())


def test_a_list_from_elsewhere_feeds_and_connects_no_stranger(client: docker.APIClient, stranger: tuple[str, str, str]) -> None:
    """What a run's list of undoing names is taken back for that run's own containers alone; one that is gone is none."""
    container, _, network = stranger
    before = client.inspect_container(container)
    for act in (lambda: container_undo.feed(container, "run.1"),
                lambda: container_undo.reconnect(container, network, "client", "run.1")):
        with pytest.raises(NotHealed, match="no container of this run"):
            act()
    after = client.inspect_container(container)
    assert after["HostConfig"] == before["HostConfig"] and after["NetworkSettings"] == before["NetworkSettings"]
    assert "gone" in container_undo.feed("0" * 64, "run.1")
    assert "gone" in container_undo.reconnect("0" * 64, network, "client", "run.1")
