"""A Toxiproxy that answers 500, hangs, dies, answers late or in no JSON, is another version, or accepts a toxic without
applying it and reads it back all the same; toxics and proxies that somebody else adds and deletes meanwhile: never PASS.
"""

from __future__ import annotations

import sys
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from attack_kit import (
    FULL,
    ROOT,
    Attacked,
    Report,
    begin,
    complaints,
    drill,
    eventually,
    need_toxiproxy,
    recording,
    side_by_side,
)

from harness.world.real import setup

LIAR = Path(__file__).parent / "liar.py"
TOY = ("--stack", str(ROOT / "tests" / "worlds" / "toy" / "stack.yaml"), "--policy", "toy")

def attacked_by(place: Path, way: str, *arguments: str) -> Attacked:
    """A run that finds a server of that way of lying where set-up puts the real one."""
    real, folder = need_toxiproxy(), place / "bin"
    folder.mkdir(parents=True)
    file = folder / setup.EXECUTABLE
    file.write_text(f'#!/bin/sh\nexec {sys.executable} {LIAR} {real} {way} "$@"\n')
    file.chmod(0o755)
    return begin(place, "run", *arguments, "--world", "local", "--json", more={"DRILLPROOF_TOXIPROXY": str(file)})


def verdict(made: Attacked) -> dict[str, Any]:
    """What the run itself recorded."""
    return orjson.loads((made.runs[0] / "verdict.json").read_bytes())


def premises(made: Attacked) -> dict[str, str]:
    return {each["id"]: each["verdict"] for each in verdict(made)["premises"]}


WAYS: dict[str, tuple[str, str]] = {
    "pretends": ("completed", "landed:feed: the fault was not seen to land"),
    "half": ("completed", "landed:feed: the fault was not seen to land"),
    "ignores": ("aborted", "accepted by Toxiproxy, but not there when read back"),
    "error": ("aborted", "500"),
    "errors": ("aborted", "500"),
    "hang": ("aborted", "no end within"),
    "dies": ("aborted", "oxiproxy"),
    "garbage": ("aborted", "Toxiproxy"),
    "other": ("refused", "says that it is Toxiproxy 2.4.0"),
    "split": ("aborted", "says that it is 2.4.0, its executable 2.12.0"),
}
"""Way of lying → what becomes of the run, and the words that say why."""


def lied_to(place: Path, way: str, report: Report) -> None:
    made = attacked_by(place, way, drill("short_stall"))
    code, (status, words) = made.wait(), WAYS[way]
    wrong = list(complaints(made))
    told = orjson.loads(made.told)["drills"][0] if made.told else {"status": "?", "verdict": "?", "says": []}
    if code == 0 or told["verdict"] in ("PASS", "FAIL"):
        wrong.append(f"a lie came to {told['verdict']}, code {code}")
    if told["status"] != status or not any(words in each for each in told["says"]):
        wrong.append(f"{told['status']}: {told['says'][:3]}")
    came_of = f"{told['status']}, {told['verdict']}, code {code}"
    report.add(f"Toxiproxy {way}", f"WRONG: {'; '.join(wrong)}" if wrong else came_of)
    assert not wrong, f"{way}: {'; '.join(wrong)}\n{made.said.decode()[-1500:]}"


SHARE = ("pretends", "half", "garbage", "split")


@pytest.mark.timeout(600)
def test_a_proxy_that_lies_never_passes(tmp_path: Path) -> None:
    """End to end, in every way that is known to us; what a server merely pretends, the link's own counters refute."""
    report = Report("lied to")
    try:
        side_by_side([partial(lied_to, tmp_path / way, way, report) for way in (WAYS if FULL else SHARE)])
    finally:
        report.show()


@pytest.mark.skipif(not FULL, reason="the quick share has its fairness from the effects: part of `make attack`")
def test_the_liar_is_fair(tmp_path: Path) -> None:
    """Without a lie, and even when each answer of the server comes late, the same drill is no failure: it is the lies that
    are caught."""
    honest = attacked_by(tmp_path / "honest", "honest", drill("short_stall"))
    slow = attacked_by(tmp_path / "slow", "slow", drill("short_stall"))
    assert honest.wait() == 0, honest.said.decode()
    assert slow.wait() in (0, 3), slow.said.decode()
    assert verdict(slow)["status"] == "completed" and verdict(slow)["verdict"] in ("PASS", "INCONCLUSIVE")


