"""``SUMMARY_1PAGE.md``: what was proven, what failed, what remains risky. For an owner, on one printed page.

The page has a budget of lines for each part, so that it fits whatever happened; what does not fit is counted and
named as left out. Line 1 says whether anybody vouches for the pack.
"""

from __future__ import annotations

import shlex
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness import limits
from harness.errors import PackError
from harness.pack.chapter import BELIED, HOLLOW, SUPERSEDED, UNKNOWN, Chapter
from harness.pack.listing import drill_order
from harness.pack.matrix import MISSING, Matrix
from harness.pack.phases import OWN, Phase, pack_name
from harness.pack.plain import markdown, visible
from harness.pack.runlog import Attempt
from harness.pack.tried import last_tries
from harness.recording.punctuality import Punctuality, of_all

SAFE_AFTER = ("Safe after: the longest that a fault took, from its beginning, until nothing more could be opened. Where "
              "faults overlap it may exceed every promise. A dash: no block was seen.")
"""What is counted in the tables, in a reader's words."""
COLUMNS = limits.SUMMARY_COLUMNS_MAX
ATTEMPTS_MAX, DRILLS_MAX = 5, 21
RISKS_AND_UNTESTED_MAX = ((7, 7), (6, 6), (6, 5))
SILENT_MAX, NAMES_MAX, FAILED_MIN = 3, 18, 4
"""Lines of each part (of what no drill speaks of, so many by name; of the names of all sets' drills); what failed gets all that
are left of the page, and the risks and what was not tested are cut first where that would be too few."""


@dataclass(frozen=True, slots=True)
class Part:
    """The drills of one set."""

    name: str
    about: str
    """what the checklist says of it, where it knows a group of that name"""
    chapters: tuple[Chapter, ...]

    @property
    def heading(self) -> str:
        """``ops: What the services beside the trader say of themselves``"""
        return f"{self.name or 'other drills'}{': ' * bool(self.about)}{self.about}"

    @property
    def headline(self) -> str:
        """How many of them passed, and what became of the others."""
        return _headline(self.chapters)


def _headline(chapters: Sequence[Chapter], not_run: int = 0, tried: int = 0) -> str:
    passed, failed = (sum(1 for each in chapters if each.says == word) for word in ("PASS", "FAIL"))
    open_ = len(chapters) - passed - failed
    return (f"{passed} of {len(chapters)} drills passed" + f", {failed} FAILED" * bool(failed)
            + f", {open_} proved nothing" * bool(open_) + f", {not_run} not run" * bool(not_run)
            + f", {tried} tried and not in this pack" * bool(tried))


