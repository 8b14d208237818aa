"""Laws about conduct towards the exchange: what is asked of it, how often, how long an order may be under way, and
whether the system's own record of that is complete. Each is a check of ``specs/invariants.yaml``, as in ``invariants``.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.drill.predicate import is_number, look
from harness.recording.rows import Row
from harness.verdict.books import agree
from harness.verdict.case import Case, Window
from harness.verdict.check import Finding, failed, passed, unsure

Parameters = Mapping[str, Any]


# ---- how often, and what ----------------------------------------------------------------------------------


def at_most_in(case: Case, with_: Parameters) -> Finding:
    """An event happens at most so often within any window of a length, for each value of a field."""
    recent: dict[Any, deque[Row]] = {}
    most = asked = 0
    for row in case.rows(with_["event"]):
        key = row.value.get(with_["by"])
        window = recent.setdefault(key, deque())
        window.append(row)
        while row.latest - window[0].earliest > with_["window_ms"]:
            window.popleft()
        asked += 1
        most = max(most, len(window))
        if len(window) > with_["most"]:
            return failed(f"{with_['event']} happened {len(window)} times within {with_['window_ms']} ms ({key})",
                          window[0].earliest)
    why = case.not_whole(*case.streams_of(with_["event"]))
    return passed(f"at most {most} times within {with_['window_ms']} ms", asked=asked) if why is None else unsure(why)


def within_scope(case: Case, with_: Parameters) -> Finding:
    """Only methods that the system needs, instruments of its currency, and amounts and exposure within the policy's caps."""
    why = case.not_whole(*case.streams_of(with_["request"]), *case.streams_of(with_["order"]))
    requests, orders = case.rows(with_["request"]), case.rows(with_["order"])
    for row in requests:
        if row.value.get("method") not in with_["methods"]:
            return failed(f"the exchange was asked for {row.value.get('method')!r}, which is out of scope", row.earliest)
    caps = look(case.policy, f"{with_['caps']}.{case.timeline.stack.get('deployment_environment')}")
    if not isinstance(caps, Mapping):
        return unsure(f"the policy states no {with_['caps']} for this environment")
    for row in orders:
        if found := _beyond(row.value, caps, with_):
            return failed(f"the order {row.value.get('label') or row.value.get('order_id')!r} {found}", row.earliest)
    return passed(f"{len(requests)} requests and {len(orders)} orders within scope and caps",
                  asked=min(len(requests), len(orders))) if why is None else unsure(why)


def _beyond(order: Mapping[str, Any], caps: Mapping[str, Any], with_: Parameters) -> str | None:
    """What an order is beyond, or None. Exposure is only asked of what would raise it: reducing may start from too much."""
    instrument = str(order.get("instrument"))
    if not re.search(with_["instruments"], instrument):
        return f"is of {instrument}, which is out of scope"
    for each in with_["limits"]:
        value, most = order.get(each["field"]), caps.get(each["cap"])
        asked = re.search(each["instruments"], instrument) and (order.get("opening") is True or not each.get("opening"))
        if asked and is_number(value) and is_number(most) and abs(value) > most:
            return f"has {each['field']} {value}, beyond {each['cap']} ({most})"
    return None


def comes_back(case: Case, with_: Parameters) -> Finding:
    """What was lost comes back within a bound, as long as nothing of ours is in its way. The link is the end of its name."""
    server = case.timeline.stream(case.streams_of(with_["event"])[0]).node
    clients = {link.get("from") for name, link in (case.timeline.stack.get("links") or {}).items() if name in with_["links"]}
    away = {name: case.troubled((*clients, server), (name,), with_["excused"]) for name in with_["links"]}
    gone, sessions = case.rows(with_["event"]), _sessions(case, with_)
    why = case.not_whole(*case.streams_of(with_["event"]))
    asked = longest = 0
    for row in gone:
        key, name = row.value.get(with_["by"]), row.value.get(with_["session"])
        link = str(key).rpartition("/")[2]
        if link not in away:
            continue
        own = max((each.begun for each in sessions.get(key, ()) if each.name == name and each.begun <= row.earliest),
                  default=row.earliest)
        again = next((each.begun for each in sessions.get(key, ()) if each.begun > own
                      and (each.ended is None or each.ended > row.earliest)), case.end)
        begin, lasted = longest_clear(row.latest, again, away[link])
        asked, longest = asked + 1, max(longest, lasted)
        if lasted > with_["bound_ms"] and why is None:
            return failed(f"{key} was lost and did not come back within {with_['bound_ms']} ms", begin + with_["bound_ms"])
    return passed(f"{asked} were lost and came back, the slowest within {longest} ms", asked=asked) if why is None \
        else unsure(why)


