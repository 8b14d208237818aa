"""The page about your own system is followed as it stands, from an empty folder to a verified pack."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sys
from pathlib import Path
from types import ModuleType

import pytest

from harness.world.real import setup

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "your-own-system.md"


@pytest.fixture(scope="module")
def follower() -> ModuleType:
    """``docs/follow.py``."""
    spec = importlib.util.spec_from_file_location("follow", ROOT / "docs" / "follow.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["follow"] = module
    spec.loader.exec_module(module)
    return module


def surroundings(place: Path) -> dict[str, str]:
    """What a reader's shell has: this interpreter's commands, and this checkout's code."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DRILLPROOF_EVIDENCE", "PYTEST"))}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
            "PORT": str(port), "TMPDIR": str(place)}


@pytest.mark.skipif(shutil.which("go") is None, reason="no Go on PATH: the page's example is written in it")
@pytest.mark.skipif(setup.find() is None, reason="no Toxiproxy server: `drillproof toxiproxy` says how to get one")
@pytest.mark.timeout(1300)
def test_the_page_is_followed(follower: ModuleType, tmp_path: Path) -> None:
    """Every command on the page runs, ends as the page says, and prints what the page shows. What a busy machine left
    undecided is tried once more; a FAIL never is."""
    problems = follower.follow(PAGE, ROOT, surroundings(tmp_path))
    if "INCONCLUSIVE" in "".join(problems):
        problems = follower.follow(PAGE, ROOT, surroundings(tmp_path))
    assert problems == []


PAGES = {
    "ends_otherwise": ("```sh\ntrue\nfalse\n```\n", "p.md:1: ended with ['1'], failed: ['false']"),
    "passes_though_red_was_promised": ("```sh exit=1\ntrue\n```\n", "p.md:1: ended with ['0'], failed: []"),
    "fails_in_the_middle": ("x\n```sh\nfalse\ntrue\n```\n", "p.md:2: ended with ['0'], failed: ['false']"),
    "prints_something_else": ("```sh\necho PASS 12 ms\n```\n```text\nPASS 7 s\n```\n", "p.md:1: did not print 'PASS 7 s'"),
    "ends_the_shell": ("```sh\nexit 0\n```\n```sh\ntrue\n```\n", "p.md: 1 of 2 blocks were begun"),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_that_is_not_so_is_found(name: str, follower: ModuleType, tmp_path: Path) -> None:
    """Each way in which a page and the truth part is told with its place."""
    page, told = PAGES[name]
    found = follower.blocks(page)
    assert follower.wrong_with("p.md", found, follower.run(found, tmp_path, dict(os.environ)))[0].startswith(told)


def test_a_page_that_is_so(follower: ModuleType, tmp_path: Path) -> None:
    """One shell for all blocks; a number stands for any other; a red block is as good as a green one."""
    page = "```sh\nX=3\n```\ntext\n```sh exit=1\necho took $X ms\nfalse\n```\n```text\ntook  41 ms\n```\n"
    found = follower.blocks(page)
    assert follower.wrong_with("p.md", found, follower.run(found, tmp_path, dict(os.environ))) == []
