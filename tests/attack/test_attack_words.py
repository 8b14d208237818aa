"""Files that a person, or somebody else, hands to drillproof: hostile ones are refused with their place, in bounds, and
no text whatever makes it fall over."""

from __future__ import annotations

import io
import os
import random
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import yaml
from hostile_kit import FULL, ROOT, drillproof

from harness import cli, own, texts
from harness.drill.text import Specs, check, load, parse
from harness.errors import DrillproofError, NotHealed, TextError, UsageError
from harness.gate import decide
from harness.pack.phases import load_phase
from harness.pack.runlog import verify_runlog
from harness.pack.seals import load_key, load_signers
from harness.policies import load_policy
from harness.verdict.rules import load_rules
from harness.world.real.undo import FILE, recover, standing
from harness.world.stack import load_stack

MUTANTS = 20_000 if FULL else 1_500
OF_EACH = 600 if FULL else 60
STACK = load_stack(ROOT / "system_under_test" / "stack.yaml")
SPECS = Specs.of(ROOT, STACK, STACK.policy("reference"))
DRILLS = sorted((ROOT / "drills").rglob("*.yaml"))
BASE = (Path(__file__).parent / "hostile" / "market_data_stale.yaml").read_text(encoding="utf-8")
"""A drill as it was once in use: the places named below are places in it."""
CALL = "call: {node: trader, port: control_plane, method: GET, path: /api/v1/health, expect: 200}"


def put(old: str, new: str) -> bytes:
    assert old in BASE, old
    return BASE.replace(old, new, 1).encode()


