"""A system under test whose mouth lies, in local, through the ordinary command: bounded, judged, escaped, no secret kept."""

from __future__ import annotations

import json
import pickle
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hostile_kit import FULL, Seen, attacked, drillproof, everything, need_toxiproxy, once

from tests.attack.hostile.mouth import MODES, disguised
from tests.attack.hostile.words import IMAGE, SCRIPT, UNSHOWN

QUICK = ("honest", "turning", "raw_words", "canary")
HEAVY = "notes_flood"
"""A million rows are no lie: they must be borne, and may pass."""
WHOLE = (*QUICK, *MODES, HEAVY, "notes_back", "notes_binary", "notes_line", "log_flood")
MODES_HERE = tuple(dict.fromkeys(WHOLE if FULL else QUICK))

FOLDER_BYTES_MAX = 200_000_000
PEAK_KB_MAX = 2_500_000
"""Of the largest process of any of these runs, which is the judge before a million rows or 32 MB of brackets."""

REPORTS = ("README.md", "SUMMARY_1PAGE.md", "report.html", "test_results.xml", "test_results.txt")
OURS = re.compile(r"\x1b\[[0-9;]*[mAJ]|\r")
"""What the progress of a run draws with."""


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Seen]:
    """The run against a mouth of a mode; each is made once, whoever asks first."""
    need_toxiproxy()

    def make(mode: str, folder: Path) -> None:
        (folder / "seen").write_bytes(attacked(mode, folder).kept())

    def of(mode: str) -> Seen:
        folder = once(tmp_path_factory, f"mouth_{mode}", partial(make, mode))
        seen: Seen = pickle.loads((folder / "seen").read_bytes())  # noqa: S301 (written by ourselves a moment ago)
        return seen

    return of


def test_the_same_trader_with_an_honest_mouth_passes(run: Callable[[str], Seen]) -> None:
    """What the others are found guilty of is their mouth, and nothing else."""
    seen = run("honest")
    assert (seen.code, seen.verdict["verdict"]) == (0, "PASS"), seen.said.decode()


@pytest.mark.parametrize("mode", [mode for mode in MODES_HERE if mode != "honest"])
def test_a_hostile_mouth_never_passes_and_is_bounded(run: Callable[[str], Seen], mode: str) -> None:
    """It is judged, with a sentence for each check that is not PASS, in bounded memory and on bounded disk; and of all
    control characters only those that drillproof draws with reach the terminal."""
    seen = run(mode)
    print(f"{mode}: {seen.verdict['verdict']}, the largest process so far took {seen.peak_kb // 1000} MB")
    assert seen.code in (1, 3) or mode == HEAVY, seen.said.decode(errors="replace")
    assert seen.verdict["verdict"] in ("FAIL", "INCONCLUSIVE") or mode == HEAVY
    assert b"fault of drillproof" not in seen.said
    assert seen.peak_kb < PEAK_KB_MAX
    assert sum(file.stat().st_size for file in seen.folder.rglob("*") if file.is_file()) < FOLDER_BYTES_MAX
    troubles = [each for group in ("premises", "promises", "laws") for each in seen.verdict[group]
                if each["verdict"] != "PASS"]
    assert troubles or mode == HEAVY
    assert all(each["says"] and len(each["says"]) < 2_000 for each in troubles)
    said = OURS.sub("", seen.said.decode("utf-8"))
    assert {each for each in said if not each.isprintable()} <= {"\n"}


def test_a_secret_is_told_of_and_kept_nowhere(run: Callable[[str], Seen]) -> None:
    """In status, logs and notes, plain, in base64 and in hexadecimal, in one write or two: FAIL, and not one byte of it."""
    seen = run("canary")
    secret = (seen.out.parent / "told").read_text()
    needles = {each.strip("=").encode()[4:-8] for each in disguised(secret)} | {secret.encode()}
    kept = everything(seen.out) | {"terminal": seen.said}
    assert [(path, needle) for path, data in kept.items() for needle in needles if needle in data] == []
    assert seen.check("no_secret_leaked") == "FAIL"
    law = next(each for each in seen.verdict["laws"] if each["id"] == "no_secret_leaked")
    assert {each["file"] for each in law["details"]["found"]} == {
        "the answers of status", "node-logs/trader.log", "streams/notes.jsonl"}
    pack = packed(seen)
    assert [path for path, data in everything(pack).items() for needle in needles if needle in data] == []


def packed(seen: Seen) -> Path:
    done = drillproof("pack", "2", seen.folder, "--out", seen.out, out=seen.out)
    assert done.returncode == 0, done.stderr.decode()
    assert drillproof("verify", seen.out / "phase2", out=seen.out).returncode == 0
    return seen.out / "phase2"


def test_hostile_words_show_themselves_in_every_report(run: Callable[[str], Seen]) -> None:
    """In HTML, SVG, Markdown, JUnit, CSV and JSON: no markup, no control or direction character, nothing left out."""
    seen = run("raw_words")
    pack = packed(seen)
    recorded = {"recording.jsonl.gz", "books.jsonl", "ledger.jsonl", "notes.jsonl"}
    for path, data in everything(pack).items():
        if path.rpartition("/")[2] in recorded:
            continue
        text = data.decode("utf-8")
        assert not {each for each in text if each in UNSHOWN or not (each.isprintable() or each == "\n")}, path
        if path.endswith((".html", ".svg", ".xml", ".md")):
            assert not any(each in text for each in (SCRIPT, IMAGE, "<script", "<img")), path
        if path.endswith((".svg", ".xml")):
            ElementTree.fromstring(data)
        if path.endswith(".json"):
            json.loads(data)
        if path.endswith(".csv"):
            assert not re.search(r'(^|,)"?[=+@-](?![0-9])', text, re.MULTILINE), path
    observed = json.loads((pack / "incident_drills" / "drill_hostile_mouth" / "observed_status.json").read_bytes())
    assert SCRIPT in observed["trading_mode"]
    assert "&lt;/script&gt;" in (pack / "report.html").read_text()
    assert "\\u202e" in (pack / "incident_drills" / "drill_hostile_mouth" / "observed_status.json").read_text()
    for command in (("judge", "--all", seen.folder), ("judge", "--json", seen.folder)):
        said = OURS.sub("", drillproof(*command, out=seen.out).stdout.decode("utf-8"))
        assert {each for each in said if not each.isprintable()} <= {"\n"}
