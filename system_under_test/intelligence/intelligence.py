"""The intelligence node as a machine: on a fixed beat it asks for prices, looks at the trader's files, and writes three.

A run needs fresh prices of every currency; without them nothing is written, and the files age in honesty. What the
trader's files do not say is left out. One run at a time.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from system_under_test.intelligence.files import (
    DIAGNOSTICS,
    MOMENTUM,
    POSITIONS,
    ROUTER,
    SCORES,
    read_positions,
    read_router,
)
from system_under_test.intelligence.prices import Prices, Quote, read_listing
from system_under_test.machine import (
    Done,
    Exit,
    Failed,
    Look,
    Note,
    Now,
    Replace,
    Request,
    Response,
    Seen,
    Start,
    Stop,
    Timer,
    Unanswered,
    Value,
)
from system_under_test.state import Author, answer, author_of, document_of, number_of

LINK = "intelligence_market"
CURRENCIES = ("BTC", "ETH")
QUESTION = "/api/v2/public/get_book_summary_by_currency?currency={}&kind=future"
HEADERS = (("user-agent", "intelligence"),)
OWN = (SCORES, MOMENTUM, DIAGNOSTICS)
DAY_MS = 86_400_000


@dataclass(slots=True)
class Run:
    """What one run has gathered, and what it still waits for."""

    asked: dict[int, str]
    wanted: set[str]
    quotes: dict[str, Quote] = field(default_factory=dict)
    seen: dict[str, bytes | None] = field(default_factory=dict)
    writing: set[str] = field(default_factory=set)
    weights: dict[str, float] | None = None

    @property
    def gathered(self) -> bool:
        return not self.asked and not self.wanted


class Intelligence:
    """Prices and the last weights live here; everything else is made anew in each run."""

    def __init__(self, node: str, writer: str, interval_ms: int) -> None:
        self._node, self._writer, self._interval_ms = node, writer, interval_ms
        self._prices = Prices()
        self._run: Run | None = None
        self._asked = 0
        self._next_ms = 0
        self._trouble: str | None = None
        self._last_ts: dict[str, float] = {}
        self._weights: dict[str, float] | None = None

    def handle(self, now: Now, value: Value) -> tuple[Value, ...]:
        """Start, the beat, an answer, what was seen or written, a question, or the wish to stop."""
        match value:
            case Start():
                self._author = Author(self._node, value.boot)
                self._next_ms = now.mono_ms
                return (*map(Look, OWN), *self._beat(now))
            case Timer(name="beat"):
                return self._beat(now)
            case Response(id=id, status=status, body=body):
                return self._answered(now, id, read_listing(body) if status == 200 else None)
            case Unanswered(id=id):
                return self._answered(now, id, None)
            case Seen(source=name):
                return self._seen(now, name, value.value)
            case Failed(op=Look(source=name)):
                return self._seen(now, name, None)
            case Done(file=name):
                return self._written(name, True)
            case Failed(op=Replace(file=name)):
                return (*self._written(name, False), *self._say(f"{name} was refused: {value.why}"))
            case Request():
                return (answer(value, now, self._node),)
            case Stop():
                return (Timer("beat", None), Exit(0))
        return ()

    # ---- gathering

    def _beat(self, now: Now) -> tuple[Value, ...]:
        """A new run, whatever became of the one before; what still arrives for that one is nobody's."""
        self._next_ms = max(self._next_ms + self._interval_ms, now.mono_ms + 1)
        beat = Timer("beat", self._next_ms)
        said: tuple[Value, ...] = ()
        if self._run is not None:
            if self._run.writing:
                return (beat,)
            self._prices.clear()
            said = self._say("no prices within a run")
        asked = {self._asked + number: currency for number, currency in enumerate(CURRENCIES, 1)}
        self._asked += len(asked)
        self._run = Run(asked, {ROUTER, POSITIONS})
        questions = (Request(f"{LINK}#{id}", id, "GET", QUESTION.format(currency), HEADERS) for id, currency in asked.items())
        return (*said, beat, *questions, Look(ROUTER), Look(POSITIONS))

    def _answered(self, now: Now, id: int, quotes: dict[str, Quote] | None) -> tuple[Value, ...]:
        run = self._run
        if run is None or run.asked.pop(id, None) is None:
            return ()
        if not quotes:
            self._run = None
            self._prices.clear()
            return self._say("prices are not told")
        run.quotes |= quotes
        return self._end(now, run) if run.gathered else ()

    def _seen(self, now: Now, name: str, data: bytes | None) -> tuple[Value, ...]:
        if name in OWN:
            return self._restore(name, data)
        run = self._run
        if run is None or name not in run.wanted:
            return ()
        run.wanted.discard(name)
        run.seen[name] = data
        return self._end(now, run) if run.gathered else ()

    def _restore(self, name: str, data: bytes | None) -> tuple[Value, ...]:
        """Begin where our own file left off: its time, which never goes back, and the weights that smooth the next ones."""
        if data is None:
            return ()
        document = document_of(data)
        author = author_of(document) if document is not None else None
        last = number_of(document, "updated_ts") if document is not None else None
        if document is None or author is None or author[0] != self._node or last is None:
            return (Note("own_file_corrupted", None, {"file": name, "bytes": len(data)}),)
        self._last_ts.setdefault(name, last)
        if name == DIAGNOSTICS and self._weights is None:
            self._weights = _weights(document)
        return ()

    # ---- a run

    def _end(self, now: Now, run: Run) -> tuple[Value, ...]:
        """Everything is there: compute, and write what there is to say."""
        positions = read_positions(run.seen[POSITIONS], self._writer)
        held = {each.symbol: each.quote for each in positions if each.quote is not None}
        self._prices.take({**held, **run.quotes})
        said = self._say(None)
        if not self._prices.known:
            self._run = None
            return said
        # The library is loaded by the first run and not by the start, which others wait for.
        made = importlib.import_module("system_under_test.intelligence.documents").documents(
            self._prices, read_router(run.seen[ROUTER], self._writer), positions, self._weights,
            self._prices.span * self._interval_ms / DAY_MS, lambda file: self._time(now, file))
        run.weights = made[DIAGNOSTICS]["weights"]
        run.writing = set(made)
        return (*said, Note("scored", None, {"symbols": len(self._prices.known)}),
                *(self._author.replace(file, document) for file, document in made.items()))

    def _time(self, now: Now, file: str) -> float:
        """The wall clock in Unix seconds, and never less than the file has said already."""
        self._last_ts[file] = max(self._last_ts.get(file, 0.0), now.wall_ms / 1_000)
        return self._last_ts[file]

    def _written(self, name: str, stands: bool) -> tuple[Value, ...]:
        """One file less to wait for. The next weights are smoothed with those that stand in the file."""
        run = self._run
        if run is None:
            return ()
        run.writing.discard(name)
        if name == DIAGNOSTICS and stands:
            self._weights = run.weights
        if not run.writing:
            self._run = None
        return ()

    def _say(self, trouble: str | None) -> tuple[Value, ...]:
        """A note when trouble begins, changes or ends."""
        if trouble == self._trouble:
            return ()
        self._trouble = trouble
        return (Note("intelligence_recovered"),) if trouble is None else (Note("intelligence_trouble", None, {"why": trouble}),)


def _weights(document: Mapping[str, Any]) -> dict[str, float] | None:
    """The weights that a file of ours says; None unless each is a number."""
    told = document.get("weights")
    if not isinstance(told, dict) or any(number_of(told, factor) is None for factor in told):
        return None
    return dict(told)


def make(environment: Mapping[str, str]) -> Intelligence:
    """Reads what the node SOURCE_WRITER (else ``trader``) writes, on the beat of POLICY's ``intelligence_interval_ms``."""
    policy = orjson.loads(environment["POLICY"])
    return Intelligence(environment.get("NODE_NAME") or "intelligence", environment.get("SOURCE_WRITER") or "trader",
                        int(policy["intelligence_interval_ms"]))
