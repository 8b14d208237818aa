"""The envelope: what may be asked, in which shape, and what a wrong request is told."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from system_under_test.exchange import handlers
from system_under_test.exchange.trading import PLACING


def test_every_method_of_the_table_has_its_handler(driver):
    """A method in methods.yaml without code behind it, or the other way round, is a mistake."""
    methods = set(driver.machine.tables.methods)
    assert set(handlers.table(methods)) | set(PLACING) == methods
    assert set(handlers.PLACING) == set(PLACING)


def test_an_answer_has_the_envelope_of_the_venue(driver):
    """jsonrpc, the id as it came, the result, and three times in microseconds."""
    client = driver.connect()
    client.send(b'{"jsonrpc":"2.0","id":"abc","method":"public/get_time","params":{}}')
    answer = client.messages[-1]
    assert answer["id"] == "abc" and answer["jsonrpc"] == "2.0" and answer["testnet"] is True
    assert answer["result"] == driver.wall_ms
    assert answer["usOut"] - answer["usIn"] == answer["usDiff"] > 0


@pytest.mark.parametrize(("data", "code"), [
    (b"", -32700), (b"{", -32700), (b"\xff\xfe", -32700), (b"null", 11050), (b"[]", 11050), (b"7", 11050),
    (b'[{"jsonrpc":"2.0","id":1,"method":"public/test","params":{}}]', 11050),
    (b'{"jsonrpc":"2.0","method":"public/test","params":{}}', 11050),
    (b'{"jsonrpc":"2.0","id":1,"method":"public/test","params":[]}', 11050),
    (b'{"jsonrpc":"2.0","id":1,"method":7}', 11050), (b'{"jsonrpc":"2.0","id":1}', 11050),
    (b'{"jsonrpc":"2.0","id":true,"method":"public/test"}', 11050),
    (b'{"jsonrpc":"2.0","id":{},"method":"public/test"}', 11050),
    (b'{"jsonrpc":"1.0","id":1,"method":"public/test"}', 11050),
    (b'{"jsonrpc":"2.0","id":1,"method":"public/nothing"}', -32601),
    (b'{"jsonrpc":"2.0","id":1,"method":"public/ticker"}', -32602),
    (b'{"jsonrpc":"2.0","id":1,"method":"public/ticker","params":{"instrument_name":5}}', -32602),
    (b'{"jsonrpc":"2.0","id":1,"method":"public/ticker","params":{"instrument_name":"X"}}', 10020),
])
def test_malformed_frames_are_refused_by_code(driver, data, code):
    """Batches, positional parameters, missing ids and worse get an error, and the connection lives on."""
    client = driver.connect()
    client.send(data)
    assert client.messages[-1]["error"]["code"] == code
    assert client.closed is None
    assert client.call("public/test") == {"version": handlers.VERSION}


def test_a_frame_beyond_the_limit_ends_the_connection(driver):
    """More than 32,768 bytes are refused, as by the venue."""
    client = driver.connect()
    client.send(b" " * 32_769)
    assert client.closed == "Message Too Big"


def test_invalid_params_name_the_parameter(driver):
    """-32602 carries reason and param."""
    answer = driver.connect().ask("public/get_order_book", instrument_name="BTC-PERPETUAL", depth=7)
    assert answer["error"]["message"] == "Invalid params"
    assert answer["error"]["data"]["param"] == "depth"


def test_http_takes_all_three_shapes(driver):
    """GET with a query, POST to the root and POST to the method's path mean the same."""
    status, by_get = driver.get("public/ticker", instrument_name="BTC-PERPETUAL")
    assert status == 200 and "id" not in by_get
    body = orjson.dumps({"jsonrpc": "2.0", "id": 9, "method": "public/ticker", "params": {"instrument_name": "BTC-PERPETUAL"}})
    _, by_root = driver.http("POST", "/api/v2", body)
    _, by_path = driver.http("POST", "/api/v2/public/ticker", body)
    assert by_root["id"] == by_path["id"] == 9
    assert by_get["result"] == by_root["result"] == by_path["result"]


@pytest.mark.parametrize(("method", "target", "body", "status"), [
    ("GET", "/", b"", 404), ("GET", "/api/v2", b"", 404), ("GET", "/api/v3/public/test", b"", 404),
    ("DELETE", "/api/v2/public/test", b"", 405), ("GET", "/api/v2/public/nothing", b"", 400),
    ("GET", "/api/v2/public/ticker", b"", 400), ("POST", "/api/v2", b"", 400), ("POST", "/api/v2", b"[]", 400),
    ("GET", "/api/v2/private/get_positions", b"", 401),
    ("GET", "/api/v2/public/subscribe?channels=%5B%22quote.BTC-PERPETUAL%22%5D", b"", 400),
    ("GET", "/api/v2/public/get_instruments?" + "&".join(f"a{n}=1" for n in range(200)), b"", 400),
])
def test_http_status_goes_by_the_error_table(driver, method, target, body, status):
    """401 without papers, 400 for bad requests, 404 and 405 outside the API."""
    assert driver.http(method, target, body)[0] == status


def test_websocket_methods_are_refused_over_http(driver):
    """Subscriptions, heartbeat and cancel-on-disconnect need a connection: 10030."""
    assert driver.get("public/set_heartbeat", interval="10")[1]["error"]["code"] == 10030


def test_query_values_are_read_by_the_tables_types(driver):
    """Text becomes numbers and booleans, and nonsense is refused."""
    assert len(driver.get("public/get_order_book", instrument_name="BTC-PERPETUAL", depth="1")[1]["result"]["bids"]) == 1
    assert driver.get("public/get_instruments", currency="BTC", expired="false")[0] == 200
    assert driver.get("public/get_order_book", instrument_name="BTC-PERPETUAL", depth="one")[1]["error"]["code"] == -32602
    assert driver.get("public/get_instruments", currency="BTC", expired="maybe")[1]["error"]["code"] == -32602


_json = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
                     lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
                     max_leaves=12)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=200), _json.map(lambda value: repr(value).encode())), number=st.integers(0, 10**6))
def test_no_bytes_raise(driver, data, number):
    """Whatever a frame or a request holds, the machine answers and goes on."""
    client = driver.connect(1_000 + number)
    client.send(data)
    driver.http("POST", "/api/v2/private/buy", data)
    driver.http("GET", "/api/v2/" + data.decode("latin-1"), data)
    driver.http("PUT", "/switches/" + data.decode("latin-1"), data, "control")
    assert client.ask("public/test")["result"]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_parameters_raise(driver, data):
    """Every method takes any value in any parameter and answers with a result or an error of the table."""
    method = data.draw(st.sampled_from(sorted(driver.machine.tables.methods)))
    form = driver.machine.tables.methods[method]
    if method == "private/logout":
        return
    strange = _json | st.sampled_from(["BTC", "BTC-PERPETUAL", 10, -1, 1e300, "1e999", "nan", 10**30, "all", True])
    params = {p.name: data.draw(strange) for p in form.parameters if data.draw(st.booleans())}
    client = driver.connect(1_000 + len(driver.clients)).login()
    try:
        body = orjson.dumps({"jsonrpc": "2.0", "id": 77, "method": method, "params": params})
    except (TypeError, orjson.JSONEncodeError):
        return
    client.send(body)
    answers = [m for m in client.messages if m.get("id") == 77]
    assert answers and ("result" in answers[0] or answers[0]["error"]["code"] in driver.machine.tables.errors)
    driver.pass_ms(2_000)