@dataclass(frozen=True, slots=True)
class Book:
    """Everything that a pack's common pages are made of."""

    phase: Phase
    chapters: tuple[Chapter, ...]
    attempts: tuple[Attempt, ...]
    earlier: dict[str, int]
    """What the run log held before this pack's slice: started, PASS, FAIL, other"""
    sealed_by: str | None
    matrix: Matrix | None = None
    """Which sabotages these drills catch; None when nobody looked"""
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Drills that are not meant for the world of these runs → the worlds that they are meant for"""
    sets: Mapping[str, str] = field(default_factory=dict)
    """Drill → the folder of drills/ in which it lies"""
    not_packed: Sequence[str] = ()
    """Drills of the phase that are meant for that world and are not here"""

    @property
    def missing(self) -> list[str]:
        """Drills that are not here, though the phase asks for them, others of a group of theirs are here, and they are meant
        for this world."""
        here = {each.name for each in self.chapters}
        groups = {item.group for item in self.phase.items if here & set(item.drills)}
        asked = {drill for item in self.phase.items if item.group in groups for drill in item.drills}
        return sorted(asked - here - set(self.left_out), key=drill_order)

    @property
    def tried(self) -> dict[str, str]:
        """Of those that are not here, the ones that somebody tried all the same → what came of the last attempt."""
        found = last_tries(self.attempts, self.not_packed, {str(each.story.head.get("world")) for each in self.chapters})
        return {drill: found[drill] for drill in self.not_packed if drill in found}

    @property
    def not_run(self) -> list[str]:
        """Drills of the phase that are meant for this world, and that nobody ran."""
        tried = self.tried
        return [drill for drill in self.not_packed if drill not in tried]

    @property
    def absent(self) -> dict[str, str]:
        """Every drill that should be here and is not → why, in words."""
        tried = self.tried
        return {drill: f"tried, came to {tried[drill]}, not in this pack" if drill in tried else "is not in this pack"
                for drill in sorted({*self.missing, *self.not_packed}, key=drill_order)}

    @property
    def passed(self) -> tuple[Chapter, ...]:
        return tuple(each for each in self.chapters if each.passed)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The chapters set by set, in the phase's order; one part without a name where there are no sets."""
        names = dict.fromkeys(self.sets.get(each.name, "") for each in self.chapters)
        return tuple(Part(name, self.phase.groups.get(name, ""),
                          tuple(each for each in self.chapters if self.sets.get(each.name, "") == name)) for name in names)

    @property
    def commit(self) -> str:
        """The commit that was tested, short, and whether the checkout was clean in every run."""
        gits = [each.story.versions.get("git") or {} for each in self.chapters]
        state = "clean" if all(git.get("dirty") is False for git in gits) else "DIRTY checkout"
        return f"{str(gits[0].get('commit'))[:12]} ({state})"

    @property
    def dates(self) -> tuple[str, str]:
        """When the first run began and the last one ended, as versions.json has it."""
        return (min(str(each.story.versions.get("started_utc", "?")) for each in self.chapters),
                max(str(each.story.versions.get("ended_utc", "?")) for each in self.chapters))

    def each(self, *path: str) -> str:
        """What the heads say at a path: one value, or all that differ."""
        values: dict[str, None] = {}
        for chapter in self.chapters:
            value: Any = chapter.story.head
            for part in path:
                value = value.get(part) if isinstance(value, dict) else None
            values[visible(value)] = None
        return ", ".join(values)

    def said(self, *path: str) -> str:
        """What the first drill's head says at a path, for a command line in a page."""
        value: Any = self.chapters[0].story.head
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        return visible(value, 40).replace("`", "'")

    @property
    def again(self) -> str:
        """The command that does it once more."""
        if self.phase.number == OWN:
            return f"drillproof run --world {self.said('world')}"
        some = [each for each in self.phase.sets if each in self.sets.values()]
        sets = f" SETS={shlex.quote(' '.join(some))}" if some and some != list(self.phase.sets) else ""
        return f"make drills WORLD={self.said('world')} POLICY={self.said('policy', 'name')} SEED={self.said('seed')}{sets}"

    @property
    def commands(self) -> tuple[str, ...]:
        """The same with what is to be typed after it, one after the other; ``make`` packs, too."""
        word, world = self.phase.word, self.said("world")
        pack = [f"drillproof pack own --world {world}"] if self.phase.number == OWN else []
        return (self.again, *pack, f"drillproof verify evidence/{pack_name(self.phase.number)}", f"drillproof gate {word}")

    @property
    def punctuality(self) -> Punctuality:
        """When requests left and faults began, over all drills."""
        return of_all(each.story.punctuality for each in self.chapters)

    @property
    def seal_line(self) -> str:
        """Line 1 of every page: who vouches for this pack."""
        if self.sealed_by is None:
            return "UNSIGNED: nobody vouches for this pack; whoever can write its files could have made it."
        return f"SEALED with key {self.sealed_by}: only good if `drillproof verify .` in this folder says so."

    @property
    def unasked(self) -> list[str]:
        """The laws that held in every run because nothing strained against them in any."""
        laws = [law for each in self.chapters for law in each.verdict["laws"]]
        asked = {law["id"] for law in laws if law["verdict"] != "PASS" or law["details"].get("asked", 0) > 0}
        return sorted({law["id"] for law in laws} - asked)

    @property
    def sensitivity(self) -> str:
        """What is known of these drills' sight: sabotages, and how many of them were caught."""
        return self.matrix.says if self.matrix is not None else MISSING

    @property
    def headline(self) -> str:
        """The result in one sentence."""
        return _headline(self.chapters, len(self.not_run), len(self.tried))


