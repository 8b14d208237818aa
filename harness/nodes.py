"""One node of a stack in the foreground, by hand: to look at it, or to point an ordinary client at it.

Nothing here breaks anything and nothing is recorded; the node runs as drills run it, by the command of its
``stack.yaml``. Everything listens on loopback unless told otherwise.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from harness.errors import UsageError, nearest
from harness.session import ROOT
from harness.world.stack import Link, Node, Stack, load_stack

PORTS_BY_HAND = {"api": 8090, "control": 8091, "control_plane": 8080}
"""Where ports listen when a person starts a node: 8080 is the control plane's default (DESIGN, section 9)."""


def serve(name: str, stack_file: Path, policy: str, listens: Sequence[str], urls: Sequence[str], data: Path) -> int:
    """Run the node until Ctrl-C; returns its exit code. Raises UsageError for a name the stack does not have."""
    stack = load_stack(stack_file)
    if name not in stack.nodes:
        raise UsageError(f"{stack_file}: no node {name!r}; nearest: {nearest(name, stack.nodes)}")
    node = stack.nodes[name]
    listen = _addresses(node, _pairs(listens, node.ports, "port"))
    environment = _environment(stack, node, policy, listen, _pairs(urls, stack.links, "link"), data)
    if node.provision:
        module = node.provision.partition(":")[0]
        subprocess.run([sys.executable, "-m", module], env=environment, cwd=ROOT, check=True, timeout=30)
    for port, address in listen.items():
        print(f"{name}: {port} on http://{address}", file=sys.stderr)
    print(f"{name}: data in {data}; Ctrl-C ends it", file=sys.stderr)
    command = [part.replace("{python}", sys.executable) for part in node.command]
    process = subprocess.Popen(command, env=environment, cwd=ROOT)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        return process.wait(timeout=10)


def _pairs(given: Sequence[str], known: Mapping[str, object], kind: str) -> dict[str, str]:
    pairs = {}
    for each in given:
        key, _, value = each.partition("=")
        if key not in known or not value:
            raise UsageError(f"found {each!r}, expected {kind.upper()}=HOST:N with one of: {', '.join(known)}")
        pairs[key] = value
    return pairs


def _addresses(node: Node, given: Mapping[str, str]) -> dict[str, str]:
    return {port: given.get(port, f"127.0.0.1:{PORTS_BY_HAND.get(port, 0)}") for port in node.ports}


def _environment(stack: Stack, node: Node, policy: str, listen: Mapping[str, str], urls: Mapping[str, str],
                 data: Path) -> dict[str, str]:
    """What a world would give the node; secrets come from the environment or are made and printed."""
    data.mkdir(parents=True, exist_ok=True)
    values = {name: os.environ.get(name) or secrets.token_hex(16) for name in stack.secrets}
    declared = {**node.environment, **node.builds.get("current", {})}
    used = {name for name in stack.secrets if any(f"{{secret:{name}}}" in text for text in declared.values())}
    for name in sorted(used - set(os.environ)):
        print(f"{node.name}: {name}={values[name]}", file=sys.stderr)
    filled = {key: _filled(text, values, stack, policy) for key, text in declared.items()}
    dial = {link.env: link.url.format(address=urls.get(link.name, _default_address(link)))
            for link in stack.links.values() if link.client == node.name}
    ports = {node.ports[port].env: address for port, address in listen.items()}
    return {**{key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ},
            "PYTHONPATH": str(ROOT), "NODE_NAME": node.name, "NODE_MACHINE": node.machine or "", "NODE_SEED": "1",
            "NODE_DATA": str(data.resolve()), "NODE_RUN_ID": "by-hand", **filled, **dial, **ports}


def _filled(text: str, values: Mapping[str, str], stack: Stack, policy: str) -> str:
    for name, value in values.items():
        text = text.replace(f"{{secret:{name}}}", value)
    if "{policy}" in text:
        text = text.replace("{policy}", orjson.dumps(stack.policy(policy)).decode())
    return text


def _default_address(link: Link) -> str:
    return f"127.0.0.1:{PORTS_BY_HAND.get(link.port, 0)}"
