"""Sabotages of the sync process: mirrors that show what their source never said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from msgspec import structs

from system_under_test.machine import Now, Replace, Start, Value
from system_under_test.mutants.surgery import graft
from system_under_test.state import Author, author_of, document_of
from system_under_test.sync import Sync, make
from system_under_test.sync import sync as process
from system_under_test.sync.mirror import STILL, TAKEN, Mirror, Nav, Source, follow, read_source

IN_PLACE = ("truncate", "write_half", "write")
Document = dict[str, Any]


def _outgoing(environment: Mapping[str, str], change: Callable[[Now, Value], tuple[Value, ...]]) -> Sync:
    """The real process; what it sends out passes through other hands."""
    sync = make(environment)
    honest = sync.handle
    graft(sync, "handle", lambda now, value: tuple(each for sent in honest(now, value) for each in change(now, sent)))
    return sync


def _retold(environment: Mapping[str, str], tell: Callable[[Now, Document], Document]) -> Sync:
    """The real process; its document says something else."""

    def change(now: Now, value: Value) -> tuple[Value, ...]:
        if not isinstance(value, Replace):
            return (value,)
        return (structs.replace(value, data=orjson.dumps(tell(now, orjson.loads(value.data)))),)

    return _outgoing(environment, change)


def writes_in_place(environment: Mapping[str, str]) -> Sync:
    """The file is emptied and written where it stands: drill 4 must say that it was (law ``state_files_whole``).

    Real bugs look like this: ``write_text``, because who would read just in that moment?
    """
    return _outgoing(environment, lambda now, value: (
        (structs.replace(value, plan=IN_PLACE),) if isinstance(value, Replace) else (value,)))


def dates_by_its_own_clock(environment: Mapping[str, str]) -> Sync:
    """The mirror says when it was written and not when its source was: drill 4 must say that it is ahead (law
    ``mirror_never_ahead``).

    Real bugs look like this: ``updated_ts`` is set where the file is written, and the dashboard sees fresh numbers for ever.
    """
    return _retold(environment, lambda now, told: {**told, "updated_ts": now.wall_ms / 1_000})


def forgets_the_time(environment: Mapping[str, str]) -> Sync:
    """Numbers without a time: drill 4 must say that the file breaks its contract (law ``state_files_lawful``).

    Real bugs look like this: the mirror was a series once, and the time stood in its last point.
    """
    return _retold(environment, lambda now, told: {key: value for key, value in told.items() if key != "updated_ts"})


def rounds(environment: Mapping[str, str]) -> Sync:
    """Thousands will do for a dashboard: drill 4 must say that the mirror shows another number (law ``state_files_agree``).

    Real bugs look like this: two programs compute the value of the account, each in its own way.
    """
    return _retold(environment, lambda now, told: {
        **told, **{key: round(told[key], -3) for key in ("nav", "nav_usd", "total_equity")}})


def follows_late(environment: Mapping[str, str]) -> Sync:
    """Every twelve seconds will do: drill 4 must say that the mirror does not keep up (law ``mirror_keeps_up``).

    Real bugs look like this: the timer of the source, 20 s, beside a loop that has long become faster.
    """
    return make({**environment, "POLICY": orjson.dumps(
        {**orjson.loads(environment["POLICY"]), "sync_interval_ms": 12_000}).decode()})


def forgets_its_lives(environment: Mapping[str, str]) -> Sync:
    """Each life counts its writes as if it were the first: drill 4 must say that the stamps went back (law
    ``state_files_one_writer``).

    Real bugs look like this: a number of the process lies in memory, and nobody can tell two processes apart.
    """
    sync = make(environment)
    honest = sync.handle

    def handle(now: Now, value: Value) -> tuple[Value, ...]:
        return honest(now, structs.replace(value, boot=1) if isinstance(value, Start) else value)

    graft(sync, "handle", handle)
    return sync


def _follows(environment: Mapping[str, str], read: Callable[[bytes | None, str], Source],
             then: Callable[[Mirror | None, Source], tuple[Mirror | None, str]]) -> Sync:
    """A process of its own class, which reads its source and follows it in another way."""

    class Other(Sync):
        def _follow(self, now: Now, source: Source) -> tuple[Value, ...]:
            self._mirror, condition = then(self._mirror, source)
            return self._publish(now, condition)

        def _seen(self, now: Now, name: str, data: bytes | None) -> tuple[Value, ...]:
            if name == process.OWN:
                return self._restore(data)
            return self._follow(now, read(data, self._writer)) if self._restored else ()

    honest = make(environment)
    return Other(honest._node, honest._writer, honest._interval_ms)


def takes_strangers(environment: Mapping[str, str]) -> Sync:
    """Whoever writes the source is believed: drill 6 must say that the stranger was not noticed (``strange``).

    Real bugs look like this: a file has a path, and nobody ever asked it who wrote it.
    """

    def read(data: bytes | None, writer: str) -> Source:
        author = author_of(document_of(data) or {})
        return read_source(data, author[0] if author is not None else writer)

    return _follows(environment, read, _newest)


def _newest(mirror: Mirror | None, source: Source) -> tuple[Mirror | None, str]:
    """As ``follow``, whatever the stamps say."""
    if source.nav is None:
        return mirror, source.trouble
    return Mirror(source.nav, max(mirror.peak if mirror else 0.0, source.nav.nav_usd)), TAKEN


def takes_forgeries(environment: Mapping[str, str]) -> Sync:
    """A document that says to be the trader's is the trader's: drill 6 must say that the forger was not noticed
    (``forged``).

    Real bugs look like this: the name is compared, and the number beside it is for debugging.
    """
    return _follows(environment, read_source, _newest)


def drops_the_last_good(environment: Mapping[str, str]) -> Sync:
    """Without a source the account is worth nothing: drill 7 must say that the last known good did not stand (``missed``).

    Real bugs look like this: a loader that tolerates missing files returns an empty mapping, and ``get`` a zero.
    """

    def then(mirror: Mirror | None, source: Source) -> tuple[Mirror | None, str]:
        mirror, condition = follow(mirror, source)
        if mirror is None or condition == TAKEN:
            return mirror, condition
        old = mirror.nav
        return Mirror(Nav(0.0, 0.0, 0.0, old.updated_ts, old.node, old.stamp), mirror.peak), condition

    return _follows(environment, read_source, then)


def is_never_stale(environment: Mapping[str, str]) -> Sync:
    """The last known good is shown as if it were news: drill 7 must say that nobody was told (``missed``).

    Real bugs look like this: the fallback works so well that nobody notices that it does.
    """
    return _follows(environment, read_source, lambda mirror, source: (follow(mirror, source)[0], TAKEN))


def gives_up_on_its_file(environment: Mapping[str, str]) -> Sync:
    """A damaged file of its own is left to somebody else: drill 8 must say that it was not written any more
    (law ``state_files_fresh``).

    Real bugs look like this: an exception at start is caught, logged, and the rest of the start with it.
    """
    sync = make(environment)
    honest = sync._restore

    def restore(data: bytes | None) -> tuple[Value, ...]:
        said = honest(data)
        sync._restored = not said
        return said

    graft(sync, "_restore", restore)
    return sync


def mends_its_source(environment: Mapping[str, str]) -> Sync:
    """Where the source is missing, the mirror writes it: drill 7 must say that nav.json has another writer (law
    ``state_files_one_writer``).

    Real bugs look like this: a second program that *only helps out* when the first one is down.
    """
    sync = make(environment)
    honest = sync._follow

    def following(now: Now, source: Source) -> tuple[Value, ...]:
        said = honest(now, source)
        if source.nav is not None or sync._mirror is None:
            return said
        nav = sync._mirror.nav
        helper = Author(sync._node, sync._author.boot)
        return (*said, helper.replace(process.SOURCE, {"nav": nav.nav, "nav_usd": nav.nav_usd, "updated_ts": nav.updated_ts}))

    graft(sync, "_follow", following)
    return sync


def shows_silence_as_news(environment: Mapping[str, str]) -> Sync:
    """A source whose writer has fallen silent is shown as taken: drill 19 must say that nobody was told (``silent``).

    Real bugs look like this: the file is there, it is whole, and so it must be good.
    """

    def tell(now: Now, told: Document) -> Document:
        if told["source"]["condition"] != STILL:
            return told
        return {**told, "stale": False, "source": {**told["source"], "condition": TAKEN}}

    return _retold(environment, tell)


def forgets_its_peak(environment: Mapping[str, str]) -> Sync:
    """Each life of the mirror begins at its own peak: drill 19 must say that the loss is gone (``mirrored_still``).

    Real bugs look like this: the last known good is restored, and what is computed of it is computed anew.
    """
    sync = make(environment)
    honest = sync._restore

    def restore(data: bytes | None) -> tuple[Value, ...]:
        said = honest(data)
        if sync._mirror is not None:
            sync._mirror = Mirror(sync._mirror.nav, sync._mirror.nav.nav_usd)
        return said

    graft(sync, "_restore", restore)
    return sync
