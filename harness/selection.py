"""Which drills a command means: files, folders and short names; and of a set, those that are meant for the world at hand.

A drill may say which worlds it is meant for (``worlds: [sim, docker]``). A set leaves the others out and names each of
them; one that is asked for by its own name is never left out in silence: its run is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.drill.text import worlds_of
from harness.errors import UsageError, nearest
from harness.pack.listing import drill_order
from harness.pack.phases import drills_below, ends_in_yaml
from harness.session import ROOT


@dataclass(frozen=True, slots=True)
class Choice:
    """What runs, and what does not: drill → the worlds it needs, as a person says them."""

    files: tuple[Path, ...]
    world: str
    left_out: Mapping[str, str] = field(default_factory=dict)

    def says(self) -> list[str]:
        """A line for each drill that was left out, with the reason."""
        return [f"NOT RUN in {self.world}: {drill}: needs {needs}" for drill, needs in self.left_out.items()]

    def to_json(self) -> list[dict[str, Any]]:
        return [{"drill": drill, "world": self.world, "needs": needs} for drill, needs in self.left_out.items()]


def choose(names: Sequence[str], world: str) -> Choice:
    """The drills of these names. Raises UsageError for what is not there or cannot be read."""
    files, left_out = [], {}
    by_name = {file for name in names if not _is_set(name) for file in _found(name)}
    for file in drill_files(names):
        worlds = _worlds(file)
        if file in by_name or not worlds or world in worlds:
            files.append(file)
        else:
            left_out[file.stem] = " or ".join(worlds)
    return Choice(tuple(files), world, left_out)


def _worlds(file: Path) -> tuple[str, ...]:
    try:
        return worlds_of(file)
    except OSError as why:
        raise UsageError(f"{file}: cannot be read as a drill: {why.strerror or why}") from why


def drill_files(names: Sequence[str]) -> list[Path]:
    """Drill files of paths, folders, or short names (``phase2``, ``2_market_data_stale``), in drill order."""
    files: list[Path] = []
    for name in names:
        found = _found(name)
        if not found:
            known = sorted(each.name for each in (ROOT / "drills").iterdir() if each.is_dir())
            known += every_drill()
            hint = next((each for each in known if name and each.startswith(name)), nearest(name, known))
            raise UsageError(f"no drill at {name!r}" + (f" (nearest: {hint})" if hint else f"; known: {', '.join(known)}"))
        files += [each for each in found if each not in files]
    return files


def every_drill() -> list[str]:
    """The name of every drill of the checkout, in drill order."""
    return [each.stem for each in sorted((ROOT / "drills").rglob("*.yaml"), key=_order)]


def _found(name: str) -> list[Path]:
    place = _place(name)
    if place is None:
        try:
            return sorted((each.resolve() for each in (ROOT / "drills").rglob(f"{name}.yaml")), key=_order)
        except (NotImplementedError, ValueError):  # an absolute path, or stars that are no pattern: nothing is called so
            return []
    if place.is_file():
        return [ends_in_yaml(place).resolve()]
    return sorted((each.resolve() for each in drills_below(place)), key=_order)


def _place(name: str) -> Path | None:
    return next((each for each in (Path(name), ROOT / "drills" / name) if each.is_file() or each.is_dir()), None)


def _is_set(name: str) -> bool:
    place = _place(name)
    return place is not None and place.is_dir()


def _order(file: Path) -> tuple[str, tuple[int, str]]:
    return str(file.parent), drill_order(file.stem)
