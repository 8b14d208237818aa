"""Laws over a whole history. ``specs/invariants.yaml`` says which, each names one of the checks below and its data.

A law can FAIL whatever became of the drill's premises: a broken run excuses no broken law. Each check accuses only
what is certain: a row that may lie outside the window, or that a slowed link may have kept, accuses nobody.

Every PASS says in ``asked`` how often the law was put to the test: a gate believes no law that was never asked.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any

from harness.drill.predicate import is_number, of_plain
from harness.errors import SpecError, UsageError
from harness.recording.columns import Stretch, within, without
from harness.recording.rows import Row
from harness.recording.series import Point, Series
from harness.recording.timeline import Probe
from harness.verdict import agreement, candour, conduct, files
from harness.verdict.books import agree, at_most, positions, same_positions
from harness.verdict.case import Case, Run, Window, overlaps
from harness.verdict.check import FAIL, INCONCLUSIVE, PASS, Check, Finding, failed, guarded, passed, unsure
from harness.verdict.conduct import longest_clear
from harness.verdict.promises import in_the_dark, violations
from harness.verdict.rules import Law

Parameters = Mapping[str, Any]
How = Callable[[Case, Parameters], Finding]

_CHECKS: dict[str, How] = {}


def how(check: How) -> How:
    """A check that laws may name."""
    _CHECKS[check.__name__] = check
    return check


for _check in (*conduct.CHECKS, *files.CHECKS, *agreement.CHECKS, *candour.CHECKS):
    how(_check)


def checks() -> tuple[str, ...]:
    return tuple(_CHECKS)


def laws(case: Case) -> list[Check]:
    """Every law that the drill's surfaces let us ask, in the order of the file."""
    asked = [guarded(law.id, partial(_ask, law, case)) for law in case.rules.laws
             if all(surface in case.drill.sample for surface in law.surfaces) and case.watches(law.keeps)]
    return [*asked, *(guarded(f"contract:{surface}", partial(_keeps_its_own, surface, case)) for surface in case.own_surfaces),
            *(guarded(f"contract:{surface}", partial(lawful, case, {"surface": surface})) for surface in _unnamed(case))]


def _unnamed(case: Case) -> list[str]:
    """The sampled surfaces under the laws' contract that no law calls by its name: at least each document keeps it."""
    named = {surface for law in case.rules.laws for surface in law.surfaces}
    return [surface for surface in case.drill.sample
            if case.timeline.contract_of(surface) == case.rules.surfaces_keep and surface not in named]


def _ask(law: Law, case: Case) -> Finding:
    if law.how not in _CHECKS:
        raise SpecError(f"law {law.id} names no check: {law.how!r}")
    if why := case.not_asked(law):
        return passed(why, asked=0)
    finding = _CHECKS[law.how](case, law.parameters)
    if finding.verdict == PASS and finding.details.get("asked") == 0:
        return replace(finding, says=f"never put to the test here ({finding.says})")
    return finding


def _keeps_its_own(surface: str, case: Case) -> Finding:
    """Every document of a surface keeps the contract that its own stack brought along, one by one and in their order."""
    try:
        fields = case.own_contract(surface).monotone
    except UsageError as why:
        return unsure(str(why))
    finding = lawful(case, {"surface": surface})
    if finding.verdict != PASS or not fields:
        return finding
    fell = monotone(case, {"surface": surface, "fields": fields})
    return fell if fell.verdict != PASS else finding


# ---- documents --------------------------------------------------------------------------------------------


@how
def lawful(case: Case, with_: Parameters) -> Finding:
    """Every document of a surface keeps its contract, in the tags asked for."""
    surface = with_["surface"]
    track, findings = case.timeline.track(surface), case.findings(surface)
    raw = next(track.slots("raw"), None)
    for slot in sorted({*findings, *([raw] if raw is not None else [])}):
        if slot == raw and "tags" not in with_:
            return failed("an answer was no JSON object", track.grid.asked[slot], raw=dict(track.raw(slot) or {}))
        asked = [each for each in findings.get(slot, ()) if _asked(each.tag, with_)]
        if asked:
            return failed(f"a document breaks its contract: {asked[0]}", track.grid.asked[slot],
                          findings=[str(each) for each in asked[:10]])
    answered = track.count(None)
    if not answered:
        return unsure(f"{surface} never answered")
    return passed(f"all {answered} documents keep it", asked=answered)


@how
def each_lawful(case: Case, with_: Parameters) -> Finding:
    """Every document of every surface under a contract, or a part of it, keeps it."""
    found = {surface: lawful(case, {"surface": surface}) for surface in case.drill.sample
             if (case.timeline.contract_of(surface) or "").partition(".")[0] == with_["contract"]}
    for verdict in (FAIL, INCONCLUSIVE):
        for surface, each in found.items():
            if each.verdict == verdict:
                return replace(each, says=f"{surface}: {each.says}")
    documents = sum(each.details["asked"] for each in found.values())
    return passed(f"all {documents} documents of {len(found)} surfaces keep it", asked=documents)


