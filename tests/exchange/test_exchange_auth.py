"""Tokens, scopes, signatures, heartbeats and cancel-on-disconnect."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

PRIVATE = "private/get_positions"


def _sign(text: str) -> str:
    return hmac.new(b"s3cret", text.encode(), hashlib.sha256).hexdigest()


def test_credentials_authorise_the_connection(driver):
    """Before public/auth private calls get 10000, after it they pass on this connection alone."""
    client, other = driver.connect(), driver.connect()
    assert client.code(PRIVATE) == 10000
    client.login()
    assert client.call(PRIVATE) == []
    assert other.code(PRIVATE) == 10000


@pytest.mark.parametrize("params", [
    {"grant_type": "client_credentials", "client_id": "drill", "client_secret": "wrong"},
    {"grant_type": "client_credentials", "client_id": "nobody", "client_secret": "s3cret"},
    {"grant_type": "client_credentials"},
    {"grant_type": "client_credentials", "client_id": "drill", "client_secret": "s3cret\u00e9"},
    {"grant_type": "client_signature", "client_id": "drill", "timestamp": 1, "signature": "00", "nonce": "n"},
])
def test_wrong_credentials_are_13004(driver, params):
    """Neither a wrong secret nor a wrong signature says which part was wrong."""
    assert driver.connect().code("public/auth", **params) == 13004


def test_signature_logs_in_and_grows_old(driver):
    """client_signature signs time, nonce and data; a minute later the same signature is refused."""
    ts = driver.wall_ms
    params = {"grant_type": "client_signature", "client_id": "drill", "timestamp": ts, "nonce": str(ts), "data": "",
              "signature": _sign(f"{ts}\n{ts}\n")}
    assert driver.connect().call("public/auth", **params)["token_type"] == "bearer"
    driver.pass_ms(61_000)
    assert driver.connect().code("public/auth", **params) == 13004


def test_state_and_session_scope_are_echoed(driver):
    """A named session's token outlives its connection; a connection's token does not."""
    client = driver.connect()
    named = client.call("public/auth", grant_type="client_credentials", client_id="drill", client_secret="s3cret",
                        scope="session:rest trade:read", state="mine")
    assert named["state"] == "mine" and "session:rest" in named["scope"] and "trade:read" in named["scope"]
    bound = driver.connect().login().call("public/auth", grant_type="client_credentials", client_id="drill",
                                          client_secret="s3cret")
    assert bound["scope"].startswith("connection")
    driver.drop(client)
    assert driver.get(PRIVATE, f"Bearer {named['access_token']}")[0] == 200
    assert driver.get(PRIVATE, f"Bearer {bound['access_token']}")[1]["error"]["code"] == 13009


def test_a_scope_too_small_is_forbidden(driver):
    """trade:read reads positions and places nothing."""
    client = driver.connect().login("session:reader trade:read")
    assert client.call(PRIVATE) == []
    assert client.code("private/buy", instrument_name="BTC-PERPETUAL", amount=10, price=90_000) == 13021
    assert client.code("private/get_account_summary", currency="BTC") == 13021


def test_tokens_expire_and_refresh(driver):
    """After its life a token is 13009; the refresh token gives a new pair and is used up."""
    client = driver.connect()
    pair = client.call("public/auth", grant_type="client_credentials", client_id="drill", client_secret="s3cret",
                       scope="expires:10")
    assert pair["expires_in"] == 10
    driver.pass_ms(10_000)
    assert client.code(PRIVATE) == 13009
    client.call("public/auth", grant_type="refresh_token", refresh_token=pair["refresh_token"])
    assert client.call(PRIVATE) == []
    assert client.code("public/auth", grant_type="refresh_token", refresh_token=pair["refresh_token"]) == 13009


def test_rest_takes_bearer_basic_and_signature(driver):
    """All three authorization headers of the venue; a wrong one is refused with its status."""
    token = driver.get("public/auth", grant_type="client_credentials", client_id="drill", client_secret="s3cret")[1]["result"]
    assert driver.get(PRIVATE, f"Bearer {token['access_token']}")[0] == 200
    assert driver.get(PRIVATE, "Basic " + base64.b64encode(b"drill:s3cret").decode())[0] == 200
    target, ts = "/api/v2/private/get_positions?currency=BTC", driver.wall_ms
    signature = _sign("\n".join((str(ts), "n", "GET", target, "", "")))
    header = f"deri-hmac-sha256 id=drill,ts={ts},sig={signature},nonce=n"
    assert driver.http("GET", target, authorization=header)[0] == 200
    assert driver.http("GET", target + "x", authorization=header)[0] == 400
    for bad in ("Bearer nothing", "Basic !!", "Digest x", "deri-hmac-sha256 id=drill,ts=\u00b2,sig=\u00e9,nonce=n", "Bearer"):
        assert driver.get(PRIVATE, bad)[1]["error"]["code"] in (13004, 13009)


def test_access_token_may_travel_in_params(driver):
    """Clients that name the token in every call need no authorised connection."""
    token = driver.connect().call("public/auth", grant_type="client_credentials", client_id="drill",
                                  client_secret="s3cret", scope="session:x")["access_token"]
    assert driver.connect().call(PRIVATE, access_token=token) == []
    assert driver.connect().code(PRIVATE, access_token="no") == 13009


def test_a_heartbeat_asks_the_silent_and_ends_the_mute(driver):
    """Talkers get heartbeats, the silent a test_request; without an answer the connection ends."""
    client = driver.connect().login()
    client.call("public/set_heartbeat", interval=10)
    assert client.code("public/set_heartbeat", interval=9) == -32602
    driver.pass_ms(9_000)
    client.call("public/test")
    driver.pass_ms(1_500)
    beats = [m["params"]["type"] for m in client.messages if m.get("method") == "heartbeat"]
    assert beats == ["heartbeat"]
    driver.pass_ms(10_000)
    assert [m["params"]["type"] for m in client.messages if m.get("method") == "heartbeat"][-1] == "test_request"
    client.call("public/test")
    driver.pass_ms(9_000)
    assert client.closed is None
    driver.pass_ms(20_000)
    assert client.closed.startswith("heartbeat")


def _quote(client):
    return client.buy("BTC-PERPETUAL", 100, price=90_000, post_only=True)["order"]["order_id"]


def test_cancel_on_disconnect_fires_on_close_for_its_connection_only(driver):
    """The armed connection's orders go when it closes; those of another stay."""
    armed, other = driver.connect().login(), driver.connect().login()
    armed.call("private/enable_cancel_on_disconnect")
    assert armed.call("private/get_cancel_on_disconnect")["enabled"] is True
    mine, theirs = _quote(armed), _quote(other)
    driver.drop(armed)
    assert other.call("private/get_order_state", order_id=mine)["cancel_reason"] == "cancel_on_disconnect"
    assert other.call("private/get_order_state", order_id=theirs)["order_state"] == "open"
    assert driver.rows("cancel")[0]["by"] == "cancel_on_disconnect"


