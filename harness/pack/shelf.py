"""The packs of a phase that lie at hand, oldest first, and what each of them says.

A pack is taken at its word here, as long as every file is the one that its manifest lists: nothing is judged again, so a
pack that another build of drillproof made can be read, too. That is enough for looking back; a gate never asks this room.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness import limits, texts
from harness.errors import DrillproofError
from harness.pack.chapter import BELIED
from harness.pack.derive import PACK_FILE, RUN_LOG, drill_folders
from harness.pack.listing import MANIFEST, SEAL_FILES, Finding, check_manifest, drill_order, list_files
from harness.pack.origin import sha256_file
from harness.pack.plain import visible
from harness.pack.runlog import attempts, whole_lines
from harness.pack.story import machines_in, read_head, read_json
from harness.pack.tried import last_tries
from harness.recording.tape import canonical, read_lines
from harness.recording.timeline import read_yaml

NAME = re.compile(r"phase(?P<phase>[0-9]{1,4})(?:\.(?P<stamp>[0-9]{8}T[0-9]{6}Z)(?:-(?P<number>[0-9]{1,2}))?)?")
SAMPLES, TIMES = "metrics_exports/samples.csv", "metrics_exports/time_to_safe.csv"
MISSED = ("missed", "raw")
"""Columns of that table: slots without a usable answer, though the system ran and nothing of ours kept it down."""
MODE = "trading_mode"
REASONS = ("mode_reasons", "open_permission_reason_codes")


@dataclass(frozen=True)
class Drill:
    """One drill as a pack tells it."""

    folder: Path
    name: str
    says: str
    """its verdict in one word; how the run ended where it did not complete; a placebo or mutant never reads as a verdict"""
    run_id: str
    time_to_safe_ms: int | None
    missed: int
    title: str = ""
    text: str = ""
    """the digest of the drill's text that was run"""

    @property
    def safe_after(self) -> str:
        """``850 ms``, ``2.9 s``; ``-`` where every promise was kept and opening was never seen blocked."""
        ms = self.time_to_safe_ms
        return told_time(ms) if ms is not None else "-" if self.says == "PASS" else "unknown"

    @cached_property
    def reasons(self) -> frozenset[str]:
        """Every mode, reason and latch code that the system ever told in this run."""
        found: set[str] = set()
        for line in read_lines(self.folder / "recording.jsonl.gz"):
            said = {**_mapping(line.get("full")), **_mapping(line.get("set"))} if line.get("line") == "sample" else {}
            told = (said.get(name) for name in REASONS)
            found |= {str(code) for codes in told if isinstance(codes, list) for code in codes}
            found |= {str(said[MODE])} if MODE in said else set()
        return frozenset(found)


@dataclass(frozen=True)
class Pack:
    """What one pack says. ``utc`` is when its last run ended."""

    folder: Path
    phase: int
    utc: str
    drills: Mapping[str, Drill]
    worlds: tuple[str, ...]
    about: Mapping[str, str] = field(default_factory=dict)
    """word → what all its runs have in common: commit, system, policy, stack, rules, seed, proxy, harness"""
    sets: frozenset[str] = frozenset()
    """of which sets of drills it has any"""
    not_run: int = 0
    """how many drills of its phase, meant for its world, nobody ran"""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def world(self) -> str:
        return ", ".join(self.worlds)

    @property
    def run_ids(self) -> frozenset[str]:
        return frozenset(each.run_id for each in self.drills.values())

    @property
    def passed(self) -> int:
        return sum(each.says == "PASS" for each in self.drills.values())

    @cached_property
    def findings(self) -> list[Finding]:
        """What is not as its manifest lists it."""
        return check_manifest(self.folder)


