"""The workflow files: every step is a command that exists, what they may do is little, and actionlint has no objection."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import arguments, cli, nightly, shards, texts

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
VARIABLES = set(re.findall(r"^([A-Z]+) +\?=", MAKEFILE, re.MULTILINE))
SAMPLES = {"${{ matrix.shard }}": "1", '"$GITHUB_STEP_SUMMARY"': "summary.md"}
PINNED = re.compile(r"[a-z-]+/[a-z-]+(/[a-z-]+)?@(v[0-9]+|[0-9a-f]{40})")


def load(file: Path) -> dict[str, Any]:
    """Strictly, as every text of ours; so ``on`` stands in quotes, which YAML would read as true without."""
    value = texts.load(file.read_bytes(), file.name)
    assert isinstance(value, dict)
    return value


def steps(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in document["jobs"].values():
        yield from job["steps"]


def wrong_with(run: str) -> str | None:
    """Why a step's command is none that a person could type here, or None."""
    for sample, value in SAMPLES.items():
        run = run.replace(sample, value)
    words = shlex.split(run)
    if any(character in run for character in "$;|&`<>\n"):
        return "is more than one command, or asks the shell for something"
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        given = [word.partition("=")[0] for word in words[1:] if "=" in word]
        return None if targets and set(targets) <= TARGETS and set(given) <= VARIABLES else "no such target or variable"
    if words[0] != ".venv/bin/drillproof":
        return "neither make nor drillproof"
    try:
        parsed = arguments.parse(cli.FUNCTIONS, words[1:])
    except SystemExit:
        return "drillproof does not take that"
    if getattr(parsed, "shard", None):
        shards.parse_shard(parsed.shard)
    return None


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_step_is_a_command_that_exists(file: Path) -> None:
    """A make target with its variables, or a drillproof command with its options; one a step."""
    runs = [step["run"].strip() for step in steps(load(file)) if "run" in step]
    assert runs and [(run, why) for run in runs if (why := wrong_with(run))] == []


@pytest.mark.parametrize("run", ["make nigthly", "make nightly WRLD=sim", "make", ".venv/bin/drillproof pakc 2",
                                 "drillproof doctor", ".venv/bin/drillproof run phase2 --shrad 1/4", "echo hello",
                                 "make test && make check",
                                 ".venv/bin/drillproof gate 2 --only x > file"])
def test_a_step_that_does_not_exist_is_found(run: str) -> None:
    """The test above can fail: on a misspelt target, variable, command or option, and on a line of shell."""
    assert wrong_with(run) is not None


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_workflow_may_do_little(file: Path) -> None:
    """It reads the repository and writes nothing; it ends; it does not run twice at once; what it uses is pinned."""
    document = load(file)
    assert document["permissions"] == {"contents": "read"} and document["concurrency"]["group"]
    assert all(isinstance(job["timeout-minutes"], int) and "permissions" not in job for job in document["jobs"].values())
    used = [step["uses"] for step in steps(document) if "uses" in step]
    assert [each for each in used if not PINNED.fullmatch(each)] == []
    assert all(step["with"]["persist-credentials"] is False for step in steps(document) if "checkout" in step.get("uses", ""))
    assert all(set(step) & {"run", "uses"} and "continue-on-error" not in step for step in steps(document))


def test_a_pull_request_needs_no_containers() -> None:
    """Only the simulator, and nothing of the night."""
    runs = [step["run"] for step in steps(load(ROOT / ".github" / "workflows" / "pull_request.yml")) if "run" in step]
    assert runs == ["make setup", "make check", "make workflows", "make test", "make rehearse",
                    ".venv/bin/drillproof mutants --quick",  # the tests have a share of the sabotages only
                    "make placebos"]


def test_the_shards_of_the_night_are_all_joined() -> None:
    """The matrix counts from one to the number that each run names, and every one of them is in the merge."""
    jobs = load(ROOT / ".github" / "workflows" / "nightly.yml")["jobs"]
    numbers = jobs["shard"]["strategy"]["matrix"]["shard"]
    runs = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert any(f"--shard ${{{{ matrix.shard }}}}/{len(numbers)} " in run for run in runs)
    (merge,) = (run for run in runs if "--merge" in run)
    assert merge.split("--merge")[1].split() == [f"evidence/shards/shard-{number}" for number in numbers]


def test_the_gate_has_the_last_word() -> None:
    """And it is asked of tonight's pack or not at all: where none was joined, an older one that lies there opens nothing."""
    steps = load(ROOT / ".github" / "workflows" / "nightly.yml")["jobs"]["night"]["steps"]
    assert steps[-1]["run"].endswith("gate 2 --only fault-injection")
    assert all("steps.join.outcome == 'success'" in step["if"] for step in steps[-2:])
    assert [step.get("id") for step in steps].count("join") == 1


def test_make_nightly_does_what_the_workflow_does(tmp_path: Path) -> None:
    """The same commands with the same options, in the same order; only where things lie differs."""
    jobs = load(ROOT / ".github" / "workflows" / "nightly.yml")["jobs"]
    written = [[plain(run) for step in job["steps"] if (run := step.get("run", "")).startswith(".venv/bin/drillproof")]
               for job in (jobs["shard"], jobs["night"])]
    one = nightly.shard_steps("docker", "reference", 1, 4, None, tmp_path)
    all_of_it = nightly.night_steps([tmp_path], tmp_path, "docker")
    assert written[0] == [plain(str(step)) for step in one]
    assert [each for each in written[1] if each != ["prune"]] == [plain(str(step)) for step in all_of_it]


def plain(run: str) -> list[str]:
    """A command without the places in it."""
    words = shlex.split(run.replace("${{ matrix.shard }}", "1"))[1:]
    words = words[:words.index("--merge") + 1] if "--merge" in words else words
    words = words[:words.index("--out")] if "--out" in words else words
    return [Path(word).name if word.endswith("phase2") else word for word in words]


def test_actionlint_has_no_objection() -> None:
    """`make workflows` builds it; where it cannot be had, that is said."""
    found = shutil.which("actionlint") or shutil.which(str(ROOT / ".drillproof" / "bin" / "actionlint"))
    if found is None:
        pytest.skip("no actionlint on PATH or in .drillproof/bin: `make workflows` builds it with Go")
    done = subprocess.run([found, "-no-color", "-shellcheck=", "-pyflakes=", *map(str, FILES)], capture_output=True, text=True,
                          timeout=120, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "")
