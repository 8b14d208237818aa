"""Settings and policies: fail closed at the door; drill.yaml shortens and never loosens."""

from __future__ import annotations

import re

import orjson
import pytest
import yaml
from trader_policy_kit import REPOSITORY, environment, policy_values, reference, settings_of

from system_under_test.trader.limits import caps_digest
from system_under_test.trader.settings import (
    DEFAULTS,
    POLICY_KEYS,
    Settings,
    SettingsError,
    Tokens,
    config_hash,
)

NO_DEFAULT = ["policy_version", "delta_limit_btc", "expiry_delist_buffer_s", "pending_exposure_limit_btc",
              "global_exposure_limit_btc", "min_edge_usd", "net_edge_policy_version", "launch_limits", "approval"]


@pytest.mark.parametrize("name", NO_DEFAULT)
def test_a_key_without_a_default_refuses_the_start(name):
    """A missing key that the contract gives no default is refused by name."""
    with pytest.raises(SettingsError, match=name):
        settings_of(**{name: None})


def test_the_keys_without_default_are_exactly_these():
    """Nothing lost its default, and nothing gained one, unseen."""
    assert set(POLICY_KEYS) - set(DEFAULTS) == set(NO_DEFAULT)


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_a_missing_key_takes_the_contract_s_default(name):
    """Appendix A applies where the policy is silent (AT-341)."""
    assert getattr(settings_of(**{name: None}), name) == DEFAULTS[name]


@pytest.mark.parametrize("value", [-1, -0.5, "ten", True, [], {}, 1e999])
def test_a_value_that_is_no_lawful_number_refuses_the_start(value):
    """Negative, not finite, not a number: each is refused with the key's name."""
    text = environment()["POLICY"]
    written = "1e999" if value == 1e999 else orjson.dumps(value).decode()
    text = re.sub(r'"mm_util_kill":[^,]+', f'"mm_util_kill":{written}', text)
    with pytest.raises(SettingsError, match="mm_util_kill|POLICY"):
        Settings.load({**environment(), "POLICY": text})


def test_a_fraction_of_a_millisecond_is_refused():
    """Durations are whole numbers; an integral float is one."""
    with pytest.raises(SettingsError, match="whole"):
        settings_of(ws_data_stale_ms=3000.5)
    assert settings_of(ws_data_stale_ms=3000.0).ws_data_stale_ms == 3000


def test_a_key_that_nobody_reads_refuses_the_start_with_the_nearest_name():
    """A misspelt key is never silently ignored."""
    with pytest.raises(SettingsError, match="nearest: mm_util_kill"):
        settings_of(mm_util_kil=0.9)


@pytest.mark.parametrize("changes", [
    {"POLICY": ""}, {"POLICY": "{"}, {"POLICY": "[]"}, {"POLICY": '{"a": NaN}'}, {"BUILD_ID": ""},
    {"DEPLOYMENT_ENVIRONMENT": ""}, {"DEPLOYMENT_ENVIRONMENT": "LIVE"}, {"DEPLOYMENT_ENVIRONMENT": "dev"},
    {"SPECS": "/nowhere"},
])
def test_a_broken_environment_refuses_the_start(changes):
    """No policy, no build, no known environment, real money, no registries: no start."""
    with pytest.raises(SettingsError):
        Settings.load({**environment(), **changes})


@pytest.mark.parametrize("name", ["EMERGENCY_TOKEN", "WATCHDOG_TOKEN"])
def test_the_trader_refuses_to_start_without_its_tokens(name):
    """An empty token is a missing one, and the two must differ."""
    both = {"EMERGENCY_TOKEN": "e", "WATCHDOG_TOKEN": "w"}
    for broken in ({**both, name: ""}, {key: value for key, value in both.items() if key != name},
                   {**both, name: "e", "EMERGENCY_TOKEN": "e", "WATCHDOG_TOKEN": "e"}):
        with pytest.raises(SettingsError):
            Tokens.load(broken)
    assert "e" not in repr(Tokens.load({"EMERGENCY_TOKEN": "e5", "WATCHDOG_TOKEN": "w5"})).replace("Tokens", "")


def test_the_configuration_hash_ignores_order_and_white_space_only():
    """Key order and white space do not matter, every value does (AT-113)."""
    first = environment()
    shuffled = dict(reversed(orjson.loads(first["POLICY"]).items()))
    second = {**first, "POLICY": orjson.dumps(shuffled, option=orjson.OPT_INDENT_2).decode()}
    assert Settings.load(first).runtime_config_hash == Settings.load(second).runtime_config_hash
    assert settings_of(hold_ms=1).runtime_config_hash != reference().runtime_config_hash
    assert config_hash({"b": {"d": 1, "c": 2}, "a": 0}) == config_hash({"a": 0, "b": {"c": 2, "d": 1}})


@pytest.mark.parametrize("name", ["max_position_btc", "max_daily_loss_usd", "max_orders_per_second"])
def test_every_environment_states_every_cap(name):
    """A cap has no default, in no environment."""
    limits = policy_values()["launch_limits"]
    lacking = {**limits, "LIVE": {key: value for key, value in limits["LIVE"].items() if key != name}}
    with pytest.raises(SettingsError, match=f"LIVE.{name}"):
        settings_of(launch_limits=lacking)
    with pytest.raises(SettingsError, match="PAPER"):
        settings_of(launch_limits={key: value for key, value in limits.items() if key != "PAPER"})


