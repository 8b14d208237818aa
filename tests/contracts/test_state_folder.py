"""A whole folder of state files: what is there, what is missing, what two files say of one thing, and the command."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import limits
from harness.cli import main
from harness.contracts.state_files import Finding, read_surfaces
from harness.contracts.state_files.folder import FILES_MAX, judge_folder
from harness.contracts.state_files.manifest import Manifest
from harness.errors import SpecError

ROOT = Path(__file__).parents[2]
LAWFUL = ROOT / "fixtures" / "state" / "lawful"
MANIFEST = ROOT / "specs" / "state" / "v7_manifest.json"
SURFACES = read_surfaces()
T = 1795262400.25

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the lawful folder."""
    return Path(shutil.copytree(LAWFUL, tmp_path / "state"))


def judged(folder: Path, manifest: Path = MANIFEST) -> list[Finding]:
    return judge_folder(folder, SURFACES, Manifest.read(manifest, SURFACES.folder))


def change(folder: Path, name: str, edit: Edit) -> None:
    """Edit one file of the folder by the name of its surface."""
    file = folder / SURFACES.by_name[name].file
    document = json.loads(file.read_bytes())
    edit(document)
    file.write_text(json.dumps(document))


def registered(folder: Path, entries: int) -> None:
    """Let the risk snapshot say how many exit levels are in the registry."""
    change(folder, "risk_snapshot", lambda document: document["tp_sl_registry"].update(num_registry_entries=entries))


def said(findings: list[Finding]) -> set[tuple[str, str, str]]:
    """(tag, place, severity) of each."""
    return {(each.tag, each.place, each.severity) for each in findings}


def test_the_lawful_folder_is_lawful(folder: Path) -> None:
    """Nothing is wrong with it, and nothing is with it when the optional files are not there."""
    assert judged(folder) == []
    for surface in SURFACES.by_name.values():
        if surface.optional:
            (folder / surface.file).unlink()
    assert judged(folder) == []


def test_an_empty_folder_is_not_lawful(tmp_path: Path) -> None:
    """Loaders tolerate what is missing; a judge that did would pass an empty folder."""
    found = judged(tmp_path)
    assert {each.tag for each in found} == {"MISSING"}
    assert {each.file for each in found} == {each.file for each in SURFACES.by_name.values() if not each.optional}


# ---- what lies there --------------------------------------------------------------------------------------


def test_what_the_manifest_does_not_name(folder: Path) -> None:
    """Another file is a breach; a temporary that a crash left behind is tolerated."""
    (folder / "extra.json").write_text("{}")
    (folder / ".nav.json.new").write_text('{"nav"')
    (folder / "deep").mkdir()
    assert said(judged(folder)) == {("MANIFEST", "extra.json", "breach"), ("MANIFEST", ".nav.json.new", "deviation"),
                                    ("MANIFEST", "deep", "breach")}


def test_what_is_no_ordinary_file_is_not_opened(folder: Path, tmp_path: Path) -> None:
    """A link, a pipe, a folder and a file without end are findings, whatever they lead to."""
    for name in ("nav", "kpis", "diagnostics", "router_health"):
        (folder / SURFACES.by_name[name].file).unlink()
    (folder / "nav.json").symlink_to(LAWFUL / "nav.json")
    os.mkfifo(folder / "kpis_v7.json")
    (folder / "diagnostics.json").mkdir()
    (folder / "router_health.json").write_bytes(b" " * (limits.DOCUMENT_BYTES_MAX + 1))
    assert said(judged(folder)) == {("UNREADABLE", each, "breach") for each in (
        "nav.json", "kpis_v7.json", "diagnostics.json", "router_health.json")}


def test_a_folder_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    """More files than any system writes: a finding, and an end."""
    for number in range(FILES_MAX + 5):
        (tmp_path / f"{number}.json").touch()
    found = judged(tmp_path)
    assert ("UNREADABLE", "/", "breach") in said(found) and len(found) <= 1_000


