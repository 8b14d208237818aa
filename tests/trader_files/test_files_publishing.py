"""State files are written every loop, in order, by swaps, with times that never go back; what fails harms no trading."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from bench_trader import SILENT, Bench

from harness.contracts.state_files.contract import Contract
from system_under_test.machine import SWAP_PLAN, Replace

ORDER = ("nav", "positions_state", "positions_ledger", "risk_snapshot", "diagnostics", "router_health", "kpis_v7")
DATED = {name: "updated_at" if name in ("positions_state", "positions_ledger", "kpis_v7") else "updated_ts" for name in ORDER}
PARTS = {name: "kpis" if name == "kpis_v7" else name for name in ORDER}


def loops(bench: Bench) -> list[list[tuple[str, dict[str, Any]]]]:
    """What was published, loop by loop: files that carry the same date were written together."""
    found: list[list[tuple[str, dict[str, Any]]]] = []
    last = None
    for each in bench.replaced:
        name = each.file.removeprefix("state/").removesuffix(".json")
        if name not in ORDER:
            continue
        document = orjson.loads(each.data)
        if document[DATED[name]] != last:
            last = document[DATED[name]]
            found.append([])
        found[-1].append((name, document))
    return found


def in_trouble(bench: Bench, file: str, why: str | None) -> None:
    bench.refuses = lambda value: why if value.file == f"state/{file}.json" else None


def test_every_loop_in_the_contract_s_order() -> None:
    """Seven files a second, one swap each, all of a loop with one date; sequence numbers without a hole."""
    bench = Bench().active()
    bench.replaced.clear()
    bench.run(5_000)
    published = loops(bench)
    assert [tuple(name for name, _ in each) for each in published] == [ORDER] * 5
    stamps = [each[0][1]["updated_ts"] for each in published]
    assert [round(after - before, 3) for before, after in zip(stamps, stamps[1:], strict=False)] == [1.0] * 4
    assert all(each.plan == SWAP_PLAN for each in bench.replaced if each.file.startswith("state/"))
    for name in ORDER:
        writers = [document["writer"] for each in published for told, document in each if told == name]
        assert {(each["node"], each["boot"]) for each in writers} == {("trader", 1)}
        assert [each["seq"] for each in writers] == list(range(writers[0]["seq"], writers[0]["seq"] + 5))


def test_the_judge_s_contract_finds_nothing() -> None:
    """Every document of ten seconds of trading, two lives of it, against the contract that is evaluated elsewhere."""
    bench = Bench(hold_ms=2_500).active()
    bench.run(5_000)
    bench.kill()
    bench.run(300)
    bench.life()
    bench.run(5_000)
    contracts = {name: Contract.load(part=PARTS[name]) for name in ORDER}
    held = 0
    for each in loops(bench):
        for name, document in each:
            assert not contracts[name].breaches(document), (name, document)
            held += len(document.get("positions", ()))
    assert held > 4, "nothing was held, so nothing was shown"


def test_times_never_go_back_over_a_restart_either() -> None:
    """The machine's clock is an hour behind in the second life: no file is dated before what it was dated."""
    bench = Bench().active()
    before = {name: bench.state(name)[DATED[name]] for name in ORDER}
    bench.kill()
    bench.wall_shift = -3_600_000
    bench.life()
    bench.run(3_000)
    for name in ORDER:
        document = bench.state(name)
        assert document[DATED[name]] >= before[name], name
        assert document["writer"]["boot"] == 2


def test_a_stepped_clock_moves_no_date() -> None:
    """Within a life dates go on with the time that passes, whatever the wall clock says."""
    bench = Bench().active()
    before = bench.state("diagnostics")["updated_ts"]
    bench.wall_shift = -3_600_000
    bench.run(2_000)
    assert bench.state("diagnostics")["updated_ts"] == pytest.approx(before + 2.0, abs=1.001)


@pytest.mark.parametrize("left", [
    b"", b"{", b"[]", b"null", b'{"updated_ts": 4e9}', b'{"updated_ts": "soon", "writer": {"node": "trader"}}',
    b'{"updated_ts": 9e14, "writer": {"node": "trader"}}', b'{"updated_ts": true, "writer": {"node": "trader"}}',
    b'{"updated_ts": 4e9, "writer": {"node": "somebody"}}', b'{"updated_ts": -1, "writer": {"node": "trader"}}', b"\xff" * 40,
], ids=repr)
def test_a_file_that_says_nothing_is_noted_and_replaced(left: bytes) -> None:
    """What lies there at the start and is not this node's, or no document, dates nothing; it is noted and written anew."""
    bench = Bench()
    bench.kill()
    bench.files["state/diagnostics.json"] = left
    bench.notes.clear()
    bench.life()
    bench.run(1_500)
    assert [fields["file"] for _, _, fields in bench.noted("state_unreadable")] == ["state/diagnostics.json"]
    assert bench.state("diagnostics")["writer"] == {"node": "trader", "boot": 2, "seq": 2}
    assert bench.state("diagnostics")["updated_ts"] < 2e9


