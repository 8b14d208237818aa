"""The verdict as a whole: from disk alone, the same bytes again, and never better for something missing."""

from __future__ import annotations

import ast
import gc
import gzip
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from harness.errors import UsageError
from harness.recording import script
from harness.recording.tape import canonical
from harness.recording.timeline import Timeline
from harness.verdict import invariants
from harness.verdict.check import FAIL, INCONCLUSIVE, PASS, guarded, passed, worst
from harness.verdict.judge import judge, verdict_bytes

ROOT = Path(__file__).parents[2]
LAWFUL = ROOT / "fixtures" / "recordings" / "lawful" / "market_data_stale.yaml"
STATE_FILES = ROOT / "fixtures" / "recordings" / "lawful" / "state_files.yaml"


def lawful(folder: Path, **changes: Any) -> Path:
    return script.build({**script.read(LAWFUL), **changes}, folder)


def judged_elsewhere(folder: Path, seed: str) -> bytes:
    """The verdict of another process, with a hash seed of its own and another current directory."""
    code = ("import sys; from pathlib import Path; from harness.verdict.judge import judge, verdict_bytes; "
            "sys.stdout.buffer.write(verdict_bytes(judge(Path(sys.argv[1]), Path(sys.argv[2]))))")
    return subprocess.run([sys.executable, "-c", code, str(folder), str(ROOT)], capture_output=True, timeout=60, check=True,
                          cwd=folder.parent, env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}).stdout


def test_judging_again_gives_the_same_bytes(tmp_path: Path) -> None:
    """In this process, and in two others with different hash seeds and another current directory."""
    folder = lawful(tmp_path / "run")
    here = verdict_bytes(judge(folder, ROOT))
    assert verdict_bytes(judge(folder, ROOT)) == here
    for seed in ("1", "2"):
        assert judged_elsewhere(folder, seed) == here


def test_of_several_keys_that_differ_at_once_the_same_one_is_named(tmp_path: Path) -> None:
    """Six positions without an entry in the ledger, all of them too long: two hash seeds would hardly begin with one."""
    told = script.read(STATE_FILES)
    one = told["documents"]["positions_state"]["start"]["positions"][0]
    several = [{**one, "symbol": name} for name in ("EEE", "BBB", "FFF", "AAA", "DDD", "CCC")]
    told["documents"]["positions_state"]["changes"] = [{"at": 6400, "set": {"positions": several}}]
    folder = script.build(told, tmp_path / "run")
    first, second = judged_elsewhere(folder, "1"), judged_elsewhere(folder, "2")
    assert first == second
    law = next(each for each in orjson.loads(first)["laws"] if each["id"] == "positions_in_the_ledger")
    assert law["verdict"] == FAIL and "'AAA:SHORT'" in law["says"]


def test_a_judged_recording_leaves_memory_by_itself(tmp_path: Path) -> None:
    """Judging builds no cycle, so it needs no collector: what was read is gone with the verdict."""
    folder = script.build(script.read(STATE_FILES), tmp_path / "run")
    judge(folder, ROOT)
    gc.collect()
    gc.disable()
    try:
        before = timelines_alive()
        judge(folder, ROOT)
        assert timelines_alive() == before
    finally:
        gc.enable()


def timelines_alive() -> int:
    return sum(type(each) is Timeline for each in gc.get_objects())


def test_the_verdict_has_its_fields(tmp_path: Path) -> None:
    """Each check says one sentence; the shape is the one that packs and gates read."""
    verdict = judge(lawful(tmp_path / "run"), ROOT)
    assert set(verdict) == {"format", "drill", "world", "placebo", "status", "verdict", "premises", "promises", "laws",
                            "golden", "time_to_safe_ms", "samples", "limits"}
    for part in ("premises", "promises", "laws"):
        for each in verdict[part]:
            assert set(each) == {"id", "verdict", "says", "at", "details"}
            assert each["says"] and "\n" not in each["says"]
    assert verdict["samples"] == {"status": {"answered": 324, "silent": 0, "raw": 0}}
    assert orjson.loads(verdict_bytes(verdict)) == verdict


def test_time_to_safe_counts_from_the_fault_to_the_latest_moment(tmp_path: Path) -> None:
    """The first blocking sample that lasts, or the last accepted opening order, whichever is later; both bounds."""
    told = script.read(LAWFUL)
    assert judge(lawful(tmp_path / "a"), ROOT)["time_to_safe_ms"] == {"upper": 3004, "lower": 2940}
    late = {**next(row for row in told["streams"]["books"] if row.get("opening")), "at": 7800, "order_id": "late"}
    books = [*told["streams"]["books"], late]
    found = judge(lawful(tmp_path / "b", streams={**told["streams"], "books": books}), ROOT)["time_to_safe_ms"]
    assert found["upper"] == pytest.approx(3200, abs=2) and found["lower"] == pytest.approx(3190, abs=2)


