"""Services among peers that fail: garbage, floods, redirects, silence, restarts; and under clocks that jump."""

from __future__ import annotations

from itertools import product
from typing import Any

import orjson
import pytest
from services_stage import ACTIVE, ENVIRONMENT, Stage, gone, says, silent

from harness.contracts.ops_status.table import table_of
from system_under_test.machine import Exit, Frame, Request, Response, Stop, Unanswered
from system_under_test.services import execution, floor, follower, ingest, marketdata, status, strategy
from system_under_test.services.asking import BODY_BYTES_MAX, DEADLINE_MS

TABLE = table_of()
TRADES = {"result": {"trades": [{"trade_seq": 7}, {"trade_seq": 6}], "has_more": False}}
GARBAGE = [b"", b"\x00\xff" * 50, b"null", b"[]", b"7", b'"OK"', b"{", b"[" * 5_000, b'{"status": null}', b'{"a": NaN}',
           b'{"trading_mode": 1}', b'{"trading_mode": ["Active"]}',
           b'{"service_kind": "marketdata", "status": {}, "inputs": []}',
           b"x" * (BODY_BYTES_MAX + 1)]


def market(age_s: Any = 0.5, state: str = "OK", kind: str = "marketdata", name: str = "marketdata") -> dict[str, Any]:
    """As much of a market data document as anybody reads."""
    codes = [] if state == "OK" else ["MARKETDATA_STALE"]
    return {"service_name": name, "service_kind": kind, "status": {"state": state, "reason_codes": codes},
            "inputs": {"tick_age_seconds": age_s}}


def strategies(**peers: Any) -> Stage:
    stage = Stage(strategy.make, {"strategy_control": says(ACTIVE), "strategy_marketdata": says(market()), **peers})
    stage.run(1_000)
    return stage


def feeds() -> Stage:
    """Market data on an exchange whose clock is 1,000,000 ms ahead of its own monotonic one."""
    stage = Stage(marketdata.make, {"marketdata_control": says(ACTIVE)})
    tell_time(stage)
    stage.run(600)
    return stage


def tell_time(stage: Stage, ahead_ms: int = 1_000_000) -> None:
    stage.give(Frame(stage.opened[-1], orjson.dumps({"id": marketdata.TIME, "result": stage.mono_ms + ahead_ms})))


def tick(stage: Stage, late_ms: int = 0, ahead_ms: int = 1_000_000, conn: str | None = None) -> None:
    data = {"timestamp": stage.mono_ms + ahead_ms - late_ms}
    stage.give(Frame(conn or stage.opened[-1], orjson.dumps({"method": "subscription", "params": {
        "channel": marketdata.CHANNEL, "data": data}})))


# ---- the door ---------------------------------------------------------------------------------------------


def test_a_service_answers_three_questions_and_no_others():
    """Status, health and clocks; anything else is told so, and a push changes nothing."""
    stage = strategies()
    assert stage.get()[0] == 200
    assert stage.get("/healthz") == (200, {"ok": True})
    assert stage.get("/clock?x=1") == (200, {"mono_ms": stage.mono_ms, "wall_ms": stage.wall_ms})
    assert stage.get("/ops")[0] == 404 and stage.get("/ops/floor")[0] == 404
    assert stage.get(method="POST")[0] == 405


def test_a_service_ends_when_it_is_asked_to():
    """In order, and at once."""
    assert Exit(0) in strategies().machine.handle(strategies().now, Stop("SIGTERM"))


@pytest.mark.parametrize("policy", ["", "{}", "[]", '{"ops_heartbeat_ttl_s": true}', '{"ops_heartbeat_ttl_s": -1}'])
def test_a_service_without_limits_does_not_start(policy):
    """A limit is never guessed."""
    with pytest.raises(ValueError):
        strategy.make({**ENVIRONMENT, "POLICY": policy})


def test_an_execution_service_without_the_key_does_not_start():
    """It could not carry the switch."""
    with pytest.raises(ValueError, match="EMERGENCY_TOKEN"):
        execution.make({**ENVIRONMENT, "EMERGENCY_TOKEN": ""})


# ---- the trader's word ------------------------------------------------------------------------------------