def test_a_failed_write_is_noted_tried_again_and_harms_nothing() -> None:
    """While positions_state cannot be written every failure is noted, the others go on, and orders go out as before."""
    bench = Bench().active()
    in_trouble(bench, "positions_state", "OSError: no space left")
    old, sent = bench.state("positions_state"), len(bench.sent())
    bench.run(3_000)
    assert bench.state("positions_state") == old
    assert len(bench.noted("state_write_failed", file="state/positions_state.json", why="OSError: no space left")) == 3
    assert bench.state("nav")["updated_ts"] > old["updated_at"] + 2
    assert len(bench.sent()) > sent and bench.status()["trading_mode"] == "Active"
    bench.refuses = lambda value: None
    bench.run(1_100)
    assert bench.state("positions_state")["updated_at"] > old["updated_at"] + 3
    assert bench.noted("state_written_again", file="state/positions_state.json")


def test_a_write_that_nobody_answers_holds_up_no_other() -> None:
    """A disk that hangs: the file is not written a second time over the first, which is noted, and the rest goes on."""
    bench = Bench().active()
    in_trouble(bench, "nav", SILENT)
    bench.run(1_100)
    bench.replaced.clear()
    bench.run(3_000)
    assert not [each for each in bench.replaced if each.file == "state/nav.json"]
    assert len(bench.noted("state_write_failed", file="state/nav.json")) == 3
    assert bench.state("diagnostics")["updated_ts"] > bench.state("nav")["updated_ts"] + 2


def test_a_document_that_cannot_be_made_is_noted_and_the_rest_is_published() -> None:
    """A mistake in one report ends neither the loop nor the process."""
    bench = Bench().active()
    bench.trader.risk._mode = lambda inputs: inputs["nothing of this name"]
    bench.run(2_000)
    assert bench.noted("state_write_failed", file="state/risk_snapshot.json")
    assert bench.state("kpis_v7")["updated_at"] > bench.state("risk_snapshot")["updated_ts"]
    assert bench.status()["trading_mode"] == "Active"


def test_killed_it_goes_on_telling() -> None:
    """Kill ends opening, not telling: the files go on, and the risk mode says HALTED."""
    bench = Bench().active()
    bench.exchange.maintenance_margin = 9.9
    bench.until(lambda: bench.status()["trading_mode"] == "Kill")
    bench.run(1_500)
    before = bench.state("diagnostics")
    bench.run(2_000)
    assert bench.state("diagnostics")["updated_ts"] >= before["updated_ts"] + 2
    assert bench.state("risk_snapshot")["risk_mode"] == "HALTED"
    assert sum(bench.state("diagnostics")["runtime_diagnostics"]["veto_counters"]["by_reason"].values()) \
        > before["runtime_diagnostics"]["veto_counters"]["total_vetoes"]


def test_loops_that_were_missed_are_not_made_up_for() -> None:
    """After half a minute of standing still there is one publish, not thirty."""
    bench = Bench().active()
    bench.replaced.clear()
    stood_still = bench.mono
    bench.mono += 30_000
    bench.run(500)
    assert len(loops(bench)) == 1
    assert bench.mono > stood_still + 30_000


def test_the_value_is_what_the_account_says_at_the_index_of_now() -> None:
    """Equity times index; both moved, and the value follows."""
    bench = Bench().active()
    bench.run(1_100)
    assert bench.state("nav")["nav"] == bench.state("nav")["nav_usd"] == pytest.approx(10.0 * 100_000.0)
    bench.exchange.index = 101_000.0
    bench.run(1_200)
    assert bench.state("nav")["nav"] == pytest.approx(10.0 * 101_000.0)
    bench.exchange.on_private_get_account_summary = lambda params: ({
        "equity": 12.0, "maintenance_margin": 0.5, "limits": {"matching_engine": {"trading": {"total": {
            "rate": 20, "burst": 200}}}}}, None)
    bench.run(4_000)
    assert bench.state("nav")["nav"] == pytest.approx(12.0 * 101_000.0)


