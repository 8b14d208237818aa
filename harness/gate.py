"""The gate: a phase's checklist and its pack → open or closed, item by item.

It believes nothing that can be recomputed. The pack must be intact, every recording is judged again (the pack's
verdict.json is never read), and the build must be the one at hand: system, drill, policy, stack and rules by
digest, from one commit and a clean checkout. Nothing but PASS in a real world through Toxiproxy opens an item,
and nothing can be opened by taking something away: every question is asked so that a missing answer is a no.

MANUAL items are never ticked by code. A person's sign-off (``seals/signoff.json``, by a trusted key) is shown and
counts for the phase as a whole, and the item still reads MANUAL: for the words that were signed, and for drills that all ran
in a real world.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TextIO

from harness.checkout import uncommitted
from harness.errors import UsageError, hint
from harness.pack.derive import RULES
from harness.pack.manifest import Examination, examine
from harness.pack.origin import AtHand, machines_of, recorder_sha256, rules_digests, sha256_file, tree_sha256
from harness.pack.phases import LADDER, Item, Phase, drills_of, load_phase, pack_name
from harness.pack.plain import visible
from harness.pack.runlog import RUN_LOG_FILE, Attempt, attempts_beside
from harness.pack.tried import hollow, later
from harness.world.stack import load_stack, policy_sha256

REAL_WORLDS = ("local", "docker")
PROXY = "toxiproxy"
SYSTEM = "system_under_test"
State = Literal["open", "closed", "MANUAL"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """One drill of a pack: its recording's head, versions.json, its stack, and the verdict of judging it now."""

    head: Mapping[str, Any]
    versions: Mapping[str, Any]
    stack: Mapping[str, Any]
    verdict: Mapping[str, Any]
    later: str | None = None
    """what came of a later attempt at the same drill with the same build, when it did not pass"""
    set: str = ""
    """the set of drills that it belongs to, as the pack says; drills of two sets have the same numbers"""
    hollow: str | None = None
    """the run in which the same drill file passed without its force"""
    other_text: bool = False
    """what ran was not the drill that lay under its name when the pack was made"""

    @property
    def rung(self) -> str | None:
        """Where on the release ladder it was recorded."""
        rung = self.stack.get("deployment_environment")
        return rung if rung in LADDER else None


@dataclass(frozen=True, slots=True)
class Ground:
    """One drill that an item rests on, or does not: its verdict on judging it now, where it was recorded, and the first
    objection to it. ``laws`` says how often each law of the item was asked in it."""

    drill: str
    verdict: str | None = None
    world: str | None = None
    rung: str | None = None
    objection: str | None = None
    laws: Mapping[str, int] = field(default_factory=dict)
    set: str = ""

    @property
    def short(self) -> str:
        """As people speak of it: its number, or its name where it has none or is not in the pack."""
        number = self.drill.partition("_")[0]
        return number if number.isdigit() and self.verdict is not None else self.drill

    def to_json(self) -> dict[str, Any]:
        return {"drill": self.drill, "verdict": self.verdict, "world": self.world, "rung": self.rung,
                "counts": self.objection is None, "objection": self.objection, "laws": dict(self.laws)}


@dataclass(frozen=True, slots=True)
class Decided:
    """One item's state. ``fulfilled`` is what counts for the phase: open, or MANUAL and signed by a person. ``rests_on``
    are the drills that the item names."""

    item: Item
    state: State
    reason: str
    fulfilled: bool
    rungs: tuple[str, ...] = ()
    rests_on: tuple[Ground, ...] = ()

    @property
    def asked(self) -> dict[str, int]:
        """How often each law of the item was put to the test, over the drills that count."""
        return {law: sum(ground.laws.get(law, 0) for ground in self.rests_on if ground.objection is None)
                for law in self.item.invariants}

    def to_json(self) -> dict[str, Any]:
        """For machines: what was decided, and everything that it rests on."""
        return {"id": self.item.id, "kind": self.item.kind, "group": self.item.group, "state": self.state,
                "reason": self.reason, "drills": [ground.to_json() for ground in self.rests_on], "laws": self.asked,
                "unproven": list(self.item.unproven)}


