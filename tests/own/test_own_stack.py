"""A stack of one's own: what it lacks is refused by name when a drill is checked, what it brings along is read strictly."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from harness import own
from harness.cli import main
from harness.drill.check import check
from harness.drill.text import Specs, parse
from harness.errors import TextError, UsageError
from harness.gate import decide
from harness.policies import load_policy
from harness.session import ROOT
from harness.world.real.nodes import LocalNode, Surroundings
from harness.world.secrets import Secrets
from harness.world.stack import load_stack

STACK = """stack: mine
deployment_environment: DEV
nodes:
  app:
    command: [./app, "{port:http}", "{url:db}"]
    ports: {http: {env: LISTEN}}
links:
  db: {from: app, to: db, env: DB, url: "{address}", transit_ms_max: 50}
upstreams: {db: "127.0.0.1:5432"}
surfaces:
  status: {node: app, port: http, path: /, contract: null, every: 200ms}
"""
DRILL = """drill: d
title: t
sample: {status: 200ms}
given: {status: {ok: true}, for: 1s, within: 9s}
faults:
  trouble: {at: 1s, for: 2s, FAULT}
promises:
  held: PROMISE
converge: {status: {ok: true}, within: 9s, for: 4s}
"""
CUT, WITHIN = "cut: {link: db}", "{within: 3s, after: trouble, status: {ok: false}}"


def stack_of(tmp_path: Path, text: str = STACK) -> Any:
    (tmp_path / "stack.yaml").write_text(text)
    return load_stack(tmp_path / "stack.yaml")


def problems(tmp_path: Path, drill: str) -> list[str]:
    stack = stack_of(tmp_path)
    specs = Specs.of(ROOT, stack, stack.policy("none"))
    return [str(each) for each in check(parse(drill.encode(), "d.yaml", specs), specs)]


def drill(fault: str = CUT, promise: str = WITHIN, more: str = "") -> str:
    return DRILL.replace("FAULT", fault).replace("PROMISE", promise) + more


@pytest.mark.parametrize("fault", [CUT, "stall: {link: db, toward: client}", "kill: {node: app}", "pause: {node: app}"])
def test_what_needs_nothing_more_is_taken(tmp_path: Path, fault: str) -> None:
    """Troubles of links and of processes, promises over any field."""
    assert problems(tmp_path, drill(fault)) == []


@pytest.mark.parametrize(("text", "said"), [
    (drill("switch: {node: app, name: maintenance}"), "d.yaml:6:45: found the node without a control port 'app'"),
    (drill("clock: {node: app, step: 30s}"), "d.yaml:6:44: found the node 'app', which does not tell its wall clock"),
    (drill("disk: {node: app, kind: stall}"), "d.yaml:6:36: found a disk fault 'stall' of 'app', which is no machine"),
    (drill("kill: {node: app, before: {send: private/buy}}"), "d.yaml:6:56: found a crash point of 'app'"),
    (drill(promise="{never: order.opening, while: {status: {ok: false}}}"),
     "d.yaml:8:17: found 'order.opening', which books would tell, expected a stack with that stream; this one has none at all"),
    (drill(promise="{count: books.reconciled, at_least: 1}"), "d.yaml:8:17: found 'books.reconciled', which books would tell"),
    (drill(promise="{count: wish.made, at_least: 1}"), "d.yaml:8:17: found 'wish.made', which notes would tell"),
    (drill(promise="{only_after: books.reconciled, since: trouble, becomes: {status: {ok: true}}}"), "d.yaml:8:22: found"),
    (drill(more="golden: {fixture: market_data_stale, reached_within: 3s}\n"),
     "d.yaml:10:9: found a golden of the contract csp_status, expected a surface that keeps it; this stack has status"),
])
def test_what_the_stack_lacks_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    """With its place in the drill, before anything runs."""
    assert [each[: len(said)] for each in problems(tmp_path, text)] == [said]


@pytest.mark.parametrize(("old", "new", "said"), [
    ("links:", "lnks:", "7:1: found the key 'lnks'"),
    ("transit_ms_max: 50", "transit_max: 50", "8:54: found the key 'transit_max'"),
    ('"127.0.0.1:5432"', '"10.0.0.7:5432"', "9:17: upstream db: found '10.0.0.7:5432'"),
    ("to: db", "to: dbb", "8:7: link db names node 'dbb'"),
    ("{port:http}", "{port:api}", "5:5: node app asks for the port 'api', which is not its own; known: http"),
    ("{url:db}", "{url:dba}", "5:5: node app asks for the url 'dba', which is not its own; known: db"),
    ("env: DB,", "env: LISTEN,", "5:5: node app would be told two things by LISTEN"),
    ("contract: null", "contract: mine", "11:54: found 'mine', expected null, or one of the contracts"),
    ("surfaces:", "contracts: {csp_status: {rules: r.yaml}}\nsurfaces:", "10:25: contract csp_status: that is the name"),
    ("surfaces:", "contracts: {mine: {}}\nsurfaces:", "10:19: contract mine: found nothing"),
    ("surfaces:", "contracts: {mine: {rules: ../r.yaml}}\nsurfaces:", "10:19: contract mine: found '../r.yaml'"),
    ("surfaces:", "safe: [{stats: {ok: false}}]\nsurfaces:", "10:9: found 'stats', expected one of the surfaces status"),
    ("surfaces:", "safe: {status: {ok: false}}\nsurfaces:", "10:7: found a mapping, expected a list of predicates"),
    ("surfaces:", "safe: [{status: {}}]\nsurfaces:", "10:17: found no fields"),
    ("surfaces:", "safe: [{status: {ok: {at_lest: 1}}}]\nsurfaces:", "10:8: found status.ok: no operator ['at_lest']"),
    ("surfaces:", "checklist: ../c.yaml\nsurfaces:", "10:12: checklist: found '../c.yaml', expected a relative path"),
])
def test_a_stack_is_read_strictly(tmp_path: Path, old: str, new: str, said: str) -> None:
    """What is wrong is told where it stands."""
    with pytest.raises(UsageError) as told:
        stack_of(tmp_path, STACK.replace(old, new))
    assert str(told.value).startswith(f"{tmp_path}/stack.yaml:{said}")


def test_what_it_brings_along_is_read_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake in a rules file or a checklist is a mistake of the set-up, with its place."""
    monkeypatch.chdir(tmp_path)
    bring = "contracts: {mine: {rules: r.yaml}}\nchecklist: c.yaml\nsurfaces:"
    stack = stack_of(tmp_path, STACK.replace("contract: null", "contract: mine").replace("surfaces:", bring))
    (tmp_path / "drills").mkdir()
    (tmp_path / "drills" / "1_d.yaml").write_text(drill())
    checklist = (ROOT / "docs/examples/order-router/checklist.yaml").read_text()
    (tmp_path / "r.yaml").write_text("enumeration: {}\n")
    (tmp_path / "c.yaml").write_text(checklist)
    assert main(["check"]) == 2
    assert "r.yaml:1:1: found the key 'enumeration'" in capsys.readouterr().err
    (tmp_path / "r.yaml").write_text("enumerations: {mode: [a]}\n")
    (tmp_path / "c.yaml").write_text(checklist.replace("phase: own", "phase: 2"))
    assert main(["check"]) == 2
    assert "a checklist of one's own says `phase: own`" in capsys.readouterr().err
    (tmp_path / "c.yaml").write_text(checklist)
    assert main(["check"]) == 0
    assert set(own.texts_of(stack)) == {"own/contracts/mine.rules.yaml", "own/checklist.yaml"}
    with pytest.raises(TextError, match=r"drills/1_d.yaml|d\.yaml"):
        raise check(parse(drill().replace("title: t", "title: t\nproves: [P2-STALE-DATA]").encode(), "d.yaml"),
                    Specs.of(ROOT, stack, {}))[0]


