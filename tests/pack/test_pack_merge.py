"""Shards of several machines become one pack that verifies, or are refused with everything that is wrong, by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from pack_kit import DRILL, MakeRun

from harness import gate
from harness.errors import PackError, RunLogError, UsageError
from harness.pack import merge as room
from harness.pack import runlog
from harness.pack.build import build
from harness.pack.listing import encode
from harness.pack.manifest import examine, verify
from harness.pack.merge import merge
from harness.pack.runlog import RunLog, attempts, check_chain, has_joined, verify_runlog
from harness.recording.tape import canonical

DRILLS = (DRILL, "3_wal_backpressure", "11_clock_drift")
MakeShard = Callable[..., Path]


@pytest.fixture
def root(root: Path) -> Path:
    """A checkout whose phase has three drills."""
    for file in (root / "drills" / "phase2").glob("*.yaml"):
        if file.stem not in DRILLS:
            file.unlink()
    return root


@pytest.fixture
def make_shard(make_run: MakeRun, root: Path, tmp_path: Path) -> MakeShard:
    """What a machine leaves that ran a part of the phase: its runs, its log, and a pack of them."""

    def make(name: str, drills: Sequence[str], *, packed: bool = True, **more: Any) -> Path:
        place = tmp_path / "shards" / name
        runs = [make_run(drill, place=place, **more) for drill in drills]
        if packed:
            build(runs, 2, place, root)
        return place

    return make


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the ordinary two shards are kept once they were made: nothing in them depends on where they lie."""
    return tmp_path_factory.mktemp("kept") / "shards"


@pytest.fixture
def shards(make_shard: MakeShard, kept: Path, root: Path, tmp_path: Path) -> list[Path]:
    if kept.is_dir():
        shutil.copytree(kept, tmp_path / "shards")
        return [tmp_path / "shards" / name for name in "ab"]
    made = [make_shard("a", DRILLS[:2]), make_shard("b", DRILLS[2:])]
    shutil.copytree(tmp_path / "shards", kept)
    return made


def refused(places: list[Path], root: Path, out: Path, phase: int | None = None) -> str:
    """What a merge is refused for; it must have written nothing."""
    with pytest.raises(PackError) as why:
        merge(places, phase, out, root)
    assert not (out / "phase2").exists() and not (out / "runs.jsonl").exists()
    return str(why.value)


# ---- joined -----------------------------------------------------------------------------------------------


def test_two_shards_are_one_pack_that_verifies(shards: list[Path], root: Path, tmp_path: Path) -> None:
    """All drills in their order, one JUnit for the whole, and the phase is that of the packs."""
    made = merge(shards, None, tmp_path / "out", root)
    looked = examine(made)
    assert looked.findings == () and [each.name for each in looked.chapters] == list(DRILLS)
    junit = (made / "test_results.xml").read_text()
    assert all(f'testsuite name="{drill}"' in junit for drill in DRILLS)


def test_the_logs_stand_word_for_word_in_the_joined_one(shards: list[Path], root: Path, tmp_path: Path) -> None:
    """Each shard's chain can be taken out of the new one again, byte for byte, and is whole."""
    merge(shards, None, tmp_path / "out", root)
    rows = [orjson.loads(line) for line in RunLog(tmp_path / "out" / "runs.jsonl").lines()]
    for shard in shards:
        lines = [row["line"].encode() for row in rows if row["event"] == "joined" and row["run_id"] == shard.name]
        assert b"".join(line + b"\n" for line in lines) == (shard / "runs.jsonl").read_bytes()
        assert check_chain(lines) == []
    assert verify_runlog(tmp_path / "out" / "runs.jsonl") == []


def test_an_attempt_that_failed_on_another_machine_is_told(make_shard: MakeShard, make_run: MakeRun, root: Path,
                                                           tmp_path: Path) -> None:
    """Running until green on a shard leaves its trace on the first page of the joined pack."""
    one = tmp_path / "shards" / "a"
    make_run(place=one, latched=False, run_id="first-try")
    one = make_shard("a", DRILLS[:2])
    made = merge([one, make_shard("b", DRILLS[2:])], 2, tmp_path / "out", root)
    page = (made / "SUMMARY_1PAGE.md").read_text()
    assert "4 runs began: 1 FAIL, 3 PASS" in page and f"{DRILL} (2 times in local)" in page