@dataclass(slots=True)
class _Session:
    name: Any
    begun: int
    ended: int | None = None


def _sessions(case: Case, with_: Parameters) -> dict[Any, list[_Session]]:
    """Those of each client, as they began. One may begin before the one before it is seen to have ended."""
    found: dict[Any, list[_Session]] = {}
    rows = [(row.earliest, over, row) for over in (False, True) for row in case.rows(with_["event" if over else "back"])]
    for moment, over, row in sorted(rows, key=lambda each: each[:2]):
        own = found.setdefault(row.value.get(with_["by"]), [])
        name = row.value.get(with_["session"])
        if not over:
            own.append(_Session(name, moment))
        elif (last := next((each for each in reversed(own) if each.name == name and each.ended is None), None)) is not None:
            last.ended = moment
    return found


def longest_clear(begin: int, end: int, cut: Sequence[Window]) -> tuple[int, int]:
    """Where the longest piece of a stretch begins that lies in no window, and how long it is."""
    pieces, reached = [], begin
    for low, high in sorted(cut):
        if low > reached:
            pieces.append((reached, min(low, end) - reached))
        reached = max(reached, high)
    pieces.append((reached, end - reached))
    return max(pieces, key=lambda piece: piece[1])


# ---- how long an order may be under way -------------------------------------------------------------------


def _by_label(case: Case, with_: Parameters) -> dict[Any, str]:
    """label → intent id, as the ledger has it."""
    return {row.value.get("label"): str(row.value.get(with_["id"])) for row in case.of_kind(with_["ledger"], with_["intent"])}


def _sent(case: Case, with_: Parameters) -> dict[str, Window]:
    """intent id → when the ledger says that it was sent, the first time."""
    found: dict[str, Window] = {}
    for row in case.of_kind(with_["ledger"], with_["sent"]):
        found.setdefault(str(row.value.get(with_["id"])), (row.earliest, row.latest))
    return found


def taken_in_time(case: Case, with_: Parameters) -> Finding:
    """No order is taken by the exchange later than a bound after it was sent: what was held up must not come alive."""
    ids, sent = _by_label(case, with_), _sent(case, with_)
    why = case.not_whole(*case.streams_of(with_["event"]), with_["ledger"])
    late = 0
    for row in case.rows(with_["event"]):
        left = sent.get(ids.get(row.value.get("label"), ""))
        if left is None or row.earliest - left[1] <= with_["bound_ms"]:
            continue
        late += 1
        if row.value.get("outcome") == with_["taken"] and why is None:
            return failed(f"the order {row.value.get('label')!r} was taken {row.earliest - left[1]} ms after it was sent",
                          row.earliest)
    return passed(f"{late} orders came later than {with_['bound_ms']} ms, and none was taken", asked=late) \
        if why is None else unsure(why)


def stays_over(case: Case, with_: Parameters) -> Finding:
    """What was sent is not called failed before it is certain; and what the ledger calls over is never filled after."""
    ids, sent = _by_label(case, with_), _sent(case, with_)
    labels = {id: label for label, id in ids.items()}
    known = _refused(case, with_)       # a refusal that came later knows nothing yet
    why = case.not_whole(*case.streams_of(with_["filled"]), with_["ledger"], with_["notes"])
    over: dict[Any, tuple[int, Any]] = {}
    asked = 0
    for row in case.of_kind(with_["ledger"], with_["state"]):
        id = str(row.value.get(with_["id"]))
        over.setdefault(labels.get(id), (row.latest, row.value.get("state")))
        if row.value.get("state") not in with_["failed"] or id not in sent \
                or known.get(labels.get(id), row.latest + 1) <= row.latest:
            continue
        asked += 1
        waited = row.latest - sent[id][0]
        if waited < with_["certain_ms"] and why is None:
            return failed(f"the order {labels.get(id)!r} was called {row.value['state']} {waited} ms after it was sent, "
                          "though nobody had refused it", row.earliest)
    for row in case.rows(with_["filled"]):
        ended = over.get(row.value.get("label"))
        if ended is not None and row.value.get("label") and row.earliest > ended[0] and why is None:
            return failed(f"the order {row.value.get('label')!r} was {ended[1]} and was filled afterwards",
                          row.earliest)
    return passed(f"{asked} unanswered orders were called over, each in time", asked=asked) if why is None else unsure(why)


