"""Run folders as a session leaves them, a checkout at hand, and a judge whose verdict a test can decide."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from harness.pack import derive
from harness.pack.build import build
from harness.pack.origin import RECORDER, build_of, machines_of, recorder_sha256, rules_digests, sha256_file, tree_sha256
from harness.pack.runlog import RunLog
from harness.recording.tape import Tape, canonical, read_lines
from harness.world.stack import load_stack, policy_sha256

REPOSITORY = Path(__file__).resolve().parents[2]
DRILL = "2_market_data_stale"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ACTIVE = {"trading_mode": "Active", "mode_reasons": [], "open_permission_blocked_latch": False,
          "open_permission_reason_codes": [], "ws_event_lag_ms": 12}
LATCHED = {"trading_mode": "ReduceOnly", "mode_reasons": ["REDUCEONLY_OPEN_PERMISSION_LATCHED"],
           "open_permission_blocked_latch": True, "ws_event_lag_ms": 3200,
           "open_permission_reason_codes": ["WS_DATA_STALE_RECONCILE_REQUIRED"]}


def fake_judge(folder: Path, rules: Path | None = None, timeline: Any = None) -> dict[str, Any]:
    """PASS when some status document was latched; a pure function of the recording, as the real judge is."""
    lines = list(read_lines(folder / "recording.jsonl.gz"))
    head = lines[0]
    samples = [line for line in lines if line["line"] == "sample"]
    latched = [line["answered"] for line in samples
               if {**line.get("full", {}), **line.get("set", {})}.get("trading_mode") == "ReduceOnly"]
    word = "PASS" if latched else "FAIL"
    hostile = next((line["value"] for line in lines if line["line"] == "probe" and line["what"] == "says"), "")
    says = f"latched at {latched[0]} ms" if latched else "was never latched"
    return {
        "format": 1, "drill": head["drill"]["name"], "world": head["world"], "placebo": head["placebo"],
        "status": "completed", "verdict": word,
        "premises": [check("landed:feed", "PASS", "received bytes stood still while the exchange offered some")],
        "promises": [check("latched", word, f"{says} {hostile}".strip(), latched[0] if latched else None)],
        "laws": [check("contract", "PASS", f"{len(samples)} documents are lawful")],
        "golden": None,
        "time_to_safe_ms": {"upper": latched[0] if latched else None, "lower": 0 if latched else None},
        "samples": {"status": {"answered": len(samples), "silent": 0, "raw": 0}}, "limits": [],
    }


def check(id: str, verdict: str, says: str, at: int | None = None) -> dict[str, Any]:
    """A check of the agreed shape."""
    return {"id": id, "verdict": verdict, "says": says, "at": at, "details": {}}


@pytest.fixture(autouse=True)
def _judged_by_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rooms under test are the packing ones; the judge has tests of its own."""
    monkeypatch.setattr(derive, "judge", fake_judge)