def test_a_gate_without_a_checklist_or_a_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    """Without the one there is nothing to decide, without the other every item is closed."""
    monkeypatch.chdir(tmp_path)
    stack_of(tmp_path)
    assert main(["gate", "own"]) == 2
    assert "names no checklist" in capsys.readouterr().err
    stack = stack_of(tmp_path, STACK.replace("surfaces:", "checklist: c.yaml\nsurfaces:"))
    (tmp_path / "c.yaml").write_text((ROOT / "docs/examples/order-router/checklist.yaml").read_text())
    decision = decide(0, tmp_path / "evidence", ROOT, own=own.at_hand(stack, ROOT))
    assert not decision.open and [each.state for each in decision.items] == ["closed"]
    assert main(["gate", "own"]) == 1


def test_another_build_is_another_system(tmp_path: Path) -> None:
    """The files that the commands name make the digest; a rebuilt one is told apart."""
    stack = stack_of(tmp_path)
    (tmp_path / "app").write_bytes(b"one")
    first = own.system_sha256(stack)
    assert own.system_sha256(stack) == first
    (tmp_path / "app").write_bytes(b"two")
    assert own.system_sha256(stack) != first


def test_a_command_of_ones_own_gets_nothing_of_our_python(tmp_path: Path) -> None:
    """Where we look for modules is no business of a program that happens to be written in Python, too."""
    stack = stack_of(tmp_path)
    around = Surroundings(stack, "run", "marker", 1, tmp_path, {}, Secrets({}))
    for machine, ours in ((None, False), ("some.module:make", True)):
        node = LocalNode(stack.nodes["app"], around, {"http": 10_240}, machine, None)
        assert ("PYTHONPATH" in node._surrounding(), "PYTHONSAFEPATH" in node._surrounding()) == (ours, ours)
        node.urls["DB"] = "127.0.0.1:10241"
        assert [node._placeholders(part) for part in stack.nodes["app"].command] == ["./app", "10240", "127.0.0.1:10241"]