def summary(book: Book) -> bytes:
    """The page. Raises PackError if it would not fit, which its budgets rule out."""
    head = [
        book.seal_line, "",
        f"# {book.phase.title}: {book.headline}", "",
        *_wrap(book.phase.outcome, 2),
        markdown(f"World {book.each('world')} · proxy {_proxy(book)} · policy {book.each('policy', 'name')} · "
                 f"seed {book.each('seed')}"),
        markdown(f"Commit {book.commit} · {book.dates[0]} to {book.dates[1]}"),
        *(_wrap(each, 1)[0] for each in book.punctuality.says()),
        *_wrap("Again: " + " · ".join(f"`{each}`" for each in book.commands), 2),
        "", "## What was proven", *_proven(book),
        "", "## What failed, or proved nothing",
    ]
    for most in RISKS_AND_UNTESTED_MAX:
        rest = _rest(book, *most)
        room = limits.SUMMARY_LINES_MAX - len(head) - len(rest)
        if room >= FAILED_MIN:
            break
    lines = [*head, *_budget(_failed(book, room), room), *rest]
    text = [line if len(line) <= COLUMNS else line[: COLUMNS - 4] + " […" for line in lines]
    if len(text) > limits.SUMMARY_LINES_MAX:
        raise PackError(f"the one-page summary has {len(text)} lines, which is not one page")
    return ("\n".join(text) + "\n").encode()


def _rest(book: Book, risky: int, not_tested: int) -> list[str]:
    return ["", "## What remains risky", *_budget(_risks(book), risky),
            "", "## What was not tested (no drill here)", *_budget(_untested(book), not_tested),
            "", "## Every attempt since the last pack, or since an older one that counts",
            *_budget(_attempts(book), ATTEMPTS_MAX)]


def risks(book: Book) -> list[str]:
    """Everything that a reader must not believe, for a page that has room for it."""
    return [each.removeprefix("- ") for each in _risks(book, whole=True)]


def untested(book: Book) -> list[str]:
    """Everything that nothing in this pack speaks of, for a page that has room for it."""
    return [line.removeprefix("- ") for line in _untested(book, whole=True)]


def _proxy(book: Book) -> str:
    return f"{book.each('proxy', 'kind')} {book.each('proxy', 'version')}"


def _proven(book: Book) -> list[str]:
    """A table that reads in a terminal as well: one line a drill; where several sets make it too long, one line a set, and
    then the name of each drill that passed; below it what is counted in it."""
    by_set = len(book.parts) > 1 and len(book.chapters) > DRILLS_MAX
    return [*(_by_set(book.parts) if by_set else _by_drill(book)), "", *_wrap(SAFE_AFTER, 2),
            *(["", *_wrap(f"Seen red: {book.sensitivity}.", 1)] if book.matrix and book.matrix.whole else [])]