def test_each_trouble_has_its_own_time_to_safe(tmp_path: Path) -> None:
    """A fault long after another was healed is measured from its own begin; one that touches it is the same trouble."""
    told = script.read(LAWFUL)
    told["drill"] = told["drill"].replace(
        "faults:\n", "faults:\n  before: {at: 0s, for: 1s, stall: {link: rest, toward: client}}\n")
    far = {**told["marks"], "before": [4600, 4600], "before.healed": [5000, 5000], "feed": [6600, 6610]}
    near = {**far, "before.healed": [6300, 6300]}
    found = [judge(lawful(tmp_path / name, drill=told["drill"], marks=marks), ROOT)["time_to_safe_ms"]["upper"]
             for name, marks in (("far", far), ("near", near))]
    assert found == [1004, 3004]


def test_a_fault_that_strikes_while_another_stands_is_counted_too(tmp_path: Path) -> None:
    """The trouble was over soon for the first of them, and neither stretch of blocking lasts: the second one's was longer."""
    told = script.read(LAWFUL)
    told["drill"] = told["drill"].replace(
        "faults:\n", "faults:\n  stands: {at: 0s, for: 6s, stall: {link: rest, toward: client}}\n")
    told["marks"] |= {"stands": [4600, 4600], "stands.healed": [10600, 10600], "feed": [6600, 6610]}
    changes = told["documents"]["status"]["changes"]
    latched, active = changes[1:]
    changes[1:] = [{**latched, "at": 4700}, {**active, "at": 5500}, {**latched, "at": 7600}, {**active, "at": 10_000}]
    assert judge(script.build(told, tmp_path / "run"), ROOT)["time_to_safe_ms"]["upper"] == 1004


def test_a_killed_node_opens_nothing(tmp_path: Path) -> None:
    """While a declared kill keeps it down it is safe, also when nobody hears of it before everything is healed."""
    told = script.read(LAWFUL.with_name("killed_and_started_again.yaml"))
    told["marks"] |= {"feed": [7000, 7010], "feed.healed": [8600, 8650], "healed": [8650, 8650]}
    told["silence"] = [{"surface": "status", "from": 7050, "to": 8650, "why": "down"}]
    assert judge(script.build(told, tmp_path / "run"), ROOT)["time_to_safe_ms"]["upper"] == 10


def test_without_blocking_there_is_no_time_to_safe(tmp_path: Path) -> None:
    """A system that never blocked was never seen safe."""
    told = script.read(LAWFUL)
    told["documents"]["status"]["changes"] = told["documents"]["status"]["changes"][:1]
    assert judge(script.build(told, tmp_path / "run"), ROOT)["time_to_safe_ms"] == {"upper": None, "lower": None}


@pytest.mark.parametrize(("switches", "verdict"), [
    (("session_end", "too_many_requests"), PASS), (("session_end",), FAIL), (("too_many_requests",), FAIL)])
@pytest.mark.parametrize("law", ["naked_exposure_passes", "reducing_always_possible", "closing_attempts_arrive"])
def test_both_ways_refused_at_once_excuse(law: str, switches: tuple[str, ...], verdict: str, tmp_path: Path) -> None:
    """While one way to the exchange is open a leg can be closed by it, and what became of an order be learned; only both
    refused at once excuse a bare one, and a wish to reduce that led to nothing."""
    told = script.read(LAWFUL.parent.parent / "broken" / f"{law}.yaml")
    faults = "".join(f"  {name}: {{at: 0s, for: 6s, switch: {{node: exchange, name: {name}}}}}\n" for name in switches)
    before, stimuli, after = told["drill"].partition("stimuli:\n")
    told["drill"] = f"{before}{faults}{stimuli}{after}"
    for name in switches:
        told["marks"] |= {name: [4600, 4610], f"{name}.healed": [10600, 10610]}
    found = judge(script.build(told, tmp_path / "run"), ROOT)
    assert {each["id"]: each["verdict"] for each in found["laws"]}[law] == verdict


def test_taking_any_line_away_never_passes(tmp_path: Path) -> None:
    """Removing evidence can only make the verdict worse: forty lines of the tape, one at a time."""
    folder = lawful(tmp_path / "run")
    file = folder / "recording.jsonl.gz"
    lines = gzip.decompress(file.read_bytes()).splitlines(keepends=True)
    kinds = {orjson.loads(line)["line"]: index for index, line in enumerate(lines)}
    chosen = {*kinds.values(), *random.Random(7).sample(range(len(lines)), 12)}
    for index in sorted(chosen):
        file.write_bytes(gzip.compress(b"".join(lines[:index] + lines[index + 1:]), mtime=0))
        assert judge(folder, ROOT)["verdict"] != PASS, orjson.loads(lines[index])["line"]


