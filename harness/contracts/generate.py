"""Writes every generated file of the status contract, or says which one has drifted.

    python -m harness.contracts.generate            write
    python -m harness.contracts.generate --check    compare, exit 1 when a file differs or the lock is broken
    python -m harness.contracts.generate --lock     write, and lock a contract version that is not locked yet
    python -m harness.contracts.generate --relock   lock the present version anew: only before it is published
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from harness.contracts import documents, lock
from harness.contracts.drift import drift
from harness.contracts.library import LOCK, MANIFEST, REPOSITORY, SCHEMA_EXACT, SCHEMA_MIN, read_manifest
from harness.contracts.schema import schema
from harness.errors import DrillproofError


def generated(root: Path = REPOSITORY) -> dict[str, str]:
    """Path → text of every generated file, from the manifest, the fixtures and the drills under ``root``."""
    manifest = read_manifest(root / MANIFEST)
    return {
        SCHEMA_MIN: json.dumps(schema(manifest, exact=False), indent=2) + "\n",
        SCHEMA_EXACT: json.dumps(schema(manifest, exact=True), indent=2) + "\n",
        "specs/status/OWNER_DASHBOARD_REASON_CODES.md": documents.owner_codes(manifest),
        "specs/status/STATUS_JSON_EXAMPLES.md": documents.examples(root),
        "specs/status/PHASE2_CHAOS_DRILLS.md": documents.drills(root),
    }


def drifted(root: Path = REPOSITORY) -> list[str]:
    """The generated files that differ from what is on disk."""
    return [path for path, text in generated(root).items()
            if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != text]


def write(root: Path = REPOSITORY) -> None:
    """Write every generated file."""
    for path, text in generated(root).items():
        (root / path).write_text(text, encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """The command. Exit 0 when nothing is wrong, 1 when something drifted, 2 when an input cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m harness.contracts.generate", description=__doc__.splitlines()[0])
    action = parser.add_mutually_exclusive_group()
    for name in ("--check", "--lock", "--relock"):
        action.add_argument(name, action="store_true")
    parser.add_argument("--root", type=Path, default=REPOSITORY, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    try:
        return _checked(args.root) if args.check else _written(args)
    except DrillproofError as why:
        print(why, file=sys.stderr)
        return why.code


def _checked(root: Path) -> int:
    wrong = [*(f"{path}: differs from what would be generated" for path in drifted(root)), *lock.broken(root),
             *drift(root)]
    print("\n".join(wrong) or "status contract: nothing has drifted")
    return 1 if wrong else 0


def _written(args: argparse.Namespace) -> int:
    write(args.root)
    broken = lock.broken(args.root)
    if args.relock or (args.lock and any("is not locked" in each for each in broken)):
        (args.root / LOCK).write_text(lock.written(args.root), encoding="utf-8")
        broken = []
    print("\n".join(broken) or "status contract: written")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
