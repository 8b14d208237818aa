"""What this machine can do for drills, and how to get what is missing."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass

from harness.errors import UsageError

ENGINE_ANSWERS_S_MAX = 5
ANSWERS_S_MAX = 20
"""Any other program that is asked for its version: the first start from a cold disk is slow."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination. ``state``: ok, missing or limited; ``remedy`` is a line to type."""

    state: str
    what: str
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Everything a drill may need, in the order in which a person would mend it."""
    proxy = _toxiproxy()
    return [_python(), _go(), proxy, _libfaketime(), *_worlds(proxy), *_containers()]


def _python() -> Finding:
    state = "ok" if sys.version_info >= (3, 11) else "missing"
    return Finding(state, "python", platform.python_version(), "" if state == "ok" else "install Python 3.11 or newer")


def _go() -> Finding:
    path = shutil.which("go")
    if path is None:
        return Finding("limited", "go", "not found; only needed to build Toxiproxy")
    try:
        return Finding("ok", "go", _version([path, "version"]))
    except UsageError as why:
        return Finding("limited", "go", f"{why}; only needed to build Toxiproxy")


def _toxiproxy() -> Finding:
    from harness.world.real import setup

    path = setup.find()
    if path is None:
        return Finding("missing", "toxiproxy", "no server on PATH or in .drillproof/bin", setup.explain())
    try:
        said = _version([str(path), "-version"])
        if (why := setup.unfit(path)) is not None:
            return Finding("missing", "toxiproxy", why.partition(" This line")[0], setup.explain())
        return Finding("ok", "toxiproxy", f"{said} ({path})")
    except UsageError as why:
        return Finding("missing", "toxiproxy", str(why), setup.explain())


def _libfaketime() -> Finding:
    if importlib.util.find_spec("libfaketime") is not None:
        return Finding("ok", "libfaketime", "installed")
    if platform.machine() != "x86_64":
        return Finding("limited", "libfaketime", "its package is for x86-64 only: clock faults are refused in local")
    return Finding("missing", "libfaketime", "not installed: clock faults are refused in local",
                   f"{sys.executable} -m pip install libfaketime==3.0.1")


def _containers() -> list[Finding]:
    """The engine, its images, and the world that needs both."""
    from harness.world.real import images

    try:
        client = images.connect(ENGINE_ANSWERS_S_MAX)
    except UsageError as why:
        return [Finding("limited", "engine", _without_remedy(why), images.ENGINE_REMEDY),
                Finding("limited", "world docker", "needs an engine")]
    engine = Finding("ok", "engine", f"{client.version()['Version']} answers")
    try:
        found = images.current(client)
    except UsageError as why:
        remedy = images.REMEDY if images.base_at_hand(client) is not None else images.ENGINE_REMEDY
        return [engine, Finding("limited", "images", _without_remedy(why), remedy),
                Finding("limited", "world docker", "needs the images; `make drills WORLD=docker` builds them, too")]
    return [engine, Finding("ok", "images", f"{found.system.name}, {found.toxiproxy.name}"),
            Finding("ok", "world docker", "containers, each run in networks of its own")]


def _without_remedy(why: UsageError) -> str:
    return str(why).partition("; this line")[0]


def _worlds(proxy: Finding) -> list[Finding]:
    lacking = _local_lacks(proxy)
    return [
        Finding("ok", "world sim", "anywhere"),
        Finding("missing" if lacking else "ok", "world local", f"processes and the real Toxiproxy{lacking}"),
    ]


def _local_lacks(proxy: Finding) -> str:
    if sys.platform != "linux":
        return "; needs Linux"
    from harness.world.real import sockets

    if not sockets.available():
        return "; this kernel does not tell a connection's byte counters (sock_diag), the witness of every link fault"
    return "" if proxy.state == "ok" else "; needs the Toxiproxy server"


def _version(command: list[str]) -> str:
    """The line by which a program tells its version. Raises UsageError when it does not, with how it went."""
    try:
        answer = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                                timeout=ANSWERS_S_MAX)
    except subprocess.TimeoutExpired as why:
        raise UsageError(f"{command[0]}: did not answer within {ANSWERS_S_MAX} s") from why
    except OSError as why:
        raise UsageError(f"{command[0]}: cannot be run: {why.strerror or why}") from why
    said = (answer.stdout or answer.stderr).strip().partition("\n")[0]
    if answer.returncode:
        raise UsageError(f"{command[0]}: ended with code {answer.returncode}" + (f": {said}" if said else ""))
    if "version" not in said:
        raise UsageError(f"{command[0]}: told no version" + (f", but {said!r}" if said else ""))
    return said
