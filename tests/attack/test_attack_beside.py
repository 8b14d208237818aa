"""Many runs side by side on one machine, in one clone and in several: no shared port, file, proxy or verdict."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations
from pathlib import Path

import orjson
import pytest
from attack_kit import (
    FULL,
    ROOT,
    Attacked,
    Report,
    begin,
    drill,
    environment,
    left_behind,
    need_toxiproxy,
    recording,
    run,
    verdicts,
)

from harness.pack.runlog import attempts, verify_runlog

AT_ONCE = 10 if FULL else 4
MAIN_JOB_S_MAX = 1_500
"""54 drills and 198 sabotages, of which there are two at once."""
SIM_DRILLS = ("2_market_data_stale", "12_exchange_maintenance")

RESERVE = """
import sys
from harness.world.real import ports
ports._candidates = lambda: range(int(sys.argv[1]), int(sys.argv[2]))
mine = ports.Ports()
print(*[mine.reserve() for _ in range(int(sys.argv[3]))], flush=True)
sys.stdin.read()
"""
PORTS_EACH, RESERVERS, FIRST_PORT = 6, 4, 11_000


def test_no_port_is_given_twice(tmp_path: Path) -> None:
    """Processes that share neither a parent nor a folder for temporary files, out of a range that just suffices."""
    spare = PORTS_EACH  # a port of the range may be taken by a stranger
    wanted = [str(FIRST_PORT), str(FIRST_PORT + PORTS_EACH * RESERVERS + spare), str(PORTS_EACH)]
    asked = [subprocess.Popen([sys.executable, "-c", RESERVE, *wanted], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              env=environment(tmp_path / str(n))) for n in range(RESERVERS)]
    try:
        given = [int(port) for each in asked for port in (each.stdout.readline().split() if each.stdout else ())]
    finally:
        for each in asked:
            each.communicate()
    assert len(given) == len(set(given)) == PORTS_EACH * RESERVERS


def content(folder: Path) -> bytes:
    return orjson.dumps(recording(folder), option=orjson.OPT_SORT_KEYS)


@pytest.mark.timeout(300)
def test_equal_runs_of_the_sim_side_by_side(tmp_path: Path) -> None:
    """The very same runs, asked for at once with one evidence folder: each command has its verdict, the folder holds one
    whole recording, and the run log tells of every one."""
    place = tmp_path / "one"
    made = [begin(place, "run", *SIM_DRILLS, "--world", "sim", "--json") for _ in range(AT_ONCE)]
    elsewhere = begin(tmp_path / "other", "run", *SIM_DRILLS, "--world", "sim", "--json")
    codes = [each.wait() for each in (*made, elsewhere)]
    assert codes == [0] * (AT_ONCE + 1), [each.said.decode()[-500:] for each in made if each.code]
    assert {tuple(verdicts(each).values()) for each in made} == {("PASS", "PASS")}
    assert verify_runlog(place / "evidence" / "runs.jsonl") == []
    told = attempts((place / "evidence" / "runs.jsonl").read_bytes().splitlines())
    assert len(told) == AT_ONCE * len(SIM_DRILLS) and all(each.verdict == "PASS" for each in told)
    assert [each.name for each in made[0].runs] == [each.name for each in elsewhere.runs]
    for here, there in zip(made[0].runs, elsewhere.runs, strict=True):
        assert content(here) == content(there)
        assert run(place, "judge", str(here)).code == 0
    print(f"\nside by side, sim: {AT_ONCE} equal commands, {len(told)} runs, {len(made[0].runs)} recordings")


def ports_of(folder: Path) -> set[int]:
    return set(orjson.loads((folder / "versions.json").read_bytes())["world"]["ports"].values())


@pytest.mark.timeout(600)
def test_local_runs_side_by_side(tmp_path: Path) -> None:
    """Real stacks at once, some in one evidence folder and some in their own: no port, process or proxy is shared, and no
    verdict is wrong; what a busy machine made inconclusive says so."""
    need_toxiproxy()
    places = [tmp_path / ("shared" if n % 2 else str(n)) for n in range(AT_ONCE)]
    made: list[Attacked] = [begin(place, "run", drill("short_stall"), "--world", "local", "--json") for place in places]
    report = Report("side by side, local")
    for n, each in enumerate(made):
        code = each.wait()
        report.add(str(n), f"{', '.join(verdicts(each).values())}, code {code}")
    report.show()
    for each in made:
        assert set(verdicts(each).values()) <= {"PASS", "INCONCLUSIVE"} and each.code in (0, 3), each.said.decode()[-1500:]
    runs = sorted({folder for each in made for folder in each.runs})
    assert len(runs) == AT_ONCE
    for one, two in combinations(runs, 2):
        assert not ports_of(one) & ports_of(two), (one, two)
    for place in set(places):
        assert left_behind(place, 5) == []
        assert verify_runlog(place / "evidence" / "runs.jsonl") == []


@pytest.mark.timeout(2 * MAIN_JOB_S_MAX)
@pytest.mark.skipif(not FULL, reason="two whole main jobs take minutes: part of `make attack`")
def test_two_main_jobs_in_one_clone(tmp_path: Path) -> None:
    """`make drills` twice at once (in the sim, so that it is about files): each packs, verifies and decides for itself; the
    gate stays closed for the sim, and no pack is refused or altered."""
    made = [begin(tmp_path, "--world", "sim", "--out", str(tmp_path / "evidence"), module="harness.mainjob")
            for _ in range(2)]
    for each in made:
        assert each.wait(MAIN_JOB_S_MAX) == 1, each.said.decode()[-1500:] + each.told.decode()[-1500:]
        assert b": intact." in each.told and b"The gate is closed" in each.told
    out = tmp_path / "evidence"
    assert verify_runlog(out / "runs.jsonl") == []
    packs = sorted(out.glob("phase2*"))
    assert len(packs) == len(made)
    for pack in packs:
        assert run(tmp_path, "verify", str(pack)).code == 0, pack
    print(f"\nmain jobs at once: {len(made)}, packs intact: {len(packs)}")
