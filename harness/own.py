"""What a stack of one's own brings along beside its nodes: status contracts and a checklist. Read and held to their form
before anything runs; laid into the run's folder under ``own/``, so that the folder can be judged and packed alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from harness import limits, texts
from harness.contracts import own
from harness.contracts.own import Contract
from harness.drill.specs import read_yaml
from harness.errors import SpecError, UsageError, hint
from harness.pack.origin import AtHand, machines_of, recorder_sha256, rules_digests, sha256_file, tree_sha256
from harness.pack.phases import OWN, OWN_CHECKLIST, Phase, drills_below, each_once, parse_phase
from harness.world import POLICY_BY_WORLD
from harness.world.stack import OwnContract, Stack, policy_sha256

NO_POLICY = "none"
"""The name of the policy of a stack that has none."""

LEFT_OUT = frozenset({"evidence", "drills", "__pycache__", "node_modules"})
"""Folders that are no part of a build, beside hidden ones and virtual environments; drills have digests of their own."""

_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_WORD = re.compile(r"[\w./@+-]+")


def contract_of(told: OwnContract) -> Contract:
    """A contract, compiled. Raises UsageError with the place of what is wrong in its files."""
    schema, rules = ((str(file), _read(file)) if file is not None else None for file in (told.schema, told.rules))
    return Contract.read(schema, rules)


def texts_of(stack: Stack) -> dict[str, bytes]:
    """Path in a run's folder → the bytes that lie there. Raises UsageError for what could not be judged by."""
    found: dict[str, bytes] = {}
    for name, told in stack.contracts.items():
        contract_of(told)
        files = {"schema": told.schema, "rules": told.rules}
        found |= {path: _read(files[part]) for part, path in own.files_of(name, files).items()}
    if stack.checklist is not None:
        try:
            if parse_phase(read_yaml(stack.checklist)).number != OWN:
                raise UsageError(f"{stack.checklist}: a checklist of one's own says `phase: own`")
        except SpecError as why:
            raise UsageError(f"{stack.checklist}: {why}" if str(stack.checklist) not in str(why) else str(why)) from why
        found[OWN_CHECKLIST] = _read(stack.checklist)
    return found


def digests(laid_out: dict[str, bytes]) -> dict[str, str]:
    """As the recording's head names them."""
    return {path: hashlib.sha256(data).hexdigest() for path, data in laid_out.items()}


def runs_machines(stack: Stack) -> bool:
    """Whether what is drilled is ``system_under_test``, and no system of one's own."""
    return any(node.machine is not None for node in stack.nodes.values())


def build_sha256(stack: Stack, root: Path, tree: str | None = None) -> str:
    """Which build is drilled. Of the checkout's own stack: its ``system_under_test``, whose digest is ``tree`` where it was
    taken before; of a stack of one's own: what it brings along, and that tree, too, where it runs machines."""
    if not runs_machines(stack):
        return system_sha256(stack)
    ours = root / "system_under_test"
    tree = tree or tree_sha256(ours)
    if stack.file.resolve().is_relative_to(ours.resolve()):
        return tree
    return hashlib.sha256(f"{tree}\0{system_sha256(stack)}".encode()).hexdigest()


def system_sha256(stack: Stack) -> str:
    """What a stack brings along: the files, folders and modules that it names, and the names of its images."""
    digest, told = hashlib.sha256(), [*_named(stack), *_modules(stack)]
    for part, place in told:
        content = "" if place is None else tree_sha256(place) if place.is_dir() else sha256_file(place)
        digest.update(f"{part}\0{content}\0".encode())
    for part, place in _meant(stack):
        if place not in (each for _, each in told):
            digest.update(f"{part}\0{_folder_sha256(place) if place.is_dir() else sha256_file(place)}\0".encode())
    return digest.hexdigest()


def drills_of(stack: Stack) -> Path:
    """Where its drills lie."""
    return stack.file.parent / "drills"


def drill_files(stack: Stack) -> list[Path]:
    """Its drills, those in subfolders, too. Raises SpecError for two of one name."""
    return each_once(drills_below(drills_of(stack)))


def named(stack: Stack, names: Sequence[str]) -> list[str]:
    """The drills that are meant: all of the system's own, or those of its own that are called so. Of a stack without any
    beside it the names are those of the checkout. Raises UsageError."""
    drills = drills_of(stack)
    if not drills.is_dir():
        return [*names] or ["phase2"]
    known = {file.stem: str(file) for file in drill_files(stack)}
    for name in names:
        if not Path(name).exists() and name not in known:
            raise UsageError(f"no drill {name!r} in {drills}; known: {', '.join(known) or 'none'}" + hint(name, known))
    return [name if Path(name).exists() else known[name] for name in names] or [str(drills)]


def policy_meant(stack: Stack, world: str, named: str | None) -> str:
    """The name of the policy in force: the one that was named, else the world's; a stack may have none at all."""
    return named or (POLICY_BY_WORLD[world] if stack.policies else NO_POLICY)


NEEDS: Mapping[str, tuple[str, str]] = {"sim": ("machine", "a `machine:`"), "local": ("command", "a `command:`"),
                                        "docker": ("image", "an `image:`")}


def unfit(stack: Stack, world: str) -> str | None:
    """Why the stack cannot run in a world at all, or None."""
    key, needs = NEEDS[world]
    lacking = [name for name, node in stack.nodes.items() if not getattr(node, key)]
    if not lacking:
        return None
    others = [other for other, (each, _) in NEEDS.items() if all(getattr(node, each) for node in stack.nodes.values())]
    return f"the world {world} needs {needs} for each node, and {', '.join(lacking)} of {stack.file} has none; " + \
        (f"--world {' or '.join(others)}" if others else "no world has what each of its nodes needs")


