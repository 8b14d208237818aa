"""A pack of several sets of drills: told apart on every page, all of them on one printed page, each name only once."""

from __future__ import annotations

import html
import re
import shlex
import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from pack_kit import DRILL, MakeRun, check, fake_judge

from harness import arguments, cli, limits
from harness.errors import SpecError
from harness.pack import derive as room
from harness.pack.build import build, newest_runs, seal
from harness.pack.chapter import Chapter
from harness.pack.derive import derive
from harness.pack.listing import MANIFEST, encode, make_manifest
from harness.pack.manifest import verify
from harness.pack.phases import OWN, drills_of, load_phase
from harness.pack.seals import create_key, load_key
from harness.pack.summary import SAFE_AFTER, Book, risks, summary

REPOSITORY = Path(__file__).resolve().parents[2]
OURS = "1_switch_of_the_services"


@pytest.fixture
def sets_pack(make_run: MakeRun, root: Path, tmp_path: Path) -> Path:
    """A pack of two sets; by their numbers alone the drill of the second one would come first."""
    (root / "drills/ops").mkdir()
    shutil.copyfile(root / "drills/phase2" / f"{DRILL}.yaml", root / f"drills/ops/{OURS}.yaml")
    return build([make_run(OURS, latched=False), make_run(DRILL)], 2, tmp_path / "evidence", root)


def test_sets_are_told_apart_on_every_page(sets_pack: Path) -> None:
    """Set by set in the phase's order, under the words that the checklist has for them."""
    assert verify(sets_pack) == []
    assert orjson.loads((sets_pack / "pack.json").read_bytes())["sets"] == {DRILL: "phase2", OURS: "ops"}
    page = (sets_pack / "SUMMARY_1PAGE.md").read_text()
    assert page.index(f"| phase2/{DRILL} ") < page.index(f"| ops/{OURS} ")
    assert "SEED=1 SETS='phase2 ops'` · `drillproof verify evidence/phase2` · `drillproof gate 2`" in page.replace("\n", " ")
    readme = (sets_pack / "README.md").read_text()
    assert readme.index("### phase2") < readme.index(f"[{DRILL}]") < readme.index("### ops: What the services") \
        < readme.index(f"[{OURS}]")
    report = (sets_pack / "report.html").read_text()
    assert all(SAFE_AFTER in html.unescape(each.replace("\n", " ")) for each in (page, readme, report))
    assert report.count("ops: What the services beside the trader say of themselves") == 2  # the table, the chapters
    assert f'href="#drill_{OURS}"' in report and f'id="drill_{OURS}"' in report


TYPED = re.compile(r"(?:`|<code>|^)((?:drillproof|make) [^`<#\n\\]+)", re.MULTILINE)


