"""``drillproof doctor`` says ok only of what answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import doctor


def server(folder: Path, script: str) -> str:
    file = folder / "toxiproxy-server"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize(("script", "state", "said"), [
    ("echo toxiproxy-server version 2.12.0", "ok", "toxiproxy-server version 2.12.0"),
    ("echo toxiproxy-server version 2.10.0", "missing", "was measured with 2.12.0"),
    ("exit 1", "missing", "ended with code 1"),
    ("echo cannot execute >&2; exit 126", "missing", "ended with code 126: cannot execute"),
    ("echo toxiproxy-server version 2.12.0; exit 1", "missing", "ended with code 1"),
    ("exit 0", "missing", "told no version"),
    ("sleep 30", "missing", "did not answer within 1 s"),
])
def test_a_toxiproxy_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, state: str, said: str) -> None:
    """A file that may be executed is not yet a server; without one the world local has none either."""
    monkeypatch.setenv("DRILLPROOF_TOXIPROXY", server(tmp_path, script))
    monkeypatch.setattr(doctor, "ANSWERS_S_MAX", 1, raising=False)
    proxy = doctor._toxiproxy()
    assert (proxy.state, said in proxy.found, bool(proxy.remedy)) == (state, True, state != "ok"), proxy
    local = next(each for each in doctor._worlds(proxy) if each.what == "world local")
    assert state == "ok" or local.state == "missing"
