"""Certificate and policy age, as of a frozen wall clock; what the provisioner lays out."""

from __future__ import annotations

import datetime
import time

import orjson
import pytest
from freezegun import freeze_time
from trader_policy_kit import NOW, environment, reference, settings_of, well

from system_under_test import provision
from system_under_test.trader import certificate, refresher
from system_under_test.trader.certificate import Certificate, evaluate
from system_under_test.trader.policy import decide
from system_under_test.trader.refresher import PolicyRefresher

WINDOW_MS = 86_400_000


def issued(**changes: object) -> bytes:
    """A PASS certificate for the reference trader, issued at NOW, with some fields changed."""
    settings = reference()
    raw = orjson.loads(certificate.issue(
        settings.build_id, settings.runtime_config_hash, settings.contract_version, NOW, 86_400))
    return orjson.dumps({**raw, **changes})


def test_a_fresh_certificate_passes_and_expires_after_its_window():
    """Expiry is generation plus window, exactly (AT-003)."""
    assert evaluate(issued(), reference(), NOW) == Certificate("PASS", NOW + WINDOW_MS)


@pytest.mark.parametrize(("age_ms", "state"), [
    (WINDOW_MS, "PASS"), (WINDOW_MS + 1, "STALE"), (-60_000, "PASS"), (-60_001, "STALE")])
def test_age_is_judged_strictly(age_ms, state):
    """At the window's end it still passes; past it, or from the future, it is stale (AT-294)."""
    assert evaluate(issued(), reference(), NOW + age_ms).state == state


@pytest.mark.parametrize("field", ["build_id", "runtime_config_hash", "contract_version"])
def test_any_binding_that_differs_is_invalid(field):
    """Build, configuration and contract all bind (AT-020); "v5.2" is another contract than "5.2" (AT-012)."""
    other = "v5.2" if field == "contract_version" else "another"
    assert evaluate(issued(**{field: other}), reference(), NOW) == Certificate("INVALID", NOW + WINDOW_MS)


def test_a_policy_hash_beside_the_bindings_never_gates():
    """``policy_hash_at_cert_time`` may say anything (AT-410)."""
    assert evaluate(issued(policy_hash_at_cert_time="another"), reference(), NOW).state == "PASS"


@pytest.mark.parametrize("value", [
    None, b"", b"{", b"[]", b"null", b"\xff\xfe", b'"PASS"', issued(status="MAYBE"), issued(status=None),
    issued(generated_ts_ms="now"), issued(generated_ts_ms=True), issued(generated_ts_ms=1.5), issued(build_id=7),
    b"{}", b" " * 70_000])
def test_what_is_no_certificate_is_missing_and_has_no_expiry(value):
    """Absent, unreadable or not a certificate at all: MISSING, and null (AT-412)."""
    assert evaluate(value, reference(), NOW) == Certificate("MISSING", None)


def test_precedence_says_what_must_be_done_first():
    """Wrong binding before FAIL before STALE: the other words of a foreign certificate are about something else."""
    late = NOW + WINDOW_MS + 1
    assert evaluate(issued(status="FAIL"), reference(), late).state == "FAIL"
    assert evaluate(issued(status="FAIL", build_id="another"), reference(), late).state == "INVALID"
    assert evaluate(issued(build_id="another"), reference(), late).state == "INVALID"


def test_every_state_is_the_registry_s():
    """PASS, FAIL, STALE, MISSING, INVALID are the words of the manifest."""
    assert set(reference().registries.certificate_states) == {"PASS", "FAIL", "STALE", "MISSING", "INVALID"}


# ---- provision --------------------------------------------------------------------------------------------


def test_what_is_laid_out_is_what_the_trader_accepts():
    """Certificate and policy result of an environment are PASS and confirmed under that environment's settings."""
    files = provision.files(environment("drill"), NOW)
    settings = settings_of("drill")
    assert evaluate(files[certificate.FILE], settings, NOW).state == "PASS"
    assert PolicyRefresher(settings).read(files[refresher.FILE], NOW) is None


