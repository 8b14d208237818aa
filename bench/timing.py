"""Were we on time? One drill in the local world, on a quiet machine and with every core busy with other work.

Wall seconds, not CPU seconds: what is measured is when requests left and faults began (docs/recording.md)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.load import burners, cores
from harness.recording.punctuality import Punctuality, punctuality
from harness.recording.timeline import Timeline
from harness.session import ROOT, Order, conduct
from harness.world.real import setup

DRILL = ROOT / "drills" / "phase2" / "9_disconnect_mid_flight.yaml"
"""It cuts three links at one moment."""


def lines(seed: int, place: Path) -> Iterator[str]:
    """The table's lines, or why there is none."""
    if setup.find() is None:
        yield f"no Toxiproxy server here, so nothing to measure; this line installs it: {setup.explain()}"
        return
    for name, busy in (("quiet", 0), (f"{cores()} burners", cores())):
        with burners(busy):
            found = _ran(seed, place / name.replace(" ", "-"))
        for sentence in found.says():
            yield f"{name:<12} {sentence}"


def _ran(seed: int, place: Path) -> Punctuality:
    order = Order(str(DRILL), "local", seed, str(ROOT / "system_under_test" / "stack.yaml"), "drill", str(place / "runs"))
    return punctuality(Timeline.load(Path(conduct(order, lambda _word, _facts: None).recording)))