MANY = "".join(f"  f{number}: {{at: 0s, for: 6s, stall: {{link: market_data}}}}\n" for number in range(900))
HOSTILE: dict[str, tuple[bytes, str]] = {
    "an alias": (put("why: >", "x: &a [1]\ny: *a\nwhy: >"), "4:4: found the anchor"),
    "a bomb of aliases": (b"a: &a [1,1]\n" + b"".join(b"%c: &%c [*%c,*%c]\n" % (n + 1, n + 1, n, n) for n in range(97, 120)),
                          "1:4: found the anchor"),
    "a tag": (put("for: 6s", "for: !!python/object/apply:os.system [id]"), "12:23: found the tag"),
    "a merge key": (put("sample: {status: 50ms}", "sample: {<<: {status: 50ms}}"), "9:10: found the merge key"),
    "a key twice": (BASE.encode() + b"\ndrill: other\n", "29:1: found the key 'drill' again"),
    "two documents": (BASE.encode() + b"\n---\na: b\n", "29:1: found a second document"),
    "a path in its name": (put("drill: 2_market", "drill: ../../2_market"), "2:8: found"),
    "a path in its fixture": (put("fixture: market", "fixture: ../../etc/market"), "26:19: found"),
    "a path in a dropped file": (put(CALL, "drop: {node: trader, file: a/../../x, body: {}}"), "14:49: found"),
    "an absolute dropped file": (put(CALL, "drop: {node: trader, file: /etc/x, body: {}}"), "14:49: found"),
    "a header of two lines": (put("expect: 200", 'expect: 200, headers: {x: "a\\r\\nEvil: b"}'), "14:125: found"),
    "a header name of two lines": (put("expect: 200", 'expect: 200, headers: {"x\\r\\nEvil": b}'), "14:122: found"),
    "a request of two lines": (put("path: /api/v1/health", 'path: "/ HTTP/1.1\\r\\nEvil: b"'), "14:83: found"),
    "ten thousand faults": (put("stimuli:", MANY + "stimuli:"), "12:3: found 901 faults"),
    "a negative duration": (put("for: 6s", "for: -6s"), "12:23: found '-6s'"),
    "a duration of a century": (put("for: 6s", "for: 900000h"), "12:23: found '900000h'"),
    "a duration of 5000 digits": (put("for: 6s", "for: " + "9" * 5000 + "s"), "12:23: found '999"),
    "1e999": (put("at: 0s", "at: 1e999"), "12:14: found"),
    "infinity": (put("expect: 200", "expect: .inf"), "14:107: found"),
    "an integer of 20000 digits": (put("expect: 200", "expect: " + "9" * 20_000), "14:107: found the number 999"),
    "hexadecimal": (put("expect: 200", "expect: 0xC8"), "14:107: found the number 0xC8"),
    "base sixty": (put("expect: 200", "expect: 1:30"), "14:107: found the number 1:30"),
    "other digits": (put("for: 6s", "for: \uff16s"), "12:23: found"),
    "a look-alike key": (put("faults:", "f\u0430ults:"), "11:1: found the key"),
    "deep lists": (put("expect: 200", "body: " + "[" * 50_000), "14:165: found nesting deeper than 64"),
    "deep mappings": (put("expect: 200", "body: " + "{a: " * 10_000), "found nesting deeper than 64"),
    "a null byte": (put("Market", "Mar\0ket"), "3:11: found the character U+0000"),
    "a terminal command": (put("Market", "\x1b[2J"), "3:8: found the character U+001B"),
    "a written terminal command": (put("title: Market", 'title: "\\e[2J" #'), "3:8: found"),
    "turned text": (put("title: Market", 'title: "\\u202eMarket" #'), "3:8: found"),
    "UTF-16": (BASE.encode("utf-16"), "1:1: found the byte 0xff"),
    "Latin-1": (put("Market", "M\u00e4rkt").decode().encode("latin-1"), "3:9: found the byte 0xe4"),
    "half a character": (BASE.encode().replace(b"Market", b"\xed\xa0\x80"), "3:8: found the byte 0xed"),
    "megabytes": (BASE.encode() + b"#" * 3_000_000, "1:1: found 3001"),
    "nothing": (b"", "1:1: found nothing"),
    "a quote without end": (b'drill: "', "1:9: found"),
}
"""Text, and what is said of it."""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_drill_is_refused_with_its_place(name: str, tmp_path: Path) -> None:
    """``file:line:column``, what was found, what was expected; one printable line."""
    text, says = HOSTILE[name]
    file = tmp_path / "d.yaml"
    file.write_bytes(text)
    with pytest.raises(TextError) as refused:
        load(file, SPECS)
    assert f"{file}:" in str(refused.value)
    assert says in str(refused.value)
    assert len(str(refused.value)) < 1_000


@pytest.mark.parametrize("change", [lambda text: text.replace(b"\n", b"\r\n"), lambda text: b"\xef\xbb\xbf" + text])
def test_other_line_ends_and_a_byte_order_mark_say_the_same(change, tmp_path: Path) -> None:
    """What editors of other systems add changes no meaning, so it is no error."""
    file = tmp_path / "d.yaml"
    file.write_bytes(change(BASE.encode()))
    assert load(file, SPECS).promises == parse(BASE.encode(), "d", SPECS).promises


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """A pipe without a writer, a device without end, a folder, a file of 10 GB: refused unread."""
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "folder.yaml").mkdir()
    with (tmp_path / "long.yaml").open("wb") as file:
        file.truncate(10**10)
    for name in ("pipe", "zero", "folder", "long"):
        for reader in (lambda path: load(path, SPECS), load_stack, load_policy, load_signers, load_key):
            with pytest.raises(UsageError):
                reader(tmp_path / f"{name}.yaml")


def test_the_command_refuses_each_of_a_folder_of_horrors(tmp_path: Path) -> None:
    """``drillproof check``: exit 2, a line for each, every one with its place, and nothing that steers a terminal."""
    for number, (text, _) in enumerate(HOSTILE.values()):
        (tmp_path / f"{number}.yaml").write_bytes(text)
    (tmp_path / "e\x1b[2Jv\u202eil.yaml").write_text(BASE)
    (tmp_path / os.fsdecode(b"not\xff utf8.yaml")).write_text(BASE)
    done = drillproof("check", tmp_path, out=tmp_path)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 2
    assert "Traceback" not in said
    assert len(done.stderr.decode().splitlines()) == len(HOSTILE)
    assert all(line.startswith("OK ") for line in done.stdout.decode().splitlines())
    assert {each for each in said if not each.isprintable()} <= {"\n"}