@pytest.mark.timeout(300)
def test_every_effect_is_seen_through(tmp_path: Path) -> None:
    """Each effect of a link, and each toxic: with the real server it is seen to land, with one that takes it, reads it back
    and passes the traffic it is not; also on a link of short connections, that end by themselves all the time."""
    begun = {(way, name): attacked_by(tmp_path / f"{way}-{name}", way, drill(name), *TOY)
             for way in ("honest", "pretends") for name in (("toy_wire", "toy_rest") if FULL else ("toy_wire",))
             if (way, name) != ("honest", "toy_rest")}
    seen = {key: landed(made) for key, made in begun.items()}
    honest, attempts = seen["honest", "toy_wire"], 1
    while set(honest.values()) != {"PASS"} and attempts < ATTEMPTS_MAX:
        honest = landed(attacked_by(tmp_path / f"honest-{attempts}", "honest", drill("toy_wire"), *TOY))
        attempts += 1
    assert len(honest) == 15
    assert set(honest.values()) == {"PASS"}, honest
    for (way, name), words in seen.items():
        if way == "pretends":
            assert set(words.values()) == {"INCONCLUSIVE"}, (name, words)
    print(f"\neffects: {sum(map(len, seen.values()))} faults; landed only where they were applied; "
          f"the honest server was asked {attempts} times")


ATTEMPTS_MAX = 3
"""A machine that other campaigns keep busy begins and heals late, and a fault that stood too short proves nothing."""


def landed(made: Attacked) -> dict[str, str]:
    """What became of each fault, when the run has ended."""
    made.wait()
    assert verdict(made)["status"] == "completed", made.said.decode()
    return {id: word for id, word in premises(made).items() if id.startswith("landed:")}


# ---- somebody else's hand ----------------------------------------------------------------------------------


def ask(made: Attacked, method: str, path: str, body: object = None) -> Any:
    """Somebody else's call of the run's own server."""
    (server,) = made.of(b"toxiproxy-server", b"-port")[:1]
    words = Path(f"/proc/{server}/cmdline").read_bytes().split(b"\0")
    port = int(words[words.index(b"-port") + 1])
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", orjson.dumps(body) if body is not None else None,
                                     method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        data = answer.read()
        return orjson.loads(data) if data else None


FOREIGN = {"name": "foreign", "type": "latency", "stream": "downstream", "attributes": {"latency": 300}}
NEW = {"name": "x", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:9"}
HANDS: dict[str, tuple[Callable[[Attacked], Any], str]] = {
    "adds a toxic": (lambda made: ask(made, "POST", "/proxies/orders/toxics", FOREIGN), "the toxics of the proxy orders"),
    "deletes a proxy": (lambda made: ask(made, "DELETE", "/proxies/orders"), "the proxy orders is gone"),
    "removes our toxic": (lambda made: ask(made, "DELETE", "/proxies/market_data/toxics/feed.downstream"),
                          "the toxics of the proxy market_data"),
    "changes our toxic": (lambda made: ask(made, "POST", "/proxies/market_data/toxics/feed.downstream",
                                           {"attributes": {"latency": 1}}), "the toxics of the proxy market_data"),
    "switches a proxy off": (lambda made: ask(made, "POST", "/proxies/rest", {"enabled": False}), "enabled of the proxy rest"),
    "adds a proxy": (lambda made: ask(made, "POST", "/proxies", NEW), "a proxy x that is none of ours"),
    "resets everything": (lambda made: ask(made, "POST", "/reset"), "the toxics of the proxy market_data"),
}
FAULT_STANDS_S = 1.0
HANDS_SHARE = ("adds a toxic", "deletes a proxy")


def meddled_with(place: Path, how: str, report: Report) -> None:
    made = begin(place, "run", drill("short_stall"), "--world", "local")
    assert eventually(lambda: b"fault on: feed" in made.said or made.process.poll() is not None, 100)
    time.sleep(FAULT_STANDS_S)
    deed, words = HANDS[how]
    deed(made)
    code = made.wait()
    wrong = list(complaints(made))
    if code != 3 or words.encode() not in made.said or b"somebody else changed Toxiproxy" not in made.said:
        wrong.append(f"code {code}")
    if not recording(made.runs[0]):
        wrong.append("no recording")
    if (told := verdict(made)["verdict"]) != "INCONCLUSIVE":
        wrong.append(f"{told}: what that hand did was held against the system")
    report.add(f"somebody {how}", f"WRONG: {'; '.join(wrong)}" if wrong else f"ended with {code}, by name")
    assert not wrong, f"{how}: {'; '.join(wrong)}\n{made.said.decode()[-1500:]}"


@pytest.mark.timeout(600)
def test_somebody_elses_hand_is_seen(tmp_path: Path) -> None:
    """A toxic, a proxy or a reset that is none of ours ends the run with its name, and never passes."""
    need_toxiproxy()
    report = Report("meddled with")
    try:
        side_by_side([partial(meddled_with, tmp_path / str(n), how, report)
                      for n, how in enumerate(HANDS if FULL else HANDS_SHARE)])
    finally:
        report.show()
