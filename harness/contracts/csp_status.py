"""Every rule of one ``GET /api/v1/status`` document. Contract 5.2, sections 7.0 and 2.2 to 2.3; the source's tags.

    SCHEMA      the JSON Schema; also bytes that are no JSON object at all
    CSP-MIN     a key of the minimum is missing, or one has a banned name
    CONTRACT    the document speaks another contract version
    INVARIANT   Active with reasons, or another mode without
    TIER        a reason of another mode's tier        ORDER    reasons out of canonical order
    ENUM        a code that no registry knows          LATCH    the latch and its two companions disagree
    DECISION-A  the latch is set and the mode does not say so (specs/status/LOCKED_DECISIONS.md)
    STRICT      a key that nobody knows, where that was asked for
    SEMANTIC    the document contradicts itself in any other way

Documents are checked on every sample, so the rules are compiled once and a lawful document takes about 20 µs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jsonschema_rs

from harness.contracts.following import Following, Parts
from harness.contracts.library import REPOSITORY, SCHEMA_EXACT, SCHEMA_MIN, Manifest, manifest_of, read_json
from harness.contracts.owner import OwnerRules
from harness.contracts.reading import Unreadable, pointer, printable, read_object, shown
from harness.drill.predicate import is_number
from harness.errors import SpecError

Document = Mapping[str, Any]
Demand = tuple[str, str, str, str]

FINDINGS_MAX = 200
"""Nobody reads more of them, and a hostile array could hold a hundred thousand."""
CLOCKS_APART_MS = 60_000
"""How far the clock of who issued a certificate may be ahead (CONFLICTS 25)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule. ``path`` is an RFC 6901 pointer, empty for the whole document."""

    tag: str
    path: str
    message: str

    def __str__(self) -> str:
        return printable(f"[{self.tag}] {self.path or '/'}: {self.message}")


class Contract:
    """The compiled rules for one manifest, schema and policy."""

    def __init__(self, manifest: Manifest, schema: dict[str, Any] | bool,
                 policy: Mapping[str, Any] | None = None) -> None:
        try:
            self._schema = jsonschema_rs.Draft202012Validator(schema)
        except Exception as why:
            raise SpecError(f"the status schema is no JSON Schema: {why}") from why
        self.parts = Parts(schema)
        self.manifest = manifest
        self.policy = {**manifest.policy_defaults, **(policy or {})}
        self._declared = frozenset(schema.get("properties", ())) if isinstance(schema, Mapping) else frozenset()
        self._owner = OwnerRules(manifest, self.policy)
        self._prepare()
        rules: tuple[Callable[[Document], Iterator[Finding]], ...] = (
            self._minimum, self._version, self._mode, self._latch, self._enums, self._queue, self._connectivity,
            *(partial(self._stamp, key) for key in self._timestamps),
            *(partial(self._complete, demands) for demands in (self._state_demands, self._age_demands, self._disk_demands)),
            self._denied, self._dates, self._other_profiles, self._owner_view)
        self.rules = tuple(map(_bounded, rules))
        """Each a pure function of the fields that it reads, and of as few as may be, because a field that changes has every
        rule asked again that reads it; beside them only the schema is asked."""

    @classmethod
    def load(cls, root: Path = REPOSITORY, *, policy: Mapping[str, Any] | None = None,
             exact: bool = False) -> Contract:
        """The contract under ``root``, a repository or a pack's ``rules`` folder.

        ``policy`` is the policy in force: thresholds, and dwells as they stand in ``owner_view``. Without it the
        manifest's defaults apply, which are those of the reference policy.
        """
        return cls(manifest_of(root), read_json(root / (SCHEMA_EXACT if exact else SCHEMA_MIN)), policy)

    def check(self, data: bytes | Document, *, strict: bool = False) -> list[Finding]:
        """What is wrong with one document, in a stable order; empty when it is lawful. Never raises."""
        if isinstance(data, bytes):
            try:
                data = read_object(data)
            except Unreadable as why:
                return [Finding("SCHEMA", "", str(why))]
        return self.check_document(data, strict=strict)

    def check_document(self, document: Document, *, strict: bool = False) -> list[Finding]:
        """As ``check``, for a document that a JSON reader has read."""
        found = [self.schema_findings(document), *(rule(document) for rule in self.rules)]
        return self.together([*found, _bounded(self._strict)(document)] if strict else found)

    def following(self) -> Following:
        """A reader of documents that come one after another, which does not check anew what has not changed."""
        return Following(self)

    def together(self, found: Iterable[list[Finding]]) -> list[Finding]:
        """The findings of the schema and of each rule as one list, of a length that somebody may read."""
        findings = [each for part in found for each in part]
        if len(findings) > FINDINGS_MAX:
            return [*findings[:FINDINGS_MAX], Finding("SCHEMA", "", "and more findings than anybody reads")]
        return findings

    # ---- compiled once --------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        manifest, number = self.manifest, self._number
        self._keys = frozenset(manifest.minimum_keys)
        self._banned, self._of_other_profiles = manifest.banned_keys, manifest.keys_of_other_profiles
        self._tiers = {mode: {code: index for index, code in enumerate(codes)}
                       for mode, codes in manifest.tiers.items()}
        self._latch_index = {code: index for index, code in enumerate(manifest.latch_codes)}
        self._enumerated = {key: frozenset(manifest.registry(field["registry"]))
                            for key, field in manifest.raw["csp"]["fields"].items() if field["kind"] == "enum"}
        self._timestamps = tuple(key for key, field in manifest.raw["csp"]["fields"].items()
                                 if field["kind"].startswith("timestamp"))
        self._margin_high, self._margin_kill = number("mm_util_reduceonly"), number("mm_util_kill")
        self._disk_kill = number("disk_kill_pct")
        self._policy_age_max = number("max_policy_age_sec")
        self._cert_ahead_max_ms = number("f1_cert_freshness_window_s") * 1000 + CLOCKS_APART_MS
        self._sessions_kill = number("rate_limit_kill_min_10028")
        self._ages: tuple[tuple[str, float], ...] = (("mm_util_last_update_ts_ms", number("mm_util_max_age_ms")),
                      ("disk_used_last_update_ts_ms", number("disk_used_max_age_ms")),
                      ("disk_used_secondary_last_update_ts_ms", number("disk_used_max_age_ms")))

    def _number(self, key: str) -> float:
        value = self.policy.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SpecError(f"the policy's {key} is {shown(value)}, not a number")
        return value

    # ---- the rules ------------------------------------------------------------------------------------------

    def schema_findings(self, document: Document) -> list[Finding]:
        """What the JSON Schema alone says, in a stable order."""
        try:
            if self._schema.is_valid(document):
                return []
            errors = [Finding("SCHEMA", pointer(*error.instance_path), _shortened(error.message))
                      for error in islice(self._schema.iter_errors(document), FINDINGS_MAX)]
        except Exception as why:  # the schema library refuses what JSON cannot hold: a lone surrogate, an object
            return [Finding("SCHEMA", "", _shortened(f"the document is no JSON value: {why}"))]
        return sorted(errors, key=lambda each: (each.path, each.message))

    def _minimum(self, document: Document) -> Iterator[Finding]:
        if not self._keys <= document.keys():
            for key in self.manifest.minimum_keys:
                if key not in document:
                    yield Finding("CSP-MIN", pointer(key), "the key is missing")
        for key, name in self._banned.items():
            if document.get(key, _ABSENT) is not _ABSENT:
                yield Finding("CSP-MIN", pointer(key), f"the name is banned: {name} is the count")

    def _version(self, document: Document) -> Iterator[Finding]:
        expected = self.manifest.contract_version
        if document.get("contract_version", expected) != expected:
            yield Finding("CONTRACT", "/contract_version",
                          f"found {shown(document['contract_version'])}, expected {expected!r}")

    def _mode(self, document: Document) -> Iterator[Finding]:
        mode, reasons = document.get("trading_mode"), document.get("mode_reasons")
        tier = self._tiers.get(mode) if isinstance(mode, str) else None
        if tier is None or not isinstance(mode, str):
            if mode is not None:
                yield Finding("ENUM", "/trading_mode", f"{shown(mode)} is no TradingMode")
            return
        if mode == "Active":
            if reasons != [] and "mode_reasons" in document:
                yield Finding("INVARIANT", "/mode_reasons", "Active has no reasons")
        elif not isinstance(reasons, list) or not reasons:
            yield Finding("INVARIANT", "/mode_reasons", f"{mode} needs at least one reason")
        if isinstance(reasons, list) and reasons:
            yield from _walk("/mode_reasons", reasons, tier, unknown=("TIER", f"is no reason for {mode}"),
                             late=("ORDER", "stands after a later reason of its tier"))

    def _latch(self, document: Document) -> Iterator[Finding]:
        latch, codes = document.get("open_permission_blocked_latch"), document.get("open_permission_reason_codes")
        reconcile = document.get("open_permission_requires_reconcile")
        if isinstance(codes, list) and codes:
            yield from _walk("/open_permission_reason_codes", codes, self._latch_index,
                             unknown=("ENUM", "is no OpenPermissionReasonCode"),
                             late=("SEMANTIC", "stands after a later code of the registry"))
        if latch is True:
            if codes == []:
                yield Finding("LATCH", "/open_permission_reason_codes", "the latch is set and no code says why")
            if reconcile is not True:
                yield Finding("LATCH", "/open_permission_requires_reconcile", "the latch is set: must be true")
            yield from self._decision_a(document)
        elif latch is False:
            if codes != []:
                yield Finding("LATCH", "/open_permission_reason_codes", "the latch is clear: must be empty")
            if reconcile is not False:
                yield Finding("LATCH", "/open_permission_requires_reconcile", "the latch is clear: must be false")
        elif "open_permission_blocked_latch" in document:
            yield Finding("LATCH", "/open_permission_blocked_latch", f"{shown(latch)} is not a boolean")

    def _decision_a(self, document: Document) -> Iterator[Finding]:
        mode, reasons = document.get("trading_mode"), document.get("mode_reasons")
        if mode == "Active":
            yield Finding("DECISION-A", "/trading_mode", "the latch is set: never Active")
        elif mode == "ReduceOnly" and isinstance(reasons, list) and "REDUCEONLY_OPEN_PERMISSION_LATCHED" not in reasons:
            yield Finding("DECISION-A", "/mode_reasons",
                          "the latch is set: REDUCEONLY_OPEN_PERMISSION_LATCHED must be listed")

    def _enums(self, document: Document) -> Iterator[Finding]:
        for key, known in self._enumerated.items():
            value = document.get(key)
            if key != "trading_mode" and value is not None and not (isinstance(value, str) and value in known):
                yield Finding("ENUM", pointer(key), f"{shown(value)} is not in its registry")

    def _queue(self, document: Document) -> Iterator[Finding]:
        depth, capacity = document.get("wal_queue_depth"), document.get("wal_queue_capacity")
        if is_number(depth) and is_number(capacity) and depth > capacity:
            yield Finding("SEMANTIC", "/wal_queue_depth", f"{shown(depth)} is above wal_queue_capacity {shown(capacity)}")

    def _connectivity(self, document: Document) -> Iterator[Finding]:
        bunker, codes = document.get("bunker_mode_active"), document.get("open_permission_reason_codes")
        degraded = document.get("connectivity_degraded")
        if (isinstance(bunker, bool) and isinstance(codes, list) and isinstance(degraded, bool)
                and degraded is not (bunker or bool(codes))):
            yield Finding("SEMANTIC", "/connectivity_degraded",
                          "must be true exactly when the bunker is active or a latch code is present")

    def _stamp(self, key: str, document: Document) -> Iterator[Finding]:
        value = document.get(key)
        if is_number(value) and value < 0:
            yield Finding("SEMANTIC", pointer(key), f"the time stamp {shown(value)} is negative")

    def _complete(self, demands: Callable[[Document], Iterable[Demand]], document: Document) -> Iterator[Finding]:
        """What single fields demand of the mode. The list holds *every* active reason of the winning tier (contract 2.2.3),
        so this and the other direction, ``_denied``, bind."""
        mode, reasons = document.get("trading_mode"), document.get("mode_reasons")
        if mode not in ("Active", "ReduceOnly", "Kill") or not isinstance(reasons, list):
            return
        for tier, code, path, why in demands(document):
            if mode == "Active" or (mode == "ReduceOnly" and tier == "Kill"):
                yield Finding("SEMANTIC", "/trading_mode", f"{mode} while {why} ({path}) demands {code}")
            elif mode == tier and code not in reasons:
                yield Finding("SEMANTIC", "/mode_reasons", f"{why} ({path}), and {code} is not listed")

    def _denied(self, document: Document) -> Iterator[Finding]:
        """What the reasons claim of single fields: a field may show that a listed reason is untrue."""
        mode, reasons = document.get("trading_mode"), document.get("mode_reasons")
        if mode not in ("Active", "ReduceOnly", "Kill") or not isinstance(reasons, list):
            return
        for code in reasons:
            test = _DENIALS.get(code) if isinstance(code, str) else None
            denial = test(self, document) if test else None
            if denial is not None:
                yield Finding("SEMANTIC", "/mode_reasons", f"{code} is listed, and {denial} says otherwise")

    def _state_demands(self, document: Document) -> Iterator[Demand]:
        """(tier, code, path, why) for every reason that some field alone demands."""
        get = document.get
        risk, certificate, margin = get("risk_state"), get("f1_cert_state"), get("mm_util")
        if isinstance(risk, str) and risk in _BY_RISK_STATE:
            yield (*_BY_RISK_STATE[risk], "/risk_state", f"risk_state {risk}")
        if get("bunker_mode_active") is True:
            yield (*_BUNKER, "/bunker_mode_active", "an active bunker")
        if isinstance(certificate, str) and certificate != "PASS":
            yield (*_CERTIFICATE, "/f1_cert_state", f"a certificate that is {shown(certificate)}")
        if is_number(margin) and margin >= self._margin_high:
            critical = margin >= self._margin_kill
            yield (*(_MARGIN_KILL if critical else _MARGIN_HIGH), "/mm_util", f"margin use {shown(margin)}")
        if is_number(age := get("policy_age_sec")) and age > self._policy_age_max:
            yield (*_POLICY, "/policy_age_sec", f"a policy {shown(age)} s old")

    def _age_demands(self, document: Document) -> Iterator[Demand]:
        """Inputs older than their limit at the loop's last turn (strictly), and a certificate past its end."""
        now = document.get("loop_tick_last_ts_ms")
        if not is_number(now):
            return
        for key, limit_ms in self._ages:
            value = document.get(key)
            if is_number(value) and now - value > limit_ms:
                yield (*_INPUT, pointer(key), f"a time stamp {shown(now - value)} ms old")
        expires = document.get("f1_cert_expires_at")
        if document.get("f1_cert_state") == "PASS" and is_number(expires) and expires < now:
            yield (*_CERTIFICATE, "/f1_cert_expires_at", "a certificate that has expired")

    def _dates(self, document: Document) -> Iterator[Finding]:
        """A policy is as old as its time stamp at least, and a certificate ends a window after its issue (CONFLICTS 2, 25)."""
        now, since, age = map(document.get, ("loop_tick_last_ts_ms", "last_policy_update_ts", "policy_age_sec"))
        if not is_number(now) or now <= 0:
            return
        if is_number(since) and is_number(age) and (now - since) // 1000 > age + 1:
            yield Finding("SEMANTIC", "/policy_age_sec", f"found {shown(age)}, and last_policy_update_ts lies "
                          f"{shown((now - since) // 1000)} s before the loop's last turn")
        expires = document.get("f1_cert_expires_at")
        if document.get("f1_cert_state") == "PASS" and is_number(expires) and expires - now > self._cert_ahead_max_ms:
            yield Finding("SEMANTIC", "/f1_cert_expires_at", f"lies {shown(expires - now)} ms ahead of the loop's last turn, "
                          "later than any certificate issued by now ends")

    def _disk_demands(self, document: Document) -> Iterator[Demand]:
        """The first measure is over: Kill when both are over and fresh, unconfirmed when not (CONFLICTS 31)."""
        if not self._disk_over(document, "disk_used_pct"):
            return
        if not self._disk_over(document, "disk_used_pct_secondary"):
            yield (*_DISK_UNCONFIRMED, "/disk_used_pct_secondary", "disk use over the limit by one measure")
        elif self._stale_disk(document) is not None:
            yield (*_DISK_UNCONFIRMED, "/disk_used_pct", "disk use over the limit by measures of which one is stale")
        elif is_number(document.get("loop_tick_last_ts_ms")):
            yield (*_DISK_KILL, "/disk_used_pct", "disk use over the limit by both measures")

    def _stale_disk(self, document: Document) -> str | None:
        """Where one of the disk's two measures is shown to be older than it may be."""
        return next((path for _, _, path, _ in self._age_demands(document) if "disk" in path), None)

    def _disk_over(self, document: Document, key: str) -> bool:
        value = document.get(key)
        return is_number(value) and value >= self._disk_kill

    def _other_profiles(self, document: Document) -> Iterator[Finding]:
        """What another profile adds is left out while that is not enforced, or says so (contract 5.2, section 7.0)."""
        if document.get("enforced_profile") == "CSP":
            for key in self._of_other_profiles:
                value = document.get(key, "NOT_ENFORCED")
                if value != "NOT_ENFORCED":
                    yield Finding("SEMANTIC", pointer(key), f"found {shown(value)} under profile CSP, expected NOT_ENFORCED")

    def _owner_view(self, document: Document) -> Iterator[Finding]:
        view = document.get("owner_view")
        if type(view) is dict or isinstance(view, Mapping):
            found = self._owner.contradiction(view, document)
            if found:
                part, names = found
                yield Finding("SEMANTIC", "/owner_view" + part,
                              f"contradicts the document, which allows only: {', '.join(names)}")
        elif "owner_view" in document:
            yield Finding("SCHEMA", "/owner_view", "owner_view is not an object")

    def _strict(self, document: Document) -> Iterator[Finding]:
        for key in document:
            if key not in self._declared:
                yield Finding("STRICT", pointer(key), "the schema does not know this key")


