"""In the folder of a system of one's own every command means that system and its drills, and none of them is passed over."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness import own
from harness.cli import main
from harness.errors import UsageError
from harness.pack.origin import tree_sha256
from harness.session import ROOT, _must_run_what_is_digested
from harness.world.stack import load_stack

STALE = "2_market_data_stale"
NEVER_STALE = ("system_under_test.trader:make", "system_under_test.mutants.market:never_stale")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system of one's own whose trader does not notice silence, with one drill."""
    reference = ROOT / "system_under_test"
    shutil.copytree(reference / "policies", tmp_path / "policies")
    (tmp_path / "stack.yaml").write_text((reference / "stack.yaml").read_text().replace(*NEVER_STALE)
                                         .replace("mutants: mutants/catalogue.yaml", "mutants: mine.yaml"))
    (tmp_path / "drills").mkdir()
    shutil.copy(ROOT / "drills" / "phase2" / f"{STALE}.yaml", tmp_path / "drills")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pytested(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, "--world", "sim",
               "--drill-policy", "drill", "--drill-out", str(cwd / "evidence")]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240)


def test_pytest_means_the_system_of_the_folder(folder: Path) -> None:
    """As ``drillproof run`` does; ``--stack`` names another, and the command that repeats it does, too."""
    found = pytested(folder, "drills")
    assert found.returncode == 1 and "FAIL latched" in found.stdout, found.stdout
    assert "--stack" not in found.stdout
    named = pytested(ROOT, str(folder / "drills"), "--stack", str(folder / "stack.yaml"))
    assert named.returncode == 1 and f"--stack {os.path.relpath(folder, ROOT)}/stack.yaml" in named.stdout, named.stdout
    reference = pytested(folder, "drills", "--stack", str(ROOT / "system_under_test" / "stack.yaml"))
    assert reference.returncode == 0, reference.stdout


def test_mutants_are_those_of_the_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The catalogue that the stack of the folder names, under the drills of the folder."""
    (folder / "mine.yaml").write_text("node: trader\npackage: system_under_test.mutants\nmutants:\n  - {name: mine, "
                                      "organ: reports, machine: 'reports:goes_quiet', drill: 2_market_data_stale, "
                                      "caught_by: latched, says: not yet, sentence: x}\n")
    assert main(["mutants", "--quick", "--out", "evidence", "--jobs", "1"]) == 1
    out = capsys.readouterr().out
    assert "mine" in out and "never stale" not in out


def red(file: Path, name: str = "2_red") -> Path:
    """A drill whose promise nobody can keep."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text((ROOT / "drills" / "phase2" / f"{STALE}.yaml").read_text().replace(f"drill: {STALE}", f"drill: {name}")
                    .replace("within: policy.ws_data_stale_ms + 500ms", "within: 200ms"))
    return file


def test_a_drill_in_a_subfolder_is_packed_and_asked_for(folder: Path) -> None:
    """What is run of the folder is what a pack is made of and what the gate compares."""
    red(folder / "drills" / "later" / "2_red.yaml")
    (folder / "drills" / f"{STALE}.yaml").unlink()
    assert main(["run", "--world", "sim", "--policy", "drill", "--jobs", "1"]) == 1
    assert main(["pack", "own", "--world", "sim"]) == 0
    assert (folder / "evidence" / "own" / "incident_drills" / "drill_2_red").is_dir()
    stack = load_stack(folder / "stack.yaml")
    shutil.copy(ROOT / "docs/examples/order-router/checklist.yaml", folder)
    assert set(own.at_hand(replace(stack, checklist=folder / "checklist.yaml"), ROOT)[1].drills) == {"2_red"}


def test_a_pack_of_ones_own_says_what_was_not_run_and_what_was_edited_since(folder: Path,
                                                                         capsys: pytest.CaptureFixture[str]) -> None:
    """Its drills are those beside the stack, as those of a phase are the checkout's."""
    stale, other = folder / "drills" / f"{STALE}.yaml", red(folder / "drills" / "2_red.yaml")
    for name in ("3_elsewhere", "4_nobody"):
        red(folder / "drills" / f"{name}.yaml", name)
    (folder / "drills" / "3_elsewhere.yaml").open("a").write("worlds: [docker]\n")
    assert main(["run", str(stale), str(other), "--world", "sim", "--policy", "drill", "--jobs", "1"]) == 1
    stale.open("a").write("# edited since\n")
    capsys.readouterr()
    assert main(["pack", "own", "--world", "sim"]) == 0
    out = capsys.readouterr().out
    assert "NOT RUN in sim: 3_elsewhere: needs docker" in out and f"ANOTHER TEXT: {STALE}: " in out and "2_red" not in out
    page = (folder / "evidence" / "own" / "SUMMARY_1PAGE.md").read_text()
    assert "0 of 2 drills passed, 2 FAILED, 1 not run" in page and "for sim: 4_nobody" in page
    assert main(["verify", "evidence/own"]) == 0


