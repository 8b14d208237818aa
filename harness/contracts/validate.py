"""``drillproof validate status`` and ``… ops-status``: is this document lawful?

Exit codes as in the source: 0 lawful, 1 any finding, 2 set-up (arguments, files, endpoint). Findings go to standard
error, one a line, ``[TAG] path: message``; ``VALIDATION OK: <source>`` to standard output.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from harness import limits, texts
from harness.contracts import validate_state
from harness.contracts.library import MANIFEST, REPOSITORY, SCHEMA_MIN, read_json, read_manifest
from harness.contracts.reading import Unreadable, printable, read_object
from harness.errors import DrillproofError, SpecError, UsageError
from harness.policies import policy_to_judge_by

LAWFUL, UNLAWFUL, SET_UP = 0, 1, 2
TIMEOUT_S = 5.0
TIMEOUT_S_MAX = 600.0


def _minus(text: str) -> str:
    if text != "-":
        raise argparse.ArgumentTypeError(f"to read a file, name it: --file {text}")
    return text


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add ``validate`` to the command's sub-commands."""
    validate: argparse.ArgumentParser = subparsers.add_parser("validate", help="check one document against its contract")
    surfaces = validate.add_subparsers(dest="surface", required=True, metavar="SURFACE")
    status = surfaces.add_parser("status", help="GET /api/v1/status, contract 5.2")
    status.add_argument("stdin", nargs="?", type=_minus, metavar="-", help="read the document from standard input")
    status.add_argument("--file", metavar="F", help="read the document from a file")
    status.add_argument("--url", metavar="U", help="read the document from an endpoint")
    status.add_argument("--schema", metavar="F", help=f"another JSON Schema (default: {SCHEMA_MIN})")
    status.add_argument("--manifest", metavar="F", help=f"another manifest (default: {MANIFEST})")
    status.add_argument("--policy", metavar="F", help="the policy in force: thresholds and dwells (default: reference)")
    status.add_argument("--strict", action="store_true", help="no key that the schema does not know")
    status.add_argument("--quiet", action="store_true", help="no output, the exit code only")
    status.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="S", help="seconds for --url (default: 5)")
    status.set_defaults(command=main)
    ops = surfaces.add_parser("ops-status", help="GET /ops/status of a service, or GET /ops/floor")
    ops.add_argument("stdin", nargs="?", type=_minus, metavar="-", help="read the document from standard input")
    ops.add_argument("--file", metavar="F", help="read the document from a file")
    ops.add_argument("--url", metavar="U", help="read the document from an endpoint")
    ops.add_argument("--floor", action="store_true", help="it is the floor's document, not a service's")
    ops.add_argument("--policy", metavar="F", help="the policy in force: its thresholds must be the document's")
    ops.add_argument("--calendar", metavar="NAME", help="the market's, for a document that names none: nyse, …")
    ops.add_argument("--strict", action="store_true", help="no key that the schema does not know, time stamps as in the source")
    ops.add_argument("--quiet", action="store_true", help="no output, the exit code only")
    ops.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="S", help="seconds for --url (default: 5)")
    ops.set_defaults(command=ops_main)
    own = surfaces.add_parser("own", help="a document of your own system, against your own schema and rules")
    own.add_argument("stdin", nargs="?", type=_minus, metavar="-", help="read the document from standard input")
    own.add_argument("--file", metavar="F", nargs="+", help="read the document from a file; several are taken one after "
                     "another, so that what must never fall is asked, too")
    own.add_argument("--url", metavar="U", help="read the document from an endpoint")
    own.add_argument("--schema", metavar="F", help="the JSON Schema")
    own.add_argument("--rules", metavar="F", help="the rules file")
    own.add_argument("--quiet", action="store_true", help="no output, the exit code only")
    own.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="S", help="seconds for --url (default: 5)")
    own.set_defaults(command=own_main)
    validate_state.add_parser(surfaces)
    return validate


