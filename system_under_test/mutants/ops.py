"""Sabotages of the services beside the trader: states that are wrong, facts that are, and a switch that stops nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from system_under_test.machine import Now, Response, Seen, Unanswered
from system_under_test.mutants.surgery import altered, graft
from system_under_test.services import execution, floor, ingest, marketdata, strategy
from system_under_test.services.asking import Heard
from system_under_test.services.hours import UNREADABLE
from system_under_test.services.service import CALENDAR_FILE, Service
from system_under_test.services.status import SUMMARY, Facts

Document = dict[str, Any]
Environment = Mapping[str, str]
Kind = TypeVar("Kind", bound=Service)

EASTERN_STANDARD = timezone(timedelta(hours=-5))


def _retold(service: Kind, tell: Callable[[Document], None]) -> Kind:
    """The real service; its document is changed on its way out."""
    honest = service.document

    def document(now: Now) -> Document:
        told = honest(now)
        tell(told)
        return told

    graft(service, "document", document)
    return service


def _believing(service: Kind, believe: Callable[[Now, Facts], Facts]) -> Kind:
    """The real service; what it takes for facts is changed before it concludes anything."""
    honest = service.facts
    graft(service, "facts", lambda now: believe(now, honest(now)))
    return service


def _state(told: Document, state: str, summary: str, *reasons: str) -> None:
    told["status"] |= {"state": state, "summary": summary, "reason_codes": list(reasons)}


# ---- the kill switch --------------------------------------------------------------------------------------


def ignores_the_file(environment: Environment) -> ingest.Ingest:
    """The switch's file is never read: drill 1 must say that ingest does not halt (``ingest_halts``).

    Real bugs look like this: the path is configured by a variable that nobody sets.
    """
    service = ingest.make(environment)
    graft(service.file_switch, "seen", lambda seen: setattr(service.file_switch, "by", None))
    return service


def reads_a_riddle_as_off(environment: Environment) -> strategy.Strategy:
    """What is not clearly on is off: drill 2 must say that strategy does not halt (``strategy_halts``).

    Real bugs look like this: ``return text in TRUTHY``, and ``except OSError: return False``.
    """
    service = strategy.make(environment)
    switch, honest = service.file_switch, service.file_switch.seen

    def seen(value: Seen) -> None:
        honest(value)
        switch.by = "file" if switch.by == "file" else None

    graft(switch, "seen", seen)
    return service


def never_lets_go(environment: Environment) -> strategy.Strategy:
    """A switch that was on stays on: drill 1 must say that strategy does not come back (``strategy_back``).

    Real bugs look like this: the file's absence is taken for nothing new.
    """
    service = strategy.make(environment)
    switch, honest = service.file_switch, service.file_switch.seen

    def seen(value: Seen) -> None:
        before = switch.by
        honest(value)
        switch.by = before if switch.by is None and before == "file" else switch.by

    graft(switch, "seen", seen)
    return service


def halts_alone(environment: Environment) -> execution.Execution:
    """Execution says HALTED and presses nothing: drill 1 must say that the trader goes on (law
    ``switch_stops_opening``).

    Real bugs look like this: the switch is shown on a page, and was never wired.
    """
    service = execution.make(environment)
    graft(service._lever, "ask", lambda now: [])
    return service


def locks_itself(environment: Environment) -> execution.Execution:
    """What the trader says presses the trader: drill 3 must say that it is held down by it (``no_lock``).

    Real bugs look like this: one flag for "killed", whoever said so.
    """
    service = execution.make(environment)
    honest = service.work

    def work(now: Now) -> list[Any]:
        by = service.trader_switch.by(now)
        return honest(now) + (service._lever.ask(now) if by == "trader" else [])

    graft(service, "work", work)
    return service


def trusts_silence(environment: Environment) -> ingest.Ingest:
    """A trader that is not heard is well: drill 4 must say that ingest does not halt (``ingest_halts``).

    Real bugs look like this: the last word is kept for ever.
    """
    return _believing(ingest.make(environment), lambda now, facts: altered(
        facts, kill_switch_by=tuple(by for by in facts.kill_switch_by if by != "trader_unknown")))


def trusts_who_was_never_heard(environment: Environment) -> strategy.Strategy:
    """A trader that this life has not heard of is well: drill 16 must say that strategy does not halt (``not_known``).

    Real bugs look like this: silence is counted from the last word, and there was none.
    """
    service = strategy.make(environment)
    switch, honest = service.trader_switch, service.trader_switch.by
    graft(switch, "by", lambda now: None if switch._mode is None else honest(now))
    return service


def forgets_who_pressed(environment: Environment) -> execution.Execution:
    """A switch that was on before the start is an old one: drill 16 must say that execution halts no more (``still_halted``).

    Real bugs look like this: a watcher that tells of changes, and nobody asks what is there when it begins.
    """
    service = execution.make(environment)
    switch, honest = service.file_switch, service.file_switch.seen
    found: list[bytes | None] = []

    def seen(value: Seen) -> None:
        honest(value)
        found.append(value.value)
        if value.value == found[0]:
            switch.by = None

    graft(switch, "seen", seen)
    return service


def carries_in_hours(environment: Environment) -> execution.Execution:
    """The switch is carried while the market is open: drill 16 must say that the trader goes on (``trader_stops``).

    Real bugs look like this: the whole round is skipped at night.
    """
    service = execution.make(environment)
    honest = service._lever.ask
    graft(service._lever, "ask", lambda now: honest(now) if service.facts(now).market_is_open else [])
    return service


def gives_up_carrying(environment: Environment) -> execution.Execution:
    """A press that failed is the last until the switch has been off: drill 16 must say that the trader goes on
    (``trader_stops``).

    Real bugs look like this: an alarm is logged once, and with it goes the retry.
    """
    service = execution.make(environment)
    settle, ask = service._lever.settle, service._lever.ask
    failed: list[Heard] = []

    def settled(value: Response | Unanswered) -> Heard | None:
        pressed = settle(value)
        failed.extend([pressed] if pressed is not None and pressed.why else [])
        return pressed

    def asked(now: Now) -> list[Any]:
        return [] if failed else ask(now)

    graft(service._lever, "settle", settled)
    graft(service._lever, "ask", asked)
    return service


# ---- market data ------------------------------------------------------------------------------------------


def fails_open(environment: Environment) -> strategy.Strategy:
    """Missing market data gates nothing: drill 7 must say that the document breaks its contract (law ``ops_status_lawful``).

    Real bugs look like this: ``safe = fresh is not False``.
    """

    def tell(told: Document) -> None:
        if told["status"]["reason_codes"] == ["MARKETDATA_MISSING"]:
            told["safety"] |= {"safe_to_run_strategies": True, "gating_reasons": []}

    return _retold(strategy.make(environment), tell)


def calls_stale_fresh(environment: Environment) -> strategy.Strategy:
    """An age that does not grow: drill 5 must say that strategy does not halt (``strategy_halts``).

    Real bugs look like this: the age is reset whenever the peer answers.
    """
    return _believing(strategy.make(environment), lambda now, facts: altered(
        facts, tick_age_ms=None if facts.tick_age_ms is None else facts.tick_age_ms % 1_000))


def counts_from_arrival(environment: Environment) -> marketdata.Marketdata:
    """A tick is as old as its arrival: drill 6 must say that late data was called fresh (``marketdata_degrades``).

    Real bugs look like this: ``self.last_tick = time.monotonic()``.
    """
    service = marketdata.make(environment)
    honest, arrived = service._read, [0]

    def read(now: Now, data: bytes) -> None:
        before, service._tick = service._tick, None
        honest(now, data)
        if service._tick is None:
            service._tick = before
        else:
            arrived[0] = now.mono_ms
            service._fresh_ms = now.mono_ms

    graft(service, "_read", read)
    graft(service, "tick_age_ms", lambda now: None if service._tick is None else now.mono_ms - arrived[0])
    return service


def degrades_where_it_must_halt(environment: Environment) -> strategy.Strategy:
    """Strategy goes on without market data, a little worse: drill 5 must say that its state is not the table's (law
    ``ops_status_lawful``).

    Real bugs look like this: one rule for every kind of service.
    """

    def tell(told: Document) -> None:
        if told["status"]["reason_codes"] == ["MARKETDATA_STALE"]:
            _state(told, "DEGRADED", "Degraded", "MARKETDATA_STALE")

    return _retold(strategy.make(environment), tell)


def wakes_people_at_night(environment: Environment) -> marketdata.Marketdata:
    """Stale is an error after hours, too: drill 8 must say that the state is not the table's (law ``ops_status_lawful``).

    Real bugs look like this: freshness is asked before the hours.
    """

    def tell(told: Document) -> None:
        if told["status"]["state"] == "MARKET_CLOSED" and told["marketdata"]["is_fresh"] is False:
            _state(told, "DEGRADED", "Degraded", "MARKETDATA_STALE")

    return _retold(marketdata.make(environment), tell)


def serves_a_cache(environment: Environment) -> marketdata.Marketdata:
    """The first good document is served for ever: drill 5 must say that it never degrades (``marketdata_degrades``).

    Real bugs look like this: a cache whose expiry is computed once.
    """
    service = marketdata.make(environment)
    honest: Callable[[Now], Document] = service.document
    kept: list[Document] = []

    def document(now: Now) -> Document:
        told = honest(now)
        if not kept and told["status"]["state"] == "OK":
            kept.append(told)
        return kept[0] if kept else told

    graft(service, "document", document)
    return service


def freezes_its_date(environment: Environment) -> execution.Execution:
    """``last_updated_utc`` is when it started: drill 1 must say that the document tells two times (law ``ops_status_lawful``).

    Real bugs look like this: a default argument that is evaluated once.
    """
    first: list[str] = []

    def tell(told: Document) -> None:
        first.append(told["status"]["last_updated_utc"])
        told["status"]["last_updated_utc"] = first[0]

    return _retold(execution.make(environment), tell)


def calls_the_future_fresh(environment: Environment) -> marketdata.Marketdata:
    """A tick of the future has no age: drill 15 must say that it was called fresh (``too_new``).

    Real bugs look like this: ``max(0, now - then)``.
    """
    service = marketdata.make(environment)
    honest: Callable[[Now], int | None] = service.tick_age_ms

    def tick_age_ms(now: Now) -> int | None:
        age = honest(now)
        return None if age is None else max(0, age)

    graft(service, "tick_age_ms", tick_age_ms)
    return service


def trusts_the_unknown(environment: Environment) -> execution.Execution:
    """A document that says UNKNOWN of itself is read like any other: drill 12 must say that execution goes on
    (``execution_halts``).

    Real bugs look like this: of a peer's document only the one number that is needed is read.
    """
    service = execution.make(environment)
    honest = service.heard

    def heard(now: Now, value: Response | Unanswered) -> list[Any]:
        if isinstance(value, Response):
            value = altered(value, body=value.body.replace(b'"UNKNOWN"', b'"OK"'))
        return honest(now, value)

    graft(service, "heard", heard)
    return service


# ---- hours and heartbeats ---------------------------------------------------------------------------------


def hides_behind_the_close(environment: Environment) -> ingest.Ingest:
    """A closed market excuses a dead worker: drill 9 must say that the state is not the table's (law ``ops_status_lawful``).

    Real bugs look like this: the hours are asked first, because that is the common case.
    """

    def tell(told: Document) -> None:
        if told["inputs"]["market_is_open"] is False and told["status"]["reason_codes"] == ["HEARTBEAT_STALE"]:
            _state(told, "MARKET_CLOSED", "Market closed", "MARKET_CLOSED")

    return _retold(ingest.make(environment), tell)


def beats_at_the_door(environment: Environment) -> ingest.Ingest:
    """Whoever asks keeps the heart beating: drill 9 must say that it never grows stale (``stale``).

    Real bugs look like this: the heartbeat is set in the handler of the health check.
    """
    return _believing(ingest.make(environment), lambda now, facts: altered(facts, beat_age_ms=0))


def closes_half_open(environment: Environment) -> ingest.Ingest:
    """Four o'clock itself is night: drill 15 must say that the hours are not the calendar's (law ``ops_status_lawful``).

    Real bugs look like this: ``opens <= t < closes``.
    """

    def believe(now: Now, facts: Facts) -> Facts:
        at_four = facts.calendar == "nyse" and now.wall_ms % 86_400_000 in (20 * 3_600_000, 21 * 3_600_000)
        return altered(facts, market_is_open=False) if at_four else facts

    return _believing(ingest.make(environment), believe)


def closes_with_the_minute(environment: Environment) -> marketdata.Marketdata:
    """The whole minute of the bell still belongs to the day: drill 14 must say that the hours are not the calendar's (law
    ``ops_status_lawful``).

    Real bugs look like this: times are compared without their seconds.
    """

    def believe(now: Now, facts: Facts) -> Facts:
        minute = now.wall_ms % 86_400_000 // 60_000
        bell = facts.calendar == "nyse" and minute in (20 * 60, 21 * 60)
        return altered(facts, market_is_open=True) if bell and facts.market_is_open is False else facts

    return _believing(marketdata.make(environment), believe)


def knows_no_summer(environment: Environment) -> strategy.Strategy:
    """New York is five hours behind all year: drill 13 must say that the hours are not the calendar's (law
    ``ops_status_lawful``).

    Real bugs look like this: ``UTC-5`` in a constant.
    """
    service = strategy.make(environment)
    graft(service, "_zone", EASTERN_STANDARD)
    return service


def opens_where_nothing_is_known(environment: Environment) -> ingest.Ingest:
    """A calendar that cannot be asked is open: drill 12 must say that the document breaks its contract (law
    ``ops_status_lawful``).

    Real bugs look like this: ``except ZoneInfoNotFoundError: return True``.
    """
    return _believing(ingest.make(environment), lambda now, facts: altered(
        facts, market_is_open=True if facts.market_is_open is None else facts.market_is_open))


class EuropesSummer(tzinfo):
    """New York's time, with summer when Europe has it."""

    def utcoffset(self, dt: datetime | None) -> timedelta:
        return timedelta(hours=-5)

    def dst(self, dt: datetime | None) -> timedelta:
        return timedelta(0)

    def fromutc(self, dt: datetime) -> datetime:
        summer = dt.replace(tzinfo=UTC).astimezone(ZoneInfo("Europe/Berlin")).dst() or timedelta(0)
        return dt + summer - timedelta(hours=5)