def test_the_trader_s_kill_halts_a_service_and_its_silence_too():
    """Kill is on at once, not knowing after its time, and both end with a word of another mode."""
    stage = strategies()
    assert stage.said == ("OK",)
    stage.peers["strategy_control"] = says({"trading_mode": "Kill"})
    stage.run(1_000)
    assert stage.said == ("HALTED", "KILL_SWITCH") and stage.get()[1]["inputs"]["kill_switch_by"] == ["trader"]
    stage.peers["strategy_control"] = says({"trading_mode": "ReduceOnly"})
    stage.run(1_000)
    assert stage.said == ("OK",)
    stage.peers["strategy_control"] = gone
    stage.run(3_500)
    assert stage.get()[1]["inputs"]["kill_switch_by"] == ["trader_unknown"]


@pytest.mark.parametrize("answer", [*map(says, GARBAGE), says(ACTIVE, 500), says(ACTIVE, 302), says(ACTIVE, 204), silent, gone])
def test_what_is_no_answer_of_the_trader_counts_as_silence(answer):
    """Nothing that a peer sends brings a service down or is taken for a mode."""
    stage = strategies()
    stage.peers["strategy_control"] = answer
    stage.run(6_000)
    assert stage.get()[1]["inputs"]["kill_switch_by"] == ["trader_unknown"]
    stage.peers["strategy_control"] = says(ACTIVE)
    stage.run(3_000)
    assert stage.said == ("OK",)


def test_before_the_trader_was_heard_the_switch_counts_as_on():
    """A service that has just started knows nothing."""
    stage = Stage(strategy.make, {"strategy_control": silent, "strategy_marketdata": says(market())})
    assert stage.said == ("HALTED", "KILL_SWITCH")


def test_a_question_is_given_up_and_its_late_answer_not_taken():
    """One is in flight at a time, and what is known is as old as the question that it answers."""
    stage = strategies(strategy_control=silent)
    asked = [each for each in stage.requests if each.conn.startswith("strategy_control")]
    assert len(asked) == 1
    stage.run(DEADLINE_MS + 1_000)
    assert asked[0].conn in stage.closed
    stage.give(Response(asked[0].conn, asked[0].id, 200, (), ACTIVE))
    stage.give(Unanswered(asked[0].conn, asked[0].id, True, "given up"))
    assert stage.said == ("HALTED", "KILL_SWITCH")


# ---- market data from a peer ------------------------------------------------------------------------------


def test_a_follower_takes_the_age_and_lets_it_grow():
    """Not the peer's word on freshness: 3.9 s are fresh, 4.1 s are not, and 1.001 s ahead are neither."""
    for age_s, said in ((3.9, ("OK",)), (4.1, ("HALTED", "MARKETDATA_STALE")), (-1.001, ("HALTED", "MARKETDATA_STALE")),
                        (-1, ("OK",)), (None, ("HALTED", "MARKETDATA_MISSING"))):
        assert strategies(strategy_marketdata=says(market(age_s, "DEGRADED" if age_s == 3.9 else "OK"))).said == said
    stage = strategies(strategy_marketdata=says(market(3.5)))
    stage.peers["strategy_marketdata"] = silent
    stage.run(600)
    assert stage.said == ("HALTED", "MARKETDATA_STALE")


@pytest.mark.parametrize("answer", [*map(says, GARBAGE), says(market(), 301), silent, gone, says(market("now")),
                                    says(market(True)), says(market(1e300)), says(market(state="UNKNOWN")),
                                    says(market(state="FINE")), says(market(kind="ingest"))])
def test_what_is_no_status_of_market_data_is_missing_market_data(answer):
    """After its time, and until a lawful answer comes."""
    stage = strategies()
    stage.peers["strategy_marketdata"] = answer
    stage.run(6_000)
    assert stage.said == ("HALTED", "MARKETDATA_MISSING") and not stage.get()[1]["safety"]["safe_to_run_strategies"]
    stage.peers["strategy_marketdata"] = says(market())
    stage.run(3_000)
    assert stage.said == ("OK",)


def test_a_document_without_the_age_is_none():
    """An absent key is no null."""
    with pytest.raises(ValueError):
        follower.tick_age(orjson.dumps({**market(), "inputs": {}}))


# ---- the feed ---------------------------------------------------------------------------------------------


def test_the_feed_s_age_is_by_the_exchange_s_clock():
    """Fresh while ticks come in time; stale when they stop, at the threshold and not before."""
    stage = feeds()
    assert stage.said == ("DEGRADED", "MARKETDATA_MISSING")
    tick(stage)
    assert stage.said == ("OK",)
    stage.run(4_000)
    assert stage.said == ("OK",)
    stage.run(10)
    assert stage.said == ("DEGRADED", "MARKETDATA_STALE")