_ABSENT = object()
_MARGIN_KILL = ("Kill", "KILL_MARGIN_MM_UTIL_CRITICAL")
_MARGIN_HIGH = ("ReduceOnly", "REDUCEONLY_MARGIN_MM_UTIL_HIGH")
_DISK_KILL = ("Kill", "KILL_DISK_WATERMARK_KILL")
_DISK_UNCONFIRMED = ("ReduceOnly", "REDUCEONLY_DISK_KILL_UNCONFIRMED")
_BUNKER = ("ReduceOnly", "REDUCEONLY_BUNKER_MODE_ACTIVE")
_CERTIFICATE = ("ReduceOnly", "REDUCEONLY_F1_CERT_INVALID")
_POLICY = ("ReduceOnly", "REDUCEONLY_POLICY_STALE")
_INPUT = ("ReduceOnly", "REDUCEONLY_INPUT_MISSING_OR_STALE")
_BY_RISK_STATE = {"Kill": ("Kill", "KILL_RISKSTATE_KILL"),
                  "Maintenance": ("ReduceOnly", "REDUCEONLY_RISKSTATE_MAINTENANCE"),
                  "Degraded": ("ReduceOnly", "REDUCEONLY_RISKSTATE_DEGRADED")}

_Denial = Callable[[Contract, Document], str | None]


