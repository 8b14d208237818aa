"""Is this pack worse than the last? What counts, by the budget, what is only told, and what cannot be compared at all."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from freezegun import freeze_time
from pack_kit import DRILL, MakeRun, fake_judge

from harness import cli, regress
from harness.budget import Budget, Limits, read_budget
from harness.errors import TextError
from harness.pack import derive
from harness.pack.build import build
from harness.pack.shelf import Drill, Pack, read_pack
from harness.pack.trend import trend, trend_page
from harness.regress import NotComparable, Past

OTHER = "11_clock_drift"


def drill(name: str = DRILL, says: str = "PASS", ms: int | None = 1000, missed: int = 0, reasons: tuple[str, ...] = ("Active",),
          run_id: str = "now", text: str = "") -> Drill:
    made = Drill(Path("nowhere"), name, says, run_id, ms, missed, text=text)
    made.__dict__["reasons"] = frozenset(reasons)
    return made


def pack(*drills: Drill, world: str = "local", utc: str = "2026-01-02T00:00:00+00:00", **about: str) -> Pack:
    facts = dict.fromkeys(regress.TOLD, "same") | about
    return Pack(Path("phase2"), 2, utc, {each.name: each for each in drills}, (world,), facts)


def compared(monkeypatch: pytest.MonkeyPatch, last: Pack, now: Pack, past: Past = Past(), budget: Budget = Budget(),  # noqa: B008
             before: tuple[Pack, ...] = ()) -> regress.Report:
    monkeypatch.setattr(regress, "past_of", lambda *_: dict.fromkeys(now.drills, past))
    monkeypatch.setattr(regress, "alike", lambda *_: ([*before, last, now], []))
    return regress.compare(replace(last, folder=Path("phase2.last")), now, Path("evidence"), budget)


ENOUGH = Past((900, 950, 1000, 1000, 1100), (0, 0, 0, 1, 2))


def test_two_equal_packs_are_no_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the table says of each drill what is usual."""
    report = compared(monkeypatch, pack(drill(run_id="last")), pack(drill()), ENOUGH)
    assert report.worse == [] and "900 to 1100 ms in 5 runs, half by 1000" in regress.render(report, io.StringIO())


@pytest.mark.parametrize(("last", "now", "worse"), [
    ("PASS", "FAIL", True), ("PASS", "INCONCLUSIVE", True), ("INCONCLUSIVE", "FAIL", True), ("PASS", "aborted", True),
    ("PASS", "placebo: PASS", True), ("FAIL", "PASS", False), ("FAIL", "FAIL", False), ("FAIL", "INCONCLUSIVE", False)])
def test_a_verdict_that_got_worse_always_counts(monkeypatch: pytest.MonkeyPatch, last: str, now: str, worse: bool) -> None:
    """Whatever the budget and however few runs are known; one that got better is told."""
    report = compared(monkeypatch, pack(drill(says=last, run_id="last")), pack(drill(says=now)))
    assert [f"{DRILL}: {last} became {now}"] * worse == report.worse
    assert worse or last == now or f"{last} became {now}" in regress.render(report, io.StringIO())


@pytest.mark.parametrize(("ms", "limits", "worse"), [
    (1350, Limits(), False),  # 250 above the longest, and no more than that
    (1351, Limits(slower_ratio=1.25), False),  # more than 250 above it, and less than 1.25 times as long
    (1376, Limits(), True),
    (1101, Limits(slower_ms=0, slower_ratio=1.0), True),
    (1100, Limits(slower_ms=0, slower_ratio=1.0), False),
    (1200, Limits(at_most_ms=1199), True),
    (None, Limits(), True)])
def test_a_time_to_safe_beyond_the_budget(monkeypatch: pytest.MonkeyPatch, ms: int | None, limits: Limits, worse: bool) -> None:
    """Against the longest of the past, by both measures at once; a time that nobody knows any more counts."""
    report = compared(monkeypatch, pack(drill(run_id="last")), pack(drill(ms=ms)), ENOUGH, Budget(limits))
    assert bool(report.worse) == worse


