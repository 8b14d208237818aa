"""A machine that prints what could be taken for events of its session, when it is loaded and when it is made."""

from __future__ import annotations

import os
from typing import Any

from system_under_test import trader

LINES = ('{"result": 1}', '{"error": "made up", "code": 70}', '{"progress": "told", "inputs": "ab", "chapter": "{}"}',
         '{"ended": 0}')


def _print() -> None:
    for line in LINES:
        print(line, flush=True)
        os.write(1, f"{line}\n".encode())


def make(*args: Any, **named: Any) -> Any:
    """The reference trader."""
    _print()
    return trader.make(*args, **named)


def prepare() -> None:
    """What a nursery does ahead of a run."""
    _print()
