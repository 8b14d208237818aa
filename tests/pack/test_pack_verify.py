"""Everything that can be done to a pack is found, and named."""

from __future__ import annotations

import gzip
import os
import random
import shutil
from pathlib import Path

import orjson
import pytest
from pack_kit import DRILL, MakeRun, fake_judge

from harness import limits
from harness.pack import derive as derive_room
from harness.pack import inputs, listing
from harness.pack.build import build
from harness.pack.listing import encode, make_manifest
from harness.pack.manifest import examine, verify

FOLDER = f"incident_drills/drill_{DRILL}"


def rebuild_manifest(pack: Path) -> None:
    """What a forger does last."""
    (pack / "manifest.json").unlink()
    (pack / "manifest.json").write_bytes(make_manifest(pack))


def files_of(pack: Path) -> list[str]:
    return sorted(file.relative_to(pack).as_posix() for file in pack.rglob("*") if file.is_file())


def test_a_byte_flipped_anywhere_is_found_and_named(pack: Path) -> None:
    """In every single file of the pack, at several places of each, the manifest's own included."""
    dice = random.Random(7)
    for path in files_of(pack):
        file = pack / path
        data = file.read_bytes()
        for at in {0, len(data) - 1, *(dice.randrange(len(data)) for _ in range(2))}:
            file.write_bytes(data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1:])
            found = verify(pack)
            assert found, f"{path} at {at}"
            assert path == "manifest.json" or found[0].path == path
        file.write_bytes(data)
    assert verify(pack) == []


def test_every_single_file_is_missed_when_deleted(pack: Path, tmp_path: Path) -> None:
    """Deleting any file is found, and the finding names it."""
    for path in files_of(pack):
        kept = (pack / path).read_bytes()
        (pack / path).unlink()
        found = verify(pack)
        assert found and found[0].tag in {"REMOVED", "UNSAFE"}
        assert found[0].path in {path, path.rpartition("/")[0]}
        (pack / path).write_bytes(kept)


def test_an_added_file_is_found(pack: Path) -> None:
    """Also one that a rebuilt manifest lists: it is neither an input nor derived."""
    (pack / "incident_drills/NOTES.md").write_text("all was well")
    assert str(verify(pack)[0]).startswith("[ADDED] incident_drills/NOTES.md")
    rebuild_manifest(pack)
    assert [each.path for each in verify(pack)] == ["incident_drills/NOTES.md"]


def test_two_swapped_files_are_found(pack: Path) -> None:
    """Swapping two recordings keeps every digest in the manifest, but under another path."""
    one, other = (pack / FOLDER / "versions.json", pack / "incident_drills/drill_11_clock_drift/versions.json")
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    assert {each.tag for each in verify(pack)} == {"CHANGED"}
    rebuild_manifest(pack)
    assert verify(pack)


def test_the_first_finding_is_the_first_file(pack: Path) -> None:
    """Findings come in the order of the paths, and all of them are listed."""
    for path in ("test_results.txt", "README.md", f"{FOLDER}/notes.md"):
        (pack / path).write_bytes((pack / path).read_bytes() + b"\n")
    assert [each.path for each in verify(pack)] == ["README.md", f"{FOLDER}/notes.md", "test_results.txt"]


def test_a_forged_verdict_is_found_although_the_manifest_was_rebuilt(pack: Path) -> None:
    """The verdict is derived from the recording again."""
    file = pack / "incident_drills/drill_11_clock_drift/verdict.json"
    file.write_bytes(file.read_bytes().replace(b'"FAIL"', b'"PASS"'))
    rebuild_manifest(pack)
    assert [(each.tag, each.path) for each in verify(pack)] == \
        [("DERIVED", "incident_drills/drill_11_clock_drift/verdict.json")]


def test_a_forged_summary_is_found(pack: Path) -> None:
    """The page that everybody reads is no more trusted than the others."""
    file = pack / "SUMMARY_1PAGE.md"
    file.write_text(file.read_text().replace("1 of 2 drills passed, 1 FAILED", "2 of 2 drills passed"))
    rebuild_manifest(pack)
    assert "from line 3 on" in str(verify(pack)[0])


def test_a_line_removed_from_a_recording_is_found(pack: Path) -> None:
    """With the manifest rebuilt, the run log still holds the digest of what was recorded."""
    file = pack / FOLDER / "recording.jsonl.gz"
    lines = gzip.decompress(file.read_bytes()).splitlines(keepends=True)
    file.write_bytes(gzip.compress(b"".join(lines[:50] + lines[51:]), mtime=0))
    rebuild_manifest(pack)
    assert [each.tag for each in verify(pack)] == ["RUNLOG"]


