"""A run's secrets: filled in where they are asked for, blotted where they come back, and told of by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_world import STACK, started, toy_world

from harness.drill.model import Call, Clock, Drop, Fault, Kill, Overwrite, Stimulus, Switch
from harness.errors import NotApplied, UsageError
from harness.recording.tape import Tape, canonical, read_lines
from harness.world.secrets import Secrets, Sieve, disguises
from harness.world.sim.dice import token
from harness.world.stack import load_stack
from system_under_test.machine import Request, Response
from tests.worlds.toy.machines import Client, Server

ROOT = Path(__file__).parents[2]
VALUES = {"TOKEN": "aaaa1111", "KEY_2": "bbbb2222"}


def test_blanks_are_filled_in_one_pass() -> None:
    """Environment and headers have their own form; what was put in is not read again; an unknown header name stays."""
    secrets = Secrets({**VALUES, "TRICK": "{secret:TOKEN}"})
    assert secrets.fill("a {secret:KEY_2} b {secret:TRICK}", {}) == "a bbbb2222 b {secret:TOKEN}"
    assert secrets.fill("{policy}", {"b": 1, "a": "x"}) == '{"a":"x","b":1}'
    over = {"a": {"x": 1}, "c": 2}
    assert secrets.fill("{policy:raised}", {"a": {"x": 0, "y": 0}, "b": 1}, {"raised": over}.__getitem__) == \
        '{"a":{"x":1,"y":0},"b":1,"c":2}'
    assert secrets.fill_header("Bearer ${secret:KEY_2} ${secret:NONE}") == "Bearer bbbb2222 ${secret:NONE}"


def test_what_is_blotted_is_told_once_by_name() -> None:
    """The text is clean, and the place stands beside what the search of the files found."""
    secrets = Secrets(VALUES)
    assert secrets.blotted("x aaaa1111 y aaaa1111", "the answer to a") == "x *** y ***"
    assert secrets.blotted("nothing", "the answer to b") == "nothing"
    in_file = {"secret": "TOKEN", "file": "node-logs/a.log"}
    assert secrets.found([in_file]) == [in_file, {"secret": "TOKEN", "file": "the answer to a"}]
    secrets.blotted("bbbb2222", "node-logs/a.log")
    told = secrets.found([{"secret": "KEY_2", "file": "node-logs/a.log"}])
    assert told[1:] == [{"secret": "TOKEN", "file": "the answer to a"}]


@given(needles=st.lists(st.binary(min_size=1, max_size=70), min_size=1, max_size=4), hay=st.binary(max_size=200),
       at=st.integers(0, 200), which=st.integers(0, 3))
def test_the_sieve_never_says_no_to_a_needle(needles: list[bytes], hay: bytes, at: int, which: int) -> None:
    """Wherever it lies, at the beginning, in the middle and at the very end."""
    at = min(at, len(hay))
    assert Sieve(needles).may_hold(hay[:at] + needles[which % len(needles)] + hay[at:])


def test_the_sieve_says_no_to_what_systems_tell() -> None:
    """Or it were of no use: secrets of 32 digits, and documents full of digits and digests."""
    sieve = Sieve(disguises(token(1, "TOKEN")))
    assert not any(sieve.may_hold(canonical({"at": 1_769_440_000_000 + n, "sha256": token(n, "other")})) for n in range(2, 300))


@pytest.mark.parametrize("secret", ['pa"ss\\wort-0123456789', "tür-0123456789", "0123456789\\"])
@pytest.mark.parametrize("ascii", [True, False])
def test_a_secret_is_known_as_json_writes_it(secret: str, ascii: bool) -> None:
    """With its quotes, backslashes and foreign letters escaped; and what held JSON holds it still."""
    secrets = Secrets({"ODD": secret})
    document = json.dumps({"x": secret, "y": 1}, ensure_ascii=ascii)
    assert secrets.stands_in(document.encode())
    starred = json.loads(secrets.starred(document.encode(), "here"))
    assert (set(starred["x"]), starred["y"]) == ({"*"}, 1)
    assert json.loads(secrets.blotted(document, "there")) == {"x": "***", "y": 1}
    assert secrets.blotted(f"as it is: {secret}", "there") == "as it is: ***"


class Chatty(Client):
    """Tells its secret to whoever asks for /secret."""

    def serve(self, now, asked: Request) -> Response:
        if asked.target == "/secret":
            return Response(asked.conn, asked.id, 200, (), f"it is {self.secret}".encode())
        return super().serve(now, asked)


class Gossip(Client):
    """Tells its secret in its status."""

    def serve(self, now, asked: Request) -> Response:
        if asked.target == "/status":
            return Response(asked.conn, asked.id, 200, (), b'{"ticks":1,"config":"%s"}' % self.secret.encode())
        return super().serve(now, asked)


class Sulky(Server):
    """Refuses every switch with its client's secret in the answer."""

    secret = ""

    def switch(self, asked: Request, path: str) -> Response:
        return Response(asked.conn, asked.id, 400, (), f"no: {self.secret}".encode())


def chatty(environment):
    return Chatty(environment)


def gossip(environment):
    return Gossip(environment)


def sulky(environment):
    return Sulky(environment)


