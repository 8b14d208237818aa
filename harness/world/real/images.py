"""The images of the docker world: what they are made of, whether they are those of this checkout, and how they are built.

Two images. ``drillproof-system`` is the reference system (``system_under_test/Dockerfile``), ``drillproof-toxiproxy``
the real server that `setup` found or built. Each is labelled with a digest over everything that went into it, so that
nobody drills an image of last week's code: `current` refuses what is stale, `build` makes it anew.

Builds need no network of their own: wheels are fetched on the host by pip, for the interpreter of the base image, and
kept under ``.drillproof/wheels``. The base image is the public slim Python where the engine has it or can pull it, else
the one that ``make engine`` made without pulling; DRILLPROOF_BASE names another.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker  # type: ignore[import-untyped]
from docker.errors import APIError, BuildError, DockerException, ImageNotFound  # type: ignore[import-untyped]

from harness.errors import UsageError
from harness.files import alone
from harness.world.real import setup

ROOT = setup.ROOT
KEPT = ROOT / ".drillproof"
SYSTEM, TOXIPROXY = "drillproof-system", "drillproof-toxiproxy"
PUBLIC_BASE = "python:3.11-slim-bookworm"
OWN_BASE = "drillproof-base:bookworm"
"""Made by ``make engine`` where nothing can be pulled: Debian and its Python 3.11, and nothing else."""

INPUTS, BASE_ID, FAKETIME, EXECUTABLE, VERSION = (
    f"drillproof.{each}" for each in ("inputs", "base", "faketime", "executable", "version"))
"""Labels: digest over what went in · id of the base image · where libfaketime lies, on machines that have it · digest and
release of the Toxiproxy server."""
FAKETIME_LIBRARY = "/opt/libfaketime.so.1"

REMEDY = "make image"
ENGINE_REMEDY = "make engine"
ENGINE_MIN = (20, 10)
ANSWERS_S_MAX = 120
"""A build's step may print nothing for this long on a busy machine."""

SOURCES = (("system_under_test", "*.py"), ("specs/exchange", "*.yaml"), ("specs/status", "*"))
"""Code, and the tables that machines read; what else they need comes by the environment."""
LEFT_OUT = "system_under_test/mutants/"
"""The product has no sabotages."""

TOXIPROXY_DOCKERFILE = b"""\
ARG BASE
FROM ${BASE}
COPY toxiproxy-server /usr/local/bin/toxiproxy-server
RUN toxiproxy-server -version
USER 65534:65534
EXPOSE 8474
HEALTHCHECK --interval=5s --timeout=3s --retries=3 CMD ["python3", "-c", \
"import urllib.request; urllib.request.urlopen('http://127.0.0.1:8474/version', timeout=2)"]
ENTRYPOINT ["toxiproxy-server"]
CMD ["-host=0.0.0.0", "-port=8474"]
"""

Say = Callable[[str], None]
Files = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Image:
    """One image of the engine. ``id`` is its content's digest, ``inputs`` the digest over what it was made of."""

    name: str
    id: str
    inputs: str
    labels: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """For ``versions.json``."""
        return {"name": self.name, "id": self.id, "labels": dict(self.labels)}


@dataclass(frozen=True, slots=True)
class Images:
    """The two images of a checkout."""

    system: Image
    toxiproxy: Image


def connect(answers_s_max: int = ANSWERS_S_MAX) -> docker.DockerClient:
    """A client of the engine that answers. Raises UsageError with the line that gets one."""
    try:
        client = docker.from_env(timeout=answers_s_max)
        version = client.version()["Version"]
    except (DockerException, OSError) as why:
        raise UsageError(f"no container engine answers ({_silence(why)}); this line makes one usable: {ENGINE_REMEDY}") from why
    if release(version) < ENGINE_MIN:
        raise UsageError(f"the engine is {version}; {'.'.join(map(str, ENGINE_MIN))} or newer is needed")
    return client


def _silence(why: BaseException) -> str:
    """Why nobody answers, in fewer words than the client has for it."""
    where = os.environ.get("DOCKER_HOST") or "/var/run/docker.sock"
    for said, meant in (("Permission denied", "you may not talk to {}"), ("FileNotFoundError", "there is no {}"),
                        ("refused", "nothing listens at {}"), ("timed out", "{} takes no words in time")):
        if said in str(why):
            return meant.format(where)
    return short(why)


def release(version: str) -> tuple[int, int]:
    """``20.10.24+dfsg1`` → (20, 10); what is no version is the oldest."""
    numbers = version.split(".")[:2]
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 and all(map(str.isdigit, numbers)) else (0, 0)


