"""How the Toxiproxy server is found or built. ``local`` needs it; nothing else does."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from harness.errors import UsageError

VERSION = "2.12.0"
"""The release whose toxics were measured (tests/world_real/test_real_effects.py holds what we rely on)."""

MODULE = f"github.com/Shopify/toxiproxy/v2/cmd/server@v{VERSION}"
LDFLAGS = f"-X github.com/Shopify/toxiproxy/v2.Version={VERSION}"
EXECUTABLE = "toxiproxy-server"
ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / ".drillproof" / "bin"
BUILD_S_MAX = 600
"""A first build downloads its modules."""


def find() -> Path | None:
    """The server: the one that DRILLPROOF_TOXIPROXY names, else the one that our set-up built, else the one on PATH.

    Ours comes before that, because its version is the measured one. None when there is none.
    """
    if named := os.environ.get("DRILLPROOF_TOXIPROXY"):
        return Path(named) if os.access(named, os.X_OK) else None
    built = FOLDER / EXECUTABLE
    if os.access(built, os.X_OK):
        return built
    found = shutil.which(EXECUTABLE)
    return Path(found) if found else None


def build() -> Path:
    """Build the server into ``.drillproof/bin``. Raises UsageError with the line that would do it by hand."""
    go = shutil.which("go")
    if go is None:
        raise UsageError(f"no Toxiproxy server and no Go to build one; with Go 1.23 or newer on PATH: {explain()}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    # `go install` names the executable after its folder, which is "server". Without cgo it needs nothing of this machine,
    # and runs in any image.
    environment = {**os.environ, "GOBIN": str(FOLDER), "CGO_ENABLED": "0"}
    try:
        done = subprocess.run([go, "install", "-ldflags", LDFLAGS, MODULE], env=environment, capture_output=True,
                              text=True, timeout=BUILD_S_MAX)
    except (OSError, subprocess.TimeoutExpired) as why:
        raise UsageError(f"Toxiproxy could not be built ({why}); by hand: {explain()}") from why
    if done.returncode:
        raise UsageError(f"Toxiproxy could not be built:\n{done.stderr.strip()}\nby hand: {explain()}")
    (FOLDER / "server").replace(FOLDER / EXECUTABLE)
    return FOLDER / EXECUTABLE


def explain() -> str:
    """The exact line that installs the server where ``find`` looks for it."""
    folder = FOLDER.relative_to(ROOT)
    return (f"mkdir -p {folder} && CGO_ENABLED=0 GOBIN=$PWD/{folder} go install -ldflags '{LDFLAGS}' {MODULE} "
            f"&& mv {folder}/server {folder}/{EXECUTABLE}")


@cache
def version_of(executable: Path) -> str:
    """What the executable says of itself, e.g. ``2.12.0`` (``git`` when it was built without ldflags)."""
    try:
        said = subprocess.run([executable, "-version"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired) as why:
        raise UsageError(f"{executable}: does not run as a Toxiproxy server: {why}") from why
    return said.strip().rpartition(" ")[2]


def unfit(executable: Path) -> str | None:
    """Why this server cannot be used: its toxics are not those that were measured; None when it is fit."""
    version = version_of(executable)
    if version.split(".")[:2] == VERSION.split(".")[:2]:
        return None
    return (f"{executable} says that it is Toxiproxy {version}; what its toxics do was measured with {VERSION}. "
            f"This line installs that:\n  {explain()}")


@cache
def sha256_of(executable: Path) -> str:
    """Digest of the executable: which server it was, beyond its own word."""
    with executable.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
