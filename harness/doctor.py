"""What this machine can do for drills, and how to get what is missing."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass


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
    return [_python(), _go(), proxy, _libfaketime(), _docker(), *_worlds(proxy)]


def _python() -> Finding:
    state = "ok" if sys.version_info >= (3, 11) else "missing"
    return Finding(state, "python", platform.python_version(), "" if state == "ok" else "install Python 3.11 or newer")


def _go() -> Finding:
    path = shutil.which("go")
    if path is None:
        return Finding("limited", "go", "not found (only needed to build Toxiproxy)")
    return Finding("ok", "go", _first_line([path, "version"]))


def _toxiproxy() -> Finding:
    from harness.world.real import setup

    path = setup.find()
    if path is None:
        return Finding("missing", "toxiproxy", "no server on PATH or in .drillproof/bin", setup.explain())
    return Finding("ok", "toxiproxy", f"{_first_line([str(path), '-version'])} ({path})")


def _libfaketime() -> Finding:
    if importlib.util.find_spec("libfaketime") is None:
        return Finding("missing", "libfaketime", "not installed: clock faults are refused in local",
                       f"{sys.executable} -m pip install libfaketime==3.0.1")
    return Finding("ok", "libfaketime", "installed")


def _docker() -> Finding:
    path = shutil.which("docker")
    if path is None:
        return Finding("limited", "docker", "no client found (the docker world comes later)")
    answer = subprocess.run([path, "info", "--format", "{{.ServerVersion}}"], capture_output=True, text=True, timeout=20)
    if answer.returncode:
        return Finding("limited", "docker", "client found, but no engine answers")
    return Finding("ok", "docker", f"engine {answer.stdout.strip()}")


def _worlds(proxy: Finding) -> list[Finding]:
    linux = sys.platform == "linux"
    local = proxy.state == "ok" and linux
    reason = "" if local else " (needs Linux)" if not linux else " (needs the Toxiproxy server)"
    return [
        Finding("ok", "world sim", "anywhere"),
        Finding("ok" if local else "missing", "world local", f"processes and the real Toxiproxy{reason}"),
        Finding("limited", "world docker", "not built yet"),
    ]


def _first_line(command: list[str]) -> str:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as why:
        return f"does not answer: {why}"
    return (answer.stdout or answer.stderr).strip().splitlines()[0] if (answer.stdout or answer.stderr).strip() else "?"
