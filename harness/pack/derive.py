"""Everything in a pack that follows from its inputs, as one pure function: ``derive(pack) -> {path: bytes}``.

``build`` writes what it returns, ``verify`` compares what lies there with what it returns. Therefore no clock, no
environment, no absolute path: dates come from the runs' own versions.json, and a folder that was moved derives
the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from markupsafe import Markup

from harness.errors import PackError
from harness.pack.chapter import DERIVED, Chapter, chapter
from harness.pack.exports import metrics, run_logs
from harness.pack.junit import junit, plain_results
from harness.pack.listing import drill_order, folder_name
from harness.pack.matrix import MATRIX_FILE, Matrix, read
from harness.pack.matrix_page import matrix_files, picture
from harness.pack.origin import RUN_FILES, STREAMS, sha256_file
from harness.pack.pages import Ready, page
from harness.pack.phases import OWN, Phase, load_phase
from harness.pack.plain import visible
from harness.pack.runlog import Attempt, attempts, whole_lines
from harness.pack.story import read_json, read_story
from harness.pack.summary import SAFE_AFTER, Book, risks, summary, untested
from harness.pack.told import inputs_sha256, recall
from harness.pack.tried import hollow, later
from harness.recording.tape import canonical
from harness.verdict.judge import judge

__all__ = ["DRILLS", "FORMAT", "PACK_FILE", "RULES", "RUN_FILES", "RUN_LOG", "STREAMS", "Derived", "derive",
           "drill_folders", "folder_name"]

FORMAT = 1
PACK_FILE = "pack.json"
RUN_LOG = "run_log.jsonl"
RULES = "rules"
DRILLS = "incident_drills"
COPIED = ("stack.yaml", "policy.json")
"""Texts of the first run that lie among the rules, for people; judging reads those of each drill."""


@dataclass(frozen=True, slots=True)
class Derived:
    """What follows from a pack's inputs."""

    files: Mapping[str, bytes]
    verdicts: Mapping[str, Mapping[str, Any]]
    """drill folder → the verdict of judging its recording now"""
    chapters: tuple[Chapter, ...]
    attempts: tuple[Attempt, ...] = ()


def drill_folders(pack: Path) -> list[Path]:
    """The drills' folders, in the order of their numbers."""
    parent = pack / DRILLS
    folders = [each for each in parent.iterdir() if each.is_dir()] if parent.is_dir() else []
    return sorted(folders, key=lambda each: drill_order(each.name.removeprefix("drill_")))


def derive(pack: Path, believing: bool = False) -> Derived:
    """Judge every recording in the pack and make every page. Raises PackError where an input does not allow it.

    Done once for the same bytes: a process that packs, verifies and decides in one go reads every input each time, and
    thinks it over again only when one has changed. ``believing``: what the runs of this process told of themselves need not
    be judged; of that nothing is kept, so that whoever looks at the pack next judges all of it.
    """
    whole, inputs = _inputs(pack)
    if believing and (told := _told(inputs)):
        return _derive(pack, inputs, told)
    key = (judge, whole)
    if key not in _KNOWN:
        derived = _derive(pack, inputs, {})
        _KNOWN.clear()
        _KNOWN[key] = derived
    return _KNOWN[key]


_KNOWN: dict[tuple[Any, str], Derived] = {}
"""The last pack that was judged whole in this process, by whom it was judged and the digest of its inputs."""


def _inputs(pack: Path) -> tuple[str, dict[Path, str]]:
    """One digest over the path and content of every file that ``derive`` may read, and one over those of each drill."""
    digests = {path: sha256_file(pack / path) for path in (PACK_FILE, RUN_LOG, MATRIX_FILE) if (pack / path).is_file()}
    rules = {file.relative_to(pack / RULES).as_posix(): sha256_file(file)
             for file in (pack / RULES).rglob("*") if file.is_file()}
    judged_by = {path: digest for path, digest in rules.items() if path not in COPIED}
    drills = {folder: inputs_sha256(folder, judged_by) for folder in drill_folders(pack)}
    digests |= {f"{RULES}/{path}": digest for path, digest in rules.items()}
    digests |= {f"{DRILLS}/{folder.name}": digest for folder, digest in drills.items()}
    return hashlib.sha256(canonical(digests)).hexdigest(), drills