def _by_set(parts: Sequence[Part]) -> Iterator[str]:
    yield (f"| {'set':16} | {'drills':>6} | {'passed':>6} | {'FAILED':>6} | {'unproven':>8} | {'safe after':>10} | "
           f"{'missed samples':>14} |")
    yield f"|{'-' * 18}|{'-' * 7}:|{'-' * 7}:|{'-' * 7}:|{'-' * 9}:|{'-' * 11}:|{'-' * 15}:|"
    for part in parts:
        count = len(part.chapters)
        passed, failed = (sum(1 for each in part.chapters if each.says == word) for word in ("PASS", "FAIL"))
        slowest = max((int(each.time_to_safe) for each in part.chapters if each.time_to_safe != UNKNOWN), default=None)
        unproven = count - passed - failed
        safe, missed = "-" if slowest is None else f"{slowest} ms", sum(each.missed for each in part.chapters)
        yield (f"| {_cell(part.name or '(none)', 16)} | {count:>6} | {passed:>6} | {failed:>6} | {unproven:>8} | "
               f"{safe:>10} | {missed:>14} |")
    yield ""
    for part in parts:
        names = ", ".join(markdown(each.name) for each in part.chapters if each.passed)
        yield from _wrap(f"- {markdown(part.name or 'other')} passed: {names or 'none'}", max(1, NAMES_MAX // len(parts)))


def _by_drill(book: Book) -> list[str]:
    told_apart = len(book.parts) > 1
    width = 40 if told_apart else 34
    rows = [f"| {'drill':{width}} | {'verdict':14} | {'safe after':>10} | {'missed samples':>14} |",
            f"|{'-' * (width + 2)}|{'-' * 16}|{'-' * 11}:|{'-' * 15}:|"]
    for each in book.chapters[:DRILLS_MAX]:
        name = f"{book.sets.get(each.name, 'other')}/{each.name}" if told_apart else each.name
        rows.append(f"| {_cell(name, width)} | {_cell(each.says, 14)} | {each.safe_after:>10} | {each.missed:>14} |")
    if len(book.chapters) > DRILLS_MAX:
        rows[-1] = f"| {f'… and {len(book.chapters) - DRILLS_MAX + 1} more in report.html':{width + 48}} |"
    return rows


def _cell(value: str, width: int) -> str:
    return f"{markdown(value, width):{width}}"


def _failed(book: Book, room: int) -> Iterable[str]:
    """The worst finding of each drill that did not pass, in its own words, FAIL first; two lines each while there is room."""
    found = [(_worst_first(each.later if each.says == SUPERSEDED else each.says), *_failure(each))
             for each in book.chapters if not each.passed]
    found += [(_worst_first(came_of), f"- {markdown(drill)}: {book.absent[drill]}", False)
              for drill, came_of in book.tried.items() if came_of != "PASS"]
    many = sum(own_words for _, _, own_words in found)
    for _, text, own_words in sorted(found, key=lambda each: each[0]):
        yield from _wrap(text, 2 if own_words and 2 * many <= room else 1)
    if not found:
        yield "- Nothing."


def _worst_first(says: str | None) -> int:
    """FAIL before what proved nothing, and that before a PASS that is hollow."""
    return 0 if str(says).startswith("FAIL") else 2 if says == HOLLOW else 1


def _failure(chapter: Chapter) -> tuple[str, bool]:
    """What is to be told of a drill that did not pass, and whether those are a check's own words."""
    if chapter.says in BELIED:
        return f"- {markdown(chapter.name)}, {chapter.says}: {markdown(str(chapter.belied))}", False
    worst = chapter.troubles[0] if chapter.troubles else None
    why = f"{worst['id']}: {worst['says']}" if worst else f"the run was {chapter.says}"
    return f"- {markdown(chapter.name)}, {chapter.says}{chapter.when(worst) if worst else ''}: {markdown(why)}", True


def _risks(book: Book, whole: bool = False) -> Iterable[str]:
    """What a reader must not believe, from the facts of these runs; ``whole`` where no line is too long."""
    say = (lambda text, _: [text]) if whole else _wrap
    worlds, placebo = book.each("world"), any(each.story.head.get("placebo") is not False for each in book.chapters)
    if placebo:
        yield "- There are placebo runs here: nothing was broken in them, they prove nothing about the system."
    if others := [each.name for each in book.chapters if each.other_text]:
        yield from say(f"- Another text ran than the drill of that name: {markdown(', '.join(others))}. Run again.", 2)
    if book.matrix is None or not book.matrix.whole:
        yield say(f"- The drills: {book.sensitivity}.", 1)[0]
    if "sim" in worlds:
        yield "- The sim is a rehearsal: time, network and disk were simulated. No gate accepts it."
    if "DIRTY" in book.commit:
        yield "- The checkout was dirty: what was tested is not what the commit says."
    if not all(each.story.own_machines for each in book.chapters):
        yield "- Some node ran another machine than its own (a mutant): those results are not the system's."
    if missed := sum(each.missed for each in book.chapters):
        asked = sum(sum(counts.values()) for each in book.chapters for counts in each.story.counts.values())
        yield f"- Missed samples: {missed} of {asked}. Nothing is known of those moments; the verdicts allow for it."
    if limited := sorted({str(each) for chapter in book.chapters for each in chapter.verdict["limits"]}):
        yield f"- Limits of the harness were hit: {markdown(', '.join(limited))}."
    if idle := book.unasked:
        yield from say(f"- Laws that nothing here put to the test ({len(idle)}): {markdown(', '.join(idle))}.", 2)
    if lawless := sorted({each for chapter in book.chapters for each in chapter.story.lawless}):
        yield from say(f"- Watched, and under no contract: {markdown(', '.join(lawless))}.", 1)
    if "drill" in book.each("policy", "name"):
        yield "- The drill policy clears its blocks sooner; its limits and thresholds are the real ones."
    if len({each.story.head.get("seed") for each in book.chapters}) == 1:
        yield "- Each drill counts once here: what goes wrong one time in a hundred is not seen."
    if book.phase.number == OWN:
        yield "- What it dials is what ran on this machine then: no real venue, money or distance."
    else:
        yield "- The exchange is a small double on the same machine: no real venue, money or distance."
    yield f"- Recorded at rung {_rungs(book)}; what the later rungs of the ladder would show is open."


def _rungs(book: Book) -> str:
    return ", ".join(sorted({str(each.story.stack.get("deployment_environment")) for each in book.chapters}))


def _untested(book: Book, whole: bool = False) -> Iterable[str]:
    """Items of the phase that nothing in this pack speaks of, or not of all that they ask for; ``whole`` where no line is
    too many or too long."""
    say = (lambda text, _: [text]) if whole else _wrap
    present = {each.name for each in book.chapters}
    manual = [item.id for item in book.phase.items if item.kind == "MANUAL"]
    silent = [item for item in book.phase.items if item.kind == "AUTO" and not present & set(item.drills)]
    if book.left_out:
        needs = sorted({" or ".join(worlds) for worlds in book.left_out.values()})
        yield from say(f"- NOT RUN in {book.each('world')}: {', '.join(book.left_out)}: needs {', '.join(needs)}", 2)
    if book.not_run:
        yield from say(f"- NOT RUN by anybody, though meant for {book.each('world')}: {', '.join(book.not_run)}", 2)
    if tried := book.tried:
        listed = ", ".join(f"{drill} ({came_of})" for drill, came_of in tried.items())
        yield from say(f"- Tried, and not in this pack: {listed}", 2)
    shown = silent if whole or len(silent) <= SILENT_MAX else silent[:SILENT_MAX - 1]
    yield from (say(f"- {item.id}: {item.text}", 1)[0] for item in shown)
    if left := silent[len(shown):]:
        yield from say(f"- Nor: {', '.join(item.id for item in left)}", 1)
    if manual:
        yield from say(f"- Only a person can say: {', '.join(manual)}", 2)
    parts = [item for item in book.phase.items if item.unproven and item not in silent]
    if whole:
        yield from (f"- {item.id}, in part: {part}" for item in parts for part in item.unproven)
    elif parts:
        yield from _wrap(f"- In part, as `drillproof gate {book.phase.word}` says: {', '.join(item.id for item in parts)}", 4)


def _attempts(book: Book) -> Iterable[str]:
    """Every run that began, so that running until green shows."""
    if not book.attempts:
        yield "- No run log lies beside these runs: nobody can tell how often it was tried."
        return
    counts = Counter(each.came_of for each in book.attempts)
    yield f"- {_runs(len(book.attempts))} began: {_listed(counts)}"
    bad = Counter((each.drill, each.came_of) for each in book.attempts if each.honest and each.came_of != "PASS")
    if bad:
        listed = ", ".join(f"{markdown(drill)} {n} {word}"
                           for (drill, word), n in sorted(bad.items(), key=lambda each: (each[0][1] != "FAIL", each[0])))
        yield from _wrap(f"- Did not pass at some time: {listed}", 2)
    if blind := sorted({each.drill for each in book.attempts if each.blind}):
        yield from _wrap(f"- Failed without their force, as they must: {', '.join(map(markdown, blind))}", 1)
    again = Counter((each.drill, each.world) for each in book.attempts if each.honest)
    repeated = [f"{markdown(name)} ({n} times in {markdown(world)})" for (name, world), n in sorted(again.items()) if n > 1]
    yield from _wrap("- Run more than once: " + (", ".join(repeated) if repeated else "none"), 2)
    if started := book.earlier.get("started"):
        came_of = {word: n for word, n in book.earlier.items() if word != "started"}
        yield f"- Before those the run log holds {_runs(started)}: {_listed(came_of)}"


def _runs(count: int) -> str:
    return f"{count} run" + "s" * (count != 1)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {word}" for word, n in sorted(counts.items()))


def _wrap(text: str, lines_max: int) -> list[str]:
    return textwrap.wrap(visible(text), COLUMNS, subsequent_indent="  " if text.startswith("-") else "",
                         max_lines=lines_max, placeholder=" […]", break_on_hyphens=False)


def _budget(lines: Iterable[str], most: int) -> Sequence[str]:
    """At most so many lines; what is left out is counted."""
    found = list(lines)
    return found if len(found) <= most else [*found[: most - 1], f"- … and {len(found) - most + 1} more in report.html"]
