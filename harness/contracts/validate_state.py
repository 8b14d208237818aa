"""``drillproof validate state DIR``: do these state files keep the v7.6 State Contract, each and all together?

Exit codes as of every validator: 0 lawful, 1 a breach (with ``--strict`` a deviation, too), 2 set-up. Findings go to
standard error, one a line, ``[TAG] file#/path: message``; with ``--json`` one object goes to standard output.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contracts.library import REPOSITORY
from harness.contracts.reading import printable
from harness.errors import DrillproofError

if TYPE_CHECKING:
    from harness.contracts.state_files import Finding

LAWFUL, UNLAWFUL, SET_UP = 0, 1, 2


def add_parser(surfaces: Any) -> None:
    """Add ``state`` to the surfaces of ``validate``."""
    state = surfaces.add_parser("state", help="a folder of state files, v7.6 State Contract")
    state.add_argument("folder", metavar="DIR", help="the folder that the files lie in, such as logs/state")
    state.add_argument("--manifest", metavar="F", help="another manifest (default: specs/state/v7_manifest.json)")
    state.add_argument("--policy", metavar="F", help="the policy in force: limits (default: the source's)")
    state.add_argument("--strict", action="store_true", help="what the contract tolerates counts, too")
    state.add_argument("--json", action="store_true", help="print every finding as JSON")
    state.add_argument("--quiet", action="store_true", help="no output, the exit code only")
    state.set_defaults(command=main)


def main(args: argparse.Namespace) -> int:
    """Validate a folder. Never raises for what it holds."""
    from harness.contracts.state_files import read_surfaces
    from harness.contracts.state_files.folder import judge_folder
    from harness.contracts.state_files.manifest import Manifest
    from harness.contracts.state_files.surfaces import MANIFEST
    from harness.policies import policy_to_judge_by

    try:
        surfaces = read_surfaces()
        manifest = Manifest.read(Path(args.manifest or REPOSITORY / MANIFEST), surfaces.folder)
        policy = policy_to_judge_by(Path(args.policy), surfaces.limits().keys()) if args.policy else None
        findings = judge_folder(Path(args.folder), surfaces, manifest, policy)
    except DrillproofError as why:
        return _set_up(args, " ".join(str(why).split()))
    except ValueError as why:  # a path with a character that no file system takes
        return _set_up(args, f"{args.folder!r}: {why}")
    counts = [each for each in findings if args.strict or each.severity == "breach"]
    _print(args, findings, UNLAWFUL if counts else LAWFUL)
    return UNLAWFUL if counts else LAWFUL


def _set_up(args: argparse.Namespace, why: str) -> int:
    if not args.quiet:
        print(printable(f"SETUP ERROR: {why}"), file=sys.stderr)
    return SET_UP


def _print(args: argparse.Namespace, findings: list[Finding], code: int) -> None:
    if args.quiet:
        return
    if args.json:
        print(json.dumps({"folder": args.folder, "lawful": code == LAWFUL, "findings": [
            {"tag": each.tag, "severity": each.severity, "file": each.file, "path": each.path, "message": each.message}
            for each in findings]}, indent=2))
        return
    breaches = sum(each.severity == "breach" for each in findings)
    said = f"{breaches} breach{'es' if breaches != 1 else ''}, {len(findings) - breaches} tolerated"
    lines = [f"VALIDATION {'OK' if code == LAWFUL else 'FAILED'}: {args.folder}", *([f"{said}:"] if findings else []),
             *(f"- {each}" for each in findings)]
    print("\n".join(map(printable, lines)), file=sys.stderr if code else sys.stdout)
