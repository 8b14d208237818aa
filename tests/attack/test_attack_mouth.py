"""A system under test whose mouth lies, in local, through the ordinary command: bounded, judged, escaped, no secret kept."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hostile_kit import FULL, Seen, attacked, drillproof, everything, need_toxiproxy

from tests.attack.hostile.mouth import MODES, disguised
from tests.attack.hostile.words import IMAGE, SCRIPT, UNSHOWN

AT_ONCE = 4
QUICK = ("honest", "turning", "raw_words", "canary")
WHOLE = (*QUICK, *MODES, "notes_flood", "notes_back", "notes_binary", "notes_line", "log_flood")
MODES_HERE = tuple(dict.fromkeys(WHOLE if FULL else QUICK))

FOLDER_BYTES_MAX = 200_000_000
PEAK_KB_MAX = 2_500_000
"""Of the largest process of any of these runs, which is the judge before a million rows or 32 MB of brackets."""

REPORTS = ("README.md", "SUMMARY_1PAGE.md", "report.html", "test_results.xml", "test_results.txt")
OURS = re.compile(r"\x1b\[[0-9;]*[mAJ]|\r")
"""What the progress of a run draws with."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """One run a mode, some side by side."""
    need_toxiproxy()
    folders = {mode: tmp_path_factory.mktemp(mode) for mode in MODES_HERE}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(folders, pool.map(attacked, folders, folders.values()), strict=True))
    for mode, seen in found.items():
        print(f"{mode:14} {seen.verdict['verdict']:12} peak {seen.peak_kb // 1000} MB")
    return found


def test_the_same_trader_with_an_honest_mouth_passes(runs: dict[str, Seen]) -> None:
    """What the others are found guilty of is their mouth, and nothing else."""
    assert (runs["honest"].code, runs["honest"].verdict["verdict"]) == (0, "PASS"), runs["honest"].said.decode()


@pytest.mark.parametrize("mode", [mode for mode in MODES_HERE if mode != "honest"])
def test_a_hostile_mouth_never_passes_and_is_bounded(runs: dict[str, Seen], mode: str) -> None:
    """It is judged, with a sentence for each check that is not PASS, in bounded memory and on bounded disk."""
    seen = runs[mode]
    assert seen.code in (1, 3), seen.said.decode(errors="replace")
    assert seen.verdict["verdict"] in ("FAIL", "INCONCLUSIVE")
    assert b"fault of drillproof" not in seen.said
    assert seen.peak_kb < PEAK_KB_MAX
    assert sum(file.stat().st_size for file in seen.folder.rglob("*") if file.is_file()) < FOLDER_BYTES_MAX
    troubles = [each for group in ("premises", "promises", "laws") for each in seen.verdict[group]
                if each["verdict"] != "PASS"]
    assert troubles
    assert all(each["says"] and len(each["says"]) < 2_000 for each in troubles)


@pytest.mark.parametrize("mode", MODES_HERE)
def test_what_a_hostile_mouth_says_never_steers_the_terminal(runs: dict[str, Seen], mode: str) -> None:
    """Of all control characters only those that drillproof draws with reach the terminal."""
    said = OURS.sub("", runs[mode].said.decode("utf-8"))
    assert {each for each in said if not each.isprintable()} <= {"\n"}


def test_a_secret_is_told_of_and_kept_nowhere(runs: dict[str, Seen]) -> None:
    """In status, logs and notes, plain, in base64 and in hexadecimal, in one write or two: FAIL, and not one byte of it."""
    seen = runs["canary"]
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


def test_hostile_words_show_themselves_in_every_report(runs: dict[str, Seen]) -> None:
    """In HTML, SVG, Markdown, JUnit, CSV and JSON: no markup, no control or direction character, nothing left out."""
    pack = packed(runs["raw_words"])
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
    for command in (("judge", "--all", runs["raw_words"].folder), ("judge", "--json", runs["raw_words"].folder)):
        said = OURS.sub("", drillproof(*command, out=runs["raw_words"].out).stdout.decode("utf-8"))
        assert {each for each in said if not each.isprintable()} <= {"\n"}