def test_a_policy_is_the_reader_s_own(tmp_path: Path) -> None:
    """What one reader changes in it, nested too, no other reader of the same bytes finds."""
    (tmp_path / "base.yaml").write_text("limits: {BTC: [1, 2]}\nmore: {a: {b: 1}}\n")
    (tmp_path / "drill.yaml").write_text("extends: base.yaml\noverrides: {more: {a: {b: 2}}}\n")
    for name in ("base.yaml", "drill.yaml"):
        before = load_policy(tmp_path / name)
        changed = load_policy(tmp_path / name)
        changed["limits"]["BTC"].append(3)
        changed["more"]["a"]["b"] = 4
        assert load_policy(tmp_path / name) == before and before["limits"] == {"BTC": [1, 2]}


@pytest.mark.parametrize("again", [
    "{node: app, port: http, path: /, contract: null, every: 1s}",
    "{node: app, port: http, path: /, contract: ops_status, every: 200ms}",
])
def test_two_surfaces_are_not_one_answer(tmp_path: Path, again: str) -> None:
    """Whoever copies a line and forgets its node would hear one service under two names, and the other never; however it is
    spelled. Behind a query may lie another document, but none of a contract of ours."""
    with pytest.raises(UsageError) as why:
        stack_of(tmp_path, STACK + f"  other: {again}\n")
    assert str(why.value).endswith("stack.yaml:12:10: surface other is what surface status is, http of app at /; "
                                   "expected an answer of its own")


@pytest.mark.parametrize(("path", "same"), [
    ("/ops/status?", True), ("/ops/status?x=1", True), ("//ops/status", True), ("/ops/./status", True), ("/ops/status#b", True),
    ("/ops/%73tatus", True), ("/ops/status/", True), ("/ops/status2", False), ("/ops", False),
])
def test_one_path_in_another_spelling_is_one_path(tmp_path: Path, path: str, same: bool) -> None:
    """Of a contract of ours; behind a query another contract, or somebody's own, may have another document."""
    surface = '{node: app, port: http, path: "%s", contract: %s, every: 1s}\n'
    text = STACK + f"  a: {surface % ('/ops/status', 'ops_status')}  b: {surface % (path, 'ops_status')}"
    with pytest.raises(UsageError, match="surface b is what surface a is") if same else nullcontext():
        stack_of(tmp_path, text)
    stack_of(tmp_path, STACK + f"  a: {surface % ('/data?of=a', 'null')}  b: {surface % ('/data?of=b', 'null')}")
    stack_of(tmp_path, STACK + f"  a: {surface % ('/s?nav', 'state_files.nav')}  b: {surface % ('/s', 'ops_status')}")


def test_two_surfaces_are_not_one_file(tmp_path: Path) -> None:
    """Of one node, or of a volume that two nodes share."""
    own_file = "{node: app, file: nav.json, contract: null, every: 1s}\n"
    with pytest.raises(UsageError, match=r"stack.yaml:13:8: surface two is what surface one is, nav.json of app; expected"):
        stack_of(tmp_path, STACK + f"  one: {own_file}  two: {own_file}")
    shared = STACK.replace("links:", "  other: {command: [./app]}\nvolumes:\n  v: {nodes: [app, other], at: state}\nlinks:")
    with pytest.raises(UsageError, match="surface two is what surface one is, nav.json of volume v; expected"):
        stack_of(tmp_path, shared + "".join(f"  {name}: {{node: {node}, file: state/nav.json, contract: null, every: 1s}}\n"
                                            for name, node in (("one", "app"), ("two", "other"))))


def test_an_image_that_no_engine_has_is_known_by_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading what is at hand needs no engine, and a stack without images asks for none."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    assert own.images_at_hand(stack_of(tmp_path)) == {}
    assert own.images_at_hand(stack_of(tmp_path, STACK.replace("command: [./app, ", "image: app:1\n    command: [./app, "))) \
        == {"app": None}