def test_files_without_number_are_not_read_to_the_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many files a manifest names: beyond a bound for all of them together none is read, and each is a finding."""
    monkeypatch.setattr("harness.contracts.state_files.folder.BYTES_MAX", 10)
    found = judged(folder)
    read = min(each.name for each in folder.iterdir())
    assert {each.file for each in found if each.tag == "UNREADABLE"} == {each.name for each in folder.iterdir()} - {read}
    assert all(str(each).endswith("together are larger than 10 bytes") for each in found if each.tag == "UNREADABLE")


# ---- the manifest -----------------------------------------------------------------------------------------


def with_manifest(folder: Path, edit: Edit) -> list[Finding]:
    manifest = json.loads(MANIFEST.read_bytes())
    edit(manifest["state_files"])
    file = folder.parent / "manifest.json"
    file.write_text(json.dumps(manifest))
    return judged(folder, file)


def test_the_manifest_says_where_whose_and_what_for(folder: Path) -> None:
    """An entry without one of the three, two entries of one file, an owner of another name, a surface that is not named."""
    def spoil(entries: dict[str, Any]) -> None:
        entries["nav"].pop("description")
        entries["nav_state"]["owner"] = "executor"
        entries["again"] = dict(entries["kpis_v7"])
        del entries["rv_momentum"]

    assert said(with_manifest(folder, spoil)) == {
        ("MANIFEST", "manifest.json#/state_files/nav/description", "breach"),
        ("MANIFEST", "manifest.json#/state_files/nav_state/owner", "breach"),
        ("MANIFEST", "manifest.json#/state_files/again/path", "breach"),
        ("MANIFEST", "manifest.json#/state_files", "breach"), ("MANIFEST", "rv_momentum.json", "breach")}


def test_the_source_s_owners_and_more_files_are_lawful(folder: Path) -> None:
    """Owners as the source names them, and a file of which the contract knows nothing but its time."""
    def source(entries: dict[str, Any]) -> None:
        for surface in SURFACES.by_name.values():
            entries[surface.manifest_key]["owner"] = surface.owners[0]
        entries["regimes"] = {"path": "logs/state/regimes.json", "owner": "executor", "description": "another surface"}
        entries["executed"] = {"path": "logs/execution/executed.jsonl", "owner": "executor", "description": "no state file"}

    (folder / "regimes.json").write_text(json.dumps({"updated_ts": T}))
    assert with_manifest(folder, source) == []
    (folder / "regimes.json").write_text("{}")
    assert said(with_manifest(folder, source)) == {("TIME", "regimes.json#/updated_ts", "breach")}
    (folder / "regimes.json").write_text("{")
    assert said(with_manifest(folder, source)) == {("SCHEMA", "regimes.json", "breach")}
    (folder / "regimes.json").unlink()
    assert said(with_manifest(folder, source)) == {("MISSING", "regimes.json", "breach")}
    assert with_manifest(folder, lambda entries: (source(entries), entries["regimes"].update(optional=True))[0]) == []


def test_the_keys_of_the_manifest_are_the_contract_s(folder: Path) -> None:
    """A surface under another's key is another file to whoever reads by the key; a path leads nowhere else; how often a file is
    written is the source's, and what says otherwise is tolerated."""
    def swapped(entries: dict[str, Any]) -> None:
        nav, kpis = entries["nav"], entries["kpis_v7"]
        nav["path"], kpis["path"] = kpis["path"], nav["path"]

    def astray(entries: dict[str, Any]) -> None:
        entries["other"] = {"path": "logs/state/../state/other.json", "owner": "somebody", "description": "elsewhere"}

    assert said(with_manifest(folder, swapped)) == {
        ("MANIFEST", "manifest.json#/state_files/nav/path", "breach"),
        ("MANIFEST", "manifest.json#/state_files/kpis_v7/path", "breach")}
    assert said(with_manifest(folder, astray)) == {("MANIFEST", "manifest.json#/state_files/other/path", "breach")}
    for edit in (lambda entries: entries["nav"].pop("update_frequency"),
                 lambda entries: entries["nav"].update(update_frequency="per_intel")):
        assert said(with_manifest(folder, edit)) == {
            ("MANIFEST", "manifest.json#/state_files/nav/update_frequency", "deviation")}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"state_files": []}', '{"state_files": {"a": 1, "a": 2}}'])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    """Without a manifest nobody can say what belongs there: a set-up error, not a finding."""
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(SpecError):
        Manifest.read(tmp_path / "m.json", SURFACES.folder)


