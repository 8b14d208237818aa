"""A container engine for the docker world, and what runs in it: ``make engine``, ``make image``.

    python -m harness.engine            an engine that answers, a base image, the two images; each only where it is missing
    python -m harness.engine images     the two images alone
    python -m harness.engine secrets    what system_under_test/compose.yaml needs to be told, with new secrets, on stdout

``engine`` is for bare Debian-like machines and is never called by tests: it installs packages and starts a daemon. It says
what it does before it does it. Where an engine answers already, it touches nothing of it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from docker import DockerClient  # type: ignore[import-untyped]
from docker.errors import DockerException  # type: ignore[import-untyped]

from harness.errors import DrillproofError, UsageError
from harness.recording.tape import canonical
from harness.world.real import images, setup
from harness.world.stack import load_stack

LOG = images.KEPT / "dockerd.log"
SUITE = "bookworm"
PACKAGES = {"dockerd": ("docker.io",), "debootstrap": ("debootstrap", "debian-archive-keyring")}
"""What a missing command is installed from, on Debian and Ubuntu."""
STARTS_S_MAX = 60
LAST_WORDS = 8
STAGES = ("I: Resolving", "I: Installing core", "I: Unpacking the base", "I: Configuring the base", "I: Base", "W:", "E:")
"""Of debootstrap's hundreds of lines, those that tell how far it is."""
UNNEEDED = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "dev")
"""What no container of ours reads, left out of the base image."""
LOOK_AROUND = ("CLIENT_SECRET", "EMERGENCY_TOKEN", "WATCHDOG_TOKEN")


def say(line: str) -> None:
    """Progress, at once."""
    print(line, flush=True)


def ready() -> images.Images:
    """Engine, base image, images; each is made only where it is missing. Raises UsageError with what to do instead."""
    client = _engine()
    say(f"engine: {client.version()['Version']} answers")
    if images.base_at_hand(client) is None:
        _base(client)
    if setup.find() is None:
        say("building the Toxiproxy server, once")
        setup.build()
    return images.build(client, say)


# ---- an engine that answers -------------------------------------------------------------------------------


def _engine() -> DockerClient:
    """A client of the engine, which is installed and started where none answers."""
    try:
        return images.connect()
    except UsageError as why:
        if os.environ.get("DOCKER_HOST"):
            raise UsageError(f"{str(why).partition('; this')[0]}: start that engine, or unset DOCKER_HOST") from why
        if "may not talk" in str(why):
            raise UsageError("an engine is there, and you may not talk to it; this line lets you, after a new login: "
                             "sudo usermod -aG docker $USER") from why
    if sys.platform != "linux":
        raise UsageError("no engine answers: start Docker Desktop, then call this again")
    _install("dockerd")
    try:
        return images.connect()  # a package's service may have started with it
    except UsageError:
        return _start()


def _start() -> DockerClient:
    """Start the engine, by the machine's own service manager or by hand, and wait until it answers."""
    if _has_systemd():
        _do("start the engine", ["systemctl", "start", "docker"])
        return images.connect()
    images.KEPT.mkdir(exist_ok=True)
    say(f"starting dockerd by hand; its log: {LOG.relative_to(images.ROOT)}")
    with LOG.open("ab") as log:
        process = subprocess.Popen([*_privileged("start the engine"), "dockerd"], stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=log, cwd="/", start_new_session=True)
    deadline = time.monotonic() + STARTS_S_MAX
    while process.poll() is None and time.monotonic() < deadline:
        try:
            return images.connect()
        except UsageError:
            time.sleep(0.2)
    raise UsageError(f"dockerd does not answer; the end of {LOG}:\n{_end_of(LOG)}")


def _has_systemd() -> bool:
    return Path("/run/systemd/system").is_dir()


def _is_there(command: str) -> bool:
    """On PATH, or where a person's PATH does not lead."""
    return shutil.which(command) is not None or Path("/usr/sbin", command).exists()


def _end_of(file: Path) -> str:
    return "\n".join(file.read_text(errors="replace").splitlines()[-LAST_WORDS:])


def _install(command: str) -> None:
    """Install what brings a command, by apt, where the command is missing."""
    if _is_there(command):
        return
    names = PACKAGES[command]
    if shutil.which("apt-get") is None:
        raise UsageError(f"{command} is missing and this machine has no apt-get: install {' and '.join(names)} by the means of "
                         f"your system (any engine from {'.'.join(map(str, images.ENGINE_MIN))} on), start it, call this again")
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    _do(f"install {' '.join(names)}", [*quiet, "update"])
    _do(f"install {' '.join(names)}", [*quiet, "install", "--yes", "--no-install-recommends", *names])


