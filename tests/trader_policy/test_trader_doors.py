"""Launch limits, the control plane and the watchdog: what is let in and what is let out."""

from __future__ import annotations

import pytest
from trader_policy_kit import NOW, policy_values, reference, settings_of

from system_under_test import watchdog
from system_under_test.machine import Exit, Note, Now, Request, Response, Start, Stop, Timer, Unanswered
from system_under_test.trader.control import METHOD, ControlPlane
from system_under_test.trader.limits import LaunchLimits, Opening, caps_digest
from system_under_test.trader.settings import Tokens

# ---- launch limits ----------------------------------------------------------------------------------------


def opening(**changes: float) -> Opening:
    """A small opening order."""
    return Opening(**{"amount_btc": 0.1, "amount_usd": 6_000.0, "position_btc_after": 0.1,
                      "net_delta_btc_after": 0.05, "gross_notional_usd_after": 6_000.0, **changes})


def test_a_small_opening_passes():
    """Within every cap nothing is refused."""
    assert LaunchLimits(reference()).refuses(NOW, opening()) is None


@pytest.mark.parametrize(("field", "cap"), [
    ("amount_btc", "max_order_btc"), ("amount_usd", "max_order_usd"), ("position_btc_after", "max_position_btc"),
    ("net_delta_btc_after", "max_net_delta_btc"), ("gross_notional_usd_after", "max_gross_notional_usd")])
def test_each_cap_binds_strictly_above_itself(field, cap):
    """At the cap it passes, above it is refused by name, short positions count by size, NaN is refused."""
    limits, value = LaunchLimits(reference()), float(reference().caps[cap])
    assert limits.refuses(NOW, opening(**{field: value})) is None
    for over in (value * 1.001, float("nan"), float("inf")):
        refusal = limits.refuses(NOW, opening(**{field: over}))
        assert refusal is not None and (refusal.code, refusal.why) == ("PolicyLimitExceeded", cap)
    if field.startswith(("position", "net")):
        assert limits.refuses(NOW, opening(**{field: -value * 1.001})) is not None


def capped(**caps: float):
    """Settings with some caps changed and approved anew under policy version 2."""
    limits = {name: {**each, **caps} for name, each in policy_values()["launch_limits"].items()}
    approval = {"policy_version": 2, "approved_by": "test", "caps_sha256": caps_digest(limits)}
    return settings_of(launch_limits=limits, approval=approval, policy_version=2)


def test_order_rates_count_openings_of_the_last_second_and_minute():
    """The third within a second and the fifth within a minute are refused; time frees them."""
    limits = LaunchLimits(capped(max_orders_per_second=2, max_orders_per_minute=4))
    for at in (0, 1, 2_000, 2_001):
        assert limits.refuses(NOW + at, opening()) is None
        limits.opened(NOW + at)
        if at in (1, 2_001):
            refusal = limits.refuses(NOW + at, opening())
            assert refusal is not None and refusal.why.startswith("max_orders_per_")
    assert limits.refuses(NOW + 59_999, opening()).why == "max_orders_per_minute"
    assert limits.refuses(NOW + 60_000, opening()) is None


def test_the_day_s_loss_binds_at_its_cap_and_a_new_day_begins_anew():
    """Loss counts in coins at today's index: a falling index alone is no loss; midnight (UTC) starts over."""
    limits = LaunchLimits(capped(max_daily_loss_usd=6_250))
    assert limits.equity(NOW, 10.0, 50_000)["kind"] == "day"
    assert limits.equity(NOW, 10.0, 10_000) is None
    assert not limits.loss_reached
    limits.equity(NOW, 9.90625, 50_000)
    assert limits.refuses(NOW, opening()) is None
    limits.equity(NOW, 9.875, 50_000)
    assert limits.refuses(NOW, opening()).why == "max_daily_loss_usd"
    limits.equity(NOW + 86_400_000, 9.875, 50_000)
    assert limits.refuses(NOW, opening()) is None


def test_a_restart_does_not_forgive_the_day_s_loss():
    """The day's first equity comes back from the ledger."""
    limits = LaunchLimits(capped(max_daily_loss_usd=6_250))
    row = limits.equity(NOW, 10.0, 50_000)
    again = LaunchLimits(capped(max_daily_loss_usd=6_250), [row])
    again.equity(NOW + 1, 9.875, 50_000)
    assert again.loss_reached


def test_a_raised_cap_without_an_approval_refuses_every_opening():
    """Editing the cap alone breaks the approval's digest."""
    raised = {name: {**each, "max_position_btc": 1_000} for name, each in policy_values()["launch_limits"].items()}
    limits = LaunchLimits(settings_of(launch_limits=raised))
    assert limits.refuses(NOW, opening()).code == "PolicyNotApproved"
    assert limits.row() is None