def test_taking_any_file_away_never_passes(tmp_path: Path) -> None:
    """Without the drill there is nothing to judge by; without anything else it is undecided."""
    folder = lawful(tmp_path / "run")
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        content = file.read_bytes()
        file.unlink()
        if file.name == "drill.yaml":
            with pytest.raises(UsageError, match="no drill to judge by"):
                judge(folder, ROOT)
        else:
            assert judge(folder, ROOT)["verdict"] != PASS, file.name
        file.write_bytes(content)
    assert judge(folder, ROOT)["verdict"] == PASS


def test_taking_any_field_of_a_stream_row_away_never_breaks_the_judge(tmp_path: Path) -> None:
    """Whatever fields rows lack, every check ends in one of its three values without stumbling."""
    told, dice = script.read(LAWFUL), random.Random(3)
    for rows in told["streams"].values():
        for row in rows:
            for field in [name for name in row if name not in ("at", "kind")]:
                if dice.random() < 0.3:
                    del row[field]
    verdict = judge(script.build(told, tmp_path / "run"), ROOT)
    stumbled = [each["says"] for part in ("premises", "promises", "laws") for each in verdict[part]
                if each["says"].startswith("the check itself failed")]
    assert stumbled == []


def test_a_check_that_raises_is_undecided() -> None:
    """It accuses nobody, acquits nobody, and names what it stumbled over."""
    def stumble() -> Any:
        raise KeyError("trade_id")

    check = guarded("law", stumble)
    assert (check.verdict, check.says) == (INCONCLUSIVE, "the check itself failed: KeyError: 'trade_id'")
    assert guarded("law", lambda: passed("fine")).verdict == PASS


def test_merging_takes_the_worst() -> None:
    """PASS < INCONCLUSIVE < FAIL."""
    assert worst([]) == PASS
    assert worst([PASS, INCONCLUSIVE]) == INCONCLUSIVE
    assert worst([INCONCLUSIVE, FAIL, PASS]) == FAIL


def test_a_law_that_stumbles_does_not_silence_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One broken check leaves the rest of the verdict standing."""
    def stumble(case: Any, with_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setitem(invariants._CHECKS, "monotone", stumble)
    verdict = judge(lawful(tmp_path / "run"), ROOT)
    assert verdict["verdict"] == INCONCLUSIVE
    assert {each["id"] for each in verdict["laws"] if each["verdict"] != PASS} == {"counters_monotone", "timestamps_monotone"}


def test_other_rules_judge_otherwise(tmp_path: Path) -> None:
    """The rules come from the folder that is named, not from this checkout."""
    rules = tmp_path / "rules"
    for name in ("specs", "fixtures/status"):
        for file in (ROOT / name).rglob("*"):
            if file.is_file():
                target = rules / file.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
    folder = lawful(tmp_path / "run")
    assert judge(folder, rules)["verdict"] == PASS
    laws = rules / "specs" / "invariants.yaml"
    laws.write_text(laws.read_text().replace("forbidden: [LIVE]", "forbidden: [LIVE, DEV, PAPER]"))
    assert [each["id"] for each in judge(folder, rules)["laws"] if each["verdict"] == FAIL] == ["never_live"]


def test_the_judge_knows_no_world_and_no_system() -> None:
    """harness.verdict imports contracts, drill, recording, errors and limits, and nothing else of ours."""
    allowed = ("harness.contracts", "harness.drill", "harness.recording", "harness.verdict", "harness.errors",
               "harness.limits")
    for file in (ROOT / "harness" / "verdict").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else \
                [f"{node.module}.{each.name}" for each in node.names] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                ours = name.startswith(("harness", "system_under_test"))
                assert not ours or name.startswith(allowed), f"{file.name} imports {name}"


def test_a_long_recording_is_judged_quickly(tmp_path: Path) -> None:
    """A minute at 50 ms: well under a second also on a busy machine."""
    import time

    told = script.read(LAWFUL)
    told["end"], told["marks"]["stopped"] = 60_000, [59_900, 60_000]
    told["documents"]["status"]["follow"] = [key for key in told["documents"]["status"]["start"] if "_ts" in key]
    folder = script.build(told, tmp_path / "run")
    judge(folder, ROOT)
    begin = time.process_time()
    assert judge(folder, ROOT)["verdict"] == PASS
    assert time.process_time() - begin < 1.0


def test_the_head_is_canonical(tmp_path: Path) -> None:
    """Recording contents are equal for equal scripts: what is hashed depends on nothing else."""
    one, two = (gzip.decompress((lawful(tmp_path / each / "run") / "recording.jsonl.gz").read_bytes()) for each in "xy")
    assert one == two
    assert canonical({"b": 1, "a": 2}) == b'{"a":2,"b":1}'