@dataclass(frozen=True, slots=True)
class Gate:
    """What the gate decided about a phase, or about one group of its items."""

    phase: Phase
    only: str | None
    items: tuple[Decided, ...]
    pack: str
    pack_says: str

    @property
    def open(self) -> bool:
        return bool(self.items) and all(each.fulfilled for each in self.items)

    @property
    def unproven(self) -> tuple[tuple[str, str, str], ...]:
        """What nothing proves yet: item, what (``item``, ``part`` or ``person``), and in words."""
        found = [(each.item.id, "person" if each.item.kind == "MANUAL" else "item", each.item.text)
                 for each in self.items if not each.fulfilled]
        return (*found, *((each.item.id, "part", part) for each in self.items for part in each.item.unproven))

    def to_json(self) -> dict[str, Any]:
        """For machines: phase, open, each item with what it rests on, and what nothing proves yet."""
        return {"phase": self.phase.number, "open": self.open, "items": [each.to_json() for each in self.items],
                "unproven": [{"id": id, "what": what, "says": says} for id, what, says in self.unproven]}


def decide(phase: int, evidence: Path, root: Path, only: str | None = None,
           trusted: Mapping[str, str] | None = None, own: tuple[Phase, AtHand] | None = None) -> Gate:
    """Decide a phase from ``evidence/phaseN`` and the checkout at ``root``.

    ``trusted`` (key id → name) says whose signatures count: with it nothing opens from a pack that none of them vouches for,
    without it no MANUAL item is ever fulfilled. ``own`` are the checklist and the build of a system that is not the
    checkout's. Raises UsageError for an unknown phase or group.
    """
    checklist = own[0] if own else load_phase(root, phase)
    if only is not None and only not in checklist.groups:
        raise UsageError(f"phase {phase} has no group {only!r}; known: {', '.join(checklist.groups)}"
                         + hint(only, checklist.groups))
    pack = evidence / pack_name(phase)
    looked = examine(pack, trusted) if pack.is_dir() else None
    why = _unusable(looked, phase, pack)
    items = [item for item in checklist.items if only in (None, item.group)]
    if looked is None or why is not None:
        reason = why or "there is no evidence"
        return Gate(checklist, only, tuple(_closed(item, reason) for item in items), str(pack), reason)
    beside = attempts_beside(evidence / RUN_LOG_FILE, _mapping(looked.about["runs"]).values())
    hand = replace(own[1] if own else at_hand(root, phase), uncommitted=uncommitted(root))
    found = evidence_of(looked, beside)
    signed = {item.id: item for item in load_phase(pack / RULES, phase).items}
    unreal = next((f"{name}: {why}" for name, each in found.items() for why in _of_the_world(each, hand)), None)
    decided = tuple(_manual(item, looked, signed.get(item.id), unreal) if item.kind == "MANUAL" else weigh(item, found, hand)
                    for item in items)
    return Gate(checklist, only, decided, str(pack), looked.seal_says)


def _unusable(looked: Examination | None, phase: int, pack: Path) -> str | None:
    """Why nothing in a pack counts, or None."""
    if looked is None:
        return f"there is no pack at {pack}: make one with `make drills`"
    if looked.findings:
        more = f" (and {len(looked.findings) - 1} more)" if len(looked.findings) > 1 else ""
        return f"the pack is not intact: {looked.findings[0]}{more}"
    if looked.about.get("phase") != phase:
        return "the pack is of another phase"
    if looked.about.get("run_log") is None:
        return "the pack has no run log: nobody can tell how often it was tried"
    return None


