"""Chapters that the runs of this very process have told it: whoever starts a run and packs it then need not judge it twice.

A run tells its chapter of the reading that it was judged by, together with one digest over all that the chapter follows
from. It is believed for these bytes alone, and with the verdict alone that the run's own result says, by the process that
started the run, when that packs it. It lies in no file, and whoever verifies, seals, merges or decides by a pack does not ask
here: they judge everything, in the process that was told too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from harness.pack.origin import RUN_FILES, STREAMS, sha256_file

_TOLD: dict[str, str] = {}
"""digest → the chapter, as it was told; each is taken once"""


def inputs_sha256(folder: Path, rules: Mapping[str, str]) -> str:
    """One digest over the files of a run that its chapter follows from, and over the rules: path → sha256."""
    files = [file for file in (*(folder / name for name in RUN_FILES), *(folder / STREAMS).glob("*")) if file.is_file()]
    told = {**{f"rules/{path}": digest for path, digest in rules.items()},
            **{file.relative_to(folder).as_posix(): sha256_file(file) for file in files}}
    return hashlib.sha256("".join(f"{path}\0{digest}\0" for path, digest in sorted(told.items())).encode()).hexdigest()


def hear(inputs: object, chapter: object, verdict: str) -> None:
    """Remember what a run told whose result says this verdict; what is no chapter, or one of another verdict, is nothing."""
    if isinstance(inputs, str) and isinstance(chapter, str) and _verdict_of(chapter) == verdict:
        _TOLD[inputs] = chapter


class _Judgement(msgspec.Struct):
    verdict: str


class _Glance(msgspec.Struct):
    """Of a chapter what is looked at before it is remembered."""

    verdict: _Judgement


def _verdict_of(chapter: str) -> str | None:
    try:
        return msgspec.json.decode(chapter, type=_Glance).verdict.verdict
    except (ValueError, RecursionError):
        return None


def recall(inputs: str) -> str | None:
    """What was told of these inputs, once: a second pack of them is judged anew."""
    return _TOLD.pop(inputs, None)
