"""What the mirror shows, as a value: taken from its source word for word, or kept while there is nothing lawful to take.

The mirror is never newer than its source: it carries the source's own time, and what cannot be read, contradicts itself,
or was not written by the source's one writer is not taken. Meanwhile the last known good stands, marked as stale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from system_under_test.state import Stamp, author_of, document_of, number_of

TAKEN, MISSING, TORN, UNLAWFUL, FOREIGN, FORGED, STILL = (
    "taken", "missing", "torn", "unlawful", "foreign", "forged", "still")
"""What became of the source at the latest look: taken, or why what it said before still stands.

``foreign`` is signed by another node or by none; ``forged`` is signed by the right one as a write that lies behind us, or
that we know with other content; ``still`` is a source whose writer has fallen silent."""


class Nav(Struct, frozen=True):
    """A lawful nav.json: its numbers in USD, its time in Unix seconds, and as whose how-manieth write it came."""

    nav: float
    nav_usd: float
    aum: Any
    updated_ts: float
    node: str
    stamp: Stamp


class Source(Struct, frozen=True):
    """What a look at the source found: a lawful document, or the reason why there is none."""

    nav: Nav | None
    trouble: str = TAKEN


class Mirror(Struct, frozen=True):
    """What was last taken, and the highest equity that ever was."""

    nav: Nav
    peak: float

    def document(self, condition: str) -> dict[str, Any]:
        """As nav_state.json says it, unsigned."""
        nav = self.nav
        fallen = max(0.0, (self.peak - nav.nav_usd) / self.peak) if self.peak > 0 else 0.0
        return {
            "nav": nav.nav, "nav_usd": nav.nav_usd, "total_equity": nav.nav_usd, "aum": nav.aum, "drawdown": fallen,
            "peak_equity": self.peak, "updated_ts": nav.updated_ts, "stale": condition != TAKEN,
            "source": {"surface": "nav", "node": nav.node, "boot": nav.stamp.boot, "seq": nav.stamp.seq,
                       "condition": condition},
        }


def read_source(data: bytes | None, writer: str) -> Source:
    """What nav.json says, if it is lawful and signed by its one writer."""
    if data is None:
        return Source(None, MISSING)
    document = document_of(data)
    if document is None:
        return Source(None, TORN)
    author = author_of(document)
    if author is None or author[0] != writer:
        return Source(None, FOREIGN)
    nav = _nav(document, *author)
    return Source(nav) if nav is not None else Source(None, UNLAWFUL)


def _nav(document: Mapping[str, Any], node: str, stamp: Stamp) -> Nav | None:
    nav, usd, time = (number_of(document, key) for key in ("nav", "nav_usd", "updated_ts"))
    if nav is None or usd is None or time is None:
        return None
    aum = document.get("aum")
    if not isinstance(aum, dict) and number_of(document, "aum") is None:
        aum = {"futures": usd, "offexchange": {}, "total": usd}
    return Nav(nav, usd, aum, time, node, stamp)


def read_own(data: bytes, node: str, writer: str) -> Mirror | None:
    """What we said last, read back from our own file; None when it is not ours, or no longer whole."""
    document = document_of(data)
    author = author_of(document) if document is not None else None
    if document is None or author is None or author[0] != node:
        return None
    source = document.get("source")
    signed = author_of({"writer": source})
    peak = number_of(document, "peak_equity")
    if signed is None or signed[0] != writer or peak is None:
        return None
    nav = _nav(document, *signed)
    return Mirror(nav, peak) if nav is not None and peak >= nav.nav_usd else None


def follow(mirror: Mirror | None, source: Source) -> tuple[Mirror | None, str]:
    """The mirror after a look at its source, and what became of the look."""
    nav = source.nav
    if nav is None:
        return mirror, source.trouble
    if mirror is None:
        return Mirror(nav, nav.nav_usd), TAKEN
    if nav.stamp < mirror.nav.stamp or (nav.stamp == mirror.nav.stamp and nav != mirror.nav):
        return mirror, FORGED
    return Mirror(nav, max(mirror.peak, nav.nav_usd)), TAKEN
