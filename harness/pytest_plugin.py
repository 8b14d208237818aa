"""Each drill file is a test: ``pytest drills/phase2 --world sim``.

With pytest-xdist every worker runs its own stacks (``-n 2``). A failure prints the drill's one-page summary and the
command that repeats it. INCONCLUSIVE fails, too: a test that proved nothing has not passed. With ``--placebo`` a drill passes
that breaks a promise of its own, as it must without its force.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # pytest loads this plugin in every run: what only drills need is imported when one runs
    from harness.session import Order, Result

WORLDS = ("sim", "local", "docker")
DRILL_KEY = re.compile(rb"""(\xef\xbb\xbf)?(["']?)drill\2\s*:""")
SAYS_SHOWN_MAX = 40
"""Sentences of one failure: what fits on its page."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of ``drillproof run`` that make sense for tests."""
    group = parser.getgroup("drillproof")
    group.addoption("--world", choices=WORLDS, default=None, help="collect drill files as tests and run them in this world")
    group.addoption("--stack", default=None, help="the system under test (default: ./stack.yaml, else the reference)")
    group.addoption("--drill-seed", type=int, default=1, help="seed of the drills (default: 1)")
    group.addoption("--drill-policy", default=None, help="policy in force (default: the world's)")
    group.addoption("--drill-out", default=None, help="evidence folder (default: a temporary one)")
    group.addoption("--placebo", action="store_true", help="run the drills without their force")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Drill files are collected only when a world was named: no test ever starts processes by surprise."""
    if _is_yaml(file_path) and parent.config.getoption("--world") and _lies_among_drills(file_path, _named(parent.config)):
        return DrillFile.from_parent(parent, path=file_path)
    return None


def _named(config: pytest.Config) -> set[Path]:
    """What pytest was asked for: files and folders."""
    return {Path(each.partition("::")[0]).resolve() for each in config.args}


def _lies_among_drills(file: Path, named: set[Path]) -> bool:
    """Whether the file was named itself, or some folder around it, up to the one that was named, is one of drills. What it
    holds is for the parser to say: a drill whose first word is misspelt is refused, and not passed over."""
    return file in named or any(_is_of_drills(folder) for folder in file.parents
                                if any(folder.is_relative_to(each) for each in named))


@cache
def _is_of_drills(folder: Path) -> bool:
    return folder.name == "drills" or any(_says_drill(file) for file in folder.iterdir() if _is_yaml(file) and file.is_file())


def _is_yaml(file: Path) -> bool:
    return file.suffix.lower() in (".yaml", ".yml")


def _says_drill(file: Path) -> bool:
    """Whether one of its keys is the name of a drill, in whichever way YAML lets it be written."""
    with file.open("rb") as stream:
        return any(DRILL_KEY.match(line) for line in stream.read(65_536).splitlines())


class DrillFile(pytest.File):
    """One YAML file, one test."""

    def collect(self) -> Iterator[pytest.Item]:
        from harness.errors import UsageError
        from harness.pack.phases import ends_in_yaml

        try:
            ends_in_yaml(self.path)
        except UsageError as why:
            raise self.CollectError(str(why)) from why
        yield DrillItem.from_parent(self, name=self.path.stem)


class DrillFailed(Exception):
    """The drill's verdict was not PASS; of a placebo, none of its promises FAILED."""

    def __init__(self, result: Result, order: Order) -> None:
        super().__init__(result.verdict)
        self.result = result
        self.order = order


class DrillItem(pytest.Item):
    """Runs and judges one drill in this worker's process."""

    def runtest(self) -> None:
        from harness import own
        from harness.arguments import here
        from harness.cli import exit_code, placebo_code
        from harness.session import Order, conduct
        from harness.world.stack import load_stack

        world = self.config.getoption("--world")
        self._meant_for(world)
        out = self.config.getoption("--drill-out")
        runs = Path(out) / "runs" if out else self._temporary()
        stack = Path(self.config.getoption("--stack") or here()).resolve()
        policy = own.policy_meant(load_stack(stack), world, self.config.getoption("--drill-policy"))
        order = Order(drill=str(self.path), world=world, seed=self.config.getoption("--drill-seed"),
                      stack=str(stack), policy=policy, runs=str(runs.resolve()),
                      placebo=self.config.getoption("--placebo"))
        result = conduct(order, lambda _word, _facts: None)
        self.user_properties += [("world", world), ("seed", order.seed), ("verdict", result.verdict),
                                 ("time_to_safe_ms", result.time_to_safe_ms), ("recording", result.recording)]
        if result.status == "interrupted":  # the run took the signal to end in order; the rest of the tests ends, too
            raise KeyboardInterrupt
        if placebo_code([result]) if order.placebo else exit_code([result.verdict]):
            raise DrillFailed(result, order)

    def _meant_for(self, world: str) -> None:
        """Of a folder, drills that need another world are skipped with the reason; one that was named is refused instead."""
        from harness.drill.text import worlds_of

        needs = worlds_of(self.path)
        if needs and world not in needs and self.path.resolve() not in _named(self.config):
            pytest.skip(f"NOT RUN in {world}: {self.path.stem}: needs {' or '.join(needs)}")

    def _temporary(self) -> Path:
        factory = self.config._tmp_path_factory  # type: ignore[attr-defined]  # an Item has no fixtures to ask for it
        return factory.mktemp("drills") / "runs"

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        from harness.errors import DrillproofError

        if isinstance(excinfo.value, DrillFailed):
            return one_page(excinfo.value.result, excinfo.value.order)
        if isinstance(excinfo.value, DrillproofError):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"drill: {self.name}"


def one_page(result: Result, order: Order) -> str:
    """What a person needs first: the verdict, what was not PASS, where to look, how to repeat it."""
    from harness.arguments import here
    from harness.world import POLICY_BY_WORLD

    command = ["drillproof", "run", os.path.relpath(order.drill), "--world", order.world, "--seed", str(order.seed)]
    command += ["--policy", order.policy] if order.policy != POLICY_BY_WORLD[order.world] else []
    command += ["--stack", os.path.relpath(order.stack)] if Path(order.stack) != Path(here()).resolve() else []
    command += ["--placebo"] if order.placebo else []
    safe = "never seen safe" if result.time_to_safe_ms is None else f"safe in {result.time_to_safe_ms} ms"
    lines = [f"{result.drill}: {result.verdict} ({result.world}, {result.status}, {safe})", ""]
    lines += [f"  placebo: without its force its promises came to {result.promises}, and they must FAIL then"] * order.placebo
    lines += [f"  {sentence}" for sentence in result.says[:SAYS_SHOWN_MAX]]
    if len(result.says) > SAYS_SHOWN_MAX:
        lines.append(f"  … and {len(result.says) - SAYS_SHOWN_MAX} more")
    lines += ["", f"recording: {result.recording}", f"judge:     drillproof judge {result.recording}",
              f"repeat:    {shlex.join(command)}"]
    return "\n".join(lines)
