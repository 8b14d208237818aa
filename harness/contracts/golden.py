"""One document against a golden fixture: exact, except where the ``tolerances.yaml`` beside it says why not.

Kinds of tolerance (DESIGN, section 9, choice 3):

    volatile   any value of the same type; ``monotone``: not before the baseline's; ``near_ms``: that near to the
               loop's last turn in the same document; ``or_null``: or none at all, on either side
    at_least   a number not below a bound            range      a number within two bounds
    increased  a number above the baseline's

A bound is a number, ``policy.<key>`` or ``field.<key>`` (of the observed document). Conditions of ``unblock`` are
compared as parsed clauses, each dwell being that of the policy in force. What a golden is there to prove (mode, risk state,
reasons, latch, bunker, connectivity, owner code and versions; state, reasons and safety of a service) can never be tolerated;
a tolerances file that tries is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

from harness import texts
from harness.contracts.conditions import parse_condition
from harness.contracts.library import GOLDENS, REPOSITORY, Manifest, manifest_of
from harness.contracts.owner import OwnerRules
from harness.contracts.reading import pointer
from harness.drill.predicate import look
from harness.errors import SpecError, TextError

Document = Mapping[str, Any]
Kind = Literal["volatile", "at_least", "range", "increased"]

NEVER_TOLERABLE = (
    "/status_schema_version", "/contract_version", "/supported_profiles", "/enforced_profile", "/trading_mode",
    "/risk_state", "/mode_reasons", "/open_permission_blocked_latch", "/open_permission_reason_codes",
    "/open_permission_requires_reconcile", "/bunker_mode_active", "/connectivity_degraded", "/f1_cert_state",
    "/owner_view/primary_owner_reason_code", "/owner_view/owner_message", "/owner_view/unblock/*/type",
    "/owner_view/unblock/*/condition",
)
"""What a golden of ``/status`` is there to prove."""

NEVER_OF = {
    "csp_status": NEVER_TOLERABLE,
    "ops_status": ("/service_kind", "/status/state", "/status/summary", "/status/reason_codes", "/marketdata/is_fresh",
                   "/safety", "/floor/state", "/floor/summary", "/floor/reason_codes", "/services/*/service_kind",
                   "/services/*/state", "/services/*/reason_codes", "/services/*/online"),
}
"""The same, contract by contract."""

_CLOCK = "loop_tick_last_ts_ms"
_FIELDS = {"volatile": {"monotone", "near_ms", "or_null"}, "at_least": {"bound"}, "range": {"from", "to"}, "increased": set()}
_NEEDED = {"volatile": set(), "at_least": {"bound"}, "range": {"from", "to"}, "increased": set()}


@dataclass(frozen=True, slots=True)
class Tolerance:
    """One declared exception, with its reason. ``path`` may hold ``*`` for an array's index."""

    path: str
    kind: Kind
    reason: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two documents differ. ``reason`` says why it is tolerated, or how it breaks its tolerance."""

    pointer: str
    expected: Any
    observed: Any
    tolerated: bool
    reason: str


class _Absent:
    """Stands for a value that is not there; a singleton that prints itself."""

    def __repr__(self) -> str:
        return "(absent)"


ABSENT = _Absent()


@dataclass(frozen=True)
class Tolerances:
    """The declared exceptions: one set for all fixtures, and more for single ones, which win."""

    common: tuple[Tolerance, ...]
    by_fixture: Mapping[str, tuple[Tolerance, ...]]

    @classmethod
    def parse(cls, text: bytes, file: str, never: tuple[str, ...] = NEVER_TOLERABLE) -> Tolerances:
        """Read a tolerances file. Raises SpecError naming the entry that is wrong."""
        try:
            raw: Any = texts.load(text, file)
            return cls(_entries(raw["all"], file, never),
                       {name: _entries(each, file, never) for name, each in raw.get("fixtures", {}).items()})
        except TextError as why:
            raise SpecError(str(why)) from why
        except (KeyError, TypeError, AttributeError) as why:
            raise SpecError(f"{file}: cannot be read as tolerances: {why!r}") from why

    def of(self, fixture: str | None) -> tuple[Tolerance, ...]:
        """The exceptions for one fixture, the more special first."""
        return (*self.by_fixture.get(fixture or "", ()), *self.common)


@cache
def tolerances_of(root: Path = REPOSITORY, contract: str = "csp_status") -> Tolerances:
    """The tolerances of a contract's goldens under ``root`` (a repository or a pack's ``rules`` folder), read once."""
    file = root / GOLDENS[contract] / "tolerances.yaml"
    try:
        return Tolerances.parse(file.read_bytes(), str(file), NEVER_OF[contract])
    except OSError as why:
        raise SpecError(f"{file}: {why.strerror}") from why


def compare(observed: Document, expected: Document, tolerances: Tolerances, policy: Mapping[str, Any],
            baseline: Document | None = None, *, fixture: str | None = None,
            manifest: Manifest | Plain | None = None) -> list[Difference]:
    """Every path in which ``observed`` differs from ``expected``, in a stable order; tolerated ones are listed too.

    ``policy`` is the policy in force; ``baseline`` an earlier document of the same system (None: nothing is known
    about what rose), ``fixture`` the name by which tolerances.yaml may say more. ``manifest`` is ``PLAIN`` for documents of
    another contract than that of ``/status``.
    """
    manifest = manifest or manifest_of()
    judge = _Judge(observed, baseline, {**manifest.policy_defaults, **policy}, tolerances.of(fixture), manifest)
    return [*judge.differences(expected), *judge.extensions(expected)]


def matches(differences: list[Difference]) -> bool:
    """Whether nothing but tolerated differences is left."""
    return all(each.tolerated for each in differences)


@dataclass(frozen=True, eq=False)
class Plain:
    """What a comparison needs to know of documents whose contract has no manifest."""

    policy_defaults: Mapping[str, Any]
    known_keys: frozenset[str]


PLAIN = Plain({}, frozenset())


class _Judge:
    def __init__(self, observed: Document, baseline: Document | None, policy: Mapping[str, Any],
                 tolerances: tuple[Tolerance, ...], manifest: Manifest | Plain) -> None:
        self.observed, self.baseline, self.policy = observed, baseline, policy
        self.tolerances, self.manifest = tolerances, manifest

    def differences(self, expected: Document) -> Iterator[Difference]:
        for path, wanted, seen in _pairs("", expected, {key: self.observed.get(key, ABSENT) for key in expected}):
            if isinstance(self.manifest, Manifest) and _pattern(path) == "/owner_view/unblock/*/condition":
                wanted = _in_force(wanted, self.manifest, self.policy)
                if isinstance(seen, str) and parse_condition(seen) == parse_condition(wanted):
                    continue
            tolerance = next((each for each in self.tolerances if each.path == _pattern(path)), None)
            equal = _equal(wanted, seen)
            if tolerance is None:
                if not equal:
                    yield Difference(path, wanted, seen, False, "must be equal")
                continue
            broken = self._broken(tolerance, path, wanted, seen)
            if broken and not (equal and tolerance.kind != "increased"):
                yield Difference(path, wanted, seen, False, broken)
            elif not equal:
                yield Difference(path, wanted, seen, True, f"{tolerance.kind}: {tolerance.reason}")

    def extensions(self, expected: Document) -> Iterator[Difference]:
        """Further top-level keys are lawful in a running system; a contract key that no golden names is not."""
        for key in self.observed:
            if key not in expected:
                known = key in self.manifest.known_keys
                yield Difference(pointer(key), ABSENT, self.observed[key], not known,
                                 "the fixture does not have it" if known else "an extension key outside the contract")

    def _broken(self, tolerance: Tolerance, path: str, wanted: Any, seen: Any) -> str | None:
        """How ``seen`` breaks the tolerance, or None."""
        if tolerance.arguments.get("or_null") and (seen in (None, ABSENT) or wanted in (None, ABSENT)):
            return None
        if seen is ABSENT or _kind(seen) != _kind(wanted):
            return f"expected {_kind(wanted)}"
        if tolerance.kind == "volatile":
            return self._stamp(tolerance, path, seen)
        if not isinstance(seen, int | float):
            return "is no number"
        if tolerance.kind == "increased":
            before = _at(self.baseline, path)
            return None if _kind(before) == "number" and seen > before else f"must be above the baseline's {before!r}"
        low = self._bound(tolerance.arguments.get("from", tolerance.arguments.get("bound")))
        high = self._bound(tolerance.arguments.get("to", float("inf")))
        return None if low <= seen <= high else f"outside [{low}, {high}]"

    def _stamp(self, tolerance: Tolerance, path: str, seen: Any) -> str | None:
        before, now = _at(self.baseline, path), self.observed.get(_CLOCK)
        if tolerance.arguments.get("monotone") and _kind(before) == "number" and seen < before:
            return f"went back from the baseline's {before}"
        if "near_ms" in tolerance.arguments:
            near = self._bound(tolerance.arguments["near_ms"])
            if _kind(now) != "number" or abs(seen - now) > near:
                return f"is not within {near} ms of {_CLOCK}"
        return None

    def _bound(self, raw: Any) -> float:
        """A bound as a number. ``policy.<key>_s * 1000`` is never needed: bounds use the key's own unit."""
        if isinstance(raw, str):
            source, _, key = raw.partition(".")
            raw = look(self.policy if source == "policy" else self.observed, key)
        if _kind(raw) != "number":
            raise SpecError(f"a tolerance's bound is {raw!r}, not a number")
        return float(raw) if isinstance(raw, float) else int(raw)