def evidence_of(looked: Examination, beside: Sequence[Attempt] = ()) -> dict[str, Evidence]:
    """The drills of an intact pack, by the name that their recordings have; ``beside`` is what the log beside it tells of.

    The log goes on where the slice in the pack ends. The slice is asked all the same: it is what a seal holds.
    """
    sets = _mapping(_mapping(looked.about).get("sets"))
    return {each.name: Evidence(each.story.head, each.story.versions, each.story.stack, looked.verdicts[each.folder],
                                later(each, looked.attempts) or later(each, beside), str(sets.get(each.name, "")),
                                hollow(each, (*looked.attempts, *beside)), each.other_text)
            for each in looked.chapters}


def at_hand(root: Path, phase: int) -> AtHand:
    """The digests of the checkout. Raises UsageError where it has no readable stack."""
    stack = load_stack(root / SYSTEM / "stack.yaml")
    drills = {file.stem: sha256_file(file) for file in drills_of(root, phase)}
    policies = {name: policy_sha256(stack.policy(name)) for name in stack.policies}
    return AtHand(tree_sha256(root / SYSTEM), stack.sha256, rules_digests(root), drills, policies, machines_of(stack),
                  recorder_sha256(root))


# ---- weighing ---------------------------------------------------------------------------------------------


def weigh(item: Item, evidence: Mapping[str, Evidence], hand: AtHand) -> Decided:
    """An AUTO item: at least so many of its drills must count, all from one commit, with its invariants."""
    if not item.drills:
        return Decided(item, "closed", f"nothing proves it yet; to open it ({item.who}): {item.how}", False)
    against = {name: _against(name, item, evidence.get(name), hand) for name in item.drills}
    grounds = tuple(_ground(name, item, evidence.get(name), why) for name, why in against.items())
    closed = partial(Decided, item, "closed", fulfilled=False, rests_on=grounds)
    good = [name for name, why in against.items() if why is None]
    commits = {evidence[name].versions["git"]["commit"] for name in good}
    if len(commits) > 1:
        return closed(reason=f"mixed: its drills ran on {len(commits)} commits")
    if len(good) < item.at_least:
        first = next((f"{name}: {why}" for name, why in against.items() if why is not None),
                     "it asks for more drills than it names")
        return closed(reason=f"{len(good)} of {item.at_least} needed; {first}")
    if idle := _never_asked(item, [evidence[name] for name in good]):
        return closed(reason=f"the law {idle} was never put to the test in {', '.join(good)}")
    rungs = tuple(sorted({str(evidence[name].rung) for name in good}, key=LADDER.index))
    reason = f"PASS of {', '.join(good)}" if len(good) <= 3 else f"PASS of {len(good)} drills"
    return Decided(item, "open", f"{reason}, judged again, at {'/'.join(rungs)}", True, rungs, grounds)


def _ground(name: str, item: Item, evidence: Evidence | None, why: str | None) -> Ground:
    """A drill as an item's ground, for people and machines to look at; what decides is ``why`` alone."""
    if evidence is None:
        return Ground(name, objection=why)
    laws = {str(law.get("id")): _count(_mapping(law.get("details")).get("asked"))
            for law in evidence.verdict.get("laws") or () if law.get("id") in item.invariants}
    return Ground(name, _word(evidence.verdict.get("verdict")), _word(evidence.head.get("world")), evidence.rung, why, laws,
                  evidence.set)


def _word(value: Any) -> str | None:
    return value if _is_text(value) else None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _against(name: str, item: Item, evidence: Evidence | None, hand: AtHand) -> str | None:
    """The first objection to a drill's evidence for an item, or None."""
    if evidence is None:
        return "is not in the pack"
    return next(iter((*_objections(name, evidence, hand), *_item_objections(item, evidence))), None)


def _never_asked(item: Item, good: Sequence[Evidence]) -> str | None:
    """The first of an item's laws that holds only because nothing strained against it in any of its drills."""
    asked = {law.get("id") for each in good for law in each.verdict["laws"]
             if (_mapping(law.get("details")).get("asked") or 0) > 0}
    return next((law for law in item.invariants if law not in asked), None)