def _unless(key: str, *values: Any) -> _Denial:
    """The reason needs ``key`` to hold one of ``values``; a missing key denies nothing."""
    return lambda contract, document: None if document.get(key, values[0]) in values else pointer(key)


def _number_denies(key: str, denies: Callable[[Contract, float], bool]) -> _Denial:
    def test(contract: Contract, document: Document) -> str | None:
        value = document.get(key)
        return pointer(key) if is_number(value) and denies(contract, value) else None

    return test


def _first_of(*tests: _Denial) -> _Denial:
    return lambda contract, document: next(filter(None, (test(contract, document) for test in tests)), None)


_DENIALS: dict[str, _Denial] = {
    "KILL_RISKSTATE_KILL": _unless("risk_state", "Kill"),
    "KILL_MARGIN_MM_UTIL_CRITICAL": _number_denies("mm_util", lambda its, value: value < its._margin_kill),
    "KILL_RATE_LIMIT_SESSION_TERMINATION": _number_denies(
        "10028_count_5m", lambda its, value: value < its._sessions_kill),
    "KILL_DISK_WATERMARK_KILL": _first_of(
        _number_denies("disk_used_pct", lambda its, value: value < its._disk_kill),
        _number_denies("disk_used_pct_secondary", lambda its, value: value < its._disk_kill),
        lambda its, document: its._stale_disk(document)),
    "REDUCEONLY_RISKSTATE_MAINTENANCE": _unless("risk_state", "Maintenance"),
    "REDUCEONLY_RISKSTATE_DEGRADED": _unless("risk_state", "Degraded"),
    "REDUCEONLY_OPEN_PERMISSION_LATCHED": _unless("open_permission_blocked_latch", True),
    "REDUCEONLY_BUNKER_MODE_ACTIVE": _unless("bunker_mode_active", True),
    "REDUCEONLY_F1_CERT_INVALID": _unless("f1_cert_state", "FAIL", "STALE", "MISSING", "INVALID"),
    "REDUCEONLY_EVIDENCE_CHAIN_NOT_GREEN": _unless("enforced_profile", "GOP", "FULL"),
    "REDUCEONLY_MARGIN_MM_UTIL_HIGH": _number_denies("mm_util", lambda its, value: value < its._margin_high),
    "REDUCEONLY_DISK_KILL_UNCONFIRMED": _number_denies("disk_used_pct", lambda its, value: value < its._disk_kill),
    "REDUCEONLY_SESSION_KILL_UNCONFIRMED": _number_denies(
        "10028_count_5m", lambda its, value: value >= its._sessions_kill),
}
"""Reason → the field that shows it to be untrue. POLICY_STALE is not here: a policy whose time stamp is missing is
stale too, and no field can say that."""


def _bounded(rule: Callable[[Document], Iterator[Finding]]) -> Callable[[Document], list[Finding]]:
    return lambda document: list(islice(rule(document), FINDINGS_MAX))


def _walk(path: str, codes: list[Any], order: Mapping[str, int], *, unknown: tuple[str, str],
          late: tuple[str, str]) -> Iterator[Finding]:
    """Membership, order and repetition of a list of codes, each at its own place."""
    last, seen = -1, set()
    for place, code in enumerate(codes):
        index = order.get(code) if isinstance(code, str) else None
        if index is None:
            yield Finding(unknown[0], f"{path}/{place}", f"{shown(code)} {unknown[1]}")
            continue
        if index in seen:
            yield Finding("SEMANTIC", f"{path}/{place}", f"{code} is listed twice")
        elif index < last:
            yield Finding(late[0], f"{path}/{place}", f"{code} {late[1]}")
        seen.add(index)
        last = max(last, index)


def _shortened(message: str) -> str:
    """The schema library repeats whole values; a finding is one line."""
    line = printable(" ".join(message.split()))
    return line if len(line) <= 200 else line[:200] + "..."
