"""``drillproof init``: what it writes passes ``check``, it overwrites nothing in silence, and it says what it assumed."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cli import main

URL = "http://127.0.0.1:1/health"
"""Nobody listens on port 1."""


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def init(*options: str, command: str | None = "./router") -> int:
    return main(["init", *(["--command", command] if command else []), "--status-url", URL, *options])


@pytest.mark.parametrize("options", [
    (), ("--steady", "mode=running"), ("--steady", "ready=true", "--steady", "queue.depth=0", "--safe", "mode=no"),
    ("--upstream", "127.0.0.1:5432"), ("--upstream", "quotes=http://localhost:9100", "--upstream", "db=127.0.0.1:5432"),
    ("--upstream", "quotes=ws://127.0.0.1:9100", "--safe", "mode=halted"), ("--name", "my_router", "--listen-env", "ADDR")])
def test_what_it_writes_passes_check(options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is known of a system: three files, and ``check`` without a word more takes them."""
    assert init(*options) == 0
    assert "drillproof check" in capsys.readouterr().out
    assert main(["check"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_an_image_and_what_it_dials(capsys: pytest.CaptureFixture[str]) -> None:
    """The stack of an image passes ``check``, runs in docker, and says so of the other worlds."""
    assert init("--image", "registry.example.org/router:1.2", "--upstream-image", "quotes=http://order-quotes:2.0:9100",
                command=None) == 0
    text = Path("stack.yaml").read_text()
    assert '"order-quotes:2.0"' in text and "to: quotes.http" in text
    assert "drillproof run --world docker" in capsys.readouterr().out
    assert main(["check"]) == 0
    for world in ("local", "sim"):
        assert main(["run", "--world", world]) == 3
        assert "router, quotes of stack.yaml has none; --world docker" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "node"), [
    ("./router -v", "router"), ("python3 ../src/my-app.py {port:http}", "my_app"), ("'{python}' -m app", "python"),
    ("java -jar lib/Trader.jar", "trader"), ("/opt/x/run.sh a.cfg", "run"), ("./7", "system")])
def test_a_node_is_named_after_what_runs(command: str, node: str) -> None:
    """Of an interpreter, after the file that it is given."""
    assert init(command=command) == 0
    assert f"stack: {node}\n" in Path("stack.yaml").read_text()


def test_words_of_a_command_stay_words() -> None:
    """A command is read as a shell reads it, and what YAML would take for something else stays text."""
    assert init(command="./run 'a b' --flag=no no 7 {port:http}") == 0
    assert 'command: [./run, "a b", "--flag=no", "no", "7", "{port:http}"]' in Path("stack.yaml").read_text()
    assert main(["check"]) == 0


def test_nothing_is_overwritten_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is there is named, and stays as it is until ``--force``."""
    Path("stack.yaml").write_text("mine\n")
    assert init() == 2
    assert "stack.yaml: is there already; --force" in capsys.readouterr().err
    assert Path("stack.yaml").read_text() == "mine\n" and not Path("drills").exists()
    assert init("--force") == 0 and main(["check"]) == 0


@pytest.mark.parametrize(("options", "said"), [
    (("--command", ""), "--command: found nothing"),
    (("--command", "'"), "--command: found \"'\""),
    (("--command", "./x {port:api}"), "asks for the port 'api', which is not its own; known: http"),
    (("--command", "./x", "--status-url", "https://example.org/health"), "--status-url: found"),
    (("--command", "./x", "--status-url", "http://127.0.0.1:x/"), "--status-url: found"),
    (("--command", "./x", "--upstream", "quotes=10.0.0.7:9100"), "--upstream: found 'quotes=10.0.0.7:9100'"),
    (("--command", "./x", "--upstream", "quotes=127.0.0.1:0"), "--upstream: found"),
    (("--command", "./x", "--upstream", "Q Q=127.0.0.1:9"), "--upstream: found 'Q Q'"),
    (("--command", "./x", "--upstream", "q=127.0.0.1:9", "--upstream", "q=127.0.0.1:8"), "twice"),
    (("--command", "./x", "--upstream-image", "q=i:9"), "--upstream-image: beside a command"),
    (("--image", "i", "--upstream", "q=127.0.0.1:9"), "--upstream: a container reaches nothing"),
    (("--image", "i i"), "--image: found"),
    (("--command", "./x", "--steady", "mode"), "--steady: found 'mode'"),
    (("--command", "./x", "--safe", "=x"), "--safe: found"),
    (("--command", "./x", "--name", "A B"), "--name: found"),
    (("--command", "./x", "--listen-env", "A-B"), "--listen-env: found"),
])
def test_what_makes_no_drill_is_refused(options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that says what was found and what was expected, exit code 2, and no file."""
    given = options if "--status-url" in options else (*options, "--status-url", URL)
    assert main(["init", *given]) == 2
    told = capsys.readouterr().err
    assert said in told and told.startswith("drillproof: ") and len(told.splitlines()) == 1
    assert list(Path().iterdir()) == []


def test_usage() -> None:
    """Neither or both of command and image is wrong usage."""
    for options in (["--status-url", URL], ["--command", "x", "--image", "y", "--status-url", URL], ["--command", "x"]):
        with pytest.raises(SystemExit) as ended:
            main(["init", *options])
        assert ended.value.code == 2


@pytest.fixture
def answering() -> Iterator[tuple[str, list[str]]]:
    """A status URL where somebody answers, and what was asked there."""
    asked: list[str] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 (its name in the standard library)
            asked.append(self.path)
            body = json.dumps({"uptime_s": 7, "healthy": True, "state": "serving", "parts": {}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/health?full=1", asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_it_looks_once_where_somebody_answers(answering: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    """The steady state is then proposed by what was told, and called a guess."""
    url, asked = answering
    assert main(["init", "--command", "./x", "--status-url", url]) == 0
    assert asked == ["/health?full=1"]
    assert "is a guess" in capsys.readouterr().out
    assert "given: {status: {state: serving}, for: 1s, within: 30s}" in Path("drills/0_steady_state.yaml").read_text()
    assert "status: {uptime_s: {rises: false}}" in Path("drills/1_x_killed.yaml").read_text()
    assert main(["check"]) == 0
