"""``drillproof floor``: ask every service for its ops status and say what state they make together.

Exit codes: 0 OK or the market is closed, 1 any other state or a document that breaks its contract, 2 nothing could be
asked. A service that does not answer in time is OFFLINE, one that answers what is no ops status is UNKNOWN.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness import console, limits, texts
from harness.contracts import source
from harness.contracts.library import REPOSITORY
from harness.contracts.ops_status import Contract
from harness.contracts.ops_status.document import kept
from harness.contracts.ops_status.floor import Floor
from harness.contracts.source import SourceError, read_url
from harness.errors import TextError, UsageError
from harness.pack.story import read_head
from harness.world.stack import load_stack

SERVICES_MAX = 64
FINE = ("OK", "MARKET_CLOSED")


def ask(urls: Mapping[str, str], timeout_ms: int, policy: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The floor's document of services by name and address, and under ``findings`` what breaks its contract in theirs."""
    floor, contract = Floor.load(REPOSITORY), Contract.load(policy=policy)
    asked = source.now()
    with ThreadPoolExecutor(max_workers=len(urls)) as pool:
        answers = dict(zip(urls, pool.map(lambda url: _answer(url, timeout_ms), urls.values()), strict=True))
    answered = source.now()
    now = answered.strftime("%Y-%m-%dT%H:%M:%SZ")
    services = [{**floor.line(name, answers[name]), "since_utc": now} for name in sorted(answers)]
    findings = {name: [str(each) for each in (*contract.check(answer), *kept(answer, asked, answered, policy))]
                for name, answer in answers.items() if answer is not None}
    return {"floor": {**floor.of(services), "last_updated_utc": now}, "services": services, "extension": floor.extension,
            "findings": {name: found for name, found in sorted(findings.items()) if found}}


def _answer(url: str, timeout_ms: int) -> bytes | None:
    try:
        return read_url(url, timeout_ms)
    except SourceError:
        return None


def exit_code(told: Mapping[str, Any]) -> int:
    return 0 if told["floor"]["state"] in FINE and not told["findings"] else 1


def show(told: Mapping[str, Any]) -> str:
    """The floor as a person reads it."""
    floor = told["floor"]
    reasons = f": {', '.join(floor['reason_codes'])}" if floor["reason_codes"] else ""
    rows = [["service", "kind", "state", "reasons", "answers"],
            *([console.plain(each["service_name"]), each["service_kind"], each["state"],
               console.plain(", ".join(each["reason_codes"])) or "-", "yes" if each["online"] else "no"]
              for each in told["services"])]
    lines = [f"Trading floor: {console.painted(floor['state'], sys.stdout)} ({floor['summary']}){reasons}", "",
             console.table(rows, sys.stdout, paint=2)]
    for name, found in told["findings"].items():
        lines += ["", f"{console.plain(name)} breaks its contract:", *(f"  {console.plain(each)}" for each in found[:10])]
    return "\n".join(lines)


# ---- whom to ask ------------------------------------------------------------------------------------------


def named(pairs: Sequence[str]) -> dict[str, str]:
    """``NAME=URL`` options; an address without a path is asked at /ops/status. Raises UsageError."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, url = pair.partition("=")
        scheme, _, rest = url.partition("://")
        if not equals or not name or scheme not in ("http", "https") or not rest:
            raise UsageError(f"--url {pair}: expected NAME=http://ADDRESS")
        if name in found:
            raise UsageError(f"--url {pair}: {name} was named before")
        found[name] = url if "/" in rest else f"{url}/ops/status"
    return found


def held(folder: Path) -> dict[str, str]:
    """The services of a stack that a run left up (``run --hold``), by where its run folder says that they listen."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: {'is no folder' if folder.exists() else 'no such folder'}")
    if read_head(folder).get("world") == "sim":
        raise UsageError(f"{folder}: a run of the world sim, where nothing listens; expected one that `run --hold` left up")
    try:
        file = folder / "versions.json"
        told: Any = texts.load_json(texts.read(file, limits.SPEC_FILE_BYTES_MAX), str(file))
        ports = told["ports"]
        stack = load_stack(folder / "stack.yaml")
        found = {surface.node: f"http://127.0.0.1:{int(ports[f'{surface.node}.{surface.port}'])}{surface.path}"
                 for surface in stack.surfaces.values() if surface.contract == "ops_status"}
    except TextError as why:
        raise UsageError(str(why)) from why
    except OSError as why:
        raise UsageError(f"{folder}: no run folder that says where its services listen: {file.name}: {why.strerror}") from why
    except (KeyError, TypeError, ValueError) as why:
        raise UsageError(f"{file}: does not say where the services listen: {type(why).__name__}: {why}") from why
    if not found:
        raise UsageError(f"{folder}: its stack has no service with an ops status")
    return found


def whom(pairs: Sequence[str], run: str | None) -> dict[str, str]:
    """Every service that the options name. Raises UsageError for none, and for too many."""
    found = {**(held(Path(run)) if run is not None else {}), **named(pairs)}
    if not 1 <= len(found) <= SERVICES_MAX:
        raise UsageError(f"found {len(found)} services, expected 1 to {SERVICES_MAX}: --url NAME=URL …, or --run FOLDER of a "
                         "stack that is held")
    return found
