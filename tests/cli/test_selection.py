"""Which drills a command means: sets leave out by name what needs another world, and what was named is refused aloud."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from harness import cli, compare
from harness.errors import TextError
from harness.recording import script
from harness.selection import choose

ROOT = Path(__file__).resolve().parent.parent.parent
PLAIN = ROOT / "drills" / "phase2" / "2_market_data_stale.yaml"
LAWFUL = ROOT / "fixtures" / "recordings" / "lawful"


def elsewhere(folder: Path, worlds: str = "[docker]") -> Path:
    """A drill that names the worlds it is meant for."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "99_elsewhere.yaml"
    file.write_text(PLAIN.read_text().replace("drill: 2_market_data_stale", f"drill: 99_elsewhere\nworlds: {worlds}"))
    return file


def test_a_set_leaves_out_and_names_what_needs_another_world(tmp_path: Path) -> None:
    """The reason is said; in the worlds that the drill is meant for nothing is left out."""
    file = elsewhere(tmp_path, "[sim, docker]")
    choice = choose([str(tmp_path)], "local")
    assert choice.files == () and choice.says() == ["NOT RUN in local: 99_elsewhere: needs sim or docker"]
    for world in ("sim", "docker"):
        assert choose([str(tmp_path)], world).files == (file.resolve(),)


def test_one_that_was_named_is_not_left_out(tmp_path: Path) -> None:
    """By its path, also beside the set that would leave it out."""
    file = elsewhere(tmp_path)
    for names in ([str(file)], [str(tmp_path), str(file)], [str(file), str(tmp_path)]):
        choice = choose(names, "sim")
        assert choice.files == (file.resolve(),) and choice.left_out == {}


def test_run_tells_what_it_left_out_and_fails_for_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To people in a line, to machines in ``not_run``; a set of which nothing is left has proven nothing."""
    elsewhere(tmp_path / "drills")
    asked = ["run", str(tmp_path / "drills"), "--world", "sim", "--out", str(tmp_path / "out")]
    assert cli.main(asked) == 3
    assert "NOT RUN in sim: 99_elsewhere: needs docker" in capsys.readouterr().out
    assert cli.main([*asked, "--json"]) == 3
    told = orjson.loads(capsys.readouterr().out)
    assert told == {"drills": [], "not_run": [{"drill": "99_elsewhere", "world": "sim", "needs": "docker"}]}


def test_one_that_was_named_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It starts nothing, is recorded as refused, and exits as refusals do."""
    asked = ["run", str(elsewhere(tmp_path / "drills")), "--world", "sim", "--out", str(tmp_path / "out"), "--json"]
    assert cli.main(asked) == 3
    (result,) = orjson.loads(capsys.readouterr().out)["drills"]
    assert result["status"] == "refused" and result["says"][0] == "99_elsewhere: needs docker, and this is sim"


@pytest.mark.parametrize(("worlds", "says"), [
    ("[moon]", "sim, local, docker"),
    ("[dokcer]", "docker"), ("[]", "no world"), ("[sim, sim]", "twice"), ("sim", "a list of worlds")])
def test_a_world_that_nobody_has_is_refused_in_its_place(tmp_path: Path, worlds: str, says: str) -> None:
    """With file, line and column, like any other word of a drill."""
    file = elsewhere(tmp_path, worlds)
    with pytest.raises(TextError) as caught:
        choose([str(file)], "sim")
    assert f"{file}:3:" in str(caught.value) and says in str(caught.value)


def test_what_says_no_mode_is_named_and_the_rest_compared(tmp_path: Path) -> None:
    """One drill that never looks at the trader does not keep the others from being compared; alone it cannot be."""
    one = script.build(script.read(LAWFUL / "market_data_stale.yaml"), tmp_path / "one")
    dumb = script.build(script.read(LAWFUL / "own_system.yaml"), tmp_path / "dumb")
    sides = {"stale": one, "dumb": dumb}
    found, modeless = compare.compared(sides, sides, ["stale", "dumb"])
    assert [each.agree for each in found] == [True]
    assert len(modeless) == 1 and modeless[0].startswith("NOT COMPARED: dumb: nothing that it watches says a mode")
    for drills in (["dumb"], ["dumb", "dumb"]):
        with pytest.raises(compare.Unusable):
            compare.compared(sides, sides, drills)


def test_what_needs_another_world_is_no_difference(tmp_path: Path) -> None:
    """``compare`` names it; a drill that one side simply lacks still makes them differ."""
    told = script.read(LAWFUL / "market_data_stale.yaml")
    one, other = (script.build(told | {"world": world}, tmp_path / world) for world in ("sim", "local"))
    more = script.build(told | {"world": "sim"}, tmp_path / "more")
    (more / "drill.yaml").write_bytes(elsewhere(tmp_path / "drills", "[sim, docker]").read_bytes())
    sides = {"stale": one, "99_elsewhere": more}, {"stale": other}
    needs = ["NOT RUN in local: 99_elsewhere: needs sim or docker"]
    assert compare.unpaired(*sides) == compare.unpaired(*reversed(sides)) == ([], needs)
    (more / "drill.yaml").write_bytes(PLAIN.read_bytes())
    assert compare.unpaired(*sides) == compare.unpaired(*reversed(sides)) == (["99_elsewhere"], [])
