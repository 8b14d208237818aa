"""Follow a page: run its shell blocks as they stand, one after another in one shell, and see what it says is seen.

    python docs/follow.py docs/your-own-system.md

A block fenced by ``sh`` must end with 0 and no command in it may fail; by ``sh exit=1`` its last command must end so, and by
``sh exit=0|1`` either way. A block fenced by ``text`` shows lines that the block before it printed; any number in them
stands for any other.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(sh|text)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS_MAX = 1_200


@dataclass
class Block:
    """A shell block of a page, with the lines that it is said to print."""

    line: int
    text: str
    codes: tuple[str, ...]
    shown: tuple[str, ...] = ()


def blocks(page: str) -> list[Block]:
    """The shell blocks of a page, in order."""
    found: list[Block] = []
    for match in FENCE.finditer(page):
        kind, info, text = match.groups()
        if kind == "text":
            found[-1].shown += tuple(text.splitlines())
            continue
        wanted = re.search(r"exit=([\d|]+)", info)
        found.append(Block(page.count("\n", 0, match.start()) + 1, text, tuple(wanted[1].split("|")) if wanted else ("0",)))
    return found


def script(found: list[Block]) -> str:
    """All blocks for one shell; what it prints tells them apart, each failing command and each last exit code."""
    parts = ["exec 2>&1", "trap 'echo \"@@failed $BASH_COMMAND\"' ERR"]
    for number, block in enumerate(found):
        parts += [f"echo '@@block {number}'", block.text.rstrip("\n"), 'echo "@@ended $?"']
    return "\n".join(parts) + "\n"


def run(found: list[Block], folder: Path, environment: dict[str, str]) -> str:
    """What the shell printed. Whatever the page started and did not end is ended with it."""
    shell = subprocess.Popen(["bash", "-c", script(found)], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        said, _ = shell.communicate(timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        os.killpg(shell.pid, signal.SIGKILL)
        said = shell.communicate()[0] + f"\n@@failed nothing, but {SECONDS_MAX} seconds were over\n"
    finally:
        with contextlib.suppress(ProcessLookupError):  # it ended all that it had started
            os.killpg(shell.pid, signal.SIGTERM)
    return said


def wrong_with(page: str, found: list[Block], said: str) -> list[str]:
    """Where the page and what was seen part ways; with the whole of what was printed there."""
    pieces = re.split(r"^@@block \d+$", said, flags=re.MULTILINE)[1:]
    wrong = [] if len(pieces) == len(found) else [f"{page}: {len(pieces)} of {len(found)} blocks were begun"]
    for block, piece in zip(found, pieces, strict=False):
        ended = re.findall(r"^@@ended (\d+)$", piece, flags=re.MULTILINE)
        failed = re.findall(r"^@@failed (.*)$", piece, flags=re.MULTILINE)
        lines = {_plain(line) for line in piece.splitlines()}
        missing = [line for line in block.shown if line.strip() and _plain(line) not in lines]
        if len(ended) != 1 or ended[0] not in block.codes or len(failed) > (ended[0] != "0"):
            wrong.append(f"{page}:{block.line}: ended with {ended or 'nothing'}, failed: {failed}\n{piece}")
        elif missing:
            wrong.append(f"{page}:{block.line}: did not print {missing[0]!r}\n{piece}")
    return wrong


def _plain(line: str) -> str:
    return re.sub(r"\d+", "N", " ".join(line.split()))


def follow(page: Path, folder: Path, environment: dict[str, str]) -> list[str]:
    """Run a page in a folder; what is wrong with it."""
    found = blocks(page.read_text(encoding="utf-8"))
    return wrong_with(str(page), found, run(found, folder, environment))


if __name__ == "__main__":
    problems = follow(Path(sys.argv[1]), Path.cwd(), dict(os.environ))
    print("\n".join(problems) or f"{sys.argv[1]}: all of it is so")
    sys.exit(bool(problems))