def test_a_feed_that_comes_late_is_as_old_as_it_is_late():
    """Ticks that arrive every second, ten seconds late, are ten seconds old: stale, and the feed is dialled anew."""
    stage = feeds()
    for _ in range(14):
        tick(stage, late_ms=10_000)
        stage.run(1_000)
    assert stage.said == ("DEGRADED", "MARKETDATA_STALE")
    assert len(stage.opened) > 1


def test_a_slow_answer_about_the_time_never_makes_a_tick_younger():
    """The clock is carried on from the moment of asking, so a round trip only ever adds to an age."""
    stage = Stage(marketdata.make, {"marketdata_control": says(ACTIVE)})
    stage.run(3_000)
    stage.give(Frame(stage.opened[-1], orjson.dumps({"id": marketdata.TIME, "result": stage.mono_ms + 1_000_000})))
    tick(stage)
    assert stage.get()[1]["inputs"]["tick_age_seconds"] == 3.0


def test_no_step_of_the_wall_clock_changes_an_age():
    """An hour forward, a day back: what is fresh stays fresh, and time stamps move with the ages they are made of."""
    stage = feeds()
    tick(stage)
    for step_ms in (3_600_000, -86_400_000, -10**14):
        stage.wall_ms += step_ms
        assert stage.said == ("OK",)
        assert stage.get()[1]["heartbeat"]["age_seconds"] < 1


def test_an_old_connection_and_odd_frames_are_not_listened_to():
    """Another generation, another channel, no time stamp, no JSON, too long."""
    stage = feeds()
    before = stage.said
    tick(stage, conn="ops_feed#999")
    for data in (*GARBAGE, b'{"params": {"channel": "book", "data": {"timestamp": 1}}}',
                 orjson.dumps({"params": {"channel": marketdata.CHANNEL, "data": {"timestamp": "now"}}}),
                 orjson.dumps({"params": {"channel": marketdata.CHANNEL, "data": {"timestamp": True}}}),
                 orjson.dumps({"params": {"channel": marketdata.CHANNEL, "data": []}}), orjson.dumps({"id": 2, "result": "x"})):
        stage.give(Frame(stage.opened[-1], data))
    assert stage.said == before
    tick(stage)
    assert stage.said == ("OK",)


def test_a_lost_feed_is_dialled_again_with_pauses_that_grow():
    """At most a few dials in ten seconds, and the next fresh tick ends the pauses."""
    stage = feeds()
    stage.feed = False
    stage.run(6_000)
    stage.opened.clear()
    stage.run(10_000)
    assert 2 <= len(stage.opened) <= 6
    stage.feed = True
    stage.run(3_000)
    tell_time(stage)
    tick(stage)
    assert stage.said == ("OK",)


def test_a_refused_question_about_the_time_is_asked_again():
    """Until it is answered no tick has an age, so there is no market data."""
    stage = Stage(marketdata.make, {"marketdata_control": says(ACTIVE)})
    stage.give(Frame(stage.opened[-1], b'{"id": 2, "error": {"code": 11051}}'))
    tick(stage)
    assert stage.said == ("DEGRADED", "MARKETDATA_MISSING")
    stage.run(1_100)
    assert [frame["method"] for _, frame in stage.frames].count("public/get_time") == 2


# ---- the worker's heartbeat -------------------------------------------------------------------------------


def test_an_ingest_worker_without_trades_grows_stale_behind_its_door():
    """Its round is the source's answer; the door answers all the while."""
    stage = Stage(ingest.make, {"ingest_control": says(ACTIVE), "ingest_source": says(TRADES)})
    stage.run(2_000)
    assert stage.said == ("OK",) and stage.machine.trades == 2
    for answer in (silent, gone, says(TRADES, 429), *map(says, GARBAGE), says({"result": {"trades": [7]}})):
        stage.peers["ingest_source"] = answer
        stage.run(5_000)
        assert stage.said == ("DEGRADED", "HEARTBEAT_STALE")
    stage.files["operator/market_calendar.json"] = b'{"calendar": "closed"}'
    stage.run(1_000)
    assert stage.said == ("DEGRADED", "HEARTBEAT_STALE")      # a closed market excuses nobody
    stage.peers["ingest_source"] = says(TRADES)
    stage.run(3_000)
    assert stage.said == ("MARKET_CLOSED", "MARKET_CLOSED")


def test_a_worker_that_hangs_on_its_files_grows_stale():
    """A look that never comes back ends the rounds, whatever the door says."""
    stage = strategies()
    stage.files["operator/EXECUTION_HALTED"] = "hangs"
    stage.run(4_000)
    assert stage.said == ("DEGRADED", "HEARTBEAT_STALE")