def _asked(tag: str, with_: Parameters) -> bool:
    return tag in with_["tags"] if "tags" in with_ else tag not in with_.get("except_tags", ())


@how
def monotone(case: Case, with_: Parameters) -> Finding:
    """Fields that never fall while their process lives."""
    surface, paths = with_["surface"], with_["fields"]
    compared: Counter[str] = Counter()
    for life in case.lives(surface):
        falls = []
        for path in paths:
            pairs, fall = _falls(case.values(surface, path, life))
            compared[path] += pairs
            falls += [(*fall, path)] if fall is not None else []
        if falls:
            slot, old, new, path = min(falls, key=lambda fall: fall[0])
            return failed(f"{path} fell from {old} to {new}", case.timeline.track(surface).grid.asked[slot])
    if missing := [path for path in paths if not compared[path]]:
        return unsure(f"{missing[0]} was never seen twice")
    return passed(f"none of {len(paths)} fields fell", asked=min(compared.values()))


def _falls(values: Iterable[tuple[int, int, Any]]) -> tuple[int, tuple[int, Any, Any] | None]:
    """How many numbers were compared with the one before, and the first that was smaller: (slot, before, after)."""
    pairs, fall, before = 0, None, None
    for first, past, value in values:
        if not is_number(value):
            continue
        pairs += past - first - (before is None)
        if before is not None and value < before and fall is None:
            fall = first, before, value
        before = value
    return pairs, fall


@how
def keeps_up(case: Case, with_: Parameters) -> Finding:
    """Stamps that follow the process's own time: none ever falls far behind the freshest one of its life, and none is far
    ahead of what its loop then told (``ahead_of``, ``ahead_ms_max``; CONFLICTS 32). One that a declared fault halts catches up
    within the same time."""
    surface, most = with_["surface"], with_["behind_ms_max"]
    grid = case.timeline.track(surface).grid
    halted = sorted(grid.asked_in(begin, end + most) for begin, end in case.waived((surface,)))
    moments, lives = grid.asked, [without(life, halted) for life in case.lives(surface)]
    worst = asked = 0
    for path in with_["fields"]:
        for life in lives:
            freshest = min((moments[first] - stamp for first, _, stamp in _stamps(case, surface, path, life)), default=0)
            for first, past, stamp in _stamps(case, surface, path, life):
                asked, late = asked + past - first, moments[past - 1] - stamp - freshest
                if late > worst:
                    worst = int(late)
                if late > most:
                    behind = next(slot for slot in range(first, past) if moments[slot] - stamp - freshest > most)
                    by_ms = int(moments[behind] - stamp - freshest)
                    return failed(f"{path} stands {by_ms} ms behind while the process answers", moments[behind])
    if not asked:
        return unsure(f"{surface} never told a {with_['fields'][0]}")
    if (ahead := _ahead(case, with_, lives)) is not None:
        return ahead
    return passed(f"never more than {worst} ms behind", behind_ms=worst, asked=asked)


def _ahead(case: Case, with_: Parameters, lives: Sequence[Sequence[Stretch]]) -> Finding | None:
    """The first stamp that no time of its life can have been."""
    if "ahead_of" not in with_:
        return None
    surface, most = with_["surface"], with_["ahead_ms_max"]
    answered = case.timeline.track(surface).grid.answered
    for life in lives:
        loop = _stamps(case, surface, with_["ahead_of"], life)
        latest = max((stamp - answered[first] for first, _, stamp in loop), default=None)
        for path in with_["fields"] if latest is not None else ():
            for first, _, stamp in _stamps(case, surface, path, life):
                if (by_ms := stamp - answered[first] - latest) > most:
                    return failed(f"{path} is {by_ms} ms ahead of any time that {with_['ahead_of']} ever told", answered[first])
    return None


@how
def rolling(case: Case, with_: Parameters) -> Finding:
    """Counts of what happened in a window of time: within a life none falls before the first thing counted is as old as the
    window."""
    surface, asked = with_["surface"], 0
    grid = case.timeline.track(surface).grid
    for life in case.lives(surface):
        for path, window_ms in with_["window_ms"].items():
            counted: int | None = None
            before: int | float = 0
            for first, past, value in case.values(surface, path, life):
                if not is_number(value):
                    continue
                asked += past - first
                if value < before and counted is not None and grid.asked[first] - counted < window_ms:
                    return failed(f"{path} counts {window_ms} ms, and fell from {before} to {value} "
                                  f"{grid.asked[first] - counted} ms after it first counted", grid.asked[first])
                counted = grid.asked[first] if counted is None and value > 0 else counted
                before = value
    return passed(f"{asked} counts kept what they had counted", asked=asked)


def _stamps(case: Case, surface: str, path: str, life: Sequence[Stretch]) -> Iterator[tuple[int, int, Any]]:
    """(first, past, stamp) of each stretch of a life in which a field held a time."""
    return (each for each in case.values(surface, path, life) if is_number(each[2]) and each[2] > 0)


