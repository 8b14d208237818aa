"""A set of drills in N shards, so that N machines run it side by side: every drill in exactly one, all about as long.

Each machine divides by itself, so the division follows from the drills' own timetables alone: the longest first, each
to the shard that has least to do by then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.drill.model import Drill
from harness.drill.text import Specs, load
from harness.errors import UsageError
from harness.selection import Choice
from harness.session import ROOT
from harness.world.stack import Stack

SHARDS_MAX = 999
STACK_MS = 8_000
"""What a stack takes to start and to stop in a real world, about: many short drills are no short shard."""

SHARD = re.compile(r"(?P<number>[1-9][0-9]{0,2})/(?P<of>[1-9][0-9]{0,2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Shard:
    """The ``number``-th of ``of`` parts, counted from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def parse_shard(text: str) -> Shard:
    """``2/4``. Raises UsageError."""
    found = SHARD.fullmatch(text.strip())
    if found is None or int(found["number"]) > int(found["of"]):
        raise UsageError(f"--shard: found {text.strip()[:40]!r}, expected K/N such as 2/4: the second of four, K from 1 to N")
    return Shard(int(found["number"]), int(found["of"]))


def length_ms(drill: Drill) -> int:
    """How long a drill takes about, by its own timetable."""
    return STACK_MS + drill.given.for_ms + drill.heal_at_ms + drill.converge.for_ms


def divided(lengths: Mapping[str, int], of: int) -> list[list[str]]:
    """The names in ``of`` shards, each in the order given. Raises UsageError where a shard would be empty."""
    if of > len(lengths):
        raise UsageError(f"--shard: {len(lengths)} drills make at most {len(lengths)} shards, not {of}")
    shards: list[list[str]] = [[] for _ in range(of)]
    loads = [0] * of
    for name in sorted(lengths, key=lambda each: (-lengths[each], each)):
        least = loads.index(min(loads))
        shards[least].append(name)
        loads[least] += lengths[name]
    order = {name: place for place, name in enumerate(lengths)}
    return [sorted(each, key=order.__getitem__) for each in shards]


def part(drills: Sequence[Drill], shard: Shard) -> list[str]:
    """The files of one shard."""
    return divided({each.file: length_ms(each) for each in drills}, shard.of)[shard.number - 1]


def narrowed(choice: Choice, text: str | None, stack: Stack, policy: str) -> tuple[Choice, str]:
    """One machine's part of a choice, and what to say of it; all of it where no shard is named. What is not meant for
    the world was left out before, on every machine alike."""
    if text is None:
        return choice, ""
    shard = parse_shard(text)
    specs = Specs.of(ROOT, stack, stack.policy(policy))
    drills = [load(file, specs) for file in choice.files]
    mine = part(drills, shard)
    return replace(choice, files=tuple(file for file in choice.files if str(file) in mine)), says(drills, shard)


def says(drills: Sequence[Drill], shard: Shard) -> str:
    """What a shard runs, in one line for people."""
    files = set(part(drills, shard))
    mine = [each for each in drills if each.file in files]
    seconds, whole = (sum(length_ms(each) for each in some) // 1000 for some in (mine, drills))
    return (f"shard {shard}: {len(mine)} of {len(drills)} drills, about {seconds} of {whole} s: "
            + ", ".join(each.name for each in mine))