def test_an_operator_s_calendar_is_read_again_and_again():
    """Closed, then one that nobody knows, then none: MARKET_CLOSED, UNKNOWN, OK."""
    stage = strategies()
    unknown = ("UNKNOWN", "REQUIRED_FIELDS_MISSING")
    for text, said in ((b'{"calendar": "closed"}', ("MARKET_CLOSED", "MARKET_CLOSED")), (b"garbage", unknown),
                       ("PermissionError", unknown), ("FileNotFoundError", ("OK",))):
        stage.files["operator/market_calendar.json"] = text
        stage.run(1_100)
        assert stage.said == said


# ---- execution --------------------------------------------------------------------------------------------


def executions(**environment: str) -> Stage:
    stage = Stage(execution.make, {"execution_control": lambda asked: _trader(asked), "execution_marketdata": says(market())},
                  **environment)
    stage.run(1_000)
    return stage


def _trader(asked: Request) -> Response:
    return Response(asked.conn, asked.id, 200, (), b'{"taken": true}' if asked.method == "POST" else ACTIVE)


def test_the_file_s_switch_is_carried_to_the_trader_every_second():
    """With the key, until it is off; and never because of what the trader says of itself."""
    stage = executions()
    stage.files["operator/EXECUTION_HALTED"] = b"1"
    stage.run(5_000)
    presses = [each for each in stage.requests if each.method == "POST"]
    assert 4 <= len(presses) <= 6
    assert all(each.target == execution.EMERGENCY and ("authorization", "Bearer key") in each.headers for each in presses)
    assert stage.said == ("HALTED", "KILL_SWITCH")
    del stage.files["operator/EXECUTION_HALTED"]
    stage.run(1_000)
    stage.peers["execution_control"] = says({"trading_mode": "Kill"})
    stage.requests.clear()
    stage.run(5_000)
    assert stage.said == ("HALTED", "KILL_SWITCH") and not [each for each in stage.requests if each.method == "POST"]


def test_a_switch_that_nobody_has_looked_at_is_not_carried():
    """A service that has just started halts itself, and presses nothing: whoever restarts would stop the trader."""
    stage = Stage(execution.make, {"execution_control": _trader, "execution_marketdata": says(market())}, looks="hangs")
    stage.run(3_000)
    assert stage.get()[1]["safety"]["kill_switch"] and not [each for each in stage.requests if each.method == "POST"]


def test_a_switch_that_cannot_be_read_is_carried_too():
    """And so it is by an execution service that is scaled to zero."""
    for environment in ({}, {"EXECUTION_REPLICAS": "0"}):
        stage = executions(**environment)
        stage.requests.clear()
        stage.files["operator/EXECUTION_HALTED"] = "PermissionError: no"
        stage.run(3_000)
        assert [each for each in stage.requests if each.method == "POST"]


@pytest.mark.parametrize(("environment", "said"), [
    ({}, ("OK",)), ({"EXECUTION_REPLICAS": "two"}, ("OK",)),
    ({"EXECUTION_REPLICAS": "0"}, ("OFFLINE", "EXECUTION_DISABLED")),
    ({"EXECUTION_REPLICAS": "-1"}, ("OFFLINE", "EXECUTION_DISABLED")),
    ({"EXECUTION_ENABLED": "no"}, ("OFFLINE", "EXECUTION_DISABLED")),
    ({"EXECUTION_ENABLED": "true", "EXECUTION_REPLICAS": "1"}, ("OK",)),
])
def test_execution_that_is_switched_off_is_offline(environment, said):
    """By a word that is no clear yes, or by no replicas; and it is never safe to execute."""
    stage = executions(**environment)
    assert stage.said == said and stage.get()[1]["safety"]["safe_to_execute_orders"] is False


# ---- the floor --------------------------------------------------------------------------------------------

SERVICES = {"execution": "execution-agent", "ingest": "market-ingest", "marketdata": "marketdata",
            "strategy": "strategy-engine"}


def service(kind: str, state: str = "OK", *codes: str) -> dict[str, Any]:
    return {"service_name": SERVICES[kind], "service_kind": kind, "status": {"state": state, "reason_codes": list(codes)}}


def floors(**peers: Any) -> Stage:
    stage = Stage(floor.make, {f"floor_{kind}": peers.get(kind, says(service(kind))) for kind in SERVICES},
                  SERVICES=" ".join(f"{name}={kind}" for kind, name in SERVICES.items()))
    stage.run(1_000)
    return stage


