"""The checklist of a phase: ``specs/phases/phase_N.yaml``, read strictly and held by a lock.

A checklist from which something was left out would be easier to fulfil. So every field of every item is
required, and the file's digest must stand in ``specs/phases/lock.json``: whatever is removed from either closes
the gate. ``python -m harness.pack.phases`` writes the lock anew after an edit that was meant.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from harness.drill.specs import read_yaml
from harness.errors import SpecError, UsageError
from harness.pack.listing import drill_order
from harness.pack.origin import sha256_file

Kind = Literal["AUTO", "MANUAL"]
LADDER = ("DEV", "STAGING", "PAPER", "MICRO-LIVE", "PROD")
FOLDER = "specs/phases"
OWN = 0
"""The number of the one phase that a system of one's own has."""
OWN_CHECKLIST = "own/checklist.yaml"
"""Where its checklist lies, in a run's folder and under a pack's rules; the recording's head holds its digest."""

ENDINGS = (".yaml", ".yml")
"""By which a file says that it is YAML; a drill's is the first, in small letters."""


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the checklist and what proves it: at least ``at_least`` of ``drills`` PASS, with ``invariants``."""

    id: str
    kind: Kind
    group: str
    rung: str
    text: str
    source: Mapping[str, str]
    drills: tuple[str, ...]
    at_least: int
    invariants: tuple[str, ...]
    who: str
    how: str
    unproven: tuple[str, ...] = ()
    """parts of the requirement that none of its drills shows; said aloud by the gate, and closing nothing"""
    recorded: Mapping[str, str] | None = None
    """``world`` and ``policy`` in which alone a PASS counts; None: in every real world, under every policy of the stack"""


@dataclass(frozen=True, slots=True)
class Phase:
    number: int
    name: str
    outcome: str
    permission: str
    groups: Mapping[str, str]
    items: tuple[Item, ...]
    sets: tuple[str, ...] = ()
    """the folders under drills/ whose drills belong to the phase"""

    @property
    def word(self) -> str:
        """As it is named on the command line."""
        return "own" if self.number == OWN else str(self.number)

    @property
    def drills(self) -> tuple[str, ...]:
        """Every drill that some item names, once."""
        return tuple(dict.fromkeys(drill for item in self.items for drill in item.drills))

    @property
    def title(self) -> str:
        return self.name if self.number == OWN else f"Phase {self.number}, {self.name}"


WITHOUT_CHECKLIST = Phase(OWN, "A system of your own", "Drills of a system that brings no checklist along: what is proven is "
                          "what they promise, no more.", "none: there is no checklist that a gate could decide by", {}, ())


def pack_name(phase: int) -> str:
    """The folder of a phase's pack under evidence/."""
    return "own" if phase == OWN else f"phase{phase}"


def phase_file(root: Path, number: int) -> Path:
    """Where the checklist of a phase lies."""
    return root / FOLDER / f"phase_{number}.yaml"


def load_phase(root: Path, number: int) -> Phase:
    """Read a phase's checklist. Raises SpecError when it is missing, incomplete, or not the locked one."""
    if number == OWN:
        file = root / OWN_CHECKLIST
        return parse_phase(read_yaml(file)) if file.is_file() else WITHOUT_CHECKLIST
    file = phase_file(root, number)
    try:
        locked = orjson.loads((root / FOLDER / "lock.json").read_bytes()).get(file.name)
        if locked != sha256_file(file):
            raise SpecError(f"{file}: is not the checklist that lock.json holds; "
                            "after an edit that was meant, run `python -m harness.pack.phases`")
        return parse_phase(read_yaml(file))
    except (OSError, orjson.JSONDecodeError, AttributeError) as why:
        raise SpecError(f"{file}: cannot be read as a phase: {why}") from why


def drills_of(root: Path, number: int) -> list[Path]:
    """Every drill file of a phase, set by set. Raises SpecError for a checklist that cannot be read, and for two drills of
    one name: runs, packs and items know a drill by its name alone."""
    return each_once(file for name in load_phase(root, number).sets for file in drills_below(root / "drills" / name))


def set_of(root: Path, file: Path) -> str:
    """The set that a drill file of the checkout belongs to, however deep in it it lies."""
    return file.relative_to(root / "drills").parts[0]


