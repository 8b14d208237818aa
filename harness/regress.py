"""Is this pack worse than the one before? Verdicts, times to safe against their spread so far, reasons, silences.

What counts as worse beyond what chance does is declared (``evidence/budget.yaml``). Both packs must be what their manifests
list; they are taken at their word then, so that a pack of an earlier build of drillproof can be compared, too. Times and
silences are weighed only between runs of one world under one policy; every difference in what was run is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TextIO

from harness import console
from harness.budget import Budget, Limits
from harness.errors import Refused
from harness.pack.derive import RUN_LOG
from harness.pack.listing import drill_order
from harness.pack.phases import pack_name
from harness.pack.runlog import RUN_LOG_FILE, attempts, whole_lines
from harness.pack.shelf import Drill, Pack, is_pack, put_aside, read_pack, shelf

LAST, NOW, BASELINE = "last", "now", "baseline"
NAMED = (LAST, NOW, BASELINE)
"""What may stand for a pack: the one before the newest, the newest, the one that the budget names."""

TOLD = {"world": "worlds", "policy": "policies", "seed": "seeds", "proxy": "proxies", "commit": "commits", "system": "systems",
        "stack": "stacks", "rules": "rules", "recorder": "recorders", "harness": "builds of drillproof"}
PASS = "PASS"
SHOWN = 12
"""Characters of a digest that are shown."""


class NotComparable(Refused):
    """Two packs of which nothing can be said: exit code 3."""


class NothingBefore(NotComparable):
    """There is a pack, and none before it: what every first night is."""


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of a drill's runs before, in one world under one policy: those that PASSED."""

    ms: tuple[int, ...] = ()
    missed: tuple[int, ...] = ()
    """of those that lie in packs"""

    def says(self) -> str:
        if not self.ms:
            return "-"
        runs = console.counted(len(self.ms), "run")
        return f"{min(self.ms)} to {max(self.ms)} ms in {runs}, half by {int(median(self.ms))}"


@dataclass(frozen=True, slots=True)
class Row:
    """One drill in two packs."""

    drill: str
    last: Drill | None
    now: Drill | None
    past: Past
    new_reasons: tuple[str, ...] = ()
    gone_reasons: tuple[str, ...] = ()
    worse: tuple[str, ...] = ()
    """sentences of what is beyond the budget"""
    told: tuple[str, ...] = ()
    """what is worth saying and within it"""

    def to_json(self) -> dict[str, Any]:
        return {"drill": self.drill, "last": _side(self.last), "now": _side(self.now),
                "past_ms": list(self.past.ms), "new_reasons": list(self.new_reasons),
                "gone_reasons": list(self.gone_reasons), "worse": list(self.worse), "told": list(self.told)}


@dataclass(frozen=True, slots=True)
class Report:
    """Two packs compared. ``differences``: what was run otherwise, in words; ``left_out``: what is no part of the past, and
    why."""

    last: Pack
    now: Pack
    rows: tuple[Row, ...]
    differences: tuple[str, ...]
    budget: str
    weighed: bool = True
    left_out: tuple[str, ...] = ()

    @property
    def worse(self) -> list[str]:
        return [f"{row.drill}: {each}" for row in self.rows for each in row.worse]

    def to_json(self) -> dict[str, Any]:
        return {"last": str(self.last.folder), "now": str(self.now.folder), "regression": bool(self.worse),
                "weighed": self.weighed, "budget": self.budget, "differences": list(self.differences),
                "left_out": list(self.left_out), "worse": self.worse, "drills": [row.to_json() for row in self.rows]}


def _side(drill: Drill | None) -> dict[str, Any] | None:
    return None if drill is None else {"verdict": drill.says, "time_to_safe_ms": drill.time_to_safe_ms,
                                       "missed": drill.missed, "run_id": drill.run_id}


# ---- which packs ------------------------------------------------------------------------------------------


def means_pack(name: str) -> bool:
    """Whether a word on the command line is a pack, or stands for one."""
    return (name in NAMED and not Path(name).exists()) or is_pack(Path(name))