# ---- opening ----------------------------------------------------------------------------------------------


@how
def never_while_blocked(case: Case, with_: Parameters) -> Finding:
    """An event that never happens inside a stretch of blocking."""
    surfaces = (with_["surface"],)
    runs = case.runs(case.blocked.pieces, case.grain_ms(surfaces))
    broken, doubtful = violations(case, with_["event"], runs, surfaces)
    if broken:
        return failed(f"{with_['event']} happened {len(broken)} times while opening was blocked", broken[0].earliest,
                      rows=[dict(row.value) for row in broken[:10]])
    why = case.not_whole(*case.streams_of(with_["event"]))
    if why is not None:
        return unsure(why)
    if doubtful:
        return unsure(f"{with_['event']} arrived over a slowed link: it may have been sent before the block",
                      doubtful[0].earliest)
    if dark := in_the_dark(case, with_["event"], runs):
        return unsure(f"{with_['event']} happened between two stretches of blocking, and nobody saw what was between them",
                      dark[0].earliest)
    return passed(f"none in {len(runs)} stretches of blocking", asked=len(runs))


@how
def cleared_only_after(case: Case, with_: Parameters) -> Finding:
    """Each time the latch clears, the event has happened since it was set (or since the last restart)."""
    latched = of_plain(with_["latched"])
    surfaces, event = latched.surfaces, with_["event"]
    grain = case.grain_ms(surfaces)
    restarts = [moment for surface in surfaces for moment in case.restarts(case.timeline.node_of(surface))]
    why = case.not_whole(*case.streams_of(event))
    cleared = 0
    for since, free in _clearings(case.series(latched)):
        cleared += 1
        begin = max([since, *(moment for moment in restarts if moment <= free.answered)])
        if not case.happened(event, begin, free.answered + grain):
            if why is not None:
                return unsure(why, free.asked)
            return failed(f"the latch cleared without {event} since it was set", free.asked)
    written = case.timeline.stream(with_["ledger"])
    for since, row in _latch_cleared(written.rows.of_kind(with_["boot"], with_["latch"]), with_):
        cleared += 1
        if why is None and not case.happened(event, since, row.latest):
            return failed(f"the ledger cleared {row.value.get('code')} without {event} since it was set", row.earliest)
    why = why or case.not_whole(with_["ledger"])
    return passed(f"each of {cleared} clearings came after {event}", asked=cleared) if why is None else unsure(why)


def _latch_cleared(rows: Iterable[Row], with_: Parameters) -> list[tuple[int, Row]]:
    """(when it was set, the row) of every clearing that the ledger holds; what is set at a boot is set by the boot."""
    boot, since, found = 0, {}, []  # type: ignore[var-annotated]
    for row in rows:
        if row.kind == with_["boot"]:
            boot, since = row.earliest, {}
        elif row.kind == with_["latch"] and row.value.get("event") == "set":
            since[row.value.get("code")] = row.earliest
        elif row.kind == with_["latch"] and row.value.get("event") == "cleared":
            found.append((since.pop(row.value.get("code"), boot), row))
    return found


def _clearings(points: Series) -> list[tuple[int, Point]]:
    """(no later than when it was set, first free sample) of every change from latched to free."""
    found, since, latched = [], None, False
    for piece in points.pieces:
        if piece.holds is None:
            continue
        first = piece.point(piece.first)
        if piece.holds:
            since = since if since is not None else first.asked
            latched = True
        else:
            if latched:
                found.append((since if since is not None else first.asked, first))
            since, latched = piece.grid.asked[piece.past - 1], False
    return found


# ---- orders and the ledger --------------------------------------------------------------------------------


@how
def no_duplicate(case: Case, with_: Parameters) -> Finding:
    """No label twice on the books, no intent (by its hash) sent twice by the ledger."""
    doubled = case.rows(with_["event"])
    if doubled:
        return failed(f"the label {doubled[0].value.get('label')!r} was accepted twice", doubled[0].earliest)
    stream = case.timeline.stream(with_["stream"])
    hashes = {row.value.get(with_["id"]): row.value.get(with_["hash"]) for row in stream.rows.of_kind(with_["intent"])}
    sent: set[Any] = set()
    for row in stream.rows.of_kind(with_["sent"]):
        key = hashes.get(row.value.get(with_["id"])) or row.value.get(with_["id"])
        if key in sent:
            return failed(f"the intent {key} was sent twice", row.earliest)
        sent.add(key)
    why = case.not_whole(*case.streams_of(with_["event"]), with_["stream"])
    return passed(f"{len(sent)} intents were sent, each once", asked=len(sent)) if why is None else unsure(why)


