"""Two runs of a drill side by side: what counts as a difference, what does not, and what is no comparison at all."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from harness import cli, compare
from harness.recording import script

ROOT = Path(__file__).resolve().parent.parent.parent
LAWFUL = ROOT / "fixtures" / "recordings" / "lawful" / "market_data_stale.yaml"
LATCHED, DEGRADED = "REDUCEONLY_OPEN_PERMISSION_LATCHED", "REDUCEONLY_RISKSTATE_DEGRADED"
STALE = "WS_DATA_STALE_RECONCILE_REQUIRED"
NOTES = [{"at": 7590, "kind": "latch", "event": "set", "codes": [STALE]},
         {"at": 7591, "kind": "mode", "from": "Active", "to": "ReduceOnly", "reasons": [LATCHED]},
         {"at": 12990, "kind": "latch", "event": "cleared", "codes": [STALE]},
         {"at": 12991, "kind": "mode", "from": "ReduceOnly", "to": "Active", "reasons": []}]


def made(folder: Path, *changes: dict[str, Any], notes: list[dict[str, Any]] | None = None, **fields: Any) -> Path:
    """The lawful hand-made run of stale data, with further changes of its status document."""
    told = script.read(LAWFUL)
    told |= fields
    told["documents"]["status"]["changes"] += changes
    told["documents"]["status"]["changes"].sort(key=lambda each: each["at"])
    told["streams"]["notes"] = sorted([*told["streams"].get("notes", []), *(notes or [])], key=lambda each: each["at"])
    run = script.build(told, folder)
    (run / "verdict.json").write_text("{}")
    return run


def compared(a: Path, b: Path) -> compare.Comparison:
    return compare.compare(compare.Side.read(a), compare.Side.read(b))


def signs(found: compare.Comparison, part: str = "samples") -> str:
    return "".join(row.sign for row in found.parts[part])


def test_equal_courses_agree_however_long_their_states_lasted(tmp_path: Path) -> None:
    """The later latch of another world is the same latch; each side counts from the fault's own mark."""
    later = [{"at": 7700, "set": {"ws_event_lag_ms": 3300}}]
    found = compared(made(tmp_path / "a"), made(tmp_path / "b", *later, seed=2))
    assert found.agree and found.rests_on == "samples alone" and signs(found) == "==="
    row = found.parts["samples"][1]
    assert (row.since, row.a) == ("burst", row.b) and STALE in row.text


@pytest.mark.parametrize(("change", "text"), [
    ({"at": 9000, "set": {"mode_reasons": [LATCHED, DEGRADED]}}, DEGRADED),
    ({"at": 9000, "set": {"trading_mode": "Kill", "mode_reasons": ["KILL_CORTEX"]}}, "Kill"),
    ({"at": 9000, "set": {"open_permission_reason_codes": ["RESTART_RECONCILE_REQUIRED"]}}, "RESTART"),
    ({"at": 9000, "set": {"open_permission_blocked_latch": False}}, "ReduceOnly")])