@pytest.mark.parametrize(("last", "worse"), [("PASS", False), ("FAIL", True), ("INCONCLUSIVE", True), ("hollow", True)])
def test_a_night_that_failed_hides_no_regression_of_the_next(monkeypatch: pytest.MonkeyPatch, last: str, worse: bool) -> None:
    """The past is what PASSED: how long it took, and how much was missed, where it did not is no measure."""
    report = compared(monkeypatch, pack(drill(says=last, ms=40_000, missed=900, run_id="last")),
                      pack(drill(ms=39_000, missed=800)), ENOUGH)
    assert [each.partition(": ")[2] for each in report.worse] == worse * [
        "safe after 39000 ms, 37900 ms more than the longest before (1100 ms)", "800 samples missed, 2 at most before"]
    report = compared(monkeypatch, pack(drill(says=last, run_id="last")), pack(drill(ms=None)), ENOUGH)
    assert any("nobody knows when it was safe" in each for each in report.worse)


def test_one_drill_may_have_a_budget_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others keep theirs."""
    budget = Budget(Limits(), {OTHER: Limits(at_most_ms=500)})
    report = compared(monkeypatch, pack(drill(), drill(OTHER)), pack(drill(), drill(OTHER)), ENOUGH, budget)
    assert report.worse == [f"{OTHER}: safe after 1000 ms, the budget allows 500 ms"]


def test_with_few_past_runs_slowness_is_told_and_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can tell change from chance then; the absolute bound counts all the same."""
    few = Past((900, 1000), (0, 0))
    report = compared(monkeypatch, pack(drill(run_id="last")), pack(drill(ms=9000, missed=99, reasons=("Active", "NEW"))), few)
    told = regress.render(report, io.StringIO())
    assert report.worse == [] and told.count("not counted: only 2 past runs known") == 3
    report = compared(monkeypatch, pack(drill(run_id="last")), pack(drill(ms=9000)), few, Budget(Limits(at_most_ms=5000)))
    assert len(report.worse) == 1


def test_silences_that_grew_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the worst of the past by more than the budget."""
    for missed, worse in ((22, False), (23, True)):
        report = compared(monkeypatch, pack(drill(run_id="last")), pack(drill(missed=missed)), ENOUGH)
        assert bool(report.worse) == worse


def test_a_reason_never_heard_before_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that an older pack at hand told does not; both are shown."""
    older = pack(drill(reasons=("Active", "SEEN"), run_id="older"))
    last, now = pack(drill(run_id="last")), pack(drill(reasons=("Active", "SEEN", "NEW")))
    report = compared(monkeypatch, last, now, ENOUGH, before=(older,))
    assert report.worse == [f"{DRILL}: new: NEW, which no pack at hand has told before"]
    assert report.rows[0].new_reasons == ("NEW", "SEEN")
    assert compared(monkeypatch, last, now, ENOUGH, Budget(Limits(new_reasons=1)), (older,)).worse == []


def test_a_drill_that_is_gone_counts_and_a_new_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no longer looked at is no success."""
    report = compared(monkeypatch, pack(drill(), drill("9_a")), pack(drill(), drill(OTHER)))
    assert report.worse == ["9_a: gone: it was PASS in the last pack and is not in this one"]
    assert f"note: {OTHER}: new" in regress.render(report, io.StringIO())
    assert regress.render(report, io.StringIO()).endswith("; 1 drill compared, 1 new, 1 gone")
    alone = compared(monkeypatch, pack(drill(run_id="last")), pack(drill(), drill(OTHER), drill("9_a")))
    assert regress.render(alone, io.StringIO()).endswith("; 1 drill compared, 2 new")
    for says in ("FAIL", "INCONCLUSIVE", "hollow"):
        report = compared(monkeypatch, pack(drill()), pack(drill(), drill(OTHER, says)))
        assert report.worse == [f"{OTHER}: new: it was not in the last pack, and is {says} in this one"]


def test_a_drill_whose_text_changed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """What differs in what was run is named; equal texts are not."""
    last, now = (pack(drill(text=text * 64), drill(OTHER, text="c" * 64)) for text in "ab")
    report = compared(monkeypatch, last, now)
    assert report.differences == (f"the texts of drills differ: {DRILL} (aaaaaaaaaaaa and bbbbbbbbbbbb)",)


def test_other_worlds_are_named_and_their_times_not_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slower world is no slower system; verdicts still count."""
    last = pack(drill(run_id="last"), world="local", commit="a" * 40)
    now = pack(drill(ms=9000), world="docker", commit="b" * 40)
    report = compared(monkeypatch, last, now, ENOUGH)
    told = regress.render(report, io.StringIO())
    assert not report.worse and "worlds differ: local and docker" in told and "are not weighed" in told
    assert "commits differ: aaaaaaaaaaaa and bbbbbbbbbbbb" in told