def test_any_entries_at_all_are_survived(folder: Path) -> None:
    """Entries that are no objects, paths that are none: findings."""
    for wrong in (None, 7, [], {"path": 7}, {"path": "../../etc/passwd", "owner": [], "description": ""}):
        assert "MANIFEST" in {each.tag for each in with_manifest(folder, partial(_as_nav, wrong))}


def _as_nav(wrong: object, entries: dict[str, Any]) -> None:
    entries["nav"] = wrong


# ---- two files of one thing -------------------------------------------------------------------------------


def test_the_mirror_is_never_newer_and_says_the_same(folder: Path) -> None:
    """Newer than its source, or another value under the same time: breaches. Older: it may still follow, and it is told."""
    change(folder, "nav_state", lambda document: document.update(updated_ts=T + 0.001))
    assert said(judged(folder)) == {("CROSS", "nav_state.json#/updated_ts", "breach")}
    change(folder, "nav_state", lambda document: document.update(updated_ts=T, nav=599_000.0))
    assert said(judged(folder)) == {("CROSS", "nav_state.json#/nav", "breach")}
    change(folder, "nav_state", lambda document: document.update(updated_ts=T - 1, nav=599_000.0))
    assert said(judged(folder)) == {("CROSS", "nav_state.json#/nav", "deviation")}


def test_the_mirror_stands_while_its_source_is_missing_or_torn(folder: Path) -> None:
    """Last known good: what is wrong then is wrong with the source alone."""
    (folder / "nav.json").write_text('{"nav": 6')
    assert said(judged(folder)) == {("SCHEMA", "nav.json", "breach")}
    (folder / "nav.json").unlink()
    assert said(judged(folder)) == {("MISSING", "nav.json", "breach")}


def test_a_position_without_its_entry(folder: Path) -> None:
    """In files of one loop it is a breach, and so is a diagnosis that does not say so; between two loops it is tolerated."""
    change(folder, "positions_ledger", lambda document: (document["entries"].pop(), document["metadata"].update(entry_count=1)))
    path = "diagnostics.json#/runtime_diagnostics/exit_pipeline"
    assert said(judged(folder)) == {("CROSS", "positions_ledger.json#/entries", "breach"), *(
        ("CROSS", f"{path}/{key}", "breach") for key in ("tp_sl_registered_count", "tp_sl_missing_count",
                                                         "mismatch_breakdown/missing_ledger_positions",
                                                         "ledger_registry_mismatch"))}
    change(folder, "positions_ledger", lambda document: document.update(updated_at=T - 1))
    assert {each.severity for each in judged(folder)} == {"deviation"}
    change(folder, "positions_ledger", lambda document: document.update(updated_at=T - 60))
    assert [each.place for each in judged(folder) if each.severity == "breach"] == ["positions_ledger.json#/entries"]


def test_a_ghost_in_the_ledger(folder: Path) -> None:
    """An entry without a position is tolerated, as the source does not look; the counters must still count it."""
    change(folder, "positions_state", lambda document: document["positions"].pop())
    found = judged(folder)
    assert ("CROSS", "positions_ledger.json#/entries", "deviation") in said(found)
    assert {each.path.rpartition("/")[2] for each in found if each.severity == "breach"} == {
        "open_positions_count", "ghost_ledger_entries", "stale_tp_sl_entries", "num_positions", "ledger_registry_mismatch",
        "notional", "unrealized_pnl"}


def test_another_quantity_in_the_ledger(folder: Path) -> None:
    """The same position with another quantity, or another price, is a breach."""
    change(folder, "positions_ledger", lambda document: document["entries"][0].update(qty=0.2))
    change(folder, "positions_ledger", lambda document: document["entries"][1].update(entry_price=1.0))
    assert said(judged(folder)) == {("CROSS", "positions_ledger.json#/entries/0/qty", "breach"),
                                    ("CROSS", "positions_ledger.json#/entries/1/entry_price", "breach")}