@how
def recorded_first(case: Case, with_: Parameters) -> Finding:
    """Every labelled order on the books has its ledger row from before it arrived, in which it is the same order."""
    recorded: dict[Any, Row] = {}
    for row in case.of_kind(with_["ledger"], with_["intent"]):
        recorded.setdefault(row.value.get("label"), row)
    waived = {row.value.get("label") for row in case.of_kind(with_["notes"], with_["dispatched"])
              if row.value.get(with_["waived"])}
    why = case.not_whole(*case.streams_of(with_["event"]), with_["ledger"])
    orders = case.rows(with_["event"])
    for row in orders:
        label, opening = row.value.get("label"), row.value.get("opening")
        said = _not_recorded(row, recorded.get(label), label in waived and opening is False, with_)
        if said is None:
            continue
        if why is not None:
            return unsure(why)
        return failed(f"the {'opening' if opening else 'reducing'} order {label!r} {said}", row.earliest)
    return passed(f"{len(orders)} orders were recorded or waived before they arrived", asked=len(orders)) \
        if why is None else unsure(why)


def _not_recorded(order: Row, record: Row | None, waived: bool, with_: Parameters) -> str | None:
    """What is wrong with the record of an order, or None."""
    if record is None:
        return None if waived else "was never recorded"
    if (otherwise := _recorded_otherwise(order.value, record.value, with_)) is not None:
        return otherwise
    return None if waived or record.earliest <= order.latest else "was recorded only after it had arrived"


def _recorded_otherwise(order: Mapping[str, Any], record: Mapping[str, Any], with_: Parameters) -> str | None:
    """In which of the fields that both tell an order is not the one of its record, or None."""
    for mine, theirs in with_["same"].items():
        said, sent = record.get(mine), order.get(theirs)
        if said is not None and sent is not None and not agree(said, sent) and not _clipped(order, theirs, said, sent, with_):
            return f"has {theirs} {sent}, and was recorded with {mine} {said}"
    return None


def _clipped(order: Mapping[str, Any], field: str, said: Any, sent: Any, with_: Parameters) -> bool:
    """Whether an exchange alone may have made the difference: less of what reduces, or a price that is better for the sender
    (it keeps prices within a band, and a post-only order away from the other side)."""
    if field == with_["clipped"]:
        return order.get("reduce_only") is True and at_most(sent, said)
    if field == with_["banded"]:
        return at_most(sent, said) if order.get("direction") == "buy" else at_most(said, sent)
    return False


@how
def nothing_lost(case: Case, with_: Parameters) -> Finding:
    """What was dispatched as recorded is in the final ledger, and its durable length never fell."""
    kept = {row.value.get(with_["id"]) for row in case.of_kind(with_["ledger"], with_["intent"])}
    why = case.not_whole(with_["ledger"], with_["notes"])
    for row in case.of_kind(with_["notes"], with_["dispatched"]):
        if not row.value.get(with_["waived"]) and row.value.get(with_["id"]) not in kept:
            if why is not None:
                return unsure(why)
            return failed(f"the intent {row.value.get(with_['id'])} was dispatched as recorded and is not in the ledger",
                          row.earliest)
    for probes in _of_one_log(case, with_["probe"]):
        if (shrunk := _shrunk(probes, with_["aside_ms"])) is not None:
            before, after = shrunk
            return failed(f"the durable ledger shrank from {before} to {after.value} bytes", after.at)
    return passed(f"the ledger holds all {len(kept)} intents", asked=len(kept)) if why is None else unsure(why)


def _of_one_log(case: Case, what: str) -> Iterable[list[Probe]]:
    """The numbers that the witnesses of all faults on one node saw, in time."""
    found: dict[str | None, list[Probe]] = {}
    for fault in case.drill.faults:
        found.setdefault(getattr(fault.force, "node", None), []).extend(
            each for each in case.timeline.probes(fault.id, what) if is_number(each.value))
    return (sorted(probes, key=lambda each: each.at) for probes in found.values())


def _shrunk(probes: Sequence[Probe], aside_ms: int) -> tuple[Any, Probe] | None:
    """A number that is smaller than one before it, and that one: of the same witness, or surely asked for before."""
    most, past = 0, 0
    own: dict[str, Any] = {}
    for each in probes:
        while probes[past].at < each.at - aside_ms:
            most, past = max(most, probes[past].value), past + 1
        before = max(most, own.get(each.id, 0))
        if each.value < before:
            return before, each
        own[each.id] = each.value
    return None


@how
def legible(case: Case, with_: Parameters) -> Finding:
    """No line of the sealed ledger is anything but a row. One that was altered afterwards does not fit its seal."""
    stream = case.timeline.stream(with_["ledger"])
    if stream.illegible is not None:
        return failed(f"line {stream.illegible} of the {stream.name} was written so that nobody can read it")
    why = case.not_whole(with_["ledger"])
    return passed(f"all {len(stream.rows)} rows can be read", asked=len(stream.rows)) if why is None else unsure(why)