@pytest.fixture(scope="session")
def pristine_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a checkout holds that packing and gating read, copied once."""
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("specs", "fixtures/status", "drills/phase2", "system_under_test/policies"):
        if (REPOSITORY / folder).is_dir():
            shutil.copytree(REPOSITORY / folder, root / folder)
    shutil.copyfile(REPOSITORY / "system_under_test/stack.yaml", root / "system_under_test/stack.yaml")
    (root / "harness").mkdir()
    for path in RECORDER:
        (root / path).write_bytes(b"") if path.endswith(".py") else (root / path).mkdir()
    commit_all(root)
    return root


def commit_all(root: Path) -> None:
    """Make a folder a clean checkout: the gate asks git."""
    who = ("-c", "user.name=someone", "-c", "user.email=someone@example.invalid", "-c", "commit.gpgSign=false")
    for words in (("init", "-q"), ("add", "-A"), (*who, "commit", "-q", "-m", "a checkout"), ("gc", "-q")):
        subprocess.run(["git", *words], cwd=root, check=True)


@pytest.fixture
def root(pristine_root: Path, tmp_path: Path) -> Path:
    """A checkout that a test may change."""
    return Path(shutil.copytree(pristine_root, tmp_path / "checkout"))


MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(root: Path, tmp_path: Path) -> MakeRun:
    """Writes a run folder and its lines in the run log, as ``harness.session`` does."""

    def make(drill: str = DRILL, *, latched: bool = True, sealed: bool = True, logged: bool = True, says: str = "",
             head: Mapping[str, Any] | None = None, versions: Mapping[str, Any] | None = None, run_id: str = "",
             document: Mapping[str, Any] | None = None, logged_as: Mapping[str, Any] | None = None,
             ended_as: Mapping[str, Any] | None = None, place: Path | None = None, verdict: str = "") -> Path:
        run_id = run_id or f"{drill}-local-1-20260101T000000Z-aaaaaa"
        evidence = place or tmp_path / "evidence"
        log = RunLog(evidence / "runs.jsonl")
        git = (versions or {}).get("git", {"commit": COMMIT, "dirty": False})
        folder = evidence / "runs" / run_id
        folder.mkdir(parents=True)
        tape = write_run(folder, root, drill, latched=latched, sealed=sealed, says=says, head=head or {},
                         versions={"run_id": run_id, **(versions or {})}, document=document or {})
        told = next(read_lines(folder / "recording.jsonl.gz"))
        facts = {"drill": drill, "world": told["world"], "placebo": told["placebo"], "machines": {}, **git,
                 "drill_sha256": told["drill"]["sha256"], "build": build_of(told), **(logged_as or {})}
        entry = log.started(run_id, facts) if logged else None
        if entry is not None and sealed:
            word = verdict or ("PASS" if latched else "FAIL")
            log.ended(entry, {"status": "completed", "verdict": word, "promises": word, "recording_sha256": tape.sha256,
                              **(ended_as or {})})
        return folder

    return make


def write_run(folder: Path, root: Path, drill: str, *, latched: bool, sealed: bool, says: str,
              head: Mapping[str, Any], versions: Mapping[str, Any], document: Mapping[str, Any]) -> Tape:
    """One recording: calm, a stalled feed, a latched trader (or not), calm again."""
    stack = load_stack(root / "system_under_test/stack.yaml")
    policy = stack.policy("drill")
    shutil.copyfile(next(root.glob(f"drills/*/{drill}.yaml")), folder / "drill.yaml")
    (folder / "stack.yaml").write_bytes(stack.text)
    (folder / "policy.json").write_bytes(orjson.dumps(policy, option=orjson.OPT_INDENT_2))
    tape = Tape(folder)
    tape.head(**{
        "drill": {"name": drill, "sha256": sha256_file(folder / "drill.yaml")},
        "stack": {"name": stack.name, "sha256": stack.sha256},
        "policy": {"name": "drill", "sha256": policy_sha256(policy)},
        "rules": rules_digests(root), "system": tree_sha256(root / "system_under_test"), "seed": 1,
        "recorder": recorder_sha256(root), "machines": machines_of(stack),
        "world": "local", "placebo": False, "build": "reference-1",
        "proxy": {"kind": "toxiproxy", "version": "2.12.0", "sha256": "ab" * 32},
        "surfaces": {"status": {"every_ms": 50, "contract": "csp_status", "node": "trader"}},
        "links": {}, "nodes": {}, **head})
    tape.mark("started", 0, 900)
    tape.clock("exchange", 900, 902, 50_000)
    tape.clock("trader", 900, 904, 70_000)
    tape.mark("given", 1000, 4000)
    for due in range(1000, 14_000, 50):
        troubled = latched and 7200 <= due < 11_000
        tape.sample("status", due, due, due + 2, {**ACTIVE, **(LATCHED if troubled else {}), **document})
        if due == 4000:
            tape.mark("feed", 4001, 4003)
            tape.probe("feed", "says", says, 4004)
        if due == 10_000:
            tape.mark("feed.healed", 10_001, 10_003)
    tape.silence("status", 14_000, 14_000, 16_000, "timeout")
    tape.mark("healed", 10_003, 10_004)
    tape.mark("stopped", 16_000, 16_100)
    streams = {name: write_stream(folder, name, rows) for name, rows in _rows(says).items()}
    tape.seal("completed", streams) if sealed else tape.close()
    (folder / "versions.json").write_bytes(orjson.dumps({
        "started_utc": "2026-01-01T00:00:00+00:00", "ended_utc": "2026-01-01T00:01:00+00:00",
        "git": {"commit": COMMIT, "dirty": False}, "operator": "someone", "host": "somewhere", **versions}))
    return tape


def _rows(says: str) -> dict[str, list[dict[str, Any]]]:
    return {
        "books": [{"at": 50_000 + 700 * n, "kind": "order", "outcome": "accepted", "opening": n % 2 == 0} for n in range(9)],
        "ledger": [{"at": 70_000, "kind": "boot"}],
        "notes": [{"at": 70_000 + 100 * n, "kind": "refused", "code": "OpenPermissionLatched", "intent_id": f"i{n}"}
                  for n in range(20)] + [{"at": 77_000, "kind": "mode", "from": "Active", "to": says or "ReduceOnly"}],
    }


def write_stream(folder: Path, name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A stream's file and what the seal says about it."""
    file = folder / "streams" / f"{name}.jsonl"
    file.write_bytes(b"".join(canonical(row) + b"\n" for row in rows))
    return {"n": len(rows), "sha256": sha256_file(file), "torn_bytes": 0}


@pytest.fixture
def pack(make_run: MakeRun, root: Path, tmp_path: Path) -> Path:
    """An intact pack of two drills, one passed and one failed."""
    runs = [make_run(), make_run("11_clock_drift", latched=False)]
    return build(runs, 2, tmp_path / "evidence", root)
