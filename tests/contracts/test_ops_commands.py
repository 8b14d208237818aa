"""``drillproof validate ops-status`` and ``drillproof floor``, end to end: lawful, unlawful, silent and hostile services."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from harness import floor
from harness.cli import main
from harness.contracts import source
from harness.contracts.library import REPOSITORY
from harness.contracts.ops_status import Contract
from harness.contracts.validate import _command
from harness.errors import UsageError
from harness.recording.script import build, read

FIXTURES = REPOSITORY / "fixtures/ops_status"
GOLDENS = {"marketdata": "ok", "strategy": "market_closed", "execution": "offline_execution_disabled"}
NOW = datetime(2026, 1, 8, 2, tzinfo=UTC)
"""When the market is closed, by the golden that says so."""


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services are asked at that time, so that goldens are answers of now."""
    monkeypatch.setattr(source, "now", lambda: NOW)


def validate(*arguments: str | Path) -> int:
    try:
        return _command(["ops-status", *map(str, arguments)])
    except SystemExit as end:
        return int(end.code or 0)


def test_validating_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 for a lawful one, 1 with each finding on a line of its own, 2 where nothing could be asked."""
    assert validate("--file", FIXTURES / "ok.json") == 0
    assert validate("--file", FIXTURES / "floor_ok.json", "--floor") == 0
    assert capsys.readouterr().out.count("VALIDATION OK") == 2
    lie = (FIXTURES / "ok.json").read_text().replace('"kill_switch": false', '"kill_switch": true')
    (tmp_path / "lie.json").write_text(lie)
    assert validate("--file", tmp_path / "lie.json") == 1
    assert "- [STATE] /status/state: the table says HALTED ['KILL_SWITCH'] (killed), the document OK []" \
        in capsys.readouterr().err.splitlines()
    assert validate("--file", tmp_path / "none.json") == 2 == validate()
    assert validate("--file", FIXTURES / "ok.json", "--calendar", "x") == 2


def test_validating_by_policy_and_calendar() -> None:
    """The drill policy's thresholds are not the fixture's; the source's example is of before the opening bell."""
    policy = REPOSITORY / "system_under_test/policies"
    assert validate("--quiet", "--file", FIXTURES / "ok.json", "--policy", policy / "reference.yaml") == 0
    assert validate("--quiet", "--file", FIXTURES / "ok.json", "--calendar", "nyse") == 1
    assert validate("--quiet", "--file", FIXTURES / "ok.json", "--calendar", "continuous", "--strict") == 0


