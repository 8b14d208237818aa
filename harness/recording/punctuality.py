"""How punctual we were: did requests leave, and faults begin, when they were due? From the recording alone.

Times on the tape are whole milliseconds rounded outwards, so an act that was due at 100 and is written as begun at 103
began less than 4 ms late: that upper bound is what is counted here, never the lower one. In the sim time is virtual, and
the figures say so: there they show that the grid was kept, and nothing about a machine.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import le, sub
from typing import Any

from harness.recording.columns import Track
from harness.recording.timeline import Timeline

REQUEST_LATE_MS_MAX = 10
FAULT_LATE_MS_MAX = 5
"""What is promised of 99 % of requests, and of faults at the 99th percentile (docs/recording.md, "Were we on time?")."""
PERCENTILE = 99


@dataclass(frozen=True, slots=True)
class Punctuality:
    """Lateness in milliseconds, each an upper bound. Sums over drills are made by ``of_all``."""

    virtual: bool
    requests: tuple[int, ...]
    """of every sample that was asked, and of every slot that was missed because we came too late to ask"""
    in_flight: int
    """slots without a request of their own, because the system had not yet answered the one before"""
    answers: tuple[int, ...]
    """how long answers took: the system's share, not ours"""
    faults: tuple[int, ...]
    others: tuple[int, ...]
    """stimuli and healing"""

    @property
    def requests_on_time(self) -> float | None:
        """Share of requests that left within REQUEST_LATE_MS_MAX; None without any."""
        return _share(self.requests, REQUEST_LATE_MS_MAX)

    @property
    def kept(self) -> bool | None:
        """Whether both promises were kept; None where there is nothing to say."""
        share, late = self.requests_on_time, percentile(self.faults)
        if share is None and late is None:
            return None
        return (share is None or share * 100 >= PERCENTILE) and (late is None or late <= FAULT_LATE_MS_MAX)

    def to_json(self) -> dict[str, Any]:
        """Plain values; null where there is nothing to count."""
        return {"virtual": self.virtual, "requests": _figures(self.requests, REQUEST_LATE_MS_MAX),
                "slots_in_flight": self.in_flight, "answer_ms_p99": percentile(self.answers),
                "faults": _figures(self.faults, FAULT_LATE_MS_MAX),
                "stimuli_and_healing": _figures(self.others, FAULT_LATE_MS_MAX)}

    def says(self) -> tuple[str, str]:
        """One sentence about requests, one about faults."""
        clock = "in virtual time " if self.virtual else ""
        requests, faults = "none was asked", "none with a due time"
        if self.requests:
            share = _floored(self.requests_on_time or 0.0)
            requests = (f"{clock}{share} of {len(self.requests)} left within {REQUEST_LATE_MS_MAX} ms of their time "
                        f"({PERCENTILE} %: {percentile(self.requests)} ms, worst {max(self.requests)})")
        if self.faults:
            faults = (f"{clock}{PERCENTILE} % of {len(self.faults)} began within {percentile(self.faults)} ms of their time "
                      f"(bound {FAULT_LATE_MS_MAX}, worst {max(self.faults)})")
        return f"Requests: {requests}.", f"Faults: {faults}."


def punctuality(timeline: Timeline) -> Punctuality:
    """Of one recording. What it does not say is not counted."""
    virtual = timeline.head.get("world") == "sim"
    late = _late_virtually if virtual else _late
    requests: list[int] = []
    answers: list[int] = []
    in_flight = 0
    for surface in timeline.surfaces:
        track = timeline.track(surface)
        grid = track.grid
        dues, asked = _asked(track)
        requests += map(late, dues, asked)
        for first, past in track.answered if timeline.file_of(surface) is None else ():  # a file does not answer
            answers += map(sub, grid.answered[first:past], grid.asked[first:past])
        for slot in track.slots("missed"):
            before = bisect_left(dues, grid.due[slot]) - 1
            if before >= 0 and asked[before] > grid.due[slot]:  # the request before left only after this slot had passed
                requests.append(late(grid.due[slot], asked[before]))
            else:
                in_flight += 1
    timely = [(each.step, late(each.due, each.begin)) for each in timeline.acts if each.due is not None]
    return Punctuality(virtual, tuple(requests), in_flight, tuple(answers),
                       tuple(late for step, late in timely if step == "applied"),
                       tuple(late for step, late in timely if step != "applied"))


def _asked(track: Track) -> tuple[Sequence[int], Sequence[int]]:
    """When the requests of a surface were due, and when they left; without the slots that were missed, and without what was
    no slot: a look at a file that had just changed was never due."""
    dues, asked = track.grid.due[:], track.grid.asked[:]
    for slot in sorted({*track.slots("missed"), *track.extras}, reverse=True):
        del dues[slot], asked[slot]
    if all(map(le, dues, dues[1:])):
        return dues, asked
    pairs = sorted(zip(dues, asked, strict=True))
    return [due for due, _ in pairs], [at for _, at in pairs]


def of_all(each: Iterable[Punctuality]) -> Punctuality:
    """Every request and every fault of several recordings, as if they were one. Virtual only if all of them are."""
    found = list(each)
    return Punctuality(bool(found) and all(one.virtual for one in found), sum((one.requests for one in found), ()),
                       sum(one.in_flight for one in found), sum((one.answers for one in found), ()),
                       sum((one.faults for one in found), ()), sum((one.others for one in found), ()))


def percentile(values: Sequence[int], percent: int = PERCENTILE) -> int | None:
    """The smallest value that at least so many per cent do not exceed; None without values."""
    if not values:
        return None
    return sorted(values)[-(-len(values) * percent // 100) - 1]


def _late(due: int, at: int) -> int:
    """At most so late: on the tape ``at`` is rounded down."""
    return max(0, at - due) + 1


def _late_virtually(due: int, at: int) -> int:
    """Virtual moments are whole milliseconds, or lie within one."""
    return max(0, at - due)


def _share(values: Sequence[int], bound: int) -> float | None:
    return sum(each <= bound for each in values) / len(values) if values else None


def _floored(share: float) -> str:
    """A share as per cent, never rounded up to what it is not."""
    return f"{int(share * 10_000) / 100:g} %"


def _figures(values: Sequence[int], bound: int) -> dict[str, Any]:
    share = _share(values, bound)
    return {"count": len(values), "late_ms_p99": percentile(values), "late_ms_max": max(values, default=None),
            f"within_{bound}_ms": None if share is None else int(share * 10_000) / 10_000}