def _entries(raw: Mapping[str, Any], file: str, never: tuple[str, ...]) -> tuple[Tolerance, ...]:
    return tuple(_entry(path, dict(each), file, never) for path, each in raw.items())


def _entry(path: str, each: dict[str, Any], file: str, never: tuple[str, ...]) -> Tolerance:
    kind, reason = each.pop("kind", None), each.pop("reason", None)
    if kind not in _FIELDS:
        raise SpecError(f"{file}: {path}: the kind is {kind!r}, expected one of {', '.join(_FIELDS)}")
    if not isinstance(reason, str) or not reason.strip():
        raise SpecError(f"{file}: {path}: a tolerance needs a reason")
    if not (_NEEDED[kind] <= set(each) <= _FIELDS[kind]):
        raise SpecError(f"{file}: {path}: {kind} takes {sorted(_FIELDS[kind])}, found {sorted(each)}")
    if any(_covers(path, each_) for each_ in never):
        raise SpecError(f"{file}: {path} can never be tolerated: it is what a golden proves")
    return Tolerance(path, kind, reason, each)


def _covers(path: str, never: str) -> bool:
    """Whether a tolerance at ``path`` would let ``never``, something under it or something above it differ."""
    return path == never or never.startswith(path + "/") or path.startswith(never + "/")