def has_europes_summer(environment: Environment) -> strategy.Strategy:
    """New York's clock is changed when Europe's is: drill 13 must say that the hours are not the calendar's (law
    ``ops_status_lawful``).

    Real bugs look like this: six hours behind Frankfurt, all year.
    """
    service = strategy.make(environment)
    graft(service, "_zone", EuropesSummer())
    return service


def trades_on_sunday(environment: Environment) -> ingest.Ingest:
    """Sunday is a day like any other: drill 14 must say that the hours are not the calendar's (law ``ops_status_lawful``).

    Real bugs look like this: days counted from Sunday, compared with days counted from Monday.
    """

    def believe(now: Now, facts: Facts) -> Facts:
        there = datetime.fromtimestamp(facts.wall_ms / 1_000, ZoneInfo("America/New_York"))
        day = there.weekday() == 6 and 9 * 60 + 30 <= there.hour * 60 + there.minute < 16 * 60
        return altered(facts, market_is_open=True) if facts.calendar == "nyse" and day else facts

    return _believing(ingest.make(environment), believe)


def keeps_the_last_calendar(environment: Environment) -> execution.Execution:
    """A calendar that is torn leaves the last one in force: drill 12 must say that execution knows its hours
    (``half_a_calendar``).

    Real bugs look like this: ``except JSONDecodeError: return``.
    """
    service = execution.make(environment)
    honest = service._seen

    def seen(now: Now, value: Seen) -> None:
        before = service.calendar
        honest(now, value)
        if value.source == CALENDAR_FILE and value.value is not None and service.calendar == UNREADABLE:
            service.calendar = before

    graft(service, "_seen", seen)
    return service


