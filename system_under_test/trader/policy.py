"""The policy guard: the only authority over the trading mode, and the only mint of permits.

`decide` is a pure function of one frozen snapshot. It is asked every tick and again before every dispatch; the
mode is never stored as authority. The fact sheet's section 2 (contract, sections 2.2 to 2.2.3) is its law:

* utilisation thresholds trip at ``>=``, ages at ``>``;
* Kill needs corroboration for heartbeat, session and disk; what is not confirmed is said as UNCONFIRMED;
* a missing or stale critical input is itself a reason, never an optimistic guess. A margin reading that has
  gone stale keeps its last verdict beside the staleness: losing sight must not loosen a Kill;
* the reasons are every active code of the winning tier, in registry order, and none of the other tier.

``None`` in a snapshot means *missing*. All times are monotonic-epoch milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from types import MappingProxyType

from msgspec import Struct

from system_under_test.trader.settings import Settings

ACTIVE = "Active"
REDUCE_ONLY = "ReduceOnly"
KILL = "Kill"

OPEN = "OPEN"
CLOSE = "CLOSE"
HEDGE = "HEDGE"
CANCEL = "CANCEL"
EMERGENCY_CLOSE = "EMERGENCY_CLOSE"
REDUCING = frozenset((CLOSE, HEDGE, CANCEL, EMERGENCY_CLOSE))
"""Intent classes that every mode permits (capital supremacy). Anything else counts as OPEN (AT-110, AT-201)."""


class Snapshot(Struct, frozen=True, kw_only=True, gc=False):
    """Every input of the guard, taken at one moment. None is *missing*, which is never good news."""

    now_ms: int
    risk_state: str | None
    heartbeat_ts_ms: int | None
    loop_tick_ts_ms: int | None
    mm_util: float | None
    mm_util_ts_ms: int | None
    session_kill_active: bool | None
    count_10028_5m: int | None
    count_429_5m: int | None
    disk_used_pct: float | None
    disk_used_ts_ms: int | None
    disk_used_pct_secondary: float | None
    disk_used_secondary_ts_ms: int | None
    cortex_override: str | None
    emergency_active: bool | None
    latch_blocked: bool | None
    latch_codes: tuple[str, ...]
    bunker_active: bool | None
    cert_state: str | None
    cert_expires_at: int | None
    evidence_chain_state: str | None
    fee_cache_ts_ms: int | None
    policy_generated_ts_ms: int | None


class Capital(IntEnum):
    """What the account can bear."""

    SAFE = 0
    WARNING = 1
    CRITICAL = 2


class Market(IntEnum):
    """What the network and the market are like. BROKEN is reserved: contract 5.2 never emits it."""

    STABLE = 0
    STRESSED = 1
    BROKEN = 2


class System(IntEnum):
    """What the machinery is like."""

    HEALTHY = 0
    DEGRADED = 1
    FAILING = 2


@dataclass(frozen=True, slots=True)
class Decision:
    """A mode and all its reasons, in registry order. Active has none."""

    mode: str
    reasons: tuple[str, ...]


AXIS: Mapping[str, Capital | Market | System] = MappingProxyType({
    "KILL_WATCHDOG_HEARTBEAT_STALE": System.FAILING,
    "KILL_RISKSTATE_KILL": Capital.CRITICAL,
    "KILL_MARGIN_MM_UTIL_CRITICAL": Capital.CRITICAL,
    "KILL_RATE_LIMIT_SESSION_TERMINATION": System.FAILING,
    "KILL_DISK_WATERMARK_KILL": System.FAILING,
    "KILL_CORTEX_FORCE_KILL": Capital.CRITICAL,
    "REDUCEONLY_RISKSTATE_MAINTENANCE": System.DEGRADED,
    "REDUCEONLY_EMERGENCY_REDUCEONLY_ACTIVE": System.DEGRADED,
    "REDUCEONLY_OPEN_PERMISSION_LATCHED": System.DEGRADED,
    "REDUCEONLY_BUNKER_MODE_ACTIVE": Market.STRESSED,
    "REDUCEONLY_F1_CERT_INVALID": System.DEGRADED,
    "REDUCEONLY_EVIDENCE_CHAIN_NOT_GREEN": System.DEGRADED,
    "REDUCEONLY_CORTEX_FORCE_REDUCE_ONLY": System.DEGRADED,
    "REDUCEONLY_FEE_MODEL_HARD_STALE": System.DEGRADED,
    "REDUCEONLY_RISKSTATE_DEGRADED": System.DEGRADED,
    "REDUCEONLY_POLICY_STALE": System.DEGRADED,
    "REDUCEONLY_MARGIN_MM_UTIL_HIGH": Capital.WARNING,
    "REDUCEONLY_INPUT_MISSING_OR_STALE": System.DEGRADED,
    "REDUCEONLY_WATCHDOG_UNCONFIRMED": System.DEGRADED,
    "REDUCEONLY_DISK_KILL_UNCONFIRMED": System.DEGRADED,
    "REDUCEONLY_SESSION_KILL_UNCONFIRMED": System.DEGRADED,
})
"""Every reason code in canonical order, and what it says about its axis."""

KILL_REASONS = tuple(code for code in AXIS if code.startswith("KILL_"))
REDUCEONLY_REASONS = tuple(code for code in AXIS if not code.startswith("KILL_"))

_ALL_CLEAR = Decision(ACTIVE, ())
_NO_SNAPSHOT = Decision(REDUCE_ONLY, ("REDUCEONLY_INPUT_MISSING_OR_STALE",))


def resolve(capital: Capital, market: Market, system: System) -> str:
    """The mode of a triple of axes. Componentwise worse axes never give a looser mode."""
    if system == System.FAILING or capital == Capital.CRITICAL:
        return KILL
    if system == System.DEGRADED or market != Market.STABLE or capital == Capital.WARNING:
        return REDUCE_ONLY
    return ACTIVE


def axes(reasons: tuple[str, ...]) -> tuple[Capital, Market, System]:
    """The worst that the reasons say about each axis."""
    capital, market, system = Capital.SAFE, Market.STABLE, System.HEALTHY
    for code in reasons:
        level = AXIS[code]
        if isinstance(level, Capital):
            capital = max(capital, level)
        elif isinstance(level, Market):
            market = max(market, level)
        else:
            system = max(system, level)
    return capital, market, system


def decide(snapshot: Snapshot | None, settings: Settings) -> Decision:
    """The mode and all its reasons. No snapshot (it could not be taken coherently) is a missing input."""
    if snapshot is None:
        return _NO_SNAPSHOT
    tripped = _tripped(snapshot, settings)
    return _decision(tuple(tripped)) if tripped else _ALL_CLEAR


@lru_cache(maxsize=1_024)
def _decision(tripped: tuple[str, ...]) -> Decision:
    mode = resolve(*axes(tripped))
    tier = KILL_REASONS if mode == KILL else REDUCEONLY_REASONS
    return Decision(mode, tuple(code for code in tier if code in tripped))


def _tripped(s: Snapshot, settings: Settings) -> list[str]:
    """Every predicate of both tiers that holds. One straight line, because it runs before every dispatch. Fresh is at most
    so old and not from the future: a time stamp ahead of the clock is no time stamp."""
    now = s.now_ms
    tripped: list[str] = []
    missing = False

    heartbeat, tick = s.heartbeat_ts_ms, s.loop_tick_ts_ms
    if heartbeat is None or tick is None or heartbeat > now or tick > now:
        missing = True
    limit_ms = settings.watchdog_kill_s * 1_000
    if heartbeat is not None and now - heartbeat > limit_ms:
        tick_stale = tick is not None and now - tick > limit_ms
        tripped.append("KILL_WATCHDOG_HEARTBEAT_STALE" if tick_stale else "REDUCEONLY_WATCHDOG_UNCONFIRMED")

    risk = s.risk_state
    if risk != "Healthy":
        tripped.append("KILL_RISKSTATE_KILL" if risk == "Kill" else "REDUCEONLY_RISKSTATE_MAINTENANCE"
                       if risk == "Maintenance" else "REDUCEONLY_RISKSTATE_DEGRADED")

    margin, margin_ts = s.mm_util, s.mm_util_ts_ms
    if margin is None or not margin >= 0 or margin_ts is None or not 0 <= now - margin_ts <= settings.mm_util_max_age_ms:
        missing = True
    if margin is not None:
        if margin >= settings.mm_util_kill:
            tripped.append("KILL_MARGIN_MM_UTIL_CRITICAL")
        elif margin >= settings.mm_util_reduceonly:
            tripped.append("REDUCEONLY_MARGIN_MM_UTIL_HIGH")

    count = s.count_10028_5m
    if count is None or s.session_kill_active is None:
        missing = True
    if s.session_kill_active:
        confirmed = count is not None and count >= settings.rate_limit_kill_min_10028
        tripped.append("KILL_RATE_LIMIT_SESSION_TERMINATION" if confirmed else "REDUCEONLY_SESSION_KILL_UNCONFIRMED")

    disk, second, age_max = s.disk_used_pct, s.disk_used_pct_secondary, settings.disk_used_max_age_ms
    disk_ts, second_ts = s.disk_used_ts_ms, s.disk_used_secondary_ts_ms
    disk_good = disk is not None and disk >= 0 and disk_ts is not None and 0 <= now - disk_ts <= age_max
    second_good = second is not None and second >= 0 and second_ts is not None and 0 <= now - second_ts <= age_max
    if not (disk_good and second_good):
        missing = True
    if disk is not None and disk >= settings.disk_kill_pct:
        confirmed = disk_good and second_good and second is not None and second >= settings.disk_kill_pct
        tripped.append("KILL_DISK_WATERMARK_KILL" if confirmed else "REDUCEONLY_DISK_KILL_UNCONFIRMED")

    cortex = s.cortex_override
    if cortex != "None":
        tripped.append("KILL_CORTEX_FORCE_KILL" if cortex == "ForceKill" else "REDUCEONLY_CORTEX_FORCE_REDUCE_ONLY")
    if s.emergency_active is None:
        missing = True
    elif s.emergency_active:
        tripped.append("REDUCEONLY_EMERGENCY_REDUCEONLY_ACTIVE")
    if s.latch_blocked is None or s.latch_blocked:  # an unknown latch reads as blocked
        tripped.append("REDUCEONLY_OPEN_PERMISSION_LATCHED")
    if s.bunker_active is None or s.bunker_active:
        tripped.append("REDUCEONLY_BUNKER_MODE_ACTIVE")
    if s.cert_state != "PASS":
        tripped.append("REDUCEONLY_F1_CERT_INVALID")
    if settings.enforced_profile != "CSP" and s.evidence_chain_state != "GREEN":
        tripped.append("REDUCEONLY_EVIDENCE_CHAIN_NOT_GREEN")
    fees_ts = s.fee_cache_ts_ms
    if fees_ts is None or not 0 <= now - fees_ts <= settings.fee_cache_hard_s * 1_000:
        tripped.append("REDUCEONLY_FEE_MODEL_HARD_STALE")

    generated = s.policy_generated_ts_ms
    if generated is None:
        missing = True
    if generated is None or (now - generated) // 1_000 > settings.max_policy_age_sec:
        tripped.append("REDUCEONLY_POLICY_STALE")

    if missing:
        tripped.append("REDUCEONLY_INPUT_MISSING_OR_STALE")
    return tripped


# ---- permits --------------------------------------------------------------------------------------------


class PermitError(RuntimeError):
    """A permit was forged, spent twice, or carried over from an earlier call."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an intent may not go on: a registry code, and the gate that said it."""

    code: str
    gate: str
    why: str = ""