def test_a_certificate_for_one_policy_is_invalid_under_another():
    """The reference policy's certificate says nothing about the drill policy."""
    files = provision.files(environment("reference"), NOW)
    assert evaluate(files[certificate.FILE], settings_of("drill"), NOW).state == "INVALID"


def test_the_command_issues_as_of_the_wall_clock(tmp_path, monkeypatch, capsys):
    """Run on one day the certificate passes, two days later it is stale; a second run makes it fresh."""
    for name, value in {**environment(), "NODE_DATA": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "files" / certificate.FILE
    with freeze_time("2026-03-01 12:00:00") as frozen:
        assert provision.main() == 0
        first = int(time.time() * 1000)
        assert evaluate(file.read_bytes(), reference(), first) == Certificate("PASS", first + WINDOW_MS)
        frozen.tick(datetime.timedelta(days=2))
        later = int(time.time() * 1000)
        assert evaluate(file.read_bytes(), reference(), later).state == "STALE"
        assert provision.main() == 0
        assert evaluate(file.read_bytes(), reference(), later).state == "PASS"
    assert str(file) in capsys.readouterr().out
    assert sorted(each.name for each in (tmp_path / "files").iterdir()) == sorted([certificate.FILE, refresher.FILE])


def test_the_command_refuses_a_broken_set_up(tmp_path, monkeypatch, capsys):
    """No data folder, or a policy that the trader would refuse: exit 2 and nothing laid out."""
    monkeypatch.delenv("NODE_DATA", raising=False)
    assert provision.main() == 2
    monkeypatch.setenv("NODE_DATA", str(tmp_path))
    monkeypatch.setenv("POLICY", "{}")
    monkeypatch.setenv("BUILD_ID", "b")
    monkeypatch.setenv("DEPLOYMENT_ENVIRONMENT", "DEV")
    assert provision.main() == 2
    assert list(tmp_path.iterdir()) == []
    assert "policy key" in capsys.readouterr().err


def test_a_policy_that_nobody_confirms_grows_old_by_the_frozen_clock():
    """Five minutes after the last good read the policy still holds; a second later it is stale (AT-351)."""
    settings, reader = reference(), PolicyRefresher(reference())
    with freeze_time("2026-03-01 12:00:00") as frozen:
        confirmed = int(time.time() * 1000)
        reader.read(refresher.result(settings.policy_version, settings.runtime_config_hash, confirmed), confirmed)
        for minutes, seconds, mode in ((5, 0, "Active"), (0, 1, "ReduceOnly")):
            frozen.tick(datetime.timedelta(minutes=minutes, seconds=seconds))
            age_ms = int(time.time() * 1000) - confirmed
            seen = decide(well(policy_generated_ts_ms=NOW - age_ms), settings)
            assert seen.mode == mode
        assert seen.reasons == ("REDUCEONLY_POLICY_STALE",)


# ---- refresher --------------------------------------------------------------------------------------------


def test_the_policy_s_age_counts_from_the_last_good_read():
    """A file that vanishes or names another policy lets the age grow; a good read ends it."""
    settings = reference()
    good = refresher.result(settings.policy_version, settings.runtime_config_hash, NOW)
    reader = PolicyRefresher(settings)
    assert reader.generated_ts_ms is None
    assert reader.read(good, NOW) is None
    for bad in (None, b"", b"[]", b" " * 70_000, refresher.result(settings.policy_version, "another", NOW),
                refresher.result(settings.policy_version + 1, settings.runtime_config_hash, NOW)):
        assert isinstance(reader.read(bad, NOW + 10_000), str)
    assert reader.generated_ts_ms == NOW
    assert reader.read(good, NOW + 20_000) is None
    assert reader.generated_ts_ms == NOW + 20_000
