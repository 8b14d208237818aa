"""``drillproof prune``: by which file, and how it is told. What goes is decided and taken away in ``pack.prune``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, TextIO

from harness import console
from harness.budget import budget_file, read_budget
from harness.errors import UsageError
from harness.pack import prune as room
from harness.pack.prune import PACK, RETENTION_FILE, Plan, Thing
from harness.session import is_held
from harness.world.real.undo import FILE, standing


def prune(evidence: Path, given: Path | None, root: Path, dry: bool) -> Plan:
    """Raises UsageError where no file says what may go: nothing is ever taken away by default."""
    places = (given,) if given else (evidence / RETENTION_FILE, root / "evidence" / RETENTION_FILE)
    file = next((each for each in places if each.is_file()), None)
    if file is None:
        raise UsageError(f"{places[0]}: no such file, so nothing says what may be taken away")
    retention, baseline = room.read_retention(file), read_budget(budget_file(evidence, root)).baseline
    baselines = {baseline} if baseline else set()
    return room.prune(evidence, lambda: room.plan(evidence, retention, baselines, in_use), dry)


def in_use(folder: Path) -> str | None:
    """Why nobody may take a run folder away: its stack was left up, or something of it is still to be undone."""
    if is_held(folder):
        return "held"
    return "not cleared up: drillproof recover" if (folder / FILE).is_file() and standing(folder) else None


def to_json(plan: Plan, dry: bool) -> dict[str, Any]:
    return {"dry_run": dry, "goes": [each.to_json() for each in plan.going],
            "left_from_before": [each.name for each in plan.left],
            "stays": [each.to_json() for each in plan.things if not each.goes], "notes": list(plan.notes)}


def render(plan: Plan, dry: bool, every: bool, stream: TextIO) -> str:
    """All packs, and of the runs those that go; the runs that stay are counted by their reasons, unless all are wanted."""
    goes = "would go" if dry else "gone"
    shown = [each for each in plan.things if each.goes or each.kind == PACK or every]
    rows = [["", "what", "name", "age", "size", "why"], *(_cells(each, goes) for each in shown)]
    lines = [console.table(rows, stream)] if shown else []
    kept = Counter(each.why for each in plan.things if each not in shown)
    lines += [f"stays     {console.counted(count, 'run')}: {why}" for why, count in kept.items()]
    lines += [f"note: {console.plain(each)}" for each in plan.notes]
    if plan.left:
        lines.append(f"to be finished, left by an earlier prune: {', '.join(each.name for each in plan.left)}")
    going, size = plan.going, sum(each.bytes for each in plan.going)
    packs = sum(each.kind == PACK for each in going)
    counted = f"{console.counted(packs, 'pack')} and {console.counted(len(going) - packs, 'run')}"
    return "\n".join((*lines, f"{goes}: {counted}, {_mb(size)}; {len(plan.things) - len(going)} stay"))


def _cells(thing: Thing, goes: str) -> list[str]:
    age = f"{console.counted(thing.days, 'day')}" if thing.days >= 0 else "?"
    return [goes if thing.goes else "stays", thing.kind, console.plain(thing.folder.name), age, _mb(thing.bytes), thing.why]


def _mb(size: int) -> str:
    return f"{size / room.MB:.1f} MB"