class _Mint:
    """What makes a permit genuine: each guard has one, and nobody else can get at it by accident."""


@dataclass(frozen=True, slots=True)
class Permit:
    """Paper that the dispatch door asks for. Only a `Guard` mints one, and it is good for one call."""

    intent_class: str
    serial: int
    number: int
    _mint: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self._mint, _Mint):
            raise PermitError("permits are minted by the policy guard alone")


class Guard:
    """Asked again before every dispatch: a permit is minted and spent within one `handle` call, or it is void."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._mint = _Mint()
        self._serial = 0
        self._number = 0
        self._unspent: set[int] = set()

    def turn(self) -> None:
        """A new `handle` call has begun: every permit of an earlier one is void."""
        self._serial += 1
        if self._unspent:
            self._unspent.clear()

    def permit(self, snapshot: Snapshot | None, intent_class: str) -> Permit | Refusal:
        """A permit for one intent of this class, or the refusal with its registry code."""
        if intent_class not in REDUCING:
            decision = decide(snapshot, self._settings)
            if decision.mode != ACTIVE:
                return _refusal(decision)
        self._number += 1
        self._unspent.add(self._number)
        return Permit(intent_class, self._serial, self._number, self._mint)

    def spend(self, permit: Permit) -> None:
        """Use a permit up. Raises PermitError when it is of another guard, of an earlier call, or was spent before."""
        if permit._mint is not self._mint:
            raise PermitError(f"permit {permit.number} is of another guard")
        if permit.serial != self._serial:
            raise PermitError(f"permit {permit.number} is of call {permit.serial}, this is call {self._serial}")
        if permit.number not in self._unspent:
            raise PermitError(f"permit {permit.number} was spent before")
        self._unspent.remove(permit.number)


def _refusal(decision: Decision) -> Refusal:
    """The reject code that says most: the latch by name, a risk state alone by name, else the mode."""
    why = ",".join(decision.reasons)
    if "REDUCEONLY_OPEN_PERMISSION_LATCHED" in decision.reasons:
        return Refusal("OpenPermissionLatched", "latch", why)
    if decision.reasons in (("REDUCEONLY_RISKSTATE_DEGRADED",), ("REDUCEONLY_RISKSTATE_MAINTENANCE",)):
        return Refusal("RiskStateNotHealthy", "dispatch_auth", why)
    return Refusal("TradingModeForbidsOpen", "mode", why)
