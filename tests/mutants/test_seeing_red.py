"""Nothing is trusted green until it has been seen red: placebos, and mutants that drills must catch by name.

Of the mutants, one of each organ: all of them are the business of ``drillproof mutants --quick``, which ``.ci/run`` calls
beside these tests, and ``MUTANTS=all`` runs them here."""

from __future__ import annotations

import importlib
import inspect
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.session import ROOT, Order, Result, conduct

DRILLS = {file.stem: file for file in sorted((ROOT / "drills").glob("*/*.yaml"), key=lambda file: (
    file.parent.name, len(file.stem.partition("_")[0]), file.stem))}
MUTANTS = ROOT / "system_under_test" / "mutants"
CATALOGUE: dict[str, Any] = yaml.safe_load((MUTANTS / "catalogue.yaml").read_text(encoding="utf-8"))
FIRST = {row["organ"]: row for row in reversed(CATALOGUE["mutants"])}
"""Organ → the first of its mutants in the catalogue."""
SHARE = CATALOGUE["mutants"] if os.environ.get("MUTANTS") == "all" else list(FIRST.values())
FIELDS = {"name", "organ", "machine", "drill", "caught_by", "says", "sentence"}


def run(drill: Path, folder: Path, *, placebo: bool = False,
        mutant: dict[str, str] | None = None) -> tuple[Result, dict[str, Any]]:
    """One run of a drill in the sim under the policy of drills, and its verdict."""
    machines = {mutant.get("node", CATALOGUE["node"]): f"system_under_test.mutants.{mutant['machine']}"} if mutant else {}
    order = Order(str(drill), "sim", 1, str(ROOT / "system_under_test" / "stack.yaml"), "drill", str(folder / "runs"),
                  placebo=placebo, machines=machines)
    result = conduct(order, lambda word, facts: None)
    return result, json.loads((Path(result.recording) / "verdict.json").read_bytes())


def failing(verdict: dict[str, Any], *kinds: str) -> dict[str, str]:
    """Every FAIL among checks of these kinds: id and sentence. ``golden`` is a check of its own."""
    checks = [check for kind in kinds for check in (verdict[kind] if kind != "golden" else [verdict["golden"] or {}])]
    found: dict[str, str] = {}
    for check in checks:
        if check.get("verdict") == "FAIL":
            found[check["id"]] = f"{found.get(check['id'], '')} {check['says']}".strip()
    return found


@pytest.mark.parametrize("drill", DRILLS.values(), ids=lambda file: file.stem)
def test_placebo_fails(drill: Path, tmp_path: Path) -> None:
    """Without its force no drill comes true: a promise FAILs, and no premise excuses it."""
    result, verdict = run(drill, tmp_path, placebo=True)
    assert verdict["placebo"] is True
    assert (result.status, result.verdict) == ("completed", "FAIL")
    assert failing(verdict, "premises") == {}
    assert failing(verdict, "promises") != {}, result.says


@pytest.mark.parametrize("row", SHARE, ids=lambda row: row["machine"])
def test_mutant_is_caught(row: dict[str, str], tmp_path: Path) -> None:
    """The drill says FAIL for the right reason: the named check, with the defect in its sentence."""
    result, verdict = run(DRILLS[row["drill"]], tmp_path, mutant=row)
    assert (result.status, result.verdict) == ("completed", "FAIL"), result.says
    assert failing(verdict, "premises") == {}, "it fell before the fault, not by it"
    found = failing(verdict, "promises", "laws", "golden")
    assert row["caught_by"] in found, result.says
    assert row["says"] in found[row["caught_by"]]
    exits = [line for line in (Path(result.recording) / "node-logs").rglob("*.log") if "Traceback" in line.read_text()]
    assert exits == [], "a crash is no sabotage of this organ"


def test_known_holes_are_still_holes(tmp_path: Path) -> None:
    """What the catalogue calls a hole is one; once a drill catches it, the row moves up to ``mutants``."""
    for number, row in enumerate(CATALOGUE["waiting"]):
        _, verdict = run(DRILLS[row["drill"]], tmp_path / str(number), mutant=row)
        found = failing(verdict, "promises", "laws", "golden")
        assert row["caught_by"] not in found, f"{row['machine']} is caught now: move it from `waiting` to `mutants`"


def test_catalogue_and_factories_agree() -> None:
    """Every row names a factory with a docstring, every factory has its row, and every drill its mutant."""
    rows = CATALOGUE["mutants"] + CATALOGUE["waiting"]
    assert all(set(row) - {"node"} == FIELDS for row in rows)
    named = [row["machine"] for row in rows]
    assert len(named) == len(set(named))
    factories = set()
    for file in MUTANTS.glob("*.py"):
        module = importlib.import_module(f"system_under_test.mutants.{file.stem}")
        for name, found in inspect.getmembers(module, inspect.isfunction):
            own = found.__module__ == module.__name__ and list(inspect.signature(found).parameters) == ["environment"]
            if own and not name.startswith("_"):
                factories.add(f"{file.stem}:{name}")
                assert "Real bugs look like this" in (found.__doc__ or ""), name
    assert set(named) == factories
    assert all(row["organ"] == row["machine"].partition(":")[0] for row in rows)
    assert {row["drill"] for row in CATALOGUE["mutants"]} == set(DRILLS)