def test_two_drills_of_one_name_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In two subfolders: runs, packs and items know a drill by its name alone."""
    red(folder / "drills" / "later" / f"{STALE}.yaml", STALE)
    for command in (["run", "--world", "sim"], ["check"], ["pack", "own", "--world", "sim"]):
        assert main(command) == 2
        assert f"later/{STALE}.yaml: has the name of" in capsys.readouterr().err


@pytest.mark.parametrize(("first", "said"), [
    ("drill : 2_red", "FAIL latched"), ('"drill": 2_red', "FAIL latched"), ("dril: 2_red", "found the key 'dril'"),
])
def test_pytest_takes_every_file_of_a_folder_of_drills(folder: Path, first: str, said: str) -> None:
    """However the drill's name is written, in a subfolder, too: what cannot be read is refused, and nothing is dropped."""
    file = red(folder / "drills" / "later" / "2_red.yaml")
    file.write_text(file.read_text().replace("drill: 2_red", first))
    found = pytested(folder, "--stack", str(ROOT / "system_under_test" / "stack.yaml"))
    assert found.returncode == 1 and "1 failed, 1 passed" in found.stdout, found.stdout
    assert said in found.stdout


@pytest.mark.parametrize("first", ["drill: ", '"drill": ', "'drill' : "])
def test_pytest_takes_what_lies_beside_a_drill(folder: Path, first: str) -> None:
    """A folder of drills need not be called so; files elsewhere are nobody's drills."""
    (folder / "drills").rename(folder / "night")
    stale = folder / "night" / f"{STALE}.yaml"
    stale.write_text(stale.read_text().replace("drill: ", first))
    shutil.copy(folder / "policies" / "drill.yaml", folder / "drills.yaml")
    file = red(folder / "night" / "2_red.yaml")
    file.write_text(file.read_text().replace("drill: 2_red", "dril: 2_red"))
    found = pytested(folder, ".", "--collect-only")
    assert found.returncode == 0 and "2 tests collected" in found.stdout, found.stdout


def test_another_ending_is_refused_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A drill that no command would run, because its file ends in .yml."""
    red(folder / "drills" / "2_red.yaml").rename(folder / "drills" / "2_red.yml")
    said = "2_red.yml: found a drill that ends in .yml, expected .yaml"
    for command in (["run", "--world", "sim"], ["run", "drills/2_red.yml", "--world", "sim"], ["check"],
                    ["pack", "own", "--world", "sim"]):
        assert main(command) == 2
        assert said in capsys.readouterr().err
    found = pytested(folder, "drills", "--collect-only")
    assert found.returncode == 2 and said in found.stdout, found.stdout
    (folder / "night").mkdir()
    (folder / "drills" / "2_red.yml").rename(folder / "night" / "2_red.yml")
    alone = pytested(folder, "night", "--collect-only")
    assert alone.returncode == 2 and said in alone.stdout, alone.stdout


def brought_along(folder: Path, source: str) -> None:
    """A machine of one's own in the place of the trader, whose code lies in the folder."""
    text = (folder / "stack.yaml").read_text().replace(NEVER_STALE[1], "mytrader:make")
    (folder / "stack.yaml").write_text(text if "\nchecklist:" in text else text + "checklist: checklist.yaml\n")
    shutil.copy(ROOT / "docs/examples/order-router/checklist.yaml", folder)
    (folder / "mytrader.py").write_text(source)


