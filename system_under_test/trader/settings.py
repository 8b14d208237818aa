"""What the trader is told before it starts: the policy in force, who it is, and the registries of its contract.

Fail closed, at the door: a policy value that is missing and has no default in the contract, that is no finite
number, that is negative, or that nobody reads, refuses the start with one clear sentence. A trader that guesses
a limit is worse than one that does not run.

Defaults are those of Appendix A of the contract. Units are in the names: ``_ms`` and ``_s`` are durations,
``_bps`` basis points, ``_pct`` a ratio from 0 to 1, ``_usd`` dollars. Secrets live in `Tokens`, never here, so
that a settings object may be printed.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints

import orjson

from system_under_test.trader.registries import Registries, RegistriesError

PROFILES = ("CSP",)
"""Profiles this build supports; the enforced one is the first (contract 5.2, section 1.2 of the fact sheet)."""

ENVIRONMENTS = ("DEV", "STAGING", "PAPER", "LIVE")
"""Deployment environments that a policy must give launch limits for."""


class SettingsError(ValueError):
    """The trader must not start: the message says which value is at fault and what was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The policy in force as attributes, and the identity that the certificate binds."""

    # who we are
    build_id: str
    contract_version: str
    deployment_environment: str
    runtime_config_hash: str
    registries: Registries = field(repr=False)
    policy: Mapping[str, Any] = field(repr=False)
    """the policy as it was given, for the words that quote it"""

    # no default in the contract: must be configured
    policy_version: int
    delta_limit_btc: float
    expiry_delist_buffer_s: int
    pending_exposure_limit_btc: float
    global_exposure_limit_btc: float
    min_edge_usd: float
    net_edge_policy_version: str
    launch_limits: Mapping[str, Any]
    approval: Mapping[str, Any]

    # policy guard
    watchdog_kill_s: int = 10
    watchdog_clear_dwell_ms: int = 3_000
    loop_lag_noted_ms: int = 250
    loop_lag_degraded_ms: int = 1_500
    loop_clear_dwell_ms: int = 1_000
    mm_util_reject_opens: float = 0.70
    mm_util_reduceonly: float = 0.85
    mm_util_kill: float = 0.95
    mm_util_max_age_ms: int = 30_000
    disk_pause_archives_pct: float = 0.80
    disk_degraded_pct: float = 0.85
    disk_kill_pct: float = 0.92
    disk_used_max_age_ms: int = 30_000
    rate_limit_kill_min_10028: int = 3
    max_policy_age_sec: int = 300
    policy_refresh_ms: int = 10_000
    fee_cache_soft_s: int = 300
    fee_cache_hard_s: int = 900
    fee_stale_buffer: float = 0.20
    f1_cert_freshness_window_s: int = 86_400

    # emergency reduce-only and containment
    emergency_reduceonly_cooldown_s: int = 300
    containment_cooldown_ms: int = 60_000

    # bunker
    bunker_jitter_threshold_ms: int = 2_000
    bunker_exit_stable_s: int = 120
    bunker_grace_ms: int = 5_000
    bunker_http_p95_ms: int = 750
    bunker_timeout_rate_pct: float = 0.02

    # cortex
    spread_max_bps: float = 25.0
    spread_kill_bps: float = 75.0
    depth_min: float = 300_000.0
    depth_kill_min: float = 100_000.0
    depth_levels: int = 5
    cortex_kill_window_s: int = 10
    spread_depth_cooldown_s: int = 120
    dvol_jump_pct: float = 0.10
    dvol_jump_window_s: int = 60
    dvol_cooldown_s: int = 300
    basis_price_max_age_ms: int = 5_000
    basis_reduceonly_bps: float = 50.0
    basis_reduceonly_window_s: int = 5
    basis_reduceonly_cooldown_s: int = 300
    basis_kill_bps: float = 150.0
    basis_kill_window_s: int = 5
    exchange_health_stale_s: int = 180
    exchange_health_poll_s: int = 60
    cortex_boot_grace_ms: int = 5_000
    cortex_book_max_age_ms: int = 10_000

    # rate limit
    count_window_s: int = 300
    rate_limit_clear_dwell_ms: int = 60_000
    rate_limit_default_per_s: float = 5.0
    rate_limit_default_burst: float = 20.0
    limits_fetch_failures_trip_count: int = 3
    limits_fetch_failure_window_s: int = 300

    # clock
    time_drift_threshold_ms: int = 50
    clock_clear_dwell_ms: int = 30_000
    clock_sample_round_trip_max_ms: int = 500
    clock_sample_max_age_ms: int = 60_000

    # latch and reconciliation
    ws_data_stale_ms: int = 15_000
    ws_zombie_activity_window_ms: int = 60_000
    stale_clear_dwell_ms: int = 60_000
    gap_clear_dwell_ms: int = 10_000
    session_clear_dwell_ms: int = 10_000
    restart_clear_dwell_ms: int = 5_000
    maintenance_clear_dwell_ms: int = 10_000
    wal_clear_dwell_ms: int = 60_000
    reconcile_interval_ms: int = 5_000
    reconcile_trade_lookback_sec: int = 300
    position_reconcile_epsilon: float = 1e-6

    # ledger and dispatch
    tick_interval_ms: int = 100
    ledger_queue_capacity: int = 1_024
    ledger_waive_after_ms: int = 500
    intent_ttl_ms: int = 2_000
    order_answer_ms_max: int = 2_000
    atomic_qty_epsilon: float = 1e-9
    contracts_amount_match_tolerance: float = 0.001
    cancel_open_batch_max: int = 50
    stale_order_sec: int = 30
    sweep_interval_ms: int = 5_000
    ghost_grace_ms: int = 2_000

    # links
    request_ms_max: int = 2_000
    handshake_ms_max: int = 5_000
    reconnect_backoff_min_ms: int = 200
    reconnect_backoff_max_ms: int = 5_000
    heartbeat_interval_s: int = 10
    poll_account_ms: int = 2_000
    poll_time_ms: int = 1_000
    poll_ticker_ms: int = 1_000
    poll_instruments_ms: int = 60_000
    poll_limits_ms: int = 60_000
    disk_poll_ms: int = 1_000

    # gates
    instrument_cache_ttl_s: int = 3_600
    l2_book_snapshot_max_age_ms: int = 1_000
    max_slippage_bps: float = 10.0
    inventory_skew_k: float = 0.5

    # groups
    group_answer_ms_max: int = 3_000
    rescue_max: int = 2
    rescue_cross_spread_ticks: int = 2
    close_attempts_max: int = 3
    close_buffer_ticks: int = 5
    hedge_max_usd: float = 100_000.0
    churn_flatten_max: int = 2
    churn_window_s: int = 300
    churn_blacklist_s: int = 900

    # risk documents (the v7.6 state contract)
    max_portfolio_dd_nav_pct: float = 0.10
    max_portfolio_var_nav_pct: float = 0.12
    max_position_cvar_nav_pct: float = 0.04
    max_group_nav_pct: float = 0.50
    nav_jump_multiplier: float = 3.0
    nav_jump_usd: float = 20_000.0
    dd_flap_changes_max: int = 3
    dd_flap_window_s: int = 60
    risk_nav_age_s_max: int = 90
    risk_defensive_dd_frac: float = 0.30
    risk_defensive_daily_loss_frac: float = 0.10
    risk_bar_ms: int = 1_000
    risk_window_bars: int = 300
    risk_half_life_bars: int = 100
    router_window_s: int = 300

    # exits: shares of the entry price
    exit_take_profit_pct: float = 0.05
    exit_stop_loss_pct: float = 0.05
    exit_option_take_profit_pct: float = 1.0
    exit_option_stop_loss_pct: float = 0.7

    # state files (the v7.6 state contract)
    state_publish_interval_ms: int = 1_000
    sync_interval_ms: int = 500  # the mirror's (system_under_test/sync)
    intelligence_interval_ms: int = 5_000  # and of the scores (system_under_test/intelligence)
    max_idle_signals_seconds: int = 900
    max_idle_orders_seconds: int = 1_800
    max_idle_exits_seconds: int = 3_600
    max_idle_router_events_seconds: int = 1_800

    # the services beside the trader, which read these (system_under_test/services)
    ops_heartbeat_ttl_s: int = 60
    marketdata_stale_threshold_s: int = 120
    ops_control_ttl_ms: int = 2_000

    # strategy
    strategy_id: str = "reference"
    currency: str = "BTC"
    perpetual: str = "BTC-PERPETUAL"
    index_name: str = "btc_usd"
    wish_interval_ms: int = 1_000
    hold_ms: int = 3_000
    signal_amount_usd: float = 250_000.0
    signal_wishes_per_tick_max: int = 24
    signal_backlog_max: int = 4_096
    group_option_amount_btc: float = 0.1
    believed_edge_usd: float = 50.0
    quote_amount_usd: float = 10.0
    quote_distance_pct: float = 0.05

    @property
    def enforced_profile(self) -> str:
        """The profile in force: CSP, the only one this build supports."""
        return PROFILES[0]

    @property
    def caps(self) -> Mapping[str, Any]:
        """The launch limits of the environment this trader runs in."""
        caps: Mapping[str, Any] = self.launch_limits[self.deployment_environment]
        return caps

    @staticmethod
    def load(environment: Mapping[str, str]) -> Settings:
        """Read POLICY (JSON text), BUILD_ID, DEPLOYMENT_ENVIRONMENT and SPECS. Raises SettingsError."""
        policy = _policy(environment)
        deployment = environment.get("DEPLOYMENT_ENVIRONMENT", "")
        if deployment not in ENVIRONMENTS:
            raise SettingsError(f"DEPLOYMENT_ENVIRONMENT is {deployment!r}; expected one of {', '.join(ENVIRONMENTS)}")
        if deployment == "LIVE":
            raise SettingsError("DEPLOYMENT_ENVIRONMENT is LIVE; this reference system never touches real money")
        build_id = environment.get("BUILD_ID", "")
        if not build_id:
            raise SettingsError("BUILD_ID is missing; a trader that cannot name its build cannot be certified")
        try:
            registries = Registries.load(specs_folder(environment))
        except RegistriesError as why:
            raise SettingsError(str(why)) from why
        values = _checked(policy)
        _check_limits(values)
        return Settings(
            build_id=build_id,
            contract_version=registries.contract_version,
            deployment_environment=deployment,
            runtime_config_hash=config_hash(policy),
            registries=registries,
            policy=MappingProxyType(policy),
            **values,
        )


@dataclass(frozen=True, slots=True)
class Tokens:
    """The secrets of the control plane. Never printed, never in a note, a row or a status."""

    emergency: str = field(repr=False)
    watchdog: str = field(repr=False)

    @staticmethod
    def load(environment: Mapping[str, str]) -> Tokens:
        """Read EMERGENCY_TOKEN and WATCHDOG_TOKEN; without either the trader refuses to start."""
        missing = [name for name in ("EMERGENCY_TOKEN", "WATCHDOG_TOKEN") if not environment.get(name)]
        if missing:
            raise SettingsError(f"{' and '.join(missing)} missing: the control plane would be open to anyone, "
                                "or the heartbeat could not be told from an onlooker's poll")
        if environment["EMERGENCY_TOKEN"] == environment["WATCHDOG_TOKEN"]:
            raise SettingsError("EMERGENCY_TOKEN and WATCHDOG_TOKEN are the same; each door has its own key")
        return Tokens(environment["EMERGENCY_TOKEN"], environment["WATCHDOG_TOKEN"])


IDENTITY = ("build_id", "contract_version", "deployment_environment", "runtime_config_hash", "registries",
            "policy")
"""Fields of `Settings` that are no policy keys."""

POLICY_KEYS = tuple(each.name for each in dataclasses.fields(Settings) if each.name not in IDENTITY)
"""Every key that a policy file may hold."""

DEFAULTS: Mapping[str, object] = MappingProxyType({
    each.name: each.default for each in dataclasses.fields(Settings) if each.default is not dataclasses.MISSING
})
"""Appendix A: what a key is worth when a policy does not name it."""

_TYPES = {name: kind for name, kind in get_type_hints(Settings).items() if name in POLICY_KEYS}


def config_hash(policy: Mapping[str, object]) -> str:
    """SHA-256 of the policy as canonical JSON: keys sorted at every depth, no white space (contract, AT-113)."""
    return hashlib.sha256(orjson.dumps(policy, option=orjson.OPT_SORT_KEYS)).hexdigest()


def specs_folder(environment: Mapping[str, str]) -> Path:
    """The folder of registries: SPECS when given, else ``specs/`` beside this package."""
    given = environment.get("SPECS")
    return Path(given) if given else Path(__file__).resolve().parents[2] / "specs"


def policy_of(environment: Mapping[str, str]) -> dict[str, Any]:
    """The policy text of the environment as values, unchecked; the provisioner hashes the same. Raises SettingsError."""
    return _policy(environment)


def _policy(environment: Mapping[str, str]) -> dict[str, Any]:
    text = environment.get("POLICY", "")
    if not text:
        raise SettingsError("POLICY is missing; it holds the policy in force as JSON text")
    try:
        policy = orjson.loads(text)  # refuses NaN and Infinity, as JSON does
    except orjson.JSONDecodeError as why:
        raise SettingsError(f"POLICY is not JSON: {why}") from why
    if not isinstance(policy, dict):
        raise SettingsError("POLICY must be a JSON object of policy keys")
    return policy


def _checked(policy: Mapping[str, Any]) -> dict[str, Any]:
    for name in policy:
        if name not in POLICY_KEYS:
            near = difflib.get_close_matches(name, POLICY_KEYS, n=1)
            raise SettingsError(f"policy key {name!r} is read by nobody" + (f"; nearest: {near[0]}" if near else ""))
    for name in POLICY_KEYS:
        if name not in policy and name not in DEFAULTS:
            raise SettingsError(f"policy key {name!r} is missing and the contract gives it no default")
    return {name: _value(name, _TYPES[name], policy[name]) for name in policy}


def _value(name: str, kind: object, value: object) -> object:
    if kind is int or kind is float:
        return _number(name, value, whole=kind is int)
    if kind is str:
        if not isinstance(value, str) or not value:
            raise SettingsError(f"policy key {name!r} is {value!r}; expected a text")
        return value
    if not isinstance(value, Mapping):
        raise SettingsError(f"policy key {name!r} is {value!r}; expected a mapping")
    return MappingProxyType(dict(value))


def _number(name: str, value: object, *, whole: bool) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingsError(f"policy key {name!r} is {value!r}; expected a number")
    if not math.isfinite(value) or value < 0:
        raise SettingsError(f"policy key {name!r} is {value!r}; expected a finite number that is not negative")
    if not whole:
        return float(value)
    if value != int(value):
        raise SettingsError(f"policy key {name!r} is {value!r}; expected a whole number")
    return int(value)


CAPS = ("max_position_btc", "max_net_delta_btc", "max_gross_notional_usd", "max_daily_loss_usd",
        "max_orders_per_minute", "max_orders_per_second", "max_order_btc", "max_order_usd")
"""The launch limits that every environment must state. LIVE states the micro-live caps."""


def _check_limits(values: Mapping[str, Any]) -> None:
    for environment in ENVIRONMENTS:
        caps = values["launch_limits"].get(environment)
        if not isinstance(caps, Mapping):
            raise SettingsError(f"launch_limits has no entry {environment!r}; every environment states its caps")
        for name in CAPS:
            if name not in caps:
                raise SettingsError(f"launch_limits.{environment}.{name} is missing; a cap has no default")
            _number(f"launch_limits.{environment}.{name}", caps[name], whole=False)
    for name in ("policy_version", "approved_by", "caps_sha256"):
        if name not in values["approval"]:
            raise SettingsError(f"approval.{name} is missing; caps without an approval cannot be trusted")