def lives_on_errors(environment: Environment) -> ingest.Ingest:
    """Whatever its source answers is a round: drill 9 must say that its heartbeat never grows stale (``stale_on_errors``).

    Real bugs look like this: the round ends in a ``finally``.
    """
    service = ingest.make(environment)
    settle, honest = service._source.settle, service.heard
    answered: list[Heard] = []

    def settled(value: Response | Unanswered) -> Heard | None:
        said = settle(value)
        answered[:] = [said] if said is not None and said.reached else []
        return said

    def heard(now: Now, value: Response | Unanswered) -> list[Any]:
        out = honest(now, value)
        service.beat_ms = now.mono_ms if answered else service.beat_ms
        answered.clear()
        return out

    graft(service._source, "settle", settled)
    graft(service, "heard", heard)
    return service


# ---- who they are -----------------------------------------------------------------------------------------


def needs_no_name(environment: Environment) -> marketdata.Marketdata:
    """A document without a name is as good as any: drill 12 must say that the state is not the table's (law
    ``ops_status_lawful``).

    Real bugs look like this: the required fields are those that the serialiser insists on.
    """

    def tell(told: Document) -> None:
        if told["status"]["state"] == "UNKNOWN":
            _state(told, "OK", "Healthy")
            told["safety"] |= {"safe_to_run_strategies": True, "gating_reasons": []}

    return _retold(marketdata.make(environment), tell)