@pytest.mark.parametrize("phase", [2, OWN])
def test_every_command_on_a_page_is_one(phase: int, make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """As it stands there, in a sealed pack, too: drillproof takes it, or make knows its target and variables."""
    pack = build([make_run(DRILL)], phase, tmp_path / "evidence", root)
    create_key(tmp_path / "key")
    seal(pack, load_key(tmp_path / "key"))
    pages = {name: (pack / name).read_text() for name in ("SUMMARY_1PAGE.md", "README.md", "report.html")}
    pages["SUMMARY_1PAGE.md"] = pages["SUMMARY_1PAGE.md"].replace("\n", " ")  # which breaks its lines
    typed = {(name, each.strip()) for name, page in pages.items() for each in TYPED.findall(page)}
    assert {name for name, each in typed if " verify " in each} == set(pages)
    makefile = (REPOSITORY / "Makefile").read_text()
    for _, each in typed:
        word, *words = shlex.split(each)
        if word == "drillproof":
            arguments.parse(cli.FUNCTIONS, words)
            continue
        assert re.search(rf"^{words[0]}:", makefile, re.MULTILINE), each
        assert all(re.search(rf"^{name.partition('=')[0]} +\?=", makefile, re.MULTILINE) for name in words[1:]), each


def test_all_drills_fit_on_one_page_by_name(sets_pack: Path) -> None:
    """The three sets of Phase 2, whatever becomes of them: one page, and nobody is left out unnamed."""
    files = drills_of(REPOSITORY, 2)
    assert len(files) > 50
    passed, failed = sorted(derive(sets_pack).chapters, key=lambda each: not each.passed)
    for red in (0, 1, 6, len(files)):
        chapters = tuple(_named(failed if n < red else passed, file.stem) for n, file in enumerate(files))
        book = Book(load_phase(REPOSITORY, 2), chapters, (), {}, None, sets={file.stem: file.parent.name for file in files})
        page = summary(book).decode()
        assert len(page.splitlines()) <= limits.SUMMARY_LINES_MAX and "SETS=" not in page
        matrix: Any = SimpleNamespace(whole=True, says="all sabotages were caught by their named check " * 9)
        full = summary(replace(book, matrix=matrix, left_out={f"{n}_left_out_of_this_world": ["docker"] for n in range(9)}))
        assert len(full.splitlines()) <= limits.SUMMARY_LINES_MAX and b"9 more in report.html" not in full
        assert (b"not latched" in full or b"was never latched" in full) == (red > 0)
        rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith(("| phase2", "| ops", "| state"))]
        assert rows == [[f" {name:16} ", f" {sum(1 for each in files if each.parent.name == name):>6} "]
                        for name in ("phase2", "ops", "state")]
        if red < 7:
            assert all(file.stem in page for file in files)


def test_laws_that_nothing_put_to_the_test_are_risks(sets_pack: Path) -> None:
    """One that was asked in any of the runs is none of them; one that did not pass was put to the test."""
    book = Book(load_phase(REPOSITORY, 2), derive(sets_pack).chapters, (), {}, None)
    first = book.chapters[0].verdict["laws"][0]
    assert f"Laws that nothing here put to the test (1): {first['id']}." in risks(book)
    many = [{**first, "id": f"a_law_with_a_long_name_{n}", "verdict": "PASS", "details": {}} for n in range(30)]
    names = [replace(each, verdict={**each.verdict, "laws": many}) for each in book.chapters]
    assert sum(f"_{n}" in line for line in risks(replace(book, chapters=tuple(names))) for n in range(30)
               if line.startswith("Laws") and line.endswith(".")) == 30
    nothing = {**first, "verdict": "PASS", "details": {"asked": 0}}
    for laws, unasked in (([nothing], [first["id"]]), ([{**nothing, "details": {"asked": 2}}], []),
                          ([{**nothing, "verdict": "FAIL"}], [])):
        chapters = [replace(each, verdict={**each.verdict, "laws": [nothing]}) for each in book.chapters[1:]]
        one = replace(book.chapters[0], verdict={**book.chapters[0].verdict, "laws": laws})
        assert replace(book, chapters=(one, *chapters)).unasked == unasked
    assert "put to the test" not in " ".join(risks(replace(book, chapters=(one,))))


def test_what_is_watched_under_no_contract_is_a_risk(sets_pack: Path) -> None:
    """By name, because its documents were only compared with what the drill promises of them."""
    book = Book(load_phase(REPOSITORY, 2), derive(sets_pack).chapters, (), {}, None)
    assert "under no contract" not in " ".join(risks(book))
    story = book.chapters[0].story
    surfaces = {**story.head["surfaces"], "pulse": {"every_ms": 50, "contract": None}}
    lawless = replace(book.chapters[0], story=replace(story, head={**story.head, "surfaces": surfaces}))
    assert "Watched, and under no contract: pulse." in risks(replace(book, chapters=(lawless, *book.chapters[1:])))


@dataclass(frozen=True, slots=True)
class _Named(Chapter):
    """The same chapter under another name."""

    other: str = ""

    @property
    def name(self) -> str:
        return self.other