@how
def fills_once(case: Case, with_: Parameters) -> Finding:
    """Books and ledger agree on every fill: each once, in the same words, none invented, none missing in the end."""
    ledger = case.of_kind(with_["ledger"], with_["kind"])
    counted = Counter(row.value.get(with_["id"]) for row in ledger)
    intents = {row.value.get("label"): row.value.get(with_["of"]) for row in case.of_kind(with_["ledger"], with_["intent"])}
    books = {row.value.get(with_["id"]): _brief(row, ("label", *with_["same"].values())) for row in case.rows(with_["event"])}
    why = case.not_whole(*case.streams_of(with_["event"]), with_["ledger"])
    for row in ledger:
        id = row.value.get(with_["id"])
        if counted[id] > 1:
            return failed(f"the fill {id} was counted {counted[id]} times", row.earliest)
        told = books.get(id)
        if wrong := None if why is not None else _wrong_fill(row, told, with_["same"]):
            return failed(f"the ledger has the fill {id}, {wrong}", row.earliest)
        of = intents.get(told.value.get("label")) if told is not None else None
        if of is not None and row.value.get(with_["of"]) != of and why is None:
            return failed(f"the ledger has the fill {id} as one of {row.value.get(with_['of'])}, and not of {of}", row.earliest)
    for id, row in books.items():
        if counted[id] == 0 and row.latest <= case.end - with_["bound_ms"] and why is None:
            return failed(f"the fill {id} of the books is not in the ledger", row.earliest)
    return passed(f"{len(books)} fills, each counted once", asked=len(books)) if why is None else unsure(why)


def _brief(row: Row, fields: Iterable[str]) -> Row:
    """A row with these of its fields: what is kept of many."""
    return Row(row.earliest, row.latest, {field: row.value.get(field) for field in fields})


def _wrong_fill(row: Row, told: Row | None, same_: Mapping[str, str]) -> str | None:
    """What is wrong with a fill of the ledger beside the one of the books, or None."""
    if told is None:
        return "which the books do not"
    if row.latest < told.earliest:
        return f"{told.earliest - row.latest} ms before it happened: one of the clocks lies"
    other = next((mine for mine, theirs in same_.items() if not agree(row.value.get(mine), told.value.get(theirs))), None)
    return f"whose {other} is not the one of the books" if other is not None else None


@how
def positions_agree(case: Case, with_: Parameters) -> Finding:
    """Each time the system says that it compared, what it believes to own is what the books held at some moment of it.

    The moment is not known: the comparison began some time before its row (both stamps are of the node's own clock),
    so every state of the books in between counts, and so does each one that lies a transit around it. What it says itself of
    how long it took is believed for ``took_ms_max``, and longer for as long as a declared fault troubled it.
    """
    stream = case.timeline.stream(with_["ledger"])
    why = case.not_whole(with_["ledger"], with_["books"])
    states = positions(case, with_)
    node, exchange = stream.node, case.timeline.stream(with_["books"]).node
    transit = max(case.timeline.transit_ms(node, exchange), 1)
    troubled = case.troubled((node, exchange), with_["links"])
    asked = 0
    for row in stream.rows.of_kind(with_["reconciled"]):
        own, begun, ended = (row.value.get(with_[key]) for key in ("positions", "begun", "ended"))
        if not isinstance(own, Mapping):
            continue
        asked += 1
        took = ended - begun if isinstance(begun, int) and isinstance(ended, int) else 0
        begun_ms = max(row.earliest - max(took, 0), _back(row.earliest, with_["took_ms_max"], troubled))
        first, last = begun_ms - transit, row.latest + transit
        if why is None and not any(same_positions(own, held) for held in states.held(first, last)):
            return failed("the system reconciled and believed to own what the books do not hold", row.earliest,
                          believed=dict(own), books=[dict(held) for held in states.held(first, last)][:5])
    return passed(f"{asked} times it compared, and owned what the books hold", asked=asked) if why is None else unsure(why)


def _back(moment: int, spare: int, windows: Iterable[Window]) -> int:
    """How far back from a moment so much spare time reaches, where what lies in the windows counts for none."""
    for begin, end in sorted(windows, key=lambda window: -window[1]):
        if end < moment - spare:
            break
        spare -= max(moment - end, 0)
        moment = min(moment, begin)
    return moment - spare


@how
def naked_passes(case: Case, with_: Parameters) -> Finding:
    """The account's net delta on the books leaves neutral for a group's own time only, whatever the status says."""
    bound, cut = with_["bound_ms"], _cut_off(case, with_)
    why = case.not_whole(*case.streams_of(with_["event"]))
    longest, since, asked = 0, None, 0
    rows = [(row.earliest, row.latest, delta) for row in case.rows(with_["event"])
            if is_number(delta := row.value.get(with_["net_delta"]))]
    for index, (_, latest, delta) in enumerate(rows):
        asked += 1
        until = rows[index + 1][0] if index + 1 < len(rows) else case.end
        if abs(delta) <= with_["neutral"]:
            since = None
            continue
        since = latest if since is None else since
        begin, lasted = longest_clear(since, until, cut)
        longest = max(longest, lasted)
        if lasted > bound and why is None:
            return failed(f"the account was naked for {lasted} ms, with a net delta of {delta}",
                          begin)
    return passed(f"never naked for longer than {longest} ms", asked=asked) if why is None else unsure(why)