@pytest.mark.parametrize(("edit", "counted"), [
    (lambda entry, levels: entry.update(tp=None, sl=None), {"tp_sl_registered_count": 1, "missing_tp_sl_entries": 1}),
    (lambda entry, levels: levels.pop("BTC-PERPETUAL:SHORT"), {"missing_tp_sl_entries": 1}),
    (lambda entry, levels: entry.update(tp=0, sl=None), {}),
    (lambda entry, levels: levels.update({"GONE:LONG": {"tp": 1, "sl": None}}), {"stale_tp_sl_entries": 1})])
def test_exit_counters_are_counted_again(folder: Path, edit: Callable[[Any, Any], None], counted: dict[str, int]) -> None:
    """A level must stand in the entry and in the registry; target or stop is enough, and 0 is a level."""
    def edited(document: dict[str, Any]) -> None:
        edit(document["entries"][1], document["tp_sl_levels"])
        registered(folder, len(document["tp_sl_levels"]))

    change(folder, "positions_ledger", edited)
    missing = counted.get("missing_tp_sl_entries", 0)
    wrong = {*counted, *(["tp_sl_missing_count"] if missing else []), *(["ledger_registry_mismatch"] if counted else [])}
    assert {each.path.rpartition("/")[2] for each in judged(folder)} == wrong

    def honest(document: dict[str, Any]) -> None:
        pipeline = document["runtime_diagnostics"]["exit_pipeline"]
        pipeline["mismatch_breakdown"].update({key: value for key, value in counted.items() if key.endswith("entries")})
        pipeline.update(tp_sl_missing_count=missing, ledger_registry_mismatch=bool(counted))
        pipeline["tp_sl_registered_count"] = counted.get("tp_sl_registered_count", 2)
        pipeline["tp_sl_coverage_pct"] = pipeline["tp_sl_registered_count"] / 2

    change(folder, "diagnostics", honest)
    assert judged(folder) == []


@pytest.mark.parametrize(("price", "under"), [(61200.0, 1), (61199.0, 0), (59000.0, 0)])
def test_under_water_is_counted_at_two_per_cent(folder: Path, price: float, under: int) -> None:
    """A short that lost two per cent of its entry price without a level counts, just below it does not."""
    change(folder, "positions_ledger", lambda document: document["tp_sl_levels"].pop("BTC-PERPETUAL:SHORT"))
    registered(folder, 1)
    profit = -3000 * (price / 60_000 - 1)
    change(folder, "positions_state", lambda document: document["positions"][1].update(mark_price=price, unrealized_pnl=profit))
    change(folder, "kpis", lambda document: document["per_symbol"]["BTC-PERPETUAL"].update(unrealized_pnl=profit))

    def honest(document: dict[str, Any]) -> None:
        pipeline = document["runtime_diagnostics"]["exit_pipeline"]
        pipeline["mismatch_breakdown"]["missing_tp_sl_entries"] = 1
        pipeline.update(tp_sl_missing_count=1, ledger_registry_mismatch=True, underwater_without_tp_sl_count=1 - under)

    change(folder, "diagnostics", honest)
    path = "diagnostics.json#/runtime_diagnostics/exit_pipeline/underwater_without_tp_sl_count"
    assert said(judged(folder)) == {("CROSS", path, "breach")}


