"""The rule files are whole: every name they use exists, and every force has witnesses that were seen to deny it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.drill import grammar
from harness.drill.model import (
    Answers,
    Call,
    Clock,
    Converge,
    Deploy,
    Disconnect,
    Disk,
    Drill,
    Fault,
    Fill,
    Force,
    Given,
    Kill,
    LinkFault,
    Overwrite,
    Pause,
    Predicate,
    RawToxic,
    Remove,
    Starve,
    Switch,
)
from harness.drill.predicate import of_plain
from harness.drill.text import Specs
from harness.errors import SpecError
from harness.recording import script
from harness.recording.timeline import Act, Mark, Probe, Timeline
from harness.verdict import premises
from harness.verdict.case import Case
from harness.verdict.judge import judge
from harness.verdict.premises import landed, witness_kind
from harness.verdict.rules import Event, load_rules
from harness.world.real.effects import RAW_ATTRIBUTES
from harness.world.stack import load_stack

ROOT = Path(__file__).parents[2]
RULES = load_rules(ROOT)

FORCES: dict[str, Force] = {
    **{effect: LinkFault("orders", effect, "both", {"delay": 200, "throttle": 10, "fragment": 7, "truncate": 100}.get(effect))
       for effect in grammar.EFFECTS},
    **{f"toxic_{type}": RawToxic("orders", type, "upstream", attributes) for type, attributes in {
        "latency": {"latency": 200}, "bandwidth": {"rate": 10}, "slicer": {"average_size": 7}, "timeout": {"timeout": 0},
        "reset_peer": {"timeout": 0}, "limit_data": {"bytes": 100}}.items()},
    "kill": Kill("trader"), "stop": Kill("trader", how="stop"), "out_of_memory": Kill("trader", how="out_of_memory"),
    "restart": Deploy("trader", None), "starve": Starve("trader", 40), "disconnect": Disconnect("trader"),
    "kill_before": Kill("trader", None, ("send", "private/buy", 1)), "pause": Pause("trader"),
    "deploy": Deploy("trader", "next"), "call": Call("trader", "control_plane", "POST", "/lever"),
    "call_promised": Call("trader", "control_plane", "POST", "/lever"),
    "call_expected": Call("exchange", "control", "POST", "/acts/x", expect=200),
    "clock_step": Clock("trader", -500), "clock_drift": Clock("trader", 0, 50_000), "switch": Switch("exchange", "frozen"),
    **{f"disk_{kind}": Disk("trader", kind, 300 if kind == "slow" else None)
       for kind in ("stall", "slow", "refuse", "read_only", "torn", "unsynced")},
    "fill": Fill("trader", 0.9), "fill_full": Fill("trader", 1.0), "fill_unlinked": Fill("trader", 0.9, True),
    "fill_unlinked_full": Fill("trader", 1.0, True), "clock_to": Clock("trader", to_ms=1_800_000_000_000),
    "overwrite": Overwrite("trader", "state/nav.json"), "remove": Remove("trader", "state/nav.json"),
    "overwrite_often": Overwrite("trader", "state/nav.json", every_ms=100),
}

LANDED: dict[str, dict[str, list[Any]]] = {
    "stall": {"flow.received_bytes": [9, 5, 5, 5], "flow.offered_bytes": [5, 6, 7, 8]},
    "drop": {"flow.received_bytes": [9, 5, 5, 5], "flow.offered_bytes": [5, 6, 7, 8]},
    "cut": {"link.connections": [3, 0, 0, 0], "link.dial_refused": [0, 1, 4, 4], "flow.received_bytes": [9, 9, 9, 9]},
    "delay": {"flow.lag_ms": [1, 199, 205, 2]},
    "throttle": {"flow.offered_bytes": [1, 2, 3, 90], "flow.rate_bytes_per_s": [90_000, 11_000, 9_000, 80_000],
                 "flow.lag_ms": [2, 300, 800, 9]},
    "fragment": {"flow.bytes_per_segment": [900, 7, 6, 900]},
    "reset": {"link.connections_ended": [1, 2, 2, 2], "flow.received_bytes": [5, 9, 9, 20]},
    "truncate": {"link.connections_ended": [1, 1, 2, 2], "flow.bytes_per_connection": [4_000, 120, 110, 900]},
    "kill": {"process.alive": [True, False, False, True]},
    "stop": {"process.alive": [True, False, False, True], "process.exit_code": [None, 0, 0, None]},
    "out_of_memory": {"process.alive": [True, False, False, True], "process.oom_killed": [False, True, True, False]},
    "restart": {"process.alive": [True, False, True, True], "process.start_time": [7, 9, 9, 9]},
    "starve": {"cpu.throttled_ms": [0, 300, 900, 990], "cpu.percent_of_before": [100, 41, 39, 80]},
    "disconnect": {"network.attached": [True, False, False, True], "flow.received_bytes": [4, 5, 5, 5]},
    "kill_before": {"trap.hit": [False, True, True, True], "process.alive": [True, False, False, True]},
    "pause": {"process.state": ["S", "T", "T", "S"]}, "deploy": {"node.build": ["current", "next", "next", "next"],
                                                                   "process.start_time": [7, 9, 9, 9]},
    "clock_step": {"clock.offset_ms": [0, -498, -499, 0]}, "clock_drift": {"clock.offset_ms": [0, 0, 25, 1]},
    "switch": {"switch.uses": [0, 0, 1, 1], "switch.on": [False, True, True, False]},
    "call": {"call.status": [None, 200]},
    "call_promised": {"call.status": [None, 401]},
    "call_expected": {"call.status": [None, 200]},
    "disk_stall": {"ledger.durable_bytes": [4, 5, 5, 5], "disk.waiting": [0, 1, 9, 0]},
    "disk_slow": {"disk.sync_ms": [0, 310, 290, 0]},
    "disk_refuse": {"disk.refusals": [0, 0, 4, 4], "ledger.durable_bytes": [4, 5, 5, 9]},
    "disk_torn": {"disk.lost_bytes": [0, 0, 12, 12]},
    "disk_read_only": {"disk.write_refused": [False, True, True, False], "ledger.durable_bytes": [4, 5, 5, 5]},
    "fill": {"disk.used_ratio": [0.4, 0.9, 0.91, 0.4], "disk.files_ratio": [0.4, 0.9, 0.91, 0.4]},
    "fill_full": {"disk.used_ratio": [0.4, 1.0, 0.99, 0.4], "disk.files_ratio": [0.4, 0.99, 0.99, 0.4],
                  "disk.write_refused": [False, True, True, False]},
    "fill_unlinked": {"disk.used_ratio": [0.4, 0.9, 0.91, 0.4], "disk.files_ratio": [0.4, 0.4, 0.4, 0.4]},
    "fill_unlinked_full": {"disk.used_ratio": [0.4, 1.0, 1.0, 0.4], "disk.files_ratio": [0.4, 0.4, 0.4, 0.4],
                           "disk.write_refused": [False, True, True, False]},
    "disk_unsynced": {"disk.lost_bytes": [0, 0, 12, 12]},
    "clock_to": {"clock.missed_ms": [None, 3, 12, 900_000], "clock.offset_ms": [0, -900_003, -900_001, 0]},
    "overwrite": {"file.stood": [False, True, True, True]}, "remove": {"file.gone": [False, True, True, True]},
    "overwrite_often": {"file.stood": [False, True, True, True], "file.writes": [0, 1, 5, 9]},
}
"""Probes before the fault, soon after it, later, and once it is healed."""

SAME_AS = {"toxic_latency": "delay", "toxic_bandwidth": "throttle", "toxic_slicer": "fragment", "toxic_timeout": "drop",
           "toxic_reset_peer": "reset", "toxic_limit_data": "truncate"}
"""Raw toxics whose witnesses are those of an effect."""

NOT_LANDED: dict[str, list[dict[str, list[Any]]]] = {
    "stall": [{"flow.received_bytes": [4, 5, 6, 6], "flow.offered_bytes": [5, 6, 7, 8]},
              {"flow.received_bytes": [9, 5, 5, 5], "flow.offered_bytes": [5, 5, 5, 5]}, {"flow.received_bytes": [5, 5, 5, 5]},
              {"flow.received_bytes": [0, 0, 0, 0], "flow.offered_bytes": [5, 6, 7, 8]}],
    "drop": [{"flow.received_bytes": [4, 5, 6, 6], "flow.offered_bytes": [5, 6, 7, 8]},
             {"flow.received_bytes": [0, 0, 0, 0], "flow.offered_bytes": [5, 6, 7, 8]}],
    "cut": [{"link.connections": [3, 3, 3, 3], "link.dial_refused": [0, 0, 0, 0], "flow.received_bytes": [5, 5, 5, 5]},
            {"link.connections": [0], "flow.received_bytes": [5, 5, 5, 5]},
            {"link.connections": [3, 0, 3, 3], "link.dial_refused": [0, 1, 1, 1], "flow.received_bytes": [5, 5, 5, 5]},
            {"link.connections": [0, 0, 0, 0], "link.dial_refused": [0, 1, 4, 4], "flow.received_bytes": [0, 0, 0, 0]},
            {"link.connections": [1, 0, 0, 0], "link.connections_ended": [7, 7, 7, 7], "flow.received_bytes": [5, 5, 5, 5]}],
    "delay": [{"flow.lag_ms": [1, 20, 150, 2]}, {"flow.lag_ms": ["x", None, True, "x"]}, {"flow.lag_ms": [1, 20, 300, 2]}],
    "throttle": [{"flow.offered_bytes": [1, 2, 3, 90], "flow.rate_bytes_per_s": [90_000, 80_000, 70_000, 80_000],
                  "flow.lag_ms": [2, 300, 800, 9]},
                 {"flow.offered_bytes": [1, 2, 3, 90], "flow.rate_bytes_per_s": [9_000, 8_000, 9_000, 9_000],
                  "flow.lag_ms": [2, 20, 3, 9]}],
    "fragment": [{"flow.bytes_per_segment": [900, 800, 700, 900]}, {"flow.bytes_per_segment": [5, 5, 6, 5]}],
    "reset": [{"link.connections_ended": [1, 2, 2, 2], "flow.received_bytes": [0, 0, 0, 0]},
              {"link.connections_ended": [2, 2, 2, 2], "flow.received_bytes": [5, 5, 5, 5]},
              {"link.connections_ended": [1, 2, 3, 4], "flow.received_bytes": [5, 6, 7, 8]}],
    "truncate": [{"link.connections_ended": [2, 2, 2, 2], "flow.bytes_per_connection": [4_000, 120, 110, 900]},
                 {"link.connections_ended": [1, 2, 3, 4], "flow.bytes_per_connection": [90, 90, 90, 90]},
                 {"link.connections_ended": [1, 2, 3, 4], "flow.bytes_per_connection": [900, 900, 900, 900]}],
    "kill": [{"process.alive": [False, True, True, True]}, {"process.alive": [True, False, True, True]}],
    "stop": [{"process.alive": [True, False, False, True], "process.exit_code": [None, None, None, None]},
             {"process.alive": [True, False, False, True], "process.exit_code": [None, 75, 75, None]},
             {"process.alive": [True, True, True, True], "process.exit_code": [None, 0, 0, 0]}],
    "out_of_memory": [{"process.alive": [True, False, False, True], "process.oom_killed": [False, False, False, False]},
                      {"process.alive": [True, False, True, True], "process.oom_killed": [False, True, True, True]}],
    "restart": [{"process.alive": [True, True, True, True], "process.start_time": [7, 7, 7, 7]},
                {"process.alive": [True, False, False, False], "process.start_time": [7, None, None, None]}],
    "starve": [{"cpu.throttled_ms": [0, 0, 0, 0], "cpu.percent_of_before": [100, 41, 39, 80]},
               {"cpu.throttled_ms": [0, 30, 90, 99], "cpu.percent_of_before": [100, 97, 98, 100]}],
    "disconnect": [{"network.attached": [True, True, True, True], "flow.received_bytes": [4, 5, 5, 5]},
                   {"network.attached": [True, False, True, True], "flow.received_bytes": [4, 5, 5, 5]},
                   {"network.attached": [True, False, False, True], "flow.received_bytes": [4, 5, 6, 7]}],
    "kill_before": [{"trap.hit": [False, False, False, False], "process.alive": [True, False, False, True]}],
    "pause": [{"process.state": ["T", "S", "S", "S"]}, {"process.state": ["S", "T", "S", "S"]}],
    "deploy": [{"node.build": ["current"] * 4, "process.start_time": [7, 9, 9, 9]},
               {"node.build": ["current", "next", "next", "next"], "process.start_time": [7, 7, 7, 7]}],
    "clock_step": [{"clock.offset_ms": [-500, 0, -90, 0]}, {"clock.offset_ms": [0, -500, 0, 0]}],
    "clock_drift": [{"clock.offset_ms": [-500, 0, 1, 3]}],
    "switch": [{"switch.uses": [0, 0, 0, 0], "switch.on": [False, True, True, False]}, {"switch.uses": [0, 1, 2, 2]},
               {"switch.uses": [0, 3, 0, 0], "switch.on": [False, True, False, False]}],
    "call": [{}, {"call.status": [None, 404]}, {"call.status": [None, 302]}], "call_promised": [{}],
    "call_expected": [{}, {"call.status": [None, 404]}, {"call.status": [200, 503]}],
    "disk_stall": [{"ledger.durable_bytes": [5, 5, 5, 5], "disk.waiting": [0, 0, 0, 0]},
                   {"ledger.durable_bytes": [5, 5, 5, 5], "writer.state": ["S", "T", "S", "S"]},
                   {"ledger.durable_bytes": [4, 5, 6, 7], "writer.state": ["S", "S", "S", "S"]}],
    "disk_slow": [{"disk.sync_ms": [900, 3, 3, 3]}],
    "disk_refuse": [{"disk.refusals": [4, 4, 4, 4], "ledger.durable_bytes": [4, 5, 5, 9]},
                    {"disk.refusals": [0, 2, 4, 4], "ledger.durable_bytes": [4, 5, 6, 9]}],
    "disk_torn": [{"disk.lost_bytes": [0, 0, 0, 0]}],
    "disk_read_only": [{"disk.write_refused": [False, True, False, False], "ledger.durable_bytes": [4, 5, 5, 5]},
                       {"disk.write_refused": [False, True, True, False], "ledger.durable_bytes": [4, 5, 6, 6]}],
    "fill": [{"disk.used_ratio": [0.4, 0.8, 0.8, 0.4], "disk.files_ratio": [0.4, 0.9, 0.9, 0.4]},
             {"disk.used_ratio": [0.4, 0.9, 0.9, 0.4], "disk.files_ratio": [0.4, 0.4, 0.4, 0.4]},
             {"disk.used_ratio": [0.4, 0.9, 0.5, 0.4], "disk.files_ratio": [0.4, 0.9, 0.9, 0.4]}],
    "fill_full": [{"disk.used_ratio": [0.4, 1.0, 1.0, 0.4], "disk.files_ratio": [0.4, 1.0, 1.0, 0.4],
                   "disk.write_refused": [False, True, False, False]}],
    "fill_unlinked": [{"disk.used_ratio": [0.4, 0.9, 0.9, 0.4], "disk.files_ratio": [0.4, 0.9, 0.9, 0.4]},
                      {"disk.used_ratio": [0.4, 0.4, 0.4, 0.4], "disk.files_ratio": [0.4, 0.4, 0.4, 0.4]}],
    "fill_unlinked_full": [{"disk.used_ratio": [0.4, 1.0, 1.0, 0.4], "disk.files_ratio": [0.4, 0.4, 0.4, 0.4],
                            "disk.write_refused": [False, False, False, False]}],
    "disk_unsynced": [{"disk.lost_bytes": [0, 0, 0, 0]}],
    "clock_to": [{"clock.missed_ms": [None, 3, 7_000, 0], "clock.offset_ms": [0, -900_003, -893_000, 0]},
                 {"clock.missed_ms": [None, 3, 12, 0], "clock.offset_ms": [0, 0, 0, 0]}],
    "overwrite": [{"file.stood": [False, False, False, False]}],
    "overwrite_often": [{"file.stood": [False, True, True, True], "file.writes": [1, 1, 1, 1]},
                        {"file.stood": [False, False, False, False], "file.writes": [0, 1, 5, 9]}],
    "remove": [{"file.gone": [False, False, False, False]}, {"file.gone": [True, True, True, True]}],
}
LANDED |= {kind: LANDED[other] for kind, other in SAME_AS.items()}
NOT_LANDED |= {kind: NOT_LANDED[other] for kind, other in SAME_AS.items()}


def case_of(kind: str, probes: dict[str, list[Any]], tmp_path: Path, placebo: bool = False) -> tuple[Fault, Case]:
    """A fault from 1000 to 2000, with probes at 900, 1400, 1900 and 2000 (as the healing ends)."""
    fault = Fault("f", 0, 1_000, FORCES[kind])
    anything = Predicate(of_plain({"status": {"a": 1}}).fields)
    promises = (Answers("refused", 401, "f"),) if kind == "call_promised" else ()
    drill = Drill("d", "t", (), "", {"status": 50}, Given(anything, 1, 1), (fault,), (), promises, None,
                  Converge(anything, 1, 1))
    timeline = Timeline(tmp_path, head={"placebo": placebo},
                        marks={"f": Mark("f", 1_000, 1_005), "f.healed": Mark("f.healed", 1_990, 2_000)},
                        acts=[Act("f", "applied", 1_000, 1_005, None)])
    timeline._probes["f"] = sorted((Probe("f", what, value, at) for what, values in probes.items()
                                    for at, value in zip((900, 1_400, 1_900, 2_000), values, strict=False)),
                                   key=lambda each: each.at)
    if "still" in str(RULES.witnesses["forces"][kind]):
        timeline._probes["f"] += [Probe("f", what, values[1], 1_500) for what, values in probes.items() if len(values) > 1]
        timeline._probes["f"].sort(key=lambda each: each.at)
    return fault, Case(timeline, drill, RULES, {})


@pytest.mark.parametrize("kind", sorted(FORCES))
def test_each_force_is_seen_to_land(kind: str, tmp_path: Path) -> None:
    """By the probes that its witnesses take."""
    fault, case = case_of(kind, LANDED[kind], tmp_path)
    assert witness_kind(fault, case.drill) == kind
    assert landed(fault, case).verdict == "PASS"


@pytest.mark.parametrize(("kind", "probes"), [(kind, each) for kind, several in NOT_LANDED.items() for each in several])
def test_each_force_is_seen_not_to_land(kind: str, probes: dict[str, list[Any]], tmp_path: Path) -> None:
    """A witness that saw nothing, saw it before, or was never asked, is none; but a placebo is assumed to land."""
    fault, case = case_of(kind, probes, tmp_path)
    assert landed(fault, case).verdict == "INCONCLUSIVE"
    assert landed(*case_of(kind, {}, tmp_path)).verdict == "INCONCLUSIVE"
    assert landed(*case_of(kind, {}, tmp_path, placebo=True)).verdict == "PASS"


def test_every_force_of_the_grammar_has_witnesses_and_was_seen_red() -> None:
    """Nothing can be injected that nobody could witness."""
    verbs = {"kill": ("kill", "kill_before"), "call": ("call", "call_promised", "call_expected"),
             "clock": ("clock_step", "clock_to", "clock_drift"),
             "overwrite": ("overwrite", "overwrite_often"),
             "disk": tuple(f"disk_{kind}" for kind in grammar.VERBS["disk"]["kind"].choices),
             "fill": ("fill", "fill_full", "fill_unlinked", "fill_unlinked_full"),
             "toxic": tuple(f"toxic_{kind}" for kind in RAW_ATTRIBUTES if kind != "slow_close")}  # refused in real worlds
    kinds = {kind for verb in grammar.VERBS for kind in verbs.get(verb, (verb,))}
    assert kinds == set(RULES.witnesses["forces"]) == set(FORCES) == set(LANDED) == set(NOT_LANDED)


def conditions(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [found for each in value for found in conditions(each)]
    return conditions(value["any_of"]) if "any_of" in value else [value]


def test_every_probe_of_the_witnesses_is_described() -> None:
    """No condition asks for a probe or a word that nobody knows."""
    asked = [each for force in RULES.witnesses["forces"].values() for each in conditions(force)]
    assert {each["probe"] for each in asked} <= set(RULES.witnesses["probes"])
    words = {word for each in asked for word in each if word not in ("probe", "throughout")}
    assert words <= {"still", "drifts", *premises._WORDS}


def test_every_name_in_the_events_exists() -> None:
    """Streams are those of the stack; parts and refusals are events themselves."""
    streams = set(load_stack(ROOT / "system_under_test" / "stack.yaml").streams)
    for event in RULES.events.values():
        assert (event.stream in streams) or event.all_of
        assert set(event.all_of) <= set(RULES.events)
        assert event.tried is None or event.tried in RULES.events


def test_events_of_laws_exist() -> None:
    """A law that names an event nobody defined could never break."""
    for law in RULES.laws:
        for key in ("event", "wish", "placed", "filled", "cancelled", "accepted", "rejected"):
            name = law.parameters.get(key)
            if isinstance(name, str) and "." in name:
                assert name in RULES.events, f"{law.id}: {name}"
    assert {RULES.opening, *RULES.traded} <= set(RULES.events)


def test_drills_know_the_families_of_events() -> None:
    """refused.<Code> for every code of the registries, so that check names the nearest one."""
    stack = load_stack(ROOT / "system_under_test" / "stack.yaml")
    known = Specs.of(ROOT, stack, {}).events or {}
    assert known["refused.RateLimitBrownout"] and known["books.reconciled"]
    assert set(known) == set(RULES.events)


@pytest.mark.parametrize(("where", "row", "fits"), [
    ({}, {"kind": "order"}, True), ({}, {"kind": "fill"}, False), ({"a": 1}, {"kind": "order", "a": 1.0}, True),
    ({"a": True}, {"kind": "order", "a": 1}, False), ({"a": {"is_not": 1}}, {"kind": "order"}, True),
    ({"a": {"is_not": 1}}, {"kind": "order", "a": 1}, False), ({"a": {"one_of": [1, 2]}}, {"kind": "order", "a": 2}, True),
    ({"a": {"one_of": [1, 2]}}, {"kind": "order"}, False), ({"a": {"at_least": 2}}, {"kind": "order", "a": 1}, False),
    ({"a": {"at_least": 2, "at_most": 3}}, {"kind": "order", "a": 3}, True), ({"a": {"at_most": 2}}, {"kind": "order"}, False),
])
def test_which_rows_are_an_event(where: dict[str, Any], row: dict[str, Any], fits: bool) -> None:
    """A missing field fits nothing but is_not."""
    assert Event("e", "books", "order", where).fits(row) is fits


def test_an_operator_that_nobody_knows_is_an_error() -> None:
    """A slip in the rule file must not read as 'never happened'."""
    with pytest.raises(SpecError, match="no operator 'atleast'"):
        Event("e", "books", "order", {"a": {"atleast": 2}}).fits({"kind": "order", "a": 1})


def test_a_contract_that_nobody_knows_is_an_error() -> None:
    """A name in a stack file never becomes an import of something else."""
    with pytest.raises(SpecError, match="no contract"):
        RULES.contract("os", {})


def test_a_law_that_did_not_apply_says_so(tmp_path: Path) -> None:
    """Its PASS is none that anybody could lean on: nobody was rescued, and no order came late."""
    told = script.read(ROOT / "fixtures/recordings/lawful/market_data_stale.yaml")
    verdict = judge(script.build(told, tmp_path / "run"), ROOT)
    laws = {each["id"]: each for each in verdict["laws"]}
    for id in ("at_most_two_rescues", "no_order_outlives_its_moment", "exposure_monotone_in_containment"):
        assert laws[id]["says"].startswith("never put to the test here"), id
        assert laws[id]["details"]["asked"] == 0
    assert not laws["no_duplicate"]["says"].startswith("never") and laws["no_duplicate"]["details"]["asked"] > 0
