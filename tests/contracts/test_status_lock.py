"""What keeps the contract from drifting: lock, file list, generated documents, and codes in programs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from harness.contracts import lock
from harness.contracts.drift import drift
from harness.contracts.generate import drifted, main, write
from harness.contracts.library import FILES, LOCK, MANIFEST, REPOSITORY, SCHEMA_MIN, manifest_of
from harness.contracts.literals import known_elsewhere, sources, unknown_literals
from harness.errors import SpecError


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A freshly generated copy of the contract's files that a test may damage."""
    for folder in ("specs/status", "fixtures/status", "drills/phase2"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    write(tmp_path)
    return tmp_path


def edit(file: Path, change: Callable[[str], str]) -> None:
    """Change a file's text, and be sure that it changed."""
    text = file.read_text()
    assert change(text) != text
    file.write_text(change(text))


def test_the_lock_holds() -> None:
    """Manifest, schemas and goldens are what their contract version says."""
    assert lock.broken() == []


@pytest.mark.parametrize("path", [MANIFEST, SCHEMA_MIN, "fixtures/status/market_data_stale.json"])
def test_a_change_without_a_new_version_breaks_the_lock(copy: Path, path: str) -> None:
    """A changed meaning is named; a reformatted file is not."""
    edit(copy / path, lambda text: json.dumps(json.loads(text), indent=7))
    assert lock.broken(copy) == []
    edit(copy / path, lambda text: text.replace('"open_permission_reason_codes"', '"open_reason_codes"', 1))
    assert [each.split(":")[0] for each in lock.broken(copy)] == [path]


def test_a_new_version_is_locked_once(copy: Path) -> None:
    """A bumped version asks for its lock, gets it, and keeps the former one."""
    edit(copy / MANIFEST, lambda text: text.replace('"contract_version": "5.2"', '"contract_version": "5.3"'))
    assert "not locked" in lock.broken(copy)[0]
    (copy / LOCK).write_text(lock.written(copy))
    assert lock.broken(copy) == [] and set(json.loads((copy / LOCK).read_text())["versions"]) == {"5.2", "5.3"}


def test_lock_does_not_relock(copy: Path) -> None:
    """``--lock`` never blesses a change of a locked version; ``--relock`` says what it does."""
    edit(copy / MANIFEST, lambda text: text.replace("Healthy, paper trading", "Healthy, on paper"))
    assert main(["--lock", "--root", str(copy)]) == 1
    assert main(["--relock", "--root", str(copy)]) == 0 == main(["--check", "--root", str(copy)])


def test_a_broken_lock_file_is_refused(copy: Path) -> None:
    """No lock is better than one that cannot be read."""
    (copy / LOCK).write_text("[]")
    with pytest.raises(SpecError):
        lock.broken(copy)
    assert main(["--check", "--root", str(copy)]) == 2


def test_no_file_is_missing_or_unlisted() -> None:
    """The list is exact."""
    assert drift() == []


def test_the_drift_guard_sees_red(copy: Path) -> None:
    """A missing file, a new one and an untitled fixture are each named."""
    (copy / "fixtures/status/wal_backpressure.json").unlink()
    (copy / "fixtures/status/new.json").write_text("{}")
    (copy / "specs/status/notes.txt").write_text("")
    edit(copy / FILES, lambda text: text.replace("  restart_reconcile: {", "  restarted: {"))
    assert drift(copy) == [
        "specs/status/notes.txt: not listed in specs/status/files.yaml",
        "fixtures/status/wal_backpressure.json: listed and missing",
        "fixtures/status/new.json: not listed in specs/status/files.yaml",
        "fixture restart_reconcile: has no title, or no file",
        "fixture restarted: has no title, or no file",
    ]


@pytest.mark.parametrize("text", ["{}", "specs/status: []", "{", "[]"])
def test_a_list_that_cannot_be_read_is_refused(copy: Path, text: str) -> None:
    """The guard does not pass for want of its list."""
    (copy / FILES).write_text(text)
    with pytest.raises(SpecError):
        drift(copy)


@pytest.mark.parametrize(("path", "old", "new", "document"), [
    (MANIFEST, "Market data has gone silent", "Market data is silent", "OWNER_DASHBOARD_REASON_CODES.md"),
    ("fixtures/status/market_data_stale.json", "3200", "3201", "STATUS_JSON_EXAMPLES.md"),
    ("drills/phase2/2_market_data_stale.yaml", "title: ", "title: Now ", "PHASE2_CHAOS_DRILLS.md"),
])
def test_documents_follow_what_they_describe(copy: Path, path: str, old: str, new: str, document: str) -> None:
    """A document that was not regenerated is named, and regenerating mends it."""
    edit(copy / path, lambda text: text.replace(old, new))
    assert drifted(copy) == [f"specs/status/{document}"]
    main(["--root", str(copy)])
    assert drifted(copy) == []


def test_programs_know_no_code_that_the_manifest_does_not() -> None:
    """Scans harness/, system_under_test/ and drills/."""
    assert unknown_literals(sources(REPOSITORY), manifest_of(), known_elsewhere(REPOSITORY)) == []


def test_what_another_contract_knows_is_no_finding_and_nothing_else() -> None:
    """A reason of the ops status contract and the name of a port are known; a misspelt one is not."""
    text = b'x = ["KILL_SWITCH", "OPS_LISTEN", "KILL_SWICH"]\n'  # not-a-code: red case
    found = unknown_literals([("a.py", text)], manifest_of(), known_elsewhere(REPOSITORY))
    assert found == ["a.py:1: 'KILL_SWICH' is no code of the manifest"]  # not-a-code: red case


def test_the_scan_reads_something() -> None:
    """A scan of nothing finds nothing."""
    assert len(list(sources(REPOSITORY))) > 20


SEEN: dict[str, str] = {
    'MODE = "KILL_BORED"': "KILL_BORED",  # not-a-code: red cases of the scanner, here and below
    "reasons = ['REDUCEONLY_OPEN_PERMISION_LATCHED']": "REDUCEONLY_OPEN_PERMISION_LATCHED",  # not-a-code: red case
    'latch("WS_GAP_RECONCILE_REQUIRED")': "WS_GAP_RECONCILE_REQUIRED",  # not-a-code: red case
    'owner = {"code": "EXEC_ALL_WELL"}': "EXEC_ALL_WELL",  # not-a-code: red case
    'refuse("NetEdgeToLow")': "NetEdgeToLow",  # not-a-code: red case
    'refuse("DeltaBudgetExceeded")': "DeltaBudgetExceeded",  # not-a-code: red case
    'refuse("LiquidityGateNoL3")': "LiquidityGateNoL3",  # not-a-code: red case
}


@pytest.mark.parametrize(("text", "word"), SEEN.items())
def test_the_scan_sees_red(text: str, word: str) -> None:
    """Unknown and misspelt codes in a program are named with their line."""
    found = unknown_literals([("a.py", f"import x\n{text}\n".encode())], manifest_of())
    assert found == [f"a.py:2: {word!r} is no code of the manifest"]


def test_the_scan_reads_yaml_keys_values_and_event_names() -> None:
    """Drills name codes as values, in lists and as parts of event names."""
    text = yaml.safe_dump({"a": ["KILL_BORED"], "KILL_TIRED": 1, "count": "refused.NetEdgeTooLowish"})  # not-a-code: red
    found = unknown_literals([("d.yaml", text.encode())], manifest_of())
    assert {each.split("'")[1] for each in found} == {"KILL_BORED", "KILL_TIRED", "NetEdgeTooLowish"}  # not-a-code: red


def test_the_scan_leaves_words_in_peace() -> None:
    """Known codes, prose, docstrings, names and excused lines are no findings."""
    text = ('"""KILL_BORED is no code."""\nKILL_LIMIT = 3\nx = "KILL_CORTEX_FORCE_KILL"\ny = "PartiallyFilled"\n'
            'z = "KILL_BORED"  # not-a-code: a test\nw = f"{KILL_LIMIT} KILL_BORED"\n')
    assert unknown_literals([("a.py", text.encode())], manifest_of()) == []
