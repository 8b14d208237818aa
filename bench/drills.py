"""Every drill once in the sim, judged, then one pack of them all: drill seconds per CPU second, and where they go."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.clock import taken_s
from harness.pack.build import build
from harness.recording.tape import length_s
from harness.session import ROOT, Order, conduct


@dataclass(frozen=True, slots=True)
class Cost:
    """What one drill took. ``virtual_s`` is the length of its recording, everything else CPU seconds."""

    drill: str
    verdict: str
    virtual_s: float
    prepare_s: float
    run_s: float
    judge_s: float
    folder: Path

    @property
    def total_s(self) -> float:
        return self.prepare_s + self.run_s + self.judge_s


def measured(drill: Path, seed: int, policy: str, runs: Path) -> Cost:
    """One drill in this process; imports were paid before, as in a fleet's second run."""
    reached: dict[str, float] = {}

    def progress(word: str, _facts: Mapping[str, Any]) -> None:
        reached.setdefault(word, time.process_time())

    begin = time.process_time()
    order = Order(str(drill), "sim", seed, str(ROOT / "system_under_test" / "stack.yaml"), policy, str(runs))
    result = conduct(order, progress)
    end, started, judging = time.process_time(), reached["starting"], reached["judging"]
    recording = Path(result.recording)
    return Cost(result.drill, result.verdict, length_s(recording / "recording.jsonl.gz"), started - begin, judging - started,
                end - judging, recording)


def lines(drills: Sequence[Path], seed: int, policy: str, place: Path) -> Iterator[str]:
    """The table's lines; the pack is made where all drills of the phase were asked for."""
    yield f"{'drill':<32}{'verdict':<14}{'virtual s':>10}{'prepare':>9}{'run':>8}{'judge':>8}{'drill s per CPU s':>19}"
    costs = []
    for drill in drills:
        costs.append(cost := measured(drill, seed, policy, place / "runs"))
        yield (f"{cost.drill:<32}{cost.verdict:<14}{cost.virtual_s:>10.1f}{cost.prepare_s:>9.2f}{cost.run_s:>8.2f}"
               f"{cost.judge_s:>8.2f}{cost.virtual_s / cost.total_s:>19.0f}")
    virtual_s, cpu_s = sum(each.virtual_s for each in costs), sum(each.total_s for each in costs)
    yield f"{'together':<46}{virtual_s:>10.1f}{'':>25}{virtual_s / cpu_s:>19.0f}"
    judge_s = sum(each.judge_s for each in costs)
    yield f"judging: {judge_s / virtual_s * 60_000:.0f} ms for each recorded minute"
    pack_s = taken_s(lambda: build([each.folder for each in costs], 2, place, ROOT))
    yield f"packing: {pack_s:.2f} CPU s; with it: {virtual_s / (cpu_s + pack_s):.0f} drill seconds per CPU second"
