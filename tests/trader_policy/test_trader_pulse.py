"""Signs of life: lost at once, earned again slowly."""

from __future__ import annotations

import pytest

from system_under_test.trader.pulse import Pulse


def pulse(*beats: int) -> Pulse:
    made = Pulse(lost_after_ms=10_000, steady_ms=1_500, dwell_ms=3_000)
    for each in beats:
        made.beat(each)
    return made


def test_every_sign_counts_while_none_was_missed_for_long() -> None:
    """The first one, the next, and one that comes just within the limit."""
    assert pulse().ts is None
    assert pulse(500).ts == 500
    assert pulse(500, 1_000, 11_000).ts == 11_000


def test_after_a_silence_what_counts_is_the_last_sign_before_it() -> None:
    """However many come at once when the silence ends."""
    assert pulse(500, 10_501).ts == 500
    assert pulse(500, *[20_000] * 40).ts == 500


@pytest.mark.parametrize(("beats", "counts"), [
    (range(20_000, 22_999, 500), 500), (range(20_000, 23_001, 500), 23_000),
    ((20_000, 21_000, 22_600, 23_500), 500), ((20_000, 21_000, 22_600, 24_000, 25_500, 25_600), 25_600)])
def test_steady_signs_earn_it_again(beats: range | tuple[int, ...], counts: int) -> None:
    """After the dwell, which a gap begins anew."""
    assert pulse(500, *beats).ts == counts