# ---- the policy files -----------------------------------------------------------------------------------

DEVIATIONS = {"rate_limit_kill_min_10028": 5, "bunker_jitter_threshold_ms": 10_000, "ws_data_stale_ms": 3_000,
              "basis_price_max_age_ms": 10_000}
"""Where the reference policy differs from the contract, because an example of the sources shows otherwise."""

OURS = {"rate_limit_default_per_s": 20, "rate_limit_default_burst": 200}
"""Keys of ours without a contract value, tuned for the reference exchange."""


def test_the_reference_policy_names_every_key():
    """Nothing that the trader reads is left to a default in the reference policy."""
    assert set(policy_values()) == set(POLICY_KEYS)


def test_the_reference_policy_is_the_contract_s_defaults_but_for_its_listed_deviations():
    """Each value equals Appendix A's or stands in the list above."""
    differing = {name: value for name, value in policy_values().items() if name in DEFAULTS and value != DEFAULTS[name]}
    assert differing == {**DEVIATIONS, **OURS}


def test_every_deviation_is_commented_with_its_example():
    """The line of a deviating key says DEVIATION, from which value, and which example shows it."""
    text = (REPOSITORY / "system_under_test/policies/reference.yaml").read_text()
    for name in DEVIATIONS:
        line = next(each for each in text.splitlines() if each.startswith(f"{name}:"))
        assert re.search(rf"# DEVIATION from {DEFAULTS[name]}\b.*example \d", line), line


def test_the_manifest_s_policy_defaults_are_the_reference_policy_s():
    """The judge without a policy and the trader under the reference policy mean the same numbers."""
    for name, value in reference().registries.policy_defaults.items():
        assert policy_values().get(name) == value, name


def test_every_key_is_read_by_the_trader():
    """A key that no module reads would promise something that nobody keeps."""
    folder = REPOSITORY / "system_under_test"
    source = "\n".join(file.read_text() for file in folder.rglob("*.py") if file.name != "settings.py")
    unread = [name for name in POLICY_KEYS if not re.search(rf"\.{name}\b|\"{name}\"", source)]
    assert unread == []


SHORTER = {
    "stale_clear_dwell_ms", "gap_clear_dwell_ms", "session_clear_dwell_ms", "restart_clear_dwell_ms",
    "maintenance_clear_dwell_ms", "wal_clear_dwell_ms", "rate_limit_clear_dwell_ms", "clock_clear_dwell_ms",
    "containment_cooldown_ms", "emergency_reduceonly_cooldown_s", "bunker_exit_stable_s", "spread_depth_cooldown_s",
    "dvol_cooldown_s", "basis_reduceonly_cooldown_s", "cortex_kill_window_s", "churn_blacklist_s",
    "reconcile_interval_ms", "intelligence_interval_ms", "dd_flap_window_s", "risk_bar_ms", "risk_window_bars",
    "router_window_s", "ops_heartbeat_ttl_s", "marketdata_stale_threshold_s",
}
"""Dwells, cooldowns, windows and ages that drill.yaml may shorten. No threshold of risk is here, and none may be."""


def test_the_drill_policy_only_shortens_what_the_list_allows():
    """Every override is on the list and is a positive, shorter duration than the reference's."""
    base, drill = policy_values(), policy_values("drill")
    overridden = {name for name in base if base[name] != drill[name]}
    assert overridden <= SHORTER
    assert set(drill) == set(base)
    for name in overridden:
        assert 0 < drill[name] < base[name], name


def test_both_policies_start_a_trader_with_approved_caps():
    """The approval names the digest of the caps in the file."""
    for name in ("reference", "drill"):
        settings = settings_of(name)
        assert settings.approval["caps_sha256"] == caps_digest(settings.launch_limits)
        assert settings.approval["policy_version"] == settings.policy_version


def test_micro_live_caps_are_the_tightest():
    """LIVE states caps that are at or below every other environment's."""
    limits = policy_values()["launch_limits"]
    for other in ("DEV", "STAGING", "PAPER"):
        assert all(limits["LIVE"][name] <= limits[other][name] for name in limits["LIVE"])


@pytest.mark.parametrize(("name", "raised"), [("raised_caps", True), ("micro_caps", False)])
def test_the_overlays_of_drill_8_are_refused_for_their_caps_alone(name, raised):
    """Their digests fit, so only what the ledger remembers of the same version tells raised caps from lowered ones; and
    what is called micro-live are the caps of LIVE, but for the loss limit."""
    stack = yaml.safe_load((REPOSITORY / "system_under_test/stack.yaml").read_text())
    base = yaml.safe_load((REPOSITORY / "system_under_test/policies/reference.yaml").read_text())
    over = yaml.safe_load((REPOSITORY / "system_under_test" / stack["overlays"][name]).read_text())
    caps = {**base["launch_limits"], **over["launch_limits"]}
    assert over["approval"]["caps_sha256"] == caps_digest(caps)
    assert over["approval"]["policy_version"] == base["policy_version"]
    before, after = base["launch_limits"]["DEV"], caps["DEV"]
    assert set(before) == set(after)
    if raised:
        assert all(after[key] > before[key] for key in before)
    else:
        assert after == {**base["launch_limits"]["LIVE"], "max_daily_loss_usd": before["max_daily_loss_usd"]}