def test_a_raised_cap_under_a_known_version_is_refused_even_with_a_new_digest():
    """The ledger remembers what version 1 allowed; only a newer approved version may allow more."""
    first = LaunchLimits(reference())
    row = first.row()
    assert row is not None and row["policy_version"] == 1
    raised = {name: {**each, "max_position_btc": 1_000} for name, each in policy_values()["launch_limits"].items()}
    digest = caps_digest(raised)

    def under(version: int) -> LaunchLimits:
        approval = {"policy_version": version, "approved_by": "test", "caps_sha256": digest}
        return LaunchLimits(settings_of(launch_limits=raised, approval=approval, policy_version=version), [row])

    assert under(1).refuses(NOW, opening()).code == "PolicyNotApproved"
    assert under(2).refuses(NOW, opening()) is None
    assert under(2).row()["policy_version"] == 2
    again = LaunchLimits(reference(), [row])
    assert (again.row(), again.refuses(NOW, opening())) == (None, None)


def test_a_second_frees_the_rate_at_its_last_millisecond():
    """An opening counts for exactly one second against the rate of a second."""
    limits = LaunchLimits(capped(max_orders_per_second=1))
    limits.opened(NOW)
    assert limits.refuses(NOW + 999, opening()).why == "max_orders_per_second"
    assert limits.refuses(NOW + 1_000, opening()) is None


def test_an_approval_of_another_version_does_not_count():
    """Version 2 needs version 2's approval."""
    assert LaunchLimits(settings_of(policy_version=2)).refuses(NOW, opening()).code == "PolicyNotApproved"


def test_limit_codes_are_the_registry_s():
    """Both codes of the gate stand in the manifest."""
    assert {"PolicyLimitExceeded", "PolicyNotApproved"} <= reference().registries.reject_codes


# ---- control plane ----------------------------------------------------------------------------------------

TOKENS = Tokens("emergency-secret", "watchdog-secret")
TELL = {"/api/v1/status": b"s", "/api/v1/health": b"h", "/metrics": b"m"}


def ask(method: str, target: str, token: str | None = None, body: bytes = b"", headers=()):
    """The answer of a control plane whose documents are s, h and m."""
    given = (*headers, *((("authorization", f"Bearer {token}"),) if token else ()))
    request = Request("control_plane#0", 7, method, target, given, body)
    return ControlPlane(TOKENS).answer(request, TELL.__getitem__)


@pytest.mark.parametrize(("target", "body"), [("/api/v1/status", b"s"), ("/api/v1/health", b"h"), ("/metrics", b"m"),
                                              ("/api/v1/status?x=1", b"s")])
def test_the_read_only_routes_answer_and_do_nothing(target, body):
    """Each document under its route, on the connection and id of the request."""
    answer = ask("GET", target)
    assert (answer.response.status, answer.response.body, answer.act) == (200, body, None)
    assert (answer.response.conn, answer.response.id) == ("control_plane#0", 7)


@pytest.mark.parametrize("path", METHOD)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "get"])
def test_other_methods_are_405_and_do_nothing(path, method):
    """Every route has one method; the rest is refused with it, even with the right token (AT-407)."""
    if method == METHOD[path]:
        return
    for token in (None, TOKENS.emergency, TOKENS.watchdog):
        answer = ask(method, path, token)
        assert (answer.response.status, answer.act) == (405, None)
        assert ("allow", METHOD[path]) in answer.response.headers


@pytest.mark.parametrize("path", ["/", "/api/v1/status/", "/api/v1/active", "/api/v1/emergency/active", "/clock", ""])
def test_other_paths_are_404(path):
    """There is no other door, least of all one that sets Active."""
    for method in ("GET", "POST"):
        answer = ask(method, path, TOKENS.emergency)
        assert (answer.response.status, answer.act) == (404, None)


@pytest.mark.parametrize("token", [None, "", "wrong", TOKENS.watchdog, "emergency-secre", "emergency-secrett"])
def test_the_emergency_needs_its_own_token(token):
    """No token, a wrong one, or the watchdog's: 401, and nothing is taken."""
    answer = ask("POST", "/api/v1/emergency/reduce_only", token)
    assert (answer.response.status, answer.act) == (401, "emergency_refused")
    assert ("www-authenticate", "Bearer") in answer.response.headers


@pytest.mark.parametrize("headers", [
    (("authorization", "emergency-secret"),), (("authorization", "Basic emergency-secret"),),
    (("authorization", "Bearer wrong"), ("authorization", "Bearer emergency-secret")),
    (("authorization", "Bearer \u00e9"),)])
def test_malformed_authorization_is_no_authorization(headers):
    """Another scheme, two headers, or letters that are no ASCII: 401 and no traceback."""
    assert ask("POST", "/api/v1/emergency/reduce_only", headers=headers).response.status == 401


@pytest.mark.parametrize(("body", "said"), [
    (b"", {}), (b"{", {}), (b"[1]", {}), (b'{"reason": 5}', {}),
    (b'{"reason": "smoke", "invoked_by": "Ada", "mode": "Active"}', {"reason": "smoke", "invoked_by": "Ada"}),
    (b'{"reason": "' + b"x" * 900 + b'"}', {"reason": "x" * 200})])