def _cut_off(case: Case, with_: Parameters) -> list[Window]:
    """When a declared fault keeps the system from its exchange, or the exchange from taking orders: one that does by itself,
    or all of those that only do together."""
    server = case.timeline.stream(case.streams_of(with_["event"])[0]).node
    clients = {link.get("from") for name, link in (case.timeline.stack.get("links") or {}).items()
               if name in with_["links"]}
    return [*case.troubled((*clients, server), with_["links"], with_["excused"]), *_both_ways_shut(case, with_)]


def _both_ways_shut(case: Case, with_: Parameters) -> list[Window]:
    """When switches are on that do no harm one by one: together they keep orders away, or their fate unknown."""
    return reduce(within, [case.troubled((), (), (switch,)) for switch in with_["excused_together"]] or [[]])


# ---- reducing ---------------------------------------------------------------------------------------------


@how
def reducing_possible(case: Case, with_: Parameters) -> Finding:
    """A wish to reduce, made while blocked and exposed, leads to a reducing order, of its group if it names one, unless
    nothing can be reached."""
    surface, bound = with_["surface"], with_["bound_ms"]
    runs = case.runs(case.blocked.pieces, case.grain_ms((surface,)))
    node = case.timeline.node_of(surface)
    cut = [*case.troubled((node, case.timeline.stream(case.streams_of(with_["event"])[0]).node), with_["links"]),
           *_both_ways_shut(case, with_)]
    exposed, came = _exposed(case, with_["exposure"]), _came(case, with_["event"])
    why = case.not_whole(*case.streams_of(with_["event"]), *case.streams_of(with_["wish"]))
    served = 0
    for wish in case.rows(with_["wish"]):
        end = wish.latest + bound
        if wish.value.get("class") not in with_["classes"] or not _in_a_run(wish, runs):
            continue
        if came(wish.value.get(with_["group"]), wish.earliest, end):
            served += 1
        elif end <= case.end and not overlaps(wish.earliest, end, cut) and exposed(wish.earliest, end) and why is None:
            return failed(f"a wish to reduce led to no reducing order within {bound} ms while exposed", wish.earliest)
    return passed(f"{served} wishes to reduce were served while blocked", asked=served) if why is None else unsure(why)


def _came(case: Case, event: str) -> Callable[[Any, int, int], bool]:
    """Whether an order may have come within a window whose label names a group, by as much of it as a label holds; any order
    where there is no group to be named."""
    of_group: dict[str, list[Row]] = {}
    for row in case.rows(event):
        of_group.setdefault(_group_in(row.value.get("label")) or "", []).append(row)
    held = {len(part) for part in of_group if part}

    def came(group: Any, begin: int, end: int) -> bool:
        if not isinstance(group, str) or not group:
            return case.any_near(event, begin, end)
        return any(row.latest >= begin and row.earliest <= end for length in held for row in of_group.get(group[:length], ()))

    return came


def _in_a_run(row: Row, runs: Sequence[Run]) -> bool:
    return any(run.first.answered <= row.earliest and row.latest <= run.last.asked for run in runs)


def _exposed(case: Case, told: Mapping[str, Any]) -> Callable[[int, int], bool]:
    """Whether some position was open on the books throughout a window."""
    changes: list[tuple[int, str, float]] = []
    for row in case.of_kind(told["stream"], *told["sizes"]):
        size = row.value.get(told["sizes"].get(row.kind))
        if is_number(size):
            changes.append((row.earliest, str(row.value.get("instrument")), float(size)))
    moments: list[tuple[int, bool]] = [(-1, False)]
    sizes: dict[str, float] = {}
    for moment, instrument, size in changes:
        sizes[instrument] = size
        moments.append((moment, any(sizes.values())))

    def throughout(begin: int, end: int) -> bool:
        before = [open_ for moment, open_ in moments if moment <= begin]
        return bool(before and before[-1]) and all(open_ for moment, open_ in moments if begin < moment <= end)

    return throughout


@how
def fills_reduce(case: Case, with_: Parameters) -> Finding:
    """No fill raises both |position| and |net delta| while the condition holds, and it ends with the account neutral."""
    condition = of_plain(with_["while"])
    runs = case.runs(case.series(condition).pieces, case.grain_ms(condition.surfaces))
    transit = case.transit_ms(with_["event"], condition.surfaces)
    asked = 0
    for row in case.rows(with_["event"]):
        if not any(row.earliest > run.first.answered + transit and row.latest < run.last.asked for run in runs):
            continue
        asked += 1
        if _raises(row.value, with_["tolerance"]):
            return failed(f"the fill {row.value.get('trade_id')} made exposure larger", row.earliest,
                          row=dict(row.value))
    why = case.not_whole(*case.streams_of(with_["event"]))
    fills = asked
    for run in runs:
        left = _net_delta_at(case, with_["event"], run.last.asked) if run.after is not None else None
        asked += left is not None
        if left is not None and abs(left) > with_["neutral"] and why is None:
            return failed(f"containment ended with a net delta of {left}", run.last.asked)
    return passed(f"none of {fills} fills made exposure larger", asked=asked) if why is None else unsure(why)