def _privileged(what: str) -> list[str]:
    """What goes before a command that only root may give: nothing for root, sudo where it asks for no password."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0:
        return ["sudo", "-n"]
    raise UsageError(f"only root may {what}: call `sudo make engine`; or do without: start an engine that you may talk to, and "
                     "name an image of it that has Python 3.11 and glibc: make image DRILLPROOF_BASE=NAME")


def _do(what: str, command: Sequence[str]) -> None:
    """Give a command that only root may give, aloud. Raises UsageError with its last words."""
    command = [*_privileged(what), *command]
    say(f"{what}: {' '.join(command)}")
    last: deque[str] = deque(maxlen=LAST_WORDS)
    try:
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace") as process:
            assert process.stdout is not None
            for line in process.stdout:
                last.append(line)
                if line.startswith(STAGES):
                    say(f"  {line.strip()}")
    except OSError as why:
        raise UsageError(f"could not {what}: {why}") from why
    if process.returncode:
        raise UsageError(f"could not {what}:\n{''.join(last).strip()}")


# ---- a base image -----------------------------------------------------------------------------------------


def _base(client: DockerClient) -> None:
    """The public base image where it can be pulled; else Debian's own packages, put together here."""
    try:
        say(f"base image: pulling {images.PUBLIC_BASE}")
        client.images.pull(images.PUBLIC_BASE)
        return
    except (DockerException, OSError) as why:
        say(f"base image: cannot be pulled; made from Debian's packages instead, once ({images.short(why)})")
    _install("debootstrap")
    folder = images.KEPT / "base.new"
    try:
        _do("unpack a base system", ["rm", "-rf", "--one-file-system", str(folder)])
        _do("unpack a base system", ["debootstrap", "--variant=minbase", "--include=python3", SUITE, str(folder)])
        _import(client, folder)
    finally:
        _do("clear away what is imported", ["rm", "-rf", "--one-file-system", str(folder)])


def _import(client: DockerClient, folder: Path) -> None:
    """A folder as the base image: sorted and with one time, so that it depends on its packages alone."""
    name, _, tag = images.OWN_BASE.partition(":")
    command = [*_privileged("read the base system"), "tar", "--directory", str(folder), "--create", "--sort=name",
               "--mtime=2000-01-01", "--numeric-owner", *(f"--exclude=./{each}/*" for each in UNNEEDED), "."]
    say(f"base image: importing {images.OWN_BASE}")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as packing:
        assert packing.stdout is not None
        _told(client, packing.stdout, name, tag)
    if packing.returncode:
        raise UsageError(f"the base image could not be packed: tar ended with {packing.returncode}")
    say(f"base image: {images.OWN_BASE}, {client.images.get(images.OWN_BASE).attrs['Size'] // 1_000_000} MB")


def _told(client: DockerClient, stream: IO[bytes], name: str, tag: str) -> None:
    said = client.api.import_image_from_stream(stream, repository=name, tag=tag)
    if "errorDetail" in said:
        raise UsageError(f"the base image could not be imported: {said[-300:]}")


# ---- to look around ---------------------------------------------------------------------------------------


def compose_environment(stack: Path) -> str:
    """What ``compose.yaml`` is told, as an environment file: new secrets, the reference policy, the project's name."""
    policy = canonical(load_stack(stack).policy("reference")).decode()
    fresh = {name: secrets.token_hex(16) for name in LOOK_AROUND}
    told = {"COMPOSE_PROJECT_NAME": "drillproof-look", **fresh, "POLICY": f"'{policy}'"}
    return "".join(f"{name}={value}\n" for name, value in told.items())


def main(arguments: Sequence[str]) -> int:
    """0 done, 2 with what is missing and the line that mends it."""
    try:
        match list(arguments):
            case []:
                ready()
            case ["images"]:
                images.build(images.connect(), say)
            case ["secrets"]:
                sys.stdout.write(compose_environment(images.ROOT / "system_under_test" / "stack.yaml"))
            case _:
                raise UsageError("usage: python -m harness.engine [images | secrets]")
    except DrillproofError as why:
        print(f"{why}", file=sys.stderr)
        return why.code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