def test_a_value_that_was_never_told_is_not_zero() -> None:
    """Before the account has spoken there is no nav.json; a later life that hears nothing goes on with the last value."""
    bench = Bench()
    bench.exchange.silent = lambda method, params: method == "private/get_account_summary"
    bench.run(3_000)
    assert "state/nav.json" not in bench.files and "state/diagnostics.json" in bench.files
    bench.exchange.silent = lambda method, params: False
    bench.active()
    bench.run(1_100)
    told = bench.state("nav")
    bench.kill()
    bench.exchange.silent = lambda method, params: method == "private/get_account_summary"
    bench.run(5_000)
    bench.life()
    bench.run(2_500)
    again = bench.state("nav")
    assert again["writer"]["boot"] == 2 and again["updated_ts"] > told["updated_ts"] + 5
    assert (again["nav"], again["nav_detail"]) == (told["nav"], told["nav_detail"]), "the last value, and when it was told"


def test_a_life_that_ended_between_two_files_leaves_no_two_values() -> None:
    """Killed with a new nav.json and the snapshot of the loop before: the next life goes on with one value in all files."""
    bench = Bench().active()
    bench.run(1_100)
    snapshot = bench.files["state/risk_snapshot.json"]
    bench.exchange.index = 101_000.0
    bench.run(1_200)
    bench.kill()
    told, bench.files["state/risk_snapshot.json"] = bench.state("nav"), snapshot
    assert orjson.loads(snapshot)["nav"] != told["nav"]
    bench.exchange.silent = lambda method, params: method == "private/get_account_summary"
    bench.life()
    bench.run(1_100)
    again, risk = bench.state("nav"), bench.state("risk_snapshot")
    assert again["writer"]["boot"] == risk["writer"]["boot"] == 2 and again["updated_ts"] == risk["updated_ts"]
    assert (again["nav"], risk["nav"], bench.state("kpis_v7")["portfolio"]["nav"]) == (told["nav"],) * 3
    assert risk["dd_state"]["drawdown"]["peak"] >= told["nav"]


def test_counters_are_those_of_what_really_happened() -> None:
    """Refusals by code, orders and signals, against the notes of the same life; nothing executed by an earlier one."""
    bench = Bench(hold_ms=500).active()
    bench.run(3_000)
    bench.kill()
    bench.life()
    bench.notes.clear()
    bench.active()
    bench.run(4_050)
    counters = bench.state("diagnostics")["runtime_diagnostics"]["veto_counters"]
    until = bench.state("diagnostics")["updated_ts"]
    refused: dict[str, int] = {}
    for _, _, fields in bench.noted("refused"):
        refused[fields["code"]] = refused.get(fields["code"], 0) + 1
    assert until > 0 and counters["total_vetoes"] == sum(counters["by_reason"].values())
    assert set(counters["by_reason"]) <= set(refused)
    assert 0 < counters["by_reason"]["OpenPermissionLatched"] <= refused["OpenPermissionLatched"]
    stats = bench.state("nav")["exec_stats"]
    assert 0 < stats["executed_24h"] <= stats["attempted_24h"] == counters["total_orders"]
    assert stats["vetoes_24h"] == counters["total_vetoes"]
    assert 0 < stats["fill_rate"] <= 1


def test_what_is_idle_is_said_to_be() -> None:
    """Limits of one and two seconds: with every wish refused, orders are idle and signals are not."""
    bench = Bench(max_idle_signals_seconds=2, max_idle_orders_seconds=1, max_idle_exits_seconds=0, hold_ms=100).active()
    bench.exchange.maintenance_margin = 8.0
    bench.run(12_000)
    liveness = bench.state("diagnostics")["runtime_diagnostics"]["liveness"]
    assert (liveness["idle_signals"], liveness["idle_orders"], liveness["idle_exits"]) == (False, True, False)
    assert "exits_idle_seconds" not in liveness["details"], "a limit of 0 is none"
    assert liveness["details"]["orders_idle_seconds"] > 1 >= liveness["details"]["signals_idle_seconds"]


def test_fees_and_files_share_a_disk_and_nothing_else() -> None:
    """What the trader keeps for itself is replaced durably as before; only state files are swapped."""
    bench = Bench().active()
    plans = {each.file: each.plan for each in bench.replaced}
    assert isinstance(bench.replaced[0], Replace)
    assert plans["fees.json"] == ("write_temporary", "sync_temporary", "rename", "sync_folder")