def _net_delta_at(case: Case, event: str, moment: int) -> float | None:
    """The account's net delta after the last fill before a moment; None when a fill may lie on either side of it."""
    rows = [row for row in case.rows(event) if row.earliest <= moment and is_number(row.value.get("net_delta_after"))]
    if not rows or rows[-1].latest > moment:
        return None
    return float(rows[-1].value["net_delta_after"])


def _raises(fill: Mapping[str, Any], tolerance: float) -> bool:
    amount, after = fill.get("amount"), fill.get("position_after")
    before, now = fill.get("net_delta_before"), fill.get("net_delta_after")
    if not (is_number(amount) and is_number(after) and is_number(before) and is_number(now)):
        return False
    signed = amount if fill.get("direction") == "buy" else -amount
    larger = abs(after) > abs(after - signed) + tolerance
    return larger and abs(now) > abs(before) + tolerance


@how
def resting_cancelled(case: Case, with_: Parameters) -> Finding:
    """An opening order that rests is gone from the books a bound after the mode has left Active."""
    condition, bound = of_plain(with_["outside"]), with_["bound_ms"]
    surfaces = condition.surfaces
    runs = case.runs(case.series(condition).pieces, case.grain_ms(surfaces))
    server = case.timeline.stream(case.streams_of(with_["placed"])[0]).node
    cut = case.troubled((case.timeline.node_of(surfaces[0]), server), with_["links"], with_["excused"])
    bound += case.transit_ms(with_["placed"], surfaces)
    why = case.not_whole(*case.streams_of(with_["placed"]))
    asked = 0
    for order in case.rows(with_["placed"]):
        if order.value.get("time_in_force") in with_["passing"] or order.value.get("reduce_only") is True:
            continue
        gone = _gone(case, order, with_)
        asked += any(gone >= (run.before or run.first).asked and order.latest <= run.last.asked for run in runs)
        for run in runs:
            begin, lasted = longest_clear(max(run.first.answered, order.latest), min(gone, run.last.asked), cut)
            if lasted > bound and why is None:
                return failed(f"the opening order {order.value.get('order_id')} still rested {bound} ms after opening "
                              "was blocked", begin + bound)
    return passed(f"none of {asked} opening orders rested outside Active", asked=asked) if why is None else unsure(why)


@how
def rests_briefly(case: Case, with_: Parameters) -> Finding:
    """An order of the ledger that may open is gone a bound after the policy calls it old, and the next sweep came. One whose
    sender's clock was troubled has no age."""
    old, sweep = case.policy.get(with_["old_sec"]), case.policy.get(with_["sweep_ms"])
    if not is_number(old) or not is_number(sweep):
        return passed(f"the policy states no {with_['old_sec']}", asked=0)
    most = old * 1000 + sweep + with_["bound_ms"]
    own = {row.value.get("label") for row in case.of_kind(with_["ledger"], with_["intent"])}
    cut = [*_cut_off(case, with_), *case.clocks_troubled(case.timeline.stream(with_["ledger"]).node)]
    why = case.not_whole(*case.streams_of(with_["event"]), with_["ledger"])
    asked = longest = 0
    for order in case.rows(with_["event"]):
        if order.value.get("time_in_force") in with_["passing"] or order.value.get("label") not in own:
            continue
        begin, lasted = longest_clear(order.latest, _gone(case, order, with_), cut)
        asked, longest = asked + 1, max(longest, lasted)
        if lasted > most and why is None:
            return failed(f"the order {order.value.get('order_id')} rested for {lasted} ms", begin + int(most))
    return passed(f"none of {asked} orders rested for longer than {longest} ms", asked=asked) if why is None else unsure(why)


def _gone(case: Case, order: Row, with_: Parameters) -> int:
    """When the order left the books: cancelled, or filled to its whole amount; the end of the recording if never."""
    id, left = order.value.get("order_id"), order.value.get("amount")
    for row in case.rows(with_["cancelled"]):
        if row.value.get("order_id") == id:
            return row.earliest
    for row in case.rows(with_["filled"]):
        if row.value.get("order_id") == id and is_number(left) and is_number(row.value.get("amount")):
            left -= row.value["amount"]
            if left <= 0:
                return row.earliest
    return case.end


# ---- wishes -----------------------------------------------------------------------------------------------