def own_main(args: argparse.Namespace) -> int:
    """Validate documents by a contract of one's own. Never raises for what they hold."""
    from harness.contracts.own import Contract

    try:
        if args.schema is None and args.rules is None:
            raise UsageError("name the schema, the rules, or both: --schema F --rules F")
        contract = Contract.read(_named(args.schema), _named(args.rules))
        files = args.file or [None]
        told = [_source(argparse.Namespace(**{**vars(args), "file": each})) for each in files]
        documents = [(name, read()) for name, read in told]
    except DrillproofError as why:
        return _told(args, SET_UP, f"SETUP ERROR: {' '.join(str(why).split())}")
    findings, before = [], None
    for name, data in documents:
        found = [*contract.check(data)]
        document = _object(data)
        if before is not None and document is not None:
            found += contract.falls(before, document)
        before = document
        findings += [f"- {name}: {each}" for each in found]
    if findings:
        count = f"{len(findings)} finding{'s' if len(findings) != 1 else ''}:"
        return _told(args, UNLAWFUL, f"VALIDATION FAILED: {', '.join(name for name, _ in documents)}", count, *findings)
    alone = f" (one document says nothing about {', '.join(contract.monotone)}, which must never fall)" \
        if contract.monotone and len(documents) == 1 else ""
    return _told(args, LAWFUL, f"VALIDATION OK: {', '.join(name for name, _ in documents)}{alone}")


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        return read_object(data)
    except Unreadable:  # which is a finding already
        return None


def _named(file: str | None) -> tuple[str, bytes] | None:
    """A file's name and bytes. Raises UsageError."""
    if file is None:
        return None
    try:
        return file, texts.read(Path(file), limits.SPEC_FILE_BYTES_MAX)
    except OSError as why:
        raise UsageError(f"{file}: cannot be read: {why.strerror}") from why


def main(args: argparse.Namespace) -> int:
    """Validate what the arguments name. Never raises for what the document holds."""
    from harness.contracts.csp_status import Contract

    return _validated(args, lambda: Contract(
        read_manifest(Path(args.manifest or REPOSITORY / MANIFEST)), _schema(args.schema), _policy(args)))


def ops_main(args: argparse.Namespace) -> int:
    """Validate a service's document, or the floor's. Never raises for what it holds."""
    from harness.contracts import source
    from harness.contracts.ops_status import Contract
    from harness.contracts.ops_status.document import kept

    asked = source.now()
    return _validated(args, lambda: Contract.load(policy=_policy(args), part="floor" if args.floor else None,
                                                  calendar=args.calendar),
                      lambda data: kept(data, asked, source.now(), _policy(args)) if args.url is not None else ())


def _policy(args: argparse.Namespace) -> Mapping[str, Any] | None:
    return policy_to_judge_by(Path(args.policy)) if args.policy else None


def _validated(args: argparse.Namespace, contract: Callable[[], Any],
               besides: Callable[[bytes], Iterable[Any]] = lambda data: ()) -> int:
    try:
        source, read = _source(args)
        data = read()
        findings = [*contract().check(data, strict=args.strict), *besides(data)]
    except DrillproofError as why:
        return _told(args, SET_UP, f"SETUP ERROR: {' '.join(str(why).split())}")
    if findings:
        count = f"{len(findings)} finding{'s' if len(findings) != 1 else ''}:"
        return _told(args, UNLAWFUL, f"VALIDATION FAILED: {source}", count, *(f"- {each}" for each in findings))
    return _told(args, LAWFUL, f"VALIDATION OK: {source}")


def _told(args: argparse.Namespace, code: int, *lines: str) -> int:
    """Print the lines, whatever characters they hold, one line each; returns the exit code."""
    if not args.quiet:
        print("\n".join(map(printable, lines)), file=sys.stderr if code else sys.stdout)
    return code


def _source(args: argparse.Namespace) -> tuple[str, Callable[[], bytes]]:
    """What to read, by its name in messages. Exactly one of ``--file``, ``--url`` and ``-``."""
    from harness.contracts.source import read_file, read_stdin, read_url

    if sum(each is not None for each in (args.file, args.url, args.stdin)) != 1:
        raise UsageError("name exactly one of --file F, --url U and -")
    if args.file is not None:
        return args.file, lambda: read_file(args.file)
    if args.stdin is not None:
        return "standard input", read_stdin
    if not 0 < args.timeout <= TIMEOUT_S_MAX:
        raise UsageError(f"--timeout {args.timeout}: expected seconds above 0 and up to {TIMEOUT_S_MAX:g}")
    return args.url, lambda: read_url(args.url, max(1, round(args.timeout * 1000)))


def _schema(file: str | None) -> dict[str, Any] | bool:
    schema = read_json(Path(file) if file else REPOSITORY / SCHEMA_MIN)
    if not isinstance(schema, dict | bool):
        raise SpecError(f"{file}: a JSON Schema is an object or a boolean")
    return schema


def _command(argv: list[str] | None = None) -> int:
    """``python -m harness.contracts.validate status …`` and its like: the same command without the rest of the toolkit."""
    whole = argparse.ArgumentParser(prog="drillproof")
    add_parser(whole.add_subparsers())
    args = whole.parse_args(["validate", *(sys.argv[1:] if argv is None else argv)])
    code: int = args.command(args)
    return code


if __name__ == "__main__":
    sys.exit(_command())
