"""The house rules as tests: who may import whom, where clocks and luck may be read, what never ends up in a file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("harness", "system_under_test")

# ---- import arrows ----------------------------------------------------------------------------------------

BASE = {"harness.checkout", "harness.errors", "harness.files", "harness.limits", "harness.policies", "harness.texts"}
MAY_IMPORT: dict[str, set[str]] = {
    "harness.checkout": set(),
    "harness.errors": set(),
    "harness.files": set(),
    "harness.limits": set(),
    "harness.texts": {"harness.errors", "harness.limits"},
    "harness.policies": {"harness.errors", "harness.limits", "harness.texts"},
    "harness.contracts": BASE | {"harness.contracts", "harness.drill.model", "harness.drill.predicate"},
    "harness.drill": BASE | {"harness.drill", "harness.world.stack"},
    "harness.recording": BASE | {"harness.drill", "harness.recording"},
    "harness.verdict": BASE | {"harness.contracts", "harness.drill", "harness.recording", "harness.verdict"},
    "harness.world": BASE | {"harness.drill", "harness.recording", "harness.world"},
    "harness.run": BASE | {"harness.drill", "harness.recording", "harness.world"},
    "harness.pack": BASE | {"harness.contracts", "harness.drill", "harness.recording", "harness.verdict", "harness.pack",
                            "harness.world.stack"},
    "harness.gate": BASE | {"harness.contracts", "harness.drill", "harness.recording", "harness.verdict", "harness.pack",
                            "harness.world.stack"},
}
"""Room → what it may import of ours (DESIGN, section 6). ``harness.world.stack`` is data about a stack, read by all who
check names against it. Rooms not listed (cli, session, fleet, …) may import anything of the harness. The simulator alone
may import the vocabulary of machines: values only, the machines themselves are loaded by the name in stack.yaml."""


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of both packages, by dotted name."""
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def imports(module: str, file: Path) -> Iterator[tuple[int, str]]:
    """Dotted names that a module imports, with the line, wherever in the file the import stands."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, each.name) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
                base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
            for each in node.names:
                named = f"{base}.{each.name}"
                yield node.lineno, named if _is_module(named) else base


def _is_module(name: str) -> bool:
    path = ROOT / Path(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def _under(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


def broken_arrows(found: Iterator[tuple[str, Path]]) -> list[str]:
    """Every import that the arrows forbid, as ``file:line: …``."""
    broken = []
    for module, file in found:
        package = module.partition(".")[0]
        room = next((each for each in MAY_IMPORT if _under(module, each)), None)
        for line, name in imports(module, file):
            if not any(_under(name, each) for each in PACKAGES):
                continue
            simulates = _under(module, "harness.world.sim") and _under(name, "system_under_test.machine")
            if simulates:
                continue
            other = name.partition(".")[0] != package
            refused = room is not None and name != "harness" and not any(_under(name, each) for each in MAY_IMPORT[room])
            if other or (refused and package == "harness"):
                broken.append(f"{file}:{line}: {module} may not import {name}")
    return broken


def test_import_arrows() -> None:
    """Rooms import only along the arrows, and the two packages share data, never code."""
    assert broken_arrows(modules()) == []


def test_import_arrows_can_fail(tmp_path: Path) -> None:
    """A verdict that imports a world, and a trader that imports the harness, are both found."""
    verdict, trader = tmp_path / "judge.py", tmp_path / "trader.py"
    verdict.write_text("from harness.world.sim import world\n")
    trader.write_text("def f():\n    import harness.limits\n")
    found = broken_arrows(iter([("harness.verdict.judge", verdict), ("system_under_test.trader.trader", trader)]))
    assert len(found) == 2


def test_trader_and_exchange_meet_on_the_wire_only() -> None:
    """Neither imports the other, and a strategy knows neither venue nor dispatch."""
    broken = []
    for module, file in modules():
        names = [name for _, name in imports(module, file)]
        if _under(module, "system_under_test.trader"):
            broken += [f"{module} → {name}" for name in names if _under(name, "system_under_test.exchange")]
        if _under(module, "system_under_test.exchange"):
            broken += [f"{module} → {name}" for name in names if _under(name, "system_under_test.trader")]
        if _under(module, "system_under_test.trader.strategy"):
            forbidden = ("system_under_test.trader.venue", "system_under_test.trader.dispatch")
            broken += [f"{module} → {name}" for name in names if name.startswith(forbidden)]
    assert broken == []


# ---- machines without IO ----------------------------------------------------------------------------------

IO_MODULES = {"asyncio", "socket", "ssl", "select", "selectors", "subprocess", "threading", "multiprocessing", "aiohttp",
              "requests", "http", "urllib", "time", "signal", "tempfile", "shutil", "os"}
PURE = {"urllib", "urllib.parse"}
"""``urllib.parse`` only takes text apart."""
SANS_IO = tuple(f"system_under_test.{each}" for each in (
    "trader", "exchange", "watchdog", "services", "sync", "intelligence", "state", "machine"))


def test_machines_have_no_io() -> None:
    """Trader, exchange and the small nodes beside them import nothing that reaches a socket, a file, a process or a clock."""
    broken = [f"{module}:{line}: {name}" for module, file in modules() if module.startswith(SANS_IO)
              for line, name in imports(module, file)
              if name.partition(".")[0] in IO_MODULES and name not in PURE and not _escaped(file, line)]
    assert broken == []


# ---- clocks, luck and the environment ---------------------------------------------------------------------

AMBIENT = re.compile(r"\btime\.(time|time_ns|monotonic|monotonic_ns|perf_counter|sleep)\(|datetime\.(now|utcnow|today)\(|"
                     r"\bdate\.today\(|\brandom\.\w+\(|\buuid\.uuid[14]\(|\bos\.(environ|getenv|urandom)\b|\bsecrets\.\w+\(|"
                     r"(?<![\w.])hash\(")
SEAMS = ("harness/world/", "harness/session.py", "harness/cli.py", "harness/arguments.py", "harness/fleet.py",
         "harness/nodes.py", "harness/doctor.py", "harness/checkout.py",
         "harness/engine.py", "harness/console.py", "harness/pack/runlog.py", "harness/pack/seals.py",
         "harness/contracts/validate.py", "system_under_test/shell/", "system_under_test/provision.py")
"""Where a clock, a die or the environment may be read. Elsewhere a line says ``# ambient-ok: reason``."""