def told_time(ms: int) -> str:
    """``850 ms``, ``2.9 s``."""
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:.1f} s" if ms < 100_000 else f"{ms // 1000} s"


def is_pack(folder: Path) -> bool:
    """Whether a folder looks like a pack; no link is followed."""
    return not folder.is_symlink() and (folder / PACK_FILE).is_file() and (folder / MANIFEST).is_file()


def put_aside(name: str) -> tuple[bool, str, int]:
    """When a pack of this name was replaced by a newer one, to sort by: the newest is the one that nothing has replaced,
    whenever its runs ended. A name that no pack has comes first."""
    named = NAME.fullmatch(name)
    stamp, number = (named["stamp"], named["number"]) if named else ("", None)
    return stamp is None, stamp or "", int(number or 0)


def pack_folders(evidence: Path, phase: int) -> list[Path]:
    """A phase's pack and the former ones beside it, oldest first."""
    found = sorted(evidence.iterdir(), key=lambda each: put_aside(each.name)) if evidence.is_dir() else []
    return [each for each in found if (named := NAME.fullmatch(each.name)) and int(named["phase"]) == phase and is_pack(each)]


def shelf(evidence: Path, phase: int) -> tuple[list[Pack], dict[str, str]]:
    """The packs of a phase, oldest first; and those that cannot be read, each with the reason."""
    packs, unread = [], {}
    for folder in pack_folders(evidence, phase):
        told = read_pack(folder)
        if isinstance(told, str):
            unread[folder.name] = told
        else:
            packs.append(told)
    return packs, unread


def read_pack(folder: Path) -> Pack | str:
    """What a pack says, or in one sentence why it cannot be read."""
    if unsafe := list_files(folder).unsafe:
        return str(unsafe[0])
    about = read_json(folder / PACK_FILE)
    if not isinstance(about.get("phase"), int):
        return f"{PACK_FILE} cannot be read"
    try:
        missed, belied = _missed(folder), _belied(folder)
        drills, heads, versions = [], [], []
        for each in drill_folders(folder):
            drills.append(_drill(each, missed, belied))
            heads.append(read_head(each))
            versions.append(read_json(each / "versions.json"))
        not_run = _not_run(folder, about, {str(head.get("world")) for head in heads})
    except (OSError, KeyError, TypeError, ValueError, AttributeError, DrillproofError) as why:
        return f"cannot be read as a pack: {type(why).__name__}: {why}"
    if not drills:
        return "holds no drill"
    drills.sort(key=lambda each: drill_order(each.name))
    return Pack(folder, about["phase"], max(str(each.get("ended_utc", "")) for each in versions),
                {each.name: each for each in drills}, tuple(dict.fromkeys(str(head.get("world")) for head in heads)),
                {"harness": str((about.get("made_by") or {}).get("harness")), **_common(heads, versions)},
                frozenset(map(str, _mapping(about.get("sets")).values())), not_run)


def _not_run(folder: Path, about: Mapping[str, Any], worlds: Collection[str]) -> int:
    """Of the drills that are not in a pack, how many nobody tried, as its slice of the run log tells."""
    told, log = about.get("not_run"), folder / RUN_LOG
    absent = {str(each) for each in told} if isinstance(told, list) else set()
    tries = attempts(whole_lines(log.read_bytes())) if absent and log.is_file() else ()
    return len(absent - last_tries(tries, absent, worlds).keys())


def _drill(folder: Path, missed: Mapping[str, int], belied: Mapping[str, str]) -> Drill:
    verdict, head = read_json(folder / "verdict.json"), read_head(folder)
    word = str(verdict["verdict"] if verdict["status"] == "completed" else verdict["status"])
    word = f"placebo: {word}" if head.get("placebo") is not False else word
    upper, name = verdict["time_to_safe_ms"]["upper"], str(verdict["drill"])
    if head.get("machines") != machines_in(read_yaml(folder / "stack.yaml")):
        word = f"mutant: {word}"
    word = belied.get(name, word) if word == "PASS" else word
    return Drill(folder, name, word, str(read_json(folder / "versions.json").get("run_id")),
                 upper if type(upper) is int else None, missed.get(name, 0), _title(folder),
                 str(_at(head, "drill", "sha256") or ""))


def _title(folder: Path) -> str:
    return visible(read_yaml(folder / "drill.yaml").get("title", ""), 120)


def _table(file: Path) -> csv.DictReader[str]:
    return csv.DictReader(texts.read(file, limits.PACK_TEXT_BYTES_MAX).decode().splitlines())


def _belied(folder: Path) -> dict[str, str]:
    """The drills whose PASS proves nothing, as the pack's own table says: drill → the word in its place."""
    return {row["drill"]: row["verdict"] for row in _table(folder / TIMES) if row["verdict"] in BELIED}


def _missed(folder: Path) -> dict[str, int]:
    """drill → missed samples over all its surfaces, from the pack's own table."""
    found: dict[str, int] = {}
    for row in _table(folder / SAMPLES):
        found[row["drill"]] = found.get(row["drill"], 0) + sum(int(row[column]) for column in MISSED)
    return found


def _common(heads: list[Mapping[str, Any]], versions: list[Mapping[str, Any]]) -> dict[str, str]:
    told = {"commit": [_at(each, "git", "commit") for each in versions],
            "system": [each.get("system") for each in heads],
            "policy": [_at(each, "policy", "name") for each in heads],
            "stack": [_at(each, "stack", "sha256") for each in heads],
            "rules": [hashlib.sha256(canonical(each.get("rules"))).hexdigest() for each in heads],
            "recorder": [each.get("recorder") for each in heads],
            "seed": [each.get("seed") for each in heads],
            "proxy": [f"{_at(each, 'proxy', 'kind')} {_at(each, 'proxy', 'version')}" for each in heads]}
    return {word: ", ".join(dict.fromkeys(map(str, values))) for word, values in told.items()}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _at(value: Any, *path: str) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def is_sealed(folder: Path) -> bool:
    """Whether anybody vouched for a pack, or a pack says so: neither is ever taken away."""
    return any((folder / each).exists() for each in SEAL_FILES) or read_json(folder / PACK_FILE).get("sealed_by") is not None


def manifest_sha256(folder: Path) -> str:
    """By what the run log knows a pack."""
    return sha256_file(folder / MANIFEST)
