"""What the README counts is what the folders hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.drill.text import worlds_of
from harness.pack.phases import drills_of

REPOSITORY = Path(__file__).resolve().parents[2]

ONES = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
        "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def in_words(count: int) -> str:
    """``twenty-one``; below a hundred."""
    if count < len(ONES):
        return ONES[count]
    tens, ones = divmod(count, 10)
    return TENS[tens - 2] + f"-{ONES[ones]}" * bool(ones)


@pytest.mark.parametrize(("count", "words"), [(0, "no"), (19, "nineteen"), (20, "twenty"), (56, "fifty-six")])
def test_numbers_in_words(count: int, words: str) -> None:
    """As a sentence has them."""
    assert in_words(count) == words


def test_the_readme_counts_the_drills_that_there_are() -> None:
    """Of each set, and of each world: one who adds a drill and forgets the page is told here."""
    files = drills_of(REPOSITORY, 2)
    local, docker = (sum(1 for file in files if not (worlds := worlds_of(file)) or world in worlds)
                     for world in ("local", "docker"))
    phase2, ops, state = (in_words(sum(1 for file in files if file.parent.name == name)) for name in ("phase2", "ops", "state"))
    readme = " ".join((REPOSITORY / "README.md").read_text().split())
    for words in (f"make drills # {in_words(local)} drills against", f"and {in_words(docker - local)} drills more",
                  f"## The {phase2} drills of Phase 2", f"## {ops.capitalize()} ops drills, {state} state drills"):
        assert words in readme