@pytest.mark.parametrize(("name", "edit", "path"), [
    ("kpis", lambda document: document["portfolio"].update(nav=1.0), "/portfolio/nav"),
    ("kpis", lambda document: document["portfolio"].update(dd_pct=0.5), "/portfolio/dd_pct"),
    ("kpis", lambda document: document["portfolio"].update(var_nav_pct=0.5), "/portfolio/var_nav_pct"),
    ("kpis", lambda document: document["portfolio"].update(cvar_nav_pct=0.5), "/portfolio/cvar_nav_pct"),
    ("kpis", lambda document: document["per_symbol"]["BTC-PERPETUAL"].update(notional=1.0),
     "/per_symbol/BTC-PERPETUAL/notional"),
    ("kpis", lambda document: document["per_symbol"]["BTC-PERPETUAL"].update(unrealized_pnl=1.0),
     "/per_symbol/BTC-PERPETUAL/unrealized_pnl"),
    ("kpis", lambda document: document.update(dd_state="DRAWDOWN"), "/dd_state"),
    ("kpis", lambda document: document.update(drawdown={"dd_pct": 0.1}), "/drawdown/dd_pct"),
    ("kpis", lambda document: document.update(router_health_score=1.0), "/router_health_score"),
    ("kpis", lambda document: document["portfolio"].update(var_nav_pct=None), "/portfolio/var_nav_pct"),
    ("kpis", lambda document: document["per_symbol"].pop("BTC-PERPETUAL"), "/per_symbol"),
    ("kpis", lambda document: document["per_symbol"]["BTC-PERPETUAL"].update(cvar_nav_pct=None),
     "/per_symbol/BTC-PERPETUAL/cvar_nav_pct"),
    ("kpis", lambda document: document["per_symbol"].update({"ETH-PERPETUAL": {"notional": 1e9}}),
     "/per_symbol/ETH-PERPETUAL/notional"),
    ("risk_snapshot", lambda document: (document["risk_inputs"]["router"].update(degraded=3),
                                        document.update(risk_mode="WARN", risk_mode_score=0.5)),
     "/risk_inputs/router/degraded"),
    ("risk_snapshot", lambda document: (document["risk_inputs"]["router"].update(broken=3),
                                        document.update(risk_mode="WARN", risk_mode_score=0.5)),
     "/risk_inputs/router/broken"),
    ("risk_snapshot", lambda document: document["tp_sl_registry"].update(num_positions=7), "/tp_sl_registry/num_positions"),
    ("risk_snapshot", lambda document: document["tp_sl_registry"].update(num_registry_entries=7),
     "/tp_sl_registry/num_registry_entries"),
    ("risk_snapshot", lambda document: document["var"]["covariance"].update(
        assets=["BTC", "BTC-27NOV26-60000-C", "ETH"]), "/var/covariance/assets"),
    ("risk_snapshot", lambda document: document["var"]["covariance"].update(
        weights=[1.0, 239 / 600_000, 0.0], matrix=[[1.6e-5, 0, 0], [0, 0, 0], [0, 0, 0]]), "/var/covariance/weights/2"),
    ("nav_state", lambda document: (document.pop("nav"), document.pop("nav_usd"), document.pop("peak_equity"),
                                    document.update(total_equity=1.0)), "/total_equity"),
    ("nav_state", lambda document: document.update(aum={"total": 1.0}), "/aum")])
def test_numbers_of_one_loop_agree(folder: Path, name: str, edit: Edit, path: str) -> None:
    """What two files of one loop tell is the same number."""
    change(folder, name, edit)
    assert said(judged(folder)) == {("CROSS", f"{SURFACES.by_name[name].file}#{path}", "breach")}


    # a stamp that is a millisecond off, or a minute, is no way out of being compared
    for late in (-0.001, -60.0):
        change(folder, name, lambda document, late=late: document.update(
            {key: T + late for key in ("updated_ts", "updated_at") if key in document}))
        assert said(judged(folder)) == {("CROSS", f"{SURFACES.by_name[name].file}#{path}", "deviation")}


def test_counters_of_six_seconds_later_are_counted_again(folder: Path) -> None:
    """And told: the positions may have moved since, so that nobody knows."""
    def later(document: dict[str, Any]) -> None:
        document.update(updated_ts=T + 6)
        runtime = document["runtime_diagnostics"]
        runtime["exit_pipeline"]["open_positions_count"] = 0
        for key, value in runtime["liveness"]["details"].items():
            runtime["liveness"]["details"][key] = value + 6 if value < 3_000 else value

    change(folder, "diagnostics", later)
    path = "diagnostics.json#/runtime_diagnostics/exit_pipeline/open_positions_count"
    assert ("CROSS", path, "deviation") in said(judged(folder))


