"""The latch: its table, its codes, MANUAL codes across restarts, and the operator's note."""

from __future__ import annotations

import itertools

import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from trader_policy_kit import REPOSITORY, reference

from system_under_test.trader import acknowledge
from system_under_test.trader.latch import (
    BLOCKED_AUTO,
    BLOCKED_MANUAL,
    BOOK_GAP,
    CODES,
    DATA_STALE,
    PERMITTED,
    RESTART,
    SESSION,
    TABLE,
    TRADES_GAP,
    Latch,
    LatchError,
)


def cleared() -> Latch:
    """A latch after its first reconciliation."""
    latch = Latch()
    latch.clear()
    return latch


def test_the_table_is_the_one_in_the_specs():
    """Every transition of the file is in the code and the other way round."""
    spec = yaml.safe_load((REPOSITORY / "specs/machines/open_permission_latch.yaml").read_text())
    assert {(each["from"], each["event"]): each["to"] for each in spec["transitions"]} == dict(TABLE)
    assert spec["initial"] == Latch().state
    assert {state for state, _ in TABLE} == set(spec["states"])
    assert {event for _, event in TABLE} == set(spec["events"])


def test_an_illegal_event_raises_and_changes_nothing():
    """Each state and event that the table does not hold is refused, and the latch stays as it was."""
    acts = {"reconciled": Latch.clear, "acknowledged": lambda latch: latch.acknowledge(SESSION)}
    for state, (event, act) in itertools.product((PERMITTED, BLOCKED_AUTO, BLOCKED_MANUAL), acts.items()):
        latch = Latch()
        if state == PERMITTED:
            latch.clear()
        if state == BLOCKED_MANUAL:
            latch.set(SESSION, 1, manual=True)
        if (state, event) in TABLE:
            continue
        before = (latch.state, latch.codes, latch.manual_codes)
        with pytest.raises(LatchError):
            act(latch)
        assert (latch.state, latch.codes, latch.manual_codes) == before


def test_a_process_starts_blocked():
    """Before any reconciliation the latch is set, with the restart code (AT-430)."""
    latch = Latch()
    assert (latch.blocked, latch.codes, latch.may_clear()) == (True, (RESTART,), True)


def test_codes_keep_registry_order_and_leave_together():
    """However they come, codes stand in registry order; one clean reconciliation takes them all."""
    latch = cleared()
    for code in (SESSION, DATA_STALE, BOOK_GAP):
        assert latch.set(code, 5)
    assert not latch.set(BOOK_GAP, 9)
    assert latch.since(BOOK_GAP) == 9
    assert latch.codes == (BOOK_GAP, DATA_STALE, SESSION)
    assert latch.clear() == (BOOK_GAP, DATA_STALE, SESSION)
    assert (latch.blocked, latch.codes) == (False, ())


def test_codes_are_the_registry_s():
    """The latch knows exactly the registry's codes, in its order, and refuses others."""
    assert reference().registries.latch_codes == CODES
    with pytest.raises(LatchError):
        Latch().set("REDUCEONLY_F1_CERT_INVALID", 1)


def test_a_manual_code_waits_for_its_operator():
    """A reconciliation alone does not clear it; acknowledged and reconciled, it clears with the rest."""
    latch = cleared()
    latch.set(SESSION, 1, manual=True)
    latch.set(TRADES_GAP, 2)
    assert (latch.state, latch.may_clear(), latch.manual_codes) == (BLOCKED_MANUAL, False, (SESSION,))
    with pytest.raises(LatchError):
        latch.clear()
    latch.acknowledge(SESSION)
    assert latch.codes == (TRADES_GAP, SESSION)
    assert latch.clear() == (TRADES_GAP, SESSION)


steps = st.lists(st.tuples(st.sampled_from(["auto", "manual", "acknowledge", "clear"]), st.sampled_from(CODES)))


@given(steps)
@hypothesis_settings(max_examples=200, deadline=None)
def test_state_codes_and_manual_codes_always_agree(sequence):
    """Whatever happens in whatever order: blocked exactly with codes, MANUAL exactly while somebody is waited for."""
    latch = Latch()
    for step, code in sequence:
        try:
            match step:
                case "auto" | "manual":
                    latch.set(code, 1, manual=step == "manual")
                case "acknowledge":
                    latch.acknowledge(code)
                case "clear":
                    latch.clear()
        except LatchError:
            assert (step == "acknowledge" and code not in latch.manual_codes) or (
                step == "clear" and not latch.may_clear())
        assert latch.blocked == bool(latch.codes)
        assert (latch.state == BLOCKED_MANUAL) == bool(latch.manual_codes)
        assert set(latch.manual_codes) <= set(latch.codes)
        assert list(latch.codes) == [code for code in CODES if code in latch.codes]


