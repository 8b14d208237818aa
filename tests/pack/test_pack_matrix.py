"""The matrix of sabotages: what it may say, whose build it is about, and what a pack says with and without one."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from pack_kit import DRILL, MakeRun

from harness.pack import matrix as matrices
from harness.pack.build import build
from harness.pack.listing import encode, make_manifest
from harness.pack.manifest import made_by, verify
from harness.pack.matrix import FOLDER, MATRIX_FILE, MISSING, Matrix, read
from harness.pack.matrix_page import mark
from harness.pack.story import read_head
from harness.recording.tape import canonical

Document = dict[str, Any]


def cell(drill: str, verdict: str, *checks: str, **changes: Any) -> Document:
    return {"drill": drill, "status": "completed", "verdict": verdict, "checks": list(checks), "premises": [],
            "crashed": False, "recording": "ab" * 8, **changes}


def row(name: str, run: Document, *, check: str = "latched", said: str | None = "not yet") -> Document:
    """A row as the engine writes it, under one drill."""
    named = {"drill": DRILL, "check": check, "says": "not yet"}
    made: Document = {"name": name, "organ": "market", "machine": f"mutants.market:{name}", "sentence": "<b>It sleeps.</b>",
                      "named": named, "runs": [run], "said": said, "caught_by": matrices.caught_by([run]),
                      "survived": matrices.survived([run])}
    why = matrices.why_not(made, [{"drill": DRILL, "verdict": "PASS"}])
    return {**made, "caught": why is None, "why": why}


def document_of(run: Path, rows: list[Document]) -> Document:
    """A full matrix of the build of a run folder."""
    head = read_head(run)
    return {
        "format": 1, "mutants": rows,
        "controls": [{"drill": DRILL, "status": "completed", "verdict": "PASS", "says": [], "recording": "cd" * 8}],
        "made": {"utc": "2026-01-02T03:04:05Z", "took_ms": 1, "jobs": 2, "commit": "0" * 40, "dirty": False},
        "identity": {"system": head["system"], "recorder": head["recorder"], "harness": made_by()["harness"],
                     "rules": hashlib.sha256(canonical(head["rules"])).hexdigest(), "stack": head["stack"]["sha256"],
                     "catalogue": "0" * 64, "drills": {DRILL: head["drill"]["sha256"]}, "policy": head["policy"],
                     "seed": 1, "world": "sim", "extent": "full"}}


Keep = Callable[[Document], Path]


@pytest.fixture
def run(make_run: MakeRun) -> Path:
    return make_run()


@pytest.fixture
def keep(tmp_path: Path) -> Keep:
    """Leaves a matrix where packing looks for it."""

    def write(document: Document) -> Path:
        file = tmp_path / "evidence" / FOLDER / f"{document['made']['utc'][:10]}-{document['identity']['extent']}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(document))
        return file

    return write


@pytest.fixture
def whole(run: Path) -> Document:
    return document_of(run, [row("sleeps", cell(DRILL, "FAIL", "latched", "counters_monotone")),
                             row("dreams", cell(DRILL, "FAIL", "latched"))])


def test_a_pack_holds_the_matrix_and_says_so(run: Path, whole: Document, keep: Keep, root: Path, tmp_path: Path) -> None:
    """JSON, page, picture, the report's section and one line of the summary; the manifest lists them, verify agrees."""
    keep(whole)
    pack = build([run], 2, tmp_path / "evidence", root)
    assert verify(pack) == []
    summary, report = (pack / "SUMMARY_1PAGE.md").read_text(), (pack / "report.html").read_text()
    assert "Seen red: 2 sabotages, 2 caught by name, full matrix of 2026-01-02, sim, seed 1." in summary
    assert "<svg" in report.split("Seen red")[1] and "<b>It sleeps" not in report
    assert "| # |" in (pack / "sensitivity/matrix.md").read_text()
    listed = {each["path"] for each in orjson.loads((pack / "manifest.json").read_bytes())["files"]}
    assert {MATRIX_FILE, "sensitivity/matrix.md", "sensitivity/matrix.svg"} <= listed


