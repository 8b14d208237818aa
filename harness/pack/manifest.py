"""``verify``: is this pack what it says? Files against the manifest, pages against their inputs, seals.

A manifest alone proves only that nobody was careless, because whoever can write files can write a manifest. So
everything that is not an input or a recording is derived again and compared byte for byte. Doctoring a pack then
means forging recordings together with the run log, and the seal says who vouches for those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.drill.grammar import WORLD_NAMES
from harness.pack import seals
from harness.pack.chapter import Chapter
from harness.pack.derive import (
    DRILLS,
    PACK_FILE,
    RULES,
    RUN_LOG,
    STREAMS,
    Derived,
    derive,
    drill_folders,
    folder_name,
)
from harness.pack.inputs import wrong_with_pack
from harness.pack.listing import MANIFEST, SEAL_FILES, Finding, check_manifest, encode, is_digest, list_files
from harness.pack.matrix import MATRIX_FILE
from harness.pack.origin import RUN_FILES, sha256_file, tree_sha256
from harness.pack.pages import TEMPLATES
from harness.pack.phases import Phase, load_phase
from harness.pack.runlog import RUN_LOG_FILE, Attempt, disowns_manifest, knows_manifest
from harness.pack.seals import ATTESTATION, SIGNOFF, Seal, check_seal
from harness.pack.story import read_json

__all__ = ["Examination", "Finding", "examine", "made_by", "verify"]


@dataclass(frozen=True, slots=True)
class Examination:
    """What looking at a pack gave. Verdicts, chapters and attempts are filled only when nothing was found."""

    findings: tuple[Finding, ...]
    verdicts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    chapters: tuple[Chapter, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    attestation: Seal = Seal()
    signoff: Seal = Seal()
    attempts: tuple[Attempt, ...] = ()

    @property
    def seal_says(self) -> str:
        """Who vouches for the pack, in one sentence."""
        if self.attestation.key is None:
            return "UNSIGNED: intact means only that nobody was careless"
        signed = f"; signed off with {_signer(self.signoff)}" if self.signoff.key else ""
        return f"sealed with {_signer(self.attestation)}{signed}"


def _signer(seal: Seal) -> str:
    return f"{seal.key} ({seal.name or 'a key that is on no list of trusted keys'})"


def verify(pack: Path, trusted: Mapping[str, str] | None = None) -> list[Finding]:
    """Every finding about a pack, first file first; empty when it is intact."""
    return list(examine(pack, trusted).findings)


def examine(pack: Path, trusted: Mapping[str, str] | None = None) -> Examination:
    """Look at a pack from the outside in, and stop where what comes next could not be believed.

    Without ``trusted`` a seal has only to be whole; with it, whoever sealed has to be on the list.
    """
    if found := check_manifest(pack):
        return Examination(tuple(sorted((*found, *_whose_word(pack, found)), key=lambda each: each.path)))
    about = read_json(pack / PACK_FILE)
    try:
        found = sorted(_inputs(pack, about), key=lambda each: each.path)
    except Exception as why:  # noqa: BLE001 (as below: what a forger may write has no end)
        found = [Finding("INPUT", ".", f"cannot be read: {type(why).__name__}: {why}")]
    if found:
        return Examination(tuple(found), about=about)
    try:
        derived = derive(pack)
    except Exception as why:  # noqa: BLE001 (whatever a forged input provokes, the answer is a finding)
        return Examination((Finding("DERIVED", ".", f"nothing can be derived: {type(why).__name__}: {why}"),), about=about)
    seal, signoff = (check_seal(pack, each, trusted) for each in (ATTESTATION, SIGNOFF))
    seen = Examination((), derived.verdicts, derived.chapters, about, seal, signoff, derived.attempts)
    found = sorted((*_pages(pack, about, derived), *_judged_otherwise(seen), *_seals(about, seal, signoff)),
                   key=lambda each: each.path) \
        or knows_manifest(pack.parent / RUN_LOG_FILE, about["runs"].values(), sha256_file(pack / MANIFEST)) \
        or list(_strangers(seen) if trusted is not None else ())
    return Examination(tuple(found), about=about, attestation=seal, signoff=signoff) if found else seen


def _whose_word(pack: Path, found: list[Finding]) -> Iterator[Finding]:
    """A file and what the manifest says of it differ: the run log beside the pack may know that it is the manifest."""
    runs = read_json(pack / PACK_FILE).get("runs")
    compared = all(each.tag in ("CHANGED", "ADDED", "REMOVED") and each.path != MANIFEST for each in found)
    if not compared or not isinstance(runs, Mapping):
        return
    ids = [each for each in runs.values() if isinstance(each, str)]
    if disowns_manifest(pack.parent / RUN_LOG_FILE, ids, sha256_file(pack / MANIFEST)):
        yield Finding("CHANGED", MANIFEST, "is not the one that was packed: what it says of a file may be what is wrong")


def _inputs(pack: Path, about: Mapping[str, Any]) -> Iterator[Finding]:
    if not about or encode(about) != (pack / PACK_FILE).read_bytes():
        yield Finding("INPUT", PACK_FILE, "cannot be read, or is not written as packs are")
        return
    if why := _not_about(about):
        yield Finding("INPUT", PACK_FILE, why)
        return
    if "not_run" in about and not _are_not_run(about, load_phase(pack / RULES, about["phase"])):
        yield Finding("INPUT", PACK_FILE, "does not say which drills nobody ran")
        return
    yield from wrong_with_pack(pack, about, drill_folders(pack))


ABOUT = frozenset({"format", "phase", "sealed_by", "made_by", "run_log", "runs", "left_out", "not_run", "mutants", "sets",
                   "other_text"})
LATER = frozenset({"sets", "not_run", "other_text"})
"""What packs of earlier builds do not have."""
SLICE = frozenset({"after", "lines", "last", "earlier"})


def _not_about(about: Mapping[str, Any]) -> str | None:
    """Why this is not what a build writes into pack.json, or None: a word more would be a word that nobody checks."""
    made, log, runs = about.get("made_by"), about.get("run_log"), about.get("runs")
    if extra := sorted((about.keys() | LATER) ^ ABOUT):
        return f"has other keys than packs have: {', '.join(extra)}"
    if not (isinstance(made, Mapping) and made.keys() == made_by().keys() and all(map(is_digest, made.values()))):
        return "does not say which build made it"
    if not (isinstance(runs, Mapping) and all(isinstance(each, str) for each in runs.values())):
        return "does not name its runs"
    if not _are_left_out(about["left_out"], runs):
        return "does not say which drills were left out, and for which worlds they are meant"
    sets = about.get("sets", {})
    if not (isinstance(sets, Mapping) and all(isinstance(each, str) and folder_name(drill) in runs
                                              for drill, each in sets.items())):
        return "does not say to which set each drill belongs"
    others = about.get("other_text", [])
    if not (isinstance(others, list) and all(isinstance(each, str) and folder_name(each) in runs for each in others)):
        return "does not say of which drills another text ran"
    earlier = log.get("earlier") if isinstance(log, Mapping) else {}
    if log is not None and not (isinstance(log, Mapping) and log.keys() == SLICE and isinstance(earlier, Mapping)
                                and all(type(each) is int and each >= 0 for each in earlier.values())):
        return "does not describe its slice of the run log"
    return None


def _are_left_out(value: object, runs: Mapping[str, Any]) -> bool:
    """Drill → worlds, and none of them is in the pack after all."""
    return isinstance(value, Mapping) and all(
        isinstance(worlds, list) and worlds and set(worlds) <= set(WORLD_NAMES) and folder_name(drill) not in runs
        for drill, worlds in value.items())


def _are_not_run(about: Mapping[str, Any], phase: Phase) -> bool:
    """Names of drills that are not in the pack; every one that the checklist names is there, was left out or is among them."""
    names = about["not_run"]
    if not (isinstance(names, list) and all(isinstance(each, str) for each in names) and len(set(names)) == len(names)):
        return False
    told = {folder_name(each) for each in (*names, *about["left_out"])}
    return not told & about["runs"].keys() and all(folder_name(each) in told | about["runs"].keys() for each in phase.drills)


def _pages(pack: Path, about: Mapping[str, Any], derived: Derived) -> Iterator[Finding]:
    """Every page that is not what its inputs give, and every file that is neither."""
    hint = "" if about.get("made_by") == made_by() else " (the pack was made by another build of drillproof)"
    for path, data in sorted(derived.files.items()):
        file = pack / path
        if not file.is_file():
            yield Finding("DERIVED", path, "follows from the inputs but is not there")
        elif file.read_bytes() != data:
            line = _first_difference(file.read_bytes(), data)
            yield Finding("DERIVED", path, f"is not what the inputs give, from line {line} on{hint}")
    for path in list_files(pack).files:
        if path not in derived.files and not _is_input(path, derived.chapters):
            yield Finding("ADDED", path, "is neither an input nor derived from one")


def _is_input(path: str, chapters: tuple[Chapter, ...]) -> bool:
    if path in (MANIFEST, PACK_FILE, RUN_LOG, MATRIX_FILE, f"{RULES}/stack.yaml", f"{RULES}/policy.json", *SEAL_FILES):
        return True
    if path.startswith(f"{RULES}/"):
        return path.removeprefix(f"{RULES}/") in chapters[0].story.head["rules"]
    parts = path.split("/")
    if len(parts) == 3 and parts[0] == DRILLS:
        return parts[2] in RUN_FILES
    return len(parts) == 4 and parts[0] == DRILLS and parts[2] == STREAMS and parts[3].endswith(".jsonl")


def _first_difference(one: bytes, other: bytes) -> int:
    """The first line (from 1) in which two texts differ."""
    ours, theirs = one.split(b"\n"), other.split(b"\n")
    pairs = zip(ours, theirs, strict=False)
    return next((number for number, (a, b) in enumerate(pairs, 1) if a != b), min(len(ours), len(theirs)))


def _judged_otherwise(seen: Examination) -> Iterator[Finding]:
    """Every page follows from the judge at hand, and the log holds what was judged when the run ended. Where they differ it was
    another judge: nobody may soften one between the run and the pack."""
    told = {each.run_id: each.verdict for each in seen.attempts if each.recording_sha256 is not None}
    for each in seen.chapters:
        run_id, now = str(each.story.versions.get("run_id")), seen.verdicts[each.folder].get("verdict")
        if run_id in told and told[run_id] != now:
            yield Finding("RUNLOG", RUN_LOG, f"says {told[run_id]} of the run {run_id}, and judged now it is {now}: run it "
                                             "again with the judge at hand")


def _seals(about: Mapping[str, Any], seal: Seal, signoff: Seal) -> Iterator[Finding]:
    """Seals must be whole, and agree with what line 1 of the summary says."""
    if seal.why:
        yield Finding("SEAL", ATTESTATION, seal.why)
    if signoff.why:
        yield Finding("SIGNOFF", SIGNOFF, signoff.why)
    elif signoff.key and signoff.key == seal.key:
        yield Finding("SIGNOFF", SIGNOFF, "was made with the key that attested; a pack needs two people")
    elif signoff.key and not seal.key:
        yield Finding("SIGNOFF", SIGNOFF, "signs an attestation that is not there")
    if not seal.why and about.get("sealed_by") != seal.key:
        yield Finding("SEAL", ATTESTATION, f"the pack says it is sealed by {about.get('sealed_by')}, "
                                           f"the seal is of {seal.key}")


def _strangers(seen: Examination) -> Iterator[Finding]:
    """Signatures that are whole, and nobody's whom the list of trusted keys names."""
    if not seen.attestation.good:
        yield Finding("SEAL", ATTESTATION, f"nobody on the list of trusted keys vouches for it ({seen.seal_says})")
    if seen.signoff.key and not seen.signoff.good:
        yield Finding("SIGNOFF", SIGNOFF, f"nobody on the list of trusted keys signed it off ({seen.seal_says})")


def made_by() -> dict[str, str]:
    """Which build of the harness wrote the pages: a later one may word them differently."""
    return {"harness": tree_sha256(Path(seals.__file__).resolve().parent.parent), "templates": tree_sha256(TEMPLATES)}