def test_every_manual_code_needs_its_own_acknowledgement():
    """With two of them, one acknowledgement is not enough."""
    latch = cleared()
    latch.set(SESSION, 1, manual=True)
    latch.set(BOOK_GAP, 1, manual=True)
    latch.acknowledge(SESSION)
    assert not latch.may_clear()
    latch.acknowledge(BOOK_GAP)
    assert latch.may_clear()


def test_a_new_trigger_makes_an_acknowledged_code_wait_again():
    """The operator acknowledged the first session end, not the second."""
    latch = cleared()
    latch.set(SESSION, 1, manual=True)
    latch.acknowledge(SESSION)
    assert latch.set(SESSION, 2, manual=True)
    assert not latch.may_clear()


def ledger_rows(*events: tuple[str, str]) -> list[dict[str, object]]:
    """Rows as the trader writes them: set (MANUAL), acknowledged, cleared."""
    made = {"set": lambda code: {"kind": "latch", "event": "set", "code": code, "manual": True},
            "auto": lambda code: {"kind": "latch", "event": "set", "code": code, "manual": False},
            "cleared": lambda code: {"kind": "latch", "event": "cleared", "code": code, "manual": False},
            "operator": lambda code: {"kind": "operator", "code": code, "name": "n", "reason": "r", "digest": "d"}}
    return [made[event](code) for event, code in events]


@pytest.mark.parametrize(("events", "waiting"), [
    ([], ()),
    ([("auto", BOOK_GAP)], ()),
    ([("set", SESSION)], (SESSION,)),
    ([("set", SESSION), ("operator", SESSION)], ()),
    ([("set", SESSION), ("operator", SESSION), ("cleared", SESSION), ("set", SESSION)], (SESSION,)),
    ([("set", SESSION), ("operator", BOOK_GAP)], (SESSION,)),
    ([("set", SESSION), ("cleared", SESSION)], ()),
    ([("set", SESSION), ("auto", SESSION)], (SESSION,)),
    ([("set", "KILL_RISKSTATE_KILL")], ()),
])
def test_manual_codes_survive_a_restart(events, waiting):
    """What nobody acknowledged comes back from the ledger, beside the restart code."""
    latch = Latch.restored(ledger_rows(*events))
    assert latch.manual_codes == waiting
    assert latch.codes == tuple(code for code in CODES if code == RESTART or code in waiting)


def test_rows_that_are_no_latch_rows_change_nothing():
    """A row of another kind, or with a code that is no text, neither sets nor clears a MANUAL code."""
    others: list[dict[str, object]] = [{"kind": "token", "event": "cleared", "code": SESSION}, {"kind": "latch"},
                                       {"kind": "latch", "event": "set", "code": 7, "manual": True},
                                       {"kind": "fill", "event": "set", "code": BOOK_GAP, "manual": True}]
    assert Latch.restored([*ledger_rows(("set", SESSION)), *others]).manual_codes == (SESSION,)


def test_a_row_says_whether_the_code_was_manual():
    """The ledger row carries what a restart needs to know."""
    latch = cleared()
    latch.set(SESSION, 1, manual=True)
    assert latch.row("set", SESSION) == {"event": "set", "code": SESSION, "manual": True}


# ---- the operator's note ----------------------------------------------------------------------------------


def note(code: str = SESSION, reason: str = "books compared", name: str = "Ada", **changes: object) -> bytes:
    """A note as an operator leaves it."""
    fields = {"code": code, "reason": reason, "name": name, "digest": acknowledge.digest(code, reason, name)}
    return orjson.dumps({**fields, **changes})


def test_a_whole_note_for_a_waiting_code_is_taken():
    """Code, reason and name come out; a name is needed, because somebody takes responsibility."""
    got = acknowledge.read(note(), {SESSION}, ())
    assert isinstance(got, acknowledge.Acknowledgement)
    assert (got.code, got.reason, got.name) == (SESSION, "books compared", "Ada")


@pytest.mark.parametrize("value", [
    b"", b"{", b"[]", b"null", b"\xff", note(name=" ", digest="x"), note(digest=1), note(reason="a\nb"),
    note(digest="0" * 64), b" " * 5000, note(code=BOOK_GAP),
])
def test_a_damaged_or_misplaced_note_is_refused_with_a_sentence(value):
    """No half of a note counts, nor one for a code that nobody waits for."""
    assert isinstance(acknowledge.read(value, {SESSION}, ()), str)


def test_nothing_new_is_no_refusal():
    """No file, or a note that the ledger has seen, is silence: it neither counts nor complains each tick."""
    assert acknowledge.read(None, {SESSION}, ()) is None
    used = acknowledge.digest(SESSION, "books compared", "Ada")
    assert acknowledge.read(note(), {SESSION}, {used}) is None