def lets_orders_through(environment: Environment) -> execution.Execution:
    """``safe_to_execute_orders`` is true while all is well: drill 1 must say that the contract forbids it (law
    ``ops_status_lawful``).

    Real bugs look like this: somebody wanted the field to mean something.
    """

    def tell(told: Document) -> None:
        told["safety"]["safe_to_execute_orders"] = told["status"]["state"] == "OK"

    return _retold(execution.make(environment), tell)


def is_killed_while_it_is_off(environment: Environment) -> execution.Execution:
    """The kill switch comes before the replicas: drill 11 must say that the state is not the table's (law
    ``ops_status_lawful``).

    Real bugs look like this: the order of the docstring is followed, and not the table's.
    """

    def tell(told: Document) -> None:
        if told["status"]["reason_codes"] == ["EXECUTION_DISABLED"] and told["safety"]["kill_switch"]:
            _state(told, "HALTED", "Halted", "KILL_SWITCH")

    return _retold(execution.make(environment), tell)


# ---- the floor --------------------------------------------------------------------------------------------


def _floor_retold(environment: Environment, tell: Callable[[Document], None]) -> floor.Floor:
    service = floor.make(environment)
    honest: Callable[[Now], Document] = service.floor

    def told(now: Now) -> Document:
        document = honest(now)
        tell(document)
        return document

    graft(service, "floor", told)
    return service