# ---- by chance --------------------------------------------------------------------------------------------


WORDS = [b"&a ", b"*a", b"!!x ", b"<<: ", b"[", b"]", b"{", b"}", b": ", b"\n", b"- ", b"? ", b"\t", b"|", b">", b"\"", b"'",
         b"#", b"9" * 40, b"-1", b"1e999", b".nan", b"null", b"true", b"~", b"yes", b"\xff", b"\0", b"\xe2\x80\xae", b"../"]


def mutated(text: bytes, dice: random.Random, others: list[bytes]) -> bytes:
    """Bytes changed, lines moved, words of YAML put in, pieces of another file put in."""
    found = bytearray(text)
    for _ in range(dice.randint(1, 5)):
        at = dice.randrange(len(found) + 1)
        match dice.randrange(6):
            case 0:
                found[at:at + dice.choice((1, 4, 40))] = dice.randbytes(dice.choice((0, 1, 4)))
            case 1:
                found[at:at] = dice.choice(WORDS)
            case 2:
                found[at:at + 1] = dice.choice(WORDS)
            case 3:
                lines = bytes(found).splitlines(keepends=True)
                dice.shuffle(lines)
                found = bytearray(b"".join(lines) if dice.random() < 0.2 else b"".join(lines[:1] + lines[2:]))
            case 4:
                other = dice.choice(others)
                begin = dice.randrange(len(other))
                found[at:at] = other[begin:begin + dice.choice((5, 50, 500))]
            case _:
                found[at:at] = found[at:at + dice.choice((1, 20, 200))] * dice.choice((1, 1, 30))
    return bytes(found)


def test_no_drill_by_chance_makes_the_reader_fall_over(tmp_path: Path) -> None:
    """Mutations of the real drills: a drill, or a refusal with a place; never another error."""
    dice, drills = random.Random(11), [file.read_bytes() for file in DRILLS]
    for _ in range(MUTANTS):
        text = mutated(dice.choice(drills), dice, drills)
        try:
            problems = check(parse(text, "d.yaml", SPECS), SPECS)
        except TextError as why:
            problems = [why]
        assert all(str(each).startswith("d.yaml:") for each in problems)


def test_no_drill_by_chance_makes_the_command_fall_over(tmp_path: Path) -> None:
    """The same through ``drillproof check`` itself, a folder at a time: 0 or 2, and never our own fault."""
    dice, drills = random.Random(12), [file.read_bytes() for file in DRILLS]
    for number in range(OF_EACH):
        (tmp_path / f"{number}.yaml").write_bytes(mutated(dice.choice(drills), dice, drills))
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        assert cli.main(["check", str(tmp_path)]) in (0, 2)
    assert "Traceback" not in said.getvalue()


def read_root(root: Path) -> None:
    """Everything that judging and gating read below a root of rules."""
    load_phase(root, 2)
    Specs.of(root, STACK, {})
    rules = load_rules(root)
    rules.contract("csp_status", STACK.policy("reference"))


