"""One drill's chapter of a pack: everything that ``incident_drills/drill_…/`` holds beside the recording.

All of it is derived: from the drill's folder, its verdict and the pack's rules, by pure functions. Deriving it
again must give the same bytes, which is what ``verify`` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from harness.contracts.library import GOLDENS
from harness.drill.predicate import MISSING, evaluate_field, look, of_plain, same
from harness.pack.listing import encode, folder_name
from harness.pack.notes import representative
from harness.pack.pages import Ready, page, template
from harness.pack.plain import visible
from harness.pack.story import Outline, Story, force_of, read_json
from harness.pack.timeline import tally, timeline
from harness.verdict.rules import CONTRACTS, load_rules

DERIVED = ("trigger.md", "observed_status.json", "expected_status.json", "diff.txt", "validation.log",
           "time_to_safe_ms", "notes.md", "verdict.json", "timeline.svg")
TRIGGER, NOTES = "trigger.md.j2", "notes.md.j2"
UNKNOWN = "unknown"
HOLLOW = "hollow"
"""In the place of PASS, where the drill passes without its force, too."""
SUPERSEDED = "superseded"
"""In the place of PASS, where a later attempt with the same build did not pass."""
OTHER_TEXT = "another text"
"""In the place of PASS, where what ran is not the drill that lay under its name when the pack was made."""
BELIED = (OTHER_TEXT, HOLLOW, SUPERSEDED)
"""The words in the place of a PASS that proves nothing."""
WORST_FIRST = {"FAIL": 0, "INCONCLUSIVE": 1, "PASS": 2}


@dataclass(frozen=True, slots=True)
class Chapter:
    """A drill with its verdict, as the summary and the report tell it."""

    folder: str
    story: Outline
    verdict: Mapping[str, Any]
    files: Mapping[str, bytes]
    tally: Mapping[str, int]
    notes: bytes
    """of its nodes' notes, what tells the story"""
    hollow: bool = False
    """the very same drill file kept its promises without its force, too, as the pack's run log tells (DESIGN, section 4)"""
    later: str | None = None
    """what came of a later attempt in the same world with the same build, when it did not pass, as that log tells"""
    other_text: bool = False
    """what ran is a stranger's drill, or was edited since: not what lay under its name when the pack was made"""

    @property
    def name(self) -> str:
        return self.story.name

    @property
    def svg(self) -> str:
        """The picture, without the end of its last line."""
        return self.files["timeline.svg"].decode().removesuffix("\n")

    @property
    def title(self) -> str:
        return str(self.story.drill.get("title", self.name))

    @property
    def passed(self) -> bool:
        """PASS of a completed run of the stack's own machines with its force applied, of the drill that the pack means, which
        does not pass without it and did not fail later; nothing else proves anything."""
        return self.says == "PASS"

    @property
    def says(self) -> str:
        """The verdict in one word; a placebo or a mutant is never mistaken for the drill, nor a PASS that proves nothing for
        one that does."""
        word = str(self.verdict["verdict"]) if self.verdict["status"] == "completed" else str(self.verdict["status"])
        if self.story.head.get("placebo") is not False:
            return f"placebo: {word}"
        if not self.story.own_machines:
            return f"mutant: {word}"
        if word == "PASS" and self.belied:
            return OTHER_TEXT if self.other_text else HOLLOW if self.hollow else SUPERSEDED
        return word

    @property
    def belied(self) -> str | None:
        """Why a PASS of it proves nothing, in words."""
        if self.other_text:
            return "run it again: the drill of this name had another text when the pack was made"
        if self.hollow:
            return "it passed without its force, too, so its PASS proves nothing"
        return f"a later attempt with the same build ended as {self.later}" if self.later is not None else None

    @property
    def time_to_safe(self) -> str:
        """Upper bound in ms with the lower one, or ``unknown``."""
        return time_to_safe(self.verdict)

    @property
    def safe_after(self) -> str:
        """The same for a table: ``-`` where every promise was kept and opening was never seen blocked (or nobody looked)."""
        return f"{self.time_to_safe} ms" if self.time_to_safe != UNKNOWN else "-" if self.passed else UNKNOWN

    @property
    def checks(self) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        """Every check with its group: premises, promises, golden, laws."""
        return tuple(checks_of(self.verdict))

    @property
    def troubles(self) -> list[Mapping[str, Any]]:
        """What was not PASS, worst first."""
        return troubles_of(self.verdict)

    def when(self, check: Mapping[str, Any]) -> str:
        """In which moment a check did not pass, in words to be put behind it."""
        return moment(self.story, check)

    @property
    def missed(self) -> int:
        """Slots of all surfaces without a usable answer, though the system ran and nothing of ours kept it down."""
        return sum(each["missed"] + each["raw"] for each in self.story.counts.values())


