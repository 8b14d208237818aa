"""What two state files say of one thing. Files of one loop carry the same time, and then they agree exactly.

Whoever looks between two writes of a loop sees one file of this loop and one of the last: a disagreement of files with
different times is a deviation: of positions and their ledger as long as they are not further apart than a file may stand
still, of numbers that may have moved since always.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.contracts.reading import pointer, shown
from harness.contracts.state_files.books import position_key
from harness.contracts.state_files.diagnostics import MISMATCHES
from harness.contracts.state_files.finding import Document, Finding, Tolerance, deviation, mapping, rows
from harness.contracts.state_files.risk import covered
from harness.contracts.state_files.surfaces import Surface, Surfaces
from harness.contracts.state_files.times import read_moment, seconds_of
from harness.drill.predicate import is_number

Rows = dict[str, Mapping[str, Any]]

UNDER_WATER = "underwater_pnl_frac"
ABSENT = object()
"""What a file does not tell at all: null is told."""

AGE_TOLERANCE_S = 2.0
"""A loop's date may be a loop ahead of its clock, which a step back left behind."""


@dataclass(frozen=True, slots=True)
class Told:
    """A surface's readable document, with the moment it was written (Unix seconds)."""

    surface: Surface
    document: Document
    written: float | None


@dataclass(frozen=True, slots=True)
class Together:
    """The files of one folder that could be read, by the names of their surfaces."""

    surfaces: Surfaces
    limits: Mapping[str, float]
    told: Mapping[str, Told]

    @classmethod
    def of(cls, surfaces: Surfaces, limits: Mapping[str, float], documents: Mapping[str, Document]) -> Together:
        """Of documents by the names of their surfaces."""
        known = {name: surfaces.by_name[name] for name in documents}
        return cls(surfaces, limits, {name: Told(surface, documents[name], seconds_of(documents[name], surface, surfaces))
                                      for name, surface in known.items()})

    def findings(self) -> list[Finding]:
        """Everything on which the files disagree, and those that stand still while others go on."""
        return [*self._alike(), *_tolerated(self._ages()), *self._ledger(), *self._stale()]

    def disagreements(self) -> list[Finding]:
        """What files of one loop say otherwise; that a position waits for its entry is none of it."""
        return [*self._alike(), *self._ages()]

    def _alike(self) -> list[Finding]:
        return [*self._mirrors(), *self._pairs(), *self._figures(), *self._tails(), *self._weights(), *self._pipeline(),
                *(self._entries() if self._at_once("positions_state", "positions_ledger") else ())]

    def document(self, name: str) -> Document:
        return self.told[name].document if name in self.told else {}

    # ---- the mirror

    def _mirrors(self) -> Iterator[Finding]:
        for mirror in self.told.values():
            source = self.told.get(mirror.surface.mirrors or "")
            if source is not None:
                yield from self._mirror(mirror, source)

    def _mirror(self, mirror: Told, source: Told) -> Iterator[Finding]:
        """Never newer than its source, and a copy of what the source said at that time."""
        file, time = mirror.surface.file, f"/{mirror.surface.time}"
        if mirror.written is None or source.written is None:
            return
        if mirror.written > source.written:
            yield Finding("CROSS", time, f"{mirror.written - source.written:.3f} s newer than {source.surface.file}", file=file)
            return
        found = [each for key, there in MIRRORED for each in self._equal(mirror, key, source, there)]
        ours, theirs = aum_of(mirror.document), aum_of(source.document)
        if ours is not None and theirs is not None and not self.surfaces.tolerance.near(ours, theirs):
            found.append(Finding("CROSS", "/aum", f"{shown(ours)}, and {source.surface.file} says {shown(theirs)}", file=file))
        yield from self._weighed(found, mirror.surface.name, source.surface.name)

    # ---- numbers that two files tell

    def _pairs(self) -> Iterator[Finding]:
        for name, path, other, there in PAIRS:
            if name in self.told and other in self.told:
                yield from self._weighed(self._equal(self.told[name], path, self.told[other], there), name, other)
        levels = mapping(self.document("positions_ledger").get("tp_sl_levels"))
        for key, other, count, what in (("num_positions", "positions_state", len(self.held()), "positions are open"),
                                        ("num_registry_entries", "positions_ledger", len(levels), "are in the registry")):
            told = mapping(self.document("risk_snapshot").get("tp_sl_registry")).get(key)
            if is_number(told) and told != count and other in self.told:
                found = Finding("CROSS", f"/tp_sl_registry/{key}", f"{shown(told)}, and {count} {what}",
                                file=self.told["risk_snapshot"].surface.file)
                yield from self._weighed([found], "risk_snapshot", other)

    def _figures(self) -> Iterator[Finding]:
        """Key figures of a symbol are those of its positions."""
        if {"kpis", "positions_state"} <= self.told.keys():
            yield from self._weighed(self._misfigured(), "kpis", "positions_state")

    def _misfigured(self) -> Iterator[Finding]:
        positions: dict[str, list[Mapping[str, Any]]] = {}
        for _, row in rows(self.document("positions_state").get("positions")):
            positions.setdefault(str(row.get("symbol")), []).append(row)
        symbols, file = mapping(self.document("kpis").get("per_symbol")), self.told["kpis"].surface.file
        for symbol in dict.fromkeys(str(row.get("symbol")) for row in self.held().values()):
            if symbol not in symbols:
                yield Finding("CROSS", "/per_symbol", f"the position {shown(symbol)} is missing", file=file)
        for symbol, told in symbols.items():
            own = positions.get(symbol, [])
            for key in ("notional", "unrealized_pnl"):
                value, parts = mapping(told).get(key), [row.get(key) for row in own]
                if is_number(value) and all(map(is_number, parts)):
                    whole = math.fsum(part for part in parts if is_number(part))
                    if not self.surfaces.tolerance.near(value, whole):
                        yield Finding("CROSS", pointer("per_symbol", symbol, key),
                                      f"{shown(value)}, and its positions say {whole:.9g}", file=file)

    def _tails(self) -> Iterator[Finding]:
        """What a symbol may lose is what the snapshot says of it."""
        if {"kpis", "risk_snapshot"} <= self.told.keys():
            kpis, risk = self.told["kpis"], self.told["risk_snapshot"]
            tails = mapping(mapping(risk.document.get("cvar")).get("per_symbol"))
            for symbol, told in mapping(kpis.document.get("per_symbol")).items():
                yield from self._weighed(self._same(
                    kpis, ("per_symbol", symbol, "cvar_nav_pct"), mapping(told).get("cvar_nav_pct", ABSENT),
                    risk, mapping(tails.get(symbol)).get("cvar_nav_pct", ABSENT)), "kpis", "risk_snapshot")

    def _weights(self) -> Iterator[Finding]:
        """What is risked are the positions, each by what it is worth."""
        if {"risk_snapshot", "positions_state"} <= self.told.keys():
            yield from self._weighed(self._misweighed(), "risk_snapshot", "positions_state")

    def _misweighed(self) -> Iterator[Finding]:
        snapshot, worth = self.document("risk_snapshot"), dict[str, list[float | None]]()
        told, nav = covered(mapping(snapshot.get("var"))), snapshot.get("nav", snapshot.get("nav_total"))
        for row in self.held().values():
            worth.setdefault(str(row.get("symbol")), []).append(_worth(row))
        if told is None or not is_number(nav) or nav <= 0:
            return
        path, weights = "/var/covariance", dict(zip(told[0], told[1], strict=True))
        file = self.told["risk_snapshot"].surface.file
        for symbol, parts in worth.items():
            if symbol not in weights:
                yield Finding("CROSS", f"{path}/assets", f"the position {shown(symbol)} is missing", file=file)
                continue
            whole = math.fsum(part for part in parts if part is not None) / nav
            if None not in parts and self.surfaces.tolerance.off(weights[symbol], whole):
                yield Finding("CROSS", f"{path}/weights/{told[0].index(symbol)}",
                              f"{shown(weights[symbol])} of {symbol}, and its positions give {whole:.9g}", file=file)

    def _ages(self) -> Iterator[Finding]:
        """How old the value is told to be, and when it was told. After a step back a clock is behind the files' date for as
        long as that stands still: one folder says nothing about it, and of its loops none is sure (``files.loops_agree``)."""
        risk, nav = self.document("risk_snapshot"), mapping(self.document("nav").get("nav_detail"))
        inputs, written = mapping(risk.get("risk_inputs")), self._written(["nav"])
        told = read_moment(nav.get("told_ts"), self.surfaces.milliseconds_above).seconds
        age = inputs.get("nav_age_s")
        if told is not None and written and is_number(age) and inputs.get("sources_ok") is not False \
                and abs(age - (written[0] - told)) > AGE_TOLERANCE_S:
            found = Finding("CROSS", "/risk_inputs/nav_age_s", file=self.told["risk_snapshot"].surface.file,
                            message=f"{shown(age)}, and the value was told {written[0] - told:.3f} s ago")
            yield from self._weighed([found], "risk_snapshot", "nav")

    def _equal(self, one: Told, path: str, two: Told, there: str) -> Iterator[Finding]:
        return self._same(one, path.split("/"), _at(one.document, path), two, _at(two.document, there))

    def _same(self, one: Told, path: Iterable[str], found: Any, two: Told, expected: Any) -> Iterator[Finding]:
        """Numbers and words are the same; a number that the other tells is not null here."""
        near = self.surfaces.tolerance
        if (is_number(expected) and (found is None or near.off(found, expected))) \
                or (isinstance(found, str) and isinstance(expected, str) and found.upper() != expected.upper()):
            yield Finding("CROSS", pointer(*path), f"{'null' if found is None else shown(found)}, and {two.surface.file} says "
                          f"{shown(expected)}", file=one.surface.file)

    # ---- positions, ledger, exits

    def held(self) -> Rows:
        return held_in(self.document("positions_state"))

    def entries(self) -> Rows:
        return entries_of(self.document("positions_ledger"))

    def _ledger(self) -> Iterator[Finding]:
        """Every position has its entry, with the same quantity at the same price."""
        if not {"positions_state", "positions_ledger"} <= self.told.keys():
            return
        held, entries, file = self.held(), self.entries(), self.told["positions_ledger"].surface.file
        found = [Finding("CROSS", "/entries", f"the position {shown(key)} is missing", file=file)
                 for key in held if key not in entries]
        found += [deviation("CROSS", "/entries", f"the entry {shown(key)} has no position", file)
                  for key in entries if key not in held]
        if not self._at_once("positions_state", "positions_ledger"):
            found += self._entries()
        yield from self._between("positions_state", "positions_ledger", found)

    def _entries(self) -> Iterator[Finding]:
        """An entry that is there says what its position says."""
        held, entries = self.held(), self.entries()
        for place, (key, entry) in enumerate(entries.items()):
            for name in misstated(self.surfaces.tolerance, held[key], entry) if key in held else ():
                yield Finding("CROSS", f"/entries/{place}/{name}",
                              f"{shown(entry[name])}, and the position says {shown(held[key][name])}",
                              file=self.told["positions_ledger"].surface.file)

    def _pipeline(self) -> Iterator[Finding]:
        """The exit pipeline's counters, counted again."""
        parts = ("diagnostics", "positions_state", "positions_ledger")
        if not self.told.keys() >= set(parts):
            return
        told = mapping(mapping(self.document("diagnostics").get("runtime_diagnostics")).get("exit_pipeline"))
        breakdown = mapping(told.get("mismatch_breakdown"))
        path, found = "/runtime_diagnostics/exit_pipeline", []
        counted = self.counted()
        for key, expected in counted.items():
            value = breakdown.get(key) if key in MISMATCHES else told.get(key)
            if is_number(value) and value != expected:
                inside = "mismatch_breakdown/" if key in MISMATCHES else ""
                why = f"{shown(value)}, and positions and ledger give {expected}"
                found.append(Finding("CROSS", f"{path}/{inside}{key}", why, file=self.told["diagnostics"].surface.file))
        flag = told.get("ledger_registry_mismatch")
        if isinstance(flag, bool) and flag is not any(counted[key] for key in MISMATCHES):
            found.append(Finding("CROSS", f"{path}/ledger_registry_mismatch", f"{shown(flag)}, and counted anew it is not",
                                 file=self.told["diagnostics"].surface.file))
        yield from self._weighed(found, *parts)

    def counted(self) -> dict[str, int]:
        """Every counter of the exit pipeline, from positions, ledger and registry."""
        held, entries = self.held(), self.entries()
        registry = mapping(self.document("positions_ledger").get("tp_sl_levels"))
        unguarded = [key for key, row in entries.items() if not _has_level(row) or not _has_level(registry.get(key))]
        missing = [key for key in held if key not in entries]
        return {
            "open_positions_count": len(held),
            "tp_sl_registered_count": sum(map(_has_level, entries.values())),
            "tp_sl_missing_count": len(unguarded) + len(missing),
            "underwater_without_tp_sl_count": sum(self._is_under_water(key, entries[key], held) for key in unguarded),
            "missing_ledger_positions": len(missing),
            "ghost_ledger_entries": sum(key not in held for key in entries),
            "missing_tp_sl_entries": len(unguarded),
            "stale_tp_sl_entries": sum(key not in held for key in registry),
        }

    def _is_under_water(self, key: str, entry: Mapping[str, Any], held: Mapping[str, Mapping[str, Any]]) -> bool:
        price, paid = mapping(held.get(key)).get("mark_price"), entry.get("entry_price")
        if not is_number(price) or not is_number(paid) or price <= 0 or paid <= 0:
            return False
        profit = (price - paid) / paid * (1 if key.endswith(":LONG") else -1)
        return profit <= self.limits[UNDER_WATER]

    # ---- time

    def _stale(self) -> Iterator[Finding]:
        freshest = max(self._written(self.told), default=0.0)
        for told in self.told.values():
            if told.written is not None and freshest - told.written > told.surface.stale_after_s:
                yield deviation("STALE", f"/{told.surface.time}", f"{freshest - told.written:.0f} s behind the freshest file, "
                                f"more than {told.surface.stale_after_s:g} s", told.surface.file)

    def _written(self, names: Iterable[str]) -> list[float]:
        return [written for name in names if name in self.told and (written := self.told[name].written) is not None]

    def _at_once(self, *names: str) -> bool:
        """Whether all of these were written in one loop."""
        moments = [told.written for name in names if (told := self.told.get(name)) is not None]
        return len(moments) == len(names) and moments[0] is not None and moments.count(moments[0]) == len(moments)

    def _moving(self, name: str) -> float:
        return self.told[name].surface.bound_ms / 1000

    def _weighed(self, found: Iterable[Finding], *names: str) -> Iterable[Finding]:
        """Breaches of files of one loop; else deviations, for the one may have moved since the other was written."""
        return found if self._at_once(*names) else _tolerated(found)

    def _between(self, one: str, two: str, found: list[Finding]) -> Iterator[Finding]:
        """Breaches of files of one loop, or of files so far apart that no write is under way; else deviations."""
        moments = self._written((one, two))
        apart = max(moments) - min(moments) if len(moments) == 2 else 0.0
        yield from _tolerated(found) if 0 < apart <= self._moving(two) else found