@pytest.fixture
def served() -> Iterator[Callable[[Callable[[Any], None]], str]]:
    """Serves what a function writes to a request's handler; returns the address."""
    servers = []

    def serve(answer: Callable[[Any], None]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self)

            def log_message(self, *args: Any) -> None:
                """Nothing on the terminal."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def says(body: bytes) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
    return answer


def named(kind: str, fixture: str, **changes: Any) -> bytes:
    """A golden under the service's own name, as if it had been told now; without the hours that it was made in."""
    golden = json.loads((FIXTURES / f"{fixture}.json").read_text())
    if golden["status"]["last_updated_utc"] != "2026-01-08T02:00:00Z":
        golden.pop("inputs", None)
        golden["status"]["last_updated_utc"] = golden["heartbeat"]["last_heartbeat_utc"] = "2026-01-08T02:00:00Z"
        golden["marketdata"]["last_tick_utc"] = "2026-01-08T01:59:59Z"
    return json.dumps({**golden, "service_name": kind, **changes}).encode()


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = main(["floor", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_floor_on_which_nothing_is_wrong(served: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Closed is the worst of these, scaled to zero is no error; the document is lawful itself."""
    urls = [f"--url={kind}={served(says(named(kind, fixture)))}" for kind, fixture in GOLDENS.items()]
    code, told = asked(capsys, *urls)
    assert code == 0 and told["floor"]["state"] == "MARKET_CLOSED" and told["findings"] == {}
    assert [each["service_name"] for each in told["services"]] == ["execution", "marketdata", "strategy"]
    assert Contract.load(part="floor").check({key: told[key] for key in ("floor", "services", "extension")}, strict=True) == []


@pytest.mark.parametrize(("seconds", "policy", "kept"), [
    (0, None, False), (60, None, False), (61, None, True), (-60, None, False), (-62, None, True),
    (6 * 365 * 86_400, None, True), (6, "drill", True)])
def test_an_answer_of_before_is_none(served: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
                                     seconds: int, policy: str | None, kept: bool) -> None:
    """A cache in front of a dead service says OK for years: what was asked for now tells a time of now."""
    monkeypatch.setattr(source, "now", lambda: NOW + timedelta(seconds=seconds))
    url, more = served(says(named("x", "ok"))), []
    if policy is not None:
        more = ["--policy", str(REPOSITORY / f"system_under_test/policies/{policy}.yaml")]
    code, told = asked(capsys, f"--url=x={url}", *more)
    assert any("/status/last_updated_utc: is" in each for each in told["findings"].get("x", ())) is kept
    assert code == 1 if kept or more else code == 0
    assert validate("--quiet", "--url", url + "/ops/status", *more) == code


def test_a_service_that_does_not_answer(served: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody there, an error, an answer that never ends and one cut off are OFFLINE, and so is the floor; in bounded time."""
    def slowly(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" ")
            time.sleep(0.1)

    begun = time.monotonic()
    code, told = asked(capsys, f"--url=good={served(says(named('good', 'ok')))}", "--url=nobody=http://127.0.0.1:1",
                       f"--url=error={served(lambda handler: handler.send_error(500))}", f"--url=slow={served(slowly)}",
                       "--timeout=0.5")
    assert code == 1 and (told["floor"]["state"], told["floor"]["reason_codes"]) == ("OFFLINE", ["PROCESS_DOWN"])
    assert {each["service_name"]: each["state"] for each in told["services"]} == {
        "good": "OK", "nobody": "OFFLINE", "error": "OFFLINE", "slow": "OFFLINE"}
    assert time.monotonic() - begun < 8


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"{" * 100_000, b'{"status": {"state": "WEIRD"}}', b" " * 2_000_000,
                                  named("somebody_else", "ok"), named("x", "ok", status={"state": "OK", "reason_codes": [1]}),
                                  named("x", "ok", status={"state": "OFFLINE", "reason_codes": ["PROCESS_DOWN"]}),
                                  named("x", "ok", status={"state": [], "reason_codes": ["KILL_SWITCH"]}),
                                  named("x", "ok", status={"state": {}, "reason_codes": ["KILL_SWITCH"]}),
                                  named("x", "ok", service_kind=[["ok"]])])
def test_a_service_that_answers_nonsense(served: Any, capsys: pytest.CaptureFixture[str], body: bytes) -> None:
    """UNKNOWN, never trusted and never an exception; what it broke is said."""
    code, told = asked(capsys, f"--url=x={served(says(body))}")
    assert code == 1 and told["floor"]["state"] == "UNKNOWN" and told["services"][0]["online"] is True
    assert told["findings"].get("x") or b"somebody_else" in body


def test_a_lie_is_shown_beside_the_floor(served: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A service that says OK with its kill switch pressed: the floor repeats what it says, and the command fails."""
    safety = {"kill_switch": True, "safe_to_run_strategies": True, "gating_reasons": []}
    code = main(["floor", f"--url=x={served(says(named('x', 'ok', safety=safety)))}"])
    shown = capsys.readouterr().out
    assert code == 1 and "Trading floor: OK" in shown and "x breaks its contract" in shown and "[STATE]" in shown


def test_nothing_foreign_reaches_the_terminal(served: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Codes are the service's own texts, names the user's: neither moves the cursor."""
    body = named("x", "ok", status={"state": "HALTED", "summary": "\x1b[2J\nOK", "reason_codes": ["\x1b[2J\nOK"],
                                    "last_updated_utc": "2026-01-07T12:00:00Z"})
    assert main(["floor", f"--url=x={served(says(body))}", "--url=y\x1b[31m=http://127.0.0.1:1"]) == 1
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("pairs", [[], ["x"], ["=http://a"], ["x=ftp://a"], ["x=http://a", "x=http://b"],
                                   [f"s{number}=http://a" for number in range(65)]])
def test_whom_to_ask_must_be_clear(pairs: list[str]) -> None:
    """Nobody, too many, twice the same, and what is no name and address are refused."""
    with pytest.raises(UsageError):
        floor.whom(pairs, None)


def test_the_services_of_a_held_stack(tmp_path: Path) -> None:
    """Where they listen stands in the run folder; a folder that says nothing is refused, and so is a run in which nothing
    listens."""
    ran = build(read(REPOSITORY / "fixtures/recordings/lawful/market_data_stale.yaml"), tmp_path / "ran")
    with pytest.raises(UsageError, match="a run of the world sim, where nothing listens; expected one that `run --hold`"):
        floor.held(ran)
    assert floor.named(["x=http://a:1", "y=http://a:2/deep/ops"]) == {"x": "http://a:1/ops/status", "y": "http://a:2/deep/ops"}
    with pytest.raises(UsageError):
        floor.held(tmp_path)
    (tmp_path / "versions.json").write_text('{"ports": {}}')
    with pytest.raises(UsageError):
        floor.held(tmp_path)