def _escaped(file: Path, line: int) -> bool:
    text = file.read_text(encoding="utf-8").splitlines()[line - 1]
    return re.search(r"# ambient-ok: \w", text) is not None


def ambient_uses(root: Path, seams: tuple[str, ...]) -> list[str]:
    """Lines outside the seams that read a clock, luck or the environment without saying why."""
    found = []
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            name = file.relative_to(root).as_posix()
            if name.startswith(seams) or "/mutants/" in name:
                continue
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                if AMBIENT.search(line) and "# ambient-ok: " not in line:
                    found.append(f"{name}:{number}: {line.strip()}")
    return found


def test_clocks_and_luck_have_seams() -> None:
    """No module reads a clock, a die or the environment outside its seam."""
    assert ambient_uses(ROOT, SEAMS) == []


def test_the_ambient_guard_can_fail(tmp_path: Path) -> None:
    """A clock read in a machine is found; one that gives its reason is not."""
    file = tmp_path / "harness" / "verdict" / "judge.py"
    file.parent.mkdir(parents=True)
    file.write_text("now = time.monotonic()\nthen = time.time()  # ambient-ok: a reason\n")
    assert ambient_uses(tmp_path, SEAMS) == ["harness/verdict/judge.py:1: now = time.monotonic()"]


# ---- nothing hidden ---------------------------------------------------------------------------------------

HIDDEN = re.compile(r"\b(TODO|FIXME|XXX)\b|except( Exception| BaseException)?: *(pass|\.\.\.)|suppress\((Base)?Exception\)")


@pytest.mark.parametrize("package", [*PACKAGES, "tests"])
def test_nothing_is_swept_under(package: str) -> None:
    """No unfinished marks and no swallowed exceptions."""
    found = [f"{file.relative_to(ROOT)}:{number}" for file in sorted((ROOT / package).rglob("*.py"))
             if file != Path(__file__).resolve()
             for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1) if HIDDEN.search(line)]
    assert found == []


def test_every_test_says_what_it_holds() -> None:
    """Every test has a sentence of behaviour."""
    silent = []
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
            if named and not ast.get_docstring(node):
                silent.append(f"{file.relative_to(ROOT)}:{node.lineno}: {node.name}")
    assert silent == []
