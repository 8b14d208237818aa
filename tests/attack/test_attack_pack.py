"""A thousand alterations of a pack, by chance and by design: each refused, its place named, the gate closed.

What a forger may rebuild decides what finds him:

    nothing                         the manifest
    the manifest                    the digests in the recording's head and seal, the run log's digests, deriving again
    the manifest and every page     the same digests; pages and verdicts follow from the inputs, which none of that mends
    the run log's slice as well     the run log beside the pack, which never packed this manifest
    that log as well                only a seal

An alteration that changes no byte (a file mode, a time stamp, a hard link to the same bytes) is none.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from hostile_kit import FULL, ROOT, drillproof, once

from harness.gate import decide
from harness.pack.build import seal
from harness.pack.derive import derive
from harness.pack.listing import MANIFEST, encode, make_manifest
from harness.pack.manifest import examine
from harness.pack.seals import create_key, load_key
from harness.recording.tape import canonical

BY_CHANCE = 1_000 if FULL else 60
REBUILT = 60 if FULL else 6
FORGED = 15 if FULL else 3
SIGNED = 30 if FULL else 4
DRILLS = ("2_market_data_stale", "5_book_gap_late_fills")


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of two drills, from real runs of the reference trader in the sim, beside its run log."""
    return once(tmp_path_factory, "packed", pack_two_drills) / "evidence"


def pack_two_drills(folder: Path) -> None:
    out = folder / "evidence"
    names = [f"drills/phase2/{name}.yaml" for name in DRILLS]
    done = drillproof("run", *names, "--world", "sim", "--jobs", "1", "--out", out, out=out)
    assert done.returncode == 0, done.stderr.decode()
    done = drillproof("pack", "2", *sorted((out / "runs").iterdir()), "--out", out, out=out)
    assert done.returncode == 0, done.stderr.decode()
    shutil.rmtree(out / "runs")
    assert not examine(out / "phase2").findings


@dataclass(frozen=True)
class Altered:
    """What was done, and where."""

    what: str
    places: frozenset[str]


Alteration = Callable[[Path, random.Random], Altered]


def files_of(pack: Path) -> list[str]:
    return sorted(str(file.relative_to(pack)) for file in pack.rglob("*") if file.is_file())


def one_of(pack: Path, dice: random.Random, suffix: str = "") -> tuple[str, Path]:
    path = dice.choice([each for each in files_of(pack) if each.endswith(suffix) and each != MANIFEST])
    return path, pack / path


def flip(pack: Path, dice: random.Random) -> Altered:
    """One bit of one byte of any file, the manifest's own included."""
    path = dice.choice(files_of(pack))
    data = bytearray((pack / path).read_bytes())
    at = dice.randrange(len(data))
    data[at] ^= 1 << dice.randrange(8)
    (pack / path).write_bytes(data)
    return Altered(f"bit of byte {at} flipped", frozenset({path}))


def swap(pack: Path, dice: random.Random) -> Altered:
    while True:
        (one, first), (other, second) = one_of(pack, dice), one_of(pack, dice)
        if first.read_bytes() != second.read_bytes():
            break
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    return Altered("swapped", frozenset({one, other}))


def line(pack: Path, dice: random.Random) -> Altered:
    """A line removed, doubled, moved, or another one in its place."""
    while True:
        path, file = one_of(pack, dice)
        data = gzip.decompress(file.read_bytes()) if path.endswith(".gz") else file.read_bytes()
        lines = data.splitlines(keepends=True)
        before = list(lines)
        at, what = dice.randrange(len(lines)) if lines else 0, dice.choice(("removed", "doubled", "moved", "replaced"))
        if not lines:
            continue
        if what == "removed":
            del lines[at]
        elif what == "doubled":
            lines.insert(at, lines[at])
        elif what == "moved":
            lines.insert(dice.randrange(len(lines)), lines.pop(at))
        else:
            lines[at] = dice.choice(lines)
        if lines != before:
            break
    data = b"".join(lines)
    file.write_bytes(gzip.compress(data, 1, mtime=0) if path.endswith(".gz") else data)
    return Altered(f"line {at + 1} {what}", frozenset({path}))


def cut(pack: Path, dice: random.Random) -> Altered:
    path, file = one_of(pack, dice)
    data = file.read_bytes()
    file.write_bytes(data[:dice.randrange(len(data))])
    return Altered("cut off", frozenset({path}))