def test_a_pack_without_one_says_so(run: Path, root: Path, tmp_path: Path) -> None:
    """Nobody looked, so the pages say that nobody looked."""
    pack = build([run], 2, tmp_path / "evidence", root)
    assert verify(pack) == []
    for page in ("SUMMARY_1PAGE.md", "README.md"):
        assert MISSING in (pack / page).read_text(), page
    assert MISSING[1:] in (pack / "report.html").read_text()


def test_a_sabotage_that_slipped_through_is_a_risk(run: Path, keep: Keep, root: Path, tmp_path: Path) -> None:
    """It is told on the first page, in words, and no line says that red was seen."""
    keep(document_of(run, [row("sleeps", cell(DRILL, "FAIL", "latched")), row("dreams", cell(DRILL, "PASS"), said=None)]))
    pack = build([run], 2, tmp_path / "evidence", root)
    summary = (pack / "SUMMARY_1PAGE.md").read_text()
    assert "1 caught by name, 1 SLIPPED THROUGH" in summary and "Seen red" not in summary
    assert "NOT CAUGHT: the drill said PASS" in (pack / "sensitivity/matrix.md").read_text()


@pytest.mark.parametrize("word", ["system", "recorder", "harness", "rules", "stack", "drill"])
def test_a_matrix_of_another_build_is_not_taken(run: Path, whole: Document, keep: Keep, root: Path, tmp_path: Path,
                                                word: str) -> None:
    """Building passes it over; a pack into which somebody put it is refused, and the word is named."""
    good = keep(whole)
    pack = build([run], 2, tmp_path / "evidence", root)
    other = copy.deepcopy(whole)
    if word == "drill":
        other["identity"]["drills"][DRILL] = "1" * 64
    else:
        other["identity"][word] = "1" * 64
    (pack / MATRIX_FILE).write_bytes(encode(other))
    about = orjson.loads((pack / "pack.json").read_bytes())
    about["mutants"] = hashlib.sha256(encode(other)).hexdigest()
    (pack / "pack.json").write_bytes(encode(about))
    (pack / "manifest.json").write_bytes(make_manifest(pack))
    (found,) = verify(pack)
    assert found.path == MATRIX_FILE and f"of another build than the runs: another {word}" in found.message
    good.unlink()
    keep(other)
    assert MISSING in (build([run], 2, tmp_path / "evidence", root) / "README.md").read_text()


def test_a_full_matrix_is_taken_before_a_quick_one(run: Path, whole: Document, keep: Keep, root: Path, tmp_path: Path) -> None:
    """Even when the quick one is newer."""
    keep(whole)
    keep({**whole, "made": {**whole["made"], "utc": "2026-02-02T03:04:05Z"},
          "identity": {**whole["identity"], "extent": "quick"}})
    assert "full matrix of 2026-01-02" in (build([run], 2, tmp_path / "evidence", root) / "README.md").read_text()


@pytest.mark.parametrize(("mended", "says"), [
    ("", "1 SLIPPED THROUGH, quick matrix of 2026-01-01"), ("seed", "1 SLIPPED THROUGH, quick matrix of 2026-01-01"),
    ("catalogue", "2 caught by name, full matrix"), ("drill", "2 caught by name, full matrix")])
def test_a_matrix_that_slipped_is_not_passed_over(run: Path, whole: Document, keep: Keep, root: Path, tmp_path: Path,
                                                  mended: str, says: str) -> None:
    """Whether it is older or newer than a fuller one; another seed mends nothing, other sabotages or another drill do."""
    slipped = document_of(run, [row("sleeps", cell(DRILL, "FAIL", "latched")), row("dreams", cell(DRILL, "PASS"), said=None)])
    slipped["identity"].update(extent="quick", seed=7, drills={**whole["identity"]["drills"], "7_else": "0" * 64})
    slipped["controls"] = [*whole["controls"], {**whole["controls"][0], "drill": "7_else"}]
    slipped["made"]["utc"] = "2026-01-01T03:04:05Z"
    last = copy.deepcopy({**slipped, "mutants": [row(name, cell(DRILL, "FAIL", "latched")) for name in ("sleeps", "dreams")]})
    last["identity"].update({"seed": {"seed": 8}, "catalogue": {"catalogue": "1" * 64},
                             "drill": {"drills": {**whole["identity"]["drills"], "7_else": "1" * 64}}}.get(mended, {}))
    last["made"]["utc"] = "2026-01-09T03:04:05Z"
    for document in (slipped, whole, *([last] if mended else [])):
        keep(document)
    pack = build([run], 2, tmp_path / "evidence", root)
    assert verify(pack) == [] and says in (pack / "README.md").read_text()


