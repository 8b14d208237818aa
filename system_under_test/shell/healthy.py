"""``python -m system_under_test.shell.healthy``: the health check of the image, asked inside the node's container.

NODE_READY names where the node says that it serves, as ``<port>:<path>`` (``control_plane:/api/v1/health``); the port's
number is that of its ``<PORT>_LISTEN``. A node without it listens on nothing, and is healthy while it runs. Exit 0 or 1.
"""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Mapping

ANSWERS_S_MAX = 2.0


def ailment(environment: Mapping[str, str]) -> str | None:
    """Why the node is not healthy, or None."""
    port, _, path = environment.get("NODE_READY", "").partition(":")
    if not port:
        return None
    number = environment.get(f"{port.upper()}_LISTEN", "").rpartition(":")[2]
    if not number.isdigit():
        return f"NODE_READY names the port {port!r}, and there is no {port.upper()}_LISTEN with a number"
    asked = http.client.HTTPConnection("127.0.0.1", int(number), timeout=ANSWERS_S_MAX)
    try:
        asked.request("GET", path or "/")
        status = asked.getresponse().status
    except (OSError, http.client.HTTPException) as why:
        return f"{port} does not answer: {why}"
    finally:
        asked.close()
    return None if status == 200 else f"{port} answers {status}"


def main() -> int:
    if why := ailment(os.environ):
        print(why)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