def longer(pack: Path, dice: random.Random) -> Altered:
    path, file = one_of(pack, dice)
    file.write_bytes(file.read_bytes() + dice.choice((b"\n", b" ", b"\0", gzip.compress(b"{}\n"), b"x" * 100)))
    return Altered("something added behind its end", frozenset({path}))


def added(pack: Path, dice: random.Random) -> Altered:
    """A new file, in any folder, of any plausible name."""
    folder = (pack / dice.choice(files_of(pack))).parent
    name = dice.choice(("extra.jsonl", "notes2.jsonl", "verdict.json", "README.md", ".hidden", "signoff.json", "x.yaml"))
    if (folder / name).exists():
        name = f"second_{name}"
    (folder / name).write_bytes(dice.choice((b"{}\n", b"", b'{"verdict": "PASS"}\n')))
    return Altered("added", frozenset({str((folder / name).relative_to(pack))}))


def removed(pack: Path, dice: random.Random) -> Altered:
    path, file = one_of(pack, dice)
    file.unlink()
    return Altered("removed", frozenset({path}))


def renamed(pack: Path, dice: random.Random) -> Altered:
    path, file = one_of(pack, dice)
    other = file.with_name(f"{file.stem}_{file.suffix}")
    file.rename(other)
    return Altered("renamed", frozenset({path, str(other.relative_to(pack))}))


def linked(pack: Path, dice: random.Random) -> Altered:
    """A symbolic link to the very same bytes, or to another file of the pack; or a second name by a hard link."""
    path, file = one_of(pack, dice)
    if dice.random() < 0.3:
        other = file.with_name(f"again_{file.name}")
        os.link(file, other)
        return Altered("given a second name", frozenset({str(other.relative_to(pack))}))
    target = pack.parent / "elsewhere"
    shutil.copyfile(file, target)
    file.unlink()
    file.symlink_to(target if dice.random() < 0.5 else pack / MANIFEST)
    return Altered("made a link", frozenset({path}))


def emptied_folder(pack: Path, dice: random.Random) -> Altered:
    (pack / "incident_drills" / "drill_nothing").mkdir()
    return Altered("an empty folder added", frozenset({"incident_drills/drill_nothing"}))


def repacked(pack: Path, dice: random.Random) -> Altered:
    """The same content in other gzip bytes."""
    path, file = one_of(pack, dice, ".gz")
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()), 9, mtime=1))
    return Altered("packed again", frozenset({path}))


def value(pack: Path, dice: random.Random) -> Altered:
    """Some value of a JSON document changed, as an editor would: verdicts, versions, policies, the pack's own page."""
    while True:
        path, file = one_of(pack, dice, ".json")
        document = orjson.loads(file.read_bytes())
        leaves = [(holder, key) for holder, key in walk(document) if not isinstance(holder[key], (dict, list))]
        if leaves:
            break
    holder, key = dice.choice(leaves)
    holder[key] = other(holder[key], dice)
    file.write_bytes(encode(document))
    return Altered(f"the value of {key} changed", frozenset({path}))


def walk(document: Any) -> Iterator[tuple[Any, Any]]:
    items = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for key, each in items:
        yield document, key
        yield from walk(each)


def other(found: Any, dice: random.Random) -> Any:
    """Another value, of the same type or not, never an equal one."""
    if isinstance(found, bool):
        return not found
    if isinstance(found, (int, float)):
        return found + dice.choice((1, -1, 1000))
    if found in ("FAIL", "INCONCLUSIVE"):
        return "PASS"
    return dice.choice(("PASS", "x" + str(found), 1)) if found != "PASS" else "FAIL"


def verdict(pack: Path, dice: random.Random) -> Altered:
    """A verdict edited as a forger would."""
    path, file = one_of(pack, dice, "verdict.json")
    text = file.read_bytes().replace(b'"verdict": "PASS"', b'"verdict": "FAIL"', 1)
    file.write_bytes(text)
    return Altered("the verdict edited", frozenset({path}))


ALTERATIONS: tuple[Alteration, ...] = (flip, flip, flip, flip, swap, line, line, line, cut, longer, added, removed, renamed,
                                       linked, emptied_folder, repacked, value, value, verdict)