@how
def wishes_served(case: Case, with_: Parameters) -> Finding:
    """While active throughout its bound, each wish is dispatched or refused, and every refusal has a known code."""
    active, bound = of_plain(with_["active"]), with_["bound_ms"]
    runs = case.runs(case.series(active).pieces, case.grain_ms(active.surfaces))
    stream = case.timeline.stream(with_["notes"])
    codes = case.rules.codes(with_["registry"])
    for row in stream.rows.of_kind(with_["refused"]):
        if row.value.get("code") not in codes:
            return failed(f"a refusal gave the code {row.value.get('code')!r}, which no registry holds", row.earliest)
    answered = _answers(stream.rows.of_kind(*with_["answers"]))
    down = case.waived(active.surfaces)
    asked = 0
    for row in stream.rows.of_kind(with_["wish"]):
        if overlaps(row.earliest, row.latest + bound, down) or not any(
                run.first.answered <= row.earliest and row.latest + bound <= run.last.asked for run in runs):
            continue
        asked += 1
        if not any(begin >= row.earliest and begin <= row.latest + bound for key in _names(row.value)
                   for begin in answered.get(key, ())) and stream.whole:
            return failed(f"a wish was neither dispatched nor refused within {bound} ms while Active", row.earliest,
                          row=dict(row.value))
    return passed(f"each of {asked} wishes was dispatched or refused", asked=asked) if stream.whole \
        else unsure(str(stream.why))


def _names(note: Mapping[str, Any]) -> list[str]:
    """What identifies the wish that a note speaks of: its intent, its group, and the group within its label."""
    named = [note.get("intent_id"), note.get("group_id"), note.get("wish_id"), _group_in(note.get("label"))]
    return [each for each in named if isinstance(each, str) and each]


def _group_in(label: Any) -> str | None:
    parts = label.split(":") if isinstance(label, str) else []
    return parts[2] if len(parts) == 5 else None


def _answers(rows: Iterable[Row]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row in rows:
        for key in _names(row.value):
            found.setdefault(key, []).append(row.latest)
    return found


@how
def at_most_per(case: Case, with_: Parameters) -> Finding:
    """An event happens at most so often for each value of a field."""
    counted: Counter[Any] = Counter()
    for row in case.rows(with_["event"]):
        key = row.value.get(with_["by"])
        counted[key] += 1
        if counted[key] > with_["most"]:
            return failed(f"{with_['event']} happened {counted[key]} times for {key}", row.earliest)
    why = case.not_whole(*case.streams_of(with_["event"]))
    return passed(f"{sum(counted.values())} times in {len(counted)} groups", asked=sum(counted.values())) \
        if why is None else unsure(why)


@how
def active_but_refused(case: Case, with_: Parameters) -> Finding:
    """A long stretch of Active in which the exchange refused order after order and accepted none."""
    active = of_plain(with_["active"])
    told = sorted(((row.earliest, row.latest, row.value.get("outcome")) for event in (with_["accepted"], with_["rejected"])
                   for row in case.rows(event)), key=lambda each: each[0])
    for run in case.runs(case.series(active).pieces, case.grain_ms(active.surfaces)):
        streak: list[int] = []
        for earliest, latest, outcome in told[bisect_left(told, run.first.answered, key=lambda each: each[0]):]:
            if earliest > run.last.asked:
                break
            streak = [] if outcome == "accepted" else [*streak, latest]
            if len(streak) >= with_["orders_min"] and earliest - streak[0] > with_["bound_ms"]:
                return failed(f"the status stayed Active while {len(streak)} orders in a row were refused", earliest)
    why = case.not_whole(*case.streams_of(with_["accepted"]))
    return passed("Active never outlasted a stretch of refusals", asked=len(told)) \
        if why is None else unsure(why)


# ---- the run itself ---------------------------------------------------------------------------------------


@how
def no_secret(case: Case, with_: Parameters) -> Finding:
    """Everything the run left behind was searched for its secrets, and none was found."""
    searched = [act for act in case.timeline.acts if act.id == with_["act"] and act.step == with_["step"]]
    if not searched:
        return unsure("nobody searched for the secrets of the run")
    told = [act.saw.get("found") if isinstance(act.saw, Mapping) else None for act in searched]
    if not all(isinstance(each, list) for each in told):
        return unsure("the search for the secrets does not say what it found")
    found = [each for list_ in told for each in list_ or ()]
    if found:
        first = found[0] if isinstance(found[0], Mapping) else {}
        return failed(f"{len(found)} secrets came to light, the first: {first.get('secret')} in {first.get('file')}",
                      searched[0].begin, found=found[:10])
    return passed("searched, and none was found", asked=len(searched))


@how
def none_ended(case: Case, with_: Parameters) -> Finding:
    """No process of a node ended unasked. Why it did nobody knows: that alone accuses nobody, and acquits nobody."""
    ended = next((act for act in case.timeline.acts if act.step == with_["step"]), None)
    if ended is not None:
        code = ended.saw.get("code") if isinstance(ended.saw, Mapping) else None
        return unsure(f"{ended.id} ended by itself with code {code}", ended.begin)
    started = sum(act.step == with_["started"] for act in case.timeline.acts)
    return passed(f"{started} processes lived until they were ended", asked=started)


@how
def never_live(case: Case, with_: Parameters) -> Finding:
    """The stack's declared environment is none where money is real."""
    environment = case.timeline.stack.get("deployment_environment")
    if not isinstance(environment, str):
        return unsure("the stack does not say which environment it is")
    if environment in with_["forbidden"]:
        return failed(f"the stack is {environment}")
    return passed(f"the stack is {environment}", asked=1)