def test_an_unarmed_connection_and_a_logout_cancel_nothing(driver):
    """Without arming nothing is cancelled, and a logout is graceful: no answer, no cancelling."""
    unarmed, polite, other = driver.connect().login(), driver.connect().login(), driver.connect().login()
    first = _quote(unarmed)
    driver.drop(unarmed)
    polite.call("private/enable_cancel_on_disconnect")
    second = _quote(polite)
    assert polite.ask("private/logout") is None and polite.closed == "logout"
    for order in (first, second):
        assert other.call("private/get_order_state", order_id=order)["order_state"] == "open"


def test_cancel_on_disconnect_fires_when_the_heartbeat_fails_and_after_ten_silent_minutes(driver):
    """The two other ways of the venue."""
    beating, silent, other = driver.connect().login(), driver.connect().login(), driver.connect().login()
    for client in (beating, silent):
        client.call("private/enable_cancel_on_disconnect")
    first, second = _quote(beating), _quote(silent)
    beating.call("public/set_heartbeat", interval=10)
    driver.pass_ms(30_000)
    assert beating.closed
    assert other.call("private/get_order_state", order_id=first)["order_state"] == "cancelled"
    assert other.call("private/get_order_state", order_id=second)["order_state"] == "open"
    driver.pass_ms(600_000)
    other.login()
    assert other.call("private/get_order_state", order_id=second)["cancel_reason"] == "cancel_on_disconnect"


def test_hello_names_the_connection_in_the_books(driver):
    """The books call a connection by the name it gave itself."""
    client = driver.connect()
    client.call("public/hello", client_name="trader/orders", client_version="1")
    client.call("public/test")
    assert driver.rows("request")[-1]["client"] == "trader/orders"
    assert driver.rows("session", event="named")[0]["client"] == "trader/orders"
    driver.drop(client)
    assert driver.rows("session")[-1]["event"] == "closed"


def test_no_secret_reaches_a_row(driver):
    """Neither the client's secret nor a token is ever in the books."""
    client = driver.connect()
    token = client.call("public/auth", grant_type="client_credentials", client_id="drill", client_secret="s3cret")
    client.call(PRIVATE, access_token=token["access_token"])
    driver.get(PRIVATE, f"Bearer {token['access_token']}")
    text = b"".join(driver.records).decode()
    assert "s3cret" not in text and token["access_token"] not in text and token["refresh_token"] not in text