def rebuild_manifest(pack: Path) -> bool:
    """What a forger does last; False where the pack holds what no manifest can list."""
    (pack / MANIFEST).unlink(missing_ok=True)
    try:
        (pack / MANIFEST).write_bytes(make_manifest(pack))
    except Exception:  # noqa: BLE001 (a link, an unlawful name: the manifest stays away, and verify says so)
        return False
    return True


def rebuild_pages(pack: Path) -> bool:
    """Every page made again from the altered inputs, by the honest code; False where that is impossible."""
    try:
        for path, data in derive(pack).files.items():
            (pack / path).parent.mkdir(parents=True, exist_ok=True)
            (pack / path).write_bytes(data)
    except Exception:  # noqa: BLE001 (whatever the alteration provokes, the pages then stay as they are)
        return False
    return True


def copied(evidence: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(evidence, place)
    return place / "phase2"


def refused(pack: Path, altered: Altered, strict: bool = True) -> str | None:
    """What is wrong with how verify took it, or None: it must find something, name the place, and close the gate."""
    findings = examine(pack).findings
    if not findings:
        return f"NOT FOUND: {sorted(altered.places)}: {altered.what}"
    named = {each.path for each in findings}
    if strict and not any(near(path, place) for path in named for place in altered.places):
        return f"NAMED ELSEWHERE: {sorted(altered.places)}: {altered.what}: {[str(each) for each in findings[:3]]}"
    return None


def near(path: str, place: str) -> bool:
    """The file itself, a folder around it, or the manifest when it is unreadable."""
    return path == place or place.startswith(f"{path}/") or path in (".", MANIFEST)


def campaign(evidence: Path, place: Path, count: int, seed: int, rebuild: Callable[[Path], object]) -> list[str]:
    """``count`` alterations by chance, each of a fresh copy; returns what was not refused as it should be."""
    dice, wrong = random.Random(seed), []
    for _ in range(count):
        pack = copied(evidence, place)
        altered = dice.choice(ALTERATIONS)(pack, dice)
        if altered.places == {MANIFEST} and rebuild is not nothing:
            continue  # the manifest rebuilt is the manifest
        rebuild(pack)
        if same(pack, evidence / "phase2"):
            continue  # rebuilding mended it: a page that was altered and made again
        if why := refused(pack, altered, strict=rebuild is nothing):
            wrong.append(why)
    return wrong


def same(one: Path, two: Path) -> bool:
    return files_of(one) == files_of(two) and all((one / path).read_bytes() == (two / path).read_bytes()
                                                  and not (one / path).is_symlink() for path in files_of(one))


def nothing(pack: Path) -> None:
    """A careless forger."""


def manifest_only(pack: Path) -> None:
    rebuild_manifest(pack)


def manifest_and_pages(pack: Path) -> None:
    rebuild_pages(pack)
    rebuild_manifest(pack)


@pytest.mark.timeout(3600 if FULL else 600)
def test_alterations_by_chance_are_refused_and_named(evidence: Path, tmp_path: Path) -> None:
    """Nothing rebuilt: each is found, and the finding names the very file."""
    assert campaign(evidence, tmp_path / "e", BY_CHANCE, 1, nothing) == []


def test_alterations_with_the_manifest_rebuilt_are_refused(evidence: Path, tmp_path: Path) -> None:
    """Digests elsewhere, or deriving again, find what the manifest no longer tells."""
    assert campaign(evidence, tmp_path / "e", REBUILT, 2, manifest_only) == []


def test_alterations_with_every_page_rebuilt_are_refused(evidence: Path, tmp_path: Path) -> None:
    """An altered input shows although every page follows from it."""
    assert campaign(evidence, tmp_path / "e", REBUILT, 3, manifest_and_pages) == []


def test_inputs_alone_give_a_pack_away_wherever_it_lies(evidence: Path, tmp_path: Path) -> None:
    """Far from its run log, with every page rebuilt: no input of a drill can be altered by one byte."""
    dice, wrong = random.Random(4), []
    for _ in range(REBUILT):
        pack = copied(evidence, tmp_path / "e")
        (pack.parent / "runs.jsonl").unlink()
        path = dice.choice(list(filter(is_input, files_of(pack))))
        data = bytearray((pack / path).read_bytes())
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        (pack / path).write_bytes(data)
        manifest_and_pages(pack)
        if why := refused(pack, Altered("a bit flipped", frozenset({path})), strict=False):
            wrong.append(why)
    assert wrong == []


def is_input(path: str) -> bool:
    name = path.rpartition("/")[2]
    """What a run brings into a pack, and the rules it is judged by."""
    return path.startswith("rules/") or "/streams/" in path or path.startswith("incident_drills/") and name in (
        "drill.yaml", "stack.yaml", "policy.json", "recording.jsonl.gz", "versions.json")


def forge_log(pack: Path) -> None:
    """The slice of the run log written anew around what lies in the pack now: every chained digest fits again."""
    about = orjson.loads((pack / "pack.json").read_bytes())
    rows = [orjson.loads(each) for each in (pack / "run_log.jsonl").read_bytes().splitlines()]
    by_run = {run_id: pack / "incident_drills" / folder for folder, run_id in about["runs"].items()}
    prev, lines = about["run_log"]["after"], []
    ids = {row["n"]: row["run_id"] for row in rows if row["event"] == "started"}
    for row in rows:
        folder = by_run.get(ids.get(row.get("start"), ""))
        if row["event"] == "ended" and folder is not None:
            row["recording_sha256"] = sha256(gzip.decompress((folder / "recording.jsonl.gz").read_bytes()))
            row["files"] = {name: sha256((folder / name).read_bytes()) for name in row["files"]}
        row["prev"] = prev
        lines.append(canonical(row))
        prev = sha256(lines[-1])
    (pack / "run_log.jsonl").write_bytes(b"".join(each + b"\n" for each in lines))
    about["run_log"]["last"] = prev
    (pack / "pack.json").write_bytes(encode(about))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def edit_recording(pack: Path, dice: random.Random) -> str:
    """A recording edited with everything inside of it that depends on the edit."""
    path, file = one_of(pack, dice, ".gz")
    lines = gzip.decompress(file.read_bytes()).splitlines()
    rows = [orjson.loads(each) for each in lines]
    numbers = [(row, key) for row in rows for key in ("answered", "at", "end") if isinstance(row.get(key), int)]
    row, key = dice.choice(numbers)
    row[key] += dice.choice((1, 2, 5))
    file.write_bytes(gzip.compress(b"".join(canonical(each) + b"\n" for each in rows), 1, mtime=0))
    return path


def forge_everything(pack: Path, dice: random.Random) -> None:
    """All that can be rebuilt without a key and without the evidence folder's own log."""
    edit_recording(pack, dice)
    forge_log(pack)
    manifest_and_pages(pack)


def test_a_forged_recording_with_everything_rebuilt_is_given_away_by_the_log_beside(evidence: Path, tmp_path: Path) -> None:
    """Recording, slice of the run log, pages and manifest all fit: the log in which the runs began never packed this."""
    dice = random.Random(5)
    for _ in range(FORGED):
        pack = copied(evidence, tmp_path / "e")
        forge_everything(pack, dice)
        assert [each.path for each in examine(pack).findings] == ["../runs.jsonl"]
        assert not decide(2, pack.parent, ROOT).open


def test_what_an_unsigned_pack_far_from_its_log_cannot_prove(evidence: Path, tmp_path: Path) -> None:
    """The limit, told and not hidden: there a whole forgery is intact, and verify says that nobody vouches for it."""
    pack = copied(evidence, tmp_path / "e")
    forge_everything(pack, random.Random(6))
    (pack.parent / "runs.jsonl").unlink()
    seen = examine(pack)
    assert not seen.findings
    assert seen.seal_says == "UNSIGNED: intact means only that nobody was careless"
    done = drillproof("verify", pack, "--signers", signers(tmp_path)[1], out=tmp_path)
    assert done.returncode == 1
    assert b"nobody on the list of trusted keys vouches for it" in done.stdout


def signers(folder: Path, name: str = "engineer") -> tuple[Path, Path]:
    """A key, and a list that trusts it."""
    key, trusted = folder / f"{name}.key", folder / f"{name}.signers"
    if not key.exists():
        create_key(key)
        trusted.write_text(key.with_name(f"{key.name}.pub").read_text().strip() + f" {name}\n")
    return key, trusted


def test_a_signed_pack_refuses_every_forgery(evidence: Path, tmp_path: Path) -> None:
    """Everything rebuilt, the log beside forged away: the seal is of another manifest; a stranger's seal is no seal."""
    shutil.copytree(evidence, tmp_path / "signed")
    key, trusted = signers(tmp_path)
    seal(tmp_path / "signed" / "phase2", load_key(key))
    (tmp_path / "signed" / "runs.jsonl").unlink()
    shutil.rmtree(next(each for each in (tmp_path / "signed").glob("phase2.*")))
    assert drillproof("verify", tmp_path / "signed" / "phase2", "--signers", trusted, out=tmp_path).returncode == 0
    dice = random.Random(8)
    for number in range(SIGNED):
        pack = copied(tmp_path / "signed", tmp_path / "e")
        if number % 3 == 0:
            forge_everything(pack, dice)
        else:
            dice.choice(ALTERATIONS)(pack, dice)
            manifest_and_pages(pack)
        if same(pack, tmp_path / "signed" / "phase2"):
            continue
        assert examine(pack).findings


def test_a_strangers_seal_or_none_is_not_the_one_that_is_trusted(evidence: Path, tmp_path: Path) -> None:
    """A forged pack sealed anew by its forger, or with its seal taken off, fails for whoever names the keys to trust."""
    _, trusted = signers(tmp_path)
    stranger, _ = signers(tmp_path, "stranger")
    pack = copied(evidence, tmp_path / "e")
    (pack.parent / "runs.jsonl").unlink()
    forge_everything(pack, random.Random(9))
    seal(pack, load_key(stranger))
    assert not examine(pack).findings
    done = drillproof("verify", pack, "--signers", trusted, out=tmp_path)
    assert (done.returncode, b"a key that is on no list" in done.stdout) == (1, True)


def test_what_changes_no_byte_is_no_alteration(evidence: Path, tmp_path: Path) -> None:
    """File modes, time stamps, and a hard link to the same bytes elsewhere: intact, because nothing in it is different."""
    pack = copied(evidence, tmp_path / "e")
    for path in files_of(pack):
        (pack / path).chmod(0o600)
        os.utime(pack / path, (1, 1))
    os.link(pack / "report.html", tmp_path / "elsewhere.html")
    assert not examine(pack).findings


def test_the_gate_stays_closed_before_every_kind_of_alteration(evidence: Path, tmp_path: Path) -> None:
    """One of each, by the gate itself: no item is open, and the reason is the pack."""
    dice = random.Random(10)
    for alteration in dict.fromkeys(ALTERATIONS):
        pack = copied(evidence, tmp_path / "e")
        alteration(pack, dice)
        decision = decide(2, pack.parent, ROOT)
        assert not any(each.fulfilled for each in decision.items), alteration.__name__
        assert "not intact" in decision.pack_says, alteration.__name__


@pytest.mark.parametrize("row", [
    {"event": "started"}, {"event": "ended", "start": []}, {"event": "ended", "start": {}}, {"event": "packed", "run_id": 7},
    {"event": "started", "run_id": "x", "utc": 1},
    {"event": "started", "run_id": "x", "utc": "x", "machines": 1, "drill": [1]},
])
def test_a_forged_line_of_the_run_log_is_a_finding(evidence: Path, tmp_path: Path, row: dict[str, Any]) -> None:
    """Rows of any shape, chained as they should be: never a traceback."""
    pack = copied(evidence, tmp_path / "e")
    lines = (pack / "run_log.jsonl").read_bytes().splitlines()
    forged = canonical({**row, "n": orjson.loads(lines[-1])["n"] + 1, "prev": sha256(lines[-1])})
    (pack / "run_log.jsonl").write_bytes(b"".join(each + b"\n" for each in [*lines, forged]))
    about = orjson.loads((pack / "pack.json").read_bytes())
    about["run_log"] |= {"lines": len(lines) + 1, "last": sha256(forged)}
    (pack / "pack.json").write_bytes(encode(about))
    manifest_and_pages(pack)
    assert examine(pack).findings
    assert drillproof("verify", pack, out=tmp_path).returncode == 1


def test_a_second_member_of_a_recording_is_refused_unread(evidence: Path, tmp_path: Path) -> None:
    """A bomb, or other lines, behind the recording's own end: gzip would read on, so nothing may stand there."""
    pack = copied(evidence, tmp_path / "e")
    path, file = one_of(pack, random.Random(1), ".gz")
    file.write_bytes(file.read_bytes() + gzip.compress(bytes(50_000_000)))
    manifest_and_pages(pack)
    assert f"[INPUT] {path}: goes on behind its end" in map(str, examine(pack).findings)