def test_a_line_removed_from_the_run_log_is_found(pack: Path) -> None:
    """An attempt cannot be taken out of the middle or off the end."""
    lines = (pack / "run_log.jsonl").read_bytes().splitlines(keepends=True)
    for kept in (lines[:1] + lines[2:], lines[:-1], lines[1:], []):
        (pack / "run_log.jsonl").write_bytes(b"".join(kept))
        rebuild_manifest(pack)
        assert verify(pack)[0].tag == "RUNLOG"


def test_taking_the_whole_run_log_away_is_found(pack: Path) -> None:
    """The pack says that it has one."""
    (pack / "run_log.jsonl").unlink()
    rebuild_manifest(pack)
    assert verify(pack)[0].tag == "RUNLOG"


def test_weaker_rules_are_found(pack: Path) -> None:
    """The recordings name their rules by digest."""
    (pack / "rules/specs/events.yaml").write_text("{}\n")
    rebuild_manifest(pack)
    assert verify(pack)[0].path == "rules/specs/events.yaml"


def test_a_recording_in_anothers_folder_is_found(pack: Path) -> None:
    """A drill's folder holds that drill."""
    target = pack / "incident_drills/drill_12_exchange_maintenance"
    (pack / FOLDER).rename(target)
    rebuild_manifest(pack)
    assert any("holds a recording of" in each.message for each in verify(pack))


def test_links_are_never_followed(pack: Path, tmp_path: Path) -> None:
    """A link to the very same bytes is refused: it could show others tomorrow."""
    (tmp_path / "outside").write_bytes((pack / "README.md").read_bytes())
    (pack / "README.md").unlink()
    (pack / "README.md").symlink_to(tmp_path / "outside")
    assert str(verify(pack)[0]) == "[UNSAFE] README.md: is neither a file nor a folder (links are never followed)"
    (pack / "README.md").unlink()
    shutil.copyfile(tmp_path / "outside", pack / "README.md")
    (pack / "rules").rename(tmp_path / "rules")
    (pack / "rules").symlink_to(tmp_path / "rules")
    assert verify(pack)[0].tag == "UNSAFE"


def test_a_pipe_is_not_read(pack: Path) -> None:
    """A pipe in a pack would hang whoever opens it."""
    os.mkfifo(pack / "run_logs/pipe")
    assert verify(pack)[0].path == "run_logs/pipe"


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../b", "C:x", "a\\b", "", "a//b", "é", "a\nb"])
def test_a_manifest_cannot_reach_outside(pack: Path, path: str) -> None:
    """A path that leaves the pack is refused before anything is opened."""
    manifest = orjson.loads((pack / "manifest.json").read_bytes())
    manifest["files"][0]["path"] = path
    (pack / "manifest.json").write_bytes(encode(manifest))
    assert verify(pack)[0].tag == "UNSAFE"


def test_names_that_differ_only_in_case_are_refused(pack: Path) -> None:
    """On some file systems one of them would be read for the other."""
    (pack / "readme.MD").write_text("another story")
    assert "only in case" in str(verify(pack)[0])


def test_a_huge_file_is_refused_unread(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is on the size that the file system tells."""
    monkeypatch.setattr(listing.limits, "PACK_FILE_BYTES_MAX", 2_000_000)
    with (pack / "README.md").open("wb") as stream:
        stream.truncate(3_000_000)
    assert "more than 2000000" in str(verify(pack)[0])


def test_a_recording_that_unpacks_without_end_is_refused(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes of gzip can hold gigabytes."""
    (pack / FOLDER / "recording.jsonl.gz").write_bytes(gzip.compress(b"\n" * 5_000_000, mtime=0))
    monkeypatch.setattr(inputs.limits, "RECORDING_BYTES_MAX", 1_000_000)
    rebuild_manifest(pack)
    assert "unpacks to more" in str(verify(pack)[0])


def test_a_recording_of_one_endless_line_is_refused(tmp_path: Path) -> None:
    """A line is read whole, so its length is bounded, too."""
    file = tmp_path / "recording.jsonl.gz"
    file.write_bytes(gzip.compress(b"x" * (limits.DOCUMENT_BYTES_MAX * 4 + 2), mtime=0))
    assert inputs.unpacked(file).wrong is not None


@pytest.mark.parametrize(("at", "to", "also"), [(-1, "0", "is not the one that was packed"), (0, "G", "no sha256"),
                                                (5, "A", "no sha256"), (5, "Ａ", "no sha256")])
def test_a_digest_altered_in_the_manifest_is_named_there(pack: Path, at: int, to: str, also: str) -> None:
    """The file is as it was: it is not the only one to be named. One that is a digest still is refuted by the run log."""
    manifest = orjson.loads((pack / "manifest.json").read_bytes())
    digest = [*manifest["files"][3]["sha256"]]
    digest[at] = to if digest[at] != to else "1"
    manifest["files"][3]["sha256"] = "".join(digest)
    (pack / "manifest.json").write_bytes(orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2) + b"\n")
    found = verify(pack)
    assert [str(each) for each in found if each.path == "manifest.json" and also in each.message], found