MIRRORED = (("nav", "nav"), ("nav_usd", "nav_usd"), ("total_equity", "nav_usd"))
"""(key of the mirror, key of its source): the same number where both say the same time."""

PAIRS = (("risk_snapshot", "nav", "nav", "nav"), ("risk_snapshot", "nav_total", "nav", "nav"),
         ("risk_snapshot", "risk_inputs/router/degraded", "router_health", "summary/quality_counts/degraded"),
         ("risk_snapshot", "risk_inputs/router/broken", "router_health", "summary/quality_counts/broken"),
         ("kpis", "portfolio/nav", "nav", "nav"),
         ("kpis", "dd_state", "risk_snapshot", "dd_state/state"),
         ("kpis", "drawdown/dd_pct", "risk_snapshot", "dd_state/drawdown/dd_pct"),
         ("kpis", "router_health_score", "router_health", "router_health_score"),
         ("kpis", "portfolio/dd_pct", "risk_snapshot", "dd_state/drawdown/dd_pct"),
         ("kpis", "portfolio/var_nav_pct", "risk_snapshot", "var/portfolio_var_nav_pct"),
         ("kpis", "portfolio/cvar_nav_pct", "risk_snapshot", "cvar/portfolio_cvar_nav_pct"))
"""(file, where in it, other file, where in that): the same where both are of one loop."""