def _refused(case: Case, with_: Parameters) -> dict[Any, int]:
    """label → since when its fate was known: the exchange refused the order, or it went a way that proves that it did not
    leave."""
    answered = [row for row in case.rows(with_["answered"]) if row.value.get("code") is not None]
    elsewhere = [row for row in case.of_kind(with_["notes"], with_["dispatched"])
                 if row.value.get(with_["elsewhere"]) is not None]
    found: dict[Any, int] = {}
    for row in (*case.rows(with_["refused"]), *answered, *elsewhere):
        label = row.value.get("label")
        found[label] = min(row.earliest, found.get(label, row.earliest))
    return found


# ---- the system's own record ------------------------------------------------------------------------------


def sent_recorded(case: Case, with_: Parameters) -> Finding:
    """Every order on the books whose intent is in the ledger has its record of having been sent there, too.

    A ledger is lost from its end: a crash may take what was not synced, however long ago that was, and an order may
    arrive when its sender is dead already. So an order is asked about only where something that was written in the
    same life, after the order had been taken, is still there.
    """
    ids, sent = _by_label(case, with_), _sent(case, with_)
    stream = case.timeline.stream(with_["ledger"])
    why = case.not_whole(*case.streams_of(with_["event"]), with_["ledger"])
    ends = sorted([*case.restarts(stream.node), case.end])
    times = sorted(row.earliest for row in stream.rows)
    recorded = {str(row.value.get(with_["id"])): row.earliest for row in stream.rows.of_kind(with_["intent"])}
    asked = 0
    for row in case.rows(with_["event"]):
        id = ids.get(row.value.get("label"))
        if id is None:
            continue
        later, end = bisect_left(times, row.latest + with_["bound_ms"]), bisect_left(ends, recorded[id])
        if later == len(times) or end == len(ends) or times[later] >= ends[end]:
            continue
        asked += 1
        if id not in sent and why is None:
            return failed(f"the order {row.value.get('label')!r} is on the books, and the ledger does not say that it was sent",
                          row.earliest)
    return passed(f"{asked} orders were sent by the ledger's word", asked=asked) if why is None else unsure(why)


def told_as_it_became(case: Case, with_: Parameters) -> Finding:
    """What the ledger says became of an order: one that was filled to the amount of its record is nothing but filled, and by
    then the ledger has the exchange's id of it. An order that nobody heard of any more has no end there, and accuses nobody."""
    ids, done = _by_label(case, with_), _filled(case, with_)
    known: dict[str, list[Any]] = {}
    for row in case.rows(with_["event"]):
        known.setdefault(ids.get(row.value.get("label"), ""), []).append(row.value.get(with_["order"]))
    wanted = {str(row.value.get(with_["id"])): (row.value.get("label"), row.value.get(with_["amount"]))
              for row in case.of_kind(with_["ledger"], with_["intent"])}
    named = {str(row.value.get(with_["id"])): row.value.get(with_["order"])
             for row in case.of_kind(with_["ledger"], with_["acked"])}
    why = case.not_whole(*case.streams_of(with_["event"]), *case.streams_of(with_["filled"]), with_["ledger"])
    asked = 0
    for row in case.of_kind(with_["ledger"], with_["state"]):
        id, state = str(row.value.get(with_["id"])), row.value.get("state")
        label, amount = wanted.get(id, (None, None))
        if why is not None or id not in known:
            continue
        asked += 1
        if state != with_["whole"] and label in done and agree(done[label], amount):
            return failed(f"the order {label!r} was filled whole, and the ledger calls it {state}", row.earliest)
        if state == with_["whole"] and named.get(id) not in known[id]:
            return failed(f"the order {label!r} is {known[id][0]} on the books, and {named.get(id)} in the ledger",
                          row.earliest)
    return passed(f"{asked} orders became what the ledger says", asked=asked) if why is None else unsure(why)