def test_another_mode_reason_or_code_differs(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    """Each of the four fields alone makes two courses differ, on the side that has it."""
    found = compared(made(tmp_path / "a"), made(tmp_path / "b", change))
    assert not found.agree and ">" in signs(found) and "<" not in signs(found).replace("=", "")
    assert any(text in row.text for row in found.parts["samples"] if row.sign == ">")


def test_the_order_of_reasons_counts(tmp_path: Path) -> None:
    """The contract fixes the order of reasons, so another order is another course."""
    one, other = ({"at": 7700, "set": {"mode_reasons": reasons}} for reasons in ([LATCHED, DEGRADED], [DEGRADED, LATCHED]))
    assert not compared(made(tmp_path / "a", one), made(tmp_path / "b", other)).agree


def test_what_is_shorter_than_the_grain_is_told_and_no_difference(tmp_path: Path) -> None:
    """A state of one sample in the one run may have fallen between two samples of the other."""
    brief = [{"at": 9000, "set": {"mode_reasons": [LATCHED, DEGRADED]}}, {"at": 9060, "set": {"mode_reasons": [LATCHED]}}]
    found = compared(made(tmp_path / "a", *brief), made(tmp_path / "b"))
    assert found.agree and found.brief and "~" in signs(found)
    long = [brief[0], {"at": 9400, "set": {"mode_reasons": [LATCHED]}}]
    assert not compared(made(tmp_path / "c", *long), made(tmp_path / "b2")).agree


def test_what_was_seen_once_before_a_silence_is_brief(tmp_path: Path) -> None:
    """Nobody knows whether it went on; what is said again after the silence did."""
    brief = [{"at": 9000, "set": {"mode_reasons": [LATCHED, DEGRADED]}}, {"at": 9400, "set": {"mode_reasons": [LATCHED]}}]
    silence = [{"surface": "status", "from": 9050, "to": 9420, "why": "refused"}]
    assert compared(made(tmp_path / "a", *brief, silence=silence), made(tmp_path / "b")).agree
    again = [brief[0], {"at": 9460, "set": {"mode_reasons": [LATCHED]}}]
    assert not compared(made(tmp_path / "c", *again, silence=silence), made(tmp_path / "b2")).agree


def test_brief_states_never_hide_a_long_one(tmp_path: Path) -> None:
    """With a long difference beside a brief one, the long one still counts."""
    changes = [{"at": 9000, "set": {"mode_reasons": [LATCHED, DEGRADED]}}, {"at": 9060, "set": {"mode_reasons": [LATCHED]}},
               {"at": 10000, "set": {"trading_mode": "Kill", "mode_reasons": ["KILL_CORTEX"]}}]
    assert not compared(made(tmp_path / "a", *changes), made(tmp_path / "b")).agree


def test_what_the_system_wrote_down_counts_besides(tmp_path: Path) -> None:
    """Samples that agree do not help when the notes tell of another latch code, or of another mode in between."""
    a = made(tmp_path / "a", notes=NOTES)
    same = compared(a, made(tmp_path / "b", notes=NOTES))
    assert same.agree and same.rests_on == "samples and notes"
    assert signs(same, "modes") == "==" and signs(same, "latches") == "=="
    other = [{**NOTES[0], "codes": ["RESTART_RECONCILE_REQUIRED"]}, *NOTES[1:]]
    found = compared(a, made(tmp_path / "c", notes=other))
    assert not found.agree and signs(found) == "===" and signs(found, "latches") == "<>="
    found = compared(a, made(tmp_path / "d", notes=[NOTES[0], NOTES[2], NOTES[3]]))
    assert not found.agree and signs(found, "modes") == "<="


def test_a_torn_stream_is_not_rested_on(tmp_path: Path) -> None:
    """Without the notes of both, the comparison says that it rests on samples alone."""
    a, b = made(tmp_path / "a", notes=NOTES), made(tmp_path / "b", notes=NOTES)
    with (b / "streams" / "notes.jsonl").open("ab") as stream:
        stream.write(b"torn")
    found = compared(a, b)
    assert found.rests_on == "samples alone" and any("no whole stream" in each for each in found.warnings)


@pytest.mark.parametrize(("arguments", "code"), [
    (["a", "b"], 0), (["a", "other"], 1), (["a", "aborted"], 2), (["a", "nowhere"], 2), (["a", "empty"], 2),
    (["packs/one", "packs/two"], 1), (["packs/one", "packs/one"], 0)])
def test_exit_codes(tmp_path: Path, arguments: list[str], code: int, capsys: pytest.CaptureFixture[str],
                    monkeypatch: pytest.MonkeyPatch) -> None:
    """0 agree, 1 differ, 2 unusable; whole folders are compared drill by drill."""
    monkeypatch.chdir(tmp_path)
    kill = {"at": 9000, "set": {"trading_mode": "Kill", "mode_reasons": ["KILL_CORTEX"]}}
    for name in ("a", "b", "packs/one/incident_drills/x"):
        made(tmp_path / name)
    for name in ("other", "packs/two/incident_drills/x"):
        made(tmp_path / name, kill)
    made(tmp_path / "aborted", status="aborted")
    (tmp_path / "empty").mkdir()
    assert cli.main(["compare", *arguments]) == code
    told = capsys.readouterr()
    assert bool(told.err) == (code == 2) and bool(told.out) == (code != 2)
    if code != 2:
        assert cli.main(["compare", *arguments, "--json"]) == code
        assert orjson.loads(capsys.readouterr().out)["agree"] is (code == 0)


@pytest.mark.parametrize(("ran", "noted"), [("spoiled:make", True), ("own:make", False)])
def test_a_sabotaged_system_is_told(tmp_path: Path, ran: str, noted: bool) -> None:
    """That it agrees with the healthy one would else read as if two healthy ones did."""
    sides = [compare.Side.read(made(tmp_path / name)) for name in ("a", "b")]
    for side, machine in zip(sides, ("own:make", ran), strict=True):
        (side.folder / "stack.yaml").write_text("nodes: {trader: {machine: own:make}}\n")
        side.timeline.head["machines"] = {"trader": machine}
    found = compare.compare(*sides)
    assert ("b ran another machine than its stack names (a mutant): trader as spoiled:make" in found.warnings) == noted
    assert not any(each.startswith("a ran") for each in found.warnings)
    assert (", mutant  " in compare.render(found, io.StringIO())) == noted


def test_a_world_names_its_newest_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    """``compare sim local`` takes the newest finished run of each, never a placebo."""
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "evidence" / "runs"
    kill = {"at": 9000, "set": {"trading_mode": "Kill", "mode_reasons": ["KILL_CORTEX"]}}
    made(runs / "old", kill)
    made(runs / "new")
    made(runs / "placebo", kill, placebo=True)
    made(runs / "real", world="local")
    assert cli.main(["compare", "sim", "local", "--out", str(tmp_path / "evidence")]) == 0, capsys.readouterr()


def test_a_drill_that_one_side_has_is_alone(tmp_path: Path) -> None:
    """It agrees with nothing, and differs from nothing."""
    found = compared(made(tmp_path / "a"), made(tmp_path / "b"))
    told = compare.table([found], ["other"], {found.drill}, io.StringIO())
    assert re.search(r"^alone +other +in B only$", told, re.MULTILINE) and "differ" not in told


def test_hostile_words_are_written_out(tmp_path: Path) -> None:
    """A reason that would steer the terminal is shown, not obeyed."""
    evil = {"at": 9000, "set": {"mode_reasons": ["\x1b[2J</script>"]}}
    text = compare.render(compared(made(tmp_path / "a", evil), made(tmp_path / "b")), io.StringIO())
    assert "\x1b" not in text and "\\x1b[2J" in text