def find(name: str, evidence: Path, phase: int, budget: Budget) -> Pack:
    """The pack that is meant, as its manifest lists it. Raises NotComparable."""
    if Path(name).exists():
        return _whole(read_pack(Path(name)), name)
    now = evidence / pack_name(phase)
    if name == BASELINE:
        if budget.baseline is None:
            raise NotComparable("no baseline: the budget names none")
        return _whole(read_pack(evidence / budget.baseline) if is_pack(evidence / budget.baseline) else "is no pack",
                      budget.baseline)
    newest = _whole(read_pack(now) if is_pack(now) else "there is no pack", str(now))
    if name == NOW:
        return newest
    packs, unread = shelf(evidence, phase)
    former = [each for each in packs if each.run_ids != newest.run_ids]  # else it is the newest, or its unsealed twin
    if lost := [name for name in unread if not former or put_aside(name) > put_aside(former[-1].name)]:  # no older one instead
        raise NotComparable(f"{lost[-1]}: {unread[lost[-1]]}")
    if not former:
        raise NothingBefore(f"{now}: there is no pack of other runs before this one to compare it with")
    return _whole(former[-1], former[-1].name)


def _whole(found: Pack | str, name: str) -> Pack:
    if isinstance(found, str):
        raise NotComparable(f"{name}: {found}")
    if found.findings:
        raise NotComparable(f"{name}: is not intact: {found.findings[0]}")
    return found


# ---- the past ---------------------------------------------------------------------------------------------


def past_of(now: Pack, log: Sequence[bytes], packs: Sequence[Pack]) -> dict[str, Past]:
    """drill → its runs before this pack, from the run log and the packs that are alike; each run once, by its name."""
    policy = now.about["policy"]
    times: dict[str, dict[str, int]] = {}
    missed: dict[str, dict[str, int]] = {}
    for each in attempts(log):
        fits = each.honest and each.verdict == "PASS" and each.world == now.world and each.policy == policy
        if fits and each.time_to_safe_ms is not None and each.utc[:19] <= now.utc[:19]:
            times.setdefault(each.drill, {})[each.run_id] = each.time_to_safe_ms
    for pack in packs:
        for name, drill in pack.drills.items():
            if drill.says == "PASS":
                missed.setdefault(name, {})[drill.run_id] = drill.missed
                if drill.time_to_safe_ms is not None:
                    times.setdefault(name, {})[drill.run_id] = drill.time_to_safe_ms
    return {name: Past(_others(times.get(name, {}), drill), _others(missed.get(name, {}), drill))
            for name, drill in now.drills.items()}


def _others(found: Mapping[str, int], drill: Drill) -> tuple[int, ...]:
    return tuple(value for run_id, value in found.items() if run_id != drill.run_id)


def _log(now: Pack, evidence: Path) -> list[bytes]:
    """The log beside, else the slice in the pack."""
    file = next((each for each in (evidence / RUN_LOG_FILE, now.folder / RUN_LOG) if each.is_file()), None)
    data = file.read_bytes() if file is not None else b""
    return whole_lines(data[:data.rfind(b"\n") + 1])


# ---- comparing --------------------------------------------------------------------------------------------


def compare(last: Pack, now: Pack, evidence: Path, budget: Budget, told: str = "defaults") -> Report:
    """Raises NotComparable for packs of two phases or without a drill in common, and for one and the same."""
    if last.phase != now.phase:
        raise NotComparable(f"{last.name} is a pack of phase {last.phase}, {now.name} one of phase {now.phase}")
    if not last.drills.keys() & now.drills.keys():
        raise NotComparable(f"{last.name} and {now.name} have no drill in common")
    if last.folder.resolve() == now.folder.resolve():
        raise NotComparable(f"{now.folder}: is the very pack that it would be compared with")
    weighed = last.world == now.world and last.about["policy"] == now.about["policy"]
    packs, left_out = alike(evidence, now)
    past = past_of(now, _log(now, evidence), packs)
    names = sorted({*last.drills, *now.drills}, key=drill_order)
    rows = [_row(name, last.drills.get(name), now.drills.get(name), past.get(name, Past()), budget,
                 _known(name, now, packs) if weighed else None) for name in names]
    return Report(last, now, tuple(rows), tuple(_differences(last, now)), told, weighed, tuple(left_out))