@pytest.mark.parametrize("file", [
    "system_under_test/stack.yaml", "system_under_test/policies/drill.yaml", "system_under_test/policies/reference.yaml",
    "specs/events.yaml", "specs/invariants.yaml", "specs/witnesses.yaml", "specs/exchange/switches.yaml",
    "specs/phases/phase_2.yaml", "specs/status/status_reason_registries_manifest.json", "fixtures/status/tolerances.yaml",
])
def test_no_file_of_ours_by_chance_makes_a_reader_fall_over(file: str, tmp_path: Path) -> None:
    """Stacks, policies, rules and checklists, mutated: read, or refused with a sentence that names the file."""
    root = tmp_path / "root"
    for folder in ("specs", "fixtures/status", "drills/phase2", "system_under_test/policies"):
        shutil.copytree(ROOT / folder, root / folder)
    shutil.copyfile(ROOT / "system_under_test/stack.yaml", root / "system_under_test/stack.yaml")
    dice, text = random.Random(file), (root / file).read_bytes()
    others = [text, (ROOT / "specs/events.yaml").read_bytes()]
    for _ in range(OF_EACH // (1 if FULL else 2)):
        (root / file).write_bytes(mutated(text, dice, others))
        try:
            if file.startswith("system_under_test"):
                stack = load_stack(root / "system_under_test/stack.yaml")
                for name in stack.policies:
                    stack.policy(name)
            else:
                read_root(root)
        except DrillproofError as why:
            assert why.code == 2, why
            assert str(tmp_path) in str(why) or "not a phase" in str(why), why


def test_no_contract_of_ones_own_by_chance_makes_a_reader_fall_over(tmp_path: Path) -> None:
    """A stack with what it brings along, mutated: read, or refused with its place; what was read judges any document."""
    example, dice = ROOT / "docs/examples/order-router", random.Random(13)
    names = ("status.schema.json", "status.rules.yaml", "checklist.yaml")
    texts_of = {name: (example / name).read_bytes() for name in names}
    stack = (ROOT / "fixtures/recordings/stacks/own.yaml").read_bytes() + b"checklist: checklist.yaml\n"
    for number in range(4 * OF_EACH):
        told = {**texts_of, "stack.yaml": stack}
        odd = [*told][number % len(told)]
        for name, text in told.items():
            (tmp_path / name).write_bytes(mutated(text, dice, [*told.values()]) if name == odd else text)
        try:
            mine = load_stack(tmp_path / "stack.yaml")
            own.texts_of(mine)
            Specs.of(ROOT, mine, {})
            for contract in map(own.contract_of, mine.contracts.values()):
                for document in ({}, {"mode": "running", "reasons": [1]}, {"mode": [], "quotes_seen": 2**60, "reasons": {}}):
                    contract.check(document)
        except UsageError as why:
            assert str(tmp_path) in str(why), why


def test_a_bomb_in_a_stack_a_policy_or_a_checklist_is_refused(tmp_path: Path) -> None:
    """A page of aliases, a file that extends itself, brackets without end: within bounds, with a place."""
    bomb = b"a: &a [1,1,1,1,1,1,1,1,1]\n" + b"".join(
        b"%c: &%c [%s]\n" % (n + 1, n + 1, b",".join([b"*%c" % n] * 9)) for n in range(97, 115))
    file = tmp_path / "stack.yaml"
    for text in (bomb, b"[" * 500_000, b"a: " * 20_000, b"nodes: {a: {environment: {X: &x [*x]}}}", b"a: &a\n  <<: *a\n"):
        file.write_bytes(text)
        for reader in (load_stack, load_policy):
            with pytest.raises(UsageError, match=r"stack\.yaml:\d+:\d+: "):
                reader(file)
        with pytest.raises(TextError, match=r"x:\d+:\d+: "):
            texts.load(text, "x", aliases=True)
    (tmp_path / "a.yaml").write_text("{extends: b.yaml}")
    (tmp_path / "b.yaml").write_text("{extends: a.yaml}")
    with pytest.raises(UsageError, match="extends cannot be resolved"):
        load_policy(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text('{extends: "a\\0b"}')
    with pytest.raises(UsageError, match="null byte"):
        load_policy(tmp_path / "b.yaml")


@pytest.mark.parametrize(("old", "new"), [
    ("  trader:\n    machine", "  ../../trader:\n    machine"), ("path: logs/books.log", "path: ../../../etc/passwd"),
    ("every: 50ms", "every: 0ms"), ("every: 50ms", "every: " + "9" * 400 + "s"), ("every: 50ms", "every: -50ms"),
    ("framing: crc32", "framing: none"), ("secrets: [CLIENT_SECRET", "secrets: [no"),
    ("transit_ms_max: 250", "transit_ms_max: 1e999"),
    ("nodes:", "nodes: &x"), ("links:", "nodes:"), ("stack: reference", "stack: !!x reference"),
])
def test_a_hostile_stack_is_refused_with_its_place(tmp_path: Path, old: str, new: str) -> None:
    """Names that become folders, paths out of the data folder, periods of nothing, and every trick of YAML."""
    text = STACK.text.decode()
    assert old in text
    file = tmp_path / "stack.yaml"
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError, match=r"stack\.yaml:\d+:\d+: "):
        load_stack(file)


def test_strict_reading_gives_the_same_values() -> None:
    """What is read strictly is what any YAML reader reads in every file of ours."""
    for file in (*(ROOT / "specs/phases").glob("*.yaml"), *(ROOT / "specs").glob("*.yaml"), *DRILLS,
                 *(ROOT / "system_under_test/policies").glob("*.yaml"), ROOT / "system_under_test/stack.yaml"):
        assert texts.load(file.read_bytes(), str(file), aliases=True) == yaml.safe_load(file.read_bytes())


# ---- lists that somebody else wrote -----------------------------------------------------------------------


def test_a_run_log_by_chance_is_a_finding(tmp_path: Path) -> None:
    """Whatever stands in the run log, it is a finding or a log; the gate beside it never falls over."""
    dice, file = random.Random(13), tmp_path / "runs.jsonl"
    row = b'{"event":"started","n":1,"prev":"' + b"0" * 64 + b'","run_id":"x","utc":"2026-01-01T00:00:00Z"}\n'
    for _ in range(OF_EACH):
        file.write_bytes(mutated(row * 3, dice, [row]))
        verify_runlog(file)
        decide(2, tmp_path, ROOT)


@pytest.mark.parametrize("line", [
    '{"n": 0, "id": "x", "verb": "keep_streams", "args": {"folder": "/", "nodes": "%(victim)s", "sources": {}}}',
    '{"n": 0, "id": "x", "verb": "keep_streams", "args": {"folder": "/", "nodes": "/x", "sources": {"../../x": {}}}}',
    '{"n": 0, "id": "x", "verb": "true_clock", "args": {"file": "%(victim)s/clock"}}',
    '{"n": 0, "id": "x", "verb": "switch_off", "args": {"url": "http://example.invalid/", "process": {"pid": 1, "start": 0}}}',
    '{"n": 0, "id": "x", "verb": "empty_disk", "args": {"folder": "%(victim)s"}}',
    '{"n": 0, "id": "x", "verb": "unlock_data", "args": {"modes": {"%(victim)s": 0}, "processes": [], "softs": []}}',
    '{"n": 0, "id": "x", "verb": "format_disk", "args": {}}', '{"n": 0, "id": "x", "verb": "resume", "args": {"processes": 7}}',
    '{"n": 0}', "[]", "7", '{"done": 1}', '{"n": [], "id": 1, "verb": 2, "args": 3}',
])
def test_a_list_of_undos_that_somebody_else_wrote_harms_nothing(tmp_path: Path, line: str) -> None:
    """A run folder from elsewhere cannot have ``recover`` remove, write or call anything beyond itself."""
    victim = tmp_path / "victim"
    victim.mkdir()
    for name in ("precious", ".drillproof-filler"):
        (victim / name).write_text("still here")
    folder = tmp_path / "runs" / "x"
    (folder / "nodes").mkdir(parents=True)
    (folder / FILE).write_text(line % {"victim": victim} + "\n")
    standing(folder)
    try:
        recover(folder)
    except NotHealed as why:
        assert str(why)
    assert sorted(each.name for each in victim.iterdir()) == [".drillproof-filler", "precious"]
    assert victim.stat().st_mode & 0o700 == 0o700