# ---- what is there ----------------------------------------------------------------------------------------


def current(client: docker.DockerClient) -> Images:
    """The images of this checkout. Raises UsageError with the line that builds them where one is missing or stale."""
    base = base_at_hand(client)
    found, lacking = {}, []
    for name, files in recipes().items():
        image = _look(client, name, inputs_of(files))
        if image is None:
            lacking.append(f"{name} is missing or of another build")
        elif base is not None and image.labels.get(BASE_ID) != base.id:
            lacking.append(f"{name} stands on another base image than {base.tags[0] if base.tags else base.id}")
        else:
            found[name] = image
    if lacking:
        raise UsageError(f"{'; '.join(lacking)}; this line builds what the drills need: {REMEDY}")
    return Images(found[SYSTEM], found[TOXIPROXY])


def base_at_hand(client: docker.DockerClient) -> Any | None:
    """The base image that the engine has: the named one, the public one, or ours. None when it has none."""
    named = os.environ.get("DRILLPROOF_BASE")
    for name in (named,) if named else (PUBLIC_BASE, OWN_BASE):
        try:
            return client.images.get(name)
        except ImageNotFound:
            continue
    return None


def id_of(client: docker.DockerClient, name: str) -> str | None:
    """The id of the image that a name means now, or None where there is none."""
    try:
        return str(client.images.get(name).id)
    except ImageNotFound:
        return None
    except DockerException as why:
        raise UsageError(f"the engine: image {name}: {short(why)}") from why


def recipes() -> dict[str, dict[str, bytes]]:
    """Image name → path in its build context → content, all but the wheels, which the pinned requirements decide."""
    server = setup.find()
    if server is None:
        raise UsageError(f"the docker world needs the Toxiproxy server for its image; this line gets it: {setup.explain()}")
    if (why := setup.unfit(server)) is not None:
        raise UsageError(why)
    return {SYSTEM: system_context(ROOT), TOXIPROXY: {"Dockerfile": TOXIPROXY_DOCKERFILE,
                                                      "toxiproxy-server": server.read_bytes()}}


def system_context(root: Path) -> dict[str, bytes]:
    """What goes into the system's image from a checkout: the Dockerfile, its packages by pin, the code, its tables."""
    folder = root / "system_under_test"
    files = {name: (folder / name).read_bytes() for name in ("Dockerfile", "requirements.txt")}
    for source, pattern in SOURCES:
        for file in (root / source).rglob(pattern):
            name = file.relative_to(root).as_posix()
            if file.is_file() and not name.startswith(LEFT_OUT):
                files[name] = file.read_bytes()
    return files


def inputs_of(files: Files) -> str:
    """One digest over what goes in, by name and content, and over this file, which says how."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for name in sorted(files):
        digest.update(f"{name}\0{hashlib.sha256(files[name]).hexdigest()}\0".encode())
    return digest.hexdigest()


def tag_of(name: str, inputs: str) -> str:
    """An image's name for these inputs: clones of different commits keep apart on one engine."""
    return f"{name}:{inputs[:12]}"


def _look(client: docker.DockerClient, name: str, inputs: str) -> Image | None:
    try:
        found = client.images.get(tag_of(name, inputs))
    except ImageNotFound:
        return None
    labels = dict(found.labels or {})
    return Image(tag_of(name, inputs), found.id, inputs, labels) if labels.get(INPUTS) == inputs else None


# ---- building ---------------------------------------------------------------------------------------------


def build(client: docker.DockerClient, say: Say) -> Images:
    """Build what is missing or stale, telling each step; quick when nothing is. Raises UsageError."""
    with alone(KEPT / "images.lock"):
        base = base_at_hand(client) or _pull(client, say)
        for name, files in recipes().items():
            inputs = inputs_of(files)
            image = _look(client, name, inputs)
            if image is not None and image.labels.get(BASE_ID) == base.id:
                say(f"{image.name}: is of this build")
                continue
            files |= wheels(client, base, say) if name == SYSTEM else {}
            _build(client, name, files, {INPUTS: inputs, BASE_ID: base.id, **_labels(name, files)}, base, say)
    return current(client)


def _pull(client: docker.DockerClient, say: Say) -> Any:
    name = os.environ.get("DRILLPROOF_BASE") or PUBLIC_BASE
    say(f"{name}: pulling the base image")
    try:
        return client.images.pull(name)
    except (DockerException, OSError) as why:
        raise UsageError(f"no base image: {name} cannot be pulled ({short(why)}); this line makes one without pulling: "
                         f"{ENGINE_REMEDY}") from why