def _pattern(path: str) -> str:
    """A path with array indices as ``*``."""
    return re.sub(r"/[0-9]+(?=/|\Z)", "/*", path)


def _pairs(path: str, wanted: Any, seen: Any) -> Iterator[tuple[str, Any, Any]]:
    """(path, wanted, seen) of every leaf, in the fixture's order. Arrays of codes are leaves: their order counts."""
    if isinstance(wanted, Mapping) and isinstance(seen, Mapping):
        for key in (*wanted, *(key for key in seen if key not in wanted)):
            yield from _pairs(path + pointer(key), wanted.get(key, ABSENT), seen.get(key, ABSENT))
    elif _are_objects(wanted) and _are_objects(seen) and len(wanted) == len(seen):
        for index, (left, right) in enumerate(zip(wanted, seen, strict=True)):
            yield from _pairs(f"{path}/{index}", left, right)
    else:
        yield path, wanted, seen


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)


def _kind(value: Any) -> str:
    """The JSON type of a value; true is no number."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return {str: "string", list: "array", dict: "object", type(None): "null"}.get(type(value), type(value).__name__)


def _equal(left: Any, right: Any) -> bool:
    """Equal as JSON: 9 equals 9.0, true does not equal 1."""
    if _kind(left) != _kind(right):
        return False
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    return bool(left == right)


def _at(document: Any, path: str) -> Any:
    """The value at an RFC 6901 path, or ABSENT."""
    for part in path.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(document, Mapping) and part in document:
            document = document[part]
        elif isinstance(document, list) and part.isdigit() and int(part) < len(document):
            document = document[int(part)]
        else:
            return ABSENT
    return document


def _in_force(condition: Any, manifest: Manifest, policy: Mapping[str, Any]) -> Any:
    """A fixture's condition with the dwell of the policy in force.

    Fixtures are written under the manifest's defaults; the situation whose condition reads so under the defaults
    is rendered again under the policy. A condition that no situation has stays as it is.
    """
    if not isinstance(condition, str):
        return condition
    return _renderings(manifest, tuple(sorted(
        (key, value) for key, value in policy.items() if isinstance(value, int | float)))).get(condition, condition)


@lru_cache(maxsize=8)
def _renderings(manifest: Manifest, policy: tuple[tuple[str, Any], ...]) -> Mapping[str, str]:
    """Condition under the defaults → condition under the policy."""
    ours, theirs = OwnerRules(manifest, {}), OwnerRules(manifest, dict(policy))
    return {before[1].fill({}, {}): after[1].fill({}, {})
            for name in ours.situations
            for before, after in zip(ours.situations[name].unblock, theirs.situations[name].unblock, strict=True)}