def shown(stage: Stage) -> tuple[str, ...]:
    told = stage.get("/ops/floor")[1]["floor"]
    return (told["state"], *told["reason_codes"])


def test_the_floor_is_as_bad_as_its_worst():
    """In the declared order, with the reasons of all that are in it, in the table's order."""
    assert shown(floors()) == ("OK",)
    closed = says(service("ingest", "MARKET_CLOSED", "MARKET_CLOSED"))
    stale = says(service("marketdata", "DEGRADED", "MARKETDATA_STALE"))
    halted = says(service("strategy", "HALTED", "MARKETDATA_STALE"))
    killed = says(service("execution", "HALTED", "KILL_SWITCH"))
    assert shown(floors(ingest=closed)) == ("MARKET_CLOSED", "MARKET_CLOSED")
    assert shown(floors(ingest=closed, marketdata=stale)) == ("DEGRADED", "MARKETDATA_STALE")
    assert shown(floors(marketdata=stale, strategy=halted, execution=killed)) == ("HALTED", "KILL_SWITCH", "MARKETDATA_STALE")
    assert shown(floors(strategy=halted, ingest=gone)) == ("OFFLINE", "PROCESS_DOWN")
    assert shown(floors(ingest=gone, marketdata=says(b"garbage"))) == ("UNKNOWN", "REQUIRED_FIELDS_MISSING")


def test_execution_scaled_to_zero_makes_the_floor_no_worse():
    """It is shown OFFLINE and counts as well."""
    stage = floors(execution=says(service("execution", "OFFLINE", "EXECUTION_DISABLED")))
    assert shown(stage) == ("OK",)
    assert stage.get("/ops/floor")[1]["services"][0]["state"] == "OFFLINE"
    other = says(service("strategy", "OFFLINE", "EXECUTION_DISABLED"))
    assert shown(floors(strategy=other)) == ("UNKNOWN", "REQUIRED_FIELDS_MISSING"), "of execution alone, and of nobody else"


def test_a_service_that_falls_silent_is_offline_after_its_time():
    """With the moment since when; and it is itself again with its next answer."""
    stage = floors()
    stage.peers["floor_ingest"] = silent
    stage.run(1_500)
    assert shown(stage) == ("OK",)
    stage.run(1_500)
    assert shown(stage) == ("OFFLINE", "PROCESS_DOWN")
    row = stage.get("/ops/floor")[1]["services"][1]
    assert row == {"service_name": "market-ingest", "service_kind": "ingest", "state": "OFFLINE",
                   "reason_codes": ["PROCESS_DOWN"], "online": False, "since_utc": row["since_utc"]}
    stage.peers["floor_ingest"] = says(service("ingest"))
    stage.run(3_000)
    assert shown(stage) == ("OK",)


@pytest.mark.parametrize("answer", [*map(says, GARBAGE), says(service("ingest")), says({}, 503), says({}, 302),
                                    says(service("strategy", "FINE")), says(service("strategy", "OK", "KILL_SWITCH")),
                                    says(service("strategy", "HALTED")), says(service("strategy", "OFFLINE", "PROCESS_DOWN")),
                                    says(service("strategy", "HALTED", "KILL_SWITCH", "MARKETDATA_STALE")),
                                    says(service("strategy", "HALTED", "BECAUSE"))])
def test_who_answers_what_is_no_status_of_its_own_is_unknown(answer):
    """There is somebody, and nobody knows what they say."""
    stage = floors(strategy=answer)
    assert shown(stage) == ("UNKNOWN", "REQUIRED_FIELDS_MISSING")
    assert stage.get("/ops/floor")[1]["services"][3]["online"] is True


def test_a_floor_without_services_knows_nothing():
    """And one whose services cannot be read does not start."""
    assert shown(Stage(floor.make)) == ("UNKNOWN", "REQUIRED_FIELDS_MISSING")
    for text in ("marketdata", "a=b", "a=ingest b=ingest", "=ingest"):
        with pytest.raises(ValueError):
            floor.make({**ENVIRONMENT, "SERVICES": text})


@pytest.mark.parametrize("kind", status.KINDS)
def test_which_reason_a_service_may_give_is_what_the_ladder_says(kind):
    """For every kind, state and reason: the floor takes what a row of the judge's table knows, and PROCESS_DOWN from nobody."""
    for state, reason in product(TABLE.states, TABLE.codes):
        assert (floor.state_for(kind, reason) == state) is (TABLE.knows(kind, state, [reason]) and reason != "PROCESS_DOWN")