def shows_the_best(environment: Environment) -> floor.Floor:
    """The floor is as good as its best service: drill 5 must say that its state is not the worst (law ``ops_status_lawful``).

    Real bugs look like this: ``max`` over an order that was written the other way round.
    """

    def tell(told: Document) -> None:
        best = max((each["state"] for each in told["services"]), key=floor.WORST_FIRST.index)
        if best == "OK":
            told["floor"] |= {"state": "OK", "summary": "Healthy", "reason_codes": []}

    return _floor_retold(environment, tell)


def leaves_out_the_silent(environment: Environment) -> floor.Floor:
    """Who does not answer is not shown: drill 10 must say that nothing is seen of it (``seen_down``).

    Real bugs look like this: ``[each for each in answers if each is not None]``.
    """

    def tell(told: Document) -> None:
        told["services"] = [each for each in told["services"] if each["online"]]
        state, reasons = floor.worst([(each["service_kind"], (each["state"], next(iter(each["reason_codes"]), None)))
                                      for each in told["services"]])
        told["floor"] |= {"state": state, "summary": SUMMARY[state], "reason_codes": reasons}

    return _floor_retold(environment, tell)


def shows_what_it_saw_last(environment: Environment) -> floor.Floor:
    """The last answer is shown until there is another: drill 10 must say that nothing is seen (``seen_hung``).

    Real bugs look like this: a cache without an age.
    """
    service = floor.make(environment)
    honest: Callable[[Now], None] = service._show

    def show(now: Now) -> None:
        for each in service._services:
            each.answered_ms = None if each.answered_ms is None else now.mono_ms
        honest(now)

    graft(service, "_show", show)
    return service


def takes_off_for_down(environment: Environment) -> floor.Floor:
    """Execution that is scaled to zero is an error: drill 11 must say that the floor is not well (law ``ops_status_lawful``).

    Real bugs look like this: the roll-up knows states and no reasons.
    """

    def tell(told: Document) -> None:
        if any(each["reason_codes"] == ["EXECUTION_DISABLED"] for each in told["services"]):
            told["floor"] |= {"state": "OFFLINE", "summary": "Offline", "reason_codes": ["EXECUTION_DISABLED"]}

    return _floor_retold(environment, tell)