def _objections(name: str, evidence: Evidence, hand: AtHand) -> list[str]:
    """Everything that keeps a drill's evidence from counting, the plainest first."""
    return [*_of_the_world(evidence, hand), *_of_the_verdict(evidence), *_of_the_build(name, evidence, hand)]


def _of_the_world(evidence: Evidence, hand: AtHand) -> Iterator[str]:
    head, proxy = evidence.head, _mapping(evidence.head.get("proxy"))
    if head.get("placebo") is not False or evidence.verdict.get("placebo") is not False:
        yield "a placebo run breaks nothing and proves nothing"
    if not hand.machines or head.get("machines") != hand.machines:
        yield "some node ran another machine than the stack's own (a mutant)"
    if head.get("world") not in REAL_WORLDS:
        yield f"ran in the world {head.get('world')}; only {' and '.join(REAL_WORLDS)} count"
    if proxy.get("kind") != PROXY or not _is_text(proxy.get("version")) or not _is_text(proxy.get("sha256")):
        yield "did not run through a Toxiproxy that the recording identifies"


def _of_the_verdict(evidence: Evidence) -> Iterator[str]:
    verdict = evidence.verdict
    if verdict.get("status") != "completed":
        yield f"the run was {verdict.get('status')}"
    if verdict.get("verdict") != "PASS":
        yield f"{verdict.get('verdict')}{_worst(verdict)}"
    if not all(verdict.get(group) for group in ("premises", "promises", "laws")):
        yield "its verdict rests on no premise, no promise or no law"
    if not any(str(each.get("id")).startswith(("landed:", "pressed:")) for each in verdict.get("premises") or ()):
        yield "nothing was broken in it"
    if all(each.get("id") == "converge" for each in verdict.get("promises") or ()):
        yield "it promised nothing but to come back"
    if evidence.hollow is not None:
        yield f"it passes without its force, too, and proves nothing ({evidence.hollow})"
    if evidence.later is not None:
        yield f"a later attempt with the same build ended as {evidence.later}"


def _of_the_build(name: str, evidence: Evidence, hand: AtHand) -> Iterator[str]:
    head, git = evidence.head, _mapping(evidence.versions.get("git"))
    if git.get("dirty") is not False:
        yield "dirty: the checkout had changes that no commit holds"
    if not _is_text(git.get("commit")):
        yield "does not say which commit it ran on"
    policy = _mapping(head.get("policy"))
    wanted: Sequence[tuple[str, Any, Any]] = (
        ("system", head.get("system"), hand.system),
        ("stack", _mapping(head.get("stack")).get("sha256"), hand.stack),
        ("drill text", _mapping(head.get("drill")).get("sha256"), hand.drills.get(name)),
        ("policy", policy.get("sha256"), hand.policies.get(str(policy.get("name")))),
        ("recorder", head.get("recorder"), hand.recorder),
    )
    for word, recorded, present in wanted:
        if recorded is None or recorded != present:
            yield f"stale: ran with another {word} than the one at hand: run it again"
    if evidence.other_text:
        yield "ran with another drill text than lay under its name when the pack was made: run it again"
    if head.get("world") == "docker":
        yield from _of_the_images(_mapping(_mapping(evidence.versions.get("world")).get("images")), hand.images)
    rules = _mapping(head.get("rules"))
    if not rules or rules != hand.rules:
        yield f"stale: was made for other rules than those at hand{_first_rule(rules, hand.rules)}"
    if hand.uncommitted is not None:  # the judge that judges it again, for one, which no digest of the run names
        yield f"dirty: the checkout at hand has changes that no commit holds ({hand.uncommitted})"


def _of_the_images(recorded: Mapping[str, Any], present: Mapping[str, str | None]) -> Iterator[str]:
    """Another image under the same name is another system."""
    for node, id in present.items():
        if id is None:
            yield f"no engine at hand has the image of {node}: nobody can say whether it is the one that ran"
        elif _mapping(recorded.get(node)).get("id") != id:
            yield f"stale: ran with another image of {node} than the one at hand"


