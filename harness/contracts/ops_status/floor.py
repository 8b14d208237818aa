"""The Trading Floor: one state for all services, by ``specs/ops_status/floor.yaml``. The source names it and gives no rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from harness.contracts.library import REPOSITORY
from harness.contracts.ops_status.table import FOLDER, Table, read_spec, table_of
from harness.contracts.reading import Unreadable, read_object
from harness.errors import SpecError

Service = Mapping[str, Any]


class Floor:
    """The declared order, and how a service's answer becomes a line of the floor."""

    def __init__(self, raw: Mapping[str, Any], table: Table, file: str = "floor.yaml") -> None:
        try:
            self.table, self.extension = table, str(raw["extension"])
            self._rank = {state: place for place, state in enumerate(raw["order"])}
            self._counts = [({key: each[key] for key in ("state", "reason", "kind")}, str(each["as"]))
                            for each in raw["counts_as"]]
            self._cases = {name: raw[name] for name in ("unreachable", "untrusted", "empty")}
            named = [*self._rank, *(each for _, each in self._counts), *(each["state"] for each in self._cases.values())]
        except (KeyError, TypeError, AttributeError) as why:
            raise SpecError(f"{file}: a part is missing or has the wrong shape: {why!r}") from why
        if {*self._rank} != {*table.states} or not {*named} <= {*table.states}:
            raise SpecError(f"{file}: the order must hold every state of the table once, and no other")

    @classmethod
    def load(cls, root: Path = REPOSITORY) -> Floor:
        return _floor_of(root)

    def of(self, services: Sequence[Service]) -> dict[str, Any]:
        """State, summary and reason codes of the floor, from those of its services."""
        if not services:
            return self._told(self._cases["empty"]["state"], [self._cases["empty"]["reason"]])
        worst = min((self.counted(each) for each in services), key=self._rank.__getitem__)
        return self._told(worst, [] if worst == "OK" else self.table.in_order(
            code for each in services if self.counted(each) == worst for code in each["reason_codes"]))

    def counted(self, service: Service) -> str:
        """The state as which a service counts: an execution that is scaled to zero is no error."""
        for case, counts in self._counts:
            if (service["state"], service["service_kind"]) == (case["state"], case["kind"]) \
                    and service["reason_codes"] == [case["reason"]]:
                return counts
        return str(service["state"])

    def worse(self, one: str, other: str) -> bool:
        """Whether one state is worse than another, in the declared order."""
        return self._rank[one] < self._rank[other]

    def line(self, name: str, answer: bytes | None, kind: str = "ops") -> dict[str, Any]:
        """What the floor shows of a service that answered so (None: it did not). ``kind`` is what it was when it last told."""
        if answer is None:
            return self._case(name, kind, "unreachable")
        try:
            return self._trusted(name, read_object(answer)) or self._case(name, kind, "untrusted")
        except Unreadable:
            return self._case(name, kind, "untrusted")

    def _trusted(self, name: str, document: Mapping[str, Any]) -> dict[str, Any] | None:
        status, kind = document.get("status"), document.get("service_kind")
        state, codes = (status.get("state"), status.get("reason_codes", [])) if isinstance(status, Mapping) else (None, None)
        if not (isinstance(kind, str) and isinstance(state, str) and isinstance(codes, list)) \
                or not self.table.knows(kind, state, codes) or codes == [self._cases["unreachable"]["reason"]] \
                or document.get("service_name") not in (name, ""):
            return None
        return {"service_name": name, "service_kind": kind, "state": state, "reason_codes": codes, "online": True}

    def _case(self, name: str, kind: str, case: str) -> dict[str, Any]:
        told = self._cases[case]
        return {"service_name": name, "service_kind": kind, "state": told["state"], "reason_codes": [told["reason"]],
                "online": bool(told["online"])}

    def _told(self, state: str, codes: Iterable[str]) -> dict[str, Any]:
        return {"state": state, "summary": self.table.summaries[state], "reason_codes": list(codes)}


@cache
def _floor_of(root: Path) -> Floor:
    return Floor(read_spec(root, "floor.yaml"), table_of(root), str(root / FOLDER / "floor.yaml"))