def test_what_cannot_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two phases, or nothing in common."""
    with pytest.raises(NotComparable, match="phase 2"):
        regress.compare(pack(drill()), replace(pack(drill()), phase=3), Path("x"), Budget())
    with pytest.raises(NotComparable, match="no drill in common"):
        regress.compare(pack(drill()), pack(drill(OTHER)), Path("x"), Budget())


# ---- real packs -------------------------------------------------------------------------------------------

Nights = Callable[..., Path]


@pytest.fixture
def nights(make_run: MakeRun, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nights:
    """Evidence with a pack for each of these times to safe, a night each; None is a FAIL."""

    def judge(folder: Path, rules: Path | None = None, timeline: Any = None) -> dict[str, Any]:
        ms = orjson.loads((folder / "versions.json").read_bytes())["test_ms"]
        return {**fake_judge(folder, rules, timeline), "time_to_safe_ms": {"upper": ms, "lower": ms}}

    def make(*times: int | None) -> Path:
        for day, ms in enumerate(times, 1):
            when = f"2026-01-{day:02d}T02:{{}}:00+00:00"
            with freeze_time(when.format("05")):
                run = make_run(run_id=f"{DRILL}-{day}", latched=ms is not None, versions={
                    "started_utc": when.format("00"), "ended_utc": when.format("01"), "test_ms": ms})
                build([run], 2, tmp_path / "evidence", root)
        return tmp_path / "evidence"

    monkeypatch.setattr(derive, "judge", judge)
    return make


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = cli.main(["compare", *words])
    told = capsys.readouterr()
    return code, told.out + told.err


def test_last_and_now_and_their_exit_codes(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    """0 within the budget, 1 beyond it, and the past is that of all packs at hand."""
    evidence = nights(700, 900, 800, 850, 800, 900, 800)
    out = ("--out", str(evidence))
    code, told = run(capsys, "last", "now", *out)
    assert code == 0 and "700 to 900 ms in 6 runs, half by 825" in told
    nights_after = sorted(evidence.glob("phase2.*"))
    code, told = run(capsys, str(nights_after[0]), "now", *out, "--json")
    assert code == 0 and orjson.loads(told)["drills"][0]["last"]["time_to_safe_ms"] == 700
    (evidence / "budget.yaml").write_text(f"every: {{at_most_ms: 799}}\nbaseline: {nights_after[1].name}\n")
    code, told = run(capsys, "baseline", "now", *out)
    assert code == 1 and "the budget allows 799 ms" in told and "1 regression beyond the budget" in told and "900 ms" in told


def test_a_night_that_fails(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    """The verdict counts, and a failed run is no part of what is usual."""
    code, told = run(capsys, "last", "now", "--out", str(nights(700, 750, None)))
    assert code == 1 and "PASS became FAIL" in told and "700 to 750 ms in 2 runs" in told


def test_the_first_night_has_nothing_before_it(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3, unless it is said that it may be the first."""
    out = ("--out", str(nights(700)))
    assert run(capsys, "last", "now", *out)[0] == 3
    assert run(capsys, "last", "now", "--may-be-first", *out)[0] == 0
    assert run(capsys, "baseline", "now", "--may-be-first", *out)[0] == 3


@pytest.fixture
def shared(make_run: MakeRun, root: Path, tmp_path: Path) -> Path:
    """Evidence of three packs: an older one, the last one of two drills, and a newest one that holds one of these very runs."""

    def ended(day: int) -> dict[str, Any]:
        return {"started_utc": f"2026-01-{day:02d}T02:00:00+00:00", "ended_utc": f"2026-01-{day:02d}T02:01:00+00:00"}

    older = make_run(run_id="older", versions=ended(1))
    kept, lost = make_run(run_id="kept", versions=ended(2)), make_run(OTHER, run_id="lost", versions=ended(3))
    for day, runs in enumerate(([older], [kept, lost], [kept]), 4):
        with freeze_time(f"2026-01-{day:02d}T00:00:00+00:00"):
            build(runs, 2, tmp_path / "evidence", root)
    return tmp_path / "evidence"


