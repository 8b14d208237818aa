"""One state file against its contract, and what all of a folder say together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from harness.contracts.library import REPOSITORY
from harness.contracts.reading import Unreadable, pointer, printable, read_object, shown
from harness.contracts.state_files import books, factors, risk, router
from harness.contracts.state_files.cross import Together
from harness.contracts.state_files.diagnostics import diagnostics
from harness.contracts.state_files.finding import Document, Finding, deviation, mapping
from harness.contracts.state_files.surfaces import Surface, Surfaces, read_surfaces
from harness.contracts.state_files.times import seconds_of, time_findings
from harness.errors import SpecError

FINDINGS_MAX = 200
"""Nobody reads more of them, and a hostile list could hold a hundred thousand."""

SIMPLE = {"nav": books.nav, "nav_state": books.nav_state, "positions_state": books.positions_state, "kpis": books.kpis,
          "symbol_scores": router.symbol_scores, "factor_diagnostics": factors.factor_diagnostics}
"""Rules that need the document and the tolerance alone. rv_momentum has none beyond its schema."""

DATED = {"positions_ledger": books.positions_ledger, "router_health": router.router_health}
"""Rules that read times in rows, too."""


class Contract:
    """The compiled rules of one surface under one policy."""

    def __init__(self, surfaces: Surfaces, part: str, policy: Mapping[str, Any] | None = None) -> None:
        if part not in surfaces.by_name:
            raise SpecError(f"no state file {part!r}; known: {', '.join(surfaces.by_name)}")
        self.surfaces, self.limits = surfaces, surfaces.limits(policy)
        self.surface: Surface = surfaces.by_name[part]
        self._policy = policy or {}

    @classmethod
    def load(cls, root: Path = REPOSITORY, *, policy: Mapping[str, Any] | None = None, part: str = "") -> Contract:
        """The contract of a surface under ``root``, a repository or a pack's ``rules`` folder. Raises SpecError."""
        return cls(read_surfaces(root), part, policy)

    def check(self, data: bytes | Document) -> list[Finding]:
        """What is wrong with one document, breaches and deviations, in a stable order. Never raises."""
        if isinstance(data, bytes):
            try:
                data = read_object(data)
            except Unreadable as why:
                return [Finding("SCHEMA", "", str(why))]
        found = self._schema(data) or [*self._keys(data), *self._writer(data), *self._rules(data)]
        return [*found, *time_findings(data, self.surface, self.surfaces)][:FINDINGS_MAX]

    def breaches(self, data: bytes | Document) -> list[Finding]:
        """Of these the ones that the contract forbids."""
        return [each for each in self.check(data) if each.severity == "breach"]

    def following(self) -> Following:
        """A reader of documents that come one after another; it tells breaches."""
        return Following(self)

    def _schema(self, document: Document) -> list[Finding]:
        try:
            if self.surface.schema.is_valid(document):
                return []
            errors = [Finding("SCHEMA", pointer(*error.instance_path), _shortened(error.message))
                      for error in islice(self.surface.schema.iter_errors(document), FINDINGS_MAX)]
        except Exception as why:  # the schema library refuses what JSON cannot hold
            return [Finding("SCHEMA", "", _shortened(f"the document is no JSON value: {why}"))]
        return sorted(errors, key=lambda each: (each.path, each.message))

    def _keys(self, document: Document) -> Iterator[Finding]:
        for key in self.surface.expected:
            if key not in document:
                yield deviation("KEY", pointer(key), "the key is missing")

    def _writer(self, document: Document) -> Iterator[Finding]:
        node = mapping(document.get("writer")).get("node")
        if node is not None and node not in self.surface.owners:
            yield Finding("WRITER", "/writer/node", f"{shown(node)} wrote it, and {' or '.join(self.surface.owners)} may")

    def _rules(self, document: Document) -> list[Finding]:
        """The surface's own rules. A document that its schema lets pass has the types that they rely on; numbers may still be
        beyond all arithmetic."""
        name, near = self.surface.name, self.surfaces.tolerance
        try:
            found: Iterable[Finding] = SIMPLE[name](document, near) if name in SIMPLE else ()
            if name in DATED:
                found = DATED[name](document, near, self.surfaces.milliseconds_above)
                if name == "positions_ledger":
                    found = chain(found, books.exit_levels(document, self._policy))
            elif name == "risk_snapshot":
                found = risk.risk_snapshot(document, near, self.limits)
            elif name == "diagnostics":
                written = seconds_of(document, self.surface, self.surfaces)
                found = diagnostics(document, near, self.limits, written, self.surfaces.milliseconds_above,
                                    self.surface.stale_after_s)
            return list(islice(found, FINDINGS_MAX))
        except (ArithmeticError, ValueError) as why:
            return [Finding("RECOMPUTED", "", f"its numbers are beyond arithmetic: {type(why).__name__}")]


class Following:
    """Checks documents one after another; one that has not changed is not checked again."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._findings: list[Finding] | None = None

    def check(self, document: Document, changed: Collection[str] | None) -> list[Finding]:
        """``changed`` names the keys in which it differs from the one before; None where that is not known."""
        if changed is None or changed or self._findings is None:
            self._findings = self._contract.breaches(document)
        return self._findings


def together(surfaces: Surfaces, documents: Mapping[str, Document], policy: Mapping[str, Any] | None = None) -> list[Finding]:
    """On what the documents of several surfaces (by name) disagree. Never raises for what they hold."""
    try:
        return Together.of(surfaces, surfaces.limits(policy), documents).findings()[:FINDINGS_MAX]
    except (ArithmeticError, ValueError) as why:
        return [Finding("CROSS", "", f"their numbers are beyond arithmetic: {type(why).__name__}")]


def _shortened(message: str) -> str:
    line = printable(" ".join(message.split()))
    return line if len(line) <= 200 else line[:200] + "..."