def drills_below(folder: Path) -> list[Path]:
    """Every drill file of a folder and of those in it, in the drills' order: so that what is run, what is packed and what
    a gate asks for are the same. Raises UsageError for one that ends in .yml, which would be none of these."""
    return sorted((ends_in_yaml(file) for file in folder.rglob("*") if file.suffix.lower() in ENDINGS),
                  key=lambda each: drill_order(each.stem))


def ends_in_yaml(file: Path) -> Path:
    """The file itself. Raises UsageError for another way to write that ending."""
    if file.suffix != ".yaml" and file.suffix.lower() in ENDINGS:
        raise UsageError(f"{file}: found a drill that ends in {file.suffix}, expected .yaml")
    return file


def each_once(files: Iterable[Path]) -> list[Path]:
    """These drill files. Raises SpecError for two of one name."""
    places: dict[str, Path] = {}
    for file in files:
        if (other := places.setdefault(file.stem, file)) != file:
            raise SpecError(f"{file}: has the name of {other}: in one phase every drill needs a name of its own")
    return list(places.values())


def parse_phase(raw: Any) -> Phase:
    """The checklist as values. Raises SpecError; nothing is ever filled in for a missing field."""
    try:
        items = tuple(_item(each) for each in raw["items"])
        number = OWN if raw["phase"] == "own" else _whole(raw["phase"])
        phase = Phase(number, _text(raw["name"]), _text(raw["outcome"]), _text(raw["permission"]),
                      {_text(name): _text(says) for name, says in raw["groups"].items()}, items,
                      tuple(map(_text, raw.get("sets", () if number == OWN else (f"phase{number}",)))))
    except (KeyError, TypeError, AttributeError, ValueError) as why:
        raise SpecError(f"not a phase: {type(why).__name__}: {why}") from why
    if not items or len({item.id for item in items}) != len(items):
        raise SpecError("not a phase: it has no items, or two of one name")
    if unknown := {item.group for item in items} ^ set(phase.groups):
        raise SpecError(f"not a phase: groups without items, or items without a group: {sorted(unknown)}")
    return phase


def _item(raw: Mapping[str, Any]) -> Item:
    proof, closes = raw["proof"], raw["closes"]
    item = Item(_text(raw["id"]), raw["kind"], _text(raw["group"]), _text(raw["rung"]), _text(raw["text"]),
                {"document": _text(raw["source"]["document"]), "section": _text(raw["source"]["section"])},
                tuple(map(_text, proof["drills"])), _whole(proof["at_least"]), tuple(map(_text, proof["invariants"])),
                _text(closes["who"]), _text(closes["how"]), tuple(map(_text, proof["unproven"])), _recorded(proof["recorded"]))
    if item.kind not in ("AUTO", "MANUAL") or item.rung not in LADDER:
        raise ValueError(f"{item.id}: kind is {item.kind!r} and rung {item.rung!r}")
    if len(set(item.drills)) != len(item.drills):
        raise ValueError(f"{item.id}: names a drill twice")
    if item.kind == "AUTO" and item.at_least < 1:
        raise ValueError(f"{item.id}: would be open with nothing to prove it")
    if item.kind == "MANUAL" and item.drills:
        raise ValueError(f"{item.id}: a person decides, so no drill can")
    return item


def _recorded(raw: Any) -> Mapping[str, str] | None:
    return None if raw == "any" else {"world": _text(raw["world"]), "policy": _text(raw["policy"])}


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"found {value!r}, expected text")
    return value.strip()


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"found {value!r}, expected a whole number")
    return value


def lock(root: Path) -> Path:
    """Write the digests of all checklists into ``lock.json``; every one must be readable."""
    folder = root / FOLDER
    files = sorted(folder.glob("phase_*.yaml"))
    for file in files:
        parse_phase(read_yaml(file))
    target = folder / "lock.json"
    target.write_bytes(_digests(files))
    return target


def _digests(files: Sequence[Path]) -> bytes:
    digests = {file.name: sha256_file(file) for file in files}
    return orjson.dumps(digests, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2) + b"\n"


def main(arguments: list[str]) -> int:
    """Write the lock, or with ``--check`` compare it: exit 1 when a checklist is not the one that was locked."""
    root = Path(__file__).resolve().parent.parent.parent
    if arguments != ["--check"]:
        print(lock(root))
        return 0
    same = (root / FOLDER / "lock.json").read_bytes() == _digests(sorted((root / FOLDER).glob("phase_*.yaml")))
    print(f"lock.json: {'up to date' if same else 'not what the checklists are; run without --check'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
