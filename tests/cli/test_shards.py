"""Every drill is in exactly one shard, on whatever machine the set is divided, and no shard is much longer than another."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from harness import arguments, cli, shards
from harness.drill.text import Specs, load
from harness.errors import UsageError
from harness.selection import choose
from harness.shards import Shard, divided, parse_shard
from harness.world.stack import load_stack

LENGTHS = some.dictionaries(some.text("abc123_", min_size=1, max_size=6), some.integers(1, 600_000), min_size=1, max_size=40)


def drills(policy: str, world: str = "local") -> list[shards.Drill]:
    stack = load_stack(arguments.STACK)
    specs = Specs.of(cli.ROOT, stack, stack.policy(policy))
    return [load(file, specs) for file in choose(["phase2"], world).files]


@settings(deadline=None)
@given(LENGTHS, some.integers(1, 40))
def test_every_name_is_in_exactly_one_shard(lengths: dict[str, int], of: int) -> None:
    """Whatever the lengths; none is empty, and the longest is at most one drill longer than the shortest."""
    if of > len(lengths):
        with pytest.raises(UsageError, match="at most"):
            divided(lengths, of)
        return
    found = divided(lengths, of)
    assert sorted(name for each in found for name in each) == sorted(lengths)
    loads = [sum(lengths[name] for name in each) for each in found]
    assert min(map(len, found)) > 0 and max(loads) - min(loads) <= max(lengths.values())


@settings(deadline=None)
@given(LENGTHS, some.randoms())
def test_the_division_does_not_depend_on_the_order(lengths: dict[str, int], random: object) -> None:
    """Two machines that list a folder differently divide it alike."""
    names = list(lengths)
    random.shuffle(names)  # type: ignore[attr-defined]
    of = min(3, len(names))
    assert list(map(set, divided({name: lengths[name] for name in names}, of))) == list(map(set, divided(lengths, of)))


@pytest.mark.parametrize("policy", ["drill", "reference"])
@pytest.mark.parametrize("of", [1, 2, 3, 4, 5, 8])
def test_phase_2_is_divided_whole(policy: str, of: int) -> None:
    """All drills of the set, each once, and the longest shard at most a third longer than its share, or one drill."""
    all_of_it = drills(policy)
    parts = [shards.part(all_of_it, Shard(number, of)) for number in range(1, of + 1)]
    assert sorted(file for each in parts for file in each) == sorted(each.file for each in all_of_it)
    lengths = {each.file: shards.length_ms(each) for each in all_of_it}
    longest = max(sum(lengths[file] for file in each) for each in parts)
    assert longest <= max(4 * sum(lengths.values()) / of / 3, max(lengths.values()))


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "1", "1/", "/4", "-1/4", "1/4/4", "a/b", "1.0/4", "1/9999", "", "١/٤"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    """With what was found and what is expected."""
    with pytest.raises(UsageError, match="expected K/N such as 2/4"):
        parse_shard(text)


def test_run_runs_its_shard_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two drills each of two shards runs one; a third shard would be empty and is refused before anything starts."""
    names = ["2_market_data_stale", "12_exchange_maintenance"]
    run = ["run", *names, "--world", "sim", "--json", "--jobs", "1", "--out", str(tmp_path)]
    found = []
    for number in (1, 2):
        assert cli.main([*run, "--shard", f"{number}/2"]) == 0
        told = capsys.readouterr()
        found += [each["drill"] for each in orjson.loads(told.out)["drills"]]
        assert f"shard {number}/2: 1 of 2 drills" in told.err
    assert sorted(found) == sorted(names)
    assert cli.main([*run, "--shard", "3/3"]) == 2
    assert "2 drills make at most 2 shards" in capsys.readouterr().err
