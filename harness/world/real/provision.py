"""Lay out a node's files as an operator would, in a process that has the node's environment.

    python -m harness.world.real.provision module:function

The function is called as in every world, ``function(environment, wall_ms) -> {file name: bytes}``.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from harness import files
from harness.world.real.clock import wall_ms


def main() -> int:
    module, _, function = sys.argv[1].partition(":")
    laid_out = getattr(importlib.import_module(module), function)(dict(os.environ), wall_ms())
    for name, data in laid_out.items():
        target = Path(os.environ["NODE_DATA"]) / "files" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        files.replace(target, data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
