"""One node of a stack in the foreground, by hand: to look at it, or to point an ordinary client at it.

Nothing here breaks anything and nothing is recorded; the node runs as drills run it, by the command of its
``stack.yaml``, and so do the nodes that only attend it (the trader's watchdog). Everything listens on loopback unless
told otherwise. Secrets are made once and kept in a file that only its owner can read, so that a trader started in one
terminal knows the exchange started in another; an environment variable of a secret's name comes before the file.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from harness import console
from harness.errors import UsageError, hint
from harness.session import PR_SET_PDEATHSIG, ROOT
from harness.world.stack import Link, Node, Stack, load_stack

PORTS_BY_HAND = {"api": 8090, "control": 8091, "control_plane": 8080}
"""Where ports listen when a person starts a node: 8080 is the control plane's default (DESIGN, section 9)."""

POLICY_BY_HAND = "reference"
"""What ``validate status`` compares with unless told otherwise."""

FOLDER = Path(os.environ.get("DRILLPROOF_BY_HAND", ROOT / ".drillproof" / "by-hand"))
"""Data folders and secrets of nodes that were started by hand."""

PROVISION_S_MAX = 30
ENDING_S_MAX = 10
"""A node that was asked to end and has not by now is killed."""


class Ended(BaseException):
    """A person or a supervisor ended it."""


def serve(name: str, stack_file: Path, policy: str, listens: Sequence[str], urls: Sequence[str], data: Path) -> int:
    """Run the node until Ctrl-C or SIGTERM: 0 when it was ended so, else its own exit code. Raises UsageError."""
    stack = load_stack(stack_file)
    if name not in stack.nodes:
        raise UsageError(f"{stack_file}: no node {name!r}{hint(name, stack.nodes)}")
    node = stack.nodes[name]
    listening = _listening(node, _pairs(listens, node.ports, "PORT", "--listen"))
    dialling = _pairs(urls, [each.name for each in _links_from(stack, node)], "LINK", "--url")
    policy_text = orjson.dumps(stack.policy(policy)).decode()
    values = _secrets(stack)
    started: list[subprocess.Popen[bytes]] = []
    _signals_raise()
    try:
        for each in (node, *_attendants(stack, node)):
            folder = data if each is node else data / each.name
            environment = _common(each, folder) | _filled(each, values, policy_text) | _addresses(
                stack, each, {f"{name}.{port}": address for port, address in listening.items()}, dialling)
            _provision(each, environment)
            started.append(_start(each, environment))
        _tell(stack, node, listening, data)
        return started[0].wait()
    except Ended:
        return 0
    finally:
        _end(started)


# ---- what it is told --------------------------------------------------------------------------------------


def _links_from(stack: Stack, node: Node) -> list[Link]:
    return [each for each in stack.links.values() if each.client == node.name]


def _attendants(stack: Stack, node: Node) -> list[Node]:
    """Nodes that exist for this one alone: nothing dials them, and they dial nothing else."""
    return [each for each in stack.nodes.values()
            if not each.ports and {link.server for link in _links_from(stack, each)} == {node.name}]


def _pairs(given: Sequence[str], known: Mapping[str, object] | Sequence[str], kind: str, option: str) -> dict[str, str]:
    """``KEY=HOST:N`` options as a mapping. Raises UsageError for an unknown key and for what is no address."""
    pairs = {}
    for each in given:
        key, _, address = each.partition("=")
        host, _, number = address.rpartition(":")
        if key not in known or not host or not (number.isascii() and number.isdigit() and int(number) < 65_536):
            raise UsageError(f"{option}: found {each!r}, expected {kind}=HOST:N with one of: {', '.join(known) or 'none'}")
        pairs[key] = address
    return pairs


def _listening(node: Node, given: Mapping[str, str]) -> dict[str, str]:
    """Port name to ``host:number``; every one is free now. Raises UsageError when one is not."""
    found = {}
    for port in node.ports:
        address = given.get(port, f"127.0.0.1:{PORTS_BY_HAND.get(port, 0)}")
        host, _, number = address.rpartition(":")
        try:
            with socket.create_server((host.strip("[]"), int(number)), family=_family(host)) as server:
                found[port] = f"{host}:{server.getsockname()[1]}"
        except OSError as why:
            raise UsageError(f"{node.name} cannot listen on {address}: {os.strerror(why.errno) if why.errno else why}; "
                             f"choose another by --listen {port}=HOST:N") from why
    return found


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _addresses(stack: Stack, node: Node, listening: Mapping[str, str], dialling: Mapping[str, str]) -> dict[str, str]:
    """Where the node listens and what its links lead to, under the names that its stack file gives them."""
    links = {}
    for link in _links_from(stack, node):
        target = f"{link.server}.{link.port}"
        address = dialling.get(link.name) or listening.get(target)
        if address is None and link.port not in PORTS_BY_HAND:
            raise UsageError(f"{node.name}: where is {target}? Say so by --url {link.name}=HOST:N")
        links[link.env] = link.url.format(address=address or f"127.0.0.1:{PORTS_BY_HAND[link.port]}")
    ports = {port.env: listening[f"{node.name}.{port.name}"] for port in node.ports.values()}
    return {**ports, **links}