def _derive(pack: Path, folders: Iterable[Path], told: Mapping[Path, Chapter]) -> Derived:
    about = read_json(pack / PACK_FILE)
    if about.get("format") != FORMAT or not isinstance(about.get("phase"), int):
        raise PackError(f"{PACK_FILE}: is missing, or of another format than {FORMAT}")
    rules = pack / RULES
    phase = load_phase(rules, about["phase"])
    chapters = _set_by_set([told.get(folder) or judged(folder, rules) for folder in folders], phase, _sets(about))
    if not chapters:
        raise PackError(f"{DRILLS}: holds no drill")
    book = _book(pack, about, phase, chapters)
    chapters = book.chapters
    files = {f"{DRILLS}/{each.folder}/{name}": each.files[name] for each in chapters for name in DERIVED}
    files |= metrics(chapters) | run_logs(chapters) | matrix_files(book.matrix) | {
        "SUMMARY_1PAGE.md": summary(book),
        "README.md": page("README.md.j2", book=book, safe_after=SAFE_AFTER, repeat=Ready(_repeat(book))),
        "report.html": page("report.html.j2", book=book, word=_word, picture=Markup, matrix_picture=picture,
                            risks=risks, untested=untested, safe_after=SAFE_AFTER),
        "test_results.xml": junit(chapters, book.absent),
        "test_results.txt": plain_results(chapters, book.absent),
    }
    return Derived(files, {each.folder: each.verdict for each in chapters}, chapters, book.attempts)


def _sets(about: Mapping[str, Any]) -> Mapping[str, str]:
    sets = about.get("sets")
    return sets if isinstance(sets, Mapping) else {}


def _told(inputs: Mapping[Path, str]) -> dict[Path, Chapter]:
    """The chapters that this process heard from the runs themselves; what cannot be read as one is judged."""
    found = {}
    for folder, digest in inputs.items():
        if (told := recall(digest)) is not None:
            with suppress(ValueError):
                found[folder] = msgspec.json.decode(told, type=Chapter)
    return found


def judged(folder: Path, rules: Path) -> Chapter:
    """One drill, judged and told. Its recording is put away before the next one is read: together they would fill a memory."""
    story = read_story(folder)
    return chapter(story, rules, judge(folder, rules, story.timeline))


def _set_by_set(chapters: list[Chapter], phase: Phase, sets: Mapping[str, str]) -> tuple[Chapter, ...]:
    """In the order of the phase's sets, and in each of them by number; what belongs to none comes last."""
    order = {name: place for place, name in enumerate(phase.sets)}
    return tuple(sorted(chapters, key=lambda each: order.get(sets.get(each.name, ""), len(order))))


def _book(pack: Path, about: Mapping[str, Any], phase: Phase, chapters: tuple[Chapter, ...]) -> Book:
    lines = whole_lines((pack / RUN_LOG).read_bytes()) if (pack / RUN_LOG).is_file() else []
    earlier, tried = (about.get("run_log") or {}).get("earlier") or {}, attempts(lines)
    return Book(phase, _in_hindsight(chapters, tried, about.get("other_text") or ()), tried, dict(earlier),
                about.get("sealed_by"), _matrix(pack), about.get("left_out") or {}, _sets(about), about.get("not_run") or ())


def _in_hindsight(chapters: tuple[Chapter, ...], tried: tuple[Attempt, ...], others: Collection[str]) -> tuple[Chapter, ...]:
    """The chapters, each knowing what the run log says of it: whether its very drill file kept its promises as a placebo, too,
    and what came of it later; ``others`` are those of which another text ran than the drill of that name."""
    return tuple(replace(each, hollow=hollow(each, tried) is not None, later=later(each, tried),
                         other_text=each.name in others) for each in chapters)


def _matrix(pack: Path) -> Matrix | None:
    """The matrix of sabotages, where the pack has one. Raises PackError for one that cannot be read."""
    if not (pack / MATRIX_FILE).is_file():
        return None
    matrix = read((pack / MATRIX_FILE).read_bytes())
    if isinstance(matrix, str):
        raise PackError(f"{MATRIX_FILE}: {matrix}")
    return matrix


def _repeat(book: Book) -> str:
    """The one command that does all of this again, on a checkout of the same commit."""
    asked = {name for item in book.phase.items for name in item.drills} - set(book.left_out)
    whole = asked == {each.name for each in book.chapters}
    names = "drills --stack stack.yaml" if book.phase.number == OWN else " ".join(
        book.phase.sets if whole else (visible(each.name) for each in book.chapters))
    return (f"drillproof run {names} --world {book.said('world')} --seed {book.said('seed')} "
            f"--policy {book.said('policy', 'name')}")


def _word(says: object) -> Markup:
    """A verdict as a coloured word; only the three known ones have a colour."""
    return _coloured(visible(says, 40))


@lru_cache(maxsize=64)
def _coloured(text: str) -> Markup:
    """A page has thousands, and few that differ."""
    known = text if text in {"PASS", "FAIL", "INCONCLUSIVE"} else ""
    return Markup('<span class="word {}">{}</span>').format(known, text)