def _filled(case: Case, with_: Parameters) -> dict[Any, float]:
    """label → how much of it the books have filled."""
    found: dict[Any, float] = {}
    for row in case.rows(with_["filled"]):
        if is_number(amount := row.value.get("amount")):
            found[row.value.get("label")] = found.get(row.value.get("label"), 0.0) + amount
    return found


def not_sent_while_latched(case: Case, with_: Parameters) -> Finding:
    """In the ledger's own order of time, no opening intent is sent between a latch's setting and its clearing. A start ends
    all but what waits for an operator."""
    codes = case.rules.codes(with_["registry"])
    stream = case.timeline.stream(with_["ledger"])
    opening = {row.value.get(with_["id"]) for row in stream.rows.of_kind(with_["intent"])
               if row.value.get("class") == with_["class"]}
    since: Row | None = None
    held: set[Any] = set()
    manual: set[Any] = set()
    stretches = 0
    for row in stream.rows.of_kind(with_["boot"], with_["latch"], with_["sent"], with_["operator"]).in_time():
        if row.kind == with_["boot"]:
            held, since, stretches = {with_["boot"], *manual}, row, stretches + 1
        elif row.kind == with_["operator"]:
            manual.clear()
        elif row.kind == with_["latch"] and row.value.get("code") in codes:
            if row.value.get("event") == "cleared":
                held -= {with_["boot"], row.value["code"]}
                manual.discard(row.value["code"])
            else:
                stretches += not held
                since = since if held else row
                held.add(row.value["code"])
                manual |= {row.value["code"]} if row.value.get("manual") is True else set()
        elif row.kind == with_["sent"] and held and since is not None and row.value.get(with_["id"]) in opening \
                and row.earliest > since.earliest:
            return failed(f"the opening intent {row.value.get(with_['id'])} was sent {row.earliest - since.earliest} ms after "
                          f"{since.value.get('code', 'the start')} had latched", row.earliest)
    return passed(f"none in {stretches} latches", asked=stretches) if stream.whole else unsure(str(stream.why))


def not_sent_outside(case: Case, with_: Parameters) -> Finding:
    """By the system's own notes, nothing of a class is sent after it noted the end of a mode and before it noted its return.
    What a start was before its first note is not known."""
    stream = case.timeline.stream(with_["notes"])
    since: Row | None = None
    left = 0
    for row in stream.rows.of_kind(with_["boot"], with_["mode"], with_["dispatched"]):
        if row.kind == with_["boot"]:
            since = None
        elif row.kind == with_["mode"]:
            inside = row.value.get(with_["to"]) == with_["within"]
            left += since is None and not inside
            since = None if inside else since or row
        elif since is not None and row.value.get("class") == with_["class"] and row.earliest > since.earliest:
            return failed(f"the opening intent {row.value.get('intent_id')} was sent {row.earliest - since.earliest} ms after "
                          f"{with_['within']} had ended", row.earliest)
    return passed(f"none in {left} stretches outside {with_['within']}", asked=left) \
        if stream.whole else unsure(str(stream.why))


def armed_first(case: Case, with_: Parameters) -> Finding:
    """No session of a link is used for orders before it has asked for all that makes one safe to use."""
    asked_for: dict[Any, set[Any]] = {}
    used: set[Any] = set()
    for row in case.rows(with_["event"]):
        session, method = row.value.get(with_["session"]), row.value.get("method")
        if str(row.value.get(with_["by"])).rpartition("/")[2] not in with_["links"]:
            continue
        asked_for.setdefault(session, set()).add(method)
        if method not in with_["methods"]:
            continue
        used.add(session)
        missing = [each for each in with_["first"] if each not in asked_for[session]]
        if missing:
            return failed(f"{method} over the session {session}, which had never asked for {missing[0]}", row.earliest)
    why = case.not_whole(*case.streams_of(with_["event"]))
    return passed(f"each of {len(used)} sessions was armed first", asked=len(used)) if why is None else unsure(why)


CHECKS = (at_most_in, comes_back, within_scope, taken_in_time, stays_over, sent_recorded, told_as_it_became,
          not_sent_while_latched, not_sent_outside, armed_first)