def _common(node: Node, data: Path) -> dict[str, str]:
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as why:
        raise UsageError(f"{node.name}: the data folder {data} cannot be made: {why.strerror}") from why
    return {**{key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ},
            "PYTHONPATH": str(ROOT), "NODE_NAME": node.name, "NODE_MACHINE": node.machine or "", "NODE_SEED": "1",
            "NODE_DATA": str(data.resolve()), "NODE_RUN_ID": "by-hand"}


def _filled(node: Node, values: Mapping[str, str], policy_text: str) -> dict[str, str]:
    """The environment that the stack file declares, with its placeholders filled in."""
    filled = {}
    for key, text in {**node.environment, **node.builds.get("current", {})}.items():
        for name, value in values.items():
            text = text.replace(f"{{secret:{name}}}", value)
        filled[key] = text.replace("{policy}", policy_text)
    return filled


def _secrets(stack: Stack) -> dict[str, str]:
    """The stack's secrets: from the environment, else from our file, into which missing ones are written."""
    file = FOLDER / "secrets.json"
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)  # two terminals may start at once
            text = stream.read()
            kept = orjson.loads(text) if text else {}
            values = {name: kept.get(name) or secrets.token_hex(16) for name in stack.secrets}
            if values.items() - kept.items():
                stream.seek(0)
                stream.truncate()
                stream.write(orjson.dumps({**kept, **values}, option=orjson.OPT_INDENT_2) + b"\n")
    except (OSError, ValueError, TypeError, AttributeError) as why:
        raise UsageError(f"{file}: secrets cannot be kept there: {why}") from why
    return {name: os.environ.get(name) or value for name, value in values.items()}


# ---- processes --------------------------------------------------------------------------------------------


def _provision(node: Node, environment: Mapping[str, str]) -> None:
    """Lay out the files that an operator lays out before a start."""
    if not node.provision:
        return
    done = subprocess.run([sys.executable, "-m", node.provision.partition(":")[0]], env=dict(environment), cwd=ROOT,
                          capture_output=True, text=True, timeout=PROVISION_S_MAX)
    if done.returncode:
        raise UsageError(f"{node.name}: {node.provision} laid nothing out: {done.stderr.strip()}")


def _start(node: Node, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Out of reach of the terminal's Ctrl-C, which is ours to pass on; it never outlives us."""
    command = [part.replace("{python}", sys.executable) for part in node.command]
    return subprocess.Popen(command, env=dict(environment), cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True,
                            preexec_fn=_dies_with(os.getpid()))


def _dies_with(parent: int) -> Callable[[], None]:
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return ask


def _signals_raise() -> None:
    """The first SIGINT, SIGTERM or SIGHUP ends the node; later ones change nothing."""
    heard = False

    def hear(_number: int, _frame: object) -> None:
        nonlocal heard
        if not heard:
            heard = True
            raise Ended

    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, hear)


def _end(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """Attendants last, so that nothing is accused of their orderly end."""
    for each in started:
        if each.poll() is None:
            each.terminate()
            try:
                each.wait(ENDING_S_MAX)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()


def _tell(stack: Stack, node: Node, listening: Mapping[str, str], data: Path) -> None:
    def say(text: str) -> None:
        print(f"{node.name}: {text}", file=sys.stderr, flush=True)

    for port, address in listening.items():
        say(f"{port} on http://{address}")
    for link in stack.links.values():
        if link.server == node.name and link.url.startswith("ws") and link.port in listening:
            say(f"{link.port} on {link.url.format(address=listening[link.port])}")
            break
    for each in _attendants(stack, node):
        say(f"with its {each.name}")
    if shown := _secret_names(stack, node):
        say(f"{', '.join(shown)} in {console.shown(FOLDER / 'secrets.json')}")
    say(f"data in {console.shown(data)}; Ctrl-C ends it")


def _secret_names(stack: Stack, node: Node) -> list[str]:
    declared: list[Any] = [*node.environment.values()]
    return [name for name in stack.secrets if f"{{secret:{name}}}" in declared]