@dataclass(frozen=True)
class Known:
    """The reasons that packs at hand have told of a drill; read only when a new one wants looking up."""

    runs: tuple[Drill, ...]

    def others(self, codes: frozenset[str]) -> frozenset[str]:
        """Those of these codes that none of the packs has told."""
        for each in self.runs:
            codes = codes - each.reasons if codes else codes
        return codes


def _known(name: str, now: Pack, packs: Sequence[Pack]) -> Known:
    found = [pack.drills[name] for pack in reversed(packs) if name in pack.drills]
    return Known(tuple(each for each in found if each.run_id not in now.run_ids))


def alike(evidence: Path, now: Pack) -> tuple[list[Pack], list[str]]:
    """The packs at hand of the same world and policy, up to this one; and a sentence for each that cannot be believed."""
    packs, unread = shelf(evidence, now.phase)
    found = [each for each in packs
             if each.world == now.world and each.about["policy"] == now.about["policy"] and each.utc <= now.utc]
    told = [f"{name} is no part of the past: {why}" for name, why in unread.items()]
    told += [f"{each.name} is no part of the past, it is not intact: {each.findings[0]}" for each in found if each.findings]
    return [each for each in found if not each.findings], told


def _row(name: str, last: Drill | None, now: Drill | None, past: Past, budget: Budget, known: Known | None) -> Row:
    if now is None or last is None:
        if now is not None:
            if now.says == PASS:
                return Row(name, last, now, past, told=("new: it was not in the last pack",))
            return Row(name, last, now, past, worse=(f"new: it was not in the last pack, and is {now.says} in this one",))
        assert last is not None
        return Row(name, last, now, past, worse=(f"gone: it was {last.says} in the last pack and is not in this one",))
    worse, told = list(_worse_verdict(last, now)), list(_other_verdict(last, now))
    new, gone = tuple(sorted(now.reasons - last.reasons)), tuple(sorted(last.reasons - now.reasons))
    if known is not None:
        allowed = budget.of(name)
        worse += _too_slow(now, allowed)
        beyond = [*_slower(last, now, past, allowed), *_silent(last, now, past, allowed), *_unheard(new, known, allowed)]
        if len(past.ms) >= budget.past_runs_min:
            worse += beyond
        else:
            told += [f"{each}; not counted: only {console.counted(len(past.ms), 'past run')} known" for each in beyond]
    return Row(name, last, now, past, new, gone, tuple(worse), tuple(told))


def _rank(says: str) -> int:
    return {"PASS": 0, "FAIL": 2}.get(says, 1)


def _worse_verdict(last: Drill, now: Drill) -> Iterator[str]:
    if _rank(now.says) > _rank(last.says):
        yield f"{last.says} became {now.says}"


def _other_verdict(last: Drill, now: Drill) -> Iterator[str]:
    if last.says != now.says and _rank(now.says) <= _rank(last.says):
        yield f"{last.says} became {now.says}"


def _too_slow(now: Drill, allowed: Limits) -> Iterator[str]:
    if allowed.at_most_ms is not None and (now.time_to_safe_ms or 0) > allowed.at_most_ms:
        yield f"safe after {now.time_to_safe_ms} ms, the budget allows {allowed.at_most_ms} ms"


def _slower(last: Drill, now: Drill, past: Past, allowed: Limits) -> Iterator[str]:
    """Against the longest that is known, so that what chance does anyway is no regression."""
    known = [*past.ms, *([last.time_to_safe_ms] if last.says == PASS and last.time_to_safe_ms is not None else [])]
    if not known:
        return
    if now.time_to_safe_ms is None:
        if now.says in (PASS, last.says):
            yield f"nobody knows when it was safe; before it was so after {max(known)} ms at most"
        return
    over = now.time_to_safe_ms - max(known)
    if over > allowed.slower_ms and now.time_to_safe_ms > max(known) * allowed.slower_ratio:
        yield f"safe after {now.time_to_safe_ms} ms, {over} ms more than the longest before ({max(known)} ms)"


