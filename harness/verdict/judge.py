"""Was it good? ``verdict = laws ∧ (premises ⇒ promises)``, in three values, from the run folder alone.

Judging reads the recording, the streams, the drill, stack and policy in the folder, and the rules; it reads no clock
and no environment, so judging again gives the same bytes (``canonical`` of the returned value).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from harness.drill.model import Drill
from harness.drill.specs import Specs
from harness.drill.text import parse
from harness.errors import DrillproofError, UsageError
from harness.recording.tape import canonical
from harness.recording.timeline import Timeline, uncollected
from harness.verdict import golden as goldens
from harness.verdict.case import Case
from harness.verdict.check import INCONCLUSIVE, PASS, Check, guarded, worst
from harness.verdict.invariants import laws
from harness.verdict.premises import premises
from harness.verdict.promises import promises
from harness.verdict.rules import load_rules
from harness.verdict.safety import UNKNOWN, time_to_safe_ms

FORMAT = 1
ROOT = Path(__file__).parents[2]


def judge(folder: Path, rules_root: Path | None = None, timeline: Timeline | None = None) -> dict[str, Any]:
    """The verdict on a run folder. Raises UsageError when there is no drill to judge by, or no rules.

    ``timeline`` is the folder's recording, for whoever has just read it; it then knows which documents were unlawful.
    """
    folder = Path(folder)
    policy = _policy(folder)
    drill = _drill(folder, policy)
    case = Case(timeline or Timeline.load(folder), drill, load_rules(Path(rules_root or ROOT)), policy)
    with uncollected():
        case.judge_documents()
        return verdict_of(case)


def verdict_of(case: Case) -> dict[str, Any]:
    """The verdict as plain values, in a fixed order."""
    asked = premises(case)
    fair = all(each.verdict == PASS for each in asked)
    kept = [_if_fair(each, fair) for each in promises(case)]
    golden = _if_fair(guarded("golden", partial(goldens.golden, case)), fair) if case.drill.golden is not None else None
    upheld = laws(case)
    every = [*asked, *kept, *upheld, *([golden] if golden is not None else [])]
    return {
        "format": FORMAT,
        "drill": case.drill.name,
        "world": case.timeline.head.get("world"),
        "placebo": case.timeline.placebo,
        "status": case.timeline.status,
        "verdict": worst(each.verdict for each in every),
        "premises": [each.to_json() for each in asked],
        "promises": [each.to_json() for each in kept],
        "laws": [each.to_json() for each in upheld],
        "golden": golden.to_json() if golden is not None else None,
        "time_to_safe_ms": _time_to_safe(case),
        "samples": {surface: _counted(case, surface) for surface in sorted(case.drill.sample)},
        "limits": sorted(case.timeline.limits),
    }


def verdict_bytes(verdict: Mapping[str, Any]) -> bytes:
    """The one encoding of a verdict."""
    return canonical(verdict) + b"\n"


def _if_fair(check: Check, fair: bool) -> Check:
    """No false accusation, and no acquittal either: without its premises a promise is undecided."""
    if fair or check.verdict == INCONCLUSIVE:
        return check
    return Check(check.id, INCONCLUSIVE, f"a premise does not hold; by itself: {check.verdict}, {check.says}", check.at,
                 {**check.details, "by_itself": check.verdict})


def _time_to_safe(case: Case) -> dict[str, int | None]:
    try:
        return time_to_safe_ms(case)
    except (DrillproofError, ValueError, KeyError, TypeError):
        return dict(UNKNOWN)


def _counted(case: Case, surface: str) -> dict[str, int]:
    track = case.timeline.track(surface)
    answered, raw = track.count(None), track.count("raw")
    return {"answered": answered, "silent": len(track) - answered - raw, "raw": raw}


def _policy(folder: Path) -> dict[str, Any]:
    """``policy.json`` of the folder; without it the drill may still name no policy value."""
    try:
        value = orjson.loads((folder / "policy.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def _drill(folder: Path, policy: Mapping[str, Any]) -> Drill:
    file = folder / "drill.yaml"
    try:
        text = file.read_bytes()
    except OSError as why:
        raise UsageError(f"{file}: there is no drill to judge by: {why.strerror}") from why
    return parse(text, str(file), Specs(policy=policy))
