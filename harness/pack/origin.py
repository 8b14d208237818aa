"""Which build is it: digests of the things a verdict depends on, taken from a checkout.

A recording's head names the system, the drill, the policy, the stack and the rules by digest. A gate asks the
checkout at hand for the same digests; where they differ, the evidence is about something else.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

RULE_FOLDERS = ("specs", "fixtures/status")
RULE_SUFFIXES = frozenset({".json", ".yaml"})


def sha256_file(file: Path) -> str:
    """Digest of a file's bytes, read in pieces."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def rules_digests(root: Path) -> dict[str, str]:
    """sha256 of every file that judging may read, by its path from the root."""
    files = [file for folder in RULE_FOLDERS for file in (root / folder).rglob("*")
             if file.suffix in RULE_SUFFIXES and file.is_file()]
    return {file.relative_to(root).as_posix(): sha256_file(file) for file in sorted(files)}


def tree_sha256(folder: Path) -> str:
    """One digest over the paths and contents of a source tree (compiled files left out)."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(f"{file.relative_to(folder)}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