def _silent(last: Drill, now: Drill, past: Past, allowed: Limits) -> Iterator[str]:
    most = max((*past.missed, *([last.missed] if last.says == PASS else [])), default=now.missed)
    if now.missed - most > allowed.more_missed:
        yield f"{now.missed} samples missed, {most} at most before"


def _unheard(new: tuple[str, ...], known: Known, allowed: Limits) -> Iterator[str]:
    """Of what the last pack did not tell, what none at hand has told."""
    unheard = sorted(known.others(frozenset(new)))
    if len(unheard) > allowed.new_reasons:
        yield f"new: {', '.join(unheard)}, which no pack at hand has told before"


def _differences(last: Pack, now: Pack) -> Iterator[str]:
    for word, plural in TOLD.items():
        one, other = (each.world if word == "world" else each.about[word] for each in (last, now))
        if one != other:
            yield f"the {plural} differ: {_short(one)} and {_short(other)}"
    both = sorted(last.drills.keys() & now.drills.keys(), key=drill_order)
    texts = {name: (last.drills[name].text, now.drills[name].text) for name in both}
    if changed := [f"{name} ({_short(one)} and {_short(other)})" for name, (one, other) in texts.items() if one != other]:
        yield f"the texts of drills differ: {', '.join(changed)}"


def _short(text: str) -> str:
    return ", ".join(part[:SHOWN] if len(part) >= 40 else part for part in text.split(", "))


# ---- telling ----------------------------------------------------------------------------------------------


def render(report: Report, stream: TextIO) -> str:
    """A line a drill, what is beyond the budget, what was run otherwise, and the conclusion."""
    rows = [["", "drill", "verdict", "safe after", "last", "the past", "missed", "new reasons"]]
    rows += [[console.plain(cell) for cell in _cells(row)] for row in report.rows]
    lines = [f"last {console.shown(report.last.folder)} ({report.last.utc[:16]}, {console.plain(report.last.world)})",
             f"now  {console.shown(report.now.folder)} ({report.now.utc[:16]}, {console.plain(report.now.world)})", "",
             console.table(rows, stream)]
    notes = (*report.differences, *report.left_out)
    lines += ["", *(f"note: {console.plain(each)}" for each in notes)] if notes else []
    if not report.weighed:
        lines.append("note: times, silences and reasons are not weighed between two worlds or policies")
    for row in report.rows:
        lines += [f"note: {row.drill}: {console.plain(each)}" for each in row.told]
    lines.append("")
    lines += [f"{console.painted_as('WORSE', 'FAIL', stream)} {console.plain(each)}" for each in report.worse]
    many = console.counted(len(report.worse), "regression")
    lines.append(f"{many if report.worse else 'no regression'} beyond the budget ({report.budget}); {_counted(report.rows)}")
    return "\n".join(lines)


def _counted(rows: Sequence[Row]) -> str:
    """How many drills were compared; those that only one of the packs holds are none of them."""
    new, gone = sum(row.last is None for row in rows), sum(row.now is None for row in rows)
    return (f"{console.counted(len(rows) - new - gone, 'drill')} compared" + f", {new} new" * bool(new)
            + f", {gone} gone" * bool(gone))


def _cells(row: Row) -> Sequence[str]:
    sign = "!" if row.worse else "~" if row.told else "="
    if row.now is None or row.last is None:
        side = row.now or row.last
        assert side is not None
        return (sign, row.drill, f"{side.says} ({'new' if row.now else 'gone'})", _ms(row.now), _ms(row.last), "-",
                str(side.missed), "")
    verdict = row.now.says if row.now.says == row.last.says else f"{row.last.says} → {row.now.says}"
    missed = str(row.now.missed) if row.now.missed == row.last.missed else f"{row.last.missed} → {row.now.missed}"
    return sign, row.drill, verdict, _ms(row.now), _ms(row.last), row.past.says(), missed, " ".join(row.new_reasons)


def _ms(drill: Drill | None) -> str:
    return f"{drill.time_to_safe_ms} ms" if drill is not None and drill.time_to_safe_ms is not None else "-"
