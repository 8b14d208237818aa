"""Chapters that the runs of this very process have told it: whoever starts a run and packs it then need not judge it twice.

A run tells its chapter of the reading that it was judged by, together with one digest over all that the chapter follows
from. It is believed for these bytes alone, by the process that started the run, as that run's own verdict is; it lies in no
file, so whoever verifies a pack, or decides by it, was told nothing and judges everything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from harness.pack.origin import RUN_FILES, STREAMS, sha256_file

_TOLD: dict[str, str] = {}
"""digest → the chapter, as it was told; each is taken once"""


def inputs_sha256(folder: Path, rules: Mapping[str, str]) -> str:
    """One digest over the files of a run that its chapter follows from, and over the rules: path → sha256."""
    files = [file for file in (*(folder / name for name in RUN_FILES), *(folder / STREAMS).glob("*")) if file.is_file()]
    told = {**{f"rules/{path}": digest for path, digest in rules.items()},
            **{file.relative_to(folder).as_posix(): sha256_file(file) for file in files}}
    return hashlib.sha256("".join(f"{path}\0{digest}\0" for path, digest in sorted(told.items())).encode()).hexdigest()


def hear(inputs: str, chapter: str) -> None:
    """Remember what a run told."""
    _TOLD[inputs] = chapter


def recall(inputs: str) -> str | None:
    """What was told of these inputs, once: a second pack of them is judged anew."""
    return _TOLD.pop(inputs, None)