def test_without_a_manifest_what_is_unsafe_is_told_all_the_same(pack: Path) -> None:
    """What lies there and what is missing are two findings' worth; neither is a traceback."""
    (pack / "manifest.json").unlink()
    (pack / "empty").mkdir()
    assert [each.tag for each in verify(pack)] == ["UNSAFE"]


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b'{"files": null}', b'{"format": 1, "files": [1]}', b"\xff",
                                  b"[" * 9000])
def test_a_broken_manifest_is_a_finding(pack: Path, data: bytes) -> None:
    """Never a traceback."""
    (pack / "manifest.json").write_bytes(data)
    assert verify(pack)[0].path == "manifest.json"


def test_no_folder_is_no_pack(tmp_path: Path) -> None:
    """Nothing, an empty folder and a file are all not intact."""
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name in ("nothing", "file", "empty"):
        assert verify(tmp_path / name)


def test_a_judge_that_raises_is_a_finding(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever an input provokes, the answer is that the pack could not be derived."""
    def broken(folder: Path, rules: Path, timeline: object) -> dict:
        raise RecursionError("too deep")

    monkeypatch.setattr(derive_room, "judge", broken)
    assert "nothing can be derived: RecursionError" in str(verify(pack)[0])


def test_a_pack_of_another_judge_differs(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When judging gives another verdict than the pack shows, the pack is not intact."""
    monkeypatch.setattr(derive_room, "judge", lambda folder, rules, timeline: {**fake_judge(folder), "verdict": "FAIL"})
    assert f"{FOLDER}/verdict.json" in [each.path for each in verify(pack)]


def test_a_verdict_that_the_run_log_does_not_tell_is_found(make_run: MakeRun, root: Path, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that was edited between the run and the pack: every page follows from it, and the log knows better."""
    run = make_run(latched=False)
    monkeypatch.setattr(derive_room, "judge", lambda folder, rules, timeline: {**fake_judge(folder), "verdict": "PASS"})
    (found,) = verify(build([run], 2, tmp_path / "evidence", root))
    assert (found.tag, found.path) == ("RUNLOG", "run_log.jsonl")
    assert "says FAIL of the run" in found.message and "judged now it is PASS" in found.message


def test_the_seal_state_of_an_unsealed_pack(pack: Path) -> None:
    """Intact and unsigned are two words."""
    assert examine(pack).seal_says.startswith("UNSIGNED")


HOSTILE = "</script><script>alert(1)</script> \x1b[2J \u202etxt.exe ]]> | `x` <img src=x onerror=y> \"'&amp;"


def test_hostile_text_has_no_power_in_any_page(make_run: MakeRun, root: Path, tmp_path: Path) -> None:
    """What a drilled system says is shown, never obeyed: no tag, no terminal command, no turned text."""
    run = make_run(says=HOSTILE, document={"owner_view": HOSTILE, "trading_mode": HOSTILE},
                   versions={"operator": HOSTILE, "started_utc": HOSTILE}, latched=False)
    made = build([run], 2, tmp_path / "evidence", root)
    assert verify(made) == []
    pages = [made / path for path in ("SUMMARY_1PAGE.md", "README.md", "report.html", "test_results.txt", "test_results.xml")]
    pages += [file for file in (made / FOLDER).iterdir() if file.suffix in {".md", ".txt", ".log", ".svg"}]
    pages += [*(made / "metrics_exports").iterdir(), *(made / "run_logs").iterdir()]
    for file in pages:
        text = file.read_text()
        assert "\x1b" not in text and "\u202e" not in text, file
        if file.suffix in {".html", ".svg", ".md", ".xml"}:
            assert "<script" not in text.replace("\\<script", "") and "<img" not in text.replace("\\<img", ""), file


def test_the_report_has_no_script_and_loads_nothing(pack: Path) -> None:
    """A report is opened by people who did not make it."""
    text = (pack / "report.html").read_text()
    assert "<script" not in text
    assert "http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'" in text
    assert not [word for word in ("src=", "url(", "@import", "http://", "https://") if word in text.replace(
        'xmlns="http://www.w3.org/2000/svg"', "")]