def test_a_run_that_two_packs_share_hides_neither(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last pack is the one before, though its newest run ended after the newest one's, and what it lost counts."""
    code, told = run(capsys, "last", "now", "--out", str(shared))
    assert code == 1 and f"{OTHER}: gone" in told and "phase2.20260106T000000Z" in told


def test_the_newest_pack_is_the_one_that_nothing_replaced(shared: Path, root: Path) -> None:
    """Whenever its runs ended, and though a pack of the very same runs stood there before."""
    assert list(trend(shared, 2, 30).newest.drills) == [DRILL]
    with freeze_time("2026-01-07T00:00:00+00:00"):
        build([shared / "runs" / "older"], 2, shared, root)
    assert trend(shared, 2, 30).newest.run_ids == {"older"}


def test_a_pack_is_not_compared_with_itself(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    """It would always agree, whatever it says."""
    evidence = nights(700, 800)
    (evidence / "budget.yaml").write_text("baseline: phase2\n")
    for last, now in (("now", "now"), ("baseline", "now"), (str(evidence / "phase2"), "now")):
        code, told = run(capsys, last, now, "--out", str(evidence), "--may-be-first")
        assert code == 3 and "is the very pack" in told


def test_what_was_altered_is_not_compared(nights: Nights, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Neither side; nor is a folder that is no pack, which is wrong usage."""
    evidence = nights(700, 800)
    (last,) = evidence.glob("phase2.*")
    file = last / "metrics_exports" / "samples.csv"
    data = file.read_bytes()
    file.write_bytes(data.replace(b"drill", b"drull", 1))
    assert run(capsys, "last", "now", "--out", str(evidence), "--may-be-first")[0] == 3
    file.write_bytes(data)
    (evidence / "phase2" / "added").write_bytes(b"")
    code, told = run(capsys, "last", "now", "--out", str(evidence))
    assert code == 3 and "is not intact: [ADDED] added" in told
    assert run(capsys, str(last), str(tmp_path / "none"), "--out", str(evidence))[0] == 2
    shutil.rmtree(evidence / "phase2")
    assert run(capsys, "last", "now", "--out", str(evidence))[0] == 3


def test_a_bound_for_a_drill_that_nobody_knows_is_refused(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    """It would hold nobody; a drill of the phase may be named before any pack holds it."""
    evidence = nights(700, 800)
    for name, code in (("2_market_data_stael", 2), (DRILL, 1), (OTHER, 0)):
        (evidence / "budget.yaml").write_text(f"drills:\n  {name}: {{at_most_ms: 100}}\n")
        found, told = run(capsys, "last", "now", "--out", str(evidence))
        assert found == code
        assert code != 2 or f"budget.yaml:2:3: found the drill {name!r}" in told and f"(nearest: {DRILL})" in told


def test_what_was_altered_is_no_past(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    """A pack that `verify` refuses would stretch what is usual until a regression fits into it; it is left out and named."""
    evidence = nights(700, 800, 900, 1800)
    (evidence / "budget.yaml").write_text("past_runs_min: 1\n")
    assert run(capsys, "last", "now", "--out", str(evidence))[0] == 1
    oldest, second, _ = sorted(evidence.glob("phase2.*"))
    file = next(oldest.glob("incident_drills/*/verdict.json"))
    file.write_bytes(file.read_bytes().replace(b"700", b"9700"))
    (second / "pack.json").write_bytes(b"{}")
    code, told = run(capsys, "last", "now", "--out", str(evidence))
    assert code == 1 and "900 ms in 1 run" in told
    assert f"note: {oldest.name} is no part of the past, it is not intact: [" in told
    assert f"note: {second.name} is no part of the past: " in told


def test_the_courses_of_two_packs_can_still_be_seen(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    """--courses is the comparison of modes, reasons and latch codes, as of two runs."""
    evidence = nights(700, 800)
    (last,) = evidence.glob("phase2.*")
    code, told = run(capsys, str(last), str(evidence / "phase2"), "--courses", "--out", str(evidence))
    assert code == 0 and "agree" in told and "seen in the samples" in told


# ---- the budget's file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "says"), [
    ("evry: {}", "budget.yaml:1:1: found the key 'evry', expected one of past_runs_min, baseline, every, drills (nearest: e"),
    ("every: {slower_ms: -1}", "from 0 on"), ("every: {slower_ratio: 0.9}", "a ratio from 1 to 1000"),
    ("every: {slower_ratio: true}", "a ratio"), ("every: {at_most_ms: 0}", "or null"), ("drills: {a: {b: 1}}", "the key 'b'"),
    ("past_runs_min: 0", "at least 1"), ("baseline: 7", "a pack's name"), ("every: {more_missed: 1, more_missed: 2}", "once")])
def test_the_budget_is_read_strictly(tmp_path: Path, text: str, says: str) -> None:
    """A misspelt bound would be none."""
    file = tmp_path / "budget.yaml"
    file.write_text(text)
    with pytest.raises(TextError) as found:
        read_budget(file)
    assert says in str(found.value)


def test_the_shipped_budget_is_the_default() -> None:
    """What stands in evidence/budget.yaml are the very numbers that the code has."""
    assert read_budget(cli.ROOT / "evidence" / "budget.yaml") == Budget() == read_budget(None)


# ---- the picture ------------------------------------------------------------------------------------------


def test_the_trend_shows_every_night(nights: Nights) -> None:
    """A dot a PASS, a square anything else, the newest ringed; no script, nothing loaded."""
    evidence = nights(700, 900, None, 800, 850, 800, 990)
    found = trend(evidence, 2, 30)
    not_run = len(orjson.loads((evidence / "phase2" / "pack.json").read_bytes())["not_run"])
    assert (len(found.packs), found.whole) == (7, 6)
    assert found.headline == f"1 of 1 drills passed in the newest pack, {not_run} not run"
    assert found.courses[0].remark == "not passed 1 of 7 times, longest yet"
    text = trend_page(found).decode()
    assert text.count("<circle") == 6 and text.count('width="10" height="10" fill="#b42318"') == 1
    assert "<script" not in text and "http:" not in text.replace("http://www.w3.org/2000/svg", "") and "https:" not in text
    assert len(trend(evidence, 2, 3).packs) == 3


def test_the_trend_names_what_it_leaves_out(nights: Nights) -> None:
    """An altered pack is no night, and a hostile name does not steer the page."""
    evidence = nights(700, 900, 800)
    first, second = sorted(evidence.glob("phase2.*"))
    (first / "added").write_bytes(b"")
    (second / "pack.json").write_bytes(b"{}")
    found = trend(evidence, 2, 30)
    assert len(found.packs) == 1 and len(found.notes) == 2
    pack_now = read_pack(evidence / "phase2")
    assert isinstance(pack_now, Pack)
    hostile = replace(pack_now.drills[DRILL], says="<script>alert(1)</script>", title="<b>\x1b[2J")
    page = trend_page(replace(found, packs=(replace(pack_now, drills={DRILL: hostile}),), courses=(
        replace(found.courses[0], nights=(hostile,), title=hostile.title),))).decode()
    assert "<script" not in page and "<b>" not in page and "\x1b" not in page


def test_only_packs_of_the_same_sets_share_an_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    """A night of one set beside nights of three would look like drills that went away."""
    three, one = {"a": "phase2", "b": "ops"}, {"a": "phase2"}
    packs = [replace(pack(*(drill(name) for name in sets), utc=f"2026-01-0{day}T00:00:00+00:00"), sets=frozenset(sets.values()))
             for day, sets in enumerate((three, one, three), 1)]
    for each in packs:
        each.__dict__["findings"] = []
    monkeypatch.setattr("harness.pack.trend.shelf", lambda *_: (packs, {}))
    monkeypatch.setattr("harness.pack.trend._once", list)
    found = trend(Path("evidence"), 2, 30)
    assert [each.utc[9] for each in found.packs] == ["1", "3"] and found.notes == ("1 more of other worlds, policies or sets",)


def test_a_pass_that_had_nothing_to_block_has_no_unknown_time(nights: Nights) -> None:
    """As in the summary: a dash; unknown is only what should have been seen."""
    found = trend(nights(700), 2, 30)
    for says, told in (("PASS", "<strong>-</strong>"), ("FAIL", "<strong>unknown</strong>")):
        night = replace(found.courses[0].nights[0], says=says, time_to_safe_ms=None)
        assert told in trend_page(replace(found, courses=(replace(found.courses[0], nights=(night,)),))).decode()


def test_without_a_pack_there_is_no_trend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage, with the place."""
    assert cli.main(["trend", "--out", str(tmp_path)]) == 2 and "no pack of phase 2" in capsys.readouterr().err
