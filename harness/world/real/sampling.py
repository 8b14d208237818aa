"""The harness's end of the sampler process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from harness.world.real.clock import Epoch
from harness.world.real.sidecar import Sidecar


class Sampling(Sidecar):
    """Starts the sampler, passes watches on, and hands every line that it says to ``saw``."""

    def __init__(self, epoch: Epoch, saw: Callable[[Mapping[str, Any]], None], fell: Callable[[BaseException], None],
                 environment: Mapping[str, str], clean: Callable[[bytes], bytes] = bytes) -> None:
        """``saw`` is called with every line, ``fell`` when the sampler ends although nobody asked it to; ``clean`` takes
        out of a line, before it is read, what may not be kept."""
        super().__init__("sampler", (str(epoch.start_ns),), environment, lambda line: saw(orjson.loads(clean(line))), fell)

    def watch(self, name: str, host: str, port: int, path: str, every_ms: int) -> None:
        """Ask for ``path`` every ``every_ms`` from now on, under ``name``."""
        self.order({"watch": name, "host": host, "port": port, "path": path, "every_ms": every_ms})