def test_what_failed_on_a_shard_after_its_pack_was_made_counts_against_it(shards: list[Path], make_run: MakeRun, root: Path,
                                                                          tmp_path: Path) -> None:
    """The gate asks the joined logs for later attempts as it asks any log: an older success does not outweigh them."""
    make_run(place=shards[0], latched=False, run_id="later")
    found = gate.evidence_of(examine(merge(shards, None, tmp_path / "out", root)))
    assert (found[DRILL].later, found[DRILLS[1]].later) == ("FAIL (later)", None)


def test_run_folders_without_a_pack_are_shards_too(make_shard: MakeShard, root: Path, tmp_path: Path) -> None:
    """The newest run of each drill counts, as for any pack."""
    one, other = make_shard("a", DRILLS[:2], packed=False), make_shard("b", DRILLS[2:])
    assert verify(merge([one, other], 2, tmp_path / "out", root)) == []


def test_merging_again_joins_nothing_twice(shards: list[Path], root: Path, tmp_path: Path) -> None:
    """A merge that was interrupted or asked for twice tells of no attempt twice; the former pack is kept."""
    out = tmp_path / "out"
    merge(shards, None, out, root)
    again = merge(shards, None, out, root)
    assert len(attempts(RunLog(out / "runs.jsonl").lines())) == 3
    assert verify(again) == [] and len(list(out.glob("phase2.*"))) == 1


def test_a_night_after_a_night(shards: list[Path], make_shard: MakeShard, root: Path, tmp_path: Path) -> None:
    """The second pack holds the second night's slice, in which joined logs go on where they were cut, and verifies."""
    out = tmp_path / "out"
    merge(shards, None, out, root)
    for place in shards:
        shutil.rmtree(place / "runs")
    second = [make_shard("a", DRILLS[:2], run_id="", versions={"operator": "later"}),
              make_shard("b", DRILLS[2:], versions={"operator": "later"})]
    made = merge(second, None, out, root)
    assert verify(made) == []
    assert len((made / "run_log.jsonl").read_bytes().splitlines()) < len(RunLog(out / "runs.jsonl").lines())


def test_runs_that_lie_elsewhere_are_no_newest_runs(shards: list[Path], make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """What was joined has no folder here, so a pack of local runs does not stumble over it."""
    merge(shards, None, tmp_path / "out", root)
    own = make_run(place=tmp_path / "out", run_id="own")
    assert room.newest_runs(tmp_path / "out" / "runs", 2, "local", root) == [own]


# ---- refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("more", "says"), [
    ({"versions": {"git": {"commit": "f" * 40, "dirty": False}}}, "mixed: 2 values of commit"),
    ({"head": {"system": "0" * 64}}, "mixed: 2 values of system"),
    ({"head": {"recorder": "0" * 64}}, "mixed: 2 values of recorder"),
    ({"head": {"world": "docker"}}, "mixed: 2 worlds"),
])
def test_mixed_shards_are_refused(make_shard: MakeShard, root: Path, tmp_path: Path, more: dict[str, Any], says: str) -> None:
    """One build and one world: what differs is said, with where."""
    told = refused([make_shard("a", DRILLS[:2]), make_shard("b", DRILLS[2:], **more)], root, tmp_path / "out")
    assert says in told and "11_clock_drift" in told


@pytest.mark.parametrize(("word", "change"), [
    ("policy", lambda folder: (folder / "policy.json").write_bytes(b"{}")),
    ("rules", lambda folder: None)])
