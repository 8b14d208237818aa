"""Finds code-like literals that the manifest does not know: a code written in a program before it is in a registry.

Two shapes are code-like. Upper-case words with a code's prefix or ending (``KILL_…``, ``…_RECONCILE_REQUIRED``,
``EXEC_…``). And words in the manner of reject tokens (``NetEdgeTooLow``) that end like one or are nearly one.
Only whole literals count, never docstrings or comments; ``# not-a-code: reason`` on the line excuses one.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path

import yaml

from harness.contracts.library import Manifest

FOLDERS = ("harness", "system_under_test", "drills")
ESCAPE = "not-a-code:"

_UPPER = re.compile(r"(?:KILL|REDUCEONLY|EXEC|RISK|DATA|EXT|OPS|SEC|GOV|STATE)_[A-Z0-9_]*[A-Z0-9]"
                    r"|[A-Z0-9_]+_RECONCILE_REQUIRED")
_CAMEL = re.compile(r"(?:[A-Z][a-z0-9]+|L[12]){2,}")
_REJECT_ENDING = re.compile(r".*(?:Forbidden|Forbids[A-Z]\w+|Exceeded|Mismatch|RejectOpens|TooLow|TooHigh|TooLong|TooSmall\w*"
                            r"|Brownout|WouldCross|WouldOpen|NotApproved|NotHealthy|InputMissing|MetadataMissing)")
_NEARLY = 0.85
"""Above this likeness a word is a misspelt token rather than another word; two real tokens are never that close but
for their common endings."""


def unknown_literals(files: Iterable[tuple[str, bytes]], manifest: Manifest, others: Collection[str] = ()) -> list[str]:
    """``path:line: literal`` for every code-like literal outside the registries, in order; ``others`` are known elsewhere."""
    rejects = manifest.registry("RejectReasonCode")
    return [f"{path}:{line}: {word!r} is no code of the manifest"
            for path, text in files for line, word in _literals(path, text)
            if word not in manifest.codes and word not in others and _is_code_like(word, rejects)]


def known_elsewhere(root: Path) -> frozenset[str]:
    """Words that look like codes and are those of the ops status contract, or names of a stack's environment."""
    table = yaml.safe_load((root / "specs/ops_status/truth_table.yaml").read_bytes())
    stack = yaml.safe_load((root / "system_under_test/stack.yaml").read_bytes())
    ports = [port for node in stack["nodes"].values() for port in (node.get("ports") or {}).values()]
    return frozenset({*table["reason_codes"], *(each["reason"] for each in table["gating"]),
                      *(each["env"] for each in (*ports, *stack["links"].values()) if "env" in each)})


def sources(root: Path, folders: Iterable[str] = FOLDERS) -> Iterator[tuple[str, bytes]]:
    """Every program and drill under the folders, as (path, bytes)."""
    for folder in folders:
        for file in sorted((root / folder).rglob("*")):
            if file.suffix in {".py", ".yaml", ".yml", ".json"} and "__pycache__" not in file.parts:
                yield str(file.relative_to(root)), file.read_bytes()


def _is_code_like(word: str, rejects: tuple[str, ...]) -> bool:
    if _UPPER.fullmatch(word):
        return True
    return bool(_CAMEL.fullmatch(word)) and bool(
        _REJECT_ENDING.fullmatch(word) or get_close_matches(word, rejects, n=1, cutoff=_NEARLY))


def _literals(path: str, text: bytes) -> Iterator[tuple[int, str]]:
    lines = text.decode("utf-8", "replace").splitlines()
    found = _in_python(text) if path.endswith(".py") else _in_yaml(text)
    for line, word in found:
        if line > len(lines) or ESCAPE not in lines[line - 1]:
            yield line, word


def _in_python(text: bytes) -> Iterator[tuple[int, str]]:
    """String literals of a program, without those that stand alone as a statement (docstrings)."""
    tree = ast.parse(text)
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.lineno, node.value


def _in_yaml(text: bytes) -> Iterator[tuple[int, str]]:
    """Scalars of a YAML or JSON file, keys too; ``refused.NetEdgeTooLow`` counts by its last part."""
    pending: list[yaml.Node] = [each for each in yaml.compose_all(text, Loader=yaml.SafeLoader) if each is not None]
    while pending:
        node = pending.pop()
        if isinstance(node, yaml.ScalarNode):
            yield node.start_mark.line + 1, node.value.rpartition(".")[2]
        elif isinstance(node, yaml.SequenceNode):
            pending.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            pending.extend(each for pair in node.value for each in pair)