def at_hand(stack: Stack, root: Path) -> tuple[Phase, AtHand]:
    """Its checklist and the build that lies there now, for the gate. Raises UsageError without a checklist."""
    if stack.checklist is None:
        raise UsageError(f"{stack.file}: names no checklist, and without one there is nothing to decide; `checklist: FILE`")
    beside = texts_of(stack)
    policies = {name: policy_sha256(stack.policy(name)) for name in stack.policies or (NO_POLICY,)}
    drills = {file.stem: sha256_file(file) for file in drill_files(stack)}
    rules = {**rules_digests(root), **digests(beside)}
    system = build_sha256(stack, root)
    return parse_phase(read_yaml(stack.checklist)), AtHand(system, stack.sha256, rules, drills, policies, machines_of(stack),
                                                           recorder_sha256(root), images_at_hand(stack))


def images_at_hand(stack: Stack) -> dict[str, str | None]:
    """Node → the id of the image that its name means now; None where no engine answers, or it has no such image. The
    checkout's own image is known by the tree that it was built of."""
    if not any(node.image for node in stack.nodes.values()):
        return {}
    from harness.world.real import images  # the engine's client takes long to load, and most stacks need none

    named = {name: node.image for name, node in stack.nodes.items() if node.image not in (None, images.SYSTEM)}
    try:
        with contextlib.closing(images.connect()) as client:
            return {name: images.id_of(client, str(image)) for name, image in named.items()}
    except UsageError:      # which counts against containers alone
        return dict.fromkeys(named)


def _named(stack: Stack) -> Iterator[tuple[str, Path | None]]:
    """Every word of a command, with the file in the stack's folder that it names, if any."""
    for node in stack.nodes.values():
        for part in (*node.command, node.image or ""):
            file = stack.file.parent / part.replace("{stack}/", "")
            yield part, file if part and _lies(file) and file.is_file() else None


def _modules(stack: Stack) -> Iterator[tuple[str, Path]]:
    """The modules in the stack's folder that its nodes run, a package whole: by its name from that folder on, or, where
    the folder is part of a package itself, by the rest of it."""
    names = {name.partition(":")[0] for node in stack.nodes.values() for name in (node.machine, node.provision) if name}
    names |= {word for node in stack.nodes.values() for before, word in pairwise(node.command) if before == "-m"}
    for name in sorted(names):
        places = [stack.file.parent / f"{part}{ending}" for part in name.split(".") for ending in (".py", "")]
        found = next((each for each in places if each.is_file() or any(each.glob("*.py"))), None)
        if found is not None:
            yield name, found


def _meant(stack: Stack) -> Iterator[tuple[str, Path]]:
    """What lies in the stack's folder and is named within a word of a command: as a file, a folder, or a module whose package
    counts whole. ``app:app``, ``-mapp``, ``--app=app.py`` and the text after ``-c`` name what they run, too."""
    folder = stack.file.parent
    parts = {_PLACEHOLDER.sub(" ", part.replace("{stack}/", "")) for node in stack.nodes.values() for part in node.command}
    words = {word for part in parts for word in _WORD.findall(part)}
    words |= {word[2:] for word in words if word.startswith("-m")}
    for word in sorted(words - {""}):
        top = word.partition(".")[0]
        for place in (folder / word, *((folder / top, folder / f"{top}.py") if top else ())):
            if _lies(place) and place.resolve().is_relative_to(folder.resolve()) and place.name not in LEFT_OUT:
                yield word, place
                break


def _lies(place: Path) -> bool:
    try:
        return place.is_file() or place.is_dir()
    except OSError:  # a word that is too long for a name is none
        return False


def _folder_sha256(folder: Path) -> str:
    """One digest over a folder's files, without what runs leave behind and what was installed. Raises UsageError."""
    digest, files, size = hashlib.sha256(), 0, 0
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if each not in LEFT_OUT and not each.startswith(".")
                            and not (Path(root) / each / "pyvenv.cfg").exists())
        for file in (Path(root) / name for name in sorted(names)):
            if not file.is_file():
                continue
            files, size = files + 1, size + file.stat().st_size
            if files > limits.BUILD_FILES_MAX or size > limits.BUILD_BYTES_MAX:
                raise UsageError(f"{folder}: a command names this folder, and it holds too much for a digest; expected "
                                 f"{limits.BUILD_FILES_MAX} files and {limits.BUILD_BYTES_MAX >> 20} MiB at most")
            digest.update(f"{file.relative_to(folder)}\0{sha256_file(file)}\0".encode())
    return digest.hexdigest()


def imported(stack: Stack) -> Iterator[str]:
    """The modules that its machines are imported from, where the first part of their names lies in the stack's folder."""
    for node in stack.nodes.values():
        module = (node.machine or "").partition(":")[0]
        top = module.partition(".")[0]
        if top and ((stack.file.parent / f"{top}.py").is_file() or any((stack.file.parent / top).rglob("*.py"))):
            yield module


def _read(file: Path | None) -> bytes:
    if file is None:
        return b""
    try:
        return texts.read(file, limits.SPEC_FILE_BYTES_MAX)
    except OSError as why:
        raise UsageError(f"{file}: cannot be read: {why.strerror}") from why
