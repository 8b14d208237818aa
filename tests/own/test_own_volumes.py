"""Volumes and file surfaces of a stack: what is lawful is read, what is not is refused where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import SpecError, UsageError
from harness.session import ROOT
from harness.verdict.rules import load_rules
from harness.world.stack import Stack, Surface, Volume, load_stack

STACK = """stack: mine
deployment_environment: DEV
nodes:
  app: {command: [./app]}
  sync: {command: [./sync]}
volumes:
  state: {nodes: [app, sync], at: state, disk_mib: 16}
surfaces:
  nav: {node: app, file: state/nav.json, contract: state_files.nav, every: 1s}
"""


def stack_of(tmp_path: Path, old: str = "", new: str = "") -> Stack:
    (tmp_path / "stack.yaml").write_text(STACK.replace(old, new))
    return load_stack(tmp_path / "stack.yaml")


def test_a_volume_and_a_file_in_it_are_read(tmp_path: Path) -> None:
    """Which nodes share it, where they find it, and what a file of theirs is called in it."""
    stack = stack_of(tmp_path)
    assert stack.volumes == {"state": Volume("state", ("app", "sync"), "state", 16)}
    assert stack.surfaces["nav"] == Surface("nav", "app", "", "", "state_files.nav", 1_000, "state/nav.json")
    assert stack.volume_of("sync", "state/deep/nav.json") == (stack.volumes["state"], "deep/nav.json")
    assert stack.volume_of("app", "statement.json") is None and stack.volume_of("other", "state/nav.json") is None


def test_who_shares_a_volume_runs_as_one_user(tmp_path: Path) -> None:
    """In containers its files belong to one; where nodes run as several, some could not write."""
    with pytest.raises(UsageError, match=r"stack.yaml:7:10: the nodes of volume state run as 10001:10001, 7:7, expected one"):
        stack_of(tmp_path, "command: [./sync]", 'command: [./sync], user: "7:7"')


@pytest.mark.parametrize(("new", "said"), [
    ("{nodes: [app, syncs], at: state}", "7:10: volume state names node 'syncs', which does not exist (nearest: sync)"),
    ("{nodes: [app, app], at: state}", "7:10: volume state: nodes: found ['app', 'app'], expected a list of nodes, each once"),
    ("{nodes: [], at: state}", "7:10: volume state: nodes: found [], expected a list"),
    ("{nodes: [app], at: ../state}", "7:10: volume state: at: found '../state', expected a relative folder"),
    ("{nodes: [app], at: /state}", "7:10: volume state: at: found '/state', expected a relative folder"),
    ("{nodes: [app], at: state, disk_mib: 0}", "7:10: disk_mib: found 0, expected a whole number"),
    ("{nodes: [app]}", "7:10: found volumes state without it, expected the key 'at'"),
    ("{nods: [app], at: state}", "7:11: found the key 'nods', expected one of the keys nodes, at, disk_mib (nearest: nodes)"),
    ("{nodes: [app], at: a/b}\n  x: {nodes: [app], at: a}", "8:6: volume x lies at a, and so does volume state"),
])
def test_a_volume_that_is_wrong_is_refused_where_it_stands(tmp_path: Path, new: str, said: str) -> None:
    """With the line and the column of its entry, and the nearest name."""
    with pytest.raises(UsageError) as why:
        stack_of(tmp_path, "{nodes: [app, sync], at: state, disk_mib: 16}", new)
    assert f"stack.yaml:{said}" in str(why.value)


@pytest.mark.parametrize(("old", "new", "said"), [
    ("node: app", "node: ap", "9:8: surface nav names node 'ap', which does not exist (nearest: app)"),
    ("state/nav.json", "../nav.json", "9:8: surface nav: file: found '../nav.json', expected a relative path inside"),
    ("file:", "path: /x, file:", "9:8: surface nav: found path beside file, expected either a file or port and path"),
    ("file:", "fiel:", "9:20: found the key 'fiel'"),
    ("state_files.nav", "state_fils", "9:52: found 'state_fils', expected null, or one of the contracts csp_status"),
    ("state_files.nav", "state_files.a/b", "9:52: found 'state_files.a/b', expected null"),
    ("state_files.nav", "csp_status.nav", "9:52: found 'csp_status.nav', expected null"),
])
def test_a_file_surface_that_is_wrong_is_refused_where_it_stands(tmp_path: Path, old: str, new: str, said: str) -> None:
    """A file beside a port is two things at once; one that leads out of the node's files is none of its own."""
    with pytest.raises(UsageError) as why:
        stack_of(tmp_path, old, new)
    assert f"stack.yaml:{said}" in str(why.value)


@pytest.mark.parametrize("name", ["csp_status.nav", "state_files/nav", ".nav", "os.path"])
def test_only_some_contracts_have_parts(name: str) -> None:
    """And a name in a stack file never becomes an import of something else."""
    with pytest.raises(SpecError, match="no contract"):
        load_rules(ROOT).contract(name, {})
