"""Which build is it: digests of the things a verdict depends on, taken from a checkout.

A recording's head names the system, the drill, the policy, the stack and the rules by digest. A gate asks the
checkout at hand for the same digests; where they differ, the evidence is about something else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.world.stack import Stack

RUN_FILES = ("drill.yaml", "stack.yaml", "policy.json", "recording.jsonl.gz", "versions.json")
"""What a run folder brings into a pack, beside its streams; the run log holds the digest of each."""
STREAMS = "streams"
"""Where its streams lie, in a run folder and in a pack."""

RULE_FOLDERS = ("specs", "fixtures/status", "fixtures/ops_status")
RECORDER = ("harness/run.py", "harness/limits.py", "harness/texts.py", "harness/policies.py", "harness/drill",
            "harness/recording", "harness/world")
"""What makes a recording: a fault that these could not apply, or a witness that they asked wrongly, shows in no digest
of the system that was drilled."""
RULE_SUFFIXES = frozenset({".json", ".yaml"})


@dataclass(frozen=True, slots=True)
class AtHand:
    """The build in the checkout, by digest."""

    system: str
    stack: str
    rules: Mapping[str, str]
    drills: Mapping[str, str]
    policies: Mapping[str, str]
    machines: Mapping[str, str]
    recorder: str
    images: Mapping[str, str | None] = field(default_factory=dict)
    """node of a stack of one's own → the id of its image, or None where no engine has it; a name does not say what is in it"""
    uncommitted: str | None = None
    """what lies in the checkout, the judge included, that no commit holds"""


def build_of(head: Mapping[str, Any]) -> dict[str, Any]:
    """What was drilled and what recorded it, by the digests in a recording's head: ``{system, recorder, stack}``. A commit says
    less, for one of a single word somewhere else makes no other build, and more than that nobody asks of an attempt."""
    stack = head.get("stack")
    return {"system": head.get("system"), "recorder": head.get("recorder"),
            "stack": stack.get("sha256") if isinstance(stack, Mapping) else None}


def sha256_file(file: Path) -> str:
    """Digest of a file's bytes, read in pieces."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def rules_digests(root: Path) -> dict[str, str]:
    """sha256 of every file that judging may read, by its path from the root."""
    files = [file for folder in RULE_FOLDERS for file in (root / folder).rglob("*")
             if file.suffix in RULE_SUFFIXES and file.is_file()]
    return {file.relative_to(root).as_posix(): sha256_file(file) for file in sorted(files)}


def recorder_sha256(root: Path) -> str:
    """One digest over the code that makes recordings. Raises OSError where a checkout does not have it."""
    digest = hashlib.sha256()
    for path in RECORDER:
        part = root / path
        digest.update(f"{path}\0{sha256_file(part) if part.suffix else tree_sha256(part)}\0".encode())
    return digest.hexdigest()


def machines_of(stack: Stack, instead: Mapping[str, str] | None = None) -> dict[str, str]:
    """What every node of a stack runs: its machine, or its command or image where it names none; ``instead`` wins."""
    own = {name: node.machine or " ".join(node.command) or node.image or "" for name, node in stack.nodes.items()}
    return {**own, **(instead or {})}


def tree_sha256(folder: Path) -> str:
    """One digest over the paths and contents of a source tree (compiled files left out)."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(f"{file.relative_to(folder)}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