def test_an_answer_that_tells_a_secret_is_blotted_and_told(tmp_path: Path) -> None:
    """The recording holds no secret, and says all the same that one was told."""
    world, tape = started(tmp_path, machines={"client": "test_secrets:chatty"})
    world.press(Stimulus("ask", 0, Call("client", "status", "GET", "/secret")))
    tape.seal("completed", world.stop())
    acts = [line for line in read_lines(tmp_path / "recording.jsonl.gz") if line["line"] == "act"]
    assert next(act["saw"]["answer"] for act in acts if act["id"] == "ask") == "it is ***"
    assert [act["saw"] for act in acts if act["id"] == "secrets"] == [
        {"found": [{"secret": "TOKEN", "file": "the answer to ask"}]}]


def test_a_surface_that_tells_a_secret_is_starred_and_told(tmp_path: Path) -> None:
    """In documents and in files alike: the tape holds neither, and says whose answer and which file it was."""
    tape = Tape(tmp_path)
    world = toy_world(tmp_path, machines={"client": "test_secrets:gossip"})
    tape.head(**world.describe())
    world.watch("status", 50)
    world.watch("note", 500)
    world.start(tape)
    secret = world.secrets.values["TOKEN"]
    world.inject(Fault("o", 0, 100, Overwrite("client", "shared/note.json", {"note": secret})))
    world.advance_to(world.now_ms() + 1_000)
    tape.seal("completed", world.stop())
    told = list(read_lines(tmp_path / "recording.jsonl.gz"))
    assert secret not in json.dumps([line for line in told if line["line"] == "sample"])
    stars = "*" * len(secret)
    assert {line["surface"] for line in told if stars in json.dumps(line)} == {"status", "note"}
    found = [each for line in told if line.get("id") == "secrets" for each in line["saw"]["found"]]
    assert {"secret": "TOKEN", "file": "the answers of status"} in found
    assert {"secret": "TOKEN", "file": "the file of note"} in found


def test_an_error_that_tells_a_secret_is_blotted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why a switch was refused is shown to people, so it holds no secret either."""
    world, tape = started(tmp_path, machines={"server": "test_secrets:sulky"})
    monkeypatch.setattr(Sulky, "secret", world.secrets.values["CANARY"])
    with pytest.raises(NotApplied, match=r"no: \*\*\*"):
        world.inject(Fault("s", 0, 100, Switch("server", "mute")))
    tape.seal("completed", world.stop())
    searched = [line["saw"] for line in read_lines(tmp_path / "recording.jsonl.gz") if line.get("id") == "secrets"]
    assert searched == [{"found": [{"secret": "CANARY", "file": "the answer to s"}]}]


@pytest.mark.parametrize(("old", "new", "says"), [
    ("secrets: [TOKEN, CANARY]", "secrets: [CANARY]", "secret 'TOKEN' is not listed"),
    ("to: server.api, env: WIRE_URL", "to: server.apy, env: WIRE_URL", "link wire names port 'apy' of server"),
    ("control: control\n", "control: contrl\n", "control names port 'contrl' of server"),
    ("clock: {port: status", "clock: {port: statsu", "clock names port 'statsu' of client"),
    ("ready: {port: status", "ready: {port: x", "ready names port 'x' of client"),
    ("{node: server, port: control, path: /status", "{node: server, port: x, path: /status", "surface server_status"),
])
def test_a_stack_that_names_what_is_not_there_is_wrong_usage(tmp_path: Path, old: str, new: str, says: str) -> None:
    """Said when the file is read, in every world alike, with the nearest name."""
    assert old in STACK.text.decode()
    file = tmp_path / "stack.yaml"
    file.write_text(STACK.text.decode().replace(old, new))
    with pytest.raises(UsageError, match=says):
        load_stack(file)


def test_the_sim_refuses_what_no_world_can_do(tmp_path: Path) -> None:
    """A file outside the node's folder, a clock that nobody could witness, a trap for a dead node."""
    world, _ = started(tmp_path)
    assert "within the node" in (world.refuses(Stimulus("x", 0, Drop("client", "../../etc/passwd"))) or "")
    clock = dataclasses.replace(STACK.nodes["client"].clock, wall=None)
    blind = dataclasses.replace(STACK, nodes={**STACK.nodes, "client": dataclasses.replace(STACK.nodes["client"], clock=clock)})
    world.stack = blind
    assert "wall clock" in (world.refuses(Clock("client", 500)) or "")
    world.inject(Fault("k", 0, 100, Kill("client")))
    with pytest.raises(NotApplied, match="not running"):
        world.inject(Fault("t", 0, 100, Kill("client", before=("append", "ledger", 1))))
    world.stop()


def test_an_overlay_that_the_stack_does_not_list_is_named(tmp_path: Path) -> None:
    """A build that asks for a policy nobody laid out never starts; those that are listed change the policy key by key."""
    text = (ROOT / "system_under_test" / "stack.yaml").read_text(encoding="utf-8")
    file = tmp_path / "stack.yaml"
    file.write_text(text.replace("{policy:micro_caps}", "{policy:mico_caps}"), encoding="utf-8")
    with pytest.raises(UsageError, match="overlay 'mico_caps' is not listed under overlays; nearest: micro_caps"):
        load_stack(file)
    stack = load_stack(ROOT / "system_under_test" / "stack.yaml")
    assert stack.overlay("micro_caps")["launch_limits"]["DEV"]["max_order_btc"] == 0.1