def _item_objections(item: Item, evidence: Evidence) -> Iterator[str]:
    laws = {law.get("id"): law.get("verdict") for law in evidence.verdict.get("laws") or ()}
    for law in item.invariants:
        if laws.get(law) != "PASS":
            yield f"the law {law} is {laws.get(law, 'not judged')}"
    if evidence.rung is None or LADDER.index(evidence.rung) < LADDER.index(item.rung):
        yield f"was recorded at {evidence.rung}; this item needs {item.rung}"
    under = {"world": evidence.head.get("world"), "policy": _mapping(evidence.head.get("policy")).get("name")}
    for what, wanted in (item.recorded or {}).items():
        if under.get(what) != wanted:
            yield f"was recorded in the {what} {under.get(what)}; this item needs {wanted}"


def _worst(verdict: Mapping[str, Any]) -> str:
    """The first check that failed, else the first that was inconclusive, in its own words."""
    golden = [verdict["golden"]] if verdict.get("golden") else []
    checks = [*(verdict.get("promises") or ()), *golden, *(verdict.get("laws") or ()), *(verdict.get("premises") or ())]
    for word in ("FAIL", "INCONCLUSIVE"):
        for check in checks:
            if check.get("verdict") == word:
                return f": {check.get('id')}: {check.get('says')}"
    return ""


def _first_rule(recorded: Mapping[str, Any], present: Mapping[str, str]) -> str:
    names = sorted(path for path in {*recorded, *present} if recorded.get(path) != present.get(path))
    return f" ({names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''})" if names else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _closed(item: Item, why: str) -> Decided:
    """An item of a phase without a usable pack."""
    return _asked(item) if item.kind == "MANUAL" else Decided(item, "closed", why, False)


def _asked(item: Item) -> Decided:
    return Decided(item, "MANUAL", f"only the {item.who} can open it: {item.how}", False)


def _manual(item: Item, looked: Examination, signed: Item | None, unreal: str | None) -> Decided:
    """A person's item: shown as MANUAL whatever is signed. ``signed`` is the item as it stands in the pack that was signed,
    ``unreal`` why one of the pack's drills did not run in a real world."""
    asked = _asked(item)
    if not (looked.attestation.good and looked.signoff.good):
        return asked
    says = _mapping(looked.signoff.says)
    seen = _mapping(says.get("items")).get(item.id)
    if not _is_text(seen):
        return asked
    if why := unreal or (None if signed == item else "the item says something else now than what was signed"):
        return replace(asked, reason=f"{looked.signoff.name} signed it, which does not count: {why}")
    return replace(asked, reason=f"signed by {looked.signoff.name} on {says.get('signedAt')}: {seen}", fulfilled=True)


# ---- showing ----------------------------------------------------------------------------------------------

COLOURS = {"open": "32", "closed": "31", "MANUAL": "33"}
WIDTH = 110
TOLD_MAX = 6
"""More items without proof than this are told by name only in the closing list."""


def render(decision: Gate, stream: TextIO) -> str:
    """The table for a terminal: each item with its state, why, what is missing and who can open it."""
    phase = decision.phase
    paint = stream.isatty()
    lines = [phase.title + (f", group {decision.only} only" if decision.only else ""),
             f"Pack: {decision.pack}: {visible(decision.pack_says)}"]
    for group, says in phase.groups.items():
        members = [each for each in decision.items if each.item.group == group]
        if members:
            lines += ["", f"{group}: {says}"]
            lines += [line for each in members for line in _lines(each, paint)]
    return "\n".join((*lines, "", *_nothing_proves(decision), *_conclusion(decision, paint)))