def _named(chapter: Chapter, name: str) -> Chapter:
    return _Named(*(getattr(chapter, each.name) for each in fields(Chapter)), name)


@pytest.mark.parametrize("sets", [{"20_nobody": "ops"}, {DRILL: 7}, ["ops"], None])
def test_a_lie_about_the_sets_is_found(sets_pack: Path, sets: Any) -> None:
    """Who writes it anew must name drills that are there."""
    relabel(sets_pack, lambda about: {**about, "sets": sets})
    assert any("which set" in str(finding) for finding in verify(sets_pack))


def test_a_pack_of_an_earlier_build_has_no_sets(sets_pack: Path) -> None:
    """It is read as it is: its pages are those of another build, and nothing else is wrong with it."""
    relabel(sets_pack, lambda about: {key: value for key, value in about.items() if key != "sets"})
    assert {finding.tag for finding in verify(sets_pack)} == {"DERIVED"}


def relabel(pack: Path, change: Any) -> None:
    about = orjson.loads((pack / "pack.json").read_bytes())
    (pack / "pack.json").write_bytes(encode(change(about)))
    (pack / MANIFEST).unlink()
    (pack / MANIFEST).write_bytes(make_manifest(pack))


def test_two_drills_of_one_name_are_refused(root: Path) -> None:
    """Runs, packs and items know a drill by its name: the second would be taken for the first."""
    (root / "drills/state").mkdir()
    shutil.copyfile(root / "drills/phase2" / f"{DRILL}.yaml", root / f"drills/state/{DRILL}.yaml")
    with pytest.raises(SpecError, match="a name of its own"):
        drills_of(root, 2)


def test_a_drill_in_a_folder_of_a_set_belongs_to_it(make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """``run phase2`` runs it, so a pack of the phase has it: what FAILs there is in no pack else."""
    run = make_run()
    (root / "drills/phase2/later").mkdir()
    (root / "drills/phase2" / f"{DRILL}.yaml").rename(root / f"drills/phase2/later/{DRILL}.yaml")
    assert newest_runs(tmp_path / "evidence/runs", 2, "local", root, sets=["phase2"]) == [run]
    pack = build([run], 2, tmp_path / "evidence", root)
    assert orjson.loads((pack / "pack.json").read_bytes())["sets"] == {DRILL: "phase2"}


def test_where_it_failed_is_said_and_marked(make_run: MakeRun, root: Path, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that failed in a known moment: in the summary, the notes, the report, and as a line through all lanes."""
    def at_six(folder: Path, rules: Path | None = None, timeline: Any = None) -> dict[str, Any]:
        told = fake_judge(folder, rules, timeline)
        return {**told, "verdict": "FAIL", "laws": [check("floor_no_better", "FAIL", "the floor said OK <b>\x1b[2J", 6500)]}

    monkeypatch.setattr(room, "judge", at_six)
    pack = build([make_run(verdict="FAIL")], 2, tmp_path / "evidence", root)
    assert verify(pack) == []
    for page in ("SUMMARY_1PAGE.md", f"incident_drills/drill_{DRILL}/notes.md", "report.html", "test_results.txt"):
        text = (pack / page).read_text()
        assert "(2.500 s after zero)" in text and "\x1b" not in text, page
    picture = (pack / f"incident_drills/drill_{DRILL}/timeline.svg").read_text()
    assert "FAIL at 2.500 s: floor_no_better: the floor said OK &lt;b&gt;" in picture and "\x1b" not in picture


def test_what_remains_risky_is_in_the_report_in_full(sets_pack: Path) -> None:
    """The one page may say `… more in report.html`, so there it must be."""
    report = (sets_pack / "report.html").read_text()
    for words in ("What remains risky", "no real venue, money or distance", "Recorded at rung", "What was not tested",
                  "P2-S-DISK-FULL: No room is left for the state files", "P2-O-BELLS: "):
        assert words in report, words