def held_in(positions: Document) -> Rows:
    """Open positions by their keys."""
    return {key: row for _, row in rows(positions.get("positions")) if (key := position_key(row))}


def _worth(row: Mapping[str, Any]) -> float | None:
    """In USD, signed; None where the row does not say what its quantity counts."""
    qty, mark, unit = row.get("qty"), row.get("mark_price"), row.get("qty_unit")
    if unit == "usd":
        return qty
    return qty * mark if unit is not None and is_number(qty) and is_number(mark) else None


def misstated(near: Tolerance, position: Mapping[str, Any], entry: Mapping[str, Any]) -> Iterator[str]:
    """What an entry of the ledger says otherwise than its position."""
    for name in ("qty", "entry_price"):
        ours, theirs = position.get(name), entry.get(name)
        if is_number(ours) and is_number(theirs) and not near.near(abs(theirs), abs(ours)):
            yield name


def entries_of(ledger: Document) -> Rows:
    """The ledger's entries by their keys."""
    return {f"{row.get('symbol')}:{row.get('side')}".upper(): row for _, row in rows(ledger.get("entries"))}


def aum_of(document: Document) -> float | None:
    """Assets under management: a number, or the total of a block."""
    aum = document.get("aum")
    total = mapping(aum).get("total", aum)
    return total if is_number(total) else None


def _tolerated(found: Iterable[Finding]) -> list[Finding]:
    return [replace(each, severity="deviation") for each in found]


def _at(document: Document, path: str) -> Any:
    value: Any = document
    for part in path.split("/"):
        value = mapping(value).get(part, ABSENT)
    return value


def _has_level(row: Any) -> bool:
    """A target or a stop; 0 is one."""
    return any(is_number(mapping(row).get(name)) for name in ("tp", "sl"))
