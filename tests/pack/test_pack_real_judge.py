"""A pack of a hand-made lawful recording under the real judge: nothing is faked here but the recording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from pack_kit import COMMIT, REPOSITORY

from harness.pack import derive
from harness.pack.build import build
from harness.pack.inputs import content_sha256
from harness.pack.listing import encode, make_manifest
from harness.pack.manifest import verify
from harness.pack.origin import machines_of, rules_digests
from harness.pack.runlog import RunLog
from harness.recording import script
from harness.recording.tape import Tape
from harness.verdict.judge import judge
from harness.world.stack import load_stack

LAWFUL = REPOSITORY / "fixtures/recordings/lawful/market_data_stale.yaml"
FOLDER = "incident_drills/drill_hand-made"


@pytest.fixture
def real_pack(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recording with a session's whole head, its log lines, its versions, and the pack made of it."""
    monkeypatch.setattr(derive, "judge", judge)
    head = Tape.head

    def whole_head(tape: Tape, **fields: Any) -> None:
        surfaces = {name: {**each, "contract": "csp_status", "node": "trader"} for name, each in fields["surfaces"].items()}
        head(tape, **{**fields, "surfaces": surfaces, "rules": rules_digests(root), "system": "s", "recorder": "r",
                         "machines": machines_of(load_stack(REPOSITORY / "fixtures/recordings/stacks/reference.yaml")),
                      "proxy": {"kind": "sim", "version": "1"}})

    monkeypatch.setattr(Tape, "head", whole_head)
    evidence = tmp_path / "evidence"
    log = RunLog(evidence / "runs.jsonl")
    entry = log.started("hand", {"drill": "hand-made", "world": "sim", "placebo": False, "machines": {}, "commit": COMMIT,
                                 "dirty": False})
    run = script.build(script.read(LAWFUL), evidence / "runs" / "hand")
    (run / "versions.json").write_bytes(encode({"run_id": "hand", "git": {"commit": COMMIT, "dirty": False}}))
    log.ended(entry, {"status": "completed", "verdict": "PASS", "recording_sha256": content_sha256(run)})
    return build([run], 2, evidence, root)


def test_it_is_intact_and_passed(real_pack: Path) -> None:
    """The real judge finds PASS, and deriving again gives the same bytes."""
    assert verify(real_pack) == []
    assert orjson.loads((real_pack / FOLDER / "verdict.json").read_bytes())["verdict"] == "PASS"


def test_the_verdict_follows_from_the_pack_alone(real_pack: Path) -> None:
    """Judging the pack's recording by the pack's rules gives verdict.json byte for byte."""
    assert encode(judge(real_pack / FOLDER, real_pack / "rules")) == (real_pack / FOLDER / "verdict.json").read_bytes()


def test_the_golden_sample_is_the_one_shown(real_pack: Path) -> None:
    """observed_status.json is the document that the golden was judged on, and every difference has its reason."""
    verdict = orjson.loads((real_pack / FOLDER / "verdict.json").read_bytes())
    observed = orjson.loads((real_pack / FOLDER / "observed_status.json").read_bytes())
    assert observed == verdict["golden"]["details"]["observed"]
    text = (real_pack / FOLDER / "diff.txt").read_text()
    assert "judged: PASS" in text
    assert "NOT TOLERATED" not in text and "tolerated: " in text


def test_the_validation_log_is_the_contracts_word(real_pack: Path) -> None:
    """The observed document is checked against the contract of the pack's own rules."""
    assert "ms: lawful" in (real_pack / FOLDER / "validation.log").read_text()


def test_a_forged_stream_is_named(real_pack: Path) -> None:
    """A stream from which a row was taken no longer fits the recording's seal."""
    file = real_pack / FOLDER / "streams/books.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-1]))
    (real_pack / "manifest.json").unlink()
    (real_pack / "manifest.json").write_bytes(make_manifest(real_pack))
    assert [each.path for each in verify(real_pack)] == [f"{FOLDER}/streams/books.jsonl"]