def test_two_builds_of_a_machine_are_never_mixed(folder: Path, monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    """The machines beside it are the reference system's; what the stack brings along counts all the same."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(folder))))
    monkeypatch.syspath_prepend(str(folder))
    rest = folder / "drills" / "0_rest.yaml"
    text = re.sub(r"proves:.*", "proves: []", (folder / "drills" / f"{STALE}.yaml").read_text())
    (folder / "drills" / f"{STALE}.yaml").write_text(text)
    rest.write_text(text.replace(f"drill: {STALE}", "drill: 0_rest"))
    brought_along(folder, "from system_under_test.trader import make\n")
    first = own.at_hand(load_stack(folder / "stack.yaml"), ROOT)[1].system
    assert main(["run", STALE, "--world", "sim", "--policy", "drill", "--jobs", "1"]) == 0
    brought_along(folder, "from system_under_test.mutants.market import never_stale as make\n")
    assert own.at_hand(load_stack(folder / "stack.yaml"), ROOT)[1].system != first
    assert main(["run", "0_rest", "--world", "sim", "--policy", "drill", "--jobs", "1"]) == 1
    capsys.readouterr()
    assert main(["pack", "own", "--world", "sim"]) == 1
    assert "system" in capsys.readouterr().err


def test_a_package_of_elsewhere_is_not_run_as_that_of_the_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where neither has an ``__init__.py`` and both make one package together; nor is a module within it."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for each in (folder, elsewhere):
        (each / "mysys").mkdir()
        (each / "mysys" / "m.py").write_text("from system_under_test.trader import make\n")
    (folder / "stack.yaml").write_text((folder / "stack.yaml").read_text().replace(NEVER_STALE[1], "mysys.m:make"))
    stack = load_stack(folder / "stack.yaml")
    monkeypatch.syspath_prepend(str(folder))
    _must_run_what_is_digested(stack)
    monkeypatch.syspath_prepend(str(elsewhere))
    for _ in range(2):
        with pytest.raises(UsageError, match=f"module mysys.*: found {elsewhere}/mysys.*expected that of {folder},"):
            _must_run_what_is_digested(stack)
        (elsewhere / "mysys" / "__init__.py").touch()
        importlib.invalidate_caches()


def test_a_module_that_a_command_names_is_of_the_build(tmp_path: Path) -> None:
    """``{python} -m app``: its file, or all of its package; and a module that a node's machine names."""
    (tmp_path / "stack.yaml").write_text("stack: mine\ndeployment_environment: DEV\nnodes:\n"
                                         "  app: {command: ['{python}', -m, app.main]}\n  other: {machine: 'mine:make'}\n")
    stack = load_stack(tmp_path / "stack.yaml")
    seen = {own.build_sha256(stack, ROOT)}
    (tmp_path / "app").mkdir()
    for file in ("mine.py", "app/main.py", "app/rules.py"):
        (tmp_path / file).write_text("x = 1\n")
        seen.add(own.build_sha256(stack, ROOT))
    assert len(seen) == 4


@pytest.mark.parametrize(("command", "file"), [
    ('[uvicorn, "app:app"]', "app.py"), ("[python3, -mapp]", "app.py"), ("[node, .]", "src/index.js"),
    ('[python3, -m, uvicorn, "pkg.main:app"]', "pkg/rules.py"),
    ("[python3, pkg]", "pkg/rules.py"), ('[python3, "{stack}/pkg"]', "pkg/rules.py"), ("[node, src]", "src/index.js"),
    ("[flask, --app=app.py, run]", "app.py"), ('[sh, -c, "exec python3 app.py; ' + 'x' * 300 + '"]', "app.py"),
])
def test_what_a_word_of_a_command_means_is_of_the_build(tmp_path: Path, command: str, file: str) -> None:
    """However it is named; but not what runs leave behind, where a folder is named as a whole."""
    (tmp_path / "stack.yaml").write_text(f"stack: mine\ndeployment_environment: DEV\nnodes:\n  app: {{command: {command}}}\n")
    for each in ("app.py", "pkg/main.py", "pkg/rules.py", "src/index.js"):
        (tmp_path / each).parent.mkdir(exist_ok=True)
        (tmp_path / each).write_text("one\n")
    stack = load_stack(tmp_path / "stack.yaml")
    first = own.system_sha256(stack)
    for each in ("evidence/runs.jsonl", "src/.git/HEAD", "pkg/__pycache__/x.pyc", "venv/pyvenv.cfg", "drills/d.yaml"):
        (tmp_path / each).parent.mkdir()
        (tmp_path / each).write_text("one\n")
    assert own.system_sha256(stack) == first
    (tmp_path / file).write_text("two\n")
    assert own.system_sha256(stack) != first


def test_the_build_of_the_reference_is_that_of_the_checkout() -> None:
    """The gate, matrices and packs compare it with the digest of the tree alone."""
    reference = load_stack(ROOT / "system_under_test" / "stack.yaml")
    assert own.build_sha256(reference, ROOT) == tree_sha256(ROOT / "system_under_test")
