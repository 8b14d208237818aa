"""A long recording: what judging it takes, and holds in memory.

``python -m bench judging --virtual-min 1440`` judges a whole day. A drill is run once; then the calm before its fault is
drawn out, sample by sample, to the length asked for, which costs a twentieth of running it. The calm has no orders, so of
streams the table says nothing: their blocks in memory are bounded (``harness/recording/rows.py``). Each judging has a
process of its own.
"""

from __future__ import annotations

import hashlib
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from harness.recording.tape import Tape, canonical, read_lines
from harness.session import ROOT, Order, conduct

DRILL = ROOT / "bench" / "calm.yaml"
STAMP = 10**12
"""Whole numbers from here on are moments, in milliseconds since 1970."""
QUIET_MS = (200, 50)
"""Nothing is written so long before, and after, the moment at which the calm is drawn out."""

Line = dict[str, Any]


def lines(seed: int, policy: str, virtual_min: int, place: Path) -> Iterator[str]:
    """The table's lines: a quarter of the length, and all of it."""
    run, found = calm_run(seed, policy, place), []
    for length_min in (max(virtual_min // 4, 1), virtual_min):
        folder = drawn_out(run, place / f"{length_min}-minutes", length_min * 60_000)
        command = [sys.executable, "-m", "bench.judging", str(folder)]
        told = orjson.loads(subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True).stdout)
        found.append((told["peak_mib"], told["samples"]))
        cost_ms = told["cpu_s"] / length_min / 60 * 1_000
        yield (f"{length_min:>6} virtual minutes {told['samples']:>9} samples {told['verdict']:>6} "
               f"{told['peak_mib']:>8.1f} MiB at most {cost_ms:>7.2f} ms of CPU a virtual second")
    (first, few), (last, many) = found
    yield f"{(last - first) * 1_048_576 / (many - few):.0f} bytes a sample"


def calm_run(seed: int, policy: str, place: Path) -> Path:
    """Where the drill that can be drawn out was recorded."""
    order = Order(str(DRILL), "sim", seed, str(ROOT / "system_under_test" / "stack.yaml"), policy, str(place / "runs"))
    return Path(conduct(order, lambda _word, _facts: None).recording)


def drawn_out(run: Path, folder: Path, by_ms: int) -> Path:
    """The recording of a run whose steady state lasted so much longer. Raises SystemExit where it has no calm moment."""
    shutil.copytree(run, folder)
    told = list(read_lines(run / "recording.jsonl.gz"))
    ahead = {each["node"]: each["mono"] - each["asked"] for each in told if each["line"] == "clock"}
    nodes = _nodes(run)
    streams = {name: [orjson.loads(row) for row in (run / "streams" / f"{name}.jsonl").read_bytes().splitlines()]
               for name in told[-1]["streams"]}
    moment = _calm(told, sorted(row["at"] - ahead[nodes[name]] for name, rows in streams.items() for row in rows))
    tape = Tape(folder)
    old, new = _patient(folder, by_ms)
    tape.head(**{key: {**value, "sha256": new} if key == "policy" else value for key, value in told[0].items()
                 if key not in ("line", "format")})
    documents: dict[str, Line] = {}
    drawn = False
    for line in told[1:-1]:
        if not drawn and _when(line) > moment:
            _calm_lines(tape, documents, moment, by_ms, ahead, {name: each["every_ms"] for name, each
                                                              in told[0]["surfaces"].items()})
            drawn = True
        _copy(tape, line, documents, by_ms if drawn else 0, {old: new})
    tape.seal("completed", {name: _shifted(folder / "streams" / f"{name}.jsonl", rows, moment + ahead[nodes[name]], by_ms)
                            for name, rows in streams.items()})
    return folder


def _patient(folder: Path, by_ms: int) -> tuple[str, str]:
    """Let orders rest for so much longer, by the policy; returns its digest before and after. What rests during the calm would
    have been taken back as too old."""
    policy = orjson.loads((folder / "policy.json").read_bytes())
    before = hashlib.sha256(canonical(policy)).hexdigest()
    policy["stale_order_sec"] += by_ms // 1_000
    (folder / "policy.json").write_bytes(canonical(policy))
    return before, hashlib.sha256(canonical(policy)).hexdigest()


def _nodes(run: Path) -> Mapping[str, str]:
    """stream → node"""
    from harness.recording.timeline import Timeline

    timeline = Timeline.load(run)
    return {name: str(timeline.stream(name).node) for name in timeline.streams}


def _calm(told: list[Line], rows: list[int]) -> int:
    """A moment while the given held at which a status had just been asked and nobody wrote anything."""
    given = next(each["begin"] for each in told if each["line"] == "mark" and each["name"] == "given")
    before, after = QUIET_MS
    for line in told:
        asked = line.get("asked", 0)
        if line["line"] == "sample" and line["surface"] == "status" and given - 2_500 < asked < given - 100 \
                and not any(asked - before < row < asked + after for row in rows):
            return int(asked)
    raise SystemExit("the run has no calm moment to draw out")


def _when(line: Line) -> int:
    return int(next((line[key] for key in ("asked", "begin", "at") if key in line), -1))


def _calm_lines(tape: Tape, documents: Mapping[str, Line], moment: int, by_ms: int, ahead: Mapping[str, int],
                every_ms: Mapping[str, int]) -> None:
    """As the reference stack's status looks while nothing happens: it ticks, and news comes and ages."""
    for at in range(moment + 50, moment + by_ms + 1, 50):
        for surface, document in documents.items():
            if (at - moment) % every_ms[surface]:
                continue
            ticked = at - moment - (at - moment) % 100
            now = {key: value + ticked if type(value) is int and value > STAMP else value for key, value in document.items()}
            if "ws_event_lag_ms" in now:
                now["ws_event_lag_ms"] = 2 + (at // 50 * 37) % 150
            tape.sample(surface, at, at, at, now)
        if (at - moment) % 1_000 == 0:
            for node, offset in ahead.items():
                tape.clock(node, at, at, at + offset)


def _copy(tape: Tape, line: Line, documents: dict[str, Line], by_ms: int, digests: Mapping[str, str]) -> None:
    """Write a line again, so much later, with its moments, and digests by others."""
    fields = {key: value + by_ms if key in ("due", "asked", "answered", "begin", "end", "at", "mono") and type(value) is int
              else value for key, value in line.items() if key != "line"}
    if line["line"] != "sample" or "silence" in line or "raw" in line:
        tape._write(line["line"], fields)
        return
    surface = line["surface"]
    document = {**line["full"]} if "full" in line else {**documents[surface], **line["set"]}
    documents[surface] = document = {key: digests.get(value, value) if isinstance(value, str) else value
                                     for key, value in document.items() if key not in line.get("unset", ())}
    tape.sample(surface, fields["due"], fields["asked"], fields["answered"],
                {key: value + by_ms if type(value) is int and value > STAMP else value for key, value in document.items()})


def _shifted(file: Path, rows: list[Line], moment: int, by_ms: int) -> Mapping[str, Any]:
    """Write a stream whose rows after a moment of its node's clock come so much later; returns its seal."""
    data = b"".join(canonical({**row, "at": row["at"] + by_ms if row["at"] > moment else row["at"]}) + b"\n" for row in rows)
    file.write_bytes(data)
    return {"n": len(rows), "sha256": hashlib.sha256(data).hexdigest(), "torn_bytes": 0}


def judged(folder: Path) -> dict[str, Any]:
    """Judge a run folder, and what that took."""
    from harness.verdict.judge import judge

    begin = time.process_time()
    verdict = judge(folder, ROOT)
    cpu_s, peak_mib = time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    return {"verdict": verdict["verdict"], "samples": sum(sum(each.values()) for each in verdict["samples"].values()),
            "peak_mib": peak_mib, "cpu_s": cpu_s}


if __name__ == "__main__":
    print(orjson.dumps(judged(Path(sys.argv[1]))).decode(), flush=True)
