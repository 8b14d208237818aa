"""How time is taken: CPU seconds of this process, contenders in turn, the best round of each.

Contenders take turns within a round, so that a busy neighbour slows all of them alike; the best round is the one
that was disturbed least. What is printed is a ratio of two such numbers wherever that is possible: it means the
same on a laptop and on a loaded CI machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any


def taken_s(work: Callable[[], Any]) -> float:
    """CPU seconds of one call."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def side_by_side(contenders: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Name → CPU seconds of the best of so many rounds, each contender once a round, in turn."""
    best = {name: float("inf") for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            best[name] = min(best[name], taken_s(work))
    return best