def test_a_total_alone_is_no_way_round(folder: Path) -> None:
    """A snapshot that tells its value as nav_total only is held against nav.json all the same."""
    change(folder, "risk_snapshot", lambda document: (
        document.pop("nav"), document.update(nav_total=1.0), document["dd_state"]["drawdown"].update(peak=1.0),
        document["var"].update(portfolio_var_usd=0.0093052), document["var"].pop("covariance")))
    assert said(judged(folder)) == {("CROSS", "risk_snapshot.json#/nav_total", "breach")}


def test_a_mismatch_without_its_breakdown(folder: Path) -> None:
    """The breakdown is optional; the flag that it explains is counted again all the same."""
    change(folder, "positions_ledger", lambda document: document["tp_sl_levels"].update({"GONE:LONG": {"tp": 1, "sl": None}}))
    registered(folder, 3)
    change(folder, "diagnostics", lambda document: document["runtime_diagnostics"]["exit_pipeline"].pop("mismatch_breakdown"))
    path = "diagnostics.json#/runtime_diagnostics/exit_pipeline/ledger_registry_mismatch"
    assert said(judged(folder)) == {("CROSS", path, "breach")}


def test_what_stands_still_while_others_go_on(folder: Path) -> None:
    """Fifteen minutes behind the freshest file is stale, which the contract calls a soft failure; at the bound it is not."""
    change(folder, "router_health", lambda document: document.update(updated_ts=T - 900))
    assert judged(folder) == []
    change(folder, "router_health", lambda document: document.update(updated_ts=T - 900.01))
    assert said(judged(folder)) == {("STALE", "router_health.json#/updated_ts", "deviation")}


# ---- the command ------------------------------------------------------------------------------------------


def test_the_command_tells_by_its_exit_code(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 lawful, 1 a breach, 2 set-up; a deviation counts under --strict only."""
    assert main(["validate", "state", str(folder)]) == 0
    assert capsys.readouterr().out == f"VALIDATION OK: {folder}\n"
    change(folder, "positions_state", lambda document: document["positions"][1].update(side="BOTH"))
    assert main(["validate", "state", str(folder)]) == 0
    assert "- [SEMANTIC] positions_state.json#/positions/1/side: 'BOTH' is neither LONG nor SHORT" in capsys.readouterr().out
    assert main(["validate", "state", str(folder), "--strict"]) == 1
    (folder / "nav.json").unlink()
    assert main(["validate", "state", str(folder), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["lawful"] is False and {each["severity"] for each in told["findings"]} == {"breach", "deviation"}
    assert main(["validate", "state", str(folder), "--quiet"]) == 1 and capsys.readouterr() == ("", "")
    assert main(["validate", "state", str(folder / "nowhere")]) == 2
    assert main(["validate", "state", str(folder), "--manifest", str(folder / "kpis_v7.json")]) == 2
    assert main(["validate", "state", str(folder), "--policy", str(folder / "nowhere")]) == 2
    assert main(["validate", "state", "a\0b"]) == 2


def test_names_cannot_forge_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file whose name holds a line end, a terminal's escape or no character at all stays on its line."""
    for name in (b"a\nVALIDATION OK.json", b"\x1b[2J.json", b"\xff.json"):
        (tmp_path / os.fsdecode(name)).touch()
    assert main(["validate", "state", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert "\x1b" not in told and not any(line.startswith("VALIDATION OK") for line in told.splitlines())


@given(st.dictionaries(st.sampled_from([each.file for each in SURFACES.by_name.values()]), st.binary(max_size=300), max_size=4),
       st.dictionaries(st.sampled_from([each.file for each in SURFACES.by_name.values()]),
                       st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=4)), max_size=4))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_in_any_file_are_survived(tmp_path_factory: pytest.TempPathFactory, whole: dict[str, bytes],
                                            patched: dict[str, tuple[int, bytes]]) -> None:
    """Arbitrary bytes in some files and a few bytes changed in others: findings, never an exception."""
    folder = Path(shutil.copytree(LAWFUL, tmp_path_factory.mktemp("any") / "state"))
    for name, data in whole.items():
        (folder / name).write_bytes(data)
    for name, (place, data) in patched.items():
        old = (folder / name).read_bytes()
        (folder / name).write_bytes(old[:place] + data + old[place + len(data):])
    assert all(str(each).isprintable() for each in judged(folder))
