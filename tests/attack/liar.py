"""A hostile Toxiproxy: it forwards every byte through the real server, and lies in its API.

    liar.py REAL WAY [the server's own flags]

Everything that is not lied about is handed on to the real server, which runs behind it.

| way       | what it does                                                                            |
|-----------|-----------------------------------------------------------------------------------------|
| honest    | nothing: every call is handed on                                                         |
| pretends  | takes toxics, and proxies switched off, reads them back as set, and lets traffic pass    |
| ignores   | takes toxics and forgets them                                                            |
| half      | sets a toxic, reads it back, and takes it away again 400 ms later behind everybody's back |
| error     | answers 500 to the setting of a toxic                                                    |
| errors    | answers 500 to everything once a toxic is asked for                                      |
| hang      | never answers the setting of a toxic                                                     |
| dies      | ends when a toxic is asked for                                                           |
| slow      | answers everything 250 ms late                                                           |
| garbage   | answers with no JSON once a toxic is asked for                                           |
| other     | says of itself that it is version 2.4.0                                                  |
| split     | says another version on the wire than on its command line                                |
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REAL, WAY = sys.argv[1:3]
PR_SET_PDEATHSIG = 1
LATE_S, HALF_S, HANG_S = 0.25, 0.4, 30.0

toxics: dict[str, dict[str, Any]] = {}
disabled: set[str] = set()
troubled = threading.Event()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def behind(method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """What the real server answers."""
    asked = http.client.HTTPConnection("127.0.0.1", PORT_BEHIND, timeout=5)
    asked.request(method, path, body)
    answer = asked.getresponse()
    return answer.status, answer.read()


def pretended(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
    """The lie about this call, or None for the truth."""
    many, one = re.fullmatch(r"/proxies/([^/]+)/toxics", path), re.fullmatch(r"/proxies/([^/]+)/toxics/([^/]+)", path)
    proxy = re.fullmatch(r"/proxies/([^/]+)", path)
    if many and method == "POST":
        made = json.loads(body)
        toxics.setdefault(many[1], {})[made["name"]] = made
        return 200, body
    if many:
        return 200, json.dumps(list(toxics.get(many[1], {}).values())).encode()
    if one and method == "DELETE":
        toxics.get(one[1], {}).pop(one[2], None)
        return 204, b""
    if proxy and method in ("POST", "PATCH") and "enabled" in (asked := json.loads(body)):
        (disabled.discard if asked["enabled"] else disabled.add)(proxy[1])
        return 200, json.dumps(shown(json.loads(behind("GET", path)[1]))).encode()
    if path == "/proxies" and method == "GET":
        return 200, json.dumps({name: shown(each) for name, each in json.loads(behind("GET", path)[1]).items()}).encode()
    if proxy and method == "GET":
        return 200, json.dumps(shown(json.loads(behind("GET", path)[1]))).encode()
    return None


def shown(proxy: dict[str, Any]) -> dict[str, Any]:
    return {**proxy, "enabled": proxy["name"] not in disabled, "toxics": list(toxics.get(proxy["name"], {}).values())}


def taken_away(path: str, body: bytes) -> tuple[int, bytes]:
    """Set and read back, and soon gone in truth."""
    answer = behind("POST", path, body)
    name = json.loads(body)["name"]
    threading.Timer(HALF_S, lambda: behind("DELETE", f"{path}/{name}")).start()
    pretended("POST", path, body)
    return answer


def answer(method: str, path: str, body: bytes) -> tuple[int, bytes]:
    """By the way of lying."""
    setting = method == "POST" and path.endswith("/toxics")
    if setting:
        troubled.set()
    if WAY == "slow":
        time.sleep(LATE_S)
    if WAY == "pretends" and (lie := pretended(method, path, body)):
        return lie
    if WAY == "half":
        if setting:
            return taken_away(path, body)
        if "/toxics" in path and (lie := pretended(method, path, body)):
            return lie
        if path == "/proxies" and method == "GET":
            return pretended(method, path, body) or (500, b"")
    if WAY == "ignores" and setting:
        return 200, body
    if WAY == "error" and setting or WAY == "errors" and troubled.is_set():
        return 500, b'{"error": "no"}'
    if WAY == "hang" and setting:
        time.sleep(HANG_S)
    if WAY == "dies" and setting:
        os._exit(3)
    if WAY == "garbage" and troubled.is_set():
        return 200, b"<html>\x1b[31m</script>"
    if WAY in ("other", "split") and path == "/version":
        return 200, b'{"version": "2.4.0"}'
    return behind(method, path, body)


class Front(BaseHTTPRequestHandler):
    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, data = answer(self.command, self.path, body)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    do_GET = do_POST = do_DELETE = do_PATCH = serve

    def log_message(self, *_: Any) -> None:
        return


if __name__ == "__main__":
    if "-version" in sys.argv:
        if WAY == "other":
            print("toxiproxy-server version 2.4.0")
            sys.exit(0)
        sys.exit(subprocess.run([REAL, "-version"]).returncode)
    PORT_BEHIND = free_port()
    server = subprocess.Popen([REAL, "-host", "127.0.0.1", "-port", str(PORT_BEHIND)],
                              preexec_fn=lambda: ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", PORT_BEHIND), 0.1).close()
            break
        except OSError:
            time.sleep(0.01)
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("-port") + 1])), Front).serve_forever()
