"""What the attempts of a run log say of a drill beside the run that lies in a pack: what came of it later, whether it passes
without its force, and what became of drills that were tried and are not in the pack. The pages and the gate ask the same."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from harness.pack.chapter import Chapter
from harness.pack.runlog import Attempt


def hollow(chapter: Chapter, attempts: Iterable[Attempt]) -> str | None:
    """The placebo of the very same drill file that passed (DESIGN, section 4)."""
    sha256 = _mapping(chapter.story.head.get("drill")).get("sha256")
    return next((each.run_id for each in attempts if each.hollow and each.drill_sha256 == sha256), None) if sha256 else None


def later(chapter: Chapter, attempts: Iterable[Attempt]) -> str | None:
    """An older success does not outweigh what came after it: nobody may pick the run that suits."""
    found = tuple(attempts)
    run_id, commit = chapter.story.versions.get("run_id"), _mapping(chapter.story.versions.get("git")).get("commit")
    mine = next((each.n for each in reversed(found) if each.run_id == run_id), 0)
    bad = [each for each in found if each.n > mine and each.honest and each.came_of != "PASS"
           and (each.drill, each.world) == (chapter.name, chapter.story.head.get("world"))
           and each.of_build(chapter.story.head, commit)]
    return f"{bad[-1].came_of} ({bad[-1].run_id})" if bad else None


def last_tries(attempts: Iterable[Attempt], drills: Collection[str], worlds: Collection[str]) -> dict[str, str]:
    """Those of these drills that somebody tried in these worlds → what came of the last attempt."""
    return {each.drill: each.came_of for each in attempts if each.honest and each.drill in drills and each.world in worlds}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
