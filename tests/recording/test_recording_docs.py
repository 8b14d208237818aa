"""docs/recording.md is true: every kind of line and every field of a recording stands in it, and nothing else does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from harness import limits
from harness.recording.tape import Silence, Tape, read_lines
from harness.recording.timeline import LINES
from harness.session import Order, conduct
from harness.world.real import setup

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "recording.md").read_text(encoding="utf-8")
SAMPLE_FIELDS = {"surface", "due", "asked", "answered", "full", "set", "unset", "silence", "raw", "extra"}


def documented() -> dict[str, str]:
    """Line kind → its row of the table; the rows that go on with a sample are joined to it."""
    rows: dict[str, str] = {}
    kind = ""
    for line in DOCS.splitlines():
        if match := re.match(r"\| (?:`(\w+)`|…) \|", line):
            kind = match[1] or kind
            rows[kind] = rows.get(kind, "") + line
    return rows


def words(text: str) -> set[str]:
    """Everything that stands between backticks, one word at a time."""
    return {word for quoted in re.findall(r"`([^`]*)`", text) for word in re.split(r"[^\w<>.]+", quoted)}


def recorded(folder: Path) -> list[dict[str, Any]]:
    return list(read_lines(folder / "recording.jsonl.gz"))


@pytest.fixture(scope="module", params=["sim", "local"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real recording of each world."""
    if request.param == "local":
        assert setup.find() is not None, f"the Toxiproxy server is needed here: {setup.explain()}"
    order = Order(str(ROOT / "tests" / "faults" / "drills" / "short_stall.yaml"), request.param, 1,
                  str(ROOT / "system_under_test" / "stack.yaml"), "drill", str(tmp_path_factory.mktemp(request.param) / "runs"))
    return Path(conduct(order, lambda word, facts: None).recording)


def test_the_table_names_every_kind_of_line() -> None:
    """The kinds of the tape, of the reader and of the page are the same."""
    verbs = {name for name in vars(Tape) if not name.startswith("_")} - {"silence", "raw", "flush", "close", "sha256"}
    assert set(documented()) == set(LINES) == verbs


def test_every_field_of_a_real_recording_is_documented(folder: Path) -> None:
    """Line by line, of a run in each world."""
    rows = documented()
    for line in recorded(folder):
        fields = set(line) - {"line"}
        assert fields <= words(rows[line["line"]]), (line["line"], fields - words(rows[line["line"]]))


def test_every_word_of_the_tape_is_explained(folder: Path) -> None:
    """Marks, steps, silences and seals: what can stand there is listed."""
    rows = documented()
    assert set(get_args(Silence)) <= words(rows["sample"])
    assert {"completed", "refused", "aborted", "interrupted"} <= words(rows["seal"])
    ids = _ids((folder / "drill.yaml").read_text())
    for line in recorded(folder):
        if line["line"] == "mark":
            plain = re.sub("|".join(map(re.escape, ids)), "<fault>", line["name"]) if ids else line["name"]
            assert plain in words(rows["mark"]), line["name"]
        if line["line"] == "act":
            assert line["step"] in words(rows["act"]), line["step"]
            assert line["id"] in ids or line["id"] == "secrets" or line["id"].startswith("process."), line["id"]
        if line["line"] == "probe":
            assert line["what"] in yaml.safe_load((ROOT / "specs" / "witnesses.yaml").read_text())["probes"], line["what"]


def _ids(drill: str) -> list[str]:
    raw: Mapping[str, Any] = yaml.safe_load(drill)
    return [*raw.get("faults", {}), *raw.get("stimuli", {})]


def test_the_folder_holds_what_the_page_lists(folder: Path) -> None:
    """Every file of a run stands on the page, and every file of the page is there."""
    listing = DOCS.split("```")[1]
    named = set(re.findall(r"[\w-]+(?:\.\w+)+|node-logs/|streams/", listing))
    for file in folder.rglob("*"):
        if file.is_file():
            parts = file.relative_to(folder).parts
            assert (f"{parts[0]}/" if len(parts) > 1 else parts[0]) in named, file
    real = {"undo.jsonl"} if "-local-" in folder.name else set()
    expected = {"drill.yaml", "stack.yaml", "policy.json", "recording.jsonl.gz", "versions.json", "verdict.json", *real}
    assert expected <= {file.name for file in folder.iterdir()}


def _limits_told() -> Iterable[tuple[Path, str]]:
    for file in (ROOT / "harness").rglob("*.py"):
        yield from ((file, name) for name in re.findall(r"tape\.limit\(\"(\w+)\"", file.read_text()))


def test_every_bound_that_is_told_is_one_of_the_limits() -> None:
    """The page sends readers to harness/limits.py, so each name must be there; and each of them is used."""
    told = list(_limits_told())
    assert told and [(file, name) for file, name in told if not hasattr(limits, name)] == []
    bounds = [name for name in vars(limits) if name.isupper()]
    code = "\n".join(file.read_text() for file in (ROOT / "harness").rglob("*.py") if file.name != "limits.py")
    assert [name for name in bounds if f"limits.{name}" not in code] == []