def test_the_emergency_is_taken_whatever_its_body_says(body, said):
    """The body is for display; a damaged one does not stop a hand that pulls the lever. It is answered once it is on disk."""
    answer = ask("POST", "/api/v1/emergency/reduce_only", TOKENS.emergency, body)
    assert (answer.response, answer.act) == (None, "emergency")
    assert dict(answer.said) == said


def test_an_endless_body_is_refused():
    """More than the bound is 413."""
    assert ask("POST", "/api/v1/emergency/reduce_only", TOKENS.emergency, b" " * 20_000).response.status == 413


def test_only_the_watchdog_s_poll_is_a_heartbeat():
    """Sampling health, even with the emergency token, never feeds the heartbeat; nor does the status route."""
    assert ask("GET", "/api/v1/health", TOKENS.watchdog).act == "heartbeat"
    assert ask("GET", "/api/v1/health", TOKENS.emergency).act is None
    assert ask("GET", "/api/v1/health").act is None
    assert ask("GET", "/api/v1/status", TOKENS.watchdog).act is None


def test_no_answer_holds_a_token():
    """Whatever is asked, no secret comes back."""
    for method in ("GET", "POST"):
        for path in METHOD:
            for token in (TOKENS.emergency, TOKENS.watchdog, "wrong"):
                assert b"secret" not in repr(ask(method, path, token)).encode()


# ---- watchdog ---------------------------------------------------------------------------------------------


class Dog:
    """A watchdog under test: what it asked, noted, and when it wants to wake."""

    def __init__(self) -> None:
        self.machine = watchdog.make({"WATCHDOG_TOKEN": "w"})
        self.asked: list[tuple[int, Request]] = []
        self.notes: list[Note] = []
        self.wake = 0

    def give(self, at: int, value) -> None:
        for out in self.machine.handle(Now(at, at), value):
            match out:
                case Request():
                    self.asked.append((at, out))
                case Note():
                    self.notes.append(out)
                case Timer(at_ms=int()):
                    self.wake = out.at_ms

    def answer(self, at: int, status: int = 200, body: bytes = b'{"ok": true}') -> None:
        request = self.asked[-1][1]
        self.give(at, Response(request.conn, request.id, status, (), body))


def test_the_watchdog_asks_every_half_second_with_its_token():
    """On a fixed beat, over its link, one question at a time; late turns do not pile up questions."""
    dog = Dog()
    dog.give(1_000, Start(1, 0))
    for _ in range(4):
        dog.answer(dog.asked[-1][0] + 20)
        dog.give(dog.wake, Timer("beat", dog.wake))
    assert [at for at, _ in dog.asked] == [1_000, 1_500, 2_000, 2_500, 3_000]
    request = dog.asked[0][1]
    assert (request.method, request.target, request.conn) == ("GET", "/api/v1/health", "heartbeat#1")
    assert ("authorization", "Bearer w") in request.headers
    dog.answer(3_010)
    dog.give(9_000, Timer("beat", dog.wake))
    assert dog.wake == 9_001
    assert dog.notes == []


def test_a_lost_answer_does_not_silence_the_watchdog():
    """After its deadline the question is given up and a new one asked; the late answer counts for nothing."""
    dog = Dog()
    dog.give(0, Start(1, 0))
    late = dog.asked[-1][1]
    for _ in range(4):
        dog.give(dog.wake, Timer("beat", dog.wake))
    assert [at for at, _ in dog.asked] == [0, 2_000]
    dog.give(2_010, Response(late.conn, late.id, 200, (), b'{"ok": true}'))
    assert [note.kind for note in dog.notes] == ["heartbeat_trouble"]


def test_trouble_is_noted_once_per_change():
    """A refusal, a loss, a strange answer and the recovery are each said once."""
    dog = Dog()
    dog.give(0, Start(1, 0))
    for status, body in ((401, b""), (401, b""), (200, b"[]"), (200, b'{"ok": true}')):
        dog.answer(dog.asked[-1][0] + 5, status, body)
        dog.give(dog.wake, Timer("beat", dog.wake))
    request = dog.asked[-1][1]
    dog.give(dog.wake - 1, Unanswered(request.conn, request.id, False, "refused"))
    said = [note.fields.get("why", note.kind) for note in dog.notes]
    assert said == ["answered 401", "answered something that is no health document", "heartbeat_recovered",
                    "not reachable"]
    assert not any(value == "w" for note in dog.notes for value in note.fields.values())


def test_the_watchdog_ends_when_asked_and_needs_its_token():
    """Stop is answered with Exit 0; without a token there is no watchdog."""
    dog = watchdog.make({"WATCHDOG_TOKEN": "w"})
    assert Exit(0) in dog.handle(Now(0, 0), Stop("SIGTERM"))
    with pytest.raises(ValueError, match="WATCHDOG_TOKEN"):
        watchdog.make({})