def relabel(document: Document) -> None:
    document["mutants"][1].update(caught=True, why=None)


def drop_catch(document: Document) -> None:
    document["mutants"][0]["caught_by"].pop()


def another_key(document: Document) -> None:
    document["mutants"][0]["runs"][0]["note"] = "fine"


def no_control(document: Document) -> None:
    document["controls"].clear()


def twice(document: Document) -> None:
    document["mutants"].append(document["mutants"][0])


def nothing(document: Document) -> None:
    document["mutants"].clear()


def run_missing(document: Document) -> None:
    document["mutants"][0]["runs"].clear()


@pytest.mark.parametrize("forge", [relabel, drop_catch, another_key, no_control, twice, nothing, run_missing],
                         ids=lambda forge: forge.__name__)
def test_what_its_cells_do_not_give_is_found(run: Path, forge: Callable[[Document], None]) -> None:
    """A row cannot say otherwise than its runs; the untouched one is read."""
    document = document_of(run, [row("sleeps", cell(DRILL, "FAIL", "latched")), row("dreams", cell(DRILL, "PASS"), said=None)])
    assert isinstance(read(encode(document)), Matrix)
    forge(document)
    assert isinstance(read(encode(document)), str)


@pytest.mark.parametrize(("run_", "said", "why"), [
    (cell(DRILL, "FAIL", "latched"), "not yet", None),
    (cell(DRILL, "FAIL", "latched"), "it latched late", "latched failed for another reason"),
    (cell(DRILL, "FAIL", "counters_monotone"), None, "counters_monotone failed instead of latched"),
    (cell(DRILL, "FAIL", "latched", premises=["given"]), "not yet", "it fell before the fault: given failed"),
    (cell(DRILL, "FAIL", "latched", crashed=True), "not yet", "the system crashed, which is no sabotage of one organ"),
    (cell(DRILL, "INCONCLUSIVE"), None, "the drill said INCONCLUSIVE"),
    (cell(DRILL, "FAIL", "latched", status="aborted"), "not yet", "the drill said FAIL (aborted)"),
    (cell("9_disconnect_mid_flight", "FAIL", "latched"), "not yet", "its drill was not run"),
], ids=lambda value: value if isinstance(value, str) else None)
def test_caught_means_for_its_own_reason(run_: Document, said: str | None, why: str | None) -> None:
    """Red for another reason is not caught, nor is anything under a drill that the healthy system does not pass."""
    assert row("sleeps", run_, said=said)["why"] == why
    if why is None:
        sick = [{"drill": DRILL, "verdict": "INCONCLUSIVE"}]
        assert matrices.why_not(row("sleeps", run_), sick) == "the healthy system does not pass that drill"


def test_every_run_has_its_sign(run: Path) -> None:
    """Caught by name, caught as well, not noticed, unknown, slipped, not run: six signs."""
    caught, slipped = row("a", cell(DRILL, "FAIL", "latched")), row("b", cell(DRILL, "PASS"), said=None)
    caught["runs"] += [cell("1_x", "FAIL", "y"), cell("3_x", "PASS"), cell("4_x", "INCONCLUSIVE")]
    assert [mark(caught, each) for each in (DRILL, "1_x", "3_x", "4_x", "5_x")] == ["#", "x", ".", "?", " "]
    assert mark(slipped, DRILL) == "!"