def _lines(decided: Decided, paint: bool) -> Iterator[str]:
    item = decided.item
    yield f"  {_painted(f'{decided.state:7}', paint)} {item.id:22} {item.text}"
    told = decided.state != "closed" or item.how in decided.reason
    reason = decided.reason if told else f"{decided.reason} · to open it ({item.who}): {item.how}"
    if decided.state == "open":
        reason = _rests(decided)
    yield from textwrap.wrap(visible(reason), WIDTH, initial_indent=" " * 10, subsequent_indent=" " * 10)


def _rests(decided: Decided) -> str:
    """What an open item rests on: drills with where they ran, laws with how often they were asked."""
    where: dict[tuple[str, str], list[str]] = {}
    for ground in decided.rests_on:
        if ground.objection is None:
            where.setdefault((f"{ground.set} " if ground.set else "", f"{ground.verdict} in {ground.world}, {ground.rung}"),
                             []).append(ground.short)
    drills = " · ".join(f"{set}drill{'s' * (len(names) > 1)} {_listed(names)}: {told}" for (set, told), names in where.items())
    not_counted = [ground.short for ground in decided.rests_on if ground.objection is not None]
    beside = f" · not counted: {_listed(not_counted)}" if not_counted else ""
    laws = ", ".join(f"{law} asked {count}\u00d7" for law, count in decided.asked.items())
    return f"{drills}{beside} · {laws}"


def _listed(names: Sequence[str]) -> str:
    """Names one after another; three or more numbers without a gap as "1 to 16"."""
    parts: list[list[str]] = []
    for name in names:
        follows = parts and name.isdigit() and parts[-1][-1].isdigit() and int(name) == int(parts[-1][-1]) + 1
        parts[-1].append(name) if follows else parts.append([name])
    return ", ".join(f"{each[0]} to {each[-1]}" if len(each) > 2 else ", ".join(each) for each in parts)


def _nothing_proves(decision: Gate) -> Iterator[str]:
    """The closing list, the plainest first: items without proof, parts of items, what waits for a person."""
    titles = {"item": "whole items", "part": "parts that no drill shows, of items that count all the same",
              "person": "what a person has to say"}
    unproven = decision.unproven
    kinds = {each.item.kind for each in decision.items}
    all_is = " or ".join(word for word, kind in (("proven", "AUTO"), ("signed", "MANUAL")) if kind in kinds)
    yield "What nothing proves yet" if unproven else f"Everything on this list is {all_is}."
    for what, title in titles.items():
        told = [(id, says) for id, kind, says in unproven if kind == what]
        if told:
            yield f"  {title}:"
        if what == "person" or len(told) > TOLD_MAX and what == "item":  # the text stands above, each with how to open it
            yield from textwrap.wrap(", ".join(id for id, _ in told), WIDTH, initial_indent="    ", subsequent_indent="    ")
            continue
        for id, says in told:
            yield from textwrap.wrap(visible(says), WIDTH, initial_indent=f"    {id:18} ", subsequent_indent=" " * 23)
    yield ""


def _conclusion(decision: Gate, paint: bool) -> Iterator[str]:
    missing = [each for each in decision.items if not each.fulfilled]
    rungs = sorted({rung for each in decision.items for rung in each.rungs}, key=LADDER.index)
    yield f"Evidence of rung: {', '.join(rungs) or 'none'}"
    if decision.open and decision.only is None:
        yield f"The gate is {_painted('open', paint)}. It unlocks: {decision.phase.permission}"
    elif decision.open:
        yield f"This group is {_painted('open', paint)}. It alone unlocks nothing."
    else:
        words = ", ".join(f"{sum(1 for each in missing if each.state == state)} {state}"
                          for state in ("closed", "MANUAL") if any(each.state == state for each in missing))
        yield f"The gate is {_painted('closed', paint)}: {words}. It would unlock: {decision.phase.permission}"


def _painted(state: str, paint: bool) -> str:
    return f"\x1b[{COLOURS[state.strip()]}m{state}\x1b[0m" if paint else state