def checks_of(verdict: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(group, check) in the order in which a reader wants them."""
    for group in ("premises", "promises"):
        yield from ((group, check) for check in verdict[group])
    if verdict["golden"] is not None:
        yield "golden", verdict["golden"]
    yield from (("laws", check) for check in verdict["laws"])


def troubles_of(verdict: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The checks that are not PASS, worst first."""
    found = [check for _, check in checks_of(verdict) if check["verdict"] != "PASS"]
    return sorted(found, key=lambda check: WORST_FIRST.get(check["verdict"], 0))


def moment(story: Outline, check: Mapping[str, Any]) -> str:
    """`` (2.500 s after zero)`` for a check that did not pass in a known moment, nothing for any other."""
    at_ms = check.get("at")
    if check["verdict"] == "PASS" or type(at_ms) is not int:
        return ""
    if "given" not in story.marks:
        return f" ({at_ms / 1000:.3f} s into the recording)"
    after = at_ms - story.zero_ms
    return f" ({abs(after) / 1000:.3f} s {'before' if after < 0 else 'after'} zero)"


def time_to_safe(verdict: Mapping[str, Any]) -> str:
    bounds = verdict["time_to_safe_ms"]
    return UNKNOWN if bounds["upper"] is None else str(bounds["upper"])


def chapter(story: Story, rules: Path, verdict: Mapping[str, Any]) -> Chapter:
    """Tell one drill by its story and verdict; ``rules`` are the pack's."""
    observed, at_ms = _observed(story, verdict)
    expected, source = _expected(story, rules)
    svg = timeline(story, rules, troubles_of(verdict))
    numbers = tally(story)
    common = {"story": story, "verdict": verdict, "checks": list(checks_of(verdict)), "force_of": force_of,
              "when": partial(moment, story)}
    files = {
        "verdict.json": encode(verdict),
        "observed_status.json": encode(observed),
        "expected_status.json": encode(expected),
        "diff.txt": _diff(story, verdict, observed, at_ms, expected, source),
        "validation.log": _validation(rules, story, observed, at_ms, verdict),
        "time_to_safe_ms": f"{time_to_safe(verdict)}\n".encode(),
        "trigger.md": page(TRIGGER, **common, faults=list(story.faults()), stimuli=list(story.stimuli())),
        "notes.md": page(NOTES, **common, at_ms=at_ms, source=source, tally=numbers,
                         observed=observed, time_to_safe=time_to_safe(verdict)),
        "timeline.svg": f"{svg}\n".encode(),
    }
    place = folder_name(story.name)
    return Chapter(place, story.outline, verdict, files, numbers, representative(story, place))


def prepare() -> None:
    """Read ahead what every chapter needs."""
    for each in (TRIGGER, NOTES):
        template(each)


def _observed(story: Story, verdict: Mapping[str, Any]) -> tuple[Mapping[str, Any], int | None]:
    """The document that the verdict rests on: golden's sample, else that of the promise that names a state."""
    moments = [verdict["golden"]] if verdict["golden"] is not None else []
    id = _promise(story)[0]
    moments += sorted(verdict["promises"], key=lambda check: check["id"] != id)
    at_ms = next((check["at"] for check in moments if isinstance(check.get("at"), int)), story.end_ms)
    seen = story.look_at(at_ms)
    return (seen.document or {}, seen.answered) if seen else ({}, None)


def _promise(story: Story) -> tuple[str | None, Mapping[str, Any]]:
    """The first promise that the surface shown reaches a state, and that state; (None, {}) where there is none."""
    promises = story.drill.get("promises")
    return next(((str(id), promise[story.shown]) for id, promise in _items(promises) if isinstance(promise, Mapping)
                 and "within" in promise and isinstance(promise.get(story.shown), Mapping)), (None, {}))


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    return value.items() if isinstance(value, Mapping) else ()


def _expected(story: Story, rules: Path) -> tuple[Mapping[str, Any], str]:
    """The golden fixture, or the fields that the first promise about the status asks for."""
    golden = story.drill.get("golden")
    if isinstance(golden, Mapping):
        fixture = str(golden.get("fixture"))
        contract = (story.timeline.contract_of(str(story.shown)) or "").partition(".")[0]
        folder = GOLDENS.get(contract, GOLDENS["csp_status"])
        return read_json(rules / folder / f"{Path(fixture).name}.json"), f"fixture {fixture}"
    id, fields = _promise(story)
    if id is not None:
        return fields, f"promise {id} (this drill has no fixture)"
    return {}, "nothing (this drill names no fixture and no state)"


def flatten(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """JSON pointer → value for every leaf. A list of codes is a leaf, because its order and length mean something; one
    of objects is looked into, as the judge does."""
    if isinstance(document, Mapping) and document:
        for key in sorted(document, key=str):
            yield from flatten(document[key], f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}")
    elif isinstance(document, list) and document and all(isinstance(each, Mapping) for each in document):
        for index, each in enumerate(document):
            yield from flatten(each, f"{path}/{index}")
    else:
        yield path or "/", document


def _diff(story: Story, verdict: Mapping[str, Any], observed: Mapping[str, Any], at_ms: int | None,
          expected: Mapping[str, Any], source: str) -> bytes:
    """For a golden every field that differs, and whether the judge tolerates it; for a promise every field it names."""
    golden = verdict["golden"]
    lines = [f"expected: {source}", f"observed: {_moment(story, at_ms)}"]
    if golden is None:
        lines += ["judged: by the promises alone", *_asked(story, observed, expected)]
        return ("\n".join(map(visible, lines)) + "\n").encode()
    lines.append(f"judged: {golden['verdict']}: {golden['says']}")
    wanted, found = dict(flatten(expected)), dict(flatten(observed))
    judged = golden.get("details", {}).get("differences", ())
    differing = [path for path in sorted({*wanted, *found})
                 if not _meets(wanted.get(path, MISSING), found.get(path, MISSING))]
    lines += [f"{path}: expected {_shown(wanted.get(path, MISSING))}, observed {_shown(found.get(path, MISSING))}"
              + _tolerance(path, judged) for path in differing]
    lines.append(f"{len(differing)} fields differ, {len({*wanted, *found}) - len(differing)} are equal")
    return ("\n".join(map(visible, lines)) + "\n").encode()


def _asked(story: Story, observed: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    """Each field that a promise names: what it asks for, what was observed, and whether that is it."""
    before = story.timeline.baseline().get(str(story.shown))
    words = {True: "as promised", False: "NOT AS PROMISED", None: "unknown"}
    for path, wanted in expected.items():
        try:
            fields = of_plain({str(story.shown): {str(path): wanted}}).fields
            held = [evaluate_field(each, observed, before) for each in fields]
        except (ValueError, TypeError):  # a drill that the parser would refuse
            held = [None]
        holds = False if False in held else None if None in held else True
        yield f"{path}: promised {_shown(wanted)}, observed {_shown(look(observed, str(path)))} ({words[holds]})"


def _tolerance(path: str, judged: Sequence[Mapping[str, Any]]) -> str:
    """The judge's word about a field; his pointers end higher than ours where lists differ in length."""
    about = [each for each in judged if each["pointer"] == path or path.startswith(f"{each['pointer']}/")
             or each["pointer"].startswith(f"{path}/")]
    if not about:
        dwell = ", who reads the dwell of the policy in force" if path.endswith("/condition") else ""
        return f" (the same to the judge{dwell})"
    if all(each["tolerated"] for each in about):
        return f" (tolerated: {about[0]['reason']})"
    return f" (NOT TOLERATED: {about[0]['reason']})"


def _meets(wanted: Any, found: Any) -> bool:
    return wanted is not MISSING and found is not MISSING and same(wanted, found)


def _shown(value: Any) -> str:
    return "(absent)" if value is MISSING else orjson.dumps(value, option=orjson.OPT_SORT_KEYS, default=str).decode()


def _moment(story: Story, at_ms: int | None) -> str:
    if at_ms is None:
        return "no usable sample"
    return f"{story.shown} answered at {at_ms} ms, {at_ms - story.zero_ms} ms after zero"


def _validation(rules: Path, story: Story, observed: Mapping[str, Any], at_ms: int | None,
                verdict: Mapping[str, Any]) -> bytes:
    """The contract's word about the observed document, and about all the others as the verdict's laws have it."""
    findings: list[str] = []
    if at_ms is None:
        word = "no usable sample, so nothing to validate"
    elif (contract := story.timeline.contract_of(str(story.shown)) or "").partition(".")[0] not in CONTRACTS:
        word = f"answered at {at_ms} ms; {story.shown} obeys no contract that we know"
    else:
        findings = [str(each) for each in load_rules(rules).contract(contract, story.policy).check(dict(observed))]
        word = f"answered at {at_ms} ms: {'NOT LAWFUL' if findings else 'lawful'}"
    lines = [f"observed_status.json: {word}", *findings]
    lines += [f"{law['verdict']} {law['id']}: {law['says']}" for law in verdict["laws"]]
    return ("\n".join(map(visible, lines)) + "\n").encode()


def pretty(document: Mapping[str, Any]) -> Ready:
    """A document for a page in a fenced block: JSON cannot hold a raw control character, nor end the fence."""
    return Ready(encode(document).decode().rstrip("\n").replace("`", "\\u0060"))