def _labels(name: str, files: Files) -> dict[str, str]:
    if name == SYSTEM:
        return {FAKETIME: FAKETIME_LIBRARY} if any("libfaketime" in each for each in files) else {}
    server = setup.find()
    assert server is not None  # its recipe was read from it
    return {EXECUTABLE: hashlib.sha256(files["toxiproxy-server"]).hexdigest(), VERSION: setup.version_of(server)}


def _build(client: docker.DockerClient, name: str, files: Files, labels: Mapping[str, str], base: Any, say: Say) -> None:
    """One hermetic build: everything is in the context, and its steps have no network."""
    tag = tag_of(name, labels[INPUTS])
    say(f"{tag}: building on {base.tags[0] if base.tags else base.id}")
    try:
        lines = client.api.build(fileobj=packed(files), custom_context=True, tag=tag, rm=True, forcerm=True, decode=True,
                                 network_mode="none", labels=dict(labels), buildargs={"BASE": base.id})
        for line in lines:
            if "error" in line:
                raise UsageError(f"{tag} could not be built: {line['error'].strip()}")
            for said in line.get("stream", "").splitlines():
                if said.strip() and not said.startswith((" --->", "Removing intermediate")):
                    say(f"  {said.rstrip()}")
        client.images.get(tag).tag(name, "latest")
    except (BuildError, DockerException, OSError) as why:
        raise UsageError(f"{tag} could not be built: {short(why)}") from why


def packed(files: Files) -> io.BytesIO:
    """A build context as a tar that is the same for the same files: the engine then knows each step again."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(files[name]), 946_684_800  # the year 2000: zip cannot hold 1970
            entry.mode = 0o755 if name == "toxiproxy-server" else 0o644
            tar.addfile(entry, io.BytesIO(files[name]))
    out.seek(0)
    return out


# ---- wheels -----------------------------------------------------------------------------------------------

ASK = "import platform, sys; print('%d.%d' % sys.version_info[:2], platform.machine())"
GLIBC_TAGS = ("manylinux2014", "manylinux_2_17", "manylinux_2_28")
PIP = "pip==26.3"


def wheels(client: docker.DockerClient, base: Any, say: Say) -> dict[str, bytes]:
    """The pinned packages for the interpreter of a base image, and pip, as context files; fetched once."""
    version, machine = _interpreter(client, base)
    requirements = (ROOT / "system_under_test" / "requirements.txt").read_text()
    wanted = [PIP, *pins(requirements, machine)]
    key = hashlib.sha256("\n".join((version, machine, *wanted)).encode()).hexdigest()[:12]
    folder = KEPT / "wheels" / f"python{version}-{machine}-{key}"
    if not folder.is_dir():
        say(f"fetching {len(wanted)} wheels for Python {version} on {machine}, once")
        _download(wanted, version, machine, folder)
    return {f"wheels/{file.name}": file.read_bytes() for file in sorted(folder.glob("*.whl"))}


def pins(requirements: str, machine: str) -> list[str]:
    """The packages that a requirements file pins for a machine."""
    found = []
    for line in requirements.splitlines():
        pin, _, marker = line.partition("#")[0].partition(";")
        if pin.strip() and (not marker or f'"{machine}"' in marker):
            found.append(pin.strip())
    return found


def _interpreter(client: docker.DockerClient, base: Any) -> tuple[str, str]:
    """Version and machine of the base image's ``python3``, asked of itself."""
    try:
        said = client.containers.run(base.id, ["python3", "-c", ASK], remove=True, network_mode="none")
    except (APIError, DockerException) as why:
        raise UsageError(f"the base image {base.tags or base.id} has no python3 that runs: {short(why)}") from why
    version, machine = said.decode().split()
    if release(version) < (3, 11):
        raise UsageError(f"the base image {base.tags or base.id} has Python {version}; 3.11 or newer is needed")
    return version, machine


def _download(wanted: list[str], version: str, machine: str, folder: Path) -> None:
    partial = folder.with_name(f".{folder.name}.new")
    platforms = [part for tag in GLIBC_TAGS for part in ("--platform", f"{tag}_{machine}")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--implementation", "cp", "--python-version", version, *platforms,
               "--dest", str(partial), *wanted]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as why:
        raise UsageError(f"the wheels of the image could not be fetched: {why}") from why
    if done.returncode:
        raise UsageError(f"the wheels of the image could not be fetched: {done.stderr.strip()[-600:]}")
    partial.replace(folder)


def short(why: BaseException) -> str:
    """The first line of what went wrong."""
    return str(why).strip().splitlines()[0][:200] if str(why).strip() else type(why).__name__