def test_shards_of_other_texts_are_refused(make_shard: MakeShard, root: Path, tmp_path: Path, word: str,
                                           change: Callable[[Path], object]) -> None:
    """Another policy or other rules than the other shard's, each by its word."""
    head = {"policy": {"name": "drill", "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}} \
        if word == "policy" else {"rules": {"specs/events.yaml": "0" * 64}}
    other = make_shard("b", DRILLS[2:], packed=False, head=head)
    change(next((other / "runs").iterdir()))
    assert f"mixed: 2 values of {word}" in refused([make_shard("a", DRILLS[:2]), other], root, tmp_path / "out", 2)


def test_a_pack_of_another_harness_is_refused(shards: list[Path], root: Path, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages of two builds of drillproof are not put into one pack."""
    monkeypatch.setattr(room, "made_by", lambda: {"harness": "0" * 64, "templates": "0" * 64})
    assert "another build of drillproof" in refused(shards, root, tmp_path / "out")


def test_a_missing_drill_is_named(shards: list[Path], root: Path, tmp_path: Path) -> None:
    """A night of which a shard is missing is no night."""
    assert "missing: 11_clock_drift" in refused(shards[:1], root, tmp_path / "out")


def test_a_drill_for_other_worlds_is_not_missed(shards: list[Path], root: Path, tmp_path: Path) -> None:
    """What says that it is not meant for this world need not be there; what is there must be meant for it."""
    file = root / "drills" / "phase2" / "12_exchange_maintenance.yaml"
    file.write_text("worlds: [sim, docker]\n")
    assert verify(merge(shards, None, tmp_path / "out", root)) == []
    file.with_name("11_clock_drift.yaml").write_text("worlds: [sim]\n")
    assert "no drill of phase 2 in the world local: 11_clock_drift" in refused(shards, root, tmp_path / "else")


def test_a_drill_twice_is_refused(make_shard: MakeShard, root: Path, tmp_path: Path) -> None:
    """Nobody may pick the run that suits out of two shards."""
    told = refused([make_shard("a", DRILLS[:2]), make_shard("b", DRILLS[1:], versions={"host": "b"})], root, tmp_path / "out")
    assert "3_wal_backpressure twice: in " in told


def test_a_drill_that_another_shard_tried_is_refused(make_shard: MakeShard, make_run: MakeRun, root: Path,
                                                     tmp_path: Path) -> None:
    """A failure on the one machine is not outweighed by a success on the other."""
    other = make_shard("b", DRILLS[2:])
    make_run(place=other, latched=False, run_id="tried-here")
    told = refused([make_shard("a", DRILLS[:2]), other], root, tmp_path / "out")
    assert f"{DRILL} twice" in told and "tried-here" in told


def test_a_drill_may_move_from_one_shard_to_another_between_two_nights(
        make_shard: MakeShard, make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """What was joined before has its place in the log already, so only what is new must not be twice."""
    out = tmp_path / "out"
    one, other = make_shard("a", DRILLS[:2]), make_shard("b", DRILLS[2:])
    merge([one, other], None, out, root)
    for place in (one, other):
        shutil.rmtree(place / "runs")
    one = make_shard("a", DRILLS[:1], run_id="second")
    build([make_run(drill, place=other, run_id=f"{drill}-2") for drill in DRILLS[1:]], 2, other, root)
    assert verify(merge([one, other], None, out, root)) == []


def test_what_did_not_pass_where_the_shards_are_joined_is_not_outranked(
        shards: list[Path], make_run: MakeRun, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Joined lines come after those of the place itself, whenever they were written; what was packed there was told, and may
    be outranked by what came later alone."""
    out = tmp_path / "out"
    make_run(place=out, run_id="passed")
    for number, told in enumerate(({"placebo": True}, {"world": "sim"}, {"build": {}})):
        make_run(place=out, run_id=f"other-{number}", latched=False, logged_as=told)
    assert verify(merge(shards, None, out, root)) == []
    with monkeypatch.context() as yesterday:
        yesterday.setattr(runlog, "now_utc", lambda: "2020-01-01T00:00:00Z")
        failed = make_run(place=out, run_id="failed", latched=False)
    with pytest.raises(PackError, match=f"{DRILL} twice: its run lies in .*a, and here it came to FAIL since the last pack "
                                        r"\(failed\): `drillproof pack 2` tells of that first"):
        merge(shards, None, out, root)
    build([failed], 2, out, root)
    assert verify(merge(shards, None, out, root)) == []
    later = make_run(place=out, run_id="later", latched=False)
    for _ in ("untold", "packed"):
        with pytest.raises(PackError, match=f"{DRILL} twice: .* here it came to FAIL after that run began .later, "):
            merge(shards, None, out, root)
        build([later], 2, out, root)


def test_an_older_shard_does_not_outrank_what_was_joined(make_shard: MakeShard, root: Path, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """It would stand later in the log than what failed on a newer one; a night that is newer than that is joined."""
    out, nights = tmp_path / "out", {}
    for day, latched in ((5, True), (6, False), (7, True)):
        with monkeypatch.context() as then:
            then.setattr(runlog, "now_utc", lambda day=day: f"2026-01-0{day}T02:00:00Z")
            nights[day] = make_shard(f"night-{day}", DRILLS, latched=latched)
    for _ in ("joined", "joined again"):
        assert verify(merge([nights[6]], 2, out, root)) == []
    with pytest.raises(PackError, match=f"{DRILL} twice: its run lies in .*night-5, and in a log that was joined here it came "
                                        "to FAIL after that run began .*2026-01-06"):
        merge([nights[5]], 2, out, root)
    assert verify(merge([nights[7]], 2, out, root)) == []


def test_a_copy_of_the_place_is_no_shard_of_it(make_shard: MakeShard, make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """Its runs would stand in the log twice, and before what failed here since as if they came later; the place itself may
    be named, and then what failed in it since its pack was made counts all the same."""
    home = make_shard("home", DRILLS)
    copy = Path(shutil.copytree(home, tmp_path / "copy"))
    make_run(place=home, run_id="later", latched=False)
    with pytest.raises(PackError, match="copy: is a copy of the place where the pack is made"):
        merge([copy], 2, home, root)
    with pytest.raises(PackError, match=f"{DRILL} twice: .* FAIL after that run began .later, "):
        merge([home], 2, home, root)
    build([make_run(drill, place=home, run_id=f"again-{drill}") for drill in DRILLS], 2, home, root)
    assert verify(merge([home], 2, home, root)) == []
    assert len(attempts(RunLog(home / "runs.jsonl").lines())) == 7


def test_a_place_may_be_one_of_the_shards_itself(make_shard: MakeShard, make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """What it ran has its place in its own log: the newest run counts, and the first try leaves its trace."""
    make_run(place=tmp_path / "shards/a", run_id="first-try", latched=False)
    one, other = make_shard("a", DRILLS[:2], packed=False), make_shard("b", DRILLS[2:])
    assert verify(merge([other, one], 2, one, root)) == []
    assert len(attempts(RunLog(one / "runs.jsonl").lines())) == 4


def test_one_shard_given_twice_is_refused(shards: list[Path], root: Path, tmp_path: Path) -> None:
    """Also under another name."""
    copy = Path(shutil.copytree(shards[0], tmp_path / "shards" / "copy"))
    assert "one shard twice" in refused([*shards, copy], root, tmp_path / "out")


@pytest.mark.parametrize(("path", "says"), [
    ("phase2/incident_drills/drill_11_clock_drift/verdict.json", "[CHANGED] phase2/incident_drills/drill_11_clock_drift/"),
    ("phase2/SUMMARY_1PAGE.md", "[CHANGED] phase2/SUMMARY_1PAGE.md"),
    ("runs.jsonl", "[RUNLOG]"),
])
def test_an_altered_shard_is_refused(shards: list[Path], root: Path, tmp_path: Path, path: str, says: str) -> None:
    """Every shard is verified first, its log included."""
    file = shards[1] / path
    file.write_bytes(file.read_bytes().replace(b"a", b"b", 1))
    assert says in refused(shards, root, tmp_path / "out")


def test_an_altered_run_is_refused(make_shard: MakeShard, root: Path, tmp_path: Path) -> None:
    """Of bare runs too: what a run says of itself must be what the log told before it began."""
    other = make_shard("b", DRILLS[2:], packed=False)
    (run,) = (other / "runs").iterdir()
    told = orjson.loads((run / "versions.json").read_bytes())
    (run / "versions.json").write_bytes(encode({**told, "git": {"commit": "e" * 40}}))
    assert "tells another commit" in refused([make_shard("a", DRILLS[:2]), other], root, tmp_path / "out", 2)


def test_a_log_that_begins_in_the_middle_is_refused(shards: list[Path], root: Path, tmp_path: Path) -> None:
    """Attempts could have been cut off its beginning; a pack alone brings only its slice."""
    build([next((shards[1] / "runs").iterdir())], 2, shards[1], root)
    pack = Path(shutil.copytree(shards[1] / "phase2", tmp_path / "alone" / "phase2"))
    assert verify(merge([shards[0], pack], None, tmp_path / "whole", root)) == []
    file = pack.parent / "runs.jsonl"
    file.write_bytes(b"".join((shards[1] / "runs.jsonl").read_bytes().splitlines(keepends=True)[1:]))
    assert "chain is broken at line 1" in refused([shards[0], pack], root, tmp_path / "out")


def test_a_joined_pack_is_not_joined_again(shards: list[Path], root: Path, tmp_path: Path) -> None:
    """Chains within chains within chains would be nobody's to follow."""
    merge(shards, None, tmp_path / "first", root)
    assert "is joined of several already" in refused([tmp_path / "first"], root, tmp_path / "out")


def test_other_phases_are_refused(shards: list[Path], root: Path, tmp_path: Path) -> None:
    """A shard of phase 2 is none of phase 1; a folder with nothing in it is no shard at all."""
    with pytest.raises(UsageError, match="no shard lies there"):
        merge([tmp_path], None, tmp_path / "out", root)
    assert "mixed: phases" in refused([shards[0] / "phase2", shards[1] / "phase2"], root, tmp_path / "out", 1)


# ---- the chain --------------------------------------------------------------------------------------------


def rewritten(log: RunLog, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> list[str]:
    """The findings on a log whose rows were changed, and whose own chain was forged to fit again."""
    import hashlib

    prev, lines = "0" * 64, []
    for number, row in enumerate(change([orjson.loads(line) for line in log.lines()]), 1):
        lines.append(canonical({**row, "n": number, "prev": prev}))
        prev = hashlib.sha256(lines[-1]).hexdigest()
    return [str(each) for each in check_chain(lines)]


def test_a_joined_chain_from_which_something_was_taken_is_broken(shards: list[Path], root: Path, tmp_path: Path) -> None:
    """A forger who mends the outer chain leaves the inner one broken: a line gone, changed, doubled, or of nobody."""
    merge(shards, None, tmp_path / "out", root)
    log = RunLog(tmp_path / "out" / "runs.jsonl")
    assert rewritten(log, lambda rows: rows) == [] and has_joined(log.lines())
    assert "does not stand whole" in rewritten(log, lambda rows: rows[1:])[0]
    assert "does not stand whole" in rewritten(log, lambda rows: [rows[0], *rows[2:]])[0]
    assert "does not stand whole" in rewritten(log, lambda rows: [rows[0], rows[0], *rows[1:]])[0]
    changed = [{"line": row["line"].replace("PASS", "FAIL")} for row in [orjson.loads(log.lines()[1])]]
    assert "does not stand whole" in rewritten(log, lambda rows: [rows[0], {**rows[1], **changed[0]}, *rows[2:]])[0]
    assert "cannot be read" in rewritten(log, lambda rows: [{**rows[0], "line": "x"}, *rows[1:]])[0]
    inner = canonical({"n": 1, "prev": "0" * 64, "event": "joined", "run_id": "x", "utc": "x", "log": "x", "line": "x"})
    assert "of one machine" in rewritten(log, lambda rows: [{**rows[0], "line": inner.decode()}])[0]


def test_nothing_is_joined_into_a_broken_log(shards: list[Path], root: Path, tmp_path: Path) -> None:
    """The place where a pack is made must be able to tell its own past."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "runs.jsonl").write_bytes((shards[0] / "runs.jsonl").read_bytes().replace(b"PASS", b"FAIL"))
    with pytest.raises(RunLogError, match="chain is broken"):
        merge(shards, None, out, root)
