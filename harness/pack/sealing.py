"""``drillproof seal``: make a key, attest a pack, sign a phase off. What an act needs is loaded when it is asked for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import UsageError, hint


def add_parser(commands: Any) -> None:
    """Add ``seal key|attest|sign-off`` to the command line."""
    parser = commands.add_parser("seal", help="vouch for a pack by a signature",
                                 description="Vouch for a pack: an engineer attests it, the owner signs it off.")
    acts = parser.add_subparsers(title="acts", metavar="ACT", required=True)
    each = acts.add_parser("key", help="make a key: FILE is private, FILE.pub goes into the list of trusted keys")
    each.add_argument("file", metavar="FILE", type=Path)
    each.set_defaults(command=_key)
    each = acts.add_parser("attest", help="sign an intact pack; its first line changes from UNSIGNED to SEALED")
    each.add_argument("pack", metavar="PACK", type=Path)
    each.add_argument("--key", required=True, type=Path)
    each.set_defaults(command=_attest)
    each = acts.add_parser("sign-off", help="the owner's signature, by another key, on an attested pack")
    each.add_argument("pack", metavar="PACK", type=Path)
    each.add_argument("--key", required=True, type=Path)
    each.add_argument("--name", required=True, help="who signs")
    each.add_argument("--saw", action="append", required=True, metavar="ITEM=TEXT",
                      help="a MANUAL item and what was seen for it; once for each item that is signed")
    each.set_defaults(command=_sign_off)


def _key(args: argparse.Namespace) -> int:
    from harness.pack.seals import create_key

    sys.stdout.write(f"{create_key(args.file)}\n")
    return 0


def _attest(args: argparse.Namespace) -> int:
    from harness.pack.build import seal
    from harness.pack.derive import PACK_FILE
    from harness.pack.manifest import MANIFEST
    from harness.pack.seals import load_key

    if not any((args.pack / each).is_file() for each in (PACK_FILE, MANIFEST)):
        raise UsageError(f"{args.pack}: is not a pack")
    seal(args.pack, load_key(args.key))
    return 0


def _sign_off(args: argparse.Namespace) -> int:
    from harness.pack.runlog import now_utc
    from harness.pack.seals import load_key, sign_off

    sign_off(args.pack, load_key(args.key), args.name, answers(args.pack, args.saw), now_utc())
    return 0


def answers(pack: Path, pairs: Sequence[str]) -> dict[str, str]:
    """``ITEM=TEXT`` pairs by item. Raises UsageError for what is not a MANUAL item of the pack's phase."""
    from harness.pack.derive import PACK_FILE, RULES
    from harness.pack.phases import load_phase
    from harness.pack.story import read_json

    phase = read_json(pack / PACK_FILE).get("phase")
    if not isinstance(phase, int):
        raise UsageError(f"{pack}: is not a pack")
    known = [item.id for item in load_phase(pack / RULES, phase).items if item.kind == "MANUAL"]
    found = dict(pair.partition("=")[::2] for pair in pairs)
    for item, text in found.items():
        if item not in known:
            raise UsageError(f"{item!r} is not an item that a person signs" + hint(item, known))
        if not text.strip():
            raise UsageError(f"{item}: say what was seen, as {item}=TEXT")
    return found
